//! An S3 server on the loopback, and a proxy before it that does to requests what networks do.
//!
//! The server is `tests/s3-server`, a member of this workspace, on a thread of its own.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use s3_server::Server;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the server wants to be shown.
pub const ACCESS_KEY: &str = "ACCESS-KEY-OF-TESTS";
pub const SECRET_KEY: &str = "SECRET-KEY-OF-TESTS";

/// A running server with one empty bucket; it ends with this.
pub struct S3 {
    server: Server,
    dir: TempDir,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is answered.
    None,
    /// The server says 500.
    Error,
    /// Nothing comes back.
    Hang,
    /// The answer comes in small pieces.
    Slow,
    /// The answer stops half way, and the connection closes.
    Truncate,
    /// The connection closes before anything comes back, though the server did its work.
    Lost,
}

/// A request as the proxy sees it.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    /// How many requests came before it.
    pub number: usize,
}

type Plan = Arc<dyn Fn(&Request) -> Fault + Send + Sync>;

/// What a proxy has seen.
pub type Log = Arc<Mutex<Vec<Request>>>;

impl S3 {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("bucket")).expect("a bucket");
        let server = Server::start(dir.path(), ACCESS_KEY, SECRET_KEY).expect("the server starts");
        Self { server, dir }
    }

    /// The objects that are there, parts of uploads included.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut dirs = vec![self.dir.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).expect("ours").flatten() {
                if entry.path().is_dir() {
                    dirs.push(entry.path())
                } else {
                    found.push(entry.path())
                }
            }
        }
        found
    }

    /// Puts a file in the place of an object, behind the server's back and at once.
    pub fn replace(&self, key: &str, bytes: &[u8]) {
        // What the server noted of its objects, their e-tags among it. Another test's server has other files.
        for path in self.files() {
            if path.extension().is_some_and(|ending| ending == "json") {
                std::fs::remove_file(path).expect("ours");
            }
        }
        let place = self.dir.path().join("bucket").join(key);
        let fresh = place.with_extension("fresh");
        std::fs::write(&fresh, bytes).expect("room");
        std::fs::rename(fresh, place).expect("one directory");
    }

    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// A client that talks to the server.
    pub fn client(&self) -> Arc<AmazonS3> {
        client(self.port(), Duration::from_secs(20))
    }

    /// A client that talks through a proxy, and what the proxy sees.
    pub async fn client_through(
        &self,
        patience: Duration,
        plan: impl Fn(&Request) -> Fault + Send + Sync + 'static,
    ) -> (Arc<AmazonS3>, Log) {
        let log = Log::default();
        let port = proxy(self.port(), Arc::new(plan), Arc::clone(&log)).await;
        (client(port, patience), log)
    }
}

/// `object_store`'s own S3 client, which gives up soon.
pub fn client(port: u16, patience: Duration) -> Arc<AmazonS3> {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(5),
        max_backoff: Duration::from_millis(20),
        base: 2.0,
    };
    let retry = RetryConfig {
        backoff,
        max_retries: 2,
        retry_timeout: Duration::from_secs(10),
    };
    let options = ClientOptions::new()
        .with_allow_http(true)
        .with_timeout(patience)
        .with_proxy_excludes("127.0.0.1");
    let s3 = AmazonS3Builder::new()
        .with_endpoint(format!("http://127.0.0.1:{port}"))
        .with_bucket_name("bucket")
        .with_region("us-east-1")
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(SECRET_KEY)
        .with_retry(retry)
        .with_client_options(options)
        .build();
    Arc::new(s3.expect("a complete configuration"))
}

async fn proxy(upstream: u16, plan: Plan, log: Log) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (plan, log) = (Arc::clone(&plan), Arc::clone(&log));
            tokio::spawn(async move { relay(client, upstream, plan, log).await });
        }
    });
    port
}

/// Relays one request, each on a connection of its own.
async fn relay(mut client: TcpStream, upstream: u16, plan: Plan, log: Log) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    while bytes.len() < head + length.unwrap_or(0) {
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
    let mut words = text.split_whitespace();
    let mut next = || words.next().unwrap_or_default().to_owned();
    let request = {
        let mut log = log.lock().expect("no panic");
        let request = Request {
            method: next(),
            target: next(),
            number: log.len(),
        };
        log.push(request.clone());
        request
    };
    let fault = plan(&request);
    match fault {
        Fault::Error => {
            let answer = "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            return client.write_all(answer.as_bytes()).await;
        }
        Fault::Hang => {
            tokio::time::sleep(Duration::from_secs(20)).await;
            return Ok(());
        }
        _ => {}
    }
    let mut server = TcpStream::connect(("127.0.0.1", upstream)).await?;
    let first_line = text.find("\r\n").unwrap_or(0) + 2;
    server.write_all(&bytes[..first_line]).await?;
    server.write_all(b"connection: close\r\n").await?;
    server.write_all(&bytes[first_line..]).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    match fault {
        Fault::Lost => Ok(()),
        Fault::Truncate => {
            let head = answer
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
                .map_or(0, |at| at + 4);
            client
                .write_all(&answer[..head + (answer.len() - head) / 2])
                .await
        }
        Fault::Slow => {
            for piece in answer.chunks(answer.len().div_ceil(8)) {
                client.write_all(piece).await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        }
        _ => client.write_all(&answer).await,
    }
}
