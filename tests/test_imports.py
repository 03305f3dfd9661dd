"""Import rule: pipelines → usr_tf → serving → top, above a ground that all may import."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND = (
    "usr_tf",
    "usr_tf.columns",
    "usr_tf.schema",
    "usr_tf.config",
    "usr_tf.documents",
    "usr_tf.errors",
    "usr_tf.feature_states",
    "usr_tf.feature_types",
    "usr_tf.files",
    "usr_tf.log_rows",
    "usr_tf.log_timestamps",
    "usr_tf.streams",
    "usr_tf.pseudonyms",
    "usr_tf.tokens",
    "usr_tf.unicode",
    "usr_tf.metrics",
    "usr_tf.request_contract",
    "usr_tf.evaluation.report",
    "usr_tf.training.history",
)
TOP = ("usr_tf.cli", "usr_tf.demo", "usr_tf.experiments", "usr_tf.play")
MODULES = sorted(path for top in ("usr_tf", "pipelines", "serving") for path in (ROOT / top).rglob("*.py"))


def _within(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or (name != "usr_tf" and module.startswith(f"{name}.")) for name in names)


def _floor(module: str) -> str:
    if _within(module, TOP):
        return "top"
    if _within(module, GROUND):
        return "ground"
    return module.split(".")[0]


_MAY_IMPORT = {
    "ground": {"ground"},
    "pipelines": {"ground", "pipelines"},
    "usr_tf": {"ground", "usr_tf"},
    "serving": {"ground", "usr_tf", "serving"},
    "top": {"ground", "pipelines", "usr_tf", "serving", "top"},
}


def _imports(path: Path, module: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            found |= {
                f"{node.module}.{alias.name}" for alias in node.names if _is_module(f"{node.module}.{alias.name}")
            }
            found.add(node.module)
    return {name for name in found if name.split(".")[0] in ("usr_tf", "pipelines", "serving")}


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    allowed = _MAY_IMPORT[_floor(module)]
    upward = sorted(name for name in _imports(path, module) if _floor(name) not in allowed)
    assert not upward, f"{module} ({_floor(module)}) imports {upward}"
