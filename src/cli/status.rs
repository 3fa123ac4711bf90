//! `mmp status`: what this host guards, and what it has lost.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::args::Status;
use super::guard::{self, RUNBOOK};
use super::render::{self, SCHEMA};
use super::{exit, output};
use crate::clock::{self, Mono, Wall};
use crate::protocol::Mode;
use crate::registry::{Lost, Phase, Record, Registry, Slot};
use crate::sys::{TargetKind, mountinfo};

/// A record that is older than this tells that its guard hangs.
const STALE: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize)]
struct Report {
    schema: u32,
    guards: Vec<Guard>,
}

/// One device.
#[derive(Debug, Serialize)]
pub(super) struct Guard {
    device: String,
    mounted_on: Option<String>,
    filesystem: String,
    /// `beginning`, `guarding`, `releasing`, `lost`, or `unguarded`: its processes are gone; `unmounted`: its mount is
    /// gone, too.
    state: &'static str,
    /// `beating`, `watching`, `bridging`, `expecting` or `claiming`.
    mode: Mode,
    node: String,
    block_device: String,
    since_s: u64,
    /// Since the last beat, ours or the kernel's as we saw it.
    last_beat_age_s: f64,
    lease_left_s: f64,
    beats: u64,
    bridged: u64,
    /// The number of this acquisition, where it is guarded by a slot of an area.
    generation: Option<u64>,
    /// What is held together with it.
    with: Vec<String>,
    worst_lateness_s: f64,
    on_loss: String,
    incomplete_fence: bool,
    driver_pid: i32,
    keeper_pid: i32,
    /// Since the guard wrote this.
    told_s: f64,
    notes: Vec<String>,
    lost: Option<Lost>,
    /// What to do next, where there is something.
    advice: Option<String>,
}

pub(super) fn run(arguments: &Status) -> ExitCode {
    let registry = Registry::host();
    let records = match records(&registry, arguments) {
        Ok(records) => records,
        Err(text) => {
            output::complain(&text);
            return ExitCode::from(exit::IO);
        }
    };
    let guards: Vec<_> = records.iter().map(|(slot, record)| Guard::of(slot, record)).collect();
    let lost = guards.iter().any(|guard| matches!(guard.state, "lost" | "unguarded"));
    let missing = !arguments.only.is_empty() && guards.len() < arguments.only.len();
    let report = Report { schema: SCHEMA, guards };
    let wrote = if arguments.json { output::json(&report) } else { output::text(&report.text()) };
    match (lost, missing) {
        _ if wrote != ExitCode::from(exit::DONE) => wrote,
        (true, _) => ExitCode::from(exit::LOST),
        (false, true) => {
            output::complain("not everything asked for is guarded on this host");
            ExitCode::from(exit::UNSUPPORTED)
        }
        (false, false) => wrote,
    }
}

/// What this host guards.
pub(super) fn guards(registry: &Registry) -> Result<Vec<Guard>, String> {
    let all = registry.list().map_err(|error| format!("{}: {error}", registry.directory().display()))?;
    let here = all.into_iter().filter(|(_, record)| record.is_of_this_boot());
    Ok(here.map(|(slot, record)| Guard::of(&slot, &record)).collect())
}

fn records(registry: &Registry, arguments: &Status) -> Result<Vec<(Slot, Record)>, String> {
    if arguments.only.is_empty() {
        let all = registry.list();
        let all = all.map_err(|error| format!("{}: {error}", registry.directory().display()))?;
        return Ok(all.into_iter().filter(|(_, record)| record.is_of_this_boot()).collect());
    }
    Ok(arguments.only.iter().filter_map(|what| guard::find(registry, what)).collect())
}

/// Seen without touching the device. A lazily unmounted ext4 counts.
fn is_mounted(record: &Record) -> bool {
    let listed = record.device.file_name().is_some_and(|name| Path::new("/proc/fs/ext4").join(name).exists());
    let kind = TargetKind::Block { major: record.major, minor: record.minor };
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    listed || mountinfo::parse(&table).iter().any(|mount| mount.is_of(&[kind], None))
}

impl Guard {
    fn of(slot: &Slot, record: &Record) -> Self {
        let now = clock::mono();
        let alive = slot.is_locked();
        let told = now.since(Mono(record.written_ns));
        let state = match record.phase {
            Phase::Lost => "lost",
            _ if !alive && !is_mounted(record) => "unmounted",
            _ if !alive => "unguarded",
            Phase::Beginning => "beginning",
            Phase::Guarding => "guarding",
            Phase::Releasing => "releasing",
        };
        let shown = render::shown(&record.device);
        let advice = match state {
            "lost" => Some(RUNBOOK.to_owned()),
            "unguarded" => Some(format!(
                "its guarding processes are gone; if it is still mounted, `mmp adopt {shown}` guards it again"
            )),
            _ if told > STALE => Some(format!(
                "process {} has not told anything for {}: it hangs, or is stopped",
                record.driver_pid,
                render::seconds(told)
            )),
            _ if record.read_only && record.mode == Mode::Beating => {
                Some("read-only; `mmp remount` makes it writable, a plain remount fails".to_owned())
            }
            _ => None,
        };
        Guard {
            device: shown,
            mounted_on: record.dir.as_deref().map(render::shown),
            filesystem: record.filesystem.clone(),
            state,
            mode: record.mode,
            node: record.node.clone(),
            block_device: record.block_device.clone(),
            since_s: record.since_s,
            last_beat_age_s: now.since(Mono(record.last_beat_ns)).as_secs_f64(),
            lease_left_s: record.lease_left().as_secs_f64(),
            beats: record.beats,
            bridged: record.bridged,
            generation: record.generation,
            with: record.with.iter().map(|device| render::shown(device)).collect(),
            worst_lateness_s: Duration::from_nanos(record.worst_lateness_ns).as_secs_f64(),
            on_loss: record.on_loss.clone(),
            incomplete_fence: record.incomplete_fence,
            driver_pid: record.driver_pid,
            keeper_pid: record.keeper_pid,
            told_s: told.as_secs_f64(),
            notes: record.notes.clone(),
            lost: record.lost.clone(),
            advice,
        }
    }

    fn text(&self) -> String {
        let mut text = self.device.clone();
        if let Some(dir) = &self.mounted_on {
            let _ = write!(text, " on {dir}");
        }
        let mode = match (self.state, self.mode) {
            ("lost", _) => "LOST".to_owned(),
            ("unguarded", _) => "UNGUARDED: its processes are gone".to_owned(),
            ("unmounted", _) => "not mounted any more; its guard had died before".to_owned(),
            (_, Mode::Watching) => "guarded; the kernel beats, watched".to_owned(),
            (_, Mode::Bridging) => "guarded; the kernel is silent (frozen?), beating in its stead".to_owned(),
            (_, Mode::Beating) => "guarded; beating".to_owned(),
            (_, Mode::Expecting) => "being mounted".to_owned(),
            (_, Mode::Claiming) => "being claimed".to_owned(),
            (_, Mode::Over) => "ending".to_owned(),
        };
        let _ = writeln!(text, " ({}): {mode}", self.filesystem);
        if let Some(lost) = &self.lost {
            let at = render::when(Wall(lost.at_s));
            let _ = writeln!(text, "  lost       {at}: {}; {}", lost.reason, guard::fenced(lost));
        } else {
            let _ = writeln!(text, "  holder     node {}, device {}", self.node, self.block_device);
            let _ = writeln!(
                text,
                "  last beat  {:.1} s ago, {} in all, looks at most {:.3} s late",
                self.last_beat_age_s, self.beats, self.worst_lateness_s
            );
            let _ = writeln!(text, "  lease      {:.1} s left", self.lease_left_s);
            if let Some(generation) = self.generation {
                let _ = writeln!(text, "  generation {generation}");
            }
            if !self.with.is_empty() {
                let _ = writeln!(text, "  with       {}", self.with.join(", "));
            }
            let fence = if self.incomplete_fence { " (no real fence)" } else { "" };
            let _ = writeln!(text, "  on loss    {}{fence}", self.on_loss);
            let _ = writeln!(
                text,
                "  processes  driver {}, keeper {}; since {}",
                self.driver_pid,
                self.keeper_pid,
                render::when(Wall(self.since_s))
            );
        }
        for note in &self.notes {
            let _ = writeln!(text, "  note       {}", crate::format::name::escape(note.as_bytes()));
        }
        if let Some(advice) = &self.advice {
            let _ = writeln!(text, "  {advice}");
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
