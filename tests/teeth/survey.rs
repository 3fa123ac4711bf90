//! Where each breakage shows itself: for whoever looks for a profile in which a new one is found.

use std::collections::BTreeMap;

use super::simulator::breakage::Breakage;
use super::simulator::edits::Edits;
use super::simulator::plan::Profile;
use super::simulator::run::{run, run_range, shown};

/// `MMPGUARD_SURVEY=Breakage,Breakage MMPGUARD_SEEDS=2000 cargo test --test teeth survey -- --ignored --nocapture` prints
/// each symptom of each profile, how often it came, and where first; with `MMPGUARD_SEED`, the timeline of that seed.
#[test]
#[ignore = "prints, and takes long"]
fn survey() {
    let names = std::env::var("MMPGUARD_SURVEY").unwrap_or_default();
    let seeds = std::env::var("MMPGUARD_SEEDS").map_or(500, |seeds| seeds.parse().expect("a number"));
    let most = std::env::var("MMPGUARD_MOST").map_or(usize::MAX, |most| most.parse().expect("a number"));
    let wanted = std::env::var("MMPGUARD_PROFILES").unwrap_or_default();
    let listed = |list: &str, name: String| list.is_empty() || list.split(',').any(|one| one == name);
    let all = std::iter::once(Breakage::None).chain(Breakage::MACHINES);
    for breakage in all.filter(|one| listed(&names, format!("{one:?}"))) {
        for profile in Profile::ALL.into_iter().filter(|one| listed(&wanted, format!("{one:?}"))) {
            if let Ok(seed) = std::env::var("MMPGUARD_SEED") {
                let seed = seed.parse().expect("MMPGUARD_SEED is a number");
                if let Err(failure) = run(profile, seed, breakage) {
                    println!("{}", shown(profile, seed, &Edits::default(), &failure));
                }
                continue;
            }
            let report = run_range(profile, 0..seeds, breakage, "", most);
            if breakage == Breakage::None {
                println!("{}", report.figures());
            }
            let mut symptoms: BTreeMap<String, (usize, u64)> = BTreeMap::new();
            for (seed, failure) in &report.failures {
                let what: String = failure.what.chars().filter(|c| !c.is_ascii_digit()).take(70).collect();
                symptoms.entry(what).or_insert((0, *seed)).0 += 1;
            }
            for (what, (count, first)) in symptoms {
                println!("{breakage:?} {profile:?}: {count} of {seeds}, first {first}: {what}");
            }
        }
    }
}
