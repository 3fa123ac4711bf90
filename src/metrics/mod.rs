//! Figures for Prometheus: how every guard of this host fares, as OpenMetrics text.
//!
//! Protects: made of the records below the runtime directory, so asking for it touches no device and no guard, and a scrape that hangs
//! disturbs none. Off unless the configuration says where to listen, and then on this host alone: there is no password. Does not see
//! more than the records say.
//!
//! Every name is documented in `docs/metrics.md`.

mod server;

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry as Metrics};

pub use server::{CONTENT_TYPE, Listen, Listener, Settings, serve};

use crate::clock::Mono;
use crate::events::EventKind;
use crate::format::name::escape;
use crate::health::{Level, Seen, State, worst};
use crate::protocol::Mode;
use crate::registry::Registry;

type Labels = Vec<(&'static str, String)>;
type Figures = Family<Labels, Gauge<f64, AtomicU64>>;
type Counts = Family<Labels, Counter<u64>>;

/// Everything that is told.
#[derive(Default)]
struct All {
    version: Figures,
    guards: Figures,
    state: Figures,
    health: Figures,
    lease: Figures,
    lease_left: Figures,
    interval: Figures,
    last_beat_age: Figures,
    record_age: Figures,
    since: Figures,
    lateness_max: Figures,
    late_lately: Figures,
    bridging: Figures,
    keeper: Figures,
    incomplete_fence: Figures,
    generation: Figures,
    beats: Counts,
    bridged: Counts,
    events: Counts,
    events_dropped: Counts,
}

/// The text for every guard of this host. A registry that cannot be read has none.
#[must_use]
pub fn render(registry: &Registry) -> String {
    let mut records = registry.list().unwrap_or_default();
    records.retain(|(_, record)| record.is_of_this_boot());
    let all = All::default();
    all.tell_host(records.len() as u64);
    for (slot, record) in &records {
        all.tell(&Seen::now(slot, record));
    }
    all.text()
}

impl All {
    fn tell_host(&self, guards: u64) {
        self.version.get_or_create(&vec![("version", env!("CARGO_PKG_VERSION").to_owned())]).set(1.0);
        self.guards.get_or_create(&Labels::new()).set(whole(guards));
    }

    fn tell(&self, seen: &Seen<'_>) {
        let record = seen.record;
        let shown = |path: &std::path::Path| escape(path.as_os_str().as_encoded_bytes());
        let dir = record.dir.as_deref().map(shown).unwrap_or_default();
        let labels = vec![("device", shown(&record.device)), ("dir", dir)];
        let with = |name, value: &str| [labels.clone(), vec![(name, value.to_owned())]].concat();
        let set = |figures: &Figures, value: f64| figures.get_or_create(&labels).set(value);

        for state in State::ALL {
            let is = f64::from(u8::from(state == seen.state));
            self.state.get_or_create(&with("state", state.name())).set(is);
        }
        let findings = seen.findings();
        for (level, name) in LEVELS {
            let is = f64::from(u8::from(level == worst(&findings)));
            self.health.get_or_create(&with("health", name)).set(is);
        }
        if let Some(end) = record.lease_end_ns {
            set(&self.lease_left, Mono(end).since(seen.now).as_secs_f64());
            if record.last_beat_ns != 0 {
                set(&self.lease, Mono(end).since(Mono(record.last_beat_ns)).as_secs_f64());
            }
        }
        if record.last_beat_ns != 0 {
            set(&self.last_beat_age, seen.now.since(Mono(record.last_beat_ns)).as_secs_f64());
        }
        if let Some(interval_ns) = record.interval_ns {
            set(&self.interval, seconds(interval_ns));
        }
        if let Some(generation) = record.generation {
            set(&self.generation, whole(generation));
        }
        set(&self.record_age, seen.told().as_secs_f64());
        set(&self.since, whole(record.since_s));
        set(&self.lateness_max, seconds(record.worst_lateness_ns));
        set(&self.late_lately, whole(record.late_lately));
        set(&self.bridging, f64::from(u8::from(record.mode == Mode::Bridging)));
        set(&self.keeper, f64::from(u8::from(seen.has_keeper)));
        set(&self.incomplete_fence, f64::from(u8::from(record.incomplete_fence)));
        self.beats.get_or_create(&labels).inc_by(record.beats);
        self.bridged.get_or_create(&labels).inc_by(record.bridged);
        self.events_dropped.get_or_create(&labels).inc_by(record.events_dropped);
        // The keeper, which tells these, ends with the guard.
        let lost = record.lost.iter().map(|_| (EventKind::Lost, 1));
        let fenced = record.lost.iter().filter(|lost| lost.fence.is_some()).map(|_| (EventKind::Fenced, 1));
        for (kind, count) in lost.chain(fenced) {
            self.events.get_or_create(&with("kind", kind.name())).inc_by(count);
        }
        for (kind, count) in &record.events {
            self.events.get_or_create(&with("kind", kind.name())).inc_by(*count);
        }
    }

    fn text(self) -> String {
        let mut metrics = Metrics::default();
        let mut add = |name: &str, help: &str, of: Figures| register(&mut metrics, name, help, of);
        add("mmp_build_info", "The version of mmp, as a label", self.version);
        add("mmp_guards", "Records of guards on this host", self.guards);
        add("mmp_guard_state", "1 for the state a guard is in, 0 for the others", self.state);
        add("mmp_guard_health", "1 for how a guard fares, 0 for the others", self.health);
        add("mmp_lease_seconds", "The whole lease of the last beat", self.lease);
        add("mmp_lease_left_seconds", "What is left of the lease", self.lease_left);
        add("mmp_interval_seconds", "How often a device is beaten or looked at", self.interval);
        add("mmp_last_beat_age_seconds", "Since the last beat, ours or the kernel's", self.last_beat_age);
        add("mmp_record_age_seconds", "Since a guard wrote its record", self.record_age);
        add("mmp_guard_since_timestamp_seconds", "When a guard began", self.since);
        add("mmp_beat_lateness_seconds_max", "The worst that a look was late", self.lateness_max);
        add("mmp_late_beats_last_minute", "Late beats within the last minute", self.late_lately);
        add("mmp_bridging", "1 while mmp beats in a silent kernel's stead", self.bridging);
        add("mmp_keeper_present", "1 if the process that fences is there", self.keeper);
        add("mmp_incomplete_fence", "1 if a loss may leave this host writing", self.incomplete_fence);
        add("mmp_generation", "The number of this acquisition, in an area", self.generation);
        let mut count = |name: &str, help: &str, of: Counts| register(&mut metrics, name, help, of);
        count("mmp_beats", "Beats of ours, and of the kernel's that were seen", self.beats);
        count("mmp_bridged", "How often mmp began to beat in a silent kernel's stead", self.bridged);
        count("mmp_events", "Events that were told, by kind", self.events);
        count("mmp_events_dropped", "Events lost on their way to log, journal or hook", self.events_dropped);
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &metrics);
        text
    }
}

const LEVELS: [(Level, &str); 4] = [
    (Level::Healthy, "healthy"),
    (Level::Warning, "warning"),
    (Level::Unhealthy, "unhealthy"),
    (Level::Unprotected, "unprotected"),
];

fn register(metrics: &mut Metrics, name: &str, help: &str, of: impl Metric) {
    metrics.register(name, help, of);
}

fn seconds(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64()
}

/// Exact below 2^53, as every figure of Prometheus is.
#[allow(clippy::cast_precision_loss)]
fn whole(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::tests::record;
    use crate::registry::Record;

    fn text(record: &Record, state: State) -> String {
        let all = All::default();
        let now = Mono(101_000_000_000);
        all.tell_host(1);
        all.tell(&Seen { record, state, has_keeper: true, mounted: true, now });
        all.text()
    }

    #[test]
    fn a_guard_is_told_in_figures_with_units() {
        let events = [(EventKind::Held, 1), (EventKind::Bridged, 2)].into();
        let record = Record { events, bridged: 1, generation: Some(7), ..record() };
        let text = text(&record, State::Guarding);
        for line in [
            "mmp_guard_state{device=\"/dev/sdx\",dir=\"/srv\",state=\"guarding\"} 1.0",
            "mmp_guard_state{device=\"/dev/sdx\",dir=\"/srv\",state=\"lost\"} 0.0",
            "mmp_guard_health{device=\"/dev/sdx\",dir=\"/srv\",health=\"healthy\"} 1.0",
            "mmp_lease_left_seconds{device=\"/dev/sdx\",dir=\"/srv\"} 9.0",
            "mmp_lease_seconds{device=\"/dev/sdx\",dir=\"/srv\"} 11.0",
            "mmp_last_beat_age_seconds{device=\"/dev/sdx\",dir=\"/srv\"} 2.0",
            "mmp_record_age_seconds{device=\"/dev/sdx\",dir=\"/srv\"} 1.0",
            "mmp_generation{device=\"/dev/sdx\",dir=\"/srv\"} 7.0",
            "mmp_beats_total{device=\"/dev/sdx\",dir=\"/srv\"} 5",
            "mmp_events_total{device=\"/dev/sdx\",dir=\"/srv\",kind=\"bridged\"} 2",
            "mmp_events_dropped_total{device=\"/dev/sdx\",dir=\"/srv\"} 0",
            "# TYPE mmp_beats counter",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn hostile_names_stay_one_label() {
        let record = Record { dir: Some("/a\"} 1\nmmp_x\\\x1b".into()), ..record() };
        let text = text(&record, State::Guarding);
        let line = text.lines().find(|line| line.starts_with("mmp_bridging")).unwrap();
        assert_eq!(
            line,
            "mmp_bridging{device=\"/dev/sdx\",dir=\"/a\\\"} 1\\\\x0ammp_x\\\\\\\\\\\\x1b\"} 0.0"
        );
    }

    /// The document is what a rule or a dashboard is written by.
    #[test]
    fn every_name_is_documented() {
        let directory = env!("CARGO_MANIFEST_DIR");
        let document = std::fs::read_to_string(format!("{directory}/docs/metrics.md")).unwrap();
        let rules =
            std::fs::read_to_string(format!("{directory}/packaging/prometheus/mmp.rules.yml")).unwrap();
        let events = [(EventKind::Held, 1)].into();
        let record = Record { events, generation: Some(1), ..record() };
        let names = names(&text(&record, State::Guarding));
        assert!(names.len() >= 20, "{names:?}");
        for name in &names {
            assert!(document.contains(&format!("| `{name}` |")), "docs/metrics.md has no row of {name}");
        }
        let words = |text: &str| -> Vec<String> {
            let parts = text.split(|it: char| !(it.is_ascii_alphanumeric() || it == '_'));
            parts.filter(|word| word.starts_with("mmp_")).map(ToOwned::to_owned).collect()
        };
        let rows = document.lines().filter(|line| line.starts_with("| `mmp_"));
        for word in rows.filter_map(|row| words(row).into_iter().next()).chain(words(&rules)) {
            assert!(names.contains(&word), "{word} is documented or used, and nothing tells it");
        }
    }

    /// Every metric of a record that has a figure for each.
    fn names(text: &str) -> Vec<String> {
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let named = types.filter_map(|line| {
            let (name, kind) = line.split_once(' ')?;
            Some(if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
        });
        named.collect()
    }

    #[test]
    fn a_registry_that_is_not_there_is_an_empty_one() {
        let text = render(&Registry::at(std::path::Path::new("/nowhere/at/all")));
        assert!(text.contains("mmp_guards 0.0\n") && text.ends_with("# EOF\n"), "{text}");
    }
}
