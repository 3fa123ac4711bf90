//! Areas in memory, by the encoders of the format.

#![allow(dead_code)] // not every test target asks for them

use mmpguard::format::area::{
    AREA_BLOCK_BYTES, AreaHeader, AreaLayout, AreaPlace, EntryState, GuardRecord, HeaderRole, LOCK_NAME,
    SlotBlock, SlotEntry, SlotName, SlotState,
};
use mmpguard::format::{DeviceName, Image, MmpBlock, Name, NodeName};

/// The UUID of the area.
pub(crate) const UUID: [u8; 16] = *b"the area's uuid!";
/// The UUID of what each slot guards.
pub(crate) const TARGET: [u8; 16] = *b"target of a slot";
/// When each slot was written.
pub(crate) const AT_S: u64 = 1_700_000_000;

/// An image with an area, and where its blocks are.
#[derive(Clone)]
pub(crate) struct AreaImage {
    pub(crate) bytes: Vec<u8>,
    pub(crate) layout: AreaLayout,
    pub(crate) header: AreaHeader,
}

impl AreaImage {
    /// An area alone on its image, with these used slots and a free one.
    pub(crate) fn whole(used: &[(&str, SlotState)]) -> Self {
        let slots = u32::try_from(used.len()).unwrap() + 2;
        AreaImage::made(Vec::new(), AreaPlace::Whole, AreaLayout::new(0, slots).unwrap(), used)
    }

    /// An area of one slot behind `before`.
    pub(crate) fn tail(before: &[u8], state: SlotState) -> Self {
        let offset = before.len().next_multiple_of(AREA_BLOCK_BYTES);
        let layout = AreaLayout::new(offset as u64, 2).unwrap();
        AreaImage::made(before.to_owned(), AreaPlace::Tail, layout, &[("own", state)])
    }

    fn made(before: Vec<u8>, place: AreaPlace, layout: AreaLayout, used: &[(&str, SlotState)]) -> Self {
        let mut bytes = before;
        let content_end_bytes = if place == AreaPlace::Tail { bytes.len() as u64 } else { 0 };
        bytes.resize(usize::try_from(layout.end_bytes()).unwrap(), 0);
        let header = AreaHeader {
            incompat: 0,
            ro_compat: 0,
            compat: 0,
            uuid: UUID,
            offset_bytes: layout.header_offset_bytes(),
            target_bytes: layout.end_bytes(),
            slots: layout.slots(),
            interval_ms: 500,
            created_s: AT_S,
            revision: 1,
            role: HeaderRole::Header,
            place,
            label: Name::new("made"),
            content_end_bytes,
            content: Name::new(""),
        };
        let mut area = AreaImage { bytes, layout, header };
        area.put_header(header);
        area.slot(0, LOCK_NAME, SlotState::Free);
        for number in 1..layout.slots() {
            let (name, state) = used.get(number as usize - 1).copied().unwrap_or(("", SlotState::Free));
            area.slot(number, name, state);
        }
        area
    }

    /// Writes both headers.
    pub(crate) fn put_header(&mut self, header: AreaHeader) {
        let (first, last) = (self.layout.header_offset_bytes(), self.layout.copy_offset_bytes());
        for (at, role) in [(first, HeaderRole::Header), (last, HeaderRole::Copy)] {
            AreaHeader { role, ..header }.encode_into(self.image(at));
        }
    }

    /// Writes both blocks of a slot; without a name it is not in use.
    pub(crate) fn slot(&mut self, number: u32, name: &str, state: SlotState) {
        let (seed, uuid) = (self.header.seed(), self.header.uuid);
        let beats = matches!(state, SlotState::Claiming | SlotState::Holding);
        let generation = if state == SlotState::Free { 0 } else { 7 };
        let target = if name.is_empty() || number == 0 { [0; 16] } else { TARGET };
        let block = SlotBlock {
            block: MmpBlock {
                seq: if beats { 77 } else { 0xFF4D_4D50 },
                time_s: AT_S,
                node: NodeName::new("alpha"),
                device: DeviceName::new("sdb"),
                check_interval_s: 3,
            },
            record: GuardRecord {
                state,
                generation,
                slot: number,
                interval_ms: self.header.interval_ms,
                boot_id: [9; 16],
                target,
                name: SlotName::new(name),
            },
        };
        let at = self.layout.slot_offset_bytes(number).unwrap();
        block.encode_into(self.image(at), seed);
        let entry = SlotEntry {
            slot: number,
            state: if name.is_empty() { EntryState::Free } else { EntryState::Used },
            high_water: generation,
            target,
            name: SlotName::new(name),
            changed_s: AT_S,
            area: uuid,
        };
        let at = self.layout.entry_offset_bytes(number).unwrap();
        entry.encode_into(self.image(at));
    }

    /// The bytes of a block that say something.
    pub(crate) fn image(&mut self, at_bytes: u64) -> &mut Image {
        self.bytes[usize::try_from(at_bytes).unwrap()..].first_chunk_mut().unwrap()
    }
}
