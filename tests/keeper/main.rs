//! The keeper, for real: processes forked from this one, which has a single thread. No root needed; with root more
//! of its protection is in force (real-time scheduling, cgroup), so both are worth running.

mod command;
mod fencing;
mod stage;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1); // runs the cases in this thread: a process with more cannot fork
    let mut cases: Vec<(&str, fn())> = fencing::CASES.to_vec();
    cases.extend_from_slice(command::CASES);
    let trials = cases.into_iter().map(|(name, case)| {
        Trial::test(name, move || {
            case();
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}
