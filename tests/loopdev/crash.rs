//! Case 4: one of the processes of `mmp run` is killed. Nothing of the command outlives it, and the LUN is taken over
//! when the waits are over, not sooner.

use std::time::Duration;

use mmpguard::clock::{self, Mono};
use nix::sys::signal::Signal;

use crate::Case;
use crate::harness::lun::Lun;
use crate::harness::process::{self, Process};
use crate::harness::started::Started;
use crate::harness::{at_least, at_most, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("case_04_killed_run_dies_and_the_kernel_takes_over_after_22_s", || kernel_takes_over(Victim::Front)),
    ("case_04_killed_run_dies_and_another_run_takes_over_after_22_s", || run_takes_over(Victim::Front)),
    ("case_04_killed_keeper_takes_the_command_with_it", || kernel_takes_over(Victim::Keeper)),
    ("case_04_killed_driver_takes_the_command_with_it", || run_takes_over(Victim::Driver)),
];

/// A command with a child, and a daemon that left its process group and its session.
const FAMILY: &str =
    "setsid sh -c 'sleep 1001 & sleep 1002 & exit'; (sleep 1003 &); sleep 1004 & exec sleep 1005";

#[derive(Clone, Copy, Debug)]
enum Victim {
    Front,
    Keeper,
    Driver,
}

/// Holds, kills, and looks at what is left; gives when that was.
fn crash(lun: &Lun, victim: Victim) -> Mono {
    let case = format!("4, {victim:?} killed");
    let mut run = lun.hold("alpha", &lun.a, FAMILY);
    clock::sleep(seconds(2));
    let tree = run.tree();
    assert_eq!(tree.iter().filter(|process| process.comm == "sleep").count(), 5, "{tree:?}");
    let (driver, keeper) = (run.child("mmp-driver"), run.child("mmp-keeper"));
    let who = match victim {
        Victim::Front => run.process(),
        Victim::Keeper => keeper.clone(),
        Victim::Driver => driver.clone(),
    };
    let killed = clock::mono();
    who.signal(Signal::SIGKILL);
    let dead = process::all_dead(&tree, seconds(10)).unwrap_or_else(|| panic!("still there: {tree:?}"));
    at_most(&case, "the death of the command's tree", dead.since(killed), 2.0);
    let end = run.end(seconds(20));
    at_most(&case, "the end of mmp run", end.at.since(killed), 2.0);
    match victim {
        Victim::Front => end.expect(128 + 9),
        Victim::Keeper | Victim::Driver => end.expect(125).says("protection lost"),
    };
    let guards: [Process; 2] = [driver, keeper];
    let gone = process::all_dead(&guards, seconds(10)).unwrap_or_else(|| panic!("left: {guards:?}"));
    at_most(&case, "the end of driver and keeper", gone.since(killed), 2.0);
    killed
}

fn kernel_takes_over(victim: Victim) {
    let lun = Lun::new();
    let killed = crash(&lun, victim);
    let (mut mounting, _) = lun.mount(&lun.b);
    let mounted = mounting.end(seconds(90));
    took_over(victim, "the kernel's takeover", mounted.expect(0).at.since(killed), mounted.took, 22.6);
}

fn run_takes_over(victim: Victim) {
    let lun = Lun::new();
    let killed = crash(&lun, victim);
    let mut next: Started = lun.run("beta", &lun.b, "mark beta.up");
    let up = lun.up("beta", &mut next, seconds(90));
    next.end(seconds(30)).expect(0);
    took_over(victim, "the takeover by mmp run", up.since(killed), up.since(next.at), 24.5);
    assert!(next.err().contains("alpha"), "tells who was there: {}", next.err());
}

fn took_over(victim: Victim, what: &str, after_kill: Duration, after_start: Duration, limit_s: f64) {
    let case = format!("4, {victim:?} killed");
    at_least(&case, &format!("{what}, from the kill,"), after_kill, 22.0);
    at_most(&case, &format!("{what}, from its start,"), after_start, limit_s);
    observed(&case, &format!("{what} was {:.2} s after the kill", after_kill.as_secs_f64()));
}
