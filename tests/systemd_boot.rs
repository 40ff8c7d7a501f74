//! A Debian with systemd and the package of dotlockfs, on a machine of its own, with NFS: it boots
//! with the lines in fstab that the README has, goes down, loses its power, and boots without the
//! server; and systemd looks after the service that the package brings.
//!
//! They need the network the first time, for the Debian and for cargo-deb.

#[path = "cluster/mod.rs"]
mod cluster;
mod common;

#[path = "systemd_boot/machine.rs"]
mod machine;
#[path = "systemd_boot/mounts.rs"]
mod mounts;
#[path = "systemd_boot/service.rs"]
mod service;
