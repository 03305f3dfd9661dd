"""Shell completion: scripts for bash, zsh and fish that complete verbs, flags and the values of choices."""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from absl import flags

from usr_tf.cli.verb import PROGRAM, Verb
from usr_tf.errors import InputError

_HELP = "help"


class _Option(NamedTuple):
    name: str
    text: str
    takes_value: bool
    choices: tuple[str, ...]


def script(shell: str, verbs: Mapping[str, Verb]) -> str:
    """Completion script of a shell.

    Raises:
      InputError: another shell than bash, zsh or fish.
    """
    if shell not in _SCRIPTS:
        raise InputError(f"{PROGRAM} completion", repr(shell), f"one of {', '.join(_SCRIPTS)}")
    return _SCRIPTS[shell](verbs)


def _options(verb: Verb) -> list[_Option]:
    values = verb.flags()
    return [_option(values[name]) for name in sorted(values)]


def _option(flag: flags.Flag) -> _Option:
    choices = tuple(getattr(flag.parser, "enum_values", ()))
    return _Option(flag.name, flag.help, not flag.boolean, choices)


def _words(verb: Verb) -> tuple[str, ...]:
    """Values that may follow a verb without a flag."""
    return next((option.choices for option in _options(verb) if option.name == verb.more), ())


def _bash(verbs: Mapping[str, Verb]) -> str:
    flags_of = {name: [f"--{option.name}" for option in _options(verb)] for name, verb in verbs.items()}
    choices_of = {
        f"{name} --{option.name}": option.choices
        for name, verb in verbs.items()
        for option in _options(verb)
        if option.choices
    }
    words_of = {name: words for name, verb in verbs.items() if (words := _words(verb))}
    return f"""\
# bash completion of {PROGRAM}. Put `source <({PROGRAM} completion bash)` into ~/.bashrc.
_usr_tf() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} verb=${{COMP_WORDS[1]}} words=
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = ]]; then
        before=${{COMP_WORDS[COMP_CWORD - 2]}}
    fi
    if (( COMP_CWORD == 1 )); then
        words={shlex.quote(" ".join([*verbs, _HELP, "--help", "--version"]))}
    elif [[ $verb == {_HELP} ]]; then
        words={shlex.quote(" ".join(verbs))}
    else
        case "$verb $before" in
{_cases(choices_of)}
        esac
        if [[ -z $words && $word == -* ]]; then
            case $verb in
{_cases(flags_of)}
            esac
        elif [[ -z $words ]]; then
            case $verb in
{_cases(words_of)}
            esac
        fi
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _usr_tf {PROGRAM}
"""


def _cases(words_of: Mapping[str, Iterable[str]]) -> str:
    return "\n".join(f'            "{key}") words={shlex.quote(" ".join(words))} ;;' for key, words in words_of.items())


def _zsh(verbs: Mapping[str, Verb]) -> str:
    named = "\n".join(f"        {shlex.quote(f'{name}:{verb.summary}')}" for name, verb in verbs.items())
    cases = "\n".join(
        "\n".join(
            [
                f"        {name})",
                "            _arguments -S \\",
                *(f"                {shlex.quote(_zsh_option(option))} \\" for option in _options(verb)),
                f"                {shlex.quote(_zsh_words(_words(verb)))} ;;",
            ]
        )
        for name, verb in verbs.items()
    )
    return f"""\
#compdef {PROGRAM}
# zsh completion of {PROGRAM}. Put `source <({PROGRAM} completion zsh)` into ~/.zshrc, after compinit.
_usr_tf() {{
    local -a verbs=(
{named}
    )
    if (( CURRENT == 2 )); then
        _describe verb verbs -- '({_HELP}:The flags of a verb)'
        return
    fi
    local verb=$words[2]
    shift words
    (( CURRENT-- ))
    case $verb in
{cases}
        {_HELP}) _describe verb verbs ;;
    esac
}}
compdef _usr_tf {PROGRAM}
"""


def _zsh_option(option: _Option) -> str:
    text = option.text.translate({ord(sign): f"\\{sign}" for sign in "[]:\\"})
    if not option.takes_value:
        return f"--{option.name}[{text}]"
    values = f"({' '.join(option.choices)})" if option.choices else "_files"
    return f"*--{option.name}=[{text}]:{option.name}:{values}"


def _zsh_words(words: Sequence[str]) -> str:
    return f"*:value:({' '.join(words)})" if words else "*:file:_files"


def _fish(verbs: Mapping[str, Verb]) -> str:
    lines = [
        f"# fish completion of {PROGRAM}. Put `{PROGRAM} completion fish | source` into ~/.config/fish/config.fish.",
        f"complete -c {PROGRAM} -n __fish_use_subcommand -f",
        f"complete -c {PROGRAM} -n __fish_use_subcommand -a {_HELP} -d 'The flags of a verb'",
        f"complete -c {PROGRAM} -n '__fish_seen_subcommand_from {_HELP}' -f -a {shlex.quote(' '.join(verbs))}",
    ]
    for name, verb in verbs.items():
        lines.append(f"complete -c {PROGRAM} -n __fish_use_subcommand -a {name} -d {_fish_quote(verb.summary)}")
        seen = f"complete -c {PROGRAM} -n '__fish_seen_subcommand_from {name}'"
        for option in _options(verb):
            value = f" -x -a {_fish_quote(' '.join(option.choices))}" if option.choices else " -r"
            lines.append(f"{seen} -l {option.name} -d {_fish_quote(option.text)}{value if option.takes_value else ''}")
        if words := _words(verb):
            lines.append(f"{seen} -f -a {_fish_quote(' '.join(words))}")
    return "\n".join(lines) + "\n"


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_SCRIPTS: dict[str, Callable[[Mapping[str, Verb]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}


def _flags(values: flags.FlagValues) -> None:
    flags.DEFINE_multi_enum("shell", None, list(_SCRIPTS), "Shell whose script to print", flag_values=values)


def _run(values: flags.FlagValues, _: Sequence[str]) -> None:
    from usr_tf.cli.program import VERBS as ALL  # imported late: `program` imports this module

    for shell in values.shell:
        print(script(shell, ALL), end="")


VERBS = {
    "completion": Verb(
        "Print a script that completes verbs and flags in bash, zsh or fish",
        _flags,
        _run,
        ("shell",),
        "shell",
        tensorflow=False,
        example="bash",
        extras=(),
    ),
}
