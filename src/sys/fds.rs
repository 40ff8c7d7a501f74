//! Descriptors that another process hands over, and what has become of their other ends.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::{check, check_size};

/// Room for the header of a control message and one descriptor, with what alignment may add.
const CONTROL: usize = 8;

/// Receives one descriptor by `recvmsg(2)` (`SCM_RIGHTS`), closed on exec. `None` at the end of the
/// stream, or where a message comes without a descriptor.
///
/// # Errors
/// Those of `recvmsg(2)`.
pub fn receive(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = 0u8;
    let mut part = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // As aligned as a header has to be.
    let mut control = [0usize; CONTROL];
    // SAFETY: all fields of a message header are numbers and pointers that may be 0.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = mem::size_of_val(&control) as _;
    // SAFETY: the message points to one byte and to room for control messages, with their lengths;
    // both outlive the call.
    let size = check_size(unsafe {
        libc::recvmsg(
            socket.as_fd().as_raw_fd(),
            &raw mut message,
            libc::MSG_CMSG_CLOEXEC,
        )
    })?;
    if size == 0 {
        return Ok(None);
    }
    // SAFETY: the kernel has filled the header and the room that it points to. A header that is
    // not null lies in that room with its data behind it; where it is one of descriptors, the first
    // is new and nobody else owns it.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null()
            || (*header).cmsg_level != libc::SOL_SOCKET
            || (*header).cmsg_type != libc::SCM_RIGHTS
        {
            return Ok(None);
        }
        let fd = libc::CMSG_DATA(header)
            .cast::<libc::c_int>()
            .read_unaligned();
        Ok(Some(OwnedFd::from_raw_fd(fd)))
    }
}

/// Whether nothing can come by a descriptor any more (`POLLERR` or `POLLHUP` of poll(2)).
///
/// # Errors
/// Those of `poll(2)`.
pub fn is_broken(fd: impl AsFd) -> io::Result<bool> {
    let mut asked = libc::pollfd {
        fd: fd.as_fd().as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: points to one structure, as the number says.
    check(unsafe { libc::poll(&raw mut asked, 1, 0) })?;
    Ok(asked.revents & (libc::POLLERR | libc::POLLHUP) != 0)
}
