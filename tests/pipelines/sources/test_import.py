"""`import_logs` and `usr-tf import`: log directory of any source."""

import gzip
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.preprocess import preprocess
from pipelines.sources import SOURCES, Source, import_logs
from tests.pipelines.sources.generated import write_diginetica, write_ga4, write_kuaisar
from tests.pipelines.sources.imported import assert_preprocess_takes
from tests.pipelines.tiny import parse_example, read_rows
from usr_tf import cli
from usr_tf.errors import InputError
from usr_tf.schema import NUMBERS, load_schema

SCHEMA = """\
scenarios: [feed]
tasks: [{name: ctr, action: click}]
features: {item_id: {group: item, type: categorical}}
"""
PAGE = Path(__file__).parents[3] / "docs/sources.md"


class Lines(Source):
    """Each line an item; lines that start with `!` are bad."""

    name = "lines"

    def schema(self):
        return SCHEMA

    def read(self, inputs):
        for line in inputs.lines():
            if line.value.startswith(b"!"):
                inputs.reject(line.path, line.number, "bang")
            else:
                yield "items", {"item_id": line.value.decode()}


class Counted(Lines):
    """With an option and a report."""

    def __init__(self, lists=None):
        self.lists = lists

    def report(self):
        return {"lists": self.lists}


class Half(Source):
    name = "half"


def test_rows_rejects_and_report_are_written(tmp_path, capsys):
    (tmp_path / "in").write_text("a\n!\nb\n")
    report = import_logs(Lines(), [str(tmp_path / "in")], tmp_path / "logs")
    assert report == {
        "source": "lines",
        "inputs": [str(tmp_path / "in")],
        "rows": {"impressions": 0, "actions": 0, "items": 2},
        "rejected": {"bang": 1},
    }
    assert json.loads((tmp_path / "logs/import.json").read_text()) == report
    rejected = {"file": str(tmp_path / "in"), "line": 2, "reason": "bang"}
    assert json.loads((tmp_path / "logs/rejected.jsonl").read_text()) == rejected
    assert (tmp_path / "logs/schema.yaml").read_text() == SCHEMA
    items = gzip.decompress((tmp_path / "logs/items-00000-of-00001.jsonl.gz").read_bytes())
    assert items == b'{"item_id":"a"}\n{"item_id":"b"}\n'
    shown = capsys.readouterr()
    assert "import lines" in shown.err
    assert shown.out == ""


def test_progress_can_be_silent(tmp_path, capsys):
    (tmp_path / "in").write_text("a\n")
    import_logs(Lines(), [str(tmp_path / "in")], tmp_path / "logs", progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_source_by_its_import_path_takes_the_options_of_its_constructor(tmp_path):
    (tmp_path / "in").write_text("a\n")
    name = f"{__name__}:Counted"
    report = import_logs(name, [str(tmp_path / "in")], tmp_path / "logs", False, {"lists": {"a": "b"}})
    assert report["lists"] == {"a": "b"}


@pytest.mark.parametrize(
    ("source", "options", "refusal"),
    [
        ("ga3600", {}, f"'ga3600', expected one of {', '.join(sorted(SOURCES))}, or MODULE:CLASS"),
        ("kuaisar", {"lists": {}}, "'kuaisar', which takes no lists, expected a source that does"),
        ("no_such:A", {}, "'no_such:A' (No module named 'no_such'), expected MODULE:CLASS that Python can import"),
        ("json:Nothing", {}, "'json:Nothing' (module 'json' has no attribute 'Nothing'), expected MODULE:CLASS"),
        (":A", {}, "':A' (Empty module name), expected MODULE:CLASS"),
        ("json:loads", {}, "'json:loads', expected a class that extends pipelines.sources.Source"),
        (f"{__name__}:Half", {}, f"'{__name__}:Half', expected a class that extends pipelines.sources.Source"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path, source, options, refusal):
    with pytest.raises(InputError) as refused:
        import_logs(source, [str(tmp_path)], tmp_path / "logs", options=options)
    assert str(refused.value).startswith(f"--source: found {refusal}")
    assert list(tmp_path.iterdir()) == []


def test_a_schema_that_is_none_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Lines, "schema", lambda self: SCHEMA.replace("[feed]", "[the feed]"))
    with pytest.raises(InputError, match=r"schema\.yaml of lines: scenarios\.0: found 'the feed', expected letters"):
        import_logs(Lines(), [str(tmp_path / "gone")], tmp_path / "logs")


def test_a_file_cut_off_leaves_no_logs(tmp_path):
    whole = gzip.compress(b"".join(b"%d\n" % (row * 7919) for row in range(10_000)))
    (tmp_path / "in.gz").write_bytes(whole[:-100])
    with pytest.raises(InputError, match=r"in\.gz: found a broken gzip stream after"):
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


def test_the_command_hands_the_lists_over(tmp_path, capsys):
    write_ga4(tmp_path / "in", users=5)
    arguments = ["import", "--source=ga4", f"--input={tmp_path / 'in'}"]
    rule = ["--list", "search*=search", "--list", "home=feed"]
    assert cli.main([*arguments, *rule, f"--out={tmp_path / 'logs'}"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["written"]["impressions"]) == ["search", "feed"]
    assert report["dropped"]["impression_in_other_list"] == report["read"]["impressions_by_list"]["related"]
    assert cli.main([*arguments, "--list", "home", f"--out={tmp_path / 'more'}"]) == 2
    assert capsys.readouterr().err.startswith("--list: found 'home', expected PATTERN=scenario")


def blocks_of_the_page():
    """The one block of each language in the page."""
    return dict(re.findall(r"^```(python|csv|json|yaml)\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL))


def test_the_example_of_the_page_does_what_the_page_says(tmp_path, monkeypatch, capsys):
    blocks = blocks_of_the_page()
    assert 40 <= len(blocks["python"].splitlines()) <= 60
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_shop", raising=False)
    Path("my_shop.py").write_text(blocks["python"])
    Path("events.csv").write_text(blocks["csv"])
    assert cli.main(["import", "--source", "my_shop:MyShop", "--input", "events.csv", "--out", "logs"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(blocks["json"])
    assert_preprocess_takes(Path("logs"))


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_ga4, write_kuaisar, write_diginetica])
def test_preprocess_makes_training_data_of_every_source(tmp_path, write):
    source = write.__name__.removeprefix("write_")
    import_logs(source, [str(write(tmp_path / "in"))], tmp_path / "logs", progress=False)
    stats = preprocess(str(tmp_path / "logs"), str(tmp_path / "data"))
    for rows in stats["rows"].values():
        assert set(rows["rejected"]) <= {"duplicate"}  # what a search of KuaiSAR tells again
    for counts in stats["splits"]["train"].values():
        assert 0 < counts["ctr"] < counts["impressions"]
        assert counts["ctr"] <= counts["global_ctr"]
    schema = load_schema(tmp_path / "data/schema.yaml")
    numbers = np.array([parse_example(row)[NUMBERS] for row in read_rows(tmp_path / "data", "train")])
    constant = {name for name, column in zip(schema.number_columns, numbers.T, strict=True) if np.ptp(column) == 0}
    assert constant == set()
