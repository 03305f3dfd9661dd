"""Quiet start: silences what libraries log while TensorFlow is imported."""

import logging
import os
import sys
import warnings


def quiet() -> None:
    """Silences library logs; with `TF_CPP_MIN_LOG_LEVEL` set, TensorFlow's stay."""
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("usr_tf").setLevel(logging.WARNING)  # ours are few, and about what the user has
    warnings.filterwarnings("ignore")
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)  # TensorFlow says that there is no GPU before it reads its log level
        import tensorflow as tf
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    tf.get_logger().setLevel("ERROR")
