"""List of categories: any number of strings, an id each, with or without weights."""

from usr_tf.feature_types.base import ID_KEYS, FeatureType

CATEGORICAL_LIST = FeatureType(
    name="categorical_list",
    value="strings",
    input="ids",
    keys=ID_KEYS | {"max_length", "weights"},
    in_history=True,
    length=8,
)
