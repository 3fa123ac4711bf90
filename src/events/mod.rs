//! What happened to guards, for people and for programs: a log, the journal, hooks.
//!
//! Each event goes three ways: a line of JSON in `events.jsonl` below the runtime directory ([`log`]), an entry in the system's journal
//! ([`journal`]) with a message id that never changes, and the hooks of the configuration ([`hooks`]).
//!
//! Protects: nothing of it is on the path of a beat, a look or a fence. A guard hands its events to a writer thread through a channel that
//! is never waited for ([`Emitter`]); a keeper, which has no threads, writes by itself after it has fenced ([`tell_now`]). A full disk, a
//! journal that is stopped and a hook that hangs lose events, which are counted. Does not protect anything else: an event that is missing
//! proves nothing. The record of a guard says how it fares, and the block who has the device.

mod classify;
mod emitter;
pub mod hooks;
pub mod journal;
mod limiter;
pub mod log;
mod now;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use classify::{Told, classify};
pub use emitter::{Counts, Emitter};
pub use hooks::Settings;
pub use limiter::Limiter;
pub use now::{Direct, tell_now};

use crate::clock::{self, Mono};
use crate::format::name::escape;
use crate::sys::identity;

/// The version of [`EventRecord`].
pub const SCHEMA: u32 = 1;
/// A text is cut there, so that a record is one write, one datagram and one pipe full.
const TEXT_AT_MOST: usize = 1500;

/// What happened.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A device begins to be guarded.
    Held,
    /// Somebody claimed over our block, or the kernel's, while we held it.
    Intruder,
    /// A look or a beat was late by more than half an interval.
    Late,
    /// The kernel is silent, and we beat in its stead; or that is over.
    Bridged,
    /// Protection was lost.
    Lost,
    /// What came of the fence.
    Fenced,
    /// A device is guarded no more, and clean.
    Released,
    /// A device was taken over that its last holder had not left clean.
    Takeover,
    /// Something that the administrator has to look at.
    Alarm,
}

impl EventKind {
    /// All of them.
    pub const ALL: [EventKind; 9] = [
        EventKind::Held,
        EventKind::Intruder,
        EventKind::Late,
        EventKind::Bridged,
        EventKind::Lost,
        EventKind::Fenced,
        EventKind::Released,
        EventKind::Takeover,
        EventKind::Alarm,
    ];

    /// As it stands in records, labels and `MMP_EVENT`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            EventKind::Held => "held",
            EventKind::Intruder => "intruder",
            EventKind::Late => "late",
            EventKind::Bridged => "bridged",
            EventKind::Lost => "lost",
            EventKind::Fenced => "fenced",
            EventKind::Released => "released",
            EventKind::Takeover => "takeover",
            EventKind::Alarm => "alarm",
        }
    }

    /// The journal's `MESSAGE_ID`: `journalctl MESSAGE_ID=...` finds this kind of event on every host, for ever. Never to be changed.
    #[must_use]
    pub const fn message_id(self) -> u128 {
        match self {
            EventKind::Held => 0xf92a_f2b5_74ad_4b53_9612_0aec_03be_8c9f,
            EventKind::Intruder => 0xfdbe_2264_351a_4050_ac0c_bc8d_a3a5_24b1,
            EventKind::Late => 0xd0c3_2866_b9dd_49ef_b4dd_ff21_b95e_2135,
            EventKind::Bridged => 0x1ba3_cac4_3592_4ae1_a296_ccc3_f997_8cb3,
            EventKind::Lost => 0xe0ec_9aa2_7494_4af4_ac64_44c2_a370_576d,
            EventKind::Fenced => 0xb02f_1621_f381_4d02_bb1f_167f_0dce_b8c6,
            EventKind::Released => 0xffee_82f0_1d77_4fff_aadf_7115_55ff_b76b,
            EventKind::Takeover => 0x9ed1_466e_6b50_4819_bfa1_7077_b0c3_60be,
            EventKind::Alarm => 0x56da_3ef4_1431_48d5_8de4_5a6a_f457_7654,
        }
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|&kind| kind == self).unwrap_or_default()
    }
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Info,
    /// Not every day's.
    Notice,
    /// To be looked at.
    Warning,
    /// Protection has ended, or is about to.
    Critical,
}

impl Severity {
    /// syslog(3)'s number.
    #[must_use]
    pub const fn priority(self) -> u8 {
        match self {
            Severity::Critical => 2,
            Severity::Warning => 4,
            Severity::Notice => 5,
            Severity::Info => 6,
        }
    }
}

/// Of what has a beginning and an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It has begun.
    Begun,
    /// It is over.
    Ended,
}

/// Whose event it is. Names are as they are; a record has them escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The device, escaped.
    pub device: String,
    /// Where it is mounted, escaped.
    pub dir: Option<String>,
    /// The node name in the block, escaped.
    pub node: String,
    /// The device name in the block, escaped.
    pub block_device: String,
    /// The number of this acquisition, where there is one.
    pub generation: Option<u64>,
}

impl Subject {
    /// Of a device and where it is mounted; the names in the block come when they are known.
    #[must_use]
    pub fn new(device: &Path, dir: Option<&Path>) -> Self {
        let shown = |path: &Path| escape(path.as_os_str().as_encoded_bytes());
        Subject { device: shown(device), dir: dir.map(shown), ..Subject::default() }
    }
}

/// One event, as it stands in the log and as a hook reads it. Every name in it is escaped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When, by this host's wall clock: RFC 3339, UTC.
    pub at: String,
    /// The same in nanoseconds of `CLOCK_BOOTTIME`.
    pub boottime_ns: u64,
    /// The boot that this counts from.
    pub boot_id: String,
    /// What.
    pub kind: EventKind,
    /// How much it matters.
    pub severity: Severity,
    /// The journal's id of this kind, 32 hexadecimal digits.
    pub message_id: String,
    /// The device.
    pub device: String,
    /// Where it is, or was, mounted.
    #[serde(default)]
    pub dir: Option<String>,
    /// The node name in the block.
    pub node: String,
    /// The device name in the block.
    pub block_device: String,
    /// The number of this acquisition, where there is one.
    #[serde(default)]
    pub generation: Option<u64>,
    /// Whether it begins or ends, where it does.
    #[serde(default)]
    pub stage: Option<Stage>,
    /// A sentence.
    pub text: String,
    /// The other party's node name, where there is one.
    #[serde(default)]
    pub other: Option<String>,
    /// The other party's device name.
    #[serde(default)]
    pub other_device: Option<String>,
    /// The process that tells it.
    pub pid: u32,
}

impl EventRecord {
    /// What happened just now.
    #[must_use]
    pub fn now(subject: &Subject, told: &Told) -> Self {
        Self::at(subject, told, clock::mono())
    }

    /// What happened at `at`.
    #[must_use]
    pub fn at(subject: &Subject, told: &Told, at: Mono) -> Self {
        let since_ns = clock::mono().since(at).as_nanos();
        let wall_ns = i128::from(clock::wall_ns()) - i128::try_from(since_ns).unwrap_or_default();
        let stamp = jiff::Timestamp::from_nanosecond(wall_ns).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        EventRecord {
            schema: SCHEMA,
            at: format!("{stamp:.3}"),
            boottime_ns: at.0,
            boot_id: identity::boot_id().unwrap_or_default(),
            kind: told.kind,
            severity: told.severity,
            message_id: format!("{:032x}", told.kind.message_id()),
            device: subject.device.clone(),
            dir: subject.dir.clone(),
            node: subject.node.clone(),
            block_device: subject.block_device.clone(),
            generation: subject.generation,
            stage: told.stage,
            text: cut(&told.text),
            other: told.other.clone(),
            other_device: told.other_device.clone(),
            pid: std::process::id(),
        }
    }
}

/// Whatever its source escaped, the controls are gone, and it is of a length that one write takes.
fn cut(text: &str) -> String {
    let mut harmless: String = text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
    if let Some((at, _)) = harmless.char_indices().nth(TEXT_AT_MOST) {
        harmless.truncate(at);
        harmless.push_str(" ...");
    }
    harmless
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in the field is searched for by these. A kind may be added; none of these may ever change.
    #[test]
    fn message_ids_are_what_they_were() {
        let ids: Vec<_> =
            EventKind::ALL.iter().map(|kind| (kind.name(), format!("{:032x}", kind.message_id()))).collect();
        let known = [
            ("held", "f92af2b574ad4b5396120aec03be8c9f"),
            ("intruder", "fdbe2264351a4050ac0cbc8da3a524b1"),
            ("late", "d0c32866b9dd49efb4ddff21b95e2135"),
            ("bridged", "1ba3cac435924ae1a296ccc3f9978cb3"),
            ("lost", "e0ec9aa274944af4ac6444c2a370576d"),
            ("fenced", "b02f1621f3814d02bb1f167f0dceb8c6"),
            ("released", "ffee82f01d774fffaadf711555ffb76b"),
            ("takeover", "9ed1466e6b504819bfa17077b0c360be"),
            ("alarm", "56da3ef4143148d58de45a6af4577654"),
        ];
        assert_eq!(ids, known.map(|(name, id)| (name, id.to_owned())));
    }

    #[test]
    fn names_are_the_same_everywhere() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.name()));
            let value = <EventKind as clap::ValueEnum>::to_possible_value(&kind).unwrap();
            assert_eq!(value.get_name(), kind.name());
            assert_eq!(EventKind::ALL[kind.index()], kind);
        }
    }

    #[test]
    fn a_record_is_harmless_short_and_comes_back_as_it_was() {
        let device = Path::new("/dev/sd\x1b[2Jx");
        let subject =
            Subject { generation: Some(u64::MAX), ..Subject::new(device, Some(Path::new("/a\nb"))) };
        let told = Told::new(EventKind::Alarm, Severity::Warning, format!("\x1b[2J{}", "ä".repeat(5000)));
        let before = clock::mono();
        let record = EventRecord::at(&subject, &told, before);
        let line = serde_json::to_string(&record).unwrap();
        assert!(!line.contains(['\n', '\x1b']) && line.len() < 4096, "{line}");
        assert_eq!((record.device.as_str(), record.dir.as_deref()), ("/dev/sd\\x1b[2Jx", Some("/a\\x0ab")));
        assert!(record.text.ends_with("ä ...") && record.text.starts_with(" [2J"), "{}", record.text);
        assert!(record.at.parse::<jiff::Timestamp>().is_ok() && record.at.ends_with('Z'), "{}", record.at);
        assert_eq!(record.boottime_ns, before.0);
        assert_eq!(serde_json::from_str::<EventRecord>(&line).unwrap(), record);
    }
}
