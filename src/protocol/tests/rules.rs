//! Small rules of what a block means.

use super::*;
use crate::protocol::medium::{differs_in_sequence_alone, is_path, stamp_ahead};

#[test]
fn a_path_begins_like_one() {
    for (name, path) in [
        ("/dev/sda", true),
        ("./disk.img", true),
        ("../disk.img", true),
        ("etherd/e1.1", false),
        ("sda", false),
    ] {
        assert_eq!(is_path(&DeviceName::new(name)), path, "{name}");
    }
}

#[test]
fn only_sequence_and_checksum_may_differ() {
    let old = [7; 1024];
    let differs = |at: usize| {
        let mut new = old;
        new[at] = 8;
        differs_in_sequence_alone(&old, &new)
    };
    assert!(differs(4) && differs(7) && !differs_in_sequence_alone(&old, &old));
    assert!(!differs(0) && !differs(3) && !differs(8) && !differs(0x3FB));
}

#[test]
fn a_stamp_is_ahead_beyond_the_tolerance() {
    let block = |time_s| MmpBlock { time_s, ..MmpBlock::fields(&[0; 1024]) };
    assert!(!stamp_ahead(&block(105), Wall(100), 5) && stamp_ahead(&block(106), Wall(100), 5));
}

/// A kernel that slept may re-read the block into the buffer that it goes on with: our names, and its own count.
#[test]
fn a_predecessor_that_counts_on_under_our_names_is_no_twin() {
    let mut bench = Bench::new(0x20, 5);
    bench.run_until(40.0);
    assert!(bench.has(|event| matches!(event, Event::Held { .. })), "{:?}", bench.events);
    let start = bench.seconds;
    for beat in 1..4 {
        bench.put("mike", 0x20 + beat, 12);
        bench.run_until(start + f64::from(beat));
    }
    assert!(bench.has(|event| matches!(event, Event::Contested { .. })), "{:?}", bench.events);
    bench.run_until(start + 40.0);
    assert!(!bench.guard.is_over(), "he slept, and stops: {:?}", bench.events);
    // Nor for ever: as against every other holder, in the end we stop.
    for beat in 4..100 {
        bench.put("mike", 0x20 + beat, 12);
        bench.run_until(start + 40.0 + f64::from(beat));
    }
    assert!(matches!(bench.loss(), Loss::Stolen { .. }));
}
