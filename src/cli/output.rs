//! Writing results. A reader who closed the pipe early is no error; a full disk is.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::exit;
use super::render::{self, SCHEMA};
use crate::error::Error;

/// How a verb came out: these keys stand in every report of `check`, and in every failure.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    schema: u32,
    device: String,
    state: &'static str,
    pub(super) exit_code: u8,
    /// One line.
    pub(super) message: String,
    /// What to do next, where there is something: one line, or one for each way out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

impl Outcome {
    /// Of `device`: `message` names it.
    pub(super) fn new(device: &Path, state: &'static str, exit_code: u8, message: String) -> Self {
        Outcome { schema: SCHEMA, device: render::shown(device), state, exit_code, message, advice: None }
    }

    /// With what to do next.
    pub(super) fn advise(self, advice: String) -> Self {
        Outcome { advice: Some(advice), ..self }
    }

    /// Of an error.
    pub(super) fn of(device: &Path, error: &Error) -> Self {
        let outcome =
            Outcome::new(device, render::state(error), exit::number(error), render::headline(error));
        Outcome { advice: render::advice(error), ..outcome }
    }
}

/// Writes `report` as one JSON document.
pub(super) fn json<T: Serialize>(report: &T) -> ExitCode {
    text(&document(report))
}

/// `report` as a JSON document.
pub(super) fn document<T: Serialize>(report: &T) -> String {
    serde_json::to_string_pretty(report).expect("reports are plain data") + "\n"
}

/// `report` as a line of JSON.
pub(super) fn line_of<T: Serialize>(report: &T) -> String {
    serde_json::to_string(report).expect("reports are plain data") + "\n"
}

/// Writes `text` to standard output.
pub(super) fn text(text: &str) -> ExitCode {
    match try_text(text) {
        Ok(_) => ExitCode::from(exit::DONE),
        Err(code) => code,
    }
}

/// As [`text`]; false if nobody reads any more.
pub(super) fn try_text(text: &str) -> Result<bool, ExitCode> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            complain(&format!("cannot write the result: {error}"));
            Err(ExitCode::from(exit::IO))
        }
    }
}

/// Ends a verb that changes `device`: tells what was done, unless it is to be quiet, or the error.
pub(super) fn changed(device: &Path, quiet: bool, result: Result<String, Error>) -> ExitCode {
    match result {
        Ok(what) => {
            tell(device, quiet, &what);
            ExitCode::from(exit::DONE)
        }
        Err(error) => failure(&error),
    }
}

/// Tells what was done to `device`, unless it is to be quiet.
pub(super) fn tell(device: &Path, quiet: bool, what: &str) {
    if !quiet {
        complain(&format!("{}: {what}", render::shown(device)));
    }
}

/// Tells an error on standard error, and gives its exit code.
pub(super) fn failure(error: &Error) -> ExitCode {
    complain(&render::error(error));
    exit::code(error)
}

/// As [`failure`], as JSON on standard output.
pub(super) fn json_failure(device: &Path, error: &Error) -> ExitCode {
    json(&Outcome::of(device, error));
    exit::code(error)
}

/// Says `line` on standard error. A closed one, or a terminal that is gone, must not end a holder.
pub(super) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "mmp: {line}");
}
