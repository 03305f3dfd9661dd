import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
from pathlib import Path

import pytest

from tests.once import made_once
from tests.usr_tf.fixtures import make_toy


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data directory of the toy shop. Read only."""
    return made_once(tmp_path_factory, "toy", make_toy) / "data"
