"""Takes the rows of packages.parquet from a larger file of Debian packages.

    python make_packages.py LARGER.parquet packages.parquet

Kept are programs that a person would install and recognise, so that the answer to "packages
similar to X" can be judged; libraries, documentation and translations of other packages are not.
Row groups of 1,000 rows and pages of 50, with a page index: a query that wants ten rows reads ten
small pages.
"""

import re
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROWS = 3_000
DIM = 384

# In order of preference: the last sections fill up what the first ones leave.
SECTIONS = """
    games graphics sound video editors text web mail math science database electronics gnome kde xfce
    x11 vcs shells tex hamradio education fonts utils net misc admin interpreters httpd comm news
    devel lisp gnustep otherosfs embedded tasks
""".split()

NOT_A_PROGRAM = re.compile(
    r"-(doc|docs|dev|dbg|data|common|l10n|i18n|locale|help|examples|tests|plugins?)\b|^lib|-l10n-|-help-|^task-|^tesseract-ocr-"
    r"|-cross$|^gcc-|^g\+\+-|^gfortran-|^gnat-|^gdc-|^gobjc|^cpp-|^binutils-|^linux-|^texlive-lang|^hunspell-|^myspell-|^aspell-"
)


def main(larger, output):
    table = pq.read_table(larger)
    keep = [i for i, name in enumerate(table["package"].to_pylist()) if not NOT_A_PROGRAM.search(name)]
    table = table.take(keep)

    rank = {section: place for place, section in enumerate(SECTIONS)}
    ranked = [(rank[s], i) for i, s in enumerate(table["section"].to_pylist()) if s in rank]
    table = table.take(sorted(i for _, i in sorted(ranked)[:ROWS]))

    vectors = table["embedding"].combine_chunks().flatten().cast(pa.float32())
    table = pa.table(
        {
            "id": pa.array(range(table.num_rows), pa.int64()),
            "package": table["package"],
            "section": table["section"],
            "installed_size": table["installed_size"],
            # The first sentence or so is enough to recognise a program by.
            "description": pc.utf8_slice_codeunits(table["description"], 0, 400),
            "embedding": pa.FixedSizeListArray.from_arrays(vectors, DIM),
        }
    )
    pq.write_table(
        table,
        output,
        row_group_size=1_000,
        max_rows_per_page=50,
        write_batch_size=50,
        compression={"embedding.list.element": "none"} | {c: "zstd" for c in table.column_names[:-1]},
        use_dictionary=["section"],
        write_page_index=True,
        store_schema=True,
    )
    print(f"{output}: {table.num_rows} rows")


if __name__ == "__main__":
    main(*sys.argv[1:])
