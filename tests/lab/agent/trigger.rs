//! A start at one instant on several machines: all wait on one word of memory that the machine below them shares out.

#![allow(unsafe_code)]

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use memmap2::MmapOptions;

/// How many hosts can say where they are.
const HOSTS: u32 = 255;

/// Where the word is in which a host says that it waits for a trigger, and that it goes: in bytes from the beginning, where
/// the trigger is.
pub(crate) fn place_of(host: &str) -> u64 {
    u64::from(crc32c::crc32c(host.as_bytes()) % HOSTS + 1) * 8
}

/// What that word is when the host waits for a trigger.
pub(crate) fn ready(count: u64) -> u64 {
    2 * count
}

/// What it is when the host has seen it.
pub(crate) fn gone(count: u64) -> u64 {
    2 * count + 1
}

/// Says that it is ready, waits, turning in a loop, until the shared word has reached `count`, says so, and becomes the command.
pub(super) fn wait_and_run(count: &str, command: &[&str]) -> Result<(), String> {
    let count: u64 = count.parse().map_err(|_| format!("{count} is no number"))?;
    let path = memory()?;
    let file =
        File::options().read(true).write(true).open(&path).map_err(|error| format!("{path:?}: {error}"))?;
    let here = fs::read_to_string("/proc/cmdline").map_err(|error| error.to_string())?;
    let host = here.split_whitespace().find_map(|word| word.strip_prefix(super::MARK)).unwrap_or_default();
    // SAFETY: the mapping is of a device's memory that lives as long as the machine, and is used as atomic words alone, as
    // by its other users.
    let mut map = unsafe { MmapOptions::new().len(4096).map_mut(&file) }
        .map_err(|error| format!("{path:?}: {error}"))?;
    let words = map.as_mut_ptr().cast::<u64>();
    // SAFETY: a mapping begins at a page and is longer than the word.
    let word = unsafe { AtomicU64::from_ptr(words) };
    let at = usize::try_from(place_of(host) / 8).expect("is small");
    // SAFETY: it is one of the first 256 words of 512.
    let own = unsafe { AtomicU64::from_ptr(words.add(at)) };
    own.store(ready(count), SeqCst);
    while word.load(SeqCst) < count {
        std::hint::spin_loop();
    }
    own.store(gone(count), SeqCst);
    Err(Command::new(command[0]).args(&command[1..]).exec().to_string())
}

/// The memory of the ivshmem device.
fn memory() -> Result<PathBuf, String> {
    let devices = fs::read_dir("/sys/bus/pci/devices").map_err(|error| error.to_string())?;
    for entry in devices.flatten() {
        let says = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        if says("vendor").trim() == "0x1af4" && says("device").trim() == "0x1110" {
            return Ok(entry.path().join("resource2"));
        }
    }
    Err("this machine has no shared memory".to_owned())
}
