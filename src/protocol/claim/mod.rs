//! Claim: from the first look to *held*, or to a refusal. The steps and their reasons stand in
//! `docs/safety.md`; the numbers in the comments here are its numbers.
//!
//! Protects: nothing of a live holder's is overwritten but by a write that was already on its way when he came, and
//! of several claimers one gets in. Does not protect against writes that become visible later than a wait.

mod damaged;
mod entry;
mod standing;
mod watching;

use std::time::Duration;

use self::watching::Watch;
use super::event::{Event, Refusal};
use super::foreign::Predecessor;
use super::guard::{Context, Failure, Input};
use super::hold::Hold;
use super::medium::Owner;
use super::sequence::Sequence;
use super::standby::Credit;
use super::timing::CheckInterval;
use super::watch::Watch as KernelWatch;
use crate::clock::{Mono, Now};
use crate::format::{Image, MmpBlock};

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
    own_check: CheckInterval,
    /// A watch lasts at least this long: a write of ours that was late by so much may have buried a whole claim.
    minimum_watch: Duration,
    /// Our write may stand in the block.
    written: bool,
    /// Start of the look before the write that stands in the silence of step 4.
    standing_since: Mono,
    /// Who used it before, if he did not leave cleanly.
    predecessor: Option<Predecessor>,
    /// For whom patience was announced last.
    waiting_for: Option<Owner>,
    /// What a standby watched before, until the first look has shown what it does.
    credit: Option<Box<Credit>>,
    /// What the first look showed, if it names the node that the one who asks vouches to be dead.
    vouched: Option<Image>,
    /// What nobody could claim, if the one who asks has not answered for these very bytes.
    answered_for: Option<Box<Image>>,
    looked_before: bool,
    /// Somebody was seen beating.
    seen_live: bool,
    /// What we claimed over was clean: so it is again if we take the claim back.
    was_clean: bool,
}

/// How the claim goes on after an input.
#[allow(clippy::large_enum_variant)] // moved once in the life of a guard
pub(super) enum Progress {
    Going,
    Held(Hold),
    HandedOver(KernelWatch),
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
    /// In an area: the slot's entry is read, and written with the generation that this claim drew.
    Draw { base: Image, watched: Option<Duration> },
    /// It is drawn: does what is claimed over still stand?
    Drawn { base: Image },
    /// In an area: our claim has stood since then, and the entry is looked at again.
    Confirm { image: Image, since: Mono },
    /// (3) The claim is on its way.
    Writing { image: Image, stage: Stage },
    /// (4) Our write stands and is watched for half a wait.
    Silent { image: Image, since: Mono, stage: Stage },
    /// Another claimer was faster.
    BackOff,
}

/// Which of the writes of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Claim,
    Middle,
    /// None: the middle one stood, and in an area the entry is as it should be.
    Confirmed,
    Last,
    /// The only one, when the local kernel does the waiting.
    HandOver,
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
            own_check: context.medium.holder_check(
                interval,
                interval,
                context.options.check_interval_floor_s,
            ),
            minimum_watch: Duration::ZERO,
            written: false,
            standing_since: now.mono,
            predecessor: None,
            waiting_for: None,
            credit: None,
            vouched: None,
            answered_for: None,
            looked_before: false,
            seen_live: context.options.seen_live,
            was_clean: false,
        };
        claim.look(now, context);
        claim
    }

    /// Time that was watched before.
    pub(super) fn count(&mut self, credit: Credit) {
        self.credit = Some(Box::new(credit));
    }

    /// Bytes that are watched although they would be refused.
    pub(super) fn answer_for(&mut self, seen: Image) {
        self.answered_for = Some(Box::new(seen));
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
            (Input::Tick | Input::HandOver { .. } | Input::MountEnded { .. }, _) => {}
            (Input::Withdraw, Wait::Until(_))
                if self.was_clean
                    && context.medium.takes_back()
                    && matches!(self.step, Step::Silent { .. }) =>
            {
                return self.retract(now, context);
            }
            (Input::Withdraw | Input::Release | Input::CellLost, _) => {
                return refuse(Refusal::Withdrawn { claim_left_standing: self.written }, context);
            }
            (Input::Read(answer), Wait::Answer) => return self.read(now, answer, context),
            (Input::Superblock(answer), Wait::Answer) => return self.probed(now, answer, context),
            (Input::Entry(answer), Wait::Answer) => return self.draw(now, answer, context),
            (Input::EntryWritten(answer), Wait::Answer) => return self.drawn(now, answer, context),
            (Input::Written(answer), Wait::Answer) => return self.wrote(now, Some(answer), context),
            (Input::NotWritten, Wait::Answer) => return self.wrote(now, None, context),
            (Input::Activity(_), _) => unreachable!("a claimer does not ask for that"),
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
            Err(failure) => return refuse(self.failed(failure), context),
        };
        if matches!(&self.step, Step::Drawn { base } if *base == image) {
            return self.write(now, &image, Stage::Claim, context);
        }
        let block = match context.medium.decode(&image) {
            Ok(block) => block,
            Err(_) if self.stands(&image) => return self.still(now, context),
            Err(damage) => return self.reread(now, image, damage, context),
        };
        self.undecoded = 0;
        if let Err(refusal) = context.medium.is_ours_to_claim(&image) {
            return refuse(refusal, context);
        }
        match &self.step {
            Step::Look => self.looked(now, image, block, context),
            Step::Watch(watch) if image == watch.base => self.still(now, context),
            Step::Watch(watch) => {
                let after = now.mono.since(watch.began);
                self.changed(now, image, block, after, context)
            }
            Step::Silent { image: ours, .. } if image == *ours => self.silent(now, context),
            Step::Silent { stage: Stage::Claim, .. } if broken!(BlindFirstSilence) => {
                self.silent(now, context)
            }
            Step::Silent { stage: Stage::Middle, .. } if broken!(BlindSecondSilence) => {
                self.silent(now, context)
            }
            Step::Silent { .. } => self.lost_race(now, block, context),
            Step::Drawn { .. } => self.changed(now, image, block, Duration::ZERO, context),
            Step::Probe { .. }
            | Step::Draw { .. }
            | Step::Confirm { .. }
            | Step::Writing { .. }
            | Step::BackOff => {
                unreachable!("no read was asked for")
            }
        }
    }

    /// (1) What the first look shows.
    fn looked(&mut self, now: Now, image: Image, block: MmpBlock, context: &mut Context) -> Progress {
        if !std::mem::replace(&mut self.looked_before, true) && context.options.fenced == Some(block.node) {
            self.vouched = Some(image);
        }
        let answered = self.is_answered_for(&image);
        if !matches!(Sequence::from(block.seq), Sequence::Live(_)) {
            // A mark is watched for reasons of its own, and what stood before it has not stood all the while.
            self.credit = None;
        }
        match Sequence::from(block.seq) {
            Sequence::Clean => self.probe(image, None, context),
            Sequence::Live(_) => self.watch(now, image, &block, false, context),
            Sequence::Fsck if answered || self.vouched == Some(image) => {
                self.watch(now, image, &block, false, context)
            }
            Sequence::Unknown(_) if answered => self.watch(now, image, &block, false, context),
            Sequence::Fsck => self.refuse_or_wait(now, image, &block, Duration::ZERO, context),
            Sequence::Unknown(seq) => refuse(Refusal::UnknownSequence { seq }, context),
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

    /// An I/O that failed. Whoever comes next has to watch out what we wrote before.
    fn failed(&self, failure: Failure<'_>) -> Refusal {
        let standing = if self.written { "; a claim of ours may stand in the block" } else { "" };
        Refusal::Io { what: format!("{}{standing}", failure.what), kind: failure.kind }
    }

    /// C of this claim: a taker's, and our own.
    fn check(&self, found: &Image, context: &Context) -> CheckInterval {
        context.medium.taker_check(found).max(self.own_check)
    }
}

fn refuse(refusal: Refusal, context: &mut Context) -> Progress {
    context.event(Event::Refused { refusal });
    Progress::Over
}
