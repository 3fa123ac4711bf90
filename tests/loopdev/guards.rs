//! Beyond the table: what happens to a release when a user comes in the middle of it, or when one of the guarding
//! processes is killed while somebody else still uses the device; and a signal in the last moments of a claim.

use mmpguard::clock;
use mmpguard::protocol::sequence::SEQ_CLEAN;
use nix::sys::signal::Signal;

use crate::Case;
use crate::harness::lun::Lun;
use crate::harness::started::{Started, patiently};
use crate::harness::{millis, observed, seconds};
use crate::outage::Disk;

pub(crate) const CASES: &[Case] = &[
    ("release_sees_a_user_who_comes_while_its_flush_hangs", user_during_the_flush),
    ("release_goes_on_when_the_front_is_killed_under_a_user", || killed_under_a_user("front")),
    ("release_goes_on_when_the_keeper_is_killed_under_a_user", || killed_under_a_user("keeper")),
    ("a_signal_at_the_end_of_a_claim_leaves_it_clean", signal_at_the_end),
];

/// Somebody else's process with the device open for writing.
fn user_of(lun: &Lun) -> Started {
    let mut user =
        lun.start("sh", ["-c", &format!("exec 3<>{}; echo open >&2; exec sleep 1000", lun.a.path())]);
    user.says("open", seconds(10));
    user
}

fn user_during_the_flush() {
    let disk = Disk::new();
    let lun = disk.lun();
    let script = "while ! [ -e \"$DIR/go\" ]; do sleep 0.1; done; \
                  dd if=/dev/zero of=\"$MMP_DEVICE\" bs=4096 seek=7168 count=64 conv=notrunc status=none";
    let mut run = lun.hold("alpha", &lun.a, script);
    let frozen = disk.freeze();
    // Into the page cache, which takes it; the flush of the release hangs then.
    std::fs::write(lun.file("go"), "").expect("writes");
    let gone = patiently(seconds(5), || run.tree().is_empty().then_some(()));
    if gone.is_none() {
        // The last close flushes by itself: then the command hangs, and the release begins after the thaw.
        observed("release", "the command hung in its own last close");
    }
    clock::sleep(seconds(1));
    let user = user_of(&lun);
    clock::sleep(seconds(1));
    drop(frozen);
    run.says(&format!("still used, so it stays held: process {}", user.process().pid), seconds(20));
    assert_ne!(lun.raw().read().seq, SEQ_CLEAN);
    drop(user);
    run.end(seconds(20)).expect(0);
    assert_eq!(lun.raw().read().seq, SEQ_CLEAN);
}

fn killed_under_a_user(who: &str) {
    let lun = Lun::new();
    let mut run = lun.hold("alpha", &lun.a, "while ! [ -e \"$DIR/go\" ]; do sleep 0.1; done; exit 7");
    let user = user_of(&lun);
    std::fs::write(lun.file("go"), "").expect("writes");
    run.says("still used, so it stays held", seconds(20));
    let (driver, keeper) = (run.child("mmp-driver"), run.child("mmp-keeper"));
    let sampler = lun.sampler(millis(50));
    let killed = clock::mono();
    match who {
        "front" => run.process().signal(Signal::SIGKILL),
        _ => keeper.signal(Signal::SIGKILL),
    }
    clock::sleep(seconds(14)); // longer than a lease
    assert!(driver.is_alive(), "the driver went under a user");
    let beats = sampler.since(killed + seconds(12));
    assert!(beats.iter().any(|beat| beat.block.node.to_string() == "alpha"), "no beats any more");
    lun.mmp(&["check", lun.b.path()]).end(seconds(30)).expect(1).says("in use elsewhere");
    drop(user);
    if who == "keeper" {
        run.end(seconds(20)).expect(7);
    }
    let clean = patiently(seconds(20), || (lun.raw().read().seq == SEQ_CLEAN).then_some(()));
    assert!(clean.is_some(), "not released after the last user went");
    let gone = patiently(seconds(5), || (!driver.is_alive()).then_some(()));
    assert!(gone.is_some(), "the driver stayed");
}

fn signal_at_the_end() {
    // The claim ends 11 s after its first write; in between everything from withdrawn to forwarded may happen, but the
    // command must not run to its end as if nothing had been said.
    let rounds: Vec<_> = (0..6).map(|round| (Lun::new(), 10_970 + 20 * round)).collect();
    let started: Vec<_> = rounds
        .iter()
        .map(|(lun, _)| {
            let run = lun.run("alpha", &lun.a, "sleep 5; echo ran >\"$DIR/ran\"");
            let at = run.at;
            (run, at)
        })
        .collect();
    for ((lun, after_ms), (mut run, at)) in rounds.iter().zip(started) {
        clock::sleep_until(at + millis(*after_ms));
        run.process().signal(Signal::SIGTERM);
        let code = run.end(seconds(30)).code;
        observed("signal", &format!("SIGTERM {after_ms} ms after the start: exit {code}"));
        assert!(matches!(code, 120 | 143), "{code}: {}", run.err());
        assert!(!lun.file("ran").exists(), "the signal was swallowed");
        if code == 143 {
            assert_eq!(lun.raw().read().seq, SEQ_CLEAN);
        }
    }
}
