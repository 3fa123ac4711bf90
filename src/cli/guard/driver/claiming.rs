//! What every claim of a guard has in common: the words it shares with its keeper, the way to wake that one, the device's lock.
//!
//! Protects: a thread that hangs in a device keeps the lock, so that nothing of this host claims the device meanwhile.

use std::sync::Arc;

use super::{Guardian, Options, identity};
use crate::driver::Place;

impl Guardian {
    /// What somebody before has claimed: found as it was found then, or else where it stood.
    pub(super) fn options_of_succession(&self) -> Options {
        let found = Place::find_by(&self.task.device, self.task.guarded_by.as_deref(), None);
        let known =
            || Place::known(&self.task.device, self.task.known_slot.as_ref()?, Some(&self.task.device)).ok();
        match found.ok().or_else(known) {
            Some(place) => self.options_of(0, Options::of_place(place)),
            None => self.options(), // which says why
        }
    }

    /// What the claim of what is mounted begins with.
    pub(super) fn options(&self) -> Options {
        let options = Options::new(&self.task.device);
        self.options_of(
            0,
            match &self.task.guarded_by {
                Some(slot) => options.guarded_by(slot),
                None => options,
            },
        )
    }

    /// The same, of any member.
    pub(super) fn options_of(&self, member: usize, options: Options) -> Options {
        let pipe = Arc::clone(&self.pipe);
        // A thread that hangs in the device keeps others of this host away from it.
        let lock = self.lock.try_clone().ok();
        options
            .node(identity::kernel_node_name())
            .cell(self.memory.cell(member))
            .trace(self.memory.trace(member))
            .realtime(true)
            .wake_keeper(move || {
                let _kept = &lock;
                // Never waits: a keeper that is being replaced looks by itself.
                if let Some(pipe) = pipe.try_lock().ok().as_deref().and_then(Option::as_ref) {
                    pipe.wake();
                }
            })
    }
}
