//! The table: a line a row, and what does not fit into one below it.

use std::fmt::Write as _;
use std::time::Duration;

use super::super::render;
use super::report::DeviceReport;
use crate::scan::Protection;

const HEADINGS: [&str; 8] = ["device", "size", "filesystem", "mmp", "state", "last named", "age", "interval"];
const NOTHING: &str = "-";
const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];

/// All rows, under their headings.
pub(super) fn text(devices: &[DeviceReport]) -> String {
    if devices.is_empty() {
        return "there is no device here\n".to_owned();
    }
    let rows: Vec<_> = devices.iter().map(cells).collect();
    let headings = HEADINGS.map(ToOwned::to_owned);
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| {
            let lengths = rows.iter().chain([&headings]).map(|row| row[column].chars().count());
            lengths.max().unwrap_or_default()
        })
        .collect();
    let mut text = line(&headings, &widths);
    for (device, row) in devices.iter().zip(&rows) {
        text += &line(row, &widths);
        for more in below(device) {
            let _ = writeln!(text, "  {more}");
        }
    }
    text
}

fn cells(device: &DeviceReport) -> [String; HEADINGS.len()] {
    let or_nothing = |cell: Option<String>| cell.unwrap_or_else(|| NOTHING.to_owned());
    let mmp = device.mmp.map(|mmp| match mmp {
        Protection::Native => "native",
        Protection::TailArea => "tail area",
        Protection::Area => "area",
        Protection::Slot => "slot",
        Protection::None => "none",
    });
    [
        device.device.clone(),
        or_nothing(device.size_bytes.map(size)),
        or_nothing(device.filesystem.clone()),
        or_nothing(mmp.map(ToOwned::to_owned)),
        device.state.words().to_owned(),
        or_nothing(device.holder.clone()),
        or_nothing(device.age_s.map(age)),
        or_nothing(device.interval_ms.map(|millis| render::seconds(Duration::from_millis(millis)))),
    ]
}

/// The last column needs no width.
fn line(cells: &[String], widths: &[usize]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
}

fn below(device: &DeviceReport) -> Vec<String> {
    let others: Vec<_> = device.paths.iter().skip(1).map(String::as_str).collect();
    // A slot is where its area is.
    let others = if device.mmp == Some(Protection::Slot) { Vec::new() } else { others };
    let also = (!others.is_empty()).then(|| format!("also {}", others.join(", ")));
    let guarded = device.guarded_here.as_ref().map(super::report::GuardedReport::text);
    also.into_iter().chain(guarded).chain(device.reason.clone()).chain(device.notes.clone()).collect()
}

/// In the largest unit that it fills, to a tenth below ten.
fn size(bytes: u64) -> String {
    let Some(unit) = (0..UNITS.len()).rev().find(|&unit| bytes >> (10 * (unit + 1)) > 0) else {
        return format!("{bytes} B");
    };
    let shift = 10 * (unit + 1);
    let tenths = (u128::from(bytes) * 10) >> shift;
    let (whole, tenth) = (tenths / 10, tenths % 10);
    match (whole, tenth) {
        (..10, 1..) => format!("{whole}.{tenth} {}", UNITS[unit]),
        _ => format!("{whole} {}", UNITS[unit]),
    }
}

/// In one unit.
fn age(age_s: i64) -> String {
    match age_s {
        ..0 => "in the future".to_owned(),
        0..120 => format!("{age_s} s"),
        120..7200 => format!("{} min", age_s / 60),
        7200..172_800 => format!("{} h", age_s / 3600),
        _ => format!("{} d", age_s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (25_165_824, "24 MiB"),
            (1_999_999_999_999, "1.8 TiB"),
            (u64::MAX, "16383 PiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn ages_read_well() {
        for (seconds, text) in [
            (i64::MIN, "in the future"),
            (-1, "in the future"),
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7200, "2 h"),
            (172_800, "2 d"),
            (i64::MAX, "106751991167300 d"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn columns_stand_below_their_headings() {
        let widths = [6, 3];
        assert_eq!(line(&["größe".to_owned(), "x".to_owned()], &widths), "größe   x\n");
    }
}
