//! The QUERY sentence: SQL, request, row ids, selection, batches. The only room that names DataFusion's planning types.

mod analyzer;
mod bind;
mod bound;
mod candidates;
mod chain;
mod choose;
mod command;
mod ddl;
mod direct;
mod distance;
mod drop;
mod explain;
mod fetch;
mod files;
mod functions;
mod gather;
mod index_builder;
mod inspect;
mod join_plan;
mod knn;
mod late;
mod metrics;
mod options;
mod query_vector;
mod ranked;
mod ranked_pairs;
mod refresh;
mod refusal;
mod refused;
mod rule;
mod scan;
mod sealed;
mod session;
mod shared;
mod stop;
mod table;
mod targets;
mod vector_join;
mod vector_join_exec;
mod vector_join_pairs;
mod vector_join_run;
mod vector_search;

pub mod aliases;
pub mod fold;
pub mod option_list;
pub mod statement;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::prelude::SessionContext;

pub use ddl::IndexSummary;
pub use direct::KnnOptions;
pub use index_builder::IndexBuilder;
pub use options::{HnswOptions, Mode};
pub use refusal::Refusal;
pub use statement::HnswSessionExt;
pub use table::VectorTable;

use crate::create::ProgressFn;
use shared::Shared;

/// Teaches a session vector search: the optimizer rule, CREATE INDEX, the table functions and the `hnsw.*` settings.
///
/// Works on a context that is in use already; calling it twice does nothing the second time.
///
/// # Errors
///
/// Returns an error if DataFusion refuses a function.
pub fn register(ctx: &SessionContext) -> Result<()> {
    let state = ctx.state_ref();
    let pool = Arc::clone(&ctx.runtime_env().memory_pool);
    let shared = Arc::new(Shared::new(pool));
    {
        let mut state = state.write();
        if state.config().get_extension::<Shared>().is_some() {
            return Ok(());
        }
        state.config_mut().set_extension(Arc::clone(&shared));
        let extensions = &mut state.config_mut().options_mut().extensions;
        if extensions.get::<HnswOptions>().is_none() {
            extensions.insert(HnswOptions::default());
        }
    }
    ctx.add_analyzer_rule(Arc::new(analyzer::CreateIndexRule));
    ctx.add_analyzer_rule(Arc::new(bind::BindRule));
    ctx.add_optimizer_rule(Arc::new(ranked::RankRule::new(Arc::clone(&shared))));
    ctx.add_optimizer_rule(Arc::new(rule::KnnRule::new(shared)));
    functions::register(ctx);
    session::keep_searches_as_planned(ctx);
    aliases::register(ctx);
    fold::register(ctx, fold::ArrayLiteralFolder::default());
    Ok(())
}

/// Says who is told how far index builds of this session are; `None` for nobody.
///
/// # Errors
///
/// Returns an error if [`register`] was not called on the context.
pub fn on_index_progress(ctx: &SessionContext, progress: Option<ProgressFn>) -> Result<()> {
    Shared::of(&ctx.state())?.set_progress(progress);
    Ok(())
}
