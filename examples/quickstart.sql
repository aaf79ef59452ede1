-- Which packages are like this one? Run from the root of the repository:
--
--     cargo run --release --features shell -- -f examples/quickstart.sql

-- 3,000 programs of the Debian archive. `embedding` holds 384 numbers for each description, made by
-- a language model so that descriptions with a similar meaning have similar numbers.
CREATE EXTERNAL TABLE IF NOT EXISTS packages STORED AS PARQUET LOCATION 'examples/data/packages.parquet';

-- The index is a file beside the Parquet file, which stays as it is.
CREATE INDEX IF NOT EXISTS packages_idx ON packages USING hnsw (embedding) WITH (metric = 'cosine');

-- From here on it is ordinary SQL: what is like gnuchess?
SELECT package, section, round(cosine_distance(embedding, (SELECT embedding FROM packages WHERE package = 'gnuchess')), 3) AS distance, left(description, 60) AS description
FROM packages
ORDER BY cosine_distance(embedding, (SELECT embedding FROM packages WHERE package = 'gnuchess'))
LIMIT 6;

-- The plan says how each file is searched.
EXPLAIN
SELECT package FROM packages
ORDER BY cosine_distance(embedding, (SELECT embedding FROM packages WHERE package = 'gnuchess'))
LIMIT 6;

-- A filter does not make the answer shorter: what is like the drum machine `hydrogen`, but not a sound program?
SELECT package, section, left(description, 80) AS description
FROM packages
WHERE section <> 'sound'
ORDER BY cosine_distance(embedding, (SELECT embedding FROM packages WHERE package = 'hydrogen'))
LIMIT 5;

-- The same question answered by reading every row, to compare.
SET hnsw.mode = 'off';

SELECT package, section, left(description, 80) AS description
FROM packages
WHERE section <> 'sound'
ORDER BY cosine_distance(embedding, (SELECT embedding FROM packages WHERE package = 'hydrogen'))
LIMIT 5;
