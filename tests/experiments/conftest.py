import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
from pathlib import Path

import pytest

from tests.usr_tf.fixtures import write_toy_logs


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `preprocess` makes of the toy shop's logs. Read only."""
    from pipelines.preprocess import preprocess

    folder = tmp_path_factory.mktemp("toy")
    preprocess(str(write_toy_logs(folder / "logs")), str(folder / "data"), partitions=2)
    return folder / "data"
