"""Reader of TF Serving's model configuration: a `ModelServerConfig` in text form."""

from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from usr_tf.errors import InputError

_PLATFORM = "tensorflow"
_EXPECTED = "a ModelServerConfig in text form"


def read_model_config(path: str | Path) -> list[ModelConfig]:
    """Models of a configuration file, in file order.

    Raises:
      InputError: a file that cannot be read or parsed, or what the container refuses: no model, one of them twice,
        without a name, of another platform, or under a path that is not absolute.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    except OSError as error:
        raise InputError(path, f"no readable file ({error.strerror})", _EXPECTED) from error
    except (UnicodeDecodeError, text_format.ParseError) as error:
        raise InputError(path, f"what does not parse ({error})", _EXPECTED) from error
    models = list(config.model_config_list.config)
    if not models:
        raise InputError(path, "no model", "a model_config_list with at least one config")
    names: set[str] = set()
    for i, model in enumerate(models):
        _check_model(model, f"{path}: config[{i}]")
        if model.name in names:
            raise InputError(f"{path}: config[{i}].name", f"{model.name!r} again", "a name of its own")
        names.add(model.name)
    return models


def _check_model(model: ModelConfig, place: str) -> None:
    if not model.name:
        raise InputError(f"{place}.name", "nothing", "the name that clients ask for")
    if model.model_platform != _PLATFORM:
        raise InputError(f"{place}.model_platform", repr(model.model_platform), repr(_PLATFORM))
    if not model.base_path.startswith("/") and "://" not in model.base_path:
        raise InputError(f"{place}.base_path", repr(model.base_path), "an absolute path, or one such as gs://…")
