//! What can be asked for, and who may: the methods of `org.mmpguard`.
//!
//! Protects: the monitoring socket changes nothing. Nothing here waits for a device: what may, gets a thread of its own, so a request about a
//! device that hangs holds up nobody else's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

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
use crate::error::Error;
use crate::keeper::mounts::Task;
use crate::registry::Registry;

/// Every method of the interface.
#[cfg(test)]
pub(super) const NAMES: [&str; 6] = ["Mount", "Adopt", "List", "StandBy", "EndStandBy", "ListStandbys"];
/// The stack of a thread that mounts.
const STACK_BYTES: usize = 1 << 20;

/// What every request may need.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) registry: Registry,
    pub(super) standbys: Standbys,
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
        "List" => {
            let NoParameters {} = varlink::parameters(call)?;
            let guards = status::guards(&host.registry).map_err(|text| failed(exit::IO, &text))?;
            return Ok(Some(json!({ "guards": guards })));
        }
        "ListStandbys" => {
            let NoParameters {} = varlink::parameters(call)?;
            return Ok(Some(json!({ "standbys": host.standbys.list() })));
        }
        "Mount" | "Adopt" | "StandBy" | "EndStandBy" => {}
        _ => return Err(varlink::no_method(&call.method)),
    }
    if peer.side != Side::Control || !peer.is_root() {
        return Err(Reply::error("NotAllowed", json!({})));
    }
    let asker = || Remote { replies: replies.clone(), gone: Arc::clone(gone), more: call.more };
    match name {
        "Mount" => {
            let MountParameters { request } = varlink::parameters(call)?;
            for_whom(peer)?;
            let host = Arc::clone(host);
            begin(asker(), move |asker| {
                let arguments = request.arguments()?;
                let mut task = mount::task(&arguments, &mut |text| asker.complain(text))?;
                task.standby = host.standbys.credit(&task);
                let code = guard_here(task, asker)?;
                if code == exit::DONE {
                    host.standbys.end(&request.device);
                }
                Ok(code)
            })?;
            Ok(None)
        }
        "Adopt" => {
            let request: AdoptRequest = varlink::parameters(call)?;
            for_whom(peer)?;
            begin(asker(), move |asker| {
                let task = mount::adoption(&request.arguments()?, &mut |text| asker.complain(text))?;
                guard_here(task, asker)
            })?;
            Ok(None)
        }
        "StandBy" => {
            let request: standby::Request = varlink::parameters(call)?;
            let (host, replies) = (Arc::clone(host), replies.clone());
            spawn(move || {
                let _ = replies.send(match host.standbys.begin(&request) {
                    Ok(standby) => Reply::of(json!({ "standby": standby })),
                    Err(error) => failed(exit::number(&error), &render::error(&error)),
                });
            })?;
            Ok(None)
        }
        _ => {
            let EndStandBy { device } = varlink::parameters(call)?;
            match host.standbys.end(&device) {
                true => Ok(Some(json!({}))),
                false => Err(failed(exit::UNSUPPORTED, "it is not watched")),
            }
        }
    }
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

/// What is mounted by the daemon is mounted where the daemon sees it, and under its node name.
fn for_whom(peer: &Peer) -> Result<(), Reply> {
    match peer.differs() {
        None => Ok(()),
        Some(why) => Err(Reply::error("NotForYou", json!({ "why": why }))),
    }
}

fn failed(exit_code: u8, text: &str) -> Reply {
    Reply::error("Failed", json!({ "exit_code": exit_code, "text": text }))
}

fn guard_here(task: Task, asker: &mut Remote) -> Result<u8, Error> {
    let task = Task { resident: true, ..task };
    guard::begin(&task, asker, &guard::run_in_daemon)
}

/// Starts a thread that answers.
fn begin(
    mut asker: Remote,
    body: impl FnOnce(&mut Remote) -> Result<u8, Error> + Send + 'static,
) -> Result<(), Reply> {
    spawn(move || {
        let ended = match body(&mut asker) {
            Ok(exit_code) => json!({ "exit_code": exit_code }),
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

/// One who asked from another process.
struct Remote {
    replies: Replies,
    gone: Arc<AtomicBool>,
    /// He wants to hear more than the end.
    more: bool,
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
        self.tell(json!({ "line": text }));
    }
}
