//! The file system of the directory, and how it is mounted.

use std::os::fd::OwnedFd;
use std::path::Path;

use super::Finding;
use crate::backing::{Kind, Kinds};
use crate::config::error::shown;
use crate::sys;
use crate::sys::mount_table::{self, Entry};

/// The file system that a directory is on.
#[derive(Debug)]
pub(super) struct FileSystem {
    pub kind: Kind,
    /// Its line in the table of mounts, if it is found there.
    entry: Option<Entry>,
}

impl FileSystem {
    pub(super) fn of(dir: &OwnedFd) -> std::io::Result<FileSystem> {
        let dev = sys::fs::statx(dir, c"", 0)?.dev;
        let table = mount_table::read()?;
        let id = mount_table::id_of(dir).ok();
        let exact = table.iter().find(|entry| Some(entry.id) == id);
        // A daemon that was started again has a copy of the mount, which is in no table.
        let entry = exact.or_else(|| table.iter().find(|entry| entry.dev == dev));
        Ok(FileSystem {
            kind: Kinds::default().of(dev, dir)?,
            entry: entry.cloned(),
        })
    }

    /// All options of the mount and of the file system.
    fn options(&self) -> impl Iterator<Item = (&str, &str)> {
        let entry = self.entry.iter();
        let all = entry.flat_map(|entry| [&entry.options, &entry.super_options]);
        all.flat_map(|list| list.split(','))
            .map(|option| option.split_once('=').unwrap_or((option, "")))
    }

    fn option(&self, name: &str) -> Option<&str> {
        let mut options = self.options();
        options
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    /// The version of NFS, as "4.2".
    pub(super) fn version(&self) -> &str {
        self.option("vers").unwrap_or("of an unknown version")
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut findings = vec![self.name()];
        if self.kind == Kind::Nfs {
            findings.extend(self.how_it_is_mounted());
        }
        if self.option("ro").is_some() {
            findings.push(Finding::warning(
                "mount options",
                "it is mounted read-only",
                "programs can only read; to write, mount it with rw",
            ));
        }
        findings
    }

    fn name(&self) -> Finding {
        let subject = "file system";
        let Some(entry) = &self.entry else {
            return match self.kind {
                Kind::Nfs => Finding::ok(subject, "NFS (its mount is not in sight from here)"),
                Kind::Other => {
                    Finding::note(subject, "no NFS (its mount is not in sight from here)")
                }
            };
        };
        let source = shown(Path::new(&entry.source));
        let point = shown(&entry.point);
        match (self.kind, entry.kind.as_str()) {
            (Kind::Nfs, _) => Finding::ok(
                subject,
                format!("NFS {} from {source}, mounted at {point}", self.version()),
            ),
            (Kind::Other, kind) => Finding::note(
                subject,
                format!(
                    "{kind}, mounted at {point}, and no NFS: fine for programs of this host; \
                     other hosts must see the same files, by a file system on which link(2) is \
                     atomic among them"
                ),
            ),
        }
    }

    fn how_it_is_mounted(&self) -> Vec<Finding> {
        let subject = "mount options";
        let mut found = Vec::new();
        for (key, value) in self.options() {
            let option = match value {
                "" => key.to_owned(),
                value => format!("{key}={value}"),
            };
            found.extend(judged(key, value).map(|(words, advice)| {
                let what = format!("{option}: {words}");
                match advice {
                    Some(advice) => Finding::warning(subject, what, advice),
                    None => Finding::note(subject, what),
                }
            }));
        }
        if found.is_empty() {
            found.push(Finding::ok(subject, "none that would harm or slow down"));
        }
        found
    }
}

/// What there is to say of a mount option, if anything; and what to do, if it harms.
fn judged(key: &str, value: &str) -> Option<(&'static str, Option<&'static str>)> {
    let (words, advice) = match key {
        "soft" | "softerr" => (
            "when the server is slow or away calls fail after a while, though it may still carry \
             them out; programs get EIO then, and cannot know whether a record is in the file",
            Some("mount it with the option hard"),
        ),
        "proto" if value.starts_with("udp") => (
            "UDP can tear large writes unnoticed",
            Some("mount it with proto=tcp"),
        ),
        "nolock" | "local_lock" if value != "none" => (
            "flock and fcntl locks on files that are not guarded hold on this host only (on \
             guarded ones they hold across hosts)",
            None,
        ),
        "noac" => (
            "not needed, and slow: guarded files are always asked for afresh",
            None,
        ),
        "actimeo" | "acregmin" | "acregmax" | "acdirmin" | "acdirmax" => (
            "counts for files that are not guarded; guarded ones are always asked for afresh",
            None,
        ),
        "nocto" => (
            "files that are not guarded may be read stale; guarded ones are always asked for \
             afresh",
            None,
        ),
        "lookupcache" if value != "all" => (
            "not needed, and slow: guarded names are always looked up afresh",
            None,
        ),
        "nconnect" => (
            "calls may overtake each other, which the lock allows for",
            None,
        ),
        "nordirplus" => ("fine; listing attributes of many files is slower", None),
        "fsc" => ("guarded files are read past that cache", None),
        "sync" => (
            "not needed: guarded writes are on the server before they return",
            None,
        ),
        _ => return None,
    };
    Some((words, advice))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn mounted_with(super_options: &str) -> Vec<(Level, String)> {
        let system = FileSystem {
            kind: Kind::Nfs,
            entry: Some(Entry {
                id: 1,
                parent: 0,
                dev: 7,
                root: "/".into(),
                point: "/net".into(),
                options: "rw,relatime".to_owned(),
                kind: "nfs4".to_owned(),
                source: "server:/data".into(),
                super_options: super_options.to_owned(),
            }),
        };
        let findings = system.findings().into_iter();
        findings.map(|found| (found.level, found.what)).collect()
    }

    #[test]
    fn a_common_mount_is_fine() {
        let found = mounted_with(
            "rw,vers=4.2,rsize=1048576,wsize=1048576,namlen=255,hard,proto=tcp,timeo=600,\
             retrans=2,sec=sys,clientaddr=10.0.0.2,local_lock=none,addr=10.0.0.1",
        );
        let name = "NFS 4.2 from server:/data, mounted at /net";
        assert_eq!(found[0], (Level::Ok, name.to_owned()));
        assert_eq!((found.len(), found[1].0), (2, Level::Ok), "{found:?}");
    }

    #[test]
    fn options_that_matter_are_named() {
        let found = mounted_with("rw,vers=3,soft,nolock,local_lock=all,noac,nconnect=4,proto=udp");
        let levels: Vec<_> = found
            .iter()
            .skip(1)
            .map(|(level, what)| (*level, what.split(':').next().unwrap()))
            .collect();
        assert_eq!(
            levels,
            [
                (Level::Warning, "soft"),
                (Level::Note, "nolock"),
                (Level::Note, "local_lock=all"),
                (Level::Note, "noac"),
                (Level::Note, "nconnect=4"),
                (Level::Warning, "proto=udp"),
            ]
        );
    }
}
