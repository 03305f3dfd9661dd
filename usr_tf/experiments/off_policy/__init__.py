"""Off-policy evaluation: the value of a policy from real logs of another one with known propensities (docs/abtest.md).

`logged_policies` reads the logs, `target_policies` makes the probabilities of the policies to be evaluated,
`reward_model` the click model, `estimators` the estimates with their intervals, `evaluation` all of it for each pair of
policies, `off_policy_text` and `off_policy_page` show it.
"""

from usr_tf.experiments.off_policy.evaluation import evaluate_policies
from usr_tf.experiments.off_policy.off_policy_text import format_table

__all__ = ["evaluate_policies", "format_table"]
