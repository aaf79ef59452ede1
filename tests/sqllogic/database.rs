//! Our session as a database that sqllogictest can run records against.

use std::time::Duration;

use async_trait::async_trait;
use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_hnsw::sql::ddl::statement::HnswSessionExt as _;
use sqllogictest::{AsyncDB, DBOutput};

use crate::output::{Column, Output};

/// Larger than any table of the tests, so that a search is exhaustive.
pub(crate) const EF_SEARCH: usize = 10_000;

/// A session with the extension registered, in one mode.
pub(crate) struct Database {
    ctx: SessionContext,
    output: Output,
}

impl Database {
    /// Opens a session whose tables live in `dir`; `None` leaves every setting at its default.
    pub(crate) async fn open(mode: Option<&str>, dir: String) -> Result<Self> {
        // The number of partitions shows in plans, so it must not depend on the machine.
        let config = SessionConfig::new()
            .with_target_partitions(4)
            .with_information_schema(true);
        let ctx = SessionContext::new_with_config(config);
        datafusion_hnsw::register(&ctx)?;
        if let Some(mode) = mode {
            ctx.hnsw_sql(&format!("SET hnsw.mode = '{mode}'")).await?;
            ctx.hnsw_sql(&format!("SET hnsw.ef_search = {EF_SEARCH}")).await?;
        }
        Ok(Self {
            ctx,
            output: Output::new(dir),
        })
    }
}

#[async_trait]
impl AsyncDB for Database {
    type Error = DataFusionError;
    type ColumnType = Column;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<Column>> {
        let frame = self.ctx.hnsw_sql(sql).await?;
        let schema = std::sync::Arc::clone(frame.schema().inner());
        let batches = frame.collect().await?;
        if schema.fields().is_empty() {
            return Ok(DBOutput::StatementComplete(0));
        }
        self.output.rows(&schema, &batches)
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "datafusion-hnsw"
    }

    async fn sleep(time: Duration) {
        tokio::time::sleep(time).await;
    }
}
