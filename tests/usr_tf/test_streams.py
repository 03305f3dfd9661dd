"""Output on terminals whose encoding lacks a character."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from usr_tf.streams import accept_any_text

SCORES = Path(__file__).parents[3] / "shared" / "cases" / "evaluate-ascii" / "scores"


@pytest.mark.parametrize(
    ("encoding", "text", "expected"),
    [
        ("ascii", "0.59–0.62 → −0.1 ±2 …", b"0.59-0.62 > -0.1 +-2 ..."),
        ("ascii", "caf\u00e9 茶 \U0001f600", rb"caf\u00e9 \u8336 \ud83d\ude00"),
        ("latin-1", "caf\u00e9 – 茶", b"caf\xe9 - \\u8336"),
        ("utf-8", "– 茶", "– 茶".encode()),
        ("utf-8", "\udcff", rb"\udcff"),  # a file's name that is no UTF-8
    ],
)
def test_characters_that_an_encoding_lacks_are_replaced(monkeypatch, encoding, text, expected):
    for name in ("stdout", "stderr"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding)
        monkeypatch.setattr(sys, name, stream)
        accept_any_text()
        print(text, end="", file=stream)
        stream.flush()
        assert stream.buffer.getvalue() == expected


def test_json_stays_json(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    accept_any_text()
    row = {"item_id": "caf\u00e9 茶 \U0001f600"}
    print(json.dumps(row, ensure_ascii=False))
    stream.flush()
    assert json.loads(stream.buffer.getvalue()) == row


def test_streams_that_are_no_text_wrappers_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", None)
    accept_any_text()
    print("–")
    assert sys.stdout.getvalue() == "–\n"


def test_the_program_prints_under_ascii():
    command = [sys.executable, "-m", "usr_tf.cli", "help", "simulate"]  # whose flags have Greek letters
    done = subprocess.run(command, capture_output=True, env={"PYTHONIOENCODING": "ascii", "PATH": ""})
    assert (done.returncode, done.stderr) == (0, b"")
    assert "Weight rho, 0 to 1" in done.stdout.decode("ascii")


@pytest.mark.slow
@pytest.mark.skipif(not SCORES.exists(), reason="shared/cases/evaluate-ascii is not here")
def test_a_table_with_intervals_is_printed_under_ascii(tmp_path):
    command = [sys.executable, "-m", "usr_tf.cli", "evaluate_scores", f"--scores={SCORES}", f"--out={tmp_path / 'out'}"]
    done = subprocess.run(command, capture_output=True, env={"PYTHONIOENCODING": "ascii", "PATH": ""})
    assert done.returncode == 0, done.stderr
    assert "AUC" in done.stdout.decode("ascii")
