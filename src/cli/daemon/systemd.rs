//! What systemd is told, where it is there: ready, what goes on, and that all is well (sd_notify(3)).
//!
//! Protects: the watchdog is petted only while every guarding thread that is due has run; then a restart helps, since another process
//! goes on with its guards. One that waits for its device is none of those: a restart would not make the device answer.

use std::time::Duration;

use libsystemd::daemon::{NotifyState, notify, watchdog_enabled};

use super::logging;
use crate::cli::guard;
use crate::driver::pulses;

/// How often the state is told where there is no watchdog.
const PERIOD: Duration = Duration::from_secs(5);
/// So late a thread may be, and is well.
const LATE: Duration = Duration::from_secs(1);

/// Everything is served.
pub(super) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("ready".to_owned())]);
}

/// It ends; what it guards is handed on.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells for ever how things are, and that they are well as long as they are.
pub(super) async fn watch() -> std::io::Result<()> {
    let asked = watchdog_enabled(false);
    let period = asked.map_or(PERIOD, |within| within / 4);
    loop {
        tokio::time::sleep(period).await;
        let late = pulses::late(LATE);
        let status = match late.len() {
            0 => format!("{} guards", guard::in_daemon()),
            late => format!("{} guards; {late} threads do not run", guard::in_daemon()),
        };
        for (device, late) in &late {
            tracing::warn!(device = %device.display(), ?late, "its thread does not run");
        }
        let status = match logging::lost() {
            0 => status,
            lost => format!("{status}; {lost} lines of the log lost"),
        };
        let mut state = vec![NotifyState::Status(status)];
        if late.is_empty() && asked.is_some() {
            state.push(NotifyState::Watchdog);
        }
        tell(&state);
    }
}

fn tell(state: &[NotifyState]) {
    if let Err(error) = notify(false, state) {
        tracing::debug!(%error, "systemd");
    }
}
