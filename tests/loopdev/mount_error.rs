//! An error makes ext4 remount itself read-only: its kmmpd writes *clean*, and hundreds of dirty blocks follow. Nobody
//! who runs `mmp` takes that mark for the truth.

use std::path::Path;
use std::time::Duration;

use mmpguard::clock;
use mmpguard::protocol::sequence::SEQ_CLEAN;

use crate::Case;
use crate::harness::guarded::{How, MOUNT_PATIENCE, refused_soon, write_files};
use crate::harness::lun::{Loop, Lun};
use crate::harness::started::patiently;
use crate::harness::{at_least, at_most, millis, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("mount_5a_a_clean_mark_after_an_error_is_watched_out_before_a_mount", watched_out),
    ("mount_5a_a_guard_beats_over_the_clean_mark_of_an_error", beaten_over),
    ("mount_5a_the_kernel_alone_takes_the_clean_mark_of_an_error_for_true", kernel_alone),
];

const ON_ERROR: &str = "errors=remount-ro";

/// Makes the kernel find an error, and waits for kmmpd's last word.
fn fails(lun: &Lun, on: &Loop, dir: &Path) {
    write_files(dir, "file", 30).expect("writes");
    std::fs::write(dir.join("dirty"), vec![7; 256 * 1024]).expect("writes into the cache");
    let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", on.name());
    std::fs::write(&trigger, "1").unwrap_or_else(|error| panic!("{trigger}: {error}"));
    let raw = lun.raw();
    let clean = patiently(seconds(10), || (raw.read().seq == SEQ_CLEAN).then_some(()));
    assert!(clean.is_some(), "kmmpd wrote no clean mark, or this proves nothing: {:?}", raw.read());
}

fn stopped_kernel(lun: &Lun) -> std::path::PathBuf {
    let how = How { options: &["-o", ON_ERROR], ..How::default() };
    let (mut mounting, dir) = lun.mount_with(&lun.a, how);
    mounting.end(seconds(60)).expect(0);
    fails(lun, &lun.a, &dir);
    dir
}

fn watched_out() {
    let lun = Lun::new();
    stopped_kernel(&lun);
    let (mut mounting, dir) = lun.guard(&lun.b, &[]);
    let end = mounting.end(MOUNT_PATIENCE);
    end.expect(0);
    at_least("mount 5a", "`mmp mount` of what an error left clean", end.took, 45.0 + 22.0);
    at_most("mount 5a", "`mmp mount` of what an error left clean", end.took, 69.5);
    observed("mount 5a", &format!("it said: {}", end.err.replace('\n', " / ")));
    lun.guard_of(&lun.b, dir.clone(), end.took).assert_alive();
    lun.release(&dir);
}

fn kernel_alone() {
    let lun = Lun::new();
    stopped_kernel(&lun);
    let plain = lun.mount(&lun.b).0.end(seconds(60));
    observed(
        "mount 5a, kernel alone",
        &format!(
            "mount(8) of what an error left clean, while dirty blocks follow: code {} after {:.2} s",
            plain.code,
            plain.took.as_secs_f64()
        ),
    );
}

fn beaten_over() {
    let case = "mount 5a, guarded";
    let lun = Lun::new();
    let guard = lun.guarded(&lun.a, &["--handover", "clean", "-o", ON_ERROR]);
    clock::sleep(seconds(2));
    let sampler = lun.sampler(millis(10));
    write_files(&guard.dir, "file", 30).expect("writes");
    let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", lun.a.name());
    std::fs::write(&trigger, "1").unwrap_or_else(|error| panic!("{trigger}: {error}"));
    let (status, _) = lun.status_until(&lun.a, seconds(15), |status| status["mode"] == "beating");
    assert_eq!(status["state"], "guarding", "{status:#}");
    assert!(status["notes"].to_string().contains("stopped the filesystem after an error"), "{status:#}");
    observed(case, &format!("status: {}", status["notes"]));
    clock::sleep(seconds(5));
    clean_for(case, &sampler.seen());

    let end = lun.guard(&lun.b, &[]).0.end(seconds(30));
    refused_soon(case, "another `mmp mount`", end.expect(1).took);
    let plain = lun.mount(&lun.b).0.end(seconds(60));
    assert_eq!(plain.code, 32, "the kernel refuses it, too: {plain:?}");
    guard.assert_alive();
    lun.release(&guard.dir);
    assert_eq!(lun.raw().read().seq, SEQ_CLEAN, "released when nothing is mounted any more");
    let check = lun.mmp(&["check", lun.b.path()]).end(seconds(90));
    check.expect(0);
    observed(case, &format!("after the unmount, check says {}: {}", check.code, check.text().trim()));
}

/// How long the false mark stood in all.
fn clean_for(case: &str, seen: &[crate::harness::block::Sample]) {
    let mut clean = Duration::ZERO;
    for pair in seen.windows(2) {
        if pair[0].block.seq == SEQ_CLEAN {
            clean += pair[1].at.since(pair[0].at);
        }
    }
    assert!(clean > Duration::ZERO, "no clean mark was seen, or this proves nothing: {seen:#?}");
    at_most(case, "the time that the false clean mark stood", clean, 1.4);
}
