//! What waits to happen, and in which order: by time, and at the same time by a number that is drawn for each.

use std::rc::Rc;

use mmpguard::format::Image;

use super::disk::Part;
use super::fsck::FsckAct;
use super::mounted::Act;
use super::peers::PeerAct;
use super::standby::StandbyAct;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    Start,
    Tick,
    /// The I/O of that number is answered.
    Answer(u64),
    /// The driver checks the clock and begins its write.
    Begin(u64),
    /// The write goes out.
    Issue(u64),
    Keeper,
    /// The fence is done.
    UserStopped,
    /// The user ended by himself.
    UserDone,
    Resume,
    Crash,
    Stall,
    /// A read of the kernel's takes its sample.
    KernelSample(u64),
    /// An I/O of the kernel's is answered.
    KernelAnswer(u64),
    /// The kernel's sleep is over.
    KernelWake(u64),
    /// Of the mount, or of the driver, of that number.
    Act(Act, u64),
    GuardStall,
    GuardCrash,
    /// A new driver adopts the mount.
    GuardBack,
    /// The path to the device hangs.
    Outage,
    /// Of a kernel-only host.
    Peer(PeerAct),
    /// Of the I/O, or of the run, of that number.
    Fsck(FsckAct, u64),
    /// Of the claim that began then.
    Withdraw(u64),
    /// A wall clock is set.
    ClockStep,
    /// An administrator's, over the mark of a dead e2fsck or over anything.
    Clear {
        dead_mark: bool,
    },
    /// Of a second life, and of the I/O of that number.
    SecondLook(u64),
    SecondLookDue(u64),
    SecondWritten(u64),
    SecondLifeEnds(u64),
    Land(Rc<Image>, Part),
    LandEntry(Rc<Image>),
    /// Of the look of that number.
    Standby(StandbyAct, u64),
    /// A write that landed before lands once more, until then.
    Echo(Rc<Image>, u64),
}

pub(crate) struct Entry {
    pub(crate) at: u64,
    pub(crate) tie: u64,
    pub(crate) host: usize,
    /// The incarnation that it is for.
    pub(crate) epoch: u32,
    pub(crate) what: What,
}

/// Only the guard's own process could do it.
pub(crate) fn is_the_drivers(what: &What) -> bool {
    match what {
        What::Start | What::Tick | What::Withdraw(_) | What::Answer(_) | What::Begin(_) | What::Issue(_) => {
            true
        }
        What::Act(act, _) => act.is_the_drivers(),
        _ => false,
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.tie) == (other.at, other.tie)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.tie).cmp(&(other.at, other.tie))
    }
}
