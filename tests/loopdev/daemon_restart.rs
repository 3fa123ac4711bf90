//! The daemon dies, or is replaced: its guards go on.

use std::path::PathBuf;
use std::time::Duration;

use mmpguard::clock;
use nix::sys::signal::Signal;

use crate::Case;
use crate::guard_support::{
    becomes, driven_by, guards, keeper_of, longest_gap, mount_on, mounted, mounted_clean, nothing_is_left,
    refuses_others, status_of, substitute, unmount_plainly,
};
use crate::harness::areas::{Content, Made};
use crate::harness::daemon::{Daemon, together};
use crate::harness::lun::{Lun, must, text};
use crate::harness::started::patiently;
use crate::harness::{at_least, at_most, at_most_strictly, millis, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("daemon_2_twenty_guards_are_taken_over_from_a_killed_daemon_and_nobody_gets_in", twenty),
    ("daemon_2_not_restarted_its_guards_go_on_in_processes_of_their_own", not_restarted),
    ("daemon_2_a_newer_program_takes_over", newer),
    ("daemon_2_what_was_foreign_meanwhile_is_lost_and_fenced", foreign),
    ("daemon_2_a_keeper_that_dies_is_replaced", keeper_dies),
    ("daemon_2_a_stopped_daemon_is_fenced_when_the_lease_ends", stopped),
    ("daemon_2_one_that_dies_while_it_mounts_leaves_nothing", dies_while_mounting),
    ("daemon_2_one_that_dies_again_and_again_is_not_trusted", dies_again_and_again),
];

/// From one beat to the next, whatever happens to the daemon.
const GAP_S: f64 = 2.0;

fn twenty() {
    // Half of them are beaten by us, half by kernels.
    let areas: Vec<Lun> = (0..10).map(|_| Lun::protected(Content::Ext3, Made::default())).collect();
    let natives: Vec<Lun> = (0..10).map(|_| Lun::new()).collect();
    let luns: Vec<&Lun> = areas.iter().chain(&natives).collect();
    let env = together(luns[0]);
    let daemon = Daemon::with(luns[0], env!("CARGO_BIN_EXE_mmp"), &env);
    let started: Vec<_> = luns
        .iter()
        .map(|lun| {
            let to = lun.mount_point();
            (mount_on(lun, lun.a.path(), &to, &["--handover", "clean"], &env), to)
        })
        .collect();
    let mut dirs: Vec<PathBuf> = Vec::new();
    for (mut mounting, to) in started {
        mounting.end(seconds(90)).expect(0);
        dirs.push(to);
    }
    let all = |daemon: &Daemon| {
        let list = daemon.call("monitor.sock", "List", &serde_json::json!({}));
        let guards = list["parameters"]["guards"].as_array().cloned().unwrap_or_default();
        guards
            .iter()
            .filter(|guard| guard["driver_pid"] == daemon.process().pid && guard["state"] == "guarding")
            .count()
    };
    assert_eq!(all(&daemon), luns.len());
    let samplers: Vec<_> = luns.iter().map(|lun| lun.sampler(millis(25))).collect();
    clock::sleep(seconds(3));
    let begun = clock::mono();
    // By turns: restarted at once, as systemd does, and later.
    daemon.kill();
    let daemon = Daemon::with(luns[0], env!("CARGO_BIN_EXE_mmp"), &env);
    let taken = patiently(seconds(20), || (all(&daemon) == luns.len()).then(clock::mono));
    let taken = taken.unwrap_or_else(|| panic!("{} of them: {}", all(&daemon), daemon.said()));
    at_most("daemon 2", "twenty guards, taken over", taken.since(begun), 3.0);
    clock::sleep(seconds(3));
    // Nobody else gets in meanwhile, and after it.
    let checks: Vec<_> = luns.iter().map(|lun| lun.mmp(&["check", lun.b.path()])).collect();
    for mut check in checks {
        check.end(seconds(30)).expect(1).says("in use elsewhere");
    }
    let end = clock::mono();
    let gaps = samplers.iter().map(|sampler| longest_gap(&sampler.since(begun - seconds(2)), end));
    at_most_strictly("daemon 2", "the longest silence of twenty", gaps.max().expect("twenty"), GAP_S, 5.0);
    drop(samplers);
    for (lun, dir) in luns.iter().zip(&dirs) {
        std::fs::write(dir.join("file"), "x").expect("writes");
        lun.unmount_plainly(dir);
    }
    let gone = patiently(seconds(30), || (all(&daemon) == 0).then_some(()));
    assert!(gone.is_some(), "{}", daemon.said());
    daemon.stop().expect(0);
    for lun in luns {
        nothing_is_left(lun);
    }
}

fn not_restarted() {
    let lun = Lun::protected(Content::Ext3, Made::default());
    let daemon = Daemon::of(&lun);
    let dir = mounted(&lun, &lun.a, &[]);
    let generation = lun.generation();
    let sampler = lun.sampler(millis(25));
    clock::sleep(seconds(2));
    let begun = clock::mono();
    let keeper = status_of(&lun, &lun.a)["keeper_pid"].clone();
    daemon.kill();
    let found =
        patiently(seconds(5), || substitute(&lun).map(|_| clock::mono())).expect("a process takes its place");
    at_most("daemon 2", "until a process drives instead", found.since(begun), 1.0);
    // Longer than two waits.
    clock::sleep(seconds(24));
    let told = status_of(&lun, &lun.a);
    assert_eq!((&told["keeper_pid"], told["state"].as_str()), (&keeper, Some("guarding")), "{told}");
    refuses_others(&lun);
    let daemon = Daemon::of(&lun);
    assert!(driven_by(&lun, daemon.process().pid), "{}: {}", status_of(&lun, &lun.a), daemon.said());
    assert!(substitute(&lun).is_none(), "one driver at a time");
    clock::sleep(seconds(3));
    let gap = longest_gap(&sampler.since(begun - seconds(1)), clock::mono());
    at_most_strictly("daemon 2", "the longest silence until the next daemon", gap, GAP_S, 5.0);
    assert_eq!(lun.generation(), generation, "it was never released");
    drop(sampler);
    lun.unmount_and_wait(&lun.a, &dir);
    daemon.stop().expect(0);
    nothing_is_left(&lun);
}

fn newer() {
    let lun = Lun::new();
    let daemon = Daemon::of(&lun);
    let dir = mounted_clean(&lun, &lun.a);
    let copy = lun.file("mmp-newer");
    std::fs::copy(env!("CARGO_BIN_EXE_mmp"), &copy).expect("copies");
    let sampler = lun.sampler(millis(25));
    let begun = clock::mono();
    // As a package does it: the old one is told to end, the new one is started.
    daemon.stop().expect(0);
    let daemon = Daemon::with(&lun, text(&copy), &[]);
    assert!(driven_by(&lun, daemon.process().pid), "{}: {}", status_of(&lun, &lun.a), daemon.said());
    clock::sleep(seconds(3));
    at_most(
        "daemon 2",
        "the longest silence in an upgrade",
        longest_gap(&sampler.since(begun), clock::mono()),
        GAP_S,
    );
    refuses_others(&lun);
    drop(sampler);
    must("umount", &[text(&dir)]);
    assert!(patiently(seconds(10), || status_of(&lun, &lun.a).is_null().then_some(())).is_some());
    daemon.stop().expect(0);
}

/// While no daemon lives somebody takes the device (by force: the test writes his block).
fn foreign() {
    let lun = Lun::new();
    let daemon = Daemon::of(&lun);
    let dir = mounted(&lun, &lun.a, &["-r"]);
    let stopped = daemon.process();
    stopped.signal(Signal::SIGSTOP);
    clock::sleep(millis(1500));
    let raw = lun.raw();
    let mut block = raw.read();
    block.seq = mmpguard::protocol::sequence::SEQ_FSCK; // whoever wrote that has passed his whole wait
    block.node = mmpguard::format::NodeName::new("elsewhere");
    raw.write(&block);
    stopped.signal(Signal::SIGKILL);
    let told = becomes(&lun, &lun.a, "state", "lost", seconds(30));
    observed("daemon 2", &format!("foreign: {}", told["lost"]["reason"]));
    assert!(told["lost"]["fence"].is_object(), "{told}");
    lun.mmp(&["umount", "--although-lost", text(&dir)]).end(seconds(30)).expect(0);
    lun.forget_mount(&dir);
    drop(daemon);
}

fn keeper_dies() {
    let lun = Lun::new();
    let daemon = Daemon::of(&lun);
    let dir = mounted_clean(&lun, &lun.a);
    let first = keeper_of(&lun).expect("is there");
    first.signal(Signal::SIGKILL);
    let second = patiently(seconds(10), || keeper_of(&lun).filter(|keeper| keeper.pid != first.pid));
    assert!(second.is_some(), "{}", status_of(&lun, &lun.a));
    // The new one hands over as well.
    daemon.kill();
    let daemon = Daemon::of(&lun);
    assert!(driven_by(&lun, daemon.process().pid), "{}: {}", status_of(&lun, &lun.a), daemon.said());
    must("umount", &[text(&dir)]);
    assert!(patiently(seconds(10), || status_of(&lun, &lun.a).is_null().then_some(())).is_some());
    daemon.stop().expect(0);
}

/// It stands still for longer than a lease: the keeper fences, and the daemon does not write again.
fn stopped() {
    let lun = Lun::protected(Content::Xfs, Made::default());
    let daemon = Daemon::of(&lun);
    let dir = mounted(&lun, &lun.a, &[]);
    let sampler = lun.sampler(millis(25));
    clock::sleep(seconds(2));
    daemon.process().signal(Signal::SIGSTOP);
    let last = sampler.last();
    let told = becomes(&lun, &lun.a, "state", "lost", seconds(40));
    let fenced = clock::mono();
    at_least("daemon 2", "from the last beat to the fence", fenced.since(last.at), 9.0);
    at_most("daemon 2", "from the last beat to the fence", fenced.since(last.at), 13.5);
    assert_eq!(told["lost"]["fence"]["done"], true, "{told}");
    daemon.process().signal(Signal::SIGCONT);
    clock::sleep(seconds(3));
    assert_eq!(sampler.since(last.at + Duration::from_millis(100)).len(), 0, "nothing is written any more");
    drop(sampler);
    lun.mmp(&["umount", "--although-lost", text(&dir)]).end(seconds(30)).expect(0);
    lun.forget_mount(&dir);
    // It lives, and guards what it is asked to.
    let dir = mounted(&lun, &lun.a, &[]);
    assert_eq!(status_of(&lun, &lun.a)["driver_pid"], daemon.process().pid);
    lun.unmount_and_wait(&lun.a, &dir);
    daemon.stop().expect(0);
}

fn dies_while_mounting() {
    let lun = Lun::new();
    let daemon = Daemon::of(&lun);
    let to = lun.mount_point();
    let mut mounting = mount_on(&lun, lun.a.path(), &to, &[], &[]);
    mounting.says("the kernel mounts, and waits", seconds(20));
    clock::sleep(seconds(2));
    daemon.kill();
    mounting.end(seconds(20)).expect(4).says("the daemon ended before it had an answer");
    let left = patiently(seconds(20), || guards(&lun).is_empty().then_some(()));
    assert!(left.is_some(), "{:?}", guards(&lun));
    assert!(!crate::guard_support::is_mounted(&to));
    assert!(status_of(&lun, &lun.a).is_null(), "{}", status_of(&lun, &lun.a));
}

fn dies_again_and_again() {
    let lun = Lun::new();
    let mut daemon = Daemon::of(&lun);
    let dir = mounted_clean(&lun, &lun.a);
    for _ in 0..6 {
        assert!(driven_by(&lun, daemon.process().pid), "{}: {}", status_of(&lun, &lun.a), daemon.said());
        daemon.kill();
        daemon = Daemon::of(&lun);
    }
    let instead = patiently(seconds(10), || substitute(&lun));
    assert!(instead.is_some(), "{:?}", guards(&lun));
    clock::sleep(seconds(5));
    assert_eq!(substitute(&lun), instead, "it stays, for a minute");
    let told = status_of(&lun, &lun.a);
    assert_eq!(told["state"], "guarding", "{told}");
    refuses_others(&lun);
    daemon.stop().expect(0);
    unmount_plainly(&lun, &dir);
}
