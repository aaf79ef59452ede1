//! Prepares a query for the beam search: over codes, or over vectors where codes would mislead.

use crate::hnsw::config::StoredVectors;
use crate::hnsw::graph::distance_computer::{CodeSpace, FloatSpace};
use crate::hnsw::kernels::{Isa, QueryCode};
use crate::hnsw::parts::Parts;
use crate::hnsw::quantize::rounding::Rounding;
use crate::hnsw::query_vector::Query;

/// What the walk looks at.
pub(crate) enum Walk<'s> {
    Codes(&'s CodeSpace<'s>, Rounding),
    /// And the code that is nearest to the query, if there are codes, but none near it.
    Floats(&'s FloatSpace<'s>, Option<&'s CodeSpace<'s>>),
}

/// Prepares the query for the walk: over the codes, unless there are none or they would mislead.
pub(crate) fn with_space<T>(
    parts: &Parts<'_>,
    query: &Query<'_>,
    code: &mut Vec<u8>,
    run: impl FnOnce(Walk<'_>) -> T,
) -> T {
    let isa = Isa::best();
    let floats = FloatSpace {
        isa,
        metric: parts.metric,
        query,
        vectors: parts.vectors,
    };
    let Some((codebook, codes)) = parts.codes else {
        return run(Walk::Floats(&floats, None));
    };
    code.resize(codes.stride, 0);
    let fits = codebook.encode_query(query.vector, code);
    let space = CodeSpace {
        isa,
        query: QueryCode::new(codebook.metric, code),
        codes,
    };
    if fits || parts.vectors.stored == StoredVectors::None {
        run(Walk::Codes(&space, Rounding::of(&codebook, query)))
    } else {
        run(Walk::Floats(&floats, Some(&space)))
    }
}
