//! The arguments of `clear`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::super::args::{GuardedBy, node_name};

#[derive(Debug, Args)]
pub(in crate::cli) struct Clear {
    /// The block device or image file, or a slot of an area, as TARGET:SLOT.
    #[arg(value_name = "DEV", value_hint = ValueHint::FilePath)]
    pub(super) device: PathBuf,
    #[command(flatten)]
    pub(super) by: GuardedBy,
    /// Confirms that nobody on NODE uses the device any more, e2fsck above all, instead of being asked. NODE has to be the node that
    /// the block names: byte for byte, or as `mmp show` prints it if it cannot be typed.
    #[arg(long, value_name = "NODE")]
    pub(super) yes_node: Option<OsString>,
    /// Clear also a block that is damaged, or has an unknown sequence. It does not say who uses the device: make sure that nobody does.
    #[arg(long)]
    pub(super) damaged: bool,
    /// Do not watch. Says what that risks, and asks; without a terminal it takes --yes-node, or --damaged. Not in an area.
    #[arg(long)]
    pub(super) force: bool,
    /// The node name to write into the block, instead of this host's.
    #[arg(long, value_name = "NAME", env = "MMP_NODE_NAME", value_parser = node_name)]
    pub(super) node: Option<String>,
    /// Say nothing but errors, what is risked, and what is asked.
    #[arg(short, long)]
    pub(super) quiet: bool,
}
