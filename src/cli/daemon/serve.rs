//! The sockets of the daemon: connections, and who is at their other end.
//!
//! Protects: a connection that says nothing, too much, or nonsense costs a descriptor and ends nothing; so many are served at once and no more.
//! Who asks is told by the kernel (`SO_PEERCRED`), not by what he says. Nothing here touches a device.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::methods::{self, Host};
use super::varlink::{self, MESSAGE_BYTES, Reply};
use crate::cli::exit;
use crate::cli::interrupt::NO_ANSWER;

/// How long a client may take to read a reply.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// How long one who has nothing more to say is answered: a claim is watched for a wait before it is taken back, and the longest wait is that of a
/// check interval of 300 s.
const GONE_PATIENCE: Duration = Duration::from_secs(420);
/// How long accepting pauses when there is no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Which socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Control,
    Monitor,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) side: Side,
    pub(super) uid: u32,
    pub(super) pid: Option<i32>,
}

impl Side {
    /// So many connections are served at once. A mount keeps its own for two waits, and at boot all are asked for at the same time: each
    /// of what root may have mounted, up to ten thousand.
    fn connections_at_most(self) -> usize {
        match self {
            Side::Control => 16_384,
            Side::Monitor => 256,
        }
    }
}

impl Peer {
    fn of(side: Side, stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Peer { side, uid: credentials.uid(), pid: credentials.pid() })
    }

    /// Root, or whoever runs the daemon.
    pub(super) fn is_root(&self) -> bool {
        self.uid == 0 || self.uid == nix::unistd::geteuid().as_raw()
    }

    /// Why what is mounted here would not be what he means.
    pub(super) fn differs(&self) -> Option<String> {
        let Some(pid) = self.pid.filter(|&pid| pid > 0) else {
            return Some("it runs in another pid namespace".to_owned());
        };
        for (name, what) in
            [("ns/mnt", "mount namespace"), ("ns/uts", "UTS namespace"), ("root", "root directory")]
        {
            let inode = |of: &str| {
                let metadata = std::fs::metadata(format!("/proc/{of}/{name}")).ok()?;
                Some((metadata.dev(), metadata.ino()))
            };
            if inode(&pid.to_string()).is_none_or(|theirs| Some(theirs) != inode("self")) {
                return Some(format!("it has another {what} than the daemon"));
            }
        }
        None
    }
}

/// Listens at `path`, for those whom `mode` and `group` let in; what was there before is replaced.
pub(super) fn listen(path: &Path, mode: u32, group: Option<nix::unistd::Gid>) -> io::Result<OwnedFd> {
    let _ = std::fs::remove_file(path);
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    if let Some(group) = group {
        nix::unistd::chown(path, None, Some(group))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener.into())
}

/// Serves a socket for ever.
pub(super) async fn serve(listener: OwnedFd, side: Side, host: Arc<Host>) -> io::Result<()> {
    let listener = std::os::unix::net::UnixListener::from(listener);
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let connections = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(peer) = Peer::of(side, &stream) else { continue };
        if connections.load(SeqCst) >= side.connections_at_most() {
            tracing::warn!(?side, "too many connections");
            let text = "too many ask at once: try again";
            let busy = Reply::error("Failed", json!({ "exit_code": exit::IO, "text": text }));
            // It is new: there is room, which the runtime would know only after it waited for it.
            let _ = stream.into_std().and_then(|mut stream| stream.write_all(&varlink::message(&busy)));
            continue;
        }
        let one = One::new(&connections);
        let host = Arc::clone(&host);
        tokio::spawn(async move {
            let _one = one;
            if let Err(error) = converse(stream, &peer, &host).await {
                tracing::debug!(%error, ?peer, "connection");
            }
        });
    }
}

/// One connection, counted.
struct One(Arc<AtomicUsize>);

impl One {
    fn new(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, SeqCst);
        One(Arc::clone(connections))
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// One call after the other, until the other side has nothing more to say.
async fn converse(stream: UnixStream, peer: &Peer, host: &Arc<Host>) -> io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let mut buffer = Vec::new();
    let mut over = false;
    loop {
        let message = loop {
            if let Some(message) = varlink::next_message(&mut buffer) {
                break message;
            }
            if over || reader.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            if buffer.len() > MESSAGE_BYTES {
                let reply = Reply::bad_parameter("the message is too long");
                return send(&mut writer, &reply).await;
            }
        };
        let call = match varlink::call(&message) {
            Ok(call) => call,
            Err(reply) => {
                send(&mut writer, &reply).await?;
                continue;
            }
        };
        tracing::debug!(method = %call.method, uid = peer.uid, pid = peer.pid, "asked");
        let (replies, mut told) = mpsc::unbounded_channel();
        let gone = Arc::new(AtomicBool::new(over));
        methods::carry_out(host, peer, &call, &replies, &gone);
        drop(replies);
        let mut patience = tokio::time::Instant::now() + GONE_PATIENCE;
        loop {
            tokio::select! {
                reply = told.recv() => {
                    // A thread that ended without a word has a bug; the one who asked hears of it.
                    let reply = reply.unwrap_or_else(|| {
                        Reply::error("Failed", json!({ "exit_code": exit::IO, "text": "it failed inside the daemon" }))
                    });
                    if !call.oneway && let Err(error) = send(&mut writer, &reply).await {
                        gone.store(true, SeqCst);
                        return Err(error);
                    }
                    if !reply.continues {
                        break;
                    }
                }
                read = reader.read_buf(&mut buffer), if !over && buffer.len() <= MESSAGE_BYTES => {
                    if !matches!(read, Ok(read) if read > 0) {
                        over = true;
                        gone.store(true, SeqCst);
                        patience = tokio::time::Instant::now() + GONE_PATIENCE;
                    }
                }
                // What hangs in a device hangs without him.
                () = tokio::time::sleep_until(patience), if over => {
                    let ended = json!({ "ended": { "exit_code": exit::INTERRUPTED, "text": NO_ANSWER } });
                    return send(&mut writer, &Reply::of(ended)).await;
                }
            }
        }
    }
}

async fn send(writer: &mut tokio::net::unix::OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    let message = varlink::message(reply);
    match tokio::time::timeout(WRITE_PATIENCE, writer.write_all(&message)).await {
        Ok(written) => written,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
