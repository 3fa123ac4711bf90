//! `mmp show`: what the block says, and what follows from it. One look; it cannot tell whether anybody lives.

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::args::Show;
use super::output;
use super::render::{self, PeerReport, SCHEMA};
use crate::driver::Place;
use crate::error::Error;
use crate::protocol::timing::{self, Consequences, Found};
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
    /// A live holder refuses a claim within this time if he beats at least every `peer_interval_s`.
    refusal_s: f64,
    /// The longest interval that superblock or block let expect of him.
    peer_interval_s: f64,
    /// A claim by mmp begun now, if nobody stirs; none where no wait helps.
    claim_now_s: Option<f64>,
    #[serde(flatten)]
    consequences: Consequences,
}

pub(super) fn run(arguments: &Show) -> ExitCode {
    let place = match place(arguments) {
        Ok(place) => place,
        Err(error) if arguments.json => return output::json_failure(&arguments.device, &error),
        Err(error) => return output::failure(&error),
    };
    if let Some(found) = place.slot() {
        return super::area::show_slot(&place, found, arguments.json);
    }
    match look(arguments, &place) {
        Ok(report) if arguments.json => output::json(&report),
        Ok(report) => output::text(&text(&report)),
        Err(error) if arguments.json => output::json_failure(&arguments.device, &error),
        Err(error) => output::failure(&error),
    }
}

fn place(arguments: &Show) -> Result<Place, Error> {
    Place::find_by(&arguments.device, arguments.by.area.as_deref(), None)
}

fn look(arguments: &Show, place: &Place) -> Result<Report, Error> {
    let image = place.read_block()?;
    let block = place
        .medium()
        .decode(&image)
        .map_err(|damage| Error::Damaged { path: arguments.device.clone(), damage })?;
    let Some(superblock) = place.superblock() else { unreachable!("a slot was shown as such") };
    let doubtful = superblock.in_use_or_unclean();
    let (state, found) = match Sequence::from(block.seq) {
        Sequence::Live(_) => ("live_or_unclean", Some(Found::Still)),
        Sequence::Clean if doubtful => ("clean", Some(Found::DoubtfulClean)),
        Sequence::Clean => ("clean", Some(Found::Clean)),
        Sequence::Fsck => ("fsck", None),
        Sequence::Unknown(seq) => {
            let refusal = crate::protocol::Refusal::UnknownSequence { seq };
            return Err(Error::Refused { path: arguments.device.clone(), refusal });
        }
    };
    let update_interval_s = timing::update_interval_s(superblock.mmp_update_interval_s);
    Ok(Report {
        schema: SCHEMA,
        device: render::shown(&arguments.device),
        size_bytes: place.device().size_bytes(),
        read_only: place.device().is_read_only(),
        filesystem_uuid: render::uuid(&superblock.uuid),
        filesystem_label: superblock.volume_name.to_string(),
        needs_recovery_or_mounted: doubtful,
        block_bytes: superblock.block_bytes,
        mmp_block: superblock.mmp_block,
        mmp_offset_bytes: place.offset_bytes(),
        update_interval_s,
        metadata_checksums: superblock.checksum_seed.is_some(),
        state,
        last: PeerReport::from(&Peer::from(&block)),
        timing: Timing::of(found, superblock.mmp_update_interval_s, block.check_interval_s),
    })
}

impl Timing {
    /// For a claimer without wishes of his own.
    fn of(found: Option<Found>, superblock: u16, on_disk: u16) -> Self {
        let ours_s = timing::holder_check_interval_s(timing::DEFAULT_INTERVAL, timing::DEFAULT_INTERVAL, 0);
        let consequences = Consequences::for_claimer(superblock, on_disk, ours_s);
        let peer_interval = timing::longest_interval(Duration::ZERO, superblock, on_disk);
        Timing {
            wait_s: timing::wait_s(consequences.check_interval_s),
            refusal_s: timing::refusal(peer_interval).as_secs_f64(),
            peer_interval_s: peer_interval.as_secs_f64(),
            claim_now_s: found.map(|found| timing::claim(found, superblock, on_disk, ours_s).as_secs_f64()),
            consequences,
        }
    }

    /// What a claim begun now meets.
    fn now(&self, report: &Report) -> String {
        let Some(claim_s) = self.claim_now_s else {
            return "refused until e2fsck ends, or its mark is cleared".to_owned();
        };
        match (report.state, report.needs_recovery_or_mounted) {
            ("clean", false) => format!("{claim_s} s by mmp, at once by a kernel mount"),
            ("clean", true) => format!(
                "{claim_s} s by mmp (the journal needs recovery, so the clean mark may lie), at once by a kernel mount"
            ),
            _ => format!(
                "{claim_s} s by mmp, {} s by a kernel mount, if its holder is dead",
                self.consequences.crash_mount_s
            ),
        }
    }
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
  others are refused within         {} s (if the holder beats every {} s; mmp beats every second unless told: {} s)
  claim now                         {}
  claim when clean                  {} s by mmp, at once by a kernel mount
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
        report.timing.peer_interval_s,
        timing::refusal(timing::DEFAULT_INTERVAL).as_secs_f64(),
        report.timing.now(report),
        consequences.clean_claim_s,
        consequences.crash_claim_s,
        consequences.crash_mount_s,
        consequences.outage_survived_s,
        consequences.start_timeout_s,
    )
}
