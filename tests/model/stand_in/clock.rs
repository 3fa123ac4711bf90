//! Stands in for `mmpguard::clock`: the same types, which nobody reads from a clock.
//!
//! A stamp prints as its distance from the time that [`at`] has set, so the text of a guard says how it stands to *now*
//! and not when that was: two guards that will behave alike look alike. Checks nothing itself.

// As visible as in the library: what the protocol shows to others has stamps in it.
#![allow(unreachable_pub)]

use std::cell::Cell;
use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use crate::ours::scale::OLD_NS;

thread_local! {
    static NOW_NS: Cell<u64> = const { Cell::new(0) };
}

/// From here on stamps print as distances from `now`.
pub(crate) fn at(now: Mono) {
    NOW_NS.set(now.0);
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize)]
#[serde(transparent)]
pub struct Mono(pub u64);

impl Mono {
    pub const FAR: Mono = Mono(u64::MAX);

    #[must_use]
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Mono {
    /// `@+` or `@-` and nanoseconds; the sign is what the fingerprint asks for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = NOW_NS.get();
        match (*self, self.0 > now) {
            (Mono::FAR, _) => f.write_str("@far"),
            (_, true) => write!(f, "@+{}", self.0 - now),
            (_, false) if now - self.0 > OLD_NS => f.write_str("@-old"),
            (_, false) => write!(f, "@-{}", now - self.0),
        }
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, span: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Mono {
    type Output = Mono;
    fn sub(self, span: Duration) -> Mono {
        Mono(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize)]
#[serde(transparent)]
pub struct Wall(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    pub mono: Mono,
    pub wall: Wall,
}
