use super::*;
use crate::format::area::{SlotNameError, slot_name};
use crate::format::{BlockDamage, DeviceName, MMP_STRUCT_BYTES, NodeName};

const SEED: ChecksumSeed = ChecksumSeed(0x1234_5678);

fn slot_block(state: SlotState) -> SlotBlock {
    SlotBlock {
        block: MmpBlock {
            seq: if state.goes_with(SEQ_CLEAN) { SEQ_CLEAN } else { 77 },
            time_s: 1_700_000_000,
            node: NodeName::new("alpha"),
            device: DeviceName::new("sdb"),
            check_interval_s: 5,
        },
        record: GuardRecord {
            state,
            generation: 0x0102_0304_0506_0708,
            slot: 3,
            interval_ms: 1000,
            boot_id: *b"BOOTBOOTBOOTBOOT",
            target: *b"TARGETTARGETTARG",
            name: slot_name(b"data").unwrap(),
        },
    }
}

fn image(block: &SlotBlock) -> Image {
    let mut bytes = [0; MMP_STRUCT_BYTES];
    block.encode_into(&mut bytes, SEED);
    bytes
}

fn damage(block: &SlotBlock) -> AreaDamage {
    match SlotBlock::decode(&image(block), SEED, 3) {
        Err(AreaError::Damaged { damage }) => damage,
        other => panic!("{other:?}"),
    }
}

#[test]
fn fields_stand_at_their_offsets() {
    let block = slot_block(SlotState::Holding);
    let bytes = image(&block);
    assert_eq!(&bytes[0x80..0x88], b"GRD1\x01\x00\x03\x00");
    assert_eq!(&bytes[0x88..0x98], &[8, 7, 6, 5, 4, 3, 2, 1, 3, 0, 0, 0, 0xe8, 3, 0, 0]);
    assert_eq!(&bytes[0x98..0xB8], b"BOOTBOOTBOOTBOOTTARGETTARGETTARG");
    assert_eq!((&bytes[0xB8..0xC0], &bytes[0xC0..0xC5]), (&[0; 8][..], &b"data\0"[..]));
    assert!(bytes[0xC5..0x3FC].iter().all(|&byte| byte == 0));
    assert_eq!(MmpBlock::decode(&bytes, Some(SEED)), Ok(block.block));
}

#[test]
fn every_state_comes_back_and_the_padding_survives() {
    for state in [SlotState::Free, SlotState::Released, SlotState::Claiming, SlotState::Holding] {
        let block = slot_block(state);
        let mut bytes = [0xa5; MMP_STRUCT_BYTES];
        block.encode_into(&mut bytes, SEED);
        assert_eq!(SlotBlock::decode(&bytes, SEED, 3), Ok(block));
        let unknown = bytes[0x72..0x80].iter().chain(&bytes[0xB8..0xC0]).chain(&bytes[0x100..0x3FC]);
        assert!(unknown.into_iter().all(|&byte| byte == 0xa5));
    }
}

#[test]
fn sequence_and_state_have_to_go_together() {
    for (state, good, bad) in [
        (SlotState::Free, &[SEQ_CLEAN][..], &[0, 1, SEQ_MAX, SEQ_MAX + 1, u32::MAX][..]),
        (SlotState::Released, &[SEQ_CLEAN], &[0, 1, SEQ_MAX, SEQ_MAX + 1, SEQ_CLEAN - 1]),
        (SlotState::Claiming, &[1, SEQ_MAX], &[0, SEQ_MAX + 1, SEQ_CLEAN, u32::MAX]),
        (SlotState::Holding, &[1, SEQ_MAX], &[0, SEQ_MAX + 1, SEQ_CLEAN, u32::MAX]),
    ] {
        let with = |seq: u32| {
            let mut block = slot_block(state);
            block.block.seq = seq;
            block
        };
        for &seq in good {
            assert_eq!(SlotBlock::decode(&image(&with(seq)), SEED, 3), Ok(with(seq)));
        }
        for &seq in bad {
            assert_eq!(damage(&with(seq)), AreaDamage::Contradiction { seq, state });
        }
    }
}

#[test]
fn a_block_of_another_area_or_slot_is_damage() {
    let bytes = image(&slot_block(SlotState::Holding));
    let other_area = SlotBlock::decode(&bytes, ChecksumSeed(1), 3);
    let wrong = |error: AreaError| match error {
        AreaError::Damaged { damage: AreaDamage::Struct { wrong } } => wrong,
        other => panic!("{other:?}"),
    };
    assert!(matches!(wrong(other_area.unwrap_err()), BlockDamage::Checksum { .. }));
    let other_slot = SlotBlock::decode(&bytes, SEED, 4).unwrap_err();
    assert_eq!(
        other_slot.to_string(),
        "the area is damaged: slot block: slot is 3 at its byte 0x90 (want 4)"
    );
    let blank = SlotBlock::decode(&[0; MMP_STRUCT_BYTES], SEED, 3).unwrap_err();
    assert!(blank.is_absent() && matches!(wrong(blank), BlockDamage::Magic { .. }));
}

#[test]
fn an_mmp_struct_without_a_record_is_damage() {
    let block = slot_block(SlotState::Holding);
    let mut bytes = [0; MMP_STRUCT_BYTES];
    block.block.encode_into(&mut bytes, Some(SEED));
    let error = SlotBlock::decode(&bytes, SEED, 3).unwrap_err();
    assert_eq!(error.to_string(), "the area is damaged: slot block: bad magic \"\" at its byte 0x80");
}

#[test]
fn later_versions_are_unsupported_not_damaged() {
    for (at, value, field) in [(VERSION, 2, "version"), (VERSION, 0, "version"), (STATE, 4, "state")] {
        let block = slot_block(SlotState::Holding);
        let mut bytes = image(&block);
        LittleEndian::write_u16(&mut bytes[at..], value);
        block.block.encode_into(&mut bytes, Some(SEED));
        match SlotBlock::decode(&bytes, SEED, 3) {
            Err(AreaError::Unsupported { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[test]
fn fields_out_of_range_are_damage() {
    for interval_ms in [0, 99, 10_001] {
        let mut block = slot_block(SlotState::Free);
        block.record.interval_ms = interval_ms;
        assert!(matches!(damage(&block), AreaDamage::Field { field: "interval_ms", .. }));
    }
    let mut block = slot_block(SlotState::Released);
    block.record.name = SlotName::new("a/b");
    assert!(matches!(damage(&block), AreaDamage::Name { why: SlotNameError::Forbidden { .. }, .. }));
    block.record.name = SlotName::new("");
    assert!(matches!(damage(&block), AreaDamage::Name { why: SlotNameError::Empty, .. }));
    let mut free = slot_block(SlotState::Free);
    free.record.name = SlotName::new("");
    assert_eq!(SlotBlock::decode(&image(&free), SEED, 3), Ok(free));
    let mut lock = slot_block(SlotState::Holding);
    lock.record.slot = 0;
    let named = SlotBlock::decode(&image(&lock), SEED, 0).unwrap_err();
    assert!(named.to_string().ends_with("name is \"data\" at its byte 0xc0: slot 0 is called \"lock\""));
    lock.record.name = SlotName::new("lock");
    assert_eq!(SlotBlock::decode(&image(&lock), SEED, 0), Ok(lock));
}

#[test]
fn check_intervals_are_whole_seconds() {
    let pairs = [(100, 1), (200, 1), (201, 2), (1000, 5), (1001, 6), (10_000, 50), (u32::MAX, u16::MAX)];
    for (interval_ms, seconds) in pairs {
        assert_eq!(check_interval_s(interval_ms), seconds, "{interval_ms}");
    }
}

#[test]
fn generations_grow_and_begin_with_time() {
    let next = |slot, high_water| next_generation(Some(slot), Some(high_water), 1_700_000_000);
    let first = 1_700_000_000 << 16;
    assert_eq!(next(0, 0), Ok(first));
    assert_eq!((next(first, first), next(first, first + 4)), (Ok(first + 1), Ok(first + 5)));
    assert_eq!(next(first + 4, 0), Ok(first + 5));
    assert_eq!(next_generation(None, Some(first), 0), Ok(first + 1));
    assert_eq!(next_generation(Some(first), None, 0), Ok(first + 1));
    assert_eq!(next_generation(None, Some(first), 1_700_000_001), Ok(first + (1 << 16)));
    assert_eq!(next_generation(Some(0), Some(0), 0), Ok(1), "0 is nobody's");
    assert_eq!(next_generation(None, None, 1), Err(GenerationError::Unknown));
    assert_eq!(next(u64::MAX, 0), Err(GenerationError::UsedUp));
    assert_eq!(next_generation(Some(0), Some(0), 1 << 48), Err(GenerationError::UsedUp));
}
