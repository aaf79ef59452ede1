//! The pairs of a cross join that can have a low rank, as a table.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::{Column, Result};
use datafusion::datasource::{TableProvider, TableType, provider_as_source};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;

use super::plan::{Joined, Side, join_exec};
use crate::sql::recognize::order_by::KnnRequest;
use crate::sql::shared::Shared;

/// The columns of a join, named by their places: its own names may need qualifiers to differ.
pub(crate) fn numbered(join: &Join) -> SchemaRef {
    let fields = join.schema.fields().iter().enumerate();
    let fields = fields
        .map(|(at, field)| Field::new(format!("c{at}"), field.data_type().clone(), field.is_nullable()));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The pairs of a cross join that can have a low rank.
#[derive(Debug)]
pub(crate) struct RankedPairs {
    pub(crate) schema: SchemaRef,
    /// What it stands for.
    pub(crate) join: LogicalPlan,
    pub(crate) queries: LogicalPlan,
    pub(crate) query_vector: usize,
    /// On which side the rows are.
    pub(crate) rows: Side,
    /// The columns of that side, as places in the table.
    pub(crate) columns: Vec<usize>,
    pub(crate) provider: Arc<dyn TableProvider>,
    pub(crate) request: Arc<KnnRequest>,
    pub(crate) shared: Arc<Shared>,
}

impl RankedPairs {
    /// A plan with the columns of the join.
    pub(crate) fn in_place_of(self, join: &Join) -> Result<LogicalPlan> {
        let names = join.schema.columns();
        let scan = LogicalPlanBuilder::scan("ranked_pairs", provider_as_source(Arc::new(self)), None)?;
        let columns: Vec<_> = scan.schema().columns().into_iter().zip(names).collect();
        let columns = columns
            .into_iter()
            .map(|(column, name)| Expr::Column(column).alias_qualified(name.relation, name.name));
        scan.project(columns.collect::<Vec<_>>())?.build()
    }

    fn split(&self) -> usize {
        match self.rows {
            Side::Right => self.queries.schema().fields().len(),
            Side::Left => self.columns.len(),
        }
    }

    /// Where a column of the join comes from.
    fn joined(&self, column: usize) -> Joined {
        let (side, at) = match column.checked_sub(self.split()) {
            None => (Side::Left, column),
            Some(at) => (Side::Right, at),
        };
        if side == self.rows {
            Joined::Row(self.columns[at])
        } else {
            Joined::Query(at)
        }
    }
}

#[async_trait]
impl TableProvider for RankedPairs {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all = || (0..self.schema.fields().len()).collect();
        let wanted: Vec<usize> = projection.cloned().unwrap_or_else(all);
        let schema = Arc::new(self.schema.project(&wanted)?);
        let joined: Vec<_> = wanted.iter().map(|&column| self.joined(column)).collect();
        let queries = |columns: &[usize]| {
            let schema = self.queries.schema();
            let columns = columns
                .iter()
                .map(|&at| Expr::Column(Column::from(schema.qualified_field(at))));
            LogicalPlanBuilder::from(self.queries.clone())
                .project(columns.collect::<Vec<_>>())?
                .build()
        };
        let exec = join_exec(
            state,
            (self.query_vector, &queries),
            (&self.provider, &self.request, &self.shared),
            &joined,
            Arc::clone(&schema),
            true,
        );
        if let Some(exec) = exec.await? {
            return Ok(exec);
        }
        // The files are not as they were listed: every pair, as without an index.
        let every = state.create_physical_plan(&self.join).await?;
        let columns = wanted.iter().zip(schema.fields()).map(|(&at, field)| {
            let column = PhysicalColumn::new(every.schema().field(at).name(), at);
            (Arc::new(column) as _, field.name().clone())
        });
        Ok(Arc::new(ProjectionExec::try_new(
            columns.collect::<Vec<_>>(),
            every,
        )?))
    }
}
