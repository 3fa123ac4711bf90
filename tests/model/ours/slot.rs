//! A slot of an area, U = 1 s: so C, waits, leases and the limit are those of a native block with C = 5 s, and the model's unit
//! of time fits both.
//!
//! Generations are numbers of the library's own kind, but the time is not worth 65,536 of them a second: what it is worth is an input
//! ([`Clock`]), since all that counts is whether it is more than what was drawn before.

use std::sync::LazyLock;

use crate::format::area::{
    AreaHeader, AreaPlace, EntryState, GuardRecord, HeaderRole, SlotBlock, SlotEntry, SlotName, SlotState,
};
use crate::format::{Image, MmpBlock, Name};
use crate::ours::sequences::{Base, owner};
use crate::protocol::medium::Area;
use crate::protocol::{Medium, Owner};

const SLOT: u32 = 1;
const TARGET: [u8; 16] = [7; 16];
const STATE: usize = 0x086;
const GENERATION: usize = 0x088;
/// In here something stands only in what is torn: nothing that is written has a field there.
const PADDING: usize = 0x3F0;
/// So far ahead of all that was drawn before is what the time gives: nobody comes there by counting from what came before.
pub(crate) const AHEAD: u8 = 4;

pub(crate) static HEADER: LazyLock<[u8; 1024]> = LazyLock::new(|| {
    let mut bytes = [0; 1024];
    header().encode_into(&mut bytes);
    bytes
});

/// What the wall clock of whoever draws is worth as a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Clock {
    /// More than all that was ever drawn: that was a second ago, and more.
    Ahead,
    /// Somebody has drawn by it in this very second, and that is so far behind the greatest by now.
    Drawn(u8),
    /// Nothing: it was set far back, or never set.
    Behind,
}

impl Clock {
    /// What the guard is told to be the time.
    pub(crate) fn generation(self, base: Base) -> u64 {
        match self {
            Clock::Ahead => base.top + u64::from(AHEAD),
            Clock::Drawn(behind) => base.top - u64::from(behind),
            Clock::Behind => 0,
        }
    }

    /// For a key.
    pub(crate) fn bits(self) -> u64 {
        match self {
            Clock::Ahead => 0,
            Clock::Behind => 1,
            Clock::Drawn(behind) => 2 + u64::from(behind),
        }
    }
}

fn header() -> AreaHeader {
    AreaHeader {
        incompat: 0,
        ro_compat: 0,
        compat: 0,
        uuid: *b"an area, model..",
        offset_bytes: 0,
        target_bytes: 1 << 20,
        slots: 2,
        interval_ms: 1000,
        created_s: 0,
        revision: 1,
        role: HeaderRole::Header,
        place: AreaPlace::Whole,
        label: Name::new(""),
        content_end_bytes: 0,
        content: Name::new(""),
    }
}

fn name() -> SlotName {
    SlotName::new("slot")
}

/// Whoever begins again does so on the same boot: a guard that was killed, and its host was not. With another one fewer blocks would
/// be taken for a guard's own.
fn record_of(state: SlotState, generation: u64, host: u8) -> GuardRecord {
    let boot_id = [host + 1; 16];
    GuardRecord { state, generation, slot: SLOT, interval_ms: 1000, boot_id, target: TARGET, name: name() }
}

/// The slot, to the guard of a host.
pub(crate) fn medium(host: usize) -> Medium {
    let found = record_of(SlotState::Released, 0, u8::try_from(host).expect("there are few"));
    let Owner { node, device } = owner(host);
    Medium::Area(Area::new(header(), &found, Owner { node, device }, found.boot_id))
}

/// State and generation of a slot's block; none if it is none.
pub(crate) fn record(image: &Image) -> Option<(SlotState, u64)> {
    let found = GuardRecord::decode(image, SLOT).ok()?;
    Some((found.state, found.generation))
}

pub(crate) fn encode(image: &mut Image, block: MmpBlock, state: SlotState, generation: u64, host: u8) {
    SlotBlock { block, record: record_of(state, generation, host) }.encode_into(image, header().seed());
}

pub(crate) fn encode_entry(image: &mut Image, high_water: u64) {
    SlotEntry {
        slot: SLOT,
        state: EntryState::Used,
        high_water,
        target: TARGET,
        name: name(),
        changed_s: 0,
        area: header().uuid,
    }
    .encode_into(image);
}

pub(crate) fn high_water(image: &Image) -> u64 {
    SlotEntry::decode(image, &header().uuid, SLOT).expect("an entry is written whole").high_water
}

/// As a write that was cut short between two sectors does: the checksum does not fit.
pub(crate) fn tear(image: &mut Image) {
    image[PADDING] = 1;
}

/// What of an image there is to print, beside its `mmp_struct`: numbers alone, and quickly.
pub(crate) fn printed(image: &Image) -> Option<(u8, u64, bool)> {
    let is_slot = image[0x080..0x084] == *b"GRD1";
    let generation =
        || u64::from_le_bytes(image[GENERATION..GENERATION + 8].try_into().expect("eight bytes"));
    is_slot.then(|| (image[STATE], generation(), image[PADDING] != 0))
}
