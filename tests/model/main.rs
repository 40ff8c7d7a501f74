//! Model check.

mod answers;
mod canonical;
mod checks;
mod host;
mod list;
mod mend;
mod protocol;
mod rules;
mod server;
mod state;

use std::time::Instant;

use protocol::{Protocol, Update};
use rules::Rules;
use state::Faults;
use stateright::{Checker, Model};

const AA: &[Update] = &[Update::Append, Update::Append];
const A: &[Update] = &[Update::Append];

fn holds(model: Protocol) {
    let start = Instant::now();
    let checker = model.checker().threads(2).spawn_dfs().join();
    println!(
        "{} states, {} generated, depth {}, {:?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        start.elapsed()
    );
    for (name, path) in checker.discoveries() {
        if checker
            .discovery_classification(name)
            .to_string()
            .contains("counter")
        {
            println!("{name}: {:#?}", path.clone().into_actions());
            println!("{:#?}", path.last_state());
        }
    }
    checker.assert_properties();
}

#[test]
fn small() {
    holds(Protocol {
        rules: Rules::ALL,
        updates: [A, A, &[]],
        faults: Faults {
            crashes: 1,
            slows: 1,
            repeats: 0,
            losses: 0,
        },
        cleaning: false,
        one_update_a_turn: false,
        symmetric: true,
    });
}

#[test]
#[ignore]
fn explore() {
    let spec = std::env::var("MODEL").unwrap();
    let (ups, rest) = spec.split_once(';').unwrap();
    let parts: Vec<&str> = rest.split(';').collect();
    let f: Vec<u8> = parts[0].split(',').map(|x| x.parse().unwrap()).collect();
    let flags = parts.get(1).copied().unwrap_or("");
    let mut updates: [&'static [Update]; 3] = [&[]; 3];
    for (i, u) in ups.split(',').enumerate() {
        updates[i] = u
            .chars()
            .map(|c| match c {
                'A' => Update::Append,
                'I' => Update::InPlace,
                _ => Update::Replace,
            })
            .collect::<Vec<_>>()
            .leak();
    }
    let mut rules = Rules::ALL;
    if let Some(r) = parts.get(2) {
        for r in r.split(',') {
            rule_out(&mut rules, r);
        }
    }
    let m = Protocol {
        rules,
        updates,
        faults: Faults {
            crashes: f[0],
            slows: f[1],
            repeats: f[2],
            losses: f[3],
        },
        cleaning: flags.contains('c'),
        one_update_a_turn: flags.contains('1'),
        symmetric: !flags.contains('n'),
    };
    let bfs = flags.contains('b');
    let start = Instant::now();
    fn out(c: impl Checker<Protocol>, start: Instant) {
        println!(
            "{} states, {} generated, depth {}, {:?}",
            c.unique_state_count(),
            c.state_count(),
            c.max_depth(),
            start.elapsed()
        );
        let mut missing: Vec<_> = c.model().properties().iter().map(|p| p.name).collect();
        for (name, path) in c.discoveries() {
            missing.retain(|m| *m != name);
            if c.discovery_classification(name)
                .to_string()
                .contains("counter")
            {
                println!("{name}: {} actions", path.clone().into_actions().len());
                for a in path.clone().into_actions() {
                    println!("   {a:?}");
                }
                println!("{:?}", path.last_state());
            } else {
                println!("seen: {name}");
            }
        }
        println!("not discovered: {missing:?}");
    }
    let threads = std::env::var("T").map_or(1, |t| t.parse().unwrap());
    let ch = m
        .checker()
        .threads(threads)
        .finish_when(stateright::HasDiscoveries::AnyOf(
            checks::PROMISES.into_iter().collect(),
        ));
    if bfs {
        out(ch.spawn_bfs().join(), start)
    } else {
        out(ch.spawn_dfs().join(), start)
    }
}
fn rule_out(r: &mut Rules, name: &str) {
    match name {
        "" => {}
        "inspect" => r.inspect = false,
        "put_if_absent" => r.put_if_absent = false,
        "redo" => r.fate = rules::Fate::Redo,
        "ack" => r.fate = rules::Fate::Acknowledge,
        "look_when_late" => r.look_when_late = false,
        "slow_turn_stops" => r.slow_turn_stops = false,
        "give_back_looks_broken" => r.give_back_looks_broken = false,
        "end_makes_a_name" => r.end_makes_a_name = false,
        "newest_done_stays" => r.newest_done_stays = false,
        "knowledge_ages" => r.knowledge_ages = false,
        "confirm" => r.confirm = false,
        "sweep" => r.sweep = false,
        "stage" => r.stage = false,
        "retract" => r.retract = false,
        "complete_others" => r.complete_others = false,
        "fence_after_completing" => r.fence_after_completing = false,
        "fences_consecutive" => r.fences_consecutive = false,
        "break_only_slow" => r.break_only_slow = false,
        "refresh_before_take" => r.refresh_before_take = false,
        "look_before_removing" => r.look_before_removing = false,
        "late_take_keeps_age" => r.late_take_keeps_age = false,
        "copy_is_renamed" => r.copy_is_renamed = false,
        "look_lists" => r.look_lists = false,
        "end_when_slow_says_nothing" => r.end_when_slow_says_nothing = false,
        "standing_is_not_newest" => r.standing_is_not_newest = false,
        _ => panic!("{name}"),
    }
}
