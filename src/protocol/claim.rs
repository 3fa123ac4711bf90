//! Claim: from the first look to *held*, or to a refusal. The steps and their reasons stand in the module doc of
//! `protocol`; the numbers in the comments here are its numbers.
//!
//! Protects: nothing of a live holder's is overwritten but by a write that was already on its way when he came, and
//! of several claimers one gets in. Does not protect against writes that become visible later than a wait.

use std::time::Duration;

use super::event::{Event, Peer, Quiet, Refusal};
use super::guard::{Context, Failure, Input, Write};
use super::hold::{Hold, Taken};
use super::medium::Owner;
use super::sequence::{self, Sequence};
use super::timing;
use crate::clock::{Mono, Now};
use crate::format::{BlockDamage, Image, MmpBlock};

/// A block that does not decode is read again so often before it is called damaged: a concurrent write can tear.
const REREADS: u32 = 4;
/// The pause before such a re-read.
const REREAD_PAUSE: Duration = Duration::from_millis(10);

/// A claim under way.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    step: Step,
    /// What is waited for: an answer, or a point in time.
    wait: Wait,
    /// When the read under way was asked for. Stamps are ours, taken before asking and after the answer: so a look
    /// never seems shorter than it was.
    look_started: Mono,
    /// The slowest answer so far.
    worst_io: Duration,
    /// Reads in a row that did not decode.
    undecoded: u32,
    /// The check interval to claim with, doubled when a write was too slow to count.
    own_check_interval_s: u16,
    /// A watch lasts at least this long: a write of ours that was late by so much may have buried a whole claim.
    minimum_watch: Duration,
    /// Our write may stand in the block.
    written: bool,
    /// Start of the look before the write that stands in the silence of step 4.
    standing_since: Mono,
    /// Who used it before, if he did not leave cleanly.
    predecessor: Option<Owner>,
    /// For whom patience was announced last.
    waiting_for: Option<Owner>,
}

/// How the claim goes on after an input.
pub(super) enum Progress {
    Going,
    Held(Hold),
    Over,
}

#[derive(Clone, Debug)]
enum Step {
    /// (1) The first look, or the first after starting again.
    Look,
    /// (2) Watching a block that is not clean, or a clean one that may lie.
    Watch(Watch),
    /// Between the last look and the claim: is the superblock still the one we know?
    Probe { base: Image, watched: Option<Duration> },
    /// (3) The claim is on its way.
    Writing { image: Image, stage: Stage },
    /// (4) Our write stands and is watched for half a wait.
    Silent { image: Image, since: Mono, stage: Stage },
    /// Another claimer was faster.
    BackOff,
}

#[derive(Clone, Debug)]
struct Watch {
    base: Image,
    /// End of the first look that saw these bytes.
    since: Mono,
    need: Duration,
    /// When watching as such began, for the report.
    began: Mono,
}

/// Which of the three writes of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Claim,
    Middle,
    Last,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Answer,
    Until(Mono),
}

impl Claim {
    pub(super) fn new(now: Now, context: &mut Context) -> Self {
        let interval = context.options.interval;
        let mut claim = Claim {
            step: Step::Look,
            wait: Wait::Answer,
            look_started: now.mono,
            worst_io: Duration::ZERO,
            undecoded: 0,
            own_check_interval_s: timing::holder_check_interval_s(
                interval,
                interval,
                context.options.check_interval_floor_s,
            ),
            minimum_watch: Duration::ZERO,
            written: false,
            standing_since: now.mono,
            predecessor: None,
            waiting_for: None,
        };
        claim.look(now, context);
        claim
    }

    pub(super) fn deadline(&self) -> Mono {
        match self.wait {
            Wait::Answer => Mono::FAR,
            Wait::Until(at) => at,
        }
    }

    pub(super) fn handle(&mut self, now: Now, input: Input<'_>, context: &mut Context) -> Progress {
        match (input, self.wait) {
            (Input::Tick, Wait::Until(at)) if now.mono >= at => self.look(now, context),
            (Input::Tick, _) => {}
            (Input::Withdraw | Input::Release | Input::CellLost, _) => {
                return refuse(Refusal::Withdrawn { claim_left_standing: self.written }, context);
            }
            (Input::Read(answer), Wait::Answer) => return self.read(now, answer, context),
            (Input::Superblock(answer), Wait::Answer) => return self.probed(now, answer, context),
            (Input::Written(answer), Wait::Answer) => return self.wrote(now, Some(answer), context),
            (Input::NotWritten, Wait::Answer) => return self.wrote(now, None, context),
            (answer, Wait::Until(_)) => unreachable!("an answer that nobody asked for: {answer:?}"),
        }
        Progress::Going
    }

    fn look(&mut self, now: Now, context: &mut Context) {
        if matches!(self.step, Step::BackOff) {
            self.step = Step::Look;
        }
        self.look_started = now.mono;
        self.wait = Wait::Answer;
        context.read();
    }

    fn look_at(&mut self, at: Mono) {
        self.wait = Wait::Until(at);
    }

    fn read(&mut self, now: Now, answer: Result<&Image, Failure<'_>>, context: &mut Context) -> Progress {
        self.worst_io = self.worst_io.max(now.mono.since(self.look_started));
        let image = match answer {
            Ok(image) => *image,
            Err(failure) => return refuse(Refusal::Io { what: failure.0.to_owned() }, context),
        };
        let block = match context.medium.decode(&image) {
            Ok(block) => block,
            Err(damage) => return self.reread(now, damage, context),
        };
        self.undecoded = 0;
        match &self.step {
            Step::Look => self.looked(now, image, block, context),
            Step::Watch(watch) if image == watch.base => self.still(now, context),
            Step::Watch(watch) => {
                let after = now.mono.since(watch.began);
                self.changed(now, image, block, after, context)
            }
            Step::Silent { image: ours, .. } if image == *ours => self.silent(now, context),
            Step::Silent { .. } => self.lost_race(now, block, context),
            Step::Probe { .. } | Step::Writing { .. } | Step::BackOff => {
                unreachable!("no read was asked for")
            }
        }
    }

    fn reread(&mut self, now: Now, damage: BlockDamage, context: &mut Context) -> Progress {
        self.undecoded += 1;
        if self.undecoded > REREADS {
            return refuse(Refusal::Damaged { damage }, context);
        }
        self.look_at(now.mono + REREAD_PAUSE);
        Progress::Going
    }

    /// (1) What the first look shows.
    fn looked(&mut self, now: Now, image: Image, block: MmpBlock, context: &mut Context) -> Progress {
        match Sequence::from(block.seq) {
            Sequence::Clean => self.probe(image, None, context),
            Sequence::Live(_) => self.watch(now, image, &block, false, now.mono, context),
            Sequence::Fsck => self.refuse_or_wait(now, image, &block, Duration::ZERO, context),
            Sequence::Unknown(seq) => return refuse(Refusal::UnknownSequence { seq }, context),
        }
    }

    /// (2) The bytes changed under the watch: somebody is there, or has just left.
    fn changed(
        &mut self,
        now: Now,
        image: Image,
        block: MmpBlock,
        after: Duration,
        context: &mut Context,
    ) -> Progress {
        match Sequence::from(block.seq) {
            Sequence::Clean => self.probe(image, None, context),
            Sequence::Live(_) | Sequence::Fsck => self.refuse_or_wait(now, image, &block, after, context),
            Sequence::Unknown(seq) => refuse(Refusal::UnknownSequence { seq }, context),
        }
    }

    /// (2) The bytes still stand. From the *end* of the first look to the *start* of this one, or it does not count.
    fn still(&mut self, now: Now, context: &mut Context) -> Progress {
        let Step::Watch(watch) = &self.step else { unreachable!("asked for while watching") };
        let unchanged = self.look_started.since(watch.since);
        let block = MmpBlock::fields(&watch.base);
        if Sequence::from(block.seq) == Sequence::Fsck {
            // Only patience brought us here; no watching proves an e2fsck dead.
            let (base, after) = (watch.base, now.mono.since(watch.began));
            return self.refuse_or_wait(now, base, &block, after, context);
        }
        if unchanged >= watch.need {
            let base = watch.base;
            return self.probe(base, Some(unchanged), context);
        }
        let end = watch.since + watch.need;
        self.look_at((now.mono + timing::look_period(context.options.interval)).min(end));
        Progress::Going
    }

    fn watch(
        &mut self,
        now: Now,
        base: Image,
        block: &MmpBlock,
        doubtful_clean: bool,
        began: Mono,
        context: &mut Context,
    ) -> Progress {
        let check_interval_s = self.check_interval_s(block.check_interval_s, context);
        let need = match doubtful_clean {
            true => self.watch_of(timing::doubtful_clean_watch(check_interval_s)),
            false => self.watch_of_live(check_interval_s, context),
        };
        if Sequence::from(block.seq) != Sequence::Fsck {
            context.event(Event::Watching { of: Peer::from(block), until: now.mono + need, total: need });
        }
        self.step = Step::Watch(Watch { base, since: now.mono, need, began });
        self.look_at(now.mono + timing::look_period(context.options.interval));
        Progress::Going
    }

    /// How long a block that is not clean must stand still. The device is used no sooner than two of *its* waits after
    /// its last write: its holder needs the second one to stop what he protects. Our claim stands for a wait of our
    /// own C only, which may be the shorter one; what is missing is watched before.
    fn watch_of_live(&self, check_interval_s: u16, context: &Context) -> Duration {
        self.watch_of(timing::wait(check_interval_s) * 2 - self.standing_wait(context))
    }

    fn watch_of(&self, wait: Duration) -> Duration {
        wait.max(self.minimum_watch) + timing::NATIVE_MARGIN + self.worst_io
    }

    /// Somebody is there: the end, unless patience was asked for; then the watch begins anew on these bytes.
    fn refuse_or_wait(
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
                let check_interval_s = self.check_interval_s(block.check_interval_s, context);
                let need = self.watch_of_live(check_interval_s, context);
                let began = now.mono - after;
                self.step = Step::Watch(Watch { base: image, since: now.mono, need, began });
                self.look_at(now.mono + timing::look_period(context.options.interval));
                Progress::Going
            }
            _ if fsck => refuse(Refusal::Fsck { by }, context),
            _ => refuse(Refusal::InUse { by, after }, context),
        }
    }

    /// C of this claim: a taker's, and our own.
    fn check_interval_s(&self, on_disk_s: u16, context: &Context) -> u16 {
        timing::taker_check_interval_s(context.medium.update_interval_s(), on_disk_s)
            .max(self.own_check_interval_s)
    }

    fn probe(&mut self, base: Image, watched: Option<Duration>, context: &mut Context) -> Progress {
        self.step = Step::Probe { base, watched };
        self.wait = Wait::Answer;
        context.superblock();
        Progress::Going
    }

    fn probed(
        &mut self,
        now: Now,
        answer: Result<&[u8; 1024], Failure<'_>>,
        context: &mut Context,
    ) -> Progress {
        let Step::Probe { base, watched } = self.step else { unreachable!("no superblock was asked for") };
        let believable = match answer {
            Err(failure) => return refuse(Refusal::Io { what: failure.0.to_owned() }, context),
            Ok(bytes) => match context.medium.clean_is_believable(bytes) {
                Ok(believable) => believable,
                Err(what) => return refuse(Refusal::Changed { what }, context),
            },
        };
        let block = MmpBlock::fields(&base);
        let clean = Sequence::from(block.seq) == Sequence::Clean;
        if clean && watched.is_none() && !believable {
            return self.watch(now, base, &block, true, now.mono, context);
        }
        if context.options.watch_only {
            let by = Peer::from(&block);
            let verdict = match watched {
                Some(unchanged) if !clean => Quiet::Dead { was: by, unchanged },
                _ => Quiet::Clean { by },
            };
            context.event(Event::Watched { verdict });
            return Progress::Over;
        }
        // After a write that did not count it is our own claim that stands there: remember who was before it.
        if Owner::of(&block) != context.medium.owner() {
            self.predecessor = (!clean || !believable).then(|| Owner::of(&block));
        }
        self.write(now, &base, Stage::Claim, context)
    }

    /// (3), (4), (5): each write is a jump, so that nobody takes a claimer for a holder who counts.
    fn write(&mut self, now: Now, base: &Image, stage: Stage, context: &mut Context) -> Progress {
        let seq = sequence::jump(&mut context.rng, MmpBlock::fields(base).seq);
        let image = context.medium.compose(base, seq, now.wall, self.own_check_interval_s);
        let not_after = self.look_started + self.limit();
        self.step = Step::Writing { image, stage };
        self.wait = Wait::Answer;
        self.written = true;
        context.write(Write { image, durable: true, not_after });
        Progress::Going
    }

    /// The wait of this claim, once our own block stands: nobody's C but ours and the superblock's counts.
    fn standing_wait(&self, context: &Context) -> Duration {
        timing::wait(self.check_interval_s(0, context))
    }

    /// How long a write of ours may stand before the last one follows: the shortest wait of any peer.
    fn longest_silence(&self, context: &Context) -> Duration {
        timing::lease(self.check_interval_s(0, context))
    }

    /// By our own C, which the first lease comes from: so the last write is acknowledged well within that lease.
    fn limit(&self) -> Duration {
        timing::limit(self.own_check_interval_s)
    }

    fn wrote(
        &mut self,
        now: Now,
        answer: Option<Result<(), Failure<'_>>>,
        context: &mut Context,
    ) -> Progress {
        let Step::Writing { image, stage } = self.step else { unreachable!("no write was asked for") };
        let took = now.mono.since(self.look_started);
        if let Some(Err(failure)) = answer {
            return refuse(Refusal::Io { what: failure.0.to_owned() }, context);
        }
        let limit = self.limit();
        if answer.is_none() || took > limit {
            return self.too_slow(now, took, limit, context);
        }
        let half = self.standing_wait(context) / 2;
        // If what stood before stood still for longer than any peer waits, a rival may be claiming by right: his write
        // may follow ours, and he would be in one wait after it instead of two.
        let (stood, longest) = (now.mono.since(self.standing_since), self.longest_silence(context));
        match stage {
            Stage::Last if stood > longest => return self.too_slow(now, stood, longest, context),
            Stage::Last => {
                let taken = Taken {
                    look_started: self.look_started,
                    image,
                    predecessor: self.predecessor,
                    check_interval_s: self.own_check_interval_s,
                };
                return Progress::Held(Hold::begin(now, taken, context));
            }
            Stage::Claim => context.event(Event::Claiming { until: now.mono + half * 2, total: half * 2 }),
            Stage::Middle => {}
        }
        self.standing_since = self.look_started;
        self.step = Step::Silent { image, since: now.mono, stage };
        self.look_at(now.mono + timing::look_period(context.options.interval));
        Progress::Going
    }

    /// A write that took longer than the limit counts for nothing: a rival may have come, looked and claimed under
    /// it. Everything starts again, with C doubled so that a slow device ends, and with a watch at least as long as
    /// the write was late: whoever holds under it needed that long to get in, so he beats within it.
    fn too_slow(&mut self, now: Now, took: Duration, limit: Duration, context: &mut Context) -> Progress {
        if self.own_check_interval_s >= timing::MAX_CHECK_INTERVAL_S {
            let what = format!(
                "the device is too slow to be protected: a write took {:.1} s, at most {:.1} s can count",
                took.as_secs_f64(),
                limit.as_secs_f64()
            );
            return refuse(Refusal::Io { what }, context);
        }
        self.own_check_interval_s = (self.own_check_interval_s * 2).min(timing::MAX_CHECK_INTERVAL_S);
        self.minimum_watch = self.minimum_watch.max(took);
        context.event(Event::TooSlow { took, limit, check_interval_s: self.own_check_interval_s });
        self.step = Step::Look;
        self.look(now, context);
        Progress::Going
    }

    /// (4) Our write still stands.
    fn silent(&mut self, now: Now, context: &mut Context) -> Progress {
        let Step::Silent { image, since, stage } = self.step else { unreachable!("asked for while silent") };
        let half = self.standing_wait(context) / 2;
        if self.look_started.since(since) >= half {
            let stage = if stage == Stage::Claim { Stage::Middle } else { Stage::Last };
            return self.write(now, &image, stage, context);
        }
        self.look_at((now.mono + timing::look_period(context.options.interval)).min(since + half));
        Progress::Going
    }

    /// (4) Another claimer wrote over us, or a holder did: leave the block alone.
    fn lost_race(&mut self, now: Now, block: MmpBlock, context: &mut Context) -> Progress {
        let by = Peer::from(&block);
        match Sequence::from(block.seq) {
            Sequence::Fsck if context.options.patience_until.is_none() => {
                return refuse(Refusal::Fsck { by }, context);
            }
            Sequence::Unknown(seq) => return refuse(Refusal::UnknownSequence { seq }, context),
            Sequence::Live(_) | Sequence::Clean | Sequence::Fsck => {}
        }
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

fn refuse(refusal: Refusal, context: &mut Context) -> Progress {
    context.event(Event::Refused { refusal });
    Progress::Over
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
