//! A host of our kind: the library's own `Guard`, a driver, a keeper, and a user of the device.
//!
//! The driver does what `driver::thread` does: one I/O at a time, the clock checked right before a write is begun, the
//! lease cell moved after every input. The keeper stops the user when the cell runs out; that takes the fence's time.

use crate::protocol::{
    Activity, Event, Failure, FailureKind, Guard, GuardOptions, Input, Loss, Output, Resumption, Write,
};
use std::rc::Rc;

use mmpguard::clock::{Mono, Now};
use mmpguard::format::Image;

use super::breakage::{Breakage, is_broken};
use super::plan::{Kind, MILLISECOND, SECOND, log_uniform};
use super::world::{What, World};

#[derive(Default)]
pub(crate) struct Host {
    pub(crate) epoch: u32,
    pub(crate) stalled_until: u64,
    pub(crate) clock_behind_ns: u64,
    /// A fault of the host's own lasts, or lasted, until then.
    pub(crate) fault_until: u64,
    /// It has crashed and is down since then.
    pub(crate) died_at: Option<u64>,
    pub(crate) using: bool,
    pub(crate) using_since: u64,
    /// The fence is under way and will be done then.
    pub(crate) using_until: Option<u64>,
    pub(crate) guard: Option<Guard>,
    pub(crate) io: Option<Io>,
    pub(crate) io_number: u64,
    pub(crate) tick_at: u64,
    pub(crate) cell: Option<Mono>,
    pub(crate) cell_lost: bool,
    pub(crate) keeper_at: u64,
    pub(crate) release_wanted: bool,
    pub(crate) claim_since: u64,
    pub(crate) slow_last: bool,
    /// A clear was forced on it last.
    pub(crate) cleared_at: u64,
    /// It beat over a claimer last.
    pub(crate) intruded_at: u64,
    /// By the host's own clock.
    pub(crate) look_began: Mono,
    /// What the last look of its guard showed.
    pub(crate) last_read: Option<Rc<Image>>,
    pub(crate) evidence: super::evidence::Evidence,
    pub(crate) kernel: super::kernel::Kernel,
    pub(crate) mounted: super::mounted::State,
    pub(crate) second: super::second_life::SecondLife,
    pub(crate) fsck: super::fsck::State,
    pub(crate) succession: super::succession::Succession,
    pub(crate) standby: super::standby::State,
}

impl Host {
    /// What is left of it after a crash: all that it wrote is on its way still.
    pub(crate) fn crashed(&self, now: u64) -> Self {
        Host {
            epoch: self.epoch + 1,
            clock_behind_ns: self.clock_behind_ns,
            fault_until: now,
            died_at: Some(now),
            ..Host::default()
        }
    }
}

pub(crate) struct Io {
    pub(crate) number: u64,
    pub(crate) job: Job,
    /// A read shows what stood on the disk at that time.
    pub(crate) sampled_at: u64,
    pub(crate) failed: bool,
}

pub(crate) enum Job {
    Read,
    Superblock,
    Entry,
    WriteEntry,
    Write(Box<Write>),
}

/// What the driver hands to the guard.
pub(crate) enum Feed<'a> {
    Plain(Input<'a>),
    Read(Rc<Image>),
}

impl World {
    pub(crate) fn ours(&mut self, host: usize, what: What) {
        match what {
            What::Start => self.begin_claim(host),
            What::Tick => {
                let state = &self.hosts[host];
                if state.tick_at <= self.now && (state.io.is_none() || self.plan.hosts[host].ticks_during_io)
                {
                    self.feed(host, Feed::Plain(Input::Tick));
                }
            }
            What::Answer(number) => self.answer(host, number),
            What::Begin(number) => self.begin_write(host, number),
            What::Issue(number) => self.issue_write(host, number),
            What::Withdraw(claim) => self.withdraw(host, claim),
            What::Keeper => self.keeper(host),
            What::Outage => self.outage(host),
            What::GuardCrash => self.holder_dies(host),
            What::GuardBack => self.holder_is_succeeded(host),
            What::SecondLook(number) => self.second_looked(host, number),
            What::SecondLookDue(number) => self.second_look_due(host, number),
            What::SecondWritten(number) => self.second_written(host, number),
            What::SecondLifeEnds(_) => self.second_life_ends(host),
            What::UserDone => {
                let state = &self.hosts[host];
                if state.using && state.using_until.is_none() && state.guard.is_some() && !state.cell_lost {
                    self.stop_using(host, "the user is done");
                    self.hosts[host].release_wanted = true;
                    self.release(host);
                }
                self.orphan_is_done(host);
            }
            _ => unreachable!("{what:?} is not for a host of ours"),
        }
    }

    pub(crate) fn begin_claim(&mut self, host: usize) {
        let state = &self.hosts[host];
        if state.guard.is_some() {
            return;
        }
        if state.using || state.kernel.shown != Activity::Gone {
            // The fence of the last hold is not done.
            return self.after(SECOND, host, What::Start);
        }
        let Some(credit) = self.credit_brought(host) else { return };
        let now = self.clock(host);
        let fenced = self.vouched_dead(host);
        let (medium, options) =
            (self.guard_medium(host), GuardOptions { fenced, ..self.guard_options(host) });
        self.forget_guard(host);
        self.forget_claim(host);
        let seed = self.rng.u64(..);
        let state = &mut self.hosts[host];
        let guard = Guard::new(medium, options, seed, now);
        let guard = match credit {
            Some(credit) => guard.with_credit(credit),
            None => guard,
        };
        state.guard = Some(match self.answered {
            Some(seen) => {
                self.stats.fsck.answered += u64::from(seen == **self.disk.image());
                guard.answering_for(seen)
            }
            None => guard,
        });
        let state = &mut self.hosts[host];
        state.claim_since = self.now;
        state.second = super::second_life::SecondLife::default();
        state.cell = None;
        state.cell_lost = false;
        state.release_wanted = false;
        self.note(host, || "claims".into());
        self.plan_withdrawal(host);
        self.drain(host);
    }

    pub(crate) fn feed(&mut self, host: usize, feed: Feed<'_>) {
        let now = self.clock(host);
        let state = &mut self.hosts[host];
        let Some(guard) = state.guard.as_mut() else { return };
        let acknowledged = matches!(feed, Feed::Plain(Input::Written(Ok(()))));
        match &feed {
            Feed::Plain(input) => guard.handle(now, *input),
            Feed::Read(image) => guard.handle(now, Input::Read(Ok(image))),
        }
        self.disarm(host);
        self.note_trace(host);
        if !self.move_cell(host, now, acknowledged) {
            let guard = self.hosts[host].guard.as_mut().expect("it was there a moment ago");
            guard.handle(now, Input::CellLost);
        }
        self.drain(host);
    }

    /// Moves the lease cell to where the guard's lease ends. False if the keeper declared it lost before.
    pub(crate) fn move_cell(&mut self, host: usize, now: Now, acknowledged: bool) -> bool {
        let from_acknowledgement = is_broken(Breakage::LeaseFromAcknowledgement);
        let state = &mut self.hosts[host];
        let Some(mut end) = state.guard.as_ref().and_then(Guard::lease_end) else { return true };
        if state.cell.is_some_and(|cell| cell <= now.mono && cell < end) && !state.mounted.adopting {
            self.violate(host, "extends a lease that has ended".into());
            return false;
        }
        if state.cell_lost {
            return false;
        }
        if let Some(sight) = self.lease_from_sight(host) {
            end = sight;
        }
        self.check_succession(host, end, acknowledged);
        let state = &mut self.hosts[host];
        if from_acknowledgement {
            end = match state.cell {
                Some(cell) if !acknowledged => cell,
                _ => end + now.mono.since(state.look_began),
            };
        }
        if state.cell != Some(end) {
            state.cell = Some(end);
            let at = self.when(host, end);
            // The keeper's timer is set for the earliest end it knows of, and it wakes a little late.
            if self.hosts[host].keeper_at <= self.now || at < self.hosts[host].keeper_at {
                self.hosts[host].keeper_at = at;
                let late = self.rng.u64(0..50 * MILLISECOND);
                self.at(at + late, host, What::Keeper);
            }
        }
        true
    }

    pub(crate) fn lease_is_over(&self, host: usize) -> bool {
        let state = &self.hosts[host];
        let now = self.clock(host).mono;
        let used = state.using || state.kernel.shown != Activity::Gone;
        used && !is_broken(Breakage::NoKeeper) && state.cell.is_some_and(|end| end <= now)
    }

    /// The keeper looks at the cell and fences if it ran out.
    pub(crate) fn keeper(&mut self, host: usize) {
        let Some(end) = self.hosts[host].cell else { return };
        if is_broken(Breakage::NoKeeper) || self.hosts[host].cell_lost {
            return;
        }
        let at = self.when(host, end);
        if self.lease_is_over(host) {
            self.note(host, || "keeper: the lease is over, fences".into());
            self.check_fence(host);
            self.fence(host, at);
        } else if at > self.now {
            self.hosts[host].keeper_at = at;
            let late = self.rng.u64(0..50 * MILLISECOND);
            self.at(at + late, host, What::Keeper);
        }
    }

    pub(crate) fn fence(&mut self, host: usize, from: u64) {
        if self.second_life_begins(host, from) {
            return;
        }
        let done = (from + self.plan.hosts[host].fence_ns).max(self.now);
        let state = &mut self.hosts[host];
        state.cell_lost = true;
        if state.using || state.kernel.shown != Activity::Gone {
            let until = state.using_until.map_or(done, |until| until.min(done));
            state.using_until = Some(until);
            self.at(until, host, What::UserStopped);
        }
    }

    pub(crate) fn drain(&mut self, host: usize) {
        while let Some(output) = self.hosts[host].guard.as_mut().and_then(Guard::poll) {
            match output {
                Output::Event(event) => self.event(host, &event),
                Output::Read => self.begin_read(host, Job::Read),
                Output::Superblock => self.begin_read(host, Job::Superblock),
                Output::Entry => self.begin_read(host, Job::Entry),
                Output::WriteEntry(write) => self.write_entry(host, write),
                Output::Write(write) => self.plan_write(host, write),
                Output::Activity => self.ask(host),
            }
        }
        let Some(guard) = self.hosts[host].guard.as_ref() else { return };
        if guard.is_over() {
            let state = &mut self.hosts[host];
            (state.guard, state.io) = (None, None);
            let mut pause = log_uniform(&mut self.rng, SECOND / 20, self.plan.longest_pause_ns);
            if std::mem::take(&mut self.hosts[host].mounted.at_once) {
                pause = MILLISECOND;
            }
            self.after(pause, host, What::Start);
        } else {
            let deadline = guard.deadline();
            if deadline != Mono::FAR {
                let at = self.when(host, deadline).max(self.now);
                self.hosts[host].tick_at = at;
                self.at(at, host, What::Tick);
            }
        }
    }

    pub(crate) fn release(&mut self, host: usize) {
        let state = &self.hosts[host];
        if state.release_wanted && (state.io.is_none() || self.plan.hosts[host].ticks_during_io) {
            self.hosts[host].release_wanted = false;
            self.note(host, || "releases".into());
            self.feed(host, Feed::Plain(Input::Release));
        }
    }

    pub(crate) fn answer(&mut self, host: usize, number: u64) {
        let Some(io) = self.hosts[host].io.take_if(|io| io.number == number) else { return };
        let failure = Failure { what: "simulated I/O error", kind: FailureKind::System };
        let superblock = self.disk.superblock_bytes;
        match (io.job, io.failed) {
            (Job::Read, true) => self.feed(host, Feed::Plain(Input::Read(Err(failure)))),
            (Job::Read, false) => {
                let sample = Rc::clone(self.disk.image_at(io.sampled_at));
                let sample = self.shown_to_guard(host, sample);
                self.note_look(host, &sample);
                self.hosts[host].last_read = Some(Rc::clone(&sample));
                self.feed(host, Feed::Read(sample));
            }
            (Job::Superblock, true) => self.feed(host, Feed::Plain(Input::Superblock(Err(failure)))),
            (Job::Superblock, false) => self.feed(host, Feed::Plain(Input::Superblock(Ok(&superblock)))),
            (Job::Entry, true) => self.feed(host, Feed::Plain(Input::Entry(Err(failure)))),
            (Job::Entry, false) => {
                let entry = self.entry_sampled(io.sampled_at);
                self.feed(host, Feed::Plain(Input::Entry(Ok(&entry))));
            }
            (Job::WriteEntry, true) => self.feed(host, Feed::Plain(Input::EntryWritten(Err(failure)))),
            (Job::WriteEntry, false) => self.feed(host, Feed::Plain(Input::EntryWritten(Ok(())))),
            (Job::Write(_), true) => self.feed(host, Feed::Plain(Input::Written(Err(failure)))),
            (Job::Write(_), false) => self.feed(host, Feed::Plain(Input::Written(Ok(())))),
        }
        self.release(host);
    }

    pub(crate) fn event(&mut self, host: usize, event: &Event) {
        self.note(host, || format!("* {event:?}"));
        if self.plan.hosts[host].kind == Kind::Mounted {
            return self.mounted_event(host, event);
        }
        match event {
            Event::Held { .. } if self.goes_on(host) => {}
            Event::Held { .. } => {
                self.stats.held += 1;
                self.check_generation(host);
                self.start_using(host);
                self.check_claim_time(host);
                self.check_takeover(host);
                self.check_doubtful(host);
            }
            Event::Lost { loss, .. } => {
                self.stats.lost += 1;
                self.check_loss(host, loss);
                if !is_broken(Breakage::NoKeeper) || !matches!(loss, Loss::LeaseExpired) {
                    self.fence(host, self.now);
                } else {
                    self.hosts[host].cell_lost = true;
                }
            }
            Event::Released => {
                self.stats.released += 1;
                self.hosts[host].cell = None;
            }
            Event::Refused { refusal } => {
                self.stats.refused += 1;
                self.check_refusal(host, refusal);
            }
            Event::Resumed { why: Resumption::NotMounted } => self.note_taking_back(host),
            Event::LostRace { .. } => self.stats.lost_races += 1,
            Event::TooSlow { .. } => self.stats.too_slow += 1,
            Event::Intruder { .. } => self.intruded(host),
            _ => {}
        }
    }
}

pub(crate) fn is_clean(image: &Image) -> bool {
    mmpguard::format::MmpBlock::fields(image).seq == crate::protocol::sequence::SEQ_CLEAN
}
