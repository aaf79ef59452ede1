//! Changes to a session that its context has no method for: its state is built anew around them.

use std::sync::Arc;

use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::SessionContext;

use crate::sql::rules::seal_search::{SealRule, UnsealRule};

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

/// Puts [`SealRule`] before DataFusion's physical rules, and [`UnsealRule`] before its last check of the plan, so that
/// it is checked as it will run.
pub(crate) fn keep_searches_as_planned(ctx: &SessionContext) {
    let mut rules = ctx.state().physical_optimizers().to_vec();
    let last = rules
        .iter()
        .position(|rule| rule.name() == "SanityCheckPlan")
        .unwrap_or(rules.len());
    rules.insert(last, Arc::new(UnsealRule));
    rules.insert(0, Arc::new(SealRule));
    rebuild(ctx, |state| state.with_physical_optimizer_rules(rules));
}
