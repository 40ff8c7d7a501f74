"""What the cases are written with: a `Case` does one operation after the other and prints each."""

import ctypes
import errno
import hashlib
import os
import signal
import stat
import sys
import time
import traceback

CASES = []
TOP = []
LIBC = ctypes.CDLL(None, use_errno=True)
CASE_SECONDS = 300
STUCK_CASES_ALLOWED = 3

TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}


def case(function):
    """Registers a case for every user."""
    CASES.append(function)
    return function


def system_call(function, *args):
    """Calls a function of libc and turns -1 into the OSError of its errno."""
    result = function(*args)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def error_name(error):
    """ENOENT rather than 2."""
    return errno.errorcode.get(error.errno, f"errno {error.errno}")


def show(value):
    """A value as printable text; long bytes as their length and a digest."""
    if isinstance(value, (bytes, bytearray)) and len(value) > 64:
        return f"{len(value)} bytes {hashlib.sha256(value).hexdigest()[:16]}"
    if isinstance(value, (os.stat_result, os.statvfs_result)):
        return "ok"
    return "ok" if value is None else ascii(value)


def attributes(status):
    """The attributes of a file that must be the same wherever it is."""
    kind = TYPES[stat.S_IFMT(status.st_mode)]
    text = f"{kind} {stat.S_IMODE(status.st_mode):04o} {status.st_uid}:{status.st_gid} nlink {status.st_nlink}"
    if kind in ("file", "symlink"):
        text += f" size {status.st_size}"
    if kind in ("char", "block"):
        text += f" device {os.major(status.st_rdev)},{os.minor(status.st_rdev)}"
    return text


def moved(before, after):
    """Which times went which way between two stats of a file."""
    words = []
    for name in ("atime", "mtime", "ctime"):
        old, new = (getattr(status, f"st_{name}_ns") for status in (before, after))
        words.append(f"{name} {'same' if old == new else 'later' if old < new else 'earlier'}")
    return ", ".join(words)


def let_clock_pass(status):
    """Waits until a time stamp given now is later than those of `status`."""
    newest = max(status.st_ctime_ns, status.st_mtime_ns)
    deadline = time.monotonic() + 10
    while time.clock_gettime_ns(5) <= newest:  # 5: CLOCK_REALTIME_COARSE
        if time.monotonic() > deadline:
            raise RuntimeError("the file has a time stamp in the future")
        time.sleep(0.001)


def as_other_user(function):
    """Runs a function in a child process and gives its exit status: for what needs two processes."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            status = function() or 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Case:
    """One case: works in its own directory, which is the working directory."""

    def say(self, text):
        """Prints one line of the transcript."""
        print("  " + text)

    def do(self, label, function, *args, **keywords):
        """Calls a function, prints its result or its error, and gives the result (None on error)."""
        try:
            result = function(*args, **keywords)
        except OSError as error:
            self.say(f"{label}: {error_name(error)}")
            return None
        self.say(f"{label}: {show(result)}")
        return result

    def open(self, label, path, flags, mode=0o666, **keywords):
        """Opens a file, prints whether it went, and gives the descriptor (None on error)."""
        try:
            descriptor = os.open(path, flags, mode, **keywords)
        except OSError as error:
            self.say(f"{label}: {error_name(error)}")
            return None
        self.say(f"{label}: opened")
        return descriptor

    def attr(self, *paths):
        """Prints the attributes of files, not following links."""
        for path in paths:
            try:
                text = attributes(os.lstat(path))
            except OSError as error:
                text = error_name(error)
            self.say(f"{show(path) if isinstance(path, bytes) else path}: {text}")

    def fattr(self, label, descriptor):
        """Prints the attributes of an open file."""
        self.say(f"{label}: {attributes(os.fstat(descriptor))}")

    def content(self, *paths):
        """Prints what is in files."""
        for path in paths:
            self.do(f"content of {path}", read_file, path)

    def listing(self, path="."):
        """Prints the names in a directory with the types that the listing gives them."""
        entries = []
        with os.scandir(path) as found:
            for entry in found:
                kind = (
                    "symlink" if entry.is_symlink()
                    else "directory" if entry.is_dir(follow_symlinks=False)
                    else "file" if entry.is_file(follow_symlinks=False)
                    else "other"
                )
                same = entry.inode() == os.lstat(entry.path).st_ino
                entries.append(f"{entry.name!a} {kind}{'' if same else ' with another inode number'}")
        self.say(f"listing of {path}: {', '.join(sorted(entries))}")

    def same(self, one, other):
        """Prints whether two names are one file."""
        left, right = os.lstat(one), os.lstat(other)
        answer = (left.st_ino, left.st_dev) == (right.st_ino, right.st_dev)
        self.say(f"{one} and {other} are the same file: {answer}")

    def times(self, label, paths, function, *args, **keywords):
        """Does an operation and prints which times of which files it moved."""
        paths = paths.split()
        before = {path: os.lstat(path) for path in paths}
        for status in before.values():
            let_clock_pass(status)
        self.do(label, function, *args, **keywords)
        for path in paths:
            try:
                self.say(f"  {path}: {moved(before[path], os.lstat(path))}")
            except OSError as error:
                self.say(f"  {path}: {error_name(error)}")


def write_file(path, data=b"", mode=0o666):
    """Makes or replaces a file with this content."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def append_file(path, data):
    """Appends to a file in one write."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        return os.write(descriptor, data)
    finally:
        os.close(descriptor)


def read_file(path):
    """The whole content of a file."""
    with open(path, "rb", buffering=0) as file:
        return file.read()


def print_tree(top):
    """Prints every file below a directory: what the operations left behind."""
    os.chdir(top)
    found = []
    for directory, directories, files in os.walk(b"."):
        found += [os.path.join(directory, name) for name in directories + files]
    for path in sorted(found):
        status = os.lstat(path)
        print(f"== {ascii(path)}")
        print("  " + attributes(status))
        if stat.S_ISREG(status.st_mode):
            print("  " + show(read_file(path)))
        if stat.S_ISLNK(status.st_mode):
            print("  " + show(os.readlink(path)))


def run_one(function, top):
    """Runs a case; a mistake in the case itself is printed as such, and fails the test."""
    os.umask(0o022)
    try:
        os.chdir(top)
        os.mkdir(function.__name__)
        os.chdir(function.__name__)
        function(Case())
    except BaseException:
        print("  CASE BROKE: " + traceback.format_exc().strip().replace("\n", " | ").replace(top, "TOP"))
    sys.stdout.flush()


def run_all(top):
    """Runs every case in a process of its own, so that none can disturb or hang the others."""
    top = os.path.abspath(top)
    TOP[:] = [top]
    stuck = 0
    for function in CASES:
        print(f"== {function.__name__}", flush=True)
        if stuck == STUCK_CASES_ALLOWED:
            print("  CASE BROKE: not tried, too many before it did not end", flush=True)
            continue
        child = os.fork()
        if child == 0:
            run_one(function, top)
            os._exit(0)
        deadline = time.monotonic() + CASE_SECONDS
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                print(f"  CASE BROKE: not done after {CASE_SECONDS} s", flush=True)
                os.kill(child, signal.SIGKILL)
                stuck += 1
                break
            time.sleep(0.0005)
