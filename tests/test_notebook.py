"""The notebook in `notebooks/`: run from top to bottom, and what can be told of it without running it."""

import ast
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_it_is_valid_and_its_outputs_are_stripped(notebook):
    nbformat.validate(notebook)
    assert not any(cell.outputs or cell.execution_count for cell in code_cells(notebook))
    assert notebook.metadata.kernelspec.name == "python3"


def test_every_cell_is_plain_python_that_imports_what_there_is(notebook):
    for cell in code_cells(notebook):
        for node in ast.walk(ast.parse(cell.source)):
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


def test_beside_a_checkout_the_package_is_installed_all_the_same(notebook, tmp_path):
    """A folder `usr_tf` without `__init__.py` can be imported, as a namespace, and holds nothing."""
    (tmp_path / "usr_tf" / "usr_tf").mkdir(parents=True)
    install = next(cell.source for cell in code_cells(notebook) if "pip" in cell.source)
    told = "import subprocess\nsubprocess.run = lambda command, check: print(*command)\n"
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", told + install], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "pip install" in done.stdout
    assert "Restart the runtime" in done.stdout


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
