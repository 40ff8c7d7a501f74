//! How a host takes what is answered to its calls, and what it does when nothing is.

use super::host::known;
use super::protocol::Protocol;
use super::state::{Answer, At, Call, Host, NONE, State, Stray, record};

impl Protocol {
    /// Hears the answer to the last call.
    pub fn hear(&self, state: &mut State, me: usize) {
        let mut host = state.hosts[me];
        let (Some(call), Some(answer)) = (host.call, host.answer) else {
            return;
        };
        host.call = None;
        host.answer = None;
        match call {
            Call::Take(n, owner) => match answer {
                Answer::Done if host.slow => host.at = At::GiveBack,
                Answer::Done if self.rules.confirm && host.known.is_some_and(|known| known.old) => {
                    host.at = At::Confirm;
                }
                Answer::Done => self.hold(state, &mut host),
                // It was this host, if the call was executed twice.
                _ if state.turn(n).taken == Some(owner) => host.at = At::Confirm,
                _ => let_go(&mut host),
            },
            Call::End(n, _) if host.at != At::Idle => {
                // A turn that was slow may be over for so long that its names were removed, and
                // its end is made anew: that does not make it the newest.
                let sure = match self.rules.end_when_slow_says_nothing {
                    true => host.at == At::End && !host.slow && answer == Answer::Done,
                    false => match host.at {
                        At::End => answer == Answer::Done,
                        _ => host.slow,
                    },
                };
                let_go(&mut host);
                if self.cleaning && sure {
                    host.known = Some(known(state, n, true));
                }
            }
            Call::Publish(..) if answer != Answer::Done => host.at = At::GiveBack,
            Call::Write(inode, place, ..) => {
                self.updated(state, me, &mut host, true, Some((inode, place)));
            }
            Call::Overwrite(..) => self.updated(state, me, &mut host, true, None),
            Call::Replace(stage, _) | Call::Rename(stage, ..) => {
                let done = answer == Answer::Done || state.x == stage;
                self.updated(state, me, &mut host, done, None);
            }
            _ => {}
        }
        state.hosts[me] = host;
    }

    /// The reply to an update has come. `open`: where the record was sent to, if its fate can be
    /// found out later.
    fn updated(
        &self,
        state: &mut State,
        me: usize,
        host: &mut Host,
        done: bool,
        open: Option<(u8, u8)>,
    ) {
        let n = host.n;
        host.began = true;
        let lost = match self.rules.look_lists {
            true => !state.stands(n),
            false => state.turn(n).done.is_some(),
        };
        if host.slow && lost && self.rules.look_when_late {
            let_go(host);
            match open {
                Some((inode, place)) => host.lost = Some((n, inode, place)),
                // The program gets an error.
                None => host.next += 1,
            }
            return;
        }
        if done {
            acknowledge(state, me, host);
        } else {
            host.next += 1;
        }
        host.at = At::Ready;
        if host.slow {
            host.at = At::End;
            if !self.rules.slow_turn_stops {
                host.at = At::Ready;
                host.slow = false;
            }
        }
    }

    /// The host sees an error instead of a reply.
    pub fn miss(&self, state: &mut State, me: usize) {
        let mut host = state.hosts[me];
        let executed = host.answer.take().is_some();
        let Some(call) = host.call.take() else {
            return;
        };
        if !executed {
            state.stray.push(Stray { call, again: false });
        }
        match call {
            Call::Take(..) => host.at = At::Confirm,
            _ if !self.rules.give_back_unanswered => {
                host.next += 1;
                host.at = At::End;
            }
            Call::Write(inode, place, ..) => {
                host.lost = Some((host.n, inode, place));
                host.at = At::GiveBack;
            }
            // The program gets an error.
            _ => {
                host.next += 1;
                host.at = At::GiveBack;
            }
        }
        state.hosts[me] = host;
    }
}

/// The host holds no turn any more.
pub fn let_go(host: &mut Host) {
    *host = Host {
        next: host.next,
        lost: host.lost,
        stage: NONE,
        copied: (NONE, 0),
        ..Host::default()
    };
}

/// An update is acknowledged to the program.
pub fn acknowledge(state: &mut State, me: usize, host: &mut Host) {
    state.acknowledged |= 1 << record(me, host.next);
    host.next += 1;
}
