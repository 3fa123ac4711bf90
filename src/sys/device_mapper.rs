//! The device mapper's ioctls: what a device is made of, and a table in its place that refuses everything.
//!
//! Protects: before a table is replaced the device must still have the name and the UUID that it had when it was
//! prepared, and afterwards it is asked whether the new table is in force. Neither a filesystem is frozen nor anything
//! flushed: both would write. Does not protect: against whoever loads another table later (multipathd, LVM).
//!
//! Replacing a table takes a suspend, which waits until the I/O that is under way below has ended. Meanwhile new I/O is
//! held back, so a caller who runs out of patience should let it wait: killed, the kernel undoes it.
//!
//! Source: Linux `include/uapi/linux/dm-ioctl.h`, `drivers/md/dm-ioctl.c` (`do_resume`, `retrieve_status`),
//! `drivers/md/dm.c` (`__dm_suspend`), `drivers/md/dm-target.c` (the error target fits tables of every type).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use super::target::TargetKind;

/// Where the kernel listens.
pub(super) const CONTROL: &str = "/dev/mapper/control";

/// The size of `struct dm_ioctl`.
const HEAD: usize = 312;
/// The size of `struct dm_target_spec`.
const SPEC: usize = 40;
/// The type of a target in it, NUL-padded.
const TYPE: std::ops::Range<usize> = 24..40;
/// The first answer has so much room, and as often as it does not fit twice as much, up to the last.
const ROOM: usize = 16 << 10;
const ROOM_AT_MOST: usize = 4 << 20;

const READ_ONLY: u32 = 1 << 0;
const STATUS_TABLE: u32 = 1 << 4;
const BUFFER_FULL: u32 = 1 << 8;
const SKIP_LOCKFS: u32 = 1 << 10;
const NO_FLUSH: u32 = 1 << 11;

mod raw {
    #![allow(missing_docs)]
    use super::HEAD;
    use nix::libc::c_char;

    nix::ioctl_readwrite_bad!(suspend, nix::request_code_readwrite!(0xfd, 6, HEAD), c_char);
    nix::ioctl_readwrite_bad!(status, nix::request_code_readwrite!(0xfd, 7, HEAD), c_char);
    nix::ioctl_readwrite_bad!(load, nix::request_code_readwrite!(0xfd, 9, HEAD), c_char);
    nix::ioctl_readwrite_bad!(clear, nix::request_code_readwrite!(0xfd, 10, HEAD), c_char);
    nix::ioctl_readwrite_bad!(table, nix::request_code_readwrite!(0xfd, 12, HEAD), c_char);
}

/// One line of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The kind of target, such as `multipath`.
    pub(super) target: String,
    /// Its parameters, as `dmsetup table` shows them.
    pub(super) parameters: String,
}

/// What a device is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) uuid: String,
}

/// Opens the control node. Takes `CAP_SYS_ADMIN`.
pub(super) fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(CONTROL)
}

/// What the device is called.
pub(super) fn identity(control: &File, device: TargetKind) -> io::Result<Identity> {
    Message::about(device)?.send(control, Command::Status).map(|answer| answer.identity())
}

/// The live table of the device.
pub(super) fn table(control: &File, device: TargetKind) -> io::Result<Vec<Line>> {
    lines(control, device, STATUS_TABLE)
}

/// The live table of the device if a target of this kind is in it, nothing otherwise: what is not asked for is not read,
/// a dm-crypt's key among it.
pub(super) fn table_with(control: &File, device: TargetKind, target: &str) -> io::Result<Vec<Line>> {
    if lines(control, device, 0)?.iter().any(|line| line.target == target) {
        return table(control, device);
    }
    Ok(Vec::new())
}

/// Its targets, with their parameters or, without the flag, with their states.
fn lines(control: &File, device: TargetKind, what: u32) -> io::Result<Vec<Line>> {
    let mut room = ROOM;
    loop {
        // No flush: without it a thin pool would write its metadata to answer.
        let question = Message::about(device)?.flags(what | NO_FLUSH).with_room(room);
        let answer = question.send(control, Command::Table)?;
        if answer.flag(BUFFER_FULL) && room < ROOM_AT_MOST {
            room *= 2;
            continue;
        }
        return answer.lines().ok_or_else(|| io::Error::other("the kernel's table cannot be read"));
    }
}

/// Replaces the table of a device by one that refuses all I/O. Returns when nothing is under way any more.
pub(super) fn refuse_all(
    control: &File,
    device: TargetKind,
    expected: &Identity,
    sectors: u64,
) -> io::Result<()> {
    let answer = Message::about(device)?.send(control, Command::Status)?;
    let found = answer.identity();
    if found != *expected {
        let what = format!("the device is \"{}\" now and was \"{}\"", found.name, expected.name);
        return Err(io::Error::other(what));
    }
    let read_only = if answer.flag(READ_ONLY) { READ_ONLY } else { 0 };
    Message::about(device)?.flags(read_only).with_error_table(sectors).send(control, Command::Load)?;
    // Without the suspend flag this is a resume; with a table loaded the kernel suspends by itself before.
    let resume = Message::about(device)?.flags(NO_FLUSH | SKIP_LOCKFS).send(control, Command::Suspend);
    if let Err(error) = resume {
        let _ = Message::about(device)?.send(control, Command::Clear);
        return Err(error);
    }
    match table(control, device)?.as_slice() {
        [line] if line.target == "error" => Ok(()),
        lines => {
            Err(io::Error::other(format!("its table is not the new one, but has {} lines", lines.len())))
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Command {
    Status,
    Table,
    Load,
    Clear,
    Suspend,
}

/// A `struct dm_ioctl` with what follows it.
struct Message(Vec<u8>);

impl Message {
    fn about(device: TargetKind) -> io::Result<Message> {
        let TargetKind::Block { major, minor } = device else {
            return Err(io::Error::other("is no block device"));
        };
        let mut message = Message(vec![0; HEAD]);
        message.put_u32(0, 4); // the version of the interface: 4.0.0
        message.put_u32(16, u32::try_from(HEAD).expect("is small"));
        message.0[40..48].copy_from_slice(&device_number(major, minor).to_ne_bytes());
        Ok(message)
    }

    fn flags(mut self, flags: u32) -> Message {
        self.put_u32(28, flags);
        self
    }

    fn with_room(mut self, bytes: usize) -> Message {
        self.0.resize(HEAD + bytes, 0);
        self
    }

    fn with_error_table(mut self, sectors: u64) -> Message {
        self.put_u32(20, 1);
        let mut spec = [0; SPEC];
        spec[8..16].copy_from_slice(&sectors.to_ne_bytes());
        spec[20..24].copy_from_slice(&u32::try_from(SPEC + 8).expect("is small").to_ne_bytes());
        spec[TYPE][..5].copy_from_slice(b"error");
        self.0.extend_from_slice(&spec);
        self.0.extend_from_slice(&[0; 8]); // no parameters
        self
    }

    fn send(mut self, control: &File, command: Command) -> io::Result<Message> {
        let bytes = u32::try_from(self.0.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
        self.put_u32(12, bytes);
        let (descriptor, at) = (control.as_raw_fd(), self.0.as_mut_ptr().cast());
        // SAFETY: `at` begins a dm_ioctl whose data_size is the length of the buffer, and the kernel reads and writes
        // no more than that; both outlive the call.
        let done = unsafe {
            match command {
                Command::Status => raw::status(descriptor, at),
                Command::Table => raw::table(descriptor, at),
                Command::Load => raw::load(descriptor, at),
                Command::Clear => raw::clear(descriptor, at),
                Command::Suspend => raw::suspend(descriptor, at),
            }
        };
        done?;
        Ok(self)
    }

    fn identity(&self) -> Identity {
        Identity { name: text(&self.0[48..176]), uuid: text(&self.0[176..305]) }
    }

    fn flag(&self, flag: u32) -> bool {
        self.get_u32(28) & flag != 0
    }

    /// The lines of an answer; `None` for what the kernel never writes.
    fn lines(&self) -> Option<Vec<Line>> {
        let data = self.0.get(usize::try_from(self.get_u32(16)).ok()?..)?;
        let mut lines = Vec::new();
        let mut at = 0;
        for _ in 0..self.get_u32(20) {
            let spec = data.get(at..at + SPEC)?;
            let parameters = data.get(at + SPEC..)?;
            lines.push(Line { target: text(&spec[TYPE]), parameters: text(parameters) });
            // Counted from the begin of the data, otherwise than in a table that is loaded.
            let next = u32::from_ne_bytes(spec[20..24].try_into().ok()?);
            let next = usize::try_from(next).ok()?;
            if next <= at && lines.len() < usize::try_from(self.get_u32(20)).ok()? {
                return None;
            }
            at = next;
        }
        Some(lines)
    }

    fn get_u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().expect("is four bytes"))
    }

    fn put_u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
}

/// The kernel's `huge_encode_dev`.
fn device_number(major: u32, minor: u32) -> u64 {
    u64::from(minor & 0xff) | u64::from(major) << 8 | u64::from(minor & !0xff) << 12
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DM3: TargetKind = TargetKind::Block { major: 253, minor: 3 };

    /// An answer as `retrieve_status` writes it.
    fn answer(lines: &[(&str, &str)]) -> Message {
        let mut message = Message::about(DM3).unwrap();
        message.put_u32(20, u32::try_from(lines.len()).unwrap());
        for (target, parameters) in lines {
            let begin = message.0.len();
            let mut spec = [0; SPEC];
            spec[TYPE][..target.len()].copy_from_slice(target.as_bytes());
            message.0.extend_from_slice(&spec);
            message.0.extend_from_slice(parameters.as_bytes());
            message.0.push(0);
            message.0.resize(message.0.len().next_multiple_of(8), 0);
            let next = u32::try_from(message.0.len() - HEAD).unwrap();
            message.0[begin + 20..begin + 24].copy_from_slice(&next.to_ne_bytes());
        }
        message
    }

    #[test]
    fn a_table_is_read_line_by_line() {
        let multipath = "1 queue_if_no_path 0 1 1 service-time 0 1 2 8:16 1 1";
        let lines = answer(&[("multipath", multipath), ("linear", "8:1 0"), ("error", "")]).lines().unwrap();
        let targets: Vec<_> = lines.iter().map(|line| line.target.as_str()).collect();
        assert_eq!(targets, ["multipath", "linear", "error"]);
        assert_eq!((lines[0].parameters.as_str(), lines[2].parameters.as_str()), (multipath, ""));
        assert_eq!(answer(&[]).lines(), Some(Vec::new()));
    }

    #[test]
    fn an_error_table_is_laid_out_as_the_kernel_reads_it() {
        let message = Message::about(DM3).unwrap().with_error_table(2048);
        assert_eq!((message.0.len(), message.get_u32(16), message.get_u32(20)), (360, 312, 1));
        let spec = &message.0[HEAD..];
        assert_eq!(u64::from_ne_bytes(spec[..8].try_into().unwrap()), 0);
        assert_eq!(u64::from_ne_bytes(spec[8..16].try_into().unwrap()), 2048);
        assert_eq!(text(&spec[TYPE]), "error");
        assert!(message.0[HEAD + SPEC..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn numbers_are_those_of_the_header() {
        assert_eq!(device_number(253, 3), 0xfd03);
        assert_eq!(device_number(253, 0x1234), 0x0120_fd34);
        assert_eq!(nix::request_code_readwrite!(0xfd, 7, HEAD), 0xc138_fd07);
        assert!(Message::about(TargetKind::File { device: 1, inode: 2 }).is_err());
    }

    proptest! {
        #[test]
        fn a_hostile_answer_never_panics(count: u32, data in proptest::collection::vec(any::<u8>(), 0..200), start: u32) {
            let mut message = Message::about(DM3).unwrap();
            message.0.extend_from_slice(&data);
            message.put_u32(20, count % 9);
            message.put_u32(16, if start % 3 == 0 { start } else { 312 });
            let _ = message.lines();
        }
    }
}
