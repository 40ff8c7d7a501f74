"""A fresh machine, or several, as far as a page can tell.

Each host is a set of namespaces (mounts, processes, host name) with the files of this machine below
an overlay, so whatever is installed or written there is gone at the end, and nobody else sees it.
All hosts share one directory, /net/data, as if over the network: it is on a real disk. A user `me`
is there, with the directory /net/data/me.
"""

import os
import pty
import select
import shutil
import signal
import subprocess
import tempfile
import time

DEADLINE = 300
HERE = os.path.dirname(os.path.abspath(__file__))
CHECKOUT = os.path.dirname(os.path.dirname(HERE))
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ME = 1000

# /tmp, /run and /dev are the host's own.
SET_UP = r"""
base=$1 name=$2 checkout=$3 init=$4
mkdir -p "$base/$name"
mount -t tmpfs -o mode=755 none "$base/$name"
cd "$base/$name"
mkdir upper work root
mount -t overlay overlay -o "lowerdir=/,upperdir=$PWD/upper,workdir=$PWD/work" root
cd root
mkdir -p net/data srv/data data home/me/dotlockfs old
mount --bind "$base/data" net/data
mount --bind "$base/disk" data
mount --bind -o ro "$checkout" home/me/dotlockfs
mount --bind "$base/tmp" tmp
mount -t tmpfs -o mode=1777 none run
mount -t tmpfs -o mode=755 none dev
mkdir dev/pts dev/shm
mount --bind /dev/pts dev/pts
for node in null zero full random urandom tty ptmx fuse; do cp -a "/dev/$node" dev/; done
chmod 666 dev/fuse
ln -s /proc/self/fd dev/fd
mount --rbind /sys sys
pivot_root . old
mount -t proc proc proc
umount --lazy old
rmdir old
hostname "$name"
: >etc/fstab
sed -i '/:1000:/d; /^me:/d' etc/passwd etc/group
echo 'me:x:1000:1000::/home/me:/bin/bash' >>etc/passwd
echo 'me:x:1000:' >>etc/group
rm -f usr/local/bin/dotlockfs usr/sbin/mount.dotlockfs usr/sbin/mount.fuse.dotlockfs
chown 1000:1000 home/me
exec python3 -BIc "$init"
"""

# The first process of a host: waits for those whose parents have ended, and is its syslog.
INIT = r"""
import os, signal, socket, threading

def reap():
    while True:
        signal.sigwait([signal.SIGCHLD])
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
threading.Thread(target=reap, daemon=True).start()
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind("/dev/log")
os.chmod("/dev/log", 0o666)
with open("/var/log/syslog", "wb", buffering=0) as file:
    os.write(1, b"ready\n")
    while True:
        file.write(log.recv(65536).rstrip(b"\n\0") + b"\n")
"""

# Each command has a shell of its own, in the directory where the one before it was left.
RUN = r"""
where=/run/cwd.$(id -un)
cd "$(cat "$where" 2>/dev/null || echo ~)" || exit
eval "$1"
status=$?
pwd 2>/dev/null >"$where"
exit $status
"""


class Host:
    """One machine of a world."""

    def __init__(self, base, name):
        self.name = name
        script = ["sh", "-euc", SET_UP, "sh", base, name, CHECKOUT, INIT]
        namespaces = ["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
        self.keeper = subprocess.Popen(
            ["unshare", *namespaces, "--propagation", "private", "--", *script],
            stdout=subprocess.PIPE,
            env={"PATH": PATH, "LC_ALL": "C.UTF-8"},
        )
        if self.keeper.stdout.readline() != b"ready\n":
            raise RuntimeError("a world could not be made: this takes root and overlayfs")
        children = f"/proc/{self.keeper.pid}/task/{self.keeper.pid}/children"
        with open(children, encoding="ascii") as file:
            self.init = file.read().split()[0]

    def run(self, text, root, answers=None):
        """Runs a command; gives its exit status (None: it did not end), and the lines it printed."""
        words = ["nsenter", f"--target={self.init}", "--mount", "--uts", "--ipc", "--pid"]
        home = "/root"
        if not root:
            home = "/home/me"
            words += ["--setuid", str(ME), "--setgid", str(ME)]
        environment = {
            "PATH": PATH,
            "LC_ALL": "C.UTF-8",
            "HOME": home,
            "USER": "root" if root else "me",
            "COLUMNS": "80",
        }
        words += ["--", "bash", "-c", RUN, "bash", text]
        if answers is None:
            return self.piped(words, environment)
        return self.at_a_terminal(words, environment, answers)

    @staticmethod
    def piped(words, environment):
        program = subprocess.Popen(
            words,
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = program.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            return None, [f"(no end within {DEADLINE} s)"]
        return program.returncode, output.decode(errors="replace").splitlines()

    @staticmethod
    def at_a_terminal(words, environment, answers):
        """The same for one that asks; a terminal shows what is typed."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir("/")
            os.execvpe(words[0], words, environment)
        os.write(terminal, answers.encode())
        output, end = b"", time.monotonic() + DEADLINE
        while time.monotonic() < end:
            if not select.select([terminal], [], [], 1)[0]:
                continue
            try:
                piece = os.read(terminal, 65536)
            except OSError:  # The terminal's other end is closed.
                break
            if not piece:
                break
            output += piece
        else:
            os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(terminal)
        lines = output.decode(errors="replace").replace("\r", "").splitlines()
        # What was typed is shown before the question, since it was typed before it was asked.
        typed = answers.splitlines()
        if lines[: len(typed)] == typed:
            del lines[: len(typed)]
            rest = iter(typed)
            lines = [part for line in lines for part in with_answer(line, rest)]
        return status, lines

    def end(self):
        """Ends all processes of the host, and with them its mounts."""
        self.keeper.kill()
        self.keeper.wait()
        self.keeper.stdout.close()


def with_answer(line, answers):
    """The line of a question, parted after the answer that was typed to it."""
    question, mark, after = line.partition("] ")
    if mark and question.endswith("[y/N"):
        return [question + mark + next(answers, ""), *([after] if after else [])]
    return [line]


class World:
    """Hosts that share a directory; `with World(...) as world`."""

    def __init__(self, binary, names, installed):
        self.base = tempfile.mkdtemp(prefix="dotlockfs-readme-")
        os.chmod(self.base, 0o755)
        for name in ["data", "data/me", "disk", "tmp"]:
            os.mkdir(os.path.join(self.base, name))
        for name in ["data", "tmp"]:
            os.chmod(os.path.join(self.base, name), 0o1777)
        os.chown(os.path.join(self.base, "data", "me"), ME, ME)
        self.hosts = {}
        try:
            for name in names:
                self.hosts[name] = Host(self.base, name)
            if installed:
                shutil.copy(binary, os.path.join(self.base, "disk", "dotlockfs"))
                for host in self.hosts.values():
                    host.run("install -m 755 /data/dotlockfs /usr/local/bin/", root=True)
                os.remove(os.path.join(self.base, "disk", "dotlockfs"))
        except BaseException:
            self.end()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        for host in self.hosts.values():
            host.end()
        shutil.rmtree(self.base, ignore_errors=True)
