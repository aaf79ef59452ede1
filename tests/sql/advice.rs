//! What EXPLAIN says of a query that is not searched: each scan whose column is compared, once, and nothing of any
//! other; and who follows the advice gets the same answer, through the index.

use datafusion::physical_plan::displayable;
use datafusion::prelude::SessionContext;
use tempfile::TempDir;

use crate::compare::{Answer, answer};
use crate::query::Query;

/// The distance of the cases, which is another one for each row of `t` and `u`.
const D: &str = "array_distance(v, [250.1, 0])";

/// A query that is not searched.
struct Case {
    /// Its SQL; `$d` stands for the distance.
    asked: &'static str,
    /// What EXPLAIN says: the directory of the table and the code, for each scan that it says something of.
    says: &'static [(&'static str, &'static str)],
    /// The same query as the sentence advises, if it advises one. Its rows are the first of the query's.
    advised: Option<&'static str>,
}

const CASES: &[Case] = &[
    Case {
        asked: "SELECT id FROM t ORDER BY $d DESC LIMIT 5",
        says: &[("t", "wrong_direction")],
        advised: None,
    },
    Case {
        asked: "SELECT id FROM t ORDER BY cat, $d LIMIT 5",
        says: &[("t", "distance_not_first_key")],
        advised: None,
    },
    Case {
        asked: "SELECT id FROM t ORDER BY $d",
        says: &[("t", "no_limit")],
        advised: Some("SELECT id FROM t ORDER BY $d LIMIT 7"),
    },
    Case {
        asked: "SELECT id FROM t ORDER BY array_distance(array_concat(v, v), [250.1, 0, 250.1, 0]) LIMIT 7",
        says: &[("t", "vector_not_a_column")],
        advised: Some("SELECT id FROM w ORDER BY array_distance(v, [250.1, 0, 250.1, 0]) LIMIT 7"),
    },
    Case {
        asked: "SELECT id FROM t WHERE random() < 2 ORDER BY $d LIMIT 5",
        says: &[("t", "filter_volatile")],
        advised: None,
    },
    Case {
        asked: "SELECT id FROM t ORDER BY $d + 1, id LIMIT 7",
        says: &[("t", "tie_keys_over_expression")],
        advised: Some("SELECT id FROM t ORDER BY $d, id LIMIT 7"),
    },
    Case {
        asked: "SELECT id FROM t ORDER BY power($d, 2) LIMIT 7",
        says: &[("t", "distance_in_expression")],
        advised: Some("SELECT id FROM t ORDER BY $d LIMIT 7"),
    },
    Case {
        asked: "SELECT id FROM t ORDER BY round($d, 3), id LIMIT 5",
        says: &[("t", "distance_in_expression")],
        advised: None,
    },
    Case {
        asked: "SELECT id FROM t ORDER BY CAST($d AS FLOAT) LIMIT 5",
        says: &[("t", "distance_in_expression")],
        advised: None,
    },
    Case {
        asked: "SELECT id FROM t ORDER BY coalesce($d, 9) LIMIT 5",
        says: &[("t", "distance_in_expression")],
        advised: None,
    },
    Case {
        asked: "SELECT id FROM t ORDER BY $d * CASE WHEN cat = 1 THEN 0.5 ELSE 1 END LIMIT 5",
        says: &[("t", "distance_in_expression")],
        advised: None,
    },
    Case {
        asked: "SELECT id FROM t ORDER BY $d + 0.001 * cat LIMIT 5",
        says: &[("t", "distance_in_expression")],
        advised: None,
    },
    Case {
        asked: "SELECT count(*) FROM t WHERE $d < 20",
        says: &[("t", "distance_threshold")],
        advised: Some("SELECT count(*) FROM (SELECT id FROM t WHERE $d < 20 ORDER BY $d LIMIT 100)"),
    },
    Case {
        asked: "SELECT id FROM t WHERE $d < 20 ORDER BY id LIMIT 5",
        says: &[("t", "distance_threshold")],
        advised: Some("SELECT id FROM (SELECT id FROM t WHERE $d < 20 ORDER BY $d LIMIT 100) ORDER BY id LIMIT 5"),
    },
    Case {
        asked: "SELECT t.id FROM t JOIN m ON t.doc = m.doc WHERE $d BETWEEN 1 AND 20 AND m.owner = 3 ORDER BY t.id",
        says: &[("t", "distance_threshold")],
        advised: None,
    },
    Case {
        asked: "SELECT DISTINCT id, $d AS d FROM t ORDER BY d LIMIT 7",
        says: &[("t", "distinct")],
        advised: Some("SELECT id, $d AS d FROM t ORDER BY d LIMIT 7"),
    },
    Case {
        asked: "SELECT id, $d AS d FROM t GROUP BY id, v ORDER BY d LIMIT 7",
        says: &[("t", "distinct")],
        advised: Some("SELECT id, $d AS d FROM t ORDER BY d LIMIT 7"),
    },
    Case {
        asked: "SELECT min($d) AS d FROM t",
        says: &[("t", "aggregate")],
        advised: Some("SELECT min(d) AS d FROM (SELECT $d AS d FROM t ORDER BY d LIMIT 1)"),
    },
    Case {
        asked: "SELECT cat, min($d) AS d FROM t GROUP BY cat ORDER BY d LIMIT 2",
        says: &[("t", "aggregate")],
        advised: None,
    },
    Case {
        asked: "SELECT DISTINCT ON (cat) cat, id FROM t ORDER BY cat, $d",
        says: &[("t", "aggregate")],
        advised: None,
    },
    Case {
        asked: "SELECT id, place FROM (SELECT id, row_number() OVER (ORDER BY $d) AS place FROM t) WHERE place <= 5
            ORDER BY place",
        says: &[("t", "window")],
        advised: Some(
            "SELECT id, row_number() OVER (ORDER BY $d) AS place FROM (SELECT id, v FROM t ORDER BY $d LIMIT 5)
            ORDER BY place",
        ),
    },
    Case {
        asked: "SELECT id FROM (SELECT id, v FROM t UNION ALL SELECT id, v FROM u) ORDER BY $d LIMIT 5 OFFSET 2",
        says: &[("t", "union"), ("u", "union")],
        advised: Some(
            "SELECT id FROM ((SELECT id, v FROM t ORDER BY $d LIMIT 7) UNION ALL (SELECT id, v FROM u ORDER BY $d
            LIMIT 7)) ORDER BY $d LIMIT 5 OFFSET 2",
        ),
    },
    Case {
        asked: "SELECT id FROM (SELECT id, row_number() OVER (ORDER BY $d) AS place FROM t) WHERE place <= 5 ORDER BY id",
        says: &[("t", "window")],
        advised: None,
    },
    Case {
        asked: "SELECT cat FROM t GROUP BY cat HAVING min($d) < 1 ORDER BY cat",
        says: &[("t", "aggregate")],
        advised: None,
    },
    // Only the scan whose column is searched says so, and not that of the other table.
    Case {
        asked: "SELECT t.id FROM t JOIN m ON t.doc = m.doc WHERE m.owner = 3 ORDER BY $d LIMIT 10",
        says: &[("t", "join")],
        advised: Some(
            "SELECT id FROM t WHERE array_has((SELECT array_agg(doc) FROM m WHERE owner = 3), doc) ORDER BY $d LIMIT 10",
        ),
    },
    Case {
        asked: "SELECT t.id FROM t JOIN m ON t.doc = m.doc WHERE m.owner = 99 ORDER BY $d LIMIT 10",
        says: &[("t", "join")],
        advised: Some(
            "SELECT id FROM t WHERE array_has((SELECT array_agg(doc) FROM m WHERE owner = 99), doc) ORDER BY $d LIMIT 10",
        ),
    },
    Case {
        asked: "SELECT id FROM t WHERE doc IN (SELECT doc FROM m WHERE owner = 3) ORDER BY $d LIMIT 10",
        says: &[("t", "in_subquery")],
        advised: Some(
            "SELECT id FROM t WHERE array_has((SELECT array_agg(doc) FROM m WHERE owner = 3), doc) ORDER BY $d LIMIT 10",
        ),
    },
    Case {
        asked: "SELECT id FROM t WHERE doc IN (SELECT id FROM u WHERE id > 5000) ORDER BY $d LIMIT 10",
        says: &[("t", "in_subquery")],
        advised: Some(
            "SELECT id FROM t WHERE array_has((SELECT array_agg(id) FROM u WHERE id > 5000), doc) ORDER BY $d LIMIT 10",
        ),
    },
    Case {
        asked: "SELECT id FROM t WHERE doc NOT IN (SELECT doc FROM m WHERE owner = 4) ORDER BY $d LIMIT 10",
        says: &[("t", "operator_between")],
        advised: None,
    },
    Case {
        asked: "SELECT id FROM (SELECT * FROM t ORDER BY id LIMIT 300) ORDER BY $d LIMIT 10",
        says: &[("t", "operator_between")],
        advised: None,
    },
    Case {
        asked: "SELECT t.id FROM t LEFT JOIN m ON t.doc = m.doc AND m.owner = 3 ORDER BY $d, m.owner LIMIT 10",
        says: &[("t", "operator_between")],
        advised: None,
    },
    Case {
        asked: "SELECT b.id FROM u AS a, t AS b WHERE a.id = 1250 ORDER BY array_distance(a.v, b.v) LIMIT 10",
        says: &[("t", "query_from_join")],
        advised: Some(
            "SELECT b.id FROM t AS b ORDER BY array_distance((SELECT v FROM u WHERE id = 1250), b.v) LIMIT 10",
        ),
    },
    Case {
        asked: "SELECT b.id FROM t AS b CROSS JOIN u AS a WHERE a.id = 1250 ORDER BY array_distance(a.v, b.v) LIMIT 10",
        says: &[("t", "query_from_join")],
        advised: None,
    },
    Case {
        asked: "SELECT q, id FROM (SELECT a.id AS q, b.id, row_number() OVER (PARTITION BY a.id ORDER BY
            array_distance(a.v, b.v)) AS place FROM (SELECT * FROM u WHERE id IN (1100, 1200)) AS a CROSS JOIN
            (SELECT * FROM t WHERE id > (SELECT min(id) + 120 FROM t)) AS b) WHERE place <= 3 ORDER BY q, place",
        says: &[("t", "filter_not_supported")],
        advised: Some(
            "SELECT q, id FROM (SELECT a.id AS q, b.id, row_number() OVER (PARTITION BY a.id ORDER BY
            array_distance(a.v, b.v)) AS place FROM (SELECT * FROM u WHERE id IN (1100, 1200)) AS a CROSS JOIN
            (SELECT * FROM t WHERE id > 120) AS b) WHERE place <= 3 ORDER BY q, place",
        ),
    },
    Case {
        asked: "SELECT q, id FROM (SELECT a.id AS q, b.id, row_number() OVER (PARTITION BY a.id ORDER BY
            array_distance(a.v, b.v)) AS place FROM u AS a CROSS JOIN t AS b WHERE a.id = 1100 AND a.id <> b.id + 1000)
            WHERE place <= 3 ORDER BY q, place",
        says: &[("t", "ranked_pairs")],
        advised: None,
    },
    // A distance that neither orders nor bounds rows is none of ours, and one that is searched says so itself.
    Case {
        asked: "SELECT id, $d FROM t WHERE id = 5",
        says: &[],
        advised: None,
    },
    Case {
        asked: "SELECT id, $d AS d FROM t ORDER BY id LIMIT 3",
        says: &[],
        advised: None,
    },
    Case {
        asked: "SELECT id FROM (SELECT id, $d AS d FROM t ORDER BY d LIMIT 10) WHERE d < 3 ORDER BY id",
        says: &[],
        advised: None,
    },
    Case {
        asked: "SELECT id FROM t WHERE doc > (SELECT min(doc) FROM m) ORDER BY $d LIMIT 3",
        says: &[],
        advised: None,
    },
];

struct Place {
    _directory: TempDir,
    ours: SessionContext,
    plain: SessionContext,
}

impl Place {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path().display().to_string();
        let vectors = |first: usize, shift: f64| {
            format!(
                "SELECT n + {first} AS id, CASE WHEN n % 50 = 1 THEN NULL ELSE n / 10 END AS doc, n % 3 AS cat,
                 CASE WHEN n % 100 = 3 THEN NULL ELSE arrow_cast([n + {shift}, 0.0], 'FixedSizeList(2, Float32)') END
                 AS v FROM (SELECT unnest(range(0, 500)) AS n)"
            )
        };
        let ours = SessionContext::new();
        datafusion_hnsw::register(&ours).expect("the extension registers");
        let plain = SessionContext::new();
        for (name, rows) in [
            ("t", vectors(0, 0.0)),
            ("u", vectors(1000, 0.3)),
            (
                "w",
                format!("SELECT id, array_concat(v, v) AS v FROM ({})", vectors(0, 0.0)),
            ),
            (
                "m",
                "SELECT CASE WHEN n = 7 THEN NULL ELSE n END AS doc, n % 7 AS owner FROM (SELECT
                 unnest(range(0, 50)) AS n)"
                    .to_owned(),
            ),
        ] {
            run(&plain, &format!("COPY ({rows}) TO '{root}/{name}/a.parquet'")).await;
            for ctx in [&ours, &plain] {
                let location = format!("LOCATION '{root}/{name}/'");
                run(
                    ctx,
                    &format!("CREATE EXTERNAL TABLE {name} STORED AS PARQUET {location}"),
                )
                .await;
            }
            if name != "m" {
                run(
                    &ours,
                    &format!("CREATE INDEX ON {name} USING hnsw (v) WITH (metric = 'l2')"),
                )
                .await;
            }
        }
        Self {
            _directory: directory,
            ours,
            plain,
        }
    }
}

async fn run(ctx: &SessionContext, sql: &str) -> Answer {
    let sql = sql.replace("$d", D);
    let run = answer(ctx, &Query::plain(&sql)).await;
    run.unwrap_or_else(|error| panic!("{sql}\n{error}"))
}

/// The lines of the physical plan, without their indentation.
async fn plan(ctx: &SessionContext, sql: &str) -> Vec<String> {
    let explained = run(ctx, &format!("EXPLAIN FORMAT INDENT {sql}")).await;
    let physical = explained.rows.iter().find(|row| row[0] == "physical_plan");
    let lines = physical.expect("there is a physical plan")[1].lines();
    lines.map(|line| line.trim().to_owned()).collect()
}

/// What a plan says of its scans, in the order of the tables' names.
fn says(plan: &[String]) -> Vec<(String, String)> {
    let mut said = vec![];
    for (at, line) in plan.iter().enumerate() {
        let Some(reason) = line.strip_prefix("VectorScanExec: not used, reason=") else {
            continue;
        };
        let scan = plan[at..].iter().find(|line| line.starts_with("DataSourceExec"));
        let scan = scan.expect("a reason stands above a scan");
        let (table, _) = scan.split_once("/a.parquet").expect("the table is in a file");
        let (_, table) = table.rsplit_once('/').expect("the file is in a directory");
        let (code, _) = reason.split_once(": ").expect("a code and a sentence");
        said.push((table.to_owned(), code.to_owned()));
    }
    said.sort();
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_distance_that_is_not_searched_says_why_once_at_its_own_scan() {
    let place = Place::new().await;
    for case in CASES {
        let with_us = plan(&place.ours, case.asked).await;
        let expected = case
            .says
            .iter()
            .map(|&(table, code)| (table.to_owned(), code.to_owned()));
        assert_eq!(
            says(&with_us),
            expected.collect::<Vec<_>>(),
            "{}\n{with_us:#?}",
            case.asked
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reason_changes_nothing_else_in_a_plan() {
    let place = Place::new().await;
    let cases = || CASES.iter().filter(|case| !case.says.is_empty());
    let mut with_reasons = vec![];
    for case in cases() {
        let mut plan = plan(&place.ours, case.asked).await;
        plan.retain(|line| !line.starts_with("VectorScanExec: not used"));
        with_reasons.push(plan);
    }
    assert!(place.ours.remove_optimizer_rule("hnsw_say"));
    for (case, with_reasons) in cases().zip(with_reasons) {
        let without = plan(&place.ours, case.asked).await;
        assert_eq!(contents(&with_reasons), contents(&without), "{}", case.asked);
    }
}

/// What each line of a plan consists of. DataFusion lists columns in another order each time, so the order and the
/// places of columns do not count.
fn contents(plan: &[String]) -> Vec<Vec<char>> {
    let sorted = |line: &String| {
        let mut letters: Vec<char> = line.chars().filter(|c| !c.is_ascii_digit()).collect();
        letters.sort_unstable();
        letters
    };
    plan.iter().map(sorted).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_an_advice_gets_the_same_answer_through_the_index() {
    let place = Place::new().await;
    run(&place.ours, "SET hnsw.ef_search = 1000").await;
    for case in CASES {
        let expected = run(&place.plain, case.asked).await.rows;
        let Some(advised) = case.advised else { continue };
        let found = run(&place.ours, advised).await.rows;
        assert_eq!(run(&place.plain, advised).await.rows, found, "{advised}");
        let cut = case.says[0].1 == "no_limit";
        let expected = if cut { &expected[..7] } else { &expected[..] };
        assert_eq!(found, expected, "{}\n{advised}", case.asked);

        let plan = plan(&place.ours, advised).await;
        assert_eq!(says(&plan), [], "{advised}\n{plan:#?}");
        let searched = plan
            .iter()
            .filter(|line| !line.contains("VectorLookupExec") && line.contains("1 indexed"))
            .count();
        assert_eq!(searched, case.says.len(), "{advised}\n{plan:#?}");
    }
}

#[tokio::test]
async fn with_the_optimizer_off_a_search_says_so() {
    let place = Place::new().await;
    let asked = "SELECT id FROM t WHERE cat = 1 ORDER BY l2_distance(v, [250.1, 0]) LIMIT 3";
    let expected = run(&place.ours, asked).await.rows;
    run(&place.ours, "SET datafusion.optimizer.max_passes = 0").await;
    assert_eq!(
        says(&plan(&place.ours, asked).await),
        [("t".to_owned(), "optimizer_off".to_owned())]
    );
    assert_eq!(run(&place.ours, asked).await.rows, expected);
    run(&place.ours, "SET datafusion.optimizer.max_passes = 1").await;
    assert_eq!(says(&plan(&place.ours, asked).await), []);
}

#[tokio::test]
async fn a_statement_prepared_without_types_is_searched_when_it_is_executed() {
    let place = Place::new().await;
    run(
        &place.ours,
        "PREPARE near AS SELECT id FROM t ORDER BY array_distance(v, $1) LIMIT 3",
    )
    .await;
    let frame = place
        .ours
        .sql("EXECUTE near([250.1, 0.0])")
        .await
        .expect("it is planned");
    let plan = frame.create_physical_plan().await.expect("it is planned");
    let plan = displayable(plan.as_ref()).indent(false).to_string();
    assert!(plan.contains("strategy=index"), "{plan}");
}
