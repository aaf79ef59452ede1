//! The parts of an object on their way to a store, which become visible together or not at all.
//!
//! Parts of an upload that is neither completed nor aborted stay in the store, where no listing shows them and where
//! they cost money. object_store's own `WriteMultipart` aborts only if the last step fails.

use object_store::{MultipartUpload, PutPayload, PutResult, Result};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// A multipart upload that is aborted unless it is completed, also when nobody waits for it any more.
pub(super) struct Parts {
    /// None once there is nothing to abort.
    pub(super) upload: Option<Box<dyn MultipartUpload>>,
    under_way: JoinSet<Result<()>>,
}

impl Parts {
    pub(super) fn of(upload: Box<dyn MultipartUpload>) -> Self {
        Self {
            upload: Some(upload),
            under_way: JoinSet::new(),
        }
    }

    /// Begins to send the next part.
    pub(super) fn send(&mut self, part: PutPayload) {
        if let Some(upload) = &mut self.upload {
            self.under_way.spawn(upload.put_part(part));
        }
    }

    /// Waits while this many parts or more are under way; an error is that of a part.
    pub(super) async fn wait_until_fewer_than(&mut self, many: usize) -> Result<()> {
        while self.under_way.len() >= many
            && let Some(sent) = self.under_way.join_next().await
        {
            sent.map_err(|error| object_store::Error::JoinError { source: error })??;
        }
        Ok(())
    }

    /// Makes the parts visible as one object.
    pub(super) async fn complete(&mut self) -> Result<PutResult> {
        match &mut self.upload {
            Some(upload) => upload.complete().await,
            None => Err(object_store::Error::NotImplemented {
                operation: "completing an upload twice".to_owned(),
                implementer: "datafusion-hnsw".to_owned(),
            }),
        }
    }

    /// Has the store forget the parts. If that fails too there is nothing more to be done.
    pub(super) async fn abort(&mut self) {
        self.under_way.shutdown().await;
        // Taken after the wait: a future that is dropped while it waits leaves the upload to `drop`.
        if let Some(mut upload) = self.upload.take() {
            give_up(&mut upload).await;
        }
    }
}

async fn give_up(upload: &mut Box<dyn MultipartUpload>) {
    if let Err(error) = upload.abort().await {
        tracing::warn!(%error, "the parts of a failed upload could not be removed from the store");
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if let Some(mut upload) = self.upload.take()
            && let Ok(runtime) = Handle::try_current()
        {
            let mut under_way = std::mem::take(&mut self.under_way);
            runtime.spawn(async move {
                under_way.shutdown().await;
                give_up(&mut upload).await;
            });
        }
    }
}
