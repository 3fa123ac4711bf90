//! What a climb tells, rung by rung and as a whole. Plain data, for messages between processes and for JSON.

use serde::{Deserialize, Serialize};

/// How a rung came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did what it can do. Whether the fence is done by it is told by the whole.
    Achieved,
    /// It could not.
    Failed,
    /// It did not end within its time and was left behind.
    Late,
    /// There was no time left for it, or it would have done harm.
    Skipped,
    /// It was not possible here from the start.
    Impossible,
    /// It begins now, and nothing may be heard afterwards: the reboot.
    Begun,
}

/// One rung.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RungReport {
    /// As the ladder names it.
    pub rung: String,
    /// How it came out.
    pub outcome: Outcome,
    /// What was done, or why not. One line.
    pub detail: String,
    /// How long it took, the wait for I/O under way included.
    pub took_ms: u64,
    /// How much I/O was under way afterwards; `None` if the kernel does not tell.
    pub in_flight: Option<u64>,
}

/// The whole climb.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClimbReport {
    /// Nothing reaches the device from this host any more.
    pub done: bool,
    /// The device itself is cut off: also what goes past a filesystem is refused.
    #[serde(default)]
    pub cut: bool,
    /// The ladder has no rung that is a fence by itself, and so it was not done.
    pub incomplete: bool,
    /// Which rung made it done.
    pub by: Option<String>,
    /// Every rung, in order. One that is [`Outcome::Begun`] is told only while it runs.
    pub rungs: Vec<RungReport>,
    /// How much I/O was under way at the end; `None` if the kernel does not tell.
    pub in_flight: Option<u64>,
    /// How long it took.
    pub took_ms: u64,
}

/// Every rung and what came of it.
impl std::fmt::Display for ClimbReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rungs: Vec<_> = self.rungs.iter().map(|rung| format!("{}: {}", rung.rung, rung.detail)).collect();
        f.write_str(&rungs.join("; "))
    }
}

impl ClimbReport {
    /// Two devices that are used together, cut off one after the other: done if both are.
    #[must_use]
    pub fn and(mut self, other: ClimbReport) -> ClimbReport {
        self.done &= other.done;
        self.cut &= other.cut;
        self.incomplete |= other.incomplete;
        self.by = match (self.by, other.by) {
            (Some(one), Some(other)) if one != other => Some(format!("{one}, {other}")),
            (one, other) => one.or(other),
        };
        self.rungs.extend(other.rungs);
        self.in_flight = self.in_flight.zip(other.in_flight).map(|(one, other)| one.saturating_add(other));
        self.took_ms = self.took_ms.saturating_add(other.took_ms);
        self
    }
}
