//! Making, changing, moving and repairing MMP areas (`mmp-format.md`, *MMP areas*).
//!
//! Protects: an area is made only where nothing else stands; every later change is made while slot 0, the lock, is held, with the
//! full waits of a claim, and a slot is taken away or renamed only while it is held itself. The order of the writes is the
//! format's: whatever a change is broken off in, the area can be used, or says that it needs a repair. A change that lost its
//! lock ends at once.
//!
//! Does not protect: a stall between the last look at the lease and a write of a change (a holder's beat has the same window, and
//! is found by its rival; a change of the header is not).

mod create;
mod lock;
mod relocate;
mod repair;
mod room;
mod slots;

pub use create::{Plan, Wanted};
pub use lock::{AreaLock, Asking, Observe};
pub use relocate::{destroy, find_moved, relocate};
pub use repair::{Repaired, find_lost_header, repair};
pub use slots::{add, remove, rename};

/// The name of a tail area's first slot, which guards what stands before the area.
pub const OWN_SLOT_NAME: &str = "device";
