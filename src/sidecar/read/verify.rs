//! When the bytes of an open sidecar are checked: before its first use if that is quick, soon after it otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::sidecar::open_cache::Sidecar;
use crate::sidecar::reason::Reason;
use crate::sidecar::remote::download::blocking;
use crate::sidecar::store::SidecarStore;
use crate::sidecar::verifier;

/// Bytes that one query waits for, over all of its files. A table of many small sidecars would otherwise be read from
/// end to end before its first answer.
const ONE_QUERY: u64 = 256 << 20;

/// How many bytes a query may still wait for.
#[derive(Debug)]
pub(crate) struct Allowance(AtomicU64);

impl Default for Allowance {
    fn default() -> Self {
        Self(AtomicU64::new(ONE_QUERY))
    }
}

impl Allowance {
    /// Takes so many bytes, if they are left.
    fn take(&self, bytes: u64) -> bool {
        let less = |left: u64| left.checked_sub(bytes);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }
}

/// How much of a sidecar must have been checked before it is used.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Care<'a> {
    /// All of it if it is small, or if it was read to memory; else what decides how many rows there are. The rest is
    /// checked in the background.
    Quick(&'a Allowance),
    /// All of it.
    Whole,
}

/// Says stop when it is dropped.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl SidecarStore {
    /// Checks as much of a sidecar as `care` asks for, unless that was done for this file in this process.
    ///
    /// # Errors
    ///
    /// The damage that was found.
    pub(crate) async fn verified(&self, sidecar: &Arc<Sidecar>, care: Care<'_>) -> Result<(), Reason> {
        let integrity = sidecar.integrity();
        if integrity.damage().is_none() && !integrity.is_whole() {
            let waits = match care {
                Care::Whole => true,
                Care::Quick(_) if sidecar.is_in_memory() => true,
                Care::Quick(allowance) => {
                    sidecar.bytes() <= self.options().verify_wait && allowance.take(sidecar.bytes())
                }
            };
            if waits {
                check_all(sidecar).await;
            } else {
                check_lists(sidecar).await;
                verifier::enqueue(sidecar);
            }
        }
        sidecar.damage().map_or(Ok(()), Err)
    }
}

/// Waits until every byte was checked. A caller that is dropped stops the check after the piece at hand.
async fn check_all(sidecar: &Arc<Sidecar>) {
    let integrity = sidecar.integrity();
    let _turn = integrity.turn.lock().await;
    if integrity.is_whole() || integrity.damage().is_some() {
        return;
    }
    let stop = StopOnDrop::default();
    let (checked, flag) = (Arc::clone(sidecar), Arc::clone(&stop.0));
    let work = blocking(move || {
        checked.check_bytes(|| !flag.load(Ordering::Relaxed));
        Ok(())
    });
    if let Err(error) = work.await {
        // The runtime is ending; nothing was found out.
        tracing::debug!(url = sidecar.url(), %error, "a sidecar was not checked");
    }
}

async fn check_lists(sidecar: &Arc<Sidecar>) {
    let checked = Arc::clone(sidecar);
    let work = blocking(move || {
        checked.integrity().check_lists(|| checked.verify_lists());
        Ok(())
    });
    if let Err(error) = work.await {
        tracing::debug!(url = sidecar.url(), %error, "a sidecar was not checked");
    }
}
