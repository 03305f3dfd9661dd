"""gRPC server reflection: descriptors of the services in a pool of their own.

The service descriptors of `tensorflow-serving-api` were generated long ago, and no protobuf of today imports them.
"""

from collections.abc import Iterable, Mapping

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

_PACKAGE = "tensorflow.serving"


def describe(
    services: Mapping[str, Mapping[str, tuple[type[Message], type[Message]]]], others: Iterable[FileDescriptor] = ()
) -> DescriptorPool:
    """Descriptor pool of TF Serving's services and their dependencies.

    Args:
      services: service → method → the messages that it takes and gives.
      others: files of further services.
    """
    pool = DescriptorPool()
    described = FileDescriptorProto(name="serving.proto", package=_PACKAGE, syntax="proto3")
    files = {}
    for name, methods in services.items():
        service = described.service.add(name=name)
        for method, messages in methods.items():
            request, response = (message.DESCRIPTOR for message in messages)
            service.method.add(name=method, input_type=f".{request.full_name}", output_type=f".{response.full_name}")
            files |= {message.file.name: message.file for message in (request, response)}
    described.dependency.extend(files)
    for file in (*files.values(), *others):
        _add(pool, file)
    pool.AddSerializedFile(described.SerializeToString())
    return pool


def _add(pool: DescriptorPool, file: FileDescriptor) -> None:
    for needed in file.dependencies:
        _add(pool, needed)
    pool.AddSerializedFile(file.serialized_pb)
