//! Another block than ours while we hold: what it means, and what follows from it.

use super::super::event::{Event, LoserRule, Loss, Peer};
use super::super::foreign::{Ruling, Sighted, beaten_over, expected};
use super::super::guard::Context;
use super::super::medium::{Knowledge, Verdict};
use super::super::timing;
use super::{Flow, Hold, Look, Step, lose};
use crate::clock::Now;
use crate::format::Image;

/// So many looks in a row may find no MMP block before it is believed that there is none any more.
const UNREADABLE_LOOKS: u32 = 5;

impl Hold {
    pub(super) fn judge(&mut self, now: Now, look: Look, image: &Image, context: &mut Context) -> Flow {
        let check_interval = self.check(context).span();
        let known = Knowledge {
            our_seq: self.seq,
            our_beats: self.beats,
            predecessor: expected(self.predecessor, now.mono < self.watchful_until),
            seen_lately: now.mono.since(self.last_good_look) <= check_interval,
        };
        match context.medium.judge(image, now, known) {
            // Our mark landed and somebody came, or he came over our last beat and will get in: either is a release.
            Verdict::Unclear(_)
            | Verdict::Claimer(_)
            | Verdict::Late(_)
            | Verdict::Successor(_)
            | Verdict::Fsck(_)
            | Verdict::ClearedOurs(_)
            | Verdict::ForeignClean(_)
                if self.clean_submitted() =>
            {
                return self.released(now, context);
            }
            Verdict::OursOlder => {
                self.last_good_look = now.mono;
                self.write(now, look, image, context);
            }
            Verdict::Fsck(block) => return lose(now, Loss::Fsck { by: Peer::from(&block) }, context),
            Verdict::ForeignClean(block) => {
                return lose(now, Loss::ForeignClean { by: Peer::from(&block) }, context);
            }
            Verdict::Unreadable if self.unreadable >= UNREADABLE_LOOKS => {
                return lose(now, Loss::Unreadable, context);
            }
            Verdict::Unreadable => {
                self.unreadable += 1;
                self.step = Step::Idle { until: now.mono + timing::look_period(context.options.interval) };
                return Flow::Continue(());
            }
            Verdict::ClearedOurs(block) => {
                context.event(Event::Cleared { by: Peer::from(&block) });
                self.beat_over(now, look, image, context);
            }
            // Nothing is used any more, and whoever it is goes on.
            Verdict::Unclear(block) | Verdict::Claimer(block) if self.leaves() => {
                context.event(Event::LeftToOthers { by: Peer::from(&block) });
                return self.released(now, context);
            }
            // His check must fail, or his write came late.
            Verdict::Claimer(block) | Verdict::Late(block) => {
                context.event(beaten_over(Some(Peer::from(&block))));
                self.beat_over(now, look, image, context);
            }
            Verdict::Successor(block) => {
                let loss = Loss::Stolen { by: Peer::from(&block), because: LoserRule::Generation };
                return lose(now, loss, context);
            }
            Verdict::Unclear(_) | Verdict::Torn => {
                return self.look_longer(now, look, image, context);
            }
        }
        Flow::Continue(())
    }

    /// Somebody's live block: is he a claimer, or does he count?
    fn look_longer(&mut self, now: Now, look: Look, image: &Image, context: &mut Context) -> Flow {
        let reserve = self.check(context).write_reserve();
        let sighted = Sighted {
            started: look.started,
            image,
            latest: self.lease.end() - reserve,
            slept: Sighted::slept(self.last_gap, now.mono),
            predecessor: self.predecessor,
            kernel_beats: false,
        };
        match self.foreign.rule(now, &sighted, context) {
            Ruling::LookOn => {
                self.step = Step::Idle { until: now.mono + timing::look_period(context.options.interval) };
            }
            Ruling::BeatOver(by) => {
                let c = context.medium.own_check();
                self.watchful_until = self.watchful_until.max(now.mono + c.wait() * 2);
                context.event(beaten_over(by));
                self.beat_over(now, look, image, context);
            }
            Ruling::Contend(by) => {
                if let Some(by) = by {
                    context.event(Event::Contested { by });
                }
                self.beat_over(now, look, image, context);
            }
            Ruling::WeLose(loss) => return lose(now, loss, context),
        }
        Flow::Continue(())
    }

    /// Over a block that is not ours: whoever wrote it, or found it, has to see a beat before anything is handed over.
    fn beat_over(&mut self, now: Now, look: Look, image: &Image, context: &mut Context) {
        self.to_be_seen = true;
        self.write(now, look, image, context);
    }
}
