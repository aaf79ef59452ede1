//! Files of other people: what somebody else puts in our way is neither written to, nor believed, nor waited for; and
//! nobody gets to read through a sidecar what he may not read in its Parquet file.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use datafusion_hnsw::hnsw::VectorMetric::{Cosine, Euclidean};
use datafusion_hnsw::sidecar::{Location, SidecarDir, SidecarStore, StoreError};

use crate::child::command;
use crate::conformance::{code, look, publish};
use crate::rights::{as_nobody_if_we_are_root, open};
use crate::sample::{Home, identity, index, meta, names, sidecars, temp};

/// A user that is neither root nor this one.
const NOBODY: u32 = 65_534;

const SIDECAR: &str = "t.parquet.v.cosine.hnsw";

fn mode(path: impl AsRef<Path>) -> u32 {
    std::fs::metadata(path).expect("there").permissions().mode() & 0o777
}

/// Whether files can be given to other users; if not, the test says that it skips.
fn can_give_away(dir: &Path) -> bool {
    let root = dir.metadata().expect("ours").uid() == 0;
    if !root {
        println!("skipped: only root can make files of other users");
    }
    root
}

fn mkfifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.is_ok_and(|status| status.success()));
}

/// Gives up on what would wait for ever.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(Duration::from_secs(20), what).await;
    done.expect("it waits for nobody")
}

/// Puts something under a name.
type Plant = Box<dyn Fn(&Path)>;

/// What can lie under a name, and what puts it there.
fn plants(precious: PathBuf) -> Vec<(&'static str, Plant)> {
    let linked = precious.clone();
    vec![
        (
            "a link to a file",
            Box::new(move |path| symlink(&precious, path).expect("room")),
        ),
        (
            "a link to nothing",
            Box::new(|path| symlink("/no/such/file", path).expect("room")),
        ),
        (
            "a link to a device",
            Box::new(|path| symlink("/dev/zero", path).expect("room")),
        ),
        (
            "a hard link",
            Box::new(move |path| std::fs::hard_link(&linked, path).expect("room")),
        ),
        ("a pipe", Box::new(mkfifo)),
        (
            "a socket",
            Box::new(|path| drop(std::os::unix::net::UnixListener::bind(path).expect("room"))),
        ),
    ]
}

#[tokio::test]
async fn what_lies_in_the_way_of_a_build_is_replaced_and_never_written_to() {
    let dir = temp();
    let precious = dir.path().join("precious");
    std::fs::write(&precious, "precious").expect("room");
    let at = Location::local(dir.path().join("t.parquet")).expect("a plain path");
    let home = Home::local();
    let there = sidecars(dir.path());
    std::fs::create_dir(&there).expect("room");
    for name in [SIDECAR.to_owned(), format!(".{SIDECAR}.part")] {
        for (what, plant) in plants(precious.clone()) {
            plant(&there.join(&name));
            let store = home.store();
            let found = code(&soon(look(&store, &at, Cosine, 3)).await);
            assert!(
                found == "no_sidecar" || found.starts_with("damaged:"),
                "{what}: {found}"
            );
            let listed = soon(store.list(std::slice::from_ref(&at))).await.expect("listed");
            assert!(
                listed
                    .iter()
                    .all(|entry| entry.opened.is_err() && !entry.building),
                "{what}"
            );
            soon(publish(&store, &at, Cosine, 3)).await;
            assert_eq!(code(&look(&store, &at, Cosine, 3).await), "fresh", "{what}");
            assert_eq!(names(&there), [SIDECAR], "{what}");
            let published = std::fs::symlink_metadata(there.join(SIDECAR)).expect("there");
            assert!(published.is_file() && published.nlink() == 1, "{what}");
            assert_eq!(
                std::fs::read_to_string(&precious).expect("there"),
                "precious",
                "{what}"
            );
            std::fs::remove_file(there.join(SIDECAR)).expect("ours");
        }
    }
}

#[tokio::test]
async fn a_directory_in_a_sidecars_place_is_named_and_left_alone() {
    let dir = temp();
    let at = Location::local(dir.path().join("t.parquet")).expect("a plain path");
    let inside = sidecars(dir.path()).join(SIDECAR).join("inside");
    std::fs::create_dir_all(&inside).expect("room");
    let store = Home::local().store();
    assert_eq!(code(&look(&store, &at, Cosine, 3).await), "damaged:file");
    for error in [
        store.begin(&at, "v", Cosine).await.err(),
        store.remove(&at, "v", Cosine).await.err(),
    ] {
        assert!(matches!(error, Some(StoreError::InTheWay { .. })), "{error:?}");
        let text = error.expect("just seen").to_string();
        assert!(
            text.contains("is a directory and not a sidecar; remove it"),
            "{text}"
        );
    }
    assert!(inside.is_dir());
}

/// A store that is a directory reports these in words of its own.
#[tokio::test]
async fn what_lies_in_the_way_in_a_store_is_told_soon_and_not_blamed_on_a_session() {
    let dir = temp();
    let at = crate::child::place_of(dir.path(), "data/t.parquet");
    let there = dir.path().join(".data.hnsw");
    std::fs::create_dir(&there).expect("room");
    let store = Home::local().store();
    let put: [&dyn Fn(&Path); 2] = [&|path| symlink("/no/such/file", path).expect("room"), &|path| {
        std::fs::create_dir(path).expect("room")
    }];
    for put in put {
        put(&there.join(SIDECAR));
        let lease = soon(store.begin(&at, "v", Cosine))
            .await
            .expect("nothing can be seen there");
        let error = soon(lease.publish(index(Cosine, 3), meta("v", identity("t.parquet", 3)))).await;
        let error = error.expect_err("something is in the way");
        assert!(matches!(error, StoreError::InTheWay { .. }), "{error:?}");
        let _ = std::fs::remove_file(there.join(SIDECAR));
        let _ = std::fs::remove_dir(there.join(SIDECAR));
    }
}

#[tokio::test]
async fn nobody_may_read_a_sidecar_who_may_not_read_its_parquet_file() {
    let dir = temp();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).expect("room");
    let parquet = data.join("t.parquet");
    std::fs::write(&parquet, "rows").expect("room");
    let at = Location::local(&parquet).expect("a plain path");
    let (store, there) = (Home::local().store(), sidecars(&data));
    for (of_dir, of_file) in [
        (0o755, 0o600),
        (0o700, 0o644),
        (0o755, 0o644),
        (0o751, 0o604),
        (0o750, 0o444),
    ] {
        open(&data, of_dir);
        open(&parquet, of_file);
        publish(&store, &at, Cosine, 3).await;
        assert_eq!((mode(&there), mode(there.join(SIDECAR))), (of_dir, of_file));
        assert!(store.remove(&at, "v", Cosine).await.expect("removed"));
    }
    // Half-written, it is nobody's but its builder's.
    open(&parquet, 0o644);
    let lease = store.begin(&at, "v", Cosine).await.expect("nobody else");
    assert_eq!(mode(there.join(format!(".{SIDECAR}.part"))), 0o600);
    drop(lease);

    if can_give_away(dir.path()) {
        chown(&data, Some(NOBODY), Some(4242)).expect("root may");
        chown(&parquet, Some(NOBODY), Some(4243)).expect("root may");
        open(&data, 0o770);
        open(&parquet, 0o640);
        let _ = std::fs::remove_dir_all(&there);
        publish(&store, &at, Cosine, 3).await;
        let owners = |path: PathBuf| {
            let meta = std::fs::metadata(path).expect("there");
            (meta.uid(), meta.gid(), meta.mode() & 0o777)
        };
        assert_eq!(owners(there.clone()), (NOBODY, 4242, 0o770));
        assert_eq!(owners(there.join(SIDECAR)), (NOBODY, 4243, 0o640));
        assert_eq!(code(&look(&Home::local().store(), &at, Cosine, 3).await), "fresh");
    }
}

/// Under a directory of the user's, the way to the Parquet file says who may read it too.
#[tokio::test]
async fn a_sidecar_elsewhere_is_no_more_open_than_the_way_to_its_parquet_file() {
    let (dir, elsewhere) = (temp(), temp());
    open(elsewhere.path(), 0o755);
    let (data, parquet) = (dir.path().join("data"), dir.path().join("data/t.parquet"));
    std::fs::create_dir(&data).expect("room");
    std::fs::write(&parquet, "rows").expect("room");
    let to = SidecarDir {
        store: std::sync::Arc::new(object_store::memory::InMemory::new()),
        store_url: "file:///".to_owned(),
        prefix: Default::default(),
        local: Some(elsewhere.path().to_owned()),
    };
    let at = Location::local(&parquet)
        .expect("a plain path")
        .with_sidecar_dir(Some(to));
    let store = Home::local().store();
    let reaches = |mode| open(dir.path(), mode);
    for (of_way, of_dir, expected) in [
        (0o700, 0o755, 0o600),
        (0o755, 0o700, 0o600),
        (0o755, 0o755, 0o644),
        (0o710, 0o755, 0o640),
    ] {
        reaches(of_way);
        open(&data, of_dir);
        open(&parquet, 0o644);
        publish(&store, &at, Cosine, 3).await;
        assert_eq!(
            mode(at.sidecar_url("v", Cosine)),
            expected,
            "{of_way:o} {of_dir:o}"
        );
        assert!(store.remove(&at, "v", Cosine).await.expect("removed"));
    }
}

#[tokio::test]
async fn a_directory_of_somebody_else_is_neither_read_nor_written() {
    let dir = temp();
    if !can_give_away(dir.path()) {
        return;
    }
    let data = dir.path().join("data");
    std::fs::create_dir(&data).expect("room");
    std::fs::write(data.join("t.parquet"), "rows").expect("room");
    open(&data, 0o755);
    let at = Location::local(data.join("t.parquet")).expect("a plain path");
    let (there, beside) = (sidecars(&data), data.join("_hnsw"));
    for place in [&there, &beside] {
        publish(&Home::local().store(), &at, Cosine, 3).await;
        if place == &beside {
            std::fs::rename(&there, &beside).expect("ours");
        }
        let found = async || code(&look(&Home::local().store(), &at, Cosine, 3).await);
        assert_eq!(found().await, "fresh");
        chown(place, Some(NOBODY), None).expect("root may");
        assert_eq!(found().await, "untrusted");
        if place == &there {
            let begun = Home::local().store().begin(&at, "v", Cosine).await;
            assert!(matches!(begun, Err(StoreError::Untrusted { .. })), "{begun:?}");
            let text = begun.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(
                text.contains("another user (id 65534)") && text.contains("hnsw.sidecar_dir"),
                "{text}"
            );
        }
        // He could write the Parquet file itself.
        chown(&data, Some(NOBODY), None).expect("root may");
        assert_eq!(found().await, "fresh");
        chown(&data, Some(0), None).expect("root may");
        chown(place, Some(0), None).expect("root may");
        // Ours, but open to everybody.
        open(place, 0o777);
        assert_eq!(found().await, "untrusted");
        open(place, 0o755);
        assert_eq!(found().await, "fresh");
        std::fs::remove_dir_all(place).expect("ours");
    }

    // A link that somebody else could turn elsewhere, and one that nobody could.
    let real = dir.path().join("real");
    publish(&Home::local().store(), &at, Cosine, 3).await;
    std::fs::rename(&there, &real).expect("ours");
    symlink(&real, &there).expect("room");
    assert_eq!(code(&look(&Home::local().store(), &at, Cosine, 3).await), "fresh");
    open(dir.path(), 0o777);
    assert_eq!(
        code(&look(&Home::local().store(), &at, Cosine, 3).await),
        "untrusted"
    );
    open(dir.path(), 0o755);
}

#[tokio::test]
async fn where_nothing_may_be_written_next_to_the_table_sidecars_lie_beside_their_file() {
    let dir = temp();
    if !can_give_away(dir.path()) {
        return;
    }
    let data = dir.path().join("data");
    std::fs::create_dir(&data).expect("room");
    std::fs::write(data.join("t.parquet"), "rows").expect("room");
    chown(&data, Some(NOBODY), None).expect("root may");
    for path in [dir.path(), &data] {
        open(path, 0o755);
    }
    let mut child = command("publish once", &data);
    as_nobody_if_we_are_root(&mut child, dir.path());
    let output = child.output().expect("this program starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!sidecars(&data).exists());
    assert_eq!(names(data.join("_hnsw")), [SIDECAR]);
    let at = Location::local(data.join("t.parquet")).expect("a plain path");
    assert_eq!(code(&look(&Home::local().store(), &at, Cosine, 5).await), "fresh");
}

#[tokio::test]
async fn sidecars_of_earlier_versions_are_read_replaced_and_dropped() {
    let home = Home::local();
    let at = (home.place)("t.parquet");
    let data = at
        .local
        .as_deref()
        .and_then(Path::parent)
        .expect("local")
        .to_owned();
    let (there, old) = (sidecars(&data), data.join("_hnsw"));
    let store = home.store();
    let make_old = async || {
        publish(&store, &at, Cosine, 3).await;
        std::fs::rename(&there, &old).expect("ours");
    };
    make_old().await;
    assert_eq!(code(&look(&store, &at, Cosine, 3).await), "fresh");
    assert_eq!(code(&look(&store, &at, Euclidean, 3).await), "metric_mismatch");
    let listed = store.list(std::slice::from_ref(&at)).await.expect("listed");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].location, Some(0));
    // Replaced: there are not two of them, and the old directory goes.
    publish(&store, &at, Cosine, 5).await;
    assert_eq!(code(&look(&store, &at, Cosine, 5).await), "fresh");
    assert!(!old.exists() && there.is_dir());
    assert!(store.remove(&at, "v", Cosine).await.expect("removed"));
    assert!(!there.exists());
    make_old().await;
    assert!(store.remove(&at, "v", Cosine).await.expect("removed"));
    assert!(!old.exists() && !there.exists());
    // A new one that does not fit does not hide an old one that does.
    make_old().await;
    std::fs::create_dir(&there).expect("room");
    std::fs::write(there.join(SIDECAR), "nonsense").expect("room");
    assert_eq!(code(&look(&store, &at, Cosine, 3).await), "fresh");
    let listed = store.list(&[at]).await.expect("listed");
    assert!(listed.len() == 1 && listed[0].opened.is_ok());
}

#[tokio::test]
async fn the_longest_file_names_have_sidecars() {
    let home = Home::local();
    let store = home.store();
    let file = |last: &str| (home.place)(&format!("{}{last}.parquet", "f".repeat(244)));
    let (one, two) = (file("1"), file("2"));
    assert_eq!(one.parquet.filename().map(str::len), Some(253));
    publish(&store, &one, Cosine, 3).await;
    publish(&store, &two, Cosine, 4).await;
    publish(&store, &two, Euclidean, 4).await;
    assert_eq!(code(&look(&store, &one, Cosine, 3).await), "fresh");
    assert_eq!(code(&look(&store, &two, Cosine, 4).await), "fresh");
    let entries = store.list(&[one.clone(), two.clone()]).await.expect("listed");
    let mut of: Vec<_> = entries.iter().map(|entry| entry.location).collect();
    of.sort();
    assert_eq!(of, [Some(0), Some(1), Some(1)]);
    assert!(store.remove_named(&one, &entries[0].name).await.is_ok());
    for (at, metric) in [(&one, Cosine), (&two, Cosine), (&two, Euclidean)] {
        store.remove(at, "v", metric).await.expect("removed");
    }
    assert!(store.list(&[one, two]).await.expect("listed").is_empty());
}

/// Without a home directory, copies go to a place whose name everybody knows.
#[tokio::test]
async fn a_cache_directory_that_somebody_else_made_is_refused() {
    let dir = temp();
    let at = crate::child::place(dir.path(), true);
    let published = SidecarStore::new(crate::child::options(dir.path()))
        .publish(&at, index(Cosine, 5), meta("v", identity("t.parquet", 5)))
        .await;
    published.expect("published");
    let ours = dir.path().metadata().expect("ours").uid();
    let planted = dir.path().join(format!("datafusion-hnsw-{ours}"));
    let look = || {
        let mut child = command("remote look by default", dir.path());
        child.env("TMPDIR", dir.path());
        for name in ["HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"] {
            child.env_remove(name);
        }
        let output = child.output().expect("this program starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = look();
    assert!(text.contains("found fresh"), "{text}");
    assert_eq!((mode(&planted), mode(planted.join("sidecars-1"))), (0o700, 0o700));
    for copy in names(planted.join("sidecars-1")) {
        assert_eq!(mode(planted.join("sidecars-1").join(copy)), 0o600);
    }
    open(&planted, 0o777);
    let text = look();
    assert!(text.contains("found cache_unusable"), "{text}");
    assert!(text.contains("can be written by every user"), "{text}");
    if can_give_away(dir.path()) {
        open(&planted, 0o700);
        chown(&planted, Some(NOBODY), None).expect("root may");
        let text = look();
        assert!(text.contains("found cache_unusable"), "{text}");
        assert!(text.contains("belongs to another user (id 65534)"), "{text}");
        // As a link to a directory of his.
        std::fs::rename(&planted, dir.path().join("his")).expect("ours");
        symlink(dir.path().join("his"), &planted).expect("room");
        let text = look();
        assert!(text.contains("found cache_unusable"), "{text}");
    }
}

#[cfg(feature = "datafusion")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn create_index_waits_for_no_pipe_and_writes_through_no_link() {
    let table = crate::table::Table::local();
    table.put("a.parquet", crate::table::parquet(0..50)).await;
    let (there, precious) = (table.path("../.t.hnsw"), table.path("../precious"));
    std::fs::write(&precious, "precious").expect("room");
    std::fs::create_dir(&there).expect("room");
    open(&table.path("a.parquet"), 0o640);
    for name in ["a.parquet.v.l2.hnsw", ".a.parquet.v.l2.hnsw.part"] {
        for (what, plant) in plants(precious.clone()) {
            plant(&there.join(name));
            soon(table.answers()).await;
            soon(table.create_index()).await;
            assert_eq!(soon(table.answers()).await, "1 indexed", "{what}");
            assert_eq!(names(&there), ["a.parquet.v.l2.hnsw"], "{what}");
            assert_eq!(mode(there.join("a.parquet.v.l2.hnsw")), 0o640);
            assert_eq!(
                std::fs::read_to_string(&precious).expect("there"),
                "precious",
                "{what}"
            );
            crate::table::run(&table.session().await, crate::sql_roles::DROP).await;
            std::fs::create_dir_all(&there).expect("room");
        }
    }
}
