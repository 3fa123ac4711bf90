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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_name_is_the_kernels() {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(node_name(), kernel.trim_end());
    }
}
