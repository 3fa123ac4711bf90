//! Stands in for the crate `fastrand`: what a guard draws is chosen by the model, so that it is an input like any other.
//!
//! The model tries the shortest and the longest back-off. It does not try what lies between, and a beat's jitter is always the
//! shortest: both ends of it fall on the same step of the model's time.

use std::cell::Cell;
use std::ops::RangeInclusive;

/// What the next draw gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Draw {
    Least,
    Most,
}

thread_local! {
    static DRAW: Cell<Draw> = const { Cell::new(Draw::Least) };
    static LATEST: Cell<u32> = const { Cell::new(0) };
}

/// What is drawn from here on, and the latest sequence of the host that draws.
pub(crate) fn draws(draw: Draw, latest: u32) {
    DRAW.set(draw);
    LATEST.set(latest);
}

/// The latest sequence of the host that draws.
pub(crate) fn latest() -> u32 {
    LATEST.get()
}

/// With seed 0 it gives what [`draws`] says. Any other seed is a unit test's of the library, which is compiled along.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    #[must_use]
    pub(crate) fn with_seed(seed: u64) -> Self {
        Rng(seed)
    }

    pub(crate) fn u32(&mut self, range: RangeInclusive<u32>) -> u32 {
        if self.0 == 0 {
            return *range.start();
        }
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let span = u64::from(range.end() - range.start()) + 1;
        let drawn = (self.0 >> 32) % span;
        range.start() + u32::try_from(drawn).expect("less than the span")
    }

    pub(crate) fn u64(&mut self, range: RangeInclusive<u64>) -> u64 {
        match DRAW.get() {
            Draw::Least => *range.start(),
            Draw::Most => *range.end(),
        }
    }
}
