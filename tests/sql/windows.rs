//! Windows, ordered aggregates and QUALIFY over generated searches.

use rand::Rng;
use rand::rngs::StdRng;

use crate::query::{Distance, Expected, Query};
use crate::shapes::{limit, where_clause};
use crate::world::World;

/// Functions over the rows of a search, ordered by the distance; ties are broken, so that the answer is one.
///
/// A column that such a function gives is named or does not come out: the name that DataFusion makes up for it shows its
/// keys as they are printed, and long array literals are folded in it.
pub(crate) fn windowed(rng: &mut StdRng, world: &World, distance: &Distance) -> Query {
    let call = &distance.call;
    let filter = where_clause(rng, world.partitioned, distance, 0.4);
    let (order, k) = (distance.order(rng), limit(rng, world.rows));
    let top = format!("(SELECT * FROM t{filter} ORDER BY {call}{order}, id LIMIT {k}) AS s");
    let by = format!("{call}{}, id", distance.order(rng));
    let bound = f64::from(rng.random_range(0..8)) / 4.0;
    let kind = rng.random_range(0..14);
    // An aggregate ordered by a subquery's result fails in DataFusion wherever its plan has two stages: it names the
    // columns of its state by an expression that prints otherwise before and after the subquery has run.
    let of_two_stages = [2, 3, 6, 9].contains(&kind);
    let (ordered, sql) = match if of_two_stages && call.contains("SELECT") { 0 } else { kind } {
        0 => (
            false,
            format!(
                "SELECT id, lag(id) OVER (ORDER BY {by}) AS l, first_value(num) OVER (ORDER BY {by}) AS f FROM {top}"
            ),
        ),
        1 => (
            false,
            format!("SELECT id FROM {top} QUALIFY row_number() OVER (ORDER BY {by}) <= 3"),
        ),
        2 => (false, format!("SELECT array_agg(id ORDER BY {by}) AS a FROM {top}")),
        3 => (
            false,
            format!(
                "SELECT cat, array_agg(id ORDER BY {by}) AS a, first_value(num ORDER BY {by}) AS f FROM {top} GROUP BY cat"
            ),
        ),
        4 => (
            false,
            format!(
                "SELECT num, count(*) FILTER (WHERE {call} < {bound}) AS n, sum(id) AS s FROM {top} GROUP BY num"
            ),
        ),
        5 => (
            false,
            format!("SELECT id, sum(id) OVER (PARTITION BY cat ORDER BY {by}) AS s, {call} AS d FROM {top}"),
        ),
        6 => (
            true,
            format!("SELECT DISTINCT ON (cat) cat, id, {call} AS d FROM {top} ORDER BY cat, {by}"),
        ),
        7 => (
            false,
            format!("SELECT id FROM t{filter} QUALIFY row_number() OVER (PARTITION BY cat ORDER BY {by}) = 1"),
        ),
        8 => (
            true,
            format!(
                "SELECT count(*) AS n FROM (SELECT id, row_number() OVER (ORDER BY {by}), lag(num) OVER (ORDER BY {by})
                 FROM {top})"
            ),
        ),
        9 => (
            true,
            format!("SELECT count(*) AS n FROM (SELECT array_agg(id ORDER BY {by}), max(id) FROM {top})"),
        ),
        10 => (
            false,
            format!(
                "SELECT id, count(*) FILTER (WHERE {call} >= {bound}) OVER (PARTITION BY num ORDER BY {by}) AS n FROM {top}"
            ),
        ),
        11 => (
            true,
            format!(
                "SELECT id, rank() OVER (ORDER BY {by}) AS r, {call} AS d FROM t{filter} ORDER BY {by} LIMIT {k}"
            ),
        ),
        12 => (
            true,
            format!(
                "SELECT id FROM t{filter} QUALIFY row_number() OVER (ORDER BY {by}) <= 4 ORDER BY {call}{order}, id LIMIT {k}"
            ),
        ),
        _ => (
            true,
            format!(
                "SELECT s.id, r FROM (SELECT id, ntile(3) OVER (ORDER BY {by}) AS r FROM {top}) AS s
                 ORDER BY r, s.id LIMIT 5"
            ),
        ),
    };
    Query {
        expected: Expected::Same { ordered },
        ..Query::plain(&sql)
    }
}
