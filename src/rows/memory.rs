//! Memory that is registered with DataFusion's pool for as long as a value lives.

use std::hash::Hash;
use std::ops::Deref;
use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

/// A value, and the memory it was granted.
#[derive(Debug)]
pub(crate) struct Held<T> {
    value: T,
    _memory: MemoryReservation,
}

impl<T> Held<T> {
    pub(crate) fn new(value: T, memory: MemoryReservation) -> Self {
        Self {
            value,
            _memory: memory,
        }
    }
}

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Takes so many bytes of the pool.
///
/// # Errors
///
/// "Resources exhausted", as everywhere in DataFusion, if it does not have them.
pub(crate) fn take(pool: &Arc<dyn MemoryPool>, who: &str, bytes: usize) -> Result<MemoryReservation> {
    let memory = MemoryConsumer::new(who).register(pool);
    memory.try_grow(bytes)?;
    Ok(memory)
}

/// Takes so many bytes for something that is only kept because it may be useful again.
///
/// Others cannot make a cache give way, so it may not fill more than half of a pool that has a limit.
pub(crate) fn take_to_keep(pool: &Arc<dyn MemoryPool>, who: &str, bytes: usize) -> Option<MemoryReservation> {
    if !has_room_to_keep(pool, bytes) {
        return None;
    }
    take(pool, who, bytes).ok()
}

/// Whether [`take_to_keep`] would give so many bytes.
pub(crate) fn has_room_to_keep(pool: &Arc<dyn MemoryPool>, bytes: usize) -> bool {
    match pool.memory_limit() {
        MemoryLimit::Finite(limit) => pool.reserved().saturating_add(bytes) <= limit / 2,
        MemoryLimit::Infinite | MemoryLimit::Unknown => true,
    }
}

/// A cache of about so many values and this many bytes, in one piece. The usual ones are divided, and no part of
/// them can hold a value that is larger than itself.
pub(crate) fn undivided<K: Eq + Hash, V: Clone, W: Weighter<K, V> + Clone>(
    values: usize,
    bytes: u64,
    weighter: W,
) -> Cache<K, V, W> {
    let options = OptionsBuilder::new()
        .shards(1)
        .estimated_items_capacity(values)
        .weight_capacity(bytes)
        .build()
        .expect("both capacities are set");
    Cache::with_options(
        options,
        weighter,
        DefaultHashBuilder::default(),
        DefaultLifecycle::default(),
    )
}
