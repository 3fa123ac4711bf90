//! One look: from the bytes of a device to its rows.
//!
//! Protects: whatever stands on a disk, there is a row that says what was found; what looks like protection and cannot be read is damage,
//! never "not enabled". The order is that of a claim ([`Place`](crate::driver::Place)): the filesystem's own MMP block, then an area. Does
//! not protect: it is one look, and tells of nobody whether he lives.

use std::time::Duration;

use super::row::{Protection, Row, Slot, State};
use crate::driver::{AreaView, NativeView, OWN_SLOT, SlotView, has_no_mmp};
use crate::error::{Error, Kind};
use crate::format::area::{AreaPlace, LOCK_SLOT, SlotName, SlotState};
use crate::format::content::{HEAD_BYTES, Label, ext_kind, signature};
use crate::format::name::escape;
use crate::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET_BYTES};
use crate::io::ReadAt;
use crate::protocol::{Peer, Sequence, timing};
use crate::sys::content;

/// The slots of an area of more than so many are not looked at: that would be 8 MiB and more to read. `mmp area list` shows them.
pub const SLOTS_AT_MOST: u32 = 1024;

const LEAST_BYTES: u64 = SUPERBLOCK_OFFSET_BYTES + SUPERBLOCK_BYTES as u64;

/// Looks at a device: its row first, then one for each used slot, if it is an area for others.
#[must_use]
pub fn look(device: &impl ReadAt) -> Vec<Row> {
    let mut row = Row::bare(device.path().to_owned(), State::NotEnabled);
    row.size_bytes = Some(device.size_bytes());
    let more = match NativeView::find(device) {
        Ok(native) => by_block(&mut row, device, &native).map(|()| Vec::new()),
        Err(error) if !absent(device, &error) => Err(error),
        Err(_) => beside(&mut row, device),
    };
    let mut rows = vec![row];
    match more {
        Ok(more) => rows.extend(more),
        Err(error) => rows[0].fail(&error),
    }
    rows
}

impl Row {
    /// Why no more is known.
    pub(super) fn fail(&mut self, error: &Error) {
        self.state = match error.kind() {
            Kind::Damaged => State::Damaged,
            Kind::Unsupported => State::Unsupported,
            Kind::Usage => State::NoDevice,
            _ => State::Unreadable,
        };
        self.reason = Some(error.without_path());
    }
}

/// There is no MMP block, rather than one that cannot be reached.
fn absent(device: &impl ReadAt, error: &Error) -> bool {
    match error {
        Error::Short { .. } => device.size_bytes() < LEAST_BYTES,
        error => has_no_mmp(error),
    }
}

/// The MMP block of a filesystem.
fn by_block(row: &mut Row, device: &impl ReadAt, native: &NativeView) -> Result<(), Error> {
    let superblock = &native.superblock;
    let (compat, incompat) = (superblock.feature_compat, superblock.feature_incompat);
    row.filesystem = Some(ext_kind(compat, incompat, superblock.feature_ro_compat).to_owned());
    row.uuid = known(superblock.uuid);
    row.label = known_label(superblock.volume_name.bytes());
    row.protection = Some(Protection::Native);
    row.block_offset_bytes = superblock.mmp_offset_bytes().ok();
    let interval_s = timing::update_interval_s(superblock.mmp_update_interval_s);
    row.interval = Some(Duration::from_secs(interval_s.into()));
    let block = native.read_block(device)?;
    let sequence = Sequence::from(block.seq);
    row.state = State::from(sequence);
    row.last = Some(Peer::from(&block));
    if let Sequence::Unknown(seq) = sequence {
        row.reason = Some(format!("its MMP block has the sequence {seq:#010x}, which means nothing"));
    }
    if sequence == Sequence::Clean && superblock.in_use_or_unclean() {
        row.notes.push("its journal needs recovery: the clean mark may lie".to_owned());
    }
    Ok(())
}

/// What has no MMP block: an area, or nothing.
fn beside(row: &mut Row, device: &impl ReadAt) -> Result<Vec<Row>, Error> {
    content(row, device)?;
    let Some(area) = AreaView::find(&device)? else {
        row.protection = Some(Protection::None);
        return Ok(Vec::new());
    };
    let header = &area.header;
    row.interval = Some(Duration::from_millis(header.interval_ms.into()));
    if let Some(repair) = &area.repair {
        row.notes.push(format!("its {} has to be written anew: `mmp area repair`", repair.role.name()));
    }
    if header.place == AreaPlace::Tail {
        row.protection = Some(Protection::TailArea);
        take_slot(row, &area.read_slot(OWN_SLOT)?);
        let used = row.slot.take().is_some_and(|slot| !slot.name.is_empty());
        if !used && row.state == State::Clean {
            (row.state, row.reason) = (State::Unusable, Some("its slot has no name".to_owned()));
        }
        unusable(row, &area);
        return Ok(Vec::new());
    }
    row.protection = Some(Protection::Area);
    (row.filesystem, row.label) = (None, known_label(header.label.bytes()));
    row.state = State::Usable;
    unusable(row, &area);
    let slots = header.slots - 1;
    if slots > SLOTS_AT_MOST {
        row.notes.push(format!("{slots} slots: `mmp area list` shows them"));
        return Ok(Vec::new());
    }
    let rows = used_slots(row, &area)?;
    let used = rows.iter().filter(|row| row.slot.as_ref().is_some_and(|slot| slot.number != LOCK_SLOT));
    row.notes.push(format!("{} of {slots} slots used", used.count()));
    Ok(rows)
}

/// Those that are in use, and the lock if somebody has it, or had it when he died.
fn used_slots<D: ReadAt + Clone>(area_row: &Row, area: &AreaView<D>) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    area.each_slot(|view| {
        let shown = match view.number {
            LOCK_SLOT => view.is_live_or_unclean(),
            _ => !matches!(view.identity(), Ok(None)),
        };
        if shown {
            let mut row = Row::bare(area_row.paths[0].clone(), State::NotEnabled);
            (row.protection, row.interval) = (Some(Protection::Slot), area_row.interval);
            row.uuid = view.identity().ok().flatten().and_then(|(_, target)| known(target));
            take_slot(&mut row, &view);
            rows.push(row);
        }
    })?;
    Ok(rows)
}

/// What a slot says.
fn take_slot(row: &mut Row, view: &SlotView) {
    let name = view.identity().ok().flatten().map_or(SlotName::new(""), |(name, _)| name);
    row.slot = Some(Slot { number: view.number, name });
    match &view.block {
        Ok(block) => {
            row.generation = Some(block.record.generation);
            row.state = State::from(block.record.state);
            // One that nobody held since it was added names nobody.
            row.last = (block.record.state != SlotState::Free).then(|| Peer::from(&block.block));
        }
        Err(error) => {
            row.state = if error.is_damage() { State::Damaged } else { State::Unsupported };
            row.reason = Some(error.to_string());
        }
    }
    if view.needs_repair() {
        row.notes.push("needs `mmp area repair`".to_owned());
    }
}

/// Nothing may be claimed there, whatever the slot says.
fn unusable<D: ReadAt + Clone>(row: &mut Row, area: &AreaView<D>) {
    let later = || area.header.check_writable().err().map(|error| error.to_string());
    if let Some(why) = area.unusable.clone().or_else(later) {
        (row.state, row.reason) = (State::Unusable, Some(why));
    }
}

/// What stands there, by the readers of this crate. What is damaged has no end, and no area behind it is believed: that is told by
/// whoever looks for one.
fn content(row: &mut Row, device: &impl ReadAt) -> Result<(), Error> {
    let standing = match content::filesystems(device) {
        Ok(standing) => standing,
        Err(error @ Error::Content { .. }) => {
            row.notes.push(escape(error.without_path().as_bytes()));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if let Some(first) = standing.first() {
        let kinds: Vec<_> = standing.iter().map(|standing| standing.kind).collect();
        row.filesystem = Some(kinds.join("+"));
        if let [only] = standing.as_slice() {
            (row.uuid, row.label) = (known(only.uuid), known_label(only.label.bytes()));
        }
        if first.devices > 1 {
            row.notes.push(format!("one of {} devices of its {}", first.devices, first.kind));
        }
        return Ok(());
    }
    let bytes = device.size_bytes().min(HEAD_BYTES as u64);
    let mut head = vec![0; usize::try_from(bytes).unwrap_or(HEAD_BYTES)];
    device.read_at(0, &mut head)?;
    row.filesystem = signature(&head).map(ToOwned::to_owned);
    Ok(())
}

/// A UUID of nothing but zeroes is none.
fn known(uuid: [u8; 16]) -> Option<[u8; 16]> {
    (uuid != [0; 16]).then_some(uuid)
}

fn known_label(bytes: &[u8]) -> Option<Label> {
    let mut field = [0; 256];
    field.get_mut(..bytes.len())?.copy_from_slice(bytes);
    (!bytes.is_empty()).then_some(Label::from_field(field))
}
