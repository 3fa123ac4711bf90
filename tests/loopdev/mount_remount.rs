//! A guarded mount is remounted read-only, and back. `mmp remount` hands the block back to the kernel; a plain remount
//! fails under our beats, and changes nothing.

use mmpguard::clock;

use crate::Case;
use crate::harness::guarded::{Guarded, kernels_count, refused_soon, write_files};
use crate::harness::lun::{Lun, must, text};
use crate::harness::{at_most, millis, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("mount_5c_remounted_read_only_and_back", by_mmp),
    ("mount_5c_a_plain_remount_under_our_beats_fails_and_stays_guarded", plain),
];

/// Guarded, and then read-only by a plain remount: we beat.
fn read_only(lun: &Lun) -> Guarded {
    let guard = lun.guarded(&lun.a, &["--handover", "clean"]);
    write_files(&guard.dir, "before", 10).expect("writes");
    clock::sleep(seconds(2));
    must("mount", &["-o", "remount,ro", text(&guard.dir)]);
    let remounted = clock::mono();
    let (status, at) = lun.status_until(&lun.a, seconds(15), |status| status["mode"] == "beating");
    at_most("mount 5c", "from remount,ro to our beats", at.since(remounted), 3.0);
    assert_eq!(status["state"], "guarding", "{status:#}");
    guard
}

fn by_mmp() {
    let case = "mount 5c";
    let lun = Lun::new();
    let guard = read_only(&lun);
    clock::sleep(seconds(4));
    refused(case, &lun);
    let sampler = lun.sampler(millis(10));
    clock::sleep(seconds(1));
    let end = lun.mmp(&["remount", "-o", "rw", text(&guard.dir)]).end(seconds(70));
    let remounted = clock::mono();
    at_most(case, "`mmp remount -o rw`", end.expect(0).took, 2.5);
    write_files(&guard.dir, "after", 10).expect("writes again");
    clock::sleep(seconds(8));
    let (status, _) = lun.status_until(&lun.a, seconds(5), |status| status["mode"] == "watching");
    assert_eq!(status["state"], "guarding", "{status:#}");
    let counts = kernels_count(lun.a.name(), &sampler.since(remounted));
    observed(case, &format!("after the remount the block counts {counts:?}"));
    refused(case, &lun);
    guard.assert_alive();

    // And by mmp both ways.
    lun.mmp(&["remount", "-o", "ro", text(&guard.dir)]).end(seconds(70)).expect(0);
    lun.status_until(&lun.a, seconds(15), |status| status["mode"] == "beating");
    lun.mmp(&["remount", text(&guard.dir)]).end(seconds(70)).expect(0);
    let (status, _) = lun.status_until(&lun.a, seconds(15), |status| status["mode"] == "watching");
    observed(case, &format!("after two rounds: {}", status["notes"]));
    write_files(&guard.dir, "again", 10).expect("writes again");
    lun.release(&guard.dir);
    lun.fsck().expect(0);
}

fn plain() {
    let case = "mount 5c, plain remount";
    let lun = Lun::new();
    let guard = read_only(&lun);
    clock::sleep(seconds(2));
    let end = lun.start("mount", ["-o", "remount,rw", text(&guard.dir)]).end(seconds(60));
    assert_ne!(end.code, 0, "{end:?}");
    observed(
        case,
        &format!("code {} after {:.1} s: {}", end.code, end.took.as_secs_f64(), end.text().trim()),
    );
    clock::sleep(seconds(2));
    let status = lun.status(&lun.a);
    assert_eq!((&status["state"], &status["mode"]), (&"guarding".into(), &"beating".into()), "{status:#}");
    guard.assert_alive();
    refused(case, &lun);
    lun.mmp(&["remount", "-o", "rw", text(&guard.dir)]).end(seconds(70)).expect(0);
    write_files(&guard.dir, "after", 10).expect("writes again");
    lun.release(&guard.dir);
    lun.fsck().expect(0);
}

fn refused(case: &str, lun: &Lun) {
    let end = lun.guard(&lun.b, &[]).0.end(seconds(30));
    refused_soon(case, "another `mmp mount`", end.expect(1).took);
}
