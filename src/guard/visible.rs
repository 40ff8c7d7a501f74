//! How much of a file its readers may see while a batch is being written to it.
//!
//! Readers on this mount never see half a batch: while one is under way, the file ends for them
//! where it ended before. A counter tells a reader that the batch began or ended while it looked.

use std::io;

use parking_lot::Mutex;

use crate::lock::Identity;

/// The visible end of a guarded file.
#[derive(Debug, Default)]
pub struct Visible {
    state: Mutex<State>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct State {
    changes: u64,
    /// The file that is being written to, and its size before that.
    under_way: Option<(Identity, u64)>,
}

impl Visible {
    /// A write to `file` begins, whose size is `size`; until [`end`](Self::end) nothing beyond is
    /// shown. Where one is under way already, its beginning stays.
    pub fn begin(&self, file: Identity, size: u64) {
        let mut state = self.state.lock();
        state.changes += 1;
        if state.under_way.is_none_or(|(id, _)| id != file) {
            state.under_way = Some((file, size));
        }
    }

    /// What was begun is whole.
    pub fn end(&self) {
        let mut state = self.state.lock();
        state.changes += 1;
        state.under_way = None;
    }

    /// How many bytes of `file` may be shown, where that is less than there are.
    pub fn limit(&self, file: Identity) -> Option<u64> {
        limit_in(&self.state.lock(), file)
    }

    /// What `look` finds in `file`, and how many bytes of the file may be shown of it.
    ///
    /// # Errors
    /// Those of `look`.
    pub fn watch<T>(
        &self,
        file: Identity,
        mut look: impl FnMut() -> io::Result<T>,
    ) -> io::Result<(T, Option<u64>)> {
        loop {
            let before = *self.state.lock();
            let seen = look()?;
            let limit = limit_in(&before, file);
            // With a batch under way from the start, what lies before it is whole, whatever has
            // happened since. Without, what was seen may be half of one that has begun.
            if limit.is_some() || *self.state.lock() == before {
                return Ok((seen, limit));
            }
        }
    }
}

fn limit_in(state: &State, file: Identity) -> Option<u64> {
    state
        .under_way
        .and_then(|(id, size)| (id == file).then_some(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Identity = Identity { dev: 1, ino: 2 };

    #[test]
    fn half_a_batch_is_not_shown() {
        let visible = Visible::default();
        assert_eq!(visible.watch(FILE, || Ok(())).unwrap().1, None);
        visible.begin(FILE, 60);
        visible.begin(FILE, 80);
        assert_eq!(visible.watch(FILE, || Ok(())).unwrap().1, Some(60));
        assert_eq!(visible.limit(Identity { dev: 1, ino: 3 }), None);
        visible.end();
        assert_eq!(visible.watch(FILE, || Ok(())).unwrap().1, None);
    }

    #[test]
    fn a_reader_looks_again_when_a_batch_began_meanwhile() {
        let visible = Visible::default();
        let mut looks = 0;
        let (_, limit) = visible
            .watch(FILE, || {
                looks += 1;
                if looks == 1 {
                    visible.begin(FILE, 60);
                }
                Ok(())
            })
            .unwrap();
        assert_eq!((looks, limit), (2, Some(60)));
    }
}
