//! A store that fails after N operations, for every N.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use datafusion_hnsw::hnsw::VectorMetric::Cosine;
use datafusion_hnsw::sidecar::{Location, SidecarStore, StoreError};
use futures::stream::{self, BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::conformance::{code, look, publish};
use crate::sample::{Home, identity, index, meta};

/// Works for so many operations, then fails at each.
#[derive(Debug)]
struct Failing {
    inner: Arc<InMemory>,
    left: AtomicUsize,
    /// Whether the operation that fails is done all the same, as when only the answer is lost.
    done: bool,
}

impl Failing {
    fn fails(&self) -> bool {
        self.left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_err()
    }

    fn error<T>() -> Result<T> {
        Err(object_store::Error::Generic {
            store: "failing",
            source: "it failed".into(),
        })
    }
}

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failing")
    }
}

#[async_trait]
impl ObjectStore for Failing {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if self.fails() {
            if self.done {
                self.inner.put_opts(location, payload, opts).await?;
            }
            return Self::error();
        }
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        if self.fails() {
            Self::error()
        } else {
            self.inner.put_multipart_opts(location, opts).await
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if self.fails() {
            Self::error()
        } else {
            self.inner.get_opts(location, options).await
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        if self.fails() && !self.done {
            return stream::once(async { Self::error() }).boxed();
        }
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.fails() {
            stream::once(async { Self::error() }).boxed()
        } else {
            self.inner.list(prefix)
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        if self.fails() {
            Self::error()
        } else {
            self.inner.list_with_delimiter(prefix).await
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        if self.fails() {
            Self::error()
        } else {
            self.inner.copy_opts(from, to, options).await
        }
    }
}

#[tokio::test]
async fn a_publish_that_fails_at_any_operation_leaves_the_old_sidecar_or_the_new_one() {
    for done in [false, true] {
        let mut outcomes = Vec::new();
        for operations in 0..20 {
            let memory = Arc::new(InMemory::new());
            let home = Home::remote("memory", "s3://bucket", Arc::clone(&memory) as _);
            let good = (home.place)("t.parquet");
            publish(&home.store(), &good, Cosine, 5).await;
            let failing = Failing {
                inner: Arc::clone(&memory),
                left: AtomicUsize::new(operations),
                done,
            };
            let bad = Location::remote(Arc::new(failing), "s3://bucket", good.parquet.clone());
            let published = home
                .store()
                .publish(&bad, index(Cosine, 9), meta("v", identity("t.parquet", 9)))
                .await;
            let store = home.store();
            let old = code(&look(&store, &good, Cosine, 5).await);
            let new = code(&look(&store, &good, Cosine, 9).await);
            match &published {
                Ok(_) => assert_eq!((old.as_str(), new.as_str()), ("stale:size", "fresh")),
                Err(StoreError::Unavailable { .. }) => {
                    assert!(old == "fresh" || new == "fresh", "{old} {new}")
                }
                Err(other) => panic!("{other}"),
            }
            outcomes.push((published.is_ok(), old == "fresh"));
            if published.is_ok() {
                break;
            }
        }
        println!("{outcomes:?}");
        assert!(
            outcomes.last().expect("some").0,
            "with enough operations it succeeds"
        );
        assert!(outcomes.len() > 2);
        assert_eq!(
            outcomes.iter().any(|(ok, old)| !ok && !old),
            done,
            "done, but the answer was lost"
        );
    }
}

#[tokio::test]
async fn a_lookup_that_fails_at_any_operation_says_unavailable_and_recovers() {
    let memory = Arc::new(InMemory::new());
    let home = Home::remote("memory", "s3://bucket", Arc::clone(&memory) as _);
    let good = (home.place)("t.parquet");
    publish(&home.store(), &good, Cosine, 300).await;
    let mut codes = Vec::new();
    for operations in 0..40 {
        let failing = Arc::new(Failing {
            inner: Arc::clone(&memory),
            left: AtomicUsize::new(operations),
            done: false,
        });
        let bad = Location::remote(Arc::clone(&failing) as _, "s3://bucket", good.parquet.clone());
        let home = Home::remote("memory", "s3://bucket", Arc::clone(&memory) as _);
        let mut options = home.options();
        options.timeout = Duration::from_secs(1);
        options.fetch_part = 8_000;
        let store = SidecarStore::new(options);
        codes.push(code(&look(&store, &bad, Cosine, 300).await));
        failing.left.store(usize::MAX, Ordering::SeqCst);
        assert_eq!(code(&look(&store, &bad, Cosine, 300).await), "fresh");
        if codes.last().is_some_and(|code| code == "fresh") {
            break;
        }
    }
    println!("{codes:?}");
    assert!(codes.iter().all(|code| code == "unavailable" || code == "fresh"));
    assert_eq!(codes[0], "unavailable");
    assert_eq!(codes.last().map(String::as_str), Some("fresh"));
}

#[tokio::test]
async fn a_lookup_that_is_dropped_leaves_the_next_one_free() {
    let memory = Arc::new(InMemory::new());
    let home = Home::remote("memory", "s3://bucket", Arc::clone(&memory) as _);
    let at = (home.place)("t.parquet");
    publish(&home.store(), &at, Cosine, 2000).await;
    let cache = crate::sample::temp();
    let mut options = home.options();
    options.cache_dir = Some(cache.path().to_owned());
    let store = SidecarStore::new(options);
    for micros in [0, 50, 200, 1000, 3000] {
        let lookup = look(&store, &at, Cosine, 2000);
        let _ = tokio::time::timeout(Duration::from_micros(micros), lookup).await;
    }
    assert_eq!(code(&look(&store, &at, Cosine, 2000).await), "fresh");
    let left = crate::sample::names(cache.path().join("sidecars-1"));
    assert_eq!(left.len(), 1, "{left:?}");
}
