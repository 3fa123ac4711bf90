//! `mmp clear` on image files: what is cleared, after how much watching, what is refused and for whom, and that nothing but the MMP block
//! is ever written. Needs no root.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use mmpguard::clock;
use mmpguard::format::{Image, MmpBlock, NodeName, Superblock};
use mmpguard::protocol::Sequence;

use crate::images;
use crate::support::{
    MMP, OrdinaryUser, Ran, Scratch, ended, interrupt, mmp, patch_block, patch_superblock, ran, start,
    superblock_of, write_block,
};

/// What waits for nothing ends sooner, also on a busy machine; every watch takes longer.
const AT_ONCE: Duration = Duration::from_secs(5);
pub(crate) const LIVE: u32 = 0x1234_5678;
pub(crate) const MARK: u32 = 0xE24D_4D50;
pub(crate) const UNKNOWN: u32 = 0xE24D_4D51;

fn text(path: &Path) -> &str {
    path.to_str().expect("is UTF-8")
}

fn clear(path: &Path, more: &[&str]) -> Ran {
    mmp(["clear", "--node", "beta"].iter().chain(more).copied().chain([text(path)]))
}

/// The demo image with another sequence in its block.
pub(crate) fn with_sequence(seq: u32) -> Scratch {
    Scratch::with(|bytes| patch_block(bytes, |block| block.seq = seq))
}

/// Ends at once with that code, says these words, and leaves every byte.
fn untouched(path: &Path, more: &[&str], code: i32, words: &[&str]) -> Ran {
    let before = fs::read(path).expect("reads");
    let ran = clear(path, more);
    assert_eq!(ran.code, Some(code), "{more:?}: {ran:?}");
    assert!(ran.took < AT_ONCE, "{ran:?}");
    assert!(fs::read(path).expect("reads") == before, "{more:?} wrote something: {ran:?}");
    for word in words {
        assert!(ran.err.contains(word), "does not say {word:?}: {ran:?}");
    }
    ran
}

/// Where the MMP block is, by the superblock of an image.
fn layout(bytes: &[u8]) -> (Superblock, usize) {
    let superblock = Superblock::decode(superblock_of(bytes)).expect("decodes");
    let at = usize::try_from(superblock.mmp_offset_bytes().expect("has MMP")).expect("is small");
    (superblock, at)
}

/// The block, and whether what has no field in it is as in `before`; nothing else may differ.
fn block_alone(before: &[u8], after: &[u8]) -> (MmpBlock, bool) {
    let (superblock, at) = layout(before);
    assert_eq!(before.len(), after.len());
    assert!(before[..at] == after[..at], "something before the block was written");
    assert!(before[at + 1024..] == after[at + 1024..], "something after the struct was written");
    let image: &Image = after[at..][..1024].try_into().expect("has that length");
    let block = MmpBlock::decode(image, superblock.checksum_seed).expect("decodes");
    (block, before[at + 0x72..at + 0x3FC] == after[at + 0x72..at + 0x3FC])
}

#[test]
fn what_is_clean_is_left_as_it_is() {
    let scratch = Scratch::new();
    untouched(&scratch.image, &[], 0, &["clean already", "golden"]);
    assert!(!untouched(&scratch.image, &["--force"], 0, &[]).err.contains("needs_recovery"));
    assert_eq!(untouched(&scratch.image, &["-q"], 0, &[]).err, "");
    // Nothing of the block is wrong; a mount has something to do all the same.
    let recover = Scratch::with(|bytes| {
        let incompat = layout(bytes).0.feature_incompat | 0x0004;
        patch_superblock(bytes, 0x60, &incompat.to_le_bytes());
        patch_superblock(bytes, 0x5C, &4_u32.to_le_bytes());
    });
    untouched(&recover.image, &[], 0, &["clean already", "needs_recovery", "mount", "e2fsck"]);
}

#[test]
fn without_a_terminal_e2fscks_mark_takes_its_nodes_name() {
    let scratch = with_sequence(MARK);
    let asked =
        untouched(&scratch.image, &[], 9, &["e2fsck", "golden", "last update", "ago", "--yes-node golden"]);
    assert!(!asked.err.contains("watching it"), "{asked:?}");
    untouched(&scratch.image, &["--yes-node", "golde"], 9, &["does not name the node", "golden"]);
    untouched(&scratch.image, &["--yes-node", "golden "], 9, &["does not name the node"]);
    untouched(&scratch.image, &["--yes-node", ""], 9, &["does not name the node"]);
    // Leaving the watch out is no word for the node.
    let forced = untouched(&scratch.image, &["--force"], 9, &["--yes-node golden"]);
    assert!(!forced.err.contains("without a watch"), "{forced:?}");
    untouched(&scratch.image, &["--force", "--yes-node", "beta"], 9, &["does not name the node"]);
    untouched(&scratch.image, &["--damaged"], 9, &["--yes-node golden"]);
}

#[test]
fn without_a_terminal_nothing_is_forced_without_a_word() {
    let live = with_sequence(LIVE);
    let forced = untouched(&live.image, &["--force"], 6, &["not confirmed", "--yes-node golden"]);
    assert!(!forced.err.contains("without a watch"), "{forced:?}");
    untouched(&live.image, &["--force", "--yes-node", "beta"], 2, &["does not name the node"]);
    let damaged = Scratch::new();
    fs::write(&damaged.image, images::load("damaged-magic")).expect("writes");
    untouched(&damaged.image, &["--damaged", "--force", "--yes-node", "golden"], 2, &["names nobody"]);
}

#[test]
fn a_name_that_cannot_be_typed_is_given_as_it_is_shown() {
    let hostile = b"a\x1b[2J'$(x)\xff\\";
    let scratch = Scratch::with(|bytes| {
        let mut field = [0; 64];
        field[..hostile.len()].copy_from_slice(hostile);
        patch_block(bytes, |block| {
            (block.seq, block.node) = (MARK, NodeName::from_field(field));
        });
    });
    let shown = r"a\x1b[2J'$(x)\xff\\";
    let quoted = r"--yes-node 'a\x1b[2J'\''$(x)\xff\\'";
    let ran = untouched(&scratch.image, &[], 9, &[shown, quoted]);
    assert!(!ran.err.contains('\x1b'), "{ran:?}");
    untouched(&scratch.image, &["--yes-node", "a[2J"], 9, &["does not name the node"]);
    let ran = clear(&scratch.image, &["--force", "--yes-node", shown]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(!ran.err.contains('\x1b'), "{ran:?}");
    assert_eq!(Sequence::from(scratch.block().seq), Sequence::Clean);
}

#[test]
fn a_block_that_says_nothing_is_cleared_by_who_says_so() {
    for name in ["damaged-magic", "damaged-checksum", "sequence-unknown"] {
        let scratch = Scratch::new();
        fs::write(&scratch.image, images::load(name)).expect("writes");
        untouched(&scratch.image, &[], 3, &["mmp clear --damaged"]);
        untouched(&scratch.image, &["--force"], 3, &["mmp clear --damaged"]);
        let before = scratch.bytes();
        let ran = clear(&scratch.image, &["--damaged", "--force"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.err.contains("without a watch") && ran.took < AT_ONCE, "{ran:?}");
        let (block, _) = block_alone(&before, &scratch.bytes());
        assert_eq!(Sequence::from(block.seq), Sequence::Clean, "{name}");
        is_sound(&scratch.image);
    }
}

#[test]
fn a_name_that_is_given_has_to_be_the_blocks() {
    untouched(&with_sequence(LIVE).image, &["--yes-node", "alpha"], 2, &["does not name the node", "golden"]);
    untouched(
        &with_sequence(LIVE).image,
        &["--force", "--yes-node", "alpha"],
        2,
        &["does not name the node"],
    );
    let unknown = ["--damaged", "--force", "--yes-node", "alpha"];
    untouched(&with_sequence(UNKNOWN).image, &unknown, 2, &["does not name the node"]);
}

#[test]
fn by_force_it_is_done_at_once_and_said_what_that_risks() {
    for (seq, more) in [
        (LIVE, &["--force", "--yes-node", "golden"][..]),
        (0, &["--force", "-q", "--yes-node", "golden"]),
        (MARK, &["--force", "--yes-node", "golden"]),
    ] {
        let scratch = with_sequence(seq);
        let before = scratch.bytes();
        let ran = clear(&scratch.image, more);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.took < AT_ONCE, "{ran:?}");
        for word in ["without a watch", "golden", "two hosts", "without any wait"] {
            assert!(ran.err.contains(word), "does not say {word:?}: {ran:?}");
        }
        let (block, _) = block_alone(&before, &scratch.bytes());
        assert_eq!((Sequence::from(block.seq), block.node), (Sequence::Clean, NodeName::new("beta")));
        // As e2fsprogs writes it, so that a holder tells it from a successor's end.
        assert!(block.device.bytes().starts_with(b"/var/tmp/"), "{}", block.device);
        is_sound(&scratch.image);
    }
}

#[test]
fn what_is_used_here_or_may_not_be_written_is_refused() {
    let scratch = with_sequence(LIVE);
    let open = fs::File::options().write(true).open(&scratch.image).expect("opens");
    for more in [&[][..], &["--force"]] {
        untouched(&scratch.image, more, 1, &["in use on this host", "has it open for writing"]);
    }
    drop(open);
    let user = OrdinaryUser::new();
    fs::set_permissions(&scratch.image, fs::Permissions::from_mode(0o444)).expect("changes the mode");
    let before = scratch.bytes();
    for more in [&[][..], &["--force"]] {
        let ran = ran(user.mmp().arg("clear").args(more).arg(&scratch.image));
        assert_eq!(ran.code, Some(4), "{ran:?}");
        assert!(ran.err.contains("Permission denied") && scratch.bytes() == before, "{ran:?}");
    }
    let missing = clear(&scratch.file("missing"), &[]);
    assert!(missing.code == Some(4) && missing.err.contains("No such file"), "{missing:?}");
}

/// Somebody beats: refused at the first change, whatever is vouched for.
#[test]
fn whoever_is_alive_is_not_cleared_away() {
    let cases: [(u32, &[&str], i32); 4] = [
        (LIVE, &[], 1),
        (LIVE, &["--yes-node", "golden"], 1),
        // e2fsck renews its mark with another stamp.
        (MARK, &["--yes-node", "golden"], 9),
        (UNKNOWN, &["--damaged"], 1),
    ];
    thread::scope(|scope| {
        for (seq, more, code) in cases {
            scope.spawn(move || {
                let scratch = with_sequence(seq);
                let clearing = start_clear(&scratch.image, more);
                clock::sleep(Duration::from_secs(2));
                let mut block = scratch.block();
                block.time_s += 60;
                if seq != MARK {
                    block.seq = LIVE + 1;
                }
                write_block(&scratch.image, &block);
                let ran = ended(clearing);
                assert_eq!(ran.code, Some(code), "{ran:?}");
                assert!(ran.err.contains("golden"), "{ran:?}");
                assert_eq!(scratch.block(), block, "it was written over: {ran:?}");
            });
        }
    });
}

/// All real waits, side by side.
#[test]
fn what_is_stale_is_claimed_in_full_and_cleared() {
    thread::scope(|scope| {
        for (name, more, least_s) in [
            ("kernel-live", &[][..], 23.5),
            ("claim-killed", &[], 23.5),
            ("sequence-0", &[], 23.5),
            ("fsck-mark", &["--yes-node", "golden"], 23.5),
            ("sequence-unknown", &["--damaged"], 23.5),
            ("damaged-magic", &["--damaged"], 34.5),
            ("damaged-checksum", &["--damaged"], 34.5),
        ] {
            scope.spawn(move || one_is_cleared(name, more, least_s));
        }
        scope.spawn(interrupted_before_the_claim);
        scope.spawn(interrupted_after_the_claim);
    });
}

fn one_is_cleared(name: &str, more: &[&str], least_s: f64) {
    let scratch = Scratch::new();
    let before = images::load(name);
    fs::write(&scratch.image, &before).expect("writes");
    let ran = clear(&scratch.image, more);
    assert_eq!(ran.code, Some(0), "{name}: {ran:?}");
    assert!(ran.took.as_secs_f64() >= least_s, "{name}: two waits were not watched: {ran:?}");
    assert!(ran.err.contains("watching it for") && ran.err.contains("cleared"), "{name}: {ran:?}");
    let (block, padding_is_kept) = block_alone(&before, &scratch.bytes());
    assert_eq!((Sequence::from(block.seq), block.node), (Sequence::Clean, NodeName::new("beta")), "{name}");
    assert!(padding_is_kept || name.starts_with("damaged"), "{name}: what has no field was written over");
    assert_eq!(ran.err.contains("needs_recovery"), name == "kernel-live", "{name}: {ran:?}");
    match name {
        "kernel-live" | "fsck-mark" => {}
        _ => is_sound(&scratch.image),
    }
    untouched(&scratch.image, &[], 0, &["clean already"]);
}

/// Nothing was written yet.
fn interrupted_before_the_claim() {
    let scratch = with_sequence(MARK);
    let before = scratch.bytes();
    let clearing = start_clear(&scratch.image, &["--yes-node", "golden"]);
    clock::sleep(Duration::from_secs(3));
    interrupt(&clearing);
    let ran = ended(clearing);
    assert_eq!(ran.code, Some(6), "{ran:?}");
    assert!(ran.err.contains("nothing was written") && scratch.bytes() == before, "{ran:?}");
}

/// The mark is gone, a claim stands, and that is said.
fn interrupted_after_the_claim() {
    let scratch = with_sequence(LIVE);
    let clearing = start_clear(&scratch.image, &[]);
    let claimed = || scratch.block().node == NodeName::new("beta");
    let until = clock::mono() + Duration::from_secs(60);
    while !claimed() {
        assert!(clock::mono() < until, "{:?}", ended(clearing));
        clock::sleep(Duration::from_millis(200));
    }
    interrupt(&clearing);
    let ran = ended(clearing);
    assert_eq!(ran.code, Some(6), "{ran:?}");
    assert!(ran.err.contains("withdrawn") && ran.err.contains("run `mmp clear` again"), "{ran:?}");
    assert!(matches!(Sequence::from(scratch.block().seq), Sequence::Live(_)), "{ran:?}");
}

/// An area whose interval is 100 ms: two waits are 2.2 s.
#[test]
fn a_slot_is_claimed_and_cleared_and_never_by_force() {
    let scratch = Scratch::new();
    let control = scratch.file("control");
    let done = |arguments: &[&str]| {
        let ran = mmp(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
        ran
    };
    done(&["area", "create", "--slots", "2", "--interval", "100ms", text(&control)]);
    done(&["area", "slot", "add", text(&control), "data"]);
    let slot = PathBuf::from(format!("{}:data", text(&control)));
    let generation = || {
        let ran = done(&["show", "--json", text(&slot)]);
        let report: serde_json::Value = serde_json::from_str(&ran.out).expect("is JSON");
        report["generation"].as_u64().unwrap_or_else(|| panic!("{report:#}"))
    };
    done(&["run", "--node", "alpha", text(&slot), "--", "true"]);
    assert!(done(&["clear", text(&slot)]).err.contains("clean already"));
    let first = generation();

    let mut run = Command::new(MMP)
        .args(["run", "--node", "alpha", text(&slot), "--", "sleep", "1000"])
        .env_remove("MMP_NODE_NAME")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    clock::sleep(Duration::from_secs(4));
    let live = mmp(["clear", text(&slot)]);
    assert_eq!(live.code, Some(1), "{live:?}");
    assert!(live.err.contains("alpha") && live.err.contains("alive"), "{live:?}");
    run.kill().expect("kills it");
    run.wait().expect("ends");
    for more in ["--force", "--damaged"] {
        let ran = mmp(["clear", more, text(&slot)]);
        assert_eq!(ran.code, Some(7), "{ran:?}");
        assert!(ran.err.contains("slot of an area") && ran.err.contains("mmp area repair"), "{ran:?}");
    }
    let ran = done(&["clear", "--node", "beta", text(&slot)]);
    assert!(ran.err.contains("cleared") && ran.took >= Duration::from_millis(2200), "{ran:?}");
    assert!(generation() >= first + 2, "a claim of its own after the one that died");
    assert!(done(&["check", text(&slot)]).out.contains("free"));
}

fn start_clear(path: &Path, more: &[&str]) -> Child {
    start(&[&["clear", "--node", "beta"], more, &[text(path)]].concat())
}

/// e2fsprogs find nothing to complain about.
fn is_sound(path: &Path) {
    if !Path::new("/sbin/e2fsck").exists() {
        return;
    }
    let ran = ran(Command::new("/sbin/e2fsck").arg("-fn").arg(path));
    assert_eq!(ran.code, Some(0), "{ran:?}");
}
