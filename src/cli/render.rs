//! How things are said: times, ages, peers, refusals with what to do next.
//!
//! Names come escaped (`format::name`); nothing here prints bytes of a disk.

use std::path::Path;
use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use crate::clock::{self, Wall};
use crate::error::{Error, Kind};
use crate::format::SuperblockError;
use crate::format::name::escape;
use crate::protocol::{Change, Peer, Refusal, describe};

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

/// An error as a person reads it: what, where, whom the block names, and what to do next.
pub(super) fn error(error: &Error) -> String {
    lines(&headline(error), named(error), advice(error).as_deref())
}

/// A finding as a person reads it: one line, then whom the block names and what to do next.
pub(super) fn lines(message: &str, named: Option<&Peer>, advice: Option<&str>) -> String {
    let named = named.map(|by| format!("\n  last named: {}", peer(by))).unwrap_or_default();
    let advice = advice.map(|advice| format!("\n  {advice}")).unwrap_or_default();
    format!("{message}{named}{advice}")
}

/// What, where and why, in one line.
pub(super) fn headline(error: &Error) -> String {
    match error {
        Error::Refused { path, refusal } => {
            format!("{}: {}", shown(path), escape(describe::reason(refusal).as_bytes()))
        }
        Error::Unsupported { path, what } => {
            format!("{}: {}", shown(path), escape(what.lines().next().unwrap_or_default().as_bytes()))
        }
        other => escape(other.to_string().as_bytes()),
    }
}

/// Whom the block names, if that is why.
pub(super) fn named(error: &Error) -> Option<&Peer> {
    match error {
        Error::Refused { refusal, .. } => refusal.peer(),
        _ => None,
    }
}

/// The `state` of a JSON report of an error.
pub(super) fn state(error: &Error) -> &'static str {
    match (error.kind(), error) {
        (Kind::InUse, Error::UsedHere { .. }) => "in_use_here",
        (Kind::InUse, _) => "in_use",
        (Kind::Fsck, _) => "fsck",
        (Kind::Damaged, _) => "damaged",
        (Kind::Unsupported, Error::Superblock { source: SuperblockError::NotEnabled, .. }) => "not_enabled",
        (Kind::Unsupported, Error::Unprotected { .. }) => "not_enabled",
        (Kind::Unsupported, _) => "unsupported",
        (Kind::Interrupted, _) => "interrupted",
        (Kind::Io | Kind::Usage | Kind::Lost, _) => "error",
    }
}

/// What to do next: one line, or one for each way out.
pub(super) fn advice(error: &Error) -> Option<String> {
    let text = match error {
        Error::Refused { refusal: Refusal::InUse { by, .. }, .. } => format!(
            "stop it on node {} first, or wait for it with --wait; if that node were dead its beats would have ended",
            quoted(by.node.to_string())
        ),
        Error::Refused { path, refusal: Refusal::Fsck { by } } => format!(
            "no watching proves an e2fsck dead: look on node {}; if that node is dead, say so with --fenced; if it lives and none \
             runs there, `mmp clear {}` clears it",
            quoted(by.node.to_string()),
            shown(path)
        ),
        // What follows the first line of it: the ways out, a line each.
        Error::Unsupported { what, .. } => {
            let ways = what.split_once('\n')?.1.lines().map(|way| escape(way.trim_start().as_bytes()));
            ways.collect::<Vec<_>>().join("\n  ")
        }
        Error::UsedHere { .. } => "end that use first".to_owned(),
        Error::Unprotected { path, .. } => {
            let path = shown(path);
            format!(
                "`mmp enable {path}` protects what has no MMP of its own; what was protected and was grown since takes `mmp area move \
                 {path}`, and what lost the header of its area takes `mmp area repair {path}`"
            )
        }
        Error::Area { path, source } if source.is_damage() => {
            format!("`mmp area repair {}` mends what can be mended", shown(path))
        }
        Error::Refused { refusal: Refusal::Damaged { damage: crate::format::Damage::Area(error) }, .. } if error.is_damage() => {
            "something else was written where the slot's block should be: find out what, then `mmp area repair` makes it anew"
                .to_owned()
        }
        Error::ReadOnly { .. } => "`show` and `check` work on it; to hold it make it writable".to_owned(),
        Error::Damaged { path, .. } | Error::Refused { path, refusal: Refusal::Damaged { .. } } => {
            format!("make sure that no host uses it, then `mmp clear --damaged {}` watches it, and writes it anew", shown(path))
        }
        // e2fsck itself refuses such a block.
        Error::Refused { path, refusal: Refusal::UnknownSequence { .. } } => format!(
            "make sure that no host uses it, then `mmp clear --damaged {}` watches the block, and clears it; e2fsck refuses it",
            shown(path)
        ),
        Error::Refused { refusal: Refusal::Changed { change: Change::Settings, .. }, .. } => {
            "try again: the next claim goes by the new settings".to_owned()
        }
        Error::Lost { .. } => {
            "whatever used the device was stopped; before using it again see what the other host did with it"
                .to_owned()
        }
        _ => return None,
    };
    Some(text)
}

/// A UUID, with its dashes.
pub(super) fn uuid(bytes: &[u8; 16]) -> String {
    crate::format::content::uuid_text(bytes)
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
    use crate::format::{BlockDamage, Damage};
    use crate::protocol::FailureKind;

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
    #[test]
    fn advice_names_the_device_and_is_one_line() {
        let path = || Path::new("/dev/sdx1").to_owned();
        let told = |refusal| {
            let error = Error::Refused { path: path(), refusal };
            (headline(&error), advice(&error).expect("has advice"))
        };
        let (message, advice) = told(Refusal::UnknownSequence { seq: 0xE24D_4D51 });
        assert!(message.starts_with("/dev/sdx1: ") && message.contains("0xe24d4d51"), "{message}");
        assert!(advice.contains("`mmp clear --damaged /dev/sdx1`"), "{advice}");
        let (_, advice) = told(Refusal::Damaged { damage: Damage::Block(BlockDamage::Magic { found: 0 }) });
        assert!(advice.contains("`mmp clear --damaged /dev/sdx1`") && !advice.contains("e2fsck"), "{advice}");
        let (message, advice) =
            told(Refusal::Changed { what: "its MMP interval was changed".into(), change: Change::Settings });
        assert!(message.contains("interval") && advice.contains("try again"), "{message} {advice}");
        let refusal = Refusal::Io { what: "too\nshort".into(), kind: FailureKind::TooShort };
        let error = Error::Refused { path: path(), refusal };
        assert_eq!((headline(&error).as_str(), state(&error)), ("/dev/sdx1: too\\x0ashort", "damaged"));
    }
}
