//! `vector_search('table', 'column', [..], k [, 'ef_search=200'])`: the search by name.

use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl};
use datafusion::common::{Column, Result, ScalarValue, plan_err};
use datafusion::datasource::{TableProvider, ViewTable, provider_as_source};
use datafusion::functions_nested::cosine_distance::cosine_distance_udf;
use datafusion::functions_nested::distance::array_distance_udf;
use datafusion::functions_nested::inner_product::inner_product_udf;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, ScalarUDF, lit};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use super::register::{distance, text};
use crate::rows::vectors::item_type;
use crate::sql::ddl::command::session_state;
use crate::sql::ddl::option_list::{Key, OptionList};
use crate::sql::ddl::tables::{NamedTable, named_parquet_table, now};
use crate::sql::options::{HnswOptions, Mode};
use crate::sql::recognize::order_by::KnnRequest;
use crate::sql::recognize::query_vector::{QueryVector, as_doubles};
use crate::sql::recognize::sort_key::Distance;
use crate::sql::search::table::{Asked, VectorTable};
use crate::sql::shared::Shared;

const NAME: &str = "vector_search";

/// The column with the distance: smaller is nearer, so for the inner product it is the negative of it.
pub(crate) const DISTANCE: &str = "_distance";

/// Gives the `k` rows nearest to a vector: the table's columns and `_distance`, nearest first.
#[derive(Debug)]
pub(crate) struct VectorSearch;

impl TableFunctionImpl for VectorSearch {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let (table, column, vector, k, options) = match args.exprs() {
            [table, column, vector, k] => (table, column, vector, k, String::new()),
            [table, column, vector, k, options] => {
                (table, column, vector, k, text(options, NAME, "options")?)
            }
            _ => {
                return plan_err!(
                    "{NAME} takes a table, a column, a vector, k and perhaps options: \
                     {NAME}('docs', 'embedding', [0.1, 0.2], 10, 'ef_search=200')"
                );
            }
        };
        let state = session_state(args.session())?;
        let options = OptionList::parse(&options, NAME, &[Key::Metric, Key::EfSearch])?;
        let settings = HnswOptions::of(state.config_options());
        let name = text(table, NAME, "table")?;
        let NamedTable { reference, provider } = now(&name, || named_parquet_table(state, &name))?;
        let column = text(column, NAME, "column")?;
        let schema = provider.schema();
        let Some((index, field)) = schema.column_with_name(&column) else {
            return plan_err!("{NAME}: {reference} has no column {column}");
        };
        if item_type(field.data_type()).is_none() {
            return plan_err!(
                "{NAME}: column {column} of {reference} holds no vectors but {}",
                field.data_type()
            );
        }
        let query = query_vector(vector)?;
        let k = count(k)?;
        let distance = distance(&options, &settings, NAME)?;

        let request = KnnRequest {
            column: index,
            column_name: column.clone(),
            distance,
            query: QueryVector::Literal(query.clone().into()),
            k,
            ef_search: options.ef_search,
            nulls_first: false,
            ties: false,
            filters: vec![],
            late_filters: 0,
        };
        let source = if settings.mode == Mode::Off {
            provider_as_source(provider)
        } else {
            let asked = Asked::Knn(Arc::new(request));
            provider_as_source(Arc::new(VectorTable::asking(provider, asked, Shared::of(state)?)))
        };
        let list = ScalarValue::List(ScalarValue::new_list_nullable(
            &query.into_iter().map(ScalarValue::from).collect::<Vec<_>>(),
            &datafusion::arrow::datatypes::DataType::Float64,
        ));
        let scan = LogicalPlanBuilder::scan(reference, source, None)?;
        let mut columns: Vec<Expr> = scan.schema().columns().into_iter().map(Expr::Column).collect();
        let vector = Expr::Column(Column::from_name(column));
        let value = function(distance).call(vec![vector, lit(list)]);
        let value = if distance == Distance::InnerProduct {
            Expr::Negative(Box::new(value))
        } else {
            value
        };
        columns.push(value.alias(DISTANCE));
        let plan = scan
            .project(columns)?
            .sort(vec![Expr::Column(Column::from_name(DISTANCE)).sort(true, false)])?
            // A limit of its own: DataFusion drops a sort below a relation unless a Limit node stands above it.
            .limit(0, Some(k))?
            .build()?;
        Ok(Arc::new(ViewTable::new(plan, None)))
    }
}

/// DataFusion's function for a distance.
pub(crate) fn function(distance: Distance) -> Arc<ScalarUDF> {
    match distance {
        Distance::L2 => array_distance_udf(),
        Distance::Cosine => cosine_distance_udf(),
        Distance::InnerProduct => inner_product_udf(),
    }
}

/// The vector argument: any constant expression that gives a list of numbers.
fn query_vector(expr: &Expr) -> Result<Vec<f64>> {
    let constant = ExprSimplifier::new(SimplifyContext::default()).simplify(expr.clone())?;
    match &constant {
        Expr::Literal(value, _) => match as_doubles(value) {
            Some(numbers) => Ok(numbers),
            None => plan_err!("{NAME}: the vector is NULL, empty, or not a list of numbers"),
        },
        other => plan_err!("{NAME}: the vector must be constant, not {other}"),
    }
}

/// The argument `k`.
pub(crate) fn count(expr: &Expr) -> Result<usize> {
    if let Expr::Literal(value, _) = expr
        && let Ok(ScalarValue::UInt64(Some(k))) =
            value.cast_to(&datafusion::arrow::datatypes::DataType::UInt64)
        && let Ok(k) = usize::try_from(k)
    {
        return Ok(k);
    }
    plan_err!("k must be a whole number, not {expr}")
}
