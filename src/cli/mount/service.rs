//! What the service manager is told that has started this process (sd_notify(3)): that the mount
//! answers, that it ends, and one line on what it is.
//!
//! Only a daemon in the foreground tells anything: one that went into the background was started by
//! somebody who must not be told in its place (`mount -a` in a service of its own, say).

use std::process::Command;
use std::time::Duration;

use sd_notify::NotifyState;

/// The variables by which a service manager is reached. What we start is not its service.
const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The service manager, if there is one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Service {
    listens: bool,
}

impl Service {
    /// The one that the environment of this process names, if it does.
    pub(super) fn of_this_process() -> Service {
        Service {
            listens: std::env::var_os(VARIABLES[0]).is_some(),
        }
    }

    /// Nobody is told anything.
    pub(super) fn nobody() -> Service {
        Service { listens: false }
    }

    /// The mount answers, or goes on after its rules were read again; `status` is a line for people.
    pub(super) fn is_ready(self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The rules are being read again; then it [is ready](Self::is_ready).
    pub(super) fn reloads(self) {
        // systemd wants to know that this is the answer to its latest signal.
        let since = NotifyState::monotonic_usec_now().into_iter();
        let states: Vec<_> = std::iter::once(NotifyState::Reloading)
            .chain(since)
            .collect();
        self.tell(&states);
    }

    /// The mount comes to its end.
    pub(super) fn stops(self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("ending")]);
    }

    /// The daemon is well.
    pub(super) fn lives(self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// Within what time it wants to hear that the daemon is well; `None`: it does not.
    pub(super) fn watchdog(self) -> Option<Duration> {
        let time = sd_notify::watchdog_enabled().filter(|_| self.listens);
        time.filter(|time| !time.is_zero())
    }

    fn tell(self, states: &[NotifyState<'_>]) {
        if self.listens
            && let Err(error) = sd_notify::notify(states)
        {
            log::warn!("the service manager cannot be told of the mount: {error}");
        }
    }
}

/// Keeps a program that we start from being taken for the service.
pub(super) fn is_not_for(command: &mut Command) -> &mut Command {
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    command
}
