//! `mmp fence --test`: what would be done here on a loss, and whether any of it is a fence. Does none of it.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::args::Fence;
use super::render::{self, SCHEMA};
use super::{exit, output};
use crate::error::Error;
use crate::format::name::escape;
use crate::protocol::timing;
use crate::sys::fence::{FenceTarget, RungSpec, RungSummary, Summary, prepare};
use crate::sys::queueing::{self, QueueFinding};
use crate::sys::{Target, TargetKind, mountinfo, probe};

#[derive(Debug, Serialize)]
struct Report {
    schema: u32,
    device: String,
    /// `fence` or `no_fence`.
    state: &'static str,
    exit_code: u8,
    message: String,
    /// `None` if it is not known.
    filesystem: Option<String>,
    #[serde(flatten)]
    summary: Summary,
    /// How long others wait before they take over, by which the findings are judged.
    wait_s: u64,
    queueing: Vec<QueueFinding>,
}

pub(super) fn run(arguments: &Fence) -> ExitCode {
    if !arguments.test {
        output::complain(
            "fence tells what would be done, and only with --test; fencing is done by what guards the device",
        );
        return ExitCode::from(exit::USAGE);
    }
    match look(arguments) {
        Ok(report) => {
            let written = if arguments.json { output::json(&report) } else { output::text(&text(&report)) };
            if written == ExitCode::from(exit::DONE) { ExitCode::from(report.exit_code) } else { written }
        }
        Err(error) if arguments.json => output::json_failure(&arguments.device, &error),
        Err(error) => output::failure(&error),
    }
}

fn look(arguments: &Fence) -> Result<Report, Error> {
    let target = Target::of(&arguments.device)?;
    let filesystem = arguments.filesystem.clone().or_else(|| mounted_as(&target)).or_else(|| probed(&target));
    let spare = Vec::new();
    let fence = FenceTarget { target, filesystem: filesystem.clone().unwrap_or_default(), spare };
    let summary = escaped(prepare(&arguments.on_loss, &fence).summary());
    let wait_s = timing::wait_s(timing::holder_check_interval_s(
        timing::DEFAULT_INTERVAL,
        timing::DEFAULT_INTERVAL,
        0,
    ));
    let mut queueing = queueing::check(&fence.target, Duration::from_secs(wait_s));
    for finding in &mut queueing {
        finding.what = escape(finding.what.as_bytes());
        finding.advice = escape(finding.advice.as_bytes());
    }
    let (state, exit_code) =
        if summary.complete { ("fence", exit::DONE) } else { ("no_fence", exit::NOT_FENCED) };
    Ok(Report {
        schema: SCHEMA,
        device: render::shown(&arguments.device),
        state,
        exit_code,
        message: message(&arguments.device, &summary),
        filesystem: filesystem.map(|name| escape(name.as_bytes())),
        summary,
        wait_s,
        queueing,
    })
}

/// The type it is mounted as here.
fn mounted_as(target: &Target) -> Option<String> {
    let table = std::fs::read("/proc/self/mountinfo").ok()?;
    let image = matches!(target.kind, TargetKind::File { .. }).then_some(target.canonical.as_path());
    let mounts = mountinfo::parse(&table);
    mounts.into_iter().find(|mount| mount.is_of(&[target.kind], image)).map(|mount| mount.filesystem)
}

/// The type that its first bytes tell; that they cannot be read is no failure of a test that changes nothing.
fn probed(target: &Target) -> Option<String> {
    probe::filesystem(&target.canonical).ok().flatten().map(ToOwned::to_owned)
}

/// Names of devices and commands come from elsewhere.
fn escaped(mut summary: Summary) -> Summary {
    for rung in &mut summary.rungs {
        rung.what = escape(rung.what.as_bytes());
        rung.lacks = rung.lacks.take().map(|lacks| escape(lacks.as_bytes()));
    }
    summary
}

fn message(device: &Path, summary: &Summary) -> String {
    let device = render::shown(device);
    match &summary.first_complete {
        Some(RungSpec::Reboot) => {
            format!("{device}: the only real fence here is an immediate reboot of this host")
        }
        Some(rung) => format!("{device}: {} is a fence", escape(rung.to_string().as_bytes())),
        None => format!(
            "{device}: no fence is possible here with {}",
            escape(summary.ladder.to_string().as_bytes())
        ),
    }
}

fn text(report: &Report) -> String {
    let filesystem = report.filesystem.as_deref().unwrap_or("(not known; name it with --type)");
    let mut text =
        format!("device      {}\nfilesystem  {filesystem}\n\non a loss of protection\n", report.device);
    let width = report.summary.rungs.iter().map(|rung| rung.rung.to_string().len()).max().unwrap_or(0);
    for rung in &report.summary.rungs {
        text += &line(rung, width);
    }
    text += "\n";
    text += &report.message;
    text += "\n";
    if report.queueing.is_empty() {
        return text;
    }
    text += &format!("\nholds I/O back for longer than others wait ({} s)\n", report.wait_s);
    for finding in &report.queueing {
        let verdict = if finding.refuse { "too long" } else { "warning" };
        text += &format!("  {verdict:<9} {}\n            {}\n", finding.what, finding.advice);
    }
    text
}

/// The length of the longest verdict.
const VERDICT: usize = 18;

fn line(rung: &RungSummary, width: usize) -> String {
    let verdict = match (rung.possible, rung.complete) {
        (false, _) => "not possible",
        (true, true) => "fence",
        (true, false) => "no fence by itself",
    };
    let name = escape(rung.rung.to_string().as_bytes());
    let indent = width + VERDICT + 6;
    let lacks = rung.lacks.as_ref().map(|lacks| format!("\n{:indent$}{lacks}", "")).unwrap_or_default();
    format!("  {name:<width$}  {verdict:<VERDICT$}  {}{lacks}\n", rung.what)
}
