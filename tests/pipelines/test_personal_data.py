"""Users in logs: removed, or replaced by pseudonyms that leave no id in the data made from them."""

import gzip
import hashlib
import hmac
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.logs.formats import read_blocks
from pipelines.logs.user_ids import edit_file
from pipelines.preprocess import preprocess
from tests.pipelines.tiny import read_lines, write_logs
from usr_tf.cli import main
from usr_tf.errors import InputError
from usr_tf.pseudonyms import pseudonym, read_key

MINUTE = 60_000
KEY = "0123456789abcdef-key"
SCHEMA = """
scenarios: [feed]
tasks: [{name: ctr, action: click}]
history: {actions: [click], max_length: 3}
split: {valid: 0.2, test: 0.2}
features:
  user_id: {group: user, type: categorical}
  city: {group: user, type: categorical, hash_buckets: 4}
  item_id: {group: item, type: categorical, in_history: true}
counters:
  user: {key: [user_id], actions: [click], delay: 0s}
"""


def person(number: int) -> str:
    return f"person-{number}@example.com"


def write(logs: Path) -> Path:
    """120 impressions of ten people, as gzip; actions as JSON Lines, people as Parquet, 5 unreadable lines."""
    impressions = [
        {"request_id": f"r{n // 3}", "scenario": "feed", "user_id": person(n // 3 % 10), "item_id": f"i{n % 7}"}
        | {"timestamp": n // 3 * MINUTE, "note": "é"}
        for n in range(120)
    ]
    actions = [
        {"user_id": row["user_id"], "item_id": row["item_id"], "timestamp": row["timestamp"] + 5, "action": "click"}
        for row in impressions[::4]
    ]
    write_logs(logs, SCHEMA, {"actions": actions, "items": [{"item_id": f"i{n}"} for n in range(7)]})
    broken = ['{"user_id": "person-1@exam', "[]", '{"user_id": null}', '{"user_id": ["person-1@example.com"]}', "{}"]
    lines = [json.dumps(row, ensure_ascii=False) for row in impressions] + broken
    (logs / "impressions.jsonl.gz").write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    people = {"user_id": [person(n) for n in range(10)], "city": ["Hull"] * 10, "age": list(range(10))}
    pq.write_table(pa.table(people), logs / "users.parquet")
    return logs


def contents(folder: Path) -> dict[str, bytes]:
    """Every file as bytes without compression; tables of Parquet as text."""

    def read(path: Path) -> bytes:
        if path.suffix == ".parquet":
            return str(pq.read_table(path).to_pydict()).encode()
        data = path.read_bytes()
        return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data

    return {str(path.relative_to(folder)): read(path) for path in folder.rglob("*") if path.is_file()}


def test_a_forgotten_user_is_in_no_row_and_other_rows_are_as_they_were(tmp_path, capsys):
    write(tmp_path / "logs")
    (tmp_path / "gone").write_text(f"{person(3)}\n")
    arguments = [
        f"--logs={tmp_path}/logs",
        f"--out={tmp_path}/out",
        f"--users={tmp_path}/gone",
        f"--user_id={person(7)}",
    ]
    assert main(["forget", *arguments]) == 0
    out = capsys.readouterr().out
    assert "impressions: 125 read, 96 written, 24 removed, 5 unreadable" in out
    assert "actions: 30 read, 26 written, 4 removed, 0 unreadable" in out
    assert "users: 10 read, 8 written, 2 removed, 0 unreadable" in out
    before, after = contents(tmp_path / "logs"), contents(tmp_path / "out")
    assert after.keys() == before.keys() | {"forget.json"}
    assert not any(person(gone).encode() in data for gone in (3, 7) for data in after.values())
    kept = [
        line
        for line in before["impressions.jsonl.gz"].splitlines()[:120]
        if b"person-3" not in line and b"person-7" not in line
    ]
    assert after["impressions.jsonl.gz"].splitlines() == kept
    assert after["items.jsonl"] == before["items.jsonl"]
    assert pq.read_table(tmp_path / "out" / "users.parquet").column("age").to_pylist() == [0, 1, 2, 4, 5, 6, 8, 9]


@pytest.mark.slow
def test_no_id_is_left_in_data_of_pseudonymous_logs(tmp_path):
    key = tmp_path / "key"
    key.write_text(KEY + "\n")
    logs, hidden = write(tmp_path / "logs"), tmp_path / "hidden"
    assert main(["pseudonymize", f"--logs={logs}", f"--out={hidden}", f"--key={key}"]) == 0
    expected = hmac.new(KEY.encode(), person(1).encode(), hashlib.sha256).hexdigest()[:32]
    assert pq.read_table(hidden / "users.parquet").column("user_id").to_pylist()[1] == expected
    assert pseudonym(person(1), read_key(key)) == expected

    stats = {
        name: preprocess(str(source), str(tmp_path / f"{name}_data"), partitions=2, quote_rejected=False)
        for name, source in (("plain", logs), ("hidden", hidden))
    }
    assert stats["hidden"]["splits"] == stats["plain"]["splits"]  # joined and counted as before
    assert stats["hidden"]["quality"] == stats["plain"]["quality"]
    found = {
        name: {file for file, data in contents(tmp_path / f"{name}_data").items() if b"person-" in data}
        for name in stats
    }
    assert found["hidden"] == set()
    assert {"counters/user.parquet", "requests/feed.jsonl", "transform/transform_fn/assets/user_id"} < found["plain"]
    assert {name.split("/")[0] for name in found["plain"]} == {
        *("counters", "requests", "test", "train", "transform", "valid")
    }  # not `rejected` and `stats.json`, which do not quote rows here
    place = {"place": "impressions.jsonl.gz:121"}
    assert stats["plain"]["rows"]["impressions"]["examples"]["broken_json"] == [place]
    rejected = read_lines(tmp_path / "plain_data" / "rejected" / "*.jsonl")
    assert {"table": "impressions"} | place | {"reason": "broken_json"} in rejected

    again = tmp_path / "again"
    assert main(["forget", f"--logs={hidden}", f"--out={again}", f"--key={key}", "--user_id", person(1)]) == 0
    assert expected.encode() not in contents(again)["impressions.jsonl.gz"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["forget"], "forget: --user_id, --users: found nothing, expected at least one user"),
        (["forget", "--users=none"], "none: found no readable text"),
        (["forget", "--user_id=u", "--logs=none"], "none"),
        (["forget", "--user_id=u", "--logs=csv"], "users.csv: found a .csv file, expected JSON or Parquet"),
        (["forget", "--user_id=u", "--out=logs"], "logs: found something there already, expected a new or empty"),
        (["pseudonymize", "--key=short"], "short: found 3 bytes, expected a key of at least 16 random bytes"),
        (["pseudonymize", "--key=none"], "none: found no readable file"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "logs")
    (tmp_path / "short").write_text("abc\n")
    (write(tmp_path / "csv") / "users.parquet").rename(tmp_path / "csv" / "users.csv")
    verb, *more = arguments
    assert main([verb, "--logs=logs", "--out=out", *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["part.parquet", "part.json", "part.jsonl.bz2", "part.ndjson.zst", "part.jsonl.gz"])
def test_each_format_reads_back_without_the_user_by_the_columns_of_the_schema(tmp_path, name):
    rows = [{"visitor": value, "at": at} for at, value in enumerate(["a", "é", "", None, 7])]
    path, out = tmp_path / name, tmp_path / "out" / name
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"visitor": ["a", "é", "", None, "7"], "at": range(5)}), path)
    else:
        text = json.dumps(rows) if name == "part.json" else "".join(f"{json.dumps(row)}\n" for row in rows)
        codec = {"bz2": "bz2", "zst": "zstd", "gz": "gzip"}.get(name.rpartition(".")[2])
        with pa.CompressedOutputStream(str(path), codec) if codec else path.open("wb") as stream:
            stream.write(text.encode())
    edit = {"a": "A", "é": None, "7": "7"}.get
    counts = edit_file(str(path), str(out), edit, ("visitor", "user_id"))
    assert counts == {"read": 5, "written": 2, "removed": 1, "unreadable": 2}
    found: list[dict] = []
    for block in read_blocks(str(out), None):
        lines = block.rows.splitlines() if isinstance(block.rows, bytes) else ()
        found += map(json.loads, lines) if lines else block.rows.to_pylist()
    assert [(str(row["visitor"]), row["at"]) for row in found] == [("A", 0), ("7", 4)]


def test_a_broken_file_leaves_no_logs_behind(tmp_path):
    from pipelines.personal_data import forget

    logs = write(tmp_path / "logs")
    whole = (logs / "impressions.jsonl.gz").read_bytes()
    (logs / "impressions.jsonl.gz").write_bytes(whole[:-30])
    with pytest.raises(InputError, match=r"impressions\.jsonl\.gz: found a broken gzip stream"):
        forget(str(logs), str(tmp_path / "out"), ["u"])
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("values", "user"),
    [
        (pa.array([b"u", b"v"]), "u"),
        (pa.array([1, 2]), "1"),
        (pa.array([1, 2]).cast(pa.decimal128(20, 0)), "1"),
        (pa.array([bytes(16), b"v" * 16], pa.uuid()), "00000000-0000-0000-0000-000000000000"),
    ],
)
def test_a_user_id_is_read_as_preprocess_reads_it(tmp_path, values, user):
    pq.write_table(pa.table({"user_id": values, "n": [1, 2]}), tmp_path / "users.parquet")
    counts = edit_file(
        str(tmp_path / "users.parquet"), str(tmp_path / "out.parquet"), lambda each: None if each == user else each
    )
    assert counts == {"read": 2, "removed": 1, "written": 1}
    assert pq.read_table(tmp_path / "out.parquet").column("n").to_pylist() == [2]


@pytest.mark.parametrize("name", ["impressions.jsonl", "impressions/user_id=person-1/part-0.jsonl"])
def test_a_table_of_which_no_user_id_can_be_read_is_refused(tmp_path, capsys, name):
    logs = tmp_path / "logs"
    write_logs(logs, SCHEMA, {"actions": [], "items": []})
    (logs / name).parent.mkdir(parents=True, exist_ok=True)
    (logs / name).write_text('{"person": "person-1"}\n')
    assert main(["forget", "--logs", str(logs), "--out", str(tmp_path / "out"), "--user_id", "person-1"]) == 2
    assert re.search(r"found (no row with a user id of 1|user ids in the name of a folder), ", capsys.readouterr().err)
    assert not any(path.is_file() for path in tmp_path.glob("out/**/*"))
