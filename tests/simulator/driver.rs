//! The driver of a host that mounts: what it makes of the guard's events, and what befalls its process alone.

use std::time::Duration;

use crate::protocol::{
    Activity, Event, Guard, GuardOptions, Loss, Medium, Mode, Native, Owner, Refusal, Resumption, Standing,
};
use mmpguard::format::{DeviceName, NodeName};

use super::asked::SUCCESSION;
use super::mounted::Act;
use super::plan::{HandOver, Kind, MILLISECOND, Profile, SECOND, log_uniform};
use super::world::{What, World};

impl World {
    pub(crate) fn guard_options(&self, host: usize) -> GuardOptions {
        let plan = &self.plan.hosts[host];
        let mounts = plan.kind == Kind::Mounted;
        GuardOptions {
            interval: plan.interval,
            check_interval_floor_s: plan.check_interval_floor_s,
            patience_until: plan.patience_s.map(|s| self.clock(host).mono + Duration::from_secs(s)),
            kernel_waits: mounts && plan.mount.hand_over == HandOver::Kernel,
            seen_live: mounts && self.hosts[host].mounted.seen_live,
            ..GuardOptions::default()
        }
    }

    pub(crate) fn guard_medium(&self, host: usize) -> Medium {
        if let Some(area) = self.area_medium(host) {
            return area;
        }
        let owner =
            Owner { node: NodeName::new(&self.plan.hosts[host].node), device: DeviceName::new("sda") };
        Medium::Native(Native::new(self.disk.superblock.clone(), owner))
    }

    pub(crate) fn mounted_event(&mut self, host: usize, event: &Event) {
        match event {
            Event::Held { .. } => {
                self.stats.mounts.held += 1;
                self.check_takeover(host);
                if std::mem::take(&mut self.hosts[host].mounted.adopting) {
                    // It goes on beating what is mounted.
                    return self.begin_polling(host);
                }
                let span = log_uniform(&mut self.rng, MILLISECOND / 10, 5 * MILLISECOND);
                self.act_after(span, host, Act::HandOver { mounted: false });
            }
            Event::HandedOver { .. } => self.handed_over(host),
            Event::Overtaken { refusal } => {
                self.stats.mounts.overtaken += 1;
                self.hosts[host].mounted.at_once = refusal.is_none();
                if refusal.is_some() {
                    self.check_refused_mount(host);
                }
                let span = log_uniform(&mut self.rng, MILLISECOND / 10, 20 * MILLISECOND);
                self.act_after(span, host, Act::Kill);
            }
            Event::KernelBeats { as_peer, .. } => {
                self.stats.mounts.watched += 1;
                let counted = Some((self.clock(host).mono, as_peer.seq));
                let state = &mut self.hosts[host].mounted;
                (state.counted, state.adopting) = (counted, false);
                self.plan_admin(host);
            }
            Event::Bridging { .. } => {
                self.stats.mounts.bridged += 1;
                self.hosts[host].mounted.bridged_at = self.now;
            }
            Event::BridgeEnded => self.check_bridge_ended(host),
            Event::Resumed { why } => {
                if *why == Resumption::NotMounted {
                    self.note_taking_back(host);
                }
                self.stats.mounts.resumed += 1;
                self.begin_polling(host);
            }
            Event::Unmounted | Event::NotMounted { .. } | Event::Released => {
                self.check_end(host, event);
                if matches!(event, Event::NotMounted { standing: Standing::Others, refusal: None }) {
                    self.check_refused_mount(host);
                }
                self.hosts[host].cell = None;
                if matches!(event, Event::NotMounted { .. }) {
                    self.stats.mounts.not_mounted += 1;
                }
            }
            Event::Refused { refusal } => {
                self.stats.refused += 1;
                if !self.hosts[host].mounted.adopting {
                    self.hosts[host].mounted.seen_live = matches!(refusal, Refusal::InUse { .. });
                    self.check_refusal(host, refusal);
                }
            }
            Event::Lost { loss, .. } => {
                self.stats.lost += 1;
                self.check_loss(host, loss);
                let from = match (self.lease_from_sight(host), loss) {
                    (Some(end), Loss::LeaseExpired) => self.when(host, end),
                    _ => self.now,
                };
                self.fence(host, from);
            }
            Event::LostRace { .. } => self.stats.lost_races += 1,
            Event::TooSlow { .. } => self.stats.too_slow += 1,
            Event::Intruder { .. } => self.intruded(host),
            _ => {}
        }
    }

    /// The kernel's turn.
    fn handed_over(&mut self, host: usize) {
        self.note_hand_over(host);
        let state = &mut self.hosts[host];
        state.mounted.awaits_mount = true;
        state.mounted.handed_at = self.now;
        state.mounted.changed_at = self.now;
        state.kernel.killed = false;
        if state.kernel.shown == Activity::ReadOnly {
            let span = log_uniform(&mut self.rng, MILLISECOND, 100 * MILLISECOND);
            return self.act_after(span, host, Act::RemountRw);
        }
        state.cell = None;
        state.kernel.mount += 1;
        state.kernel.shown = Activity::Ending;
        let span = log_uniform(&mut self.rng, MILLISECOND, self.plan.hosts[host].mount.call_ns);
        self.hosts[host].mounted.call_ns = span;
        self.act_after(span, host, Act::Call);
    }

    fn begin_polling(&mut self, host: usize) {
        if !std::mem::replace(&mut self.hosts[host].mounted.polls, true) {
            self.act_after(SECOND / 10, host, Act::Poll);
        }
    }

    /// Nobody but the driver tells a guard that beats that its filesystem is gone.
    pub(crate) fn poll_mount(&mut self, host: usize) {
        if self.mode(host) != Some(Mode::Beating) {
            self.hosts[host].mounted.polls = false;
        } else if self.hosts[host].kernel.shown == Activity::Gone {
            self.hosts[host].mounted.polls = false;
            self.hosts[host].release_wanted = true;
            self.release(host);
        } else {
            let span = log_uniform(&mut self.rng, 10 * MILLISECOND, SECOND);
            self.act_after(span, host, Act::Poll);
        }
    }

    /// `mmp remount`: once the guard beats.
    pub(crate) fn want_remount(&mut self, host: usize) {
        let kernel = &self.hosts[host].kernel;
        if kernel.shown != Activity::ReadOnly || self.hosts[host].mounted.failed || kernel.remounts {
            return;
        }
        if self.mode(host) == Some(Mode::Beating) && !self.hosts[host].mounted.awaits_mount {
            self.act_after(0, host, Act::HandOver { mounted: true });
        } else {
            self.act_after(SECOND, host, Act::WantRemount);
        }
    }

    /// The next thing that an administrator does to the mount, or that befalls it.
    pub(crate) fn plan_admin(&mut self, host: usize) {
        let rates = self.plan.mounts;
        let total = rates.freezes + rates.remounts + rates.failures;
        if total <= 0.0 {
            return;
        }
        let wait_s = -self.rng.f64().max(1e-9).ln() / total;
        let pick = self.rng.f64() * total;
        let act = if pick < rates.freezes {
            Act::Freeze
        } else if pick < rates.freezes + rates.remounts {
            Act::RemountRo
        } else {
            Act::Fail
        };
        self.act_after((wait_s * 1e9) as u64, host, act);
    }

    pub(crate) fn plan_process_faults(&mut self, host: usize) {
        let guards_die = self.plan.profile == Profile::SecondLife || self.plan.area.is_some();
        if self.plan.hosts[host].kind != Kind::Mounted && !guards_die {
            return;
        }
        let rates = self.plan.mounts;
        let acts = [
            (rates.guard_stalls_per_s, What::GuardStall),
            (rates.guard_crashes_per_s, What::GuardCrash),
            (rates.outages_per_s, What::Outage),
        ];
        for (rate, what) in acts {
            self.plan_fault(rate, host, what);
        }
    }

    /// The guard's process stands still; kernel and keeper go on.
    pub(crate) fn guard_stalls(&mut self, host: usize) {
        let span = log_uniform(&mut self.rng, SECOND / 10, 60 * SECOND);
        let until = self.now + span;
        self.note(host, || format!("the GUARD STALLS for {:.3} s", span as f64 / 1e9));
        let state = &mut self.hosts[host].mounted;
        state.guard_stalled_until = state.guard_stalled_until.max(until);
        self.fault_until(host, until);
        self.plan_fault(self.plan.mounts.guard_stalls_per_s, host, What::GuardStall);
    }

    /// Its path to the device hangs.
    pub(crate) fn outage(&mut self, host: usize) {
        let span = log_uniform(&mut self.rng, SECOND / 10, 60 * SECOND);
        let until = self.now + span;
        self.note(host, || format!("its PATH HANGS for {:.3} s", span as f64 / 1e9));
        let state = &mut self.hosts[host].mounted;
        state.outage_until = state.outage_until.max(until);
        self.fault_until(host, until);
        self.plan_fault(self.plan.mounts.outages_per_s, host, What::Outage);
    }

    /// What an I/O waits for before anything else.
    pub(crate) fn outage_ns(&self, host: usize) -> u64 {
        self.hosts[host].mounted.outage_until.saturating_sub(self.now)
    }

    /// The guard's process dies. The keeper notices; a mount that was being made, or that the guard itself was beating,
    /// is fenced at once, and one that the kernel beats may be adopted while the lease lasts.
    pub(crate) fn guard_crashes(&mut self, host: usize) {
        self.plan_fault(self.plan.mounts.guard_crashes_per_s, host, What::GuardCrash);
        let Some(mode) = self.mode(host) else { return };
        self.note(host, || format!("the GUARD CRASHES, {mode:?}"));
        self.stats.mounts.guard_crashes += 1;
        self.fault_until(host, self.now);
        let state = &mut self.hosts[host];
        (state.guard, state.io, state.release_wanted) = (None, None, false);
        state.mounted.driver += 1;
        state.mounted.awaited = false;
        state.mounted.polls = false;
        if state.cell_lost {
            return;
        }
        let mounted = self.hosts[host].kernel.shown != Activity::Gone;
        match mode {
            Mode::Beating if self.plan.peers.leaves && mounted => self.guard_comes_back(host),
            Mode::Watching | Mode::Bridging => self.guard_comes_back(host),
            _ if self.hosts[host].kernel.shown == Activity::Gone => self.after(SECOND, host, What::Start),
            _ => {
                self.hosts[host].kernel.killed = true;
                self.fence(host, self.now);
            }
        }
    }

    /// A new driver takes over what its predecessor's cell still protects.
    pub(crate) fn guard_adopts(&mut self, host: usize) {
        let now = self.clock(host);
        let state = &self.hosts[host];
        let protected = state.cell.is_some_and(|end| now.mono < end) && !state.cell_lost;
        if state.guard.is_some() || state.using_until.is_some() {
            return;
        }
        if state.kernel.shown == Activity::Gone {
            self.hosts[host].cell = None;
            return self.after(SECOND, host, What::Start);
        }
        if !protected {
            return;
        }
        self.note(host, || "a new guard adopts".into());
        self.stats.mounts.adoptions += 1;
        let adoption = self.what_is_left(host);
        if adoption.left.is_some_and(|left| left.lease_end < now.mono + SUCCESSION) {
            return self.fence(host, self.now);
        }
        let seed = self.rng.u64(..);
        let options = GuardOptions { patience_until: None, kernel_waits: false, ..self.guard_options(host) };
        let guard = Guard::adopt(self.guard_medium(host), options, adoption, seed, now);
        let state = &mut self.hosts[host];
        state.guard = Some(guard);
        state.mounted.adopting = true;
        self.drain(host);
    }

    /// The keeper's cell after an input: the end of the guard's lease, or none while nothing is protected.
    pub(crate) fn disarm(&mut self, host: usize) {
        let state = &mut self.hosts[host];
        let Some(guard) = &state.guard else { return };
        if guard.lease_end().is_none() && !guard.is_over() && !state.mounted.adopting {
            state.cell = None;
        }
    }

    /// A new guard begins: what was planned for the last one is void.
    pub(crate) fn forget_guard(&mut self, host: usize) {
        let state = &mut self.hosts[host];
        state.succession = super::succession::Succession::default();
        state.mounted.driver += 1;
        state.mounted.trace = super::mounted::Trace::default();
        state.mounted.awaits_mount = false;
        state.mounted.awaited = false;
        state.mounted.adopting = false;
        state.mounted.polls = false;
    }
}
