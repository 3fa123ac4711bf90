//! Folders that are gone when their owner is, however it ended: by being dropped, or by the next run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::UNIX_EPOCH;

use tempfile::TempDir;

use super::{Doing, Outcome, seconds};

const PREFIX: &str = "mmpguard-lab-";
const OWNER: &str = "owner";
/// A folder younger than this may not have its lock yet.
const YOUNG_SECONDS: f64 = 60.0;

/// A folder of this run.
pub(super) struct Folder {
    folder: TempDir,
    /// Locked for as long as it is used: the kernel lets go of it when the process ends.
    _owner: File,
}

impl Folder {
    /// Makes one; the first also removes what runs that were killed have left.
    pub(super) fn new() -> Outcome<Folder> {
        Folder::below(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    /// The same where paths are short, for sockets.
    pub(super) fn for_sockets() -> Outcome<Folder> {
        Folder::below(&std::env::temp_dir())
    }

    fn below(parent: &Path) -> Outcome<Folder> {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(|| {
            sweep(Path::new(env!("CARGO_TARGET_TMPDIR")));
            sweep(&std::env::temp_dir());
        });
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent).doing("a folder")?;
        let owner = File::create(folder.path().join(OWNER)).doing("a lock")?;
        owner.lock().doing("a lock")?;
        Ok(Folder { folder, _owner: owner })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes the folders that nobody owns any more.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path: &PathBuf| is_ours(path)) {
        let owned = File::open(path.join(OWNER)).is_ok_and(|owner| owner.try_lock().is_err());
        if !owned && age_seconds(&path).is_some_and(|age| age > YOUNG_SECONDS) {
            let _ = fs::remove_dir_all(path);
        }
    }
}

fn is_ours(path: &Path) -> bool {
    path.is_dir() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
}

fn age_seconds(path: &Path) -> Option<f64> {
    let since = fs::metadata(path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(seconds() - since.as_secs_f64())
}
