//! The fuzz targets' bodies over the golden images, the areas of `mmp-format.md`, and changed copies of them, for a few seconds: what a
//! machine without a fuzzer can do. The changes are drawn from a fixed seed, so a failure comes back.

mod bodies;
mod images;
mod vectors;

use images::areas::AreaImage;
use mmpguard::format::area::SlotState;
use mmpguard::format::superblock::SUPERBLOCK_BYTES;
use mmpguard::format::{MMP_STRUCT_BYTES, Superblock};

const CHANGED_COPIES: usize = 20_000;
const CHANGED_DEVICES: usize = 200;

/// The part of an image the bodies look at: everything up to the end of the MMP block.
fn head(name: &str) -> Vec<u8> {
    let mut bytes = images::load(name);
    let superblock = Superblock::decode(bytes[1024..].first_chunk::<SUPERBLOCK_BYTES>().unwrap());
    if let Ok(offset) = superblock.and_then(|superblock| superblock.mmp_offset_bytes()) {
        bytes.truncate(usize::try_from(offset).unwrap() + MMP_STRUCT_BYTES);
    }
    bytes
}

/// Offset and length of the superblock fields that lead to the block.
const LEADING_FIELDS: [(usize, usize); 7] =
    [(0x04, 4), (0x14, 4), (0x18, 4), (0x60, 4), (0x64, 4), (0x150, 4), (0x168, 8)];

/// Gives one of the leading fields a value at an edge.
fn change_field(superblock: &mut [u8], random: &mut fastrand::Rng) {
    let (at, len) = LEADING_FIELDS[random.usize(..LEADING_FIELDS.len())];
    let value = match random.u8(..4) {
        0 => random.u64(..4),
        1 => u64::MAX - random.u64(..4),
        2 => 1 << random.u8(..64),
        _ => i64::MAX as u64 >> random.u8(..20),
    };
    superblock[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
}

/// Changes one to eight places among the bytes that are read: the superblock, and the 1 KiB at the end.
fn change(bytes: &mut [u8], random: &mut fastrand::Rng) {
    for _ in 0..random.usize(1..=8) {
        let at = if random.bool() {
            1024 + random.usize(..SUPERBLOCK_BYTES)
        } else {
            bytes.len() - MMP_STRUCT_BYTES + random.usize(..MMP_STRUCT_BYTES)
        };
        match random.u8(..5) {
            0 => bytes[at] ^= 1 << random.u8(..8),
            1 => bytes[at] = random.u8(..),
            2 => bytes[at] = 0xFF,
            3 => bytes[at] = 0,
            _ => change_field(&mut bytes[1024..2048], random),
        }
    }
}

#[test]
fn the_bodies_hold_on_golden_images_and_changed_copies_of_them() {
    let mut random = fastrand::Rng::with_seed(0x004D_4D50);
    for name in images::names() {
        let golden = head(&name);
        bodies::image(&golden);
        let mut changed = golden.clone();
        let tail = golden.len() - MMP_STRUCT_BYTES;
        for _ in 0..CHANGED_COPIES {
            change(&mut changed, &mut random);
            bodies::image(&changed);
            bodies::superblock(&changed[1024..2048]);
            bodies::content(&[&[0x80], &changed[1024..2048]].concat());
            let mut block = vec![random.u8(..), 1, 2, 3, 4];
            block.extend_from_slice(&changed[tail..]);
            bodies::mmp_block(&block);
            changed[1024..2048].copy_from_slice(&golden[1024..2048]);
            changed[tail..].copy_from_slice(&golden[tail..]);
        }
    }
}

/// Changes one to eight places among the fields of an area's block, to values at an edge where it is a number.
fn change_area(bytes: &mut [u8], random: &mut fastrand::Rng) {
    for _ in 0..random.usize(1..=8) {
        let at = random.usize(..0x100);
        match random.u8(..4) {
            0 => bytes[at] ^= 1 << random.u8(..8),
            1 => bytes[at] = random.u8(..),
            2 => bytes[at & !3..][..4].fill(random.choice([0, 0xFF]).unwrap()),
            _ => bytes[at & !7..][..8].copy_from_slice(&(1u64 << random.u8(..64)).to_le_bytes()),
        }
    }
}

#[test]
fn the_bodies_hold_on_the_areas_of_the_document_and_changed_copies_of_them() {
    let mut random = fastrand::Rng::with_seed(0x3144_5247);
    for kind in ["area_header", "area_slot", "area_entry"] {
        let body = |image: &[u8], seed: [u8; 4]| match kind {
            "area_header" => bodies::area_header(image),
            "area_slot" => bodies::area_slot(&[&seed, image].concat()),
            _ => bodies::area_entry(image),
        };
        for vector in vectors::vectors(kind, Some(MMP_STRUCT_BYTES)) {
            body(&vector.bytes, random.u32(..).to_le_bytes());
            for _ in 0..CHANGED_COPIES {
                let mut changed = vector.bytes.clone();
                change_area(&mut changed, &mut random);
                body(&changed, random.u32(..).to_le_bytes());
            }
        }
    }
}

/// Offset and length of the fields that say where the edits of `ext4` read and write: of the superblock, and of the first
/// descriptors.
const LAYOUT_FIELDS: [(usize, usize); 22] = [
    (0x04, 4),
    (0x0C, 4),
    (0x14, 4),
    (0x18, 4),
    (0x1C, 4),
    (0x20, 4),
    (0x24, 4),
    (0x28, 4),
    (0x3A, 2),
    (0x4C, 4),
    (0x58, 2),
    (0x5C, 4),
    (0x60, 4),
    (0x64, 4),
    (0xCE, 2),
    (0xFE, 2),
    (0x104, 4),
    (0x150, 4),
    (0x158, 4),
    (0x166, 2),
    (0x168, 8),
    (0x24C, 8),
];
/// So much of each image is changed and edited, all copies together.
const CHANGED_BYTES: usize = 3 << 30;

/// Changes one to four places: fields of the superblock to values at an edge, a feature flag, any byte of a descriptor, a bitmap.
fn change_layout(bytes: &mut [u8], random: &mut fastrand::Rng) {
    let block = 1024 << (bytes[1024 + 0x18] & 7);
    let table = if block == 1024 { 2048 } else { block };
    for _ in 0..random.usize(1..=4) {
        let (at, len) = LAYOUT_FIELDS[random.usize(..LAYOUT_FIELDS.len())];
        let value = match random.u8(..3) {
            0 => random.u64(..0x400),
            1 => u64::MAX >> random.u8(..64),
            _ => 1 << random.u8(..64),
        };
        match random.u8(..4) {
            0 => bytes[1024 + at..][..len].copy_from_slice(&value.to_le_bytes()[..len]),
            1 => bytes[1024 + at + random.usize(..len)] ^= 1 << random.u8(..8),
            2 => {
                let at = (table + random.usize(..0x80)).min(bytes.len() - 1);
                bytes[at] = random.choice([0, 1, 0x20, 0xFF]).unwrap();
            }
            _ => {
                let at = (table + random.usize(..8 * block)).min(bytes.len() - 1);
                bytes[at] ^= 1 << random.u8(..8);
            }
        }
    }
}

#[test]
fn the_edits_of_ext4_hold_on_golden_images_and_changed_copies_of_them() {
    let mut random = fastrand::Rng::with_seed(0x4578_7434);
    for name in images::names() {
        let golden = images::load(&name);
        bodies::ext4_edit(&[&[4], &golden[..]].concat());
        for _ in 0..CHANGED_BYTES / golden.len() {
            let mut changed = [&[random.u8(..)], &golden[..]].concat();
            change_layout(&mut changed[1..], &mut random);
            bodies::ext4_edit(&changed);
        }
    }
}

/// Whole devices: fewer copies, since each has checksums over all that is read.
#[test]
fn a_scan_holds_on_golden_images_on_areas_and_on_changed_copies_of_them() {
    let mut random = fastrand::Rng::with_seed(0x5343_414E);
    for name in images::names() {
        let golden = images::load(&name);
        bodies::scan_image(&golden);
        // What is read: the superblock, and the block at the end of the head.
        let (mut changed, end) = (golden.clone(), head(&name).len());
        for _ in 0..CHANGED_DEVICES {
            change(&mut changed[..end], &mut random);
            bodies::scan_image(&changed);
            changed[..end].copy_from_slice(&golden[..end]);
        }
    }
    let used = [("data", SlotState::Holding), ("", SlotState::Free), ("log", SlotState::Released)];
    for area in [
        AreaImage::whole(&used),
        AreaImage::tail(&[0; 8192], SlotState::Claiming),
        AreaImage::tail(include_bytes!("../testimages/demo.img"), SlotState::Released),
    ] {
        bodies::scan_image(&area.bytes);
        let blocks = area.bytes.len() / 4096;
        for _ in 0..20 * CHANGED_DEVICES {
            let mut changed = area.bytes.clone();
            let at = random.usize(..blocks) * 4096;
            change_area(&mut changed[at..], &mut random);
            bodies::scan_image(&changed);
        }
    }
}

#[test]
fn the_bodies_hold_on_random_and_on_short_bytes() {
    let mut random = fastrand::Rng::with_seed(0xEF53);
    for len in (0..64).chain([1023, 1024, 1025, 2047, 2048, 4096]) {
        for _ in 0..32 {
            let mut bytes = vec![0; len];
            random.fill(&mut bytes);
            bodies::superblock(&bytes);
            bodies::mmp_block(&bytes);
            bodies::image(&bytes);
            bodies::area_header(&bytes);
            bodies::area_slot(&bytes);
            bodies::area_entry(&bytes);
            bodies::content(&bytes);
            bodies::ext4_edit(&bytes);
            bodies::scan_image(&bytes);
        }
    }
}
