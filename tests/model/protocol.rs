//! The model: which actions there are in a state, and what they lead to.

use stateright::{Model, Property};

use super::canonical::canonical;
use super::checks;
use super::host::Move;
use super::rules::Rules;
use super::server::execute;
use super::state::{At, Call, Contents, Faults, HOSTS, Host, State, Stray};

/// An update that a host makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// Appends a record.
    Append,
    /// Writes over the first record.
    InPlace,
    /// Renames a program's file over the guarded one.
    Replace,
}

/// What is checked.
#[derive(Debug, Clone)]
pub struct Protocol {
    /// The rules that hold.
    pub rules: Rules,
    /// The updates of each host, at most [`UPDATES`](super::state::UPDATES).
    pub updates: [&'static [Update]; HOSTS],
    /// What may go wrong.
    pub faults: Faults,
    /// Old names are removed, and knowledge of the newest turn is kept between steps. Else a host
    /// takes a turn by what it sees at that moment, and all names stay.
    pub cleaning: bool,
    /// A host ends its turn after each update. Else it may go on, too.
    pub one_update_a_turn: bool,
    /// States that differ only by which host is which count as one.
    pub symmetric: bool,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// A host makes its next step.
    Step(usize, Move),
    /// The call of a host is executed.
    Execute(usize, Call),
    /// It is executed, and will be executed again.
    ExecuteTwice(usize, Call),
    /// A call is executed that nobody waits for.
    ExecuteLate(Stray),
    /// Instead of the reply the host sees an error.
    LoseReply(usize, Call),
    /// The host's turn becomes slow: it is paused, or cut off.
    Slow(usize),
    /// The host crashes.
    Crash(usize),
}

impl Protocol {
    /// A host's update.
    pub fn update(&self, host: usize, place: u8) -> Option<Update> {
        self.updates[host].get(usize::from(place)).copied()
    }

    /// A host that has heard its last answer, as far as it hears it by itself.
    fn heard(&self, state: &State, host: usize) -> State {
        let mut state = *state;
        self.hear(&mut state, host);
        state
    }

    fn actions_of(&self, state: &State, me: usize, actions: &mut Vec<Action>) {
        let host = &state.hosts[me];
        if host.at == At::Dead {
            return;
        }
        let faults = &state.faults;
        match host.call {
            Some(call) if host.answer.is_none() => {
                actions.push(Action::Execute(me, call));
                if faults.repeats > 0 {
                    actions.push(Action::ExecuteTwice(me, call));
                }
            }
            Some(_) => {
                let moves = self.moves(&self.heard(state, me), me);
                actions.extend(moves.iter().map(|step| Action::Step(me, *step)));
                if moves.is_empty() {
                    actions.push(Action::Step(me, Move::Hear));
                }
            }
            None => {
                let moves = self.moves(state, me);
                actions.extend(moves.iter().map(|step| Action::Step(me, *step)));
            }
        }
        if let Some(call) = host.call
            && may_be_lost(call)
            && faults.losses > 0
        {
            actions.push(Action::LoseReply(me, call));
        }
        if host.n == 0 && host.call.is_none() {
            return;
        }
        if host.n != 0 && !host.slow && faults.slows > 0 {
            actions.push(Action::Slow(me));
        }
        if faults.crashes > 0 {
            actions.push(Action::Crash(me));
        }
    }

    fn answer(&self, state: &mut State, me: usize, call: Call) {
        let answer = execute(state, &self.rules, call, false);
        state.hosts[me].answer = Some(answer);
        // Whether the reply comes at once makes a difference only where the host looks at the
        // time when it comes.
        if !may_be_lost(call) {
            self.hear(state, me);
        }
    }
}

/// Calls whose reply is judged by the time it takes, and whose loss is not made good by sending
/// the same call again.
fn may_be_lost(call: Call) -> bool {
    matches!(
        call,
        Call::Take(..)
            | Call::Write(..)
            | Call::Overwrite(..)
            | Call::Replace(..)
            | Call::Rename(..)
    )
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            turns: Default::default(),
            fences: Default::default(),
            notes: Default::default(),
            staged: Default::default(),
            made: Default::default(),
            x: 0,
            files: Default::default(),
            hosts: [Host::default(); HOSTS],
            stray: Default::default(),
            acknowledged: 0,
            replaced: 0,
            updated: 0,
            faults: self.faults,
            wrong: Default::default(),
            used: 0,
        };
        state.files.push(Contents::default());
        vec![canonical(self, &state)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for me in 0..HOSTS {
            self.actions_of(state, me, actions);
        }
        actions.extend(state.stray.iter().map(|stray| Action::ExecuteLate(*stray)));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::Step(me, step) => {
                self.hear(&mut state, me);
                self.go(&mut state, me, step);
            }
            Action::Execute(me, call) => self.answer(&mut state, me, call),
            Action::ExecuteTwice(me, call) => {
                state.faults.repeats -= 1;
                state.stray.push(Stray { call, again: true });
                self.answer(&mut state, me, call);
            }
            Action::ExecuteLate(stray) => {
                let place = state.stray.iter().position(|other| *other == stray)?;
                state.stray.remove(place);
                execute(&mut state, &self.rules, stray.call, stray.again);
            }
            Action::LoseReply(me, _) => {
                state.faults.losses -= 1;
                self.miss(&mut state, me);
            }
            Action::Slow(me) => {
                state.faults.slows -= 1;
                state.hosts[me].slow = true;
            }
            Action::Crash(me) => {
                state.faults.crashes -= 1;
                let host = state.hosts[me];
                if let (Some(call), None) = (host.call, host.answer) {
                    state.stray.push(Stray { call, again: false });
                }
                state.hosts[me] = Host {
                    at: At::Dead,
                    ..Host::default()
                };
            }
        }
        let state = canonical(self, &state);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        checks::properties()
    }
}
