"""What a file system that reads and writes files below by itself may get wrong.

usage: traps.py DIRECTORY

Prints what a program sees; on a mount it must be what it is on a plain directory. As root.
"""

import fcntl
import mmap
import os
import sys

USER = 1000
BITS = (0o4755, 0o2755, 0o6777)


def write(name, data):
    with open(name, "wb") as file:
        file.write(data)


def content(name):
    with open(name, "rb") as file:
        return file.read()


def set_flag(descriptor, flag, on):
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | flag if on else flags & ~flag)


def in_child(uid, work, meanwhile=lambda: None):
    """Runs work in another process, as somebody; what it opens is closed with it."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if uid:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            work()
            status = 0
        finally:
            os._exit(status)
    meanwhile()
    print("  child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def append_set_later_and_taken_back():
    write("file", b"0123456789")
    descriptor = os.open("file", os.O_RDWR)
    set_flag(descriptor, os.O_APPEND, True)
    os.pwrite(descriptor, b"AA", 0)
    os.write(descriptor, b"BB")
    print(content("file"), os.fstat(descriptor).st_size, os.lseek(descriptor, 0, os.SEEK_CUR))
    set_flag(descriptor, os.O_APPEND, False)
    os.pwrite(descriptor, b"CC", 0)
    print(content("file"))


def append_taken_back():
    write("file", b"0123456789")
    descriptor = os.open("file", os.O_RDWR | os.O_APPEND)
    os.write(descriptor, b"x")
    set_flag(descriptor, os.O_APPEND, False)
    os.pwrite(descriptor, b"AA", 0)
    print(content("file"), os.pread(descriptor, 20, 0))


def append_of_two():
    first = os.open("file", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    second = os.open("file", os.O_WRONLY | os.O_APPEND)
    for round in range(3):
        os.write(first, b"first %d," % round)
        os.write(second, b"second %d," % round)
    print(content("file"), os.fstat(first).st_size, os.stat("file").st_size)


def direct_taken_back():
    page = mmap.mmap(-1, 4096)
    page[:] = b"z" * 4096
    write("file", b"0" * 8192)
    for others in ([], [os.open("file", os.O_RDONLY)]):
        descriptor = os.open("file", os.O_RDWR | os.O_DIRECT)
        print(os.pwrite(descriptor, page, 0))
        # As dd does for its last, short block.
        set_flag(descriptor, os.O_DIRECT, False)
        print(os.pwrite(descriptor, b"abc", 4096), content("file")[4090:4102])
        os.close(descriptor)
        print([os.pread(other, 8, 4092) for other in others])


def a_user_who_writes_takes_set_id_bits_away():
    def set_before(uid, bits):
        os.chmod("file", bits)
        in_child(uid, lambda: os.pwrite(os.open("file", os.O_WRONLY), b"z", 0))

    def set_while_open(uid, bits):
        def work():
            descriptor = os.open("file", os.O_WRONLY)
            os.chmod("file", bits)
            os.pwrite(descriptor, b"z", 0)

        in_child(uid, work)

    def beside_root(uid, bits):
        other = os.open("file", os.O_RDWR)
        set_while_open(uid, bits)
        os.close(other)

    def beside_a_reader(uid, bits):
        other = os.open("file", os.O_RDONLY)
        os.chmod("file", bits)
        set_before(uid, bits)
        os.close(other)

    for uid in (0, USER):
        for bits in BITS:
            for how in (set_before, set_while_open, beside_root, beside_a_reader):
                write("file", b"0" * 10)
                os.chmod("file", 0o777)
                os.chown("file", USER, USER)
                how(uid, bits)
                print(uid, oct(bits), how.__name__, oct(os.stat("file").st_mode))


def so_does_one_who_does_not_own_the_file():
    """The bits are set while the user, and with some of these somebody else, has it open."""

    def none():
        return None

    def root_writes():
        return os.open("file", os.O_RDWR)

    def root_reads():
        return os.open("file", os.O_RDONLY)

    for uid in (0, USER):
        for bits in (0o4777, 0o6777):
            for other in (none, root_writes, root_reads):
                write("file", b"0" * 10)
                os.chmod("file", 0o777)
                beside = other()
                is_open, opened = os.pipe()
                are_set, now_set = os.pipe()

                def work():
                    descriptor = os.open("file", os.O_WRONLY)
                    os.write(opened, b"1")
                    os.read(are_set, 1)
                    os.pwrite(descriptor, b"z", 0)

                def set_bits():
                    os.read(is_open, 1)
                    os.chmod("file", bits)
                    os.write(now_set, b"1")

                in_child(uid, work, set_bits)
                print(uid, oct(bits), other.__name__, oct(os.stat("file").st_mode))
                for descriptor in (is_open, opened, are_set, now_set):
                    os.close(descriptor)
                if beside is not None:
                    os.close(beside)


def holes_and_sizes():
    write("file", b"data")
    descriptor = os.open("file", os.O_RDWR)
    os.ftruncate(descriptor, 1 << 20)
    os.pwrite(descriptor, b"end", (1 << 20) - 3)
    print(os.lseek(descriptor, 4096, os.SEEK_DATA) > 4096, os.lseek(descriptor, 0, os.SEEK_END))
    os.posix_fallocate(descriptor, 0, 2 << 20)
    print(os.fstat(descriptor).st_size, os.pread(descriptor, 4, 0))
    os.truncate("file", 3)
    print(os.pread(descriptor, 10, 0), os.fstat(descriptor).st_size)
    os.pwrite(descriptor, b"!", 100)
    print(os.pread(descriptor, 200, 0), os.stat("file").st_size)


def copies_in_the_kernel():
    write("file", b"0123456789" * 10000)
    source = os.open("file", os.O_RDONLY)
    target = os.open("copy", os.O_RDWR | os.O_CREAT)
    print(os.copy_file_range(source, target, 50000, 10, 3))
    print(os.sendfile(target, source, 0, 20), os.fstat(target).st_size)
    reader, writer = os.pipe()
    print(os.splice(source, writer, 15, offset_src=5))
    print(os.splice(reader, target, 15, offset_dst=70000), os.fstat(target).st_size)
    print(content("copy")[:40], content("copy")[70000:])


def memory_and_calls_see_each_other():
    write("file", b"0" * 5000)
    descriptor = os.open("file", os.O_RDWR)
    memory = mmap.mmap(descriptor, 5000)
    memory[0:3] = b"map"
    print(os.pread(descriptor, 5, 0), content("file")[:5])
    os.pwrite(descriptor, b"call", 4500)
    print(memory[4499:4505])
    private = mmap.mmap(descriptor, 5000, flags=mmap.MAP_PRIVATE)
    private[0:3] = b"own"
    print(os.pread(descriptor, 5, 0), private[0:5])
    memory.flush()
    memory.close()
    os.ftruncate(descriptor, 2)
    print(content("file"))


def a_file_without_a_name():
    write("file", b"hello")
    descriptor = os.open("file", os.O_RDWR)
    os.unlink("file")
    os.pwrite(descriptor, b"J", 0)
    again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
    os.pwrite(again, b"!", 5)
    print(os.pread(descriptor, 10, 0), os.fstat(descriptor).st_nlink, os.fstat(again).st_size)


def a_file_that_is_replaced_while_open():
    write("file", b"old")
    descriptor = os.open("file", os.O_RDWR)
    write("new", b"newer")
    os.rename("new", "file")
    os.pwrite(descriptor, b"O", 0)
    print(os.pread(descriptor, 10, 0), content("file"))


def a_program_that_is_running():
    with open("/bin/true", "rb") as program:
        write("true", program.read())
    os.chmod("true", 0o755)
    print(os.spawnl(os.P_WAIT, "true", "true"))
    writer = os.open("true", os.O_WRONLY)
    try:
        os.execl("true", "true")
    except OSError as error:
        print(error.strerror)
    os.close(writer)
    os.chmod("true", 0o711)
    in_child(USER, lambda: print("  run unread", os.spawnl(os.P_WAIT, "true", "true")))


def limits_of_the_program():
    import resource
    import signal

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        descriptor = os.open("file", os.O_RDWR | os.O_CREAT)
        print(" ", os.pwrite(descriptor, b"x" * 8192, 0))
        try:
            os.pwrite(descriptor, b"x", 5000)
        except OSError as error:
            print(" ", error.strerror)

    in_child(0, work)


def main():
    sys.stdout.reconfigure(line_buffering=True)
    os.chdir(sys.argv[1])
    for case in (
        append_set_later_and_taken_back,
        append_taken_back,
        append_of_two,
        direct_taken_back,
        a_user_who_writes_takes_set_id_bits_away,
        so_does_one_who_does_not_own_the_file,
        holes_and_sizes,
        copies_in_the_kernel,
        memory_and_calls_see_each_other,
        a_file_without_a_name,
        a_file_that_is_replaced_while_open,
        a_program_that_is_running,
        limits_of_the_program,
    ):
        print("==", case.__name__)
        os.mkdir(case.__name__)
        os.chmod(case.__name__, 0o777)
        os.chdir(case.__name__)
        case()
        os.chdir("..")


main()
