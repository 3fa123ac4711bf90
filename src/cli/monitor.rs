//! The arguments of what monitors ask: `status`, `health`, `events`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::args::duration;
use crate::events::EventKind;

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Only these devices, or where they are mounted.
    #[arg(value_name = "DIR|DEV", value_hint = ValueHint::AnyPath)]
    pub(super) only: Vec<PathBuf>,
    /// The last 180 looks and beats of each: how long reading and writing took, and how late they were.
    #[arg(long)]
    pub(super) history: bool,
    /// Report as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Health {
    /// Only these devices, or where they are mounted.
    #[arg(value_name = "DIR|DEV", value_hint = ValueHint::AnyPath)]
    pub(super) only: Vec<PathBuf>,
    /// Report as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Only of these devices, or of what is, or was, mounted there.
    #[arg(value_name = "DIR|DEV", value_hint = ValueHint::AnyPath)]
    pub(super) only: Vec<PathBuf>,
    /// Go on, and print what happens from now on, too.
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Only what happened within that time, such as 10m or 2h.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) since: Option<Duration>,
    /// Only events of this kind. May be given several times.
    #[arg(long, value_name = "KIND", value_enum)]
    pub(super) kind: Vec<EventKind>,
    /// One JSON object a line, as it stands in the log.
    #[arg(long)]
    pub(super) json: bool,
}
