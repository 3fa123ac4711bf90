//! The simulator (opening comment follows).

mod disk;
mod host;
mod kernel;
mod plan;
mod run;
mod world;

use plan::Profile;
use run::{run, run_range, shown};
use world::Breakage;

/// `MMPGUARD_SEED=n` replays one seed, `MMPGUARD_SEEDS=a..b` runs a range, of the family `MMPGUARD_PROFILE`.
#[test]
fn replay() {
    let profile = match std::env::var("MMPGUARD_PROFILE").as_deref() {
        Err(_) | Ok("Faults") => Profile::Faults,
        Ok("Calm") => Profile::Calm,
        Ok("ShortStalls") => Profile::ShortStalls,
        Ok("Kernels") => Profile::Kernels,
        Ok(other) => panic!("MMPGUARD_PROFILE={other}: Faults, Calm, ShortStalls or Kernels"),
    };
    if let Ok(seed) = std::env::var("MMPGUARD_SEED") {
        let seed = seed.parse().expect("MMPGUARD_SEED is a number");
        match run(profile, seed, Breakage::default()) {
            Ok(stats) => println!("seed {seed}: {stats:?}"),
            Err(failure) => panic!("{}", shown(profile, seed, &failure)),
        }
    }
    if let Ok(range) = std::env::var("MMPGUARD_SEEDS") {
        let (from, to) = range.split_once("..").expect("MMPGUARD_SEEDS is a range, as 0..1000");
        let range = from.parse().expect("a number")..to.parse().expect("a number");
        let report = run_range(profile, range, Breakage::default(), u64::MAX, 20);
        println!("{}", report.figures());
        for (seed, failure) in &report.failures {
            println!("seed {seed}: {}", failure.what);
        }
        report.expect_none();
    }
}
