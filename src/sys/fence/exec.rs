//! The rung `exec`: an administrator's own command, such as one that takes a reservation or closes a switch's port.
//!
//! Protects: exit status 0 within the time vouches that the device is cut off; anything else is a failure, and one that is
//! late is killed with what it started. Does not protect: whether it tells the truth; and a command on a disk that hangs
//! cannot be read.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::climb::{Effect, Ended, Rung};
use super::{FenceTarget, Ready, run_helper};
use crate::clock::Mono;
use crate::sys::spawn;
use crate::sys::target::{Target, TargetKind};

/// Whether the command is there and executable.
pub(super) fn prepare(command: &Path, target: &FenceTarget) -> Result<Ready, String> {
    let shown = command.display();
    let metadata = std::fs::metadata(command).map_err(|error| format!("{shown}: {error}"))?;
    if !metadata.is_file() {
        return Err(format!("{shown} is no file"));
    }
    nix::unistd::access(command, nix::unistd::AccessFlags::X_OK)
        .map_err(|_| format!("{shown} is not executable"))?;
    if let TargetKind::Block { major, minor } = target.target.kind
        && metadata.dev() == libc::makedev(major, minor)
    {
        return Err(format!("{shown} lies on the very filesystem that is to be cut off"));
    }
    let description = format!("runs {shown}, whose exit status 0 vouches that the device is cut off");
    let rung = Exec {
        command: command.to_owned(),
        target: target.target.clone(),
        filesystem: target.filesystem.clone(),
    };
    Ok(Ready { rung: Box::new(rung), description, cut: true, lacks: None })
}

struct Exec {
    command: PathBuf,
    target: Target,
    filesystem: String,
}

impl Rung for Exec {
    fn effect(&self) -> Effect {
        Effect::Vouched
    }

    fn run(&mut self, until: Mono) -> Ended {
        run_helper(&[], until, false, || {
            spawn::reset_signals();
            let error = Command::new(&self.command)
                .env("MMP_DEVICE", &self.target.canonical)
                .env("MMP_FILESYSTEM", &self.filesystem)
                .exec();
            Err(format!("cannot be executed: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_command_must_be_there_and_executable() {
        let dir = tempfile::tempdir().unwrap();
        let (file, number) = (dir.path().join("cut-off"), |path: &Path| path.metadata().unwrap().dev());
        let target = |kind| FenceTarget {
            target: Target { canonical: "/dev/x".into(), kind },
            filesystem: "ext4".to_owned(),
            spare: Vec::new(),
        };
        let elsewhere = target(TargetKind::Block { major: 4095, minor: 1 });
        let why = || prepare(&file, &elsewhere).err().unwrap();
        assert!(why().contains("No such file"));
        std::fs::write(&file, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(why().contains("not executable"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        let ready = prepare(&file, &elsewhere).unwrap();
        assert!(ready.cut && ready.lacks.is_none() && ready.rung.effect() == Effect::Vouched);
        let here = target(TargetKind::block(number(&file)));
        assert!(prepare(&file, &here).err().unwrap().contains("very filesystem"));
        assert!(prepare(dir.path(), &elsewhere).err().unwrap().contains("no file"));
    }
}
