//! Sockets that systemd opened, and passes to the service that they belong to (sd_listen_fds(3)).
//!
//! Protects: what was passed to another process (`LISTEN_PID`) is not touched; each is close-on-exec from here on.

use std::io;
use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};

use libsystemd::activation::{IsType as _, receive_descriptors_with_names};

/// The Unix sockets that were passed to this process, with their names. To be called once. The variables stay in the environment: they
/// name this process, and nobody else heeds them.
///
/// # Errors
/// When the variables say what cannot be meant.
pub fn passed_sockets() -> io::Result<Vec<(OwnedFd, String)>> {
    let passed = receive_descriptors_with_names(false).map_err(io::Error::other)?;
    let sockets = passed.into_iter().filter(|(descriptor, _)| descriptor.is_unix());
    let owned = sockets.map(|(descriptor, name)| {
        // SAFETY: systemd passed it to this process, and this is called once, so nobody else owns it.
        (unsafe { OwnedFd::from_raw_fd(descriptor.into_raw_fd()) }, name)
    });
    Ok(owned.collect())
}
