//! The record of a run: what was promised before a scenario began, what was measured, and the table of both.

use std::fmt::Write as _;
use std::fs;
use std::sync::{Arc, Mutex};

use crate::harness::{Outcome, lab};

/// The table's head.
const HEAD: &str = "| scenario | guarded by | promised | measured |\n|---|---|---|---|\n";
const BEGIN: &str = "<!-- lab:begin -->\n";
const END: &str = "<!-- lab:end -->";

/// Shared by all scenarios of a run.
#[derive(Clone)]
pub(crate) struct Book(Arc<Mutex<Vec<Row>>>);

/// Who protects the filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Guarded {
    /// Plain mount(8) on both hosts.
    Kernel,
    /// `mmp` on both hosts.
    Mmp,
    /// `mmp` on one, plain mount(8) on the other.
    Mixed,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    scenario: String,
    guarded: Guarded,
    promise: String,
    measured: String,
}

/// What was promised, waiting for what is measured.
pub(crate) struct Promise<'b> {
    book: &'b Book,
    row: Row,
}

impl Book {
    pub(crate) fn open() -> Book {
        Book(Arc::default())
    }

    /// Says what must come, before it is tried.
    pub(crate) fn promise(&self, scenario: &str, guarded: Guarded, promise: &str) -> Promise<'_> {
        println!("lab: {scenario}, {}: promised: {promise}", guarded.text());
        let (scenario, promise) = (scenario.to_owned(), promise.to_owned());
        Promise { book: self, row: Row { scenario, guarded, promise, measured: String::new() } }
    }

    /// Notes a line. `MMPGUARD_BLESS=1` also writes it into `docs/evidence.md`, over the one of the same scenario.
    fn note(&self, row: Row) {
        let mut rows = self.0.lock().expect("no panic");
        if std::env::var_os("MMPGUARD_BLESS").is_some_and(|value| value == "1") {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/evidence.md");
            let text = fs::read_to_string(path).expect("is there");
            fs::write(path, merged(&text, &[row.line()])).expect("writes");
        }
        rows.push(row);
    }

    /// Prints the table, and leaves it beside what the machines boot from.
    pub(crate) fn close(&self) {
        let mut rows = self.0.lock().expect("no panic").clone();
        if rows.is_empty() {
            return;
        }
        rows.sort();
        let lines: Vec<String> = rows.iter().map(Row::line).collect();
        let table = format!("{}\n{HEAD}{}", kernels(), lines.concat());
        println!("{table}");
        let path = lab::cache().join("evidence.md");
        match fs::write(&path, table) {
            Ok(()) => println!("lab: the table is in {}", path.display()),
            Err(error) => println!("lab: {}: {error}", path.display()),
        }
    }
}

/// The document with these lines in its table, each in place of the one with the same first two cells.
fn merged(document: &str, lines: &[String]) -> String {
    let (before, rest) = document.split_once(BEGIN).expect("docs/evidence.md has a beginning of its table");
    let (old, after) = rest.split_once(END).expect("docs/evidence.md has an end of its table");
    let key = |line: &str| line.split('|').take(3).map(str::trim).collect::<Vec<_>>().join("|");
    let new: Vec<String> = lines.iter().map(|line| key(line)).collect();
    let is_row = |line: &&str| line.starts_with("| ") && !HEAD.starts_with(line);
    let mut all: Vec<String> = lines.to_vec();
    all.extend(
        old.lines().filter(is_row).filter(|line| !new.contains(&key(line))).map(|line| format!("{line}\n")),
    );
    all.sort();
    format!("{before}{BEGIN}{}\n{HEAD}{}{END}{after}", kernels(), all.concat())
}

/// What the machines run.
fn kernels() -> String {
    let mut text = String::new();
    for kernel in [lab::KERNEL, lab::OLDER_KERNEL] {
        let _ = writeln!(text, "Kernel {kernel}: Debian's {}.", lab::kernel_version(kernel));
    }
    text
}

impl Row {
    fn line(&self) -> String {
        let Row { scenario, guarded, promise, measured } = self;
        let measured = measured.replace('|', "/").replace('\n', " ");
        format!("| {scenario} | {} | {promise} | {measured} |\n", guarded.text())
    }
}

impl Guarded {
    fn text(self) -> &'static str {
        match self {
            Guarded::Kernel => "kernel alone",
            Guarded::Mmp => "mmp",
            Guarded::Mixed => "mmp and kernel",
        }
    }
}

impl Promise<'_> {
    /// What was measured, and whether that is what was promised. If it is not, the scenario fails.
    pub(crate) fn judge(self, kept: bool, measured: &str) -> Outcome<()> {
        if kept {
            self.measured(measured);
            return Ok(());
        }
        let broken = format!("{}: promised: {}; measured: {measured}", self.row.scenario, self.row.promise);
        self.measured(&format!("**broken**: {measured}"));
        Err(broken)
    }

    /// What was measured where nothing is promised.
    pub(crate) fn measured(mut self, measured: &str) {
        println!("lab: {}, {}: measured: {measured}", self.row.scenario, self.row.guarded.text());
        self.row.measured = measured.to_owned();
    }
}

impl Drop for Promise<'_> {
    /// What was promised is in the table, also when its scenario ended before anything was measured.
    fn drop(&mut self) {
        let mut row = self.row.clone();
        if row.measured.is_empty() {
            row.measured = "**not measured**: the scenario failed before".to_owned();
        }
        self.book.note(row);
    }
}
