//! [`Guard`]: one device, from the first look to the release, as a sans-IO machine. Time is an argument, bytes come
//! in, actions come out; the thread driver, the simulator and the model checker drive this same type.
//!
//! How to drive it: call [`Guard::poll`] until it gives nothing, carrying out each [`Output`] and handing its answer
//! to [`Guard::handle`] with the time at which it came; then sleep until [`Guard::deadline`] and hand in
//! [`Input::Tick`]. At most one I/O is under way at a time. After the last event ([`Guard::is_over`]) nothing is asked
//! for any more.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

use super::claim::{Claim, Progress};
use super::event::{Event, FailureKind};
use super::hold::{Ended, Hold};
use super::medium::Medium;
pub use super::mode::Mode;
use super::standby::Credit;
use super::timing;
use super::watch::{Adoption, Watch, Watched};
use crate::clock::{Mono, Now};
use crate::format::{Image, NodeName};

/// How a guard is to behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardOptions {
    /// U: how often we beat, [`timing::MIN_INTERVAL`] to [`timing::MAX_INTERVAL`].
    pub interval: Duration,
    /// The smallest check interval to write, in seconds; 0 for none. See [`timing::check_interval_for`].
    pub check_interval_floor_s: u16,
    /// Until then a claim waits for whoever is there to leave, instead of being refused.
    pub patience_until: Option<Mono>,
    /// Only watch: never write, end with [`Event::Watched`] or [`Event::Refused`].
    pub watch_only: bool,
    /// The local kernel is to mount the device and waits for itself: the claim ends with [`Event::HandedOver`]
    /// instead of [`Event::Held`]. A clean block is given a sequence first, so that the kernel has to wait.
    pub kernel_waits: bool,
    /// With `kernel_waits`: somebody was just seen beating. The block has to stand still for one of his beats before
    /// the kernel is tried again, however old its stamp is; a fresh one is watched for that long in any case.
    pub seen_live: bool,
    /// The one who asks vouches that this node is dead. A block that names it, and stands still, is watched for one beat
    /// only; the vouch is for the very bytes that the first look shows, and void when they change.
    pub fenced: Option<NodeName>,
}

impl Default for GuardOptions {
    fn default() -> Self {
        GuardOptions {
            interval: timing::DEFAULT_INTERVAL,
            check_interval_floor_s: 0,
            patience_until: None,
            watch_only: false,
            kernel_waits: false,
            seen_live: false,
            fenced: None,
        }
    }
}

/// What this host's kernel does with a filesystem on the device. A guard asks for it before it judges anything foreign
/// or clean on a device that the kernel has mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Mounted somewhere, and may write. Also what is said when it cannot be found out.
    ReadWrite,
    /// Mounted, and remounted read-only: `kmmpd` has stopped.
    ReadOnly,
    /// Mounted, but the kernel has stopped it after an error, or was told to shut it down: `kmmpd` has stopped, and
    /// dirty blocks may follow.
    Stopped,
    /// Claimed exclusively, and no filesystem is seen any more: an unmount is under way, or another use began.
    Ending,
    /// Nothing in the kernel claims the device.
    Gone,
}

/// A failed I/O.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    /// What was tried and what the system said, without the path.
    pub what: &'a str,
    /// Of which kind that is.
    pub kind: FailureKind,
}

/// What comes in.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The deadline has come (or just time passed).
    Tick,
    /// The answer to [`Output::Read`].
    Read(Result<&'a Image, Failure<'a>>),
    /// The answer to [`Output::Superblock`].
    Superblock(Result<&'a [u8; 1024], Failure<'a>>),
    /// The answer to [`Output::Entry`].
    Entry(Result<&'a Image, Failure<'a>>),
    /// The answer to [`Output::WriteEntry`].
    EntryWritten(Result<(), Failure<'a>>),
    /// The answer to [`Output::Write`].
    Written(Result<(), Failure<'a>>),
    /// [`Output::Write`] was not carried out, because its time had passed.
    NotWritten,
    /// Nothing uses the device any more and its caches are flushed: write the clean mark.
    Release,
    /// Give up a claim that is not yet held. Holding guards ignore it.
    Withdraw,
    /// While held: the kernel is about to mount the device, or to make a read-only mount of it writable. The block is
    /// marked clean, so that the kernel need not wait; [`Event::HandedOver`] follows.
    HandOver {
        /// It is mounted (read-only) already: the lease goes on for that. Otherwise nothing is protected until the
        /// kernel beats.
        mounted: bool,
    },
    /// After [`Event::HandedOver`]: whatever tried to mount has ended. What came of it is found out from the kernel.
    MountEnded {
        /// It was killed. What ends by itself and has mounted nothing was refused by the kernel's own check, and then a
        /// claim that stands in the block is a rival's.
        killed: bool,
    },
    /// The answer to [`Output::Activity`].
    Activity(Activity),
    /// Whoever shares the lease cell declared it lost.
    CellLost,
}

/// A write to carry out: the whole struct, in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// The bytes.
    pub image: Image,
    /// It must be on stable storage when it is acknowledged (claims and clean marks).
    pub durable: bool,
    /// Not to be begun after this; answer [`Input::NotWritten`] instead.
    pub not_after: Mono,
}

/// What comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // a box would be an allocation per beat
pub enum Output {
    /// Read the struct.
    Read,
    /// Read the superblock, from the disk; of an area its header.
    Superblock,
    /// Read the slot's entry. In areas alone.
    Entry,
    /// Write the slot's entry, durably.
    WriteEntry(Write),
    /// Write the struct.
    Write(Write),
    /// Find out what the kernel does with the device.
    Activity,
    /// Tell whoever listens.
    Event(Event),
}

/// One device under protection, or on the way there.
#[derive(Clone, Debug)]
pub struct Guard {
    context: Context,
    phase: Phase,
}

/// What both machines share.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) medium: Medium,
    pub(super) options: GuardOptions,
    pub(super) rng: fastrand::Rng,
    /// What to do, in order.
    outputs: VecDeque<Queued>,
    /// The write among them: there is never more than one.
    write: Option<Write>,
}

#[derive(Clone, Debug)]
enum Queued {
    Read,
    Superblock,
    Entry,
    WriteEntry,
    Write,
    Activity,
    Event(Event),
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // one a device; almost all of them hold or watch
enum Phase {
    Claim(Claim),
    Hold(Hold),
    Watch(Watch),
    Over,
}

impl Guard {
    /// Begins a claim. In an area its own interval counts, not that of the options. `seed` must differ between hosts and between claims: it picks the sequences and the back-off.
    ///
    /// # Panics
    /// If the interval is out of its range.
    #[must_use]
    pub fn new(medium: Medium, options: GuardOptions, seed: u64, now: Now) -> Self {
        assert!(
            (timing::MIN_INTERVAL..=timing::MAX_INTERVAL).contains(&options.interval),
            "the caller checks the interval"
        );
        let rng = fastrand::Rng::with_seed(seed);
        // No kernel beats in an area: nothing is handed over to one there.
        let kernel_waits = options.kernel_waits && medium.interval().is_none();
        let interval = medium.interval().unwrap_or(options.interval);
        let options = GuardOptions { interval, kernel_waits, ..options };
        let mut context = Context { medium, options, rng, outputs: VecDeque::with_capacity(8), write: None };
        let claim = Claim::new(now, &mut context);
        Guard { context, phase: Phase::Claim(claim) }
    }

    /// Counts what a standby of this host has watched of this block, if the first look shows the same. To be said at once, before
    /// anything is polled.
    #[must_use]
    pub fn with_credit(mut self, credit: Credit) -> Self {
        if let Phase::Claim(claim) = &mut self.phase {
            claim.count(credit);
        }
        self
    }

    /// Claims what would be refused: e2fsck's mark, a sequence without a meaning, or what is no MMP block, if the first look shows
    /// `seen`, to the byte. The one who asks has seen it, and answers for nobody being behind it; it is watched as if somebody were, and
    /// any other bytes are judged as ever. Natively alone: a damaged slot of an area has ways of its own. To be said at once, before
    /// anything is polled.
    #[must_use]
    pub fn answering_for(mut self, seen: Image) -> Self {
        if let (Phase::Claim(claim), None) = (&mut self.phase, self.context.medium.interval()) {
            claim.answer_for(seen);
        }
        self
    }

    /// Begins to watch a filesystem that the kernel has mounted here, and beats already. In an area, where no kernel beats: goes on with
    /// what a guard of this host's has left, who has died while he held.
    ///
    /// # Panics
    /// As [`Guard::new`]; and in an area if nothing was left, or a guard that did not beat.
    #[must_use]
    pub fn adopt(medium: Medium, options: GuardOptions, adoption: Adoption, seed: u64, now: Now) -> Self {
        let mut guard = Guard::new(medium, options, seed, now);
        guard.context.outputs.clear();
        guard.phase = Phase::Watch(Watch::adopting(now, adoption, &mut guard.context));
        guard
    }

    /// Takes an input. Everything that follows from it is fetched with [`Guard::poll`].
    pub fn handle(&mut self, now: Now, input: Input<'_>) {
        let context = &mut self.context;
        let next = match &mut self.phase {
            Phase::Claim(claim) => match claim.handle(now, input, context) {
                Progress::Going => None,
                Progress::Held(hold) => Some(Phase::Hold(hold)),
                Progress::HandedOver(watch) => Some(Phase::Watch(watch)),
                Progress::Over => Some(Phase::Over),
            },
            Phase::Hold(hold) => match hold.handle(now, input, context) {
                ControlFlow::Continue(()) => None,
                ControlFlow::Break(Ended::HandedOver(watch)) => Some(Phase::Watch(watch)),
                ControlFlow::Break(Ended::Over) => Some(Phase::Over),
            },
            Phase::Watch(watch) => match watch.handle(now, input, context) {
                ControlFlow::Continue(()) => None,
                ControlFlow::Break(Watched::WeBeat(hold)) => Some(Phase::Hold(hold)),
                ControlFlow::Break(Watched::Over) => Some(Phase::Over),
            },
            Phase::Over => None,
        };
        if let Some(next) = next {
            self.phase = next;
        }
    }

    /// The next thing to do, if there is one.
    pub fn poll(&mut self) -> Option<Output> {
        Some(match self.context.outputs.pop_front()? {
            Queued::Read => Output::Read,
            Queued::Superblock => Output::Superblock,
            Queued::Entry => Output::Entry,
            Queued::WriteEntry => Output::WriteEntry(self.context.write.take()?),
            Queued::Write => Output::Write(self.context.write.take()?),
            Queued::Activity => Output::Activity,
            Queued::Event(event) => Output::Event(event),
        })
    }

    /// When [`Input::Tick`] is due. While holding never later than the end of the lease.
    #[must_use]
    pub fn deadline(&self) -> Mono {
        match &self.phase {
            Phase::Claim(claim) => claim.deadline(),
            Phase::Hold(hold) => hold.deadline(),
            Phase::Watch(watch) => watch.deadline(),
            Phase::Over => Mono::FAR,
        }
    }

    /// The end of the lease; none unless the device is protected, by our beats or by the kernel's.
    #[must_use]
    pub fn lease_end(&self) -> Option<Mono> {
        match &self.phase {
            Phase::Hold(hold) => hold.lease_end(),
            Phase::Watch(watch) => watch.lease_end(),
            Phase::Claim(_) | Phase::Over => None,
        }
    }

    /// Who beats.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match &self.phase {
            Phase::Claim(_) => Mode::Claiming,
            Phase::Hold(_) => Mode::Beating,
            Phase::Watch(watch) => watch.mode(),
            Phase::Over => Mode::Over,
        }
    }

    /// We beat, or are about to in the place of a guard that has died while it did: who comes after us goes on with that.
    #[must_use]
    pub fn is_beating(&self) -> bool {
        match &self.phase {
            Phase::Hold(_) => true,
            Phase::Watch(watch) => watch.succeeds_a_holder(),
            Phase::Claim(_) | Phase::Over => false,
        }
    }

    /// The number of this acquisition, which grows with each; only in areas, and once it was drawn.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        self.context.medium.generation()
    }

    /// How far the kernel has counted, and when that was seen; none unless its beats are watched.
    #[must_use]
    pub fn kernel_counted(&self) -> Option<(Mono, u32)> {
        match &self.phase {
            Phase::Watch(watch) => watch.counted(),
            Phase::Claim(_) | Phase::Hold(_) | Phase::Over => None,
        }
    }

    /// True after the last event.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }
}

impl Context {
    pub(super) fn read(&mut self) {
        self.outputs.push_back(Queued::Read);
    }

    pub(super) fn superblock(&mut self) {
        self.outputs.push_back(Queued::Superblock);
    }

    pub(super) fn entry(&mut self) {
        self.outputs.push_back(Queued::Entry);
    }

    pub(super) fn write_entry(&mut self, write: Write) {
        assert!(!self.options.watch_only, "a watcher never writes");
        self.write = Some(write);
        self.outputs.push_back(Queued::WriteEntry);
    }

    pub(super) fn write(&mut self, write: Write) {
        assert!(!self.options.watch_only, "a watcher never writes");
        self.write = Some(write);
        self.outputs.push_back(Queued::Write);
    }

    pub(super) fn activity(&mut self) {
        self.outputs.push_back(Queued::Activity);
    }

    pub(super) fn event(&mut self, event: Event) {
        self.outputs.push_back(Queued::Event(event));
    }
}
