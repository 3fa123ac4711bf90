//! What a run came to.

/// What became of mounts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mounts {
    /// Held, to be handed over clean.
    pub(crate) held: u64,
    /// Passed to the kernel's own beats.
    pub(crate) watched: u64,
    pub(crate) overtaken: u64,
    pub(crate) not_mounted: u64,
    pub(crate) freezes: u64,
    pub(crate) bridged: u64,
    pub(crate) remounts: u64,
    pub(crate) failures: u64,
    pub(crate) resumed: u64,
    pub(crate) unmounts: u64,
    pub(crate) guard_crashes: u64,
    pub(crate) adoptions: u64,
    /// Of these, of what a guard has left.
    pub(crate) left: u64,
}

/// What happened that DESIGN says cannot be promised, by name. Zero unless a profile asks for it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Apart {
    /// A host woke with its lease over while another used the device: it may write until its keeper runs.
    pub(crate) woke_beside_user: u64,
    /// Two kernels mounted at once (K1).
    pub(crate) two_kernels: u64,
    /// A clean mark of somebody who stalled or lost its fate landed on a holder.
    pub(crate) late_clean: u64,
    /// A host stalled between the check of the clock and a write. Its stale block, with a smaller check interval, covered
    /// a holder who stalled at that time too: takers waited for less than his lease and fence.
    pub(crate) late_write: u64,
    /// The block stood torn after the last fault: native damaged is refused, as the kernel does.
    pub(crate) left_damaged: u64,
    /// A kernel-only host found the clean mark that the kernel of a mounted filesystem had left for a moment.
    pub(crate) clean_window: u64,
    /// A host that mounts took a live block for a dead one's, since the holder's wall clock is behind, and its kernel
    /// found such a mark.
    pub(crate) old_stamp: u64,
    /// A host was struck by a fault while its kernel's clean mark stood over what is mounted: on clean a claim takes one
    /// wait, and leaves none for the fence.
    pub(crate) fault_on_clean: u64,
    /// A mount that was killed while it read the group descriptors found such a mark: the kernel does not wait there, and
    /// so is not interrupted.
    pub(crate) killed_mount: u64,
    /// Two peers, of whom one is an e2fsck, got in at once by their own rules.
    pub(crate) two_peers: u64,
    /// A write that came late covered the mark of an e2fsck at work, which looks once a minute at most.
    pub(crate) mark_covered: u64,
    /// An e2fsck died after the last fault, or before, and nobody cleared its mark: it never expires.
    pub(crate) left_marked: u64,
    /// A clear was forced over a live user, and somebody took clean for leave to mount at once, or an
    /// e2fsck waited for less than the holder looked at it; or it covered an e2fsck's mark.
    pub(crate) forced_clear: u64,
    /// A clear was forced on a host whose wall clock runs ahead: a holder took it for a successor's end.
    pub(crate) clear_ahead: u64,
    /// A holder had not seen his own block for more than a check interval, since another clear had been forced, or for the
    /// sake of a claimer who came over one: the same.
    pub(crate) cleared_again: u64,
    /// A clear was forced on a host that was mounting: its kernel beats under the names that were typed, and is not known.
    pub(crate) clear_in_mount: u64,
    /// A claim over the clean mark that a kernel left for a moment was taken back before the holder had looked: he took that
    /// for a successor's end.
    pub(crate) taken_back: u64,
    /// A filesystem was mounted while its guard could not look, and so without a lease.
    pub(crate) unseen_mount: u64,
}

/// What became of e2fscks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fscks {
    pub(crate) worked: u64,
    pub(crate) refused: u64,
    pub(crate) died: u64,
    /// By administrators.
    pub(crate) clears: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stats {
    pub(crate) simulated_ns: u64,
    pub(crate) steps: u64,
    pub(crate) held: u64,
    pub(crate) kernel_mounts: u64,
    pub(crate) refused: u64,
    pub(crate) lost: u64,
    pub(crate) released: u64,
    pub(crate) lost_races: u64,
    pub(crate) too_slow: u64,
    pub(crate) intruders: u64,
    pub(crate) crashes: u64,
    pub(crate) withdrawn: u64,
    pub(crate) vouched: u64,
    pub(crate) stalls: u64,
    pub(crate) mounts: Mounts,
    pub(crate) fsck: Fscks,
    pub(crate) apart: Apart,
}

impl Stats {
    pub(crate) fn add(&mut self, other: &Stats) {
        let pairs = [
            (&mut self.simulated_ns, other.simulated_ns),
            (&mut self.steps, other.steps),
            (&mut self.held, other.held),
            (&mut self.kernel_mounts, other.kernel_mounts),
            (&mut self.refused, other.refused),
            (&mut self.lost, other.lost),
            (&mut self.released, other.released),
            (&mut self.lost_races, other.lost_races),
            (&mut self.too_slow, other.too_slow),
            (&mut self.intruders, other.intruders),
            (&mut self.crashes, other.crashes),
            (&mut self.withdrawn, other.withdrawn),
            (&mut self.vouched, other.vouched),
            (&mut self.stalls, other.stalls),
            (&mut self.mounts.held, other.mounts.held),
            (&mut self.mounts.watched, other.mounts.watched),
            (&mut self.mounts.overtaken, other.mounts.overtaken),
            (&mut self.mounts.not_mounted, other.mounts.not_mounted),
            (&mut self.mounts.freezes, other.mounts.freezes),
            (&mut self.mounts.bridged, other.mounts.bridged),
            (&mut self.mounts.remounts, other.mounts.remounts),
            (&mut self.mounts.failures, other.mounts.failures),
            (&mut self.mounts.resumed, other.mounts.resumed),
            (&mut self.mounts.unmounts, other.mounts.unmounts),
            (&mut self.mounts.guard_crashes, other.mounts.guard_crashes),
            (&mut self.mounts.left, other.mounts.left),
            (&mut self.mounts.adoptions, other.mounts.adoptions),
            (&mut self.fsck.worked, other.fsck.worked),
            (&mut self.fsck.refused, other.fsck.refused),
            (&mut self.fsck.died, other.fsck.died),
            (&mut self.fsck.clears, other.fsck.clears),
            (&mut self.apart.two_peers, other.apart.two_peers),
            (&mut self.apart.mark_covered, other.apart.mark_covered),
            (&mut self.apart.left_marked, other.apart.left_marked),
            (&mut self.apart.forced_clear, other.apart.forced_clear),
            (&mut self.apart.clear_ahead, other.apart.clear_ahead),
            (&mut self.apart.cleared_again, other.apart.cleared_again),
            (&mut self.apart.clear_in_mount, other.apart.clear_in_mount),
            (&mut self.apart.taken_back, other.apart.taken_back),
            (&mut self.apart.woke_beside_user, other.apart.woke_beside_user),
            (&mut self.apart.two_kernels, other.apart.two_kernels),
            (&mut self.apart.late_clean, other.apart.late_clean),
            (&mut self.apart.late_write, other.apart.late_write),
            (&mut self.apart.left_damaged, other.apart.left_damaged),
            (&mut self.apart.clean_window, other.apart.clean_window),
            (&mut self.apart.old_stamp, other.apart.old_stamp),
            (&mut self.apart.killed_mount, other.apart.killed_mount),
            (&mut self.apart.fault_on_clean, other.apart.fault_on_clean),
            (&mut self.apart.unseen_mount, other.apart.unseen_mount),
        ];
        for (sum, part) in pairs {
            *sum += part;
        }
    }
}

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) what: String,
    pub(crate) stats: Stats,
    pub(crate) timeline: Vec<String>,
}
