//! Listings are remembered, for so long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion_hnsw::hnsw::VectorMetric::Cosine;
use datafusion_hnsw::sidecar::SidecarStore;
use object_store::memory::InMemory;

use crate::conformance::{code, look, publish};
use crate::sample::Home;

/// A listing may lag behind the store, and is then renewed behind the scenes: what it shows is safe to use, and
/// what it does not show is believed for so long and no longer.
#[tokio::test]
async fn a_listing_is_believed_for_its_time() {
    let home = Home::remote("memory", "s3://bucket", Arc::new(InMemory::new()));
    let at = (home.place)("t.parquet");
    let mut options = home.options();
    options.listing_ttl = Duration::from_millis(150);
    let store = SidecarStore::new(options);
    let begun = Instant::now();
    assert_eq!(code(&look(&store, &at, Cosine, 3).await), "no_sidecar");
    let other = home.store();
    publish(&other, &at, Cosine, 3).await;
    let believed = code(&look(&store, &at, Cosine, 3).await);
    if begun.elapsed() < Duration::from_millis(140) {
        assert_eq!(believed, "no_sidecar");
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(
        code(&look(&store, &at, Cosine, 3).await),
        "fresh",
        "and asked again"
    );
    assert!(other.remove(&at, "v", Cosine).await.expect("removed"));
    tokio::time::sleep(Duration::from_millis(950)).await;
    assert_eq!(
        code(&look(&store, &at, Cosine, 3).await),
        "fresh",
        "still right, and renewed meanwhile"
    );
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(code(&look(&store, &at, Cosine, 3).await), "no_sidecar");
    // One's own changes are seen at once.
    publish(&store, &at, Cosine, 3).await;
    assert_eq!(code(&look(&store, &at, Cosine, 3).await), "fresh");
    assert!(store.remove(&at, "v", Cosine).await.expect("removed"));
    assert_eq!(code(&look(&store, &at, Cosine, 3).await), "no_sidecar");
}
