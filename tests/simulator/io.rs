//! The I/O of a host of ours: what it asks for, when it samples or lands, when and whether it is answered.

use std::rc::Rc;

use crate::protocol::{Input, Mode, Write, sequence};
use mmpguard::format::{Image, MmpBlock};

use super::breakage::{Breakage, is_broken};
use super::disk::Part;
use super::edges;
use super::host::{Feed, Io, Job, is_clean};
use super::plan::{MILLISECOND, Profile, SECOND, log_uniform};
use super::world::{What, World, shown};

/// A write lands at most so long after it went out: the wait of the smallest check interval. DESIGN, *What cannot be
/// promised*: "a device, fabric or target that makes a write visible later than a wait".
pub(crate) const LANDING_BOUND_NS: u64 = 11 * SECOND;
const LONGEST_LATENCY_NS: u64 = 15 * SECOND;
/// A path hangs, and answers in the end.
const LONGEST_HANG_NS: u64 = 150 * SECOND;
/// Slower than this is a fault of the host's own.
const PROMPT_NS: u64 = 100 * MILLISECOND;

impl World {
    pub(crate) fn latency(&mut self, host: usize) -> u64 {
        // Trouble comes in rows.
        let again = self.hosts[host].slow_last && self.faults_strike() && self.rng.bool();
        let slow = again || self.strikes(host, self.plan.rates.slow);
        self.hosts[host].slow_last = slow;
        let (least, most) = match slow {
            true if self.plan.standby.at_the_edge => self.hang_at_the_edge(),
            true if self.plan.profile == Profile::Edges => edges::hang(&mut self.rng),
            true if self.rng.f64() < 0.1 => (LONGEST_LATENCY_NS, LONGEST_HANG_NS),
            true => (10 * MILLISECOND, LONGEST_LATENCY_NS),
            false => (50_000, 8 * MILLISECOND),
        };
        let latency = log_uniform(&mut self.rng, least, most) + self.outage_ns(host);
        if latency > PROMPT_NS {
            self.fault_until(host, self.now + latency);
        }
        latency
    }

    pub(crate) fn fault_until(&mut self, host: usize, until: u64) {
        let state = &mut self.hosts[host];
        state.fault_until = state.fault_until.max(until);
    }

    pub(crate) fn begin_io(&mut self, host: usize, job: Job) -> u64 {
        let state = &mut self.hosts[host];
        assert!(state.io.is_none(), "one I/O at a time");
        state.io_number += 1;
        state.io = Some(Io { number: state.io_number, job, sampled_at: 0, failed: false });
        state.io_number
    }

    pub(crate) fn begin_read(&mut self, host: usize, job: Job) {
        let number = self.begin_io(host, job);
        self.hosts[host].look_began = self.clock(host).mono;
        let latency = self.latency(host);
        if self.strikes(host, self.plan.rates.error) {
            self.hosts[host].io.as_mut().expect("just begun").failed = true;
            self.fault_until(host, self.now + latency);
        }
        let sampled_at = self.now + self.rng.u64(0..=latency);
        self.hosts[host].io.as_mut().expect("just begun").sampled_at = sampled_at;
        self.plan_answer(host, number, latency);
    }

    pub(crate) fn plan_answer(&mut self, host: usize, number: u64, latency: u64) {
        if self.strikes(host, self.plan.rates.late_handling) {
            let late = self.late_handling_ns();
            self.fault_until(host, self.now + latency + late);
            self.after(latency + late, host, What::Answer(number));
        } else {
            // Never before its sample.
            self.after(latency + 1, host, What::Answer(number));
        }
    }

    pub(crate) fn plan_write(&mut self, host: usize, write: Write) {
        self.hosts[host].mounted.trace.submitted_seq = Some(MmpBlock::fields(&write.image).seq);
        let number = self.begin_io(host, Job::Write(Box::new(write)));
        if self.strikes(host, self.plan.rates.stall_before_check) {
            if let Some(span) = self.stall_span(host, 60 * SECOND) {
                self.stall(host, span);
            }
            self.after(0, host, What::Begin(number));
        } else {
            self.begin_write(host, number);
        }
    }

    pub(crate) fn write_under_way(&self, host: usize, number: u64) -> Option<Write> {
        match &self.hosts[host].io {
            Some(Io { number: under_way, job: Job::Write(write), .. }) if *under_way == number => {
                Some(**write)
            }
            _ => None,
        }
    }

    pub(crate) fn begin_write(&mut self, host: usize, number: u64) {
        let Some(write) = self.write_under_way(host, number) else { return };
        if self.clock(host).mono > write.not_after && !is_broken(Breakage::IgnoresNotAfter) {
            self.note(host, || "does not write: too late".into());
            self.hosts[host].io = None;
            return self.feed(host, Feed::Plain(Input::NotWritten));
        }
        if self.hosts[host].cell.is_some_and(|end| end < self.clock(host).mono) {
            self.violate(host, "writes after its lease".into());
        }
        // A clean mark that a host writes long after its last look lands on whoever came: see `Apart::late_clean`.
        let clean = is_clean(&write.image);
        let late_cleans = self.plan.profile == Profile::LateClean;
        let most = if clean && !late_cleans { self.longest_stall_before_clean_ns() } else { 60 * SECOND };
        if (clean || !late_cleans) && self.strikes(host, self.stalled_writes(clean)) {
            if let Some(span) = self.stall_span(host, most) {
                self.stall(host, span);
            }
            self.after(0, host, What::Issue(number));
        } else {
            self.issue_write(host, number);
        }
    }

    pub(crate) fn issue_write(&mut self, host: usize, number: u64) {
        let Some(mut write) = self.write_under_way(host, number) else { return };
        if is_broken(Breakage::NoJump) && self.mode(host) == Some(Mode::Bridging) {
            let seq = sequence::next(self.disk.block().seq);
            let time_s = self.clock(host).wall.0;
            self.disk.encode(&mut write.image, seq, time_s, None, None);
        }
        if self.drops(host) {
            // It seems to be written.
            return self.plan_answer(host, number, MILLISECOND);
        }
        self.check_write(host, &write);
        self.note_sent(host, &write.image);
        self.note_written(host, &write.image);
        self.check_clean(host, &write);
        if is_clean(&write.image) && self.clock(host).mono > write.not_after {
            self.note_late_mark(host, &write.image);
        }
        if self.hosts[host].kernel.has_the_buffer() {
            // A direct write goes through the page that `kmmpd` goes on with.
            self.hosts[host].kernel.buffer = write.image;
        }
        self.largest_c = self.largest_c.max(self.disk_c(&write.image));
        let covered = self.disk.block();
        let smaller = self.disk_c(&write.image) < covered.check_interval_s;
        if smaller && self.clock(host).mono > write.not_after {
            self.note_late_write(host, &write.image);
        }
        let latency = self.latency(host) + self.plan.pauses.write_ns;
        let fails = self.strikes(host, self.plan.rates.error);
        let failed_but_landed = self.plan.rates.failed_but_landed;
        let lands = !fails || self.rng.f64() < failed_but_landed;
        self.note(host, || {
            let fate = if fails { ", which will fail" } else { "" };
            format!("writes {}{fate}", shown(&write.image))
        });
        if fails {
            let bound = self.landing_bound_ns();
            self.fault_until(host, self.now + bound);
            self.hosts[host].io.as_mut().expect("under way").failed = true;
        }
        if lands {
            let most = if fails { self.landing_bound_ns() } else { latency.min(self.landing_bound_ns()) };
            let landing = self.now + self.rng.u64(0..=most);
            if landing > self.when(host, write.not_after) {
                self.late_landings.push(landing);
            }
            let image = Rc::new(write.image);
            self.plan_echo(host, &image);
            self.land(host, image, landing, self.now + most);
        }
        self.plan_answer(host, number, latency);
    }

    /// Both sectors at once, or one a little after the other, or one never.
    pub(crate) fn land(&mut self, host: usize, image: Rc<Image>, at: u64, bound: u64) {
        let torn = self.strikes(host, self.plan.rates.torn);
        let failed = self.hosts[host].io.as_ref().is_some_and(|io| io.failed);
        if !torn {
            return self.at(at, host, What::Land(image, Part::Whole));
        }
        let first = usize::from(self.rng.bool());
        self.at(at, host, What::Land(Rc::clone(&image), Part::Sector(first)));
        if !failed || self.rng.bool() {
            let gap = log_uniform(&mut self.rng, MILLISECOND / 10, 100 * MILLISECOND);
            self.at((at + gap).min(bound.max(at)), host, What::Land(image, Part::Sector(1 - first)));
        }
    }

    pub(crate) fn disk_c(&self, image: &Image) -> u16 {
        mmpguard::format::MmpBlock::fields(image).check_interval_s
    }
}
