//! Hosts that measure in one directory at the same time (`--role`), and wait for each other there.
//!
//! A host says that it has come to a point by a file of the name `ROLE@POINT`, and goes on when there
//! are as many as hosts. The directory is made by whoever comes first, and removed by whoever leaves
//! last.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::stage::interrupt::{Failure, Interrupts};
use crate::cli::stage::scratch;

const NAME: &str = "dotlockfs-bench-together";
/// How long the others may take for one measure longer than we do.
const DEADLINE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(5);
/// The point at which a host has begun, and the one at which it is gone.
const HERE: &str = "here";
const LEFT: &str = "left";

/// A host's part in a directory that several share; given up when it goes out of scope.
#[derive(Debug)]
pub struct Together {
    /// The directory that all of them use.
    pub path: PathBuf,
    role: String,
    hosts: usize,
}

impl Together {
    /// Comes to the directory below `parent`, a canonical path.
    ///
    /// # Errors
    /// A sentence, where files cannot be made there or the role is taken.
    pub fn begin(parent: &Path, role: &str, hosts: usize) -> Result<Together, Failure> {
        let path = parent.join(NAME);
        make(&path)?;
        let marker = path.join(format!("{role}@{HERE}"));
        match fs::File::create_new(&marker) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let path = path.display();
                return Err(Failure::Failed(format!(
                    "the role {role} is taken in {path}; if no bench runs there, remove that"
                )));
            }
            Err(error) => return Err(Failure::on("create", &marker, error)),
        }
        let role = role.to_owned();
        Ok(Together { path, role, hosts })
    }

    /// Waits for the other hosts to begin, and gives the number of this one: its place among the
    /// roles in alphabetical order, from 0.
    ///
    /// # Errors
    /// A signal, or a sentence.
    pub fn assemble(&self, interrupts: &Interrupts) -> Result<usize, Failure> {
        let told = self.wait(HERE, None, interrupts)?;
        let number = told.iter().position(|(role, _)| *role == self.role);
        number.ok_or_else(|| Failure::on("find the own marker in", &self.path, "it is gone"))
    }

    /// Waits for all hosts to come to a point, which must be another each time. Gives what each has
    /// told there, by role.
    ///
    /// # Errors
    /// A signal, or a sentence.
    pub fn meet(
        &self,
        point: &str,
        telling: &str,
        interrupts: &Interrupts,
    ) -> Result<Vec<(String, String)>, Failure> {
        self.tell(point, telling)
            .map_err(|error| Failure::on("write to", &self.path, error))?;
        self.wait(point, Some(Instant::now() + DEADLINE), interrupts)
    }

    fn tell(&self, point: &str, telling: &str) -> io::Result<()> {
        // Nobody must see half of it.
        let new = self.path.join(format!("{}.new", self.role));
        fs::write(&new, telling)?;
        fs::rename(new, self.path.join(format!("{}@{point}", self.role)))
    }

    fn wait(
        &self,
        point: &str,
        deadline: Option<Instant>,
        interrupts: &Interrupts,
    ) -> Result<Vec<(String, String)>, Failure> {
        let unreadable = |error| Failure::on("read", &self.path, error);
        loop {
            interrupts.check()?;
            // A change of its own makes an NFS client ask for those of others.
            self.touch().map_err(unreadable)?;
            let roles = self.roles_at(point).map_err(unreadable)?;
            if roles.len() >= self.hosts {
                let tell = |role: String| {
                    let telling = fs::read_to_string(self.path.join(format!("{role}@{point}")))?;
                    Ok((role, telling))
                };
                return roles
                    .into_iter()
                    .map(tell)
                    .collect::<io::Result<_>>()
                    .map_err(unreadable);
            }
            // Read after the markers: who has come to the point may leave.
            if let Some(role) = self.roles_at(LEFT).map_err(unreadable)?.first() {
                return Err(Failure::Failed(format!(
                    "the host with the role {role} has left, so there is nothing to compete with"
                )));
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                let (seconds, path) = (DEADLINE.as_secs(), self.path.display());
                return Err(Failure::Failed(format!(
                    "gave up: other hosts did not come to {point} in {path} within {seconds} s; \
                     give all of them the same options"
                )));
            }
            thread::sleep(POLL);
        }
    }

    fn touch(&self) -> io::Result<()> {
        let look = self.path.join(format!("{}.look", self.role));
        fs::write(&look, "")?;
        fs::remove_file(look)
    }

    /// The roles of the hosts that have come to a point, in alphabetical order.
    fn roles_at(&self, point: &str) -> io::Result<Vec<String>> {
        let mut roles = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let parts = name.to_str().and_then(|name| name.split_once('@'));
            if let Some((role, at)) = parts
                && at == point
            {
                roles.push(role.to_owned());
            }
        }
        roles.sort();
        Ok(roles)
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        let _ = self.tell(LEFT, "");
        let left = self.roles_at(LEFT).map_or(0, |roles| roles.len());
        // Who finds nothing there is not the last.
        if left >= self.roles_at(HERE).map_or(usize::MAX, |roles| roles.len()) {
            scratch::remove(&self.path);
        }
    }
}

/// Makes a directory, where no other host has.
///
/// # Errors
/// A sentence that names it.
pub fn make(path: &Path) -> Result<(), Failure> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(Failure::on("create the directory", path, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_meet_tell_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let host = |role: &'static str| {
            let parent = folder.path().to_owned();
            thread::spawn(move || {
                let interrupts = Interrupts::watch().unwrap();
                let together = Together::begin(&parent, role, 2).unwrap();
                let number = together.assemble(&interrupts).unwrap();
                let told = together.meet("end", role, &interrupts).unwrap();
                (number, told)
            })
        };
        let (b, a) = (host("b"), host("a"));
        let told = vec![("a".into(), "a".into()), ("b".into(), "b".into())];
        assert_eq!(a.join().unwrap(), (0, told.clone()));
        assert_eq!(b.join().unwrap(), (1, told));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn who_waits_for_a_host_that_leaves_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let interrupts = Interrupts::watch().unwrap();
        let one = Together::begin(folder.path(), "one", 2).unwrap();
        let taken = Together::begin(folder.path(), "one", 2);
        assert!(matches!(taken, Err(Failure::Failed(why)) if why.contains("is taken")));
        drop(Together::begin(folder.path(), "two", 2).unwrap());
        let alone = one.meet("end", "", &interrupts);
        assert!(matches!(alone, Err(Failure::Failed(why)) if why.contains("two has left")));
    }
}
