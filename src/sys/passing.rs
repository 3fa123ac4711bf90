//! Passing descriptors to another process over a socket pair (unix(7), `SCM_RIGHTS`).
//!
//! For a process that is started by exec: it gets one descriptor, its standard input, and the rest through that. So
//! nothing has to lose its close-on-exec flag, and no other program that is started meanwhile inherits anything.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, accept4, recvmsg, sendmsg};

/// The most descriptors in one message.
pub const DESCRIPTORS_AT_MOST: usize = 8;

/// Sends `bytes` as one packet, with descriptors.
///
/// # Errors
/// What the system says; `WouldBlock` when the other side does not read.
///
/// # Panics
/// With more than [`DESCRIPTORS_AT_MOST`] descriptors.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    assert!(descriptors.len() <= DESCRIPTORS_AT_MOST, "too many descriptors for one message");
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &rights, flags, None)?;
    Ok(())
}

/// Waits for one packet of at most `most` bytes, and what comes with it, close-on-exec.
///
/// # Errors
/// What the system says; `InvalidData` for a packet that is longer, `UnexpectedEof` when the other side is gone.
pub fn receive(socket: BorrowedFd<'_>, most: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; most];
    let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS_AT_MOST]);
    let (length, truncated, descriptors) = loop {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
            Ok(message) => {
                let mut descriptors = Vec::new();
                for part in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(numbers) = part {
                        // SAFETY: the kernel has just made these descriptors for us, and nobody else knows of them.
                        descriptors.extend(
                            numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }),
                        );
                    }
                }
                let cut = MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC;
                break (message.bytes, message.flags.intersects(cut), descriptors);
            }
        }
    };
    match length {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ if truncated => Err(io::ErrorKind::InvalidData.into()),
        _ => {
            bytes.truncate(length);
            Ok((bytes, descriptors))
        }
    }
}

/// The next connection to a listening socket, close-on-exec.
///
/// # Errors
/// What accept4(2) says; `WouldBlock` when nobody connects.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let accepted = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(accepted) })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _, Write as _};
    use std::os::fd::AsFd as _;

    use nix::sys::socket::{AddressFamily, SockType, socketpair};

    use super::*;

    #[test]
    fn descriptors_arrive_with_their_message() {
        let (one, other) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"shared").unwrap();
        send(one.as_fd(), b"hello", &[file.as_fd()]).unwrap();
        let (bytes, mut descriptors) = receive(other.as_fd(), 100).unwrap();
        assert_eq!((bytes.as_slice(), descriptors.len()), (&b"hello"[..], 1));
        let mut same = File::from(descriptors.remove(0));
        same.rewind().unwrap();
        let mut text = String::new();
        same.read_to_string(&mut text).unwrap();
        assert_eq!(text, "shared");
        send(one.as_fd(), &[7; 200], &[]).unwrap();
        assert_eq!(receive(other.as_fd(), 100).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(one);
        assert_eq!(receive(other.as_fd(), 100).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
