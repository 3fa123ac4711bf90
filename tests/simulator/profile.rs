//! The families of seeds: which hosts, and which faults, a history is made of.

/// A family of seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Two to four hosts, at least one of ours, every fault.
    Faults,
    /// No fault at all: the stated times are checked.
    Calm,
    /// A holder whose I/O hangs again and again, its fence as slow as it may be, and patient claimers without a fault:
    /// takeovers at the very edge of a lease.
    Hangs,
    /// Claimers against a holder of ours that stalls, each time for less than its lease less a beat.
    ShortStalls,
    /// Beyond what is promised: stalls between the check of the clock and a clean mark, of up to a minute.
    LateClean,
    /// As `Hangs`, with hangs of a few seconds and of a minute only, on both sides: takeovers nearer still to the edge.
    Edges,
    /// Kernels alone, with slow writes: they must be found out.
    Kernels,
    /// Kernels alone, which are frozen for longer than they wait (K3): the same.
    KernelFreezes,
    /// Kernels alone, which sleep for longer than they wait (K4): the same.
    KernelSleeps,
    /// As `Faults`, with e2fscks, which may be killed and leave their mark.
    Fscks,
    /// Hosts of every kind and no fault, but administrators who force a clear at any time.
    Clears,
    /// A study: holders that may outlive their lease (`second_life`), whose path hangs again and again, and rivals without
    /// a fault.
    SecondLife,
    /// Hosts of every kind, and one fault.
    OneFault,
    /// Hosts of ours that mount through their kernels, beside all others, and no fault at all: mounts, unmounts and
    /// remounts. The stated times are checked.
    Mounts,
    /// The same, and filesystems are frozen and thawed, and stopped by errors: none of it is a fault.
    MountFreezes,
    /// The same with every fault.
    MountFaults,
    /// A mount whose path and host hang again and again, its fence as slow as it may be, freezes, and patient rivals
    /// without a fault: takeovers at the very edge of a lease.
    MountHangs,
    /// Hosts of ours on a slot of an area, and every fault.
    Areas,
    /// Hosts of ours that stand by, on native blocks and in areas, and every fault; some histories are takeovers alone, of which the stated
    /// time is checked, and some are at the very edge of a lease (`standby`).
    Standby,
    /// Beyond what is promised: a host sleeps with its clocks stopped, and two may meet. How that ends is checked.
    Pauses,
    /// The same among hosts of which some mount through their kernels.
    MountPauses,
}

impl Profile {
    pub(crate) const ALL: [Profile; 21] = [
        Profile::Faults,
        Profile::Calm,
        Profile::Hangs,
        Profile::ShortStalls,
        Profile::LateClean,
        Profile::Edges,
        Profile::Pauses,
        Profile::Kernels,
        Profile::KernelFreezes,
        Profile::KernelSleeps,
        Profile::Fscks,
        Profile::Clears,
        Profile::SecondLife,
        Profile::OneFault,
        Profile::Mounts,
        Profile::MountFreezes,
        Profile::MountFaults,
        Profile::MountHangs,
        Profile::MountPauses,
        Profile::Areas,
        Profile::Standby,
    ];

    /// Shows nothing as long as the rules hold; the others are there to be found out.
    pub(crate) fn must_hold(self) -> bool {
        !self.kernels_alone()
    }

    pub(crate) fn mounts(self) -> bool {
        matches!(
            self,
            Profile::Mounts
                | Profile::MountFreezes
                | Profile::MountFaults
                | Profile::MountHangs
                | Profile::Clears
                | Profile::OneFault
        )
    }

    pub(crate) fn kernels_alone(self) -> bool {
        matches!(self, Profile::Kernels | Profile::KernelFreezes | Profile::KernelSleeps)
    }

    /// Clocks stand still.
    pub(crate) fn pauses(self) -> bool {
        matches!(self, Profile::Pauses | Profile::MountPauses)
    }

    pub(crate) fn has_every_fault(self) -> bool {
        matches!(
            self,
            Profile::Faults | Profile::MountFaults | Profile::Fscks | Profile::Areas | Profile::Standby
        )
    }
}
