import usr_tf  # picks Keras 2, before TensorFlow comes

# isort: split
import dataclasses
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from importlib import metadata

import pytest
import yaml

import usr_tf.train
from usr_tf.cli import VERBS, main
from usr_tf.cli.extras import EXTRAS
from usr_tf.cli.program import GROUPS


def refused(capsys, *arguments: str) -> str:
    """The one line that a command leaves on stderr, after its status was seen to be 2."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert "Traceback" not in lines[0]
    assert "found" in lines[0]
    assert "expected" in lines[0]
    return lines[0]


def test_verbs_are_those_of_the_contract():
    assert set(VERBS) >= {
        "demo", "simulate", "import", "schema", "preprocess", "train", "evaluate", "export", "serve", "score"
    }  # fmt: skip


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"]])
def test_help_lists_the_verbs(capsys, arguments):
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: usr-tf VERB [--flags]")
    for name, verb in VERBS.items():
        assert f"  {name}" in out
        assert verb.summary in out


def test_no_verb_shows_the_help_and_is_wrong(capsys):
    assert main([]) == 2
    assert "usage: usr-tf VERB" in capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_lists_its_flags(capsys, verb):
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: usr-tf {verb} [--flags]")
    assert ("[-- BEAM OPTIONS]" in out) == VERBS[verb].beam
    for flag in VERBS[verb].required:
        told = re.split(r"^  --|\n\n", out, flags=re.MULTILINE)
        assert next(text for text in told if text.startswith(f"{flag}: ")).rstrip().endswith("(required)")


def test_an_unknown_verb(capsys):
    line = refused(capsys, "predict")
    assert line.startswith("usr-tf: found 'predict', expected one of demo, simulate, import, schema, preprocess, ")


@pytest.mark.parametrize(("verb", "flag"), [(name, flag) for name, verb in VERBS.items() for flag in verb.required])
def test_a_missing_flag(capsys, verb, flag):
    arguments = [f"--{other}=x" for other in VERBS[verb].required if other != flag]
    if verb == "demo":  # whose directory has a default
        arguments = ["--out="]
    assert refused(capsys, verb, *arguments) == f"usr-tf {verb}: --{flag}: found nothing, expected this required flag"


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_flag(capsys, verb):
    line = refused(capsys, verb, "--colour=red")
    assert line.startswith(f"usr-tf {verb}: found Unknown command line flag 'colour'")
    assert line.endswith(f"expected flags that usr-tf {verb} --help lists")


@pytest.mark.parametrize("verb", [name for name, verb in VERBS.items() if verb.more is None])
def test_an_argument_without_a_flag(capsys, verb):
    assert refused(capsys, verb, "here") == f"usr-tf {verb}: found the argument 'here', expected flags alone"


@pytest.mark.parametrize("verb", [name for name, verb in VERBS.items() if not verb.beam])
def test_beam_options_are_for_preprocess_alone(capsys, verb):
    line = refused(capsys, verb, "--", "--runner=DataflowRunner")
    assert line == f"usr-tf {verb}: found options after -- (--runner=DataflowRunner), expected none"


def test_preprocess_hands_on_beam_options(monkeypatch):
    import pipelines.preprocess

    seen = {}

    def preprocess(logs_dir, out, schema_path=None, beam_args=(), *_, **__):
        seen.update(logs=logs_dir, out=out, schema=schema_path, beam_args=list(beam_args))
        return {"rows": {}, "splits": {}}

    monkeypatch.setattr(pipelines.preprocess, "preprocess", preprocess)
    assert main(["preprocess", "--logs=L", "--out=O", "--", "--runner=DataflowRunner", "--region=x"]) == 0
    assert seen == {"logs": "L", "out": "O", "schema": None, "beam_args": ["--runner=DataflowRunner", "--region=x"]}


def test_set_takes_several_values(monkeypatch, toy_data):
    seen = {}
    monkeypatch.setattr(usr_tf.train, "train", lambda data, out, config, **options: seen.update(out=out, config=config))
    arguments = ["train", f"--data={toy_data.directory}", "--set", "backbone=mmoe", "usr.ie=false", "--out=RUN"]
    assert main([*arguments, "--set=train.epochs=3"]) == 0
    assert (seen["out"], seen["config"].backbone, seen["config"].usr.ie) == ("RUN", "mmoe", False)
    assert seen["config"].train.epochs == 3


def bad_inputs(folder) -> dict[str, tuple[list[str], str]]:
    """Commands with something wrong, and what the line has to say."""
    empty, taken = folder / "empty", folder / "taken"
    empty.mkdir()
    taken.mkdir()
    (taken / "file").write_text("x")
    config = folder / "config.yaml"
    config.write_text("backbone: dnn\n")
    bad_json = folder / "bad.json"
    bad_json.write_text("{")
    good_json = folder / "good.json"
    good_json.write_text(json.dumps({"inputs": {}}))
    return {
        "demo: directory with files": (["demo", f"--out={taken}"], "found files, expected a new or an empty directory"),
        "simulate: no number": (["simulate", "--out=x", "--impressions=many"], "flag --impressions=many"),
        "simulate: none": (["simulate", f"--out={folder / 'a'}", "--impressions=0"], "--impressions: found 0"),
        "simulate: share": (["simulate", f"--out={folder / 'a'}", "--similarity=2"], "--similarity: found 2.0"),
        "simulate: signal": (["simulate", f"--out={folder / 'a'}", "--signals=price,mood"], "--signals: found mood"),
        "simulate: seed": (["simulate", f"--out={folder / 'a'}", "--seed=-1"], "--seed: found -1"),
        "import: source": (["import", "--source=excel", "--input=x", f"--out={folder / 'b'}"], "'excel'"),
        "import: input": (["import", "--source=ga360", f"--input={folder / 'no'}", f"--out={folder / 'b'}"], "no"),
        "schema: infer": (["schema", f"--infer={empty}"], "found no impressions file"),
        "features: action": (["features", f"--store={folder / 'f'}"], "found nothing, expected load or ingest"),
        "features: logs": (["features", "load", f"--store={folder / 'f'}", f"--logs={empty}"], "schema.yaml"),
        "features: input": (["features", "ingest", f"--store={folder / 'f'}"], "--input, --kafka: found nothing"),
        "features: store": (
            ["features", "ingest", f"--store={folder / 'f'}", f"--input={config}"],
            "expected a feature store that",
        ),
        "features: other": (["features", "load", f"--store={folder / 'f'}", "--follow"], "a flag of the other action"),
        "play: logs": (["play", "--model=m", f"--logs={empty}"], "schema.yaml: found no readable"),
        "play: models": (
            ["play", "--model=a", "--model=b", "--model=c", "--logs=l"],
            "--model: found 3, expected at most",
        ),
        "play: runs": (
            ["play", "--model=a", "--model=b", "--run=r", "--logs=l"],
            "--run: found 1, expected 2, one for",
        ),
        "preprocess: logs": (
            ["preprocess", f"--logs={empty}", f"--out={folder / 'c'}"],
            "schema.yaml: found no readable",
        ),
        "train: data": (["train", f"--data={empty}", f"--out={folder / 'd'}"], "found no _SUCCESS"),
        "train: config": (["train", f"--data={empty}", "--out=x", f"--config={config}"], "backbone: found 'dnn'"),
        "train: no config": (
            ["train", f"--data={empty}", "--out=x", "--config=none.yaml"],
            "none.yaml: found no readable",
        ),
        "train: set": (["train", f"--data={empty}", "--out=x", "--set", "usr.ei=1"], "usr.ei: found an unknown key"),
        "baseline: data": (["baseline", f"--data={empty}", f"--out={folder / 'd'}"], "found no _SUCCESS"),
        "evaluate: run": (["evaluate", f"--run={empty}", f"--out={folder / 'e'}"], "found no _SUCCESS"),
        "evaluate: split": (["evaluate", "--run=x", "--out=y", "--split=all"], "flag --split=all"),
        "explain: run": (["explain", f"--run={empty}", f"--request={good_json}"], "found no _SUCCESS"),
        "evaluate_scores: scores": (
            ["evaluate_scores", f"--scores={empty}", f"--out={folder / 'e'}"],
            "found no *.parquet",
        ),
        "compare: run": (["compare", f"--run={empty}", f"--with={empty}"], "found no _SUCCESS"),
        "export: run": (["export", f"--run={empty}", f"--out={folder / 'f'}"], "found no _SUCCESS"),
        "monitor: data": (
            ["monitor", "--requests=x", f"--data={empty}", f"--out={folder / 'o'}"],
            "schema.yaml: found no readable",
        ),
        "forget: logs": (
            ["forget", f"--logs={empty}", f"--out={folder / 'l'}", "--user_id=u"],
            "schema.yaml: found no readable",
        ),
        "forget: users": (
            ["forget", f"--logs={empty}", f"--out={folder / 'l'}"],
            "found nothing, expected at least one",
        ),
        "pseudonymize: key": (
            ["pseudonymize", f"--logs={empty}", f"--out={folder / 'l'}", f"--key={folder / 'no.key'}"],
            "no.key: found no readable",
        ),
        "request: model": (["request", f"--model={empty}", "--scenario=search"], "empty: found no "),
        "score_logs: model": (
            ["score_logs", f"--model={empty}", f"--logs={empty}", f"--out={folder / 'g'}"],
            "empty: found no SavedModel",
        ),
        "serve: model": (["serve", f"--model={empty}"], "found no"),
        "serve: port": (["serve", f"--model={empty}", "--port=99999"], "flag --port=99999"),
        "score: no file": (
            ["score", "--scenario=search", f"--request={folder / 'no.json'}"],
            "no.json: found no readable",
        ),
        "score: no JSON": (["score", "--scenario=search", f"--request={bad_json}"], "bad.json: found no JSON"),
        "score: no server": (
            ["score", "--address=127.0.0.1:1", "--scenario=search", f"--request={good_json}", "--timeout=1"],
            "127.0.0.1:1: GetModelMetadata of usr, within 1 s: found UNAVAILABLE (",
        ),
        "publish: run": (["publish", f"--run={empty}", f"--out={folder / 'h'}"], "found no _SUCCESS"),
        "publish: nothing": (["publish", f"--out={folder / 'h'}"], "--run, --promote, --rollback: found nothing"),
        "publish: rollback": (["publish", f"--out={folder / 'h'}", "--rollback"], "h: found no version"),
        "publish: keep": (["publish", "--run=x", "--out=y", "--keep=1"], "flag --keep=1"),
        "canary: requests": (["canary", f"--requests={folder / 'no.jsonl'}"], "no.jsonl: found no readable"),
        "experiment: spec": (["experiment", "--spec=plain", f"--out={folder / 'i'}"], "--spec: found 'plain'"),
        "tune: data": (["tune", f"--data={empty}", f"--out={folder / 'j'}"], "found no _SUCCESS"),
        "abtest: logs": (
            ["abtest", f"--a={empty}", f"--b={empty}", f"--logs={empty}", f"--out={folder / 'k'}"],
            "schema.yaml: found no readable",
        ),
        "completion: shell": (["completion", "csh"], "usr-tf completion: found 'csh', expected one of bash, zsh, fish"),
    }


def test_bad_input_of_each_verb(capsys, tmp_path):
    commands = bad_inputs(tmp_path)
    assert {command.split(":")[0] for command in commands} == set(VERBS)
    for name, (arguments, expected) in commands.items():
        line = refused(capsys, *arguments)
        assert expected in line, name


def test_bad_input_leaves_no_output_behind(tmp_path, capsys):
    for arguments, _ in bad_inputs(tmp_path).values():
        main(arguments)
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "taken", "config.yaml", "bad.json", "good.json"}


def raising(error: BaseException) -> dict:
    """What makes a verb raise an error as soon as it runs."""

    def run(*_):
        raise error

    return {"run": run, "required": (), "tensorflow": False}


@pytest.mark.parametrize("verb", VERBS)
def test_an_interruption_ends_with_130_and_names_the_command_that_goes_on(monkeypatch, capsys, verb):
    monkeypatch.setitem(VERBS, verb, dataclasses.replace(VERBS[verb], **raising(KeyboardInterrupt())))
    given = ["--out", "my run"] if verb in ("train", "tune", "experiment") else []
    assert main([verb, *given]) == 130
    goes_on = f"; to go on: usr-tf {verb} --out 'my run'" if given else ""
    assert capsys.readouterr().err == f"interrupted{goes_on}\n"


def test_other_errors_keep_their_traceback(monkeypatch):
    monkeypatch.setitem(VERBS, "export", dataclasses.replace(VERBS["export"], **raising(RuntimeError("ours"))))
    with pytest.raises(RuntimeError, match="ours"):
        main(["export"])


@pytest.mark.parametrize("verb", [name for name, verb in VERBS.items() if verb.extras])
def test_a_missing_extra_is_named_with_the_command_that_installs_it(monkeypatch, capsys, verb):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    arguments = [f"--{flag}=x" for flag in VERBS[verb].required]
    line = refused(capsys, verb, *arguments)
    install = f"pip install 'usr-tf[{','.join(VERBS[verb].extras)}]'"
    assert re.fullmatch(rf"usr-tf {verb}: found no module \w+, expected what this installs: {re.escape(install)}", line)


def test_extras_name_a_module_of_each_of_their_requirements():
    of_module = metadata.packages_distributions() | {"google.protobuf": ["protobuf"]}  # `google` has many
    named = {extra: {_normal(of_module[module][0]) for module in modules} for extra, modules in EXTRAS.items()}
    assert named == {extra: _requirements(extra) for extra in EXTRAS}


def _requirements(extra: str) -> set[str]:
    """Distributions that setup.py asks for in an extra."""
    asked = [line for line in metadata.requires("usr-tf") if line.endswith(f'extra == "{extra}"')]
    return {_normal(re.match(r"[\w.-]+", line)[0]) for line in asked}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("verb", VERBS)
def test_each_verbs_example_is_a_command_that_it_takes(monkeypatch, verb):
    ran = []
    monkeypatch.setitem(VERBS, verb, dataclasses.replace(VERBS[verb], run=lambda *_: ran.append(verb)))
    assert main([verb, *shlex.split(VERBS[verb].example)]) == 0
    assert ran == [verb]


def test_the_usage_shows_each_verb_once_and_an_example_of_each_group(capsys):
    assert main(["help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if re.match(r"  \w+ ", line)] == list(VERBS)
    assert sum(line.startswith("  e.g. usr-tf ") for line in lines) == len(GROUPS)
    assert max(map(len, lines)) <= 120


def test_help_of_a_verb_is_its_flags(capsys):
    assert main(["train", "--help"]) == 0
    expected = capsys.readouterr().out
    assert main(["help", "train"]) == 0
    assert capsys.readouterr().out == expected
    assert "usr-tf train --data DATA --out RUN" in expected
    assert refused(capsys, "help", "predict").startswith("usr-tf: found 'predict', expected one of demo, ")


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"usr-tf {usr_tf.__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_flags_take_dashes_as_well_as_underscores(monkeypatch, verb):
    """Every flag of every verb, by both spellings: the values come out the same."""
    seen = []
    run = lambda values, _: seen.append({name: values[name].value for name in values})  # noqa: E731
    monkeypatch.setitem(VERBS, verb, dataclasses.replace(VERBS[verb], run=run, required=(), tensorflow=False))
    given = {}
    for name in (defined := VERBS[verb].flags()):
        choices = getattr(defined[name].parser, "enum_values", ())
        given[name] = "true" if defined[name].boolean else choices[0] if choices else "2"
    for spell in (str, lambda name: name.replace("_", "-")):
        assert main([verb, *(f"--{spell(name)}={value}" for name, value in given.items())]) == 0
        in_two = [[f"--{spell(name)}", *([] if defined[name].boolean else [given[name]])] for name in given]
        assert main([verb, *itertools.chain.from_iterable(in_two)]) == 0
        assert main([verb, *(f"--no-{spell(name)}" for name in given if defined[name].boolean)]) == 0
    with_values, separately, off, *dashed = seen
    assert with_values == separately
    assert [with_values, separately, off] == dashed
    assert not any(off[name] for name in given if defined[name].boolean)


def test_a_value_that_looks_like_a_flag_stays_as_it_is(monkeypatch):
    seen = []
    scored = dataclasses.replace(VERBS["score"], run=lambda values, _: seen.append(values.by), required=())
    monkeypatch.setitem(VERBS, "score", scored)
    assert main(["score", "--by", "-ctr-price"]) == 0
    assert seen == ["-ctr-price"]


def test_a_reader_that_goes_away_ends_the_program_quietly():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "usr_tf.cli", "help"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_program_itself(tmp_path):
    command = [sys.executable, "-m", "usr_tf.cli", "simulate", f"--out={tmp_path / 'logs'}", "--impressions=0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "--impressions: found 0, expected a whole number from 1\n"


def test_train_evaluate_and_export_print_where_things_are(toy_run, toy_data, tmp_path, capsys):
    assert main(["evaluate", f"--run={toy_run.directory}", f"--out={tmp_path / 'report'}", "--split=valid"]) == 0
    out = capsys.readouterr().out
    assert "search" in out
    assert f"{tmp_path / 'report'}: metrics.json" in out
    assert yaml.safe_load((tmp_path / "report" / "metrics.json").read_text())["overall"]["ctr"]["n"] == toy_data.rows(
        "valid"
    )
