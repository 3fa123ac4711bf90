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
    /// A claim on clean is held at once.
    NoWaitOnClean,
    /// A block that is not clean is watched for half as long.
    HalfAWatch,
    /// What is not clean is watched for one wait of its own check interval, whatever the claim that follows lasts.
    OneWaitOfTheDead,
    /// A doubtful clean mark is believed.
    BelievesDoubtfulClean,
    /// One who is vouched to be dead is watched for less than his beat takes.
    LooksForLessThanABeat,
    /// A write of a claim counts however late it is.
    NoLimit,
    /// Changes in the first silence of a claim are not looked at.
    BlindFirstSilence,
    /// Changes in the second.
    BlindSecondSilence,
    /// A claim stands for a whole wait without a beat.
    NoMiddleBeat,
    /// Held without the last beat.
    NoLastBeat,
    /// The beats of a claim count by one.
    ClaimCounts,
    /// A claimer that loses a race marks the block clean.
    WithdrawsByClean,
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
    /// One who releases marks the block clean over whoever has come.
    ReleasesOverOthers,
    /// A second jump over a holder's block is looked at as long as the first.
    SecondJumpWaits,
    /// The one with the higher name never stops.
    NeverStops,
    /// A kernel that slept and goes on under our names is taken for a host that shares them.
    TakenNamesAreATwins,
    /// In an area a clean mark is believed although a later generation was given away.
    BelievesOldMarks,
    /// The next generation is one more than the block's, whatever the entry says.
    GenerationFromTheBlock,
    /// In an area a damaged block is claimed at once.
    DamagedIsFree,
    /// The generation that a claim draws is not written into the entry.
    EntryIsNotWritten,
    /// The generation that a claim draws counts however late the entry is written.
    LateEntryCounts,
    /// A clean mark that is watched may be looked at as seldom as it comes.
    MarksAreSeldomSeen,
    /// A claim that is given up is taken back in an area, too.
    TakesBackInAreas,
    /// In an area a clean mark of whoever came before stops a holder.
    LateMarksStopHolders,
    /// In an area a claimer with a later generation stops a holder.
    ClaimersAreSuccessors,
    /// In an area a late beat of whoever came before stops a holder.
    LateBeatsAreSuccessors,
    /// Who takes a dead guard's place counts a lease from his own first look.
    LeaseFromSuccession,
    /// What is answered for is claimed whatever stands there by then.
    AnswersForAnyBytes,
    /// A standby's watch counts whatever it was that it watched.
    CreditForOtherBytes,
    /// A standby's watch counts however far apart its looks were.
    CreditOverAHole,
    /// Every clean mark over a running lease is beaten over.
    CleanIsBeatenOver,
    /// The kernel is called at once, also upon a block that was just beaten.
    NoBeatBeforeTheCall,
    /// A guard bridges before the kernel's first beat.
    BridgesBeforeTheBeat,
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
    /// Those that are in the machines. The survey goes through them.
    pub(crate) const MACHINES: [Breakage; 43] = [
        Breakage::ReleasesOverOthers,
        Breakage::NoWaitOnClean,
        Breakage::HalfAWatch,
        Breakage::OneWaitOfTheDead,
        Breakage::BelievesDoubtfulClean,
        Breakage::LooksForLessThanABeat,
        Breakage::NoLimit,
        Breakage::BlindFirstSilence,
        Breakage::BlindSecondSilence,
        Breakage::NoMiddleBeat,
        Breakage::NoLastBeat,
        Breakage::ClaimCounts,
        Breakage::WithdrawsByClean,
        Breakage::LeaseFromAnswer,
        Breakage::ForgetsUnacknowledged,
        Breakage::LateAnswerCounts,
        Breakage::BeatsBlindly,
        Breakage::ReleasesBlindly,
        Breakage::LooksSeldom,
        Breakage::SecondJumpWaits,
        Breakage::NeverStops,
        Breakage::TakenNamesAreATwins,
        Breakage::BelievesOldMarks,
        Breakage::GenerationFromTheBlock,
        Breakage::DamagedIsFree,
        Breakage::AnswersForAnyBytes,
        Breakage::EntryIsNotWritten,
        Breakage::LateEntryCounts,
        Breakage::MarksAreSeldomSeen,
        Breakage::TakesBackInAreas,
        Breakage::LateMarksStopHolders,
        Breakage::ClaimersAreSuccessors,
        Breakage::LateBeatsAreSuccessors,
        Breakage::LeaseFromSuccession,
        Breakage::CreditForOtherBytes,
        Breakage::CreditOverAHole,
        Breakage::CleanIsBeatenOver,
        Breakage::NoBeatBeforeTheCall,
        Breakage::BridgesBeforeTheBeat,
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
