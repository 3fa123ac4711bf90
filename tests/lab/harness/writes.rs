//! What a machine wrote to its disks, as its emulator saw it: every request's time, place and length, whatever the machine
//! itself believes. The witness that no program under test has a say in.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Doing, Outcome};

/// A part of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// One write, when the emulator began it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Write {
    /// In seconds, by this machine's wall clock.
    pub(crate) at: f64,
    pub(crate) span: Span,
}

impl Span {
    /// Whether it and `bytes` from `offset` have a byte in common.
    pub(crate) fn overlaps(self, offset: u64, bytes: u64) -> bool {
        self.offset < offset + bytes && offset < self.offset + self.bytes
    }
}

impl Write {
    /// Whether it touches nothing but that.
    pub(crate) fn inside(&self, span: Span) -> bool {
        self.span.offset >= span.offset && self.span.offset + self.span.bytes <= span.offset + span.bytes
    }
}

/// Writes of one host, with none of another's in between.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Turn {
    pub(crate) host: String,
    pub(crate) first: f64,
    pub(crate) last: f64,
    pub(crate) writes: usize,
}

/// Who wrote when, outside the block that protects: on a disk that never had two users each host's turn begins after another
/// has left for good, or until it is let in again.
pub(crate) fn turns(of: &[(&str, &[Write])], protection: Span) -> Vec<Turn> {
    let mut all: Vec<(f64, &str)> = Vec::new();
    for (host, writes) in of {
        all.extend(writes.iter().filter(|write| !write.inside(protection)).map(|write| (write.at, *host)));
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut turns: Vec<Turn> = Vec::new();
    for (at, host) in all {
        match turns.last_mut().filter(|turn| turn.host == host) {
            Some(turn) => (turn.last, turn.writes) = (at, turn.writes + 1),
            None => turns.push(Turn { host: host.to_owned(), first: at, last: at, writes: 1 }),
        }
    }
    turns
}

/// This machine's wall clock in seconds and parts of them, by which the writes are dated.
#[expect(
    clippy::disallowed_methods,
    reason = "QEMU's trace has no other clock, and the MMP block's has whole seconds"
)]
pub(crate) fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Reads a trace of QEMU's.
///
/// `bdrv_open_common bs 0x.. filename ".."` tells which pointer is which file, `blk_co_pwritev` and
/// `bdrv_co_pwrite_zeroes` tell the writes (block/trace-events in QEMU's source).
pub(crate) fn read(trace: &Path, disk: &Path) -> Outcome<Vec<Write>> {
    let bytes = fs::read(trace).doing("the trace")?;
    let text = String::from_utf8_lossy(&bytes);
    let named = format!("filename \"{}\"", disk.display());
    let after = |line: &str, word: &str| -> Option<String> {
        Some(line.split_once(word)?.1.split_whitespace().next()?.to_owned())
    };
    let mut pointers = Vec::new();
    let mut writes = Vec::new();
    for line in text.lines() {
        if line.contains("bdrv_open_common") && line.contains(&named) {
            pointers.extend(after(line, "bs "));
        } else if line.contains("blk_co_pwritev") || line.contains("bdrv_co_pwrite_zeroes") {
            if !after(line, " bs ").is_some_and(|pointer| pointers.contains(&pointer)) {
                continue;
            }
            let parsed = (|| {
                let at = line.split(['@', ':']).nth(1)?.parse().ok()?;
                let offset = after(line, "offset ")?.parse().ok()?;
                let bytes = after(line, "bytes ").or_else(|| after(line, "count "))?.parse().ok()?;
                Some(Write { at, span: Span { offset, bytes } })
            })();
            writes
                .push(parsed.ok_or_else(|| format!("a line of the trace that says something else: {line}"))?);
        }
    }
    if pointers.is_empty() {
        return Err(format!("{} is not in {}", disk.display(), trace.display()));
    }
    Ok(writes)
}
