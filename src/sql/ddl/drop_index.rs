//! DROP INDEX, as a command: which sidecars belong to an index, and removing them.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{Array, RecordBatch, StringArray, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{Result, TableReference, exec_err};
use datafusion::error::DataFusionError;
use datafusion::execution::{SessionState, TaskContext};

use super::command::Command;
use super::create_index::default_name;
use super::tables::{ListedTable, all_parquet_tables, named_parquet_table};
use super::targets::locations;
use crate::sidecar::{SidecarEntry, StoreError};
use crate::sql::shared::Shared;

/// `DROP INDEX [IF EXISTS] name [ON table]`.
#[derive(Debug)]
pub(crate) struct DropIndexCommand {
    pub name: String,
    pub table: Option<String>,
    pub if_exists: bool,
}

impl DropIndexCommand {
    /// Whether a sidecar is part of the index.
    ///
    /// One that does not open cannot say so. It is taken for a part of the index whose sidecars for the same column
    /// and metric do open, or else of the one that has the default name; its file name always names it.
    fn names(&self, table: &TableReference, entry: &SidecarEntry, others: &[SidecarEntry]) -> bool {
        if let Ok(sidecar) = &entry.opened {
            return sidecar.meta().index_name == self.name;
        }
        if entry.name.to_string() == self.name {
            return true;
        }
        let mut siblings = others
            .iter()
            .filter(|other| other.location.is_some() && other.name.is_of_same_index(&entry.name))
            .filter_map(|other| Some(other.opened.as_ref().ok()?.meta().index_name.as_str()))
            .peekable();
        if siblings.peek().is_some() {
            return siblings.any(|name| name == self.name);
        }
        let column = entry.name.column().unwrap_or_default();
        default_name(table, &column, entry.name.metric) == self.name
    }
}

#[async_trait]
impl Command for DropIndexCommand {
    fn name(&self) -> &'static str {
        "DROP INDEX"
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("index_name", DataType::Utf8, false),
            Field::new("files_dropped", DataType::UInt64, false),
        ]))
    }

    async fn run(&self, state: &SessionState, _context: Arc<TaskContext>) -> Result<RecordBatch> {
        let tables = match &self.table {
            Some(name) => vec![ListedTable {
                name: name.clone(),
                table: named_parquet_table(state, name).await?,
                in_default_schema: true,
            }],
            None => all_parquet_tables(state).await?,
        };
        let shared = Shared::of(state)?;
        let (mut dropped, mut unreadable) = (0_u64, vec![]);
        for ListedTable {
            table,
            in_default_schema,
            ..
        } in tables
        {
            // An index of the same name in another schema is another index.
            if dropped > 0 && !in_default_schema {
                break;
            }
            let locations = locations(state, &table.provider).await?;
            let entries = shared.sidecars.list(&locations).await.map_err(external)?;
            for entry in &entries {
                let place = entry.location.map(|place| &locations[place]);
                let Some(place) = place.or(entry.orphan_of.as_ref()) else {
                    continue;
                };
                if self.names(&table.reference, entry, &entries) {
                    let removed = shared.sidecars.remove_named(place, &entry.name);
                    dropped += u64::from(removed.await.map_err(external)?);
                } else if entry.opened.is_err() {
                    unreadable.push(entry.name.to_string());
                }
            }
        }
        if dropped == 0 && !self.if_exists {
            let on = self
                .table
                .as_ref()
                .map_or_else(String::new, |table| format!(" on {table}"));
            let damaged = if unreadable.is_empty() {
                String::new()
            } else {
                let names = unreadable.join("\", \"");
                format!("; these do not open, and can be dropped by their file names: \"{names}\"")
            };
            return exec_err!(
                "there is no index {}{on}; SELECT * FROM hnsw_indexes() lists them, and IF EXISTS makes this no error{damaged}",
                self.name
            );
        }
        Ok(RecordBatch::try_new(
            self.schema(),
            vec![
                Arc::new(StringArray::from(vec![self.name.as_str()])) as Arc<dyn Array>,
                Arc::new(UInt64Array::from(vec![dropped])),
            ],
        )?)
    }
}

fn external(error: StoreError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
