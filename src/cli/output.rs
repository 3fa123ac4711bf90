//! Writing results. A reader who closed the pipe early is no error; a full disk is.

use std::io::Write as _;
use std::process::ExitCode;

use serde::Serialize;

use super::exit;
use super::render::{self, SCHEMA};
use crate::error::Error;

/// A failed verb as JSON.
#[derive(Debug, Serialize)]
struct Failure {
    schema: u32,
    error: String,
    exit_code: u8,
}

/// Writes `report` as one JSON document.
pub(super) fn json<T: Serialize>(report: &T) -> ExitCode {
    let mut text = serde_json::to_string_pretty(report).expect("reports are plain data");
    text.push('\n');
    self::text(&text)
}

/// Writes `text` to standard output.
pub(super) fn text(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::from(exit::DONE),
        Err(error) => {
            complain(&format!("cannot write the result: {error}"));
            ExitCode::from(exit::IO)
        }
    }
}

/// Tells an error, as text or JSON, and gives its exit code.
pub(super) fn failure(error: &Error, as_json: bool) -> ExitCode {
    if as_json {
        let report = Failure { schema: SCHEMA, error: render::error(error), exit_code: exit::number(error) };
        json(&report);
    } else {
        complain(&render::error(error));
    }
    exit::code(error)
}

/// Says `line` on standard error. A closed one, or a terminal that is gone, must not end a holder.
pub(super) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "mmp: {line}");
}
