//! Parts of tests that run in a process of their own: to be killed, or to have less right or less room.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use datafusion_hnsw::sidecar::{Location, SidecarOptions};
use object_store::local::LocalFileSystem;

const ROLE: &str = "HNSW_STORE_ROLE";
const DIR: &str = "HNSW_STORE_DIR";

/// Rows of the two sidecars that children publish by turns.
pub const ROWS: [usize; 2] = [5, 2000];

/// The command that runs this program again in a role.
pub fn command(role: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", "child::in_a_role", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Starts a role and waits until it is at work.
pub fn start(role: &str, dir: &Path) -> Child {
    let mut child = command(role, dir)
        .stderr(Stdio::null())
        .spawn()
        .expect("this program starts");
    let output = child.stdout.take().expect("its output is ours");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(output));
    assert!(
        lines.any(|line| line.is_ok_and(|line| line.contains("at work"))),
        "the child died early"
    );
    child
}

/// The place of the file that children work on: local, or in a store that happens to be a directory.
pub fn place(dir: &Path, remote: bool) -> Location {
    if !remote {
        return Location::local(dir.join("t.parquet")).expect("a plain path");
    }
    place_of(dir, "t.parquet")
}

pub fn place_of(dir: &Path, file: &str) -> Location {
    let store = LocalFileSystem::new_with_prefix(dir).expect("a directory");
    Location::remote(Arc::new(store), "s3://bucket", file.into())
}

pub fn options(dir: &Path) -> SidecarOptions {
    let mut options = SidecarOptions::default();
    options.cache_dir = Some(dir.join("cache"));
    options.listing_ttl = std::time::Duration::ZERO;
    options.fetch_part = 4096;
    options
}

/// Does nothing unless this program was started by [`command`].
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_role() {
    let (Ok(role), Ok(dir)) = (std::env::var(ROLE), std::env::var(DIR)) else {
        return;
    };
    let dir = PathBuf::from(dir);
    match role.strip_prefix("sql ") {
        #[cfg(feature = "datafusion")]
        Some(role) => crate::sql_roles::play(role, &dir).await,
        _ => crate::roles::play(&role, &dir).await,
    }
}
