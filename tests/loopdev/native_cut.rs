//! `mmp enable` and `disable` killed before each of their writes, on devices: whatever was written before, the kernel mounts the
//! filesystem, and e2fsck repairs it without asking for anything.

use std::path::Path;
use std::thread;

use nix::libc::EBADMSG;

use crate::Case;
use crate::harness::guarded::{spoiled, write_files};
use crate::harness::lun::{Lun, command, must, text};
use crate::harness::started::patiently;
use crate::harness::{observed, seconds};
use crate::native::{is_sound, plain};
use crate::race;

pub(crate) const CASES: &[Case] = &[
    ("native_cut_1_enable_killed_before_each_write_on_ten_layouts", enabling),
    ("native_cut_2_disable_killed_before_each_write_on_four_layouts", disabling),
];

const FILES: usize = 8;
/// More writes than any of it takes.
const WRITES_MAX: u32 = 100;
/// For so long a write is held up: until the process is killed.
const HELD_UP_MS: &str = "600000";

const LAYOUTS: [(&str, &[&str]); 10] = [
    ("ext2, 1 KiB", &["-t", "ext2", "-b", "1024", "-g", "8192"]),
    ("ext3, 1 KiB, many groups", &["-t", "ext3", "-b", "1024", "-g", "1024"]),
    ("4 KiB", &["-b", "4096"]),
    ("2 KiB, no flex_bg", &["-b", "2048", "-O", "^flex_bg,^resize_inode", "-g", "8192"]),
    ("no checksums", &["-O", "^metadata_csum", "-b", "1024"]),
    ("uninit_bg", &["-O", "^metadata_csum,uninit_bg,^64bit", "-b", "1024", "-g", "4096"]),
    ("csum_seed", &["-O", "metadata_csum_seed", "-b", "1024", "-g", "8192"]),
    ("meta_bg", &["-O", "meta_bg,^resize_inode", "-b", "1024", "-g", "1024"]),
    ("sparse_super2", &["-O", "sparse_super2,^resize_inode", "-b", "1024", "-g", "8192"]),
    ("bigalloc", &["-O", "bigalloc", "-C", "16384", "-b", "4096"]),
];

const BYTES: u64 = 48 << 20;

struct Made {
    lun: Lun,
    name: &'static str,
}

impl Made {
    /// With files on it.
    fn new(name: &'static str, options: &[&str]) -> Made {
        let lun = plain(BYTES, options);
        let dir = lun.mounted(&lun.a);
        write_files(&dir, "file", FILES).expect("writes");
        lun.umount(&lun.a, &dir);
        Made { lun, name }
    }

    /// Runs `mmp` and kills it before its `nth` write; false if it makes no so many, and ended well.
    fn cut_before(&self, nth: u32, arguments: &[&str], library: &Path, but: Option<u64>) -> bool {
        let log = self.lun.file(&format!("cut-{nth}"));
        let mut env = vec![
            ("LD_PRELOAD", text(library).to_owned()),
            ("SLOW_WRITE_NTH", nth.to_string()),
            ("SLOW_WRITE_MS", HELD_UP_MS.to_owned()),
            ("SLOW_WRITE_LOG", text(&log).to_owned()),
        ];
        env.extend(but.map(|offset| ("SLOW_WRITE_BUT", offset.to_string())));
        let mut started = self.lun.start_with(env!("CARGO_BIN_EXE_mmp"), arguments, &env);
        let cut = patiently(seconds(60), || match started.has_ended() {
            true => Some(false),
            false => log.exists().then_some(true),
        });
        match cut.expect("writes or ends") {
            true => drop(started),
            false => drop(started.end(seconds(1)).expect(0)),
        }
        log.exists()
    }

    /// What was left mounts, and is repaired, with all that stood in it and all that the kernel took since. Between a bitmap and its
    /// checksum the kernel takes nothing in that group, and says so.
    fn survives(&self, what: &str) {
        let case = format!("{}, {what}", self.name);
        let dir = self.lun.mounted(&self.lun.a);
        assert_eq!(spoiled(&dir, "file", FILES), 0, "{case}: mounted as it was left");
        let taken = write_files(&dir, "later", FILES);
        self.lun.umount(&self.lun.a, &dir);
        let repaired = command("e2fsck", &["-fy", self.lun.b.path()]);
        let said = String::from_utf8_lossy(&repaired.stdout);
        assert!(matches!(repaired.status.code(), Some(0 | 1)), "{case}: e2fsck -fy: {repaired:?}");
        assert!(!said.contains("ultiply-claimed"), "{case}: {said}");
        is_sound(&case, self.lun.b.path());
        let dir = self.lun.mounted(&self.lun.b);
        assert_eq!(spoiled(&dir, "file", FILES), 0, "{case}: after e2fsck");
        match taken {
            Ok(()) => assert_eq!(spoiled(&dir, "later", FILES), 0, "{case}: after e2fsck"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(EBADMSG), "{case}: {error}");
                assert!(said.contains("itmap"), "{case}: {said}");
                observed("native cut", &format!("{case}: the kernel takes no block there until e2fsck ran"));
            }
        }
        self.lun.umount(&self.lun.b, &dir);
    }
}

/// Two at a time: they work, rather than sleep.
fn enabling() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let library = race::build(directory.path());
    let mut cuts = 0;
    for pair in LAYOUTS.chunks(2) {
        cuts += thread::scope(|scope| {
            let playing: Vec<_> = pair
                .iter()
                .map(|(name, options)| scope.spawn(|| enable_cut(name, options, &library)))
                .collect();
            playing.into_iter().map(|cut| cut.join().expect("passes")).sum::<u32>()
        });
    }
    observed("native cut", &format!("`mmp enable`: {cuts} cuts on {} layouts, none refused", LAYOUTS.len()));
    assert!(cuts >= 30, "{cuts} cuts");
}

fn enable_cut(name: &'static str, options: &[&str], library: &Path) -> u32 {
    let made = Made::new(name, options);
    let fresh = std::fs::read(made.lun.image()).expect("reads");
    for nth in 1..=WRITES_MAX {
        if !made.cut_before(nth, &["enable", made.lun.a.path()], library, None) {
            made.lun.verb(&["enable", made.lun.a.path()]).expect(0).says("protected already");
            is_sound(name, made.lun.a.path());
            made.survives("enabled");
            return nth - 1;
        }
        made.survives(&format!("killed before write {nth}"));
        made.put_back(&fresh);
    }
    panic!("{name}: it makes more than {WRITES_MAX} writes");
}

impl Made {
    /// As it was, through the page cache of neither loop device.
    fn put_back(&self, bytes: &[u8]) {
        use std::os::unix::fs::FileExt as _;
        let file = std::fs::File::options().write(true).open(self.lun.image()).expect("opens");
        file.write_all_at(bytes, 0).expect("writes");
        file.sync_all().expect("syncs");
        for device in [&self.lun.a, &self.lun.b] {
            must("blockdev", &["--flushbufs", device.path()]);
        }
    }
}

/// Each cut takes the wait of a claim, so each has a LUN of its own, side by side.
fn disabling() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let library = race::build(directory.path());
    let layouts = [LAYOUTS[0], LAYOUTS[2], LAYOUTS[5], LAYOUTS[9]];
    let cuts = thread::scope(|scope| {
        let playing: Vec<_> = layouts
            .into_iter()
            .flat_map(|layout| (1..=5).map(move |nth| (layout, nth)))
            .map(|((name, options), nth)| {
                scope.spawn({
                    let library = &library;
                    move || disable_cut(name, options, nth, library)
                })
            })
            .collect();
        playing.into_iter().map(|cut| cut.join().expect("passes")).filter(|cut| *cut).count()
    });
    observed("native cut", &format!("`mmp disable`: {cuts} cuts on {} layouts, none refused", layouts.len()));
    // The superblock, the bitmap and the descriptors at least.
    assert!(cuts >= 3 * layouts.len(), "{cuts} cuts");
}

fn disable_cut(name: &'static str, options: &[&str], nth: u32, library: &Path) -> bool {
    let made = Made::new(name, options);
    made.lun.verb(&["enable", made.lun.a.path()]).expect(0);
    let block = u64::try_from(made.lun.raw().offset).expect("fits");
    let cut = made.cut_before(nth, &["disable", made.lun.a.path()], library, Some(block));
    if cut && nth == 1 {
        // Before the first of them MMP is on, and our claim stands: whoever comes waits, and gets in.
        let checked = made.lun.verb(&["check", made.lun.b.path()]);
        checked.expect(8);
    }
    made.survives(&format!("disable, killed before write {nth}"));
    cut
}
