//! Who this host is, as it stands in the MMP block.
//!
//! Does not protect: a node name is not unique by itself, and two hosts of one name are told apart by other means
//! (`protocol::hold`).

/// The host's name (uname's nodename), as the kernel writes it into `mmp_nodename`. Bytes that are no UTF-8 are
/// replaced. Empty if the host has none.
#[must_use]
pub fn node_name() -> String {
    hostname::get().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The node name that the kernel itself writes: that of the first UTS namespace, whatever ours is called (Linux
/// `fs/ext4/mmp.c`, `init_utsname()`). Ours, where that namespace cannot be entered.
#[must_use]
pub fn kernel_node_name() -> String {
    let same = |path: &str| std::fs::read_link(path).ok();
    let first = same("/proc/1/ns/uts");
    if first.is_none() || first == same("/proc/self/ns/uts") {
        return node_name();
    }
    // A UTS namespace is a thread's own: one that ends with the question.
    let asked = std::thread::spawn(|| {
        let namespace = std::fs::File::open("/proc/1/ns/uts").ok()?;
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWUTS).ok()?;
        Some(node_name())
    });
    asked.join().ok().flatten().unwrap_or_else(node_name)
}

/// Which boot of this host's kernel this is (`/proc/sys/kernel/random/boot_id`), as a UUID with dashes.
///
/// # Errors
/// As of reading a file.
pub fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The same as 16 bytes, in the order it is shown.
///
/// # Errors
/// As [`boot_id`]; [`std::io::ErrorKind::InvalidData`] if it is no UUID.
pub fn boot_id_bytes() -> std::io::Result<[u8; 16]> {
    uuid_of(&boot_id()?).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

/// A random UUID, from the kernel (`/proc/sys/kernel/random/uuid`).
///
/// # Errors
/// As [`boot_id_bytes`].
pub fn random_uuid() -> std::io::Result<[u8; 16]> {
    uuid_of(&std::fs::read_to_string("/proc/sys/kernel/random/uuid")?)
        .ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

/// Reads a UUID, with dashes or without.
#[must_use]
pub fn uuid_of(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|&character| character != '-').collect();
    let number = (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok()).flatten();
    number.map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_name_is_the_kernels() {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(node_name(), kernel.trim_end());
    }

    #[test]
    fn the_boot_id_is_the_kernels() {
        let shown: String = boot_id_bytes().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(boot_id().unwrap().replace('-', ""), shown);
    }
}
