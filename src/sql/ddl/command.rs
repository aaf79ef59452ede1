//! Statements as tables: a provider whose plan does something when it is executed, and gives its summary as rows.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::datasource::{TableProvider, TableType};
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};

/// What a statement does: run once, when its plan is executed and not when it is planned or explained.
#[async_trait]
pub(crate) trait Command: fmt::Debug + Send + Sync + 'static {
    /// What EXPLAIN calls it.
    fn name(&self) -> &'static str;

    /// The columns of its summary.
    fn schema(&self) -> SchemaRef;

    /// Does it.
    async fn run(&self, state: &SessionState, context: Arc<TaskContext>) -> Result<RecordBatch>;
}

/// A command as a table.
#[derive(Debug)]
pub(crate) struct CommandTable {
    command: Arc<dyn Command>,
}

impl CommandTable {
    pub(crate) fn new(command: impl Command) -> Self {
        Self {
            command: Arc::new(command),
        }
    }
}

#[async_trait]
impl TableProvider for CommandTable {
    fn schema(&self) -> SchemaRef {
        self.command.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let plan: Arc<dyn ExecutionPlan> = Arc::new(CommandExec::new(
            Arc::clone(&self.command),
            session_state(state)?.clone(),
        ));
        let Some(projection) = projection else {
            return Ok(plan);
        };
        let exprs =
            datafusion::physical_expr::projection::ProjectionExprs::from_indices(projection, &plan.schema());
        Ok(Arc::new(ProjectionExec::try_new(exprs.as_ref().to_vec(), plan)?))
    }
}

/// The whole state behind a session, which knows the catalogs.
pub(crate) fn session_state(session: &dyn Session) -> Result<&SessionState> {
    session
        .as_any()
        .downcast_ref::<SessionState>()
        .ok_or_else(|| internal_datafusion_err!("this session has no catalogs to look tables up in"))
}

struct CommandExec {
    command: Arc<dyn Command>,
    state: SessionState,
    properties: Arc<PlanProperties>,
}

impl CommandExec {
    fn new(command: Arc<dyn Command>, state: SessionState) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(command.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self {
            command,
            state,
            properties: Arc::new(properties),
        }
    }
}

impl fmt::Debug for CommandExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandExec")
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

impl DisplayAs for CommandExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandExec: {}", self.command.name())
    }
}

impl ExecutionPlan for CommandExec {
    fn name(&self) -> &str {
        "CommandExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (command, state) = (Arc::clone(&self.command), self.state.clone());
        let done = async move { command.run(&state, context).await };
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            self.schema(),
            futures::stream::once(done),
        )))
    }
}
