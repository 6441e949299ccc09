"""Routing, refusals and who may ask."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import stat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gcpod.errors import LocalCloudError
from gcpod.localcloud.api_error import ApiError, ErrorStyle
from gcpod.localcloud.discovery import load
from gcpod.localcloud.fields import select
from gcpod.localcloud.schema import check_body, check_query
from gcpod.localcloud.server import LocalCloud
from tests.localcloud.conftest import Raw


def test_unknown_path_is_404(raw: Raw) -> None:
    assert raw("GET", "/v1/nothing").json["error"]["code"] == 404


def test_known_but_absent_method_is_501(raw: Raw, bucket: Any) -> None:
    reply = raw("GET", f"/storage/v1/b/{bucket.name}/notificationConfigs")
    assert (reply.status, reply.json["error"]["errors"][0]["reason"]) == (501, "notImplemented")


def test_unknown_field_and_parameter(raw: Raw) -> None:
    body = raw("POST", "/storage/v1/b?project=p", b'{"name":"abc","colour":1}')
    assert (body.status, body.json["error"]["errors"][0]["domain"]) == (400, "global")
    assert raw("GET", "/storage/v1/b?project=p&colour=red").status == 400
    assert raw("GET", "/storage/v1/b?project=p&maxResults=many").status == 400
    assert raw("GET", "/storage/v1/b").json["error"]["errors"][0]["reason"] == "required"
    assert raw("POST", "/storage/v1/b?project=p", b"{nonsense").status == 400


def test_gzip_request_body(raw: Raw) -> None:
    body = gzip.compress(json.dumps({"name": "gzipped-bucket"}).encode())
    assert raw("POST", "/storage/v1/b?project=p", body, Content_Encoding="gzip").json["name"] == "gzipped-bucket"
    assert raw("POST", "/storage/v1/b?project=p", body[:-4], Content_Encoding="gzip").status == 400


@pytest.mark.parametrize("host", ["evil.example", "googleapis.com.evil.example", "xgoogleapis.com", "127.0.0.1.evil"])
def test_strange_hosts_are_refused(raw: Raw, host: str) -> None:
    assert raw("GET", "/storage/v1/b?project=p", Host=host).status == 403


def test_pages_of_other_sites_are_refused(raw: Raw) -> None:
    assert raw("GET", "/storage/v1/b?project=p", Origin="https://evil.example").status == 403
    assert raw("GET", "/storage/v1/b?project=p", Origin="null").status == 403
    assert raw("GET", "/storage/v1/b?project=p", Host="localhost:1").status == 200


def test_batch_on_the_wire(raw: Raw, bucket: Any) -> None:
    bucket.blob("a b").upload_from_string(b"x")
    inner = f"GET /storage/v1/b/{bucket.name}/o/a%20b?fields=name HTTP/1.1\r\nAccept: */*\r\n\r\n"
    body = f"--b\r\nContent-Type: application/http\r\nContent-ID: <7>\r\n\r\n{inner}\r\n--b--\r\n".encode()
    for path in ("/batch", "/batch/storage/v1"):
        reply = raw("POST", path, body, Content_Type="multipart/mixed; boundary=b")
        assert reply.status == 200
        assert b"Content-ID: <response-7>" in reply.content
        assert b'{"name": "a b"}' in reply.content
    nested = b"--b\r\n\r\nGET /batch HTTP/1.1\r\n\r\n--b--"
    assert raw("POST", "/batch", nested, Content_Type="multipart/mixed; boundary=b").status == 400


def test_xml_reads(raw: Raw, bucket: Any) -> None:
    bucket.blob("d/a b").upload_from_string(b"0123456789")
    path = f"/{bucket.name}/d/a%20b"
    assert raw("GET", path).content == b"0123456789"
    part = raw("GET", path, Range="bytes=2-4")
    assert (part.status, part.content, part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    head = raw("HEAD", path)
    assert (head.status, head.headers["Content-Length"], head.content) == (200, "10", b"")
    assert raw("GET", path, Range="bytes=10-").status == 416
    assert b"<Code>NoSuchKey</Code>" in raw("GET", path + "x").content


def test_error_in_rpc_style() -> None:
    document = load("aiplatform.v1")
    schema = document.methods["aiplatform.projects.locations.customJobs.create"].request
    assert schema is not None
    with pytest.raises(ApiError) as caught:
        check_body(
            document, schema, {"displayName": 3, "job_spec": {"foo": 1, "workerPoolSpecs": [{"replicaCount": "x"}]}}
        )
    error = caught.value.render(ErrorStyle.RPC)["error"]
    fields = [one["field"] for one in error["details"][0]["fieldViolations"]]
    assert error["status"] == "INVALID_ARGUMENT"
    assert fields == [
        "custom_job.display_name",
        "custom_job.job_spec",
        "custom_job.job_spec.worker_pool_specs[0].replica_count",
    ]
    assert "Unknown name \"foo\" at 'custom_job.job_spec': Cannot find field." in error["message"]


def test_canonical_body() -> None:
    document = load("aiplatform.v1")
    body = {
        "display_name": "n",
        "jobSpec": {"workerPoolSpecs": [{"replica_count": 2, "machineSpec": {"acceleratorType": 6}}]},
        "labels": {"a_b": "c"},
    }
    numbers = {"GoogleCloudAiplatformV1MachineSpec.acceleratorType": {6: "TPU_V2"}}
    assert check_body(document, "GoogleCloudAiplatformV1CustomJob", body, numbers) == {
        "displayName": "n",
        "labels": {"a_b": "c"},
        "jobSpec": {"workerPoolSpecs": [{"replicaCount": "2", "machineSpec": {"acceleratorType": "TPU_V2"}}]},
    }


def test_query_names_of_rpc_services() -> None:
    document = load("aiplatform.v1")
    method = document.methods["aiplatform.projects.locations.customJobs.list"]
    given_query = [("page_size", "5"), ("$alt", "json;enum-encoding=int"), ("$.xgafv", "2")]
    assert check_query(document, method, given_query)[0] == ("pageSize", "5")
    with pytest.raises(ApiError, match="Cannot bind query parameter"):
        check_query(document, method, [("pageSizes", "5")])


def test_no_such_document() -> None:
    with pytest.raises(LocalCloudError):
        load("nothing.v9")


def test_field_selection() -> None:
    value = {"a": {"b": 1, "c": 2}, "d": [{"e": 1, "f": 2}], "g": 3}
    assert select(value, "a/b,d(e),g") == {"a": {"b": 1}, "d": [{"e": 1}], "g": 3}
    assert select(value, "*/c") == {"a": {"c": 2}, "d": [{}], "g": 3}
    for bad in ("a(", "a)", ",", "a//b", "(a)"):
        with pytest.raises(ApiError):
            select(value, bad)


def test_one_server_per_folder(tmp_path: Path) -> None:
    with LocalCloud(tmp_path) as cloud:
        with pytest.raises(LocalCloudError, match="holds it"):
            LocalCloud(tmp_path).start()
        with pytest.raises(LocalCloudError, match=f"127.0.0.1:{cloud.port}"):
            LocalCloud(tmp_path / "other", cloud.port).start()
    with pytest.raises(LocalCloudError, match="not running"):
        _ = cloud.url
    with LocalCloud(tmp_path):
        pass


def tunnel(cloud: LocalCloud, host: str) -> socket.socket:
    proxy = urlsplit(cloud.job_environment()["https_proxy"])
    line = socket.create_connection(("127.0.0.1", proxy.port or 0), timeout=30)
    line.sendall(f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return line


@pytest.mark.parametrize("host", ["example.com:443", "storage.googleapis.com:80", "googleapis.com.example.com:443"])
def test_proxy_refuses_other_hosts(cloud: LocalCloud, host: str) -> None:
    with tunnel(cloud, host) as line:
        assert line.recv(4096).startswith(b"HTTP/1.1 403")


def test_proxy_speaks_tls_as_google(cloud: LocalCloud, bucket: Any) -> None:
    context = ssl.create_default_context(cafile=cloud.job_environment()["CURL_CA_BUNDLE"])
    with tunnel(cloud, "www.googleapis.com:443") as line:
        assert line.recv(4096).startswith(b"HTTP/1.1 200")
        with context.wrap_socket(line, server_hostname="www.googleapis.com") as tls:
            # TensorFlow's libcurl sends both length headers; the server must see one.
            tls.sendall(
                f"POST /upload/storage/v1/b/{bucket.name}/o?uploadType=resumable&name=x HTTP/1.1\r\n"
                "Host: www.googleapis.com\r\nContent-Length: 0\r\nTransfer-Encoding: identity\r\n\r\n".encode()
            )
            reply = tls.recv(65536).decode()
            location = next(line for line in reply.split("\r\n") if line.startswith("Location: "))
            assert location.startswith("Location: https://www.googleapis.com/upload/")
            path = location.removeprefix("Location: https://www.googleapis.com")
            tls.sendall(
                f"PUT {path} HTTP/1.1\r\nHost: www.googleapis.com\r\nContent-Length: 5\r\n"
                "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n".encode()
            )
            assert tls.recv(65536).startswith(b"HTTP/1.1 100")
            tls.sendall(b"5\r\nhello\r\n0\r\n\r\n")
            assert tls.recv(65536).startswith(b"HTTP/1.1 200")
    assert bucket.blob("x").download_as_bytes() == b"hello"


def test_private_key_is_private(cloud: LocalCloud) -> None:
    key = cloud.root / "tls" / "server.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


PATHS = st.sampled_from(
    [
        "/storage/v1/b/{b}/o",
        "/upload/storage/v1/b/{b}/o",
        "/storage/v1/b/{b}/o/x",
        "/storage/v1/b/{b}",
        "/storage/v1/b",
        "/storage/v1/b/{b}/o/x/compose",
        "/storage/v1/b/{b}/o/x/rewriteTo/b/{b}/o/y",
        "/batch/storage/v1",
        "/{b}/x",
        "/{b}/%ff",
        "/resumable/upload/storage/v1/b/{b}/o",
        "/storage/v1/b/{b}/o/%FF%FE",
        "/storage/v1/b/{b}/iam",
        "//",
        "/%00/%2f",
    ]
)
QUERIES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "uploadType",
                "upload_id",
                "name",
                "prefix",
                "delimiter",
                "pageToken",
                "matchGlob",
                "maxResults",
                "alt",
                "generation",
                "ifGenerationMatch",
                "fields",
                "project",
                "uploads",
                "partNumber",
                "uploadId",
            ]
        ),
        st.sampled_from(
            [
                "media",
                "multipart",
                "resumable",
                "x",
                "",
                "0",
                "-1",
                "9" * 30,
                "[",
                "{a",
                "%00",
                "%FF",
                "WyJhIl0=",
                "a(b",
            ]
        ),
    ),
    max_size=4,
)
BODIES = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(
        [
            b"{}",
            b"[]",
            b"null",
            b'{"name":5}',
            b'{"sourceObjects":[{"name":"x"}]}',
            b"--b\r\n\r\n{}\r\n--b\r\n\r\nx\r\n--b--",
            b"--b\n\n\n--b--",
            b"[" * 2000,
            b'{"destination":null,"sourceObjects":[null]}',
            b'{"metadata":{"a":null}}',
            b'{"contentType":"a\\r\\nb\\u1234","contentEncoding":"gzip"}',
        ]
    ),
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "Content-Range",
            "Range",
            "Content-Type",
            "Content-Encoding",
            "X-Goog-Hash",
            "If-Match",
            "X-Upload-Content-Length",
            "Accept-Encoding",
        ]
    ),
    st.sampled_from(
        [
            "bytes 0-4/5",
            "bytes */*",
            "bytes=0-",
            "bytes=-0",
            "bytes=5-1",
            "multipart/related; boundary=b",
            "multipart/mixed; boundary=b",
            "gzip",
            "crc32c=x",
            "\xff",
            "-5",
        ]
    ),
    max_size=3,
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]), PATHS, QUERIES, BODIES, HEADERS)
def test_no_request_breaks_it(
    raw: Raw,
    bucket: Any,
    verb: str,
    path: str,
    query: list[tuple[str, str]],
    body: bytes,
    headers: dict[str, str],
) -> None:
    text = "&".join(f"{name}={value}" for name, value in query)
    reply = raw(verb, f"{path.replace('{b}', bucket.name)}?{text}", body, **headers)
    assert reply.status != 500
    assert b"Traceback" not in reply.content
