//! What follows from the interval U of an area, for administrators and cluster managers.

use std::time::Duration;

use serde::Serialize;

use super::{CheckInterval, START_RESERVE_S, refusal};

/// Every length of time that an area's interval decides, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AreaConsequences {
    /// U itself.
    pub interval_s: f64,
    /// C = 5 U.
    pub check_interval_s: f64,
    /// How long a claimer waits, and a holder may rely on a beat: 2 C + U.
    pub wait_s: f64,
    /// Within this a live holder is found.
    pub refusal_s: f64,
    /// A claim on a clean slot: one wait.
    pub clean_claim_s: f64,
    /// A takeover after a crash, from the ask: two waits.
    pub crash_claim_s: f64,
    /// A claim over a damaged slot block: three waits.
    pub damaged_claim_s: f64,
    /// A storage outage that a holder survives, counted from his last beat.
    pub outage_survived_s: f64,
    /// What a cluster manager should set as its start timeout.
    pub start_timeout_s: u64,
}

impl AreaConsequences {
    /// Of this U, in milliseconds.
    #[must_use]
    pub fn of(interval_ms: u32) -> Self {
        let check = CheckInterval::Area(interval_ms);
        let wait = check.wait();
        let interval = Duration::from_millis(interval_ms.into());
        AreaConsequences {
            interval_s: interval.as_secs_f64(),
            check_interval_s: check.span().as_secs_f64(),
            wait_s: wait.as_secs_f64(),
            refusal_s: refusal(interval).as_secs_f64(),
            clean_claim_s: wait.as_secs_f64(),
            crash_claim_s: (check.live_watch(wait) + wait).as_secs_f64(),
            damaged_claim_s: (wait * 3).as_secs_f64(),
            outage_survived_s: check.lease().as_secs_f64(),
            start_timeout_s: (wait * 3).as_secs() + 1 + START_RESERVE_S,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_the_design_hold() {
        let second = AreaConsequences::of(1000);
        assert!((second.refusal_s - 1.4).abs() < 1e-9 && (second.crash_claim_s - 22.0).abs() < 1e-9);
        assert!((second.outage_survived_s - 11.0).abs() < 1e-9);
        assert_eq!(second.start_timeout_s, 44);
        let tenth = AreaConsequences::of(100);
        assert!((tenth.refusal_s - 0.41).abs() < 1e-9 && (tenth.crash_claim_s - 2.2).abs() < 1e-9);
        assert!((tenth.outage_survived_s - 1.1).abs() < 1e-9 && (tenth.damaged_claim_s - 3.3).abs() < 1e-9);
    }
}
