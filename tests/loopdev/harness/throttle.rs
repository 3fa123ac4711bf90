//! Makes the I/O of one process on one device hang, reads and writes alike, or makes writes slow: the kernel's block I/O
//! throttling. It passes metadata over, the kernel's MMP writes among it; what a loop device writes to a device below it
//! for such a write it does not.

use std::fs;
use std::io::Result;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::libc::{major, minor};

use super::lun::DIRECTORY_PREFIX;
use super::process::Process;
use super::{cleanup, millis};

const V1: &str = "/sys/fs/cgroup/blkio";
const V2: &str = "/sys/fs/cgroup";
const V1_LIMITS: [&str; 2] = ["blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"];
const V2_LIMIT: &str = "io.max";

/// Its I/O hangs until this is dropped.
#[derive(Debug)]
pub(crate) struct Throttle(PathBuf);

impl Throttle {
    pub(crate) fn of(process: &Process, device: &str) -> Result<Throttle> {
        let number = fs::metadata(device)?.rdev();
        let device = format!("{}:{}", major(number), minor(number));
        if !is_v1() {
            fs::write(root().join("cgroup.subtree_control"), "+io")?;
        }
        let throttle = Throttle(root().join(format!("{}{}", prefix(), process.pid)));
        fs::create_dir(&throttle.0)?;
        if is_v1() {
            V1_LIMITS
                .iter()
                .try_for_each(|limit| fs::write(throttle.0.join(limit), format!("{device} 1")))?;
        } else {
            fs::write(throttle.0.join(V2_LIMIT), format!("{device} rbps=1 wbps=1"))?;
        }
        fs::write(throttle.processes(), process.pid.to_string())?;
        Ok(throttle)
    }

    /// Writes on `device` take a second for so many bytes, for whoever is started in [`Throttle::processes`].
    pub(crate) fn slow(device: &str, bytes_per_second: u32) -> Result<Throttle> {
        Throttle::named("slow", device, &[("wbps", V1_LIMITS[1])], bytes_per_second)
    }

    /// All I/O on `device` hangs, for whoever is started in [`Throttle::processes`].
    pub(crate) fn hanging(device: &str) -> Result<Throttle> {
        Throttle::named("hanging", device, &[("rbps", V1_LIMITS[0]), ("wbps", V1_LIMITS[1])], 1)
    }

    fn named(name: &str, device: &str, limits: &[(&str, &str)], bytes_per_second: u32) -> Result<Throttle> {
        let number = fs::metadata(device)?.rdev();
        let (major, minor) = (major(number), minor(number));
        if !is_v1() {
            fs::write(root().join("cgroup.subtree_control"), "+io")?;
        }
        let throttle = Throttle(root().join(format!("{}{name}-{major}-{minor}", prefix())));
        fs::create_dir(&throttle.0)?;
        for (v2, v1) in limits {
            if is_v1() {
                fs::write(throttle.0.join(v1), format!("{major}:{minor} {bytes_per_second}"))?;
            } else {
                fs::write(throttle.0.join(V2_LIMIT), format!("{major}:{minor} {v2}={bytes_per_second}"))?;
            }
        }
        Ok(throttle)
    }

    /// The list of its processes.
    pub(crate) fn processes(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        lift(&self.0);
    }
}

/// Lifts whatever this run left.
pub(crate) fn lift_all() {
    let entries = fs::read_dir(root()).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix()));
    ours.for_each(|entry| lift(&entry.path()));
}

fn lift(group: &Path) {
    let limited = |file: &str| -> Vec<String> {
        let text = fs::read_to_string(group.join(file)).unwrap_or_default();
        text.lines().filter_map(|line| line.split(' ').next()).map(ToOwned::to_owned).collect()
    };
    for file in V1_LIMITS {
        for device in limited(file) {
            let _ = fs::write(group.join(file), format!("{device} 0"));
        }
    }
    for device in limited(V2_LIMIT) {
        let _ = fs::write(group.join(V2_LIMIT), format!("{device} rbps=max wbps=max"));
    }
    // A group goes when it is empty: what is still in it goes back first.
    for _ in 0..100 {
        for pid in fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(root().join("cgroup.procs"), pid);
        }
        if fs::remove_dir(group).is_ok() {
            return;
        }
        mmpguard::clock::sleep(millis(50));
    }
}

fn is_v1() -> bool {
    Path::new(V1).is_dir()
}

fn root() -> PathBuf {
    PathBuf::from(if is_v1() { V1 } else { V2 })
}

fn prefix() -> String {
    format!("{DIRECTORY_PREFIX}{}-", cleanup::run())
}
