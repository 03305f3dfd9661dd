"""Evaluation of a run: report, explanations of scores, view diagnostics."""
