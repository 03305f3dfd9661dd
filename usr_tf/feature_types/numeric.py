"""Number: scaled, with or without a bucket beside it."""

from usr_tf.feature_types.base import FeatureType

NUMERIC = FeatureType(
    name="numeric", value="number", input="number", keys=frozenset({"transform", "buckets", "embedding_size", "since"})
)
