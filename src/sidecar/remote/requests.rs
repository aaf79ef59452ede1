//! Asking a store what lies in a directory, with patience.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::sidecar::error::StoreError;
use crate::sidecar::place::home::RemoteDir;
use crate::sidecar::place::name::SidecarName;
use crate::sidecar::redact::redact;

/// How often a store is asked before it counts as failing.
const ATTEMPTS: u32 = 3;

/// The sidecars of a directory, by name.
pub(crate) type Objects = HashMap<String, ObjectMeta>;

pub(crate) fn cannot_list(dir: &RemoteDir) -> bool {
    dir.store_url.starts_with("http://") || dir.store_url.starts_with("https://")
}

/// Waits for an answer. The store's client repeats requests that fail, but not those whose answer broke off: we do.
pub(crate) async fn ask<F: Future<Output = object_store::Result<Objects>> + Send>(
    timeout: Duration,
    question: impl Fn() -> F + Send + Sync,
) -> Result<Objects, String> {
    let insist = async {
        let mut attempt = 1;
        loop {
            match question().await {
                Err(object_store::Error::Generic { .. }) if attempt < ATTEMPTS => {
                    tokio::time::sleep(Duration::from_millis(20 << attempt)).await;
                    attempt += 1;
                }
                answer => return answer,
            }
        }
    };
    match tokio::time::timeout(timeout, insist).await {
        Ok(Ok(objects)) => Ok(objects),
        Ok(Err(object_store::Error::NotFound { .. })) => Ok(Objects::new()),
        Ok(Err(error)) => Err(redact(&error.to_string())),
        Err(_) => Err(format!("no answer within {timeout:?}")),
    }
}

/// Waits for the answer to a single request, whose client repeats it where that may help.
///
/// # Errors
///
/// If there is none in time: a store that is a directory waits for ever where a pipe lies in a sidecar's place.
pub(crate) async fn within<T>(
    timeout: Duration,
    at: &str,
    request: impl Future<Output = T>,
) -> Result<T, StoreError> {
    let answer = tokio::time::timeout(timeout, request).await;
    answer.map_err(|_| StoreError::Unavailable {
        at: at.to_owned(),
        source: format!("no answer within {timeout:?}").into(),
    })
}

/// The direct children of the directory that are sidecars.
pub(crate) async fn list(dir: &RemoteDir) -> object_store::Result<Objects> {
    let prefix = Some(&dir.dir).filter(|prefix| !prefix.as_ref().is_empty());
    let found = dir.store.list_with_delimiter(prefix).await?.objects;
    tracing::debug!(dir = %dir.address(&dir.dir), objects = found.len(), "listed");
    Ok(found.into_iter().filter_map(by_name).collect())
}

/// The sidecars of all directories below `root`, by directory; `None` if there are more than `most` objects.
pub(crate) async fn list_tree(
    of: &RemoteDir,
    root: &Path,
    most: usize,
) -> object_store::Result<Option<HashMap<Path, Objects>>> {
    let prefix = Some(root).filter(|root| !root.as_ref().is_empty());
    let mut objects = of.store.list(prefix);
    let (mut count, mut found) = (0, HashMap::<Path, Objects>::new());
    while let Some(object) = objects.try_next().await? {
        count += 1;
        if count > most {
            tracing::debug!(root = %of.address(root), most, "too much lies there to list all of it");
            return Ok(None);
        }
        let dir = object.location.parent().unwrap_or_default();
        if let Some((name, object)) = by_name(object) {
            found.entry(dir).or_default().insert(name, object);
        }
    }
    tracing::debug!(root = %of.address(root), objects = count, "listed a tree");
    Ok(Some(found))
}

/// The directory that all of these are in.
pub(crate) fn common_root<'a>(dirs: impl Iterator<Item = &'a Path>) -> Path {
    let parts = |dir: &Path| {
        dir.parts()
            .map(|part| part.as_ref().to_owned())
            .collect::<Vec<_>>()
    };
    let common = dirs.map(parts).reduce(|common, dir| {
        let same = common.iter().zip(&dir).take_while(|(a, b)| a == b).count();
        common[..same].to_vec()
    });
    let text = common.unwrap_or_default().join("/");
    Path::parse(text).unwrap_or_default()
}

pub(crate) async fn head(dir: &RemoteDir, name: &SidecarName) -> object_store::Result<Objects> {
    let object = dir.store.head(&dir.path(name)).await?;
    Ok(Objects::from([(name.to_string(), object)]))
}

fn by_name(object: ObjectMeta) -> Option<(String, ObjectMeta)> {
    let name = object.location.filename()?.to_owned();
    SidecarName::parse(&name)?;
    Some((name, object))
}

/// What tells this version of an object from others.
pub(crate) fn version_of(object: &ObjectMeta) -> String {
    match (&object.e_tag, &object.version) {
        (Some(e_tag), _) => e_tag.clone(),
        (None, Some(version)) => version.clone(),
        (None, None) => object.last_modified.to_rfc3339(),
    }
}
