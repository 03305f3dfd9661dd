"""Progress of a job: counts of workers, and their display."""

import pickle
import re
import threading

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from pipelines.beam import progress as progress_module
from pipelines.beam.options import make_pipeline
from pipelines.beam.progress import JOIN, READ, WRITE, Progress, display


def test_rows_of_several_workers_all_arrive_once(tmp_path):
    progress = Progress(str(tmp_path))

    def add_many(worker: Progress, rows: int) -> None:
        for _ in range(500):
            worker.add(JOIN, rows)

    copies = [pickle.loads(pickle.dumps(progress)) for _ in range(2)]  # as Beam hands them to workers
    workers = [threading.Thread(target=add_many, args=each) for each in zip(copies, (1, 10), strict=True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(progress.take()) == [(JOIN, 1)] * 500 + [(JOIN, 10)] * 500
    assert progress.take() == []


def test_a_line_that_is_not_whole_yet_is_left_for_later(tmp_path):
    progress = Progress(str(tmp_path))
    (tmp_path / "progress").write_bytes(b"join\t12\njoin\t3")
    assert progress.take() == [("join", 12)]
    with (tmp_path / "progress").open("ab") as stream:
        stream.write(b"45\n")
    assert progress.take() == [("join", 345)]


def test_without_a_directory_rows_are_beams_counters_alone():
    progress = Progress()
    progress.add(JOIN, 3)
    assert progress.take() == []
    pipeline = make_pipeline([])
    rows = pipeline | beam.Create([2, 5]) | beam.Map(lambda rows: (progress.add(JOIN, rows), rows)[1])
    assert_that(rows, equal_to([2, 5]))
    result = pipeline.run()
    result.wait_until_finish()
    (counter,) = (found for found in result.metrics().query()["counters"] if found.key.metric.namespace == "usr_tf")
    assert (counter.key.metric.name, counter.committed) == (JOIN, 7)


def work(progress: Progress) -> None:
    progress.add(READ.format("impressions"), 3_000)
    progress.add(READ.format("impressions"), 1_000)
    progress.add(JOIN, 1_500)
    progress.add(JOIN, 2_000)


def test_a_log_gets_a_line_for_each_stage(tmp_path, capsys):
    progress = Progress(str(tmp_path))
    with display(True, "preprocess [LOGS]", progress):
        work(progress)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.sub(r"\(\d+ s\)", "(0 s)", shown.err).splitlines() == [
        "preprocess [LOGS]: read impressions: 4,000 rows (0 s)",
        "preprocess [LOGS]: join: 3,500 rows (0 s)",
    ]


def test_a_long_stage_says_how_far_it_is(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress_module, "_LINE_SECONDS", 0.0)
    with display(True, "preprocess LOGS", progress := Progress(str(tmp_path))):
        work(progress)
    assert re.search(r"join: 3,500 rows so far \(\d+ s\)\n.*join: 3,500 rows \(\d+ s\)\n$", capsys.readouterr().err)


def test_a_terminal_gets_a_bar_for_each_stage(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with display(True, "preprocess LOGS", progress := Progress(str(tmp_path))):
        work(progress)
        progress.add(WRITE, 0)  # a shard without a row
    last = capsys.readouterr().err.rpartition("preprocess LOGS")[2]
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", last)
    rows = {
        match["stage"]: match["rows"]
        for match in re.finditer(r"(?P<stage>\w[\w ]*\w) +━+ (?P<rows>[\d,]+) rows", plain)
    }
    assert rows == {"read impressions": "4,000", "join": "3,500", "write": "0"}


def test_nothing_is_shown_unless_asked_for(tmp_path, capsys):
    with display(False, "preprocess LOGS", progress := Progress(str(tmp_path))):
        work(progress)
    assert capsys.readouterr() == ("", "")


def test_a_job_that_fails_ends_its_display(tmp_path, capsys):
    def fail() -> None:
        with display(True, "preprocess LOGS", progress := Progress(str(tmp_path))):
            work(progress)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert "join: 3,500 rows" in capsys.readouterr().err
