//! What front and keeper tell each other: one JSON document per packet of a `SOCK_SEQPACKET` pair.
//!
//! Neither side ever blocks on the other: the front may be stopped by its user for hours, and the keeper must fence
//! meanwhile. The end of the stream is the death of the other side.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, recv, send,
    socket, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::fence::FenceReport;
use crate::sys::passing;
use crate::sys::realtime::Protection;
use crate::sys::spawn::{CommandEnd, SpawnFailure};

/// Who may wait to be accepted.
const BACKLOG: i32 = 8;

/// From the front.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum ToKeeper {
    /// Start the command. Answered by [`FromKeeper::Started`], [`FromKeeper::SpawnFailed`] or
    /// [`FromKeeper::StartRefused`].
    Start {
        /// Added to the environment.
        env: Vec<(OsString, OsString)>,
        /// Give it the foreground of the terminal on standard input.
        foreground: bool,
    },
    /// Send a signal to the command's process group, or, once the command ended, to whatever is left of its tree.
    Signal {
        /// Its number.
        signal: i32,
    },
    /// End. What still runs is killed first, as if the front had died.
    Finish,
}

/// From the keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "says")]
pub enum FromKeeper {
    /// It is set up. Always the first message.
    Ready {
        /// How well it is protected.
        protection: Protection,
        /// Whether the command gets a cgroup of its own.
        cgroup: bool,
    },
    /// The command runs.
    Started {
        /// Its process and its process group.
        pid: i32,
    },
    /// The command cannot be started. [`FromKeeper::TreeEmpty`] follows.
    SpawnFailed {
        /// Why.
        failure: SpawnFailure,
    },
    /// The command was not started: nothing would protect it.
    StartRefused {
        /// Why.
        why: StartRefusal,
    },
    /// The command was stopped, from the terminal or by a signal; the front should stop too.
    Stopped {
        /// By which signal.
        signal: i32,
    },
    /// The command ended.
    CommandEnded {
        /// How.
        end: CommandEnd,
        /// So many other processes of its tree still run.
        remaining: usize,
    },
    /// Nothing of the command's tree is left. Exact, and follows each end or failed start of a command.
    TreeEmpty,
    /// The protection ended and the ladder was climbed. Always the last message.
    Fenced {
        /// Why.
        why: Why,
        /// What came of it.
        report: FenceReport,
    },
}

/// Why a fence ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Nobody extended the lease in time.
    LeaseExpired,
    /// The driver is gone, and the device was still held.
    DriverGone,
    /// The front is gone, or told the keeper to finish, while anything of the command's tree ran; or it is gone and
    /// never started one.
    FrontGone,
    /// The driver declared the lease lost.
    CellLost,
}

/// Why a command was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartRefusal {
    /// The cell is not armed, or released already.
    NotHeld,
    /// The driver is gone.
    DriverGone,
    /// One command a keeper.
    StartedBefore,
}

/// Makes the packet for a message.
pub(super) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(message)?)
}

/// One end of the pair.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// A connected pair.
    pub(crate) fn pair() -> io::Result<(Socket, Socket)> {
        let (one, other) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Socket(one), Socket(other)))
    }

    /// Connects to a [`Listener`]. Never blocks: one that does not accept fails.
    pub(crate) fn connect(path: &Path) -> io::Result<Socket> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        fcntl(&socket, FcntlArg::F_SETFL(OFlag::empty()))?; // as those of a pair
        Ok(Socket(socket))
    }

    /// A packet socket that was passed on.
    pub(crate) fn of(descriptor: OwnedFd) -> io::Result<Socket> {
        fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        Ok(Socket(descriptor))
    }

    /// Sends one packet, or fails with `WouldBlock`.
    pub(super) fn send(&self, packet: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), packet, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }

    /// Sends one message, or fails with `WouldBlock`.
    pub(crate) fn send_message(&self, message: &impl Serialize) -> io::Result<()> {
        self.send(&encode(message)?)
    }

    /// Receives one packet, if there is one.
    pub(crate) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<T>> {
        // With MSG_TRUNC the answer is the packet's true length, however small the buffer.
        let Some(length) = self.receive_into(&mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC)? else {
            return Ok(None);
        };
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into()); // nobody sends empty packets
        }
        let mut packet = vec![0; length];
        self.receive_into(&mut packet, MsgFlags::empty())?;
        Ok(Some(serde_json::from_slice(&packet)?))
    }

    fn receive_into(&self, buffer: &mut [u8], flags: MsgFlags) -> io::Result<Option<usize>> {
        loop {
            match recv(self.0.as_raw_fd(), buffer, flags | MsgFlags::MSG_DONTWAIT) {
                Ok(length) => return Ok(Some(length)),
                Err(Errno::EAGAIN) => return Ok(None),
                // The other side died with our packets unread. Said once; what it sent before comes after that.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A place in the filesystem where packet sockets connect to.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

impl Listener {
    /// Listens at `path`, for this user alone; what was there before is replaced.
    pub(crate) fn at(path: &Path) -> io::Result<Listener> {
        let _ = std::fs::remove_file(path);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listen(&socket, Backlog::new(BACKLOG)?)?;
        Ok(Listener(socket))
    }

    /// The next connection, if there is one.
    pub(crate) fn accept(&self) -> Option<Socket> {
        passing::accept(self.0.as_fd()).ok().map(Socket)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> OwnedFd {
        socket.0
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn packets_keep_their_bounds_and_bytes_that_are_no_text() {
        let (front, keeper) = Socket::pair().unwrap();
        assert_eq!(keeper.receive::<ToKeeper>().unwrap(), None);
        let value = OsString::from_vec(b"/dev/\xff\n\x1b[2J".to_vec());
        let start = ToKeeper::Start { env: vec![("MMP_DEVICE".into(), value)], foreground: true };
        for message in [&start, &ToKeeper::Finish] {
            front.send(&encode(message).unwrap()).unwrap();
        }
        assert_eq!(keeper.receive().unwrap(), Some(start));
        assert_eq!(keeper.receive().unwrap(), Some(ToKeeper::Finish));
        drop(front);
        let end = keeper.receive::<ToKeeper>().unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_was_sent_before_a_death_arrives_although_the_dead_left_packets_unread() {
        let (front, keeper) = Socket::pair().unwrap();
        front.send(&encode(&ToKeeper::Finish).unwrap()).unwrap();
        keeper.send(&encode(&FromKeeper::TreeEmpty).unwrap()).unwrap();
        drop(keeper);
        assert_eq!(front.receive().unwrap(), Some(FromKeeper::TreeEmpty));
        assert!(front.receive::<FromKeeper>().is_err());
    }

    #[test]
    fn a_reader_that_sleeps_does_not_block_the_sender() {
        let (_front, keeper) = Socket::pair().unwrap();
        let packet = encode(&FromKeeper::TreeEmpty).unwrap();
        let error = std::iter::repeat_with(|| keeper.send(&packet)).find_map(Result::err).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
