//! The protocol's names in a directory, sorted by the file they belong to.
//!
//! A directory of many guarded files is listed once for all of them: what one guard has read
//! serves the others for a moment.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::time::Duration;

use super::names::{self, LockNames, Step};

/// What a listing of a directory has shown.
#[derive(Debug)]
pub struct Listing {
    seen: Duration,
    by_base: HashMap<Vec<u8>, Vec<(Step, CString)>>,
}

impl Listing {
    /// A listing that began at the time `seen`, with nothing in it yet.
    pub fn new(seen: Duration) -> Listing {
        Listing {
            seen,
            by_base: HashMap::new(),
        }
    }

    /// Adds a name, if it is one of the protocol.
    pub fn add(&mut self, name: &[u8]) {
        if let Some((base, step)) = names::parse(name)
            && let Ok(owned) = CString::new(name)
        {
            let steps = self.by_base.entry(base.to_vec()).or_default();
            steps.push((step, owned));
        }
    }

    /// When the listing began.
    pub fn seen(&self) -> Duration {
        self.seen
    }

    /// Whether a name of a file is in it.
    pub fn shows(&self, names: &LockNames, name: &CStr) -> bool {
        let steps = self.by_base.get(names.base());
        steps.is_some_and(|steps| steps.iter().any(|(_, shown)| **shown == *name))
    }

    /// The names of one file.
    pub fn steps(&self, names: &LockNames) -> Vec<(Step, CString)> {
        self.by_base.get(names.base()).cloned().unwrap_or_default()
    }
}
