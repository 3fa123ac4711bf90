//! An ext4 on a disk that comes over iSCSI: sessions that hold I/O back and come back, and the rung that sets SCSI devices
//! offline, over a real transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use mmpguard::clock;
use mmpguard::format::Name;

use crate::book::{Book, Guarded};
use crate::harness::{Disk, Outcome};
use crate::scenarios::life;
use crate::scenarios::remote::{Export, HELD_BACK_SECONDS, Remote, dirty_kibibytes, make_dirty};
use crate::scenarios::stage::{BUSY_SECONDS, Kind, NATIVE_WAITS, Writer};
use crate::scenarios::xfs::{NOTHING, STILL_THERE, fate, is_cut_off};
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "iscsi_ext4_life_mmp", set: Set::Long, run: life_between_two },
    Scenario { name: "iscsi_queueing_mmp", set: Set::Long, run: queueing },
    Scenario { name: "iscsi_fence_kernel", set: Set::Long, run: |book| fence(book, Guarded::Kernel) },
    Scenario { name: "iscsi_fence_mmp", set: Set::Long, run: |book| fence(book, Guarded::Mmp) },
    Scenario { name: "iscsi_cut_kernel", set: Set::Long, run: |book| cut(book, Guarded::Kernel) },
    Scenario { name: "iscsi_cut_mmp", set: Set::Long, run: |book| cut(book, Guarded::Mmp) },
];

const DISK_MEBIBYTES: u64 = 256;
const NODE: &str = "/dev/sda";
/// What open-iscsi sets if nobody says anything.
const DEFAULT_HELD_BACK_SECONDS: u32 = 120;
/// What a host has in memory when it is cut off.
const DIRTY_MEBIBYTES: u32 = 24;
/// How long a fenced host is watched: longer than a flusher waits.
const WATCHED: Duration = Duration::from_secs(60);

/// The setting that whoever guards the filesystem has: open-iscsi's own, or the one that `mmp` asks for.
fn remote(guarded: Guarded) -> Outcome<Remote> {
    let held_back = if guarded == Guarded::Kernel { DEFAULT_HELD_BACK_SECONDS } else { HELD_BACK_SECONDS };
    Remote::new(Export::Iscsi, held_back, DISK_MEBIBYTES, Disk::make_ext4)
}

fn life_between_two(book: &Book) -> Outcome<()> {
    let remote = remote(Guarded::Mmp)?;
    let promise = book.promise("ext4 on iSCSI: its life", Guarded::Mmp, &life::promise(Kind::Ext4));
    let (life, end) = remote.live(Kind::Ext4)?;
    promise.judge(life.kept(&end), &life.words(&end))
}

/// A session that holds I/O back is found when something is to be mounted on it.
fn queueing(book: &Book) -> Outcome<()> {
    let remote = Remote::new(Export::Iscsi, DEFAULT_HELD_BACK_SECONDS, DISK_MEBIBYTES, Disk::make_ext4)?;
    let promise = book.promise(
        "iSCSI's replacement_timeout",
        Guarded::Mmp,
        "120 s (open-iscsi's own): refused, exit status 7; 15 s: told; 10 s: nothing to tell; the block clean after the last unmount",
    );
    let told = |said: &str| said.contains("iSCSI session") && said.contains("holds I/O back");
    let (mount, umount) = (Guarded::Mmp.mount(NODE), Guarded::Mmp.umount());
    let refused = remote.a.run(&mount)?;
    let still_out = !remote.a.run("grep -q ' /mnt/a ' /proc/mounts")?.ok();
    let mut words = format!("120 s: exit status {} after {:.1} s", refused.code, refused.seconds);
    let mut kept = refused.code == 7 && told(&refused.stderr) && still_out;
    for (seconds, expected) in [(15, true), (10, false)] {
        remote.a.must(&format!("echo {seconds} >/sys/class/iscsi_session/session1/recovery_tmo"))?;
        let ended = remote.a.run(&mount)?;
        let found = told(&ended.stderr);
        words += &format!(
            "; {seconds} s: mounted with exit status {}, {}",
            ended.code,
            if found { "told" } else { "not told" }
        );
        kept &= ended.ok() && found == expected;
        if ended.ok() {
            remote.a.must(&umount)?;
        }
    }
    let end = remote.inspect(Kind::Ext4, &[])?;
    promise.judge(kept && end.is_whole_and_left(), &words)
}

/// Somebody else beats the block of a host that has much to write, and a path to write it on.
fn fence(book: &Book, guarded: Guarded) -> Outcome<()> {
    let remote = remote(guarded)?;
    let words = "cut off by scsi, and 0 blocks of its reach the target in the 60 s from when that is known on; what was durable is there";
    let words = if guarded == Guarded::Kernel { NOTHING } else { words };
    let promise = book.promise("ext4 on iSCSI: the loser has dirty data and its path", guarded, words);
    remote.a.must(&guarded.mount(NODE))?;
    let mut writer = Writer::start(&remote.a, 1, Duration::from_millis(200))?;
    writer.wait_for(10, Duration::from_secs(30))?;
    make_dirty(&remote.a, DIRTY_MEBIBYTES)?.wait()?;
    let dirty = dirty_kibibytes(&remote.a)?;
    if dirty < 1024 * u64::from(DIRTY_MEBIBYTES) / 2 {
        return Err(format!("only {dirty} KiB are left to be written: nothing would be shown"));
    }
    let begun = clock::mono();
    let rival = Rival::start(&remote.disk);
    let mut fate_of_a = STILL_THERE.to_owned();
    while !is_cut_off(&fate_of_a) && clock::mono().since(begun) < Duration::from_secs(30) {
        clock::sleep(Duration::from_millis(500));
        if guarded == Guarded::Mmp {
            fate_of_a = fate(&remote.a)?;
        }
    }
    let noticed = clock::mono().since(begun).as_secs_f64();
    // What was under way has ended before a fence is done; the agent's answer, which comes later, is what is counted from.
    let durable = writer.durable();
    let late = remote.blocks_written_in(WATCHED)?;
    drop(rival);
    let mut words = format!(
        "{dirty} KiB dirty; {fate_of_a} (seen {noticed:.1} s after the other's first beat); {late} blocks written in the 60 s after it"
    );
    if guarded == Guarded::Kernel {
        if late == 0 {
            return Err(format!("the kernel alone was to write on: {words}"));
        }
        promise.measured(&words);
        return Ok(());
    }
    // Never unmounted, synced or flushed: that is the rule after a loss.
    remote.a.reset()?;
    let end = remote.inspect(Kind::Ext4, &durable)?;
    words += &format!("; {}", end.words());
    let by_scsi = is_cut_off(&fate_of_a) && fate_of_a.contains("by \"scsi\"");
    promise.judge(by_scsi && late == 0 && end.is_whole(), &words)
}

/// The network of the holder is cut: shortly, and for long. The other host takes over meanwhile.
fn cut(book: &Book, guarded: Guarded) -> Outcome<()> {
    let remote = remote(guarded)?;
    let words = format!(
        "8 s: it goes on guarded; 60 s: it is cut off and writes nothing when the network is back; the successor in {}, stays, and leaves the block clean",
        NATIVE_WAITS.words(2.0 * BUSY_SECONDS)
    );
    let words = if guarded == Guarded::Kernel { NOTHING } else { &words };
    let promise = book.promise("ext4 on iSCSI: the holder's network is cut", guarded, words);
    let (a, b) = (&remote.a, &remote.b);
    a.must(&guarded.mount(NODE))?;
    let mut writer = Writer::start(a, 1, Duration::from_millis(200))?;
    writer.wait_for(10, Duration::from_secs(30))?;

    a.connect_network(false)?;
    clock::sleep(Duration::from_secs(8));
    a.connect_network(true)?;
    let before = writer.durable().len();
    writer.wait_for(before + 10, Duration::from_secs(60))?;
    let short = fate(a)?;

    a.connect_network(false)?;
    let begun = clock::mono();
    let mut durable = writer.durable();
    let taken = b.run(&guarded.mount(NODE))?;
    if !taken.ok() {
        return Err(format!("nobody took over: {}", taken.said()));
    }
    let mut successor = Writer::start(b, 1, Duration::from_millis(100))?;
    successor.wait_for(20, Duration::from_secs(30))?;
    durable.extend(successor.stop(b)?);
    b.must("sync; sleep 6; sync")?;
    clock::sleep(Duration::from_secs(60).saturating_sub(clock::mono().since(begun)));
    // The successor is silent now: what changes is the first one's doing.
    let before = remote.disk.snapshot()?;
    a.connect_network(true)?;
    clock::sleep(Duration::from_secs(30));
    let late = before.changed(&remote.disk.snapshot()?, &[remote.disk.protection()?]).len();
    let long = fate(a)?;
    let mut successor = Writer::start(b, 2, Duration::from_millis(100))?;
    let went_on = successor.wait_for(20, Duration::from_secs(30)).is_ok();
    durable.extend(successor.stop(b)?);
    let left = b.run(&guarded.umount())?;
    a.reset()?;
    let end = remote.inspect(Kind::Ext4, &durable)?;
    let words = format!(
        "8 s: {short}; 60 s: taken over after {:.1} s, {late} blocks written by the first in the 30 s after it, {long}; {}",
        taken.seconds,
        end.words()
    );
    if guarded == Guarded::Kernel {
        if late == 0 {
            return Err(format!("the kernel alone was to write on: {words}"));
        }
        promise.measured(&words);
        return Ok(());
    }
    let waited = NATIVE_WAITS.are_kept(2.0 * BUSY_SECONDS, taken.seconds);
    let kept = waited
        && short == STILL_THERE
        && is_cut_off(&long)
        && late == 0
        && went_on
        && left.ok()
        && end.is_whole_and_left();
    promise.judge(kept, &words)
}

/// Another host's beats, a second apart, written past every machine: as if one had taken over.
struct Rival {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Rival {
    fn start(disk: &Disk) -> Rival {
        let (raw, stop) = (disk.block(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut block = raw.read();
            // Of two that go on beating the lower name gives way: ours is to be the one.
            block.node = Name::new("zulu");
            block.seq = 0x0100_0000;
            while !stopped.load(SeqCst) {
                block.seq += 1;
                block.time_s = clock::wall().0;
                raw.write(&block);
                clock::sleep(Duration::from_secs(1));
            }
        });
        Rival { stop, thread: Some(thread) }
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}
