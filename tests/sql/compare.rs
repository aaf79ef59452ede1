//! Answers, and when two of them are the same.

use std::collections::HashMap;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::SessionContext;
use datafusion_hnsw::HnswSessionExt;

use crate::query::Query;

/// The rows of a query, each value as text that differs when a bit differs.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) schema: String,
    pub(crate) rows: Vec<Vec<String>>,
}

/// Runs the query; the error is its message, also for a panic.
pub(crate) async fn answer(ctx: &SessionContext, query: &Query) -> Result<Answer, String> {
    let (ctx, query) = (ctx.clone(), query.clone());
    let run = async move {
        for statement in &query.before {
            ctx.hnsw_sql(statement).await?.collect().await?;
        }
        let mut frame = ctx.hnsw_sql(&query.sql).await?;
        if let Some(parameter) = &query.parameter {
            frame = frame.with_param_values(vec![parameter.clone()])?;
        }
        let schema = frame.schema().as_arrow().clone();
        let batches = frame.collect().await;
        for statement in &query.after {
            ctx.hnsw_sql(statement).await?.collect().await?;
        }
        let describe = |schema: &datafusion::arrow::datatypes::Schema| {
            let fields = schema.fields().iter();
            fields
                .map(|f| format!("{}: {} ", f.name(), f.data_type()))
                .collect::<String>()
        };
        let mut rows = Vec::new();
        for batch in batches? {
            assert_eq!(
                describe(&batch.schema()),
                describe(&schema),
                "a batch has the schema of its plan"
            );
            rows.extend(texts(&batch));
        }
        Ok(Answer {
            schema: describe(&schema),
            rows,
        })
    };
    match tokio::spawn(run).await {
        Ok(result) => result.map_err(|error: datafusion::error::DataFusionError| error.strip_backtrace()),
        Err(panic) => Err(format!("panicked: {panic}")),
    }
}

fn texts(batch: &RecordBatch) -> Vec<Vec<String>> {
    let columns: Vec<_> = batch.columns().iter().map(text).collect();
    (0..batch.num_rows())
        .map(|row| columns.iter().map(|column| column[row].clone()).collect())
        .collect()
}

fn text(column: &ArrayRef) -> Vec<String> {
    let rows = 0..column.len();
    if column.data_type() == &DataType::Float64 {
        let values = column.as_primitive::<Float64Type>();
        let bits = |row| format!("{:?} ({:016x})", values.value(row), values.value(row).to_bits());
        return rows
            .map(|row| {
                if values.is_null(row) {
                    "NULL".to_string()
                } else {
                    bits(row)
                }
            })
            .collect();
    }
    let options = FormatOptions::default().with_null("NULL");
    let format = ArrayFormatter::try_new(column.as_ref(), &options).expect("every column is printable");
    rows.map(|row| format.value(row).to_string()).collect()
}

/// A row of the whole ranking, and its sort keys.
type Ranked = (Vec<String>, Vec<String>);

/// Compares rows `offset..offset + limit` of a ranking with an answer.
///
/// `all` is the whole ranking, whose last `keys` columns are its sort keys. Row for row the keys
/// must be equal, and each row must be one of those that have these keys, none of them twice.
pub(crate) fn ranked(
    all: &Answer,
    keys: usize,
    offset: usize,
    limit: Option<usize>,
    found: &Answer,
) -> Result<(), String> {
    let split = |row: &Vec<String>| {
        let (row, key) = row.split_at(row.len() - keys);
        (row.to_vec(), key.to_vec())
    };
    let ranking: Vec<Ranked> = all.rows.iter().map(split).collect();
    let wanted = ranking.iter().skip(offset).take(limit.unwrap_or(usize::MAX));
    let wanted: Vec<&Ranked> = wanted.collect();
    let mut left: HashMap<&Vec<String>, Vec<&Vec<String>>> = HashMap::new();
    for (row, key) in &ranking {
        left.entry(row).or_default().push(key);
    }
    let show = || {
        let expected: Vec<_> = wanted
            .iter()
            .map(|(row, key)| format!("  {row:?} key {key:?}"))
            .collect();
        let rows: Vec<_> = found.rows.iter().map(|row| format!("  {row:?}")).collect();
        format!(
            "found\n{}\nexpected (up to ties)\n{}",
            rows.join("\n"),
            expected.join("\n")
        )
    };
    if found.rows.len() != wanted.len() {
        return Err(format!(
            "{} rows instead of {}\n{}",
            found.rows.len(),
            wanted.len(),
            show()
        ));
    }
    for (place, (row, (_, key))) in found.rows.iter().zip(&wanted).enumerate() {
        let used = left.get_mut(row).and_then(|keys| {
            let used = keys
                .iter()
                .position(|have| have.iter().zip(key.iter()).all(|(a, b)| a == b))?;
            Some(keys.swap_remove(used))
        });
        if used.is_none() && !only_zeros_differ(&ranking, &wanted, &found.rows) {
            return Err(format!("row {place} is not one with key {key:?}\n{}", show()));
        }
    }
    Ok(())
}

/// Whether the answers agree when 0.0 and -0.0 are the same.
///
/// DataFusion orders them in a sort and not always in the dynamic filter of a TopK, so that its own
/// plan may give either at the edge of a LIMIT.
fn only_zeros_differ(ranking: &[Ranked], wanted: &[&Ranked], found: &[Vec<String>]) -> bool {
    // The sort keys up to the first that is a zero, without its sign.
    let unsigned = |key: &[String]| -> Vec<String> {
        let zero = key
            .iter()
            .position(|value| value.trim_start_matches('-').starts_with("0.0 ("));
        let Some(zero) = zero else { return key.to_vec() };
        let mut key = key[..zero].to_vec();
        key.push("0".to_string());
        key
    };
    let mut keys: HashMap<&Vec<String>, Vec<Vec<String>>> = HashMap::new();
    for (row, key) in ranking {
        keys.entry(row).or_default().push(unsigned(key));
    }
    found.iter().zip(wanted).all(|(row, (_, key))| {
        let Some(keys) = keys.get_mut(row) else {
            return false;
        };
        let at = keys.iter().position(|have| *have == unsigned(key));
        at.map(|at| keys.swap_remove(at)).is_some()
    })
}

/// Compares all rows, in order or in any order.
pub(crate) fn same(expected: &Answer, found: &Answer, ordered: bool) -> Result<(), String> {
    let (mut expected, mut found) = (expected.rows.clone(), found.rows.clone());
    if !ordered {
        expected.sort();
        found.sort();
    }
    if found == expected {
        Ok(())
    } else {
        Err(format!("rows {found:?}\ninstead of {expected:?}"))
    }
}
