//! Makes a history that fails short: hosts, kinds of trouble and single faults are taken away, and the rest of the random
//! draws are varied, for as long as the same check still fails and the history becomes smaller.

use super::breakage::Breakage;
use super::edits::{Edits, TROUBLES};
use super::outcome::Failure;
use super::plan::{Plan, Profile};
use super::run::run_edited;

/// So many histories are tried at most.
const MOST_TRIES: u32 = 6000;
/// Taking something away shifts all later draws: so many other draws are given a chance.
const SALTS: u64 = 12;

/// A failure, made short.
#[derive(Debug)]
pub(crate) struct Shrunk {
    pub(crate) edits: Edits,
    pub(crate) failure: Failure,
}

/// Of a failure that `run` has found for this seed.
pub(crate) fn shrink(profile: Profile, seed: u64, breakage: Breakage, failure: Failure) -> Shrunk {
    let mut search = Search {
        profile,
        seed,
        breakage,
        symptom: symptom(&failure.what),
        tries: 0,
        best: Shrunk { edits: Edits::default(), failure },
    };
    while search.take_one_away() || search.take_faults_away() || search.draw_anew() {}
    search.best
}

struct Search {
    profile: Profile,
    seed: u64,
    breakage: Breakage,
    symptom: String,
    tries: u32,
    best: Shrunk,
}

impl Search {
    /// Hosts, kinds of trouble, and the time in which faults strike. True if something could be taken away.
    fn take_one_away(&mut self) -> bool {
        let mut plan = Plan::new(self.profile, &mut fastrand::Rng::with_seed(self.seed));
        let edits = self.best.edits.clone();
        edits.apply(&mut plan);
        let mut candidates = Vec::new();
        for host in (0..plan.hosts.len()).filter(|host| !edits.hosts.contains(host)) {
            let mut fewer = edits.clone();
            fewer.hosts.insert(host);
            candidates.push(fewer);
        }
        for (name, rate) in TROUBLES {
            if *rate(&mut plan) > 0.0 {
                let mut fewer = edits.clone();
                fewer.troubles.insert(name);
                candidates.push(fewer);
            }
        }
        let now_s = self.best.failure.stats.simulated_ns / super::plan::SECOND;
        let calm_s = edits.calm_s.unwrap_or(u64::MAX).min(now_s);
        candidates.extend([calm_s / 2, calm_s * 3 / 4].map(|calm_s| {
            let calm_s = Some(calm_s);
            Edits { calm_s, ..edits.clone() }
        }));
        let mut progress = false;
        for candidate in candidates {
            // One that was made smaller meanwhile is not what this candidate was made from.
            if self.best.edits != edits {
                return true;
            }
            progress |= self.try_salts(&candidate, candidate.salt, SALTS);
        }
        progress
    }

    /// Single faults, half of those that struck at first, then ever fewer at once.
    fn take_faults_away(&mut self) -> bool {
        let struck = self.best.failure.stats.faults;
        let left: Vec<u64> = (1..=struck).filter(|number| !self.best.edits.faults.contains(number)).collect();
        let mut chunk = left.len().div_ceil(2);
        while chunk > 0 {
            for some in left.chunks(chunk) {
                let mut fewer = self.best.edits.clone();
                fewer.faults.extend(some);
                if self.try_one(fewer) {
                    return true;
                }
            }
            chunk /= 2;
        }
        false
    }

    /// The same plan with other draws.
    fn draw_anew(&mut self) -> bool {
        let edits = self.best.edits.clone();
        self.try_salts(&edits, edits.salt + 1, 4 * SALTS)
    }

    fn try_salts(&mut self, edits: &Edits, first: u64, count: u64) -> bool {
        (first..first + count).any(|salt| self.try_one(Edits { salt, ..edits.clone() }))
    }

    /// Keeps it if it fails alike and is smaller.
    fn try_one(&mut self, edits: Edits) -> bool {
        self.tries += 1;
        if self.tries > MOST_TRIES {
            return false;
        }
        let Err(failure) = run_edited(self.profile, self.seed, self.breakage, &edits) else { return false };
        let better = symptom(&failure.what) == self.symptom && size(&failure) < size(&self.best.failure);
        if better {
            self.best = Shrunk { edits, failure };
        }
        better
    }
}

fn size(failure: &Failure) -> usize {
    failure.timeline.len()
}

/// What failed, without what differs from history to history.
fn symptom(what: &str) -> String {
    what.split(':').next().unwrap_or(what).chars().filter(|letter| !letter.is_ascii_digit()).collect()
}
