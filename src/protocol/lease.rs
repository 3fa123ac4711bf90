//! The lease of a holder, counted from the starts of looks. The safety argument stands in the module doc of `protocol`.

use crate::clock::Mono;

/// The earliest end among the last acknowledged write and every later one whose fate is unknown. A later one may have
/// landed with a shorter check interval, and then a taker waits the shorter time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    acknowledged_end: Mono,
    unacknowledged_end: Mono,
}

impl Lease {
    /// One that a known write gives.
    pub(super) fn until(end: Mono) -> Self {
        Lease { acknowledged_end: end, unacknowledged_end: Mono::FAR }
    }

    /// When it ends.
    pub(super) fn end(self) -> Mono {
        self.acknowledged_end.min(self.unacknowledged_end)
    }

    /// A write is on its way; if it lands, the lease ends then.
    pub(super) fn submit(&mut self, end: Mono) {
        if !broken!(ForgetsUnacknowledged) {
            self.unacknowledged_end = self.unacknowledged_end.min(end);
        }
    }

    /// It landed: what came before it counts no more.
    pub(super) fn acknowledge(&mut self, end: Mono) {
        *self = Lease::until(end);
    }
}
