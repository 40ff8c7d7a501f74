//! A server for one page, the metrics: small, and patient with nobody.
//!
//! Servers that can do more keep a thread for whoever connects and says nothing. Here one gets two seconds,
//! and more than eight at a time are turned away.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{self, Shutdown};

use super::metrics::{CONTENT_TYPE, Metrics};

/// How long a request may take, and how long its answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// So many connections at a time.
const AT_ONCE: usize = 8;
/// The longest request, in bytes, and the most lines in it.
const REQUEST_MAX: usize = 8 * 1024;
const LINES_MAX: usize = 64;
/// The pause after an error of accept(2), as when there are no descriptors left.
const AGAIN: Duration = Duration::from_millis(100);
/// How long a port that is taken is waited for: a daemon whose mount was just taken away lets go of it
/// in a moment.
const TAKEN: Duration = Duration::from_secs(3);
/// The pause between two tries.
const NEXT_TRY: Duration = Duration::from_millis(50);
/// The page.
const PATH: &str = "/metrics";

/// Binds the address, so that it is known before anything is mounted that it can be had. Waits for it a
/// while, as `umount` and a new mount may come right after each other.
///
/// # Errors
/// A line for the user.
pub fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    let deadline = Instant::now() + TAKEN;
    let bound = loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(NEXT_TRY);
            }
            other => break other,
        }
    };
    bound.map_err(|error| {
        let reason = error.to_string();
        let reason = reason.split(" (os error").next().unwrap_or_default();
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => "; choose another port for each mount",
            _ => "",
        };
        format!("{address}: cannot serve metrics there: {reason}{advice}")
    })
}

/// The server, which ends with this value: then the port is free for another.
#[derive(Debug)]
pub struct Serving {
    listener: TcpListener,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // It wakes the thread. The port is taken until the last descriptor is closed, and the thread
        // has one.
        let _ = socket::shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves the metrics, in a thread of its own, for as long as what this gives lives.
///
/// # Errors
/// Where no thread can be started.
pub fn serve(listener: TcpListener, metrics: Metrics) -> io::Result<Serving> {
    let metrics = Arc::new(metrics);
    let ends = Arc::new(AtomicBool::new(false));
    let (ours, ended) = (listener.try_clone()?, Arc::clone(&ends));
    let serve = move || {
        loop {
            let client = listener.accept();
            if ended.load(Ordering::Acquire) {
                return;
            }
            let Ok((client, _)) = client else {
                thread::sleep(AGAIN);
                continue;
            };
            // One of them is ours.
            if Arc::strong_count(&metrics) > AT_ONCE {
                continue;
            }
            let metrics = Arc::clone(&metrics);
            // Without a thread to be had the connection is closed.
            let thread = thread::Builder::new().name("scrape".to_owned());
            let _ = thread.spawn(move || talk(client, &metrics));
        }
    };
    let thread = thread::Builder::new().name("metrics".to_owned());
    Ok(Serving {
        listener: ours,
        ends,
        thread: Some(thread.spawn(serve)?),
    })
}

/// One request, and its answer. Whatever fails is the other's affair.
fn talk(mut client: TcpStream, metrics: &Metrics) {
    let Ok(Some(request)) = read(&mut client) else {
        return;
    };
    let (status, kind, body) = match (&*request.method, &*request.path) {
        ("GET" | "HEAD", PATH) => ("200 OK", CONTENT_TYPE, metrics.text()),
        ("GET" | "HEAD", _) => {
            let body = format!("There is only {PATH}.\n");
            ("404 Not Found", "text/plain", body)
        }
        _ => {
            let status = "405 Method Not Allowed\r\nAllow: GET, HEAD";
            (status, "text/plain", String::new())
        }
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let body = if request.method == "HEAD" { "" } else { &body };
    let _ = write(&mut client, format!("{head}{body}").as_bytes());
}

struct Request {
    method: String,
    /// Without what follows a `?`.
    path: String,
}

/// Reads a request up to its empty line; `None` for what is none.
fn read(client: &mut TcpStream) -> io::Result<Option<Request>> {
    let deadline = Instant::now() + PATIENCE;
    let mut text = Vec::new();
    loop {
        let mut piece = [0; 1024];
        client.set_read_timeout(Some(left_until(deadline)?))?;
        let len = client.read(&mut piece)?;
        text.extend_from_slice(&piece[..len]);
        let mut lines = [httparse::EMPTY_HEADER; LINES_MAX];
        let mut request = httparse::Request::new(&mut lines);
        match request.parse(&text) {
            Ok(httparse::Status::Complete(_)) => {
                let path = request.path.unwrap_or_default();
                return Ok(Some(Request {
                    method: request.method.unwrap_or_default().to_owned(),
                    path: path.split('?').next().unwrap_or_default().to_owned(),
                }));
            }
            Ok(httparse::Status::Partial) if len > 0 && text.len() < REQUEST_MAX => {}
            _ => return Ok(None),
        }
    }
}

fn write(client: &mut TcpStream, mut rest: &[u8]) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !rest.is_empty() {
        client.set_write_timeout(Some(left_until(deadline)?))?;
        match client.write(rest)? {
            0 => break,
            len => rest = &rest[len..],
        }
    }
    Ok(())
}

/// The time that is left. (A time-out of zero would mean none at all.)
fn left_until(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(io::ErrorKind::TimedOut)),
        left => Ok(left),
    }
}
