//! A crash after any write, and inside one: whatever prefix stands on the disk, e2fsck finds nothing or repairs it, and
//! no file is lost. Assumed: a sector of 512 bytes is written whole or not at all, the sectors of one write in any order.
//!
//! One case is asserted to be the only one that e2fsck needs help with: a superblock with a checksum that tears between
//! its two sectors. Nobody's write of a superblock survives that, the kernel's neither; e2fsck takes a copy, which it may
//! have to be told where, or, where there is none, debugfs(8) writes the checksum.

use std::path::Path;
use std::sync::Mutex;

use mmpguard::ext4::{Part, Planned};

use crate::images::{Change, Folder, clean, for_each, get, good, has_tools, header, put, run, said};
use crate::layouts::{LAYOUTS, Layout};
use crate::memory::Memory;

const SECTOR: usize = 512;
/// Of each kind of layout one or two: each cut is two runs of e2fsck.
const CUT: [&str; 16] = [
    "ext2-1k",
    "ext2-4k",
    "ext2-revision-0",
    "ext3-2k",
    "ext4-1k",
    "ext4-4k",
    "ext4-4k-one-group",
    "ext4-64k",
    "no-checksums",
    "uninit-bg",
    "csum-seed",
    "meta-bg-many",
    "bigalloc-1k",
    "sparse-super2",
    "only-unwritten",
    "only-unwritten-crc16",
];

/// What is on the disk when it was cut: whole writes, then some sectors of the next one.
struct Cut {
    /// What was being written.
    part: Option<Part>,
    torn: bool,
    writes: Vec<(u64, Vec<u8>)>,
}

/// Which of the sectors that a write changes may be there without the others: the first, the last, the first half.
fn tears(before: &[u8], after: &[u8]) -> Vec<Vec<usize>> {
    let changed: Vec<usize> = (0..after.len().div_ceil(SECTOR))
        .filter(|at| {
            let range = at * SECTOR..((at + 1) * SECTOR).min(after.len());
            before[range.clone()] != after[range]
        })
        .collect();
    let mut tears = Vec::new();
    if changed.len() > 1 {
        tears.push(vec![changed[0]]);
        tears.push(vec![changed[changed.len() - 1]]);
    }
    if changed.len() > 3 {
        tears.push(changed[..changed.len() / 2].to_vec());
    }
    tears
}

/// Every cut of a change to an image.
fn cuts(image: &Path, change: Change) -> Vec<Cut> {
    let before = std::fs::read(image).unwrap();
    let mut memory = Memory::new(before.clone());
    let Planned::Do(plan) = change.plan(image, &mut memory).unwrap() else { panic!("nothing to do") };
    plan.carry_out(&mut memory, &mut |_| Ok(())).unwrap();
    assert_eq!(memory.writes.len(), plan.edits().len());
    let mut cuts = vec![Cut { part: None, torn: false, writes: Vec::new() }];
    for (index, (edit, (offset_bytes, bytes))) in plan.edits().iter().zip(&memory.writes).enumerate() {
        let start = usize::try_from(*offset_bytes).unwrap();
        for tear in tears(&before[start..start + bytes.len()], bytes) {
            let mut writes = memory.writes[..index].to_vec();
            for sector in tear {
                let at = sector * SECTOR;
                writes.push((*offset_bytes + at as u64, bytes[at..(at + SECTOR).min(bytes.len())].to_vec()));
            }
            cuts.push(Cut { part: Some(edit.part), torn: true, writes });
        }
        cuts.push(Cut { part: Some(edit.part), torn: false, writes: memory.writes[..=index].to_vec() });
    }
    cuts
}

/// How a cut image came to be in order again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mended {
    /// It was.
    AsItIs,
    /// By `e2fsck -fy`.
    ByItself,
    /// By `e2fsck -fy -b`, told where a copy of the superblock stands: it looks where groups of the usual size have it.
    Told,
    /// By `debugfs -n`, which writes the superblock with its checksum, and `e2fsck -fy`: there is no copy.
    Resealed,
}

struct Judge<'a> {
    layout: &'a Layout,
    folder: &'a Folder,
    /// The superblock has a checksum.
    checksum: bool,
    /// Block number and block size of a copy of it.
    copy: Option<(String, String)>,
}

impl Judge<'_> {
    /// Mends a cut image, and looks whether everything is there.
    fn mend(&self, image: &Path, name: &str, torn_superblock: bool) -> Mended {
        let path = image.to_str().unwrap();
        let looked = run("e2fsck", &["-fn", path]);
        let repaired = run("e2fsck", &["-fy", path]);
        let mended = match (repaired.status.code(), &self.copy) {
            (Some(0 | 1), _) if looked.status.code() == Some(0) => Mended::AsItIs,
            (Some(0 | 1), _) => Mended::ByItself,
            (Some(8), Some((block, size))) if torn_superblock && self.checksum => {
                let told = run("e2fsck", &["-fy", "-b", block, "-B", size, path]);
                assert!(matches!(told.status.code(), Some(0 | 1)), "{name}: {}", said(&told));
                Mended::Told
            }
            (Some(8), None) if torn_superblock && self.checksum => {
                good("debugfs", &["-w", "-n", "-R", "set_super_value mnt_count 0", path]);
                let again = run("e2fsck", &["-fy", path]);
                assert!(matches!(again.status.code(), Some(0 | 1)), "{name}: {}", said(&again));
                Mended::Resealed
            }
            (code, _) => panic!("{name}: e2fsck -fy: {code:?} {}", said(&repaired)),
        };
        clean(image);
        self.layout.has_kept(image, self.folder, &format!("{name}-kept"));
        mended
    }
}

fn case(layout: &Layout, results: &Mutex<Vec<Mended>>) {
    let folder = Folder::new();
    let base = layout.make(&folder);
    let on = folder.copy(&base, "on");
    Change::Enable(1).by_us(&on);
    let text = good("dumpe2fs", &[base.to_str().unwrap()]);
    let copies = text.lines().filter_map(|line| line.trim().strip_prefix("Backup superblock at "));
    let copy = copies.filter_map(|rest| rest.split([',', ' ']).next()).next();
    let copy = copy.map(|block| (block.to_owned(), header(&base, "Block size").unwrap()));
    let judge = Judge { layout, folder: &folder, checksum: header(&base, "Checksum").is_some(), copy };
    let all: Vec<(String, &Path, Cut)> = [
        ("enable", base.as_path(), Change::Enable(1)),
        ("disable", on.as_path(), Change::Disable),
        ("set", on.as_path(), Change::Set(9)),
    ]
    .into_iter()
    .flat_map(|(verb, from, change)| {
        let cuts = cuts(from, change).into_iter().enumerate();
        cuts.map(move |(index, cut)| (format!("{verb}-{index}-{:?}-{}", cut.part, cut.torn), from, cut))
    })
    .collect();
    for_each(
        &all,
        |(name, ..)| format!("{}: {name}", layout.name),
        |(name, from, cut)| {
            let image = folder.copy(from, name);
            for (at, bytes) in &cut.writes {
                put(&image, *at, bytes);
            }
            let mended = judge.mend(&image, name, cut.torn && cut.part == Some(Part::Superblock));
            results.lock().unwrap().push(mended);
            std::fs::remove_file(&image).unwrap();
        },
    );
}

#[test]
fn a_cut_anywhere_is_mounted_as_it_is_or_repaired() {
    if !has_tools() {
        return;
    }
    let results = Mutex::new(Vec::new());
    let layouts: Vec<_> = LAYOUTS.iter().filter(|layout| CUT.contains(&layout.name)).collect();
    assert_eq!(layouts.len(), CUT.len());
    for_each(&layouts, |layout| layout.name.to_owned(), |layout| case(layout, &results));
    let results = results.into_inner().unwrap();
    let count = |mended| results.iter().filter(|&&one| one == mended).count();
    println!(
        "{} cuts: {} in order as they are, {} repaired, {} from a copy named to e2fsck, {} after debugfs, 0 lost",
        results.len(),
        count(Mended::AsItIs),
        count(Mended::ByItself),
        count(Mended::Told),
        count(Mended::Resealed)
    );
    // Two tears of the superblock for each of the three changes, on the one layout of a single group.
    assert_eq!(count(Mended::Resealed), 6);
}

/// The superblock is one write, of 1024 bytes, and comes last when it switches on and first when it switches off; of a
/// bitmap and a descriptor one sector changes.
#[test]
fn the_order_is_the_documented_one() {
    use Part::{BackupDescriptors, BackupSuperblock, BlockBitmap, GroupDescriptors, MmpBlock, Superblock};
    if !has_tools() {
        return;
    }
    let folder = Folder::new();
    let layout = LAYOUTS.iter().find(|layout| layout.name == "ext4-1k").unwrap();
    let base = layout.make(&folder);
    let on = folder.copy(&base, "on");
    Change::Enable(1).by_us(&on);
    let order = |image: &Path, change: Change| {
        let mut memory = Memory::new(std::fs::read(image).unwrap());
        let Planned::Do(plan) = change.plan(image, &mut memory).unwrap() else { panic!("nothing to do") };
        for edit in plan.edits() {
            let before = get(image, edit.offset_bytes, edit.bytes.len());
            let changed = (0..before.len()).filter(|&at| before[at] != edit.bytes[at]);
            let sectors: std::collections::BTreeSet<_> = changed.map(|at| at / SECTOR).collect();
            match edit.part {
                Superblock => assert_eq!((edit.offset_bytes, edit.bytes.len()), (1024, 1024)),
                BlockBitmap | GroupDescriptors => assert_eq!(sectors.len(), 1, "{edit:?}"),
                _ => {}
            }
        }
        let mut parts: Vec<_> = plan.edits().iter().map(|edit| edit.part).collect();
        parts.dedup();
        parts
    };
    assert_eq!(
        order(&base, Change::Enable(1)),
        [MmpBlock, BlockBitmap, GroupDescriptors, BackupDescriptors, BackupSuperblock, Superblock]
    );
    assert_eq!(
        order(&on, Change::Disable),
        [Superblock, MmpBlock, BackupSuperblock, BlockBitmap, GroupDescriptors, BackupDescriptors]
    );
    assert_eq!(order(&on, Change::Set(9)), [BackupSuperblock, Superblock]);
}
