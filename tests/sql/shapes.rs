//! The shapes of generated queries: `ORDER BY ... LIMIT` in all its forms, and what is built around it.

use rand::Rng;
use rand::rngs::StdRng;

use crate::query::{Distance, Expected, Query};
use crate::vectors::VectorColumn;
use crate::world::World;

fn predicate(rng: &mut StdRng, partitioned: bool, distance: &Distance, depth: usize) -> String {
    let value = rng.random_range(0..10);
    if depth > 0 && rng.random_bool(0.3) {
        let (left, right) = (
            predicate(rng, partitioned, distance, depth - 1),
            predicate(rng, partitioned, distance, depth - 1),
        );
        return match rng.random_range(0..3) {
            0 => format!("({left} OR {right})"),
            1 => format!("NOT ({left})"),
            _ => format!("{left} AND {right}"),
        };
    }
    match rng.random_range(0..26) {
        22 | 23 => format!("num <> 0 AND 10 / num > {}", value / 2),
        24 => format!("(num = 0 OR 10 / num > {})", value / 3),
        25 => format!("10 / num > {} AND num > 0", value / 3),
        0 => format!("num > {value}"),
        1 => format!("num = {value}"),
        2 => format!("num BETWEEN {} AND {value}", value / 2),
        3 => "num IS NULL".to_string(),
        4 => format!("num IN (1, {value}, NULL)"),
        5 => "cat LIKE 'b%'".to_string(),
        6 => "cat = 'a'".to_string(),
        7 => "flag".to_string(),
        8 => "flag IS NOT TRUE".to_string(),
        9 => format!("id % {} = 0", value + 1),
        10 => format!("id < {}", value * 20),
        11 => format!("id = {value}"),
        12 => "v IS NOT NULL".to_string(),
        13 => format!("{} < {}", distance.call, f64::from(value) / 3.0),
        14 => format!("{} >= {}", distance.call, f64::from(value) / 4.0 - 0.5),
        15 => "length(cat) + num > 3".to_string(),
        16 if partitioned => format!("p = '{}'", value % 2),
        17 => format!("num >= (SELECT min(num) + {} FROM t)", value / 2),
        // NULL, where no row has this number.
        18 => format!("id <> (SELECT max(id) FROM t AS others WHERE others.num = {value})"),
        19 if partitioned => "p = (SELECT max(p) FROM t)".to_string(),
        20 => format!("{} < (SELECT {value} / 3.0)", distance.call),
        _ => "random() < 2.0".to_string(),
    }
}

pub(crate) fn where_clause(rng: &mut StdRng, partitioned: bool, distance: &Distance, likely: f64) -> String {
    if rng.random_bool(likely) {
        format!(" WHERE {}", predicate(rng, partitioned, distance, 2))
    } else {
        String::new()
    }
}

pub(crate) fn limit(rng: &mut StdRng, rows: usize) -> usize {
    let some = [
        0,
        1,
        2,
        3,
        5,
        10,
        10,
        10,
        20,
        rows / 2,
        rows,
        rows + 1,
        1_000_000_000,
    ];
    some[rng.random_range(0..some.len())]
}

/// A query that ends in `ORDER BY ... LIMIT`.
pub(crate) fn ranked(rng: &mut StdRng, world: &World, distance: &Distance) -> Query {
    let key = &distance.key;
    let partition = if world.partitioned { ", p" } else { "" };
    let (with, source) = match rng.random_range(0..10) {
        0 => ("", "t AS x".to_string()),
        1 => ("", "(SELECT * FROM t) AS s".to_string()),
        2 => {
            let inner = where_clause(rng, world.partitioned, distance, 0.7);
            (
                "",
                format!("(SELECT id, num, cat, flag, w, v{partition} FROM t{inner}) AS s"),
            )
        }
        3 => ("", "nearby".to_string()),
        4 => ("WITH s AS (SELECT * FROM t) ", "s".to_string()),
        _ => ("", "t".to_string()),
    };
    let projections = [
        "id".to_string(),
        format!("id, {key} AS d"),
        format!("{key} AS d, id"),
        "*".to_string(),
        "id, num, cat".to_string(),
        "v, id".to_string(),
        format!("id, {key} AS d, v, w"),
        format!("id, {key}, round({}) AS r", distance.call),
        format!("cat, id{partition}"),
    ];
    let mut projection = &projections[rng.random_range(0..projections.len())];
    if projection.contains("round(")
        && ["list_distance", "dot_product"]
            .iter()
            .any(|name| key.contains(name))
    {
        // The name that DataFusion makes up for these is not kept; see `ArrayLiteralFolder`.
        projection = &projections[1];
    }
    let first = match projection.split_once(" AS d") {
        Some(_) if rng.random_bool(0.4) => "d".to_string(),
        Some((before, _)) if rng.random_bool(0.3) => {
            (if before.starts_with("id, ") { "2" } else { "1" }).to_string()
        }
        _ => key.clone(),
    };
    let mut order = vec![format!("{first}{}", distance.order(rng))];
    let mut keys = vec![key.clone()];
    let further: &[&str] = match rng.random_range(0..10) {
        0 | 1 => &["id"],
        2 => &["num", "id DESC"],
        3 => &["cat DESC NULLS LAST"],
        4 => &["num"],
        _ => &[],
    };
    for more in further {
        order.push((*more).to_string());
        keys.push(more.split(' ').next().expect("a name").to_string());
    }
    if rng.random_bool(0.05) {
        order.insert(0, "cat".to_string());
        keys.insert(0, "cat".to_string());
    }
    let filter = where_clause(rng, world.partitioned && source != "nearby", distance, 0.5);
    let limit = rng.random_bool(0.97).then(|| limit(rng, world.rows));
    let offset = if rng.random_bool(0.25) {
        [1, 3, 10, world.rows][rng.random_range(0..4)]
    } else {
        0
    };
    let mut cut = match limit {
        Some(limit) if rng.random_bool(0.1) && offset == 0 => format!(" FETCH FIRST {limit} ROWS ONLY"),
        Some(limit) => format!(" LIMIT {limit}"),
        None => String::new(),
    };
    if offset > 0 {
        cut += &format!(" OFFSET {offset}");
    }
    let order = order.join(", ");
    let numbered = keys
        .iter()
        .enumerate()
        .map(|(number, key)| format!(", {key} AS key_{number}"));
    let numbered: String = numbered.collect();
    let sql = format!("{with}SELECT {projection} FROM {source}{filter} ORDER BY {order}{cut}");
    let all = format!("{with}SELECT {projection}{numbered} FROM {source}{filter} ORDER BY {order}");
    let expected = Expected::Ranked {
        all,
        keys: keys.len(),
        offset,
        limit,
    };
    Query {
        expected,
        ..Query::plain(&sql)
    }
}

/// The same question as a table function, which gives all columns and the distance.
pub(crate) fn by_function(rng: &mut StdRng, world: &World, column: &VectorColumn) -> Query {
    let numbers: Vec<_> = column
        .vector(rng)
        .iter()
        .map(|number| format!("{number:?}"))
        .collect();
    let (name, vector) = (column.name, format!("[{}]", numbers.join(", ")));
    let (metric, distance) = [
        ("l2", format!("array_distance({name}, {vector})")),
        ("cosine", format!("cosine_distance({name}, {vector})")),
        ("ip", format!("-inner_product({name}, {vector})")),
    ][rng.random_range(0..3)]
    .clone();
    let limit = limit(rng, world.rows);
    let columns = ["*", "id, _distance", "_distance, cat, id"][rng.random_range(0..3)];
    let source = format!("(SELECT *, {distance} AS _distance FROM t)");
    let plain = format!("SELECT {columns} FROM {source} ORDER BY _distance LIMIT {limit}");
    let all = format!("SELECT {columns}, _distance AS key_0 FROM {source} ORDER BY _distance");
    let sql =
        format!("SELECT {columns} FROM vector_search('t', '{name}', {vector}, {limit}, 'metric={metric}')");
    Query {
        plain_sql: Some(plain),
        expected: Expected::Ranked {
            all,
            keys: 1,
            offset: 0,
            limit: Some(limit),
        },
        ..Query::plain(&sql)
    }
}

/// The neighbors of several rows, numbered over a cross join; ties are broken.
pub(crate) fn numbered(rng: &mut StdRng, world: &World, column: &VectorColumn) -> Query {
    let name = column.name;
    let (function, direction) = [
        ("array_distance", ""),
        ("cosine_distance", " NULLS FIRST"),
        ("cosine_distance", ""),
        ("inner_product", " DESC"),
        ("inner_product", " DESC NULLS LAST"),
        ("array_distance", " DESC"),
    ][rng.random_range(0..6)];
    let (one, other) = [("a", "b"), ("b", "a")][rng.random_range(0..2)];
    let rows = [
        "",
        " AND b.num > 3",
        " AND b.cat IS NOT NULL",
        " AND b.id % 3 = 0",
        " AND a.id <> b.id",
    ][rng.random_range(0..5)];
    let tables = ["t AS a CROSS JOIN t AS b", "t AS b CROSS JOIN t AS a"][rng.random_range(0..2)];
    let place = ["<=", "<", "="][rng.random_range(0..3)];
    let k = limit(rng, world.rows);
    let first = rng.random_range(0..world.rows.max(1));
    let sql = format!(
        "SELECT seeker, found, place, d FROM (SELECT a.id AS seeker, b.id AS found, {function}({one}.{name}, {other}.{name}) AS d,
            row_number() OVER (PARTITION BY a.id ORDER BY {function}({one}.{name}, {other}.{name}){direction}, b.id) AS place
          FROM {tables} WHERE a.id BETWEEN {first} AND {first} + 4{rows}) WHERE place {place} {k}"
    );
    Query {
        expected: Expected::Same { ordered: false },
        ..Query::plain(&sql)
    }
}

/// A query around one or two of them; ties are broken, so that the answer is one.
pub(crate) fn composed(rng: &mut StdRng, world: &World, column: &VectorColumn, distance: &Distance) -> Query {
    // Between 0.0 and -0.0 DataFusion's own plans do not always choose alike.
    let makes_zeros = ["* 0", "* 1e-320", "round("]
        .iter()
        .any(|wrapper| distance.key.contains(wrapper));
    let key = if makes_zeros {
        &distance.call
    } else {
        &distance.key
    };
    // A minimum among NaN depends on the order of its input.
    let number = format!("CASE WHEN isnan({key}) THEN NULL ELSE {key} END");
    let order = distance.order(rng);
    let filter = where_clause(rng, world.partitioned, distance, 0.4);
    let k = limit(rng, world.rows);
    let top = format!("SELECT id, num, cat, {key} AS d FROM t{filter} ORDER BY d{order}, id LIMIT {k}");
    let name = column.name;
    let (ordered, sql) = match rng.random_range(0..17) {
        0 => (true, format!("SELECT count(*), sum(id), count(d) FROM ({top})")),
        1 => {
            let other =
                format!("SELECT id, num, cat, {key} AS d FROM t WHERE num < 5 ORDER BY 4{order}, id LIMIT 3");
            (false, format!("({top}) UNION ALL ({other})"))
        }
        2 => (
            false,
            format!("SELECT s.id, s.d, u.label FROM ({top}) AS s JOIN u ON s.num = u.num"),
        ),
        3 => (
            false,
            format!("SELECT id FROM t WHERE id IN (SELECT id FROM ({top}))"),
        ),
        4 => (
            false,
            format!("SELECT id, {name} FROM t WHERE id NOT IN (SELECT id FROM ({top}))"),
        ),
        5 => (
            false,
            format!("WITH s AS ({top}) SELECT a.id, b.id, a.d FROM s AS a JOIN s AS b ON a.num = b.num"),
        ),
        6 => (true, format!("SELECT * FROM ({top}) ORDER BY d DESC, id LIMIT 3")),
        7 => (
            true,
            format!("SELECT * FROM ({top}) ORDER BY id LIMIT 5 OFFSET 1"),
        ),
        8 => (
            true,
            format!(
                "SELECT id, row_number() OVER (ORDER BY {key}{order}, id) AS r FROM t{filter} ORDER BY r LIMIT {k}"
            ),
        ),
        9 => (false, format!("SELECT DISTINCT cat FROM ({top})")),
        10 => (
            true,
            format!(
                "SELECT cat, min({number}) AS m, count(*) FROM t{filter} GROUP BY cat ORDER BY m, cat LIMIT {k}"
            ),
        ),
        11 => (
            false,
            format!("SELECT u.num, label, (SELECT min(id) FROM ({top})) AS least FROM u"),
        ),
        12 => (
            true,
            format!(
                "SELECT t.id, u.label, {key} AS d FROM t LEFT JOIN u ON t.num = u.num
                 ORDER BY d{order}, t.id, u.label LIMIT {k}"
            )
            .replace(" + num", " + t.num"),
        ),
        13 => (
            false,
            format!("SELECT id, d FROM ({top}) WHERE num > 3 OR cat IS NULL"),
        ),
        14 => (
            true,
            format!("SELECT * FROM ({top}) AS s ORDER BY d{order}, id LIMIT 4"),
        ),
        15 => (
            false,
            format!("SELECT label FROM u WHERE EXISTS (SELECT 1 FROM ({top}) AS s WHERE s.num = u.num)"),
        ),
        _ => (
            true,
            format!(
                "SELECT id, {key} AS d, array_length({name}) AS n FROM t{filter}
                 ORDER BY d{order}, array_length({name}), id LIMIT {k}"
            ),
        ),
    };
    Query {
        expected: Expected::Same { ordered },
        ..Query::plain(&sql)
    }
}
