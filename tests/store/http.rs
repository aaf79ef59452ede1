//! Sidecars on a plain web server, which can neither list nor be written to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datafusion_hnsw::hnsw::VectorMetric::{Cosine, Euclidean};
use datafusion_hnsw::sidecar::{Location, SidecarStore};
use object_store::http::HttpBuilder;
use object_store::{ClientOptions, RetryConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::conformance::{code, look, publish};
use crate::sample::{Home, identity, index, meta, temp};

/// Answers GET and HEAD for the files of a directory, with ranges, and nothing else.
async fn serve(root: PathBuf) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let root = root.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    if client.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let _ = client
                    .write_all(&answer(&root, &String::from_utf8_lossy(&head)))
                    .await;
            });
        }
    });
    port
}

fn answer(root: &std::path::Path, request: &str) -> Vec<u8> {
    let mut words = request.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let status = |line: &str| {
        format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes()
    };
    if method != "GET" && method != "HEAD" {
        return status("405 Method Not Allowed");
    }
    let name = target.trim_start_matches('/').replace("%25", "%");
    let Ok(bytes) = std::fs::read(root.join(name)) else {
        return status("404 Not Found");
    };
    let range = request.lines().find_map(|line| {
        let (from, to) = line.strip_prefix("range: bytes=")?.split_once('-')?;
        Some((from.parse::<usize>().ok()?, to.trim().parse::<usize>().ok()?))
    });
    let tag = format!(
        "etag: \"{}-{}\"\r\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
        bytes.len(),
        bytes[40]
    );
    let (line, body) = match range {
        Some((from, to)) => {
            let line = format!(
                "206 Partial Content\r\ncontent-range: bytes {from}-{to}/{}",
                bytes.len()
            );
            (line, &bytes[from..=to])
        }
        None => ("200 OK".to_owned(), &bytes[..]),
    };
    let head = format!(
        "HTTP/1.1 {line}\r\n{tag}content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let body = if method == "HEAD" { &[] } else { body };
    [head.as_bytes(), body].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_web_server_serves_sidecars() {
    let dir = temp();
    let local = Home::local();
    std::fs::create_dir(dir.path().join("data")).expect("room");
    for (name, rows) in [("t.parquet", 600), ("u.parquet", 3)] {
        let place = Location::local(dir.path().join("data").join(name)).expect("a plain path");
        publish(&local.store(), &place, Cosine, rows).await;
    }
    let port = serve(dir.path().to_owned()).await;
    let url = format!("http://127.0.0.1:{port}");
    let options = ClientOptions::new()
        .with_allow_http(true)
        .with_timeout(Duration::from_secs(5))
        .with_proxy_excludes("127.0.0.1");
    let retry = RetryConfig {
        max_retries: 1,
        ..RetryConfig::default()
    };
    let client = HttpBuilder::new()
        .with_url(&url)
        .with_client_options(options)
        .with_retry(retry)
        .build()
        .expect("complete");
    let client: Arc<dyn object_store::ObjectStore> = Arc::new(client);
    let at = |name: &str| Location::remote(Arc::clone(&client), &url, format!("data/{name}").into());
    let home = Home::remote("http", "unused", Arc::clone(&client));
    let store = SidecarStore::new(home.options());
    let found = look(&store, &at("t.parquet"), Cosine, 600).await;
    assert_eq!(
        found.fresh().unwrap_or_else(|| panic!("{found:?}")).node_count(),
        600
    );
    assert_eq!(code(&look(&store, &at("u.parquet"), Cosine, 3).await), "fresh");
    assert_eq!(
        code(&look(&store, &at("t.parquet"), Euclidean, 600).await),
        "no_sidecar"
    );
    assert_eq!(
        code(&look(&store, &at("none.parquet"), Cosine, 3).await),
        "no_sidecar"
    );
    let published = store
        .publish(&at("t.parquet"), index(Cosine, 3), meta("v", identity("t", 3)))
        .await;
    assert!(published.is_err(), "it cannot be written");
    assert_eq!(code(&look(&store, &at("t.parquet"), Cosine, 600).await), "fresh");
}
