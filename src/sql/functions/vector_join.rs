//! `vector_join('queries', 'query_embedding', 'docs', 'embedding', k [, options])`: for each row of one table, the
//! `k` nearest of another.
//!
//! The columns are those of the left table, then those of the right one (a name that is taken is put behind the right
//! table's: `docs_id`), then `_distance`. A left row whose vector is NULL has no neighbors and does not appear.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result, TableReference, plan_err};
use datafusion::datasource::{TableProvider, TableType, ViewTable, provider_as_source};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, cast, col, lit,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

use super::register::{distance, text};
use super::vector_search::{DISTANCE, count, function};
use crate::rows::vectors::item_type;
use crate::sql::ddl::command::session_state;
use crate::sql::ddl::option_list::{Key, OptionList};
use crate::sql::ddl::tables::{named_parquet_table, named_table, now};
use crate::sql::join::plan::{Joined, join_exec};
use crate::sql::options::{HnswOptions, Mode};
use crate::sql::recognize::order_by::KnnRequest;
use crate::sql::recognize::query_vector::QueryVector;
use crate::sql::recognize::sort_key::Distance;
use crate::sql::shared::Shared;

const NAME: &str = "vector_join";

/// Joins each row of a table with the rows of another whose vectors are nearest to its own.
#[derive(Debug)]
pub(crate) struct VectorJoin;

impl TableFunctionImpl for VectorJoin {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let (names, k, options) = match args.exprs() {
            [names @ .., k] if names.len() == 4 => (names, k, String::new()),
            [names @ .., k, options] if names.len() == 4 => (names, k, text(options, NAME, "options")?),
            _ => {
                return plan_err!(
                    "{NAME} takes a table and its vector column, twice, then k and perhaps options: \
                     {NAME}('queries', 'query_embedding', 'docs', 'embedding', 10, 'ef_search=200')"
                );
            }
        };
        let names = names.iter().map(|name| text(name, NAME, "tables and columns"));
        let names = names.collect::<Result<Vec<_>>>()?;
        let state = session_state(args.session())?;
        let settings = HnswOptions::of(state.config_options());
        let options = OptionList::parse(&options, NAME, &[Key::Metric, Key::EfSearch])?;
        let distance = distance(&options, &settings, NAME)?;

        let left = now(&names[0], || named_table(state, &names[0]))?;
        let right = now(&names[2], || named_parquet_table(state, &names[2]))?;
        let (left_name, left) = (left.reference, left.provider);
        let (right_name, right) = (right.reference, right.provider);
        let left_at = vector_column(&left, &left_name, &names[1])?;
        let right_at = vector_column(&right, &right_name, &names[3])?;
        let request = KnnRequest {
            column: right_at,
            column_name: names[3].clone(),
            distance,
            query: QueryVector::Literal(Arc::from([])),
            k: count(k)?,
            ef_search: options.ef_search,
            nulls_first: false,
            ties: false,
            filters: vec![],
            late_filters: 0,
        };
        let table = VectorJoinTable {
            schema: joined_schema(&left.schema(), &right.schema(), right_name.table())?,
            left,
            left_at,
            right,
            request: Arc::new(request),
            shared: Shared::of(state)?,
        };
        Ok(match settings.mode {
            Mode::Off => Arc::new(ViewTable::new(table.by_hand(&[])?, None)),
            Mode::Auto | Mode::Exact => Arc::new(table),
        })
    }
}

fn vector_column(table: &Arc<dyn TableProvider>, name: &TableReference, column: &str) -> Result<usize> {
    let schema = table.schema();
    let Some((index, field)) = schema.column_with_name(column) else {
        return plan_err!("{NAME}: {name} has no column {column}");
    };
    match item_type(field.data_type()) {
        Some(_) => Ok(index),
        None => plan_err!(
            "{NAME}: column {column} of {name} holds no vectors but {}",
            field.data_type()
        ),
    }
}

fn joined_schema(left: &Schema, right: &Schema, right_name: &str) -> Result<SchemaRef> {
    let mut taken: HashSet<String> = left.fields().iter().map(|field| field.name().clone()).collect();
    let mut fields: Vec<FieldRef> = left.fields().to_vec();
    for field in right.fields() {
        let mut name = field.name().clone();
        while taken.contains(&name) {
            name = format!("{right_name}_{name}");
        }
        taken.insert(name.clone());
        fields.push(Arc::new(field.as_ref().clone().with_name(name)));
    }
    if taken.contains(DISTANCE) {
        return plan_err!(
            "{NAME}: a column of the tables is named {DISTANCE}; join views that name it otherwise"
        );
    }
    fields.push(Arc::new(Field::new(DISTANCE, DataType::Float64, false)));
    Ok(Arc::new(Schema::new(fields)))
}

/// The join as a table.
#[derive(Debug)]
struct VectorJoinTable {
    schema: SchemaRef,
    left: Arc<dyn TableProvider>,
    left_at: usize,
    right: Arc<dyn TableProvider>,
    request: Arc<KnnRequest>,
    shared: Arc<Shared>,
}

impl VectorJoinTable {
    fn left_width(&self) -> usize {
        self.left.schema().fields().len()
    }

    /// Whether only columns of the left table occur, so that the filter can go before the join.
    fn is_left_only(&self, filter: &Expr) -> bool {
        let left = self.left.schema();
        !filter.is_volatile()
            && filter
                .column_refs()
                .iter()
                .all(|c| left.column_with_name(&c.name).is_some())
    }

    /// The left table's rows that pass the filters: these columns of it.
    fn left_plan(&self, columns: &[usize], filters: &[Expr]) -> Result<LogicalPlan> {
        let mut plan =
            LogicalPlanBuilder::scan("left_table", provider_as_source(Arc::clone(&self.left)), None)?;
        let filters = filters
            .iter()
            .cloned()
            .map(unqualified)
            .collect::<Result<Vec<_>>>()?;
        if let Some(filter) = conjunction(filters) {
            plan = plan.filter(filter)?;
        }
        let schema = self.left.schema();
        plan.project(columns.iter().map(|&at| by_name(schema.field(at).name())))?
            .build()
    }

    /// The join in DataFusion's own operators: every pair of a left row that passes the filters, numbered by distance.
    fn by_hand(&self, filters: &[Expr]) -> Result<LogicalPlan> {
        const LEFT_ROW: &str = "__left_row";
        const RANK: &str = "__rank";
        let (left, right) = (self.left.schema(), self.right.schema());
        let width = self.left_width();
        let fields = self.schema.fields();
        let all: Vec<_> = (0..width).collect();
        let numbered = LogicalPlanBuilder::from(self.left_plan(&all, filters)?)
            .window(vec![row_number().alias(LEFT_ROW)])?
            .build()?;
        let renamed = right.fields().iter().zip(&fields[width..]);
        let renamed = renamed.map(|(field, new)| by_name(field.name()).alias(new.name()));
        let right_plan =
            LogicalPlanBuilder::scan("right_table", provider_as_source(Arc::clone(&self.right)), None)?
                .project(renamed.collect::<Vec<_>>())?
                .build()?;
        let list = |at: &str| cast(by_name(at), DataType::new_list(DataType::Float64, true));
        let (mine, theirs) = (
            left.field(self.left_at).name(),
            fields[width + self.request.column].name(),
        );
        let distance = function(self.request.distance).call(vec![list(theirs), list(mine)]);
        let distance = match self.request.distance {
            Distance::InnerProduct => Expr::Negative(Box::new(distance)),
            Distance::L2 | Distance::Cosine => distance,
        };
        let mut columns: Vec<Expr> = fields[..fields.len() - 1]
            .iter()
            .map(|field| by_name(field.name()))
            .collect();
        columns.push(distance.alias(DISTANCE));
        let mut inner = columns.clone();
        inner.push(col(LEFT_ROW));
        let rank = row_number()
            .partition_by(vec![col(LEFT_ROW)])
            .order_by(vec![col(DISTANCE).sort(true, false)])
            .build()?;
        let names = fields.iter().map(|field| by_name(field.name()));
        LogicalPlanBuilder::from(numbered)
            .cross_join(right_plan)?
            .project(inner)?
            .filter(col(DISTANCE).is_not_null())?
            .window(vec![rank.alias(RANK)])?
            .filter(col(RANK).lt_eq(lit(self.request.k as u64)))?
            .project(names.collect::<Vec<_>>())?
            .build()
    }
}

/// The column of this name, which may hold capitals and dots.
fn by_name(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}

fn unqualified(filter: Expr) -> Result<Expr> {
    let plain = filter.transform(|expr| {
        Ok(match expr {
            Expr::Column(column) => Transformed::yes(Expr::Column(Column::from_name(column.name))),
            other => Transformed::no(other),
        })
    })?;
    Ok(plain.data)
}

#[async_trait]
impl TableProvider for VectorJoinTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match self.is_left_only(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let width = self.left_width();
        let wanted = projection
            .cloned()
            .unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&wanted)?);
        if self.request.k == 0 {
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let distance_at = self.schema.fields().len() - 1;
        let joined = wanted.iter().map(|&column| match column {
            column if column == distance_at => Joined::Distance,
            column if column < width => Joined::Query(column),
            column => Joined::Row(column - width),
        });
        let joined: Vec<_> = joined.collect();
        let queries = |columns: &[usize]| self.left_plan(columns, filters);
        let exec = join_exec(
            state,
            (self.left_at, &queries),
            (&self.right, &self.request, &self.shared),
            &joined,
            schema,
            false,
        );
        match exec.await? {
            Some(exec) => Ok(exec),
            // The files of the right table are not as they were listed, or not read in a way that we can follow.
            None => {
                let fields = wanted.iter().map(|&at| by_name(self.schema.field(at).name()));
                let every =
                    LogicalPlanBuilder::from(self.by_hand(filters)?).project(fields.collect::<Vec<_>>())?;
                state.create_physical_plan(&every.build()?).await
            }
        }
    }
}
