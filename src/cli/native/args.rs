//! The arguments of `mmp disable` and `mmp set`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::super::area::args::Locking;
use super::super::args::duration;

/// What is not to be protected any more.
#[derive(Debug, Args)]
pub(in crate::cli) struct Disable {
    /// The block device or image file.
    #[arg(value_name = "DEV", value_hint = ValueHint::FilePath)]
    pub(in crate::cli) device: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) locking: Locking,
}

/// What is set.
#[derive(Debug, Args)]
pub(in crate::cli) struct Set {
    /// The block device or image file, with an ext2/3/4 that has MMP enabled.
    #[arg(value_name = "DEV", value_hint = ValueHint::FilePath)]
    pub(in crate::cli) device: PathBuf,
    /// How often a kernel that mounts it beats, 1s to 300s, in whole seconds.
    #[arg(long, value_name = "DURATION", value_parser = duration, required = true)]
    pub(in crate::cli) interval: Duration,
    #[command(flatten)]
    pub(in crate::cli) locking: Locking,
}
