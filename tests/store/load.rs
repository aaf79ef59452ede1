//! Many readers while sidecars are built, replaced and dropped; and what lookups cost.
//!
//! `HNSW_LOAD_SECONDS` sets how long the load lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use datafusion_hnsw::hnsw::SearchOptions;
use datafusion_hnsw::hnsw::VectorMetric::{Cosine, Euclidean};
use datafusion_hnsw::sidecar::{SidecarStore, StoreError};
use object_store::memory::InMemory;

use crate::conformance::{code, publish};
use crate::sample::{Home, identity, index, meta, names};

pub fn seconds() -> f64 {
    std::env::var("HNSW_LOAD_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_never_notice_writers_in_a_directory() {
    readers_never_notice_writers(Home::local()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_never_notice_writers_in_a_store() {
    let memory = Arc::new(InMemory::new());
    readers_never_notice_writers(Home::remote("memory", "s3://bucket", memory)).await;
}

/// Thirty readers, two writers and a dropper, all on one file that has either of two contents.
async fn readers_never_notice_writers(home: Home) {
    const ROWS: [usize; 2] = [40, 300];
    let at = (home.place)("t.parquet");
    let store = home.store();
    let query = [3.0, 0.5, 0.5, 9.0];
    let options = SearchOptions::new(5).ef(300);
    let indexes = ROWS.map(|rows| index(Euclidean, rows));
    let truth = [0, 1].map(|turn| indexes[turn].search(&query, 5, 300));
    let stop = Arc::new(AtomicBool::new(false));
    let counts: Arc<[AtomicUsize; 3]> = Arc::default();
    let mut tasks = Vec::new();
    for reader in 0..30_usize {
        let (store, at, stop, counts, truth) = (
            Arc::clone(&store),
            at.clone(),
            Arc::clone(&stop),
            Arc::clone(&counts),
            truth.clone(),
        );
        tasks.push(tokio::spawn(async move {
            for turn in reader.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let rows = ROWS[turn % 2];
                let found = store
                    .lookup(&at, "v", Euclidean, &identity("t.parquet", rows as u64))
                    .await;
                let which = match code(&found).as_str() {
                    "fresh" => 0,
                    "stale:size" => 1,
                    "no_sidecar" => 2,
                    other => panic!("{other}: {found:?}"),
                };
                counts[which].fetch_add(1, Ordering::Relaxed);
                if let Some(sidecar) = found.fresh() {
                    let hits = sidecar.search(&query, &options).expect("whole").hits;
                    let hits: Vec<_> = hits.iter().map(|hit| (hit.row, hit.distance)).collect();
                    assert_eq!(hits, truth[turn % 2]);
                }
                tokio::task::yield_now().await;
            }
        }));
    }
    for writer in 0..3_usize {
        let (store, at, stop, indexes) = (home.store(), at.clone(), Arc::clone(&stop), indexes.clone());
        tasks.push(tokio::spawn(async move {
            for turn in writer.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let rows = ROWS[turn % 2] as u64;
                let done = if writer < 2 {
                    let source = meta("v", identity("t.parquet", rows));
                    store
                        .publish(&at, Arc::clone(&indexes[turn % 2]), source)
                        .await
                        .map(|_| ())
                } else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    store.remove(&at, "v", Euclidean).await.map(|_| ())
                };
                match done {
                    Ok(()) | Err(StoreError::Busy { .. } | StoreError::Superseded { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }));
    }
    let handles = || {
        if cfg!(target_os = "linux") {
            names("/proc/self/fd").len()
        } else {
            0
        }
    };
    let maps = || std::fs::read_to_string("/proc/self/maps").map_or(0, |text| text.lines().count());
    tokio::time::sleep(Duration::from_secs_f64(seconds() / 2.0)).await;
    let before = (handles(), maps());
    tokio::time::sleep(Duration::from_secs_f64(seconds() / 2.0)).await;
    let after = (handles(), maps());
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("no panic");
    }
    println!(
        "{}: fresh, stale, missing: {counts:?}; handles and maps at half time {before:?}, at the end {after:?}",
        home.name
    );
    assert!(
        counts.iter().all(|count| count.load(Ordering::Relaxed) > 0),
        "{counts:?}"
    );
    let budget = store.options().max_open;
    assert!(store.stats().open_now <= budget);
}

/// Also prints what the lookups cost; `HNSW_LOOKUP_FILES=1000` with `--nocapture` for a measurement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sidecars_of_many_files_are_found_at_once() {
    let given = std::env::var("HNSW_LOOKUP_FILES")
        .ok()
        .and_then(|files| files.parse().ok());
    let count: usize = given.unwrap_or(100);
    let homes = [
        Home::local(),
        Home::remote("memory", "s3://bucket", Arc::new(InMemory::new())),
    ];
    for home in homes {
        let mut files = Vec::new();
        let writer = home.store();
        for number in 0..count {
            let at = (home.place)(&format!("part-{number:05}.parquet"));
            if number % 10 != 9 {
                publish(&writer, &at, Cosine, 100).await;
            }
            files.push((at, identity("f", 100)));
        }
        let mut options = home.options();
        options.listing_ttl = Duration::from_secs(60);
        let store = SidecarStore::new(options.clone());
        for round in ["cold", "warm", "warm"] {
            let begun = Instant::now();
            let found = store.lookup_all(&files, "v", Cosine).await;
            let fresh = found.iter().filter(|lookup| lookup.fresh().is_some()).count();
            println!(
                "{} {round}: {fresh} of {count} fresh in {:?}",
                home.name,
                begun.elapsed()
            );
            assert_eq!(fresh, count - count / 10);
        }
        let emptied = crate::sample::temp();
        options.cache_dir = Some(emptied.path().to_owned());
        let store = SidecarStore::new(options);
        let begun = Instant::now();
        store.lookup_all(&files, "v", Cosine).await;
        println!(
            "{} with an empty cache: {:?}, {:?}",
            home.name,
            begun.elapsed(),
            store.stats()
        );
    }
}
