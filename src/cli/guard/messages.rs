//! What front and driver of a guarded mount tell each other.

use serde::{Deserialize, Serialize};

use crate::cli::progress::Told;

/// From the front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ToDriver {
    /// Give up.
    Withdraw,
}

/// From the driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FromDriver {
    /// Something to tell the user.
    Told(Told),
    /// It is mounted and guarded. Always the last message.
    Guarding { text: String },
    /// It ended without. Always the last message.
    Failed { text: String, code: u8 },
}
