//! What a block means on the medium it stands on. The machines ask here and nowhere else, so none of them asks what
//! kind of medium it is.
//!
//! Native (ext4, ldiskfs): the block says who wrote it and little more, so a live foreign block is [`Verdict::Unclear`]
//! until it was looked at for a while. Only facts that need no time are judged here.

use std::time::Duration;

use super::event::{Change, Refusal};
use super::sequence::{self, Sequence};
use super::timing::{self, CheckInterval};
use crate::clock::{Now, Wall};
use crate::format::superblock::SUPERBLOCK_BYTES;
use crate::format::{BlockDamage, DeviceName, Image, MmpBlock, NodeName, Superblock, SuperblockError};

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
pub enum Medium {
    /// The MMP block of an ext4 or ldiskfs filesystem.
    Native(Native),
}

/// The MMP block of an ext4 or ldiskfs filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Native {
    superblock: Superblock,
    owner: Owner,
}

impl Native {
    /// Takes the superblock as it was found, and the names to write.
    #[must_use]
    pub fn new(superblock: Superblock, owner: Owner) -> Self {
        Native { superblock, owner }
    }
}

impl Medium {
    /// The names we write.
    #[must_use]
    pub fn owner(&self) -> Owner {
        let Medium::Native(native) = self;
        native.owner
    }

    /// From here on we write these names: those that the local kernel writes, as they were found.
    pub(super) fn rename(&mut self, owner: Owner) {
        let Medium::Native(native) = self;
        native.owner = owner;
    }

    /// The filesystem's own interval, in seconds as it stands in the superblock.
    #[must_use]
    pub fn update_interval_s(&self) -> u16 {
        let Medium::Native(native) = self;
        native.superblock.mmp_update_interval_s
    }

    /// C of a taker, whatever stands in the block.
    #[must_use]
    pub fn own_check(&self) -> CheckInterval {
        CheckInterval::Native(timing::taker_check_interval_s(self.update_interval_s(), 0))
    }

    /// The same, of one who has found this `mmp_check_interval`.
    #[must_use]
    pub fn taker_check_of(&self, on_disk_s: u16) -> CheckInterval {
        CheckInterval::Native(timing::taker_check_interval_s(self.update_interval_s(), on_disk_s))
    }

    /// C of a taker who finds this block.
    #[must_use]
    pub fn taker_check(&self, found: &Image) -> CheckInterval {
        self.own_check().max(self.check_of(found))
    }

    /// C that a holder with this interval writes, whose last cycle took so long.
    #[must_use]
    pub fn holder_check(&self, interval: Duration, last_cycle: Duration, floor_s: u16) -> CheckInterval {
        CheckInterval::Native(timing::holder_check_interval_s(interval, last_cycle, floor_s))
    }

    /// C that a block of ours shows.
    #[must_use]
    pub fn check_of(&self, image: &Image) -> CheckInterval {
        CheckInterval::Native(MmpBlock::fields(image).check_interval_s)
    }

    /// U*: what a look for the beat of somebody with this C in his block must cover.
    #[must_use]
    pub fn longest_interval(&self, ours: Duration, peer_check_interval_s: u16) -> Duration {
        timing::longest_interval(ours, self.update_interval_s(), peer_check_interval_s)
    }

    /// How much longer a watch lasts for the sake of peers that check late.
    #[must_use]
    pub fn margin(&self) -> Duration {
        timing::NATIVE_MARGIN
    }

    /// How far, in seconds, clocks may be apart: a stamp that is further ahead says that our own clock stood still.
    #[must_use]
    pub fn stamp_tolerance_s(&self) -> u64 {
        self.own_check().span().as_secs().max(1)
    }

    /// Decodes a block.
    ///
    /// # Errors
    /// [`BlockDamage`] as the format says.
    pub fn decode(&self, image: &Image) -> Result<MmpBlock, BlockDamage> {
        let Medium::Native(native) = self;
        MmpBlock::decode(image, native.superblock.checksum_seed)
    }

    /// Our next block over `base`: our names, `seq`, the wall clock, C; the padding stays.
    #[must_use]
    pub fn compose(&self, base: &Image, seq: u32, wall: Wall, check: CheckInterval) -> Image {
        let Medium::Native(native) = self;
        let mut image = *base;
        let Owner { node, device } = native.owner;
        let check_interval_s = check.field_s();
        MmpBlock { seq, time_s: wall.0, node, device, check_interval_s }
            .encode_into(&mut image, native.superblock.checksum_seed);
        image
    }

    /// `base` with another sequence and the wall clock, and nothing else changed: what may be written while the kernel
    /// has the filesystem mounted, since a direct write lands in the very buffer that `kmmpd` goes on with.
    #[must_use]
    pub fn renew(&self, base: &Image, seq: u32, wall: Wall) -> Image {
        let Medium::Native(native) = self;
        let mut image = *base;
        MmpBlock { seq, time_s: wall.0, ..MmpBlock::fields(base) }
            .encode_into(&mut image, native.superblock.checksum_seed);
        image
    }

    /// Compares the superblock, read afresh, with the one the claim began with, and tells whether a clean mark can be
    /// believed: true if it can.
    ///
    /// # Errors
    /// [`Refusal::Changed`], if the block may no longer be where it was: nothing may be written then.
    pub fn clean_is_believable(&self, bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<bool, Refusal> {
        let Medium::Native(native) = self;
        let unusable = |error: SuperblockError| {
            let change = if error.is_damage() { Change::Damaged } else { Change::Gone };
            Refusal::Changed { what: error.to_string(), change }
        };
        let fresh = Superblock::decode(bytes).map_err(unusable)?;
        fresh.mmp_offset_bytes().map_err(unusable)?;
        let known = &native.superblock;
        let differs = |what: &str, change| Err(Refusal::Changed { what: what.to_owned(), change });
        let difference = if fresh.uuid != known.uuid {
            return differs("another filesystem was made on it (its UUID is new)", Change::Gone);
        } else if (fresh.mmp_block, fresh.block_bytes) != (known.mmp_block, known.block_bytes) {
            Some("the MMP block was moved")
        } else if fresh.checksum_seed != known.checksum_seed {
            Some("its metadata checksums were changed")
        } else if fresh.mmp_update_interval_s != known.mmp_update_interval_s {
            Some("its MMP interval was changed")
        } else {
            None
        };
        match difference {
            Some(what) => differs(what, Change::Settings),
            None => Ok(!fresh.in_use_or_unclean()),
        }
    }

    /// What a block that is not what we wrote last means, as far as one look can tell.
    #[must_use]
    pub fn judge(&self, image: &Image, now: Now, known: Knowledge) -> Verdict {
        let block = match self.decode(image) {
            Ok(block) => block,
            Err(BlockDamage::Checksum { .. }) => return Verdict::Torn,
            Err(BlockDamage::Magic { .. }) => return Verdict::Unreadable,
        };
        match Sequence::from(block.seq) {
            Sequence::Unknown(_) => Verdict::Unreadable,
            Sequence::Fsck => Verdict::Fsck(block),
            Sequence::Clean => self.judge_clean(image, block, now, known),
            Sequence::Live(seq) => {
                let remembered = u32::try_from(known.our_beats).unwrap_or(u32::MAX).min(OWN_BEATS_REMEMBERED);
                let older = sequence::steps(seq, known.our_seq, remembered).is_some();
                if older && Owner::of(&block) == self.owner() {
                    Verdict::OursOlder
                } else {
                    Verdict::Unclear(block)
                }
            }
        }
    }

    /// A clean mark over a live holder is a forced clear, or a losing kernel's last word, or the end of a successor.
    ///
    /// A successor needs two waits, and a holder who still has his lease saw his own block less than one wait ago by
    /// his own clock: so it can be a successor only if that clock stood still, and then the mark's stamp runs ahead of
    /// our wall clock (assumes clocks kept by NTP to within C). That clock may have been set right before we look, so a
    /// mark with other names counts as a clear only if it can be e2fsprogs' own: that writes the path it was given
    /// (`/dev/sdb1`) where kernels and we write `sdb1`, and leaves the padding zero. Another program's clean end is a
    /// successor's.
    fn judge_clean(&self, image: &Image, block: MmpBlock, now: Now, known: Knowledge) -> Verdict {
        let tolerance_s = self.stamp_tolerance_s();
        if broken!(CleanIsBeatenOver) {
            return Verdict::ClearedOurs(block);
        }
        if stamp_ahead(&block, now.wall, tolerance_s) {
            return Verdict::ForeignClean(block);
        }
        let named = Owner::of(&block);
        let ours = named == self.owner();
        let predecessors = known.predecessor == Some(named);
        let by_path = is_path(&block.device);
        let cleared = by_path && known.seen_lately && image[0x72..0x3FC].iter().all(|&byte| byte == 0);
        if ours || predecessors || cleared {
            Verdict::ClearedOurs(block)
        } else {
            Verdict::ForeignClean(block)
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
