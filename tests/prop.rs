//! Properties of the codec over arbitrary bytes (proptest).

mod bodies;
mod images;

use std::collections::HashMap;

use mmpguard::format::area::{
    AreaBlock, AreaDamage, AreaError, AreaHeader, AreaLayout, AreaPlace, EntryState, GuardRecord, HeaderRole,
    RepairReason, SLOTS_MAX, SlotBlock, SlotEntry, SlotState, choose, counterpart, next_generation,
    slot_name, slots_that_fit,
};
use mmpguard::format::name::escape;
use mmpguard::format::{
    BlockDamage, ChecksumSeed, DeviceName, Image, MMP_STRUCT_BYTES, MmpBlock, Name, NodeName,
};
use mmpguard::protocol::sequence::{SEQ_CLEAN, SEQ_MAX};
use proptest::prelude::*;

fn image() -> impl Strategy<Value = Image> {
    proptest::array::uniform32(any::<[u8; 32]>()).prop_map(|rows| {
        let mut image = [0; MMP_STRUCT_BYTES];
        for (to, row) in image.chunks_exact_mut(32).zip(rows) {
            to.copy_from_slice(&row);
        }
        image
    })
}

fn seed() -> impl Strategy<Value = Option<ChecksumSeed>> {
    proptest::option::of(any::<u32>().prop_map(ChecksumSeed))
}

prop_compose! {
    fn block()(
        seq: u32,
        time_s: u64,
        node in proptest::array::uniform32(any::<[u8; 2]>()),
        device: [u8; 32],
        check_interval_s: u16,
    ) -> MmpBlock {
        let mut field = [0; 64];
        field.copy_from_slice(node.as_flattened());
        MmpBlock {
            seq,
            time_s,
            node: NodeName::from_field(field),
            device: DeviceName::from_field(device),
            check_interval_s,
        }
    }
}

fn slot_number() -> impl Strategy<Value = u32> {
    prop_oneof![0..5u32, 0..SLOTS_MAX]
}

/// A name that slot `slot` can have.
fn name_of(slot: u32) -> BoxedStrategy<Name<64>> {
    if slot == 0 {
        return Just(Name::new("lock")).boxed();
    }
    let bytes = proptest::collection::vec(any::<u8>(), 1..=64);
    bytes.prop_filter_map("not a name", |bytes| slot_name(&bytes).ok()).boxed()
}

fn name() -> impl Strategy<Value = (u32, Name<64>)> {
    slot_number().prop_flat_map(|slot| (Just(slot), name_of(slot)))
}

prop_compose! {
    fn header()(
        uuid: [u8; 16],
        slots in prop_oneof![2..9u32, 2..=SLOTS_MAX],
        before in prop_oneof![0..1000u64, 0..1u64 << 50],
        rest in 0..100_000u64,
        interval_ms in 100..=10_000u32,
        created_s: u64,
        (revision, compat, ro_compat) in any::<(u64, u32, u32)>(),
        place in 0..3usize,
        names in any::<([u8; 32], [u8; 32], [u8; 16])>(),
        content in any::<u64>(),
    ) -> AreaHeader {
        let mut label = [0; 64];
        label[..32].copy_from_slice(&names.0);
        label[32..].copy_from_slice(&names.1);
        let place = [AreaPlace::Tail, AreaPlace::Whole, AreaPlace::File][place];
        let offset_bytes = if place == AreaPlace::Tail { before * 4096 } else { 0 };
        let end_bytes = AreaLayout::new(offset_bytes, slots).unwrap().end_bytes();
        AreaHeader {
            incompat: 0,
            ro_compat,
            compat,
            uuid,
            offset_bytes,
            target_bytes: end_bytes + if place == AreaPlace::Tail { rest % 4096 } else { rest },
            slots,
            interval_ms,
            created_s,
            revision,
            role: HeaderRole::Header,
            place,
            label: Name::from_field(label),
            content_end_bytes: if offset_bytes == 0 { 0 } else { content % (offset_bytes + 1) },
            content: Name::from_field(names.2),
        }
    }
}

prop_compose! {
    fn slot_block()(
        block in block(),
        live in 1..=SEQ_MAX,
        state in 0..4usize,
        generation: u64,
        (slot, name) in name(),
        interval_ms in 100..=10_000u32,
        boot_id: [u8; 16],
        target: [u8; 16],
    ) -> SlotBlock {
        let state = [SlotState::Free, SlotState::Released, SlotState::Claiming, SlotState::Holding][state];
        let seq = if state.goes_with(SEQ_CLEAN) { SEQ_CLEAN } else { live };
        SlotBlock {
            block: MmpBlock { seq, ..block },
            record: GuardRecord { state, generation, slot, interval_ms, boot_id, target, name },
        }
    }
}

prop_compose! {
    fn entry()(
        (slot, name) in name(),
        used: bool,
        high_water: u64,
        target: [u8; 16],
        changed_s: u64,
        area: [u8; 16],
    ) -> SlotEntry {
        let state = if used || slot == 0 { EntryState::Used } else { EntryState::Free };
        let name = if state == EntryState::Free && target[0] & 1 == 0 { Name::new("") } else { name };
        SlotEntry { slot, state, high_water, target, name, changed_s, area }
    }
}

/// True for the damage that a flipped bit is: of the magic in the first `magic` bytes, else of the checksum.
fn is_flip(error: &AreaError, byte: usize, magic: usize) -> bool {
    let is_magic = match error {
        AreaError::Damaged {
            damage: AreaDamage::Magic { .. } | AreaDamage::Struct { wrong: BlockDamage::Magic { .. } },
        } => true,
        AreaError::Damaged {
            damage: AreaDamage::Checksum { .. } | AreaDamage::Struct { wrong: BlockDamage::Checksum { .. } },
        } => false,
        _ => return false,
    };
    is_magic == (byte < magic)
}

/// Bytes that are text in part: names, escapes as the escaper writes them, other scripts, controls, broken UTF-8.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        "[a-zA-Z0-9._/-]{1,8}".prop_map(String::into_bytes),
        "\\\\(x[0-9a-f]{2}|u\\{[0-9a-f]{1,6}\\}|\\\\)?".prop_map(String::into_bytes),
        any::<char>().prop_map(|character| character.to_string().into_bytes()),
        "[\u{0}-\u{1f}\u{7f}-\u{9f}\u{200b}-\u{200f}\u{202a}-\u{202e}\u{2066}-\u{2069}]"
            .prop_map(String::into_bytes),
        "[\u{ad}\u{61c}\u{115f}\u{1160}\u{3164}\u{feff}\u{ffa0}\u{e0001}]".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 1..5),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// Reads back what `escape` writes; none where it could not have written it.
fn unescape(shown: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = shown;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        if character != '\\' {
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        } else if let Some(after) = rest.strip_prefix('\\') {
            bytes.push(b'\\');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('x') {
            bytes.push(u8::from_str_radix(after.get(..2)?, 16).ok()?);
            rest = &after[2..];
        } else {
            let (number, after) = rest.strip_prefix("u{")?.split_once('}')?;
            let character = char::from_u32(u32::from_str_radix(number, 16).ok()?)?;
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            rest = after;
        }
    }
    Some(bytes)
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        bodies::superblock(&bytes);
        bodies::mmp_block(&bytes);
        bodies::image(&bytes);
        bodies::area_header(&bytes);
        bodies::area_slot(&bytes);
        bodies::area_entry(&bytes);
    }

    #[test]
    fn encode_then_decode_is_the_identity(block in block(), mut image in image(), seed in seed()) {
        block.encode_into(&mut image, seed);
        let decoded = MmpBlock::decode(&image, seed).unwrap();
        prop_assert_eq!(&decoded, &block);
        // Names compare up to their NUL; the bytes behind it have to come back too.
        prop_assert_eq!(decoded.node.field(), block.node.field());
        prop_assert_eq!(decoded.device.field(), block.device.field());
    }

    #[test]
    fn encoding_leaves_the_padding_alone(block in block(), before in image(), seed in seed()) {
        let mut after = before;
        block.encode_into(&mut after, seed);
        prop_assert!(after[0x72..0x3FC] == before[0x72..0x3FC]);
        prop_assert!(seed.is_some() || after[0x3FC..] == before[0x3FC..]);
    }

    #[test]
    fn a_torn_block_is_found(old in block(), new in block(), mut image in image(), cut in 1..MMP_STRUCT_BYTES) {
        // The first bytes are of the new write, the rest of the old one.
        let seed = Some(ChecksumSeed(0x1234_5678));
        old.encode_into(&mut image, seed);
        let mut torn = image;
        new.encode_into(&mut torn, seed);
        let whole = torn;
        torn[cut..].copy_from_slice(&image[cut..]);
        if torn != whole && torn != image {
            prop_assert!(MmpBlock::decode(&torn, seed).is_err());
        }
    }

    #[test]
    fn a_name_survives_its_field(text in "\\PC{0,80}") {
        let name = Name::<32>::new(&text);
        prop_assert!(text.as_bytes().starts_with(name.bytes()));
        prop_assert!(std::str::from_utf8(name.bytes()).is_ok());
        prop_assert_eq!(Name::from_field(*name.field()), name);
        prop_assert!(text.len() > 32 || name.bytes() == text.as_bytes());
    }

    #[test]
    fn what_is_shown_is_safe_and_can_be_read_back(bytes in text()) {
        let shown = escape(&bytes);
        prop_assert!(bodies::safe(&shown), "{shown:?}");
        prop_assert_eq!(unescape(&shown), Some(bytes));
    }

    #[test]
    fn json_shows_a_name_as_text_does(field in any::<[u8; 32]>()) {
        let name = Name::from_field(field);
        let json: String = serde_json::from_str(&serde_json::to_string(&name).unwrap()).unwrap();
        prop_assert_eq!(json, name.to_string());
    }
}

proptest! {
    #[test]
    fn bytes_that_look_like_an_area_make_no_decoder_panic(mut bytes in image(), number in 0..5u32) {
        bytes[..16].copy_from_slice(b"mmpguard area\r\n\x1a");
        bytes[0x10..0x14].fill(0);
        bytes[0x1C..0x20].copy_from_slice(&4096u32.to_le_bytes());
        bytes[0x58..0x5C].copy_from_slice(&[0, 0, 1 + u8::try_from(number % 3).unwrap(), 0]);
        bodies::area_header(&bytes);
        bytes[0x40..0x44].copy_from_slice(&(2 + number).to_le_bytes());
        bytes[0x44..0x48].copy_from_slice(&1000u32.to_le_bytes());
        bodies::area_header(&bytes);
        bytes[..8].copy_from_slice(b"MMPSLOT\0");
        bytes[0x0C..0x0E].copy_from_slice(&[u8::try_from(number % 3).unwrap(), 0]);
        bodies::area_entry(&bytes);
        bytes[4..8].copy_from_slice(&0x004D_4D50u32.to_le_bytes());
        bytes[0x84..0x88].copy_from_slice(b"GRD1");
        bytes[0x88..0x8C].copy_from_slice(&[1, 0, u8::try_from(number).unwrap(), 0]);
        bodies::area_slot(&bytes);
    }

    #[test]
    fn headers_come_back(header in header(), mut image in image()) {
        let before = image;
        header.encode_into(&mut image);
        let decoded = AreaHeader::decode(&image, HeaderRole::Header).unwrap();
        prop_assert_eq!(decoded, header);
        prop_assert_eq!(decoded.label.field(), header.label.field());
        prop_assert_eq!(decoded.content.field(), header.content.field());
        prop_assert!(image[0x5C..0x60] == before[0x5C..0x60] && image[0xB8..0x3FC] == before[0xB8..0x3FC]);
        bodies::area_header(&image);
        bodies::area_header(&counterpart(&image, HeaderRole::Copy));
        prop_assert_eq!(header.check_writable().is_ok(), header.ro_compat == 0);
    }

    #[test]
    fn slot_blocks_come_back(slot in slot_block(), mut image in image(), seed: u32) {
        let before = image;
        slot.encode_into(&mut image, ChecksumSeed(seed));
        let decoded = SlotBlock::decode(&image, ChecksumSeed(seed), slot.record.slot).unwrap();
        prop_assert_eq!(decoded, slot);
        prop_assert_eq!(decoded.record.name.field(), slot.record.name.field());
        for kept in [0x72..0x80, 0xB8..0xC0, 0x100..0x3FC] {
            prop_assert!(image[kept.clone()] == before[kept]);
        }
        bodies::area_slot(&[&seed.to_le_bytes(), &image[..]].concat());
        // Of every other slot and area it is damage.
        for error in [
            SlotBlock::decode(&image, ChecksumSeed(seed), slot.record.slot ^ 1).unwrap_err(),
            SlotBlock::decode(&image, ChecksumSeed(seed ^ 1), slot.record.slot).unwrap_err(),
        ] {
            prop_assert!(error.is_damage() && !error.is_absent());
        }
    }

    #[test]
    fn entries_come_back(entry in entry(), mut image in image()) {
        let before = image;
        entry.encode_into(&mut image);
        let decoded = SlotEntry::decode(&image, &entry.area, entry.slot).unwrap();
        prop_assert_eq!(decoded, entry);
        prop_assert_eq!(decoded.name.field(), entry.name.field());
        prop_assert!(image[0x0E..0x10] == before[0x0E..0x10] && image[0x80..0x3FC] == before[0x80..0x3FC]);
        bodies::area_entry(&image);
    }

    #[test]
    fn a_state_goes_with_its_own_sequences(slot in slot_block(), seq: u32) {
        let mut image = [0; MMP_STRUCT_BYTES];
        let wrong = SlotBlock { block: MmpBlock { seq, ..slot.block }, ..slot };
        wrong.encode_into(&mut image, ChecksumSeed(1));
        let decoded = SlotBlock::decode(&image, ChecksumSeed(1), slot.record.slot);
        let clean = matches!(slot.record.state, SlotState::Free | SlotState::Released);
        let good = if clean { seq == SEQ_CLEAN } else { (1..=SEQ_MAX).contains(&seq) };
        prop_assert_eq!(decoded.is_ok(), good, "{:?}", decoded);
    }

    #[test]
    fn layouts_leave_no_gap_and_no_overlap(slots in 2..200u32, block in 0..1u64 << 50) {
        let layout = AreaLayout::new(block * 4096, slots).unwrap();
        let mut all = vec![layout.header_offset_bytes(), layout.copy_offset_bytes()];
        all.extend((0..slots + 3).filter_map(|slot| layout.slot_offset_bytes(slot)));
        all.extend((0..slots + 3).filter_map(|slot| layout.entry_offset_bytes(slot)));
        all.sort_unstable();
        let want: Vec<_> = (0..2 * u64::from(slots) + 2).map(|at| (block + at) * 4096).collect();
        prop_assert_eq!(all, want);
        prop_assert_eq!(slots_that_fit(layout.total_bytes()), Some(slots));
    }

    #[test]
    fn what_was_not_finished_can_be_repaired(old in header(), cut in 0..=MMP_STRUCT_BYTES, order: bool) {
        // A rewrite of both headers that stopped after some bytes of the first or of the second.
        let old = AreaHeader { revision: old.revision.min(u64::MAX - 1), ..old };
        let new = AreaHeader { revision: old.revision + 1, created_s: 7, ..old };
        let pair = |header: AreaHeader| {
            let mut image = [0; MMP_STRUCT_BYTES];
            header.encode_into(&mut image);
            [image, counterpart(&image, HeaderRole::Copy)]
        };
        let (before, after) = (pair(old), pair(new));
        let torn = |at: usize| {
            let mut image = before[at];
            image[..cut].copy_from_slice(&after[at][..cut]);
            image
        };
        let first = usize::from(order);
        for step in 0..2 {
            let mut found = if step == 0 { before } else { after };
            let at = if step == 0 { first } else { 1 - first };
            found[at] = torn(at);
            let choice = choose(&found[0], &found[1]).unwrap();
            prop_assert!([old.revision, new.revision].contains(&choice.header.revision));
            if let Some(repair) = choice.repair {
                let older = matches!(repair.why, RepairReason::Older { .. });
                prop_assert!(older || repair.role != choice.header.role);
                let (bad, good) = if repair.role == HeaderRole::Header { (0, 1) } else { (1, 0) };
                found[bad] = counterpart(&found[good], repair.role);
                prop_assert_eq!(choose(&found[0], &found[1]).unwrap().repair, None);
            }
        }
    }

    #[test]
    fn generations_only_grow(slot: Option<u64>, high_water: Option<u64>, floor_s in 0..1u64 << 48) {
        match next_generation(slot, high_water, floor_s) {
            Ok(next) => {
                prop_assert!(slot.is_none_or(|last| next > last) && high_water.is_none_or(|last| next > last));
                prop_assert!(next >= floor_s << 16 && next != 0);
            }
            Err(_) => prop_assert!(slot.max(high_water).is_none_or(|last| last == u64::MAX)),
        }
    }

    #[test]
    fn a_slots_name_is_what_was_asked_for(bytes in proptest::collection::vec(any::<u8>(), 0..70)) {
        if let Ok(name) = slot_name(&bytes) {
            prop_assert_eq!(name.bytes(), &bytes);
        }
    }
}

proptest! {
    // Each case flips every bit of a block once.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn every_single_flipped_bit_is_found(block in block(), mut image in image(), seed: u32) {
        let seed = Some(ChecksumSeed(seed));
        block.encode_into(&mut image, seed);
        for bit in 0..MMP_STRUCT_BYTES * 8 {
            let mut flipped = image;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let found = MmpBlock::decode(&flipped, seed);
            let want_magic = bit / 8 < 4;
            prop_assert_eq!(matches!(found, Err(BlockDamage::Magic { .. })), want_magic, "bit {}", bit);
            prop_assert_eq!(matches!(found, Err(BlockDamage::Checksum { .. })), !want_magic, "bit {}", bit);
        }
    }

    #[test]
    fn every_flipped_bit_of_an_areas_blocks_is_found(
        header in header(), slot in slot_block(), entry in entry(), image in image(), seed: u32,
    ) {
        let seed = ChecksumSeed(seed);
        let (mut headers, mut slots, mut entries) = (image, image, image);
        header.encode_into(&mut headers);
        slot.encode_into(&mut slots, seed);
        entry.encode_into(&mut entries);
        for bit in 0..MMP_STRUCT_BYTES * 8 {
            let (at, mask) = (bit / 8, 1 << (bit % 8));
            let flipped = |image: &Image| { let mut image = *image; image[at] ^= mask; image };
            let error = AreaHeader::decode(&flipped(&headers), HeaderRole::Header).unwrap_err();
            prop_assert!(is_flip(&error, at, 16), "{}", error);
            let error = SlotBlock::decode(&flipped(&slots), seed, slot.record.slot).unwrap_err();
            prop_assert!(is_flip(&error, at, 4), "{}", error);
            let error = SlotEntry::decode(&flipped(&entries), &entry.area, entry.slot).unwrap_err();
            prop_assert!(is_flip(&error, at, 8), "{}", error);
        }
    }
}

#[test]
fn different_short_names_are_shown_differently() {
    let mut seen = HashMap::new();
    for bytes in (0..=u16::MAX).map(u16::to_be_bytes) {
        if let Some(other) = seen.insert(escape(&bytes), bytes) {
            panic!("{bytes:?} and {other:?} are shown alike");
        }
    }
}

#[test]
fn the_errors_of_an_area_can_be_told_in_json() {
    let damage = AreaDamage::Magic { block: AreaBlock::Slot, offset: 0x80, found: Name::new("a\x1b") };
    let struct_ = AreaDamage::Struct { wrong: BlockDamage::Magic { found: 1 } };
    let told = |error: AreaError| serde_json::to_value(error).unwrap();
    assert_eq!(told(damage.into())["damage"]["found"], "a\\x1b");
    assert_eq!(told(struct_.into())["damage"]["wrong"]["found"], 1);
    let both = told(AreaError::BothDamaged { header: struct_, copy: damage });
    assert_eq!((&both["error"], &both["copy"]["block"]), (&"both_damaged".into(), &"slot".into()));
}

/// Golden images of at most 2 MiB: block sizes, with and without checksums, with and without MMP.
const EDITED: [&str; 6] = ["b1k", "b2k", "bits-32", "ext2", "no-mmp", "uninit-bg"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_edits_of_ext4_hold_whatever_stands_in_superblock_descriptors_and_bitmaps(
        which in 0..EDITED.len(),
        choice: u8,
        changes in proptest::collection::vec((0..64_usize << 10, any::<u8>()), 0..6),
        superblock in proptest::collection::vec((0..0x280_usize, any::<u8>()), 0..3),
    ) {
        let mut bytes = vec![choice];
        bytes.extend(images::load(EDITED[which]));
        for (at, value) in changes {
            bytes[1 + at] = value;
        }
        for (at, value) in superblock {
            bytes[1 + 1024 + at] = value;
        }
        bodies::ext4_edit(&bytes);
    }
}
