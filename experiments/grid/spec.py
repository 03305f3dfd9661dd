"""What an experiment is: the typed reading of a YAML spec. Needs no TensorFlow."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from usr_tf.errors import InputError
from usr_tf.schema import parse_model, parse_yaml, read_yaml

FIRST_SEED, TUNING_SEED = 10, 9
"""Of a spec that gives only their number, and of the shop in which learning rates are picked."""

Scalar = bool | int | float | str | None
Settings = dict[str, Any]
"""`key: value` of the training configuration, keys dotted as in `--set`."""
Share = Annotated[float, Field(ge=0, le=1)]
Whole = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ShopAxes(_Strict):
    """Arguments of `simulate`, each one value or a list of them; lists are crossed."""

    impressions: Whole | tuple[Whole, ...] = 200_000
    similarity: Share | tuple[Share, ...] = 0.3
    label_noise: Share | tuple[Share, ...] = 0.0
    global_label_noise: Share | tuple[Share, ...] | None = None
    """None: that of `label_noise`."""
    scenarios: Whole | tuple[Whole, ...] = 2
    needs: Share | tuple[Share, ...] = 0.8

    @property
    def axes(self) -> list[str]:
        """Those with several values."""
        return [name for name, value in self if isinstance(value, tuple) and len(value) > 1]

    def cells(self) -> Iterator[dict[str, Scalar]]:
        """Every combination."""
        choices = [value if isinstance(value, tuple) else (value,) for _, value in self]
        for values in itertools.product(*choices):
            yield dict(zip(type(self).model_fields, values, strict=True))


class Budget(_Strict):
    """What every model gets. Of its epochs, the one with the least validation loss counts."""

    epochs: Whole = 2
    batch_size: Whole = 1024


class Tune(_Strict):
    """One key that each configuration may choose for itself, by validation AUC: in shops, in one of its own seed."""

    key: str = "train.learning_rate"
    values: tuple[float, ...] = Field(min_length=2)
    variants: tuple[str, ...] = Field(min_length=1)
    """Those that choose. All others take what the last of these took."""


class Spec(_Strict):
    """An experiment. Every variant but the baseline is compared with it in every cell of data and axes."""

    title: str
    question: str
    note: str = ""
    """What a reader has to know beside the answer, which the results give."""
    shop: ShopAxes = ShopAxes()
    data: dict[str, str] | None = None
    """Name → directory of preprocessed data, in the shop's place."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(tuple(range(FIRST_SEED, FIRST_SEED + 5)), min_length=1)
    """In the file a list, or how many, from `FIRST_SEED` on. Each is that of a shop and of a model's first weights."""
    budget: Budget = Budget()
    settings: Settings = {}
    """For every model."""
    axes: dict[str, list[Any] | dict[str, Settings]] = {}
    """Crossed with the variants: a key of the configuration and its values, or names and what each sets."""
    variants: dict[str, Settings] = Field(min_length=2)
    baseline: str
    per_scenario: tuple[str, ...] = ()
    """Variants that are one model for each scenario, trained on its rows alone."""
    tune: Tune | None = None
    slices: dict[Literal["user", "item"], tuple[Whole, ...]] = {}
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

    @model_validator(mode="after")
    def _names_are_known(self) -> "Spec":
        named = {"baseline": (self.baseline,), "per_scenario": self.per_scenario}
        named["tune.variants"] = self.tune.variants if self.tune else ()
        for key, variants in named.items():
            for variant in variants:
                if variant not in self.variants:
                    raise ValueError(f"{key}: found {variant!r}, expected one of {', '.join(self.variants)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: found {list(self.seeds)}, expected different ones")
        return self

    def axis_cells(self) -> Iterator[tuple[dict[str, str], Settings]]:
        """Every combination of the axes: the name of its value on each, and what it sets."""
        choices = [
            values.items() if isinstance(values, dict) else [(_told(value), {axis: value}) for value in values]
            for axis, values in self.axes.items()
        ]
        for cell in itertools.product(*choices):
            names = dict(zip(self.axes, (name for name, _ in cell), strict=True))
            yield names, {key: value for _, settings in cell for key, value in settings.items()}


class _Set(_Strict):
    """A file that lists specs, to be run as one."""

    title: str
    specs: tuple[str, ...] = Field(min_length=1)


def load_specs(names: Sequence[str], small: bool = False, override: Mapping[str, Any] | None = None) -> dict[str, Spec]:
    """Specs by their names, of files or of those that come with the package; a file of several gives all of them.

    A spec's `base` names a file beside it, whose keys it takes over; its `small` holds keys that `small` puts in place
    of the others, and so does `override`. Mappings are merged, anything else is replaced, and null in `small` takes a
    key away.

    Raises:
      InputError: an unreadable file, an unknown key, or a value that does not suit its key.
    """
    specs: dict[str, Spec] = {}
    for name in names:
        place = _find(name)
        document = read_yaml(place, str(place), "an experiment")
        if isinstance(document, dict) and "specs" in document:
            listed = parse_model(_Set, document, str(place)).specs
            specs |= {each: _parse(place.parent / f"{each}.yaml", small, override or {}) for each in listed}
        else:
            specs[Path(str(place)).stem] = _parse(place, small, override or {})
    return specs


def overriding(
    impressions: int | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    data: Sequence[str] = (),
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """What a command line puts in place of a spec's own: `data` of NAME=DIRECTORY, `settings` of key=value.

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
    """Names of those that come with the package."""
    return sorted(Path(file.name).stem for file in _FOLDER.iterdir() if re.fullmatch(r"[a-z]\w*\.yaml", file.name))


_FOLDER = resources.files("experiments") / "specs"


def _find(name: str) -> Traversable:
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    if name not in known_specs():
        raise InputError("--spec", repr(name), f"a .yaml file, or one of {', '.join(known_specs())}")
    return _FOLDER / f"{name}.yaml"


def _parse(place: Traversable, small: bool, override: Mapping[str, Any]) -> Spec:
    document = read_yaml(place, str(place), "an experiment")
    if not isinstance(document, dict):
        raise InputError(place, "no keys and values", "an experiment")
    base = document.pop("base", None)
    if base is not None:
        beside = place.parent / str(base)
        document = merge(read_yaml(beside, str(beside), "an experiment's base"), document)
    shrunk = document.pop("small", {})
    if small:
        document = merge(document, shrunk, drop_null=True)
    return parse_model(Spec, merge(document, override), str(place))


def merge(under: Mapping[str, Any], over: Mapping[str, Any], drop_null: bool = False) -> dict[str, Any]:
    """`over` laid upon `under`, mapping by mapping."""
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(under.get(key), Mapping)
        merged[key] = merge(under[key], value, drop_null) if both else value
        if drop_null and value is None:
            del merged[key]
    return merged


def _told(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
