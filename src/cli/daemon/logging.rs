//! What the daemon says, on standard error: the journal, where systemd started it.
//!
//! Protects: nobody waits for whoever reads it. What cannot be written goes into a bounded buffer, and when that is full it is
//! lost, and counted. A log that is blocked must not delay a beat, a fence or a release. Does not keep what is lost.

use std::sync::OnceLock;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// So many lines wait for a reader.
const LINES_AT_MOST: usize = 4096;
/// What is said unless `MMP_LOG` asks for something else.
const USUALLY: &str = "info";

/// What writes, as long as the process lives, and what it had to leave out.
static WRITER: OnceLock<(WorkerGuard, ErrorCounter)> = OnceLock::new();

/// Begins to log.
pub(in crate::cli) fn begin() {
    let filter = EnvFilter::try_from_env("MMP_LOG").unwrap_or_else(|_| EnvFilter::new(USUALLY));
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_AT_MOST);
    let (writer, guard) = builder.thread_name("mmp-log").finish(std::io::stderr());
    let counter = writer.error_counter();
    if WRITER.set((guard, counter)).is_ok() {
        // The journal has the time, and no colours.
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(writer)
            .with_ansi(false)
            .without_time()
            .init();
    }
}

/// So many lines were lost.
pub(super) fn lost() -> usize {
    WRITER.get().map_or(0, |(_, counter)| counter.dropped_lines())
}
