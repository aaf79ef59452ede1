//! From rows to an index: sort the rows out, fold identical vectors, number the nodes, encode, link.

use std::ops::ControlFlow;

use rayon::prelude::*;

use super::connectivity::repair;
use super::duplicates::Groups;
use super::insert;
use super::levels::draw_layer;
use super::node_order;
use super::row_map::{Kind, RowMap};
use super::select_neighbors::Points;
use crate::hnsw::clusters::inverted_lists::OwnedClusters;
use crate::hnsw::clusters::kmeans::{cluster, passes};
use crate::hnsw::config::{BuildError, HnswConfig, MAX_CODE_DIM, MAX_DIM, MAX_ROWS, StoredVectors};
use crate::hnsw::graph::owned::Graph;
use crate::hnsw::graph::vectors::Vectors;
use crate::hnsw::ids::{MAX_LEVELS, NO_SLOT};
use crate::hnsw::index::{Codes, HnswIndex};
use crate::hnsw::metric::VectorMetric;
use crate::hnsw::progress::{BuildPhase, BuildProgress, Watch};
use crate::hnsw::quantize::codebook::{self, Codebook};
use crate::hnsw::query_vector::{LENGTHS, vector_length};
use crate::id::RowId;

/// Collects vectors and builds an [`HnswIndex`] of them.
///
/// ```
/// use datafusion_hnsw::hnsw::{HnswBuilder, HnswConfig, VectorMetric};
/// use datafusion_hnsw::id::RowId;
///
/// let mut builder = HnswBuilder::new(2, VectorMetric::Euclidean, HnswConfig::default());
/// builder.insert(RowId::new(0), vec![0.0, 0.0])?;
/// builder.insert(RowId::new(1), vec![3.0, 4.0])?;
/// let index = builder.build()?;
/// assert_eq!(index.search(&[3.0, 3.0], 1, 10), [(RowId::new(1), 1.0)]);
/// # Ok::<(), datafusion_hnsw::hnsw::BuildError>(())
/// ```
#[derive(Clone, Debug)]
pub struct HnswBuilder {
    pub(crate) dim: usize,
    pub(crate) metric: VectorMetric,
    pub(crate) config: HnswConfig,
    /// The rows in the order of insertion, and where each one's vector lies in the matrix.
    pub(crate) rows: Vec<(u32, Kind, u32)>,
    /// Vectors one after the other, little-endian.
    pub(crate) matrix: Vec<u8>,
    vectors: u32,
}

impl HnswBuilder {
    /// A builder for vectors of `dim` numbers. Settings are checked by [`build`](Self::build).
    pub fn new(dim: usize, metric: VectorMetric, config: HnswConfig) -> Self {
        Self {
            dim,
            metric,
            config,
            rows: Vec::new(),
            matrix: Vec::new(),
            vectors: 0,
        }
    }

    /// How many numbers each vector has.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Makes room for so many further rows.
    pub fn reserve(&mut self, rows: usize) {
        self.rows.reserve(rows);
        self.matrix.reserve(rows.saturating_mul(4 * self.dim));
    }

    /// Rows inserted so far.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no row was inserted.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds a row and its vector.
    ///
    /// # Errors
    ///
    /// If the vector has another length than the index, or the row number is too large.
    pub fn insert(&mut self, row: RowId, vector: Vec<f32>) -> Result<(), BuildError> {
        self.insert_slice(row, &vector)
    }

    /// Adds a row and its vector, which is copied.
    ///
    /// # Errors
    ///
    /// If the vector has another length than the index, or the row number is too large.
    pub fn insert_slice(&mut self, row: RowId, vector: &[f32]) -> Result<(), BuildError> {
        if vector.len() != self.dim {
            return Err(BuildError::Dimension {
                row: row.get(),
                expected: self.dim,
                found: vector.len(),
            });
        }
        let small = small_row(row)?;
        self.matrix.extend(vector.iter().flat_map(|x| x.to_le_bytes()));
        self.rows.push((small, self.kind(vector), self.vectors));
        self.vectors += 1;
        Ok(())
    }

    /// Adds a row whose vector is NULL or holds a NULL.
    ///
    /// # Errors
    ///
    /// If the row number is too large.
    pub fn insert_null(&mut self, row: RowId) -> Result<(), BuildError> {
        self.rows.push((small_row(row)?, Kind::Null, NO_SLOT));
        Ok(())
    }

    fn kind(&self, vector: &[f32]) -> Kind {
        let length = vector_length(vector);
        if self.metric.ignores_length() && length == 0.0 {
            Kind::Zero
        } else if !length.is_finite()
            || length > *LENGTHS.end()
            || (self.metric.ignores_length() && length < *LENGTHS.start())
        {
            Kind::Unindexable
        } else {
            Kind::Linked
        }
    }

    /// Builds the index.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range or a row was inserted twice.
    pub fn build(self) -> Result<HnswIndex, BuildError> {
        self.build_with(&|_| ControlFlow::Continue(()))
    }

    /// Builds the index, telling `progress` now and then how far it is; `Break` cancels.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range, a row was inserted twice, or `progress` cancelled.
    pub fn build_with(
        self,
        progress: &(dyn Fn(BuildProgress) -> ControlFlow<()> + Sync),
    ) -> Result<HnswIndex, BuildError> {
        self.config.check()?;
        let most = if self.config.stored == StoredVectors::None {
            MAX_CODE_DIM
        } else {
            MAX_DIM
        };
        if !(1..=most).contains(&self.dim) {
            return Err(BuildError::OutOfRange {
                setting: "dimension",
                value: self.dim,
                least: 1,
                most,
            });
        }
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(self.config.threads)
            .build()
            .map_err(|error| BuildError::Threads(error.to_string()))?;
        threads.install(|| self.run(progress))
    }

    fn run(
        mut self,
        progress: &(dyn Fn(BuildProgress) -> ControlFlow<()> + Sync),
    ) -> Result<HnswIndex, BuildError> {
        let rows = self.rows.len() as u64;
        let report = |phase, done, total| match progress(BuildProgress { phase, done, total }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(BuildError::Cancelled),
        };
        report(BuildPhase::Arrange, 0, rows)?;
        self.rows.sort_unstable_by_key(|&(row, ..)| row);
        if let Some(twice) = self.rows.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(BuildError::DuplicateRow(u64::from(twice[0].0)));
        }
        let groups = self.fold_identical();
        let nodes = u32::try_from(groups.len()).expect("as many as rows at most");
        report(BuildPhase::Encode, 0, u64::from(nodes))?;
        // Once to encode the vectors.
        let watch = Watch::new(progress, u64::from(nodes), 1 + passes(nodes));

        let by_row: Vec<u32> = groups.iter().map(|group| group[0].1).collect();
        let vectors = self.vectors(&by_row);
        let codes = self.encode(vectors, nodes, &watch);
        watch.check()?;
        let (numbered, levels, clusters) = self.number(&groups, vectors, codes.as_ref(), &watch);
        watch.check()?;
        let groups = groups.reordered(&numbered);
        let codes = codes.map(|codes| codes.reordered(&numbered));
        drop((numbered, by_row));

        let with_vector = |kind: Kind| kind == Kind::Zero || kind == Kind::Unindexable;
        let extra = self
            .rows
            .iter()
            .filter(|(_, kind, _)| with_vector(*kind))
            .map(|&(.., place)| place);
        let order: Vec<u32> = groups.iter().map(|group| group[0].1).chain(extra).collect();
        let map = RowMap::new(&self.rows, &groups);
        // Not needed while nodes are linked, which is when most memory is in use.
        drop(groups);
        self.rows = Vec::new();
        let vectors = self.vectors(&order);
        let mut graph = Graph::new(levels, self.config.m);
        {
            let points = self.points(vectors, codes.as_ref());
            let sequence = insert::sequence(&graph.levels, self.config.seed);
            let step = |phase| {
                move |done| {
                    progress(BuildProgress {
                        phase,
                        done,
                        total: u64::from(nodes),
                    })
                }
            };
            let (link, check) = (step(BuildPhase::Link), step(BuildPhase::Check));
            insert::link_all(&mut graph, &points, &sequence, self.config.ef_construction, &link)?;
            report(BuildPhase::Check, 0, u64::from(nodes))?;
            repair(&mut graph, &points, self.config.ef_construction, &check)?;
        }
        Ok(self.assemble(map, order, codes, clusters, graph))
    }

    fn vectors<'a>(&'a self, order: &'a [u32]) -> Vectors<'a> {
        Vectors {
            bytes: &self.matrix,
            stored: StoredVectors::F32,
            dim: self.dim,
            order: Some(order),
        }
    }

    /// The nodes as points.
    fn points<'a>(&self, vectors: Vectors<'a>, codes: Option<&'a Codes>) -> Points<'a> {
        match codes {
            Some(codes) => Points::Codes {
                metric: codes.book.metric,
                codes: codes.rows(),
            },
            None => Points::Floats {
                metric: self.metric,
                vectors,
            },
        }
    }

    /// The linked rows, grouped by identical bits.
    fn fold_identical(&self) -> Groups {
        let stride = 4 * self.dim;
        let linked = self.rows.iter().filter(|(_, kind, _)| *kind == Kind::Linked);
        let linked: Vec<(u32, u32)> = linked.map(|&(row, _, place)| (row, place)).collect();
        Groups::of_identical(linked, |place| &self.matrix[place as usize * stride..][..stride])
    }

    /// The order of the nodes, how many each layer has, and their clusters.
    fn number(
        &self,
        groups: &Groups,
        vectors: Vectors<'_>,
        codes: Option<&Codes>,
        watch: &Watch<'_>,
    ) -> (Vec<u32>, Vec<u32>, Option<OwnedClusters>) {
        let nodes = u32::try_from(groups.len()).expect("as many as rows at most");
        let highest: Vec<usize> = groups
            .iter()
            .map(|group| draw_layer(self.config.seed, u64::from(group[0].0), self.config.m))
            .collect();
        let mut levels: Vec<u32> = (0..MAX_LEVELS)
            .map(|layer| highest.iter().filter(|&&highest| highest >= layer).count())
            .map(|count| u32::try_from(count).expect("as many as rows at most"))
            .take_while(|&count| count > 0)
            .collect();
        if levels.is_empty() {
            levels.push(0);
        }
        let points = self.points(vectors, codes);
        let mut clusters = codes.and_then(|codes| cluster(codes.rows(), nodes, watch));
        let mut numbered = match (&mut clusters, codes) {
            (Some(clusters), Some(codes)) => node_order::by_clusters(&points, clusters, codes.stride, watch),
            _ => node_order::by_locality(&points, nodes, watch),
        };
        numbered.sort_by_key(|&group| std::cmp::Reverse(highest[group as usize]));
        let clusters = clusters
            .zip(codes)
            .map(|(clusters, codes)| OwnedClusters::new(clusters, codes.stride, &numbered, &levels));
        (numbered, levels, clusters)
    }

    /// The vector of a node as the codes see it: of length 1 under cosine.
    fn directed(&self, vectors: Vectors<'_>, node: u32, out: &mut [f32]) {
        vectors.read(node, out);
        if self.metric.ignores_length() {
            #[expect(clippy::cast_possible_truncation, reason = "rounded, within the range of f32")]
            let inverse = (1.0 / vector_length(out)) as f32;
            out.iter_mut().for_each(|x| *x *= inverse);
        }
    }

    /// The codes of the nodes, if the beam search is to use codes.
    fn encode(&self, vectors: Vectors<'_>, nodes: u32, watch: &Watch<'_>) -> Option<Codes> {
        let useful = (codebook::LEAST_DIM..=MAX_CODE_DIM).contains(&self.dim);
        if !useful && self.config.stored != StoredVectors::None {
            return None;
        }
        let read = |node: u32, out: &mut [f32]| self.directed(vectors, node, out);
        let book = Codebook::fit(self.metric, self.dim, nodes, read);
        let needed = self.config.stored == StoredVectors::None;
        if !needed && !book.passes_fidelity_check(self.dim, nodes, read) {
            return None;
        }
        let stride = codebook::code_stride(self.dim);
        let mut bytes = vec![0; nodes as usize * stride];
        bytes.par_chunks_mut(stride).enumerate().for_each_init(
            || vec![0.0; self.dim],
            |row, (node, code)| {
                if !watch.goes_on() {
                    return;
                }
                self.directed(vectors, u32::try_from(node).expect("below the node count"), row);
                book.encode(row, code);
            },
        );
        Some(Codes { book, stride, bytes })
    }
}

fn small_row(row: RowId) -> Result<u32, BuildError> {
    u32::try_from(row.get())
        .ok()
        .filter(|&small| u64::from(small) < MAX_ROWS)
        .ok_or(BuildError::TooManyRows(row.get()))
}
