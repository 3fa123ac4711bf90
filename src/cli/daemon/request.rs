//! What a mount is asked for with, between `mmp mount` and the daemon: the options of the command line, as strings.
//!
//! Protects: names are made absolute, and the caller's configuration and environment are looked up, where they mean something: at the
//! caller's. Does not check anything: the daemon does what `mmp mount` would do.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cli::args::{Adopt, GuardedBy, Mount, OnLoss};
use crate::config::Config;
use crate::error::Error;
use crate::keeper::mounts::Handover;

/// `MountRequest` of the interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct MountRequest {
    pub(super) device: String,
    pub(super) directory: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) area: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    with: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filesystem: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    options: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    read_only: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wait_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fenced: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handover: Option<Handover>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tolerate_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_loss: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    incomplete_fence: Option<bool>,
}

/// The parameters of `Adopt`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct AdoptRequest {
    pub(super) device: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_loss: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    incomplete_fence: Option<bool>,
}

impl MountRequest {
    /// What the command line asks for. None if a name in it is not UTF-8, which JSON cannot carry.
    pub(in crate::cli) fn of(arguments: &Mount) -> Result<Option<Self>, Error> {
        let config = Config::host()?;
        let texts = || {
            let with = arguments.with.iter().map(|path| absolute(path)).collect::<Option<Vec<_>>>()?;
            Some(MountRequest {
                device: absolute(&arguments.device)?,
                directory: absolute(&arguments.dir)?,
                area: match arguments.by.area.as_deref().map(absolute) {
                    None => None,
                    Some(text) => Some(text?),
                },
                with: Some(with).filter(|with| !with.is_empty()),
                filesystem: arguments.filesystem.clone(),
                options: match arguments.options.join(std::ffi::OsStr::new(",")).into_string() {
                    Ok(options) => Some(options).filter(|options| !options.is_empty()),
                    Err(_) => return None,
                },
                read_only: Some(arguments.read_only),
                wait_ms: arguments.wait.map(millis),
                fenced: arguments.fenced.clone(),
                // Also what is so by default: the daemon's own configuration is not what was meant.
                handover: Some(arguments.handover.or(config.mount.handover).unwrap_or(Handover::Kernel)),
                tolerate_ms: arguments.tolerate.map(millis),
                on_loss: ladder(&arguments.fence, &config),
                incomplete_fence: Some(arguments.fence.incomplete_fence),
            })
        };
        Ok(texts())
    }

    /// How long to wait for whoever has it.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(self.wait_ms.unwrap_or(0))
    }

    /// The same, for who carries it out.
    pub(super) fn arguments(&self) -> Result<Mount, Error> {
        if let Some(node) = &self.fenced {
            crate::cli::args::node_name(node).map_err(|why| Error::Argument(format!("fenced: {why}")))?;
        }
        Ok(Mount {
            device: PathBuf::from(&self.device),
            dir: PathBuf::from(&self.directory),
            by: GuardedBy { area: self.area.as_ref().map(PathBuf::from) },
            with: self.with.iter().flatten().map(PathBuf::from).collect(),
            filesystem: self.filesystem.clone(),
            options: self.options.iter().map(OsString::from).collect(),
            read_only: self.read_only.unwrap_or(false),
            wait: self.wait_ms.map(Duration::from_millis),
            fenced: self.fenced.clone(),
            handover: self.handover,
            tolerate: self.tolerate_ms.map(Duration::from_millis),
            fence: fence(self.on_loss.as_deref(), self.incomplete_fence)?,
            without_daemon: false,
            quiet: true,
        })
    }
}

impl AdoptRequest {
    /// As [`MountRequest::of`].
    pub(in crate::cli) fn of(arguments: &Adopt) -> Result<Option<Self>, Error> {
        let config = Config::host()?;
        Ok(absolute(&arguments.device).map(|device| AdoptRequest {
            device,
            on_loss: ladder(&arguments.fence, &config),
            incomplete_fence: Some(arguments.fence.incomplete_fence),
        }))
    }

    /// As [`MountRequest::arguments`].
    pub(super) fn arguments(&self) -> Result<Adopt, Error> {
        let device = PathBuf::from(&self.device);
        let fence = fence(self.on_loss.as_deref(), self.incomplete_fence)?;
        Ok(Adopt { device, fence, without_daemon: false, quiet: true })
    }
}

fn ladder(fence: &OnLoss, config: &Config) -> Option<String> {
    fence.on_loss.as_ref().or(config.mount.on_loss.as_ref()).map(ToString::to_string)
}

fn fence(on_loss: Option<&str>, incomplete_fence: Option<bool>) -> Result<OnLoss, Error> {
    let on_loss = on_loss.map(str::parse).transpose();
    Ok(OnLoss {
        on_loss: on_loss.map_err(|error| Error::Argument(format!("on_loss: {error}")))?,
        incomplete_fence: incomplete_fence.unwrap_or(false),
    })
}

/// A path from here, as a string; a tag (`UUID=...`) as it is.
pub(super) fn absolute(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    if crate::sys::tags::is_tag(text) {
        return Some(text.to_owned());
    }
    std::path::absolute(path).ok()?.into_os_string().into_string().ok()
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Verb};

    fn mount(line: &[&str]) -> Mount {
        let cli = Cli::try_parse_from([&["mmp", "mount"], line].concat()).unwrap();
        let Verb::Mount(arguments) = cli.verb else { panic!("{line:?}") };
        arguments
    }

    #[test]
    fn what_the_command_line_says_arrives_whole() {
        let line = [
            "--area",
            "/dev/c:data",
            "--with",
            "/dev/log",
            "--with",
            "/dev/c:vg",
            "-t",
            "xfs",
            "-o",
            "noatime",
            "-o",
            "logdev=/dev/log",
            "-r",
            "--wait",
            "90s",
            "--fenced",
            "beta",
            "--handover",
            "clean",
            "--tolerate",
            "30s",
            "--on-loss",
            "dm,shutdown",
            "--incomplete-fence",
            "/dev/a",
            "/srv",
        ];
        let asked = mount(&line);
        let request = MountRequest::of(&asked).unwrap().unwrap();
        let sent = serde_json::to_string(&request).unwrap();
        let received: MountRequest = serde_json::from_str(&sent).unwrap();
        let carried = received.arguments().unwrap();
        let (mut asked, mut carried) = (asked, carried);
        asked.options = vec![asked.options.join(std::ffi::OsStr::new(","))];
        carried.quiet = asked.quiet;
        assert_eq!(format!("{asked:?}"), format!("{carried:?}"));
    }

    #[test]
    fn names_are_made_absolute_where_they_are_meant() {
        let here = std::env::current_dir().unwrap();
        let request = MountRequest::of(&mount(&["--on-loss", "shutdown", "a", "b"])).unwrap().unwrap();
        assert_eq!(request.device, here.join("a").to_str().unwrap());
        assert_eq!(request.directory, here.join("b").to_str().unwrap());
        let request = MountRequest::of(&mount(&["UUID=0-1", "b"])).unwrap().unwrap();
        assert_eq!(request.device, "UUID=0-1");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for bad in [
            r#"{"device":"/dev/a"}"#,
            r#"{"device":"/dev/a","directory":"/b","hand_over":"clean"}"#,
            r#"{"device":"/dev/a","directory":"/b","handover":"soon"}"#,
            r#"{"device":"/dev/a","directory":"/b","wait_ms":-1}"#,
        ] {
            assert!(serde_json::from_str::<MountRequest>(bad).is_err(), "{bad}");
        }
        for bad in [
            r#"{"device":"/dev/a","directory":"/b","on_loss":"pray"}"#,
            r#"{"device":"/dev/a","directory":"/b","fenced":""}"#,
        ] {
            assert!(serde_json::from_str::<MountRequest>(bad).unwrap().arguments().is_err(), "{bad}");
        }
    }
}
