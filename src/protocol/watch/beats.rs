//! The kernel beats, or we do in its stead: telling its beats from others', bridging, and judging what is foreign.

use std::time::Duration;

use super::super::event::{Event, LoserRule, Loss, Peer, Refusal, Resumption, Standing as MountStanding};
use super::super::foreign::{Ruling, Sighted, beaten_over, expected};
use super::super::guard::{Activity, Context, Failure, Write};
use super::super::hold::{Hold, Standing};
use super::super::lease::Lease;
use super::super::medium::{Knowledge, Owner, Verdict, is_path};
use super::super::sequence::{self, Sequence};
use super::super::timing;
use super::{
    Bridge, ENDING_PAUSE, Flow, Look, Stage, Step, Watch, Watched, interval, kernel_check,
    kernel_check_interval_s, lose, silence, u_star,
};
use crate::clock::{Mono, Now};
use crate::format::{Image, MmpBlock};

/// So many looks in a row may find no MMP block before it is believed that there is none any more.
const UNREADABLE_LOOKS: u32 = 5;

impl Watch {
    pub(super) fn watched(&mut self, now: Now, look: Look, image: &Image, context: &mut Context) -> Flow {
        if *image == self.kernel {
            self.stood(now.mono);
            if self.mount_ended {
                return self.ask(look, image, context);
            }
            if !self.is_silent(look.started, context) && !self.doubted {
                return self.rest(now, context);
            }
            return self.ask(look, image, context);
        }
        if self.is_kernels_next(now.mono, image, context) {
            self.kernel_beat(now, look, image, context);
            return match self.mount_ended {
                true => self.ask(look, image, context),
                false => self.rest(now, context),
            };
        }
        self.ask(look, image, context)
    }

    pub(super) fn bridged(&mut self, now: Now, look: Look, image: &Image, context: &mut Context) -> Flow {
        if self.is_kernels_next(now.mono, image, context) {
            self.kernel_beat(now, look, image, context);
            self.stage = Stage::Watching;
            context.event(Event::BridgeEnded);
            return self.rest(now, context);
        }
        if self.stands(image) {
            self.stood(now.mono);
        }
        self.ask(look, image, context)
    }

    /// A live or clean block, and what the kernel said about its filesystem.
    pub(super) fn judge(
        &mut self,
        now: Now,
        look: Look,
        image: &Image,
        activity: Activity,
        context: &mut Context,
    ) -> Flow {
        let known = Knowledge {
            our_seq: MmpBlock::fields(&self.kernel).seq,
            our_beats: MmpBlock::fields(&self.kernel).seq.into(),
            predecessor: expected(self.predecessor, now.mono < self.watchful_until),
            seen_lately: now.mono.since(self.stood_at) <= silence(context) * 2,
        };
        let stands = self.stands(image);
        let verdict = context.medium.judge(image, now, known);
        let MmpBlock { seq, device, .. } = MmpBlock::fields(image);
        // One that e2fsprogs forced is not the kernel's last word: what is being unmounted is still used.
        let forced = is_path(&device) && !broken!(ForcedIsTheLastWord);
        let clean = Sequence::from(seq) == Sequence::Clean && !forced;
        let doubted = std::mem::take(&mut self.doubted);
        // A mount that has failed has let go of the device before it ended.
        if activity != Activity::Ending || self.mount_ended {
            self.unconfirmed = false;
        }
        if std::mem::take(&mut self.mount_ended) && stands {
            return match activity {
                Activity::Gone => not_ours(image, context),
                _ => self.rest(now, context),
            };
        }
        match activity {
            // mount(2) is still at it, and the beats that were seen may be another's: nothing is written.
            Activity::Ending if self.unconfirmed => return self.look_at(now.mono + ENDING_PAUSE),
            Activity::Gone if !stands => {
                context.event(Event::Unmounted);
                return Flow::Break(Watched::Over);
            }
            // The kernel may have written its clean mark between our look and its answer; now it writes no more.
            Activity::Gone if !doubted => return self.doubt(now),
            Activity::Gone => return self.we_beat(now, image, Resumption::Unmounted, context),
            // Foreign blocks count: until it is gone it is used.
            Activity::Ending if stands || clean => return self.ending(now, stands, context),
            // But if the kernel has beaten just now it still does, or has written its clean mark and lets go of the device:
            // then it is a successor's.
            Activity::Ending if self.stood_lately(now.mono, context) => {
                return self.look_at(now.mono + ENDING_PAUSE);
            }
            _ => {}
        }
        if stands {
            return match activity {
                Activity::ReadOnly => self.we_beat(now, image, Resumption::ReadOnly, context),
                Activity::Stopped => self.we_beat(now, image, Resumption::Stopped, context),
                _ => self.bridge(now, look, context),
            };
        }
        self.judge_changed(now, look, image, (activity, verdict, doubted), context)
    }

    /// Neither the kernel nor we left the block like this, and the filesystem is there.
    fn judge_changed(
        &mut self,
        now: Now,
        look: Look,
        image: &Image,
        (activity, verdict, doubted): (Activity, Verdict, bool),
        context: &mut Context,
    ) -> Flow {
        if self.is_own_older(image, context) {
            return self.bridge(now, look, context);
        }
        if self.is_renamed_kernel(now.mono, image, context) {
            // e2fsprogs' forced clear landed in the kernel's own buffer: its beat, under the names that were put there.
            self.lease = Some(Lease::until(look.before + timing::lease(kernel_check_interval_s(context))));
            context.event(Event::Cleared { by: Peer::from(&MmpBlock::fields(image)) });
            return self.write(now, look, context);
        }
        // A new mount of ours is listed only at its end, long after its first beat.
        if matches!(activity, Activity::ReadWrite | Activity::Ending)
            && self.restarts(now.mono, image, context)
        {
            let until = now.mono + timing::foreign_look(u_star(context));
            self.restarted_from = Some((MmpBlock::fields(&self.kernel).seq, until));
            self.watchful_until = self.watchful_until.max(until);
            self.kernel_beat(now, look, image, context);
            return self.rest(now, context);
        }
        match verdict {
            Verdict::Unreadable if self.unreadable >= UNREADABLE_LOOKS => {
                lose(now, Loss::Unreadable, context)
            }
            Verdict::Unreadable => {
                self.unreadable += 1;
                self.look_soon(now, context)
            }
            // The kernel's own older beat: a path failed over. It beats on, or we do in its stead.
            Verdict::OursOlder if self.is_predecessors(&MmpBlock::fields(image)) => {
                self.look_longer(now, look, image, context)
            }
            Verdict::OursOlder
                if activity == Activity::ReadWrite
                    && self.is_silent(now.mono, context)
                    && self.is_kernels_older(&MmpBlock::fields(image)) =>
            {
                self.bridge(now, look, context)
            }
            Verdict::OursOlder => self.look_soon(now, context),
            Verdict::ClearedOurs(block) if Owner::of(&block) == context.medium.owner() => match activity {
                Activity::ReadOnly => self.we_beat(now, image, Resumption::ReadOnly, context),
                // Older kernels do not show that they stopped. But it may have been remounted and back just now.
                Activity::ReadWrite if !doubted => self.doubt(now),
                _ => self.we_beat(now, image, Resumption::Stopped, context),
            },
            Verdict::ClearedOurs(block) => {
                context.event(Event::Cleared { by: Peer::from(&block) });
                self.write(now, look, context)
            }
            Verdict::ForeignClean(block) => lose(now, Loss::ForeignClean { by: Peer::from(&block) }, context),
            Verdict::Fsck(block) => lose(now, Loss::Fsck { by: Peer::from(&block) }, context),
            Verdict::Claimer(_) | Verdict::Late(_) | Verdict::Successor(_) => {
                unreachable!("no kernel beats in an area")
            }
            Verdict::Unclear(_) | Verdict::Torn => self.look_longer(now, look, image, context),
        }
    }

    fn doubt(&mut self, now: Now) -> Flow {
        self.doubted = true;
        self.look_at(now.mono)
    }

    /// The last beat, the kernel's or ours in its stead, is no older than a kernel that beats lets it become.
    fn stood_lately(&self, now: Mono, context: &Context) -> bool {
        let lease = timing::lease(kernel_check_interval_s(context));
        self.lease_end().is_some_and(|end| now + lease <= end + silence(context))
    }

    /// Somebody's live block: is he a claimer, or does he count?
    fn look_longer(&mut self, now: Now, look: Look, image: &Image, context: &mut Context) -> Flow {
        let block = MmpBlock::fields(image);
        let old_count = self.is_old_count(now.mono, &block, context);
        if old_count && self.is_predecessors(&MmpBlock::fields(&self.kernel)) {
            // It was he who seemed to be our kernel, begun anew.
            (self.predecessor_stirs, self.restarted_from) = (true, None);
            self.kernel_beat(now, look, image, context);
            return self.rest(now, context);
        }
        if old_count {
            let loss = Loss::Stolen { by: Peer::from(&block), because: LoserRule::EqualNames };
            return lose(now, loss, context);
        }
        self.watchful_until = self.watchful_until.max(now.mono + timing::foreign_look(u_star(context)));
        let end = self.lease_end().unwrap_or(now.mono);
        let sighted = Sighted {
            started: look.started,
            image,
            latest: end - timing::write_reserve(kernel_check_interval_s(context)),
            slept: Sighted::slept(self.last_gap, now.mono),
            predecessor: self.predecessor,
            kernel_beats: matches!(self.stage, Stage::Watching),
        };
        match self.foreign.rule(now, &sighted, context) {
            Ruling::Contend(_) if matches!(self.stage, Stage::Bridging(_)) => self.write(now, look, context),
            // The kernel's own beats are what he sees.
            Ruling::LookOn | Ruling::Contend(_) => self.look_soon(now, context),
            Ruling::WeLose(loss) => lose(now, loss, context),
            Ruling::BeatOver(by) => {
                let c = timing::taker_check_interval_s(context.medium.update_interval_s(), 0);
                self.watchful_until = self.watchful_until.max(now.mono + timing::wait(c) * 2);
                context.event(beaten_over(by));
                // The kernel would do it itself, if it could.
                self.write(now, look, context)
            }
        }
    }

    /// The kernel is silent, and its filesystem is there.
    fn bridge(&mut self, now: Now, look: Look, context: &mut Context) -> Flow {
        let due = match &self.stage {
            Stage::Bridging(bridge) => now.mono >= bridge.next_beat,
            _ => true,
        };
        if due { self.write(now, look, context) } else { self.rest(now, context) }
    }

    /// Beats in the kernel's stead: its own block with another sequence and time.
    fn write(&mut self, now: Now, look: Look, context: &mut Context) -> Flow {
        let kernel_seq = MmpBlock::fields(&self.kernel).seq;
        let bridge = match &mut self.stage {
            Stage::Bridging(bridge) => {
                bridge.seq = sequence::next(bridge.seq);
                bridge.beats = bridge.beats.saturating_add(1);
                bridge
            }
            stage => {
                let seq = sequence::jump(&mut context.rng, kernel_seq);
                context.event(Event::Bridging { silent: now.mono.since(self.kernel_at) });
                *stage = Stage::Bridging(Bridge {
                    acknowledged: None,
                    unacknowledged: None,
                    seq,
                    beats: 0,
                    next_beat: now.mono,
                });
                let Stage::Bridging(bridge) = stage else { unreachable!("set a line above") };
                bridge
            }
        };
        let image = context.medium.renew(&self.kernel, bridge.seq, now.wall);
        bridge.unacknowledged = Some(image);
        let Some(lease) = &mut self.lease else { unreachable!("nothing is bridged without a lease") };
        let end = lease.submit(look.started, kernel_check(context));
        let not_after = lease.end();
        self.step = Step::Writing { started: look.started, end };
        context.write(Write { image, durable: false, not_after });
        Flow::Continue(())
    }

    pub(super) fn wrote(&mut self, now: Now, answer: Result<(), Failure<'_>>, context: &mut Context) -> Flow {
        let Step::Writing { started, end } = self.step else { unreachable!("no write was asked for") };
        let Some(lease) = &mut self.lease else { unreachable!("as it was when it was written") };
        if let Err(failure) = answer {
            lease.stray(now.mono, kernel_check(context));
            return self.trouble(now, failure, context);
        }
        lease.acknowledge(end);
        let next_beat = started + timing::jittered(interval(context), &mut context.rng);
        if let Stage::Bridging(bridge) = &mut self.stage {
            bridge.acknowledged = bridge.unacknowledged.take();
            bridge.next_beat = next_beat;
        }
        self.trouble_told = false;
        self.look_soon(now, context)
    }

    /// An unmount is under way, or something else has claimed the device right after it. The kernel's clean mark is its
    /// last write; a block that still says *live* is watched on, and beaten if its lease needs it.
    fn ending(&mut self, now: Now, stands: bool, context: &mut Context) -> Flow {
        let since = *self.ending_since.get_or_insert(now.mono);
        if now.mono.since(since) < interval(context) {
            return self.look_at(now.mono + ENDING_PAUSE);
        }
        if stands {
            // A long unmount: dirty blocks on a slow disk. The kernel has stopped beating, or never could.
            self.ending_since = None;
            let look = Look { started: self.last_look_started, before: self.last_look_started };
            return self.write(now, look, context);
        }
        context.event(Event::Unmounted);
        Flow::Break(Watched::Over)
    }

    /// As `we_beat`, where something else may stand there than what we left: the holder judges it.
    pub(super) fn we_judge(
        &mut self,
        now: Now,
        left: &Image,
        why: Resumption,
        context: &mut Context,
    ) -> Flow {
        let mut flow = self.we_beat(now, left, why, context);
        if let Flow::Break(Watched::WeBeat(hold)) = &mut flow {
            hold.keep();
        }
        flow
    }

    /// From here on we are the holder, under the lease that runs.
    pub(super) fn we_beat(
        &mut self,
        now: Now,
        image: &Image,
        why: Resumption,
        context: &mut Context,
    ) -> Flow {
        let Some(lease) = self.lease else { unreachable!("nothing is held without a lease") };
        context.event(Event::Resumed { why });
        let release = why == Resumption::NotMounted;
        // Whatever changes before our first beat is the kernel's, or a rival's, and judged by the watch again.
        let back = (!release).then(|| Box::new(self.clone()));
        let (predecessor, foreign) = (self.predecessor, self.foreign.clone());
        let standing = Standing { image: *image, lease, predecessor, foreign, release, back };
        Flow::Break(Watched::WeBeat(Hold::go_on(now, standing, context)))
    }
}

/// What was taken for our kernel's first beat is another host's, under the same names.
fn not_ours(image: &Image, context: &mut Context) -> Flow {
    let by = Peer::from(&MmpBlock::fields(image));
    let refusal = Some(Refusal::InUse { by, after: Duration::ZERO });
    context.event(Event::NotMounted { standing: MountStanding::Others, refusal });
    Flow::Break(Watched::Over)
}
