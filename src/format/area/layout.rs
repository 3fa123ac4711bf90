//! Where the blocks of an area stand. Arithmetic only; every result can be named to the system (at or below `i64::MAX`).

use super::{AREA_BLOCK_BYTES, SLOTS_MAX, SLOTS_MIN};

const BLOCK_BYTES: u64 = AREA_BLOCK_BYTES as u64;

/// Position and size of an area on its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaLayout {
    offset_bytes: u64,
    slots: u32,
}

/// Why there is no such layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Too few slots or too many.
    #[error("an area has {SLOTS_MIN} to {SLOTS_MAX} slots, the lock among them, not {slots}")]
    Slots {
        /// How many.
        slots: u32,
    },
    /// It does not begin at a block.
    #[error("an area begins at a multiple of {AREA_BLOCK_BYTES} bytes, not at byte {offset_bytes}")]
    Unaligned {
        /// Where it should begin.
        offset_bytes: u64,
    },
    /// It ends where no offset reaches.
    #[error("an area of {slots} slots at byte {offset_bytes} ends beyond the highest offset there is")]
    TooFar {
        /// Where it should begin.
        offset_bytes: u64,
        /// How many slots.
        slots: u32,
    },
    /// The target is too small.
    #[error("an area of {slots} slots needs {needs_bytes} bytes, of {has_bytes}")]
    NoRoom {
        /// How many slots.
        slots: u32,
        /// How long the area is.
        needs_bytes: u64,
        /// How long its target is.
        has_bytes: u64,
    },
}

impl AreaLayout {
    /// An area of `slots` slots, the lock among them, that begins at byte `offset_bytes` of its target.
    ///
    /// # Errors
    /// [`LayoutError`], but [`LayoutError::NoRoom`].
    pub const fn new(offset_bytes: u64, slots: u32) -> Result<Self, LayoutError> {
        if slots < SLOTS_MIN || slots > SLOTS_MAX {
            return Err(LayoutError::Slots { slots });
        }
        if !offset_bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(LayoutError::Unaligned { offset_bytes });
        }
        let layout = AreaLayout { offset_bytes, slots };
        if offset_bytes > i64::MAX as u64 - layout.total_bytes() {
            return Err(LayoutError::TooFar { offset_bytes, slots });
        }
        Ok(layout)
    }

    /// The area that ends with the last whole block of a target of `target_bytes`.
    ///
    /// # Errors
    /// [`LayoutError::Slots`], [`LayoutError::NoRoom`], or [`LayoutError::TooFar`] for a target that no offset reaches.
    pub fn tail(target_bytes: u64, slots: u32) -> Result<Self, LayoutError> {
        let layout = Self::new(0, slots)?;
        let needs_bytes = layout.total_bytes();
        match (target_bytes / BLOCK_BYTES * BLOCK_BYTES).checked_sub(needs_bytes) {
            Some(offset_bytes) => Self::new(offset_bytes, slots),
            None => Err(LayoutError::NoRoom { slots, needs_bytes, has_bytes: target_bytes }),
        }
    }

    /// How many slots it has, the lock among them.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.slots
    }

    /// Its length in bytes: 2n + 2 blocks.
    #[must_use]
    pub const fn total_bytes(&self) -> u64 {
        self.block(2 * self.slots as u64 + 2)
    }

    /// Where it ends on its target, in bytes: the first byte behind it.
    #[must_use]
    pub const fn end_bytes(&self) -> u64 {
        self.offset_bytes + self.total_bytes()
    }

    /// Where the header stands, in bytes: where the area begins.
    #[must_use]
    pub const fn header_offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// Where the copy of the header stands, in bytes.
    #[must_use]
    pub const fn copy_offset_bytes(&self) -> u64 {
        self.offset_bytes + self.block(2 * self.slots as u64 + 1)
    }

    /// Where the slot block of `slot` stands, in bytes; none if there is no such slot.
    #[must_use]
    pub fn slot_offset_bytes(&self, slot: u32) -> Option<u64> {
        (slot < self.slots).then(|| self.offset_bytes + self.block(1 + u64::from(slot)))
    }

    /// Where the entry block of `slot` stands, in bytes; none if there is no such slot.
    #[must_use]
    pub fn entry_offset_bytes(&self, slot: u32) -> Option<u64> {
        let block = 1 + u64::from(self.slots) + u64::from(slot);
        (slot < self.slots).then(|| self.offset_bytes + self.block(block))
    }

    const fn block(&self, number: u64) -> u64 {
        number * BLOCK_BYTES
    }
}

/// How many slots an area of at most `bytes` can have, the lock among them; none if not even the smallest fits.
#[must_use]
pub fn slots_that_fit(bytes: u64) -> Option<u32> {
    let slots = (bytes / BLOCK_BYTES).checked_sub(2)? / 2;
    let slots = u32::try_from(slots).unwrap_or(u32::MAX).min(SLOTS_MAX);
    (slots >= SLOTS_MIN).then_some(slots)
}

/// Where the last whole block of a target of `target_bytes` stands, in bytes: there is the copy of a tail area's header. None if
/// the target has no whole block.
#[must_use]
pub const fn last_block_offset_bytes(target_bytes: u64) -> Option<u64> {
    match (target_bytes / BLOCK_BYTES).checked_sub(1) {
        Some(block) => Some(block * BLOCK_BYTES),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_follow_each_other() {
        let layout = AreaLayout::new(8192, 3).unwrap();
        assert_eq!(layout.header_offset_bytes(), 2 * 4096);
        assert_eq!((0..4).map(|slot| layout.slot_offset_bytes(slot)).collect::<Vec<_>>(), {
            [Some(3 * 4096), Some(4 * 4096), Some(5 * 4096), None]
        });
        assert_eq!((0..4).map(|slot| layout.entry_offset_bytes(slot)).collect::<Vec<_>>(), {
            [Some(6 * 4096), Some(7 * 4096), Some(8 * 4096), None]
        });
        assert_eq!(layout.copy_offset_bytes(), 9 * 4096);
        assert_eq!((layout.total_bytes(), layout.end_bytes()), (8 * 4096, 10 * 4096));
    }

    #[test]
    fn impossible_layouts_are_refused() {
        assert_eq!(AreaLayout::new(0, 1), Err(LayoutError::Slots { slots: 1 }));
        assert_eq!(AreaLayout::new(0, 65_538), Err(LayoutError::Slots { slots: 65_538 }));
        assert_eq!(AreaLayout::new(512, 2), Err(LayoutError::Unaligned { offset_bytes: 512 }));
        let highest = (i64::MAX as u64 / 4096 - 6) * 4096;
        assert!(AreaLayout::new(highest, 2).is_ok());
        for offset_bytes in [highest + 4096, u64::MAX / 4096 * 4096] {
            assert_eq!(AreaLayout::new(offset_bytes, 2), Err(LayoutError::TooFar { offset_bytes, slots: 2 }));
        }
        assert!(matches!(AreaLayout::tail(u64::MAX, 2), Err(LayoutError::TooFar { .. })));
        let small = AreaLayout::tail(6 * 4096 - 1, 2);
        assert_eq!(small, Err(LayoutError::NoRoom { slots: 2, needs_bytes: 6 * 4096, has_bytes: 24575 }));
    }

    #[test]
    fn a_tail_ends_with_the_last_whole_block() {
        let target_bytes = 100 * 4096 + 512;
        let layout = AreaLayout::tail(target_bytes, 9).unwrap();
        assert_eq!((layout.header_offset_bytes(), layout.end_bytes()), (80 * 4096, 100 * 4096));
        assert_eq!(Some(layout.copy_offset_bytes()), last_block_offset_bytes(target_bytes));
        assert_eq!((last_block_offset_bytes(4095), last_block_offset_bytes(4096)), (None, Some(0)));
    }

    #[test]
    fn as_many_slots_fit_as_there_is_room_for() {
        for slots in [2, 3, 100, SLOTS_MAX] {
            let bytes = AreaLayout::new(0, slots).unwrap().total_bytes();
            assert_eq!(slots_that_fit(bytes), Some(slots));
            assert_eq!(slots_that_fit(bytes - 1), (slots > 2).then_some(slots - 1));
        }
        assert_eq!(slots_that_fit(u64::MAX), Some(SLOTS_MAX));
        assert_eq!((slots_that_fit(0), slots_that_fit(6 * 4096 - 1)), (None, None));
    }
}
