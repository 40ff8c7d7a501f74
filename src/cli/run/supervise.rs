//! `dotlockfs run` itself: it passes signals on, stops when the command stops, and ends as that has
//! ended, once the daemon is done.

use std::error::Error;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgid, getpgrp, getpid};

use super::daemon::COMMAND_ENDED;
use super::witness::Witnesses;
use crate::sys::{again, process};

/// Signals that are for the command.
const PASSED_ON: [Signal; 17] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGIO,
    Signal::SIGTERM,
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGXCPU,
    Signal::SIGWINCH,
    Signal::SIGPWR,
];

/// Those that a terminal sends, always to a whole process group.
const OF_TERMINALS: [Signal; 6] = [
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGWINCH,
];

/// Those by which a shell's job control stops a job.
const STOPPING: [Signal; 3] = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];

/// `si_code` of a signal that the kernel sends by itself (sigaction(2)).
const SI_KERNEL: i32 = 0x80;

/// Those that end the wait for the daemon.
const IMPATIENT: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];

/// A signal that has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrived {
    pub(super) signal: Signal,
    /// The terminal has sent it, so the whole process group has it.
    pub(super) by_terminal: bool,
}

/// The signals of this process, which come by a descriptor.
#[derive(Debug)]
pub(super) struct Signals {
    arriving: SignalFd,
    /// The mask before.
    pub(super) before: SigSet,
    /// SIGCHLD was ignored before.
    pub(super) ignores_children: bool,
}

impl Signals {
    /// Blocks them, for this process and those that it starts.
    pub(super) fn take() -> io::Result<Signals> {
        let ignores_children = process::hear_of_children()?;
        let mut mask = SigSet::from_iter(PASSED_ON);
        mask.add(Signal::SIGCHLD);
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), Some(&mut before))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Signals {
            arriving: SignalFd::with_flags(&mask, flags)?,
            before,
            ignores_children,
        })
    }

    /// The next one, if there is one.
    fn next(&self) -> io::Result<Option<Arrived>> {
        let next = again(|| self.arriving.read_signal())?;
        Ok(next.and_then(|info| {
            let signal = Signal::try_from(info.ssi_signo as i32).ok()?;
            let by_terminal = info.ssi_code == SI_KERNEL && OF_TERMINALS.contains(&signal);
            Some(Arrived {
                signal,
                by_terminal,
            })
        }))
    }
}

/// Waits for the end of the command and then of the daemon. Gives the exit status of the command,
/// or ends this process by the signal that has ended it.
pub(super) fn until_all_is_done(
    command: Pid,
    daemon: Pid,
    watch: &OwnedFd,
    signals: &Signals,
) -> Result<ExitCode, Box<dyn Error>> {
    let status = until_command_ends(command, daemon, watch, signals)?;
    // What has come until now was for the command.
    while signals.next()?.is_some() {}
    // If it has ended already, that is seen next.
    let _ = again(|| send(watch.as_raw_fd(), COMMAND_ENDED, MsgFlags::MSG_NOSIGNAL));
    until_daemon_is_done(daemon, watch, signals)?;
    Ok(match status {
        WaitStatus::Exited(_, code) => ExitCode::from(code as u8),
        WaitStatus::Signaled(_, signal, _) => {
            end_by(signal);
            ExitCode::from(128 + signal as u8)
        }
        _ => ExitCode::FAILURE,
    })
}

fn until_command_ends(
    command: Pid,
    daemon: Pid,
    watch: &OwnedFd,
    signals: &Signals,
) -> Result<WaitStatus, Box<dyn Error>> {
    let mut witnesses = Witnesses::start();
    let mut daemon_lives = true;
    loop {
        pass_on(signals, command, &mut witnesses)?;
        loop {
            let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED;
            match again(|| waitpid(command, Some(flags)))? {
                WaitStatus::Stopped(_, signal) if STOPPING.contains(&signal) => stop_by(signal),
                // Whoever has stopped it alone (SIGSTOP) makes it alone go on.
                WaitStatus::Stopped(..) => {}
                WaitStatus::StillAlive => break,
                ended => return Ok(ended),
            }
        }
        let mut files = vec![PollFd::new(signals.arriving.as_fd(), PollFlags::POLLIN)];
        if daemon_lives {
            files.push(PollFd::new(watch.as_fd(), PollFlags::POLLIN));
        }
        again(|| poll(&mut files, PollTimeout::NONE))?;
        let said = files.get(1).and_then(PollFd::any).unwrap_or(false);
        if said {
            // It says nothing before the command has ended, so this is its own end.
            daemon_lives = false;
            tell_how_it_ended(daemon);
        }
    }
}

/// Passes on what has come, unless the command has got it, too.
fn pass_on(signals: &Signals, command: Pid, witnesses: &mut Witnesses) -> io::Result<()> {
    let in_our_group = getpgid(Some(command)).is_ok_and(|group| group == getpgrp());
    let mut all = Vec::new();
    let alone = witnesses.for_us_alone(|| {
        let mut arrived = Vec::new();
        while let Some(next) = signals.next()? {
            if next.signal != Signal::SIGCHLD {
                arrived.push(next);
            }
        }
        all.extend(arrived.iter().map(|next| next.signal));
        Ok(arrived)
    })?;
    for signal in if in_our_group { alone } else { all } {
        let _ = kill(command, signal);
    }
    Ok(())
}

/// Stops, as the command has, so that the shell takes the terminal back; returns when it is told to
/// go on.
fn stop_by(signal: Signal) {
    let only = SigSet::from_iter([signal]);
    let _ = kill(getpid(), signal);
    let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&only), None);
    // Here it stops.
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&only), None);
}

/// Waits until the daemon has given all locks back, or says that others still use the mount.
fn until_daemon_is_done(daemon: Pid, watch: &OwnedFd, signals: &Signals) -> io::Result<()> {
    loop {
        let mut files = [
            PollFd::new(watch.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.arriving.as_fd(), PollFlags::POLLIN),
        ];
        again(|| poll(&mut files, PollTimeout::NONE))?;
        if files[0].any().unwrap_or(true) {
            let mut word = [0; 1];
            let said = again(|| recv(watch.as_raw_fd(), &mut word, MsgFlags::empty()));
            if !matches!(said, Ok(1..)) {
                // Only its end closes that.
                tell_how_it_ended(daemon);
            }
            return Ok(());
        }
        while let Some(next) = signals.next()? {
            if IMPATIENT.contains(&next.signal) {
                return Ok(());
            }
        }
    }
}

/// Waits for the end of the daemon, and tells if it was killed; by itself it says what is wrong.
fn tell_how_it_ended(daemon: Pid) {
    if let Ok(WaitStatus::Signaled(_, signal, _)) = again(|| waitpid(daemon, None)) {
        // Nobody may be listening any more.
        let _ = writeln!(
            io::stderr(),
            "dotlockfs: the process that serves the guarded directory was killed ({signal}); \
             programs get ENOTCONN there from now on"
        );
    }
}

/// Ends this process by a signal, without a core file.
fn end_by(signal: Signal) {
    let _ = prctl::set_dumpable(false);
    process::default_effect(signal);
    let _ = kill(getpid(), signal);
    let _ = sigprocmask(
        SigmaskHow::SIG_UNBLOCK,
        Some(&SigSet::from_iter([signal])),
        None,
    );
}
