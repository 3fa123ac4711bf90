//! What is refused, why, and that nothing is written then. The images are the golden ones, changed byte by byte; so no
//! tool is needed, but for the one with many groups.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use mmpguard::ext4::{Edit, Ext4Error, Part, Plan, Planned};
use mmpguard::format::checksum::ext4_crc32c;
use mmpguard::format::fields::superblock as field;
use mmpguard::{Error, Kind};

use crate::golden;
use crate::images::{Change, Folder, has_tools};
use crate::memory::Memory;

const PATH: &str = "/dev/x";
const ENABLE: Change = Change::Enable(5);

fn load(name: &str) -> Vec<u8> {
    golden::load(name)
}

/// Changes bytes of the superblock, and gives it the right checksum if it has one.
fn with(name: &str, at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = load(name);
    bytes[1024 + at..][..value.len()].copy_from_slice(value);
    let superblock = &mut bytes[1024..2048];
    if superblock[field::FEATURE_RO_COMPAT + 1] & 4 != 0 {
        let checksum = ext4_crc32c(u32::MAX, &superblock[..field::CHECKSUM]);
        superblock[field::CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
    }
    bytes
}

/// The flags of a feature field with more of them.
fn features(name: &str, at: usize, more: u32) -> Vec<u8> {
    let found = u32::from_le_bytes(load(name)[1024 + at..][..4].try_into().unwrap());
    with(name, at, &(found | more).to_le_bytes())
}

/// Refused with this kind and these words, and nothing was written.
fn refused(bytes: Vec<u8>, change: Change, kind: Kind, words: &[&str]) {
    let mut memory = Memory::new(bytes);
    let error = match change.plan(Path::new(PATH), &mut memory) {
        Err(error) => error,
        Ok(planned) => panic!("{words:?} was planned: {planned:?}"),
    };
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.starts_with("/dev/x: "), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(memory.writes.is_empty());
}

fn planned(bytes: &[u8], change: Change) -> Plan {
    match change.plan(Path::new(PATH), &mut Memory::new(bytes.to_vec())).unwrap() {
        Planned::Do(plan) => plan,
        already => panic!("{already:?}"),
    }
}

#[test]
fn intervals_are_1_to_300_seconds() {
    for interval_s in [0, 301, u16::MAX] {
        let number = format!("{interval_s} s");
        for (name, change) in [("no-mmp", Change::Enable(interval_s)), ("b1k", Change::Set(interval_s))] {
            refused(load(name), change, Kind::Usage, &[&number, "1 to 300 s"]);
        }
    }
    for interval_s in [1, 300] {
        assert_eq!(planned(&load("no-mmp"), Change::Enable(interval_s)).interval_s(), interval_s);
        let set = planned(&load("b2k"), Change::Set(if interval_s == 1 { 2 } else { interval_s }));
        assert_eq!(set.block(), planned_block("b2k"));
    }
}

fn planned_block(name: &str) -> u64 {
    u64::from_le_bytes(load(name)[1024 + field::MMP_BLOCK..][..8].try_into().unwrap())
}

#[test]
fn what_is_not_in_order_is_left_to_e2fsck() {
    let state = field::STATE;
    for (bytes, words) in [
        (with("no-mmp", state, &[0, 0]), "did not unmount it"),
        (with("no-mmp", state, &[5, 0]), "the kernel was recovering it"),
        (with("no-mmp", state, &[0x21, 0]), "the kernel was recovering it"),
        (with("no-mmp", field::LAST_ORPHAN, &[12, 0, 0, 0]), "its orphan list"),
        (features("no-mmp", field::FEATURE_RO_COMPAT, 0x1_0000), "its orphan list"),
        (features("no-mmp", field::FEATURE_INCOMPAT, 0x4), "its journal needs recovery"),
    ] {
        refused(bytes, ENABLE, Kind::Unsupported, &[words, "`e2fsck -f`"]);
    }
    refused(with("no-mmp", state, &[3, 0]), ENABLE, Kind::Damaged, &["errors are flagged", "`e2fsck -f`"]);
    for change in [Change::Disable, Change::Set(9)] {
        refused(load("kernel-live"), change, Kind::Unsupported, &["journal needs recovery"]);
        refused(load("kernel-no-journal"), change, Kind::Unsupported, &["did not unmount it"]);
        refused(with("b4k", state, &[3, 0]), change, Kind::Damaged, &["errors are flagged"]);
    }
}

#[test]
fn features_that_are_not_treated_are_named() {
    for (at, flag, name) in [
        (field::FEATURE_INCOMPAT, 0x1, "compression"),
        (field::FEATURE_INCOMPAT, 0x4_0000, "0x40000 in s_feature_incompat"),
        (field::FEATURE_RO_COMPAT, 0x80, "has_snapshot"),
        (field::FEATURE_RO_COMPAT, 0x1000, "read-only"),
        (field::FEATURE_RO_COMPAT, 0x8000_0000, "0x80000000 in s_feature_ro_compat"),
    ] {
        refused(features("no-mmp", at, flag), ENABLE, Kind::Unsupported, &[name, "tune2fs"]);
        refused(features("b4k", at, flag), Change::Disable, Kind::Unsupported, &[name]);
        refused(features("b4k", at, flag), Change::Set(9), Kind::Unsupported, &[name]);
    }
    // What changes no meaning is no reason: a flag in s_feature_compat.
    planned(&features("no-mmp", field::FEATURE_COMPAT, 0x4000_0000), ENABLE);
    refused(load("journal-device"), ENABLE, Kind::Unsupported, &["external journal"]);
    refused(vec![0; 4096], ENABLE, Kind::Unsupported, &["no ext2/3/4 superblock"]);
}

#[test]
fn a_device_that_is_too_short_is_no_place_for_it() {
    let mut bytes = load("no-mmp");
    bytes.truncate(bytes.len() - 1);
    refused(bytes, ENABLE, Kind::Damaged, &["too short", "it was cut or mistaken"]);
    let mut memory = Memory::new(vec![0; 1500]);
    assert_eq!(ENABLE.plan(Path::new(PATH), &mut memory).unwrap_err().kind(), Kind::Damaged);
}

#[test]
fn numbers_that_do_not_go_together_are_damage() {
    let number = u32::to_le_bytes;
    for (at, value, word) in [
        (field::BLOCKS_PER_GROUP, &number(0)[..], "s_clusters_per_group 0"),
        (field::BLOCKS_PER_GROUP, &number(8), "s_blocks_per_group 8"),
        (field::CLUSTERS_PER_GROUP, &number(8), "s_clusters_per_group 8"),
        (field::LOG_CLUSTER_SIZE, &number(3), "s_log_cluster_size 3"),
        (field::REV_LEVEL, &number(5), "s_rev_level 5"),
        (field::R_BLOCKS_COUNT_LO + 3, &[9], "s_r_blocks_count"),
        (field::R_BLOCKS_COUNT_HI, &[1], "s_r_blocks_count"),
        (field::INODES_COUNT, &number(17), "s_inodes_count 17"),
        (field::FIRST_INO, &number(10), "s_first_ino 10"),
        (field::FIRST_INO, &number(u32::MAX), "s_first_ino"),
        (field::INODES_PER_GROUP, &number(1), "s_inodes_per_group 1"),
        (field::BLOCKS_PER_GROUP, &number(40_000), "s_clusters_per_group 40000"),
        (field::FIRST_DATA_BLOCK, &number(1), "s_first_data_block 1"),
        (field::BLOCKS_COUNT_LO, &number(0), "s_blocks_count 0"),
        (field::BLOCKS_COUNT_HI, &number(u32::MAX), "s_blocks_count"),
        (field::DESC_SIZE, &[32, 0], "s_desc_size 32"),
        (field::DESC_SIZE, &[63, 0], "s_desc_size 63"),
        (field::DESC_SIZE, &[0, 8], "s_desc_size 2048"),
        (field::RESERVED_GDT_BLOCKS, &[1, 4], "s_reserved_gdt_blocks 1025"),
        (field::INODE_SIZE, &[3, 0], "s_inode_size 3"),
        (field::INODES_PER_GROUP, &number(0), "s_inodes_per_group 0"),
        (field::FREE_BLOCKS_COUNT_LO, &number(0), "s_free_blocks_count"),
    ] {
        refused(with("no-mmp", at, value), ENABLE, Kind::Damaged, &[word, "`e2fsck -f`"]);
    }
    for log in [0, 40, u32::MAX] {
        refused(
            with("bigalloc", field::LOG_CLUSTER_SIZE, &number(log)),
            Change::Disable,
            Kind::Damaged,
            &["s_log_cluster_size"],
        );
    }
    refused(
        with("meta-bg", field::FIRST_META_BG, &number(9)),
        Change::Disable,
        Kind::Damaged,
        &["s_first_meta_bg 9"],
    );
    refused(load("damaged-superblock"), Change::Disable, Kind::Damaged, &["bad checksum", "e2fsck"]);
}

/// Where the first group's descriptor and its bitmap begin, in bytes.
fn first_group(bytes: &[u8]) -> (usize, usize) {
    let block = 1024 << bytes[1024 + field::LOG_BLOCK_SIZE];
    let table = if block == 1024 { 2048 } else { block };
    let bitmap = u32::from_le_bytes(bytes[table..table + 4].try_into().unwrap());
    (table, bitmap as usize * block)
}

#[test]
fn damaged_descriptors_and_bitmaps_are_left_to_e2fsck() {
    for (name, change) in [("no-mmp", ENABLE), ("b4k", Change::Disable), ("b1k", Change::Disable)] {
        let bytes = load(name);
        let (table, bitmap) = first_group(&bytes);
        let mut changed = bytes.clone();
        changed[table + 0x10] ^= 1;
        refused(
            changed,
            change,
            Kind::Damaged,
            &["descriptor of block group 0", "bad checksum", "`e2fsck -f`"],
        );
        let mut changed = bytes;
        changed[bitmap] ^= 0x80;
        refused(changed, change, Kind::Damaged, &["bitmap of group 0", "bad checksum", "`e2fsck -f`"]);
    }
    // Only a checksum of the descriptors.
    let mut changed = load("uninit-bg");
    let table = first_group(&changed).0;
    changed[table + 0x10] ^= 1;
    refused(changed, Change::Disable, Kind::Damaged, &["descriptor of block group 0"]);
    // None at all: the counts tell.
    let mut changed = load("no-csum");
    let (table, bitmap) = first_group(&changed);
    changed[bitmap + 20] ^= 1;
    refused(changed.clone(), Change::Disable, Kind::Damaged, &["its descriptor says", "`e2fsck -f`"]);
    changed[bitmap + 20] ^= 1;
    let block = usize::try_from(planned_block("no-csum")).unwrap();
    changed[bitmap + block / 8] &= !(1 << (block % 8));
    let free = u16::from_le_bytes(changed[table + 0xC..][..2].try_into().unwrap()) + 1;
    changed[table + 0xC..][..2].copy_from_slice(&free.to_le_bytes());
    refused(changed.clone(), Change::Disable, Kind::Damaged, &["marked as free", "`e2fsck -f`"]);
    // A bitmap that stands where nothing can.
    changed[table..table + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    refused(changed, Change::Disable, Kind::Damaged, &["cannot stand in block 4294967295"]);
}

#[test]
fn damage_beside_the_group_that_changes_is_not_written_over_the_copies() {
    if !has_tools() {
        return;
    }
    let folder = Folder::new();
    let image =
        folder.mke2fs("base", "40M", &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^64bit,^uninit_bg"]);
    let bytes = std::fs::read(&image).unwrap();
    planned(&bytes, ENABLE);
    // Group 3's descriptor; its copies stand as they were, and e2fsck would take them.
    let descriptor = 2048 + 3 * 32;
    let at = |field: usize| u32::from_le_bytes(bytes[descriptor + field..][..4].try_into().unwrap());
    let (bitmap, table) = (at(0), at(8));
    for (field, value, word) in [
        (0, u32::MAX, "its block bitmap cannot stand in block 4294967295"),
        (4, 1, "its inode bitmap cannot stand in block 1"),
        (4, 2, "on a superblock or descriptors"),
        (8, table | 0x900_0000, "its inode table cannot stand in"),
        (8, 40 * 1024 - 1, "its inode table cannot stand in"),
        (4, bitmap, "would be metadata of it"),
        (8, table + 1, "would be metadata of it"),
    ] {
        let mut changed = bytes.clone();
        changed[descriptor + field..][..4].copy_from_slice(&value.to_le_bytes());
        let mut words = vec![word, "`e2fsck -f`"];
        words.extend((!word.contains("of it")).then_some("block group 3"));
        refused(changed, ENABLE, Kind::Damaged, &words);
    }
    // What cannot be told stays out of the copies.
    let mut changed = bytes.clone();
    let inodes = descriptor + 0x0E;
    changed[inodes] ^= 1;
    let plan = planned(&changed, ENABLE);
    let copies: Vec<&Edit> =
        plan.edits().iter().filter(|edit| edit.part == Part::BackupDescriptors).collect();
    assert_eq!(copies.len(), 2, "of groups 1 and 3");
    for copy in copies {
        assert_eq!(copy.bytes[inodes - 2048], bytes[inodes]);
        let before = &bytes[usize::try_from(copy.offset_bytes).unwrap()..][..1024];
        assert!(copy.bytes[..32] != before[..32] && copy.bytes[32..] == before[32..]);
    }
}

#[test]
fn a_free_bit_on_metadata_is_not_believed() {
    // Without checksums, a bitmap with the descriptors' own block marked as free, and counted so.
    let mut bytes = load("no-csum");
    Change::Disable
        .plan(Path::new(PATH), &mut Memory::new(bytes.clone()))
        .and_then(|planned| match planned {
            Planned::Do(plan) => {
                let mut memory = Memory::new(bytes.clone());
                plan.carry_out(&mut memory, &mut |_| Ok(()))?;
                bytes = memory.bytes;
                Ok(())
            }
            Planned::Already { .. } => panic!("it is on"),
        })
        .unwrap();
    let (table, bitmap) = first_group(&bytes);
    bytes[bitmap] &= !0b10;
    let free = u16::from_le_bytes(bytes[table + 0xC..][..2].try_into().unwrap()) + 1;
    bytes[table + 0xC..][..2].copy_from_slice(&free.to_le_bytes());
    refused(bytes, ENABLE, Kind::Damaged, &["block 1 is metadata"]);
}

#[test]
fn an_mmp_block_that_is_none_is_not_given_back() {
    refused(load("damaged-magic"), Change::Disable, Kind::Damaged, &["MMP block is damaged", "bad magic"]);
    refused(
        load("damaged-checksum"),
        Change::Disable,
        Kind::Damaged,
        &["MMP block is damaged", "bad checksum"],
    );
    for change in [Change::Disable, Change::Set(9)] {
        refused(load("block-out-of-range"), change, Kind::Damaged, &["MMP block 512"]);
    }
    // The superblock names a block of the inode table, in which somebody wrote an MMP block.
    let mut bytes = load("no-csum");
    let (table, _) = first_group(&bytes);
    let inodes = u32::from_le_bytes(bytes[table + 8..][..4].try_into().unwrap());
    let (from, to) = (usize::try_from(planned_block("no-csum")).unwrap() * 4096, inodes as usize * 4096);
    bytes.copy_within(from..from + 1024, to);
    bytes[1024 + field::MMP_BLOCK..][..4].copy_from_slice(&inodes.to_le_bytes());
    refused(bytes, Change::Disable, Kind::Damaged, &["is other metadata"]);
    refused(load("no-mmp"), Change::Set(9), Kind::Unsupported, &["MMP is not enabled"]);
}

#[test]
fn a_full_filesystem_has_no_room() {
    let mut bytes = load("no-csum");
    bytes[1024 + field::FEATURE_INCOMPAT + 1] &= !1;
    let (table, _) = first_group(&bytes);
    bytes[table + 0xC..][..2].fill(0);
    refused(bytes, ENABLE, Kind::Unsupported, &["no free block", "resize2fs"]);
}

#[test]
fn what_changed_since_it_was_planned_stops_it_before_the_first_write() {
    for (change, name) in [(ENABLE, "no-mmp"), (Change::Disable, "b4k"), (Change::Set(9), "b4k")] {
        let bytes = load(name);
        let plan = planned(&bytes, change);
        for edit in plan.edits().iter().filter(|edit| edit.before.is_some()) {
            let mut memory = Memory::new(bytes.clone());
            let at = usize::try_from(edit.offset_bytes).unwrap();
            memory.bytes[at + 0x34] ^= 1;
            let error = plan.carry_out(&mut memory, &mut |_| panic!("asked")).unwrap_err();
            assert_eq!(error.kind(), Kind::InUse);
            assert!(error.to_string().contains("nothing was written"), "{error}");
            assert!(memory.writes.is_empty());
        }
    }
}

#[test]
fn who_mounts_it_meanwhile_stops_it_where_it_is() {
    for (change, name) in [(ENABLE, "no-mmp"), (Change::Disable, "b4k"), (Change::Set(9), "meta-bg")] {
        let bytes = load(name);
        let plan = planned(&bytes, change);
        for stop in 0..plan.edits().len() {
            let mut memory = Memory::new(bytes.clone());
            // Writing up to there, and what a kernel changes first when it mounts: the mount count.
            let mut asked = 0;
            let mut until = |_: &Edit| {
                asked += 1;
                if asked > stop { Err(Error::Interrupted) } else { Ok(()) }
            };
            assert!(matches!(plan.carry_out(&mut memory, &mut until), Err(Error::Interrupted)));
            assert_eq!(memory.writes.len(), stop, "nothing is written after a no");
            let before = memory.bytes.clone();
            memory.bytes[1024 + 0x34] ^= 1;
            let error = plan.carry_out(&mut memory, &mut |_| Ok(())).unwrap_err();
            assert!(matches!(error, Error::Ext4 { source: Ext4Error::Changed { written: 0, .. }, .. }));
            memory.bytes = before;
        }
        // Between two writes: the look before the next one sees it.
        let mut memory = Racing { memory: Memory::new(bytes.clone()), after: 1 };
        let error = plan.carry_out(&mut memory, &mut |_| Ok(())).unwrap_err();
        let Error::Ext4 { source: Ext4Error::Changed { part, written }, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!((*part, *written), (Part::Superblock, 1));
        assert_eq!(memory.memory.writes.len(), 1);
        assert!(error.to_string().contains("1 writes were done by then"), "{error}");
    }
}

#[test]
fn nothing_is_read_between_the_leave_and_the_write() {
    for (change, name) in [(ENABLE, "no-mmp"), (Change::Disable, "b4k"), (Change::Set(9), "meta-bg")] {
        let bytes = load(name);
        let plan = planned(&bytes, change);
        let log = Rc::new(RefCell::new(Vec::new()));
        let mut memory = Logging { memory: Memory::new(bytes), log: Rc::clone(&log) };
        let mut leave = |_: &Edit| {
            log.borrow_mut().push("leave");
            Ok(())
        };
        plan.carry_out(&mut memory, &mut leave).unwrap();
        let log = log.borrow();
        let leaves = log.iter().enumerate().filter(|(_, what)| **what == "leave");
        assert_eq!(leaves.clone().count(), plan.edits().len());
        for (at, _) in leaves {
            assert_eq!((log[at - 1], log[at + 1]), ("read", "write"));
        }
    }
}

/// What is done to it, in its order.
struct Logging {
    memory: Memory,
    log: Rc<RefCell<Vec<&'static str>>>,
}

impl mmpguard::ext4::Bytes for Logging {
    fn size_bytes(&self) -> u64 {
        self.memory.size_bytes()
    }

    fn read_at(&mut self, offset_bytes: u64, into: &mut [u8]) -> Result<(), Error> {
        self.log.borrow_mut().push("read");
        self.memory.read_at(offset_bytes, into)
    }

    fn write_at(&mut self, offset_bytes: u64, bytes: &[u8]) -> Result<(), Error> {
        self.log.borrow_mut().push("write");
        self.memory.write_at(offset_bytes, bytes)
    }
}

#[test]
fn an_mmp_block_that_is_read_amid_a_beat_is_read_again() {
    let offset_bytes = planned_block("b4k") * 4096;
    for (torn, works) in [(1, true), (4, true), (5, false)] {
        let mut memory = Tearing { memory: Memory::new(load("b4k")), offset_bytes, torn };
        let planned = Change::Disable.plan(Path::new(PATH), &mut memory);
        assert_eq!(planned.is_ok(), works, "{torn} torn reads: {planned:?}");
    }
}

/// Reads of the MMP block that see half of another beat, so many times.
struct Tearing {
    memory: Memory,
    offset_bytes: u64,
    torn: u32,
}

impl mmpguard::ext4::Bytes for Tearing {
    fn size_bytes(&self) -> u64 {
        self.memory.size_bytes()
    }

    fn read_at(&mut self, offset_bytes: u64, into: &mut [u8]) -> Result<(), Error> {
        self.memory.read_at(offset_bytes, into)?;
        if offset_bytes == self.offset_bytes && self.torn > 0 {
            self.torn -= 1;
            into[4] ^= 1;
        }
        Ok(())
    }

    fn write_at(&mut self, offset_bytes: u64, bytes: &[u8]) -> Result<(), Error> {
        self.memory.write_at(offset_bytes, bytes)
    }
}

/// Another host that mounts it after so many writes.
struct Racing {
    memory: Memory,
    after: usize,
}

impl mmpguard::ext4::Bytes for Racing {
    fn size_bytes(&self) -> u64 {
        self.memory.size_bytes()
    }

    fn read_at(&mut self, offset_bytes: u64, into: &mut [u8]) -> Result<(), Error> {
        self.memory.read_at(offset_bytes, into)
    }

    fn write_at(&mut self, offset_bytes: u64, bytes: &[u8]) -> Result<(), Error> {
        self.memory.write_at(offset_bytes, bytes)?;
        if self.memory.writes.len() == self.after {
            self.memory.bytes[1024 + 0x34] ^= 1;
        }
        Ok(())
    }
}
