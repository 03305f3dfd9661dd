"""`import_logs`: a directory of logs out of any source."""

import gzip
import json

import pytest

from pipelines.sources import SOURCES, import_logs
from pipelines.sources.base import REJECTED, Source, read_lines
from usr_tf.errors import InputError


class Lines(Source):
    """Each line an item; blank-free lines that start with `!` are bad."""

    name = "lines"

    def schema(self):
        return "scenarios: [feed]\n"

    def read(self, paths, advance):
        for line in read_lines(paths, advance):
            if line.text.startswith(b"!"):
                yield REJECTED, {"file": line.path.name, "line": line.number, "reason": "bang"}
            else:
                yield "items", {"item_id": line.text.decode()}

    def report(self):
        return {"lines": 2}


def test_rows_rejects_and_report_are_written(tmp_path, capsys):
    (tmp_path / "in").write_text("a\n!\nb\n")
    report = import_logs(Lines(), [str(tmp_path / "in")], tmp_path / "logs")
    assert report == {"source": "lines", "inputs": [str(tmp_path / "in")], "lines": 2, "rejected": {"bang": 1}}
    assert json.loads((tmp_path / "logs/import.json").read_text()) == report
    assert json.loads((tmp_path / "logs/rejected.jsonl").read_text()) == {"file": "in", "line": 2, "reason": "bang"}
    assert (tmp_path / "logs/schema.yaml").read_text() == "scenarios: [feed]\n"
    items = gzip.decompress((tmp_path / "logs/items-00000-of-00001.jsonl.gz").read_bytes())
    assert items == b'{"item_id":"a"}\n{"item_id":"b"}\n'
    shown = capsys.readouterr()
    assert "import lines" in shown.err
    assert shown.out == ""


def test_progress_can_be_silent(tmp_path, capsys):
    (tmp_path / "in").write_text("a\n")
    import_logs(Lines(), [str(tmp_path / "in")], tmp_path / "logs", progress=False)
    assert capsys.readouterr() == ("", "")


def test_an_unknown_source_is_told_the_known_ones(tmp_path):
    with pytest.raises(InputError) as refused:
        import_logs("ga3600", [str(tmp_path)], tmp_path / "logs")
    assert str(refused.value) == f"--source: found 'ga3600', expected one of {', '.join(sorted(SOURCES))}"
    assert list(tmp_path.iterdir()) == []


def test_a_file_cut_off_leaves_no_logs(tmp_path):
    whole = gzip.compress(b"".join(b"%d\n" % (row * 7919) for row in range(10_000)))
    (tmp_path / "in.gz").write_bytes(whole[:-100])
    with pytest.raises(InputError, match=r"in\.gz: line \d+: found a gzip file that is cut off"):
        import_logs(Lines(), [str(tmp_path / "in.gz")], tmp_path / "logs", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["in.gz"]


def test_logs_that_are_there_are_kept(tmp_path):
    (tmp_path / "in").write_text("a\n")
    import_logs(Lines(), [str(tmp_path / "in")], tmp_path / "logs", progress=False)
    before = {path.name: path.read_bytes() for path in (tmp_path / "logs").iterdir()}
    with pytest.raises(InputError, match="logs: found something there already"):
        import_logs(Lines(), [str(tmp_path / "in")], tmp_path / "logs", progress=False)
    assert {path.name: path.read_bytes() for path in (tmp_path / "logs").iterdir()} == before


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_sources_are_registered_by_their_own_names(name):
    assert SOURCES[name].name == name
