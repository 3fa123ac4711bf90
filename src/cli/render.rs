//! How things are said: times, ages, peers, refusals with what to do next.
//!
//! Names come escaped (`format::name`); nothing here prints bytes of a disk.

use std::path::Path;
use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use crate::clock::{self, Wall};
use crate::error::Error;
use crate::format::name::escape;
use crate::protocol::{Peer, Refusal};

/// The version of every JSON report's schema.
pub(super) const SCHEMA: u32 = 1;

/// A peer as a report shows him.
#[derive(Debug, Serialize)]
pub(super) struct PeerReport {
    #[serde(skip)]
    line: String,
    node: String,
    device: String,
    last_update_s: u64,
    last_update: Option<String>,
    age_s: i64,
    pub(super) check_interval_s: u16,
    seq: u32,
}

impl From<&Peer> for PeerReport {
    fn from(peer: &Peer) -> Self {
        PeerReport {
            line: self::peer(peer),
            node: peer.node.to_string(),
            device: peer.device.to_string(),
            last_update_s: peer.last_update.0,
            last_update: timestamp(peer.last_update).map(|at| at.to_string()),
            age_s: age_s(peer.last_update),
            check_interval_s: peer.check_interval_s,
            seq: peer.seq,
        }
    }
}

impl PeerReport {
    /// Everything in one line.
    pub(super) fn line(&self) -> &str {
        &self.line
    }
}

/// A point in time, in the local zone.
pub(super) fn when(at: Wall) -> String {
    match timestamp(at) {
        Some(timestamp) => {
            timestamp.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
        }
        None => format!("{} s after 1970, out of range", at.0),
    }
}

/// How long ago that was, by this host's clock.
pub(super) fn age(at: Wall) -> String {
    let age_s = age_s(at);
    let span = seconds(Duration::from_secs(age_s.unsigned_abs()));
    match age_s {
        0.. => format!("{span} ago"),
        _ => format!("{span} ahead of this host's clock"),
    }
}

/// A length of time, to the tenth of a second below a minute.
pub(super) fn seconds(span: Duration) -> String {
    if span < Duration::from_secs(60) {
        let tenths = format!("{:.1}", span.as_secs_f64());
        return format!("{} s", tenths.strip_suffix(".0").unwrap_or(&tenths));
    }
    let whole = jiff::SignedDuration::from_secs(i64::try_from(span.as_secs()).unwrap_or(i64::MAX));
    format!("{whole:#}")
}

/// Everything the block says of a peer, in one line.
pub(super) fn peer(peer: &Peer) -> String {
    format!(
        "node {}, device {}, last update {} ({})",
        quoted(peer.node.to_string()),
        quoted(peer.device.to_string()),
        when(peer.last_update),
        age(peer.last_update)
    )
}

/// An error as a person reads it: what, where, and what to do next.
pub(super) fn error(error: &Error) -> String {
    match advice(error) {
        Some(advice) => format!("{}\n  {advice}", headline(error)),
        None => headline(error),
    }
}

fn headline(error: &Error) -> String {
    match error {
        Error::Refused { path, refusal: Refusal::InUse { by, after } } => format!(
            "{}: in use elsewhere: its MMP block changed after {}\n  last named: {}",
            shown(path),
            seconds(*after),
            peer(by)
        ),
        Error::Refused { path, refusal: Refusal::Fsck { by } } => {
            format!("{}: e2fsck is at work on it, or died at it\n  last named: {}", shown(path), peer(by))
        }
        other => escape(other.to_string().as_bytes()),
    }
}

fn advice(error: &Error) -> Option<String> {
    let text = match error {
        Error::Refused { refusal: Refusal::InUse { by, .. }, .. } => format!(
            "stop it on node {} first, or wait for it with --wait; if that node is dead its beats would have ended",
            quoted(by.node.to_string())
        ),
        Error::Refused { refusal: Refusal::Fsck { by }, .. } => format!(
            "no watching proves an e2fsck dead: look on node {}; if none runs there, `tune2fs -f -E clear_mmp` clears it",
            quoted(by.node.to_string())
        ),
        Error::UsedHere { .. } => "end that use first; nothing was claimed".to_owned(),
        Error::ReadOnly { .. } => "`show` and `check` work on it; to hold it make it writable".to_owned(),
        Error::Damaged { .. }
        | Error::Refused { refusal: Refusal::Damaged { .. } | Refusal::UnknownSequence { .. }, .. } => {
            "make sure that no host uses it, then `e2fsck -f` repairs the block; nothing was written"
                .to_owned()
        }
        Error::Lost { .. } => {
            "whatever used the device was stopped; before using it again see what the other host did with it"
                .to_owned()
        }
        _ => return None,
    };
    Some(text)
}

/// A path, harmless to show.
pub(super) fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes())
}

fn quoted(name: String) -> String {
    if name.is_empty() { "(none)".to_owned() } else { format!("\"{name}\"") }
}

fn timestamp(at: Wall) -> Option<Timestamp> {
    Timestamp::from_second(i64::try_from(at.0).ok()?).ok()
}

fn age_s(at: Wall) -> i64 {
    let now = i64::try_from(clock::wall().0).unwrap_or(i64::MAX);
    now.saturating_sub(i64::try_from(at.0).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_read_well() {
        assert_eq!(seconds(Duration::from_millis(1149)), "1.1 s");
        assert_eq!(seconds(Duration::from_secs(11)), "11 s");
        assert_eq!(seconds(Duration::from_secs(90)), "1m 30s");
    }

    #[test]
    fn stamps_out_of_range_are_shown_as_such() {
        assert!(when(Wall(u64::MAX)).contains("out of range"));
        assert!(age(Wall(u64::MAX)).contains("ahead"));
    }
}
