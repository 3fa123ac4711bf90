//! Stopping the use of a block device: a ladder of rungs, prepared beforehand and climbed when protection is lost.
//!
//! Protects: what each rung needs is opened and proved possible before anything is mounted, so that *no fence is possible
//! here* is known in time. Each rung runs in a process of its own with a time limit; one that hangs is left behind. The
//! fence is *done* only when new I/O is refused, for good, and nothing is under way on the device and all it stands on.
//! Nothing is unmounted, synced or flushed, with one exception that is told (`unbind`).
//!
//! Does not protect: from I/O that has left this host and is still on its way, through another device over the same disk, or
//! after somebody has undone a cut on purpose. A rung that is not [`RungSummary::complete`] is no fence by itself.
//!
//! | rung | cuts | complete |
//! |---|---|---|
//! | `dm` | yes | yes |
//! | `scsi` | yes, unless multipathd may bring paths back | likewise |
//! | `unbind` | yes, on virtio after writing back | on NVMe, and on XFS, which is shut down before |
//! | `shutdown` | no | on XFS |
//! | `kill` | no | no |
//! | `exec` | it vouches | yes |
//! | `reboot` | | yes |
//!
//! Nothing that is kept open holds up an unmount or keeps a page cache: attributes of sysfs and control nodes alone.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use serde::Serialize;

mod climb;
mod dm;
mod exec;
mod helper;
mod in_flight;
mod kill;
mod reboot;
mod report;
mod scsi;
mod shutdown;
mod spec;
mod unbind;

use self::climb::{Effect, Ended, Rung, Scene, Step};
use self::helper::{Answer, Helper};
use self::in_flight::Gauges;
use self::spec::AUTO;
use super::sysfs::Sysfs;
use super::target::{Target, TargetKind};
use crate::clock::{self, Mono};

pub use report::{ClimbReport, Outcome, RungReport};
pub use spec::{LadderError, LadderSpec, RungSpec};

/// What is to be fenced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceTarget {
    /// The device that is mounted.
    pub target: Target,
    /// The type of its filesystem as mount(8) has it; empty if it is not known.
    pub filesystem: String,
    /// Processes that the rung `kill` spares.
    pub spare: Vec<i32>,
}

/// A ladder, ready to be climbed. Preparing it has changed nothing.
pub struct Prepared {
    ladder: LadderSpec,
    rungs: Vec<(RungSpec, Result<Ready, String>)>,
    gauges: Gauges,
    device: TargetKind,
}

/// What a prepared ladder would do, for people and for JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// As it was asked for.
    pub ladder: LadderSpec,
    /// Its rungs, in order.
    pub rungs: Vec<RungSummary>,
    /// One of them is a fence by itself.
    pub complete: bool,
    /// Which one, the first.
    pub first_complete: Option<RungSpec>,
    /// The only real fence is an immediate reboot.
    pub only_reboot: bool,
}

/// One rung of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RungSummary {
    /// Which.
    pub rung: RungSpec,
    /// Everything that it needs is there.
    pub possible: bool,
    /// What it would do here, or why it is not possible. One line.
    pub what: String,
    /// It refuses new I/O by itself.
    pub cut: bool,
    /// It is a fence by itself.
    pub complete: bool,
    /// Why it is none, although it is possible. One line.
    pub lacks: Option<String>,
}

/// Opens and proves what the rungs of `spec` need on this host. What is not possible is kept with its reason.
///
/// Reads sysfs and `/proc`, opens attributes and control nodes, and neither the device nor its mount.
#[must_use]
pub fn prepare(spec: &LadderSpec, target: &FenceTarget) -> Prepared {
    prepare_in(Sysfs::host(), spec, target)
}

impl Prepared {
    /// Climbs it. Tells every rung as it ends, and the reboot as it begins. At `limit` the rungs that are left are skipped
    /// and the reboot runs, if there is one.
    ///
    /// The calling process must have one thread: it forks. A helper that hangs stays behind as its child.
    pub fn climb(&mut self, limit: Mono, report: &mut dyn FnMut(&RungReport)) -> ClimbReport {
        self.gauges.renew(Sysfs::host(), self.device);
        let complete = self.is_complete();
        let scene = Host(&self.gauges);
        let mut steps: Vec<Step<'_>> = Vec::with_capacity(self.rungs.len());
        for (spec, ready) in &mut self.rungs {
            let rung = match ready {
                Ok(ready) => {
                    let rung: &mut dyn Rung = &mut *ready.rung;
                    Ok(rung)
                }
                Err(why) => Err(why.as_str()),
            };
            steps.push(Step { name: spec.to_string(), rung });
        }
        climb::climb(&mut steps, &scene, limit, complete, report)
    }

    /// Whether one of its rungs is a fence by itself.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.first_complete().is_some()
    }

    /// The first that is.
    #[must_use]
    pub fn first_complete(&self) -> Option<&RungSpec> {
        self.complete_rungs().next()
    }

    /// Whether an immediate reboot is the only one.
    #[must_use]
    pub fn only_reboot(&self) -> bool {
        self.is_complete() && self.complete_rungs().all(|rung| *rung == RungSpec::Reboot)
    }

    /// What it would do.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            ladder: self.ladder.clone(),
            rungs: self.rungs.iter().map(|(rung, ready)| RungSummary::of(rung, ready)).collect(),
            complete: self.is_complete(),
            first_complete: self.first_complete().cloned(),
            only_reboot: self.only_reboot(),
        }
    }

    /// The descriptors it keeps, for a fork that closes others.
    #[must_use]
    pub fn descriptors(&self) -> Vec<RawFd> {
        let rungs = self.rungs.iter().filter_map(|(_, ready)| ready.as_ref().ok());
        rungs.flat_map(|ready| ready.rung.descriptors()).chain(self.gauges.descriptors()).collect()
    }

    fn complete_rungs(&self) -> impl Iterator<Item = &RungSpec> {
        let complete =
            |ready: &Result<Ready, String>| ready.as_ref().is_ok_and(|ready| ready.lacks.is_none());
        self.rungs.iter().filter(move |(_, ready)| complete(ready)).map(|(rung, _)| rung)
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.summary().fmt(f)
    }
}

impl RungSummary {
    fn of(rung: &RungSpec, ready: &Result<Ready, String>) -> RungSummary {
        let rung = rung.clone();
        match ready {
            Ok(ready) => RungSummary {
                rung,
                possible: true,
                what: ready.description.clone(),
                cut: ready.cut,
                complete: ready.lacks.is_none(),
                lacks: ready.lacks.clone(),
            },
            Err(why) => RungSummary {
                rung,
                possible: false,
                what: why.clone(),
                cut: false,
                complete: false,
                lacks: None,
            },
        }
    }
}

/// A rung that is possible here.
struct Ready {
    rung: Box<dyn Rung>,
    /// What it would do.
    description: String,
    /// It refuses new I/O by itself.
    cut: bool,
    /// Why it is no fence by itself; `None` if it is one.
    lacks: Option<String>,
}

fn prepare_in(sysfs: Sysfs<'_>, spec: &LadderSpec, target: &FenceTarget) -> Prepared {
    let device = target.target.kind;
    let stack = sysfs.stack(device);
    let gauges = Gauges::of(stack.as_ref());
    let wanted = match spec {
        LadderSpec::Auto => &AUTO[..],
        LadderSpec::Rungs(rungs) => rungs,
    };
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let one = |rung: &RungSpec| {
        let below = stack.as_ref().ok_or_else(|| match device {
            TargetKind::File { .. } => "an image file is no device that could be cut off".to_owned(),
            TargetKind::Block { .. } => "sysfs does not know the device".to_owned(),
        });
        let mut ready = match rung {
            RungSpec::Dm => dm::prepare(below?),
            RungSpec::Scsi => scsi::prepare(sysfs, below?),
            RungSpec::Unbind => unbind::prepare(below?, &target.filesystem, &release),
            RungSpec::Shutdown => shutdown::prepare(device, &target.filesystem),
            RungSpec::Kill => kill::prepare(target),
            RungSpec::Exec(command) => exec::prepare(command, target),
            RungSpec::Reboot => reboot::prepare(),
        }?;
        let counted = matches!(ready.rung.effect(), Effect::Cuts | Effect::Stills);
        if counted && ready.lacks.is_none() {
            ready.lacks = gauges.unknown();
        }
        Ok(ready)
    };
    let rungs = wanted.iter().map(|rung| (rung.clone(), one(rung))).collect();
    let mut prepared = Prepared { ladder: spec.clone(), rungs, gauges, device };
    if *spec == LadderSpec::Auto {
        choose(&mut prepared);
    }
    prepared
}

/// What `auto` leaves out: a cut that does harm before it cuts, and whatever would only delay a reboot.
fn choose(prepared: &mut Prepared) {
    let only_reboot = prepared.only_reboot();
    for (rung, ready) in &mut prepared.rungs {
        let Ok(Ready { lacks: Some(lacks), .. }) = ready else { continue };
        if *rung == RungSpec::Unbind {
            *ready = Err(format!("auto leaves it out: {lacks}"));
        } else if only_reboot {
            *ready = Err("auto leaves it out: without a cut it only delays the reboot".to_owned());
        }
    }
}

/// This host, as a climb sees it.
struct Host<'a>(&'a Gauges);

impl Scene for Host<'_> {
    fn now(&self) -> Mono {
        clock::mono()
    }
    fn sleep(&self, span: Duration) {
        clock::sleep(span);
    }
    fn in_flight(&self, drained: bool) -> Option<u64> {
        self.0.total(drained)
    }
}

/// Runs `body` in a helper, which is killed and left behind at `until`.
fn run_helper(keep: &[RawFd], until: Mono, drains: bool, body: impl FnOnce() -> Answer) -> Ended {
    let mut helper = match Helper::start(keep, body) {
        Ok(helper) => helper,
        Err(error) => return no_process(&error),
    };
    match helper.wait(until) {
        Some(answer) => ended(answer, drains),
        None => {
            helper.leave();
            Ended::Late { detail: "did not end in its time and was left behind".to_owned(), goes_on: false }
        }
    }
}

fn ended(answer: Answer, drained: bool) -> Ended {
    match answer {
        Ok(detail) => Ended::Did { detail, drained },
        Err(why) => Ended::Failed(why),
    }
}

fn no_process(error: &io::Error) -> Ended {
    Ended::Failed(format!("no process could be made for it: {error}"))
}

#[cfg(test)]
mod tests;
