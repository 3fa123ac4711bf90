//! Adding, removing and renaming slots, and refusing to.

use mmpguard::area::{add, destroy, remove, rename};
use mmpguard::driver::{AreaView, Selector};
use mmpguard::error::Kind;
use mmpguard::format::area::{EntryState, SlotState};

use crate::stage::{CONTENT_BYTES, Stage, TARGET, asking, name};

#[test]
fn slots_are_added_renamed_and_removed_and_generations_grow() {
    let stage = Stage::file(3);
    assert_eq!((stage.add("data"), stage.add("logs")), (1, 2));
    let (block, entry) = (stage.block(1), stage.entry(1));
    assert_eq!(
        (block.record.state, block.record.name, block.record.target),
        (SlotState::Free, name("data"), TARGET)
    );
    assert_eq!((entry.state, entry.name, entry.target), (EntryState::Used, name("data"), TARGET));
    let first = stage.use_once("data");

    let slot = stage.view().slot(&Selector::parse(b"data").unwrap()).unwrap();
    stage.change(|lock| rename(lock, slot, name("files"), asking())).expect("is renamed");
    assert_eq!((stage.block(1).record.name, stage.entry(1).name), (name("files"), name("files")));
    assert!(!stage.slot(1).needs_repair() && stage.options("data").acquire().is_err());
    let second = stage.use_once("files");
    assert!(second > first);

    let slot = stage.slot(1);
    stage.change(|lock| remove(lock, slot, asking())).expect("is removed");
    let (block, entry) = (stage.block(1), stage.entry(1));
    assert_eq!((block.record.state, block.record.name), (SlotState::Free, name("")));
    assert!(entry.state == EntryState::Free && entry.high_water > second && !stage.slot(1).needs_repair());
    assert_eq!(stage.add("again"), 1);
    assert!(stage.use_once("again") > entry.high_water, "no generation is given away again");
}

#[test]
fn a_name_stands_for_one_slot_and_a_full_area_takes_no_more() {
    let stage = Stage::file(2);
    stage.add("data");
    stage.add("logs");
    let before = stage.but_for(&[0]);
    let twice = stage.change(|lock| add(lock, name("more"), TARGET)).expect_err("is guarded");
    assert!(twice.to_string().contains("guards that UUID"), "{twice}");
    let taken = stage.change(|lock| add(lock, name("logs"), TARGET)).expect_err("is taken");
    assert!(taken.to_string().contains("called \"logs\" already"), "{taken}");
    let slot = stage.slot(1);
    let taken = stage.change(|lock| rename(lock, slot, name("logs"), asking())).expect_err("is taken");
    assert!(taken.to_string().contains("already"), "{taken}");
    let full = stage.change(|lock| add(lock, name("more"), [0; 16])).expect_err("is full");
    assert!(full.to_string().contains("in use"), "{full}");
    let lock_slot = stage.slot(0);
    assert!(stage.change(|lock| remove(lock, lock_slot, asking())).is_err(), "the lock stays");
    assert!(stage.but_for(&[0]) == before, "a refusal writes nothing");
}

#[test]
fn what_is_held_is_neither_removed_nor_renamed_nor_destroyed() {
    let stage = Stage::file(2);
    stage.add("data");
    let mut held = stage.hold("data");
    let before = stage.but_for(&[0, 1]);
    let slot = stage.slot(1);
    let refused = stage.change(|lock| remove(lock, slot.clone(), asking())).expect_err("is held");
    assert_eq!(refused.kind(), Kind::InUse, "{refused}");
    let refused = stage.change(|lock| rename(lock, slot, name("other"), asking())).expect_err("is held");
    assert_eq!(refused.kind(), Kind::InUse, "{refused}");
    let refused = destroy(&stage.view(), asking()).expect_err("is held");
    assert_eq!(refused.kind(), Kind::InUse, "{refused}");
    assert!(stage.but_for(&[0, 1]) == before && held.is_held());
    assert_eq!((stage.entry(1).name, stage.block(1).record.name), (name("data"), name("data")));
    held.release().expect("releases");
}

#[test]
fn a_destroyed_area_is_gone_and_what_stands_before_it_is_not() {
    for stage in [Stage::tail(2), Stage::file(2)] {
        let view = stage.view();
        destroy(&view, asking()).expect("is destroyed");
        assert!(AreaView::find(&stage.device()).unwrap().is_none());
        let bytes = stage.bytes();
        for at in [view.layout.header_offset_bytes(), view.layout.copy_offset_bytes()] {
            let at = usize::try_from(at).unwrap();
            assert!(bytes[at..at + 4096].iter().all(|&byte| byte == 0));
        }
        let end = usize::try_from(view.header.content_end_bytes).unwrap();
        assert!(bytes[..end].iter().all(|&byte| byte == 0x5A) && (end == 0 || end as u64 == CONTENT_BYTES));
    }
}
