//! Two hosts that mount, write, unmount, crash, hang, freeze and lose their disk at random, for as long as is asked for.
//!
//! What is promised: no moment has two writers or two holders, as the emulators saw the writes; a host that is not in writes
//! nothing but its claim; nobody loses anything without a fault that may cause it; every file that its writer said to be durable is
//! there and whole; generations of an area only grow, and each is one host's; the filesystem is sound ([`check`]).
//!
//! A machine that hangs for longer than its lease has a watchdog here (softdog), which the README tells to have: without one
//! nobody promises what it writes in the moments after it goes on. What its emulator had taken from it before it hung, and
//! begins to write when it goes on, is counted by itself.
//!
//! A seed fixes what filesystem a round has, which fault is due when, at which host and for how long, and how long each host waits
//! and holds in turn. It cannot fix how far the machines are when a fault is due, so neither whether it can be done nor what it
//! meets: they are emulated as fast as this machine has time.

pub(super) mod check;
mod faults;
pub(super) mod history;
pub(super) mod host;
mod kernel;

use std::time::Duration;

use mmpguard::clock;

use self::faults::Faults;
use self::history::{History, Loss};
use self::host::{Doing, Host};
use super::stage::{Kind, inspect};
use crate::book::{Book, Guarded};
use crate::harness::{Disk, Lab, Outcome};
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "soak_short", set: Set::Short, run: short },
    Scenario { name: "soak_kernel", set: Set::Long, run: kernel::soak },
    Scenario { name: "soak_chosen", set: Set::Soak, run: chosen },
];

/// How long a round of a soak is: then the disk is looked at, and the next begins with a new one.
const ROUND: Duration = Duration::from_secs(600);
/// How long a round of the short one is.
const SHORT_ROUND: Duration = Duration::from_secs(55);
/// The first of two seeds that make an ext4 and an XFS, and crash, freeze and hang hosts for long within so short a round.
const SHORT_SEED: u64 = 189;
/// A round has at least one mount in this time on average: a hold of half a minute, a wait of up to 24 s and a boot lie between two of them.
const MOUNT: Duration = Duration::from_secs(120);
/// Within this somebody is in after both have booted, and nothing has been done to them.
const FIRST_MOUNT: Duration = Duration::from_secs(240);
/// How long hosts may take to leave after a round.
const LEAVING: Duration = Duration::from_secs(240);

/// How the hosts of one round are.
#[derive(Clone, Copy)]
struct Plan {
    guarded: Guarded,
    kind: Kind,
    /// For the command that mounts.
    arguments: &'static str,
}

/// What one soak came to.
#[derive(Default)]
struct Tally {
    mounts: usize,
    refused: usize,
    failed: usize,
    lost: usize,
    reboots: usize,
    faults: usize,
    turns: usize,
    files: usize,
    queued: usize,
}

/// One round of ext4, one of XFS.
fn short(book: &Book) -> Outcome<()> {
    rounds(book, "soak, two short rounds", SHORT_ROUND, SHORT_ROUND * 2, SHORT_SEED)
}

fn chosen(book: &Book) -> Outcome<()> {
    let minutes = std::env::var("MMPGUARD_LAB_MINUTES").map_or(Ok(20), |text| text.parse::<u64>());
    let minutes = minutes.map_err(|_| "MMPGUARD_LAB_MINUTES is no number".to_owned())?;
    let first = std::env::var("MMPGUARD_LAB_SEED").ok().and_then(|text| text.parse().ok());
    let first = first.unwrap_or_else(|| fastrand::u64(1..1_000_000));
    rounds(book, "soak, as long as asked for", ROUND, Duration::from_secs(minutes * 60), first)
}

/// Round after round, each with a seed of its own, until there has been so much of it.
fn rounds(book: &Book, title: &str, each: Duration, length: Duration, first: u64) -> Outcome<()> {
    let promise = book.promise(
        &format!("{title}: crash, hang, pause, freeze, lost path, race at random"),
        Guarded::Mmp,
        "no moment with two writers or two holders; who is not in writes a claim at most; no loss, reboot or failed mount without a \
         fault of the host's own that may cause it; every durable file whole, generations grow, checks clean. No hangs of 6 to 12 s, no pauses \
         over 8 s; what was queued at a hang, and written within a second of its end, excepted",
    );
    let (begun, mut tally, mut seed, mut left) = (clock::mono(), Tally::default(), first, length);
    loop {
        println!("lab: {title}: seed {seed}");
        let now = left.min(each);
        left -= now;
        let ended = round(seed, now, &mut tally).map_err(|error| format!("seed {seed}: {error}"));
        if ended.is_err() || left < Duration::from_secs(30) {
            let minutes = clock::mono().since(begun).as_secs_f64() / 60.0;
            let found = ended.as_ref().err().map_or("nothing found", |error| error.as_str());
            let words = format!("seeds {first} to {seed}, {minutes:.0} minutes: {}; {found}", tally.words());
            return promise.judge(ended.is_ok(), &words);
        }
        seed += 1;
    }
}

impl Tally {
    fn add(&mut self, history: &History) {
        self.mounts += history.mounts();
        self.refused += history.refused;
        self.failed += history.count(Loss::MountFailed);
        self.lost += history.count(Loss::Lost);
        self.reboots += history.count(Loss::Rebooted);
    }

    fn words(&self) -> String {
        let Tally { mounts, refused, failed, lost, reboots, faults, turns, files, queued } = self;
        format!(
            "{faults} faults, {mounts} mounts, {refused} refusals, {failed} mounts with I/O errors, {lost} losses in a mount, {reboots} \
             reboots of their own, {turns} turns of writing, {files} files; {queued} writes queued before a hang came after it"
        )
    }
}

/// Areas and native blocks in turn, and both ways to hand a native one over.
fn plan(seed: u64) -> Plan {
    let (kind, arguments) = match seed % 3 {
        0 => (Kind::Ext4, "--quiet"),
        1 => (Kind::Xfs, "--quiet"),
        _ => (Kind::Ext4, "--quiet --handover clean"),
    };
    Plan { guarded: Guarded::Mmp, kind, arguments }
}

fn round(seed: u64, length: Duration, tally: &mut Tally) -> Outcome<()> {
    let lab = Lab::new()?;
    round_of(&lab, seed, length, tally).map_err(|error| {
        lab.tell(&error);
        format!("{error} (what happened is in {})", lab.keep_told(&format!("soak-{seed}.log")).display())
    })
}

fn round_of(lab: &Lab, seed: u64, length: Duration, tally: &mut Tally) -> Outcome<()> {
    let plan = plan(seed);
    let disk = lab.disk("shared0", 1024)?;
    match plan.kind {
        Kind::Ext4 => disk.make_ext4()?,
        Kind::Xfs => disk.make_xfs_with_area()?,
    }
    // One for each, or who steps first would change what the others draw.
    let mut random = fastrand::Rng::with_seed(seed);
    let [of_faults, of_alpha, of_beta] = [random.fork(), random.fork(), random.fork()];
    let mut hosts =
        [Host::new(lab, "alpha", &disk, plan, of_alpha)?, Host::new(lab, "beta", &disk, plan, of_beta)?];
    // However slow this machine is, what the faults meet is somebody who has it.
    let patience = clock::mono() + FIRST_MOUNT;
    while !hosts.iter().any(|host| matches!(host.doing, Doing::Mounted(..))) {
        step(lab, &mut hosts)?;
        if clock::mono() >= patience {
            return Err("nobody ever got in".to_owned());
        }
    }
    let mut faults = Faults::new(of_faults);
    let end = clock::mono() + length;
    while clock::mono() < end {
        step(lab, &mut hosts)?;
        faults.step(lab, &mut hosts)?;
    }
    faults.end(lab, &mut hosts)?;
    tally.faults += faults.count;
    let floor = (length.as_secs() / MOUNT.as_secs()).max(1);
    finish(lab, &disk, plan, hosts, usize::try_from(floor).unwrap_or(1), tally)
}

fn step(lab: &Lab, hosts: &mut [Host; 2]) -> Outcome<()> {
    for host in hosts {
        host.step(lab)?;
    }
    clock::sleep(Duration::from_millis(50));
    Ok(())
}

/// Lets everybody leave, and looks at what they left.
fn finish(
    lab: &Lab,
    disk: &Disk,
    plan: Plan,
    mut hosts: [Host; 2],
    floor: usize,
    tally: &mut Tally,
) -> Outcome<()> {
    leave(lab, &mut hosts)?;
    let [alpha, beta] = hosts.each_ref().map(Host::history);
    let (alpha, beta) = (alpha?, beta?);
    tally.add(&alpha);
    tally.add(&beta);
    let checked = check::all([&alpha, &beta], disk.protection()?)?;
    tally.turns += checked.turns;
    tally.queued += checked.queued;
    if plan.kind == Kind::Xfs {
        check::generations_grow(&[&alpha, &beta])?;
        check::stamps_agree([&alpha, &beta])?;
    }
    let mounts = alpha.mounts() + beta.mounts();
    if mounts < floor {
        return Err(format!("only {mounts} mounts, where at least {floor} must be"));
    }
    let durable = [alpha.durable, beta.durable].concat();
    let verdict = inspect(hosts[0].vm()?, disk, plan.kind, &durable)?;
    tally.files += verdict.good;
    if verdict.is_whole() { Ok(()) } else { Err(format!("{}; {verdict:?}", verdict.words())) }
}

fn leave(lab: &Lab, hosts: &mut [Host; 2]) -> Outcome<()> {
    let until = clock::mono() + LEAVING;
    loop {
        let [alpha, beta] = hosts.each_mut().map(|host| host.leaves(lab));
        if alpha? && beta? {
            return hosts.iter().try_for_each(Host::clear);
        }
        if clock::mono() >= until {
            return Err("somebody does not leave".to_owned());
        }
        clock::sleep(Duration::from_millis(50));
    }
}
