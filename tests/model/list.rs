//! A short list that is copied with the state that holds it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};

/// At most `N` values.
#[derive(Clone, Copy)]
pub struct List<T, const N: usize> {
    len: u8,
    items: [T; N],
}

impl<T: Copy + Default, const N: usize> List<T, N> {
    /// Adds a value at the end, and gives its place.
    pub fn push(&mut self, item: T) -> usize {
        let place = usize::from(self.len);
        assert!(place < N, "a list of the model is too short: {N}");
        self.items[place] = item;
        self.len += 1;
        place
    }

    /// Keeps what is wanted, in order.
    pub fn retain(&mut self, mut wanted: impl FnMut(&T) -> bool) {
        let old = *self;
        *self = List::default();
        for item in old.iter().filter(|item| wanted(item)) {
            self.push(*item);
        }
    }

    /// Takes out the value at `place`.
    pub fn remove(&mut self, place: usize) -> T {
        let removed = self[place];
        self.items.copy_within(place + 1.., place);
        self.len -= 1;
        removed
    }
}

impl<T: Copy + Default, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        List {
            len: 0,
            items: [T::default(); N],
        }
    }
}

impl<T, const N: usize> Deref for List<T, N> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.items[..usize::from(self.len)]
    }
}

impl<T, const N: usize> DerefMut for List<T, N> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.items[..usize::from(self.len)]
    }
}

impl<T: PartialEq, const N: usize> PartialEq for List<T, N> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq, const N: usize> Eq for List<T, N> {}

impl<T: Hash, const N: usize> Hash for List<T, N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for List<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
