//! The descriptor of one look: the one that is kept for writing, or a fresh one that is closed again.
//!
//! Protects: a watcher of somebody else's device keeps none open between two looks. Does not protect anything else.

use std::fs::File;

use super::Device;
use super::node::Access;
use crate::error::Error;

/// The descriptor of one look.
pub(super) enum Look<'a> {
    Kept(&'a File),
    /// Closed again when the look ends.
    Fresh(File),
}

impl<'a> Look<'a> {
    /// `kept`, if there is one, else a descriptor of its own.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened, or is no longer the same node.
    pub(super) fn open(kept: Option<&'a File>, device: &Device, direct: bool) -> Result<Look<'a>, Error> {
        match kept {
            Some(file) => Ok(Look::Kept(file)),
            None => device.node().open(Access::Read, direct).map(Look::Fresh),
        }
    }

    pub(super) fn file(&self) -> &File {
        match self {
            Look::Kept(file) => file,
            Look::Fresh(file) => file,
        }
    }
}
