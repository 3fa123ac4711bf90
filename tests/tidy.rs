//! What holds for the whole tree: sizes, leftovers, and documents that must say what the code says.

use std::fs;
use std::path::{Path, PathBuf};

use mmpguard::protocol::timing;

const MAX_LINES: usize = 400;
const BEGIN: &str = "<!-- timing:begin -->\n";
const END: &str = "<!-- timing:end -->";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every Rust file below `directory`.
fn sources(directory: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("lists") {
            let path = entry.expect("lists").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no source in {directory}");
    found
}

#[test]
fn no_source_file_is_long() {
    let long: Vec<_> = sources("src")
        .into_iter()
        .map(|path| (fs::read_to_string(&path).expect("reads").lines().count(), path))
        .filter(|(lines, _)| *lines >= MAX_LINES)
        .collect();
    assert!(long.is_empty(), "longer than {MAX_LINES} lines: {long:?}");
}

#[test]
fn nothing_is_left_undone() {
    // Put together here, so that this file does not find itself.
    let marks =
        ["TO".to_owned() + "DO", "FIX".to_owned() + "ME", "XX".to_owned() + "X", "HA".to_owned() + "CK"];
    for path in ["src", "tests", "benches"].into_iter().flat_map(sources) {
        let text = fs::read_to_string(&path).expect("reads");
        for (at, line) in text.lines().enumerate() {
            let found = marks.iter().find(|mark| line.contains(mark.as_str()));
            assert_eq!(found, None, "{}:{}: {line}", path.display(), at + 1);
        }
    }
}

#[test]
fn unsafe_code_stands_where_it_may() {
    let word = "uns".to_owned() + "afe ";
    for path in sources("src") {
        let inside = path.strip_prefix(root().join("src")).expect("is below");
        if inside.starts_with("io") || inside.starts_with("sys") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("reads");
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let found: Vec<_> = code.filter(|line| line.contains(&word)).collect();
        assert!(found.is_empty(), "{}: {found:?}", inside.display());
    }
}

/// `pub(super) const NAME: u8 = N;` of `src/cli/exit.rs`: the README tells every N, and so does its table in the code.
#[test]
fn every_exit_code_is_in_the_readme() {
    let code = read("src/cli/exit.rs");
    let readme = read("README.md");
    let mut count = 0;
    for line in code.lines().filter(|line| line.contains("const ") && line.contains(": u8 = ")) {
        let name = line.split("const ").nth(1).and_then(|rest| rest.split(':').next()).expect("has a name");
        let number = line.split(" = ").nth(1).and_then(|rest| rest.strip_suffix(';')).expect("has a value");
        let row = format!("| {number} |");
        assert!(
            readme.lines().any(|line| line.starts_with(&row)),
            "README.md has no row \"{row} ...\" ({name})"
        );
        assert!(code.contains(&format!("    ({name}, \"")), "{name} is missing in the tables of exit.rs");
        count += 1;
    }
    assert!(count >= 18, "only {count} exit codes were found");
}

/// The table of the specification is the code's. `MMPGUARD_BLESS=1` writes it.
#[test]
fn the_timing_table_is_the_codes() {
    let name = "mmp-format.md";
    let text = read(name);
    let (head, rest) = text.split_once(BEGIN).unwrap_or_else(|| panic!("{name} has no {BEGIN}"));
    let (table, tail) = rest.split_once(END).unwrap_or_else(|| panic!("{name} has no {END}"));
    if std::env::var_os("MMPGUARD_BLESS").is_some_and(|value| value == "1") {
        let blessed = format!("{head}{BEGIN}{}{END}{tail}", timing::table());
        fs::write(root().join(name), blessed).expect("writes");
        return;
    }
    assert!(table == timing::table(), "{name} says\n{table}the code says\n{}", timing::table());
}

/// What the README's first screen names exists.
#[test]
fn the_documents_name_files_that_exist() {
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        let text = read(name);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            assert!(root().join(file).exists(), "{name} links to {file}, which does not exist");
        }
    }
}
