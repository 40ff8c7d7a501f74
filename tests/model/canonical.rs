//! States that differ only in what nobody will ever see are made the same.

use super::protocol::{Protocol, Update};
use super::state::{
    At, Call, Contents, Fence, HOSTS, Host, Inode, NONE, Number, Owner, State, Stray, UPDATES,
    record,
};

/// The state that stands for this one and for those like it.
pub fn canonical(model: &Protocol, state: &State) -> State {
    let mut state = *state;
    drop_vain(model, &mut state);
    if !model.cleaning && model.rules.end_makes_a_name {
        renumber_turns(&mut state);
        renumber_fences(&mut state);
    }
    forget_unseen(&mut state);
    if model.symmetric {
        sort_hosts(model, &mut state);
    }
    renumber_inodes(&mut state);
    state.stray.sort_unstable();
    state.notes.sort_unstable();
    state.staged.sort_unstable();
    state.made.sort_unstable();
    state
}

/// Calls that can have no effect any more are not waited for.
fn drop_vain(model: &Protocol, state: &mut State) {
    let now = *state;
    state.stray.retain(|stray| {
        let vain = is_vain(model, &now, stray);
        if vain && stray.again {
            state.faults.repeats += 1;
        }
        !vain
    });
}

fn is_vain(model: &Protocol, state: &State, stray: &Stray) -> bool {
    let comes_back = |stage: Inode| {
        let makes = |call: Call| match call {
            Call::Copy(name, ..) | Call::StageCopy(name) | Call::Stage(name, _) => name == stage,
            Call::Note(note) => note.stage == stage,
            _ => false,
        };
        let sent = state.hosts.iter().filter_map(|host| host.call);
        sent.chain(state.stray.iter().map(|stray| stray.call))
            .any(makes)
    };
    let names_stay = !model.cleaning && model.rules.end_makes_a_name;
    match stray.call {
        Call::Take(n, _) => names_stay && state.turn(n).taken.is_some(),
        Call::End(n, _) => names_stay && state.turn(n).done.is_some(),
        Call::RemoveNote(stage) => {
            state.notes.iter().all(|note| note.stage != stage) && !comes_back(stage)
        }
        Call::RemoveStage(stage)
        | Call::Unstage(stage)
        | Call::Complete(stage)
        | Call::Replace(stage, _) => state.staged(stage).is_none() && !comes_back(stage),
        Call::Note(_) | Call::Stage(..) | Call::Rename(..) => stray.again,
        Call::Copy(..) => false,
        Call::StageCopy(stage) => {
            let copies = |call: Call| matches!(call, Call::Copy(name, ..) if name == stage);
            let sent = state.hosts.iter().filter_map(|host| host.call);
            let mut calls = sent.chain(state.stray.iter().map(|stray| stray.call));
            state.made.iter().all(|(name, _)| *name != stage) && !calls.any(copies)
        }
        Call::Publish(stage, number) => {
            let published = state.fences.iter().any(|fence| fence.stage == stage);
            let note = state.notes.iter().any(|note| note.stage == stage);
            let taken = usize::from(number) <= state.fences.len();
            published
                || !note && !comes_back(stage)
                || taken && model.rules.put_if_absent && model.rules.fences_consecutive
        }
        Call::Write(inode, place, record, _) => {
            let there = state.files[usize::from(inode)];
            let written_over = model
                .updates
                .iter()
                .any(|all| all.contains(&Update::InPlace));
            let same = place < there.len && there.get(place) == record;
            is_dead(state, inode) || same && !written_over
        }
        Call::Overwrite(inode, ..) => is_dead(state, inode),
        Call::RemoveTurn(n) => stray.again && !model.cleaning && state.turn(n).taken.is_none(),
        Call::RemoveDone(n) => stray.again && !model.cleaning && state.turn(n).done.is_none(),
    }
}

/// Nobody will read what is in this inode.
fn is_dead(state: &State, inode: Inode) -> bool {
    let sent = state.hosts.iter().filter(|host| host.answer.is_none());
    let sent = sent.filter_map(|host| host.call);
    let mut calls = sent.chain(state.stray.iter().map(|stray| stray.call));
    state.x != inode
        && state.staged.iter().all(|(_, staged)| *staged != inode)
        && state.made.iter().all(|(_, made)| *made != inode)
        && !calls.any(|call| matches!(call, Call::Copy(_, from, _) if from == inode))
}

/// Turns that nobody refers to are forgotten, and the others numbered from 1.
fn renumber_turns(state: &mut State) {
    let mut least = (state.turns.len() as Number).saturating_sub(1).max(1);
    let mut refer = |n: Number| {
        if n != 0 {
            least = least.min(n);
        }
    };
    each_turn(state, |n| refer(*n));
    let shift = least - 1;
    if shift == 0 {
        return;
    }
    for _ in 0..shift {
        state.turns.remove(0);
    }
    each_turn(state, |n| *n = n.saturating_sub(shift));
    for note in state.notes.iter_mut().chain(state.fences.iter_mut()) {
        note.turn = note.turn.saturating_sub(shift);
    }
    state.updated = state.updated.saturating_sub(shift);
}

/// All turns that hosts and calls refer to.
fn each_turn(state: &mut State, mut visit: impl FnMut(&mut Number)) {
    let visit_call = |call: &mut Call, visit: &mut dyn FnMut(&mut Number)| match call {
        Call::Take(n, _)
        | Call::End(n, _)
        | Call::Write(.., n)
        | Call::Overwrite(.., n)
        | Call::Replace(_, n)
        | Call::Rename(.., n)
        | Call::RemoveTurn(n)
        | Call::RemoveDone(n) => visit(n),
        Call::Note(note) => visit(&mut note.turn),
        _ => {}
    };
    for host in &mut state.hosts {
        visit(&mut host.n);
        if let Some((n, ..)) = &mut host.lost {
            visit(n);
        }
        if let Some(call) = &mut host.call {
            visit_call(call, &mut visit);
        }
    }
    for stray in state.stray.iter_mut() {
        visit_call(&mut stray.call, &mut visit);
    }
}

/// Fences that can decide nothing are forgotten, and the others numbered from 1.
fn renumber_fences(state: &mut State) {
    let mut least = Number::MAX;
    for host in &state.hosts {
        for n in [host.n, host.lost.map_or(0, |(n, ..)| n)] {
            if n != 0 {
                least = least.min(n);
            }
        }
    }
    // Who takes a turn later holds one after those there are.
    let undecided = |fence: &Fence| least != Number::MAX && fence.turn > least;
    let mut dropped = 0;
    while state.fences.len() > 1 && !undecided(&state.fences[0]) {
        state.fences.remove(0);
        dropped += 1;
    }
    for host in &mut state.hosts {
        host.fence = host.fence.saturating_sub(dropped);
        if let Some(Call::Publish(_, number)) = &mut host.call {
            *number = number.saturating_sub(dropped);
        }
    }
    for stray in state.stray.iter_mut() {
        if let Call::Publish(_, number) = &mut stray.call {
            *number = number.saturating_sub(dropped);
        }
    }
    let now = *state;
    for fence in state.fences.iter_mut() {
        if !undecided(fence) {
            fence.old = NONE;
            fence.size = 0;
        }
        let wanted = |call: Call| match call {
            Call::Copy(stage, ..)
            | Call::StageCopy(stage)
            | Call::Publish(stage, _)
            | Call::Complete(stage) => stage == fence.stage,
            _ => false,
        };
        let called = now.hosts.iter().filter_map(|host| host.call);
        let mut called = called.chain(now.stray.iter().map(|stray| stray.call));
        let noted = now.notes.iter().any(|note| note.stage == fence.stage);
        let staged = now.staged.iter().any(|(name, _)| *name == fence.stage);
        if !noted && !staged && !called.any(wanted) {
            fence.stage = NONE;
        }
    }
}

/// What was written where nobody reads, and what a host keeps in mind for no step to come.
fn forget_unseen(state: &mut State) {
    let now = *state;
    state.made.retain(|(name, _)| {
        let stages = |host: &Host| {
            let stages = matches!(host.call, Some(Call::StageCopy(stage)) if stage == *name);
            stages || host.at == At::StageCopy && host.stage == *name
        };
        let late = |stray: &Stray| matches!(stray.call, Call::StageCopy(stage) if stage == *name);
        now.hosts.iter().any(stages) || now.stray.iter().any(late)
    });
    let now = *state;
    for (inode, contents) in (0..).zip(state.files.iter_mut()) {
        if is_dead(&now, inode) {
            *contents = Contents::default();
        }
    }
    for host in &mut state.hosts {
        if !matches!(
            host.at,
            At::Sweep | At::Copy | At::StageCopy | At::Note | At::Publish
        ) {
            host.fence = 0;
        }
        if !matches!(host.at, At::StageCopy | At::Note) {
            host.copied = (NONE, 0);
        }
        if !matches!(
            host.at,
            At::StageCopy | At::Note | At::Publish | At::Complete | At::Replace
        ) {
            host.stage = NONE;
        }
    }
}

/// Hosts with the same updates are put in an order that does not depend on who they are.
fn sort_hosts(model: &Protocol, state: &mut State) {
    let contents = state.contents();
    let place = |record| (0..contents.len).find(|place| contents.get(*place) == record);
    let key = |me: usize| {
        let mut host = state.hosts[me];
        let called = host.call.map(|call| match call {
            Call::Take(n, _) => (0, n, 0),
            Call::End(n, ended) => (1, n, ended as u8),
            Call::RemoveNote(_) => (2, 0, 0),
            Call::RemoveStage(_) => (3, 0, 0),
            Call::Copy(_, _, size) => (4, size, 0),
            Call::Note(note) => (5, note.size, note.turn),
            Call::Publish(_, number) => (6, number, 0),
            Call::Complete(_) => (7, 0, 0),
            Call::Write(_, place, _, n) => (8, place, n),
            Call::Stage(..) => (9, 0, 0),
            Call::Unstage(_) => (10, 0, 0),
            Call::Replace(_, n) => (11, n, 0),
            Call::Rename(.., n) => (12, n, 0),
            Call::RemoveTurn(n) => (13, n, 0),
            Call::RemoveDone(n) => (14, n, 0),
            Call::StageCopy(_) => (15, 0, 0),
            Call::Overwrite(.., n) => (16, n, 0),
        });
        host.call = None;
        host.stage = NONE;
        host.copied.0 = NONE;
        host.listed = 0;
        host.lost = host.lost.map(|(n, _, place)| (n, 0, place));
        let mut records = [None; UPDATES];
        let mut bits = [false; 2 * UPDATES];
        for update in 0..UPDATES {
            let record = record(me, update as u8);
            records[update] = place(record);
            bits[update] = state.acknowledged & 1 << record != 0;
            bits[UPDATES + update] = state.replaced & 1 << record != 0;
        }
        (host, called, records, bits)
    };
    let mut order: [usize; HOSTS] = std::array::from_fn(|me| me);
    let keys: [_; HOSTS] = std::array::from_fn(key);
    for first in 0..HOSTS {
        for second in first + 1..HOSTS {
            let same = model.updates[order[first]] == model.updates[order[second]];
            if same && keys[order[first]] > keys[order[second]] {
                order.swap(first, second);
            }
        }
    }
    if order.is_sorted() {
        return;
    }
    let mut new = [0; HOSTS];
    for (to, from) in order.into_iter().enumerate() {
        new[from] = to;
    }
    rename_hosts(state, &new);
}

/// Host `me` becomes host `new[me]`.
fn rename_hosts(state: &mut State, new: &[usize; HOSTS]) {
    let new_record = |old: u8| match old.checked_sub(1) {
        None => 0,
        Some(old) => {
            let (host, update) = (usize::from(old) / UPDATES, old % UPDATES as u8);
            record(new[host], update)
        }
    };
    let new_bits = |old: u16| {
        let set = (0..16u8).filter(|bit| old & 1 << bit != 0);
        set.fold(0, |bits, bit| bits | 1 << new_record(bit))
    };
    let new_owner = |owner: &mut Owner| {
        if let Owner::Host(host) = owner {
            *host = new[usize::from(*host)] as u8;
        }
    };
    let new_call = |call: &mut Call| match call {
        Call::Take(_, owner) => new_owner(owner),
        Call::Write(_, _, record, _)
        | Call::Overwrite(_, record, _)
        | Call::Stage(_, record)
        | Call::Rename(_, record, _) => {
            *record = new_record(*record);
        }
        _ => {}
    };
    let old_hosts = state.hosts;
    for (host, to) in old_hosts.into_iter().zip(new) {
        state.hosts[*to] = host;
    }
    for host in &mut state.hosts {
        if let Some(call) = &mut host.call {
            new_call(call);
        }
    }
    for stray in state.stray.iter_mut() {
        new_call(&mut stray.call);
    }
    for turn in state.turns.iter_mut() {
        if let Some(owner) = &mut turn.taken {
            new_owner(owner);
        }
    }
    for contents in state.files.iter_mut() {
        *contents = contents.rename(new_record);
    }
    state.acknowledged = new_bits(state.acknowledged);
    state.replaced = new_bits(state.replaced);
}

/// Inodes are numbered in the order in which the rest of the state refers to them; the others are
/// forgotten.
fn renumber_inodes(state: &mut State) {
    let mut new = [NONE; 16];
    let mut count = 0;
    let mut number = |inode: &mut Inode| {
        if *inode != NONE {
            let slot = &mut new[usize::from(*inode)];
            if *slot == NONE {
                *slot = count;
                count += 1;
            }
            *inode = *slot;
        }
    };
    number(&mut state.x);
    for fence in state.fences.iter_mut() {
        number(&mut fence.stage);
        number(&mut fence.old);
    }
    for host in &mut state.hosts {
        number(&mut host.stage);
        number(&mut host.copied.0);
        if let Some((_, inode, _)) = &mut host.lost {
            number(inode);
        }
        if let Some(call) = &mut host.call {
            number_call(call, &mut number);
        }
    }
    for stray in state.stray.iter_mut() {
        number_call(&mut stray.call, &mut number);
    }
    for note in state.notes.iter_mut() {
        number(&mut note.stage);
        number(&mut note.old);
    }
    for (name, inode) in state.staged.iter_mut() {
        number(name);
        number(inode);
    }
    for (name, inode) in state.made.iter_mut() {
        number(name);
        number(inode);
    }
    for host in &mut state.hosts {
        let listed = host.listed;
        let named = (0..16).filter(|bit| listed & 1 << bit != 0);
        // A name that is gone already is removed in vain.
        let named = named.map(|bit| new[bit]).filter(|inode| *inode != NONE);
        host.listed = named.fold(0, |bits, inode| bits | 1 << inode);
    }
    let old = state.files;
    state.files = Default::default();
    for _ in 0..count {
        state.new_inode();
    }
    for (contents, to) in old.iter().zip(new) {
        if to != NONE {
            state.files[usize::from(to)] = *contents;
        }
    }
}

fn number_call(call: &mut Call, number: &mut impl FnMut(&mut Inode)) {
    match call {
        Call::RemoveNote(inode)
        | Call::RemoveStage(inode)
        | Call::Publish(inode, _)
        | Call::Complete(inode)
        | Call::StageCopy(inode)
        | Call::Write(inode, ..)
        | Call::Overwrite(inode, ..)
        | Call::Stage(inode, _)
        | Call::Unstage(inode)
        | Call::Replace(inode, _)
        | Call::Rename(inode, ..) => number(inode),
        Call::Copy(stage, from, _) => {
            number(stage);
            number(from);
        }
        Call::Note(note) => {
            number(&mut note.stage);
            number(&mut note.old);
        }
        Call::Take(..) | Call::End(..) | Call::RemoveTurn(_) | Call::RemoveDone(_) => {}
    }
}
