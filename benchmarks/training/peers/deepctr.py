"""Measurement of DeepCTR 0.9.4, as documented or tuned by hand.

Tuned: no regulariser (its penalty of the tables reads all their rows in every step), Adagrad with sums that start near
0 in place of Adam, batches from memory.
"""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # it asks for `tensorflow.keras` as it was before Keras 3

import benchmarks.parity.offline_deepctr  # noqa: F401, isort: skip
import deepctr.inputs
import numpy as np
import tf_keras as keras
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat
from deepctr.models.multitask import MMOE, PLE, SharedBottom

from benchmarks.training import measure
from benchmarks.training.measure import BATCH, EMBEDDING, TASKS, Clock
from benchmarks.training.peers.arrays import ITEM_FIELD, Arrays, field_names, load_arrays, number_names, parse_arguments
from benchmarks.training.peers.batches import StepClock, from_memory

_LOSS = ["binary_crossentropy"] * len(TASKS)


def main() -> None:
    arguments = parse_arguments(__doc__, ("default", "tuned"))
    keras.utils.set_random_seed(measure.SEED)
    arrays, clock = load_arrays(arguments.arrays), Clock(arguments.steps)
    train, test = arrays.train, arrays.test
    timer = _Timer(clock, len(train.labels))
    if arguments.variant == "default":
        model = make_model(arrays, arguments.backbone)
        model.compile("adam", loss=_LOSS)
        model.fit(train.columns(), [*train.labels.T], batch_size=BATCH, epochs=1, verbose=0, callbacks=[timer])
    else:
        deepctr.inputs.l2 = lambda factor: None
        model = make_model(arrays, arguments.backbone)
        adagrad = keras.optimizers.legacy.Adagrad(measure.TABLE_LEARNING_RATE, measure.INITIAL_ACCUMULATOR)
        model.compile(adagrad, loss=_LOSS)
        model.fit(from_memory(train), epochs=1, verbose=0, callbacks=[timer])
    auc = None
    if arguments.steps is None:
        predicted = model.predict(test.columns(), batch_size=BATCH, verbose=0)
        auc = measure.auc_by_scenario(test.scenario, test.labels, np.concatenate(predicted, axis=1))
    measure.report(clock.examples_per_second, auc)


def make_model(arrays: Arrays, backbone: str) -> keras.Model:
    names = field_names(arrays.train)
    sizes = dict(zip(names, arrays.sizes, strict=True))
    columns = [SparseFeat(name, size, EMBEDDING) for name, size in sizes.items()]
    history = SparseFeat("history", sizes[ITEM_FIELD], EMBEDDING, embedding_name=ITEM_FIELD)
    columns.append(VarLenSparseFeat(history, arrays.train.history.shape[1], "mean"))
    columns += [DenseFeat(name) for name in number_names(arrays.train)]
    towers = {"tower_dnn_hidden_units": measure.TOWER, "task_names": TASKS}
    if backbone == "shared_bottom":
        return SharedBottom(columns, measure.LAYERS, **towers)
    if backbone == "mmoe":
        return MMOE(columns, measure.EXPERTS, measure.LAYERS, **towers)
    return PLE(columns, 1, 1, measure.LEVELS, measure.LAYERS, **towers)


class _Timer(StepClock, keras.callbacks.Callback):
    pass


if __name__ == "__main__":
    main()
