//! A mount that can be watched: by its control socket, and where that is asked for by its metrics.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Plan, file_system};
use crate::fs::Overlay;
use crate::observe::control::{self, Control};
use crate::observe::http::{self, Serving};
use crate::observe::metrics::Metrics;
use crate::observe::mount::Watched;
use crate::sys::process::boottime;

/// What is to be told of a mount, as its plan has it.
pub(super) struct About {
    source: PathBuf,
    mountpoint: PathBuf,
    file_system: Option<String>,
    rule_file: Option<PathBuf>,
    /// The directory for its socket, where there may be one.
    sockets: Option<PathBuf>,
    allow_other: bool,
    threads: usize,
}

/// What a mount is watched by, for as long as this lives.
#[derive(Debug)]
pub(super) struct Watching {
    _control: Option<Control>,
    _metrics: Option<Serving>,
}

impl About {
    /// What the plan says. Before it is mounted: what is looked at here may lie below the mountpoint.
    pub(super) fn of(plan: &Plan) -> About {
        let options = &plan.options;
        let sockets = control::directory(&plan.mountpoint);
        About {
            source: plan.source.clone(),
            mountpoint: plan.mountpoint.clone(),
            file_system: file_system(&plan.root).ok().flatten(),
            rule_file: plan.origin.file().map(Path::to_owned),
            sockets: sockets.inspect_err(|error| no_socket(error)).ok(),
            allow_other: options.allow_other,
            threads: plan.threads(),
        }
    }

    /// Lets the mount, whose file system has the number `dev`, be watched for as long as what this
    /// gives lives. A mount that cannot be watched works all the same. It must answer already.
    pub(super) fn observe(
        self,
        overlay: &Arc<Overlay>,
        dev: u64,
        metrics: Option<TcpListener>,
    ) -> Watching {
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
        let metrics = metrics.zip(address).and_then(|(listener, address)| {
            http::serve(listener, Metrics::of(Arc::clone(&watched)))
                .inspect(|_| log::info!("metrics are served at http://{address}/metrics"))
                .inspect_err(|error| log::error!("{address}: metrics are not served: {error}"))
                .ok()
        });
        let control = self.sockets.and_then(|dir| {
            control::serve(&dir, watched)
                .inspect_err(|error| no_socket(error))
                .ok()
        });
        Watching {
            _control: control,
            _metrics: metrics,
        }
    }
}

fn no_socket(error: &str) {
    // The mount is none the worse for it.
    log::info!("`dotlockfs status` cannot ask this mount, which has no socket: {error}");
}
