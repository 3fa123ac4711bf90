//! A plan of writes, and carrying it out.
//!
//! Protects: before the first write everything that is changed is compared with what the plan was made from, and before
//! each write the superblock and the bytes that it replaces: a host that mounts the filesystem meanwhile writes the
//! superblock first, and is noticed. Does not protect: who writes between that look and the write.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::volume::{SuperblockBytes, Volume};
use super::{Bytes, Ext4Error, Part, fail};
use crate::error::Error;
use crate::format::superblock::SUPERBLOCK_OFFSET_BYTES;

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// What it is.
    pub part: Part,
    /// Where it goes, in bytes from the start of the device.
    pub offset_bytes: u64,
    /// What is written. Copies share their bytes.
    pub bytes: Arc<[u8]>,
    /// What must stand there before; nothing where that does not matter: on a free block, on a copy, and on an MMP block
    /// in which the caller beats.
    pub before: Option<Arc<[u8]>>,
}

/// What is written, in which order.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) path: PathBuf,
    pub(super) block: u64,
    pub(super) block_bytes: u32,
    pub(super) interval_s: u16,
    pub(super) superblock_before: Box<SuperblockBytes>,
    pub(super) superblock_after: Box<SuperblockBytes>,
    pub(super) edits: Vec<Edit>,
}

impl Plan {
    /// The writes, in their order.
    #[must_use]
    pub fn edits(&self) -> &[Edit] {
        &self.edits
    }

    /// Which filesystem it is about.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The MMP block: the one that is taken, given back, or left where it is; a block number.
    #[must_use]
    pub fn block(&self) -> u64 {
        self.block
    }

    /// Where the MMP block begins, in bytes from the start of the device.
    #[must_use]
    pub fn block_offset_bytes(&self) -> u64 {
        self.block * u64::from(self.block_bytes)
    }

    /// The filesystem's block size, in bytes.
    #[must_use]
    pub fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    /// The update interval afterwards, in seconds; 0 if MMP is off then.
    #[must_use]
    pub fn interval_s(&self) -> u16 {
        self.interval_s
    }

    /// The superblock that the plan was made from.
    #[must_use]
    pub fn superblock_before(&self) -> &SuperblockBytes {
        &self.superblock_before
    }

    /// The superblock as it will be.
    #[must_use]
    pub fn superblock_after(&self) -> &SuperblockBytes {
        &self.superblock_after
    }

    /// Writes it all. `may_go_on` is asked right before each write, after the look that precedes it.
    ///
    /// # Errors
    /// [`Ext4Error::Changed`] if what stands there is not what the plan was made from; what `may_go_on` says; what
    /// `bytes` says. If anything was written by then, the filesystem is as after a crash: see [`super::order`].
    pub fn carry_out(
        &self,
        bytes: &mut dyn Bytes,
        may_go_on: &mut dyn FnMut(&Edit) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for edit in &self.edits {
            self.compare(bytes, edit, 0)?;
        }
        let mut superblock = &self.superblock_before;
        for (written, edit) in self.edits.iter().enumerate() {
            if !stands(bytes, SUPERBLOCK_OFFSET_BYTES, superblock.as_slice())? {
                return Err(fail(&self.path, Ext4Error::Changed { part: Part::Superblock, written }));
            }
            self.compare(bytes, edit, written)?;
            // Last: a read that stalls must not carry the write beyond what allows it.
            may_go_on(edit)?;
            bytes.write_at(edit.offset_bytes, &edit.bytes)?;
            if edit.part == Part::Superblock {
                superblock = &self.superblock_after;
            }
        }
        Ok(())
    }

    fn compare(&self, bytes: &mut dyn Bytes, edit: &Edit, written: usize) -> Result<(), Error> {
        match &edit.before {
            Some(before) if !stands(bytes, edit.offset_bytes, before)? => {
                Err(fail(&self.path, Ext4Error::Changed { part: edit.part, written }))
            }
            _ => Ok(()),
        }
    }
}

/// A plan in the making: its edits may not share a byte, and lie inside the filesystem.
pub(super) struct Draft<'a> {
    volume: &'a Volume,
    edits: Vec<Edit>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(volume: &'a Volume) -> Self {
        Draft { volume, edits: Vec::new() }
    }

    /// Adds a write of a block, a part of one, or several.
    pub(super) fn write(
        &mut self,
        part: Part,
        offset_bytes: u64,
        bytes: impl Into<Arc<[u8]>>,
        before: Option<&[u8]>,
    ) {
        self.edits.push(Edit { part, offset_bytes, bytes: bytes.into(), before: before.map(Arc::from) });
    }

    /// The plan.
    ///
    /// # Errors
    /// [`Ext4Error::Overlap`] if two writes share a byte, [`Ext4Error::Geometry`] if one lies outside: then the layout
    /// cannot be right, and nothing is planned.
    pub(super) fn finish(self, block: u64, interval_s: u16, after: SuperblockBytes) -> Result<Plan, Error> {
        let end_bytes = self.volume.geometry.offset_bytes(self.volume.geometry.blocks_count);
        let mut spans: Vec<(u64, u64, Part)> = Vec::with_capacity(self.edits.len());
        for edit in &self.edits {
            let end = edit.offset_bytes.saturating_add(edit.bytes.len() as u64);
            if end > end_bytes {
                let what = format!("{} at byte {} lies outside", edit.part, edit.offset_bytes);
                return Err(self.volume.fail(Ext4Error::Geometry { what }));
            }
            spans.push((edit.offset_bytes, end, edit.part));
        }
        spans.sort_unstable_by_key(|span| span.0);
        if let Some(pair) = spans.windows(2).find(|pair| pair[0].1 > pair[1].0) {
            return Err(self.volume.fail(Ext4Error::Overlap { one: pair[0].2, other: pair[1].2 }));
        }
        Ok(Plan {
            path: self.volume.path.clone(),
            block,
            block_bytes: self.volume.superblock.block_bytes,
            interval_s,
            superblock_before: Box::new(self.volume.bytes),
            superblock_after: Box::new(after),
            edits: self.edits,
        })
    }
}

/// Whether these bytes stand there.
fn stands(bytes: &mut dyn Bytes, offset_bytes: u64, wanted: &[u8]) -> Result<bool, Error> {
    let mut found = vec![0; wanted.len()];
    bytes.read_at(offset_bytes, &mut found)?;
    Ok(found == wanted)
}
