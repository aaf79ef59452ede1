//! Sidecars whose Parquet file is gone are told of, and go with the next refresh or with their index.

use std::sync::Arc;

use datafusion::prelude::SessionContext;
use datafusion_hnsw::hnsw::VectorMetric::Cosine;
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};

use crate::conformance::publish;
use crate::sample::{Home, names, sidecars, temp};
use crate::sql_roles::{CREATE, DROP};
use crate::table::{Table, parquet, run};

const LISTED: &str = "SELECT index_name, files, files_fresh, state FROM hnsw_indexes() ORDER BY state";

#[tokio::test]
async fn a_sidecar_is_an_orphan_only_if_its_file_is_gone() {
    let store = Arc::new(InMemory::new());
    let remote = Home::remote("memory", "s3://bucket", Arc::clone(&store) as _);
    for home in [Home::local(), remote] {
        let [one, other, gone] =
            ["one.parquet", "other.parquet", "gone.parquet"].map(|name| (home.place)(name));
        for file in [&one, &other] {
            match &file.local {
                Some(path) => std::fs::write(path, "rows").expect("room"),
                None => drop(
                    store
                        .put(&file.parquet, PutPayload::from("rows"))
                        .await
                        .expect("room"),
                ),
            }
        }
        for file in [&one, &other, &gone] {
            publish(&home.store(), file, Cosine, 3).await;
        }
        let entries = home.store().list(&[one]).await.expect("listed");
        let seen: Vec<_> = entries
            .iter()
            .map(|entry| {
                let orphan_of = entry.orphan_of.as_ref().and_then(|of| of.parquet.filename());
                (entry.name.parquet.as_str(), entry.location, orphan_of)
            })
            .collect();
        let expected = [
            ("gone.parquet", None, Some("gone.parquet")),
            ("one.parquet", Some(0), None),
            ("other.parquet", None, None),
        ];
        assert_eq!(seen, expected, "{}", home.name);
        let orphan = entries[0].orphan_of.as_ref().expect("just seen");
        assert!(
            home.store()
                .remove_named(orphan, &entries[0].name)
                .await
                .expect("removed")
        );
        assert_eq!(home.store().list(&[gone]).await.expect("listed").len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_are_listed_and_removed_by_refresh_and_by_drop_index() {
    let server = crate::server::S3::start();
    for table in [Table::local(), Table::s3(server.client())] {
        for file in ["a", "b", "c"] {
            table.put(&format!("{file}.parquet"), parquet(0..50)).await;
        }
        run(&table.session().await, CREATE).await;
        let delete = async |file: &str| table.store.delete(&table.place(file)).await.expect("ours");
        let there = async |file: &str| {
            let sidecar = table.sidecar(&format!("{file}.parquet.v.l2.hnsw"));
            table.store.head(&sidecar).await.is_ok()
        };
        delete("b.parquet").await;
        let listed = run(&table.session().await, LISTED).await;
        assert!(
            listed.contains("| i          | 2     | 2           | fresh    |"),
            "{listed}"
        );
        assert!(
            listed.contains("| i          | 0     | 0           | orphaned |"),
            "{listed}"
        );
        let reasons = run(&table.session().await, "SELECT reason FROM hnsw_indexes()").await;
        assert!(
            reasons.contains("b.parquet.v.l2.hnsw is of a Parquet file that is gone"),
            "{reasons}"
        );
        run(&table.session().await, "SELECT * FROM hnsw_refresh('t')").await;
        assert!(!there("b").await && there("a").await && there("c").await);
        let listed = run(&table.session().await, LISTED).await;
        assert!(!listed.contains("orphaned"), "{listed}");

        delete("c.parquet").await;
        run(&table.session().await, DROP).await;
        assert!(!there("a").await && !there("c").await);
        assert_eq!(table.answers().await, "1 no_sidecar");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sidecars_of_a_partition_that_is_gone_go_too() {
    let temp = temp();
    let dir = temp.path().join("docs");
    for partition in 0..3 {
        let into = dir.join(format!("p={partition}"));
        std::fs::create_dir_all(&into).expect("room");
        std::fs::write(
            into.join("f.parquet"),
            parquet(partition * 10..partition * 10 + 10),
        )
        .expect("room");
    }
    let session = async || {
        let ctx = SessionContext::new();
        datafusion_hnsw::register(&ctx).expect("registered");
        let location = dir.display();
        let sql =
            format!("CREATE EXTERNAL TABLE t STORED AS PARQUET PARTITIONED BY (p) LOCATION '{location}/'");
        run(&ctx, &sql).await;
        ctx
    };
    run(&session().await, CREATE).await;
    assert_eq!(names(sidecars(&dir)), ["p=0", "p=1", "p=2"]);
    std::fs::remove_dir_all(dir.join("p=1")).expect("ours");
    let listed = run(&session().await, LISTED).await;
    assert!(listed.contains("orphaned"), "{listed}");
    run(&session().await, "SELECT * FROM hnsw_refresh('t')").await;
    assert_eq!(names(sidecars(&dir)), ["p=0", "p=2"]);
    // A table of one partition does not take the others for gone.
    let ctx = SessionContext::new();
    datafusion_hnsw::register(&ctx).expect("registered");
    let one = format!(
        "CREATE EXTERNAL TABLE one STORED AS PARQUET LOCATION '{}/p=0/'",
        dir.display()
    );
    run(&ctx, &one).await;
    let listed = run(&ctx, LISTED).await;
    assert!(
        listed.contains("fresh") && !listed.contains("orphaned"),
        "{listed}"
    );
    run(&session().await, DROP).await;
    assert!(!sidecars(&dir).exists());
}
