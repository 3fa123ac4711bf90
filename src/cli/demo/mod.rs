//! `mmp demo`: two holders, a refusal, a crash and a takeover on an image file, without root and without a device.
//!
//! Protects: nothing is told that was not checked. Each holder is a real `mmp run` of this very program; the story
//! goes on only if its exit codes, the block's bytes and the time that passed are what the text says, and fails otherwise.
//! Does not protect: the two "hosts" share one kernel, so it shows the protocol, not a storage network.

mod holder;
mod stage;

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueHint};

use self::holder::Holder;
use self::stage::{Stage, Stop};
use super::interrupt::Interrupt;
use super::{exit, output, render};
use crate::clock;
use crate::driver::Place;
use crate::error::Error;
use crate::format::MmpBlock;
use crate::protocol::Sequence;
use crate::protocol::timing::{self, Consequences};

/// An ext4 filesystem of 64 KiB, made by mke2fs with an update interval of 1 s.
const IMAGE: &[u8] = include_bytes!("../../../testimages/demo.img");
/// How much longer than it should a step may take on a busy host before the demo fails.
const SLACK: Duration = Duration::from_secs(20);
/// How soon a command must be dead after its holder was killed.
const KILL_LIMIT: Duration = Duration::from_secs(2);
/// How soon a live device must be refused on a busy host; the text tells how soon it was.
const REFUSAL_LIMIT: Duration = Duration::from_secs(5);
/// How long alpha's command would run if nobody killed it. It bounds what a demo that is killed itself leaves behind.
const ALPHA_RUNS: &str = "120";
/// How long beta's command runs.
const BETA_RUNS: &str = "2";

/// The image file; removed again unless the user named it.
struct ImageFile {
    path: PathBuf,
    directory: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Keep the image file here, instead of a temporary directory.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    image: Option<PathBuf>,
}

pub(super) fn run(arguments: &Demo) -> ExitCode {
    let stop = match play(arguments) {
        Ok(()) => return ExitCode::from(exit::DONE),
        Err(stop) => stop,
    };
    match stop {
        Stop::Failed(what) => {
            output::complain(&format!("the demo failed: {what}"));
            ExitCode::from(exit::DEMO_FAILED)
        }
        Stop::Error(error) => output::failure(&error),
        Stop::Interrupted => {
            output::complain("interrupted; everything the demo started is ended");
            ExitCode::from(exit::INTERRUPTED)
        }
        Stop::NobodyReads => ExitCode::from(exit::DONE),
    }
}

fn play(arguments: &Demo) -> Result<(), Stop> {
    let mut stage = Stage::new(Interrupt::listen()?);
    let image = ImageFile::make(arguments.image.as_deref())?;
    introduce(&mut stage, &image)?;
    let alpha = alpha_claims(&mut stage, &image)?;
    beta_is_refused(&mut stage, &image)?;
    alpha_is_killed(&mut stage, &image, alpha)?;
    let beta = beta_takes_over(&mut stage, &image)?;
    beta_releases(&mut stage, &image, beta)?;
    conclude(&mut stage, &image)
}

fn introduce(stage: &mut Stage, image: &ImageFile) -> Result<(), Stop> {
    let block = image.block()?;
    check(Sequence::from(block.seq) == Sequence::Clean, || "the fresh image is not marked clean".to_owned())?;
    stage.text(&format!(
        "\
Two hosts, one disk. The disk is an image file with an ext4 filesystem of 64 KiB: {}
The hosts are two processes with node names of their own, alpha and beta; --pretend-another-host keeps
each from noticing that the other one runs on this very host. Every claim below is checked as it is made.",
        render::shown(&image.path)
    ))
}

fn alpha_claims(stage: &mut Stage, image: &ImageFile) -> Result<Holder, Stop> {
    let wait = timing::wait(image.check_interval_s()?);
    stage.step("1. alpha claims the disk, which is marked clean")?;
    let mut alpha = Holder::start("alpha", &image.path, &["sleep", ALPHA_RUNS])?;
    stage.explain(&alpha.command_line())?;
    stage.explain(&format!(
        "It writes its claim and watches it for {}, clean or not: another host may be claiming at this moment.",
        render::seconds(wait)
    ))?;
    let took = alpha.until_command_runs(stage, wait, wait + SLACK)?;
    check(took >= wait, || format!("alpha held the disk after {took:?}, sooner than {wait:?}"))?;
    let block = image.live_block_of("alpha")?;
    stage.step(&format!(
        "   alpha holds it: its command runs, {} after it was asked",
        render::seconds(took)
    ))?;
    stage.explain(&format!(
        "The block names \"{}\" and has a live sequence, {:#010x}. alpha writes a new one every second.",
        block.node, block.seq
    ))?;
    Ok(alpha)
}

fn beta_is_refused(stage: &mut Stage, image: &ImageFile) -> Result<(), Stop> {
    let before = image.live_block_of("alpha")?;
    stage.step("2. beta wants it, too")?;
    let mut beta = Holder::start("beta", &image.path, &["echo", "beta uses the disk"])?;
    stage.explain(&beta.command_line())?;
    let (code, took) = beta.until_it_ends(stage, REFUSAL_LIMIT)?;
    check(code == Some(exit::RUN_IN_USE.into()), || {
        format!("beta ended with {code:?}, not {}", exit::RUN_IN_USE)
    })?;
    check(beta.errors().contains("node \"alpha\""), || "beta was not told who holds the disk".to_owned())?;
    check(beta.said().is_empty(), || "beta's command ran although alpha holds the disk".to_owned())?;
    let after = image.live_block_of("alpha")?;
    check(after.seq != before.seq, || "alpha's beat does not go on".to_owned())?;
    stage.step(&format!(
        "   beta was refused after {}, with exit code {}; its command never ran",
        render::seconds(took),
        exit::RUN_IN_USE
    ))?;
    stage.explain("It saw the block change and wrote nothing: alpha beats on, the block still names alpha.")
}

fn alpha_is_killed(stage: &mut Stage, image: &ImageFile, mut alpha: Holder) -> Result<(), Stop> {
    stage.step("3. alpha is killed with SIGKILL, the way a host crashes: nothing can be cleaned up")?;
    let took = alpha.kill_and_wait(stage, KILL_LIMIT)?;
    stage.step(&format!("   alpha's command is dead, {} ms later", took.as_millis()))?;
    stage.explain(
        "A process apart, the keeper, saw its end and killed the command: nothing uses the disk unprotected.",
    )?;
    let block = image.live_block_of("alpha")?;
    stage.explain(&format!(
        "The block was left as it is: sequence {:#010x} of alpha's, not marked clean.",
        block.seq
    ))
}

fn beta_takes_over(stage: &mut Stage, image: &ImageFile) -> Result<Holder, Stop> {
    let left = image.live_block_of("alpha")?;
    let check_interval_s = image.check_interval_s()?;
    let least = timing::wait(check_interval_s) * 2;
    let expected = Duration::from_secs_f64(Consequences::of(check_interval_s).crash_claim_s);
    stage.step("4. beta asks again")?;
    let mut beta = Holder::start("beta", &image.path, &["sleep", BETA_RUNS])?;
    stage.explain(&beta.command_line())?;
    stage.explain(&format!(
        "beta cannot know that alpha is dead, so it watches: {} to see no beat, then {} over its own claim.",
        render::seconds(expected.saturating_sub(least / 2)),
        render::seconds(least / 2)
    ))?;
    let asked = clock::mono();
    // Longer than any beat of alpha's would take, shorter than beta's watch.
    stage.pause(timing::refusal(timing::DEFAULT_INTERVAL))?;
    check(image.block()? == left, || "the block changed although alpha is dead".to_owned())?;
    stage.explain(&format!(
        "No beat for {}: alpha's have ended with alpha.",
        render::seconds(clock::mono().since(asked))
    ))?;
    let took = beta.until_command_runs(stage, expected, expected + SLACK)?;
    check(took >= least, || format!("beta took over after {took:?}, sooner than {least:?}"))?;
    image.live_block_of("beta")?;
    stage
        .step(&format!("   beta holds it: its command runs, {} after it was asked", render::seconds(took)))?;
    let lease = timing::lease(check_interval_s);
    check(lease < took, || format!("a lease of {lease:?} would outlive beta's wait"))?;
    stage.explain(&format!(
        "Had alpha only been stalled, its lease would have run out {} after its last beat, long before this.",
        render::seconds(lease)
    ))?;
    Ok(beta)
}

fn beta_releases(stage: &mut Stage, image: &ImageFile, mut beta: Holder) -> Result<(), Stop> {
    let runs = Duration::from_secs(BETA_RUNS.parse().expect("a number of seconds"));
    stage.step("5. beta's command comes to its end, and beta releases the disk")?;
    let (code, _) = beta.until_it_ends(stage, runs + SLACK)?;
    check(code == Some(0), || format!("beta ended with {code:?}, not with 0 as its command"))?;
    let block = image.block()?;
    check(Sequence::from(block.seq) == Sequence::Clean && block.node.bytes() == b"beta", || {
        format!("the block is not marked clean by beta: node {}, sequence {:#010x}", block.node, block.seq)
    })?;
    stage.step("   beta ended with its command's exit code, 0; the block is marked clean")?;
    stage.explain("Flushed, verified, released: the next host need not watch for a beat first.")
}

fn conclude(stage: &mut Stage, image: &ImageFile) -> Result<(), Stop> {
    let shown = holder::output_of(&["show".as_ref(), image.path.as_os_str()])?;
    stage.step("What `mmp show` says of it now")?;
    stage.text(shown.trim_end())?;
    let kept = match image.directory {
        None => format!("\n  mmp check {}    your image stays", render::shown(&image.path)),
        Some(_) => String::new(),
    };
    stage.text(&format!(
        "\
All of it came out as told, in {}. What to try next:{kept}
  mmp show DEV             a device with MMP: what its block says, how long things take
  mmp check DEV            does anybody use it? exit code 0 means free
  mmp run DEV -- COMMAND   hold it while COMMAND runs
  mkfs.ext4 -O mmp -E mmp_update_interval=1 DEV    a filesystem with MMP to try it on",
        render::seconds(stage.elapsed())
    ))
}

impl ImageFile {
    fn make(named: Option<&Path>) -> Result<Self, Stop> {
        let (path, directory) = match named {
            Some(path) => (path.to_owned(), None),
            None => {
                let name = format!("mmp-demo-{}-{:08x}", std::process::id(), fastrand::u32(..));
                let directory = std::env::temp_dir().join(name);
                DirBuilder::new()
                    .mode(0o700)
                    .create(&directory)
                    .map_err(|source| Error::io("make a directory", &directory, source))?;
                (directory.join("demo.img"), Some(directory))
            }
        };
        let image = ImageFile { path, directory };
        // Never over a file, let alone a device, that is there already.
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&image.path)
            .and_then(|mut file| file.write_all(IMAGE))
            .map_err(|source| Error::io("make the image", &image.path, source))?;
        Ok(image)
    }

    /// The block as it stands.
    fn block(&self) -> Result<MmpBlock, Stop> {
        let place = Place::find(&self.path, None)?;
        let image = place.read_block()?;
        let decoded = place.medium().decode(&image);
        Ok(decoded.map_err(|damage| Error::Damaged { path: self.path.clone(), damage })?)
    }

    /// The block, which must be live and name `node`.
    fn live_block_of(&self, node: &str) -> Result<MmpBlock, Stop> {
        let block = self.block()?;
        let live = matches!(Sequence::from(block.seq), Sequence::Live(_));
        check(live && block.node.bytes() == node.as_bytes(), || {
            format!(
                "the block should be {node}'s and live; it names {:?}, sequence {:#010x}",
                block.node, block.seq
            )
        })?;
        Ok(block)
    }

    fn check_interval_s(&self) -> Result<u16, Stop> {
        let superblock_s = Place::find(&self.path, None)?.medium().update_interval_s();
        Ok(timing::taker_check_interval_s(superblock_s, self.block()?.check_interval_s))
    }
}

impl Drop for ImageFile {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            let _ = fs::remove_file(&self.path);
            let _ = fs::remove_dir(directory);
        }
    }
}

fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Stop> {
    if holds { Ok(()) } else { Err(Stop::Failed(otherwise())) }
}
