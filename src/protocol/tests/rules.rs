//! Small rules of what a block means.

use super::*;
use crate::protocol::medium::{differs_in_sequence_alone, is_path, stamp_ahead, stamp_behind};

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
    assert!(!stamp_behind(&block(95), Wall(100), 5) && stamp_behind(&block(94), Wall(100), 5));
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
    for beat in 4..16 {
        bench.put("mike", 0x20 + beat, 12);
        bench.run_until(start + 40.0 + 3.0 * f64::from(beat));
    }
    assert!(
        matches!(bench.loss(), Loss::Stolen { because: LoserRule::OtherDidNotStop, .. }),
        "{:?}",
        bench.loss()
    );
}

/// `kmmpd` goes on with the very buffer that a direct write lands in: whatever else changed in it would be written on.
#[test]
fn a_renewed_block_has_another_sequence_and_time_and_nothing_else_changed() {
    let bench = Bench::held();
    let decoded = Superblock::decode(&superblock(false)).unwrap();
    let owner = Owner { node: NodeName::new("alpha"), device: DeviceName::new("sdb") };
    let medium = Medium::Native(Native::new(decoded, owner));
    let mut base = bench.image;
    base[0x100] = 9;
    let renewed = medium.renew(&base, 123, Wall(456));
    assert_eq!(MmpBlock::fields(&renewed), MmpBlock { seq: 123, time_s: 456, ..MmpBlock::fields(&base) });
    assert_eq!((&renewed[..4], &renewed[16..0x3FC]), (&base[..4], &base[16..0x3FC]));
}

#[test]
fn a_jump_draws_anew_until_it_is_far_away() {
    let drawn = fastrand::Rng::with_seed(1).u32(1..=sequence::SEQ_MAX);
    let reach = 4 * sequence::COUNTING_REACH;
    for (distance, near) in [(0, true), (reach, true), (reach + 1, false)] {
        for far_from in [drawn - distance, drawn + distance] {
            let jumped = sequence::jump(&mut fastrand::Rng::with_seed(1), far_from);
            assert_eq!(jumped != drawn, near, "{distance}");
        }
    }
}

/// Counting goes on at 1 after the largest, so what is small is near to what is large.
#[test]
fn a_jump_is_far_away_also_where_the_count_begins_anew() {
    // Found by trying them all. Another generator of random numbers would ask for another one.
    let seed = 106_267_747;
    let reach = 4 * sequence::COUNTING_REACH;
    let drawn = fastrand::Rng::with_seed(seed).u32(1..=sequence::SEQ_MAX);
    assert!((sequence::COUNTING_REACH + 4 + 1..=reach).contains(&drawn), "{drawn}: find another seed");
    for (below, near) in [(0, true), (reach, true), (reach + 1, false)] {
        let jumped = sequence::jump(&mut fastrand::Rng::with_seed(seed), sequence::SEQ_MAX - below);
        assert_eq!(jumped != drawn, near, "{below}");
    }
}

#[test]
fn waits_and_leases_grow_by_two_seconds_and_then_by_one() {
    let waits = [58, 59, 60, 61].map(timing::wait_s);
    assert_eq!(waits, [117, 119, 120, 121]);
    let leases = [18, 19, 20, 21].map(timing::lease_s);
    assert_eq!(leases, [37, 39, 40, 41]);
}

#[test]
fn a_kernel_writes_twice_its_interval_and_no_more_than_the_largest() {
    let written = [0, 2, 3, 149, 150, 151, 300, 301].map(timing::kernel_check_interval_s);
    assert_eq!(written, [10, 5, 6, 298, 300, 300, 300, 301]);
}

#[test]
fn a_start_timeout_leaves_ten_seconds_beyond_the_longest_honest_wait() {
    let timeout_s = |c| timing::Consequences::of(c).start_timeout_s;
    // A doubtful clean mark: 45 s, or two waits; the margin; a wait; rounded up; ten seconds.
    assert_eq!((timeout_s(5), timeout_s(30)), (45 + 1 + 11 + 1 + 10, 122 + 1 + 61 + 1 + 10));
}

#[test]
fn the_table_has_a_row_of_the_same_figures_for_each_check_interval() {
    let table = timing::table();
    let rows: Vec<&str> = table.lines().skip(2).collect();
    assert_eq!(rows[0], "| 5 | 11 | 11 | 11 | 22 | 23.5 | 68 |");
    assert_eq!((rows.len(), rows[7]), (8, "| 300 | 320 | 360 | 360 | 720 | 721.5 | 1092 |"));
}

/// By his stamp his clock stood still: he sees ours run ahead, and stops. Ours is the lower name.
#[test]
fn one_whose_stamp_is_behind_has_his_time_to_stop_whatever_the_names() {
    for (node, behind_s, stays) in [("zulu", 100, true), ("mike", 100, true), ("zulu", 0, false)] {
        let mut bench = Bench::held();
        let start = bench.seconds;
        for beat in 0..3_u32 {
            bench.put(node, 0x7000_0000 + beat, 5);
            MmpBlock { time_s: bench.block().time_s - behind_s, ..bench.block() }
                .encode_into(&mut bench.image, None);
            bench.run_until(start + f64::from(beat + 1));
        }
        bench.run_until(start + 30.0);
        assert_eq!(!bench.guard.is_over(), stays, "{node} {behind_s}: {:?}", bench.events);
    }
}
