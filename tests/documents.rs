//! The documents say what is true: recipes run, and tables name what the code has.

use std::path::{Path, PathBuf};

use datafusion::execution::config::SessionConfig;
use datafusion::prelude::SessionContext;
use datafusion_hnsw::sql::ddl::statement::HnswSessionExt as _;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The contents of all blocks of a language in a document.
fn blocks(document: &Path, language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(document).expect("the document is there");
    let fence = format!("```{language}\n");
    text.split(&fence)
        .skip(1)
        .map(|rest| {
            rest.split_once("```")
                .expect("a block that is closed")
                .0
                .to_owned()
        })
        .collect()
}

/// A directory with a copy of the quickstart's table.
fn sample() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let from = root().join("examples/data/packages.parquet");
    std::fs::copy(from, dir.path().join("packages.parquet")).expect("the file of the quickstart");
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recipe_of_the_guide_runs_and_gives_rows() {
    let dir = sample();
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_information_schema(true));
    datafusion_hnsw::register(&ctx).expect("a fresh session");
    let mut queries = 0;
    for block in blocks(&root().join("docs/GUIDE.md"), "sql") {
        for statement in block.split(";\n").map(str::trim).filter(|s| !s.is_empty()) {
            let place = dir.path().join("packages.parquet");
            let sql = statement.replace(
                "LOCATION 'packages.parquet'",
                &format!("LOCATION '{}'", place.display()),
            );
            let answer = async { ctx.hnsw_sql(&sql).await?.collect().await };
            let batches = answer.await.unwrap_or_else(|error| panic!("{sql}\n{error}"));
            if sql.starts_with("SELECT") || sql.starts_with("WITH") || sql.starts_with("EXPLAIN") {
                queries += 1;
                let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
                assert!(rows > 0, "no rows: {sql}");
            }
        }
    }
    assert!(queries >= 10, "{queries} queries in the guide");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut documents = vec![
        root().join("README.md"),
        root().join("ARCHITECTURE.md"),
        root().join("CONTRIBUTING.md"),
    ];
    for folder in ["docs", "docs/design"] {
        let entries = std::fs::read_dir(root().join(folder)).expect("the documents");
        documents.extend(entries.flatten().map(|entry| entry.path()));
    }
    documents.retain(|path| path.extension().is_some_and(|e| e == "md"));
    let mut checked = 0;
    for document in documents {
        let text = std::fs::read_to_string(&document).expect("a document");
        let folder = document.parent().expect("a file is in a folder");
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        let pictures = text
            .split("src=\"")
            .skip(1)
            .filter_map(|rest| rest.split_once('"'));
        let dark = text
            .split("srcset=\"")
            .skip(1)
            .filter_map(|rest| rest.split_once('"'));
        for (target, _) in targets.chain(pictures).chain(dark) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            checked += 1;
            assert!(
                folder.join(path).exists(),
                "{}: {target} is not there",
                document.display()
            );
        }
    }
    assert!(checked > 10, "{checked} links");
}

/// The words in backticks at the beginning of each row of the table under a heading.
fn first_cells(document: &str, heading: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(document)).expect("the document");
    let (_, rest) = text
        .split_once(&format!("\n## {heading}\n"))
        .expect("the heading");
    let section = rest.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|line| line.split(" | ").next().unwrap_or_default().to_owned());
    cells
        .flat_map(|cell| {
            let words: Vec<String> = cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            words
        })
        .collect()
}

/// The codes that a source file gives as `=> "code"`.
fn codes(source: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(source)).expect("the source");
    let (_, rest) = text.split_once("pub fn code(").expect("the codes");
    let body = rest.split("\n    }\n").next().unwrap_or_default();
    let given = body
        .split("=> \"")
        .skip(1)
        .filter_map(|rest| rest.split_once('"'));
    given.map(|(code, _)| code.to_owned()).collect()
}

fn assert_same(what: &str, mut written: Vec<String>, mut known: Vec<String>) {
    written.sort();
    known.sort();
    assert_eq!(
        written, known,
        "{what}: the reference (left) and the code (right) differ"
    );
}

#[test]
fn the_reference_lists_every_setting() {
    use datafusion::config::ExtensionOptions as _;
    let entries = datafusion_hnsw::HnswOptions::default().entries();
    let known = entries.into_iter().map(|entry| {
        let key = entry.key.trim_start_matches("hnsw.");
        key.to_owned()
    });
    assert_same(
        "settings",
        first_cells("docs/REFERENCE.md", "Settings"),
        known.collect(),
    );
}

#[test]
fn the_reference_lists_every_reason_code() {
    assert_same(
        "reasons of queries",
        first_cells("docs/REFERENCE.md", "Reason codes of queries"),
        codes("src/sql/recognize/refusal.rs"),
    );
    let mut known = codes("src/sidecar/reason.rs");
    known.extend(["damaged:<section>".to_owned(), "mode_exact".to_owned()]);
    assert_same(
        "reasons of files",
        first_cells("docs/REFERENCE.md", "Reason codes of files"),
        known,
    );
}
