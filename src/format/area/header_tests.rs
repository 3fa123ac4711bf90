use super::*;
use crate::format::MMP_STRUCT_BYTES;

/// A tail area of 3 slots behind an XFS of 1 MiB, on a device with half a block more than 300 blocks.
fn header() -> AreaHeader {
    AreaHeader {
        incompat: 0,
        ro_compat: 0,
        compat: 0,
        uuid: *b"0123456789abcdef",
        offset_bytes: 292 * 4096,
        target_bytes: 300 * 4096 + 2048,
        slots: 3,
        interval_ms: 1000,
        created_s: 1_700_000_000,
        revision: 7,
        role: HeaderRole::Header,
        place: AreaPlace::Tail,
        label: Name::new("rack 4"),
        content_end_bytes: 256 * 4096,
        content: Name::new("xfs"),
    }
}

fn image(header: &AreaHeader) -> Image {
    let mut bytes = [0; MMP_STRUCT_BYTES];
    header.encode_into(&mut bytes);
    bytes
}

fn decode(header: &AreaHeader) -> Result<AreaHeader, AreaError> {
    AreaHeader::decode(&image(header), header.role)
}

#[test]
fn fields_stand_at_their_offsets() {
    let header = AreaHeader { ro_compat: 2, compat: 3, role: HeaderRole::Copy, ..header() };
    let bytes = image(&header);
    assert_eq!(&bytes[..16], b"mmpguard area\r\n\x1a");
    assert_eq!(&bytes[0x10..0x20], &[0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0x10, 0, 0]);
    assert_eq!(&bytes[0x20..0x30], b"0123456789abcdef");
    assert_eq!((u64_at(&bytes, 0x30), u64_at(&bytes, 0x38)), (292 * 4096, 300 * 4096 + 2048));
    assert_eq!((u32_at(&bytes, 0x40), u32_at(&bytes, 0x44)), (3, 1000));
    assert_eq!((u64_at(&bytes, 0x48), u64_at(&bytes, 0x50)), (1_700_000_000, 7));
    assert_eq!(&bytes[0x58..0x68], &[1, 0, 1, 0, 0, 0, 0, 0, b'r', b'a', b'c', b'k', b' ', b'4', 0, 0]);
    assert_eq!((u64_at(&bytes, 0xA0), &bytes[0xA8..0xAC]), (256 * 4096, &b"xfs\0"[..]));
    assert!(bytes[0xAC..0x3FC].iter().all(|&byte| byte == 0));
    assert_eq!(AreaHeader::decode(&bytes, HeaderRole::Copy), Ok(header));
}

#[test]
fn what_has_no_field_survives() {
    let mut bytes = [0xa5; MMP_STRUCT_BYTES];
    header().encode_into(&mut bytes);
    assert!(bytes[0x5C..0x60].iter().chain(&bytes[0xB8..0x3FC]).all(|&byte| byte == 0xa5));
    assert_eq!(AreaHeader::decode(&bytes, HeaderRole::Header), Ok(header()));
}

#[test]
fn a_bad_magic_is_told_from_a_bad_checksum() {
    let mut bytes = image(&header());
    bytes[0x3FB] ^= 1;
    let error = AreaHeader::decode(&bytes, HeaderRole::Header).unwrap_err();
    assert!(matches!(error, AreaError::Damaged { damage: AreaDamage::Checksum { .. } }), "{error}");
    assert!(error.is_damage() && !error.is_absent());
    bytes[0] = 0x1b;
    let error = AreaHeader::decode(&bytes, HeaderRole::Header).unwrap_err();
    assert!(error.is_damage() && error.is_absent());
    let text = "the area is damaged: header: bad magic \"\\x1bmpguard area\\x0d\\x0a\\x1a\" at its byte 0x0";
    assert_eq!(error.to_string(), text);
}

#[test]
fn later_versions_are_unsupported_not_damaged() {
    let incompat = decode(&AreaHeader { incompat: 0x10, ..header() }).unwrap_err();
    let resealed = |at: usize, value: u32| {
        let mut bytes = image(&header());
        LittleEndian::write_u32(&mut bytes[at..], value);
        reseal(&mut bytes);
        AreaHeader::decode(&bytes, HeaderRole::Header).unwrap_err()
    };
    for error in [incompat, resealed(0x1C, 512), resealed(0x58, 0x0004_0000), resealed(0x58, 0)] {
        assert!(matches!(error, AreaError::Unsupported { .. }) && !error.is_damage(), "{error}");
    }
    let text = "the area was written by a later version: header: incompat is 0x10 at its byte 0x10 (this one \
                knows no bit of it)";
    assert_eq!(incompat.to_string(), text);
    let readable = decode(&AreaHeader { ro_compat: 1, compat: 1, ..header() }).unwrap();
    assert!(matches!(readable.check_writable(), Err(AreaError::Unsupported { field: "ro_compat", .. })));
    assert_eq!(header().check_writable(), Ok(()));
}

#[test]
fn a_header_in_the_place_of_its_copy_is_damage() {
    let error = AreaHeader::decode(&image(&header()), HeaderRole::Copy).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the area is damaged: copy of the header: role is 0 at its byte 0x58 (want 1)"
    );
}

#[test]
fn fields_that_do_not_go_together_are_damage() {
    let tail = header();
    let whole = AreaHeader {
        place: AreaPlace::Whole,
        offset_bytes: 0,
        target_bytes: 8 * 4096,
        content_end_bytes: 0,
        ..tail
    };
    let file = AreaHeader { place: AreaPlace::File, target_bytes: 9 * 4096, ..whole };
    let alone = AreaHeader { offset_bytes: 0, target_bytes: 8 * 4096, content_end_bytes: 0, ..tail };
    for good in [tail, whole, file, alone, AreaHeader { content_end_bytes: 292 * 4096, ..tail }] {
        assert_eq!(decode(&good), Ok(good));
    }
    let bad = [
        ("slots", AreaHeader { slots: 1, ..tail }),
        ("slots", AreaHeader { slots: 65_538, ..tail }),
        ("interval_ms", AreaHeader { interval_ms: 99, ..tail }),
        ("interval_ms", AreaHeader { interval_ms: 10_001, ..tail }),
        ("offset_bytes", AreaHeader { offset_bytes: 292 * 4096 + 512, ..tail }),
        ("offset_bytes", AreaHeader { offset_bytes: u64::MAX / 4096 * 4096, ..tail }),
        ("offset_bytes", AreaHeader { offset_bytes: 291 * 4096, ..tail }),
        ("target_bytes", AreaHeader { target_bytes: 300 * 4096 - 1, ..tail }),
        ("target_bytes", AreaHeader { target_bytes: 0, ..tail }),
        ("offset_bytes", AreaHeader { target_bytes: 301 * 4096, ..tail }),
        ("content_end_bytes", AreaHeader { content_end_bytes: 292 * 4096 + 1, ..tail }),
        ("offset_bytes", AreaHeader { offset_bytes: 4096, target_bytes: 9 * 4096, ..whole }),
        ("target_bytes", AreaHeader { target_bytes: 8 * 4096 - 1, ..whole }),
        ("content_end_bytes", AreaHeader { content_end_bytes: 1, ..file }),
    ];
    for (want, bad) in bad {
        match decode(&bad) {
            Err(AreaError::Damaged { damage: AreaDamage::Field { field, .. } }) => assert_eq!(field, want),
            other => panic!("{want}: {other:?}"),
        }
    }
}

#[test]
fn it_has_to_stand_where_it_says() {
    let (at, size) = (292 * 4096, 300 * 4096 + 2048);
    let copy = AreaHeader { role: HeaderRole::Copy, ..header() };
    assert_eq!(header().check_position(at, size), Ok(()));
    assert_eq!(copy.check_position(299 * 4096, size), Ok(()));
    let grown = header().check_position(at, size + 512).unwrap_err();
    assert!(matches!(grown, AreaError::Moved { field: "target_bytes", .. }) && !grown.is_damage());
    let shifted = copy.check_position(300 * 4096, size).unwrap_err();
    let want = AreaError::Moved {
        block: AreaBlock::Copy,
        field: "offset_bytes",
        offset: 0x30,
        stored: at,
        found: at + 4096,
    };
    assert_eq!(shifted, want);
    assert!(matches!(copy.check_position(0, size), Err(AreaError::Moved { found: 0, .. })));
}
