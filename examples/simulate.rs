//! Runs the simulator over any range of seeds, on all cores, and tells what came of it: seeds per second, simulated hours,
//! what happened how often, and what was counted apart because it cannot be promised. A failure is made short and printed
//! with the words that replay it. `tests/simulator` says what is simulated and what is checked.
//!
//! ```text
//! cargo run --release --example simulate -- Faults 0..100000
//! cargo run --release --example simulate -- all 0..10000
//! cargo run --release --example simulate -- Faults --seed 17 [--edits=-host2,calm=80]
//! ```

#[path = "../tests/simulator/mod.rs"]
mod simulator;

use std::ops::Range;
use std::process::ExitCode;

use clap::Parser;
use mmpguard::protocol;
use simulator::breakage::Breakage;
use simulator::edits::Edits;
use simulator::plan::Profile;
use simulator::run::{run_range, shown_short, tell};

/// Simulate hosts on one disk, in virtual time; every seed is a history.
#[derive(Parser)]
struct Arguments {
    /// A family of seeds, or `all` that must show nothing.
    #[arg(value_parser = profiles)]
    profile: Profiles,
    /// The seeds, as `0..1000`.
    #[arg(value_parser = range, default_value = "0..1000")]
    seeds: Range<u64>,
    /// Replay this one with its timeline.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// With --seed: what is taken away from the history, as a failure made short is printed with.
    #[arg(long, requires = "seed", default_value = "")]
    edits: Edits,
}

#[derive(Clone)]
struct Profiles(Vec<Profile>);

fn main() -> ExitCode {
    let Arguments { profile: Profiles(profiles), seeds, seed, edits } = Arguments::parse();
    let mut found = false;
    for profile in profiles {
        found |= match seed {
            Some(seed) => replay(profile, seed, &edits),
            None => search(profile, seeds.clone()),
        };
    }
    ExitCode::from(u8::from(found))
}

/// True if something was found.
fn search(profile: Profile, seeds: Range<u64>) -> bool {
    let mut report = run_range(profile, seeds, Breakage::None, "", 1);
    println!("{}", report.figures());
    let Some((seed, failure)) = report.failures.pop() else { return false };
    println!("{}", shown_short(profile, seed, Breakage::None, failure));
    true
}

/// True if it fails.
fn replay(profile: Profile, seed: u64, edits: &Edits) -> bool {
    let (shown, found) = tell(profile, seed, edits);
    println!("{shown}");
    found
}

fn profiles(text: &str) -> Result<Profiles, String> {
    if text == "all" {
        return Ok(Profiles(Profile::ALL.into_iter().filter(|profile| profile.must_hold()).collect()));
    }
    let named = Profile::ALL.into_iter().find(|profile| format!("{profile:?}") == text);
    named.map(|profile| Profiles(vec![profile])).ok_or_else(|| format!("there are all, {:?}", Profile::ALL))
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("a range looks like 0..1000")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    let range = number(from)?..number(to)?;
    if range.is_empty() { Err(format!("{text} has no seed in it")) } else { Ok(range) }
}
