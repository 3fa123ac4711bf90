//! What the root tests stand on.

pub(crate) mod areas;
pub(crate) mod block;
pub(crate) mod cleanup;
pub(crate) mod daemon;
pub(crate) mod guarded;
pub(crate) mod kernel;
pub(crate) mod lun;
pub(crate) mod process;
pub(crate) mod started;
pub(crate) mod throttle;

use std::time::Duration;

/// Prints a measured time beside its limit, and fails only if it is far beyond it: how fast something is depends on
/// the machine and on what else it does.
pub(crate) fn at_most(case: &str, what: &str, took: Duration, limit_s: f64) {
    at_most_strictly(case, what, took, limit_s, limit_s * 2.0 + 3.0);
}

/// As [`at_most`], but fails beyond `fails_beyond_s`: for what protection rests on.
pub(crate) fn at_most_strictly(case: &str, what: &str, took: Duration, limit_s: f64, fails_beyond_s: f64) {
    let took_s = took.as_secs_f64();
    let met = if took_s <= limit_s { "met" } else { "NOT MET" };
    println!("figure: case {case}: {what} took {took_s:.2} s (limit {limit_s} s, {met})");
    assert!(took_s <= fails_beyond_s, "case {case}: {what} took {took_s:.2} s, limit {limit_s} s");
}

/// Prints a measured time that must not be below `least_s`: that is safety, and strict.
pub(crate) fn at_least(case: &str, what: &str, took: Duration, least_s: f64) {
    let took_s = took.as_secs_f64();
    println!("figure: case {case}: {what} took {took_s:.2} s (never sooner than {least_s} s)");
    assert!(took_s >= least_s, "case {case}: {what} took only {took_s:.2} s, at least {least_s} s wanted");
}

/// Prints anything else that was observed.
pub(crate) fn observed(case: &str, what: &str) {
    println!("figure: case {case}: {what}");
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
