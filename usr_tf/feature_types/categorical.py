"""Category: one string, which gets an id."""

from usr_tf.feature_types.base import ID_KEYS, FeatureType

CATEGORICAL = FeatureType(name="categorical", value="string", input="id", keys=ID_KEYS, in_history=True)
