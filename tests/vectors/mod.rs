//! The test vectors of `mmp-format.md`, read out of the document.

#![allow(dead_code)] // each test program uses a part of it

use std::collections::BTreeMap;

use mmpguard::format::ChecksumSeed;

/// The value of `key`.
pub(crate) fn parse<T: std::str::FromStr>(printed: &BTreeMap<String, String>, key: &str) -> T {
    let text = printed.get(key).unwrap_or_else(|| panic!("{key} is not printed"));
    text.parse().unwrap_or_else(|_| panic!("{key}: {text}"))
}

/// A UUID, with or without its hyphens.
pub(crate) fn uuid(text: &str) -> [u8; 16] {
    u128::from_str_radix(&text.replace('-', ""), 16).unwrap().to_be_bytes()
}

/// One fenced block of `mmp-format.md`: its kind and image, its "key value" lines, its bytes.
pub(crate) struct Vector {
    pub(crate) title: String,
    pub(crate) values: BTreeMap<String, String>,
    pub(crate) bytes: Vec<u8>,
}

impl Vector {
    /// Reads what stands between "```vector TITLE" and "```".
    fn parse(title: &str, body: &str, len: Option<usize>) -> Self {
        let mut vector =
            Vector { title: title.into(), values: BTreeMap::new(), bytes: vec![0; len.unwrap_or(0)] };
        for line in body.lines() {
            let (key, value) = line.split_once(' ').unwrap_or_else(|| panic!("{title}: {line}"));
            if key.len() != 3 {
                vector.values.insert(key.into(), value.into());
                continue;
            }
            let row: Vec<u8> =
                value.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
            let at = usize::from_str_radix(key, 16).unwrap();
            if len.is_none() {
                vector.bytes.resize(at + row.len(), 0);
            }
            vector.bytes[at..at + row.len()].copy_from_slice(&row);
        }
        vector
    }

    pub(crate) fn image(&self) -> &str {
        self.title.split(' ').nth(1).unwrap()
    }

    pub(crate) fn hex(&self, key: &str) -> u32 {
        u32::from_str_radix(&self.values[key], 16).unwrap()
    }

    pub(crate) fn seed(&self) -> Option<ChecksumSeed> {
        (self.values["seed"] != "none").then(|| ChecksumSeed(self.hex("seed")))
    }
}

/// All vectors of one kind.
pub(crate) fn vectors(kind: &str, len: Option<usize>) -> Vec<Vector> {
    let document = include_str!("../../mmp-format.md");
    let fenced = document.split("```vector ").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    fenced
        .map(|fenced| fenced.split_once('\n').unwrap())
        .filter(|(title, _)| title.split(' ').next() == Some(kind))
        .map(|(title, body)| Vector::parse(title, body, len))
        .collect()
}
