//! How a vector scan looks in EXPLAIN.

use std::collections::BTreeMap;
use std::fmt;

use datafusion::physical_plan::DisplayFormatType;

use super::files::Strategy;
use super::scan::ScanSpec;
use super::subquery_results::Late;
use crate::rows::filter::RowFilter;
use crate::sql::recognize::query_vector::QueryVector;

/// Writes the scan's line.
pub(crate) fn scan(
    spec: &ScanSpec,
    late: Option<&Late>,
    format: DisplayFormatType,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    node("VectorScanExec", spec, late, format, f)
}

/// Writes the join's line.
pub(crate) fn join(spec: &ScanSpec, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    node("VectorJoinExec", spec, None, format, f)
}

/// Writes the line of a look-up.
pub(crate) fn lookup(
    spec: &ScanSpec,
    filter: &RowFilter,
    format: DisplayFormatType,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let (column, files) = (&spec.request.column_name, files(spec));
    if format == DisplayFormatType::TreeRender {
        return write!(f, "column={column}\nfiles={files}\nfilter={filter}");
    }
    write!(
        f,
        "VectorLookupExec: column={column}, files=[{files}], filter={filter}"
    )
}

fn node(
    name: &str,
    spec: &ScanSpec,
    late: Option<&Late>,
    format: DisplayFormatType,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let request = &spec.request;
    let metric = request.distance.metric();
    let files = files(spec);
    if format == DisplayFormatType::TreeRender {
        writeln!(f, "column={}", request.column_name)?;
        writeln!(f, "metric={metric}")?;
        writeln!(f, "k={}", request.k)?;
        writeln!(f, "files={files}")?;
        return write!(f, "strategy={}", strategy(spec));
    }
    write!(
        f,
        "{name}: column={}, metric={metric}, k={}",
        request.column_name, request.k
    )?;
    write!(f, ", strategy={}", strategy(spec))?;
    if spec
        .files
        .iter()
        .any(|file| matches!(file.strategy, Strategy::Index(_)))
    {
        write!(f, ", ef_search={}", spec.ef())?;
    }
    write!(f, ", files=[{files}]")?;
    if matches!(request.query, QueryVector::Subquery) {
        f.write_str(", query=subquery")?;
    }
    if let Some(filter) = &spec.filter {
        write!(f, ", filter={filter}")?;
    }
    if let Some(late) = late {
        write!(f, "{late}")?;
    }
    // One sentence for each kind of reason says what to do.
    let mut reasons = BTreeMap::new();
    for file in &spec.files {
        if let Strategy::Exact(because) = &file.strategy {
            reasons.entry(because.code()).or_insert(because);
        }
    }
    for because in reasons.values() {
        write!(f, ", reason={}", because.explain(request))?;
    }
    Ok(())
}

fn strategy(spec: &ScanSpec) -> &'static str {
    let indexed = spec
        .files
        .iter()
        .filter(|file| matches!(file.strategy, Strategy::Index(_)))
        .count();
    match (indexed, spec.filter.is_some() || spec.request.late_filters > 0) {
        (0, _) => "exact",
        (n, _) if n < spec.files.len() => "mixed",
        (_, false) => "index",
        (_, true) => "filtered_index",
    }
}

/// For example `12 indexed, 1 stale:footer, 1 no_sidecar`.
fn files(spec: &ScanSpec) -> String {
    let mut counts: BTreeMap<(bool, String), usize> = BTreeMap::new();
    for file in &spec.files {
        let key = match &file.strategy {
            Strategy::Index(_) => (false, "indexed".to_owned()),
            Strategy::Exact(because) => (true, because.code()),
        };
        *counts.entry(key).or_default() += 1;
    }
    let parts: Vec<String> = counts
        .into_iter()
        .map(|((_, what), n)| format!("{n} {what}"))
        .collect();
    parts.join(", ")
}
