//! The second half of a claim: from the last look before the first write to *held*. Steps 3 to 5.
//!
//! Protects: no write counts that was not acknowledged within the limit of its look; our claim stands alone and
//! silent for half a wait twice. A change under it is a lost race, and the block is left alone.

use std::time::Duration;

use super::super::event::{Event, FailureKind, Peer, Quiet, Refusal, Resumption};
use super::super::foreign::{Foreign, Predecessor};
use super::super::guard::{Context, Failure, Write};
use super::super::hold::{Hold, Standing, Taken};
use super::super::lease::Lease;
use super::super::medium::{Medium, Owner};
use super::super::sequence::{self, Sequence};
use super::super::timing::{self, CheckInterval};
use super::super::watch::{Handed, Watch};
use super::{Claim, Progress, Stage, Step, Wait, refuse};
use crate::clock::{Mono, Now};
use crate::format::{Image, MmpBlock};

impl Claim {
    pub(super) fn probe(
        &mut self,
        base: Image,
        watched: Option<Duration>,
        context: &mut Context,
    ) -> Progress {
        self.step = Step::Probe { base, watched };
        self.wait = Wait::Answer;
        context.superblock();
        Progress::Going
    }

    pub(super) fn probed(
        &mut self,
        now: Now,
        answer: Result<&[u8; 1024], Failure<'_>>,
        context: &mut Context,
    ) -> Progress {
        let Step::Probe { base, watched } = self.step else { unreachable!("no superblock was asked for") };
        let believable = match answer {
            Err(failure) => return refuse(self.failed(failure), context),
            Ok(bytes) => match context.medium.clean_is_believable(bytes) {
                Ok(believable) => believable,
                Err(refusal) => return refuse(refusal, context),
            },
        };
        let block = MmpBlock::fields(&base);
        // Of a damaged block no field can be believed.
        let clean = Sequence::from(block.seq) == Sequence::Clean && context.medium.decode(&base).is_ok();
        if clean && watched.is_none() && !believable && !broken!(BelievesDoubtfulClean) {
            return self.watch(now, base, &block, true, context);
        }
        if context.options.watch_only && !matches!(context.medium, Medium::Area(_)) {
            return watched_out(&block, watched.filter(|_| !clean), context);
        }
        // After a write that did not count it is our own claim that stands there: remember who was before it.
        if Owner::of(&block) != context.medium.owner() {
            self.predecessor = (!clean || !believable).then(|| Predecessor::of(&block));
        }
        self.was_clean = clean;
        if matches!(context.medium, Medium::Area(_)) {
            self.step = Step::Draw { base, watched };
            context.entry();
            return Progress::Going;
        }
        match context.options.kernel_waits {
            false => self.write(now, &base, Stage::Claim, context),
            true if clean => self.write(now, &base, Stage::HandOver, context),
            // The kernel sees by itself that it is not clean.
            true => self.hand_over(now, base, None, context),
        }
    }

    /// (3), (4), (5): each write is a jump, so that nobody takes a claimer for a holder who counts.
    pub(super) fn write(&mut self, now: Now, base: &Image, stage: Stage, context: &mut Context) -> Progress {
        let before = MmpBlock::fields(base).seq;
        let jump = sequence::jump(&mut context.rng, before);
        let counts = broken!(ClaimCounts) && stage != Stage::Claim;
        let seq = if counts { sequence::next(before) } else { jump };
        let mut kept = *base;
        if context.medium.decode(base).is_err() {
            // Of what is no block nothing is kept.
            kept.fill(0);
        }
        let image = context.medium.compose(&kept, seq, now.wall, self.own_check, false);
        let not_after = if is_limited(stage) { self.look_started + self.limit() } else { Mono::FAR };
        self.step = Step::Writing { image, stage };
        self.wait = Wait::Answer;
        self.written = true;
        context.write(Write { image, durable: true, not_after });
        Progress::Going
    }

    /// The wait of this claim, once our own block stands: nobody's C but ours and the superblock's counts.
    pub(super) fn standing_wait(&self, context: &Context) -> Duration {
        self.standing_check(context).wait()
    }

    fn standing_check(&self, context: &Context) -> CheckInterval {
        context.medium.own_check().max(self.own_check)
    }

    /// How long a write of ours may stand before the last one follows: the shortest wait of any peer.
    fn longest_silence(&self, context: &Context) -> Duration {
        self.standing_check(context).lease()
    }

    /// By our own C, which the first lease comes from: so the last write is acknowledged well within that lease.
    pub(super) fn limit(&self) -> Duration {
        self.own_check.limit()
    }

    pub(super) fn wrote(
        &mut self,
        now: Now,
        answer: Option<Result<(), Failure<'_>>>,
        context: &mut Context,
    ) -> Progress {
        if let (None, Step::Draw { .. }) = (&answer, &self.step) {
            // The entry may be another slot's by now, or a later generation may stand there.
            self.step = Step::Look;
            self.look(now, context);
            return Progress::Going;
        }
        let Step::Writing { image, stage } = self.step else { unreachable!("no write was asked for") };
        let took = now.mono.since(self.look_started);
        if let Some(Err(failure)) = answer {
            return refuse(self.failed(failure), context);
        }
        let limit = self.limit();
        if answer.is_none() || is_limited(stage) && took > limit {
            return self.too_slow(now, took, limit, context);
        }
        let half = self.standing_wait(context) / 2;
        // If what stood before stood still for longer than any peer waits, a rival may be claiming by right: his write
        // may follow ours, and he would be in one wait after it instead of two.
        let (stood, longest) = (now.mono.since(self.standing_since), self.longest_silence(context));
        if broken!(WithdrawsByClean) && MmpBlock::fields(&image).seq == sequence::SEQ_CLEAN {
            return self.back_off(now, Peer::from(&MmpBlock::fields(&image)), context);
        }
        let stage = if broken!(NoWaitOnClean) && self.was_clean { Stage::Last } else { stage };
        match stage {
            Stage::Last if stood >= longest && !broken!(NoMiddleBeat) => {
                return self.too_slow(now, stood, longest, context);
            }
            Stage::Last => return self.held(now, image, context),
            Stage::HandOver => {
                let lease_end = self.look_started + self.own_check.lease();
                return self.hand_over(now, image, Some(lease_end), context);
            }
            Stage::Claim => context.event(Event::Claiming { until: now.mono + half * 2, total: half * 2 }),
            Stage::Middle | Stage::Confirmed => {}
        }
        self.standing_since = self.look_started;
        self.step = Step::Silent { image, since: now.mono, stage };
        self.look_at(now.mono + timing::look_period(context.options.interval));
        Progress::Going
    }

    /// (5) It is ours.
    fn held(&self, now: Now, image: Image, context: &mut Context) -> Progress {
        let taken = Taken {
            look_started: self.look_started,
            image,
            predecessor: self.predecessor,
            check: self.own_check,
        };
        Progress::Held(Hold::begin(now, taken, context))
    }

    /// Our claim stands where it was clean before, and nothing came of it: within one limit of a look that still shows it, it
    /// is marked clean again. A rival who claims in between sees his claim changed and begins anew, as after any race.
    pub(super) fn retract(&self, now: Now, context: &mut Context) -> Progress {
        let Step::Silent { image, .. } = self.step else { unreachable!("only what stands is taken back") };
        context.event(Event::Resumed { why: Resumption::NotMounted });
        let standing = Standing {
            image,
            lease: Lease::until(now.mono + self.limit()),
            predecessor: None,
            release: true,
            back: None,
            foreign: Foreign::default(),
        };
        Progress::Held(Hold::go_on(now, standing, context))
    }

    /// The kernel's turn: it watches, claims and watches again by itself. `ours_until`: `base` is our own claim, and may
    /// be taken back until then.
    fn hand_over(&self, now: Now, base: Image, ours_until: Option<Mono>, context: &mut Context) -> Progress {
        let handed =
            Handed { base, kernel_waits: true, ours_until, lease: None, predecessor: self.predecessor };
        Progress::HandedOver(Watch::expecting(now, handed, context))
    }

    /// A write that took longer than the limit counts for nothing: a rival may have come, looked and claimed under
    /// it. Everything starts again, with C doubled so that a slow device ends, and with a watch at least as long as
    /// the write was late: whoever holds under it needed that long to get in, so he beats within it.
    pub(super) fn too_slow(
        &mut self,
        now: Now,
        took: Duration,
        limit: Duration,
        context: &mut Context,
    ) -> Progress {
        let Some(slower) = self.own_check.slower() else {
            let what = format!(
                "the device is too slow to be protected: a write took {:.1} s, at most {:.1} s can count",
                took.as_secs_f64(),
                limit.as_secs_f64()
            );
            return refuse(Refusal::Io { what, kind: FailureKind::System }, context);
        };
        self.own_check = slower;
        self.minimum_watch = self.minimum_watch.max(took);
        context.event(Event::TooSlow { took, limit, check_interval_s: slower.field_s() });
        self.step = Step::Look;
        self.look(now, context);
        Progress::Going
    }

    /// (4) Our write still stands.
    pub(super) fn silent(&mut self, now: Now, context: &mut Context) -> Progress {
        let Step::Silent { image, since, stage } = self.step else { unreachable!("asked for while silent") };
        let whole = broken!(NoMiddleBeat);
        let half = self.standing_wait(context) / if whole { 1 } else { 2 };
        if self.look_started.since(since) >= half {
            let middle = stage == Stage::Claim && !whole;
            if stage == Stage::Middle && context.medium.interval().is_some() {
                return self.confirm(image, since, context);
            }
            if broken!(NoLastBeat) && !middle && now.mono < self.look_started + self.limit() {
                return self.held(now, image, context);
            }
            return self.write(now, &image, if middle { Stage::Middle } else { Stage::Last }, context);
        }
        self.look_at((now.mono + timing::look_period(context.options.interval)).min(since + half));
        Progress::Going
    }

    /// (4) Another claimer wrote over us, or a holder did: leave the block alone.
    pub(super) fn lost_race(&mut self, now: Now, block: MmpBlock, context: &mut Context) -> Progress {
        let by = Peer::from(&block);
        match Sequence::from(block.seq) {
            Sequence::Fsck if context.options.patience_until.is_none() => {
                return refuse(Refusal::Fsck { by }, context);
            }
            Sequence::Unknown(seq) => return refuse(Refusal::UnknownSequence { seq }, context),
            Sequence::Live(_) | Sequence::Clean | Sequence::Fsck => {}
        }
        if let (true, Step::Silent { image, .. }) = (broken!(WithdrawsByClean), &self.step) {
            let c = context.medium.check_of(image);
            let clean = context.medium.compose(image, sequence::SEQ_CLEAN, now.wall, c, false);
            self.step = Step::Writing { image: clean, stage: Stage::Claim };
            context.write(Write { image: clean, durable: true, not_after: Mono::FAR });
            return Progress::Going;
        }
        self.back_off(now, by, context)
    }

    fn back_off(&mut self, now: Now, by: Peer, context: &mut Context) -> Progress {
        let least = context.options.interval;
        let most = (self.standing_wait(context) / 2).max(least);
        let span = Duration::from_nanos(context.rng.u64(0..=nanos(most - least))) + least;
        self.written = false;
        self.step = Step::BackOff;
        self.look_at(now.mono + span);
        context.event(Event::LostRace { to: by, retry_at: now.mono + span });
        Progress::Going
    }
}

/// Every write of a claim has to be begun, and acknowledged, within the limit.
fn is_limited(stage: Stage) -> bool {
    !broken!(NoLimit) || stage == Stage::Last
}

/// A watcher's verdict: whoever stood there for so long is dead, and without that it is clean.
pub(super) fn watched_out(block: &MmpBlock, unchanged: Option<Duration>, context: &mut Context) -> Progress {
    let by = Peer::from(block);
    let verdict = match unchanged {
        Some(unchanged) => Quiet::Dead { was: by, unchanged },
        None => Quiet::Clean { by },
    };
    context.event(Event::Watched { verdict });
    Progress::Over
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
