//! What children do to a store of sidecars.

use std::path::Path;
use std::sync::Arc;

use datafusion_hnsw::hnsw::VectorMetric::Cosine;
use datafusion_hnsw::sidecar::{Location, SidecarOptions, SidecarStore, StoreError};

use crate::child::{ROWS, options, place, place_of};
use crate::conformance::code;
use crate::sample::{identity, index, meta};

pub async fn play(role: &str, dir: &Path) {
    let store = SidecarStore::new(options(dir));
    let indexes = ROWS.map(|rows| (rows, index(Cosine, rows)));
    let publish = async |at: &Location, turn: usize| {
        let (rows, index) = &indexes[turn % 2];
        store
            .publish(
                at,
                Arc::clone(index),
                meta("v", identity("t.parquet", *rows as u64)),
            )
            .await
    };
    let remote = role.starts_with("remote");
    let at = place(dir, remote);
    match role {
        // Until it is killed.
        "publish" | "remote publish" => {
            println!("at work");
            for turn in 0.. {
                publish(&at, turn).await.expect("published");
            }
        }
        "publish and remove" => {
            println!("at work");
            for turn in 0.. {
                publish(&at, turn).await.expect("published");
                store.remove(&at, "v", Cosine).await.expect("removed");
            }
        }
        "remote fill" => {
            println!("at work");
            loop {
                let store = SidecarStore::new(options(dir));
                let rows = ROWS[1];
                store
                    .lookup(&at, "v", Cosine, &identity("t.parquet", rows as u64))
                    .await;
                let _ = std::fs::remove_dir_all(dir.join("cache"));
            }
        }
        // Sidecars come and go in a cache directory that holds two of six.
        "remote churn" => {
            let place = |number| place_of(dir, &format!("f{number}.parquet"));
            let files: Vec<_> = (0..6).map(place).collect();
            for file in &files {
                if store
                    .publish(file, Arc::clone(&indexes[1].1), meta("v", identity("f", 9)))
                    .await
                    .is_err()
                {
                    println!("another child published it");
                }
            }
            let until = std::time::Instant::now() + std::time::Duration::from_millis(1500);
            let mut lookups = 0;
            while std::time::Instant::now() < until {
                let mut options = options(dir);
                options.cache_size = 700_000;
                let store = SidecarStore::new(options);
                let at = &files[lookups * 7 % 6];
                let found = store.lookup(at, "v", Cosine, &identity("f", 9)).await;
                assert_eq!(code(&found), "fresh", "{found:?}");
                assert_eq!(found.fresh().expect("fresh").verify(), Ok(()));
                lookups += 1;
            }
            println!("lookups {lookups}");
        }
        "publish once" => drop(publish(&at, 0).await.expect("published")),
        // With the cache directory that nobody has named.
        "remote look by default" => {
            let store = SidecarStore::new(SidecarOptions::default());
            let found = store
                .lookup(&at, "v", Cosine, &identity("t.parquet", ROWS[0] as u64))
                .await;
            println!("found {} {:?}", code(&found), found.reason());
        }
        "look" | "remote look" => {
            let rows = ROWS[usize::from(remote)] as u64;
            let found = store.lookup(&at, "v", Cosine, &identity("t.parquet", rows)).await;
            println!("found {}", code(&found));
        }
        // One attempt, whose outcome is told.
        "try" => {
            let outcome = match publish(&at, 1).await {
                Ok(_) => "published".to_owned(),
                Err(error @ StoreError::NoSpace { .. }) => format!("no space: {error}"),
                Err(error @ StoreError::Denied { .. }) => format!("denied: {error}"),
                Err(error) => format!("other: {error:?}"),
            };
            println!("outcome {outcome}");
            let found = store
                .lookup(&at, "v", Cosine, &identity("t.parquet", ROWS[0] as u64))
                .await;
            println!("found {}", code(&found));
            let removed = store.remove(&at, "v", Cosine).await;
            println!(
                "removed {}",
                removed.map_or_else(|error| error.to_string(), |there| there.to_string())
            );
        }
        other => panic!("no role {other:?}"),
    }
}
