//! Images of mke2fs(8), and what e2fsprogs does with them.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::thread;

use mmpguard::Error;
use mmpguard::ext4::{self, Planned, Wanted};
use mmpguard::format::{DeviceName, NodeName};
use mmpguard::io::{Device, Editor};

const TOOLS: [&str; 5] = ["mke2fs", "tune2fs", "e2fsck", "debugfs", "dumpe2fs"];
/// So many cases run side by side: tune2fs sleeps for most of the time.
const SIDE_BY_SIDE: usize = 12;

/// Whether the tools are here.
pub(crate) fn has_tools() -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let here = |tool: &&str| path.split(':').any(|dir| Path::new(dir).join(tool).exists());
    let Some(missing) = TOOLS.iter().find(|tool| !here(tool)) else { return true };
    let must = std::env::var_os("MMPGUARD_REQUIRE_TOOLS").is_some_and(|value| value == "1");
    assert!(!must, "no {missing} here, and MMPGUARD_REQUIRE_TOOLS=1 says that everything must run");
    eprintln!("SKIPPED: no {missing} here");
    false
}

/// Runs a case for each of `cases`, several at once, and fails with all that failed.
pub(crate) fn for_each<T: Sync>(cases: &[T], name: impl Fn(&T) -> String + Sync, case: impl Fn(&T) + Sync) {
    let queue = Mutex::new(cases.iter());
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE.min(cases.len()) {
            scope.spawn(|| {
                loop {
                    let Some(one) = queue.lock().unwrap().next() else { break };
                    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(one)));
                    if caught.is_err() {
                        failed.lock().unwrap().push(name(one));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "failed: {failed:?}");
}

/// A folder of images that share a beginning.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A copy of an image under another name.
    pub(crate) fn copy(&self, from: &Path, name: &str) -> PathBuf {
        let to = self.path(name);
        let (from, into) = (from.to_str().unwrap(), to.to_str().unwrap());
        good("cp", &["--sparse=always", "--reflink=auto", from, into]);
        to
    }

    /// Makes an image.
    pub(crate) fn mke2fs(&self, name: &str, size: &str, args: &[&str]) -> PathBuf {
        let image = self.path(name);
        let path = image.to_str().unwrap();
        good("truncate", &["--size", size, path]);
        let mut all = vec!["-q", "-F", "-E", "nodiscard"];
        all.extend_from_slice(args);
        all.extend_from_slice(&[path, size]);
        good("mke2fs", &all);
        image
    }
}

/// Runs a program and gives what it said.
pub(crate) fn run(program: &str, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(args).env("LC_ALL", "C").env("MKE2FS_CONFIG", "/nonexistent").env("PAGER", "cat");
    command.stdin(std::process::Stdio::null()).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Runs a program that must succeed, and gives what it printed.
pub(crate) fn good(program: &str, args: &[&str]) -> String {
    let output = run(program, args);
    assert!(output.status.success(), "{program} {args:?}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Both of its outputs.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

/// e2fsck finds nothing.
pub(crate) fn clean(image: &Path) {
    let output = run("e2fsck", &["-fn", image.to_str().unwrap()]);
    let text = said(&output);
    let quiet = !text.contains("? no") && !text.contains("WARNING");
    assert!(output.status.code() == Some(0) && quiet, "e2fsck -fn: {text}");
}

/// What `dumpe2fs -h` prints behind a key.
pub(crate) fn header(image: &Path, key: &str) -> Option<String> {
    let text = good("dumpe2fs", &["-h", image.to_str().unwrap()]);
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim_start_matches(':').trim().to_owned())
}

/// Whether dumpe2fs shows the feature, with this block and interval.
pub(crate) fn shows(image: &Path) -> Option<(u64, u16)> {
    let features = header(image, "Filesystem features").unwrap();
    let on = features.split_whitespace().any(|feature| feature == "mmp");
    let number = |key| header(image, key).map(|text| text.parse::<u64>().unwrap());
    let found = (number("MMP block number"), number("MMP update interval"));
    assert_eq!((found.0.is_some(), found.1.is_some()), (on, on), "{features}");
    found.0.zip(found.1).map(|(block, interval)| (block, u16::try_from(interval).unwrap()))
}

/// What is wanted in these tests.
pub(crate) fn wanted(interval_s: u16) -> Wanted {
    let (node, device) = (NodeName::new("alpha"), DeviceName::new("sdb1"));
    Wanted { interval_s, node, device, time_s: 1_700_000_000 }
}

/// What is done to an image.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Enable(u16),
    Disable,
    Set(u16),
}

impl Change {
    pub(crate) fn plan(self, path: &Path, bytes: &mut dyn ext4::Bytes) -> Result<Planned, Error> {
        match self {
            Change::Enable(interval_s) => ext4::enable(path, bytes, &wanted(interval_s)),
            Change::Disable => ext4::disable(path, bytes),
            Change::Set(interval_s) => ext4::set_interval(path, bytes, interval_s),
        }
    }

    /// The same by tune2fs.
    pub(crate) fn by_tune2fs(self, image: &Path) {
        let (what, interval);
        let args: &[&str] = match self {
            Change::Enable(interval_s) => {
                interval = format!("mmp_update_interval={interval_s}");
                &["-O", "mmp", "-E", &interval]
            }
            Change::Disable => &["-O", "^mmp"],
            Change::Set(interval_s) => {
                what = format!("mmp_update_interval={interval_s}");
                &["-E", &what]
            }
        };
        good("tune2fs", &[args, &[image.to_str().unwrap()]].concat());
    }

    /// By us, on the file.
    pub(crate) fn by_us(self, image: &Path) {
        let mut editor = Editor::open(&Device::inspect(image).unwrap()).unwrap();
        match self.plan(image, &mut editor).unwrap_or_else(|error| panic!("{error}")) {
            Planned::Do(plan) => plan.carry_out(&mut editor, &mut |_| Ok(())).unwrap(),
            already => panic!("{already:?}"),
        }
        editor.finish().unwrap();
    }
}

/// Every byte in which two images differ: offset, what stands in the first, what in the second.
pub(crate) fn differences(one: &Path, other: &Path) -> Vec<(u64, u8, u8)> {
    let (mut one, mut other) = (File::open(one).unwrap(), File::open(other).unwrap());
    assert_eq!(one.metadata().unwrap().len(), other.metadata().unwrap().len(), "lengths");
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let (mut found, mut at) = (Vec::new(), 0);
    loop {
        let length = fill(&mut one, &mut left);
        assert_eq!(fill(&mut other, &mut right), length);
        if length == 0 {
            return found;
        }
        if left[..length] != right[..length] {
            let pairs = left[..length].iter().zip(&right[..length]).enumerate();
            let differing = pairs.filter(|(_, (one, other))| one != other);
            found.extend(differing.map(|(index, (&one, &other))| (at + index as u64, one, other)));
        }
        at += length as u64;
    }
}

fn fill(file: &mut File, into: &mut [u8]) -> usize {
    let mut length = 0;
    while length < into.len() {
        match file.read(&mut into[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error}"),
        }
    }
    length
}

/// Writes bytes into an image.
pub(crate) fn put(image: &Path, at: u64, bytes: &[u8]) {
    File::options().write(true).open(image).unwrap().write_all_at(bytes, at).unwrap();
}

/// Bytes of an image.
pub(crate) fn get(image: &Path, at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    File::open(image).unwrap().read_exact_at(&mut bytes, at).unwrap();
    bytes
}
