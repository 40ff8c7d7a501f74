//! Whether a waiting program has a signal to handle.
//!
//! The kernel tells a FUSE server of a signal by an INTERRUPT request, which fuser answers with
//! `ENOSYS`; a program that waits for us could then not even be killed. So the thread's pending
//! signals are looked up instead (proc_pid_status(5)).

use std::fs;

/// What the look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signals {
    /// The call must end with `EINTR`: a signal is pending that is neither blocked nor ignored,
    /// or the thread is gone.
    Pending,
    /// Nothing is pending, or the thread cannot be seen from here.
    None,
}

/// Signals that end nothing by default: a child has ended, the window has another size, and the
/// like. A shell that handles them must not lose a write by them; on a local disk it would not.
const HARMLESS: u64 =
    bit(libc::SIGCHLD) | bit(libc::SIGCONT) | bit(libc::SIGURG) | bit(libc::SIGWINCH);

/// The place of a signal in the masks of `/proc/TID/status`.
const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Looks at the thread with this id.
pub fn of_thread(tid: u32) -> Signals {
    if tid == 0 {
        // The program lives in a pid namespace that we cannot see into.
        return Signals::None;
    }
    match fs::read_to_string(format!("/proc/{tid}/status")) {
        Ok(status) => judge(&status),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Signals::Pending,
        Err(_) => Signals::None,
    }
}

/// Judges the text of `/proc/TID/status`. Without a pending signal the kernel would start a call
/// that ended with `EINTR` again, so this must not say so too easily.
fn judge(status: &str) -> Signals {
    let mask = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .unwrap_or(0)
    };
    let pending = mask("SigPnd") | mask("ShdPnd");
    if pending & !mask("SigBlk") & !mask("SigIgn") & !HARMLESS != 0 {
        Signals::Pending
    } else {
        Signals::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(thread: u64, process: u64, blocked: u64, ignored: u64) -> String {
        format!(
            "Name:\tx\nSigPnd:\t{thread:016x}\nShdPnd:\t{process:016x}\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\n"
        )
    }

    #[test]
    fn blocked_and_ignored_signals_do_not_count() {
        assert_eq!(judge(&status(0, 0, 0, 0)), Signals::None);
        assert_eq!(judge(&status(0, 0x100, 0, 0)), Signals::Pending);
        assert_eq!(judge(&status(0x2, 0, 0, 0)), Signals::Pending);
        assert_eq!(judge(&status(0x2, 0, 0x2, 0)), Signals::None);
        assert_eq!(judge(&status(0, 0x2, 0, 0x2)), Signals::None);
        assert_eq!(judge(&status(0, bit(libc::SIGCHLD), 0, 0)), Signals::None);
        assert_eq!(judge("nonsense"), Signals::None);
    }
}
