//! Finding an area on a device, and what stands in its slots.
//!
//! Protects: an area is believed only where its header says it is, on a target as long as it says, and a tail area only as long
//! as no filesystem reaches into it. Never searches: a header that does not decode is an error. Does not protect: what was
//! found is of that moment; a claim reads it again.

use crate::driver::place::Selector;
use crate::error::Error;
use crate::format::Image;
use crate::format::area::{
    AREA_BLOCK_BYTES, AreaError, AreaHeader, AreaLayout, AreaPlace, EntryState, HeaderRole, Repair,
    SlotBlock, SlotEntry, SlotName, SlotState, choose, last_block_offset_bytes,
};
use crate::io::{Device, ReadAt};
use crate::protocol::timing::{TORN_PAUSE, TORN_REREADS};
use crate::sys::content;

/// So many blocks are read at once where all are looked at.
const BLOCKS_AT_ONCE: u32 = 256;

/// An area, as its headers were found.
#[derive(Clone, Debug)]
pub struct AreaView<D = Device> {
    /// What it stands on.
    pub device: D,
    /// The header that counts.
    pub header: AreaHeader,
    /// What has to be done about the other one.
    pub repair: Option<Repair>,
    /// Where its blocks are.
    pub layout: AreaLayout,
    /// Why nothing may be claimed in it: it is not where it was made, or reaches into what stands before it.
    pub unusable: Option<String>,
}

/// A slot, as its two blocks were found.
#[derive(Clone, Debug)]
pub struct SlotView {
    /// Its number.
    pub number: u32,
    /// Its slot block.
    pub block: Result<SlotBlock, AreaError>,
    /// Its entry block.
    pub entry: Result<SlotEntry, AreaError>,
}

impl<D: ReadAt + Clone> AreaView<D> {
    /// Looks for an area: at the beginning of the device, then in its last whole block. None if neither calls itself one.
    ///
    /// # Errors
    /// [`Error::Area`] if there is one that does not decode, or is of a later version; [`Error::Io`].
    pub fn find(device: &D) -> Result<Option<Self>, Error> {
        let last = last_block_offset_bytes(device.size_bytes());
        for (role, at) in [(HeaderRole::Header, last.map(|_| 0)), (HeaderRole::Copy, last)] {
            let Some(at) = at else { continue };
            let found = match read_header(device, at, role) {
                // The last block of one that fills its target: it was looked at from its beginning.
                Ok(found) if role == HeaderRole::Copy && found.place != AreaPlace::Tail => continue,
                Ok(found) => found,
                Err(Error::Area { source, .. }) if source.is_absent() => continue,
                Err(error) => return Err(error),
            };
            return AreaView::from_header(device, found).map(Some);
        }
        Ok(None)
    }

    /// The area that one of its headers tells of, at a place where somebody was told to look. None if none stands there that
    /// says that it does.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Area`] of a later version.
    pub(crate) fn at(device: &D, role: HeaderRole, offset_bytes: u64) -> Result<Option<Self>, Error> {
        if offset_bytes.saturating_add(AREA_BLOCK_BYTES as u64) > device.size_bytes() {
            return Ok(None);
        }
        let found = match read_header(device, offset_bytes, role) {
            Ok(found) => found,
            Err(Error::Area { source, .. }) if source.is_damage() => return Ok(None),
            Err(error) => return Err(error),
        };
        let stands = found.check().is_ok_and(|layout| match role {
            HeaderRole::Header => layout.header_offset_bytes() == offset_bytes,
            HeaderRole::Copy => layout.copy_offset_bytes() == offset_bytes,
        });
        if !stands {
            return Ok(None);
        }
        match AreaView::from_header(device, found) {
            Ok(view) => Ok(Some(view)),
            Err(Error::Area { source, .. }) if source.is_damage() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same area, as it is now.
    ///
    /// # Errors
    /// As [`AreaView::find`]; [`Error::Unprotected`] if it is not there any more.
    pub(crate) fn reread(&self) -> Result<Self, Error> {
        let at = match self.header.role {
            HeaderRole::Header => self.layout.header_offset_bytes(),
            HeaderRole::Copy => self.layout.copy_offset_bytes(),
        };
        AreaView::at(&self.device, self.header.role, at)?.ok_or_else(|| {
            let what = "its area was taken away, or moved, just now".to_owned();
            Error::Unprotected { path: self.device.path().to_owned(), what }
        })
    }

    /// The area that `found` describes.
    fn from_header(device: &D, found: AreaHeader) -> Result<Self, Error> {
        let fail = |source: AreaError| Error::Area { path: device.path().to_owned(), source };
        let layout = found.check().map_err(|damage| fail(damage.into()))?;
        if layout.end_bytes() > device.size_bytes() {
            let what = format!(
                "its area was moved when it had grown to {} bytes, and this host sees {}: have the kernel look at its size again",
                found.target_bytes,
                device.size_bytes()
            );
            return Err(Error::Unsupported { path: device.path().to_owned(), what });
        }
        let header = read_image(device, layout.header_offset_bytes())?;
        let copy = read_image(device, layout.copy_offset_bytes())?;
        let choice = choose(&header, &copy).map_err(fail)?;
        if choice.header.offset_bytes != found.offset_bytes {
            // What stands where its copy was tells of the area's new place: if the area stands there, that is the one.
            if let Some(moved) = AreaView::at(device, HeaderRole::Header, choice.header.offset_bytes)?
                && moved.header.uuid == found.uuid
            {
                return Ok(moved);
            }
            let revision = choice.header.revision.max(found.revision);
            let unusable = Some("its move was broken off; `mmp area move` ends it".to_owned());
            let header = AreaHeader { revision, ..found };
            return Ok(AreaView { device: device.clone(), header, repair: None, layout, unusable });
        }
        let layout = choice.header.check().map_err(|damage| fail(damage.into()))?;
        let stands = match choice.header.role {
            HeaderRole::Header => layout.header_offset_bytes(),
            HeaderRole::Copy => layout.copy_offset_bytes(),
        };
        let moved = choice.header.check_position(stands, device.size_bytes()).err();
        let mut view = AreaView {
            device: device.clone(),
            header: choice.header,
            repair: choice.repair,
            layout,
            unusable: moved.map(|moved| moved.to_string()),
        };
        if view.unusable.is_none() {
            view.unusable = view.content_reaches_in()?;
        }
        Ok(view)
    }

    /// Why nothing may be claimed, as an error.
    ///
    /// # Errors
    /// [`Error::Unsupported`], or [`Error::Area`] of a later version.
    pub fn check_usable(&self) -> Result<(), Error> {
        let path = || self.device.path().to_owned();
        if let Some(what) = &self.unusable {
            return Err(Error::Unsupported { path: path(), what: what.clone() });
        }
        self.header.check_writable().map_err(|source| Error::Area { path: path(), source })
    }

    /// Looks again, afresh, whether a filesystem has been grown over the area, or made over it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Unsupported`] if what stands there cannot be understood.
    pub fn content_reaches_in(&self) -> Result<Option<String>, Error> {
        if self.header.place != AreaPlace::Tail {
            return Ok(None);
        }
        let standing = content::filesystems(&self.device)?;
        let longest = standing.iter().max_by_key(|standing| standing.end_bytes);
        let begins = self.header.offset_bytes;
        Ok(longest.filter(|longest| longest.end_bytes > begins).map(|longest| {
            format!(
                "its {} reaches to byte {}, over the area that begins at byte {begins}: it was grown, or made anew; nothing may \
                 be written into the area any more. Use another protection (`mmp enable --area`), or grow the device, and `mmp enable` makes another area behind \
                 what stands there",
                longest.kind, longest.end_bytes
            )
        }))
    }

    /// The slot that is asked for. By name it is looked for in all slot blocks.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is none, or several; [`Error::Io`].
    pub fn slot(&self, selector: &Selector) -> Result<SlotView, Error> {
        match selector {
            Selector::Number(number) => self.read_slot(*number),
            Selector::Name(name) => {
                let mut found = Vec::new();
                self.each_slot(|slot| {
                    if slot.is_called(name) {
                        found.push(slot);
                    }
                })?;
                let target = self.device.path().display();
                match found.len() {
                    1 => Ok(found.remove(0)),
                    0 => Err(Error::Argument(format!(
                        "{target}: there is no slot \"{name}\"; see `mmp area list`"
                    ))),
                    _ => {
                        let numbers: Vec<_> = found.iter().map(|slot| slot.number.to_string()).collect();
                        Err(Error::Argument(format!(
                            "{target}: several slots are called \"{name}\" ({}); name one by its number",
                            numbers.join(", ")
                        )))
                    }
                }
            }
        }
    }

    /// Reads one slot. A block that does not decode is read again first.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such slot; [`Error::Io`].
    pub fn read_slot(&self, number: u32) -> Result<SlotView, Error> {
        let places = self.layout.slot_offset_bytes(number).zip(self.layout.entry_offset_bytes(number));
        let Some((slot_bytes, entry_bytes)) = places else {
            let (target, last) = (self.device.path().display(), self.layout.slots() - 1);
            return Err(Error::Argument(format!(
                "{target}: there is no slot {number}; the last one is {last}"
            )));
        };
        let mut tries = 0;
        loop {
            let block = read_image(&self.device, slot_bytes)?;
            let entry = read_image(&self.device, entry_bytes)?;
            let view = self.view(number, &block, &entry);
            tries += 1;
            if (view.block.is_ok() && view.entry.is_ok()) || tries > TORN_REREADS {
                return Ok(view);
            }
            self.device.pause(TORN_PAUSE);
        }
    }

    /// Reads all slots, many at once, and gives each to `each`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn each_slot(&self, mut each: impl FnMut(SlotView)) -> Result<(), Error> {
        let block_bytes = AREA_BLOCK_BYTES;
        let mut first = 0;
        while first < self.layout.slots() {
            let count = BLOCKS_AT_ONCE.min(self.layout.slots() - first);
            let length = count as usize * block_bytes;
            let (mut blocks, mut entries) = (vec![0; length], vec![0; length]);
            let places = self.layout.slot_offset_bytes(first).zip(self.layout.entry_offset_bytes(first));
            let Some((slot_bytes, entry_bytes)) = places else { break };
            let mut tries = 0;
            let views = loop {
                self.device.read_at(slot_bytes, &mut blocks)?;
                self.device.read_at(entry_bytes, &mut entries)?;
                let pairs = blocks.chunks_exact(block_bytes).zip(entries.chunks_exact(block_bytes));
                let images = pairs.filter_map(|(block, entry)| block.first_chunk().zip(entry.first_chunk()));
                let views: Vec<_> = (first..)
                    .zip(images)
                    .map(|(number, (block, entry))| self.view(number, block, entry))
                    .collect();
                tries += 1;
                // One pause for all of them: somebody may be writing one.
                if tries > TORN_REREADS || views.iter().all(|view| view.block.is_ok() && view.entry.is_ok()) {
                    break views;
                }
                self.device.pause(TORN_PAUSE);
            };
            views.into_iter().for_each(&mut each);
            first += count;
        }
        Ok(())
    }

    fn view(&self, number: u32, block: &Image, entry: &Image) -> SlotView {
        SlotView {
            number,
            block: SlotBlock::decode(block, self.header.seed(), number),
            entry: SlotEntry::decode(entry, &self.header.uuid, number),
        }
    }
}

impl SlotView {
    /// Its name and the UUID of its target, by its block; by its entry if the block is damaged. None if it is not in use.
    ///
    /// # Errors
    /// Why nobody knows.
    pub fn identity(&self) -> Result<Option<(SlotName, [u8; 16])>, AreaError> {
        match (&self.block, &self.entry) {
            (Ok(SlotBlock { record, .. }), _) if record.name.is_empty() => Ok(None),
            (Ok(SlotBlock { record, .. }), _) => Ok(Some((record.name, record.target))),
            (Err(error), _) if !error.is_damage() => Err(*error),
            (Err(_), Ok(entry)) if entry.state == EntryState::Free => Ok(None),
            (Err(_), Ok(entry)) => Ok(Some((entry.name, entry.target))),
            (Err(error), Err(_)) => Err(*error),
        }
    }

    /// Slot block and entry do not say the same, or the slot block has lost its magic: it takes a repair before it can be claimed. What
    /// a later version wrote is not repaired.
    #[must_use]
    pub fn needs_repair(&self) -> bool {
        if self.is_of_a_later_version() {
            return false;
        }
        match (&self.block, &self.entry) {
            (Ok(SlotBlock { record, .. }), Ok(entry)) => {
                let used = entry.state == EntryState::Used;
                used == record.name.is_empty()
                    || (used && (entry.name, entry.target) != (record.name, record.target))
            }
            (Ok(SlotBlock { record, .. }), Err(_)) => record.name.is_empty(),
            (Err(error), Ok(_)) => error.is_absent(),
            (Err(_), Err(_)) => true,
        }
    }

    /// A later version wrote one of its blocks: nothing may be done about it.
    #[must_use]
    pub fn is_of_a_later_version(&self) -> bool {
        let later = |error: Option<&AreaError>| error.is_some_and(|error| !error.is_damage());
        later(self.block.as_ref().err()) || later(self.entry.as_ref().err())
    }

    /// Somebody claims it or holds it, or died at that.
    #[must_use]
    pub fn is_live_or_unclean(&self) -> bool {
        match &self.block {
            Ok(SlotBlock { record, .. }) => matches!(record.state, SlotState::Claiming | SlotState::Holding),
            Err(_) => true,
        }
    }

    fn is_called(&self, name: &SlotName) -> bool {
        matches!(self.identity(), Ok(Some((called, _))) if called == *name)
    }
}

/// Reads and decodes the header at `offset_bytes`. One that does not decode is read again first: somebody may be writing it.
fn read_header(device: &impl ReadAt, offset_bytes: u64, role: HeaderRole) -> Result<AreaHeader, Error> {
    let mut tries = 0;
    loop {
        let image = read_image(device, offset_bytes)?;
        tries += 1;
        match AreaHeader::decode(&image, role) {
            Ok(header) => return Ok(header),
            Err(source) if tries > TORN_REREADS || !source.is_damage() || source.is_absent() => {
                return Err(Error::Area { path: device.path().to_owned(), source });
            }
            Err(_) => device.pause(TORN_PAUSE),
        }
    }
}

fn read_image(device: &impl ReadAt, offset_bytes: u64) -> Result<Image, Error> {
    let mut image: Image = [0; _];
    device.read_at(offset_bytes, &mut image)?;
    Ok(image)
}
