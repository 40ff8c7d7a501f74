//! The names that the lock protocol uses beside a guarded file.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use sha2::{Digest, Sha256};

/// The longest file name that Linux file systems hold, in bytes (`NAME_MAX`).
const NAME_MAX: usize = 255;
/// Room that is kept for what follows the base: `.claim.` + host + `.` + pid + `.` + token.
const SUFFIX_MAX: usize = 7 + HOST_MAX + 1 + 10 + 1 + TOKEN_LEN;
/// How much of the host name goes into the name of a claim. It is for people: two hosts with the
/// same beginning differ by their tokens.
const HOST_MAX: usize = 24;
/// The largest number of a turn or a fence. Nobody counts so far: whoever finds it, or a name with
/// a larger one, has found a name that was made to harm.
pub const LAST: u64 = (1 << 62) - 1;
/// The bits of a random number that go into a name.
const RANDOM: u64 = (1 << 61) - 1;
/// Hexadecimal digits of a claim's token.
pub const TOKEN_LEN: usize = 16;

/// The lock names of one guarded file.
#[derive(Debug, Clone)]
pub struct LockNames {
    base: Vec<u8>,
    dotlock: Option<CString>,
}

/// What a name of the protocol stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `.X.turn.N`
    Turn(u64),
    /// `.X.done.N`
    Done(u64),
    /// `.X.claim.HOST.PID.TOKEN`
    Claim,
    /// `.X.part.0`
    Part,
    /// `.X.tail.0`
    Tail,
    /// `.X.copy.K`
    Copy,
    /// `.X.stage.K`
    Stage,
    /// `.X.see.K`
    Witness,
    /// `.X.note.K`
    Note,
    /// `.X.fence.K`
    Fence(u64),
    /// `.X.kept.K`
    Kept(u64),
}

impl LockNames {
    /// The names that go with the file `name`.
    ///
    /// A name that is too long to get a suffix is cut, and a digest of the whole makes it unique.
    pub fn new(name: &OsStr) -> LockNames {
        let name = name.as_bytes();
        let mut base = vec![b'.'];
        if 1 + name.len() + SUFFIX_MAX <= NAME_MAX {
            base.extend_from_slice(name);
        } else {
            base.extend_from_slice(&name[..100]);
            base.push(b'~');
            for byte in &Sha256::digest(name)[..16] {
                base.extend_from_slice(format!("{byte:02x}").as_bytes());
            }
        }
        let dotlock = [name, b".lock"].concat();
        LockNames {
            base,
            dotlock: (dotlock.len() <= NAME_MAX)
                .then(|| CString::new(dotlock).ok())
                .flatten(),
        }
    }

    fn with(&self, suffix: &str) -> CString {
        let bytes = [&self.base, suffix.as_bytes()].concat();
        CString::new(bytes).expect("a file name holds no NUL byte")
    }

    /// What all the names begin with.
    pub fn base(&self) -> &[u8] {
        &self.base
    }

    /// `.X.turn.N`
    pub fn turn(&self, n: u64) -> CString {
        self.with(&format!(".turn.{n}"))
    }

    /// `.X.done.N`
    pub fn done(&self, n: u64) -> CString {
        self.with(&format!(".done.{n}"))
    }

    /// `.X.part.0`: under turn N, which stands in it, the file is being written beyond the offset
    /// that stands there too. There is one name for all turns, so that a reader need not search.
    pub fn part(&self) -> CString {
        self.with(".part.0")
    }

    /// `.X.tail.0`: the file's last record was left unfinished on purpose; where it ends stands in
    /// it.
    pub fn tail(&self) -> CString {
        self.with(".tail.0")
    }

    /// `.X.stage.K`: a file that is made to take the place of X. `number` is a random one.
    pub fn stage(&self, number: u64) -> CString {
        self.with(&format!(".stage.{}", number & RANDOM))
    }

    /// `.X.copy.K`: a copy of X that is being made. `number` is a random one.
    pub fn copy(&self, number: u64) -> CString {
        self.with(&format!(".copy.{}", number & RANDOM))
    }

    /// `.X.see.K`: a name that a listing must show to be believed. `number` is a random one.
    pub fn witness(&self, number: u64) -> CString {
        self.with(&format!(".see.{}", number & RANDOM))
    }

    /// `.X.note.K`: the text of a fence that is about to be published. `number` is a random one.
    pub fn note(&self, number: u64) -> CString {
        self.with(&format!(".note.{}", number & RANDOM))
    }

    /// `.X.fence.K`: the K-th fence of X.
    pub fn fence(&self, k: u64) -> CString {
        self.with(&format!(".fence.{k}"))
    }

    /// `.X.kept.K`: the file with inode number K, whose place another has taken, for those who
    /// have it open.
    pub fn kept(&self, ino: u64) -> CString {
        self.with(&format!(".kept.{ino}"))
    }

    /// `.X.claim.HOST.PID.TOKEN`; whatever might be misread in the host's name is replaced.
    pub fn claim(&self, host: &str, pid: u32, token: &str) -> CString {
        let host: String = host
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '-' {
                    c
                } else {
                    '_'
                }
            })
            .take(HOST_MAX)
            .collect();
        let host = if host.is_empty() { "_" } else { &host };
        self.with(&format!(".claim.{host}.{pid}.{token}"))
    }

    /// `X.lock`, unless that would be too long for a file name (then no program can make it
    /// either).
    pub fn dotlock(&self) -> Option<&CString> {
        self.dotlock.as_ref()
    }

    /// Whether a name is that of a claim.
    pub fn is_claim(&self, name: &CStr) -> bool {
        self.step(name.to_bytes()) == Some(Step::Claim)
    }

    /// Which step of *this* file's protocol a name of the directory is, if any.
    pub fn step(&self, name: &[u8]) -> Option<Step> {
        let (base, step) = parse(name)?;
        (base == self.base).then_some(step)
    }
}

/// Whether a name belongs to the lock protocol, of whatever file; listings leave it out.
pub fn is_hidden(name: &[u8]) -> bool {
    parse(name).is_some()
}

/// Whether a name is that of the end of a turn, of whatever file.
pub fn is_end(name: &[u8]) -> bool {
    matches!(parse(name), Some((_, Step::Done(_))))
}

/// Takes a name apart: the base (a dot and the file's name), and the step.
pub(super) fn parse(name: &[u8]) -> Option<(&[u8], Step)> {
    if name.first() != Some(&b'.') {
        return None;
    }
    let (head, last) = split_last(name)?;
    if last.len() == TOKEN_LEN && last.iter().all(u8::is_ascii_hexdigit) {
        let (rest, pid) = split_last(head)?;
        // A number can look like a token.
        if let Some((rest, host)) = split_last(rest)
            && let Some((base, b"claim")) = split_last(rest)
        {
            let fits = !host.is_empty() && decimal(pid).is_some();
            return (fits && base.len() > 1).then_some((base, Step::Claim));
        }
    }
    let n = decimal(last)?;
    let (base, word) = split_last(head)?;
    let step = match word {
        b"turn" => Step::Turn(n),
        b"done" => Step::Done(n),
        b"part" if n == 0 => Step::Part,
        b"tail" if n == 0 => Step::Tail,
        b"copy" => Step::Copy,
        b"stage" => Step::Stage,
        b"see" => Step::Witness,
        b"note" => Step::Note,
        b"fence" => Step::Fence(n),
        b"kept" => Step::Kept(n),
        _ => return None,
    };
    // Some servers number their files over the whole range.
    if n > LAST && !matches!(step, Step::Kept(_)) {
        return None;
    }
    (base.len() > 1).then_some((base, step))
}

fn split_last(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = name.iter().rposition(|&byte| byte == b'.')?;
    Some((&name[..dot], &name[dot + 1..]))
}

/// A decimal number as the protocol writes it: no sign, no leading zero.
fn decimal(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    let n: u64 = text.parse().ok()?;
    (n.to_string() == text).then_some(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for name in ["results.csv", "a", ".hidden", "x.turn.7", "line\nbreak"] {
            let names = LockNames::new(OsStr::new(name));
            assert_eq!(names.step(names.turn(7).as_bytes()), Some(Step::Turn(7)));
            assert_eq!(names.step(names.done(0).as_bytes()), Some(Step::Done(0)));
            assert_eq!(names.step(names.fence(3).as_bytes()), Some(Step::Fence(3)));
            for ino in [1, u64::MAX] {
                let kept = names.kept(ino);
                assert_eq!(names.step(kept.as_bytes()), Some(Step::Kept(ino)));
            }
            // One with as many digits as a token has.
            for number in [0, 3_684_723_750_344_702, u64::MAX] {
                assert_eq!(names.step(names.note(number).as_bytes()), Some(Step::Note));
                assert_eq!(
                    names.step(names.stage(number).as_bytes()),
                    Some(Step::Stage)
                );
            }
            for host in ["host.example.org", ""] {
                let claim = names.claim(host, 4711, "0123456789abcdef");
                assert!(names.is_claim(&claim), "{claim:?}");
            }
            let claim = names.claim("host.example.org", 4711, "0123456789abcdef");
            assert!(is_hidden(claim.as_bytes()));
            assert_eq!(
                LockNames::new(OsStr::new("other")).step(claim.as_bytes()),
                None
            );
        }
    }

    #[test]
    fn long_names_stay_within_the_limit_and_differ() {
        let names: Vec<LockNames> = ["a", "b"]
            .iter()
            .map(|end| LockNames::new(OsStr::new(&format!("{}{end}", "x".repeat(254)))))
            .collect();
        let claim = names[0].claim(&"h".repeat(64), u32::MAX, "0123456789abcdef");
        assert!(claim.as_bytes().len() <= NAME_MAX);
        assert_eq!(names[0].step(claim.as_bytes()), Some(Step::Claim));
        assert_eq!(names[1].step(claim.as_bytes()), None);
        assert!(names[0].dotlock().is_none());
    }

    #[test]
    fn names_of_others_are_not_hidden() {
        for name in [
            "results.csv",
            ".bashrc",
            ".x.turn.",
            ".x.turn.01",
            ".x.turn.-1",
            ".turn.1",
            "..turn.1x",
            "x.done.1",
            ".x.claim.h.1.0123",
            ".x.done.99999999999999999999999",
            ".x.done.4611686018427387904",
            ".",
            "..",
            "",
        ] {
            assert!(!is_hidden(name.as_bytes()), "{name}");
        }
    }
}
