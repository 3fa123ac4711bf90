//! What a guard looks after beside its beats: its keeper, whether a freeze could be bridged, and whether a filesystem was grown over its
//! area.
//!
//! Protects: without a keeper nothing would stop this host's use of the device, so a dead one is replaced. A filesystem that reaches into
//! the area has its blocks there, and is stopped before a beat destroys more of it. Does not protect from that for as long as the
//! filesystem has not told on the disk that it was grown (XFS: half a minute).

use std::io::ErrorKind;

use super::{
    FromDriver, FromKeeper, Guardian, Held, KEEPER_PERIOD, Mode, Mono, Told, UNDERMINED_PERIOD, clock, mounts,
};
use crate::driver::cell::CellState;

impl Guardian {
    /// A keeper that is gone is replaced: without one, nothing would stop this host's use of the device. One that has fenced is not: that was
    /// the end. After a loss a thread of the daemon's leaves it to [`Guardian::wait_for_the_fence`].
    pub(super) fn look_after_keeper(&mut self) {
        self.dead_keepers.retain_mut(|keeper| !keeper.reap());
        if self.hear_keeper() || self.fenced.is_some() || self.given_up || clock::mono() < self.next_keeper {
            return;
        }
        if !(self.resident && self.memory.leases().state() == CellState::Lost) {
            self.start_keeper();
        }
    }

    /// What it says. True if it is there.
    pub(super) fn hear_keeper(&mut self) -> bool {
        while let Some(keeper) = &mut self.keeper {
            match keeper.receive::<FromKeeper>() {
                Ok(None) => return true,
                Ok(Some(FromKeeper::Ready)) => {}
                Ok(Some(FromKeeper::Fenced { lost })) => self.fenced = Some(lost),
                Ok(Some(FromKeeper::GivenUp)) => (self.given_up, self.withdrawn) = (true, true),
                Ok(Some(FromKeeper::MountEnded { end, said })) => {
                    (self.mount_end, self.mounting) = (Some((end, said)), false);
                }
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    self.dead_keepers.extend(self.keeper.take());
                }
                // Not understood, or no memory to receive it: it is there all the same.
                Err(_) => return true,
            }
        }
        false
    }

    /// Starts another one.
    pub(super) fn start_keeper(&mut self) {
        self.next_keeper = clock::mono() + KEEPER_PERIOD;
        match mounts::start_again(&self.task, &self.memory, &self.lock, self.resident) {
            Ok((link, pipe)) => {
                self.keeper = Some(link);
                if let Ok(mut ours) = self.pipe.lock() {
                    *ours = Some(pipe);
                }
                self.note("the keeper died and was replaced");
                // Whatever was mounting dies with it, as soon as the kernel lets it.
                self.orphaned = self.mounting;
            }
            Err(error) => self.note(&format!("the keeper died and cannot be replaced: {error}")),
        }
        self.next_record = Mono(0);
    }

    /// A filesystem that was grown over the area in which we beat: its blocks are the filesystem's now, and every beat may destroy a
    /// file. XFS tells on the disk half a minute later.
    pub(super) fn overrun(&mut self, held: &Held) -> Option<String> {
        if clock::mono() < self.next_content {
            return None;
        }
        self.next_content = clock::mono() + UNDERMINED_PERIOD;
        std::iter::once(held).chain(&self.companions).find_map(|held| held.place().undermined())
    }

    /// Whether this kernel lets a mounted device be written: without that, no freeze can be bridged.
    pub(super) fn check_bridge(&mut self, held: &Held) {
        if held.mode() != Mode::Watching {
            return;
        }
        if let Err(error) = held.place().device().check_writable_while_mounted() {
            let text = format!(
                "warning: this kernel does not let a mounted device be written ({}): a frozen filesystem (fsfreeze, a \
                 snapshot) cannot be bridged, and is fenced when its lease ends; boot with bdev_allow_write_mounted=1",
                error.without_path()
            );
            self.note(&text);
            self.tell(FromDriver::Told(Told::line(text)));
        }
    }
}
