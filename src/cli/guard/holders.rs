//! What keeps a filesystem alive after its unmount: for people who wait for its release.
//!
//! Protects: nothing. A user who is not found is none the less there; the guard's own judgement asks the kernel. Opens
//! nothing on the device, and looks at `/proc` alone, so it hangs with nobody.

use std::fs;

use crate::sys::{Target, mountinfo, users};

/// So many are named.
const NAMED_AT_MOST: usize = 5;

/// Who may hold one device.
#[derive(Debug)]
pub(in crate::cli) struct Holders {
    target: Target,
    /// The numbers of its mounts. A lazily unmounted one keeps its number in `fdinfo`, and stands nowhere else.
    mounts: Vec<u64>,
}

impl Holders {
    /// Has to be made before the unmount.
    pub(in crate::cli) fn before_the_unmount(target: Target) -> Self {
        let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
        let is_ours =
            |line: &&[u8]| mountinfo::parse(line).iter().any(|mount| mount.is_of(&[target.kind], None));
        let number = |line: &[u8]| std::str::from_utf8(line).ok()?.split(' ').next()?.parse().ok();
        let mounts = table.split(|&byte| byte == b'\n').filter(is_ours).filter_map(number).collect();
        Holders { target, mounts }
    }

    /// Everybody who is found, one phrase each.
    pub(in crate::cli) fn now(&self) -> Vec<String> {
        let mut found: Vec<String> =
            users::kernel_users(&self.target).iter().map(ToString::to_string).collect();
        found.extend(self.open_files());
        let more = found.len().saturating_sub(NAMED_AT_MOST);
        if more > 0 {
            found.truncate(NAMED_AT_MOST);
            found.push(format!("{more} more"));
        }
        found
    }

    fn open_files(&self) -> Vec<String> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|&pid| self.has_one_open(pid)).map(named).collect()
    }

    fn has_one_open(&self, pid: u32) -> bool {
        let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
        entries.filter_map(|entry| fs::read_to_string(entry.path()).ok()).any(|text| {
            let number = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
            number.and_then(|number| number.trim().parse().ok()).is_some_and(|id| self.mounts.contains(&id))
        })
    }
}

fn named(pid: u32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = crate::format::name::escape(name.trim_ascii_end());
    format!("process {pid} ({name}) has a file of it open")
}
