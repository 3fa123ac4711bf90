//! Several paths, one row.
//!
//! Protects: paths count as one by what they lead to, as the kernel vouches for it, and by their size; never by what stands on the disk. What
//! has the same UUID and is not known to be the same is told, in both rows. A path that does not answer does not hide what
//! another one shows, and what shows something else is never hidden: a name or a partition table may be out of date. Does not protect: see [`lun`](crate::sys::lun).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::row::Row;
use super::subjects::Sighting;
use crate::format::name::escape;
use crate::sys::lun::Lun;

/// So many are named that have the same UUID.
const NAMED_AT_MOST: usize = 3;

/// One row for each thing that was seen, in the order of the first path of each, and the slots of an area behind it.
pub(super) fn rows(sightings: Vec<Sighting>) -> Vec<Row> {
    let mut groups: Vec<Vec<Sighting>> = Vec::new();
    let mut places: HashMap<Key, Vec<usize>> = HashMap::new();
    for sighting in sightings {
        let row = &sighting.rows[0];
        let key = match &sighting.lun {
            Some(lun) => Key::Same(lun.clone(), row.size_bytes),
            None => Key::Unknown(row.paths[0].clone()),
        };
        let place = places.entry(key).or_default();
        let joined = place.iter().copied().find(|&at| groups[at].iter().all(|other| agree(other, &sighting)));
        match joined {
            Some(at) => groups[at].push(sighting),
            None => {
                place.push(groups.len());
                groups.push(vec![sighting]);
            }
        }
    }
    let differences = differences(&groups);
    let mut merged: Vec<Vec<Row>> = groups.into_iter().map(one).collect();
    for (rows, notes) in merged.iter_mut().zip(differences) {
        rows[0].notes.extend(notes);
    }
    note_same_uuids(&mut merged);
    merged.into_iter().flatten().collect()
}

/// Whether two paths show the same, as far as both were seen: its filesystem, and what protects it where. What a holder changes with each
/// beat does not count.
fn agree(one: &Sighting, other: &Sighting) -> bool {
    let (one, other) = (&one.rows[0], &other.rows[0]);
    let both = one.state.was_seen() && other.state.was_seen();
    let place = |row: &Row| (row.uuid, row.protection, row.block_offset_bytes);
    !both || (one.filesystem == other.filesystem && place(one) == place(other))
}

/// What is equal is one row.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    /// The same thing, seen with the same size.
    Same(Lun, Option<u64>),
    /// What was not looked at is known by its path alone.
    Unknown(PathBuf),
}

/// The rows of what several paths lead to.
fn one(mut group: Vec<Sighting>) -> Vec<Row> {
    let worth = |sighting: &Sighting| (sighting.rows[0].state.was_seen(), sighting.leads);
    // The first of the best.
    let best = (0..group.len()).rev().max_by_key(|&at| worth(&group[at])).unwrap_or_default();
    let leader = (0..group.len()).rev().max_by_key(|&at| group[at].leads).unwrap_or_default();
    let mut paths = vec![group[leader].rows[0].paths[0].clone()];
    let (mut nodes, mut notes) = (Vec::new(), Vec::new());
    for sighting in &group {
        let row = &sighting.rows[0];
        if !paths.contains(&row.paths[0]) {
            paths.push(row.paths[0].clone());
        }
        nodes.extend(row.nodes.iter().filter(|node| !nodes.contains(*node)).copied().collect::<Vec<_>>());
        if sighting.failed() && group.len() > 1 {
            let reason = row.reason.as_deref().unwrap_or_default();
            notes.push(format!(
                "{} by {}: {}",
                row.state.words(),
                shown(&row.paths[0]),
                escape(reason.as_bytes())
            ));
        }
    }
    let mut rows = std::mem::take(&mut group[best].rows);
    if rows[0].state.was_seen() {
        rows[0].notes.extend(notes);
    }
    for row in &mut rows {
        (row.paths, row.nodes) = (paths.clone(), nodes.clone());
    }
    rows
}

/// What the kernel takes for one, and is not one row: it was seen with several sizes or beginnings, since not everybody has heard of a change,
/// or it shows several things. That is told in the rows of both.
fn differences(groups: &[Vec<Sighting>]) -> Vec<Vec<String>> {
    let mut first: HashMap<Lun, usize> = HashMap::new();
    let mut notes = vec![Vec::new(); groups.len()];
    for (at, group) in groups.iter().enumerate() {
        let Some(lun) = &group[0].lun else { continue };
        let other = *first.entry(wherever_it_begins(lun)).or_insert(at);
        if other != at {
            notes[at].push(difference(&group[0], &groups[other][0]));
            notes[other].push(difference(&groups[other][0], &group[0]));
        }
    }
    notes
}

/// A partition by its number alone.
fn wherever_it_begins(lun: &Lun) -> Lun {
    match lun {
        Lun::Partition { of, number, .. } => {
            Lun::Partition { of: of.clone(), number: *number, start_bytes: 0 }
        }
        lun => lun.clone(),
    }
}

/// In the row of `here`.
fn difference(here: &Sighting, there: &Sighting) -> String {
    let size =
        |sighting: &Sighting| sighting.rows[0].size_bytes.map_or("no".to_owned(), |size| size.to_string());
    let other = shown(&there.rows[0].paths[0]);
    match (&here.lun, &there.lun) {
        (Some(Lun::Partition { start_bytes: begins, .. }), Some(Lun::Partition { start_bytes, .. }))
            if begins != start_bytes =>
        {
            format!(
                "the same partition of the same disk as {other}, but it begins at byte {begins} here, and at {start_bytes} there: have the kernel read \
                 the partition table again"
            )
        }
        _ if here.rows[0].size_bytes == there.rows[0].size_bytes => format!(
            "the kernel takes it for the same device as {other}, where something else stands: one of them is not what it was (a partition \
             table that was not read again, a LUN that was replaced)"
        ),
        _ => format!(
            "the same device as {other}, with {} bytes here, and {} there: have the kernel look at its size again",
            size(here),
            size(there)
        ),
    }
}

fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes())
}

/// A clone, a snapshot, or two paths of which nobody can tell that they lead to one disk.
fn note_same_uuids(merged: &mut [Vec<Row>]) {
    let mut by_uuid: HashMap<[u8; 16], Vec<usize>> = HashMap::new();
    for (at, rows) in merged.iter().enumerate() {
        if let Some(uuid) = rows[0].uuid {
            by_uuid.entry(uuid).or_default().push(at);
        }
    }
    for same in by_uuid.values().filter(|same| same.len() > 1) {
        for &at in same {
            let others = same.iter().filter(|other| **other != at).take(NAMED_AT_MOST);
            let named: Vec<_> = others.map(|&other| shown(&merged[other][0].paths[0])).collect();
            let more = match same.len() - 1 - named.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            merged[at][0].notes.push(format!("same UUID as {}{more}", named.join(", ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::State;

    fn lun(name: &str) -> Option<Lun> {
        Some(Lun::Worldwide(name.to_owned()))
    }

    fn sighting(path: &str, lun: Option<Lun>, state: State) -> Sighting {
        let mut row = Row::bare(path.into(), state);
        row.size_bytes = Some(4096);
        if !state.was_seen() {
            row.reason = Some("no answer".to_owned());
        }
        Sighting { rows: vec![row], lun, leads: path.starts_with("/dev/mapper") }
    }

    fn paths(row: &Row) -> Vec<&str> {
        row.paths.iter().map(|path| path.to_str().unwrap()).collect()
    }

    #[test]
    fn a_path_that_hangs_hides_nothing_and_the_map_gives_the_name() {
        let told = rows(vec![
            sighting("/dev/sda", lun("a"), State::Hung),
            sighting("/dev/sdb", lun("a"), State::Clean),
            sighting("/dev/mapper/mpatha", lun("a"), State::Hung),
            sighting("/dev/sdc", lun("c"), State::Clean),
        ]);
        assert_eq!(told.len(), 2, "{told:#?}");
        assert_eq!(paths(&told[0]), ["/dev/mapper/mpatha", "/dev/sda", "/dev/sdb"]);
        assert_eq!((told[0].state, told[0].reason.as_deref()), (State::Clean, None));
        assert_eq!(told[0].notes, ["HUNG by /dev/sda: no answer", "HUNG by /dev/mapper/mpatha: no answer"]);
        // The map's own look is the one that is shown, where there is one.
        let mut map = sighting("/dev/mapper/mpatha", lun("a"), State::Clean);
        map.rows[0].generation = Some(5);
        let told = rows(vec![sighting("/dev/sda", lun("a"), State::Clean), map]);
        assert_eq!((told[0].generation, told[0].notes.len()), (Some(5), 0), "{told:#?}");
    }

    #[test]
    fn what_nobody_can_tell_apart_stays_apart() {
        let told = rows(vec![
            sighting("/a", None, State::Unreadable),
            sighting("/b", None, State::Unreadable),
            sighting("/a", None, State::Unreadable),
        ]);
        assert_eq!(told.iter().map(paths).collect::<Vec<_>>(), [["/a"], ["/b"]]);
        let clone = |path: &str, name| {
            let mut sighting = sighting(path, lun(name), State::Clean);
            sighting.rows[0].uuid = Some([7; 16]);
            sighting
        };
        let told = rows(vec![clone("/dev/sda", "a"), clone("/dev/sdb", "b"), clone("/dev/sdc", "a")]);
        assert_eq!(
            told.iter().map(paths).collect::<Vec<_>>(),
            [vec!["/dev/sda", "/dev/sdc"], vec!["/dev/sdb"]]
        );
        assert_eq!(
            (&told[0].notes, &told[1].notes),
            (&vec!["same UUID as /dev/sdb".to_owned()], &vec!["same UUID as /dev/sda".to_owned()])
        );
    }

    /// Two partition tables of one disk, of which one was not read again; a LUN that was replaced under its name.
    #[test]
    fn what_shows_something_else_is_not_hidden() {
        let mut other = sighting("/dev/sdb1", lun("a"), State::Clean);
        other.rows[0].uuid = Some([7; 16]);
        let told = rows(vec![
            sighting("/dev/sda1", lun("a"), State::Clean),
            other,
            sighting("/dev/sdc1", lun("a"), State::Live),
        ]);
        let paths: Vec<_> = told.iter().map(|row| row.paths.len()).collect();
        assert_eq!(paths, [2, 1], "{told:?}");
        assert!(told.iter().all(|row| row.notes[0].contains("something else stands")), "{told:?}");
        // The block of one and the same filesystem was moved.
        let mut moved = sighting("/dev/sdb", lun("b"), State::Clean);
        moved.rows[0].block_offset_bytes = Some(8192);
        assert_eq!(rows(vec![sighting("/dev/sda", lun("b"), State::Clean), moved]).len(), 2);
    }

    #[test]
    fn one_partition_with_two_beginnings_has_two_rows() {
        let part = |path: &str, start_bytes| {
            let of = Box::new(Lun::Worldwide("a".to_owned()));
            sighting(path, Some(Lun::Partition { of, number: 1, start_bytes }), State::NotEnabled)
        };
        let told = rows(vec![part("/dev/sda1", 512), part("/dev/sdb1", 1024), part("/dev/sdc1", 512)]);
        assert_eq!(
            told.iter().map(paths).collect::<Vec<_>>(),
            [vec!["/dev/sda1", "/dev/sdc1"], vec!["/dev/sdb1"]]
        );
        assert!(
            told[0].notes[0].contains("as /dev/sdb1, but it begins at byte 512 here, and at 1024"),
            "{told:?}"
        );
        assert!(told[1].notes[0].contains("as /dev/sda1, but it begins at byte 1024 here"), "{told:?}");
    }

    #[test]
    fn notes_name_paths_byte_by_byte() {
        use std::os::unix::ffi::OsStrExt as _;
        let mut hostile = sighting("/dev/x", lun("a"), State::Hung);
        hostile.rows[0].paths = vec![std::ffi::OsStr::from_bytes(b"/\xff\\\x1b").into()];
        let told = rows(vec![sighting("/dev/sda", lun("a"), State::Clean), hostile]);
        assert_eq!(told[0].notes, ["HUNG by /\\xff\\\\\\x1b: no answer"]);
    }

    #[test]
    fn one_device_of_two_sizes_has_two_rows() {
        let mut grown = sighting("/dev/loop1", lun("a"), State::Clean);
        grown.rows[0].size_bytes = Some(8192);
        let told = rows(vec![sighting("/dev/loop0", lun("a"), State::Clean), grown]);
        assert_eq!((told.len(), told[0].notes.len()), (2, 1));
        assert!(
            told[1].notes[0].contains("same device as /dev/loop0, with 8192 bytes here, and 4096"),
            "{told:#?}"
        );
    }
}
