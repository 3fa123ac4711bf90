//! `mmp health`: one line and an exit code for monitors.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde::Serialize;

use super::monitor::Health;
use super::render::{self, SCHEMA};
use super::{exit, output, status};
use crate::health::{Finding, Level, Seen, State, worst};
use crate::registry::{Record, Registry, Slot};

#[derive(Debug, Serialize)]
struct Report {
    schema: u32,
    health: Level,
    exit_code: u8,
    /// The first line.
    message: String,
    guards: Vec<Guard>,
    /// What was asked for and is not guarded on this host.
    not_guarded: Vec<String>,
}

/// One device.
#[derive(Debug, Serialize)]
struct Guard {
    device: String,
    mounted_on: Option<String>,
    state: State,
    health: Level,
    findings: Vec<Finding>,
}

pub(super) fn run(arguments: &Health) -> ExitCode {
    let registry = Registry::host();
    let (records, missing) = match status::records(&registry, &arguments.only) {
        Ok(found) => found,
        Err(text) => {
            output::complain(&text);
            return ExitCode::from(exit::IO);
        }
    };
    let guards = records.iter().map(|(slot, record)| Guard::of(slot, record)).collect();
    let report = Report::of(guards, missing.iter().map(|what| render::shown(what)).collect());
    let wrote = if arguments.json { output::json(&report) } else { output::text(&report.text()) };
    if wrote == ExitCode::from(exit::DONE) { ExitCode::from(report.exit_code) } else { wrote }
}

impl Guard {
    fn of(slot: &Slot, record: &Record) -> Self {
        let seen = Seen::now(slot, record);
        let findings = seen.findings();
        Guard {
            device: render::shown(&record.device),
            mounted_on: record.dir.as_deref().map(render::shown),
            state: seen.state,
            health: worst(&findings),
            findings,
        }
    }

    fn name(&self) -> String {
        match &self.mounted_on {
            Some(dir) => format!("{} on {dir}", self.device),
            None => self.device.clone(),
        }
    }
}

impl Report {
    fn of(mut guards: Vec<Guard>, not_guarded: Vec<String>) -> Self {
        guards.sort_by_key(|guard| std::cmp::Reverse(guard.health));
        let health = guards.first().map_or(Level::Healthy, |guard| guard.health);
        let exit_code = match health {
            Level::Unprotected => exit::LOST,
            _ if !not_guarded.is_empty() => exit::UNSUPPORTED,
            Level::Unhealthy => exit::UNHEALTHY,
            Level::Warning | Level::Healthy => exit::DONE,
        };
        let message = message(&guards, &not_guarded, health);
        Report { schema: SCHEMA, health, exit_code, message, guards, not_guarded }
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.message);
        for guard in &self.guards {
            for finding in &guard.findings {
                let _ = writeln!(
                    text,
                    "  {}: {}: {}",
                    word(finding.level),
                    guard.name(),
                    harmless(&finding.text)
                );
            }
        }
        for device in &self.not_guarded {
            let _ = writeln!(text, "  not guarded on this host: {device}");
        }
        text
    }
}

/// The one line that a monitor shows.
fn message(guards: &[Guard], not_guarded: &[String], health: Level) -> String {
    let worst = guards.first().and_then(|guard| Some((guard, guard.findings.first()?)));
    match (health, worst, not_guarded) {
        (Level::Unprotected, ..) | (_, _, []) => {}
        (_, _, [device, ..]) => return format!("NOT GUARDED: {device} is not guarded on this host"),
    }
    match worst {
        _ if guards.is_empty() => "HEALTHY: nothing is guarded on this host".to_owned(),
        None => format!("HEALTHY: {} guarded", guards.len()),
        Some((guard, finding)) => {
            let more = guards.iter().map(|guard| guard.findings.len()).sum::<usize>() - 1;
            let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            let level = word(health).to_uppercase();
            format!("{level}: {}: {}{more}", guard.name(), harmless(&finding.text))
        }
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Healthy => "healthy",
        Level::Warning => "healthy, with a warning",
        Level::Unhealthy => "unhealthy",
        Level::Unprotected => "unprotected",
    }
}

fn harmless(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::FindingKind;

    fn guard(device: &str, levels: &[Level]) -> Guard {
        let finding = |&level| Finding { kind: FindingKind::Late, level, text: format!("{level:?} it is") };
        let findings: Vec<_> = levels.iter().map(finding).collect();
        Guard {
            device: device.to_owned(),
            mounted_on: None,
            state: State::Guarding,
            health: worst(&findings),
            findings,
        }
    }

    #[test]
    fn the_first_line_tells_the_worst_and_the_code_follows_it() {
        let of = |guards, missing: &[&str]| {
            let missing = missing.iter().map(|what| (*what).to_owned()).collect();
            let report = Report::of(guards, missing);
            (report.exit_code, report.message)
        };
        let told = |code, text: &str| (code, text.to_owned());
        assert_eq!(of(vec![], &[]), told(0, "HEALTHY: nothing is guarded on this host"));
        assert_eq!(of(vec![guard("a", &[]), guard("b", &[])], &[]), told(0, "HEALTHY: 2 guarded"));
        let warned = of(vec![guard("a", &[Level::Warning])], &[]);
        assert_eq!(warned, told(0, "HEALTHY, WITH A WARNING: a: Warning it is"));
        let some = || vec![guard("a", &[Level::Warning]), guard("b", &[Level::Unhealthy, Level::Warning])];
        assert_eq!(of(some(), &[]), told(12, "UNHEALTHY: b: Unhealthy it is (and 2 more)"));
        assert_eq!(of(some(), &["c"]), told(7, "NOT GUARDED: c is not guarded on this host"));
        let mut all = some();
        all.push(guard("d", &[Level::Unprotected]));
        assert_eq!(of(all, &["c"]), told(5, "UNPROTECTED: d: Unprotected it is (and 3 more)"));
    }
}
