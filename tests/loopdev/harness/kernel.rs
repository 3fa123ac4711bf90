//! What the kernel says: its log, read from a point noted before. Other tests write into it too, so a line is only
//! taken for one of ours if it names our loop device.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc::O_NONBLOCK;

/// A reader of the kernel's log, from where it stood when this was made.
pub(crate) struct KernelLog(File);

impl KernelLog {
    pub(crate) fn from_here() -> KernelLog {
        let mut log = File::options().read(true).custom_flags(O_NONBLOCK).open("/dev/kmsg").expect("opens");
        log.seek(SeekFrom::End(0)).expect("goes to its end");
        KernelLog(log)
    }

    /// The lines since then that name the loop device `name`.
    pub(crate) fn about(&mut self, name: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(0) => return lines,
                Ok(length) => lines.push(String::from_utf8_lossy(&record[..length]).into_owned()),
                // Overwritten by newer ones: read on.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("/dev/kmsg: {error}"),
            }
        }
        lines
            .retain(|line| line.contains(&format!("(device {name})")) || line.contains(&format!("({name})")));
        lines
    }
}
