"""Feature types: what the `type` of a feature in `schema.yaml` means, by its name.

Schema, log reader, join, transform, requests and statistics read the attributes of an entry, so a further type is a
file here with a `FeatureType`, and its name in the table. Needs no TensorFlow.
"""

from usr_tf.feature_types.base import KEYS_OF_IDS, FeatureType, NormalForm
from usr_tf.feature_types.categorical import CATEGORICAL
from usr_tf.feature_types.categorical_list import CATEGORICAL_LIST
from usr_tf.feature_types.numeric import NUMERIC
from usr_tf.feature_types.text import TEXT
from usr_tf.feature_types.vector import VECTOR

FEATURE_TYPES: dict[str, FeatureType] = {
    kind.name: kind for kind in (CATEGORICAL, CATEGORICAL_LIST, NUMERIC, TEXT, VECTOR)
}

__all__ = ["FEATURE_TYPES", "KEYS_OF_IDS", "FeatureType", "NormalForm"]
