//! CREATE INDEX without SQL, for programs.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::prelude::SessionContext;

use crate::create::{IndexProgress, ProgressFn};
use crate::hnsw::{StoredVectors, VectorMetric};
use crate::sql::ddl::create_index::{CreateIndexCommand, IndexSummary};
use crate::sql::ddl::option_list::OptionList;

/// Builds the index of a column, file by file, as `CREATE INDEX ... USING hnsw` does.
///
/// What is not said comes from the session's `hnsw.*` settings.
#[derive(Clone)]
pub struct IndexBuilder {
    command: CreateIndexCommand,
    progress: Option<ProgressFn>,
}

impl IndexBuilder {
    /// An index over `column` of `table`, both as they are named in SQL.
    pub fn new(table: impl Into<String>, column: impl Into<String>) -> Self {
        let options = OptionList::default();
        Self {
            command: CreateIndexCommand {
                table: table.into(),
                column: column.into(),
                options,
            },
            progress: None,
        }
    }

    /// The index's name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.command.options.name = Some(name.into());
        self
    }

    /// The distance that it serves.
    #[must_use]
    pub fn metric(mut self, metric: VectorMetric) -> Self {
        self.command.options.metric = Some(metric);
        self
    }

    /// Neighbors of a node, 2 to 128; twice as many on layer 0.
    #[must_use]
    pub fn m(mut self, m: usize) -> Self {
        self.command.options.m = Some(m);
        self
    }

    /// Candidates kept while a node is inserted.
    #[must_use]
    pub fn ef_construction(mut self, ef_construction: usize) -> Self {
        self.command.options.ef_construction = Some(ef_construction);
        self
    }

    /// The seed that the layers follow from.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.command.options.seed = Some(seed);
        self
    }

    /// What it keeps of each vector besides an 8-bit code.
    #[must_use]
    pub fn stored(mut self, stored: StoredVectors) -> Self {
        self.command.options.stored = Some(stored);
        self
    }

    /// Threads of the build; 0 means all cores. The bytes do not depend on it.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.command.options.threads = Some(threads);
        self
    }

    /// Makes it no error if all files have their index already.
    #[must_use]
    pub fn if_not_exists(mut self) -> Self {
        self.command.options.if_not_exists = Some(true);
        self
    }

    /// Tells `progress` now and then how far the build is, from its threads; [`ControlFlow::Break`] cancels it.
    #[must_use]
    pub fn on_progress(
        mut self,
        progress: impl Fn(&IndexProgress) -> ControlFlow<()> + Send + Sync + 'static,
    ) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// Builds and publishes the sidecars of all files that have none which fits.
    ///
    /// # Errors
    ///
    /// Returns an error if [`register`](crate::register) was not called on the context, if the table or the column
    /// does not exist or holds no vectors, if a setting is out of its range, if all files are indexed already, or if
    /// a file cannot be read or a sidecar not be written. Sidecars published before the error stay.
    pub async fn build(&self, ctx: &SessionContext) -> Result<IndexSummary> {
        let state = ctx.state();
        self.command
            .create(&state, state.task_ctx(), self.progress.clone())
            .await
    }
}

impl std::fmt::Debug for IndexBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexBuilder")
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}
