//! Slots of areas: what a record says at once, generations, and times that follow from the area's interval.

use super::*;
use crate::format::area::{
    AreaHeader, AreaPlace, EntryState, GuardRecord, HeaderRole, SlotBlock, SlotEntry, SlotName, SlotState,
};
use crate::format::{ChecksumSeed, Name};
use crate::protocol::event::Change;

pub(super) const AREA: [u8; 16] = *b"an area's uuid..";
pub(super) const TARGET: [u8; 16] = *b"what it guards..";
pub(super) const OURS: [u8; 16] = *b"our own boot id.";
pub(super) const THEIRS: [u8; 16] = *b"another boot id.";
const SLOT: u32 = 3;
/// The area was created long ago.
pub(super) const CREATED_S: u64 = 1_700_000_000;
/// A generation that was given away since.
pub(super) const LAST: u64 = (CREATED_S << 16) + 7;
/// A live sequence, and one that is far from it.
pub(super) const SEQ: u32 = 0x0100_0000;

pub(super) fn header(interval_ms: u32) -> AreaHeader {
    AreaHeader {
        incompat: 0,
        ro_compat: 0,
        compat: 0,
        uuid: AREA,
        offset_bytes: 0,
        target_bytes: 1 << 20,
        slots: 8,
        interval_ms,
        created_s: CREATED_S,
        revision: 1,
        role: HeaderRole::Header,
        place: AreaPlace::Whole,
        label: Name::new("rack 4"),
        content_end_bytes: 0,
        content: Name::new(""),
    }
}

pub(super) fn record(state: SlotState, generation: u64, boot_id: [u8; 16], interval_ms: u32) -> GuardRecord {
    let name = SlotName::new("db");
    GuardRecord { state, generation, slot: SLOT, interval_ms, boot_id, target: TARGET, name }
}

impl Bench {
    /// A guard of node "mike", whose slot shows `seq` of node "zulu" on another boot.
    pub(super) fn on_slot(seq: u32, state: SlotState, interval_ms: u32) -> Self {
        let mut bench = Bench::clean();
        let mut superblock = [0; 1024];
        header(interval_ms).encode_into(&mut superblock);
        let found = record(state, LAST, THEIRS, interval_ms);
        let owner = Owner { node: NodeName::new("mike"), device: DeviceName::new("sda") };
        let medium = Medium::Area(Area::new(header(interval_ms), &found, owner, OURS));
        bench.guard = Guard::new(medium, GuardOptions::default(), 7, bench.now());
        (bench.superblock, bench.image) = (superblock, [0; 1024]);
        bench.put_slot("zulu", seq, found);
        bench.set_entry(LAST, "db");
        bench
    }

    fn held_slot(interval_ms: u32) -> Self {
        let mut bench = Self::on_slot(SEQ_CLEAN, SlotState::Released, interval_ms);
        bench.run_until(12.0 * f64::from(interval_ms) / 1000.0);
        assert!(bench.has(|event| matches!(event, Event::Held { .. })), "{:?}", bench.events);
        bench.events.clear();
        bench.writes.clear();
        bench
    }

    pub(super) fn put_slot(&mut self, node: &str, seq: u32, record: GuardRecord) {
        let (node, device) = (NodeName::new(node), DeviceName::new("sda"));
        let block = MmpBlock { seq, time_s: self.now().wall.0, node, device, check_interval_s: 5 };
        SlotBlock { block, record }.encode_into(&mut self.image, ChecksumSeed::from_uuid(&AREA));
    }

    pub(super) fn set_entry(&mut self, high_water: u64, name: &str) {
        let name = SlotName::new(name);
        let entry = SlotEntry {
            slot: SLOT,
            state: EntryState::Used,
            high_water,
            target: TARGET,
            name,
            changed_s: CREATED_S,
            area: AREA,
        };
        entry.encode_into(&mut self.entry);
    }

    pub(super) fn slot(&self) -> GuardRecord {
        SlotBlock::decode(&self.image, ChecksumSeed::from_uuid(&AREA), SLOT).expect("decodes").record
    }

    pub(super) fn high_water(&self) -> u64 {
        SlotEntry::decode(&self.entry, &AREA, SLOT).expect("decodes").high_water
    }

    /// Somebody's block over ours, and a second later.
    fn meets(&mut self, node: &str, state: SlotState, generation: u64, boot_id: [u8; 16]) {
        let seq = if matches!(state, SlotState::Released | SlotState::Free) { SEQ_CLEAN } else { SEQ };
        self.put_slot(node, seq, record(state, generation, boot_id, 1000));
        self.run_until(self.seconds + 1.5);
    }
}

#[test]
fn a_claim_on_clean_takes_one_wait_of_the_areas_and_draws_the_next_generation() {
    for (interval_ms, wait_s) in [(100, 1.1), (1000, 11.0), (10_000, 110.0)] {
        let mut bench = Bench::on_slot(SEQ_CLEAN, SlotState::Released, interval_ms);
        bench.run_until(200.0);
        let held = bench.events.iter().find(|(_, event)| matches!(event, Event::Held { .. })).unwrap().0;
        assert!((held - wait_s).abs() < 0.05, "{interval_ms}: {held}");
        assert_eq!((bench.guard.generation(), bench.high_water()), (Some(LAST + 1), LAST + 1));
        let found = bench.slot();
        assert_eq!((found.state, found.generation, found.boot_id), (SlotState::Holding, LAST + 1, OURS));
        assert_eq!((found.name, found.target), (SlotName::new("db"), TARGET));
        let beats = bench.writes.iter().filter(|write| write.0 > held).count() as f64;
        let expected = (200.0 - held) / (0.975 * f64::from(interval_ms) / 1000.0);
        assert!((beats / expected - 1.0).abs() < 0.15, "beats at the area's interval: {beats}, {expected}");
        let lease = bench.lease_end_s() - bench.writes.last().unwrap().0;
        assert!((lease - wait_s).abs() < 0.1, "{lease}");
    }
}

#[test]
fn a_block_that_is_not_clean_stands_for_two_waits() {
    for state in [SlotState::Claiming, SlotState::Holding] {
        let mut bench = Bench::on_slot(SEQ, state, 1000);
        bench.run_until(40.0);
        let held = bench.events.iter().find(|(_, event)| matches!(event, Event::Held { .. })).unwrap().0;
        assert!((22.0..22.5).contains(&held), "{held}");
    }
    // Whoever wrote it beats more seldom than the header says now.
    let mut bench = Bench::on_slot(SEQ, SlotState::Holding, 1000);
    bench.put_slot("zulu", SEQ, record(SlotState::Holding, LAST, THEIRS, 2000));
    bench.run_until(60.0);
    let held = bench.events.iter().find(|(_, event)| matches!(event, Event::Held { .. })).unwrap().0;
    assert!((44.0..45.0).contains(&held), "two of his waits: {held}");
}

#[test]
fn a_live_one_is_refused_at_his_first_beat() {
    let mut bench = Bench::on_slot(SEQ, SlotState::Holding, 1000);
    bench.run_until(0.6);
    bench.put_slot("zulu", SEQ + 1, record(SlotState::Holding, LAST, THEIRS, 1000));
    bench.run_until(2.0);
    assert!(matches!(bench.refusal(), Refusal::InUse { .. }));
    assert!(bench.last().0 < 0.9 && bench.writes.is_empty() && bench.high_water() == LAST);
}

#[test]
fn a_damaged_block_that_stands_still_for_two_waits_is_claimed_by_what_the_entry_says() {
    let mut bench = Bench::on_slot(SEQ, SlotState::Holding, 1000);
    bench.image[0x88] ^= 1;
    bench.run_until(40.0);
    let held = bench.events.iter().find(|(_, event)| matches!(event, Event::Held { .. })).unwrap().0;
    assert!((33.0..33.7).contains(&held), "two waits, and that of the claim: {held}");
    // A late write may have set the entry back, so the time counts, too.
    assert!(bench.guard.generation().unwrap() >= WALL_S << 16);
    assert_eq!(bench.slot().name, SlotName::new("db"));

    // Without the entry nothing says which generations were given away.
    let mut bench = Bench::on_slot(SEQ, SlotState::Holding, 1000);
    bench.image[0x88] ^= 1;
    bench.entry[0x20] ^= 1;
    bench.run_until(40.0);
    assert!(matches!(bench.refusal(), Refusal::Changed { change: Change::Damaged, .. }));
    assert!(bench.writes.is_empty());

    // Something else was written there: an mkfs, or a filesystem that was grown.
    for (at, bit) in [(0, 1), (3, 0x80)] {
        let mut bench = Bench::on_slot(SEQ, SlotState::Holding, 1000);
        bench.image[at] ^= bit;
        bench.run_until(60.0);
        assert!(matches!(bench.refusal(), Refusal::Damaged { .. }), "{:?}", bench.events);
        assert!(bench.last().0 < 0.1 && bench.writes.is_empty() && bench.high_water() == LAST);
    }
    let mut bench = Bench::on_slot(SEQ, SlotState::Holding, 1000);
    bench.image[0x88] ^= 1;
    bench.run_until(10.0);
    bench.image = [0; 1024];
    bench.run_until(60.0);
    assert!(matches!(bench.refusal(), Refusal::Damaged { .. }) && bench.writes.is_empty());

    // It changes: somebody is at work there.
    let mut bench = Bench::on_slot(SEQ, SlotState::Holding, 1000);
    bench.image[0x88] ^= 1;
    bench.run_until(10.0);
    bench.image[0x88] ^= 2;
    bench.run_until(32.0);
    assert!(bench.writes.is_empty(), "the watch began anew: {:?}", bench.events);
}

#[test]
fn a_slot_that_is_another_ones_by_now_is_left_alone() {
    let now = record(SlotState::Released, LAST, THEIRS, 1000);
    let changes = [
        ("removed", GuardRecord { state: SlotState::Free, name: SlotName::new(""), ..now }),
        ("another name", GuardRecord { name: SlotName::new("other"), ..now }),
        ("another target", GuardRecord { target: [1; 16], ..now }),
    ];
    for (what, changed) in changes {
        let mut bench = Bench::on_slot(SEQ_CLEAN, SlotState::Released, 1000);
        bench.put_slot("zulu", SEQ_CLEAN, changed);
        bench.run_until(12.0);
        let Refusal::Changed { what: said, .. } = bench.refusal() else { panic!("{:?}", bench.events) };
        assert!(said.contains(what) && bench.writes.is_empty(), "{said}");
    }
    let mut bench = Bench::on_slot(SEQ_CLEAN, SlotState::Released, 1000);
    bench.set_entry(LAST, "other");
    bench.run_until(12.0);
    assert!(matches!(bench.refusal(), Refusal::Changed { .. }) && bench.writes.is_empty());
    // The header says another interval by now.
    let mut bench = Bench::on_slot(SEQ_CLEAN, SlotState::Released, 1000);
    header(2000).encode_into(&mut bench.superblock);
    bench.run_until(12.0);
    assert!(matches!(bench.refusal(), Refusal::Changed { change: Change::Settings, .. }));
}

#[test]
fn a_claimer_and_a_late_write_are_beaten_over_at_once() {
    for (state, generation) in [
        (SlotState::Claiming, LAST),
        (SlotState::Claiming, LAST + 1),
        (SlotState::Claiming, LAST + 2),
        (SlotState::Holding, LAST),
        (SlotState::Released, LAST),
        (SlotState::Free, LAST),
    ] {
        let mut bench = Bench::held_slot(1000);
        bench.meets("zulu", state, generation, THEIRS);
        assert!(!bench.guard.is_over(), "{state:?} {generation}: {:?}", bench.events);
        assert_eq!((bench.slot().boot_id, bench.slot().state), (OURS, SlotState::Holding));
        let told = bench.has(|event| matches!(event, Event::Intruder { .. } | Event::Cleared { .. }));
        assert!(told, "{:?}", bench.events);
    }
}

#[test]
fn a_successor_ends_it_and_nothing_is_written_over_him() {
    for (state, generation) in [
        (SlotState::Holding, LAST + 1),
        (SlotState::Holding, LAST + 2),
        (SlotState::Released, LAST + 1),
        (SlotState::Released, LAST + 2),
    ] {
        let mut bench = Bench::held_slot(1000);
        bench.meets("zulu", state, generation, THEIRS);
        match (state, bench.loss()) {
            (SlotState::Holding, Loss::Stolen { because: LoserRule::Generation, .. }) => {}
            (SlotState::Released, Loss::ForeignClean { .. }) => {}
            (_, loss) => panic!("{state:?} {generation}: {loss:?}"),
        }
        assert_eq!((bench.slot().boot_id, bench.slot().generation), (THEIRS, generation));
    }
    // After a reboot the host is another one: a claimer may draw the same number, but who holds has passed his wait.
    let mut bench = Bench::held_slot(1000);
    bench.meets("mike", SlotState::Holding, LAST + 1, THEIRS);
    assert!(matches!(bench.loss(), Loss::Stolen { .. }));
}

#[test]
fn our_own_older_block_is_beaten_on_whatever_it_says() {
    for state in [SlotState::Claiming, SlotState::Holding, SlotState::Released] {
        let mut bench = Bench::held_slot(1000);
        bench.meets("mike", state, LAST + 1, OURS);
        assert!(!bench.guard.is_over(), "{state:?}: {:?}", bench.events);
        assert_eq!((bench.slot().boot_id, bench.slot().state), (OURS, SlotState::Holding));
    }
}

#[test]
fn a_release_keeps_the_generation_and_leaves_claimers_alone() {
    let mut bench = Bench::held_slot(1000);
    bench.give(Input::Release);
    assert_eq!(*bench.last().1, Event::Released);
    let left = bench.slot();
    assert_eq!((left.state, left.generation, bench.block().seq), (SlotState::Released, LAST + 1, SEQ_CLEAN));

    let mut bench = Bench::held_slot(1000);
    bench.put_slot("zulu", SEQ, record(SlotState::Claiming, LAST + 2, THEIRS, 1000));
    bench.give(Input::Release);
    bench.run_until(bench.seconds + 5.0);
    assert!(bench.has(|event| matches!(event, Event::LeftToOthers { .. })), "{:?}", bench.events);
    assert_eq!(bench.slot().boot_id, THEIRS);
}

/// There is no larger check interval to try again with: it stands in the header.
#[test]
fn a_device_that_is_too_slow_for_the_area_is_refused() {
    let mut bench = Bench::on_slot(SEQ_CLEAN, SlotState::Released, 100);
    bench.fates.push_back(Fate::Takes(0.4));
    bench.run_until(5.0);
    assert!(matches!(bench.refusal(), Refusal::Io { .. }), "{:?}", bench.events);
}

#[test]
fn a_watcher_draws_no_generation() {
    let mut bench = Bench::on_slot(SEQ_CLEAN, SlotState::Released, 1000);
    let found = record(SlotState::Released, LAST, THEIRS, 1000);
    let owner = Owner { node: NodeName::new("mike"), device: DeviceName::new("sda") };
    let medium = Medium::Area(Area::new(header(1000), &found, owner, OURS));
    let options = GuardOptions { watch_only: true, ..GuardOptions::default() };
    bench.guard = Guard::new(medium, options, 7, bench.now());
    bench.run_until(5.0);
    assert!(bench.has(|event| matches!(event, Event::Watched { verdict: Quiet::Clean { .. } })));
    assert_eq!((bench.guard.generation(), bench.high_water()), (None, LAST));
}

/// The mark would have its generation, and may land late on a rival who drew before.
#[test]
fn a_claim_that_is_given_up_is_left_standing() {
    let mut bench = Bench::on_slot(SEQ_CLEAN, SlotState::Released, 1000);
    bench.run_until(3.0);
    bench.give(Input::Withdraw);
    assert_eq!(*bench.refusal(), Refusal::Withdrawn { claim_left_standing: true });
    assert_eq!(bench.slot().state, SlotState::Claiming);
}

#[test]
fn what_was_given_to_another_is_lost_and_what_is_damaged_is_not() {
    let mut bench = Bench::held_slot(1000);
    let other =
        GuardRecord { name: SlotName::new("other"), ..record(SlotState::Holding, LAST, THEIRS, 1000) };
    bench.put_slot("zulu", SEQ, other);
    bench.run_until(bench.seconds + 1.5);
    assert!(matches!(bench.loss(), Loss::Stolen { .. }));

    // A block of another slot, written here by mistake.
    let mut bench = Bench::held_slot(1000);
    bench.put_slot("zulu", SEQ, GuardRecord { slot: 4, ..record(SlotState::Holding, LAST, THEIRS, 1000) });
    bench.run_until(bench.seconds + 5.0);
    assert!(!bench.guard.is_over() && bench.slot().boot_id == OURS, "{:?}", bench.events);

    // There is no area any more: somebody made a filesystem over it.
    let mut bench = Bench::held_slot(1000);
    bench.image = [0; 1024];
    let writes = bench.writes.len();
    bench.run_until(bench.seconds + 8.0);
    assert!(matches!(bench.loss(), Loss::Unreadable) && bench.writes.len() <= writes + 1);
}

#[test]
fn a_watcher_does_not_believe_an_old_mark() {
    let mut bench = Bench::on_slot(SEQ_CLEAN, SlotState::Released, 1000);
    bench.set_entry(LAST + 1, "db");
    let found = record(SlotState::Released, LAST, THEIRS, 1000);
    let owner = Owner { node: NodeName::new("mike"), device: DeviceName::new("sda") };
    let medium = Medium::Area(Area::new(header(1000), &found, owner, OURS));
    let options = GuardOptions {
        watch_only: true,
        // A vouch for whoever wrote the mark, and no kernel: neither makes it shorter.
        fenced: Some(NodeName::new("zulu")),
        kernel_waits: true,
        ..GuardOptions::default()
    };
    bench.guard = Guard::new(medium, options, 7, bench.now());
    bench.run_until(10.9);
    assert!(!bench.has(|event| matches!(event, Event::Watched { .. })), "{:?}", bench.events);
    bench.run_until(12.0);
    assert!(bench.has(|event| matches!(event, Event::Watched { verdict: Quiet::Dead { .. } })));
    assert_eq!(bench.high_water(), LAST + 1);
}
