//! Which files lie on this machine, whatever their store is wrapped in or calls itself; and which do not, though their
//! URL begins with `file://`.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_hnsw::hnsw::VectorMetric::Euclidean;
use datafusion_hnsw::sidecar::{Location, SidecarOptions, SidecarStore};
use datafusion_hnsw::{HnswSessionExt as _, IndexPhase, IndexProgress, on_index_progress};
use object_store::limit::LimitStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::sample::{TempDir, names, temp};
use crate::table::{parquet, run};
use crate::wrapped::passing_on;

const CREATE: &str = "CREATE INDEX i ON t USING hnsw (v) WITH (metric = 'l2')";

/// A session that knows nothing yet, with `store` in the place of the local file system if there is one.
async fn session(store: Option<&Arc<dyn ObjectStore>>, table: &Path, cache: &Path) -> SessionContext {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    datafusion_hnsw::register(&ctx).expect("registered");
    if let Some(store) = store {
        let root = ObjectStoreUrl::parse("file:///").expect("a URL");
        ctx.register_object_store(root.as_ref(), Arc::clone(store));
    }
    let quoted = |path: &Path| path.display().to_string().replace('\'', "''");
    run(&ctx, &format!("SET hnsw.cache_dir = '{}'", quoted(cache))).await;
    let sql = format!(
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{}/'",
        quoted(table)
    );
    run(&ctx, &sql).await;
    ctx
}

/// How the ten nearest rows were found. They are those that DataFusion finds.
async fn how(ctx: &SessionContext) -> String {
    const QUERY: &str =
        "SELECT id, array_distance(v, [0.1,0.2,0.3,0.4,0.5,0.4,0.3,0.2]) AS d FROM t ORDER BY d, id LIMIT 10";
    run(ctx, "SET hnsw.ef_search = 1000").await;
    let plan = run(ctx, &format!("EXPLAIN {QUERY}")).await;
    let with = run(ctx, QUERY).await;
    run(ctx, "SET hnsw.mode = 'off'").await;
    let without = run(ctx, QUERY).await;
    run(ctx, "SET hnsw.mode = 'auto'").await;
    assert_eq!(with, without, "{plan}");
    let at = plan.find("files=[").expect("a search of files");
    plan[at + 7..].split(']').next().unwrap_or_default().to_owned()
}

/// The local file system as programs wrap it.
fn wrapped() -> Vec<(&'static str, Option<Arc<dyn ObjectStore>>)> {
    let local = || Arc::new(LocalFileSystem::new());
    vec![
        ("as it is", None),
        ("wrapped", Some(passing_on(local()))),
        (
            "limited",
            Some(Arc::new(LimitStore::new(LocalFileSystem::new(), 4))),
        ),
        ("twice wrapped", Some(passing_on(passing_on(local())))),
    ]
}

/// All files below a directory whose names end so.
fn ending_with(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(ending_with(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// Copies a directory as `cp -a` does: the same bytes and times, other inodes.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("room");
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).expect("room");
            let modified = std::fs::metadata(&from).and_then(|meta| meta.modified());
            set_time(&to, modified.expect("there"));
        }
    }
}

fn set_time(path: &Path, time: SystemTime) {
    let file = File::options().write(true).open(path).expect("ours");
    file.set_modified(time).expect("ours");
}

/// The same rows in two orders: files of one size with the same footer.
fn files() -> [Vec<u8>; 2] {
    [parquet(0..300), parquet((0..300).rev())]
}

fn put(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("room");
    std::fs::write(path, bytes).expect("room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrapped_file_system_is_as_local_as_a_bare_one() {
    for (name, store) in wrapped() {
        let (dir, cache) = (temp(), temp());
        let file = dir.path().join("one/t/a.parquet");
        put(&file, &files()[0]);
        let new = async |at: &str| session(store.as_ref(), &dir.path().join(at), cache.path()).await;
        run(&new("one/t").await, CREATE).await;
        assert_eq!(how(&new("one/t").await).await, "1 indexed", "{name}: built");
        copy(&dir.path().join("one"), &dir.path().join("two"));
        assert_eq!(how(&new("two/t").await).await, "1 indexed", "{name}: copied");
        set_time(&file, SystemTime::now() - Duration::from_secs(1000));
        assert_eq!(how(&new("one/t").await).await, "1 indexed", "{name}: touched");
        let ctx = new("one/t").await;
        run(&ctx, "SET hnsw.cache_size = 100").await;
        run(&ctx, "SET hnsw.cache_dir = '/proc/none'").await;
        assert_eq!(how(&ctx).await, "1 indexed", "{name}: without a cache directory");
        assert!(
            ending_with(cache.path(), ".hnsw").is_empty(),
            "{name}: no second copy"
        );
        // Rows that changed places, though size, time and footer are the same.
        let modified = std::fs::metadata(&file).and_then(|meta| meta.modified());
        put(&file, &files()[1]);
        set_time(&file, modified.expect("there"));
        assert_eq!(
            how(&new("one/t").await).await,
            "1 stale:content",
            "{name}: replaced"
        );
        run(&new("one/t").await, "DROP INDEX i ON t").await;
        assert_eq!(how(&new("one/t").await).await, "1 no_sidecar", "{name}: dropped");
        assert!(ending_with(&dir.path().join("one"), ".hnsw").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn builds_through_a_wrapped_file_system_take_turns_and_watch_their_file() {
    for (name, store) in wrapped() {
        let (dir, cache) = (temp(), temp());
        let (table, file) = (dir.path().join("t"), dir.path().join("t/a.parquet"));
        put(&file, &files()[0]);
        let ctx = session(store.as_ref(), &table, cache.path()).await;
        let create = async || ctx.hnsw_sql(CREATE).await?.collect().await;
        // As another process would hold it.
        let other = SidecarStore::new(SidecarOptions::default());
        let place = Location::local(&file).expect("a plain path");
        let lease = other.begin(&place, "v", Euclidean).await.expect("nobody else");
        let error = create().await.expect_err("taken").to_string();
        assert!(
            error.contains("being built by another session"),
            "{name}: {error}"
        );
        drop(lease);
        let path = file.clone();
        let touch = move |at: &IndexProgress| {
            if at.phase == IndexPhase::Publish {
                set_time(&path, SystemTime::now() + Duration::from_secs(7));
            }
            ControlFlow::Continue(())
        };
        on_index_progress(&ctx, Some(Arc::new(touch))).expect("registered");
        let error = create().await.expect_err("changed").to_string();
        assert!(error.contains("changed while"), "{name}: {error}");
        assert!(ending_with(dir.path(), ".hnsw").is_empty(), "{name}");
    }
}

/// `root/<path of dir>/t/a.parquet` as the store has it, and `<dir>/t/a.parquet`, which is another file.
struct Decoy {
    root: TempDir,
    dir: TempDir,
}

impl Decoy {
    fn new() -> Self {
        let (root, dir) = (temp(), temp());
        let decoy = Self { root, dir };
        let [original, reversed] = files();
        assert_eq!(original.len(), reversed.len());
        let time = SystemTime::now() - Duration::from_secs(1000);
        for (path, bytes) in [
            (decoy.real(), original),
            (decoy.table().join("a.parquet"), reversed),
        ] {
            put(&path, &bytes);
            set_time(&path, time);
        }
        decoy
    }

    fn table(&self) -> PathBuf {
        self.dir.path().join("t")
    }

    /// Where a path of the session is on disk.
    fn below_root(&self, path: &Path) -> PathBuf {
        self.root.path().join(path.strip_prefix("/").expect("absolute"))
    }

    fn real(&self) -> PathBuf {
        self.below_root(&self.table().join("a.parquet"))
    }

    fn stores(&self) -> Vec<(&'static str, Arc<dyn ObjectStore>)> {
        let below = || LocalFileSystem::new_with_prefix(self.root.path()).expect("a directory");
        let prefix = object_store::path::Path::from_absolute_path(self.root.path()).expect("a plain path");
        vec![
            ("with a prefix", Arc::new(below())),
            ("with a prefix, wrapped", passing_on(Arc::new(below()))),
            (
                "in a prefix store",
                Arc::new(PrefixStore::new(LocalFileSystem::new(), prefix)),
            ),
        ]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_with_another_root_is_never_taken_for_the_file_at_the_same_path() {
    for which in 0..3 {
        let (decoy, cache) = (Decoy::new(), temp());
        let (name, store) = decoy.stores().swap_remove(which);
        let new = async || session(Some(&store), &decoy.table(), cache.path()).await;
        assert_eq!(how(&new().await).await, "1 no_sidecar", "{name}");
        run(&new().await, CREATE).await;
        assert_eq!(how(&new().await).await, "1 indexed", "{name}");
        set_time(&decoy.real(), SystemTime::now());
        assert_eq!(how(&new().await).await, "1 indexed", "{name}: touched");
        assert!(
            ending_with(cache.path(), ".hnsw").is_empty(),
            "{name}: it is local"
        );
        assert_eq!(ending_with(decoy.root.path(), ".hnsw").len(), 1, "{name}");
        assert!(ending_with(decoy.dir.path(), ".hnsw").is_empty(), "{name}");
        run(&new().await, "DROP INDEX i ON t").await;
        assert!(ending_with(decoy.root.path(), ".hnsw").is_empty(), "{name}");

        if name == "in a prefix store" {
            // Such a store does not say where its root is: with a directory for sidecars its files are not told to be local.
            continue;
        }
        // A directory for sidecars is below the same root.
        let ctx = new().await;
        let indexes = decoy.dir.path().join("indexes");
        run(&ctx, &format!("SET hnsw.sidecar_dir = '{}'", indexes.display())).await;
        run(&ctx, CREATE).await;
        assert_eq!(how(&ctx).await, "1 indexed", "{name}");
        assert_eq!(
            ending_with(&decoy.below_root(&indexes), ".hnsw").len(),
            1,
            "{name}"
        );
        assert!(ending_with(decoy.dir.path(), ".hnsw").is_empty(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_answers_file_urls_from_memory_is_not_local() {
    let (dir, cache) = (temp(), temp());
    let table = dir.path().join("t");
    let on_disk = table.join("a.parquet");
    let at = object_store::path::Path::from_absolute_path(&on_disk).expect("a plain path");
    let [original, reversed] = files();
    // Two stores in which everything has the same name, size and e-tag, as in two processes.
    for (here, there) in [(&original, &reversed), (&reversed, &original)] {
        let memory = InMemory::new();
        memory.put(&at, here.clone().into()).await.expect("memory");
        let listed = memory.head(&at).await.expect("there");
        put(&on_disk, there);
        set_time(&on_disk, listed.last_modified.into());
        let store: Arc<dyn ObjectStore> = Arc::new(memory);
        let new = async || session(Some(&store), &table, cache.path()).await;
        assert_eq!(how(&new().await).await, "1 no_sidecar");
        run(&new().await, CREATE).await;
        assert_eq!(how(&new().await).await, "1 indexed");
        assert_eq!(
            names(&table),
            ["a.parquet"],
            "nothing is written beside the other file"
        );
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_lead_to_the_file_that_they_lead_to_now() {
    use std::os::unix::fs::symlink;
    let [original, reversed] = files();
    for (name, store) in wrapped() {
        let (dir, cache) = (temp(), temp());
        let at = |path: &str| dir.path().join(path);
        put(&at("real/one"), &original);
        put(&at("real/two"), &reversed);
        let time = SystemTime::now() - Duration::from_secs(1000);
        set_time(&at("real/one"), time);
        set_time(&at("real/two"), time);
        std::fs::create_dir(at("t")).expect("room");
        symlink(at("real/one"), at("t/a.parquet")).expect("room");
        symlink(at("t"), at("also")).expect("room");
        let new = async |table: &str| session(store.as_ref(), &at(table), cache.path()).await;
        run(&new("t").await, CREATE).await;
        assert_eq!(how(&new("t").await).await, "1 indexed", "{name}");
        // The sidecars of a table lie beside the directory by whose name it is known.
        assert_eq!(how(&new("also").await).await, "1 no_sidecar", "{name}");
        run(&new("also").await, CREATE).await;
        for table in ["t", "also"] {
            assert_eq!(how(&new(table).await).await, "1 indexed", "{name}: {table}");
        }
        std::fs::remove_file(at("t/a.parquet")).expect("ours");
        symlink(at("real/two"), at("t/a.parquet")).expect("room");
        for table in ["t", "also"] {
            assert_eq!(how(&new(table).await).await, "1 stale:content", "{name}: {table}");
        }
        assert!(ending_with(cache.path(), ".hnsw").is_empty(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_characters_in_paths_name_the_same_file_here_as_in_the_store() {
    for (name, store) in wrapped() {
        let (dir, cache) = (temp(), temp());
        let table = dir.path().join("a b'ü/日本");
        put(&table.join("x+&;ü!.parquet"), &files()[0]);
        let new = async || session(store.as_ref(), &table, cache.path()).await;
        run(&new().await, CREATE).await;
        assert_eq!(how(&new().await).await, "1 indexed", "{name}");
        assert!(ending_with(cache.path(), ".hnsw").is_empty(), "{name}");
        assert_eq!(ending_with(dir.path(), ".hnsw").len(), 1, "{name}");
    }
}
