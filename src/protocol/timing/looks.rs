//! How often whoever watches a block looks at it.

use std::time::Duration;

/// A look is taken at least so often while watching.
const MAX_LOOK_PERIOD: Duration = Duration::from_millis(250);
/// So many look periods apart two looks of a standby may begin.
const STANDBY_LOOKS: u32 = 4;

/// How often a watcher looks.
#[must_use]
pub fn look_period(interval: Duration) -> Duration {
    (interval / 5).min(MAX_LOOK_PERIOD)
}

/// How far apart two looks of a standby may begin and still be one watch: somewhat less than a beat.
#[must_use]
pub fn standby_hole(interval: Duration) -> Duration {
    look_period(interval) * STANDBY_LOOKS
}
