//! A guarded mount that is ended while it is being made: no claim stands, no process stays, nothing is mounted.

use std::time::Duration;

use mmpguard::clock;
use mmpguard::protocol::sequence::SEQ_CLEAN;
use nix::sys::signal::Signal;

use crate::Case;
use crate::guard_support::{guards, is_mounted, mount, nothing_is_left, nothing_is_left_and_clean, records};
use crate::harness::lun::Lun;
use crate::harness::process::Process;
use crate::harness::started::{Started, patiently};
use crate::harness::{at_most, millis, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("guard_ended_at_any_moment_of_a_mount_leaves_nothing", at_any_moment),
    ("guard_ended_by_a_death_at_any_moment_of_the_mount_itself", by_a_death),
    ("guard_ended_in_the_kernels_second_wait_by_a_signal", || {
        ended(Who::Front(Signal::SIGTERM), 17, "kernel")
    }),
    ("guard_ended_in_the_kernels_second_wait_by_the_fronts_death", || {
        ended(Who::Front(Signal::SIGKILL), 17, "kernel");
    }),
    ("guard_ended_in_the_kernels_second_wait_by_the_keepers_death", || ended(Who::Keeper, 17, "kernel")),
    ("guard_ended_in_the_kernels_second_wait_by_the_drivers_death", || ended(Who::Driver, 17, "kernel")),
    ("guard_ended_in_the_kernels_first_wait_by_a_signal", || ended(Who::Front(Signal::SIGINT), 5, "kernel")),
    ("guard_ended_in_the_kernels_first_wait_by_the_fronts_death", || {
        ended(Who::Front(Signal::SIGKILL), 5, "kernel");
    }),
    ("guard_ended_in_the_kernels_first_wait_by_the_keepers_death", || ended(Who::Keeper, 5, "kernel")),
    ("guard_ended_in_the_kernels_first_wait_by_the_drivers_death", || ended(Who::Driver, 5, "kernel")),
    ("guard_ended_in_our_own_claim_by_a_signal", || ended(Who::Front(Signal::SIGINT), 7, "clean")),
    ("guard_ended_in_our_own_claim_by_the_fronts_death", || ended(Who::Front(Signal::SIGKILL), 7, "clean")),
    ("guard_ended_in_our_own_claim_by_the_drivers_death", || ended(Who::Driver, 7, "clean")),
    ("guard_ended_the_keeper_may_die_in_our_own_claim", keeper_dies_in_our_claim),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Front(Signal),
    Keeper,
    Driver,
}

fn the(lun: &Lun, comm: &str) -> Process {
    let found = patiently(seconds(5), || guards(lun).into_iter().find(|process| process.comm == comm));
    found.unwrap_or_else(|| panic!("there is no {comm}: {:?}", guards(lun)))
}

fn end(lun: &Lun, mounting: &Started, who: Who) {
    match who {
        Who::Front(signal) => mounting.process().signal(signal),
        Who::Keeper => the(lun, "mmp-keeper").signal(Signal::SIGKILL),
        Who::Driver => the(lun, "mmp-driver").signal(Signal::SIGKILL),
    }
}

fn ended(who: Who, after_s: u64, handover: &str) {
    let lun = Lun::new();
    let (mut mounting, to) = mount(&lun, &lun.a, &["--handover", handover]);
    clock::sleep_until(mounting.at + seconds(after_s));
    assert!(!mounting.has_ended(), "{:?}", mounting.end(seconds(1)));
    let at = clock::mono();
    end(&lun, &mounting, who);
    let ended = mounting.end(seconds(30));
    let code = match who {
        Who::Front(Signal::SIGKILL) => 137,
        Who::Front(_) => 6,
        Who::Keeper | Who::Driver => 4,
    };
    ended.expect(code);
    let case = format!("C, {who:?} after {after_s} s, {handover}");
    observed(&case, ended.err.lines().last().unwrap_or_default());
    // What the kernel has claimed is watched for a wait before it is taken back.
    let watched = if after_s > 11 { 13.0 } else { 0.0 };
    at_most(&case, "the end of the front", ended.at.since(at), 3.0 + watched);
    assert!(!is_mounted(&to));
    let gone = patiently(seconds(20), || guards(&lun).is_empty().then_some(()));
    assert!(gone.is_some(), "{:?}", guards(&lun));
    nothing_is_left(&lun);
    at_most(&case, "until nothing is left", clock::mono().since(at), 4.0 + watched);
    if who == Who::Driver {
        // Only the driver could take the claim back.
        return assert_ne!(lun.raw().read().seq, SEQ_CLEAN);
    }
    nothing_is_left_and_clean(&lun);
    let next = { lun.mount(&lun.b) }.0.end(seconds(60));
    at_most(&case, "another host's mount after that", next.expect(0).took, 1.0);
}

/// No mount is asked of the keeper yet: another one takes its place, and the mount is made.
fn keeper_dies_in_our_claim() {
    let lun = Lun::new();
    let (mut mounting, to) = mount(&lun, &lun.a, &["--handover", "clean"]);
    clock::sleep_until(mounting.at + seconds(6));
    end(&lun, &mounting, Who::Keeper);
    let mounted = mounting.end(seconds(60));
    mounted.expect(0);
    assert!(is_mounted(&to));
    at_most("C", "a mount whose keeper died in the claim", mounted.took, 13.0);
    crate::guard_support::unmount_plainly(&lun, &to);
}

/// Signals and deaths at moments that nobody chose, the first and the last ones among them. Whatever wins, either it is
/// mounted and guarded, or nothing is left.
fn at_any_moment() {
    let moments_ms =
        [5, 60, 150, 400, 10_900, 11_000, 11_050, 11_100, 11_200, 21_900, 22_000, 22_100, 22_300];
    let started: Vec<_> = moments_ms
        .iter()
        .map(|&after_ms| {
            let lun = Lun::new();
            let handover = if after_ms > 15_000 { "kernel" } else { "clean" };
            let (mounting, to) = mount(&lun, &lun.a, &["--handover", handover]);
            (lun, mounting, to, millis(after_ms))
        })
        .collect();
    for (at, (lun, mut mounting, to, after)) in started.into_iter().enumerate() {
        let signal = if at % 2 == 0 { Signal::SIGTERM } else { Signal::SIGKILL };
        clock::sleep_until(mounting.at + after);
        if !mounting.has_ended() {
            mounting.process().signal(signal);
        }
        let code = mounting.end(seconds(30)).code;
        let settled = patiently(seconds(15), || settled(&lun, is_mounted(&to)));
        let mounted = is_mounted(&to);
        observed("C", &format!("{signal} after {after:?}: exit {code}, mounted: {mounted}"));
        let state = format!("{:?} {:?}, mounted: {mounted}", guards(&lun), records(&lun));
        assert!(settled.is_some(), "neither guarded nor gone: {state}");
        assert!(code != 0 || mounted, "said to be mounted: {state}");
        if mounted {
            crate::guard_support::unmount_plainly(&lun, &to);
        } else {
            nothing_is_left(&lun);
        }
    }
}

/// The same for driver and keeper, around the moment in which mount(8) runs. Whatever is mounted is guarded.
fn by_a_death() {
    let tries = [11_010, 11_030, 11_050, 11_070, 11_090, 11_110, 11_140].into_iter().flat_map(|after_ms| {
        [Who::Driver, Who::Keeper].into_iter().flat_map(move |who| {
            [("-r", ""), ("--handover", "clean")].map(|options| (who, options, after_ms))
        })
    });
    let started: Vec<_> = tries
        .map(|(who, (option, value), after_ms)| {
            let lun = Lun::new();
            let options: Vec<&str> = [option, value].into_iter().filter(|text| !text.is_empty()).collect();
            let (mounting, to) = mount(&lun, &lun.a, &options);
            (lun, mounting, to, who, option, millis(after_ms))
        })
        .collect();
    let mut ended = Vec::new();
    for (lun, mounting, to, who, option, after) in started {
        clock::sleep_until(mounting.at + after);
        let name = if who == Who::Driver { "mmp-driver" } else { "mmp-keeper" };
        if let Some(process) = guards(&lun).into_iter().find(|process| process.comm == name) {
            process.signal(Signal::SIGKILL);
        }
        ended.push((lun, mounting, to, who, option, clock::mono()));
    }
    for (lun, mut mounting, to, who, option, at) in ended {
        let after = at.since(mounting.at);
        let code = mounting.end(seconds(40)).code;
        let state = patiently(seconds(20), || settled(&lun, is_mounted(&to)));
        let mounted = is_mounted(&to);
        observed(
            "C",
            &format!("{who:?} killed {after:?} into a mount {option}: exit {code}, mounted: {mounted}"),
        );
        let told = format!("{:?} {:?}, mounted: {mounted}: {}", guards(&lun), records(&lun), mounting.err());
        assert!(state.is_some(), "neither guarded nor gone: {told}");
        assert_eq!(code == 0, mounted, "{told}");
        if mounted {
            crate::guard_support::unmount_plainly(&lun, &to);
        } else {
            nothing_is_left(&lun);
        }
    }
}

fn settled(lun: &Lun, mounted: bool) -> Option<()> {
    clock::sleep(Duration::from_millis(200));
    let guarded = guards(lun).len() == 2 && !records(lun).is_empty();
    (if mounted { guarded } else { guards(lun).is_empty() }).then_some(())
}
