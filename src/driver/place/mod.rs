//! Where the protection of a device stands: its own MMP block, or a slot of an area. Opens nothing for writing.
//!
//! Protects: whatever is wrong with a device is said before a claim begins; who asks for protection never goes on without.
//! Does not claim.

mod address;
mod area;
mod known;
mod native;
mod refuse;
mod search;

use std::path::{Path, PathBuf};

pub use self::address::{Selector, SlotAddress};
pub use self::area::{AreaView, SlotView};
pub use self::known::KnownSlot;
pub use self::native::NativeView;
use self::refuse::has_tail;
pub(crate) use self::refuse::{check_given_up, has_no_mmp};
use self::refuse::{check_no_mmp, check_no_tail, check_target, find_area, unprotected};
pub(crate) use self::search::Searched;
use crate::error::Error;
use crate::format::area::{AREA_BLOCK_BYTES, AreaPlace, GuardRecord, SlotState};
use crate::format::{DeviceName, Image, MMP_STRUCT_BYTES, MmpBlock, NodeName, Superblock};
use crate::io::{BlockFile, BlockStore, Device, SlotFile, read_settled};
use crate::protocol::{Area, Medium, Native, Owner};
use crate::sys::{Target, identity};

/// The slot of a tail area that guards what stands before it.
pub const OWN_SLOT: u32 = 1;

const SLOT_BLOCK_BYTES: u32 = 4096;
const _: () = assert!(SLOT_BLOCK_BYTES as usize == AREA_BLOCK_BYTES);

/// What protects a device, and who we would be there.
#[derive(Clone, Debug)]
pub struct Place {
    /// As it was asked for.
    asked: PathBuf,
    /// Where the block stands.
    device: Device,
    /// What is used under its protection; none for a slot that guards something we do not know.
    guarded: Option<(Device, Target)>,
    stands: Stands,
    medium: Medium,
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // one a device
enum Stands {
    Native { superblock: Superblock, offset_bytes: u64 },
    Slot { area: AreaView, slot: SlotView, offset_bytes: u64, moving: bool },
}

impl Place {
    /// Looks at `asked`: what it is, and what protects it. That is its own MMP block; an area behind it; or, as `TARGET:SLOT`, a slot
    /// of an area, and then what is used under it is not known. `node` replaces this host's name.
    ///
    /// # Errors
    /// [`Error`] saying which of these failed; [`Error::Unprotected`] if nothing protects it.
    pub fn find(asked: &Path, node: Option<&str>) -> Result<Self, Error> {
        let address = SlotAddress::parse(asked)?;
        let device = Device::inspect(&address.target)?;
        if let Some(selector) = address.slot {
            let area = find_area(&device)?;
            let slot = area.slot(&selector)?;
            let own = area.header.place == AreaPlace::Tail && slot.number == OWN_SLOT;
            if own {
                check_no_mmp(asked, &device)?;
            }
            let guarded = own.then(|| device.clone());
            return Place::of_slot(asked, area, slot, guarded, node);
        }
        match native(asked, &device, node) {
            Ok(place) => Ok(place),
            // A damaged MMP block is no reason to go by something else.
            Err(error) if !has_no_mmp(&error) => Err(error),
            Err(error) => match AreaView::find(&device)? {
                Some(area) if area.header.place == AreaPlace::Tail => {
                    let slot = area.read_slot(OWN_SLOT)?;
                    Place::of_slot(asked, area, slot, Some(device), node)
                }
                Some(area) => Err(Error::Argument(format!(
                    "{0}: is an area of {1} slots; name one, as {0}:SLOT (`mmp area list {0}`)",
                    asked.display(),
                    area.header.slots - 1
                ))),
                None => Err(unprotected(&device, error)),
            },
        }
    }

    /// Looks at `asked`, which is guarded by the slot `by` of an area elsewhere, if one is named, or by what stands on it.
    ///
    /// # Errors
    /// As [`Place::find`] and [`Place::find_guarded_by`].
    pub fn find_by(asked: &Path, by: Option<&Path>, node: Option<&str>) -> Result<Self, Error> {
        match by {
            Some(slot) => Place::find_guarded_by(asked, slot, node),
            None => Place::find(asked, node),
        }
    }

    /// Looks at `asked`, which is guarded by the slot `by` of an area elsewhere.
    ///
    /// # Errors
    /// As [`Place::find`]; [`Error::Unsupported`] if the slot is another target's.
    pub fn find_guarded_by(asked: &Path, by: &Path, node: Option<&str>) -> Result<Self, Error> {
        let device = Device::inspect(asked)?;
        let address = SlotAddress::parse(by)?;
        let Some(selector) = address.slot else {
            return Err(Error::Argument(format!("{0}: name a slot of it, as {0}:SLOT", by.display())));
        };
        let area = find_area(&Device::inspect(&address.target)?)?;
        let slot = area.slot(&selector)?;
        check_no_mmp(asked, &device)?;
        check_no_tail(asked, &device)?;
        check_target(asked, &device, by, &slot)?;
        Place::of_slot(asked, area, slot, Some(device), node)
    }

    /// A slot of an area that was found.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if nothing may be claimed there, or the slot is not in use; [`Error::Area`] if it is damaged.
    pub fn of_slot(
        asked: &Path,
        area: AreaView,
        slot: SlotView,
        guarded: Option<Device>,
        node: Option<&str>,
    ) -> Result<Self, Error> {
        let target = area.device.path().to_owned();
        area.check_usable()?;
        let known = slot.identity().map_err(|source| Error::Area { path: target.clone(), source })?;
        let Some((name, uuid)) = known else {
            let what = format!("slot {} is not in use; `mmp area slot add` gives it a name", slot.number);
            return Err(Error::Unsupported { path: target, what });
        };
        let record = GuardRecord {
            state: SlotState::Free,
            generation: 0,
            slot: slot.number,
            interval_ms: area.header.interval_ms,
            boot_id: [0; 16],
            target: uuid,
            name,
        };
        let boot_id =
            identity::boot_id_bytes().map_err(|source| Error::io("read the boot id for", &target, source))?;
        let owner = owner(&area.device, node);
        let offset_bytes = area.layout.slot_offset_bytes(slot.number).unwrap_or_default();
        Ok(Place {
            asked: asked.to_owned(),
            medium: Medium::Area(Area::new(area.header, &record, owner, boot_id)),
            device: area.device.clone(),
            guarded: guarded.map(with_target),
            stands: Stands::Slot { area, slot, offset_bytes, moving: false },
        })
    }

    /// The slot of an area that is being moved: it need not be where its header says, nor its target as long.
    ///
    /// # Errors
    /// As [`Place::of_slot`].
    pub(crate) fn of_moved_slot(
        asked: &Path,
        area: &AreaView,
        slot: SlotView,
        node: Option<&str>,
    ) -> Result<Self, Error> {
        let usable = AreaView { unusable: None, ..area.clone() };
        let mut place = Place::of_slot(asked, usable, slot, None, node)?;
        if let Stands::Slot { moving, .. } = &mut place.stands {
            *moving = true;
        }
        Ok(place)
    }

    /// Refuses a device that cannot be written, before anything is opened for writing.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], or [`Error::Io`] without the permission.
    pub fn check_writable(&self) -> Result<(), Error> {
        self.device.check_writable()
    }

    /// As it was asked for.
    #[must_use]
    pub fn asked(&self) -> &Path {
        &self.asked
    }

    /// The device that the block stands on.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What is used under this protection; none if that is not known.
    #[must_use]
    pub fn guarded(&self) -> Option<&Device> {
        self.guarded.as_ref().map(|(device, _)| device)
    }

    /// The same, as `sys` asks about it.
    #[must_use]
    pub fn target(&self) -> Option<&Target> {
        self.guarded.as_ref().map(|(_, target)| target)
    }

    /// The superblock as it was found; none in an area.
    #[must_use]
    pub fn superblock(&self) -> Option<&Superblock> {
        match &self.stands {
            Stands::Native { superblock, .. } => Some(superblock),
            Stands::Slot { .. } => None,
        }
    }

    /// The slot as it was found, and its area; none natively.
    #[must_use]
    pub fn slot(&self) -> Option<(&AreaView, &SlotView)> {
        match &self.stands {
            Stands::Native { .. } => None,
            Stands::Slot { area, slot, .. } => Some((area, slot)),
        }
    }

    /// Where the block begins, in bytes.
    #[must_use]
    pub fn offset_bytes(&self) -> u64 {
        match &self.stands {
            Stands::Native { offset_bytes, .. } | Stands::Slot { offset_bytes, .. } => *offset_bytes,
        }
    }

    /// How long it is, in bytes.
    #[must_use]
    pub fn block_bytes(&self) -> u32 {
        match &self.stands {
            Stands::Native { superblock, .. } => superblock.block_bytes,
            Stands::Slot { .. } => SLOT_BLOCK_BYTES,
        }
    }

    /// Why what is used must not be used any more: a filesystem was grown over the area in which we beat; or the device is guarded by a
    /// slot elsewhere, and has a protection of its own by now. What cannot be told at this moment is no reason.
    pub(crate) fn undermined(&self) -> Option<String> {
        let (area, _) = self.slot()?;
        let elsewhere = self.guarded().filter(|device| device.kind() != self.device.kind());
        match elsewhere {
            None => area.content_reaches_in().ok().flatten(),
            Some(device) => match has_tail(device) {
                Ok(true) => Some(
                    "an area behind what it holds protects it, too, by now: another host may go by that"
                        .to_owned(),
                ),
                Ok(false) | Err(_) => None,
            },
        }
    }

    /// What tells this protection from every other one, the same on all hosts.
    pub(crate) fn rank(&self) -> super::set::Rank {
        match &self.stands {
            Stands::Native { superblock, offset_bytes } => (superblock.uuid, *offset_bytes),
            Stands::Slot { area, slot, .. } => (area.header.uuid, slot.number.into()),
        }
    }

    /// What blocks mean here, and our names.
    #[must_use]
    pub fn medium(&self) -> &Medium {
        &self.medium
    }

    /// The block, ready to be read, and to be written once opened for it.
    ///
    /// # Errors
    /// As [`BlockFile::new`] and [`SlotFile::new`].
    pub fn store(&self) -> Result<Box<dyn BlockStore>, Error> {
        Ok(match &self.stands {
            Stands::Native { superblock, offset_bytes } => {
                Box::new(BlockFile::new(&self.device, *offset_bytes, superblock.block_bytes)?)
            }
            Stands::Slot { area, slot, moving, .. } => {
                let file = SlotFile::new(&self.device, &area.header, slot.number)?;
                Box::new(if *moving { file.of_moved() } else { file })
            }
        })
    }

    /// Reads the struct as it stands. A block that does not decode is read again a few times first: a concurrent
    /// write can tear.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn read_block(&self) -> Result<Image, Error> {
        read_settled(&mut *self.store()?, |image| self.medium.decode(image).is_ok())
    }

    /// The block as this host's page cache shows it: under a mount that is `kmmpd`'s own buffer, with the kernel's own names,
    /// whoever else writes the block.
    ///
    /// # Errors
    /// As [`Place::read_block`], and [`Error::Damaged`].
    pub fn read_cached_block(&self) -> Result<MmpBlock, Error> {
        let mut image: Image = [0; MMP_STRUCT_BYTES];
        self.device.read_cached(self.offset_bytes(), &mut image)?;
        self.medium
            .decode(&image)
            .map_err(|damage| Error::Damaged { path: self.device.path().to_owned(), damage })
    }
}

/// The MMP block of an ext4 or ldiskfs filesystem.
fn native(asked: &Path, device: &Device, node: Option<&str>) -> Result<Place, Error> {
    let NativeView { superblock, offset_bytes } = NativeView::find(device)?;
    let medium = Medium::Native(Native::new(superblock.clone(), owner(device, node)));
    Ok(Place {
        asked: asked.to_owned(),
        device: device.clone(),
        guarded: Some(with_target(device.clone())),
        stands: Stands::Native { superblock, offset_bytes },
        medium,
    })
}

fn owner(device: &Device, node: Option<&str>) -> Owner {
    let node = node.map_or_else(identity::node_name, ToOwned::to_owned);
    Owner { node: NodeName::new(&node), device: DeviceName::new(&device.kernel_name()) }
}

fn with_target(device: Device) -> (Device, Target) {
    let target = Target::from(&device);
    (device, target)
}
