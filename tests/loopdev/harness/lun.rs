//! One LUN and two hosts' views of it: an image file on a real disk, and two loop devices over it. Whatever a test
//! made is taken down when the LUN is dropped, after a panic too.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use mmpguard::clock::{self, Mono};
use mmpguard::format::MMP_STRUCT_BYTES;
use mmpguard::io::Device;
use tempfile::TempDir;

use super::block::{RawBlock, Sampler};
use super::cleanup;
use super::process::kill_marked;
use super::started::{Started, patiently};

/// The beginning of every directory that the tests make, and so of every loop device's backing file.
pub(crate) const DIRECTORY_PREFIX: &str = "mmpguard-loopdev-";
/// Not a temporary file system in memory: there is no direct I/O on some of those.
pub(crate) const SCRATCH: &str = "/var/tmp";
/// `mark NAME` in a command writes the time, on the clock of the tests, into `NAME`.
const PRELUDE: &str = r#"mark() { cut -d' ' -f1 /proc/uptime > "$DIR/$1.new"; mv "$DIR/$1.new" "$DIR/$1"; }
"#;
/// Where the records of this LUN's guards are, so that tests and the machine's own guards never meet.
pub(crate) const RUNTIME: &str = "run";
/// In a mount namespace of its own: a copy of the other cases' mounts would keep those from ending.
pub(crate) fn forget_other_mounts() -> String {
    format!(
        "for dir in $(cut -d' ' -f2 /proc/self/mounts | grep {DIRECTORY_PREFIX}); do umount -l \"$dir\"; done 2>/dev/null; "
    )
}

const MIB: u64 = 1 << 20;

static LOSETUP: Mutex<()> = Mutex::new(());
static LUNS: AtomicU32 = AtomicU32::new(0);

/// What a LUN is made like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape<'a> {
    pub(crate) bytes: u64,
    /// What is not the filesystem's lies behind it.
    pub(crate) filesystem_bytes: u64,
    pub(crate) update_interval_s: u32,
    /// More options for mkfs.ext4.
    pub(crate) more: &'a [&'a str],
    /// Where the image lies, if not on the disk of /var/tmp.
    pub(crate) place: Option<&'a Path>,
}

impl Default for Shape<'_> {
    fn default() -> Self {
        Shape { bytes: 24 * MIB, filesystem_bytes: 24 * MIB, update_interval_s: 1, more: &[], place: None }
    }
}

/// A loop device, detached when dropped.
#[derive(Debug)]
pub(crate) struct Loop(PathBuf);

/// The LUN.
#[derive(Debug)]
pub(crate) struct Lun {
    /// The first host's view.
    pub(crate) a: Loop,
    /// The second host's.
    pub(crate) b: Loop,
    image: PathBuf,
    directory: TempDir,
    mark: String,
    mounts: Mutex<Vec<PathBuf>>,
    numbers: AtomicU32,
}

impl Lun {
    pub(crate) fn new() -> Lun {
        Lun::shaped(Shape::default())
    }

    pub(crate) fn shaped(shape: Shape<'_>) -> Lun {
        let interval = format!("mmp_update_interval={}", shape.update_interval_s);
        let size = format!("{}k", shape.filesystem_bytes / 1024);
        Lun::made(shape.bytes, shape.place, None, |image| {
            let mut arguments = vec!["-q", "-F", "-O", "mmp", "-E", &interval];
            arguments.extend(shape.more);
            arguments.extend([text(image), &size]);
            must("mkfs.ext4", &arguments);
        })
    }

    /// One of that length, with whatever `fill` puts on its image; `sector_bytes` are the loop devices' logical blocks.
    pub(crate) fn made(
        bytes: u64,
        place: Option<&Path>,
        sector_bytes: Option<u32>,
        fill: impl FnOnce(&Path),
    ) -> Lun {
        let number = LUNS.fetch_add(1, SeqCst);
        let name = format!("{DIRECTORY_PREFIX}{}-{number}-", cleanup::run());
        let directory =
            tempfile::Builder::new().prefix(&name).tempdir_in(SCRATCH).expect("makes a directory");
        let image = place.unwrap_or(directory.path()).join(format!("{name}lun.img"));
        let file = fs::File::create(&image).expect("makes an image");
        file.set_len(bytes).expect("has that length");
        fill(&image);
        file.sync_all().expect("syncs");
        let (a, b) = (Loop::with(&image, sector_bytes), Loop::with(&image, sector_bytes));
        Lun {
            directory,
            image,
            a,
            b,
            mark: format!("{}.{number}.", cleanup::run()),
            mounts: Mutex::default(),
            numbers: AtomicU32::new(0),
        }
    }

    /// What every process that came from this LUN's tests carries.
    pub(crate) fn mark(&self) -> &str {
        &self.mark
    }

    pub(crate) fn image(&self) -> &Path {
        &self.image
    }

    pub(crate) fn raw(&self) -> RawBlock {
        RawBlock::find(&self.image)
    }

    pub(crate) fn sampler(&self, period: Duration) -> Sampler {
        Sampler::start(&self.image, period)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts any program.
    pub(crate) fn start<S: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Started {
        self.start_with(program, arguments, &[])
    }

    pub(crate) fn start_with<S: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
        env: &[(&str, String)],
    ) -> Started {
        let stem = self.file(&format!("output-{}", self.numbers.fetch_add(1, SeqCst)));
        let runtime = text(&self.file(RUNTIME)).to_owned();
        let mut all = vec![("DIR", text(self.directory.path()).to_owned()), ("MMP_RUNTIME_DIR", runtime)];
        all.extend_from_slice(env);
        Started::new(program, arguments, &all, &self.mark, &stem)
    }

    /// Starts `mmp` with these arguments.
    pub(crate) fn mmp(&self, arguments: &[&str]) -> Started {
        self.start(env!("CARGO_BIN_EXE_mmp"), arguments)
    }

    /// Starts `mmp run` as host `node`, with a shell script as its command.
    pub(crate) fn run(&self, node: &str, on: &Loop, script: &str) -> Started {
        self.run_with(node, on, &[], script, &[])
    }

    pub(crate) fn run_with(
        &self,
        node: &str,
        on: &Loop,
        options: &[&str],
        script: &str,
        env: &[(&str, String)],
    ) -> Started {
        let script = format!("{PRELUDE}{script}");
        let mut arguments = vec!["run", "--node", node];
        arguments.extend(options);
        arguments.extend([on.path(), "--", "sh", "-c", &script]);
        self.start_with(env!("CARGO_BIN_EXE_mmp"), arguments, env)
    }

    /// As [`Lun::run`], and waits until its command runs.
    pub(crate) fn hold(&self, node: &str, on: &Loop, script: &str) -> Started {
        let mut run = self.run(node, on, &format!("mark {node}.up; {script}"));
        self.up(node, &mut run, Duration::from_secs(40));
        run
    }

    /// Waits until a command that says so has been started, and gives when.
    pub(crate) fn up(&self, node: &str, run: &mut Started, patience: Duration) -> Mono {
        let name = format!("{node}.up");
        let found = patiently(patience, || {
            assert!(!run.has_ended(), "ended early: {:?}", run.end(Duration::ZERO));
            self.marked(&name)
        });
        found.unwrap_or_else(|| panic!("{node}'s command did not start: {}", run.err()))
    }

    /// When a command marked `name`, to the hundredth of a second.
    pub(crate) fn marked(&self, name: &str) -> Option<Mono> {
        let text = fs::read_to_string(self.file(name)).ok()?;
        let (seconds, hundredths) = text.trim().split_once('.')?;
        let number = |text: &str| text.parse::<u64>().expect("is a number");
        Some(Mono(number(seconds) * 1_000_000_000 + number(hundredths) * 10_000_000))
    }

    /// Starts a kernel mount.
    pub(crate) fn mount(&self, on: &Loop) -> (Started, PathBuf) {
        let to = self.mount_point();
        (self.start("mount", ["-t", "ext4", on.path(), text(&to)]), to)
    }

    /// A new directory to mount on; whatever is mounted there is unmounted in the end.
    pub(crate) fn mount_point(&self) -> PathBuf {
        let to = self.file(&format!("mounted-{}", self.numbers.fetch_add(1, SeqCst)));
        fs::create_dir(&to).expect("makes a directory");
        self.mounts().push(to.clone());
        to
    }

    pub(crate) fn forget_mount(&self, mount: &Path) {
        self.mounts().retain(|other| other != mount);
    }

    /// Mounts, and waits for it.
    pub(crate) fn mounted(&self, on: &Loop) -> PathBuf {
        let (mut mounting, to) = self.mount(on);
        mounting.end(Duration::from_secs(60)).expect(0);
        to
    }

    /// Unmounts, and waits until the kernel is done with the filesystem: a mount namespace that somebody made meanwhile
    /// has a copy of the mount, and keeps it alive.
    pub(crate) fn umount(&self, on: &Loop, from: &Path) {
        // A program that another case starts at this moment has a copy of our descriptors until it is executed.
        let unmounted = patiently(Duration::from_secs(5), || {
            command("umount", &[text(from)]).status.success().then_some(())
        });
        assert!(
            unmounted.is_some(),
            "umount {from:?}: {}",
            String::from_utf8_lossy(&command("umount", &[text(from)]).stderr)
        );
        self.forget_mount(from);
        let active = Path::new("/sys/fs/ext4").join(on.name());
        let gone = patiently(Duration::from_secs(60), || (!active.exists()).then_some(()));
        assert!(gone.is_some(), "{} is still mounted in another mount namespace", on.path());
    }

    fn mounts(&self) -> std::sync::MutexGuard<'_, Vec<PathBuf>> {
        self.mounts.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Every byte as it is on the disk.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let device = Device::inspect(&self.image).expect("inspects");
        let mut bytes = vec![0; usize::try_from(device.size_bytes()).expect("fits")];
        device.read_at(0, &mut bytes).expect("reads");
        bytes
    }

    /// Fails if anything but the MMP structure differs from `before`.
    pub(crate) fn assert_unchanged_outside_mmp(&self, before: &[u8]) {
        let after = self.bytes();
        let start = self.raw().offset;
        let mmp = start..start + MMP_STRUCT_BYTES;
        assert_eq!(before.len(), after.len());
        let changed: Vec<usize> =
            (0..after.len()).filter(|at| before[*at] != after[*at] && !mmp.contains(at)).take(8).collect();
        assert!(changed.is_empty(), "changed outside the MMP block (at {start}): bytes {changed:?}");
    }
}

impl Drop for Lun {
    fn drop(&mut self) {
        kill_marked(&self.mark);
        for mount in self.mounts().iter() {
            unmount(mount);
        }
        // Their numbers are given to other LUNs next.
        for device in [&self.a, &self.b] {
            cleanup::forget_guards_of(device.path());
        }
    }
}

impl Loop {
    pub(crate) fn new(image: &Path) -> Loop {
        Loop::with(image, None)
    }

    /// One with logical blocks of that size.
    pub(crate) fn with(image: &Path, sector_bytes: Option<u32>) -> Loop {
        // Two that ask at once get the same free device, and the one that comes too late has it open for a moment:
        // a user, to whoever looks. Among ourselves that is avoided, other runs included; with others it is tried again.
        let _one_at_a_time = LOSETUP.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let among_runs =
            fs::File::create(Path::new(SCRATCH).join("mmpguard-losetup.lock")).expect("makes it");
        among_runs.lock().expect("locks");
        let sector = sector_bytes.map(|bytes| bytes.to_string());
        let mut arguments = vec!["--direct-io=on", "-f", "--show"];
        arguments.extend(sector.iter().flat_map(|bytes| ["--sector-size", bytes]));
        arguments.push(text(image));
        for _ in 0..50 {
            let output = command("losetup", &arguments);
            if output.status.success() {
                return Loop(String::from_utf8(output.stdout).expect("UTF-8").trim().into());
            }
            clock::sleep(Duration::from_millis(50));
        }
        panic!("no loop device after many tries");
    }

    pub(crate) fn path(&self) -> &str {
        text(&self.0)
    }

    /// The kernel's name of it, as it stands in MMP blocks.
    pub(crate) fn name(&self) -> &str {
        self.path().trim_start_matches("/dev/")
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        command("losetup", &["-d", self.path()]);
    }
}

/// Takes a mount away, if there is one.
pub(crate) fn unmount(mount: &Path) {
    let is_mounted = || {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("is there");
        mounts.lines().any(|line| line.split(' ').nth(1) == Some(text(mount)))
    };
    for _ in 0..20 {
        if !is_mounted() || command("umount", &[text(mount)]).status.success() {
            return;
        }
        clock::sleep(Duration::from_millis(100));
    }
    command("umount", &["-l", text(mount)]);
}

pub(crate) fn command(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

pub(crate) fn must(program: &str, arguments: &[&str]) -> String {
    let output = command(program, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("our own paths are UTF-8")
}
