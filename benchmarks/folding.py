"""Benchmark of folding at export: the request signature of a run, exported with and without folding.

python -m benchmarks.folding --run demo_out/run --scenario search
"""

import argparse
import contextlib
import tempfile
from unittest import mock

import usr_tf  # noqa: F401  (before TensorFlow)

# isort: split
import numpy as np
import tensorflow as tf

from benchmarks.alternate import alternate, report
from benchmarks.logged_request import longest_history
from usr_tf import export
from usr_tf.run import open_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="run directory of train")
    parser.add_argument("--scenario", required=True)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--json", help="file to write the figures to")
    arguments = parser.parse_args()

    run = open_run(arguments.run)
    with tempfile.TemporaryDirectory() as folder:
        folded = tf.saved_model.load(str(export.export(run, f"{folder}/folded")))
        with mock.patch.object(export, "folding", contextlib.nullcontext):
            plain = tf.saved_model.load(str(export.export(run, f"{folder}/plain")))
        signatures = {"folded": folded.signatures, "not folded": plain.signatures}
        requests = run.requests / f"{arguments.scenario}.jsonl"
        request = longest_history(requests, folded.signatures[arguments.scenario], arguments.items)
        tensors = {name: tf.constant(values) for name, values in request.items()}
        ways = {
            name: lambda signature=found[arguments.scenario]: signature(**tensors)["ctr"].numpy()
            for name, found in signatures.items()
        }
        np.testing.assert_allclose(*(way() for way in ways.values()), atol=1e-5)
        figures = alternate(ways, arguments.repeats)
    title = f"{arguments.items} items, {arguments.scenario}"
    report(title, {"items": arguments.items, "backbone": run.config.backbone, **figures}, arguments.json)


if __name__ == "__main__":
    main()
