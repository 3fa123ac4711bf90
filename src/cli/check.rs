//! `mmp check`: does anybody use the device? Watches for as long as that takes, never opens it for writing.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::args::Check;
use super::exit;
use super::interrupt::Interrupt;
use super::output::{self, Outcome};
use super::progress::Progress;
use super::render::{self, PeerReport};
use crate::driver::{self, Place};
use crate::error::Error;
use crate::protocol::timing::{self, AreaConsequences, Consequences};
use crate::protocol::{Peer, Quiet, Refusal};
use crate::sys::users;

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<PeerReport>,
    /// A claim begun now would hold the device so long from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    safe_after_s: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    users: Vec<users::User>,
    /// All of it, for a person.
    #[serde(skip)]
    text: String,
}

pub(super) fn run(arguments: &Check) -> ExitCode {
    let report = match look(arguments) {
        Ok(report) => report,
        // What a refusal tells is a finding here, no failure.
        Err(error) if arguments.json || is_finding(&error) => of_error(arguments, &error),
        Err(error) => return output::failure(&error),
    };
    let code = ExitCode::from(report.outcome.exit_code);
    let wrote =
        if arguments.json { output::json(&report) } else { output::text(&format!("{}\n", report.text)) };
    if wrote == ExitCode::from(exit::DONE) { code } else { wrote }
}

fn look(arguments: &Check) -> Result<Report, Error> {
    let path = &arguments.device;
    let place = Place::find_by(path, arguments.by.area.as_deref(), None)?;
    // On the host that uses it there is nothing to wait for.
    let used = match place.target().map(|target| users::users_before_claim(target, &[])) {
        // Without sysfs (a container) nothing can be claimed here, but the block can be watched.
        None | Some(Err(Error::Unsupported { .. })) => Vec::new(),
        Some(used) => used?,
    };
    if !used.is_empty() {
        let users = used.iter().map(ToString::to_string).collect();
        let report = of_error(arguments, &Error::UsedHere { path: path.clone(), users });
        return Ok(Report { users: used, ..report });
    }
    let interrupt = Interrupt::listen()?;
    let mut progress = Progress::new(arguments.quiet || arguments.json);
    let quiet = driver::watch_place(place.clone(), |event| {
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
            let outcome = Outcome::new(path, "free", exit::DONE, message);
            Report { peer: Some((&by).into()), ..report(outcome, None) }
        }
        Quiet::Dead { was, unchanged } => dead(arguments, &place, &was, unchanged),
    })
}

fn dead(arguments: &Check, place: &Place, was: &Peer, unchanged: Duration) -> Report {
    let message = format!(
        "{}: not clean, and its holder seems dead: no beat for {}",
        render::shown(&arguments.device),
        render::seconds(unchanged)
    );
    let (claim_s, advice) = match place.slot() {
        Some((area, _)) => {
            let claim_s = AreaConsequences::of(area.header.interval_ms).crash_claim_s;
            (
                claim_s,
                format!("a claim by mmp is safe after {claim_s:.1} s from its start; it waits by itself"),
            )
        }
        None => {
            let superblock_s = place.medium().update_interval_s();
            let consequences =
                Consequences::of(timing::taker_check_interval_s(superblock_s, was.check_interval_s));
            let claim_s = consequences.crash_claim_s;
            (
                claim_s,
                format!(
                    "a claim by mmp is safe after {claim_s:.1} s from its start, a kernel mount after {} s; both wait by themselves",
                    consequences.crash_mount_s
                ),
            )
        }
    };
    let outcome = Outcome::new(&arguments.device, "holder_dead", exit::HOLDER_DEAD, message);
    let report = report(outcome.advise(advice), Some(was));
    Report { safe_after_s: Some(claim_s), ..report }
}

fn is_finding(error: &Error) -> bool {
    match error {
        Error::Damaged { .. } => true,
        Error::Refused { refusal, .. } => matches!(
            refusal,
            Refusal::InUse { .. }
                | Refusal::Fsck { .. }
                | Refusal::Damaged { .. }
                | Refusal::UnknownSequence { .. }
        ),
        _ => false,
    }
}

fn of_error(arguments: &Check, error: &Error) -> Report {
    report(Outcome::of(&arguments.device, error), render::named(error))
}

fn report(outcome: Outcome, peer: Option<&Peer>) -> Report {
    let text = render::lines(&outcome.message, peer, outcome.advice.as_deref());
    Report { outcome, peer: peer.map(PeerReport::from), safe_after_s: None, users: Vec::new(), text }
}
