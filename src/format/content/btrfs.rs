//! btrfs: `total_bytes` of the `dev_item` in the superblock, which is that of the very device it stands on.
//!
//! Protects and does not protect: see [`super`]. crc32c is verified. The other checksums (xxhash64, SHA-256, BLAKE2b) are not: that would
//! take three more algorithms for what they add here. All fields that are read stand in the first 571 bytes of the superblock, the end of the
//! device in its first sector, so a torn write cannot mix two ends; what a damaged disk does to it is found by the fields that have to
//! agree: the magic, its own position, the sizes of blocks, the filesystem's UUID, which stands there twice, and the bytes used.
//! A *zoned* btrfs has its superblock elsewhere and is not found here.
//!
//! Source: Linux `include/uapi/linux/btrfs_tree.h` (`struct btrfs_super_block`, `struct btrfs_dev_item`),
//! `fs/btrfs/disk-io.c` (`btrfs_validate_super`); btrfs-progs for the magic of an unfinished one.

use byteorder::{ByteOrder, LittleEndian};

use super::{ContentError, Family, Standing, end_bytes, is_block_size, label};

/// `BTRFS_SUPER_INFO_OFFSET`.
pub(super) const OFFSET_BYTES: usize = 64 << 10;
/// `BTRFS_SUPER_INFO_SIZE`.
const BYTES: usize = 4096;
const MAGIC_AT: usize = 0x40;
const MAGIC: &[u8] = b"_BHRfS_M";
/// `BTRFS_MAGIC_TEMPORARY`: mkfs.btrfs is still at it, or was stopped.
const UNFINISHED: &[u8] = b"!BHRfS_M";
/// `BTRFS_CSUM_SIZE`: what the checksum covers begins behind it.
const CHECKSUM_BYTES: usize = 32;
const CSUM_TYPE_CRC32C: u16 = 0;
/// `BTRFS_CSUM_TYPE_XXHASH`, the first that is not verified.
const CSUM_TYPE_XXHASH: u16 = 1;
/// `BTRFS_CSUM_TYPE_BLAKE2`, the last.
const CSUM_TYPE_BLAKE2: u16 = 3;
const DEV_ITEM: usize = 0xC9;

pub(super) fn standing(head: &[u8]) -> Result<Option<Standing>, ContentError> {
    let family = Family::Btrfs;
    let Some(rest) = head.get(OFFSET_BYTES..) else { return Ok(None) };
    match rest.get(MAGIC_AT..MAGIC_AT + MAGIC.len()) {
        Some(MAGIC) => {}
        Some(UNFINISHED) => return Err(ContentError::Unfinished { family }),
        _ => return Ok(None),
    }
    let Some(bytes) = rest.first_chunk::<BYTES>() else { return Err(ContentError::Cut { family }) };
    verify_checksum(bytes)?;
    let u32_at = |at: usize| LittleEndian::read_u32(&bytes[at..]);
    let u64_at = |at: usize| LittleEndian::read_u64(&bytes[at..]);
    let impossible = |field, found| Err(ContentError::Impossible { family, field, found });
    if u64_at(0x30) != OFFSET_BYTES as u64 {
        return impossible("bytenr", u64_at(0x30));
    }
    let (sector_bytes, node_bytes) = (u32_at(0x90), u32_at(0x94));
    if !is_block_size(sector_bytes, 512, 65536) {
        return impossible("sectorsize", u64::from(sector_bytes));
    }
    if !is_block_size(node_bytes, sector_bytes, 65536) {
        return impossible("nodesize", u64::from(node_bytes));
    }
    let devices = u64_at(0x88);
    if devices == 0 {
        return impossible("num_devices", devices);
    }
    let uuid: [u8; 16] = *bytes[0x20..].first_chunk().expect("is within");
    let device_is_of = &bytes[DEV_ITEM + 82..][..16];
    // The second is `metadata_uuid`, which counts where the filesystem was given another UUID without being rewritten.
    if device_is_of != uuid && *device_is_of != bytes[0x23B..][..16] {
        return impossible("dev_item.fsid", LittleEndian::read_u64(device_is_of));
    }
    let (total_bytes, used_bytes) = (u64_at(DEV_ITEM + 8), u64_at(DEV_ITEM + 16));
    // The superblock itself is within.
    if total_bytes < (OFFSET_BYTES + BYTES) as u64 {
        return impossible("dev_item.total_bytes", total_bytes);
    }
    if used_bytes > total_bytes {
        return impossible("dev_item.bytes_used", used_bytes);
    }
    let end_bytes = end_bytes(family, "dev_item.total_bytes", total_bytes, 1)?;
    Ok(Some(Standing { kind: "btrfs", uuid, label: label(&bytes[0x12B..][..256]), end_bytes, devices }))
}

fn verify_checksum(bytes: &[u8; BYTES]) -> Result<(), ContentError> {
    let family = Family::Btrfs;
    match LittleEndian::read_u16(&bytes[0xC4..]) {
        CSUM_TYPE_CRC32C => {}
        CSUM_TYPE_XXHASH..=CSUM_TYPE_BLAKE2 => return Ok(()),
        later => {
            return Err(ContentError::Unknown { family, field: "csum_type", found: u64::from(later) });
        }
    }
    let stored = LittleEndian::read_u32(bytes);
    let computed = crc32c::crc32c(&bytes[CHECKSUM_BYTES..]);
    if stored == computed { Ok(()) } else { Err(ContentError::Checksum { family, stored, computed }) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::format::content::HEAD_BYTES;

    /// One device of 200 MiB, and a byte: no older btrfs rounds it down.
    pub(in crate::format::content) fn made() -> Vec<u8> {
        let mut head = vec![0; HEAD_BYTES];
        let block = &mut head[OFFSET_BYTES..];
        block[0x20..0x30].copy_from_slice(b"0123456789abcdef");
        block[MAGIC_AT..MAGIC_AT + 8].copy_from_slice(MAGIC);
        block[DEV_ITEM + 82..][..16].copy_from_slice(b"0123456789abcdef");
        block[0x12B..0x12F].copy_from_slice(b"data");
        for (at, value) in
            [(0x30, 65536), (0x88, 1), (DEV_ITEM + 8, (200 << 20) + 1), (DEV_ITEM + 16, 100 << 20)]
        {
            LittleEndian::write_u64(&mut block[at..], value);
        }
        LittleEndian::write_u32(&mut block[0x90..], 4096);
        LittleEndian::write_u32(&mut block[0x94..], 16384);
        seal(&mut head);
        head
    }

    fn seal(head: &mut [u8]) {
        let block = &mut head[OFFSET_BYTES..];
        let sealed = crc32c::crc32c(&block[CHECKSUM_BYTES..]);
        LittleEndian::write_u32(block, sealed);
    }

    fn changed(at: usize, with: &[u8]) -> Result<Option<Standing>, ContentError> {
        let mut head = made();
        head[OFFSET_BYTES + at..][..with.len()].copy_from_slice(with);
        seal(&mut head);
        standing(&head)
    }

    #[test]
    fn its_device_item_is_its_end() {
        let found = standing(&made()).unwrap().unwrap();
        assert_eq!((found.kind, found.end_bytes, found.devices), ("btrfs", (200 << 20) + 1, 1));
        assert_eq!((&found.uuid, found.label), (b"0123456789abcdef", label(b"data")));
        assert_eq!(changed(0x88, &[3]).unwrap().unwrap().devices, 3);
    }

    #[test]
    fn crc32c_is_verified_and_the_others_are_not() {
        let mut head = made();
        head[OFFSET_BYTES + 4095] = 1;
        assert!(matches!(standing(&head), Err(ContentError::Checksum { family: Family::Btrfs, .. })));
        for csum_type in 1..=3 {
            head[OFFSET_BYTES + 0xC4] = csum_type;
            assert!(standing(&head).unwrap().is_some());
        }
        for csum_type in [4, 255] {
            head[OFFSET_BYTES + 0xC4] = csum_type;
            assert!(matches!(standing(&head), Err(ContentError::Unknown { field: "csum_type", .. })));
        }
    }

    #[test]
    fn numbers_that_cannot_be_are_damage() {
        let edges: [(usize, &[u8]); 12] = [
            (0x30, &[0; 8]),
            (0x30, &[0, 0, 0, 4]),
            (0x90, &[0; 4]),
            (0x90, &[1, 16]),
            (0x90, &[255; 4]),
            (0x94, &[0; 4]),
            (0x94, &[0, 8]),
            (0x88, &[0; 8]),
            (DEV_ITEM + 8, &[0; 8]),
            (DEV_ITEM + 8, &[255; 8]),
            (DEV_ITEM + 16, &[255; 8]),
            (DEV_ITEM + 82, &[0]),
        ];
        for (at, with) in edges {
            let found = changed(at, with);
            assert!(found.clone().is_err_and(|error| error.is_damage()), "{at:#x} {with:?} {found:?}");
        }
    }

    #[test]
    fn another_uuid_over_the_old_one_is_no_damage() {
        let mut head = made();
        head[OFFSET_BYTES + 0x23B..][..16].copy_from_slice(b"0123456789abcdef");
        head[OFFSET_BYTES + 0x20..][..16].copy_from_slice(b"fedcba9876543210");
        seal(&mut head);
        assert_eq!(&standing(&head).unwrap().unwrap().uuid, b"fedcba9876543210");
    }

    #[test]
    fn cut_and_unfinished_ones_are_told() {
        let cut = standing(&made()[..HEAD_BYTES - 1]);
        assert_eq!(cut, Err(ContentError::Cut { family: Family::Btrfs }));
        let unfinished = Err(ContentError::Unfinished { family: Family::Btrfs });
        assert_eq!(changed(MAGIC_AT, UNFINISHED), unfinished);
        assert_eq!(changed(MAGIC_AT, b"?"), Ok(None));
    }
}
