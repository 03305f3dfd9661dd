"""Simulated shop; `docs/simulator.md` has its equations.

`catalogue` names things, `scenarios` lists the views, `month` says when, `world` and `people` draw who and what there
is, `signals` what changes and what else is logged, `ranker` makes slates, `behaviour` plays what people do, `noise`
spoils the record, `tables` writes it as log rows.
"""
