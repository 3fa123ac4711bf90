//! The example of the configuration, its man page, and the variables of the environment: all that the code knows is told, and
//! nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use mmpguard::config::Config;

use crate::{path, read};

const EXAMPLE: &str = "packaging/mmp.toml";
const PAGE: &str = "docs/man/mmp.toml.5.md";
const CONCEPTS: &str = "docs/man/mmp.7.md";

/// The example with every key and table in force: in it a comment has a blank behind its mark, and a key has none.
fn uncommented() -> String {
    let lines = read(EXAMPLE);
    let lines = lines.lines().filter(|line| !line.starts_with("# ")).map(|line| line.trim_start_matches('#'));
    lines.collect::<Vec<_>>().join("\n")
}

fn parsed(text: &str) -> Result<Config, String> {
    let directory = tempfile::tempdir().expect("makes a directory");
    let file = directory.path().join("mmp.toml");
    fs::write(&file, text).expect("writes");
    Config::read(&file).map_err(|error| error.to_string())
}

/// What the code takes at this place, by what it says of something it does not.
fn known(table: Option<&str>) -> BTreeSet<String> {
    let head = table.map(|name| format!("[{name}]\n")).unwrap_or_default();
    let error = parsed(&format!("{head}no_such_key = 1\n")).expect_err("refuses what it does not know");
    let listed = error.split("expected").nth(1).unwrap_or_else(|| panic!("lists nothing: {error}"));
    listed.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Tables and keys of a text as `table` and `table.key`.
fn told(text: &str) -> BTreeSet<String> {
    let mut table = String::new();
    let mut found = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut table);
            found.insert(table.clone());
        } else if let Some((key, _)) = line.split_once(" = ") {
            found.insert(format!("{table}.{key}"));
        }
    }
    found
}

#[test]
fn the_example_has_every_key_and_is_understood() {
    let text = uncommented();
    parsed(&text).unwrap_or_else(|error| panic!("{EXAMPLE}: {error}"));
    assert_eq!(parsed(&read(EXAMPLE)), Ok(Config::default()), "{EXAMPLE}: as it is, it sets something");
    let mut known_to_code = BTreeSet::new();
    for table in known(None) {
        known_to_code.extend(known(Some(&table)).into_iter().map(|key| format!("{table}.{key}")));
        known_to_code.insert(table);
    }
    assert_eq!(told(&text), known_to_code, "{EXAMPLE} (left) and the code (right)");
    let page = read(PAGE);
    for key in &known_to_code {
        let wanted = match key.split_once('.') {
            Some((_, key)) => format!("`{key} = "),
            None => format!("## Table [{key}]"),
        };
        assert!(page.contains(&wanted), "{PAGE} has no {wanted}");
    }
}

#[test]
fn what_the_example_does_not_have_is_refused() {
    for table in known(None) {
        assert!(parsed(&format!("{}\n[{table}s]\n", uncommented())).is_err());
        let text = uncommented().replace(&format!("[{table}]"), &format!("[{table}]\nno_such_key = 1"));
        assert!(parsed(&text).is_err(), "{table}");
    }
}

/// Names that begin with `MMP_`, right behind a quotation mark: a variable, wherever it stands in the program.
fn variables_in_code() -> BTreeSet<String> {
    let mut open: Vec<PathBuf> = vec![path("src")];
    let mut found = BTreeSet::new();
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).expect("lists") {
            let file = entry.expect("lists").path();
            if file.is_dir() {
                open.push(file);
            } else if file.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&file).expect("reads");
                found.extend(text.split("\"MMP_").skip(1).map(|rest| format!("MMP_{}", name(rest))));
            }
        }
    }
    found
}

fn name(rest: &str) -> &str {
    let end = rest.find(|letter: char| !letter.is_ascii_uppercase() && letter != '_').unwrap_or(rest.len());
    rest[..end].trim_end_matches('_')
}

/// One table each for what is read and what is given to commands, in `mmp(7)`.
#[test]
fn every_variable_is_in_the_manual() {
    let page = read(CONCEPTS);
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `MMP_"));
    let documented: BTreeSet<_> = rows.map(|rest| format!("MMP_{}", name(rest))).collect();
    assert_eq!(documented, variables_in_code(), "{CONCEPTS} (left) and the code (right)");
}
