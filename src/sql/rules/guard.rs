//! A step of ours never breaks a query that DataFusion answers: one that fails, or would change what columns a plan
//! gives, leaves the plan as it was.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use tracing::warn;

/// Takes a step. `Err` is the plan as it was.
pub(crate) fn guarded(
    rule: &str,
    plan: LogicalPlan,
    step: impl FnOnce(LogicalPlan) -> Result<Transformed<LogicalPlan>>,
) -> Result<Transformed<LogicalPlan>, Box<LogicalPlan>> {
    // Its inputs are shared: only one node is copied.
    let before = plan.clone();
    match step(plan) {
        Ok(stepped) if !stepped.transformed || has_columns_of(&before, &stepped.data) => Ok(stepped),
        Ok(stepped) => {
            let (was, is) = (before.schema(), stepped.data.schema());
            warn!(rule, %was, %is, "a rule would change the columns of a plan; the plan stays as it was");
            Err(Box::new(before))
        }
        Err(error) => {
            warn!(rule, %error, "a rule failed; the plan stays as it was");
            Err(Box::new(before))
        }
    }
}

fn has_columns_of(before: &LogicalPlan, after: &LogicalPlan) -> bool {
    let (before, after) = (before.schema(), after.schema());
    Arc::ptr_eq(before, after)
        || (before.logically_equivalent_names_and_types(after) && before.columns() == after.columns())
}

/// Takes a step on a physical plan; it stays as it was if the step fails or changes its columns.
pub(crate) fn guarded_physical(
    rule: &str,
    plan: Arc<dyn ExecutionPlan>,
    step: impl FnOnce(Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>>,
) -> Arc<dyn ExecutionPlan> {
    match step(Arc::clone(&plan)) {
        Ok(stepped) if stepped.schema() == plan.schema() => stepped,
        Ok(_) => {
            warn!(
                rule,
                "a rule would change the columns of a plan; the plan stays as it was"
            );
            plan
        }
        Err(error) => {
            warn!(rule, %error, "a rule failed; the plan stays as it was");
            plan
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::plan_err;
    use datafusion::logical_expr::{LogicalPlanBuilder, lit};
    use datafusion::physical_plan::empty::EmptyExec;

    fn plan(name: &str) -> LogicalPlan {
        let one = LogicalPlanBuilder::empty(true).project(vec![lit(1).alias(name)]);
        one.and_then(LogicalPlanBuilder::build)
            .expect("a plan of one row")
    }

    #[test]
    fn a_step_that_fails_or_changes_the_columns_leaves_the_plan_as_it_was() {
        for kept in [
            guarded("fails", plan("a"), |_| plan_err!("no")),
            guarded("renames", plan("a"), |_| Ok(Transformed::yes(plan("b")))),
        ] {
            assert_eq!(*kept.expect_err("the step is not taken"), plan("a"));
        }
        let taken = guarded("keeps", plan("a"), |before| {
            let same = LogicalPlanBuilder::from(before).limit(0, Some(1))?.build()?;
            Ok(Transformed::yes(same))
        });
        assert_ne!(taken.expect("the step is taken").data, plan("a"));
    }

    #[test]
    fn a_physical_step_that_fails_or_changes_the_columns_leaves_the_plan_as_it_was() {
        let exec = |name| {
            let field = Field::new(name, DataType::Int64, true);
            Arc::new(EmptyExec::new(Arc::new(Schema::new(vec![field])))) as Arc<dyn ExecutionPlan>
        };
        let plan = exec("a");
        for kept in [
            guarded_physical("fails", Arc::clone(&plan), |_| plan_err!("no")),
            guarded_physical("renames", Arc::clone(&plan), |_| Ok(exec("b"))),
        ] {
            assert!(Arc::ptr_eq(&kept, &plan));
        }
        let taken = guarded_physical("keeps", Arc::clone(&plan), |_| Ok(exec("a")));
        assert!(!Arc::ptr_eq(&taken, &plan));
    }
}
