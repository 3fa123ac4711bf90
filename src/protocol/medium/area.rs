//! A slot of an area (`mmp-format.md`, *MMP areas*): the guard record in the block says whether its writer claims or holds, on which
//! boot, and with which generation. So one look tells whose a block is, and nobody has to be watched to be judged.
//!
//! Protects: a block of another slot, name or target is never claimed nor beaten over, and a generation is never given to two
//! holders as long as slot block and entry block do not both go back. Does not protect against two hosts with one boot id.

use std::time::Duration;

use super::super::event::{Change, Refusal};
use super::super::sequence::Sequence;
use super::super::timing::CheckInterval;
use super::{Owner, Verdict};
use crate::clock::Wall;
use crate::format::area::{
    AreaError, AreaHeader, EntryState, GuardRecord, HeaderRole, SlotBlock, SlotEntry, SlotName, SlotState,
    next_generation,
};
use crate::format::superblock::SUPERBLOCK_BYTES;
use crate::format::{Image, MmpBlock};

/// A slot of an area, and our identity there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    header: AreaHeader,
    slot: u32,
    name: SlotName,
    target: [u8; 16],
    pub(super) owner: Owner,
    boot_id: [u8; 16],
    /// Ours, once a claim has drawn it.
    generation: Option<u64>,
}

impl Area {
    /// The slot with that number, as the header and the slot's own block were found. `owner` and `boot_id` are what we write.
    #[must_use]
    pub fn new(header: AreaHeader, found: &GuardRecord, owner: Owner, boot_id: [u8; 16]) -> Self {
        let (slot, name, target) = (found.slot, found.name, found.target);
        Area { header, slot, name, target, owner, boot_id, generation: None }
    }

    /// The number of our acquisition; none before it was drawn.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        self.generation
    }

    /// From here on that is ours: the one that a guard of this host's drew, who has died.
    pub(super) fn resume(&mut self, generation: Option<u64>) {
        self.generation = generation;
    }

    /// U.
    pub(super) fn interval(&self) -> Duration {
        Duration::from_millis(self.header.interval_ms.into())
    }

    pub(super) fn check(&self) -> CheckInterval {
        CheckInterval::Area(self.header.interval_ms)
    }

    /// By the larger of the header's U and that of whoever wrote the block: it may have been changed since.
    pub(super) fn taker_check(&self, found: &Image) -> CheckInterval {
        let written_ms = self.decode(found).map_or(0, |found| found.record.interval_ms);
        CheckInterval::Area(self.header.interval_ms.max(written_ms))
    }

    pub(super) fn decode(&self, image: &Image) -> Result<SlotBlock, AreaError> {
        SlotBlock::decode(image, self.header.seed(), self.slot)
    }

    /// Of what stood there only what has no field is kept; of a damaged block nothing.
    pub(super) fn compose(&self, base: &Image, block: MmpBlock, holds: bool) -> Image {
        let mut image = *base;
        if self.decode(base).is_err() {
            image.fill(0);
        }
        let state = match (Sequence::from(block.seq), holds) {
            (Sequence::Clean, _) => SlotState::Released,
            (_, true) => SlotState::Holding,
            (_, false) => SlotState::Claiming,
        };
        let record = GuardRecord {
            state,
            generation: self.generation.expect("nothing is written before a generation was drawn"),
            slot: self.slot,
            interval_ms: self.header.interval_ms,
            boot_id: self.boot_id,
            target: self.target,
            name: self.name,
        };
        SlotBlock { block, record }.encode_into(&mut image, self.header.seed());
        image
    }

    /// Whether a claim may go on over this block, which decodes: it is still the slot that was asked for.
    ///
    /// # Errors
    /// [`Refusal::Changed`].
    pub(super) fn is_the_slot(&self, image: &Image) -> Result<(), Refusal> {
        let Ok(found) = self.decode(image) else { return Ok(()) };
        // A slot that was added and never used is free, and named.
        self.is_named(found.record.name.is_empty(), found.record.name, found.record.target)
    }

    fn is_named(&self, free: bool, name: SlotName, target: [u8; 16]) -> Result<(), Refusal> {
        let what = if free {
            "the slot was removed"
        } else if name != self.name {
            "the slot was given another name"
        } else if target != self.target {
            "the slot was given to another target"
        } else {
            return Ok(());
        };
        Err(Refusal::Changed { what: what.to_owned(), change: Change::Gone })
    }

    /// The header, or its copy, read afresh, is the one that the claim began with.
    pub(super) fn is_the_same(&self, bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<(), Refusal> {
        let unusable = |error: AreaError| {
            let change = if error.is_damage() && !error.is_absent() { Change::Damaged } else { Change::Gone };
            Refusal::Changed { what: error.to_string(), change }
        };
        let copy = AreaHeader::decode(bytes, HeaderRole::Copy);
        let fresh = copy.or_else(|_| AreaHeader::decode(bytes, HeaderRole::Header)).map_err(unusable)?;
        fresh.check_writable().map_err(unusable)?;
        let known = &self.header;
        let changed = |what: &str, change| Err(Refusal::Changed { what: what.to_owned(), change });
        if fresh.uuid != known.uuid {
            return changed("another area was made there (its UUID is new)", Change::Gone);
        }
        let place = |header: &AreaHeader| (header.offset_bytes, header.target_bytes, header.slots);
        if place(&fresh) != place(known) {
            return changed("the area was moved", Change::Settings);
        }
        if fresh.interval_ms != known.interval_ms {
            return changed("the area's interval was changed", Change::Settings);
        }
        Ok(())
    }

    /// A clean mark whose generation is not the last that was given away: whoever has a later one may hold the slot, and a late mark of
    /// somebody before him has covered his beat. So it is watched like a live block.
    pub(in crate::protocol) fn doubts_clean(&self, base: &Image, entry: &Image) -> bool {
        let standing = self.decode(base).map_or(0, |found| found.record.generation);
        let high_water = SlotEntry::decode(entry, &self.header.uuid, self.slot).map(|found| found.high_water);
        high_water.map_or(true, |high_water| standing < high_water) && !broken!(BelievesOldMarks)
    }

    /// Draws the generation of a claim over `base`: one more than slot block and entry have ever shown. The entry that has to stand
    /// on the disk before the claim is written. `is_believed`: `base` is a clean mark that is not doubted.
    ///
    /// # Errors
    /// [`Refusal::Changed`] if the entry is another slot's, or neither says which generations were given away.
    pub(in crate::protocol) fn draw(
        &mut self,
        base: &Image,
        entry: &Image,
        is_believed: bool,
        wall: Wall,
    ) -> Result<Image, Refusal> {
        let damaged = |what: String| Refusal::Changed { what, change: Change::Damaged };
        let found = match SlotEntry::decode(entry, &self.header.uuid, self.slot) {
            Ok(found) => Some(found),
            Err(error) if error.is_damage() => None,
            Err(error) => return Err(damaged(error.to_string())),
        };
        if let Some(found) = &found {
            self.is_named(found.state == EntryState::Free, found.name, found.target)?;
        }
        let standing = self.decode(base).ok().map(|found| found.record.generation);
        // Late writes may have set both back, and then nothing but the time tells: unless the mark is the last one's own.
        let floor_s = if is_believed { self.header.created_s } else { wall.0 };
        let high_water = found.map(|found| found.high_water).filter(|_| !broken!(GenerationFromTheBlock));
        let generation =
            next_generation(standing, high_water, floor_s).map_err(|error| damaged(error.to_string()))?;
        self.generation = Some(generation);
        let mut image = *entry;
        if found.is_none() {
            image.fill(0);
        }
        SlotEntry {
            slot: self.slot,
            state: EntryState::Used,
            high_water: generation,
            target: self.target,
            name: self.name,
            changed_s: wall.0,
            area: self.header.uuid,
        }
        .encode_into(&mut image);
        Ok(image)
    }

    /// Whoever draws from that entry gets a greater generation than ours.
    pub(in crate::protocol) fn knows_ours(&self, entry: &Image) -> bool {
        SlotEntry::decode(entry, &self.header.uuid, self.slot)
            .is_ok_and(|found| Some(found.high_water) >= self.generation)
    }

    /// It has our generation, of our boot: we wrote it, or the guard did whose place we have taken.
    pub(super) fn is_own(&self, image: &Image) -> bool {
        self.decode(image).is_ok_and(|found| self.has_written(&found.record))
    }

    fn has_written(&self, record: &GuardRecord) -> bool {
        Some(record.generation) == self.generation && record.boot_id == self.boot_id
    }

    /// What a block that is not what we wrote last means to a holder.
    ///
    /// A successor has a greater generation than ours, a claimer says that he is one, and who came before us has a smaller one:
    /// whatever of his lands now is late. Nobody else writes ours, on our boot. An equal generation of another boot is a rival's of
    /// our own claim: claiming he has lost it, holding or releasing he passed his whole wait, and then we stop.
    pub(super) fn judge(&self, image: &Image, block: MmpBlock) -> Verdict {
        let Ok(SlotBlock { record, .. }) = self.decode(image) else { return Verdict::Unreadable };
        let ours = self.has_written(&record);
        let earlier = Some(record.generation) < self.generation;
        if !ours && (record.name, record.target) != (self.name, self.target) {
            // It was given to another: nobody could do that without having passed his wait.
            return Verdict::Successor(block);
        }
        match record.state {
            SlotState::Claiming | SlotState::Holding if ours => Verdict::OursOlder,
            SlotState::Free | SlotState::Released if ours || earlier && !broken!(LateMarksStopHolders) => {
                Verdict::ClearedOurs(block)
            }
            SlotState::Free | SlotState::Released => Verdict::ForeignClean(block),
            SlotState::Claiming if earlier || !broken!(ClaimersAreSuccessors) => Verdict::Claimer(block),
            SlotState::Holding if earlier && !broken!(LateBeatsAreSuccessors) => Verdict::Late(block),
            SlotState::Claiming | SlotState::Holding => Verdict::Successor(block),
        }
    }
}
