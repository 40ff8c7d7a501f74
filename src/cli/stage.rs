//! What subcommands stand on that mount and run programs by themselves (`demo`, `bench`): mounts,
//! directories and processes, each held by a guard. So every way out, an interruption included,
//! takes them down again, in the order in which the guards are dropped.

pub mod bar;
pub mod child;
pub mod interrupt;
pub mod judge;
pub mod mounts;
pub mod scratch;
