"""Prometheus metrics of the local server: TF Serving's names for the same quantities, its own as `usr_serving_*`."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, UnknownMetricFamily
from prometheus_client.registry import Collector

from serving.local_server.access_log import AccessLog
from serving.local_server.admission import Admission
from serving.local_server.call import Call
from serving.request_log import RequestLog

_REQUEST_COUNT = ":tensorflow:serving:request_count"
_REQUEST_LATENCY = ":tensorflow:serving:request_latency"
_BUCKETS = [10 * 1.8**i for i in range(33)]
"""Microseconds, to 20 minutes: TF Serving's."""
_MICROSECONDS = 1e6


class Metrics:
    """Metrics of one server, in their own registry.

    Args:
      admission: what runs and waits.
      live: gives the models and their live versions.
      logs: the logs that are kept, by name, each with how many records it has lost (`dropped`).
    """

    def __init__(
        self,
        admission: Admission,
        live: Callable[[], Mapping[str, Sequence[int]]],
        logs: Mapping[str, AccessLog | RequestLog],
    ):
        self._live = live
        self._registry = CollectorRegistry()
        self._requests = _RequestCount()
        self._registry.register(self._requests)
        self._registry.register(_LiveVersions(live))
        self._registry.register(_DroppedRecords(logs))
        self._latency = Histogram(
            _REQUEST_LATENCY,
            "Microseconds from a request's arrival to its answer, of those that were answered OK.",
            ["model_name", "API", "entrypoint"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        for name, text, value in (
            ("usr_serving_requests_running", "Requests that a worker has.", lambda: admission.running),
            ("usr_serving_requests_queued", "Requests that wait for a worker.", lambda: admission.queued),
        ):
            Gauge(name, text, registry=self._registry).set_function(value)
        ProcessCollector(registry=self._registry)

    def observe(self, call: Call) -> None:
        """Counts a finished Predict call. An unknown model has the name ""."""
        model = call.model if call.model in self._live() else ""  # so that a stranger cannot make a million series
        self._requests.counts[model, call.status] += 1
        if call.status == "OK":
            self._latency.labels(model, call.method, call.entrypoint).observe(
                (call.ended - call.arrived) * _MICROSECONDS
            )

    def text(self) -> bytes:
        """Metrics in Prometheus's text format."""
        return generate_latest(self._registry)


class _RequestCount(Collector):
    """Counter with the container's exact name, without the suffix `_total` of the library."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def collect(self) -> Iterator[Metric]:
        family = UnknownMetricFamily(
            _REQUEST_COUNT, "How many Predict requests have ended, by status.", labels=["model_name", "status"]
        )
        for labels, count in sorted(self.counts.copy().items()):
            family.add_metric(labels, count)
        yield family


class _LiveVersions(Collector):
    def __init__(self, live: Callable[[], Mapping[str, Sequence[int]]]):
        self._live = live

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "usr_serving_live_version", "1 for every version that is live.", labels=["model_name", "version"]
        )
        for name, versions in self._live().items():
            for version in versions:
                family.add_metric([name, str(version)], 1)
        yield family


class _DroppedRecords(Collector):
    def __init__(self, logs: Mapping[str, AccessLog | RequestLog]):
        self._logs = logs

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily("usr_serving_dropped_records", "Records that a log has lost.", labels=["log"])
        for name, log in self._logs.items():
            family.add_metric([name], log.dropped)
        yield family
