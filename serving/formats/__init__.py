"""What clients, servers and files share: tensors, JSON, request documents, signatures and refusals."""
