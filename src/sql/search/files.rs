//! The files of a search, each with how it will be answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::common::{Result, config_datafusion_err};
use datafusion::datasource::listing::{ListingTableUrl, PartitionedFile};
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;

use crate::format::SourceIdentity;
use crate::rows::footer::Footer;
use crate::rows::scan::TableFiles;
use crate::rows::source_file::SourceFile;
use crate::sidecar::{Allowance, Care, Load, Location, Lookup, Reason, Sidecar, SidecarDir};
use crate::sql::options::{HnswOptions, LoadMode, Mode};
use crate::sql::recognize::order_by::KnnRequest;
use crate::sql::shared::Shared;

/// Files whose footers and sidecars are looked up at the same time.
pub(crate) const LOOKUPS_AT_ONCE: usize = 16;

/// One file of a search.
#[derive(Debug)]
pub(crate) struct SearchFile {
    /// As the scan names it, with its partition values.
    pub file: PartitionedFile,
    /// Where it lies.
    pub source: SourceFile,
    /// Its footer.
    pub footer: Arc<Footer>,
    /// How its nearest rows are found.
    pub strategy: Strategy,
    /// What finding and opening the sidecar took.
    pub load: Duration,
}

impl SearchFile {
    /// The index through which its nearest rows are found, unless that was found to be damaged since the search was
    /// planned.
    pub(crate) fn index(&self) -> Option<&Arc<Sidecar>> {
        match &self.strategy {
            Strategy::Index(sidecar) if sidecar.damage().is_none() => Some(sidecar),
            Strategy::Index(_) | Strategy::Exact(_) => None,
        }
    }

    /// None of its rows with an indexed vector is nearer to the query than this; see [`Ball`](crate::sidecar::Ball).
    pub(crate) fn at_least(&self, request: &KnnRequest, query: &[f64]) -> f64 {
        self.index()
            .and_then(|sidecar| sidecar.ball())
            .map_or(f64::NEG_INFINITY, |ball| {
                ball.at_least(request.distance.metric(), query)
            })
    }
}

/// How the nearest rows of one file are found.
#[derive(Debug)]
pub(crate) enum Strategy {
    /// Through its index.
    Index(Arc<Sidecar>),
    /// By comparing every vector, because of this.
    Exact(ExactBecause),
}

/// Where a search looks for sidecars.
#[derive(Clone, Debug)]
pub(crate) enum Sidecars {
    /// Nowhere: `hnsw.mode = 'exact'`.
    NotWanted,
    /// Where they are by default, or in this directory.
    In(Option<SidecarDir>),
    /// Nowhere: `hnsw.sidecar_dir` names no place that can be read, as this says.
    NoPlace(Arc<str>),
}

impl Sidecars {
    /// As the session's settings say.
    pub(crate) fn of(options: &HnswOptions, runtime: &RuntimeEnv) -> Self {
        match options.mode {
            Mode::Exact => Sidecars::NotWanted,
            Mode::Auto | Mode::Off => match sidecar_dir(options, runtime) {
                Ok(dir) => Sidecars::In(dir),
                Err(DataFusionError::Configuration(why)) => Sidecars::NoPlace(why.into()),
                Err(error) => Sidecars::NoPlace(error.strip_backtrace().into()),
            },
        }
    }
}

/// Why a file is answered without an index.
#[derive(Debug)]
pub(crate) enum ExactBecause {
    /// `hnsw.mode = 'exact'`.
    Mode,
    /// `hnsw.sidecar_dir` names no place that can be read.
    SidecarDir(Arc<str>),
    /// There is no sidecar that fits.
    Sidecar(Reason),
}

impl ExactBecause {
    /// The code that EXPLAIN shows.
    pub(crate) fn code(&self) -> String {
        match self {
            ExactBecause::Mode => "mode_exact".to_owned(),
            ExactBecause::SidecarDir(_) => "sidecar_dir".to_owned(),
            ExactBecause::Sidecar(reason) => reason.code().to_string(),
        }
    }
}

impl ExactBecause {
    /// The code and a sentence of what to do.
    pub(crate) fn explain(&self, request: &KnnRequest) -> String {
        match self {
            ExactBecause::Mode => "mode_exact: hnsw.mode is 'exact'".to_owned(),
            ExactBecause::SidecarDir(why) => format!("sidecar_dir: {why}"),
            ExactBecause::Sidecar(reason @ (Reason::NoSidecar | Reason::MetricMismatch { .. })) => format!(
                "{}: {reason}; CREATE INDEX ON the table USING hnsw ({}) WITH (metric = '{}')",
                reason.code(),
                request.column_name,
                request.distance.metric()
            ),
            ExactBecause::Sidecar(reason) => format!("{}: {reason}", reason.code()),
        }
    }
}

/// Finds out how each file of a scan will be answered. `None` if one of them is not as the table's listing says.
pub(crate) async fn plan_files(
    shared: &Shared,
    table: &TableFiles,
    store: Arc<dyn ObjectStore>,
    request: &KnnRequest,
    sidecars: &Sidecars,
) -> Result<Option<Vec<SearchFile>>> {
    let files = sources(shared, table, &store).await;
    if let Sidecars::In(dir) = sidecars {
        let places = files.iter().map(|(_, source)| location(source, dir.clone()));
        let metric = request.distance.metric();
        shared
            .sidecars
            .list_ahead(places, &request.column_name, metric)
            .await;
    }
    let allowance = &Allowance::default();
    let planned = futures::stream::iter(files)
        .map(|(file, source)| plan_file(shared, file, source, request, sidecars, allowance))
        .buffered(LOOKUPS_AT_ONCE)
        .try_collect::<Vec<Option<SearchFile>>>()
        .await?;
    Ok(planned.into_iter().collect())
}

/// The files of a table, each with where it lies.
pub(crate) async fn sources(
    shared: &Shared,
    table: &TableFiles,
    store: &Arc<dyn ObjectStore>,
) -> Vec<(PartitionedFile, SourceFile)> {
    futures::stream::iter(table.files().cloned())
        .map(|file| with_source(shared, table, store, file))
        .buffered(LOOKUPS_AT_ONCE)
        .collect()
        .await
}

async fn with_source(
    shared: &Shared,
    table: &TableFiles,
    store: &Arc<dyn ObjectStore>,
    file: PartitionedFile,
) -> (PartitionedFile, SourceFile) {
    let files = &shared.local_files;
    let source = files.source(store, table.store_url(), &file.object_meta).await;
    (file, source)
}

async fn plan_file(
    shared: &Shared,
    file: PartitionedFile,
    source: SourceFile,
    request: &KnnRequest,
    sidecars: &Sidecars,
    allowance: &Allowance,
) -> Result<Option<SearchFile>> {
    if !source.is_as_listed() {
        return Ok(None);
    }
    let source = source.identified().await?;
    let footer = shared.footers.get(&source).await?;
    let start = Instant::now();
    let strategy = match sidecars {
        Sidecars::NotWanted => Strategy::Exact(ExactBecause::Mode),
        Sidecars::NoPlace(why) => Strategy::Exact(ExactBecause::SidecarDir(Arc::clone(why))),
        Sidecars::In(dir) => {
            let location = location(&source, dir.clone());
            let metric = request.distance.metric();
            let identity = identity(&source, &footer);
            let scan = footer.bytes_of_column(&request.column_name);
            match shared
                .sidecars
                .lookup_with(
                    &location,
                    &request.column_name,
                    metric,
                    &identity,
                    scan,
                    Care::Quick(allowance),
                )
                .await
            {
                Lookup::Fresh(sidecar) => Strategy::Index(sidecar),
                Lookup::Unusable(reason) => Strategy::Exact(ExactBecause::Sidecar(reason)),
            }
        }
    };
    Ok(Some(SearchFile {
        file,
        source,
        footer,
        strategy,
        load: start.elapsed(),
    }))
}

/// Tells the store of sidecars how the session wants them to be opened and kept.
pub(crate) fn apply_settings(shared: &Shared, options: &HnswOptions) {
    let sidecars = &shared.sidecars;
    sidecars.set_cache(options.cache_dir(), options.cache_size as u64);
    let load = match options.load {
        LoadMode::Mmap => Load::Mmap,
        LoadMode::Memory => Load::Memory(shared.memory_for_sidecars()),
    };
    sidecars.set_load(&load, options.verify_wait as u64);
}

/// Where the sidecars of a file are.
pub(crate) fn location(source: &SourceFile, mut sidecar_dir: Option<SidecarDir>) -> Location {
    if let Some(dir) = &mut sidecar_dir
        && Arc::ptr_eq(&dir.store, &source.store)
    {
        // What the store shows as its root is known by where it has the file.
        let root = source.local.as_ref().map(|local| &local.root);
        dir.local = root.map(|root| root.join(dir.prefix.as_ref()));
    }
    Location {
        store: Arc::clone(&source.store),
        store_url: source.store_url.as_str().to_owned(),
        parquet: source.meta.location.clone(),
        local: source.local.as_ref().map(|local| local.path.clone()),
        sidecar_dir,
    }
}

/// The directory that `hnsw.sidecar_dir` names: a path, or the URL of a registered object store.
pub(crate) fn sidecar_dir(options: &HnswOptions, runtime: &RuntimeEnv) -> Result<Option<SidecarDir>> {
    if options.sidecar_dir.is_empty() {
        return Ok(None);
    }
    let url = ListingTableUrl::parse(format!("{}/", options.sidecar_dir.trim_end_matches('/')))?;
    let local = (url.scheme() == "file").then(|| format!("/{}", url.prefix()).into());
    let store = runtime.object_store(&url).map_err(|_| {
        let store = url.object_store();
        config_datafusion_err!(
            "hnsw.sidecar_dir: no object store is registered for {}",
            store.as_str()
        )
    })?;
    Ok(Some(SidecarDir {
        store,
        store_url: url.object_store().as_str().to_owned(),
        prefix: url.prefix().clone(),
        local,
    }))
}

/// What binds a sidecar to a file. A local file is told by its stamp instead of an e-tag. That changes when the file is
/// copied with its sidecar; then the sidecar room compares the bytes.
pub(crate) fn identity(source: &SourceFile, footer: &Footer) -> SourceIdentity {
    SourceIdentity {
        file_name: source.file_name().to_owned(),
        size: source.meta.size,
        footer_hash: footer.hash.clone(),
        rows: footer.rows,
        e_tag: source.tag().map(str::to_owned),
    }
}
