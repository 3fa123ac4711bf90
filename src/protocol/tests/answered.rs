//! A claim over what would be refused, and is answered for: e2fsck's mark, an unknown sequence, no block at all.

use super::*;
use crate::format::ChecksumSeed;
use crate::protocol::sequence::Sequence;

const UNKNOWN: u32 = SEQ_FSCK + 1;
/// Of the superblock that [`checked`] makes.
const SEED: ChecksumSeed = ChecksumSeed(0x1234_5678);

/// A guard that is told, before it looks, that these bytes are answered for.
fn answering(bench: Bench, seen: Image) -> Bench {
    Bench { guard: bench.guard.answering_for(seen), ..bench }
}

fn answered(seq: u32) -> Bench {
    let bench = Bench::new(seq, 5);
    let seen = bench.image;
    answering(bench, seen)
}

/// With metadata checksums.
fn checked() -> [u8; 1024] {
    let mut bytes = superblock(false);
    let incompat = LittleEndian::read_u32(&bytes[0x60..]) | 0x2000;
    LittleEndian::write_u32(&mut bytes[0x60..], incompat);
    LittleEndian::write_u32(&mut bytes[0x64..], 0x0400);
    bytes[0x175] = 1;
    LittleEndian::write_u32(&mut bytes[0x270..], SEED.0);
    let sum = crate::format::checksum::ext4_crc32c(u32::MAX, &bytes[..0x3FC]);
    LittleEndian::write_u32(&mut bytes[0x3FC..], sum);
    bytes
}

/// With checksums, and the block of "zulu" after `change`.
fn damaged(check_interval_s: u16, change: impl FnOnce(&mut Image)) -> Bench {
    let mut bench = Bench::with(77, check_interval_s, GuardOptions::default(), checked());
    let block = bench.block();
    block.encode_into(&mut bench.image, Some(SEED));
    change(&mut bench.image);
    let seen = bench.image;
    answering(bench, seen)
}

#[test]
fn a_mark_and_an_unknown_sequence_are_watched_as_a_live_block_is() {
    for seq in [SEQ_FSCK, UNKNOWN] {
        let mut bench = answered(seq);
        bench.run_until(12.4);
        assert!(bench.writes.is_empty(), "{:?}", bench.events);
        bench.run_until(25.0);
        about(bench.writes[0].0, 12.5);
        let held = bench.events.iter().find(|(_, event)| matches!(event, Event::Held { .. }));
        about(held.expect("is held").0, 23.6);
    }
}

#[test]
fn nothing_is_shortened_for_whom_it_is_answered_for() {
    let mut bench = answered(77);
    bench.run_until(12.4);
    assert!(bench.writes.is_empty());
    bench.run_until(12.7);
    assert_eq!(bench.writes.len(), 1);
}

#[test]
fn other_bytes_than_those_that_were_seen_are_refused_as_ever() {
    for seq in [SEQ_FSCK, UNKNOWN] {
        let mut bench = Bench::new(seq, 5);
        let seen = bench.image;
        bench.put("zulu", seq, 5); // With another stamp.
        let mut bench = answering(bench, seen);
        bench.run_until(1.0);
        assert!(matches!(bench.refusal(), Refusal::Fsck { .. } | Refusal::UnknownSequence { .. }));
        assert_eq!((bench.looks.len(), bench.writes.len()), (1, 0));
    }
    let mut bench = damaged(5, |image| image[0] ^= 1);
    bench.image[0x300] ^= 1;
    bench.run_until(1.0);
    assert!(matches!(bench.refusal(), Refusal::Damaged { .. }));
}

/// e2fsck renews its mark with another stamp; whoever comes changes the sequence.
#[test]
fn any_change_under_the_watch_refuses() {
    let mut bench = answered(SEQ_FSCK);
    bench.run_until(12.0);
    bench.put("zulu", SEQ_FSCK, 5);
    bench.run_until(13.0);
    assert!(matches!(bench.refusal(), Refusal::Fsck { .. }), "{:?}", bench.events);
    assert!(bench.writes.is_empty());
    for seq in [SEQ_FSCK, UNKNOWN] {
        let mut bench = answered(seq);
        bench.run_until(12.0);
        bench.put("zulu", 1, 5);
        bench.run_until(13.0);
        assert!(matches!(bench.refusal(), Refusal::InUse { .. }), "{:?}", bench.events);
        assert!(bench.writes.is_empty());
    }
    // The holder has written it anew, or something else goes on writing there.
    let mut bench = damaged(5, |image| image[0] ^= 1);
    bench.run_until(20.0);
    let mut block = bench.block();
    block.seq += 1;
    block.encode_into(&mut bench.image, Some(SEED));
    bench.run_until(21.0);
    assert!(matches!(bench.refusal(), Refusal::InUse { .. }), "{:?}", bench.events);
    let mut bench = damaged(5, |image| image[0] ^= 1);
    bench.run_until(20.0);
    bench.image[0x80] ^= 1;
    bench.run_until(21.0);
    assert!(matches!(bench.refusal(), Refusal::Damaged { .. }), "{:?}", bench.events);
    assert!(bench.writes.is_empty());
}

/// A word for one mark is none for the next one, whatever came between.
#[test]
fn a_word_is_void_after_a_lost_race() {
    let mut bench = answered(SEQ_FSCK);
    bench.run_until(14.0);
    assert_eq!(bench.writes.len(), 1);
    bench.put("yankee", 0x7000_0000, 5);
    bench.run_until(14.5);
    assert!(matches!(bench.last().1, Event::LostRace { .. }), "{:?}", bench.events);
    bench.put("zulu", SEQ_FSCK, 5);
    bench.run_until(25.0);
    assert!(matches!(bench.refusal(), Refusal::Fsck { .. }), "{:?}", bench.events);
    assert_eq!(bench.writes.len(), 1);
}

#[test]
fn a_damaged_block_is_watched_for_two_waits_and_written_anew() {
    for change in [|image: &mut Image| image[0] ^= 1, |image: &mut Image| image[0x200] ^= 1] {
        let mut bench = damaged(5, change);
        bench.run_until(23.4);
        assert!(bench.writes.is_empty(), "{:?}", bench.events);
        bench.run_until(24.0);
        assert_eq!(bench.writes.len(), 1, "{:?}", bench.events);
        let block = MmpBlock::decode(&bench.image, Some(SEED)).expect("is a block again");
        assert!(
            block.node == NodeName::new("mike") && matches!(Sequence::from(block.seq), Sequence::Live(_))
        );
        assert!(bench.image[0x72..0x3FC].iter().all(|&byte| byte == 0), "keeps nothing of what was no block");
        bench.run_until(36.0);
        assert!(bench.has(|event| matches!(event, Event::Held { .. })), "{:?}", bench.events);
    }
}

/// C of a block with a wrong checksum counts as far as a holder writes it; without the magic nothing there does.
#[test]
fn a_damaged_block_does_not_say_for_how_long_it_is_watched() {
    let bad_magic = |image: &mut Image| image[0] ^= 1;
    let bad_checksum = |image: &mut Image| image[0x200] ^= 1;
    let watched = |mut bench: Bench| {
        bench.run_until(1.0);
        match &bench.events[0].1 {
            Event::Watching { total, .. } => total.as_secs_f64(),
            other => panic!("not watching, but {other:?}"),
        }
    };
    for (c, checksum_s, magic_s) in [(5, 23.5, 23.5), (30, 123.5, 23.5), (u16::MAX, 721.5, 23.5)] {
        about(watched(damaged(c, bad_checksum)), checksum_s);
        about(watched(damaged(c, bad_magic)), magic_s);
    }
}

#[test]
fn without_a_word_nothing_damaged_is_claimed() {
    let mut bench = damaged(5, |image| image[0x200] ^= 1);
    let other = [0; 1024];
    bench = answering(bench, other);
    bench.run_until(1.0);
    assert!(matches!(bench.refusal(), Refusal::Damaged { .. }), "{:?}", bench.events);
}
