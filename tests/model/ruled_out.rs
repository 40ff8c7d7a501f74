//! What comes of taking out one rule of the protocol; and what the whole of it does not prevent.

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model};

use super::checks::PROMISES;
use super::protocol::Protocol;
use super::rules::{Fate, Rules};
use super::state::Faults;
use super::{A, AA, I, NO_FAULTS, NOTHING, R, RA, cleaning, protocol};

const SLOW: Faults = Faults {
    slows: 1,
    ..NO_FAULTS
};
const TWO_SLOW: Faults = Faults {
    slows: 2,
    ..NO_FAULTS
};
const SLOW_AND_CRASH: Faults = Faults {
    crashes: 1,
    slows: 1,
    ..NO_FAULTS
};
const SLOW_AND_LOST: Faults = Faults {
    slows: 1,
    losses: 1,
    ..NO_FAULTS
};
const SLOW_AND_REPEATED: Faults = Faults {
    slows: 2,
    repeats: 1,
    ..NO_FAULTS
};

/// Two hosts, with a record each.
fn two(faults: Faults) -> Protocol {
    protocol([A, A, NOTHING], faults)
}

/// A promise is broken, by the shortest way. `MODEL_STEPS=1` shows it; the hosts may change places
/// on the way, since states in which they have are not told apart.
fn breaks(rules: Rules, model: Protocol) {
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let model = Protocol { rules, ..model };
    let promises = BTreeSet::from(PROMISES);
    let checker = model.checker().finish_when(HasDiscoveries::AnyOf(promises));
    let checker = checker.spawn_bfs().join();
    let found = PROMISES.into_iter().find_map(|promise| {
        let steps = checker.discovery(promise)?.into_actions();
        Some((promise, steps))
    });
    let states = checker.unique_state_count();
    match found {
        Some((promise, steps)) => {
            let count = steps.len();
            println!("{name}: not \"{promise}\" after {count} steps ({states} states)");
            if std::env::var_os("MODEL_STEPS").is_some() {
                println!("{steps:#?}");
            }
        }
        None => panic!("nothing breaks in {states} states"),
    }
}

/// Nothing is broken, though two turns become slow and a host crashes.
fn holds_within_bounds(rules: Rules) {
    assert_ne!(rules, Rules::ALL);
    let faults = Faults {
        crashes: 1,
        slows: 2,
        ..NO_FAULTS
    };
    for updates in [[A; 3], [RA, RA, NOTHING]] {
        let model = protocol(updates, faults);
        super::check("a second line of defence", Protocol { rules, ..model });
    }
}

macro_rules! breaks_without {
    ($($(#[$doc:meta])* $name:ident: $rule:ident = $without:expr, $model:expr;)*) => {$(
        $(#[$doc])*
        #[test]
        fn $name() {
            breaks(Rules { $rule: $without, ..Rules::ALL }, $model);
        }
    )*};
}

breaks_without! {
    /// Nobody fences after a broken turn.
    no_fence: inspect = false, two(SLOW);
    fate_always_redo: fate = Fate::Redo, two(SLOW);
    fate_always_acknowledge: fate = Fate::Acknowledge, two(SLOW_AND_CRASH);
    late_reply_without_a_look: look_when_late = false, two(SLOW);
    /// The write of a turn that ended well is still on its way.
    ended_well_without_an_answer:
        give_back_unanswered = false, two(Faults { losses: 1, ..NO_FAULTS });
    a_slow_turn_goes_on: slow_turn_stops = false, protocol([AA, A, NOTHING], SLOW);
    given_back_as_if_it_had_ended_well: give_back_looks_broken = false, protocol([A; 3], TWO_SLOW);
    /// The classic lock file: a late `unlink` removes somebody else's.
    let_go_by_unlink: end_makes_a_name = false, protocol([A; 3], SLOW);
    newest_done_removed: newest_done_stays = false, cleaning([A; 3], NO_FAULTS);
    old_knowledge: knowledge_ages = false, cleaning([A; 3], NO_FAULTS);
    slow_link_trusted: confirm = false, cleaning([A; 3], NO_FAULTS);
    /// A late replacement lands on the copy.
    no_sweep: sweep = false, protocol([A, R, NOTHING], SLOW);
    no_staging: stage = false, protocol([A, R, NOTHING], SLOW);
    /// A broken fencer publishes after the newest fence was looked for.
    no_retracting: retract = false, two(TWO_SLOW);
    others_not_completed: complete_others = false, two(TWO_SLOW);
    broken_while_not_slow: break_only_slow = false, protocol([A; 3], NO_FAULTS);
    refreshed_after_taking: refresh_before_take = false, protocol([A; 3], NO_FAULTS);
    /// A slow mender removes what its successor has staged.
    removed_without_a_look: look_before_removing = false, two(SLOW_AND_LOST);
    /// A turn whose `link` was taken for failed is held with a sign of life that came later, while
    /// a waiter is already breaking it.
    late_take_looks_young: late_take_keeps_age = false, two(SLOW_AND_LOST);
    /// The file that was made for the copy is made again, empty, and renamed over X.
    copy_made_under_its_staged_name: copy_is_renamed = false, two(SLOW_AND_REPEATED);
    /// The end of a lost turn has been removed when its holder looks for it.
    only_its_end_looked_for: look_lists = false, cleaning([A; 3], SLOW);
    /// So has the next turn, when the holder ends its own after a long while.
    old_end_taken_for_the_newest: end_when_slow_says_nothing = false, cleaning([A; 3], SLOW);
    /// A late `link` brings back a turn's name that was removed, and somebody still waits for it.
    standing_turn_taken_for_the_newest:
        standing_is_not_newest = false, cleaning([AA, A, A], NO_FAULTS);
}

/// Once earlier notes are retracted, nobody else can publish a fence of any number.
#[test]
fn fences_put_if_absent_are_a_second_line_of_defence() {
    let rules = Rules {
        put_if_absent: false,
        ..Rules::ALL
    };
    holds_within_bounds(rules);
}

/// For the same reason the fences are in the order of their turns, whatever their numbers are.
#[test]
fn consecutive_numbers_are_a_second_line_of_defence() {
    let rules = Rules {
        fences_consecutive: false,
        ..Rules::ALL
    };
    holds_within_bounds(rules);
}

/// A fencer that somebody else could complete for has not completed by itself, or is slow: either
/// way it will write nothing under that turn, so its copy needs no fence.
#[test]
fn a_fence_after_completing_is_a_second_line_of_defence() {
    let rules = Rules {
        fence_after_completing: false,
        ..Rules::ALL
    };
    holds_within_bounds(rules);
}

/// A limit: a write in place that is executed once more, after its reply and after the end of its
/// turn, undoes a later one. Nobody had a reason to fence.
#[test]
fn a_repeated_write_in_place_undoes_a_later_one() {
    let faults = Faults {
        repeats: 1,
        ..NO_FAULTS
    };
    breaks(Rules::ALL, protocol([I, I, NOTHING], faults));
}

/// A limit: if both the making of a copy and the call that stages it are executed once more, and
/// the call that completes the fence comes late, then an empty file takes the file's place.
#[test]
fn two_repeated_calls_bring_back_a_staged_name() {
    let faults = Faults {
        crashes: 1,
        slows: 1,
        repeats: 2,
        losses: 0,
    };
    breaks(Rules::ALL, protocol([A, A, NOTHING], faults));
}
