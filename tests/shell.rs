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
        .env_remove("XDG_CACHE_HOME")
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
            .join("examples/.data.hnsw/packages.parquet.embedding.cosine.hnsw")
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
fn the_tree_of_explain_says_why_an_index_is_not_used_and_what_to_do() {
    let dir = workplace();
    let distance = format!("cosine_distance(embedding, [{}])", vec!["0.12"; 384].join(", "));
    let script = format!(
        "CREATE EXTERNAL TABLE p STORED AS PARQUET LOCATION 'examples/data/packages.parquet';
         EXPLAIN SELECT id FROM p WHERE id > 5 ORDER BY {distance} LIMIT 3;
         EXPLAIN SELECT id FROM p ORDER BY round({distance}, 2), id LIMIT 3;"
    );
    let (ok, out, err) = run(&dir, &["-q", "--format", "csv", "-c", &script]);
    assert!(ok, "{out}\n{err}");
    assert!(out.contains("┌"), "the shell's default is the tree: {out}");
    // The tree breaks lines anywhere.
    let text: String = out
        .chars()
        .filter(|c| !c.is_whitespace() && !"│┌┐└┘┬┴─".contains(*c))
        .collect();
    for expected in [
        "strategy:exact",
        "filter:id@0>5",
        "cosine_distance[0.12,0.12,...384numbers]",
        "reason:no_sidecar:thefilehasnosidecarforthiscolumn;CREATEINDEXONthetableUSINGhnsw(embedding)\
         WITH(metric='cosine')",
        "notusedreason:distance_in_expression:theorderisbyanexpressionaroundthedistance;",
    ] {
        assert!(text.contains(expected), "{expected} is missing:\n{out}");
    }
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

/// A session of its own for each statement about the table in this directory: `id`, a vector `v` and `more`, if any.
struct Table<'a> {
    dir: &'a TempDir,
    at: String,
}

impl<'a> Table<'a> {
    fn new(dir: &'a TempDir, at: &str, rows: &str, more: &str) -> Self {
        let table = Self {
            dir,
            at: at.to_owned(),
        };
        let vector = "arrow_cast([n % 97, n % 89, n % 83], 'FixedSizeList(3, Float32)') AS v";
        table.ask(&format!(
            "COPY (SELECT n AS id, {vector}{more} FROM (SELECT unnest(range(0, {rows})) AS n)) TO '{at}/a.parquet' \
             STORED AS PARQUET OPTIONS (compression 'uncompressed', dictionary_enabled 'false', statistics_enabled 'none')"
        ));
        table.about("CREATE INDEX i ON t USING hnsw (v) WITH (metric = 'l2')");
        table
    }

    fn ask(&self, sql: &str) -> String {
        let (ok, out, err) = run(self.dir, &["-q", "--format", "csv", "-c", sql]);
        assert!(ok, "{sql}\n{out}\n{err}");
        out
    }

    fn about(&self, sql: &str) -> String {
        let at = &self.at;
        self.ask(&format!(
            "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{at}/'; {sql}"
        ))
    }

    /// How the nearest rows are found after `set`; they are those that DataFusion finds.
    fn how(&self, set: &str) -> String {
        const QUERY: &str = "SELECT id, array_distance(v, [1, 2, 3]) AS d FROM t ORDER BY d, id LIMIT 5";
        let near = |mode: &str| {
            self.about(&format!(
                "{set} SET hnsw.mode = '{mode}'; SET hnsw.ef_search = 10000; {QUERY}"
            ))
        };
        assert_eq!(near("auto"), near("off"), "{set}");
        let plan = self.about(&format!("{set} EXPLAIN FORMAT INDENT {QUERY}"));
        let at = plan.find("files=[").unwrap_or_else(|| panic!("{plan}"));
        plan[at + 7..].split(']').next().unwrap_or_default().to_owned()
    }
}

fn copy(dir: &TempDir, from: &str, to: &str) {
    let copied = Command::new("cp")
        .args(["-a", from, to])
        .current_dir(dir)
        .status();
    assert!(copied.is_ok_and(|status| status.success()));
}

/// Files below a directory whose names end so.
fn ending_with(dir: &Path, ending: &str) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.path() {
            path if path.is_dir() => ending_with(&path, ending),
            path => usize::from(path.to_string_lossy().ends_with(ending)),
        })
        .sum()
}

#[cfg(unix)]
#[test]
fn files_on_this_machine_are_local_to_the_shell() {
    let dir = workplace();
    let table = Table::new(&dir, "one/t", "2000", "");
    assert_eq!(table.how(""), "1 indexed");
    copy(&dir, "one", "two");
    let copied = Table {
        dir: &dir,
        at: "two/t".to_owned(),
    };
    assert_eq!(copied.how(""), "1 indexed", "copied with its sidecar");
    assert_eq!(table.how("SET hnsw.cache_dir = '/proc/none';"), "1 indexed");
    assert_eq!(table.how("SET hnsw.cache_size = 1000;"), "1 indexed");
    let file = fs::File::options()
        .write(true)
        .open(dir.path().join("one/t/a.parquet"));
    let touched = file.and_then(|file| file.set_modified(std::time::SystemTime::now()));
    touched.expect("ours");
    assert_eq!(table.how(""), "1 indexed", "touched");
    assert_eq!(
        ending_with(&dir.path().join(".cache"), ".hnsw"),
        0,
        "no second copy"
    );
}

/// Above 256 MiB no query waits for the comparison, unless most of the file is vectors.
#[cfg(unix)]
#[test]
fn a_large_copied_file_is_indexed_from_the_second_process_on() {
    let dir = workplace();
    let table = Table::new(&dir, "one/t", "300", ", repeat('x', 1000000) AS more");
    copy(&dir, "one", "two");
    let copied = Table {
        dir: &dir,
        at: "two/t".to_owned(),
    };
    assert_eq!(table.how(""), "1 indexed");
    // A file changed within the last two seconds could change again and keep its times.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    copied.about("EXPLAIN SELECT id FROM t ORDER BY array_distance(v, [1, 2, 3]) LIMIT 3");
    let left = fs::metadata(dir.path().join("two/t/a.parquet"))
        .expect("there")
        .len();
    assert!(left > 256 << 20, "{left} bytes are too few for this test");
    assert_eq!(copied.how(""), "1 indexed");
}

#[test]
fn functions_take_the_file_names_that_from_and_create_index_take() {
    let dir = workplace();
    let file = "examples/data/packages.parquet";
    let vector = format!("[{}]", vec!["0.05"; 384].join(", "));
    let script = format!(
        "CREATE INDEX IF NOT EXISTS ON '{file}' USING hnsw (embedding) WITH (metric = 'Euclidean');
        SELECT table_name, metric, state FROM hnsw_indexes();
        SELECT file, state FROM hnsw_verify('{file}');
        SELECT files_built, files_kept FROM hnsw_refresh('{file}');
        SELECT count(*) AS found FROM vector_search('{file}', 'embedding', {vector}, 7, 'metric=l2');
        SELECT count(*) AS joined FROM vector_join('{file}', 'embedding', '{file}', 'embedding', 1, 'metric=l2') WHERE id = 5;
        SELECT index_name, files_kept FROM hnsw_create_index('{file}', 'embedding', 'metric=l2, if_not_exists=true');
        SELECT files_dropped FROM hnsw_drop_index('packages_embedding_l2_idx', '{file}')"
    );
    let (ok, out, err) = run(&dir, &["-q", "--format", "csv", "-c", &script]);
    assert!(ok, "{out}\n{err}");
    for expected in [
        &format!("table_name,metric,state\n{file},l2,fresh\n"),
        "file,state\npackages.parquet,fresh\n",
        "files_built,files_kept\n0,1\n",
        "found\n7\n",
        "joined\n1\n",
        "index_name,files_kept\npackages_embedding_l2_idx,1\n",
        "files_dropped\n1\n",
    ] {
        assert!(out.contains(expected), "{expected:?} is missing:\n{out}\n{err}");
    }
}

#[test]
fn a_table_that_does_not_exist_is_called_by_its_name_every_time() {
    let dir = workplace();
    let calls = [
        "SELECT * FROM vector_search('nope', 'v', [1.0], 5)",
        "SELECT * FROM vector_join('nope', 'v', 'nope', 'v', 5)",
        "SELECT * FROM hnsw_verify('nope')",
    ];
    for call in calls.iter().cycle().take(9) {
        let (ok, out, err) = run(&dir, &["-q", "-c", call]);
        assert!(!ok && out.is_empty(), "{out}");
        assert!(err.contains("there is no table nope"), "{call}: {err}");
    }
    let (ok, _, err) = run(
        &dir,
        &[
            "-q",
            "-c",
            "SELECT * FROM vector_search('no/f.parquet', 'v', [1.0], 5)",
        ],
    );
    assert!(!ok && err.contains("no file of that name"), "{err}");
}

fn sidecars(dir: &TempDir) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir.path().join("examples/.data.hnsw")) else {
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

/// Somebody else's link, pipe or directory where a sidecar or its unfinished file would be; and a file of one's own.
#[cfg(unix)]
#[test]
fn an_index_is_as_private_as_its_file_and_is_written_to_nothing_that_lies_in_its_way() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = workplace();
    let place = |name: &str| dir.path().join("examples").join(name);
    let (parquet, sidecars) = (place("data/packages.parquet"), place(".data.hnsw"));
    let sidecar = "packages.parquet.embedding.cosine.hnsw";
    fs::set_permissions(&parquet, fs::Permissions::from_mode(0o600)).expect("ours");
    fs::write(place("precious"), "precious").expect("written");
    let create = "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 'examples/data/packages.parquet';
        CREATE INDEX ON t USING hnsw (embedding); SELECT state FROM hnsw_indexes()";
    for name in [sidecar.to_owned(), format!(".{sidecar}.part")] {
        for pipe in [false, true] {
            fs::create_dir_all(&sidecars).expect("made");
            if pipe {
                let made = Command::new("mkfifo").arg(sidecars.join(&name)).status();
                assert!(made.is_ok_and(|status| status.success()));
            } else {
                symlink(place("precious"), sidecars.join(&name)).expect("made");
            }
            let (ok, out, err) = run(&dir, &["-q", "-c", create]);
            assert!(ok && out.contains("fresh"), "{name}: {out}\n{err}");
            assert_eq!(fs::read_to_string(place("precious")).expect("there"), "precious");
            let mode = fs::symlink_metadata(sidecars.join(sidecar))
                .expect("built")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
            fs::remove_dir_all(&sidecars).expect("ours");
        }
    }
    fs::create_dir_all(sidecars.join(sidecar).join("inside")).expect("made");
    let (ok, _, err) = run(&dir, &["-q", "-c", create]);
    assert!(
        !ok && err.contains("is a directory and not a sidecar; remove it"),
        "{err}"
    );
}

/// A bit of a stored vector flips: the answer is the one without an index, and every statement says why.
#[test]
fn a_damaged_index_changes_no_answer_and_is_told_of_and_mended() {
    let dir = workplace();
    let table =
        "CREATE EXTERNAL TABLE packages STORED AS PARQUET LOCATION 'examples/data/packages.parquet'; ";
    let query = "SELECT package, array_to_string(embedding, ' ') AS v, cosine_distance(embedding, (SELECT embedding FROM packages \
                 WHERE package = 'gnuchess')) AS d FROM packages ORDER BY d, package LIMIT 10";
    let ask = |statements: &str| {
        let (ok, out, err) = run(
            &dir,
            &["-q", "--format", "csv", "-c", &format!("{table}{statements}")],
        );
        assert!(ok, "{statements}\n{out}\n{err}");
        out
    };
    let create = "CREATE INDEX IF NOT EXISTS i ON packages USING hnsw (embedding); ";
    ask(create);
    let expected = ask(&format!("SET hnsw.mode = 'off'; {query}"));
    let mut found = vec![];
    let mut folders = vec![dir.path().join("examples")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|ending| ending == "hnsw") => found.push(path),
                false => {}
            }
        }
    }
    let [sidecar] = found.as_slice() else {
        panic!("one sidecar, not {found:?}")
    };
    // The vectors are most of the file, and end near its end.
    let mut bytes = fs::read(sidecar).expect("it was written");
    let place = bytes.len() * 3 / 4;
    bytes[place] ^= 0x40;
    fs::write(sidecar, &bytes).expect("it can be written");
    assert_eq!(ask(&format!("SET hnsw.ef_search = 10000; {query}")), expected);
    for statement in [
        &format!("EXPLAIN FORMAT INDENT {query}"),
        "SELECT state, reason FROM hnsw_indexes()",
    ] {
        let told = ask(statement);
        assert!(told.contains("damaged:vectors"), "{told}");
    }
    ask("SELECT * FROM hnsw_refresh('packages')");
    let told = ask("SELECT state FROM hnsw_indexes()");
    assert!(told.contains("fresh"), "{told}");
}

#[test]
fn windows_over_searches_dividing_filters_and_missing_stores_end_as_without_an_index() {
    let dir = workplace();
    let vector = "[0.25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]";
    let script = format!(
        "COPY (SELECT id, num, array_resize(make_array(CAST(x AS DOUBLE)), 17, 0.0) AS v FROM (VALUES
           (1, 0, 0), (2, 5, 1), (3, 1, 0), (4, -1, 2), (5, 2, 5), (6, -2, 20)) AS t(id, x, num)) TO 't.parquet';
         CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 't.parquet';
         CREATE INDEX ON t USING hnsw (v) WITH (metric = 'l2');
         SELECT id AS qualified FROM (SELECT * FROM t ORDER BY array_distance(v, {vector}) LIMIT 4) AS s
           QUALIFY row_number() OVER (ORDER BY array_distance(v, {vector}) DESC) <= 2 ORDER BY id;
         SELECT array_to_string(array_agg(id ORDER BY array_distance(v, {vector}) DESC), ' ') AS aggregated
           FROM (SELECT * FROM t ORDER BY array_distance(v, {vector}) LIMIT 4) AS s;
         SET datafusion.execution.parquet.pushdown_filters = true;
         SELECT id AS divided FROM t WHERE num <> 0 AND 10 / num > 2 ORDER BY array_distance(v, {vector}) LIMIT 3;
         SET hnsw.sidecar_dir = 's3://unregistered/x';
         SELECT id AS nowhere FROM t ORDER BY array_distance(v, {vector}) LIMIT 2"
    );
    let expected = "qualified\n4\n5\naggregated\n5 4 3 1\ndivided\n4\n2\nnowhere\n1\n3\n";
    for mode in ["off", "exact", "auto"] {
        let script =
            format!("SET hnsw.mode = '{mode}'; {script}").replace("t.parquet", &format!("{mode}.parquet"));
        let (ok, out, err) = run(&dir, &["-q", "--format", "csv", "-c", &script]);
        let last_rows = out.find("qualified").map_or("", |at| &out[at..]);
        assert_eq!((ok, last_rows), (true, expected), "{mode}: {out}\n{err}");
    }
}
