"""Evaluation of a run: its report, explanations of its scores, and diagnostics of its views."""
