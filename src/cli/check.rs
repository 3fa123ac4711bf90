//! `mmp check`: does anybody use the device? Watches for as long as that takes, never opens it for writing.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::args::Check;
use super::interrupt::Interrupt;
use super::progress::Progress;
use super::render::{self, PeerReport, SCHEMA};
use super::{exit, output};
use crate::driver::{self, Place};
use crate::error::Error;
use crate::protocol::timing::{self, Consequences};
use crate::protocol::{Peer, Quiet, Refusal};
use crate::sys::users;

#[derive(Debug, Serialize)]
struct Report {
    schema: u32,
    device: String,
    state: &'static str,
    exit_code: u8,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<PeerReport>,
    /// A claim begun now would hold the device so long from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    safe_after_s: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    users: Vec<users::User>,
}

pub(super) fn run(arguments: &Check) -> ExitCode {
    let report = match look(arguments) {
        Ok(report) => report,
        Err(error) => match told(arguments, &error) {
            Some(report) => report,
            None => return output::failure(&error, arguments.json),
        },
    };
    let code = ExitCode::from(report.exit_code);
    let wrote =
        if arguments.json { output::json(&report) } else { output::text(&format!("{}\n", report.message)) };
    if wrote == ExitCode::from(exit::DONE) { code } else { wrote }
}

fn look(arguments: &Check) -> Result<Report, Error> {
    let path = &arguments.device;
    let place = Place::find(path, None)?;
    // On the host that uses it there is nothing to wait for.
    let used = users::users_before_claim(place.target(), &[])?;
    if !used.is_empty() {
        let texts: Vec<_> = used.iter().map(ToString::to_string).collect();
        let message = format!("{}: in use on this host: {}", render::shown(path), texts.join(", "));
        let report = report(arguments, "in_use_here", exit::IN_USE, message);
        return Ok(Report { users: used, ..report });
    }
    let interrupt = Interrupt::listen()?;
    let mut progress = Progress::new(arguments.quiet || arguments.json);
    let quiet = driver::watch(path, |event| {
        match event {
            Some(event) => progress.event(event),
            None => progress.tick(),
        }
        if interrupt.came() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    progress.clear();
    Ok(match quiet? {
        Quiet::Clean { by } => {
            let message = format!("{}: free: cleanly left by {}", render::shown(path), render::peer(&by));
            Report { peer: Some((&by).into()), ..report(arguments, "free", exit::DONE, message) }
        }
        Quiet::Dead { was, unchanged } => dead(arguments, &place, &was, unchanged),
    })
}

fn dead(arguments: &Check, place: &Place, was: &Peer, unchanged: Duration) -> Report {
    let superblock_s = place.superblock().mmp_update_interval_s;
    let consequences = Consequences::of(timing::taker_check_interval_s(superblock_s, was.check_interval_s));
    let message = format!(
        "{}: not clean, and its holder seems dead: no beat for {}\n  last named: {}\n  \
         a claim by mmp is safe after {:.1} s from its start, a kernel mount after {} s; both wait by themselves",
        render::shown(&arguments.device),
        render::seconds(unchanged),
        render::peer(was),
        consequences.crash_claim_s,
        consequences.crash_mount_s,
    );
    let report = report(arguments, "holder_dead", exit::HOLDER_DEAD, message);
    Report { peer: Some(was.into()), safe_after_s: Some(consequences.crash_claim_s), ..report }
}

/// What a refusal tells is a finding here, no failure.
fn told(arguments: &Check, error: &Error) -> Option<Report> {
    let (state, peer) = match error {
        Error::Refused { refusal: Refusal::InUse { by, .. }, .. } => ("in_use", Some(by)),
        Error::Refused { refusal: Refusal::Fsck { by }, .. } => ("fsck", Some(by)),
        Error::Refused { refusal: Refusal::Damaged { .. } | Refusal::UnknownSequence { .. }, .. }
        | Error::Damaged { .. } => ("damaged", None),
        _ => return None,
    };
    let report = report(arguments, state, exit::number(error), render::error(error));
    Some(Report { peer: peer.map(PeerReport::from), ..report })
}

fn report(arguments: &Check, state: &'static str, exit_code: u8, message: String) -> Report {
    Report {
        schema: SCHEMA,
        device: render::shown(&arguments.device),
        state,
        exit_code,
        message,
        peer: None,
        safe_after_s: None,
        users: Vec::new(),
    }
}
