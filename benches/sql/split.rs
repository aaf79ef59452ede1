//! Where the time of a query goes: parse, plan, optimise, physical plan, execute; and the parts of the last.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::common::ParamValues;
use datafusion::error::Result;
use datafusion::physical_plan::{ExecutionPlan, collect};

use super::ask::parameter;
use super::{Bench, Vector};

/// The names of the columns.
pub(crate) fn print_head() {
    println!(
        "\n{:<34} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "p50 microseconds", "parse", "plan", "optimise", "physical", "execute", "(search)", "(fetch)", "sum"
    );
}

impl Bench {
    /// Where the time of a query goes, in microseconds: medians over all queries.
    pub(crate) async fn split(&self, name: &str, vector: Option<Vector>) -> Result<()> {
        if !self.asked_for(name) {
            return Ok(());
        }
        let mut laps: [Vec<Duration>; 7] = Default::default();
        for query in (0..self.rounds).flat_map(|_| &self.vectors) {
            let (sql, values) = match vector {
                Some(Vector::Literal) => (top_ten(&format!("{query:?}")), None),
                Some(_) => (top_ten("$1"), Some(ParamValues::from(vec![parameter(query)]))),
                None => (name.to_owned(), None),
            };
            let state = self.ctx.state();
            let mut start = Instant::now();
            let mut lap = |step: usize| {
                laps[step].push(start.elapsed());
                start = Instant::now();
            };
            let statement = state.sql_to_statement(&sql, &state.config_options().sql_parser.dialect)?;
            lap(0);
            let mut plan = state.statement_to_plan(statement).await?;
            if let Some(values) = values {
                plan = plan.with_param_values(values)?;
            }
            lap(1);
            let plan = state.optimize(&plan)?;
            lap(2);
            let plan = state.query_planner().create_physical_plan(&plan, &state).await?;
            lap(3);
            collect(Arc::clone(&plan), state.task_ctx()).await?;
            lap(4);
            laps[5].push(time_in(plan.as_ref(), "search_time"));
            laps[6].push(time_in(plan.as_ref(), "fetch_time"));
        }
        let median = |times: &mut Vec<Duration>| {
            times.sort_unstable();
            times[times.len() / 2].as_micros()
        };
        let steps: Vec<_> = laps.iter_mut().map(median).collect();
        println!(
            "{name:<34} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            steps[0],
            steps[1],
            steps[2],
            steps[3],
            steps[4],
            steps[5],
            steps[6],
            steps[..5].iter().sum::<u128>()
        );
        Ok(())
    }
}

/// The time that the nodes of a plan that ran say they spent on something.
fn time_in(plan: &dyn ExecutionPlan, what: &str) -> Duration {
    let here = plan.metrics().and_then(|metrics| metrics.sum_by_name(what));
    let nanoseconds = here.map_or(0, |value| value.as_usize() as u64);
    let below = plan
        .children()
        .into_iter()
        .map(|child| time_in(child.as_ref(), what));
    Duration::from_nanos(nanoseconds) + below.sum::<Duration>()
}

fn top_ten(vector: &str) -> String {
    format!("SELECT id, cosine_distance(embedding, {vector}) AS d FROM packages ORDER BY d LIMIT 10")
}
