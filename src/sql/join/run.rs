//! A join by nearness while it runs: searches over all cores, one fetch for all of them, pairs out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{Result, exec_err, internal_datafusion_err};
use datafusion::error::DataFusionError;

use super::pairs::{Chosen, Fetched, Pair, assemble};
use super::plan::JoinColumn;
use crate::hnsw::{RowSet, SearchError};
use crate::id::RowId;
use crate::rows::memory::Held;
use crate::rows::vectors::{Vector, Vectors};
use crate::sql::search::brute_force::{distance_of, scan_vectors_for};
use crate::sql::search::cancel::StopOnDrop;
use crate::sql::search::fetch::check_rows;
use crate::sql::search::files::SearchFile;
use crate::sql::search::merge::choose;
use crate::sql::search::scan::Run;
use crate::sql::search::through_index::{
    Candidates, PreparedQuery, search_failed, search_index, search_memory, takes_queries_of, usable_index,
};
use crate::sql::search::top_k_bound::Bound;

/// The join while it runs.
pub(crate) struct Join {
    pub(crate) run: Arc<Run>,
    pub(crate) output: Arc<[JoinColumn]>,
    pub(crate) superset: bool,
    pub(crate) schema: SchemaRef,
}

/// A left row and its vector.
struct Query {
    left: u64,
    vector: PreparedQuery,
    /// Whether an index can be asked for its neighbors.
    searchable: bool,
    /// The k-th best distance in the files searched so far.
    bound: Arc<Bound>,
}

/// What the files offer to some left rows.
struct Offers {
    /// Those that have a vector.
    queries: Arc<[Query]>,
    /// All of them, those without a vector last.
    lefts: Vec<u64>,
    /// The rows chosen for each.
    chosen: Vec<Chosen>,
}

impl Join {
    /// The pairs of some left rows.
    pub(crate) async fn piece(&self, left: &RecordBatch) -> Result<RecordBatch> {
        let offers = loop {
            let damaged = self.run.damaged_files();
            let offers = self.offers(left).await?;
            for chosen in &offers.chosen {
                check_rows(&self.run, chosen).await;
            }
            // What a damaged index offered may have kept out rows of any file: all is searched again without it.
            if self.run.damaged_files() == damaged {
                break offers;
            }
        };
        if offers.chosen.is_empty() {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.schema)));
        }
        let fetched = Fetched::new(&self.run, &offers.chosen).await?;
        let pairs = if self.superset {
            fetched.all_pairs(&offers.lefts, &offers.chosen)?
        } else {
            self.nearest(&offers.queries, &offers.chosen, &fetched)?
        };
        assemble(&self.output, &self.schema, left, &fetched, &pairs)
    }

    /// The rows that may be among the nearest of some left rows.
    async fn offers(&self, left: &RecordBatch) -> Result<Offers> {
        let (queries, without) = self.queries(left)?;
        let queries: Arc<[Query]> = queries.into();
        let mut lefts: Vec<u64> = queries.iter().map(|query| query.left).collect();
        if queries.is_empty() && without.is_empty() {
            let chosen = vec![];
            return Ok(Offers {
                queries,
                lefts,
                chosen,
            });
        }
        // What each file offers, for each query.
        let mut offered: Vec<Vec<Candidates>> = queries.iter().map(|_| vec![]).collect();
        let mut offered_to_all: Vec<Candidates> = vec![];
        for file in 0..self.run.spec.files.len() {
            let allowed = self.allowed(file).await?;
            if !without.is_empty() {
                offered_to_all.push(
                    self.any_rows(file, allowed.as_ref().map(|rows| &***rows))
                        .held(&self.run)?,
                );
            }
            let found = self.search_file(file, allowed, &queries).await?;
            for ((all, of_file), query) in offered.iter_mut().zip(found).zip(queries.iter()) {
                query.bound.note(&of_file.near);
                all.push(of_file);
            }
        }
        let choose = |all| choose(all, &self.run.spec.request);
        let mut chosen: Vec<_> = offered.into_iter().map(choose).collect();
        if !without.is_empty() {
            let any = choose(offered_to_all);
            chosen.extend(without.iter().map(|_| any.clone()));
            lefts.extend(without);
        }
        Ok(Offers {
            queries,
            lefts,
            chosen,
        })
    }

    /// The rows of a file that pass the filter.
    async fn allowed(&self, index: usize) -> Result<Option<Arc<Held<RowSet>>>> {
        let run = &self.run;
        let Some(filter) = &run.filter else {
            return Ok(None);
        };
        let cache = run.bitmaps(filter);
        let read = run.read(&run.spec.files[index]);
        let (rows, _) = filter.rows(cache, &run.spec.table, read, &run.context).await?;
        Ok(Some(rows))
    }

    /// Rows for a query that is at no distance from any: one is as near as another.
    fn any_rows(&self, index: usize, allowed: Option<&RowSet>) -> Candidates {
        let wanted = self.run.spec.nulls_wanted();
        let nulls = match allowed {
            None => (0..self.run.spec.files[index].footer.rows).take(wanted).collect(),
            Some(set) => set.iter().map(RowId::get).take(wanted).collect(),
        };
        let mut any = Candidates::default();
        any.nulls = nulls;
        any
    }

    /// The queries, and in a superset the left rows without a vector.
    fn queries(&self, left: &RecordBatch) -> Result<(Vec<Query>, Vec<u64>)> {
        let vectors = Vectors::of(left.column(0))?;
        let distance = self.run.spec.request.distance;
        let (mut queries, mut without) = (vec![], vec![]);
        for row in 0..left.num_rows() {
            let exact: Arc<[f64]> = match vectors.get(row) {
                Vector::Null => {
                    if self.superset {
                        without.push(row as u64);
                    }
                    continue;
                }
                Vector::Single(vector) => vector.iter().copied().map(f64::from).collect(),
                Vector::Double(vector) => Arc::from(vector),
            };
            let prepared = PreparedQuery::new(Arc::clone(&exact), distance);
            let searchable = prepared.is_some();
            let vector = prepared.unwrap_or_else(|| PreparedQuery {
                exact,
                rounded: Arc::from([]),
                length: f64::NAN,
            });
            queries.push(Query {
                left: row as u64,
                vector,
                searchable,
                bound: Arc::new(Bound::new(self.run.spec.request.k)),
            });
        }
        Ok((queries, without))
    }

    /// What one file offers to each query.
    async fn search_file(
        &self,
        index: usize,
        allowed: Option<Arc<Held<RowSet>>>,
        queries: &Arc<[Query]>,
    ) -> Result<Vec<Candidates>> {
        let run = &self.run;
        let file = &run.spec.files[index];
        let mut found: Vec<Option<Candidates>> = match usable_index(run, file) {
            None => queries.iter().map(|_| None).collect(),
            Some(sidecar) => {
                for query in queries.iter() {
                    let length = query.vector.exact.len();
                    if !takes_queries_of(sidecar, length) {
                        same_length(length, sidecar.dim())?;
                    }
                }
                self.search_index(index, allowed, queries).await?
            }
        };
        let left: Vec<usize> = (0..queries.len())
            .filter(|&query| found[query].is_none())
            .collect();
        if !left.is_empty() {
            let vectors: Vec<_> = left.iter().map(|&query| &queries[query].vector).collect();
            let Ok(scanned) = scan_vectors_for(run, file, &vectors).await? else {
                return exec_err!("the vectors of the two columns have different lengths");
            };
            for (query, candidates) in left.into_iter().zip(scanned) {
                found[query] = Some(candidates);
            }
        }
        Ok(found.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// Searches a file's index for every query, over all cores; `None` for a query that it cannot answer.
    async fn search_index(
        &self,
        index: usize,
        allowed: Option<Arc<Held<RowSet>>>,
        queries: &Arc<[Query]>,
    ) -> Result<Vec<Option<Candidates>>> {
        let threads = self.run.spec.threads.max(1);
        let share = queries.len().div_ceil(threads).max(1);
        let memory = self.run.memory.new_empty();
        if let Some(sidecar) = self.run.spec.files[index].index() {
            let rows = allowed.as_ref().map_or(0, |rows| rows.count());
            memory.try_grow(search_memory(&self.run, sidecar, rows).saturating_mul(threads))?;
        }
        // Blocking tasks run on when the query is dropped: they look whether it is still there.
        let stop = StopOnDrop::default();
        let tasks: Vec<_> = (0..queries.len())
            .step_by(share)
            .map(|start| {
                let (run, queries) = (Arc::clone(&self.run), Arc::clone(queries));
                let (stop, allowed) = (stop.flag(), allowed.clone());
                SpawnedTask::spawn_blocking(move || {
                    let end = (start + share).min(queries.len());
                    queries[start..end]
                        .iter()
                        .take_while(|_| !stop.load(Ordering::Relaxed))
                        .map(|query| {
                            let allowed = allowed.as_ref().map(|rows| &***rows);
                            search_one(&run, index, allowed, query, &stop)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let mut found = Vec::with_capacity(queries.len());
        for task in tasks {
            let of_share = task
                .await
                .map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))?;
            for of_query in of_share {
                found.push(of_query.map(|found| found.held(&self.run)).transpose()?);
            }
        }
        drop(stop);
        Ok(found)
    }

    /// The pairs of the answer: of the rows chosen for each query, the `k` at the least exact distance.
    fn nearest(&self, queries: &[Query], chosen: &[Chosen], fetched: &Fetched) -> Result<Vec<Pair>> {
        let request = &self.run.spec.request;
        let vectors = Vectors::of(fetched.rows.column(0))?;
        let mut pairs = vec![];
        for (query, chosen) in queries.iter().zip(chosen) {
            let mut near = vec![];
            for right in fetched.places(chosen) {
                let right = right?;
                let at = usize::try_from(right).map_err(|e| internal_datafusion_err!("{e}"))?;
                let vector = vectors.get(at);
                if let Some(dim) = vector.dim() {
                    same_length(query.vector.exact.len(), dim)?;
                }
                if let Some(distance) = distance_of(request.distance, &query.vector.exact, vector) {
                    near.push(Pair {
                        left: query.left,
                        right,
                        distance,
                    });
                }
            }
            near.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.right.cmp(&b.right)));
            near.truncate(request.k);
            pairs.append(&mut near);
        }
        Ok(pairs)
    }
}

fn search_one(
    run: &Run,
    index: usize,
    allowed: Option<&RowSet>,
    query: &Query,
    stop: &AtomicBool,
) -> Option<Candidates> {
    let file: &SearchFile = &run.spec.files[index];
    let (Some(sidecar), true) = (file.index(), query.searchable) else {
        return None;
    };
    let at_least = file.at_least(&run.spec.request, &query.vector.exact);
    let known = Some((&query.bound, at_least));
    match search_index(run, sidecar, &query.vector, allowed, known, Some(stop)) {
        Ok(found) => Some(found),
        // Nobody waits for it any more.
        Err(SearchError::Interrupted) => None,
        Err(error) => {
            search_failed(run, file, sidecar, &error);
            None
        }
    }
}

fn same_length(query: usize, vector: usize) -> Result<()> {
    if query == vector {
        return Ok(());
    }
    exec_err!("a vector of the left table has {query} numbers, one of the right has {vector}")
}
