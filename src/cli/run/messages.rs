//! What front and driver of `mmp run` tell each other.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use crate::cli::progress::Told;

/// From the front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ToDriver {
    /// Give up the claim.
    Withdraw,
    /// Nothing of the command is left: release as soon as nothing else uses the device.
    Release,
}

/// From the driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FromDriver {
    /// Something to tell the user.
    Told(Told),
    /// The device is ours; what the command finds in its environment.
    Held { env: Vec<(OsString, OsString)> },
    /// It ended without the device, or without a clean mark. Always the last message.
    Failed { text: String, code: u8, conflict: bool },
    /// Protection was lost. Always the last message.
    Lost { text: String },
    /// The command is gone, but these still use the device: it stays held.
    StillUsed { users: Vec<String> },
    /// The clean mark is on the disk. Always the last message. With a text: not everything that was written to the
    /// device through the page cache got to the disk.
    Released { damage: Option<String> },
}
