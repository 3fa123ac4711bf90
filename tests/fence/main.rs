//! Ladders climbed for real, on loop devices: what runs in helpers is forked from this process, which has a single thread.
//! Needs root; skips loudly without, unless `MMPGUARD_REQUIRE_ROOT=1` turns that into a failure.
//!
//! No ladder here has the rung that ends a host, nor is `auto`, which has it.

#[path = "../sys_root/host.rs"]
#[allow(dead_code, unused_macros, unused_imports)]
mod host;

mod command;
mod filesystem;
mod stage;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1); // runs the cases in this thread: a process with more cannot fork
    let mut cases: Vec<(&str, fn())> = filesystem::CASES.to_vec();
    cases.extend_from_slice(command::CASES);
    let trials = cases.into_iter().map(|(name, case)| {
        Trial::test(name, move || {
            case();
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}
