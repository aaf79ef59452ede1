//! The files of `sql-tests/`, each as a test that can be run alone.
//!
//! ```text
//! cargo test --release --features shell --test sqllogic               # all
//! cargo test --release --features shell --test sqllogic -- filters    # those whose name contains "filters"
//! ```
//!
//! A file runs three times, with `hnsw.mode` = `auto`, `exact` and `off`, and must give the same
//! output: this is the promise that an index changes speed only. `hnsw.ef_search` is larger than any
//! table here, so that the index finds every neighbour. Files in `sql-tests/explain/` are about plans
//! or about the mode itself and run once, with the defaults.
//!
//! With the feature `shell` each of these runs happens again in the shell, as its session is not that of a program:
//! it wraps object stores and has catalogs and printers of its own.
//!
//! In a file, `${dir}` is a fresh directory, and `${packages}` a copy of the example data in it;
//! `skipif aarch64` and `onlyif aarch64` stand before what differs there, so that without the label
//! one of the two still runs; likewise `shell`. With `SLT_UPDATE=1` the results in the files are rewritten: by DataFusion's
//! own plan (`off`) where a file runs three times, so that the oracle and not the index writes the
//! expectation.

mod database;
mod output;
mod shell;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use sqllogictest::{Runner, default_normalizer, default_validator, strict_column_validator};
use tempfile::TempDir;

use crate::database::Database;
use crate::output::{types_agree, without_empty};
use crate::shell::{PROGRAM, Shell};

/// How the files that run more than once differ.
const MODES: [&str; 3] = ["auto", "exact", "off"];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let update = std::env::var_os("SLT_UPDATE").is_some();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sql_tests = root.join("sql-tests");

    let mut trials = Vec::new();
    for file in slt_files(&sql_tests) {
        let name = file
            .strip_prefix(&sql_tests)
            .expect("the file was found there")
            .display()
            .to_string();
        let modes: Vec<Option<&'static str>> = match (name.starts_with("explain"), update) {
            (true, _) => vec![None],
            (false, true) => vec![Some("off")],
            (false, false) => MODES.into_iter().map(Some).collect(),
        };
        for mode in modes {
            let kind = mode.unwrap_or("once");
            if PROGRAM.is_some() && !update {
                let file = file.clone();
                let trial = Trial::test(name.clone(), move || run_in_shell(&file, mode));
                trials.push(trial.with_kind(format!("shell {kind}")));
            }
            let file = file.clone();
            trials.push(Trial::test(name.clone(), move || run(&file, mode, update)).with_kind(kind));
        }
    }
    assert!(!trials.is_empty(), "no .slt files in {}", sql_tests.display());
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn slt_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("sql-tests can be listed") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            files.extend(slt_files(&path));
        } else if path.extension().is_some_and(|e| e == "slt") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn run(file: &Path, mode: Option<&'static str>, update: bool) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let places = Places::new()?;
        let text = places.fill_in(&fs::read_to_string(file)?)?;
        let dir = places.path();
        let mut runner = Runner::new(|| Database::open(mode, dir.clone()));
        runner.with_column_validator(strict_column_validator);
        runner.add_label(std::env::consts::ARCH);
        if update {
            let copy = places.dir.path().join("updated.slt");
            fs::write(&copy, text)?;
            runner
                .update_test_file(
                    &copy,
                    " ",
                    default_validator,
                    default_normalizer,
                    strict_column_validator,
                )
                .await
                .map_err(|e| e.to_string())?;
            return Ok(fs::write(file, places.take_out(&fs::read_to_string(copy)?))?);
        }
        // The name is what a failure points to.
        runner
            .run_script_with_name_async(&text, file.display().to_string())
            .await
            .map_err(|e| Failed::from(e.display(false).to_string()))
    })
}

fn run_in_shell(file: &Path, mode: Option<&'static str>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let places = Places::new()?;
        let text = places.fill_in(&fs::read_to_string(file)?)?;
        let dir = places.path();
        let mut runner = Runner::new(|| {
            let shell = Shell::start(mode, dir.clone());
            async { shell }
        });
        runner.with_column_validator(types_agree);
        runner.with_normalizer(without_empty);
        runner.add_label(std::env::consts::ARCH);
        runner.add_label("shell");
        runner
            .run_script_with_name_async(&text, file.display().to_string())
            .await
            .map_err(|e| Failed::from(e.display(false).to_string()))
    })
}

/// Where a file's tables live while it runs.
struct Places {
    dir: TempDir,
}

impl Places {
    fn new() -> std::io::Result<Self> {
        let dir = TempDir::new()?;
        // The sidecars of files in it lie next to it.
        fs::create_dir(dir.path().join("data"))?;
        Ok(Self { dir })
    }

    fn path(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    fn packages(&self) -> PathBuf {
        self.dir.path().join("data/packages.parquet")
    }

    fn fill_in(&self, text: &str) -> std::io::Result<String> {
        if text.contains("${packages}") {
            let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/packages.parquet");
            fs::copy(data, self.packages())?;
        }
        Ok(text
            .replace("${packages}", &self.packages().display().to_string())
            .replace("${dir}", &self.path()))
    }

    fn take_out(&self, text: &str) -> String {
        text.replace(&self.packages().display().to_string(), "${packages}")
            .replace(&self.path(), "${dir}")
    }
}
