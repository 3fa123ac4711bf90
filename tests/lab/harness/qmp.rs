//! QEMU's control socket (QMP): one command, one answer.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use super::vm::connect;
use super::{Doing, Outcome};

/// A connection that has been greeted.
pub(crate) struct Qmp(Mutex<BufReader<UnixStream>>);

impl Qmp {
    pub(super) fn connect(path: &Path) -> Outcome<Qmp> {
        let stream = connect(path)?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).doing("qmp")?;
        let qmp = Qmp(Mutex::new(BufReader::new(stream)));
        qmp.answer().doing("qmp's greeting")?;
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs one command, and gives what it returns.
    pub(crate) fn execute(&self, command: &str, arguments: &Value) -> Outcome<Value> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string();
        self.0.lock().expect("no panic").get_mut().write_all(line.as_bytes()).doing(command)?;
        loop {
            let answer = self.answer().doing(command)?;
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                return Err(format!("{command}: {error}"));
            }
        }
    }

    fn answer(&self) -> Outcome<Value> {
        let mut line = String::new();
        let read = self.0.lock().expect("no panic").read_line(&mut line).doing("reading")?;
        if read == 0 {
            return Err("qemu has closed it".to_owned());
        }
        serde_json::from_str(&line).doing(&line)
    }
}
