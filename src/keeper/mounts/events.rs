//! What a keeper tells when it has fenced: that protection was lost, and what came of the fence.
//!
//! Protects: it comes last, when the device is cut off and the one who asked knows. Does not come at all where the fence is a reboot.

use std::path::Path;

use super::Task;
use crate::clock::Mono;
use crate::events::{Direct, EventKind, EventRecord, Severity, Subject, Told, tell_now};
use crate::registry::Lost;
use crate::sys::fence::ClimbReport;
use crate::sys::realtime::Protection;

/// Tells it. Everything before that has been done.
pub(super) fn tell_events(
    task: &Task,
    protection: &Protection,
    found: Mono,
    reason: &str,
    report: Option<&ClimbReport>,
) {
    let directory: &Path = &task.registry;
    let subject = subject(task);
    let lost = Told::new(EventKind::Lost, Severity::Critical, reason);
    let mut records = vec![EventRecord::at(&subject, &lost, found)];
    records.extend(report.map(|report| EventRecord::now(&subject, &fenced(reason, report))));
    tell_now(&Direct { directory, settings: &task.events, protection }, &records);
}

fn fenced(reason: &str, report: &ClimbReport) -> Told {
    let severity = if report.done { Severity::Warning } else { Severity::Critical };
    let lost = Lost { reason: reason.to_owned(), at_s: 0, fence: Some(report.clone()) };
    Told::new(EventKind::Fenced, severity, lost.outcome())
}

/// With the names that the guard had written into its record.
fn subject(task: &Task) -> Subject {
    let subject = Subject::new(&task.device, Some(&task.dir));
    match task.slot().read() {
        Ok(Some(record)) => Subject {
            node: record.node,
            block_device: record.block_device,
            generation: record.generation,
            ..subject
        },
        _ => subject,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_that_was_none_is_critical() {
        let report = |done, incomplete| ClimbReport {
            cut: done,
            done,
            incomplete,
            by: done.then(|| "dm".to_owned()),
            rungs: Vec::new(),
            in_flight: None,
            took_ms: 1,
        };
        let told = fenced("x", &report(true, false));
        assert_eq!((told.severity, told.text.as_str()), (Severity::Warning, "it was cut off by \"dm\""));
        let told = fenced("x", &report(false, false));
        assert!(told.severity == Severity::Critical && told.text.contains("COULD NOT"), "{told:?}");
        let told = fenced("x", &report(false, true));
        assert!(told.severity == Severity::Critical && told.text.contains("may still write"), "{told:?}");
    }
}
