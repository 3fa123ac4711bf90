//! A slot of an area, on a device or in a file: the slot's block, its entry, and the area's two headers.
//!
//! Protects: blocks are read and written whole, from and to the disk, by one request each; bytes 1024 to 4095 of what is
//! written are zeroes, as the format wants them; a target that has another size than the area was made for is found at
//! every claim. Does not protect: which block may be written when is `protocol`'s business.

use std::fs::File;
use std::io;

use super::Device;
use super::arena::Arena;
use super::look::Look;
use super::node::Access;
use super::store::{BlockStore, Durability};
use super::transfer::{read_whole, write_block};
use crate::error::Error;
use crate::format::area::{AREA_BLOCK_BYTES, AreaHeader, AreaLayout, HeaderRole, choose};
use crate::format::superblock::SUPERBLOCK_BYTES;
use crate::format::{Image, MMP_STRUCT_BYTES};

/// A slot of an area on a device.
#[derive(Debug)]
pub struct SlotFile {
    device: Device,
    /// The size that the area was made for.
    target_bytes: u64,
    header_bytes: u64,
    copy_bytes: u64,
    /// For who moves the area: its copy may tell of the new place already.
    moving: bool,
    slot_bytes: u64,
    entry_bytes: u64,
    /// One block, for whatever is under way.
    arena: Arena,
    /// The slot's block was looked at.
    looked: bool,
    direct: bool,
    /// `RWF_DSYNC` is worth a try.
    dsync: bool,
    /// The descriptor for writing, while it is kept.
    kept: Option<File>,
}

impl SlotFile {
    /// The slot with that number, of the area that `header` describes. Opens nothing.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such slot, or no such area; [`Error::Short`] if it ends beyond the device;
    /// [`Error::Unsupported`] if its blocks are not made of whole sectors; [`Error::Io`] if there is no memory.
    pub fn new(device: &Device, header: &AreaHeader, slot: u32) -> Result<SlotFile, Error> {
        let layout = header.check().map_err(|damage| Error::Argument(damage.to_string()))?;
        SlotFile::at(device, header.target_bytes, layout, slot)
    }

    fn at(device: &Device, target_bytes: u64, layout: AreaLayout, slot: u32) -> Result<SlotFile, Error> {
        let places = layout.slot_offset_bytes(slot).zip(layout.entry_offset_bytes(slot));
        let Some((slot_bytes, entry_bytes)) = places else {
            let last = layout.slots() - 1;
            return Err(Error::Argument(format!("there is no slot {slot}; the last one is {last}")));
        };
        if layout.end_bytes() > device.size_bytes() {
            return Err(device.short("the blocks of the area", layout.header_offset_bytes()));
        }
        let access = device.access();
        let sector_bytes = u64::from(access.sector_bytes.max(1));
        let aligned = layout.header_offset_bytes().is_multiple_of(sector_bytes)
            && (AREA_BLOCK_BYTES as u64).is_multiple_of(sector_bytes);
        if access.direct && !aligned && access.shared {
            let what = format!(
                "an area has blocks of {AREA_BLOCK_BYTES} bytes, but the device is written in sectors of {sector_bytes} \
                 bytes: what shares the sector would be overwritten"
            );
            return Err(Error::Unsupported { path: device.path().to_owned(), what });
        }
        Ok(SlotFile {
            device: device.clone(),
            target_bytes,
            header_bytes: layout.header_offset_bytes(),
            copy_bytes: layout.copy_offset_bytes(),
            moving: false,
            slot_bytes,
            entry_bytes,
            arena: Arena::new(AREA_BLOCK_BYTES)?,
            looked: false,
            direct: access.direct && aligned,
            dsync: true,
            kept: None,
        })
    }

    /// The same, for who moves the area: the target has another size than the area was made for.
    #[must_use]
    pub fn of_moved(self) -> SlotFile {
        SlotFile { target_bytes: self.device.size_bytes(), moving: true, ..self }
    }

    /// Reads both headers as they stand, block 0 first.
    ///
    /// # Errors
    /// As [`BlockStore::read`].
    pub fn read_headers(&mut self) -> Result<[Image; 2], Error> {
        Ok([
            self.read_at(self.header_bytes, "read the area's header")?,
            self.read_at(self.copy_bytes, "read the copy of the area's header")?,
        ])
    }

    fn read_at(&mut self, offset_bytes: u64, op: &'static str) -> Result<Image, Error> {
        let look = Look::open(self.kept.as_ref(), &self.device, self.direct)?;
        let whole = read_whole(look.file(), self.arena.bytes_mut(), offset_bytes)
            .map_err(|source| self.device.node().fail(op, source))?;
        match self.arena.bytes().first_chunk() {
            Some(image) if whole => Ok(*image),
            _ => Err(self.device.short("the bytes of an area's block", offset_bytes)),
        }
    }

    fn write_at(
        &mut self,
        offset_bytes: u64,
        image: &Image,
        durability: Durability,
        op: &'static str,
    ) -> Result<(), Error> {
        let fail = |source| self.device.node().fail(op, source);
        let Some(file) = &self.kept else {
            return Err(fail(io::Error::other("it was not opened for writing")));
        };
        let (said, zero) = self.arena.bytes_mut().split_at_mut(MMP_STRUCT_BYTES);
        said.copy_from_slice(image);
        zero.fill(0);
        let bytes = self.arena.bytes();
        write_block(file, bytes, offset_bytes, self.direct, durability, &mut self.dsync).map_err(fail)
    }
}

impl BlockStore for SlotFile {
    fn read(&mut self) -> Result<&Image, Error> {
        self.read_at(self.slot_bytes, "read the slot's block")?;
        self.looked = true;
        Ok(self.arena.bytes().first_chunk().expect("a block is larger than the struct"))
    }

    fn write(&mut self, image: &Image, durability: Durability) -> Result<(), Error> {
        assert!(self.looked, "a block must be read before it is written");
        self.write_at(self.slot_bytes, image, durability, "write the slot's block")
    }

    fn read_superblock(&mut self) -> Result<[u8; SUPERBLOCK_BYTES], Error> {
        let now_bytes = match &self.kept {
            Some(file) => self.device.size_of(file)?,
            None => self.device.size_now_bytes()?,
        };
        if now_bytes != self.target_bytes {
            let what = format!(
                "it has {now_bytes} bytes by now, and its area was made for {}; see `mmp area move`",
                self.target_bytes
            );
            return Err(Error::Unsupported { path: self.device.path().to_owned(), what });
        }
        let [header, copy] = self.read_headers()?;
        let choice = choose(&header, &copy)
            .map_err(|source| Error::Area { path: self.device.path().to_owned(), source })?;
        let elsewhere = self.moving && choice.header.offset_bytes != self.header_bytes;
        Ok(if elsewhere || choice.header.role == HeaderRole::Header { header } else { copy })
    }

    fn read_entry(&mut self) -> Result<Image, Error> {
        self.read_at(self.entry_bytes, "read the slot's entry")
    }

    fn write_entry(&mut self, image: &Image) -> Result<(), Error> {
        self.write_at(self.entry_bytes, image, Durability::Durable, "write the slot's entry")
    }

    fn open_for_writing(&mut self) -> Result<(), Error> {
        if self.kept.is_none() {
            self.kept = Some(self.device.node().open(Access::Write, self.direct)?);
        }
        Ok(())
    }

    fn close(&mut self) {
        self.kept = None;
    }
}
