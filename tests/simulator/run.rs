//! Runs one seed, or a range of them on all cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mmpguard::clock;

use super::breakage::Breakage;
use super::edits::Edits;
use super::outcome::{Failure, Stats, Told};
use super::plan::{Profile, SECOND};
use super::shrink::{Shrunk, shrink};
use super::world::World;

/// One seed. It is run again with the timeline on if it fails.
pub(crate) fn run(profile: Profile, seed: u64, breakage: Breakage) -> Result<Stats, Failure> {
    run_edited(profile, seed, breakage, &Edits::default())
}

/// One seed, with something taken away from its history.
pub(crate) fn run_edited(
    profile: Profile,
    seed: u64,
    breakage: Breakage,
    edits: &Edits,
) -> Result<Stats, Failure> {
    let told = World::new(profile, seed, breakage, edits, false).run();
    if told.found.is_none() {
        return Ok(told.stats);
    }
    let Told { found, stats, timeline } = World::new(profile, seed, breakage, edits, true).run();
    Err(Failure { what: found.expect("a seed is a history"), stats, timeline })
}

/// One seed with its timeline, and whether something was found.
pub(crate) fn tell(profile: Profile, seed: u64, edits: &Edits) -> (String, bool) {
    let Told { found, stats, timeline } = World::new(profile, seed, Breakage::None, edits, true).run();
    let what = found.clone().unwrap_or_else(|| format!("nothing found; {:?}", stats.named()));
    (shown(profile, seed, edits, &Failure { what, stats, timeline }), found.is_some())
}

/// Must be found, as `symptom`, within so many seeds; tells how many it took.
pub(crate) fn must_find(what: &str, profile: Profile, breakage: Breakage, symptom: &str, seeds: u64) {
    let report = run_range(profile, 0..seeds, breakage, symptom, 1);
    let Some((seed, failure)) = report.failures.first() else {
        panic!("{what}: not found in {seeds} seeds");
    };
    println!("{what}: found at seed {seed} of {profile:?}: {}", failure.what);
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
    /// The figures, in a few lines.
    pub(crate) fn figures(&self) -> String {
        let hours = self.total.simulated_ns as f64 / 1e9 / 3600.0;
        let counted = |what: &str, counts: Vec<(&str, u64)>| {
            let counts: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
            if counts.is_empty() { String::new() } else { format!("\n    {what}{}", counts.join(", ")) }
        };
        let mut own = self.total.named();
        own.retain(|(name, _)| *name != "simulated_ns");
        format!(
            "{:?}: {} seeds in {:.1} s, {:.0} seeds/s; {hours:.0} simulated hours, {:.0} hours/minute{}{}{}",
            self.profile,
            self.seeds,
            self.wall_s,
            self.seeds as f64 / self.wall_s,
            hours / self.wall_s * 60.0,
            counted("", own),
            counted("mounts: ", self.total.mounts.named()),
            counted("counted apart: ", self.total.apart.named()),
        )
    }

    /// Fails with seed and timeline, made short, if there is a failure.
    pub(crate) fn expect_none(mut self) -> Self {
        if self.failures.is_empty() {
            return self;
        }
        let (seed, failure) = self.failures.swap_remove(0);
        panic!("{}", shown_short(self.profile, seed, Breakage::None, failure));
    }
}

/// A failure with its timeline, made short.
pub(crate) fn shown_short(profile: Profile, seed: u64, breakage: Breakage, failure: Failure) -> String {
    let lines = failure.timeline.len();
    let what = failure.what.clone();
    let Shrunk { edits, failure } = shrink(profile, seed, breakage, failure);
    format!("{}\nmade short from {lines} lines, where it was: {what}", shown(profile, seed, &edits, &failure))
}

pub(crate) fn shown(profile: Profile, seed: u64, edits: &Edits, failure: &Failure) -> String {
    // The cause stands near the end; the plan stands at the beginning.
    let lines = &failure.timeline;
    let skipped = lines.len().saturating_sub(150);
    let head = lines.iter().take(10);
    let tail = lines.iter().skip(skipped.max(10));
    let timeline: Vec<&str> = head.chain(tail).map(String::as_str).collect();
    let edits = edits.to_string();
    let edits = if edits.is_empty() { edits } else { format!(" --edits={edits}") };
    format!(
        "{}\n\n{profile:?}, after {:.1} s: {}\nreplay: cargo run --release --example simulate -- {profile:?} --seed {seed}{edits}",
        timeline.join("\n"),
        failure.stats.simulated_ns as f64 / SECOND as f64,
        failure.what,
    )
}
