"""Processes that make calls one by one, as they are told."""

import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
import traceback

import calls

# False leaves the calls that lock out.
LOCKS = True

# How long anything may take before a case is given up, in seconds.
DEADLINE = 20

# A call that has not answered for this long, in seconds, is said to block. Of two calls that would
# wait for each other it also tells which is the later. Nothing else depends on it being long
# enough: a call that is let in later, but before it may be, is found by its time.
GRACE = 0.1

OPEN = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR, "path": os.O_PATH}


class Broken(Exception):
    """A case that cannot go on."""


def state(pid):
    """The state of a process as ps shows it; "X" where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def comm(pid):
    """The name of the program that a process runs."""
    try:
        with open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as file:
            return file.read().rstrip("\n")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def wait_until(condition, what):
    """Looks again and again."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise Broken(what)
        time.sleep(0.001)


class Stage:
    """Where a case plays: fresh files, and the actors."""

    def __init__(self, place):
        self.place = place
        self.all = []
        # When something was last told to anybody.
        self.told = 0
        for name in ("one", "two"):
            with open(self.path(name), "wb") as file:
                file.write(b"x" * 100)

    def path(self, name="one"):
        """The path of a file."""
        return os.path.join(self.place, name)

    def actors(self, names, opening="rw"):
        """New processes, each with the file "one" open as descriptor "f"."""
        made = [Actor.start(self, name) for name in names.split()]
        for actor in made:
            if opening:
                actor.quietly("open", "f", opening, "one")
        return made

    def name(self, pid):
        """The name of the actor with this process id."""
        names = [actor.name for actor in self.all if actor.pid == pid]
        return names[0] if names else f"process {min(pid, 1)}"

    def say(self, text):
        """A line of the transcript."""
        print(" ", text)

    def shell(self, name, script):
        """Starts a shell script with "one" as its $1."""
        command = ["sh", "-c", script, "sh", self.path()]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        program = Program(self, name, child)
        self.all.append(program)
        self.told = time.monotonic_ns()
        return program

    def appears(self, name):
        """Waits for a file that is not empty."""

        def is_there():
            path = self.path(name)
            return os.path.exists(path) and os.path.getsize(path) > 0

        wait_until(is_there, f"{name} does not appear")

    def clear(self):
        """Ends all actors."""
        for actor in self.all:
            actor.end()


class Program:
    """A shell script that runs."""

    def __init__(self, stage, name, child):
        self.stage, self.name, self.child = stage, name, child
        self.pid = child.pid

    def blocks(self, command):
        """Says whether it goes on running, once it has become this command."""
        wait_until(
            lambda: comm(self.pid) == command or self.child.poll() is not None,
            f"{self.name} does not start",
        )
        try:
            self.child.wait(timeout=GRACE)
        except subprocess.TimeoutExpired:
            self.stage.say(f"{self.name} blocks")
        else:
            self.stage.say(f"{self.name} does not block")

    def ends(self):
        """Says what it printed, and its exit status."""
        output, _ = self.child.communicate(timeout=DEADLINE)
        text = " ".join(output.decode().replace(self.stage.place, "DIR").split())
        self.stage.say(f"{self.name}: [{text}] status {self.child.returncode}")

    def end(self):
        """Kills it."""
        self.child.kill()
        self.child.communicate()


class Actor:
    """One process, seen from the one that directs."""

    def __init__(self, stage, name, pid, link, is_child):
        self.stage, self.name, self.pid = stage, name, pid
        self.link, self.is_child = link, is_child
        self.pending = None
        stage.all.append(self)

    @staticmethod
    def start(stage, name):
        """Starts a process that shares nothing with the others."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            Worker(theirs, stage).serve()
        theirs.close()
        return Actor(stage, name, pid, ours, True)

    def fork(self, name):
        """Lets it fork; gives the child."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = self.call(["fork"], theirs.fileno())
        theirs.close()
        self.stage.say(f"{self.name} forks {name}")
        return Actor(self.stage, name, pid, ours, False)

    # What a call is told and answers.

    def send(self, what, descriptor=None):
        """Begins a call."""
        self.stage.told = time.monotonic_ns()
        descriptors = [] if descriptor is None else [descriptor]
        socket.send_fds(self.link, [json.dumps(what).encode()], descriptors)
        self.receive("calling", DEADLINE)

    def receive(self, what, limit):
        """A message; None where there is none in time."""
        if not select.select([self.link], [], [], limit)[0]:
            return None
        message = self.link.recv(65536)
        if not message:
            raise Broken(f"{self.name} has ended")
        message = json.loads(message)
        if what not in message:
            raise Broken(f"{self.name} says {message}")
        return message

    def answer(self, limit):
        """The answer of the call that was begun; None where there is none in time."""
        message = self.receive("answer", limit)
        return message and (message["answer"], message["at"])

    def call(self, what, descriptor=None):
        """A whole call."""
        self.send(what, descriptor)
        answer = self.answer(DEADLINE)
        if answer is None:
            raise Broken(f"{self.name} {what} does not answer")
        return answer[0]

    def shown(self, answer):
        """An answer as it is printed."""
        if not isinstance(answer, list):
            return answer
        kind, whence, start, length, pid = answer
        return f"{kind} {start}+{length} whence {whence} held by {self.stage.name(pid)}"

    # For the cases.

    def quietly(self, *what):
        """A call that has to succeed, and is not printed."""
        answer = self.call(what)
        if answer != "ok":
            raise Broken(f"{self.name} {what}: {answer}")

    def do(self, *what):
        """A call that should answer at once."""
        self.stage.say(f"{self.name} {line(what)}: {self.shown(self.call(what))}")

    def asks(self, *what):
        """A question for a lock, of which is said whether it is free, not who has it.

        Where locks of open files are concerned `l_pid` is not for a FUSE file system to tell.
        """
        answer = self.call(what)
        if isinstance(answer, list):
            answer = f"{answer[0]} {answer[2]}+{answer[3]}"
        self.stage.say(f"{self.name} {line(what)}: {answer}")

    def waits(self, *what):
        """A call that should block."""
        self.send(what)
        self.pending = line(what)
        answer = self.answer(GRACE)
        if answer is None:
            self.sleeps()
        else:
            self.pending = None
            self.stage.say(f"{self.name} {line(what)}: {self.shown(answer[0])}")

    def sleeps(self):
        """Says whether the call has not answered yet."""
        if self.pending is None:
            self.stage.say(f"{self.name} is not in a call")
            return
        wait_until(lambda: state(self.pid) in "SD" or self.has_answered(), "is neither asleep nor back")
        blocks = "has answered" if self.has_answered() else "blocks"
        self.stage.say(f"{self.name} {self.pending}: {blocks}")

    def has_answered(self):
        """Whether an answer is there."""
        return bool(select.select([self.link], [], [], 0)[0])

    def answers(self):
        """What the call that blocked answers, which it should do now and not have done earlier."""
        if self.pending is None:
            self.stage.say(f"{self.name} is not in a call")
            return
        answer = self.answer(DEADLINE)
        if answer is None:
            raise Broken(f"{self.name} {self.pending} does not answer")
        early = " BUT BEFORE IT MAY" if answer[1] < self.stage.told else ""
        self.stage.say(f"{self.name} {self.pending} answers: {self.shown(answer[0])}{early}")
        self.pending = None

    def signal(self, number=signal.SIGUSR1):
        """Sends a signal, and waits until it is delivered."""
        self.stage.told = time.monotonic_ns()
        os.kill(self.pid, number)
        bit = 1 << number - 1

        def delivered():
            with open(f"/proc/{self.pid}/status", encoding="ascii", errors="replace") as file:
                lines = dict(line.split(":", 1) for line in file.read().splitlines())
            return not bit & (int(lines["SigPnd"], 16) | int(lines["ShdPnd"], 16))

        wait_until(delivered, f"{self.name} does not take a signal")
        self.stage.say(f"{self.name} gets a signal")

    def exec(self, keep):
        """Lets it become another program, which keeps descriptor "f" or does not."""
        self.send(["exec", keep])
        # What exec closes is let go before the program runs, but after it has its name. So it is a
        # program that answers: it sends back what it gets.
        self.link.send(json.dumps({"answer": "here", "at": 0}).encode())
        if self.answer(DEADLINE) is None:
            raise Broken(f"{self.name} does not exec")
        self.stage.say(f"{self.name} execs, {'with' if keep else 'without'} f")

    def exits(self):
        """Lets it end by itself."""
        self.send(["exit"])
        self.wait_for_end()
        self.stage.say(f"{self.name} exits")

    def killed(self):
        """Ends it at once."""
        self.end()
        self.stage.say(f"{self.name} is killed")

    def end(self):
        """Kills it, if it is there."""
        if self.link.fileno() < 0:
            return
        self.stage.told = time.monotonic_ns()
        if state(self.pid) not in "ZX":
            os.kill(self.pid, signal.SIGKILL)
        self.wait_for_end()

    def wait_for_end(self):
        """Waits until it holds nothing any more."""
        wait_until(lambda: state(self.pid) in "ZX", f"{self.name} does not end")
        if self.is_child:
            os.waitpid(self.pid, 0)
        self.link.close()


def line(what):
    """A call as it is printed."""
    return " ".join(str(word) for word in what)


class Worker:
    """One process, seen from within."""

    def __init__(self, link, stage):
        self.link, self.stage = link, stage
        self.descriptors = {}
        self.handled = 0

    def serve(self):
        """Does what it is told, and never returns."""
        try:
            while True:
                message, passed, _, _ = socket.recv_fds(self.link, 65536, 1)
                if not message:
                    break
                self.tell(calling=True)
                what = json.loads(message)
                self.tell(answer=self.obey(what, passed), at=time.monotonic_ns())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def tell(self, **message):
        """Sends a message."""
        self.link.send(json.dumps(message).encode())

    def obey(self, what, passed=()):
        """Makes a call."""
        name, *arguments = what
        if name == "fork":
            return self.fork(passed[0])
        if name in calls.COMMANDS:
            return self.lock(calls.fcntl, [name, *arguments], 4)
        if name == "flock":
            return self.lock(calls.flock, arguments, 1)
        if name == "lockf":
            return self.lock(calls.lockf, arguments, 2)
        return getattr(self, "do_" + name)(*arguments)

    def lock(self, call, arguments, usual):
        """A call that locks: on "f", or on the descriptor that is named before its arguments."""
        name = "f"
        place = 1 if call is calls.fcntl else 0
        if arguments[place] in self.descriptors:
            name = arguments.pop(place)
        assert len(arguments) >= usual, arguments
        return call(self.descriptors[name], *arguments) if LOCKS else "ok"

    def fork(self, link):
        """Makes a child that serves, too; gives its process id."""
        pid = os.fork()
        if pid == 0:
            self.link.close()
            self.link = socket.socket(fileno=link)
            self.serve()
        os.close(link)
        return pid

    def do_open(self, name, how, file="one"):
        """Opens a file."""
        self.descriptors[name] = os.open(self.stage.path(file), OPEN[how])
        return "ok"

    def do_opendir(self, name):
        """Opens the directory of the files."""
        self.descriptors[name] = os.open(self.stage.place, os.O_RDONLY | os.O_DIRECTORY)
        return "ok"

    def do_close(self, name):
        """Closes a descriptor; its number stays known."""
        os.close(self.descriptors[name])
        return "ok"

    def do_dup(self, name, other):
        """Duplicates a descriptor."""
        self.descriptors[other] = os.dup(self.descriptors[name])
        return "ok"

    def do_dup2(self, name, other):
        """Replaces a descriptor by a duplicate of another."""
        os.dup2(self.descriptors[name], self.descriptors[other])
        return "ok"

    def do_seek(self, name, position):
        """Moves a descriptor."""
        os.lseek(self.descriptors[name], position, os.SEEK_SET)
        return "ok"

    def do_write(self, name, length):
        """Writes at the descriptor's position."""
        os.write(self.descriptors[name], b"y" * length)
        return "ok"

    def do_unlink(self, file):
        """Removes a file."""
        os.unlink(self.stage.path(file))
        return "ok"

    def do_rename(self, file, other):
        """Renames a file."""
        os.rename(self.stage.path(file), self.stage.path(other))
        return "ok"

    def do_link(self, file, other):
        """Gives a file a second name."""
        os.link(self.stage.path(file), self.stage.path(other))
        return "ok"

    def do_in_a_thread(self, *what):
        """Makes a call in another thread of the process."""
        answers = []
        thread = threading.Thread(target=lambda: answers.append(self.obey(what)))
        thread.start()
        thread.join()
        return answers[0]

    def do_handle(self, how):
        """Handles SIGUSR1 and SIGALRM, and then calls are restarted or not."""

        def handle(_number, _frame):
            self.handled += 1

        for number in (signal.SIGUSR1, signal.SIGALRM):
            signal.signal(number, handle)
            signal.siginterrupt(number, how != "restart")
        return "ok"

    def do_handled(self):
        """Whether signals came."""
        return "signals" if self.handled else "no signal"

    def do_alarms(self, seconds):
        """Gets SIGALRM again and again from now on."""
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
        return "ok"

    def do_exclude(self, how, times):
        """Takes and releases a lock again and again, and looks whether it is alone meanwhile."""
        others = 0
        inside = self.stage.path("inside")
        for _ in range(times):
            if how == "flock":
                self.obey(["flock", "ex"])
            else:
                self.obey([how, "wr", 0, 0])
            try:
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                others += 1
            time.sleep(0.0005)
            try:
                os.unlink(inside)
            except FileNotFoundError:
                others += 1
            self.obey(["flock", "un"] if how == "flock" else [how, "un", 0, 0])
        return "was alone" if others == 0 else "was not alone"

    def do_exec(self, keep):
        """Becomes another program."""
        os.set_inheritable(self.descriptors["f"], keep)
        os.dup2(self.link.fileno(), 0)
        os.dup2(self.link.fileno(), 1)
        os.execvp("cat", ["cat"])

    def do_exit(self):
        """Ends."""
        os._exit(0)
