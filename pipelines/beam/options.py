"""Beam options of the command line, and the pipeline that they configure."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions, StandardOptions

from usr_tf.errors import InputError

_LOCAL_RUNNER = "FnApiRunner"
_ASK_THEIR_SERVER = ("portable", "flink", "spark")
"""Runners whose job server knows options of its own."""


def make_pipeline(beam_args: Sequence[str]) -> beam.Pipeline:
    """Empty pipeline with the given options. Beam drops unknown options; here they are refused.

    Raises:
      InputError: an unknown option, or one that does not suit the runner.
    """
    options = PipelineOptions(list(beam_args))
    options.get_all_options(add_extra_args_fn=lambda parser: _refuse_unknown(parser, beam_args))
    standard = options.view_as(StandardOptions)
    if (standard.runner or "direct").lower().removesuffix("runner") == "direct":  # tries a runner that it downloads
        standard.runner = _LOCAL_RUNNER
    options.view_as(SetupOptions).save_main_session = False
    try:
        return beam.Pipeline(options=options)
    except (ValueError, ImportError, AttributeError) as error:  # no such runner, or an option that it lacks
        raise InputError("Beam options", " ".join(str(error).split()), "options that suit the runner") from error


def is_local(pipeline: beam.Pipeline) -> bool:
    """Whether all workers run on this machine."""
    return pipeline.options.view_as(StandardOptions).runner.lower() == _LOCAL_RUNNER.lower()


def _refuse_unknown(parser: argparse.ArgumentParser, beam_args: Sequence[str]) -> None:
    def refuse(message: str) -> NoReturn:
        raise InputError("Beam options", message, "options that Beam's documentation lists")

    parser.error = refuse
    known, unknown = parser.parse_known_args(beam_args)
    runner = (known.runner or "").lower().removesuffix("runner")
    if unknown and runner not in _ASK_THEIR_SERVER:
        refuse(f"the unknown {unknown[0]!r}")
