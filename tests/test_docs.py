"""Documentation site and links: strict build, API coverage, anchors, and no remote resources."""

import html.parser
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import usr_tf
from usr_tf.cli.program import VERBS

pytest.importorskip("mkdocs", reason="the site needs the extra `docs`")
slugify = importlib.import_module("pymdownx.slugs").slugify(case="lower")

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/usr-tf/usr_tf/"
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("serving/*/README.md")]
LINK = re.compile(r"!?\[[^]]*\]\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    build = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert build.returncode == 0, build.stderr
    return folder


class _Resources(html.parser.HTMLParser):
    """Addresses that a browser fetches to display a page, and the ids of its elements."""

    def __init__(self, text: str):
        super().__init__()
        self.fetched: set[str] = set()
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if "id" in values:
            self.ids.add(values["id"])
        if tag in ("script", "img", "iframe") and "src" in values:
            self.fetched.add(values["src"])
        if tag == "link" and {"stylesheet", "preload", "preconnect", "icon"} & set(values.get("rel", "").split()):
            self.fetched.add(values["href"])


def test_the_site_fetches_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        remote = {address for address in _Resources(page.read_text(encoding="utf-8")).fetched if "//" in address}
        assert not remote, page


def _public_names() -> list[str]:
    names = [f"{usr_tf._NAMES[name]}.{name}" if name in usr_tf._NAMES else f"usr_tf.{name}" for name in usr_tf.__all__]
    for module in ("usr_tf.layers", "usr_tf.metrics", "serving.client"):
        names += [f"{module}.{name}" for name in importlib.import_module(module).__all__]
    backbones = importlib.import_module("usr_tf.backbones").BACKBONES.values()
    names += [f"{backbone.__module__}.{backbone.__qualname__}" for backbone in backbones]
    return [
        *names,
        "pipelines.preprocess.preprocess",
        "pipelines.score.score_logs",
        "pipelines.evaluate.evaluate_scores",
    ]


def test_the_reference_has_every_public_name(site):
    ids = {name for page in site.glob("api/*/index.html") for name in _Resources(page.read_text("utf-8")).ids}
    assert not set(_public_names()) - ids


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and the site both make them."""
    headings = re.findall(r"^#+ (.+?)\s*$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {slugify(re.sub(r"[`*]|\]\(.*?\)|\[", "", heading), "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_into_the_repository_has_a_target(page):
    for target in (match["target"] for match in LINK.finditer(FENCE.sub("", page.read_text(encoding="utf-8")))):
        path, _, anchor = target.partition("#")
        if target.startswith(REPOSITORY):
            file = ROOT / re.sub(r"^(blob|tree|raw)/main/?|^issues.*|^security.*", "", path.removeprefix(REPOSITORY))
        elif re.match(r"[a-z]+:", target):
            continue
        else:
            file = page.parent / path if path else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in _anchors(file), target


def test_the_page_of_commands_has_every_verb():
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE)) == set(VERBS)


CODE_PATH = re.compile(r"`((?:usr_tf|pipelines|serving|benchmarks|tests|tools|notebooks)/[\w./-]+?)(?:::\w+)*`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_in_the_text_exists(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    assert not [path for path in CODE_PATH.findall(text) if not (ROOT / path).exists()]


def test_every_module_of_the_architecture_page_exists():
    names = re.findall(
        r"`((?:usr_tf|pipelines|serving)(?:\.\w+)+)`", (ROOT / "docs/architecture.md").read_text("utf-8")
    )
    assert names
    for path in (ROOT / name.replace(".", "/") for name in names):
        assert path.is_dir() or path.with_suffix(".py").exists(), path
