//! Which of header and copy is to be believed, and which has to be written anew.

use byteorder::{ByteOrder, LittleEndian};

use super::error::{AreaBlock, AreaDamage, AreaError, Hex};
use super::header::{ROLE, reseal};
use super::{AreaHeader, CHECKSUM, HeaderRole};
use crate::format::Image;

/// The header to go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its fields; its role says which of the two it is.
    pub header: AreaHeader,
    /// What has to be done about the other one.
    pub repair: Option<Repair>,
}

/// One of the two headers has to be written anew, by [`counterpart`] of the other, while holding slot 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Repair {
    /// Which one.
    pub role: HeaderRole,
    /// Why.
    pub why: RepairReason,
}

/// Why a header has to be written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum RepairReason {
    /// It does not decode.
    Damaged {
        /// What is wrong with it.
        damage: AreaDamage,
    },
    /// It was left behind when the other one was rewritten.
    Older {
        /// Its revision.
        revision: u64,
    },
}

/// Decides between block 0 (`header`) and the last block (`copy`) of an area. Of two that decode the one with the greater
/// revision counts; of one that decodes and one that does not, the one that does.
///
/// # Errors
/// [`AreaError::BothDamaged`] if neither decodes; [`AreaError::Unsupported`] if either of them is of a later version;
/// [`AreaError::Damaged`] if they are of two areas, or differ at the same revision.
pub fn choose(header: &Image, copy: &Image) -> Result<Choice, AreaError> {
    let first = decode(header, HeaderRole::Header)?;
    let last = decode(copy, HeaderRole::Copy)?;
    let damaged =
        |role: HeaderRole, damage: AreaDamage| Some(Repair { role, why: RepairReason::Damaged { damage } });
    match (first, last) {
        (Ok(first), Ok(last)) => newer(first, last, header, copy),
        (Ok(first), Err(damage)) => Ok(Choice { header: first, repair: damaged(HeaderRole::Copy, damage) }),
        (Err(damage), Ok(last)) => Ok(Choice { header: last, repair: damaged(HeaderRole::Header, damage) }),
        (Err(header), Err(copy)) => Err(AreaError::BothDamaged { header, copy }),
    }
}

/// Makes the other header from one that decodes: the same bytes, what this version does not know included, with the
/// given role. The revision stays.
#[must_use]
pub fn counterpart(better: &Image, role: HeaderRole) -> Image {
    let mut bytes = *better;
    LittleEndian::write_u16(&mut bytes[ROLE..], role.value());
    reseal(&mut bytes);
    bytes
}

/// Damage is for the caller to weigh, everything else ends the matter.
fn decode(bytes: &Image, role: HeaderRole) -> Result<Result<AreaHeader, AreaDamage>, AreaError> {
    match AreaHeader::decode(bytes, role) {
        Ok(header) => Ok(Ok(header)),
        Err(AreaError::Damaged { damage }) => Ok(Err(damage)),
        Err(error) => Err(error),
    }
}

fn newer(first: AreaHeader, last: AreaHeader, header: &Image, copy: &Image) -> Result<Choice, AreaError> {
    if first.uuid != last.uuid {
        let (found, want) = (Hex(last.uuid), Hex(first.uuid));
        return Err(
            AreaDamage::Uuid { block: AreaBlock::Copy, field: "uuid", offset: 0x020, found, want }.into()
        );
    }
    let older = |older: AreaHeader| {
        Some(Repair { role: older.role, why: RepairReason::Older { revision: older.revision } })
    };
    match first.revision.cmp(&last.revision) {
        std::cmp::Ordering::Greater => Ok(Choice { header: first, repair: older(last) }),
        std::cmp::Ordering::Less => Ok(Choice { header: last, repair: older(first) }),
        std::cmp::Ordering::Equal => {
            let same = counterpart(copy, HeaderRole::Header);
            match (0..CHECKSUM).find(|&at| header[at] != same[at]) {
                None => Ok(Choice { header: first, repair: None }),
                Some(offset) => {
                    Err(AreaDamage::Differ { offset, header: header[offset], copy: same[offset] }.into())
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::area::AreaPlace;
    use crate::format::{MMP_STRUCT_BYTES, Name};

    fn header(revision: u64, role: HeaderRole) -> AreaHeader {
        AreaHeader {
            incompat: 0,
            ro_compat: 0,
            compat: 0,
            uuid: [7; 16],
            offset_bytes: 0,
            target_bytes: 1 << 20,
            slots: 2,
            interval_ms: 1000,
            created_s: 1_700_000_000,
            revision,
            role,
            place: AreaPlace::Whole,
            label: Name::new("a"),
            content_end_bytes: 0,
            content: Name::new(""),
        }
    }

    /// The image of `header`, with something in it that this version knows nothing of.
    fn image(header: AreaHeader) -> Image {
        let mut bytes = [0; MMP_STRUCT_BYTES];
        bytes[0x200] = 5;
        header.encode_into(&mut bytes);
        bytes
    }

    fn pair(first: u64, last: u64) -> (Image, Image) {
        (image(header(first, HeaderRole::Header)), image(header(last, HeaderRole::Copy)))
    }

    #[test]
    fn two_that_agree_need_nothing() {
        let (first, last) = pair(3, 3);
        assert_eq!(choose(&first, &last), Ok(Choice { header: header(3, HeaderRole::Header), repair: None }));
        assert_eq!(
            (counterpart(&first, HeaderRole::Copy), counterpart(&last, HeaderRole::Header)),
            (last, first)
        );
    }

    #[test]
    fn the_newer_one_counts() {
        let (first, last) = pair(4, 3);
        let choice = choose(&first, &last).unwrap();
        assert_eq!(choice.header, header(4, HeaderRole::Header));
        let why = RepairReason::Older { revision: 3 };
        assert_eq!(choice.repair, Some(Repair { role: HeaderRole::Copy, why }));
        let (first, last) = pair(3, 4);
        let choice = choose(&first, &last).unwrap();
        assert_eq!(choice.header, header(4, HeaderRole::Copy));
        assert_eq!(choice.repair, Some(Repair { role: HeaderRole::Header, why }));
        let repaired = counterpart(&last, HeaderRole::Header);
        assert_eq!(choose(&repaired, &last).unwrap().repair, None);
    }

    #[test]
    fn the_one_that_decodes_counts() {
        let (first, last) = pair(3, 9);
        let mut torn = last;
        torn[0x300] ^= 1;
        let choice = choose(&first, &torn).unwrap();
        assert_eq!(choice.header.revision, 3);
        let repair = choice.repair.unwrap();
        assert_eq!(repair.role, HeaderRole::Copy);
        assert!(matches!(repair.why, RepairReason::Damaged { damage: AreaDamage::Checksum { .. } }));
        let choice = choose(&[0; MMP_STRUCT_BYTES], &last).unwrap();
        assert_eq!((choice.header.revision, choice.repair.unwrap().role), (9, HeaderRole::Header));
        let both = choose(&[0; MMP_STRUCT_BYTES], &torn).unwrap_err();
        assert!(both.is_damage() && !both.is_absent());
        let text = both.to_string();
        assert!(
            text.contains("header: bad magic") && text.contains("copy of the header: bad checksum"),
            "{text}"
        );
        let blank = choose(&[0; MMP_STRUCT_BYTES], &[0; MMP_STRUCT_BYTES]).unwrap_err();
        assert!(blank.is_absent());
    }

    #[test]
    fn contradictions_are_damage() {
        let (first, last) = pair(3, 3);
        let other = image(AreaHeader { uuid: [8; 16], revision: 5, ..header(5, HeaderRole::Copy) });
        let error = choose(&first, &other).unwrap_err();
        assert!(matches!(error, AreaError::Damaged { damage: AreaDamage::Uuid { .. } }), "{error}");
        let mut unknown = last;
        unknown[0x200] = 6;
        reseal(&mut unknown);
        let want = AreaDamage::Differ { offset: 0x200, header: 5, copy: 6 };
        assert_eq!(choose(&first, &unknown), Err(want.into()));
    }

    #[test]
    fn a_later_version_on_either_side_ends_the_matter() {
        let later = |role| image(AreaHeader { incompat: 1, ..header(1, role) });
        let (first, last) = pair(3, 3);
        for (first, last) in [
            (first, later(HeaderRole::Copy)),
            (later(HeaderRole::Header), last),
            ([0; MMP_STRUCT_BYTES], later(HeaderRole::Copy)),
        ] {
            assert!(matches!(choose(&first, &last), Err(AreaError::Unsupported { .. })));
        }
    }
}
