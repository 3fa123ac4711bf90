//! Who this host is, as it stands in the MMP block and in records bound to one boot.
//!
//! Does not protect: a node name is not unique by itself, and two hosts of one name are told apart by other means
//! (`protocol::hold`).

use std::path::Path;

use crate::Error;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The host's name (uname's nodename), as the kernel writes it into `mmp_nodename`. Bytes that are no UTF-8 are
/// replaced. Empty if the host has none.
#[must_use]
pub fn node_name() -> String {
    hostname::get().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A random UUID that the kernel draws anew at every boot.
///
/// # Errors
/// [`Error::Io`] where `/proc` is not mounted.
pub fn boot_id() -> Result<String, Error> {
    let id = std::fs::read_to_string(BOOT_ID)
        .map_err(|error| Error::io("read the boot id", Path::new(BOOT_ID), error))?;
    Ok(id.trim_end().to_owned())
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
    fn the_boot_id_is_a_uuid_and_stays() {
        let id = boot_id().unwrap();
        assert_eq!(id.len(), 36);
        assert!(id.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()), "{id}");
        assert_eq!(boot_id().unwrap(), id);
    }
}
