//! Errors are told once, and say what to do.

use crate::{piped, run, workplace};

#[test]
fn an_error_is_told_once() {
    let dir = workplace();
    std::fs::write(dir.path().join("bad.parquet"), "junk").expect("written");
    for (sql, told) in [
        ("SELECT nope", "No field named nope"),
        (
            "SELECT 1 FROM nowhere",
            "table 'datafusion.public.nowhere' not found",
        ),
        ("SELEC 1", "Expected: an SQL statement, found: SELEC"),
        ("SELECT CAST('x' AS INT)", "Cannot cast string 'x'"),
        ("SELECT 1 / 0", "Divide by zero"),
        (
            "CREATE EXTERNAL TABLE q STORED AS PARQUET LOCATION 'bad.parquet'",
            "at least 8 bytes long",
        ),
        ("SELECT 'x", "Unterminated string"),
        ("SET datafusion.execution.batch_size = 'x'", "invalid digit"),
    ] {
        let (ok, out, err) = run(&dir, &["-q", "-c", sql]);
        assert!(!ok && out.is_empty(), "{sql}: {out}");
        assert_eq!(err.matches(told).count(), 1, "{sql}: {err}");
        assert!(!err.contains("ParserError("), "{err}");
        assert!(err.starts_with("Error: -c"), "{err}");
        for line in err.lines() {
            let half = line.len() / 2;
            let end = (half..line.len()).find(|&at| line.is_char_boundary(at));
            let tail = &line[end.unwrap_or(line.len())..];
            assert!(tail.len() < 12 || line.matches(tail).count() == 1, "{line}");
        }
        // The same at a pipe.
        let (ok, _, piped) = piped(&dir, &format!("{sql};\n"));
        if !sql.contains("'x") {
            assert!(!ok && piped.matches(told).count() == 1, "{sql}: {piped}");
        }
    }
}

#[test]
fn operators_of_pgvector_say_what_to_write() {
    let dir = workplace();
    let table = "CREATE EXTERNAL TABLE p STORED AS PARQUET LOCATION 'examples/data/packages.parquet';";
    for (operator, function) in [
        ("<=>", "cosine_distance("),
        ("<->", "array_distance("),
        ("<#>", "negative_inner_product("),
        ("<+>", "no function"),
    ] {
        let sql = format!("{table} SELECT id FROM p ORDER BY embedding {operator} [1.0, 2.0] LIMIT 3");
        let (ok, out, err) = run(&dir, &["-q", "-c", &sql]);
        assert!(!ok && out.is_empty(), "{out}");
        assert!(
            err.contains(&format!("no operator {operator}")) && err.contains(function),
            "{err}"
        );
    }
    // It compares other values as before.
    let (ok, out, err) = run(
        &dir,
        &[
            "-q",
            "--format",
            "csv",
            "-c",
            "SELECT 1 <=> NULL AS a, '<->' AS b",
        ],
    );
    assert!(ok, "{err}");
    assert_eq!(out, "a,b\nfalse,<->\n");
}

#[test]
fn the_last_statement_of_a_pipe_needs_no_semicolon() {
    let dir = workplace();
    let (ok, out, err) = piped(&dir, "SELECT 1 AS a;\n\nSELECT 2\n AS b -- the end");
    assert!(
        ok && out.contains("| a |") && out.contains("| b |"),
        "{out}\n{err}"
    );
    let (ok, _, err) = piped(&dir, "SELECT 1 AS a;\nSELECT 'open");
    assert!(!ok && err.contains("Unterminated"), "{err}");
}
