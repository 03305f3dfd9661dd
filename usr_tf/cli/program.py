"""Console program `usr-tf`: each verb parses its flags and makes one library call.

Exit status: 0 done, 2 the user's input is wrong (one line, no traceback), 130 interrupted by Ctrl-C, 141 nobody reads
its output any more, 1 anything else.
"""

import os
import re
import select
import shlex
import signal
import sys
from collections.abc import Sequence

from absl import flags

from usr_tf import __version__
from usr_tf.cli import completion, experiments, features, logs, models, play, serving
from usr_tf.cli.extras import require
from usr_tf.cli.interrupt import Interrupts
from usr_tf.cli.quiet import quiet
from usr_tf.cli.usage import Group, usage, verb_help
from usr_tf.cli.verb import PROGRAM, Verb
from usr_tf.errors import InputError
from usr_tf.streams import accept_any_text

GROUPS = [
    Group("All steps at once", models.DEMO, "demo"),
    Group("Logs and Beam jobs", logs.VERBS, "preprocess"),
    Group("Models", models.VERBS, "train"),
    Group("Serving", serving.VERBS | features.VERBS | play.VERBS, "serve"),
    Group("Experiments", experiments.VERBS, "tune"),
    Group("The program itself", completion.VERBS, "completion"),
]
VERBS: dict[str, Verb] = {name: verb for group in GROUPS for name, verb in group.verbs.items()}

_INTERRUPTED, _BROKEN_PIPE = 128 + signal.SIGINT, 128 + signal.SIGPIPE


def main(argv: Sequence[str] | None = None, *, beam_program: bool = False) -> int:
    """Runs `usr-tf VERB --flags`, and returns the exit status.

    Args:
      argv: arguments after the program's name; those of the process when absent.
      beam_program: flags that the verb lacks are Beam's, as in a Beam program, without `--` before them.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    accept_any_text()
    interrupts = Interrupts()
    if argv is None:
        interrupts.watch()
    try:
        status = _run(arguments, beam_program)
        sys.stdout.flush()
    except BaseException as error:
        if interrupts.seen or isinstance(error, KeyboardInterrupt):
            print(_interruption(arguments), file=sys.stderr)
            return _INTERRUPTED
        if isinstance(error, BrokenPipeError) and _stdout_is_closed():
            return _BROKEN_PIPE
        raise
    return status


def _run(arguments: list[str], beam_program: bool) -> int:
    if not arguments:
        print(usage(GROUPS))
        return 2
    name, *rest = arguments
    if name == "--version":
        print(f"{PROGRAM} {__version__}")
        return 0
    if name in ("-h", "--help", "help"):
        if not rest:
            print(usage(GROUPS))
            return 0
        name, rest = rest[0], ["--help"]
    verb = VERBS.get(name)
    if verb is None:
        return _refuse(f"{PROGRAM}: found {name!r}, expected one of {', '.join(VERBS)}")
    if "-h" in rest or "--help" in rest:
        print(verb_help(name, verb))
        return 0
    try:
        values, beam_options = _parse(name, verb, rest, beam_program)
        require(verb.extras, f"{PROGRAM} {name}")
        if verb.tensorflow:
            quiet()
        verb.run(values, beam_options)
    except InputError as error:
        return _refuse(str(error))
    except Exception as error:
        if not _is_serving_error(error):
            raise
        print(error, file=sys.stderr)  # the server's doing: no traceback of ours helps
        return 1
    return 0


def _parse(name: str, verb: Verb, arguments: list[str], beam_program: bool) -> tuple[flags.FlagValues, list[str]]:
    beam_options: list[str] = []
    if "--" in arguments:
        cut = arguments.index("--")
        arguments, beam_options = arguments[:cut], arguments[cut + 1 :]
    place = f"{PROGRAM} {name}"
    if beam_options and not verb.beam:
        raise InputError(place, f"options after -- ({beam_options[0]})", "none")
    values = verb.flags()
    try:
        spelt = [_with_underscores(argument, values) for argument in arguments]
        extra = values([name, *spelt], known_only=beam_program)[1:]
    except (flags.Error, ValueError) as error:
        raise InputError(place, " ".join(str(error).split()), f"flags that {place} --help lists") from error
    if beam_program:
        beam_options, extra = [*extra, *beam_options], []
    if extra and verb.more is None:
        raise InputError(place, f"the argument {extra[0]!r}", "flags alone")
    if verb.more:
        values[verb.more].value = [*(values[verb.more].value or []), *extra]
    for flag in verb.required:
        if not values[flag].value:
            raise InputError(f"{place}: --{flag}", "nothing", "this required flag")
    return values, beam_options


def _with_underscores(argument: str, values: flags.FlagValues) -> str:
    """`--dry-run` as `--dry_run`, `--no-dry-run` as `--nodry_run`; other arguments unchanged."""
    match = re.fullmatch(r"--?(?P<name>[\w-]+)(?P<value>=.*)?", argument, re.DOTALL)
    if match is None:
        return argument
    name = match["name"].replace("-", "_")
    if name.startswith("no_") and name.removeprefix("no_") in values:
        name = "no" + name.removeprefix("no_")
    known = name in values or name.removeprefix("no") in values
    return f"--{name}{match['value'] or ''}" if known else argument


def _refuse(line: str) -> int:
    print(line, file=sys.stderr)
    return 2


def _interruption(arguments: Sequence[str]) -> str:
    verb = VERBS.get(arguments[0]) if arguments else None
    if verb is None or not verb.resumes:
        return "interrupted"
    return f"interrupted; to go on: {shlex.join([PROGRAM, *arguments])}"


def _stdout_is_closed() -> bool:
    """Whether the reader of standard output has gone. If so, drops the remaining output."""
    poller = select.poll()
    poller.register(sys.stdout, 0)
    closed = any(events & select.POLLERR for _, events in poller.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python flushes it once more at the end
    return closed


def _is_serving_error(error: Exception) -> bool:
    errors = sys.modules.get("serving.client.errors")  # not imported here: gRPC takes its time, and may be missing
    return errors is not None and isinstance(error, errors.ServingError)
