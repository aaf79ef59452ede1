//! Sidecars with hostile bytes, opened and searched through the store: each gets past the checks that guard what is
//! behind them, so the harm is done where it would hurt. An answer or a reason, never a panic, never for long.
//!
//! `HNSW_FUZZ_CASES` sets how many of each kind are tried, `HNSW_FUZZ_SEED` with which numbers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion_hnsw::format::SidecarMeta;
use datafusion_hnsw::hnsw::VectorMetric::{self, Cosine, DotProduct, Euclidean};
use datafusion_hnsw::hnsw::{RowSet, SearchOptions};
use datafusion_hnsw::id::RowId;
use datafusion_hnsw::sidecar::{Location, Lookup, SidecarStore};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use xxhash_rust::xxh3::xxh3_64;

use crate::sample::{Home, identity, index, meta};

const ROWS: u32 = 90;

/// Where the header lies in a sidecar, and its checksum in the header.
const HEADER: std::ops::Range<usize> = 4..4 + 256;
const HEADER_SUM: usize = 248;
const FOOTER_SUM: &str = "\"footer-xxh3-64\":\"";

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
                    SearchOptions::new(5),
                    SearchOptions::new(5).ef(usize::MAX).slack(),
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

    /// Where the footer's JSON lies.
    fn payload(&self) -> std::ops::Range<usize> {
        let end = self.good.len() - 12;
        let length: [u8; 4] = self.good[end..end + 4].try_into().expect("four bytes");
        end - u32::from_le_bytes(length) as usize..end
    }

    /// The same file with this footer, whose checksum agrees.
    fn with_footer(&self, payload: &str) -> Vec<u8> {
        let mut text = payload.to_owned();
        if let Some(at) = text.rfind(FOOTER_SUM) {
            let at = at + FOOTER_SUM.len();
            if text.is_char_boundary(at + 16) && at + 16 <= text.len() {
                text.replace_range(at..at + 16, "0000000000000000");
                let sum = format!("{:016x}", xxh3_64(text.as_bytes()));
                text.replace_range(at..at + 16, &sum);
            }
        }
        let mut bytes = self.good[..self.payload().start].to_vec();
        bytes.extend(text.as_bytes());
        bytes.extend(u32::try_from(text.len()).expect("short").to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(b"PFA1");
        bytes
    }
}

/// The footer with a number, a word or a piece of it changed.
fn change_text(text: &str, rng: &mut StdRng) -> String {
    let mut text = text.to_owned();
    for _ in 0..rng.random_range(1..4) {
        let digits: Vec<usize> = text
            .char_indices()
            .filter(|(_, c)| c.is_ascii_digit())
            .map(|(at, _)| at)
            .collect();
        let at = rng.random_range(0..text.len());
        match rng.random_range(0..6) {
            0 | 1 => {
                let at = digits[rng.random_range(0..digits.len())];
                let end = at + text[at..].chars().take_while(char::is_ascii_digit).count();
                let numbers = [
                    "0",
                    "1",
                    "-1",
                    "4294967295",
                    "4294967296",
                    "18446744073709551615",
                    "9223372036854775807",
                    "1e999",
                    "null",
                    "63",
                ];
                text.replace_range(at..end, numbers[rng.random_range(0..numbers.len())]);
            }
            2 => {
                let at = digits[rng.random_range(0..digits.len())];
                text.replace_range(at..=at, &rng.random_range(0..10).to_string());
            }
            3 => {
                let end = (at + rng.random_range(1..40)).min(text.len());
                if text.is_char_boundary(at) && text.is_char_boundary(end) {
                    let piece = text[at..end].to_owned();
                    let words = [String::new(), piece.clone() + &piece, "[]".into(), "{}".into()];
                    text.replace_range(at..end, &words[rng.random_range(0..words.len())]);
                }
            }
            4 if text.is_char_boundary(at) => text.insert(at, ['"', '}', ']', ',', '9', 'é'][at % 6]),
            _ => {
                // Two blobs change places, or one is listed twice.
                let types: Vec<usize> = text.match_indices("{\"type\"").map(|(at, _)| at).collect();
                if let [first, .., last] = types[..] {
                    let (one, other) = (
                        text[first..first + 60].to_owned(),
                        text[last..last + 60].to_owned(),
                    );
                    text.replace_range(last..last + 60, &one);
                    text.replace_range(first..first + 60, &other);
                }
            }
        }
    }
    text
}

async fn fuzz(name: &str, change: impl Fn(&Target, &mut StdRng) -> Vec<u8>) -> [usize; 3] {
    let cases = number("HNSW_FUZZ_CASES", 300);
    let mut rng = StdRng::seed_from_u64(number("HNSW_FUZZ_SEED", 5));
    let mut counts = [0; 3];
    for metric in [Cosine, Euclidean, DotProduct] {
        let target = Target::new(metric).await;
        let store = target.home.store();
        for _ in 0..cases / 3 {
            let bytes = change(&target, &mut rng);
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
    let counts = fuzz("footer", |target, rng| {
        let payload = std::str::from_utf8(&target.good[target.payload()]).expect("JSON");
        target.with_footer(&change_text(payload, rng))
    });
    // Names and unknown properties may change without harm: so the checksums do agree.
    let [not_opened, _, searched] = counts.await;
    assert!(not_opened > 0 && searched > 0, "{not_opened} {searched}");
}

#[tokio::test]
async fn headers_that_agree_with_their_checksum_may_say_anything() {
    let counts = fuzz("header", |target, rng| {
        let mut bytes = target.good.clone();
        let header = &mut bytes[HEADER];
        for _ in 0..rng.random_range(1..4) {
            // Not the magic and the version, which are refused first.
            let at = rng.random_range(12..HEADER_SUM);
            match rng.random_range(0..3) {
                0 => header[at] ^= 1 << rng.random_range(0..8),
                1 => header[at] = rng.random(),
                _ => header[at / 4 * 4..][..4].fill([0, 0xFF][rng.random_range(0..2)]),
            }
        }
        let sum = xxh3_64(&header[..HEADER_SUM]).to_le_bytes();
        header[HEADER_SUM..].copy_from_slice(&sum);
        bytes
    });
    let [not_opened, _, searched] = counts.await;
    assert!(not_opened > 0 && searched > 0, "{not_opened} {searched}");
}

#[tokio::test]
async fn sections_behind_a_valid_header_may_hold_anything() {
    let counts = fuzz("sections", |target, rng| {
        let mut bytes = target.good.clone();
        let body = HEADER.end..target.payload().start - 4;
        for _ in 0..rng.random_range(1..8) {
            let at = rng.random_range(body.clone());
            match rng.random_range(0..4) {
                0 => bytes[at] ^= 1 << rng.random_range(0..8),
                1 => bytes[at] = rng.random(),
                2 => {
                    // An id just beyond the end, or far beyond.
                    let ids = [ROWS, u32::MAX, 0, rng.random_range(0..200)];
                    let at = (at / 4 * 4).min(body.end - 4);
                    bytes[at..at + 4].copy_from_slice(&ids[rng.random_range(0..4)].to_le_bytes());
                }
                _ => {
                    let end = (at + rng.random_range(1..200)).min(body.end);
                    bytes[at..end].fill(rng.random());
                }
            }
        }
        bytes
    });
    let [_, refused, searched] = counts.await;
    assert!(refused > 0 && searched > 0, "{refused} {searched}");
}

#[tokio::test]
async fn files_of_any_length_are_opened_or_refused() {
    let counts = fuzz("length", |target, rng| {
        let mut bytes = target.good.clone();
        match rng.random_range(0..3) {
            0 => bytes.truncate(rng.random_range(0..bytes.len())),
            1 => {
                let at = rng.random_range(0..bytes.len());
                let end = (at + rng.random_range(1..5000)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let at = rng.random_range(0..bytes.len());
                let more = vec![rng.random(); rng.random_range(1..5000)];
                bytes.splice(at..at, more);
            }
        }
        bytes
    });
    assert!(counts.await[0] > 0);
}
