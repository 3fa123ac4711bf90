//! The MMP block of an ext4 or ldiskfs filesystem.
//!
//! Protects: a clean mark under a journal that needs recovery is not believed, and no block is claimed that may no longer be where it
//! was. Cannot tell a claimer from a holder by one look: the block says who wrote it, and little more.

use super::super::event::{Change, Refusal};
use super::super::sequence::{self, Sequence};
use super::{Knowledge, OWN_BEATS_REMEMBERED, Owner, Verdict, is_path, stamp_ahead};
use crate::clock::Now;
use crate::format::superblock::SUPERBLOCK_BYTES;
use crate::format::{Image, MmpBlock, Superblock, SuperblockError};

/// The MMP block of an ext4 or ldiskfs filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Native {
    pub(super) superblock: Superblock,
    pub(super) owner: Owner,
}

impl Native {
    /// Takes the superblock as it was found, and the names to write.
    #[must_use]
    pub fn new(superblock: Superblock, owner: Owner) -> Self {
        Native { superblock, owner }
    }

    /// See [`super::Medium::clean_is_believable`].
    pub(super) fn clean_is_believable(&self, bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<bool, Refusal> {
        let unusable = |error: SuperblockError| {
            let change = if error.is_damage() { Change::Damaged } else { Change::Gone };
            Refusal::Changed { what: error.to_string(), change }
        };
        let fresh = Superblock::decode(bytes).map_err(unusable)?;
        fresh.mmp_offset_bytes().map_err(unusable)?;
        let known = &self.superblock;
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

    /// What a readable block that is not what we wrote last means, as far as one look can tell. `tolerance_s`: how far clocks may be
    /// apart.
    pub(super) fn judge(
        &self,
        image: &Image,
        block: MmpBlock,
        now: Now,
        known: Knowledge,
        tolerance_s: u64,
    ) -> Verdict {
        match Sequence::from(block.seq) {
            Sequence::Unknown(_) => Verdict::Unreadable,
            Sequence::Fsck => Verdict::Fsck(block),
            Sequence::Clean => self.judge_clean(image, block, now, known, tolerance_s),
            Sequence::Live(seq) => {
                let remembered = u32::try_from(known.our_beats).unwrap_or(u32::MAX).min(OWN_BEATS_REMEMBERED);
                let older = sequence::steps(seq, known.our_seq, remembered).is_some();
                if older && Owner::of(&block) == self.owner {
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
    fn judge_clean(
        &self,
        image: &Image,
        block: MmpBlock,
        now: Now,
        known: Knowledge,
        tolerance_s: u64,
    ) -> Verdict {
        if broken!(CleanIsBeatenOver) {
            return Verdict::ClearedOurs(block);
        }
        if stamp_ahead(&block, now.wall, tolerance_s) {
            return Verdict::ForeignClean(block);
        }
        let named = Owner::of(&block);
        let ours = named == self.owner;
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
