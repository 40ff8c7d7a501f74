//! What a daemon tells of itself: to `dotlockfs status` by a socket, and to a collector of metrics
//! over HTTP.
//!
//! [`report`] is what is told, [`mount`] where it comes from, [`runtime`] where the sockets are,
//! [`control`] who is told by them, [`metrics`] the same as OpenMetrics, [`http`] how that is served.
//!
//! Nothing here asks a file system or waits for one, so a daemon answers also when its server does
//! not; and nobody who asks can hold up the mount.

pub mod control;
pub mod http;
pub mod metrics;
pub mod mount;
pub mod report;
pub mod runtime;
