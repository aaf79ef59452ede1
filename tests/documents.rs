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
