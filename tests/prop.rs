//! Properties of the codec over arbitrary bytes (proptest).

mod bodies;

use std::collections::HashMap;

use mmpguard::format::name::escape;
use mmpguard::format::{
    BlockDamage, ChecksumSeed, DeviceName, Image, MMP_STRUCT_BYTES, MmpBlock, Name, NodeName,
};
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
