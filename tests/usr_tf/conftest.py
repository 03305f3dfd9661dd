"""Toy data, run and export, shared by all tests of `usr_tf`."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
from pathlib import Path

import pytest

from tests.once import made_once
from tests.usr_tf.fixtures import make_toy, small_config


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory):
    """Data directory of the toy shop. Read only."""
    from usr_tf.data import open_data

    return open_data(made_once(tmp_path_factory, "toy", make_toy) / "data")


@pytest.fixture(scope="session")
def toy_run(toy_data, tmp_path_factory: pytest.TempPathFactory):
    """Finished run on the toy data. Read only."""
    from usr_tf.run import open_run
    from usr_tf.train import train

    def make(folder: Path) -> None:
        train(toy_data, folder / "run", small_config(), verbose=0)

    return open_run(made_once(tmp_path_factory, "toy_run", make) / "run")


@pytest.fixture(scope="session")
def toy_version(toy_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy run's SavedModel, with warm-up records. Read only."""
    from serving.publishing.synthetic import synthetic_requests
    from serving.publishing.warmup import write_warmup_requests
    from usr_tf.export import export

    def make(folder: Path) -> None:
        export(toy_run, folder, lambda version: write_warmup_requests(version, synthetic_requests(toy_run)))

    (version,) = made_once(tmp_path_factory, "toy_serving", make).glob("[0-9]*")
    return version
