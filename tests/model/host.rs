//! What a host does next.
//!
//! A move is a step of the protocol: it hears the answer to the call before it, looks at the
//! server where the step begins with a look, decides, and sends at most one call. The call is
//! executed at any later time ([`super::server`]).

use super::answers::{acknowledge, let_go};
use super::protocol::{Protocol, Update};
use super::state::{At, Call, Ended, Host, Known, Number, Owner, State, record};

/// A step of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Move {
    /// `discover`
    Discover,
    /// `is_over`
    IsOver,
    /// a look whether an old turn still stands, where the rule to list instead is taken out
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
    /// An update in place.
    Overwrite,
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
            Some(Update::InPlace) if host.began => vec![Move::Overwrite, Move::End],
            Some(Update::InPlace) => vec![Move::Overwrite],
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
            Move::Overwrite => {
                host.at = At::Write;
                host.call = Some(Call::Overwrite(state.x, record(me, host.next), n));
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
    pub fn hold(&self, state: &mut State, host: &mut Host) {
        host.at = At::Inspect;
        if self.cleaning {
            state.wrong.reused |= state.used & 1 << host.n != 0;
            state.used |= 1 << host.n;
        }
    }
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

/// What a look shows now.
pub fn known(state: &State, n: Number, over: bool) -> Known {
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
