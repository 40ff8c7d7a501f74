//! The cross-host lock: numbered *turns*, each one put-if-absent `link(2)`.
//!
//! The textbook lock file (`link` to take `X.lock`, `unlink` to let go) has a hole on a network:
//! an `unlink` names whatever stands there when it arrives. A host that is cut off while it lets
//! go, and whose lock is broken meanwhile, removes the next holder's lock when the network comes
//! back. So between dotlockfs hosts every step makes a name that is never used twice, and nothing
//! shared is removed while it can still matter; a step that arrives late, or twice, does no harm.
//!
//! The names of a file `X`, all in its directory and hidden from the mount's listings:
//!
//! | name | meaning |
//! | --- | --- |
//! | `.X.claim.HOST.PID.TOKEN` | a daemon's claim: a file with its owner record; all else are hard links to claims |
//! | `.X.turn.N` | turn N is taken, by the owner of the claim with this inode |
//! | `.X.done.N` | turn N is over; its inode says who ended it |
//! | `.X.fence.K` | the K-th time that X has got another file because a turn was broken ([`fence`]) |
//! | `.X.note.R` | a fence that is about to be published |
//! | `.X.stage.R` | a file that is about to take the place of X |
//! | `.X.tail.0` | where the last record was left unfinished on purpose ([`tail`]) |
//! | `.X.part.0` | the file is being written beyond an offset; readers stop there ([`part`]) |
//! | `X.lock` | the classic dotlock, held within a turn, for programs that know nothing of turns |
//!
//! Read in this order: [`names`], [`record`] (what a claim holds), [`directory`] (the calls, and
//! how each is made fresh on NFS), [`listing`], [`turns`] (the protocol), [`fence`] (after a turn
//! was broken), [`dotlock`], [`part`], [`tail`]; and [`survey`], which looks at all
//! this from outside.

pub mod directory;
pub mod dotlock;
pub mod fence;
pub mod listing;
pub mod names;
pub mod part;
pub mod record;
pub mod survey;
pub mod tail;
pub mod turns;

pub use directory::{Directory, Identity, RealDirectory, Sign};
pub use names::LockNames;
pub use record::{Owner, Unfinished};
pub use turns::{Death, Ended, Holder, Progress, Turn, Turns};
