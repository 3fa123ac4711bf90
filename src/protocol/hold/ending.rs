//! How holding ends well: with our own clean mark, or because the local kernel beats again.

use super::super::event::Event;
use super::super::guard::Context;
use super::super::lease::Lease;
use super::super::medium::Owner;
use super::super::sequence;
use super::super::timing;
use super::super::watch::{Handed, Watch};
use super::{Ended, Flow, Hold};
use crate::clock::Now;
use crate::format::{Image, MmpBlock};

impl Hold {
    /// In the place of a guard that has died. In an area he counts on, so that no two blocks of one holder have one sequence; natively
    /// a jump tells what he beats over. `release`: nothing uses the device any more.
    pub(in crate::protocol) fn succeed(&mut self, release: bool, context: &Context) {
        if context.medium.interval().is_some() {
            self.seq = MmpBlock::fields(&self.acknowledged).seq;
        }
        self.releasing = release;
    }

    /// The next write is the clean mark.
    pub(super) fn ends(&self, now: Now) -> bool {
        let seen = !self.to_be_seen && now.mono >= self.hand_over_from;
        self.releasing && (self.handing_over.is_none() || seen)
    }

    /// The next write is the clean mark, and nobody takes over.
    pub(super) fn leaves(&self) -> bool {
        self.releasing && self.handing_over.is_none() && !broken!(ReleasesOverOthers)
    }

    /// The clean mark is on its way and its fate is not known.
    pub(super) fn clean_submitted(&self) -> bool {
        self.unacknowledged.as_ref().is_some_and(|image| MmpBlock::fields(image).seq == sequence::SEQ_CLEAN)
    }

    /// The first beats of the local kernel, that we took over from: a remount of the administrator's own went on under
    /// our first beat. The names are ours, too, so `foreign` would take it for another holder under equal names.
    pub(super) fn kernel_is_back(&self, now: Now, image: &Image, context: &Context) -> bool {
        let Ok(block) = context.medium.decode(image) else { return false };
        !self.ends(now)
            && Owner::of(&block) == context.medium.owner()
            && (1..=sequence::COUNTING_REACH).contains(&block.seq)
            && sequence::steps(block.seq, self.seq, sequence::COUNTING_REACH).is_none()
    }

    /// Our clean mark has landed, whatever stands there now.
    pub(super) fn released(&mut self, now: Now, context: &mut Context) -> Flow {
        let Some(mounted) = self.handing_over else {
            context.event(Event::Released);
            return Flow::Break(Ended::Over);
        };
        // The kernel may beat from now on, unseen, with a smaller C than ours.
        let kernels = timing::lease(timing::kernel_check_interval_s(context.medium.update_interval_s()));
        let lease = Lease::until(self.lease.end().min(self.last_look_started + kernels));
        let handed = Handed {
            base: self.unacknowledged.unwrap_or(self.acknowledged),
            kernel_waits: false,
            ours_until: None,
            lease: mounted.then_some(lease),
            predecessor: self.predecessor,
        };
        Flow::Break(Ended::HandedOver(Watch::expecting(now, handed, context)))
    }
}
