//! What is used together with what is mounted: the other devices of a btrfs, the log of an XFS, a slot that guards a volume group.
//!
//! Protects: nothing is mounted before all of it is held; what one of them loses, all have lost; they are given back when the mount
//! is gone, and not before. Where a kernel beats what is mounted, the others are claimed first.

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;

use super::{
    Error, Event, FromDriver, Guardian, Held, Loss, Options, PERIOD, SCAN_PERIOD, clock, progress, render,
};
use crate::clock::Mono;
use crate::driver::cell::CellState;
use crate::driver::set::{Member, acquire_all, check_distinct};
use crate::driver::{Place, Released};
use crate::io::Device;
use crate::protocol::Activity;
use crate::sys::KernelView;

/// How long what was claimed, and never used, may take to be given back.
pub(super) const UNUSED_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

impl Guardian {
    /// Claims all of it: what is mounted, by `options`, and what is used with it.
    pub(super) fn acquire_with_companions(
        &mut self,
        options: Options,
        patience_until: Mono,
    ) -> Result<Held, Error> {
        if self.task.with.is_empty() {
            return options.acquire_with(|event| self.observe(None, event));
        }
        let place = self.place()?;
        let mut members = Vec::new();
        for (index, device) in self.task.with.iter().enumerate() {
            let place = Place::find(device, None)?;
            let options = Options::of_place(place.clone()).wait(patience_until.since(clock::mono()));
            members.push(Member { place, options: self.options_of(1 + index, options) });
        }
        let mut places = vec![&place];
        places.extend(members.iter().map(|member| &member.place));
        check_distinct(&places)?;
        let ours = self.task.is_ours_to_beat();
        if ours {
            members.insert(0, Member { place, options });
            let mut held = self.acquire(members)?;
            self.companions = held.split_off(1);
            return held.pop().ok_or(Error::Interrupted);
        }
        self.companions = self.acquire(members)?;
        let device = self.task.asked.clone();
        let acquired = options.acquire_with(|event| self.observe(Some(&device), event));
        if acquired.is_err() {
            // Never used; one that was lost meanwhile stands as after a crash.
            let _ = self.release_companions(clock::mono() + UNUSED_PATIENCE);
        }
        acquired
    }

    fn acquire(&mut self, members: Vec<Member>) -> Result<Vec<Held>, Error> {
        let guardian = Mutex::new(self);
        acquire_all(members, &|device, event| match guardian.lock() {
            Ok(mut guardian) => guardian.observe(Some(device), event),
            Err(_) => ControlFlow::Break(()),
        })
    }

    fn observe(&mut self, device: Option<&Path>, event: Option<&Event>) -> ControlFlow<()> {
        if let Some(event) = event {
            if device.is_none_or(|device| device == self.task.asked) {
                self.publish(event);
            }
            let told = progress::told(event);
            self.tell(FromDriver::Told(match device {
                Some(device) => told.about(device),
                None => told,
            }));
        }
        self.look_after_keeper();
        if self.is_withdrawn() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn place(&self) -> Result<Place, Error> {
        Place::find_by(&self.task.device, self.task.guarded_by.as_deref(), None)
    }

    /// Goes on for a guard that died, under the leases that still run.
    pub(super) fn adopt_companions(&mut self) -> Result<(), Error> {
        for (index, device) in self.task.with.iter().enumerate() {
            let CellState::Until(end) = self.memory.cell(1 + index).state() else { continue };
            let options = self.options_of(1 + index, Options::new(device));
            let held = options.adopt(self.memory.trace(1 + index).left(end))?;
            self.companions.push(held);
        }
        Ok(())
    }

    /// Waits until no guarding thread is left, a moment.
    pub(super) fn wait_for_threads(&self) {
        let until = clock::mono() + UNUSED_PATIENCE;
        while std::sync::Arc::strong_count(&self.pipe) > 1 && clock::mono() < until {
            clock::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// The kernel uses neither what was mounted any more, nor anything that was used with it: a btrfs may have left the device by
    /// which it was mounted.
    pub(super) fn is_gone(&self) -> bool {
        let unclaimed = |held: &Held| match held.place().target() {
            Some(target) => {
                let name = held.place().guarded().map(Device::kernel_name).unwrap_or_default();
                KernelView::new(target.clone(), &name).without_kmmpd(true).ask() == Activity::Gone
            }
            None => true,
        };
        self.view.ask() == Activity::Gone && self.companions.iter().all(unclaimed)
    }

    /// Hears from them; gives what one of them lost.
    pub(super) fn companions_lost(&mut self) -> Option<Loss> {
        let mut heard = Vec::new();
        let mut lost = None;
        for held in &mut self.companions {
            while let Some(event) = held.next_event(std::time::Duration::ZERO) {
                match event {
                    Event::Lost { loss, .. } => lost = Some(loss),
                    event => heard.push(event),
                }
            }
            if held.is_over() && lost.is_none() {
                lost = Some(Loss::LeaseExpired);
            }
        }
        for event in &heard {
            self.heard(event);
        }
        lost
    }

    /// Gives them back, as soon as nothing uses them any more; after `until` they are left as a crash leaves them.
    pub(super) fn release_companions(&mut self, until: Mono) -> Result<(), Loss> {
        let mut told = String::new();
        while let Some(held) = self.companions.last_mut() {
            if clock::mono() >= until {
                return Ok(()); // they end with this process, when the keeper has nothing to fence any more
            }
            match held.release() {
                Ok(left) => {
                    self.companions.pop();
                    if let Released::LeftToOthers { by } = left {
                        self.heard(&Event::LeftToOthers { by });
                    }
                }
                Err(Error::Lost { loss, .. }) => return Err(loss),
                Err(Error::Interrupted) => return Err(Loss::LeaseExpired),
                Err(error) => {
                    let text = render::error(&error);
                    if text != told {
                        self.note(&text);
                        told = text;
                    }
                    self.look_after_keeper();
                    if clock::mono() >= self.next_record {
                        self.write_record(None);
                    }
                    clock::sleep(SCAN_PERIOD.max(PERIOD));
                }
            }
        }
        Ok(())
    }

    /// The devices among them.
    pub(super) fn companion_devices(&self) -> Vec<OsString> {
        let places = self.companions.iter().filter_map(|held| held.place().guarded());
        places.map(|device| device.canonical().as_os_str().to_owned()).collect()
    }
}
