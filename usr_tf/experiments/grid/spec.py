"""Experiment spec: typed YAML. Needs no TensorFlow."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipelines.simulator.scenarios import SCENARIOS
from usr_tf.config import load_config
from usr_tf.documents import Location, Mistake, StrictModel, parse_model, parse_yaml, read_yaml
from usr_tf.errors import InputError, raise_all
from usr_tf.experiments.search_space import setting

FIRST_SEED, TUNING_SEED = 10, 9
"""Of a spec that gives only their number, and of the shop in which learning rates are picked."""

Scalar = bool | int | float | str | None
Settings = dict[str, Any]
"""`key: value` of the training configuration, keys dotted as in `--set`."""
Share = Annotated[float, Field(ge=0, le=1)]
Whole = Annotated[int, Field(ge=1)]


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _distinct(values: tuple) -> tuple:
    if len(set(values)) < len(values):
        raise ValueError(f"found {list(values)}, expected different ones")
    return values


def _rising(values: tuple) -> tuple:
    if any(low >= high for low, high in itertools.pairwise(values)):
        raise ValueError(f"found {list(values)}, expected rising ones")
    return values


_List = (BeforeValidator(_as_list), Field(min_length=1), AfterValidator(_distinct))
"""In the file a value or a list."""


class ShopAxes(StrictModel):
    """Arguments of `simulate`, each with one or more values; they are crossed."""

    impressions: Annotated[tuple[Whole, ...], *_List] = (200_000,)
    similarity: Annotated[tuple[Share, ...], *_List] = (0.3,)
    label_noise: Annotated[tuple[Share, ...], *_List] = (0.0,)
    global_label_noise: Annotated[tuple[Share | None, ...], *_List] = (None,)
    """None: that of `label_noise`."""
    scenarios: Annotated[tuple[Annotated[int, Field(ge=1, le=len(SCENARIOS))], ...], *_List] = (2,)
    needs: Annotated[tuple[Share, ...], *_List] = (0.8,)

    @property
    def axes(self) -> list[str]:
        """Arguments with several values."""
        return [name for name, values in self if len(values) > 1]

    def cells(self) -> Iterator[dict[str, Scalar]]:
        """All combinations of values."""
        for cell in itertools.product(*(values for _, values in self)):
            yield dict(zip(type(self).model_fields, cell, strict=True))


_TAKEN = {*ShopAxes.model_fields, "data", "variant", "scenario", "task"}
"""What results call the axes of the data, and other columns."""


class Budget(StrictModel):
    """Training budget of every model. The epoch with the lowest validation loss counts."""

    epochs: Whole = 2
    batch_size: Whole = 1024


class Tune(StrictModel):
    """Key that each configuration tunes by validation AUC, on shops with a seed of their own."""

    key: str = "train.learning_rate"
    values: Annotated[tuple[float, ...], Field(min_length=2), AfterValidator(_distinct)]
    variants: tuple[str, ...] = Field(min_length=1)
    """Those that choose. All others take what the last of these took."""


class Spec(StrictModel):
    """Experiment: every variant is compared with the baseline in every cell of data and axes."""

    title: str
    question: str
    note: str = ""
    """What a reader has to know beside the answer, which the results give."""
    shop: ShopAxes = ShopAxes()
    data: Annotated[dict[str, str], Field(min_length=1)] | None = None
    """Name → directory of preprocessed data, in the shop's place."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], *_List] = tuple(range(FIRST_SEED, FIRST_SEED + 5))
    """In the file a list, or how many, from `FIRST_SEED` on. Each is that of a shop and of a model's first weights."""
    budget: Budget = Budget()
    settings: Settings = {}
    """For every model."""
    axes: dict[str, Annotated[list[Any] | dict[str, Settings], Field(min_length=1)]] = {}
    """Crossed with the variants: a key of the configuration and its values, or names and what each sets."""
    variants: dict[str, Settings] = Field(min_length=2)
    baseline: str
    per_scenario: tuple[str, ...] = ()
    """Variants that are one model for each scenario, trained on its rows alone."""
    tune: Tune | None = None
    slices: dict[
        Literal["user", "item"], Annotated[tuple[Whole, ...], Field(min_length=1), AfterValidator(_rising)]
    ] = {}
    """Test rows apart by how often training has shown their user or item: from 0, and from each of these on."""

    views: bool = False
    """Whether to tell, too, how far the views stand apart."""

    @model_validator(mode="before")
    @classmethod
    def _count_seeds(cls, document: Any) -> Any:
        seeds = document.get("seeds") if isinstance(document, dict) else None
        if isinstance(seeds, int) and not isinstance(seeds, bool):
            return document | {"seeds": list(range(FIRST_SEED, FIRST_SEED + seeds))}
        return document

    def mistakes(self) -> Iterator[Mistake]:
        yield from self._unknown_variants()
        yield from self._misplaced_settings()
        for axis in self.axes:
            names = [name for name, _ in self._values(axis)]
            if len(set(names)) < len(names):
                yield Mistake(("axes", axis), str(names), "different ones")
            if axis in _TAKEN:
                yield Mistake(("axes",), repr(axis), "a name that is no axis of the data or of results")

    def _unknown_variants(self) -> Iterator[Mistake]:
        named: dict[Location, tuple[str, ...]] = {("baseline",): (self.baseline,), ("per_scenario",): self.per_scenario}
        named["tune", "variants"] = self.tune.variants if self.tune else ()
        for key, variants in named.items():
            for variant in variants:
                if variant not in self.variants:
                    expected, needs = f"one of {', '.join(self.variants)}", (("variants",),)
                    yield Mistake(key, repr(variant), expected, needs)
        if self.tune and self.data is None and TUNING_SEED in self.seeds:
            expected, needs = f"others: {self.tune.key} is chosen in that seed's shop", (("data",), ("tune",))
            yield Mistake(("seeds",), str(TUNING_SEED), expected, needs)

    def _misplaced_settings(self) -> Iterator[Mistake]:
        """Settings without effect, or that contradict the stated budget."""
        for place, settings in self.all_settings().items():
            for key, value in settings.items():
                if isinstance(value, Mapping):
                    yield Mistake((*place, key), "keys within", "a dotted key and its value")
                elif key in ("seed", "data"):
                    yield Mistake((*place, key), repr(value), "it as the experiment's own")
                elif self.tune and key == self.tune.key and place != ("settings",):
                    yield Mistake((*place, key), repr(value), "none, for each chooses its own", needs=(("tune",),))
        for key in Budget.model_fields:
            if f"train.{key}" in self.settings:
                name = f"train.{key}"
                yield Mistake(("settings", name), repr(self.settings[name]), f"it as budget.{key}")

    def all_settings(self) -> dict[Location, Settings]:
        """All settings by their place in the file, such as `("variants", "USR")`."""
        named: dict[Location, Settings] = {("settings",): self.settings}
        for axis in self.axes:
            named |= {("axes", axis, name): settings for name, settings in self._values(axis)}
        return named | {("variants", name): settings for name, settings in self.variants.items()}

    def axis_cells(self) -> Iterator[tuple[dict[str, str], Settings]]:
        """All combinations of the axes: names of the values, and their settings."""
        for cell in itertools.product(*map(self._values, self.axes)):
            names = dict(zip(self.axes, (name for name, _ in cell), strict=True))
            yield names, {key: value for _, settings in cell for key, value in settings.items()}

    def _values(self, axis: str) -> list[tuple[str, Settings]]:
        values = self.axes[axis]
        return list(values.items()) if isinstance(values, dict) else [(_told(each), {axis: each}) for each in values]


class _Set(StrictModel):
    """File that lists specs to run together."""

    title: str
    specs: tuple[str, ...] = Field(min_length=1)


def load_specs(names: Sequence[str], small: bool = False, override: Mapping[str, Any] | None = None) -> dict[str, Spec]:
    """Specs by name, from files or from the package; a file may list several.

    A spec's `base` names a file beside it, whose keys it takes over; its `small` holds keys that `small` puts in place
    of the others, and so does `override`. Mappings are merged, anything else is replaced, and null in `small` takes a
    key away.

    Raises:
      InputError: an unreadable file, an unknown key, or a value that does not suit its key.
    """
    places: dict[Traversable, None] = {}
    for name in names:
        place = _find(name)
        document = read_yaml(place, str(place), "an experiment")
        if isinstance(document, dict) and "specs" in document:
            listed = parse_model(_Set, document, str(place)).specs
            places |= dict.fromkeys(place.parent / f"{each}.yaml" for each in listed)
        else:
            places[place] = None
    specs: dict[str, Spec] = {}
    for place in places:
        stem = Path(str(place)).stem
        if stem in specs:
            raise InputError("--spec", f"several files called {stem}", "different names, for results bear them")
        specs[stem] = _parse(place, small, override or {})
    return specs


def overriding(
    impressions: int | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    data: Sequence[str] = (),
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """Spec with command-line overrides: `data` of NAME=DIRECTORY, `settings` of key=value.

    Raises:
      InputError: one of them is not of that form.
    """
    override: dict[str, Any] = {}
    if impressions is not None:
        override["shop"] = {"impressions": impressions}
    if seeds is not None:
        override["seeds"] = seeds
    if epochs is not None:
        override["budget"] = {"epochs": epochs}
    for flag, pairs in (("data", data), ("settings", settings)):
        for pair in pairs:
            name, separator, value = pair.partition("=")
            if not (name and separator and value):
                raise InputError("--data" if flag == "data" else "--set", repr(pair), "NAME=VALUE")
            value = value if flag == "data" else parse_yaml(value, f"--set {name}", "a YAML value")
            override.setdefault(flag, {})[name] = value
    return override


def known_specs() -> list[str]:
    """Names of the package's specs."""
    return sorted(Path(file.name).stem for file in _FOLDER.iterdir() if re.fullmatch(r"[a-z]\w*\.yaml", file.name))


_FOLDER = resources.files("usr_tf.experiments") / "specs"


def _find(name: str) -> Traversable:
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    if name not in known_specs():
        raise InputError("--spec", repr(name), f"a .yaml file, or one of {', '.join(known_specs())}")
    return _FOLDER / f"{name}.yaml"


def _parse(place: Traversable, small: bool, override: Mapping[str, Any]) -> Spec:
    document = _read(place)
    shrunk = document.pop("small", {})
    if small:
        if not isinstance(shrunk, dict):
            raise InputError(f"{place}: small", repr(shrunk), "keys and values")
        document = merge(document, shrunk, drop_null=True)
    spec = parse_model(Spec, merge(document, override), str(place))
    if spec.tune and spec.tune.key in override.get("settings", {}):
        found = f"{spec.tune.key}={override['settings'][spec.tune.key]}"
        raise InputError("--set", found, f"another key, for in {place} each configuration chooses its own")
    errors = []
    for key, settings in spec.all_settings().items():
        try:
            load_config(None, [setting(*each) for each in {**spec.settings, **settings}.items()])
        except InputError as error:
            errors += [_inside(f"{place}: {'.'.join(key)}", each) for each in error.each]
    raise_all(errors)
    return spec


def _inside(place: str, error: InputError) -> InputError:
    """An error of the configuration, at the place of the spec that sets it."""
    where, _, remainder = str(error).partition(": found ")
    found, _, expected = remainder.rpartition(", expected ")
    return InputError(f"{place}: {where.split()[-1]}", found, expected)


def _read(place: Traversable, derived: tuple[Traversable, ...] = ()) -> dict[str, Any]:
    """A file's keys over those of its `base`, of the base's base, and so on."""
    document = read_yaml(place, str(place), "an experiment")
    if not isinstance(document, dict):
        raise InputError(place, "no keys and values", "an experiment")
    base = document.pop("base", None)
    if base is None:
        return document
    under = place.parent / str(base)
    if under in (*derived, place):
        raise InputError(f"{place}: base", str(base), "a file that is not based on this one")
    return merge(_read(under, (*derived, place)), document)


def merge(under: Mapping[str, Any], over: Mapping[str, Any], drop_null: bool = False) -> dict[str, Any]:
    """Recursive merge of mappings; `over` wins."""
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(under.get(key), Mapping)
        merged[key] = merge(under[key], value, drop_null) if both else value
        if drop_null and value is None:
            del merged[key]
    return merged


def _told(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
