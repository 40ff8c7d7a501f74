//! The process itself: clocks, limits, forking into the background, signals.

use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;

use super::check;

/// The time since the machine started, including the time that it was suspended
/// (`CLOCK_BOOTTIME`): a suspended host must notice that its lock may have been broken.
pub fn boottime() -> Duration {
    let mut now = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the pointer is valid; this clock exists since Linux 2.6.39, so it cannot fail.
    let now = unsafe {
        libc::clock_gettime(libc::CLOCK_BOOTTIME, now.as_mut_ptr());
        now.assume_init()
    };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Sets the file mode creation mask to 0: modes come from the programs, whose own masks the
/// kernel hands over.
pub fn clear_umask() {
    // SAFETY: cannot fail; the mask is of the process, and this one creates files for others only.
    unsafe { libc::umask(0) };
}

/// Raises the limit of open files to what is allowed, and gives the limit now in force.
///
/// # Errors
/// Those of `getrlimit(2)` and `setrlimit(2)`.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: the pointer is valid, and the structure is filled where the call succeeds.
    let mut limit = unsafe {
        check(libc::getrlimit(libc::RLIMIT_NOFILE, limit.as_mut_ptr()))?;
        limit.assume_init()
    };
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is valid.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(limit.rlim_cur)
}

/// Gives memory that is free inside the allocator back to the system. The C library of GNU keeps
/// it otherwise; others give it back themselves.
pub fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number and touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bounds the memory that the allocator keeps for itself: `free_at_end` bytes at the end of each
/// thread's arena; and single pieces of memory from `own_mapping` bytes on go back to the system
/// when they are freed. By itself the C library of GNU raises the first of these limits to twice
/// the largest piece that was ever freed, and [`trim_memory`] leaves the end of an arena alone.
pub fn bound_free_memory(free_at_end: i32, own_mapping: i32) {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes numbers, and is safe to call at any time.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, free_at_end);
        libc::mallopt(libc::M_MMAP_THRESHOLD, own_mapping);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = (free_at_end, own_mapping);
}

/// For how many milliseconds [`fork`] waits for threads to be gone that have ended.
const JOINED_LOOKS: u32 = 10_000;

/// Which side of a [`fork`] this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The process that called it, with the number of the new one.
    Parent(u32),
    /// The new one.
    Child,
}

/// `fork(2)`.
///
/// # Errors
/// Those of `fork(2)`, and `EBUSY` where the process has more than one thread: locks of the
/// others would stay locked for ever in the child.
pub fn fork() -> io::Result<Fork> {
    Ok(match fork_with_id()? {
        Some(child) => Fork::Parent(child.as_raw().unsigned_abs()),
        None => Fork::Child,
    })
}

/// The same; gives the parent the new process's number, and the child `None`.
///
/// # Errors
/// Those of [`fork`].
pub fn fork_with_id() -> io::Result<Option<Pid>> {
    let others = || std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1);
    // A thread that was joined is still seen for a moment.
    let mut looks = 0;
    while others() {
        if looks == JOINED_LOOKS {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        looks += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    // SAFETY: with one thread the child is a whole copy; nothing is shared that it must not use.
    Ok(match check(unsafe { libc::fork() })? {
        0 => None,
        child => Some(Pid::from_raw(child)),
    })
}

/// The signals that a thread had blocked.
#[derive(Clone, Copy)]
pub struct Mask(libc::sigset_t);

/// Blocks these signals in this thread beside those that are, and gives those that were.
///
/// # Errors
/// Those of `pthread_sigmask(3)`; `EINVAL` for a number that is no signal.
pub fn block(signals: &[i32]) -> io::Result<Mask> {
    let mut blocked = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are valid to write; the first is filled before a signal is added to it, the
    // second where the last call succeeds.
    unsafe {
        check(libc::sigemptyset(blocked.as_mut_ptr()))?;
        for signal in signals {
            check(libc::sigaddset(blocked.as_mut_ptr(), *signal))?;
        }
        let blocked = blocked.as_ptr();
        match libc::pthread_sigmask(libc::SIG_BLOCK, blocked, before.as_mut_ptr()) {
            0 => Ok(Mask(before.assume_init())),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl Mask {
    /// Blocks these signals in this thread, and no others.
    pub fn restore(self) {
        // SAFETY: the set is a whole one. The call cannot fail with it.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

/// From now on the first of these signals sets `told` and asks another process to end (SIGTERM).
/// Any further one ends this process, with the exit status `status`.
///
/// # Errors
/// Those of `sigaction(2)`; `ESRCH` for a number that is no process.
pub fn end_with(signals: &[i32], pid: u32, told: &Arc<AtomicBool>, status: i32) -> io::Result<()> {
    let pid = number_of(pid)?;
    for signal in signals {
        let told = Arc::clone(told);
        let end = move || {
            if told.swap(true, Ordering::SeqCst) {
                signal_hook::low_level::exit(status);
            }
            // SAFETY: kill(2) may be called by a handler, and takes plain numbers.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        };
        // SAFETY: the handler does what a handler may do, and nothing else.
        unsafe { signal_hook::low_level::register(*signal, end) }?;
    }
    Ok(())
}

/// Whether a child of this process has ended. Where it has, its number is free afterwards, and this
/// must not be asked again.
///
/// # Errors
/// Those of `waitpid(2)`; `ESRCH` for a number that is no process.
pub fn has_ended(child: u32) -> io::Result<bool> {
    let pid = number_of(child)?;
    // SAFETY: takes plain numbers; the status is not asked for.
    Ok(check(unsafe { libc::waitpid(pid, ptr::null_mut(), libc::WNOHANG) })? == pid)
}

/// The number of a process (or of a group), and of none that means several.
fn number_of(process: u32) -> io::Result<libc::pid_t> {
    libc::pid_t::try_from(process)
        .ok()
        .filter(|number| *number > 1)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

/// Leaves the session and the terminal of the shell that started this process.
///
/// # Errors
/// Those of `setsid(2)`.
pub fn new_session() -> io::Result<()> {
    // SAFETY: takes nothing.
    check(unsafe { libc::setsid() }).map(drop)
}

/// A pipe: the end to read, and the end to write.
///
/// # Errors
/// Those of `pipe2(2)`.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for both; on success both are new and ours.
    unsafe {
        check(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC))?;
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Makes the standard descriptor `number` (0, 1 or 2) a copy of `fd`.
///
/// # Errors
/// Those of `dup2(2)`.
pub fn redirect(fd: impl AsFd, number: i32) -> io::Result<()> {
    // SAFETY: takes descriptors; whoever uses 0, 1 or 2 uses them by number.
    check(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) }).map(drop)
}

/// Gives this thread a file mode creation mask of its own (`CLONE_FS` of unshare(2)): otherwise
/// the mask belongs to the whole process.
///
/// # Errors
/// Those of `unshare(2)`.
pub fn own_umask() -> io::Result<()> {
    // SAFETY: takes flags only; afterwards this thread's mask, root and working directory are
    // its own, and none of the latter two is ever changed.
    check(unsafe { libc::unshare(libc::CLONE_FS) }).map(drop)
}

/// Sets the file mode creation mask, and gives the one before.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: cannot fail.
    unsafe { libc::umask(mask) }
}

/// Sends SIGKILL to a process group (`kill(2)` with a negative number).
///
/// # Errors
/// `ESRCH` where there is no such group; those of `kill(2)`.
pub fn kill_group(leader: u32) -> io::Result<()> {
    let group = number_of(leader)?;
    // SAFETY: takes plain numbers.
    check(unsafe { libc::kill(-group, libc::SIGKILL) }).map(drop)
}

/// Sends SIGKILL to a process if `is_meant` says so of it, and to no other that gets its number
/// meanwhile. Gives whether it was sent.
pub fn kill_if(pid: i32, is_meant: impl FnOnce() -> bool) -> bool {
    // SAFETY: takes plain numbers; a non-negative result is a new descriptor that nobody else owns.
    let process = unsafe {
        match libc::syscall(libc::SYS_pidfd_open, pid, 0) {
            fd @ 0.. => OwnedFd::from_raw_fd(fd as libc::c_int),
            _ => return false,
        }
    };
    if !is_meant() {
        return false;
    }
    let nothing: *const libc::siginfo_t = std::ptr::null();
    let fd = process.as_raw_fd();
    // SAFETY: takes a descriptor that is open, numbers, and no further words on the signal.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, nothing, 0) == 0 }
}

/// The numbers of the descriptors from 3 on that are open: asked before anything is opened, those
/// that this process has inherited.
///
/// # Errors
/// Those of reading `/proc/self/fd`.
pub fn descriptors() -> io::Result<Vec<i32>> {
    let numbers = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect::<Vec<i32>>();
    // The one by which the list was read is closed by now.
    Ok(numbers
        .into_iter()
        .filter(|number| std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok())
        .collect())
}

/// Closes descriptors that were inherited (see [`descriptors`]); nothing in this program owns them.
pub fn close_inherited(numbers: &[i32]) {
    for number in numbers {
        // SAFETY: the caller got these numbers before the program had opened anything, so no
        // value refers to them.
        unsafe { libc::close(*number) };
    }
}

/// Gives up standard input and output, on behalf of others who use them.
///
/// # Errors
/// Those of opening `/dev/null`, and of `dup2(2)`.
pub fn leave_input_and_output() -> io::Result<()> {
    let null = null()?;
    redirect(&null, 0)?;
    redirect(&null, 1)
}

/// Gives up standard error.
///
/// # Errors
/// Those of [`leave_input_and_output`].
pub fn leave_errors() -> io::Result<()> {
    redirect(null()?, 2)
}

fn null() -> io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).open("/dev/null")
}

/// Ends this process, a child that shares its buffers with nobody, without running anything else.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Gives a signal its default effect.
pub fn default_effect(signal: Signal) {
    // SAFETY: no handler is set.
    unsafe { libc::signal(signal as i32, libc::SIG_DFL) };
}

/// Gives a signal no effect.
pub fn ignore(signal: Signal) {
    // SAFETY: no handler is set.
    unsafe { libc::signal(signal as i32, libc::SIG_IGN) };
}

/// Makes SIGCHLD have its default effect, so that children can be waited for. Gives whether it was
/// ignored before, which a program inherits.
///
/// # Errors
/// Those of `sigaction(2)`.
pub fn hear_of_children() -> io::Result<bool> {
    // SAFETY: no handler is set, here or anywhere in this program.
    match unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        before => Ok(before == libc::SIG_IGN),
    }
}

/// Becomes another program (`execvp(3)`), with this mask of signals, and with SIGCHLD ignored where
/// that is wished for. Returns only if that fails.
pub fn exec(
    program: &OsString,
    arguments: &[OsString],
    mask: SigSet,
    ignores_children: bool,
) -> io::Error {
    let mut command = Command::new(program);
    command.args(arguments);
    let prepare = move || {
        if ignores_children {
            // SAFETY: no handler is set.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        }
        mask.thread_set_mask().map_err(Errno::into)
    };
    // SAFETY: it makes two system calls, and is called by this very process, not in a child.
    unsafe { command.pre_exec(prepare) };
    command.exec()
}
