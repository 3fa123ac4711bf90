//! What runs inside a machine of the lab: this very program, under another first argument. It does what the harness
//! asks over a virtio port, a line of JSON each way, and brings the writer and the checker of stamped files along.

mod serve;
pub(crate) mod stamps;
pub(crate) mod trigger;

use std::process::ExitCode;

pub(crate) use stamps::Found;

/// The first argument that makes the test program an agent.
pub(crate) const NAME: &str = "lab-agent";
/// The word on the kernel's command line that says that this is a machine of the lab. Nothing here runs without it.
pub(crate) const MARK: &str = "lab.host=";

/// `lab-agent [trigger N COMMAND... | write DIRECTORY HOST SESSION PAUSE_MS | verify DIRECTORY]`; alone: serves the port.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let here = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if !here.split_whitespace().any(|word| word.starts_with(MARK)) {
        eprintln!("{NAME}: this is no machine of the lab");
        return ExitCode::from(2);
    }
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [] => serve::serve(),
        ["trigger", count, command @ ..] if !command.is_empty() => trigger::wait_and_run(count, command),
        ["write", directory, host, session, pause_ms] => stamps::write(directory, host, session, pause_ms),
        ["verify", directory] => stamps::verify(directory),
        other => Err(format!("what is {other:?}?")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{NAME}: {error}");
            ExitCode::FAILURE
        }
    }
}
