//! What an index costs besides time: opening, resident memory, the peak of a build; and many cores.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use datafusion_hnsw::format::{SidecarMeta, write};
use datafusion_hnsw::hnsw::{HnswBuilder, HnswConfig, SearchOptions};
use datafusion_hnsw::id::RowId;
use datafusion_hnsw::loader::MmapLoader;

use crate::data::Set;
use crate::measure::K;

/// Candidates of these searches.
const EF: usize = 40;

/// Opens a file that the page cache does not hold, asks, and prints how much of it is resident. Linux only.
pub(crate) fn resident(set: &Set, path: &Path) -> Result<(), Box<dyn Error>> {
    // Opened once before, so that the program itself is in memory.
    drop(MmapLoader::open(path)?);
    let opens: Vec<Duration> = (0..200)
        .map(|_| {
            let begin = Instant::now();
            drop(std::hint::black_box(MmapLoader::open(path)));
            begin.elapsed()
        })
        .collect();
    let total: Duration = opens.iter().sum();
    let size = fs::metadata(path)?.len();
    println!("{:.0} MB", size as f64 / 1e6);
    println!(
        "open, cached: {:.3} ms",
        total.as_secs_f64() * 1e3 / opens.len() as f64
    );
    evict(path)?;
    let begin = Instant::now();
    let index = MmapLoader::open(path)?;
    println!("open, evicted: {:.3} ms", begin.elapsed().as_secs_f64() * 1e3);
    let queries: Vec<&[f32]> = set.queries.chunks_exact(set.dim).take(1000).collect();
    let options = SearchOptions::new(K).ef(EF);
    for (place, query) in queries.iter().enumerate() {
        let begin = Instant::now();
        index.search(query, &options)?;
        let took = begin.elapsed();
        if [1, 10, 100, queries.len()].contains(&(place + 1)) {
            let resident = mapped(path)?;
            println!(
                "after {:4} queries: {:7.2} MB resident, {:4.1} % of the file; this one took {:.1} ms",
                place + 1,
                resident as f64 / 1e6,
                100.0 * resident as f64 / size as f64,
                took.as_secs_f64() * 1e3
            );
        }
    }
    Ok(())
}

/// Drops the file's pages from the page cache.
fn evict(path: &Path) -> Result<(), Box<dyn Error>> {
    let status = Command::new("dd")
        .arg(format!("of={}", path.display()))
        .args([
            "oflag=nocache",
            "conv=notrunc,fdatasync",
            "count=0",
            "status=none",
        ])
        .status()?;
    status
        .success()
        .then_some(())
        .ok_or_else(|| "dd cannot evict the file".into())
}

/// Resident bytes of the map of a file.
fn mapped(path: &Path) -> Result<u64, Box<dyn Error>> {
    let name = path.canonicalize()?.display().to_string();
    let maps = fs::read_to_string("/proc/self/smaps")?;
    let lines = maps.lines().skip_while(|line| !line.ends_with(&name));
    let size = lines.into_iter().find_map(|line| line.strip_prefix("Rss:"));
    kilobytes(size.ok_or("the file is not mapped")?)
}

fn kilobytes(text: &str) -> Result<u64, Box<dyn Error>> {
    Ok(text.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

fn status(field: &str) -> Result<u64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/self/status")?;
    let value = text.lines().find_map(|line| line.strip_prefix(field));
    kilobytes(value.ok_or("no such field")?)
}

/// Builds and prints the peak of memory against what the index consists of. Linux only.
pub(crate) fn peak(set: &Set, config: HnswConfig) -> Result<(), Box<dyn Error>> {
    let before = status("VmRSS:")?;
    fs::write("/proc/self/clear_refs", "5")?;
    let mut builder = HnswBuilder::new(set.dim, set.metric, config);
    builder.reserve(set.rows());
    for (row, vector) in set.base.chunks_exact(set.dim).enumerate() {
        builder.insert_slice(RowId::new(row as u64), vector)?;
    }
    let inserted = status("VmRSS:")? - before;
    let index = builder.build()?;
    let peak = status("VmHWM:")? - before;
    let size = write(&index, &SidecarMeta::default(), &mut std::io::sink())?;
    println!(
        "vectors {:.1} MB, peak {:.1} MB, index {:.1} MB: {:+.1} %",
        inserted as f64 / 1e6,
        peak as f64 / 1e6,
        size as f64 / 1e6,
        100.0 * (peak as f64 / size as f64 - 1.0)
    );
    Ok(())
}

/// Answers all queries in one call, on one core and on more.
pub(crate) fn batch(set: &Set, path: &Path) -> Result<(), Box<dyn Error>> {
    let index = MmapLoader::open(path)?;
    let options = SearchOptions::new(K).ef(EF);
    let cores = std::thread::available_parallelism()?.get();
    let speed = |threads: usize| -> Result<f64, Box<dyn Error>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        let mut best = Duration::MAX;
        for _ in 0..40 {
            let begin = Instant::now();
            pool.install(|| index.search_batch(&set.queries, &options))?;
            best = best.min(begin.elapsed());
        }
        Ok(set.queries.len() as f64 / set.dim as f64 / best.as_secs_f64())
    };
    let (one, all) = (speed(1)?, speed(cores)?);
    println!(
        "batch, best of 40: {one:.0} queries/s on one core, {all:.0} on {cores}: {:.2} times",
        all / one
    );
    Ok(())
}
