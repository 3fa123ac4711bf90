//! Sets: what stands on several devices is held wholly or not at all, is lost with the first that is lost, and is given back together.

use mmpguard::clock;
use nix::sys::signal::Signal;

use crate::Case;
use crate::guard_support;
use crate::harness::areas::{Content, Made};
use crate::harness::guarded::{spoiled, write_files};
use crate::harness::lun::{Loop, Lun, command, must, text};
use crate::harness::started::Started;
use crate::harness::{at_least, at_most, at_most_strictly, millis, observed, process, seconds};
use crate::outage::Disk;

pub(crate) const CASES: &[Case] = &[
    ("area_7_xfs_with_an_external_log_is_held_with_what_guards_its_log", external_log),
    ("area_7_btrfs_on_two_devices_is_mounted_and_released_as_one", two_devices),
    ("area_7_runs_of_one_set_at_once_in_opposite_order_have_one_user", opposite_order),
    ("area_7_a_run_of_two_gets_both_or_neither", all_or_nothing),
    ("area_7_a_killed_driver_takes_the_command_with_it", driver_killed),
    ("area_7_a_member_whose_storage_hangs_ends_all_of_it", lost_member),
];

const FILES: usize = 10;
const SOON: Made<'_> = Made { options: &["--interval", "500ms"], place: None, sector_bytes: None };

/// Two small LUNs, each with an area of its own.
fn pair() -> [Lun; 2] {
    [Lun::protected(Content::Ext3, SOON), Lun::protected(Content::Ext3, SOON)]
}

/// `mmp run` as host `node` on both; its marks are the first LUN's.
fn run_both(luns: &[Lun; 2], node: &str, devices: [&Loop; 2], script: &str) -> Started {
    luns[0].run_with(node, devices[0], &[devices[1].path()], script, &[])
}

fn all_or_nothing() {
    let luns = pair();
    let mut held = luns[1].hold("beta", &luns[1].b, "while ! [ -e \"$DIR/go\" ]; do sleep 0.1; done");
    for devices in [[&luns[0].a, &luns[1].a], [&luns[1].a, &luns[0].a]] {
        let refused = run_both(&luns, "alpha", devices, "echo ran >\"$DIR/ran\"").end(seconds(60));
        refused.expect(121).says("in use elsewhere").says("beta");
        assert!(!luns[0].file("ran").exists(), "it ran with half of what it needs");
        // Never claimed, or given back.
        let state = luns[0].slot_state(luns[0].b.path());
        assert!(matches!(state.as_str(), "free" | "released"), "{state}");
        let free = luns[0].run_true(luns[0].b.path());
        at_most("area 7", "a claim of the member that was given back", free.expect(0).took, 6.5);
    }
    std::fs::write(luns[1].file("go"), "").expect("writes");
    held.end(seconds(20)).expect(0);
    let both = run_both(&luns, "alpha", [&luns[0].a, &luns[1].a], "echo ran >\"$DIR/ran\"").end(seconds(60));
    both.expect(0);
    at_most("area 7", "`mmp run` of two free members at 500 ms", both.took, 12.2);
    assert!(luns[0].file("ran").exists());
    luns.iter().for_each(|lun| assert_eq!(lun.slot_state(lun.b.path()), "released"));
}

fn opposite_order() {
    let case = "area 7, at once";
    let luns = pair();
    let mut won = [0; 2];
    for round in 0..4 {
        let script = "exec 9>>\"$DIR/lock\"; flock -n 9 || echo OVERLAP >>\"$DIR/overlap\"; sleep 4";
        let mut alpha = run_both(&luns, "alpha", [&luns[0].a, &luns[1].a], script);
        clock::sleep(millis(10 * round));
        let mut beta = run_both(&luns, "beta", [&luns[1].b, &luns[0].b], script);
        let codes = [alpha.end(seconds(60)).code, beta.end(seconds(60)).code];
        assert!(!luns[0].file("overlap").exists(), "used by two");
        match codes {
            [0, 121] => won[0] += 1,
            [121, 0] => won[1] += 1,
            _ => panic!("round {round}: {codes:?}: {}{}", alpha.err(), beta.err()),
        }
        luns.iter().for_each(|lun| assert_eq!(lun.slot_state(lun.b.path()), "released"));
    }
    observed(case, &format!("one user in each of 4 rounds: alpha {}, beta {}", won[0], won[1]));
}

fn driver_killed() {
    let case = "area 7, driver killed";
    let luns = pair();
    let script = "mark alpha.up; sleep 1001 & exec sleep 1002";
    let mut run = run_both(&luns, "alpha", [&luns[0].a, &luns[1].a], script);
    luns[0].up("alpha", &mut run, seconds(40));
    // The first beat of a holder comes an interval after its claim.
    clock::sleep(seconds(1));
    let tree = run.tree();
    assert_eq!(tree.iter().filter(|process| process.comm == "sleep").count(), 2, "{tree:?}");
    let killed = clock::mono();
    run.child("mmp-driver").signal(Signal::SIGKILL);
    let dead = process::all_dead(&tree, seconds(10)).unwrap_or_else(|| panic!("still there: {tree:?}"));
    at_most(case, "the death of the command", dead.since(killed), 1.0);
    run.end(seconds(20)).expect(125).says("protection lost");
    for lun in &luns {
        assert_eq!(lun.slot_state(lun.b.path()), "holding", "as after a crash");
        let next = lun.run_true(lun.b.path());
        at_least(case, "the takeover of a member", next.expect(0).took, 11.0);
        at_most(case, "the takeover of a member", next.took, 12.3);
    }
}

fn lost_member() {
    let case = "area 7, a member hangs";
    let disk = Disk::new();
    let luns = [
        Lun::protected(Content::Ext3, Made::default()),
        Lun::protected(Content::Ext3, Made { place: Some(disk.place()), ..Made::default() }),
    ];
    let mut run = run_both(&luns, "alpha", [&luns[0].a, &luns[1].a], "mark alpha.up; exec sleep 1000");
    luns[0].up("alpha", &mut run, seconds(60));
    let tree = run.tree();
    let frozen = disk.freeze();
    let since = clock::mono();
    let dead = process::all_dead(&tree, seconds(30)).expect("the command dies");
    at_least(case, "from the outage of one member to the death of the command", dead.since(since), 9.0);
    at_most_strictly(case, "from the outage of one member to the death", dead.since(since), 11.1, 13.0);
    let end = run.end(seconds(20));
    end.expect(125).says("protection lost").says(luns[1].a.path());
    at_most(case, "the end of `mmp run`", end.at.since(since), 12.0);
    drop(frozen);
    let healthy = luns[0].slot_state(luns[0].b.path());
    observed(case, &format!("the member that was not lost stands as {healthy}"));
}

fn two_devices() {
    let case = "area 7, btrfs";
    let luns = [Lun::holding_nothing(Content::Btrfs), Lun::holding_nothing(Content::Btrfs)];
    let bytes = Content::Btrfs.filesystem_bytes().to_string();
    must("mkfs.btrfs", &["-q", "-f", "-b", &bytes, text(luns[0].image()), text(luns[1].image())]);
    for lun in &luns {
        lun.verb(&["enable", "--interval", "500ms", lun.a.path()]).expect(0);
    }
    let [one, other] = &luns;
    // Half of the protection is none.
    for on in [&one.a, &other.b] {
        one.mount_fails(on, 7, "stands on 2 devices").says("--with");
    }
    let (mut mounting, dir) = one.guard_together(&one.a, &[other.a.path()], &[]);
    let end = mounting.end(seconds(60));
    at_most(case, "a mount of both", end.expect(0).took, 12.2);
    let guard = one.guard_of(&one.a, dir, end.took);
    write_files(&guard.dir, "file", FILES).expect("writes");
    refused_to_others(one, other);
    let before = guard_support::guard(one, &one.a);
    let generations = [one.generation(), other.generation()];
    guard.driver.signal(Signal::SIGKILL);
    let after = guard_support::replaced(one, &one.a, &before, seconds(10));
    // Longer than the leases that the successor found.
    clock::sleep(seconds(7));
    refused_to_others(one, other);
    assert_eq!([one.generation(), other.generation()], generations, "nothing was acquired anew");
    assert_eq!(guard_support::guard(one, &one.a), after, "it went on");
    one.unmount_and_wait(&one.a, &guard.dir);
    luns.iter().for_each(|lun| assert_eq!(lun.slot_state(lun.b.path()), "released"));
    must("btrfs", &["check", one.a.path()]);

    let (mut mounting, dir) = one.guard_together(&other.b, &[one.b.path()], &[]);
    mounting.end(seconds(60)).expect(0);
    assert_eq!(spoiled(&dir, "file", FILES), 0);
    one.released(&dir);
    luns.iter().for_each(|lun| assert_eq!(lun.slot_state(lun.a.path()), "released"));
    observed(
        case,
        "mounted by each of its two devices; nothing without the other; a new driver went on with both",
    );
}

/// Each member alone, and both in either order.
fn refused_to_others(one: &Lun, other: &Lun) {
    for (lun, device) in [(one, &one.b), (other, &other.b)] {
        lun.verb(&["check", device.path()]).expect(1).says("in use elsewhere");
        // A part of it is refused before anybody is asked.
        lun.run_true(device.path()).expect(120).says("stands on 2 devices");
    }
    let both = one.run_with("beta", &one.b, &[other.b.path()], "true", &[]).end(seconds(30));
    both.expect(121).says("in use elsewhere");
    for (first, second) in [(&one.b, &other.b), (&other.b, &one.b)] {
        let (mut mounting, _) = one.guard_together(first, &[second.path()], &[]);
        let refused = mounting.end(seconds(30));
        refused.expect(1).says("in use elsewhere");
        at_most_strictly("area 7, btrfs", "the refusal of `mmp mount --with`", refused.took, 0.85, 10.5);
    }
}

fn external_log() {
    let case = "area 7, external log";
    let (control, log) = (Lun::control(2), Lun::blank(64 << 20));
    control.slot("log");
    let lun = Lun::holding_nothing(Content::Xfs);
    let logdev = format!("logdev={},size=64m", log.a.path());
    let size = format!("size={}", Content::Xfs.filesystem_bytes());
    must("mkfs.xfs", &["-q", "-f", "-l", &logdev, "-d", &size, lun.a.path()]);
    lun.verb(&["enable", "--interval", "500ms", lun.a.path()]).expect(0);
    log.verb(&["enable", log.a.path()]).expect(7).says("guard the filesystem it belongs to");
    let slot = |on: &Loop| format!("{}:log", on.path());
    let option = |on: &Loop| format!("logdev={}", on.path());

    let (mut mounting, dir) = lun.guard_together(&lun.a, &[&slot(&control.a)], &["-o", &option(&log.a)]);
    let end = mounting.end(seconds(60));
    end.expect(0);
    let guard = lun.guard_of(&lun.a, dir, end.took);
    write_files(&guard.dir, "file", FILES).expect("writes");
    control.verb(&["check", &slot(&control.b)]).expect(1).says("in use elsewhere");
    lun.verb(&["check", lun.b.path()]).expect(1).says("in use elsewhere");
    let (mut mounting, _) = lun.guard_together(&lun.b, &[&slot(&control.b)], &["-o", &option(&log.b)]);
    mounting.end(seconds(30)).expect(1).says("in use elsewhere");
    control.verb(&["area", "slot", "remove", control.b.path(), "log"]).expect(1).says("in use elsewhere");
    guard.assert_alive();
    lun.unmount_and_wait(&lun.a, &guard.dir);
    assert_eq!(control.slot_state(&slot(&control.b)), "released");
    assert_eq!(lun.slot_state(lun.b.path()), "released");
    let checked = command("xfs_repair", &["-n", "-l", log.a.path(), lun.a.path()]);
    assert!(checked.status.success(), "{checked:?}");

    let (mut mounting, dir) = lun.guard_together(&lun.b, &[&slot(&control.b)], &["-o", &option(&log.b)]);
    mounting.end(seconds(60)).expect(0);
    assert_eq!(spoiled(&dir, "file", FILES), 0);
    lun.released(&dir);
    observed(
        case,
        "mounted on each host with the slot that guards its log, and refused beside; xfs_repair finds nothing",
    );
}
