//! What a run took place on.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use serde::Serialize;

use crate::cli::stage::mounts;

/// This host, and what is installed.
#[derive(Debug, Serialize)]
pub struct Host {
    /// Of dotlockfs.
    pub version: &'static str,
    /// The kernel's release.
    pub kernel: String,
    /// Processors that may be used.
    pub processors: usize,
    /// Whether root measures.
    pub root: bool,
    /// The version of bindfs, where it is installed.
    pub bindfs: Option<String>,
}

impl Host {
    /// Looks.
    pub fn look() -> Host {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Host {
            version: env!("CARGO_PKG_VERSION"),
            kernel: kernel.trim().to_owned(),
            processors: thread::available_parallelism().map_or(1, usize::from),
            root: mounts::is_root(),
            bindfs: bindfs(),
        }
    }
}

fn bindfs() -> Option<String> {
    let program = mounts::find_in_path("bindfs")?;
    let said = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    Some(
        said.lines()
            .next()?
            .trim_start_matches("bindfs ")
            .to_owned(),
    )
}

/// A directory in which is measured.
#[derive(Debug, Clone, Serialize)]
pub struct Ground {
    /// Its path.
    pub directory: String,
    /// The type of its file system.
    pub file_system: String,
    /// How that is mounted.
    pub mount_options: String,
    /// Whether the kernel reads and writes unguarded files by itself; `None` where it could not be
    /// seen.
    pub passthrough: Option<bool>,
}

impl Ground {
    /// Looks at a directory (a canonical path).
    pub fn of(directory: &Path) -> Ground {
        let mount = mounts::mount_of(directory);
        Ground {
            directory: directory.display().to_string(),
            file_system: mount
                .as_ref()
                .map_or("unknown type".into(), |mount| mount.kind.clone()),
            mount_options: mount.map_or(String::new(), |mount| {
                let own = mount.options.split(',');
                let others = mount.super_options.split(',');
                // Both begin with rw or ro.
                let others = others.filter(|option| !["rw", "ro"].contains(option));
                own.chain(others).collect::<Vec<_>>().join(",")
            }),
            passthrough: None,
        }
    }
}
