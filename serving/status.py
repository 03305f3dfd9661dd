"""How the server says no: TF Serving's codes and messages, raised as TensorFlow's own errors.

The codes of TensorFlow, TF Serving and gRPC are the same numbers, so that an error of the runtime itself
passes through unchanged.
"""

import grpc
import tensorflow as tf

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_MAX_MESSAGE = 1024


def invalid(message: str) -> tf.errors.OpError:
    return tf.errors.InvalidArgumentError(None, None, message)


def not_found(message: str) -> tf.errors.OpError:
    return tf.errors.NotFoundError(None, None, message)


def exhausted(message: str) -> tf.errors.OpError:
    return tf.errors.ResourceExhaustedError(None, None, message)


def code_of(error: tf.errors.OpError) -> grpc.StatusCode:
    return _CODES[error.error_code]


def message_of(error: tf.errors.OpError) -> str:
    """The message as TF Serving sends it: a long one is cut."""
    if len(error.message) <= _MAX_MESSAGE:
        return error.message
    return f"{error.message[:_MAX_MESSAGE]}...TRUNCATED"
