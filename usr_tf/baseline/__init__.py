"""Gradient-boosted tree baseline: LightGBM on the rows and signals of our model.

Read `features` (a row as columns of a table), `train`, then `run` and `model` (what a finished run holds and answers).
"""
