//! The process that outlives the driver and fences when a lease runs out.
//!
//! # What it protects
//! A protected command must not run a moment longer than its lease. The driver cannot see to that: it may hang in
//! the dead device's write, be stopped, or be killed. Nor can the front, which a user stops and kills at will. So a third
//! process does: small, single-threaded, locked in memory, asleep until the end of the lease that the [`LeaseCell`](crate::driver::cell::LeaseCell)
//! names. It touches no file and no device after its start but `/proc` and the cgroup, and it is the *parent* of the
//! command and the adopter of its orphans (subreaper), so that nothing of the tree escapes it.
//!
//! It fences at once when
//! - the lease ran out, whatever the driver does ([`Why::LeaseExpired`]);
//! - the driver declared it lost and woke the keeper ([`Why::CellLost`]);
//! - the driver is gone while a lease runs: nobody will ever extend it ([`Why::DriverGone`]);
//! - the front is gone, before a command was started or while anything of its tree runs ([`Why::FrontGone`]).
//!
//! To fence is to climb the [`fence::Ladder`], and then to kill the driver, so that it never writes again. A front that
//! is gone is no loss of the lease: then the driver goes on holding until the tree is dead, or its lease ends.
//!
//! A front that goes when the command's tree is empty already leaves nothing to kill: the keeper ends
//! ([`EXIT_FINISHED`]) and touches neither cell nor driver. Others on this host may use the device still (a mount the
//! command made), and the driver holds it for them, by itself from here on. Before a command was started there is
//! nobody to hold for, so then the driver is killed.
//!
//! # Why it holds
//! 1. A command starts only under an armed, unexpired cell, and the keeper itself starts it: there is no instant in
//!    which it runs and is not watched.
//! 2. The keeper waits for nothing but poll(2): messages are sent without blocking, exec is awaited in the same
//!    poll, descriptors of the user's are given up. Its timer runs on `CLOCK_BOOTTIME`, so it fires when a suspend ends.
//! 3. A stalled keeper or driver is judged by the cell alone (see [`crate::driver::cell`]).
//! 4. Every process closes the ends that are not its own (`sys::spawn`): an end of file means death, and death an
//!    end of file.
//! 5. That nothing is left is proved by `ECHILD`, not by a listing (`sys::process`).
//! 6. If the keeper dies, the command is killed by `PR_SET_PDEATHSIG`, and its orphans fall to the next
//!    subreaper above, the front.
//!
//! # What it does not
//! A keeper that is stopped (SIGSTOP, a debugger) fences when it is continued, not before. A process in
//! uninterruptible sleep dies when its I/O ends: it is reported in `still_there`. What another service starts on the
//! command's behalf is nobody's descendant. Data that the command had written to the page cache is still written
//! out by the kernel: cutting that off takes a rung that cuts the device.

pub mod fence;
pub mod message;
pub mod mounts;
mod process;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Pid, pipe2};

use crate::driver::leases::Leases;
use crate::sys::process::ProcessRef;
use crate::sys::spawn::{Descriptors, Place, fork_process};
use message::Socket;
pub use message::{FromKeeper, StartRefusal, ToKeeper, Why};

/// A lease that was shortened without a wake is noticed within this time. Its end itself is met exactly.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The keeper was told to finish, or its front is gone, and nothing is left of the command.
pub const EXIT_FINISHED: i32 = 0;
/// The keeper could not set itself up; nothing was started.
pub const EXIT_SETUP: i32 = 4;
/// It fenced, and nothing is left.
pub const EXIT_FENCED: i32 = 5;
/// It fenced, and something is still there.
pub const EXIT_NOT_FENCED: i32 = 10;

/// The driver's end of the pipe to the keeper. It is the driver's sign of life: the driver keeps it as long as it
/// lives, and no other process may hold a copy.
#[derive(Debug)]
pub struct DriverPipe(OwnedFd);

impl DriverPipe {
    /// Makes the pipe: the driver's end, and the one for [`KeeperSpec::driver_pipe`].
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn new() -> io::Result<(DriverPipe, OwnedFd)> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        Ok((DriverPipe(write), read))
    }

    /// The end that came from a keeper.
    fn of(end: OwnedFd) -> Self {
        DriverPipe(end)
    }

    /// Makes the keeper look at the cell now: after it was lost, or its end moved to an earlier time. Never blocks.
    pub fn wake(&self) {
        // A full pipe wakes as well, and without a keeper there is nobody to wake.
        let _ = nix::unistd::write(&self.0, b"!");
    }
}

impl AsFd for DriverPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a keeper needs to know from the start.
#[derive(Debug)]
pub struct KeeperSpec {
    /// The cell it watches; the driver has the same.
    pub cell: Leases,
    /// The reading end of the [`DriverPipe`]. The caller has dropped its copy of the writing end by now.
    pub driver_pipe: OwnedFd,
    /// The driver: a child of the caller's, not reaped yet. It is killed after a fence.
    pub driver: Pid,
    /// The command with its arguments. It is started by [`ToKeeper::Start`], not before.
    pub command: Vec<OsString>,
}

/// The front's side of a keeper. Dropping it is what a killed front does: everything is killed, unless the command's
/// tree is empty already.
#[derive(Debug)]
pub struct KeeperHandle {
    pid: Pid,
    socket: Socket,
}

impl KeeperHandle {
    /// Forks the keeper off this process, which must have one thread only. Its first message is
    /// [`FromKeeper::Ready`]. It inherits what the user passed to us (the command's input, output and so on)
    /// and gives that up when the command runs.
    ///
    /// # Errors
    /// When this process has more threads, the driver is reaped already, `command` is empty, or the kernel refuses.
    pub fn fork(spec: KeeperSpec) -> io::Result<KeeperHandle> {
        if spec.command.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no command to run"));
        }
        let driver = ProcessRef::open(spec.driver)?;
        let (ours, theirs) = Socket::pair()?;
        let mut keep = vec![spec.driver_pipe.as_raw_fd(), theirs.as_fd().as_raw_fd()];
        keep.extend(driver.descriptor());
        // The closure owns what is the keeper's: the copies on this side are closed when the fork is done.
        let body = move || process::run(spec, driver, theirs);
        let pid = fork_process(c"mmp-keeper", Place::OwnGroup, Descriptors::Passed(&keep), body)?;
        Ok(KeeperHandle { pid, socket: ours })
    }

    /// The keeper's process. The caller's child: it has to be waited for.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a message. Never blocks.
    ///
    /// # Errors
    /// `WouldBlock` when a stopped keeper left very many unread, `BrokenPipe` when it is gone.
    pub fn send(&self, message: &ToKeeper) -> io::Result<()> {
        self.socket.send(&message::encode(message)?)
    }

    /// The next message, or `None` if there is none at present. Never blocks.
    ///
    /// # Errors
    /// `UnexpectedEof` when the keeper is gone and every message was received; `InvalidData` for what is no message.
    pub fn receive(&self) -> io::Result<Option<FromKeeper>> {
        self.socket.receive()
    }
}

impl AsFd for KeeperHandle {
    /// Readable when [`KeeperHandle::receive`] has something to say.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Reads the driver's pipe empty. Says whether the driver still has its end.
fn drain(pipe: &OwnedFd) -> bool {
    let mut buffer = [0; 64];
    loop {
        match nix::unistd::read(pipe, &mut buffer) {
            Ok(0) => return false,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return true,
        }
    }
}
