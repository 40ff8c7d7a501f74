//! Which rules are in force, and how others come into force while programs use the mount.
//!
//! A node keeps the rule under which it was looked up, and so does a guard. When the rules change, each
//! name goes on by its old rule for as long as it is in use on this host: while a handle of it is open,
//! or its guard has something to do or to keep. So no file is ever written under two rules at once, and
//! nothing that was begun under one has to be ended under another. From then on the next look-up
//! gives a new node:
//!
//! - what is found under a name that is in use has the rule of those who use it (`Overlay::rule_for`,
//!   and for a file that is not guarded [`Nodes::found`](super::nodes::Nodes::found)),
//! - the old node of a name that is not is retired, so that an `open` that the kernel had on its way
//!   gets `ESTALE`, for which the kernel looks up the path again (`Overlay::is_up_to_date`). Whether it
//!   is open is asked under the lock under which handles are entered.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use fuser::INodeNo;

use super::Overlay;
use super::nodes::{Node, Place};
use crate::config::{self, Ack, Rule, Rules};
use crate::guard::Key;

/// The rules in force.
#[derive(Debug)]
pub struct InForce {
    rules: ArcSwap<Rules>,
    /// How often they have changed.
    generation: AtomicU64,
    /// Some rule says `ack = "close"`, or has said so.
    pub acks_at_close: AtomicBool,
    /// The kernel was told to let programs share memory with files that are written directly, which
    /// cannot be taken back.
    pub shares_memory: AtomicBool,
}

impl InForce {
    /// The rules of a new mount.
    pub fn new(rules: Rules) -> InForce {
        InForce {
            acks_at_close: AtomicBool::new(acks_at_close(&rules)),
            rules: ArcSwap::from_pointee(rules),
            generation: AtomicU64::new(0),
            shares_memory: AtomicBool::new(false),
        }
    }

    /// The rules as they are now.
    pub fn now(&self) -> arc_swap::Guard<Arc<Rules>> {
        self.rules.load()
    }

    /// How often they have changed.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether some names may still go by an older rule.
    pub fn have_changed(&self) -> bool {
        self.generation() > 0
    }

    fn replace(&self, rules: Rules) {
        if acks_at_close(&rules) {
            self.acks_at_close.store(true, Ordering::Release);
        }
        self.rules.store(Arc::new(rules));
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

fn acks_at_close(rules: &Rules) -> bool {
    rules.rules().iter().any(|rule| rule.ack == Ack::Close)
}

/// Whether two names, or one at two times, are guarded alike.
pub fn are_alike(one: Option<&Arc<Rule>>, other: Option<&Arc<Rule>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one.is_as(other),
        (None, None) => true,
        _ => false,
    }
}

impl Overlay {
    /// The rules in force now.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.rules.load_full()
    }

    /// Puts other rules into force, and gives the files that are in use and go on by their old ones.
    ///
    /// # Errors
    /// Where the change is not safe while the mount stands: why, and what to do.
    pub fn change_rules(&self, rules: Rules) -> Result<Vec<PathBuf>, String> {
        let before = self.rules.now();
        config::change::check(&before, &rules)?;
        if self.rules.shares_memory.load(Ordering::Acquire) && !rules.lock_all_updates() {
            return Err(
                "a rule with update = \"off\" is new, and programs may share memory with all files of \
                 this mount (mmap); unmount it and mount it anew"
                    .to_owned(),
            );
        }
        if before.are_as(&rules) {
            return Ok(Vec::new());
        }
        // Which record a file has depends on the order of the patterns, too.
        let records = |rules: &Rules| -> Vec<_> {
            let all = rules.rules().iter();
            all.map(|rule| (rule.files.clone(), rule.record.clone()))
                .collect()
        };
        if records(&before) != records(&rules) {
            self.guards.set_records_changed();
        }
        drop(before);
        self.rules.replace(rules);
        let mut kept = Vec::new();
        for node in self.nodes.files() {
            let Some(Place { parent, name }) = node.place() else {
                continue;
            };
            if node.is_superseded()
                || are_alike(
                    node.rule.as_ref(),
                    self.newest_rule(&parent, &name).as_ref(),
                )
            {
                continue;
            }
            if node.is_open() {
                kept.push(node.path());
            } else if let Some(notifier) = self.notifier.get() {
                // What the kernel remembers of it is from before.
                let _ = notifier.inval_entry(INodeNo(parent.id), &name);
            }
        }
        kept.sort();
        kept.dedup();
        Ok(kept)
    }

    /// The rule by which those go who use a guarded name, if somebody does.
    pub(super) fn rule_in_use(&self, parent: &Node, name: &OsStr) -> Option<Arc<Rule>> {
        let key = Key::new(parent.file, name.to_owned());
        let guard = self.guards.find(&key).filter(|guard| guard.is_in_use());
        guard
            .map(|guard| Arc::clone(&guard.rule()))
            .or_else(|| self.handles.rule_of_name(&key))
    }

    /// Whether a node may be opened; else the kernel must look up the path again, and gets another.
    pub(super) fn is_up_to_date(&self, node: &Node) -> bool {
        if node.is_superseded() {
            return false;
        }
        let generation = self.rules.generation();
        if node.is_dir || node.generation_seen.load(Ordering::Relaxed) == generation {
            return true;
        }
        let Some(Place { parent, name }) = node.place() else {
            return true;
        };
        if are_alike(node.rule.as_ref(), self.rule_for(&parent, &name).as_ref()) {
            node.generation_seen.store(generation, Ordering::Relaxed);
            return true;
        }
        !node.retire()
    }
}
