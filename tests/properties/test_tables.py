"""Laws of reading tables: a table reads the same however it is written; changes are detected or refused."""

import csv
import gzip
import io
import math
import shutil

import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mammo_lib.data.cbis_ddsm import tables as t
from mammo_lib.errors import LONGEST_MESSAGE, InputError
from mammo_lib.files import LONGEST_NAME, UNKNOWN, read_table, safe_name, with_numbers

# Anything that UTF-8 can hold but a NUL; no cell of spaces only, which is an unknown value.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
CELLS = st.one_of(st.sampled_from([*UNKNOWN, " N/A ", "a,b", "a;b", 'a"b', "a\nb", "0"]), TEXT)
NAMES = st.lists(st.from_regex(r"[a-z]{1,6}( [a-z]{1,6})?", fullmatch=True), min_size=2, max_size=4, unique=True)
STYLES = st.fixed_dictionaries({
    "separator": st.sampled_from(",;\t"), "line": st.sampled_from(("\n", "\r\n")), "mark": st.booleans(),
    "declared": st.booleans(), "quoted": st.booleans(), "packed": st.booleans(), "blank": st.integers(0, 2),
})  # fmt: skip


def write(path, rows, style):
    """Write rows, the header first, as a spreadsheet or a script may; return the path."""
    stream = io.StringIO(newline="")
    stream.write(f"sep={style['separator']}{style['line']}" if style["declared"] else "")
    quoting = csv.QUOTE_ALL if style["quoted"] else csv.QUOTE_MINIMAL
    writer = csv.writer(stream, delimiter=style["separator"], lineterminator=style["line"], quoting=quoting)
    writer.writerows([rows[0], *[[""] * len(rows[0])] * style["blank"], *rows[1:]])
    content = stream.getvalue().encode("utf-8-sig" if style["mark"] else "utf-8")
    path = path.with_name(path.name + ".gz") if style["packed"] else path
    path.write_bytes(gzip.compress(content, 1) if style["packed"] else content)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@given(names=NAMES, style=STYLES, data=st.data())
def test_any_cells_in_any_form_of_csv_are_read_as_they_are(folder, names, style, data):
    row = st.lists(CELLS, min_size=len(names), max_size=len(names)).filter(lambda cells: any(c.strip() for c in cells))
    rows = data.draw(st.lists(row, max_size=4))
    path = write(folder / "a.csv", [names, *rows], style)
    found = read_table(path, names)
    assert list(found.columns) == names
    expected = [[None if cell.strip() in UNKNOWN else cell for cell in one] for one in rows]
    assert found.astype(object).where(found.notna(), None).to_numpy().tolist() == expected
    assert (found.index >= style["blank"]).all()


@given(st.lists(st.one_of(st.integers(-(2**40), 2**40), st.floats(-1e9, 1e9)), min_size=1, max_size=6))
def test_numbers_are_read_as_they_were_written(folder, numbers):
    path = write(folder / "n.csv", [["x", "y"], *[[repr(one), "y"] for one in numbers]], DEFAULT)
    assert with_numbers(path, read_table(path), ["x"])["x"].tolist() == pytest.approx(numbers, rel=1e-15)


DEFAULT = {"separator": ",", "line": "\n", "blank": 0} | dict.fromkeys(("mark", "declared", "quoted", "packed"), False)


@given(st.text(max_size=300))
def test_a_safe_name_is_one_part_of_a_path_and_stays_as_it_is(text):
    name = safe_name(text)
    assert name and len(name.encode()) <= LONGEST_NAME + 1 and not name.startswith((".", "-"))
    assert not set(name) & set('/\\:*?"<>|\0\n') and not name.endswith((".", " "))
    assert safe_name(name) == name


@given(st.text(max_size=3000))
def test_an_error_is_one_line_of_bounded_length(text):
    line = str(InputError(text))
    assert len(line) <= LONGEST_MESSAGE and line.isprintable() and len(line.splitlines()) <= 1


@pytest.fixture(scope="module")
def published(phantom_of, tmp_path_factory):
    """The rows of a small phantom's tables, the header first, and the tidy table that they are read as."""
    root = tmp_path_factory.mktemp("published")
    for path in phantom_of().glob(t.TABLE_PATTERN):
        shutil.copy(path, root)
    return {path.name: rows_of(path) for path in root.glob(t.TABLE_PATTERN)}, t.read_tables(root)


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return [*csv.reader(stream)]


@given(style=STYLES, random=st.randoms())
def test_the_order_of_columns_and_rows_and_the_form_of_csv_do_not_count(published, folder, style, random):
    tables, table = published
    root = folder / "other"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, (header, *rows) in tables.items():
        order = random.sample(range(len(header)), len(header))
        shuffled = random.sample(rows, len(rows))
        write(root / name, [[one[i] for i in order] for one in (header, *shuffled)], style)
    assert t.table_fingerprint(t.read_tables(root)) == t.table_fingerprint(table)


# What a cell becomes: another word of its vocabulary or a near miss, another number, or anything at all.
WORDS = [word for words in t.VOCABULARY.values() for word in words]
CHANGED = st.one_of(st.sampled_from([*UNKNOWN, *WORDS, "benign", "1.0", "-1", "6", "1e3", "P_00001", "P_1"]), TEXT)


@given(data=st.data(), changed=CHANGED)
def test_a_changed_cell_is_refused_or_changes_that_cell_alone(published, folder, data, changed):
    """Nothing else moves, no row is lost, and a value outside its vocabulary never gets through."""
    tables, table = published
    root = folder / "changed"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    name = data.draw(st.sampled_from(sorted(tables)))
    header, *rows = tables[name]
    row, column = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, len(header) - 1))
    rows = [list(one) for one in rows]
    rows[row][column] = changed
    for other, content in tables.items():
        write(root / other, [header, *rows] if other == name else content, DEFAULT)
    ours = t.COLUMNS | t.OPTIONAL | dict.fromkeys(t.DENSITY_SPELLINGS, "density")
    if (target := ours.get(header[column])) is None:
        assume(False)
    try:
        found = t.read_tables(root)
    except InputError as error:
        assert str(root) in str(error) and "\n" not in str(error)
        return
    assert len(found) == len(table)
    names = table.columns.drop(["repairs", target])
    pd.testing.assert_frame_equal(found[names], table[names])
    differs = (found[target].fillna(math.inf) if target in t.SCALES else found[target].fillna("")) != (
        table[target].fillna(math.inf) if target in t.SCALES else table[target].fillna("")
    )
    assert differs.sum() <= 1
    if target in t.VOCABULARY:
        assert found[target].isin(t.VOCABULARY[target]).all()
    if target in t.SCALES:
        low, high = t.SCALES[target]
        assert found[target].dropna().between(low, high or math.inf).all()
