//! A store that fails after N operations, for every N; and how many it is asked for at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use datafusion_hnsw::hnsw::VectorMetric::Cosine;
use datafusion_hnsw::sidecar::{Location, SidecarStore, StoreError};
use futures::FutureExt;
use object_store::memory::InMemory;

use crate::conformance::{code, look, publish};
use crate::sample::{Home, identity, index, meta, names, temp};
use crate::wrapped::{Call, Fate, Wrapped};

/// Works for so many operations, then fails at each; those that it fails at are done all the same if `done` says so,
/// as when only the answer is lost.
fn failing(inner: &Arc<InMemory>, operations: usize, done: bool) -> (Arc<Wrapped>, Arc<AtomicUsize>) {
    let left = Arc::new(AtomicUsize::new(operations));
    let count = Arc::clone(&left);
    let door = move |_| {
        let works = count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        let fate = match (works, done) {
            (Ok(_), _) => Fate::Done,
            (Err(_), true) => Fate::Lost,
            (Err(_), false) => Fate::Failed,
        };
        async move { fate }.boxed()
    };
    (Wrapped::new(Arc::clone(inner) as _, door), left)
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
            let (failing, _) = failing(&memory, operations, done);
            let bad = Location::remote(failing, "s3://bucket", good.parquet.clone());
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
        let (failing, left) = failing(&memory, operations, false);
        let bad = Location::remote(failing, "s3://bucket", good.parquet.clone());
        let home = Home::remote("memory", "s3://bucket", Arc::clone(&memory) as _);
        let mut options = home.options();
        options.timeout = Duration::from_secs(1);
        options.fetch_part = 8_000;
        let store = SidecarStore::new(options);
        codes.push(code(&look(&store, &bad, Cosine, 300).await));
        left.store(usize::MAX, Ordering::SeqCst);
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
    let cache = temp();
    let mut options = home.options();
    options.cache_dir = Some(cache.path().to_owned());
    let store = SidecarStore::new(options);
    for micros in [0, 50, 200, 1000, 3000] {
        let lookup = look(&store, &at, Cosine, 2000);
        let _ = tokio::time::timeout(Duration::from_micros(micros), lookup).await;
    }
    assert_eq!(code(&look(&store, &at, Cosine, 2000).await), "fresh");
    let left = names(cache.path().join("sidecars-1"));
    assert_eq!(left.len(), 1, "{left:?}");
}

/// A store that takes its time, what it was asked for, and how much of that at once.
fn slow(inner: Arc<InMemory>) -> (Arc<Wrapped>, Arc<Mutex<Vec<Call>>>, Arc<AtomicUsize>) {
    let (calls, most) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let under_way = Arc::new(AtomicUsize::new(0));
    let (log, peak) = (Arc::clone(&calls), Arc::clone(&most));
    let door = move |call| {
        log.lock().expect("no panic").push(call);
        let (peak, under_way) = (Arc::clone(&peak), Arc::clone(&under_way));
        let wait = async move {
            peak.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            under_way.fetch_sub(1, Ordering::SeqCst);
            Fate::Done
        };
        wait.boxed()
    };
    (Wrapped::new(inner, door), calls, most)
}

#[tokio::test]
async fn a_large_sidecar_is_fetched_in_ranges_side_by_side_and_once() {
    let memory = Arc::new(InMemory::new());
    let home = Home::remote("memory", "s3://bucket", Arc::clone(&memory) as _);
    publish(&home.store(), &(home.place)("t.parquet"), Cosine, 2000).await;
    let (slow, calls, most) = slow(memory);
    let home = Home::remote("memory", "s3://bucket", slow);
    let mut options = home.options();
    (options.fetch_part, options.fetch_parallel) = (20_000, 5);
    let store = SidecarStore::new(options);
    let at = (home.place)("t.parquet");
    let found = look(&store, &at, Cosine, 2000).await;
    let bytes = found.fresh().expect("fresh").bytes();
    assert_eq!(code(&look(&store, &at, Cosine, 2000).await), "fresh");
    let calls = calls.lock().expect("no panic");
    let parts = calls
        .iter()
        .filter(|call| matches!(call, Call::Get(_, true)))
        .count();
    assert_eq!(parts as u64, bytes.div_ceil(20_000), "{calls:?}");
    assert!(
        !calls.iter().any(|call| matches!(call, Call::Get(_, false))),
        "{calls:?}"
    );
    assert_eq!(most.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn the_sidecars_of_many_files_are_fetched_side_by_side() {
    let memory = Arc::new(InMemory::new());
    let home = Home::remote("memory", "s3://bucket", Arc::clone(&memory) as _);
    let writer = home.store();
    for number in 0..24 {
        publish(&writer, &(home.place)(&format!("{number}.parquet")), Cosine, 3).await;
    }
    let (slow, _, most) = slow(memory);
    let home = Home::remote("memory", "s3://bucket", slow);
    let mut options = home.options();
    (options.lookup_parallel, options.fetch_part) = (6, 1 << 20);
    options.listing_ttl = Duration::from_secs(60);
    let files: Vec<_> = (0..24)
        .map(|number| ((home.place)(&format!("{number}.parquet")), identity("f", 3)))
        .collect();
    let found = SidecarStore::new(options).lookup_all(&files, "v", Cosine).await;
    assert!(found.iter().all(|lookup| lookup.fresh().is_some()), "{found:?}");
    // Each is preceded by looking into the cache directory, so they do not all begin at one moment.
    let most = most.load(Ordering::SeqCst);
    assert!((2..=6).contains(&most), "{most}");
}

#[tokio::test]
async fn the_directories_of_a_table_are_listed_side_by_side() {
    let memory = Arc::new(InMemory::new());
    let home = Home::remote("memory", "s3://bucket", Arc::clone(&memory) as _);
    let file = |home: &Home, number| (home.place)(&format!("p={number}/t.parquet"));
    for number in 0..12 {
        publish(&home.store(), &file(&home, number), Cosine, 3).await;
    }
    let (slow, calls, most) = slow(memory);
    let home = Home::remote("memory", "s3://bucket", slow);
    let mut options = home.options();
    (options.lookup_parallel, options.fetch_part) = (6, 1 << 20);
    let files: Vec<_> = (0..12).map(|number| file(&home, number)).collect();
    let entries = SidecarStore::new(options).list(&files).await.expect("listed");
    assert!(entries.is_sorted_by_key(|entry| &entry.url));
    assert_eq!(entries.iter().filter(|entry| entry.opened.is_ok()).count(), 12);
    let lists = calls
        .lock()
        .expect("no panic")
        .iter()
        .filter(|call| **call == Call::List)
        .count();
    assert_eq!(
        lists, 13,
        "one for each directory, and one for all of those next to the table's"
    );
    assert_eq!(most.load(Ordering::SeqCst), 6);
}
