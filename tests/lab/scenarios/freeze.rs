//! K3: a filesystem that is frozen for 40 s, as a snapshot of the array does, while the other host tries to mount it. A frozen
//! kernel does not beat.

use std::time::Duration;

use mmpguard::clock::{self, Mono};

use crate::book::{Book, Guarded};
use crate::harness::{Ended, Outcome, block::Sample};
use crate::scenarios::side::Side;
use crate::scenarios::stage::{BUSY_SECONDS, Kind, Pair, REFUSAL_SECONDS};
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "freeze_kernel", set: Set::Long, run: kernel },
    Scenario { name: "freeze_mmp", set: Set::Short, run: mmp },
];

/// Longer than a peer waits before he takes over, which is 22 s.
const FROZEN: Duration = Duration::from_secs(40);
/// Before the bridge: a beat that is missed for an interval and a second, seen a look later; less than half of what a peer
/// waits, on a busy machine, too.
const SILENCE: Duration = Duration::from_millis(5000);
/// How long both write once it is thawed.
const AFTERWARDS: Duration = Duration::from_secs(12);
const TITLE: &str = "K3 peer mounts while the filesystem is frozen for 40 s";

/// With the kernel alone the peer gets in, and both write.
fn kernel(book: &Book) -> Outcome<()> {
    let promise = book.promise(
        TITLE,
        Guarded::Kernel,
        "nothing: the peer gets in after 22 s, and both write from the thaw on",
    );
    let pair = Pair::ext4()?;
    let [a, b] = [&pair.a, &pair.b].map(|vm| Side::new(vm, &pair.disk, Guarded::Kernel));
    pair.a.must(&a.mount())?;
    let mut writer = a.writer(1)?;
    writer.wait_for(5, Duration::from_secs(30))?;
    a.freeze(true)?;
    let frozen = clock::mono();
    let got_in = b.try_mount()?;
    if !got_in.ok() {
        return Err(format!("K3 was not shown: the peer was refused: {}", got_in.said()));
    }
    let successor = b.writer(1)?;
    clock::sleep((frozen + FROZEN).since(clock::mono()));
    a.freeze(false)?;
    clock::sleep(AFTERWARDS);
    let mut durable = writer.stop(&pair.a)?;
    durable.extend(successor.stop(&pair.b)?);
    let turns = pair.turns()?.len();
    for side in [&a, &b] {
        // One of the two may find its filesystem so broken that this fails.
        side.vm.run(&side.umount())?;
    }
    let verdict = pair.inspect(Kind::Ext4, &durable)?;
    promise.judge(
        turns > 3 && !verdict.is_whole(),
        &format!(
            "in after {:.1} s; the two wrote in turn {turns} times; {}",
            got_in.seconds,
            verdict.words()
        ),
    )
}

/// With mmp the frozen filesystem is beaten, and nobody gets in, whatever he mounts with.
fn mmp(book: &Book) -> Outcome<()> {
    let promised = format!(
        "never in, each mount by mmp refused as in use within {REFUSAL_SECONDS} s (+{BUSY_SECONDS} s if busy) but the first (one beat is missed before the bridge), \
         a plain one as well; beats all the time; the filesystem whole after the thaw, and the block clean after the unmount"
    );
    let promise = book.promise(TITLE, Guarded::Mmp, &promised);
    let pair = Pair::ext4()?;
    let [a, b] = [&pair.a, &pair.b].map(|vm| Side::new(vm, &pair.disk, Guarded::Mmp));
    let plain = Side::new(&pair.b, &pair.disk, Guarded::Kernel);
    pair.a.must(&a.mount())?;
    let mut writer = a.writer(1)?;
    writer.wait_for(5, Duration::from_secs(30))?;
    let sampler = pair.disk.sampler();
    a.freeze(true)?;
    let frozen = clock::mono();
    let mut by_plain: Vec<(Ended, bool)> = Vec::new();
    let mut by_mmp: Vec<(Ended, bool)> = Vec::new();
    while clock::mono() < frozen + FROZEN {
        for _ in 0..3 {
            by_mmp.push(b.try_refused()?);
            clock::sleep(Duration::from_millis(500));
        }
        by_plain.push(plain.try_refused()?);
    }
    let written = writer.durable().len();
    let beats = sampler.since(frozen);
    a.freeze(false)?;
    writer.wait_for(written + 5, Duration::from_secs(30))?;
    let durable = writer.stop(&pair.a)?;
    a.leave()?;
    let turns = pair.turns()?.len();
    let verdict = pair.inspect(Kind::Ext4, &durable)?;

    let refused = by_mmp.iter().chain(&by_plain).filter(|(_, in_use)| *in_use).count();
    let tries = by_mmp.len() + by_plain.len();
    let longest = by_mmp.iter().skip(1).map(|(ended, _)| ended.seconds).fold(0.0, f64::max);
    let silence = longest_silence(frozen, &beats);
    let kept = refused == tries
        && longest <= REFUSAL_SECONDS + BUSY_SECONDS
        && beats.len() >= 20
        && silence <= SILENCE
        && turns == 1
        && verdict.is_whole_and_left();
    promise.judge(
        kept,
        &format!(
            "{refused} of {tries} refused ({} plain ones); by mmp in {} s; {} beats while frozen, longest silence {:.1} s; {}",
            by_plain.len(),
            by_mmp.iter().map(|(ended, _)| format!("{:.2}", ended.seconds)).collect::<Vec<_>>().join(", "),
            beats.len(),
            silence.as_secs_f64(),
            verdict.words_and_block()
        ),
    )
}

/// Between the freeze and the first change of the block, or between two.
fn longest_silence(frozen: Mono, beats: &[Sample]) -> Duration {
    let times: Vec<Mono> = std::iter::once(frozen).chain(beats.iter().map(|beat| beat.at)).collect();
    times.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or(FROZEN)
}
