//! The keeper of a guarded mount: the small process that outlives the one that guards, and fences when a lease runs out.
//!
//! # What it protects
//! A filesystem that is mounted goes on being used whatever becomes of the processes that guard it. So there are two
//! of them, and each starts the other anew:
//!
//! ```text
//!  driver (all device I/O: looks, bridges, talks)  <--- socket, pipe --->  keeper (locked in memory, waits in poll)
//!        |  starts a new keeper if it is gone                                |  starts a new driver if it is gone
//!        |                                                                   |  mounts, by mount(8)
//!        +------------ lease cell and trace: words in shared memory ---------+  fences when the lease ends
//! ```
//!
//! The keeper fences at once when the lease ran out, or was declared lost. A driver that dies is replaced, and its
//! successor goes on under the same lease, with what the trace says ([`crate::driver::trace`]); if it dies again and
//! again, or the lease ends meanwhile, the keeper fences. As long as nothing is mounted there is nothing to fence: then
//! the death of the driver, or of the one who asked, ends whatever is mounting, and the guard.
//!
//! # Why it holds
//! 1. The ladder is prepared before anything is mounted, and a mount without a real fence is refused (or was asked
//!    for in so many words).
//! 2. mount(8) is the keeper's child and dies with it (`PR_SET_PDEATHSIG`), so nothing mounts unwatched. What came of it
//!    is asked of the kernel, never read off an exit status.
//! 3. The keeper waits for nothing but poll(2). It forks without exec: the successor's code is in memory.
//! 4. A stalled keeper or driver is judged by the cell alone ([`crate::driver::cell`]). Both hold the device's lock.
//! 5. The driver is killed after a fence, so that it never writes again; before the fence it writes no more because
//!    the cell says so.
//!
//! # What it does not
//! If both are killed at the same instant nobody watches: the kernel beats on, other hosts are refused as long as it
//! does, and `mmp adopt` puts a new guard there. A read-only mount, which we beat, is unprotected then.

mod events;
mod handing;
mod process;
mod task;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::DriverPipe;
use super::message::Socket;
use crate::driver::cell::LeaseCell;
use crate::driver::leases::Leases;
use crate::driver::trace::{TRACE_WORDS, Trace};
use crate::registry::Slot;
use crate::sys::fence::{ClimbReport, Summary};
use crate::sys::passing;
use crate::sys::realtime::{self, Protection};
use crate::sys::shared::SharedWords;
use crate::sys::spawn::CommandEnd;

pub use handing::take_over;
pub use process::{Driver, run};
pub use task::{Handover, Purpose, Task};

/// The hidden verb that a keeper is started by.
pub const VERB: &str = "guard-keeper";
/// The keeper's name, and the driver's, as ps(1) shows them.
pub const NAMES: (&std::ffi::CStr, &std::ffi::CStr) = (c"mmp-keeper", c"mmp-driver");
/// Where libmount looks for the table of filesystems, unless it is moved by this.
pub const FSTAB_VARIABLE: &str = "LIBMOUNT_FSTAB";
/// For a mount(8) that is not to look: it is told everything, and a line of fstab with our type would have it call us.
pub const NO_FSTAB: &str = "/dev/null";
/// A task with its paths and options is far shorter.
const LETTER_BYTES: usize = 1 << 17;
/// A cell and a trace.
const MEMBER_WORDS: usize = 1 + TRACE_WORDS;

/// What driver and keeper of a guard share: a lease cell and a trace for each member of what is used together.
#[derive(Clone, Debug)]
pub struct Memory {
    words: SharedWords,
    members: usize,
}

impl Memory {
    /// New memory for so many members, with unarmed cells.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn new(members: usize) -> io::Result<Self> {
        let memory = Memory { words: SharedWords::new(members * MEMBER_WORDS)?, members };
        memory.renew();
        Ok(memory)
    }

    /// The memory that another process made.
    ///
    /// # Errors
    /// As [`SharedWords::of_descriptor`].
    pub(super) fn of_descriptor(descriptor: OwnedFd, members: usize) -> io::Result<Self> {
        Ok(Memory { words: SharedWords::of_descriptor(descriptor, members * MEMBER_WORDS)?, members })
    }

    /// Forgets how a claim ended that protected nothing: the cells are unarmed again.
    pub fn renew(&self) {
        for member in 0..self.members {
            let _ = LeaseCell::in_words(self.words.clone(), member * MEMBER_WORDS);
        }
    }

    /// The cell of a member; that of what is mounted is the first.
    #[must_use]
    pub fn cell(&self, member: usize) -> LeaseCell {
        LeaseCell::found_in_words(self.words.clone(), member * MEMBER_WORDS)
    }

    /// All of them.
    #[must_use]
    pub fn leases(&self) -> Leases {
        (0..self.members).map(|member| self.cell(member)).collect::<Vec<_>>().into()
    }

    /// The trace of a member.
    #[must_use]
    pub fn trace(&self, member: usize) -> Trace {
        Trace::in_words(self.words.clone(), member * MEMBER_WORDS + 1)
    }
}

/// From the driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum ToKeeper {
    /// Run mount(8). Answered by [`FromKeeper::MountEnded`].
    Mount {
        /// Its arguments.
        arguments: Vec<std::ffi::OsString>,
    },
    /// Kill it.
    StopMount,
    /// It is mounted and guarded: the one who asked may go.
    Committed,
    /// Protection was lost, and why. The cell says so, too.
    Lost {
        /// In a sentence.
        reason: String,
    },
    /// After a loss: no thread of the driver's is at the device any more, and none of them writes the record.
    Stopped,
    /// Nothing is left to guard.
    Finish,
}

/// To the driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "says")]
pub enum FromKeeper {
    /// The ladder is prepared, and good enough to begin. To a resident driver alone, which lives already.
    Ready,
    /// After a loss: the ladder was climbed, and what came of it is told. The last message.
    Fenced,
    /// mount(8) has ended.
    MountEnded {
        /// How.
        end: CommandEnd,
        /// What it said, both streams.
        said: String,
    },
}

/// To the one who asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "says")]
pub enum ToFront {
    /// The ladder is prepared.
    Ready {
        /// What is done on a loss, and whether that is a fence.
        only_reboot: bool,
        /// It is not, and that was allowed.
        incomplete: bool,
    },
    /// No real fence is possible here, and nothing was begun.
    NoFence {
        /// Why, a line a rung.
        why: Vec<String>,
    },
    /// The driver died and was replaced.
    DriverReplaced,
    /// It is mounted and guarded.
    Guarding,
    /// The driver died before anything was mounted.
    DriverGone,
    /// Protection was lost.
    Fenced {
        /// Why.
        reason: String,
        /// What the ladder did; none if nothing was mounted.
        report: Option<ClimbReport>,
    },
}

/// The first message to a keeper.
#[derive(Debug, Serialize, Deserialize)]
struct Letter {
    task: Task,
    /// The driver that lives already; its socket is the one this came through.
    driver: Option<i32>,
    /// It guards already; the keeper before is gone.
    begun: bool,
    /// It is a thread of the daemon.
    resident: bool,
    /// How well whoever started the keeper is protected himself.
    #[serde(default)]
    starter: Option<Protection>,
}

/// Starts the keeper of a new guard. `front` is what the driver tells its progress through; the keeper's own messages to
/// the one who asked ([`ToFront`]) come through the socket that is given back, whose end ends a guard that has not begun.
///
/// # Errors
/// When it cannot be started.
pub fn start(task: &Task, memory: &Memory, lock: &OwnedFd, front: &OwnedFd) -> io::Result<Link> {
    begin(
        &Letter { task: task.clone(), driver: None, begun: false, resident: false, starter: starter() },
        &[memory.words.descriptor(), lock.as_fd(), front.as_fd()],
    )
}

/// Starts a keeper for the calling process, a driver whose keeper is gone; or for a thread of it, if it is the daemon.
///
/// # Errors
/// As [`start`].
pub fn start_again(
    task: &Task,
    memory: &Memory,
    lock: &OwnedFd,
    resident: bool,
) -> io::Result<(Link, DriverPipe)> {
    let (pipe, theirs) = DriverPipe::new()?;
    let letter =
        Letter { task: task.clone(), driver: Some(our_pid()?), begun: true, resident, starter: starter() };
    let link = begin(&letter, &[memory.words.descriptor(), lock.as_fd(), theirs.as_fd()])?;
    Ok((link, pipe))
}

/// Starts the keeper of a new guard whose driver is a thread of the calling process, the daemon. Beside what that thread
/// begins with: where the keeper's messages to the one who asked come from.
///
/// # Errors
/// As [`start`].
pub fn start_resident(
    task: &Task,
    memory: &Memory,
    lock: OwnedFd,
    front: Link,
) -> io::Result<(Driver, Link)> {
    let (pipe, theirs) = DriverPipe::new()?;
    let (ours, to_front) = Socket::pair()?;
    let to_front = OwnedFd::from(to_front);
    let letter = Letter {
        task: task.clone(),
        driver: Some(our_pid()?),
        begun: false,
        resident: true,
        starter: starter(),
    };
    let descriptors = [memory.words.descriptor(), lock.as_fd(), theirs.as_fd(), to_front.as_fd()];
    let keeper = begin(&letter, &descriptors)?;
    let (task, memory) = (task.clone(), memory.clone());
    let parts =
        Driver { task, memory, lock, keeper, pipe, front: Some(front), adoption: None, resident: true };
    Ok((parts, Link::of(ours)))
}

fn starter() -> Option<Protection> {
    realtime::remembered().cloned()
}

fn our_pid() -> io::Result<i32> {
    i32::try_from(std::process::id()).map_err(io::Error::other)
}

/// One end of what a keeper is talked to through.
#[derive(Debug)]
pub struct Link {
    socket: Socket,
    /// The keeper, if this process started it; reaped when it ends.
    child: Option<std::process::Child>,
}

impl Link {
    /// The end of a socket pair.
    pub(crate) fn of(socket: Socket) -> Self {
        Link { socket, child: None }
    }

    /// Sends a message. Never blocks.
    ///
    /// # Errors
    /// `WouldBlock` when the other side leaves very many unread, `BrokenPipe` when it is gone.
    pub fn send(&self, message: &impl Serialize) -> io::Result<()> {
        self.socket.send_message(message)
    }

    /// The next message, or none at present. Never blocks.
    ///
    /// # Errors
    /// `UnexpectedEof` when the other side is gone and every message was received.
    pub fn receive<T: serde::de::DeserializeOwned>(&self) -> io::Result<Option<T>> {
        self.socket.receive()
    }

    /// The keeper: whom this process started, or else whoever made the socket.
    #[must_use]
    pub fn peer_pid(&self) -> i32 {
        use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
        match &self.child {
            Some(child) => i32::try_from(child.id()).unwrap_or(0),
            None => getsockopt(&self.socket, PeerCredentials).map_or(0, |credentials| credentials.pid()),
        }
    }

    /// Ends the keeper, if it was started here: one that hangs before it has begun.
    pub fn give_up(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
        }
    }

    /// Collects the keeper, if it was started here and has ended. True if there is nothing left to collect.
    pub fn reap(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn begin(letter: &Letter, descriptors: &[BorrowedFd<'_>]) -> io::Result<Link> {
    let (ours, theirs) = Socket::pair()?;
    let mut command = Command::new("/proc/self/exe");
    // At the end of a shutdown systemd kills what is left before it unmounts what is left, but spares root's storage
    // daemons: those whose argv[0] begins so. The driver is forked from this process, and bears the name as well.
    command.arg0("@mmp");
    command.arg(VERB).stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::null());
    let mut link = Link { socket: ours, child: Some(command.spawn()?) };
    let bytes = serde_json::to_vec(letter)?;
    if let Err(error) = passing::send(link.socket.as_fd(), &bytes, descriptors) {
        link.give_up();
        link.child.as_mut().map(std::process::Child::wait);
        return Err(error);
    }
    Ok(link)
}

/// Why a ladder is no fence, a line a rung.
fn why_no_fence(summary: &Summary) -> Vec<String> {
    summary
        .rungs
        .iter()
        .map(|rung| format!("{}: {}", rung.rung, rung.lacks.as_ref().unwrap_or(&rung.what)))
        .collect()
}

/// Whoever is about to unmount it is to know before it is fenced.
fn tell_fencing(slot: &Slot) {
    if let Ok(Some(mut record)) = slot.read() {
        record.phase = crate::registry::Phase::Lost;
        let _ = slot.write(&record);
    }
}

/// What a slot is for in a keeper: its record tells how the guard ended.
fn tell_loss(slot: &Slot, reason: &str, report: Option<&ClimbReport>) {
    use crate::registry::{Lost, Phase};
    if let Ok(Some(mut record)) = slot.read() {
        record.phase = Phase::Lost;
        record.mode = crate::protocol::Mode::Over;
        record.lease_end_ns = None;
        record.lost =
            Some(Lost { reason: reason.to_owned(), at_s: crate::clock::wall().0, fence: report.cloned() });
        let _ = slot.write(&record);
    }
    let _ = std::fs::remove_file(slot.socket());
    let _ = std::fs::remove_file(slot.keeper_socket());
}
