//! What a query costs before it runs: parse, plan, optimise, physical plan.
//!
//! Top-10 of (id, distance) over a table of 384 numbers a row, the query vector as a literal with
//! and without the folding of array literals, and as a parameter; beside the smallest query.

use std::time::{Duration, Instant};

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::Result;
use datafusion::prelude::SessionContext;
use datafusion_hnsw::sql::rules::fold_array_literal::{self, ArrayLiteralFolder};
use std::sync::Arc;

const DIM: usize = 384;
const ROUNDS: usize = 400;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let number = |i: usize| format!("{:.8}", (i as f64 * 0.7).sin() * 0.1);
    let literal = format!("[{}]", (0..DIM).map(number).collect::<Vec<_>>().join(", "));
    let parsed = |i: usize| ScalarValue::Float64(number(i).parse().ok());
    let values: Vec<_> = (0..DIM).map(parsed).collect();
    let parameter = ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Float64));
    let top = |vector: &str| {
        format!("SELECT id, cosine_distance(embedding, {vector}) AS d FROM t ORDER BY d LIMIT 10")
    };
    let unnamed = format!("SELECT id, cosine_distance(embedding, {literal}) FROM t LIMIT 10");

    println!("dim {DIM}, medians of {ROUNDS}, microseconds");
    println!(
        "{:34} {:>7} {:>7} {:>9} {:>9} {:>7}",
        "query", "parse", "plan", "optimise", "physical", "sum"
    );
    for (name, sql, folded, parameter) in [
        ("literal", top(&literal), false, None),
        ("literal, folded", top(&literal), true, None),
        ("literal without alias", unnamed.clone(), false, None),
        ("literal without alias, folded", unnamed, true, None),
        ("parameter", top("$1"), true, Some(parameter)),
        (
            "SELECT id FROM t LIMIT 10",
            "SELECT id FROM t LIMIT 10".to_string(),
            true,
            None,
        ),
    ] {
        let ctx = session(folded)?;
        let mut rounds = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            rounds.push(round(&ctx, &sql, parameter.clone()).await?);
        }
        let median = |step: usize| {
            let mut times: Vec<_> = rounds.iter().map(|round| round[step]).collect();
            times.sort_unstable();
            times[ROUNDS / 2].as_nanos() as f64 / 1000.0
        };
        let steps: Vec<_> = (0..4).map(median).collect();
        let sum: f64 = steps.iter().sum();
        println!(
            "{name:34} {:7.0} {:7.0} {:9.0} {:9.0} {sum:7.0}",
            steps[0], steps[1], steps[2], steps[3]
        );
    }
    Ok(())
}

fn session(folded: bool) -> Result<SessionContext> {
    let ctx = SessionContext::new();
    if folded {
        fold_array_literal::register(&ctx, ArrayLiteralFolder::default());
    }
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let dim = i32::try_from(DIM).expect("few dimensions");
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("embedding", DataType::FixedSizeList(item, dim), true),
    ]);
    ctx.register_table("t", Arc::new(EmptyTable::new(Arc::new(schema))))?;
    Ok(ctx)
}

/// The time of each step, once.
async fn round(ctx: &SessionContext, sql: &str, parameter: Option<ScalarValue>) -> Result<[Duration; 4]> {
    let state = ctx.state();
    let mut times = [Duration::ZERO; 4];
    let mut start = Instant::now();
    let mut lap = |step: usize| {
        times[step] = start.elapsed();
        start = Instant::now();
    };
    let statement = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect)?;
    lap(0);
    let mut plan = state.statement_to_plan(statement).await?;
    if let Some(parameter) = parameter {
        plan = plan.with_param_values(ParamValues::from(vec![parameter]))?;
    }
    lap(1);
    let plan = state.optimize(&plan)?;
    lap(2);
    state.query_planner().create_physical_plan(&plan, &state).await?;
    lap(3);
    Ok(times)
}
