//! What a run came to.

/// Counters that are added up and shown by name.
macro_rules! counters {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $field:ident,)* } $(with $($part:ident: $kind:ident),*)?) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default)]
        pub(crate) struct $name {
            $($(#[$what])* pub(crate) $field: u64,)*
            $($(pub(crate) $part: $kind,)*)?
        }

        impl $name {
            pub(crate) fn add(&mut self, other: &$name) {
                $(self.$field += other.$field;)*
                $($(self.$part.add(&other.$part);)*)?
            }

            /// Those that are not zero.
            pub(crate) fn named(&self) -> Vec<(&'static str, u64)> {
                let mut named = vec![$((stringify!($field), self.$field)),*];
                named.retain(|(_, count)| *count > 0);
                named
            }
        }
    };
}

counters! {
    /// What became of mounts.
    Mounts {
        /// Held, to be handed over clean.
        held,
        /// Passed to the kernel's own beats.
        watched,
        overtaken,
        not_mounted,
        freezes,
        bridged,
        remounts,
        failures,
        resumed,
        unmounts,
        guard_crashes,
        adoptions,
        /// Of these, of what a guard has left.
        left,
    }
}

counters! {
    /// What happened that DESIGN says cannot be promised, by name. Zero unless a profile asks for it.
    Apart {
        /// A host woke with its lease over while another used the device: it may write until its keeper runs.
        woke_beside_user,
        /// Two kernels mounted at once (K1).
        two_kernels,
        /// A clean mark of somebody who stalled or lost its fate landed on a holder.
        late_clean,
        /// A host stalled between the check of the clock and a write. Its stale block, with a smaller check interval, covered
        /// a holder who stalled at that time too, or was a clean mark: takers waited for less than his lease and fence.
        late_write,
        /// The block stood torn after the last fault: native damaged is refused, as the kernel does.
        left_damaged,
        /// A kernel-only host found the clean mark that the kernel of a mounted filesystem had left for a moment.
        clean_window,
        /// A host that mounts took a live block for a dead one's, since the holder's wall clock is behind, and its kernel
        /// found such a mark.
        old_stamp,
        /// A host was struck by a fault while its kernel's clean mark stood over what is mounted: on clean a claim takes one
        /// wait, and leaves none for the fence.
        fault_on_clean,
        /// A mount that was killed while it read the group descriptors found such a mark: the kernel does not wait there, and
        /// so is not interrupted.
        killed_mount,
        /// Two peers, of whom one is an e2fsck, got in at once by their own rules.
        two_peers,
        /// A write that came late covered the mark of an e2fsck at work, which looks once a minute at most.
        mark_covered,
        /// An e2fsck died after the last fault, or before, and nobody cleared its mark: it never expires.
        left_marked,
        /// A clear was forced over a live user, and somebody took clean for leave to mount at once, or an
        /// e2fsck waited for less than the holder looked at it; or it covered an e2fsck's mark.
        forced_clear,
        /// A clear was forced on a host whose wall clock runs ahead: a holder took it for a successor's end.
        clear_ahead,
        /// A holder had not seen his own block for more than a check interval, since another clear had been forced, or for the
        /// sake of a claimer who came over one: the same.
        cleared_again,
        /// A clear was forced on a host that was mounting: its kernel beats under the names that were typed, and is not known.
        clear_in_mount,
        /// A claim over the clean mark that a kernel left for a moment was taken back before the holder had looked: he took that
        /// for a successor's end.
        taken_back,
        /// A filesystem was mounted while its guard could not look, and so without a lease.
        unseen_mount,
        /// Two hosts met, of whom one had slept with its clock stopped.
        double_uses,
        /// One that slept saw a foreign block, took it for a claimer's, and went on.
        sleeper_went_on,
        /// Two that met both stopped: a kernel before Linux 5.10 slept, and went on under the names of one who had taken over, left and
        /// come again since.
        taken_names,
        /// Two that met both stopped: the guard of the one that slept saw the other one, between the beats of its kernel, when that one's
        /// patience was at its end.
        stopped_together,
        /// Of two hosts with one name, one took the other's beats for its own kernel's before that mounted, and then for lost.
        twins,
    }
}

counters! {
    /// What became of e2fscks.
    Fscks {
        worked,
        refused,
        died,
        /// By administrators.
        clears,
        /// Marks that a claim of ours was told to be dead.
        answered,
    }
}

counters! {
    Stats {
        simulated_ns,
        steps,
        held,
        kernel_mounts,
        refused,
        lost,
        released,
        lost_races,
        too_slow,
        intruders,
        /// All that could be left out one by one.
        faults,
        crashes,
        withdrawn,
        vouched,
        stalls,
        /// Claims that brought what a standby had watched, and takeovers whose time was checked.
        credits,
        takeovers,
        /// Writes that landed once more.
        echoes,
        /// Holders that tried to outlive their lease, and those that did.
        second_lives,
        second_lives_kept,
    } with mounts: Mounts, fsck: Fscks, apart: Apart
}

/// What is told of a history.
pub(crate) struct Told {
    /// The check that failed.
    pub(crate) found: Option<String>,
    pub(crate) stats: Stats,
    pub(crate) timeline: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) what: String,
    pub(crate) stats: Stats,
    pub(crate) timeline: Vec<String>,
}
