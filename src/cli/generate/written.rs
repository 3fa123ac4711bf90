//! The pages that are written by hand: concepts, files, the format.

use std::fs;
use std::io;
use std::path::Path;

use super::roff::{self, escaped};
use super::{markdown, paragraph, section};
use crate::clock::{self, Wall};

/// When a source was last changed, in seconds since 1970: pages of the same source are the same then, whenever they are made.
pub(super) const SOURCE_DATE: &str = "SOURCE_DATE_EPOCH";

/// A page that no verb has.
struct Written {
    name: &'static str,
    section: &'static str,
    about: &'static str,
    text: &'static str,
}

/// All of them.
const WRITTEN: [Written; 3] = [
    Written {
        name: "mmp",
        section: "7",
        about: "concepts of multiple-mount protection",
        text: include_str!("../../../docs/man/mmp.7.md"),
    },
    Written {
        name: "mmp.toml",
        section: "5",
        about: "what mmp does on this host unless it is told otherwise",
        text: include_str!("../../../docs/man/mmp.toml.5.md"),
    },
    Written {
        name: "mmp-format",
        section: "5",
        about: "the MMP block of ext4 and ldiskfs, and MMP areas, on the disk",
        text: include_str!("../../../mmp-format.md"),
    },
];
/// From here on the specification has what only a test of an implementation reads.
const VECTORS: &str = "\n## Test vectors\n";

/// Writes all of them.
pub(super) fn pages(into: &Path, date: &str) -> io::Result<()> {
    for page in &WRITTEN {
        fs::write(into.join(format!("{}.{}", page.name, page.section)), page.render(date))?;
    }
    Ok(())
}

/// The date that a page bears: of the source, if that is told, or today's.
pub(super) fn date(source: Option<&str>) -> String {
    let told = source.and_then(|seconds| seconds.parse().ok());
    let Wall(seconds) = told.map_or_else(clock::wall, Wall);
    let moment = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    moment.unwrap_or_default().strftime("%Y-%m-%d").to_string()
}

impl Written {
    fn render(&self, date: &str) -> String {
        let text = self.text.split(VECTORS).next().unwrap_or_default();
        let mut page = roff::title(self.name, self.section, date, markdown::has_table(text));
        section(&mut page, "NAME");
        roff::paragraph(&mut page, &format!("{} \\- {}", escaped(self.name), escaped(self.about)));
        markdown::append(&mut page, text);
        if text.len() < self.text.len() {
            section(&mut page, "TEST VECTORS");
            paragraph(&mut page, "They stand in mmp-format.md, from which this page was made.");
        }
        section(&mut page, "SEE ALSO");
        let mut see: Vec<_> = WRITTEN
            .iter()
            .filter(|other| (other.name, other.section) != (self.name, self.section))
            .map(|other| format!("{}({})", other.name, other.section))
            .collect();
        see.extend(["mmp(1)", "mmp-mount(1)", "mmp-run(1)", "mmp-status(1)"].map(str::to_owned));
        see.sort();
        paragraph(&mut page, &see.join(", "));
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_dated_by_its_source() {
        assert_eq!(date(Some("1700000000")), "2023-11-14");
        assert!(date(Some("soon")).len() == "2023-11-14".len() && date(None).as_str() >= "2023");
    }
}
