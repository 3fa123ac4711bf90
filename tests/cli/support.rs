//! Images to point the command at, and ways to run it.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use mmpguard::clock;
use mmpguard::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET_BYTES};
use mmpguard::format::{Image, MmpBlock, Superblock, checksum::ext4_crc32c};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// An ext4 filesystem of 64 KiB with MMP, update interval 1 s, left clean by a node called "golden".
const DEMO: &[u8] = include_bytes!("../../testimages/demo.img");
const SUPERBLOCK: usize = 1024;
const _: () = assert!(SUPERBLOCK as u64 == SUPERBLOCK_OFFSET_BYTES);
const CHECKSUM: usize = 0x3FC;

/// An image file in a directory of its own, on a real disk, reachable by every user.
pub(crate) struct Scratch {
    dir: TempDir,
    pub(crate) image: PathBuf,
}

/// Where a test's image has its MMP block.
pub(crate) struct Layout {
    pub(crate) superblock: Superblock,
    pub(crate) at: usize,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// The demo image after `change`.
    pub(crate) fn with(change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").expect("makes a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("opens it to all");
        let image = dir.path().join("disk.img");
        let mut bytes = DEMO.to_vec();
        change(&mut bytes);
        fs::write(&image, bytes).expect("writes the image");
        Scratch { dir, image }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Another file in the directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        fs::read(&self.image).expect("reads the image")
    }

    pub(crate) fn block(&self) -> MmpBlock {
        let bytes = self.bytes();
        let layout = layout();
        MmpBlock::decode(image_at(&bytes, layout.at), layout.superblock.checksum_seed).expect("decodes")
    }
}

/// Puts `block` into an image, as another host would.
pub(crate) fn write_block(path: &Path, block: &MmpBlock) {
    use std::os::unix::fs::FileExt as _;
    let layout = layout();
    let mut image = *image_at(&fs::read(path).expect("reads"), layout.at);
    block.encode_into(&mut image, layout.superblock.checksum_seed);
    let file = fs::OpenOptions::new().write(true).open(path).expect("opens");
    file.write_all_at(&image, layout.at as u64).expect("writes");
}

/// The demo image's layout.
pub(crate) fn layout() -> Layout {
    let superblock = Superblock::decode(superblock_of(DEMO)).expect("decodes");
    let at = superblock.mmp_offset_bytes().expect("has MMP");
    Layout { superblock, at: usize::try_from(at).expect("is small") }
}

pub(crate) fn superblock_of(bytes: &[u8]) -> &[u8; SUPERBLOCK_BYTES] {
    bytes[SUPERBLOCK..][..SUPERBLOCK_BYTES].try_into().expect("has its length")
}

fn image_at(bytes: &[u8], at: usize) -> &Image {
    bytes[at..][..1024].try_into().expect("has its length")
}

/// Changes bytes of the superblock and makes its checksum fit again.
pub(crate) fn patch_superblock(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes[SUPERBLOCK + at..][..with.len()].copy_from_slice(with);
    let sum = ext4_crc32c(u32::MAX, &bytes[SUPERBLOCK..][..CHECKSUM]);
    bytes[SUPERBLOCK + CHECKSUM..][..4].copy_from_slice(&sum.to_le_bytes());
}

/// Changes the fields of the MMP block, checksum included.
pub(crate) fn patch_block(bytes: &mut [u8], change: impl FnOnce(&mut MmpBlock)) {
    let layout = layout();
    let mut image = *image_at(bytes, layout.at);
    let mut block = MmpBlock::fields(&image);
    change(&mut block);
    block.encode_into(&mut image, layout.superblock.checksum_seed);
    bytes[layout.at..][..1024].copy_from_slice(&image);
}

/// The program under test.
pub(crate) const MMP: &str = env!("CARGO_BIN_EXE_mmp");

/// How a run of it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) took: Duration,
}

/// Runs it with `arguments` to its end; standard input is empty.
pub(crate) fn mmp<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Ran {
    ran(Command::new(MMP).args(arguments))
}

/// Runs `command` to its end; standard input is empty.
pub(crate) fn ran(command: &mut Command) -> Ran {
    let start = clock::mono();
    let output = command
        .env_remove("MMP_NODE_NAME")
        .env_remove("MMP_ON_LOSS")
        .env_remove("MMP_CONFIG")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    finished(&output, clock::mono().since(start))
}

pub(crate) fn finished(output: &Output, took: Duration) -> Ran {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("only says UTF-8");
    let ran = Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr), took };
    assert!(!ran.err.contains("panicked"), "{ran:?}");
    ran
}

/// Begins a run of the program.
pub(crate) fn start(arguments: &[&str]) -> Child {
    Command::new(MMP)
        .args(arguments)
        .env_remove("MMP_NODE_NAME")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts")
}

/// As Ctrl-C does.
pub(crate) fn interrupt(child: &Child) {
    kill(Pid::from_raw(i32::try_from(child.id()).expect("fits")), Signal::SIGINT).expect("signals");
}

/// Waits for its end.
pub(crate) fn ended(child: Child) -> Ran {
    let start = clock::mono();
    let output = child.wait_with_output().expect("ends");
    finished(&output, clock::mono().since(start))
}

/// Runs `line` on a pseudo terminal. `keys` sees what was shown, until it gives what is typed. Gives what was shown in the end and the exit
/// code; None where there is no script(1).
pub(crate) fn on_a_terminal(
    line: &str,
    mut keys: impl FnMut(&str) -> Option<Vec<u8>>,
) -> Option<(String, Option<i32>)> {
    if !has("script") {
        return None;
    }
    let mut terminal = Command::new("script")
        .args(["-q", "-e", "-c", line, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let mut input = terminal.stdin.take().expect("is a pipe");
    let mut output = terminal.stdout.take().expect("is a pipe");
    let (mut shown, mut buffer, mut typed) = (Vec::new(), [0; 4096], false);
    while let Ok(length @ 1..) = output.read(&mut buffer) {
        shown.extend(&buffer[..length]);
        if let (false, Some(keys)) = (typed, keys(&String::from_utf8_lossy(&shown))) {
            input.write_all(&keys).and_then(|()| input.flush()).expect("types");
            typed = true;
        }
    }
    let code = terminal.wait().expect("ends").code();
    Some((String::from_utf8_lossy(&shown).into_owned(), code))
}

/// Whether a tool can be used; says so if not.
pub(crate) fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").stdin(Stdio::null()).output().is_ok();
    if !found {
        assert!(!must_run(), "no {tool} here, and MMPGUARD_REQUIRE_ROOT=1 says that everything must run");
        eprintln!("SKIPPED in part: no {tool} here");
    }
    found
}

fn must_run() -> bool {
    std::env::var_os("MMPGUARD_REQUIRE_ROOT").is_some_and(|value| value == "1")
}

/// Whether a test that needs root can run.
pub(crate) fn is_root(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(!must_run(), "{test} needs root, and MMPGUARD_REQUIRE_ROOT=1 says that it must run");
    eprintln!("SKIPPED: {test} needs root");
    false
}

/// Makes root's commands an ordinary user's: a copy of the program that he can reach, and how to become him.
pub(crate) struct OrdinaryUser {
    _dir: TempDir,
    program: PathBuf,
}

/// Nobody, on every Linux.
pub(crate) const NOBODY: u32 = 65_534;

impl OrdinaryUser {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").expect("makes a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("opens it to all");
        let program = dir.path().join("mmp");
        fs::copy(MMP, &program).expect("copies the program");
        OrdinaryUser { _dir: dir, program }
    }

    /// The program, run without any privilege: as we are, or as nobody if we are root.
    pub(crate) fn mmp(&self) -> Command {
        if !nix::unistd::geteuid().is_root() {
            return Command::new(&self.program);
        }
        let mut command = Command::new("setpriv");
        let id = NOBODY.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(&self.program);
        command
    }

    /// Lets him have what is at `path`.
    pub(crate) fn owns(&self, path: &Path) {
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("gives it away");
        }
    }
}
