//! Every timing formula, once.
//!
//! Three intervals must not be confused: *ours* (how often we beat), the *superblock's*, and the *peer's* (half the
//! check interval that his block shows). The check interval C is what the block carries: a taker waits `wait(C)`, a
//! holder's lease is `lease(C)`, and the lease never outlives the wait. At C = 5 s both are 11 s.
//!
//! Sources: Linux `fs/ext4/mmp.c` (`ext4_multi_mount_protect`, `kmmpd`), e2fsprogs `lib/ext2fs/mmp.c`; ldiskfs caps
//! the wait at C + 20.

mod area;
mod check;
mod looks;

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

pub use self::area::AreaConsequences;
pub use self::check::CheckInterval;
pub use self::looks::{look_period, standby_hole};

/// `EXT4_MMP_MIN_CHECK_INTERVAL`, in seconds.
pub const MIN_CHECK_INTERVAL_S: u16 = 5;
/// `EXT4_MMP_MAX_CHECK_INTERVAL`, in seconds: no holder writes more. A reader honours whatever it finds.
pub const MAX_CHECK_INTERVAL_S: u16 = 300;
/// `EXT4_MMP_UPDATE_INTERVAL`: what a zero in `s_mmp_update_interval` means, in seconds.
pub const DEFAULT_UPDATE_INTERVAL_S: u16 = 5;
/// How often we beat unless told otherwise.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest interval of our own.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// The longest. Beyond it half a wait would no longer exceed one beat.
pub const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// e2fsprogs and a loaded host check later than they mean to: a watch of a native block lasts so much longer.
pub const NATIVE_MARGIN: Duration = Duration::from_millis(1500);
/// A clean mark under a journal that needs recovery may lie: dirty blocks were seen to follow for 45 s (ext4,
/// errors=remount-ro and the shutdown ioctl).
pub const DOUBTFUL_CLEAN_WATCH: Duration = Duration::from_secs(45);
/// A holder looks at least so often, however seldom it beats: a claimer over its block is silent for half of the
/// smallest wait, and has to be found within that.
pub const MAX_HOLD_LOOK: Duration = Duration::from_millis(2500);
/// A clean mark that hands over is written no sooner than this after our first beat over a mark, or a claim, has landed. Whoever
/// found that mark, and called his kernel, has looked again by then, and seen it: a second mark so soon would let it mount.
pub const HAND_BACK_AFTER: Duration = Duration::from_secs(1);
/// How often a filesystem that was mounted without us is looked at until it is known who beats it: two kernels that
/// write in turn hide each other for most of the time.
pub const ADOPTION_LOOK: Duration = Duration::from_millis(40);
/// The same, for the few seconds in which there is reason to look closer: the nearer the two are in phase, the shorter one
/// of them shows.
pub const DOUBT_LOOK: Duration = Duration::from_millis(5);
/// A block that does not decode is read again so often before it is called damaged: a concurrent write can tear.
pub const TORN_REREADS: u32 = 4;
/// The pause before each of these reads. A block of at most 64 KiB is written in less.
pub const TORN_PAUSE: Duration = Duration::from_millis(10);
/// What a cluster manager should allow on top of the longest honest wait.
const START_RESERVE_S: u64 = 10;

/// The superblock's interval as peers apply it, in seconds.
#[must_use]
pub const fn update_interval_s(superblock: u16) -> u16 {
    if superblock == 0 { DEFAULT_UPDATE_INTERVAL_S } else { superblock }
}

/// C of a taker, in seconds: the largest of the minimum, the superblock's interval and what stands in the block.
#[must_use]
pub const fn taker_check_interval_s(superblock: u16, on_disk: u16) -> u16 {
    max3(MIN_CHECK_INTERVAL_S, update_interval_s(superblock), on_disk)
}

/// C that a holder writes, in seconds: covers two beats, two of the last cycle, and what he wants to tolerate.
#[must_use]
pub fn holder_check_interval_s(interval: Duration, last_cycle: Duration, floor_s: u16) -> u16 {
    let twice_s =
        |span: Duration| u16::try_from(span.saturating_mul(2).as_millis().div_ceil(1000)).unwrap_or(u16::MAX);
    max3(MIN_CHECK_INTERVAL_S, twice_s(interval), twice_s(last_cycle)).max(floor_s).min(MAX_CHECK_INTERVAL_S)
}

/// The smallest C that a taker applies to a block which a kernel beats, in seconds. A kernel writes twice its interval
/// (`EXT4_MMP_CHECK_MULT`) within its bounds, more after a slow beat, and goes back to this with the next.
#[must_use]
pub const fn kernel_check_interval_s(superblock: u16) -> u16 {
    let twice = update_interval_s(superblock).saturating_mul(2);
    let written = if twice > MAX_CHECK_INTERVAL_S { MAX_CHECK_INTERVAL_S } else { twice };
    taker_check_interval_s(superblock, written)
}

/// How long a kernel that has the filesystem mounted may be silent before we beat in its stead: an eighth more than the
/// longest interval, since the kernel's timers round long times up by as much (`kernel/time/timer.c`), and a second. Within
/// its lease by the part that a look at a foreign block leaves for a write.
#[must_use]
pub fn bridge_after(longest_interval: Duration, kernel_check_interval_s: u16) -> Duration {
    let latest = lease(kernel_check_interval_s) - write_reserve(kernel_check_interval_s);
    (longest_interval * 9 / 8 + Duration::from_secs(1)).min(latest)
}

/// How long a taker waits, in seconds (the kernel's and e2fsprogs').
#[must_use]
pub const fn wait_s(check_interval_s: u16) -> u64 {
    let c = check_interval_s as u64;
    if 2 * c + 1 < c + 60 { 2 * c + 1 } else { c + 60 }
}

/// How long a holder may rely on a write, in seconds: the shortest wait that any peer uses (ldiskfs).
#[must_use]
pub const fn lease_s(check_interval_s: u16) -> u64 {
    let c = check_interval_s as u64;
    if 2 * c + 1 < c + 20 { 2 * c + 1 } else { c + 20 }
}

/// [`wait_s`] as a duration: W.
#[must_use]
pub const fn wait(check_interval_s: u16) -> Duration {
    Duration::from_secs(wait_s(check_interval_s))
}

/// [`lease_s`] as a duration.
#[must_use]
pub const fn lease(check_interval_s: u16) -> Duration {
    Duration::from_secs(lease_s(check_interval_s))
}

/// [`CheckInterval::limit`] of a native block.
#[must_use]
pub fn limit(check_interval_s: u16) -> Duration {
    CheckInterval::Native(check_interval_s).limit()
}

/// U*: what a look for anybody's beat must cover: the largest of our interval, the superblock's and the peer's.
#[must_use]
pub fn longest_interval(ours: Duration, superblock: u16, peer_check_interval_s: u16) -> Duration {
    let peer = Duration::from_millis(u64::from(peer_check_interval_s) * 500);
    ours.max(Duration::from_secs(update_interval_s(superblock).into())).max(peer)
}

/// How long a holder may look at a foreign block before he must beat or has lost: two of the longest intervals, but
/// never into the last quarter of his lease, which the write needs.
#[must_use]
pub fn foreign_look(longest_interval: Duration) -> Duration {
    longest_interval.saturating_mul(2)
}

/// How long a holder beats over another one who is to stop: he looks within [`MAX_HOLD_LOOK`], and then has to see us count.
#[must_use]
pub fn contest(longest_interval: Duration) -> Duration {
    longest_interval.saturating_mul(2) + MAX_HOLD_LOOK
}

/// How long two holders, of whom one slept with his clock stopped, use a device at once at most, beside what I/O takes: one
/// looks at the other for as long as he may, beats over him for the longer of two contests, and sees his next beat, of which
/// one may be covered.
#[must_use]
pub fn double_use(longest_interval: Duration) -> Duration {
    MAX_HOLD_LOOK + foreign_look(longest_interval) + (contest(longest_interval) + longest_interval) * 2
}

/// [`CheckInterval::write_reserve`] of a native block.
#[must_use]
pub fn write_reserve(check_interval_s: u16) -> Duration {
    CheckInterval::Native(check_interval_s).write_reserve()
}

/// The time to the next beat: between 0.85 and 1.1 intervals, so that two writers cannot stay in phase, and a
/// watcher still sees a change within 1.1 intervals.
#[must_use]
pub fn jittered(interval: Duration, rng: &mut fastrand::Rng) -> Duration {
    interval * (850 + rng.u32(0..=250)) / 1000
}

/// How long a clean mark is watched before it is believed although the journal needs recovery.
#[must_use]
pub fn doubtful_clean_watch(check_interval_s: u16) -> Duration {
    (wait(check_interval_s) * 2).max(DOUBTFUL_CLEAN_WATCH)
}

/// The smallest C whose lease lasts at least `outage`.
///
/// # Errors
/// The longest outage that can be tolerated, if `outage` is longer.
pub fn check_interval_for(outage: Duration) -> Result<u16, Duration> {
    (MIN_CHECK_INTERVAL_S..=MAX_CHECK_INTERVAL_S)
        .find(|&c| lease(c) >= outage)
        .ok_or_else(|| lease(MAX_CHECK_INTERVAL_S))
}

/// What a claim finds, as far as its length depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A clean mark.
    Clean,
    /// A clean mark under a journal that needs recovery: it may lie.
    DoubtfulClean,
    /// A live sequence that stands still.
    Still,
}

/// How long a claim by `mmp` takes if nobody stirs, from the ask. `ours_s` is the C of the claimer himself; what the
/// block shows counts for the watch before our claim, never for the claim itself, which stands there instead of it.
#[must_use]
pub fn claim(found: Found, superblock: u16, on_disk: u16, ours_s: u16) -> Duration {
    let watched_s = taker_check_interval_s(superblock, on_disk).max(ours_s);
    let standing = wait(taker_check_interval_s(superblock, 0).max(ours_s));
    match found {
        Found::Clean => standing,
        Found::DoubtfulClean => doubtful_clean_watch(watched_s) + NATIVE_MARGIN + standing,
        Found::Still => CheckInterval::Native(watched_s).live_watch(standing) + NATIVE_MARGIN + standing,
    }
}

/// What follows from a check interval, for administrators and cluster managers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Consequences {
    /// C itself, a taker's, in seconds.
    pub check_interval_s: u16,
    /// A claim by `mmp` on a clean device, in seconds (the kernel's own takes 0).
    pub clean_claim_s: f64,
    /// A takeover by `mmp` after a crash, in seconds from the ask.
    pub crash_claim_s: f64,
    /// A takeover by a kernel mount after a crash, in seconds from the ask.
    pub crash_mount_s: u64,
    /// A storage outage that a holder survives, counted from his last beat, in seconds.
    pub outage_survived_s: u64,
    /// What a cluster manager should set as its start timeout, in seconds.
    pub start_timeout_s: u64,
}

impl Consequences {
    /// Computes them for a C that superblock, block and claimer agree on.
    #[must_use]
    pub fn of(check_interval_s: u16) -> Self {
        Self::for_claimer(check_interval_s, check_interval_s, check_interval_s)
    }

    /// Computes them for a claimer whose own C is `ours_s`, where the superblock and the block show these intervals.
    #[must_use]
    pub fn for_claimer(superblock: u16, on_disk: u16, ours_s: u16) -> Self {
        let check_interval_s = taker_check_interval_s(superblock, on_disk).max(ours_s);
        let takes = |found| claim(found, superblock, on_disk, ours_s);
        let holder_s = on_disk.max(ours_s);
        Consequences {
            check_interval_s,
            clean_claim_s: takes(Found::Clean).as_secs_f64(),
            crash_claim_s: takes(Found::Still).as_secs_f64(),
            crash_mount_s: 2 * wait_s(check_interval_s),
            // By the C that a holder writes, whatever the superblock says.
            outage_survived_s: lease_s(holder_s),
            start_timeout_s: takes(Found::DoubtfulClean).as_secs() + 1 + START_RESERVE_S,
        }
    }
}

/// A live peer is refused within this time: one of his (jittered) beats, one look, and some I/O.
#[must_use]
pub fn refusal(peer_interval: Duration) -> Duration {
    peer_interval * 11 / 10 + Duration::from_millis(300)
}

/// The table of `mmp-format.md`, in Markdown.
#[must_use]
pub fn table() -> String {
    let mut table = String::from(
        "| C (s) | lease = outage survived (s) | wait W (s) | `mmp` claim, clean (s) | kernel takeover (s) | `mmp` takeover (s) | start timeout (s) |\n\
         |---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for c in [5, 10, 15, 20, 30, 60, 120, 300] {
        let row = Consequences::of(c);
        writeln!(
            table,
            "| {c} | {} | {} | {} | {} | {:.1} | {} |",
            row.outage_survived_s,
            wait_s(c),
            row.clean_claim_s,
            row.crash_mount_s,
            row.crash_claim_s,
            row.start_timeout_s
        )
        .expect("writing to a String cannot fail");
    }
    table
}

const fn max3(a: u16, b: u16, c: u16) -> u16 {
    let ab = if a > b { a } else { b };
    if ab > c { ab } else { c }
}

// What the safety argument (`protocol`) rests on, for every C that a holder may write.
#[allow(clippy::cast_possible_truncation)]
const _: () = {
    let mut c = MIN_CHECK_INTERVAL_S;
    while c <= MAX_CHECK_INTERVAL_S {
        assert!(lease_s(c) <= wait_s(c), "a lease must not outlive a taker's wait");
        assert!(
            lease_s(c) > c as u64,
            "a lease must outlast the check interval: a gap of C is told before it kills"
        );
        c += 1;
    }
    assert!(wait_s(MIN_CHECK_INTERVAL_S) == 11 && lease_s(MIN_CHECK_INTERVAL_S) == 11);
    // Silence of half a wait exceeds the longest (jittered) beat, at both ends of our intervals.
    let longest = MAX_INTERVAL.as_secs();
    let c = (2 * longest) as u16;
    assert!(wait_s(c) * 1000 / 2 > longest * 1100);
    assert!(wait_s(MIN_CHECK_INTERVAL_S) * 1000 / 2 > 2500 * 11 / 10);
    assert!(wait_s(MIN_CHECK_INTERVAL_S) * 1000 / 4 > MAX_HOLD_LOOK.as_millis() as u64);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_the_design_hold() {
        assert_eq!((wait_s(5), lease_s(5)), (11, 11));
        assert_eq!((wait_s(10), lease_s(10)), (21, 21));
        assert_eq!((wait_s(30), lease_s(30), wait_s(300), lease_s(300)), (61, 50, 360, 320));
        assert_eq!(Consequences::of(5).crash_mount_s, 22);
        assert_eq!(Consequences::of(10).crash_mount_s, 42);
        assert_eq!(Consequences::of(30).crash_mount_s, 122);
        assert_eq!(taker_check_interval_s(0, 0), 5);
        assert_eq!(taker_check_interval_s(1, 0), 5);
        assert_eq!(taker_check_interval_s(30, 7), 30);
        assert_eq!(taker_check_interval_s(1, u16::MAX), u16::MAX);
    }

    /// The block's own C prolongs the watch of what it shows, not a claim on a clean device.
    #[test]
    fn a_claim_takes_as_long_as_what_it_finds() {
        let seconds = |found, superblock, on_disk| claim(found, superblock, on_disk, 5).as_secs_f64();
        assert!((seconds(Found::Clean, 1, 30) - 11.0).abs() < 1e-9);
        assert!((seconds(Found::Clean, 30, 5) - 61.0).abs() < 1e-9);
        assert!((seconds(Found::DoubtfulClean, 1, 5) - 57.5).abs() < 1e-9);
        assert!((seconds(Found::DoubtfulClean, 1, 30) - 134.5).abs() < 1e-9);
        assert!((seconds(Found::Still, 1, 30) - 123.5).abs() < 1e-9);
        let consequences = Consequences::for_claimer(30, 5, 5);
        assert_eq!((consequences.outage_survived_s, consequences.crash_mount_s), (11, 122));
    }

    #[test]
    fn a_holder_covers_his_interval_his_cycle_and_his_tolerance() {
        let second = Duration::from_secs(1);
        assert_eq!(holder_check_interval_s(second, second, 0), 5);
        assert_eq!(holder_check_interval_s(second * 5, second, 0), 10);
        assert_eq!(holder_check_interval_s(second, Duration::from_millis(3200), 0), 7);
        assert_eq!(holder_check_interval_s(second, second, 30), 30);
        assert_eq!(holder_check_interval_s(second * 200, second, 0), 300);
        assert_eq!(holder_check_interval_s(second, Duration::MAX, 0), 300);
    }

    #[test]
    fn tolerating_an_outage_takes_the_smallest_interval_that_does() {
        let seconds = Duration::from_secs;
        assert_eq!(check_interval_for(seconds(1)), Ok(5));
        assert_eq!(check_interval_for(seconds(11)), Ok(5));
        assert_eq!(check_interval_for(seconds(12)), Ok(6));
        assert_eq!(check_interval_for(seconds(50)), Ok(30));
        assert_eq!(check_interval_for(seconds(320)), Ok(300));
        assert_eq!(check_interval_for(seconds(321)), Err(seconds(320)));
    }

    #[test]
    fn jitter_stays_within_its_bounds() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..10_000 {
            let span = jittered(Duration::from_secs(1), &mut rng);
            assert!((Duration::from_millis(850)..=Duration::from_millis(1100)).contains(&span));
        }
    }

    /// A kernel that beats on time is not taken for silent, and the bridge begins well before the lease ends.
    #[test]
    fn a_bridge_begins_between_the_kernels_next_beat_and_the_end_of_its_lease() {
        for superblock in 1..=MAX_CHECK_INTERVAL_S {
            let c = kernel_check_interval_s(superblock);
            let longest = longest_interval(DEFAULT_INTERVAL, superblock, c);
            let after = bridge_after(longest, c);
            assert!(after + Duration::from_secs(2) < lease(c), "{superblock}");
            // Beyond that the kernel's own beats come too late for its lease, and are bridged each time.
            if superblock <= 150 {
                assert!(after > Duration::from_secs(superblock.into()) * 9 / 8, "{superblock}");
            }
        }
    }

    #[test]
    fn extreme_values_do_not_overflow() {
        assert_eq!(wait_s(u16::MAX), 65_595);
        assert!(Consequences::of(u16::MAX).start_timeout_s > 65_595);
        assert!(foreign_look(Duration::MAX) == Duration::MAX);
        assert_eq!(double_use(DEFAULT_INTERVAL), Duration::from_millis(15_500));
    }
}
