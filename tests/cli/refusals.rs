//! What cannot be held: the right exit code at once, one clear sentence, and nothing written.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::{
    MMP, NOBODY, OrdinaryUser, Ran, Scratch, finished, has, is_root, layout, patch_block, patch_superblock,
    ran,
};
use mmpguard::clock;

/// A refusal that waits for nothing comes sooner, also on a busy machine; every watch of a block takes longer.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Exit codes of `show`, `check` and `run`.
struct Codes(i32, i32, i32);

const UNSUPPORTED: Codes = Codes(7, 7, 120);
const DAMAGED: Codes = Codes(3, 3, 123);
const IO: Codes = Codes(4, 4, 124);
const USAGE: Codes = Codes(2, 2, 122);

#[test]
fn no_superblock() {
    let scratch = Scratch::with(|bytes| bytes.fill(0));
    refused(&scratch.image, UNSUPPORTED, "it is not protected");
}

#[test]
fn no_mmp_feature() {
    let scratch = Scratch::with(|bytes| {
        let incompat = layout().superblock.feature_incompat & !0x0100;
        patch_superblock(bytes, 0x60, &incompat.to_le_bytes());
    });
    refused(&scratch.image, UNSUPPORTED, "`mmp enable`");
}

#[test]
fn an_external_journal() {
    let scratch = Scratch::with(|bytes| patch_superblock(bytes, 0x60, &8_u32.to_le_bytes()));
    refused(&scratch.image, UNSUPPORTED, "external journal");
}

#[test]
fn a_damaged_superblock() {
    let scratch = Scratch::with(|bytes| bytes[1024 + 0x3A] ^= 2);
    refused(&scratch.image, DAMAGED, "the superblock is damaged: bad checksum");
}

#[test]
fn the_block_out_of_range() {
    for block in [0, 1, layout().superblock.blocks_count, u64::MAX] {
        let scratch = Scratch::with(|bytes| patch_superblock(bytes, 0x168, &block.to_le_bytes()));
        refused(&scratch.image, DAMAGED, &format!("MMP block {block} is none that the filesystem can have"));
    }
}

#[test]
fn bad_magic() {
    let scratch = Scratch::with(|bytes| bytes[layout().at] ^= 1);
    refused(&scratch.image, DAMAGED, "bad magic");
    advised(&scratch.image, "mmp clear --damaged");
}

#[test]
fn bad_checksum() {
    let scratch = Scratch::with(|bytes| bytes[layout().at + 0x200] ^= 1);
    refused(&scratch.image, DAMAGED, "bad checksum");
}

#[test]
fn an_unknown_sequence() {
    for seq in [0xE24D_4D51, 0xFF4D_4D51] {
        let scratch = Scratch::with(|bytes| patch_block(bytes, |block| block.seq = seq));
        refused(&scratch.image, DAMAGED, &format!("{seq:#010x}"));
        advised(&scratch.image, "mmp clear --damaged");
    }
}

#[test]
fn a_short_device() {
    for (bytes, what) in
        [(0, "0 bytes hold no superblock"), (2047, "2047 bytes"), (22_600, "its MMP block ends")]
    {
        let scratch = Scratch::with(|image| image.truncate(bytes));
        refused(&scratch.image, DAMAGED, what);
    }
}

#[test]
fn a_missing_device() {
    let scratch = Scratch::new();
    refused(&scratch.file("missing"), IO, "No such file");
}

#[test]
fn a_directory_a_fifo_a_character_device() {
    let scratch = Scratch::new();
    refused(scratch.dir(), USAGE, "a directory");
    let fifo = scratch.file("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("makes a fifo");
    refused(&fifo, USAGE, "a fifo");
    refused(Path::new("/dev/zero"), USAGE, "a character device");
}

/// e2fsck's mark is a finding of `show`, not a failure; nobody gets past it.
#[test]
fn the_mark_of_e2fsck() {
    let scratch = Scratch::with(|bytes| patch_block(bytes, |block| block.seq = 0xE24D_4D50));
    for (verb, code) in [("show", 0), ("check", 9), ("run", 121)] {
        let ran = unwritten(&scratch.image, verb, &[], &mut program(None));
        assert_eq!(ran.code, Some(code), "{verb}: {ran:?}");
        let said = format!("{}{}", ran.out, ran.err);
        assert!(said.contains("e2fsck") && said.contains("golden"), "{verb}: {ran:?}");
    }
}

#[test]
fn a_file_that_may_not_be_read_or_written() {
    let user = OrdinaryUser::new();
    let scratch = Scratch::new();
    for (mode, codes) in [(0o000, IO), (0o444, Codes(0, 0, 124))] {
        fs::set_permissions(&scratch.image, fs::Permissions::from_mode(mode)).expect("changes the mode");
        for (verb, code) in verbs(&codes) {
            let ran = unwritten(&scratch.image, verb, &[], &mut program(Some(&user)));
            assert_eq!(ran.code, Some(code), "{verb}, mode {mode:o}: {ran:?}");
            if code != 0 {
                one_sentence(&scratch.image, &ran.err, "Permission denied", &ran);
            }
        }
    }
}

#[test]
fn a_read_only_device() {
    if !is_root("a_read_only_device") {
        return;
    }
    let scratch = Scratch::new();
    let attached = ran(Command::new("losetup").args(["-r", "-f", "--show"]).arg(&scratch.image));
    assert_eq!(attached.code, Some(0), "{attached:?}");
    let device = Path::new(attached.out.trim());
    let outcome = std::panic::catch_unwind(|| {
        for (verb, code) in [("show", 0), ("check", 0), ("run", 124)] {
            let ran = unwritten(device, verb, &[], &mut program(None));
            assert_eq!(ran.code, Some(code), "{verb}: {ran:?}");
            if verb == "run" {
                one_sentence(device, &ran.err, "read-only", &ran);
            }
        }
    });
    ran(Command::new("losetup").arg("-d").arg(device));
    outcome.expect("see above");
    eprintln!("root test run: a_read_only_device");
}

/// All three verbs refuse `path` with these codes, saying `what`, in text and JSON, and write nothing.
fn refused(path: &Path, codes: Codes, what: &str) {
    for (verb, code) in verbs(&codes) {
        let ran = unwritten(path, verb, &[], &mut program(None));
        assert_eq!(ran.code, Some(code), "{verb}: {ran:?}");
        // What `check` finds out is its result; what keeps it from finding out is an error.
        let said = if verb == "check" && ran.err.is_empty() { &ran.out } else { &ran.err };
        one_sentence(path, said, what, &ran);
        if verb == "run" {
            continue;
        }
        let ran = unwritten(path, verb, &["--json"], &mut program(None));
        let report: serde_json::Value = serde_json::from_str(&ran.out).expect("is JSON");
        assert_eq!(
            (ran.code, &report["exit_code"], &report["schema"]),
            (Some(code), &code.into(), &1.into())
        );
        let text = report["message"].as_str().expect("says what");
        assert!(text.contains(what) && ran.err.is_empty(), "{report}");
        assert_eq!(report["device"].as_str(), path.to_str(), "{report}");
        let states: &[&str] = match code {
            7 => &["not_enabled", "unsupported"],
            3 => &["damaged"],
            _ => &["error"],
        };
        assert!(states.contains(&report["state"].as_str().expect("is a text")), "{report}");
        for line in [text, report["advice"].as_str().unwrap_or_default()] {
            assert!(!line.contains('\n'), "more than one line: {report}");
        }
    }
}

/// All three verbs name the remedy, with the device.
fn advised(path: &Path, remedy: &str) {
    let remedy = format!("`{remedy} {}`", path.display());
    for (verb, _) in verbs(&DAMAGED) {
        let ran = unwritten(path, verb, &[], &mut program(None));
        assert!(format!("{}{}", ran.out, ran.err).contains(&remedy), "{verb}: {ran:?}");
    }
}

fn verbs(codes: &Codes) -> [(&'static str, i32); 3] {
    [("show", codes.0), ("check", codes.1), ("run", codes.2)]
}

/// What, where, and at most one further line with what to do.
fn one_sentence(path: &Path, said: &str, what: &str, ran: &Ran) {
    let first = said.lines().next().unwrap_or_default();
    assert!(first.contains(&path.display().to_string()), "does not name {path:?}: {ran:?}");
    assert!(first.contains(what), "does not say {what:?}: {ran:?}");
    assert!(said.lines().count() <= 2, "says too much: {ran:?}");
}

/// The program, perhaps as another user, perhaps under strace.
fn program(user: Option<&OrdinaryUser>) -> Command {
    user.map_or_else(|| Command::new(MMP), OrdinaryUser::mmp)
}

/// Runs a verb on `path`: it ends at once, leaves every byte and time stamp as it was, and opens nothing for writing.
fn unwritten(path: &Path, verb: &str, more: &[&str], program: &mut Command) -> Ran {
    let before = state(path);
    let trace = tempfile::NamedTempFile::new_in("/var/tmp").expect("makes a file");
    let mut command = if has("strace") {
        let mut command = Command::new("strace");
        // -y resolves descriptors, so that an open by another name is found, too.
        command.args([
            "-f",
            "-y",
            "-qq",
            "-s",
            "4096",
            "-e",
            "trace=open,openat,openat2,creat,truncate",
            "-o",
        ]);
        command.arg(trace.path()).arg(program.get_program()).args(program.get_args());
        command
    } else {
        let mut command = Command::new(program.get_program());
        command.args(program.get_args());
        command
    };
    command.arg(verb).args(more).arg(path);
    if verb == "run" {
        // Were it held after all, it would be seen: `show` leaves no trace, this does.
        command.args(["--", "touch"]).arg(path.with_extension("used"));
    }
    let start = clock::mono();
    let output = command
        .env_remove("MMP_NODE_NAME")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let ran = finished(&output, clock::mono().since(start));
    assert!(ran.took < AT_ONCE, "took {:?}: {ran:?}", ran.took);
    assert!(!path.with_extension("used").exists(), "the command ran: {ran:?}");
    assert_eq!(state(path), before, "something was written: {ran:?}");
    let trace = fs::read_to_string(trace.path()).expect("reads the trace");
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let opens: Vec<_> = trace.lines().filter(|line| line.contains(&*real.to_string_lossy())).collect();
    for open in &opens {
        let writable = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "creat(", "truncate("];
        assert!(!writable.iter().any(|flag| open.contains(flag)), "{verb} opened it for writing: {open}");
    }
    // What must be read before it can be refused was opened: the trace does see this path.
    let looked_at = before.as_ref().is_some_and(|state| state.0.len() >= 2048);
    let traced = command.get_program() == "strace" && program.get_program() == MMP;
    assert!(!traced || !looked_at || !opens.is_empty(), "{verb}: the trace shows no open of it: {trace}");
    ran
}

/// All that a write would change. Of a device the bytes; reading them takes root, as having one does.
fn state(path: &Path) -> Option<(Vec<u8>, i64, i64, i64, i64)> {
    let metadata = fs::metadata(path).ok()?;
    let kind = metadata.file_type();
    use std::os::unix::fs::FileTypeExt as _;
    let readable = kind.is_file() || kind.is_block_device();
    let bytes = if readable { fs::read(path).unwrap_or_default() } else { Vec::new() };
    let modified = (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec());
    // A device node's own times change with every open, and so do those of /dev/zero.
    let times = if kind.is_file() || kind.is_dir() { modified } else { (0, 0, 0, 0) };
    Some((bytes, times.0, times.1, times.2, times.3))
}

/// The ordinary user is one: otherwise the tests above prove nothing.
#[test]
fn the_ordinary_user_has_no_privilege() {
    if !is_root("the_ordinary_user_has_no_privilege") {
        return;
    }
    let user = OrdinaryUser::new();
    let scratch = Scratch::new();
    fs::set_permissions(&scratch.image, fs::Permissions::from_mode(0o000)).expect("changes the mode");
    let ran = ran(user.mmp().arg("show").arg(&scratch.image));
    assert_eq!(ran.code, Some(4), "user {NOBODY} reads what he may not: {ran:?}");
}
