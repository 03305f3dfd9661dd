"""Messages of TF Serving's gRPC API, without TensorFlow: the fields that a client needs, on the same wire.

`tensorflow-serving-api` imports TensorFlow, two gigabytes for a client's few messages. These have the names and field
numbers of its files, so that either reads what the other wrote; fields left out here are kept as unknown ones. They
live in a descriptor pool of their own: both sets can be used in one process.

Sources: `tensorflow_serving/apis/{model,predict,get_model_metadata}.proto`, and TensorFlow's
`core/framework/{types,tensor_shape,tensor}.proto` and `core/protobuf/{meta_graph,saved_model}.proto`.
"""

from typing import Any

from google.protobuf import any_pb2, wrappers_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_DATA_TYPES = {
    "DT_INVALID": 0,
    "DT_FLOAT": 1,
    "DT_DOUBLE": 2,
    "DT_INT32": 3,
    "DT_UINT8": 4,
    "DT_INT16": 5,
    "DT_INT8": 6,
    "DT_STRING": 7,
    "DT_COMPLEX64": 8,
    "DT_INT64": 9,
    "DT_BOOL": 10,
    "DT_QINT8": 11,
    "DT_QUINT8": 12,
    "DT_QINT32": 13,
    "DT_BFLOAT16": 14,
    "DT_QINT16": 15,
    "DT_QUINT16": 16,
    "DT_UINT16": 17,
    "DT_COMPLEX128": 18,
    "DT_HALF": 19,
    "DT_RESOURCE": 20,
    "DT_VARIANT": 21,
    "DT_UINT32": 22,
    "DT_UINT64": 23,
}

_Messages = dict[str, dict[str, tuple[int, str]]]
"""Message → field → number, and type with its label. The keys of a `map` are strings."""

_TENSORFLOW: _Messages = {
    "TensorShapeProto": {"dim": (2, "repeated TensorShapeProto.Dim"), "unknown_rank": (3, "bool")},
    "TensorShapeProto.Dim": {"size": (1, "int64"), "name": (2, "string")},
    "TensorProto": {
        "dtype": (1, "DataType"),
        "tensor_shape": (2, "TensorShapeProto"),
        "version_number": (3, "int32"),
        "tensor_content": (4, "bytes"),
        "half_val": (13, "repeated int32"),
        "float_val": (5, "repeated float"),
        "double_val": (6, "repeated double"),
        "int_val": (7, "repeated int32"),
        "string_val": (8, "repeated bytes"),
        "int64_val": (10, "repeated int64"),
        "bool_val": (11, "repeated bool"),
        "uint32_val": (16, "repeated uint32"),
        "uint64_val": (17, "repeated uint64"),
    },
    "TensorInfo": {
        "name": (1, "string, one of encoding"),
        "dtype": (2, "DataType"),
        "tensor_shape": (3, "TensorShapeProto"),
    },
    "SignatureDef": {
        "inputs": (1, "map TensorInfo"),
        "outputs": (2, "map TensorInfo"),
        "method_name": (3, "string"),
        "defaults": (4, "map TensorProto"),
    },
    "MetaGraphDef": {"signature_def": (5, "map SignatureDef")},
    "SavedModel": {"saved_model_schema_version": (1, "int64"), "meta_graphs": (2, "repeated MetaGraphDef")},
}
_SERVING: _Messages = {
    "ModelSpec": {
        "name": (1, "string"),
        "version": (2, ".google.protobuf.Int64Value, one of version_choice"),
        "version_label": (4, "string, one of version_choice"),
        "signature_name": (3, "string"),
    },
    "PredictRequest": {
        "model_spec": (1, "ModelSpec"),
        "inputs": (2, "map .tensorflow.TensorProto"),
        "output_filter": (3, "repeated string"),
    },
    "PredictResponse": {"model_spec": (2, "ModelSpec"), "outputs": (1, "map .tensorflow.TensorProto")},
    "SignatureDefMap": {"signature_def": (1, "map .tensorflow.SignatureDef")},
    "GetModelMetadataRequest": {"model_spec": (1, "ModelSpec"), "metadata_field": (2, "repeated string")},
    "GetModelMetadataResponse": {"model_spec": (1, "ModelSpec"), "metadata": (2, "map .google.protobuf.Any")},
}


def _file(
    package: str, messages: dict[str, dict[str, tuple[int, str]]], dependencies: list[str]
) -> FileDescriptorProto:
    file = FileDescriptorProto(name=f"usr_tf/{package}.proto", package=package, syntax="proto3")
    file.dependency.extend(dependencies)
    added: dict[str, DescriptorProto] = {}
    for name, fields in messages.items():
        outer, _, inner = name.rpartition(".")
        added[name] = added[outer].nested_type.add(name=inner) if outer else file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _add_field(added[name], f".{package}.", name, field, number, kind)
    return file


def _add_field(message: DescriptorProto, package: str, name: str, field: str, number: int, kind: str) -> None:
    kind, _, oneof = kind.partition(", one of ")
    added = message.field.add(name=field, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
    if oneof:
        if oneof not in [known.name for known in message.oneof_decl]:
            message.oneof_decl.add(name=oneof)
        added.oneof_index = [known.name for known in message.oneof_decl].index(oneof)
    label, _, rest = kind.rpartition(" ")
    if label:
        added.label = FieldDescriptorProto.LABEL_REPEATED
    if label == "map":
        entry = message.nested_type.add(name=f"{field.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        _add_field(entry, package, name, "key", 1, "string")
        _add_field(entry, package, name, "value", 2, rest)
        _set_type(added, f"{package}{name}.{entry.name}")
    elif rest.islower():
        added.type = FieldDescriptorProto.Type.Value(f"TYPE_{rest.upper()}")
    else:
        _set_type(added, rest if rest.startswith(".") else package + rest)


def _set_type(field: FieldDescriptorProto, name: str) -> None:
    field.type_name = name
    is_enum = name.endswith(".DataType")
    field.type = FieldDescriptorProto.TYPE_ENUM if is_enum else FieldDescriptorProto.TYPE_MESSAGE


def _pool() -> DescriptorPool:
    tensorflow = _file("tensorflow", _TENSORFLOW, [])
    data_type = tensorflow.enum_type.add(name="DataType")
    for name, number in _DATA_TYPES.items():
        data_type.value.add(name=name, number=number)
    known = [any_pb2.DESCRIPTOR, wrappers_pb2.DESCRIPTOR]
    serving = _file("tensorflow.serving", _SERVING, [tensorflow.name, *(file.name for file in known)])
    pool = DescriptorPool()
    for file in (*(file.serialized_pb for file in known), tensorflow.SerializeToString(), serving.SerializeToString()):
        pool.AddSerializedFile(file)
    return pool


_POOL = _pool()


def _message(name: str) -> Any:
    return GetMessageClass(_POOL.FindMessageTypeByName(name))


DataType = _POOL.FindEnumTypeByName("tensorflow.DataType")
TensorProto = _message("tensorflow.TensorProto")
SignatureDef = _message("tensorflow.SignatureDef")
SavedModel = _message("tensorflow.SavedModel")
ModelSpec = _message("tensorflow.serving.ModelSpec")
PredictRequest = _message("tensorflow.serving.PredictRequest")
PredictResponse = _message("tensorflow.serving.PredictResponse")
SignatureDefMap = _message("tensorflow.serving.SignatureDefMap")
GetModelMetadataRequest = _message("tensorflow.serving.GetModelMetadataRequest")
GetModelMetadataResponse = _message("tensorflow.serving.GetModelMetadataResponse")
