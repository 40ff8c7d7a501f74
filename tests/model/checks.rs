//! What must hold in every state, and what must be seen in some.

use stateright::Property;

use super::protocol::{Protocol, Update};
use super::state::{At, HOSTS, State, record};

/// The names of those properties that are about the file itself: a rule is of use if one of them
/// fails without it.
pub const PROMISES: [&str; 6] = [
    "no acknowledged record is missing",
    "no acknowledged replacement is undone",
    "no acknowledged update in place is undone",
    "no record is in the file twice",
    "the file has no hole",
    "no record is written over another",
];

/// All hosts can finish.
pub const ALL_MADE: &str = "all updates are made";

/// The properties. That of the file are about what a reader finds who comes after the mend that
/// is under way: between the publishing of a fence and its completion the name still leads to
/// the inode that is given up.
pub fn properties() -> Vec<Property<Protocol>> {
    vec![
        Property::always(
            "no acknowledged record is missing",
            |model: &Protocol, state: &State| none_missing(model, state, Update::Append),
        ),
        Property::always(
            "no acknowledged replacement is undone",
            |model: &Protocol, state: &State| none_missing(model, state, Update::Replace),
        ),
        Property::always(
            "no acknowledged update in place is undone",
            |model: &Protocol, state: &State| none_missing(model, state, Update::InPlace),
        ),
        Property::always("no record is in the file twice", |_, state: &State| {
            let mut seen = 0u16;
            state
                .contents()
                .iter()
                .filter(|record| *record != 0)
                .all(|record| {
                    let first = seen & 1 << record == 0;
                    seen |= 1 << record;
                    first
                })
        }),
        Property::always("the file has no hole", |_, state: &State| {
            state.contents().iter().all(|record| record != 0)
        }),
        Property::always("no record is written over another", |_, state: &State| {
            !state.wrong.overwritten
        }),
        Property::always("no two hosts hold turns", |_, state: &State| {
            state
                .hosts
                .iter()
                .filter(|host| holds(host.at) && !host.slow)
                .count()
                <= 1
        }),
        Property::always("no turn's number is used twice", |_, state: &State| {
            !state.wrong.reused
        }),
        Property::always("the fate of a record is found out", |_, state: &State| {
            !state.wrong.unknown
        }),
        Property::sometimes("a fence is completed", |_, state: &State| {
            !state.fences.is_empty() && state.unfinished().is_none()
        }),
        Property::sometimes("a lost record is found in the file", |_, state: &State| {
            state.hosts.iter().any(|host| host.at == At::Found)
        }),
        Property::sometimes("a lost record is appended again", |_, state: &State| {
            state.hosts.iter().any(|host| host.at == At::Redo)
        }),
        Property::sometimes(ALL_MADE, |model: &Protocol, state: &State| {
            state.hosts.iter().enumerate().all(|(me, host)| {
                let made = usize::from(host.next) == model.updates[me].len();
                host.at == At::Idle && made && host.lost.is_none() && host.call.is_none()
            })
        }),
    ]
}

fn none_missing(model: &Protocol, state: &State, kind: Update) -> bool {
    let there = state
        .contents()
        .iter()
        .fold(0u16, |bits, record| bits | 1 << record);
    let due = state.acknowledged & !state.replaced;
    (0..HOSTS).all(|me| {
        (0..)
            .zip(model.updates[me])
            .all(|(place, update)| *update != kind || due & !there & 1 << record(me, place) == 0)
    })
}

/// The host believes that it holds a turn. (A turn that is given back does not count any more.)
fn holds(at: At) -> bool {
    !matches!(
        at,
        At::Idle | At::Take | At::Confirm | At::GiveBack | At::End | At::Dead
    )
}
