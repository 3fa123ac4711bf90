//! Before the kernel's first own beat: it mounts, with our looks beside it.

use std::time::Duration;

use super::super::event::{Event, Loss, Peer, Refusal, Resumption, Standing};
use super::super::foreign::Predecessor;
use super::super::guard::{Activity, Context};
use super::super::lease::Lease;
use super::super::medium::{Owner, differs_in_sequence_alone};
use super::super::sequence::{COUNTING_REACH, Sequence};
use super::super::timing;
use super::{ENDING_PAUSE, Flow, Look, Stage, Watch, Watched, kernel_check_interval_s, lose};
use crate::clock::{Mono, Now};
use crate::format::{Image, MmpBlock};

/// The kernel's tick: its waits are whole ticks.
const TICK: Duration = Duration::from_millis(100);

/// What the kernel is handed.
pub(in crate::protocol) struct Handed {
    /// What stands in the block.
    pub(in crate::protocol) base: Image,
    /// It is not clean, so the kernel waits.
    pub(in crate::protocol) kernel_waits: bool,
    /// It is a claim of ours, which we may take back until then.
    pub(in crate::protocol) ours_until: Option<Mono>,
    /// The device is mounted (read-only) and protected.
    pub(in crate::protocol) lease: Option<Lease>,
    pub(in crate::protocol) predecessor: Option<Predecessor>,
}

#[derive(Clone, Debug)]
pub(super) struct Expecting {
    /// What stood in the block at the hand-over.
    base: Image,
    /// The kernel's own claim, once it was seen, and when that was.
    claim: Option<(Image, Mono)>,
    since: Mono,
    /// How long the kernel waits before its claim, and after it, at most.
    kernel_wait: Duration,
    /// And at least: it may be ldiskfs's, which waits for less where C is large.
    shortest_wait: Duration,
    /// `base` may be taken back until then: before us it was clean.
    ours_until: Option<Mono>,
    /// The kernel's first beat is due then.
    due: Option<Mono>,
    /// Told once: why the mount has to end.
    overtaken: Option<Option<Refusal>>,
    mounted: bool,
}

impl Watch {
    /// The kernel is about to mount.
    pub(in crate::protocol) fn expecting(now: Now, handed: Handed, context: &mut Context) -> Self {
        let block = MmpBlock::fields(&handed.base);
        let superblock = context.medium.update_interval_s();
        let check_interval_s = timing::taker_check_interval_s(superblock, block.check_interval_s);
        let (kernel_wait, shortest_wait) = match handed.kernel_waits {
            true if broken!(EveryKernelWaitsLong) => {
                (timing::wait(check_interval_s), timing::wait(check_interval_s))
            }
            true => (timing::wait(check_interval_s), timing::lease(check_interval_s)),
            false => (Duration::ZERO, Duration::ZERO),
        };
        let first_beat = Duration::from_secs(kernel_check_interval_s(context).into());
        let expecting = Expecting {
            base: handed.base,
            claim: None,
            since: now.mono,
            kernel_wait,
            shortest_wait,
            ours_until: handed.ours_until,
            due: (!handed.kernel_waits).then_some(now.mono + first_beat),
            overtaken: None,
            mounted: false,
        };
        let unclean = handed.kernel_waits && handed.ours_until.is_none();
        let predecessor = unclean.then(|| Peer::from(&block));
        context.event(Event::HandedOver { wait: kernel_wait * 2, predecessor });
        let mut watch = Watch::begin(now, Stage::Expecting(expecting), handed.predecessor);
        watch.lease = handed.lease;
        watch
    }

    /// When a look that hangs is given up: the first beat of what is mounted has to have been seen long before.
    pub(super) fn unprotected_until(&self) -> Option<Mono> {
        let hangs = timing::limit(timing::MIN_CHECK_INTERVAL_S);
        match &self.stage {
            Stage::Expecting(expecting) if expecting.mounted => expecting.due.map(|due| due + hangs),
            _ => None,
        }
    }

    pub(super) fn expected(&mut self, now: Now, look: Look, image: &Image, context: &mut Context) -> Flow {
        let ended = self.mount_ended;
        let Stage::Expecting(expecting) = &mut self.stage else { unreachable!("asked for while expecting") };
        match context.medium.decode(image) {
            Err(damage) => {
                self.unreadable += 1;
                if self.unreadable > timing::TORN_REREADS {
                    expecting.overtake(Some(Refusal::Damaged { damage }), context);
                }
            }
            Ok(block) => {
                self.unreadable = 0;
                if expecting.is_first_beat(look, image, &block, context) {
                    return self.first_beat(now, look, image, context);
                }
                if !expecting.is_as_expected(now, image, &block, context) {
                    expecting.overtake(refusal_of(&block, now.mono.since(expecting.since)), context);
                }
            }
        }
        if broken!(BridgesBeforeTheBeat) && expecting.stands(image) {
            return self.first_beat(now, look, image, context);
        }
        if ended || expecting.is_kernels_last(image, context) {
            return self.ask(look, image, context);
        }
        if expecting.due.is_some_and(|due| now.mono >= due) {
            if expecting.mounted {
                // It may have been unmounted before its first beat was seen.
                return self.ask(look, image, context);
            }
            // It never came to its claim, or hangs before it: from the start again.
            expecting.overtake(None, context);
        }
        self.look_soon(now, context)
    }

    /// Whatever tried to mount has ended: is something mounted?
    pub(super) fn mount_answered(
        &mut self,
        now: Now,
        look: Look,
        image: &Image,
        activity: Activity,
        context: &mut Context,
    ) -> Flow {
        let first_beat = Duration::from_secs(kernel_check_interval_s(context).into());
        let Stage::Expecting(expecting) = &mut self.stage else { unreachable!("asked for while expecting") };
        match activity {
            Activity::Gone if expecting.mounted => {
                context.event(Event::Unmounted);
                return Flow::Break(Watched::Over);
            }
            Activity::ReadWrite | Activity::ReadOnly | Activity::Stopped
                if expecting.is_kernels_last(image, context) =>
            {
                self.first_beat(now, look, image, context)?;
                return self.ask(look, image, context);
            }
            Activity::Ending => return self.look_at(now.mono + ENDING_PAUSE),
            // Unmounted meanwhile, and somebody has come: it is his.
            Activity::Gone if self.lease.is_some() && !expecting.stands(image) => {
                context.event(Event::Unmounted);
                return Flow::Break(Watched::Over);
            }
            Activity::Gone if self.lease.is_some() => {
                return self.we_beat(now, image, Resumption::Unmounted, context);
            }
            // The read-only mount that was to become writable is still what it was.
            Activity::ReadOnly if self.lease.is_some() => {
                let (base, stands) = (expecting.base, expecting.stands(image));
                // What somebody has put over our mark is judged by the holder, before he writes.
                return match stands {
                    true => self.we_beat(now, image, Resumption::ReadOnly, context),
                    false => self.we_judge(now, &base, Resumption::ReadOnly, context),
                };
            }
            // Read-only at once: its clean mark is looked for, as after a beat that was missed.
            Activity::ReadWrite | Activity::ReadOnly | Activity::Stopped
                if expecting.mounted && expecting.due.is_some_and(|due| now.mono >= due) =>
            {
                return lose(now, Loss::NoKernelBeat, context);
            }
            Activity::ReadWrite | Activity::ReadOnly | Activity::Stopped => {
                self.mount_ended = false;
                expecting.mounted = true;
                expecting.due = Some(now.mono + first_beat);
                return self.look_at(now.mono);
            }
            Activity::Gone => {}
        }
        // The local kernel claims and waits on, or is refused: a claim under which it gave up by itself is not its own.
        let claimed = expecting.claimed_at(image).is_some();
        let rivals = claimed && !self.mount_killed;
        let stands = expecting.stands(image) && !rivals;
        if stands && expecting.may_be_a_rivals(look, image) {
            return self.look_soon(now, context);
        }
        let ours_until = expecting.ours_until.filter(|_| stands).map(|until| match claimed {
            true => now.mono + timing::limit(kernel_check_interval_s(context)),
            false => until,
        });
        if let Some(until) = ours_until.filter(|&until| now.mono < until) {
            self.lease = Some(Lease::until(until));
            return self.we_beat(now, image, Resumption::NotMounted, context);
        }
        let block = MmpBlock::fields(image);
        let standing = match Sequence::from(block.seq) {
            Sequence::Clean => Standing::Clean,
            _ if rivals => Standing::Others,
            _ if claimed || expecting.ours_until.is_some() && stands => Standing::Claim,
            _ if *image == expecting.base => Standing::AsBefore,
            _ => Standing::Others,
        };
        let refusal = match (&expecting.overtaken, standing) {
            (None, Standing::Others) => refusal_of(&block, now.mono.since(expecting.since)),
            (overtaken, _) => overtaken.clone().flatten(),
        };
        context.event(Event::NotMounted { standing, refusal });
        Flow::Break(Watched::Over)
    }
}

impl Expecting {
    pub(super) fn is_mounted(&self) -> bool {
        self.mounted
    }

    /// When the kernel's claim was first seen, if this is it.
    fn claimed_at(&self, image: &Image) -> Option<Mono> {
        self.claim.as_ref().filter(|(claim, _)| claim == image).map(|&(_, at)| at)
    }

    /// Whose claim it is that stands over ours the kernel did not say: the local kernel's, which has let go, or a rival
    /// kernel's, which shows itself within its wait. Until then it is looked at; after that it is taken back like our own.
    fn may_be_a_rivals(&self, look: Look, image: &Image) -> bool {
        self.ours_until.is_some()
            && self
                .claimed_at(image)
                .is_some_and(|at| look.started.since(at) < self.kernel_wait + timing::NATIVE_MARGIN)
    }

    /// The hand-over, or the kernel's claim over it.
    fn stands(&self, image: &Image) -> bool {
        *image == self.base || self.claimed_at(image).is_some()
    }

    /// The kernel's names and a small count, when its waits may be over. It has none if whoever was there left cleanly
    /// between the hand-over and its look: then somebody else's names stood there before, or mount(2) has ended already.
    fn is_first_beat(&self, look: Look, image: &Image, block: &MmpBlock, context: &Context) -> bool {
        let (ours, base) = (context.medium.owner(), MmpBlock::fields(&self.base));
        let waited = look.started + TICK >= self.since + self.shortest_wait * 2;
        (waited || self.mounted || Owner::of(&base) != ours)
            && (Owner::of(block) == ours || (self.mounted && block.device == ours.device))
            && (1..=COUNTING_REACH).contains(&block.seq)
            && !self.stands(image)
    }

    /// A first beat on a device of this name, when the waits are over, under another node's name: the host may have been
    /// renamed meanwhile. Believed when the kernel says that its filesystem is there; if it was a rival's, the kernel's own
    /// check ends the mount.
    fn may_be_renamed(&self, now: Mono, block: &MmpBlock, context: &Context) -> bool {
        now + TICK >= self.since + self.shortest_wait * 2
            && !self.kernel_wait.is_zero()
            && block.device == context.medium.owner().device
            && (1..=COUNTING_REACH).contains(&block.seq)
    }

    /// What is mounted has been remounted or unmounted before we saw a beat: the kernel's own clean mark.
    fn is_kernels_last(&self, image: &Image, context: &Context) -> bool {
        self.mounted
            && *image != self.base
            && context.medium.decode(image).is_ok_and(|block| {
                Sequence::from(block.seq) == Sequence::Clean && Owner::of(&block) == context.medium.owner()
            })
    }

    /// Nothing has changed, or the local kernel has claimed. It does so once, by the sequence alone, and after its wait.
    fn is_as_expected(&mut self, now: Now, image: &Image, block: &MmpBlock, context: &Context) -> bool {
        if self.stands(image) {
            return true;
        }
        let sequence = Sequence::from(block.seq);
        let waited = now.mono + TICK >= self.since + self.shortest_wait * 2;
        if sequence == Sequence::Clean && waited && Owner::of(block) == context.medium.owner() {
            // The local kernel's: its mount failed after its claim. What came of it is asked when mount(8) has ended.
            return true;
        }
        if self.may_be_renamed(now.mono, block, context) {
            return true;
        }
        let live = matches!(sequence, Sequence::Live(_));
        let in_time = now.mono + TICK >= self.since + self.shortest_wait || broken!(AnyClaimIsTheKernels);
        if !live || !in_time || self.claim.is_some() || !differs_in_sequence_alone(&self.base, image) {
            // Once something is mounted a foreign block is judged when the kernel beats, or does not.
            return self.mounted;
        }
        self.claim = Some((*image, now.mono));
        true
    }

    /// Says that the mount has to end, once.
    fn overtake(&mut self, refusal: Option<Refusal>, context: &mut Context) {
        if self.overtaken.is_none() && !self.mounted {
            self.overtaken = Some(refusal.clone());
            context.event(Event::Overtaken { refusal });
        }
    }
}

/// What stands there instead of what was expected. A clean mark is none: whoever was there has left.
fn refusal_of(block: &MmpBlock, after: Duration) -> Option<Refusal> {
    let by = Peer::from(block);
    match Sequence::from(block.seq) {
        Sequence::Clean => None,
        Sequence::Live(_) => Some(Refusal::InUse { by, after }),
        Sequence::Fsck => Some(Refusal::Fsck { by }),
        Sequence::Unknown(seq) => Some(Refusal::UnknownSequence { seq }),
    }
}
