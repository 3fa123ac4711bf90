//! Preparing and climbing, with a guard before it.

use std::time::Duration;

use mmpguard::clock;
use mmpguard::sys::Target;
use mmpguard::sys::fence::{
    ClimbReport, FenceTarget, LadderSpec, Outcome, Prepared, RungReport, RungSpec, prepare,
};

/// Time enough for everything that does not hang.
pub(crate) const LIMIT: Duration = Duration::from_secs(8);

/// Prepares a ladder of named rungs; one that could end this host is refused before it exists.
pub(crate) fn prepared(target: Target, filesystem: &str, ladder: &str) -> Prepared {
    let spec: LadderSpec = ladder.parse().unwrap();
    let LadderSpec::Rungs(rungs) = &spec else { panic!("auto ends in a reboot: no test may climb it") };
    assert!(!rungs.contains(&RungSpec::Reboot), "no test may reboot this host");
    prepare(&spec, &FenceTarget { target, filesystem: filesystem.to_owned(), spare: Vec::new() })
}

/// Climbs it within `limit`. What was told on the way must be what the report has.
pub(crate) fn climbed(prepared: &mut Prepared, limit: Duration) -> ClimbReport {
    let mut told: Vec<RungReport> = Vec::new();
    let begin = clock::mono();
    let report = prepared.climb(begin + limit, &mut |rung| told.push(rung.clone()));
    let took = clock::mono().since(begin);
    assert!(took < limit + Duration::from_millis(500), "{took:?}: {report:?}");
    assert_eq!(report.rungs, told);
    report
}

pub(crate) fn outcomes(report: &ClimbReport) -> Vec<Outcome> {
    report.rungs.iter().map(|rung| rung.outcome).collect()
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
