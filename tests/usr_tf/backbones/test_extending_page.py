"""`docs/extending.md`: code quoted from the files it names, and valid commands."""

import dataclasses
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from rich.console import Console

from pipelines.logs.columns import columns_of
from pipelines.quality.statistics import figures_of, measure_raw
from pipelines.sources import SOURCES
from pipelines.transform.preprocessing_fn import preprocessing_fn, raw_feature_spec
from tests.usr_tf.drawn import SCHEMA, drawn_predictions
from tests.usr_tf.fixtures import random_rows, sizes_of, small_config, toy_schema
from usr_tf import layers
from usr_tf.cli import main
from usr_tf.compare import format_comparison
from usr_tf.config import load_config
from usr_tf.errors import InputError
from usr_tf.evaluation.report.evaluation_page import evaluation_page
from usr_tf.experiments.objective import is_higher_better
from usr_tf.feature_types import FEATURE_TYPES
from usr_tf.history_encoders import HISTORY_ENCODERS
from usr_tf.metrics import METRICS, compare, details_document, metrics_document
from usr_tf.metrics.slices import position_slice
from usr_tf.model import USRModel
from usr_tf.request_spec import request_spec
from usr_tf.schema import parse_schema

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/extending.md").read_text("utf-8")
BLOCKS = re.findall(r"^`([\w/.]+)`([^\n]*):\n\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
NEW = {path: block for path, note, block in BLOCKS if note == ", a new file"}
QUOTES = [(path, block) for path, _, block in BLOCKS if path not in NEW]


def test_every_block_of_code_names_its_file():
    assert len(BLOCKS) == PAGE.count("```python\n") > 10


@pytest.mark.parametrize(("path", "block"), QUOTES)
def test_the_file_has_the_block(path, block):
    source = (ROOT / path).read_text("utf-8")
    for piece in re.split(r"^\.\.\.\n", block, flags=re.MULTILINE):
        assert piece in source, piece
        source = source.split(piece, 1)[1]  # the next piece comes after


def test_the_files_and_tests_that_the_page_names_exist():
    for path in re.findall(r"`((?:usr_tf|pipelines|tests)/[\w/.]*)`", PAGE):
        assert (ROOT / path).exists() or path in NEW, path
    tests = (ROOT / "tests/usr_tf/backbones/test_backbones.py").read_text("utf-8")
    named = re.findall(r"^\| `(test_\w+)` \|", PAGE, re.MULTILINE)
    assert len(named) == 10
    for name in named:
        assert f"def {name}(name" in tests, name


def test_the_building_blocks_exist():
    table = PAGE.split("| block | function |\n| --- | --- |\n")[1].split("\n\n")[0]
    blocks = re.findall(r"^\| `(\w+)`(?: \(`([\w/.]+)`\))? \|", table, re.MULTILINE)
    assert len(blocks) == len(table.splitlines())
    for name, path in blocks:
        defined = path and re.search(rf"^(class|def) {name}\b", (ROOT / path).read_text("utf-8"), re.MULTILINE)
        assert defined or name in layers.__all__, name


def test_the_commands_settings_are_keys_of_the_configuration():
    settings = [quoted or plain for quoted, plain in re.findall(r'--set (?:"([^"]+)"|([^\s"`]+))', PAGE)]
    assert len(settings) == 7
    config = load_config(overrides=settings)
    assert (config.backbone, config.pepnet.gate_hidden, config.pepnet.tower) == ("pepnet", 32, (100, 64))
    assert not any((config.usr.ie, config.usr.fg, config.usr.glmt, config.usr.contrastive))


def new_module(path: str) -> dict:
    """Runs a new file of the page and returns its names."""
    names = {"__name__": path.removesuffix(".py").replace("/", ".")}
    exec(compile(NEW[path], path, "exec"), names)
    return names


def test_the_history_encoder_of_the_page_trains_serves_and_explains(monkeypatch):
    encoder = new_module("usr_tf/history_encoders/newest.py")["NewestEncoder"]
    monkeypatch.setitem(HISTORY_ENCODERS, "newest", encoder)
    config = small_config(usr={"ie": False, "contrastive": False}, history={"describe": []})
    config = config.model_copy(update={"history": config.history.model_copy(update={"pooling": "newest"})})
    schema = toy_schema()
    model = USRModel(schema, sizes_of(schema), config)
    assert model.parts["newest"] is model.newest

    item, history = tf.zeros([2, 2]), tf.constant([[[1.0, 0.0], [0.0, 2.0], [9.0, 9.0]], [[5.0, 5.0]] * 3])
    mask = tf.constant([[True, True, False], [False] * 3])
    alone = encoder(config, 2)
    alone.layer.build([None, 2])
    alone.layer.set_weights([np.eye(2)])
    newest = np.exp([0.0, 4.0]) / (1 + np.exp(4.0))  # query (0, 2): scores 0 of (1, 0), 4 of itself
    np.testing.assert_allclose(alone.encode(item, history, mask, None)[:, 0], [newest * [1, 2], [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(alone.attention(item, history, mask, None)[0, 0, 0], [*newest, 0], rtol=1e-6)

    features, labels = random_rows(schema, 6)
    before = model.newest.get_weights()
    model.compile()
    model.fit(tf.data.Dataset.from_tensors((features, labels)), verbose=0)
    assert np.abs(model.newest.get_weights()[0] - before[0]).max() > 0
    assert model.attention(model.look_up(features), 0).shape == (6, 1, features["history_item_id"].shape[1])

    of_request = {*schema.history_columns, *schema.features_of("user", "query", "context")}
    one = {name: values[:1] if name in of_request else values for name, values in features.items()}
    copies = {name: tf.repeat(values[:1], 6, 0) if name in of_request else values for name, values in features.items()}
    copies["scenario"] = tf.ones([6], tf.int32)
    expected = model(copies)
    for task, scores in model.serve(one, 1, one_request=True).items():
        np.testing.assert_allclose(scores, expected[task], rtol=1e-4)


def test_the_feature_type_of_the_page_is_read_transformed_measured_and_served(monkeypatch):
    monkeypatch.setitem(FEATURE_TYPES, "path", new_module("usr_tf/feature_types/path.py")["PATH"])
    features = "item_id: {group: item, type: categorical, hash_buckets: 9}, category: {group: item, type: path, "
    text = "scenarios: [feed]\ntasks: [{name: ctr, action: click}]\nfeatures: {" + features
    schema = parse_schema(text + "hash_buckets: 90, max_length: 2}}")
    with pytest.raises(InputError, match="tokenizer: found on a path feature"):
        parse_schema(text + "tokenizer: character}}")

    assert columns_of(schema, "items")["category"].type == pa.string()
    assert request_spec(schema)["category"] == tf.TensorSpec([None], tf.string, name="category")
    assert raw_feature_spec(schema)["category"] == tf.io.FixedLenFeature([], tf.string)

    paths = ["Shoes > Boots > Rain boots", "", "Shoes"]
    ids = preprocessing_fn(schema)({"item_id": tf.constant(["1", "2", "3"]), "category": tf.constant(paths)})
    found = tf.sparse.to_dense(ids["category"]).numpy()
    assert found.shape == (3, 2)
    assert (found > 0).tolist() == [[True, True], [False, False], [True, False]]
    assert found[0, 0] == found[2, 0] != found[0, 1]

    columns = {"scenario": ["feed"] * 3, "item_id": ["1", "2", "3"], "category": paths}
    batch = pa.RecordBatch.from_pydict({name: [[value] for value in values] for name, values in columns.items()})
    figures = figures_of({("raw", "train"): measure_raw(batch, schema)}, "train", schema)
    expected = {"rows": 3, "coverage": 2 / 3, "cardinality": 2, "mean_length": 2.0}
    assert figures["feed"]["category"] == expected

    model = USRModel(schema, {"item_id": 10, "category": 91}, small_config())
    one, two = (model.look_up({"item_id": ids["item_id"], "category": tf.constant(found[:, :n])}) for n in (1, 2))
    vectors = (one.candidate - two.candidate).numpy()
    assert np.abs(vectors[0]).max() > 0  # the second part counts
    assert not vectors[1:].any()


def test_the_metric_of_the_page_is_in_every_document_page_and_table(monkeypatch):
    monkeypatch.setitem(METRICS, "brier", new_module("usr_tf/metrics/brier.py")["BRIER"])
    rows = drawn_predictions(n=400, users=20)
    rows = dataclasses.replace(rows, slices={"position": position_slice(rows.position)})
    document, details = metrics_document(rows, SCHEMA), details_document(rows, SCHEMA, replicates=5)
    search = rows.scenario == 0
    expected = ((rows.probabilities["ctr"] - rows.labels["ctr"])[search] ** 2).mean()
    assert document["scenarios"]["search"]["ctr"]["brier"] == pytest.approx(expected)
    low, high = details["overall"]["ctr"]["intervals"]["brier"]
    assert low < document["overall"]["ctr"]["brier"] < high
    assert details["overall"]["ctr"]["slices"]["position"][0]["brier"] > 0
    assert evaluation_page(document, details, SCHEMA, "toy", rows).count("Brier score") >= 2  # whole and by slice
    console = Console(width=200)
    with console.capture() as capture:
        console.print(format_comparison(compare(rows, rows, SCHEMA, replicates=2)))
    assert "Brier score" in capture.get()
    assert is_higher_better("overall/ctr/brier", SCHEMA) is False


def test_the_source_of_the_page_makes_logs(monkeypatch, tmp_path):
    monkeypatch.setitem(SOURCES, "feed", new_module("pipelines/sources/feed.py")["Feed"])
    lines = ['{"at": 5, "who": "ann", "what": "tea", "clicked": true}', '{"at": 6, "who": "ben", "what": "mug"}', "{}"]
    (tmp_path / "feed.jsonl").write_text("\n".join(lines))
    out = tmp_path / "logs"
    assert main(["import", "--source", "feed", "--input", str(tmp_path / "feed.jsonl"), "--out", str(out)]) == 0
    tables = {path.name.split("-")[0]: gzip.decompress(path.read_bytes()).decode() for path in out.glob("*.gz")}
    impressions = [json.loads(line) for line in tables["impressions"].splitlines()]
    keys = {"user_id": "ann", "item_id": "tea", "timestamp": 5000, "request_id": "ann-5000"}
    assert impressions[0] == {**keys, "scenario": "feed"}
    assert [json.loads(line) for line in tables["actions"].splitlines()] == [{**keys, "action": "click"}]
    assert tables["items"] == '{"item_id":"mug"}\n{"item_id":"tea"}\n'
    assert json.loads((out / "import.json").read_text())["rejected"] == {"no impression": 1}
