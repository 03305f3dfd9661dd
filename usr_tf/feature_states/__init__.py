"""Feature states: what a feature store keeps of users, items and counters, and how each event changes it.

Pure functions and classes on plain values, without a store, Beam or TensorFlow. The bulk load of the pipeline and the
online ingest of `serving.features` make states by the same code, so that both hold what `usr-tf preprocess` would
compute of the same events.
"""

from usr_tf.feature_states.count_series import CountSeries, lifetime
from usr_tf.feature_states.keys import Change, KeyPlan, counter_key, item_key, user_keys
from usr_tf.feature_states.limits import Limits
from usr_tf.feature_states.row_versions import add_version, history_values, stored_row, valid_row
from usr_tf.feature_states.user_state import Outcome, UserState

__all__ = [
    "Change",
    "CountSeries",
    "KeyPlan",
    "Limits",
    "Outcome",
    "UserState",
    "add_version",
    "counter_key",
    "history_values",
    "item_key",
    "lifetime",
    "stored_row",
    "user_keys",
    "valid_row",
]
