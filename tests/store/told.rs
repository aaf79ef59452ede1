//! What is told of loading, fetching, searching and falling back; and what is not told.

use std::fmt::{self, Write};
use std::sync::{Arc, LazyLock, Mutex};

use datafusion_hnsw::hnsw::SearchOptions;
use datafusion_hnsw::hnsw::VectorMetric::{Cosine, Euclidean};
use datafusion_hnsw::sidecar::{Location, SidecarStore};
use object_store::memory::InMemory;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Event, Metadata, Subscriber};

use crate::conformance::{code, look, publish};
use crate::sample::Home;

/// Listens to this crate: each event a line of level and fields, each span a line of its name and fields.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).expect("a string");
    }
}

impl Told {
    /// Listens to this thread until the guard is dropped.
    fn listen() -> (Self, DefaultGuard) {
        // Where there is but one listener, what another thread comes to first is decided by that thread's own, which is
        // nobody, for all threads and for good.
        static OTHERS: LazyLock<[Dispatch; 2]> =
            LazyLock::new(|| [Dispatch::new(Told::default()), Dispatch::new(Told::default())]);
        LazyLock::force(&OTHERS);
        let told = Self::default();
        let guard = tracing::subscriber::set_default(told.clone());
        (told, guard)
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no panic").clone()
    }

    /// The lines with this in them.
    fn with(&self, words: &str) -> Vec<String> {
        let lines = self.lines().into_iter();
        lines.filter(|line| line.contains(words)).collect()
    }

    /// The line with this in it, which has these fields.
    fn one(&self, words: &str, fields: &[&str]) -> String {
        let lines = self.with(words);
        let [line] = &lines[..] else {
            panic!("{words}: {lines:?}")
        };
        for field in fields {
            assert!(line.contains(&format!(" {field}=")), "{field}: {line}");
        }
        line.clone()
    }
}

impl Subscriber for Told {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("datafusion_hnsw")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = Line(format!("span {}", span.metadata().name()));
        span.record(&mut line);
        self.0.lock().expect("no panic").push(line.0);
        Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().expect("no panic").push(line.0);
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn a_stale_sidecar_is_warned_of_once_per_file_and_a_missing_one_never() {
    let (told, _guard) = Told::listen();
    let home = Home::local();
    let store = home.store();
    for name in ["one.parquet", "two.parquet"] {
        let at = (home.place)(name);
        assert_eq!(code(&look(&store, &at, Cosine, 3).await), "no_sidecar");
        publish(&store, &at, Cosine, 3).await;
        for _ in 0..5 {
            assert_eq!(code(&look(&store, &at, Cosine, 4).await), "stale:size");
            assert_eq!(code(&look(&store, &at, Euclidean, 4).await), "metric_mismatch");
        }
        told.one(
            &format!(
                "WARN message=answering the file without its index: the sidecar describes a file of 1003 \
                           bytes but it has 1004; rebuild the index url={}",
                at.sidecar_url("v", Cosine)
            ),
            &["code"],
        );
    }
    assert_eq!(told.with("WARN").len(), 2, "{:?}", told.lines());
    // It was mended and broke again: another warning.
    let at = (home.place)("one.parquet");
    publish(&store, &at, Cosine, 4).await;
    assert_eq!(code(&look(&store, &at, Cosine, 4).await), "fresh");
    assert_eq!(code(&look(&store, &at, Cosine, 5).await), "stale:size");
    assert_eq!(told.with("WARN").len(), 3, "{:?}", told.lines());
}

#[tokio::test]
async fn a_fetch_tells_how_far_it_is() {
    let memory = Arc::new(InMemory::new());
    let home = Home::remote("memory", "s3://bucket", memory);
    let at = (home.place)("t.parquet");
    publish(&home.store(), &at, Cosine, 500).await;
    let mut options = home.options();
    let cache = crate::sample::temp();
    (options.cache_dir, options.fetch_part) = (Some(cache.path().to_owned()), 10_000);
    let (told, _guard) = Told::listen();
    let found = look(&SidecarStore::new(options), &at, Cosine, 500).await;
    let bytes = found.fresh().expect("fresh").bytes();
    let span = told.one("span fetch", &["url", "bytes"]);
    assert!(span.contains(&format!("bytes={bytes}")), "{span}");
    let steps: Vec<u64> = told
        .with("fetched a part")
        .iter()
        .map(|line| {
            let at = line.find("done=").expect("how far") + 5;
            let digits: String = line[at..].chars().take_while(char::is_ascii_digit).collect();
            assert!(line.contains(&format!("of={bytes}")), "{line}");
            digits.parse().expect("a number")
        })
        .collect();
    assert_eq!(steps.len() as u64, bytes.div_ceil(10_000));
    assert!(steps.is_sorted() && steps.last() == Some(&bytes), "{steps:?}");
    told.one("fetched a sidecar", &["url", "bytes", "ms"]);
    told.one("span load", &["url"]);
    told.one("opened a sidecar", &["url", "bytes", "us", "from"]);
}

#[tokio::test]
async fn a_search_tells_of_its_work_and_not_of_what_was_asked() {
    let home = Home::local();
    let at = (home.place)("t.parquet");
    let store = home.store();
    publish(&store, &at, Euclidean, 50).await;
    let found = look(&store, &at, Euclidean, 50).await;
    let (told, _guard) = Told::listen();
    let hits = found
        .fresh()
        .expect("fresh")
        .search(&[0.123_456, 3.0, 0.5, 9.0], &SearchOptions::new(5).ef(17));
    assert_eq!(hits.expect("whole").hits.len(), 5);
    told.one("span search", &["url", "k", "ef"]);
    told.one(
        "searched a sidecar",
        &["hits", "nodes", "distances", "reranked", "exact"],
    );
    assert_eq!(told.with("0.123"), [""; 0]);
}

#[tokio::test]
async fn messages_name_no_passwords_and_no_signatures() {
    let (told, _guard) = Told::listen();
    // As a store's URL with credentials in it, and one that fails with such a URL in its error.
    let memory = Arc::new(InMemory::new());
    let at = Location::remote(memory, "https://someone:HIDDEN@host", "t.parquet".into());
    let home = Home::local();
    let store = home.store();
    let mut seen = vec![at.sidecar_url("v", Cosine)];
    publish(&store, &at, Cosine, 3).await;
    for rows in [3, 4] {
        let found = look(&store, &at, Cosine, rows).await;
        seen.push(format!("{found:?}"));
    }
    assert!(store.remove(&at, "v", Cosine).await.expect("removed"));
    seen.extend(told.lines());
    for (line, hidden) in seen.iter().flat_map(|line| [(line, "HIDDEN"), (line, "someone")]) {
        assert!(!line.contains(hidden), "{line}");
    }
    assert!(
        seen.iter().any(|line| line.contains("https://host/_hnsw/")),
        "{seen:?}"
    );
}

/// A whole life in a real store: a process of its own listens, so that all threads are heard.
#[cfg(feature = "datafusion")]
#[test]
fn load_search_fetch_and_fallback_are_told_and_nothing_secret_is() {
    use crate::server::{ACCESS_KEY, S3, SECRET_KEY};

    let (server, dir) = (S3::start(), crate::sample::temp());
    let mut child = crate::child::command("sql tell", dir.path());
    let output = child.env("HNSW_STORE_PORT", server.port().to_string()).output();
    let output = output.expect("this program starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("told ")).collect();
    let count = |words: &str| lines.iter().filter(|line| line.contains(words)).count();
    for (words, least, most) in [
        ("INFO message=published a sidecar", 2, 2),
        ("span fetch", 2, 2),
        ("TRACE message=fetched a part", 2, 100),
        ("INFO message=fetched a sidecar", 2, 2),
        ("DEBUG message=opened a sidecar", 2, 3),
        ("TRACE message=searched a sidecar", 2, 100),
        ("WARN message=answering the file without its index", 1, 1),
        ("INFO message=removed a sidecar", 2, 2),
    ] {
        let count = count(words);
        assert!((least..=most).contains(&count), "{words}: {count}\n{text}");
    }
    for secret in [ACCESS_KEY, SECRET_KEY, "X-Amz", "Signature", "0.123"] {
        assert_eq!(count(secret), 0, "{secret}\n{text}");
    }
}
