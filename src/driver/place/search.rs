//! Looking for the header of an area where it may have been left: on a target that was grown, or whose other header was overwritten.
//!
//! Protects: who is about to make an area, or is told that there is none, hears of one that another host may still use. What is found here
//! is never claimed as it stands: only who was told to move or to repair it goes on.

use super::AreaView;
use crate::error::Error;
use crate::format::Image;
use crate::format::area::{AREA_BLOCK_BYTES, AREA_MAGIC, AreaHeader, HeaderRole};
use crate::io::Device;
use crate::sys::content;

/// So much is read at once.
const PIECE_BYTES: usize = 1 << 20;

/// What a search came to.
#[derive(Debug)]
pub(crate) struct Searched {
    /// The first area found.
    pub(crate) found: Option<AreaView>,
    /// Without one: so much at the end of the device was not looked at.
    pub(crate) left_bytes: u64,
}

impl AreaView {
    /// Looks for a header that stands where it says, within `most_bytes` behind what stands on the device, by its superblock.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Content`] if what stands there cannot be understood; [`Error::Area`] of a later version.
    pub(crate) fn search(device: &Device, most_bytes: u64) -> Result<Searched, Error> {
        let mut found = None;
        let left_bytes = each_header(device, most_bytes, |at, _| {
            for role in [HeaderRole::Header, HeaderRole::Copy] {
                found = AreaView::at(device, role, at)?;
                if found.is_some() {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        Ok(Searched { found, left_bytes })
    }

    /// Where a header that decodes as block 0 of the area with this UUID stands, within `most_bytes` behind what stands on the device.
    ///
    /// # Errors
    /// As [`AreaView::search`].
    pub(crate) fn blocks_0(device: &Device, uuid: &[u8; 16], most_bytes: u64) -> Result<Vec<u64>, Error> {
        let mut found = Vec::new();
        each_header(device, most_bytes, |at, image| {
            let header = AreaHeader::decode(image, HeaderRole::Header);
            if header.is_ok_and(|header| header.uuid == *uuid && header.offset_bytes == at) {
                found.push(at);
            }
            Ok(true)
        })?;
        Ok(found)
    }

    /// What is to be done about an area that was found by [`AreaView::search`], in words.
    pub(crate) fn left_behind(&self) -> String {
        let begins = self.layout.header_offset_bytes();
        let now_bytes = self.device.size_bytes();
        let shown = self.device.path().display();
        let (why, verb) = match self.header.target_bytes == now_bytes {
            true => ("whose other header was overwritten".to_owned(), "repair"),
            false => (
                format!(
                    "that was made when this had {} bytes, not {now_bytes}; another host may still see that size, and use the area",
                    self.header.target_bytes
                ),
                "move",
            ),
        };
        format!(
            "an area stands at byte {begins} {why}: `mmp area {verb} {shown}` goes on with it, `mmp area destroy {shown}` takes it away"
        )
    }
}

/// Gives every block that begins as a header does, until it says false. Tells how much at the end of the device was not looked at.
fn each_header(
    device: &Device,
    most_bytes: u64,
    mut each: impl FnMut(u64, &Image) -> Result<bool, Error>,
) -> Result<u64, Error> {
    let block = AREA_BLOCK_BYTES as u64;
    let begins = content::end_bytes(device)?.unwrap_or(0);
    let begins = begins.checked_next_multiple_of(block).unwrap_or(u64::MAX);
    let all = device.size_bytes() / block * block;
    let end = all.min(begins.saturating_add(most_bytes) / block * block);
    let mut at = begins;
    while at < end {
        let length = PIECE_BYTES.min(usize::try_from(end - at).unwrap_or(PIECE_BYTES));
        let mut bytes = vec![0; length];
        device.read_at(at, &mut bytes)?;
        for (found, bytes) in (at..).step_by(AREA_BLOCK_BYTES).zip(bytes.chunks_exact(AREA_BLOCK_BYTES)) {
            let image = bytes.first_chunk().filter(|image| image.starts_with(&AREA_MAGIC));
            if let Some(image) = image
                && !each(found, image)?
            {
                return Ok(0);
            }
        }
        at += length as u64;
    }
    Ok(all.saturating_sub(end.max(begins)))
}
