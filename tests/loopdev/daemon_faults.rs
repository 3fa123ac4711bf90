//! What happens to guards when the daemon dies at a bad moment, again and again, or stands still: one fence a loss, and none without one.

use std::time::Duration;

use mmpguard::clock;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::Case;
use crate::guard_support::{
    becomes, driven_by, guards, is_mounted, keeper_of, longest_gap, marking_fence, mount_on, mounted,
    mounted_clean, nothing_is_left, opener, refuses_others, status_of, substitute,
};
use crate::harness::areas::{Content, Made};
use crate::harness::daemon::{Daemon, together};
use crate::harness::lun::{Lun, RUNTIME, must, text};
use crate::harness::started::patiently;
use crate::harness::{at_most_strictly, millis, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("daemon_2_slow_restarts_are_no_reason_to_fence", slow_restarts),
    ("daemon_2_an_area_that_beats_ten_times_a_second_survives_its_death", fast_area),
    ("daemon_2_the_keeper_of_a_substitute_process_hands_over_too", keeper_of_a_substitute),
    ("daemon_2_stopped_beyond_its_lease_it_is_fenced_once_and_the_report_stands", fenced_once),
    ("daemon_2_what_was_used_with_a_released_mount_stays_held", companions),
    ("daemon_2_a_lun_that_was_grown_under_its_mount_stays_guarded", grown),
    ("daemon_1_refused_mounts_leave_no_zombies", zombies),
    ("daemon_1_whoever_is_told_nothing_but_errors_is_told_those", quiet),
    ("daemon_1_nobody_else_keeps_it_from_starting", lock_of_another),
];

fn slow_restarts() {
    let lun = Lun::protected(Content::Ext3, Made::default());
    let mut daemon = Daemon::of(&lun);
    let dir = mounted(&lun, &lun.a, &[]);
    let sampler = lun.sampler(millis(25));
    clock::sleep(seconds(2));
    let begun = clock::mono();
    for round in 0..5 {
        daemon.kill();
        clock::sleep(millis(1200));
        assert!(substitute(&lun).is_some(), "round {round}: {:?}", guards(&lun));
        daemon = Daemon::of(&lun);
        // Not trusted any more it is not given the guard, which is no loss either.
        clock::sleep(seconds(3));
        let told = status_of(&lun, &lun.a);
        assert_eq!(told["state"], "guarding", "round {round}: {told}");
    }
    refuses_others(&lun);
    let gap = longest_gap(&sampler.since(begun), clock::mono());
    at_most_strictly("daemon 2", "the longest silence in five slow restarts", gap, 2.0, 5.0);
    drop(sampler);
    lun.unmount_and_wait(&lun.a, &dir);
    daemon.stop().expect(0);
}

fn fast_area() {
    let lun = Lun::protected(Content::Ext3, Made { options: &["--interval", "100ms"], ..Made::default() });
    let mut daemon = Daemon::of(&lun);
    let dir = mounted(&lun, &lun.a, &[]);
    let sampler = lun.sampler(millis(5));
    clock::sleep(seconds(1));
    for end in ["kill", "stop", "kill and nobody comes"] {
        let begun = clock::mono();
        match end {
            "stop" => drop(daemon.stop().expect(0)),
            _ => daemon.kill(),
        }
        if end == "kill and nobody comes" {
            clock::sleep(seconds(4));
            let told = status_of(&lun, &lun.a);
            assert_eq!(told["state"], "guarding", "{told}");
        }
        daemon = Daemon::of(&lun);
        assert!(driven_by(&lun, daemon.process().pid), "{end}: {}", status_of(&lun, &lun.a));
        let gap = longest_gap(&sampler.since(begun), clock::mono());
        at_most_strictly("daemon 2", &format!("the longest silence at 100 ms, {end}"), gap, 0.5, 1.1);
    }
    drop(sampler);
    lun.unmount_and_wait(&lun.a, &dir);
    daemon.stop().expect(0);
    nothing_is_left(&lun);
}

fn keeper_of_a_substitute() {
    let lun = Lun::new();
    let daemon = Daemon::of(&lun);
    let dir = mounted_clean(&lun, &lun.a);
    daemon.kill();
    let process = patiently(seconds(5), || substitute(&lun)).expect("takes its place");
    let first = keeper_of(&lun).expect("is there");
    first.signal(Signal::SIGKILL);
    let second = patiently(seconds(10), || keeper_of(&lun).filter(|keeper| keeper.pid != first.pid));
    assert!(second.is_some() && process.is_alive(), "{}", status_of(&lun, &lun.a));
    clock::sleep(seconds(1));
    let daemon = Daemon::of(&lun);
    assert!(driven_by(&lun, daemon.process().pid), "{}: {}", status_of(&lun, &lun.a), daemon.said());
    assert!(patiently(seconds(5), || (!process.is_alive()).then_some(())).is_some(), "one driver at a time");
    must("umount", &[text(&dir)]);
    lun.gone(&lun.a);
    daemon.stop().expect(0);
}

fn fenced_once() {
    let lun = Lun::protected(Content::Xfs, Made::default());
    let daemon = Daemon::of(&lun);
    let fence = marking_fence(&lun);
    let count = lun.file("count");
    let script = lun.file("cut-off");
    let body = std::fs::read_to_string(&script).expect("reads");
    std::fs::write(&script, format!("{body}echo once >> {}\n", count.display())).expect("writes");
    let dir = lun.mount_point();
    let mut mounting =
        lun.mmp(&["mount", "--on-loss", &format!("{fence},shutdown"), lun.a.path(), text(&dir)]);
    mounting.end(seconds(60)).expect(0);
    daemon.process().signal(Signal::SIGSTOP);
    let told = becomes(&lun, &lun.a, "state", "lost", seconds(40));
    daemon.process().signal(Signal::SIGCONT);
    clock::sleep(seconds(5));
    let after = status_of(&lun, &lun.a);
    assert_eq!(after["lost"], told["lost"], "what the fence came to stands");
    assert_eq!(std::fs::read_to_string(&count).expect("reads").lines().count(), 1, "one fence");
    let keepers = guards(&lun).into_iter().filter(|process| process.comm == "mmp-keeper").count();
    assert_eq!(keepers, 0, "{:?}", guards(&lun));
    let events = lun.mmp(&["events", "--json", "--kind", "lost"]).end(seconds(10));
    assert_eq!(events.expect(0).out.lines().count(), 1, "{}", events.out);
    assert!(daemon.process().is_alive(), "it was cut off: the daemon need not die for it");
    lun.mmp(&["umount", "--although-lost", text(&dir)]).end(seconds(30)).expect(0);
    lun.forget_mount(&dir);
    daemon.stop().expect(0);
}

/// The one that is mounted is released; the other one is still used, and the daemon is replaced.
fn companions() {
    let (main, other) =
        (Lun::protected(Content::Ext3, Made::default()), Lun::protected(Content::Ext3, Made::default()));
    let env = together(&main);
    let daemon = Daemon::of(&main);
    let (mut mounting, dir) = main.guard_together(&main.a, &[other.a.path()], &[]);
    mounting.end(seconds(90)).expect(0);
    let user = opener(&other, other.a.path(), "<>");
    main.unmount_plainly(&dir);
    becomes(&main, &main.a, "state", "releasing", seconds(10));
    let used = || {
        let mut check = other.start_with(env!("CARGO_BIN_EXE_mmp"), ["check", other.b.path()], &env);
        check.end(seconds(40)).expect(1).says("in use elsewhere");
    };
    used();
    daemon.kill();
    clock::sleep(millis(1500));
    used();
    let daemon = Daemon::of(&main);
    // Longer than a lease.
    clock::sleep(seconds(13));
    used();
    drop(user);
    main.gone(&main.a);
    assert_eq!(other.shown(other.b.path())["slot"]["state"], "released");
    daemon.stop().expect(0);
}

/// The first step of growing what has a tail area; then the daemon is replaced, and then its keeper's process is.
fn grown() {
    let lun = Lun::protected(Content::Ext3, Made::default());
    let daemon = Daemon::of(&lun);
    let dir = mounted(&lun, &lun.a, &[]);
    let sampler = lun.sampler(millis(25));
    clock::sleep(seconds(2));
    let begun = clock::mono();
    lun.grow(8 << 20);
    daemon.kill();
    let daemon = Daemon::of(&lun);
    assert!(driven_by(&lun, daemon.process().pid), "{}: {}", status_of(&lun, &lun.a), daemon.said());
    daemon.kill();
    clock::sleep(seconds(3));
    let process = substitute(&lun).expect("takes its place");
    process.signal(Signal::SIGKILL);
    // Longer than a lease.
    clock::sleep(seconds(13));
    let told = status_of(&lun, &lun.a);
    assert_eq!(told["state"], "guarding", "{told}");
    let gap = longest_gap(&sampler.since(begun), clock::mono());
    at_most_strictly("daemon 2", "the longest silence over a grown LUN", gap, 2.0, 5.0);
    drop(sampler);
    lun.unmount_and_wait(&lun.a, &dir);
    nothing_is_left(&lun);
}

fn zombies() {
    let lun = Lun::new();
    let daemon = Daemon::of(&lun);
    let dir = lun.mount_point();
    for _ in 0..10 {
        let mut refused = lun.mmp(&["mount", "--on-loss", "shutdown", lun.a.path(), text(&dir)]);
        refused.end(seconds(10)).expect(10);
    }
    let left = || {
        let children = daemon.process().children();
        children.is_empty().then_some(()).ok_or(children)
    };
    assert!(patiently(seconds(5), || left().ok()).is_some(), "{:?}", left());
    let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.process().pid)).expect("lives").count();
    observed("daemon 1", &format!("{threads} threads after ten refused mounts"));
    assert!(threads < 16, "{threads}");
    daemon.stop().expect(0);
}

fn quiet() {
    let lun = Lun::new();
    let daemon = Daemon::of(&lun);
    let dir = lun.mount_point();
    let mut refused = lun.mmp(&["mount", "-q", "--on-loss", "shutdown", lun.a.path(), text(&dir)]);
    refused.end(seconds(10)).expect(10).says("nothing of the ladder");
    // So is one who hears a single reply.
    let request =
        json!({ "request": { "device": lun.a.path(), "directory": text(&dir), "on_loss": "shutdown" } });
    let reply = daemon.call("daemon.sock", "Mount", &request);
    let ended: &Value = &reply["parameters"]["ended"];
    assert_eq!(ended["exit_code"], 10, "{reply}");
    assert!(ended["text"].as_str().is_some_and(|text| text.contains("nothing of the ladder")), "{reply}");
    // One request about a device at a time.
    let mut first = mount_on(&lun, lun.a.path(), &dir, &[], &[]);
    first.says("the kernel mounts, and waits", seconds(20));
    let mut second = mount_on(&lun, lun.a.path(), &dir, &[], &[]);
    second.end(seconds(10)).expect(1).says("another request about it is under way");
    first.process().signal(Signal::SIGTERM);
    first.end(seconds(40)).expect(6);
    assert!(!is_mounted(&dir));
    daemon.stop().expect(0);
}

fn lock_of_another() {
    let lun = Lun::new();
    let directory = lun.file(RUNTIME);
    std::fs::create_dir(&directory).expect("makes a directory");
    let lock = lun.start("flock", [text(&directory), "sleep", "1000"]);
    clock::sleep(Duration::from_millis(300));
    Daemon::of(&lun).stop().expect(0);
    drop(lock);
    // A directory that others may write to is refused.
    must("chmod", &["0777", text(&directory)]);
    lun.mmp(&["daemon"]).end(seconds(10)).expect(4).says("others may write into it");
    must("chmod", &["0755", text(&directory)]);
}
