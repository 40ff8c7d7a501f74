//! Taking the credentials of the program that asks, so that the file system below judges it and
//! not us, and so that files belong to who made them. Exports squash root, so a server that did
//! everything as root would be refused, or own everything as nobody.

use std::cell::RefCell;
use std::fs;
use std::io::{self, Read};
use std::sync::Arc;

use crate::sys::creds;

/// The program that a call is made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// File system user id.
    pub uid: u32,
    /// File system group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Arc<[u32]>,
}

/// The credentials of this daemon, and whether it may take others.
#[derive(Debug)]
pub struct Credentials {
    own: Caller,
    may_switch: bool,
}

impl Credentials {
    /// The credentials that this process has now.
    ///
    /// # Errors
    /// Those of `getgroups(2)`.
    pub fn of_this_process() -> io::Result<Credentials> {
        let own = Caller {
            uid: creds::euid(),
            gid: creds::egid(),
            groups: creds::groups()?.into(),
        };
        Ok(Credentials {
            may_switch: own.uid == 0,
            own,
        })
    }

    /// The daemon itself as a caller.
    pub fn own(&self) -> &Caller {
        &self.own
    }

    /// The program with these ids whose thread `tid` made a request. FUSE does not hand over the
    /// supplementary groups, so they are read from the thread's status, while it waits for us.
    pub fn caller(&self, uid: u32, gid: u32, tid: u32) -> Caller {
        if !self.may_switch || uid == self.own.uid {
            // Root has no need of groups, and a daemon of an ordinary user serves that user only.
            return Caller {
                uid,
                gid,
                groups: self.own.groups.clone(),
            };
        }
        // Where they cannot be read (the program lives in another pid namespace, or is gone) it
        // gets none: fewer rights than it may have, never more.
        let groups = supplementary_groups(tid).unwrap_or_default();
        Caller {
            uid,
            gid,
            groups: groups.into(),
        }
    }

    /// Makes this thread act as `caller` until the result is dropped; then it acts again as whom
    /// it acted before.
    ///
    /// # Errors
    /// Those of `setgroups(2)`; `EPERM` where the ids cannot be taken.
    pub fn assume(&self, caller: &Caller) -> io::Result<Assumed> {
        let before = PRESENT.with_borrow(|present| present.clone().unwrap_or(self.own.clone()));
        if !self.may_switch || *caller == before {
            return Ok(Assumed { restore: None });
        }
        // Only as ourselves may we become somebody else.
        if before != self.own {
            take(&self.own)?;
        }
        // Whatever fails from here on is undone.
        let assumed = Assumed {
            restore: Some(Restore {
                own: self.own.clone(),
                before,
            }),
        };
        if *caller != self.own {
            if caller.groups != self.own.groups {
                creds::set_groups(&caller.groups)?;
            }
            creds::set_fsgid(caller.gid)?;
            // Last, since the capabilities that go with file system access go with the user id.
            creds::set_fsuid(caller.uid)?;
        }
        PRESENT.set(Some(caller.clone()));
        Ok(assumed)
    }
}

thread_local! {
    /// As whom this thread acts; `None` for itself.
    static PRESENT: RefCell<Option<Caller>> = const { RefCell::new(None) };
}

/// This thread acts as somebody else until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Assumed {
    restore: Option<Restore>,
}

#[derive(Debug)]
struct Restore {
    own: Caller,
    before: Caller,
}

impl Drop for Assumed {
    fn drop(&mut self) {
        let Some(Restore { own, before }) = self.restore.take() else {
            return;
        };
        let mut restored = take(&own);
        if before != own {
            restored = restored
                .and_then(|()| creds::set_groups(&before.groups))
                .and_then(|()| creds::set_fsgid(before.gid))
                .and_then(|()| creds::set_fsuid(before.uid));
        }
        if let Err(error) = restored {
            // Going on would serve one user with the rights of another.
            log::error!("could not take back our own credentials, ending: {error}");
            std::process::abort();
        }
        PRESENT.set(Some(before));
    }
}

/// Takes our own credentials, whoever we are. The user id comes first: the right to set the others
/// goes with it.
fn take(own: &Caller) -> io::Result<()> {
    creds::set_fsuid(own.uid)
        .and_then(|()| creds::set_fsgid(own.gid))
        .and_then(|()| creds::set_groups(&own.groups))
}

/// The groups of a thread, from its status (proc_pid_status(5)).
fn supplementary_groups(tid: u32) -> Option<Vec<u32>> {
    // Asked for each request of a user, so in one piece: a file of /proc tells no length by which
    // the standard library could read it so. The line comes early, and is cut only where there are
    // hundreds of groups.
    let mut start = [0; 4096];
    let mut status = fs::File::open(format!("/proc/{tid}/status")).ok()?;
    let len = status.read(&mut start).ok()?;
    match groups_of(&start[..len]) {
        Some(groups) => Some(groups),
        None => {
            let mut whole = start[..len].to_vec();
            status.read_to_end(&mut whole).ok()?;
            groups_of(&whole)
        }
    }
}

/// The groups in the text of a status, if it holds the whole line.
fn groups_of(status: &[u8]) -> Option<Vec<u32>> {
    let end = status.iter().rposition(|byte| *byte == b'\n')?;
    let line = status[..end]
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"Groups:"))?;
    std::str::from_utf8(line)
        .ok()?
        .split_ascii_whitespace()
        .map(|group| group.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_acts_within_another_comes_back_to_that() {
        let credentials = Credentials::of_this_process().unwrap();
        if !credentials.may_switch {
            return;
        }
        let caller = |uid, groups: &[u32]| Caller {
            uid,
            gid: uid,
            groups: groups.into(),
        };
        let now = || (creds::fsuid(), creds::groups().unwrap());
        let before = now();
        let outer = credentials.assume(&caller(1000, &[2000])).unwrap();
        assert_eq!(now(), (1000, vec![2000]));
        for (inner, uid, groups) in [
            (caller(1001, &[2001]), 1001, vec![2001]),
            (caller(1000, &[2000]), 1000, vec![2000]),
            (credentials.own().clone(), before.0, before.1.clone()),
        ] {
            let inner = credentials.assume(&inner).unwrap();
            assert_eq!(now(), (uid, groups));
            drop(inner);
            assert_eq!(now(), (1000, vec![2000]));
        }
        drop(outer);
        assert_eq!(now(), before);
    }

    #[test]
    fn a_line_that_is_cut_off_is_no_answer() {
        let status = b"Name:\tx\nGroups:\t1 22 333 \nNStgid:\t5\n";
        assert_eq!(groups_of(status), Some(vec![1, 22, 333]));
        for len in 0..status.len() - 10 {
            assert!(groups_of(&status[..len]).is_none_or(|groups| groups.len() == 3));
        }
        assert_eq!(groups_of(b"Groups:\t\n"), Some(Vec::new()));
        assert_eq!(groups_of(b"nonsense\n"), None);
    }

    #[test]
    fn own_groups_are_read_from_proc() {
        let mut from_proc = supplementary_groups(std::process::id()).unwrap();
        let mut from_kernel = creds::groups().unwrap();
        from_proc.sort_unstable();
        from_kernel.sort_unstable();
        assert_eq!(from_proc, from_kernel);
    }
}
