//! What the prompt completes, and what the progress bar foretells.

#[path = "../../src/bin/shell/prompt/names.rs"]
#[allow(unreachable_pub, reason = "it is a file of the shell")]
mod names;
#[path = "../../src/bin/shell/pace.rs"]
mod pace;

use std::time::Duration;

use datafusion::prelude::SessionContext;
use names::Names;
use pace::Pace;

async fn session() -> Names {
    let ctx = SessionContext::new();
    datafusion_hnsw::register(&ctx).expect("the functions are taken");
    for sql in [
        "CREATE TABLE docs AS SELECT 1 AS id, 'x' AS title, [1.0] AS embedding",
        "CREATE TABLE users AS SELECT 1 AS uid, 'x' AS \"Title\"",
    ] {
        ctx.sql(sql).await.expect(sql).collect().await.expect(sql);
    }
    Names::of(&ctx).await
}

/// What the text may become.
fn completed(names: &Names, text: &str) -> Vec<String> {
    let (start, found) = names.complete(text, text.len());
    found
        .iter()
        .map(|name| format!("{}{name}", &text[..start]))
        .collect()
}

#[tokio::test]
async fn the_prompt_completes_keywords_tables_columns_functions_and_settings() {
    let names = session().await;
    for (text, expected) in [
        ("sel", "select"),
        ("SEL", "SELECT"),
        ("SELECT emb", "SELECT embedding"),
        ("SELECT cosine_d", "SELECT cosine_distance("),
        ("SELECT id FROM do", "SELECT id FROM docs"),
        ("SELECT * FROM vector_se", "SELECT * FROM vector_search("),
        (
            "SELECT id FROM docs ORDER BY array_distance(emb",
            "SELECT id FROM docs ORDER BY array_distance(embedding",
        ),
        (
            "SELECT * FROM users WHERE tit",
            "SELECT * FROM users WHERE \"Title\"",
        ),
        (
            "SELECT * FROM docs AS d WHERE d.ti",
            "SELECT * FROM docs AS d WHERE d.title",
        ),
        ("SET hnsw.ef_s", "SET hnsw.ef_search"),
        ("SELECT 1; RESET hnsw.mo", "SELECT 1; RESET hnsw.mode"),
    ] {
        let found = completed(&names, text);
        assert!(found.contains(&expected.to_owned()), "{text}: {found:?}");
    }
    // A column of a table that the statement names, not of another one.
    let found = completed(&names, "SELECT title FROM docs WHERE ui");
    assert!(!found.iter().any(|name| name.ends_with("uid")), "{found:?}");
    for text in ["SELECT 'sel", "-- sel", "SELECT ", "SELECT 'ü' ", ""] {
        assert_eq!(completed(&names, text), Vec::<String>::new(), "{text}");
    }
    // The cursor may stand anywhere.
    let text = "SELECT 'ä', emb FROM docs";
    let at = text.find(" FROM").expect("it is there");
    assert_eq!(names.complete(text, at).1, ["embedding"]);
}

#[test]
fn the_time_left_is_foretold_by_the_later_half() {
    let mut pace = Pace::default();
    let seconds = Duration::from_secs_f64;
    assert_eq!(pace.at(0, 1000, seconds(0.0)), None);
    // Ten seconds in which nothing moves, then 100 a second.
    for tick in 1..=100 {
        let _ = pace.at(0, 1000, seconds(f64::from(tick) * 0.1));
    }
    let mut last = None;
    for tick in 1..=90_u32 {
        last = pace.at(u64::from(tick) * 10, 1000, seconds(10.0 + f64::from(tick) * 0.1));
    }
    let forecast = last.expect("most is done");
    assert!((90.0..=110.0).contains(&forecast.per_second), "{forecast:?}");
    assert!(forecast.left <= seconds(2.0), "{forecast:?}");
    // Nothing is said too soon.
    assert_eq!(Pace::default().at(900, 1000, seconds(0.5)), None);
    let mut pace = Pace::default();
    let _ = pace.at(0, 1_000_000, seconds(0.1));
    assert_eq!(pace.at(10, 1_000_000, seconds(5.0)), None);
}
