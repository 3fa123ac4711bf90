//! Why the edits are not made. Each text says what is wrong, where, and what to do; whatever it is, nothing was written,
//! but for [`Ext4Error::Changed`] with a count.

use super::Part;

/// Why MMP cannot be enabled, disabled or set on a filesystem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ext4Error {
    /// The wanted interval is none.
    #[error("an update interval of {interval_s} s cannot be meant; it is 1 to {max_s} s")]
    Interval {
        /// What was wanted, in seconds.
        interval_s: u16,
        /// The longest, in seconds.
        max_s: u16,
    },
    /// A feature may change what the edits rely on.
    #[error(
        "it has features that are not treated here: {features}; if tune2fs(8) knows them, use `tune2fs -O mmp` or \
         `tune2fs -O ^mmp`"
    )]
    Features {
        /// Their names, or their numbers.
        features: String,
    },
    /// It was not left in order.
    #[error(
        "it was not left in order: {what}; if no host has it mounted, mount and unmount it once, or run `e2fsck -f` on it"
    )]
    Unclean {
        /// What shows that.
        what: &'static str,
    },
    /// The kernel found errors in it.
    #[error("errors are flagged on it (0x3A s_state); run `e2fsck -f` on it first")]
    Errors,
    /// Numbers of the superblock that do not go together.
    #[error("the superblock is damaged: {what}; run `e2fsck -f` on it")]
    Geometry {
        /// Which.
        what: String,
    },
    /// A layout that is right, and too much for a plan.
    #[error(
        "it has {groups} groups with a copy of the superblock each, and no sparse_super: more than are written here; use \
         tune2fs(8) for this change"
    )]
    Copies {
        /// How many.
        groups: u32,
    },
    /// The descriptor's checksum does not fit.
    #[error(
        "the descriptor of block group {group} is damaged: bad checksum {stored:#06x} (its bytes give \
         {computed:#06x}); run `e2fsck -f` on it"
    )]
    DescriptorChecksum {
        /// Which group.
        group: u32,
        /// Where the descriptor begins, in bytes from the start of the device.
        offset_bytes: u64,
        /// What stands there.
        stored: u16,
        /// What the bytes give.
        computed: u16,
    },
    /// The block bitmap's checksum does not fit.
    #[error(
        "the block bitmap of group {group} is damaged: bad checksum {stored:#x} (its bytes give {computed:#x}); run \
         `e2fsck -f` on it"
    )]
    BitmapChecksum {
        /// Which group.
        group: u32,
        /// Where the descriptor begins, in which the checksum stands, in bytes from the start of the device.
        offset_bytes: u64,
        /// What stands there, in as many bits as the descriptor has room for.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// Descriptor, bitmap and superblock contradict each other.
    #[error("block group {group} is damaged: {what}; run `e2fsck -f` on it")]
    Group {
        /// Which group.
        group: u32,
        /// What does not fit.
        what: String,
    },
    /// Two of the blocks that would be written are the same.
    #[error("its layout is damaged: {one} and {other} would share bytes; run `e2fsck -f` on it")]
    Overlap {
        /// What would be written.
        one: Part,
        /// What would be written there, too.
        other: Part,
    },
    /// Every block is used.
    #[error("it has no free block for the MMP block; remove a file, or grow it with resize2fs(8)")]
    NoSpace,
    /// Somebody else wrote to it.
    #[error("{part} changed since it was looked at: somebody else writes to it; {}", changed_advice(*.written))]
    Changed {
        /// What is not as it was.
        part: Part,
        /// How many writes of ours were done by then.
        written: usize,
    },
}

impl Ext4Error {
    /// True if the bytes cannot be right.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Errors
                | Self::Geometry { .. }
                | Self::DescriptorChecksum { .. }
                | Self::BitmapChecksum { .. }
                | Self::Group { .. }
                | Self::Overlap { .. }
        )
    }
}

fn changed_advice(written: usize) -> String {
    match written {
        0 => "nothing was written, try again when nobody uses it".to_owned(),
        _ => format!("{written} writes were done by then: when nobody uses it, run `e2fsck -f` on it"),
    }
}
