"""One small data directory, one run and one export for all tests of `usr_tf`."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
from pathlib import Path

import pytest

from tests.usr_tf.fixtures import small_config, write_toy_logs


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory):
    """What `preprocess` makes of the toy shop's logs. Read only."""
    from pipelines.preprocess import preprocess
    from usr_tf.data import open_data

    folder = tmp_path_factory.mktemp("toy")
    preprocess(str(write_toy_logs(folder / "logs")), str(folder / "data"), partitions=2)
    return open_data(folder / "data")


@pytest.fixture(scope="session")
def toy_run(toy_data, tmp_path_factory: pytest.TempPathFactory):
    """A finished run on the toy data. Read only."""
    from usr_tf.run import open_run
    from usr_tf.train import train

    folder = tmp_path_factory.mktemp("run") / "run"
    train(toy_data, folder, small_config(), verbose=0)
    return open_run(folder)


@pytest.fixture(scope="session")
def toy_version(toy_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy run's SavedModel, with warm-up records. Read only."""
    from serving.warmup import write_logged_requests
    from usr_tf.export import export

    serving = tmp_path_factory.mktemp("serving")
    return export(toy_run, serving, lambda folder: write_logged_requests(folder, toy_run.requests))
