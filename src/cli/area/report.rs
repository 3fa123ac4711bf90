//! What is told of an area and its slots.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde::Serialize;

use super::super::render::{PeerReport, SCHEMA};
use super::super::{output, render};
use super::args::{List, Look};
use super::change::found;
use crate::clock::Wall;
use crate::driver::{AreaView, Place, SlotView};
use crate::error::Error;
use crate::format::area::{AreaPlace, LOCK_SLOT, Repair, SlotBlock, SlotState};
use crate::protocol::Peer;
use crate::protocol::timing::AreaConsequences;

#[derive(Debug, Serialize)]
struct AreaReport {
    target: String,
    uuid: String,
    label: String,
    place: AreaPlace,
    offset_bytes: u64,
    end_bytes: u64,
    target_bytes: u64,
    slots: u32,
    interval_ms: u32,
    created_s: u64,
    revision: u64,
    content: String,
    content_end_bytes: u64,
    /// Which header has to be written anew.
    repair: Option<Repair>,
    /// Why nothing may be claimed.
    unusable: Option<String>,
}

#[derive(Debug, Serialize)]
struct SlotReport {
    number: u32,
    name: String,
    target: String,
    /// free, released, claiming, holding or damaged.
    state: String,
    generation: u64,
    high_water: Option<u64>,
    boot_id: String,
    needs_repair: bool,
    last: Option<PeerReport>,
    /// What is wrong with its blocks.
    damage: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Whole {
    schema: u32,
    area: AreaReport,
    used_slots: u32,
    lock: SlotReport,
    timing: AreaConsequences,
}

#[derive(Debug, Serialize)]
struct Slots {
    schema: u32,
    area: AreaReport,
    slots: Vec<SlotReport>,
}

#[derive(Debug, Serialize)]
struct Shown {
    schema: u32,
    device: String,
    generation: u64,
    state: String,
    area: AreaReport,
    slot: SlotReport,
    timing: AreaConsequences,
}

/// `mmp area show`.
pub(super) fn show(arguments: &Look) -> ExitCode {
    let report = || -> Result<Whole, Error> {
        let view = found(&arguments.target)?;
        let mut used_slots = 0;
        view.each_slot(|slot| {
            used_slots += u32::from(slot.number != LOCK_SLOT && !matches!(slot.identity(), Ok(None)))
        })?;
        let lock = SlotReport::of(&view.read_slot(LOCK_SLOT)?);
        let timing = AreaConsequences::of(view.header.interval_ms);
        Ok(Whole { schema: SCHEMA, area: AreaReport::of(&view), used_slots, lock, timing })
    };
    tell(arguments, report(), |report| {
        let mut text = report.area.text();
        let _ = writeln!(text, "in use               {} of {} slots", report.used_slots, report.area.slots);
        let _ = writeln!(text, "lock                 {}", report.lock.state);
        text + &consequences(&report.timing)
    })
}

/// `mmp area list`.
pub(super) fn list(arguments: &List) -> ExitCode {
    let report = || -> Result<Slots, Error> {
        let view = found(&arguments.look.target)?;
        let mut slots = Vec::new();
        view.each_slot(|slot| {
            if arguments.all || !matches!(slot.identity(), Ok(None)) {
                slots.push(SlotReport::of(&slot));
            }
        })?;
        Ok(Slots { schema: SCHEMA, area: AreaReport::of(&view), slots })
    };
    tell(&arguments.look, report(), |report| {
        let width = report.slots.iter().map(|slot| slot.name.len()).max().unwrap_or(0).max(4);
        let mut text =
            format!("{:>5}  {:width$}  {:9}  {:>20}  last named\n", "slot", "name", "state", "generation");
        for slot in &report.slots {
            let last = slot.last.as_ref().map(PeerReport::line).unwrap_or_default();
            let _ = writeln!(
                text,
                "{:>5}  {:width$}  {:9}  {:>20}  {last}{}",
                slot.number,
                slot.name,
                slot.state,
                slot.generation,
                if slot.needs_repair { "  (needs `mmp area repair`)" } else { "" }
            );
        }
        text
    })
}

/// `mmp show` of what a slot guards.
pub(in crate::cli) fn show_slot(place: &Place, (view, slot): (&AreaView, &SlotView), json: bool) -> ExitCode {
    let slot = SlotReport::of(slot);
    let report = Shown {
        schema: SCHEMA,
        device: render::shown(place.asked()),
        generation: slot.generation,
        state: match slot.state.as_str() {
            "free" | "released" => "clean".to_owned(),
            "damaged" => "damaged".to_owned(),
            _ => "live_or_unclean".to_owned(),
        },
        area: AreaReport::of(view),
        slot,
        timing: AreaConsequences::of(view.header.interval_ms),
    };
    if json {
        return output::json(&report);
    }
    let slot = &report.slot;
    let state = match slot.state.as_str() {
        "free" => "free: nobody has held it yet",
        "released" => "released: nobody uses it, says the block",
        "damaged" => "damaged: it can be claimed when it has stood still for two waits",
        "claiming" => "claimed, or its claimer died (`mmp check` finds out)",
        _ => "held, or its holder died (`mmp check` finds out)",
    };
    let last = slot.last.as_ref().map_or("(nobody)", PeerReport::line);
    let mut text = format!(
        "device               {}\nguarded by           slot {} \"{}\"\nstate                {state}\ngeneration           {}\nlast named           {last}\n",
        report.device, slot.number, slot.name, slot.generation
    );
    for damage in &slot.damage {
        let _ = writeln!(text, "damage               {damage}");
    }
    text += &report.area.text();
    text += &consequences(&report.timing);
    output::text(&text)
}

fn tell<T: Serialize>(look: &Look, report: Result<T, Error>, text: impl FnOnce(&T) -> String) -> ExitCode {
    match report {
        Ok(report) if look.json => output::json(&report),
        Ok(report) => output::text(&text(&report)),
        Err(error) if look.json => output::json_failure(&look.target, &error),
        Err(error) => output::failure(&error),
    }
}

impl AreaReport {
    fn of(view: &AreaView) -> Self {
        let header = &view.header;
        AreaReport {
            target: render::shown(view.device.path()),
            uuid: render::uuid(&header.uuid),
            label: header.label.to_string(),
            place: header.place,
            offset_bytes: view.layout.header_offset_bytes(),
            end_bytes: view.layout.end_bytes(),
            target_bytes: header.target_bytes,
            slots: header.slots - 1,
            interval_ms: header.interval_ms,
            created_s: header.created_s,
            revision: header.revision,
            content: header.content.to_string(),
            content_end_bytes: header.content_end_bytes,
            repair: view.repair,
            unusable: view.unusable.clone(),
        }
    }

    fn text(&self) -> String {
        let label = if self.label.is_empty() { "(none)" } else { &self.label };
        let place = match self.place {
            AreaPlace::Tail => format!(
                "behind what stands on it ({}, up to byte {})",
                named(&self.content),
                self.content_end_bytes
            ),
            AreaPlace::Whole => "all over it".to_owned(),
            AreaPlace::File => "a file".to_owned(),
        };
        let mut text = format!(
            "area                 {}, label {label}\n  on                 {}, {place}\n  bytes              {} to {}, {} slots, made {}\n",
            self.uuid,
            self.target,
            self.offset_bytes,
            self.end_bytes - 1,
            self.slots,
            render::when(Wall(self.created_s))
        );
        if let Some(repair) = &self.repair {
            let _ = writeln!(
                text,
                "  repair             its {} has to be written anew: `mmp area repair`",
                repair.role.name()
            );
        }
        if let Some(unusable) = &self.unusable {
            let _ = writeln!(text, "  UNUSABLE           {unusable}");
        }
        text
    }
}

impl SlotReport {
    fn of(slot: &SlotView) -> Self {
        let known = slot.identity().ok().flatten();
        let block = slot.block.as_ref().ok();
        let state = block.map_or("damaged".to_owned(), |block| block.record.state.to_string());
        let held = |block: &&SlotBlock| block.record.state != SlotState::Free;
        let errors = [slot.block.as_ref().err(), slot.entry.as_ref().err()];
        SlotReport {
            number: slot.number,
            name: known.map(|(name, _)| name.to_string()).unwrap_or_default(),
            target: known.map(|(_, target)| render::uuid(&target)).unwrap_or_default(),
            state,
            generation: block.map_or(0, |block| block.record.generation),
            high_water: slot.entry.as_ref().ok().map(|entry| entry.high_water),
            boot_id: block.map(|block| render::uuid(&block.record.boot_id)).unwrap_or_default(),
            needs_repair: slot.needs_repair(),
            last: block.filter(held).map(|block| PeerReport::from(&Peer::from(&block.block))),
            damage: errors.into_iter().flatten().map(ToString::to_string).collect(),
        }
    }
}

fn named(content: &str) -> &str {
    if content.is_empty() { "nothing that is known" } else { content }
}

fn consequences(timing: &AreaConsequences) -> String {
    format!(
        "\nwhat follows from its interval of {} s\n  others are refused within         {:.2} s\n  claim when clean                  {} s\n  \
         claim after a crash               {} s\n  claim over a damaged block        {:.1} s\n  storage outage a holder survives  {} s\n  \
         start timeout for a cluster       {} s\n",
        timing.interval_s,
        timing.refusal_s,
        timing.clean_claim_s,
        timing.crash_claim_s,
        timing.damaged_claim_s,
        timing.outage_survived_s,
        timing.start_timeout_s
    )
}
