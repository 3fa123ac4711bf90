//! What can be asked for, and who may: the methods of `org.mmpguard`.
//!
//! Protects: the monitoring socket changes nothing. Nothing here waits for a device: what may, gets a thread of its own, so a request about a
//! device that hangs holds up nobody else's.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::request::{AdoptRequest, MountRequest};
use super::serve::{Peer, Side};
use super::standby::{self, Standbys};
use super::varlink::{self, Call, Reply};
use crate::cli::guard::{self, Asker};
use crate::cli::progress::Told;
use crate::cli::{exit, mount, render, status};
use crate::clock;
use crate::error::Error;
use crate::keeper::mounts::Task;
use crate::registry::Registry;

/// Every method of the interface.
#[cfg(test)]
pub(super) const NAMES: [&str; 6] = ["Mount", "Adopt", "List", "StandBy", "EndStandBy", "ListStandbys"];
/// How long a request waits for another one about the same device.
const PATIENCE: Duration = Duration::from_secs(5);
/// The stack of a thread that mounts.
const STACK_BYTES: usize = 1 << 20;

/// What every request may need.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) registry: Registry,
    pub(super) standbys: Standbys,
    pub(super) under_way: UnderWay,
}

/// Replies on their way to the one who asked.
pub(super) type Replies = mpsc::UnboundedSender<Reply>;

/// Sees to a call; the replies come through `replies`, the last one without `continues`. `gone` says that nobody waits for it any more.
pub(super) fn carry_out(
    host: &Arc<Host>,
    peer: &Peer,
    call: &Call,
    replies: &Replies,
    gone: &Arc<AtomicBool>,
) {
    let reply = match varlink::service(call) {
        Some(reply) => reply,
        None => match call.method.strip_prefix("org.mmpguard.") {
            Some(name) => match method(host, peer, call, name, replies, gone) {
                Ok(Some(value)) => Reply::of(value),
                Ok(None) => return, // a thread answers
                Err(reply) => reply,
            },
            None => varlink::no_method(&call.method),
        },
    };
    let _ = replies.send(reply);
}

fn method(
    host: &Arc<Host>,
    peer: &Peer,
    call: &Call,
    name: &str,
    replies: &Replies,
    gone: &Arc<AtomicBool>,
) -> Result<Option<Value>, Reply> {
    match name {
        "List" | "ListStandbys" => {
            let NoParameters {} = varlink::parameters(call)?;
            tell_list(Arc::clone(host), name == "List", replies.clone());
            return Ok(None);
        }
        "Mount" | "Adopt" | "StandBy" | "EndStandBy" => {}
        _ => return Err(varlink::no_method(&call.method)),
    }
    if peer.side != Side::Control || !peer.is_root() {
        return Err(Reply::error("NotAllowed", json!({})));
    }
    let (gone, more) = (Arc::clone(gone), call.more);
    let asker = Remote { peer: peer.clone(), replies: replies.clone(), gone, more, complaints: Vec::new() };
    match name {
        "Mount" => {
            let MountParameters { request } = varlink::parameters(call)?;
            let (host, under_way) = (Arc::clone(host), host.under_way.clone());
            let about = (request.device.clone(), request.patience());
            begin(asker, under_way, about, move |asker| {
                let arguments = request.arguments()?;
                let mut task = mount::task(&arguments, &mut |text| asker.complain(text))?;
                task.standby = host.standbys.credit(&task);
                guard_here(host, task, asker)
            })?;
        }
        "Adopt" => {
            let request: AdoptRequest = varlink::parameters(call)?;
            let about = (request.device.clone(), Duration::ZERO);
            let host = Arc::clone(host);
            begin(asker, host.under_way.clone(), about, move |asker| {
                let task = mount::adoption(&request.arguments()?, &mut |text| asker.complain(text))?;
                guard_here(host, task, asker)
            })?;
        }
        "StandBy" => {
            let request: standby::Request = varlink::parameters(call)?;
            let (host, replies, gone) = (Arc::clone(host), replies.clone(), Arc::clone(&asker.gone));
            spawn(move || {
                let busy = host.under_way.begin(&request.device, Duration::ZERO, &gone);
                let _ = replies.send(match busy.map(|busy| (host.standbys.begin(&request), busy)) {
                    Ok((Ok(standby), _busy)) => Reply::of(json!({ "standby": standby })),
                    Ok((Err(error), _busy)) => failed(exit::number(&error), &render::error(&error)),
                    Err(reply) => reply,
                });
            })?;
        }
        _ => {
            let EndStandBy { device } = varlink::parameters(call)?;
            return match host.standbys.end(&device) {
                true => Ok(Some(json!({}))),
                false => Err(failed(exit::UNSUPPORTED, "it is not watched")),
            };
        }
    }
    Ok(None)
}

/// Records and locks are read beside the thread that serves everybody.
fn tell_list(host: Arc<Host>, guards: bool, replies: Replies) {
    tokio::task::spawn_blocking(move || {
        let reply = match guards {
            false => Reply::of(json!({ "standbys": host.standbys.list() })),
            true => match status::guards(&host.registry) {
                Ok(guards) => Reply::of(json!({ "guards": guards })),
                Err(text) => failed(exit::IO, &text),
            },
        };
        let _ = replies.send(reply);
    });
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoParameters {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MountParameters {
    request: MountRequest,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndStandBy {
    device: String,
}

fn failed(exit_code: u8, text: &str) -> Reply {
    Reply::error("Failed", json!({ "exit_code": exit_code, "text": text }))
}

fn guard_here(host: Arc<Host>, task: Task, asker: &mut Remote) -> Result<u8, Error> {
    let task = Task { resident: true, ..task };
    let code = guard::begin(&task, asker, &guard::run_in_daemon)?;
    // What is guarded here is not watched any more. Finding it reads the device, which nobody who waits for an answer waits for.
    if code == exit::DONE && !host.standbys.is_empty() {
        let _ = spawn(move || host.standbys.end_of(&task));
    }
    Ok(code)
}

/// Starts a thread that answers. What is mounted by the daemon is mounted where the daemon sees it, and under its node name.
fn begin(
    mut asker: Remote,
    under_way: UnderWay,
    (device, patience): (String, Duration),
    body: impl FnOnce(&mut Remote) -> Result<u8, Error> + Send + 'static,
) -> Result<(), Reply> {
    spawn(move || {
        let _busy = match under_way.begin(&device, patience, &asker.gone) {
            Ok(busy) => busy,
            Err(reply) => {
                let _ = asker.replies.send(reply);
                return;
            }
        };
        if let Some(why) = asker.peer.differs() {
            let _ = asker.replies.send(Reply::error("NotForYou", json!({ "why": why })));
            return;
        }
        let ended = match body(&mut asker) {
            // Who hears one reply alone hears all of it.
            Ok(code) if !asker.more && !asker.complaints.is_empty() => {
                json!({ "exit_code": code, "text": asker.complaints.join("\n") })
            }
            Ok(code) => json!({ "exit_code": code }),
            Err(error) => json!({ "exit_code": exit::number(&error), "text": render::error(&error) }),
        };
        let _ = asker.replies.send(Reply::of(json!({ "ended": ended })));
    })
}

fn spawn(body: impl FnOnce() + Send + 'static) -> Result<(), Reply> {
    let builder = std::thread::Builder::new().name("mmp-front".to_owned()).stack_size(STACK_BYTES);
    let failed = |error| failed(exit::IO, &format!("cannot start a thread: {error}"));
    builder.spawn(body).map(drop).map_err(failed)
}

/// The devices that a request is under way about: it may hang in one, and so would those that come after it.
#[derive(Clone, Debug, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashSet<String>>>);

/// One request, as long as this lives.
struct Busy {
    all: UnderWay,
    device: String,
}

impl UnderWay {
    /// Waits for the one before to end, a moment at least: whoever asked may have changed his mind, and what he asked for is taken back.
    fn begin(&self, device: &str, patience: Duration, gone: &AtomicBool) -> Result<Busy, Reply> {
        let until = clock::mono() + patience.max(PATIENCE);
        let mut begun = self.lock().insert(device.to_owned());
        while !begun && clock::mono() < until && !gone.load(SeqCst) {
            clock::sleep(PATIENCE / 100);
            begun = self.lock().insert(device.to_owned());
        }
        if !begun {
            let text = format!("{}: another request about it is under way", render::shown(Path::new(device)));
            return Err(failed(exit::IN_USE, &text));
        }
        Ok(Busy { all: self.clone(), device: device.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.all.lock().remove(&self.device);
    }
}

/// One who asked from another process.
struct Remote {
    peer: Peer,
    replies: Replies,
    gone: Arc<AtomicBool>,
    /// He wants to hear more than the end.
    more: bool,
    complaints: Vec<String>,
}

impl Remote {
    fn tell(&self, parameters: Value) {
        if self.more {
            let _ = self.replies.send(Reply { continues: true, ..Reply::of(parameters) });
        }
    }
}

impl Asker for Remote {
    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None // looked at several times a second
    }

    /// Once: a second time would be a second signal.
    fn wants_out(&mut self) -> bool {
        self.gone.swap(false, SeqCst)
    }

    fn show(&mut self, told: &Told) {
        if let Ok(told) = serde_json::to_value(told) {
            self.tell(told);
        }
    }

    fn line(&mut self, line: &str) {
        self.tell(json!({ "line": line }));
    }

    fn complain(&mut self, text: &str) {
        self.complaints.push(text.to_owned());
        self.tell(json!({ "complaint": text }));
    }
}
