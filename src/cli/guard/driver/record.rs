//! The guard's record, for `mmp status` and for who comes later.

use super::{Guardian, Held, Mode, RECORD_PERIOD, clock};
use crate::clock::Mono;
use crate::driver::cell::CellState;
use crate::registry::{Phase, Record, SCHEMA, boot_id};
use crate::sys::identity;

/// So many notes are kept, the last ones.
const NOTES_AT_MOST: usize = 20;

impl Guardian {
    /// Writes it. A disk that is full below `/run` loses a record, and no beat.
    pub(super) fn write_record(&mut self, held: Option<&Held>) {
        self.next_record = clock::mono() + RECORD_PERIOD;
        if self.memory.leases().state() == CellState::Lost && self.phase != Phase::Lost {
            return; // what is lost is told by `lost`, once, and then by the keeper
        }
        let record = self.record(held);
        if let Err(error) = self.slot.write(&record) {
            tracing::debug!(%error, "record");
        }
    }

    /// Remembers what is worth knowing, once.
    pub(super) fn note(&mut self, text: &str) {
        if self.notes.last().is_some_and(|last| last.ends_with(text)) {
            return;
        }
        let at = crate::cli::render::when(clock::wall());
        self.notes.push(format!("{at}: {text}"));
        if self.notes.len() > NOTES_AT_MOST {
            self.notes.remove(0);
        }
        self.next_record = Mono(0);
    }

    fn record(&self, held: Option<&Held>) -> Record {
        let status = held.map(Held::status);
        // The lease is the earliest of all members', so is the beat.
        let oldest_beat =
            held.into_iter().chain(&self.companions).map(|held| held.status().last_beat_age).max();
        let owner = held.map(|held| held.place().medium().owner());
        let lease_end_ns = match self.memory.leases().state() {
            CellState::Until(end) => Some(end.0),
            CellState::Unarmed | CellState::Released | CellState::Lost => None,
        };
        let without = if self.phase == Phase::Lost { Mode::Over } else { Mode::Claiming };
        let mode = held.map_or(without, Held::mode);
        let read_only = mode == Mode::Beating && self.phase == Phase::Guarding && !self.task.area;
        Record {
            schema: SCHEMA,
            boot_id: boot_id(),
            device: self.task.device.clone(),
            major: self.task.number.0,
            minor: self.task.number.1,
            dir: Some(self.task.dir.clone()),
            filesystem: self.task.filesystem.clone(),
            phase: self.phase,
            mode,
            read_only,
            node: owner.map_or_else(identity::kernel_node_name, |owner| owner.node.to_string()),
            block_device: owner
                .map_or_else(|| self.task.kernel_name.clone(), |owner| owner.device.to_string()),
            on_loss: self.task.on_loss.to_string(),
            incomplete_fence: self.task.incomplete_fence,
            driver_pid: i32::try_from(std::process::id()).unwrap_or(0),
            keeper_pid: self.keeper.as_ref().map_or(0, |keeper| keeper.peer_pid()),
            written_ns: clock::mono().0,
            since_s: self.task.since_s,
            lease_end_ns,
            last_beat_ns: oldest_beat.map_or(0, |age| (clock::mono() - age).0),
            beats: status.map_or(0, |status| status.beats),
            worst_lateness_ns: status
                .map_or(0, |status| u64::try_from(status.worst_lateness.as_nanos()).unwrap_or(u64::MAX)),
            kernel_counted: self.memory.trace(0).kernel_counted().map(|(at, seq)| (at.0, seq)),
            bridged: self.bridged,
            notes: self.notes.clone(),
            generation: held.and_then(Held::generation),
            guarded_by: self.task.guarded_by.clone(),
            with: self.task.with.clone(),
            resident: self.task.resident,
            interval_ns: held
                .map(|held| u64::try_from(super::events::interval(held).as_nanos()).unwrap_or(u64::MAX)),
            late_lately: self.events.late_lately(),
            events: self.events.emitter.counts().told().collect(),
            events_dropped: self.events.emitter.counts().dropped()
                + status.map_or(0, |status| status.events_lost),
            lost: None,
        }
    }
}
