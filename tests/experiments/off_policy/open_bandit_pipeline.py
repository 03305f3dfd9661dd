"""Estimates by the Open Bandit Pipeline (`obp`), which has no clipped SNIPS: clips go into its propensities."""

import numpy as np
import pytest


def obp_estimates(policy, expected, item, propensity, click, clips):
    """Estimator → value, for the probabilities and the model's clicks of every item, `[n, items]` each.

    Args:
      clips: limits of the weights of `snips_clipped` and `dr_clipped`.
    """
    obp = pytest.importorskip("obp.ope", reason="needs `pip install --no-deps obp` and torch")
    probability = policy[np.arange(item.size), item]
    logged = {"reward": click.astype(float), "action": item, "action_dist": policy[..., None]}
    model = {"estimated_rewards_by_reg_model": expected[..., None]}
    ips, dr = obp.InverseProbabilityWeighting(), obp.DoublyRobust()
    snips, dm = obp.SelfNormalizedInverseProbabilityWeighting(), obp.DirectMethod()
    clipped = {name: probability / np.minimum(probability / propensity, clip) for name, clip in clips.items()}
    return {
        "ips": ips.estimate_policy_value(**logged, pscore=propensity),
        "snips": snips.estimate_policy_value(**logged, pscore=propensity),
        "snips_clipped": snips.estimate_policy_value(**logged, pscore=clipped["snips_clipped"]),
        "dm": dm.estimate_policy_value(action_dist=logged["action_dist"], **model),
        "dr": dr.estimate_policy_value(**logged, pscore=propensity, **model),
        "dr_clipped": dr.estimate_policy_value(**logged, pscore=clipped["dr_clipped"], **model),
    }
