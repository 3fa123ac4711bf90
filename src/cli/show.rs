//! `mmp show`: what the block says, and what follows from it. One look; it cannot tell whether anybody lives.

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::args::Show;
use super::output;
use super::render::{self, PeerReport, SCHEMA};
use crate::driver::Place;
use crate::error::Error;
use crate::protocol::timing::{self, Consequences};
use crate::protocol::{Peer, Sequence};

#[derive(Debug, Serialize)]
struct Report {
    schema: u32,
    device: String,
    size_bytes: u64,
    read_only: bool,
    filesystem_uuid: String,
    filesystem_label: String,
    needs_recovery_or_mounted: bool,
    block_bytes: u32,
    mmp_block: u64,
    mmp_offset_bytes: u64,
    update_interval_s: u16,
    metadata_checksums: bool,
    state: &'static str,
    last: PeerReport,
    timing: Timing,
}

#[derive(Debug, Serialize)]
struct Timing {
    wait_s: u64,
    refusal_s: f64,
    #[serde(flatten)]
    consequences: Consequences,
}

pub(super) fn run(arguments: &Show) -> ExitCode {
    match look(arguments) {
        Ok(report) if arguments.json => output::json(&report),
        Ok(report) => output::text(&text(&report)),
        Err(error) => output::failure(&error, arguments.json),
    }
}

fn look(arguments: &Show) -> Result<Report, Error> {
    let place = Place::find(&arguments.device, None)?;
    let image = place.read_block()?;
    let block = place
        .medium()
        .decode(&image)
        .map_err(|damage| Error::Damaged { path: arguments.device.clone(), damage })?;
    let superblock = place.superblock();
    let state = match Sequence::from(block.seq) {
        Sequence::Live(_) => "live_or_unclean",
        Sequence::Clean => "clean",
        Sequence::Fsck => "fsck",
        Sequence::Unknown(seq) => {
            let refusal = crate::protocol::Refusal::UnknownSequence { seq };
            return Err(Error::Refused { path: arguments.device.clone(), refusal });
        }
    };
    let update_interval_s = timing::update_interval_s(superblock.mmp_update_interval_s);
    let check_interval_s = timing::taker_check_interval_s(update_interval_s, block.check_interval_s);
    Ok(Report {
        schema: SCHEMA,
        device: render::shown(&arguments.device),
        size_bytes: place.device().size_bytes(),
        read_only: place.device().is_read_only(),
        filesystem_uuid: uuid(&superblock.uuid),
        filesystem_label: superblock.volume_name.to_string(),
        needs_recovery_or_mounted: superblock.in_use_or_unclean(),
        block_bytes: superblock.block_bytes,
        mmp_block: superblock.mmp_block,
        mmp_offset_bytes: place.offset_bytes(),
        update_interval_s,
        metadata_checksums: superblock.checksum_seed.is_some(),
        state,
        last: PeerReport::from(&Peer::from(&block)),
        timing: Timing {
            wait_s: timing::wait_s(check_interval_s),
            refusal_s: timing::refusal(Duration::from_secs(update_interval_s.into())).as_secs_f64(),
            consequences: Consequences::of(check_interval_s),
        },
    })
}

fn text(report: &Report) -> String {
    let state = match report.state {
        "clean" => "clean: nobody uses it, says the block",
        "fsck" => "e2fsck's mark: one is at work, or died at it",
        _ => "live or unclean: in use, or its holder died (`mmp check` finds out)",
    };
    let consequences = &report.timing.consequences;
    let label = if report.filesystem_label.is_empty() { "(none)" } else { &report.filesystem_label };
    format!(
        "\
device               {}
filesystem           {}, label {label}{}
MMP block            {} (byte {}), {} bytes{}
state                {state}
last named           {}
check interval       {} s in the block, update interval {} s in the superblock

what follows from it
  a live holder is refused within   {:.1} s (if he beats every {} s)
  claim when clean                  {} s by mmp, at once by a kernel
  claim after a crash               {:.1} s by mmp, {} s by a kernel mount
  storage outage a holder survives  {} s
  start timeout for a cluster       {} s
",
        report.device,
        report.filesystem_uuid,
        if report.needs_recovery_or_mounted { ", mounted or in need of recovery" } else { "" },
        report.mmp_block,
        report.mmp_offset_bytes,
        report.block_bytes,
        if report.metadata_checksums { ", with checksum" } else { ", without checksum" },
        report.last.line(),
        report.last.check_interval_s,
        report.update_interval_s,
        report.timing.refusal_s,
        report.update_interval_s,
        consequences.clean_claim_s,
        consequences.crash_claim_s,
        consequences.crash_mount_s,
        consequences.outage_survived_s,
        consequences.start_timeout_s,
    )
}

fn uuid(bytes: &[u8; 16]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
