//! What the server does with a call, whenever it comes to execute it.

use super::rules::Rules;
use super::state::{Answer, Call, Contents, Ended, Inode, Number, Owner, State};

/// Executes a call, which may long have been given up by the host that sent it, or, `again`, may
/// have been executed before.
pub fn execute(state: &mut State, rules: &Rules, call: Call, again: bool) -> Answer {
    match call {
        Call::Take(n, owner) => take(state, n, owner),
        Call::End(n, ended) => end(state, rules, n, ended),
        Call::RemoveNote(stage) => {
            state.notes.retain(|note| note.stage != stage);
            Answer::Done
        }
        Call::RemoveStage(stage) | Call::Unstage(stage) => {
            state.staged.retain(|(name, _)| *name != stage);
            Answer::Done
        }
        Call::Copy(stage, from, size) => copy(state, rules, stage, from, size, again),
        Call::StageCopy(stage) => {
            let Some(place) = state.made.iter().position(|(name, _)| *name == stage) else {
                return Answer::Gone;
            };
            let (_, inode) = state.made.remove(place);
            state.staged.retain(|(name, _)| *name != stage);
            state.staged.push((stage, inode));
            Answer::Done
        }
        Call::Note(note) => {
            // Once more it makes an empty file where the name has been removed, which is another
            // inode than that which is published.
            if !again {
                state.notes.push(note);
            }
            Answer::Done
        }
        Call::Publish(stage, number) => publish(state, rules, stage, number),
        Call::Complete(stage) => match state.staged(stage) {
            Some(inode) => {
                state.x = inode;
                state.staged.retain(|(name, _)| *name != stage);
                Answer::Done
            }
            None => Answer::Gone,
        },
        Call::Write(inode, place, record, n) => {
            if inode == state.view() {
                let there = state.files[usize::from(inode)];
                let other = place < there.len && there.get(place) != record;
                state.wrong.overwritten |= other && there.get(place) != 0;
                state.updated = state.updated.max(n);
            }
            state.files[usize::from(inode)].set(place, record);
            Answer::Done
        }
        Call::Overwrite(inode, record, n) => {
            let contents = &mut state.files[usize::from(inode)];
            let before = contents.get(0);
            contents.set(0, record);
            if inode == state.view() {
                if n >= state.updated && before != record {
                    state.replaced |= 1 << before;
                }
                state.updated = state.updated.max(n);
            }
            Answer::Done
        }
        Call::Stage(stage, record) => {
            // Once more it finds nothing.
            if !again {
                state.files[usize::from(stage)].set(0, record);
                state.staged.push((stage, stage));
            }
            Answer::Done
        }
        Call::Replace(stage, n) => match state.staged(stage) {
            Some(inode) => {
                state.staged.retain(|(name, _)| *name != stage);
                replace(state, inode, n);
                Answer::Done
            }
            None => Answer::Gone,
        },
        Call::Rename(inode, record, n) => {
            if !again {
                state.files[usize::from(inode)].set(0, record);
                replace(state, inode, n);
            }
            Answer::Done
        }
        Call::RemoveTurn(n) => {
            state.turn_mut(n).taken = None;
            Answer::Done
        }
        Call::RemoveDone(n) => {
            state.turn_mut(n).done = None;
            Answer::Done
        }
    }
}

fn take(state: &mut State, n: Number, owner: Owner) -> Answer {
    let turn = state.turn_mut(n);
    match turn.taken {
        None => {
            turn.taken = Some(owner);
            Answer::Done
        }
        Some(_) => Answer::Exists,
    }
}

fn end(state: &mut State, rules: &Rules, n: Number, ended: Ended) -> Answer {
    let turn = state.turn_mut(n);
    if !rules.end_makes_a_name {
        turn.taken = None;
        return Answer::Done;
    }
    match turn.done {
        None => {
            turn.done = Some(ended);
            Answer::Done
        }
        // Its own, by an earlier execution.
        Some(Ended::Clean) if ended == Ended::Clean => Answer::Done,
        Some(_) => Answer::Exists,
    }
}

/// Executed again after the name went, it makes an empty file of the same name.
fn copy(
    state: &mut State,
    rules: &Rules,
    stage: Inode,
    from: Inode,
    size: u8,
    again: bool,
) -> Answer {
    let names = match rules.copy_is_renamed {
        true => state.made,
        false => state.staged,
    };
    if names.iter().any(|(name, _)| *name == stage) {
        return Answer::Done;
    }
    let inode = if again { state.new_inode() } else { stage };
    state.files[usize::from(inode)] = match again {
        true => Contents::default(),
        false => state.files[usize::from(from)].cut(size),
    };
    match rules.copy_is_renamed {
        true => state.made.push((stage, inode)),
        false => state.staged.push((stage, inode)),
    };
    Answer::Done
}

fn publish(state: &mut State, rules: &Rules, stage: Inode, number: Number) -> Answer {
    if state.fences.iter().any(|fence| fence.stage == stage) {
        return Answer::Done;
    }
    let Some(&note) = state.notes.iter().find(|note| note.stage == stage) else {
        return Answer::Gone;
    };
    if !rules.fences_consecutive {
        state.fences.push(note);
        state.fences.sort_unstable_by_key(|fence| fence.turn);
        return Answer::Done;
    }
    let place = usize::from(number).wrapping_sub(1);
    if let Some(fence) = state.fences.get_mut(place) {
        if rules.put_if_absent {
            return Answer::Exists;
        }
        *fence = note;
        return Answer::Done;
    }
    if number == 0 {
        return Answer::Exists;
    }
    assert_eq!(place, state.fences.len(), "fences are numbered one by one");
    state.fences.push(note);
    Answer::Done
}

/// Another inode takes the file's place. What the file held is over, unless a later turn has
/// updated it already: then this must not have happened, and what is missing is missed.
fn replace(state: &mut State, inode: Inode, n: Number) {
    if n >= state.updated {
        for record in state.contents().iter() {
            state.replaced |= 1 << record;
        }
    }
    state.updated = state.updated.max(n);
    state.x = inode;
}
