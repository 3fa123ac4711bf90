//! How a guard passes to another daemon: its keeper listens, a daemon connects, and is given what its predecessor drove by.
//!
//! Protects: one driver at a time. A keeper hands over only when the driver before is dead (a process of its own is killed first), and only
//! to the user that it runs as; the one who is given the guard is pinned by the credentials of his connection, so his
//! death is noticed like that of any driver. Nothing is given while nothing is committed, or when the lease is about to end. Does not
//! protect from a daemon that takes a guard and does nothing: then the lease ends, and the keeper fences.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Uid, geteuid};
use serde::{Deserialize, Serialize};

use super::{Driver, DriverPipe, LETTER_BYTES, Link, Memory, Task};
use crate::clock::Mono;
use crate::keeper::message::{Listener, Socket};
use crate::protocol::{Adoption, Left};
use crate::registry::Slot;
use crate::sys::passing;

/// How long a daemon waits for a keeper to hand over: it may have to end a process first.
const PATIENCE_MS: u16 = 3000;

/// What a new driver is told.
#[derive(Debug, Serialize, Deserialize)]
struct Handed {
    task: Task,
    counted: Option<(u64, u32)>,
    left: Option<HandedLeft>,
}

/// [`Left`], as a message.
#[derive(Debug, Serialize, Deserialize)]
struct HandedLeft {
    lease_end_ns: u64,
    kernel_seq: Option<u32>,
    submitted_seq: Option<u32>,
    beating: bool,
    generation: Option<u64>,
}

/// Takes over a guard from its keeper, for a thread of the calling process to drive. None if the keeper does not hand it over: it has a
/// driver that lives, or is about to fence.
///
/// # Errors
/// When there is no keeper, or it does not answer.
pub fn take_over(slot: &Slot) -> io::Result<Option<Driver>> {
    let socket = Socket::connect(&slot.keeper_socket())?;
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    if poll(&mut fds, PollTimeout::from(PATIENCE_MS))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let (bytes, descriptors) = match passing::receive(socket.as_fd(), LETTER_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        received => received?,
    };
    let handed: Handed = serde_json::from_slice(&bytes)?;
    let [memory, lock, pipe]: [OwnedFd; 3] =
        descriptors.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let memory = Memory::of_descriptor(memory, handed.task.members())?;
    let adoption = handed.adoption();
    Ok(Some(Driver {
        task: handed.task,
        memory,
        lock,
        keeper: Link::of(socket),
        pipe: DriverPipe::of(pipe),
        front: None,
        adoption: Some(adoption),
        resident: true,
    }))
}

/// Where daemons ask for a guard.
pub(super) struct Door(Listener);

/// One who asks.
pub(super) struct Asking {
    socket: Socket,
    pub(super) pid: i32,
}

impl Door {
    /// Opens it; what a keeper before left there is replaced.
    pub(super) fn open(slot: &Slot) -> io::Result<Self> {
        Listener::at(&slot.keeper_socket()).map(Door)
    }

    /// The next who asks, and may.
    pub(super) fn knock(&self) -> Option<Asking> {
        loop {
            let socket = self.0.accept()?;
            let Ok(credentials) = getsockopt(&socket, PeerCredentials) else { continue };
            if Uid::from_raw(credentials.uid()) == geteuid() && credentials.pid() > 0 {
                return Some(Asking { socket, pid: credentials.pid() });
            }
        }
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Asking {
    /// True if he still waits.
    pub(super) fn is_there(&self) -> bool {
        matches!(self.socket.receive::<()>(), Ok(None))
    }

    /// Gives him all that a driver needs. The link to him, and the keeper's end of his sign of life.
    pub(super) fn give(
        self,
        task: &Task,
        memory: &Memory,
        lock: BorrowedFd<'_>,
        adoption: &Adoption,
    ) -> io::Result<(Link, OwnedFd)> {
        let (pipe, ours) = DriverPipe::new()?;
        let bytes = serde_json::to_vec(&Handed::of(task, adoption))?;
        passing::send(self.socket.as_fd(), &bytes, &[memory.words.descriptor(), lock, pipe.as_fd()])?;
        Ok((Link::of(self.socket), ours))
    }
}

impl Handed {
    fn of(task: &Task, adoption: &Adoption) -> Self {
        let left = adoption.left.as_ref().map(|left| HandedLeft {
            lease_end_ns: left.lease_end.0,
            kernel_seq: left.kernel_seq,
            submitted_seq: left.submitted_seq,
            beating: left.beating,
            generation: left.generation,
        });
        Handed { task: task.clone(), counted: adoption.counted.map(|(at, seq)| (at.0, seq)), left }
    }

    fn adoption(&self) -> Adoption {
        let left = self.left.as_ref().map(|left| Left {
            lease_end: Mono(left.lease_end_ns),
            kernel_seq: left.kernel_seq,
            submitted_seq: left.submitted_seq,
            beating: left.beating,
            generation: left.generation,
        });
        Adoption { counted: self.counted.map(|(at, seq)| (Mono(at), seq)), left }
    }
}

/// How long a keeper whose daemon died waits for the next one, before it puts a process of its own there.
pub(super) const DAEMON_PATIENCE: Duration = Duration::from_millis(700);
