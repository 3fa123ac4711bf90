//! A filesystem that is mounted already: by a plain mount(8), or under a guard that has just died. In an area only the latter: no
//! kernel beats there.
//!
//! Protects: who takes a dead guard's place has its lease and not a nanosecond more until a write of his own has landed, and its
//! generation; what stands there is judged as it would have judged it. Does not find out whether it is dead: the keeper does, who
//! has waited for its process.

use std::time::Duration;

use super::super::event::{Event, Loss, Peer, Refusal};
use super::super::foreign::{Foreign, Ruling, Sighted};
use super::super::guard::Context;
use super::super::hold::{Hold, Standing as HoldStanding};
use super::super::lease::Lease;
use super::super::medium::Owner;
use super::super::sequence::{COUNTING_REACH, Sequence, steps};
use super::super::timing;
use super::{Bridge, Flow, Look, Stage, Watch, Watched, kernel_check_interval_s, lose, u_star};
use crate::clock::{Mono, Now};
use crate::format::{BlockDamage, Damage, Image, MmpBlock};

/// For an adoption: so much longer than it takes to know of a foreign block is the kernel's next beat waited for.
const ADOPTION_RESERVE: Duration = Duration::from_secs(2);

/// What is known of the kernel's beats from before, when a filesystem that is mounted already is adopted. It tells
/// whether this host slept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adoption {
    /// At that time its count stood at that.
    pub counted: Option<(Mono, u32)>,
    /// A guard of this host's has just died, and its lease still runs: we go on where it ended.
    pub left: Option<Left>,
}

/// What a guard that died has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// The end of its lease.
    pub lease_end: Mono,
    /// The kernel's count as it was last seen; none if the kernel never beat.
    pub kernel_seq: Option<u32>,
    /// The sequence that it wrote last, or was about to write; none if it never wrote.
    pub submitted_seq: Option<u32>,
    /// It held the device by its own beats, not by the kernel's.
    pub beating: bool,
    /// The number of its acquisition; none natively.
    pub generation: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct Adopting {
    adoption: Adoption,
    until: Mono,
    /// What is protected is used no more: whoever goes on in a dead holder's place is to release it.
    release: bool,
    /// A block under our names.
    candidate: Option<MmpBlock>,
    /// Somebody else's block was seen, or this host slept: until then our own count proves nothing, since two kernels
    /// that write in turn both count.
    doubtful_until: Option<Mono>,
}

impl Watch {
    /// The kernel has mounted, and nobody watched.
    pub(in crate::protocol) fn adopting(now: Now, adoption: Adoption, context: &mut Context) -> Self {
        let goes_on =
            adoption.succeeds_a_holder() && adoption.left.is_some_and(|left| left.generation.is_some());
        assert!(context.medium.interval().is_none() || goes_on, "no kernel beats in an area");
        if let Some(left) = adoption.left {
            context.medium.resume(left.generation);
        }
        let until = now.mono + timing::foreign_look(u_star(context)) + ADOPTION_RESERVE;
        let adopting = Adopting { adoption, until, release: false, candidate: None, doubtful_until: None };
        let mut watch = Watch::begin(now, Stage::Adopting(adopting), None);
        watch.lease = adoption.left.map(|left| Lease::until(left.lease_end));
        watch
    }

    /// Looks for two beats of the kernel's, and for anybody else's. While it is not known whose they are, the names have
    /// to do: `Foreign` knows who counts.
    pub(super) fn adopted(&mut self, now: Now, look: Look, image: &Image, context: &mut Context) -> Flow {
        let Stage::Adopting(adopting) = &mut self.stage else { unreachable!("asked for while adopting") };
        if let Some(left) = adopting.adoption.left {
            return self.goes_on(now, look, image, left, context);
        }
        let pause =
            if adopting.doubtful_until.is_some() { timing::DOUBT_LOOK } else { timing::ADOPTION_LOOK };
        let again = now.mono + pause;
        let (until, candidate) = (adopting.until, adopting.candidate);
        let Ok(block) = context.medium.decode(image) else {
            return if now.mono >= until { silent(None, context) } else { self.look_at(again) };
        };
        if Sequence::from(block.seq) == Sequence::Fsck {
            return lose(now, Loss::Fsck { by: Peer::from(&block) }, context);
        }
        let ours = Owner::of(&block) == context.medium.owner();
        let live = matches!(Sequence::from(block.seq), Sequence::Live(_));
        if ours && live && candidate.is_none_or(|last| last.seq != block.seq) {
            adopting.candidate = Some(block);
            if adopting.adoption.slept(now.mono, block.seq, context) {
                self.last_gap = Some(now.mono);
                adopting.doubt(now.mono, context);
            }
            let known = adopting.doubtful_until.is_none_or(|until| now.mono >= until);
            if known
                && candidate
                    .is_some_and(|last| matches!(steps(last.seq, block.seq, COUNTING_REACH), Some(1..)))
            {
                return self.first_beat(now, look, image, context);
            }
        } else if !ours && live {
            adopting.doubt(now.mono, context);
            let (slept, latest) = (self.last_gap.is_some(), Mono::FAR);
            let (predecessor, kernel_beats) = (None, true);
            let sighted = Sighted { started: look.started, image, latest, slept, predecessor, kernel_beats };
            // As long as nothing was seen of our own kernel we may not know its names, and these may be them.
            if let (Ruling::WeLose(loss), Some(_)) = (self.foreign.rule(now, &sighted, context), candidate) {
                return lose(now, loss, context);
            }
        }
        if now.mono >= until { silent(Some(&block), context) } else { self.look_at(again) }
    }

    /// Takes the place of a guard that died: what stands there was written by it or by the kernel, or is judged as it
    /// would have judged it, under its lease.
    fn goes_on(&mut self, now: Now, look: Look, image: &Image, left: Left, context: &mut Context) -> Flow {
        if context.medium.interval().is_some() {
            let stands =
                left.submitted_seq == Some(MmpBlock::fields(image).seq) && context.medium.is_own(image);
            return self.beats_on(now, look, image, left, stands, context);
        }
        let Ok(block) = context.medium.decode(image) else {
            return self.look_at(now.mono + timing::TORN_PAUSE);
        };
        // The node may have been renamed since the kernel wrote its names: the sequence that was left tells, too.
        let same_device = block.device == context.medium.owner().device;
        let counted = left.kernel_seq.is_some_and(|seq| steps(seq, block.seq, COUNTING_REACH).is_some());
        let ours = same_device && (counted || left.submitted_seq == Some(block.seq))
            || Owner::of(&block) == context.medium.owner();
        if ours && left.kernel_seq.is_some() {
            context.medium.rename(Owner::of(&block));
        }
        let submitted = ours && left.submitted_seq == Some(block.seq);
        if left.beating {
            return self.beats_on(now, look, image, left, submitted, context);
        }
        let kernel_seq = left.kernel_seq.unwrap_or(block.seq);
        // All but sequence and time is the kernel's own, whoever wrote it last.
        self.kernel = match ours {
            true => context.medium.renew(image, kernel_seq, now.wall),
            false => {
                context.medium.compose(image, kernel_seq, now.wall, context.medium.check_of(image), true)
            }
        };
        self.kernel_at = look.before;
        self.stage = Stage::Watching;
        let as_peer = Peer::from(&block);
        context.event(Event::KernelBeats { lease_end: left.lease_end, as_peer });
        if submitted && block.seq != kernel_seq {
            self.stage = Stage::Bridging(Bridge {
                acknowledged: Some(*image),
                unacknowledged: None,
                seq: block.seq,
                beats: 0,
                next_beat: now.mono,
            });
            return self.bridged(now, look, image, context);
        }
        // What was counted since has landed at any time since the dead guard looked: its lease is all that is known to run.
        if ours && (counted || block.seq == kernel_seq) {
            self.kernel = *image;
        }
        self.watched(now, look, image, context)
    }

    /// Takes the place of one that held the device by its own beats, under what is left of its lease: this look is no beat of ours.
    /// Whatever stands there the holder judges, to whom what he is to find is what the dead one would have written: also what
    /// does not decode. `stands`: that is there.
    fn beats_on(
        &mut self,
        now: Now,
        look: Look,
        image: &Image,
        left: Left,
        stands: bool,
        context: &mut Context,
    ) -> Flow {
        let Stage::Adopting(adopting) = &self.stage else { unreachable!("asked for while adopting") };
        let check = context.medium.check_of(image);
        let lease = match broken!(LeaseFromSuccession) {
            true => Lease::until(look.started + check.lease()),
            false => self.lease.unwrap_or(Lease::until(left.lease_end)),
        };
        let block = MmpBlock::fields(image);
        context.event(Event::Held { lease_end: lease.end(), as_peer: Peer::from(&block) });
        let seq = left.submitted_seq.unwrap_or(block.seq);
        let image = if stands { *image } else { context.medium.compose(image, seq, now.wall, check, true) };
        let (foreign, back) = (Foreign::default(), None);
        let standing = HoldStanding { image, lease, predecessor: None, release: false, back, foreign };
        let mut hold = Hold::go_on(now, standing, context);
        hold.succeed(adopting.release, context);
        Flow::Break(Watched::WeBeat(hold))
    }

    /// Nothing uses the device any more. A watcher hears that from the kernel; whoever goes on in a holder's place does not.
    pub(super) fn is_to_release(&mut self) {
        if let Stage::Adopting(adopting) = &mut self.stage {
            adopting.release = true;
        }
    }

    /// A dead holder's place is being taken: nobody else beats.
    pub(in crate::protocol) fn succeeds_a_holder(&self) -> bool {
        matches!(&self.stage, Stage::Adopting(adopting) if adopting.adoption.succeeds_a_holder())
    }
}

impl Adopting {
    /// From now on it is looked until somebody who counts would have shown himself; once.
    fn doubt(&mut self, now: Mono, context: &Context) {
        if self.doubtful_until.is_none() {
            let until = now + timing::foreign_look(u_star(context));
            self.doubtful_until = Some(until);
            self.until = self.until.max(until + ADOPTION_RESERVE);
        }
    }
}

impl Adoption {
    /// A guard has died that beat by itself.
    fn succeeds_a_holder(&self) -> bool {
        self.left.is_some_and(|left| left.beating)
    }

    /// Fewer beats were counted than fit into the time: this host stood still for longer than a check interval. `kmmpd`'s
    /// period is 1.02 to 1.03 of its interval, and long timers are rounded up by an eighth at most.
    fn slept(&self, now: Mono, seq: u32, context: &Context) -> bool {
        let Some((at, counted)) = self.counted else { return false };
        let superblock = context.medium.update_interval_s();
        let interval = Duration::from_secs(timing::update_interval_s(superblock).into());
        let accounted = interval * seq.saturating_sub(counted).saturating_add(1) * 9 / 8;
        let check_interval = Duration::from_secs(kernel_check_interval_s(context).into());
        now.since(at) > accounted + check_interval
    }
}

/// No beats of the kernel's: it is frozen, or not what it was taken for.
fn silent(block: Option<&MmpBlock>, context: &mut Context) -> Flow {
    let refusal = match block {
        Some(block) => Refusal::NoBeat { by: Peer::from(block) },
        None => Refusal::Damaged { damage: Damage::Block(BlockDamage::Magic { found: 0 }) },
    };
    context.event(Event::Refused { refusal });
    Flow::Break(Watched::Over)
}
