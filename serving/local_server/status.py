"""Error statuses of TF Serving: codes and messages, as TensorFlow exceptions.

The codes of TensorFlow, TF Serving and gRPC are the same numbers, so that an error of the runtime itself
passes through unchanged.
"""

import grpc
import tensorflow as tf

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_MAX_BYTES = 1024


def invalid(message: str) -> tf.errors.OpError:
    return tf.errors.InvalidArgumentError(None, None, message)


def not_found(message: str) -> tf.errors.OpError:
    return tf.errors.NotFoundError(None, None, message)


def exhausted(message: str) -> tf.errors.OpError:
    return tf.errors.ResourceExhaustedError(None, None, message)


def code_of(error: tf.errors.OpError) -> grpc.StatusCode:
    return _CODES[error.error_code]


def message_of(error: tf.errors.OpError) -> str:
    """Status message as TF Serving sends it, truncated to fit gRPC's 8 KiB when escaped."""
    text = error.message.encode(errors="replace")
    if len(text) <= _MAX_BYTES:
        return text.decode()
    return f"{text[:_MAX_BYTES].decode(errors='ignore')}...TRUNCATED"
