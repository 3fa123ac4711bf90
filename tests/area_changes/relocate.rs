//! Moving an area whose target was grown.

use mmpguard::area::{find_moved, relocate};
use mmpguard::driver::AreaView;

use crate::stage::{Stage, asking, name};

#[test]
fn a_tail_area_goes_where_the_end_is_now() {
    for known in [false, true] {
        let stage = Stage::tail(2);
        let old = stage.view();
        let before = stage.use_once("device");
        stage.grow(512 * 1024);
        assert!(AreaView::find(&stage.device()).unwrap().is_none(), "its end is elsewhere");
        let found = find_moved(&stage.device(), known.then_some(256 * 1024)).expect("is found");
        assert!(found.unusable.is_some() && stage.options("1").acquire().is_err());
        assert!(relocate(&found, asking()).expect("moves"));
        let new = stage.view();
        assert_eq!((new.header.uuid, new.header.target_bytes), (old.header.uuid, 512 * 1024));
        assert_eq!(new.layout.end_bytes(), 512 * 1024);
        assert!(new.unusable.is_none() && new.repair.is_none() && new.header.revision > old.header.revision);
        let bytes = stage.bytes();
        let at = usize::try_from(old.layout.header_offset_bytes()).unwrap();
        assert!(bytes[at..at + 4096].iter().all(|&byte| byte == 0), "the old header is gone");
        // Whoever still sees the old size finds there that the area is elsewhere.
        stage.cut_to(256 * 1024, |cut| {
            let refused = AreaView::find(cut).expect_err("is elsewhere").to_string();
            assert!(refused.contains("was moved") && refused.contains("look at its size again"), "{refused}");
            assert!(find_moved(cut, None).is_err());
        });
        assert_eq!(stage.block(1).record.name, name("device"));
        assert!(stage.use_once("device") > before, "generations go on");
        assert!(!relocate(&stage.view(), asking()).expect("is where it belongs"));
    }
}

/// Broken off when the old copy tells of the new place, and nothing stands there yet: nobody can claim anything, and it can be ended.
#[test]
fn a_move_that_was_broken_off_can_be_ended_and_nothing_is_claimed_before() {
    let stage = Stage::tail(2);
    let before = stage.use_once("device");
    stage.grow(512 * 1024);
    let (old, grown) = (find_moved(&stage.device(), None).expect("is found"), stage.bytes());
    assert!(relocate(&old, asking()).expect("moves"));
    let new = stage.view();
    let at = usize::try_from(old.layout.header_offset_bytes()).unwrap();
    stage.write_at(old.layout.header_offset_bytes(), &grown[at..at + 4096]);
    for header in [new.layout.header_offset_bytes(), new.layout.copy_offset_bytes()] {
        stage.write_at(header, &[0; 4096]);
    }
    assert!(AreaView::find(&stage.device()).unwrap().is_none());
    assert!(stage.options("1").acquire().is_err());
    stage.cut_to(256 * 1024, |cut| {
        assert!(AreaView::find(cut).is_err(), "its old copy tells of another place")
    });
    let found = find_moved(&stage.device(), None).expect("is found");
    assert!(found.unusable.as_ref().is_some_and(|why| why.contains("broken off")), "{found:?}");
    assert!(relocate(&found, asking()).expect("moves"));
    assert!(stage.use_once("device") > before);
    assert!(stage.view().header.revision > new.header.revision);
}

/// Broken off when the new headers stand, and the old block 0 still does: that must never be begun from again.
#[test]
fn an_old_block_0_that_a_move_has_left_is_never_begun_from_again() {
    let stage = Stage::tail(2);
    stage.grow(512 * 1024);
    let (old, grown) = (find_moved(&stage.device(), None).expect("is found"), stage.bytes());
    assert!(relocate(&old, asking()).expect("moves"));
    let left = usize::try_from(old.layout.header_offset_bytes()).unwrap();
    stage.write_at(old.layout.header_offset_bytes(), &grown[left..left + 4096]);
    let (new, number) = (stage.view(), stage.add("later"));
    stage.grow(1024 * 1024);
    let found = find_moved(&stage.device(), None).expect("is found");
    assert_eq!(found.layout, new.layout, "the area as it was used last");
    assert!(relocate(&found, asking()).expect("moves"));
    assert_eq!(stage.block(number).record.name, name("later"));
    assert!(stage.bytes()[left..left + 4096].iter().all(|&byte| byte == 0), "it is gone now");
}

#[test]
fn an_area_that_begins_its_file_stays_there() {
    let stage = Stage::file(2);
    stage.add("data");
    let before = stage.use_once("data");
    stage.grow(512 * 1024);
    let found = stage.view();
    assert!(found.unusable.is_some() && stage.options("data").acquire().is_err());
    assert!(relocate(&found, asking()).expect("moves"));
    let new = stage.view();
    assert_eq!((new.header.offset_bytes, new.header.target_bytes), (0, 512 * 1024));
    assert!(new.unusable.is_none() && stage.use_once("data") > before);
}

#[test]
fn a_place_that_overlaps_the_old_one_is_refused() {
    let stage = Stage::tail(2);
    stage.grow(256 * 1024 + 8192);
    let before = stage.bytes();
    let found = find_moved(&stage.device(), Some(256 * 1024)).expect("is found");
    let refused = relocate(&found, asking()).expect_err("overlaps");
    assert!(refused.to_string().contains("overlap"), "{refused}");
    assert!(stage.bytes() == before, "a refusal writes nothing");
}
