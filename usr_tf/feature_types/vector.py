"""Vector: `width` numbers, read as they are."""

from usr_tf.feature_types.base import FeatureType

VECTOR = FeatureType(
    name="vector",
    value="numbers",
    input="vector",
    keys=frozenset({"width"}),
    required={"width": "the numbers of a vector"},
)
