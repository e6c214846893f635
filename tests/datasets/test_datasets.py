"""People's files in: identifiers are text to the letter, and whatever is wrong is one sentence with row and column."""

from __future__ import annotations

import csv
import io
import resource
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsim_llm.datasets import Limits, read_interactions, read_items, read_table, read_users
from recsim_llm.errors import ConfigError, DataError

LISTED = [
    *("007", "7", "1e5", "100000", "4e492493924924", "NA", "N/A", "None", "null", "nan", "NaN", "true", "True", "-0"),
    *("0.0", "1_000", "9" * 40, " 7", "7 ", "+7", "0x1f", "caf\u00e9", "cafe\u0301", "\u200b7", "ё", "日本語", "🎬"),
    *(
        'a"b',
        '"',
        '""',
        "a,b",
        "a;b",
        "a\tb",
        "two\nlines",
        "two\r\nlines",
        "'",
        "=1+1",
        "\\",
        "\ufeffid",
        "2018-09-26",
    ),
    *("1999-99-99", "99999999999999999999-01-01", "#N/A", "-nan", "inf", "1e999", "\u2028", "\x7f"),
]
ID = st.one_of(
    st.sampled_from(LISTED),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1, max_size=20),
)


def write(folder: Path, text: str | bytes, name: str = "items.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def message(call: object, *arguments: object, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        call(*arguments, **options)  # type: ignore[operator]
    text = str(caught.value)
    assert "\n" not in text
    return text


# ------------------------------------------------------------------------------------------------------ round trips


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(ID, min_size=1, max_size=12, unique=True),
    separator=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.booleans(),
    quoted=st.booleans(),
)
def test_identifiers_in_csv_come_back_to_the_letter(
    tmp_path: Path, ids: list[str], separator: str, end: str, mark: bool, quoted: bool
) -> None:
    sink = io.StringIO(newline="")
    style = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    writer = csv.writer(sink, delimiter=separator, lineterminator=end, quoting=style)
    writer.writerows([["item_id", "text"], *([name, "a film"] for name in ids)])
    path = write(tmp_path, ("\ufeff" if mark else "") + sink.getvalue())
    assert read_items(path).item_id == ids


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(ID, min_size=1, max_size=12, unique=True), dictionary=st.booleans())
def test_identifiers_in_parquet_come_back_to_the_letter(tmp_path: Path, ids: list[str], dictionary: bool) -> None:
    names = pa.array(ids).dictionary_encode() if dictionary else pa.array(ids)
    pq.write_table(pa.table({"item_id": names, "text": ["a film"] * len(ids)}), tmp_path / "items.parquet")
    assert read_items(tmp_path / "items.parquet").item_id == ids


def test_listed_identifiers_stay_distinct(tmp_path: Path) -> None:
    sink = io.StringIO(newline="")
    csv.writer(sink).writerows([["item_id", "text"], *([name, "a film"] for name in LISTED)])
    assert read_items(write(tmp_path, sink.getvalue())).item_id == LISTED


def test_integers_of_parquet_are_text_and_floats_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": [7, 2**62], "text": ["a", "b"]}), path)
    assert read_items(path).item_id == ["7", str(2**62)]
    pq.write_table(pa.table({"item_id": [7.0, 8.0], "text": ["a", "b"]}), path)
    assert 'row 1, column "item_id"' in message(read_items, path)


def test_row_numbers_stand_in_for_missing_identifiers(tmp_path: Path) -> None:
    assert read_items(write(tmp_path, "text\none\ntwo\n")).item_id == ["1", "2"]


# ------------------------------------------------------------------------------------------- bad input of items, users

BAD_ITEMS = {
    "missing text": ("item_id,title\n1,a\n", ["row 1", '"text"', "title"]),
    "empty text": ("item_id,text\n1,a\n2,\n", ["row 3", '"text"', "empty"]),
    "blank text": ("item_id,text\n1,a\n\n2,  \n", ["row 4", '"text"', "empty"]),
    "duplicate id": ("item_id,text\n1,a\n2,b\n1,c\n", ["row 4", '"item_id"', "'1'", "row 2"]),
    "empty id": ("item_id,text\n1,a\n,b\n", ["row 3", '"item_id"', "empty"]),
    "NaN": ("item_id,text,price\n1,a,2\n2,b,NaN\n", ["row 3", '"price"', "'NaN'"]),
    "infinite": ("item_id,text,price\n1,a,inf\n", ["row 2", '"price"', "'inf'"]),
    "overflow": ("item_id,text,price\n1,a,1e999\n", ["row 2", '"price"', "'1e999'"]),
    "comma for point": ("item_id;text;price\n1;a;1,5\n", ["row 2", '"price"', "'1,5'", "point"]),
    "negative price": ("item_id,text,price\n1,a,-1\n", ["row 2", '"price"', "at least 0"]),
    "date": ("item_id,text,released_at\n1,a,2018-01-01\n2,b,2018-13-01\n", ["row 3", '"released_at"', "2018-13-01"]),
    "ragged": ("item_id,text\n1,a\n2,b,c\n", ["row 3", "3 values", "header 2"]),
    "two columns of one name": ("text,text\na,b\n", ["row 1", "'text'"]),
    "no rows": ("item_id,text\n", ["no rows"]),
    "blank header": ("\nitem_id,text\n1,a\n", ["row 1", "blank"]),
    "open quotation": ('item_id,text\n1,"a\n2,b\n', ["quotation"]),
    "open quotation at the end": ('item_id,text\n1,"a', ["quotation"]),
}


@pytest.mark.parametrize("case", BAD_ITEMS)
def test_bad_items_are_one_sentence_with_row_and_column(tmp_path: Path, case: str) -> None:
    content, parts = BAD_ITEMS[case]
    text = message(read_items, write(tmp_path, content))
    assert text.startswith("items.csv")
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("item_id,text\n1,ok\n2,caf\u00e9\n".encode("latin-1"), "row 3: byte 23 (0xe9)"),
        ("item_id,text\n1,a\n".encode("utf-16"), "row 1: byte 0 (0xff)"),
        (b"item_id,text\n1,a\0\n", "row 2: byte 16 (0x00)"),
        (b"item_id,text\n1,a\xe2\x82", "row 2"),
        (b"item_id,text\n" + b"1,a\n" * 300_000 + b"2,\xff\n", "row 300002: byte 1200015 (0xff)"),
    ],
)
def test_wrong_encoding_names_row_and_byte(tmp_path: Path, content: bytes, place: str) -> None:
    text = message(read_items, write(tmp_path, content))
    assert place in text
    assert "UTF-8" in text


def test_a_character_across_two_reads_is_no_error(tmp_path: Path) -> None:
    filler = "item_id,text\n" + "1" * ((1 << 20) - 14) + ","  # the next character straddles a chunk of 1 MiB
    path = write(tmp_path, filler + "\u20ac\n")
    assert read_items(path).text == ["\u20ac"]


def test_images_stay_inside_the_folder_of_the_file(tmp_path: Path) -> None:
    inside, outside = tmp_path / "mine", tmp_path / "secret.png"
    inside.mkdir()
    outside.write_bytes(b"png")
    (inside / "cover.png").write_bytes(b"png")
    (inside / "link.png").symlink_to(outside)
    (inside / "folder").symlink_to(tmp_path)
    assert read_items(write(inside, "text,image\na,cover.png\nb,\n")).image == ["cover.png", None]
    for bad in ("../secret.png", "link.png", "folder/secret.png", str(outside), "x/../../secret.png"):
        text = message(read_items, write(inside, f"text,image\na,cover.png\nb,{bad}\n"))
        assert 'row 3, column "image"' in text
        assert "outside" in text
    for bad in ("none.png", "https://example.org/a.png", "folder", "a" * 5000):
        assert 'row 3, column "image"' in message(read_items, write(inside, f"text,image\na,cover.png\nb,{bad}\n"))


def test_texts_are_joined_from_columns_and_tags(tmp_path: Path) -> None:
    path = write(tmp_path, "movieId,title,genres\n1,Heat (1995),Action|Crime\n2,Up,(no genres listed)\n")
    tags = write(tmp_path, "userId,movieId,tag\n9,1,Heist\n8,1,heist\n8,1,Pacino\n", "tags.csv")
    items = read_items(path, text_columns=["title", "genres"], tags=tags)
    assert items.text == ["Heat (1995). Action, Crime. heist, pacino.", "Up."]
    assert items.category == ["Action", ""]
    assert items.title == ["Heat (1995)", "Up"]
    assert "text_columns title,genres" in message(read_items, path)
    assert "Did you mean 'genres'" in message(read_items, path, text_columns=["title", "genre"])
    stray = write(tmp_path, "movieId,tag\n3,x\n", "stray.csv")
    assert 'row 2, column "movieId"' in message(read_items, path, text_columns=["title"], tags=stray)


def test_dates_become_days_before_the_newest(tmp_path: Path) -> None:
    path = write(tmp_path, "text,released_at\na,2018-01-01\nb,2018-01-03T12:00:00Z\nc,\n")
    np.testing.assert_allclose(read_items(path).released_at, [-2.5, 0.0, 0.0])
    np.testing.assert_allclose(read_items(write(tmp_path, "text,released_at\na,-4\nb,\n")).released_at, [-4.0, 0.0])


def test_titles_default_to_the_first_words(tmp_path: Path) -> None:
    assert read_items(write(tmp_path, "text\none two three four five six seven eight nine\n")).title == [
        "one two three four five six seven eight"
    ]


def test_users_with_personas_and_statements(tmp_path: Path) -> None:
    sink = io.StringIO(newline="")
    csv.writer(sink).writerows(
        [
            ["userId", "persona", "statements", "gender"],
            ["007", "I like jazz", "", "f"],
            ["7", "", '[["metal", -1]]', ""],
        ]
    )
    users = read_users(write(tmp_path, sink.getvalue(), "users.csv"))
    assert users.user_id == ["007", "7"]
    assert users.persona == ["I like jazz", ""]
    assert users.statements == [[], [("metal", -1.0)]]
    assert users.gender == ["f", ""]


@pytest.mark.parametrize(
    "cell",
    ["jazz", '{"jazz": 1}', '[["jazz", 2]]', '[["jazz", NaN]]', '[["jazz"]]', '[["", 1]]', '[["a", true]]', "[" * 9999],
)
def test_bad_statements_name_their_row(tmp_path: Path, cell: str) -> None:
    sink = io.StringIO(newline="")
    csv.writer(sink).writerows([["user_id", "statements"], ["1", ""], ["2", cell]])
    text = message(read_users, write(tmp_path, sink.getvalue(), "users.csv"))
    assert 'users.csv, row 3, column "statements"' in text


# -------------------------------------------------------------------------------------------------------- interactions


def ratings(folder: Path, content: str) -> Path:
    return write(folder, content, "ratings.csv")


def test_ratings_point_into_items_and_users(tmp_path: Path) -> None:
    path = ratings(tmp_path, "userId,movieId,rating,timestamp\nB,2,4.5,10\nA,1,3,11\nB,1,1,12\n")
    log, users = read_interactions(path, ["1", "2"])
    assert users == ["B", "A"]
    assert log.user.tolist() == [0, 1, 0]
    assert log.item.tolist() == [1, 0, 0]
    assert log.value.tolist() == [4.5, 3.0, 1.0]
    assert (log.kind, log.dropped) == ("rating", 0)
    log, users = read_interactions(path, ["1", "2"], ["A", "B", "C"])
    assert users == ["A", "B", "C"]
    assert log.user.tolist() == [1, 0, 1]


def test_the_latest_rating_counts_and_every_click_does(tmp_path: Path) -> None:
    log, _ = read_interactions(ratings(tmp_path, "user,item,rating,time\na,1,5,9\na,1,2,3\n"), ["1"])
    assert (log.value.tolist(), log.dropped) == ([5.0], 1)
    log, _ = read_interactions(ratings(tmp_path, "user,item,click\na,1,true\na,1,0\n"), ["1"])
    assert (log.value.tolist(), log.kind) == ([1.0, 0.0], "click")
    log, _ = read_interactions(ratings(tmp_path, "user,item\na,1\na,1\n"), ["1"])
    assert (log.value.tolist(), log.kind) == ([1.0, 1.0], "click")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("user,item,rating\na,1,4\na,3,4\n", ["row 3", '"item"', "'3'", "drop"]),
        ("user,item,rating\na,1,4\nz,1,4\n", ["row 3", '"user"', "'z'", "drop"]),
        ("user,item,rating\na,01,4\n", ["row 2", '"item"', "'01'"]),
        ("user,item,rating\na,1,\n", ["row 2", '"rating"', "''"]),
        ("user,item,rating\na,1,NaN\n", ["row 2", '"rating"', "'NaN'"]),
        ("user,item,click\na,1,2\n", ["row 2", '"click"', "'2'"]),
        ("user,item,rating,time\na,1,4,soon\n", ["row 2", '"time"', "'soon'"]),
        ("who,item,rating\na,1,4\n", ["row 1", '"user"', "'who'"]),
        ("user,what,rating\na,1,4\n", ["row 1", '"item"', "'what'"]),
        ("user,item,rating\n", ["no rows"]),
    ],
)
def test_bad_interactions_are_one_sentence_with_row_and_column(tmp_path: Path, content: str, parts: list[str]) -> None:
    text = message(read_interactions, ratings(tmp_path, content), ["1", "2"], ["a"])
    for part in ["ratings.csv", *parts]:
        assert part in text


def test_unknown_rows_can_be_dropped(tmp_path: Path) -> None:
    path = ratings(tmp_path, "user,item,rating\na,1,4\nb,9,4\nc,1,2\n")
    log, users = read_interactions(path, ["1"], drop_unknown=True)
    assert (users, log.user.tolist(), log.dropped) == (["a", "c"], [0, 1], 1)
    assert "no row names a known user" in message(read_interactions, path, ["5"], drop_unknown=True)


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = ratings(tmp_path, "who;what;how much\na;1;3\n")
    named = {"user": "who", "item": "what", "rating": "how much"}
    log, _ = read_interactions(path, ["1"], columns=named)
    assert log.value.tolist() == [3.0]
    assert "Did you mean 'what'" in message(read_interactions, path, ["1"], columns={**named, "item": "wat"})
    with pytest.raises(ConfigError, match="no column role 'stars'"):
        read_interactions(path, ["1"], columns={"stars": "how much"})


# -------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        (Limits(rows=2), "rows"),
        (Limits(columns=1), "columns"),
        (Limits(field_bytes=4), "field_bytes"),
        (Limits(total_bytes=9), "total_bytes"),
    ],
)
def test_limits_are_named_and_can_be_raised(tmp_path: Path, limits: Limits, word: str) -> None:
    path = write(tmp_path, "item_id,text\n1,a\n2,bb\n3,ccccccc\n")
    assert f"Limits({word}=...)" in message(read_table, path, limits)
    table = pa.table({"item_id": ["1", "2", "3"], "text": ["a", "bb", "ccccccc"]})
    pq.write_table(table, tmp_path / "items.parquet")
    assert f"Limits({word}=...)" in message(read_table, tmp_path / "items.parquet", limits)
    assert len(read_table(path)) == len(read_table(tmp_path / "items.parquet")) == 3


def test_field_limit_names_row_and_column(tmp_path: Path) -> None:
    text = message(read_table, write(tmp_path, "a,b\n1,x\n2,yyyyy\n"), Limits(field_bytes=4))
    assert 'row 3, column "b"' in text


def test_a_small_parquet_file_of_many_rows_is_refused_from_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"text": pa.array(["x"]).take(pa.array(np.zeros(3_000_000, np.int32)))}), path)
    assert path.stat().st_size < 100_000
    start = time.perf_counter()
    assert "3,000,000 rows" in message(read_table, path, Limits(rows=1_000_000))
    assert time.perf_counter() - start < 1


def test_a_long_value_repeated_many_times_is_measured_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(500_000, np.int32)), pa.array(["x" * 500_000]))
    pq.write_table(pa.table({"text": long}), path)  # 250 GB unpacked
    assert path.stat().st_size < 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "Limits(total_bytes=...)" in message(read_table, path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    assert 'row 1, column "text"' in message(read_table, path, Limits(field_bytes=1000))


def test_a_header_of_a_million_columns_is_refused(tmp_path: Path) -> None:
    assert "Limits(columns=...)" in message(read_table, write(tmp_path, ",".join(map(str, range(1_000_000))) + "\n1\n"))


def test_what_is_no_table_is_a_data_error(tmp_path: Path) -> None:
    assert "no such file" in message(read_table, tmp_path / "none.csv")
    assert "is not a file" in message(read_table, tmp_path)
    assert "empty" in message(read_table, write(tmp_path, ""))
    assert "gzip" in message(read_table, write(tmp_path, b"\x1f\x8b\x08\0aaaa"))
    assert "Parquet" in message(read_table, write(tmp_path, "a,b\n1,2\n", "x.parquet"))
    nested = tmp_path / "nested.parquet"
    pq.write_table(pa.table({"text": [[1, 2]]}), nested)
    assert "no column holds text" in message(read_table, nested)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_mutated_files_are_read_or_refused_and_nothing_else(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(5)
    path = tmp_path / f"items.{kind}"
    if kind == "csv":
        path.write_text('item_id,text,price\n1,"a, b",2\n2,"c ""d""",3.5\n3,\u00e9t\u00e9,1e2\n')
    else:
        pq.write_table(pa.table({"item_id": ["1", "2"], "text": ["a", "b"], "price": [1.0, 2.0]}), path)
    original = path.read_bytes()
    outcomes = set()
    for _ in range(300):
        content = bytearray(original)
        for _ in range(int(rng.integers(1, 5))):
            content[int(rng.integers(len(content)))] = int(rng.integers(256))
        path.write_bytes(bytes(content[: int(rng.integers(1, len(content) + 1))] if rng.random() < 0.3 else content))
        try:
            read_items(path, limits=Limits(rows=1000, total_bytes=1 << 20))
            outcomes.add("read")
        except DataError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}
