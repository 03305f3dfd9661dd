"""Hardware bound: minimum time of a step's matrix products and table updates on this machine.

`python -m benchmarks.training.floor` prints the rates of this machine and the floor of each backbone, with its
arithmetic::

    floor = 1 / (Σ product FLOPs / measured FLOP/s of that shape  +  table bytes / measured bytes/s)

A layer is three products: forward, and the gradients of its input and of its kernel. Table rows are read, written
beside one another, and so are their gradients; each distinct row of the batch is read and written once more, with its
sum of squares. All else is taken to cost nothing: elementwise passes, which could be fused, launches, metrics, input.
Experts that read the same input count as one product.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from benchmarks.training import measure
from benchmarks.training.measure import BACKBONES, BATCH, CORES, EMBEDDING, EXPERTS, LAYERS, LEVELS, TASKS, TOWER
from benchmarks.training.workload import HISTORY, Size, generate

_COPY_BYTES = 256 << 20
_TABLE_ROWS = 2_000_000


class Product(NamedTuple):
    """`count` products `[BATCH, width] · [width, units]`, in the forward pass of a step."""

    width: int
    units: int
    count: int = 1

    @property
    def flops(self) -> int:
        """Forward and backward."""
        return 3 * 2 * BATCH * self.width * self.units * self.count


def products(backbone: str, ours: bool, width: int) -> list[Product]:
    """Of a step without USR. Ours has a tower, a gate and in PLE experts for each scenario and task; a row is of one
    scenario and needs those alone, but for PLE's experts below the last level. The peers have them for each task.
    """
    groups = len(TASKS)
    first, last = LAYERS
    towers = [Product(last, TOWER[0], groups), Product(TOWER[0], 1, groups)]
    if backbone == "shared_bottom":
        return [Product(width, first), Product(first, last), *towers]
    if backbone == "mmoe":
        experts = [Product(width, first * EXPERTS), Product(first, last, EXPERTS)]
        return [*experts, Product(width, EXPERTS * groups), *towers]
    every = groups * len(measure.SCENARIOS) if ours else groups
    levels = []
    for level in range(LEVELS):
        own = every if level < LEVELS - 1 else groups
        if level == 0:
            layers = [Product(width, first * (own + 1)), Product(width, 2 * own + (every + 1) * (LEVELS > 1))]
        else:
            layers = [Product(last, first, own + 1), Product(last, 2, own)]
            layers += [Product(last, every + 1)] if level < LEVELS - 1 else []
        levels += [*layers, Product(first, last, own + 1)]
    return [*levels, *towers]


class Floor(NamedTuple):
    """Hardware bound of one model, per step."""

    backbone: str
    of: str
    gflop: float
    float32_ms: float
    bfloat16_ms: float
    table_ms: float

    @property
    def examples_per_second(self) -> float:
        return BATCH / (self.float32_ms + self.table_ms) * 1e3

    @property
    def bfloat16_examples_per_second(self) -> float:
        return BATCH / (self.bfloat16_ms + self.table_ms) * 1e3


def floors(backbones: Iterable[str] = BACKBONES) -> tuple[dict[str, float], list[Floor]]:
    """Rates of the machine, and the bound of each backbone, ours and the peers'."""
    rows = generate(Size(rows=10 * BATCH))
    fields, numbers = rows.fields.shape[1], rows.numbers.shape[1]
    batch = slice(0, BATCH)
    read = fields * BATCH + int((rows.history[batch] > 0).sum())
    items = np.concatenate([rows.history[batch].ravel(), rows.fields[batch, 1]])
    columns = [rows.fields[batch, place] for place in range(fields) if place != 1]
    distinct = sum(len(np.unique(column)) for column in columns) + len(np.unique(items[items > 0]))
    table_bytes = (4 * read + 4 * distinct) * EMBEDDING * 4
    copy = copy_rate()
    rates = {
        "copy GB/s": copy / 1e9,
        "gather M rows/s": gather_rate() / 1e6,
        "scatter-add M rows/s": scatter_rate() / 1e6,
        "table rows read a step": read,
        "distinct rows a step": distinct,
        "table MB a step": table_bytes / 1e6,
    }
    found, cache = [], {}
    for backbone in backbones:
        for ours in (True, False):
            width = (fields + 1 - ours) * EMBEDDING + EMBEDDING + numbers
            layers = products(backbone, ours, width)
            milliseconds = []
            for dtype in (tf.float32, tf.bfloat16):
                for layer in layers:
                    key = (*layer, dtype)
                    cache[key] = cache.get(key) or product_seconds(layer, dtype)
                milliseconds.append(1e3 * sum(cache[*layer, dtype] for layer in layers))
            gflop = sum(layer.flops for layer in layers) / 1e9
            of = "ours" if ours else "peers"
            found.append(Floor(backbone, of, gflop, *milliseconds, 1e3 * table_bytes / copy))
    return rates, found


def product_seconds(layer: Product, dtype: tf.DType) -> float:
    """Best time of a layer's three products, `count` times."""
    x, dy = (tf.cast(tf.random.normal([layer.count, BATCH, size]), dtype) for size in (layer.width, layer.units))
    kernel = tf.cast(tf.random.normal([layer.count, layer.width, layer.units]), dtype)
    if layer.count == 1:  # not the batched product, which is another kernel
        x, dy, kernel = x[0], dy[0], kernel[0]
    return (
        _seconds(lambda: tf.matmul(x, kernel))
        + _seconds(lambda: tf.matmul(dy, kernel, transpose_b=True))
        + _seconds(lambda: tf.matmul(x, dy, transpose_a=True))
    )


def copy_rate() -> float:
    """Memory bandwidth in bytes per second, reads plus writes, all cores."""
    source, target = np.ones(_COPY_BYTES, np.uint8), np.zeros(_COPY_BYTES, np.uint8)
    parts = list(zip(np.split(target, CORES), np.split(source, CORES), strict=True))
    with ThreadPoolExecutor(CORES) as pool:
        return 2 * _COPY_BYTES / _seconds(lambda: list(pool.map(lambda part: np.copyto(*part), parts)))


def gather_rate() -> float:
    """Gathered rows per second from a large table."""
    table, rows = tf.random.normal([_TABLE_ROWS, EMBEDDING]), _random_rows()
    return len(rows) / _seconds(lambda: tf.gather(table, rows))


def scatter_rate() -> float:
    """Scatter-added distinct rows per second to a large table."""
    table, rows = tf.Variable(tf.random.normal([_TABLE_ROWS, EMBEDDING])), _random_rows()
    gradient = tf.IndexedSlices(tf.random.normal([len(rows), EMBEDDING]), rows)
    return len(rows) / _seconds(lambda: table.scatter_add(gradient))


def _random_rows() -> tf.Tensor:
    count = BATCH * (HISTORY + 20)
    return tf.constant(np.random.default_rng(0).choice(_TABLE_ROWS, count, replace=False))


def _seconds(run: Callable[[], Any], tries: int = 15) -> float:
    """Best of several runs."""
    run()
    found = []
    for _ in range(tries):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


def print_floors(rates: dict[str, float], found: Iterable[Floor]) -> None:
    table = Table(title=f"Floor of a step of {BATCH} rows: what its products and table rows take at the least")
    for column in ("backbone", "of", "GFLOP", "float32 ms", "bfloat16 ms", "tables ms", "examples/s", "in bfloat16"):
        table.add_column(column, justify="left" if column in ("backbone", "of") else "right")
    for floor in found:
        gflop, *times = (f"{value:.2f}" for value in floor[2:])
        rate, bfloat16 = floor.examples_per_second, floor.bfloat16_examples_per_second
        table.add_row(floor.backbone, floor.of, gflop, *times, f"{rate:,.0f}", f"{bfloat16:,.0f}")
    console = Console(width=120)
    console.print(table)
    console.print(", ".join(f"{name}: {value:,.1f}" for name, value in rates.items()))
    for floor in found:
        console.print(
            f"{floor.backbone}, {floor.of}: {floor.gflop:.2f} GFLOP in {floor.float32_ms:.2f} ms are "
            f"{floor.gflop / floor.float32_ms * 1e3:,.0f} GFLOP/s ({floor.gflop / floor.bfloat16_ms * 1e3:,.0f} in "
            f"bfloat16); {BATCH} / ({floor.float32_ms:.2f} + {floor.table_ms:.2f} ms) = "
            f"{floor.examples_per_second:,.0f} examples/s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=BACKBONES)
    parser.add_argument("--quiet", action="store_true", help="print a line of JSON instead of the tables")
    arguments = parser.parse_args()
    rates, found = floors(arguments.backbones)
    if arguments.quiet:
        print(json.dumps({"rates": rates, "floors": [floor._asdict() for floor in found]}), flush=True)
    else:
        print_floors(rates, found)


if __name__ == "__main__":
    main()
