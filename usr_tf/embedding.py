"""Feature embeddings: fused embedding tables, numeric features, and history vectors."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras as keras

from usr_tf.data import Features
from usr_tf.layers.folding import fold
from usr_tf.layers.piecewise_linear import PiecewiseLinear
from usr_tf.schema import AGE_BUCKETS, PAST_QUERIES, PAST_QUERIES_AGE, Schema, history_column, parse_schema

TABLE_PREFIX = "table_"
"""What the names of all variables of the layer begin with: the optimizer knows embedding tables by it."""


class Place(NamedTuple):
    """Location of a feature's vectors: its id i ≥ 1 is row `before + i` of the table of its width."""

    width: int
    before: int
    ids: int
    """Its highest id: that many rows are its own."""


@keras.saving.register_keras_serializable(package="usr_tf")
class FeatureEmbedding(keras.layers.Layer):
    """Embedding layer with one fused table per width; a history shares its candidate's rows.

    So a batch has few gathers, and its sparse update one pass a table: ids are told apart once for all of the features.
    Row 0 of every table is the zero vector: id 0, a missing value or padding, of all features. It gets no gradient.
    Lists and texts are the mean of their values. A number is `bins` wide, or itself with one bin.

    Args:
      schema: Names, groups and types of the features.
      vocabulary_sizes: Ids of each feature that has any, 0 included.
      size: Width of an embedding where the schema gives none.
      describe: What tells an action of the history from its item: any of `action`, `scenario`, `age` and
        `position`, its place counted from the newest, which is 1.
      spread: Standard deviation of the tables' first values.
      bins: Bins of each number's piecewise-linear encoding; 1: the number itself.
    """

    def __init__(
        self,
        schema: Schema,
        vocabulary_sizes: Mapping[str, int],
        size: int,
        describe: Sequence[str] = ("action", "scenario", "age"),
        spread: float = 0.05,
        bins: int = 1,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        with_ids = [name for name, feature in schema.inputs.items() if feature.has_ids]
        missing = set(with_ids) - set(vocabulary_sizes)
        if missing:
            raise ValueError(f"`vocabulary_sizes` must hold every feature with ids. Received none for: {missing}")
        if spread <= 0:
            raise ValueError(f"`spread` must be above 0. Received: {spread}")
        self.schema, self.vocabulary_sizes, self.size = schema, dict(vocabulary_sizes), size
        self.spread, self.bins = spread, bins
        kinds = {
            "action": len(schema.history.actions) + 1,
            "scenario": len(schema.scenarios) + 1,
            "age": AGE_BUCKETS + 1,
            "position": schema.history.max_length + 1,
        }
        unknown = set(describe) - set(kinds)
        if unknown:
            raise ValueError(f"`describe` must hold names of {list(kinds)}. Received: {unknown}")
        self.describe = list(describe)
        self._kinds = {name: kinds[name] for name in describe} if schema.history_columns else {}

        rows: dict[int, int] = {}  # of each width's table, so far
        self.places: dict[str, Place] = {}
        """Of each feature with ids; features that share ids have the same."""
        for name in sorted(with_ids, key=lambda name: bool(schema.inputs[name].shares)):  # owners first
            width = self.width(name)
            if schema.inputs[name].shares:
                self.places[name] = self.places[schema.owner(name)]
                continue
            place = Place(width, rows.get(width, 1) - 1, self.vocabulary_sizes[name] - 1)
            self.places[name], rows[width] = place, place.before + place.ids + 1
        self.tables = {
            # In mixed precision, rows are cast once they are gathered, and never the whole table.
            str(width): self.add_weight(
                name=f"{TABLE_PREFIX}{width}",
                shape=(count, width),
                initializer=_zero_row_first(spread),
                experimental_autocast=False,
            )
            for width, count in rows.items()
        }
        """By width."""
        self._descriptions = {
            name: self.add_weight(
                name=TABLE_PREFIX + history_column(name),
                shape=(count, self.item_width),
                initializer="uniform",
                experimental_autocast=False,
            )
            for name, count in self._kinds.items()
        }
        self._numbers = tuple(name for name in schema.number_columns if name not in schema.vector_features)
        self.number_encoding = None
        if bins > 1 and self._numbers:
            self.number_encoding = PiecewiseLinear(len(self._numbers), bins, name="number_encoding")
        self._query_ages = None
        if schema.query_columns:
            self._query_ages = self.add_weight(
                name=TABLE_PREFIX + PAST_QUERIES_AGE,
                shape=(AGE_BUCKETS + 1, self.width("query")),
                initializer="uniform",
                experimental_autocast=False,
            )

    def width(self, name: str) -> int:
        """Width of a feature's vector."""
        feature = self.schema.inputs[self.schema.owner(name)]
        if feature.has_ids:
            return feature.embedding_size or self.size
        return feature.width or self.bins

    @property
    def item_width(self) -> int:
        """Width of an item as a history holds it, and of an action of `history`, d."""
        return sum(self.width(name) for name in self.schema.history_features)

    def adapt(self, numbers: Mapping[str, np.ndarray]) -> None:
        """Sets the bins of numbers to quantiles of rows `[B]` of each; without rows they stay."""
        if self.number_encoding and numbers:
            self.number_encoding.adapt(np.stack([numbers[name] for name in self._numbers], axis=-1))

    def call(self, features: Features, names: Iterable[str], check: bool = True) -> tf.Tensor:
        """`[B, w]`: the vectors of `names` side by side: single values, table by table, then lists, then numbers.

        Args:
          check: Whether an id that its feature does not have raises `tf.errors.InvalidArgumentError`. Ids of the
            transform's graph are always in range.
        """
        names = tuple(names)
        weights = {name: features[column] for column, name in self.schema.weight_columns.items() if name in names}
        return self._side_by_side({name: features[name] for name in names}, check, weights)

    def columns(self, names: Iterable[str]) -> list[str]:
        """The feature that each column of `call`'s vectors belongs to."""
        by_width, lists, numbers = self._sorted(names)
        single = [name for names in by_width.values() for name in names]
        return [name for name in (*single, *lists, *numbers) for _ in range(self.width(name))]

    def history(self, features: Features, check: bool = True) -> tuple[tf.Tensor, tf.Tensor]:
        """`[B, L, d]` of the user's actions, and bool `[B, L]`: which of them are real.

        An action is its item, as `call` gives the history's features, plus a learned vector for each of the layer's
        `describe`.
        """
        real = tf.not_equal(features[history_column("age")], 0)
        values = {name: features[history_column(name)] for name in self.schema.history_features}
        items = self._side_by_side(values, check)
        return (items + self._describe(features, real, check) if self._kinds else items), real

    def past_queries(self, features: Features, check: bool = True) -> tuple[tf.Tensor, tf.Tensor]:
        """`[B, L, w]` of the user's earlier queries, and bool `[B, L]`: which of them are real.

        A query is the mean of its tokens' vectors, as the feature `query` is, plus a learned vector for its age.
        """
        real = tf.not_equal(features[PAST_QUERIES_AGE], 0)
        vectors = self._side_by_side({"query": features[PAST_QUERIES]}, check)
        ages = features[PAST_QUERIES_AGE]
        if check:
            ages = tf.squeeze(_check_ids(ages[..., tf.newaxis], [PAST_QUERIES_AGE], [AGE_BUCKETS]), axis=-1)
        return vectors + tf.cast(tf.gather(self._query_ages, ages), self.compute_dtype), real

    def _side_by_side(
        self, values: Mapping[str, tf.Tensor], check: bool, weights: Mapping[str, tf.Tensor] | None = None
    ) -> tf.Tensor:
        """`[..., w]` of ids and numbers `[...]`, of lists of ids `[..., n]`, perhaps weighted, and of vectors."""
        by_width, lists, numbers = self._sorted(values)
        parts = []
        for width, names in by_width.items():
            vectors = self._look_up(tf.stack([values[name] for name in names], axis=-1), names, check)
            parts.append(tf.reshape(vectors, tf.concat([tf.shape(vectors)[:-2], [len(names) * width]], axis=0)))
            parts[-1] = tf.ensure_shape(parts[-1], [*vectors.shape[:-2], len(names) * width])
        for name in lists:
            vectors = self._look_up(values[name], [name], check)
            if weights and name in weights:
                weight = tf.where(values[name] != 0, weights[name], 0.0)
                largest = tf.reduce_max(tf.abs(weight), axis=-1, keepdims=True)  # the sum of large weights is infinite
                weight = tf.cast(tf.math.divide_no_nan(weight, largest), self.compute_dtype)
                count = tf.reduce_sum(tf.abs(weight), axis=-1, keepdims=True)
                vectors *= weight[..., tf.newaxis]
            else:
                count = tf.math.count_nonzero(values[name], axis=-1, keepdims=True, dtype=self.compute_dtype)
            parts.append(tf.math.divide_no_nan(tf.reduce_sum(vectors, axis=-2), count))
        single = [name for name in numbers if name not in self.schema.vector_features]
        if single:
            parts.append(self._encoded(values, single))
        parts += [tf.cast(values[name], self.compute_dtype) for name in numbers if name not in single]
        return parts[0] if len(parts) == 1 else tf.concat(parts, axis=-1)

    def _encoded(self, values: Mapping[str, tf.Tensor], names: Sequence[str]) -> tf.Tensor:
        """`[..., w]` of the numbers `names`."""
        numbers = tf.stack([values[name] for name in names], axis=-1)
        if self.number_encoding is None:
            return tf.cast(numbers, self.compute_dtype)
        return self.number_encoding(numbers, [self._numbers.index(name) for name in names])

    def _sorted(self, names: Iterable[str]) -> tuple[dict[int, list[str]], list[str], list[str]]:
        """The features in the order of their columns: single ids by table width, lists, numbers, vectors."""
        by_width, lists, numbers = {}, [], []
        for name in sorted(names, key=lambda name: name in self.schema.vector_features):
            kind = self.schema.inputs[name]
            if not kind.has_ids:
                numbers.append(name)
            elif kind.is_list:
                lists.append(name)
            else:
                by_width.setdefault(self.places[name].width, []).append(name)
        return by_width, lists, numbers

    def _look_up(self, ids: tf.Tensor, names: Sequence[str], check: bool) -> tf.Tensor:
        """`[..., n, width]` of ids `[..., n]`, whose last axis are `names` of one width, or one name's list.

        An id above the feature's highest would be a row of another feature.
        """
        if check:
            ids = _check_ids(ids, names, [self.places[name].ids for name in names])
        table = self.tables[str(self.places[names[0]].width)]
        # 32 bits are told apart in two thirds of the time that 64 take.
        kind = tf.int32 if table.shape[0] <= tf.int32.max else tf.int64
        before = tf.constant([self.places[name].before for name in names], kind)
        ids = tf.cast(ids, kind)
        rows = tf.where(ids > 0, ids + before, 0)
        vectors = tf.cast(tf.gather(table, rows), self.compute_dtype)
        return _without_gradient_of_padding(vectors, rows)

    def _describe(self, features: Features, real: tf.Tensor, check: bool) -> tf.Tensor:
        """`[B, L, d]`: the sum of each description's vector.

        The combinations of action, scenario and age are few, so they are added up first and looked up once.
        """
        combined = [name for name in self._kinds if name != "position"]
        if check and combined:
            columns = [history_column(name) for name in combined]
            ids = tf.stack([features[name] for name in columns], axis=-1)
            checked = _check_ids(ids, columns, [self._kinds[name] - 1 for name in combined])
            features = {**features, **dict(zip(columns, tf.unstack(checked, axis=-1), strict=True))}
        place = tf.zeros_like(real, tf.int32)
        for name in combined:
            place = place * self._kinds[name] + tf.cast(features[history_column(name)], tf.int32)
        table = fold(lambda: self._combinations(combined), *(self._descriptions[name] for name in combined))
        vectors = tf.gather(table, place)
        if "position" in self._kinds:
            vectors += tf.gather(self._descriptions["position"], self._from_newest(real))
        return tf.cast(vectors, self.compute_dtype)

    def _combinations(self, names: Sequence[str]) -> tf.Tensor:
        """`[n, d]`: the sums of every combination of descriptions, the last one's changing fastest."""
        sums = tf.zeros([1, self.item_width])
        for name in names:
            sums = tf.reshape(sums[:, tf.newaxis] + self._descriptions[name], [-1, self.item_width])
        return sums

    def _from_newest(self, real: tf.Tensor) -> tf.Tensor:
        """int32 `[B, L]`: 1 for the newest action, which stands last, and so on; 0 for padding."""
        real = tf.cast(real, tf.int32)
        return tf.minimum(tf.cumsum(real, axis=1, reverse=True), self.schema.history.max_length) * real

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "schema": self.schema.to_yaml(),
            "vocabulary_sizes": self.vocabulary_sizes,
            "size": self.size,
            "describe": list(self.describe),
            "spread": self.spread,
            "bins": self.bins,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FeatureEmbedding":
        return cls(**{**config, "schema": parse_schema(config["schema"])})


def _check_ids(ids: tf.Tensor, names: Sequence[str], highest: Sequence[int]) -> tf.Tensor:
    """The ids `[..., n]`, of n features or of the list of one.

    Raises:
      tf.errors.InvalidArgumentError: one is negative or above its feature's highest.
    """
    rows, limits = tf.reshape(ids, [-1, len(names)]), tf.constant(highest, ids.dtype)
    lowest, largest = tf.reduce_min(rows, axis=0), tf.reduce_max(rows, axis=0)
    empty = tf.equal(tf.size(ids), 0)  # the least of nothing is the largest integer
    in_range = empty | tf.reduce_all((lowest >= 0) & (largest <= limits))
    found = [f"ids of {', '.join(names)}: found", lowest, "to", largest, "expected 0 to", limits]
    with tf.control_dependencies([tf.debugging.Assert(in_range, found, summarize=len(names))]):
        return tf.identity(ids)


@tf.custom_gradient
def _without_gradient_of_padding(vectors: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """The vectors; on the way back, what would move row 0 is zero."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return upstream * tf.cast(rows > 0, upstream.dtype)[..., tf.newaxis], None

    return vectors, gradient


def _zero_row_first(spread: float) -> Callable[..., tf.Tensor]:
    """An initializer of tables: the zero row, then normal numbers."""
    draw = keras.initializers.RandomNormal(stddev=spread)

    def initialize(shape: Sequence[int], dtype: tf.DType | None = None) -> tf.Tensor:
        return tf.concat([tf.zeros([1, shape[1]], dtype), draw([shape[0] - 1, shape[1]], dtype)], axis=0)

    return initialize
