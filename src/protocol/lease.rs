//! The lease of a holder, counted from the starts of looks. The safety argument: `docs/safety.md`.

use super::timing::CheckInterval;
use crate::clock::Mono;

/// The earliest end among the last acknowledged write and every later one whose fate is unknown. A later one may have
/// landed with a shorter check interval, and then a taker waits the shorter time. An earlier one of unknown fate may land
/// over the acknowledged one, as long as writes may take, with the same effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    acknowledged_end: Mono,
    unacknowledged_end: Mono,
    stray: Option<Stray>,
}

/// Writes that failed, and may land all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stray {
    lands_until: Mono,
    /// The smallest in them.
    c: CheckInterval,
}

impl Lease {
    /// One that a known write gives.
    pub(super) fn until(end: Mono) -> Self {
        Lease { acknowledged_end: end, unacknowledged_end: Mono::FAR, stray: None }
    }

    /// When it ends.
    pub(super) fn end(self) -> Mono {
        self.acknowledged_end.min(self.unacknowledged_end)
    }

    /// A write with this check interval is on its way, after a look that began at `started`; if it lands, the lease ends
    /// at what is returned.
    pub(super) fn submit(&mut self, started: Mono, c: CheckInterval) -> Mono {
        let stray = self.stray.filter(|stray| started < stray.lands_until);
        let counts = stray.map_or(c, |stray| c.min(stray.c));
        let end = started + counts.lease();
        if !broken!(ForgetsUnacknowledged) {
            self.unacknowledged_end = self.unacknowledged_end.min(end);
        }
        end
    }

    /// It landed: of what came before it only strays count.
    pub(super) fn acknowledge(&mut self, end: Mono) {
        *self = Lease { stray: self.stray, ..Lease::until(end) };
    }

    /// A write with this check interval failed, and may land until what is returned: within a wait, as all that is late.
    pub(super) fn stray(&mut self, now: Mono, c: CheckInterval) -> Mono {
        let before = self.stray.filter(|stray| now < stray.lands_until);
        let lands_until = now + c.wait();
        let stray = before.map_or(Stray { lands_until, c }, |before| Stray {
            lands_until: lands_until.max(before.lands_until),
            c: c.min(before.c),
        });
        self.stray = Some(stray);
        stray.lands_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn c(seconds: u16) -> CheckInterval {
        CheckInterval::Native(seconds)
    }

    fn at(seconds: u64) -> Mono {
        Mono(seconds * SECOND)
    }

    #[test]
    fn the_earliest_end_of_what_may_have_landed_counts() {
        let mut lease = Lease::until(at(100));
        assert_eq!(lease.submit(at(50), c(5)), at(61));
        assert_eq!(lease.end(), at(61));
        assert_eq!(lease.submit(at(52), c(10)), at(73));
        assert_eq!(lease.end(), at(61), "the first may land yet");
        lease.acknowledge(at(73));
        assert_eq!(lease.end(), at(73));
    }

    #[test]
    fn a_stray_counts_for_as_long_as_it_may_land() {
        let mut lease = Lease::until(at(100));
        assert_eq!(lease.stray(at(50), c(5)), at(61));
        assert_eq!(lease.submit(at(60), c(10)), at(71), "by the smaller check interval");
        assert_eq!(lease.submit(at(60), c(4)), at(69));
        assert_eq!(lease.submit(at(61), c(10)), at(82), "it has landed, or never will");
        // The later of two strays, and the smaller check interval of both.
        assert_eq!(lease.stray(at(60), c(10)), at(81));
        assert_eq!(lease.submit(at(80), c(30)), at(91));
        // The first ones are long over.
        assert_eq!(lease.stray(at(81), c(10)), at(102));
        assert_eq!(lease.submit(at(90), c(30)), at(111));
    }
}
