//! Generated queries: every way to ask for the nearest rows.

use std::sync::Arc;

use datafusion::arrow::array::Float64Array;
use datafusion::common::ScalarValue;
use datafusion::common::utils::SingleRowListArrayBuilder;
use rand::Rng;
use rand::rngs::StdRng;

use crate::world::{VectorColumn, World};

/// A query and what its answer is compared with.
#[derive(Clone, Debug)]
pub struct Query {
    pub before: Vec<String>,
    pub sql: String,
    /// What a session without the extension is asked, where that is not the same.
    pub plain_sql: Option<String>,
    pub after: Vec<String>,
    pub parameter: Option<ScalarValue>,
    pub expected: Expected,
}

/// DataFusion's functions and the names that others give them.
const OTHER_NAMES: [(&str, &str); 3] = [
    ("array_distance", "l2_distance"),
    ("cosine_distance", "array_cosine_distance"),
    ("inner_product", "array_inner_product"),
];

/// How the answer must agree with that of DataFusion alone.
#[derive(Clone, Debug)]
pub enum Expected {
    /// Rows `offset..offset + limit` of a ranking, up to ties; `all` gives the whole of it with its
    /// `keys` sort keys as the last columns.
    Ranked {
        all: String,
        keys: usize,
        offset: usize,
        limit: Option<usize>,
    },
    /// The same rows.
    Same { ordered: bool },
}

impl Query {
    pub fn generate(rng: &mut StdRng, world: &World, number: u64) -> Self {
        let column = &world.columns[usize::from(rng.random_bool(0.25))];
        let vector = QueryVector::generate(rng, column);
        let distance = Distance::generate(rng, column, &vector.text);
        let mut query = match rng.random_range(0..20) {
            0..13 => ranked(rng, world, &distance),
            13..19 => composed(rng, world, column, &distance),
            _ => by_function(rng, world, column),
        };
        if query.plain_sql.is_some() {
            return query;
        }
        if rng.random_bool(0.1) && !query.sql.contains("round(") {
            query.plain_sql = Some(query.sql.clone());
            for (name, other) in OTHER_NAMES {
                query.sql = query.sql.replace(name, other);
            }
        }
        query.parameter = vector.parameter;
        if let Some(literal) = vector.prepared {
            query.before = vec![format!("PREPARE p{number} AS {}", query.sql)];
            query.after = vec![format!("DEALLOCATE p{number}")];
            query.sql = format!("EXECUTE p{number}({literal})");
            query.plain_sql = None;
            if let Expected::Ranked { all, .. } = &mut query.expected {
                *all = all.replace("$1", &literal);
            }
        }
        query
    }

    /// A statement as it is.
    pub fn plain(sql: &str) -> Self {
        let expected = Expected::Same { ordered: true };
        Self {
            before: vec![],
            sql: sql.to_string(),
            plain_sql: None,
            after: vec![],
            parameter: None,
            expected,
        }
    }

    /// Another statement in the same surroundings.
    pub fn with_sql(&self, sql: &str) -> Self {
        let parameter = if sql.contains("$1") {
            self.parameter.clone()
        } else {
            None
        };
        Self {
            parameter,
            ..Self::plain(sql)
        }
    }

    /// What a session without the extension is asked.
    pub fn for_plain(&self) -> Self {
        Self {
            sql: self.plain_sql.clone().unwrap_or_else(|| self.sql.clone()),
            ..self.clone()
        }
    }

    pub fn describe(&self) -> String {
        let parameter = self
            .parameter
            .as_ref()
            .map(|value| format!("\n$1 = {value}"))
            .unwrap_or_default();
        let lines = self.before.iter().chain([&self.sql]);
        format!("{}{parameter}", lines.cloned().collect::<Vec<_>>().join(";\n"))
    }
}

/// The query vector as SQL.
struct QueryVector {
    text: String,
    parameter: Option<ScalarValue>,
    /// The argument of an `EXECUTE`.
    prepared: Option<String>,
}

impl QueryVector {
    fn generate(rng: &mut StdRng, column: &VectorColumn) -> Self {
        let mut numbers = if rng.random_bool(0.7) {
            column.vector(rng)
        } else {
            (0..column.dim)
                .map(|_| f64::from(rng.random_range(-3..=3)))
                .collect()
        };
        if rng.random_bool(0.02) {
            numbers.push(1.0);
        }
        let integers = numbers.iter().all(|n| n.fract() == 0.0 && n.abs() < 1e9) && rng.random_bool(0.7);
        let number = |n: &f64| {
            if integers {
                format!("{n:.0}")
            } else {
                format!("{n:?}")
            }
        };
        let literal = format!("[{}]", numbers.iter().map(number).collect::<Vec<_>>().join(", "));
        let list = Arc::new(Float64Array::from(numbers.clone()));
        let list = SingleRowListArrayBuilder::new(list).build_list_scalar();
        let text = |text: String| Self {
            text,
            parameter: None,
            prepared: None,
        };
        // Elsewhere DataFusion refuses a list and a large list together.
        let kind = if column.is_large() && rng.random_bool(0.8) {
            5
        } else {
            rng.random_range(0..20)
        };
        match kind {
            0..5 => text(literal),
            5..10 => text(format!("arrow_cast({literal}, '{}')", column.data_type())),
            10..12 => Self {
                text: "$1".to_string(),
                parameter: Some(list),
                prepared: None,
            },
            12..13 => Self {
                text: "$1".to_string(),
                parameter: None,
                prepared: Some(literal),
            },
            13..18 => text(format!(
                "(SELECT {} FROM t AS one WHERE one.id = {})",
                column.name,
                rng.random_range(0..90)
            )),
            18..19 => text(format!("arrow_cast({literal}, 'List(Float32)')")),
            _ => text(format!("make_array({})", literal.trim_matches(['[', ']']))),
        }
    }
}

/// A distance and an expression around it that keeps or turns its order.
struct Distance {
    /// What the query sorts by.
    key: String,
    /// The plain call, for bounds.
    call: String,
    /// Whether ascending is nearest first.
    ascending: bool,
}

impl Distance {
    fn generate(rng: &mut StdRng, column: &VectorColumn, vector: &str) -> Self {
        let (function, nearest_last) = [
            ("array_distance", false),
            ("list_distance", false),
            ("cosine_distance", false),
            ("cosine_distance", false),
            ("inner_product", true),
            ("dot_product", true),
        ][rng.random_range(0..6)];
        let call = if rng.random_bool(0.7) {
            format!("{function}({}, {vector})", column.name)
        } else {
            format!("{function}({vector}, {})", column.name)
        };
        let (key, turned) = match rng.random_range(0..12) {
            0 => (format!("-{call}"), true),
            1 => (format!("1 - {call}"), true),
            2 => (format!("{call} * 2"), false),
            3 => (format!("{call} + num"), false),
            4 => (format!("round({call})"), false),
            _ => (call.clone(), false),
        };
        Self {
            key,
            call,
            ascending: nearest_last == turned,
        }
    }

    fn order(&self, rng: &mut StdRng) -> String {
        let ascending = if rng.random_bool(0.85) {
            self.ascending
        } else {
            !self.ascending
        };
        let direction = match ascending {
            true if rng.random_bool(0.5) => "",
            true => " ASC",
            false => " DESC",
        };
        let nulls = ["", "", "", " NULLS FIRST", " NULLS LAST"][rng.random_range(0..5)];
        format!("{direction}{nulls}")
    }
}

fn predicate(rng: &mut StdRng, distance: &Distance, depth: usize) -> String {
    let value = rng.random_range(0..10);
    if depth > 0 && rng.random_bool(0.3) {
        let (left, right) = (
            predicate(rng, distance, depth - 1),
            predicate(rng, distance, depth - 1),
        );
        return match rng.random_range(0..3) {
            0 => format!("({left} OR {right})"),
            1 => format!("NOT ({left})"),
            _ => format!("{left} AND {right}"),
        };
    }
    match rng.random_range(0..17) {
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
        _ => "random() < 2.0".to_string(),
    }
}

fn where_clause(rng: &mut StdRng, distance: &Distance, likely: f64) -> String {
    if rng.random_bool(likely) {
        format!(" WHERE {}", predicate(rng, distance, 2))
    } else {
        String::new()
    }
}

fn limit(rng: &mut StdRng, rows: usize) -> usize {
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
fn ranked(rng: &mut StdRng, world: &World, distance: &Distance) -> Query {
    let key = &distance.key;
    let partition = if world.partitioned { ", p" } else { "" };
    let (with, source, has_w) = match rng.random_range(0..10) {
        0 => ("", "t AS x".to_string(), true),
        1 => ("", "(SELECT * FROM t) AS s".to_string(), true),
        2 => {
            let inner = where_clause(rng, distance, 0.7);
            (
                "",
                format!("(SELECT id, num, cat, flag, w, v{partition} FROM t{inner}) AS s"),
                true,
            )
        }
        3 => ("", "nearby".to_string(), true),
        4 => ("WITH s AS (SELECT * FROM t) ", "s".to_string(), true),
        _ => ("", "t".to_string(), true),
    };
    debug_assert!(has_w);
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
    let filter = where_clause(rng, distance, 0.5);
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
fn by_function(rng: &mut StdRng, world: &World, column: &VectorColumn) -> Query {
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

/// A query around one or two of them; ties are broken, so that the answer is one.
fn composed(rng: &mut StdRng, world: &World, column: &VectorColumn, distance: &Distance) -> Query {
    let key = &distance.key;
    let order = distance.order(rng);
    let filter = where_clause(rng, distance, 0.4);
    let k = limit(rng, world.rows);
    let top = format!("SELECT id, num, cat, {key} AS d FROM t{filter} ORDER BY d{order}, id LIMIT {k}");
    let name = column.name;
    let (ordered, sql) = match rng.random_range(0..17) {
        0 => (
            true,
            format!("SELECT count(*), sum(id), min(d), max(d) FROM ({top})"),
        ),
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
                "SELECT cat, min({key}) AS m, count(*) FROM t{filter} GROUP BY cat ORDER BY m, cat LIMIT {k}"
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
