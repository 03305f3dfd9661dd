"""Online features: a store of users, items, histories and counters, its ingest of events, and requests built from it.

Needs neither TensorFlow nor Beam.
"""

from serving.features.backend import Backend, Transaction
from serving.features.builder import RequestBuilder
from serving.features.store import FeatureStore, open_store

__all__ = ["Backend", "FeatureStore", "RequestBuilder", "Transaction", "open_store"]
