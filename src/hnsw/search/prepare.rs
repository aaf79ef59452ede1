//! Prepares a query for the beam search: over codes, or over vectors where codes would mislead.

use crate::hnsw::config::StoredVectors;
use crate::hnsw::graph::distance_computer::{CodeDistances, VectorDistances};
use crate::hnsw::kernels::{Isa, QueryCode};
use crate::hnsw::parts::Parts;
use crate::hnsw::quantize::rounding::Rounding;
use crate::hnsw::query_vector::Query;

/// What the beam search compares.
pub(crate) enum SearchOver<'s> {
    Codes(&'s CodeDistances<'s>, Rounding),
    /// Vectors; and the code nearest to the query, if there are codes but the query is outside of their
    /// range.
    Floats(&'s VectorDistances<'s>, Option<&'s CodeDistances<'s>>),
}

/// Runs `run` with the distances of the query: between codes, unless there are none or they would mislead.
pub(crate) fn with_distances<T>(
    parts: &Parts<'_>,
    query: &Query<'_>,
    code: &mut Vec<u8>,
    run: impl FnOnce(SearchOver<'_>) -> T,
) -> T {
    let isa = Isa::best();
    let floats = VectorDistances {
        isa,
        metric: parts.metric,
        query,
        vectors: parts.vectors,
    };
    let Some((codebook, codes)) = parts.codes else {
        return run(SearchOver::Floats(&floats, None));
    };
    code.resize(codes.stride, 0);
    let fits = codebook.encode_query(query.vector, code);
    let computer = CodeDistances {
        isa,
        query: QueryCode::new(codebook.metric, code),
        codes,
    };
    if fits || parts.vectors.stored == StoredVectors::None {
        run(SearchOver::Codes(&computer, Rounding::of(&codebook, query)))
    } else {
        run(SearchOver::Floats(&floats, Some(&computer)))
    }
}
