-- Which packages are like this one? Run from the root of the repository:
--
--     cargo run --release --features shell -- -f examples/quickstart.sql

-- 3,000 programs of the Debian archive. `embedding` holds 384 numbers for each description, made by a
-- language model, so that descriptions with a similar meaning have similar numbers.
CREATE EXTERNAL TABLE packages STORED AS PARQUET LOCATION 'examples/data/packages.parquet';

-- The index is a file of its own; the Parquet file stays as it is.
CREATE INDEX IF NOT EXISTS packages_idx ON packages USING hnsw (embedding) WITH (metric = 'cosine');

-- From here on it is ordinary SQL. What is like the chess program `gnuchess`?
SELECT package, section, left(description, 60) AS description,
    cosine_distance(embedding, (SELECT embedding FROM packages WHERE package = 'gnuchess')) AS distance
FROM packages
ORDER BY distance
LIMIT 6;

-- A filter does not make the answer shorter. What is like `git`, and small?
SELECT package, installed_size, left(description, 80) AS description
FROM packages
WHERE installed_size < 200
ORDER BY cosine_distance(embedding, (SELECT embedding FROM packages WHERE package = 'git'))
LIMIT 6;

-- The plan says how each file is searched (VectorScanExec: 1 indexed).
EXPLAIN
SELECT package
FROM packages
WHERE installed_size < 200
ORDER BY cosine_distance(embedding, (SELECT embedding FROM packages WHERE package = 'git'))
LIMIT 6;

-- The same question answered by DataFusion's own plan, which reads every vector. Compare the `Elapsed` lines that the
-- shell prints: the vector of `git` is one row above, and all of them here.
SET hnsw.mode = 'off';

SELECT package, installed_size, left(description, 80) AS description
FROM packages
WHERE installed_size < 200
ORDER BY cosine_distance(embedding, (SELECT embedding FROM packages WHERE package = 'git'))
LIMIT 6;
