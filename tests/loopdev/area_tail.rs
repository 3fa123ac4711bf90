//! A tail area: what no kernel protects is mounted guarded, refused to the other host, taken over when its host is dead, held for
//! as long as anything uses it, and fenced when its storage hangs. The filesystem is whole throughout.

use std::time::Duration;

use mmpguard::clock;
use serde_json::Value;

use crate::Case;
use crate::guard_support::{Guard, guard, nothing_is_left, opener, replaced, status_of};
use crate::harness::areas::{Content, Made};
use crate::harness::guarded::{spoiled, write_files};
use crate::harness::lun::{Lun, must, text};
use crate::harness::started::patiently;
use crate::harness::{at_least, at_most, at_most_strictly, millis, observed, process, seconds};
use crate::outage::Disk;

pub(crate) const CASES: &[Case] = &[
    ("area_1_xfs_is_refused_to_the_other_host_and_taken_over_from_a_dead_one", || life(Content::Xfs)),
    ("area_1_btrfs_is_refused_to_the_other_host_and_taken_over_from_a_dead_one", || life(Content::Btrfs)),
    ("area_1_xfs_is_fenced_when_its_storage_hangs_for_a_lease", outage),
    ("area_1_xfs_lazily_unmounted_stays_held_until_its_last_file_is_closed", || lazily(Content::Xfs)),
    ("area_1_btrfs_lazily_unmounted_stays_held_until_its_last_file_is_closed", || lazily(Content::Btrfs)),
    ("area_1_xfs_goes_on_after_an_outage_of_7_s", short_outage),
    ("area_10_driver_and_keeper_are_replaced_and_the_generation_goes_on", replaced_processes),
    ("area_11_ext3_without_mmp_is_protected_too", ext3),
];

const FILES: usize = 20;
/// What others are told within, at an interval of a second.
const REFUSAL_S: f64 = 1.4;

fn life(content: Content) {
    let case = format!("area 1, {content:?}");
    let lun = Lun::protected(content, Made::default());
    let first = lun.guarded(&lun.a, &[]);
    at_least(&case, "a mount of what was left clean", first.took, 11.0);
    at_most(&case, "a mount of what was left clean", first.took, 12.0);
    write_files(&first.dir, "first", FILES).expect("writes");
    lun.refuses_the_other_host(&case, REFUSAL_S);
    let generation = lun.generation();

    lun.host_dies(content, &first);
    let (mut mounting, dir) = lun.guard(&lun.b, &[]);
    let held = mounting.says("held", seconds(60)).since(mounting.at);
    at_least(&case, "the takeover from a dead host", held, 22.0);
    at_most(&case, "the takeover from a dead host", held, 22.5);
    let end = mounting.end(seconds(60));
    end.expect(0);
    // XFS has its log to recover, on a disk that others write to.
    at_most(&case, "the takeover from a dead host, mounted,", end.took, 23.0);
    let second = lun.guard_of(&lun.b, dir, end.took);
    let taken = lun.generation();
    assert!(taken > generation, "{generation}, then {taken}");
    observed(&case, &format!("generation {generation}, {taken} after the takeover"));
    assert_eq!(spoiled(&second.dir, "first", FILES), 0);
    write_files(&second.dir, "second", FILES).expect("writes");

    lun.unmount_plainly(&second.dir);
    let unmounted = clock::mono();
    lun.gone(&lun.b);
    at_most(&case, "from a plain umount to the release", clock::mono().since(unmounted), 2.0);
    assert_eq!(lun.shown(lun.a.path())["slot"]["state"], "released");
    content.check(&case, lun.image());

    let third = lun.guarded(&lun.a, &[]);
    at_most(&case, "the mount after the release", third.took, 12.0);
    assert_eq!(lun.generation(), taken + 1, "one more with every acquisition");
    assert_eq!(spoiled(&third.dir, "first", FILES) + spoiled(&third.dir, "second", FILES), 0);
    lun.released(&third.dir);
    content.check(&case, lun.image());
}

fn lazily(content: Content) {
    let case = format!("area 1, {content:?}, lazily");
    let lun = Lun::protected(content, Made::default());
    let mounted = lun.guarded(&lun.a, &[]);
    let file = mounted.dir.join("file");
    std::fs::write(&file, "x").expect("writes");
    let user = opener(&lun, text(&file), "<>");
    let before = guard(&lun, &lun.a);
    must("umount", &["-l", text(&mounted.dir)]);
    // Longer than a lease.
    clock::sleep(seconds(13));
    assert_eq!(guard(&lun, &lun.a), before, "the guard stays");
    lun.refuses_the_other_host(&case, REFUSAL_S);
    lun.mount_fails(&lun.a, 1, "guarded by process");
    drop(user);
    let closed = clock::mono();
    lun.gone(&lun.a);
    at_most(&case, "the release after the last file was closed", clock::mono().since(closed), 3.0);
    nothing_is_left(&lun);
    content.check(&case, lun.image());
}

/// A LUN whose storage can be frozen, and its guard.
fn on_a_disk(disk: &Disk) -> (Lun, crate::harness::guarded::Guarded) {
    let lun = Lun::protected(Content::Xfs, Made { place: Some(disk.place()), ..Made::default() });
    let guard = lun.guarded(&lun.a, &[]);
    write_files(&guard.dir, "file", FILES).expect("writes");
    (lun, guard)
}

fn outage() {
    let case = "area 1, outage";
    let disk = Disk::of(512 << 20);
    let (lun, guard) = on_a_disk(&disk);
    let sampler = lun.sampler(millis(20));
    let generation = lun.generation();
    clock::sleep(seconds(2));
    std::fs::write(guard.dir.join("dirty"), vec![7; 256 * 1024]).expect("writes into the cache");
    let frozen = disk.freeze();
    clock::sleep(millis(300));
    let last_beat = sampler.last();
    let (status, seen) = lun.status_until(&lun.a, seconds(40), |status| !status["lost"].is_null());
    let fence = &status["lost"]["fence"];
    assert!(shut_down(fence), "{status:#}");
    let done = seen.since(last_beat.at);
    let took = Duration::from_millis(fence["took_ms"].as_u64().expect("is told"));
    at_least(case, "from the last good beat to the ladder", done.saturating_sub(took), 9.0);
    at_most_strictly(case, "from the last good beat to the ladder", done.saturating_sub(took), 11.8, 14.0);
    // It waits for I/O under way, which hangs, for as long as it may: others wait 22 s.
    at_most_strictly(case, "from the last good beat to the end of the ladder", done, 20.5, 22.0);
    observed(case, &format!("lost: {}; fence {fence}", status["lost"]["reason"]));
    std::fs::write(guard.dir.join("late"), "late").expect_err("the filesystem is shut down");
    drop(frozen);
    let thawed = clock::mono();
    let guards = [guard.driver.clone(), guard.keeper.clone()];
    assert!(process::all_dead(&guards, seconds(15)).is_some(), "the guard is gone once its I/O ended");
    clock::sleep_until(thawed + seconds(5));
    let late = sampler.since(last_beat.at);
    observed(case, &format!("{} writes of the lost holder's landed after the thaw (at most 1)", late.len()));
    assert!(late.len() <= 1, "a new write: {late:#?}");
    drop(sampler);

    lun.verb(&["umount", text(&guard.dir)]).expect(5).says("not unmounted");
    lun.verb(&["umount", "--although-lost", text(&guard.dir)]).expect(0);
    lun.forget_mount(&guard.dir);
    let next = lun.guarded(&lun.b, &[]);
    at_least(case, "the takeover of what was lost", next.took, 22.0);
    assert!(lun.generation() > generation);
    assert_eq!(spoiled(&next.dir, "file", FILES), 0);
    lun.released(&next.dir);
    Content::Xfs.check(case, lun.image());
}

fn shut_down(fence: &Value) -> bool {
    let rungs = fence["rungs"].as_array().expect("climbed");
    rungs.iter().any(|rung| rung["rung"] == "shutdown" && rung["detail"].to_string().contains("is shut down"))
}

fn short_outage() {
    let case = "area 1, 7 s";
    let disk = Disk::of(512 << 20);
    let (lun, guard) = on_a_disk(&disk);
    let sampler = lun.sampler(millis(20));
    clock::sleep(seconds(2));
    let frozen = disk.freeze();
    let since = clock::mono();
    clock::sleep(seconds(7));
    assert!(sampler.since(since + millis(50)).is_empty(), "writes hang, or this test proves nothing");
    drop(frozen);
    let thawed = clock::mono();
    clock::sleep(seconds(6));
    guard.assert_alive();
    assert!(sampler.since(thawed).len() >= 3, "beats again: {:?}", sampler.seen());
    write_files(&guard.dir, "after", FILES).expect("writes on");
    lun.refuses_the_other_host(case, REFUSAL_S);
    lun.released(&guard.dir);
    Content::Xfs.check(case, lun.image());
}

/// Each of the two brings the other back, under the lease and the generation that there are.
fn replaced_processes() {
    let case = "area 10";
    let lun = Lun::protected(Content::Xfs, Made::default());
    let mounted = lun.guarded(&lun.a, &[]);
    let generation = lun.generation();
    let sampler = lun.sampler(millis(20));
    let mut before = guard(&lun, &lun.a);
    let begun = clock::mono();
    for who in ["driver", "keeper"] {
        let victim =
            |guard: &Guard| if who == "driver" { guard.driver.clone() } else { guard.keeper.clone() };
        let killed = clock::mono();
        victim(&before).signal(nix::sys::signal::Signal::SIGKILL);
        let after = replaced(&lun, &lun.a, &before, seconds(10));
        at_most(case, &format!("replacing a {who} that was killed"), clock::mono().since(killed), 2.0);
        assert_ne!(victim(&after), victim(&before));
        // Longer than the lease that the successor found.
        clock::sleep_until(killed + seconds(13));
        assert_eq!(guard(&lun, &lun.a), after, "it went on");
        lun.refuses_the_other_host(case, REFUSAL_S);
        assert_eq!(lun.generation(), generation, "nothing was acquired anew");
        before = after;
    }
    let told = status_of(&lun, &lun.a);
    assert_eq!((&told["state"], &told["lost"]), (&"guarding".into(), &Value::Null), "{told}");
    let gap = crate::guard_support::longest_gap(&sampler.since(begun), clock::mono());
    at_most_strictly(case, "the longest silence around both deaths", gap, 2.0, 6.0);
    write_files(&mounted.dir, "file", FILES).expect("writes on");
    lun.released(&mounted.dir);
    Content::Xfs.check(case, lun.image());
}

fn ext3() {
    let case = "area 11";
    let lun = Lun::holding(Content::Ext3, Made::default());
    lun.verb(&["enable", "--label", "x", lun.a.path()])
        .expect(2)
        .says("MMP of its own")
        .says("mmp area create");
    lun.verb(&["area", "create", lun.a.path()]).expect(0).says("an area of 1 slot");
    let mounted = lun.guarded(&lun.a, &[]);
    at_most(case, "a mount of what was left clean", mounted.took, 11.6);
    write_files(&mounted.dir, "file", FILES).expect("writes");
    lun.refuses_the_other_host(case, REFUSAL_S);
    lun.unmount_and_wait(&lun.a, &mounted.dir);
    assert_eq!(lun.shown(lun.b.path())["slot"]["state"], "released");
    let listed = lun.verb(&["area", "list", lun.b.path()]);
    listed.expect(0).says("device").says("released");
    let other = lun.guarded(&lun.b, &[]);
    assert_eq!(spoiled(&other.dir, "file", FILES), 0);
    lun.released(&other.dir);
    let gone = patiently(seconds(5), || lun.status(&lun.b).is_null().then_some(()));
    assert!(gone.is_some());
    Content::Ext3.check(case, lun.image());
}
