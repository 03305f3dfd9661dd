"""Cost estimate of a model before training: parameters, memory and FLOPs by part."""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras
from rich import box
from rich.console import Group
from rich.filesize import decimal as bytes_text
from rich.table import Table

from usr_tf.config import Config
from usr_tf.data import Data, Features, Labels
from usr_tf.model import USRModel
from usr_tf.optimizers import make_optimizer
from usr_tf.schema import SCENARIO

_STAND_IN_ROWS = 4
"""Rows of a table in the model that takes the step: what it computes does not depend on them."""
_BETWEEN = "between the parts"

PRODUCTS = ("MatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum")
_SAME_BUFFER = ("Identity", "Reshape", "ExpandDims", "Squeeze", "EnsureShape", "StopGradient")
_NOT_KEPT = ("Const", "ReadVariableOp", "Placeholder", "VarHandleOp")
_SHAPE_ONLY = ("Shape", "ShapeN", "Size", "Rank")
_BACKWARD = "gradient_tape/"
"""Scope of the operations that a `tf.GradientTape` adds."""


@dataclasses.dataclass(frozen=True)
class PartCost:
    """Cost of one part of the model."""

    name: str
    parameters: int
    weight_bytes: int
    state_bytes: int
    """Of the optimizer."""
    forward_flops: float = 0.0
    """For one example: its own view, as in evaluation."""
    step_flops: float = 0.0
    """For one example of a training step: all views of the contrastive losses, and the way back."""
    shape: tuple[int, int] | None = None
    """Rows and width of an embedding table."""


@dataclasses.dataclass(frozen=True)
class ModelCost:
    """Cost of a model by part."""

    parts: tuple[PartCost, ...]
    batch_size: int
    activation_bytes: int
    """What the forward pass of a batch leaves for the way back: with weights and state, the least that a step holds."""

    @property
    def total(self) -> PartCost:
        sums = {
            field.name: sum(getattr(part, field.name) for part in self.parts)
            for field in dataclasses.fields(PartCost)
            if field.name not in ("name", "shape")
        }
        return PartCost("total", **sums)


def model_cost(data: Data, config: Config) -> ModelCost:
    """Cost of the model of `config` on `data`, computed without creating its tables.

    A model whose tables have a handful of rows takes one step on a made-up batch, and the rows that they lack are
    counted. FLOPs are two for each multiplication and addition of a matrix product, with histories and lists at their
    full length; what is elementwise is bound by memory and not counted. Sizes are those of a step that runs:
    `tf.compat.v1.profiler` reads static shapes alone, so it misses what is routed by scenario: of STAR, three
    quarters.
    """
    sizes, batch_size = data.vocabulary_sizes, config.train.batch_size
    stand_in = {name: min(size, _STAND_IN_ROWS) for name, size in sizes.items()}
    model = USRModel(data.schema, stand_in, config)
    model.compile(make_optimizer(model, config.train, steps_per_epoch=1))
    rows = _full_rows(data, config)
    forward, _ = _run(lambda rows: model(rows[0]), rows)
    step, activation_bytes = _run(model.train_step, rows)
    forward_flops, step_flops = _flops_by_part(model, forward), _flops_by_part(model, step)
    state = _state_ratios(model)

    def part_cost(name: str, weights: list[tf.Variable]) -> PartCost:
        return PartCost(
            name,
            sum(weight.shape.num_elements() for weight in weights),
            sum(map(_bytes, weights)),
            round(sum(_bytes(weight) * state.get(weight.ref(), 0.0) for weight in weights)),
            forward_flops[name] / batch_size,
            step_flops[name] / batch_size,
        )

    whole = {
        name: part_cost(name, [part] if isinstance(part, tf.Variable) else part.weights)
        for name, part in model.parts.items()
    }
    table_ratio = max((state[table.ref()] for table in model.table_variables), default=0.0)
    tables = _tables(model, sizes, stand_in, whole.pop("embedding"), table_ratio)
    between = [part_cost(_BETWEEN, [])] if step_flops[_BETWEEN] else []
    return ModelCost((*tables, *whole.values(), *between), batch_size, activation_bytes)


def format_cost(cost: ModelCost, data: Data, config: Config) -> Group:
    """Cost table for the terminal, and totals for a run on `data`."""
    table = Table(box=box.SIMPLE_HEAD, title=f"{config.backbone} on {data.directory}", title_justify="left")
    table.add_column("part")
    for column in ("rows × width", "parameters", "weights", "optimizer", "FLOPs forward", "FLOPs of a step"):
        table.add_column(column, justify="right")
    for part in (*cost.parts, cost.total):
        if part.name == "total":
            table.add_section()
        table.add_row(
            part.name,
            "{:,} × {}".format(*part.shape) if part.shape else "",
            f"{part.parameters:,}",
            bytes_text(part.weight_bytes),
            bytes_text(part.state_bytes),
            *(f"{round(flops):,}" if flops else "–" for flops in (part.forward_flops, part.step_flops)),
        )
    total, rows, batch = cost.total, data.rows("train"), cost.batch_size
    steps = math.ceil(rows / batch)
    return Group(
        table,
        f"train: {rows:,} rows, {steps:,} steps of {batch:,} an epoch, {config.train.epochs} epochs at most",
        f"memory: weights and optimizer {bytes_text(total.weight_bytes + total.state_bytes)}, and at least "
        f"{bytes_text(cost.activation_bytes)} that a batch's forward pass leaves for the way back",
        f"checkpoints: two of {bytes_text(total.weight_bytes + total.state_bytes)} to go on from and one of "
        f"{bytes_text(total.weight_bytes)} of the best epoch, one more of each while it is written",
        "FLOPs: of one example, matrix products alone, histories and lists at full length; forward for its own view, "
        "a step with the views of the contrastive losses and the way back",
    )


def _full_rows(data: Data, config: Config) -> tuple[Features, Labels]:
    """Synthetic batch of `Data.training` with the longest histories and lists."""
    schema, batch = data.schema, config.train.batch_size

    def column(name: str, spec: tf.TensorSpec) -> tf.Tensor:
        inner = []
        if name == SCENARIO:
            return tf.range(batch, dtype=spec.dtype) % len(schema.scenarios)
        if name in schema.history_columns:
            inner = [schema.history.max_length, schema.history_width(name)]
        elif name in schema.features:
            inner = [schema.features[name].length]
        return tf.ones([batch, *inner[: spec.shape.rank - 1]], spec.dtype)

    spec = data.training(batch, config.seed, config.position_tower.enabled).element_spec
    features, labels = ({name: column(name, one) for name, one in part.items()} for part in spec)
    return features, labels


def _run(function: Callable[[Any], Any], rows: tuple[Features, Labels]) -> tuple[list[tuple[str, float]], int]:
    """Runs `function(rows)` once: names and FLOPs of matrix products, and bytes of `_kept_tensors`."""
    products: list[tf.Operation] = []
    kept: list[tf.Tensor] = []

    @tf.function(autograph=False)
    def sizes(rows: tuple[Features, Labels]) -> tuple[list[list[tf.Tensor]], list[tf.Tensor]]:
        function(rows)
        operations = tf.compat.v1.get_default_graph().get_operations()
        products[:] = [operation for operation in operations if operation.type in PRODUCTS]
        kept[:] = _kept_tensors(operations)
        shapes = [[tf.shape(tensor) for tensor in (*product.inputs, *product.outputs)] for product in products]
        return shapes, [tf.size(tensor, tf.int64) for tensor in kept]

    shapes, counts = sizes(rows)
    flops = [
        (product.name, product_flops(product, *(shape.numpy().tolist() for shape in one)))
        for product, one in zip(products, shapes, strict=True)
    ]
    return flops, sum(int(count) * tensor.dtype.size for count, tensor in zip(counts, kept, strict=True))


def product_flops(product: tf.Operation, left: list[int], right: list[int], result: list[int]) -> int:
    """FLOPs of a matrix product: two per multiply-add."""
    if product.type == "Einsum":
        letters = product.get_attr("equation").decode().split("->")[0].replace(",", "")
        return 2 * math.prod(dict(zip(letters, (*left, *right), strict=True)).values())
    transposed = product.get_attr("transpose_a" if product.type == "MatMul" else "adj_x")
    return 2 * math.prod(result) * left[-2 if transposed else -1]


def _kept_tensors(operations: Sequence[tf.Operation]) -> list[tf.Tensor]:
    """Forward tensors that the backward pass reads, each buffer once, without weights."""
    kept = {}
    for operation in operations:
        if operation.name.startswith(_BACKWARD) and operation.type not in _SHAPE_ONLY:
            for tensor in map(_buffer, operation.inputs):
                if not tensor.op.name.startswith(_BACKWARD) and tensor.op.type not in _NOT_KEPT:
                    kept[tensor.ref()] = tensor
    return list(kept.values())


def _buffer(tensor: tf.Tensor) -> tf.Tensor:
    """Tensor that owns this one's memory, possibly in another shape."""
    while tensor.op.type in _SAME_BUFFER:
        tensor = tensor.op.inputs[0]
    return tensor


def _flops_by_part(model: USRModel, products: Iterable[tuple[str, int]]) -> Counter[str]:
    """FLOPs by part of the model, from the scopes in the products' names."""
    scopes = {_plain(part.name): name for name, part in model.parts.items() if isinstance(part, keras.layers.Layer)}
    sums: Counter[str] = Counter()
    for name, flops in products:
        path = map(_plain, name.split("/"))
        sums[next((scopes[scope] for scope in path if scope in scopes), _BETWEEN)] += flops
    return sums


def _plain(scope: str) -> str:
    """Layer name without the suffix of repeated kinds and calls."""
    return re.sub(r"_\d+$", "", scope)


def _bytes(variable: tf.Variable) -> int:
    return variable.shape.num_elements() * variable.dtype.size


def _state_ratios(model: USRModel) -> dict:
    """Bytes of optimizer state per byte of a trained variable, by its `ref()`."""
    return {
        variable.ref(): sum(map(_bytes, model.optimizer.state(variable).values())) / _bytes(variable)
        for variable in model.trainable_variables
    }


def _tables(
    model: USRModel, sizes: Mapping[str, int], stand_in: Mapping[str, int], whole: PartCost, state_ratio: float
) -> Iterator[PartCost]:
    """Cost of the embedding: rows of each feature, then shared parts."""
    embedding = model.embedding
    owners = [name for name in stand_in if not model.schema.features[name].shares]
    value = tf.float32.size
    for name in owners:
        rows, width = sizes[name] - 1, embedding.width(name)
        size = rows * width * value
        yield PartCost(f"embedding/{name}", rows * width, size, round(size * state_ratio), shape=(rows, width))
    counted = sum((stand_in[name] - 1) * embedding.width(name) for name in owners)
    yield dataclasses.replace(
        whole,
        name="embedding, shared",
        parameters=whole.parameters - counted,
        weight_bytes=whole.weight_bytes - counted * value,
        state_bytes=whole.state_bytes - round(counted * value * state_ratio),
    )
