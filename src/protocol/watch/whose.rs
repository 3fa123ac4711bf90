//! Whose beat a block is, by names, count and stamp, while the kernel beats or we do in its stead.
//!
//! Protects: what is not the kernel's next beat, or ours, is never taken for it without a reason that is given here. Does not judge what
//! follows from a foreign one (`beats`), and cannot tell a host with our names whose count lies near our kernel's.

use super::super::guard::Context;
use super::super::medium::{OWN_BEATS_REMEMBERED, Owner, is_path};
use super::super::sequence::{COUNTING_REACH, steps};
use super::super::timing;
use super::{Stage, Watch};
use crate::clock::Mono;
use crate::format::{Image, MmpBlock};

impl Watch {
    /// The block is as the kernel, or we in its stead, left it.
    pub(super) fn stands(&self, image: &Image) -> bool {
        *image == self.kernel
            || match &self.stage {
                Stage::Bridging(bridge) => {
                    bridge.acknowledged.as_ref() == Some(image)
                        || bridge.unacknowledged.as_ref() == Some(image)
                }
                _ => false,
            }
    }

    /// Its names, and a few beats on from its last; or from where it stood before it seemed to begin anew.
    pub(super) fn is_kernels_next(&self, now: Mono, image: &Image, context: &Context) -> bool {
        let Ok(block) = context.medium.decode(image) else { return false };
        let last = MmpBlock::fields(&self.kernel);
        let counted = steps(last.seq, block.seq, self.reach(now, context));
        Owner::of(&block) == Owner::of(&last) && matches!(counted, Some(1..))
    }

    /// The kernel's next beat, with a device's name that only e2fsprogs writes: a clear was forced on this very host, and
    /// `kmmpd` never writes its names again. A bridge puts them right.
    pub(super) fn is_renamed_kernel(&self, now: Mono, image: &Image, context: &Context) -> bool {
        let Ok(block) = context.medium.decode(image) else { return false };
        let last = MmpBlock::fields(&self.kernel);
        let counted = steps(last.seq, block.seq, self.reach(now, context));
        is_path(&block.device) && !is_path(&last.device) && matches!(counted, Some(1..))
    }

    /// A beat of our own bridge's, come back late or by a path that failed over.
    pub(super) fn is_own_older(&self, image: &Image, context: &Context) -> bool {
        let Stage::Bridging(bridge) = &self.stage else { return false };
        let Ok(block) = context.medium.decode(image) else { return false };
        Owner::of(&block) == context.medium.owner()
            && steps(block.seq, bridge.seq, bridge.beats.min(OWN_BEATS_REMEMBERED)).is_some()
    }

    /// How far the kernel may have counted since it was seen.
    fn reach(&self, now: Mono, context: &Context) -> u32 {
        let interval_s = timing::update_interval_s(context.medium.update_interval_s());
        let beats = now.since(self.kernel_at).as_secs() / u64::from(interval_s);
        COUNTING_REACH.saturating_add(u32::try_from(beats).unwrap_or(u32::MAX))
    }

    /// A small count under the kernel's names, and no older than its last beat: a remount began it anew between two looks.
    pub(super) fn restarts(&self, now: Mono, image: &Image, context: &Context) -> bool {
        let Ok(block) = context.medium.decode(image) else { return false };
        let last = MmpBlock::fields(&self.kernel);
        let remembered = self.restarted_from.is_some_and(|(_, until)| now < until);
        let known = remembered || (self.predecessor_stirs && self.is_predecessors(&block));
        !known
            && Owner::of(&block) == Owner::of(&last)
            && block.time_s >= last.time_s
            && (1..=COUNTING_REACH).contains(&block.seq)
    }

    /// Whom we took over from counts on, under whatever names: see [`Predecessor::goes_on`].
    pub(super) fn is_predecessors(&self, block: &MmpBlock) -> bool {
        self.predecessor.is_some_and(|predecessor| predecessor.goes_on(block))
    }

    /// An older beat of the kernel's own, by its stamp as well.
    pub(super) fn is_kernels_older(&self, block: &MmpBlock) -> bool {
        block.time_s <= MmpBlock::fields(&self.kernel).time_s && !self.is_predecessors(block)
    }

    /// The count that seemed to have begun anew goes on as well: the names are another host's, too.
    pub(super) fn is_old_count(&self, now: Mono, block: &MmpBlock, context: &Context) -> bool {
        let old = self.restarted_from.filter(|&(_, until)| now < until);
        Owner::of(block) == context.medium.owner()
            && old.is_some_and(|(seq, _)| matches!(steps(seq, block.seq, COUNTING_REACH), Some(1..)))
    }
}
