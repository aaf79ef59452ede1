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
pub use api::search_report::SearchReport;
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
/// Works on a context that is in use already; calling it twice does nothing the second time. A session made from the
/// configuration of another ([`SessionContext::copied_config`]) has that one's settings, and is registered by itself.
///
/// # Errors
///
/// Returns an error if DataFusion refuses a function.
pub fn register(ctx: &SessionContext) -> Result<()> {
    if session::is_registered(ctx) {
        return Ok(());
    }
    // A copied configuration brings the caches of the session that it comes from: they are of that one's memory pool.
    let pool = Arc::clone(&ctx.runtime_env().memory_pool);
    let shared = Arc::new(Shared::new(pool));
    {
        let state = ctx.state_ref();
        let mut state = state.write();
        state.config_mut().set_extension(Arc::clone(&shared));
        let extensions = &mut state.config_mut().options_mut().extensions;
        if extensions.get::<HnswOptions>().is_none() {
            extensions.insert(HnswOptions::default());
        }
    }
    session::add_rules(ctx, &shared);
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
