//! Sidecars on the local file system: hostile bytes, budgets, leftovers, and files that change.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion_hnsw::hnsw::VectorMetric::{Cosine, Euclidean};
use datafusion_hnsw::sidecar::{SidecarStore, StoreError};

use crate::conformance::{code, look, publish};
use crate::sample::{Home, identity, index, meta, names, sidecars, temp};

#[tokio::test]
async fn a_missing_directory_is_told() {
    let home = Home::local();
    let at = (home.place)("no/such/t.parquet");
    let store = home.store();
    assert_eq!(code(&look(&store, &at, Cosine, 3).await), "no_sidecar");
    assert!(store.begin(&at, "v", Cosine).await.is_err());
    assert!(!store.remove(&at, "v", Cosine).await.expect("nothing to remove"));
    assert!(store.list(&[at]).await.expect("listed").is_empty());
}

#[tokio::test]
async fn a_sidecar_directory_takes_files_of_the_same_name() {
    let (home, elsewhere) = (Home::local(), temp());
    let dir = datafusion_hnsw::sidecar::SidecarDir {
        store: Arc::new(object_store::memory::InMemory::new()),
        store_url: "file:///".to_owned(),
        prefix: Default::default(),
        local: Some(elsewhere.path().to_owned()),
    };
    let place = |name| (home.place)(name).with_sidecar_dir(Some(dir.clone()));
    let (one, two) = (place("p=1/t.parquet"), place("p=2/t.parquet"));
    let store = home.store();
    publish(&store, &one, Cosine, 3).await;
    publish(&store, &two, Cosine, 4).await;
    assert_eq!(code(&look(&store, &one, Cosine, 3).await), "fresh");
    assert_eq!(code(&look(&store, &two, Cosine, 4).await), "fresh");
    assert_eq!(names(elsewhere.path()), ["file"]);
    assert_eq!(store.list(&[one, two]).await.expect("listed").len(), 2);
}

#[tokio::test]
async fn hostile_bytes_are_refused_or_searched_without_harm() {
    let home = Home::local();
    let at = (home.place)("t.parquet");
    let store = home.store();
    publish(&store, &at, Cosine, 40).await;
    let path = at.sidecar_url("v", Cosine);
    let good = std::fs::read(&path).expect("published");
    let searched = async |bytes: &[u8]| {
        // As others replace files: another inode under the same name.
        std::fs::write(format!("{path}.new"), bytes).expect("room");
        std::fs::rename(format!("{path}.new"), &path).expect("ours");
        let found = look(&store, &at, Cosine, 40).await;
        if let Some(sidecar) = found.fresh() {
            let options = datafusion_hnsw::hnsw::SearchOptions::new(5).ef(10);
            let _ = sidecar.search(&[1.0, 2.0, 3.0, 4.0], &options);
        }
        code(&found)
    };
    for length in (0..good.len()).step_by(13) {
        assert!(
            searched(&good[..length]).await.starts_with("damaged:"),
            "cut to {length}"
        );
    }
    let mut codes = std::collections::BTreeMap::new();
    for place in (0..good.len()).step_by(5) {
        let mut bad = good.clone();
        bad[place] ^= 0x55;
        *codes.entry(searched(&bad).await).or_insert(0) += 1;
    }
    println!("{codes:?}");
    let mut newer = good.clone();
    newer[12] = 99;
    assert_eq!(searched(&newer).await, "newer_format");
    assert_eq!(searched(&good).await, "fresh");
}

#[tokio::test]
async fn open_sidecars_stay_within_their_budget_and_hold_no_handles() {
    let home = Home::local();
    let mut options = home.options();
    options.max_open = 10;
    let store = SidecarStore::new(options);
    let handles = || names("/proc/self/fd").len();
    let mut files = Vec::new();
    for number in 0..60 {
        let at = (home.place)(&format!("f{number}.parquet"));
        publish(&store, &at, Cosine, 3).await;
        files.push((at, identity("f", 3)));
    }
    let before = if cfg!(target_os = "linux") { handles() } else { 0 };
    let held = store.lookup_all(&files, "v", Cosine).await;
    assert!(
        held.iter()
            .all(|lookup| lookup.fresh().is_some_and(|sidecar| sidecar.node_count() == 3))
    );
    assert!(store.stats().open_now <= 10);
    if cfg!(target_os = "linux") {
        assert!(
            handles() <= before + 8,
            "other tests open some files of their own"
        );
    }
}

#[tokio::test]
async fn warm_lookups_open_nothing() {
    let home = Home::local();
    let at = (home.place)("t.parquet");
    let store = home.store();
    publish(&store, &at, Cosine, 3).await;
    for _ in 0..100 {
        assert_eq!(code(&look(&store, &at, Cosine, 3).await), "fresh");
    }
    assert_eq!(store.stats().opened, 1);
    assert_eq!(store.stats().lookups, 100);
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_not_a_file_is_no_sidecar() {
    let home = Home::local();
    let store = home.store();
    for (name, make) in [("pipe", "mkfifo"), ("dir", "mkdir")] {
        let at = (home.place)(&format!("{name}.parquet"));
        let dir = at
            .local
            .as_deref()
            .and_then(std::path::Path::parent)
            .expect("local");
        std::fs::create_dir_all(sidecars(dir)).expect("room");
        let made = Command::new(make).arg(at.sidecar_url("v", Cosine)).status();
        assert!(made.is_ok_and(|status| status.success()));
        let looked =
            tokio::time::timeout(std::time::Duration::from_secs(5), look(&store, &at, Cosine, 3)).await;
        assert_eq!(code(&looked.expect("does not wait for a writer")), "damaged:file");
    }
}

#[tokio::test]
async fn leftovers_of_dead_builders_go_with_the_next_build_in_their_directory() {
    let home = Home::local();
    let at = (home.place)("t.parquet");
    let dir = std::path::PathBuf::from(at.sidecar_url("v", Cosine))
        .parent()
        .expect("a directory")
        .to_owned();
    std::fs::create_dir_all(&dir).expect("room");
    for name in [".gone.parquet.v.l2.hnsw.part", ".notes.part", "x.hnsw.part"] {
        std::fs::write(dir.join(name), "half").expect("room");
    }
    let store = home.store();
    let live = home
        .store()
        .begin(&at, "v", Euclidean)
        .await
        .expect("nobody else");
    publish(&store, &at, Cosine, 3).await;
    let expected = [
        ".notes.part",
        ".t.parquet.v.l2.hnsw.part",
        "t.parquet.v.cosine.hnsw",
        "x.hnsw.part",
    ];
    assert_eq!(names(&dir), expected, "what is not ours or not dead stays");
    drop(live);
}

#[tokio::test]
async fn a_reader_finishes_with_the_sidecar_it_began_with() {
    let home = Home::local();
    let at = (home.place)("t.parquet");
    let store = home.store();
    publish(&store, &at, Euclidean, 800).await;
    let held = look(&store, &at, Euclidean, 800).await;
    let held = held.fresh().expect("fresh");
    let options = datafusion_hnsw::hnsw::SearchOptions::new(10).ef(800);
    let search = || held.search(&[3.0, 0.5, 0.5, 9.0], &options).expect("whole").hits;
    let before = search();
    publish(&store, &at, Euclidean, 90).await;
    assert_eq!(search(), before);
    assert!(store.remove(&at, "v", Euclidean).await.expect("removed"));
    assert_eq!(search(), before);
    assert_eq!(held.verify(), Ok(()));
}

#[tokio::test]
async fn another_e_tag_of_a_local_file_is_settled_by_its_bytes() {
    let home = Home::local();
    let at = (home.place)("t.parquet");
    let parquet = at.local.clone().expect("local");
    std::fs::write(&parquet, [1; 1003]).expect("room");
    let mut source = identity("t.parquet", 3);
    source.e_tag = Some("then".to_owned());
    let store = home.store();
    store
        .publish(&at, index(Cosine, 3), meta("v", source.clone()))
        .await
        .expect("published");
    let look = async |store: &SidecarStore, now: &datafusion_hnsw::format::SourceIdentity| {
        code(&store.lookup(&at, "v", Cosine, now).await)
    };
    assert_eq!(look(&store, &source).await, "fresh");
    source.e_tag = Some("now".to_owned());
    // Touched or copied: the same bytes.
    for store in [&store, &home.store()] {
        assert_eq!(look(store, &source).await, "fresh");
    }
    // The same size and footer, but two rows have changed places.
    let mut swapped = [1; 1003];
    swapped[500] = 2;
    std::fs::write(&parquet, swapped).expect("room");
    for store in [&store, &home.store()] {
        assert_eq!(look(store, &source).await, "stale:content");
    }
    std::fs::remove_file(&parquet).expect("ours");
    assert_eq!(look(&store, &source).await, "stale:etag");
}

/// No query waits for the hash of a large file: until it is known, the file is answered exactly.
#[cfg(unix)]
#[tokio::test]
async fn a_large_file_with_another_e_tag_is_compared_behind_the_scenes() {
    let home = Home::local();
    let at = (home.place)("t.parquet");
    let parquet = at.local.clone().expect("local");
    // Takes no room on most file systems.
    let file = std::fs::File::create(&parquet).expect("room");
    file.set_len(257 << 20).expect("room");
    let mut source = identity("t.parquet", 3);
    source.e_tag = Some("then".to_owned());
    let store = home.store();
    let published = store.publish(&at, index(Cosine, 3), meta("v", source.clone()));
    published.await.expect("published");
    source.e_tag = Some("now".to_owned());
    let look = async || code(&store.lookup(&at, "v", Cosine, &source).await);
    assert_eq!(look().await, "checking");
    let settled = async |expected: &str| {
        let begun = Instant::now();
        while look().await == "checking" && begun.elapsed() < Duration::from_secs(60) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(look().await, expected);
    };
    settled("fresh").await;
    std::os::unix::fs::FileExt::write_all_at(&file, b"other", 1 << 20).expect("ours");
    settled("stale:content").await;
}

/// What one process found out about a file, later ones know; and what they cannot trust they find out again.
#[cfg(unix)]
#[tokio::test]
async fn a_large_file_is_compared_by_one_process_for_all_later_ones() {
    let home = Home::local();
    let at = (home.place)("t.parquet");
    // Takes no room on most file systems.
    let file = std::fs::File::create(at.local.as_deref().expect("local")).expect("room");
    file.set_len(257 << 20).expect("room");
    let mut source = identity("t.parquet", 3);
    source.e_tag = Some("then".to_owned());
    let published = home.store();
    let published = published.publish(&at, index(Cosine, 3), meta("v", source.clone()));
    published.await.expect("published");
    source.e_tag = Some("now".to_owned());
    // A file changed within the last two seconds could change again and keep its times.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let new_process = async |first: &str, settled: &str| {
        let store = home.store();
        let look = async || code(&store.lookup(&at, "v", Cosine, &source).await);
        assert_eq!(look().await, first);
        let begun = Instant::now();
        while look().await == "checking" && begun.elapsed() < Duration::from_secs(60) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(look().await, settled);
    };
    new_process("checking", "fresh").await;
    new_process("fresh", "fresh").await;

    let kept = home.cache.path().join("sidecars-1/source-hashes");
    let good = std::fs::read(&kept).expect("kept");
    assert_eq!(names(kept.parent().expect("a directory")), ["source-hashes"]);
    let mut hostile = vec![
        vec![],
        good[..good.len() - 1].to_vec(),
        b"\xff\0\n".repeat(1000),
        vec![b'0'; 9 << 20],
    ];
    for place in 0..good.len() - 1 {
        let mut bad = good.clone();
        bad[place] = if bad[place] == b'0' { b'1' } else { b'0' };
        hostile.push(bad);
    }
    hostile.truncate(12);
    for bytes in hostile {
        std::fs::write(&kept, bytes).expect("room");
        new_process("checking", "fresh").await;
        new_process("fresh", "fresh").await;
    }
    // Behind half a line that a killed process left.
    std::fs::write(&kept, [&good[..good.len() / 2], b"\n", &good[..]].concat()).expect("room");
    new_process("fresh", "fresh").await;
    std::fs::remove_file(&kept).expect("ours");
    assert!(
        Command::new("mkfifo")
            .arg(&kept)
            .status()
            .is_ok_and(|status| status.success())
    );
    new_process("checking", "fresh").await;
    new_process("fresh", "fresh").await;

    std::os::unix::fs::FileExt::write_all_at(&file, b"other", 1 << 20).expect("ours");
    new_process("checking", "stale:content").await;
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_indexed_is_not_published() {
    let home = Home::local();
    let at = (home.place)("t.parquet");
    let parquet = at.local.clone().expect("local");
    std::fs::write(&parquet, "one").expect("room");
    let store = home.store();
    let lease = store.begin(&at, "v", Cosine).await.expect("nobody else");
    std::fs::write(&parquet, "another").expect("room");
    let published = lease
        .publish(index(Cosine, 3), meta("v", identity("t.parquet", 3)))
        .await;
    assert!(
        matches!(published, Err(StoreError::SourceChanged { .. })),
        "{published:?}"
    );
    assert_eq!(names(sidecars(parquet.parent().expect("local"))), [""; 0]);
}
