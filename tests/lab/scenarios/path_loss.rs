//! One host loses its path to the disk, for a moment and for long (K4, K6), while the other host sees the disk all the time.

use std::time::Duration;

use mmpguard::clock;

use crate::book::{Book, Guarded};
use crate::harness::{Disk, Outcome, Turn, Write, seconds};
use crate::scenarios::paths::{Way, after, told, wait_for_fence};
use crate::scenarios::stage::{BUSY_SECONDS, DIRECTORY, Kind, NATIVE_WAITS, Pair, Writer, inspect};
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "path_8s_suspend_mmp", set: Set::Short, run: |book| short(book, Way::Suspend, MMP) },
    Scenario {
        name: "path_8s_suspend_kernel",
        set: Set::Long,
        run: |book| short(book, Way::Suspend, KERNEL),
    },
    Scenario { name: "path_8s_error_mmp", set: Set::Long, run: |book| short(book, Way::Error, MMP) },
    Scenario { name: "path_8s_error_kernel", set: Set::Long, run: |book| short(book, Way::Error, KERNEL) },
    Scenario { name: "path_8s_offline_mmp", set: Set::Long, run: |book| short(book, Way::Offline, MMP) },
    Scenario {
        name: "path_8s_offline_kernel",
        set: Set::Long,
        run: |book| short(book, Way::Offline, KERNEL),
    },
    Scenario { name: "path_60s_suspend_mmp", set: Set::Long, run: |book| long(book, Way::Suspend, MMP) },
    Scenario {
        name: "path_60s_suspend_kernel",
        set: Set::Long,
        run: |book| long(book, Way::Suspend, KERNEL),
    },
    Scenario { name: "path_60s_error_mmp", set: Set::Long, run: |book| long(book, Way::Error, MMP) },
    Scenario { name: "path_60s_error_kernel", set: Set::Long, run: |book| long(book, Way::Error, KERNEL) },
    Scenario { name: "path_60s_offline_mmp", set: Set::Long, run: |book| long(book, Way::Offline, MMP) },
    Scenario {
        name: "path_60s_offline_kernel",
        set: Set::Long,
        run: |book| long(book, Way::Offline, KERNEL),
    },
];

const MMP: Guarded = Guarded::Mmp;
const KERNEL: Guarded = Guarded::Kernel;
const PAUSE: Duration = Duration::from_millis(150);

/// Two hosts, the first of which can lose its path, has the filesystem mounted and writes.
struct Stage {
    pair: Pair,
    writer: Writer,
}

impl Stage {
    fn set(way: Way, guarded: Guarded) -> Outcome<Stage> {
        let pair = Pair::of(
            Disk::make_ext4,
            |mut spec| {
                if way == Way::Offline {
                    spec = spec.scsi();
                }
                spec
            },
            |spec| spec,
        )?;
        let device = way.prepare(&pair.a, &pair.disk)?;
        pair.a.must(&guarded.mount(&device))?;
        let mut writer = Writer::start(&pair.a, 1, PAUSE)?;
        writer.wait_for(5, Duration::from_secs(60))?;
        Ok(Stage { pair, writer })
    }

    fn mount_on_b(&self, guarded: Guarded) -> String {
        guarded.mount(&self.pair.disk.node())
    }

    fn writes(&self) -> Outcome<(Vec<Write>, Vec<Write>)> {
        Ok((self.pair.a.writes(&self.pair.disk)?, self.pair.b.writes(&self.pair.disk)?))
    }
}

/// 8 s: less than anybody's wait.
fn short(book: &Book, way: Way, guarded: Guarded) -> Outcome<()> {
    let Stage { pair, mut writer } = Stage::set(way, guarded)?;
    let promise = book.promise(
        &format!("path lost for 8 s, {}", way.text()),
        guarded,
        match (guarded, way) {
            (Guarded::Kernel, _) => "nothing: what the kernel does is told",
            (_, Way::Suspend) => "no fence; the other host is refused as in use; writing goes on; nothing is lost, and the block is clean after the unmount",
            _ => "no fence, the block stays held whatever the filesystem made of the errors; the other host is refused as in use; nothing durable is lost",
        },
    );
    way.lose(&pair.a)?;
    let rival = pair.b.start(&guarded.mount(&pair.disk.node()))?;
    clock::sleep(Duration::from_secs(8));
    way.restore(&pair.a, &pair.disk)?;
    let before = writer.durable().len();
    let rival = rival.wait()?;
    clock::sleep(Duration::from_secs(6));
    let state =
        if guarded == Guarded::Mmp { told(&pair.a)?.state().to_owned() } else { "no guard".to_owned() };
    let (rebooted, turns) = (pair.a.boots() > 1, pair.turns()?);
    let durable = writer.stop(&pair.a)?;
    let written = durable.len() - before;
    if rival.ok() {
        pair.b.run(&guarded.umount())?;
    }
    let left = pair.a.run(&guarded.umount())?;
    let verdict = inspect(&pair.b, &pair.disk, Kind::Ext4, &durable)?;
    let words = format!(
        "the other host {} after {:.1} s; {written} files written afterwards; {state}{}; unmounted with exit status {}; turns {}; {}",
        match rival.code {
            0 => "let in".to_owned(),
            1 => "refused".to_owned(),
            // Of mount(8), which has no other for any failure.
            32 => "not let in".to_owned(),
            code => format!("failed with exit status {code}"),
        },
        rival.seconds,
        if rebooted { ", rebooted" } else { "" },
        left.code,
        hosts(&turns),
        verdict.words_and_block()
    );
    if guarded == Guarded::Kernel {
        promise.measured(&words);
        return Ok(());
    }
    let went_on = way != Way::Suspend || written > 0;
    // After errors the unmount may fail, and what becomes of the block then is not promised.
    let left_well = way != Way::Suspend || left.ok() && verdict.left_clean;
    let kept = rival.code == 1
        && left_well
        && state == "guarding"
        && !rebooted
        && went_on
        && turns.len() == 1
        && verdict.lost.is_empty()
        && verdict.is_whole();
    promise.judge(kept, &words)
}

/// 60 s: another host has it meanwhile.
fn long(book: &Book, way: Way, guarded: Guarded) -> Outcome<()> {
    let mut stage = Stage::set(way, guarded)?;
    let promise = book.promise(
        &format!("path lost for 60 s, {}", way.text()),
        guarded,
        &if guarded == Guarded::Kernel {
            "nothing: what the kernel does is told".to_owned()
        } else {
            format!(
                "the other host is in {}, and the first has fenced itself before; no write of its reaches the disk after the other one's first, the MMP block included; nothing durable is lost, and the block is clean after the other one's unmount",
                NATIVE_WAITS.words(2.0 * BUSY_SECONDS)
            )
        },
    );
    let (lost, lost_at) = (clock::mono(), seconds());
    way.lose(&stage.pair.a)?;
    clock::sleep(Duration::from_secs(2));
    let entering = stage.pair.b.start(&stage.mount_on_b(guarded))?;
    let asked_after = entering.begun.since(lost).as_secs_f64();
    let fence = if guarded == Guarded::Mmp {
        let (at, by) = wait_for_fence(&stage.pair.a, Duration::from_secs(50))?;
        Some((by, at - lost_at))
    } else {
        None
    };
    let entered = entering.wait()?;
    if !entered.ok() {
        return Err(format!("the other host is not let in: {}", entered.said()));
    }
    let entered_after = asked_after + entered.seconds;
    let mut other = Writer::start(&stage.pair.b, 2, PAUSE)?;
    clock::sleep_until(lost + Duration::from_secs(60));
    way.restore(&stage.pair.a, &stage.pair.disk)?;
    clock::sleep(Duration::from_secs(10));
    // Whatever is dirty there comes out now, if it can.
    stage.pair.a.run("(timeout 20 sync) >/dev/null 2>&1 &")?;
    clock::sleep(Duration::from_secs(10));
    other.wait_for(5, Duration::from_secs(30))?;
    let reading = stage.writes()?;
    let mut durable = stage.writer.durable();
    durable.extend(other.stop(&stage.pair.b)?);
    let b_still = stage.pair.b.run(&guarded.umount())?.code;
    if guarded == Guarded::Kernel {
        stage.pair.a.run(&format!("umount {DIRECTORY}; umount -l {DIRECTORY}"))?;
    }
    judge(promise, &stage, &reading, &durable, (fence, entered_after, entered.seconds, b_still))
}

/// By the emulators' traces, and by what is on the disk.
fn judge(
    promise: crate::book::Promise<'_>,
    stage: &Stage,
    (of_a, of_b): &(Vec<Write>, Vec<Write>),
    durable: &[String],
    (fence, entered_after, waited_seconds, left): (Option<(String, f64)>, f64, f64, i32),
) -> Outcome<()> {
    let protection = stage.pair.disk.protection()?;
    let outside = |writes: &[Write]| writes.iter().filter(|write| !write.inside(protection)).count();
    let first = of_b.iter().find(|write| !write.inside(protection)).ok_or("the other host wrote nothing")?.at;
    let late = after(of_a, first);
    let verdict = inspect(&stage.pair.b, &stage.pair.disk, Kind::Ext4, durable)?;
    let fenced = match &fence {
        Some((by, seconds)) => format!("fenced by {by}, known {seconds:.1} s after the loss; "),
        None => String::new(),
    };
    let words = format!(
        "{fenced}the other host in after {entered_after:.1} s, {waited_seconds:.1} s after it asked, and left with exit status {left}; {} writes of the loser after that one's first, {} of them outside the MMP block; {}",
        late.len(),
        outside(&late),
        verdict.words_and_block()
    );
    let Some((by, seconds)) = fence else {
        promise.measured(&words);
        return Ok(());
    };
    // A reboot may be heard of late, by the next boot's first words: for it the trace alone tells.
    let in_time = by == "reboot" || seconds < entered_after;
    let waited = NATIVE_WAITS.are_kept(2.0 * BUSY_SECONDS, waited_seconds);
    let kept = waited && in_time && late.is_empty() && left == 0 && verdict.is_whole_and_left();
    promise.judge(kept, &words)
}

/// Who had turns, in their order.
fn hosts(turns: &[Turn]) -> String {
    turns.iter().map(|turn| turn.host.as_str()).collect::<Vec<_>>().join(", ")
}
