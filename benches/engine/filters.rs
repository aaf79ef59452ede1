//! Filtered search: time and recall over the share of rows that is allowed.

use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use datafusion_hnsw::hnsw::{HnswConfig, RowSet, SearchOptions, SearchStrategy};
use datafusion_hnsw::id::RowId;
use datafusion_hnsw::loader::{MappedIndex, MmapLoader};

use crate::data::Set;
use crate::measure::{K, build, cpu_time, save};

/// The shares, unless `HNSW_BENCH_SHARES` lists others.
const SHARES: &str = "0.5,0.2,0.1,0.05,0.03,0.02,0.01,0.005,0.002,0.001";
const QUERIES: usize = 100;
/// Candidates of searches in an index of the allowed rows alone.
const ALONE: [usize; 5] = [64, 128, 256, 640, 1200];
const PASSES: usize = 10;

/// All rows, and queries, by how far they are from a point.
struct Around<'s> {
    /// All rows, nearest to the point first.
    by_distance: Vec<RowId>,
    /// Queries near the point, far from it, and anywhere.
    near: Vec<&'s [f32]>,
    far: Vec<&'s [f32]>,
    spread: Vec<&'s [f32]>,
}

impl<'s> Around<'s> {
    /// The point is the first query.
    fn new(set: &'s Set, index: &MappedIndex) -> Self {
        let queries: Vec<&[f32]> = set.queries.chunks_exact(set.dim).collect();
        let by_distance = index.search(queries[0], &SearchOptions::new(set.rows()).ef(usize::MAX));
        let gap = |a: &[f32]| {
            a.iter()
                .zip(queries[0])
                .map(|(a, b)| (a - b) * (a - b))
                .sum::<f32>()
        };
        let mut others = queries[1..].to_vec();
        others.sort_by(|a, b| gap(a).total_cmp(&gap(b)));
        Self {
            by_distance: by_distance
                .expect("a proper query")
                .hits
                .iter()
                .map(|hit| hit.row)
                .collect(),
            near: others[..QUERIES.min(others.len())].to_vec(),
            far: others[others.len().saturating_sub(QUERIES)..].to_vec(),
            spread: queries
                .iter()
                .step_by(queries.len().div_ceil(QUERIES))
                .copied()
                .collect(),
        }
    }

    /// This share of the rows, those nearest to the point.
    fn nearest(&self, share: f64) -> &[RowId] {
        &self.by_distance[..(self.by_distance.len() as f64 * share.min(1.0)) as usize]
    }
}

/// Prints a table for filters that have nothing to do with the query, that keep what is near it, and
/// that keep what is far from it. The filters are known from queries before, but in the column of the first use.
pub(crate) fn run(set: &Set, index: &MappedIndex, ef: usize) {
    let rows = set.rows() as u64;
    let around = Around::new(set, index);
    println!("filtered search, ef {ef}");
    let all = [
        ("exact", SearchStrategy::Exact),
        ("codes", SearchStrategy::Codes),
        ("cells", SearchStrategy::Clusters),
        ("graph", SearchStrategy::Graph),
        ("auto", SearchStrategy::Auto),
    ];
    let wanted = std::env::var("HNSW_BENCH_WAYS").unwrap_or_default();
    let ways: Vec<_> = all
        .into_iter()
        .filter(|(label, _)| wanted.is_empty() || wanted.contains(label))
        .collect();
    print!("filter          share");
    for (label, _) in &ways {
        print!("  {label:>5} us  recall");
    }
    println!("  took  / unfiltered  first us");
    for (name, queries) in [
        ("independent", &around.spread),
        ("correlated", &around.near),
        ("anti-correlated", &around.far),
    ] {
        let plain = SearchOptions::new(K).ef(ef);
        let unfiltered = time(queries, index, &plain).0;
        let truth = answers(queries, index, &plain.strategy(SearchStrategy::Exact));
        println!(
            "{name}, unfiltered: {:.1} us  {:.4}",
            unfiltered.as_secs_f64() * 1e6,
            recall(&answers(queries, index, &plain), &truth)
        );
        for share in shares() {
            let mut allowed = RowSet::new(rows);
            if name == "independent" {
                let mut state = 1u64;
                for row in 0..rows {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    if ((state >> 33) as f64) < share * (1u64 << 31) as f64 {
                        allowed.insert(RowId::new(row));
                    }
                }
            } else {
                around.nearest(share).iter().for_each(|&row| allowed.insert(row));
            }
            let options = SearchOptions::new(K).ef(ef).allowed(&allowed);
            let truth = answers(queries, index, &options.strategy(SearchStrategy::Exact));
            print!("{name:15} {share:5.3}");
            for (label, way) in &ways {
                // A walk through hardly any allowed rows takes for ever.
                if *way == SearchStrategy::Graph && share < 0.01 {
                    print!("                -       -");
                    continue;
                }
                let options = options.strategy(*way);
                let (took, kind) = time(queries, index, &options);
                let recall = recall(&answers(queries, index, &options), &truth);
                print!("  {:8.1}  {recall:.4}", took.as_secs_f64() * 1e6);
                if *label == "auto" {
                    print!("  {kind}  {:10.1}", took.as_secs_f64() / unfiltered.as_secs_f64());
                    print!(
                        "  {:8.1}",
                        first_use(queries, index, &allowed, &options).as_secs_f64() * 1e6
                    );
                }
            }
            println!();
        }
    }
}

/// Prints what queries far from all that is allowed take with the filter, and what they take without any in an index of
/// the allowed rows alone, `ef` after `ef`: how much of the time is the filter's, and how much the queries'.
pub(crate) fn alone(set: &Set, index: &MappedIndex, config: &HnswConfig, ef: usize) -> io::Result<()> {
    let around = Around::new(set, index);
    let path = crate::data::folder().join(format!("{}.alone.hnsw", set.name));
    println!("share  of which                  ef        us  recall");
    for share in shares() {
        let kept = around.nearest(share);
        let mut allowed = RowSet::new(set.rows() as u64);
        kept.iter().for_each(|&row| allowed.insert(row));
        report(
            share,
            "all, with a filter",
            &around.far,
            index,
            &SearchOptions::new(K).ef(ef).allowed(&allowed),
        );
        let vector = |row: &RowId| set.base.chunks_exact(set.dim).nth(row.get() as usize);
        let few = Set {
            name: set.name.clone(),
            metric: set.metric,
            dim: set.dim,
            base: kept.iter().filter_map(vector).flatten().copied().collect(),
            queries: Vec::new(),
        };
        save(&build(&few, config.clone()).0, &path)?;
        let own = MmapLoader::open(&path).map_err(io::Error::other)?;
        for ef in ALONE {
            report(
                share,
                "an index of them alone",
                &around.far,
                &own,
                &SearchOptions::new(K).ef(ef),
            );
        }
    }
    std::fs::remove_file(path)
}

fn report(share: f64, what: &str, queries: &[&[f32]], index: &MappedIndex, options: &SearchOptions<'_>) {
    let truth = answers(queries, index, &options.strategy(SearchStrategy::Exact));
    let (took, _) = time(queries, index, options);
    println!(
        "{share:5.3}  {what:22}  {:6}  {:8.1}  {:.4}",
        options.ef,
        took.as_secs_f64() * 1e6,
        recall(&answers(queries, index, options), &truth)
    );
}

fn shares() -> Vec<f64> {
    let list = std::env::var("HNSW_BENCH_SHARES").unwrap_or_else(|_| SHARES.to_owned());
    list.split(',').filter_map(|share| share.parse().ok()).collect()
}

fn recall(found: &[Vec<RowId>], truth: &[Vec<RowId>]) -> f64 {
    let hits = found
        .iter()
        .zip(truth)
        .map(|(f, t)| t.iter().filter(|row| f.contains(row)).count());
    hits.sum::<usize>() as f64 / truth.iter().map(Vec::len).sum::<usize>() as f64
}

fn answers(queries: &[&[f32]], index: &MappedIndex, options: &SearchOptions<'_>) -> Vec<Vec<RowId>> {
    let search = |query: &&[f32]| index.search(query, options).expect("a proper query").hits;
    queries
        .iter()
        .map(|query| search(query).iter().map(|hit| hit.row).collect())
        .collect()
}

/// CPU time of a query whose filter was never asked for before.
fn first_use(
    queries: &[&[f32]],
    index: &MappedIndex,
    allowed: &RowSet,
    options: &SearchOptions<'_>,
) -> Duration {
    let (mut spent, mut asked) = (Duration::ZERO, 0);
    for _ in 0..PASSES {
        // A copy knows the rows and nothing else.
        let copies: Vec<RowSet> = queries.iter().map(|_| allowed.clone()).collect();
        let cpu = cpu_time();
        for (query, allowed) in queries.iter().zip(&copies) {
            drop(black_box(index.search(query, &options.allowed(allowed))));
            asked += 1;
        }
        spent += cpu_time().saturating_sub(cpu);
    }
    spent / asked
}

/// CPU time of a query, and how most of them were answered.
fn time(queries: &[&[f32]], index: &MappedIndex, options: &SearchOptions<'_>) -> (Duration, &'static str) {
    let search = |query: &[f32]| index.search(query, options).expect("a proper query");
    let outcomes: Vec<_> = queries.iter().map(|query| search(query)).collect();
    let walks = outcomes
        .iter()
        .filter(|outcome| outcome.stats.nodes_visited > 0)
        .count();
    let exact = outcomes.iter().all(|outcome| outcome.stats.exact);
    let (begin, cpu, mut passes) = (Instant::now(), cpu_time(), 0);
    while begin.elapsed() < Duration::from_millis(150) {
        queries.iter().for_each(|query| drop(black_box(search(query))));
        passes += 1;
    }
    let spent = cpu_time().saturating_sub(cpu);
    let took = match (exact, walks * 2 > outcomes.len()) {
        (true, _) => "exact",
        (_, true) => "walk",
        _ => "scan",
    };
    (
        spent / (passes * u32::try_from(queries.len()).expect("few queries")),
        took,
    )
}
