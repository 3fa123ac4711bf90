//! Runs one seed, or a range of them on all cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mmpguard::clock;

use super::breakage::Breakage;
use super::outcome::{Failure, Stats};
use super::plan::{Profile, SECOND};
use super::world::World;

/// One seed. It is run again with the timeline on if it fails.
pub(crate) fn run(profile: Profile, seed: u64, breakage: Breakage) -> Result<Stats, Failure> {
    World::new(profile, seed, breakage, false)
        .run()
        .or_else(|_| World::new(profile, seed, breakage, true).run())
}

/// What a range came to.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) profile: Profile,
    pub(crate) seeds: u64,
    pub(crate) wall_s: f64,
    pub(crate) total: Stats,
    /// In the order of their seeds.
    pub(crate) failures: Vec<(u64, Failure)>,
}

/// Runs `seeds` on all cores, until `most_failures` with that `symptom` are found.
pub(crate) fn run_range(
    profile: Profile,
    seeds: std::ops::Range<u64>,
    breakage: Breakage,
    symptom: &str,
    most_failures: usize,
) -> Report {
    let began = clock::mono();
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new((Stats::default(), Vec::new(), 0u64));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let (mut total, mut count) = (Stats::default(), 0);
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    count += 1;
                    match run(profile, seed, breakage) {
                        Ok(stats) => total.add(&stats),
                        Err(failure) if !failure.what.contains(symptom) => {}
                        Err(failure) => {
                            let mut found = found.lock().expect("no panic under the lock");
                            found.1.push((seed, failure));
                            if found.1.len() >= most_failures {
                                next.store(seeds.end, Relaxed);
                            }
                        }
                    }
                }
                let mut found = found.lock().expect("no panic under the lock");
                found.0.add(&total);
                found.2 += count;
            });
        }
    });
    let (total, mut failures, seeds) = found.into_inner().expect("no panic under the lock");
    failures.sort_by_key(|(seed, _)| *seed);
    let wall_s = clock::mono().since(began).as_secs_f64();
    Report { profile, seeds, wall_s, total, failures }
}

impl Report {
    /// One line of figures.
    pub(crate) fn figures(&self) -> String {
        let hours = self.total.simulated_ns as f64 / 1e9 / 3600.0;
        format!(
            "{:?}: {} seeds in {:.1} s ({:.0} seeds/s), {hours:.0} simulated hours ({:.0} hours/minute), {:?}",
            self.profile,
            self.seeds,
            self.wall_s,
            self.seeds as f64 / self.wall_s,
            hours / self.wall_s * 60.0,
            self.total
        )
    }

    /// Fails with seed and timeline, if there is a failure.
    pub(crate) fn expect_none(&self) {
        if let Some((seed, failure)) = self.failures.first() {
            panic!("{}", shown(self.profile, *seed, failure));
        }
    }
}

pub(crate) fn shown(profile: Profile, seed: u64, failure: &Failure) -> String {
    // The cause stands near the end; the plan stands at the beginning.
    let lines = &failure.timeline;
    let skipped = lines.len().saturating_sub(400);
    let head = lines.iter().take(10);
    let tail = lines.iter().skip(skipped.max(10));
    let timeline: Vec<&str> = head.chain(tail).map(String::as_str).collect();
    format!(
        "{}\n\n{profile:?}, after {:.1} s: {}\nreplay: MMPGUARD_PROFILE={profile:?} MMPGUARD_SEED={seed} cargo test --test sim replay -- --nocapture",
        timeline.join("\n"),
        failure.stats.simulated_ns as f64 / SECOND as f64,
        failure.what,
    )
}
