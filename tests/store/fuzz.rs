//! Sidecars with hostile bytes, opened and searched through the store: each gets past the checks that guard what is
//! behind them, so the harm is done where it would hurt. An answer or a reason, never a panic, never for long.
//!
//! `HNSW_FUZZ_CASES` sets how many of each kind are tried, `HNSW_FUZZ_SEED` with which numbers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion_hnsw::format::SidecarMeta;
use datafusion_hnsw::hnsw::VectorMetric::{self, Cosine, DotProduct, Euclidean};
use datafusion_hnsw::hnsw::{RowSet, SearchOptions, SearchStrategy};
use datafusion_hnsw::id::RowId;
use datafusion_hnsw::sidecar::{Location, Lookup, SidecarStore};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::broken;
use crate::sample::{Home, identity, index, meta};

const ROWS: u32 = 90;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

/// A store with one sidecar whose bytes are changed again and again.
struct Target {
    home: Home,
    at: Location,
    metric: VectorMetric,
    good: Vec<u8>,
}

impl Target {
    async fn new(metric: VectorMetric) -> Self {
        let home = Home::local();
        let at = (home.place)("t.parquet");
        let meta: SidecarMeta = meta("v", identity("t.parquet", u64::from(ROWS)));
        let published = home
            .store()
            .publish(&at, index(metric, ROWS as usize), meta)
            .await;
        let good = std::fs::read(published.expect("published").url).expect("there");
        Self {
            home,
            at,
            metric,
            good,
        }
    }

    /// Puts these bytes in the sidecar's place and does with it what queries do. Gives what the lookup said.
    async fn try_out(&self, store: &Arc<SidecarStore>, bytes: &[u8]) -> &'static str {
        let place = std::path::PathBuf::from(self.at.sidecar_url("v", self.metric));
        let fresh = place.with_extension("fresh");
        std::fs::write(&fresh, bytes).expect("room");
        std::fs::rename(fresh, &place).expect("one directory");
        let begun = Instant::now();
        let found = store
            .lookup(
                &self.at,
                "v",
                self.metric,
                &identity("t.parquet", u64::from(ROWS)),
            )
            .await;
        let what = match &found {
            Lookup::Fresh(sidecar) => {
                let allowed: RowSet = (0..sidecar.rows().min(1000)).step_by(3).map(RowId::new).collect();
                let query = vec![0.5; sidecar.dim().min(100_000)];
                let mut searched = true;
                for options in [
                    SearchOptions::new(5).strategy(SearchStrategy::Graph),
                    SearchOptions::new(5).ef(usize::MAX).tie_margin(),
                    SearchOptions::new(5).allowed(&allowed),
                ] {
                    searched &= sidecar.search(&query, &options).is_ok();
                }
                let rows = [0, 1, sidecar.rows().wrapping_sub(1), sidecar.rows(), u64::MAX];
                let vectors = rows.map(|row| sidecar.vector(RowId::new(row)).map_or(0, |v| v.len()));
                assert!(vectors.into_iter().all(|length| length <= bytes.len()));
                let ball = sidecar.ball().map(|ball| ball.at_least(self.metric, &[0.5; 4]));
                let _ = (ball, sidecar.verify().is_ok());
                if searched { "searched" } else { "search refused" }
            }
            Lookup::Unusable(reason) => {
                assert!(!reason.to_string().is_empty());
                "not opened"
            }
        };
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        what
    }
}

async fn fuzz(name: &str, change: impl Fn(&[u8], &mut StdRng) -> Vec<u8>) -> [usize; 3] {
    let cases = number("HNSW_FUZZ_CASES", 300);
    let mut rng = StdRng::seed_from_u64(number("HNSW_FUZZ_SEED", 5));
    let mut counts = [0; 3];
    for metric in [Cosine, Euclidean, DotProduct] {
        let target = Target::new(metric).await;
        let store = target.home.store();
        for _ in 0..cases / 3 {
            let bytes = change(&target.good, &mut rng);
            let what = target.try_out(&store, &bytes).await;
            counts[["not opened", "search refused", "searched"]
                .iter()
                .position(|one| *one == what)
                .expect("one of these")] += 1;
        }
        assert_eq!(target.try_out(&store, &target.good).await, "searched");
    }
    println!("{name}: of {cases} sidecars {counts:?} did not open, refused a search, were searched");
    counts
}

#[tokio::test]
async fn footers_that_agree_with_their_checksum_may_say_anything() {
    // Names and unknown properties may change without harm: so the checksums do agree.
    let [not_opened, _, searched] = fuzz("footer", broken::footer).await;
    assert!(not_opened > 0 && searched > 0, "{not_opened} {searched}");
}

#[tokio::test]
async fn headers_and_tables_of_sections_that_agree_with_their_checksums_may_say_anything() {
    let [not_opened, _, searched] = fuzz("header", broken::header_and_sections).await;
    assert!(not_opened > 0 && searched > 0, "{not_opened} {searched}");
}

#[tokio::test]
async fn sections_behind_a_valid_header_may_hold_anything() {
    let [_, refused, searched] = fuzz("sections", broken::sections).await;
    assert!(refused > 0 && searched > 0, "{refused} {searched}");
}

#[tokio::test]
async fn sidecars_may_be_changed_anywhere() {
    let [not_opened, refused, searched] = fuzz("sidecar", broken::sidecar).await;
    assert!(
        not_opened > 0 && refused > 0 && searched > 0,
        "{not_opened} {refused} {searched}"
    );
}

#[tokio::test]
async fn files_of_any_length_are_opened_or_refused() {
    let [not_opened, ..] = fuzz("length", broken::length).await;
    assert!(not_opened > 0);
}
