//! What a guard of the model is told, and what its step comes to.

use crate::ours::sequences::Block;
use crate::ours::slot::Clock;
use crate::protocol::{Event, Refusal};
use crate::random::Draw;

/// A guard of the table.
pub(crate) type Id = u32;

/// What a guard is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Told {
    Tick,
    Read(Block),
    ReadFailed,
    /// The slot's entry, and what the time is worth as a generation.
    Entry(Block, Clock),
    EntryWritten,
    EntryFailed,
    Written,
    WriteFailed,
    NotWritten,
    Release,
    Withdraw,
}

/// What it asks for then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asks {
    Nothing,
    Read,
    /// The slot's entry.
    Entry,
    /// Not to be begun after so many units.
    Write(Block, u8),
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The guard after it; none once it is over.
    pub(crate) guard: Option<Id>,
    pub(crate) asks: Asks,
    /// How far its host's sequence went on.
    pub(crate) steps: u16,
    /// How far the generation that it drew is ahead of all others.
    pub(crate) generations: u8,
    /// It holds, in an area with a generation so far behind the greatest.
    pub(crate) held: Option<u8>,
    pub(crate) lost: bool,
    pub(crate) released: bool,
    /// It drew how long to back off.
    pub(crate) drew: bool,
    pub(crate) too_slow: bool,
}

impl Step {
    pub(crate) fn new() -> Self {
        Step {
            guard: None,
            asks: Asks::Nothing,
            steps: 0,
            generations: 0,
            held: None,
            lost: false,
            released: false,
            drew: false,
            too_slow: false,
        }
    }

    /// `damage`: a block may be damaged here.
    pub(crate) fn hear(&mut self, event: &Event, generation: u8, damage: bool) {
        match event {
            Event::Held { .. } => self.held = Some(generation),
            Event::Lost { .. } => self.lost = true,
            Event::Released => self.released = true,
            Event::LostRace { .. } => self.drew = true,
            Event::TooSlow { .. } => self.too_slow = true,
            Event::Refused { refusal } => {
                assert!(is_possible(refusal, damage), "there is no such block here: {refusal:?}")
            }
            _ => {}
        }
    }
}

fn is_possible(refusal: &Refusal, damage: bool) -> bool {
    match refusal {
        Refusal::Damaged { .. } | Refusal::UnknownSequence { .. } | Refusal::Fsck { .. } => false,
        Refusal::Changed { .. } => damage,
        _ => true,
    }
}

/// Of a step.
pub(crate) fn key(id: Id, told: Told, draw: Draw) -> u64 {
    let (kind, bits) = match told {
        Told::Tick => (0, 0),
        Told::Read(block) => (1, block.bits()),
        Told::ReadFailed => (2, 0),
        Told::Written => (3, 0),
        Told::WriteFailed => (4, 0),
        Told::NotWritten => (5, 0),
        Told::Release => (6, 0),
        // In the place of the distance that an entry's sequence would have.
        Told::Entry(block, clock) => (7, block.bits() | clock.bits() << 6),
        Told::EntryWritten => (8, 0),
        Told::EntryFailed => (9, 0),
        Told::Withdraw => (10, 0),
    };
    // 29 bits of a block, four of a kind, one of a draw: 34.
    u64::from(id) << 34 | bits << 5 | kind << 1 | u64::from(draw == Draw::Most)
}
