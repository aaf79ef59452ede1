//! The vectors: generated, or read from raw little-endian f32 files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use datafusion_hnsw::hnsw::VectorMetric;

/// A set of vectors and the queries to ask of it.
pub(crate) struct Set {
    pub(crate) name: String,
    pub(crate) metric: VectorMetric,
    pub(crate) dim: usize,
    pub(crate) base: Vec<f32>,
    pub(crate) queries: Vec<f32>,
}

impl Set {
    pub(crate) fn rows(&self) -> usize {
        self.base.len() / self.dim
    }
}

/// Where raw files lie: `HNSW_BENCH_DATA`, or `target/bench-data`.
pub(crate) fn folder() -> PathBuf {
    std::env::var_os("HNSW_BENCH_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-data"),
        PathBuf::from,
    )
}

/// The set of this name: `packages`, `synth`, `synth-ip`, `synth-1m`, or any `<name>` for which the folder
/// holds `<name>.base.f32`, `<name>.queries.f32` and `<name>.txt` (the dimension and the metric).
pub(crate) fn load(name: &str) -> io::Result<Set> {
    let path = |suffix: &str| folder().join(format!("{name}.{suffix}"));
    if !path("txt").exists() && name.starts_with("synth") {
        save(&generate(name))?;
    }
    let about = fs::read_to_string(path("txt"))?;
    let mut words = about.split_whitespace();
    let bad = || io::Error::other(format!("{name}.txt holds a dimension and a metric"));
    let dim = words.next().and_then(|word| word.parse().ok()).ok_or_else(bad)?;
    let metric = words.next().and_then(|word| word.parse().ok()).ok_or_else(bad)?;
    let (base, queries) = (read(&path("base.f32"))?, read(&path("queries.f32"))?);
    Ok(Set {
        name: name.to_owned(),
        metric,
        dim,
        base,
        queries,
    })
}

fn save(set: &Set) -> io::Result<()> {
    fs::create_dir_all(folder())?;
    let path = |suffix: &str| folder().join(format!("{}.{suffix}", set.name));
    let bytes = |floats: &[f32]| floats.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    fs::write(path("base.f32"), bytes(&set.base))?;
    fs::write(path("queries.f32"), bytes(&set.queries))?;
    fs::write(path("txt"), format!("{} {}\n", set.dim, set.metric))
}

fn read(path: &Path) -> io::Result<Vec<f32>> {
    let bytes = fs::read(path)?;
    Ok(bytes
        .as_chunks()
        .0
        .iter()
        .map(|&x| f32::from_le_bytes(x))
        .collect())
}

/// Points of 128 numbers in clusters of unequal size, each a cloud around a few axes of its own, with noise
/// in all directions. Neither as easy as independent numbers in few dimensions nor as hopeless as in many.
fn generate(name: &str) -> Set {
    const DIM: usize = 128;
    const CLUSTERS: usize = 1000;
    const AXES: usize = 16;
    const NOISE: f32 = 0.12;
    const QUERIES: usize = 1000;
    let rows = if name == "synth-1m" { 1_000_000 } else { 200_000 };
    let metric = if name == "synth-ip" {
        VectorMetric::DotProduct
    } else {
        VectorMetric::Euclidean
    };
    let mut random = Random(20_260_101);
    let centres: Vec<f32> = (0..CLUSTERS * DIM).map(|_| 0.35 * random.normal()).collect();
    let axes: Vec<f32> = (0..CLUSTERS * AXES * DIM).map(|_| random.normal()).collect();
    let lengths: Vec<f32> = (0..CLUSTERS * AXES)
        .map(|_| 0.25 * random.normal().exp() / 4.0)
        .collect();
    let mut points = |count: usize| {
        let mut out = Vec::with_capacity(count * DIM);
        for _ in 0..count {
            // The product of two makes some clusters large and many small.
            let cluster = random.below(CLUSTERS) * (1 + random.below(CLUSTERS)) / CLUSTERS;
            let mut point = centres[cluster * DIM..][..DIM].to_vec();
            for axis in cluster * AXES..(cluster + 1) * AXES {
                let step = lengths[axis] * random.normal();
                point
                    .iter_mut()
                    .zip(&axes[axis * DIM..][..DIM])
                    .for_each(|(x, a)| *x += step * a);
            }
            point.iter_mut().for_each(|x| *x += NOISE * random.normal());
            out.extend(point);
        }
        out
    };
    let (base, queries) = (points(rows), points(QUERIES));
    Set {
        name: name.to_owned(),
        metric,
        dim: DIM,
        base,
        queries,
    }
}

/// splitmix64, and normal numbers from it: the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32
    }

    fn below(&mut self, limit: usize) -> usize {
        ((self.next() >> 32) as usize * limit) >> 32
    }

    /// The sum of twelve, which is normal enough.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() - 6.0
    }
}
