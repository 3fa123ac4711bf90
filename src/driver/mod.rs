//! Runs a `Guard` on a device.

pub mod cell;
