//! What to do where an area has no room, in words and commands.
//!
//! Protects nothing: it only advises.

use crate::format::area::AreaLayout;
use crate::io::Device;

/// What a LUN is best grown by.
const MIB: u64 = 1 << 20;

/// Nothing is left behind what stands there.
pub(super) fn none(device: &Device, content: &str, end_bytes: u64, layout: &AreaLayout) -> String {
    let what = if content.is_empty() { "what stands there".to_owned() } else { format!("its {content}") };
    format!(
        "there is no room for an area: {what} ends at byte {end_bytes} of {}, and the area would begin at byte {}{}",
        device.size_bytes(),
        layout.header_offset_bytes(),
        ways(device, content, layout.slots())
    )
}

/// The ways out, a line each.
pub(super) fn ways(device: &Device, content: &str, slots: u32) -> String {
    let needs = AreaLayout::new(0, slots).map_or(MIB, |layout| layout.total_bytes());
    let shown = device.path().display();
    let grown = needs.next_multiple_of(MIB);
    // Whole MiB fit every filesystem's blocks.
    let size = device.size_bytes().saturating_sub(needs) / MIB * MIB;
    let mut ways = vec![format!("grow the LUN by {} MiB, and try again", grown / MIB)];
    if let Some(command) = smaller(content, &shown.to_string(), size) {
        ways.push(command);
    }
    ways.push("put the filesystem into a partition or logical volume that is smaller than the LUN, and the area behind it".into());
    ways.push(format!(
        "guard it by a slot of a control LUN: `mmp area create --blank CONTROL`, then `mmp enable {shown} --area CONTROL`"
    ));
    format!("; the ways out:\n  - {}", ways.join("\n  - "))
}

/// The end of this kind of content cannot be told.
pub(super) fn needs_end(kind: &str) -> String {
    format!(
        "it holds {kind}, and where that ends is not known here; say it with --end BYTES: the area is made behind that, and must \
         never be reached by it"
    )
}

/// Nothing is found on it.
pub(super) fn needs_blank() -> String {
    "nothing that is known stands on it, which does not prove that nothing does: with --blank all of it becomes an area; with --end \
     BYTES the area is made behind what it holds"
        .to_owned()
}

fn smaller(content: &str, device: &str, size_bytes: u64) -> Option<String> {
    let mib = size_bytes / MIB;
    match content {
        "xfs" => Some(format!(
            "make the filesystem anew, smaller (XFS cannot be shrunk): `mkfs.xfs -d size={mib}m {device}`"
        )),
        "btrfs" => Some(format!(
            "shrink the filesystem while it is mounted: `btrfs filesystem resize {mib}M DIR`; or make it anew: `mkfs.btrfs -b {mib}M {device}`"
        )),
        "ext2" | "ext3" | "ext4" => Some(format!(
            "shrink the filesystem while it is not mounted: `e2fsck -f {device}`, then `resize2fs {device} {mib}M`"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_a_line_and_commands_name_the_device() {
        let file = tempfile::NamedTempFile::new().expect("makes a file");
        file.as_file().set_len(64 * MIB).expect("grows");
        let device = Device::inspect(file.path()).expect("is a file");
        let layout = AreaLayout::tail(64 * MIB, 2).expect("fits");
        let text = none(&device, "xfs", 64 * MIB, &layout);
        let shown = file.path().display().to_string();
        assert!(text.contains(&format!("`mkfs.xfs -d size=63m {shown}`")), "{text}");
        assert!(text.contains("grow the LUN by 1 MiB") && text.contains("--area CONTROL"), "{text}");
        assert_eq!(text.lines().count(), 5, "{text}");
        assert_eq!(none(&device, "swap", 64 * MIB, &layout).lines().count(), 4);
        assert!(ways(&device, "ext3", 65_537).contains("grow the LUN by 513 MiB"));
    }
}
