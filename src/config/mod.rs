//! What is asked of the mount: the rule file and the mount options.
//!
//! Rules say which files are guarded and how. They live in [`FILE_NAME`] at the root of the
//! guarded directory, so that every host that mounts it works by the same rules, and are read
//! when the file system is mounted, and again when its daemon is told to. This module reads and checks them, finds the rule
//! of a path, and says in words what a rule does; it never touches a guarded file.
//!
//! - [`rules`]: the types, their defaults, and which rule a path falls under
//! - [`globs`]: the patterns that choose files
//! - [`parse`]: from the text of a rule file to rules
//! - [`explain`]: from rules to words, for `dotlockfs check-config`
//! - [`options`]: the words after `-o`
//! - [`change`]: which rules may take the place of others while a mount stands
//! - [`error`]: faults, shown with the line they stand in
//!
//! A rule file is read by people on many hosts and a fault in it leaves files unguarded, so
//! everything that is not understood is an error, and a value that has no effect beside the others
//! is a warning ([`Rules::warnings`]).

pub mod change;
pub mod error;
pub mod explain;
pub mod globs;
mod nearest;
pub mod options;
pub mod parse;
pub mod rules;

pub use error::ConfigError;
pub use options::MountOptions;
pub use rules::{Ack, Append, Fence, Replace, Rule, Rules, Update};

/// Name of the rule file, at the root of the guarded directory.
pub const FILE_NAME: &str = ".dotlockfs.toml";
