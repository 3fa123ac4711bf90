//! The rung `reboot`: this host starts anew at once, without sync.
//!
//! Protects: nothing that a rebooted kernel had in its hands is written any more, whatever the device is. The trigger of
//! sysrq comes first, because it asks nobody: reboot(2) shuts devices down in order before, and may hang in a dead one
//! while the rest of the kernel writes on. Does not protect: what the device itself has taken in, and a machine whose
//! firmware does not come to the reset.
//!
//! In a PID namespace of its own reboot(2) ends that namespace alone, and in a user namespace it is not allowed: neither is
//! a fence. No test runs it.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use super::Ready;
use super::climb::{Effect, Ended, Rung};
use super::helper::Helper;
use crate::clock::Mono;

const TRIGGER: &str = "/proc/sysrq-trigger";
const CAP_SYS_BOOT: u32 = 22;
/// `PROC_PID_INIT_INO` and `PROC_USER_INIT_INO` of Linux `include/linux/proc_ns.h`.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";
const FIRST_USER_NAMESPACE: &str = "user:[4026531837]";

/// Whether this process may reboot the host, and not only a container.
pub(super) fn prepare() -> Result<Ready, String> {
    let namespace = |kind: &str| std::fs::read_link(Path::new("/proc/self/ns").join(kind));
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|error| format!("/proc/self/status cannot be read: {error}"))?;
    may_reboot(&status, namespace("pid").ok(), namespace("user").ok())?;
    let trigger = OpenOptions::new().write(true).open(TRIGGER).ok();
    let how = if trigger.is_some() { "by sysrq, else by reboot(2)" } else { "by reboot(2)" };
    let description = format!("reboots this host at once, without sync, {how}");
    Ok(Ready { rung: Box::new(Reboot { trigger }), description, cut: false, lacks: None })
}

struct Reboot {
    trigger: Option<File>,
}

impl Rung for Reboot {
    fn effect(&self) -> Effect {
        Effect::Reboots
    }

    fn run(&mut self, until: Mono) -> Ended {
        let why = match Helper::start(&self.descriptors(), || Err(reboot_now(self.trigger.as_ref()))) {
            Ok(mut helper) => match helper.wait(until) {
                Some(answer) => answer.err().unwrap_or_default(),
                None => {
                    let detail = "the reboot has begun and not ended".to_owned();
                    return Ended::Late { detail, goes_on: false };
                }
            },
            // No process can be made: then this one does it.
            Err(_) => reboot_now(self.trigger.as_ref()),
        };
        Ended::Failed(why)
    }

    fn descriptors(&self) -> Vec<RawFd> {
        self.trigger.iter().map(AsRawFd::as_raw_fd).collect()
    }
}

/// Does not return, unless the kernel refuses: then it says why.
#[cfg(not(test))]
fn reboot_now(trigger: Option<&File>) -> String {
    use std::io::Write as _;
    if let Some(mut trigger) = trigger {
        let _ = trigger.write_all(b"b");
    }
    // SAFETY: reboot(2) takes a number and touches no memory of ours.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
    format!("the kernel does not reboot: {}", std::io::Error::last_os_error())
}

/// Nothing of it exists in the tests of this crate.
#[cfg(test)]
fn reboot_now(_trigger: Option<&File>) -> String {
    "tests do not reboot".to_owned()
}

fn may_reboot(status: &str, pids: Option<PathBuf>, users: Option<PathBuf>) -> Result<(), String> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or_default();
    if effective & 1 << CAP_SYS_BOOT == 0 {
        return Err("it takes CAP_SYS_BOOT, which this process does not have".to_owned());
    }
    for (found, first, kind) in [(pids, FIRST_PID_NAMESPACE, "PID"), (users, FIRST_USER_NAMESPACE, "user")] {
        // A kernel without such namespaces has no such link.
        if found.is_some_and(|found| found.as_os_str() != first) {
            return Err(format!(
                "this process is in a {kind} namespace of its own, where it can reboot the container at most"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_the_capability_and_the_first_namespaces() {
        let may =
            |status: &str, pids: &str, users: &str| may_reboot(status, Some(pids.into()), Some(users.into()));
        let all = "Name:\tx\nCapEff:\t000001ffffffffff\n";
        assert_eq!(may(all, FIRST_PID_NAMESPACE, FIRST_USER_NAMESPACE), Ok(()));
        assert_eq!(may_reboot(all, None, None), Ok(()));
        assert!(may(all, "pid:[4026532000]", FIRST_USER_NAMESPACE).unwrap_err().contains("PID namespace"));
        assert!(may(all, FIRST_PID_NAMESPACE, "user:[4026532001]").unwrap_err().contains("user namespace"));
        for none in ["CapEff:\t0000000000000000\n", "CapEff:\t000001ffffbfffff\n", "CapEff:\tx\n", ""] {
            assert!(
                may(none, FIRST_PID_NAMESPACE, FIRST_USER_NAMESPACE).unwrap_err().contains("CAP_SYS_BOOT")
            );
        }
    }
}
