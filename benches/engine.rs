//! The index alone: build time, size, and recall against speed.
//!
//! ```text
//! cargo bench --bench engine --no-default-features -- synth packages
//! ```
//!
//! A word before the sets measures something else: `memory` (opening, and resident memory of an evicted file),
//! `peak` (of the build's memory), `batch` (many cores), `filters` (filtered search), `alone` (what far queries
//! take in an index that has the allowed rows only).
//!
//! Sets are those of [`data::load`]; `benches/compare` puts `packages` in place and runs the peers.
#![allow(
    unreachable_pub,
    clippy::cast_possible_truncation,
    reason = "a program for people"
)]

#[path = "engine/data.rs"]
mod data;
#[path = "engine/filters.rs"]
mod filters;
#[path = "engine/measure.rs"]
mod measure;
#[path = "engine/memory.rs"]
mod memory;

use std::time::Instant;

use datafusion_hnsw::hnsw::HnswConfig;
use datafusion_hnsw::loader::MmapLoader;

/// The curve, unless `HNSW_BENCH_EF` lists others.
const EFS: &str = "10,12,14,16,20,24,28,32,40,48,56,64,80,96,128,160,200,240,320,480,640";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let names: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"))
        .collect();
    let (what, names) = match names.split_first() {
        Some((first, rest)) if ["memory", "peak", "batch", "filters", "alone"].contains(&&**first) => {
            (&**first, rest)
        }
        _ => ("curve", &names[..]),
    };
    let synth = ["synth".to_owned()];
    for name in if names.is_empty() { &synth } else { names } {
        run(what, name)?;
    }
    Ok(())
}

fn run(what: &str, name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let set = data::load(name)?;
    let number = |name: &str, otherwise: usize| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(otherwise)
    };
    let config = HnswConfig {
        m: number("HNSW_BENCH_M", 16),
        ef_construction: number("HNSW_BENCH_EF_CONSTRUCTION", 200),
        threads: number("HNSW_BENCH_THREADS", 0),
        ..HnswConfig::default()
    };
    let (m, ef_construction) = (config.m, config.ef_construction);
    println!(
        "# {name}: n {}, dim {}, {}, m {m}, ef_construction {ef_construction}, k {}",
        set.rows(),
        set.dim,
        set.metric,
        measure::K
    );
    let path = data::folder().join(format!("{name}.{m}.{ef_construction}.hnsw"));
    if what == "peak" {
        return memory::peak(&set, config);
    }
    if what == "curve" && std::env::var_os("HNSW_BENCH_KEEP").is_none() || !path.exists() {
        let cpu = measure::process_cpu_time();
        let (index, took) = measure::build(&set, config.clone());
        let cpu = measure::process_cpu_time().saturating_sub(cpu);
        println!(
            "build {:.2} s, {:.2} CPU s",
            took.as_secs_f64(),
            cpu.as_secs_f64()
        );
        measure::save(&index, &path)?;
    }
    match what {
        "memory" => return memory::resident(&set, &path),
        "batch" => return memory::batch(&set, &path),
        _ => {}
    }
    let begin = Instant::now();
    let index = MmapLoader::open(&path)?;
    println!(
        "open {:.3} ms, {:.1} MB",
        begin.elapsed().as_secs_f64() * 1e3,
        index.size() as f64 / 1e6
    );
    for (section, bytes) in index.section_sizes() {
        println!(
            "  {section:8} {:8.1} bytes a row",
            bytes as f64 / set.rows() as f64
        );
    }
    if what == "filters" {
        filters::run(&set, &index, number("HNSW_BENCH_EF", 64));
        return Ok(());
    }
    if what == "alone" {
        filters::alone(&set, &index, &config, number("HNSW_BENCH_EF", 64))?;
        return Ok(());
    }
    let truth = measure::truth(&set, &index, number("HNSW_BENCH_QUERIES", usize::MAX));
    println!("   ef   recall   queries/s   p50 us  distances  reranked");
    let mut points = Vec::new();
    let efs = std::env::var("HNSW_BENCH_EF").unwrap_or_else(|_| EFS.to_owned());
    for ef in efs.split(',').filter_map(|ef| ef.trim().parse().ok()) {
        let point = measure::point(&set, &index, &truth, ef);
        println!(
            "{ef:5}   {:.4}   {:9.0}   {:6.1}   {:8.0}  {:8.0}",
            point.recall,
            point.per_second,
            point.p50.as_secs_f64() * 1e6,
            point.distances,
            point.reranked
        );
        let done = point.recall > 0.995;
        points.push(point);
        if done {
            break;
        }
    }
    for recall in [0.95, 0.99] {
        let speed =
            measure::at_recall(&points, recall).map_or("not reached".to_owned(), |s| format!("{s:.0}"));
        println!("queries/s at recall {recall}: {speed}");
    }
    Ok(())
}
