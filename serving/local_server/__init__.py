"""Local TF Serving double: gRPC and REST, for laptops, Colab and tests.

It answers as the `tensorflow/serving` container does, with its status codes and messages: `Predict`,
`GetModelMetadata` and `GetModelStatus`; every other method is UNIMPLEMENTED. Like the container it knows a
model as a SavedModel alone and runs it in a session. For production use the container (`serving/docker`).

| module | what |
| --- | --- |
| `model_server` | the ports, and the life of the server |
| `service` | what the methods answer |
| `models`, `model_config` | which versions of which models are live |
| `servable` | one version |
| `admission` | how many requests run and wait |
| `metrics`, `access_log`, `call` | metrics and log of a request |
| `reflection`, `rest` | the schema, the REST API |
"""

from serving.local_server.model_server import ModelServer, serve, serve_in_background

__all__ = ["ModelServer", "serve", "serve_in_background"]
