//! The storage under a mount hangs. For less than a lease nothing happens; for longer, the ladder is climbed at the end of
//! the lease, and is through before a rival may have waited twice. The kernel alone goes on whenever the storage does.

use std::time::Duration;

use mmpguard::clock::{self, Mono};
use serde_json::Value;

use crate::Case;
use crate::harness::block::Sample;
use crate::harness::guarded::{Guarded, How, kernels_count, write_files};
use crate::harness::lun::Lun;
use crate::harness::process;
use crate::harness::throttle::Throttle;
use crate::harness::{at_least, at_most_strictly, millis, observed, seconds};
use crate::outage::Disk;

pub(crate) const CASES: &[Case] = &[
    ("mount_5_beats_that_cannot_land_for_a_lease_fence_the_mount", || long_outage(false)),
    ("mount_5_the_kernel_alone_goes_on_after_any_outage", kernel_alone),
    ("mount_5_beats_that_cannot_land_for_a_lease_fence_the_mount_while_looks_can", || long_outage(true)),
    ("mount_5_an_outage_of_7_s_changes_nothing", || short_outage(false)),
    ("mount_5_an_outage_of_7_s_changes_nothing_while_looks_can", || short_outage(true)),
];

const FROZEN_S: u64 = 30;
/// How long dirty blocks of a filesystem that was shut down may still come.
const LATE_S: u64 = 45;
/// What late writes are counted in.
const BLOCK: usize = 1024;

/// `looks`: reads of the guard's do not queue behind a write that hangs. A loop device has a queue a group; so the guard
/// gets one of its own, with a limit that is none.
fn guarded(lun: &Lun, looks: bool) -> (Guarded, Option<Throttle>) {
    let group = looks.then(|| Throttle::slow(lun.a.path(), u32::MAX));
    let group = match group.transpose() {
        Ok(group) => group,
        Err(why) => {
            println!("NOT RUN: an outage of writes alone: no block I/O groups here: {why}");
            None
        }
    };
    let options = ["--handover", "clean"];
    let how = How { options: &options, slow: group.as_ref(), ..How::default() };
    let (mut mounting, dir) = lun.guard_with(&lun.a, how);
    let end = mounting.end(seconds(60));
    end.expect(0);
    (lun.guard_of(&lun.a, dir, end.took), group)
}

fn long_outage(looks: bool) {
    let case = if looks { "mount 5, looks can" } else { "mount 5" };
    let disk = Disk::new();
    let lun = disk.lun();
    let (guard, _group) = guarded(&lun, looks);
    write_files(&guard.dir, "file", 30).expect("writes");
    let sampler = lun.sampler(millis(20));
    clock::sleep(seconds(3));
    // Dirty, and on no disk yet.
    std::fs::write(guard.dir.join("dirty"), vec![7; 256 * 1024]).expect("writes into the cache");
    let frozen = disk.freeze();
    let since = clock::mono();
    clock::sleep(millis(300));
    let last_beat = sampler.last();
    let (status, seen) = lun.status_until(&lun.a, seconds(40), |status| !status["lost"].is_null());
    climbed_in_time(case, &status, &last_beat, seen);
    let at_fence = lun.bytes();
    clock::sleep_until(since + seconds(FROZEN_S));
    assert!(sampler.since(since + millis(50)).is_empty(), "writes hang, or this test proves nothing");

    drop(frozen);
    let thawed = clock::mono();
    let guards = [guard.driver.clone(), guard.keeper.clone()];
    assert!(
        process::all_dead(&guards, seconds(15)).is_some(),
        "the guard is gone once its I/O ended: {guards:?}"
    );
    clock::sleep_until(thawed + seconds(LATE_S));
    let beats = sampler.since(thawed);
    let ends: Vec<_> = beats
        .iter()
        .map(|beat| format!("{:#x} +{:.2} s", beat.block.seq, beat.at.since(thawed).as_secs_f64()))
        .collect();
    observed(case, &format!("states of the MMP block after the thaw: {}", ends.join(", ")));
    // What hung in the kernel when the lease ended, its beat and one of ours, and the clean mark of the shutdown.
    assert!(beats.len() <= 3, "a new write: {beats:#?}");
    let late = changed_blocks(&lun, &at_fence);
    observed(
        case,
        &format!(
            "{late} blocks of {BLOCK} bytes outside the MMP block reached the image in {LATE_S} s after the thaw (ext4, incomplete ladder)"
        ),
    );
    let unmounting = lun.mmp(&["umount", guard.dir.to_str().expect("UTF-8")]).end(seconds(30));
    unmounting.expect(5).says("not unmounted").says("reboot");
}

/// From the last beat that landed: not before the lease ends, done before two waits are over.
fn climbed_in_time(case: &str, status: &Value, last_beat: &Sample, seen: Mono) {
    let fence = &status["lost"]["fence"];
    let rungs = fence["rungs"].as_array().unwrap_or_else(|| panic!("no ladder: {status:#}"));
    assert!(rungs.iter().any(|rung| rung["rung"] == "shutdown"), "{status:#}");
    let took = Duration::from_millis(fence["took_ms"].as_u64().expect("is told"));
    let done = seen.since(last_beat.at);
    at_least(case, "from the last good beat to the ladder", done.saturating_sub(took), 9.0);
    at_most_strictly(case, "from the last good beat to the ladder", done.saturating_sub(took), 11.8, 14.0);
    at_most_strictly(case, "from the last good beat to the end of the ladder", done, 16.0, 22.0);
    observed(case, &format!("lost: {}; fence {fence}", status["lost"]["reason"]));
}

/// Blocks that are not as they were, but for the one of the MMP structure.
fn changed_blocks(lun: &Lun, before: &[u8]) -> usize {
    let after = lun.bytes();
    let mmp = lun.raw().offset / BLOCK;
    let pairs = before.chunks(BLOCK).zip(after.chunks(BLOCK)).enumerate();
    pairs.filter(|(number, (old, new))| *number != mmp && old != new).count()
}

fn kernel_alone() {
    let case = "mount 5, kernel alone";
    let disk = Disk::new();
    let lun = disk.lun();
    let dir = lun.mounted(&lun.a);
    let sampler = lun.sampler(millis(20));
    clock::sleep(seconds(2));
    let frozen = disk.freeze();
    clock::sleep(seconds(FROZEN_S));
    drop(frozen);
    let thawed = clock::mono();
    clock::sleep(seconds(5));
    let beats = sampler.since(thawed).len();
    let wrote = write_files(&dir, "after", 20);
    observed(
        case,
        &format!("{beats} beats in the 5 s after an outage of {FROZEN_S} s, and writing on: {wrote:?} (K6)"),
    );
    assert!(beats >= 3 && wrote.is_ok());
    lun.umount(&lun.a, &dir);
}

fn short_outage(looks: bool) {
    let case = if looks { "mount 5, 7 s, looks can" } else { "mount 5, 7 s" };
    let disk = Disk::new();
    let lun = disk.lun();
    let (guard, _group) = guarded(&lun, looks);
    let sampler = lun.sampler(millis(20));
    clock::sleep(seconds(3));
    let frozen = disk.freeze();
    let since = clock::mono();
    clock::sleep(seconds(7));
    let during = sampler.since(since + millis(50)).len();
    drop(frozen);
    let thawed = clock::mono();
    assert_eq!(during, 0, "writes hang, or this test proves nothing");
    clock::sleep(seconds(8));
    unharmed(case, &lun, &guard, &sampler.since(thawed + seconds(3)));
    lun.release(&guard.dir);
    lun.fsck().expect(0);
}

fn unharmed(case: &str, lun: &Lun, guard: &Guarded, beats: &[Sample]) {
    guard.assert_alive();
    let status = lun.status(&lun.a);
    assert_eq!((&status["state"], &status["mode"]), (&"guarding".into(), &"watching".into()), "{status:#}");
    kernels_count(lun.a.name(), beats);
    write_files(&guard.dir, "after", 10).expect("writes on");
    observed(case, &format!("guarded on, bridged {}, notes {}", status["bridged"], status["notes"]));
}
