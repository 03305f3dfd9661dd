"""Formats shared by clients, servers and files: tensors, REST JSON, request documents, signatures, statuses."""
