"""Notebook in `notebooks/`: executed, and static checks."""

import ast
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def plain(cell: nbformat.NotebookNode) -> str:
    """A cell's source as Python, its magics as calls of `get_ipython()`."""
    return TransformerManager().transform_cell(cell.source)


def test_it_is_valid_and_its_outputs_are_stripped(notebook):
    nbformat.validate(notebook)
    assert not any(cell.outputs or cell.execution_count for cell in code_cells(notebook))
    assert notebook.metadata.kernelspec.name == "python3"


def test_every_cell_is_plain_python_that_imports_what_there_is(notebook):
    for cell in code_cells(notebook):
        for node in ast.walk(ast.parse(plain(cell))):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("usr_tf", "pipelines", "serving"):
                module = __import__(node.module, fromlist=[alias.name for alias in node.names])
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def test_keras_2_is_picked_before_tensorflow_is_imported(notebook):
    source = "\n".join(cell.source for cell in code_cells(notebook))
    first = {name: source.index(f"import {name}") for name in ("usr_tf", "tensorflow", "tf_keras")}
    assert first["usr_tf"] < min(first["tensorflow"], first["tf_keras"])


def test_one_cell_sets_all_sizes(notebook):
    (parameters,) = (cell for cell in code_cells(notebook) if "parameters" in cell.metadata.get("tags", ()))
    names = {node.id for node in ast.walk(ast.parse(parameters.source)) if isinstance(node, ast.Name)}
    assert {"IMPRESSIONS", "EPOCHS", "BATCH", "WORK"} <= names
    elsewhere = [cell.source for cell in code_cells(notebook) if cell is not parameters]
    assert not any(f"{name} =" in source for source in elsewhere for name in ("IMPRESSIONS", "EPOCHS", "BATCH", "WORK"))


PIP = """
def get_ipython():
    class Shell:
        def run_line_magic(self, name, line):
            print(name, line.format(package=package))
    return Shell()
"""
"""Stands for IPython where the install cell runs alone: shows what `%pip` is asked for."""


def install(notebook: nbformat.NotebookNode, folder: Path, before: str = "") -> subprocess.CompletedProcess:
    """Runs the install cell in a folder, by a Python that has no usr_tf."""
    cell = next(plain(cell) for cell in code_cells(notebook) if "%pip" in cell.source)
    versions = "import importlib.metadata\nimportlib.metadata.version = lambda name: '2.0'\n"
    command = [sys.executable, "-S", "-E", "-c", PIP + versions + before + cell]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_it_installs_from_github_unless_a_wheel_or_a_checkout_is_beside_it(notebook, tmp_path):
    done = install(notebook, tmp_path)
    asked = 'pip install --quiet "usr-tf[train,pipelines] @ {}"\n'
    assert (done.stdout, done.stderr) == (asked.format("git+https://github.com/usr-tf/usr_tf"), "")
    (tmp_path / "usr_tf" / "usr_tf").mkdir(parents=True)  # can be imported, as a namespace, and holds nothing
    (tmp_path / "usr_tf" / "setup.py").touch()
    assert install(notebook, tmp_path).stdout == asked.format((tmp_path / "usr_tf").as_uri())
    wheel = tmp_path / "usr_tf-0.1.0-py3-none-any.whl"
    wheel.touch()
    assert install(notebook, tmp_path).stdout == asked.format(wheel.as_uri())


@pytest.mark.parametrize(("in_use", "stops"), [("2.0", False), ("1.9", True)])
def test_it_asks_for_a_restart_only_where_a_package_in_use_was_replaced(notebook, tmp_path, in_use, stops):
    loaded = f"import sys, types\nsys.modules['numpy'] = types.SimpleNamespace(__version__={in_use!r})\n"
    done = install(notebook, tmp_path, loaded)
    assert done.returncode == stops
    line = "Stop: numpy 1.9 is in use, 2.0 is installed. Choose Runtime > Restart session, then run all cells."
    assert (line in done.stderr) == stops


def test_it_says_which_runtime_and_opens_in_colab(notebook):
    first = notebook.cells[0].source
    path = f"usr-tf/usr_tf/blob/main/{NOTEBOOK.relative_to(NOTEBOOK.parents[1]).as_posix()}"
    assert f"https://colab.research.google.com/github/{path}" in first
    assert "**Runtime**: Python 3.11, 3.12 or 3.13" in first


@pytest.mark.slow
def test_after_keras_3_it_stops_with_one_line(notebook):
    """In one kernel: TensorFlow used with Keras 3, then the cells up to the import."""
    cells = code_cells(notebook)
    until = next(place for place, cell in enumerate(cells) if "import usr_tf" in cell.source)
    loaded = "import os\nos.environ['TF_USE_LEGACY_KERAS'] = '0'\nimport tensorflow as tf\ntf.keras.layers"
    short = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(loaded), *cells[: until + 1]])
    with pytest.raises(CellExecutionError):
        NotebookClient(short, timeout=600, kernel_name="python3").execute()
    (error,) = (output for output in short.cells[-1].outputs if output.output_type == "error")
    (line,) = error.traceback
    assert line.startswith("usr_tf needs Keras 2, but TensorFlow was imported with Keras 3. Restart the runtime")


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(notebook):
    done = NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    text = "\n".join(
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for cell in code_cells(done)
        for output in cell.outputs
    )
    for shown in ("oracle AUC", "with USR", "left over", "ctcvr"):
        assert shown in text
    assert any("image/png" in output.get("data", {}) for cell in code_cells(done) for output in cell.outputs)
