//! `mmp enable`, `disable` and `set` on image files, without root and without e2fsprogs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use mmpguard::clock;
use mmpguard::format::Superblock;
use mmpguard::protocol::sequence::SEQ_FSCK;

use crate::support::{
    Scratch, ended, interrupt, layout, mmp, patch_block, patch_superblock, start, superblock_of,
};

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn superblock(image: &Path) -> Superblock {
    Superblock::decode(superblock_of(&fs::read(image).expect("reads"))).expect("decodes")
}

#[test]
fn it_is_taken_away_and_put_back_and_set() {
    let scratch = Scratch::new();
    let image = text(&scratch.image);
    let ran = mmp(["disable", image]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("claimed; watching") && ran.err.contains("not protected any more"), "{ran:?}");
    let off = superblock(&scratch.image);
    assert_eq!((off.feature_incompat & 0x100, off.mmp_block, off.mmp_update_interval_s), (0, 0, 0));
    // What was the MMP block names nobody as clean to one who read the superblock before.
    let at = layout().at;
    assert!(scratch.bytes()[at..at + 1024].iter().all(|&byte| byte == 0));
    let show = mmp(["show", image]);
    assert_eq!(show.code, Some(7), "{show:?}");
    assert!(show.err.contains("`mmp enable`"), "{show:?}");

    let before = scratch.bytes();
    let again = mmp(["disable", image]);
    assert_eq!((again.code, again.err.contains("nothing to do")), (Some(0), true), "{again:?}");
    let set = mmp(["set", "--interval", "2s", image]);
    assert_eq!(set.code, Some(7), "{set:?}");
    assert!(scratch.bytes() == before, "nothing was to be done");

    let on = mmp(["enable", "--node", "alpha", "--interval", "2s", image]);
    assert_eq!(on.code, Some(0), "{on:?}");
    assert_eq!(superblock(&scratch.image).mmp_update_interval_s, 2);
    let show = mmp(["show", "--json", image]);
    let report: serde_json::Value = serde_json::from_str(&show.out).expect("is JSON");
    assert_eq!((&report["state"], &report["last"]["node"]), (&"clean".into(), &"alpha".into()), "{report:#}");
    let quiet = mmp(["set", "-q", "--interval", "7", image]);
    assert_eq!((quiet.code, quiet.err.as_str()), (Some(0), ""), "{quiet:?}");
    assert_eq!(superblock(&scratch.image).mmp_update_interval_s, 7);
    assert_eq!(mmp(["set", "--interval", "7s", image]).took.as_secs(), 0, "nothing is claimed for nothing");
}

#[test]
fn what_cannot_be_changed_is_refused_with_the_way_out() {
    let flagged = Scratch::with(|bytes| patch_superblock(bytes, 0x3A, &3_u16.to_le_bytes()));
    let unknown = Scratch::with(|bytes| patch_superblock(bytes, 0x64, &0x8000_0400_u32.to_le_bytes()));
    let marked = Scratch::with(|bytes| patch_block(bytes, |block| block.seq = SEQ_FSCK));
    let odd = Scratch::with(|bytes| patch_block(bytes, |block| block.seq = 0xF000_0000));
    // It is on, and protects nobody.
    let damaged = Scratch::with(|bytes| bytes[layout().at..][..1024].fill(0));
    for (scratch, verb, code, says) in [
        (&damaged, "enable", 3, "mmp clear --damaged"),
        (&flagged, "disable", 3, "e2fsck -f"),
        (&unknown, "disable", 7, "0x80000000 in s_feature_ro_compat"),
        (&marked, "disable", 9, "mmp clear"),
        (&odd, "disable", 3, "mmp clear"),
    ] {
        let before = scratch.bytes();
        let ran = mmp([verb, text(&scratch.image)]);
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!(ran.err.contains(says), "{says}: {ran:?}");
        assert!(scratch.bytes() == before, "{verb} wrote: {ran:?}");
    }
}

#[test]
fn an_interval_is_whole_seconds_from_one_to_three_hundred() {
    let scratch = Scratch::new();
    let before = scratch.bytes();
    for (interval, says) in [
        ("1500ms", "whole seconds"),
        ("301s", "1 to 300 s"),
        ("20h", "whole seconds"),
        ("0", "above zero"),
        ("x", "length of time"),
    ] {
        let ran = mmp(["set", "--interval", interval, text(&scratch.image)]);
        assert_eq!(ran.code, Some(2), "{interval}: {ran:?}");
        assert!(ran.err.contains(says), "{interval}: {ran:?}");
    }
    assert_eq!(mmp(["set", text(&scratch.image)]).code, Some(2), "what is to be set?");
    assert!(scratch.bytes() == before);
}

#[test]
fn enable_without_mmp_takes_no_options_of_areas() {
    let plain = Scratch::with(|bytes| patch_superblock(bytes, 0x60, &0x42_u32.to_le_bytes()));
    let before = plain.bytes();
    for options in [&["--blank"][..], &["--end", "4096"], &["--label", "x"], &["--fresh"]] {
        let ran = mmp([&["enable"], options, &[text(&plain.image)]].concat());
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.err.contains("mmp area create"), "{ran:?}");
    }
    assert!(plain.bytes() == before);
    // Its block is marked as used still: another one is taken.
    assert_eq!(mmp(["enable", text(&plain.image)]).code, Some(0));
    let block = superblock(&plain.image).mmp_block;
    assert_ne!(block, layout().superblock.mmp_block);
}

/// Whoever uses the device on this host is waited for until somebody says stop.
#[test]
fn a_wait_for_this_host_ends_with_a_signal_and_nothing_written() {
    let plain = || Scratch::with(|bytes| patch_superblock(bytes, 0x60, &0x42_u32.to_le_bytes()));
    let cases = [("enable", plain()), ("disable", Scratch::new()), ("set", Scratch::new())];
    for (verb, scratch) in &cases {
        let before = scratch.bytes();
        let _used = fs::File::options().write(true).open(&scratch.image).expect("opens");
        let interval: &[&str] = if *verb == "set" { &["--interval", "9s"] } else { &[] };
        let child = start(&[&[verb, "--wait", "300s"], interval, &[text(&scratch.image)]].concat());
        clock::sleep(Duration::from_secs(3));
        interrupt(&child);
        let ran = ended(child);
        assert_eq!(ran.code, Some(6), "{verb}: {ran:?}");
        assert!(ran.took < Duration::from_secs(5) && scratch.bytes() == before, "{verb}: {ran:?}");
    }
}
