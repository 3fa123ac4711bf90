//! Hosts that stand by (`mmpguard::protocol::Standby`): each looks at the block as `driver::standby` does, also while
//! it uses the device itself, and a claim of that host's brings along what was watched.
//!
//! A standby stalls, and its looks hang, by itself: the claim that comes after it may be prompt. Between what it hands over and the
//! claim's first look some time may pass. *Echoes*: a beat that was acknowledged lands once more, no sooner than half a wait after another
//! one has landed over it and no later than a wait after it was sent (its path failed over); beside them claimers are prompt. One that
//! comes sooner may be hidden from any watch, one with a smaller check interval than what it covers lets takers wait for less than a
//! lease, and neither is injected (`docs/safety.md`, *What is not promised*).
//!
//! Checked also: without a fault but the holder's crash, whoever was asked is in within the stated time.

use std::rc::Rc;
use std::time::Duration;

use crate::protocol::timing::{self, CheckInterval};
use crate::protocol::{Credit, Guard, Sequence, Standby};
use fastrand::Rng;
use mmpguard::clock::Mono;
use mmpguard::format::{Image, MmpBlock, NodeName};

use super::areas::{self, AreaPlan};
use super::disk::{Before, Part};
use super::edges;
use super::mount_plan::{self, HandOver, MountPlan};
use super::plan::{Kind, MILLISECOND, Plan, Profile, Rates, SECOND, log_uniform, pick};
use super::world::{What, World};

/// Until a device that could not be read is tried again; as in `driver::standby`.
const FAILURE_PAUSE_NS: u64 = SECOND;
/// Looks and latencies beside the waits of a takeover.
const SLACK: Duration = Duration::from_millis(400);

/// What a plan says of hosts that stand by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StandbyPlan {
    /// Per look: so many come late, hang, fail.
    pub(crate) stalls: f64,
    pub(crate) slow: f64,
    pub(crate) errors: f64,
    /// Of the claims so many begin some time after they were handed what was watched.
    pub(crate) lags: f64,
    /// Of the beats so many land once more.
    pub(crate) echoes: f64,
    /// Hangs are short of a lease, or well beyond it.
    pub(crate) at_the_edge: bool,
    /// The first host crashes then, and nothing else is wrong.
    pub(crate) crash_ns: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StandbyAct {
    Look,
    Answer,
}

/// Of one host.
#[derive(Default)]
pub(crate) struct State {
    standby: Option<Standby>,
    /// Of the look under way, or the next.
    number: u64,
    began: Mono,
    sampled_at: u64,
    failed: bool,
    decodes: bool,
    /// What the claim that is about to begin was handed.
    handed: Option<Option<Credit>>,
}

pub(crate) fn apply(plan: &mut Plan, rng: &mut Rng) {
    let rate = |rng: &mut Rng| pick(rng, &[0.0, 0.0, 0.002, 0.02]);
    let (stalls, slow, errors) = (rate(rng), rate(rng), rate(rng) / 4.0);
    plan.standby = StandbyPlan { stalls, slow, errors, lags: 0.3, ..StandbyPlan::default() };
    match rng.u32(0..10) {
        0 | 1 => takeover(plan, rng),
        2..=4 => at_the_edge(plan, rng),
        5 | 6 => {
            areas::apply(plan, rng);
            if plan.area.is_some_and(|area| area.interval_ms < 1000) {
                // It looks fifty times a second.
                plan.calm_ns = plan.calm_ns.min(60 * SECOND);
            }
        }
        7 => mount_plan::apply(plan, rng),
        _ => {
            for host in &mut plan.hosts[1..] {
                host.kind = if rng.f64() < 0.3 { Kind::Kernel } else { Kind::Ours };
            }
        }
    }
}

/// Two hosts: one holds and crashes, the other stands by and is asked at some time after that.
fn takeover(plan: &mut Plan, rng: &mut Rng) {
    plan.standby = StandbyPlan::default();
    plan.rates = Rates::default();
    plan.filesystem.needs_recovery = false;
    plan.before = Before::Clean;
    plan.hosts.truncate(2);
    let area = rng.bool();
    if area {
        in_an_area(plan, pick(rng, &[100, 1000, 1000, 10_000]));
    } else {
        plan.filesystem.update_interval_s = pick(rng, &[1, 1, 5]);
    }
    let in_ns = if area { 140 * SECOND } else { 400 * SECOND };
    let crash_ns = in_ns + rng.u64(0..10 * SECOND);
    let asked_ns = crash_ns + pick(rng, &[0, 5, 20, 60, 150, 400]) * SECOND + rng.u64(0..SECOND);
    for (number, host) in plan.hosts.iter_mut().enumerate() {
        host.kind = Kind::Ours;
        (host.use_s, host.patience_s, host.faulty) = (None, None, number == 0);
        host.node = format!("host-{number}");
        host.wall_skew_s = 0;
        host.start_ns = if number == 0 { 0 } else { asked_ns };
    }
    if !area && rng.bool() {
        let mounted = &mut plan.hosts[1];
        mounted.kind = Kind::Mounted;
        mounted.mount = MountPlan {
            hand_over: HandOver::Clean,
            call_ns: 10 * MILLISECOND,
            finish_ns: 10 * MILLISECOND,
            rereads: false,
        };
    }
    (plan.standby.crash_ns, plan.calm_ns) = (Some(crash_ns), crash_ns);
}

/// As `edges`: a holder whose I/O hangs for less than a lease, or for much longer, a fence as slow as it may be; and rivals who come
/// again and again. Their standbys stall as long as he does.
fn at_the_edge(plan: &mut Plan, rng: &mut Rng) {
    plan.filesystem.update_interval_s = 1;
    plan.filesystem.needs_recovery = false;
    plan.before = Before::Clean;
    plan.hosts.truncate(pick(rng, &[2, 2, 3]));
    let echoes = rng.bool();
    for (number, host) in plan.hosts.iter_mut().enumerate() {
        host.kind = Kind::Ours;
        host.interval = Duration::from_secs(1);
        host.check_interval_floor_s = 0;
        host.node = format!("host-{number}");
        host.use_s = if number == 0 { None } else { Some(pick(rng, &[10, 60])) };
        host.patience_s = rng.bool().then_some(2000);
        host.faulty = number == 0 || !echoes && rng.bool();
        host.start_ns = number as u64 * 15 * SECOND + rng.u64(0..SECOND);
        host.fence_ns = host.longest_fence_ns();
    }
    if rng.bool() {
        in_an_area(plan, 1000);
        for host in &mut plan.hosts {
            host.fence_ns = 9 * SECOND;
        }
    }
    plan.longest_pause_ns = pick(rng, &[SECOND, 10 * SECOND]);
    plan.calm_ns = 600 * SECOND;
    plan.rates = Rates { slow: pick(rng, &[0.02, 0.1]), ..Rates::default() };
    plan.standby = StandbyPlan {
        stalls: pick(rng, &[0.005, 0.02]),
        slow: pick(rng, &[0.0, 0.005]),
        lags: 0.5,
        echoes: if echoes { 0.5 } else { 0.0 },
        at_the_edge: true,
        ..StandbyPlan::default()
    };
}

fn in_an_area(plan: &mut Plan, interval_ms: u32) {
    for host in &mut plan.hosts {
        host.interval = Duration::from_millis(interval_ms.into());
    }
    plan.area = Some(AreaPlan { interval_ms, late_marks: 0.0 });
}

impl World {
    /// Whatever a host is asked for, it stands by before.
    pub(crate) fn plan_standbys(&mut self) {
        if self.plan.profile != Profile::Standby {
            return;
        }
        for host in 0..self.hosts.len() {
            let start_ns = self.plan.hosts[host].start_ns;
            if matches!(self.plan.hosts[host].kind, Kind::Ours | Kind::Mounted) && start_ns < u64::MAX {
                let at = if self.plan.standby.crash_ns.is_some() { 0 } else { self.rng.u64(0..=start_ns) };
                self.at(at, host, What::Standby(StandbyAct::Look, 0));
            }
        }
        if let Some(crash_ns) = self.plan.standby.crash_ns {
            self.at(crash_ns, 0, What::Crash);
        }
    }

    pub(crate) fn standby_acts(&mut self, host: usize, act: StandbyAct, number: u64) {
        if self.hosts[host].standby.number != number {
            return;
        }
        match act {
            StandbyAct::Look => self.standby_looks(host),
            StandbyAct::Answer => self.standby_answered(host),
        }
    }

    /// As `strikes`, whether or not the host's other I/O is to have faults.
    fn strikes_standby(&mut self, rate: f64) -> bool {
        rate > 0.0 && self.faults_strike() && self.rng.f64() < rate && self.next_fault_strikes()
    }

    /// How long it stalls, or hangs, beside the wait.
    fn standby_trouble_ns(&mut self) -> u64 {
        let wait_ns = self.area_wait_ns().unwrap_or(11 * SECOND);
        match self.plan.standby.at_the_edge {
            true => log_uniform(&mut self.rng, wait_ns / 4, wait_ns * 2),
            false => log_uniform(&mut self.rng, wait_ns / 100, wait_ns * 4),
        }
    }

    fn standby_interval(&self) -> Duration {
        self.plan.area.map_or(timing::DEFAULT_INTERVAL, |area| Duration::from_millis(area.interval_ms.into()))
    }

    fn next_standby_look(&mut self, host: usize, at: u64) {
        self.hosts[host].standby.number += 1;
        let number = self.hosts[host].standby.number;
        self.at(at, host, What::Standby(StandbyAct::Look, number));
    }

    fn standby_looks(&mut self, host: usize) {
        let interval = self.standby_interval();
        self.hosts[host].standby.standby.get_or_insert_with(|| Standby::new(interval));
        if self.strikes_standby(self.plan.standby.stalls) {
            let span = self.standby_trouble_ns();
            self.note(host, || format!("its standby STALLS for {:.3} s", span as f64 / 1e9));
            return self.next_standby_look(host, self.now + span);
        }
        let hangs = self.strikes_standby(self.plan.standby.slow);
        let latency = if hangs {
            self.standby_trouble_ns()
        } else {
            log_uniform(&mut self.rng, 50_000, 8 * MILLISECOND)
        };
        let failed = self.strikes_standby(self.plan.standby.errors);
        let sampled_at = self.now + self.rng.u64(0..=latency);
        let began = self.clock(host).mono;
        let state = &mut self.hosts[host].standby;
        (state.began, state.sampled_at, state.failed) = (began, sampled_at, failed);
        let number = state.number;
        self.after(latency + 1, host, What::Standby(StandbyAct::Answer, number));
    }

    fn standby_answered(&mut self, host: usize) {
        let ended = self.clock(host).mono;
        let image = Rc::clone(self.disk.image_at(self.hosts[host].standby.sampled_at));
        let decodes = self.guard_medium(host).decode(&image).is_ok();
        let state = &mut self.hosts[host].standby;
        let (began, failed) = (state.began, state.failed);
        let standby = state.standby.as_mut().expect("it looks, so it is there");
        if failed {
            standby.failed();
            return self.next_standby_look(host, self.now + FAILURE_PAUSE_NS);
        }
        standby.looked(began, ended, &image);
        let next = standby.next_look(began);
        state.decodes = decodes;
        let at = self.when(host, next).max(self.now);
        self.next_standby_look(host, at);
    }

    /// What a claim that begins now is handed. None: it begins later, with what it was handed now.
    pub(crate) fn credit_brought(&mut self, host: usize) -> Option<Option<Credit>> {
        if self.plan.profile != Profile::Standby || self.plan.hosts[host].start_ns == u64::MAX {
            return Some(None);
        }
        let state = &mut self.hosts[host].standby;
        if let Some(credit) = state.handed.take() {
            return Some(credit);
        }
        let credit = match &state.standby {
            Some(standby) if state.decodes => standby.credit(),
            Some(_) => None,
            None => {
                // It has come up again after a crash.
                self.standby_looks(host);
                None
            }
        };
        self.stats.credits += u64::from(credit.is_some());
        self.note(host, || format!("is asked, and was watching: {}", credit.is_some()));
        if self.plan.standby.lags > 0.0 && self.rng.f64() < self.plan.standby.lags {
            let span = self.standby_trouble_ns();
            self.hosts[host].standby.handed = Some(credit);
            self.after(span, host, What::Start);
            return None;
        }
        Some(credit)
    }

    /// How long an I/O of the holder's takes that hangs.
    pub(crate) fn hang_at_the_edge(&mut self) -> (u64, u64) {
        if self.plan.standby.echoes > 0.0 {
            return pick(&mut self.rng, &[(2 * SECOND, 5 * SECOND), (40 * SECOND, 90 * SECOND)]);
        }
        edges::hang(&mut self.rng)
    }

    /// A beat goes out: it may land once more.
    pub(crate) fn plan_echo(&mut self, host: usize, image: &Rc<Image>) {
        let beats = self.hosts[host].guard.as_ref().is_some_and(Guard::is_beating);
        if self.plan.standby.echoes > 0.0 && beats && self.strikes(host, self.plan.standby.echoes) {
            let bound = self.landing_bound_ns();
            let span = self.rng.u64(bound / 2..=bound);
            self.after(span, host, What::Echo(Rc::clone(image), self.now + bound));
        }
    }

    /// Over a later beat of that host's which has stood for half a wait, and until then.
    pub(crate) fn echo_lands(&mut self, host: usize, image: &Rc<Image>, until: u64) {
        let stands = self.disk.block();
        let live = matches!(Sequence::from(stands.seq), Sequence::Live(_));
        let own = stands.node == NodeName::new(&self.plan.hosts[host].node);
        let again = MmpBlock::fields(image);
        let shorter = again.check_interval_s < stands.check_interval_s;
        if !live || !own || shorter || stands.seq == again.seq {
            return;
        }
        let at = self.disk.stands_since() + self.landing_bound_ns() / 2 + SECOND / 2;
        if at <= self.now {
            self.stats.echoes += 1;
            self.disk.land(self.now, image, Part::Whole);
            self.note(host, || format!("  lands ONCE MORE: {}", super::world::shown(image)));
        } else if at <= until {
            self.at(at, host, What::Echo(Rc::clone(image), until));
        }
    }

    /// Whoever was asked after the crash is in: within what is left of the watch, and a wait.
    pub(crate) fn check_takeover(&mut self, host: usize) {
        let Some(crash_ns) = self.plan.standby.crash_ns.filter(|_| host == 1) else { return };
        if self.stats.withdrawn > 0 {
            // It is its own claim that was watched.
            return;
        }
        let (need, standing) = match self.plan.area {
            Some(area) => {
                let check = CheckInterval::Area(area.interval_ms);
                (check.live_watch(check.wait()), check.wait())
            }
            None => {
                let own = |host: usize| {
                    let plan = &self.plan.hosts[host];
                    timing::holder_check_interval_s(plan.interval, plan.interval, plan.check_interval_floor_s)
                };
                let superblock = self.plan.filesystem.update_interval_s;
                let standing = timing::wait(timing::taker_check_interval_s(superblock, 0).max(own(1)));
                let found = timing::claim(timing::Found::Still, superblock, own(0), own(1));
                (found - standing, standing)
            }
        };
        let asked = Duration::from_nanos(self.hosts[1].claim_since);
        let first_look = timing::look_period(self.standby_interval()) + Duration::from_millis(50);
        let watched_out = Duration::from_nanos(crash_ns) + first_look + need;
        let took = Duration::from_nanos(self.now) - asked;
        let stated = watched_out.saturating_sub(asked) + standing + SLACK;
        self.stats.takeovers += 1;
        if took > stated {
            self.violate(host, format!("took over after {took:?}, stated are {stated:?}"));
        }
        if watched_out <= asked && standing == timing::wait(5) && took > Duration::from_millis(11_800) {
            self.violate(host, format!("took over {took:?} after it was asked"));
        }
    }
}
