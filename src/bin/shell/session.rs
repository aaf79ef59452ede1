//! One session: `datafusion-cli`'s context with our extension registered, and one statement run in it.

use std::num::NonZeroUsize;
use std::sync::Arc;

use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, GreedyMemoryPool, MemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::ExplainFormat;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_cli::catalog::DynamicObjectStoreCatalog;
use datafusion_cli::functions::{
    ListFilesCacheFunc, MetadataCacheFunc, ParquetMetadataFunc, StatisticsCacheFunc,
};
use datafusion_cli::object_storage::StdinCarriesCommands;
use datafusion_cli::object_storage::instrumented::InstrumentedObjectStoreRegistry;
use datafusion_cli::pool_type::PoolType;
use datafusion_cli::print_options::PrintOptions;
use datafusion_hnsw::sql::ddl::statement::{desugar, name_operator};

use crate::args::Args;
use crate::execute::execute;
use crate::progress::Progress;

/// A context to run statements in, and how to print what they return.
pub(crate) struct Session {
    pub(crate) ctx: SessionContext,
    pub(crate) print: PrintOptions,
    pub(crate) progress: Arc<Progress>,
}

impl Session {
    pub(crate) async fn new(args: &Args) -> Result<Self> {
        let registry =
            Arc::new(InstrumentedObjectStoreRegistry::new().with_profile_mode(args.object_store_profiling));
        let mut runtime = RuntimeEnvBuilder::new().with_object_store_registry(Arc::clone(&registry) as _);
        if let Some(bytes) = args.memory_limit {
            runtime = runtime.with_memory_pool(memory_pool(args, bytes));
        }
        if let Some(bytes) = args.disk_limit {
            runtime = runtime.with_disk_manager_builder(
                DiskManagerBuilder::default()
                    .with_mode(DiskManagerMode::OsTmpDirectory)
                    .with_max_temp_directory_size(bytes as u64),
            );
        }

        let ctx = SessionContext::new_with_config_rt(config(args)?, runtime.build_arc()?).enable_url_table();
        ctx.refresh_catalogs().await?;
        ctx.register_catalog_list(Arc::new(DynamicObjectStoreCatalog::new(
            Arc::clone(ctx.state().catalog_list()),
            ctx.state_weak_ref(),
        )));
        let caches = &ctx.runtime_env().cache_manager;
        ctx.register_udtf("parquet_metadata", Arc::new(ParquetMetadataFunc {}));
        ctx.register_udtf(
            "metadata_cache",
            Arc::new(MetadataCacheFunc::new(Arc::clone(caches))),
        );
        ctx.register_udtf(
            "statistics_cache",
            Arc::new(StatisticsCacheFunc::new(Arc::clone(caches))),
        );
        ctx.register_udtf(
            "list_files_cache",
            Arc::new(ListFilesCacheFunc::new(Arc::clone(caches))),
        );

        datafusion_hnsw::register(&ctx)?;
        let progress = Progress::attach(&ctx, args.quiet)?;

        let print = PrintOptions {
            format: args.format,
            quiet: args.quiet,
            maxrows: args.maxrows,
            color: args.color,
            instrumented_registry: registry,
        };
        Ok(Self { ctx, print, progress })
    }

    /// Runs one statement and prints its rows.
    pub(crate) async fn run(&self, statement: &str) -> Result<()> {
        let options = self.ctx.state().config().options().sql_parser.clone();
        let ours = desugar(statement, &options)?;
        let sql = ours.unwrap_or_else(|| statement.to_owned());
        self.progress.begin();
        let done = execute(&self.ctx, sql, &self.print).await;
        self.progress.end();
        done.map_err(|error| name_operator(error, statement, &options))
    }
}

fn config(args: &Args) -> Result<SessionConfig> {
    let mut options = ConfigOptions::from_env()?;
    // As in datafusion-cli, unless the environment says otherwise: plans as trees, NULLs visible.
    if std::env::var_os("DATAFUSION_EXPLAIN_FORMAT").is_none() {
        options.explain.format = ExplainFormat::Tree;
    }
    if std::env::var_os("DATAFUSION_FORMAT_NULL").is_none() {
        options.format.null = "NULL".to_owned();
    }
    let mut config = SessionConfig::from(options).with_information_schema(true);
    if let Some(rows) = args.batch_size {
        config = config.with_batch_size(rows as usize);
    }
    if args.stdin_carries_statements() {
        config = config.with_extension(Arc::new(StdinCarriesCommands));
    }
    Ok(config)
}

fn memory_pool(args: &Args, bytes: usize) -> Arc<dyn MemoryPool> {
    match (&args.mem_pool_type, NonZeroUsize::new(args.top_memory_consumers)) {
        (PoolType::Fair, None) => Arc::new(FairSpillPool::new(bytes)),
        (PoolType::Fair, Some(top)) => Arc::new(TrackConsumersPool::new(FairSpillPool::new(bytes), top)),
        (PoolType::Greedy, None) => Arc::new(GreedyMemoryPool::new(bytes)),
        (PoolType::Greedy, Some(top)) => Arc::new(TrackConsumersPool::new(GreedyMemoryPool::new(bytes), top)),
    }
}
