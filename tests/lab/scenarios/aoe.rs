//! An XFS with an area behind it, on a disk that comes over AoE: the one storage network here that has no sessions, so that
//! nothing but the area says who uses it.

use std::time::Duration;

use mmpguard::clock;

use crate::book::{Book, Guarded};
use crate::harness::{Disk, Outcome, Vm};
use crate::scenarios::life;
use crate::scenarios::remote::{Export, HELD_BACK_SECONDS, Remote};
use crate::scenarios::stage::{BUSY_SECONDS, CRASHED_AREA_WAITS, Kind, Writer};
use crate::scenarios::xfs::{
    DISK_MEBIBYTES, NOTHING_SHOWN, STILL_THERE, fate, is_cut_off, load_xfs, make_xfs, write_on_both,
};
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "aoe_xfs_life_mmp", set: Set::Long, run: life_between_two },
    Scenario { name: "aoe_xfs_twice_kernel", set: Set::Long, run: mounted_twice },
    Scenario { name: "aoe_xfs_outage_mmp", set: Set::Long, run: outage },
];

/// What a holder survives, with the 3 s that are left for looks and retries.
const SHORT_OUTAGE: Duration = Duration::from_secs(8);
const LONG_OUTAGE: Duration = Duration::from_secs(60);
/// How long what was on its way when the target hung may take to arrive.
const ARRIVING: Duration = Duration::from_secs(2);
/// How long nothing may be written after that.
const QUIET: Duration = Duration::from_secs(30);

fn remote() -> Outcome<Remote> {
    let prepare = |disk: &Disk| make_xfs(disk, Guarded::Mmp);
    let remote = Remote::new(Export::Aoe, HELD_BACK_SECONDS, DISK_MEBIBYTES, prepare)?;
    load_xfs(&[&remote.target, &remote.a, &remote.b])?;
    Ok(remote)
}

fn life_between_two(book: &Book) -> Outcome<()> {
    let remote = remote()?;
    let promise = book.promise("XFS on AoE: its life", Guarded::Mmp, &life::promise(Kind::Xfs));
    let (life, end) = remote.live(Kind::Xfs)?;
    promise.judge(life.kept(&end), &life.words(&end))
}

/// The kernel alone: a plain mount of what another host has mounted.
fn mounted_twice(book: &Book) -> Outcome<()> {
    let remote = remote()?;
    let promised = "nothing: it is mounted twice, and destroyed";
    let promise = book.promise("XFS on AoE: mounted twice", Guarded::Kernel, promised);
    let (seconds, durable) = write_on_both(&remote.a, &remote.b, Export::Aoe.node())?;
    let end = remote.inspect(Kind::Xfs, &durable)?;
    if end.is_whole() {
        return Err(NOTHING_SHOWN.to_owned());
    }
    promise.measured(&format!("in after {seconds:.1} s; {}", end.words()));
    Ok(())
}

/// The target does not answer: shortly, and for long.
fn outage(book: &Book) -> Outcome<()> {
    let remote = remote()?;
    let promise = book.promise(
        "XFS on AoE: the target is away",
        Guarded::Mmp,
        &format!(
            "8 s: the holder goes on guarded; 60 s: it is cut off, and no block changes, the area included, once the target is back for {} s (until then what \
             the network had stored up may); the other host takes over {}",
            ARRIVING.as_secs(),
            CRASHED_AREA_WAITS.words(BUSY_SECONDS)
        ),
    );
    let node = Export::Aoe.node();
    remote.a.must(&Guarded::Mmp.mount(node))?;
    let mut writer = Writer::start(&remote.a, 1, Duration::from_millis(100))?;
    writer.wait_for(10, Duration::from_secs(30))?;

    away(&remote.target, SHORT_OUTAGE)?;
    let before = writer.durable().len();
    writer.wait_for(before + 20, Duration::from_secs(30))?;
    let short = fate(&remote.a)?;

    remote.target.hang()?;
    clock::sleep(LONG_OUTAGE);
    // Read past the target, which still hangs: whatever is different later came when it went on.
    let hanging = remote.disk.snapshot()?;
    remote.target.resume()?;
    clock::sleep(ARRIVING);
    let arrived = remote.disk.snapshot()?;
    clock::sleep(QUIET);
    let quiet = remote.disk.snapshot()?;
    let area = [remote.disk.protection()?];
    let stored_up = hanging.changed(&arrived, &[]).len();
    let beside_area = hanging.changed(&arrived, &area).len();
    let late = arrived.changed(&quiet, &[]).len();
    let durable = writer.durable();
    let long = fate(&remote.a)?;
    let taken = remote.b.run(&Guarded::Mmp.mount(node))?;
    if !taken.ok() {
        return Err(format!("nobody took over; the first: {long}; {}", taken.said()));
    }
    let mut successor = Writer::start(&remote.b, 1, Duration::from_millis(100))?;
    successor.wait_for(20, Duration::from_secs(30))?;
    let durable = [durable, successor.stop(&remote.b)?].concat();
    remote.b.must(&Guarded::Mmp.umount())?;
    let end = remote.inspect(Kind::Xfs, &durable)?;
    let waited = CRASHED_AREA_WAITS.are_kept(BUSY_SECONDS, taken.seconds);
    let kept = waited && short == STILL_THERE && is_cut_off(&long) && late == 0 && end.is_whole();
    promise.judge(
        kept,
        &format!(
            "8 s: {short}; 60 s: {long}, {stored_up} blocks came in the {} s after the target went on, {beside_area} of them outside the area; \
             {late} in the {} s after these; taken over after {:.1} s; {}",
            ARRIVING.as_secs(),
            QUIET.as_secs(),
            taken.seconds,
            end.words()
        ),
    )
}

/// It hangs for so long.
fn away(target: &Vm, time: Duration) -> Outcome<()> {
    target.hang()?;
    clock::sleep(time);
    target.resume()
}
