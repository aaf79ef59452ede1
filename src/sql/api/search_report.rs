//! How a search without SQL went: which files were searched through their index, and why the others were not.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;

use crate::sql::search::files::Strategy;
use crate::sql::search::refused::RefusedExec;
use crate::sql::search::scan::VectorScanExec;

/// How a [`VectorTable::search_with_report`](crate::VectorTable::search_with_report) was answered, as EXPLAIN ANALYZE
/// says it of a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SearchReport {
    /// The files of the table.
    pub files: usize,
    /// The files that were searched through their index. The others were compared row by row.
    pub files_indexed: usize,
    /// Why files were not searched through an index: the codes that EXPLAIN shows, each with a sentence of what to
    /// do. Empty if all were.
    pub reasons: BTreeMap<String, String>,
}

impl SearchReport {
    /// Whether an index was used for at least one file.
    pub fn used_index(&self) -> bool {
        self.files_indexed > 0
    }

    /// What a plan has done that was executed.
    pub(crate) fn of(plan: &Arc<dyn ExecutionPlan>) -> Self {
        if let Some(refused) = plan.downcast_ref::<RefusedExec>() {
            let refusal = refused.refusal();
            return Self {
                reasons: BTreeMap::from([(refusal.code().to_owned(), refusal.to_string())]),
                ..Self::default()
            };
        }
        let Some(scan) = plan.downcast_ref::<VectorScanExec>() else {
            return Self::default();
        };
        let spec = scan.spec();
        let count = |name: &str| {
            let metrics = scan.metrics().unwrap_or_default();
            metrics.sum_by_name(name).map_or(0, |value| value.as_usize())
        };
        let mut report = Self {
            files: spec.files.len(),
            ..Self::default()
        };
        if count("passed_through") > 0 {
            let why = "query_vector: the query is zero or not finite, or its length is not that of the vectors; every \
                       row was compared";
            report.reasons.insert("query_vector".to_owned(), why.to_owned());
            return report;
        }
        for file in &spec.files {
            match &file.strategy {
                Strategy::Index(_) => report.files_indexed += 1,
                Strategy::Exact(because) => {
                    let sentence = because.explain(&spec.request);
                    report.reasons.entry(because.code()).or_insert(sentence);
                }
            }
        }
        let failed = count("index_fallbacks").min(report.files_indexed);
        if failed > 0 {
            report.files_indexed -= failed;
            let why = "damaged: an index failed while it was searched; build it again";
            report.reasons.insert("damaged".to_owned(), why.to_owned());
        }
        report
    }
}
