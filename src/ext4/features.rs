//! Which feature flags the edits know, and how each that is not treated is called.
//!
//! Protects: a filesystem with a feature that may give a bitmap, a descriptor or a checksum another meaning is not
//! touched. Does not protect: a feature in `s_feature_compat` changes nothing that is edited here, by the meaning of
//! that field, and is never asked for.
//!
//! Source: Linux `fs/ext4/ext4.h` (`EXT4_FEATURE_*`), e2fsprogs `lib/ext2fs/ext2_fs.h`, ldiskfs (dirdata).

use crate::format::Superblock;
use crate::format::superblock::{
    INCOMPAT_64BIT, INCOMPAT_CSUM_SEED, INCOMPAT_JOURNAL_DEV, INCOMPAT_MMP, INCOMPAT_RECOVER,
    RO_COMPAT_METADATA_CSUM,
};

/// `EXT4_FEATURE_COMPAT_SPARSE_SUPER2`: two backups, in `s_backup_bgs`.
pub(super) const COMPAT_SPARSE_SUPER2: u32 = 0x0200;
/// `EXT4_FEATURE_INCOMPAT_META_BG`: group descriptors stand in the groups they describe.
pub(super) const INCOMPAT_META_BG: u32 = 0x0010;
/// `EXT4_FEATURE_RO_COMPAT_SPARSE_SUPER`: backups in groups 0, 1 and the powers of 3, 5 and 7.
pub(super) const RO_COMPAT_SPARSE_SUPER: u32 = 0x0001;
/// `EXT4_FEATURE_RO_COMPAT_GDT_CSUM`, "uninit_bg".
pub(super) const RO_COMPAT_GDT_CSUM: u32 = 0x0010;
/// `EXT4_FEATURE_RO_COMPAT_BIGALLOC`: a bit of a bitmap is a cluster of blocks.
pub(super) const RO_COMPAT_BIGALLOC: u32 = 0x0200;
/// `EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT`: the orphan file is not empty.
pub(super) const RO_COMPAT_ORPHAN_PRESENT: u32 = 0x1_0000;

/// Filetype, extent, flex_bg, ea_inode, dirdata, large_dir, inline_data, encrypt, casefold: they change files and
/// directories, or where metadata may stand, which the bitmaps know. The others are treated here; needs_recovery is
/// refused later, as what it is.
const INCOMPAT_TREATED: u32 = 0x0002
    | 0x0040
    | 0x0200
    | 0x0400
    | 0x1000
    | 0x4000
    | 0x8000
    | 0x1_0000
    | 0x2_0000
    | INCOMPAT_RECOVER
    | INCOMPAT_META_BG
    | INCOMPAT_64BIT
    | INCOMPAT_MMP
    | INCOMPAT_CSUM_SEED;

/// Large_file, btree_dir, huge_file, dir_nlink, extra_isize, quota, project, verity: as above. Orphan_present is refused
/// later, as what it is.
const RO_COMPAT_TREATED: u32 = 0x0002
    | 0x0004
    | 0x0008
    | 0x0020
    | 0x0040
    | 0x0100
    | 0x2000
    | 0x8000
    | RO_COMPAT_SPARSE_SUPER
    | RO_COMPAT_GDT_CSUM
    | RO_COMPAT_BIGALLOC
    | RO_COMPAT_METADATA_CSUM
    | RO_COMPAT_ORPHAN_PRESENT;

/// What is known and not treated, by the name that dumpe2fs(8) gives it.
const INCOMPAT_NAMES: [(u32, &str); 2] = [(0x0001, "compression"), (INCOMPAT_JOURNAL_DEV, "journal_dev")];
const RO_COMPAT_NAMES: [(u32, &str); 4] =
    [(0x0080, "has_snapshot"), (0x0800, "replica"), (0x1000, "read-only"), (0x4000, "shared_blocks")];

/// The features that are not treated, as a list for a message; nothing if there are none.
pub(super) fn untreated(superblock: &Superblock) -> Option<String> {
    let incompat = superblock.feature_incompat & !INCOMPAT_TREATED;
    let ro_compat = superblock.feature_ro_compat & !RO_COMPAT_TREATED;
    let mut names = list(incompat, &INCOMPAT_NAMES, "incompat");
    names.extend(list(ro_compat, &RO_COMPAT_NAMES, "ro_compat"));
    (!names.is_empty()).then(|| names.join(", "))
}

fn list(flags: u32, names: &[(u32, &str)], field: &str) -> Vec<String> {
    let set = (0..u32::BITS).map(|bit| 1 << bit).filter(|flag| flags & flag != 0);
    set.map(|flag| match names.iter().find(|(known, _)| *known == flag) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("{flag:#x} in s_feature_{field}"),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_treated_is_named_and_what_is_unknown_has_its_number() {
        let names = |incompat, ro_compat| {
            [list(incompat, &INCOMPAT_NAMES, "incompat"), list(ro_compat, &RO_COMPAT_NAMES, "ro_compat")]
                .concat()
                .join(", ")
        };
        assert_eq!(names(0x1, 0x4080), "compression, has_snapshot, shared_blocks");
        assert_eq!(
            names(0x8000_0000, 0x20_0000),
            "0x80000000 in s_feature_incompat, 0x200000 in s_feature_ro_compat"
        );
        for (flags, known) in
            [(INCOMPAT_TREATED, &INCOMPAT_NAMES[..]), (RO_COMPAT_TREATED, &RO_COMPAT_NAMES[..])]
        {
            assert!(known.iter().all(|(flag, _)| flags & flag == 0), "named and treated at once");
        }
    }
}
