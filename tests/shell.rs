//! The shell as a user meets it: what it prints, and how it ends.
#![cfg(feature = "shell")]

#[path = "shell/errors.rs"]
mod errors;
#[path = "shell/output.rs"]
mod output;
#[path = "shell/prompt.rs"]
mod prompt;
#[path = "shell/settings.rs"]
mod settings;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A directory with the example data in its place, so that no test writes into the repository.
fn workplace() -> TempDir {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for file in ["data/packages.parquet", "quickstart.sql"] {
        let copy = dir.path().join("examples").join(file);
        fs::create_dir_all(copy.parent().expect("it has one")).expect("directories can be made");
        fs::copy(examples.join(file), copy).expect("the example data is there");
    }
    dir
}

fn shell(dir: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_datafusion-hnsw"));
    // No start-up file or history of the user.
    command
        .args(arguments)
        .current_dir(dir)
        .env("HOME", dir.path())
        .stdin(Stdio::null());
    command
}

/// Runs it and gives whether it succeeded, its standard output and its standard error.
fn run(dir: &TempDir, arguments: &[&str]) -> (bool, String, String) {
    told(shell(dir, arguments).output().expect("the shell starts"))
}

fn told(output: Output) -> (bool, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the shell prints UTF-8");
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn piped(dir: &TempDir, input: &str) -> (bool, String, String) {
    let mut child = shell(dir, &["-q"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the shell starts");
    child
        .stdin
        .take()
        .expect("it is piped")
        .write_all(input.as_bytes())
        .expect("the shell reads");
    told(child.wait_with_output().expect("the shell ends"))
}

#[test]
fn the_quickstart_finds_what_is_similar_and_shows_how() {
    let dir = workplace();
    let (ok, out, err) = run(&dir, &["-f", "examples/quickstart.sql"]);
    assert!(ok, "{out}\n{err}");
    for expected in [
        "gnuchess",
        "knights",
        "sjeng",
        "chessx",
        "VectorScanExec",
        "topgit",
    ] {
        assert!(out.contains(expected), "{expected} is missing:\n{out}");
    }
    assert!(
        dir.path()
            .join("examples/data/_hnsw/packages.parquet.embedding.cosine.hnsw")
            .is_file()
    );

    // A second time the index is there already.
    let (ok, out, err) = run(&dir, &["-f", "examples/quickstart.sql"]);
    assert!(ok, "{out}\n{err}");
    assert!(out.contains("knights"), "{out}");
}

#[test]
fn rows_are_printed_in_the_format_asked_for() {
    let dir = workplace();
    let arguments = [
        "-q",
        "--format",
        "csv",
        "-c",
        "SELECT 1 AS a, 'x;y' AS b; SELECT 2 AS c",
    ];
    assert_eq!(
        run(&dir, &arguments),
        (true, "a,b\n1,x;y\nc\n2\n".to_owned(), String::new())
    );
    let (_, out, _) = run(&dir, &["-q", "--format", "nd-json", "-c", "SELECT 1 AS a"]);
    assert_eq!(out, "{\"a\":1}\n");
}

#[test]
fn statements_end_at_semicolons_outside_of_strings_and_comments() {
    let dir = workplace();
    let script = "-- a; b\n\nSELECT 'x;y' AS a ;\n;;\nSELECT 'zürich' /* ; */ AS b;\r\nSELECT \"c;d\" FROM (SELECT 1 AS \"c;d\")\n-- end";
    fs::write(dir.path().join("script.sql"), script).expect("written");
    let (ok, out, err) = run(&dir, &["-q", "--format", "csv", "-f", "script.sql"]);
    assert!(ok, "{err}");
    assert_eq!(out, "a\nx;y\nb\nzürich\nc;d\n1\n");

    let (ok, out, err) = run(&dir, &["-q", "-c", "SELECT 1; SELECT 'x"]);
    assert!(!ok && out.is_empty() && err.contains("string"), "{out}\n{err}");
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    let dir = workplace();
    for wrong in [
        ["-m", "10x"],
        ["-m", "0"],
        ["-d", ""],
        ["-b", "0"],
        ["--format", "xml"],
        ["-c", " "],
    ] {
        let (ok, out, err) = run(&dir, &wrong);
        assert!(
            !ok && out.is_empty() && err.contains(wrong[0]),
            "{wrong:?}: {out}\n{err}"
        );
    }
    let (ok, out, _) = run(
        &dir,
        &[
            "-q",
            "-m",
            "512m",
            "-d",
            "10GB",
            "-b",
            "16",
            "--format",
            "csv",
            "-c",
            "SELECT 1 AS a",
        ],
    );
    assert!(ok);
    assert_eq!(out, "a\n1\n");
}

#[test]
fn an_error_ends_a_script_and_names_its_line() {
    let dir = workplace();
    let script = dir.path().join("script.sql");
    fs::write(
        &script,
        "-- first\nSELECT 1 AS before;\n\nSELECT nope;\nSELECT 2 AS after;\n",
    )
    .expect("written");
    let (ok, out, err) = run(&dir, &["-q", "-f", "script.sql"]);
    assert!(!ok);
    assert!(out.contains("before") && !out.contains("after"), "{out}");
    assert!(err.contains("script.sql:4") && err.contains("nope"), "{err}");

    let (ok, _, err) = run(&dir, &["-f", "missing.sql"]);
    assert!(!ok);
    assert!(err.contains("missing.sql"), "{err}");
}

#[test]
fn an_error_in_an_argument_fails() {
    let dir = workplace();
    let (ok, out, err) = run(&dir, &["-q", "-c", "SELECT nope; SELECT 2 AS after"]);
    assert!(!ok);
    assert!(err.contains("nope") && !out.contains("after"), "{out}\n{err}");
}

#[test]
fn statements_and_commands_come_through_a_pipe() {
    let dir = workplace();
    let (ok, out, err) = piped(
        &dir,
        "SELECT 1\n  AS a;\nCREATE VIEW one AS SELECT 1;\n\\d\n\\q\n",
    );
    assert!(ok, "{out}\n{err}");
    assert!(out.contains("| a |") && out.contains("| one "), "{out}");

    // The statements after an error still run, and the exit code tells of it.
    let (ok, out, err) = piped(&dir, "SELECT nope;\nSELECT 2 AS after;\n");
    assert!(!ok);
    assert!(out.contains("after") && err.contains("nope"), "{out}\n{err}");
}

#[test]
fn indexes_are_created_and_dropped_with_their_full_syntax() {
    let dir = workplace();
    let script = "
        CREATE EXTERNAL TABLE p STORED AS PARQUET LOCATION 'examples/data/packages.parquet';
        CREATE INDEX mine ON p USING hnsw (embedding) WITH (metric = 'l2', m = 8, ef_construction = 40);
        EXPLAIN SELECT id FROM p ORDER BY array_distance(embedding, (SELECT embedding FROM p WHERE id = 7)) LIMIT 3;
        DROP INDEX mine ON p;
    ";
    let (ok, out, err) = run(&dir, &["-c", script]);
    assert!(ok, "{out}\n{err}");
    assert!(out.contains("1 indexed"), "{out}");
    assert_eq!(sidecars(&dir), Vec::<String>::new());
}

#[test]
fn an_index_is_built_without_sql() {
    let dir = workplace();
    let arguments = [
        "index",
        "build",
        "examples/data/packages.parquet",
        "--metric",
        "l2",
        "--m",
        "8",
    ];
    let (ok, out, err) = run(&dir, &arguments);
    assert!(ok, "{out}\n{err}");
    assert_eq!(sidecars(&dir), ["packages.parquet.embedding.l2.hnsw"]);

    // Again it is an error, unless an index that fits is welcome.
    let (ok, _, err) = run(&dir, &arguments);
    assert!(!ok);
    assert!(err.contains("already"), "{err}");
    let (ok, out, err) = run(&dir, &[&arguments[..], &["--if-not-exists"]].concat());
    assert!(ok, "{out}\n{err}");

    let (ok, _, err) = run(
        &dir,
        &[
            "index",
            "build",
            "examples/data/packages.parquet",
            "--column",
            "nope",
        ],
    );
    assert!(!ok);
    assert!(err.contains("nope"), "{err}");
}

fn sidecars(dir: &TempDir) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir.path().join("examples/data/_hnsw")) else {
        return vec![];
    };
    entries
        .map(|entry| {
            entry
                .expect("an entry can be read")
                .file_name()
                .display()
                .to_string()
        })
        .filter(|name| name.ends_with(".hnsw"))
        .collect()
}
