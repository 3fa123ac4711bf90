//! Which rungs to climb, as an administrator writes them.
//!
//! Protects: what cannot be meant is refused with its reason, not guessed at. Does not protect: whether a rung is
//! possible on this device, and whether the ladder ends in a real fence, is found out by [`prepare`](super::prepare).

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The rungs of a ladder in the order in which they are climbed, or the choice of them left to us. Its text is
/// `auto`, or rungs separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LadderSpec {
    /// Every rung that this device has, in the order of [`RungSpec`], ending with the reboot.
    #[default]
    Auto,
    /// These; never empty, none twice, nothing after `reboot`.
    Rungs(Vec<RungSpec>),
}

/// One rung.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RungSpec {
    /// `dm`: a table that refuses all I/O for the device mapper device.
    Dm,
    /// `scsi`: every SCSI path offline, and then removed.
    Scsi,
    /// `unbind`: the driver unbound from the disk (virtio, NVMe).
    Unbind,
    /// `shutdown`: the filesystem's own shutdown ioctl.
    Shutdown,
    /// `kill`: SIGKILL to whoever uses the mount or the device.
    Kill,
    /// `exec:/absolute/command`: a command whose exit status 0 vouches that the device is cut off.
    Exec(PathBuf),
    /// `reboot`: an immediate reboot of this host without sync.
    Reboot,
}

/// Why a text is no ladder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LadderError {
    /// No rung, or nothing between two commas.
    #[error("a ladder needs rungs: auto, or some of {KNOWN}, separated by commas")]
    Empty,
    /// There is no such rung.
    #[error("unknown rung \"{}\"; there are auto (alone), {KNOWN}", .0.escape_debug())]
    Unknown(String),
    /// The same rung again.
    #[error("the rung \"{0}\" stands in the ladder twice")]
    Twice(String),
    /// Whatever stands after a reboot is never climbed.
    #[error("the rung \"{0}\" stands after the reboot and would never be climbed; reboot comes last")]
    AfterReboot(String),
    /// `auto` is the whole ladder.
    #[error("auto chooses all rungs and stands alone")]
    AutoNotAlone,
    /// A command that depends on the directory or on `PATH`.
    #[error("exec takes a command by its absolute path, such as exec:/usr/local/sbin/cut-off, not \"{}\"", .0.escape_debug())]
    Relative(String),
}

const KNOWN: &str = "dm, scsi, unbind, shutdown, kill, exec:/absolute/command, reboot";

/// What `auto` tries, in this order.
pub(super) const AUTO: [RungSpec; 6] =
    [RungSpec::Dm, RungSpec::Scsi, RungSpec::Unbind, RungSpec::Shutdown, RungSpec::Kill, RungSpec::Reboot];

impl FromStr for LadderSpec {
    type Err = LadderError;

    fn from_str(text: &str) -> Result<Self, LadderError> {
        if text.trim() == "auto" {
            return Ok(LadderSpec::Auto);
        }
        let mut rungs: Vec<RungSpec> = Vec::new();
        for word in text.split(',').map(str::trim) {
            let rung: RungSpec = word.parse()?;
            if rungs.contains(&rung) {
                return Err(LadderError::Twice(word.to_owned()));
            }
            if rungs.contains(&RungSpec::Reboot) {
                return Err(LadderError::AfterReboot(word.to_owned()));
            }
            rungs.push(rung);
        }
        Ok(LadderSpec::Rungs(rungs))
    }
}

impl FromStr for RungSpec {
    type Err = LadderError;

    fn from_str(word: &str) -> Result<Self, LadderError> {
        Ok(match word {
            "" => return Err(LadderError::Empty),
            "auto" => return Err(LadderError::AutoNotAlone),
            "dm" => RungSpec::Dm,
            "scsi" => RungSpec::Scsi,
            "unbind" => RungSpec::Unbind,
            "shutdown" => RungSpec::Shutdown,
            "kill" => RungSpec::Kill,
            "reboot" => RungSpec::Reboot,
            _ => match word.strip_prefix("exec:") {
                Some(command) if Path::new(command).is_absolute() && !command.contains('\0') => {
                    RungSpec::Exec(command.into())
                }
                Some(command) => return Err(LadderError::Relative(command.to_owned())),
                None => return Err(LadderError::Unknown(word.to_owned())),
            },
        })
    }
}

impl fmt::Display for LadderSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LadderSpec::Rungs(rungs) = self else { return f.write_str("auto") };
        for (place, rung) in rungs.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{rung}")?;
        }
        Ok(())
    }
}

impl fmt::Display for RungSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RungSpec::Dm => "dm",
            RungSpec::Scsi => "scsi",
            RungSpec::Unbind => "unbind",
            RungSpec::Shutdown => "shutdown",
            RungSpec::Kill => "kill",
            RungSpec::Exec(command) => return write!(f, "exec:{}", command.display()),
            RungSpec::Reboot => "reboot",
        })
    }
}

impl TryFrom<String> for LadderSpec {
    type Error = LadderError;
    fn try_from(text: String) -> Result<Self, LadderError> {
        text.parse()
    }
}

impl From<LadderSpec> for String {
    fn from(spec: LadderSpec) -> String {
        spec.to_string()
    }
}

impl TryFrom<String> for RungSpec {
    type Error = LadderError;
    fn try_from(text: String) -> Result<Self, LadderError> {
        text.parse()
    }
}

impl From<RungSpec> for String {
    fn from(spec: RungSpec) -> String {
        spec.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(text: &str) -> String {
        text.parse::<LadderSpec>().expect_err(text).to_string()
    }

    #[test]
    fn ladders_are_read_in_their_order() {
        assert_eq!("auto".parse(), Ok(LadderSpec::Auto));
        let exec = RungSpec::Exec("/usr/local/sbin/cut off".into());
        let rungs = vec![RungSpec::Scsi, exec, RungSpec::Dm, RungSpec::Reboot];
        let text = "scsi, exec:/usr/local/sbin/cut off ,dm,reboot";
        assert_eq!(text.parse(), Ok(LadderSpec::Rungs(rungs.clone())));
        assert_eq!(LadderSpec::Rungs(rungs).to_string(), "scsi,exec:/usr/local/sbin/cut off,dm,reboot");
        let all = AUTO.map(|rung| rung.to_string()).join(",");
        assert_eq!(all.parse(), Ok(LadderSpec::Rungs(AUTO.to_vec())));
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        for (text, told) in [
            ("", "needs rungs"),
            (" ", "needs rungs"),
            ("dm,,reboot", "needs rungs"),
            ("dm,", "needs rungs"),
            ("DM", "unknown rung \"DM\""),
            ("stonith", "unknown rung \"stonith\"; there are auto"),
            ("dm,auto", "stands alone"),
            ("auto,reboot", "stands alone"),
            ("dm,scsi,dm", "\"dm\" stands in the ladder twice"),
            ("exec:/a,exec:/b,exec:/a", "twice"),
            ("reboot,reboot", "twice"),
            ("reboot,dm", "\"dm\" stands after the reboot"),
            ("exec:", "absolute path"),
            ("exec:cut-off", "absolute path"),
            ("exec:./cut-off", "absolute path"),
            ("exec", "unknown rung"),
            ("\u{1b}[2J", "\\u{1b}"),
        ] {
            let error = error(text);
            assert!(error.contains(told), "{text:?}: {error}");
            assert!(!error.contains('\u{1b}'), "{error}");
        }
    }

    #[test]
    fn json_is_the_text() {
        let spec: LadderSpec = "dm,reboot".parse().unwrap();
        assert_eq!(serde_json::to_string(&spec).unwrap(), "\"dm,reboot\"");
        assert_eq!(serde_json::from_str::<LadderSpec>("\"dm,reboot\"").unwrap(), spec);
        assert!(serde_json::from_str::<LadderSpec>("\"reboot,dm\"").is_err());
        assert_eq!(serde_json::to_string(&RungSpec::Exec("/x".into())).unwrap(), "\"exec:/x\"");
    }

    proptest! {
        #[test]
        fn any_text_is_a_sound_ladder_or_refused(
            text in "([a-z:/ ,]{0,12}|((dm|scsi|unbind|shutdown|kill|exec:/[a-z/ ]{0,5}|reboot|auto),?){0,8}|.{0,20})",
        ) {
            if let Ok(spec) = text.parse::<LadderSpec>() {
                prop_assert_eq!(spec.to_string().parse(), Ok(spec.clone()));
                if let LadderSpec::Rungs(rungs) = spec {
                    prop_assert!(!rungs.is_empty());
                    let distinct: std::collections::HashSet<_> = rungs.iter().collect();
                    prop_assert_eq!(distinct.len(), rungs.len());
                    let reboot = rungs.iter().position(|rung| *rung == RungSpec::Reboot);
                    prop_assert!(reboot.is_none_or(|place| place + 1 == rungs.len()));
                }
            }
        }
    }
}
