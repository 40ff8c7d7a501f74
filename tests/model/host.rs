//! What a host does next.
//!
//! A move is a step of the protocol: it hears the answer to the call before it, looks at the
//! server where the step begins with a look, decides, and sends at most one call. The call is
//! executed at any later time ([`super::server`]).

use super::protocol::{Protocol, Update};
use super::rules::Fate;
use super::state::{Answer, At, Call, Ended, Fence, Host, Known, NONE, Number, Owner, State, Stray, record};

/// A step of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Move {
    /// `discover`
    Discover,
    /// `is_over`
    IsOver,
    /// `still_taken`
    StillTaken,
    /// `prepare_claim`, where that is due, and `take`
    Take,
    /// `confirm`
    Confirm,
    /// `refresh`, where the rule is that it comes after `take`
    Refresh,
    /// `break_turn`
    BreakTurn,
    /// `inspect`
    Inspect,
    /// `retract`
    Retract,
    /// Looks for the newest fence, and `complete`s it where that is not done.
    CompleteOthers,
    /// `sweep`
    Sweep,
    /// `copy`
    Copy,
    /// `copy`: the copy gets its staged name
    StageCopy,
    /// The note for `publish`
    Note,
    /// `publish`
    Publish,
    /// `complete`
    Complete,
    /// `size` and `write`
    Write,
    /// `stage`
    Stage,
    /// `replace`
    Replace,
    /// `fate`
    Fate,
    /// Acknowledges a record that `fate` has found.
    Acknowledge,
    /// `end`
    End,
    /// `give_back`
    GiveBack,
    /// `clean`: a turn's name
    CleanTurn(Number),
    /// `clean`: an end's name
    CleanDone(Number),
    /// Hears an answer and waits.
    Hear,
}

impl Protocol {
    /// What a host may do next, in a state in which it has heard its last answer.
    pub fn moves(&self, state: &State, me: usize) -> Vec<Move> {
        let host = &state.hosts[me];
        let slow = host.slow;
        match host.at {
            At::Dead | At::Take | At::Write | At::Replaced => vec![],
            At::Idle => self.idle_moves(state, me),
            At::Confirm => vec![Move::Confirm],
            At::Inspect if host.unseen => vec![Move::Refresh],
            At::Inspect => vec![Move::Inspect],
            At::Retract | At::Sweep if slow && self.rules.look_before_removing => {
                vec![Move::GiveBack]
            }
            At::Copy | At::StageCopy | At::Note | At::Publish | At::Complete if slow => {
                vec![Move::GiveBack]
            }
            At::Retract => vec![Move::Retract],
            At::Newest => vec![Move::CompleteOthers],
            At::Sweep => vec![Move::Sweep],
            At::Copy => vec![Move::Copy],
            At::StageCopy => vec![Move::StageCopy],
            At::Note => vec![Move::Note],
            At::Publish => vec![Move::Publish],
            At::Complete => vec![Move::Complete],
            At::Found => vec![Move::Acknowledge],
            At::Ready if host.lost.is_some() => vec![Move::Fate],
            At::Ready | At::Redo => self.ready_moves(host, me),
            At::Replace => vec![Move::Replace],
            At::End => vec![Move::End],
            At::GiveBack => vec![Move::GiveBack],
        }
    }

    fn wants(&self, host: &Host, me: usize) -> bool {
        host.lost.is_some() || self.update(me, host.next).is_some()
    }

    fn idle_moves(&self, state: &State, me: usize) -> Vec<Move> {
        let host = &state.hosts[me];
        let mut moves = Vec::new();
        if self.cleaning {
            self.clean_moves(state, &mut moves);
        }
        if !self.wants(host, me) {
            return moves;
        }
        let (newest, over) = state.newest();
        if !over {
            let ours = state.turn(newest).taken == Some(Owner::Host(me as u8));
            if ours && host.n == newest {
                moves.push(Move::Confirm);
                return moves;
            }
            if self.may_break(state, newest, me) {
                moves.push(Move::BreakTurn);
            }
        }
        if !self.cleaning {
            if over {
                moves.push(Move::Take);
            }
            return moves;
        }
        moves.push(match host.known {
            None => Move::Discover,
            Some(known) if known.old && self.rules.knowledge_ages => {
                match known.over || self.rules.standing_is_not_newest {
                    true => Move::Discover,
                    false => Move::StillTaken,
                }
            }
            Some(known) if known.over => Move::Take,
            // It would see nothing new.
            Some(known) if state.turn(known.n).done.is_none() => return moves,
            Some(_) => Move::IsOver,
        });
        moves
    }

    /// A waiter has seen the turn, its claim and the claim's age unchanged for `stale_after`.
    fn may_break(&self, state: &State, n: Number, me: usize) -> bool {
        match state.turn(n).taken {
            Some(Owner::Host(holder)) if usize::from(holder) == me => false,
            Some(Owner::Host(holder)) => {
                let holder = &state.hosts[usize::from(holder)];
                let refreshes = holder.n == n && holder.at != At::Dead;
                !refreshes || holder.slow || holder.unseen || !self.rules.break_only_slow
            }
            Some(Owner::Nobody) | None => true,
        }
    }

    fn clean_moves(&self, state: &State, moves: &mut Vec<Move>) {
        let newest_done = state.turns.iter().rposition(|turn| turn.done.is_some());
        let Some(newest_done) = newest_done else {
            return;
        };
        for (place, turn) in state.turns[..=newest_done].iter().enumerate() {
            let n = place as Number + 1;
            let superseded = place < newest_done;
            let old = turn.taken.is_some();
            // A turn that ended well goes some seconds after its end; another when a later one
            // has been over for a minute.
            if old && (turn.done == Some(Ended::Clean) || superseded) {
                moves.push(Move::CleanTurn(n));
            }
            if !old && turn.done.is_some() && (superseded || !self.rules.newest_done_stays) {
                moves.push(Move::CleanDone(n));
            }
        }
    }

    fn ready_moves(&self, host: &Host, me: usize) -> Vec<Move> {
        let redo = host.at == At::Redo;
        match self.update(me, host.next) {
            _ if host.slow => vec![Move::End],
            Some(_) if host.began && !redo && self.one_update_a_turn => vec![Move::End],
            Some(Update::Append) if host.began && !redo => vec![Move::Write, Move::End],
            Some(Update::Append) => vec![Move::Write],
            Some(Update::Replace) if host.began => vec![Move::Stage, Move::End],
            Some(Update::Replace) => vec![Move::Stage],
            None => vec![Move::End],
        }
    }

    /// Makes a move.
    pub fn go(&self, state: &mut State, me: usize, step: Move) {
        let mut host = state.hosts[me];
        let n = host.n;
        match step {
            Move::Hear => {}
            Move::Discover => {
                let (n, over) = state.newest();
                host.known = Some(known(state, n, over));
            }
            Move::IsOver => host.known = host.known.map(|old| Known { over: true, ..old }),
            Move::StillTaken => {
                let n = host.known.map_or(0, |known| known.n);
                let stands = state.turn(n).done.is_none() && state.turn(n).taken.is_some();
                host.known = stands.then(|| known(state, n, false));
            }
            Move::Take => {
                let newest = host.known.map_or(state.newest().0, |known| known.n);
                if host.n != newest + 1 || !self.rules.late_take_keeps_age {
                    host.slow = false;
                }
                host.n = newest + 1;
                host.unseen = !self.rules.refresh_before_take;
                host.at = At::Take;
                if let Some(known) = &mut host.known {
                    known.old = false;
                }
                host.call = Some(Call::Take(host.n, Owner::Host(me as u8)));
            }
            Move::Confirm => {
                if host.at == At::Idle && !self.rules.late_take_keeps_age {
                    host.slow = false;
                }
                host.known = None;
                self.confirm(state, me, &mut host);
            }
            Move::Refresh => host.unseen = false,
            Move::BreakTurn => {
                host.known = None;
                host.call = Some(Call::End(state.newest().0, Ended::Broken));
            }
            Move::Inspect => {
                let before = state.turn(n - 1);
                let broken = before.done != Some(Ended::Clean) && before.taken.is_some();
                host.at = match broken && self.rules.inspect {
                    true => At::Retract,
                    false => At::Ready,
                };
            }
            Move::Retract
            | Move::CompleteOthers
            | Move::Sweep
            | Move::Copy
            | Move::StageCopy
            | Move::Note
            | Move::Publish
            | Move::Complete => self.mend(state, &mut host, step),
            Move::Fate => self.fate(state, &mut host),
            Move::Acknowledge => {
                acknowledge(state, me, &mut host);
                host.at = At::Ready;
            }
            Move::Write => {
                let (inode, place) = (state.x, state.files[usize::from(state.x)].len);
                host.at = At::Write;
                host.call = Some(Call::Write(inode, place, record(me, host.next), n));
            }
            Move::Stage => {
                host.stage = state.new_inode();
                let record = record(me, host.next);
                if self.rules.stage {
                    host.at = At::Replace;
                    host.call = Some(Call::Stage(host.stage, record));
                } else {
                    host.at = At::Replaced;
                    host.call = Some(Call::Rename(host.stage, record, n));
                }
            }
            Move::Replace if host.slow => {
                host.at = At::End;
                host.next += 1;
                host.call = Some(Call::Unstage(host.stage));
            }
            Move::Replace => {
                host.at = At::Replaced;
                host.call = Some(Call::Replace(host.stage, n));
            }
            Move::End => {
                host.at = At::End;
                host.call = Some(Call::End(n, Ended::Clean));
            }
            Move::GiveBack => {
                host.at = At::GiveBack;
                let broken = self.rules.give_back_looks_broken;
                if broken {
                    abandon(state, me);
                }
                let ended = if broken { Ended::Broken } else { Ended::Clean };
                host.call = Some(Call::End(n, ended));
            }
            Move::CleanTurn(n) => {
                let clean = state.turn(n).done == Some(Ended::Clean);
                let since = if clean { n } else { later_end(state, n) };
                host.call = Some(Call::RemoveTurn(n));
                state.hosts[me] = host;
                return grow_old(state, since);
            }
            Move::CleanDone(n) => {
                let since = later_end(state, n);
                host.call = Some(Call::RemoveDone(n));
                state.hosts[me] = host;
                return grow_old(state, since);
            }
        }
        state.hosts[me] = host;
    }

    fn confirm(&self, state: &mut State, me: usize, host: &mut Host) {
        let n = host.n;
        match state.turn(n).taken {
            Some(Owner::Host(owner)) if usize::from(owner) == me => {
                if !state.stands(n) || host.slow {
                    host.at = At::GiveBack;
                } else {
                    self.hold(state, host);
                }
            }
            // Somebody was first.
            Some(_) => let_go(host),
            // Not executed, but it may still be.
            None => host.at = At::Idle,
        }
    }

    /// The turn counts.
    fn hold(&self, state: &mut State, host: &mut Host) {
        host.at = At::Inspect;
        if self.cleaning {
            state.wrong.reused |= state.used & 1 << host.n != 0;
            state.used |= 1 << host.n;
        }
    }

    /// The steps by which the duty to fence is fulfilled.
    fn mend(&self, state: &mut State, host: &mut Host, step: Move) {
        let n = host.n;
        match step {
            Move::Retract => {
                if host.listed == 0 && self.rules.retract {
                    host.listed = bits(state.notes.iter().map(|note| note.stage));
                }
                host.call = pop(&mut host.listed).map(Call::RemoveNote);
                if host.listed == 0 {
                    host.at = At::Newest;
                }
            }
            Move::CompleteOthers => {
                host.at = At::Sweep;
                host.fence = state.fences.len() as Number + 1;
                let Some(&fence) = state.fences.last() else {
                    return;
                };
                let there = state.staged(fence.stage).is_some();
                if there && self.rules.complete_others {
                    host.call = Some(Call::Complete(fence.stage));
                    if !self.rules.fence_after_completing {
                        host.at = At::Ready;
                    }
                }
            }
            Move::Sweep => {
                if host.listed == 0 && self.rules.sweep {
                    host.listed = bits(state.staged.iter().map(|(stage, _)| *stage));
                    if !self.rules.complete_others {
                        // Else it would stay as it is for good.
                        let newest = state.fences.last().map_or(NONE, |fence| fence.stage);
                        host.listed &= !(1 << (newest & 15));
                    }
                }
                host.call = pop(&mut host.listed).map(Call::RemoveStage);
                if host.listed == 0 {
                    host.at = At::Copy;
                }
            }
            Move::Copy => {
                let size = state.files[usize::from(state.x)].len;
                host.stage = state.new_inode();
                host.copied = (state.x, size);
                host.at = match self.rules.copy_is_renamed {
                    true => At::StageCopy,
                    false => At::Note,
                };
                host.call = Some(Call::Copy(host.stage, state.x, size));
            }
            Move::StageCopy => {
                host.at = At::Note;
                host.call = Some(Call::StageCopy(host.stage));
            }
            Move::Note => {
                let (old, size) = host.copied;
                let note = Fence {
                    turn: n,
                    old,
                    size,
                    stage: host.stage,
                };
                host.at = At::Publish;
                host.call = Some(Call::Note(note));
            }
            Move::Publish => {
                host.at = At::Complete;
                host.call = Some(Call::Publish(host.stage, host.fence));
            }
            _ => {
                host.at = At::Ready;
                host.call = Some(Call::Complete(host.stage));
            }
        }
    }

    fn fate(&self, state: &mut State, host: &mut Host) {
        let Some((turn, inode, place)) = host.lost.take() else {
            return;
        };
        let decisive = state.fences.iter().find(|fence| fence.turn > turn);
        host.at = match (self.rules.fate, decisive) {
            (Fate::Acknowledge, _) => At::Found,
            (Fate::Redo, _) => At::Redo,
            (Fate::Read, Some(fence)) if fence.old == inode => match place < fence.size {
                true => At::Found,
                false => At::Redo,
            },
            (Fate::Read, _) => {
                state.wrong.unknown = true;
                host.next += 1;
                At::Ready
            }
        };
    }

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
fn let_go(host: &mut Host) {
    *host = Host {
        next: host.next,
        lost: host.lost,
        stage: NONE,
        copied: (NONE, 0),
        ..Host::default()
    };
}

fn acknowledge(state: &mut State, me: usize, host: &mut Host) {
    state.acknowledged |= 1 << record(me, host.next);
    host.next += 1;
}

/// From now on the host uses another claim.
fn abandon(state: &mut State, me: usize) {
    let mine = Owner::Host(me as u8);
    for turn in state.turns.iter_mut() {
        if turn.taken == Some(mine) {
            turn.taken = Some(Owner::Nobody);
        }
    }
    for stray in state.stray.iter_mut() {
        if let Call::Take(_, owner) = &mut stray.call
            && *owner == mine
        {
            *owner = Owner::Nobody;
        }
    }
}

fn known(state: &State, n: Number, over: bool) -> Known {
    let done = state.turns.iter().rposition(|turn| turn.done.is_some());
    Known {
        n,
        over,
        seen: done.map_or(0, |place| place as Number + 1),
        old: false,
    }
}

/// The first end after turn `n` there is.
fn later_end(state: &State, n: Number) -> Number {
    let mut later = state.turns.iter().skip(usize::from(n));
    let after = later.position(|turn| turn.done.is_some());
    after.map_or(n, |after| n + 1 + after as Number)
}

/// The end of turn `n` is known to be some seconds old: what was seen before it is older.
fn grow_old(state: &mut State, n: Number) {
    for host in &mut state.hosts {
        if let Some(known) = &mut host.known {
            known.old |= known.seen < n;
        }
    }
}

fn bits(names: impl Iterator<Item = u8>) -> u16 {
    names.fold(0, |bits, name| bits | 1 << name)
}

/// Takes one name out.
fn pop(bits: &mut u16) -> Option<u8> {
    let name = (*bits != 0).then(|| bits.trailing_zeros() as u8)?;
    *bits &= *bits - 1;
    Some(name)
}
