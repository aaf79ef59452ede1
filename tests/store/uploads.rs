//! An upload in parts that ends early leaves no parts behind: they would cost money where no listing shows them.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use datafusion_hnsw::hnsw::{HnswBuilder, HnswConfig, HnswIndex, VectorMetric};
use datafusion_hnsw::id::RowId;
use datafusion_hnsw::sidecar::StoreError;
use futures::FutureExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use crate::sample::{Home, identity, meta};

/// At which step an upload ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Never,
    /// The part of this number fails, counted from 0.
    Part(usize),
    Complete,
    /// The part of this number never arrives.
    Hangs(usize),
}

/// A store whose uploads are counted.
#[derive(Debug)]
struct Counted {
    inner: InMemory,
    end: End,
    begun: AtomicUsize,
    completed: Arc<AtomicUsize>,
    aborted: Arc<AtomicUsize>,
    parts: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct CountedUpload {
    inner: Box<dyn MultipartUpload>,
    end: End,
    completed: Arc<AtomicUsize>,
    aborted: Arc<AtomicUsize>,
    parts: Arc<AtomicUsize>,
    over: AtomicBool,
}

fn failed<T>() -> Result<T> {
    Err(object_store::Error::Generic {
        store: "counted",
        source: "it failed".into(),
    })
}

#[async_trait]
impl MultipartUpload for CountedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let number = self.parts.fetch_add(1, Ordering::SeqCst);
        match self.end {
            End::Part(at) if at == number => async { failed() }.boxed(),
            End::Hangs(at) if at == number => std::future::pending().boxed(),
            _ => self.inner.put_part(data),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        if self.end == End::Complete {
            return failed();
        }
        self.completed.fetch_add(1, Ordering::SeqCst);
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        assert!(!self.over.swap(true, Ordering::SeqCst), "it is aborted once");
        self.aborted.fetch_add(1, Ordering::SeqCst);
        self.inner.abort().await
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "counted {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Counted {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(CountedUpload {
            inner: self.inner.put_multipart_opts(location, opts).await?,
            end: self.end,
            completed: Arc::clone(&self.completed),
            aborted: Arc::clone(&self.aborted),
            parts: Arc::clone(&self.parts),
            over: AtomicBool::new(false),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

impl Counted {
    fn new(end: End) -> Arc<Self> {
        Arc::new(Self {
            inner: InMemory::new(),
            end,
            begun: AtomicUsize::new(0),
            completed: Arc::default(),
            aborted: Arc::default(),
            parts: Arc::default(),
        })
    }

    /// How many uploads were begun, completed and aborted.
    fn counts(&self) -> [usize; 3] {
        [
            self.begun.load(Ordering::SeqCst),
            self.completed.load(Ordering::SeqCst),
            self.aborted.load(Ordering::SeqCst),
        ]
    }
}

/// More than is sent in one request: three parts.
fn large() -> Arc<HnswIndex> {
    static INDEX: OnceLock<Arc<HnswIndex>> = OnceLock::new();
    let build = || {
        let config = HnswConfig {
            m: 2,
            ef_construction: 2,
            ..HnswConfig::default()
        };
        let mut builder = HnswBuilder::new(4096, VectorMetric::Euclidean, config);
        for row in 0..1000_u64 {
            let vector = (0..4096_u64)
                .map(|i| ((i * 31 + row * row * 17 + i * row) % 1009) as f32)
                .collect();
            builder.insert(RowId::new(row), vector).expect("a vector");
        }
        Arc::new(builder.build().expect("an index"))
    };
    Arc::clone(INDEX.get_or_init(build))
}

async fn publish(store: &Arc<Counted>) -> std::result::Result<(), StoreError> {
    let home = Home::remote("counted", "s3://bucket", Arc::clone(store) as _);
    let at = (home.place)("t.parquet");
    let meta = meta("v", identity("t.parquet", 1000));
    home.store().publish(&at, large(), meta).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_fails_at_any_part_or_at_its_end_is_aborted() {
    let good = Counted::new(End::Never);
    publish(&good).await.expect("published");
    assert_eq!(good.counts(), [1, 1, 0]);
    let parts = good.parts.load(Ordering::SeqCst);
    assert!(parts > 1, "{parts}");
    for end in (0..parts).map(End::Part).chain([End::Complete]) {
        let store = Counted::new(end);
        let error = publish(&store).await.expect_err("it failed");
        assert!(
            matches!(error, StoreError::Unavailable { .. }),
            "{end:?}: {error}"
        );
        assert_eq!(store.counts(), [1, 0, 1], "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_nobody_waits_for_any_more_is_aborted() {
    let _ = large();
    for part in [0, 2] {
        let store = Counted::new(End::Hangs(part));
        let publishing = tokio::time::timeout(Duration::from_secs(2), publish(&store));
        publishing.await.expect_err("it hangs");
        for _ in 0..100 {
            if store.counts()[2] == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(store.counts(), [1, 0, 1]);
    }
}
