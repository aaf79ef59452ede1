//! Times with recalls.

use std::collections::HashSet;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use datafusion_hnsw::format::{SidecarMeta, write};
use datafusion_hnsw::hnsw::{HnswBuilder, HnswConfig, HnswIndex, SearchOptions};
use datafusion_hnsw::id::RowId;
use datafusion_hnsw::loader::MappedIndex;

use crate::data::Set;

/// Neighbours asked for.
pub(crate) const K: usize = 10;

pub(crate) fn build(set: &Set, config: HnswConfig) -> (HnswIndex, Duration) {
    let mut builder = HnswBuilder::new(set.dim, set.metric, config);
    builder.reserve(set.rows());
    for (row, vector) in set.base.chunks_exact(set.dim).enumerate() {
        builder
            .insert_slice(RowId::new(row as u64), vector)
            .expect("vectors of one length");
    }
    let begin = Instant::now();
    let index = builder.build().expect("settings in range");
    (index, begin.elapsed())
}

pub(crate) fn save(index: &HnswIndex, path: &Path) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    write(index, &SidecarMeta::default(), &mut out).map_err(io::Error::other)?;
    out.flush()
}

/// The nearest rows of each query, from looking at all vectors; kept in the folder of the data.
pub(crate) fn truth(set: &Set, index: &MappedIndex, queries: usize) -> Vec<HashSet<RowId>> {
    let path = crate::data::folder().join(format!("{}.truth", set.name));
    let rows: Vec<u64> = match std::fs::read(&path) {
        Ok(bytes) => bytes
            .as_chunks()
            .0
            .iter()
            .map(|&row| u64::from_le_bytes(row))
            .collect(),
        Err(_) => {
            let search = |query: &[f32]| {
                index
                    .search(query, &SearchOptions::new(K).ef(usize::MAX))
                    .expect("a proper query")
                    .hits
            };
            let hits = set.queries.chunks_exact(set.dim).flat_map(search);
            let rows: Vec<u64> = hits.map(|hit| hit.row.get()).collect();
            let bytes: Vec<u8> = rows.iter().flat_map(|row| row.to_le_bytes()).collect();
            std::fs::write(&path, bytes).expect("the folder of the data can be written");
            rows
        }
    };
    rows.chunks_exact(K)
        .take(queries)
        .map(|rows| rows.iter().map(|&row| RowId::new(row)).collect())
        .collect()
}

/// One point of a curve.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) recall: f64,
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) distances: f64,
    pub(crate) reranked: f64,
}

const STRETCHES: usize = 7;
const STRETCH: Duration = Duration::from_millis(120);

/// Single queries, one after the other, on this thread.
pub(crate) fn point(set: &Set, index: &MappedIndex, truth: &[HashSet<RowId>], ef: usize) -> Point {
    let options = SearchOptions::new(K).ef(ef);
    let search = |query: &[f32]| index.search(query, &options).expect("a proper query");
    let (mut found, mut distances, mut reranked) = (0, 0, 0);
    for (query, truth) in set.queries.chunks_exact(set.dim).zip(truth) {
        let outcome = search(query);
        found += outcome.hits.iter().filter(|hit| truth.contains(&hit.row)).count();
        distances += outcome.stats.distances;
        reranked += outcome.stats.reranked;
    }
    // The median of stretches of time, as the peers are measured: a neighbour's burst hits some of them.
    let (mut speeds, mut each) = (Vec::new(), Vec::new());
    while speeds.len() < STRETCHES {
        let (begin, cpu, mut asked) = (Instant::now(), cpu_time(), 0u32);
        while begin.elapsed() < STRETCH {
            for query in set.queries.chunks_exact(set.dim).take(truth.len()) {
                let start = Instant::now();
                black_box(search(query));
                each.push(start.elapsed());
                asked += 1;
            }
        }
        let spent = cpu_time().saturating_sub(cpu).max(Duration::from_nanos(1));
        speeds.push(f64::from(asked) / spent.as_secs_f64());
    }
    speeds.sort_by(f64::total_cmp);
    each.sort();
    let queries = truth.len() as f64;
    Point {
        recall: found as f64 / (queries * K as f64),
        per_second: speeds[STRETCHES / 2],
        p50: each[each.len() / 2],
        distances: distances as f64 / queries,
        reranked: reranked as f64 / queries,
    }
}

/// Queries per second at a recall, between the two points around it.
pub(crate) fn at_recall(points: &[Point], recall: f64) -> Option<f64> {
    let after = points.iter().position(|point| point.recall >= recall)?;
    let Some(before) = after.checked_sub(1) else {
        return Some(points[after].per_second);
    };
    let (a, b) = (&points[before], &points[after]);
    let share = (recall - a.recall) / (b.recall - a.recall);
    Some((a.per_second.ln() * (1.0 - share) + b.per_second.ln() * share).exp())
}

/// The CPU time of this thread, so that a busy machine does not matter much; where the system does not
/// tell, the time of day.
pub(crate) fn cpu_time() -> Duration {
    let first = |path: &str| -> Option<u64> {
        std::fs::read_to_string(path)
            .ok()?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    };
    match first("/proc/thread-self/schedstat") {
        Some(nanoseconds) => Duration::from_nanos(nanoseconds),
        None => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default(),
    }
}

/// The CPU time of all threads of the process.
pub(crate) fn process_cpu_time() -> Duration {
    let ticks = || -> Option<u64> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    };
    Duration::from_millis(ticks().unwrap_or(0) * 10)
}
