"""What sending the user side once is worth: one request scored by its signature, and as one row an item.

Runs an exported model in this process, without gRPC.

    python -m benchmarks.request_signature --model demo_out/serving --requests demo_out/run/requests/search.jsonl
"""

import argparse
from pathlib import Path

import usr_tf  # noqa: F401  (before TensorFlow)

# isort: split
import numpy as np
import tensorflow as tf

from benchmarks.alternate import alternate, report
from benchmarks.logged_request import longest_history, newest_version
from serving.warmup import to_examples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="directory of the model's versions")
    parser.add_argument("--requests", required=True, help="<scenario>.jsonl of logged requests")
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--json", help="file to write the figures to")
    arguments = parser.parse_args()

    scenario = Path(arguments.requests).stem
    signatures = tf.saved_model.load(str(newest_version(arguments.model))).signatures
    request = longest_history(Path(arguments.requests), signatures[scenario], arguments.items)
    tensors = {name: tf.constant(values) for name, values in request.items()}
    examples = tf.constant(np.array(to_examples(request), dtype=object))

    def once() -> np.ndarray:
        return signatures[scenario](**tensors)["ctr"].numpy()

    def repeated() -> np.ndarray:
        return signatures[f"{scenario}_examples"](examples=examples)["ctr"].numpy()

    np.testing.assert_allclose(once(), repeated(), atol=1e-5)
    figures = alternate({"user side once": once, "one row an item": repeated}, arguments.repeats)
    report(f"{arguments.items} items, {scenario}", {"items": arguments.items, **figures}, arguments.json)


if __name__ == "__main__":
    main()
