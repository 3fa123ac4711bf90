//! What a block means on the medium it stands on. The machines ask here and nowhere else, so none of them asks what
//! kind of medium it is.
//!
//! Native (ext4, ldiskfs): the block says who wrote it and little more, so a live foreign block is [`Verdict::Unclear`]
//! until it was looked at for a while. In an area one look tells. Only facts that need no time are judged here.

mod area;
mod native;

use std::time::Duration;

pub use self::area::Area;
pub use self::native::Native;
use super::event::Refusal;
use super::timing::{self, CheckInterval};
use crate::clock::{Now, Wall};
use crate::format::superblock::SUPERBLOCK_BYTES;
use crate::format::{Damage, DeviceName, Image, MmpBlock, NodeName};

/// How far back a beat of our own is recognised when a failed-over path shows it again.
pub(super) const OWN_BEATS_REMEMBERED: u32 = 64;

/// Who we are in the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// `mmp_nodename`.
    pub node: NodeName,
    /// `mmp_bdevname`.
    pub device: DeviceName,
}

impl Owner {
    /// Whom a block names.
    #[must_use]
    pub fn of(block: &MmpBlock) -> Self {
        Owner { node: block.node, device: block.device }
    }
}

/// What a block that is not what we wrote last means to a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An older beat of our own, come back (a path failed over): beat on.
    OursOlder,
    /// Live and foreign: only looking longer tells a claimer from a holder.
    Unclear(MmpBlock),
    /// A claimer's, by its record: beat over it.
    Claimer(MmpBlock),
    /// A holder's who came before us, and whose write came late, by its record: beat over it.
    Late(MmpBlock),
    /// A holder's who came after us, by its record.
    Successor(MmpBlock),
    /// e2fsck's mark.
    Fsck(MmpBlock),
    /// A clean mark that was put over our own block: beat on.
    ClearedOurs(MmpBlock),
    /// A clean mark of somebody who came, worked and left.
    ForeignClean(MmpBlock),
    /// The magic is right but the checksum is not: torn, or damaged. Look longer.
    Torn,
    /// No MMP block any more, or a sequence without a meaning.
    Unreadable,
}

/// What a holder knows when he asks for a verdict.
#[derive(Clone, Copy, Debug)]
pub struct Knowledge {
    /// The sequence we wrote last.
    pub our_seq: u32,
    /// How many beats we counted up to it.
    pub our_beats: u64,
    /// The previous holder, as long as a late clean mark of his is to be expected.
    pub predecessor: Option<Owner>,
    /// The last look saw our own block less than a check interval ago.
    pub seen_lately: bool,
}

/// A medium and our identity on it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // one a device
pub enum Medium {
    /// The MMP block of an ext4 or ldiskfs filesystem.
    Native(Native),
    /// A slot of an area.
    Area(Area),
}

impl Medium {
    /// The names we write.
    #[must_use]
    pub fn owner(&self) -> Owner {
        match self {
            Medium::Native(native) => native.owner,
            Medium::Area(area) => area.owner,
        }
    }

    /// From here on we write these names: those that the local kernel writes, as they were found.
    pub(super) fn rename(&mut self, owner: Owner) {
        match self {
            Medium::Native(native) => native.owner = owner,
            Medium::Area(area) => area.owner = owner,
        }
    }

    /// A filesystem's own interval, in seconds as it stands in the superblock. An area has none beside U: 0.
    #[must_use]
    pub fn update_interval_s(&self) -> u16 {
        match self {
            Medium::Native(native) => native.superblock.mmp_update_interval_s,
            Medium::Area(_) => 0,
        }
    }

    /// U, where it is not ours to choose.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        match self {
            Medium::Native(_) => None,
            Medium::Area(area) => Some(area.interval()),
        }
    }

    /// C of a taker, whatever stands in the block.
    #[must_use]
    pub fn own_check(&self) -> CheckInterval {
        match self {
            Medium::Native(_) => self.taker_check_of(0),
            Medium::Area(area) => area.check(),
        }
    }

    /// The same, of one who has found this `mmp_check_interval`. An area's block shows its C in another field.
    #[must_use]
    pub fn taker_check_of(&self, on_disk_s: u16) -> CheckInterval {
        match self {
            Medium::Native(_) => {
                CheckInterval::Native(timing::taker_check_interval_s(self.update_interval_s(), on_disk_s))
            }
            Medium::Area(area) => area.check(),
        }
    }

    /// C of a taker who finds this block.
    #[must_use]
    pub fn taker_check(&self, found: &Image) -> CheckInterval {
        match self {
            Medium::Native(_) => self.own_check().max(self.check_shown(found)),
            Medium::Area(area) => area.taker_check(found),
        }
    }

    /// C in a native block that was found. A damaged one is believed as far as a holder may have written that, if its magic is right.
    fn check_shown(&self, found: &Image) -> CheckInterval {
        match self.decode(found) {
            Ok(_) => self.check_of(found),
            Err(damage) if damage.may_be_torn() => {
                self.check_of(found).min(CheckInterval::Native(timing::MAX_CHECK_INTERVAL_S))
            }
            Err(_) => self.own_check(),
        }
    }

    /// C that a holder with this interval writes, whose last cycle took so long.
    #[must_use]
    pub fn holder_check(&self, interval: Duration, last_cycle: Duration, floor_s: u16) -> CheckInterval {
        match self {
            Medium::Native(_) => {
                CheckInterval::Native(timing::holder_check_interval_s(interval, last_cycle, floor_s))
            }
            Medium::Area(area) => area.check(),
        }
    }

    /// C that a block of ours shows.
    #[must_use]
    pub fn check_of(&self, image: &Image) -> CheckInterval {
        match self {
            Medium::Native(_) => CheckInterval::Native(MmpBlock::fields(image).check_interval_s),
            Medium::Area(area) => area.check(),
        }
    }

    /// U*: what a look for the beat of somebody with this C in his block must cover.
    #[must_use]
    pub fn longest_interval(&self, ours: Duration, peer_check_interval_s: u16) -> Duration {
        match self {
            Medium::Native(_) => {
                timing::longest_interval(ours, self.update_interval_s(), peer_check_interval_s)
            }
            Medium::Area(area) => area.interval(),
        }
    }

    /// How much longer a watch lasts for the sake of peers that check late.
    #[must_use]
    pub fn margin(&self) -> Duration {
        match self {
            Medium::Native(_) => timing::NATIVE_MARGIN,
            Medium::Area(_) => Duration::ZERO,
        }
    }

    /// How far, in seconds, clocks may be apart: a stamp that is further ahead says that our own clock stood still.
    #[must_use]
    pub fn stamp_tolerance_s(&self) -> u64 {
        self.own_check().span().as_secs().max(timing::MIN_CHECK_INTERVAL_S.into())
    }

    /// Decodes a block.
    ///
    /// # Errors
    /// [`Damage`] as the format says.
    pub fn decode(&self, image: &Image) -> Result<MmpBlock, Damage> {
        match self {
            Medium::Native(native) => Ok(MmpBlock::decode(image, native.superblock.checksum_seed)?),
            Medium::Area(area) => Ok(area.decode(image)?.block),
        }
    }

    /// Our next block over `base`: our names, `seq`, the wall clock, C; what has no field stays. `holds`: it is a holder's, not a
    /// claimer's, where the medium can say so.
    ///
    /// # Panics
    /// In an area, before a generation was drawn.
    #[must_use]
    pub fn compose(&self, base: &Image, seq: u32, wall: Wall, check: CheckInterval, holds: bool) -> Image {
        let Owner { node, device } = self.owner();
        let block = MmpBlock { seq, time_s: wall.0, node, device, check_interval_s: check.field_s() };
        match self {
            Medium::Native(native) => {
                let mut image = *base;
                block.encode_into(&mut image, native.superblock.checksum_seed);
                image
            }
            Medium::Area(area) => area.compose(base, block, holds),
        }
    }

    /// `base` with another sequence and the wall clock, and nothing else changed: what may be written while the kernel
    /// has the filesystem mounted, since a direct write lands in the very buffer that `kmmpd` goes on with.
    ///
    /// # Panics
    /// In an area: no kernel beats there.
    #[must_use]
    pub fn renew(&self, base: &Image, seq: u32, wall: Wall) -> Image {
        let Medium::Native(native) = self else { unreachable!("no kernel beats in an area") };
        let mut image = *base;
        MmpBlock { seq, time_s: wall.0, ..MmpBlock::fields(base) }
            .encode_into(&mut image, native.superblock.checksum_seed);
        image
    }

    /// Compares what the medium says of itself (the superblock, or the area's header), read afresh, with what the claim began with, and
    /// tells whether a clean mark can be believed: true if it can.
    ///
    /// # Errors
    /// [`Refusal::Changed`], if the block may no longer be where it was: nothing may be written then.
    pub fn clean_is_believable(&self, bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<bool, Refusal> {
        match self {
            Medium::Native(native) => native.clean_is_believable(bytes),
            Medium::Area(area) => area.is_the_same(bytes).map(|()| true),
        }
    }

    /// Whether a claim may go on over this block.
    ///
    /// # Errors
    /// [`Refusal::Changed`] if it is another slot's of an area by now.
    pub(super) fn is_ours_to_claim(&self, image: &Image) -> Result<(), Refusal> {
        match self {
            Medium::Native(_) => Ok(()),
            Medium::Area(area) => area.is_the_slot(image),
        }
    }

    /// Whether a damaged block that stands still may be claimed, though nobody answers for it. A native one may not, as with the kernel; nor may one without its
    /// magic: no write of ours that was torn leaves that, so something else was written there.
    #[must_use]
    pub(super) fn claims_damaged(&self, damage: &Damage) -> bool {
        matches!(self, Medium::Area(_)) && damage.may_be_torn()
    }

    /// Whether a claim that is given up is marked clean again. Not in an area: the mark would have our generation, and could land late
    /// on a rival who drew before us.
    #[must_use]
    pub(super) fn takes_back(&self) -> bool {
        matches!(self, Medium::Native(_)) || broken!(TakesBackInAreas)
    }

    /// The number of our acquisition, that grows with each; none natively, and before it was drawn.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        match self {
            Medium::Native(_) => None,
            Medium::Area(area) => area.generation(),
        }
    }

    /// Goes on with the acquisition of a guard of this host's that has died.
    pub(super) fn resume(&mut self, generation: Option<u64>) {
        if let Medium::Area(area) = self {
            area.resume(generation);
        }
    }

    /// In an area: whether a block is of our own acquisition.
    #[must_use]
    pub(super) fn is_own(&self, image: &Image) -> bool {
        matches!(self, Medium::Area(area) if area.is_own(image))
    }

    /// What a block that is not what we wrote last means, as far as one look can tell.
    #[must_use]
    pub fn judge(&self, image: &Image, now: Now, known: Knowledge) -> Verdict {
        let block = match self.decode(image) {
            Ok(block) => block,
            Err(damage) if damage.may_be_torn() => return Verdict::Torn,
            Err(_) => return Verdict::Unreadable,
        };
        match self {
            Medium::Native(native) => native.judge(image, block, now, known, self.stamp_tolerance_s()),
            Medium::Area(area) => area.judge(image, block),
        }
    }
}

/// True for a device's name as e2fsprogs writes it: the path it was given. A kernel's own may hold a '/' (`etherd/e1.1`),
/// and never begins with one.
#[must_use]
pub fn is_path(device: &DeviceName) -> bool {
    let name = device.bytes();
    name.starts_with(b"/") || name.starts_with(b"./") || name.starts_with(b"../")
}

/// True if `new` is `old` with another sequence (and checksum) and nothing else: a kernel's claim looks like that
/// (Linux `fs/ext4/mmp.c`, `ext4_multi_mount_protect`).
#[must_use]
pub fn differs_in_sequence_alone(old: &Image, new: &Image) -> bool {
    old != new && old[..4] == new[..4] && old[8..0x3FC] == new[8..0x3FC]
}

/// True if the writer's clock runs ahead of ours by more than `tolerance_s`.
#[must_use]
pub fn stamp_ahead(block: &MmpBlock, wall: Wall, tolerance_s: u64) -> bool {
    block.time_s > wall.0.saturating_add(tolerance_s)
}

/// True if the writer's clock is behind ours by more than `tolerance_s`.
#[must_use]
pub fn stamp_behind(block: &MmpBlock, wall: Wall, tolerance_s: u64) -> bool {
    block.time_s.saturating_add(tolerance_s) < wall.0
}
