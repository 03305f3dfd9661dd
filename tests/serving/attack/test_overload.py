"""Overload: excess requests are refused and accepted ones are correct."""

import collections

import grpc
import numpy as np

from serving.local_server import serve_in_background
from tests.serving.local_server.test_server import TIMEOUT, Caller, predict_request

ITEMS = 5_000


def test_what_is_accepted_under_overload_is_right_and_the_rest_is_refused(export, search_inputs):
    export(1)
    prices = np.linspace(-4, 4, ITEMS, dtype=np.float32)
    inputs = {
        **search_inputs,
        "item_id": np.full(ITEMS, b"b", object),
        "price": prices,
        "attributes": np.full((ITEMS, 1), b"", object),
    }
    request = predict_request(inputs, output_filter=["ctr"])
    expected = 1 / (1 + np.exp(-(1 + 1 + 2 + prices)))
    codes = collections.Counter()
    with serve_in_background(export.base, workers=2, max_queue=2) as server, Caller(server.address) as caller:
        while len(codes) < 2 and codes.total() < 1_000:
            futures = [caller.stub.Predict.future(request, timeout=TIMEOUT) for _ in range(16)]
            for future in futures:
                codes[future.code()] += 1
                if future.code() == grpc.StatusCode.OK:
                    np.testing.assert_allclose(future.result().outputs["ctr"].float_val, expected, rtol=1e-5)
        assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert caller.stub.Predict(request, timeout=TIMEOUT)  # there is room again
