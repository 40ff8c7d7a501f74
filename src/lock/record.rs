//! The owner record: what a claim says of its daemon.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use rand::RngExt;

use super::names::TOKEN_LEN;

/// No record is longer; what is longer was written by somebody else.
pub const RECORD_MAX: usize = 4096;

/// Who made a claim. The fields after `host` let a daemon of the same host judge whether the
/// owner still lives; across hosts a process id says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Host name.
    pub host: String,
    /// `/proc/sys/kernel/random/boot_id` of the kernel that ran it.
    pub boot: String,
    /// Inode number of its pid namespace.
    pub pid_namespace: u64,
    /// Process id within that namespace.
    pub pid: u32,
    /// Start time of the process, in clock ticks since boot (field 22 of proc_pid_stat(5)).
    pub start: u64,
}

impl Owner {
    /// The record of this process.
    ///
    /// # Errors
    /// Where `/proc` is not there or not what proc(5) describes.
    pub fn this_process() -> io::Result<Owner> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        // The second field, the command in parentheses, may hold spaces and parentheses.
        let start = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19)?.parse().ok())
            .ok_or_else(|| io::Error::other("/proc/self/stat has no start time"))?;
        Ok(Owner {
            host: fs::read_to_string("/proc/sys/kernel/hostname")?
                .trim()
                .to_owned(),
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id")?
                .trim()
                .to_owned(),
            pid_namespace: fs::metadata("/proc/self/ns/pid")?.ino(),
            pid: std::process::id(),
            start,
        })
    }

    /// The contents of a claim with this token.
    ///
    /// The first line is `0` for the sake of other programs that find the claim as `X.lock`:
    /// liblockfile reads the first line with `atoi` and asks its own host whether that process
    /// lives, dovecot does so for `pid:host`; for `0` both go by the age of the file.
    pub fn to_text(&self, token: &str) -> String {
        format!(
            "0\ndotlockfs 1\nhost {}\nboot {}\npidns {}\npid {}\nstart {}\ntoken {token}\n",
            self.host, self.boot, self.pid_namespace, self.pid, self.start
        )
    }

    /// Reads a record back; `None` for anything that is not one.
    pub fn parse(contents: &[u8]) -> Option<Owner> {
        let text = std::str::from_utf8(contents).ok()?;
        let mut lines = text.lines();
        if lines.next()? != "0" || lines.next()? != "dotlockfs 1" {
            return None;
        }
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        Some(Owner {
            host: field("host")?.to_owned(),
            boot: field("boot")?.to_owned(),
            pid_namespace: field("pidns")?.parse().ok()?,
            pid: field("pid")?.parse().ok()?,
            start: field("start")?.parse().ok()?,
        })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dotlockfs on host {}, pid {}", self.host, self.pid)
    }
}

/// A token that no other claim has.
pub fn new_token() -> String {
    let token: u64 = rand::rng().random();
    format!("{token:0width$x}", width = TOKEN_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back() {
        let owner = Owner::this_process().unwrap();
        let text = owner.to_text(&new_token());
        assert!(text.starts_with("0\n"));
        assert_eq!(Owner::parse(text.as_bytes()), Some(owner));
    }

    #[test]
    fn what_others_write_is_no_record() {
        for text in [
            "",
            "0",
            "4711\n",
            "0\n",
            "0\ndotlockfs 2\n",
            "0\ndotlockfs 1\nhost a\n",
            "\u{0}\n",
        ] {
            assert_eq!(Owner::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Owner::parse(&[0xff, 0xfe]), None);
    }
}
