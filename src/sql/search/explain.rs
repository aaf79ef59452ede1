//! How a vector scan looks in EXPLAIN.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::DisplayFormatType;

use super::files::Strategy;
use super::scan::ScanSpec;
use super::subquery_results::Late;
use crate::rows::filter::RowFilter;
use crate::sql::recognize::query_vector::{QueryVector, as_doubles, shown};

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
    let filter = shown_filter(&filter.over_table);
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
    let mut shown = vec![
        ("column", request.column_name.clone()),
        ("metric", metric.to_string()),
        ("k", request.k.to_string()),
        ("strategy", strategy(spec).to_owned()),
    ];
    if spec
        .files
        .iter()
        .any(|file| matches!(file.strategy, Strategy::Index(_)))
    {
        shown.push(("ef_search", spec.ef().to_string()));
    }
    let is_tree = format == DisplayFormatType::TreeRender;
    shown.push(("files", if is_tree { files } else { format!("[{files}]") }));
    if matches!(request.query, QueryVector::Subquery) {
        shown.push(("query", "subquery".to_owned()));
    }
    let known = spec.filter.iter().map(|filter| &filter.over_table);
    let filters = known.chain(late.iter().flat_map(|late| late.filters_over_scan()));
    shown.extend(filters.map(|filter| ("filter", shown_filter(filter))));
    if filters_by_vectors(spec, late) {
        shown.push(("filter_reads", format!("all vectors ({FILTER_READS_VECTORS})")));
    }
    // One sentence for each kind of reason says what to do.
    let mut reasons = BTreeMap::new();
    for file in &spec.files {
        if let Strategy::Exact(because) = &file.strategy {
            reasons.entry(because.code()).or_insert(because);
        }
    }
    shown.extend(
        reasons
            .values()
            .map(|because| ("reason", because.explain(request))),
    );
    match is_tree {
        true => tree(&shown, f),
        false => {
            let parts: Vec<_> = shown
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            write!(f, "{name}: {}", parts.join(", "))
        }
    }
}

/// What a filter over the vectors costs, and why.
const FILTER_READS_VECTORS: &str =
    "a filter computes with them, so the vector column of every file is decoded";

/// Whether a filter of a scan computes with vectors, so that finding the rows that satisfy it decodes all of them.
fn filters_by_vectors(spec: &ScanSpec, late: Option<&Late>) -> bool {
    let known = spec.filter.iter().any(|filter| spec.reads_vectors(filter));
    let late = late.iter().flat_map(|late| late.filters_over_scan());
    let mut of_late = late.flat_map(collect_columns);
    known || of_late.any(|column| spec.is_vectors(spec.projection[column.index()]))
}

/// A filter with its long vectors shortened.
fn shown_filter(filter: &Arc<dyn PhysicalExpr>) -> String {
    let shortened = Arc::clone(filter).transform_up(|e| {
        let vector = e
            .downcast_ref::<Literal>()
            .and_then(|literal| as_doubles(literal.value()));
        Ok(match vector {
            Some(numbers) => {
                let text = ScalarValue::Utf8(Some(shown(&numbers)));
                Transformed::yes(Arc::new(Literal::new(text)) as _)
            }
            None => Transformed::no(e),
        })
    });
    shortened
        .data()
        .unwrap_or_else(|_| Arc::clone(filter))
        .to_string()
}

/// Longer values with other letters than those of ASCII are cut in the middle of a letter by DataFusion's tree.
const TREE_CUTS_AFTER: usize = 20;

/// Writes a node of the tree format: a line for each name.
fn tree(shown: &[(&str, String)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut lines: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in shown {
        let line = lines.entry(name).or_default();
        if !line.is_empty() {
            line.push_str("; ");
        }
        line.push_str(&value.replace('\n', " "));
    }
    let mut lines = lines.into_iter().peekable();
    while let Some((name, value)) = lines.next() {
        let fits = value.is_ascii() || value.chars().count() <= TREE_CUTS_AFTER;
        let value = if fits {
            value
        } else {
            value.replace(|c: char| !c.is_ascii(), "?")
        };
        write!(f, "{name}={value}")?;
        if lines.peek().is_some() {
            writeln!(f)?;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree(Vec<(&'static str, String)>);

    impl fmt::Display for Tree {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            tree(&self.0, f)
        }
    }

    #[test]
    fn a_tree_has_one_line_for_each_name_and_no_long_value_that_could_be_cut_within_a_letter() {
        let shown = [
            ("reason", "no_sidecar: no file\nof that name"),
            ("column", "größe"),
            ("reason", "denied: /räume/größenverhältnisse may not be read"),
        ];
        let shown = shown.map(|(name, value)| (name, value.to_owned())).to_vec();
        let expected = "column=größe\nreason=no_sidecar: no file of that name; denied: /r?ume/gr??enverh?ltnisse may \
                        not be read";
        assert_eq!(Tree(shown).to_string(), expected);
    }
}
