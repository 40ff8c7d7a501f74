//! The control socket: whoever connects, and may ask, is told of the mount at once.
//!
//! Nothing is read from those who ask, so they can neither say anything wrong nor keep anybody
//! waiting by saying nothing. One is answered after the other, each within a second.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, sockopt};

use super::mount::Watched;
use super::report::Report;
use super::runtime::{self, Found};
use crate::config::error::shown;
use crate::sys::creds;

/// How long one who asks may take to read the answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long `dotlockfs status` waits for an answer.
const LONGEST_ANSWER: Duration = Duration::from_secs(5);
/// The longest answer that it reads, in bytes.
const ANSWER_MAX: usize = 16 << 20;
/// The pause after an error of accept(2), as when there are no descriptors left.
const AGAIN: Duration = Duration::from_millis(100);

/// The socket of a mount, which goes with this value.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The directory for the socket of a mount that is to be made at `mountpoint`.
///
/// # Errors
/// Where there is none for it: a line without an end.
pub fn directory(mountpoint: &Path) -> Result<PathBuf, String> {
    let dir = runtime::own().ok_or("this user has no runtime directory (XDG_RUNTIME_DIR)")?;
    match runtime::lies_in(&dir, mountpoint) {
        false => Ok(dir),
        true => Err(format!("{}: lies in the mount itself", shown(&dir))),
    }
}

/// Makes the socket of a mount in a directory, and answers those who ask in a thread of its own.
///
/// # Errors
/// Where this user cannot make it there: a line without an end.
pub fn serve(dir: &Path, watched: Arc<Watched>) -> Result<Control, String> {
    let fail = |error: io::Error| {
        let reason = error.to_string();
        let reason = reason.split(" (os error").next().unwrap_or_default();
        format!("{}: {reason}", shown(dir))
    };
    let (listener, control) = listen(dir, watched.dev).map_err(fail)?;
    let serve = move || {
        loop {
            match listener.accept() {
                Ok((client, _)) if may_ask(&client) => answer(client, &watched),
                Ok(_) => {}
                Err(_) => thread::sleep(AGAIN),
            }
        }
    };
    let thread = thread::Builder::new().name("control".to_owned());
    thread.spawn(serve).map_err(fail)?;
    Ok(control)
}

fn listen(dir: &Path, dev: u64) -> io::Result<(UnixListener, Control)> {
    runtime::prepare(dir)?;
    sweep(dir);
    let path = dir.join(runtime::socket_name(dev, std::process::id()));
    // Nobody finds it before it answers, and whoever sweeps leaves such names alone.
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let listener = UnixListener::bind(&new)?;
    let ready = fs::set_permissions(&new, fs::Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&new, &path));
    match ready {
        Ok(()) => Ok((listener, Control { path })),
        Err(error) => {
            let _ = fs::remove_file(&new);
            Err(error)
        }
    }
}

/// Removes the sockets of daemons that were killed.
fn sweep(dir: &Path) {
    for found in runtime::sockets(dir, creds::euid()).unwrap_or_default() {
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if connect(&found).err().is_some_and(refused) {
            let _ = fs::remove_file(&found.path);
        }
    }
}

/// Connects without waiting: where a daemon is stopped its queue is full at some time.
fn connect(found: &Found) -> io::Result<UnixStream> {
    // Between two looks the name may be made to lead elsewhere; what is open does not.
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(&found.path)?;
    let way = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(fd.as_raw_fd(), &UnixAddr::new(way.as_str())?)?;
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Who is at the other end.
fn peer(stream: &UnixStream) -> io::Result<u32> {
    Ok(socket::getsockopt(stream, sockopt::PeerCredentials)?.uid())
}

/// Root may ask, and whoever has mounted it. (The socket's mode says so already.)
fn may_ask(client: &UnixStream) -> bool {
    peer(client).is_ok_and(|uid| uid == 0 || uid == creds::euid())
}

/// Writes the answer, as far as the other reads it in time.
fn answer(mut client: UnixStream, watched: &Watched) {
    let Ok(text) = serde_json::to_vec(&watched.report()) else {
        return;
    };
    let deadline = Instant::now() + PATIENCE;
    let mut rest = &text[..];
    while !rest.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || client.set_write_timeout(Some(left)).is_err() {
            return;
        }
        match client.write(rest) {
            Ok(len) if len > 0 => rest = &rest[len..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

/// Asks the daemon behind a socket.
///
/// # Errors
/// `ECONNREFUSED` or `ECONNRESET` where it has ended, `EACCES` where this user may not ask, `ETIMEDOUT` where it
/// does not answer; `InvalidData` for an answer that is not understood.
pub fn ask(found: &Found) -> io::Result<Report> {
    let mut stream = connect(found)?;
    if ![0, found.uid].contains(&peer(&stream)?) {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    let deadline = Instant::now() + LONGEST_ANSWER;
    let mut text = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || text.len() > ANSWER_MAX {
            return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(len) => text.extend_from_slice(&piece[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            Err(error) => return Err(error),
        }
    }
    if text.is_empty() {
        // It has ended just now.
        return Err(io::Error::from_raw_os_error(libc::ECONNRESET));
    }
    serde_json::from_slice(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
