//! `mmp events`: prints the log of what happened, and follows it.
//!
//! Protects: whatever stands in the log is harmless on a terminal. Does not lock anything, and never writes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::monitor::Events;
use super::{exit, output, render};
use crate::clock::{self, Mono};
use crate::events::{EventRecord, Stage, log};
use crate::registry::{Registry, boot_id};

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn run(arguments: &Events) -> ExitCode {
    let registry = Registry::host();
    let mut reader = log::Reader::new(registry.directory());
    let wanted = Wanted::of(arguments);
    loop {
        let records = match reader.read() {
            Ok(records) => records,
            Err(error) => {
                output::complain(&format!("{}: {error}", log::path(registry.directory()).display()));
                return ExitCode::from(exit::IO);
            }
        };
        let text: String = records
            .iter()
            .filter(|record| wanted.has(record))
            .map(|record| line(record, arguments.json))
            .collect();
        match output::try_text(&text) {
            Ok(true) if arguments.follow => clock::sleep(LOOK),
            Ok(_) => return ExitCode::from(exit::DONE),
            Err(code) => return code,
        }
    }
}

struct Wanted<'a> {
    arguments: &'a Events,
    names: Vec<String>,
    since: Mono,
    boot_id: String,
}

impl<'a> Wanted<'a> {
    fn of(arguments: &'a Events) -> Self {
        let since = arguments.since.map_or(Mono(0), |span| clock::mono() - span);
        let names = arguments.only.iter().flat_map(|what| names(what)).collect();
        Wanted { arguments, names, since, boot_id: boot_id() }
    }

    fn has(&self, record: &EventRecord) -> bool {
        let named = |name: &String| *name == record.device || Some(name) == record.dir.as_ref();
        let kinds = &self.arguments.kind;
        // A directory that outlives a boot: what happened before it is as old as can be.
        let is_recent = self.arguments.since.is_none()
            || record.boot_id == self.boot_id && Mono(record.boottime_ns) >= self.since;
        is_recent
            && (kinds.is_empty() || kinds.contains(&record.kind))
            && (self.names.is_empty() || self.names.iter().any(named))
    }
}

/// What a device or a directory may be called in a record.
fn names(what: &Path) -> Vec<String> {
    let device = crate::sys::tags::resolve(what).unwrap_or_else(|_| what.to_owned());
    let resolved = [device.canonicalize().ok(), std::path::absolute(what).ok()];
    let all = std::iter::once(what.to_owned()).chain(resolved.into_iter().flatten());
    all.map(|path: PathBuf| render::shown(&path)).collect()
}

fn line(record: &EventRecord, json: bool) -> String {
    if json {
        return serde_json::to_string(record).expect("records are plain data") + "\n";
    }
    let mut line = format!("{}  {:<9} {}", record.at, record.kind.name(), record.device);
    if let Some(dir) = &record.dir {
        let _ = write!(line, " on {dir}");
    }
    let stage = match record.stage {
        Some(Stage::Begun) => " (begins)",
        Some(Stage::Ended) => " (ends)",
        None => "",
    };
    let _ = write!(line, ": {}{stage}", record.text);
    harmless(&line) + "\n"
}

/// Names come escaped, but whoever may write below the runtime directory may have written anything.
fn harmless(text: &str) -> String {
    let shown = |character: char| if is_harmless(character) { character } else { '\u{fffd}' };
    text.chars().map(shown).collect()
}

fn is_harmless(character: char) -> bool {
    matches!(character, ' '..='~') || character.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{EventKind, Severity, Subject, Told};

    fn record(dir: &str) -> EventRecord {
        let subject = Subject::new(Path::new("/dev/sdx"), Some(Path::new(dir)));
        let told = Told::new(EventKind::Bridged, Severity::Warning, "beating in its stead");
        EventRecord { stage: Some(Stage::Begun), ..EventRecord::now(&subject, &told) }
    }

    fn arguments() -> Events {
        Events { only: Vec::new(), follow: false, since: None, kind: Vec::new(), json: false }
    }

    #[test]
    fn a_line_says_when_what_and_where_and_is_harmless() {
        let record = EventRecord { text: "\x1b[2Jgone\u{202e}\n".into(), ..record("/srv") };
        let line = line(&record, false);
        let told = line.split_once("  ").expect("has a time").1;
        assert_eq!(told, "bridged   /dev/sdx on /srv: \u{fffd}[2Jgone\u{fffd}\u{fffd} (begins)\n");
        let json = super::line(&record, true);
        assert_eq!(serde_json::from_str::<EventRecord>(&json).unwrap(), record);
        assert_eq!(json.lines().count(), 1);
    }

    #[test]
    fn what_is_asked_for_is_shown() {
        let has = |arguments: &Events| Wanted::of(arguments).has(&record("/srv"));
        assert!(has(&arguments()));
        for (only, found) in [("/srv", true), ("/dev/sdx", true), ("/dev/sdy", false), ("/sr", false)] {
            assert_eq!(has(&Events { only: vec![only.into()], ..arguments() }), found, "{only}");
        }
        assert!(has(&Events { kind: vec![EventKind::Lost, EventKind::Bridged], ..arguments() }));
        assert!(!has(&Events { kind: vec![EventKind::Lost], ..arguments() }));
        assert!(has(&Events { since: Some(Duration::from_secs(60)), ..arguments() }));
        let old = EventRecord { boottime_ns: 1, ..record("/srv") };
        let recent = Events { since: Some(Duration::from_secs(1)), ..arguments() };
        assert!(!Wanted::of(&recent).has(&old));
        let before = EventRecord { boot_id: "another".into(), ..record("/srv") };
        assert!(!Wanted::of(&recent).has(&before) && Wanted::of(&arguments()).has(&before));
    }
}
