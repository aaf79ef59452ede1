use datafusion::common::config::Dialect;

use super::*;

fn desugared(sql: &str) -> Option<String> {
    desugar(sql, &SqlParserOptions::default()).expect(sql)
}

fn refusal(sql: &str) -> String {
    desugar(sql, &SqlParserOptions::default())
        .expect_err(sql)
        .strip_backtrace()
}

#[test]
fn create_index_becomes_a_call() {
    for (sql, call) in [
        ("CREATE INDEX ON t USING hnsw (embedding)", "'t', 'embedding', ''"),
        (
            "create index if not exists Docs_Idx on Docs using HNSW (Embedding);",
            "'docs', 'embedding', 'name=docs_idx, if_not_exists=true'",
        ),
        (
            "CREATE INDEX i ON t USING hnsw (v) WITH (metric = 'cosine', m = 16, ef_construction = 200, seed = 42)",
            "'t', 'v', 'metric=cosine, m=16, ef_construction=200, seed=42, name=i'",
        ),
        (
            "CREATE INDEX ON t USING hnsw (v vector_l2_ops) WITH (M = 8, stored = 'F16', threads = 2)",
            "'t', 'v', 'metric=l2, m=8, stored=f16, threads=2'",
        ),
        (
            "CREATE INDEX ON t USING hnsw (v vector_ip_ops)",
            "'t', 'v', 'metric=ip'",
        ),
        (
            "CREATE INDEX ON t USING hnsw (v halfvec_cosine_ops)",
            "'t', 'v', 'metric=cosine'",
        ),
        (
            "CREATE INDEX ON t USING hnsw (v vector_cosine_ops) WITH (metric = cosine)",
            "'t', 'v', 'metric=cosine'",
        ),
        (
            "CREATE INDEX ON t USING HNSW (v) WITH (metric = 'l2sq')",
            "'t', 'v', 'metric=l2'",
        ),
        (
            "CREATE INDEX ON t USING hnsw (v) WITH (metric = DotProduct)",
            "'t', 'v', 'metric=ip'",
        ),
        (
            "CREATE INDEX IF NOT EXISTS ON t USING hnsw (v) WITH (metric = 'l2')",
            "'t', 'v', 'metric=l2, if_not_exists=true'",
        ),
        (
            "; create index if not /* ON */ exists on s.\"T\" using hnsw (v);",
            r#"'s."T"', 'v', 'if_not_exists=true'"#,
        ),
        (
            "CREATE INDEX IF NOT EXISTS on ON t USING hnsw (v)",
            "'t', 'v', 'name=on, if_not_exists=true'",
        ),
        (
            "CREATE INDEX CONCURRENTLY i ON t USING hnsw (v)",
            "'t', 'v', 'name=i'",
        ),
        ("CREATE INDEX i USING hnsw ON t (v)", "'t', 'v', 'name=i'"),
        ("CREATE INDEX i ON t (v) USING hnsw", "'t', 'v', 'name=i'"),
        (
            r#"CREATE INDEX "My ""Idx"", 1" ON cat."S".t2 USING hnsw ("It's")"#,
            r#"'cat."S".t2', 'It''s', 'name="My ""Idx"", 1"'"#,
        ),
        (
            "-- first\n/* then */ ; CREATE INDEX ON t USING hnsw (v) ; ;",
            "'t', 'v', ''",
        ),
    ] {
        assert_eq!(
            desugared(sql),
            Some(format!("SELECT * FROM hnsw_create_index({call})")),
            "{sql}"
        );
    }
}

#[test]
fn drop_index_becomes_a_call() {
    for (sql, call) in [
        ("DROP INDEX i", "'i'"),
        ("DROP INDEX I ON T", "'i', 't'"),
        ("DROP INDEX IF EXISTS i", "'i', 'if_exists=true'"),
        (
            r#"drop index if exists "I" on s."T" ;"#,
            r#"'I', 's."T"', 'if_exists=true'"#,
        ),
        ("DROP INDEX i CASCADE", "'i'"),
    ] {
        assert_eq!(
            desugared(sql),
            Some(format!("SELECT * FROM hnsw_drop_index({call})")),
            "{sql}"
        );
    }
}

#[test]
fn a_call_that_was_made_reads_as_options() {
    let call = desugared(r#"CREATE INDEX "a, 'b' = ""c""" ON t USING hnsw (v) WITH (m = 5)"#).expect("ours");
    let text = call
        .split_once("'v', '")
        .expect("the options are last")
        .1
        .strip_suffix("')")
        .expect("and close");
    let options =
        OptionList::parse(&text.replace("''", "'"), "f", &[Key::M, Key::Name]).expect("they are read");
    assert_eq!(options.name.as_deref(), Some(r#"a, 'b' = "c""#));
    assert_eq!(options.m, Some(5));
}

#[test]
fn other_statements_are_not_ours() {
    for sql in [
        "",
        "SELECT 1",
        "SELECT 'CREATE INDEX ON t USING hnsw (v)'",
        "CREATE TABLE index (x INT)",
        "CREATE INDEX i ON t (v)",
        "CREATE INDEX i ON t USING btree (v)",
        "CREATE INDEX i ON t USING ivfflat (v)",
        "CREATE INDEX i ON t USING hnsw v",
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 'x'",
        "DROP TABLE t",
        "DROP VIEW IF EXISTS v",
        "CREATE TABLE a AS SELECT 1; DROP TABLE a",
        "EXPLAIN SELECT 1",
        "/* never closed",
        "-- only this",
    ] {
        assert_eq!(desugared(sql), None, "{sql}");
    }
}

#[test]
fn refusals_say_what_to_do() {
    for (sql, part) in [
        (
            "CREATE UNIQUE INDEX i ON t USING hnsw (v)",
            "cannot be UNIQUE; leave the word out",
        ),
        (
            "CREATE INDEX i ON t USING hnsw (v, w)",
            "one column, not 2; create an index for each",
        ),
        (
            "CREATE INDEX i ON t USING hnsw (v) WHERE x > 1",
            "leave WHERE out",
        ),
        (
            "CREATE INDEX i ON t USING hnsw (v) INCLUDE (x)",
            "leave INCLUDE out",
        ),
        (
            "CREATE INDEX i ON t USING hnsw (v) NULLS NOT DISTINCT",
            "leave NULLS [NOT] DISTINCT out",
        ),
        ("CREATE INDEX i ON t USING hnsw (v) COMMENT 'x'", "leave COMMENT"),
        (
            "CREATE INDEX i ON t USING hnsw (v DESC)",
            "leave the order of column v out",
        ),
        (
            "CREATE INDEX i ON t USING hnsw (v NULLS FIRST)",
            "leave the order of column v out",
        ),
        (
            "CREATE INDEX i ON t USING hnsw (v + 1)",
            "not the expression v + 1",
        ),
        ("CREATE INDEX i ON t USING hnsw (t.v)", "not the expression t.v"),
        (
            "CREATE INDEX i ON t USING hnsw (v vector_l1_ops)",
            "there is no operator class vector_l1_ops; use one of vector_cosine_ops",
        ),
        (
            "CREATE INDEX i ON t USING hnsw (v vector_l2_ops) WITH (metric = 'cosine')",
            "the operator class means metric = 'l2' but WITH says 'cosine'; keep one",
        ),
        (
            "CREATE INDEX i ON t USING hnsw (v) WITH (lists = 100)",
            "there is no option 'lists'; the options are metric (",
        ),
        (
            "CREATE INDEX i ON t USING hnsw (v) WITH (name = 'x')",
            "there is no option 'name'",
        ),
        (
            "CREATE INDEX i ON t USING hnsw (v) WITH (m = 0)",
            "m = 0 is out of range; m is a whole number from 2 to 128",
        ),
        (
            "CREATE INDEX i ON t USING hnsw (v) WITH (m = -3)",
            "m = -3 is out of range",
        ),
        (
            "CREATE INDEX i ON t USING hnsw (v) WITH (m = 2 + 2)",
            "expected WITH (key = value, ...)",
        ),
        (
            "CREATE INDEX i ON t USING hnsw (v) WITH (m)",
            "expected WITH (key = value, ...)",
        ),
        (
            "CREATE INDEX i ON t USING hnsw (v) WITH (m = 4, m = 5)",
            "option m is given twice",
        ),
        (
            "CREATE INDEX i ON t USING hnsw (v) WITH (metric = 'foo')",
            "there is no metric 'foo'; metric is cosine or l2",
        ),
        (
            "CREATE INDEX s.i ON t USING hnsw (v)",
            "an index has a plain name, not s.i; say ON <table>",
        ),
        ("DROP INDEX i, j", "drop one index at a time, not 2"),
        ("DROP INDEX s.i", "an index has a plain name"),
        (
            "CREATE INDEX ON t USING hnsw (v); SELECT 1",
            "found 2 statements in one string; run them one by one",
        ),
        ("DROP TABLE t; DROP INDEX i", "found 2 statements in one string"),
    ] {
        assert!(refusal(sql).contains(part), "{sql}: {}", refusal(sql));
    }
}

#[test]
fn every_dialect_takes_the_whole_syntax() {
    for info in Dialect::metadata() {
        let options = SqlParserOptions {
            dialect: info.dialect,
            ..SqlParserOptions::default()
        };
        let sql = "CREATE INDEX i ON t USING hnsw (v vector_ip_ops) WITH (m = 4)";
        let call = desugar(sql, &options).expect("it is read").expect("it is ours");
        assert_eq!(
            call,
            "SELECT * FROM hnsw_create_index('t', 'v', 'metric=ip, m=4, name=i')"
        );
        let call = desugar("DROP INDEX i ON t", &options)
            .expect("it is read")
            .expect("it is ours");
        assert_eq!(call, "SELECT * FROM hnsw_drop_index('i', 't')");
    }
    let options = SqlParserOptions {
        dialect: Dialect::MySQL,
        ..SqlParserOptions::default()
    };
    let call = desugar("CREATE INDEX `I x` ON `T` USING hnsw (`V`)", &options).expect("it is read");
    assert_eq!(
        call.expect("it is ours"),
        r#"SELECT * FROM hnsw_create_index('"T"', 'V', 'name="I x"')"#
    );
}

#[test]
fn names_keep_their_case_when_the_session_says_so() {
    let options = SqlParserOptions {
        enable_ident_normalization: false,
        ..SqlParserOptions::default()
    };
    let call = desugar("CREATE INDEX Idx ON T USING hnsw (V)", &options).expect("it is read");
    assert_eq!(
        call.expect("it is ours"),
        r#"SELECT * FROM hnsw_create_index('"T"', 'V', 'name=Idx')"#
    );
}

#[tokio::test]
async fn other_statements_run_as_datafusion_runs_them() {
    let ctx = SessionContext::new();
    ctx.hnsw_sql("CREATE TABLE t AS SELECT 1 AS x")
        .await
        .expect("the table is created at once");
    ctx.hnsw_sql("INSERT INTO t VALUES (2)")
        .await
        .expect("an insert is planned");
    let rows = ctx
        .hnsw_sql("SELECT * FROM t")
        .await
        .expect("planned")
        .count()
        .await
        .expect("counted");
    assert_eq!(rows, 1, "the insert was never collected");
    let plain = ctx.sql("SELEC 1").await.expect_err("no SQL").to_string();
    assert_eq!(
        ctx.hnsw_sql("SELEC 1").await.expect_err("no SQL").to_string(),
        plain
    );
    let call = ctx
        .hnsw_sql("DROP INDEX i")
        .await
        .expect_err("not registered")
        .to_string();
    assert!(call.contains("hnsw_drop_index"), "{call}");
}
