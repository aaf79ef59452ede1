//! What every store must do, whatever it is made of.

use std::sync::Arc;
use std::time::Duration;

use datafusion_hnsw::hnsw::VectorMetric::{self, Cosine, DotProduct, Euclidean};
use datafusion_hnsw::sidecar::{LoadedFrom, Location, Lookup, SidecarDir, SidecarStore, StoreError};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;

use crate::sample::{Home, identity, index, meta, temp};

#[tokio::test]
async fn local_directories_conform() {
    conforms(&Home::local()).await;
}

#[tokio::test]
async fn memory_conforms() {
    conforms(&Home::remote("memory", "memory:///", Arc::new(InMemory::new()))).await;
}

#[tokio::test]
async fn a_file_system_behind_an_object_store_conforms() {
    let dir = temp();
    let store = LocalFileSystem::new_with_prefix(dir.path()).expect("a directory");
    conforms(&Home::remote("files", "files:///", Arc::new(store))).await;
}

#[tokio::test]
async fn a_sidecar_directory_in_a_store_conforms() {
    let elsewhere: Arc<dyn object_store::ObjectStore> = Arc::new(InMemory::new());
    let mut home = Home::local();
    let place = home.place;
    home.place = Box::new(move |file| {
        let dir = SidecarDir {
            store: Arc::clone(&elsewhere),
            store_url: "memory:///".to_owned(),
            prefix: "indexes".into(),
            local: None,
        };
        place(file).with_sidecar_dir(Some(dir))
    });
    (home.name, home.locks) = ("local with a sidecar directory in memory", false);
    conforms(&home).await;
}

/// The suite.
pub async fn conforms(home: &Home) {
    println!("{}: published and found", home.name);
    a_published_sidecar_is_found_by_everyone(home).await;
    println!("{}: replaced", home.name);
    a_replaced_sidecar_serves_those_who_hold_it(home).await;
    println!("{}: stale", home.name);
    other_bytes_are_stale(home).await;
    println!("{}: damaged", home.name);
    damaged_bytes_are_refused_until_they_are_replaced(home).await;
    println!("{}: two builders", home.name);
    of_two_builders_one_wins_and_the_other_says_so(home).await;
    println!("{}: large", home.name);
    a_large_sidecar_arrives_whole(home).await;
    println!("{}: list", home.name);
    a_directory_lists_all_its_sidecars(home).await;
}

pub async fn publish(store: &Arc<SidecarStore>, at: &Location, metric: VectorMetric, rows: usize) {
    let source = identity(at.parquet.filename().expect("a name"), rows as u64);
    let published = store
        .publish(at, index(metric, rows), meta("v", source))
        .await
        .expect("published");
    assert_eq!(published.url, at.sidecar_url("v", metric));
}

pub async fn look(store: &SidecarStore, at: &Location, metric: VectorMetric, rows: usize) -> Lookup {
    store.lookup(at, "v", metric, &identity("any", rows as u64)).await
}

pub fn code(lookup: &Lookup) -> String {
    lookup
        .reason()
        .map_or("fresh".to_owned(), |reason| reason.code().into_owned())
}

async fn a_published_sidecar_is_found_by_everyone(home: &Home) {
    let at = (home.place)("found.parquet");
    let (ours, theirs) = (home.store(), home.store());
    assert_eq!(code(&look(&ours, &at, Cosine, 3).await), "no_sidecar");
    assert_eq!(code(&look(&theirs, &at, Cosine, 3).await), "no_sidecar");
    publish(&theirs, &at, Cosine, 3).await;
    for store in [&ours, &theirs, &home.store()] {
        let found = look(store, &at, Cosine, 3).await;
        assert_eq!(code(&found), "fresh");
        let sidecar = found.fresh().expect("fresh");
        assert_eq!(sidecar.node_count(), 3);
        assert_eq!(sidecar.url(), at.sidecar_url("v", Cosine));
        assert_eq!(sidecar.loaded_from() == LoadedFrom::Local, home.name == "local");
        let again = look(store, &at, Cosine, 3).await;
        assert!(Arc::ptr_eq(sidecar, again.fresh().expect("fresh")), "opened once");
        assert_eq!(code(&look(store, &at, Euclidean, 3).await), "metric_mismatch");
        assert_eq!(
            code(&store.lookup(&at, "w", Cosine, &identity("x", 3)).await),
            "no_sidecar"
        );
    }
    // Two sidecars of one column.
    publish(&ours, &at, Euclidean, 3).await;
    assert_eq!(code(&look(&theirs, &at, Euclidean, 3).await), "fresh");
    assert_eq!(code(&look(&theirs, &at, Cosine, 3).await), "fresh");

    assert!(ours.remove(&at, "v", Cosine).await.expect("removed"));
    assert!(!ours.remove(&at, "v", Cosine).await.expect("nothing to remove"));
    assert_eq!(code(&look(&ours, &at, Cosine, 3).await), "metric_mismatch");
    assert!(ours.remove(&at, "v", Euclidean).await.expect("removed"));
    assert_eq!(code(&look(&ours, &at, Cosine, 3).await), "no_sidecar");
    assert_eq!(code(&look(&home.store(), &at, Cosine, 3).await), "no_sidecar");
}

async fn a_replaced_sidecar_serves_those_who_hold_it(home: &Home) {
    let at = (home.place)("replaced.parquet");
    let (ours, theirs) = (home.store(), home.store());
    publish(&ours, &at, Cosine, 5).await;
    let old = look(&theirs, &at, Cosine, 5).await;
    publish(&ours, &at, Cosine, 7).await;
    assert_eq!(code(&look(&ours, &at, Cosine, 7).await), "fresh");
    // Known listings may lag, once: then the old sidecar is refused by the identity of the new bytes.
    if code(&look(&theirs, &at, Cosine, 7).await) != "fresh" {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(code(&look(&theirs, &at, Cosine, 7).await), "fresh");
    }
    assert!(ours.remove(&at, "v", Cosine).await.expect("removed"));
    let old = old.fresh().expect("was fresh");
    assert_eq!(old.node_count(), 5);
    assert_eq!(old.meta().sources, [identity("replaced.parquet", 5)]);
}

async fn other_bytes_are_stale(home: &Home) {
    let at = (home.place)("stale.parquet");
    let store = home.store();
    let mut source = identity("stale.parquet", 4);
    source.e_tag = Some("one".to_owned());
    store
        .publish(&at, index(DotProduct, 4), meta("v", source.clone()))
        .await
        .expect("published");
    type Change = fn(&mut datafusion_hnsw::format::SourceIdentity);
    let cases: [(&str, Change); 7] = [
        ("fresh", |_| {}),
        ("fresh", |now| now.file_name = "renamed.parquet".to_owned()),
        ("fresh", |now| now.e_tag = None),
        ("stale:size", |now| now.size += 1),
        ("stale:rows", |now| now.rows += 1),
        ("stale:footer", |now| now.footer_hash = "other".to_owned()),
        ("stale:etag", |now| now.e_tag = Some("two".to_owned())),
    ];
    for (expected, change) in cases {
        let mut now = source.clone();
        change(&mut now);
        let found = store.lookup(&at, "v", DotProduct, &now).await;
        assert_eq!(code(&found), expected);
        if let Some(reason) = found.reason() {
            assert!(reason.to_string().contains("rebuild"), "{reason}");
        }
    }
    // One graph over several files, as later versions may write, and one that does not say over which.
    for (sources, words) in [
        (
            vec![source.clone(), identity("other.parquet", 9)],
            "one graph over 2 files",
        ),
        (vec![], "does not say"),
    ] {
        let mut meta = meta("v", source.clone());
        meta.sources = sources;
        store
            .publish(&at, index(DotProduct, 4), meta)
            .await
            .expect("published");
        let found = store.lookup(&at, "v", DotProduct, &source).await;
        assert_eq!(code(&found), "stale:source");
        let reason = found.reason().expect("not fresh").to_string();
        assert!(reason.contains(words), "{reason}");
    }
    assert!(store.remove(&at, "v", DotProduct).await.expect("removed"));
}

async fn damaged_bytes_are_refused_until_they_are_replaced(home: &Home) {
    let at = (home.place)("damaged.parquet");
    let store = home.store();
    for bytes in [&b""[..], b"PFA1", &[0; 5000], b"{\"not\": \"a sidecar\"}"] {
        let lease = store.begin(&at, "v", Cosine).await.expect("nobody else");
        lease
            .publish_with(move |out| out.write_all(bytes))
            .await
            .expect("published");
        let found = look(&store, &at, Cosine, 3).await;
        assert!(code(&found).starts_with("damaged:"), "{}", code(&found));
        let opened = store.stats().opened;
        assert!(code(&look(&store, &at, Cosine, 3).await).starts_with("damaged:"));
        assert_eq!(store.stats().opened, opened);
    }
    publish(&store, &at, Cosine, 3).await;
    assert_eq!(code(&look(&store, &at, Cosine, 3).await), "fresh");
    // Another column's sidecar under this column's name.
    let lease = store.begin(&at, "v", Cosine).await.expect("nobody else");
    lease
        .publish(index(Cosine, 3), meta("w", identity("x", 3)))
        .await
        .expect("published");
    assert_eq!(code(&look(&store, &at, Cosine, 3).await), "column_mismatch");
    let lease = store.begin(&at, "v", Cosine).await.expect("nobody else");
    lease
        .publish(index(Euclidean, 3), meta("v", identity("x", 3)))
        .await
        .expect("published");
    assert_eq!(code(&look(&store, &at, Cosine, 3).await), "metric_mismatch");
    assert!(store.remove(&at, "v", Cosine).await.expect("removed"));
}

async fn of_two_builders_one_wins_and_the_other_says_so(home: &Home) {
    let at = (home.place)("two.parquet");
    let (ours, theirs) = (home.store(), home.store());
    let first = ours.begin(&at, "v", Cosine).await.expect("nobody else");
    assert!(matches!(
        ours.begin(&at, "v", Cosine).await,
        Err(StoreError::Busy { .. })
    ));
    assert!(matches!(
        ours.remove(&at, "v", Cosine).await,
        Err(StoreError::Busy { .. })
    ));
    let other = ours.begin(&at, "v", Euclidean).await.expect("another sidecar");
    drop(other);
    match theirs.begin(&at, "v", Cosine).await {
        Err(StoreError::Busy { .. }) if home.locks => {
            first
                .publish(index(Cosine, 3), meta("v", identity("two.parquet", 3)))
                .await
                .expect("we win");
        }
        Ok(second) if !home.locks => {
            first
                .publish(index(Cosine, 3), meta("v", identity("two.parquet", 3)))
                .await
                .expect("we win");
            let lost = second
                .publish(index(Cosine, 4), meta("v", identity("two.parquet", 4)))
                .await;
            // A store without conditional requests lets the last one win: then it stands, whole.
            if home.name != "files" {
                assert!(matches!(lost, Err(StoreError::Superseded { .. })), "{lost:?}");
            }
        }
        other => panic!("{other:?}"),
    }
    let rows =
        if home.name == "files" && !matches!(look(&home.store(), &at, Cosine, 3).await, Lookup::Fresh(_)) {
            4
        } else {
            3
        };
    assert_eq!(code(&look(&home.store(), &at, Cosine, rows).await), "fresh");
    // The same bytes twice is no conflict worth telling: builds are deterministic.
    drop(
        ours.begin(&at, "v", Cosine)
            .await
            .expect("the lease was given back"),
    );
    assert!(ours.remove(&at, "v", Cosine).await.expect("removed"));
}

async fn a_large_sidecar_arrives_whole(home: &Home) {
    let at = (home.place)("large.parquet");
    publish(&home.store(), &at, Euclidean, 3000).await;
    let mut options = home.options();
    let fresh_cache = temp();
    options.cache_dir = Some(fresh_cache.path().to_owned());
    let store = SidecarStore::new(options);
    let found = look(&store, &at, Euclidean, 3000).await;
    let sidecar = found.fresh().expect("fresh");
    assert!(sidecar.bytes() > 40_000);
    let expected = if home.name == "local" { 0 } else { sidecar.bytes() };
    assert_eq!(store.stats().bytes_fetched, expected);
    assert_eq!(sidecar.node_count(), 3000);
    assert!(store.remove(&at, "v", Euclidean).await.expect("removed"));
}

async fn a_directory_lists_all_its_sidecars(home: &Home) {
    let store = home.store();
    let (one, two, gone) = (
        (home.place)("l1.parquet"),
        (home.place)("l2.parquet"),
        (home.place)("l0.parquet"),
    );
    publish(&store, &one, Cosine, 3).await;
    publish(&store, &one, Euclidean, 3).await;
    publish(&store, &gone, Cosine, 3).await;
    let lease = store.begin(&two, "v", Cosine).await.expect("nobody else");
    lease
        .publish_with(|out| out.write_all(b"nonsense"))
        .await
        .expect("published");
    let entries = home
        .store()
        .list(&[one.clone(), two.clone()])
        .await
        .expect("listed");
    let seen: Vec<_> = entries
        .iter()
        .map(|entry| {
            let state = entry
                .state(&identity("x", 3))
                .map_err(|reason| reason.code().into_owned());
            (
                entry.name.to_string(),
                entry.location,
                entry.building,
                state.err().unwrap_or("fresh".to_owned()),
            )
        })
        .collect();
    let expected = [
        ("l0.parquet.v.cosine.hnsw", None, "fresh"),
        ("l1.parquet.v.cosine.hnsw", Some(0), "fresh"),
        ("l1.parquet.v.l2.hnsw", Some(0), "fresh"),
        ("l2.parquet.v.cosine.hnsw", Some(1), "damaged"),
    ];
    assert_eq!(seen.len(), expected.len(), "{seen:?}");
    for ((name, location, building, state), expected) in seen.iter().zip(expected) {
        assert_eq!(
            (name.as_str(), *location, *building),
            (expected.0, expected.1, false)
        );
        assert!(state.starts_with(expected.2), "{state}");
    }
    for (at, metric) in [(&one, Cosine), (&one, Euclidean), (&gone, Cosine), (&two, Cosine)] {
        assert!(store.remove(at, "v", metric).await.expect("removed"));
    }
    assert!(store.list(&[one]).await.expect("listed").is_empty());
}
