"""Draft of `schema.yaml` from a sample of logs (`usr-tf schema --infer`)."""

from pipelines.schema_draft.draft import draft_schema

__all__ = ["draft_schema"]
