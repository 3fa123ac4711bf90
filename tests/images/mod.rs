//! The golden images of `testimages/`, and what e2fsprogs printed of them.

pub(crate) mod areas;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

/// Where the images are.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testimages")
}

/// The names of all images, sorted.
#[allow(dead_code)] // not every test target asks for it
pub(crate) fn names() -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| {
            Some(entry.unwrap().file_name().to_str().unwrap().strip_suffix(".img.gz")?.to_owned())
        })
        .collect();
    names.sort();
    names
}

/// The bytes of one image.
pub(crate) fn load(name: &str) -> Vec<u8> {
    let packed = std::fs::File::open(folder().join(format!("{name}.img.gz"))).unwrap();
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
    bytes
}

/// What `dumpe2fs -h` and `debugfs -R dump_mmp` printed: the text before the first colon, and the text after it. The
/// two programs use different keys.
#[allow(dead_code)] // not every test target asks for it
pub(crate) fn printed(name: &str) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(folder().join(format!("{name}.dumpe2fs.txt"))).unwrap();
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect()
}
