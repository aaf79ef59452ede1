//! The whole life of an index through SQL where files change under it: on local disk and in a real S3 server.

use std::time::Duration;

use datafusion::execution::object_store::ObjectStoreUrl;
use object_store::ObjectStoreExt;

use crate::sample::temp;
use crate::server::{Fault, Request, S3};
use crate::table::{Table, parquet, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_in_s3_is_built_used_and_dropped_on_a_bad_network() {
    let server = S3::start();
    let client = server.client();
    let direct = Table::s3(client);
    direct.put("a.parquet", parquet(0..500)).await;
    direct.put("b.parquet", parquet(500..700)).await;
    assert_eq!(direct.answers().await, "2 no_sidecar");
    for fault in [
        Fault::None,
        Fault::Error,
        Fault::Slow,
        Fault::Lost,
        Fault::Truncate,
        Fault::Hang,
    ] {
        // DataFusion's own listing gives up where an answer breaks off; ours and the fetching of sidecars do not.
        let only_ours = matches!(fault, Fault::Truncate | Fault::Hang);
        let plan = move |request: &Request| {
            let concerned = !only_ours || request.target.contains("hnsw");
            if request.number % 4 == 1 && request.method == "GET" && concerned {
                fault
            } else {
                Fault::None
            }
        };
        let (client, log) = server.client_through(Duration::from_secs(1), plan).await;
        let table = Table::s3(client);
        table.create_index().await;
        assert_eq!(table.answers().await, "2 indexed", "{fault:?}");
        assert_eq!(direct.answers().await, "2 indexed", "{fault:?}");
        run(&table.session().await, "DROP INDEX i ON t").await;
        assert_eq!(table.answers().await, "2 no_sidecar", "{fault:?}");
        assert_eq!(direct.answers().await, "2 no_sidecar", "{fault:?}");
        let log = log.lock().expect("no panic");
        assert!(
            log.iter().any(|request| plan(request) == fault),
            "nothing was broken"
        );
    }
    let left: Vec<_> = server
        .files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "hnsw"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_on_disk_is_answered_exactly_with_the_reason() {
    a_changed_file_is_answered_exactly_with_the_reason(&Table::local(), "content").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_in_a_wrapped_store_on_disk_is_answered_exactly_with_the_reason() {
    a_changed_file_is_answered_exactly_with_the_reason(&Table::wrapped(), "content").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_in_s3_is_answered_exactly_with_the_reason() {
    let server = S3::start();
    a_changed_file_is_answered_exactly_with_the_reason(&Table::s3(server.client()), "etag").await;
}

/// `replaced` is the reason when size and footer stay the same.
async fn a_changed_file_is_answered_exactly_with_the_reason(table: &Table, replaced: &str) {
    let original = parquet(0..300);
    table.put("a.parquet", original.clone()).await;
    table.create_index().await;
    assert_eq!(table.answers().await, "1 indexed");

    // Rows reordered: the same size and the same footer.
    let reordered = parquet((0..300).rev());
    assert_eq!(reordered.len(), original.len());
    assert_eq!(
        reordered[reordered.len() - 200..],
        original[original.len() - 200..]
    );
    table.put("a.parquet", reordered).await;
    assert_eq!(table.answers().await, format!("1 stale:{replaced}"));
    // Other rows of the same number.
    table.put("a.parquet", parquet(1000..1300)).await;
    assert_eq!(table.answers().await, format!("1 stale:{replaced}"));
    // Appended.
    table.put("a.parquet", parquet(0..301)).await;
    assert_eq!(table.answers().await, "1 stale:size");
    // Built again.
    table.create_index().await;
    assert_eq!(table.answers().await, "1 indexed");
    // Deleted, and a new one put in its place.
    table.store.delete(&table.place("a.parquet")).await.expect("ours");
    table.put("a.parquet", parquet(7..308)).await;
    assert_eq!(table.answers().await, format!("1 stale:{replaced}"));
    table.create_index().await;
    assert_eq!(table.answers().await, "1 indexed");

    // What happens to the sidecar.
    let place = table.sidecar("a.parquet.v.l2.hnsw");
    let good = table
        .store
        .get(&place)
        .await
        .expect("there")
        .bytes()
        .await
        .expect("there");
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 4] = [
        ("damaged", |bytes| bytes.truncate(bytes.len() / 2)),
        ("damaged", |bytes| bytes[20] ^= 0xFF),
        ("damaged", Vec::clear),
        ("newer_format", |bytes| bytes[12] = 77),
    ];
    for (expected, change) in changes {
        let mut bytes = good.to_vec();
        change(&mut bytes);
        table.store.put(&place, bytes.into()).await.expect("room");
        let answer = table.answers().await;
        assert!(answer.starts_with(&format!("1 {expected}")), "{answer}");
    }
    table.store.put(&place, good.clone().into()).await.expect("room");
    assert_eq!(table.answers().await, "1 indexed");
    // Of another file: this one's bytes are not those.
    table.put("b.parquet", parquet(2000..2050)).await;
    let theirs = table.sidecar("b.parquet.v.l2.hnsw");
    table.store.put(&theirs, good.into()).await.expect("room");
    assert_eq!(table.answers().await, "1 indexed, 1 stale:size");
    // Removed behind our back.
    table.store.delete(&place).await.expect("ours");
    assert_eq!(table.answers().await, "1 no_sidecar, 1 stale:size");
    // For another metric, under this one's name.
    let ctx = table.session().await;
    run(
        &ctx,
        "SELECT * FROM hnsw_create_index('t', 'v', 'metric=cosine, name=c')",
    )
    .await;
    let other = table.store.get(&table.sidecar("a.parquet.v.cosine.hnsw")).await;
    let other = other.expect("there").bytes().await.expect("there");
    table.store.put(&place, other.into()).await.expect("room");
    assert_eq!(table.answers().await, "1 metric_mismatch, 1 stale:size");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_on_disk_may_have_their_sidecars_in_another_store() {
    let (server, table) = (S3::start(), Table::local());
    table.put("a.parquet", parquet(0..50)).await;
    table.put("b.parquet", parquet(50..120)).await;
    let root = ObjectStoreUrl::parse("s3://bucket").expect("a URL");
    let session = async || {
        let ctx = table.session().await;
        ctx.register_object_store(root.as_ref(), server.client());
        run(&ctx, "SET hnsw.sidecar_dir = 's3://bucket/indexes'").await;
        ctx
    };
    let near = "SELECT id FROM t ORDER BY array_distance(v, [1,0,0,0,0,0,0,0]) LIMIT 3";
    run(
        &session().await,
        "CREATE INDEX i ON t USING hnsw (v) WITH (metric = 'l2')",
    )
    .await;
    let ctx = session().await;
    let plan = run(&ctx, &format!("EXPLAIN {near}")).await;
    assert!(plan.contains("files=[2 indexed]"), "{plan}");
    let indexed = run(&ctx, near).await;
    run(&ctx, "SET hnsw.mode = 'off'").await;
    assert_eq!(indexed, run(&ctx, near).await);
    let sidecars = || {
        let files = server.files().into_iter();
        let names = files.filter(|path| path.extension().is_some_and(|ending| ending == "hnsw"));
        names
            .filter(|path| path.to_string_lossy().contains("/bucket/indexes/file/"))
            .count()
    };
    assert_eq!(sidecars(), 2, "{:?}", server.files());
    assert!(!table.path("../.t.hnsw").exists());
    // A file that changes is stale there, too.
    table.put("b.parquet", parquet(50..121)).await;
    let ctx = session().await;
    let plan = run(&ctx, &format!("EXPLAIN {near}")).await;
    assert!(plan.contains("files=[1 indexed, 1 stale:size]"), "{plan}");
    run(&ctx, "SELECT * FROM hnsw_refresh('t')").await;
    let plan = run(&ctx, &format!("EXPLAIN {near}")).await;
    assert!(plan.contains("files=[2 indexed]"), "{plan}");
    run(&ctx, "DROP INDEX i ON t").await;
    assert_eq!(sidecars(), 0);
}

#[cfg(unix)]
#[test]
fn data_that_may_only_be_read_is_indexed_under_another_directory() {
    use std::os::unix::fs::PermissionsExt;
    let dir = temp();
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
    };
    let (data, indexes) = (dir.path().join("t"), dir.path().join("indexes"));
    for (path, rights) in [(&data, 0o755), (&indexes, 0o777)] {
        std::fs::create_dir(path).expect("room");
        mode(path, rights);
    }
    std::fs::write(data.join("a.parquet"), parquet(0..50)).expect("room");
    mode(&data, 0o555);
    mode(dir.path(), 0o755);
    let mut child = crate::child::command("sql sidecar dir", dir.path());
    crate::rights::as_nobody_if_we_are_root(&mut child, dir.path());
    let output = child.output().expect("this program starts");
    mode(&data, 0o755);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains("beside: ") && text.contains("hnsw.sidecar_dir"),
        "{text}"
    );
    assert!(
        text.contains("files=[1 indexed]") && text.contains("fresh"),
        "{text}"
    );
    assert_eq!(crate::sample::names(&data), ["a.parquet"]);
}
