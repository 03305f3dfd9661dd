"""TF Serving's methods on loaded models, independent of the network."""

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2

from serving.local_server.call import Call
from serving.local_server.models import Models
from serving.local_server.servable import Servable
from serving.local_server.served_record import is_scenario, served_record
from serving.local_server.status import invalid, not_found
from serving.request_log import RequestLog


class Service:
    """`Predict`, `GetModelMetadata` and `GetModelStatus`, thread-safe.

    Each notes in `call` what it learns, and raises `tf.errors.OpError` with TF Serving's code and message.
    """

    def __init__(self, models: Models):
        self._models = models
        self.request_log: RequestLog | None = None
        """Log of the scenarios' requests and scores."""

    def predict(self, request: predict_pb2.PredictRequest, call: Call) -> predict_pb2.PredictResponse:
        servable = self._find(request, call)
        response = servable.predict(request)
        response.model_spec.name = request.model_spec.name
        call.signature = response.model_spec.signature_name
        sizes = [output.tensor_shape.dim for output in response.outputs.values()]
        call.candidates = max((dims[0].size for dims in sizes if dims), default=None)
        if self.request_log is not None and is_scenario(call.signature) and self.request_log.wants():
            self.request_log.write(served_record(servable, request, response, call))
        return response

    def get_model_metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, call: Call
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        _check_model_spec(request, call)
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field} is not supported")
        servable = self._find(request, call)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = servable.version
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signatures)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def get_model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest, call: Call
    ) -> get_model_status_pb2.GetModelStatusResponse:
        spec = _check_model_spec(request, call)
        statuses = self._models.statuses(spec.name)
        if spec.HasField("version"):
            version = spec.version.value
            if version not in statuses:
                raise not_found(f"Could not find version {version} of model {spec.name}")
            statuses = {version: statuses[version]}
        elif not statuses:
            raise not_found(f"Could not find any versions of model {spec.name}")
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=statuses.values())

    def _find(
        self, request: predict_pb2.PredictRequest | get_model_metadata_pb2.GetModelMetadataRequest, call: Call
    ) -> Servable:
        servable = self._models.find(_check_model_spec(request, call))
        call.version = servable.version
        return servable


def _check_model_spec(
    request: predict_pb2.PredictRequest
    | get_model_metadata_pb2.GetModelMetadataRequest
    | get_model_status_pb2.GetModelStatusRequest,
    call: Call,
) -> model_pb2.ModelSpec:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    call.ask(request.model_spec.name, request.model_spec.signature_name)
    return request.model_spec
