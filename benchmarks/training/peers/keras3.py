"""Measurement of plain Keras 3 on TensorFlow: a functional model with one `Embedding` per field.

Default: Adam, and `fit` on arrays. Tuned: Adagrad with sums that start near 0, and batches from memory.
"""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "0"
os.environ["KERAS_BACKEND"] = "tensorflow"

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers, ops

from benchmarks.training import measure
from benchmarks.training.measure import BATCH, EMBEDDING, TASKS, Clock
from benchmarks.training.peers.arrays import ITEM_FIELD, Arrays, field_names, load_arrays, number_names, parse_arguments
from benchmarks.training.peers.batches import StepClock, from_memory

_LOSS = dict.fromkeys(TASKS, "binary_crossentropy")


def main() -> None:
    arguments = parse_arguments(__doc__, ("default", "tuned"))
    keras.utils.set_random_seed(measure.SEED)
    arrays, clock = load_arrays(arguments.arrays), Clock(arguments.steps)
    train, test = arrays.train, arrays.test
    model, timer = make_model(arrays, arguments.backbone), _Timer(clock, len(train.labels))
    if arguments.variant == "default":
        model.compile("adam", loss=_LOSS)
        labels = dict(zip(TASKS, train.labels.T, strict=True))
        model.fit(train.columns(), labels, batch_size=BATCH, verbose=0, callbacks=[timer])
    else:
        model.compile(keras.optimizers.Adagrad(measure.TABLE_LEARNING_RATE, measure.INITIAL_ACCUMULATOR), loss=_LOSS)
        model.fit(from_memory(train), verbose=0, callbacks=[timer])
    auc = None
    if arguments.steps is None:
        predicted = model.predict(test.columns(), batch_size=BATCH, verbose=0)
        probabilities = np.concatenate([predicted[task] for task in TASKS], axis=1)
        auc = measure.auc_by_scenario(test.scenario, test.labels, probabilities)
    measure.report(clock.examples_per_second, auc)


def make_model(arrays: Arrays, backbone: str) -> keras.Model:
    fields = {name: keras.Input([], name=name, dtype="int32") for name in field_names(arrays.train)}
    numbers = {name: keras.Input([], name=name) for name in number_names(arrays.train)}
    history = keras.Input([arrays.train.history.shape[1]], name="history", dtype="int32")
    tables = {name: layers.Embedding(size, EMBEDDING) for name, size in zip(fields, arrays.sizes, strict=True)}
    real = ops.cast(ops.not_equal(history, 0), "float32")[..., None]
    pooled = ops.sum(tables[ITEM_FIELD](history) * real, axis=1) / ops.maximum(ops.sum(real, axis=1), 1.0)
    parts = [tables[name](ids) for name, ids in fields.items()]
    x = layers.Concatenate()([*parts, pooled, *(ops.expand_dims(number, 1) for number in numbers.values())])
    hidden = {"shared_bottom": _shared_bottom, "mmoe": _mmoe, "ple": _ple}[backbone](x)
    outputs = {
        task: layers.Dense(1, "sigmoid", name=task)(_network(h, measure.TOWER))
        for task, h in zip(TASKS, hidden, strict=True)
    }
    return keras.Model({**fields, **numbers, "history": history}, outputs)


def _network(x: keras.KerasTensor, sizes: Sequence[int]) -> keras.KerasTensor:
    for size in sizes:
        x = layers.Dense(size, "relu")(x)
    return x


def _mix(gate: keras.KerasTensor, experts: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
    weights = layers.Dense(len(experts), "softmax")(gate)
    return ops.sum(ops.stack(experts, axis=1) * weights[..., None], axis=1)


def _shared_bottom(x: keras.KerasTensor) -> list[keras.KerasTensor]:
    return [_network(x, measure.LAYERS)] * len(TASKS)


def _mmoe(x: keras.KerasTensor) -> list[keras.KerasTensor]:
    experts = [_network(x, measure.LAYERS) for _ in range(measure.EXPERTS)]
    return [_mix(x, experts) for _ in TASKS]


def _ple(x: keras.KerasTensor) -> list[keras.KerasTensor]:
    """PLE: one specific expert per task and one shared expert at each level."""
    own, shared = [x] * len(TASKS), x
    for level in range(measure.LEVELS):
        specific, common = [_network(stream, measure.LAYERS) for stream in own], _network(shared, measure.LAYERS)
        own = [_mix(stream, [expert, common]) for stream, expert in zip(own, specific, strict=True)]
        if level < measure.LEVELS - 1:
            shared = _mix(shared, [*specific, common])
    return own


class _Timer(StepClock, keras.callbacks.Callback):
    pass


if __name__ == "__main__":
    main()
