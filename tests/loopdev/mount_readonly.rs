//! Read-only mounts, and hosts whose page cache holds an old MMP block: where the kernel mounts a live filesystem in
//! milliseconds, and `mmp mount` refuses it.

use std::fs::File;

use mmpguard::clock;

use crate::Case;
use crate::harness::guarded::{How, refused_soon, write_files};
use crate::harness::lun::Lun;
use crate::harness::process::marked;
use crate::harness::{at_most, observed, seconds};
use mmpguard::protocol::sequence::SEQ_CLEAN;

pub(crate) const CASES: &[Case] = &[
    ("mount_4_a_guarded_read_only_mount_holds_and_leaves_it_clean", held_read_only),
    ("mount_4_a_read_only_mount_of_a_live_device_is_refused", read_only),
    ("mount_5b_a_stale_page_cache_lets_nobody_in", stale_cache),
];

const TRIES: usize = 4;

fn read_only() {
    let lun = Lun::new();
    let holder = lun.mounted(&lun.a);
    write_files(&holder, "file", 20).expect("writes");
    for _ in 0..TRIES {
        let end = lun.guard(&lun.b, &["-r"]).0.end(seconds(30));
        end.expect(1).says("in use elsewhere").says(lun.a.name());
        refused_soon("mount 4", "`mmp mount -r`", end.took);
        clock::sleep(std::time::Duration::from_millis(300));
    }
    let how = How { options: &["-o", "ro"], ..How::default() };
    let alone = lun.mount_with(&lun.b, how).0.end(seconds(60));
    observed(
        "mount 4, kernel alone",
        &format!(
            "mount -o ro of a live device: code {} after {:.3} s (K5)",
            alone.code,
            alone.took.as_secs_f64()
        ),
    );
}

fn held_read_only() {
    let case = "mount 4, read-only";
    let lun = Lun::new();
    let before = lun.bytes();
    let guard = lun.guarded(&lun.a, &["-r"]);
    at_most(case, "`mmp mount -r` of a clean device", guard.took, 11.5);
    let status = lun.status(&lun.a);
    assert_eq!((&status["state"], &status["mode"]), (&"guarding".into(), &"beating".into()), "{status:#}");
    let lun_mark = lun.mark().to_owned();
    let found = marked(&lun_mark);
    assert!(
        found.contains(&guard.driver) && found.contains(&guard.keeper),
        "not found by their mark: {found:?}"
    );
    lun.guard(&lun.b, &[]).0.end(seconds(30)).expect(1).says("in use elsewhere");
    let plain = lun.mount(&lun.b).0.end(seconds(60));
    assert_eq!(plain.code, 32, "the kernel refuses it, too: {plain:?}");
    guard.assert_alive();
    lun.release(&guard.dir);
    assert_eq!(lun.raw().read().seq, SEQ_CLEAN);
    lun.assert_unchanged_outside_mmp(&before);
    lun.fsck().expect(0);
}

/// The standby had it mounted before, and something there keeps the device open: the kernel flushes its cache at the last
/// close only.
fn stale_cache() {
    let case = "mount 5b";
    for guarded_standby in [true, false] {
        let lun = Lun::new();
        let _kept_open = File::open(lun.b.path()).expect("opens");
        let there = lun.mounted(&lun.b);
        lun.umount(&lun.b, &there);
        let guard = lun.guarded(&lun.a, &["--handover", "clean"]);
        write_files(&guard.dir, "file", 20).expect("writes");
        if guarded_standby {
            for _ in 0..TRIES {
                let end = lun.guard(&lun.b, &[]).0.end(seconds(60));
                end.expect(1).says("in use elsewhere").says(lun.a.name());
                refused_soon(case, "`mmp mount` over a stale cache", end.took);
            }
            guard.assert_alive();
            lun.release(&guard.dir);
            lun.fsck().expect(0);
        } else {
            let plain = lun.mount(&lun.b).0.end(seconds(60));
            let took_s = plain.took.as_secs_f64();
            observed(
                "mount 5b, kernel alone",
                &format!("mount(8) over a stale cache: code {} after {took_s:.2} s", plain.code),
            );
        }
    }
}
