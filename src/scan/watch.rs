//! Several scans: what changed between them, and who was seen to live.
//!
//! Protects: a holder is called live only by a change of his block that was seen here, and no longer than a live one may be silent.
//! Does not protect: a block that stands still is no proof that its holder is dead; `mmp check` watches for as long as that takes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::row::{Row, State};
use crate::clock::Mono;
use crate::protocol::Peer;

/// What has been seen so far.
#[derive(Debug, Default)]
pub struct Watch {
    known: BTreeMap<Name, Known>,
}

/// By what a row is known again: its first path, and the number of its slot.
type Name = (PathBuf, Option<u32>);

#[derive(Debug)]
struct Known {
    row: Row,
    /// It was looked at then.
    looked: Mono,
    /// Its block was seen to have changed then.
    beat: Option<Mono>,
}

/// What differs from the scan before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // few, and read at once
pub enum Change {
    /// It was not there.
    Found(Row),
    /// Its state, its holder or what stands there is another. A beat alone is no change.
    Changed {
        /// The state before.
        was: State,
        /// As it is now.
        row: Row,
    },
    /// It is not there any more.
    Gone(Row),
}

impl Watch {
    /// Nothing has been seen yet.
    #[must_use]
    pub fn new() -> Self {
        Watch::default()
    }

    /// Takes the rows of a scan that was made at `now`: says which are live, and what has changed since the last one.
    pub fn observe(&mut self, rows: Vec<Row>, now: Mono) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut known = BTreeMap::new();
        for mut row in rows {
            let name = (row.paths[0].clone(), row.slot.as_ref().map(|slot| slot.number));
            let before = self.known.remove(&name);
            let beat = before.as_ref().and_then(|before| before.beat_of(&row, now));
            if row.state == State::LiveOrUnclean && beat.is_some() {
                row.state = State::Live;
            }
            match before {
                None => changes.push(Change::Found(row.clone())),
                Some(before) if !same(&before.row, &row) => {
                    changes.push(Change::Changed { was: before.row.state, row: row.clone() });
                }
                Some(_) => {}
            }
            known.insert(name, Known { row, looked: now, beat });
        }
        let gone = std::mem::replace(&mut self.known, known);
        changes.extend(gone.into_values().map(|gone| Change::Gone(gone.row)));
        changes
    }
}

impl Known {
    /// It is the same block, and somebody had it: another disk that was put in its place, or a claim since the last look, is no beat.
    fn is_held_still(&self, row: &Row) -> bool {
        let before = &self.row;
        let place = |row: &Row| (row.uuid, row.size_bytes, row.protection, row.block_offset_bytes);
        let was_held = matches!(before.state, State::LiveOrUnclean | State::Live);
        was_held && before.nodes == row.nodes && before.slot == row.slot && place(before) == place(row)
    }

    /// When the block was last seen to change, if that is not too long ago for a live holder. The change happened at some time since the
    /// last look, so that counts for the silence, too.
    fn beat_of(&self, row: &Row, now: Mono) -> Option<Mono> {
        let (Some(before), Some(after)) = (&self.row.last, &row.last) else { return None };
        if !self.is_held_still(row) {
            return None;
        }
        if before != after || self.row.generation != row.generation {
            return Some(now);
        }
        let silent_at_most = row.beats_within() + now.since(self.looked);
        self.beat.filter(|&beat| now.since(beat) <= silent_at_most)
    }
}

/// All but what every beat changes.
fn same(before: &Row, after: &Row) -> bool {
    let still = |last: &Option<Peer>| last.map(|peer| (peer.node, peer.device));
    let parts = |row: &Row| Row { last: None, ..row.clone() };
    still(&before.last) == still(&after.last) && parts(before) == parts(after)
}
