//! No right to write, no right to read, no room: what is told, and that the old sidecar stays.

use std::path::Path;
use std::process::Command;

use datafusion_hnsw::hnsw::VectorMetric::Cosine;
use datafusion_hnsw::sidecar::{Location, SidecarStore};

use crate::child::{ROWS, command, options, place};
use crate::sample::{identity, index, meta, names, sidecars, temp};

/// Publishes the old sidecar, then lets a child try to replace it under the given conditions.
async fn try_to_replace(dir: &Path, conditions: impl FnOnce(&mut Command)) -> String {
    let at = Location::local(dir.join("t.parquet")).expect("a plain path");
    // Who may read the Parquet file may read its sidecar.
    std::fs::write(dir.join("t.parquet"), "rows").expect("room");
    open(&dir.join("t.parquet"), 0o644);
    let store = SidecarStore::new(options(dir));
    let old = meta("v", identity("t.parquet", ROWS[0] as u64));
    store
        .publish(&at, index(Cosine, ROWS[0]), old)
        .await
        .expect("published");
    let mut child = command("try", dir);
    conditions(&mut child);
    told_by(&mut child)
}

/// Sets the mode of a file or directory of ours.
pub fn open(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
}

/// What a child says, if it ends well.
fn told_by(child: &mut Command) -> String {
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

/// A limit on the size of files stands in for a disk: a write fails in its middle.
#[cfg(unix)]
fn small_files_only(child: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\""])
        .arg(child.get_program());
    with_the_same_words(shell, child)
}

/// Runs a script in a mount namespace of the child's own, which ends in the child; where that is not allowed, other
/// tests must do.
#[cfg(target_os = "linux")]
fn in_a_namespace(script: &str, child: &Command, words: &[&Path]) -> Command {
    let mut limited = Command::new("unshare");
    limited
        .args(["-rm", "sh", "-c", script])
        .arg(child.get_program())
        .args(words);
    with_the_same_words(limited, child)
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
    let dir = temp();
    open(dir.path(), 0o755);
    let text = try_to_replace(dir.path(), |child| {
        if !as_nobody_if_we_are_root(child, dir.path()) {
            open(&sidecars(dir.path()), 0o555);
            open(dir.path(), 0o555);
        }
    })
    .await;
    open(&sidecars(dir.path()), 0o755);
    open(dir.path(), 0o755);
    assert!(
        text.contains("outcome denied") && text.contains("hnsw.sidecar_dir"),
        "{text}"
    );
    assert!(
        text.contains("found fresh") && text.contains("removed no permission"),
        "{text}"
    );
    assert_eq!(names(sidecars(dir.path())), ["t.parquet.v.cosine.hnsw"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_full_disk_is_told_and_the_old_sidecar_stays() {
    let dir = temp();
    // A limit on the size of files stands in for a disk: the write fails in its middle.
    let text = try_to_replace(dir.path(), |child| {
        *child = small_files_only(child);
    })
    .await;
    assert!(
        text.contains("outcome no space") && text.contains("found fresh"),
        "{text}"
    );
    assert!(text.contains("removed true"), "{text}");
    assert!(!sidecars(dir.path()).exists());
    assert_eq!(names(dir.path()), ["t.parquet"]);
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
        let there = sidecars(dir.path()).join("t.parquet.v.cosine.hnsw");
        let copy = spare.path().join("t.parquet.v.cosine.hnsw");
        std::fs::copy(there, &copy).expect("room");
        *child = in_a_namespace(script, child, &[&copy]);
    });
    let text = text.await;
    if !text.contains("not allowed") {
        assert!(
            text.contains("outcome no space") && text.contains("found fresh"),
            "{text}"
        );
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_sidecar_that_may_not_be_read_is_told() {
    let dir = temp();
    open(dir.path(), 0o777);
    let text = try_to_replace(dir.path(), |child| {
        open(&sidecars(dir.path()).join("t.parquet.v.cosine.hnsw"), 0o000);
        as_nobody_if_we_are_root(child, dir.path());
        child.env("HNSW_STORE_ROLE", "look");
    })
    .await;
    assert!(text.contains("found denied"), "{text}");
}

/// Puts a sidecar into a store that happens to be a directory, and lets a child look it up under the given conditions.
#[cfg(unix)]
async fn look_from_afar(dir: &Path, conditions: impl FnOnce(&mut Command)) -> String {
    let at = place(dir, true);
    let source = meta("v", identity("t.parquet", ROWS[1] as u64));
    let store = SidecarStore::new(options(dir));
    let published = store.publish(&at, index(Cosine, ROWS[1]), source).await;
    published.expect("published");
    std::fs::remove_dir_all(dir.join("cache/sidecars-1")).expect("ours");
    let mut child = command("remote look", dir);
    conditions(&mut child);
    told_by(&mut child)
}

#[cfg(unix)]
#[tokio::test]
async fn a_copy_that_does_not_fit_on_the_disk_is_told_and_leaves_nothing() {
    let dir = temp();
    let text = look_from_afar(dir.path(), |child| *child = small_files_only(child)).await;
    assert!(text.contains("found cache_unusable"), "{text}");
    assert_eq!(names(dir.path().join("cache/sidecars-1")), [""; 0]);
    let text = look_from_afar(dir.path(), |_| {}).await;
    assert!(text.contains("found fresh"), "{text}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_copy_that_does_not_fit_on_the_file_system_is_told() {
    let dir = temp();
    let script = "mount -t tmpfs -o size=40k none \"$HNSW_STORE_DIR\"/cache 2>/dev/null \
                  || { echo not allowed; exit 0; }; exec \"$0\" \"$@\"";
    let text = look_from_afar(dir.path(), |child| *child = in_a_namespace(script, child, &[])).await;
    assert!(
        text.contains("found cache_unusable") || text.contains("not allowed"),
        "{text}"
    );
}
