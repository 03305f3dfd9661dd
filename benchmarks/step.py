"""Benchmark of a training step: design choices and parts of USR, alternating.

python -m benchmarks.step --work DIR [--backbone mmoe] [--vocabulary 100000] [--json FILE]

On the workload of `benchmarks.training`, with its batches in memory. A choice is measured on the backbone alone, and
what is held against it differs in that one thing; `tables of their own` has the embeddings and their update alone.
A part's cost is that of the whole of USR against USR without it.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import usr_tf  # noqa: F401  (before TensorFlow)

# isort: split
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras as keras
from rich.console import Console
from rich.table import Table

from benchmarks.alternate import alternate
from benchmarks.training.measure import BATCH, SEED
from benchmarks.training.ours import ARCHITECTURE, WITHOUT_USR
from benchmarks.training.workload import Size, make_workload
from usr_tf.config import Train, load_config
from usr_tf.data import Data, Features, open_data
from usr_tf.embedding import FeatureEmbedding
from usr_tf.model import USRModel
from usr_tf.optimizers import RankingOptimizer, make_optimizer
from usr_tf.schema import history_column

_BATCHES = 8
Step = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="directory of workloads, kept")
    parser.add_argument("--backbone", default="mmoe")
    parser.add_argument("--vocabulary", type=int, default=Size().vocabulary)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--only", nargs="+", choices=[*CHOICES, *PARTS], help="by default all")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    data = open_data(make_workload(Size(arguments.vocabulary), arguments.work).data)
    base = (*ARCHITECTURE, f"backbone={arguments.backbone}")
    found = {}
    for name in arguments.only or [*CHOICES, *PARTS]:
        keras.utils.set_random_seed(SEED)
        ways = CHOICES[name](data, (*base, *WITHOUT_USR)) if name in CHOICES else _part(data, base, PARTS[name])
        found[name] = alternate(ways, arguments.repeats)
        Console(stderr=True).print(name, found[name]["ratio"])
    table = Table("choice", "as it is, ms", "other, ms", "other / as it is", "p10", "p90")
    for name, figures in found.items():
        own, other = (values["p50"] for values in figures["milliseconds"].values())
        ratio = figures["ratio"]
        table.add_row(name, f"{own:.1f}", f"{other:.1f}", *(f"{ratio[key]:.2f}" for key in ("p50", "p10", "p90")))
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _train(
    data: Data,
    settings: Sequence[str],
    optimizer_of: Callable[[USRModel, Train], keras.optimizers.Optimizer] = make_optimizer,
    streaming_auc: bool = True,
) -> Step:
    """A training step of a model, as `model.fit` runs it."""
    config = load_config(None, settings)
    model = USRModel.from_data(data, config)
    if not streaming_auc:
        model._auc = []
    model.compile(optimizer=optimizer_of(model, config.train))
    function, batches = model.make_train_function(), iter(_cached(data).repeat())
    return lambda: function(batches)


def _cached(data: Data) -> tf.data.Dataset:
    kept = data.training(BATCH, SEED, epochs=range(1)).take(_BATCHES).cache()
    for _ in kept:  # which fills the cache
        pass
    return kept


def _part(data: Data, base: Sequence[str], without: str) -> dict[str, Step]:
    return {"with": _train(data, base), "without": _train(data, (*base, without))}


def _own_tables(data: Data, settings: Sequence[str]) -> dict[str, Step]:
    """Embedding step (look-up, loss, Adagrad): fused tables against one table per feature."""
    config = load_config(None, settings)
    fused = FeatureEmbedding(data.schema, data.vocabulary_sizes, config.embedding_size, describe=())
    names = [name for name, feature in data.schema.features.items() if feature.type != "numeric"]
    tables = {name: keras.layers.Embedding(data.vocabulary_sizes[name], config.embedding_size) for name in names}

    def look_up_fused(features: Features) -> list[tf.Tensor]:
        return [fused(features, names), fused.history(features)[0]]

    def look_up_each(features: Features) -> list[tf.Tensor]:
        def rows(name: str, ids: tf.Tensor) -> tf.Tensor:
            return tables[name](ids) * tf.cast(ids != 0, tf.float32)[..., tf.newaxis]

        histories = [rows(name, features[history_column(name)]) for name in data.schema.history_features]
        return [tf.concat([rows(name, features[name]) for name in names], -1), tf.concat(histories, -1)]

    def step_of(look_up: Callable[[Features], list[tf.Tensor]]) -> Step:
        # Every variable is a table to it, and moves at 20 times Adam's rate.
        optimizer, batches = RankingOptimizer(1e-3, tables=("",)), iter(_cached(data).repeat())
        look_up(next(batches)[0])  # makes the tables
        variables = fused.trainable_weights if look_up is look_up_fused else [t.embeddings for t in tables.values()]

        @tf.function
        def step(features: Features) -> tf.Tensor:
            with tf.GradientTape() as tape:
                loss = tf.add_n([tf.reduce_mean(tf.square(vectors)) for vectors in look_up(features)])
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return loss

        return lambda: step(next(batches)[0])

    return {"fused": step_of(look_up_fused), "each": step_of(look_up_each)}


def _with_keras_adagrad(model: USRModel, config: Train) -> keras.optimizers.legacy.Optimizer:
    """TFRS's composite of Keras's own two, whose Adagrad is a kernel of TensorFlow."""
    adagrad = keras.optimizers.legacy.Adagrad(config.embedding_learning_rate, initial_accumulator_value=1e-7)
    adam = keras.optimizers.legacy.Adam(config.learning_rate)
    return tfrs.experimental.optimizers.CompositeOptimizer(
        [(adagrad, lambda: model.table_variables), (adam, lambda: model.dense_variables)]
    )


CHOICES: dict[str, Callable[[Data, Sequence[str]], dict[str, Step]]] = {
    "tables of their own": _own_tables,
    "Adam for the tables too": lambda data, settings: {
        "sparse Adagrad": _train(data, settings),
        "Adam": _train(data, settings, optimizer_of=lambda *_: keras.optimizers.legacy.Adam(1e-3)),
    },
    "Keras's sparse Adagrad": lambda data, settings: {
        "ours": _train(data, settings),
        "Keras's": _train(data, settings, optimizer_of=_with_keras_adagrad),
    },
    "mixed_bfloat16": lambda data, settings: {
        "float32": _train(data, settings),
        "bfloat16": _train(data, (*settings, "train.precision=mixed_bfloat16")),
    },
    "no AUC while training": lambda data, settings: {
        "with": _train(data, settings),
        "without": _train(data, settings, streaming_auc=False),
    },
}
PARTS = {
    "USR without IE": "usr.ie=false",
    "USR without FG": "usr.fg=false",
    "USR without GLMT": "usr.glmt=false",
    "USR without contrastive losses": "usr.contrastive=false",
}

if __name__ == "__main__":
    main()
