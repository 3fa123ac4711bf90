//! Two and three machines with kernels of their own on one disk: what no mock and no loop device can show, and the kernel's
//! own failures beside it.
//!
//! `tests/lab/setup` first fetches what they boot. `cargo test --test lab` runs the short set; `MMPGUARD_LAB=long cargo test --test lab`
//! all of it; `MMPGUARD_LAB=soak MMPGUARD_LAB_MINUTES=60 cargo test --test lab soak` the soak for so long. Each scenario says what is promised before it begins, and
//! fails on anything else; the table at the end is what was measured (`docs/evidence.md` has one).

mod agent;
mod book;
mod harness;
mod scenarios;

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use libtest_mimic::{Arguments, Conclusion, Trial};

use crate::book::Book;
use crate::harness::{Outcome, lab};

/// Scenarios that run at once, unless said otherwise: their machines sleep most of the time.
const AT_ONCE: usize = 4;

/// No scenario takes longer, the soak apart.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// One scenario.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) set: Set,
    pub(crate) run: fn(&Book) -> Outcome<()>,
}

/// When a scenario runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Set {
    /// Always: all of them together take some minutes.
    Short,
    /// When asked for.
    Long,
    /// For as long as is asked for.
    Soak,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == agent::NAME) {
        return agent::main(&words[1..]);
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(AT_ONCE));
    let missing = lab::missing();
    let required = std::env::var_os("MMPGUARD_REQUIRE_LAB").is_some();
    let book = Book::open();
    let trials =
        scenarios::all().into_iter().map(|scenario| trial(scenario, &book, missing.as_deref(), required));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if arguments.list {
        return ExitCode::SUCCESS;
    }
    if missing.is_none() {
        lab::forget_initramfs();
    }
    match &missing {
        Some(missing) => println!("LAB NOT RUN: {missing}; {} scenarios ignored", conclusion.num_ignored),
        None => book.close(),
    }
    println!("lab scenarios run: {}", ran(&conclusion, missing.is_some()));
    conclusion.exit_code()
}

fn trial(scenario: Scenario, book: &Book, missing: Option<&str>, required: bool) -> Trial {
    let Scenario { name, set, run } = scenario;
    match missing {
        Some(missing) if required => {
            let missing = missing.to_owned();
            Trial::test(name, move || Err(format!("must run: {missing}").into()))
        }
        Some(_) => Trial::test(name, || Ok(())).with_ignored_flag(true),
        None => {
            let book = book.clone();
            let trial = Trial::test(name, move || limited(run, book).map_err(Into::into));
            trial.with_ignored_flag(set > chosen())
        }
    }
}

/// Runs a scenario, not for ever: what hangs in its machines would hang the run. They end with this process.
fn limited(run: fn(&Book) -> Outcome<()>, book: Book) -> Outcome<()> {
    let (done, end) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let outcome = run(&book);
        let _ = done.send(());
        outcome
    });
    // The soak takes as long as was asked for.
    let asked = std::env::var("MMPGUARD_LAB_MINUTES").ok().and_then(|minutes| minutes.parse::<u64>().ok());
    let limit = LIMIT + Duration::from_secs(60 * asked.unwrap_or(0));
    if let Err(mpsc::RecvTimeoutError::Timeout) = end.recv_timeout(limit) {
        return Err(format!("not over after {limit:?}"));
    }
    thread.join().unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        Err(words.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    })
}

/// The sets that `MMPGUARD_LAB` asks for: it and those before it.
fn chosen() -> Set {
    match std::env::var("MMPGUARD_LAB").as_deref() {
        Ok("long") => Set::Long,
        Ok("soak") => Set::Soak,
        Ok("short") | Err(_) => Set::Short,
        Ok(other) => panic!("MMPGUARD_LAB is short, long or soak, not {other:?}"),
    }
}

fn ran(conclusion: &Conclusion, skipped: bool) -> u64 {
    if skipped { 0 } else { conclusion.num_passed + conclusion.num_failed }
}
