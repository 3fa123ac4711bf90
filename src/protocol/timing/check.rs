//! C, the check interval that a claim and a lease count by, on either medium.
//!
//! Native: seconds, as a block shows them; each holder writes his own. Areas: five intervals of the area's, which stand in its header
//! and are the same for everybody. Protects nothing by itself: it is here so that no machine asks what the medium is.

use std::time::Duration;

use super::{MAX_CHECK_INTERVAL_S, lease, wait};
use crate::format::area::record::check_interval_s;

/// C is so many intervals of an area's.
const INTERVALS: u32 = 5;

/// A check interval. Those of one medium can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckInterval {
    /// As it stands in an ext4 MMP block, in seconds.
    Native(u16),
    /// Of an area with this interval U, in milliseconds: 5 U.
    Area(u32),
}

impl CheckInterval {
    /// C itself.
    #[must_use]
    pub fn span(self) -> Duration {
        match self {
            CheckInterval::Native(seconds) => Duration::from_secs(seconds.into()),
            CheckInterval::Area(interval_ms) => millis(interval_ms) * INTERVALS,
        }
    }

    /// W: how long a taker waits. In an area 2 C + U.
    #[must_use]
    pub fn wait(self) -> Duration {
        match self {
            CheckInterval::Native(seconds) => wait(seconds),
            CheckInterval::Area(interval_ms) => millis(interval_ms) * (2 * INTERVALS + 1),
        }
    }

    /// How long a holder may rely on a write. In an area as long as a taker waits.
    #[must_use]
    pub fn lease(self) -> Duration {
        match self {
            CheckInterval::Native(seconds) => lease(seconds),
            CheckInterval::Area(_) => self.wait(),
        }
    }

    /// From the start of a look to the handled acknowledgement of the write that follows it: more counts for nothing.
    #[must_use]
    pub fn limit(self) -> Duration {
        self.wait() / 4
    }

    /// The part of a lease that a look at a foreign block leaves for the write.
    #[must_use]
    pub fn write_reserve(self) -> Duration {
        self.lease() / 4
    }

    /// How long a block that is not clean must stand still before a claim that then stands for `standing`: two of its
    /// waits in all.
    #[must_use]
    pub fn live_watch(self, standing: Duration) -> Duration {
        self.wait() * 2 - standing
    }

    /// C to try again with after a write that was too slow to count; none if there is no larger one. An area's stands in its header.
    #[must_use]
    pub fn slower(self) -> Option<Self> {
        match self {
            CheckInterval::Native(seconds) if seconds < MAX_CHECK_INTERVAL_S => {
                Some(CheckInterval::Native((seconds * 2).min(MAX_CHECK_INTERVAL_S)))
            }
            CheckInterval::Native(_) | CheckInterval::Area(_) => None,
        }
    }

    /// `mmp_check_interval`: whole seconds, at least one. In an area it is for people alone.
    #[must_use]
    pub fn field_s(self) -> u16 {
        match self {
            CheckInterval::Native(seconds) => seconds,
            CheckInterval::Area(interval_ms) => check_interval_s(interval_ms),
        }
    }
}

fn millis(interval_ms: u32) -> Duration {
    Duration::from_millis(interval_ms.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_waits_for_eleven_of_its_intervals() {
        for interval_ms in [100, 1000, 10_000] {
            let (c, interval) = (CheckInterval::Area(interval_ms), millis(interval_ms));
            assert_eq!((c.span(), c.wait(), c.lease()), (interval * 5, interval * 11, interval * 11));
            assert_eq!((c.limit(), c.write_reserve()), (interval * 11 / 4, interval * 11 / 4));
            assert_eq!(c.live_watch(c.wait()), interval * 11);
            assert_eq!(c.slower(), None, "its header has it");
        }
        let fields = [100, 1000, 1001, 10_000].map(|interval_ms| CheckInterval::Area(interval_ms).field_s());
        assert_eq!(fields, [1, 5, 6, 50]);
    }

    #[test]
    fn a_native_one_is_what_the_formulas_say() {
        for seconds in [5, 6, 19, 20, 59, 60, 300] {
            let c = CheckInterval::Native(seconds);
            assert_eq!((c.wait(), c.lease(), c.field_s()), (wait(seconds), lease(seconds), seconds));
            assert_eq!((c.limit(), c.write_reserve()), (wait(seconds) / 4, lease(seconds) / 4));
            assert_eq!(c.live_watch(Duration::from_secs(11)), wait(seconds) * 2 - Duration::from_secs(11));
            assert_eq!(c.span(), Duration::from_secs(seconds.into()));
        }
        let slower = |seconds| CheckInterval::Native(seconds).slower();
        assert_eq!(slower(5), Some(CheckInterval::Native(10)));
        assert_eq!(slower(200), Some(CheckInterval::Native(300)));
        assert_eq!(slower(300), None);
    }
}
