//! Before the kernel's first own beat: it mounts, with our looks beside it, or it has mounted without us.

use std::time::Duration;

use super::super::event::{Event, Loss, Peer, Refusal, Resumption, Standing};
use super::super::foreign::{Ruling, Sighted};
use super::super::guard::{Activity, Context};
use super::super::hold::{Hold, Standing as HoldStanding};
use super::super::lease::Lease;
use super::super::medium::{Owner, differs_in_sequence_alone};
use super::super::sequence::{COUNTING_REACH, Sequence, steps};
use super::super::timing;
use super::beats::u_star;
use super::{Bridge, ENDING_PAUSE, Flow, Handed, Look, Stage, Watch, Watched, kernel_check_interval_s, lose};
use crate::clock::{Mono, Now};
use crate::format::{BlockDamage, Image, MmpBlock};

/// The kernel's tick: its waits are whole ticks.
const TICK: Duration = Duration::from_millis(100);

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
}

#[derive(Clone, Debug)]
pub(super) struct Expecting {
    /// What stood in the block at the hand-over.
    base: Image,
    /// The kernel's own claim, once it was seen.
    claim: Option<Image>,
    since: Mono,
    /// How long the kernel waits before its claim, and after it.
    kernel_wait: Duration,
    /// `base`, or the kernel's claim over it, may be taken back until then: before us it was clean.
    ours_until: Option<Mono>,
    /// The kernel's first beat is due then.
    due: Option<Mono>,
    /// Told once: why the mount has to end.
    overtaken: Option<Option<Refusal>>,
    mounted: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Adopting {
    adoption: Adoption,
    until: Mono,
    /// A block under our names.
    candidate: Option<MmpBlock>,
    /// Somebody else's block was seen, or this host slept: until then our own count proves nothing, since two kernels
    /// that write in turn both count.
    doubtful_until: Option<Mono>,
}

impl Watch {
    /// The kernel is about to mount.
    pub(in crate::protocol) fn expecting(now: Now, handed: Handed, context: &mut Context) -> Self {
        let block = MmpBlock::fields(&handed.base);
        let superblock = context.medium.update_interval_s();
        let kernel_wait = match handed.kernel_waits {
            true => timing::wait(timing::taker_check_interval_s(superblock, block.check_interval_s)),
            false => Duration::ZERO,
        };
        let first_beat = Duration::from_secs(kernel_check_interval_s(context).into());
        let expecting = Expecting {
            base: handed.base,
            claim: None,
            since: now.mono,
            kernel_wait,
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

    /// The kernel has mounted, and nobody watched.
    pub(in crate::protocol) fn adopting(now: Now, adoption: Adoption, context: &mut Context) -> Self {
        let until = now.mono + timing::foreign_look(u_star(context)) + ADOPTION_RESERVE;
        let adopting = Adopting { adoption, until, candidate: None, doubtful_until: None };
        let mut watch = Watch::begin(now, Stage::Adopting(adopting), None);
        watch.lease = adoption.left.map(|left| Lease::until(left.lease_end));
        watch
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
                if expecting.is_first_beat(look, &block, context) {
                    return self.first_beat(now, look, image, context);
                }
                if !expecting.is_as_expected(now, look, image, &block, context) {
                    expecting.overtake(refusal_of(&block, now.mono.since(expecting.since)), context);
                }
            }
        }
        if ended {
            return self.ask(look, image, context);
        }
        if expecting.due.is_some_and(|due| now.mono >= due) {
            if expecting.mounted {
                return lose(now, Loss::NoKernelBeat, context);
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
        image: &Image,
        activity: Activity,
        context: &mut Context,
    ) -> Flow {
        let first_beat = Duration::from_secs(kernel_check_interval_s(context).into());
        let Stage::Expecting(expecting) = &mut self.stage else { unreachable!("asked for while expecting") };
        match activity {
            Activity::Ending => return self.look_at(now.mono + ENDING_PAUSE),
            // The read-only mount that was to become writable is still what it was.
            Activity::ReadOnly | Activity::Gone if self.lease.is_some() => {
                let why = match activity {
                    Activity::ReadOnly => Resumption::ReadOnly,
                    _ => Resumption::Unmounted,
                };
                return self.we_beat(now, image, why, context);
            }
            Activity::ReadOnly => return lose(now, Loss::NoKernelBeat, context),
            Activity::ReadWrite | Activity::Stopped => {
                self.mount_ended = false;
                expecting.mounted = true;
                expecting.due = Some(now.mono + first_beat);
                return self.look_at(now.mono);
            }
            Activity::Gone => {}
        }
        // The local kernel claims and waits on, or is refused: a claim under which it gave up is not its own.
        let claimed = expecting.claim.as_ref() == Some(image);
        let rivals = claimed && !self.mount_killed;
        let stands = expecting.stands(image) && !rivals;
        let ours = expecting.ours_until.filter(|&until| now.mono < until && stands);
        if let Some(until) = ours {
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
            let sighted = Sighted { started: look.started, image, latest, slept, predecessor: None };
            if let Ruling::WeLose(loss) = self.foreign.rule(now, &sighted, context) {
                return lose(now, loss, context);
            }
        }
        if now.mono >= until { silent(Some(&block), context) } else { self.look_at(again) }
    }
}

impl Watch {
    /// Takes the place of a guard that died: what stands there was written by it or by the kernel, or is judged as it
    /// would have judged it, under its lease.
    fn goes_on(&mut self, now: Now, look: Look, image: &Image, left: Left, context: &mut Context) -> Flow {
        let Ok(block) = context.medium.decode(image) else {
            return self.look_at(now.mono + timing::TORN_PAUSE);
        };
        let ours = Owner::of(&block) == context.medium.owner();
        let submitted = ours && left.submitted_seq == Some(block.seq);
        let as_peer = Peer::from(&block);
        if left.beating {
            let Some(lease) = self.lease else { unreachable!("set from what was left") };
            context.event(Event::Held { lease_end: left.lease_end, as_peer });
            // A foreign block is judged by the holder: what it is to find is then what it would have written.
            let seq = left.submitted_seq.unwrap_or(block.seq);
            let expected = context.medium.compose(image, seq, now.wall, block.check_interval_s);
            let found = if submitted { *image } else { expected };
            let standing =
                HoldStanding { image: found, lease, predecessor: None, release: false, back: None };
            return Flow::Break(Watched::WeBeat(Hold::go_on(now, standing, context)));
        }
        let kernel_seq = left.kernel_seq.unwrap_or(block.seq);
        // All but sequence and time is the kernel's own, whoever wrote it last.
        self.kernel = match ours {
            true => context.medium.renew(image, kernel_seq, now.wall),
            false => context.medium.compose(image, kernel_seq, now.wall, block.check_interval_s),
        };
        self.kernel_at = look.before;
        self.stage = Stage::Watching;
        context.event(Event::KernelBeats { lease_end: left.lease_end, as_peer });
        if submitted && block.seq != kernel_seq {
            self.stage = Stage::Bridging(Bridge {
                acknowledged: Some(*image),
                unacknowledged: None,
                seq: block.seq,
                next_beat: now.mono,
            });
            return self.bridged(now, look, image, context);
        }
        if ours && block.seq == kernel_seq {
            self.kernel = *image;
        }
        self.watched(now, look, image, context)
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

impl Expecting {
    /// The hand-over, or the kernel's claim over it.
    fn stands(&self, image: &Image) -> bool {
        *image == self.base || self.claim.as_ref() == Some(image)
    }

    /// The kernel's names and a small count, when its waits may be over.
    fn is_first_beat(&self, look: Look, block: &MmpBlock, context: &Context) -> bool {
        let waited = look.started + TICK >= self.since + self.kernel_wait * 2;
        waited
            && Owner::of(block) == context.medium.owner()
            && (1..=COUNTING_REACH).contains(&block.seq)
            && block.seq != MmpBlock::fields(&self.base).seq
    }

    /// Nothing has changed, or the local kernel has claimed. It does so once, by the sequence alone, and after its wait.
    fn is_as_expected(
        &mut self,
        now: Now,
        look: Look,
        image: &Image,
        block: &MmpBlock,
        context: &Context,
    ) -> bool {
        if self.stands(image) {
            return true;
        }
        let live = matches!(Sequence::from(block.seq), Sequence::Live(_));
        let in_time = now.mono + TICK >= self.since + self.kernel_wait;
        if !live || !in_time || self.claim.is_some() || !differs_in_sequence_alone(&self.base, image) {
            // Once something is mounted a foreign block is judged when the kernel beats, or does not.
            return self.mounted;
        }
        self.claim = Some(*image);
        if self.ours_until.is_some() {
            self.ours_until = Some(look.before + timing::lease(kernel_check_interval_s(context)));
        }
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

impl Adoption {
    /// Fewer beats were counted than fit into the time: this host stood still for longer than a check interval. `kmmpd`'s
    /// period is 1.02 to 1.03 of its interval, so a twentieth is allowed for.
    fn slept(&self, now: Mono, seq: u32, context: &Context) -> bool {
        let Some((at, counted)) = self.counted else { return false };
        let superblock = context.medium.update_interval_s();
        let interval = Duration::from_secs(timing::update_interval_s(superblock).into());
        let accounted = interval * seq.saturating_sub(counted).saturating_add(1) * 21 / 20;
        let check_interval = Duration::from_secs(kernel_check_interval_s(context).into());
        now.since(at) > accounted + check_interval
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

/// No beats of the kernel's: it is frozen, or not what it was taken for.
fn silent(block: Option<&MmpBlock>, context: &mut Context) -> Flow {
    let refusal = match block {
        Some(block) => Refusal::NoBeat { by: Peer::from(block) },
        None => Refusal::Damaged { damage: BlockDamage::Magic { found: 0 } },
    };
    context.event(Event::Refused { refusal });
    Flow::Break(Watched::Over)
}
