//! Areas: hosts of ours on a slot (`mmp-format.md`, *MMP areas*), with every fault. The disk has an entry beside the slot's block, and all
//! of its times are in the area's interval: what is slow, or late, is so beside that. Guards die, and are succeeded (`succession`).
//!
//! Checked also: a generation is never given to two holders, and grows with each.
//!
//! Not injected: a slot block and an entry that both go back to what they were (the fencing token of a holder could then be given away
//! again), and damage that no write has done.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::protocol::timing::CheckInterval;
use crate::protocol::{Area, Guard, Medium, Owner, Write};
use fastrand::Rng;
use mmpguard::format::area::{
    AreaHeader, AreaPlace, EntryState, GuardRecord, HeaderRole, SlotBlock, SlotEntry, SlotName, SlotState,
};
use mmpguard::format::{DeviceName, Image, MmpBlock, Name, NodeName};

use super::disk::Before;
use super::host::Job;
use super::io::LANDING_BOUND_NS;
use super::plan::{Kind, MILLISECOND, Plan, Rates, SECOND, log_uniform, pick};
use super::succession;
use super::world::{What, World};

const SLOT: u32 = 1;
const CREATED_S: u64 = 1_700_000_000;

/// What a plan says of an area.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AreaPlan {
    pub(crate) interval_ms: u32,
    /// Of the clean marks so many are written long after the look.
    pub(crate) late_marks: f64,
}

/// The part of a disk that native filesystems have not.
pub(crate) struct AreaDisk {
    header: AreaHeader,
    /// What stood in the entry, and since when.
    entries: VecDeque<(u64, Rc<Image>)>,
}

pub(crate) fn apply(plan: &mut Plan, rng: &mut Rng) {
    let interval_ms = pick(rng, &[100, 1000, 1000, 1000, 5000, 10_000]);
    let interval_ns = u64::from(interval_ms) * MILLISECOND;
    for host in &mut plan.hosts {
        host.kind = Kind::Ours;
        host.interval = Duration::from_nanos(interval_ns);
        // All of the wait that a fence has, but for what the reboot takes.
        host.fence_ns = pick(rng, &[0, 5 * interval_ns, 9 * interval_ns]);
    }
    plan.filesystem.needs_recovery = false;
    plan.area = Some(AreaPlan { interval_ms, late_marks: 0.0 });
    succession::apply(plan, rng);
    late_marks(plan, rng);
}

/// In some plans: short uses, marks that come late, holders whose beats hang, and whose fences take as long as they may. Drawn beside the
/// plan's own numbers.
fn late_marks(plan: &mut Plan, rng: &Rng) {
    let mut rng = Rng::with_seed(rng.clone().u64(..) ^ 0x1A7E_0A2C);
    if rng.f64() >= 0.15 {
        return;
    }
    let interval_ns = 100 * MILLISECOND;
    plan.area = Some(AreaPlan { interval_ms: 100, late_marks: 0.5 });
    for host in &mut plan.hosts {
        (host.interval, host.fence_ns) = (Duration::from_nanos(interval_ns), 9 * interval_ns);
        (host.faulty, host.use_s) = (true, Some(pick(&mut rng, &[1, 10])));
    }
    plan.rates = Rates { slow: pick(&mut rng, &[0.01, 0.03]), ..Rates::default() };
}

impl AreaDisk {
    /// The slot's first block, the header, and what else there is.
    pub(crate) fn new(plan: AreaPlan, before: Before) -> (Image, Image, Self) {
        let header = AreaHeader {
            incompat: 0,
            ro_compat: 0,
            compat: 0,
            uuid: *b"simulated area..",
            offset_bytes: 0,
            target_bytes: 1 << 20,
            slots: 2,
            interval_ms: plan.interval_ms,
            created_s: CREATED_S,
            revision: 1,
            role: HeaderRole::Header,
            place: AreaPlace::Whole,
            label: Name::new(""),
            content_end_bytes: 0,
            content: Name::new(""),
        };
        let (state, seq) = match before {
            Before::Clean => (SlotState::Released, crate::protocol::sequence::SEQ_CLEAN),
            Before::Dead(_) => (SlotState::Holding, 77),
        };
        let name = SlotName::new("slot");
        let generation = CREATED_S << 16;
        let interval_ms = plan.interval_ms;
        let record = GuardRecord {
            state,
            generation,
            slot: SLOT,
            interval_ms,
            boot_id: [9; 16],
            target: [7; 16],
            name,
        };
        let (node, device) = (NodeName::new("long-gone"), DeviceName::new("sdz"));
        let block = MmpBlock { seq, time_s: CREATED_S, node, device, check_interval_s: 5 };
        let (mut first, mut superblock, mut entry) = ([0; 1024], [0; 1024], [0; 1024]);
        SlotBlock { block, record }.encode_into(&mut first, header.seed());
        header.encode_into(&mut superblock);
        SlotEntry {
            slot: SLOT,
            state: EntryState::Used,
            high_water: generation,
            target: [7; 16],
            name,
            changed_s: CREATED_S,
            area: header.uuid,
        }
        .encode_into(&mut entry);
        (first, superblock, AreaDisk { header, entries: [(0, Rc::new(entry))].into() })
    }

    fn entry_at(&self, at: u64) -> &Rc<Image> {
        &self
            .entries
            .iter()
            .rev()
            .find(|(since, _)| *since <= at)
            .expect("the first one stands from the start")
            .1
    }

    pub(crate) fn decodes(&self, image: &Image) -> bool {
        SlotBlock::decode(image, self.header.seed(), SLOT).is_ok()
    }
}

impl World {
    /// The slot, as a guard on that host finds it. A host that has crashed comes back with another boot id.
    pub(crate) fn area_medium(&self, host: usize) -> Option<Medium> {
        let area = self.disk.area.as_ref()?;
        let owner =
            Owner { node: NodeName::new(&self.plan.hosts[host].node), device: DeviceName::new("sda") };
        let mut boot_id = [0; 16];
        boot_id[0] = u8::try_from(host).expect("few hosts");
        boot_id[8..12].copy_from_slice(&self.hosts[host].epoch.to_le_bytes());
        let found = GuardRecord {
            state: SlotState::Released,
            generation: 0,
            slot: SLOT,
            interval_ms: area.header.interval_ms,
            boot_id,
            target: [7; 16],
            name: SlotName::new("slot"),
        };
        Some(Medium::Area(Area::new(area.header, &found, owner, boot_id)))
    }

    /// Writes land at most so long after they went out: the wait of the smallest check interval there is.
    pub(crate) fn landing_bound_ns(&self) -> u64 {
        self.area_wait_ns().unwrap_or(LANDING_BOUND_NS)
    }

    /// One wait, in an area.
    pub(crate) fn area_wait_ns(&self) -> Option<u64> {
        let wait = CheckInterval::Area(self.plan.area?.interval_ms).wait();
        Some(u64::try_from(wait.as_nanos()).expect("two minutes at most"))
    }

    /// Of the writes so many begin long after the check of the clock.
    pub(crate) fn stalled_writes(&self, clean: bool) -> f64 {
        let late_marks = self.plan.area.filter(|_| clean).map_or(0.0, |area| area.late_marks);
        self.plan.rates.stall_after_check.max(late_marks)
    }

    /// A native clean mark that a host writes long after its last look stops whoever has come. In an area it says whose it is.
    pub(crate) fn longest_stall_before_clean_ns(&self) -> u64 {
        if self.plan.area.is_some() { 60 * SECOND } else { 5 * SECOND }
    }

    pub(crate) fn write_entry(&mut self, host: usize, write: Write) {
        self.note(host, || "writes the slot's entry".into());
        let image = Rc::new(write.image);
        let number = self.begin_io(host, Job::WriteEntry);
        let latency = self.latency(host);
        let fails = self.strikes(host, self.plan.rates.error);
        if fails {
            self.hosts[host].io.as_mut().expect("just begun").failed = true;
        }
        if !fails || self.rng.bool() {
            let bound = self.landing_bound_ns();
            let most = if fails { bound } else { latency.min(bound) };
            let landing = self.rng.u64(0..=most);
            self.after(landing, host, What::LandEntry(image));
        }
        self.plan_answer(host, number, latency);
    }

    pub(crate) fn land_entry(&mut self, image: Rc<Image>) {
        let now = self.now;
        self.disk.area.as_mut().expect("only areas have entries").entries.push_back((now, image));
    }

    pub(crate) fn entry_sampled(&self, at: u64) -> Rc<Image> {
        Rc::clone(self.disk.area.as_ref().expect("only areas have entries").entry_at(at))
    }

    /// Somebody holds it: with a generation that nobody has had.
    pub(crate) fn check_generation(&mut self, host: usize) {
        let generation = self.hosts[host].guard.as_ref().and_then(Guard::generation);
        if self.plan.area.is_none() {
            return;
        }
        self.note(host, || format!("  generation {generation:?}"));
        if generation <= self.last_generation {
            self.violate(host, format!("holds generation {generation:?} after {:?}", self.last_generation));
        }
        self.last_generation = self.last_generation.max(generation);
        self.hosts[host].succession.generation = generation;
    }

    /// In an area it is his only if it has his generation.
    pub(crate) fn may_have_written(&self, host: usize, image: &Image) -> bool {
        let Some(area) = &self.disk.area else { return true };
        let generation = self.hosts[host].guard.as_ref().and_then(Guard::generation);
        SlotBlock::decode(image, area.header.seed(), SLOT)
            .is_ok_and(|found| Some(found.record.generation) == generation)
    }

    /// Until an answer is there whose handling is late, beside the area's interval.
    pub(crate) fn late_handling_ns(&mut self) -> u64 {
        let most = self.area_wait_ns().map_or(15 * SECOND, |wait_ns| wait_ns * 3 / 2);
        log_uniform(&mut self.rng, MILLISECOND, most)
    }
}
