"""Programs: running them from here, and letting two of them talk through the file system."""

import fcntl
import os
import shutil
import socket
import subprocess
import threading

from transcript import as_other_user, case, write_file


def output_of(*command):
    """What a program prints, with its exit status."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout


@case
def running_a_script(c):
    write_file("script", b'#!/bin/sh\necho "ran with $1 as $0"\nexit 3\n')
    c.do("without permission", output_of, "./script", "argument")
    os.chmod("script", 0o755)
    c.do("with permission", output_of, "./script", "argument")
    write_file("bad", b"#!/no/such/interpreter\n")
    os.chmod("bad", 0o755)
    c.do("missing interpreter", output_of, "./bad")
    write_file("noise", b"\x00\x01\x02")
    os.chmod("noise", 0o755)
    c.do("not a program", output_of, "./noise")
    os.mkdir("directory")
    c.do("a directory", output_of, "./directory")
    os.chmod("script", 0o111)
    c.do("script that cannot be read", lambda: output_of("./script")[0])
    write_file("script2", b"#!/bin/sh\necho appended\n")
    os.chmod("script2", 0o755)
    descriptor = os.open("script2", os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, b"echo more\n")
    os.close(descriptor)
    c.do("after an append", output_of, "./script2")


@case
def running_a_binary(c):
    shutil.copyfile("/bin/echo", "echo")
    os.chmod("echo", 0o755)
    c.do("run", output_of, "./echo", "hello")
    os.link("echo", "linked")
    c.do("run by another name", output_of, "./linked", "hello")
    os.symlink("echo", "symbolic")
    c.do("run by a link", output_of, "./symbolic", "hello")
    os.chmod("echo", 0o111)
    c.do("run without read permission", output_of, "./echo", "hello")
    os.chmod("echo", 0o644)
    c.do("run without permission", output_of, "./echo", "hello")


@case
def running_a_binary_that_was_removed(c):
    shutil.copyfile("/bin/cat", "cat")
    os.chmod("cat", 0o755)
    process = subprocess.Popen(["./cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdin.write(b"still ")
    process.stdin.flush()
    c.say(f"first: {process.stdout.read1(100)}")
    os.unlink("cat")
    c.say(f"then: {process.communicate(b'running')[0]} {process.returncode}")


@case
def shells_redirect(c):
    c.do("create", output_of, "sh", "-c", "echo one > file; echo two >> file; cat file")
    c.do("noclobber", lambda: output_of("sh", "-c", "set -C; echo three > file")[0] != 0)
    c.do("read and write", output_of, "sh", "-c", "exec 3<>file; read x <&3; echo $x; echo THREE >&3; cat file")
    c.do("pipeline", output_of, "sh", "-c", "sort -r file | tee sorted; wc -l < file")
    c.do("in place", output_of, "sh", "-c", "sed -i s/one/ONE/ file; cat file; ls")
    c.do("move and copy", output_of, "sh", "-c", "cp -a file copy; mv copy moved; cmp file moved; ls")
    c.do("dd", output_of, "sh", "-c", "printf XY | dd of=file bs=1 seek=2 conv=notrunc status=none; cat file")
    c.do("install", output_of, "sh", "-c", "install -m 750 file sub; stat -c '%a %s' sub")
    c.do("tail", output_of, "tail", "-c", "5", "file")
    tree = "mkdir -p a/b/c; touch a/b/c/f; cp -a a copy; find copy | sort; rm -rf a copy; ls"
    c.do("tree", output_of, "sh", "-c", tree)
    archive = "mkdir t; cp file t; tar cf t.tar t; rm -r t; tar xf t.tar; ls t; tar df t.tar"
    c.do("archive", output_of, "sh", "-c", archive)
    os.unlink("t.tar")  # holds the time, so no two are the same


@case
def a_fifo_between_processes(c):
    os.mkfifo("fifo")

    def child():
        with open("fifo", "wb", buffering=0) as writer:
            for number in range(100):
                writer.write(b"line %d\n" % number)

    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(0)
    with open("fifo", "rb") as reader:
        data = reader.read()
    os.waitpid(pid, 0)
    c.say(f"received: {len(data)} bytes, {data[-8:]}")
    c.attr("fifo")


@case
def a_socket_between_processes(c):
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    server.listen(1)
    c.attr("socket")

    def child():
        client = socket.socket(socket.AF_UNIX)
        client.connect("socket")
        client.sendall(b"hello from the client")
        return client.recv(100) != b"hello from the server"

    def serve():
        connection, _ = server.accept()
        c.say(f"server received: {connection.recv(100)}")
        connection.sendall(b"hello from the server")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    c.say(f"client: {as_other_user(child)}")
    thread.join(30)
    os.rename("socket", "renamed")
    c.do("connect after rename", socket.socket(socket.AF_UNIX).connect, "renamed")
    c.do("connect to the old name", socket.socket(socket.AF_UNIX).connect, "socket")
    datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagram.bind("datagram")
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"one datagram", "datagram")
    c.say(f"datagram: {datagram.recv(100)}")
    c.do("chmod", os.chmod, "datagram", 0o600)
    c.do("unlink", os.unlink, "datagram")
    c.listing()


@case
def a_database(c):
    """sqlite locks byte ranges, truncates its journal and syncs: a good customer of a file system."""
    import sqlite3

    database = sqlite3.connect("data.db")
    database.execute("create table t (n integer primary key, text)")
    with database:
        database.executemany("insert into t values (?, ?)", ((n, f"row {n}") for n in range(500)))
    other = sqlite3.connect("data.db", timeout=0)
    database.execute("begin immediate")
    try:
        other.execute("begin immediate")
        c.say("two writers")
    except sqlite3.OperationalError as error:
        c.say(f"the second writer: {error}")
    database.rollback()
    other.execute("delete from t where n % 2")
    other.commit()
    c.say(f"rows: {database.execute('select count(*), max(n) from t').fetchone()}")
    c.say(f"check: {database.execute('pragma integrity_check').fetchone()}")
    database.close()
    other.close()
    c.listing()


@case
def descriptors_passed_to_programs(c):
    descriptor = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for word in ("one", "two", "three"):
        subprocess.run(["/bin/echo", word], stdout=descriptor, check=True)
    os.set_inheritable(descriptor, True)
    c.say(f"flags: {fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND == os.O_APPEND}")
    subprocess.run(["sh", "-c", "(echo a; echo b) & (echo c; echo d) & wait"], stdout=descriptor, check=True)
    with open("log", "rb") as file:
        c.say(f"{sorted(file.read().split())}")
    os.unlink("log")  # its order is a matter of chance
