//! What must hold of a soak's round, from the writes that the emulators saw and from what the hosts came to.

use super::history::{Attempt, Fault, FaultKind, History, Loss};
use crate::harness::{Outcome, Span, Write};

/// What was on its way when a machine stood still is written within this, before its watchdog has reset it.
const QUEUED_SECONDS: f64 = 1.0;
/// Within this after it went on a machine whose watchdog ends its hang has begun to boot, on a busy machine, too.
const REBOOT_SECONDS: f64 = 40.0;
/// A holder's lease, and a taker's wait, at an interval of a second.
const LEASE_SECONDS: f64 = 11.0;
/// By then a host that cannot reach the disk has cut itself off: its lease, and the wait that a taker adds.
const CUT_SECONDS: f64 = 22.0;
/// For so long after a fault its consequences may be seen: a lease and two waits.
const AFTERMATH_SECONDS: f64 = 35.0;
/// A fault that is shorter than this makes nobody lose what it has.
const HARMLESS_SECONDS: f64 = 7.0;
/// Two stalls with less than this between them may have let no beat through.
const BREATH_SECONDS: f64 = 3.0;
/// What a claim writes to the block that protects, at most.
const CLAIM_WRITES: usize = 6;

/// What the checks counted.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) turns: usize,
    /// Writes that a machine's emulator had taken before a hang, and made after it.
    pub(crate) queued: usize,
}

/// A host's writes outside the block that protects, of one attempt: its session.
struct Session<'h> {
    host: &'h str,
    attempt: usize,
    first: f64,
    last: f64,
}

/// All that is promised of two hosts' histories.
pub(crate) fn all(histories: [&History; 2], protection: Span) -> Outcome<Checked> {
    let checked = one_writer_at_a_time(&histories, protection)?;
    let [alpha, beta] = histories;
    for (host, other) in [(alpha, beta), (beta, alpha)] {
        hangs_end_in_boots(host)?;
        losses_have_causes(host)?;
        writes_only_while_in(host)?;
        nobody_beside(host, other, protection)?;
        no_beats_beside(host, other, protection)?;
    }
    Ok(checked)
}

/// No host writes between two writes of another's session: each session of each host is one piece in the order of all writes.
pub(crate) fn one_writer_at_a_time(histories: &[&History], protection: Span) -> Outcome<Checked> {
    let mut all: Vec<(f64, &str, usize)> = Vec::new();
    let mut queued = 0;
    for history in histories {
        for write in history.writes.iter().filter(|write| !write.inside(protection)) {
            if is_queued(history, write.at) {
                queued += 1;
                continue;
            }
            let Some(attempt) = attempt_of(history, write) else {
                return Err(format!("{} wrote at {:.3} s before it ever mounted", history.host, write.at));
            };
            all.push((write.at, history.host, attempt));
        }
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut turns: Vec<(&str, usize)> = Vec::new();
    for (at, host, attempt) in all {
        if turns.last() == Some(&(host, attempt)) {
            continue;
        }
        if turns.contains(&(host, attempt)) {
            let between = turns.last().copied();
            return Err(format!(
                "two writers: {host} (attempt {attempt}) wrote again at {at:.3} s, after {between:?} had begun"
            ));
        }
        turns.push((host, attempt));
    }
    Ok(Checked { turns: turns.len(), queued })
}

/// While a host has it mounted, no other one has, and no other one writes outside the block that protects. A host that cannot
/// reach the disk has it for a lease at most.
pub(crate) fn nobody_beside(holder: &History, other: &History, protection: Span) -> Outcome<()> {
    for attempt in &holder.attempts {
        let Some(from) = attempt.mounted else { continue };
        let until = held_until(holder, attempt);
        let held = |at: f64| from < at && at < until;
        let outside = |write: &&Write| !write.inside(protection) && !is_queued(other, write.at);
        if let Some(write) = other.writes.iter().filter(outside).find(|write| held(write.at)) {
            return Err(format!(
                "two writers: {} wrote at {:.3} s, while {} had it from {from:.3} to {until:.3} s",
                other.host, write.at, holder.host
            ));
        }
        let mut answers = other.attempts.iter().filter_map(|attempt| attempt.mounted);
        if let Some(at) = answers.find(|at| held(*at) && !is_queued(other, *at)) {
            return Err(format!(
                "two holders: {} mounted at {at:.3} s what {} had from {from:.3} to {until:.3} s",
                other.host, holder.host
            ));
        }
    }
    Ok(())
}

/// While a host writes, another one that tries to mount writes to the block that protects no more than a claim does, and one
/// that has had it before writes nothing there.
pub(crate) fn no_beats_beside(writer: &History, other: &History, protection: Span) -> Outcome<()> {
    for Session { host, attempt, first, last } in sessions(writer, protection) {
        let during = |write: &&Write| (first..=last).contains(&write.at) && !is_queued(other, write.at);
        let mut claims = vec![0; other.attempts.len() + 1];
        for write in other.writes.iter().filter(during).filter(|write| write.inside(protection)) {
            let number = attempt_of(other, write);
            let tries = number.is_some_and(|number| is_trying(&other.attempts[number - 1], write.at));
            let said = format!("in session {attempt} of {host} ({first:.3} to {last:.3} s)");
            if !tries {
                return Err(format!(
                    "a loser's beat: {} wrote to the block at {:.3} s {said}",
                    other.host, write.at
                ));
            }
            let count = &mut claims[number.unwrap_or(0)];
            *count += 1;
            if *count > CLAIM_WRITES {
                return Err(format!("{} wrote to the block {count} times in one attempt {said}", other.host));
            }
        }
    }
    Ok(())
}

/// A host that neither has it nor tries to get it writes nothing at all.
pub(crate) fn writes_only_while_in(history: &History) -> Outcome<()> {
    for write in history.writes.iter().filter(|write| !is_queued(history, write.at)) {
        let number = attempt_of(history, write);
        let over = number.map_or(0.0, |number| over(history, &history.attempts[number - 1]));
        if write.at > over {
            return Err(format!(
                "{} wrote at {:.3} s, {:.3} s after its attempt {number:?} was over",
                history.host,
                write.at,
                write.at - over
            ));
        }
    }
    Ok(())
}

/// A host loses something, or fails, only where something was done to it that may cause that.
pub(crate) fn losses_have_causes(history: &History) -> Outcome<()> {
    for (at, loss) in &history.losses {
        let soon = |fault: &&Fault| (fault.from..=fault.until + AFTERMATH_SECONDS).contains(at);
        if !history.faults.iter().filter(soon).any(|fault| may_cause(fault, *loss)) {
            return Err(format!(
                "without a cause: {} at {at:.3} s: {loss:?}; its last fault: {:?}",
                history.host,
                history.faults.iter().rfind(|fault| fault.from <= *at)
            ));
        }
    }
    Ok(())
}

/// A hang that is longer than the watchdog's time ends in a boot.
pub(crate) fn hangs_end_in_boots(history: &History) -> Outcome<()> {
    let late = |ended: Option<f64>, resumed| ended.is_none_or(|ended| ended - resumed > REBOOT_SECONDS);
    match history.wakeups.iter().find(|wakeup| late(wakeup.ended, wakeup.resumed)) {
        None => Ok(()),
        Some(wakeup) => {
            Err(format!("{} was not reset by its watchdog after a hang: {wakeup:?}", history.host))
        }
    }
}

/// A later mount has a higher generation, whoever made it; each mount whose guard was asked has one.
pub(crate) fn generations_grow(histories: &[&History]) -> Outcome<()> {
    let mut all: Vec<(f64, u64)> = histories.iter().flat_map(|history| history.generations.clone()).collect();
    let named: usize = histories.iter().map(|history| history.named).sum();
    if all.len() != named {
        return Err(format!("{named} mounts were named by the status, but {} had a generation", all.len()));
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    match all.windows(2).find(|pair| pair[1].1 <= pair[0].1) {
        None => Ok(()),
        Some(pair) => Err(format!("a generation that did not grow: {pair:?}")),
    }
}

/// In the order of its files a host's generations rise, and no generation has files of two hosts.
pub(crate) fn stamps_agree(histories: [&History; 2]) -> Outcome<()> {
    let mut of_hosts = Vec::new();
    for history in histories {
        let mut generations = Vec::new();
        for stamp in &history.durable {
            let number = stamp.split(' ').nth(1).and_then(|word| word.parse::<u64>().ok());
            let number = number.ok_or_else(|| format!("a stamp that says something else: {stamp}"))?;
            if generations.last().is_some_and(|last| *last > number) {
                return Err(format!("a file of an earlier generation: {stamp}, after {generations:?}"));
            }
            if generations.last() != Some(&number) {
                generations.push(number);
            }
        }
        of_hosts.push(generations);
    }
    match of_hosts[0].iter().find(|number| of_hosts[1].contains(number)) {
        None => Ok(()),
        Some(number) => Err(format!("both hosts have files of generation {number}")),
    }
}

/// Whether a fault may make its host come to that. One that is shorter than the watchdog's time and a lease changes nothing, but
/// that a filesystem does not like I/O that fails.
fn may_cause(fault: &Fault, loss: Loss) -> bool {
    let long = fault.lasted() >= HARMLESS_SECONDS;
    match fault.kind {
        FaultKind::Hang | FaultKind::PathWaits => long,
        FaultKind::PathFails => long || !matches!(loss, Loss::Lost | Loss::Rebooted),
        FaultKind::Pause | FaultKind::Freeze => false,
    }
}

/// What the emulator had taken before a hang, and writes when the machine goes on; nothing that a later boot writes.
fn is_queued(history: &History, at: f64) -> bool {
    history.wakeups.iter().any(|wakeup| {
        let until = wakeup.ended.unwrap_or(f64::INFINITY).min(wakeup.resumed + QUEUED_SECONDS);
        (wakeup.resumed..until).contains(&at)
    })
}

/// The number of the attempt that a write belongs to, from 1.
fn attempt_of(history: &History, write: &Write) -> Option<usize> {
    let begun = history.attempts.iter().filter(|attempt| attempt.begun <= write.at).count();
    (begun > 0).then_some(begun)
}

/// Whether an attempt had not been decided yet.
fn is_trying(attempt: &Attempt, at: f64) -> bool {
    attempt.begun <= at && at <= attempt.mounted.unwrap_or(attempt.over)
}

/// A stall that outlives its lease ends what it holds.
fn held_until(history: &History, attempt: &Attempt) -> f64 {
    let ends = |stall: &&(f64, f64)| {
        stall.1 - stall.0 > LEASE_SECONDS && attempt.mounted.is_some_and(|from| stall.1 > from)
    };
    cut_off(history, attempt.held_until, LEASE_SECONDS, ends)
}

/// A stall in which it has to cut itself off ends all that it writes. One that began before it was in does not: it waits for
/// its path, and looks anew.
fn over(history: &History, attempt: &Attempt) -> f64 {
    let ends = |stall: &&(f64, f64)| {
        stall.1 - stall.0 > CUT_SECONDS && attempt.mounted.is_some_and(|from| stall.0 >= from)
    };
    cut_off(history, attempt.over, CUT_SECONDS, ends)
}

/// `end`, or so many seconds after the beginning of a stall before it that `ends` all.
fn cut_off(history: &History, end: f64, seconds: f64, ends: impl Fn(&&(f64, f64)) -> bool) -> f64 {
    let stalls = stalls(history);
    let begins = stalls.iter().filter(ends).filter(|stall| stall.0 < end).map(|stall| stall.0);
    begins.map(|begin| begin + seconds).fold(end, f64::min)
}

/// When no beat of the host reached the disk. A freeze is none: its beats go on.
fn stalls(history: &History) -> Vec<(f64, f64)> {
    let mut stalls: Vec<(f64, f64)> = Vec::new();
    for fault in history.faults.iter().filter(|fault| fault.kind != FaultKind::Freeze) {
        match stalls.last_mut().filter(|last| fault.from - last.1 < BREATH_SECONDS) {
            Some(last) => last.1 = fault.until,
            None => stalls.push((fault.from, fault.until)),
        }
    }
    stalls
}

/// From the first write of each of a host's sessions to its last.
fn sessions(history: &History, protection: Span) -> Vec<Session<'_>> {
    let mut sessions: Vec<Session<'_>> = Vec::new();
    let outside = |write: &&Write| !write.inside(protection) && !is_queued(history, write.at);
    for write in history.writes.iter().filter(outside) {
        let attempt = attempt_of(history, write).unwrap_or(0);
        match sessions.iter_mut().find(|session| session.attempt == attempt) {
            Some(session) => {
                session.first = session.first.min(write.at);
                session.last = session.last.max(write.at);
            }
            None => {
                sessions.push(Session { host: history.host, attempt, first: write.at, last: write.at });
            }
        }
    }
    sessions
}
