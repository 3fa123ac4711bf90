//! An XFS with an area behind it: what kernels do with it, and what `mmp` does. No kernel has ever heard of the area, so
//! here everything is `mmp`'s own.

use std::time::Duration;

use mmpguard::clock;

use crate::book::{Book, Guarded};
use crate::harness::{Disk, Lab, Outcome, Span, Spec, Vm, seconds, turns};
use crate::scenarios::life;
use crate::scenarios::paths::told;
use crate::scenarios::stage::{BUSY_SECONDS, CRASHED_AREA_WAITS, Kind, Pair, Writer, inspect};
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "xfs_life_mmp", set: Set::Short, run: life_between_two },
    Scenario { name: "xfs_twice_kernel", set: Set::Long, run: mounted_twice },
    Scenario { name: "xfs_hang_kernel", set: Set::Long, run: |book| hang(book, Guarded::Kernel) },
    Scenario { name: "xfs_hang_mmp", set: Set::Long, run: |book| hang(book, Guarded::Mmp) },
];

/// Why a scenario fails in which two kernels used one disk unharmed.
pub(crate) const NOTHING_SHOWN: &str =
    "two kernels wrote to one XFS for 15 s, and it is whole: nothing was shown";
/// What the kernel alone promises here.
pub(crate) const NOTHING: &str = "nothing";
/// Room for the smallest XFS, and for the area behind it.
pub(crate) const DISK_MEBIBYTES: u64 = 320;
/// How long a host may write on that wakes after its lease: its keeper has to be run first.
const AWAKE_SECONDS: f64 = 2.0;

/// An XFS that is shorter than its disk, and, if `mmp` is to guard it, an area in what is left.
pub(crate) fn make_xfs(disk: &Disk, guarded: Guarded) -> Outcome<()> {
    if guarded == Guarded::Kernel { disk.make_xfs() } else { disk.make_xfs_with_area() }
}

/// Nothing in these machines loads a filesystem's module when it is asked for.
pub(crate) fn load_xfs(vms: &[&Vm]) -> Outcome<()> {
    vms.iter().try_for_each(|vm| vm.must("modprobe xfs").map(drop))
}

fn pair(guarded: Guarded) -> Outcome<Pair> {
    let lab = Lab::new()?;
    let disk = lab.disk("shared0", DISK_MEBIBYTES)?;
    make_xfs(&disk, guarded)?;
    let [a, b] = Vm::boot_all(&lab, [Spec::new("alpha", &[&disk]), Spec::new("beta", &[&disk])])?;
    load_xfs(&[&a, &b])?;
    Ok(Pair { lab, disk, a, b })
}

fn life_between_two(book: &Book) -> Outcome<()> {
    let Pair { lab, disk, a, b } = pair(Guarded::Mmp)?;
    let title = "XFS with a tail area: its life";
    let promise = book.promise(title, Guarded::Mmp, &life::promise(Kind::Xfs));
    let life = life::live(Kind::Xfs, &disk.node(), &a, b)?;
    // Only to read what its emulators saw.
    let b = Vm::power_on(&lab, life.crashed.clone())?;
    let pair = Pair { lab, disk, a, b };
    let hosts: Vec<_> = pair.turns()?.into_iter().map(|turn| turn.host).collect();
    let end = pair.inspect(Kind::Xfs, &life.durable)?;
    let kept = life.kept(&end) && hosts == ["alpha", "beta", "alpha"];
    promise.judge(kept, &format!("{}; writers in turn: {}", life.words(&end), hosts.join(", ")))
}

/// Both hosts mount the disk plainly, write for a while, and unmount. How long the second mount took, and what was durable.
pub(crate) fn write_on_both(a: &Vm, b: &Vm, node: &str) -> Outcome<(f64, Vec<String>)> {
    let mount = Guarded::Kernel.mount(node);
    a.must(&mount)?;
    let mut first = Writer::start(a, 1, Duration::from_millis(50))?;
    first.wait_for(5, Duration::from_secs(30))?;
    let second = b.run(&mount)?;
    if !second.ok() {
        return Err(format!("the second mount was refused: {}", second.said()));
    }
    let other = Writer::start(b, 1, Duration::from_millis(50))?;
    clock::sleep(Duration::from_secs(15));
    let mut durable = first.stop(a)?;
    durable.extend(other.stop(b)?);
    for vm in [a, b] {
        vm.run(&Guarded::Kernel.umount())?;
    }
    Ok((second.seconds, durable))
}

/// Nothing keeps a second kernel from an XFS that is mounted elsewhere.
fn mounted_twice(book: &Book) -> Outcome<()> {
    let pair = pair(Guarded::Kernel)?;
    let promise =
        book.promise("XFS mounted twice", Guarded::Kernel, "nothing: it is mounted twice, and destroyed");
    let (seconds, durable) = write_on_both(&pair.a, &pair.b, &pair.disk.node())?;
    let (first, other) = (pair.a.writes(&pair.disk)?, pair.b.writes(&pair.disk)?);
    // Nothing protects it.
    let turns = turns(&[("alpha", &first), ("beta", &other)], Span { offset: 0, bytes: 0 }).len();
    let end = pair.inspect(Kind::Xfs, &durable)?;
    if end.is_whole() {
        return Err(NOTHING_SHOWN.to_owned());
    }
    let words = format!("in after {seconds:.1} s, {turns} turns of writing; {}", end.words());
    promise.measured(&words);
    Ok(())
}

/// A host hangs for 26 s; the other takes over meanwhile.
fn hang(book: &Book, guarded: Guarded) -> Outcome<()> {
    let pair = pair(guarded)?;
    let promised = if guarded == Guarded::Kernel {
        "nothing: it writes on".to_owned()
    } else {
        format!(
            "the successor in {}, and stays; the sleeper is cut off, and writes for {AWAKE_SECONDS} s at most when it wakes",
            CRASHED_AREA_WAITS.words(BUSY_SECONDS)
        )
    };
    let promise = book.promise("XFS, a host that hung 26 s", guarded, &promised);
    let mount = guarded.mount(&pair.disk.node());
    pair.a.must(&mount)?;
    let mut writer = Writer::start(&pair.a, 1, Duration::from_millis(100))?;
    writer.wait_for(10, Duration::from_secs(30))?;
    pair.a.hang()?;
    let hung = clock::mono();
    let mut durable = writer.durable();
    let taken = pair.b.run(&mount)?;
    if !taken.ok() {
        return Err(format!("nobody took over: {}", taken.said()));
    }
    let mut successor = Writer::start(&pair.b, 1, Duration::from_millis(100))?;
    clock::sleep(Duration::from_secs(26).saturating_sub(clock::mono().since(hung)));
    let woke = seconds();
    pair.a.resume()?;
    clock::sleep(Duration::from_secs(30));
    if guarded == Guarded::Mmp {
        let before = successor.durable().len();
        successor.wait_for(before + 10, Duration::from_secs(30))?;
    }
    let fate = fate(&pair.a)?;
    durable.extend(successor.stop(&pair.b)?);
    let left = pair.b.run(&guarded.umount())?;
    let late: Vec<f64> =
        pair.a.writes(&pair.disk)?.iter().map(|write| write.at - woke).filter(|at| *at > 0.0).collect();
    let last = late.iter().copied().fold(0.0, f64::max);
    let end = inspect(&pair.b, &pair.disk, Kind::Xfs, &durable)?;
    let words = format!(
        "taken over after {:.1} s; {} writes of the first when it woke, the last after {last:.2} s; {fate}; {}",
        taken.seconds,
        late.len(),
        end.words()
    );
    if guarded == Guarded::Kernel {
        if last <= AWAKE_SECONDS {
            return Err(format!("the kernel alone was to write on: {words}"));
        }
        promise.measured(&words);
        return Ok(());
    }
    let waited = CRASHED_AREA_WAITS.are_kept(BUSY_SECONDS, taken.seconds);
    let kept = waited && left.ok() && last <= AWAKE_SECONDS && is_cut_off(&fate) && end.is_whole();
    promise.judge(kept, &words)
}

/// What [`fate`] says of a host that is guarded as if nothing had happened.
pub(crate) const STILL_THERE: &str = "it went on";
const REBOOTED: &str = "it was rebooted";

/// Whether what [`fate`] says is a fence that was done.
pub(crate) fn is_cut_off(fate: &str) -> bool {
    fate == REBOOTED || fate.contains("it was cut off by")
}

/// What became of a host that may have lost its protection: how it was cut off, or what its guard does.
pub(crate) fn fate(vm: &Vm) -> Outcome<String> {
    if vm.boots() > 1 {
        return Ok(REBOOTED.to_owned());
    }
    let status = vm.run("mmp status")?;
    let lost = status.stdout.lines().find_map(|line| line.trim().strip_prefix("lost "));
    if let Some(lost) = lost {
        return Ok(format!("`{}`", lost.trim()));
    }
    Ok(match told(vm)?.state() {
        "guarding" => STILL_THERE.to_owned(),
        "nothing" => "no guard".to_owned(),
        state => format!("it is {state}"),
    })
}
