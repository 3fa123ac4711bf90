//! `mmp scan`: what multiple-mount protection stands on the devices of this host, or on those that are named. One look at each.

mod relay;
mod report;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueHint};

use self::relay::Teller;
use self::report::{ChangeReport, Guards, Report};
use super::args::duration;
use super::output::{self, Outcome};
use super::{exit, render};
use crate::clock;
use crate::error::Error;
use crate::scan::{Scan, Scanner, Settings, Watch};

/// What cannot be listed when a scan fails altogether.
const SYSFS: &str = "/sys";

/// Show what multiple-mount protection stands on every block device of this host, or on these devices and images. Never writes.
///
/// One look at each: its filesystem, whether an MMP block or an area protects it, whether that is clean, whom it names and since when. One
/// look cannot tell whether a holder lives: with --follow a block that is seen to change is "live", and `mmp check` finds out for
/// certain. An area for other devices has a row for each slot that is used, up to 1024 slots.
///
/// Several paths to one LUN are one row, if the kernel knows them to be: dm-multipath, equal worldwide names, loop devices over the same
/// bytes. What has the same UUID and is not known to be the same (a clone, a snapshot, a partition by kpartx) keeps its row, and so does a
/// path that shows something else than the others; both rows say so. Without a PATH, RAM disks, floppies, optical drives and devices
/// without bytes are left out.
///
/// A device that does not answer has its row after --timeout, and delays no other; where very many do not, the rest is "not asked". Exit
/// code 4: a PATH that was named could not be looked at. What is wrong with a device of the host, or with something in a directory, stands
/// in its row.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Block devices, image files, or directories of these (what stands in them, not below) [default: every block device of this host].
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
    /// Go on, and tell what changes: a device that comes or goes, a state, a holder. Until interrupted.
    #[arg(short, long)]
    follow: bool,
    /// With --follow: how often to look.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1s", requires = "follow")]
    interval: Duration,
    /// Wait so long for a device that does not answer.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5s")]
    timeout: Duration,
    /// Report as JSON: one document; with --follow one object a line for each change.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let patience = (!arguments.follow).then_some(arguments.timeout);
    relay::run(patience, |teller| match work(arguments, teller) {
        Ok(code) => code,
        Err(error) if arguments.json => {
            let outcome = Outcome::of(Path::new(SYSFS), &error);
            let text = if arguments.follow { output::line_of(&outcome) } else { output::document(&outcome) };
            teller.say(&text);
            exit::number(&error)
        }
        Err(error) => {
            teller.complain(&render::error(&error));
            exit::number(&error)
        }
    })
}

/// The body of the process that looks: it may hang, and tells what it finds to one that does not.
fn work(arguments: &Arguments, teller: &mut Teller) -> Result<u8, Error> {
    let mut scanner = Scanner::new(Settings { limit: arguments.timeout, ..Settings::default() });
    if arguments.follow {
        return follow(arguments, &mut scanner, teller);
    }
    let scan = scan(arguments, &mut scanner)?;
    let report = Report::of(&scan.rows, &Guards::host());
    teller.say(&if arguments.json { report.json() } else { table::text(&report.devices) });
    Ok(if scan.failed > 0 { exit::IO } else { exit::DONE })
}

fn scan(arguments: &Arguments, scanner: &mut Scanner) -> Result<Scan, Error> {
    if arguments.paths.is_empty() { scanner.host() } else { Ok(scanner.paths(&arguments.paths)) }
}

/// Until nobody listens any more.
fn follow(arguments: &Arguments, scanner: &mut Scanner, teller: &mut Teller) -> Result<u8, Error> {
    let mut watch = Watch::new();
    let mut is_first = true;
    loop {
        let began = clock::mono();
        let rows = scan(arguments, scanner)?.rows;
        let guards = Guards::host();
        let shown = is_first && !arguments.json;
        let table = shown.then(|| table::text(&Report::of(&rows, &guards).devices));
        let changes = watch.observe(rows, clock::mono());
        let lines = || changes.iter().map(|change| ChangeReport::of(change, &guards).line(arguments.json));
        let text = table.unwrap_or_else(|| lines().collect());
        if !text.is_empty() && !teller.say(&text) {
            return Ok(exit::DONE);
        }
        is_first = false;
        clock::sleep_until(began + arguments.interval);
    }
}
