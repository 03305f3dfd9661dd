"""Packaging: setup.py, constraints, CI workflow and community files agree."""

import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import setuptools
import yaml

import usr_tf

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
LINK = re.compile(r"!?\[[^]]*\]\((?P<target>[^)\s]+)\)")


@pytest.fixture(scope="module")
def asked() -> dict:
    """What setup.py asks of setuptools."""
    seen = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **arguments: seen.update(arguments))
        runpy.run_path(str(ROOT / "setup.py"))
    return seen


def test_the_index_gets_who_what_and_where(asked):
    assert asked["version"] == usr_tf.__version__
    assert asked["author"] == "The usr_tf authors"
    assert asked["license"] == "Apache-2.0"
    assert asked["url"] == "https://github.com/usr-tf/usr_tf"
    assert {"Documentation", "Changelog", "Issues"} <= asked["project_urls"].keys()
    assert "learning to rank" in asked["keywords"]
    assert "usr_tf.experiments.grid" in asked["packages"]
    assert not any(name.split(".")[0] in ("tests", "benchmarks", "tools", "experiments") for name in asked["packages"])


def test_links_of_the_readme_work_on_an_index(asked):
    """Each is absolute, or an anchor of the page; those into the repository point to what is there."""
    home = asked["url"]
    for target in (match["target"] for match in LINK.finditer(asked["long_description"])):
        assert target.startswith(("https://", "#")), target
        inside = re.match(rf"{re.escape(home)}/(?P<kind>blob|raw)/main/(?P<path>[^#]*)", target)
        if inside:
            path = ROOT / inside["path"]
            assert path.exists(), target
            assert (inside["kind"] == "raw") == (path.suffix in (".svg", ".png")), target
    assert f"]({home}/blob/main/docs/models.md)" in asked["long_description"]
    assert f"]({home}/raw/main/docs/images/usr.svg)" in asked["long_description"]


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("serving/*/README.md")], ids=str
)
def test_links_of_every_page_point_to_what_is_there(page):
    for target in (match["target"] for match in LINK.finditer(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:|#", target):
            continue
        assert (page.parent / target.partition("#")[0]).exists(), target


def test_everything_names_the_same_pythons(asked):
    assert asked["python_requires"] == f">={PYTHONS[0]},<3.{int(PYTHONS[-1].partition('.')[2]) + 1}"
    named = [line.rpartition(" ")[2] for line in asked["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert tuple(named) == PYTHONS
    (header, *_) = (ROOT / "constraints.txt").read_text().splitlines()
    assert tuple(re.findall(r"3\.\d+", header)) == PYTHONS
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert tuple(workflow["jobs"]["test"]["strategy"]["matrix"]["python"]) == PYTHONS
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"python{python}" in makefile for python in PYTHONS)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["mypy"]["python_version"] == PYTHONS[0]


def test_extras_are_those_of_the_page_and_all_are_constrained(asked):
    page = (ROOT / "BUILD.md").read_text(encoding="utf-8")
    described = re.findall(r"^\| `(\w+)` \| \D", page, re.MULTILINE)
    assert described == list(asked["extras_require"])
    pinned = {_name(line) for line in (ROOT / "constraints.txt").read_text().splitlines()[1:]}
    needed = {_name(line) for extra, lines in asked["extras_require"].items() if extra != "parity" for line in lines}
    assert {*needed, *map(_name, asked["install_requires"])} <= pinned


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_demo_installs_no_development_tools(tmp_path):
    def planned(target: str) -> str:
        command = ["make", "--dry-run", target, f"VENV={tmp_path / 'venv'}", f"PYTHON={sys.executable}"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    demo, tests = planned("demo"), planned("test")
    assert "install -c constraints.txt -e '.[train,pipelines,baseline]'" in demo
    assert "[dev]" not in demo
    assert tests.index(".[train,pipelines,baseline]") < tests.index("install -c constraints.txt -e '.[dev]'")
    assert "-m venv --clear" in demo  # for there is none of this Python yet


def test_versions_that_differ_between_pythons_get_a_marker():
    merge = runpy.run_path(str(ROOT / "tools" / "constraints.py"))["merge"]
    resolved = {"3.11": {"beam": "1", "Attrs": "2", "backport": "3"}, "3.13": {"beam": "4", "Attrs": "2"}}
    assert merge(resolved) == [
        "Attrs==2",
        "backport==3",
        'beam==1; python_version == "3.11"',
        'beam==4; python_version == "3.13"',
    ]


def test_the_development_extra_holds_every_other_but_parity(asked):
    extras = asked["extras_require"]
    for name in extras.keys() - {"dev", "parity"}:
        assert set(extras[name]) <= set(extras["dev"]), name


def _name(line: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", line)[0]).lower()


@pytest.mark.parametrize(
    "file", [*ROOT.glob(".github/**/*.yml"), ROOT / ".pre-commit-config.yaml"], ids=lambda path: path.name
)
def test_community_files_are_yaml(file):
    assert yaml.safe_load(file.read_text(encoding="utf-8"))


def test_the_workflow_runs_what_contributors_run():
    steps = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["test"]["steps"]
    assert any(step.get("run") == ".ci/run" for step in steps)
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


def test_every_module_of_the_public_surface_that_is_checked_is_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert all((ROOT / path).exists() for path in project["tool"]["mypy"]["files"])


def test_the_version_has_an_entry_in_the_changelog():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(usr_tf.__version__)}\] - \d{{4}}-\d{{2}}-\d{{2}}$", text, re.MULTILINE)
