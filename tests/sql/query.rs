//! Generated queries: every way to ask for the nearest rows.

use std::sync::Arc;

use datafusion::arrow::array::Float64Array;
use datafusion::common::ScalarValue;
use datafusion::common::utils::SingleRowListArrayBuilder;
use rand::Rng;
use rand::rngs::StdRng;

use crate::shapes::{by_function, composed, numbered, ranked};
use crate::vectors::VectorColumn;
use crate::windows::windowed;
use crate::world::World;

/// A query and what its answer is compared with.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) before: Vec<String>,
    pub(crate) sql: String,
    /// What a session without the extension is asked, where that is not the same.
    pub(crate) plain_sql: Option<String>,
    pub(crate) after: Vec<String>,
    pub(crate) parameter: Option<ScalarValue>,
    pub(crate) expected: Expected,
}

/// DataFusion's functions and the names that others give them.
const OTHER_NAMES: [(&str, &str); 3] = [
    ("array_distance", "l2_distance"),
    ("cosine_distance", "array_cosine_distance"),
    ("inner_product", "array_inner_product"),
];

/// How the answer must agree with that of DataFusion alone.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
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
    pub(crate) fn generate(rng: &mut StdRng, world: &World, number: u64) -> Self {
        let column = &world.columns[usize::from(rng.random_bool(0.25))];
        let vector = QueryVector::generate(rng, column);
        let distance = Distance::generate(rng, column, &vector.text);
        let mut query = match rng.random_range(0..24) {
            0..13 => ranked(rng, world, &distance),
            13..18 => composed(rng, world, column, &distance),
            18..22 => windowed(rng, world, &distance),
            22 => numbered(rng, world, column),
            _ => by_function(rng, world, column),
        };
        if query.plain_sql.is_some() || query.sql.contains("CROSS JOIN") {
            return query;
        }
        if rng.random_bool(0.1) && vector.prepared.is_none() && !query.sql.contains("round(") {
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
            if let Expected::Ranked { all, .. } = &mut query.expected {
                *all = all.replace("$1", &literal);
            }
        }
        query
    }

    /// A statement as it is.
    pub(crate) fn plain(sql: &str) -> Self {
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
    pub(crate) fn with_sql(&self, sql: &str) -> Self {
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
    pub(crate) fn for_plain(&self) -> Self {
        Self {
            sql: self.plain_sql.clone().unwrap_or_else(|| self.sql.clone()),
            ..self.clone()
        }
    }

    /// The same without an error where a number is divided by zero: the answer, if there is one.
    pub(crate) fn without_division_by_zero(&self) -> Self {
        let safe = |sql: &String| sql.replace("10 / num", "10 / nullif(num, 0)");
        Self {
            before: self.before.iter().map(safe).collect(),
            sql: safe(&self.sql),
            plain_sql: self.plain_sql.as_ref().map(safe),
            ..self.clone()
        }
    }

    pub(crate) fn describe(&self) -> String {
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
        let whole = |n: &f64| n.fract() == 0.0 && n.abs() < 1e9;
        let integers = numbers.iter().all(whole) && rng.random_bool(0.7);
        // Integers and one decimal or more among them.
        let mixed = rng.random_bool(0.3);
        let number = |n: &f64| {
            if integers || (mixed && whole(n)) {
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
            rng.random_range(0..22)
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
            18 => text(format!("arrow_cast({literal}, 'List(Float32)')")),
            19 => text("CAST(NULL AS DOUBLE[])".to_string()),
            20 => {
                let strange = ["'NaN'", "'inf'", "'-inf'", "NULL"][rng.random_range(0..4)];
                let rest = ", 0.5".repeat(column.dim - 1);
                text(format!("[CAST({strange} AS DOUBLE){rest}]"))
            }
            _ => text(format!("make_array({})", literal.trim_matches(['[', ']']))),
        }
    }
}

/// A distance and perhaps an expression around it.
pub(crate) struct Distance {
    /// What the query sorts by.
    pub(crate) key: String,
    /// The plain call, for bounds.
    pub(crate) call: String,
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
        // The last five make equal what is not, or turn some of it to NULL or infinity.
        let wrappers = [
            ("-{}", true),
            ("1 - {}", true),
            ("{} * 2", false),
            ("{} / -3", true),
            ("0.5 + {} / 4 - 1", false),
            ("{} + num", false),
            ("abs({})", false),
            ("coalesce({}, 0)", false),
            ("CASE WHEN num > 3 THEN {} END", false),
            ("{} * 0", false),
            ("round({})", false),
            ("{} + 1e16", false),
            ("{} * 1e-320", false),
            ("{} * 1e300", false),
            ("CAST({} AS FLOAT)", false),
        ];
        let (wrapper, turned) = if rng.random_bool(0.3) {
            wrappers[rng.random_range(0..wrappers.len())]
        } else {
            ("{}", false)
        };
        let key = wrapper.replace("{}", &call);
        Self {
            key,
            call,
            ascending: nearest_last == turned,
        }
    }

    pub(crate) fn order(&self, rng: &mut StdRng) -> String {
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
