//! K1: a clean filesystem, mounted by two hosts at one instant, with writes that take no longer, 5 or 20 ms longer, on one
//! host or on both. The kernel does not wait on a clean block, and lets both in.

use crate::book::{Book, Guarded};
use crate::harness::{Disk, Lab, Outcome};
use crate::scenarios::race::{self, CLOSE, Tally, Track};
use crate::scenarios::side::{Mapping, Side};
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "clean_race_kernel",
        set: Set::Long,
        run: |book| long(book, Guarded::Kernel, "-t ext4", 1),
    },
    Scenario { name: "clean_race_mmp_long", set: Set::Long, run: |book| long(book, Guarded::Mmp, "", 2) },
    Scenario {
        name: "clean_race_mmp_handed_over_clean",
        set: Set::Long,
        run: |book| long(book, Guarded::Mmp, "--handover clean", 2),
    },
    Scenario { name: "clean_race_mmp_short", set: Set::Short, run: short },
];

/// Rounds of each configuration in the long set.
const ROUNDS: usize = 40;
/// How much longer writes take on either host, in milliseconds.
const CONFIGURATIONS: [[u32; 2]; 5] = [[0, 0], [5, 0], [5, 5], [20, 0], [20, 20]];

/// Races in each configuration, on so many disks each.
fn long(book: &Book, guarded: Guarded, arguments: &str, disks_each: usize) -> Outcome<()> {
    let configurations: Vec<_> = CONFIGURATIONS.iter().flat_map(|delays| vec![*delays; disks_each]).collect();
    let promises: Vec<_> = CONFIGURATIONS
        .iter()
        .map(|delays| book.promise(&title(*delays, arguments), guarded, &promised(guarded)))
        .collect();
    let tallies = race_all(guarded, arguments, &configurations, ROUNDS / disks_each)?;
    let sums: Vec<_> = tallies.chunks(disks_each).map(Tally::sum).collect();
    let mut outcomes = Vec::new();
    for (promise, tally) in promises.into_iter().zip(&sums) {
        if guarded == Guarded::Kernel {
            promise.measured(&tally.words());
        } else {
            outcomes.push(promise.judge(is_kept(tally), &tally.words()));
        }
    }
    // What the rest is compared with must be there: the kernel fails on slow storage.
    if guarded == Guarded::Kernel && sums.iter().all(|tally| tally.both == 0) {
        return Err("no two kernels got in at once: K1 was not shown".to_owned());
    }
    if guarded == Guarded::Kernel && !sums.iter().all(Tally::is_close) {
        return Err(format!("no races: not {CLOSE}"));
    }
    outcomes.into_iter().collect()
}

/// A round on each of some disks, with slow writes on both hosts.
fn short(book: &Book) -> Outcome<()> {
    const DELAYS: [u32; 2] = [20, 20];
    let promise = book.promise(&title(DELAYS, "few rounds"), Guarded::Mmp, &promised(Guarded::Mmp));
    let tallies = race_all(Guarded::Mmp, "", &[DELAYS; 4], 1)?;
    let tally = Tally::sum(&tallies);
    promise.judge(is_kept(&tally), &tally.words())
}

fn promised(guarded: Guarded) -> String {
    if guarded == Guarded::Kernel {
        format!("nothing: the kernel does not wait on a clean block (but: {CLOSE})")
    } else {
        format!(
            "never both, refused hosts write nothing, the block clean after the last unmount; one in at least 9 of 10 rounds (two kernels \
             that claim at one tick may both be refused); {CLOSE}"
        )
    }
}

fn is_kept(tally: &Tally) -> bool {
    tally.is_safe() && tally.is_close() && tally.one * 10 >= tally.rounds * 9
}

fn title([a, b]: [u32; 2], more: &str) -> String {
    let delays = format!("K1 clean race, writes {a} and {b} ms late");
    if more.is_empty() || more.starts_with("-t") {
        delays
    } else {
        format!("{delays}, {}", more.trim_start_matches("--"))
    }
}

/// Races with these delays, on a disk for each: a tally for each.
fn race_all(guarded: Guarded, arguments: &str, delays: &[[u32; 2]], rounds: usize) -> Outcome<Vec<Tally>> {
    let lab = Lab::new()?;
    let disks: Outcome<Vec<Disk>> =
        (0..delays.len()).map(|number| lab.disk(&format!("shared{number}"), 64)).collect();
    let disks = disks?;
    let [a, b] = race::hosts(&lab, &disks)?;
    let side = |vm, disk, pause_ms| {
        let mapping = if pause_ms == 0 { Mapping::None } else { Mapping::SlowWrites(pause_ms) };
        Side::new(vm, disk, guarded).arguments(arguments).mapped(mapping)
    };
    let mut tracks = Vec::new();
    for (disk, [late_a, late_b]) in disks.iter().zip(delays) {
        tracks.push(Track { a: side(&a, disk, *late_a)?, b: side(&b, disk, *late_b)? });
    }
    race::run(&lab, &tracks, rounds)
}
