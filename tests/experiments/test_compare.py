"""Comparisons on hand-made results instead of trained models."""

import json

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import roc_auc_score

from usr_tf.config import Config
from usr_tf.experiments.grid.comparisons import (
    ALL,
    SLICE,
    Comparison,
    by_axis,
    by_place,
    compare,
    mean_over_seeds,
    overall,
)
from usr_tf.experiments.grid.data_jobs import DataJob, Shop
from usr_tf.experiments.grid.grid_page import results_page
from usr_tf.experiments.grid.markdown import results_document
from usr_tf.experiments.grid.plan import GridPoint
from usr_tf.experiments.grid.results import Results, answered, answers, by_chance, rows, sentence, verdicts, where
from usr_tf.experiments.grid.runner import format_table
from usr_tf.experiments.grid.spec import ShopAxes, Spec
from usr_tf.experiments.grid.training_jobs import TrainJob, auc_sample
from usr_tf.experiments.grid.worker_processes import Failure
from usr_tf.metrics.resample import Resample

SCHEMA = """\
scenarios: [search, recommendation]
tasks: [{name: ctr, action: click}]
features: {item_id: {group: item, type: categorical}}
"""
SHOP = {"impressions": 1, "similarity": 0.3, "label_noise": 0, "global_label_noise": 0, "scenarios": 2, "needs": 0.8}
SPEC = Spec(title="T", question="Q?", variants={"alone": {}, "USR": {}}, baseline="alone", seeds=(10, 11))


def comparison(sample=(0.02, 0.01, 0.03), **keys) -> Comparison:
    fields = {"place": {}, "variant": "USR", "scenario": "search", "task": "ctr", "baseline_auc": 0.6, "auc": 0.62}
    fields |= {"oracle_auc": 0.8, "positives": 9, "seeds": 2, "sample": np.array(sample)}
    return Comparison(**fields | keys)


def lay_down_rows(work, data: DataJob, seed: int, rows: int = 400) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    columns = {
        "scenario": rng.integers(0, 2, rows),
        "user": rng.integers(0, 40, rows),
        "ctr": rng.integers(0, 2, rows),
        "oracle_ctr": rng.random(rows),
        "user_seen": rng.integers(0, 4, rows),
        "item_seen": rng.integers(0, 4, rows),
    }
    folder = work / "data" / data.key
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "schema.yaml").write_text(SCHEMA, encoding="utf-8")
    np.savez(folder / "rows.npz", **columns)
    return columns


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([{"val_nll": 0.5, "val_search/ctr_auc": 0.6, "val_home/ctr_auc": 0.8}, {"val_nll": 0.6}], 0.7),
        ([{"val_nll": None}, {"val_nll": 0.5, "val_search/ctr_auc": 0.6, "val_home/ctr_auc": None}], 0.6),
        ([{"val_nll": 0.5, "val_search/ctr_auc": None}], np.nan),
        ([{"nll": 0.5, "search/ctr_auc": 0.6}], np.nan),
    ],
)
def test_figures_that_an_epoch_leaves_undefined_do_not_count(history, expected, tmp_path):
    job = TrainJob(DataJob(Shop(seed=1, **SHOP)), Config())
    (tmp_path / "results" / job.key).mkdir(parents=True)
    (tmp_path / "results" / job.key / "job.json").write_text(json.dumps({"history": history}), encoding="utf-8")
    assert job.validation_auc(tmp_path) == pytest.approx(expected, nan_ok=True)


def lay_down_scores(work, job: TrainJob, rows: dict[str, np.ndarray], skill: float, seed: int) -> np.ndarray:
    scores = np.random.default_rng(seed).random(len(rows["ctr"])) + skill * rows["ctr"]
    folder = work / "results" / job.key
    folder.mkdir(parents=True)
    samples = {
        f"{name}/ctr": auc_sample(rows, scores, "ctr", rows["scenario"] == i)
        for i, name in enumerate(("search", "recommendation"))
    }
    np.savez(folder / "samples.npz", **samples)
    np.savez(folder / "probabilities.npz", ctr=scores)
    (folder / "job.json").write_text(json.dumps({"history": []}), encoding="utf-8")
    return scores


@pytest.fixture(scope="module")
def laid(tmp_path_factory):
    """Two seeds of two variants: their cells, rows and scores."""
    work, cells, rows, scores = tmp_path_factory.mktemp("work"), [], {}, {}
    data = {seed: DataJob(Shop(seed=seed, **SHOP)) for seed in SPEC.seeds}
    for seed in SPEC.seeds:
        rows[seed] = lay_down_rows(work, data[seed], seed)
    for variant, skill in (("alone", 0.1), ("USR", 0.6)):
        jobs = {seed: TrainJob(data[seed], Config(seed=seed, embedding_size=int(10 * skill))) for seed in SPEC.seeds}
        for seed, job in jobs.items():
            scores[variant, seed] = lay_down_scores(work, job, rows[seed], skill, seed)
        cells.append(GridPoint({}, variant, SPEC.seeds, tuple((job,) for job in jobs.values())))
    return work, cells, rows, scores


def test_a_difference_is_the_mean_over_seeds_and_its_interval_that_of_drawn_seeds_and_users(laid):
    work, cells, rows, scores = laid
    search, feed = compare(SPEC, cells, work)
    assert (search.variant, search.scenario, search.task, feed.scenario) == ("USR", "search", "ctr", "recommendation")
    drawn, auc = [], {}
    for seed in SPEC.seeds:
        own = rows[seed]["scenario"] == 0
        labels, users = rows[seed]["ctr"][own], rows[seed]["user"][own]
        mine, theirs = (scores[variant, seed][own] for variant in ("USR", "alone"))
        auc[seed] = roc_auc_score(labels, mine), roc_auc_score(labels, theirs)
        resample = Resample.of(users, 20, seed=7)
        samples = [auc_sample(rows[seed], scores[variant, seed], "ctr", own) for variant in ("USR", "alone")]
        for sample, score in zip(samples, (mine, theirs), strict=True):
            copies = resample.weights[:, resample.users]
            assert sample[:21] == pytest.approx([roc_auc_score(labels, score, sample_weight=each) for each in copies])
        drawn.append((samples[0] - samples[1])[1:])
    assert search.auc == pytest.approx(np.mean([each[0] for each in auc.values()]))
    assert search.baseline_auc == pytest.approx(np.mean([each[1] for each in auc.values()]))
    assert search.gain == pytest.approx(search.auc - search.baseline_auc)
    points = [[mine - theirs] for mine, theirs in auc.values()]
    sample = mean_over_seeds(np.hstack([points, drawn]), same_rows=False)
    assert search.sample == pytest.approx(sample)
    assert search.interval == pytest.approx(np.quantile(sample[1:], [0.025, 0.975]))
    assert search.interval[0] < search.gain < search.interval[1]
    assert search.positives == sum(int(rows[seed]["ctr"][rows[seed]["scenario"] == 0].sum()) for seed in SPEC.seeds)
    oracle = [
        roc_auc_score(*(rows[seed][key][rows[seed]["scenario"] == 0] for key in ("ctr", "oracle_ctr")))
        for seed in SPEC.seeds
    ]
    assert search.oracle_auc == pytest.approx(np.mean(oracle))


def test_each_drawn_seed_has_a_resample_of_its_own_and_seeds_of_the_same_rows_one_in_common():
    figure = np.random.default_rng(0).normal(size=1 + 4000)
    samples = np.stack([figure] * 4)
    assert mean_over_seeds(samples, same_rows=True) == pytest.approx(figure)
    sample = mean_over_seeds(samples, same_rows=False)
    assert sample[0] == pytest.approx(figure[0])
    assert sample[1:].std() == pytest.approx(figure[1:].std() / 2, rel=0.05)  # √4, though each is drawn from the same


@pytest.mark.parametrize("same_rows", [True, False])
def test_seeds_are_drawn_with_replacement(same_rows):
    sample = mean_over_seeds(np.array([[0.0], [1.0]]) * np.ones(1 + 4000), same_rows)
    values, counts = np.unique(sample[1:], return_counts=True)
    assert (sample[0], list(values)) == (0.5, [0, 0.5, 1])
    assert counts / 4000 == pytest.approx(np.array([0.25, 0.5, 0.25]), abs=0.03)


def test_slices_are_of_what_training_has_shown(laid):
    work, cells, rows, scores = laid
    found = compare(SPEC.model_copy(update={"slices": {"user": (1, 3), "item": (1,)}}), cells, work)
    values = [each.place["test rows"] for each in found if each.scenario == "search"]
    assert values[:3] == ["user seen never", "user seen 1 to 2 times", "user seen 3 times or more"]
    assert values[3:] == ["item seen never", "item seen 1 times or more"]
    aucs = []
    for seed in SPEC.seeds:
        own = (rows[seed]["scenario"] == 0) & (rows[seed]["user_seen"] == 0)
        aucs.append(roc_auc_score(rows[seed]["ctr"][own], scores["USR", seed][own]))
    assert found[0].auc == pytest.approx(np.mean(aucs))


def test_a_cell_that_lacks_a_result_is_left_out(laid):
    work, cells, *_ = laid
    missing = TrainJob(cells[0].jobs[0][0].data, Config(seed=99))
    assert compare(SPEC, [cells[0], GridPoint({}, "USR", SPEC.seeds, ((missing,), (missing,)))], work) == []


@pytest.mark.parametrize(
    ("sample", "verdict"),
    [
        ([0.02, 0.01, 0.03], "helps"),
        ([-0.02, -0.01, -0.03], "hurts"),
        ([0.01, -0.01, 0.03], "not shown"),
        ([0.01, np.nan, 0.03], "undefined"),
    ],
)
def test_the_verdict_is_where_the_interval_lies(sample, verdict):
    assert comparison(sample).verdict == verdict


def test_the_gap_is_what_is_closed_of_the_oracles_lead():
    assert comparison().gap == pytest.approx(0.02 / 0.2)
    assert np.isnan(comparison(oracle_auc=0.5).gap)
    assert comparison(oracle_auc=float("nan")).document()["gap"] is None


def test_means_are_over_what_is_defined_with_the_draws_of_all():
    grid = [
        comparison([gain, gain - 0.01, gain + 0.02], place={"noise": noise}, scenario=scenario)
        for noise, scenario, gain in [("0", "search", 0.02), ("0", "feed", 0.04), ("1", "search", 0.0)]
    ]
    grid.append(comparison([np.nan] * 3, place={"noise": "1"}, scenario="feed"))
    (whole,) = overall(grid)
    assert whole.sample == pytest.approx([0.02, 0.01, 0.04])
    assert whole.scenario == ALL
    assert [each.gain for each in by_axis(grid, "noise")] == pytest.approx([0.03, 0.0])
    assert [dict(each.place) for each in by_place(grid)] == [{"noise": "0"}, {"noise": "1"}]


def test_the_answer_is_in_words():
    results = Results("name", SPEC, [comparison(), comparison([-0.02, -0.03, -0.01], scenario="feed")])
    assert sentence(answers(results)["USR"]) == "ctr +0.000 (-0.009 to +0.009): no difference is shown"
    assert sentence([]) == "nothing can be told, there are too few positives"
    assert rows(results)[1][0] == [
        "USR", "search ctr", "0.600", "0.620", "+0.020", "+0.011 to +0.029", "0.800", "10%", "helps"
    ]  # fmt: skip


def test_a_mean_of_many_has_an_interval_though_few_draws_define_them_all():
    parts = [np.full(11, gain) for gain in (0.01, 0.03)]
    parts[0][1], parts[1][2] = np.nan, np.nan  # a tenth of each, a fifth of both
    results = Results("name", SPEC, [comparison(part, scenario=name) for name, part in zip("ab", parts, strict=True)])
    (mean,) = results.overall
    assert mean.sample == pytest.approx([0.02, 0.03, 0.01] + [0.02] * 8)
    assert sentence(answers(results)["USR"]) == "ctr +0.020 (+0.012 to +0.028): helps"


def test_places_where_it_does_not_help_are_named():
    grid = [
        comparison([gain, gain - 0.01, gain + 0.01], place={"backbone": backbone, "noise": "0.1"})
        for backbone, gain in [("mmoe", 0.02), ("ple", 0.0), ("star", -0.02)]
    ]
    told = where(Results("name", SPEC, grid), "USR")
    assert told == "ctr helps in 1 of 3, not shown in (ple, noise 0.1), hurts in (star, noise 0.1)"


def test_each_slice_has_an_answer_of_its_own():
    grid = [comparison(place={SLICE: name}) for name in ("user seen never", "item seen never")]
    spec = SPEC.model_copy(update={"slices": {"user": (1,), "item": (1,)}})
    grid.append(comparison([np.nan] * 3, place={SLICE: "item seen 1 times or more"}))
    results = Results("name", spec, grid)
    assert list(answers(results)) == ["USR, user seen never", "USR, item seen never", "USR, item seen 1 times or more"]
    assert answered(results)["USR, item seen 1 times or more"] == "nothing can be told, there are too few positives."
    assert verdicts(results, []) == "ctr undefined"


def test_the_document_answers_before_it_shows_figures_and_has_the_command():
    grid = [comparison(place={"noise": noise}) for noise in ("0", "1")]
    text = results_document(
        "usr-tf experiment --spec=x", [Results("name", SPEC, grid, [Failure("key", "job", "no <luck>")])]
    )
    assert "```\nusr-tf experiment --spec=x\n```" in text
    assert "| [Q?](#t) | alone | USR: ctr helps |" in text
    assert text.index("*USR* against *alone*: ctr +0.020") < text.index("| noise | variant | ctr |")
    assert "| 0 | USR | **+0.020 (+0.011 to +0.029)** helps |" in text
    assert "Not done: job (no &lt;luck>)." in text
    assert "with 2 seeds in places" in text
    assert "2 of 2 intervals leave 0 out; if no variant differed from its baseline, 0.1 would be" in text


def test_one_seed_and_what_many_intervals_show_by_chance_are_told():
    assert Results("name", SPEC.model_copy(update={"seeds": (10,)}), []).size == (
        "simulated shops of 200,000 impressions at similarity 0.3, 1 seed (so intervals are over users alone), "
        "2 epochs in batches of 1,024"
    )
    noisy = SPEC.model_copy(update={"shop": ShopAxes(label_noise=0.3, similarity=[0, 1], scenarios=3)})
    assert Results("name", noisy, []).size.startswith(
        "simulated shops of 200,000 impressions, label noise 0.3, scenarios 3, 2 seeds, "
    )
    undefined = comparison([np.nan] * 3)
    assert by_chance([comparison()] * 30 + [comparison([0.0, -0.1, 0.1])] * 30 + [undefined]) == (
        "30 of 60 intervals leave 0 out; if no variant differed from its baseline, 3 would be expected to by chance."
    )


def test_names_do_not_break_tables(tmp_path):
    grid = [comparison(variant="a|b <c>", place={"x": x}) for x in ("[red]", "2")]
    results = Results("name", SPEC.model_copy(update={"variants": {"alone": {}, "a|b <c>": {}}}), grid)
    text = results_document("x", [results])
    assert "| [red] | a\\|b &lt;c> | **+0.020" in text
    assert "a|b" not in text
    assert "a|b &lt;c&gt;" in results_page("x", [results])
    with (tmp_path / "table.txt").open("w", encoding="utf-8") as file:
        Console(file=file, width=200).print(format_table(results))
    assert "[red]" in (tmp_path / "table.txt").read_text(encoding="utf-8")
