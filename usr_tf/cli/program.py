"""The console program `usr-tf`: each verb reads its flags and makes one call of the library.

Exit status: 0 done, 2 the user's input is wrong (one line, no traceback), 1 anything else.
"""

import logging
import os
import sys
import warnings
from collections.abc import Sequence

from absl import flags

from usr_tf.cli import experiments, logs, models, serving
from usr_tf.cli.verb import PROGRAM, Verb
from usr_tf.errors import InputError

VERBS = {**models.DEMO, **logs.VERBS, **models.VERBS, **serving.VERBS, **experiments.VERBS}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `usr-tf VERB --flags`, and returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if arguments else 2
    name, *rest = arguments
    verb = VERBS.get(name)
    if verb is None:
        return _refuse(f"{PROGRAM}: found {name!r}, expected one of {', '.join(VERBS)}")
    if "-h" in rest or "--help" in rest:
        print(_help(name, verb))
        return 0
    try:
        values, beam_options = _parse(name, verb, rest)
        if verb.tensorflow:
            _quiet()
        verb.run(values, beam_options)
    except InputError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    except Exception as error:
        from serving.client.errors import ServingError  # only now: gRPC takes its time to start

        if not isinstance(error, ServingError):
            raise
        print(error, file=sys.stderr)  # the server's doing: no traceback of ours helps
        return 1
    return 0


def _parse(name: str, verb: Verb, arguments: list[str]) -> tuple[flags.FlagValues, list[str]]:
    beam_options: list[str] = []
    if "--" in arguments:
        cut = arguments.index("--")
        arguments, beam_options = arguments[:cut], arguments[cut + 1 :]
    place = f"{PROGRAM} {name}"
    if beam_options and not verb.beam:
        raise InputError(place, f"options after -- ({beam_options[0]})", "none")
    values = flags.FlagValues()
    verb.define(values)
    try:
        extra = values([name, *arguments])[1:]
    except flags.Error as error:
        raise InputError(place, " ".join(str(error).split()), f"flags that {place} --help lists") from error
    if extra and verb.more is None:
        raise InputError(place, f"the argument {extra[0]!r}", "flags alone")
    if verb.more:
        values[verb.more].value = [*(values[verb.more].value or []), *extra]
    for flag in verb.required:
        if not values[flag].value:
            raise InputError(f"{place}: --{flag}", "nothing", "this required flag")
    return values, beam_options


def _refuse(line: str) -> int:
    print(line, file=sys.stderr)
    return 2


def _quiet() -> None:
    """Keeps the libraries' chatter out of the way; with `TF_CPP_MIN_LOG_LEVEL` set, TensorFlow's stays."""
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("usr_tf").setLevel(logging.WARNING)  # ours are few, and about what the user has
    warnings.filterwarnings("ignore")
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)  # TensorFlow says that there is no GPU before it reads its log level
        import tensorflow as tf
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    tf.get_logger().setLevel("ERROR")


def _usage() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(
        [f"usage: {PROGRAM} VERB [--flags]", "", *lines, "", f"{PROGRAM} VERB --help tells a verb's flags."]
    )


def _help(name: str, verb: Verb) -> str:
    values = flags.FlagValues()
    verb.define(values)
    lines = [f"usage: {PROGRAM} {name} [--flags]" + (" [-- BEAM OPTIONS]" if verb.beam else ""), "", verb.summary, ""]
    for flag in sorted(values):
        default = "required" if flag in verb.required else values[flag].default_as_str
        lines.append(f"  --{flag}: {values[flag].help}" + (f" ({default})" if default else ""))
    return "\n".join(lines)
