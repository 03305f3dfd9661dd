import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from usr_tf.errors import InputError
from usr_tf.experiments.grid.data_jobs import DataJob, Given, OneScenario, Shop, _test_columns
from usr_tf.experiments.grid.plan import all_jobs, plan, tuning_jobs
from usr_tf.experiments.grid.spec import FIRST_SEED, TUNING_SEED, known_specs, load_specs, overriding
from usr_tf.experiments.grid.training_jobs import TrainJob
from usr_tf.schema import SUCCESS

SPEC = {
    "title": "Title",
    "question": "Question?",
    "shop": {"impressions": 100, "similarity": [0.0, 1.0], "label_noise": [0.0, 0.3]},
    "seeds": 2,
    "axes": {"backbone": ["mmoe", "ple"], "width": {"narrow": {"embedding_size": 2}, "wide": {}}},
    "variants": {"alone": {"usr.ie": False}, "USR": {}},
    "baseline": "alone",
}


def load(folder: Path, *, shrink: bool = False, override: dict | None = None, **keys):
    path = folder / "spec.yaml"
    (folder / "empty.yaml").touch()
    path.write_text(yaml.safe_dump(SPEC | keys, sort_keys=False), encoding="utf-8")
    return load_specs([str(path)], shrink, override)["spec"]


def test_data_axes_variants_and_seeds_are_crossed(tmp_path):
    cells = plan(load(tmp_path), tmp_path)
    assert len(cells) == 4 * 4 * 2
    last = cells[-1]
    assert last.place == {"similarity": "1", "label_noise": "0.3", "backbone": "ple", "width": "wide"}
    assert (last.variant, last.seeds) == ("USR", (FIRST_SEED, FIRST_SEED + 1))
    ((job,), _) = last.jobs
    assert job.data.source == Shop(FIRST_SEED, 100, 1.0, 0.3, 0.3, 2, 0.8)
    assert (job.config.backbone, job.config.embedding_size, job.config.usr.ie) == ("ple", 16, True)
    assert (job.config.seed, job.config.train.epochs, job.config.train.patience) == (FIRST_SEED, 2, 0)
    narrow = cells[-3].jobs[0][0].config
    assert (narrow.embedding_size, narrow.usr.ie) == (2, True)


def test_global_noise_may_be_that_of_the_scenarios_or_another(tmp_path):
    shop = {"impressions": 100, "label_noise": 0.3, "global_label_noise": [None, 1.0]}
    cells = plan(load(tmp_path, shop=shop, axes={}), tmp_path)
    found = [(cell.place["global_label_noise"], cell.jobs[0][0].data.source.global_label_noise) for cell in cells[::2]]
    assert found == [("as label_noise", 0.3), ("1", 1.0)]


def test_a_noisy_shop_waits_for_the_noiseless_one_whose_transform_it_shares():
    noisy = DataJob(Shop(1, 100, 0.3, 0.1, 0.2, 2, 0.8))
    assert noisy.needs == (DataJob(Shop(1, 100, 0.3, 0.0, 0.0, 2, 0.8)),)
    assert noisy.needs[0].needs == ()


def test_a_model_for_each_scenario_trains_on_its_rows_alone(tmp_path):
    cells = plan(load(tmp_path, shop={"impressions": 100}, axes={}, per_scenario=["alone"]), tmp_path)
    search, feed = cells[0].jobs[0]
    assert [job.data.source.scenario for job in (search, feed)] == ["search", "recommendation"]
    assert search.data.needs == cells[1].jobs[0][0].needs
    assert isinstance(search.data.source, OneScenario)


def test_specs_share_what_is_the_same(tmp_path):
    """A job is known by its data and its whole configuration, whatever the experiment calls it."""
    mine = plan(load(tmp_path, axes={}), tmp_path)
    theirs = plan(
        load(tmp_path, axes={}, title="Other", variants={"x": {}, "y": {"usr.ie": False}}, baseline="y"), tmp_path
    )
    assert {job.key for job in all_jobs(mine)} == {job.key for job in all_jobs(theirs)}
    other = plan(load(tmp_path, axes={}, settings={"embedding_size": 3}), tmp_path)
    assert not {job.key for job in all_jobs(mine)} & {job.key for job in all_jobs(other)}


def test_small_and_the_command_line_are_laid_upon_the_spec(tmp_path):
    small = {"seeds": 1, "axes": {"width": None, "backbone": ["apg"]}, "shop": {"similarity": 0.5}}
    assert load(tmp_path, small=small).seeds == (10, 11)
    override = overriding(impressions=7, epochs=9, settings=["star.tower=[1, 2]"])
    shrunk = load(tmp_path, shrink=True, override=override, small=small)
    assert shrunk.axes == {"backbone": ["apg"]}
    assert (shrunk.shop.impressions, shrunk.shop.similarity, shrunk.shop.label_noise) == ((7,), (0.5,), (0.0, 0.3))
    assert (shrunk.seeds, shrunk.budget.epochs, shrunk.settings) == ((10,), 9, {"star.tower": [1, 2]})
    assert overriding(data=["x=some/where"]) == {"data": {"x": "some/where"}}


def test_a_rate_is_tuned_in_a_shop_of_its_own(tmp_path):
    tune = {"values": [0.1, 0.2], "variants": ["alone"]}
    jobs = tuning_jobs(load(tmp_path, axes={"backbone": ["mmoe"]}, tune=tune))
    assert [job.config.train.learning_rate for job in jobs] == [0.1, 0.2]
    assert {job.data.source for job in jobs} == {Shop(TUNING_SEED, 100, 0.0, 0.0, 0.0, 2, 0.8)}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"baseline": "USRR"}, "spec.yaml: baseline: found 'USRR', expected one of alone, USR"),
        ({"per_scenario": ["one"]}, "spec.yaml: per_scenario: found 'one', expected one of alone, USR"),
        ({"seed": 3}, "spec.yaml: seed: found an unknown key, expected one of axes, baseline, "),
        ({"shop": {"similarity": 1.5}}, "spec.yaml: shop.similarity"),
        ({"seeds": [3, 3]}, "spec.yaml: seeds: found [3, 3], expected different ones"),
        ({"slices": {"query": [1]}}, "spec.yaml: slices.query"),
        ({"slices": {"user": [9, 1]}}, "spec.yaml: slices.user: found [9, 1], expected rising ones"),
        ({"shop": {"similarity": []}}, "spec.yaml: shop.similarity"),
        ({"shop": {"similarity": [0.3, 0.3]}}, "shop.similarity: found [0.3, 0.3], expected different ones"),
        ({"shop": {"scenarios": 9}}, "spec.yaml: shop.scenarios"),
        ({"seeds": [9], "tune": {"values": [1, 2], "variants": ["USR"]}}, "spec.yaml: seeds: found 9, expected others"),
        ({"axes": {"backbone": []}}, "spec.yaml: axes.backbone"),
        (
            {"axes": {"backbone": ["mmoe", "moe"]}},
            "spec.yaml: axes.backbone.moe: backbone: found 'moe', ",
        ),
        ({"data": {}}, "spec.yaml: data"),
        ({"settings": {"seed": 3}}, "spec.yaml: settings.seed: found 3, expected it as the experiment's own"),
        ({"settings": {"train.epochs": 3}}, "settings.train.epochs: found 3, expected it as budget.epochs"),
        ({"settings": {"usr": {"ie": False}}}, "settings.usr: found keys within, expected a dotted key"),
        (
            {"variants": {"alone": {"usr.i_e": False}, "USR": {}}},
            "spec.yaml: variants.alone: usr.i_e: found an unknown key, expected one of ",
        ),
        ({"axes": {"embedding_size": [8, 8]}}, "spec.yaml: axes.embedding_size: found ['8', '8'], expected different"),
        ({"axes": {"similarity": {"none": {}}}}, "spec.yaml: axes: found 'similarity', expected a name that is no"),
        (
            {"axes": {"usr.ie": [True]}, "tune": {"key": "usr.ie", "values": [0, 1], "variants": ["USR"]}},
            "spec.yaml: axes.usr.ie.true.usr.ie: found True, expected none, for each chooses its own",
        ),
        ({"base": "spec.yaml"}, "spec.yaml: base: found spec.yaml, expected a file that is not based on this one"),
        ({"base": "empty.yaml"}, "empty.yaml: found no keys and values, expected an experiment"),
        ({"settings": {"embedding_size": datetime.date(2020, 1, 1)}}, "settings: embedding_size: found '2020-01-01', "),
    ],
)
def test_a_bad_spec_is_refused_in_a_line(tmp_path, keys, message):
    with pytest.raises(InputError) as error:
        load(tmp_path, **keys)
    assert message in str(error.value)


def test_what_each_configuration_chooses_cannot_be_set_for_all():
    override = overriding(settings=["train.learning_rate=0.1"])
    assert load_specs(["ablation"], True, override)["ablation"].settings["train.learning_rate"] == 0.1
    with pytest.raises(InputError, match=r"--set: found train.learning_rate=0\.1, expected another key, for in .*abla"):
        load_specs(["ablation"], False, override)


def test_two_specs_of_one_name_are_refused(tmp_path):
    """The results of one would lie where the other's do."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        load(tmp_path / folder)
    with pytest.raises(InputError, match="--spec: found several files called spec"):
        load_specs([str(tmp_path / "a" / "spec.yaml"), str(tmp_path / "b" / "spec.yaml")])


def test_given_data_are_known_by_what_they_are_wherever_they_lie(tmp_path):
    keys = []
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"other")):
        folder = tmp_path / name
        (folder / "train").mkdir(parents=True)
        for file in ("stats.json", "schema.yaml", SUCCESS):
            (folder / file).touch()
        (folder / "train" / "part-0.tfrecord.gz").write_bytes(content)
        keys.append(Given(str(folder)).key)
    assert keys[0] == keys[1] != keys[2]


def test_data_without_a_row_to_compare_on_are_refused():
    with pytest.raises(InputError, match=r"^toy: found no row in the test split, expected some"):
        _test_columns(SimpleNamespace(directory="toy", rows=lambda _: 0))


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"--spec: found 'back', expected a \.yaml file, or one of ablation, "):
        load_specs(["back"])
    with pytest.raises(InputError, match=r"nowhere\.yaml: found no readable file"):
        load_specs(["nowhere.yaml"])
    with pytest.raises(InputError, match="--data: found 'x', expected NAME=VALUE"):
        overriding(data=["x"])


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("name", sorted({*known_specs()} - {"paper"}))
def test_every_spec_that_we_ship_can_be_planned(name, small, tmp_path):
    for spec in load_specs([name], small).values():
        assert tuning_jobs(spec) == [] or not small
        assert all_jobs(plan(spec.model_copy(update={"tune": None}), tmp_path))


def test_the_whole_set_holds_every_experiment_of_the_paper():
    assert {*load_specs(["paper"])} == {*known_specs()} - {"paper", "similarity", "signals", "backbones_with_signals"}


@pytest.mark.parametrize("small", [False, True])
def test_cold_start_is_read_off_the_models_of_the_backbones(small, monkeypatch):
    """Whatever learning rates they choose."""
    monkeypatch.setattr(TrainJob, "validation_auc", lambda self, _: -self.config.train.learning_rate)
    specs = load_specs(["backbones", "cold_start"], small)
    backbones, cold = (
        {job.key for job in [*tuning_jobs(spec), *all_jobs(plan(spec, Path()))]} for spec in specs.values()
    )
    assert cold < backbones
