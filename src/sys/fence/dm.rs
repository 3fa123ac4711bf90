//! The rung `dm`: a table that refuses all I/O in the place of the device's own.
//!
//! Protects: nothing is flushed and no filesystem frozen; when it is in force, what was under way has ended, as the kernel
//! waits for it. A helper that waits for that is not killed: while it waits new I/O is held back, and its death would let
//! it go. Does not protect: if somebody loads another table afterwards.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;

use super::climb::{Effect, Ended, Rung};
use super::helper::{Answer, Helper};
use super::{Ready, ended, no_process};
use crate::clock::Mono;
use crate::sys::device_mapper::{self, CONTROL, Identity};
use crate::sys::stack::Stack;
use crate::sys::target::TargetKind;

/// Opens the control node and learns what the device is called.
pub(super) fn prepare(stack: &Stack) -> Result<Ready, String> {
    let top = &stack.layers[0];
    let Some((name, _)) = top.device_mapper() else {
        return Err(format!("{} is no device mapper device", top.name));
    };
    let control = device_mapper::open().map_err(|error| format!("{CONTROL} cannot be opened: {error}"))?;
    let identity = device_mapper::identity(&control, top.kind)
        .map_err(|error| format!("the device mapper does not tell about {}: {error}", top.name))?;
    let size = top.dir.join("size");
    let size = File::open(&size).map_err(|error| format!("{} cannot be opened: {error}", size.display()))?;
    sectors(&size)?;
    let description =
        format!("replaces the table of {} ({name}) by one that refuses all I/O, without flushing", top.name);
    let rung = DeviceMapper { control, size, identity, device: top.kind, late: None };
    Ok(Ready { rung: Box::new(rung), description, cut: true, lacks: None })
}

struct DeviceMapper {
    control: File,
    size: File,
    identity: Identity,
    device: TargetKind,
    late: Option<Helper>,
}

impl Rung for DeviceMapper {
    fn effect(&self) -> Effect {
        Effect::Cuts
    }

    fn run(&mut self, until: Mono) -> Ended {
        let helper = Helper::start(&self.descriptors(), || refuse(self));
        let mut helper = match helper {
            Ok(helper) => helper,
            Err(error) => return no_process(&error),
        };
        match helper.wait(until) {
            Some(answer) => ended(answer, false),
            None => {
                self.late = Some(helper);
                let detail = "waits for the I/O under way to end; new I/O is held back meanwhile".to_owned();
                Ended::Late { detail, goes_on: true }
            }
        }
    }

    fn later(&mut self) -> Option<Ended> {
        let answer = self.late.as_mut()?.answer()?;
        self.late = None;
        Some(ended(answer, false))
    }

    fn descriptors(&self) -> Vec<RawFd> {
        vec![self.control.as_raw_fd(), self.size.as_raw_fd()]
    }
}

fn refuse(rung: &DeviceMapper) -> Answer {
    let sectors = sectors(&rung.size)?;
    device_mapper::refuse_all(&rung.control, rung.device, &rung.identity, sectors)
        .map_err(|error| format!("its table could not be replaced: {error}"))?;
    Ok(format!("{} refuses all I/O", rung.identity.name))
}

/// The size as it is now: the volume may have been grown since.
fn sectors(size: &File) -> Result<u64, String> {
    let mut buffer = [0; 32];
    let read = size.read_at(&mut buffer, 0).map_err(|error| format!("its size cannot be read: {error}"))?;
    let text = String::from_utf8_lossy(&buffer[..read]);
    let sectors = text.trim_end().parse().ok().filter(|&sectors| sectors > 0);
    sectors.ok_or_else(|| "its size is not known".to_owned())
}
