//! The directory of local copies: shared, bounded, and told of when it cannot be used.

use std::sync::Arc;

use datafusion_hnsw::hnsw::VectorMetric::Cosine;
use datafusion_hnsw::sidecar::{Reason, SidecarStore};
use object_store::memory::InMemory;

use crate::child::command;
use crate::conformance::{code, look, publish};
use crate::sample::{Home, identity, index, meta, names, temp};

#[tokio::test]
async fn two_stores_of_one_cache_directory_fetch_once() {
    let memory = Arc::new(InMemory::new());
    let home = Home::remote("memory", "s3://bucket", memory);
    let at = (home.place)("t.parquet");
    let writer_cache = temp();
    let mut options = home.options();
    options.cache_dir = Some(writer_cache.path().to_owned());
    publish(&SidecarStore::new(options), &at, Cosine, 2000).await;
    let stores: Vec<_> = (0..8).map(|_| home.store()).collect();
    let mut tasks = Vec::new();
    for store in &stores {
        let (store, at) = (Arc::clone(store), at.clone());
        tasks.push(tokio::spawn(async move {
            code(&look(&store, &at, Cosine, 2000).await)
        }));
    }
    for task in tasks {
        assert_eq!(task.await.expect("no panic"), "fresh");
    }
    assert_eq!(stores.iter().map(|store| store.stats().fetched).sum::<u64>(), 1);
}

#[tokio::test]
async fn a_small_cache_serves_many_sidecars_and_refuses_what_can_never_fit() {
    let home = Home::remote("memory", "s3://bucket", Arc::new(InMemory::new()));
    let mut files = Vec::new();
    for number in 0..12 {
        let at = (home.place)(&format!("f{number}.parquet"));
        publish(&home.store(), &at, Cosine, 100).await;
        files.push((at, identity("f", 100)));
    }
    let fresh = home.store().lookup(&files[0].0, "v", Cosine, &files[0].1).await;
    let bytes = fresh.fresh().expect("fresh").bytes();
    let mut options = home.options();
    let cache = temp();
    options.cache_dir = Some(cache.path().to_owned());
    options.cache_size = bytes * 3;
    let store = SidecarStore::new(options.clone());
    for _ in 0..2 {
        for (at, found) in &files {
            let lookup = store.lookup(at, "v", Cosine, found).await;
            assert_eq!(lookup.fresh().expect("fresh").node_count(), 100);
        }
        assert!(names(cache.path().join("sidecars-1")).len() <= 3);
    }
    assert_eq!(store.stats().fetched, 12, "what is mapped needs no copy on disk");
    options.cache_size = bytes - 1;
    let found = SidecarStore::new(options)
        .lookup(&files[0].0, "v", Cosine, &files[0].1)
        .await;
    assert!(matches!(found.reason(), Some(Reason::Cache { .. })), "{found:?}");
}

#[tokio::test]
async fn a_cache_directory_that_cannot_be_used_is_told_and_asked_again() {
    let home = Home::remote("memory", "s3://bucket", Arc::new(InMemory::new()));
    let at = (home.place)("t.parquet");
    publish(&home.store(), &at, Cosine, 3).await;
    let mut options = home.options();
    let blocked = temp();
    let file = blocked.path().join("cache");
    std::fs::write(&file, "a file where a directory should be").expect("room");
    options.cache_dir = Some(file.clone());
    let store = SidecarStore::new(options);
    let found = look(&store, &at, Cosine, 3).await;
    assert_eq!(code(&found), "cache_unusable");
    assert!(
        found
            .reason()
            .is_some_and(|reason| reason.to_string().contains("hnsw.cache_dir"))
    );
    assert!(
        store
            .publish(&at, index(Cosine, 3), meta("v", identity("t", 3)))
            .await
            .is_err()
    );
    std::fs::remove_file(&file).expect("ours");
    assert_eq!(code(&look(&store, &at, Cosine, 3).await), "fresh");
}

#[tokio::test]
async fn processes_that_share_a_small_cache_directory_all_get_whole_sidecars() {
    let dir = temp();
    let mut children: Vec<_> = (0..3)
        .map(|_| {
            command("remote churn", dir.path())
                .spawn()
                .expect("this program starts")
        })
        .collect();
    for child in children.drain(..) {
        let output = child.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        println!(
            "{}",
            text.lines()
                .find(|line| line.contains("lookups"))
                .unwrap_or_default()
        );
    }
}
