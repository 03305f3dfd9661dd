"""From ids and numbers to the vectors that the rest of the model reads."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from usr_tf.data import Features
from usr_tf.schema import AGE_BUCKETS, Feature, Schema, history_column, parse_schema


@keras.saving.register_keras_serializable(package="usr_tf")
class FeatureEmbedding(keras.layers.Layer):
    """An embedding table for each feature with ids of its own; a history shares its candidate's.

    Id 0, a missing value or padding, is the zero vector. Lists and texts are the mean of their values. A
    numeric feature is itself, one wide.

    Args:
      schema: Names, groups and types of the features.
      vocabulary_sizes: Ids of each feature that has any.
      size: Width of an embedding where the schema gives none.
      describe: What tells an action of the history from its item: any of `action`, `scenario`, `age` and
        `position`, its place counted from the newest, which is 1.
    """

    def __init__(
        self,
        schema: Schema,
        vocabulary_sizes: Mapping[str, int],
        size: int,
        describe: Sequence[str] = ("action", "scenario", "age"),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        missing = {name for name, feature in schema.features.items() if feature.type != "numeric"} - set(
            vocabulary_sizes
        )
        if missing:
            raise ValueError(f"`vocabulary_sizes` must hold every feature with ids. Received none for: {missing}")
        self.schema, self.vocabulary_sizes, self.size = schema, dict(vocabulary_sizes), size
        self._tables = {
            name: keras.layers.Embedding(self.vocabulary_sizes[name], self.width(name), _initializer(), name=name)
            for name, feature in schema.features.items()
            if feature.type != "numeric" and not feature.shares
        }
        values = {
            "action": len(schema.history.actions),
            "scenario": len(schema.scenarios),
            "age": AGE_BUCKETS,
            "position": schema.history.max_length,
        }
        unknown = set(describe) - set(values)
        if unknown:
            raise ValueError(f"`describe` must hold names of {list(values)}. Received: {unknown}")
        self.describe = list(describe)
        self._described = {
            name: keras.layers.Embedding(values[name] + 1, self.item_width, name=history_column(name))
            for name in (describe if schema.history_columns else ())
        }

    def width(self, name: str) -> int:
        """Width of a feature's vector."""
        feature = self.schema.features[self.schema.owner(name)]
        return 1 if feature.type == "numeric" else feature.embedding_size or self.size

    @property
    def item_width(self) -> int:
        """Width of `item` and of an action of `history`, d."""
        return sum(self.width(name) for name in self.schema.history_features)

    def call(self, features: Features, names: Iterable[str]) -> dict[str, tf.Tensor]:
        """The vectors `[B, width]` of the features `names`."""
        return {name: self._embed(features[name], name, self.schema.features[name]) for name in names}

    def item(self, embedded: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """`[B, d]`: the candidate as a history would hold it, from what `call` returns."""
        return tf.concat([embedded[name] for name in self.schema.history_features], axis=-1)

    def history(self, features: Features) -> tuple[tf.Tensor, tf.Tensor]:
        """`[B, L, d]` of the user's actions, and bool `[B, L]`: which of them are real.

        An action is its item plus a learned vector for each of the layer's `describe`.
        """

        def column(name: str) -> tf.Tensor:
            return features[history_column(name)]

        items = [self._embed(column(name), name, self.schema.features[name]) for name in self.schema.history_features]
        vectors, real = tf.concat(items, axis=-1), tf.not_equal(column("age"), 0)
        for name, table in self._described.items():
            vectors += table(self._from_newest(real) if name == "position" else column(name))
        return vectors, real

    def _from_newest(self, real: tf.Tensor) -> tf.Tensor:
        """int32 `[B, L]`: 1 for the newest action, which stands last, and so on; 0 for padding."""
        real = tf.cast(real, tf.int32)
        return tf.minimum(tf.cumsum(real, axis=1, reverse=True), self.schema.history.max_length) * real

    def _embed(self, values: tf.Tensor, name: str, feature: Feature) -> tf.Tensor:
        if feature.type == "numeric":
            return values[..., tf.newaxis]
        real = tf.cast(tf.not_equal(values, 0), tf.float32)[..., tf.newaxis]
        vectors = self._tables[self.schema.owner(name)](values) * real
        if feature.is_list:
            return tf.math.divide_no_nan(tf.reduce_sum(vectors, axis=-2), tf.reduce_sum(real, axis=-2))
        return vectors

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "schema": self.schema.to_yaml(),
            "vocabulary_sizes": self.vocabulary_sizes,
            "size": self.size,
            "describe": list(self.describe),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FeatureEmbedding":
        return cls(**{**config, "schema": parse_schema(config["schema"])})


def _initializer() -> keras.initializers.Initializer:
    """Wide enough that two vectors tell their ids apart from the first step on.

    With Keras' ±0.05, products of embeddings (attention, gates) start so near 0 that the first epochs do not move
    them.
    """
    return keras.initializers.RandomNormal(stddev=0.3)
