"""Export of a SavedModel on raw features, for a stock `tensorflow/serving` (DESIGN §5).

For each scenario there is a signature of its name, which takes one request: the user side once, the items as
lists. `<scenario>_examples` takes serialized `tf.Example`s, a row each. The transform's own graph is inside.
"""

import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from usr_tf.counter_snapshot import CounterSnapshot, CounterSource, open_snapshot
from usr_tf.data.parsing import Features, densify
from usr_tf.errors import InputError
from usr_tf.layers.folding import folding
from usr_tf.model import USRModel
from usr_tf.request_spec import request_spec
from usr_tf.run import Run
from usr_tf.schema import EXAMPLES_SUFFIX, ITEM, history_column


def export(
    run: Run,
    out: str | Path,
    before_publish: Callable[[Path], object] | None = None,
    counters: CounterSource | None = None,
) -> Path:
    """Writes the run's best model as `OUT/<version>/`, atomically, and returns that folder.

    Args:
      out: the folder of a model's versions. A server that watches it finds the new one complete.
      before_publish: called with the finished folder before it gets its name; writes warm-up records, say.
      counters: where served counters come from; by default as `export.counters` of the run's configuration has it.

    Raises:
      InputError: `out` cannot be written, or the run has no snapshot of its counters.
    """
    out = Path(out)
    module = ServingModule(run.load_model(), run.transform, open_snapshot(run, counters))
    aside = out / f".{uuid.uuid4().hex}"
    try:
        aside.mkdir(parents=True)
        tf.saved_model.save(module, str(aside), signatures=module.signatures())
        (aside / "assets.extra").mkdir()
        (aside / "assets.extra" / "schema.yaml").write_text(run.schema.to_yaml(), encoding="utf-8")
        if before_publish:
            before_publish(aside)
        version = out / str(_next_version(out))
        os.rename(aside, version)
    except OSError as error:
        raise InputError(out, f"no writable directory ({error.strerror})", "one that can be written") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return version


class ServingModule(tf.Module):
    """Model with the transform of its features, as functions of raw features.

    It holds the variables and tables that the functions read, and nothing else of the Keras model: what is not
    held is not saved, and a table that is not saved is "not initialized" in serving.
    """

    def __init__(self, model: USRModel, transform: Path, counters: CounterSnapshot | None = None):
        super().__init__(name="usr")
        output = tft.TFTransformOutput(str(transform))
        self._model = _Untracked(model)
        self._schema = model.schema
        self._raw_spec = output.raw_feature_spec()
        self._transform = output.transform_features_layer()
        self._counters = counters

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Signatures of every scenario, and `serving_default` (the first scenario's examples)."""
        signatures = {}
        for number, scenario in enumerate(self._schema.scenarios):
            request = tf.function(lambda inputs, number=number: self._score_request(inputs, number))
            rows = tf.function(lambda examples, number=number: self._score_examples(examples, number))
            with folding():
                signatures[scenario] = request.get_concrete_function(self.request_spec())
                spec = tf.TensorSpec([None], tf.string, name="examples")
                signatures[scenario + EXAMPLES_SUFFIX] = rows.get_concrete_function(spec)
        self._weights = [variable for signature in signatures.values() for variable in signature.variables]
        default = signatures[self._schema.scenarios[0] + EXAMPLES_SUFFIX]
        return {tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY: default, **signatures}

    def request_spec(self) -> dict[str, tf.TensorSpec]:
        """Inputs of a scenario's signature."""
        return request_spec(self._schema, counters=self._counters is None)

    def request_features(self, inputs: dict[str, tf.Tensor], scenario: int) -> Features:
        """Model features of a raw request (`request_spec`): one row, N rows of item features.

        The transform's graph runs once, on one row of the request's side and N of the candidates', and broadcasts.
        """
        raw = {name: self._as_raw(name, values) for name, values in self._aligned(inputs).items()}
        if self._counters:
            raw |= self._counters.look_up(inputs, self._schema.scenarios[scenario])
        return densify(self._transform(raw), self._schema)

    def _score_request(self, inputs: dict[str, tf.Tensor], scenario: int) -> dict[str, tf.Tensor]:
        return self._model.value.serve(self.request_features(inputs, scenario), scenario, one_request=True)

    def _score_examples(self, examples: tf.Tensor, scenario: int) -> dict[str, tf.Tensor]:
        raw = tf.io.parse_example(examples, {name: self._or_default(name) for name in self._raw_spec})
        if self._counters:
            known = self._counters.look_up(raw, self._schema.scenarios[scenario])
            raw |= {name: tf.where(tf.math.is_nan(raw[name]), known[name], raw[name]) for name in known}
        histories = {name: tf.RaggedTensor.from_sparse(raw[name]) for name in self._schema.history_columns}
        for name, history in histories.items():
            places = history.row_lengths() // (self._schema.history_width(name) or 1)
            lengths = histories[history_column(ITEM)].row_lengths()
            tf.debugging.assert_equal(places, lengths, f"{name} is not as long as {history_column(ITEM)}")
            raw[name] = history[:, -self._history_places(name) :].to_sparse()
        for name in self._schema.query_columns:
            raw[name] = tf.RaggedTensor.from_sparse(raw[name])[:, -self._history_places(name) :].to_sparse()
        features = densify(self._transform(raw), self._schema)
        return self._model.value.serve(features, scenario, one_request=False)

    def _or_default(self, name: str) -> Any:
        """How a row's column is parsed: absent strings are empty, absent vectors zeros, absent counts NaN."""
        feature = self._raw_spec[name]
        if not isinstance(feature, tf.io.FixedLenFeature):
            return feature
        if name in self._schema.counter_columns:
            return tf.io.FixedLenFeature([], tf.float32, float("nan")) if self._counters else feature
        default = "" if feature.dtype == tf.string else [0.0] * feature.shape[0]
        return tf.io.FixedLenFeature(feature.shape, feature.dtype, default)

    def _aligned(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The same inputs; at run time histories of different length are an error, before each is cut to its newest."""
        if not self._schema.history_columns:
            return inputs
        length = tf.shape(inputs[history_column(ITEM)])[1]
        return (
            inputs
            | {  # to reshape costs nothing, unlike an assertion
                name: tf.reshape(inputs[name], tf.concat([[1, length], tf.shape(inputs[name])[2:]], 0))
                for name in self._schema.history_columns
            }
        )

    def _as_raw(self, name: str, values: tf.Tensor) -> tf.Tensor | tf.SparseTensor:
        """Dense request input in the form that the transform takes."""
        if name in self._schema.features:
            value = self._schema.features[name].kind.value
            if value == "strings" and self._schema.features[name].weights:
                return _all_places(values)  # its weights stand in the same places
            if value == "strings":
                return tf.ragged.boolean_mask(values, tf.not_equal(values, "")).to_sparse()
            return _all_places(values[:, tf.newaxis]) if value == "number" else values
        if name in self._schema.weight_columns:
            return _all_places(values)
        if name in self._schema.counter_columns:
            return values
        if name in self._schema.query_columns:
            return _all_places(values[:, -self._history_places(name) :])
        values = values[:, -self._schema.history.max_length :]
        width = self._schema.history_width(name)
        if width:  # a history of lists: each list in as many places as the pipeline gives it
            lists = tf.ragged.boolean_mask(values[0], tf.not_equal(values[0], ""))
            values = tf.reshape(lists.to_tensor("", shape=[None, width]), [1, -1])
        return _all_places(values)

    def _history_places(self, name: str) -> int:
        """Maximum number of values of a column of the history or of past queries."""
        queries = self._schema.history.queries
        if queries and name in self._schema.query_columns:
            return queries.max_length
        return self._schema.history.max_length * (self._schema.history_width(name) or 1)


class _Untracked:
    """Holder that hides the Keras model from TensorFlow's object tracking, which would save all its layers."""

    def __init__(self, value: USRModel):
        self.value = value


def _all_places(values: tf.Tensor) -> tf.SparseTensor:
    """`[B, n]` as a sparse tensor with all entries, including empty strings."""
    shape = tf.shape(values, tf.int64)
    return tf.SparseTensor(tf.where(tf.ones_like(values, tf.bool)), tf.reshape(values, [-1]), shape)


def _next_version(out: Path) -> int:
    """Version number: seconds since 1970, or one more than the newest version if that is later."""
    versions = [int(path.name) for path in out.iterdir() if path.name.isdigit()]
    return max([int(time.time()), *(version + 1 for version in versions)])
