//! Which guards will behave alike: the text of a guard (`Debug`), with everything in it that cannot matter any more, or
//! matters only by its distance, brought to one form.
//!
//! Rests on the names of the fields in `src/protocol`; each rule says why what it changes cannot matter. A rule that no
//! longer finds its field does not make the model wrong, only larger; one that found too much would, so each names one field.
//! The opposite error, two guards that look alike and are not, is what the text of *all* fields is there against; and of those
//! that a rule made alike, one is stepped beside the one that is kept (`twins`).

use crate::ours::sequences::{Base, ahead, generations_behind, relative};
use crate::protocol::sequence::{COUNTING_REACH, JUMP};

/// So many beats are told apart: a guard asks whether it has beaten at all, and whether an older beat is its own. No write is on
/// its way for longer than for five beats.
const BEATS: u64 = 6;
/// So many counts, and so many jumps, are told apart. Only `Foreign::last` keeps a sequence for longer than its block stands: it is
/// asked whether another one is the same, or near, as far as [`COUNTING_REACH`].
pub(crate) const COUNTS: u32 = COUNTING_REACH + 8;
pub(crate) const JUMPS: u32 = 8;

/// The text by distances alone, no rule applied.
pub(crate) fn exact(text: &str, base: Base) -> String {
    rewritten(text, |out, name, value| match name {
        "seq" | "stood_at" => {
            push_sequence(out, value, base, (u32::MAX, u32::MAX));
            true
        }
        "generation" => push_generation(out, value, base),
        _ => false,
    })
}

/// `draws`: what it drew before is not asked for before it draws again.
pub(crate) fn normal(text: &str, base: Base, draws: bool) -> String {
    let waits = text.contains("wait: Until(");
    let stands = text.contains("step: Silent {")
        || text.contains("step: Confirm {")
        || (text.contains("step: Writing {") && !text.contains("stage: Claim }"));
    let draws =
        draws || ["step: Look,", "step: Watch(", "step: BackOff"].iter().any(|step| text.contains(step));
    rewritten(text, |out, name, value| {
        let old = value.starts_with("@-");
        match name {
            "seq" => push_sequence(out, value, base, (JUMPS, COUNTS)),
            "beats" => out.push_str(&value.parse::<u64>().map_or(BEATS, |n| n.min(BEATS)).to_string()),
            "generation" if draws && (value == "None" || value.starts_with("Some(")) => {}
            "generation" => return push_generation(out, value, base),
            // Asked for of a block under the guard's own names alone, and no host has another's here.
            "stood_at" => {}
            // When a watch began is told to people.
            "began" => {}
            // The next look sets it before it is asked for.
            "look_started" if waits => {}
            // Set when the first write of a claim is acknowledged, and asked for after that.
            "standing_since" if !stands => {}
            // Only whether it has come is asked for.
            "watchful_until" | "next_beat" | "half" if old => out.push_str("past"),
            // A gap is remembered for six minutes, which is longer than anything here: once is for good.
            "last_gap" if value.starts_with("Some(@") => out.push_str("Some(once)"),
            _ => return false,
        }
        true
    })
}

/// Every value that `rule` pushes something else for is left out.
fn rewritten(text: &str, rule: impl Fn(&mut String, &str, &str) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(": ") {
        let (head, tail) = rest.split_at(at + 2);
        out.push_str(head);
        let name = head[..head.len() - 2].rsplit([' ', '(']).next().unwrap_or_default();
        let end = value_end(tail);
        rest = if rule(&mut out, name, &tail[..end]) { &tail[end..] } else { tail };
    }
    out.push_str(rest);
    out
}

/// Values that a rule changes are numbers, stamps, or one of them in `Some()`.
fn value_end(tail: &str) -> usize {
    tail.find([',', ' ', '}']).unwrap_or(tail.len())
}

/// Of an image, or drawn.
fn push_generation(out: &mut String, value: &str, base: Base) -> bool {
    use std::fmt::Write as _;
    let number = value.strip_prefix("Some(").and_then(|rest| rest.strip_suffix(')')).unwrap_or(value);
    let Ok(generation) = number.parse() else { return false };
    write!(out, "-{}", generations_behind(generation, base)).expect("a String takes all");
    true
}

fn push_sequence(out: &mut String, value: &str, base: Base, (most_jumps, most_counts): (u32, u32)) {
    use std::fmt::Write as _;
    let seq = value.parse::<u32>().unwrap_or_else(|_| panic!("a sequence is a number, not {value:?}"));
    if let Some((host, ahead)) = ahead(seq, base) {
        return write!(out, "{host}+{ahead}").expect("a String takes all");
    }
    match relative(seq, base) {
        None => out.push_str(value),
        Some((host, behind)) => {
            let (jumps, counts) = ((behind / JUMP).min(most_jumps), (behind % JUMP).min(most_counts));
            write!(out, "{host}-{jumps}-{counts}").expect("a String takes all");
        }
    }
}
