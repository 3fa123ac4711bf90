//! A mount whose protection no kernel beats, because it is read-only or stands in an area: we do, mount(8) runs under our lease, and what was never mounted is given back.

use super::mounting::{Overtaken, Tried};
use super::{Activity, CommandEnd, Error, Event, Guardian, Held, Loss, PERIOD, ToKeeper, clock, render};
use crate::driver::Released;
use crate::protocol::Standing;

/// How long a mount that ended is asked for.
const ENDING_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

impl Guardian {
    /// We beat: mount(8) runs under our lease.
    pub(super) fn mount_under_our_beats(&mut self, mut held: Held) -> Tried {
        let mut stopping = false;
        loop {
            match held.next_event(PERIOD) {
                Some(Event::Lost { loss, .. }) => return Tried::Failed(self.lost_while_mounting(&loss)),
                Some(event) => self.heard(&event),
                None if held.is_over() => {
                    return Tried::Failed(self.lost_while_mounting(&Loss::LeaseExpired));
                }
                None => {}
            }
            self.tend(&held);
            if let Some(loss) = self.companions_lost() {
                return Tried::Failed(self.lost_while_mounting(&loss));
            }
            if !stopping && self.is_withdrawn() {
                stopping = true;
                self.tell_keeper(&ToKeeper::StopMount);
            }
            if let Some(end) = self.mount_end.take() {
                let until = clock::mono() + ENDING_PATIENCE;
                while self.view.ask() == Activity::Ending && clock::mono() < until {
                    clock::sleep(PERIOD);
                }
                if self.view.ask() != Activity::Gone {
                    return Tried::Guarding(Box::new(held));
                }
                return self.give_back(held, end);
            }
        }
    }

    pub(super) fn give_back(&mut self, mut held: Held, end: (CommandEnd, String)) -> Tried {
        loop {
            match held.release() {
                Ok(Released::Clean) => {
                    return self.not_mounted(Overtaken::No, Some(end), Standing::Clean);
                }
                Ok(Released::LeftToOthers { .. }) => {
                    return self.not_mounted(Overtaken::No, Some(end), Standing::Others);
                }
                Err(Error::Lost { loss, .. }) => return Tried::Failed(self.lost_before(&loss)),
                Err(error) => self.note(&render::error(&error)),
            }
            match held.next_event(PERIOD * 4) {
                Some(Event::Lost { loss, .. }) => return Tried::Failed(self.lost_while_mounting(&loss)),
                Some(event) => self.heard(&event),
                None if held.is_over() => return Tried::Failed(self.lost_before(&Loss::LeaseExpired)),
                None => {}
            }
            self.tend(&held);
            // It has come to a mount after all.
            if !matches!(self.view.ask(), Activity::Gone | Activity::Ending) {
                return Tried::Guarding(Box::new(held));
            }
        }
    }
}
