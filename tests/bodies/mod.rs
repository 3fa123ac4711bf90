//! What the fuzz targets do with their bytes (`fuzz/fuzz_targets`), and `tests/mutated.rs` does with changed golden images. Each
//! panics where a promise of the format module is broken.

#![allow(dead_code)] // each fuzz target calls one of them

use std::path::Path;

use mmpguard::Error;
use mmpguard::ext4::{self, Bytes, Ext4Error, Plan, Planned, Wanted};
use mmpguard::format::area::{
    AreaDamage, AreaError, AreaHeader, HeaderRole, SlotBlock, SlotEntry, choose, counterpart,
};
use mmpguard::format::content::{Family, HEAD_BYTES, standing};
use mmpguard::format::fields::{descriptor, superblock as field};
use mmpguard::format::name::escape;
use mmpguard::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET_BYTES};
use mmpguard::format::{
    BlockDamage, ChecksumSeed, ContentError, Damage, Image, MMP_STRUCT_BYTES, MmpBlock, Superblock,
    SuperblockError,
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

/// A whole device for the edits of `ext4`: a byte that chooses the interval, then its bytes.
pub(crate) fn ext4_edit(bytes: &[u8]) {
    let Some((&choice, image)) = bytes.split_first() else { return };
    let mut device = EditedDevice { bytes: image.to_vec(), read_bytes: 0, writes: Vec::new() };
    let interval_s = u16::from(choice) + 1;
    let set = |device: &mut EditedDevice| ext4::set_interval(Path::new("image"), device, interval_s);
    let on = |device: &mut EditedDevice| {
        let (node, name) = (mmpguard::format::Name::new("alpha"), mmpguard::format::Name::new("sdb1"));
        ext4::enable(Path::new("image"), device, &Wanted { interval_s, node, device: name, time_s: 7 })
    };
    let off = |device: &mut EditedDevice| ext4::disable(Path::new("image"), device);
    device.change(&set);
    device.change(&off);
    if let Some(plan) = device.change(&on) {
        let back = device.change(&off).expect("what was switched on can be switched off");
        assert_eq!(back.block(), plan.block());
        // But for what MMP's fields said while it was off, and revision 0, which becomes 1.
        let rest = |superblock: &[u8; SUPERBLOCK_BYTES]| {
            let mut rest = *superblock;
            rest[field::MMP_UPDATE_INTERVAL..field::MMP_BLOCK + 8].fill(0);
            rest[field::CHECKSUM..].fill(0);
            rest
        };
        let revision = plan.superblock_before()[field::REV_LEVEL..][..4] != [0; 4];
        let same = rest(back.superblock_after()) == rest(plan.superblock_before());
        assert!(same || !revision, "the superblock is as it was");
    }
}

struct EditedDevice {
    bytes: Vec<u8>,
    read_bytes: usize,
    writes: Vec<(u64, Vec<u8>)>,
}

impl EditedDevice {
    /// Plans a change and carries it out, if it is not refused; checks the promises.
    fn change(&mut self, plan: &dyn Fn(&mut Self) -> Result<Planned, Error>) -> Option<Plan> {
        let plan = self.sealed(plan)?;
        let mut spans = Vec::new();
        for edit in plan.edits() {
            let end = edit.offset_bytes + edit.bytes.len() as u64;
            assert!(end <= self.bytes.len() as u64, "inside the device");
            spans.push(edit.offset_bytes..end);
        }
        spans.sort_unstable_by_key(|span| span.start);
        assert!(spans.windows(2).all(|pair| pair[0].end <= pair[1].start), "no byte is written twice");
        self.writes.clear();
        plan.carry_out(self, &mut |_| Ok(())).unwrap();
        assert_eq!(plan.edits().len(), self.writes.len());
        for (edit, (offset_bytes, bytes)) in plan.edits().iter().zip(&self.writes) {
            assert_eq!((edit.offset_bytes, &*edit.bytes), (*offset_bytes, bytes.as_slice()));
        }
        assert!(Superblock::decode(self.bytes[1024..].first_chunk().unwrap()).is_ok());
        Some(plan)
    }

    /// Plans, and again with the right checksums as long as they are all that is wrong: no fuzzer guesses one.
    fn sealed(&mut self, plan: &dyn Fn(&mut Self) -> Result<Planned, Error>) -> Option<Plan> {
        for _ in 0..8 {
            self.read_bytes = 0;
            let planned = plan(self);
            // Descriptors once, a bitmap, the superblock, and a little.
            assert!(self.read_bytes <= self.bytes.len() + (1 << 18), "{} bytes were read", self.read_bytes);
            assert!(self.writes.len() < 1 << 16);
            let error = match planned {
                Ok(Planned::Do(plan)) => return Some(plan),
                Ok(Planned::Already { .. }) => return None,
                Err(error) => error,
            };
            assert!(safe(&error.to_string()), "{error}");
            if !self.mend(&error) {
                return None;
            }
        }
        None
    }

    fn mend(&mut self, error: &Error) -> bool {
        match error {
            Error::Superblock { source: SuperblockError::Checksum { computed, .. }, .. } => {
                self.put(1024 + field::CHECKSUM as u64, &computed.to_le_bytes());
            }
            Error::Ext4 { source: Ext4Error::DescriptorChecksum { offset_bytes, computed, .. }, .. } => {
                self.put(offset_bytes + descriptor::CHECKSUM as u64, &computed.to_le_bytes());
            }
            Error::Ext4 { source: Ext4Error::BitmapChecksum { offset_bytes, computed, .. }, .. } => {
                let halves = computed.to_le_bytes();
                self.put(offset_bytes + descriptor::BLOCK_BITMAP_CSUM_LO as u64, &halves[..2]);
                // 64bit: a wide descriptor.
                if self.bytes[1024 + field::FEATURE_INCOMPAT] & 0x80 != 0 {
                    self.put(offset_bytes + descriptor::BLOCK_BITMAP_CSUM_HI as u64, &halves[2..]);
                }
            }
            Error::Damaged { damage: Damage::Block(BlockDamage::Checksum { computed, .. }), .. } => {
                let found = Superblock::decode(self.bytes[1024..].first_chunk().unwrap()).unwrap();
                self.put(found.mmp_offset_bytes().unwrap() + 0x3FC, &computed.to_le_bytes());
            }
            _ => return false,
        }
        true
    }

    fn put(&mut self, offset_bytes: u64, bytes: &[u8]) {
        let at = usize::try_from(offset_bytes).unwrap();
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

impl Bytes for EditedDevice {
    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&mut self, offset_bytes: u64, into: &mut [u8]) -> Result<(), Error> {
        self.read_bytes += into.len();
        let from = usize::try_from(offset_bytes).ok().and_then(|at| self.bytes.get(at..)?.get(..into.len()));
        let Some(from) = from else {
            return Err(Error::Short { path: Path::new("image").to_owned(), what: "it ends".to_owned() });
        };
        into.copy_from_slice(from);
        Ok(())
    }

    fn write_at(&mut self, offset_bytes: u64, bytes: &[u8]) -> Result<(), Error> {
        self.put(offset_bytes, bytes);
        self.writes.push((offset_bytes, bytes.to_owned()));
        Ok(())
    }
}
