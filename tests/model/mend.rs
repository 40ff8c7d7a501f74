//! Mending: how the duty to fence is fulfilled, and what a lost record's fate is read from.

use super::host::Move;
use super::protocol::Protocol;
use super::rules::Fate;
use super::state::{At, Call, Fence, Host, NONE, Number, State};

impl Protocol {
    /// The steps by which the duty to fence is fulfilled.
    pub fn mend(&self, state: &mut State, host: &mut Host, step: Move) {
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

    pub fn fate(&self, state: &mut State, host: &mut Host) {
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
