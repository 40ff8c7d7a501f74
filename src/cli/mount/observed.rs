//! A mount that can be watched: by its control socket, and where that is asked for by its metrics.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Plan, file_system};
use crate::config::FILE_NAME;
use crate::fs::Overlay;
use crate::observe::control::{self, Control};
use crate::observe::http;
use crate::observe::metrics::Metrics;
use crate::observe::mount::Watched;
use crate::sys::process::boottime;

/// What is to be told of a mount, as its plan has it.
pub(super) struct About {
    source: PathBuf,
    mountpoint: PathBuf,
    file_system: Option<String>,
    rule_file: Option<PathBuf>,
    allow_other: bool,
    threads: usize,
}

impl About {
    /// What the plan says.
    pub(super) fn of(plan: &Plan) -> About {
        let options = &plan.options;
        let given = options.config.as_deref();
        let given = given.map(|file| std::path::absolute(file).unwrap_or_else(|_| file.into()));
        let has_rules = plan.rules.guards_everything_alike().is_none();
        let is_usual = has_rules && options.guard.is_empty();
        About {
            source: plan.source.clone(),
            mountpoint: plan.mountpoint.clone(),
            file_system: file_system(&plan.root).ok().flatten(),
            rule_file: given.or_else(|| is_usual.then(|| plan.source.join(FILE_NAME))),
            allow_other: options.allow_other,
            threads: plan.threads(),
        }
    }

    /// Lets the mount, whose file system has the number `dev`, be watched for as long as what this
    /// gives lives. A mount that cannot be watched works all the same.
    pub(super) fn observe(
        self,
        overlay: &Arc<Overlay>,
        dev: u64,
        metrics: Option<TcpListener>,
    ) -> Option<Control> {
        let address = metrics.as_ref().and_then(|at| at.local_addr().ok());
        let watched = Arc::new(Watched {
            overlay: Arc::clone(overlay),
            source: self.source,
            mountpoint: self.mountpoint,
            dev,
            file_system: self.file_system,
            rule_file: self.rule_file,
            allow_other: self.allow_other,
            threads: self.threads,
            metrics: address.map(|address| address.to_string()),
            since: boottime(),
        });
        if let Some((listener, address)) = metrics.zip(address) {
            match http::serve(listener, Metrics::of(Arc::clone(&watched))) {
                Ok(()) => log::info!("metrics are served at http://{address}/metrics"),
                Err(error) => log::error!("{address}: metrics are not served: {error}"),
            }
        }
        control::serve(watched)
            .inspect_err(|error| {
                log::warn!(
                    "`dotlockfs status` cannot ask this mount, which has no socket: {error}"
                );
            })
            .ok()
    }
}
