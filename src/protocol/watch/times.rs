//! The lengths of time of a watch, from what the guard was told and the superblock says. The formulas are `timing`'s.

use std::time::Duration;

use super::super::guard::Context;
use super::super::timing::{self, CheckInterval};

/// How often we look, and beat in the kernel's stead: never so seldom that the kernel's lease, which may be shorter than
/// our own interval, ends between two looks.
pub(super) fn interval(context: &Context) -> Duration {
    let most = if broken!(OwnIntervalOverKernels) { Duration::MAX } else { timing::MAX_HOLD_LOOK };
    context.options.interval.min(most)
}

/// U*: ours, the superblock's, and the kernel's.
pub(super) fn u_star(context: &Context) -> Duration {
    timing::longest_interval(
        interval(context),
        context.medium.update_interval_s(),
        kernel_check_interval_s(context),
    )
}

/// C as the kernel writes it at least.
pub(super) fn kernel_check_interval_s(context: &Context) -> u16 {
    timing::kernel_check_interval_s(context.medium.update_interval_s())
}

/// The same, for a lease.
pub(super) fn kernel_check(context: &Context) -> CheckInterval {
    CheckInterval::Native(kernel_check_interval_s(context))
}

/// How long the kernel may be silent before we beat in its stead.
pub(super) fn silence(context: &Context) -> Duration {
    timing::bridge_after(u_star(context), kernel_check_interval_s(context))
}
