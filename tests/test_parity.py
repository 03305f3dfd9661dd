import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest

from benchmarks.parity.comparison import TOLERANCE, Comparison
from benchmarks.parity.peers import PEERS, comparisons, missing


def comparisons_with(peer: str) -> list:
    if reason := missing(peer):
        return [pytest.param(None, id=peer, marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(comparison, id=f"{comparison.part}-{peer}") for comparison in comparisons(peer)]


@pytest.mark.parametrize("comparison", [case for peer in PEERS for case in comparisons_with(peer)])
def test_with_the_same_weights_ours_equals_the_public_implementation(comparison: Comparison):
    ours, theirs = comparison.outputs()
    assert np.std(ours) > 0.05  # something to compare
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)
