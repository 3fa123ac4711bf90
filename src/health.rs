//! How a guard fares, judged by its record and its processes.
//!
//! Protects: nothing; it is told to monitors. Touches no device, so it hangs with none. Does not see more than the record says, which a
//! guard writes every second: that it has not done so is itself a finding.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::clock::{self, Mono};
use crate::protocol::Mode;
use crate::registry::{Phase, Record, Slot};
use crate::sys::process::Stat;
use crate::sys::{TargetKind, mountinfo};

/// A record that is older than this tells that its guard hangs.
pub const STALE: Duration = Duration::from_secs(5);

/// How far a guard is, and whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It claims, or the kernel mounts.
    Beginning,
    /// It protects.
    Guarding,
    /// Unmounted; the clean mark is on its way.
    Releasing,
    /// Protection ended while it was in use.
    Lost,
    /// Its processes are gone, and it is still mounted.
    Unguarded,
    /// Its processes are gone, and so is the mount.
    Unmounted,
}

impl State {
    /// All of them.
    pub const ALL: [State; 6] = [
        State::Beginning,
        State::Guarding,
        State::Releasing,
        State::Lost,
        State::Unguarded,
        State::Unmounted,
    ];

    /// As it stands in reports and labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            State::Beginning => "beginning",
            State::Guarding => "guarding",
            State::Releasing => "releasing",
            State::Lost => "lost",
            State::Unguarded => "unguarded",
            State::Unmounted => "unmounted",
        }
    }

    /// Of a record.
    #[must_use]
    pub fn of(slot: &Slot, record: &Record) -> Self {
        let alive = slot.is_locked();
        match record.phase {
            Phase::Lost => State::Lost,
            _ if !alive && !is_mounted(record) => State::Unmounted,
            _ if !alive => State::Unguarded,
            Phase::Beginning => State::Beginning,
            Phase::Guarding => State::Guarding,
            Phase::Releasing => State::Releasing,
        }
    }
}

/// Seen without touching the device. A lazily unmounted ext4 counts.
fn is_mounted(record: &Record) -> bool {
    let listed = record.device.file_name().is_some_and(|name| Path::new("/proc/fs/ext4").join(name).exists());
    let kind = TargetKind::Block { major: record.major, minor: record.minor };
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    listed || mountinfo::parse(&table).iter().any(|mount| mount.is_of(&[kind], None))
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// All is well.
    Healthy,
    /// All is well as long as nothing else happens.
    Warning,
    /// It is protected, and something is wrong.
    Unhealthy,
    /// It is not protected.
    Unprotected,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Protection was lost.
    Lost,
    /// It is mounted, and its guard is gone.
    Unguarded,
    /// A record was left behind by a guard that died.
    LeftBehind,
    /// The guard has not told anything for [`STALE`].
    Hangs,
    /// Nothing would fence: the keeper is not there.
    NoKeeper,
    /// Less than half of the lease is left.
    LeaseShort,
    /// Beats were late within the last minute.
    Late,
    /// The kernel is silent, and we beat in its stead.
    Bridging,
    /// What is done on a loss does not cut the device off for certain.
    IncompleteFence,
    /// Events were lost on their way to the log, the journal or a hook.
    EventsDropped,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub kind: FindingKind,
    /// How much it matters.
    pub level: Level,
    /// A sentence.
    pub text: String,
}

/// What a guard is judged by.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// As it was read.
    pub record: &'a Record,
    /// Whether it is there.
    pub state: State,
    /// The process that fences is there, and is not stopped.
    pub has_keeper: bool,
    /// It is mounted; asked only of one that is lost.
    pub mounted: bool,
    /// When.
    pub now: Mono,
}

impl<'a> Seen<'a> {
    /// As it is now.
    #[must_use]
    pub fn now(slot: &Slot, record: &'a Record) -> Self {
        let keeper = Stat::of(record.keeper_pid).filter(|stat| !matches!(stat.state, 'Z' | 'X' | 'T' | 't'));
        let name = crate::keeper::mounts::NAMES.0.to_string_lossy();
        let has_keeper = keeper.is_some_and(|keeper| keeper.comm == name);
        let state = State::of(slot, record);
        // It means reading every mount of the host, for each guard.
        let mounted = state != State::Lost || is_mounted(record);
        Seen { record, state, has_keeper, mounted, now: clock::mono() }
    }

    /// Since the guard has written its record.
    #[must_use]
    pub fn told(&self) -> Duration {
        self.now.since(Mono(self.record.written_ns))
    }

    /// Everything that is not as it should be, the worst first.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut add = |kind, level, text: String| found.push(Finding { kind, level, text });
        match self.state {
            State::Lost => {
                let lost = self.record.lost.as_ref();
                let what = lost.map_or_else(
                    || "it is being fenced".to_owned(),
                    |lost| format!("{}; {}", lost.reason, lost.outcome()),
                );
                // What is not mounted any more needs no protection, but somebody has to look at it.
                let level =
                    if lost.is_some() && !self.mounted { Level::Unhealthy } else { Level::Unprotected };
                let forget = match level {
                    Level::Unhealthy => {
                        "; nothing of it is mounted any more (`mmp umount --although-lost` forgets it)"
                    }
                    _ => "",
                };
                add(FindingKind::Lost, level, format!("protection was lost: {what}{forget}"));
            }
            State::Unguarded => {
                let what = match self.record.generation {
                    None => {
                        "it is mounted, and its guarding processes are gone (`mmp adopt` guards it again)"
                    }
                    Some(_) => {
                        "it is mounted, its guarding processes are gone, and nothing beats its area any more"
                    }
                };
                add(FindingKind::Unguarded, Level::Unprotected, what.to_owned());
            }
            State::Unmounted => {
                let what = "its guarding processes died; it is not mounted any more";
                add(FindingKind::LeftBehind, Level::Warning, what.to_owned());
            }
            State::Guarding => self.while_guarding(&mut add),
            // A successor begins anew under a lease that runs, and a mount may take long under one.
            State::Beginning | State::Releasing if self.record.lease_end_ns.is_some() => {
                self.while_guarding(&mut add)
            }
            State::Beginning | State::Releasing => {}
        }
        if self.record.events_dropped > 0 {
            let what =
                format!("events lost on their way to log, journal or hook: {}", self.record.events_dropped);
            add(FindingKind::EventsDropped, Level::Warning, what);
        }
        found.sort_by_key(|finding| std::cmp::Reverse(finding.level));
        found
    }

    fn while_guarding(&self, add: &mut impl FnMut(FindingKind, Level, String)) {
        let record = self.record;
        if self.told() > STALE {
            let what = format!(
                "its guard (process {}) has told nothing for {} s: it hangs, or is stopped",
                record.driver_pid,
                self.told().as_secs()
            );
            add(FindingKind::Hangs, Level::Unhealthy, what);
        }
        if !self.has_keeper {
            let what = "the process that would fence it is not there, or is stopped".to_owned();
            add(FindingKind::NoKeeper, Level::Unhealthy, what);
        }
        if let (Some(end), beat @ 1..) = (record.lease_end_ns, record.last_beat_ns) {
            // As of the record: that it is old is a finding of its own.
            let (whole, left) = (Mono(end).since(Mono(beat)), Mono(end).since(Mono(record.written_ns)));
            if left < whole / 2 {
                let (left, whole) = (left.as_secs_f64(), whole.as_secs_f64());
                let what = format!("of a lease of {whole:.1} s only {left:.1} s are left");
                add(FindingKind::LeaseShort, Level::Unhealthy, what);
            }
        }
        if record.late_lately > 0 {
            let what = format!("late beats within the last minute: {}", record.late_lately);
            add(FindingKind::Late, Level::Unhealthy, what);
        }
        if record.mode == Mode::Bridging {
            let what = "the kernel is silent (is the filesystem frozen?); mmp beats in its stead".to_owned();
            add(FindingKind::Bridging, Level::Unhealthy, what);
        }
        if record.incomplete_fence {
            let what = format!("what is done on a loss ({}) was allowed to be no real fence", record.on_loss);
            add(FindingKind::IncompleteFence, Level::Warning, what);
        }
    }
}

/// The worst of them.
#[must_use]
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Healthy)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::registry::{Lost, SCHEMA};

    const S: u64 = 1_000_000_000;

    /// Of a guard that is well at 100 s.
    pub(crate) fn record() -> Record {
        Record {
            schema: SCHEMA,
            boot_id: String::new(),
            device: "/dev/sdx".into(),
            major: 1,
            minor: 2,
            dir: Some("/srv".into()),
            filesystem: "ext4".into(),
            phase: Phase::Guarding,
            mode: Mode::Watching,
            read_only: false,
            node: "alpha".into(),
            block_device: "sdx".into(),
            on_loss: "reboot".into(),
            incomplete_fence: false,
            driver_pid: 7,
            keeper_pid: 8,
            written_ns: 100 * S,
            since_s: 1,
            lease_end_ns: Some(110 * S),
            last_beat_ns: 99 * S,
            beats: 5,
            worst_lateness_ns: 1,
            kernel_counted: None,
            bridged: 0,
            notes: Vec::new(),
            generation: None,
            guarded_by: None,
            with: Vec::new(),
            interval_ns: Some(S),
            late_lately: 0,
            events: std::collections::BTreeMap::new(),
            events_dropped: 0,
            resident: false,
            lost: None,
        }
    }

    fn found(record: &Record, state: State, has_keeper: bool, now_s: u64) -> Vec<(FindingKind, Level)> {
        let seen = Seen { record, state, has_keeper, mounted: true, now: Mono(now_s * S) };
        seen.findings().iter().map(|finding| (finding.kind, finding.level)).collect()
    }

    #[test]
    fn each_finding_is_made_and_has_its_level() {
        let guarding = |change: &dyn Fn(&mut Record), now_s| {
            let mut record = record();
            change(&mut record);
            found(&record, State::Guarding, true, now_s)
        };
        assert_eq!(guarding(&|_| (), 101), []);
        let unhealthy = |kind| vec![(kind, Level::Unhealthy)];
        assert_eq!(
            guarding(&|_| (), 106),
            unhealthy(FindingKind::Hangs),
            "the lease is judged as of the record"
        );
        assert_eq!(guarding(&|it| it.lease_end_ns = Some(105 * S), 102), [], "three of six seconds");
        assert_eq!(guarding(&|it| it.last_beat_ns = 88 * S, 101), unhealthy(FindingKind::LeaseShort));
        assert_eq!(guarding(&|it| it.last_beat_ns = 0, 101), [], "no beat yet");
        assert_eq!(guarding(&|it| it.late_lately = 2, 101), unhealthy(FindingKind::Late));
        assert_eq!(guarding(&|it| it.mode = Mode::Bridging, 101), unhealthy(FindingKind::Bridging));
        let warning = |kind| vec![(kind, Level::Warning)];
        assert_eq!(guarding(&|it| it.incomplete_fence = true, 101), warning(FindingKind::IncompleteFence));
        assert_eq!(guarding(&|it| it.events_dropped = 1, 101), warning(FindingKind::EventsDropped));
        assert_eq!(found(&record(), State::Guarding, false, 101), unhealthy(FindingKind::NoKeeper));
        let begins = Record { lease_end_ns: None, ..record() };
        assert_eq!(found(&begins, State::Beginning, false, 150), []);
        assert_eq!(
            found(&record(), State::Beginning, false, 101),
            unhealthy(FindingKind::NoKeeper),
            "under a lease"
        );
        assert_eq!(found(&record(), State::Unmounted, false, 150), warning(FindingKind::LeftBehind));
        let unprotected = |kind| vec![(kind, Level::Unprotected)];
        assert_eq!(found(&record(), State::Unguarded, false, 150), unprotected(FindingKind::Unguarded));
        let lost = Lost { reason: "x".into(), at_s: 1, fence: None };
        let lost = Record { lost: Some(lost), ..record() };
        assert_eq!(found(&lost, State::Lost, false, 150), unprotected(FindingKind::Lost));
        let gone =
            Seen { record: &lost, state: State::Lost, has_keeper: false, mounted: false, now: Mono(150 * S) };
        assert_eq!(gone.findings()[0].level, Level::Unhealthy, "nothing is mounted any more");
    }

    #[test]
    fn the_worst_comes_first_and_counts() {
        let record = Record { events_dropped: 1, late_lately: 1, ..record() };
        let seen = Seen {
            record: &record,
            state: State::Guarding,
            has_keeper: true,
            mounted: true,
            now: Mono(101 * S),
        };
        let findings = seen.findings();
        assert_eq!(
            findings.iter().map(|finding| finding.level).collect::<Vec<_>>(),
            [Level::Unhealthy, Level::Warning]
        );
        assert_eq!(worst(&findings), Level::Unhealthy);
        assert_eq!(worst(&[]), Level::Healthy);
    }
}
