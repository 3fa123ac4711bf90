//! What a losing ext4 does to the winner: a filesystem that is shut down marks the block clean, whoever holds it, and its dirty
//! blocks follow. The kernel alone; a real fence, which leaves nothing of it; and what the winner does where the fence was
//! allowed to be none.

use std::time::Duration;

use mmpguard::clock;

use crate::book::{Book, Guarded};
use crate::harness::{Outcome, seconds};
use crate::scenarios::paths::{after, clean_marks, told, wait_for_fence};
use crate::scenarios::stage::{DIRECTORY, Kind, Pair, Writer, inspect};
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "clean_mark_kernel", set: Set::Long, run: kernel },
    Scenario { name: "clean_mark_auto_mmp", set: Set::Long, run: |book| loser(book, Ladder::Auto) },
    Scenario { name: "clean_mark_shutdown_mmp", set: Set::Long, run: |book| loser(book, Ladder::Shutdown) },
];

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than dirty blocks stay in memory.
const WATCHED: Duration = Duration::from_secs(45);
/// The block is looked at every 200 ms after a takeover; the rest is the machines' own slowness.
const BEATEN_OVER_SECONDS: f64 = 1.0;
/// Metadata that is dirty in the block device's cache: groups, bitmaps and directories.
const DIRTY: &str = "for n in $(seq 400); do mkdir /mnt/a/directory$n; done";

/// What the loser's guard has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ladder {
    /// As it is: after so long a hang there is no time for anything but the reboot.
    Auto,
    /// Allowed in so many words, and no fence on ext4.
    Shutdown,
}

/// The kernel alone: a plain shutdown, then a plain mount elsewhere.
fn kernel(book: &Book) -> Outcome<()> {
    let pair = Pair::ext4()?;
    let mount = Guarded::Kernel.mount(&pair.disk.node());
    pair.a.must(&mount)?;
    let mut writer = Writer::start(&pair.a, 1, Duration::from_millis(100))?;
    writer.wait_for(5, PATIENCE)?;
    pair.a.must(DIRTY)?;
    let promise = book.promise(
        "ext4 shut down (ATTACK 1)",
        Guarded::Kernel,
        "nothing: how soon the block says clean, and what is written afterwards, is told",
    );
    let sampler = pair.disk.sampler();
    let (begun, at) = (clock::mono(), seconds());
    pair.a.must(&format!("xfs_io -x -c shutdown {DIRECTORY}"))?;
    let until = begun + Duration::from_secs(10);
    while clean_marks(&sampler.since(begun), clock::mono()).is_empty() && clock::mono() < until {
        clock::sleep(Duration::from_millis(20));
    }
    let clean_ms = clock::mono().since(begun).as_millis();
    let durable = writer.durable();
    let entered = pair.b.run(&mount)?;
    let entered_at = seconds();
    clock::sleep(WATCHED);
    pair.a.run("umount /mnt/a")?;
    clock::sleep(Duration::from_secs(1));
    let protection = pair.disk.protection()?;
    let of_a = pair.a.writes(&pair.disk)?;
    let late = |from: f64| after(&of_a, from).iter().filter(|write| !write.inside(protection)).count();
    let (in_all, beside) = (late(at), late(entered_at));
    if entered.ok() {
        pair.b.run(&Guarded::Kernel.umount())?;
    }
    let mut verdict = inspect(&pair.b, &pair.disk, Kind::Ext4, &durable)?;
    verdict.bad.retain(|name| !name.starts_with("directory"));
    promise.measured(&format!(
        "clean after {clean_ms} ms; a plain mount elsewhere {} after {:.2} s; {in_all} writes of the stopped filesystem follow, {beside} of them beside the new holder; {}",
        if entered.ok() { "gets in" } else { "is refused" },
        entered.seconds,
        verdict.words()
    ));
    Ok(())
}

/// A host hangs until another has taken over, and goes on: its guard fences it.
fn loser(book: &Book, ladder: Ladder) -> Outcome<()> {
    let pair = Pair::ext4()?;
    let arguments = if ladder == Ladder::Auto { "" } else { "--incomplete-fence --on-loss shutdown" };
    pair.a.must(&Guarded::Mmp.mount_with(arguments, &pair.disk.node()))?;
    let mut writer = Writer::start(&pair.a, 1, Duration::from_millis(100))?;
    writer.wait_for(5, PATIENCE)?;
    pair.a.must(DIRTY)?;
    let (title, promised) = promise_of(ladder);
    let promise = book.promise(title, Guarded::Mmp, &promised);
    pair.a.hang()?;
    clock::sleep(Duration::from_secs(1));
    let mut durable = writer.durable();
    pair.b.must(&Guarded::Mmp.mount(&pair.disk.node()))?;
    let mut other = Writer::start(&pair.b, 2, Duration::from_millis(100))?;
    other.wait_for(5, PATIENCE)?;
    let sampler = pair.disk.sampler();
    let (resumed, resumed_at) = (clock::mono(), seconds());
    pair.a.resume()?;
    let (done, by) = wait_for_fence(&pair.a, PATIENCE)?;
    let fenced_ms = (done - resumed_at) * 1e3;
    clock::sleep(WATCHED);
    let marks = clean_marks(&sampler.since(resumed), clock::mono());
    drop(sampler);
    let writes = pair.a.writes(&pair.disk)?;
    let late = after(&writes, done).len();
    let under_way = after(&writes, resumed_at);
    let last_ms = under_way.last().map_or(0.0, |write| (write.at - resumed_at) * 1e3);
    let holds = told(&pair.b)?.state().to_owned();
    durable.extend(other.stop(&pair.b)?);
    let left = pair.b.run(&Guarded::Mmp.umount())?;
    let mut verdict = inspect(&pair.b, &pair.disk, Kind::Ext4, &durable)?;
    verdict.bad.retain(|name| !name.starts_with("directory"));
    let longest = marks.iter().copied().fold(0.0, f64::max);
    let words = format!(
        "fence known to be over by {by} {fenced_ms:.0} ms after the hang; {} clean marks, the longest stood {longest:.2} s; {} writes of the loser since it went on, the last after {last_ms:.0} ms, {late} of them from when the fence was known on; the winner: {holds}, and left with exit status {}; {}",
        marks.len(),
        under_way.len(),
        left.code,
        verdict.words_and_block()
    );
    let holds_on = holds == "guarding" && left.ok() && verdict.left_clean;
    let kept = match ladder {
        // What its cache writes is not promised: the words for it are --incomplete-fence.
        Ladder::Shutdown => holds_on && !marks.is_empty() && longest <= BEATEN_OVER_SECONDS,
        // Nor is what was under way when it hung, until its guard runs again.
        Ladder::Auto => holds_on && marks.is_empty() && late == 0,
    };
    promise.judge(kept, &words)
}

fn promise_of(ladder: Ladder) -> (&'static str, String) {
    match ladder {
        Ladder::Auto => (
            "loser fenced after a hang",
            "no clean mark of the loser, 0 writes once its fence is known to be done, the winner holds on, and leaves the block clean; what was under way when it hung is not promised".to_owned(),
        ),
        Ladder::Shutdown => (
            "loser with --incomplete-fence --on-loss shutdown",
            format!(
                "its clean mark is beaten over within {BEATEN_OVER_SECONDS} s, the winner holds on, and leaves the block clean; what the loser writes besides is not promised"
            ),
        ),
    }
}
