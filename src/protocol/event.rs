//! What the protocol tells the outside: events on the way, a refusal or a loss at the end.

use std::time::Duration;

use serde::Serialize;

use crate::clock::{Mono, Wall};
use crate::format::{Damage, DeviceName, MmpBlock, NodeName};

/// What the block says of the one who wrote it last. A kernel claimer writes its names only when `kmmpd` starts:
/// until then they are the *previous* holder's (Linux `fs/ext4/mmp.c`), so texts say "last named".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// `mmp_nodename`.
    pub node: NodeName,
    /// `mmp_bdevname`.
    pub device: DeviceName,
    /// `mmp_time`, seconds since 1970 by the writer's clock.
    pub last_update: Wall,
    /// `mmp_check_interval`, in seconds.
    pub check_interval_s: u16,
    /// `mmp_seq`.
    pub seq: u32,
}

impl From<&MmpBlock> for Peer {
    fn from(block: &MmpBlock) -> Self {
        Peer {
            node: block.node,
            device: block.device,
            last_update: Wall(block.time_s),
            check_interval_s: block.check_interval_s,
            seq: block.seq,
        }
    }
}

/// Why a claim ended without the device. Nothing of the peer's was overwritten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "refusal")]
pub enum Refusal {
    /// The block changed while it was watched: somebody beats or claims.
    InUse {
        /// Who, as far as the block says.
        by: Peer,
        /// Seen changing so long after the watch began.
        after: Duration,
    },
    /// e2fsck's mark (`EXT4_MMP_SEQ_FSCK`). No watching proves an e2fsck dead.
    Fsck {
        /// Who ran it.
        by: Peer,
    },
    /// The block does not decode, also when read again.
    Damaged {
        /// What is wrong with it.
        damage: Damage,
    },
    /// A sequence that has no meaning (between the marks, or above *clean*).
    UnknownSequence {
        /// The value found.
        seq: u32,
    },
    /// A filesystem that is mounted here, and whose kernel does not beat: frozen, or stopped.
    NoBeat {
        /// Whom the block names.
        by: Peer,
    },
    /// The superblock changed under the watch or the claim.
    Changed {
        /// What differs.
        what: String,
        /// What that means.
        change: Change,
    },
    /// Reading or writing failed.
    Io {
        /// What was tried and what the system said, without the path.
        what: String,
        /// Of which kind that is.
        kind: FailureKind,
    },
    /// The one who asked gave up.
    Withdrawn {
        /// Our claim stands in the block: the next claimer has to watch it out.
        claim_left_standing: bool,
    },
}

impl Refusal {
    /// Whom the block names, if that is why.
    #[must_use]
    pub fn peer(&self) -> Option<&Peer> {
        match self {
            Refusal::InUse { by, .. } | Refusal::Fsck { by } | Refusal::NoBeat { by } => Some(by),
            Refusal::Damaged { .. }
            | Refusal::UnknownSequence { .. }
            | Refusal::Changed { .. }
            | Refusal::Io { .. }
            | Refusal::Withdrawn { .. } => None,
        }
    }
}

/// What a superblock that changed under a claim means for the one who claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It cannot be right any more.
    Damaged,
    /// Nothing to claim: MMP was switched off, or another filesystem was made.
    Gone,
    /// The same filesystem with other settings: the next try goes by those.
    Settings,
}

/// What failed when reading or writing did, as far as it is acted upon differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The system refused the operation.
    System,
    /// The device ends before the block does.
    TooShort,
    /// This device or this kernel cannot do it.
    Unsupported,
}

/// Why protection ended. Whoever hears this must stop using the device at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "loss")]
pub enum Loss {
    /// No write was acknowledged for a lease: the device hung, or we did.
    LeaseExpired,
    /// Another host's beats stand in the block.
    Stolen {
        /// Who.
        by: Peer,
        /// Which rule made us the loser.
        because: LoserRule,
    },
    /// e2fsck's mark stands in the block: it passed its whole wait.
    Fsck {
        /// Who.
        by: Peer,
    },
    /// Somebody else's clean mark: he came, worked and left while we did not look.
    ForeignClean {
        /// Who.
        by: Peer,
    },
    /// A sequence without a meaning, or a block that keeps changing without ever decoding.
    Unreadable,
    /// The keeper, or whoever else shares the lease cell, declared it lost.
    CellLost,
    /// The kernel has mounted, or was to, and its first beat did not come in time.
    NoKernelBeat,
}

/// How two holders decide which of them stops (DESIGN: *A foreign block while holding*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoserRule {
    /// Our own beats had a gap longer than the check interval: we slept.
    Slept,
    /// The other's stamp runs ahead of our wall clock by more than the check interval: our clock stood still.
    ClockStoodStill,
    /// Ours is the lower (node, device): we stop at once.
    LowerName,
    /// The other went on after his time to stop: we stop too.
    OtherDidNotStop,
    /// Both carry the same names: both stop.
    EqualNames,
    /// His generation is not lower than ours: he took over.
    Generation,
}

/// What happens on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// The block is not clean: it is watched before anything is written.
    Watching {
        /// Whom it names.
        of: Peer,
        /// If nothing changes, the watch ends then.
        until: Mono,
        /// Length of the whole watch.
        total: Duration,
    },
    /// Somebody is there; the claimer was told to be patient and waits for him to leave.
    Waiting {
        /// Who.
        of: Peer,
        /// When patience ends.
        patience_until: Mono,
    },
    /// It is used on this very host; the claimer was told to be patient and has not begun.
    WaitingHere {
        /// By whom and where, one text each.
        users: Vec<String>,
        /// When patience ends.
        patience_until: Mono,
    },
    /// Our claim stands in the block and is watched.
    Claiming {
        /// If nothing changes, the device is ours then.
        until: Mono,
        /// Length of both watches together.
        total: Duration,
    },
    /// Another claimer was faster.
    LostRace {
        /// Whom the block names now.
        to: Peer,
        /// The next look is taken then.
        retry_at: Mono,
    },
    /// A write of the claim took too long to count; the claim starts again with a longer check interval.
    TooSlow {
        /// From the look to the acknowledgement.
        took: Duration,
        /// The most that counts.
        limit: Duration,
        /// The check interval of the next try, in seconds.
        check_interval_s: u16,
    },
    /// The device is ours.
    Held {
        /// End of the first lease.
        lease_end: Mono,
        /// What stands in the block.
        as_peer: Peer,
    },
    /// The block is ready for the local kernel to mount the device (or to make a read-only mount writable). To be
    /// followed by [`Input::MountEnded`](super::Input::MountEnded).
    HandedOver {
        /// How long the kernel waits before it has mounted; zero on a clean block.
        wait: Duration,
        /// Whom the block named, if it was not clean.
        predecessor: Option<Peer>,
    },
    /// After the hand-over the block changed, and it was not the local kernel: whatever tries to mount has to be stopped.
    Overtaken {
        /// Why the mount has to end; none if the other one has just left cleanly, so that it may be tried again.
        refusal: Option<Refusal>,
    },
    /// The local kernel's first own beat was seen: from here on the device is protected by it, and we watch.
    KernelBeats {
        /// End of the first lease.
        lease_end: Mono,
        /// What stands in the block.
        as_peer: Peer,
    },
    /// The kernel's beats have stopped while its filesystem is mounted (frozen, mostly): we beat in its stead.
    Bridging {
        /// No beat of the kernel's was seen for so long.
        silent: Duration,
    },
    /// The kernel beats again.
    BridgeEnded,
    /// The kernel has given its protection up, and its filesystem is still there: from here on we beat.
    Resumed {
        /// What the kernel did.
        why: Resumption,
    },
    /// The kernel's filesystem is gone, and so is our business: the kernel has left the block as it should. Always the
    /// last event.
    Unmounted,
    /// After the hand-over nothing was mounted. Always the last event.
    NotMounted {
        /// What stands in the block.
        standing: Standing,
        /// Who was in the way, if that is why.
        refusal: Option<Refusal>,
    },
    /// A claimer wrote over our beat; we beat over it.
    Intruder {
        /// Who.
        by: Peer,
    },
    /// Another host holds the device, too, and is the one to stop. We beat over it, so that it sees us; if it does not stop
    /// all the same, we do.
    Contested {
        /// Who.
        by: Peer,
    },
    /// While we released, somebody else's live block stood over ours: it is left there. [`Event::Released`] follows.
    LeftToOthers {
        /// Who.
        by: Peer,
    },
    /// A clean mark stood over our live block (a forced clear); we beat over it.
    Cleared {
        /// Whom the mark names.
        by: Peer,
    },
    /// The block stood damaged (a torn write of somebody's); we wrote it anew.
    Repaired,
    /// A read or a write failed while holding; it is tried again as long as the lease lasts.
    IoTrouble {
        /// What was tried and what the system said.
        what: String,
        /// What is left.
        lease_end: Mono,
    },
    /// Protection ended. Always the last event.
    Lost {
        /// Why.
        loss: Loss,
        /// When it was found.
        at: Mono,
    },
    /// The claim ended without the device. Always the last event.
    Refused {
        /// Why.
        refusal: Refusal,
    },
    /// Only watched, as asked, and nothing stirred. Always the last event.
    Watched {
        /// What that showed.
        verdict: Quiet,
    },
    /// The clean mark is on the disk, or somebody claims over it already, or over what stood before it. Always the last event.
    Released,
}

/// Why we beat a block that the kernel beat before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resumption {
    /// It was remounted read-only.
    ReadOnly,
    /// The kernel stopped it after an error, or it was shut down: dirty blocks may follow until it is unmounted.
    Stopped,
    /// It was unmounted, and the block does not say so.
    Unmounted,
    /// The mount failed, and the claim made for it is taken back.
    NotMounted,
}

/// What a mount that came to nothing left in the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The clean mark.
    Clean,
    /// What stood there before we came.
    AsBefore,
    /// A claim of this host's: whoever comes next has to watch it out.
    Claim,
    /// Somebody else's.
    Others,
}

/// What a watch without a claim found, when nothing stirred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "quiet")]
pub enum Quiet {
    /// The clean mark.
    Clean {
        /// Who left it.
        by: Peer,
    },
    /// A live sequence that stood still for a whole watch.
    Dead {
        /// Whose it was.
        was: Peer,
        /// How long it stood still.
        unchanged: Duration,
    },
}
