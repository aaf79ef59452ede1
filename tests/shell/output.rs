//! What programs and people get to read.

use std::io::{BufReader, Read as _};
use std::process::Stdio;

use crate::{run, shell, workplace};

const TABLE: &str = "CREATE EXTERNAL TABLE p STORED AS PARQUET LOCATION 'examples/data/packages.parquet'; ";

#[test]
fn programs_get_all_rows() {
    let dir = workplace();
    let select = "SELECT n FROM (SELECT unnest(range(0, 20000)) AS n) ORDER BY n";
    for maxrows in ["40", "0", "inf"] {
        let rows = |format: &str| {
            let (ok, out, err) = run(
                &dir,
                &["-q", "--format", format, "--maxrows", maxrows, "-c", select],
            );
            assert!(ok && err.is_empty(), "{err}");
            out
        };
        for format in ["csv", "tsv"] {
            let out = rows(format);
            assert!(out.starts_with("n\n0\n1\n"), "{}", &out[..20]);
            assert_eq!(out.lines().count(), 20_001, "{format}");
        }
        let out = rows("nd-json");
        assert_eq!(out.lines().count(), 20_000);
        assert_eq!(out.lines().last(), Some("{\"n\":19999}"));
        let numbers: Vec<serde_json::Value> = serde_json::from_str(&rows("json")).expect("one JSON text");
        assert_eq!(numbers.len(), 20_000);
        assert_eq!(numbers[19_999]["n"], 19_999);
    }
    // A table shows as many as it is told to, and says how many there are.
    let (ok, out, _) = run(&dir, &["--maxrows", "3", "-c", select]);
    assert!(
        ok && out.contains("20000 row(s) fetched. (First 3 displayed."),
        "{out}"
    );
    assert!(out.contains("| 2 ") && !out.contains("| 3 "), "{out}");
    assert_eq!(out.matches("| .").count(), 3, "{out}");
}

#[test]
fn a_result_without_rows_has_its_columns() {
    let dir = workplace();
    let of = |format: &str, sql: &str| run(&dir, &["-q", "--format", format, "-c", sql]);
    let none = "SELECT 1 AS a, 'x' AS b WHERE false";
    assert_eq!(of("csv", none), (true, "a,b\n".to_owned(), String::new()));
    assert_eq!(of("json", none), (true, "[]\n".to_owned(), String::new()));
    assert_eq!(of("nd-json", none), (true, String::new(), String::new()));
    let (_, out, _) = of("table", none);
    assert!(out.contains("| a | b |"), "{out}");
    // A statement without a result prints nothing.
    for format in ["csv", "json", "nd-json", "table"] {
        let set = of(format, "SET hnsw.ef_search = 100; CREATE VIEW one AS SELECT 1");
        assert_eq!(set, (true, String::new(), String::new()), "{format}");
    }
}

#[test]
fn vectors_are_short_in_tables_and_whole_for_programs() {
    let dir = workplace();
    let select = format!("{TABLE}SELECT id, embedding FROM p WHERE id = 7");
    let (ok, out, err) = run(&dir, &["-q", "-c", &select]);
    assert!(ok, "{err}");
    assert!(out.contains(", ... 384 numbers]"), "{out}");
    assert!(out.lines().all(|line| line.len() < 120), "{out}");
    let numbers = |text: &str| text.matches(',').count();
    for format in ["csv", "tsv", "json", "nd-json"] {
        let (ok, out, err) = run(&dir, &["-q", "--format", format, "-c", &select]);
        assert!(ok && err.is_empty(), "{format}: {err}");
        assert!(!out.contains("..."), "{format}: {out}");
        assert!(numbers(&out) >= 383, "{format}: {out}");
    }

    // Short vectors, other lists and NULLs are as they are; vectors inside of others are shortened too.
    let select =
        "SELECT [1.5, NULL, 3.0] AS short, range(0, 12) AS list, arrow_cast(NULL, 'List(Float32)') AS none,
        [repeated, repeated] AS pair, {'v': repeated} AS struct
        FROM (SELECT array_repeat(0.5, 9) AS repeated)";
    let (ok, out, err) = run(&dir, &["-q", "-c", select]);
    assert!(ok, "{err}");
    for expected in [
        "| [1.5, NULL, 3.0] |",
        "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]",
        "| NULL |",
        "[[0.5, 0.5, ... 9 numbers], [0.5, 0.5, ... 9 numbers]]",
        "{v: [0.5, 0.5, ... 9 numbers]}",
    ] {
        assert!(out.contains(expected), "{expected}: {out}");
    }
    // Lists are text in CSV.
    let (ok, out, _) = run(
        &dir,
        &[
            "-q",
            "--format",
            "csv",
            "-c",
            "SELECT [1.5, 2] AS v, NULL AS w, {'a': [1]} AS s",
        ],
    );
    assert!(ok);
    assert_eq!(out, "v,w,s\n\"[1.5, 2.0]\",,{a: [1]}\n");
}

#[test]
fn a_reader_that_closes_the_pipe_ends_the_shell_quietly() {
    let dir = workplace();
    let select = "SELECT n, n + 1 AS m FROM (SELECT unnest(range(0, 1000000)) AS n)";
    let twice = format!("{select}; {select}");
    for arguments in [
        ["-q", "--format", "csv", "-c", select],
        ["-q", "--format", "json", "-c", select],
        ["-q", "--maxrows", "inf", "-c", select],
        ["-q", "--format", "csv", "-c", &twice],
    ] {
        let mut child = shell(&dir, &arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the shell starts");
        let mut first = [0; 8];
        let mut out = BufReader::with_capacity(16, child.stdout.take().expect("it is piped"));
        out.read_exact(&mut first).expect("it prints");
        drop(out);
        let status = child.wait().expect("it ends");
        let mut err = String::new();
        let mut pipe = child.stderr.take().expect("it is piped");
        pipe.read_to_string(&mut err).expect("it is text");
        assert_eq!((status.code(), err.as_str()), (Some(141), ""), "{arguments:?}");
    }
}
