//! Two hosts that mount, write, unmount, crash, hang, freeze and lose their disk at random, for as long as is asked for.
//!
//! What is promised: no moment has two writers, as the emulators saw the writes; every file that its writer said to be
//! durable is there and whole; generations of an area only grow; the filesystem is sound.
//!
//! A machine that hangs for longer than its lease has a watchdog here (softdog), which the README tells to have: without one
//! nobody promises what it writes in the moments after it goes on. What its emulator had taken from it before it hung, and
//! begins to write when it goes on, is counted by itself: [`QUEUED_SECONDS`].

pub(super) mod check;
mod faults;
pub(super) mod host;

use std::time::Duration;

use mmpguard::clock;

use self::faults::Faults;
use self::host::Host;
use super::stage::{Kind, inspect};
use crate::book::{Book, Guarded};
use crate::harness::{Disk, Lab, Outcome};
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "soak_short", set: Set::Short, run: |book| rounds(book, Duration::from_secs(100), 1) },
    Scenario { name: "soak_chosen", set: Set::Soak, run: chosen },
];

/// How long a round of a soak is: then the disk is looked at, and the next begins with a new one.
const ROUND: Duration = Duration::from_secs(600);
/// What was on its way when a machine stood still is written within this, before its watchdog has reset it.
const QUEUED_SECONDS: f64 = 1.0;

/// How the hosts of one round are.
#[derive(Clone, Copy)]
struct Plan {
    kind: Kind,
    /// For `mmp mount`.
    arguments: &'static str,
}

/// What one round came to.
#[derive(Default)]
struct Tally {
    mounts: usize,
    refused: usize,
    faults: usize,
    turns: usize,
    files: usize,
    queued: usize,
}

fn chosen(book: &Book) -> Outcome<()> {
    let minutes = std::env::var("MMPGUARD_LAB_MINUTES").map_or(Ok(20), |text| text.parse::<u64>());
    let minutes = minutes.map_err(|_| "MMPGUARD_LAB_MINUTES is no number".to_owned())?;
    let first = std::env::var("MMPGUARD_LAB_SEED").ok().and_then(|text| text.parse().ok());
    rounds(book, Duration::from_secs(minutes * 60), first.unwrap_or_else(|| fastrand::u64(1..1_000_000)))
}

/// Round after round, each with a seed of its own, until the time is over.
fn rounds(book: &Book, length: Duration, first: u64) -> Outcome<()> {
    let promise = book.promise(
        "soak: crash, hang, pause, freeze, lost path, race at random",
        Guarded::Mmp,
        "no moment with two writers, every durable file whole, checks clean",
    );
    let (begun, mut tally, mut seed) = (clock::mono(), Tally::default(), first);
    loop {
        let left = length.saturating_sub(clock::mono().since(begun));
        println!("lab: soak: seed {seed}");
        let ended = round(seed, left.min(ROUND), &mut tally).map_err(|error| format!("seed {seed}: {error}"));
        let over = clock::mono().since(begun) + Duration::from_secs(30) >= length;
        if ended.is_err() || over {
            let Tally { mounts, refused, faults, turns, files, queued } = tally;
            let minutes = clock::mono().since(begun).as_secs_f64() / 60.0;
            let words = format!(
                "seeds {first} to {seed}, {minutes:.0} minutes: {faults} faults, {mounts} mounts, {refused} refusals, {turns} turns of \
                 writing, {files} files; {queued} writes queued before a hang came after it; {}",
                ended.as_ref().err().map_or("nothing found", |error| error.as_str())
            );
            return promise.judge(ended.is_ok(), &words);
        }
        seed += 1;
    }
}

/// Areas and native blocks in turn, and both ways to hand a native one over.
fn plan(seed: u64) -> Plan {
    match seed % 3 {
        0 => Plan { kind: Kind::Ext4, arguments: "" },
        1 => Plan { kind: Kind::Xfs, arguments: "" },
        _ => Plan { kind: Kind::Ext4, arguments: "--handover clean" },
    }
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
    let mut random = fastrand::Rng::with_seed(seed);
    let mut hosts = [Host::new(lab, "alpha", &disk, plan)?, Host::new(lab, "beta", &disk, plan)?];
    let mut faults = Faults::new(&mut random);
    let end = clock::mono() + length;
    while clock::mono() < end {
        for host in &mut hosts {
            host.step(lab, &mut random)?;
        }
        faults.step(lab, &mut hosts, &mut random)?;
        clock::sleep(Duration::from_millis(50));
    }
    faults.end(&mut hosts)?;
    tally.faults += faults.count;
    finish(lab, &disk, plan, hosts, tally)
}

/// Lets everybody leave, and looks at what they left.
fn finish(lab: &Lab, disk: &Disk, plan: Plan, mut hosts: [Host; 2], tally: &mut Tally) -> Outcome<()> {
    for host in &mut hosts {
        host.leave(lab)?;
    }
    let [alpha, beta] = hosts.each_ref().map(Host::history);
    let (alpha, beta) = (alpha?, beta?);
    tally.mounts += alpha.mounts + beta.mounts;
    tally.refused += alpha.refused + beta.refused;
    let protection = disk.protection()?;
    let checked = check::one_writer_at_a_time(&[&alpha, &beta], protection)?;
    tally.turns += checked.turns;
    tally.queued += checked.queued;
    if plan.kind == Kind::Xfs {
        check::generations_grow(&[&alpha, &beta])?;
    }
    if alpha.mounts + beta.mounts == 0 {
        return Err("nobody ever got in".to_owned());
    }
    let durable = [alpha.durable, beta.durable].concat();
    let verdict = inspect(hosts[0].vm()?, disk, plan.kind, &durable)?;
    tally.files += verdict.good;
    if verdict.is_whole() { Ok(()) } else { Err(format!("{}; {verdict:?}", verdict.words())) }
}
