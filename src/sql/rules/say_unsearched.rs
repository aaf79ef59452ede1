//! The rule that makes EXPLAIN speak: each scan whose rows a distance orders or bounds without a search says why.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{LogicalPlan, TableScan};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::guard::guarded;
use super::knn::{said_of, searchable, swap_source};
use super::ranked_join::RankRule;
use crate::sql::functions::distance_aliases::is_other_name;
use crate::sql::options::{HnswOptions, Mode};
use crate::sql::recognize::refusal::Refusal;
use crate::sql::recognize::sort_key::distance_called;
use crate::sql::recognize::unsearched::{Questions, ScanPlace, may_be_unsearched, unsearched};
use crate::sql::search::table::Asked;
use crate::sql::shared::Shared;

/// Attaches reasons to scans, after the rules that search. The rows of a plan do not change by it.
///
/// As an analyzer rule it does so where DataFusion's optimizer is off, and with it the rules that search.
#[derive(Debug)]
pub(crate) struct SayRule {
    ranks: RankRule,
    shared: Arc<Shared>,
}

impl SayRule {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            ranks: RankRule::new(Arc::clone(&shared)),
            shared,
        }
    }

    fn say(&self, plan: LogicalPlan, instead: Option<Refusal>) -> Result<Transformed<LogicalPlan>> {
        let questions = Questions {
            is_unsearched: &|scan| searchable(&scan.source).is_some(),
            is_distance: &|call| distance_called(call).is_some() || is_other_name(&call.func),
            why_not_ranked: &|filter| self.ranks.refusal(filter),
        };
        if !may_be_unsearched(&plan, &questions)? {
            return Ok(Transformed::no(plan));
        }
        let mut reasons = unsearched(&plan, &questions)?;
        if let Some(instead) = instead {
            reasons.values_mut().for_each(|reason| *reason = instead);
        }
        self.attach(plan, &reasons)
    }

    fn attach(
        &self,
        plan: LogicalPlan,
        reasons: &BTreeMap<ScanPlace, Refusal>,
    ) -> Result<Transformed<LogicalPlan>> {
        if reasons.is_empty() {
            return Ok(Transformed::no(plan));
        }
        let mut place = 0;
        let mut attach = |scan: TableScan| {
            let found = reasons.get(&(place, scan.table_name.clone()));
            place += 1;
            let said = said_of(&scan.source);
            match found {
                Some(refusal) if said != Some(*refusal) && said != Some(Refusal::StepFailed) => {
                    swap_source(scan, &Asked::Refused(*refusal), &self.shared)
                }
                _ => Transformed::no(LogicalPlan::TableScan(scan)),
            }
        };
        plan.transform_down_with_subqueries(|node| match node {
            LogicalPlan::TableScan(scan) => Ok(attach(scan)),
            node => Ok(Transformed::no(node)),
        })
    }
}

impl OptimizerRule for SayRule {
    fn name(&self) -> &'static str {
        "hnsw_say"
    }

    /// The whole plan at once: a reason may lie far above the scan.
    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if HnswOptions::of(&config.options()).mode == Mode::Off {
            return Ok(Transformed::no(plan));
        }
        let said = guarded(OptimizerRule::name(self), plan, |plan| self.say(plan, None));
        Ok(said.unwrap_or_else(|plan| Transformed::no(*plan)))
    }
}

impl AnalyzerRule for SayRule {
    fn name(&self) -> &'static str {
        "hnsw_say_unoptimized"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        if config.optimizer.max_passes > 0 || HnswOptions::of(config).mode == Mode::Off {
            return Ok(plan);
        }
        let say = |plan| self.say(plan, Some(Refusal::OptimizerOff));
        let said = guarded(AnalyzerRule::name(self), plan, say);
        Ok(said.map_or_else(|plan| *plan, |said| said.data))
    }
}
