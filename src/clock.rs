//! The only reader of clocks.
//!
//! Everything that decides about safety is timed by `CLOCK_BOOTTIME` ([`Mono`]): it counts through a
//! suspend, which `CLOCK_MONOTONIC` (and so `std::time::Instant`) does not. A holder that was suspended for
//! longer than its lease must find out at once, so no other clock may be used; clippy disallows them outside this file.
//!
//! The wall clock ([`Wall`]) goes into the MMP block for people to read, and serves one comparison only: a peer's
//! stamp far ahead of ours says that *our* clock stood still (see `protocol::hold`).
//!
//! Neither protects against a virtual machine that was paused with both clocks stopped; the README says so.

use std::ops::{Add, Sub};
use std::time::Duration;

use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

/// A point on `CLOCK_BOOTTIME`, in nanoseconds since boot. Never compare it across machines or boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize)]
#[serde(transparent)]
pub struct Mono(pub u64);

impl Mono {
    /// Later than anything that can happen.
    pub const FAR: Mono = Mono(u64::MAX);

    /// The time since `earlier`, or zero if `earlier` lies ahead.
    #[must_use]
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    /// Saturates at [`Mono::FAR`]: a deadline that does not fit is never.
    fn add(self, span: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Mono {
    type Output = Mono;
    /// Saturates at zero, the boot.
    fn sub(self, span: Duration) -> Mono {
        Mono(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Wall-clock seconds since 1970, as the MMP block stores them (`mmp_time`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize)]
#[serde(transparent)]
pub struct Wall(pub u64);

/// Both clocks, read together. This is what the protocol takes as *now*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// Decides.
    pub mono: Mono,
    /// Is written into the block.
    pub wall: Wall,
}

/// Reads `CLOCK_BOOTTIME`.
///
/// # Panics
/// If the kernel has no `CLOCK_BOOTTIME` (before Linux 2.6.39).
#[must_use]
pub fn mono() -> Mono {
    Mono(read_ns(ClockId::CLOCK_BOOTTIME))
}

/// Reads the wall clock, in whole seconds.
///
/// # Panics
/// If the kernel refuses `CLOCK_REALTIME`, which it never does.
#[must_use]
pub fn wall() -> Wall {
    Wall(read_ns(ClockId::CLOCK_REALTIME) / 1_000_000_000)
}

/// Reads the wall clock, in nanoseconds since 1970: for what is told to people, never for what decides.
///
/// # Panics
/// As [`wall`].
#[must_use]
pub fn wall_ns() -> u64 {
    read_ns(ClockId::CLOCK_REALTIME)
}

/// Reads both clocks.
///
/// # Panics
/// As [`mono`].
#[must_use]
pub fn now() -> Now {
    Now { mono: mono(), wall: wall() }
}

/// Sleeps until `until` on `CLOCK_BOOTTIME`. Signals do not shorten it.
///
/// # Panics
/// As [`mono`].
pub fn sleep_until(until: Mono) {
    let at = nix::sys::time::TimeSpec::from_duration(Duration::from_nanos(until.0));
    loop {
        match clock_nanosleep(ClockId::CLOCK_BOOTTIME, ClockNanosleepFlags::TIMER_ABSTIME, &at) {
            Ok(_) => return,
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => panic!("clock_nanosleep(CLOCK_BOOTTIME): {error}"),
        }
    }
}

/// Sleeps for `span` on `CLOCK_BOOTTIME`.
///
/// # Panics
/// As [`mono`].
pub fn sleep(span: Duration) {
    sleep_until(mono() + span);
}

#[allow(clippy::disallowed_methods)] // this is the one place
fn read_ns(clock: ClockId) -> u64 {
    let time =
        clock_gettime(clock).expect("CLOCK_BOOTTIME and CLOCK_REALTIME exist on every supported kernel");
    u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Mono::FAR + Duration::from_secs(1), Mono::FAR);
        assert_eq!(Mono(5) - Duration::from_secs(1), Mono(0));
        assert_eq!(Mono(5).since(Mono(9)), Duration::ZERO);
        assert_eq!(Mono(9).since(Mono(5)), Duration::from_nanos(4));
    }

    #[test]
    fn a_sleep_lasts_at_least_as_long_as_asked() {
        let before = mono();
        sleep(Duration::from_millis(3));
        assert!(mono().since(before) >= Duration::from_millis(3));
    }
}
