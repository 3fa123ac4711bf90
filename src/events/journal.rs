//! The system's journal: its native protocol, one datagram an event.
//!
//! Protects: never waits. A journal that is stopped, or behind, takes no more, and the event is counted as lost; one that is not there is
//! none. That is why this is not `libsystemd::logging`, which waits for the journal and whose socket cannot be moved. Does not protect:
//! what the journal does with it is the journal's.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::EventRecord;

/// Where systemd-journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";
/// The variable that moves it.
pub const SOCKET_VARIABLE: &str = "MMP_JOURNAL_SOCKET";

/// Sends `record` there.
///
/// # Errors
/// `WouldBlock` when the journal is behind, or what the system says. No journal is no error.
pub fn send(record: &EventRecord) -> io::Result<()> {
    let moved = std::env::var_os(SOCKET_VARIABLE).filter(|value| !value.is_empty());
    send_to(Path::new(&moved.unwrap_or_else(|| SOCKET.into())), record)
}

fn send_to(socket: &Path, record: &EventRecord) -> io::Result<()> {
    let datagram = UnixDatagram::unbound()?;
    datagram.set_nonblocking(true)?;
    match datagram.send_to(&encode(record), socket) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Ok(())
        }
        sent => sent.map(drop),
    }
}

/// Its fields, as <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/> has them.
fn encode(record: &EventRecord) -> Vec<u8> {
    let place = record.dir.as_ref().map(|dir| format!(" on {dir}")).unwrap_or_default();
    let mut fields = vec![
        ("MESSAGE", format!("{}{place}: {}: {}", record.device, record.kind.name(), record.text)),
        ("MESSAGE_ID", record.message_id.clone()),
        ("PRIORITY", record.severity.priority().to_string()),
        ("SYSLOG_IDENTIFIER", "mmp".to_owned()),
    ];
    fields.extend(variables(record));
    let mut bytes = Vec::with_capacity(1024);
    for (name, value) in fields {
        bytes.extend(name.as_bytes());
        if value.contains('\n') {
            bytes.push(b'\n');
            bytes.extend((value.len() as u64).to_le_bytes());
        } else {
            bytes.push(b'=');
        }
        bytes.extend(value.as_bytes());
        bytes.push(b'\n');
    }
    bytes
}

/// An event as variables: the journal's fields and a hook's environment alike. What there is none of is not there.
pub(super) fn variables(record: &EventRecord) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("MMP_EVENT", record.kind.name().to_owned()),
        ("MMP_DEVICE", record.device.clone()),
        ("MMP_NODE", record.node.clone()),
        ("MMP_BLOCK_DEVICE", record.block_device.clone()),
        ("MMP_TEXT", record.text.clone()),
        ("MMP_AT", record.at.clone()),
    ];
    let severity = format!("{:?}", record.severity).to_lowercase();
    let stage = record.stage.map(|stage| format!("{stage:?}").to_lowercase());
    let generation = record.generation.map(|generation| generation.to_string());
    let more = [
        ("MMP_SEVERITY", Some(severity)),
        ("MMP_DIR", record.dir.clone()),
        ("MMP_STAGE", stage),
        ("MMP_GENERATION", generation),
        ("MMP_OTHER", record.other.clone()),
        ("MMP_OTHER_DEVICE", record.other_device.clone()),
    ];
    all.extend(more.into_iter().filter_map(|(name, value)| Some((name, value?))));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{EventKind, Severity, Subject, Told};

    fn record() -> EventRecord {
        let subject = Subject {
            node: "alpha".into(),
            block_device: "sdx".into(),
            generation: Some(7),
            ..Subject::new(Path::new("/dev/sdx"), Some(Path::new("/srv")))
        };
        let told = Told::new(EventKind::Fenced, Severity::Critical, "cut off");
        EventRecord::now(&subject, &Told { other: Some("beta".into()), ..told })
    }

    #[test]
    fn a_journal_gets_every_field_in_one_datagram() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("journal");
        let journal = UnixDatagram::bind(&socket).unwrap();
        let record = record();
        send_to(&socket, &record).unwrap();
        let mut bytes = [0; 1 << 16];
        let length = journal.recv(&mut bytes).unwrap();
        let text = std::str::from_utf8(&bytes[..length]).unwrap();
        let lines: Vec<_> = text.lines().collect();
        for line in [
            "MESSAGE=/dev/sdx on /srv: fenced: cut off",
            "MESSAGE_ID=b02f1621f3814d02bb1f167f0dceb8c6",
            "PRIORITY=2",
            "SYSLOG_IDENTIFIER=mmp",
            "MMP_EVENT=fenced",
            "MMP_DEVICE=/dev/sdx",
            "MMP_DIR=/srv",
            "MMP_NODE=alpha",
            "MMP_BLOCK_DEVICE=sdx",
            "MMP_GENERATION=7",
            "MMP_OTHER=beta",
            "MMP_SEVERITY=critical",
        ] {
            assert!(lines.contains(&line), "no {line} in {text}");
        }
        assert!(!text.contains("MMP_STAGE") && !text.contains("MMP_OTHER_DEVICE"), "{text}");
    }

    #[test]
    fn a_value_of_several_lines_has_its_length_before_it() {
        let encoded = encode(&EventRecord { node: "a\nb=c".into(), ..record() });
        let wanted = b"\nMMP_NODE\n\x05\0\0\0\0\0\0\0a\nb=c\n";
        assert!(encoded.windows(wanted.len()).any(|window| window == wanted));
    }

    #[test]
    fn a_journal_that_is_stopped_is_never_waited_for_and_none_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("journal");
        send_to(&socket, &record()).unwrap();
        let journal = UnixDatagram::bind(&socket).unwrap();
        let full = (0..10_000).find_map(|_| send_to(&socket, &record()).err());
        assert_eq!(full.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        drop(journal);
        send_to(&socket, &record()).unwrap();
    }
}
