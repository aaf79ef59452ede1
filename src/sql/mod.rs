//! The QUERY sentence: SQL, request, row ids, selection, batches. The only room that names DataFusion's planning types.

mod api;
pub mod ddl;
pub mod functions;
mod join;
mod options;
mod recognize;
pub mod rules;
mod search;
mod session;
mod shared;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::prelude::SessionContext;

pub use api::index_builder::IndexBuilder;
pub use api::vector_table::KnnOptions;
pub use ddl::create_index::IndexSummary;
pub use ddl::statement::HnswSessionExt;
pub use options::{HnswOptions, Mode};
pub use recognize::refusal::Refusal;
pub use search::table::VectorTable;

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
    ctx.add_analyzer_rule(Arc::new(rules::create_index::CreateIndexRule));
    ctx.add_analyzer_rule(Arc::new(rules::bind_query::BindRule));
    ctx.add_optimizer_rule(Arc::new(rules::ranked_join::RankRule::new(Arc::clone(&shared))));
    ctx.add_optimizer_rule(Arc::new(rules::knn::KnnRule::new(shared)));
    functions::register::register(ctx);
    session::keep_searches_as_planned(ctx);
    functions::distance_aliases::register(ctx);
    rules::vector_operators::register(ctx)?;
    rules::fold_array_literal::register(ctx, rules::fold_array_literal::ArrayLiteralFolder::default());
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
