//! Making an area, and refusing to.

use mmpguard::area::{Plan, Wanted};
use mmpguard::driver::AreaView;
use mmpguard::error::Kind;
use mmpguard::format::area::{AreaPlace, EntryState, SlotState};

use crate::stage::{CONTENT_BYTES, CONTENT_LENGTH, Stage, name, wanted};

#[test]
fn a_blank_file_becomes_an_area() {
    let stage = Stage::file(3);
    let view = stage.view();
    assert_eq!((view.header.place, view.header.slots, view.header.revision), (AreaPlace::File, 4, 1));
    assert!(view.repair.is_none() && view.unusable.is_none());
    let mut seen = 0;
    view.each_slot(|slot| {
        seen += 1;
        let (block, entry) = (slot.block.unwrap(), slot.entry.unwrap());
        let lock = slot.number == 0;
        assert_eq!((block.record.state, block.record.generation, entry.high_water), (SlotState::Free, 0, 0));
        assert_eq!(entry.state == EntryState::Used, lock);
        assert_eq!(block.record.name, if lock { name("lock") } else { name("") });
    })
    .unwrap();
    assert_eq!(seen, 4);
    let refused = stage.options("2").acquire().map(drop).expect_err("is not in use");
    assert_eq!(refused.kind(), Kind::Unsupported);
}

#[test]
fn a_tail_area_leaves_what_stands_before_it() {
    for rest in [0, 512] {
        let stage = Stage::blank(256 * 1024 + rest);
        stage.write_at(0, &[0x5A; CONTENT_LENGTH]);
        stage.create(&Wanted { end_bytes: Some(CONTENT_BYTES), ..wanted(2) }).expect("is made");
        let view = stage.view();
        assert_eq!((view.header.place, view.header.content_end_bytes), (AreaPlace::Tail, CONTENT_BYTES));
        assert_eq!(view.layout.end_bytes(), 256 * 1024);
        let bytes = stage.bytes();
        let begins = usize::try_from(view.header.offset_bytes).unwrap();
        assert!(bytes[..CONTENT_LENGTH].iter().all(|&byte| byte == 0x5A));
        assert!(bytes[CONTENT_LENGTH..begins].iter().all(|&byte| byte == 0));
        // Its first slot guards what stands before it.
        assert_eq!(stage.block(1).record.name, name("device"));
        let first = stage.use_once("device");
        assert_eq!(first, view.header.created_s << 16);
        assert_eq!(stage.use_once("1"), first + 1);
    }
}

#[test]
fn what_cannot_become_an_area_is_left_alone() {
    let blank = Stage::blank(64 * 1024);
    let tail = |end_bytes| Wanted { end_bytes: Some(end_bytes), ..wanted(1) };
    // Not said to be blank; no room behind what is there; no room at all.
    for refused in [wanted(1), tail(60 * 1024), Wanted { blank: true, ..wanted(100) }] {
        let before = blank.bytes();
        assert!(blank.create(&refused).is_err(), "{refused:?}");
        assert!(blank.bytes() == before && AreaView::find(&blank.device()).unwrap().is_none());
    }
    let area = Stage::file(2);
    let before = area.bytes();
    let refused = Plan::new(&area.device(), &Wanted { blank: true, ..wanted(1) }).expect_err("has an area");
    assert!(refused.to_string().contains("there is an area already"), "{refused}");
    assert!(area.bytes() == before);
}

/// The header from which it is found is the last block written.
#[test]
fn what_was_broken_off_is_no_area() {
    let stage = Stage::blank(256 * 1024);
    let plan = Plan::new(&stage.device(), &Wanted { blank: true, ..wanted(3) }).expect("can be made");
    assert!(plan.carry_out(&mut |_, _| false).is_err());
    assert!(AreaView::find(&stage.device()).unwrap().is_none());
    stage.create(&Wanted { blank: true, ..wanted(3) }).expect("can be made still");
}
