//! One filesystem's life between two hosts: refused while it is mounted elsewhere, handed over clean, taken over after a
//! crash; and how long each takes. The same for every disk, near or far.

use std::time::Duration;

use crate::book::Guarded;
use crate::harness::{Ended, Outcome, Spec, Vm};
use crate::scenarios::stage::{
    BUSY_SECONDS, CLEAN_AREA_WAITS, CRASHED_AREA_WAITS, KERNEL_WAITS, Kind, NATIVE_WAITS, REFUSAL_SECONDS,
    Verdict, Waits, Writer,
};

/// What a mount takes beside its waits: programs that start, a log that is replayed, on an emulated machine beside others.
const MOUNT_SECONDS: f64 = 5.0;

/// How often a mount is tried that is to be refused: the slowest counts.
const TRIES: u32 = 5;

/// How it went.
pub(crate) struct Life {
    /// Of every try.
    refused: Vec<Ended>,
    clean: Ended,
    takeover: Ended,
    /// Files that were durable when their writers said so.
    pub(crate) durable: Vec<String>,
    /// What the crashed host would boot from.
    pub(crate) crashed: Spec,
    kind: Kind,
}

/// Runs it: `a` mounts, `b` tries, `a` leaves, `b` mounts and crashes, `a` takes over and leaves.
pub(crate) fn live(kind: Kind, node: &str, a: &Vm, b: Vm) -> Outcome<Life> {
    let (mount, umount) = (Guarded::Mmp.mount(node), Guarded::Mmp.umount());
    let each = Duration::from_millis(100);
    a.must(&mount)?;
    let mut writer = Writer::start(a, 1, each)?;
    writer.wait_for(5, Duration::from_secs(30))?;
    let refused = (0..TRIES).map(|_| b.run(&mount)).collect::<Outcome<Vec<_>>>()?;
    let before = writer.durable().len();
    writer.wait_for(before + 5, Duration::from_secs(30))?;
    let mut durable = writer.stop(a)?;
    a.must(&umount)?;
    let clean = b.run(&mount)?;
    if !clean.ok() {
        return Err(format!("after a clean unmount: {}", clean.said()));
    }
    let mut writer = Writer::start(&b, 1, each)?;
    writer.wait_for(10, Duration::from_secs(30))?;
    let crashed = b.crash();
    durable.extend(writer.last_words()?);
    let takeover = a.run(&mount)?;
    if !takeover.ok() {
        return Err(format!("after a crash: {}", takeover.said()));
    }
    let mut writer = Writer::start(a, 2, each)?;
    writer.wait_for(10, Duration::from_secs(30))?;
    durable.extend(writer.stop(a)?);
    a.must(&umount)?;
    Ok(Life { refused, clean, takeover, durable, crashed, kind })
}

/// What [`Life::kept`] wants, in words.
pub(crate) fn promise(kind: Kind) -> String {
    let (clean, takeover) = waits(kind);
    let left = if kind == Kind::Ext4 { ", the block clean after the last unmount" } else { "" };
    format!(
        "refused within {REFUSAL_SECONDS} s (+{BUSY_SECONDS} s if busy); after a clean unmount mounted {}; after a crash {}; \
         no durable file lost{left}",
        clean.words(MOUNT_SECONDS),
        takeover.words(MOUNT_SECONDS)
    )
}

/// After a clean unmount, and after a crash. A kernel that is handed an ext4 waits twice in any case.
fn waits(kind: Kind) -> (Waits, Waits) {
    match kind {
        Kind::Xfs => (CLEAN_AREA_WAITS, CRASHED_AREA_WAITS),
        Kind::Ext4 => (KERNEL_WAITS, NATIVE_WAITS),
    }
}

impl Life {
    pub(crate) fn kept(&self, end: &Verdict) -> bool {
        let (clean, takeover) = waits(self.kind);
        self.refused.iter().all(|ended| ended.code == 1)
            && self.refusals().1 <= REFUSAL_SECONDS + BUSY_SECONDS
            && clean.are_kept(MOUNT_SECONDS, self.clean.seconds)
            && takeover.are_kept(MOUNT_SECONDS, self.takeover.seconds)
            && if self.kind == Kind::Ext4 { end.is_whole_and_left() } else { end.is_whole() }
    }

    /// The quickest and the slowest.
    fn refusals(&self) -> (f64, f64) {
        let seconds = self.refused.iter().map(|ended| ended.seconds);
        (seconds.clone().fold(f64::INFINITY, f64::min), seconds.fold(0.0, f64::max))
    }

    pub(crate) fn words(&self, end: &Verdict) -> String {
        let (first, last) = self.refusals();
        format!(
            "{} of {TRIES} refused, {first:.2} to {last:.2} s; mounted {:.1} s after a clean unmount, {:.1} s after a crash; {}",
            self.refused.iter().filter(|ended| ended.code == 1).count(),
            self.clean.seconds,
            self.takeover.seconds,
            if self.kind == Kind::Ext4 { end.words_and_block() } else { end.words() }
        )
    }
}
