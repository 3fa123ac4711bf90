//! What is broken on purpose, one rule at a time, to see whether it is found.
//!
//! Some of it is the simulated driver's or keeper's doing. The rest is in the machines themselves: `tests/teeth` compiles
//! the sources of `mmpguard::protocol` once more, with a `broken!` that asks here; in the library that word is `false`.

use std::cell::Cell;

/// A rule that is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Breakage {
    #[default]
    None,
    /// The driver writes whatever the clock says.
    IgnoresNotAfter,
    /// The cell is extended from the acknowledgement, not from the look.
    LeaseFromAcknowledgement,
    /// Nobody stops the user at the end of the lease.
    NoKeeper,
    /// Time does not pass for a stalled host, as on CLOCK_MONOTONIC in a suspend.
    ClockStops,
    /// Of a mounted filesystem the driver always says that it is mounted and writable.
    NeverAsks,
    /// The bridge's writes are not carried out.
    NoBridge,
    /// The bridge counts on from the kernel's own count.
    NoJump,
    /// A clean block is handed to the kernel without a sequence.
    NoSequence,
    /// While the kernel mounts, what was there at the hand-over is all that the guard gets to see.
    NoLookBeside,
    /// The lease of a kernel's beat runs from the look that saw it, by the C in it.
    LeaseFromSight,
    /// The shutdown ioctl counts as a fence on ext4.
    ShutdownFences,
    /// In a second life a beat counts without having stood.
    UnconfirmedSecondLife,
    /// A claim on clean is held at once.
    NoWaitOnClean,
    /// A block that is not clean is watched for half as long.
    HalfAWatch,
    /// A watch runs from the start of its first look to the end of its last.
    FarEndsOfLooks,
    /// What is not clean is watched for one wait of its own check interval, whatever the claim that follows lasts.
    OneWaitOfTheDead,
    /// A doubtful clean mark is believed.
    BelievesDoubtfulClean,
    /// A write of a claim counts however late it is.
    NoLimit,
    /// Changes in the first silence of a claim are not looked at.
    BlindFirstSilence,
    /// Changes in the second.
    BlindSecondSilence,
    /// A claim stands for a whole wait without a beat.
    NoMiddleBeat,
    /// In place of silence, a beat every interval.
    BeatsInSilence,
    /// Held without the last beat.
    NoLastBeat,
    /// The last beat counts however long what stood before it has stood.
    StandsForever,
    /// The beats of a claim count by one.
    ClaimCounts,
    /// A claimer that loses a race marks the block clean.
    WithdrawsByClean,
    /// Whoever loses a race comes again after the same time as everybody.
    FixedBackOff,
    /// After a write that was late a block is watched for no longer than else.
    NoMinimumWatch,
    /// The lease of a holder's write runs from its acknowledgement.
    LeaseFromAnswer,
    /// Writes that were not acknowledged do not shorten the lease.
    ForgetsUnacknowledged,
    /// An acknowledgement counts also after the end of the lease.
    LateAnswerCounts,
    /// A holder beats whatever stands there.
    BeatsBlindly,
    /// A holder marks the block clean whatever stands there.
    ReleasesBlindly,
    /// A holder looks only when he beats.
    LooksSeldom,
    /// A write that failed counts for nothing once a later one is acknowledged.
    ForgetsStrays,
    /// One who releases marks the block clean over whoever has come.
    ReleasesOverOthers,
    /// A second jump over a holder's block is looked at as long as the first.
    SecondJumpWaits,
    /// A foreign block is looked at for a quarter of the longest interval.
    ShortForeignLook,
    /// One who slept does not stop for that.
    SleptIsNothing,
    /// Stamps that run ahead of the own clock mean nothing to a holder who sees another one count.
    StampsAreNothing,
    /// The lower name stops also for whom it took over from.
    NamesAgainstSleepers,
    /// Of two holders that see each other, both stop.
    NoTieBreak,
    /// The one with the higher name never stops.
    NeverStops,
    /// Every clean mark over a running lease is beaten over.
    CleanIsBeatenOver,
    /// Beats follow each other at the same distance.
    NoJitter,
    /// The kernel is called at once, also upon a block that was just beaten.
    NoBeatBeforeTheCall,
    /// A guard bridges before the kernel's first beat.
    BridgesBeforeTheBeat,
    /// A claim over ours is taken back without waiting for a rival kernel to show itself.
    TakesBackAtOnce,
    /// A remount is handed over under our own lease, though the kernel may write a smaller C.
    HandsOverUnderOurLease,
    /// A clear that is forced during an unmount is taken for the kernel's last word.
    ForcedIsTheLastWord,
    /// What the kernel has mounted is looked at as seldom as we would beat.
    OwnIntervalOverKernels,
    /// A change of the sequence alone is the local kernel's claim, however early.
    AnyClaimIsTheKernels,
    /// The local kernel is never ldiskfs, which waits for less where C is large.
    EveryKernelWaitsLong,
}

thread_local! {
    /// A history runs on one thread.
    static BROKEN: Cell<Breakage> = const { Cell::new(Breakage::None) };
}

impl Breakage {
    /// Those that are in the machines. Not all are found by some family yet: what has no test in `tests/teeth` is there for
    /// the survey.
    pub(crate) const MACHINES: [Breakage; 41] = [
        Breakage::ForgetsStrays,
        Breakage::ReleasesOverOthers,
        Breakage::NoWaitOnClean,
        Breakage::HalfAWatch,
        Breakage::FarEndsOfLooks,
        Breakage::OneWaitOfTheDead,
        Breakage::BelievesDoubtfulClean,
        Breakage::NoLimit,
        Breakage::BlindFirstSilence,
        Breakage::BlindSecondSilence,
        Breakage::NoMiddleBeat,
        Breakage::BeatsInSilence,
        Breakage::NoLastBeat,
        Breakage::StandsForever,
        Breakage::ClaimCounts,
        Breakage::WithdrawsByClean,
        Breakage::FixedBackOff,
        Breakage::NoMinimumWatch,
        Breakage::LeaseFromAnswer,
        Breakage::ForgetsUnacknowledged,
        Breakage::LateAnswerCounts,
        Breakage::BeatsBlindly,
        Breakage::ReleasesBlindly,
        Breakage::LooksSeldom,
        Breakage::SecondJumpWaits,
        Breakage::ShortForeignLook,
        Breakage::SleptIsNothing,
        Breakage::StampsAreNothing,
        Breakage::NamesAgainstSleepers,
        Breakage::NoTieBreak,
        Breakage::NeverStops,
        Breakage::CleanIsBeatenOver,
        Breakage::NoJitter,
        Breakage::NoBeatBeforeTheCall,
        Breakage::BridgesBeforeTheBeat,
        Breakage::TakesBackAtOnce,
        Breakage::HandsOverUnderOurLease,
        Breakage::ForcedIsTheLastWord,
        Breakage::OwnIntervalOverKernels,
        Breakage::AnyClaimIsTheKernels,
        Breakage::EveryKernelWaitsLong,
    ];

    /// The next history of this thread is run with it.
    pub(crate) fn begin(self) {
        BROKEN.set(self);
    }
}

pub(crate) fn is_broken(what: Breakage) -> bool {
    BROKEN.get() == what
}
