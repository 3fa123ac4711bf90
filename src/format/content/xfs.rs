//! XFS: `sb_dblocks` blocks of the data section, which begins with the device.
//!
//! Protects and does not protect: see [`super`]. Version 5 has a checksum over the whole sector; version 4 has none, there the
//! sizes have to go with their logarithms and with the allocation groups. A log or a real-time section on other devices is not
//! looked for. What a *zoned* filesystem has behind its data section (`sb_rtstart`) is not known here, so that is refused, and
//! so is every feature that a reader must know and this one does not.
//!
//! Source: Linux `fs/xfs/libxfs/xfs_format.h` (`struct xfs_dsb`), `xfs_sb.c` (`xfs_validate_sb_common`), `xfs_cksum.h`.

use byteorder::{BigEndian, ByteOrder, LittleEndian};

use super::{ContentError, Family, Standing, end_bytes, is_block_size, label};

/// Up to the end of `sb_meta_uuid`; no sector is smaller.
const LEAST_BYTES: usize = 512;
const MAGIC: &[u8; 4] = b"XFSB";
const CHECKSUM_AT: usize = 224;
/// `XFS_MIN_AG_BLOCKS`.
const LEAST_GROUP_BLOCKS: u64 = 64;
/// ftype, spinodes, meta_uuid, bigtime, needsrepair, nrext64, exchrange, parent, metadir: none moves the end. Not known are zoned
/// (1 << 9), zone_gaps (1 << 10), and what comes after them.
const KNOWN_INCOMPAT: u32 = (1 << 9) - 1;

pub(super) fn standing(head: &[u8]) -> Result<Option<Standing>, ContentError> {
    if !head.starts_with(MAGIC) {
        return Ok(None);
    }
    let family = Family::Xfs;
    let impossible =
        |field, found: u32| Err(ContentError::Impossible { family, field, found: u64::from(found) });
    if head.len() < LEAST_BYTES {
        return Err(ContentError::Cut { family });
    }
    let sector_bytes = BigEndian::read_u16(&head[102..]);
    if !is_block_size(u32::from(sector_bytes), 512, 32768) || u32::from(head[121]) != sector_bytes.ilog2() {
        return impossible("sb_sectsize", u32::from(sector_bytes));
    }
    match BigEndian::read_u16(&head[100..]) & 0xF {
        4 => {}
        5 => {
            let sector = head.get(..usize::from(sector_bytes)).ok_or(ContentError::Cut { family })?;
            verify_checksum(sector)?;
            let unknown = BigEndian::read_u32(&head[216..]) & !KNOWN_INCOMPAT;
            if unknown != 0 {
                let (field, found) = ("sb_features_incompat", u64::from(unknown));
                return Err(ContentError::Unknown { family, field, found });
            }
        }
        other => {
            return Err(ContentError::Unknown { family, field: "sb_versionnum", found: u64::from(other) });
        }
    }
    if head[126] != 0 {
        return Err(ContentError::Unfinished { family });
    }
    let block_bytes = BigEndian::read_u32(&head[4..]);
    if !is_block_size(block_bytes, 512, 65536) || u32::from(head[120]) != block_bytes.ilog2() {
        return impossible("sb_blocksize", block_bytes);
    }
    let (group_blocks, groups) = (BigEndian::read_u32(&head[84..]), BigEndian::read_u32(&head[88..]));
    if group_blocks == 0 {
        return impossible("sb_agblocks", group_blocks);
    }
    if groups == 0 {
        return impossible("sb_agcount", groups);
    }
    let blocks = BigEndian::read_u64(&head[8..]);
    // Neither product overflows: both factors have 32 bits.
    let most = u64::from(group_blocks) * u64::from(groups);
    let least = u64::from(group_blocks) * u64::from(groups - 1) + LEAST_GROUP_BLOCKS;
    if !(least..=most).contains(&blocks) {
        return Err(ContentError::Impossible { family, field: "sb_dblocks", found: blocks });
    }
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&head[32..48]);
    Ok(Some(Standing {
        kind: "xfs",
        uuid,
        label: label(&head[108..120]),
        end_bytes: end_bytes(family, "sb_dblocks", blocks, u64::from(block_bytes))?,
        devices: 1,
    }))
}

/// crc32c over the sector, with zeroes where the checksum stands; little endian, unlike all else.
fn verify_checksum(sector: &[u8]) -> Result<(), ContentError> {
    let stored = LittleEndian::read_u32(&sector[CHECKSUM_AT..]);
    let computed = checksum(sector);
    if stored == computed {
        Ok(())
    } else {
        Err(ContentError::Checksum { family: Family::Xfs, stored, computed })
    }
}

fn checksum(sector: &[u8]) -> u32 {
    let before = crc32c::crc32c(&sector[..CHECKSUM_AT]);
    crc32c::crc32c_append(crc32c::crc32c_append(before, &[0; 4]), &sector[CHECKSUM_AT + 4..])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// 4 groups of 1000 blocks of 4 KiB, the last with 900; sectors of 512 bytes.
    pub(in crate::format::content) fn made(version: u16) -> Vec<u8> {
        let mut head = vec![0; 4096];
        head[..4].copy_from_slice(MAGIC);
        BigEndian::write_u32(&mut head[4..], 4096);
        BigEndian::write_u64(&mut head[8..], 3900);
        head[32..48].copy_from_slice(b"0123456789abcdef");
        BigEndian::write_u32(&mut head[84..], 1000);
        BigEndian::write_u32(&mut head[88..], 4);
        BigEndian::write_u16(&mut head[100..], 0xB4A0 | version);
        BigEndian::write_u16(&mut head[102..], 512);
        head[108..112].copy_from_slice(b"data");
        (head[120], head[121]) = (12, 9);
        seal(&mut head);
        head
    }

    fn seal(head: &mut [u8]) {
        let sector = usize::from(BigEndian::read_u16(&head[102..]));
        if let Some(sector) = head.get(..sector).filter(|sector| sector.len() >= LEAST_BYTES) {
            let sealed = checksum(sector);
            LittleEndian::write_u32(&mut head[CHECKSUM_AT..], sealed);
        }
    }

    fn changed(version: u16, at: usize, with: &[u8]) -> Result<Option<Standing>, ContentError> {
        let mut head = made(version);
        head[at..at + with.len()].copy_from_slice(with);
        seal(&mut head);
        standing(&head)
    }

    #[test]
    fn its_data_section_is_its_end() {
        for version in [4, 5] {
            let found = standing(&made(version)).unwrap().unwrap();
            assert_eq!((found.kind, found.end_bytes, found.devices), ("xfs", 3900 << 12, 1));
            assert_eq!((&found.uuid, found.label), (b"0123456789abcdef", label(b"data")));
        }
        let large = changed(5, 102, &[16, 0]).unwrap_err();
        assert!(
            matches!(large, ContentError::Impossible { field: "sb_sectsize", .. }),
            "its logarithm is missing"
        );
    }

    #[test]
    fn the_checksum_covers_the_sector_and_no_more() {
        let mut head = made(5);
        head[512] = 1;
        assert!(standing(&head).is_ok());
        head[511] = 1;
        assert!(matches!(standing(&head), Err(ContentError::Checksum { family: Family::Xfs, .. })));
        BigEndian::write_u16(&mut head[102..], 4096);
        head[121] = 12;
        seal(&mut head);
        assert!(standing(&head).is_ok());
        assert_eq!(standing(&head[..4095]), Err(ContentError::Cut { family: Family::Xfs }));
        head[4095] = 1;
        assert!(matches!(standing(&head), Err(ContentError::Checksum { .. })));
    }

    #[test]
    fn numbers_that_cannot_be_are_damage() {
        let edges: [(usize, &[u8]); 16] = [
            (4, &[0, 0, 0, 0]),
            (4, &[0, 0, 16, 1]),
            (4, &[0, 0, 32, 0]),
            (4, &[255; 4]),
            (8, &[0; 8]),
            (8, &[255; 8]),
            (8, &[0, 0, 0, 0, 0, 0, 0x0F, 0xA1]),
            (8, &[0, 0, 0, 0, 0, 0, 0x0B, 0xF7]),
            (84, &[0; 4]),
            (88, &[0; 4]),
            (84, &[255; 8]),
            (102, &[0, 0]),
            (102, &[255, 255]),
            (120, &[255]),
            (121, &[255]),
            (126, &[1]),
        ];
        for (at, with) in edges {
            for version in [4, 5] {
                let found = changed(version, at, with);
                assert!(found.clone().is_err_and(|error| error.is_damage()), "{at} {with:?} {found:?}");
            }
        }
        assert_eq!(standing(MAGIC), Err(ContentError::Cut { family: Family::Xfs }));
    }

    #[test]
    fn the_greatest_filesystem_does_not_overflow() {
        let mut head = made(4);
        head[84..92].fill(255);
        let most = u64::from(u32::MAX) * u64::from(u32::MAX);
        BigEndian::write_u64(&mut head[8..], most);
        let found = standing(&head);
        assert_eq!(
            found,
            Err(ContentError::Impossible { family: Family::Xfs, field: "sb_dblocks", found: most })
        );
    }

    #[test]
    fn later_formats_are_not_guessed_at() {
        let zoned = changed(5, 216, &[0, 0, 3, 1]);
        let unknown =
            ContentError::Unknown { family: Family::Xfs, field: "sb_features_incompat", found: 0x200 };
        assert_eq!(zoned, Err(unknown));
        assert!(changed(5, 216, &[0, 0, 1, 0xFF]).is_ok());
        assert!(changed(4, 216, &[255; 4]).is_ok(), "version 4 has no such field");
        for version in [0, 3, 6, 15] {
            assert!(matches!(standing(&made(version)), Err(ContentError::Unknown { .. })), "{version}");
        }
    }
}
