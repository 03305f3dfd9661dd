"""Shell completion of each shell."""

import shutil
import subprocess

import pytest

from usr_tf.cli import VERBS
from usr_tf.cli.completion import script
from usr_tf.errors import InputError

OFFERED = {
    ("usr-tf", "tr"): {"train"},
    ("usr-tf", "--v"): {"--version"},
    ("usr-tf", "help", "eval"): {"evaluate", "evaluate_scores"},
    ("usr-tf", "train", "--d"): {"--data", "--dry_run"},
    ("usr-tf", "evaluate", "--split", "t"): {"train", "test"},
    ("usr-tf", "completion", ""): {"bash", "zsh", "fish"},
    ("usr-tf", "features", ""): {"load", "ingest"},
}
"""Words on the command line, the last one unfinished → what completes it."""


@pytest.fixture(params=["bash", "zsh", "fish"])
def shell(request):
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


def output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_scripts_are_valid(shell, tmp_path):
    path = tmp_path / "script"
    path.write_text(script(shell, VERBS))
    done = subprocess.run([shell, "-n", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("words", "expected"), OFFERED.items())
def test_bash_completes(words, expected):
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    ask = f"COMP_WORDS=({' '.join(word or repr('') for word in words)}); COMP_CWORD={len(words) - 1}; _usr_tf"
    shown = output(["bash", "-c", f"{script('bash', VERBS)}\n{ask}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""])
    assert set(shown.split()) == expected


def test_bash_completes_a_value_after_an_equals_sign():
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    for typed, expected in (("=", {"train", "valid", "test"}), ("= v", {"valid"})):
        words = f"usr-tf evaluate --split {typed}"  # as bash splits them
        ask = f"COMP_WORDS=({words}); COMP_CWORD={len(words.split()) - 1}; _usr_tf"
        shown = output(["bash", "-c", f'{script("bash", VERBS)}\n{ask}\necho "${{COMPREPLY[@]}}"'])
        assert set(shown.split()) == expected


@pytest.mark.parametrize(("words", "expected"), [each for each in OFFERED.items() if each[0][1] != "--v"])
def test_fish_completes(words, expected, tmp_path):
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    path = tmp_path / "script"
    path.write_text(script("fish", VERBS))
    shown = output(["fish", "--no-config", "-c", f"source {str(path)!r}; complete -C {' '.join(words)!r}"])
    assert {line.split("\t")[0] for line in shown.splitlines()} == expected


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_scripts_hold_every_verb_and_flag(name):
    text = script(name, VERBS)
    for verb, defined in VERBS.items():
        assert verb in text
        for flag in defined.flags():
            assert f"-l {flag} " in text if name == "fish" else f"--{flag}" in text


def test_another_shell_is_refused():
    with pytest.raises(InputError, match="found 'csh', expected one of bash, zsh, fish"):
        script("csh", VERBS)
