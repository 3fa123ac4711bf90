//! A guard whose processes die: each is replaced by the other, what was guarded stays guarded, and if nobody can guard it
//! any more it is fenced.

use mmpguard::clock;
use nix::sys::signal::Signal;

use crate::Case;
use crate::guard_support::{
    Frozen, LEASE, becomes, fenced_at, guard, guards, is_mounted, kill_both, longest_gap, marking_fence,
    mount, mounted, mounted_clean, nothing_is_left_and_clean, refuses_others, replaced, status, status_of,
    unmount_plainly,
};
use crate::harness::lun::{Loop, Lun, must, text};
use crate::harness::process::all_dead;
use crate::harness::started::patiently;
use crate::harness::{at_least, at_most, at_most_strictly, millis, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("guard_06_a_read_only_mount_without_a_guard_makes_others_wait_their_full_time", both_killed_read_only),
    ("guard_06_a_read_only_mount_is_adopted_again", adopted_read_only),
    ("guard_06_both_killed_the_kernel_beats_on_and_the_mount_is_adopted", both_killed),
    ("guard_06_a_driver_killed_is_replaced_and_others_stay_refused", driver_killed),
    ("guard_06_a_driver_killed_under_a_read_only_mount_is_replaced", driver_killed_read_only),
    ("guard_06_a_driver_killed_on_a_bridge_is_replaced_on_it", driver_killed_on_a_bridge),
    ("guard_06_a_stopped_driver_is_fenced_and_the_loss_remembered", driver_stopped),
    ("guard_06_a_driver_killed_again_and_again_is_fenced", driver_killed_for_ever),
    ("guard_06_a_keeper_killed_is_replaced_and_fences", keeper_killed),
];

fn driver_killed() {
    let lun = Lun::new();
    let dir = mounted_clean(&lun, &lun.a);
    let before = guard(&lun, &lun.a);
    let sampler = lun.sampler(millis(20));
    let third = Loop::new(lun.image());
    let (mut other, _) = lun.mount(&third);
    clock::sleep(seconds(2));
    let killed = clock::mono();
    before.driver.signal(Signal::SIGKILL);
    let after = replaced(&lun, &lun.a, &before, seconds(10));
    assert_eq!(after.keeper, before.keeper, "the keeper stays");
    assert_ne!(after.driver, before.driver);
    at_most("6", "replacing a driver that was killed", clock::mono().since(killed), 2.0);
    let told = becomes(&lun, &lun.a, "mode", "watching", seconds(5));
    assert_eq!((&told["state"], &told["lost"]), (&"guarding".into(), &serde_json::Value::Null), "{told}");
    assert!(told["notes"].to_string().contains("died and was replaced"), "{told}");
    assert!(told["lease_left_s"].as_f64().expect("is a number") > 5.0, "{told}");
    refuses_others(&lun);
    // Longer than the lease that the successor found.
    clock::sleep_until(killed + LEASE + seconds(2));
    assert_eq!(guard(&lun, &lun.a), after, "it went on");
    assert_ne!(other.end(seconds(60)).code, 0, "the kernel's mount got in");
    let gap = longest_gap(&sampler.since(killed), clock::mono());
    at_most_strictly("6", "the longest silence around a driver's death", gap, 2.0, 5.0);
    std::fs::write(dir.join("file"), "still writable").expect("writes");
    unmount_plainly(&lun, &dir);
}

fn driver_killed_read_only() {
    let lun = Lun::new();
    let dir = mounted(&lun, &lun.a, &["-r"]);
    let before = guard(&lun, &lun.a);
    let sampler = lun.sampler(millis(20));
    let killed = clock::mono();
    before.driver.signal(Signal::SIGKILL);
    let after = replaced(&lun, &lun.a, &before, seconds(10));
    assert_eq!(after.keeper, before.keeper, "the keeper stays");
    let told = becomes(&lun, &lun.a, "mode", "beating", seconds(5));
    assert_eq!(told["state"], "guarding", "{told}");
    clock::sleep_until(killed + LEASE + seconds(2));
    refuses_others(&lun);
    let gap = longest_gap(&sampler.since(killed), clock::mono());
    at_most_strictly("6", "the longest silence of a read-only mount whose driver died", gap, 2.5, 5.0);
    unmount_plainly(&lun, &dir);
}

fn driver_killed_on_a_bridge() {
    let lun = Lun::new();
    let dir = mounted_clean(&lun, &lun.a);
    let sampler = lun.sampler(millis(20));
    let froze = clock::mono();
    let frozen = Frozen::new(&dir);
    becomes(&lun, &lun.a, "mode", "bridging", seconds(10));
    at_most("6", "from the freeze to the bridge", clock::mono().since(froze), 5.0);
    for round in 1..=2 {
        let before = guard(&lun, &lun.a);
        let killed = clock::mono();
        before.driver.signal(Signal::SIGKILL);
        let after = replaced(&lun, &lun.a, &before, seconds(10));
        assert_eq!(after.keeper, before.keeper);
        becomes(&lun, &lun.a, "mode", "bridging", seconds(10));
        clock::sleep_until(killed + seconds(6));
        let gap = longest_gap(&sampler.since(killed), clock::mono());
        at_most_strictly("6", &format!("the longest silence after death {round} on a bridge"), gap, 2.5, 8.0);
    }
    refuses_others(&lun);
    drop(frozen);
    becomes(&lun, &lun.a, "mode", "watching", seconds(10));
    std::fs::write(dir.join("file"), "writable again").expect("writes");
    unmount_plainly(&lun, &dir);
}

/// The guard hangs for longer than its lease: the keeper fences, in time, and the host remembers.
fn driver_stopped() {
    let lun = Lun::new();
    let ladder = marking_fence(&lun);
    let dir = mounted(&lun, &lun.a, &["--handover", "clean", "--on-loss", &ladder]);
    let before = guard(&lun, &lun.a);
    let stopped = clock::mono();
    before.driver.signal(Signal::SIGSTOP);
    let fenced = patiently(seconds(30), || fenced_at(&lun)).expect("fences");
    // The lease runs from the look before the one that saw the last beat.
    at_least("6", "from a stopped driver to the fence", fenced.since(stopped), 8.0);
    at_most_strictly("6", "from a stopped driver to the fence", fenced.since(stopped), 11.1, 13.0);
    let ended = all_dead(&[before.driver, before.keeper], seconds(10));
    assert!(ended.is_some(), "its processes stay: {:?}", guards(&lun));
    remembered(&lun);
    let told = status_of(&lun, &lun.a);
    assert!(told["lost"]["reason"].as_str().expect("is text").contains("the lease ran out"), "{told}");

    // Whoever tries on is told, and what was known stays known.
    let (mut again, _) = mount(&lun, &lun.a, &[]);
    let again = again.end(seconds(30));
    again.expect(1).says("this host lost").says("the lease ran out").says("mounted on");
    remembered(&lun);
    let adopting = lun.mmp(&["adopt", "--on-loss", "shutdown", "--incomplete-fence", lun.a.path()]);
    { adopting }.end(seconds(30)).expect(5).says("not adopted").says("reboot -ff -n");
    remembered(&lun);
    for what in [text(&dir), lun.a.path()] {
        let refused = lun.mmp(&["umount", what]).end(seconds(30));
        refused.expect(5).says("not unmounted").says("reboot -ff -n").says("--although-lost");
    }
    assert!(is_mounted(&dir));
    lun.mmp(&["umount", "--although-lost", text(&dir)]).end(seconds(30)).expect(0);
    nothing_is_left_and_clean(&lun);
}

fn remembered(lun: &Lun) {
    let (code, report) = status(lun);
    let told = &report["guards"][0];
    assert_eq!((code, &told["state"]), (5, &"lost".into()), "{report}");
    assert_eq!(told["lost"]["fence"]["done"], true, "{report}");
    assert!(told["advice"].as_str().expect("is text").contains("reboot -ff -n"), "{report}");
}

fn driver_killed_for_ever() {
    let lun = Lun::new();
    let ladder = marking_fence(&lun);
    let dir = mounted(&lun, &lun.a, &["--handover", "clean", "--on-loss", &ladder]);
    let begun = clock::mono();
    for death in 1..=4 {
        let before = guard(&lun, &lun.a);
        before.driver.signal(Signal::SIGKILL);
        if death < 4 {
            replaced(&lun, &lun.a, &before, seconds(10));
            assert!(fenced_at(&lun).is_none(), "fenced after death {death}");
        }
    }
    assert!(clock::mono().since(begun) < seconds(55), "too slow to be within a minute");
    patiently(seconds(5), || fenced_at(&lun)).expect("fences after the fourth death in a minute");
    let told = becomes(&lun, &lun.a, "state", "lost", seconds(5));
    assert!(told["lost"]["reason"].as_str().expect("is text").contains("again and again"), "{told}");
    observed("6", told["lost"]["reason"].as_str().unwrap_or_default());
    lun.mmp(&["umount", "--although-lost", text(&dir)]).end(seconds(30)).expect(0);
    nothing_is_left_and_clean(&lun);
}

fn keeper_killed() {
    let lun = Lun::new();
    let ladder = marking_fence(&lun);
    let dir = mounted(&lun, &lun.a, &["--handover", "clean", "--on-loss", &ladder]);
    let before = guard(&lun, &lun.a);
    let killed = clock::mono();
    before.keeper.signal(Signal::SIGKILL);
    let after = replaced(&lun, &lun.a, &before, seconds(10));
    assert_eq!(after.driver, before.driver, "the driver stays");
    assert_ne!(after.keeper, before.keeper);
    at_most("6", "replacing a keeper that was killed", clock::mono().since(killed), 2.5);
    let told = becomes(&lun, &lun.a, "mode", "watching", seconds(5));
    assert!(told["notes"].to_string().contains("the keeper died and was replaced"), "{told}");
    // And the new one replaces the driver, and fences.
    after.driver.signal(Signal::SIGKILL);
    let last = replaced(&lun, &lun.a, &after, seconds(10));
    assert_eq!(last.keeper, after.keeper);
    clock::sleep(seconds(2));
    let stopped = clock::mono();
    last.driver.signal(Signal::SIGSTOP);
    let fenced = patiently(seconds(30), || fenced_at(&lun)).expect("fences");
    at_most_strictly(
        "6",
        "from a stopped driver to the new keeper's fence",
        fenced.since(stopped),
        11.1,
        13.0,
    );
    becomes(&lun, &lun.a, "state", "lost", seconds(10));
    lun.mmp(&["umount", "--although-lost", text(&dir)]).end(seconds(30)).expect(0);
    nothing_is_left_and_clean(&lun);
}

fn both_killed() {
    let lun = Lun::new();
    let dir = mounted_clean(&lun, &lun.a);
    kill_both(&guard(&lun, &lun.a));
    let killed = clock::mono();
    let sampler = lun.sampler(millis(20));
    let (code, report) = status(&lun);
    assert_eq!((code, &report["guards"][0]["state"]), (5, &"unguarded".into()), "{report}");
    let advice = report["guards"][0]["advice"].as_str().expect("is text").to_owned();
    assert!(advice.contains("mmp adopt"), "{advice}");
    // The kernel goes on by itself.
    let third = Loop::new(lun.image());
    let (mut other, _) = lun.mount(&third);
    refuses_others(&lun);
    assert_ne!(other.end(seconds(60)).code, 0, "the kernel's mount got in");
    refuses_others(&lun);
    let gap = longest_gap(&sampler.since(killed), clock::mono());
    at_most_strictly("6", "the kernel's longest silence without a guard", gap, 1.5, 5.0);
    // A mount that is refused does not make it forgotten.
    let (mut again, _) = mount(&lun, &lun.a, &[]);
    again.end(seconds(30)).expect(1).says("mounted on");
    assert_eq!(status_of(&lun, &lun.a)["state"], "unguarded");

    let adopted = lun.mmp(&["adopt", "--on-loss", "shutdown", "--incomplete-fence", lun.a.path()]);
    let adopted = { adopted }.end(seconds(30));
    adopted.expect(0).says("guarded on");
    at_most("6", "adopting a mount that the kernel beats", adopted.took, 4.0);
    let told = becomes(&lun, &lun.a, "state", "guarding", seconds(5));
    assert_eq!((&told["mode"], &told["mounted_on"]), (&"watching".into(), &text(&dir).into()), "{told}");
    refuses_others(&lun);
    // The record of a guard that died is no alarm for ever.
    kill_both(&guard(&lun, &lun.a));
    must("umount", &[text(&dir)]);
    let unmounted = patiently(seconds(5), || (status(&lun).0 == 0).then_some(()));
    assert!(unmounted.is_some(), "{:?}", status(&lun));
    assert_eq!(status_of(&lun, &lun.a)["state"], "unmounted");
    let dir = mounted_clean(&lun, &lun.a);
    lun.mmp(&["umount", text(&dir)]).end(seconds(30)).expect(0).says("unmounted and released");
    nothing_is_left_and_clean(&lun);
}

fn both_killed_read_only() {
    let lun = Lun::new();
    let dir = mounted(&lun, &lun.a, &["-r"]);
    kill_both(&guard(&lun, &lun.a));
    let killed = clock::mono();
    let (mut other, to) = mount(&lun, &lun.b, &[]);
    let other = other.end(seconds(60));
    other.expect(0);
    at_least("6", "the other host's wait after an unguarded read-only mount", other.at.since(killed), 22.0);
    at_most("6", "the other host's wait after an unguarded read-only mount", other.at.since(killed), 23.5);
    must("umount", &[text(&dir)]);
    must("umount", &[text(&to)]);
}

fn adopted_read_only() {
    let lun = Lun::new();
    let dir = mounted(&lun, &lun.a, &["-r"]);
    kill_both(&guard(&lun, &lun.a));
    let adopted = lun.mmp(&["adopt", "--on-loss", "shutdown", "--incomplete-fence", lun.a.path()]);
    let adopted = { adopted }.end(seconds(60));
    adopted.expect(0).says("guarded on");
    at_most("6", "adopting a read-only mount that nobody beats", adopted.took, 24.0);
    let told = becomes(&lun, &lun.a, "mode", "beating", seconds(5));
    assert_eq!((&told["state"], &told["mounted_on"]), (&"guarding".into(), &text(&dir).into()), "{told}");
    refuses_others(&lun);
    unmount_plainly(&lun, &dir);
}
