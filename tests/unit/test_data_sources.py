"""Reading rows: files, folders, objects, registered sets."""

from __future__ import annotations

import csv
import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from swift_jupyter.engine.data import parse_spec, spool
from swift_jupyter.engine.data.records import rows_of
from swift_jupyter.engine.data.sources import check_datasets, load_rows
from swift_jupyter.errors import UserError

ROWS = [{"query": "你好", "response": "您好"}, {"query": "a,b", "response": 'say "x"\nand y'}]


def load(path: Any) -> Any:
    return load_rows(parse_spec(str(path)))


def contents(rows: Any) -> Any:
    return [row.content for row in rows]


def write(path: Any, text: str, encoding: Any = "utf-8") -> Any:
    path.write_text(text, encoding=encoding)
    return path


def as_lines(rows: Any) -> Any:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


class TestFiles:
    def test_json_lines_with_byte_order_mark_and_blank_lines(self, tmp_path: Path) -> None:
        text = "\n".join([json.dumps(ROWS[0]), "", json.dumps(ROWS[1])])
        rows = load(write(tmp_path / "d.jsonl", text, "utf-8-sig"))
        assert contents(rows) == ROWS
        assert str(rows[1].origin).endswith("d.jsonl, line 3")

    @pytest.mark.parametrize(
        "text",
        [json.dumps(ROWS), json.dumps({"data": ROWS}), json.dumps(ROWS, indent=2), as_lines(ROWS)],
        ids=["list", "data", "indented", "lines"],
    )
    def test_json(self, tmp_path: Path, text: str) -> None:
        assert contents(load(write(tmp_path / "d.json", text))) == ROWS

    def test_csv_with_quotes_and_line_ends_in_cells(self, tmp_path: Path) -> None:
        path = tmp_path / "d.csv"
        with path.open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.DictWriter(stream, ["query", "response", "system"])
            writer.writeheader()
            writer.writerows([ROWS[1], ROWS[0]])
        rows = load(path)
        assert contents(rows) == [ROWS[1], ROWS[0]]  # Empty cells are absent.
        assert [row.origin.number for row in rows] == [2, 4]

    def test_csv_cell_above_the_default_limit(self, tmp_path: Path) -> None:
        long = "x" * 200_000
        rows = load(write(tmp_path / "d.csv", f"query,response\nq,{long}\n"))
        assert rows[0].content["response"] == long

    def test_parquet(self, tmp_path: Path) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        import pyarrow.parquet as parquet

        parquet.write_table(
            pyarrow.Table.from_pylist([*ROWS, {"query": "q"}]), tmp_path / "d.parquet"
        )
        assert contents(load(tmp_path / "d.parquet")) == [*ROWS, {"query": "q"}]

    @pytest.mark.parametrize(
        ("name", "text", "words"),
        [
            ("d.jsonl", '{"a": 1}\n{"a": \n', r"d\.jsonl, line 2 is not JSON"),
            ("d.jsonl", '{"a": 1}\n[1]\n', "line 2 is not a JSON object but list"),
            ("d.jsonl", "", "is empty"),
            ("d.jsonl", "\n \n", "is empty"),
            ("d.json", "[]", "is empty"),
            ("d.json", '{"data": []}', "is empty"),
            ("d.json", '[{"a": 1}, ', "is not JSON"),
            ("d.json", "", "is not JSON"),
            ("d.json", "3", "holds no rows but int"),
            ("d.json", '{"query": "q"}', "holds no rows but dict"),
            ("d.json", "[3]", "row 1 is not an object but int"),
            ("d.csv", "query,response\n", "is empty"),
            ("d.csv", "query,response\nq,a\nq,a,b\n", "line 3 has more cells"),
            ("d.csv", 'query,response\n"q,a\n', "is not CSV"),
            ("d.parquet", "hello", "is not a Parquet file"),
            ("d.docx", "x", "not a data file"),
        ],
    )
    def test_bad_files_are_named_with_the_place(
        self, tmp_path: Path, name: str, text: str, words: Any
    ) -> None:
        with pytest.raises(UserError, match=words):
            load(write(tmp_path / name, text))

    @pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.json"])
    def test_other_encoding_says_how_to_convert(self, tmp_path: Path, name: str) -> None:
        path = write(tmp_path / name, 'query,response\n"你好","好"\n', "gb18030")
        with pytest.raises(UserError, match="is not UTF-8") as error:
            load(path)
        assert "iconv" in error.value.next_step

    def test_missing_file_names_the_nearest(self, tmp_path: Path) -> None:
        write(tmp_path / "train.jsonl", "{}")
        with pytest.raises(UserError, match="no file or folder") as error:
            load(tmp_path / "trian.jsonl")
        assert "train.jsonl" in error.value.why

    def test_missing_folder_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(UserError) as error:
            load(tmp_path / "nowhere" / "d.jsonl")
        assert "nowhere" in error.value.why

    def test_file_has_no_subsets(self, tmp_path: Path) -> None:
        path = write(tmp_path / "d.jsonl", as_lines(ROWS))
        with pytest.raises(UserError, match="has no subsets"):
            load(f"{path}:zh")


class TestFolders:
    def test_all_data_files_in_order_but_no_metadata(self, tmp_path: Path) -> None:
        write(tmp_path / "b.jsonl", as_lines(ROWS[1:]))
        (tmp_path / "a").mkdir()
        write(tmp_path / "a" / "x.json", json.dumps(ROWS[:1]))
        write(tmp_path / "README.md", "no data")
        write(tmp_path / "dataset_infos.json", "{}")
        (tmp_path / ".cache").mkdir()
        write(tmp_path / ".cache" / "old.jsonl", "broken")
        assert contents(load(tmp_path)) == ROWS

    def test_test_splits_are_left_out_where_there_is_a_training_split(self, tmp_path: Path) -> None:
        for name in ("train-00000-of-00001", "test", "validation_1"):
            write(tmp_path / f"{name}.jsonl", as_lines([{"from": name}]))
        assert contents(load(tmp_path)) == [{"from": "train-00000-of-00001"}]

    def test_subsets_are_folders_or_file_names(self, tmp_path: Path) -> None:
        (tmp_path / "zh").mkdir()
        write(tmp_path / "zh" / "d.jsonl", as_lines(ROWS[:1]))
        write(tmp_path / "en.jsonl", as_lines(ROWS[1:]))
        assert contents(load(f"{tmp_path}:zh")) == ROWS[:1]
        assert contents(load(f"{tmp_path}:en")) == ROWS[1:]
        assert len(load(f"{tmp_path}:zh/en")) == len(load(f"{tmp_path}:all")) == 2
        assert len(load(f"{tmp_path}:default")) == 2
        with pytest.raises(UserError, match="no subset 'fr'") as error:
            load(f"{tmp_path}:fr")
        assert "en" in error.value.why and "zh" in error.value.why

    def test_folder_without_data(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no data file"):
            load(tmp_path)


class TestNames:
    @pytest.mark.parametrize(
        "name", ["self-cognition", "swift/self-cognition", "swift/Self-Cognition:default"]
    )
    def test_registered_by_its_last_segment(self, name: str) -> None:
        rows = load_rows(parse_spec(name))
        assert len(rows) >= 140
        assert str(rows[0].origin) == "self-cognition, line 1"

    def test_subset_of_the_registered_set(self) -> None:
        tags = {row.content["tag"] for row in load_rows(parse_spec("self-cognition:zh"))}
        assert tags == {"zh"}
        with pytest.raises(UserError, match="no subset 'fr'"):
            load_rows(parse_spec("self-cognition:fr"))

    def test_unknown_name_suggests_the_nearest(self) -> None:
        with pytest.raises(UserError, match="no dataset 'self-cognitoin'") as error:
            load_rows(parse_spec("self-cognitoin"))
        assert "self-cognition" in error.value.why


class TestCheck:
    def test_good_names_pass_without_being_read_or_pulled(self, tmp_path: Path) -> None:
        unread = write(tmp_path / "d.jsonl", "not even JSON")
        check_datasets([str(unread), f"{unread}#5", str(tmp_path), ROWS])
        check_datasets(["self-cognition#200", "ms::owner/name:zh", "owner/name"])

    @pytest.mark.parametrize("name", ["nowhere.jsonl", "self-cognitoin", "a#0", "x::y/z"])
    def test_wrong_names_are_found(self, name: str) -> None:
        with pytest.raises(UserError):
            check_datasets([name])

    def test_file_that_cannot_be_read_is_found(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="not a data file"):
            check_datasets([str(write(tmp_path / "d.docx", ""))])


class TestObjects:
    def test_list_of_dicts(self) -> None:
        assert contents(rows_of(ROWS)) == ROWS

    def test_dataframe_drops_what_is_missing(self) -> None:
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(
            {
                "query": ["q", "r"],
                "response": ["a", None],
                "score": [1, float("nan")],
                "when": [pandas.Timestamp("2026-01-02"), pandas.NaT],
            }
        )
        rows = rows_of(frame)
        assert contents(rows)[1] == {"query": "r"}
        assert contents(rows)[0]["when"].startswith("2026-01-02")
        assert str(rows[1].origin) == "DataFrame, row 2"

    def test_dataset_object(self) -> None:
        datasets = pytest.importorskip("datasets")
        assert contents(rows_of(datasets.Dataset.from_list(ROWS))) == ROWS

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            (3, "type int cannot be used"),
            ({"query": "q"}, "type dict cannot be used"),
            (["text"], "Row 1 of the list is not a dict but str"),
            ([{"query": object()}], "holds an object of type object in 'query'"),
        ],
    )
    def test_wrong_objects(self, value: Any, words: str) -> None:
        with pytest.raises(UserError, match=words):
            rows_of(value)

    def test_spool_is_read_back_the_same(self, tmp_path: Path) -> None:
        numpy = pytest.importorskip("numpy")
        path = tmp_path / "spooled.jsonl"
        value = [
            *ROWS,
            {"query": "q", "n": numpy.int64(3), "l": numpy.array([1.5]), "none": None},
            {"day": datetime.date(2026, 1, 2), "messages": [{"role": "user", "content": "x"}]},
        ]
        assert spool(value, path) == 4
        assert contents(load(path)) == [
            *ROWS,
            {"query": "q", "n": 3, "l": [1.5]},
            {"day": "2026-01-02", "messages": [{"role": "user", "content": "x"}]},
        ]
        assert [entry.name for entry in tmp_path.iterdir()] == ["spooled.jsonl"]

    def test_spool_refuses_nothing_and_writes_no_file(self, tmp_path: Path) -> None:
        for wrong in ([], 5, [1]):
            with pytest.raises(UserError):
                spool(wrong, tmp_path / "s.jsonl")
        assert not list(tmp_path.iterdir())
