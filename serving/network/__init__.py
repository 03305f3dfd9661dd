"""Network: addresses, proxies and TLS, for gRPC and REST."""
