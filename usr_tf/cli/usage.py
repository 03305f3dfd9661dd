"""Help texts: verbs in groups, and the flags of one verb."""

from collections.abc import Mapping
from typing import NamedTuple

from usr_tf.cli.verb import PROGRAM, Verb


class Group(NamedTuple):
    """Verbs under one heading, with the verb whose example represents them."""

    heading: str
    verbs: Mapping[str, Verb]
    typical: str


def usage(groups: list[Group]) -> str:
    """Text of `usr-tf help`."""
    width = max(len(name) for group in groups for name in group.verbs)
    lines = [f"usage: {PROGRAM} VERB [--flags]"]
    for heading, verbs, typical in groups:
        lines += ["", heading, *(f"  {name:<{width}}  {verb.summary}" for name, verb in verbs.items())]
        lines.append(f"  e.g. {_example(typical, verbs[typical])}")
    lines += ["", f"{PROGRAM} help VERB lists a verb's flags. {PROGRAM} --version prints the version."]
    return "\n".join(lines)


def verb_help(name: str, verb: Verb) -> str:
    """Text of `usr-tf help VERB` and `usr-tf VERB --help`."""
    values = verb.flags()
    beam = " [-- BEAM OPTIONS]" if verb.beam else ""
    lines = [f"usage: {PROGRAM} {name} [--flags]{beam}", "", verb.summary, f"e.g. {_example(name, verb)}", ""]
    for flag in sorted(values):
        default = "required" if flag in verb.required else values[flag].default_as_str
        lines.append(f"  --{flag}: {values[flag].help}" + (f" ({default})" if default else ""))
    if any("_" in flag for flag in values):
        lines += ["", "A flag's name takes dashes as well as underscores."]
    return "\n".join(lines)


def _example(name: str, verb: Verb) -> str:
    return f"{PROGRAM} {name} {verb.example}"
