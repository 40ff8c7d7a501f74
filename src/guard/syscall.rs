//! How much a waiting program is writing in one call.
//!
//! The kernel hands a large `write(2)` over in pieces and does not say that more is to come.
//! `/proc/TID/syscall` (proc_pid_syscall(5)) shows the call that a waiting thread is in, with its
//! arguments. Reading it takes the right to trace the thread (root has it, others where
//! `kernel.yama.ptrace_scope` is 0), and not every kernel has it. `/proc/TID/task/TID/io`
//! (proc_pid_io(5)) counts the write calls that a thread has finished, which tells when this one
//! is over; it can be read of one's own processes too.

use std::fs;
use std::time::Duration;

use crate::sys::process::boottime;

/// The call that a thread is in, as far as it can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Call {
    /// Its number; `None` where it cannot be seen, or the thread runs.
    pub number: Option<i64>,
    /// How many bytes it writes, if it is `write(2)` or `pwrite(2)`.
    pub count: Option<u64>,
    /// The command, if it is `fcntl(2)`.
    pub command: Option<u64>,
    /// From how many pieces of memory it writes, if it is `writev(2)` or one of its kind.
    pub pieces: u64,
    /// The thread was running, so its call could not be seen.
    pub running: bool,
}

impl Call {
    /// Whether it is seen to be a call that may write asynchronously: anything but the calls that
    /// write. (Such are also those of 32-bit programs, whose numbers are others.)
    pub fn is_asynchronous(&self) -> bool {
        self.number.is_some() && self.count.is_none() && self.pieces == 0
    }
}

/// Looks at the thread with this id.
pub fn of_thread(tid: u32) -> Call {
    fs::read_to_string(format!("/proc/{tid}/syscall")).map_or(Call::default(), |line| parse(&line))
}

/// Looks at a thread that may be waiting for us, or about to: its request may be here before it has
/// gone to sleep. (One that writes asynchronously goes on.)
pub fn of_waiting_thread(tid: u32) -> Call {
    once_asleep(tid, Duration::from_millis(4))
}

/// Looks at a thread that can do nothing but wait for us: on a busy machine it may take a while until
/// it gets to that.
pub fn of_sleeping_thread(tid: u32) -> Call {
    once_asleep(tid, Duration::from_secs(1))
}

/// Looks at a thread when it is seen to sleep, or has not been for so long.
fn once_asleep(tid: u32, patience: Duration) -> Call {
    let until = boottime() + patience;
    let mut pause = Duration::from_micros(50);
    loop {
        let call = of_thread(tid);
        if !call.running || boottime() >= until {
            return call;
        }
        std::thread::sleep(pause);
        pause = (pause * 5 / 4).min(Duration::from_millis(5));
    }
}

/// Whether the thread is seen to be in another call than `number` by now, or in none, or is gone.
pub fn has_left(tid: u32, number: Option<i64>) -> bool {
    match of_thread(tid).number {
        Some(now) => number.is_some_and(|number| number != now),
        // Not every kernel is built with that file; it says nothing then about the thread.
        None => !is_there(tid),
    }
}

/// Whether there is such a thread, as far as can be seen.
pub fn is_there(tid: u32) -> bool {
    fs::exists(format!("/proc/{tid}")).unwrap_or(true)
}

/// How many write calls the thread has finished; `None` where that cannot be told. It is counted
/// at the end of a call, so while it stays the same, the thread is in the call that it was in.
pub fn writes_finished(tid: u32) -> Option<u64> {
    let comm = fs::read_to_string(format!("/proc/{tid}/comm")).ok()?;
    if comm.starts_with("iou-wrk") {
        // Threads of io_uring write without calls.
        return None;
    }
    // What is in /proc/TID itself counts for all threads of the process.
    let io = fs::read_to_string(format!("/proc/{tid}/task/{tid}/io")).ok()?;
    io.lines()
        .find_map(|line| line.strip_prefix("syscw: ")?.parse().ok())
}

fn parse(line: &str) -> Call {
    let mut words = line.split_ascii_whitespace();
    // "running", or a number, -1 outside of any call.
    let first = words.next();
    let Some(number) = first.and_then(|word| word.parse::<i64>().ok()) else {
        return Call {
            running: first == Some("running"),
            ..Call::default()
        };
    };
    let mut argument = |nth| u64::from_str_radix(words.nth(nth)?.trim_start_matches("0x"), 16).ok();
    let (second, third) = (argument(1), argument(0));
    let mut call = Call {
        number: Some(number),
        ..Call::default()
    };
    match number {
        libc::SYS_write | libc::SYS_pwrite64 => call.count = third,
        libc::SYS_writev | libc::SYS_pwritev | libc::SYS_pwritev2 => {
            call.pieces = third.unwrap_or(0);
        }
        libc::SYS_fcntl => call.command = second,
        _ => {}
    }
    call
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finished_writes_are_counted() {
        use std::io::Write;
        let thread = fs::read_link("/proc/thread-self").unwrap();
        let tid = thread
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        let before = writes_finished(tid).unwrap();
        tempfile::tempfile().unwrap().write_all(b"x").unwrap();
        assert_eq!(writes_finished(tid), Some(before + 1));
    }

    #[test]
    fn reads_what_the_kernel_shows() {
        let seen = |number: i64, third: &str| {
            parse(&format!(
                "{number} 0x3 0x7f00 {third} 0x0 0x0 0x0 0x7ffc 0x7f12\n"
            ))
        };
        assert_eq!(seen(libc::SYS_write, "0x300000").count, Some(0x30_0000));
        assert_eq!(seen(libc::SYS_writev, "0x12c").pieces, 300);
        let fcntl = parse("72 0x3 0x26 0x7f00 0x0 0x0 0x0 0x7ffc 0x7f12\n");
        assert_eq!(fcntl.command, Some(38));
        assert!(seen(libc::SYS_io_submit, "0x1").is_asynchronous());
        assert!(!seen(libc::SYS_write, "0x1").is_asynchronous());
        assert!(parse("running\n").running);
        assert_eq!(parse("running\n").number, None);
        assert_eq!(parse("-1 0x7ffc 0x7f12\n").number, Some(-1));
        assert_eq!(parse(""), Call::default());
    }
}
