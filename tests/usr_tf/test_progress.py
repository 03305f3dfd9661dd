import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import io

import numpy as np
import pytest
import tf_keras as keras
from rich.console import Console

from usr_tf.training import progress
from usr_tf.training.progress import Pace, Progress


class Clock:
    """Stands for the time module: a time that moves when told."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Figure:
    """A loss that knows how often it was read."""

    def __init__(self):
        self.reads = 0

    def __float__(self) -> float:
        self.reads += 1
        return 0.25


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def written(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=160)


def test_the_first_step_is_left_out_of_the_pace(clock):
    pace = Pace(batch_size=10)
    for seconds in (5.0, 0.5, 0.5):  # tracing takes the first one 5 s
        clock.now += seconds
        pace.step()
    assert pace.examples_per_second == pytest.approx(2 * 10 / 1.0)
    assert pace.seconds == pytest.approx(6.0)


def test_the_pace_of_a_single_step_is_its_own(clock):
    pace = Pace(batch_size=10)
    clock.now += 2.0
    pace.step()
    assert pace.examples_per_second == pytest.approx(5.0)


def test_a_pace_without_steps_is_zero(clock):
    assert Pace(batch_size=10).examples_per_second == 0


SUMMARY = {"epochs": 2, "best_epoch": 1, "monitor": "val_nll", "best": 0.25, "stopped": "patience"}


def test_without_a_terminal_there_are_plain_lines_of_an_epoch_and_of_the_end(clock):
    console = written(terminal=False)
    with Progress(4, 3, 100, summary=lambda: SUMMARY, console=console) as shown:
        for epoch in (0, 1):
            shown.on_epoch_begin(epoch)
            for batch in range(3):
                clock.now += 0.5
                shown.on_train_batch_end(batch, {"loss": 0.5})
            shown.on_test_begin()
            clock.now += 60  # validation is no training
            shown.on_epoch_end(epoch, {"loss": 0.5, "nll": 0.4, "val_nll": 0.25, "val_search/ctr_auc": np.nan})
        shown.on_train_end()
    assert console.file.getvalue().splitlines() == [
        "epoch 1/4  200 examples/s  1.5 s  loss 0.5000  val_nll 0.2500  best epoch 1",
        "  val AUC  search/ctr nan",
        "epoch 2/4  200 examples/s  1.5 s  loss 0.5000  val_nll 0.2500  best epoch 1",
        "  val AUC  search/ctr nan",
        "training ended after epoch 2: val_nll has not improved since epoch 1; best epoch 1, val_nll 0.2500",
    ]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"stopped": "epochs"}, "after epoch 2: all epochs are done; best epoch 1, val_nll 0.2500"),
        ({"stopped": "callback"}, "after epoch 2: a callback stopped it; best epoch 1, val_nll 0.2500"),
        (
            {"stopped": "callback", "batches": 12, "of_batches": 102, "best": None},
            "in epoch 3, after 12 of 102 batches: a callback stopped it; best epoch 1, val_nll undefined",
        ),
    ],
)
def test_the_last_line_tells_why_training_ended(clock, change, line):
    console = written(terminal=False)
    with Progress(4, 3, 100, summary=lambda: SUMMARY | change, console=console) as shown:
        shown.on_train_end()
    assert console.file.getvalue() == f"training ended {line}\n"


def test_figures_go_to_a_line_of_their_own_beyond_120_columns(clock):
    console = Console(file=io.StringIO(), force_terminal=False, width=20)
    with Progress(epochs=1, steps_per_epoch=1, batch_size=1, console=console) as shown:
        shown.on_epoch_begin(0)
        shown.on_epoch_end(0, {f"val_{name * 20}/[ctr]_auc": 0.5 for name in "abcd"})
    lines = console.file.getvalue().splitlines()
    assert [len(line) for line in lines[1:]] == [9 + 3 * 35, 35]  # of at most 120, whatever the terminal
    assert f"{'d' * 20}/[ctr] 0.5000" in lines[2]  # brackets are no markup


def test_a_terminal_shows_step_rate_time_left_and_loss(clock):
    console = written(terminal=True)
    console.get_time = clock.monotonic
    with Progress(epochs=4, steps_per_epoch=100, batch_size=10, console=console) as shown:
        shown.on_epoch_begin(1)
        for batch in range(20):
            clock.now += 0.5
            shown.on_train_batch_end(batch, {"loss": 0.125})
        text = console.file.getvalue()
        shown.on_test_begin()
    last = text.split("epoch 2/4")[-1]
    assert "20/100" in last
    assert "20 examples/s" in last
    assert "0:00:40" in last  # 80 steps, two a second
    assert "loss 0.1250" in last
    assert "validation" in console.file.getvalue().removeprefix(text)


def test_a_resumed_epoch_goes_on_where_it_was_and_the_next_starts_anew(clock):
    console = written(terminal=True)
    with Progress(epochs=4, steps_per_epoch=10, batch_size=1, console=console) as shown:
        for epoch, places in [(2, [7, 8, 9, 10]), (3, [1, 2])]:
            shown.on_epoch_begin(epoch)
            for place in places:
                shown.on_train_batch_begin(place - 1)
                assert f"{place - 1}/10" in console.file.getvalue().split("epoch ")[-1]
                clock.now += 1
                shown.on_train_batch_end(place - 1, {"loss": 0.0})
                assert f"{place}/10" in console.file.getvalue().split("epoch ")[-1]
            shown.on_epoch_end(epoch, {"loss": 0.0})


@pytest.mark.parametrize(("terminal", "reads"), [(True, 3), (False, 0)])
def test_a_loss_is_read_five_times_a_second_at_the_most(clock, terminal, reads):
    loss = Figure()
    with Progress(epochs=1, steps_per_epoch=1000, batch_size=1, console=written(terminal)) as shown:
        shown.on_epoch_begin(0)
        for batch in range(500):
            shown.on_train_batch_end(batch, {"loss": loss})
            clock.now += 0.001
    assert loss.reads == reads  # at 0, 0.2 and 0.4 of half a second


def test_the_terminal_is_given_back_after_an_error(clock):
    console = written(terminal=True)
    hide, show = "\x1b[?25l", "\x1b[?25h"  # the cursor

    def broken() -> None:
        with Progress(epochs=1, steps_per_epoch=2, batch_size=3, console=console) as shown:
            shown.on_epoch_begin(0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    written_text = console.file.getvalue()
    assert written_text.rindex(show) > written_text.rindex(hide)


def test_serves_several_fits():
    model = keras.Sequential([keras.layers.Dense(1, input_shape=(2,))])
    model.compile("sgd", "mse")
    console, x, y = written(terminal=False), np.ones([8, 2]), np.ones([8, 1])
    with Progress(epochs=2, steps_per_epoch=4, batch_size=2, console=console) as shown:
        for epoch in range(2):
            model.fit(
                x, y, 2, initial_epoch=epoch, epochs=epoch + 1, validation_data=(x, y), callbacks=[shown], verbose=0
            )
    first, second = console.file.getvalue().splitlines()
    assert first.startswith("epoch 1/2  ")
    assert second.startswith("epoch 2/2  ")
    assert "val_loss" in second
