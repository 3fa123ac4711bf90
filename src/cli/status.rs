//! `mmp status`: what this host guards, and what it has lost.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::guard::{self, RUNBOOK};
use super::history;
use super::monitor::Status;
use super::render::{self, SCHEMA};
use super::{exit, output};
use crate::clock::{Mono, Wall};
use crate::health::{STALE, Seen, State};
use crate::protocol::Mode;
use crate::registry::{Lost, Record, Registry, Slot};

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
    state: State,
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
    let (records, missing) = match records(&registry, &arguments.only) {
        Ok(found) => found,
        Err(text) => {
            output::complain(&text);
            return ExitCode::from(exit::IO);
        }
    };
    if arguments.history {
        let code = history::run(&records, arguments.json);
        let missing = !missing.is_empty() && code == ExitCode::from(exit::DONE);
        return if missing { ExitCode::from(exit::UNSUPPORTED) } else { code };
    }
    let guards: Vec<_> = records.iter().map(|(slot, record)| Guard::of(slot, record)).collect();
    let lost = guards.iter().any(|guard| matches!(guard.state, State::Lost | State::Unguarded));
    let report = Report { schema: SCHEMA, guards };
    let wrote = if arguments.json { output::json(&report) } else { output::text(&report.text()) };
    match (lost, !missing.is_empty()) {
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
    let (all, _) = records(registry, &[])?;
    Ok(all.iter().map(|(slot, record)| Guard::of(slot, record)).collect())
}

/// What is guarded, and what was asked for and is not.
type Found = (Vec<(Slot, Record)>, Vec<PathBuf>);

/// What is guarded: all of it, or of these.
pub(super) fn records(registry: &Registry, only: &[PathBuf]) -> Result<Found, String> {
    if only.is_empty() {
        let all = registry.list();
        let all = all.map_err(|error| format!("{}: {error}", registry.directory().display()))?;
        let all = all.into_iter().filter(|(_, record)| record.is_of_this_boot()).collect();
        return Ok((all, Vec::new()));
    }
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for what in only {
        match guard::find(registry, what) {
            Some(guarded) => found.push(guarded),
            None => missing.push(what.clone()),
        }
    }
    Ok((found, missing))
}

impl Guard {
    fn of(slot: &Slot, record: &Record) -> Self {
        let seen = Seen::now(slot, record);
        let (now, told, state) = (seen.now, seen.told(), seen.state);
        let shown = render::shown(&record.device);
        let advice = match state {
            State::Lost => Some(RUNBOOK.to_owned()),
            // Nobody knows what another host does to it meanwhile: it is not adopted.
            State::Unguarded if record.generation.is_some() => Some(format!(
                "its guarding processes are gone, and nothing beats its area any more; see who has it with `mmp check {shown}`: if nobody, \
                 unmount it before somebody takes it, and mount it anew; if another host has it, restart this one without a sync \
                 (`reboot -ff -n`)"
            )),
            State::Unguarded => Some(format!(
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
            (State::Lost, _) => "LOST".to_owned(),
            (State::Unguarded, _) => "UNGUARDED: its processes are gone".to_owned(),
            (State::Unmounted, _) => "not mounted any more; its guard had died before".to_owned(),
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
