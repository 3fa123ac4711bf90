//! One run's folder: disks, the initramfs with the binary under test, the shared word that starts things at one instant.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock};

use super::folder::Folder;
use super::{Disk, Doing, Outcome};
use crate::agent::trigger;

/// The program that emulates the machines.
pub(crate) const QEMU: &str = "qemu-system-x86_64";
/// The kernel that machines have unless a scenario says otherwise.
pub(crate) const KERNEL: &str = "6.12";
/// The older one.
pub(crate) const OLDER_KERNEL: &str = "6.1";
/// What runs on this machine beside the emulator: on the binary under test, and on disks that nobody uses.
const TOOLS: [&str; 6] = ["strip", "mkfs.ext4", "tune2fs", "e2fsck", "mkfs.xfs", "xfs_repair"];
/// The size of the shared memory.
const SHARED_BYTES: u64 = 1 << 20;

/// What all machines of one scenario have in common. Removes it when dropped.
pub(crate) struct Lab {
    folder: Folder,
    /// Paths of sockets must be short.
    sockets: Folder,
    shared: File,
    triggers: AtomicU64,
    group: u16,
    told: Mutex<String>,
}

/// Why the lab cannot run here, if it cannot.
pub(crate) fn missing() -> Option<String> {
    if Command::new(QEMU).arg("--version").output().is_err() {
        return Some(format!("{QEMU} is not installed"));
    }
    let path = tool_path();
    let found = |tool: &&&str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    if let Some(tool) = TOOLS.iter().find(|tool| !found(tool)) {
        return Some(format!("{tool} is not installed"));
    }
    let cache = cache();
    if !cache.join("ready").exists() || !has_kernel(KERNEL) {
        let folder = cache.display();
        return Some(format!(
            "{folder} has no kernel {KERNEL} and no tools to boot: run tests/lab/setup first"
        ));
    }
    None
}

/// Where programs of this machine are looked for, those of administrators too.
pub(crate) fn tool_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// Where `tests/lab/setup` put kernels and tools.
pub(crate) fn cache() -> PathBuf {
    let built = || PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().expect("is below target").join("lab");
    let asked = std::env::var_os("MMPGUARD_LAB_DIR").map_or_else(built, PathBuf::from);
    std::path::absolute(&asked).unwrap_or(asked)
}

/// Whether the kernel was there to be fetched.
pub(crate) fn has_kernel(name: &str) -> bool {
    cache().join(format!("vmlinuz-{name}")).exists()
}

/// The exact version of a kernel, as it calls itself.
pub(crate) fn kernel_version(name: &str) -> String {
    fs::read_to_string(cache().join(format!("version-{name}"))).unwrap_or_default().trim().to_owned()
}

impl Lab {
    pub(crate) fn new() -> Outcome<Lab> {
        let folder = Folder::new()?;
        let sockets = Folder::for_sockets()?;
        let shared = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(folder.path().join("shared-memory"))
            .doing("the shared memory")?;
        shared.set_len(SHARED_BYTES).doing("the shared memory")?;
        // Networks of labs that run at once must not meet: their machines have the same addresses.
        let group = fastrand::u16(..);
        Ok(Lab { folder, sockets, shared, triggers: AtomicU64::new(0), group, told: Mutex::default() })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.sockets.path().join(name)
    }

    pub(crate) fn shared_memory(&self) -> (PathBuf, u64) {
        (self.folder().join("shared-memory"), SHARED_BYTES)
    }

    /// QEMU's words for the network that all machines of this lab are on.
    pub(crate) fn network(&self) -> String {
        let [high, low] = self.group.to_be_bytes();
        let port = 20_000 + u32::from(self.group) % 20_000;
        format!("socket,id=net0,mcast=239.77.{high}.{low}:{port},localaddr=127.0.0.1")
    }

    /// A disk for its machines, of zeroes.
    pub(crate) fn disk(&self, serial: &str, mebibytes: u64) -> Outcome<Disk> {
        Disk::create(&self.folder().join(format!("{serial}.raw")), serial, mebibytes)
    }

    /// Notes what happens, for a scenario that draws its steps at random and has to say afterwards what they were.
    pub(crate) fn tell(&self, what: &str) {
        let line = format!("{:.3} {what}\n", super::seconds());
        if std::env::var_os("MMPGUARD_LAB_TELL").is_some() {
            print!("{line}");
        }
        self.told.lock().expect("no panic").push_str(&line);
    }

    /// Everything noted so far, into a file beside what the machines boot from. Gives its name.
    pub(crate) fn keep_told(&self, name: &str) -> PathBuf {
        let path = cache().join(name);
        let _ = fs::write(&path, self.told.lock().expect("no panic").as_str());
        path
    }

    /// The number that the next [`Lab::fire`] of it lets go.
    pub(crate) fn next_trigger(&self) -> u64 {
        self.triggers.fetch_add(1, SeqCst) + 1
    }

    /// Lets everything go that waits for this number or a lower one.
    pub(crate) fn fire(&self, trigger: u64) -> Outcome<()> {
        self.shared.write_all_at(&trigger.to_le_bytes(), 0).doing("the trigger")
    }

    /// The word by which a host says that it waits for a trigger, and that it goes.
    pub(crate) fn said_at_trigger(&self, host: &str) -> Outcome<u64> {
        let mut word = [0; 8];
        self.shared.read_exact_at(&mut word, trigger::place_of(host)).doing("the trigger")?;
        Ok(u64::from_le_bytes(word))
    }

    /// What a machine with this kernel is booted from.
    pub(crate) fn initramfs(kernel: &str) -> Outcome<PathBuf> {
        let under_test = under_test()?;
        let path = under_test.join(format!("initramfs-{kernel}"));
        Ok(path)
    }
}

static UNDER_TEST: OnceLock<Outcome<(Folder, PathBuf)>> = OnceLock::new();

/// A folder with one whole initramfs for each kernel: tools, modules, the binary under test and the agent. Made once a run.
fn under_test() -> Outcome<PathBuf> {
    let made = UNDER_TEST.get_or_init(|| {
        let folder = Folder::new()?;
        let path = folder.path().to_owned();
        let tree = path.join("tree");
        fs::create_dir_all(tree.join("lab")).doing("a folder")?;
        let agent = std::env::current_exe().doing("the agent")?;
        strip(Path::new(env!("CARGO_BIN_EXE_mmp")), &tree.join("lab/mmp"))?;
        strip(&agent, &tree.join("lab/agent"))?;
        let script = "cd \"$1\" && find . | \"$2\" cpio -o -H newc 2>/dev/null";
        let packed =
            Command::new("sh").args(["-c", script, "pack"]).arg(&tree).arg(cache().join("busybox")).output();
        let packed = packed.doing("packing the binary under test")?;
        if !packed.status.success() || packed.stdout.is_empty() {
            return Err(format!("packing the binary under test: {}", packed.status));
        }
        for kernel in [KERNEL, OLDER_KERNEL].into_iter().filter(|kernel| has_kernel(kernel)) {
            let mut whole = Vec::new();
            for part in ["tools.cpio".to_owned(), format!("modules-{kernel}.cpio")] {
                let part = cache().join(part);
                let mut file = File::open(&part).doing(&part.display().to_string())?;
                file.read_to_end(&mut whole).doing(&part.display().to_string())?;
            }
            whole.extend_from_slice(&packed.stdout);
            fs::write(path.join(format!("initramfs-{kernel}")), whole).doing("the initramfs")?;
        }
        Ok((folder, path))
    });
    made.as_ref().map(|(_, path)| path.clone()).map_err(Clone::clone)
}

/// Removes the folder of [`under_test`], which is in a static and so never dropped.
pub(crate) fn forget_initramfs() {
    if let Some(Ok((_, path))) = UNDER_TEST.get() {
        let _ = fs::remove_dir_all(path);
    }
}

/// A copy without debugging symbols: they are most of it, and a machine has little memory.
fn strip(from: &Path, to: &Path) -> Outcome<()> {
    let what = format!("strip of {}", from.display());
    let done = Command::new("strip").arg("-o").args([to, from]).status().doing(&what)?;
    if !done.success() {
        return Err(format!("{what}: {done}"));
    }
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).doing(&what)
}
