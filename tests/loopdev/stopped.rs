//! Cases 5 and 6: what was stopped does not go on when it comes to itself.

use mmpguard::clock::{self, Mono};
use nix::sys::signal::Signal;

use crate::Case;
use crate::harness::block::Sample;
use crate::harness::lun::Lun;
use crate::harness::process;
use crate::harness::{at_least, at_most, at_most_strictly, millis, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("case_05_stopped_driver_the_command_dies_by_the_end_of_the_lease", driver_stopped),
    ("case_06_stopped_with_everything_not_one_write_after_sigcont", || everything_stopped(Wakes::Everything)),
    ("case_06_a_driver_that_wakes_before_its_keeper_does_not_write", || {
        everything_stopped(Wakes::DriverAlone)
    }),
];

const TAKEOVER_PATIENCE_S: u64 = 60;

fn driver_stopped() {
    let lun = Lun::new();
    let mut run = lun.hold("alpha", &lun.a, "sleep 1001 & exec sleep 1002");
    let sampler = lun.sampler(millis(20));
    clock::sleep(seconds(3));
    let (driver, tree) = (run.child("mmp-driver"), run.tree());
    driver.signal(Signal::SIGSTOP);
    let stopped = clock::mono();
    let mut next = lun.run("beta", &lun.b, "mark beta.up; sleep 30; exit 4");
    clock::sleep(millis(300));
    let last_beat = sampler.last();
    assert_eq!(last_beat.block.node.to_string(), "alpha");

    let dead = process::all_dead(&tree, seconds(30)).expect("the command dies");
    at_least("5", "from the last good beat to the command's death", dead.since(last_beat.at), 9.0);
    at_most_strictly(
        "5",
        "from the last good beat to the command's death",
        dead.since(last_beat.at),
        11.6,
        14.0,
    );
    let end = run.end(seconds(20));
    end.expect(125).says("protection lost").says("the lease ran out");

    let up = lun.up("beta", &mut next, seconds(TAKEOVER_PATIENCE_S));
    assert!(dead < up, "used by two: alpha's command died at {dead:?}, beta's began at {up:?}");
    observed(
        "5",
        &format!("alpha's command was dead {:.2} s before beta's began", up.since(dead).as_secs_f64()),
    );
    at_least("5", "beta's takeover, from the stop,", up.since(stopped), 22.0);

    clock::sleep_until(stopped + seconds(40));
    observed("5", &format!("the driver's threads before SIGCONT: {}", driver.states()));
    driver.signal(Signal::SIGCONT);
    clock::sleep(seconds(5));
    assert!(!driver.is_alive(), "the driver is gone");
    only_beta(&sampler.since(last_beat.at), stopped);
    next.end(seconds(60)).expect(4);
}

/// Who comes to himself first when everything was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wakes {
    /// All of it, the driver first: the worst order.
    Everything,
    /// The driver, 5 s before the keeper that would kill it: it must find out by itself.
    DriverAlone,
}

fn everything_stopped(wakes: Wakes) {
    let case = format!("6, {wakes:?}");
    let lun = Lun::new();
    let mut run = lun.hold("alpha", &lun.a, "sleep 1001 & exec sleep 1002");
    let sampler = lun.sampler(millis(20));
    clock::sleep(seconds(3));
    let tree = run.tree();
    let mut all = vec![run.child("mmp-driver"), run.process(), run.child("mmp-keeper")];
    all.extend(tree.iter().cloned());
    all.iter().for_each(|process| process.signal(Signal::SIGSTOP));
    let stopped = clock::mono();
    let mut next = lun.run("beta", &lun.b, "mark beta.up; sleep 20; exit 4");
    clock::sleep(millis(300));
    let last_beat = sampler.last();
    let up = lun.up("beta", &mut next, seconds(TAKEOVER_PATIENCE_S));
    at_least(&case, "beta's takeover, from the stop,", up.since(stopped), 22.0);
    clock::sleep_until(stopped + seconds(30));

    if wakes == Wakes::DriverAlone {
        all[0].signal(Signal::SIGCONT);
        clock::sleep(seconds(5));
        only_beta(&sampler.since(last_beat.at), stopped);
        observed(&case, &format!("the driver's threads 5 s after SIGCONT: {}", all[0].states()));
    }
    let continued = clock::mono();
    all.iter().for_each(|process| process.signal(Signal::SIGCONT));
    let dead = process::all_dead(&tree, seconds(30)).expect("the command dies");
    at_most(&case, "from SIGCONT to the command's death", dead.since(continued), 1.0);
    let end = run.end(seconds(20));
    end.expect(125).says("protection lost");
    at_most(&case, "from SIGCONT to exit 125", end.at.since(continued), 2.0);
    clock::sleep(seconds(5));
    only_beta(&sampler.since(last_beat.at), stopped);
    next.end(seconds(60)).expect(4);
}

/// Nothing but beta's blocks was seen, and they count on without a step back: nobody wrote between them.
fn only_beta(seen: &[Sample], stopped: Mono) {
    assert!(seen.len() >= 3, "beta beats: {}", seen.len());
    let foreign: Vec<_> = seen.iter().filter(|sample| sample.block.node.to_string() != "beta").collect();
    assert!(foreign.is_empty(), "written after the stop at {stopped:?}: {foreign:#?}");
    // Claim, middle beat and last beat jump; from then on it counts by one. A slow machine may miss a few.
    let counts = |pair: &[Sample]| (1..=5).contains(&pair[1].block.seq.wrapping_sub(pair[0].block.seq));
    let jumps = seen.windows(2).filter(|pair| !counts(pair)).count();
    assert!(jumps <= 2, "{jumps} jumps: {seen:#?}");
}
