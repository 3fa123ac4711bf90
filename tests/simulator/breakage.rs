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
}

thread_local! {
    /// A history runs on one thread.
    static BROKEN: Cell<Breakage> = const { Cell::new(Breakage::None) };
}

impl Breakage {
    /// The next history of this thread is run with it.
    pub(crate) fn begin(self) {
        BROKEN.set(self);
    }
}

pub(crate) fn is_broken(what: Breakage) -> bool {
    BROKEN.get() == what
}
