//! Sidecars on the local file system: rights, full disks, hostile bytes, budgets, and what is told.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use datafusion_hnsw::hnsw::VectorMetric::{Cosine, Euclidean};
use datafusion_hnsw::sidecar::{Reason, SidecarStore, StoreError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::child::{ROWS, command};
use crate::conformance::{code, look, publish};
use crate::sample::{Home, identity, index, meta, names, temp};

/// Publishes the old sidecar, then lets a child try to replace it under the given conditions.
async fn try_to_replace(dir: &Path, conditions: impl FnOnce(&mut Command)) -> String {
    let at = datafusion_hnsw::sidecar::Location::local(dir.join("t.parquet")).expect("a plain path");
    let store = SidecarStore::new(crate::child::options(dir));
    let old = meta("v", identity("t.parquet", ROWS[0] as u64));
    store
        .publish(&at, index(Cosine, ROWS[0]), old)
        .await
        .expect("published");
    let mut child = command("try", dir);
    conditions(&mut child);
    let output = child.output().expect("this program starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// `program` with the arguments and the environment of `child`.
fn with_the_same_words(mut program: Command, child: &Command) -> Command {
    program.args(child.get_args());
    for (name, value) in child.get_envs() {
        program.env(name, value.unwrap_or_default());
    }
    program
}

/// Rights mean nothing to root, so then the child is somebody else, and runs a copy of this program:
/// the program itself may lie below a directory that only root enters.
#[cfg(unix)]
pub fn as_nobody_if_we_are_root(child: &mut Command, dir: &Path) -> bool {
    use std::os::unix::{fs::MetadataExt, process::CommandExt};
    let root = dir.metadata().expect("ours").uid() == 0;
    if root {
        let program = dir.join("program");
        std::fs::copy(child.get_program(), &program).expect("room for a copy");
        *child = with_the_same_words(Command::new(program), child);
        child.uid(65_534);
    }
    root
}

#[cfg(unix)]
#[tokio::test]
async fn a_directory_that_cannot_be_written_is_told_and_the_old_sidecar_stays() {
    use std::os::unix::fs::PermissionsExt;
    let dir = temp();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("ours");
    let text = try_to_replace(dir.path(), |child| {
        if !as_nobody_if_we_are_root(child, dir.path()) {
            let locked = std::fs::Permissions::from_mode(0o555);
            std::fs::set_permissions(dir.path().join("_hnsw"), locked).expect("ours");
        }
    })
    .await;
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path().join("_hnsw"), open).expect("ours");
    assert!(
        text.contains("outcome denied") && text.contains("hnsw.sidecar_dir"),
        "{text}"
    );
    assert!(
        text.contains("found fresh") && text.contains("removed no permission"),
        "{text}"
    );
    assert_eq!(names(dir.path().join("_hnsw")), ["t.parquet.v.cosine.hnsw"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_full_disk_is_told_and_the_old_sidecar_stays() {
    let dir = temp();
    // A limit on the size of files stands in for a disk: the write fails in its middle.
    let text = try_to_replace(dir.path(), |child| {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\""])
            .arg(child.get_program());
        *child = with_the_same_words(shell, child);
    })
    .await;
    assert!(
        text.contains("outcome no space") && text.contains("found fresh"),
        "{text}"
    );
    assert!(text.contains("removed true"), "{text}");
    assert_eq!(names(dir.path()), [""; 0]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_file_system_is_told_and_the_old_sidecar_stays() {
    let dir = temp();
    // A file system of 40 KiB in a mount namespace of the child's own; where that is not allowed, the test above
    // must do.
    let script =
        "mount -t tmpfs -o size=40k none \"$HNSW_STORE_DIR\" 2>/dev/null || { echo not allowed; exit 0; }
        mkdir \"$HNSW_STORE_DIR\"/_hnsw && cp \"$1\" \"$HNSW_STORE_DIR\"/_hnsw/ && shift && exec \"$0\" \"$@\"";
    let spare = temp();
    let text = try_to_replace(dir.path(), |child| {
        let there = dir.path().join("_hnsw/t.parquet.v.cosine.hnsw");
        let copy = spare.path().join("t.parquet.v.cosine.hnsw");
        std::fs::copy(there, &copy).expect("room");
        let mut limited = Command::new("unshare");
        limited
            .args(["-rm", "sh", "-c", script])
            .arg(child.get_program())
            .arg(copy)
            .args(child.get_args());
        for (name, value) in child.get_envs() {
            limited.env(name, value.unwrap_or_default());
        }
        *child = limited;
    });
    let text = text.await;
    if !text.contains("not allowed") {
        assert!(
            text.contains("outcome no space") && text.contains("found fresh"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_missing_directory_is_told() {
    let home = Home::local();
    let at = (home.place)("no/such/t.parquet");
    let store = home.store();
    assert_eq!(code(&look(&store, &at, Cosine, 3).await), "no_sidecar");
    assert!(store.begin(&at, "v", Cosine).await.is_err());
    assert!(!store.remove(&at, "v", Cosine).await.expect("nothing to remove"));
    assert!(store.list(&[at]).await.expect("listed").is_empty());
}

#[tokio::test]
async fn a_sidecar_directory_takes_files_of_the_same_name() {
    let (home, elsewhere) = (Home::local(), temp());
    let dir = datafusion_hnsw::sidecar::SidecarDir {
        store: Arc::new(object_store::memory::InMemory::new()),
        store_url: "file:///".to_owned(),
        prefix: Default::default(),
        local: Some(elsewhere.path().to_owned()),
    };
    let place = |name| (home.place)(name).with_sidecar_dir(Some(dir.clone()));
    let (one, two) = (place("p=1/t.parquet"), place("p=2/t.parquet"));
    let store = home.store();
    publish(&store, &one, Cosine, 3).await;
    publish(&store, &two, Cosine, 4).await;
    assert_eq!(code(&look(&store, &one, Cosine, 3).await), "fresh");
    assert_eq!(code(&look(&store, &two, Cosine, 4).await), "fresh");
    assert_eq!(names(elsewhere.path()), ["file"]);
    assert_eq!(store.list(&[one, two]).await.expect("listed").len(), 2);
}

#[tokio::test]
async fn hostile_bytes_are_refused_or_searched_without_harm() {
    let home = Home::local();
    let at = (home.place)("t.parquet");
    let store = home.store();
    publish(&store, &at, Cosine, 40).await;
    let path = at.sidecar_url("v", Cosine);
    let good = std::fs::read(&path).expect("published");
    let searched = async |bytes: &[u8]| {
        // As others replace files: another inode under the same name.
        std::fs::write(format!("{path}.new"), bytes).expect("room");
        std::fs::rename(format!("{path}.new"), &path).expect("ours");
        let found = look(&store, &at, Cosine, 40).await;
        if let Some(sidecar) = found.fresh() {
            let options = datafusion_hnsw::hnsw::SearchOptions::new(5).ef(10);
            let _ = sidecar.search(&[1.0, 2.0, 3.0, 4.0], &options);
        }
        code(&found)
    };
    for length in (0..good.len()).step_by(13) {
        assert!(
            searched(&good[..length]).await.starts_with("damaged:"),
            "cut to {length}"
        );
    }
    let mut codes = std::collections::BTreeMap::new();
    for place in (0..good.len()).step_by(5) {
        let mut bad = good.clone();
        bad[place] ^= 0x55;
        *codes.entry(searched(&bad).await).or_insert(0) += 1;
    }
    println!("{codes:?}");
    let mut newer = good.clone();
    newer[12] = 99;
    assert_eq!(searched(&newer).await, "newer_format");
    assert_eq!(searched(&good).await, "fresh");
}

#[tokio::test]
async fn open_sidecars_stay_within_their_budget_and_hold_no_handles() {
    let home = Home::local();
    let mut options = home.options();
    options.max_open = 10;
    let store = SidecarStore::new(options);
    let handles = || names("/proc/self/fd").len();
    let mut files = Vec::new();
    for number in 0..60 {
        let at = (home.place)(&format!("f{number}.parquet"));
        publish(&store, &at, Cosine, 3).await;
        files.push((at, identity("f", 3)));
    }
    let before = if cfg!(target_os = "linux") { handles() } else { 0 };
    let held = store.lookup_all(&files, "v", Cosine).await;
    assert!(
        held.iter()
            .all(|lookup| lookup.fresh().is_some_and(|sidecar| sidecar.node_count() == 3))
    );
    assert!(store.stats().open_now <= 10);
    if cfg!(target_os = "linux") {
        assert!(
            handles() <= before + 8,
            "other tests open some files of their own"
        );
    }
}

#[tokio::test]
async fn warm_lookups_open_nothing() {
    let home = Home::local();
    let at = (home.place)("t.parquet");
    let store = home.store();
    publish(&store, &at, Cosine, 3).await;
    for _ in 0..100 {
        assert_eq!(code(&look(&store, &at, Cosine, 3).await), "fresh");
    }
    assert_eq!(store.stats().opened, 1);
    assert_eq!(store.stats().lookups, 100);
}

#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Visit for Warnings {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0
            .lock()
            .expect("no panic")
            .push(format!("{}={value:?}", field.name()));
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn a_stale_sidecar_is_warned_of_once_per_file_and_a_missing_one_never() {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let home = Home::local();
    let at = (home.place)("t.parquet");
    let store = home.store();
    assert_eq!(code(&look(&store, &at, Cosine, 3).await), "no_sidecar");
    publish(&store, &at, Cosine, 3).await;
    for _ in 0..5 {
        assert_eq!(code(&look(&store, &at, Cosine, 4).await), "stale:size");
        assert_eq!(code(&look(&store, &at, Euclidean, 4).await), "metric_mismatch");
    }
    let told = warnings.0.lock().expect("no panic").clone();
    assert_eq!(
        told.iter().filter(|field| field.starts_with("message=")).count(),
        1,
        "{told:?}"
    );
    assert!(told.iter().any(|field| field == "code=stale:size"), "{told:?}");
}

#[tokio::test]
async fn two_stores_of_one_cache_directory_fetch_once() {
    let memory = Arc::new(object_store::memory::InMemory::new());
    let home = Home::remote("memory", "s3://bucket", memory);
    let at = (home.place)("t.parquet");
    let writer_cache = temp();
    let mut options = home.options();
    options.cache_dir = Some(writer_cache.path().to_owned());
    publish(&SidecarStore::new(options), &at, Cosine, 2000).await;
    let stores: Vec<_> = (0..8).map(|_| home.store()).collect();
    let mut tasks = Vec::new();
    for store in &stores {
        let (store, at) = (Arc::clone(store), at.clone());
        tasks.push(tokio::spawn(async move {
            code(&look(&store, &at, Cosine, 2000).await)
        }));
    }
    for task in tasks {
        assert_eq!(task.await.expect("no panic"), "fresh");
    }
    assert_eq!(stores.iter().map(|store| store.stats().fetched).sum::<u64>(), 1);
}

#[tokio::test]
async fn a_small_cache_serves_many_sidecars_and_refuses_what_can_never_fit() {
    let home = Home::remote(
        "memory",
        "s3://bucket",
        Arc::new(object_store::memory::InMemory::new()),
    );
    let mut files = Vec::new();
    for number in 0..12 {
        let at = (home.place)(&format!("f{number}.parquet"));
        publish(&home.store(), &at, Cosine, 100).await;
        files.push((at, identity("f", 100)));
    }
    let fresh = home.store().lookup(&files[0].0, "v", Cosine, &files[0].1).await;
    let bytes = fresh.fresh().expect("fresh").bytes();
    let mut options = home.options();
    let cache = temp();
    options.cache_dir = Some(cache.path().to_owned());
    options.cache_size = bytes * 3;
    let store = SidecarStore::new(options.clone());
    for _ in 0..2 {
        for (at, found) in &files {
            let lookup = store.lookup(at, "v", Cosine, found).await;
            assert_eq!(lookup.fresh().expect("fresh").node_count(), 100);
        }
        assert!(names(cache.path().join("sidecars-1")).len() <= 3);
    }
    assert_eq!(store.stats().fetched, 12, "what is mapped needs no copy on disk");
    options.cache_size = bytes - 1;
    let found = SidecarStore::new(options)
        .lookup(&files[0].0, "v", Cosine, &files[0].1)
        .await;
    assert!(matches!(found.reason(), Some(Reason::Cache { .. })), "{found:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_not_a_file_is_no_sidecar() {
    let home = Home::local();
    let store = home.store();
    for (name, make) in [("pipe", "mkfifo"), ("dir", "mkdir")] {
        let at = (home.place)(&format!("{name}.parquet"));
        let parquet = at.local.as_deref().expect("local");
        std::fs::create_dir_all(parquet.with_file_name("_hnsw")).expect("room");
        let made = Command::new(make).arg(at.sidecar_url("v", Cosine)).status();
        assert!(made.is_ok_and(|status| status.success()));
        let looked =
            tokio::time::timeout(std::time::Duration::from_secs(5), look(&store, &at, Cosine, 3)).await;
        assert_eq!(code(&looked.expect("does not wait for a writer")), "damaged:file");
    }
}

#[tokio::test]
async fn leftovers_of_dead_builders_go_with_the_next_build_in_their_directory() {
    let home = Home::local();
    let at = (home.place)("t.parquet");
    let dir = std::path::PathBuf::from(at.sidecar_url("v", Cosine))
        .parent()
        .expect("a directory")
        .to_owned();
    std::fs::create_dir_all(&dir).expect("room");
    for name in [".gone.parquet.v.l2.hnsw.part", ".notes.part", "x.hnsw.part"] {
        std::fs::write(dir.join(name), "half").expect("room");
    }
    let store = home.store();
    let live = home
        .store()
        .begin(&at, "v", Euclidean)
        .await
        .expect("nobody else");
    publish(&store, &at, Cosine, 3).await;
    let expected = [
        ".notes.part",
        ".t.parquet.v.l2.hnsw.part",
        "t.parquet.v.cosine.hnsw",
        "x.hnsw.part",
    ];
    assert_eq!(names(&dir), expected, "what is not ours or not dead stays");
    drop(live);
}

#[cfg(unix)]
#[tokio::test]
async fn a_sidecar_that_may_not_be_read_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let dir = temp();
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
    };
    open(dir.path(), 0o777);
    let text = try_to_replace(dir.path(), |child| {
        open(&dir.path().join("_hnsw/t.parquet.v.cosine.hnsw"), 0o000);
        as_nobody_if_we_are_root(child, dir.path());
        child.env("HNSW_STORE_ROLE", "look");
    })
    .await;
    assert!(text.contains("found denied"), "{text}");
}

#[tokio::test]
async fn a_cache_directory_that_cannot_be_used_is_told_and_asked_again() {
    let home = Home::remote(
        "memory",
        "s3://bucket",
        Arc::new(object_store::memory::InMemory::new()),
    );
    let at = (home.place)("t.parquet");
    publish(&home.store(), &at, Cosine, 3).await;
    let mut options = home.options();
    let blocked = temp();
    let file = blocked.path().join("cache");
    std::fs::write(&file, "a file where a directory should be").expect("room");
    options.cache_dir = Some(file.clone());
    let store = SidecarStore::new(options);
    let found = look(&store, &at, Cosine, 3).await;
    assert_eq!(code(&found), "cache_unusable");
    assert!(
        found
            .reason()
            .is_some_and(|reason| reason.to_string().contains("hnsw.cache_dir"))
    );
    assert!(
        store
            .publish(&at, index(Cosine, 3), meta("v", identity("t", 3)))
            .await
            .is_err()
    );
    std::fs::remove_file(&file).expect("ours");
    assert_eq!(code(&look(&store, &at, Cosine, 3).await), "fresh");
}

#[tokio::test]
async fn a_reader_finishes_with_the_sidecar_it_began_with() {
    let home = Home::local();
    let at = (home.place)("t.parquet");
    let store = home.store();
    publish(&store, &at, Euclidean, 800).await;
    let held = look(&store, &at, Euclidean, 800).await;
    let held = held.fresh().expect("fresh");
    let options = datafusion_hnsw::hnsw::SearchOptions::new(10).ef(800);
    let search = || held.search(&[3.0, 0.5, 0.5, 9.0], &options).expect("whole").hits;
    let before = search();
    publish(&store, &at, Euclidean, 90).await;
    assert_eq!(search(), before);
    assert!(store.remove(&at, "v", Euclidean).await.expect("removed"));
    assert_eq!(search(), before);
    assert_eq!(held.verify(), Ok(()));
}

#[tokio::test]
async fn processes_that_share_a_small_cache_directory_all_get_whole_sidecars() {
    let dir = temp();
    let mut children: Vec<_> = (0..3)
        .map(|_| {
            command("remote churn", dir.path())
                .spawn()
                .expect("this program starts")
        })
        .collect();
    for child in children.drain(..) {
        let output = child.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        println!(
            "{}",
            text.lines()
                .find(|line| line.contains("lookups"))
                .unwrap_or_default()
        );
    }
}

#[tokio::test]
async fn another_e_tag_of_a_local_file_is_settled_by_its_bytes() {
    let home = Home::local();
    let at = (home.place)("t.parquet");
    let parquet = at.local.clone().expect("local");
    std::fs::write(&parquet, [1; 1003]).expect("room");
    let mut source = identity("t.parquet", 3);
    source.e_tag = Some("then".to_owned());
    let store = home.store();
    store
        .publish(&at, index(Cosine, 3), meta("v", source.clone()))
        .await
        .expect("published");
    let look = async |store: &SidecarStore, now: &datafusion_hnsw::format::SourceIdentity| {
        code(&store.lookup(&at, "v", Cosine, now).await)
    };
    assert_eq!(look(&store, &source).await, "fresh");
    source.e_tag = Some("now".to_owned());
    // Touched or copied: the same bytes.
    for store in [&store, &home.store()] {
        assert_eq!(look(store, &source).await, "fresh");
    }
    // The same size and footer, but two rows have changed places.
    let mut swapped = [1; 1003];
    swapped[500] = 2;
    std::fs::write(&parquet, swapped).expect("room");
    for store in [&store, &home.store()] {
        assert_eq!(look(store, &source).await, "stale:content");
    }
    std::fs::remove_file(&parquet).expect("ours");
    assert_eq!(look(&store, &source).await, "stale:etag");
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_indexed_is_not_published() {
    let home = Home::local();
    let at = (home.place)("t.parquet");
    let parquet = at.local.clone().expect("local");
    std::fs::write(&parquet, "one").expect("room");
    let store = home.store();
    let lease = store.begin(&at, "v", Cosine).await.expect("nobody else");
    std::fs::write(&parquet, "another").expect("room");
    let published = lease
        .publish(index(Cosine, 3), meta("v", identity("t.parquet", 3)))
        .await;
    assert!(
        matches!(published, Err(StoreError::SourceChanged { .. })),
        "{published:?}"
    );
    assert_eq!(names(parquet.with_file_name("_hnsw")), [""; 0]);
}
