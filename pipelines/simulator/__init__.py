"""Simulated shop; `docs/simulator.md` has its equations.

`catalogue` names things, `scenarios` lists the views, `world` and `people` draw who and what there is, `ranker` makes
slates, `behaviour` plays what people do, `noise` spoils the record, `tables` writes it as log rows.
"""
