//! The agent's loop: one line is one request, every request has a thread of its own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use mmpguard::clock;

use crate::harness::wire::{Reply, Request, SHELL_PORT};

/// How much of a command's output goes back.
const OUTPUT_BYTES: u64 = 256 * 1024;

/// Serves the port for ever.
pub(super) fn serve() -> Result<(), String> {
    let path = port()?;
    let file =
        File::options().read(true).write(true).open(&path).map_err(|error| format!("{path:?}: {error}"))?;
    let out = Arc::new(Mutex::new(file.try_clone().map_err(|error| error.to_string())?));
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    // A line of the boot before may have been cut off in its middle.
    let _ = out.lock().expect("not poisoned").write_all(b"\n");
    send(&out, &Reply::hello(boot_id.trim()));
    let mut lines = BufReader::new(file);
    let mut line = String::new();
    loop {
        line.clear();
        match lines.read_line(&mut line) {
            // Nobody is connected to the port's other end just now.
            Ok(0) => clock::sleep(Duration::from_millis(50)),
            Ok(_) => match serde_json::from_str::<Request>(&line) {
                Ok(request) if request.boot_id != boot_id.trim() => {
                    eprintln!("a request for an earlier boot")
                }
                Ok(request) => {
                    let out = Arc::clone(&out);
                    std::thread::spawn(move || send(&out, &run(&request, &out)));
                }
                Err(error) => eprintln!("a request that is none: {error}: {line}"),
            },
            Err(error) => return Err(format!("{path:?}: {error}")),
        }
    }
}

/// The port that the harness calls by our name.
fn port() -> Result<PathBuf, String> {
    let ports = fs::read_dir("/sys/class/virtio-ports")
        .map_err(|error| format!("/sys/class/virtio-ports: {error}"))?;
    for entry in ports.flatten() {
        if fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim() == SHELL_PORT) {
            return Ok(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    Err(format!("no virtio port is called {SHELL_PORT}"))
}

/// Runs the script of a request to its end. Its output goes through files: what it leaves running may keep them.
fn run(request: &Request, out: &Mutex<File>) -> Reply {
    let begun = clock::mono();
    let folder = PathBuf::from("/tmp");
    let (output, errors) = (
        folder.join(format!("command-{}.out", request.id)),
        folder.join(format!("command-{}.err", request.id)),
    );
    let mut command = Command::new("/bin/sh");
    if let Some(count) = request.trigger {
        command = Command::new("/proc/self/exe");
        command.args([super::NAME, "trigger", &count.to_string(), "/bin/sh"]);
    }
    command.args(["-c", &request.script]).stdin(Stdio::null()).process_group(0);
    let started = File::create(&errors).and_then(|file| {
        command.stderr(file);
        command.stdout(if request.stream { Stdio::piped() } else { File::create(&output)?.into() });
        command.spawn()
    });
    let ended = started.and_then(|mut child| {
        send(out, &Reply::started(request.id, child.id()));
        if let Some(lines) = child.stdout.take() {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                send(out, &Reply::line(request.id, line));
            }
        }
        child.wait()
    });
    let mut reply =
        Reply { seconds: clock::mono().since(begun).as_secs_f64(), ..Reply::ended(request.id, code(&ended)) };
    reply.stdout = text(&output);
    reply.stderr = ended.err().map_or_else(|| text(&errors), |error| error.to_string());
    let _ = fs::remove_file(output);
    let _ = fs::remove_file(errors);
    reply
}

fn code(ended: &std::io::Result<ExitStatus>) -> i32 {
    let Ok(status) = ended else { return 127 };
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

fn text(path: &PathBuf) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(OUTPUT_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn send(out: &Mutex<File>, reply: &Reply) {
    let mut line = serde_json::to_string(reply).expect("is plain");
    line.push('\n');
    let mut file: MutexGuard<'_, File> = out.lock().expect("not poisoned");
    let _ = file.write_all(line.as_bytes());
}
