//! The service manager's watchdog: hears twice in its time that the daemon is well, while it is.
//!
//! Well means that all threads that answer the kernel are there, and that no lock within the daemon is
//! held for good. Nothing is asked of the mount: that would make it busy for whoever unmounts it, and
//! while a server hangs the answer would not come, though a daemon started anew would hang as well,
//! and programs would have lost what they had open.

use std::fs;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::service::Service;
use crate::fs::Overlay;

/// How the threads are called that answer the kernel; a number follows.
const ANSWERING: &str = "fuser-";
/// The least time between two signs of life.
const LEAST: Duration = Duration::from_millis(10);

/// Tells `service` from now on that the daemon is well, if it wants to hear that, for as long as
/// `serving` is there. `threads` answer the kernel.
///
/// # Errors
/// Where no thread can be started.
pub(super) fn start(
    service: Service,
    (overlay, serving): (&Arc<Overlay>, &Arc<()>),
    threads: usize,
) -> io::Result<()> {
    let Some(time) = service.watchdog() else {
        return Ok(());
    };
    let (overlay, serving) = (Arc::downgrade(overlay), Arc::downgrade(serving));
    let watch = move || {
        let mut unwell = 0;
        while let Some(overlay) = overlay.upgrade() {
            // Waits for a lock that is held for good, and then nobody hears anything.
            overlay.take_all_locks();
            drop(overlay);
            let here = answering().unwrap_or(threads);
            // The threads go with the mount.
            if serving.strong_count() == 0 {
                return;
            }
            if here >= threads {
                service.lives();
                unwell = 0;
            } else {
                unwell += 1;
            }
            // Not at once: it may just have been unmounted.
            if unwell == 2 {
                log::error!(
                    "only {here} of {threads} threads answer the kernel; the watchdog is not told"
                );
            }
            thread::sleep((time / 2).max(LEAST));
        }
    };
    let thread = thread::Builder::new().name("watchdog".to_owned());
    thread.spawn(watch).map(drop)
}

/// How many threads of this process answer the kernel; `None` where that cannot be seen, as where
/// there is no descriptor left.
fn answering() -> Option<usize> {
    let mut count = 0;
    for task in fs::read_dir("/proc/self/task").ok()? {
        match fs::read_to_string(task.ok()?.path().join("comm")) {
            Ok(name) => count += usize::from(name.starts_with(ANSWERING)),
            // One that has just ended.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return None,
        }
    }
    Some(count)
}
