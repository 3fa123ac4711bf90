//! The arguments of `mmp area` and `mmp enable`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::TypedValueParser as _;
use clap::{Args, Subcommand, ValueHint};

use super::super::args::{duration, node_name};
use crate::format::Name;
use crate::format::area::header::{INTERVAL_MAX_MS, INTERVAL_MIN_MS};
use crate::format::area::{SLOTS_MAX, SlotName, slot_name};
use crate::sys::identity::uuid_of;

#[derive(Debug, Args)]
pub(in crate::cli) struct Area {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// What to do with an area.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make an area: behind the filesystem on a device, all over a blank device, or in a file.
    ///
    /// A file that does not exist is made, as long as the area. Nothing is written unless it is certain that nothing else
    /// stands there.
    Create(Create),
    /// Show an area: where it is, its interval and what follows from it, whether it needs a repair. Never writes.
    Show(Look),
    /// List the slots of an area that are in use, with state, generation and holder. Never writes.
    List(List),
    /// Add a slot, remove one, or give it another name.
    #[command(subcommand)]
    Slot(SlotVerb),
    /// Move an area to where it belongs, when its target was grown.
    ///
    /// Holds the lock and every used slot, so nobody may use any of them meanwhile.
    Move(Move),
    /// Repair an area: a header that was overwritten or left behind, and slots whose two blocks do not say the same.
    Repair(Repair),
    /// Take an area away, when nobody uses any of its slots.
    Destroy(Change),
}

/// What to do with a slot.
#[derive(Debug, Subcommand)]
pub(super) enum SlotVerb {
    /// Give a free slot a name, and the UUID of what it guards.
    Add(Add),
    /// Take a slot's name away: it is free then. Nobody may hold it.
    Remove(Remove),
    /// Give a slot another name. Nobody may hold it.
    Rename(Rename),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The block device or file.
    #[arg(value_name = "TARGET", value_hint = ValueHint::FilePath)]
    pub(super) target: PathBuf,
    /// How many slots for use; 24 KiB for one, 8 KiB for each more.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..i64::from(SLOTS_MAX)))]
    pub(super) slots: u32,
    /// How often a holder beats, 100ms to 10s. He survives a storage outage of eleven of these, and others wait twice that
    /// before they take over.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval_ms)]
    pub(super) interval: u32,
    #[command(flatten)]
    pub(super) made: Made,
    /// Do not tell how far it is.
    #[arg(short, long)]
    pub(super) quiet: bool,
}

/// How an area is made.
#[derive(Debug, Args)]
pub(in crate::cli) struct Made {
    /// What to call the area.
    #[arg(long, value_name = "LABEL", default_value = "", value_parser = label)]
    pub(super) label: Name<64>,
    /// Where what stands on the device ends, if that is not known here (such as 1048576 or 20GiB); the area is made behind it.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(super) end: Option<u64>,
    /// The device never had an area, or was not grown since: on a large one, where it is not known whether one was left behind.
    #[arg(long)]
    pub(super) fresh: bool,
    /// Nothing on the device is needed: nothing that is known was found there.
    #[arg(long)]
    pub(super) blank: bool,
}

#[derive(Debug, Args)]
pub(super) struct Look {
    /// The block device or file.
    #[arg(value_name = "TARGET", value_hint = ValueHint::FilePath)]
    pub(super) target: PathBuf,
    /// Report as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    pub(super) look: Look,
    /// List free slots, too.
    #[arg(long)]
    pub(super) all: bool,
}

/// A change under the lock.
#[derive(Debug, Args)]
pub(super) struct Change {
    /// The block device or file.
    #[arg(value_name = "TARGET", value_hint = ValueHint::FilePath)]
    pub(super) target: PathBuf,
    #[command(flatten)]
    pub(super) locking: Locking,
}

/// How the lock is taken.
#[derive(Debug, Args)]
pub(in crate::cli) struct Locking {
    /// Wait so long for whoever uses what is to be changed: holds a slot or the lock of an area, or a filesystem (such as 30s, 5m).
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(in crate::cli) wait: Option<Duration>,
    /// The node name to write into the block, instead of this host's.
    #[arg(long, value_name = "NAME", env = "MMP_NODE_NAME", value_parser = node_name)]
    pub(in crate::cli) node: Option<String>,
    /// Say nothing but errors.
    #[arg(short, long)]
    pub(in crate::cli) quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct Add {
    #[command(flatten)]
    pub(super) change: Change,
    /// The slot's name: not all digits, and without '/' and ':'.
    #[arg(value_name = "NAME", value_parser = clap::builder::OsStringValueParser::new().try_map(name))]
    pub(super) name: SlotName,
    /// The device that it guards: the UUID of its filesystem is remembered, and the slot guards no other.
    #[arg(long = "for", value_name = "DEV", conflicts_with = "uuid", value_hint = ValueHint::FilePath)]
    pub(super) device: Option<PathBuf>,
    /// The UUID of what it guards.
    #[arg(long, value_name = "UUID", value_parser = uuid)]
    pub(super) uuid: Option<Uuid>,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    #[command(flatten)]
    pub(super) change: Change,
    /// The slot's name or number.
    #[arg(value_name = "SLOT")]
    pub(super) slot: OsString,
}

#[derive(Debug, Args)]
pub(super) struct Rename {
    #[command(flatten)]
    pub(super) change: Change,
    /// The slot's name or number.
    #[arg(value_name = "SLOT")]
    pub(super) slot: OsString,
    /// Its new name.
    #[arg(value_name = "NAME", value_parser = clap::builder::OsStringValueParser::new().try_map(name))]
    pub(super) name: SlotName,
}

#[derive(Debug, Args)]
pub(super) struct Move {
    #[command(flatten)]
    pub(super) change: Change,
    /// The size the target had; without it the area is looked for behind what stands there.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(super) was: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct Repair {
    #[command(flatten)]
    pub(super) change: Change,
    /// How many slots for use the area has, if the header from which it is found was lost: it need not be looked for.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..i64::from(SLOTS_MAX)))]
    pub(super) slots: Option<u32>,
    /// The target was taken back to an earlier state, such as a snapshot's: raise the generations of all slots beyond
    /// every one that may have been given away since.
    #[arg(long)]
    pub(super) rolled_back: bool,
}

/// Where protection is put that a device has none of.
#[derive(Debug, Args)]
pub(in crate::cli) struct Enable {
    /// The block device or image file.
    #[arg(value_name = "DEV", value_hint = ValueHint::FilePath)]
    pub(super) device: PathBuf,
    /// Guard it by a slot of this area, instead of one behind what stands on it. The slot is added; without a name it is
    /// called after the UUID of the filesystem.
    #[arg(long, value_name = "TARGET[:SLOT]", value_hint = ValueHint::FilePath)]
    pub(super) area: Option<PathBuf>,
    /// How often a holder beats [default: 1s]: 1s to 300s of an ext2/3/4's own MMP, in whole seconds; 100ms to 10s of an area. The
    /// longer, the longer others wait before they take over.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) interval: Option<Duration>,
    #[command(flatten)]
    pub(super) made: Made,
    #[command(flatten)]
    pub(super) locking: Locking,
}

/// Sixteen bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uuid(pub(super) [u8; 16]);

fn uuid(text: &str) -> Result<Uuid, String> {
    uuid_of(text).map(Uuid).ok_or_else(|| "give a UUID, of 32 hexadecimal digits".to_owned())
}

fn label(text: &str) -> Result<Name<64>, String> {
    match text.len() > 64 || text.contains('\0') {
        true => Err("a label has at most 64 bytes, and no NUL".to_owned()),
        false => Ok(Name::new(text)),
    }
}

fn name(text: OsString) -> Result<SlotName, String> {
    slot_name(text.as_bytes()).map_err(|error| error.to_string())
}

fn interval_ms(text: &str) -> Result<u32, String> {
    area_interval_ms(duration(text)?)
}

/// An area's interval in milliseconds.
pub(super) fn area_interval_ms(interval: Duration) -> Result<u32, String> {
    u32::try_from(interval.as_millis())
        .ok()
        .filter(|millis| (INTERVAL_MIN_MS..=INTERVAL_MAX_MS).contains(millis))
        .ok_or_else(|| "an area has an interval of 100ms to 10s".to_owned())
}

fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return Err("give a number of bytes, or with K, M, G or T behind it".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "give a number of bytes".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "no device is that large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_intervals_are_read() {
        assert_eq!((bytes("4096"), bytes("20GiB"), bytes("3M")), (Ok(4096), Ok(20 << 30), Ok(3 << 20)));
        for bad in ["", "x", "-1", "1.5G", "5 MB", "99999999T"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!((interval_ms("100ms"), interval_ms("10s")), (Ok(100), Ok(10_000)));
        assert!(interval_ms("99ms").is_err() && interval_ms("11s").is_err());
        assert!(uuid("c0ffee00-1122-3344-5566-778899aabbcc").is_ok() && uuid("c0ffee").is_err());
    }
}
