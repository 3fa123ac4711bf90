//! What must hold of a soak's round, from the writes that the emulators saw.

use super::QUEUED_SECONDS;
use super::host::History;
use crate::harness::{Outcome, Span};

/// What the check counted.
pub(crate) struct Checked {
    pub(crate) turns: usize,
    /// Writes that a machine's emulator had taken before a hang, and made after it.
    pub(crate) queued: usize,
}

/// No host writes between two writes of another's session: each session of each host is one piece in the order of all writes.
pub(crate) fn one_writer_at_a_time(histories: &[&History], protection: Span) -> Outcome<Checked> {
    let mut all: Vec<(f64, &str, usize)> = Vec::new();
    let mut queued = 0;
    for history in histories {
        for write in history.writes.iter().filter(|write| !write.inside(protection)) {
            let since = |resumed: &f64| (0.0..QUEUED_SECONDS).contains(&(write.at - resumed));
            if history.resumed.iter().any(since) {
                queued += 1;
                continue;
            }
            let session = history.begun.iter().filter(|begun| **begun <= write.at).count();
            if session == 0 {
                return Err(format!("{} wrote at {:.3} s before it ever mounted", history.host, write.at));
            }
            all.push((write.at, history.host, session));
        }
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut turns: Vec<(&str, usize)> = Vec::new();
    for (at, host, session) in all {
        if turns.last() == Some(&(host, session)) {
            continue;
        }
        if turns.contains(&(host, session)) {
            let between = turns.last().copied();
            return Err(format!(
                "two writers: {host} (attempt {session}) wrote again at {at:.3} s, after {between:?} had begun"
            ));
        }
        turns.push((host, session));
    }
    Ok(Checked { turns: turns.len(), queued })
}

/// A later mount has a higher generation, whoever made it.
pub(crate) fn generations_grow(histories: &[&History]) -> Outcome<()> {
    let mut all: Vec<(f64, u64)> = histories.iter().flat_map(|history| history.generations.clone()).collect();
    let mounts: usize = histories.iter().map(|history| history.mounts).sum();
    if all.len() != mounts {
        return Err(format!("{mounts} mounts, but {} generations", all.len()));
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    match all.windows(2).find(|pair| pair[1].1 <= pair[0].1) {
        None => Ok(()),
        Some(pair) => Err(format!("a generation that did not grow: {pair:?}")),
    }
}
