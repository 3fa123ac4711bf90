//! K4: a holder stands still for longer than his peer waits, and goes on. Either his clock has run on meanwhile (he hung), or
//! it stood still, too (a paused virtual machine). His peer has taken over, and writes.

use std::time::Duration;

use mmpguard::clock;

use crate::book::{Book, Guarded};
use crate::harness::{Disk, Lab, Outcome, Vm, seconds};
use crate::scenarios::race;
use crate::scenarios::side::{Mapping, Side};
use crate::scenarios::stage::{Verdict, Writer};
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "stall_hang_kernel", set: Set::Long, run: |book| kernel(book, Stall::Hang) },
    Scenario { name: "stall_pause_kernel", set: Set::Long, run: |book| kernel(book, Stall::Pause) },
    Scenario { name: "stall_hang_mmp", set: Set::Short, run: |book| mmp(book, Stall::Hang, Ladder::Auto) },
    Scenario { name: "stall_hang_mmp_cut", set: Set::Long, run: |book| mmp(book, Stall::Hang, Ladder::Cut) },
    Scenario { name: "stall_pause_mmp", set: Set::Long, run: |book| mmp(book, Stall::Pause, Ladder::Auto) },
    Scenario {
        name: "stall_pause_mmp_cut",
        set: Set::Long,
        run: |book| mmp(book, Stall::Pause, Ladder::Cut),
    },
];

/// Samples of one stall: every disk of the host is stalled with it.
const DISKS: usize = 3;
/// At least. The takeover takes 22 s.
const STALLED: Duration = Duration::from_secs(26);
const PATIENCE: Duration = Duration::from_secs(120);
/// How soon a host that hung has cut itself off: its keeper has to run, on an emulated processor.
const CUT_WITHIN_S: f64 = 3.0;
/// How long two may use a device whose first user's clock stood still: `timing::double_use` of a second.
const DOUBLE_USE_S: f64 = 27.5;

/// How a host stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stall {
    /// Its clock runs on.
    Hang,
    /// Its clock stands still.
    Pause,
}

/// What the hosts do when they lose their protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ladder {
    /// What a virtio disk has: in the end a reboot.
    Auto,
    /// An error table.
    Cut,
}

/// What happened on one disk after the sleeper went on.
struct Fate {
    sleeper_writes: usize,
    /// The last of them, in seconds since he went on.
    sleeper_until_s: f64,
    /// For how long both wrote.
    both_until_s: f64,
    sleeper_stays: bool,
    successor_stays: bool,
    /// Hosts that have rebooted themselves: the sleeper, the successor.
    rebooted: [bool; 2],
    damage: Option<String>,
    /// Durable files that are lost, of the sleeper and of the successor.
    lost: [usize; 2],
}

impl Stall {
    pub(crate) fn begin(self, vm: &Vm) -> Outcome<()> {
        if self == Stall::Hang { vm.hang() } else { vm.pause() }
    }

    pub(crate) fn end(self, vm: &Vm) -> Outcome<()> {
        if self == Stall::Hang { vm.resume() } else { vm.unpause() }
    }

    pub(crate) fn words(self) -> &'static str {
        if self == Stall::Hang { "hangs (its clock runs)" } else { "is paused (its clock stands still)" }
    }
}

fn kernel(book: &Book, how: Stall) -> Outcome<()> {
    let promise =
        book.promise(&title(how), Guarded::Kernel, "nothing: both write on for ever, and neither notices");
    let fates = stall(Guarded::Kernel, how, Ladder::Auto, Duration::from_secs(20))?;
    let shown =
        fates.iter().all(|fate| fate.both_until_s > 15.0) && fates.iter().any(|fate| fate.damage.is_some());
    promise.judge(shown, &words(&fates))
}

fn mmp(book: &Book, how: Stall, ladder: Ladder) -> Outcome<()> {
    let title = if ladder == Ladder::Cut { title(how) + ", with a device mapper" } else { title(how) };
    let promised = if how == Stall::Hang {
        format!(
            "the sleeper cuts itself off within {CUT_WITHIN_S} s, and the successor stays (what was under way before that is not promised)"
        )
    } else {
        format!(
            "both use it for {DOUBLE_USE_S} s at most, then one at most (which one, and what both wrote until then, is not promised)"
        )
    };
    let promise = book.promise(&title, Guarded::Mmp, &promised);
    let observed = if how == Stall::Hang { 5.0 * CUT_WITHIN_S } else { DOUBLE_USE_S + 12.5 };
    let fates = stall(Guarded::Mmp, how, ladder, Duration::from_secs_f64(observed))?;
    let kept = fates.iter().all(|fate| match how {
        Stall::Hang => fate.sleeper_until_s <= CUT_WITHIN_S && !fate.sleeper_stays && fate.successor_stays,
        Stall::Pause => fate.both_until_s <= DOUBLE_USE_S && !(fate.sleeper_stays && fate.successor_stays),
    });
    promise.judge(kept, &words(&fates))
}

fn title(how: Stall) -> String {
    format!("K4 the holder {} for 26 s, and goes on beside its successor", how.words())
}

/// All of it. How it went on each disk, so long after the sleeper went on.
fn stall(guarded: Guarded, how: Stall, ladder: Ladder, observed: Duration) -> Outcome<Vec<Fate>> {
    let lab = Lab::new()?;
    let disks: Outcome<Vec<Disk>> =
        (0..DISKS).map(|number| lab.disk(&format!("shared{number}"), 64)).collect();
    let disks = disks?;
    for disk in &disks {
        disk.make_ext4()?;
    }
    let [a, b] = race::hosts(&lab, &disks)?;
    let sleeper = sides(&a, &disks, guarded, ladder)?;
    let successor = sides(&b, &disks, guarded, ladder)?;
    let mut first = mount_and_write(&a, &sleeper)?;
    let stalled = clock::mono();
    how.begin(&a)?;
    let mut second = mount_and_write(&b, &successor)?;
    clock::sleep((stalled + STALLED).since(clock::mono()));
    // What it had promised before it fell asleep is what has to be there.
    let mut durable: Vec<Vec<String>> = first.iter_mut().map(Writer::durable).collect();
    let since_s = seconds();
    how.end(&a)?;
    clock::sleep(observed);
    let sleeper_stays = stay(&a, &sleeper, &mut first)?;
    let successor_stays = stay(&b, &successor, &mut second)?;
    let rebooted = [has_rebooted(&a), has_rebooted(&b)];
    // From here on it writes nothing more, whatever it is.
    a.pause()?;
    for (writer, durable) in second.into_iter().zip(&mut durable) {
        durable.extend(writer.stop(&b).unwrap_or_default());
    }
    for side in &successor {
        b.run(&side.umount())?;
    }
    let boots = b.boots();
    b.reset()?;
    b.wait_for_boot(boots + 1)?;
    let mut fates = Vec::new();
    for (at, disk) in disks.iter().enumerate() {
        let [by_sleeper, by_successor] =
            [sleeper[at].writes_since(since_s)?, successor[at].writes_since(since_s)?];
        let last = |writes: &[crate::harness::Write]| {
            writes.iter().map(|write| write.at - since_s).fold(0.0, f64::max)
        };
        let verdict = Side::new(&b, disk, Guarded::Kernel).inspect(&durable[at])?;
        fates.push(Fate {
            sleeper_writes: by_sleeper.len(),
            sleeper_until_s: last(&by_sleeper),
            both_until_s: last(&by_sleeper).min(last(&by_successor)),
            sleeper_stays: sleeper_stays[at],
            successor_stays: successor_stays[at],
            rebooted,
            lost: [&a, &b].map(|vm| lost_of(&verdict, &vm.spec.host)),
            damage: (!verdict.is_whole()).then(|| verdict.words()),
        });
    }
    Ok(fates)
}

/// One host's sides.
fn sides<'v>(vm: &'v Vm, disks: &'v [Disk], guarded: Guarded, ladder: Ladder) -> Outcome<Vec<Side<'v>>> {
    let side = |disk| match ladder {
        Ladder::Auto => Ok(Side::new(vm, disk, guarded)),
        Ladder::Cut => Side::new(vm, disk, guarded).arguments("--on-loss dm,reboot").mapped(Mapping::Linear),
    };
    disks.iter().map(side).collect()
}

/// Mounts all of them side by side, and begins to write on each.
fn mount_and_write(vm: &Vm, sides: &[Side<'_>]) -> Outcome<Vec<Writer>> {
    let mounting: Outcome<Vec<_>> = sides.iter().map(|side| vm.start(&side.mount())).collect();
    for running in mounting? {
        let ended = running.wait_for(PATIENCE)?;
        if !ended.ok() {
            return Err(format!("{} does not get in: {}", vm.spec.host, ended.said()));
        }
    }
    let mut writers = Vec::new();
    for side in sides {
        let mut writer = side.writer(1)?;
        writer.wait_for(5, Duration::from_secs(60))?;
        writers.push(writer);
    }
    Ok(writers)
}

/// On which of its disks a host goes on: it is guarded there, as it believes, and its writer writes. One that has rebooted
/// goes on nowhere; one that gives no answer and has not is no result.
fn stay(vm: &Vm, sides: &[Side<'_>], writers: &mut [Writer]) -> Outcome<Vec<bool>> {
    let mut stays = Vec::new();
    for (side, writer) in sides.iter().zip(writers) {
        let written = writer.durable().len();
        let goes_on = match side.is_guarded() {
            Ok(guarded) => guarded,
            Err(_) if has_rebooted(vm) => false,
            Err(error) => return Err(error),
        };
        stays.push(goes_on && writer.wait_for(written + 1, Duration::from_secs(5)).is_ok());
    }
    Ok(stays)
}

/// Whether a host has booted again, or begun to: its console tells before its agent does.
fn has_rebooted(vm: &Vm) -> bool {
    let log = vm.kernel_log();
    vm.boots() > 1 || log.contains("sysrq: Resetting") || log.matches("Linux version").count() > 1
}

/// How many of a host's durable files are lost: a stamp begins with its host's name.
fn lost_of(verdict: &Verdict, host: &str) -> usize {
    verdict.lost.iter().filter(|stamp| stamp.split(' ').next() == Some(host)).count()
}

fn words(fates: &[Fate]) -> String {
    let longest = |of: fn(&Fate) -> f64| fates.iter().map(of).fold(0.0, f64::max);
    let count = |of: fn(&Fate) -> bool| fates.iter().filter(|fate| of(fate)).count();
    let writes: Vec<String> = fates.iter().map(|fate| fate.sleeper_writes.to_string()).collect();
    let damaged = count(|fate| fate.damage.is_some());
    let mut words = format!(
        "{} disks: after it went on the sleeper wrote {} times outside the MMP block, the last one after {:.2} s; both wrote for up to \
         {:.2} s; sleeper stayed on {}, successor on {}; {}; {damaged} filesystems damaged",
        fates.len(),
        writes.join(", "),
        longest(|fate| fate.sleeper_until_s),
        longest(|fate| fate.both_until_s),
        count(|fate| fate.sleeper_stays),
        count(|fate| fate.successor_stays),
        match fates.first().map(|fate| fate.rebooted) {
            Some([true, false]) => "the sleeper rebooted",
            Some([false, true]) => "the successor rebooted",
            Some([true, true]) => "both rebooted",
            _ => "nobody rebooted",
        },
    );
    if let Some(damage) = fates.iter().find_map(|fate| fate.damage.as_ref()) {
        let lost = |at: usize| fates.iter().map(|fate| fate.lost[at]).sum::<usize>();
        words += &format!(
            " ({damage}); durable files lost in all: {} of the sleeper's, {} of the successor's",
            lost(0),
            lost(1)
        );
    }
    words
}
