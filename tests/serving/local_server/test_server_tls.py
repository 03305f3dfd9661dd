"""TLS and mutual TLS: accepted and refused clients, and messages for invalid files."""

import shutil
import ssl
import urllib.request

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from serving.local_server import serve_in_background
from serving.network.tls import ServerTls
from tests.serving.certificates import Authority, private_pem
from usr_tf.errors import InputError

TIMEOUT = 20


def ask_status(address, credentials):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "usr"
    with grpc.secure_channel(address, credentials) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        return stub.GetModelStatus(request, timeout=TIMEOUT).model_version_status[0].version


def trust(authority, client=None):
    cert, key = (path.read_bytes() for path in authority.files(client)) if client else (None, None)
    return grpc.ssl_channel_credentials(authority.ca.read_bytes(), key, cert)


def test_a_client_that_trusts_the_authority_gets_in(authority, export):
    export(1)
    with serve_in_background(export.base, tls=ServerTls(*authority.files("server")), rest_port=0) as server:
        assert ask_status(server.address, trust(authority)) == 1
        with pytest.raises(grpc.RpcError) as caught:  # the system's authorities do not know ours
            ask_status(server.address, grpc.ssl_channel_credentials())
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE

        context = ssl.create_default_context(cafile=authority.ca)
        url = f"https://{server.rest_address}/v1/models/usr"
        with urllib.request.urlopen(url, timeout=TIMEOUT, context=context) as answer:
            assert answer.status == 200


def test_with_mutual_tls_a_client_needs_a_certificate_of_the_authority(authority, export, tmp_path):
    export(1)
    stranger = Authority(tmp_path / "other", "other")
    stranger.issue("stranger")
    shutil.copy(authority.ca, stranger.folder)  # trusts ours, but is not one of ours
    tls = ServerTls(*authority.files("server"), authority.ca)
    with serve_in_background(export.base, tls=tls) as server:
        assert ask_status(server.address, trust(authority, "client")) == 1
        cert, key = (path.read_bytes() for path in stranger.files("stranger"))
        for credentials in (
            trust(authority),
            grpc.ssl_channel_credentials(authority.ca.read_bytes(), key, cert),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                ask_status(server.address, credentials)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_files_that_do_not_serve_are_named(authority, tmp_path):
    cert, key = authority.files("server")
    absent, nonsense, locked = tmp_path / "absent.pem", tmp_path / "nonsense.pem", tmp_path / "locked.key"
    nonsense.write_text("nonsense")
    locked.write_bytes(
        private_pem(ec.generate_private_key(ec.SECP256R1()), serialization.BestAvailableEncryption(b"x"))
    )
    for tls, complaint in (
        (ServerTls(absent, key), "absent.pem: found a file that does not load .No such file"),
        (ServerTls(cert, absent), "absent.pem: found no such file"),
        (ServerTls(cert, key, absent), "absent.pem: found a file that does not load .No such file"),
        (ServerTls(nonsense, key), "nonsense.pem: found a file that does not load"),
        (ServerTls(cert, nonsense), "server.pem: found a file that does not load .*nonsense.pem"),
        (ServerTls(cert, locked), "server.pem: found a file that does not load .*locked.key"),
        (ServerTls(cert, authority.files("client")[1]), "server.pem: .*KEY_VALUES_MISMATCH"),
        (ServerTls(cert, key, nonsense), "nonsense.pem: found a file that does not load"),
    ):
        with pytest.raises(InputError, match=complaint):
            tls.credentials()
