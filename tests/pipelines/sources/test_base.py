"""Input files: which ones, and what is wrong with them."""

import gzip

import pytest

from pipelines.sources.base import find_inputs, read_lines
from usr_tf.errors import InputError


def texts(*paths):
    return [(line.path.name, line.number, line.text) for line in read_lines(paths, lambda size: None)]


def test_files_patterns_and_directories(tmp_path):
    (tmp_path / "nested").mkdir()
    for name in ("b.json", "a.json", "_SUCCESS", ".hidden", "nested/c.json"):
        (tmp_path / name).write_text("")
    found = lambda *inputs: [path.name for path in find_inputs([str(tmp_path / name) for name in inputs])]  # noqa: E731
    assert found("b.json") == ["b.json"]
    assert found("?.json") == ["a.json", "b.json"]
    assert found(".") == ["a.json", "b.json"]
    assert found("b.json", "*.json", ".", "nested") == ["b.json", "a.json", "c.json"]
    assert found("**/*.json") == ["a.json", "b.json", "c.json"]


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    (tmp_path / "a[1].json").write_text("")
    assert find_inputs([str(tmp_path / "a[1].json")]) == [tmp_path / "a[1].json"]


@pytest.mark.parametrize("name", ["missing.json", "*.json", "empty"])
def test_a_name_without_files(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as refused:
        find_inputs([str(tmp_path / name)])
    assert str(refused.value).startswith(f"{tmp_path / name}: found no file, expected a file, a pattern")


def test_no_names():
    with pytest.raises(InputError, match="--input: found nothing"):
        find_inputs([])


def test_lines_of_plain_and_zipped_files(tmp_path):
    (tmp_path / "plain.gz").write_bytes(b"\xef\xbb\xbf1\r\n\n  \n2")  # the bytes count, not the name
    # `cat` of two gzip files is a gzip file
    (tmp_path / "zipped").write_bytes(gzip.compress(b"3\n") + gzip.compress(b"4\n"))
    assert texts(tmp_path / "plain.gz", tmp_path / "zipped") == [
        ("plain.gz", 1, b"1"),
        ("plain.gz", 4, b"2"),
        ("zipped", 1, b"3"),
        ("zipped", 2, b"4"),
    ]


@pytest.mark.parametrize("name", ["plain", "zipped"])
def test_progress_adds_up_to_the_size_of_the_file(tmp_path, name):
    text = b"".join(b'{"row": %d}\n' % row for row in range(5_000))
    path = tmp_path / name
    path.write_bytes(text if name == "plain" else gzip.compress(text))
    steps = []
    assert sum(1 for _ in read_lines([path], steps.append)) == 5_000
    assert min(steps) >= 0
    assert sum(steps) == path.stat().st_size


def test_a_gzip_file_that_is_cut_off(tmp_path):
    whole = gzip.compress(b"".join(b"%d\n" % (row * 7919) for row in range(10_000)))
    path = tmp_path / "cut.gz"
    path.write_bytes(whole[: len(whole) // 2])
    read = []
    with pytest.raises(InputError) as refused:
        read.extend(read_lines([path], lambda size: None))
    assert str(refused.value) == f"{path}: line {len(read) + 1}: found a gzip file that is cut off, expected all of it"
    assert len(read) > 1_000


@pytest.mark.parametrize("place", [10, -8])  # the first block's header, the checksum
def test_a_gzip_file_that_is_damaged(tmp_path, place):
    damaged = bytearray(gzip.compress(b"1\n" * 1_000))
    damaged[place] = damaged[place] ^ 0b110
    (tmp_path / "bad.gz").write_bytes(damaged)
    with pytest.raises(InputError, match=r"bad.gz: line \d+: found an unreadable file"):
        texts(tmp_path / "bad.gz")


def test_a_file_that_has_gone(tmp_path):
    with pytest.raises(InputError, match=r"gone: line 1: found an unreadable file \(No such file or directory\)"):
        texts(tmp_path / "gone")
