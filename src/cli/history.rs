//! `mmp status --history`: the last looks and beats of each guard, as its own process remembers them.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::guard::driver::{BeatReport, Request, ask};
use super::render::{self, SCHEMA};
use super::{exit, output};
use crate::clock::{self, Mono};
use crate::registry::{Record, Slot};

#[derive(Debug, Serialize)]
struct Report {
    schema: u32,
    guards: Vec<Guard>,
}

/// One device.
#[derive(Debug, Serialize)]
struct Guard {
    device: String,
    mounted_on: Option<String>,
    /// The oldest first.
    beats: Vec<BeatReport>,
    /// Why there are none.
    error: Option<String>,
    #[serde(skip)]
    now: Mono,
}

/// Asks the guards of these.
pub(super) fn run(records: &[(Slot, Record)], json: bool) -> ExitCode {
    let guards: Vec<_> = records.iter().map(|(slot, record)| Guard::of(slot, record)).collect();
    let failed = guards.iter().any(|guard| guard.error.is_some());
    let report = Report { schema: SCHEMA, guards };
    let wrote = if json { output::json(&report) } else { output::text(&report.text()) };
    if failed && wrote == ExitCode::from(exit::DONE) { ExitCode::from(exit::IO) } else { wrote }
}

impl Guard {
    fn of(slot: &Slot, record: &Record) -> Self {
        let asked = ask(&slot.socket(), &Request::History);
        let (beats, error) = match asked {
            Ok(answer) if answer.history.is_some() => (answer.history.unwrap_or_default(), None),
            Ok(answer) => (Vec::new(), Some(crate::format::name::escape(answer.text.as_bytes()))),
            Err(error) => (Vec::new(), Some(format!("its guard does not answer: {error}"))),
        };
        Guard {
            device: render::shown(&record.device),
            mounted_on: record.dir.as_deref().map(render::shown),
            beats,
            error,
            now: clock::mono(),
        }
    }

    fn text(&self) -> String {
        let mut text = self.device.clone();
        if let Some(dir) = &self.mounted_on {
            let _ = write!(text, " on {dir}");
        }
        if let Some(error) = &self.error {
            let _ = writeln!(text, ": {error}");
            return text;
        }
        let _ = writeln!(
            text,
            ": the last {} looks and beats\n       ago       read      write       late",
            self.beats.len()
        );
        for beat in &self.beats {
            let ago = self.now.since(Mono(beat.boottime_ns)).as_secs_f64();
            let write = beat.write_ns.map_or_else(|| "-".to_owned(), millis);
            let _ = writeln!(
                text,
                "{ago:>8.1} s {:>10} {write:>10} {:>10}",
                millis(beat.read_ns),
                millis(beat.late_ns)
            );
        }
        text
    }
}

impl Report {
    fn text(&self) -> String {
        if self.guards.is_empty() {
            return "nothing is guarded on this host\n".to_owned();
        }
        self.guards.iter().map(Guard::text).collect()
    }
}

fn millis(ns: u64) -> String {
    format!("{:.2} ms", Duration::from_nanos(ns).as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_when_and_how_long() {
        let beat =
            BeatReport { boottime_ns: 1_000_000_000, read_ns: 250_000, write_ns: None, late_ns: 7_000_000 };
        let written = BeatReport { write_ns: Some(1_500_000), ..beat.clone() };
        let guard = Guard {
            device: "/dev/sdx".into(),
            mounted_on: Some("/srv".into()),
            beats: vec![beat, written],
            error: None,
            now: Mono(3_500_000_000),
        };
        let text = guard.text();
        let rows: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[2], ["2.5", "s", "0.25", "ms", "-", "7.00", "ms"]);
        assert_eq!(rows[3], ["2.5", "s", "0.25", "ms", "1.50", "ms", "7.00", "ms"]);
    }
}
