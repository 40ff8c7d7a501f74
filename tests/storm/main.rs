//! The storm: three NFS hosts write to the same files through dotlockfs while hosts are paused,
//! killed and cut off, daemons killed and stopped, and the server restarted and filled. Whatever a
//! program was told to be done must be in the files at the end: once, whole and in order.
//!
//! `cargo test --release --test storm -- --nocapture` runs one storm of two and a half minutes on
//! NFSv4.2 and one on NFSv3; `tests/chaos` runs longer ones, and repeats one by its seed.
//!
//! | environment | meaning |
//! | --- | --- |
//! | `STORM_MINUTES` | how long to storm, on each version (2.5) |
//! | `STORM_SEED` | the seed of the first round; what happens, and when, follows from it |
//! | `STORM_ONLY` | only these faults, as `pause,cut` (see [`scenario::Kind`]) |

#[path = "../cluster/mod.rs"]
mod cluster;

mod counters;
mod documents;
mod field;
mod journal;
mod records;
mod report;
mod scenario;
mod storm;

#[test]
fn nfs_4_2() {
    storm::run("4.2");
}

#[test]
fn nfs_3() {
    storm::run("3");
}
