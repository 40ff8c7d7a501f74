//! dotlockfs: a FUSE overlay that makes updates of shared files safe on NFS.
//!
//! The command in `main.rs` is a thin shell around this library. `ARCHITECTURE.md`, beside
//! this file, describes how the parts fit together; each module's page says what it is for.

pub mod backing;
pub mod cli;
pub mod config;
pub mod fs;
pub mod guard;
pub mod lock;
pub mod observe;
pub mod sys;
