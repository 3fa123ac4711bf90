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
        for at in [old.layout.header_offset_bytes(), old.layout.copy_offset_bytes()] {
            let at = usize::try_from(at).unwrap();
            assert!(bytes[at..at + 4096].iter().all(|&byte| byte == 0), "the old headers are gone");
        }
        assert_eq!(stage.block(1).record.name, name("device"));
        assert!(stage.use_once("device") > before, "generations go on");
        assert!(!relocate(&stage.view(), asking()).expect("is where it belongs"));
    }
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
