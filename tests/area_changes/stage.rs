//! An area in an image file.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use mmpguard::area::{AreaLock, Asking, Observe, Plan, Wanted};
use mmpguard::driver::{AreaView, SlotView};
use mmpguard::format::area::{SlotBlock, SlotEntry, SlotName, whole_block};
use mmpguard::format::{Image, Name};
use mmpguard::io::Device;
use mmpguard::{Error, Held, Options};

pub(crate) const INTERVAL_MS: u32 = 100;
/// Where what stands before a tail area ends.
pub(crate) const CONTENT_LENGTH: usize = 64 * 1024;
pub(crate) const CONTENT_BYTES: u64 = CONTENT_LENGTH as u64;
pub(crate) const TARGET: [u8; 16] = *b"a target's uuid.";

const OBSERVE: Observe<'static> = &|_, _| ControlFlow::Continue(());

pub(crate) struct Stage {
    _dir: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

pub(crate) fn asking() -> Asking<'static> {
    Asking { node: Some("alpha"), wait: Duration::ZERO, observe: OBSERVE }
}

pub(crate) fn wanted(slots: u32) -> Wanted {
    Wanted {
        slots,
        label: Name::new("stage"),
        interval_ms: INTERVAL_MS,
        end_bytes: None,
        blank: false,
        fresh: false,
    }
}

pub(crate) fn name(text: &str) -> SlotName {
    SlotName::new(text)
}

impl Stage {
    /// A file of that many bytes, none of them zero where a tail area's content is.
    pub(crate) fn blank(bytes: u64) -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").expect("makes a directory");
        let path = dir.path().join("area.img");
        let file = File::create(&path).expect("makes a file");
        file.set_len(bytes).expect("grows it");
        Stage { _dir: dir, path }
    }

    /// An area that fills its file.
    pub(crate) fn file(slots: u32) -> Self {
        let stage = Stage::blank(256 * 1024);
        stage.create(&Wanted { blank: true, ..wanted(slots) }).expect("is made");
        stage
    }

    /// An area behind something.
    pub(crate) fn tail(slots: u32) -> Self {
        let stage = Stage::blank(256 * 1024);
        stage.write_at(0, &[0x5A; CONTENT_LENGTH]);
        stage.create(&Wanted { end_bytes: Some(CONTENT_BYTES), ..wanted(slots) }).expect("is made");
        stage
    }

    pub(crate) fn create(&self, wanted: &Wanted) -> Result<AreaView, Error> {
        Plan::new(&self.device(), wanted)?.carry_out(&mut |_, _| true)
    }

    pub(crate) fn device(&self) -> Device {
        Device::inspect(&self.path).expect("is a file")
    }

    pub(crate) fn view(&self) -> AreaView {
        AreaView::find(&self.device()).expect("can be read").expect("has an area")
    }

    pub(crate) fn slot(&self, number: u32) -> SlotView {
        self.view().read_slot(number).expect("reads")
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).expect("reads")
    }

    pub(crate) fn write_at(&self, offset_bytes: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(&self.path).expect("opens");
        file.write_all_at(bytes, offset_bytes).expect("writes");
        file.sync_all().expect("syncs");
    }

    pub(crate) fn grow(&self, bytes: u64) {
        File::options().write(true).open(&self.path).expect("opens").set_len(bytes).expect("grows");
    }

    /// What a host sees that still has the old size.
    pub(crate) fn cut_to(&self, bytes: usize, look: impl FnOnce(&Device)) {
        let cut = self.path.with_extension("cut");
        std::fs::write(&cut, &self.bytes()[..bytes]).expect("writes");
        look(&Device::inspect(&cut).expect("is a file"));
    }

    pub(crate) fn slot_bytes(&self, number: u32) -> u64 {
        self.view().layout.slot_offset_bytes(number).expect("is a slot")
    }

    /// The first half of a change, after which it was broken off.
    pub(crate) fn write_slot(&self, block: &SlotBlock) {
        let (mut image, view): (Image, AreaView) = ([0; 1024], self.view());
        block.encode_into(&mut image, view.header.seed());
        self.write_at(self.slot_bytes(block.record.slot), &whole_block(&image));
    }

    pub(crate) fn write_entry(&self, entry: &SlotEntry) {
        let mut image: Image = [0; 1024];
        entry.encode_into(&mut image);
        let at = self.view().layout.entry_offset_bytes(entry.slot).expect("is a slot");
        self.write_at(at, &whole_block(&image));
    }

    pub(crate) fn entry(&self, number: u32) -> SlotEntry {
        self.slot(number).entry.expect("decodes")
    }

    pub(crate) fn block(&self, number: u32) -> SlotBlock {
        self.slot(number).block.expect("decodes")
    }

    /// Does something under the lock, and gives that back.
    pub(crate) fn change<T>(&self, what: impl FnOnce(&mut AreaLock) -> Result<T, Error>) -> Result<T, Error> {
        let mut lock = AreaLock::take(&self.view(), asking())?;
        let result = what(&mut lock);
        lock.release().expect("is given back");
        result
    }

    pub(crate) fn add(&self, called: &str) -> u32 {
        // One thing under two slots would be refused.
        let target = if called == "data" { TARGET } else { [0; 16] };
        self.change(|lock| mmpguard::area::add(lock, name(called), target)).expect("is added")
    }

    pub(crate) fn options(&self, slot: &str) -> Options {
        let mut asked = self.path.clone().into_os_string();
        asked.push(format!(":{slot}"));
        Options::new(PathBuf::from(asked)).node("beta").pretend_another_host(true)
    }

    pub(crate) fn hold(&self, slot: &str) -> Held {
        self.options(slot).acquire().unwrap_or_else(|error| panic!("{slot}: {error}"))
    }

    /// Claims and releases it; gives the generation.
    pub(crate) fn use_once(&self, slot: &str) -> u64 {
        let mut held = self.hold(slot);
        held.release().expect("releases");
        held.generation().expect("has one")
    }

    /// All bytes but those that claims of these slots write.
    pub(crate) fn but_for(&self, slots: &[u32]) -> Vec<u8> {
        let (mut bytes, view) = (self.bytes(), self.view());
        for &slot in slots {
            for at in [view.layout.slot_offset_bytes(slot), view.layout.entry_offset_bytes(slot)] {
                let at = usize::try_from(at.expect("is a slot")).expect("is small");
                bytes[at..at + 4096].fill(0);
            }
        }
        bytes
    }
}
