//! An object store with somebody at its door, who sees what is asked, may take his time, and may say no.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What a store is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Put(Path),
    Upload(Path),
    /// And whether a part of the object is enough.
    Get(Path, bool),
    Head(Path),
    Delete,
    List,
    Copy,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Done,
    Failed,
    /// It is done, but whoever asked is not told.
    Lost,
}

type Door = Box<dyn Fn(Call) -> BoxFuture<'static, Fate> + Send + Sync>;

pub struct Wrapped {
    inner: Arc<dyn ObjectStore>,
    door: Door,
}

impl Wrapped {
    pub fn new(
        inner: Arc<dyn ObjectStore>,
        door: impl Fn(Call) -> BoxFuture<'static, Fate> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let door = Box::new(door);
        Arc::new(Self { inner, door })
    }

    async fn through<T>(&self, call: Call, done: impl Future<Output = Result<T>> + Send) -> Result<T> {
        match (self.door)(call).await {
            Fate::Done => done.await,
            Fate::Failed => Err(failed()),
            Fate::Lost => done.await.and(Err(failed())),
        }
    }

    fn through_stream<T: Send + 'static>(
        &self,
        call: Call,
        done: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        let fate = (self.door)(call);
        let answer = fate.map(|fate| match fate {
            Fate::Done => done,
            Fate::Failed => stream::once(async { Err(failed()) }).boxed(),
            Fate::Lost => done.map(|_| Err(failed())).boxed(),
        });
        answer.flatten_stream().boxed()
    }
}

/// The store behind a door that is always open: what programs that count or log requests make of theirs.
pub fn passing_on(inner: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    Wrapped::new(inner, |_| async { Fate::Done }.boxed())
}

fn failed() -> object_store::Error {
    object_store::Error::Generic {
        store: "wrapped",
        source: "it failed".into(),
    }
}

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wrapped {}", self.inner)
    }
}

impl fmt::Debug for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[async_trait]
impl ObjectStore for Wrapped {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let done = self.inner.put_opts(location, payload, opts);
        self.through(Call::Put(location.clone()), done).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let done = self.inner.put_multipart_opts(location, opts);
        self.through(Call::Upload(location.clone()), done).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let call = match options.head {
            true => Call::Head(location.clone()),
            false => Call::Get(location.clone(), options.range.is_some()),
        };
        self.through(call, self.inner.get_opts(location, options)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.through_stream(Call::Delete, self.inner.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.through_stream(Call::List, self.inner.list(prefix))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.through(Call::List, self.inner.list_with_delimiter(prefix))
            .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.through(Call::Copy, self.inner.copy_opts(from, to, options))
            .await
    }
}
