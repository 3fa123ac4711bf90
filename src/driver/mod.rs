//! Runs a `Guard` on a device.
