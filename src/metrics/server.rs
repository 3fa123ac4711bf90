//! Serves the figures by HTTP, to this host alone: on a Unix socket, or on a port of the loopback interface.
//!
//! Protects: an address that other hosts could reach is refused. A client gets so much time, so many bytes of a request and one answer;
//! so many at once. That is all of HTTP a scraper needs, and small enough to be read: one request a connection, GET or HEAD of
//! `/metrics`. Does not ask who the client is: the mode of the socket does (0660), and any user of this host reaches a port.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is told that it is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How long a request and its answer may take together.
const PATIENCE: Duration = Duration::from_secs(10);
/// A request is far shorter.
const REQUEST_BYTES: usize = 8192;
/// So many clients are answered at once; others wait.
const AT_ONCE: usize = 8;
/// How long nobody is let in after that has failed: there may be no descriptor left.
const PAUSE: Duration = Duration::from_millis(200);
/// Of a socket: its owner and its group.
const MODE: u32 = 0o660;

/// The table `[metrics]` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `listen`: where the figures are served; nowhere without it.
    pub listen: Option<Listen>,
}

/// Where to listen: an absolute path, or an address of this host's own and a port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Listen {
    /// A Unix socket.
    Unix(PathBuf),
    /// A port of the loopback interface.
    Loopback(SocketAddr),
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Listen::Unix(text.into()));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Listen::Loopback(address)),
            Ok(address) => Err(format!(
                "{address} can be reached from other hosts, and the figures have no password: listen on 127.0.0.1 or [::1], and put what \
                 checks passwords before it"
            )),
            Err(_) => Err(format!(
                "{text:?} is neither the absolute path of a socket nor an address of this host's and a port, such as 127.0.0.1:9998"
            )),
        }
    }
}

/// Where it listens.
#[derive(Debug)]
pub enum Listener {
    /// On a socket.
    Unix(UnixListener),
    /// On a port.
    Tcp(TcpListener),
}

impl Listener {
    /// Begins to listen. A socket that is there is replaced: there is one daemon, and what a dead one left may still take connections
    /// while a thread of it hangs. Within a runtime of tokio's.
    ///
    /// # Errors
    /// When the system refuses, or somebody listens at that port already.
    pub async fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Loopback(address) => Ok(Listener::Tcp(TcpListener::bind(address).await?)),
            Listen::Unix(path) => {
                clear_stale(path)?;
                let listener = UnixListener::bind(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
                Ok(Listener::Unix(listener))
            }
        }
    }
}

fn clear_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path),
        _ => Ok(()), // not ours to take away: bind says what is the matter
    }
}

/// Answers whoever asks, for ever; dropping it ends that. `render` gives the text; it may read files, and is called beside the
/// runtime's own thread.
///
/// # Errors
/// None: it goes on.
pub async fn serve(
    listener: Listener,
    render: impl Fn() -> String + Send + Sync + 'static,
) -> io::Result<()> {
    let (render, room) = (Arc::new(render), Arc::new(Semaphore::new(AT_ONCE)));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
        let render = Arc::clone(&render);
        let accepted = match &listener {
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(talk(stream, render, place));
            }),
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(talk(stream, render, place));
            }),
        };
        if let Err(error) = accepted {
            tracing::debug!(%error, "metrics");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// One client, who may be slow, or not what he says.
async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    render: Arc<impl Fn() -> String + Send + Sync + 'static>,
    place: OwnedSemaphorePermit,
) {
    let _ = tokio::time::timeout(PATIENCE, answer(stream, render, place)).await;
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    render: Arc<impl Fn() -> String + Send + Sync + 'static>,
    mut place: OwnedSemaphorePermit,
) -> io::Result<()> {
    let head = read_head(&mut stream).await?;
    let asked = head.as_deref().map_or(Asked::Nonsense, Asked::of);
    let (status, kind, body) = match asked {
        Asked::Metrics { .. } => {
            // Who has given up has not ended that: his place is free when it is done.
            let work = tokio::task::spawn_blocking(move || (render(), place));
            let (text, back) = work.await.map_err(io::Error::other)?;
            place = back;
            ("200 OK", CONTENT_TYPE, text)
        }
        Asked::Other => ("404 Not Found", "text/plain", "the figures are at /metrics\n".to_owned()),
        Asked::OtherMethod => ("405 Method Not Allowed", "text/plain", "GET it\n".to_owned()),
        Asked::Nonsense => ("400 Bad Request", "text/plain", "not understood\n".to_owned()),
    };
    let allow = if asked == Asked::OtherMethod { "Allow: GET, HEAD\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if asked != (Asked::Metrics { head_only: true }) {
        stream.write_all(body.as_bytes()).await?;
    }
    let ended = stream.shutdown().await;
    drop(place);
    ended
}

/// Up to the empty line; none if there is too much before it, or it never comes.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<String>> {
    let mut bytes = Vec::with_capacity(1024);
    let mut part = [0; 1024];
    while bytes.len() < REQUEST_BYTES {
        let length = stream.read(&mut part).await?;
        bytes.extend_from_slice(&part[..length]);
        if bytes.windows(4).any(|end| end == b"\r\n\r\n") || bytes.windows(2).any(|end| end == b"\n\n") {
            return Ok(String::from_utf8(bytes).ok());
        }
        if length == 0 {
            return Ok(None);
        }
    }
    Ok(None)
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Metrics { head_only: bool },
    Other,
    OtherMethod,
    Nonsense,
}

impl Asked {
    fn of(head: &str) -> Self {
        let line = head.lines().next().unwrap_or_default();
        let words: Vec<_> = line.split(' ').collect();
        let [method, target, version] = words[..] else { return Asked::Nonsense };
        if !version.starts_with("HTTP/1.") {
            return Asked::Nonsense;
        }
        match (method, target.split('?').next()) {
            ("GET" | "HEAD", Some("/metrics")) => Asked::Metrics { head_only: method == "HEAD" },
            ("GET" | "HEAD", _) => Asked::Other,
            _ => Asked::OtherMethod,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn only_this_host_is_listened_to() {
        assert_eq!(settings("").unwrap().listen, None);
        let unix = settings("listen = \"/run/mmp/metrics.sock\"").unwrap().listen;
        assert_eq!(unix, Some(Listen::Unix("/run/mmp/metrics.sock".into())));
        for here in ["127.0.0.1:9998", "127.8.8.8:1", "[::1]:9998"] {
            let listen = settings(&format!("listen = {here:?}")).unwrap().listen;
            assert_eq!(listen, Some(Listen::Loopback(here.parse().unwrap())));
        }
        for (bad, why) in [
            ("0.0.0.0:9998", "other hosts"),
            ("[::]:9998", "other hosts"),
            ("192.168.1.1:9998", "other hosts"),
            ("localhost:9998", "neither"),
            ("9998", "neither"),
            ("metrics.sock", "neither"),
        ] {
            let error = settings(&format!("listen = {bad:?}")).unwrap_err();
            assert!(error.contains(why) && error.contains("line 1"), "{bad}: {error}");
        }
        assert!(settings("port = 9998").is_err());
    }

    /// Runs a server on both kinds of listener beside `ask`.
    fn served(ask: impl FnOnce(&Path, SocketAddr)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.sock");
        // One that a dead daemon left, whose thread hangs: it takes connections, and nobody answers.
        let _left = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (ready, address) = std::sync::mpsc::channel();
        let unix = Listen::Unix(path.clone());
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let on_socket = Listener::bind(&unix).await.unwrap();
                let tcp = Listener::bind(&Listen::Loopback("127.0.0.1:0".parse().unwrap())).await.unwrap();
                let Listener::Tcp(listener) = &tcp else { unreachable!("as asked for") };
                ready.send(listener.local_addr().unwrap()).unwrap();
                tokio::spawn(serve(on_socket, || TEXT.to_owned()));
                tokio::spawn(serve(tcp, || TEXT.to_owned()));
                let _ = stopped.await;
            });
        });
        ask(&path, address.recv().unwrap());
        drop(stop);
        server.join().unwrap();
    }

    const TEXT: &str = "one 1\n# EOF\n";

    fn said(mut stream: impl io::Read + io::Write, request: &str) -> String {
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_scraper_gets_the_figures_and_everybody_else_a_reason() {
        served(|path, address| {
            let unix = |request: &str| said(std::os::unix::net::UnixStream::connect(path).unwrap(), request);
            let tcp = |request: &str| said(std::net::TcpStream::connect(address).unwrap(), request);
            let mode = std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, MODE);
            let (head, body) = ("HTTP/1.1 200 OK\r\n", format!("\r\n\r\n{TEXT}"));
            for answer in [
                unix("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
                tcp("GET /metrics?x=1 HTTP/1.0\r\n\r\n"),
                tcp("GET /metrics HTTP/1.1\n\n"),
            ] {
                assert!(answer.starts_with(head) && answer.ends_with(&body), "{answer}");
                assert!(
                    answer.contains(CONTENT_TYPE) && answer.contains("Content-Length: 12\r\n"),
                    "{answer}"
                );
            }
            let answer = tcp("HEAD /metrics HTTP/1.1\r\n\r\n");
            assert!(answer.starts_with(head) && answer.ends_with("\r\n\r\n"), "{answer}");
            for (request, code) in [
                ("GET / HTTP/1.1\r\n\r\n", "404"),
                ("GET /metrics/../x HTTP/1.1\r\n\r\n", "404"),
                ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
                ("GET /metrics\r\n\r\n", "400"),
                ("GET /metrics SPDY/3\r\n\r\n", "400"),
                ("\u{fffd}\r\n\r\n", "400"),
            ] {
                let answer = tcp(request);
                assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{request:?}: {answer}");
            }
            let long = tcp(&"x".repeat(REQUEST_BYTES));
            assert!(long.starts_with("HTTP/1.1 400 "), "{long}");
        });
    }

    /// As many as are answered at once, and none of them says anything: they end, and others get in.
    #[test]
    fn clients_that_say_nothing_keep_nobody_out_for_long() {
        served(|path, _| {
            let connect = || std::os::unix::net::UnixStream::connect(path).unwrap();
            let silent: Vec<_> = (0..AT_ONCE).map(|_| connect()).collect();
            let before = crate::clock::mono();
            let answer = said(connect(), "GET /metrics HTTP/1.1\r\n\r\n");
            assert!(answer.ends_with(TEXT), "{answer}");
            let took = crate::clock::mono().since(before);
            assert!(took < PATIENCE * 2, "{took:?}");
            drop(silent);
        });
    }
}
