//! One error type for the whole crate. Damaged, unsupported, in use and I/O are different things to an
//! administrator, so they are different variants, and the command line's exit codes follow from [`Error::kind`] alone.

use std::path::{Path, PathBuf};

use crate::format::{BlockDamage, SuperblockError};
use crate::protocol::{Loss, Refusal};

/// Everything that can go wrong, with what, where and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused an operation.
    #[error("{}: cannot {op}: {source}", path.display())]
    Io {
        /// What was tried, as a verb phrase ("read the MMP block").
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The superblock cannot be used.
    #[error("{}: {source}", path.display())]
    Superblock {
        /// Of which device.
        path: PathBuf,
        /// What is wrong.
        source: SuperblockError,
    },
    /// The MMP block does not decode.
    #[error("{}: the MMP block is damaged: {damage}", path.display())]
    Damaged {
        /// Of which device.
        path: PathBuf,
        /// What is wrong.
        damage: BlockDamage,
    },
    /// The device is shorter than its filesystem says.
    #[error("{}: the device is too short: {what}", path.display())]
    Short {
        /// Which device.
        path: PathBuf,
        /// Which part is missing.
        what: String,
    },
    /// Neither a block device nor a regular file.
    #[error("{}: is {what}, not a block device or an image file", path.display())]
    WrongKind {
        /// Which path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Something this crate does not do, or this device cannot.
    #[error("{}: {what}", path.display())]
    Unsupported {
        /// Which device.
        path: PathBuf,
        /// What is not supported, and what to do.
        what: String,
    },
    /// The device is write-protected.
    #[error("{}: the device is read-only; holding it needs writes", path.display())]
    ReadOnly {
        /// Which device.
        path: PathBuf,
    },
    /// Used on this very host already.
    #[error("{}: in use on this host: {}", path.display(), users.join(", "))]
    UsedHere {
        /// Which device.
        path: PathBuf,
        /// By whom and where, one text each.
        users: Vec<String>,
    },
    /// The claim was refused.
    #[error("{}: {}", path.display(), crate::protocol::describe::refusal(refusal))]
    Refused {
        /// Which device.
        path: PathBuf,
        /// Why.
        refusal: Refusal,
    },
    /// Protection was lost.
    #[error("{}: protection lost: {}", path.display(), crate::protocol::describe::loss(loss))]
    Lost {
        /// Which device.
        path: PathBuf,
        /// Why.
        loss: Loss,
    },
    /// An argument that cannot be meant.
    #[error("{0}")]
    Argument(String),
    /// A signal ended it.
    #[error("interrupted")]
    Interrupted,
}

/// The kinds that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Somebody uses it, here or elsewhere.
    InUse,
    /// e2fsck's mark.
    Fsck,
    /// The caller's mistake.
    Usage,
    /// Damaged or unknown bytes.
    Damaged,
    /// The system refused an operation.
    Io,
    /// Protection ended while held.
    Lost,
    /// A signal, or the caller withdrew.
    Interrupted,
    /// Not supported here, or MMP is not enabled.
    Unsupported,
}

impl Error {
    /// Makes an I/O error out of the operation, the path and what the system said.
    pub fn io(op: &'static str, path: &Path, source: impl Into<std::io::Error>) -> Self {
        Error::Io { op, path: path.to_owned(), source: source.into() }
    }

    /// Which kind this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Error::Io { .. } | Error::ReadOnly { .. } => Kind::Io,
            Error::Superblock { source, .. } if source.is_damage() => Kind::Damaged,
            Error::Superblock { .. } | Error::Unsupported { .. } => Kind::Unsupported,
            Error::Damaged { .. } | Error::Short { .. } => Kind::Damaged,
            Error::WrongKind { .. } | Error::Argument(_) => Kind::Usage,
            Error::UsedHere { .. } => Kind::InUse,
            Error::Refused { refusal, .. } => match refusal {
                Refusal::InUse { .. } => Kind::InUse,
                Refusal::Fsck { .. } => Kind::Fsck,
                Refusal::Damaged { .. } | Refusal::UnknownSequence { .. } | Refusal::Changed { .. } => {
                    Kind::Damaged
                }
                Refusal::Io { .. } => Kind::Io,
                Refusal::Withdrawn { .. } => Kind::Interrupted,
            },
            Error::Lost { .. } => Kind::Lost,
            Error::Interrupted => Kind::Interrupted,
        }
    }
}
