//! What else stands on a device, by a magic number: a name to show, and nothing more.
//!
//! Protects: the numbers that decide are long, or stand beside fields that have to fit. Does not protect: this is no blkid(8). It knows
//! what is common on shared devices and stands in their first [`HEAD_BYTES`](super::HEAD_BYTES); a name says nothing of where it
//! ends, or whether it is whole, so nothing is ever put behind it for that name.
//!
//! Source: util-linux `libblkid/src/superblocks/` and `libblkid/src/partitions/`, for the places and for the names.

/// What `blkid(8)` calls it, for what is told by one place.
const MAGICS: [(&str, usize, &[u8]); 13] = [
    ("crypto_LUKS", 0, b"LUKS\xba\xbe"),
    ("linux_raid_member", 0, &[0xFC, 0x4E, 0x2B, 0xA9]),
    ("linux_raid_member", 4096, &[0xFC, 0x4E, 0x2B, 0xA9]),
    ("swap", 4086, b"SWAPSPACE2"),
    ("swap", 65526, b"SWAPSPACE2"),
    ("squashfs", 0, b"hsqs"),
    ("f2fs", 1024, &[0x10, 0x20, 0xF5, 0xF2]),
    ("iso9660", 32769, b"CD001"),
    ("ntfs", 3, b"NTFS    "),
    ("exfat", 3, b"EXFAT   "),
    ("vfat", 54, b"FAT1"),
    ("vfat", 82, b"FAT32"),
    ("gfs2", 65536, &[0x01, 0x16, 0x19, 0x70, 0, 0, 0, 1]),
];
/// The sectors in which LVM looks for its label.
const LVM_LABELS: [usize; 4] = [0, 512, 1024, 1536];
/// The header of a GPT, with sectors of 512 bytes and of 4096.
const GPT: [usize; 2] = [512, 4096];
const MBR_MARK: usize = 510;
const MBR_ENTRIES: usize = 446;
const MBR_ENTRY_BYTES: usize = 16;

/// What it is called here if its partitions own it.
const PARTITIONED: &str = "partition table";

/// What blkid(8) would call it; "partition table" for either kind of those. None for what is not known here.
#[must_use]
pub fn signature(head: &[u8]) -> Option<&'static str> {
    let stands = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
    if LVM_LABELS.iter().any(|&at| stands(at, b"LABELONE") && stands(at + 24, b"LVM2 001")) {
        return Some("LVM2_member");
    }
    if GPT.iter().any(|&at| stands(at, b"EFI PART")) {
        return Some(PARTITIONED);
    }
    let found = MAGICS.iter().find(|(_, at, magic)| stands(*at, magic));
    found.map(|(name, ..)| *name).or_else(|| has_mbr(head).then_some(PARTITIONED))
}

/// The mark, a partition that has a type and a length, and no entry that is marked as anything but active or not.
fn has_mbr(head: &[u8]) -> bool {
    let Some(entries) = head.get(MBR_ENTRIES..MBR_MARK) else { return false };
    let mut entries = entries.chunks_exact(MBR_ENTRY_BYTES);
    head.get(MBR_MARK..MBR_MARK + 2) == Some(&[0x55, 0xAA])
        && entries.clone().all(|entry| matches!(entry[0], 0 | 0x80))
        && entries.any(|entry| entry[4] != 0 && entry[12..16] != [0; 4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::content::HEAD_BYTES;

    fn with(puts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut head = vec![0; HEAD_BYTES];
        for (at, bytes) in puts {
            head[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        head
    }

    #[test]
    fn what_is_known_is_named() {
        for (name, at, magic) in MAGICS {
            assert_eq!(signature(&with(&[(at, magic)])), Some(name));
            let head = with(&[(at, &magic[..magic.len() - 1])]);
            assert_eq!(signature(&head), None, "half of {name}");
        }
        for at in LVM_LABELS {
            let head = with(&[(at, b"LABELONE"), (at + 24, b"LVM2 001")]);
            assert_eq!(signature(&head), Some("LVM2_member"));
        }
        assert_eq!(signature(&with(&[(512, b"LABELONE")])), None);
        for at in GPT {
            assert_eq!(signature(&with(&[(at, b"EFI PART")])), Some(PARTITIONED));
        }
    }

    #[test]
    fn a_boot_sector_is_a_partition_table_only_with_partitions() {
        let entry = [0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0, 1, 0];
        let mark: (usize, &[u8]) = (MBR_MARK, &[0x55, 0xAA]);
        assert_eq!(signature(&with(&[mark])), None);
        assert_eq!(signature(&with(&[mark, (MBR_ENTRIES + 16, &entry)])), Some(PARTITIONED));
        assert_eq!(signature(&with(&[(MBR_ENTRIES, &entry)])), None);
        let wrong = [0x81; 16];
        assert_eq!(signature(&with(&[mark, (MBR_ENTRIES, &wrong), (MBR_ENTRIES + 16, &entry)])), None);
        // A filesystem's boot sector has the mark, too, and code where the partitions would be.
        assert_eq!(signature(&with(&[mark, (82, b"FAT32"), (MBR_ENTRIES, &entry)])), Some("vfat"));
    }

    #[test]
    fn few_bytes_are_nothing() {
        for len in [0, 1, 3, 511, 512, 513, 4096, 65_530] {
            assert_eq!(signature(&vec![0; len]), None, "{len}");
        }
    }
}
