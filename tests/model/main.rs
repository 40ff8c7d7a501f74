//! An exhaustive check of the lock protocol.
//!
//! The model has a server that holds the names of a guarded file's directory, up to three hosts
//! that each follow the protocol step by step, and calls under way between them. Every
//! interleaving is visited, within the bounds that each test states: how many updates there are
//! to make, and how many hosts crash, turns become slow (the host is paused or cut off), calls
//! are executed once more, and replies are lost. In every state the file must be as promised
//! ([`checks`]). The same check is then made with one rule of the protocol taken out at a time,
//! and must find what the rule is for ([`ruled_out`]).
//!
//! # The steps
//!
//! | step of the model ([`host::Move`]) | in the code |
//! | --- | --- |
//! | `Discover` | `Turns::discover` |
//! | `Take`, with `prepare_claim` before it | `Turns::prepare_claim`, `Turns::take` |
//! | `Confirm` | `Turns::confirm` |
//! | `IsOver` | `Turns::is_over` |
//! | `StillTaken` (only where a rule is taken out) | none: when knowledge is old, the code lists |
//! | `Refresh` (only where it is misplaced) | `Turns::refresh` |
//! | `BreakTurn` | `Turns::judge`, `Turns::break_turn` (`lock/turns/breaking.rs`) |
//! | `Inspect` | `Turns::inspect` (`lock/turns/breaking.rs`) |
//! | `Retract` | `fence::retract` |
//! | `CompleteOthers`, `Complete` | `fence::complete` |
//! | `Sweep` | `fence::sweep` |
//! | `Copy`, `StageCopy` | `Mending::copy`, and the rename after it (`guard/mend.rs`) |
//! | `Note`, `Publish` | `fence::publish` |
//! | `Fate`, `Acknowledge` | `fence::fate` |
//! | `Write` (`size` and `write`), `Overwrite`, `Stage`, `Replace` | the guard's updates, between `Guard::may_begin` and `Guard::still_ours`, which asks `Turns::is_newest` |
//! | `End`, `GiveBack` | `Turns::end`, `Turns::give_back` |
//! | `CleanTurn`, `CleanDone` | `Turns::clean`, and the removal of leftovers in `Turns::discover` |
//!
//! # What is left out, and why that does no harm
//!
//! - Time. A turn is slow from some moment on, for good. Only a turn that is slow, or whose holder
//!   is dead or does not know of it, can be broken; that the clocks see to this is taken for
//!   granted, and so is that a sign of life comes in time where nothing is slow. That names are
//!   removed only some seconds after an end is modelled by what it is for: at that moment all that
//!   was seen before that end is old ([`state::Known`]).
//! - Looks are made at once, together with the step that acts on them: the call that follows may
//!   be executed at any later time, so there is always room for others between the two. For the
//!   same reason a host hears an answer together with its next step; only where it judges by the
//!   time at which the reply comes (`take` and the updates) is that a step of its own.
//! - A record is one call long (so nothing is said here of the cut at the start of an unfinished
//!   write of several calls), a copy is made by one call, and a listing is read at once.
//! - Fences that are not the newest stay.
//! - A call that is sent again by a host that got no answer is one that is executed once more.
//!   Errors that end a step are modelled where sending it again is no remedy: `take` and updates.
//! - A call that is executed once more has an effect only where it is not put-if-absent and does
//!   not write what is there already; a repetition without effect is not counted.
//! - Which claim it is: a claim is its host's, or, once a turn was given back, nobody's.
//! - Signs of life, owner records, part files, dotlocks, kept files.

mod answers;
mod canonical;
mod checks;
mod host;
mod list;
mod mend;
mod protocol;
mod ruled_out;
mod rules;
mod server;
mod state;

use std::time::Instant;

use protocol::{Protocol, Update};
use rules::Rules;
use state::{Faults, HOSTS};
use stateright::{Checker, Expectation, Model};

/// One append.
pub const A: &[Update] = &[Update::Append];
/// Two appends.
pub const AA: &[Update] = &[Update::Append; 2];
/// One update in place.
pub const I: &[Update] = &[Update::InPlace];
/// An append, and then an update in place.
pub const AI: &[Update] = &[Update::Append, Update::InPlace];
/// One replacement.
pub const R: &[Update] = &[Update::Replace];
/// A replacement, and then an append.
pub const RA: &[Update] = &[Update::Replace, Update::Append];
/// A host that does nothing.
pub const NOTHING: &[Update] = &[];

/// The whole protocol, with these updates and faults.
pub fn protocol(updates: [&'static [Update]; HOSTS], faults: Faults) -> Protocol {
    Protocol {
        rules: Rules::ALL,
        updates,
        faults,
        cleaning: false,
        one_update_a_turn: false,
        symmetric: true,
    }
}

/// Nothing goes wrong, but that calls are executed late.
pub const NO_FAULTS: Faults = Faults {
    crashes: 0,
    slows: 0,
    repeats: 0,
    losses: 0,
};

/// Visits all states. Everything that must never be is never; and, where turns can be lost,
/// everything that must be seen is seen.
fn check(name: &str, model: Protocol) {
    let start = Instant::now();
    let turns_are_lost = model.faults.slows > 0;
    let checker = model.checker().spawn_dfs().join();
    println!(
        "{name}: {} states, paths of up to {} steps, {:.1} s",
        checker.unique_state_count(),
        checker.max_depth(),
        start.elapsed().as_secs_f32(),
    );
    for property in checker.model().properties() {
        match property.expectation {
            Expectation::Always => checker.assert_no_discovery(property.name),
            _ if turns_are_lost || property.name == checks::ALL_MADE => {
                checker.assert_any_discovery(property.name);
            }
            _ => {}
        }
    }
}

#[test]
fn appends_of_three_hosts() {
    let faults = Faults {
        crashes: 1,
        slows: 1,
        ..NO_FAULTS
    };
    check("three hosts, two records each", protocol([AA; 3], faults));
    let faults = Faults { slows: 2, ..faults };
    check("three hosts, two slow turns", protocol([A; 3], faults));
}

#[test]
fn appends_with_lost_replies() {
    let faults = Faults {
        crashes: 1,
        slows: 2,
        losses: 1,
        ..NO_FAULTS
    };
    check("lost replies", protocol([AA, A, NOTHING], faults));
}

#[test]
fn appends_with_repeated_calls() {
    let faults = Faults {
        crashes: 1,
        slows: 2,
        repeats: 1,
        losses: 1,
    };
    check("repeated calls", protocol([A, A, NOTHING], faults));
}

#[test]
fn replacing_and_updates_in_place() {
    let faults = Faults {
        crashes: 1,
        slows: 1,
        ..NO_FAULTS
    };
    check("each kind of update", protocol([A, I, R], faults));
    let faults = Faults {
        losses: 1,
        ..faults
    };
    check(
        "each kind, lost replies",
        protocol([AI, R, NOTHING], faults),
    );
    let faults = Faults {
        crashes: 1,
        slows: 2,
        ..NO_FAULTS
    };
    check("replacing", protocol([RA, RA, NOTHING], faults));
    check("replacing among appends", protocol([A, A, R], faults));
}

/// The protocol with the removal of old names, and knowledge that grows old.
pub fn cleaning(updates: [&'static [Update]; HOSTS], faults: Faults) -> Protocol {
    Protocol {
        cleaning: true,
        one_update_a_turn: true,
        ..protocol(updates, faults)
    }
}

#[test]
fn old_names_are_removed() {
    check("cleaning", cleaning([AA, A, A], NO_FAULTS));
    let faults = Faults {
        slows: 1,
        repeats: 1,
        ..NO_FAULTS
    };
    check("cleaning, repeated", cleaning([A, A, NOTHING], faults));
}

#[test]
fn old_names_are_removed_behind_a_slow_host() {
    let faults = Faults {
        slows: 1,
        ..NO_FAULTS
    };
    check("cleaning, slow", cleaning([A; 3], faults));
}

/// Takes some minutes and some gigabytes.
#[test]
#[ignore = "takes long"]
fn larger_bounds() {
    let faults = Faults {
        crashes: 1,
        slows: 2,
        ..NO_FAULTS
    };
    check("three hosts, two records", protocol([AA; 3], faults));
    let faults = Faults {
        losses: 1,
        ..faults
    };
    check("lost replies", protocol([AA, AA, NOTHING], faults));
    let faults = Faults { slows: 1, ..faults };
    check("each kind, lost replies", protocol([A, I, R], faults));
    let faults = Faults {
        crashes: 1,
        slows: 3,
        ..NO_FAULTS
    };
    check("three slow turns", protocol([A; 3], faults));
    let faults = Faults {
        crashes: 1,
        slows: 1,
        repeats: 1,
        ..NO_FAULTS
    };
    check("cleaning, crash", cleaning([A, A, NOTHING], faults));
    let faults = Faults {
        losses: 1,
        ..NO_FAULTS
    };
    check("cleaning, lost replies", cleaning([A; 3], faults));
}
