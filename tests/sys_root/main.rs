//! Users of a device, on real loop devices with real filesystems. Needs root; skips loudly without, unless
//! `MMPGUARD_REQUIRE_ROOT=1` turns that into a failure.

mod fence;
mod host;
mod in_kernel;
mod processes;
