//! The whole life of a sidecar in a real S3 server over HTTP, on good days and bad ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion_hnsw::hnsw::VectorMetric::Cosine;
use datafusion_hnsw::sidecar::{Location, SidecarStore, StoreError};
use object_store::aws::AmazonS3;
use object_store::path::Path;

use crate::conformance::{code, conforms, look, publish};
use crate::sample::{Home, identity, index, meta};
use crate::server::{Fault, Request, S3};

/// For how long a client waits for an answer.
const SOON: Duration = Duration::from_secs(1);

fn at(client: &Arc<AmazonS3>) -> Location {
    Location::remote(
        Arc::clone(client) as _,
        "s3://bucket",
        Path::from("some/table/t.parquet"),
    )
}

fn store(home: &Home) -> Arc<SidecarStore> {
    let mut options = home.options();
    options.fetch_part = 16_000;
    options.timeout = Duration::from_secs(3);
    SidecarStore::new(options)
}

/// The file as seen through this client, and a process of its own to look from.
fn published(client: &Arc<AmazonS3>) -> (Location, Home) {
    (
        at(client),
        Home::remote("s3", "s3://bucket", Arc::clone(client) as _),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_conforms() {
    let server = S3::start();
    let home = Home::remote("s3", "s3://bucket", server.client());
    conforms(&home).await;
    let left = server.files();
    assert!(
        !left
            .iter()
            .any(|path| path.extension().is_some_and(|ending| ending == "hnsw")),
        "{left:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_costs_one_list_per_directory_and_nothing_when_warm() {
    let server = S3::start();
    let (client, log) = server.client_through(SOON, |_| Fault::None).await;
    let writer = Home::remote("s3", "s3://bucket", server.client());
    let place = |name: &str| {
        Location::remote(
            Arc::clone(&client) as _,
            "s3://bucket",
            Path::from(format!("some/table/{name}.parquet")),
        )
    };
    let names: Vec<String> = (0..20).map(|number| format!("f{number}")).collect();
    for name in &names[..10] {
        publish(
            &writer.store(),
            &(writer.place)(&format!("{name}.parquet")),
            Cosine,
            3,
        )
        .await;
    }
    let reader = Home::remote("s3", "s3://bucket", Arc::clone(&client) as _);
    let mut options = reader.options();
    options.listing_ttl = Duration::from_secs(60);
    let store = SidecarStore::new(options);
    let files: Vec<_> = names
        .iter()
        .map(|name| (place(name), identity(name, 3)))
        .collect();
    let found = store.lookup_all(&files, "v", Cosine).await;
    assert_eq!(found.iter().filter(|lookup| code(lookup) == "fresh").count(), 10);
    assert_eq!(
        found.iter().filter(|lookup| code(lookup) == "no_sidecar").count(),
        10
    );
    let lists = |log: &[Request]| {
        log.iter()
            .filter(|request| request.target.contains("list-type=2"))
            .count()
    };
    let heads = |log: &[Request]| log.iter().filter(|request| request.method == "HEAD").count();
    let seen = log.lock().expect("no panic").clone();
    // One of the place where sidecars are, and one of the place of earlier versions for the files that have none there.
    assert_eq!(lists(&seen), 2);
    assert!(
        heads(&seen) <= 10,
        "only for e-tags, which this server does not list"
    );
    assert!(seen.len() >= 11);
    store.lookup_all(&files, "v", Cosine).await;
    let now = log.lock().expect("no panic").clone();
    let gets = |log: &[Request]| log.iter().filter(|request| request.method == "GET").count();
    assert_eq!(gets(&now), gets(&seen), "nothing is listed or fetched twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_second_request_may_fail_and_the_sidecar_arrives_whole() {
    let server = S3::start();
    for fault in [Fault::Error, Fault::Slow, Fault::Truncate, Fault::Lost] {
        let writer = Home::remote("s3", "s3://bucket", server.client());
        let direct = at(&server.client());
        publish(&writer.store(), &direct, Cosine, 3000).await;
        let plan = move |request: &Request| {
            if request.number.is_multiple_of(2) {
                fault
            } else {
                Fault::None
            }
        };
        let (client, log) = server.client_through(SOON, plan).await;
        let (at, reader) = published(&client);
        let found = look(&store(&reader), &at, Cosine, 3000).await;
        let sidecar = found.fresh().unwrap_or_else(|| panic!("{fault:?}: {found:?}"));
        assert_eq!(sidecar.node_count(), 3000);
        assert_eq!(sidecar.verify(), Ok(()));
        assert!(log.lock().expect("no panic").len() > 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_down_costs_little_and_is_asked_again_later() {
    let server = S3::start();
    let writer = Home::remote("s3", "s3://bucket", server.client());
    publish(&writer.store(), &at(&server.client()), Cosine, 300).await;
    for fault in [Fault::Error, Fault::Hang] {
        let up = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let switch = Arc::clone(&up);
        let plan = move |_: &Request| {
            if switch.load(std::sync::atomic::Ordering::SeqCst) {
                Fault::None
            } else {
                fault
            }
        };
        let (client, log) = server.client_through(SOON, plan).await;
        let (at, reader) = published(&client);
        let mut options = reader.options();
        options.timeout = Duration::from_millis(500);
        options.retry_after = Duration::from_secs(1);
        let store = SidecarStore::new(options);
        assert_eq!(code(&look(&store, &at, Cosine, 300).await), "unavailable");
        let asked = log.lock().expect("no panic").len();
        let begun = Instant::now();
        assert_eq!(code(&look(&store, &at, Cosine, 300).await), "unavailable");
        assert!(
            begun.elapsed() < Duration::from_millis(200),
            "not asked again at once"
        );
        assert_eq!(log.lock().expect("no panic").len(), asked);
        up.store(true, std::sync::atomic::Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert_eq!(code(&look(&store, &at, Cosine, 300).await), "fresh", "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_on_a_bad_network_leaves_the_old_sidecar_or_the_new_one() {
    let server = S3::start();
    let writer = Home::remote("s3", "s3://bucket", server.client());
    let direct = at(&server.client());
    let (mut old, mut new, mut told) = (0, 0, 0);
    for fault in [Fault::Error, Fault::Truncate, Fault::Lost] {
        for failing in 0..4 {
            publish(&writer.store(), &direct, Cosine, 5).await;
            // One request and all of its repetitions.
            let plan = move |request: &Request| {
                if (failing..failing + 3).contains(&request.number) {
                    fault
                } else {
                    Fault::None
                }
            };
            let (client, _) = server.client_through(SOON, plan).await;
            let (at, home) = published(&client);
            let source = identity("t.parquet", 9);
            let done = home
                .store()
                .publish(&at, index(Cosine, 9), meta("v", source))
                .await;
            let reader = Home::remote("s3", "s3://bucket", server.client());
            let found = reader
                .store()
                .list(std::slice::from_ref(&direct))
                .await
                .expect("listed");
            let rows = found[0].opened.as_ref().expect("whole").node_count();
            match done {
                Ok(_) => assert_eq!(rows, 9),
                Err(error) => {
                    assert!(
                        matches!(
                            error,
                            StoreError::Unavailable { .. } | StoreError::Superseded { .. }
                        ),
                        "{error}"
                    );
                    told += 1;
                }
            }
            if rows == 9 { new += 1 } else { old += 1 }
        }
    }
    assert_eq!(old + new, 12);
    assert!(told > 0, "some must have failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_sidecar_is_sent_in_parts_and_an_interrupted_upload_leaves_nothing() {
    let server = S3::start();
    let direct = at(&server.client());
    let home = Home::remote("s3", "s3://bucket", server.client());
    let bytes = |seed: u8| -> Vec<u8> {
        (0..20 << 20)
            .map(|at: u32| (at >> 8).to_le_bytes()[0] ^ seed)
            .collect()
    };
    let store_ = home.store();
    let lease = store_.begin(&direct, "v", Cosine).await.expect("nobody else");
    let sent = lease
        .publish_with(move |out| out.write_all(&bytes(1)))
        .await
        .expect("published");
    assert_eq!(sent.bytes, 20 << 20);
    let before = server.files();

    let plan = |request: &Request| {
        let third = request.target.contains("partNumber=3");
        if third && request.method == "PUT" {
            Fault::Error
        } else {
            Fault::None
        }
    };
    let (client, _) = server.client_through(Duration::from_secs(20), plan).await;
    let (at, other) = published(&client);
    let store_ = other.store();
    let lease = store_.begin(&at, "v", Cosine).await.expect("nobody else");
    let failed = lease.publish_with(move |out| out.write_all(&bytes(2))).await;
    assert!(
        matches!(failed, Err(StoreError::Unavailable { .. })),
        "{failed:?}"
    );
    let sidecars = |files: Vec<std::path::PathBuf>| {
        files
            .into_iter()
            .filter(|path| path.extension().is_some_and(|ending| ending == "hnsw"))
            .collect::<Vec<_>>()
    };
    assert_eq!(sidecars(server.files()), sidecars(before));
    let there = sidecars(server.files());
    assert_eq!(
        std::fs::read(&there[0]).expect("there"),
        bytes(1),
        "the old one is intact"
    );
}
