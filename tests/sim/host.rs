//! A host of our kind: the library's own `Guard`, a driver, a keeper, and a user of the device.
//!
//! The driver does what `driver::thread` does: one I/O at a time, the clock checked right before a write is begun, the
//! lease cell moved after every input. The keeper stops the user when the cell runs out; that takes the fence's time.

use std::rc::Rc;
use std::time::Duration;

use mmpguard::clock::{Mono, Now};
use mmpguard::format::{DeviceName, Image, NodeName};
use mmpguard::protocol::timing::Consequences;
use mmpguard::protocol::{
    Event, Failure, Guard, GuardOptions, Input, Loss, Medium, Native, Output, Owner, Refusal, Write, timing,
};

use super::disk::Before;
use super::plan::{HostPlan, Kind, MILLISECOND, Profile, SECOND, log_uniform};
use super::world::{What, World, shown};

/// A write lands at most so long after it went out: the wait of the smallest check interval. DESIGN, *What cannot be
/// promised*: "a device, fabric or target that makes a write visible later than a wait".
const LANDING_BOUND_NS: u64 = 11 * SECOND;
const LONGEST_LATENCY_NS: u64 = 15 * SECOND;
/// A path hangs, and answers in the end.
const LONGEST_HANG_NS: u64 = 150 * SECOND;
/// Slower than this is a fault of the host's own.
const PROMPT_NS: u64 = 100 * MILLISECOND;

#[derive(Default)]
pub(crate) struct Host {
    pub(crate) epoch: u32,
    pub(crate) stalled_until: u64,
    pub(crate) clock_behind_ns: u64,
    /// A fault of the host's own lasts, or lasted, until then.
    pub(crate) fault_until: u64,
    pub(crate) using: bool,
    pub(crate) using_since: u64,
    /// The fence is under way and will be done then.
    pub(crate) using_until: Option<u64>,
    guard: Option<Guard>,
    io: Option<Io>,
    io_number: u64,
    tick_at: u64,
    cell: Option<Mono>,
    cell_lost: bool,
    keeper_at: u64,
    release_wanted: bool,
    claim_since: u64,
    slow_last: bool,
    /// By the host's own clock.
    look_began: Mono,
    pub(crate) kernel: super::kernel::Kernel,
}

impl Host {
    /// What is left of it after a crash: all that it wrote is on its way still.
    pub(crate) fn crashed(&self, now: u64) -> Self {
        Host {
            epoch: self.epoch + 1,
            clock_behind_ns: self.clock_behind_ns,
            fault_until: now,
            ..Host::default()
        }
    }
}

struct Io {
    number: u64,
    job: Job,
    sample: Option<Image>,
    failed: bool,
}

enum Job {
    Read,
    Superblock,
    Write(Write),
}

/// What the driver hands to the guard.
enum Feed<'a> {
    Plain(Input<'a>),
    Read(Image),
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
            What::Sample(number) => {
                let sample = self.disk.image;
                if let Some(io) = self.hosts[host].io.as_mut().filter(|io| io.number == number) {
                    io.sample = Some(sample);
                }
            }
            What::Answer(number) => self.answer(host, number),
            What::Begin(number) => self.begin_write(host, number),
            What::Issue(number) => self.issue_write(host, number),
            What::Keeper => self.keeper(host),
            What::UserDone => {
                let state = &self.hosts[host];
                if state.using && state.using_until.is_none() && state.guard.is_some() && !state.cell_lost {
                    self.stop_using(host, "the user is done");
                    self.hosts[host].release_wanted = true;
                    self.release(host);
                }
            }
            _ => unreachable!("{what:?} is not for a host of ours"),
        }
    }

    fn begin_claim(&mut self, host: usize) {
        let state = &self.hosts[host];
        if state.guard.is_some() {
            return;
        }
        if state.using {
            // The fence of the last hold is not done.
            return self.after(SECOND, host, What::Start);
        }
        let now = self.clock(host);
        let plan = &self.plan.hosts[host];
        let owner = Owner { node: NodeName::new(&plan.node), device: DeviceName::new("sda") };
        let medium = Medium::Native(Native::new(self.disk.superblock.clone(), owner));
        let options = GuardOptions {
            interval: plan.interval,
            check_interval_floor_s: plan.check_interval_floor_s,
            patience_until: plan.patience_s.map(|s| now.mono + Duration::from_secs(s)),
            watch_only: false,
        };
        let seed = self.rng.u64(..);
        let state = &mut self.hosts[host];
        state.guard = Some(Guard::new(medium, options, seed, now));
        state.claim_since = self.now;
        state.cell = None;
        state.cell_lost = false;
        state.release_wanted = false;
        self.note(host, || "claims".into());
        self.drain(host);
    }

    fn feed(&mut self, host: usize, feed: Feed<'_>) {
        let now = self.clock(host);
        let state = &mut self.hosts[host];
        let Some(guard) = state.guard.as_mut() else { return };
        let acknowledged = matches!(feed, Feed::Plain(Input::Written(Ok(()))));
        match &feed {
            Feed::Plain(input) => guard.handle(now, *input),
            Feed::Read(image) => guard.handle(now, Input::Read(Ok(image))),
        }
        if !self.move_cell(host, now, acknowledged) {
            let guard = self.hosts[host].guard.as_mut().expect("it was there a moment ago");
            guard.handle(now, Input::CellLost);
        }
        self.drain(host);
    }

    /// Moves the lease cell to where the guard's lease ends. False if the keeper declared it lost before.
    fn move_cell(&mut self, host: usize, now: Now, acknowledged: bool) -> bool {
        let from_acknowledgement = self.breakage.lease_from_acknowledgement;
        let state = &mut self.hosts[host];
        let Some(mut end) = state.guard.as_ref().and_then(Guard::lease_end) else { return true };
        if state.cell_lost {
            return false;
        }
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

    fn lease_is_over(&self, host: usize) -> bool {
        let state = &self.hosts[host];
        let now = self.clock(host).mono;
        state.using && !self.breakage.no_keeper && state.cell.is_some_and(|end| end <= now)
    }

    /// The keeper looks at the cell and fences if it ran out.
    pub(crate) fn keeper(&mut self, host: usize) {
        let Some(end) = self.hosts[host].cell else { return };
        if self.breakage.no_keeper || self.hosts[host].cell_lost {
            return;
        }
        let at = self.when(host, end);
        if self.lease_is_over(host) {
            self.note(host, || "keeper: the lease is over, fences".into());
            self.fence(host, at);
        } else if at > self.now {
            self.hosts[host].keeper_at = at;
            let late = self.rng.u64(0..50 * MILLISECOND);
            self.at(at + late, host, What::Keeper);
        }
    }

    fn fence(&mut self, host: usize, from: u64) {
        let done = (from + self.plan.hosts[host].fence_ns).max(self.now);
        let state = &mut self.hosts[host];
        state.cell_lost = true;
        if state.using {
            let until = state.using_until.map_or(done, |until| until.min(done));
            state.using_until = Some(until);
            self.at(until, host, What::UserStopped);
        }
    }

    fn drain(&mut self, host: usize) {
        while let Some(output) = self.hosts[host].guard.as_mut().and_then(Guard::poll) {
            match output {
                Output::Event(event) => self.event(host, &event),
                Output::Read => self.begin_read(host, Job::Read),
                Output::Superblock => self.begin_read(host, Job::Superblock),
                Output::Write(write) => self.plan_write(host, write),
            }
        }
        let Some(guard) = self.hosts[host].guard.as_ref() else { return };
        if guard.is_over() {
            let state = &mut self.hosts[host];
            (state.guard, state.io) = (None, None);
            let pause = log_uniform(&mut self.rng, SECOND / 20, self.plan.longest_pause_ns);
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

    fn release(&mut self, host: usize) {
        let state = &self.hosts[host];
        if state.release_wanted && (state.io.is_none() || self.plan.hosts[host].ticks_during_io) {
            self.hosts[host].release_wanted = false;
            self.note(host, || "releases".into());
            self.feed(host, Feed::Plain(Input::Release));
        }
    }

    fn latency(&mut self, host: usize) -> u64 {
        // Trouble comes in rows.
        let again = self.hosts[host].slow_last && self.faults_strike() && self.rng.bool();
        let slow = again || self.strikes(host, self.plan.rates.slow);
        self.hosts[host].slow_last = slow;
        let (least, most) = match slow {
            true if self.rng.f64() < 0.1 => (LONGEST_LATENCY_NS, LONGEST_HANG_NS),
            true => (10 * MILLISECOND, LONGEST_LATENCY_NS),
            false => (50_000, 8 * MILLISECOND),
        };
        let latency = log_uniform(&mut self.rng, least, most);
        if latency > PROMPT_NS {
            self.fault_until(host, self.now + latency);
        }
        latency
    }

    fn fault_until(&mut self, host: usize, until: u64) {
        let state = &mut self.hosts[host];
        state.fault_until = state.fault_until.max(until);
    }

    fn begin_io(&mut self, host: usize, job: Job) -> u64 {
        let state = &mut self.hosts[host];
        assert!(state.io.is_none(), "one I/O at a time");
        state.io_number += 1;
        state.io = Some(Io { number: state.io_number, job, sample: None, failed: false });
        state.io_number
    }

    fn begin_read(&mut self, host: usize, job: Job) {
        let number = self.begin_io(host, job);
        self.hosts[host].look_began = self.clock(host).mono;
        let latency = self.latency(host);
        if self.strikes(host, self.plan.rates.error) {
            self.hosts[host].io.as_mut().expect("just begun").failed = true;
            self.fault_until(host, self.now + latency);
        }
        let sample = self.rng.u64(0..=latency);
        self.after(sample, host, What::Sample(number));
        self.plan_answer(host, number, latency);
    }

    fn plan_answer(&mut self, host: usize, number: u64, latency: u64) {
        if self.strikes(host, self.plan.rates.late_handling) {
            let late = log_uniform(&mut self.rng, MILLISECOND, 15 * SECOND);
            self.fault_until(host, self.now + latency + late);
            self.after(latency + late, host, What::Answer(number));
        } else {
            // Never before its sample.
            self.after(latency + 1, host, What::Answer(number));
        }
    }

    fn plan_write(&mut self, host: usize, write: Write) {
        let number = self.begin_io(host, Job::Write(write));
        if self.strikes(host, self.plan.rates.stall_before_check) {
            if let Some(span) = self.stall_span(host, 60 * SECOND) {
                self.stall(host, span);
            }
            self.after(0, host, What::Begin(number));
        } else {
            self.begin_write(host, number);
        }
    }

    fn write_under_way(&self, host: usize, number: u64) -> Option<Write> {
        match &self.hosts[host].io {
            Some(Io { number: under_way, job: Job::Write(write), .. }) if *under_way == number => {
                Some(*write)
            }
            _ => None,
        }
    }

    fn begin_write(&mut self, host: usize, number: u64) {
        let Some(write) = self.write_under_way(host, number) else { return };
        if self.clock(host).mono > write.not_after && !self.breakage.ignores_not_after {
            self.note(host, || "does not write: too late".into());
            self.hosts[host].io = None;
            return self.feed(host, Feed::Plain(Input::NotWritten));
        }
        if self.hosts[host].cell.is_some_and(|end| end < self.clock(host).mono) {
            self.violate(host, "writes after its lease".into());
        }
        if self.strikes(host, self.plan.rates.stall_after_check) {
            // A clean mark that a host writes long after its last look lands on whoever came: see `Apart::late_clean`.
            let clean = is_clean(&write.image);
            let most = if clean { 5 * SECOND } else { 60 * SECOND };
            if let Some(span) = self.stall_span(host, most) {
                self.stall(host, span);
            }
            self.after(0, host, What::Issue(number));
        } else {
            self.issue_write(host, number);
        }
    }

    fn issue_write(&mut self, host: usize, number: u64) {
        let Some(write) = self.write_under_way(host, number) else { return };
        self.largest_c = self.largest_c.max(self.disk_c(&write.image));
        let latency = self.latency(host);
        let fails = self.strikes(host, self.plan.rates.error);
        let failed_but_landed = self.plan.rates.failed_but_landed;
        let lands = !fails || self.rng.f64() < failed_but_landed;
        self.note(host, || {
            let fate = if fails { ", which will fail" } else { "" };
            format!("writes {}{fate}", shown(&write.image))
        });
        if fails {
            self.fault_until(host, self.now + LANDING_BOUND_NS);
            self.hosts[host].io.as_mut().expect("under way").failed = true;
        }
        if lands {
            let most = if fails { LANDING_BOUND_NS } else { latency.min(LANDING_BOUND_NS) };
            let landing = self.now + self.rng.u64(0..=most);
            self.land(host, Rc::new(write.image), landing, self.now + most);
        }
        self.plan_answer(host, number, latency);
    }

    /// Both sectors at once, or one a little after the other, or one never.
    fn land(&mut self, host: usize, image: Rc<Image>, at: u64, bound: u64) {
        let torn = self.strikes(host, self.plan.rates.torn);
        let failed = self.hosts[host].io.as_ref().is_some_and(|io| io.failed);
        let first = usize::from(torn && self.rng.bool());
        self.at(at, host, What::Land(Rc::clone(&image), first));
        if !torn {
            self.at(at, host, What::Land(image, 1 - first));
        } else if !failed || self.rng.bool() {
            let gap = log_uniform(&mut self.rng, MILLISECOND / 10, 100 * MILLISECOND);
            self.at((at + gap).min(bound.max(at)), host, What::Land(image, 1 - first));
        }
    }

    fn disk_c(&self, image: &Image) -> u16 {
        mmpguard::format::MmpBlock::fields(image).check_interval_s
    }

    fn answer(&mut self, host: usize, number: u64) {
        let Some(io) = self.hosts[host].io.take_if(|io| io.number == number) else { return };
        let failure = Failure("simulated I/O error");
        let superblock = self.disk.superblock_bytes;
        match (io.job, io.failed) {
            (Job::Read, true) => self.feed(host, Feed::Plain(Input::Read(Err(failure)))),
            (Job::Read, false) => {
                let sample = io.sample.expect("a read is answered after its sample");
                self.feed(host, Feed::Read(sample));
            }
            (Job::Superblock, true) => self.feed(host, Feed::Plain(Input::Superblock(Err(failure)))),
            (Job::Superblock, false) => self.feed(host, Feed::Plain(Input::Superblock(Ok(&superblock)))),
            (Job::Write(_), true) => self.feed(host, Feed::Plain(Input::Written(Err(failure)))),
            (Job::Write(_), false) => self.feed(host, Feed::Plain(Input::Written(Ok(())))),
        }
        self.release(host);
    }

    fn event(&mut self, host: usize, event: &Event) {
        self.note(host, || format!("* {event:?}"));
        match event {
            Event::Held { .. } => {
                self.stats.held += 1;
                self.start_using(host);
                self.check_claim_time(host);
            }
            Event::Lost { loss, .. } => {
                self.stats.lost += 1;
                self.check_loss(host, loss);
                if !self.breakage.no_keeper || !matches!(loss, Loss::LeaseExpired) {
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
            Event::LostRace { .. } => self.stats.lost_races += 1,
            Event::TooSlow { .. } => self.stats.too_slow += 1,
            Event::Intruder { .. } => self.stats.intruders += 1,
            _ => {}
        }
    }

    /// A claimer never stops a live holder that had no fault of its own.
    fn check_loss(&mut self, host: usize, loss: &Loss) {
        let since = self.hosts[host].fault_until + 2 * self.longest_wait_ns();
        let faultless = self.now > since || self.hosts[host].fault_until < self.hosts[host].using_since;
        if self.plan.profile == Profile::ShortStalls {
            self.violate(host, format!("a stall shorter than the lease stopped a holder: {loss:?}"));
        } else if faultless && self.hosts[host].using {
            self.violate(host, format!("a holder without a fault was stopped: {loss:?}"));
        }
    }

    /// Without faults the first one is in within the stated time.
    fn check_claim_time(&mut self, host: usize) {
        if self.plan.profile != Profile::Calm || self.stats.held + self.stats.kernel_mounts != 1 {
            return;
        }
        let own = |plan: &HostPlan| {
            timing::holder_check_interval_s(plan.interval, plan.interval, plan.check_interval_floor_s)
        };
        let superblocks = self.plan.filesystem.update_interval_s;
        let left = if let Before::Dead(left) = self.plan.before { left } else { 0 };
        let c = self.plan.hosts.iter().map(own).max().unwrap_or(0).max(left);
        let c = timing::taker_check_interval_s(superblocks, c);
        let stated = Consequences::of(c);
        let stated_s = match (self.plan.before, self.plan.filesystem.needs_recovery) {
            (Before::Dead(_), _) => stated.crash_claim_s,
            (Before::Clean, false) => stated.clean_claim_s,
            // Less what it leaves to the rest of a start.
            (Before::Clean, true) => stated.start_timeout_s as f64 - 10.0,
        };
        // One with a longer check interval watches for less of the same wait, and may overtake one that came before.
        let starts = self.plan.hosts.iter().map(|plan| plan.start_ns);
        let same = self.plan.hosts.iter().all(|plan| own(plan) == own(&self.plan.hosts[0]));
        let start = if same { starts.min() } else { starts.max() }.unwrap_or(0);
        let took_s = self.now.saturating_sub(start) as f64 / 1e9;
        if took_s > stated_s + 0.4 {
            self.violate(host, format!("the first one was in after {took_s:.2} s, stated are {stated_s} s"));
        }
    }

    /// Without faults a live holder refuses a claimer within the stated time, and nothing else ever refuses.
    fn check_refusal(&mut self, host: usize, refusal: &Refusal) {
        // Two kernels that beat over each other refuse nobody in time, and it is not ours to say when.
        if self.plan.profile != Profile::Calm || self.stats.apart.two_kernels > 0 {
            return;
        }
        let Refusal::InUse { .. } = refusal else {
            return self.violate(host, format!("refused without a reason: {refusal:?}"));
        };
        let claim_since = self.hosts[host].claim_since;
        let holder = (0..self.hosts.len()).find(|&other| {
            self.hosts[other].using && self.hosts[other].using_since + SECOND / 10 < claim_since
        });
        if let (Some(holder), None) = (holder, self.plan.hosts[host].patience_s) {
            let interval = match self.plan.hosts[holder].kind {
                Kind::Ours => self.plan.hosts[holder].interval,
                Kind::Kernel => Duration::from_secs(self.kernel_interval_s()),
            };
            let took = Duration::from_nanos(self.now - claim_since);
            if took > timing::refusal(interval) {
                self.violate(host, format!("refused only after {took:?}"));
            }
        }
    }
}

pub(crate) fn is_clean(image: &Image) -> bool {
    mmpguard::format::MmpBlock::fields(image).seq == mmpguard::protocol::sequence::SEQ_CLEAN
}
