//! Slot 0 held, and what may be written under it.
//!
//! Protects: nothing is written once the lease of the lock has less than a quarter left, and a change whose lock was lost while a
//! write was on its way says so. What was read before the lock was taken is read again.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use crate::driver::set::{Member, acquire_all};
use crate::driver::{AreaView, Held, Options, Place, SlotView};
use crate::error::Error;
use crate::format::Image;
use crate::format::area::{
    AreaError, AreaHeader, HeaderRole, LOCK_SLOT, SlotBlock, SlotEntry, counterpart, whole_block,
};
use crate::io::BlockWriter;
use crate::protocol::Event;
use crate::protocol::timing::CheckInterval;

/// So many slots can be held at once by one process, each by a thread and three descriptors of its own; a process has 1024.
const HELD_AT_ONCE: usize = 256;

/// Hears what happens during the claims of a change, and of which slot (`TARGET:NUMBER`); several times a second without an event.
/// Breaking gives up.
pub type Observe<'a> = &'a (dyn Fn(&Path, Option<&Event>) -> ControlFlow<()> + Sync);

/// How a change is asked for.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// The node name to write, instead of this host's.
    pub node: Option<&'a str>,
    /// How long to wait for whoever holds the lock or a slot.
    pub wait: Duration,
    /// Who hears of it.
    pub observe: Observe<'a>,
}

/// An area whose lock we hold.
#[derive(Debug)]
pub struct AreaLock {
    /// As it was read after the lock was taken.
    pub view: AreaView,
    held: Held,
    writer: BlockWriter,
    moving: bool,
    /// Something was written under it, and it was not given back since: then it ends as a crash does.
    wrote: bool,
    over: bool,
}

impl AreaLock {
    /// Takes the lock: claims slot 0.
    ///
    /// # Errors
    /// As [`Options::acquire`]; [`Error::Unsupported`] if nothing may be claimed in the area.
    pub fn take(view: &AreaView, asking: Asking<'_>) -> Result<Self, Error> {
        view.check_usable()?;
        AreaLock::claim(view, asking, false)
    }

    /// The same, of an area that is to be moved: it need not be where its header says.
    ///
    /// # Errors
    /// As [`AreaLock::take`].
    pub fn take_moved(view: &AreaView, asking: Asking<'_>) -> Result<Self, Error> {
        AreaLock::claim(view, asking, true)
    }

    fn claim(view: &AreaView, asking: Asking<'_>, moving: bool) -> Result<Self, Error> {
        view.device.check_writable()?;
        // A claim would be written into what is a filesystem's by now, wherever the area is to go.
        if let Some(what) = view.content_reaches_in()? {
            return Err(Error::Unsupported { path: view.device.path().to_owned(), what });
        }
        let writer = BlockWriter::open(&view.device)?;
        let place = place(view, view.read_slot(LOCK_SLOT)?, asking.node, moving)?;
        let asked = place.asked().to_owned();
        let options = Options::of_place(place).wait(asking.wait);
        let held = options.acquire_with(|event| (asking.observe)(&asked, event))?;
        let mut lock = AreaLock { writer, view: view.clone(), held, moving, wrote: false, over: false };
        // It took a wait: somebody may have changed it before.
        let fresh = view.reread()?;
        if fresh.header.uuid != view.header.uuid || (fresh.unusable.is_some() && !moving) {
            let what = "the area was changed meanwhile; nothing was done, try again".to_owned();
            return Err(Error::Unsupported { path: view.device.path().to_owned(), what });
        }
        lock.view = fresh;
        Ok(lock)
    }

    /// Claims more slots of the area, all of them or none.
    ///
    /// # Errors
    /// As [`AreaLock::take`]; [`Error::Argument`] if they are too many.
    pub fn claim_slots(&self, slots: Vec<SlotView>, asking: Asking<'_>) -> Result<Vec<Held>, Error> {
        if slots.len() > HELD_AT_ONCE {
            return Err(Error::Argument(format!(
                "{}: {} slots are in use, and at most {HELD_AT_ONCE} can be held at once; remove those that are not needed",
                self.view.device.path().display(),
                slots.len()
            )));
        }
        let mut members = Vec::new();
        for slot in slots {
            let place = place(&self.view, slot, asking.node, self.moving)?;
            let options = Options::of_place(place.clone()).wait(asking.wait);
            members.push(Member { place, options });
        }
        acquire_all(members, &asking.observe)
    }

    /// Reads a slot's block as it stands, whether it decodes or not.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn slot_image(&self, slot: u32) -> Result<Image, Error> {
        let mut image: Image = [0; _];
        self.view.device.read_at(self.slot_bytes(slot), &mut image)?;
        Ok(image)
    }

    /// Writes a slot's block over `base`.
    ///
    /// # Errors
    /// As [`AreaLock::write`].
    pub fn write_slot(&mut self, base: &Image, block: &SlotBlock) -> Result<(), Error> {
        let mut image = *base;
        block.encode_into(&mut image, self.view.header.seed());
        self.write(self.slot_bytes(block.record.slot), &image)
    }

    /// Writes an entry; what has no field stays if one stands there that decodes.
    ///
    /// # Errors
    /// As [`AreaLock::write`].
    pub fn write_entry(&mut self, entry: &SlotEntry) -> Result<(), Error> {
        let at = self.view.layout.entry_offset_bytes(entry.slot).unwrap_or_default();
        let mut image: Image = [0; _];
        self.view.device.read_at(at, &mut image)?;
        if SlotEntry::decode(&image, &self.view.header.uuid, entry.slot).is_err() {
            image.fill(0);
        }
        entry.encode_into(&mut image);
        self.write(at, &image)
    }

    /// Writes the header with the next revision: first the one from which the area is not found.
    ///
    /// # Errors
    /// As [`AreaLock::write`].
    pub fn write_headers(&mut self, header: &AreaHeader) -> Result<(), Error> {
        let base = self.header_image()?;
        for (at, image) in super::create::headers(header, &base).map_err(|source| self.fail(source))? {
            self.write(at, &image)?;
        }
        Ok(())
    }

    /// The header that counts, as it stands.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn header_image(&self) -> Result<Image, Error> {
        let mut base: Image = [0; _];
        let stands = match self.view.header.role {
            HeaderRole::Header => self.view.layout.header_offset_bytes(),
            HeaderRole::Copy => self.view.layout.copy_offset_bytes(),
        };
        self.view.device.read_at(stands, &mut base)?;
        Ok(base)
    }

    /// Writes the header `role` anew, from the other one.
    ///
    /// # Errors
    /// As [`AreaLock::write`].
    pub fn repair_header(&mut self, role: HeaderRole) -> Result<(), Error> {
        let (header, copy) = (self.view.layout.header_offset_bytes(), self.view.layout.copy_offset_bytes());
        let (from, to) = if role == HeaderRole::Header { (copy, header) } else { (header, copy) };
        let mut better: Image = [0; _];
        self.view.device.read_at(from, &mut better)?;
        self.write(to, &counterpart(&better, role))
    }

    /// Writes one block, if the lock is held, and will be for as long as a write may take.
    ///
    /// # Errors
    /// [`Error::Lost`] if it is not, or was not any more when the write was done; [`Error::Io`].
    pub fn write(&mut self, offset_bytes: u64, image: &Image) -> Result<(), Error> {
        self.write_blocks(offset_bytes, &whole_block(image))
    }

    /// The same, of several blocks.
    ///
    /// # Errors
    /// As [`AreaLock::write`].
    pub fn write_blocks(&mut self, offset_bytes: u64, bytes: &[u8]) -> Result<(), Error> {
        let reserve = CheckInterval::Area(self.view.header.interval_ms).write_reserve();
        self.check_held(reserve)?;
        self.wrote = true;
        self.writer.write(offset_bytes, bytes)?;
        self.check_held(Duration::ZERO)
    }

    fn check_held(&self, reserve: Duration) -> Result<(), Error> {
        let status = self.held.status();
        if status.held && status.lease_left > reserve {
            return Ok(());
        }
        let path = self.view.device.path().to_owned();
        Err(Error::Lost { path, loss: crate::protocol::Loss::LeaseExpired })
    }

    /// Gives the lock back.
    ///
    /// # Errors
    /// As [`Held::release`].
    pub fn release(mut self) -> Result<(), Error> {
        self.over = true;
        self.held.release().map(drop)
    }

    fn slot_bytes(&self, slot: u32) -> u64 {
        self.view.layout.slot_offset_bytes(slot).unwrap_or_default()
    }

    fn fail(&self, source: AreaError) -> Error {
        Error::Area { path: self.view.device.path().to_owned(), source }
    }
}

impl Drop for AreaLock {
    fn drop(&mut self) {
        if !self.over && !self.wrote {
            // Nothing was done; if it cannot be given back it stands as after a crash, and is watched out.
            let _ = self.held.release();
        }
    }
}

fn place(view: &AreaView, slot: SlotView, node: Option<&str>, moving: bool) -> Result<Place, Error> {
    let mut asked = view.device.path().as_os_str().to_owned();
    asked.push(format!(":{}", slot.number));
    let asked = std::path::PathBuf::from(asked);
    match moving {
        true => Place::of_moved_slot(&asked, view, slot, node),
        false => Place::of_slot(&asked, view.clone(), slot, None, node),
    }
}
