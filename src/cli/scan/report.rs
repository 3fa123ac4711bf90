//! What is told of a scan, as data: the JSON document, and the lines of `--follow`.
//!
//! Protects: everything that stood on a disk, in a directory or in a record is escaped here, once, for text and JSON alike; the
//! notes of a row are escaped already.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

use super::super::output;
use super::super::render::{self, PeerReport, SCHEMA};
use crate::clock;
use crate::format::name::escape;
use crate::health;
use crate::registry::{Record, Registry};
use crate::scan::{Change, Protection, Row, State};
use crate::sys::TargetKind;

/// The document.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    schema: u32,
    pub(super) devices: Vec<DeviceReport>,
}

/// A row.
#[derive(Debug, Serialize)]
pub(super) struct DeviceReport {
    /// What it is called: a path, or `TARGET:SLOT`.
    pub(super) device: String,
    /// All paths that lead there.
    pub(super) paths: Vec<String>,
    pub(super) size_bytes: Option<u64>,
    pub(super) filesystem: Option<String>,
    filesystem_uuid: Option<String>,
    label: Option<String>,
    /// `native`, `tail_area`, `area`, `slot` or `none`; null if that could not be found out.
    pub(super) mmp: Option<Protection>,
    pub(super) state: State,
    slot: Option<SlotReport>,
    generation: Option<u64>,
    pub(super) last: Option<PeerReport>,
    pub(super) interval_ms: Option<u64>,
    pub(super) guarded_here: Option<GuardedReport>,
    /// Why no more is told, or why the area may not be used.
    pub(super) reason: Option<String>,
    pub(super) notes: Vec<String>,
    #[serde(skip)]
    pub(super) holder: Option<String>,
    #[serde(skip)]
    pub(super) age_s: Option<i64>,
}

#[derive(Debug, Serialize)]
struct SlotReport {
    number: u32,
    name: String,
}

/// A guard of this host has it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct GuardedReport {
    state: health::State,
    mounted_on: Option<String>,
    /// The slot of an area elsewhere.
    by: Option<String>,
}

/// A change, in a line of JSON.
#[derive(Debug, Serialize)]
pub(super) struct ChangeReport {
    schema: u32,
    at: String,
    /// `found`, `changed` or `gone`.
    change: &'static str,
    was: Option<State>,
    device: DeviceReport,
}

/// What this host guards.
pub(super) struct Guards(Vec<(TargetKind, GuardedReport)>);

impl Guards {
    /// At this moment. A registry that cannot be read tells of none.
    pub(super) fn host() -> Self {
        let records = Registry::host().list().unwrap_or_default();
        let of_now = records.into_iter().filter(|(_, record)| record.is_of_this_boot());
        Guards(
            of_now
                .map(|(slot, record)| {
                    let Record { major, minor, .. } = record;
                    let state = health::State::of(&slot, &record);
                    let mounted_on = record.dir.as_deref().map(render::shown);
                    let by = record.guarded_by.as_deref().map(render::shown);
                    (TargetKind::Block { major, minor }, GuardedReport { state, mounted_on, by })
                })
                .collect(),
        )
    }

    fn of(&self, row: &Row) -> Option<GuardedReport> {
        let found = self.0.iter().find(|(node, _)| row.slot.is_none() && row.nodes.contains(node));
        found.map(|(_, guarded)| guarded.clone())
    }
}

impl GuardedReport {
    /// In words.
    pub(super) fn text(&self) -> String {
        let mut text = match self.state {
            health::State::Guarding => "guarded by this host".to_owned(),
            state => format!("guarded by this host: {}", state.name().to_uppercase()),
        };
        for (word, what) in [("on", &self.mounted_on), ("by slot", &self.by)] {
            if let Some(what) = what {
                let _ = write!(text, ", {word} {what}");
            }
        }
        text
    }
}

impl Report {
    pub(super) fn of(rows: &[Row], guards: &Guards) -> Self {
        let devices = rows.iter().map(|row| DeviceReport::of(row, guards)).collect();
        Report { schema: SCHEMA, devices }
    }

    pub(super) fn json(&self) -> String {
        output::document(self)
    }
}

impl DeviceReport {
    fn of(row: &Row, guards: &Guards) -> Self {
        let harmless = |text: &String| escape(text.as_bytes());
        let now = clock::wall().0;
        DeviceReport {
            device: name(row),
            paths: row.paths.iter().map(|path| render::shown(path)).collect(),
            size_bytes: row.size_bytes,
            filesystem: row.filesystem.as_ref().map(harmless),
            filesystem_uuid: row.uuid.as_ref().map(render::uuid),
            label: row.label.map(|label| label.to_string()),
            mmp: row.protection,
            state: row.state,
            slot: row
                .slot
                .as_ref()
                .map(|slot| SlotReport { number: slot.number, name: slot.name.to_string() }),
            generation: row.generation,
            last: row.last.as_ref().map(PeerReport::from),
            interval_ms: row.interval.map(|interval| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)),
            guarded_here: guards.of(row),
            reason: row.reason.as_ref().map(harmless),
            notes: row.notes.clone(),
            holder: row.last.as_ref().map(|last| format!("{} ({})", last.node, last.device)),
            age_s: row.last.as_ref().map(|last| {
                let [now, then] = [now, last.last_update.0].map(|at| i64::try_from(at).unwrap_or(i64::MAX));
                now.saturating_sub(then)
            }),
        }
    }
}

/// As other verbs take it.
fn name(row: &Row) -> String {
    let path = render::shown(&row.paths[0]);
    match &row.slot {
        None => path,
        Some(slot) if slot.name.is_empty() => format!("{path}:{}", slot.number),
        Some(slot) => format!("{path}:{}", slot.name),
    }
}

impl ChangeReport {
    pub(super) fn of(change: &Change, guards: &Guards) -> Self {
        let at = Timestamp::from_second(i64::try_from(clock::wall().0).unwrap_or(i64::MAX));
        let (change, was, row) = match change {
            Change::Found(row) => ("found", None, row),
            Change::Changed { was, row } => ("changed", Some(*was), row),
            Change::Gone(row) => ("gone", None, row),
        };
        let at = at.unwrap_or_default().to_string();
        ChangeReport { schema: SCHEMA, at, change, was, device: DeviceReport::of(row, guards) }
    }

    pub(super) fn line(&self, json: bool) -> String {
        if json {
            return output::line_of(self);
        }
        let DeviceReport { device, state, holder, reason, .. } = &self.device;
        let mut line = format!("{}  {device}: ", render::when(clock::wall()));
        line += &match (self.change, self.was) {
            ("gone", _) => return line + "gone\n",
            (_, Some(was)) if was != *state => format!("{} -> {}", was.words(), state.words()),
            ("found", _) => format!("found, {}", state.words()),
            _ => format!("still {}, changed", state.words()),
        };
        for more in [holder, reason].into_iter().flatten() {
            let _ = write!(line, "; {more}");
        }
        line + "\n"
    }
}
