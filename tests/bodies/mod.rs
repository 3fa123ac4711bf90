//! What the fuzz targets do with their bytes (`fuzz/fuzz_targets`), and `tests/mutated.rs` does with changed golden images. Each
//! panics where a promise of the format module is broken.

#![allow(dead_code)] // each fuzz target calls one of them

use mmpguard::format::area::{
    AreaDamage, AreaError, AreaHeader, HeaderRole, SlotBlock, SlotEntry, choose, counterpart,
};
use mmpguard::format::content::{Family, HEAD_BYTES, standing};
use mmpguard::format::name::escape;
use mmpguard::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET_BYTES};
use mmpguard::format::{
    BlockDamage, ChecksumSeed, ContentError, Image, MMP_STRUCT_BYTES, MmpBlock, Superblock, SuperblockError,
};
use mmpguard::io::MemImage;
use mmpguard::scan::{Protection, State, look};

/// A superblock: the first 1024 bytes, zeroes where there are fewer.
pub(crate) fn superblock(bytes: &[u8]) {
    let mut image = [0; SUPERBLOCK_BYTES];
    let len = bytes.len().min(SUPERBLOCK_BYTES);
    image[..len].copy_from_slice(&bytes[..len]);
    if let Some(superblock) = sealed(image) {
        check_superblock(&superblock);
    }
}

/// Decodes, and once more with the right checksum if that is all that is wrong: no fuzzer guesses one.
fn sealed(mut image: [u8; SUPERBLOCK_BYTES]) -> Option<Superblock> {
    let mut decoded = Superblock::decode(&image);
    if let Err(SuperblockError::Checksum { computed, .. }) = decoded {
        image[0x3FC..].copy_from_slice(&computed.to_le_bytes());
        decoded = Superblock::decode(&image);
    }
    decoded.inspect_err(|error| assert!(safe(&error.to_string()), "{error}")).ok()
}

/// An MMP block: a byte that chooses whether there is a checksum, four for its seed, then the block.
pub(crate) fn mmp_block(bytes: &[u8]) {
    let Some((head, rest)) = bytes.split_at_checked(5) else { return };
    let mut image = [0; MMP_STRUCT_BYTES];
    let len = rest.len().min(MMP_STRUCT_BYTES);
    image[..len].copy_from_slice(&rest[..len]);
    let seed = ChecksumSeed(u32::from_le_bytes([head[1], head[2], head[3], head[4]]));
    check_block(&image, (head[0] & 1 == 1).then_some(seed));
    if head[0] & 2 == 2 {
        // No fuzzer guesses a checksum: give it the right one.
        let checksum = seed.checksum(&image[..0x3FC]);
        image[0x3FC..].copy_from_slice(&checksum.to_le_bytes());
        check_block(&image, Some(seed));
    }
}

/// A whole small device: finds the superblock, then the block.
pub(crate) fn image(bytes: &[u8]) {
    let at = usize::try_from(SUPERBLOCK_OFFSET_BYTES).unwrap();
    let Some(found) = bytes.get(at..).and_then(|rest| rest.first_chunk::<SUPERBLOCK_BYTES>()) else { return };
    let Some(superblock) = sealed(*found) else { return };
    check_superblock(&superblock);
    let Ok(offset) = superblock.mmp_offset_bytes() else { return };
    let block =
        usize::try_from(offset).ok().and_then(|at| bytes.get(at..)?.first_chunk::<MMP_STRUCT_BYTES>());
    if let Some(block) = block {
        check_block(block, superblock.checksum_seed);
    }
}

fn check_superblock(superblock: &Superblock) {
    assert!((1024..=65536).contains(&superblock.block_bytes) && superblock.block_bytes.is_power_of_two());
    let _ = superblock.in_use_or_unclean();
    assert!(safe(&superblock.volume_name.to_string()));
    match superblock.mmp_offset_bytes() {
        Ok(offset) => {
            let end = offset + u64::from(superblock.block_bytes);
            assert!(i64::try_from(end).is_ok());
            assert!(offset >= SUPERBLOCK_OFFSET_BYTES + SUPERBLOCK_BYTES as u64, "on the superblock");
            assert!(superblock.mmp_block < superblock.blocks_count);
        }
        Err(error) => assert!(safe(&error.to_string())),
    }
}

fn check_block(image: &Image, seed: Option<ChecksumSeed>) {
    let shown = MmpBlock::fields(image);
    for bytes in [shown.node.bytes(), shown.device.bytes()] {
        assert!(safe(&escape(bytes)));
    }
    let Ok(block) = MmpBlock::decode(image, seed) else { return };
    assert_eq!(block, shown);
    // Writing the fields over what is left of the block without them gives the same bytes.
    let mut again = *image;
    again[..0x72].fill(0xA5);
    if seed.is_some() {
        again[0x3FC..].fill(0xA5);
    }
    block.encode_into(&mut again, seed);
    assert_eq!(&again, image);
}

/// The first 1024 bytes, zeroes where there are fewer.
fn padded(bytes: &[u8]) -> Image {
    let mut image = [0; MMP_STRUCT_BYTES];
    let len = bytes.len().min(MMP_STRUCT_BYTES);
    image[..len].copy_from_slice(&bytes[..len]);
    image
}

/// Decodes a block of an area, and once more with the right checksum if that is all that is wrong.
fn area_block<T: std::fmt::Debug>(
    image: &mut Image,
    decode: impl Fn(&Image) -> Result<T, AreaError>,
) -> Option<T> {
    let mut decoded = decode(image);
    if let Err(AreaError::Damaged {
        damage:
            AreaDamage::Checksum { computed, .. }
            | AreaDamage::Struct { wrong: BlockDamage::Checksum { computed, .. } },
    }) = decoded
    {
        image[0x3FC..].copy_from_slice(&computed.to_le_bytes());
        decoded = decode(image);
    }
    let error = match decoded {
        Ok(decoded) => return Some(decoded),
        Err(error) => error,
    };
    assert!(safe(&error.to_string()), "{error}");
    assert!(error.is_damage() || matches!(error, AreaError::Unsupported { .. }), "{error}");
    assert!(error.is_damage() || !error.is_absent());
    None
}

/// A header of an area: the first 1024 bytes, as block 0 and as the copy.
pub(crate) fn area_header(bytes: &[u8]) {
    for role in [HeaderRole::Header, HeaderRole::Copy] {
        let mut image = padded(bytes);
        if let Some(header) = area_block(&mut image, |image| AreaHeader::decode(image, role)) {
            check_header(&header, &image);
        }
    }
}

fn check_header(header: &AreaHeader, image: &Image) {
    let layout = header.check().unwrap();
    assert!(i64::try_from(layout.end_bytes()).is_ok() && layout.end_bytes() <= header.target_bytes);
    assert_eq!(layout.end_bytes(), layout.copy_offset_bytes() + 4096);
    let last = layout.slots() - 1;
    assert!(layout.slot_offset_bytes(last).unwrap() < layout.entry_offset_bytes(0).unwrap());
    assert_eq!(layout.entry_offset_bytes(last).unwrap() + 4096, layout.copy_offset_bytes());
    let at = match header.role {
        HeaderRole::Header => layout.header_offset_bytes(),
        HeaderRole::Copy => layout.copy_offset_bytes(),
    };
    assert_eq!(header.check_position(at, header.target_bytes), Ok(()));
    assert!(header.check_position(at ^ 4096, header.target_bytes).is_err());
    assert!(safe(&header.label.to_string()) && safe(&header.content.to_string()));
    let pair = [HeaderRole::Header, HeaderRole::Copy].map(|role| counterpart(image, role));
    assert_eq!(choose(&pair[0], &pair[1]).unwrap().repair, None);
    let mut again = *image;
    again[..0x5C].fill(0xA5);
    again[0x60..0xB8].fill(0xA5);
    again[0x3FC..].fill(0xA5);
    header.encode_into(&mut again);
    assert_eq!(&again, image);
}

/// A slot block of an area: four bytes for the seed, then the block; read as the slot that it says, and as slot 0.
pub(crate) fn area_slot(bytes: &[u8]) {
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return };
    let seed = ChecksumSeed(u32::from_le_bytes(*head));
    let image = padded(rest);
    let number = u32::from_le_bytes(*image[0x90..].first_chunk().unwrap());
    for number in [number, 0] {
        let mut image = image;
        let Some(slot) = area_block(&mut image, |image| SlotBlock::decode(image, seed, number)) else {
            continue;
        };
        assert_eq!(MmpBlock::decode(&image, Some(seed)), Ok(slot.block));
        assert!(slot.record.slot == number && slot.record.state.goes_with(slot.block.seq));
        assert!(safe(&slot.record.name.to_string()));
        let mut again = image;
        again[..0x72].fill(0xA5);
        again[0x80..0xB8].fill(0xA5);
        again[0xC0..0x100].fill(0xA5);
        again[0x3FC..].fill(0xA5);
        slot.encode_into(&mut again, seed);
        assert_eq!(again, image);
    }
}

/// An entry block of an area: read as the slot that it says, of the area that it says.
pub(crate) fn area_entry(bytes: &[u8]) {
    let mut image = padded(bytes);
    let number = u32::from_le_bytes(*image[0x08..].first_chunk().unwrap());
    let area: [u8; 16] = *image[0x70..].first_chunk().unwrap();
    let decode = |image: &Image| SlotEntry::decode(image, &area, number);
    let Some(entry) = area_block(&mut image, decode) else { return };
    assert_eq!((entry.slot, entry.area), (number, area));
    assert!(safe(&entry.name.to_string()));
    assert!(SlotEntry::decode(&image, &area, number ^ 1).is_err());
    let mut again = image;
    again[..0x0E].fill(0xA5);
    again[0x10..0x80].fill(0xA5);
    again[0x3FC..].fill(0xA5);
    entry.encode_into(&mut again);
    assert_eq!(again, image);
}

/// A whole device of up to 1 MiB: looked at as `mmp scan` looks at one; once more with the checksums that decide put right, which no
/// fuzzer guesses.
pub(crate) fn scan_image(bytes: &[u8]) {
    let mut bytes = bytes[..bytes.len().min(1 << 20)].to_vec();
    check_rows(&bytes);
    let mut changed = false;
    if let Some(image) = bytes.get_mut(1024..).and_then(|rest| rest.first_chunk_mut::<SUPERBLOCK_BYTES>())
        && let Err(SuperblockError::Checksum { computed, .. }) = Superblock::decode(image)
    {
        image[0x3FC..].copy_from_slice(&computed.to_le_bytes());
        changed = true;
    }
    let last = (bytes.len() / 4096).saturating_sub(1) * 4096;
    for (at, role) in [(0, HeaderRole::Header), (last, HeaderRole::Copy)] {
        if let Some(image) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<MMP_STRUCT_BYTES>())
            && let Err(AreaError::Damaged { damage: AreaDamage::Checksum { computed, .. } }) =
                AreaHeader::decode(image, role)
        {
            image[0x3FC..].copy_from_slice(&computed.to_le_bytes());
            changed = true;
        }
    }
    if changed {
        check_rows(&bytes);
    }
}

fn check_rows(bytes: &[u8]) {
    let rows = look(&MemImage(bytes));
    let device = &rows[0];
    assert_eq!(device.size_bytes, Some(bytes.len() as u64));
    let states: &[State] = match device.protection {
        Some(Protection::Native) => {
            &[State::Clean, State::LiveOrUnclean, State::Fsck, State::Unknown, State::Damaged]
        }
        Some(Protection::TailArea) => {
            &[State::Clean, State::LiveOrUnclean, State::Damaged, State::Unsupported, State::Unusable]
        }
        Some(Protection::Area) => &[State::Usable, State::Unusable],
        Some(Protection::None) => &[State::NotEnabled],
        Some(Protection::Slot) => panic!("a device is no slot: {device:?}"),
        None => &[State::Damaged, State::Unsupported],
    };
    assert!(states.contains(&device.state), "{device:?}");
    assert!(rows.len() == 1 || device.protection == Some(Protection::Area), "{rows:?}");
    for row in &rows {
        let told = row.reason.iter().chain(&row.notes).chain(&row.filesystem);
        assert!(told.into_iter().all(|text| safe(text)), "{row:?}");
        let why = matches!(row.state, State::Damaged | State::Unsupported | State::Unusable | State::Unknown);
        assert_eq!(row.reason.is_some(), why, "{row:?}");
        if let Some(last) = &row.last {
            assert!(safe(&last.node.to_string()) && safe(&last.device.to_string()));
        }
        if let (Some(label), Some(slot)) = (&row.label, &row.slot) {
            assert!(safe(&label.to_string()) && safe(&slot.name.to_string()));
        }
    }
    for slot in &rows[1..] {
        assert!(slot.protection == Some(Protection::Slot) && slot.slot.is_some(), "{slot:?}");
    }
}

/// True if a terminal, a log or a JSON string shows `text` as it is: no control, no bidirectional override, nothing
/// invisible.
pub(crate) fn safe(text: &str) -> bool {
    text.chars().all(|character| match character {
        ' '..='~' => true,
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' => false,
        _ => character.is_alphanumeric(),
    })
}

/// A superblock of a filesystem: a byte that chooses which of three, then the bytes that stand in its place.
pub(crate) fn content(bytes: &[u8]) {
    let Some((&choice, rest)) = bytes.split_first() else { return };
    let family = [Family::Ext, Family::Xfs, Family::Btrfs][usize::from(choice) % 3];
    let at = usize::try_from(family.offset_bytes()).unwrap();
    let len = rest.len().min(HEAD_BYTES - at);
    let mut head = vec![0; if choice & 0x80 == 0 { HEAD_BYTES } else { at + len }];
    head[at..at + len].copy_from_slice(&rest[..len]);
    let mut found = standing(&head);
    // One more time with the right checksum: no fuzzer guesses one.
    let sum = match &found {
        Err(ContentError::Checksum { family: Family::Xfs, computed, .. }) => Some((224, *computed)),
        Err(ContentError::Checksum { computed, .. }) => Some((64 << 10, *computed)),
        Err(ContentError::Ext { source: SuperblockError::Checksum { computed, .. } }) => {
            Some((1024 + 0x3FC, *computed))
        }
        _ => None,
    };
    if let Some((at, computed)) = sum {
        head[at..at + 4].copy_from_slice(&computed.to_le_bytes());
        found = standing(&head);
        assert!(
            !matches!(
                found,
                Err(ContentError::Checksum { .. }
                    | ContentError::Ext { source: SuperblockError::Checksum { .. } })
            ),
            "{found:?}"
        );
    }
    match found {
        Ok(found) => {
            assert!(found.len() <= 3);
            for one in found {
                assert!(one.end_bytes > 0 && i64::try_from(one.end_bytes).is_ok() && one.devices > 0);
                assert!(safe(&one.to_string()) && one.uuid_text().len() == 36);
            }
        }
        Err(error) => assert!(safe(&error.to_string()), "{error}"),
    }
}
