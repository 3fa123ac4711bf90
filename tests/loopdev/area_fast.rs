//! An interval of 100 ms: others are refused in less than half a second, and take over in two and a half. What is paid for that is
//! printed beside it: how long the storage may hang.

use mmpguard::clock;
use nix::sys::signal::Signal;

use crate::Case;
use crate::harness::areas::{Content, Made};
use crate::harness::lun::Lun;
use crate::harness::started::{Started, patiently};
use crate::harness::{at_least, at_most, at_most_strictly, millis, observed, process, seconds};
use crate::outage::Disk;

pub(crate) const CASES: &[Case] = &[
    ("area_2_at_100_ms_a_crash_is_taken_over_in_2_5_s_and_others_refused_in_half_a_second", crash),
    ("area_2_at_100_ms_a_short_outage_is_survived_and_a_long_one_kills_the_command", outage),
];

const FAST: Made<'_> = Made { options: &["--interval", "100ms"], place: None, sector_bytes: None };

/// A device whose writes take longer than 0.3 s is refused: a disk that other tests write to may do so now and then.
fn hold(lun: &Lun) -> Started {
    for _ in 0..10 {
        let mut run = lun.run("alpha", &lun.a, "mark alpha.up; exec sleep 1000");
        let held = patiently(seconds(20), || match run.has_ended() {
            true => Some(false),
            false => lun.marked("alpha.up").map(|_| true),
        });
        if held == Some(true) {
            return run;
        }
        let end = run.end(seconds(20));
        end.expect(124).says("too slow to be protected");
        observed("area 2", end.err.trim());
        clock::sleep(seconds(2));
    }
    panic!("too slow ten times");
}

fn crash() {
    let case = "area 2, U = 100 ms";
    let lun = Lun::protected(Content::Xfs, FAST);
    let timing = lun.shown(lun.b.path())["timing"].clone();
    let survived = timing["outage_survived_s"].as_f64().expect("is a number");
    assert!((survived - 1.1).abs() < 1e-9, "{timing}");
    let mut run = hold(&lun);
    let (mut runs, mut checks) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let refused = lun.run_true(lun.b.path());
        refused.expect(121).says("in use elsewhere").says("alpha");
        runs.push(refused.took);
        let checked = lun.verb(&["check", lun.b.path()]);
        checked.expect(1);
        checks.push(checked.took);
    }
    // A busy machine may start a program late now and then, but not each time.
    for (verb, took) in [("`mmp run`", runs), ("`mmp check`", checks)] {
        observed(case, &format!("the refusals of {verb} took {took:.2?}"));
        let soonest = took.into_iter().min().expect("five");
        at_most_strictly(case, &format!("the soonest refusal of {verb}"), soonest, 0.45, 0.9);
    }
    let generation = lun.generation();
    let victims = [run.child("mmp-driver"), run.child("mmp-keeper"), run.process()];
    let tree = run.tree();
    // The driver first: it would give the slot back.
    victims.iter().for_each(|victim| victim.signal(Signal::SIGKILL));
    assert!(process::all_dead(&tree, seconds(5)).is_some(), "the command outlives its guard");
    run.end(seconds(5)).expect(128 + 9);

    let mut next = lun.run("beta", &lun.b, "mark beta.up");
    let up = lun.up("beta", &mut next, seconds(20));
    next.end(seconds(20)).expect(0);
    at_least(case, "the takeover by `mmp run`", up.since(next.at), 2.2);
    at_most(case, "the takeover by `mmp run`", up.since(next.at), 2.5);
    assert!(lun.generation() > generation);
    observed(case, &format!("that survives a storage outage of {survived} s"));
    let first = lun.generation();
    let again = lun.run_true(lun.a.path());
    at_most(case, "`mmp run -- true` after a release", again.expect(0).took, 1.6);
    assert_eq!(lun.generation(), first + 1);
}

fn outage() {
    let case = "area 2, outage";
    let disk = Disk::of(512 << 20);
    let lun = Lun::protected(Content::Xfs, Made { place: Some(disk.place()), ..FAST });
    let mut run = hold(&lun);
    let tree = run.tree();
    let frozen = disk.freeze();
    clock::sleep(millis(600));
    drop(frozen);
    clock::sleep(seconds(2));
    assert!(!run.has_ended(), "an outage of 0.6 s: {}", run.err());
    observed(case, "an outage of 0.6 s changed nothing");
    let frozen = disk.freeze();
    let since = clock::mono();
    let dead = process::all_dead(&tree, seconds(20)).expect("the command dies");
    at_least(case, "from the beginning of an outage to the death of the command", dead.since(since), 0.9);
    at_most_strictly(case, "from the beginning of an outage to the death", dead.since(since), 1.2, 2.2);
    run.end(seconds(20)).expect(125).says("protection lost");
    drop(frozen);
}
