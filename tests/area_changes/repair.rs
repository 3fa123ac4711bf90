//! Changes that were broken off, blocks that were broken by hand, and their repair.

use mmpguard::area::{find_lost_header, repair};
use mmpguard::clock;
use mmpguard::driver::{AreaView, SlotView};
use mmpguard::error::Kind;
use mmpguard::format::area::{
    AreaHeader, EntryState, HeaderRole, SlotBlock, SlotEntry, SlotState, counterpart, whole_block,
};
use mmpguard::format::{Image, MmpBlock};

use crate::stage::{Stage, TARGET, asking, name};

fn mismatched(stage: &Stage, number: u32) -> SlotView {
    let slot = stage.slot(number);
    assert!(slot.needs_repair(), "{slot:?}");
    assert!(stage.options(&number.to_string()).acquire().is_err(), "nothing is claimed there");
    slot
}

fn repaired(stage: &Stage, number: u32) {
    let result = repair(&stage.view(), false, asking()).expect("repairs");
    assert_eq!((result.slots, result.held), (vec![number], vec![]));
    assert!(!stage.slot(number).needs_repair());
}

#[test]
fn an_add_that_was_broken_off_is_completed() {
    let stage = Stage::file(2);
    let mut block = stage.block(1);
    (block.record.name, block.record.target) = (name("data"), TARGET);
    stage.write_slot(&block);
    mismatched(&stage, 1);
    repaired(&stage, 1);
    let entry = stage.entry(1);
    assert_eq!((entry.state, entry.name, entry.target), (EntryState::Used, name("data"), TARGET));
    stage.use_once("data");
}

#[test]
fn a_removal_and_a_renaming_that_were_broken_off_are_taken_back() {
    let stage = Stage::file(2);
    stage.add("data");
    let last = stage.use_once("data");
    let entry = stage.entry(1);
    let gone = SlotEntry { state: EntryState::Free, name: name(""), target: [0; 16], ..entry };
    let renamed = SlotEntry { name: name("other"), ..entry };
    for broken in [gone, renamed] {
        stage.write_entry(&broken);
        mismatched(&stage, 1);
        repaired(&stage, 1);
        let entry = stage.entry(1);
        assert_eq!((entry.state, entry.name, entry.high_water), (EntryState::Used, name("data"), last));
    }
    assert!(stage.use_once("data") > last);
}

#[test]
fn a_mismatched_slot_that_looks_held_is_left_alone() {
    let stage = Stage::file(2);
    stage.add("data");
    drop(stage.hold("data"));
    stage.write_entry(&SlotEntry { name: name("other"), ..stage.entry(1) });
    let before = stage.but_for(&[0]);
    let result = repair(&stage.view(), false, asking()).expect("runs");
    assert_eq!((result.slots, result.held), (vec![], vec![1]));
    assert!(stage.but_for(&[0]) == before);
}

/// Something else was written there.
#[test]
fn a_slot_block_without_its_magic_is_refused_and_made_anew_by_its_entry() {
    for garbage in [[0; 4096], [0x77; 4096]] {
        let stage = Stage::file(2);
        stage.add("data");
        let last = stage.use_once("data");
        stage.write_at(stage.slot_bytes(1), &garbage);
        let before = stage.bytes();
        let refused = stage.options("data").acquire().map(drop).expect_err("is damaged");
        assert_eq!(refused.kind(), Kind::Damaged, "{refused}");
        assert!(stage.bytes() == before, "a refusal writes nothing");
        assert!(stage.slot(1).needs_repair());
        let began = clock::mono();
        repaired(&stage, 1);
        assert!(clock::mono().since(began).as_secs_f64() > 3.3, "the lock, and two waits");
        let (block, entry) = (stage.block(1), stage.entry(1));
        assert_eq!(
            (block.record.state, block.record.name, block.record.target),
            (SlotState::Free, name("data"), TARGET)
        );
        assert_eq!(
            (entry.state, entry.name, entry.high_water),
            (EntryState::Used, name("data"), block.record.generation)
        );
        assert!(block.record.generation > last);
        assert!(stage.use_once("data") > block.record.generation);
    }
}

#[test]
fn a_lock_without_its_magic_is_made_anew() {
    let stage = Stage::file(2);
    stage.add("data");
    stage.write_at(stage.slot_bytes(0), &[0x77; 4096]);
    let before = stage.but_for(&[0]);
    let refused =
        stage.change(|lock| mmpguard::area::add(lock, name("more"), [0; 16])).expect_err("is damaged");
    assert_eq!(refused.kind(), Kind::Damaged, "{refused}");
    repaired(&stage, 0);
    assert!(stage.but_for(&[0]) == before);
    assert_eq!(stage.add("more"), 2);
}

/// With its magic it is claimed after two waits, and needs no repair.
#[test]
fn a_torn_slot_block_is_claimed() {
    let stage = Stage::file(2);
    stage.add("data");
    let last = stage.use_once("data");
    stage.write_at(stage.slot_bytes(1) + 0x200, &[1]);
    assert!(stage.slot(1).block.is_err() && !stage.slot(1).needs_repair());
    assert!(stage.use_once("data") > last);
}

#[test]
fn both_blocks_damaged_is_a_free_slot_after_a_repair() {
    let stage = Stage::file(2);
    stage.add("data");
    let last = stage.use_once("data");
    stage.write_at(stage.slot_bytes(1), &[0; 4096]);
    stage.write_at(stage.view().layout.entry_offset_bytes(1).unwrap(), &[0; 4096]);
    repaired(&stage, 1);
    assert!(stage.entry(1).state == EntryState::Free && stage.entry(1).high_water > last);
    assert_eq!(stage.add("data"), 1);
    assert!(stage.use_once("data") > last);
}

#[test]
fn what_a_later_version_wrote_is_not_repaired() {
    let stage = Stage::file(2);
    stage.add("data");
    let (at, seed, block) = (stage.slot_bytes(1), stage.view().header.seed(), stage.block(1));
    let mut image: Image = [0; 1024];
    SlotBlock { ..block }.encode_into(&mut image, seed);
    image[0x86] = 4;
    MmpBlock::fields(&image).encode_into(&mut image, Some(seed));
    stage.write_at(at, &whole_block(&image));
    stage.write_at(stage.view().layout.entry_offset_bytes(1).unwrap(), &[0; 4096]);
    let before = stage.but_for(&[0]);
    let result = repair(&stage.view(), false, asking()).expect("runs");
    assert!(result.slots.is_empty() && stage.but_for(&[0]) == before);
}

#[test]
fn either_header_is_written_anew_from_the_other() {
    for stage in [Stage::file(2), Stage::tail(2)] {
        let view = stage.view();
        let before = stage.but_for(&[0]);
        let places = [
            (HeaderRole::Header, view.layout.header_offset_bytes()),
            (HeaderRole::Copy, view.layout.copy_offset_bytes()),
        ];
        for (role, at) in places {
            for damage in [&[0; 4096][..], &[1]] {
                stage.write_at(at + if damage.len() == 1 { 0x3F0 } else { 0 }, damage);
                // Found from the other one only by who is told to look for it.
                let found = match AreaView::find(&stage.device()) {
                    Ok(Some(found)) => found,
                    _ => find_lost_header(&stage.device(), None).expect("is found"),
                };
                let result = repair(&found, false, asking()).expect("repairs");
                assert_eq!(result.header.map(|repair| repair.role), Some(role));
                assert!(stage.but_for(&[0]) == before, "{role:?}: as it was");
            }
        }
    }
}

#[test]
fn a_header_that_was_left_behind_is_written_anew() {
    let stage = Stage::tail(2);
    let view = stage.view();
    let mut image: Image = [0; 1024];
    AreaHeader { revision: 2, ..view.header }.encode_into(&mut image);
    let newer = counterpart(&image, HeaderRole::Header);
    stage.write_at(view.layout.header_offset_bytes(), &whole_block(&newer));
    assert_eq!(stage.view().repair.map(|repair| repair.role), Some(HeaderRole::Copy));
    stage.use_once("device");
    repair(&stage.view(), false, asking()).expect("repairs");
    assert!(stage.view().repair.is_none() && stage.view().header.revision == 2);
}

#[test]
fn generations_are_raised_after_a_snapshot_was_taken_back() {
    let stage = Stage::file(2);
    stage.add("data");
    let snapshot = stage.bytes();
    let last = stage.use_once("data");
    std::fs::write(&stage.path, snapshot).expect("is taken back");
    clock::sleep(std::time::Duration::from_secs(1));
    let result = repair(&stage.view(), true, asking()).expect("repairs");
    assert!(result.raised >= 2 && result.held.is_empty());
    assert!(stage.use_once("data") > last);
}
