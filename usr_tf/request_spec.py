"""Tensor specification of a scenario's signature on raw features."""

import tensorflow as tf

from usr_tf.request_contract import request_contract
from usr_tf.schema import Schema


def request_spec(schema: Schema, counters: bool = False) -> dict[str, tf.TensorSpec]:
    """Inputs of a scenario's signature: user, query and context `[1]`, items and candidates `[N]`, histories `[1, L]`.

    A list feature has one more axis; "" pads it, and 0 pads its weights. A vector has an axis of its width. An unknown
    number is NaN. Ages are in ms.

    Args:
      counters: whether the raw counts of counters, `[N]`, are inputs too.
    """
    contract = request_contract(schema, counters)
    return {name: tf.TensorSpec(each.shape, each.dtype, name=name) for name, each in contract.items()}
