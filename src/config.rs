//! The configuration file: what holds for every guarded mount of this host, unless the command line says otherwise.
//!
//! Protects: a key that is not known is refused, and so is a value that cannot be meant: a file that is half
//! understood would guard half. A file that is not there sets nothing.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::Error;
use crate::keeper::mounts::Handover;
use crate::sys::fence::LadderSpec;

/// Where it is, unless `MMP_CONFIG` says otherwise.
pub const FILE: &str = "/etc/mmp/mmp.toml";
/// The variable that moves it.
pub const FILE_VARIABLE: &str = "MMP_CONFIG";

/// What it may set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// For guarded mounts.
    #[serde(default)]
    pub mount: Mount,
    /// For what happens to guards.
    #[serde(default)]
    pub events: crate::events::Settings,
    /// For figures.
    #[serde(default)]
    pub metrics: crate::metrics::Settings,
}

/// The table `[mount]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// `handover`: `"kernel"` or `"clean"`.
    pub handover: Option<Handover>,
    /// `on_loss`: a ladder of fences.
    pub on_loss: Option<LadderSpec>,
}

impl Config {
    /// This host's.
    ///
    /// # Errors
    /// [`Error::Argument`] for what cannot be meant, [`Error::Io`] for a file that is there and cannot be read.
    pub fn host() -> Result<Self, Error> {
        let moved = std::env::var_os(FILE_VARIABLE).filter(|value| !value.is_empty());
        let asked_for = moved.is_some();
        let path = moved.map_or_else(|| FILE.into(), PathBuf::from);
        match Self::read(&path) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound && !asked_for => {
                Ok(Config::default())
            }
            config => config,
        }
    }

    /// Reads `path`.
    ///
    /// # Errors
    /// As [`Config::host`], and for a file that is not there.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::io("read the configuration from", path, source))?;
        toml::from_str(&text)
            .map_err(|error| Error::Argument(format!("{}: {}", path.display(), error.to_string().trim_end())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mmp.toml");
        std::fs::write(&path, text).unwrap();
        Config::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn what_it_says_is_taken() {
        assert_eq!(parsed("").unwrap(), Config::default());
        let config = parsed("[mount]\nhandover = \"clean\"\non_loss = \"dm,reboot\"\n").unwrap();
        assert_eq!(config.mount.handover, Some(Handover::Clean));
        assert_eq!(config.mount.on_loss.unwrap().to_string(), "dm,reboot");
        let text = "[events]\nhooks = [ { command = [\"/bin/true\"], on = [\"lost\"] } ]";
        assert_eq!(parsed(text).unwrap().events.hooks.len(), 1);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_place() {
        for bad in [
            "[mount]\nhand_over = \"clean\"",
            "[mount]\nhandover = \"soon\"",
            "[mounts]",
            "[mount]\non_loss = \"pray\"",
            "x",
            "[events]\nhook = []",
            "[metrics]\nlisten = \"0.0.0.0:9998\"",
            "[events]\nhooks = [ { command = [\"relative\"] } ]",
        ] {
            let error = parsed(bad).unwrap_err();
            assert!(error.contains("mmp.toml") && error.contains("line"), "{bad}: {error}");
        }
        assert!(Config::read(Path::new("/nowhere/mmp.toml")).is_err());
    }
}
