"""Input files: selection, contents and errors."""

import gzip
import io
import json
import types

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystem import BeamIOError, FileMetadata, FileSystem
from google.api_core.exceptions import NotFound
from google.cloud import bigquery

from pipelines.sources import inputs as inputs_module
from pipelines.sources.inputs import Inputs, find_inputs
from usr_tf.errors import InputError


def texts(*paths):
    return [(line.path.rpartition("/")[2], line.number, line.value) for line in open_files(*paths).lines()]


def open_files(*paths, **watchers):
    return Inputs(find_inputs([str(path) for path in paths]), **watchers)


def names(found):
    return [file.path.rpartition("/")[2] for file in found]


def test_files_patterns_and_directories(tmp_path):
    (tmp_path / "nested").mkdir()
    for name in ("b.json", "a.json", "_SUCCESS", ".hidden", "nested/c.json"):
        (tmp_path / name).write_text("")
    found = lambda *inputs: names(find_inputs([str(tmp_path / name) for name in inputs]))  # noqa: E731
    assert found("b.json") == ["b.json"]
    assert found("?.json") == ["a.json", "b.json"]
    assert found(".") == ["a.json", "b.json"]
    assert found("b.json", "*.json", ".", "nested") == ["b.json", "a.json", "c.json"]
    assert found("**/*.json") == ["a.json", "b.json", "c.json"]


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    (tmp_path / "a[1].json").write_text("four")
    assert find_inputs([str(tmp_path / "a[1].json")]) == [(str(tmp_path / "a[1].json"), 4)]


@pytest.mark.parametrize("name", ["missing.json", "*.json", "empty"])
def test_a_name_without_files(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as refused:
        find_inputs([str(tmp_path / name)])
    assert str(refused.value).startswith(f"{tmp_path / name}: found no file, expected a file, a pattern")


def test_no_names():
    with pytest.raises(InputError, match="--input: found nothing"):
        find_inputs([])


def test_a_file_by_its_name(tmp_path):
    for name in ("a.csv.gz", "b.csv"):
        (tmp_path / name).write_text("")
    inputs = open_files(tmp_path)
    assert inputs.file("a.csv").path == str(tmp_path / "a.csv.gz")
    with pytest.raises(InputError, match=r"--input: found no c\.csv, expected the directory that holds it"):
        inputs.file("c.csv")
    (tmp_path / "b.csv.gz").write_text("")
    with pytest.raises(InputError, match=r"--input: found b\.csv at .*b\.csv and at .*b\.csv\.gz, expected it once"):
        open_files(tmp_path).file("b.csv")


def test_lines_of_plain_and_zipped_files(tmp_path):
    (tmp_path / "plain.gz").write_bytes(b"\xef\xbb\xbf1\r\n\n  \n2")  # the bytes count, not the name
    # `cat` of two gzip files is a gzip file
    (tmp_path / "zipped").write_bytes(gzip.compress(b"3\n") + gzip.compress(b"4\n"))
    (tmp_path / "empty").write_bytes(b"")
    assert texts(tmp_path / "plain.gz", tmp_path / "zipped", tmp_path / "empty") == [
        ("plain.gz", 1, b"1"),
        ("plain.gz", 4, b"2"),
        ("zipped", 1, b"3"),
        ("zipped", 2, b"4"),
    ]


@pytest.mark.parametrize("kind", ["plain", "zipped", "csv", "parquet"])
def test_progress_adds_up_to_the_size_of_the_file(tmp_path, kind):
    text = b"row\n" + b"".join(b"%d\n" % row for row in range(50_000))
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(text) if kind == "zipped" else text)
    if kind == "parquet":
        pq.write_table(pa.table({"row": range(50_000)}), path)
    steps = []
    inputs = open_files(path, advance=steps.append)
    rows = inputs.csv_rows(["row"]) if kind == "csv" else inputs.records() if kind == "parquet" else inputs.lines()
    assert sum(1 for _ in rows) >= 50_000
    assert min(steps) >= 0
    assert sum(steps) == path.stat().st_size


def test_a_gzip_file_that_is_cut_off(tmp_path):
    whole = gzip.compress(b"".join(b"%d\n" % (row * 7919) for row in range(10_000)))
    path = tmp_path / "cut.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.gz: found a broken gzip stream after \d,\d{3} whole lines"):
        texts(path)
    with pytest.raises(InputError, match=r"cut\.gz: found a broken gzip stream \(.*, expected a whole gzip file"):
        list(open_files(path).csv_blocks(find_inputs([str(path)])[0], ["0"]))


@pytest.mark.parametrize("place", [10, -8])  # the first block's header, the checksum
def test_a_gzip_file_that_is_damaged(tmp_path, place):
    damaged = bytearray(gzip.compress(b"1\n" * 1_000))
    damaged[place] = damaged[place] ^ 0b110
    (tmp_path / "bad.gz").write_bytes(damaged)
    with pytest.raises(InputError, match=r"bad.gz: found a broken gzip stream after"):
        texts(tmp_path / "bad.gz")


def test_a_file_that_has_gone(tmp_path):
    inputs = Inputs([inputs_module.InputFile(str(tmp_path / "gone"), 1)])
    for read in (inputs.lines, inputs.records, lambda: inputs.csv_rows(["a"])):
        with pytest.raises(InputError, match=r"gone: found no readable file \(No such file or directory\)"):
            list(read())


def test_csv_rows_are_text_as_it_stands(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('\ufeffa;b;c\n1;"x;""y""\nz";NA\n;;3.0\n', encoding="utf-8")
    assert [row[1:] for row in open_files(path).csv_rows(["c", "b"], delimiter=";")] == [
        (2, {"c": "NA", "b": 'x;"y"\nz'}),
        (3, {"c": "3.0", "b": ""}),
    ]


def test_csv_rows_that_are_wrong_are_rejected_with_their_place(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs_module, "_CSV_BLOCK_BYTES", 64)
    wrong = {2: "1", 3: "1,2,3", 40: "1,bad", 41: "1", 100: "1,2,3,4"}
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{wrong.get(row, f'{row},x')}\n" for row in range(2, 101)))
    rejected = []
    inputs = open_files(tmp_path / "t.csv", on_reject=lambda *reject: rejected.append(reject))
    read = []
    blocks = 0
    for block in inputs.csv_blocks(inputs.file("t.csv"), ["a", "b"]):
        blocks += 1
        assert block.numbers.tolist() == [40 if text == "bad" else int(row) for row, text in block.rows.to_numpy()]
        read += inputs.sound(block, {"b: bad": block.rows["b"] == "bad", "late": block.rows["a"] == "1"})["a"].tolist()
    assert blocks > 5
    assert read == [str(row) for row in range(2, 101) if row not in wrong]
    assert sorted(rejected) == [
        (str(tmp_path / "t.csv"), 2, "1 fields for 2 columns"),
        (str(tmp_path / "t.csv"), 3, "3 fields for 2 columns"),
        (str(tmp_path / "t.csv"), 40, "b: bad"),
        (str(tmp_path / "t.csv"), 41, "1 fields for 2 columns"),
        (str(tmp_path / "t.csv"), 100, "4 fields for 2 columns"),
    ]


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (b"", r"t\.csv: after row 1: found Empty CSV file, expected CSV in UTF-8"),
        (b"a,c\n1,2\n", r"t\.csv: column 'b': found none in its header, expected a, b"),
        (b"a,b\n\xff,2\n", r"t\.csv: after row 1: found .*invalid UTF8 data, expected CSV in UTF-8"),
        (b'a,b\n"1,2\n' + b"1,2\n" * 99, r"t\.csv: after row 1: found straddling object .* no row above"),
    ],
)
def test_what_is_no_csv_is_refused(tmp_path, monkeypatch, content, refusal):
    monkeypatch.setattr(inputs_module, "_CSV_BLOCK_BYTES", 64)
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=refusal):
        list(open_files(tmp_path / "t.csv").csv_rows(["a", "b"]))


def test_records_of_parquet_are_dictionaries(tmp_path):
    pq.write_table(
        pa.Table.from_pylist([{"a": [{"k": 1}], "b": "x", "c": 1}, {"a": [], "b": "y", "c": 2}]), tmp_path / "p"
    )
    (tmp_path / "q").write_bytes(b'{"a": 1}\n')
    found = [(record.number, record.value) for record in open_files(tmp_path).records(["a", "b", "gone"])]
    assert found == [(1, {"a": [{"k": 1}], "b": "x"}), (2, {"a": [], "b": "y"}), (1, b'{"a": 1}')]
    (tmp_path / "p").write_bytes((tmp_path / "p").read_bytes()[:-30])
    with pytest.raises(InputError, match=r"p: found no whole Parquet file"):
        list(open_files(tmp_path).records())


class MemoryFileSystem(FileSystem):
    """`memory://…`: a file system as Beam's remote ones are, in a dictionary."""

    files: dict[str, bytes] = {}

    @classmethod
    def scheme(cls):
        return "memory"

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path):
        return path.rsplit("/", 1)

    def has_dirs(self):
        return False

    def _list(self, dir_or_prefix):
        if dir_or_prefix.startswith("memory://denied"):
            raise BeamIOError("no permission")
        for path, content in self.files.items():
            if path.startswith(dir_or_prefix):
                yield FileMetadata(path, len(content))

    def open(self, path, mime_type="", compression_type="auto"):
        assert compression_type == "uncompressed"  # Beam's own reader takes a cut off stream for a whole one
        return io.BytesIO(self.files[path])

    def exists(self, path):
        return path in self.files

    def metadata(self, path):
        return FileMetadata(path, len(self.files[path]))

    mkdirs = create = copy = rename = size = last_updated = checksum = delete = None


@pytest.fixture
def memory(monkeypatch):
    whole = gzip.compress(b"1\n2\n")
    files = {
        "memory://shop/day1.json.gz": whole,
        "memory://shop/day2.json": b"3\n",
        "memory://shop/_SUCCESS": b"",
        "memory://shop/": b"",
        "memory://other/cut": whole[:-9],
    }
    monkeypatch.setattr(MemoryFileSystem, "files", files)
    return files


def test_other_file_systems_are_beams(memory):
    for name in ("memory://shop", "memory://shop/", "memory://shop/day*"):
        assert names(find_inputs([name])) == ["day1.json.gz", "day2.json"]
    assert find_inputs(["memory://shop/day2.json"]) == [("memory://shop/day2.json", 2)]
    steps = []
    assert [line.value for line in open_files("memory://shop/day*", advance=steps.append).lines()] == [b"1", b"2", b"3"]
    assert sum(steps) == sum(len(memory[f"memory://shop/{name}"]) for name in ("day1.json.gz", "day2.json"))
    with pytest.raises(InputError, match=r"memory://other/cut: found a broken gzip stream after"):
        texts("memory://other/cut")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("memory://nothing/*", "no file"),
        ("memory://denied/*", "no way to look there (.*no permission"),
        ("nfs9://shop", "no way to look there (Unable to get filesystem"),
    ],
)
def test_what_beam_does_not_find_is_refused(memory, name, found):
    with pytest.raises(InputError) as refused:
        find_inputs([name])
    before, _, after = found.partition(".*")
    assert str(refused.value).startswith(f"{name}: found {before}")
    assert after in str(refused.value)


class FakeClient:
    """BigQuery's client, as far as it is used."""

    tables = {"events_1": 2, "events_2": 1, "users": 1}

    def list_tables(self, dataset):
        if dataset != "p.d":
            raise NotFound("no such dataset")
        return [types.SimpleNamespace(table_id=name) for name in reversed(self.tables)]

    def get_table(self, name):
        schema = [types.SimpleNamespace(name=name) for name in ("a", "b", "c")]
        return types.SimpleNamespace(name=name, num_bytes=10, schema=schema)

    def list_rows(self, table, selected_fields):
        columns = [field.name for field in selected_fields]
        rows = [dict.fromkeys(columns, f"{table.name}/{row}") for row in range(self.tables[table.name.split(".")[2]])]
        batches = pa.Table.from_pylist(rows).to_batches(max_chunksize=1)
        return types.SimpleNamespace(to_arrow_iterable=lambda: iter(batches))


def test_tables_of_bigquery(monkeypatch):
    monkeypatch.setattr(bigquery, "Client", FakeClient)
    assert find_inputs(["bigquery:p.d.events_*"]) == [("bigquery:p.d.events_1", 10), ("bigquery:p.d.events_2", 10)]
    steps = []
    records = list(open_files("bigquery:p.d.events_*", advance=steps.append).records(["c", "a", "gone"]))
    assert [(record.path[-1], record.number, json.dumps(record.value)) for record in records] == [
        ("1", 1, '{"a": "p.d.events_1/0", "c": "p.d.events_1/0"}'),
        ("1", 2, '{"a": "p.d.events_1/1", "c": "p.d.events_1/1"}'),
        ("2", 1, '{"a": "p.d.events_2/0", "c": "p.d.events_2/0"}'),
    ]
    assert len(steps) == 3
    with pytest.raises(InputError, match=r"bigquery:p\.d\.none: found no file"):
        find_inputs(["bigquery:p.d.none"])
    with pytest.raises(InputError, match=r"bigquery:p\.x\.t: found no way to read it \(404 no such dataset\)"):
        find_inputs(["bigquery:p.x.t"])
    with pytest.raises(
        InputError, match=r"bigquery:p\.d: found other parts, expected bigquery:PROJECT\.DATASET\.TABLE"
    ):
        find_inputs(["bigquery:p.d"])
