//! Processes that are killed at a random moment leave each sidecar old, new or absent, and no rubbish for long.
//!
//! `HNSW_KILLS` sets how many are killed in each of the six tests: 240 in all, if nobody says.

use std::path::Path;
use std::time::Duration;

use datafusion_hnsw::hnsw::VectorMetric::Cosine;
use datafusion_hnsw::sidecar::{Reason, SidecarStore};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::child::{ROWS, options, place, start};
use crate::sample::{Home, identity, index, meta, names, sidecars, temp};
#[cfg(feature = "datafusion")]
use crate::table::run;

fn kills() -> usize {
    std::env::var("HNSW_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(40)
}

/// Kills workers in this role one after the other, each so many milliseconds after it began at the latest, and looks at
/// what each leaves.
async fn kill_many(role: &str, dir: &Path, within: u64, after: impl AsyncFn()) {
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..kills() {
        let mut child = start(role, dir);
        tokio::time::sleep(Duration::from_micros(random.random_range(0..within * 1000))).await;
        child.kill().expect("ours"); // SIGKILL
        child.wait().expect("ours");
        after().await;
    }
}

/// What a process that starts now finds: the rows of a whole sidecar, or none.
async fn found(dir: &Path, remote: bool) -> Option<usize> {
    let entries = SidecarStore::new(options(dir))
        .list(&[place(dir, remote)])
        .await
        .expect("listed");
    let entry = entries.first()?;
    let sidecar = entry.opened.as_ref().expect("never half a sidecar");
    sidecar.verify().expect("never half a sidecar");
    assert!(!entry.building, "its builder is dead");
    let rows = sidecar.node_count();
    assert!(ROWS.contains(&rows));
    assert_eq!(entry.state(&identity("t.parquet", rows as u64)), Ok(()));
    Some(rows)
}

#[tokio::test]
async fn a_killed_publish_leaves_the_old_sidecar_or_the_new_one() {
    let dir = temp();
    let seen = std::sync::Mutex::new(Vec::new());
    kill_many("publish", dir.path(), 30, async || {
        let rows = found(dir.path(), false).await;
        seen.lock().expect("no panic").push(rows);
    })
    .await;
    let seen = seen.into_inner().expect("no panic");
    let count = |wanted| seen.iter().filter(|rows| **rows == wanted).count();
    println!(
        "absent, small, large: {} {} {}",
        count(None),
        count(Some(ROWS[0])),
        count(Some(ROWS[1]))
    );
    let first = seen.iter().position(Option::is_some).unwrap_or(0);
    assert_eq!(
        seen[first..].iter().filter(|rows| rows.is_none()).count(),
        0,
        "what was published stays"
    );
    // Whoever comes next takes the leftover over.
    let store = SidecarStore::new(options(dir.path()));
    let at = place(dir.path(), false);
    store
        .publish(&at, index(Cosine, 5), meta("v", identity("t.parquet", 5)))
        .await
        .expect("published");
    assert_eq!(names(sidecars(dir.path())), ["t.parquet.v.cosine.hnsw"]);
}

#[tokio::test]
async fn a_killed_removal_leaves_a_whole_sidecar_or_none() {
    let dir = temp();
    kill_many("publish and remove", dir.path(), 30, async || {
        found(dir.path(), false).await;
    })
    .await;
    let store = SidecarStore::new(options(dir.path()));
    let at = place(dir.path(), false);
    drop(store.begin(&at, "v", Cosine).await.expect("nobody else")); // there may be nothing to remove
    store.remove(&at, "v", Cosine).await.expect("removed");
    assert!(
        !sidecars(dir.path()).exists(),
        "the leftover goes with the sidecar"
    );
    assert_eq!(names(dir.path()), [""; 0]);
}

#[tokio::test]
async fn a_killed_remote_publish_leaves_the_old_sidecar_or_the_new_one() {
    let dir = temp();
    kill_many("remote publish", dir.path(), 30, async || {
        found(dir.path(), true).await;
    })
    .await;
}

#[tokio::test]
async fn a_killed_cache_fill_is_finished_by_the_next() {
    let dir = temp();
    let at = place(dir.path(), true);
    let store = SidecarStore::new(options(dir.path()));
    let rows = ROWS[1] as u64;
    store
        .publish(
            &at,
            index(Cosine, ROWS[1]),
            meta("v", identity("t.parquet", rows)),
        )
        .await
        .expect("published");
    kill_many("remote fill", dir.path(), 30, async || {
        assert_eq!(found(dir.path(), true).await, Some(ROWS[1]));
        let left: Vec<_> = names(dir.path().join("cache/sidecars-1"))
            .into_iter()
            .filter(|name| name.ends_with(".part"))
            .collect();
        assert_eq!(left, [""; 0], "a fill by the same name takes the leftover over");
    })
    .await;
}

#[cfg(feature = "datafusion")]
#[tokio::test]
async fn a_killed_create_index_or_drop_index_leaves_every_query_right() {
    statements_are_killed(crate::table::Table::local(), "sql create and drop").await;
}

#[cfg(feature = "datafusion")]
#[tokio::test]
async fn a_killed_create_index_or_drop_index_in_a_wrapped_store_leaves_every_query_right() {
    statements_are_killed(crate::table::Table::wrapped(), "sql create and drop, wrapped").await;
}

#[cfg(feature = "datafusion")]
async fn statements_are_killed(table: crate::table::Table, role: &str) {
    for file in 0..3 {
        let rows = file * 1000..file * 1000 + 100;
        table
            .put(&format!("{file}.parquet"), crate::table::parquet(rows))
            .await;
    }
    let file = table.path("0.parquet");
    let dir = file.parent().expect("a directory");
    let seen = std::sync::Mutex::new(std::collections::BTreeMap::<String, usize>::new());
    kill_many(role, dir, 150, async || {
        // Compares with DataFusion's own answer.
        let how = table.answers().await;
        let whole = |files: &str| {
            ["indexed", "no_sidecar"]
                .iter()
                .any(|state| files.ends_with(state))
        };
        assert!(how.split(", ").all(whole), "{how}");
        *seen.lock().expect("no panic").entry(how).or_default() += 1;
    })
    .await;
    let seen = seen.into_inner().expect("no panic");
    println!("how the queries were answered: {seen:?}");
    assert!(kills() < 40 || seen.len() > 1, "{seen:?}");
    // What is left behind goes with the next statements.
    run(&table.session().await, crate::sql_roles::CREATE).await;
    assert_eq!(table.answers().await, "3 indexed");
    run(&table.session().await, crate::sql_roles::DROP).await;
    let left: Vec<_> = names(dir)
        .into_iter()
        .filter(|name| !name.ends_with(".parquet"))
        .collect();
    let inside = std::fs::read_dir(sidecars(dir)).map(|_| names(sidecars(dir)));
    assert!(left.is_empty() && inside.is_err(), "{left:?} {inside:?}");
}

#[tokio::test]
async fn half_a_sidecar_under_its_final_name_is_refused_not_used() {
    // What only a file system that lost its writes could leave.
    let home = Home::local();
    let at = (home.place)("t.parquet");
    let store = home.store();
    store
        .publish(&at, index(Cosine, 50), meta("v", identity("t.parquet", 50)))
        .await
        .expect("published");
    let path = at.sidecar_url("v", Cosine);
    let bytes = std::fs::read(&path).expect("published");
    for half in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        let mut left = bytes.clone();
        left.truncate(half);
        std::fs::write(&path, &left).expect("ours");
        let found = store.lookup(&at, "v", Cosine, &identity("t.parquet", 50)).await;
        assert!(
            matches!(found.reason(), Some(Reason::Damaged { .. })),
            "{half}: {found:?}"
        );
    }
}
