//! What a standby counts, before any claim.

use super::*;

const MS: u64 = 1_000_000;
const SECOND: Duration = Duration::from_secs(1);

fn image(seq: u32) -> Image {
    let mut image = [0; 1024];
    image[4..8].copy_from_slice(&seq.to_le_bytes());
    image
}

/// Looks every 200 ms from `from` on, each taking 1 ms.
fn watched(standby: &mut Standby, from: u64, looks: u64, image: &Image) {
    for look in 0..looks {
        let began = Mono((from + look * 200) * MS);
        standby.looked(began, began + Duration::from_millis(1), image);
    }
}

#[test]
fn the_same_bytes_earn_time_from_the_end_of_the_first_look() {
    let mut standby = Standby::new(SECOND);
    assert_eq!(standby.credit(), None);
    watched(&mut standby, 1000, 6, &image(7));
    let credit = standby.credit().unwrap();
    assert_eq!(credit.since(&image(7), Mono(2200 * MS), SECOND), Some(Mono(1001 * MS)));
    assert_eq!(credit.since(&image(8), Mono(2200 * MS), SECOND), None, "other bytes");
    assert_eq!(credit.since(&image(7), Mono(3001 * MS), SECOND), None, "a hole before the claim");
    assert_eq!(credit.since(&image(7), Mono(1999 * MS), SECOND), None, "from the future");
}

#[test]
fn a_change_a_hole_or_a_failure_begins_anew() {
    let mut standby = Standby::new(SECOND);
    watched(&mut standby, 1000, 6, &image(7));
    watched(&mut standby, 2200, 1, &image(8));
    assert_eq!(standby.quiet().unwrap().1, Duration::ZERO);
    watched(&mut standby, 2400, 5, &image(8));
    let hole = u64::try_from(timing::standby_hole(SECOND).as_millis()).unwrap();
    watched(&mut standby, 3200 + hole, 3, &image(8));
    assert!(standby.quiet().unwrap().1 >= Duration::from_millis(800 + hole - 1), "just close enough");
    watched(&mut standby, 3600 + hole + hole + 1, 1, &image(8));
    assert_eq!(standby.quiet().unwrap().1, Duration::ZERO, "too long a hole");
    standby.failed();
    assert!(standby.credit().is_none());
}

#[test]
fn only_a_live_sequence_earns_time() {
    for seq in [SEQ_CLEAN, SEQ_FSCK, u32::MAX] {
        let mut standby = Standby::new(SECOND);
        watched(&mut standby, 1000, 100, &image(seq));
        assert_eq!(standby.credit(), None, "{seq:#x}");
    }
}
