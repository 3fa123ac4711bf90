//! One error type for the whole crate. Damaged, unsupported, in use and I/O are different things to an
//! administrator, so they are different variants, and the command line's exit codes follow from [`Error::kind`] alone.

use std::path::{Path, PathBuf};

use crate::ext4::Ext4Error;
use crate::format::area::AreaError;
use crate::format::{ContentError, Damage, SuperblockError};
use crate::protocol::{Change, FailureKind, Loss, Refusal};

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
        damage: Damage,
    },
    /// A filesystem's superblock does not say where the filesystem ends.
    #[error("{}: {source}", path.display())]
    Content {
        /// Of which device.
        path: PathBuf,
        /// What is wrong, and what to do.
        source: ContentError,
    },
    /// The device is shorter than its filesystem says.
    /// An area that cannot be used, or blocks of it that cannot be right.
    #[error("{}: {source}", path.display())]
    Area {
        /// What it stands on.
        path: PathBuf,
        /// What is wrong.
        source: AreaError,
    },
    /// The edits that switch MMP on and off are not made on this filesystem.
    #[error("{}: {source}", path.display())]
    Ext4 {
        /// Of which device.
        path: PathBuf,
        /// What is wrong, and what to do.
        source: Ext4Error,
    },
    /// Nothing protects it: no MMP block, and no area.
    #[error("{}: it is not protected: {what}", path.display())]
    Unprotected {
        /// The device or image file.
        path: PathBuf,
        /// What was found instead.
        what: String,
    },
    /// The device ends before what should be on it.
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
    /// The daemon does not do its part.
    #[error("{what}")]
    Daemon {
        /// What it does not, and what to do.
        what: String,
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
    /// A signal, the caller withdrew, or the filesystem's settings changed under the claim: it may be tried again.
    Interrupted,
    /// Not supported here, or MMP is not enabled.
    Unsupported,
}

impl Error {
    /// Makes an I/O error out of the operation, the path and what the system said.
    pub fn io(op: &'static str, path: &Path, source: impl Into<std::io::Error>) -> Self {
        Error::Io { op, path: path.to_owned(), source: source.into() }
    }

    /// What it is about, if that is one device.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Error::Io { path, .. }
            | Error::Superblock { path, .. }
            | Error::Damaged { path, .. }
            | Error::Area { path, .. }
            | Error::Content { path, .. }
            | Error::Ext4 { path, .. }
            | Error::Unprotected { path, .. }
            | Error::Short { path, .. }
            | Error::WrongKind { path, .. }
            | Error::Unsupported { path, .. }
            | Error::ReadOnly { path }
            | Error::UsedHere { path, .. }
            | Error::Refused { path, .. }
            | Error::Lost { path, .. } => Some(path),
            Error::Argument(_) | Error::Daemon { .. } | Error::Interrupted => None,
        }
    }

    /// The text without the path before it, for whoever names the device himself.
    #[must_use]
    pub fn without_path(&self) -> String {
        let text = self.to_string();
        let named = self.path().map(|path| format!("{}: ", path.display())).unwrap_or_default();
        text.strip_prefix(&named).map(ToOwned::to_owned).unwrap_or(text)
    }

    /// What a refusal keeps of it, when this is how reading or writing the block failed.
    #[must_use]
    pub fn failure_kind(&self) -> FailureKind {
        match self.kind() {
            Kind::Damaged => FailureKind::TooShort,
            Kind::Unsupported => FailureKind::Unsupported,
            _ => FailureKind::System,
        }
    }

    /// Which kind this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Error::Io { .. } | Error::ReadOnly { .. } | Error::Daemon { .. } => Kind::Io,
            Error::Superblock { source, .. } if source.is_damage() => Kind::Damaged,
            Error::Content { source, .. } if source.is_damage() => Kind::Damaged,
            Error::Superblock { .. } | Error::Content { .. } | Error::Unsupported { .. } => Kind::Unsupported,
            Error::Damaged { .. } | Error::Short { .. } => Kind::Damaged,
            Error::Area { source, .. } if source.is_damage() => Kind::Damaged,
            Error::Area { .. } | Error::Unprotected { .. } => Kind::Unsupported,
            Error::Ext4 { source, .. } if source.is_damage() => Kind::Damaged,
            Error::Ext4 { source, .. } => match source {
                Ext4Error::Interval { .. } => Kind::Usage,
                Ext4Error::Changed { .. } => Kind::InUse,
                _ => Kind::Unsupported,
            },
            Error::WrongKind { .. } | Error::Argument(_) => Kind::Usage,
            Error::UsedHere { .. } => Kind::InUse,
            Error::Refused { refusal, .. } => match refusal {
                Refusal::InUse { .. } | Refusal::NoBeat { .. } => Kind::InUse,
                Refusal::Fsck { .. } => Kind::Fsck,
                Refusal::Damaged { .. }
                | Refusal::UnknownSequence { .. }
                | Refusal::Changed { change: Change::Damaged, .. }
                | Refusal::Io { kind: FailureKind::TooShort, .. } => Kind::Damaged,
                Refusal::Changed { change: Change::Gone, .. }
                | Refusal::Io { kind: FailureKind::Unsupported, .. } => Kind::Unsupported,
                Refusal::Io { kind: FailureKind::System, .. } => Kind::Io,
                Refusal::Changed { change: Change::Settings, .. } | Refusal::Withdrawn { .. } => {
                    Kind::Interrupted
                }
            },
            Error::Lost { .. } => Kind::Lost,
            Error::Interrupted => Kind::Interrupted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_that_changed_is_damaged_gone_or_worth_another_try() {
        for (change, kind) in [
            (Change::Damaged, Kind::Damaged),
            (Change::Gone, Kind::Unsupported),
            (Change::Settings, Kind::Interrupted),
        ] {
            let refusal = Refusal::Changed { what: String::new(), change };
            assert_eq!(Error::Refused { path: PathBuf::from("/dev/x"), refusal }.kind(), kind);
        }
    }

    #[test]
    fn a_failed_read_keeps_its_kind_and_names_the_device_once() {
        let path = PathBuf::from("/dev/x");
        for (error, kind) in [
            (Error::io("read the MMP block", &path, std::io::Error::from_raw_os_error(5)), Kind::Io),
            (Error::ReadOnly { path: path.clone() }, Kind::Io),
            (Error::Short { path: path.clone(), what: "it ends".to_owned() }, Kind::Damaged),
            (Error::Unsupported { path: path.clone(), what: "no".to_owned() }, Kind::Unsupported),
        ] {
            let text = error.to_string();
            let refusal = Refusal::Io { what: error.without_path(), kind: error.failure_kind() };
            let refused = Error::Refused { path: path.clone(), refusal };
            assert_eq!((refused.to_string(), refused.kind()), (text, kind));
        }
    }
}
