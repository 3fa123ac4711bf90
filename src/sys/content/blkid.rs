//! Asks blkid(8) what stands on a device: its low-level probing, which has no cache of its own.
//!
//! Protects: it runs within a limit, and its output is taken apart strictly: known keys, each once, values of few characters.
//! Labels are not read at all. The format is the one for udev, since the other for programs repeats the name of the device, which may
//! hold a newline and then say anything; and since it alone names all that stands there where that is several things. Does
//! not protect: a blkid(8) that is not util-linux's, or one that the kernel does not let go of any more, which is left behind.
//!
//! Source: util-linux `misc-utils/blkid.c`, `libblkid/src/superblocks/superblocks.c` (`superblocks_safeprobe`).

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::clock::{self, Mono};
use crate::error::Error;
use crate::format::name::escape;
use crate::io::Device;
use crate::sys::bounded;

/// How long it may take. Reads of a disk that has to spin up first take 10 s or so.
const LIMIT: Duration = Duration::from_secs(20);
/// How long it may take to die.
const DEATH_LIMIT: Duration = Duration::from_secs(1);
/// Between two looks whether it has ended: it closes its output just before.
const END_POLL: Duration = Duration::from_millis(2);
/// More than it ever says.
const OUTPUT_BYTES: usize = 64 << 10;

/// `BLKID_EXIT_NOTFOUND`, also where it cannot open or read the device.
const NOTHING: i32 = 2;
/// `BLKID_EXIT_AMBIVAL`.
const AMBIVALENT: i32 = 8;

/// What blkid(8) sees. All names are letters, digits and `_`, `-`, `.`, `+` only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Nothing,
    One {
        kind: String,
        /// "filesystem", "raid", "crypto", "other", or nothing if it does not say.
        usage: String,
        /// Letters, digits and `-` only.
        uuid: Option<String>,
    },
    /// A partition table, and what else there is.
    Table {
        table: String,
        beside: Option<String>,
    },
    /// What they are; empty if it does not say.
    Several(Vec<String>),
}

/// How to run it.
#[derive(Clone, Debug)]
pub(super) struct Blkid {
    /// The first of them that exists.
    pub(super) programs: Vec<PathBuf>,
    pub(super) limit: Duration,
}

/// What it left.
struct Ended {
    status: ExitStatus,
    said: Vec<u8>,
    complained: Vec<u8>,
}

impl Blkid {
    /// This host's: by PATH, and where it is when an ordinary user's PATH leaves that out.
    pub(super) fn host() -> Blkid {
        let programs = ["blkid", "/usr/sbin/blkid", "/sbin/blkid"].map(PathBuf::from).to_vec();
        Blkid { programs, limit: LIMIT }
    }

    /// What it sees on `device`.
    pub(super) fn ask(&self, device: &Device) -> Result<Seen, Error> {
        let refused = |what: String| Error::Unsupported { path: device.path().to_owned(), what };
        let failed = |source| Error::io("run blkid(8) for it", device.path(), source);
        let child = self.start(device.canonical()).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => refused(
                "blkid(8) is not installed, and without it nobody can say what stands here; install util-linux".to_owned(),
            ),
            _ => failed(source),
        })?;
        let Some(ended) = finish(child, self.limit).map_err(failed)? else {
            return Err(refused(format!(
                "blkid(8) has not answered for {} s; does the device still answer? (`dd if=... iflag=direct count=1`; the kernel's log)",
                self.limit.as_secs()
            )));
        };
        understand(&ended).map_err(refused)
    }

    fn start(&self, device: &Path) -> io::Result<Child> {
        let mut missing = io::Error::from(io::ErrorKind::NotFound);
        for program in &self.programs {
            let mut command = Command::new(program);
            // The canonical path is absolute: it is never taken for an option.
            command.args(["-p", "-o", "udev"]).arg(device);
            command.env("LC_ALL", "C").env_remove("LIBBLKID_DEBUG");
            match command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing = error,
                started => return started,
            }
        }
        Err(missing)
    }
}

/// Reads what `child` says until it ends; `None` if it has not by then, and is killed.
fn finish(mut child: Child, limit: Duration) -> io::Result<Option<Ended>> {
    let until = clock::mono() + limit;
    let pipes = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
    let read = read_until(pipes, until).and_then(|texts| Ok(texts.zip(wait(&mut child, until)?)));
    match read {
        Ok(Some(([said, complained], status))) => Ok(Some(Ended { status, said, complained })),
        failed => {
            end(child);
            failed.map(|_| None)
        }
    }
}

/// What comes out of both pipes until they are closed; `None` if that takes too long.
fn read_until(mut pipes: [Option<OwnedFd>; 2], until: Mono) -> io::Result<Option<[Vec<u8>; 2]>> {
    let mut texts = [Vec::new(), Vec::new()];
    while let Some(first) = pipes.iter().position(Option::is_some) {
        let open: Vec<_> = (first..pipes.len()).filter(|&at| pipes[at].is_some()).collect();
        let mut asked: Vec<_> = open
            .iter()
            .filter_map(|&at| Some(PollFd::new(pipes[at].as_ref()?.as_fd(), PollFlags::POLLIN)))
            .collect();
        let left = until.since(clock::mono());
        if left.is_zero() {
            return Ok(None);
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut asked, timeout) {
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        let ready: Vec<_> = asked.iter().map(|pipe| pipe.any().unwrap_or(true)).collect();
        for (&at, _) in open.iter().zip(ready).filter(|(_, ready)| *ready) {
            let Some(pipe) = pipes[at].take() else { continue };
            let mut file = std::fs::File::from(pipe);
            let mut piece = [0; 4096];
            let more = match file.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
                Err(error) => return Err(error),
                Ok(len) => {
                    texts[at].extend_from_slice(&piece[..len]);
                    len > 0
                }
            };
            if texts[at].len() > OUTPUT_BYTES {
                return Err(io::Error::other("it does not stop talking"));
            }
            pipes[at] = more.then(|| file.into());
        }
    }
    Ok(Some(texts))
}

fn wait(child: &mut Child, until: Mono) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if clock::mono() >= until {
            return Ok(None);
        }
        clock::sleep(END_POLL);
    }
}

/// Kills it. If it is stuck in the kernel, a thread waits for its end, so that it does not stay a zombie.
fn end(mut child: Child) {
    let _ = child.kill();
    if !matches!(wait(&mut child, clock::mono() + DEATH_LIMIT), Ok(Some(_))) {
        let _ = bounded::thread(move || drop(child.wait()));
    }
}

/// Takes apart what it said.
fn understand(ended: &Ended) -> Result<Seen, String> {
    let complaint = || {
        let first = ended.complained.split(|&byte| byte == b'\n').next().unwrap_or_default();
        escape(first.get(..first.len().min(200)).unwrap_or_default())
    };
    match ended.status.code() {
        Some(0) => seen(&ended.said),
        // It also ends so where it cannot open the device; only what it says then tells that apart.
        Some(NOTHING) if ended.complained.trim_ascii().is_empty() => Ok(Seen::Nothing),
        Some(AMBIVALENT) => several(&ended.said),
        _ => Err(format!(
            "blkid(8) failed ({}{}{}); it cannot be told what stands here",
            ended.status,
            if ended.complained.is_empty() { "" } else { ": " },
            complaint()
        )),
    }
}

/// The values of `keys`, of which each may come once.
fn values<const N: usize>(said: &[u8], keys: [&str; N]) -> Result<[Option<String>; N], String> {
    let mut values = [const { None }; N];
    for line in said.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let strange =
            || format!("blkid(8) says what is not understood: \"{}\"", escape(&line[..line.len().min(80)]));
        let equals = line.iter().position(|&byte| byte == b'=').ok_or_else(strange)?;
        let (key, value) = (&line[..equals], &line[equals + 1..]);
        if key.is_empty() || !key.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
            return Err(strange());
        }
        let Some(at) = keys.iter().position(|known| known.as_bytes() == key) else { continue };
        let value = std::str::from_utf8(value).map_err(|_| strange())?;
        if values[at].replace(value.to_owned()).is_some() {
            return Err(strange());
        }
    }
    Ok(values)
}

/// A name, if it is one.
fn name(value: Option<String>) -> Result<Option<String>, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.+".contains(&byte);
    match value {
        Some(value) if value.is_empty() || !value.bytes().all(allowed) => {
            Err(format!("blkid(8) names something \"{}\", which is no name", escape(value.as_bytes())))
        }
        value => Ok(value),
    }
}

fn seen(said: &[u8]) -> Result<Seen, String> {
    let keys = ["ID_FS_TYPE", "ID_FS_USAGE", "ID_FS_UUID", "ID_PART_TABLE_TYPE"];
    let [kind, usage, uuid, table] = values(said, keys)?;
    let (kind, usage, table) = (name(kind)?, name(usage)?, name(table)?);
    if let Some(table) = table {
        return Ok(Seen::Table { table, beside: kind });
    }
    // What a partition's entry in its table says (ID_PART_ENTRY_...) comes here as well, and is nothing that stands on it.
    let Some(kind) = kind else { return Ok(Seen::Nothing) };
    let uuid = uuid.filter(|uuid| {
        !uuid.is_empty() && uuid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    });
    Ok(Seen::One { kind, usage: usage.unwrap_or_default(), uuid })
}

/// `USAGE:TYPE[:VERSION]` of each, with a space between.
fn several(said: &[u8]) -> Result<Seen, String> {
    let [named] = values(said, ["ID_FS_AMBIVALENT"])?;
    let named = named.unwrap_or_default();
    let kinds = named.split(' ').filter_map(|one| one.split(':').nth(1));
    Ok(Seen::Several(kinds.map(|kind| escape(kind.as_bytes())).collect()))
}

#[cfg(test)]
#[path = "blkid_tests.rs"]
pub(super) mod tests;
