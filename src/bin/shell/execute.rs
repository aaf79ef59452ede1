//! One statement: planned and run as `datafusion-cli` does it, and its rows printed.

use datafusion::arrow::datatypes::Schema;
use datafusion::common::instant::Instant;
use datafusion::common::{exec_datafusion_err, plan_err};
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execution_plan::EmissionType;
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use datafusion::physical_plan::{ExecutionPlanProperties as _, SendableRecordBatchStream, execute_stream};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use datafusion::sql::sqlparser::dialect::dialect_from_str;
use datafusion_cli::exec::exec_from_commands;
use datafusion_cli::print_format::PrintFormat;
use datafusion_cli::print_options::{MaxRows, PrintOptions};
use futures::StreamExt as _;

use crate::print::machine::Machine;
use crate::print::out::Out;
use crate::print::table;

/// Runs one statement and prints its rows.
pub(crate) async fn execute(ctx: &SessionContext, sql: String, print: &PrintOptions) -> Result<()> {
    let started = Instant::now();
    let state = ctx.state();
    let name = state.config().options().sql_parser.dialect;
    let dialect =
        dialect_from_str(name).ok_or_else(|| exec_datafusion_err!("there is no SQL dialect {name}"))?;
    let mut statements = DFParser::parse_sql_with_dialect(&sql, dialect.as_ref())?;
    let (Some(statement), true) = (statements.pop_front(), statements.is_empty()) else {
        return plan_err!("expected one statement");
    };
    if opens_stores(&statement) {
        return exec_from_commands(ctx, vec![sql], print).await;
    }

    let shows_settings = matches!(&statement, Statement::Statement(statement)
        if matches!(statement.as_ref(), SqlStatement::ShowVariable { .. }));
    let plan = state.statement_to_plan(statement).await?;
    let all_rows = shows_settings
        || matches!(
            plan,
            LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_)
        );
    let mut print = print.clone();
    if all_rows {
        print.maxrows = MaxRows::Unlimited;
    }
    let plan = ctx
        .execute_logical_plan(plan)
        .await?
        .create_physical_plan()
        .await?;
    let unbounded = plan.boundedness().is_unbounded();
    if unbounded && plan.pipeline_behavior() == EmissionType::Final {
        return plan_err!("the source never ends, and this query has a result only when it does");
    }
    print.format = match print.format {
        PrintFormat::Automatic if unbounded => PrintFormat::Csv,
        PrintFormat::Automatic => PrintFormat::Table,
        other => other,
    };
    // SET may have changed how values are shown.
    let rows = execute_stream(plan, ctx.task_ctx())?;
    let printed = match print.format {
        PrintFormat::Table if unbounded => return plan_err!("a table cannot be made of rows that never end"),
        PrintFormat::Table => print_table(ctx, rows, &print).await?,
        _ => print_for_machines(ctx, rows, &print).await?,
    };
    print_below(ctx, &print, printed, started)
}

/// `CREATE EXTERNAL TABLE` and `COPY` name object stores, which `datafusion-cli` opens as the options in them say.
fn opens_stores(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::CreateExternalTable(_) | Statement::CopyTo(_)
    )
}

/// Prints as many rows as are to be shown, and counts all.
async fn print_table(
    ctx: &SessionContext,
    mut rows: SendableRecordBatchStream,
    print: &PrintOptions,
) -> Result<usize> {
    let memory = MemoryConsumer::new("the table to be printed").register(&ctx.runtime_env().memory_pool);
    let most = match print.maxrows {
        MaxRows::Unlimited => usize::MAX,
        MaxRows::Limited(most) => most,
    };
    let (schema, mut shown, mut count) = (rows.schema(), Vec::new(), 0_usize);
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        if count < most && batch.num_rows() > 0 {
            memory.try_grow(get_record_batch_memory_size(&batch))?;
            shown.push(batch.clone());
        }
        count += batch.num_rows();
    }
    let state = ctx.state();
    let options = (&state.config().options().format).try_into()?;
    table::print(&mut Out::plain(), &schema, &shown, count, most, &options)?;
    Ok(count)
}

async fn print_for_machines(
    ctx: &SessionContext,
    mut rows: SendableRecordBatchStream,
    print: &PrintOptions,
) -> Result<usize> {
    let schema = rows.schema();
    let state = ctx.state();
    let options = (&state.config().options().format).try_into()?;
    let (mut machine, mut count) = (None, 0);
    let begin = || Machine::new(Out::buffered(), print.format, &schema);
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        if batch.num_rows() > 0 {
            machine.get_or_insert_with(begin).write(&batch, &options)?;
            count += batch.num_rows();
        }
    }
    if !schema.fields().is_empty() {
        machine.unwrap_or_else(begin).finish(count)?;
    }
    Ok(count)
}

/// The number of rows, the time, and what was asked of object stores: as `datafusion-cli` prints it below no rows.
fn print_below(ctx: &SessionContext, print: &PrintOptions, rows: usize, started: Instant) -> Result<()> {
    let state = ctx.state();
    let none = Schema::empty().into();
    print.print_batches(none, &[], started, rows, &state.config().options().format)
}
