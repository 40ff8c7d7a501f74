//! The owner record: what a claim says of its daemon.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use rand::RngExt;

use super::names::TOKEN_LEN;

/// How much room a record leaves for the note behind it: four numbers and a word.
const NOTE_LEN: usize = 96;

/// No record is longer; what is longer was written by somebody else.
pub const RECORD_MAX: usize = 4096;

/// Whether the process behind a record still lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It lives on this host.
    Alive,
    /// It was one of this host, since its last start and in this container, and has ended.
    Dead,
    /// It is of another host, boot or pid namespace: nothing can be said from here.
    Unknown,
}

/// How many lines a record has.
const RECORD_LINES: usize = 8;

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
        let start = start_time(&stat)
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

    /// Whether it still lives, as far as a process with the record `here` can tell.
    pub fn life(&self, here: &Owner) -> Life {
        if (&self.boot, self.pid_namespace) != (&here.boot, here.pid_namespace) {
            return Life::Unknown;
        }
        let stat = match fs::read(format!("/proc/{}/stat", self.pid)) {
            Ok(stat) => stat,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Life::Dead,
            Err(_) => return Life::Unknown,
        };
        // The name of the command may hold anything.
        let stat = String::from_utf8_lossy(&stat);
        match (field(&stat, 3), start_time(&stat)) {
            (Some("Z" | "X"), _) => Life::Dead,
            (_, Some(start)) if start == self.start => Life::Alive,
            (_, Some(_)) => Life::Dead,
            (_, None) => Life::Unknown,
        }
    }

    /// Whether it is known to have ended; see [`life`](Self::life).
    pub fn has_ended(&self, here: &Owner) -> bool {
        self.life(here) == Life::Dead
    }

    /// Reads a record back; `None` for anything that is not one.
    pub fn parse(contents: &[u8]) -> Option<Owner> {
        let text = std::str::from_utf8(contents).ok()?;
        // Not `lines`, which would take a carriage return at the end of a line away.
        let mut lines = text.split('\n');
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

/// A write that has begun, and of which a part may be done when its holder dies. It is noted behind
/// the record in the holder's claim before it begins: whoever has to clean up after the holder finds
/// there where the file was whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfinished {
    /// The turn under which it is written.
    pub turn: u64,
    /// Inode number of the file.
    pub ino: u64,
    /// Where the write begins.
    pub start: u64,
    /// Where it ends, if it is done from the start on, in one call: a file that reaches so far has
    /// all of it, and the note may stay. Without it the write is under way for as long as the note
    /// is there.
    pub end: Option<u64>,
}

impl Unfinished {
    /// The text behind the record that says so, or, for `None`, that there is no such write. It
    /// has one length, so that each replaces the one before.
    pub fn to_text(this: Option<Unfinished>) -> String {
        let text = match this {
            Some(Unfinished {
                turn,
                ino,
                start,
                end,
            }) => {
                let end = end.map_or(String::new(), |end| format!(" {end}"));
                format!("writes {turn} {ino} {start}{end}")
            }
            None => String::new(),
        };
        format!("{text:width$}\n", width = NOTE_LEN - 1)
    }

    /// Finds it in the contents of a claim.
    pub fn parse(contents: &[u8]) -> Option<Unfinished> {
        let text = std::str::from_utf8(contents).ok()?;
        let line = text.split('\n').nth(RECORD_LINES)?;
        let mut numbers = line.strip_prefix("writes ")?.split_ascii_whitespace();
        let mut number = || numbers.next()?.parse().ok();
        Some(Unfinished {
            turn: number()?,
            ino: number()?,
            start: number()?,
            end: number(),
        })
    }

    /// Where the file is whole, if it is `size` bytes long, a part of them by this write.
    pub fn whole(self, size: u64) -> u64 {
        match self.end {
            Some(end) if end <= size => size,
            _ => size.min(self.start),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dotlockfs on host {}, pid {}", self.host, self.pid)
    }
}

/// A field of `/proc/PID/stat` behind the second, which is the command in parentheses and may hold
/// spaces and parentheses itself.
fn field(stat: &str, number: usize) -> Option<&str> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number - 3)
}

fn start_time(stat: &str) -> Option<u64> {
    field(stat, 22)?.parse().ok()
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
        assert_eq!(Owner::parse(text.as_bytes()), Some(owner.clone()));
        let odd = Owner {
            boot: "0\r\r".to_owned(),
            ..owner
        };
        let text = odd.to_text(&new_token());
        assert_eq!(Owner::parse(text.as_bytes()), Some(odd));
    }

    #[test]
    fn a_write_that_is_under_way_is_noted_behind_the_record() {
        let owner = Owner::this_process().unwrap();
        let mut claim = owner.to_text(&new_token());
        assert_eq!(Unfinished::parse(claim.as_bytes()), None);
        let write = Unfinished {
            turn: u64::MAX,
            ino: u64::MAX,
            start: u64::MAX,
            end: Some(u64::MAX),
        };
        let (note, none) = (Unfinished::to_text(Some(write)), Unfinished::to_text(None));
        assert_eq!((note.len(), none.len()), (NOTE_LEN, NOTE_LEN));
        let whole = format!("{claim}{note}");
        assert_eq!(Unfinished::parse(whole.as_bytes()), Some(write));
        assert_eq!(Owner::parse(whole.as_bytes()), Some(owner));
        let open = Unfinished { end: None, ..write };
        let whole = format!("{claim}{}", Unfinished::to_text(Some(open)));
        assert_eq!(Unfinished::parse(whole.as_bytes()), Some(open));
        claim.push_str(&none);
        assert_eq!(Unfinished::parse(claim.as_bytes()), None);
    }

    #[test]
    fn a_file_is_whole_up_to_where_a_write_began_or_that_has_all_of_it() {
        let mut write = Unfinished {
            turn: 1,
            ino: 1,
            start: 10,
            end: Some(20),
        };
        let whole = |write: Unfinished| [5, 10, 15, 20, 25].map(|size| write.whole(size));
        assert_eq!(whole(write), [5, 10, 10, 20, 25]);
        write.end = None;
        assert_eq!(whole(write), [5, 10, 10, 10, 10]);
    }

    #[test]
    fn a_process_that_has_ended_is_known_by_its_start_time_too() {
        let own = Owner::this_process().unwrap();
        assert!(!own.has_ended(&own));
        let before = Owner {
            start: own.start - 1,
            ..own.clone()
        };
        assert!(before.has_ended(&own));
        let elsewhere = Owner {
            boot: "another".to_owned(),
            ..before
        };
        assert!(!elsewhere.has_ended(&own));
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
