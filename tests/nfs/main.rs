//! Unmodified programs on two NFS hosts, through dotlockfs: nothing that they append or update is
//! lost.
//!
//! The hosts, their NFS server and their network are User-mode Linux machines (`tests/cluster`),
//! booted once for all tests here, which take turns. Each test runs on NFSv4.2 and on NFSv3; to
//! see the table of what the same programs lose straight on NFS, run it with `--nocapture`.

#[path = "../cluster/mod.rs"]
mod cluster;

mod asked;
mod lab;
mod table;
mod team;
mod updaters;
mod writers;

mod appends;
mod conditions;
mod databases;
mod dotlocks;
mod failing;
mod freshness;
mod hidden;
mod in_place;
mod interrupts;
mod local_locks;
mod mail;
mod reading;
mod readme;
mod recovery;
mod remembered;
mod replacing;
mod run_command;
mod tools;
mod truncation;
mod unmounting;
mod users;
mod waiting;

/// Makes two tests of each function: one on NFSv4.2, one on NFSv3.
macro_rules! on_both_versions {
    ($($(#[doc = $about:literal])+ fn $name:ident($lab:ident: &Lab) $body:block)+) => {
        $($(#[doc = $about])+ fn $name($lab: &Lab) $body)+

        mod nfs_4_2 {
            $(#[test] fn $name() { super::$name(&crate::lab::Lab::on("4.2")); })+
        }

        mod nfs_3 {
            $(#[test] fn $name() { super::$name(&crate::lab::Lab::on("3")); })+
        }
    };
}
pub(crate) use on_both_versions;
