//! The thread that checks large sidecars after their first use.
//!
//! There is one for the process, and only while there is something to check: reading takes the disk from queries. It is
//! a thread of its own because a runtime that ends waits for its blocking tasks, and a check of a large file may take
//! minutes. A file that nobody has open any more is let go of after the piece at hand.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::integrity::{Bytes, Integrity};
use super::open_cache::Sidecar;

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<(Weak<Sidecar>, Queued)>,
    is_running: bool,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue {
    waiting: VecDeque::new(),
    is_running: false,
});

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checks a sidecar as soon as those before it are done, unless it is waiting for that already.
pub(crate) fn enqueue(sidecar: &Arc<Sidecar>) {
    if sidecar.integrity().is_queued.swap(true, Ordering::AcqRel) {
        return;
    }
    let mut queue = queue();
    let queued = Queued(Arc::clone(sidecar.integrity()));
    queue.waiting.push_back((Arc::downgrade(sidecar), queued));
    if !queue.is_running {
        let thread = std::thread::Builder::new().name("hnsw-verify".to_owned());
        match thread.spawn(run) {
            Ok(_) => queue.is_running = true,
            // The next sidecar tries again.
            Err(error) => tracing::warn!(%error, "no thread could be started to check sidecars"),
        }
    }
}

/// Says that a file does not wait for its check any more, whatever came of it.
#[derive(Debug)]
struct Queued(Arc<Integrity>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.is_queued.store(false, Ordering::Release);
    }
}

/// Says that the thread has ended, however it ends.
struct Running;

impl Drop for Running {
    fn drop(&mut self) {
        queue().is_running = false;
    }
}

fn run() {
    let running = Running;
    loop {
        let next = {
            let mut queue = queue();
            let next = queue.waiting.pop_front();
            if next.is_none() {
                queue.is_running = false;
                std::mem::forget(running);
                return;
            }
            next
        };
        if let Some((sidecar, queued)) = next {
            check(&sidecar, &queued.0);
        }
    }
}

fn check(sidecar: &Weak<Sidecar>, integrity: &Integrity) {
    let Some(opened) = sidecar.upgrade() else { return };
    let (url, checksums) = (opened.url().to_owned(), opened.checksums().to_vec());
    // A file that was replaced or removed since is of no use to later queries.
    let Some(file) = opened.reopened() else { return };
    drop(opened);
    let begun = std::time::Instant::now();
    integrity.check(&checksums, Bytes::of_file(&file), || sidecar.strong_count() > 0);
    match integrity.damage() {
        Some(reason) => tracing::warn!(%url, code = %reason.code(), "{reason}"),
        None => {
            let (whole, ms) = (integrity.is_whole(), begun.elapsed().as_millis());
            tracing::debug!(%url, whole, ms, "checked a sidecar");
        }
    }
}
