//! What harness and agent say to each other: one line of JSON each.

use serde::{Deserialize, Serialize};

/// The virtio port's name.
pub(crate) const SHELL_PORT: &str = "labsh";

/// A script to run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: u64,
    /// The boot that it is meant for. What arrives in a later one is not run.
    pub(crate) boot_id: String,
    pub(crate) script: String,
    /// Begin when the shared word has reached this.
    pub(crate) trigger: Option<u64>,
    /// Send its output line by line, while it runs.
    pub(crate) stream: bool,
}

/// What comes back: `hello` once a boot, then for each request `pid`, its lines, and its `code`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) id: u64,
    pub(crate) hello: Option<String>,
    pub(crate) pid: Option<u32>,
    pub(crate) line: Option<String>,
    /// It has ended: its exit status, 128 and the signal's number after a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// From start to end, by the machine's own clock.
    pub(crate) seconds: f64,
}

impl Reply {
    pub(crate) fn hello(boot_id: &str) -> Reply {
        Reply { hello: Some(boot_id.to_owned()), ..Reply::default() }
    }

    pub(crate) fn started(id: u64, pid: u32) -> Reply {
        Reply { id, pid: Some(pid), ..Reply::default() }
    }

    pub(crate) fn line(id: u64, line: String) -> Reply {
        Reply { id, line: Some(line), ..Reply::default() }
    }

    pub(crate) fn ended(id: u64, code: i32) -> Reply {
        Reply { id, code: Some(code), ..Reply::default() }
    }
}
