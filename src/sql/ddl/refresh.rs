//! `hnsw_refresh('t')`: builds again what is missing or stale of each index of a table, and removes the sidecars of
//! files that are gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{RecordBatch, StringArray, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::execution::{SessionState, TaskContext};

use super::command::Command;
use super::create_index::{CreateIndexCommand, told};
use super::option_list::OptionList;
use super::tables::named_parquet_table;
use super::targets::locations;
use crate::sidecar::Reason;
use crate::sql::recognize::sort_key::Distance;
use crate::sql::shared::Shared;

/// Refreshes all indexes of one table, with the parameters that they were built with.
#[derive(Debug)]
pub(crate) struct RefreshCommand {
    pub table: String,
}

#[async_trait]
impl Command for RefreshCommand {
    fn name(&self) -> &'static str {
        "hnsw_refresh"
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("index_name", DataType::Utf8, false),
            Field::new("column_name", DataType::Utf8, false),
            Field::new("metric", DataType::Utf8, false),
            Field::new("files_built", DataType::UInt64, false),
            Field::new("files_kept", DataType::UInt64, false),
            Field::new("skipped", DataType::Utf8, true),
        ]))
    }

    async fn run(&self, state: &SessionState, context: Arc<TaskContext>) -> Result<RecordBatch> {
        let provider = named_parquet_table(state, &self.table).await?.provider;
        let shared = Shared::of(state)?;
        let places = locations(state, &provider).await?;
        let entries = shared
            .sidecars
            .list(&places)
            .await
            .map_err(|e| DataFusionError::External(Box::new(e)))?;
        let mut indexes: BTreeMap<(String, &'static str), OptionList> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.location.is_some()) {
            let Ok(sidecar) = &entry.opened else { continue };
            let metric = entry.name.metric;
            // No query could use it, and CREATE INDEX does not build it.
            if Distance::of_metric(metric).is_none() {
                continue;
            }
            indexes
                .entry((sidecar.meta().table_column.clone(), metric.name()))
                .or_insert_with(|| OptionList {
                    name: Some(sidecar.meta().index_name.clone()),
                    metric: Some(metric),
                    m: Some(sidecar.m()),
                    ef_construction: Some(sidecar.ef_construction()),
                    seed: Some(sidecar.config().seed),
                    stored: Some(sidecar.stored()),
                    if_not_exists: Some(true),
                    ..OptionList::default()
                });
        }
        // A sidecar that does not open cannot say how it was built: as its siblings were, or by the settings.
        for entry in entries.iter().filter(|entry| entry.location.is_some()) {
            let (Err(Reason::Damaged { .. }), Some(column)) = (&entry.opened, entry.name.column()) else {
                continue;
            };
            let metric = entry.name.metric;
            if Distance::of_metric(metric).is_none() {
                continue;
            }
            indexes
                .entry((column, metric.name()))
                .or_insert_with(|| OptionList {
                    metric: Some(metric),
                    if_not_exists: Some(true),
                    ..OptionList::default()
                });
        }
        let mut summaries = vec![];
        for ((column, _), options) in indexes {
            let command = CreateIndexCommand {
                table: self.table.clone(),
                column: column.clone(),
                options,
            };
            let summary = command
                .create(state, Arc::clone(&context), shared.progress())
                .await?;
            summaries.push((column, summary));
        }
        for entry in &entries {
            if let Some(gone) = &entry.orphan_of {
                let removed = shared.sidecars.remove_named(gone, &entry.name).await;
                removed.map_err(|e| DataFusionError::External(Box::new(e)))?;
            }
        }
        Ok(RecordBatch::try_new(
            self.schema(),
            vec![
                Arc::new(
                    summaries
                        .iter()
                        .map(|(_, s)| Some(s.index_name.clone()))
                        .collect::<StringArray>(),
                ),
                Arc::new(
                    summaries
                        .iter()
                        .map(|(column, _)| Some(column.clone()))
                        .collect::<StringArray>(),
                ),
                Arc::new(
                    summaries
                        .iter()
                        .map(|(_, s)| Some(s.metric.to_string()))
                        .collect::<StringArray>(),
                ),
                Arc::new(
                    summaries
                        .iter()
                        .map(|(_, s)| s.files_built)
                        .collect::<UInt64Array>(),
                ),
                Arc::new(
                    summaries
                        .iter()
                        .map(|(_, s)| s.files_kept)
                        .collect::<UInt64Array>(),
                ),
                Arc::new(
                    summaries
                        .iter()
                        .map(|(_, s)| (!s.skipped.is_empty()).then(|| told(&s.skipped)))
                        .collect::<StringArray>(),
                ),
            ],
        )?)
    }
}
