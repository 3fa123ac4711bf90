//! Scans by the library: what is told of any bytes, of files, of several paths, and over time. Nothing here takes root.

mod images;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use images::areas::{AT_S, AreaImage, TARGET};
use mmpguard::clock::Mono;
use mmpguard::format::area::{AreaHeader, SlotState};
use mmpguard::format::{MmpBlock, Superblock};
use mmpguard::io::MemImage;
use mmpguard::scan::{Change, Protection, Row, Scanner, Settings, State, Watch, look};

/// An ext4 filesystem of 64 KiB with MMP, left clean by "golden".
const DEMO: &[u8] = include_bytes!("../testimages/demo.img");

fn rows(bytes: &[u8]) -> Vec<Row> {
    look(&MemImage(bytes))
}

fn row(bytes: &[u8]) -> Row {
    let mut rows = rows(bytes);
    assert_eq!(rows.len(), 1, "{rows:#?}");
    rows.remove(0)
}

fn notes(row: &Row) -> String {
    row.notes.join("; ")
}

/// Of the demo image.
fn with_block(change: impl FnOnce(&mut MmpBlock)) -> Vec<u8> {
    let mut bytes = DEMO.to_vec();
    let superblock = Superblock::decode(bytes[1024..].first_chunk().unwrap()).unwrap();
    let at = usize::try_from(superblock.mmp_offset_bytes().unwrap()).unwrap();
    let image = bytes[at..].first_chunk_mut().unwrap();
    let mut block = MmpBlock::fields(image);
    change(&mut block);
    block.encode_into(image, superblock.checksum_seed);
    bytes
}

#[test]
fn every_golden_image_has_the_state_that_e2fsprogs_printed() {
    for name in images::names() {
        let row = row(&images::load(&name));
        let printed = images::printed(&name);
        let features = printed.get("Filesystem features").map_or("", String::as_str);
        let has_mmp = features.split(' ').any(|feature| feature == "mmp");
        let state = match name.as_str() {
            "damaged-checksum" | "damaged-magic" | "damaged-superblock" | "block-out-of-range" => {
                State::Damaged
            }
            "fsck-mark" => State::Fsck,
            "sequence-unknown" => State::Unknown,
            "kernel-live" | "kernel-no-journal" | "claim-killed" | "sequence-0" => State::LiveOrUnclean,
            _ if !has_mmp => State::NotEnabled,
            _ => State::Clean,
        };
        assert_eq!(row.state, state, "{name}: {row:#?}");
        let by_block = !matches!(name.as_str(), "damaged-superblock" | "block-out-of-range");
        if has_mmp && by_block {
            assert_eq!(row.protection, Some(Protection::Native), "{name}");
            let uuid = row.uuid.map(|uuid| mmpguard::format::content::uuid_text(&uuid));
            assert_eq!(uuid.as_deref(), printed.get("Filesystem UUID").map(String::as_str), "{name}");
        }
        if let (Some(last), Some(sequence)) = (&row.last, printed.get("mmp_sequence")) {
            assert_eq!(format!("{:#x}", last.seq), format!("{:#x}", parsed(sequence)), "{name}");
        }
        assert_eq!(
            row.reason.is_some(),
            matches!(state, State::Damaged | State::Unknown),
            "{name}: {row:#?}"
        );
    }
}

fn parsed(hexadecimal: &str) -> u32 {
    u32::from_str_radix(hexadecimal.trim_start_matches("0x"), 16).expect("is a number")
}

#[test]
fn a_clean_mark_over_a_dirty_journal_is_doubted() {
    let row = row(&images::load("kernel-clean"));
    assert_eq!((row.state, row.notes.len()), (State::Clean, 0), "{row:#?}");
    assert_eq!(row.interval.map(|interval| interval.as_secs() > 0), Some(true));
    let mut bytes = images::load("no-csum");
    bytes[1024 + 0x60] |= 4;
    let doubted = self::row(&bytes);
    assert!(doubted.state != State::Clean || notes(&doubted).contains("may lie"), "{doubted:#?}");
}

#[test]
fn a_tail_area_tells_of_its_slot() {
    let ext2 = images::load("no-mmp");
    for (state, told) in [
        (SlotState::Free, State::Clean),
        (SlotState::Released, State::Clean),
        (SlotState::Claiming, State::LiveOrUnclean),
        (SlotState::Holding, State::LiveOrUnclean),
    ] {
        let area = AreaImage::tail(&ext2, state);
        let row = row(&area.bytes);
        assert_eq!((row.protection, row.state), (Some(Protection::TailArea), told), "{row:#?}");
        assert_eq!(row.interval, Some(Duration::from_millis(500)));
        assert_eq!(row.last.map(|last| last.last_update.0), (state != SlotState::Free).then_some(AT_S));
        assert_eq!(row.generation, Some(if state == SlotState::Free { 0 } else { 7 }));
        assert!(row.filesystem.is_some() && row.uuid.is_some() && row.slot.is_none(), "{row:#?}");
    }
    // The device was grown: nobody may use the area any more.
    let mut grown = AreaImage::tail(&ext2, SlotState::Holding);
    let header = AreaHeader { target_bytes: grown.header.target_bytes + 4096, ..grown.header };
    grown.header = header;
    grown.bytes.extend([0; 4096]);
    assert_eq!(
        row(&grown.bytes).protection,
        Some(Protection::None),
        "it is not where it would be looked for"
    );
    // Its slot is damaged.
    let mut area = AreaImage::tail(&ext2, SlotState::Released);
    let at = area.layout.slot_offset_bytes(1).unwrap();
    area.image(at)[9] ^= 1;
    let row = row(&area.bytes);
    assert_eq!(row.state, State::Damaged);
    assert!(row.reason.as_deref().is_some_and(|reason| reason.contains("checksum")), "{row:#?}");
}

#[test]
fn an_area_has_a_row_for_each_used_slot() {
    let used = [("data", SlotState::Holding), ("", SlotState::Free), ("log", SlotState::Released)];
    let mut area = AreaImage::whole(&used);
    let told = rows(&area.bytes);
    assert_eq!(told.len(), 3, "{told:#?}");
    assert_eq!((told[0].protection, told[0].state), (Some(Protection::Area), State::Usable));
    assert!(notes(&told[0]).contains("2 of 4 slots used"), "{told:#?}");
    let slots: Vec<_> = told[1..].iter().map(|row| row.slot.clone().expect("is a slot")).collect();
    assert_eq!((slots[0].number, slots[0].name.to_string().as_str()), (1, "data"));
    assert_eq!((slots[1].number, slots[1].name.to_string().as_str()), (3, "log"));
    assert_eq!((told[1].state, told[2].state), (State::LiveOrUnclean, State::Clean));
    assert_eq!((told[1].uuid, told[1].generation), (Some(TARGET), Some(7)));
    // Who changes it, or died at that, is shown, too.
    area.slot(0, "lock", SlotState::Holding);
    let told = rows(&area.bytes);
    assert_eq!((told.len(), told[1].slot.as_ref().map(|slot| slot.number)), (4, Some(0)));
    assert!(notes(&told[0]).contains("2 of 4 slots used"), "{told:#?}");
    // One header is enough, and that is told.
    let at = area.layout.copy_offset_bytes();
    area.image(at).fill(0);
    assert!(notes(&rows(&area.bytes)[0]).contains("copy of the header has to be written anew"));
    // Another version's is not understood; a damaged one is damage.
    area.image(0)[0x30] ^= 1;
    assert_eq!(row(&area.bytes).state, State::Damaged);
    let mut later = AreaImage::whole(&[]);
    later.put_header(AreaHeader { incompat: 1, ..later.header });
    assert_eq!(row(&later.bytes).state, State::Unsupported);
    let mut later = AreaImage::whole(&[]);
    later.put_header(AreaHeader { ro_compat: 1, ..later.header });
    let told = row(&later.bytes);
    assert_eq!((told.protection, told.state), (Some(Protection::Area), State::Unusable), "{told:#?}");
}

#[test]
fn a_large_area_has_one_row() {
    let used = vec![("", SlotState::Free); 1024];
    let told = row(&AreaImage::whole(&used).bytes);
    assert_eq!(told.state, State::Usable);
    assert!(notes(&told).contains("1025 slots: `mmp area list`"), "{told:#?}");
}

#[test]
fn what_is_nothing_is_not_enabled_and_what_is_known_is_named() {
    for len in [0, 1, 1023, 2047, 2048, 4095, 4096, 5000, 70_000] {
        let row = row(&vec![0; len]);
        assert_eq!((row.state, row.protection), (State::NotEnabled, Some(Protection::None)), "{len}");
        assert_eq!((row.size_bytes, row.filesystem), (Some(len as u64), None));
    }
    let mut luks = vec![0; 8192];
    luks[..6].copy_from_slice(b"LUKS\xba\xbe");
    assert_eq!(row(&luks).filesystem.as_deref(), Some("crypto_LUKS"));
    assert_eq!(row(&images::load("no-mmp")).filesystem.as_deref(), Some("ext4"));
    // MMP that cannot be reached is not "not enabled".
    let cut = row(&DEMO[..16 << 10]);
    assert_eq!(cut.state, State::Damaged);
    assert!(
        cut.reason.as_deref().is_some_and(|reason| reason.contains("MMP block ends at byte")),
        "{cut:#?}"
    );
}

/// A directory with some images in it.
struct Stage(tempfile::TempDir);

impl Stage {
    fn new() -> Self {
        Stage(tempfile::tempdir_in("/var/tmp").expect("makes a directory"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, bytes).expect("writes");
        path
    }

    fn scan(&self) -> Vec<Row> {
        scan(&[self.path().to_owned()])
    }
}

fn scan(paths: &[PathBuf]) -> Vec<Row> {
    Scanner::new(Settings::default()).paths(paths).rows
}

fn names(row: &Row) -> Vec<&str> {
    row.paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect()
}

#[test]
fn paths_to_one_file_are_one_row_and_copies_are_not() {
    let stage = Stage::new();
    let image = stage.file("a.img", DEMO);
    symlink(&image, stage.path().join("b.link")).expect("links");
    fs::hard_link(&image, stage.path().join("c.hard")).expect("links");
    stage.file("d.copy", DEMO);
    let told = stage.scan();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert_eq!(names(&told[0]), ["a.img", "b.link", "c.hard"]);
    assert_eq!(told[0].nodes.len(), 1);
    assert!(notes(&told[0]).contains("same UUID as") && notes(&told[0]).contains("d.copy"), "{told:#?}");
    assert!(notes(&told[1]).contains("a.img") && !notes(&told[1]).contains("more"), "{told:#?}");
    // Named twice, by itself and by its directory.
    let told = scan(&[image.clone(), stage.path().to_owned(), image]);
    assert_eq!((told.len(), names(&told[0])), (2, vec!["a.img", "b.link", "c.hard"]));
    for copy in 0..5 {
        stage.file(&format!("e{copy}.copy"), DEMO);
    }
    assert!(notes(&stage.scan()[0]).contains("and 3 more"), "{:#?}", stage.scan()[0]);
}

#[test]
fn what_is_no_device_has_a_row_and_is_not_opened() {
    let stage = Stage::new();
    // Opening it would wait for ever.
    nix::unistd::mkfifo(&stage.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("makes a fifo");
    let _listener = std::os::unix::net::UnixListener::bind(stage.path().join("socket")).expect("binds");
    symlink(stage.path().join("nowhere"), stage.path().join("broken")).expect("links");
    fs::create_dir(stage.path().join("below")).expect("makes a directory");
    fs::write(stage.path().join("below/hidden.img"), DEMO).expect("writes");
    stage.file("empty", b"");
    stage.file("junk", &[0xA5; 100_000]);
    let told = stage.scan();
    let states: Vec<_> = told.iter().map(|row| (names(row)[0], row.state)).collect();
    let expected = [
        ("broken", State::Unreadable),
        ("empty", State::NotEnabled),
        ("fifo", State::NoDevice),
        ("junk", State::NotEnabled),
        ("socket", State::NoDevice),
    ];
    assert_eq!(states, expected);
    assert!(told[2].reason.as_deref().is_some_and(|reason| reason.contains("a fifo")), "{told:#?}");
    let named: Vec<PathBuf> =
        vec!["/dev/null".into(), stage.path().join("fifo"), stage.path().join("gone"), stage.path().into()];
    let scan = Scanner::new(Settings::default()).paths(&named);
    assert_eq!(scan.failed, 3, "what stands in a directory was not named: {scan:#?}");
    assert_eq!(scan.rows[0].state, State::NoDevice);
    assert_eq!(scan.rows.len(), 2 + 1 + 5 - 1, "the fifo is there twice: {scan:#?}");
}

#[test]
fn many_are_looked_at_and_nothing_is_kept_or_changed() {
    let stage = Stage::new();
    for number in 0..300 {
        stage.file(&format!("{number:03}.img"), DEMO);
    }
    let before = descriptors(stage.path());
    let told = stage.scan();
    assert_eq!(told.len(), 300);
    assert!(told.iter().all(|row| row.state == State::Clean && row.protection == Some(Protection::Native)));
    assert_eq!((before, descriptors(stage.path())), (0, 0));
    for entry in fs::read_dir(stage.path()).expect("lists") {
        let path = entry.expect("lists").path();
        assert!(fs::read(&path).expect("reads") == DEMO);
        assert_eq!(fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o644);
    }
}

/// How many of this process lead below `directory`.
fn descriptors(directory: &Path) -> usize {
    let fds = fs::read_dir("/proc/self/fd").expect("lists").flatten();
    fds.filter(|fd| fs::read_link(fd.path()).is_ok_and(|path| path.starts_with(directory))).count()
}

fn at(second: u64) -> Mono {
    Mono(1 << 40) + Duration::from_secs(second)
}

/// What a scan of one image with this sequence shows.
fn seen(seq: u32) -> Vec<Row> {
    rows(&with_block(|block| (block.seq, block.time_s) = (seq, u64::from(seq))))
}

#[test]
fn a_block_that_changes_is_live_until_it_has_been_silent_for_too_long() {
    let mut watch = Watch::new();
    let first = watch.observe(seen(5), at(0));
    assert!(matches!(&first[..], [Change::Found(row)] if row.state == State::LiveOrUnclean), "{first:#?}");
    let second = watch.observe(seen(6), at(1));
    let was = |changes: &[Change]| match changes {
        [Change::Changed { was, row }] => (*was, row.state),
        other => panic!("{other:#?}"),
    };
    assert_eq!(was(&second), (State::LiveOrUnclean, State::Live));
    assert!(watch.observe(seen(7), at(2)).is_empty(), "a beat is no news");
    // C is 5 s: he may beat every 2.5 s, so 3.05 s, and the second in which the last beat was not looked for.
    for second in 3..=6 {
        assert!(watch.observe(seen(7), at(second)).is_empty(), "{second}");
    }
    assert_eq!(was(&watch.observe(seen(7), at(7))), (State::Live, State::LiveOrUnclean));
    assert!(watch.observe(seen(7), at(8)).is_empty());
    assert_eq!(was(&watch.observe(seen(0xFF4D_4D50), at(9))), (State::LiveOrUnclean, State::Clean));
    // A claim alone is no beat: it may be older than the look before, on a disk that was put in the place of another.
    assert_eq!(was(&watch.observe(seen(1000), at(10))), (State::Clean, State::LiveOrUnclean));
    assert_eq!(was(&watch.observe(seen(1001), at(11))), (State::LiveOrUnclean, State::Live));
    let gone = watch.observe(Vec::new(), at(11));
    assert!(matches!(&gone[..], [Change::Gone(row)] if row.state == State::Live), "{gone:#?}");
    assert!(matches!(watch.observe(seen(9), at(12))[..], [Change::Found(_)]));
}

#[test]
fn another_disk_in_its_place_is_no_beat() {
    use mmpguard::sys::TargetKind;
    let others: [fn(&mut Row); 5] = [
        |row| row.uuid = Some([7; 16]),
        |row| row.size_bytes = Some(1 << 30),
        |row| row.nodes = vec![TargetKind::Block { major: 8, minor: 0 }],
        |row| row.protection = Some(Protection::TailArea),
        |row| row.block_offset_bytes = Some(1 << 20),
    ];
    for (number, swap) in others.into_iter().enumerate() {
        let swapped = |seq| {
            let mut rows = seen(seq);
            swap(&mut rows[0]);
            rows
        };
        let mut watch = Watch::new();
        watch.observe(seen(5), at(0));
        watch.observe(seen(6), at(1));
        let changes = watch.observe(swapped(9), at(2));
        assert!(
            matches!(&changes[..], [Change::Changed { was: State::Live, row }] if row.state == State::LiveOrUnclean),
            "{number}: {changes:#?}"
        );
        let changes = watch.observe(swapped(10), at(3));
        assert!(
            matches!(&changes[..], [Change::Changed { row, .. }] if row.state == State::Live),
            "{number}"
        );
    }
}

#[test]
fn another_holder_is_a_change() {
    let by = |name: &str, seq| {
        rows(&with_block(|block| (block.seq, block.node) = (seq, mmpguard::format::NodeName::new(name))))
    };
    let mut watch = Watch::new();
    watch.observe(by("alpha", 5), at(0));
    watch.observe(by("alpha", 6), at(1));
    let changes = watch.observe(by("beta", 9), at(2));
    assert!(matches!(&changes[..], [Change::Changed { was: State::Live, .. }]), "{changes:#?}");
}

#[test]
fn an_area_that_is_watched_has_live_slots() {
    let with = |seq: u32| {
        let mut area = AreaImage::whole(&[("data", SlotState::Holding), ("log", SlotState::Holding)]);
        let (seed, at) = (area.header.seed(), area.layout.slot_offset_bytes(1).unwrap());
        let mut block = MmpBlock::fields(area.image(at));
        block.seq = seq;
        block.encode_into(area.image(at), Some(seed));
        rows(&area.bytes)
    };
    let mut watch = Watch::new();
    assert_eq!(watch.observe(with(5), at(0)).len(), 3);
    let changes = watch.observe(with(6), at(1));
    assert!(
        matches!(&changes[..], [Change::Changed { row, .. }] if row.slot.as_ref().is_some_and(|slot| slot.number == 1)
            && row.state == State::Live),
        "{changes:#?}"
    );
}
