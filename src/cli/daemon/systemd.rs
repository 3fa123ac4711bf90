//! What systemd is told, where it is there: ready, what goes on, and that all is well (sd_notify(3)).
//!
//! Protects: the watchdog is petted only while every guarding thread that is due has run; then a restart helps, since another process
//! goes on with its guards. One that waits for its device is none of those: a restart would not make the device answer.

use std::sync::Arc;
use std::time::Duration;

use libsystemd::daemon::{NotifyState, notify, watchdog_enabled};

use super::methods::Host;
use crate::clock::{self, Mono};
use crate::registry::{Phase, Record};

/// How often the state is told where there is no watchdog.
const PERIOD: Duration = Duration::from_secs(5);
/// A record is written every second; one that is older tells that its thread does not run.
const STALE: Duration = Duration::from_secs(4);

/// Everything is served.
pub(super) fn ready(adopted: usize) {
    let status = match adopted {
        0 => "ready".to_owned(),
        adopted => format!("ready; {adopted} guards taken over"),
    };
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// It ends; what it guards is handed on.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells for ever how things are, and that they are well as long as they are.
pub(super) async fn watch(host: Arc<Host>) -> std::io::Result<()> {
    let asked = watchdog_enabled(false);
    let period = asked.map_or(PERIOD, |within| within / 4);
    loop {
        tokio::time::sleep(period).await;
        let records = host.registry.list().unwrap_or_default();
        let ours = i32::try_from(std::process::id()).unwrap_or(0);
        let ours: Vec<_> = records
            .into_iter()
            .map(|(_, record)| record)
            .filter(|record| record.driver_pid == ours)
            .collect();
        let late: Vec<_> = ours.iter().filter(|record| is_late(record)).collect();
        let mut state =
            vec![NotifyState::Status(format!("{} guards, {} of them late", ours.len(), late.len()))];
        if late.is_empty() && asked.is_some() {
            state.push(NotifyState::Watchdog);
        }
        for record in late {
            tracing::warn!(device = %record.device.display(), "its thread does not run");
        }
        tell(&state);
    }
}

/// Its thread has not told anything for long. What was lost is told by its keeper.
fn is_late(record: &Record) -> bool {
    record.phase != Phase::Lost
        && record.is_of_this_boot()
        && clock::mono().since(Mono(record.written_ns)) > STALE
}

fn tell(state: &[NotifyState]) {
    if let Err(error) = notify(false, state) {
        tracing::debug!(%error, "systemd");
    }
}
