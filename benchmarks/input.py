"""Benchmark of the input pipeline: each stage in turn, other storage and parsing formats, gzip levels.

python -m benchmarks.input --data DATA [--json FILE]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import usr_tf  # noqa: F401  (before TensorFlow)

# isort: split
import numpy as np
import pyarrow as pa
import tensorflow as tf

from pipelines.join.rows import passthrough_columns
from pipelines.transform.packing import pack
from pipelines.transform.tf_examples import encode_examples
from usr_tf.data import Data, open_data
from usr_tf.data.parsing import Features, Spec, densify, parse, row_spec
from usr_tf.schema import HISTORY, IDS, NUMBERS, SCENARIO, Schema

BATCH, ROWS, REPEATS = 2048, 40_960, 5
LEVELS = (1, 2, 4, 6, 9)
Figures = dict[str, dict[str, float]]
"""By what was done."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="data directory of preprocess")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()

    data = open_data(arguments.data)
    files = sorted(str(path) for path in (data.directory / "train").iterdir())
    packed = list(_records(files).take(ROWS).as_numpy_iterator())
    columns = _columns(packed, data.schema)
    figures = {
        "stage": _stages(data, files),
        "parsing": _ways_to_parse(packed, encode_examples(columns).to_pylist(), data.schema),
        "encoding": {
            "a column for each feature": _cost(lambda: encode_examples(columns), len(packed)),
            "packed": _cost(lambda: encode_examples(pack(columns, data.schema)), len(packed)),
        },
        "gzip level": _levels(packed),
    }
    for title, rows in figures.items():
        _print(title, rows)
    if arguments.json:
        document = {"data": arguments.data, "batch": BATCH, **figures}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _stages(data: Data, files: list[str]) -> Figures:
    """Input stages, each with those before it; shuffled rows are parsed too."""
    names, rows = tf.data.Dataset.from_tensor_slices(files), data.rows("train")
    batches = names.interleave(lambda file: _records(file).batch(BATCH), num_parallel_calls=tf.data.AUTOTUNE)
    return {
        "files read": _pass(names.map(tf.io.read_file), rows),
        "records decompressed": _pass(batches, rows),
        "parsed (`Data.validation`)": _pass(data.validation(BATCH, "train"), rows),
        "shuffled (`Data.training`)": _pass(data.training(BATCH), rows),
    }


def _ways_to_parse(packed: list[bytes], loose: list[bytes], schema: Schema) -> Figures:
    """Parsers from memory to features, scenario and labels.

    Args:
      loose: the rows with a column for each feature.
    """
    spec, loose_spec = row_spec(schema), _loose_spec(schema)
    ways: dict[str, tuple[list[bytes], Callable[[tf.Tensor], object]]] = {
        "not parsed": (packed, lambda records: records),
        "a column for each feature": (loose, lambda records: densify(tf.io.parse_example(records, loose_spec), schema)),
        "packed": (packed, lambda records: parse(records, spec, schema)),
        "packed, and left so": (packed, lambda records: tf.io.parse_example(records, spec)),
    }
    if schema.history_columns:
        ragged, sparse = (spec | {HISTORY: kind(tf.int64)} for kind in (tf.io.RaggedFeature, tf.io.VarLenFeature))
        ways["packed, history ragged"] = packed, lambda records: _padded_later(records, ragged, schema)
        ways["packed, history sparse"] = packed, lambda records: _padded_later(records, sparse, schema)
    figures = {}
    for name, (rows, function) in ways.items():
        batches = tf.data.Dataset.from_tensor_slices(rows).batch(BATCH).cache()
        parsed = batches.map(tf.autograph.experimental.do_not_convert(function), tf.data.AUTOTUNE)
        figures[name] = _pass(parsed.prefetch(tf.data.AUTOTUNE), len(rows)) | {"bytes": np.mean([*map(len, rows)])}
    return figures


def _levels(records: list[bytes]) -> Figures:
    """Sizes and read costs of the stored rows by gzip level."""
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for level in LEVELS:
            file = Path(folder, str(level))
            options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=level)

            def write(file: Path = file, options: tf.io.TFRecordOptions = options) -> None:
                with tf.io.TFRecordWriter(str(file), options) as writer:
                    for record in records:
                        writer.write(record)

            figures[str(level)] = {
                "CPU µs to write": _cost(write, len(records))["CPU µs"],
                "to read": _pass(_records(str(file)).batch(BATCH), len(records))["CPU µs"],
                "bytes": file.stat().st_size / len(records),
            }
    return figures


def _loose_spec(schema: Schema) -> dict:
    spec: dict = {name: tf.io.FixedLenFeature([], tf.int64) for name in (*schema.id_features, *schema.label_names)}
    spec |= {name: tf.io.FixedLenFeature([], tf.float32) for name in schema.number_features}
    spec |= {name: tf.io.RaggedFeature(tf.int64) for name in (*schema.list_features, *schema.history_columns)}
    return spec | {SCENARIO: tf.io.FixedLenFeature([], tf.string)}


def _padded_later(records: tf.Tensor, spec: Spec, schema: Schema) -> Features:
    """Parser whose histories are padded after parsing instead of by TensorFlow's parser."""
    row = tf.io.parse_example(records, spec)
    row |= zip(schema.id_features, tf.unstack(row.pop(IDS), axis=1), strict=True)
    history, places = row.pop(HISTORY), schema.history_places
    history = history.to_tensor() if isinstance(history, tf.RaggedTensor) else tf.sparse.to_dense(history)
    history = tf.reshape(history, [tf.shape(records)[0], -1, sum(places)])
    return row | dict(zip(schema.history_columns, tf.split(history, places, axis=2), strict=True))


def _columns(packed: list[bytes], schema: Schema) -> pa.RecordBatch:
    """Packed rows as one column per feature."""
    kinds = passthrough_columns(schema) | dict.fromkeys((IDS, HISTORY, *schema.list_features), pa.int64())
    kinds[NUMBERS] = pa.float32()
    types = {pa.int64(): tf.int64, pa.float32(): tf.float32, pa.string(): tf.string}
    row = tf.io.parse_example(packed, {name: tf.io.RaggedFeature(types[kind]) for name, kind in kinds.items()})
    values = {name: (column.flat_values.numpy(), column.row_splits.numpy()) for name, column in row.items()}
    for column, names, places in (
        (IDS, schema.id_features, (1,) * len(schema.id_features)),
        (NUMBERS, schema.number_features, (1,) * len(schema.number_features)),
        (HISTORY, schema.history_columns, schema.history_places),
    ):
        together, splits = values.pop(column)
        for name, width, end in zip(names, places, np.cumsum(places), strict=True):
            part = together.reshape(-1, sum(places))[:, end - width : end]
            values[name] = part.ravel(), splits // sum(places) * width
    lists = [pa.ListArray.from_arrays(pa.array(splits, pa.int32()), pa.array(flat)) for flat, splits in values.values()]
    return pa.RecordBatch.from_arrays(lists, names=list(values))


def _records(files: str | list[str] | tf.Tensor) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(files, "GZIP", buffer_size=1 << 20)


def _pass(batches: tf.data.Dataset, rows: int) -> dict[str, float]:
    """Cost of an epoch."""
    return _cost(lambda: sum(1 for _ in batches), rows)


def _cost(work: Callable[[], object], rows: int) -> dict[str, float]:
    """Cost per row, the minimum of several runs: CPU time of all threads."""
    cpu, wall = [], []
    for _ in range(REPEATS):
        cpu_start, start = time.process_time(), time.perf_counter()
        work()
        cpu.append(time.process_time() - cpu_start)
        wall.append(time.perf_counter() - start)
    return {"CPU µs": 1e6 * min(cpu) / rows, "rows/s": rows / min(wall)}


def _print(title: str, rows: Figures) -> None:
    print(f"\n| {' | '.join([title, *next(iter(rows.values()))])} |")
    for name, figures in rows.items():
        cells = (f"{value:,.0f}" if value >= 100 else f"{value:.2f}" for value in figures.values())
        print(f"| {' | '.join([name, *cells])} |")


if __name__ == "__main__":
    main()
