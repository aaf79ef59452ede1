//! `vector_join` gives the pairs that DataFusion's own operators give.

use std::collections::HashSet;

use datafusion::prelude::SessionContext;
use datafusion_hnsw::HnswSessionExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::compare::{Answer, answer};
use crate::query::Query;
use crate::world::World;

const WORLDS: u64 = 25;

async fn rows(ctx: &SessionContext, sql: &str) -> Result<Answer, String> {
    answer(ctx, &Query::plain(sql)).await
}

async fn set(ctx: &SessionContext, statement: &str) {
    ctx.hnsw_sql(statement).await.expect(statement);
}

/// Of each row, what must agree: the left row and the distance.
fn keys(answer: &Answer) -> Vec<[String; 2]> {
    let mut keys: Vec<_> = answer
        .rows
        .iter()
        .map(|row| [row[0].clone(), row[2].clone()])
        .collect();
    keys.sort();
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_gives_each_row_its_nearest_with_and_without_the_index() {
    let mut compared = 0;
    for seed in 0..WORLDS {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = World::generate(&mut rng).await;
        let ctx = world.ours().await;
        set(&ctx, "SET hnsw.ef_search = 1000000").await;
        for metric in ["cosine", "l2", "ip"] {
            let k = [1, 3, 10, 1000][rng.random_range(0..4)];
            let join = |k: usize| format!("vector_join('t', 'v', 't', 'v', {k}, 'metric={metric}')");
            let filter = ["", " WHERE id < 20", " WHERE num = 3", " WHERE t_num = 3"][rng.random_range(0..4)];
            let sql = format!("SELECT id, t_id, _distance FROM {}{filter}", join(k));
            set(&ctx, "SET hnsw.mode = 'off'").await;
            let expected = rows(&ctx, &sql).await;
            let pairs = rows(
                &ctx,
                &format!("SELECT id, t_id, _distance FROM {}", join(1_000_000)),
            )
            .await;
            for mode in ["exact", "auto"] {
                set(&ctx, &format!("SET hnsw.mode = '{mode}'")).await;
                let found = rows(&ctx, &sql).await;
                let context = format!("seed {seed}, mode {mode}: {sql}\n{}", world.description);
                let (expected, found, pairs) = match (&expected, found, &pairs) {
                    (Ok(expected), Ok(found), Ok(pairs)) => (expected, found, pairs),
                    (Err(_), Err(_), _) => continue,
                    (expected, found, _) => panic!("{context}\n{expected:?}\n{found:?}"),
                };
                assert_eq!(found.schema, expected.schema, "{context}");
                // A filter on the right row sees only the neighbors that were chosen among equals.
                if !filter.contains("t_num") {
                    assert_eq!(keys(&found), keys(expected), "{context}");
                }
                let pairs: HashSet<_> = pairs.rows.iter().collect();
                assert!(found.rows.iter().all(|row| pairs.contains(row)), "{context}");
                let distinct: HashSet<_> = found.rows.iter().collect();
                assert_eq!(distinct.len(), found.rows.len(), "{context}");
                compared += 1;
            }
        }
    }
    assert!(compared > WORLDS * 3, "only {compared} joins were compared");
}

#[tokio::test]
async fn a_join_has_the_columns_of_both_tables_and_says_how_it_runs() {
    let mut rng = StdRng::seed_from_u64(3);
    let world = World::generate(&mut rng).await;
    let ctx = world.ours().await;
    set(
        &ctx,
        "CREATE TABLE q AS SELECT id AS name, v AS wanted FROM t WHERE id < 3",
    )
    .await;
    let sql = "SELECT * FROM vector_join('q', 'wanted', 't', 'v', 2, 'metric=l2') ORDER BY name, _distance";
    let answer = rows(&ctx, sql).await.expect("the join runs");
    let names: Vec<_> = answer
        .schema
        .split_whitespace()
        .filter_map(|word| word.strip_suffix(':'))
        .collect();
    for name in [
        "name",
        "wanted",
        "id",
        "num",
        "cat",
        "flag",
        "v",
        "w",
        "_distance",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let plan = rows(&ctx, &format!("EXPLAIN {sql}"))
        .await
        .expect("it is explained");
    assert!(
        format!("{:?}", plan.rows).contains("VectorJoinExec: column=v"),
        "{:?}",
        plan.rows
    );
    let few = rows(
        &ctx,
        "SELECT count(*) FROM vector_join('q', 'wanted', 't', 'v', 0)",
    )
    .await;
    assert_eq!(few.expect("k may be 0").rows, [["0"]]);
}

#[tokio::test]
async fn a_join_says_what_is_wrong_with_its_arguments() {
    let mut rng = StdRng::seed_from_u64(3);
    let world = World::generate(&mut rng).await;
    let ctx = world.ours().await;
    for (arguments, part) in [
        (
            "'t', 'v', 't', 'v'",
            "vector_join takes a table and its vector column, twice",
        ),
        ("'nothing', 'v', 't', 'v', 3", "nothing"),
        ("'t', 'v', 'u', 'v', 3", "u is not a table of Parquet files"),
        ("'t', 'nothing', 't', 'v', 3", "t has no column nothing"),
        (
            "'t', 'num', 't', 'v', 3",
            "column num of t holds no vectors but Int32",
        ),
        ("'t', 'v', 't', 'v', -1", "k must be a whole number"),
        (
            "'t', 'v', 't', 'v', 3, 'm=4'",
            "there is no option 'm'; the options are metric",
        ),
    ] {
        let error = rows(&ctx, &format!("SELECT * FROM vector_join({arguments})")).await;
        let error = error.expect_err(arguments);
        assert!(error.contains(part), "{arguments}: {error}");
    }
}
