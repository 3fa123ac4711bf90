//! Where things stand, on layouts made by hand.

use super::*;

/// 1 KiB blocks, 8192 a group, 100 groups, wide descriptors; no feature but `incompat`.
fn geometry(compat: u32, incompat: u32, ro_compat: u32) -> Geometry {
    let mut bytes = [0; SUPERBLOCK_BYTES];
    let mut put = |at: usize, value: u32| LittleEndian::write_u32(&mut bytes[at..], value);
    put(field::BLOCKS_COUNT_LO, 100 * 8192);
    put(field::FIRST_DATA_BLOCK, 1);
    put(field::BLOCKS_PER_GROUP, 8192);
    put(field::CLUSTERS_PER_GROUP, 8192);
    put(field::INODES_PER_GROUP, 64);
    put(field::INODES_COUNT, 100 * 64);
    put(field::FEATURE_COMPAT, compat);
    put(field::FEATURE_INCOMPAT, incompat | INCOMPAT_64BIT);
    put(field::FEATURE_RO_COMPAT, ro_compat);
    put(field::FIRST_META_BG, 1);
    put(field::BACKUP_BGS, 1);
    put(field::BACKUP_BGS + 4, 99);
    LittleEndian::write_u16(&mut bytes[field::MAGIC..], 0xEF53);
    LittleEndian::write_u16(&mut bytes[field::DESC_SIZE..], 64);
    LittleEndian::write_u16(&mut bytes[field::RESERVED_GDT_BLOCKS..], 20);
    let superblock = Superblock::decode(&bytes).expect("decodes");
    Geometry::of(&bytes, &superblock).expect("fits")
}

#[test]
fn copies_stand_where_the_features_say() {
    let sparse = geometry(0, 0, RO_COMPAT_SPARSE_SUPER);
    assert_eq!(sparse.superblock_copies(), Ok(vec![1, 3, 5, 7, 9, 25, 27, 49, 81]));
    assert_eq!(geometry(COMPAT_SPARSE_SUPER2, 0, 1).superblock_copies(), Ok(vec![1, 99]));
    assert_eq!(geometry(0, 0, 0).superblock_copies().map(|groups| groups.len()), Ok(99));
    for geometry in [sparse, geometry(COMPAT_SPARSE_SUPER2, 0, 0), geometry(0, 0, 0)] {
        let copies = geometry.superblock_copies().expect("few");
        for group in 1..geometry.groups {
            assert_eq!(geometry.has_superblock(group), copies.contains(&group), "group {group}");
        }
    }
}

#[test]
fn descriptors_stand_together_or_in_their_groups() {
    let together = geometry(0, 0, RO_COMPAT_SPARSE_SUPER);
    assert_eq!((together.descriptor_blocks(), together.descriptors_per_block()), (7, 16));
    assert_eq!(together.descriptor_block(3), Ok(2 + 3));
    assert_eq!(together.descriptor_copies(3).expect("fit")[..2], [8193 + 4, 3 * 8192 + 1 + 4]);
    assert_eq!(together.base_metadata(1), 8193..8193 + 1 + 7 + 20);
    assert!(together.base_metadata(2).is_empty());
    // From the second block of them on: 16 to 31, where 27 has a superblock and 17 and 31 have none.
    let apart = geometry(0, INCOMPAT_META_BG, RO_COMPAT_SPARSE_SUPER);
    assert_eq!(apart.descriptor_block(0), Ok(2));
    assert_eq!(apart.descriptor_block(1), Ok(16 * 8192 + 1));
    assert_eq!(apart.descriptor_copies(1), Ok(vec![17 * 8192 + 1, 31 * 8192 + 1]));
    // The first block of them is the old way's, with copies in its own sixteen groups only: from group 16 on a copy of
    // the superblock stands alone, and what follows it is a bitmap or a file's.
    let blocks: Vec<u64> = [1, 3, 5, 7, 9].iter().map(|group| group * 8192 + 2).collect();
    assert_eq!(apart.descriptor_copies(0), Ok(blocks));
    assert_eq!(apart.base_metadata(25), 25 * 8192 + 1..25 * 8192 + 2);
    // Whatever a plan writes there is what the group keeps for it.
    for geometry in [&together, &apart] {
        for index in 0..geometry.descriptor_blocks() {
            for block in geometry.descriptor_copies(index).expect("fit") {
                let (group, _) = geometry.group_and_bit(block).expect("lies inside");
                assert!(geometry.base_metadata(group).contains(&block), "block {block} of group {group}");
            }
        }
        for group in geometry.superblock_copies().expect("few") {
            assert!(geometry.copy_offset_bytes(group).is_ok(), "group {group}");
        }
    }
    // The last one describes groups 96 to 99 only.
    assert_eq!(apart.descriptor_copies(6), Ok(vec![97 * 8192 + 1]));
    // Group 81 has both, the second of its sixteen.
    assert_eq!(apart.descriptor_copies(5).expect("fit")[0], 81 * 8192 + 2);
    assert_eq!(apart.base_metadata(81), 81 * 8192 + 1..81 * 8192 + 3);
}

#[test]
fn a_block_is_found_by_its_group_and_bit() {
    let geometry = geometry(0, 0, 0);
    assert_eq!(geometry.group_and_bit(0), None, "before the first group");
    for (block, place) in [(1, (0, 0)), (8192, (0, 8191)), (8193, (1, 0)), (8200, (1, 7))] {
        assert_eq!(geometry.group_and_bit(block), Some(place));
        assert_eq!(geometry.block_of(place.0, place.1), block);
    }
    assert_eq!(geometry.clusters_of(99), 8191, "block 0 belongs to no group");
    assert_eq!(geometry.group_and_bit(100 * 8192 + 1), None);
}
