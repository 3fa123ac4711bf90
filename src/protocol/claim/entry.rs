//! The entry of a slot, in an area: the generation of a claim is drawn there, and is looked at again before the claim is held.
//!
//! Protects: nobody holds a generation that the entry does not know. Does not protect: a write of a rival's entry that was stuck, and
//! lands after that (`docs/safety.md`, S11).

use super::super::guard::{Context, Failure, Write};
use super::super::medium::Medium;
use super::standing::watched_out;
use super::{Claim, Progress, Stage, Step, Wait, refuse};
use crate::clock::{Mono, Now};
use crate::format::{Image, MmpBlock};

impl Claim {
    /// In an area: the generation of this claim, which has to stand in the entry before anything says that we have it.
    pub(super) fn draw(
        &mut self,
        now: Now,
        answer: Result<&Image, Failure<'_>>,
        context: &mut Context,
    ) -> Progress {
        let (base, watched) = match self.step {
            Step::Draw { base, watched } => (base, watched),
            Step::Confirm { image, since } => return self.confirmed(now, answer, image, since, context),
            _ => unreachable!("no entry was asked for"),
        };
        let entry = match answer {
            Ok(entry) => entry,
            Err(failure) => return refuse(self.failed(failure), context),
        };
        let Medium::Area(area) = &mut context.medium else { unreachable!("only areas have entries") };
        let is_believed = self.was_clean && !area.doubts_clean(&base, entry);
        let is_doubtful = std::mem::replace(&mut self.was_clean, is_believed) && !is_believed;
        if is_doubtful && watched.is_none() {
            // A vouch is for whoever it names, and another one's beat may be under this mark.
            self.vouched = None;
            return self.watch(now, base, &MmpBlock::fields(&base), false, context);
        }
        if context.options.watch_only {
            return watched_out(&MmpBlock::fields(&base), watched, context);
        }
        match area.draw(&base, entry, is_believed, now.wall) {
            Err(refusal) => refuse(refusal, context),
            Ok(_) if broken!(EntryIsNotWritten) => self.drawn(now, Ok(()), context),
            Ok(image) => {
                let not_after = self.look_started + self.limit();
                context.write_entry(Write { image, durable: true, not_after });
                Progress::Going
            }
        }
    }

    /// It stands there, within the limit of the look that it follows, or it counts for nothing. The look that comes now may show the very
    /// bytes that stood there, and somebody has come in between: if a clean mark that is late lands over his beats, who drew when we did,
    /// or before. He cannot be in within a limit.
    pub(super) fn drawn(
        &mut self,
        now: Now,
        answer: Result<(), Failure<'_>>,
        context: &mut Context,
    ) -> Progress {
        let Step::Draw { base, .. } = self.step else { unreachable!("no entry was written") };
        if let Err(failure) = answer {
            return refuse(self.failed(failure), context);
        }
        let (took, limit) = (now.mono.since(self.look_started), self.limit());
        if took > limit && !broken!(LateEntryCounts) {
            return self.too_slow(now, took, limit, context);
        }
        self.step = Step::Drawn { base };
        self.look(now, context);
        Progress::Going
    }

    /// Our claim has stood: is the entry as we wrote it, too, or later? Whoever drew at the same time, a smaller number, may have
    /// written it after us.
    pub(super) fn confirm(&mut self, image: Image, since: Mono, context: &mut Context) -> Progress {
        self.step = Step::Confirm { image, since };
        self.wait = Wait::Answer;
        context.entry();
        Progress::Going
    }

    fn confirmed(
        &mut self,
        now: Now,
        answer: Result<&Image, Failure<'_>>,
        image: Image,
        since: Mono,
        context: &mut Context,
    ) -> Progress {
        let entry = match answer {
            Ok(entry) => entry,
            Err(failure) => return refuse(self.failed(failure), context),
        };
        let Medium::Area(area) = &context.medium else { unreachable!("only areas have entries") };
        self.step = match area.knows_ours(entry) || broken!(EntryIsNotWritten) {
            true => Step::Silent { image, since, stage: Stage::Confirmed },
            // From the beginning, over our own claim: a number that nobody was given is drawn then.
            false => Step::Look,
        };
        self.look(now, context);
        Progress::Going
    }
}
