//! Descriptors that another process hands over, and what has become of their other ends.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::again;

/// Receives a message with one descriptor by `recvmsg(2)` (`SCM_RIGHTS`), closed on exec. Gives how
/// many bytes of `words` came, 0 at the end of the stream, and the descriptor, if one came with them.
///
/// # Errors
/// Those of `recvmsg(2)`.
pub fn receive(socket: impl AsFd, words: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let (size, device) = again(|| {
        let mut parts = [IoSliceMut::new(words)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let socket = socket.as_fd().as_raw_fd();
        let message = recvmsg::<()>(socket, &mut parts, Some(&mut space), flags)?;
        let device = message.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::ScmRights(devices) => devices.first().copied(),
            _ => None,
        });
        Ok((message.bytes, device))
    })?;
    // SAFETY: the kernel has made it for the receiver, and it is handed over only here.
    Ok((
        size,
        device.map(|device| unsafe { OwnedFd::from_raw_fd(device) }),
    ))
}

/// Whether nothing can come by a descriptor any more (`POLLERR` or `POLLHUP` of poll(2)).
///
/// # Errors
/// Those of `poll(2)`.
pub fn is_broken(fd: impl AsFd) -> io::Result<bool> {
    // Nothing else is told where nothing is asked for.
    let mut files = [PollFd::new(fd.as_fd(), PollFlags::empty())];
    Ok(again(|| poll(&mut files, PollTimeout::ZERO))? != 0)
}
