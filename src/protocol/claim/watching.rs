//! The first half of a claim: watching what is not clean, or is not believed to be, until it has stood still for long enough. Step 2.
//!
//! Protects: whoever beats, or comes, in that time is seen. Does not protect against one whose every write is hidden by a late one
//! that looks like what stood there before, but for a clean mark, which may be written twice.

use std::time::Duration;

use super::super::event::{Event, Peer, Refusal};
use super::super::guard::Context;
use super::super::medium::Owner;
use super::super::sequence::Sequence;
use super::super::timing::{self, CheckInterval};
use super::{Claim, Progress, Step, refuse};
use crate::clock::{Mono, Now};
use crate::format::{Image, MmpBlock};

#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub(super) base: Image,
    /// End of the first look that saw these bytes.
    since: Mono,
    need: Duration,
    /// When watching as such began, for the report.
    pub(super) began: Mono,
    /// Of a clean mark: when the last look at it began.
    mark_seen: Option<Mono>,
}

impl Claim {
    /// Of an area, or if it is answered for. What it says of its C may be wrong, so it is watched for a wait more than a live one.
    pub(super) fn watch_damaged(&mut self, now: Now, base: Image, context: &mut Context) -> Progress {
        self.undecoded = 0;
        self.written = false;
        if broken!(DamagedIsFree) {
            return self.probe(base, Some(Duration::ZERO), context);
        }
        let need = self.watch_of(self.check(&base, context).wait() * 2, context);
        let of = Peer::from(&MmpBlock::fields(&base));
        context.event(Event::Watching { of, until: now.mono + need, total: need });
        self.watch_from(now, base, need, now.mono, context)
    }

    /// The one who asks has answered for these very bytes. He has not for any that come after others.
    pub(super) fn is_answered_for(&mut self, image: &Image) -> bool {
        if !self.answers_for(image) {
            self.answered_for = None;
        }
        self.answered_for.is_some()
    }

    fn answers_for(&self, image: &Image) -> bool {
        self.answered_for.as_ref().is_some_and(|seen| **seen == *image || broken!(AnswersForAnyBytes))
    }

    /// What is watched still stands: also if it is damaged.
    pub(super) fn stands(&self, image: &Image) -> bool {
        matches!(&self.step, Step::Watch(watch) if watch.base == *image)
    }

    /// (2) The bytes still stand. From the *end* of the first look to the *start* of this one, or it does not count.
    pub(super) fn still(&mut self, now: Now, context: &mut Context) -> Progress {
        let half = self.standing_wait(context) / 2;
        let Step::Watch(watch) = &mut self.step else { unreachable!("asked for while watching") };
        // A mark that was written twice may land twice, the same to the last bit: so between two looks somebody may have come, and may be
        // hidden by it. Nobody gets in within half a wait.
        let seen = watch.mark_seen.as_mut().map(|seen| std::mem::replace(seen, self.look_started));
        if seen.is_some_and(|seen| now.mono.since(seen) > half) && !broken!(MarksAreSeldomSeen) {
            watch.since = now.mono;
        }
        let (base, need, end, began) = (watch.base, watch.need, watch.since + watch.need, watch.began);
        let unchanged = self.look_started.since(watch.since);
        let block = MmpBlock::fields(&base);
        let fsck = Sequence::from(block.seq) == Sequence::Fsck && context.medium.decode(&base).is_ok();
        if fsck && self.vouched != Some(base) && !self.answers_for(&base) {
            // Only patience brought us here; no watching proves an e2fsck dead.
            return self.refuse_or_wait(now, base, &block, now.mono.since(began), context);
        }
        if unchanged >= need {
            return self.probe(base, Some(unchanged), context);
        }
        self.look_at((now.mono + timing::look_period(context.options.interval)).min(end));
        Progress::Going
    }

    /// Begins a watch, of a live block or of a clean mark that may lie.
    pub(super) fn watch(
        &mut self,
        now: Now,
        base: Image,
        block: &MmpBlock,
        doubtful_clean: bool,
        context: &mut Context,
    ) -> Progress {
        let check = self.check(&base, context);
        let credited = self.stood_since(&base, check);
        let since = credited.unwrap_or(now.mono);
        let need = match doubtful_clean {
            true => self.watch_of(timing::doubtful_clean_watch(check.field_s()), context),
            false => self.watch_of_live(now, &base, check, context),
        };
        let unchanged = self.look_started.since(since);
        if unchanged >= need {
            return self.probe(base, Some(unchanged), context);
        }
        let until = since + need;
        context.event(Event::Watching { of: Peer::from(block), until, total: until.since(now.mono) });
        let progress = self.watch_from(now, base, need, now.mono, context);
        if let (Some(_), Step::Watch(watch)) = (credited, &mut self.step) {
            watch.since = since;
            self.look_at((now.mono + timing::look_period(context.options.interval)).min(until));
        }
        progress
    }

    /// Since when these bytes have stood, if a standby has watched them before this look, which is the first one.
    fn stood_since(&mut self, base: &Image, check: CheckInterval) -> Option<Mono> {
        let credit = self.credit.take()?;
        let since = credit.since(base, self.look_started, check.wait() / 2)?;
        self.worst_io = self.worst_io.max(credit.slowest());
        Some(since)
    }

    fn watch_from(
        &mut self,
        now: Now,
        base: Image,
        need: Duration,
        began: Mono,
        context: &Context,
    ) -> Progress {
        let is_mark = Sequence::from(MmpBlock::fields(&base).seq) == Sequence::Clean;
        let mark_seen = is_mark.then_some(self.look_started);
        self.step = Step::Watch(Watch { base, since: now.mono, need, began, mark_seen });
        self.look_at(now.mono + timing::look_period(context.options.interval));
        Progress::Going
    }

    /// How long a block that is not clean must stand still. The device is used no sooner than two of *its* waits after
    /// its last write: its holder needs the second one to stop what he protects. Our claim stands for a wait of our
    /// own C only, which may be the shorter one; what is missing is watched before.
    ///
    /// Where the kernel waits, and where its holder is vouched to be dead, only a living one has to show himself. He has to
    /// before the kernel is called: it would take a clean mark that he leaves for a moment (an unmount, a remount, a
    /// hand-over of his) for leave to mount at once. By a stamp that is old he is not alive (clocks kept by NTP).
    fn watch_of_live(&self, now: Now, base: &Image, check: CheckInterval, context: &Context) -> Duration {
        let one_beat = context.medium.longest_interval(context.options.interval, check.field_s());
        let stamped_s = MmpBlock::fields(base).time_s;
        let fresh = stamped_s.saturating_add(check.field_s().into()) >= now.wall.0;
        match (context.options.kernel_waits, self.seen_live || fresh) {
            (true, false) => Duration::ZERO,
            (true, true) if broken!(NoBeatBeforeTheCall) => Duration::ZERO,
            (true, true) => timing::refusal(one_beat) + self.worst_io,
            (false, _) if self.vouched == Some(*base) && broken!(LooksForLessThanABeat) => one_beat / 8,
            (false, _) if self.vouched == Some(*base) => timing::refusal(one_beat) + self.worst_io,
            (false, _) if broken!(OneWaitOfTheDead) => self.watch_of(check.wait(), context),
            (false, _) if broken!(HalfAWatch) => self.watch_of(check.wait() / 2, context),
            (false, _) => self.watch_of(check.live_watch(self.standing_wait(context)), context),
        }
    }

    fn watch_of(&self, wait: Duration, context: &Context) -> Duration {
        wait.max(self.minimum_watch) + context.medium.margin() + self.worst_io
    }

    /// Somebody is there: the end, unless patience was asked for; then the watch begins anew on these bytes.
    pub(super) fn refuse_or_wait(
        &mut self,
        now: Now,
        image: Image,
        block: &MmpBlock,
        after: Duration,
        context: &mut Context,
    ) -> Progress {
        let by = Peer::from(block);
        let fsck = Sequence::from(block.seq) == Sequence::Fsck;
        match context.options.patience_until {
            Some(patience_until) if now.mono < patience_until => {
                if self.waiting_for != Some(Owner::of(block)) {
                    self.waiting_for = Some(Owner::of(block));
                    context.event(Event::Waiting { of: by, patience_until });
                }
                let check = self.check(&image, context);
                self.seen_live = true;
                let need = self.watch_of_live(now, &image, check, context);
                let began = now.mono - after;
                self.watch_from(now, image, need, began, context)
            }
            _ if fsck => refuse(Refusal::Fsck { by }, context),
            _ => refuse(Refusal::InUse { by, after }, context),
        }
    }
}
