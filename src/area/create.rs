//! Making an area.
//!
//! Protects: nothing is written before everything was checked: what stands there, where it ends, that nobody on this host uses it.
//! The headers come last, and the one from which the area is found is the very last block written: before that there is no
//! area. Does not protect: a blank device is blank by the word of the one who says so.

use crate::clock::{self, Wall};
use crate::driver::{AreaView, OWN_SLOT, Searched};
use crate::error::Error;
use crate::format::area::{
    AreaError, AreaHeader, AreaLayout, AreaPlace, EntryState, GuardRecord, HeaderRole, LOCK_NAME, LOCK_SLOT,
    SlotBlock, SlotEntry, SlotName, SlotState, counterpart, record::check_interval_s, whole_block,
};
use crate::format::{DeviceName, Image, MmpBlock, Name, NodeName};
use crate::io::{BlockWriter, Device, DeviceKind};
use crate::protocol::sequence;
use crate::sys::content::{self, Found};
use crate::sys::{ExclusiveHold, Target, identity, unused};

use super::room;

/// A clock that shows less has never been set: generations are seeded from it.
const EARLIEST_CLOCK_S: u64 = 1_735_689_600;
/// So far behind what stands on a device it is looked for an area that was left there.
pub(super) const SEARCHED_BYTES: u64 = 4 << 30;
/// So long after its headers were written an area is read back.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(1);
/// So many blocks are written at once.
const BLOCKS_AT_ONCE: u32 = 256;

/// What kind of area is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// How many slots for use.
    pub slots: u32,
    /// What the administrator calls it.
    pub label: Name<64>,
    /// U, in milliseconds.
    pub interval_ms: u32,
    /// Behind something whose end only the administrator knows: there it ends, in bytes.
    pub end_bytes: Option<u64>,
    /// The administrator says that nothing on it is needed.
    pub blank: bool,
    /// The administrator says that no area was left behind on it, further away than one is looked for.
    pub fresh: bool,
}

/// An area that can be made: everything was checked, and nothing written.
#[derive(Debug)]
pub struct Plan {
    device: Device,
    /// What will stand in its header.
    pub header: AreaHeader,
    /// Where its blocks will be.
    pub layout: AreaLayout,
    /// The UUID of what stands before it; zeroes if that is not known.
    pub target: [u8; 16],
}

impl Plan {
    /// Finds out whether and where an area can be made: behind what stands on the device, or all over a blank one.
    ///
    /// # Errors
    /// [`Error::Unsupported`] saying why not, and what else can be done; [`Error::UsedHere`].
    pub fn new(device: &Device, wanted: &Wanted) -> Result<Plan, Error> {
        check_unused(device, wanted)?;
        let refuse = |what: String| Err(Error::Unsupported { path: device.path().to_owned(), what });
        let slots = wanted.slots.saturating_add(1);
        let Before { content, end_bytes, uuid: target } = before(device, wanted)?;
        let (place, layout) = match (end_bytes, device.kind()) {
            (Some(_), _) => (AreaPlace::Tail, AreaLayout::tail(device.size_bytes(), slots)),
            (None, DeviceKind::Block { .. }) => (AreaPlace::Whole, AreaLayout::new(0, slots)),
            (None, DeviceKind::File { .. }) => (AreaPlace::File, AreaLayout::new(0, slots)),
        };
        let layout = match layout {
            Ok(layout) => layout,
            Err(error) => return refuse(format!("{error}{}", room::ways(device, &content, slots))),
        };
        let content_end_bytes = end_bytes.unwrap_or(0);
        if content_end_bytes > layout.header_offset_bytes() || layout.end_bytes() > device.size_bytes() {
            return refuse(room::none(device, &content, content_end_bytes, &layout));
        }
        let uuid =
            identity::random_uuid().map_err(|source| Error::io("draw a UUID for", device.path(), source))?;
        let header = AreaHeader {
            incompat: 0,
            ro_compat: 0,
            compat: 0,
            uuid,
            offset_bytes: layout.header_offset_bytes(),
            target_bytes: device.size_bytes(),
            slots,
            interval_ms: wanted.interval_ms,
            created_s: clock::wall().0,
            revision: 1,
            role: HeaderRole::Header,
            place,
            label: wanted.label,
            content_end_bytes,
            content: Name::new(&content),
        };
        header
            .check()
            .map_err(|damage| Error::Area { path: device.path().to_owned(), source: damage.into() })?;
        Ok(Plan { device: device.clone(), header, layout, target })
    }

    /// Makes the area. `progress` hears how many blocks of how many were written, and stops it by false: then there is none.
    ///
    /// # Errors
    /// [`Error::UsedHere`] if somebody was faster; [`Error::Io`]; [`Error::Interrupted`].
    pub fn carry_out(&self, progress: &mut dyn FnMut(u32, u32) -> bool) -> Result<AreaView, Error> {
        let _exclusive = unused_here(&self.device)?;
        // It took a while: another host may have made one.
        self.check_still_none()?;
        let mut writer = BlockWriter::open(&self.device)?;
        let (slots, total) = (self.layout.slots(), 2 * self.layout.slots());
        let mut first = 0;
        while first < slots {
            let count = BLOCKS_AT_ONCE.min(slots - first);
            let numbers = first..first + count;
            let blocks: Vec<u8> = numbers.clone().flat_map(|slot| whole_block(&self.slot(slot))).collect();
            let entries: Vec<u8> = numbers.flat_map(|slot| whole_block(&self.entry(slot))).collect();
            writer.write(self.layout.slot_offset_bytes(first).unwrap_or_default(), &blocks)?;
            writer.write(self.layout.entry_offset_bytes(first).unwrap_or_default(), &entries)?;
            first += count;
            if !progress(2 * first, total) {
                return Err(Error::Interrupted);
            }
        }
        let fail = |source: AreaError| Error::Area { path: self.device.path().to_owned(), source };
        self.check_still_none()?;
        for (at, image) in headers(&self.header, &[0; _]).map_err(fail)? {
            writer.write(at, &whole_block(&image))?;
        }
        drop(writer);
        // Whoever makes one at this moment has looked before our headers stood, and has written over them by then.
        clock::sleep(SETTLE);
        self.device.drop_cache()?;
        match AreaView::find(&self.device)? {
            Some(made) if made.header.uuid == self.header.uuid && is_whole(&made)? => Ok(made),
            // Another host had the same thought; whichever stands now is what claims go by.
            _ => {
                let what = "another area was made there at the same moment; see `mmp area show`".to_owned();
                Err(Error::Unsupported { path: self.device.path().to_owned(), what })
            }
        }
    }

    fn check_still_none(&self) -> Result<(), Error> {
        match AreaView::find(&self.device)? {
            None => Ok(()),
            Some(_) => {
                let what = "another area was made there at this moment; see `mmp area show`".to_owned();
                Err(Error::Unsupported { path: self.device.path().to_owned(), what })
            }
        }
    }

    /// The lock, and a tail area's first slot, are in use from the beginning.
    fn identity(&self, slot: u32) -> Option<(SlotName, [u8; 16])> {
        match slot {
            LOCK_SLOT => Some((Name::new(LOCK_NAME), [0; 16])),
            OWN_SLOT if self.header.place == AreaPlace::Tail => {
                Some((Name::new(super::OWN_SLOT_NAME), self.target))
            }
            _ => None,
        }
    }

    fn slot(&self, slot: u32) -> Image {
        let mut image: Image = [0; _];
        let (name, target) = self.identity(slot).unwrap_or((Name::new(""), [0; 16]));
        free_block(&self.header, slot, name, target, 0).encode_into(&mut image, self.header.seed());
        image
    }

    fn entry(&self, slot: u32) -> Image {
        let mut image: Image = [0; _];
        let known = self.identity(slot);
        let (name, target) = known.unwrap_or((Name::new(""), [0; 16]));
        let state = if known.is_some() { EntryState::Used } else { EntryState::Free };
        let (changed_s, area) = (self.header.created_s, self.header.uuid);
        SlotEntry { slot, state, high_water: 0, target, name, changed_s, area }.encode_into(&mut image);
        image
    }
}

/// What stands before an area that is to be made.
struct Before {
    content: String,
    /// None if nothing does: the area begins with the device.
    end_bytes: Option<u64>,
    uuid: [u8; 16],
}

fn before(device: &Device, wanted: &Wanted) -> Result<Before, Error> {
    let refuse = |what: String| Err(Error::Unsupported { path: device.path().to_owned(), what });
    Ok(match content::identify(device)? {
        Found::Filesystem(standing) => {
            let end_bytes = content::end_bytes(device)?
                .unwrap_or(0)
                .max(standing.end_bytes)
                .max(wanted.end_bytes.unwrap_or(0));
            Before { content: standing.kind.to_owned(), end_bytes: Some(end_bytes), uuid: standing.uuid }
        }
        Found::Other { kind, .. } if wanted.end_bytes.is_none() => return refuse(room::needs_end(&kind)),
        Found::Other { kind, uuid } => {
            let uuid = uuid.as_deref().and_then(identity::uuid_of).unwrap_or_default();
            Before { content: kind, end_bytes: wanted.end_bytes, uuid }
        }
        Found::Unsuitable { what, why } => return refuse(format!("it holds {what}: {why}")),
        Found::Blank if wanted.end_bytes.is_none() && !wanted.blank => return refuse(room::needs_blank()),
        Found::Blank => Before { content: String::new(), end_bytes: wanted.end_bytes, uuid: [0; 16] },
    })
}

/// Nothing that can be told before anything is looked at in detail speaks against it.
fn check_unused(device: &Device, wanted: &Wanted) -> Result<(), Error> {
    let refuse = |what: String| Err(Error::Unsupported { path: device.path().to_owned(), what });
    device.check_writable()?;
    if let Some(found) = AreaView::find(device)? {
        return refuse(format!(
            "there is an area already, of {} slots, with the label \"{}\"; `mmp area show` tells of it, `mmp area destroy` takes it \
             away",
            found.header.slots - 1,
            found.header.label
        ));
    }
    // A second one, while another host goes by the first: both would be held.
    match AreaView::search(device, SEARCHED_BYTES)? {
        Searched { found: Some(left), .. } => return refuse(left.left_behind()),
        Searched { found: None, left_bytes: 0 } => {}
        Searched { found: None, .. } if wanted.fresh => {}
        Searched { found: None, left_bytes } => {
            return refuse(format!(
                "whether an area was left behind on it when it was grown is not known: {left_bytes} bytes behind what stands on it were not \
                 looked at. If it was protected by an area before it was grown, `mmp area move --was BYTES` goes on with that; if it never \
                 was, say so with --fresh"
            ));
        }
    }
    if clock::wall() < Wall(EARLIEST_CLOCK_S) {
        return refuse(
            "this host's clock was never set, and generations begin with the time; set it first".to_owned(),
        );
    }
    unused::check(device.path(), &Target::from(device))
}

/// Nobody on this host uses the device, and nobody begins to as long as this is kept.
pub(super) fn unused_here(device: &Device) -> Result<ExclusiveHold, Error> {
    unused::claim(device.path(), &Target::from(device), &[])
}

/// A slot block that nobody holds.
pub(super) fn free_block(
    header: &AreaHeader,
    slot: u32,
    name: SlotName,
    target: [u8; 16],
    generation: u64,
) -> SlotBlock {
    SlotBlock {
        block: MmpBlock {
            seq: sequence::SEQ_CLEAN,
            time_s: clock::wall().0,
            node: NodeName::new(""),
            device: DeviceName::new(""),
            check_interval_s: check_interval_s(header.interval_ms),
        },
        record: GuardRecord {
            state: SlotState::Free,
            generation,
            slot,
            interval_ms: header.interval_ms,
            boot_id: [0; 16],
            target,
            name,
        },
    }
}

/// Both headers over `base`, and where they stand: the one from which the area is found comes last.
pub(super) fn headers(header: &AreaHeader, base: &Image) -> Result<[(u64, Image); 2], AreaError> {
    let layout = header.check()?;
    let mut image = *base;
    AreaHeader { role: HeaderRole::Header, ..*header }.encode_into(&mut image);
    let copy = counterpart(&image, HeaderRole::Copy);
    let both = [(layout.header_offset_bytes(), image), (layout.copy_offset_bytes(), copy)];
    let [first, last] = both;
    Ok(if header.place == AreaPlace::Tail { both } else { [last, first] })
}

/// Every slot is as it was made: nobody else wrote there.
fn is_whole(made: &AreaView) -> Result<bool, Error> {
    let mut whole = true;
    made.each_slot(|slot| whole &= slot.block.is_ok() && slot.entry.is_ok())?;
    Ok(whole)
}
