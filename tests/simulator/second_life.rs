//! A study, not a rule of the library: a longer life through a stall. A holder whose lease has ended is lost today, and is
//! fenced, though nobody may have come. A taker needs two waits, so a holder whose fence is *known* to take no more than F
//! could go on trying for one more wait less F: look; if what it wrote last still stands, beat; and half a wait after the
//! acknowledgement look again. Every taker writes at least every half wait, so if that beat still stands then, nobody is
//! taking, and the holder has a lease again.
//!
//! `Profile::SecondLife` runs it on hosts of ours whose paths hang, beside claimers of every kind. `docs/checks.md` says what
//! came of it, and why it is not adopted.

use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;

use crate::protocol::{sequence, timing};
use mmpguard::format::{Image, MmpBlock};

use super::disk::Part;
use super::plan::{HostPlan, MILLISECOND, Profile, SECOND};
use super::world::{What, World};

/// The fence that is known to be done by then.
const PROVEN_FENCE_NS: u64 = 2 * SECOND;
const LOOK_NS: u64 = 250 * MILLISECOND;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Off,
    /// What stands there?
    Searching,
    /// A beat is on its way.
    Writing,
    /// It was acknowledged then, and has to stand.
    Confirming { since: u64 },
    /// It stood: a lease again, and the next beat is due then.
    Holding { next_beat: u64 },
}

/// What a host remembers of its second life.
#[derive(Default)]
pub(crate) struct SecondLife {
    phase: Phase,
    /// I/O of an earlier one is void.
    number: u64,
    look_began: u64,
    sampled_at: u64,
    /// What may stand in the block and is ours: the last that was seen to land, and all that was sent after it.
    sent: Vec<Image>,
    /// What a look has to show now.
    last: Option<Image>,
    /// When the fence has to begin.
    pub(crate) until: u64,
}

/// Holders whose paths hang, and who are fenced in time; they come one after the other, and patiently.
pub(crate) fn plan_hosts(hosts: &mut [HostPlan], rng: &mut Rng) {
    for (number, host) in hosts.iter_mut().enumerate() {
        (host.use_s, host.patience_s, host.faulty) = (None, Some(1000), true);
        host.start_ns += number as u64 * 100 * SECOND;
        (host.interval, host.check_interval_floor_s) = (Duration::from_secs(1), 0);
        host.fence_ns = rng.u64(0..=PROVEN_FENCE_NS);
    }
}

impl World {
    /// A write of the guard's goes out.
    pub(crate) fn note_sent(&mut self, host: usize, image: &Image) {
        if self.plan.profile == Profile::SecondLife {
            let sent = &mut self.hosts[host].second.sent;
            sent.push(*image);
            // More than a lease's worth of beats.
            if sent.len() > 200 {
                sent.remove(0);
            }
        }
    }

    /// In place of the fence, when a lease has ended at `from`. False if this host has no second life, or has none left.
    pub(crate) fn second_life_begins(&mut self, host: usize, from: u64) -> bool {
        let state = &mut self.hosts[host];
        if self.plan.profile != Profile::SecondLife || !state.using || state.second.phase != Phase::Off {
            return false;
        }
        let c = state.second.sent.last().map_or(5, |image| MmpBlock::fields(image).check_interval_s);
        let wait_ns = timing::lease_s(c) * SECOND;
        state.second.phase = Phase::Searching;
        state.second.until = from + wait_ns - PROVEN_FENCE_NS;
        (state.cell_lost, state.cell) = (true, None);
        self.stats.second_lives += 1;
        self.note(host, || "a second life begins".into());
        let (at, number) = (self.hosts[host].second.until, self.hosts[host].second.number);
        self.at(at, host, What::SecondLifeEnds(number));
        self.second_look(host);
        true
    }

    /// The time of the fence has come, unless the lease was renewed.
    pub(crate) fn second_life_ends(&mut self, host: usize) {
        let state = &self.hosts[host].second;
        if state.phase == Phase::Off || self.now < state.until {
            return;
        }
        self.second_life_fails(host, "the second life is over");
    }

    fn second_life_fails(&mut self, host: usize, why: &str) {
        self.note(host, || why.into());
        // It stays in its phase, so that there is no third one.
        self.hosts[host].second.number += 1;
        self.fence(host, self.now);
    }

    fn second_look(&mut self, host: usize) {
        let latency = self.latency(host);
        let sampled_at = self.now + self.rng.u64(0..=latency);
        let second = &mut self.hosts[host].second;
        second.number += 1;
        (second.look_began, second.sampled_at) = (self.now, sampled_at);
        let number = second.number;
        self.after(latency + 1, host, What::SecondLook(number));
    }

    pub(crate) fn second_looked(&mut self, host: usize, number: u64) {
        let image = **self.disk.image_at(self.hosts[host].second.sampled_at);
        let using = self.hosts[host].using;
        let second = &mut self.hosts[host].second;
        if second.number != number || !using {
            return;
        }
        let ours = match &second.last {
            Some(last) => *last == image,
            None => second.sent.contains(&image),
        };
        let half_ns = timing::lease_s(MmpBlock::fields(&image).check_interval_s) * SECOND / 2;
        if !ours {
            return self.second_life_fails(host, "somebody has come");
        }
        match second.phase {
            Phase::Searching => self.second_write(host, &image),
            Phase::Holding { next_beat } if self.now >= next_beat => self.second_write(host, &image),
            Phase::Confirming { since } if second.look_began >= since + half_ns => {
                second.phase = Phase::Holding { next_beat: self.now };
                self.stats.second_lives_kept += 1;
                self.note(host, || "the beat stood: a lease again".into());
                self.second_write(host, &image);
            }
            _ => self.after(LOOK_NS, host, What::SecondLookDue(number)),
        }
    }

    pub(crate) fn second_look_due(&mut self, host: usize, number: u64) {
        if self.hosts[host].second.number == number && self.hosts[host].using {
            self.second_look(host);
        }
    }

    /// The next beat over `base`, which was just seen.
    fn second_write(&mut self, host: usize, base: &Image) {
        let mut image = *base;
        let seq = sequence::next(MmpBlock::fields(base).seq);
        let time_s = self.clock(host).wall.0;
        self.disk.encode(&mut image, seq, time_s, None, None);
        let latency = self.latency(host);
        let landing = self.now + self.rng.u64(0..=latency.min(11 * SECOND));
        self.at(landing, host, What::Land(Rc::new(image), Part::Whole));
        let second = &mut self.hosts[host].second;
        second.number += 1;
        second.last = Some(image);
        if second.phase == Phase::Searching {
            second.phase = Phase::Writing;
        }
        let number = second.number;
        self.note(host, || format!("second life: writes {}", super::world::shown(&image)));
        self.after(latency + 1, host, What::SecondWritten(number));
    }

    pub(crate) fn second_written(&mut self, host: usize, number: u64) {
        let now = self.now;
        let using = self.hosts[host].using;
        let second = &mut self.hosts[host].second;
        if second.number != number || !using {
            return;
        }
        let c = second.last.as_ref().map_or(5, |image| MmpBlock::fields(image).check_interval_s);
        let lease_ns = timing::lease_s(c) * SECOND;
        if second.phase == Phase::Writing && self.rng.f64() < 0.3 {
            // The path that hung does so again.
            self.outage(host);
        }
        let second = &mut self.hosts[host].second;
        if second.phase == Phase::Writing {
            second.phase = Phase::Confirming { since: now };
        } else {
            // A lease from the look before this beat; when it has ended the fence begins.
            second.phase = Phase::Holding { next_beat: now + SECOND };
            second.until = second.look_began + lease_ns;
            let (at, number) = (second.until, second.number);
            self.at(at, host, What::SecondLifeEnds(number));
        }
        self.after(LOOK_NS, host, What::SecondLookDue(number));
    }
}
