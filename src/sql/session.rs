//! Changes to a session that its context has no method for: its state is built anew around them.

use std::any::Any;
use std::sync::Arc;

use datafusion::execution::SessionStateBuilder;
use datafusion::optimizer::{AnalyzerRule, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::sanity_checker::SanityCheckPlan;
use datafusion::prelude::SessionContext;

use crate::sql::rules::bind_query::BindRule;
use crate::sql::rules::create_index::CreateIndexRule;
use crate::sql::rules::knn::{self, KnnRule};
use crate::sql::rules::ranked_join::RankRule;
use crate::sql::rules::say_unsearched::SayRule;
use crate::sql::rules::seal_search::{SealRule, UnsealRule};
use crate::sql::rules::widen_lists::WidenListsRule;
use crate::sql::shared::Shared;

/// Builds the session's state anew; its id, settings and everything registered stay.
///
/// Statements prepared before are forgotten.
pub(crate) fn rebuild(ctx: &SessionContext, change: impl FnOnce(SessionStateBuilder) -> SessionStateBuilder) {
    let state_ref = ctx.state_ref();
    let mut state = state_ref.write();
    let creates_catalog = state.config_options().catalog.create_default_catalog_and_schema;
    let builder = SessionStateBuilder::new_from_existing(state.clone());
    let mut rebuilt = change(builder.with_session_id(state.session_id().to_string())).build();
    // The builder turns this setting off, so that it does not create the catalog again.
    let catalog = &mut rebuilt.config_mut().options_mut().catalog;
    catalog.create_default_catalog_and_schema = creates_catalog;
    *state = rebuilt;
}

/// Whether a session has the extension. The caches in its configuration alone do not say so: `copied_config` takes
/// them along into sessions without our rules.
pub(crate) fn is_registered(ctx: &SessionContext) -> bool {
    let state = ctx.state();
    let has_rule = state.optimizers().iter().any(|rule| rule.name() == knn::NAME);
    has_rule && state.config().get_extension::<Shared>().is_some()
}

/// Adds the rules for logical plans, each once.
pub(crate) fn add_rules(ctx: &SessionContext, shared: &Arc<Shared>) {
    let say = Arc::new(SayRule::new(Arc::clone(shared)));
    let analyzer: [Arc<dyn AnalyzerRule + Send + Sync>; 4] = [
        Arc::new(CreateIndexRule),
        Arc::new(WidenListsRule),
        Arc::new(BindRule),
        Arc::clone(&say) as _,
    ];
    for rule in analyzer {
        let state = ctx.state();
        if !state
            .analyzer()
            .rules
            .iter()
            .any(|known| known.name() == rule.name())
        {
            ctx.add_analyzer_rule(rule);
        }
    }
    let optimizer: [Arc<dyn OptimizerRule + Send + Sync>; 3] = [
        Arc::new(RankRule::new(Arc::clone(shared))),
        Arc::new(KnnRule::new(Arc::clone(shared))),
        say,
    ];
    for rule in optimizer {
        // One that is there already has other caches.
        ctx.remove_optimizer_rule(rule.name());
        ctx.add_optimizer_rule(rule);
    }
}

/// Whether a physical rule is this one.
fn is<T: PhysicalOptimizerRule>(rule: &Arc<dyn PhysicalOptimizerRule + Send + Sync>) -> bool {
    let rule: &dyn Any = rule.as_ref();
    rule.is::<T>()
}

/// Puts [`SealRule`] before DataFusion's physical rules, and [`UnsealRule`] before its last check of the plan, so that
/// it is checked as it will run.
pub(crate) fn keep_searches_as_planned(ctx: &SessionContext) {
    let mut rules = ctx.state().physical_optimizers().to_vec();
    if rules.iter().any(is::<SealRule>) {
        return;
    }
    let last = rules
        .iter()
        .position(is::<SanityCheckPlan>)
        .unwrap_or(rules.len());
    rules.insert(last, Arc::new(UnsealRule));
    rules.insert(0, Arc::new(SealRule));
    rebuild(ctx, |state| state.with_physical_optimizer_rules(rules));
}
