"""The export in the C++ session loader that TensorFlow Serving uses, in a process without Python.

`cpp_loader/load_and_run.c` is compiled against TensorFlow's C API as the installed wheel has it.
"""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from serving.formats.logged_requests import read_requests
from serving.formats.messages import SignatureDef
from serving.formats.request import request_inputs
from serving.formats.signatures import read_signatures, signature_specs
from serving.publishing.warmup import to_examples
from usr_tf.export import export
from usr_tf.run import open_run
from usr_tf.schema import EXAMPLES_SUFFIX

SOURCE = Path(__file__).with_name("cpp_loader") / "load_and_run.c"
LIBRARIES = ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")
REQUESTS = 3
"""Logged requests a scenario."""
Call = tuple[str, Mapping[str, np.ndarray]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled `load_and_run`."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler (cc or gcc) on PATH to build load_and_run.c with")
    folder = Path(tf.sysconfig.get_lib())
    libraries = [folder / name for name in LIBRARIES]
    if not all(library.exists() for library in libraries):
        pytest.skip(f"this TensorFlow has no {' and '.join(LIBRARIES)}, so no C API to link with")
    out = tmp_path_factory.mktemp("cpp_loader") / "load_and_run"
    command = [compiler, "-std=c11", "-O1", "-Wall", "-Werror", "-isystem", tf.sysconfig.get_include(), str(SOURCE)]
    command += [*map(str, libraries), f"-Wl,-rpath,{folder}", "-o", str(out)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return out


@pytest.fixture
def moved(toy_run, tmp_path) -> Iterator[Path]:
    """An export elsewhere than where it was made, read-only. The run and the folder it was made in are gone."""
    folder, made = tmp_path / "another place" / "7", tmp_path / "made"
    run = open_run(shutil.copytree(toy_run.directory, made / "run"))
    folder.parent.mkdir()
    export(run, made / "serving").rename(folder)
    shutil.rmtree(made)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_scores_are_pythons_from_a_moved_folder_that_nobody_writes(program, moved, toy_version, toy_run):
    before = read_signatures(toy_version)
    calls = list(logged_calls(toy_run, before))
    assert {name for name, _ in calls} == before.keys()
    loaded = tf.saved_model.load(str(toy_version))
    expected = [call_python(loaded, *call) for call in calls]
    text = describe(calls, before)
    files = fingerprint(moved)

    answers, found = call_program(program, moved, text)

    assert fingerprint(moved) == files
    assert found == before
    assert len(answers) == sum(map(len, expected))
    for (name, _), outputs in zip(calls, expected, strict=True):
        for output in sorted(outputs):
            np.testing.assert_allclose(answers.pop(0), outputs[output], rtol=0, atol=1e-6, err_msg=f"{name} {output}")


def test_an_asset_that_is_gone_is_missed(program, moved):
    """So the vocabulary was read from the moved folder above, and from nowhere else."""
    [asset] = (moved / "assets").iterdir()
    (moved / "assets").chmod(0o755)
    asset.rename(moved / "assets" / "elsewhere")
    finished = run_program(program, moved, "0\n")
    assert finished.returncode == 1
    assert "\nload: " in finished.stderr
    assert asset.name in finished.stderr


def logged_calls(run, signatures: Mapping) -> Iterator[Call]:
    """Logged requests for every signature: as one request, and as serialized rows."""
    for name, signature in signatures.items():
        scenario = name.removesuffix(EXAMPLES_SUFFIX)
        if scenario == tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY:
            scenario = run.schema.scenarios[0]
        specs = signature_specs(signatures)[scenario]
        for request in read_requests(run.requests / f"{scenario}.jsonl")[:REQUESTS]:
            inputs = request_inputs(request.inputs, specs)
            if signature.inputs.keys() == {"examples"}:
                inputs = {"examples": np.array(to_examples(inputs), object)}
            yield name, inputs


def call_python(loaded, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    outputs = loaded.signatures[name](**{alias: tf.constant(values) for alias, values in inputs.items()})
    return {alias: values.numpy() for alias, values in outputs.items()}


def call_program(program: Path, version: Path, text: str) -> tuple[list[np.ndarray], dict]:
    """The answers, one a line, and the signatures that the loader found."""
    finished = run_program(program, version, text)
    assert finished.returncode == 0, finished.stderr
    meta = meta_graph_pb2.MetaGraphDef.FromString(program.with_name("meta_graph.pb").read_bytes())
    answers = [np.array(line.split(), np.float64) for line in finished.stdout.splitlines()]
    assert [int(values[0]) for values in answers] == [len(values) - 1 for values in answers]
    return [values[1:] for values in answers], {
        name: SignatureDef.FromString(signature.SerializeToString())
        for name, signature in meta.signature_def.items()
        if signature.inputs
    }


def run_program(program: Path, version: Path, text: str) -> subprocess.CompletedProcess:
    command = [str(program), str(version), str(program.with_name("meta_graph.pb"))]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": os.environ["TF_CPP_MIN_LOG_LEVEL"]}  # and nothing else of this process
    return subprocess.run(command, input=text, capture_output=True, text=True, env=quiet, cwd="/")


def describe(calls: list[Call], signatures: Mapping) -> str:
    """The calls as the program reads them, outputs in the order of their names."""
    words: list[object] = [len(calls)]
    for name, inputs in calls:
        signature = signatures[name]
        words.append(len(inputs))
        for alias, values in inputs.items():
            info = signature.inputs[alias]
            words += [*info.name.split(":"), info.dtype, values.ndim, *values.shape, *map(word, values.ravel())]
        words.append(len(signature.outputs))
        for alias in sorted(signature.outputs):
            words += signature.outputs[alias].name.split(":")
    return "\n".join(map(str, words)) + "\n"


def word(value) -> str:
    return f"x{value.hex()}" if isinstance(value, bytes) else repr(value.item())


def fingerprint(folder: Path) -> dict[str, tuple]:
    """Every file and folder with its permissions, the time when it was changed, and what it holds."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mode,
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else None,
        )
        for path in [folder, *folder.rglob("*")]
    }
