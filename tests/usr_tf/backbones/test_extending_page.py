"""`docs/extending.md`: code quoted from the files it names, and valid commands."""

import re
from pathlib import Path

import pytest

from usr_tf import layers
from usr_tf.config import load_config

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/extending.md").read_text("utf-8")
QUOTES = re.findall(r"^`([\w/.]+)`[^\n]*:\n\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_block_of_code_names_its_file():
    assert len(QUOTES) == PAGE.count("```python\n") > 10


@pytest.mark.parametrize(("path", "block"), QUOTES)
def test_the_file_has_the_block(path, block):
    source = (ROOT / path).read_text("utf-8")
    for piece in re.split(r"^\.\.\.\n", block, flags=re.MULTILINE):
        assert piece in source, piece
        source = source.split(piece, 1)[1]  # the next piece comes after


def test_the_files_and_tests_that_the_page_names_exist():
    for path in re.findall(r"`((?:usr_tf|tests)/[\w/.]*)`", PAGE):
        assert (ROOT / path).exists(), path
    tests = (ROOT / "tests/usr_tf/backbones/test_backbones.py").read_text("utf-8")
    named = re.findall(r"^\| `(test_\w+)` \|", PAGE, re.MULTILINE)
    assert len(named) == 10
    for name in named:
        assert f"def {name}(name" in tests, name


def test_the_building_blocks_exist():
    table = PAGE.split("| block | function |\n| --- | --- |\n")[1].split("\n\n")[0]
    blocks = re.findall(r"^\| `(\w+)`(?: \(`([\w/.]+)`\))? \|", table, re.MULTILINE)
    assert len(blocks) == len(table.splitlines())
    for name, path in blocks:
        defined = path and re.search(rf"^(class|def) {name}\b", (ROOT / path).read_text("utf-8"), re.MULTILINE)
        assert defined or name in layers.__all__, name


def test_the_commands_settings_are_keys_of_the_configuration():
    settings = [quoted or plain for quoted, plain in re.findall(r'--set (?:"([^"]+)"|([^\s"`]+))', PAGE)]
    assert len(settings) == 7
    config = load_config(overrides=settings)
    assert (config.backbone, config.pepnet.gate_hidden, config.pepnet.tower) == ("pepnet", 32, (100, 64))
    assert not any((config.usr.ie, config.usr.fg, config.usr.glmt, config.usr.contrastive))
