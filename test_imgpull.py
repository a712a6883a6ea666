#!/usr/bin/env python3
"""Tests of imgpull: units, and pulls end to end from fake registries on loopback. Standard library only, no installs.

    python3 test_imgpull.py                     everything: no network but loopback, no files but temporary ones
    python3 test_imgpull.py TestFaults          one class; also TestFaults.test_faults
    IMGPULL_FUZZ=100000 python3 test_imgpull.py TestFuzz
    python3 test_imgpull.py demo                a pull from a fake registry, to look at

Top to bottom: certificates, images, the registry that behaves, the one that misbehaves, what all tests share, tests.
Most tests are a table and one loop over it: adding a case is adding a line.
"""
import base64
import contextlib
import email.utils
import errno
import gzip
import hashlib
import http.client
import http.server
import io
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import unittest
import urllib.parse
from collections import namedtuple
from unittest import mock

import imgpull

HERE = os.path.dirname(os.path.abspath(__file__))
POSIX = os.name == "posix"
CPYTHON_ON_LINUX = sys.platform == "linux" and sys.implementation.name == "cpython"

# --- certificates ----------------------------------------------------------------------------------------------------
# Made for these tests alone, valid from 2020 to 2120: a CA; what it signed for localhost, two .test hosts and Docker
# Hub's (server.key); the same, long expired; a client; its key encrypted with "sesame".

PEM = {
    "ca.pem": """MIIBNjCB3qADAgECAgEBMAoGCCqGSM49BAMCMBoxGDAWBgNVBAMMD2ltZ3B1bGwgdGVzdCBDQTAgFw0yMDAxMDEwMDAwMDBaGA8yMTI
    wMDEwMTAwMDAwMFowGjEYMBYGA1UEAwwPaW1ncHVsbCB0ZXN0IENBMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAELHfhBBLDJBU2cs/B0g1E57LYpQY
    SOQ6Se3sIgoSiJU6jUWqDp+qC3RGZWtC/EKNBMiDWDLvaYUtTeckTN+7AcqMTMBEwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiAD9G8
    ZbgiH17JulOqV+ym6xZSjVjEbTbAaDsGULLFvTwIgGAvvgkqaRLTcSJqucq8jjY0HPDNGd1/f8Pqfkje5G08=""",
    "server.pem": """MIIBijCCATGgAwIBAgIBAjAKBggqhkjOPQQDAjAaMRgwFgYDVQQDDA9pbWdwdWxsIHRlc3QgQ0EwIBcNMjAwMTAxMDAwMDAwWhg
    PMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMMCWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABM+5zI0habncltIESyCT7vJ//su/KCS
    in0MuoQfXyAEu58PRqms+x9f+g6hKyevQWraNEyjpRDJyKGpNMiNqAHajbDBqMGgGA1UdEQRhMF+CCWxvY2FsaG9zdIIIcmVnLnRlc3SCCnN0b3JlLnR
    lc3SCFHJlZ2lzdHJ5LTEuZG9ja2VyLmlvgg5hdXRoLmRvY2tlci5pb4cEfwAAAYcQAAAAAAAAAAAAAAAAAAAAATAKBggqhkjOPQQDAgNHADBEAiBWGm9
    NDcIUxSs6T85F3LS0Ahld6XIR7zKCwSbPrChZfQIgH+xdxOdhlG8uLGjh35GCZucRSTCmF1Tufi/QdyLgToo=""",
    "server.key": "MEECAQAwEwYHKoZIzj0CAQYIKoZIzj0DAQcEJzAlAgEBBCDbyMT0opOzfKd/9jyWr1jboXhPHS2e9qcjZFqD2z8xgA==",
    "expired.pem": """MIIBOjCB4aADAgECAgEDMAoGCCqGSM49BAMCMBoxGDAWBgNVBAMMD2ltZ3B1bGwgdGVzdCBDQTAeFw0yMDAxMDEwMDAwMDBaFw
    0yMDAxMDIwMDAwMDBaMBQxEjAQBgNVBAMMCWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABM+5zI0habncltIESyCT7vJ//su/KCSin0
    MuoQfXyAEu58PRqms+x9f+g6hKyevQWraNEyjpRDJyKGpNMiNqAHajHjAcMBoGA1UdEQQTMBGCCWxvY2FsaG9zdIcEfwAAATAKBggqhkjOPQQDAgNIAD
    BFAiBLNa7hFVQsTCeXy+yiL/dEA2uHoaGFn7Xd2Fh8se061wIhAM4ygbQfbrVApKrR4zJPLBP9Ph/33IIv5RfNckYSVQXl""",
    "client.pem": """MIIBNTCB26ADAgECAgEEMAoGCCqGSM49BAMCMBoxGDAWBgNVBAMMD2ltZ3B1bGwgdGVzdCBDQTAgFw0yMDAxMDEwMDAwMDBaGA8
    yMTIwMDEwMTAwMDAwMFowEzERMA8GA1UEAwwIYSBjbGllbnQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARPJk2jyLhphYrbZyx2H0aVSSJ97BIAhwh
    YrVtEmndkrgMQqSncXtG5Vh31xNWrW+8Uv968TgORdyaRJppaFET5oxcwFTATBgNVHSUEDDAKBggrBgEFBQcDAjAKBggqhkjOPQQDAgNJADBGAiEAkSF
    r/3GZxBm7ZGeudIGEyXxVpzzUVemMRTuGqiCD2ZECIQDkpbtigJYIT3SSBk7U1WtVn6Br8zJ7XgTBbrqQxzznWA==""",
    "client.key": "MEECAQAwEwYHKoZIzj0CAQYIKoZIzj0DAQcEJzAlAgEBBCCiJICr+GrHHlssQE+kybek44+n5o4cstjJYnyMajaFXw==",
    "locked.key": """MIGMMEAGCSqGSIb3DQEFDTAzMBsGCSqGSIb3DQEFDDAOBAioZKqSUXKBpAICCAAwFAYIKoZIhvcNAwcECAk/jkX3Cv8SBEjpSoL
    mlMHs6esrE8i3FefJ2ZPayd/xG5hBDT/xPXVTYJrD0aYmW8LQ//8A/U5ryew8AuAEYkutGwTfpgPH0/Pey4QAWzwUraI=""",
}

# --- images ----------------------------------------------------------------------------------------------------------

Style = namedtuple("Style", "index manifest config layer")
OCI = Style(*["application/vnd.oci.image." + kind for kind in
              ("index.v1+json", "manifest.v1+json", "config.v1+json", "layer.v1.tar+gzip")])
DOCKER = Style(*["application/vnd.docker." + kind for kind in
                 ("distribution.manifest.list.v2+json", "distribution.manifest.v2+json", "container.image.v1+json",
                  "image.rootfs.diff.tar.gzip")])

# manifest: bytes; blobs: {digest: bytes}, with those of an index's children; layers: digests; tars: layers unpacked
Image = namedtuple("Image", "manifest media_type digest blobs layers tars config children")


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def blob_path(digest):
    return "blobs/" + digest.replace(":", "/")


def to_json(value):
    return json.dumps(value, indent=1).encode()


def noise(seed, size):
    """Bytes that do not compress, the same ones each time."""
    return random.Random(seed).getrandbits(8 * size).to_bytes(size, "big") if size else b""


def tar_of(members):
    """A tar of {name: bytes}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def gzipped(data):
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as file:
        file.write(data)
    return out.getvalue()


def descriptor(data, media_type, **more):
    return dict({"mediaType": media_type, "digest": sha256(data), "size": len(data)}, **more)


def make_image(*files, **options):
    """An image with a layer for each of `files` (bytes). Options: style, architecture, os, variant, and `change`: a
    function that may spoil the manifest (a dict) before it is written."""
    style = options.get("style", OCI)
    tars = [tar_of({"file": data}) for data in files]
    layers = [gzipped(tar) for tar in tars]
    config = {"architecture": options.get("architecture", "amd64"), "os": options.get("os", "linux"),
              "config": {"Cmd": ["/file"]}, "rootfs": {"type": "layers", "diff_ids": [sha256(tar) for tar in tars]}}
    if options.get("variant"):
        config["variant"] = options["variant"]
    config = to_json(config)
    manifest = {"schemaVersion": 2, "mediaType": style.manifest, "config": descriptor(config, style.config),
                "layers": [descriptor(layer, style.layer) for layer in layers]}
    options.get("change", lambda manifest: None)(manifest)
    manifest = to_json(manifest)
    blobs = {sha256(blob): blob for blob in [config] + layers}
    return Image(manifest, style.manifest, sha256(manifest), blobs, [*map(sha256, layers)], tars, config, ())


def make_index(*children, **options):
    """An index of (image, "os/architecture[/variant]" or None) pairs, None for an entry without platform."""
    style = options.get("style", OCI)
    entries, blobs = [], {}
    for image, platform in children:
        entry = descriptor(image.manifest, image.media_type)
        if platform:
            entry["platform"] = dict(zip(("os", "architecture", "variant"), platform.split("/")))
        if platform == "unknown/unknown":
            entry["annotations"] = {"vnd.docker.reference.type": "attestation-manifest"}
        entries.append(entry)
        blobs.update(image.blobs)
    index = {"schemaVersion": 2, "mediaType": style.index, "manifests": entries}
    options.get("change", lambda index: None)(index)
    index = to_json(index)
    return Image(index, style.index, sha256(index), blobs, (), (), b"", tuple(image for image, _ in children))


def make_artifact():
    """What is in a registry and is no image: a Helm chart."""
    helm = "application/vnd.cncf.helm."
    return make_image(b"name: chart\n", change=lambda manifest: [part.update(mediaType=helm + kind) for part, kind in (
        (manifest["config"], "config.v1+json"), (manifest["layers"][0], "chart.content.v1.tar+gzip"))])


# An archive that was there before: imgpull wrote it, so it may be replaced, and nothing in it is of use.
NOTHING = make_image()
NONE = imgpull.parse_manifest(NOTHING.manifest, NOTHING.digest, "old")
OLD = imgpull.plan_archive([imgpull.assemble_image("docker.io/library/old:1", NONE.descriptor, dict(
    NOTHING.blobs, **{NOTHING.digest: NOTHING.manifest}), lambda descriptor: NONE)]).literals[0][1]
BIG = noise("big", 200000)                                  # a layer that arrives in several pieces
IMAGE = make_image(BIG, b"a small layer")
ARM = make_image(BIG, b"for arm64", architecture="arm64")   # shares its first layer with IMAGE
ARMV6 = make_image(b"for arm v6", architecture="arm", variant="v6")
ATTESTATION = make_image(b"provenance", architecture="unknown", os="unknown", change=lambda manifest: [
    layer.update(mediaType="application/vnd.in-toto+json") for layer in manifest["layers"]])
INDEX = make_index((ATTESTATION, "unknown/unknown"), (ARM, "linux/arm64/v8"), (IMAGE, "linux/amd64"),
                   (ARMV6, "linux/arm/v6"))


# --- the registry that behaves ---------------------------------------------------------------------------------------

BEARER = 'Bearer realm="{url}/token",service="fake",scope="repository:app:pull"'


def basic(user, password):
    return "Basic " + base64.b64encode(("%s:%s" % (user, password)).encode()).decode()


class Answer:
    """An answer. Headers: Content_Type="…"; a list for one that is repeated, None for one that is left out."""

    def __init__(self, status=200, body=b"", **headers):
        self.status, self.body, self.version = status, body, "HTTP/1.1"
        self.headers = {"Content-Length": str(len(body))}
        self.change(**headers)

    def change(self, **headers):
        for name, value in headers.items():
            self.headers[name.replace("_", "-")] = value

    def head(self):
        lines = ["%s %d %s" % (self.version, self.status, http.client.responses.get(self.status, "Odd"))]
        for name, values in self.headers.items():
            for value in values if isinstance(values, list) else [values]:
                lines += ["%s: %s" % (name, value)] if value is not None else []
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Request:
    """What came in, and what went out for it."""

    def __init__(self, wire):
        url = urllib.parse.urlsplit(wire.path)
        self.method, self.target, self.path = wire.command, wire.path, urllib.parse.unquote(url.path)
        self.query = urllib.parse.parse_qs(url.query)
        self.headers = wire.headers
        self.authorization = wire.headers.get("Authorization")
        self.range = wire.headers.get("Range")
        self.first = int(re.match("(?:bytes=)?([0-9]*)", self.range or "0").group(1) or 0)
        self.body = wire.rfile.read(int(wire.headers.get("Content-Length") or 0))
        self.form = urllib.parse.parse_qs(self.body.decode("latin-1"))
        self.kind, self.status, self.sent = "other", None, 0

    def __repr__(self):
        return "%s %s %s -> %s, %d bytes" % (self.method, self.target, self.range or "", self.status, self.sent)


class Wire(http.server.BaseHTTPRequestHandler):
    """One connection. Whatever is sent goes through here and is counted."""
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def serve(self):
        self.request_now = request = Request(self)
        self.server.requests.append(request)
        self.server.deliver(self, request, self.server.answer(request))

    do_GET = do_HEAD = do_POST = serve

    def send(self, answer):
        self.send_head(answer)
        self.send_body(answer.body)

    def well(self, request, answer):
        """No fault: for the requests before one that has."""
        self.send(answer)

    def send_head(self, answer):
        self.request_now.status = answer.status
        self.wfile.write(answer.head())

    def send_body(self, body):
        for start in range(0, len(body) if self.command != "HEAD" else 0, 65536):
            piece = body[start:start + 65536]
            self.request_now.sent += len(piece)         # before the client can have it, and the test look
            self.wfile.write(piece)

    def drop(self, reset=False):
        """End the connection now, without a word; with `reset` as a crashed peer would."""
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        else:
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_):
        pass


class LoopbackServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A server on a free port, running until close(). `tls` is the directory of Case.pems()."""
    daemon_threads, allow_reuse_address, request_queue_size = True, True, 64
    handler = Wire

    def __init__(self, tls=None, certificate="server.pem", client_ca=None, start=True):
        super().__init__(("127.0.0.1", 0), self.handler, bind_and_activate=False)
        self.server_bind()
        self.requests, self.open, self.closing = [], set(), threading.Event()
        self.scheme, self.port = "https" if tls else "http", self.server_address[1]
        self.host = "127.0.0.1:%d" % self.port
        self.url = "%s://%s" % (self.scheme, self.host)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(os.path.join(tls, certificate), os.path.join(tls, "server.key"))
            if client_ca:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(client_ca)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        if start:
            self.start()

    def start(self):
        """Until then, connections are refused."""
        self.server_activate()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while not self.closing.is_set():
            self.handle_request()
        self.server_close()

    def process_request(self, request, client_address):
        self.open.add(request)
        super().process_request(request, client_address)

    def finish_request(self, request, client_address):
        if self.scheme == "https":
            try:
                request.do_handshake()
            except AttributeError:  # the test is over, and the server closed already
                return
            except ssl.SSLError:    # closing with unread bytes would take back the alert that says why
                with socket.socket(fileno=os.dup(request.fileno())) as plain:
                    plain.settimeout(0.2)
                    while plain.recv(65536):
                        pass
                return
        super().finish_request(request, client_address)

    def shutdown_request(self, request):
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (OSError, ValueError)):  # a client that went away is no error
            super().handle_error(request, client_address)

    def close(self):
        self.closing.set()
        with contextlib.suppress(OSError):
            socket.create_connection(self.server_address).close()       # wakes run(), for the last time
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def deliver(self, wire, request, answer):
        wire.send(answer)


class FakeRegistry(LoopbackServer):
    """A registry, its token server (where its challenge says) and a blob store (/store/…) in one.

    faults: what to do to requests of a kind (tag, manifest, config, layer, token, store), and how often: Fault.
    challenges: WWW-Authenticate values, "{url}" being this server; then only requests whose Authorization is in
    `accepted` pass. users: {name: password}, for Basic and for the token server. store: another FakeRegistry, to which
    blobs are redirected. namespace: what ?ns= must say, as at a mirror. token_answer: what the token server says.
    page: entries a page of the referrers API, None for a registry without it. lists: {digest: entries that the
    API lists instead of the true ones}."""

    def __init__(self, faults=(), challenges=(), users=None, store=None, namespace=None, token_answer=None, page=None,
                 lists=None, **options):
        self.faults, self.page, self.lists = [Fault(*fault) for fault in faults], page, lists or {}
        self.manifests, self.blobs, self.lock = {}, {}, threading.Lock()
        self.realms = set(re.findall(r'realm="\{url\}(/[^"?]*)', " ".join(challenges)))
        self.token_answer = token_answer or (lambda token: {"token": token, "expires_in": 300})
        self.challenges, self.users, self.store, self.namespace = list(challenges), users or {}, store, namespace
        self.accepted = {basic(*pair) for pair in self.users.items()}
        super().__init__(**options)

    def add(self, repository, tag, image):
        for part in (image,) + image.children:
            self.manifests[repository, part.digest] = part
            self.blobs.update(part.blobs)
            for child in part.children:
                self.add(repository, child.digest, child)
        self.manifests[repository, tag] = image
        return "%s/%s:%s" % (self.host, repository, tag)

    def sent(self, *kinds):
        """Bytes of content sent for requests of these kinds."""
        return sum(each.sent for each in list(self.requests) if each.kind in kinds and each.status in (200, 206))

    def kinds(self):
        return [request.kind for request in self.requests]

    def deliver(self, wire, request, answer):
        with self.lock:
            for place, (kind, act, times) in enumerate(self.faults):
                if kind == request.kind and times > 0:
                    self.faults[place] = Fault(kind, act, times - 1)
                    break
            else:
                act = Wire.well
        act(wire, request, answer)

    def answer(self, request):
        if request.path in self.realms:
            request.kind = "token"
            return self.token(request)
        route = re.match(r"/v2/(.+)/(manifests|blobs|referrers)/([^/]+)$|/(store)/(.+)$", request.path)
        if not route:
            return self.refuse(404, "NAME_UNKNOWN")
        repository, what, name, store, digest = route.groups()
        if store:
            request.kind = "store"
            twice = request.authorization and not self.challenges
            return Answer(400, b"two ways to authorize") if twice else self.blob(request, digest)
        data = self.blobs.get(name, b"")
        request.kind = ("tag" if ":" not in name else "manifest") if what == "manifests" else \
            what if what == "referrers" else "config" if data[:1] == b"{" else "layer"
        if re.match("sha[0-9]+-", name):
            request.kind = "digest tag"
        if self.challenges and request.authorization not in self.accepted:
            return self.refuse(401, "UNAUTHORIZED", WWW_Authenticate=[c.format(url=self.url) for c in self.challenges])
        if self.namespace and request.query.get("ns") != [self.namespace]:
            return self.refuse(404, "NAME_UNKNOWN")
        if what == "referrers":
            return self.referrers(request, repository, name)
        return self.manifest(repository, name) if what == "manifests" else self.blob(request, name)

    def referrers(self, request, repository, digest):
        """A page of what has a manifest as its subject: the first, or the one that ?from= says."""
        if self.page is None:
            return self.refuse(404, "NOT_FOUND")
        entries = self.lists.get(digest)
        if entries is None:
            parts = {part.digest: part for (place, _), part in self.manifests.items() if place == repository}
            entries = [descriptor(part.manifest, part.media_type) for _, part in sorted(parts.items())
                       if (json.loads(part.manifest.decode()).get("subject") or {}).get("digest") == digest]
        first = int(request.query.get("from", ["0"])[0])
        last = first + self.page
        link = "<%s?from=%d>; rel=\"next\"" % (request.path, last) if last < len(entries) else None
        body = to_json({"schemaVersion": 2, "mediaType": OCI.index, "manifests": entries[first:last]})
        return Answer(200, body, Content_Type=OCI.index, OCI_Filters_Applied="none", Link=link)

    @staticmethod
    def refuse(status, code, message="no", **headers):
        body = to_json({"errors": [{"code": code, "message": message, "detail": None}]})
        return Answer(status, body, Content_Type="application/json", **headers)

    def manifest(self, repository, name):
        image = self.manifests.get((repository, name))
        if not image:
            known = any(repository == other for other, _ in self.manifests)
            return self.refuse(404, "MANIFEST_UNKNOWN" if known else "NAME_UNKNOWN", "manifest unknown")
        return Answer(200, image.manifest, Content_Type=image.media_type, Docker_Content_Digest=image.digest)

    def blob(self, request, digest):
        if digest not in self.blobs:
            return self.refuse(404, "BLOB_UNKNOWN", "blob unknown to registry")
        if self.store and request.kind != "store":
            return Answer(307, b"", Location="%s/store/%s?signature=abc%%2Fdef" % (self.store.url, digest))
        data = self.blobs[digest]
        span = re.match(r"bytes=(\d+)-(\d*)$", request.range or "")
        if not span:
            return Answer(200, data, Content_Type="application/octet-stream", Accept_Ranges="bytes")
        first, last = int(span.group(1)), min(int(span.group(2) or len(data)), len(data) - 1)
        if first > last:
            return Answer(416, b"", Content_Range="bytes */%d" % len(data))
        return Answer(206, data[first:last + 1], Content_Type="application/octet-stream",
                      Content_Range="bytes %d-%d/%d" % (first, last, len(data)))

    def token(self, request):
        """A new token for everyone, or for those in `users` where there are any."""
        if self.users and request.authorization not in {basic(*pair) for pair in self.users.items()}:
            return self.refuse(401, "UNAUTHORIZED", "incorrect username or password")
        with self.lock:
            answer = self.token_answer("token-%d" % (len(self.accepted) + 1))
            self.accepted.add("Bearer " + (answer.get("token") or answer["access_token"]))
        return Answer(200, to_json(answer), Content_Type="application/json")


# --- the registry that misbehaves ------------------------------------------------------------------------------------

# kind: of request, see FakeRegistry.answer(); act: what to do instead of answering well; times: how often, still
Fault = namedtuple("Fault", "kind act times")
ALWAYS = 1 << 30


def cut(at, reset=False, **headers):
    """End the connection before "nothing" is sent, within the "status" line, the "headers", or the body: bytes."""
    def fault(wire, request, answer):
        answer.change(**headers)
        if isinstance(at, str):
            wire.wfile.write(answer.head()[:{"nothing": 0, "status": 7, "headers": -20}[at]])
        else:
            wire.send_head(answer)
            wire.send_body(answer.body[:at])
        wire.drop(reset)
    return fault


stale = cut(None)       # answers well, then closes the kept-alive connection without having said so


def reset(at):
    return cut(at, reset=True)


def silent(at, gate=None):
    """Send so much of the body (None: not even a status line), then nothing; after an event, `gate`, the rest."""
    def fault(wire, request, answer):
        if at is not None:
            wire.send_head(answer)
            wire.send_body(answer.body[:at])
        (gate or wire.server.closing).wait(20)
        if gate:
            wire.send_body(answer.body[at:])
        else:
            wire.drop()
    return fault


def slow(pieces, seconds):
    """Send the body in pieces, with a pause before each."""
    def fault(wire, request, answer):
        wire.send_head(answer)
        step = len(answer.body) // pieces + 1
        for start in range(0, len(answer.body), step):
            wire.server.closing.wait(seconds)
            wire.send_body(answer.body[start:start + step])
    return fault


def says(status, body=b"", **headers):
    """Answer this instead."""
    return lambda wire, request, answer: wire.send(Answer(status, body, **headers))


def changed(version="HTTP/1.1", body=None, **headers):
    """The good answer with other headers, or another body: a function of the good one."""
    def fault(wire, request, answer):
        answer.version = version
        if body:
            answer.body = body(answer.body)
            answer.change(Content_Length=str(len(answer.body)))
        answer.change(**headers)
        wire.send(answer)
        if version == "HTTP/1.0" or headers.get("Content_Length", "") is None or headers.get("Connection") == "close":
            wire.drop()
    return fault


def chunked(size=None, trailer=b"0\r\n\r\n"):
    """The good answer in chunks, only the first `size` bytes of it."""
    def fault(wire, request, answer):
        answer.change(Content_Length=None, Transfer_Encoding="chunked")
        wire.send_head(answer)
        for start in range(0, len(answer.body[:size]), 10007):
            piece = answer.body[:size][start:start + 10007]
            wire.wfile.write(b"%x;extension=1\r\n" % len(piece))
            wire.send_body(piece)
            wire.wfile.write(b"\r\n")
        wire.wfile.write(trailer)
        if not trailer:
            wire.drop()
    return fault


def interim(wire, request, answer):
    """Answers that are none yet, before the real one."""
    wire.wfile.write(b"".join(b"HTTP/1.1 %d Wait\r\nLink: </x>\r\n\r\n" % status for status in (100, 102, 103, 199)))
    wire.send(answer)


def whole(wire, request, answer):
    """As a server that knows nothing of ranges."""
    wire.send(Answer(200, wire.server.blobs[request.path.rsplit("/", 1)[1]]))


def other_range(wire, request, answer):
    """Another range than was asked for, honestly labelled."""
    data = wire.server.blobs[request.path.rsplit("/", 1)[1]]
    span = "bytes 5-%d/%d" % (len(data) - 1, len(data))
    wire.send(Answer(206, data[5:], Content_Range=span) if request.range else answer)


def expire(wire, request, answer):
    """All tokens given out so far end here."""
    wire.server.accepted.clear()
    wire.send(wire.server.answer(request))


def raw(data, piece=b""):
    """These bytes, whatever they are, then a piece for as long as anyone reads, if there is one, and the end."""
    def fault(wire, request, answer):
        wire.wfile.write(data)
        while piece and not wire.server.closing.is_set():
            wire.send_body(piece)
        wire.drop()
    return fault


endless = raw


def redirect(status, location):
    """{path} is what was asked for, {url} and {host} are this server."""
    return lambda wire, request, answer: wire.send(Answer(status, Location=location.format(
        path=request.path, url=wire.server.url, host=wire.server.host)))


# --- what all tests share --------------------------------------------------------------------------------------------

def selected(table):
    """The rows of a table with $IMGPULL_ROW in what they print as, so that one row can be run alone."""
    return [row for row in table if os.environ.get("IMGPULL_ROW", "") in repr(row)]


Run = namedtuple("Run", "code out err")
FAILED = 1                                  # any failure but wrong usage: TestExitCodes has them one by one
FAILURES = [1, 3, 4, 5, 6, 7]
REAL_GETADDRINFO, HOST_PLATFORM = socket.getaddrinfo, imgpull.host_platform


class Case(unittest.TestCase):
    """Each test in a directory and an environment of its own, with host names that only it knows."""

    def setUp(self):
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix="imgpull-test-"))
        self.addCleanup(shutil.rmtree, self.dir, True)
        self.tar = self.path("image.tar")
        self.hosts = {}                     # name: the server that it stands for
        environment = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TMPDIR") if name in os.environ}
        environment.update(HOME=self.dir, USERPROFILE=self.dir, XDG_RUNTIME_DIR=self.path("none"), LANG="C.UTF-8",
                           COLUMNS="80", SSL_CERT_FILE=self.path("none"), SSL_CERT_DIR=self.path("none"))
        for patch in (mock.patch.dict(os.environ, environment, clear=True),
                      mock.patch.object(imgpull, "BACKOFF", 0.001), mock.patch.object(imgpull, "SECRETS", set()),
                      mock.patch.object(imgpull, "CERTS_DIRS", (self.path("certs.d"),)),
                      mock.patch.object(imgpull, "host_platform", lambda: imgpull.Platform("linux", "amd64", "")),
                      mock.patch("os.fsync"), mock.patch("os.fdatasync", create=True),      # the disk may take its time
                      mock.patch("socket.getaddrinfo", self.resolve)):
            patch.start()
            self.addCleanup(patch.stop)

    def resolve(self, host, port, *rest, **named):
        """Nothing here looks up a name outside: a test knows its own hosts and loopback."""
        if host in self.hosts:
            host, port = "127.0.0.1", self.hosts[host].port
        elif host == "localhost":
            host = "127.0.0.1"
        elif host not in ("127.0.0.1", "::1", None):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return REAL_GETADDRINFO(host, port, *rest, **named)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def write(self, name, data, mode=0o644):
        path = self.path(*name.split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode() if isinstance(data, str) else to_json(data))
        os.chmod(path, mode)
        return path

    def serve(self, image=IMAGE, kind=FakeRegistry, **options):
        """A registry that has `image` as app:v1."""
        server = kind(**options)
        self.addCleanup(server.close)
        if image:
            server.add("app", "v1", image)
        return server

    def pems(self):
        """The directory with all the certificates and keys."""
        for name, text in PEM.items():
            kind = "CERTIFICATE" if ".pem" in name else "ENCRYPTED PRIVATE KEY" if "locked" in name else "PRIVATE KEY"
            self.write("pems/" + name, "\n".join(["-----BEGIN %s-----" % kind] + text.split() + [
                "-----END %s-----\n" % kind]))
        return self.path("pems")

    def run_main(self, *argv, stdin=""):
        out, err = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
        with mock.patch("sys.stdout", out), mock.patch("sys.stderr", err), mock.patch("sys.stdin", io.StringIO(stdin)):
            try:
                code = imgpull.main([str(word) for word in argv])
            except SystemExit as exit:
                code = exit.code
        return Run(code, out.buffer.getvalue(), err.buffer.getvalue().decode())

    def pull(self, server, *options, expect=0, name="app:v1", tar=None, stdin="", fresh=True):
        """Pull `name` from a server over its scheme; the bytes of the archive."""
        tar = tar or self.tar
        if fresh and os.path.isfile(tar) and read(tar) != OLD:
            os.remove(tar)                  # or nothing would have to be fetched
        run = self.run_main("--scheme", server.scheme, *(options + ("%s/%s" % (server.host, name), tar)), stdin=stdin)
        self.assertIn(run.code, FAILURES if expect == FAILED else [expect], "%s\n%s" % (run.err, server.requests))
        self.said = run
        return read(tar) if expect == 0 and tar != "-" else run

    def fails(self, run, *words, code=1):
        """Exactly one line of error, holding these words, and nothing else amiss."""
        self.assertIn(run.code, FAILURES if code == FAILED else [code], run.err)
        errors = [line for line in run.err.splitlines() if line.startswith("imgpull: error: ")]
        self.assertEqual(len(errors), 1, run.err)
        self.assertFalse(re.search("Traceback|internal error", run.err), run.err)
        self.assertFalse(re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", run.err), ascii(run.err[:1000]))
        self.assertLess(len(run.err), 5000)
        for word in words:
            self.assertRegex(errors[0], "(?i)" + word)

    def left(self):
        """What lies in the test's directory beside the archive."""
        return sorted(name for name in os.listdir(self.dir) if name.startswith("image.tar.") or name.endswith(".tmp"))

    def clean(self, *paths):
        """Remove files that may be there, or what a pull has left beside the archive."""
        for path in paths or map(self.path, self.left()):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def members(data):
    """{name: bytes} of a tar's bytes, in its order."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        return {info.name: tar.extractfile(info).read() for info in tar.getmembers() if info.isreg()}


def faults_of(path):
    """What is wrong with an archive, be it that it cannot be read at all."""
    try:
        return imgpull.verify_archive(path)
    except imgpull.ImgpullError as error:
        return [str(error)]


def sizes(image):
    return sum(len(blob) for blob in image.blobs.values())


# --- references, platforms, challenges: pure functions ---------------------------------------------------------------

class TestReferences(unittest.TestCase):
    HEX, HEX512, TAG, PATH = "a" * 64, "b" * 128, "t" * 128, "p" * 255
    GOOD = [  # text, registry, repository, tag and digest (-: none)
        "ubuntu docker.io library/ubuntu latest", "app:22.04 docker.io library/app 22.04", "u/a:V1 docker.io u/a V1",
        "docker.io/app docker.io library/app latest", "index.docker.io/a/b docker.io a/b latest",
        "localhost/app localhost app latest", "localhost:5000/app:1 localhost:5000 app 1", "h.test/a/b:t h.test a/b t",
        "Upper/app Upper app latest", "[::1]/app [::1] app latest", "[2001:db8::1]:8/app:x [2001:db8::1]:8 app x",
        "a__b/c-d/e--f/g.h_i docker.io a__b/c-d/e--f/g.h_i latest", "app:_ docker.io library/app _",
        "app:TAG docker.io library/app TAG", "HEX:t docker.io library/HEX t", "h.test/PATH h.test PATH latest",
        "app@sha256:HEX docker.io library/app - sha256:HEX", "q.io/a:1@sha256:HEX q.io a 1 sha256:HEX",
        "app@sha512:HEX512 docker.io library/app - sha512:HEX512", "h:8/quay.io/a/b:8 h:8 quay.io/a/b 8"]
    BAD = [  # word in the answer, texts
        ("lower", "Ubuntu docker.io/Ubuntu user/App"), ("tag", "app: app:-t app:.t app:tTAG"), ("image ID", "HEX"),
        ("digest", "app@ app@sha256 app@sha256:abc app@sha256:HEXa app@sha512:HEX app@sha256:HEX@sha256:HEX"),
        ("digest", "app@md5:%s app@sha256:%s" % ("a" * 32, "A" * 64)),
        ("", ":tag app:tag/x a//b /a a/ a..b a___b -a a- a_ .a a/../b ä a?b a#b a%2fb reg.test:x/app reg.test:/app"),
        ("", "reg_x.test/app -reg.test/app reg..test/app [::1/app ::1/app [zz]/app bücher.example/app reg.test/"),
        ("p{9}", "reg.example:5000/pPATH"), ("with '@'", "app:sha256:HEX"), ("leave out", "docker://alpine"),
        ("user info", "ann:hunter2@h.test/app https://hunter2@h.test/app https://ann:hunter2/@x@h.test/app"),
        ("(?!.*5000:80)", "http://localhost:5000"), ("myhost.*HOST:80", "http://myhost/app"),
        ("1024 characters", "a" * 1025 + " " + ":" * 600000), ("name", ("",)),
        ("", ("app:a b", "a b", "a\n", "a\0", "app@sha256:" + HEX + "\n"))]
    REQUESTS = [  # text, its name in the archive as it was given, scheme, full name there
        ("http://localhost:5000/app:1", None, "http", "localhost:5000/app:1"),
        ("HTTPS://reg.example/a/b", None, "https", "reg.example/a/b:latest"),
        ("h.test/app:v2@sha256:" + HEX, "mine", None, "docker.io/library/mine:v2"),     # without a tag: the reference's
        ("h.test/app:v2", "q.io/mine:3", None, "q.io/mine:3"), ("h.test/app:v2", "h:9/x", None, "h:9/x:v2")]

    def filled(self, text):
        return re.sub("HEX512|HEX|TAG|PATH", lambda word: getattr(self, word.group()), text)

    def test_good(self):
        for text, *parts in selected([self.filled(row).split() for row in self.GOOD]):
            with self.subTest(text):
                got = imgpull.parse_reference(text)
                self.assertEqual([part or "-" for part in got], (parts + ["-"])[:4])
                full = got.registry + "/" + got.repository + (got.tag and ":" + got.tag)
                self.assertEqual(str(got), full + (got.digest and "@" + got.digest))
                self.assertEqual(imgpull.parse_reference(str(got)), got)  # a full name stands for itself

    def test_bad(self):
        for word, texts in selected(self.BAD):
            for text in self.filled(texts).split(" ") if isinstance(texts, str) else texts:
                with self.subTest(text[:90]), self.assertRaisesRegex(imgpull.UsageError, word) as caught:
                    imgpull.parse_request(text)
                self.assertLess(len(str(caught.exception)), 1000)
                self.assertNotIn("hunter2", str(caught.exception))

    def test_requests(self):
        """References that may say how to speak to their registry, and what they are called in the archive."""
        for text, name, scheme, full in selected(self.REQUESTS):
            with self.subTest(text, name=name):
                request = imgpull.parse_request(text, name)
                self.assertEqual((request.scheme, str(request.name or request.reference)), (scheme, full))


class TestPlatforms(Case):
    def test_parse(self):
        for text, parts in selected([
                ("linux/x86_64", "linux amd64"), ("linux/arm64/v8", "linux arm64"), ("linux/arm", "linux arm v7"),
                ("Linux/armv6l", "linux arm v6"), ("arm64", "linux arm64"),
                ("windows(10.0.17763)/amd64", "windows amd64  10.0.17763")]):
            with self.subTest(text):
                platform = imgpull.parse_platform(text)
                self.assertEqual(platform, imgpull.Platform(*parts.split(" ")))
                self.assertEqual(imgpull.parse_platform(str(platform)), platform)
        for text in selected(["", "linux/", "/amd64", "linux/arm/v7/x", "linux arm", "linux/am d64", "linux/\n", "all",
                              "windows(10/amd64", "windows()/amd64", "amd64/linux", "linux", "macOS"]):
            with self.subTest(text), self.assertRaisesRegex(imgpull.UsageError, "os/arch"):
                imgpull.parse_platform(text)

    def test_this_host(self):
        """This host in Go's names, by what the system calls it."""
        for system, machine, platform in selected([row.split() for row in [
                "Linux x86_64 linux/amd64", "Linux aarch64 linux/arm64", "Linux i686 linux/386",
                "Linux armv7l linux/arm/v7", "Darwin arm64 darwin/arm64", "Windows AMD64 windows/amd64"]]):
            with self.subTest(system=system, machine=machine), mock.patch("platform.system", lambda: system), \
                    mock.patch("platform.machine", lambda: machine):
                self.assertEqual(str(HOST_PLATFORM()), platform)

    def test_choice(self):
        """What is wanted, the entries (os/architecture/variant/version/feature), and which is taken (-: none)."""
        keys, windows = ("os", "architecture", "variant", "os.version"), "windows/amd64//10.0."
        builds = windows + windows.join(["17763.1 ", "20348.9 ", "17763.30"])
        for wanted, offered, place in selected([
                ("linux/amd64", "unknown/unknown linux/arm64 linux/amd64 linux/amd64", 2),
                ("linux/arm64", "linux/arm64/v8", 0), ("linux/amd64", "linux/386", "-"),
                ("linux/arm", "linux/arm/v6 linux/arm/v7", 1), ("unknown/unknown", "unknown/unknown", "-"),
                ("windows/amd64", builds, 0), ("windows(10.0.17763)/amd64", builds, 0),
                ("windows(10.0.20348.4)/amd64", builds, 1), ("windows(10.0.14393)/amd64", builds, "-"),
                ("linux/amd64", "linux/amd64///sse9 linux/amd64", 1), ("linux/amd64", "linux/amd64///sse9", 0)] + [
                ("linux/" + wanted, " ".join("linux/%s/%s" % (wanted.split("/")[0], one) for one in offered.split("|")),
                 place) for wanted, offered, place in [             # what a machine runs, best first
                    ("amd64", "v2", "-"), ("amd64/v3", "v4||v2|v3", 3), ("amd64/v3", "v4||v2", 2),
                    ("arm/v7", "v5|v8|v6", 2), ("arm/v5", "v6|v7", "-"), ("arm/v6", "v7|v5", 1), ("ppc64le", "v1|", 1),
                    ("arm64", "v8.1|v9", "-"), ("arm64/v8.2", "v8.3||v8.1|v9", 2), ("arm64/v9", "v8.5|v9|v9.1", 1),
                    ("arm64/v9.2", "v9.3|v8.8||v8.7", 3), ("arm64/v9.2", "v8.7|v9", 1), ("mips64le", "softfloat", "-"),
                    ("386/softfloat", "|softfloat", 1)]]):
            with self.subTest(wanted, offered=offered):
                entries = [{"digest": "sha256:%064d" % number, "size": 1, "platform": dict(
                    zip(keys, text.split("/")), **{"os.features": text.split("/")[4:]})}
                    for number, text in enumerate(offered.split(" "))]
                chosen = imgpull.choose([imgpull.parse_descriptor(each, "it") for each in entries],
                                        imgpull.parse_platform(wanted))
                self.assertEqual(int(chosen.digest[7:]) if chosen else "-", place)

    def test_options(self):
        """What is taken, and said of it, by the options and the host's system (linux unless told): a platform that
        nobody asked for by name is worth a word, also with -q; one that was asked for and is not there, an error."""
        lacks = "not available for .* .available: linux/amd64, linux/arm/v6, linux/arm64.: .*platform"
        warns = "imgpull: warning: .*linux/arm64"
        for image, options, taken, words, *host in selected([
                (INDEX, "", IMAGE, ""), (INDEX, "", IMAGE, "linux", "darwin"), (INDEX, "-o=linux -aarm64", ARM, ""),
                (INDEX, "--os linux --arch amd64", IMAGE, ""), (INDEX, "--platform linux/arm64/v8", ARM, ""),
                (INDEX, "--platform linux/arm/v7", ARMV6, ""), (INDEX, "--platform linux/arm/v5", None, lacks),
                (INDEX, "--platform unknown/unknown", None, lacks), (INDEX, "-o=windows", None, lacks),
                (ARM, "", ARM, warns), (ARM, "-q", ARM, warns), (ARM, "--platform linux/arm64", ARM, ""),
                (ARM, "--platform linux/amd64", None, "for linux/amd64 .available: linux/arm64")]):
            here = imgpull.Platform((host or ["linux"])[0], "amd64", "")
            with self.subTest(options, here=here), mock.patch.object(imgpull, "host_platform", lambda: here):
                run = self.pull(self.serve(image), *options.split(), expect=0 if taken else 3)
                if taken:
                    self.assertIn(taken.digest, self.said.out.decode())
                    self.assertRegex(self.said.err.replace("\n", " "), words or "^((?!linux).)*$")
                else:
                    self.fails(run, words, code=3)

    def test_undeclared(self):
        """Entries without platform: only where none that says it fits; what cannot be read is passed over."""
        schema1 = document(to_json({"schemaVersion": 1, "fsLayers": [], "history": []}))
        gone, missing = make_image(b"its config is gone"), make_image(b"not there at all")
        broken = [(schema1, None), (make_artifact(), None), (missing, None), (gone, None)]
        for children, taken, *faults in selected([
                ([(ARM, None), (IMAGE, None)], IMAGE), (broken + [(IMAGE, None)], IMAGE),
                (broken, "no platform at all"), ([(missing, None), (IMAGE, "linux/amd64")], IMAGE),
                ([(make_index((ARM, None), (IMAGE, None)), None)], "no platform at all"),      # an index is no image
                ([(ARM, None), (IMAGE, None)], "503", ("manifest", says(503), ALWAYS))]):
            with self.subTest(str(children)[:90], taken=str(taken)[:90]):
                server = self.serve(make_index(*children), faults=faults)
                server.manifests.pop(("app", missing.digest), None)
                server.blobs.pop(sha256(gone.config), None)
                run = self.pull(server, "--retries", "0", expect=FAILED if isinstance(taken, str) else 0)
                if isinstance(taken, str):
                    self.fails(run, taken, code=FAILED)
                else:
                    self.assertIn(taken.digest, self.said.out.decode())
                if (IMAGE, "linux/amd64") in children:                          # then the others are not even asked for
                    self.assertEqual(len(server.requests), 5, server.requests)


class TestChallenges(unittest.TestCase):
    TABLE = [  # header value, the scheme and parameters of each challenge in it
        ('Bearer realm="https://a/t",service="s",scope="repository:x:pull,push",error="no"', "bearer", dict(
            realm="https://a/t", service="s", scope="repository:x:pull,push", error="no")),
        ("Bearer realm=https://a/t, service=s", "bearer", dict(realm="https://a/t", service="s")),
        ('Bearer realm = "a, b" ,  service= "c"', "bearer", dict(realm="a, b", service="c")),
        ('bearer REALM="x"', "bearer", dict(realm="x")), ("Basic", "basic", {}), ("",), (",",), (" ",),
        (r'Bearer realm="a\"b\\c"', "bearer", dict(realm='a"b\\c')), ('Bearer realm=""', "bearer", dict(realm="")),
        ('Bearer realm="a",, ,service="b",', "bearer", dict(realm="a", service="b")),
        ('Basic realm="a", Bearer realm="b",a="c"', "basic", dict(realm="a"), "bearer", dict(realm="b", a="c")),
        ('Negotiate, Basic realm="a"', "negotiate", {}, "basic", dict(realm="a")),
        ('Negotiate dG9rZW42OA==, Bearer realm="b"', "negotiate", {}, "bearer", dict(realm="b")),
        ('NTLM, Digest realm="d", qop="auth, auth-int", Bearer realm="b"',
         "ntlm", {}, "digest", dict(realm="d", qop="auth, auth-int"), "bearer", dict(realm="b")),
        ('Bearer realm="Basic realm=x, Bearer realm=y"', "bearer", dict(realm="Basic realm=x, Bearer realm=y"))]
    NASTY = ['Bearer realm="never closed', 'Bearer realm=', '=', '"', 'Bearer "x"', 'Bearer ,=,"', "\\" * 50,
             "Bearer " * 5000, 'Bearer realm="' + "\\" * 20000, " ," * 20000, "a" * 50000, "Bearer " + "a=" * 20000]

    def test_table(self):
        for value, *expected in selected(self.TABLE):
            with self.subTest(value):
                self.assertEqual([part for pair in imgpull.parse_challenges(value) for part in pair], expected)
        for value in self.NASTY:
            with self.subTest(value[:50]):
                self.assertTrue(all(scheme == scheme.lower() and isinstance(parameters, dict)
                                    for scheme, parameters in imgpull.parse_challenges(value)))


# --- plans, walks, JSON: pure functions ------------------------------------------------------------------------------

class TestPureFunctions(unittest.TestCase):
    def test_layout(self):
        """What tarfile sees of a layer of 9 GiB with a long name, in a sparse file."""
        literals, (placed,), size = imgpull.layout({
            "n" * 150: imgpull.Descriptor("", NOBODY, 9 << 30, None, {}), "b": b"z"})
        with tempfile.TemporaryFile() as file:
            for offset, literal in literals:
                file.seek(offset)
                file.write(literal)
            file.truncate(size)
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                held = [(info.name, info.size, info.offset_data) for info in tar]
        self.assertEqual(held, [("n" * 150, 9 << 30, placed[1]), ("b", 1, size - 1024 - 512)])

    def test_many_manifests(self):
        """A thousand manifests below an index, and those below these, are enough."""
        many = [make_index(*[(document(b"%d" % number), None) for number in range(first, first + 600)])
                for first in (0, 600)]
        wide = make_index((many[0], None), (many[0], None)), make_index((many[0], None), (many[1], None))
        parsed = {part.digest: imgpull.parse_manifest(part.manifest, part.digest, "it") for part in (*many, *wide)}
        good, bad = [imgpull.walk(parsed[top.digest].descriptor, parsed[top.digest], parsed.get, "it") for top in wide]
        self.assertEqual([each.digest for each, _ in good], [wide[0].digest, many[0].digest])
        self.assertRaisesRegex(imgpull.Damaged, "more than 1000", list, bad)

    def test_json_as_go_reads_it(self):
        """A key in two spellings, in another case than Go's, or twice, and half characters, are refused."""
        config = {"digest": NOBODY, "size": 2}
        good = {"config": config, "layers": []}
        for body, words in selected([
                (good, ""), (dict(good, annotations={"\U0001f600": "\u00e9"}, Other=[{"x": 1}]), ""),
                ({"CONFIG": config, "layers": []}, "another case"), (dict(good, Layers=[]), "not a JSON"),
                ({"manifests": [], "Layers": []}, "another case"), (dict(good, Subject=config), "another case"),
                (dict(good, config=dict(config, MediaType="x")), "another case"),
                (dict(good, **{"layer\u017f": []}), "not a"), (dict(good, annotations={"x": "\udcff"}), "not a JSON"),
                (dict(good, annotations={"x": 5}), "a string"), (dict(good, manifests=[]), "neither"),
                (b'{"manifests": [], "manifests": []}', "not a JSON")]):
            with self.subTest(str(body)[-90:]):
                data = body if isinstance(body, bytes) else to_json(body)
                if words:
                    self.assertRaisesRegex(imgpull.Damaged, words, imgpull.parse_manifest, data, NOBODY, "it")
                else:
                    imgpull.parse_manifest(data, NOBODY, "it")

    def test_private_parts(self):
        """The private parts of the standard library that imgpull uses are what they were (listed at its top)."""
        self.assertTrue(callable(http.client.HTTPConnection("localhost")._create_connection))
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            answer = http.client.HTTPResponse(ours)
            answer.begin()
            self.assertEqual((answer.length, answer.chunked, answer.fp.peek(1)[:5]), (5, False, b"hello"))
            answer.length = 0
            answer.read()
            self.assertTrue(answer.isclosed() and not answer.will_close)


# --- the archive -----------------------------------------------------------------------------------------------------

class TestArchive(Case):
    def check_archive(self, data, image, name):
        """Every rule of the archive for one image; name: what it must be called, None where it has no name."""
        held = members(data)
        blobs = [blob_path(digest) for digest in sorted([image.digest] + list(image.blobs))]
        self.assertEqual(list(held), ["oci-layout", "index.json", "manifest.json"] + blobs)
        self.assertEqual([blob_path(sha256(held[blob])) for blob in blobs], blobs)
        self.assertEqual(json.loads(held["oci-layout"].decode()), {"imageLayoutVersion": "1.0.0"})
        entry, = json.loads(held["index.json"].decode())["manifests"]
        self.assertEqual((entry["mediaType"], entry["digest"], entry["size"]),
                         (image.media_type, image.digest, len(image.manifest)))
        docker, = json.loads(held["manifest.json"].decode())
        self.assertEqual((docker["Config"], docker["Layers"], docker["RepoTags"]), (
            blob_path(sha256(image.config)), [blob_path(digest) for digest in image.layers], [name] if name else None))
        self.assertEqual(entry["annotations"].get(REF_NAME), name and name[-2:])
        self.assertIn(name, (None, entry["annotations"][NAME]))

    def test_layout(self):
        """Forms of images, and what the archive calls them: by the reference."""
        for image, name, called in selected([
                (make_image(BIG, b"x", BIG, BIG), "app:v1", "{}/app:v1"), (make_image(), "app:v1", "{}/app:v1"),
                (make_image(BIG, style=DOCKER), "app:v1", "{}/app:v1"), (IMAGE, "app@" + IMAGE.digest, None),
                (IMAGE, "app:v1@" + IMAGE.digest, "{}/app:v1")]):
            with self.subTest(name, layers=len(image.layers)):
                server = self.serve(image)
                self.check_archive(self.pull(server, name=name), image, called and called.format(server.host))
                self.assertIn(image.digest, self.said.out.decode())
                self.assertEqual(server.sent("layer"), sum(len(image.blobs[layer]) for layer in set(image.layers)))
                self.assertEqual(self.left(), [])

    def test_index(self):
        """Of an index, also below another, the manifest of one platform is taken; five requests, no more."""
        children = (ATTESTATION, "unknown/unknown"), (ARM, "linux/arm64"), (IMAGE, "linux/amd64")
        for index in [make_index(*children, style=style) for style in (OCI, DOCKER)] + [
                make_index((make_index(*children), "linux/amd64"))]:
            server = self.serve(index)
            self.check_archive(self.pull(server), IMAGE, "%s/app:v1" % server.host)
            more = ["manifest"] * (len(index.children) == 1)
            self.assertEqual(sorted(server.kinds()), ["config", "layer", "layer", "manifest"] + more + ["tag"])
            for request in server.requests:
                self.assertEqual((request.method, request.range, request.headers.get("Accept-Encoding", "identity")),
                                 ("GET", None, "identity"))
                self.assertIn("imgpull", request.headers["User-Agent"])
            for kind in OCI[:2] + DOCKER[:2]:
                self.assertIn(kind, server.requests[0].headers["Accept"])

    def test_same_bytes(self):
        """The same manifest gives the same bytes, however it is pulled."""
        server, options = self.serve(INDEX), ("--name", "x:1")
        first = self.pull(server, *options)
        for more, name in [(("-j1",), "app:v1"), (("-j9", "-q"), "app:v1"), ((), "app@" + INDEX.digest)]:
            self.assertEqual(self.pull(server, *options + more, name=name), first)
        self.assertEqual(self.pull(server, *options, tar="-").out, first)

    def test_sha512(self):
        """The digest of a manifest by sha512; OWN has one of a layer."""
        server, name = self.serve(), "sha512:" + hashlib.sha512(IMAGE.manifest).hexdigest()
        server.manifests["app", name] = IMAGE
        self.assertEqual(members(self.pull(server, name="app@" + name))[blob_path(name)], IMAGE.manifest)

    def test_library(self):
        """As the README shows it: pull() with a name or several, and its result."""
        server = self.serve(INDEX)
        name = server.host + "/app:v1"
        result = imgpull.pull(name, self.tar, platform="linux/amd64", scheme="http")
        image, = result.images
        self.assertEqual((image.name, image.digest, str(image.platform)), (name, IMAGE.digest, "linux/amd64"))
        self.assertEqual((result.destination, result.size, result.fetched, len(result.omitted)), (
            self.tar, os.path.getsize(self.tar), sizes(IMAGE), 0))
        result = imgpull.pull([name, server.add("app", "v2", ARM)], self.tar, scheme="http")
        self.assertEqual([image.digest for image in result.images], [IMAGE.digest, ARM.digest])
        with self.assertRaises(imgpull.ImgpullError):
            imgpull.pull(server.host + "/none:v1", self.tar, scheme="http")

    def test_registry(self):
        """Manifests and blobs of a repository, for those who want no archive."""
        server = self.serve(challenges=[BEARER])
        registry = imgpull.Registry(imgpull.parse_reference(server.host + "/app:v1"), imgpull.Settings(scheme="http"))
        head, manifest = registry.head(), registry.get()
        self.assertEqual((head.digest, head.size), (IMAGE.digest, len(IMAGE.manifest)))
        self.assertEqual((manifest.body, manifest.descriptor.digest), (IMAGE.manifest, IMAGE.digest))
        for start, end in [(0, None), (100000, None), (5, 10)]:
            with registry.stream(manifest.layers[0], start, end) as response:
                self.assertEqual(response.read(1 << 20), IMAGE.blobs[IMAGE.layers[0]][start:end])
        registry.transport.close()
        self.assertEqual(server.kinds().count("token"), 1)


class TestDestination(Case):
    def test_replaced_only_at_the_end(self):
        """The old archive stays, also where we may not write, until the new one is whole, which is as umask says."""
        self.addCleanup(os.umask, os.umask(0o022))
        old = self.pull(self.serve(ARMV6))
        if POSIX:
            self.assertEqual(os.stat(self.tar).st_mode & 0o777, 0o644)
        server = self.serve(faults=[("layer", cut(100), ALWAYS)])
        self.fails(self.pull(server, "--retries", "0", expect=1, fresh=False))
        del server.faults[:]
        with mock.patch.object(imgpull, "open_own", side_effect=PermissionError(errno.EACCES, "Permission denied")):
            self.fails(self.pull(server, expect=6, fresh=False), "cannot be written: Permission denied", code=6)
        self.assertEqual(read(self.tar), old)
        self.assertNotEqual(self.pull(server, fresh=False), old)
        self.assertEqual(self.left(), [])


# --- faults that a pull gets through ---------------------------------------------------------------------------------

ALL, SOME, BLOBS = "tag manifest config layer token store", "tag layer token store", "layer store"
NULL, MUCH = "sha256:" + "0" * 64, "more than|digest mismatch"


def date_in(seconds):
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


def flipped(body):
    return body[:50] + bytes([body[50] ^ 1]) + body[51:] if len(body) > 50 else body


def ranges_refused(status):
    """As a server that answers every Range with an error, and serves the whole."""
    def fault(wire, request, answer):
        wire.send(Answer(status, b"no ranges here") if request.range else answer)
    return fault


class Clock(threading.Event):
    """The event that stops a pull, in a time of its own: a wait for it ends at once and puts the clock forward."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def wait(self, timeout=None):
        self.waits.append(timeout or 0)
        return super().wait(0)

    @contextlib.contextmanager
    def running(self):
        """Have every pull within wait by this clock."""
        init, now = imgpull.Transport.__init__, time.monotonic

        def with_clock(transport, *args, **options):
            init(transport, *args, **options)
            transport.stopping = self
        with mock.patch.object(imgpull.Transport, "__init__", with_clock), \
                mock.patch("time.monotonic", lambda: now() + sum(self.waits)):
            yield self

    def pause(self, seconds, is_good):
        """A fault: silence for so long, by this clock, in the middle of the answer; then the rest, or the end."""
        def fault(wire, request, answer):
            wire.send_head(answer)
            wire.send_body(answer.body[:10])
            self.waits.append(seconds)
            wire.send_body(answer.body[10:]) if is_good else wire.drop()
        return fault


class TestFaults(Case):
    # Name, what is hit (each in turn), bytes sent in excess (None: not counted; 20: those that came with the headers
    # may be lost), faults in their order, each once or (fault, times).
    FAULTS = [
        ("cut in the body", ALL, 0, cut(20)), ("cut often, with progress", BLOBS, 0, (cut(20000), 9)),
        ("reset in the body", ALL, None, reset(20)), ("reset often, with progress", BLOBS, None, (reset(60000), 3)),
        ("cut, no length given", BLOBS, 0, cut(70000, Content_Length=None, Connection="close")),
        ("closed without a word when idle", SOME, 0, (stale, ALWAYS)), ("silent from the start", SOME, 0, silent(None)),
        ("silent in the body", SOME, 20, silent(20)), ("silent late in the body", BLOBS, 0, silent(150000)),
        ("in chunks", SOME, 0, (chunked(), ALWAYS)), ("chunks that end early", BLOBS, 0, (chunked(30000), 2)),
        ("chunks cut short", BLOBS, 0, (chunked(30000, b""), 2)), ("interim answers", SOME, 0, (interim, ALWAYS)),
        ("HTTP/1.0", SOME, 0, (changed("HTTP/1.0", Content_Length=None), ALWAYS)),
        ("a token that ends", "manifest config layer", 0, expire), ("and a cut", "layer", 0, cut(50000), expire),
        ("no ranges", BLOBS, None, cut(150000), (whole, ALWAYS)), ("another", BLOBS, None, cut(150000), other_range),
        ("a range refused", BLOBS, None, cut(1000), says(416, Content_Range="bytes */0")),
        ("a range with other bytes", BLOBS, None, cut(1000), changed(body=flipped)),
        ("a bit flipped, once", "manifest config layer store", None, changed(body=flipped)),
        ("compressed", "tag manifest", None, (changed(body=gzipped, Content_Encoding="gzip"), ALWAYS)),
        ("labelled as compressed", BLOBS, 0, (changed(Content_Encoding="gzip"), ALWAYS)),
        ("another digest, once", "tag", None, changed(Docker_Content_Digest=NULL)),
        ("another digest, always", "tag", None, (changed(Docker_Content_Digest=NULL), ALWAYS)),
        ("error without end", SOME, None, endless(b"HTTP/1.1 500 Oh\r\n\r\n", b"<p>" * 5000)),
        ("nine redirects", "tag manifest config layer token", 0, (redirect(307, "{path}?again"), 9))
    ] + [("%s: %s" % (act.__name__, at), SOME, excess, (act(at), 2))
         for act, excess in ((cut, 0), (reset, None)) for at in ("nothing", "status", "headers", 0)
    ] + [("length %s" % length, SOME, 0, (changed(Content_Length=length, Connection="close"), ALWAYS))
         for length in (None, "many", "-5")
    ] + [("content type %s" % kind, SOME, 0, (changed(Content_Type=kind), ALWAYS))
         for kind in (None, "text/plain", OCI.index, OCI.manifest + "; charset=utf-8")
    ] + [("digest header %s" % value, kinds, 0, (changed(Docker_Content_Digest=value), ALWAYS))
         for value, kinds in ((None, "tag manifest"), ("../../x", "tag manifest"), (NULL, "manifest"))
    ] + [("a range labelled %s" % value, BLOBS, None, cut(1000), changed(Content_Range=value))
         for value in (None, "bytes 1000-1999/2000", "bytes of some kind")
    ] + [("every range answered %d" % status, BLOBS, None, cut(150000), (ranges_refused(status), ALWAYS))
         for status in (400, 403, 500, 501)
    ] + [("status %d" % status, SOME, None, (says(status, b"later"), 2))
         for status in (408, 425, 429, 500, 502, 503, 504)
    ] + [("redirect %d to %s" % (status, location), "tag layer token", 0, redirect(status, location))
         for status, location in [(301, "?again"), (302, "{url}{path}"), (303, "//{host}{path}"), (307, "{path}?again"),
                                  (308, "{url}{path}?again")]]

    def scenario(self, kind, *faults):
        """A registry, and a store apart where that is to be hit; with no more to ask than it takes to get there."""
        faults = [(kind,) + (fault if isinstance(fault, tuple) else (fault, 1)) for fault in faults]
        image = INDEX if kind == "manifest" else IMAGE
        tokens = kind == "token" or any(fault is expire for _, fault, _ in faults)
        store = self.serve(image, faults=faults) if kind == "store" else None
        return self.serve(image, faults=faults, challenges=[BEARER] if tokens else [], store=store), store

    def test_faults(self):
        options = ("--name", "x:1", "--retries", "5", "--timeout")
        goods = {image.digest: self.pull(self.serve(image), *options, "9") for image in (INDEX, IMAGE)}
        for name, kinds, excess, *faults in selected(self.FAULTS):
            for kind in kinds.split():
                with self.subTest(name, kind=kind):
                    server, store = self.scenario(kind, *faults)
                    hit = store or server
                    planned = list(hit.faults)
                    self.assertEqual(self.pull(server, *options, "0.1" if "silent" in name else "9"),
                                     goods[(INDEX if kind == "manifest" else IMAGE).digest])
                    self.assertEqual(self.left(), [])
                    for fault, plan in zip(hit.faults, planned):
                        self.assertLess(fault.times, plan.times, "it did not come to that")
                    if excess is not None:
                        again = 2 * len(IMAGE.config) if kind in ("config", "store") else 0     # it is not resumed
                        self.assertLessEqual(hit.sent("config", "layer", "store"), sizes(IMAGE) + excess + again)
                    self.assertEqual("warning" in self.said.err, bool(re.search("another dig|flipped|other b", name)))
                    server.close()
                    hit.close()

    def test_refused_then_up(self):
        """Nobody listens at first."""
        server, clock = self.serve(start=False), Clock()
        clock.wait = lambda timeout: (server.start(), False)[1]
        with clock.running():
            self.pull(server, "--retries", "9")
        self.assertRegex(self.said.err, "(?i)refused")       # what is waited for is said

    def test_patience(self):
        """How long a pull waits in all by its own clock, in seconds, and how often; whatever arrives starts anew."""
        busy, away = [("layer", says(503), ALWAYS)], [("layer", cut("nothing"), ALWAYS)]
        good, bad = [("tag", says(502), 1), ("config", cut(3), 2)], [("tag", says(502), 3)]
        for name, faults, retries, backoff, seconds, times, code in selected([
                ("nobody has ever answered", None, (), 0.5, (0, 5), 1, 4), ("busy", busy, (), 0.5, (90, 240), None, 4),
                ("restarts, and stays away", away, (), 0.5, (90, 240), None, 4),
                ("as many as asked for", busy, ("--retries", "2"), 0.5, (0, 9), 2, 4),
                ("none", [("config", says(503), ALWAYS)], ("--retries", "0"), 0.5, (0, 0), 0, 4),
                ("good in the end", good, ("--retries", "2"), 0.5, (0, 9), 3, 0),
                ("bad in the end", bad, ("--retries", "2"), 0.5, (0, 9), 2, 4),
                ("on and on", [("layer", cut(15000), 12)], (), 30, (200, 999), 12, 0)]):
            with self.subTest(name), Clock().running() as clock, mock.patch.object(imgpull, "BACKOFF", backoff):
                server = self.serve(faults=faults or ())
                if faults is None:
                    server.close()
                self.pull(server, "--jobs", "1", *retries, expect=code)
                self.assertTrue(seconds[0] <= sum(clock.waits) <= seconds[1], clock.waits)
                self.assertIn(len(clock.waits), [times or len(clock.waits)])
                if code:    # which names the image, not a digest alone
                    self.fails(self.said, re.escape(server.host) + "/app:v1", code=code)
                self.clean()

    def test_silence(self):
        """--timeout decides how long a peer may be silent."""
        clock = Clock()
        for seconds, is_good in [(70, True), (110, True), (70, False)]:
            with self.subTest(seconds, is_good=is_good), clock.running():
                self.pull(self.serve(faults=[("layer", clock.pause(seconds, is_good), 1)]), "--timeout", "120")
                self.assertEqual("trying again" in self.said.err, not is_good)

    def test_retry_after(self):
        """The server's wish is kept, and said; the wish for days is an error at once; None: it says nothing of use."""
        for value, seconds in selected([
                ("7", 7), (" 0 ", 0), (date_in(60), 60), (date_in(-60), 0), ("soon", None), ("-7", None), ("", None),
                (None, None), ("Thu, 99 Foo 2026 00:00:00 GMT", None), ("1e9", None), ("1.5e-9", None),
                ("86400", "days"), ("9" * 9, "days"), (date_in(9e5), "days")]):
            with self.subTest(value), Clock().running() as clock, mock.patch.object(imgpull, "BACKOFF", 0.25):
                server = self.serve(faults=[("tag", says(429, Retry_After=value), 1)])
                self.pull(server, expect=4 if seconds == "days" else 0)
                if seconds == "days":
                    self.assertEqual((clock.waits, bool(re.search("429.*asks", self.said.err))), ([], True))
                else:
                    wait, = clock.waits
                    self.assertTrue(0 < wait < 1 if seconds is None else seconds - 30 < wait <= seconds, wait)
                    self.assertRegex(self.said.err, r"429.*%.1f s" % wait)

    def test_not_repeated(self):
        """What will not pass is not tried again; a 403 costs a few requests, and no wait."""
        for status, kind in [(status, kind) for status in (400, 401, 403, 404, 405, 410, 451)
                             for kind in ("tag", "layer", "token")]:
            with self.subTest(status, kind=kind), Clock().running() as clock:
                server, _ = self.scenario(kind, (says(status, b"no"), ALWAYS))
                self.fails(self.pull(server, expect=1))
                self.assertLessEqual(server.kinds().count(kind), 2)
                self.assertEqual((self.left(), clock.waits), ([], []))


# --- what a pull refuses ---------------------------------------------------------------------------------------------

def spoiled(*path, **values):
    """A change to a manifest: the value `to` put at a path, or what is there removed."""
    def change(manifest):
        for step in path[:-1]:
            manifest = manifest[step]
        manifest[path[-1]] = values.get("to")
        if not values:
            del manifest[path[-1]]
    return change


def document(data, media_type=OCI.manifest):
    """Served in place of a manifest, under its right digest."""
    return Image(data, media_type, sha256(data), {}, (), (), b"", ())


def deep_index(depth):
    image = make_index((IMAGE, "linux/amd64"))
    for _ in range(depth):
        image = make_index((image, "linux/amd64"))
    return image


def with_change(path, **to):
    """An index (where the path begins in one), or an image, spoiled."""
    return make_index((IMAGE, "linux/amd64"), change=spoiled(*path, **to)) if path[0] == "manifests" else \
        make_image(b"one", b"two", change=spoiled(*path, **to))


def but_head(fault):
    """The fault for all but HEAD, which is refused: a tag is asked by HEAD first where a destination is there."""
    return lambda wire, request, answer: (says(405) if request.method == "HEAD" else fault)(wire, request, answer)


ESCAPES = "\x1b[2J\x1b]0;owned\x07\x00\r\x08\u202e\x9b31m"      # clears the screen, sets the title, turns text around
OK, SECOND = b"HTTP/1.1 200 OK\r\n", make_image(b"one", b"two")
ENDLESS = endless(OK + b"\r\n", b" " * 65536)


class TestRefusals(Case):
    """A registry that lies gets nothing but an error: one line, the old archive untouched, no working files."""

    DIGESTS = ["sha256:../../../etc/passwd", "md5:" + "a" * 32, "", "a" * 64, 7, None, ["sha256:" + "a" * 64]] + [
        "sha256:" + digits for digits in ("a" * 63, "a" * 65, "A" * 64, "a" * 64 + "\n", "\u0661" * 64)]
    DOCUMENTS = [(document(data), words) for data, words in [       # what the tag holds, words of the error
        (b"", "JSON"), (b'{"schemaVersion": 2, "x": "\xff\xfe"}', "JSON"), (b"[1, 2]", "JSON object"),
        (b"null", "JSON object"), (b"{}", "manifest"), (b'{"a":' * 10000 + b"1" + b"}" * 10000, "JSON"),
        (b'{"layers": ' + b"9" * 100000 + b"}", "JSON|neither"), (b'{"x": "%s"}' % (b"y" * (4 << 20)), "more than"),
        (make_image(b"x").manifest.replace(b'"size": ', b'"size": NaN, "was": '), "size is"),
        (b'{"schemaVersion": 1, "name": "app", "tag": "v1", "fsLayers": [], "history": []}', "schema 1")]
    ] + [(deep_index(20), "index"), (with_change(["config"]), "neither"), (with_change(["layers"]), "layers")
    ] + [(with_change(path, to=value), words) for path, value, words in [
        (["config"], "sha256:" + "a" * 64, "config"), (["layers"], {"0": 1}, "layers"), (["layers", 1], None, "layer"),
        (["layers"], [descriptor(b"x", OCI.layer)] * 10001, "10000"), (["manifests"], {}, "manifests"),
        (["manifests"], [], "no platform at all"), (["manifests", 0], 3, "manifests"),
        (["manifests", 0, "platform"], [1], "platform is list"), (["manifests", 0, "platform", "os"], 3, "os is int")
    ] + [(path + [key], value, key) for path in (["config"], ["manifests", 0]) for key, value in [
        ("digest", "sha256:../x"), ("size", -5)]
    ] + [(["layers", 0, "digest"], digest, "digest") for digest in DIGESTS
    ] + [(["layers", 0, "size"], size, "size|free|0 bytes") for size in [
        -1, 10.5, "12", True, None, [1], 1e3, 1 << 43, 1 << 62, 1 << 70]
    ] + [(path + ["size"], size + delta, "bytes") for delta in (-1, 1) for path, size in [      # off by one
        (["config"], len(SECOND.config)), (["manifests", 0], len(IMAGE.manifest)),
        (["layers", 0], len(SECOND.blobs[SECOND.layers[0]]))]]]

    FAULTS = [  # what is hit, what the server does, always; words of the error
        ("manifest", changed(body=lambda body: body.replace(b"sha256", b"sha512", 1)), "digest"),
        ("config", changed(body=flipped), "digest"), ("layer", changed(body=flipped), "digest.*twice"),
        ("layer", endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"), MUCH),
        ("tag", says(200, gzipped(bytes(64 << 20)), Content_Encoding="gzip"), "more than"),
        ("tag", changed(body=lambda body: gzipped(body)[:-99], Content_Encoding="gzip"), "gzip|digest|JSON"),
        ("tag", endless(b"HTTP/1.1 403 No\r\n\r\n", b"no way" * 20000), "403.*no way"),
        ("tag", says(403, ESCAPES.encode() + b"forbidden"), "forbidden"),
        ("tag", says(403, to_json({"errors": [{"code": ESCAPES, "message": ESCAPES + "no"}]})), "403"),
        ("tag", says(403, to_json({"errors": [None, [], {"message": ["x"]}]})), "403"),
        ("tag", raw(b"HTTP/1.1 403 N\x1b[2Jo\r\nContent-Length: 0\r\n\r\n"), "403"),
        ("tag", endless(OK, b"X: yes\r\n" * 1000), "headers"), ("tag", endless(OK, b"x" * 65536), "header line"),
        ("layer", endless(b"HTTP/1.1 200 ", b"x" * 65536), "status line"),
        ("layer", endless(b"", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" * 2000), "endless|end"),
        ("layer", says(206, b"12345", Content_Range="bytes 5-9/100"), "range"),
        ("tag", changed(Content_Length=["5", "6"]), "digest mismatch|JSON"), ("token", says(407), "407"),
        ("layer", redirect(307, "{url}/x y\x0bz"), "404"), ("token", says(401, b"{}"), "token server.*401")
    ] + [("layer", says(status), str(status)) for status in (204, 304, 307, 407)
    ] + [("tag", raw(data + b"\r\n"), "HTTP") for data in (b"SSH-2.0-OpenSSH_9.2", b"HTTP/1.1 0 Odd\r\n")
    ] + [(kind, ENDLESS, MUCH) for kind in ("tag", "manifest", "token", "config", "layer")
    ] + [(kind, changed(body=lambda body, more=more: (body + b" ")[:len(body) + more]), words)     # short, and long
         for more in (-1, 1) for kind, words in [
             ("manifest", "digest mismatch"), ("config", "digest mismatch"), ("layer", "announces")]
    ] + [(kind, redirect(307, place), words) for kind, place, words in [
        ("tag", "{path}", "redirect"), ("layer", "{path}?again", "redirect"), ("token", "{path}?again", "redirect"),
        ("layer", "file:///etc/passwd", "redirect|file"), ("token", "gopher://{host}/x", "redirect|gopher"),
        ("layer", "", "307"), ("layer", "http://{host}x/", "not the URL"), ("layer", "http://[::1/", "not the URL"),
        ("layer", "http:///x", "not the URL|404"), ("layer", "http://user:pass@nowhere.invalid/", "nowhere.invalid")]
    ] + [("token", says(200, body.encode()), "401" if "good" in body else "token") for body in [
        "<html>", "[]", "{}", '{"token": 7}', '{"token": ""}', '{"token": "a\\r\\nX: b"}', '{"token": "good"}']]
    CHALLENGES = [  # WWW-Authenticate, words of the error
        ("Negotiate", "negotiate|401"), ('Bearer realm="{url}/a%s"' % urllib.parse.quote("\r\nX: y"), "token.*404"),
        ('Bearer realm="http://nowhere.invalid/%s"' % ("x" * 60000), "nowhere"), (", " * 999 + "Bearer", "realm")
    ] + [('Bearer realm="%s"' % realm, "realm|not the URL") for realm in [
        "", "file:///etc/passwd", "//[x", "http://[x/", "http://a:b/"]]

    def refused(self, server, words, name="app:v1"):
        self.write("image.tar", OLD)
        run = self.pull(server, "--retries", "1", "--timeout", "2", "--force", name=name, expect=FAILED)
        self.fails(run, words, code=FAILED)
        server.close()
        self.assertEqual((read(self.tar), run.out), (OLD, b""))
        left = self.left()      # a layer that is right is kept for the next run, and that is said
        self.assertIn(left, ([], KEPT))
        self.assertEqual("run the same command again to resume" in run.err, left != [])
        self.clean()

    def test_refused(self):
        for number, (options, words) in enumerate([
                (dict(image=image), words) for image, words in self.DOCUMENTS] + [
                (dict(faults=[(kind, but_head(fault), ALWAYS)], challenges=[BEARER] * (kind == "token")), words)
                for kind, fault, words in self.FAULTS] + [
                (dict(challenges=[challenge]), words) for challenge, words in self.CHALLENGES]):
            if os.environ.get("IMGPULL_ROW", str(number)) == str(number):
                with self.subTest(number, words=words, options=repr(options)[:300]):
                    self.refused(self.serve(**dict(dict(image=INDEX), **options)), words)

    def test_documents_by_digest(self):
        """What a digest asks for is what comes, or nothing."""
        for image in (ARM, INDEX, IMAGE._replace(manifest=IMAGE.manifest + b" ")):
            server = self.serve(image)
            server.manifests["app", IMAGE.digest] = image
            self.refused(server, "digest|match", name="app@" + IMAGE.digest)

    @unittest.skipUnless(CPYTHON_ON_LINUX, "reads /proc; PyPy has a heap of another size")
    def test_memory_stays_flat(self):
        """Much data, wanted or not, takes no memory: a process meets them all, and never has more than 40 MiB."""
        layer, line = noise("huge", 1 << 20) * 32, b"x" * 65536
        huge = make_image(b"", change=spoiled("layers", to=[descriptor(layer, OCI.layer)]))
        huge.blobs[sha256(layer)] = layer
        meets = [("tag", Wire.well, 0), ("tag", ENDLESS, 5), ("layer", ENDLESS, 5),
                 ("tag", endless(OK + b"X: ", line), 4), ("tag", endless(OK, b"X: y\r\n" * 9000), 4),
                 ("layer", endless(b"HTTP/1.1 400 No\r\n\r\n", line), 1),
                 ("tag", says(200, gzipped(bytes(64 << 20)), Content_Encoding="gzip"), 5)]
        hosts = [self.serve(huge, faults=[(kind, fault, ALWAYS)]).host for kind, fault, _ in meets]
        script = ("import imgpull, sys; imgpull.BACKOFF, options = 0.01, ['-q', '--scheme', 'http', '--retries', '2']\n"
                  "codes = [imgpull.main(options + [host + '/app:v1', host[10:] + '.tar']) for host in sys.argv[1:]]\n"
                  "status = open('/proc/self/status').read()\n"
                  "print(codes + [int(status.partition('VmHWM:')[2].split()[0])])")
        shutil.copy(os.path.join(HERE, "imgpull.py"), self.dir)
        for argv in (["import imgpull"], [script] + hosts):       # compiled first, which takes memory
            out = subprocess.check_output([sys.executable, "-c"] + argv, cwd=self.dir, stderr=subprocess.DEVNULL)
        *codes, peak = json.loads(out.decode().splitlines()[-1])
        self.assertEqual(codes, [code for _, _, code in meets])
        self.assertLess(peak, 40 << 10)


# --- front doors: credentials, tokens, proxies, TLS, mirrors ---------------------------------------------------------
def b64(text):
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()


Login = namedtuple("Login", "name files options environment expect stdin warning")


def login(name, *files, options=(), environment=None, expect="user:pass", stdin="", warning=""):
    """How someone is logged in, and as whom ("" for nobody) a request must come; {host} stands for the registry."""
    return Login(name, {path: data for one in files for path, data in one.items()}, options, environment or {},
                 expect, stdin, warning)


DOCKER_CONFIG, PODMAN_CONFIG = ".docker/config.json", ".config/containers/auth.json"
MINE, THEIRS = {"auth": b64("user:pass")}, {"auth": b64("other:other")}
HUB = "https://index.docker.io/v1/"


def docker(auths, **more):
    return {DOCKER_CONFIG: dict(more, auths=auths)}


def podman(auths, path=PODMAN_CONFIG):
    return {path: {"auths": auths}}


OURS, OTHERS = {"{host}": MINE}, {"{host}": THEIRS}      # of this registry: the right login, and another one
THERE, OURS_THERE = {"DOCKER_CONFIG": "{home}/elsewhere"}, podman(OURS, "elsewhere/config.json")


class TestCredentials(Case):
    """Who has logged in with docker or podman needs no options. Rows: files in the home directory, who must come."""
    LOGINS = [login(options, options=options.split(), stdin=stdin, expect=expect) for options, stdin, expect in [
        ("", "", ""), ("--user user --password pass", "", "user:pass"), ("-u=jo -p pä:s", "", "jo:pä:s"),
        ("-u user --password-stdin", "pass\n", "user:pass"), ("-t " + b64("AWS:pass"), "", "AWS:pass"),
        ("-u user --password-stdin", " pa ss \r\n", "user: pa ss ")]
    ] + [login(str(auths), docker(auths), expect=expect) for expect, several in [
        ("user:pass", [
            {"https://{host}": MINE, "other.example": THEIRS}, {"http://{host}/v2/": MINE},
            {"{host}": MINE, "https://{host}/v1/": THEIRS}, {"{host}": {"username": "user", "password": "pass"}},
            {"{host}": {"auth": "dXNl\ncjpw\r\nYXNz\n"}}, {"{host}": {}, "https://{host}/v1/": MINE}]),
        ("user:p\udce4:s", [{"{host}": {"auth": b64("user:p\udce4:s")}}]),
        ("", [{"x{host}": MINE, "127.0.0.1": MINE, "{host}0": MINE}, {"{host}": {}}])] for auths in several
    ] + [login(str(files), *files) for files in [
        (podman(OURS), docker(OTHERS)), (podman({"x": THEIRS}), docker(OURS)),
        (podman({"{host}/team/app": MINE, "{host}/team": THEIRS, "{host}": THEIRS}),),
        (podman({"{host}": THEIRS, "{host}/team": MINE, "{host}/te": THEIRS}),),
        (docker(OTHERS, credHelpers={"{host}": "found"}),), (docker({"{host}": {}}, credsStore="found"),),
        (docker({}, credsStore="failing", credHelpers={"{host}": "found"}),)]
    ] + [login(str(files), files, expect="") for files in [
        podman({"{host}/other": THEIRS, "{host}/team/ap": THEIRS}), {DOCKER_CONFIG: b"\n"},
        docker({}, credsStore="none"), docker({}, credHelpers={"x": "found"})]
    ] + [login(str(environment), *files, environment=environment) for environment, files in [
        (THERE, (docker(OTHERS), podman(OTHERS), OURS_THERE)), (THERE, (podman(OURS),)),
        (dict(THERE, DOCKER_AUTH_CONFIG='{"auths": {"{host}": %s}}' % json.dumps(MINE)),
         (docker(OTHERS), podman(OTHERS, "elsewhere/config.json"))),
        ({"XDG_RUNTIME_DIR": "{home}/run"}, (podman(OTHERS), podman(OURS, "run/containers/auth.json"))),
        ({"REGISTRY_AUTH_FILE": "{home}/my.json"}, (podman(OTHERS), podman(OURS, "my.json"))),
        ({"XDG_CONFIG_HOME": "{home}/elsewhere"}, (podman(OURS, "elsewhere/containers/auth.json"),))]
    ] + [login("helper: " + name, docker({}, credsStore=name), expect="", warning="docker-credential-" + name)
         for name in ("failing", "rubbish", "hanging", "missing")
    ] + [login(repr(content)[:50], {DOCKER_CONFIG: content}, expect="", warning="config.json") for content in [
        b"{auths:", b"\xff\xfe", [], {"auths": ["{host}"]}, {"auths": {"{host}": {"auth": 7}}}, b" " * (5 << 20),
        {"auths": {"{host}": {"auth": "?%"}}}, {"auths": {"{host}": {"auth": b64("user")}}}, None,      # a FIFO
        {"auths": {"{host}": {"username": "\ud800", "password": "pass"}}}, {"credsStore": "../../bin/sh"}]
    ] + [
        login("an option and a file", docker(OTHERS), options=("-u=user:pass",)),
        login("with -q", docker(OURS), {PODMAN_CONFIG: b"?"}, options=("-q",), warning="auth.json is not"),
        login("rubbish", docker(OURS), environment={"DOCKER_AUTH_CONFIG": "x"}, warning="$DOCKER_AUTH_CONFIG is not"),
        login("no helper, good auths", docker(OURS, credsStore="missing"), warning="docker-credential-missing"),
        login("$REGISTRY_AUTH_FILE alone", docker(OTHERS), podman({"x": THEIRS}, "my.json"), expect="", environment={
            "REGISTRY_AUTH_FILE": "{home}/my.json", "DOCKER_AUTH_CONFIG": json.dumps({"auths": OTHERS})}),
        login("a device", environment={"REGISTRY_AUTH_FILE": "/dev/zero"}, expect="", warning="/dev/zero"),
        login("missing", environment={"REGISTRY_AUTH_FILE": "{home}/none.json"}, expect="", warning="none.json")]
    HELPERS = {"found": """cat > "$HOME/asked"; echo '{"ServerURL": "x", "Username": "user", "Secret": "pass"}'""",
               "none": 'echo "credentials not found in native keychain"; exit 1', "hanging": "exec sleep 30",
               "failing": 'printf "\\033[31mno key ring, hunter2\\n"; exit 2', "rubbish": 'echo "<hunter2>"',
               "token": """echo '{"ServerURL": "x", "Username": "<token>", "Secret": "identity-secret"}'""",
               "podman": """read server; echo "$server" >> "$HOME/asked"
                            [ "$server" = docker.io ] || { echo credentials not found; exit 1; }
                            echo '{"Username": "user", "Secret": "pass"}'"""}

    def setUp(self):
        super().setUp()
        for name, script in self.HELPERS.items():
            self.write("bin/docker-credential-" + name, "#!/bin/sh\n%s\n" % script, 0o755)
        os.environ["PATH"] = self.path("bin") + os.pathsep + os.environ["PATH"]

    def put(self, files, host):
        for name, data in files.items():
            path = self.write(name, data if isinstance(data, bytes) else json.dumps(data).replace("{host}", host))
            if data is None:
                os.remove(path)
                os.mkfifo(path)             # nobody ever writes to it

    @unittest.skipUnless(POSIX, "the helpers are shell scripts")
    def test_logins(self):
        for row in selected(self.LOGINS):
            server = self.serve(image=None, challenges=['Basic realm="fake"'])
            server.add("team/app", "v1", IMAGE)
            server.accepted = {"Basic " + b64(row.expect)} if row.expect else set()
            self.put(row.files, server.host)
            environment = {name: value.replace("{home}", self.dir).replace("{host}", server.host)
                           for name, value in row.environment.items()}
            seconds = mock.patch.object(imgpull, "HELPER_SECONDS", 0.2 if "hang" in row.name else 20)
            with self.subTest(row.name), mock.patch.dict(os.environ, environment), seconds:
                run = self.pull(server, *row.options, name="team/app:v1", stdin=row.stdin,
                                expect=0 if row.expect else FAILED)
                if not row.expect:
                    self.fails(run, code=FAILED)
                    self.assertEqual({request.authorization for request in server.requests}, {None})
                warnings = [line for line in self.said.err.splitlines() if "warning" in line]
                self.assertEqual(len(warnings), int(row.warning > ""), self.said.err)
                self.assertIn(row.warning, "".join(warnings))
                self.assertFalse(re.search(r"[\x00-\x09\x0b-\x1f]|hunter2", self.said.err))
                if "found" in json.dumps(row.files, default=repr) and row.expect:
                    self.assertEqual(read(self.path("asked")).decode().strip(), server.host)
            for name in (".docker", ".config", "elsewhere", "run"):
                shutil.rmtree(self.path(name), ignore_errors=True)
            server.close()

    @unittest.skipUnless(POSIX, "the helpers are shell scripts")
    def test_keys_of_docker_hub(self):
        """Who we are to Docker Hub, by the keys that docker and podman give it."""
        web = {HUB + "access-token": THEIRS, HUB + "refresh-token": THEIRS}
        for config, user in selected([({"auths": auths}, "user") for auths in [
                {"docker.io": THEIRS, "docker.io/library": MINE}, dict(web, **{HUB: MINE}),
                {"registry-1.docker.io": MINE}, {HUB: {}, "docker.io": MINE}, {"docker.io": THEIRS, HUB: MINE}]] + [
                ({"auths": web}, None), ({"credHelpers": {"docker.io": "found"}}, "user"),
                ({"credHelpers": {"docker.io": "podman"}}, "user"), ({"credsStore": "podman"}, "user")]):
            with self.subTest(str(config)):
                self.put({DOCKER_CONFIG: config}, "")
                warnings = []
                found = imgpull.stored_credential(imgpull.parse_reference("alpine"), os.environ, warnings.append)
                self.assertEqual((found and found.user, warnings), (user, []))
        self.assertEqual(read(self.path("asked")).decode().split(), [HUB + HUB, "docker.io", HUB, "docker.io"])

    def test_docker_hub(self):
        """Docker Hub's own name and its key in config.json, through a token server on another host."""
        tls = self.pems()
        hub = self.serve(image=None, tls=tls, challenges=['Bearer realm="https://auth.docker.io/token",service="hub"'])
        tokens = self.serve(image=None, tls=tls, challenges=['Bearer realm="{url}/token"'], users={"user": "pass"})
        hub.accepted = tokens.accepted
        self.hosts.update({"registry-1.docker.io": hub, "auth.docker.io": tokens})
        hub.add("library/alpine", "latest", IMAGE)
        self.put(docker({HUB: MINE}), "")
        run = self.run_main("--cacert", os.path.join(tls, "ca.pem"), "alpine", self.tar)
        self.assertEqual(run.code, 0, run.err)
        self.assertIn("docker.io/library/alpine:latest", run.out.decode())
        asked, = tokens.requests
        self.assertEqual((asked.authorization, asked.query), (basic("user", "pass"), {
            "service": ["hub"], "scope": ["repository:library/alpine:pull"]}))
        self.assertFalse([request for request in hub.requests if (request.authorization or "").startswith("Basic")])

    @unittest.skipUnless(POSIX, "the helpers are shell scripts")
    def test_identity_token(self):
        """An identity token is exchanged by POST, wherever it comes from; it never goes to the registry."""
        for files in (docker({"{host}": {"auth": b64("00000000-0000:"), "identitytoken": "identity-secret"}}),
                      docker({}, credsStore="token")):
            with self.subTest(files):
                server = self.serve(challenges=['Bearer realm="{url}/oauth2/token",service="fake.azurecr.io"'],
                                    token_answer=lambda token: {"access_token": token})
                self.put(files, server.host)
                self.pull(server)
                exchange, = [request for request in server.requests if request.kind == "token"]
                self.assertEqual((exchange.method, exchange.authorization, exchange.form), ("POST", None, {
                    "grant_type": ["refresh_token"], "refresh_token": ["identity-secret"], "client_id": ["imgpull"],
                    "service": ["fake.azurecr.io"], "scope": ["repository:app:pull"]}))
                self.assertNotIn("identity-secret", str([(one.target, one.authorization) for one in server.requests]))


# --- the login ladder, and quota -------------------------------------------------------------------------------------

class Scripted(LoopbackServer):
    """A registry that answers by a script, "WHAT WHO ANSWER" a request, in order; a step with ? need not come.

    WHAT: tag, config, layer, token (the realm), realm2 (another one), v2; o: before it: of the other registry,
    localhost. WHO: - for nobody, user for Basic, identity, or a token. ANSWER: a status, ok, or the token to give.
    A: asks for Basic; B, C, D, E: for a token of /token, /realm2, /token with the port twice, the other's /token.
    "all WHO" is the rest of a pull that is well."""
    IMAGE = make_image(b"a layer")
    SAID = {"400": {"code": "DENIED", "message": "Your Authorization Token is invalid"},
            "403": {"code": "DENIED", "message": "Your authorization token has expired"},
            "429": {"code": "TOOMANYREQUESTS", "message": "You have reached your pull rate limit"}}

    def __init__(self, script):
        script = re.sub("all ([^ ]+)", r"tag \1 ok, config \1 ok, layer \1 ok", script)
        self.script, self.odd = [step.split() for step in script.split(", ")], []
        super().__init__()

    def answer(self, request):
        parts = request.path.strip("/").split("/")
        kind = "tag" if "manifests" in parts else parts[0] if "blobs" not in parts else \
            "layer" if parts[-1] in self.IMAGE.layers else "config"
        request.kind = ("o:" if request.headers["Host"].startswith("localhost") else "") + kind
        who = (request.authorization or "-").replace(basic("user", "pass"), "user").replace("Bearer ", "")
        who = "identity" if "identity" in request.form.get("refresh_token", ()) else who
        while self.script and self.script[0][2].endswith("?") and self.script[0][:2] != [request.kind, who]:
            self.script.pop(0)
        if not self.script or self.script[0][:2] != [request.kind, who] or "pass" in request.target:
            self.odd.append("%s %s" % (request.kind, who))
            return Answer(404)
        return self.reply(self.script.pop(0)[2].strip("?"), request, kind)

    def reply(self, answer, request, kind):
        here, there = "http://" + request.headers["Host"], "http://localhost:%d" % self.port
        if answer == "ok":
            return Answer(200, {"tag": self.IMAGE.manifest, "config": self.IMAGE.config, "v2": b""}.get(
                kind, self.IMAGE.blobs[self.IMAGE.layers[0]]))
        if answer[0] == "t":
            return Answer(200, to_json({"token": answer}))
        if answer in ("again", "302", "303", "307", "308"):
            place = request.path + "?again" if answer == "again" else there[5:] + request.target
            return Answer(int(answer.replace("again", "307")), Location=place)
        challenge = {"": None, "A": 'Basic realm="x"', "B": 'Bearer realm="%s/token",service="s"' % here,
                     "C": 'Bearer realm="%s/realm2",service="s"' % here, "E": 'Bearer realm="%s/token"' % there,
                     "D": 'Bearer realm="%s:%d/token",service="s"' % (here, self.port)}[answer[3:]]
        body = to_json({"errors": [self.SAID.get(answer[:3], {"code": "UNAUTHORIZED", "message": "no"})]})
        return Answer(int(answer[:3]), body, WWW_Authenticate=challenge)


STORED, IDENTITY = MINE, {"auth": b64("0:"), "identitytoken": "identity"}
USER, TOKEN, STALE = ("-u", "user:pass"), ("-t", "given"), r"warning.*config\.json"
BEGUN, MINE_BEGUN = ["tag - 401B, token %s t1, tag t1 ok, config t1 ok, " % who for who in ("-", "user")]
LADDER = [  # who we are, what the registry answers to which requests; unless all is well: exit code, words on stderr
    (None, "all -"), (None, "tag - 401B, token - t1, all t1"), (STORED, "tag - 401B, token user t1, all t1"),
    (STORED, "tag - 401A, all user"), (None, "tag - 401A", 3, "user"), (None, "tag - 401D, token - t1, all t1"),
    # tokens that expire, told in three ways, and with another realm (nvcr.io)
    (None, BEGUN + "layer t1 401B, token - t2, layer t2 ok"), (None, BEGUN + "layer t1 400, layer - 400", 1, "400"),
    (None, BEGUN + "layer t1 400, layer - 401B, token - t2, layer t2 ok"),
    (None, BEGUN + "layer t1 403, layer - 401B, token - t2, layer t2 ok"),
    (None, BEGUN + "layer t1 401, layer - 401, v2 - 401B, token - t2, layer t2 ok"),
    (None, BEGUN + "layer t1 401C, token - 403, realm2 - t2, layer t2 ok"),
    (STORED, MINE_BEGUN + "layer t1 403, layer - 401B, token user t2, layer t2 403", 3, "403"),
    # the challenge only at /v2/
    (None, "tag - 401, v2 - 401B, token - t1, all t1"), (None, "tag - 401, v2 - ok", 3, "401"),
    (STORED, "tag - 403, v2 - 401B, token user t1, all t1"), (STORED, "tag - 404, v2 - 401B, token user t1, all t1"),
    (STORED, "tag - 404, v2 - 401A, all user"), (STORED, "tag - 404, v2 - 401B, token user t1, tag t1 404", 3, "404"),
    (STORED, "tag - 404, v2 - ok", 3, "404"), (None, "tag - 404, v2 - ok?", 3, "404"), (USER, "tag - 400", 1, "400"),
    (None, "tag - 403, v2 - 401B?, token - t1?, tag t1 403?", 3, "403"), (STORED, "tag - 403, v2 - 403", 3, "403"),
    (USER, "tag - 403, v2 - 401B, token user t1, tag t1 403", 3, "403"), (STORED, "tag - 401, v2 - 401", 3, "401"),
    # a stored login that is stale; what was given is never dropped
    (STORED, "tag - 401B, token user 403, token - t2, all t2", 0, STALE),
    (IDENTITY, "tag - 401B, token identity 401, token - t2, all t2", 0, STALE),
    (STORED, "tag - 401B, token user 401, token - t1, tag t1 ok, config t1 401B, token - t2, config t2 ok, layer t2 ok",
     0, STALE),
    (STORED, "tag - 401B, token user 401, token - 401", 3, STALE + ".*error.*login from"),
    (STORED, "tag - 401B, token user 401, token - t2, tag t2 401B", 3, STALE + ".*error.*log ?in"),
    (STORED, "tag - 401A, tag user 401A", 3, "login from"), (USER, "tag - 401B, token user 401", 3, "login from"),
    (USER, "tag - 401A, tag user 401A", 3, "login from"), (TOKEN, "tag - 401B, tag given 401B", 3, "login from"),
    # another registry that sends its own challenge: an anonymous token, and nothing of ours
    (STORED, "tag - 307, o:tag - 401B, o:token - t2, tag - 307, o:tag t2 ok, config - ok, layer - ok"),
    (STORED, MINE_BEGUN + "layer t1 307, o:layer - 401B, o:token - t2, layer t1 307, o:layer t2 ok"),
    (TOKEN, "tag - 401B, tag given ok, config given ok, layer given 307, o:layer - 401B, o:token - t2, "
            "layer given 307, o:layer t2 ok"), (STORED, "tag - 307, o:tag - 401A", 3, "localhost"),
    (USER, "tag - 307, o:tag - 401B, o:token - 401", 3, "localhost|token server"),
    # redirects and realms: the secret goes to its own host, and to the realm that this names
    (USER, "tag - 401A, tag user 307, o:tag - ok, config user 302, o:config - ok, layer user 308, o:layer - ok"),
    (TOKEN, "tag - 401B, tag given again, tag given ok, config given again, config given ok, layer given 303, "
            "o:layer - ok"), (STORED, "tag - 401B, token user 307, o:token - t1, all t1"),
    (STORED, "tag - 401E, o:token user t1, tag t1 ok, config t1 ok, layer t1 307, o:layer - ok"),
    (STORED, "tag - 401B, token user 302, o:token - 401, token - 302?, o:token - 401?", 3, STALE + ".*error.*401"),
    (IDENTITY, "tag - 401B, token identity 307", 1, "redirect"),
    # quota: at once, with what helps
    (None, "tag - 429", 4, "pull rate limit.*log in"), (STORED, "tag - 401B, token user t1, tag t1 429", 4, "limit"),
    (None, BEGUN + "layer t1 429", 4, "pull rate limit.*log in")]


class TestLadder(Case):
    def test_ladder(self):
        """What is asked, and what comes of it: no more requests than these, and no wait."""
        for who, script, *end in selected(LADDER):
            with self.subTest(script, who=who), Clock().running() as clock:
                server, (code, words) = Scripted(script), end or (0, "")
                self.addCleanup(server.close)
                self.write(DOCKER_CONFIG, {"auths": {server.host: who} if isinstance(who, dict) else {}})
                run = self.pull(server, "--jobs", "1", *(who if isinstance(who, tuple) else ()), expect=code)
                self.assertEqual((server.odd, [step for step in server.script if "?" not in step[2]]), ([], []), run)
                self.assertTrue(re.search("(?is)" + words, self.said.err), self.said.err)
                self.assertEqual(("warning" in self.said.err, clock.waits), (STALE in words, []))
                self.clean()

    def test_quota(self):
        """A manifest is not fetched where a local archive has it; then its tag costs a HEAD, which is free."""
        head, both, every, held = ["HEAD tag"], ["HEAD tag", "GET tag"], ("--platform", "all"), self.path("held.tar")
        for image, options, local, answer, asked in selected([
                (IMAGE, (), "destination", None, head), (IMAGE, (), "--base", None, head),
                (IMAGE, (), "--reuse", None, head), (INDEX, every, "destination", None, head),
                (INDEX, (), "destination", None, both),     # the archive does not have the index
                (IMAGE, (), "destination", changed(Docker_Content_Digest=None), both),
                (IMAGE, (), "destination", says(405), both), (IMAGE, (), None, None, ["GET tag"]),
                (ARM, ("--platform", "linux/arm64"), "destination", None, both)]):      # the tag has moved
            with self.subTest(local=local, answer=answer, image=image.digest):
                server, is_destination = self.serve(INDEX if image is INDEX else IMAGE), local == "destination"
                self.clean(self.tar, held)
                self.pull(server, *(() if image is ARM else options), tar=self.tar if is_destination else held)
                server.add("app", "v1", image)
                del server.requests[:]
                server.faults = [Fault("tag", answer or Wire.well, 1)]
                self.pull(server, *options, *(() if is_destination or not local else (local, held)), fresh=False)
                self.assertEqual(["%s %s" % (request.method, request.kind) for request in server.requests
                                  if request.kind in ("tag", "manifest")], asked)

    def test_claimed_index(self):
        """What an archive claims to be chosen from is no proof: the registry's own image comes, not the archive's."""
        evil = make_index((make_image(b"evil"), "linux/amd64"))
        made = self.pull(self.serve(evil), "--name", "app:v1").replace(evil.digest.encode(), INDEX.digest.encode())
        for local, path in (("--reuse", self.write("held.tar", made)), (None, self.tar)):
            with self.subTest(local):
                self.write("image.tar", made)
                self.pull(self.serve(INDEX), "--name", "app:v1", *((local, path) if local else ()), fresh=bool(local))
                self.assertEqual(imgpull.list_archive(self.tar)[0].digest, IMAGE.digest)


Product = namedtuple("Product", "name challenge answer user")


class TestProducts(Case):
    """The token dance of each product, from its public documentation: the challenge, the token server's answer (None:
    there is none), a user as people have there."""
    PRODUCTS = [Product(*row) for row in [
        ("Docker Hub", 'Bearer realm="{url}/token",service="registry.docker.io",scope="repository:app:pull"',
         '{"token": "%s", "access_token": "%s", "expires_in": 300, "issued_at": "2024-12-14T00:00:00Z"}', "u:dckr_pat"),
        ("ECR Public", 'Bearer realm="{url}/token/",service="public.ecr.aws",scope="aws"',
         '{"token": "%s"}', "AWS:pass"), ("ECR", 'Basic realm="{url}/",service="ecr.amazonaws.com"', None, "AWS:eyJw"),
        ("Azure", 'Bearer realm="{url}/oauth2/token",service="fake.azurecr.io",scope="repository:app:pull"',
         '{"access_token": "%s"}', "app-id:secret"), ("Google", 'Bearer realm="{url}/v2/token",service="gcr.io"',
         '{"token": "%s"}', '_json_key:{"type": "service_account"}'),
        ("Harbor", 'Bearer realm="{url}/service/token",service="harbor-registry",scope="repository:app:pull"',
         '{"token": "%s", "access_token": "", "expires_in": 1800}', "robot$pull:secret"),
        ("Nexus", 'BASIC realm="Sonatype Nexus Repository Manager"', None, "user:pass")]]

    def test_products(self):
        for product, user in [(one, user) for one in selected(self.PRODUCTS) for user in ("", one.user)]:
            with self.subTest(product.name, user=user):
                pair, expect = user.partition(":")[::2], 0 if product.answer or user else FAILED
                server = self.serve(INDEX, challenges=[product.challenge], users=dict([pair]) if user else None,
                                    token_answer=lambda token: json.loads(product.answer.replace("%s", token)))
                self.pull(server, *("-u", user) if user else (), expect=expect)
                query = dict([("scope", "repository:app:pull")] + re.findall(
                    '(service|scope)="(.*?)"', product.challenge.format(url=server.url)))
                self.assertEqual([({name: request.query[name][0] for name in query}, request.authorization)
                                  for request in server.requests if request.kind == "token"],
                                 [(query, basic(*pair) if user else None)] * bool(product.answer))
                if expect == 0:   # the 401, the token, and then nothing but what a public image takes
                    self.assertEqual(len(server.requests), 7 if product.answer else 6)


class TestSecrets(Case):
    """Passwords, tokens and identity tokens reach the host and scheme they are for (LADDER), and nobody's eyes."""
    SECRETS = ("hunter2-password", "identity-secret", "bearer-secret", b64("user:hunter2-password"))
    LOGINS = [  # the options, what is in config.json, the challenge
        (("-u", "user", "-p", "hunter2-password"), None, 'Basic realm="x"'), (("-t", "bearer-secret"), None, BEARER),
        ((), None, BEARER), ((), {"identitytoken": "identity-secret"}, BEARER)]

    def test_never_over_plain_http(self):
        """Redirects and realms do not lead from https to plain http, with a secret or without."""
        plain, ca = self.serve(INDEX), os.path.join(self.pems(), "ca.pem")
        realm = {"challenges": ['Bearer realm="%s/token"' % plain.url]}
        for options, login in [({"faults": [(kind, redirect(307, plain.url + "{path}"), ALWAYS)]}, None)
                               for kind in ("tag", "manifest", "layer")] + [
                (realm, {"auth": b64("user:hunter2-password")}), (realm, {"identitytoken": "identity-secret"})]:
            with self.subTest(str(options), login=login):
                server = self.serve(INDEX, tls=self.pems(), **options)
                self.write(DOCKER_CONFIG, {"auths": {server.host: login} if login else {}})
                self.fails(self.pull(server, "--cacert", ca, "--retries", "0", expect=FAILED), "http", code=FAILED)
        self.assertEqual(plain.requests, [])

    def test_several_registries(self):
        """Options for one registry with images of several: refused, and nothing is asked."""
        one, two = sorted([self.serve(), self.serve()], key=lambda server: server.host)
        pair = ("-c", self.write("c.pem", b"x"), "-k", self.write("k.pem", b"x"))
        for options in selected([("-u", "ann:hunter2-password"), ("-t", "token-secret"), ("-i",), ("-s", "http"),
                                 ("--ns", "docker.io"), pair]):
            with self.subTest(options):
                run = self.run_main(*options, one.host + "/app:v1", two.host + "/app:v1", self.tar)
                self.fails(run, "one registry.*%s.*%s" % (one.host, two.host), code=2)
        self.assertEqual(one.requests + two.requests, [])

    def test_plain_beside_verified(self):
        """An https://HOST/ is never asked over http, also beside a plain line of the same loopback registry."""
        plain, verified = [line % self.serve(INDEX).host for line in ("%s/app:v1", "https://%s/app:v1 x:1")]
        for lines in selected([[plain], [verified], [verified, plain], [plain, verified]]):
            with self.subTest(lines):
                self.write("list", "\n".join(lines))
                run = self.run_main("--retries", "0", "--force", "--from", self.path("list"), self.tar)
                self.assertEqual((run.code > 0, "does not speak TLS" in run.err), (verified in lines,) * 2, run.err)

    # Command lines with a secret, hunter2, in every place where people put one; {list} is the list below.
    LEAKS = [words + " x.tar" for words in [
        "--pasword=hunter2 app", "-password hunter2 app", "--key hunter2 -t hunter2 -u hunter2 app", "--from {list}",
        "-u ann -p hunter2 app", "-u ann --password-stdin=hunter2 app", "--name https://u:hunter2@h.test/a app",
        "--name u:hunter2@h.test/a app", "--ns https://hunter2@h.test app", "--manifest list u:hunter2@h.test/a"]
    ] + [words % (url + "host.test/app") for words in ("%s x.tar", "--base-image %s app x.tar") for url in [
        "HTTPS://ann:hunter2@", "https://hunter2@", "ann:hunter2@", "https://ann:hun/hunter2@",
        "https://ann:p@hunter2@", "ann:hunter2/p@", "https://ann:hunter2@sha1.", "https://hunter2@sha256."]
    ] + ["https://ann:hunter2@host.test/app@sha256:" + "a" * 64 + " x.tar"]
    LIST = "ann:hunter2@host.test/app\nhttps://hunter2@host.test/app\napp x hunter2\napp https://u:hunter2@h.test/app\n"

    def test_command_lines(self):
        """A secret in a command line or list is in no output, however it is run."""
        path = self.write("list", self.LIST)
        for words in selected(self.LEAKS):
            for more in ("", "--parsed", "--json --debug", "--dry-run"):
                with self.subTest(words, more=more):
                    run = self.run_main("--retries", "0", *(more + " " + words.format(list=path)).split())
                    self.assertNotIn("hunter2", run.err + run.out.decode())
                    self.assertFalse(re.search("Traceback|internal error", run.err), run.err)
                    self.assertIn(run.code, range(5), run.err)

    def test_unseen(self):
        """No secret, token or signature of a redirect is shown, whatever a server repeats; a store gets none."""
        def repeats(status):
            def fault(wire, request, answer):
                body = "%s %s" % (request.authorization, request.form)
                told = Answer(status, to_json({"errors": [{"code": body, "message": "hunter2-password " + body}]}))
                cut(20)(wire, request, told) if status == 200 else wire.send(told)
            return fault
        for kind, status, (options, stored, challenge) in [
                (kind, status, login) for kind in ("tag", "layer", "token", "store")
                for status in (None, 200, 400, 403, 500) for login in self.LOGINS]:
            with self.subTest(challenge, options=options, stored=stored, status=status, kind=kind):
                faults = [(kind, repeats(status), ALWAYS)] if status is not None else []
                store = self.serve(faults=faults)
                server = self.serve(challenges=[challenge], store=store if kind == "store" else None, faults=faults)
                server.accepted |= {basic("user", "hunter2-password"), "Bearer bearer-secret"}
                self.write(DOCKER_CONFIG, {"auths": {server.host: stored} if stored else {}})
                run = self.run_main("-s", "http", "--debug", "--json", "--retries", "1", "--force", *options,
                                    server.host + "/app:v1", self.tar)
                self.assertRegex(run.err, "GET .*/v2/app/manifests/v1 : [245]0[0-3]")     # --debug is of use
                if kind != "token":
                    self.assertEqual(run.code == 0, status is None, run.err)
                for secret in self.SECRETS + ("token-1", "token-2", "token-3", "signature=abc"):
                    self.assertNotIn(secret, run.out.decode() + run.err)
                self.assertEqual([request for request in store.requests if request.authorization], [])
                self.assertEqual(bool(store.requests), kind == "store")
                self.clean(self.tar, *map(self.path, self.left()))


def tunnel(wire, host, port):
    """Carry bytes between a client and who it wants to talk to."""
    with socket.create_connection((host.strip("[]"), int(port))) as far:
        ends = {wire.connection: far, far: wire.connection}
        while not wire.server.closing.is_set():
            for end in select.select(list(ends), [], [], 0.05)[0]:
                data = end.recv(65536)
                if not data:
                    wire.connection.shutdown(socket.SHUT_RDWR)
                    return
                ends[end].sendall(data)


class ProxyWire(Wire):
    def do_CONNECT(self):
        self.serve()
        if self.request_now.status == 200:
            self.close_connection = True
            tunnel(self, *self.path.rsplit(":", 1))


class FakeProxy(LoopbackServer):
    """A forward proxy: CONNECT is tunnelled; absolute-form requests are answered by `behind`, a FakeRegistry."""
    handler, user, status = ProxyWire, "", 200

    def __init__(self, behind):
        self.behind = behind
        super().__init__()

    def answer(self, request):
        if self.user and request.headers["Proxy-Authorization"] != "Basic " + b64(self.user):
            return Answer(407, b"who are you?", Proxy_Authenticate='Basic realm="corporate"')
        if request.method == "CONNECT" or self.status != 200:
            return Answer(self.status)
        return self.behind.answer(request)


class SocksWire(socketserver.StreamRequestHandler):
    def handle(self):
        """RFC 1928, with the user and password of RFC 1929, by name; each request is noted as (host, port)."""
        server, take = self.server, lambda: self.rfile.read((self.rfile.read(1) or b"\0")[0])
        self.rfile.read(1)
        method = 2 if server.user else 0
        if method not in take() or server.bad == "methods":
            self.wfile.write(b"\5\xff")
            return
        self.wfile.write(bytes([5, method]) if server.bad != "version" else b"HTTP/1.1 400 Bad Request\r\n\r\n")
        if method:
            self.rfile.read(1)
            self.wfile.write(b"\1\0" if (take() + b":" + take()).decode() == server.user else b"\1\1")
        if self.rfile.read(4) == b"\5\1\0\3":
            place = take().decode(), struct.unpack(">H", self.rfile.read(2))[0]
            server.requests.append(place)
            self.wfile.write(bytes([5, server.code, 0, 1, 0, 0, 0, 0, 0, 0])[:4 if server.bad == "cut" else 10])
            if not server.code and server.bad != "cut":
                tunnel(self, *place)


class FakeSocks(LoopbackServer):
    handler, user, code, bad = SocksWire, "", 0, ""


class TestProxies(Case):
    CHOICES = [row.rsplit(" ", 1) for row in [      # scheme, environment, the proxy (-: direct)
        "https -", "https https_proxy=p:3 http://p:3", "https HTTPS_PROXY=p:3 http://p:3", "https https_proxy= -",
        "https https_proxy=http://low:1 HTTPS_PROXY=http://up:1 http://low:1", "https http_proxy=http://p:3 -",
        "http HTTP_PROXY=http://p:3 http://p:3", "http https_proxy=http://p -", "http ALL_PROXY=http://p:3 http://p:3",
        "https all_proxy=http://all:1 https_proxy=http://p:3 http://p:3"]]
    NO_PROXY = [  # no_proxy, hosts that are reached directly, hosts that are not
        ("", "", "reg.example"), ("*", "reg.example 10.1.2.3", ""), ("REG.Example", "reg.example REG.Example", ""),
        ("reg.example", "reg.example reg.example. a.reg.example reg.example:5000", "notreg.example"),
        (".example", "reg.example", "regexample"), ("*.example", "reg.example", "regexample"),
        ("reg.example:443", "reg.example", ""), ("reg.example:5000", "reg.example:5000", "reg.example"),
        ("a, b ,,reg.example ", "reg.example", "x.example"), ("example/8, 10.0.0.0/99", "", "reg.example 10.1.2.3"),
        ("10.0.0.0/8", "10.1.2.3", "11.1.2.3"), ("10.1.2.3", "10.1.2.3:5000", "10.1.2.30"),
        ("2001:db8::/32", "[2001:db8::1]", "[2001:db9::1]"), ("[2001:db8::1]:5", "[2001:db8::1]:5", "[2001:db8::1]")]
    # Scheme, proxy, the user that it wants, its fault, exit code, words of the error. A proxy of HTTP gets CONNECT, or
    # plain http in absolute form; one of SOCKS5 resolves the name. Over plain http, its 401 may be the registry's.
    THROUGH = [(scheme, "http://j%C3%B6:hunter2%40%2F%e4@{}", "jö:hunter2@/\udce4", {}, 0, "")
               for scheme in ("http", "https")
    ] + [(scheme, "http://jo:hunter2@{}", user, fault, 3, words) for scheme, user, fault, words in [
        ("http", "jo:x", {}, "proxy.*USER:PASSWORD@"), ("https", "jo:x", {}, "proxy.*USER:PASSWORD@"),
        ("https", "", {"status": 401}, "proxy.*USER:PASSWORD@"), ("http", "", {"status": 403}, "403"),
        ("https", "", {"status": 403}, "proxy.*403")]
    ] + [(scheme, url, user, {}, 0, "") for scheme, url, user in [
        ("http", "socks5://{}", ""), ("https", "socks5h://{}", ""), ("http", "socks5h://jo:hunter2@{}", ""),
        ("https", "SOCKS5H://jo:hunter2%40@{}/", "jo:hunter2@"), ("http", "socks5://jo:hunter2:@{}", "jo:hunter2:")]
    ] + [("http", "socks5h://jo:hunter2@{}", user, fault, code, "proxy.*" + words) for user, fault, code, words in [
        ("jo:x", {}, 3, "USER:PASSWORD@"), ("", {"bad": "methods"}, 3, ""), ("", {"code": 2}, 3, ""),
        ("", {"code": 5}, 4, "error 5"), ("", {"bad": "version"}, FAILED, ""), ("", {"bad": "cut"}, 4, "")]
    ] + [(scheme, url, "", {}, 4, "proxy.*refused") for scheme, url in [
        ("http", "http://jo:hunter2@127.0.0.1:1"), ("https", "http://127.0.0.1:1"), ("http", "socks5h://127.0.0.1:1")]
    ] + [("http", "socks5h://{}", "jo:x", {}, 3, "proxy.*USER:PASSWORD@")
    ] + [("http", url, "", {}, 2, "proxy") for url in [
        "http://", "socks4://h:1", "http://[::1", "http://a:b:c", "http://h:70000", "http://jo:hun/hunter2@h:1",
        "jo:12/hunter2@h:1", "http://jo:7?hunter2@h", "http://jo:hunter2@h#hunter2@h:1", "http://jo:hunter2://x@h"]]

    def test_choices(self):
        rows = [(words.split()[0] + "://reg.example", dict(word.split("=") for word in words.split()[1:]), proxy)
                for words, proxy in self.CHOICES]
        rows += [("https://" + host, {"https_proxy": "http://p:3", name: value}, proxy)
                 for name in ("no_proxy", "NO_PROXY") for value, *both in self.NO_PROXY
                 for proxy, hosts in zip(["-", "http://p:3"], both) for host in hosts.split()]
        rows += [("%s://%s:5000" % (scheme, host), {scheme + "_proxy": "p:3", "all_proxy": "p:3"}, "-")
                 for scheme in ("http", "https") for host in ("localhost", "127.0.0.1", "127.255.0.9", "[::1]")]
        for url, environment, proxy in selected(rows):
            with self.subTest(url, **environment):
                self.assertEqual(imgpull.usable_proxy(imgpull.origin_of(url), environment) or "-", proxy)

    def test_origins(self):
        """Whom a URL leads to; what can be none never gets into a request, and its secrets into no message."""
        for url, origin in ("HTTP://H.Test:80/v2/", "h.test"), ("https://u:p@[::1]:5/x", "[::1]:5"), ("http://h?", "h"):
            self.assertEqual(str(imgpull.origin_of(url)), origin)
        for url in ("https://", "https://h:99999", "https://[::1", "https://a\x7f/", "//h", "https://a:s3cret@h b/",
                    "ftp://a:b@s3cret@h/?s3cret#s3cret", "https://[?s3cret"):
            with self.subTest(url), self.assertRaisesRegex(imgpull.ImgpullError, "^((?!s3cret).)*$"):
                imgpull.origin_of(url)

    def test_through(self):
        """The proxy gets its own user, and of https nothing but the name; the registry not that user; none is shown."""
        for scheme, url, user, fault, code, words in selected(self.THROUGH):
            with self.subTest(url, scheme=scheme, user=user, fault=fault):
                server = self.serve(tls=self.pems() if scheme == "https" else None, challenges=['Basic realm="x"'],
                                    users={"user": "pass"})
                socks = "socks" in url.lower()
                proxy = self.serve(image=None, kind=FakeSocks if socks else lambda: FakeProxy(server))
                vars(proxy).update(fault, user=user)
                self.hosts["reg.test"], host = server, "reg.test:%d" % server.port
                self.clean(self.tar)
                with mock.patch.dict(os.environ, all_proxy=url.format(proxy.host)):
                    run = self.run_main("-s", scheme, "--debug", "--cacert", os.path.join(self.pems(), "ca.pem"),
                                        "-u=user:pass", "--retries", "0", host + "/app:v1", self.tar)
                self.assertNotIn("hunter2", run.err)
                if code:
                    self.fails(run, words, code=code)
                    self.assertEqual(server.requests, [])
                    continue
                self.assertEqual(run.code, 0, run.err)
                seen, first = proxy.requests, "http://%s/v2/app/manifests/v1" % host
                if socks:
                    self.assertEqual(set(seen), {("reg.test", server.port)})
                elif scheme == "https":
                    self.assertEqual({(one.method, one.target, one.authorization) for one in seen},
                                     {("CONNECT", host, None)})
                else:
                    self.assertEqual((seen[0].target, seen[0].headers["Host"]), (first, host))
                for request in server.requests:
                    self.assertEqual((request.headers["Host"], request.headers["Proxy-Authorization"]), (host, None))

    def test_dead_address(self):
        """An address that does not answer is passed over, and not tried again before the ones that do; IPv6 as well."""
        server = self.serve(faults=[("tag", changed(Connection="close"), 1)])
        asked, dial = [], socket.create_connection
        dead = {"::1": OSError(errno.EAFNOSUPPORT, "no IPv6"), "127.0.0.9": socket.timeout("timed out")}
        def resolve(host, port, *rest):
            return [info for number in (*dead, "127.0.0.1") for info in REAL_GETADDRINFO(number, port, *rest)]
        def connect(address, timeout):
            asked.append((address[0], timeout))
            if address[0] in dead:
                raise dead[address[0]]
            return dial(address, timeout)
        with mock.patch("socket.getaddrinfo", resolve), mock.patch("socket.create_connection", connect):
            run = self.run_main("--retries", "0", "http://three.test:%d/app:v1" % server.port, self.tar)
        self.assertEqual(run.code, 0, run.err)
        self.assertEqual(asked[:3], [("::1", 5), ("127.0.0.9", 5), ("127.0.0.1", 30)])
        self.assertEqual({address for address, _ in asked[3:]}, {"127.0.0.1"})


class TestTLS(Case):
    def test_tls(self):
        """Whom we reach, as whom; what is wrong with TLS, or with files that we are given (wrong usage): what helps."""
        pem, path = lambda name: os.path.join(self.pems(), name), re.escape
        none, rubbish = self.path("none"), self.write("rubbish", b"rubbish")
        ca, mtls, http = ("-x", pem("ca.pem")), {"client_ca": pem("ca.pem")}, {"tls": None}
        expired, elsewhere = {"certificate": "expired.pem"}, {"host": "elsewhere.test"}
        ours = ca + ("--cert", pem("client.pem"), "--key")
        authority, client, key = (read(pem(name)) for name in ("ca.pem", "client.pem", "client.key"))
        self.write("hashed/406a94b4.0", authority)                          # OpenSSL's name for our CA's subject
        self.write("certs.d/127.0.0.1/client.cert", client)                 # for port 443 alone
        date = "out of date" if sys.version_info >= (3, 7) else "certificate"
        stores = [dict(mtls, faults=[("layer", redirect(307, "https://localhost:%d{path}" % self.serve(
            tls=self.pems(), **wants).port), ALWAYS)]) for wants in ({}, mtls)]
        for name, code, server, options, words, *more in selected([(name, 0, server, options, "", *more) for
                name, server, options, *more in [       # the last: files in certs.d (bytes), or the environment
                    ("insecure", {}, ("--insecure",)), ("insecure, expired", expired, ("-i",)),
                    ("insecure, another host", elsewhere, ("-i",)),
                    ("$SSL_CERT_FILE", {}, (), {"SSL_CERT_FILE": pem("ca.pem")}),
                    ("$SSL_CERT_DIR", {}, (), {"SSL_CERT_DIR": self.path("hashed")}),
                    ("certs.d", {}, (), {"mine.crt": authority}), ("--cert", mtls, ours + (pem("client.key"),)),
                    ("certs.d, all", mtls, (), {"ca.crt": authority, "client.cert": client, "client.key": key}),
                    ("a store", stores[0], ours + (pem("client.key"),)),
                    # A loopback registry without TLS is spoken to over http, unless https was asked for.
                    ("loopback", http, ()), ("loopback by name", dict(http, host="localhost"), ())] + [
                    (host, {"host": host}, ca) for host in ("127.0.0.1", "REG.Test", "[::1]", "localhost")]] + [
                ("loopback, https", 1, http, ca + ("-s", "https"), "does not speak TLS.*--scheme http"),
                ("no loopback", 1, dict(http, host="reg.test"), (), "does not speak TLS.*--scheme http"),
                ("asked in plain http", FAILED, {}, ("-s", "http"), ""),
                ("unknown CA", 1, {}, (), "certificate.*--cacert"), ("expired", 1, expired, ca, date + ".*--insecure"),
                ("another CA", 1, {}, ("-x", pem("client.pem")), "certificate.*right CA.*--cacert"),
                ("another host", 1, elsewhere, ca, "another name.*--insecure"),
                ("no certificate of ours", 1, mtls, ca, "--cert"),
                ("a store, which is not shown --cert", 1, stores[1], ours + (pem("client.key"),), "localhost"),
                ("certs.d, no key", 2, mtls, (), "client.key cannot be used", {"client.cert": client}),
                ("CA file missing", 2, {}, ("-x", none), path(none)),
                ("CA file rubbish", 2, {}, ("-x", rubbish), path(rubbish)),
                ("CA a directory", 2, {}, ("-x", self.dir), path(self.dir) + ".*must be a file"),
                ("certificate missing", 2, {}, ca + ("--cert", none, "--key", pem("client.key")), path(none)),
                ("key missing", 2, {}, ours + (none,), path(none)),
                ("key rubbish", 2, {}, ours + (rubbish,), "client.pem"),
                ("key of another", 2, {}, ours + (pem("server.key"),), "client.pem.*belong together"),
                ("key locked, no terminal", 2, {}, ours + (pem("locked.key"),), "pass phrase")]):
            with self.subTest(name):
                settings = dict({"tls": self.pems(), "host": ""}, **server)
                host, server = settings.pop("host"), self.serve(**settings)
                self.hosts = {host.lower().strip("[]"): server}
                host, environment = "%s:%d" % (host or "127.0.0.1", server.port), {}
                for file, content in more[0].items() if more else ():
                    if isinstance(content, bytes):
                        self.write("certs.d/%s/%s" % (host, file), content)
                    else:
                        environment[file] = content
                self.clean(self.tar)
                with mock.patch.dict(os.environ, environment):
                    run = self.run_main("--retries", "0", *options, host + "/app:v1", self.tar)
                if code:
                    self.fails(run, words, code=code)
                    self.assertEqual(self.left(), [])
                else:
                    self.assertEqual((run.code, "not verified" in run.err), (0, "insecure" in name), run.err)
                    self.assertEqual(server.requests[-1].headers["Host"].lower(), host.lower())

    def test_private_authorities(self):
        """Python 3.13 and later refuse CAs without a key usage; docker, curl and older Pythons take them."""
        context = imgpull.tls_context(imgpull.TLSFiles((), None, None, False))
        self.assertFalse(context.verify_flags & ssl.VERIFY_X509_STRICT)
        self.assertEqual((context.check_hostname, context.verify_mode), (True, ssl.CERT_REQUIRED))


class TestMirrors(Case):
    def test_namespace(self):
        """--ns, as containerd asks a mirror: namespace, reference, what is asked for, the name in the archive."""
        for ns, text, asked, sent, named in selected([row.split() for row in [
                "quay.io a/b:8 a/b quay.io quay.io/a/b:8", "Quay.IO/ a/b:8 a/b quay.io quay.io/a/b:8",
                "quay.io quay.io/a/b:8 quay.io/a/b - quay.io/a/b:8", "quay.io q/a/b:8 q/a/b quay.io quay.io/q/a/b:8",
                "index.docker.io alpine:3 library/alpine docker.io docker.io/library/alpine:3",
                "docker.io user/app:3 user/app docker.io docker.io/user/app:3",
                "- quay.io/a/b:8 quay.io/a/b - h.test:5/quay.io/a/b:8"]]):
            with self.subTest(ns, text=text):
                wanted, name, namespace = imgpull.mirrored(imgpull.parse_reference("h.test:5/" + text), ns.strip("-"))
                self.assertEqual((str(wanted), str(name), namespace or "-"), (
                    "h.test:5/%s:%s" % (asked, text[-1]), named, sent))
        for ns in ("a b", "quay.io/a", "http://quay.io"):
            with self.subTest(ns), self.assertRaisesRegex(imgpull.UsageError, "--ns takes"):
                imgpull.mirrored(imgpull.parse_reference("h.test:5/a"), ns)

    def test_requests(self):
        """?ns= goes with every request to the mirror, not to the store that it sends to."""
        store = self.serve()
        for options, named in [((), "quay.io/app:v1"), (("--name", "x:y"), "docker.io/library/x:y")]:
            server = self.serve(namespace="quay.io", store=store, challenges=[BEARER])
            manifest, = json.loads(members(self.pull(server, "--ns", "quay.io", *options))["manifest.json"].decode())
            self.assertEqual(manifest["RepoTags"], [named])
            self.assertEqual({tuple(request.query.get("ns", ())) for request in server.requests
                              if request.kind != "token"}, {("quay.io",)})
        self.assertEqual({tuple(request.query) for request in store.requests}, {("signature",)})


# --- resuming, interruptions, full disks -----------------------------------------------------------------------------

MIXED = make_image(noise("first", 3000000), noise("second", 500000), b"third")
KEPT = ["image.tar.part", "image.tar.part.state"]
START = "import sys, imgpull; imgpull.BACKOFF = 0.01; sys.exit(imgpull.main(sys.argv[1:]))"
# Killed at the sys.argv[1]th call or return, by signal sys.argv[2]: of any thread by SIGKILL, else of the main thread,
# which hears it. Says how many there were, and which of them began a thread.
STRIKE = """
import os, signal, sys, threading, imgpull
strike, number, calls, begins = int(sys.argv[1]), int(sys.argv[2]), 0, []
def profile(frame, event, _):
    global calls
    if event != "c_call" and frame.f_code.co_filename in (imgpull.__file__, threading.__file__):
        calls += 1
        if frame.f_code is threading.Thread.start.__code__:
            begins.append(calls)
        if calls == strike:
            os.kill(os.getpid(), number)
signal.signal(signal.SIGINT, signal.SIG_DFL)    # as when it is run as a script, until main() has its own
if number == signal.SIGKILL:
    threading.setprofile(profile)
sys.setprofile(profile)
code = imgpull.main(sys.argv[3:])
sys.setprofile(None)
print(calls, *begins, file=sys.stderr)
sys.exit(code)
"""


def until(condition):
    """Wait for something that happens in another thread or process."""
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("waited in vain")
        time.sleep(0.003)


def when(condition, fault):
    """A fault for the requests that meet a condition, a function of the Request."""
    return lambda wire, request, answer: (fault if condition(request) else Wire.well)(wire, request, answer)


def only_for(digest, fault):
    """A fault for the requests of one blob."""
    return when(lambda request: digest in request.path, fault)


def ends_inside(data):
    """True if the bytes of a tar end in the middle of a member: then no reader takes it for a whole one."""
    place = end = 0
    while place + 512 <= len(data):
        end = place + 512 + int(data[place + 124:place + 135], 8)
        place = end + -end % 512
    return end > len(data)


def size_of(image, layers=None):
    """Bytes of an image's layers."""
    return sum(len(image.blobs[layer]) for layer in (image.layers if layers is None else layers))


class InProcess(Case):
    """imgpull in a process of its own; interrupted pulls."""

    def start(self, server, *options, tar=None, script=START):
        words = options + ("--scheme", "http", server.host + "/app:v1", tar or self.tar)
        process = subprocess.Popen([sys.executable, "-c", script] + [str(word) for word in words], cwd=HERE,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(process.__exit__, None, None, None)
        self.addCleanup(process.kill)
        return process

    def good(self, image=MIXED):
        """The archive of an undisturbed pull."""
        return self.pull(self.serve(image), "--name", "x:1", tar=self.path("good"))

    def resume(self, good, server, jobs=1):
        """Run the same command again: the good archive; what is here does not come again, but a piece a connection."""
        here = b"".join(read(path) for path in (self.tar + ".part", self.tar) if os.path.exists(path))
        pairs = [(data, here[good.index(data):][:len(data)]) for data in map(MIXED.blobs.get, MIXED.layers)]
        missing = sum(len(data[at:at + 4096]) for data, there in pairs for at in range(0, len(data), 4096)
                      if data[at:at + 4096] != there[at:at + 4096])
        before = server.sent("layer")
        self.assertEqual(self.pull(server, "--name", "x:1", fresh=False), good)
        self.assertLessEqual(server.sent("layer") - before, missing + jobs * imgpull.PIECE)
        self.assertEqual(self.left(), [])

    def interrupt(self):
        """A pull that broke off in the middle of its first layer; the bytes that it has fetched."""
        self.clean()
        server = self.serve(MIXED, faults=[("layer", cut(1500000), 1), ("layer", says(503), ALWAYS)])
        self.fails(self.pull(server, "--name", "x:1", "--retries", "0", "--jobs", "1", expect=FAILED), "same command")
        self.assertEqual(self.left(), KEPT)
        self.assertGreater(server.sent("layer"), 900000)
        return server.sent("layer")


class TestResume(InProcess):
    INTERRUPTS = int(os.environ.get("IMGPULL_INTERRUPTS") or 24)

    @unittest.skipUnless(POSIX, "signals are POSIX")
    def test_signals(self):
        """Killed at once, or told to stop: one line, no traceback, and what has arrived is kept."""
        good, layer = self.good(), MIXED.blobs[MIXED.layers[0]]
        for numbers in selected([[signal.SIGKILL], [signal.SIGINT], [signal.SIGTERM], [signal.SIGINT] * 3,
                                 [signal.SIGTERM] * 3, [signal.SIGINT, signal.SIGTERM]]):
            with self.subTest(str(numbers)):
                server = self.serve(MIXED, faults=[("layer", silent(2000000), 1)])
                process = self.start(server, "--name", "x:1", "--jobs", "1")
                until(lambda: os.path.exists(self.tar + ".part") and layer[:1700000] in read(self.tar + ".part"))
                for number in numbers:
                    process.send_signal(number)
                err = process.communicate(timeout=20)[1].decode()
                by_signal = [-number for number in numbers] * (len(numbers) > 1 or signal.SIGKILL in numbers)
                self.assertIn(process.returncode, by_signal + [130] * (signal.SIGKILL not in numbers), err)
                if process.returncode == 130:
                    self.assertEqual(len(re.findall("imgpull: interrupted.*same command", err)), 1, err)
                self.assertNotIn("Traceback", err)
                self.assertEqual(self.left(), KEPT)
                self.resume(good, server)
                self.assertIn("resuming: ", self.said.err)
                os.remove(self.tar)

    @unittest.skipUnless(POSIX, "signals are POSIX")
    def test_killed_at_any_instant(self):
        """Whatever was being done: run again, the archive is right, and what was there is not fetched again."""
        good, server, rng = self.good(), self.serve(MIXED), random.Random(2)
        for number, times in ((signal.SIGKILL, 4), (signal.SIGINT, 2), (signal.SIGTERM, 4)):
            err = self.start(server, 0, int(number), "--name", "x:1", script=STRIKE).communicate()[1]
            count, *begins = map(int, err.splitlines()[-1].split())
            # Among them: when some of the threads run already, and some do not yet.
            for strike in begins[:8 // times] + rng.sample(range(1, count), self.INTERRUPTS // times):
                with self.subTest(str(number), strike=strike):
                    self.clean(self.tar)
                    process = self.start(server, strike, int(number), "--name", "x:1", script=STRIKE)
                    err = process.communicate(timeout=60)[1].decode()
                    self.assertIn(process.returncode, (0, 130, -number), err)
                    self.assertNotIn("Traceback", err.split("Exception ignored")[0])
                    self.resume(good, server, jobs=6)

    def test_state_and_part_file_are_not_trusted(self):
        """In every state of disrepair: the archive is right all the same; what is not ours stays as it is."""
        good = self.good()

        def header(**values):
            return lambda data: imgpull.compact(dict(json.loads(data.partition(b"\n")[0].decode()), **values)) + \
                b"\n" + data.partition(b"\n")[2]

        def layers(*blob, times=1):
            return header(layers=[[MIXED.layers[0]] + list(blob)] * times)
        foreign = [("random bytes", lambda data: noise("state", len(data))), ("a text", lambda data: b"my thesis"),
                   ("deep JSON", lambda data: b"[" * 100000 + b"\n"), ("empty", lambda data: b""), ("gone", None)]
        states = [
            ("deep JSON that is ours", lambda data: data[:11] + b"[" * 100000 + b"\n"),
            ("a piece short", lambda data: data[:-1]), ("without pieces", lambda data: data[:data.index(b"\n")]),
            ("every piece", lambda data: data[:-5] + b"\1" * 5), ("odd pieces", lambda data: data[:-5] + b"\xff1\2"),
            ("pieces without end", lambda data: data[:-5] + b"\1" * (64 << 20)), ("no layers", header(layers=None)),
            ("a version of a million digits", lambda data: data[:11] + b"9" * 1000000 + data[12:]),
            ("odd layers", layers("x", None)), ("odd digests", header(layers=[[[1], 0, 3000000]])),
            ("a layer at -1", layers(-1, 3000000)), ("a layer beyond the end", layers(1 << 62, 3000000)),
            ("a layer of 2^62", layers(0, 1 << 62)), ("odd old ones", header(old={"x": 7})),
            ("a layer elsewhere", layers(0, 3000000)), ("many layers", layers(0, 3000000, times=100000))]
        parts = [("part gone", None), ("shorter", lambda data: data[:1500000]),
                 ("zeros", lambda data: bytes(len(data))), ("longer", lambda data: data + bytes(5000)),
                 ("tampered with", lambda data: data[:500000] + b"x" + data[500001:])]
        for name, change in selected(foreign + states + parts):
            with self.subTest(name):
                self.interrupt()
                path = self.tar + (".part" if (name, change) in parts else ".part.state")
                data = change and change(read(path))
                os.remove(path)
                if change:
                    self.write(os.path.basename(path), data, 0o600)
                server = self.serve(MIXED)
                if (name, change) in foreign:
                    before = read(self.tar + ".part")
                    self.fails(self.pull(server, "--name", "x:1", expect=6), "not a file of imgpull", code=6)
                    self.assertTrue(read(self.tar + ".part") == before)
                else:
                    self.assertEqual(self.pull(server, "--name", "x:1"), good)
                    self.assertEqual(self.left(), [])
                self.assertLess(len(server.requests), 20)

    def test_tag_moved(self):
        """Another image by now: what both have in common stays, the rest goes; also if that is interrupted, too."""
        moved = make_image(noise("first", 3000000), b"new", noise("also new", 1500000))
        for twice in (False, True):
            with self.subTest(twice=twice):
                sent = self.interrupt()
                server = self.serve(moved, faults=[("layer", cut(0), ALWAYS)] * twice)
                if twice:
                    self.pull(server, "--name", "x:1", "--retries", "0", expect=FAILED)
                    server.faults = []
                self.assertEqual(self.pull(server, "--name", "x:1"), self.good(moved))
                self.assertLessEqual(server.sent("layer"), size_of(moved) - sent + imgpull.PIECE)
                self.assertEqual(self.left(), [])

    def test_two_at_once(self):
        """The second pull to a destination says so and stops; the first goes on."""
        gate = threading.Event()
        server = self.serve(MIXED, faults=[("layer", silent(100000, gate), 1)])
        thread = threading.Thread(target=lambda: imgpull.pull(server.host + "/app:v1", self.tar, scheme="http"))
        thread.start()
        until(lambda: server.sent("layer") >= 100000)
        self.fails(self.pull(self.serve(), expect=7), "another imgpull", re.escape(self.tar), code=7)
        gate.set()
        thread.join()
        self.assertEqual((imgpull.verify_archive(self.tar), self.left()), ([], []))

    def test_disk_full(self):
        """No space at the start, or none midway: a clear error; with room, the same command goes on."""
        with mock.patch("shutil.disk_usage", return_value=mock.Mock(free=1000)):
            self.fails(self.pull(self.serve(MIXED), expect=6), "needs 3.5 MB", "1.0 kB free", code=6)
        self.assertEqual(self.left(), [])
        write, count = imgpull.write_all, [0]

        def full(file, data):
            count[0] += len(data)
            if count[0] > 1500000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(file, data)
        server = self.serve(MIXED)
        with mock.patch.object(imgpull, "write_all", full):
            self.fails(self.pull(server, "--name", "x:1", "-j1", expect=6), "No space left", "again to resume", code=6)
        self.assertEqual(self.left(), KEPT)
        self.assertEqual(self.pull(server, "--name", "x:1"), self.good())


@unittest.skipUnless(POSIX, "links, owners and modes are POSIX")
class TestSharedDirectory(InProcess):
    """What others do to the files beside the destination: never their bytes, never their file, never a hang."""

    PLANTED = [
        ("a symlink", lambda path, victim: os.symlink(victim, path)), ("a FIFO", lambda path, _: os.mkfifo(path)),
        ("a link to nothing", lambda path, victim: os.symlink(path + ".none", path)),
        ("a hard link", lambda path, victim: os.link(victim, path)), ("a directory", lambda path, _: os.mkdir(path)),
        ("a browser's file", lambda path, victim: shutil.copy(victim, path))]

    def test_planted(self):
        """Only what our state file lists is ours: anything else is left as it is, and named."""
        for (name, plant), kept in [(row, kept) for row in selected(self.PLANTED) for kept in KEPT]:
            with self.subTest(name, kept=kept):
                victim, path, server = self.write("victim", b"precious"), self.path(kept), self.serve()
                plant(path, victim)
                before = os.lstat(path)
                run = self.run_main("-s", "http", server.host + "/app:v1", self.tar)
                self.fails(run, re.escape(path), "not a file of", "another name", code=6)
                self.assertEqual(server.sent("layer"), 0)
                now = os.lstat(path)
                self.assertEqual((read(victim), now.st_ino, now.st_mode), (b"precious", before.st_ino, before.st_mode))
                self.assertEqual(self.left(), [kept])
                (os.rmdir if os.path.isdir(path) else os.remove)(path)
                self.clean(victim)

    def test_planted_later(self):
        """Ours are private. A file of others in the place of ours, and one in the way of keeping it: both stay."""
        for name, user, mode in selected([("of another user", 1, 0o600), ("that others may write", 0, 0o666)]):
            self.interrupt()
            self.assertEqual({os.stat(self.path(kept)).st_mode & 0o777 for kept in KEPT}, {0o600})
            os.chmod(self.tar + ".part", mode)
            before = read(self.tar + ".part")
            with self.subTest(name), mock.patch("os.geteuid", return_value=os.geteuid() + user):
                self.fails(self.pull(self.serve(MIXED), expect=6), "not a file of yours", code=6)
            self.assertTrue(read(self.tar + ".part") == before)
        self.interrupt()
        self.write("image.tar.part.old", b"theirs")
        self.pull(self.serve(make_image(noise("first", 3000000), b"moved")))
        self.assertEqual((self.left(), read(self.tar + ".part.old")), (["image.tar.part.old"], b"theirs"))

    def test_meddled_with(self):
        """The part file removed, replaced or cut while it is written: an error, never another file's bytes."""
        part = self.tar + ".part"
        for name, meddle in selected([
                ("removed", lambda: os.remove(part)), ("cut", lambda: os.truncate(part, 0)),
                ("replaced", lambda: (os.remove(part), self.write("image.tar.part", b"x" * 300000)))]):
            with self.subTest(name):
                self.clean()
                self.write("image.tar", OLD)
                server = self.serve(make_image(BIG, b"second"), faults=[
                    ("layer", lambda wire, request, answer, meddle=meddle: (meddle(), wire.send(answer)), 1)])
                self.fails(self.pull(server, "--jobs", "1", expect=6), "by another program", code=6)
                self.assertEqual(read(self.tar), OLD)

    def test_without_locks(self):
        """A file system without locks: a pull works all the same, and leaves nothing when it fails."""
        with mock.patch("fcntl.flock", side_effect=OSError(errno.ENOLCK, "No locks available")):
            self.fails(self.pull(self.serve(faults=[("layer", says(404), ALWAYS)]), expect=3), "404", code=3)
            self.assertEqual(self.left(), [])
            self.pull(self.serve())
        self.assertEqual((imgpull.verify_archive(self.tar), self.left()), ([], []))


class TestKept(InProcess):
    """Whatever ends a pull: what is right stays for the next run, which fetches only the rest; and that is said."""

    def test_failures(self):
        for name, fault in selected([("404", says(404)), ("502", says(502)), ("wrong bytes", changed(body=flipped)),
                                     ("not HTTP", raw(b"SSH-2.0\r\n")), ("a loop", redirect(307, "{path}"))]):
            with self.subTest(name):
                server = self.serve(MIXED, faults=[("layer", only_for(MIXED.layers[1], fault), ALWAYS)])
                self.fails(self.pull(server, "--retries", "0", "--jobs", "1", expect=FAILED), "again to resume")
                self.assertEqual(self.left(), KEPT)
                fresh = self.serve(MIXED)
                self.pull(fresh, "--name", "x:1")
                self.assertNotIn(MIXED.layers[0], " ".join(request.path for request in fresh.requests))
                self.assertEqual((self.left(), imgpull.verify_archive(self.tar)), ([], []))

    def test_failing_disk(self):
        """Any flush that fails fails the pull, also one that ends when all layers are there: Linux reports it once."""
        for call in ("os.fdatasync", "os.fsync"):
            begun, arrived, reporter = threading.Event(), threading.Event(), imgpull.Reporter()
            reporter.layer = lambda *_, arrived=arrived: arrived.set()
            if call == "os.fsync":              # which comes at the end
                begun.set()

            def late(*_, begun=begun, arrived=arrived):
                begun.set()
                until(arrived.is_set)
                raise OSError(errno.EIO, "Input/output error")
            server = self.serve(make_image(BIG), faults=[("layer", silent(1000, begun), 1)])
            self.write("image.tar", OLD)
            with self.subTest(call), mock.patch(call, late, create=True), \
                    mock.patch.object(imgpull, "FLUSH_BYTES", 0), \
                    self.assertRaisesRegex(imgpull.DiskError, "cannot be written: Input/output error"):
                imgpull.pull(server.host + "/app:v1", self.tar, scheme="http", reporter=reporter)
            self.assertEqual(read(self.tar), OLD)

    def test_left_behind(self):
        """A thread that waits for a name while its pull has failed harms neither the next try nor its archive."""
        again, resolve = [], self.resolve
        self.hosts["slow.test"] = self.serve(MIXED)

        def linger(host, *rest, **named):
            if host == "slow.test":
                again.append(host)
                until(lambda: len(again) > 1)       # the next try asks, too
            return resolve(host, *rest, **named)

        def gone(wire, *_):
            until(lambda: again)
            wire.send(Answer(404))
        act = only_for(MIXED.layers[1], redirect(307, "http://slow.test:%d{path}" % self.hosts["slow.test"].port))
        names = [self.serve(image, faults=[("layer", fault, ALWAYS)]).host + "/app:v1"
                 for image, fault in ((MIXED, act), (ARMV6, gone))]
        with mock.patch("socket.getaddrinfo", linger):
            run = self.run_main("--keep-going", "--retries=0", *["http://" + name for name in names] + [self.tar])
        self.assertEqual((len(again) > 1, run.code, imgpull.verify_archive(self.tar)), (True, 1, []), run.err)
        self.assertEqual([image.name for image in imgpull.list_archive(self.tar)], names[:1])

    def test_signal_after_the_commit(self):
        """What is done is done: a signal that comes after the rename leaves no state behind."""
        replace, strike = os.replace, mock.Mock(side_effect=KeyboardInterrupt)
        with mock.patch("os.replace", lambda *paths: (replace(*paths), strike())):
            run = self.run_main("-s", "http", self.serve().host + "/app:v1", self.tar)
        self.assertIn(run.code, (0, 130))
        self.assertEqual((strike.call_count, imgpull.verify_archive(self.tar), self.left()), (1, [], []))
        self.assertNotIn("resume", run.err)


class TestTime(Case):
    """What a server can cost in time and connections."""

    def test_counted(self):
        """No free tries: silence on a kept-alive connection is a failure; a refresh token may be used by one try."""
        layers = self.serve(make_image(b"one", b"two", b"three"), faults=[("layer", silent(None), ALWAYS)])
        tokens = self.serve(challenges=[BEARER], faults=[("token", cut("nothing"), ALWAYS)])
        self.write(DOCKER_CONFIG, {"auths": {tokens.host: {"identitytoken": "identity"}}})
        for server, kind, words in (layers, "layer", "timed out: no data for 0.3 s"), (tokens, "token", "closed"):
            with self.subTest(kind):
                self.fails(self.pull(server, "--timeout=0.3", "--retries=0", "--jobs=1", expect=4), words, code=4)
                self.assertEqual(server.kinds().count(kind), 1)
                self.clean()

    def test_a_byte_now_and_then(self):
        """A peer that drips for ever is given up: headers, manifests, tokens, layers."""
        def head(wire, request, answer):
            for byte in answer.head():
                wire.wfile.write(bytes([byte]))
                wire.server.closing.wait(0.02)
        for kind, fault in selected([("tag", head)] + [(kind, slow(1000, 0.02)) for kind in ("tag", "token", "layer")]):
            with self.subTest(kind, fault=fault), mock.patch.object(imgpull, "SLOW_SECONDS", 0.2):
                server = self.serve(make_image(b"x" * 500), challenges=[BEARER], faults=[(kind, fault, ALWAYS)])
                self.fails(self.pull(server, "--retries=0", "--timeout=0.4", expect=4), "only .* in 0.8 s", code=4)

    def test_endless_connect(self):
        """A proxy that answers CONNECT with headers without end."""
        proxy = self.serve(image=None, kind=lambda: FakeProxy(None))
        proxy.answer = lambda request: Answer(200, X=["y" * 60000] * 20)
        with mock.patch.dict(os.environ, https_proxy="http://" + proxy.host):
            self.fails(self.run_main("--retries", "0", "reg.test/app", self.tar), code=FAILED)

    def test_contexts_and_connections(self):
        """Two hosts, of which one has twenty layers: one TLS context for both; a connection a worker, not a request."""
        ca, store = os.path.join(self.pems(), "ca.pem"), self.serve(image=None, tls=self.pems())
        server = self.serve(make_image(*[b"layer %d" % number for number in range(20)]), tls=self.pems(), store=store)
        store.blobs = server.blobs
        with mock.patch("ssl.create_default_context", wraps=ssl.create_default_context) as made, \
                mock.patch.object(store, "process_request", wraps=store.process_request) as opened:
            self.pull(server, "--cacert", ca, "--jobs", "3")
        self.assertEqual((made.call_count, opened.call_count <= 4), (1, True), opened.call_count)

    def test_tokens_for_two_requests(self):
        """A registry whose tokens last for two requests, and six workers that share one."""
        numbers, used, lock = iter(range(1000)), [], threading.Lock()
        server = self.serve(make_image(*[b"layer %d" % number for number in range(30)]), challenges=[BEARER],
                            token_answer=lambda _: {"token": "t%d" % next(numbers)})
        answer = server.answer

        def counted(request):
            with lock:
                used.append(request.authorization)
                if used.count(request.authorization) > 2:
                    server.accepted.discard(request.authorization)
            return answer(request)
        server.answer = counted
        self.pull(server, "--jobs", "6")
        self.assertGreater(next(numbers), 10)


class TestPieces(InProcess):
    """Layers in pieces, into a file and into a pipe (`-`: the archive to stdout, in order, nothing on disk)."""

    SMALL = mock.patch.multiple(imgpull, PIECE=20000, BUFFER=16 << 10, LEAST_RUN=2)

    def archive(self, server, *options, tar):
        """Pull to a tar or "-": its bytes, with nothing left on the disk beside it."""
        before = [name for name in os.listdir(self.dir) if name != "image.tar"]
        got = self.pull(server, "--name", "x:1", *options, tar=tar)
        self.assertEqual([name for name in os.listdir(self.dir) if name != "image.tar"], before)
        self.assertIn("x:1", self.said.err if tar == "-" else self.said.out.decode())   # where it does no harm
        return got.out if tar == "-" else got

    @SMALL
    def test_through_faults(self):
        """Whatever happens to the first, third or ninth request, of one, two or six connections: the same bytes."""
        image = make_image(BIG, b"", noise("second", 90000), b"small", noise("third", 20000))
        good, ranged = self.good(image), lambda request: request.range
        for name, act, times in selected([
                ("cut", cut(7000), 3), ("cut at once", cut(0), 3), ("reset", reset(7000), 2), ("busy", says(503), 3),
                ("silent", silent(3000), 1), ("whole", whole, 1), ("no ranges", whole, ALWAYS),
                ("416", when(ranged, says(416)), 1), ("no ranges for us", when(ranged, says(403)), ALWAYS),
                ("other ranges", other_range, 5), ("chunked", chunked(), ALWAYS), ("closed", stale, ALWAYS)]):
            for before, jobs, tar in [(0, 1, "-"), (0, 6, "-"), (2, 2, "-"), (8, 6, "-"), (0, 6, self.tar),
                                      (2, 2, self.tar)]:
                with self.subTest("%s, after %d, %d jobs" % (name, before, jobs), tar=tar):
                    server = self.serve(image, faults=[("layer", Wire.well, before), ("layer", act, times)])
                    self.assertEqual(self.archive(server, "--jobs", str(jobs), "--timeout", "0.3", tar=tar), good)
                    server.close()

    @SMALL
    def test_failures(self):
        """The first failure of any connection is told, once; what went into a pipe before does not load."""
        image = make_image(noise("layer", 400000))
        for kind, place, act, words in selected([
                ("config", 0, says(404), "404"), ("config", 0, changed(body=flipped), "digest"),
                ("layer", 0, changed(body=lambda body: body[:-1]), "sent too little"),
                ("layer", 0, endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536), "")] + [
                ("layer", place, act, words) for act, words, *places in [
                    (says(404), "answered 404", 0, 100000), (says(403), "answered 403", 0),
                    (cut(100), "closed the connection", 0, 100000),
                    (changed(body=flipped), "digest mismatch", 0, 100000, 300000)] for place in places]):
            for tar in ("-", self.tar):
                with self.subTest("%s, %s from %d" % (kind, words, place), tar=tar):
                    fault = when(lambda request: request.first >= place, act)
                    server = self.serve(image, faults=[(kind, fault, ALWAYS)])
                    run = self.pull(server, "--retries", "0", tar=tar, expect=FAILED)
                    self.fails(run, words, code=FAILED)
                    self.assertFalse(os.path.exists(self.tar))
                    if tar == "-":
                        self.assertTrue(not run.out or ends_inside(run.out))
                        self.assertTrue(faults_of(self.write("broken.tar", run.out)))
                    self.clean()
                    server.close()

    @SMALL
    def test_front_breaks_off(self):
        """The front of a layer breaks off while others fill the ring, and then ranges are refused: no hang."""
        image = make_image(noise("layer", 800000))
        good = self.good(image)
        for again in (whole, says(403)):
            broken = []

            def act(wire, request, answer):
                if request.first or broken:
                    return when(lambda request: broken and request.range, again)(wire, request, answer)
                wire.send_head(answer)
                wire.send_body(answer.body[:1000])
                until(lambda: wire.server.sent("layer") > 160000)
                time.sleep(0.2)             # for a run that does not fit into the ring
                broken.append(request)
                return wire.drop()
            with self.subTest(again):
                server = self.serve(image, faults=[("layer", act, ALWAYS)])
                self.assertEqual(self.archive(server, "--jobs", "2", tar="-"), good)

    @SMALL
    def test_requests(self):
        """Never more connections than --jobs, but all of those for one layer; no more requests than it takes."""
        def together(wire, request, answer):        # none gets anything before six have asked
            until(lambda: wire.server.kinds().count("layer") >= 6)
            wire.send(answer)
        image, well = make_image(noise("layer", 2000000), noise("second", 90000)), Wire.well        # 106 pieces
        for tar, jobs, limit, act in selected([
                ("-", 1, 2, well), (self.tar, 1, 2, well), ("-", 2, 32, well), (self.tar, 2, 24, well),
                (self.tar, 6, 8, whole), ("-", 6, 8, whole), (self.tar, 6, 45, together), ("-", 6, 99, together)]):
            with self.subTest(tar, jobs=jobs, limit=limit):
                server, most = self.serve(image, faults=[("layer", act, ALWAYS)]), []
                deliver = server.deliver
                server.deliver = lambda *args: (most.append(len(server.open)), deliver(*args))
                self.pull(server, "--jobs", str(jobs), tar=tar)
                self.assertLessEqual(max(most), jobs)
                self.assertLessEqual(server.kinds().count("layer"), limit)

    def test_reuse_into_a_pipe(self):
        """Layers of --reuse, right and wrong ones: read before they go into the pipe; those of absurd size."""
        good = self.good()
        kept, server = self.write("kept.tar", good), self.serve(MIXED)
        self.assertEqual(self.archive(server, "--reuse", kept, tar="-"), good)
        self.assertEqual(server.sent("layer"), 0)
        place = good.index(MIXED.blobs[MIXED.layers[0]]) + 1000000
        self.write("kept.tar", good[:place] + b"?" + good[place + 1:])
        self.assertEqual(self.archive(server, "--reuse", kept, tar="-"), good)
        self.assertEqual(server.sent("layer"), size_of(MIXED, MIXED.layers[:1]))
        for size, options, tar in selected([(size, options, tar) for size in (1, 1 << 43, 1 << 59)
                                            for options in ((), ("--reuse", kept)) for tar in ("-", self.tar)]):
            with self.subTest(size, options=options, tar=tar):
                server = self.serve(claiming(MIXED, size))
                run = self.pull(server, *options + ("--retries", "0"), tar=tar, expect=FAILED)
                self.fails(run, "impossible size" if size == 1 << 59 else "", code=FAILED)
                self.assertLess(len(run.out) + len(server.requests), 4 << 20)
                self.clean()

    @unittest.skipUnless(POSIX, "non-blocking pipes")
    def test_non_blocking(self):
        """Standard output that does not block: written in full, without asking over and over while it is full."""
        ours, theirs = os.pipe()
        os.set_blocking(theirs, False)
        with open(ours, "rb") as reader, open(theirs, "wb", buffering=0) as writer:
            file = mock.Mock(fileno=writer.fileno, write=mock.Mock(side_effect=writer.write))
            thread = threading.Thread(target=imgpull.write_all, args=(file, bytes(200000)), daemon=True)
            thread.start()
            until(lambda: file.write.call_count > 1)
            thread.join(0.1)                    # it has nothing to do, and must not find something
            self.assertLess(file.write.call_count, 10)
            self.assertEqual(reader.read(200000), bytes(200000))
            thread.join()

    def test_closed_pipe(self):
        """Whoever reads goes away: one line."""
        process = self.start(self.serve(MIXED), tar="-")
        process.stdout.read(1000)
        process.stdout.close()
        err = process.stderr.read().decode()
        self.assertEqual((process.wait(), err.count("imgpull: error"), "Traceback" in err), (1, 1, False), err)

    def settled(self, number):
        """Wait until a function gives the same number for a while: nothing moves any more."""
        seen = []
        until(lambda: seen.append(number()) or len(seen) > 60 and len(set(seen[-60:])) == 1 and seen[-1])

    @unittest.skipUnless(CPYTHON_ON_LINUX, "reads /proc; PyPy has a heap of another size")
    def test_memory_of_a_slow_reader(self):
        """What is read ahead is bounded, whatever the reader does: below 48 MiB with all else."""
        layer = noise("huge", 1 << 20) * 96
        image = make_image(b"", change=spoiled("layers", to=[descriptor(layer, OCI.layer)]))
        image.blobs[sha256(layer)] = layer
        good = self.good(image)
        script = ("import imgpull, sys; code = imgpull.main(sys.argv[1:]); print([line.split()[1] for line in\n"
                  "open('/proc/self/status') if line.startswith('VmHWM')][0], file=sys.stderr); sys.exit(code)")
        for jobs in ("1", "6", "64"):
            with self.subTest(jobs):
                server = self.serve(image)
                process = self.start(server, "-q", "--jobs", jobs, "--name", "x:1", tar="-", script=script)
                self.settled(lambda: server.sent("layer"))      # nobody reads
                self.assertLess(server.sent("layer"), len(layer))
                self.assertEqual(process.stdout.read(), good)
                self.assertLess(int(process.stderr.read().split()[-1]), 48 << 10)

    @unittest.skipUnless(POSIX, "signals")
    def test_interrupted_while_nobody_reads(self):
        """Ctrl-C ends it at once, also if a thread is stuck in writing to the pipe."""
        server = self.serve(make_image(noise("huge", 1 << 20) * 32))
        process = self.start(server, tar="-")
        self.settled(lambda: server.sent("layer"))
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(10), 130)
        self.assertEqual(process.stderr.read().decode().splitlines()[-1], "imgpull: interrupted")


# --- signatures and other referrers ----------------------------------------------------------------------------------

BUNDLE, SIMPLE = "application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.dev.cosign.simplesigning.v1+json"
SPDX, DSSE = "application/spdx+json", "application/vnd.dsse.envelope.v1+json"
EMPTY, PREDICATE = "application/vnd.oci.empty.v1+json", "dev.sigstore.bundle.predicateType"
IMAGE_KIND, INDEX_KIND, SIGS, ATTS = ["dev.cosignproject.cosign/" + one for one in "image imageIndex sigs atts".split()]


def wrapped(config, config_type, layer, content, **more):
    manifest = to_json(dict({"schemaVersion": 2, "mediaType": OCI.manifest, "config": descriptor(config, config_type),
                             "layers": [layer]}, **more))
    blobs = {sha256(blob): blob for blob in (config, content)}
    return Image(manifest, OCI.manifest, sha256(manifest), blobs, [sha256(content)], (), config, ())


def make_referrer(subject, layer_type=BUNDLE, content=b"", artifact=None, **more):
    """A manifest that refers to a subject, as cosign 3, ORAS and notation push them."""
    content = content or b"%s of %s" % (layer_type.encode(), subject.digest.encode())
    return wrapped(b"{}", EMPTY, descriptor(content, layer_type), content, **dict({
        "artifactType": artifact or layer_type, "subject": descriptor(subject.manifest, subject.media_type)}, **more))


def make_signature(subject, layer_type=SIMPLE):
    """What stands under cosign's older tags: an image of layers that are none, which has no subject."""
    content = b"%s for %s" % (layer_type.encode(), subject.digest.encode())
    config = to_json({"architecture": "", "os": "", "config": {},
                      "rootfs": {"type": "layers", "diff_ids": [sha256(content)]}})
    layer = descriptor(content, layer_type, annotations={"dev.cosignproject.cosign/signature": "MEUC"})
    return wrapped(config, OCI.config, layer, content)


def tag_of(image, suffix=""):
    return image.digest.replace(":", "-") + suffix


def on(image, suffix):
    """An older signature, attestation or SBOM of an image, and its tag."""
    types = {".sig": SIMPLE, ".att": DSSE, ".sbom": "text/spdx"}
    return make_signature(image, types[suffix]), tag_of(image, suffix)


PROVENANCE = make_image(b"provenance", architecture="unknown", os="unknown", change=lambda manifest: manifest.update(
    layers=[dict(layer, mediaType="application/vnd.in-toto+json", annotations={
        "in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"}) for layer in manifest["layers"]]))
BUILT = make_index((PROVENANCE, "unknown/unknown"), (ARM, "linux/arm64"), (IMAGE, "linux/amd64"),
                   change=lambda index: index["manifests"][0]["annotations"].update(
                       {"vnd.docker.reference.digest": IMAGE.digest}))
SBOM, SIGNATURE, OF_INDEX = make_referrer(IMAGE, SPDX), make_referrer(IMAGE), make_referrer(INDEX)
IMAGE_SIG, INDEX_SIG, HELM = on(IMAGE, ".sig"), on(INDEX, ".sig"), make_artifact()
REFERS = make_index((ARMV6, None), change=lambda index: index.update(
    subject=descriptor(IMAGE.manifest, OCI.manifest), artifactType="application/x"))
# pushed: referrers, or (image, tag). kinds: of what comes along. kind: cosign's, of the image's descriptor in
# index.json; unnamed: {cosign's kind: digest} of the other descriptors there.
Referring = namedtuple("Referring", "name image pushed kinds kind unnamed options")
Referring.__new__.__defaults__ = ((),)
REFERRALS = [Referring(*row) for row in [
    ("nothing", INDEX, [], "", None, {}), ("of another platform", INDEX, [make_referrer(ARM)], "", None, {}),
    ("an SBOM and its signature", IMAGE, [SBOM, make_referrer(SBOM)], "SBOM signature", IMAGE_KIND, {}),
    ("all of the older ones", IMAGE, [on(IMAGE, suffix) for suffix in (".sig", ".att", ".sbom")],
     "SBOM attestation signature", IMAGE_KIND, {SIGS: IMAGE_SIG[0].digest, ATTS: on(IMAGE, ".att")[0].digest}),
    ("older, of the index", INDEX, [INDEX_SIG], "signature", None,
     {INDEX_KIND: INDEX.digest, SIGS: INDEX_SIG[0].digest}),
    ("an SBOM of the manifest", INDEX, [SBOM, OF_INDEX], "SBOM signature", None, {IMAGE_KIND: INDEX.digest}),
    ("BuildKit's", BUILT, [make_referrer(BUILT)], "provenance signature", None, {IMAGE_KIND: BUILT.digest}),
    ("BuildKit's, signed", BUILT, [make_referrer(PROVENANCE)], "provenance signature", IMAGE_KIND, {}),
    ("older, all platforms", INDEX, [INDEX_SIG, on(ARM, ".sig")], "signature signature", INDEX_KIND,
     {SIGS: INDEX_SIG[0].digest}, ("--platform", "all")),
    ("of all kinds", IMAGE, [make_referrer(IMAGE, layer, artifact=kind, annotations={PREDICATE: "https://" + predicate})
                             for kind, layer, predicate in [
        (BUNDLE, BUNDLE, "sigstore.dev/cosign/sign/v1"), (BUNDLE, BUNDLE, "spdx.dev/Document"), ("x/sbom", "x/y", ""),
        (BUNDLE, BUNDLE, "slsa.dev/provenance/v1"), (BUNDLE, BUNDLE, "cyclonedx.org/bom"), ("x/sarif", "x/sarif", ""),
        ("application/vnd.cncf.notary.signature", "x/jose", ""), ("x/y", "application/vnd.in-toto+json", "")]],
     "SBOM SBOM SBOM artifact attestation provenance signature signature", IMAGE_KIND, {}),
    ("a chart", HELM, [make_referrer(HELM)], "signature", IMAGE_KIND, {}),
    ("an image by a signature's tag", IMAGE, [(ARM, tag_of(IMAGE, ".sig"))], "artifact", IMAGE_KIND, {}),
    ("an index that refers", IMAGE, [REFERS], "artifact artifact", IMAGE_KIND, {})]]


def api(fault, times=ALWAYS):
    """A registry whose referrers API does this."""
    return {"faults": [("referrers", fault, times)]}


def lists(image, subject=IMAGE, **lie):
    """A registry that lists an image as a referrer, also if it is none, with something that is not true of it."""
    return {"lists": {subject.digest: [dict(descriptor(image.manifest, OCI.manifest), **lie)]}}


NO = "no signatures"
MISLEADING = [  # what is pushed, the registry, the exit code, words; a code of 0 is good, with a note
    ("busy for good", [SBOM], api(says(503)), 4, "503"), ("no access", [SBOM], api(says(403)), 3, "403"),
    ("busy for good, tags", [SBOM], {"page": None, "faults": [("digest tag", says(500), ALWAYS)]}, 4, "500"),
    ("cut", [SBOM], api(cut(20), 1), 0, "trying again"), ("a web page", [], api(says(200, b"<html>")), 5, "web page"),
    ("does not know the path", [], api(says(405)), 0, NO), ("Harbor 2.7: a bare 401", [], api(says(401)), 0, NO),
    ("GitLab: the subject by its own tag", [(IMAGE, tag_of(IMAGE))], {"page": None}, 0, NO),
    ("Artifactory: no tag", [], {"page": None, "faults": [("digest tag", says(403), ALWAYS)]}, 0, NO),
    ("Link of brackets", [SBOM], api(changed(Link=["<" * 60000] * 5)), 0, ""),
    ("Link of blanks", [SBOM], api(changed(Link=["<a>" + " ;" * 30000] * 5)), 0, ""),
    ("a manifest", [], api(says(200, ARM.manifest)), 5, "not an index"), ("endless", [], api(ENDLESS), 5, "more than"),
    ("the same page for ever", [SBOM], api(changed(Link="<?from=0>; rel=next")), 5, "page 1001 "),
    ("the next page elsewhere", [SBOM], api(changed(Link="<https://evil.test/v2/>; rel=next")), 5, "evil.test"),
    ("the next page nowhere", [SBOM], api(changed(Link="<http://[::>; rel=next")), 5, "not followed"),
    ("lists what is not there", [], lists(SIGNATURE), 3, "404"),
    ("size too small", [SIGNATURE], lists(SIGNATURE, size=7), 5, "expected 7"),
    ("another's", [make_referrer(ARM)], lists(make_referrer(ARM)), 0, "passed over"),
    ("the image itself", [], lists(IMAGE), 0, NO), ("in a circle", [SBOM], lists(IMAGE, SBOM), 0, ""),
    ("an older signature of another image", [(make_referrer(ARM), tag_of(IMAGE, ".sig"))], {}, 0, "passed over"),
    ("a blob that is gone", [SBOM], {"gone": SBOM.layers[0]}, 3, "404"),
    ("a layer of the image with another size", [make_referrer(IMAGE, layers=[
        dict(descriptor(IMAGE.blobs[IMAGE.layers[0]], "text/x"), size=5)])], {}, 5, "cannot have 5 bytes"),
    ("not an index nor a manifest", [(document(b"[]"), "x")], lists(document(b"[]")), 5, "JSON object")]


class TestReferrers(Case):
    def registry(self, image, pushed, page=2, gone=None, **options):
        """A registry with all that is pushed; without the API (page None), its lists are under tags."""
        server, listed = self.serve(image, page=page, **options), {}
        for each in pushed:
            part, tag = each if len(each) == 2 else (each, each.digest)
            server.add("app", tag, part)
            subject = tag == part.digest and json.loads(part.manifest.decode()).get("subject")
            if subject:
                listed.setdefault(subject["digest"].replace(":", "-"), []).append((part, None))
        for tag, parts in listed.items() if page is None else ():
            server.add("app", tag, make_index(*parts))
        server.blobs.pop(gone, None)
        return server

    def fetch(self, server, *options, **more):
        return self.pull(server, "--referrers", "--name", "app:v1", *options, **more)

    def test_come_along(self):
        """What comes along, over the API and over tags, and where it stands in index.json; list and verify."""
        for row in selected(REFERRALS):
            with self.subTest(row.name):
                server = self.registry(row.image, row.pushed)
                plain = members(self.pull(server, "--name", "app:v1", *row.options))
                self.assertEqual({"referrers", "digest tag"} & set(server.kinds()), set())
                data = self.fetch(self.registry(row.image, row.pushed, page=None), *row.options)
                self.assertEqual(self.fetch(server, *row.options), data)
                held = members(data)
                self.assertEqual(dict(held, **plain), dict(held, **{"index.json": plain["index.json"]}))
                top, *unnamed = json.loads(held["index.json"].decode())["manifests"]
                self.assertEqual(top["annotations"].get("kind"), row.kind)
                self.assertEqual({each["annotations"]["kind"]: each["digest"] for each in unnamed}, row.unnamed)
                self.assertFalse([each for each in unnamed if NAME in each["annotations"]])
                come = [each[0] if len(each) == 2 else each for each in row.pushed] if row.kinds else []
                due = {digest for image in come for digest in [image.digest] + list(image.blobs)}
                if row.image.digest in row.unnamed.values():
                    due.update(child.digest for child in row.image.children)
                self.assertEqual({blob_path(digest) for digest in due} - set(held), set())
                told = {each.digest: each for image in imgpull.list_archive(self.tar) for each in image.referrers}
                self.assertEqual(sorted(each.kind for each in told.values()), row.kinds.split())
                shown, run = self.run_main("--list-tar", self.tar).out.decode(), self.run_main("--verify", self.tar)
                self.assertEqual([digest for digest in told if digest not in shown], [])
                self.assertEqual((run.code, run.err, b"not verified" in run.out), (0, "", bool(told)))
                self.assertIn("%d referrer" % len(told) if told else "good", run.out.decode())
                if not row.kinds:
                    self.assertEqual(held, plain)
                    self.assertIn("no signatures or other referrers found", self.said.err)

    def test_misleading(self):
        """Lists that lie: an error in one line with nothing left, or passed over with a note; and no hours of CPU."""
        for name, pushed, options, code, words in selected(MISLEADING):
            with self.subTest(name):
                server, begun = self.registry(IMAGE, pushed, **options), time.process_time()
                self.fetch(server, "--retries", "2", expect=code)
                self.assertLess(time.process_time() - begun, 20)
                if code:
                    self.fails(self.said, words, code=code)
                    self.assertFalse(os.path.exists(self.tar))
                    self.clean()
                else:
                    self.assertEqual((imgpull.verify_archive(self.tar), words in self.said.err), ([], True))

    def test_many(self):
        """Referrers on many pages, of a mirror, where each is asked for with ?ns=; more than are taken."""
        pushed = [make_referrer(IMAGE, "text/x", b"%d" % number) for number in range(25)] + [SBOM]
        for number in range(25, 29):    # a chain: each refers to the one before
            pushed.append(make_referrer(pushed[number]))
        server = self.registry(IMAGE, pushed, page=7, namespace="q.io")
        image, = imgpull.pull(server.host + "/app:v1", self.tar, scheme="http", referrers=True, namespace="q.io").images
        self.assertEqual([(each.digest, each.subject) for each in image.referrers][26:],
                         [(each.digest, pushed[number].digest) for number, each in enumerate(pushed[26:], 25)])
        size = len(SBOM.manifest) + len(SBOM.blobs[SBOM.layers[0]])
        self.assertIn((IMAGE.digest, "SBOM", SPDX, size), [
            (each.subject, each.kind, each.artifact_type, each.size) for each in image.referrers])
        self.assertEqual([request.query.get("from") for request in server.requests if request.kind == "referrers"][:5],
                         [None, ["7"], ["14"], ["21"], None])
        with mock.patch.object(imgpull, "REFERRERS_LIMIT", 29):
            self.fails(self.fetch(server, "--ns", "q.io", expect=5), "more than 29 referrers", code=5)

    def test_base_and_reuse(self):
        """A delta carries the new image's referrers, also one whose blob is a layer of the base; --reuse has them."""
        shared, base = make_referrer(IMAGE, "text/x", IMAGE.blobs[IMAGE.layers[0]]), self.path("base.tar")
        server = self.registry(IMAGE, [SBOM, shared, IMAGE_SIG])
        self.pull(server, "--name", "app:v0", tar=base)
        held = members(self.fetch(server, "--base", base))
        due = {blob_path(digest) for part in (SBOM, shared, IMAGE_SIG[0]) for digest in part.blobs}
        self.assertEqual((due - set(held), blob_path(IMAGE.layers[1]) in held), (set(), False))
        whole, sent = self.fetch(server, tar=base), server.sent("layer")
        self.assertEqual((self.fetch(server, "--reuse", base), server.sent("layer")), (whole, sent))
        self.assertEqual(self.fetch(server, tar="-").out, whole)


# --- archives, ours and others': list, verify, build upon, reuse -----------------------------------------------------
# Written header by header, since the tests are about bytes: the same ones on every Python.

GNU, USTAR, V7 = b"ustar  \0", b"ustar\x0000", bytes(8)     # magic and version
APP, OTHER, NOBODY = "docker.io/library/app:v1", "docker.io/library/evil:v2", "sha256:" + "0" * 64
NAME, REF_NAME = "io.containerd.image.name", "org.opencontainers.image.ref.name"
CHART = "application/vnd.cncf.helm."
ATTESTS = {"vnd.docker.reference.type": "attestation-manifest"}


def entry(name, data=b"", kind=b"0", magic=GNU, tail=b""):
    """A member of a tar: header, data in whole blocks. tail: from byte 345 on, ustar's prefix, or GNU's times."""
    head = struct.pack("100s24s12s12s8s1s100x8s80x167s", name.encode(), b"0000644\0" + b"0000000\0" * 2,
                       b"%011o\0" % len(data), b"0" * 11 + b"\0", b" " * 8, kind, magic, tail)
    return head[:148] + b"%06o\0 " % sum(head) + head[156:] + data + bytes(-len(data) % 512)


def pax(records, kind=b"x"):
    """An extended header of {key: value}; kind b"g" for a global one."""
    lines = [" %s=%s\n" % pair for pair in records.items()]
    sizes = [next(size for size in range(9999) if len(str(size) + line) == size) for line in lines]     # counts itself
    data = "".join(map("%d%s".__mod__, zip(sizes, lines)))
    return entry("pax", data.encode(), kind=kind, magic=USTAR)


def long_name(name):
    """GNU's header before a member with a long name."""
    return entry("././@LongLink", name.encode() + b"\0", kind=b"L")


def remade(image, **changes):
    """An image with a changed manifest, and with those blobs that are in it, also of others."""
    held = dict(image.blobs, **changes.pop("blobs", {}))
    manifest = to_json(dict(json.loads(image.manifest.decode()), **changes))
    return image._replace(manifest=manifest, digest=sha256(manifest), blobs={
        digest: blob for digest, blob in held.items() if digest.encode() in manifest})


def claiming(image, size):
    """An image whose manifest gives each layer a size."""
    return remade(image, layers=[dict(layer, size=size) for layer in json.loads(image.manifest.decode())["layers"]])


def plain_image(*files, style=OCI, architecture="amd64", like="sha256"):
    """An image whose layers are not compressed: the same bytes with every zlib."""
    tars = [entry("file", data) + bytes(1024) for data in files]
    digests = ["%s:%s" % (like, hashlib.new(like, tar).hexdigest()) for tar in tars]
    config = to_json({"architecture": architecture, "os": "linux", "rootfs": {
        "type": "layers", "diff_ids": [sha256(tar) for tar in tars]}})
    kind = style.layer.replace("+gzip", "").replace(".gzip", "")
    manifest = to_json({"schemaVersion": 2, "mediaType": style.manifest, "config": descriptor(config, style.config),
                        "layers": [descriptor(tar, kind, digest=each) for each, tar in zip(digests, tars)]})
    return Image(manifest, style.manifest, sha256(manifest), dict(zip(digests, tars), **{sha256(config): config}),
                 digests, tars, config, ())


def with_layer(layer, tar, kind=OCI.layer):
    """An image of one layer: its bytes, as a registry has them, and unpacked."""
    config = plain_image().config.replace(b"[]", b'["%s"]' % sha256(tar).encode())
    return artifact(config, OCI.config, kind, layer)


def artifact(config, config_type, layer_type, layer=b"no tar", **more):
    image = remade(plain_image(), config=descriptor(config, config_type), layers=[descriptor(layer, layer_type)],
                   blobs={sha256(config): config, sha256(layer): layer}, **more)
    return image._replace(config=config, layers=[sha256(layer)])


def named(image, name, *several, **notes):
    """An image's descriptor in index.json; several: whether the archive has more of them; notes: more annotations."""
    known = {NAME: name, REF_NAME: name if several else name.rpartition(":")[2]}
    known.update(("dev.imgpull." + key if key in ("omitted", "source", "referrers") else key, value)
                 for key, value in notes.items())
    return descriptor(image.manifest, image.media_type, annotations=known)


def offered(image, *names):
    """An image's entry in manifest.json."""
    return {"Config": blob_path(sha256(image.config)), "RepoTags": list(names),
            "Layers": [blob_path(layer) for layer in image.layers]}


def archive_of(*images, names=(APP, OTHER), index=None, manifest=0, version="1.0.0", without=(), beside=(),
               end=bytes(1024), **notes):
    """An archive of images, byte for byte as imgpull writes it, but for changes.

    index, manifest: what is in its lists instead; bytes for index.json as it is, None for no manifest.json
    without: digests of blobs that are not there; beside: images in no list; notes: more annotations"""
    if index is None:
        index = [named(*pair, *[True] * (len(images) > 1), **notes) for pair in zip(images, names)]
    if isinstance(index, list):
        index = {"schemaVersion": 2, "mediaType": OCI.index, "manifests": index}
    lists = [("oci-layout", {"imageLayoutVersion": version}), ("index.json", index), (
        "manifest.json", [offered(*pair) for pair in zip(images, names)] if manifest == 0 else manifest)]
    there = [each for image in [*images, *beside] for each in (image, *image.children)]
    blobs = {blob_path(digest): blob for image in there for digest, blob in dict(
        image.blobs, **{image.digest: image.manifest}).items() if digest not in without}
    return b"".join(entry(name, data if isinstance(data, bytes) else json.dumps(data, separators=(",", ":")).encode())
                    for name, data in lists + sorted(blobs.items()) if data is not None) + end


def flipped_at(data, place, bit=0):
    place %= len(data)
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1:]


# --- hostile archives ------------------------------------------------------------------------------------------------
# Python's tarfile and Go's archive/tar (docker, podman, containerd, skopeo) read some headers differently, and so do
# their JSON readers. Here are archives that show one image to the one and another to the other, or that some runtime
# does not load. `.ci/interop.py hostile` gives them to the real loaders.

SAFE, EVIL = plain_image(b"safe", b"second"), plain_image(b"evil", b"more evil")
FOR_ARM = plain_image(b"safe", b"for arm64", architecture="arm64")
PLAIN, HELD, TAR = archive_of(SAFE), members(archive_of(SAFE)), SAFE.tars[0]
SAFE_NAMED, SAFE_OFFER = named(SAFE, APP), offered(SAFE, APP)
LONE = make_index((EVIL, "linux/amd64"))._replace(blobs={}, children=())
OF_EVIL, OF_LONE = make_referrer(EVIL), make_referrer(LONE)


def disguised(write):
    """SAFE's archive, and behind it EVIL's lists as write(name, data) writes them."""
    _, *lists = list(members(archive_of(EVIL)).items())[:3]
    return archive_of(SAFE, beside=[EVIL], end=b"".join(write(*pair) for pair in lists) + bytes(1024))


def index_archive(change=lambda index: None, manifest=(SAFE_OFFER,), without=(), **notes):
    """The archive of an index; change: of it; the others are those of archive_of."""
    index = make_index((FOR_ARM, "linux/arm64"), (SAFE, "linux/amd64"), change=change)
    return archive_of(index, without=without, manifest=manifest and list(manifest), **notes)


# One row for each way to be refused, and for each difference between loaders. evil: a loader takes EVIL.
Hostile = namedtuple("Hostile", "name evil archive")
HOSTILE = [Hostile(name, True, archive) for name, archive in [
    # A header that imgpull does not write. docker takes the last of a name, podman the first.
    ("global header with a path", disguised(lambda n, d: pax({"path": "hidden"}, b"g") + entry(n, d))),
    ("prefix without magic", disguised(lambda n, d: entry(n, d, magic=V7, tail=b"hidden"))),
    ("the same name twice", disguised(entry)),
    # Go's JSON folds the case of keys, and the last one wins: see test_json_as_go_reads_it.
    ("keys that differ in case", archive_of(SAFE, beside=[EVIL], index=dict(
        json.loads(HELD["index.json"].decode()), Manifests=[named(EVIL, OTHER)]))),
    ("an attestation with a name", archive_of(SAFE, beside=[EVIL], index=[SAFE_NAMED, named(EVIL, OTHER, **ATTESTS)])),
    ("manifest.json offers another image", archive_of(SAFE, beside=[EVIL], manifest=[offered(EVIL, APP)]))]]
HOSTILE += [Hostile(name, False, archive) for name, archive in [
    ("a member after a lone block of zeros", archive_of(SAFE, end=bytes(512) + entry("x") + bytes(1024))),
    ("blobs that nobody needs", archive_of(SAFE, beside=[EVIL])),
    ("a layer is not there", archive_of(SAFE, without=SAFE.layers[:1])),
    ("a name twice, one behind the other", b"".join(entry(name, body) for name, data in HELD.items() for body in [
        data.replace(b"app:v1", b"x:v1")] * (name == "manifest.json") + [data]) + bytes(1024)),
    ("the members in another order", b"".join(entry(*pair) for pair in reversed(list(HELD.items()))) + bytes(1024)),
    # The lists, names
    ("oci-layout of another version", archive_of(SAFE, version="2.0.0")),
    ("another image without a name", archive_of(SAFE, beside=[EVIL], index=[
        SAFE_NAMED, descriptor(EVIL.manifest, OCI.manifest)])),
    ("the digest of another image", archive_of(SAFE, manifest=[dict(SAFE_OFFER, RepoTags=None)], index=[
        descriptor(SAFE.manifest, OCI.manifest, annotations={NAME: "q.io/app@" + EVIL.digest})])),
    ("one name for two images", archive_of(SAFE, EVIL, names=[APP, APP])),
    ("another tag for skopeo", archive_of(SAFE, **{REF_NAME: "v2"})),
    ("an escape in a name", archive_of(SAFE, names=["q.io/a\x1b[2J:v1"])),
    ("docker expands it", archive_of(SAFE, names=["app:v1"])),
    # Annotations, and images that are hidden behind them
    ("a source with an escape", archive_of(SAFE, source="\x1b[2J")),
    ("omitted, and no layer", archive_of(SAFE, omitted=NOBODY)),
    ("omitted, and there", archive_of(SAFE, omitted=SAFE.layers[0])),
    ("hidden: all of it is omitted", archive_of(SAFE, index=[SAFE_NAMED, named(EVIL, OTHER, omitted=EVIL.digest)])),
    ("hidden: no config, layers omitted", archive_of(SAFE, EVIL, manifest=[SAFE_OFFER], without=EVIL.blobs, index=[
        named(SAFE, APP, True), named(EVIL, OTHER, True, omitted=",".join(sorted(EVIL.layers)))])),
    ("an index none of whose images is there", index_archive(
        manifest=None, without=[*SAFE.blobs, *FOR_ARM.blobs, SAFE.digest, FOR_ARM.digest],
        omitted=",".join(sorted([SAFE.digest, FOR_ARM.digest])))),
    # Referrers
    ("a signature of another image", archive_of(SAFE, beside=[OF_EVIL], referrers="%s=%s" % (
        OF_EVIL.digest, SAFE.digest), kind=IMAGE_KIND)),
    ("a signature of what is not there", archive_of(SAFE, beside=[OF_EVIL], referrers="%s=%s" % (
        OF_EVIL.digest, EVIL.digest), kind=IMAGE_KIND)),
    ("a signed index without the image", archive_of(SAFE, beside=[LONE, OF_LONE], index=[
        named(SAFE, APP, source=LONE.digest, referrers="%s=%s" % (OF_LONE.digest, LONE.digest)),
        descriptor(LONE.manifest, OCI.index, annotations={"kind": IMAGE_KIND})])),
    # Manifests and configs
    ("an image to one, an attestation to another", index_archive(spoiled("manifests", 1, "annotations", to=ATTESTS))),
    ("a manifest called an index", index_archive(spoiled("manifests", 1, "mediaType", to=OCI.index))),
    ("a part of an index with another size", index_archive(spoiled("manifests", 1, "size", to=7))),
    ("fewer layers than diff_ids", archive_of(remade(SAFE, layers=[])._replace(layers=[]))),
    ("a config of another size", archive_of(remade(SAFE, config=dict(descriptor(SAFE.config, OCI.config), size=7)))),
    ("a layer that is a byte longer", archive_of(claiming(SAFE, len(TAR) - 1)))]]


def gzip_named(length, flag=8):
    """TAR as gzip, with a name or a comment (16) in its header: Go refuses one of 512 bytes."""
    return gzipped(TAR)[:3] + bytes([flag]) + gzipped(TAR)[4:10] + b"n" * length + b"\0" + gzipped(TAR)[10:]


# What a layer is packed in, and what --verify says of it: whatever it calls good, docker and containerd unpack.
PACKED = [
    ("gzip", gzipped(TAR), ""), ("many members", b"".join(gzipped(TAR[at:at + 1]) for at in range(len(TAR))), ""),
    ("large", gzipped(TAR + bytes(9 << 20)), sha256(TAR + bytes(9 << 20))), ("plain, called gzip", TAR, ""),
    ("another tar", gzipped(TAR[:-1] + b"x"), "diff_id"), ("no checksum", gzipped(TAR)[:-8], "too early"),
    ("more behind", gzipped(TAR) + b"more", "gzip"), ("wrong checksum", gzipped(TAR)[:-8] + bytes(8), "gzip"),
    ("a name of 511 bytes", gzip_named(511), ""), ("a name of 512 bytes", gzip_named(512), "512 bytes"),
    ("a comment of 512 bytes", gzip_named(512, 16), "512 bytes"),
    ("a long name at the end of a read", gzipped(noise("x", imgpull.HEAD + imgpull.STEP - 300)) + gzip_named(600),
     "512 bytes")]
# What other tools write, and most loaders take; and the words of the refusal.
FOREIGN = [
    ("filled up with zeros to 10 KiB", PLAIN + bytes(-len(PLAIN) % 10240), "data behind its end"),
    ("skopeo's oci-archive", archive_of(SAFE, manifest=None, index=[
        descriptor(SAFE.manifest, OCI.manifest, annotations={REF_NAME: APP})]), "no image"),
    ("GNU tar of a directory", entry("./", kind=b"5") + PLAIN, "another program"),
    ("text", b"docker.io/library/alpine\n" * 100, "not a tar"), ("empty", b"", "too early"),
    ("compressed", gzipped(PLAIN), "gunzip")]
# What takes much for its size: soon refused, or soon good, in 512 MiB.
CHILDREN = [remade(plain_image(), annotations={"n": str(number)}) for number in range(600)]
MANY = make_index(*[(image, "linux/amd64") for image in CHILDREN])
TAGS = ["q.io/app:%d" % number for number in range(20000)]
HUGE = [
    ("600 names of 600 images", archive_of(MANY, index=[named(MANY, tag, True) for tag in TAGS[:600]],
                                           manifest=[offered(CHILDREN[0], *TAGS[:600])])),
    ("20,000 names", archive_of(SAFE, index=[named(SAFE, tag, True) for tag in TAGS], manifest=[offered(SAFE, *TAGS)])),
    ("a referrer 10,000 times", archive_of(SAFE, beside=[MANY._replace(blobs={}, children=())], referrers=",".join(
        [MANY.digest + "=" + SAFE.digest] * 10000))),
    ("JSON of nothing", archive_of(SAFE, index=b'{"manifests":[' + b"{}," * (1 << 20) + b"{}]}"))]


class TestHostileArchives(Case):
    def test_hostile(self):
        """Refused by --verify and --list-tar, and by --base and --reuse before any layer comes; fit for a terminal."""
        server = self.serve(SAFE)
        for row in selected(HOSTILE):
            path = self.write("hostile.tar", row.archive)
            pull = ("-s", "http", server.host + "/app:v1", self.tar)
            for argv in (["--verify"], ["--list-tar"], ["--base", path, *pull], ["--reuse", path, *pull]):
                with self.subTest(row.name, option=argv[0]):
                    run = self.run_main(*argv[:1], path, *argv[2:])
                    self.assertEqual(run.code, 5)
                    self.assertNotRegex(run.out.decode() + run.err,
                                        "Traceback|internal error|root:|[\x00-\x09\x0b-\x1f\x7f-\x9f]")
        self.assertEqual((server.sent("layer"), self.left()), (0, []))
        for good in (PLAIN, archive_of(SAFE, EVIL), index_archive()):      # so it is the lie that is refused
            self.assertEqual(faults_of(self.write("good.tar", good)), [])

    def test_packed(self):
        """--verify unpacks the layers, and tells what it could not unpack; --list-tar does not look."""
        for name, layer, words in selected(PACKED):
            with self.subTest(name):
                path = self.write("packed.tar", archive_of(with_layer(layer, TAR)))
                self.assertRegex("; ".join(faults_of(path)), words or "^$")
                self.assertEqual(self.run_main("--list-tar", path).code, 0)
        path = self.write("zstd.tar", archive_of(with_layer(b"\x28\xb5\x2f\xfd" + b"not really", TAR)))
        self.assertIn("1 layer not unpacked", self.run_main("--verify", path).out.decode())
        path = self.write("called.tar", archive_of(with_layer(gzipped(TAR), TAR, OCI.layer[:-5])))
        self.assertRegex("; ".join(faults_of(path)), "that of a plain tar")

    def test_foreign(self):
        """What imgpull has not written is called by its name, with what to do about it. See also TestWhatIsThere."""
        server = self.serve(SAFE)
        for name, archive, words in selected(FOREIGN):
            with self.subTest(name):
                path = self.write("other.tar", archive)
                for option in ("--verify", "--list-tar"):
                    self.fails(self.run_main(option, path), "other.tar", words, code=5)
                self.fails(self.pull(server, "--base", path, expect=FAILED), words, "--base-image", code=5)
        part = self.write("x.tar.part", PLAIN[:5000] + bytes(5000))
        for path, words, code in selected([(part, "unfinished", 5), (self.path("none"), "none", 2),
                                           (self.dir, "directory", 2), ("/dev/zero", "not a tar", 5)]):
            for option in ("--verify", "--list-tar"):
                self.fails(self.run_main(option, path), words, code=code)

    @unittest.skipUnless(CPYTHON_ON_LINUX, "limits of memory")
    def test_much_for_little(self):
        """Archives that would take memory or time beyond their size."""
        import resource

        def limits():
            resource.setrlimit(resource.RLIMIT_AS, (512 << 20,) * 2)
            resource.setrlimit(resource.RLIMIT_CPU, (15, 15))
        for name, archive in selected(HUGE):
            with self.subTest(name):
                run = subprocess.run([sys.executable, imgpull.__file__, "--verify", self.write("huge.tar", archive)],
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=limits)
                self.assertIn(run.returncode, (0, 5), run.stderr[-1000:])
                self.assertNotIn(b"Traceback", run.stderr)


# --- archives of our own ---------------------------------------------------------------------------------------------

TWICE = make_image(b"one" * 2000, b"two" * 3000, b"one" * 2000)
SHARED = noise("shared", 60000)
VERSION1 = make_image(SHARED, b"middle of 1", noise("top of 1", 30000))
VERSION2 = make_image(SHARED, b"middle of 2", noise("top of 1", 30000), b"more")
ONE, NEXT = plain_image(b"one", b"two"), plain_image(b"one", b"three", b"two")
BOTH = [(plain_image(b"one", b"for arm64", architecture="arm64"), "linux/arm64"), (ONE, "linux/amd64")]
TWO = make_index(*BOTH)
# BuildKit's attestation as an artifact, in an index that is signed; a referrer whose parts have other subjects.
OF_ONE = descriptor(ONE.manifest, OCI.manifest)
PROVEN = artifact(b"{}", EMPTY, "application/vnd.in-toto+json", subject=OF_ONE,
                  artifactType="application/vnd.docker.attestation.manifest.v1+json")
BUILT_NOW = make_index((PROVEN, "unknown/unknown"), *BOTH, change=spoiled(
    "manifests", 0, "annotations", "vnd.docker.reference.digest", to=ONE.digest))
PARTS = make_index((make_referrer(BOTH[0][0]), None), change=spoiled("subject", to=OF_ONE))
EVERY, SIGNED, DELTA = ("--platform", "all"), ("--referrers",), ("--base", "base.tar")
# sum: the beginning of the archive's sha256, where the format is frozen. "@": by digest; "+": another image with it.
# pushed: referrers, or (referrer, tag).
Own = namedtuple("Own", "name sum image options pushed")
Own.__new__.__defaults__ = ((), ())
OWN = [Own(*row) for row in [
    ("single", "d6fbca2ebe9d1224", ONE), ("schema 2", "2e8aa48c2343fb17", plain_image(b"one", b"two", style=DOCKER)),
    ("a layer twice", "171302b37a4f630a", plain_image(b"one", b"two", b"one")),
    ("no layer", "5ee5ec821cf81fb0", plain_image()), ("one platform", "ff64b9f845744b83", TWO),
    ("all platforms", "0de5d2a46c56e473", TWO, EVERY),
    ("schema 2 list", "b94c85273a563632", make_index(*BOTH, style=DOCKER), EVERY),
    ("text as config", "", artifact(b"a text\n", CHART + "config.v1", CHART + "chart.content.v1.tar+gzip")),
    ("artifact", "7ffd4fd0514ff165", artifact(b"{}", CHART + "config.v1+json", CHART + "chart.content.v1.tar+gzip")),
    ("sha512", "21d96901fc1c574d", plain_image(b"one", b"two", like="sha512")),
    ("by digest", "610bcbd1551d0f02", ONE, ("@",)), ("delta", "2ee209890b5c7b18", NEXT, DELTA),
    ("delta, all platforms", "67d4da0818a96d17", TWO, EVERY + DELTA), ("delta of several", "", NEXT, DELTA + ("+",)),
    ("no amd64", "", make_index((ARMV6, "linux/arm/v6"), BOTH[0]), EVERY),
    ("nested", "", make_index((TWO, None)), EVERY), ("signed index", "", TWO, SIGNED, [make_referrer(TWO)]),
    ("signed", "", ONE, SIGNED, [make_referrer(ONE), on(ONE, ".sig")]),
    ("signed index with an attestation that is an artifact", "", BUILT_NOW, SIGNED, [make_referrer(BUILT_NOW)]),
    ("an index that refers, parts of which refer to others", "", ONE, SIGNED, [PARTS]),
    ("signed bundle", "", ONE, SIGNED + ("+",), [make_referrer(ONE), make_referrer(ARM)])]]


class TestOwnArchives(Case):
    def setUp(self):
        super().setUp()
        self.pull(self.serve(ONE), "--name", "x:0", tar=self.path("base.tar"))

    def make(self, row):
        """An archive of a kind, and what "imgpull -q" printed."""
        server = self.serve(row.image, namespace="q.io", page=10)
        for each, tag in [pushed if len(pushed) == 2 else (pushed, pushed.digest) for pushed in row.pushed]:
            server.add("app", tag, each)
        names = [server.host + "/app" + ("@" + row.image.digest if "@" in row.options else ":v1")]
        names += [server.add("app", "v2", ARM)] * ("+" in row.options)
        options = [self.path(word) if word == "base.tar" else word for word in row.options if word not in "@+"]
        run = self.run_main("-q", "-s", "http", "--ns", "q.io", *(options + names + [self.tar]))
        self.assertEqual(run.code, 0, run.err)
        return read(self.tar), run.out

    def test_kinds(self):
        """Every kind is read back as it was planned, on any host; the old ones are what they always were."""
        for row in selected(OWN):
            with self.subTest(row.name):
                here = imgpull.Platform("linux", "s390x" if "all" in row.options else "amd64")
                with mock.patch.object(imgpull, "host_platform", lambda: here):
                    data, said = self.make(row)
                self.assertIn(row.sum, ("", hashlib.sha256(data).hexdigest()[:16]))
                archive = imgpull.read_archive(self.tar, False)
                self.assertEqual((archive.faults, imgpull.verify_archive(self.tar)), ([], []))
                plan, held = imgpull.plan_archive(archive.images, archive.omitted), members(data)
                parts = plan.literals + [(layer.offset, held[layer.descriptor.path]) for layer in plan.layers]
                self.assertEqual((b"".join(part for _, part in sorted(parts)), plan.images), (data, archive.images))
                self.assertEqual((imgpull.list_archive(self.tar), self.run_main("-q", "-l", self.tar).out),
                                 (archive.images, said))
                self.assertEqual("--base" in row.options, bool(archive.omitted))
                self.assertEqual(imgpull.verify_archive(self.tar, [self.path("base.tar")]), [])
                for image in archive.images:    # the index that the tag named; each referrer once, beneath its subject
                    self.assertIn(image.source, {"", row.image.digest} - {image.digest})
                    there = [each.digest for each in image.all_manifests] + [image.source]
                    self.assertEqual(len(set(there)), len(there))
                    self.assertLessEqual({each.subject for each in image.referrers}, set(there))

    def test_every_bit(self):
        """A flipped bit is found, wherever it is; so is an end that comes too early, or more behind it."""
        for name, step in selected([("single", 7), ("delta", 61), ("all platforms", 97), ("text as config", 47),
                                    ("signed index", 97)]):
            data = self.make(next(row for row in OWN if row.name == name))[0]
            flips = [flipped_at(data, place, place % 8) for place in range(0, len(data), step)]
            cuts = [data[:place] for step in (512, 10 * step - 1) for place in range(0, len(data), step)]
            missed = [number for number, wrong in enumerate(flips + cuts + [data + b"\0", data + bytes(512), data * 2])
                      if not faults_of(self.write("wrong.tar", wrong))]
            self.assertEqual(missed, [], name)
        path = self.write("wrong.tar", flipped_at(data, data.index(ONE.tars[0]) + 600))
        self.assertRegex(self.run_main("--verify", path).out.decode(),
                         "wrong.tar: bad: .*%s.*q.io/app:v1" % ONE.layers[0][:19])

    def test_failed_stream(self):
        """What a failed pull has written to a pipe is no whole tar to anyone, also if a small layer was the last."""
        for size, place in selected([(0, 1), (700, 1), (512, 1), (700, 0)]):
            with self.subTest(size, place=place):
                layers = json.loads(ONE.manifest.decode())["layers"]
                layers[place].update(digest="sha256:" + ("f" if place else "0") * 64, size=size)
                image = remade(ONE, layers=layers, blobs={layers[place]["digest"]: b"x" * size})
                run = self.pull(self.serve(image), "--retries", "0", tar="-", expect=5)
                self.assertTrue(not run.out or ends_inside(run.out), len(run.out))


class TestReadingBack(Case):
    """What --list-tar and --verify print, of one or several archives, of standard input; --json; the library."""

    def setUp(self):
        super().setUp()
        self.server = self.serve(INDEX)
        self.name, self.one, self.two = self.server.host + "/app:v1", self.path("one.tar"), self.path("two.tar")
        self.pull(self.server, tar=self.one)
        self.pull(self.serve(TWICE), "--name", "app:v2", tar=self.two)

    def json(self, *argv, code=0):
        run = self.run_main("--json", *argv)
        self.assertEqual(run.code, code, run)
        return json.loads(run.out.decode())

    def test_list(self):
        """Names, digests, platforms, layers and their sizes; what skopeo finds it by; what an archive only claims."""
        for path, image, name in ((self.one, IMAGE, self.name), (self.two, TWICE, "docker.io/library/app:v2")):
            sizes = [len(image.blobs[layer]) for layer in image.layers]
            shown = self.run_main("--list-tar", path).out.decode()
            for word in (name, "linux/amd64", image.digest, sha256(image.config), ":%s\n" % name[-2:],
                         "layers    %d, %s" % (len(sizes), imgpull.human(sum(sizes)))):
                self.assertIn(word, shown)
            for layer, size in zip(image.layers, sizes):
                self.assertRegex(shown, layer + " +" + re.escape(imgpull.human(size)) + "\n")
        for option in ("-l", "--verify"):           # the index is not in the archive
            self.assertRegex(self.run_main(option, self.one).out.decode(), "index +" + INDEX.digest + ".*claims")

    def test_list_several(self):
        """In the order of the command line, also where an image has two names; the full name is what skopeo takes."""
        names = [self.name, self.server.add("b", "v2", make_artifact()), self.server.add("app", "again", INDEX)]
        said = self.run_main("--scheme", "http", "--platform", "all", *(names + [self.tar])).err
        self.assertRegex(said, "not a container image but an artifact")
        shown = self.run_main("-l", self.tar).out.decode()
        words = names + ["linux/amd64", "linux/arm/v6", ARM.digest, "unknown/unknown"]
        self.assertEqual([word for word in words if word not in shown], ["unknown/unknown"])
        self.assertEqual([(image.name, image.ref_name, image.image_id) for image in imgpull.list_archive(self.tar)],
                         [(name, name, None if "/b:" in name else sha256(IMAGE.config)) for name in names])

    def test_several_archives(self):
        """Each line says which archive it is about; one that cannot be read does not keep back the others."""
        self.write("bad.tar", flipped_at(read(self.one), read(self.one).index(IMAGE.blobs[IMAGE.layers[0]]) + 500))
        places = {each: self.path(each + ".tar") for each in ("one", "two", "bad", "none", "x")}
        for argv, code, out, err in selected([
                ("-l {one} -l {none} {two}", 2, ["one.tar:", "two.tar:", "index", "image ID"], "none.tar cannot be"),
                ("--verify {one} {two}", 0, ["one.tar: good", "two.tar: good", "one.tar:   image ID"], ""),
                ("--verify {none} {bad} {two}", 2, ["bad.tar: bad: .*digest", "two.tar: good"], "none.tar"),
                ("--verify {two} {bad}", 5, ["two.tar: good", "bad.tar: bad"], ""),
                ("-q --verify {one}", 0, ["app:v1@sha256:"], ""), ("--reuse - {name} {x}", 2, [], "not standard")]):
            with self.subTest(argv):
                run = self.run_main(*argv.format(name=self.name, **places).split())
                self.assertEqual(run.code, code, run)
                for word in out:
                    self.assertRegex(run.out.decode(), word)
                self.fails(run, err, code=code) if err else self.assertEqual(run.err, "")
                for line in run.out.decode().splitlines() if "verify" in argv and "-q" not in argv else ():
                    self.assertRegex(line, r"^\S+\.tar: ")

    @unittest.skipUnless(POSIX, "/dev/fd, pipes")
    def test_standard_input(self):
        """gunzip -c x.tar.gz | imgpull --verify -; also by a name for a descriptor, as <(…) gives."""
        data, good = read(self.one), "standard input: good"
        for given, argv, code, words in selected([
                (data, ["-q", "-l", "-"], 0, "^\\S+app:v1@" + IMAGE.digest), (None, ["--verify", "-"], 0, good),
                (data, ["--verify", "/dev/fd/0"], 0, "/dev/fd/0: good"),
                (data[:5000], ["--verify", "-"], 5, "standard input.* too early"),
                (gzipped(data), ["--verify", self.two, "-", self.one], 5, "one.tar: good[^~]*gunzip")]):
            with self.subTest(words, argv=argv), open(self.one, "rb") as file:
                run = subprocess.run([sys.executable, imgpull.__file__] + argv, stdout=subprocess.PIPE, stderr=(
                    subprocess.PIPE), **({"stdin": file} if given is None else {"input": given}))
                self.assertRegex((run.stdout + run.stderr).decode(), words)
                self.assertEqual(run.returncode, code)

    def test_json(self):
        """The images are those that the pull told of: see TestCommandLine. An artifact has no image ID."""
        for image in (INDEX, make_artifact()):
            pulled = self.json("-s", "http", self.serve(image).host + "/app:v1", self.tar)["images"]
            for option, checked in (("--list-tar", None), ("--verify", os.path.getsize(self.tar))):
                document = self.json(option, self.one, self.tar)
                archive = document["archives"][1]
                self.assertEqual((document["schema"], archive["archive"], archive["faults"]), (1, self.tar, []))
                self.assertEqual((archive["images"], archive.get("checked")), (pulled, checked))
        self.assertEqual((archive["unchecked"], pulled[0]["image_id"]), (0, None))

    def test_codes_of_faults(self):
        """For programs: "digest", "archive", "base"; a delta's needs, with and without its base."""
        data, server, base = read(self.one), self.serve(VERSION1), self.path("base.tar")
        self.pull(server, tar=base)
        server.add("app", "v1", VERSION2)
        self.pull(server, "--base", base)
        wrong = self.write("wrong.tar", flipped_at(data, data.index(IMAGE.blobs[IMAGE.layers[0]]) + 9))
        for argv, code, faults, needed in selected([
                ([wrong], 5, ["digest"], 0), ([self.write("cut.tar", data[:-1])], 5, ["archive"], None),
                ([self.path("none.tar")], 2, ["archive"], None), ([self.tar], 0, [], 1),
                ([self.tar, "--base", base], 0, [], 0), ([self.tar, "--base", self.two], 5, ["base"], 0)]):
            archive, = self.json("--verify", *argv, code=code)["archives"]
            self.assertEqual(([fault["code"] for fault in archive["faults"]], archive.get("needed")), (faults, needed))


class TestBaseAndReuse(Case):
    def setUp(self):
        super().setUp()
        self.server, self.base, self.other = self.serve(VERSION1), self.path("base.tar"), self.path("other.tar")
        self.server.add("app", "v2", VERSION2)
        self.pull(self.server, "--name", "app:v1", tar=self.base)
        self.pull(self.serve(TWICE), tar=self.other)
        del self.server.requests[:]

    def fetch(self, *options, expect=0, name="app:v2", tar=None):
        return self.pull(self.server, "--name", "app:v2", *options, name=name, expect=expect, tar=tar)

    def blobs(self, *options, **named):
        return {"sha256:" + name[13:] for name in members(self.fetch(*options, **named)) if "blobs" in name}

    def test_delta(self):
        """Layers that a base has on top of the same layers are left out, and no others; be it none or all."""
        everything = set(VERSION2.blobs) | {VERSION2.digest}
        self.assertEqual(self.blobs("--base", self.base), everything - {VERSION2.layers[0]})
        new = set(VERSION2.layers) - set(VERSION1.layers)       # what the base has, but not there, is copied
        self.assertEqual(self.server.sent("layer"), size_of(VERSION2, new))
        self.assertRegex(self.said.out.decode(), "1 layer .*left out")
        self.assertIn("left out", self.run_main("--list-tar", self.tar).out.decode())
        for base, words in ([], "good:.*needs 1"), ([self.base], "good: ((?!needs).)*$"), ([self.other], "no --base"):
            run = self.run_main("--verify", self.tar, *["--base=" + path for path in base])
            self.assertRegex(run.out.decode().splitlines()[0], words)
        self.assertEqual(self.fetch(), self.fetch("--base", self.other))
        self.assertRegex(self.said.err, "nothing is omitted")
        self.assertEqual(self.blobs("--base", self.base, name="app:v1"), {VERSION1.digest, sha256(VERSION1.config)})
        self.assertNotIn(VERSION2.layers[0], self.blobs("--base", self.other, "--base", self.base))

    def test_reuse(self):
        """Blobs copied instead of fetched: the same bytes; wrong ones are fetched; a wrong base is an error at once."""
        plain, good = self.fetch(), read(self.base)
        wrong = self.write("bad.tar", flipped_at(good, good.index(VERSION1.blobs[VERSION1.layers[0]]) + 1000))
        missing = set(VERSION2.blobs) - set(VERSION1.blobs)
        for reuse, fetched in ((self.base, missing), (wrong, missing | {VERSION2.layers[0]})):
            for tar in (self.tar, "-"):
                del self.server.requests[:]
                got = self.fetch("--reuse", reuse, tar=tar)
                self.assertEqual(got.out if tar == "-" else got, plain)
                self.assertEqual(self.server.sent("layer", "config"), size_of(VERSION2, fetched))
                self.assertEqual("bad.tar" in self.said.err, reuse == wrong)
        del self.server.requests[:]
        self.fails(self.fetch("--base", wrong, expect=5), "bad.tar .*base.*digest", code=5)
        self.assertEqual((self.server.sent("layer"), self.left()), (0, []))

    def test_chain(self):
        """A delta on a delta: what the first left out counts as there; --verify wants all bases."""
        third = make_image(SHARED, b"middle of 2", b"quite new")
        self.server.add("app", "v3", third)
        second = self.path("second.tar")
        self.pull(self.server, "--base", self.base, name="app:v2", tar=second)
        new = {third.digest, sha256(third.config), third.layers[2]}
        self.assertEqual(self.blobs("--base", second, name="app:v3"), new)
        for base, words in ([self.base, second], "^$"), ([self.base], "in no --base"), ([second], "in no --base"):
            self.assertRegex(" ".join(imgpull.verify_archive(self.tar, base=base)), words)

    def test_omissible(self):
        """Layers that a base has on top of the same layers, wherever they stand."""
        for base, images, omitted in selected([
                (["abc"], ["abd"], "ab"), (["abc"], ["bc"], ""), (["abc"], ["abcd"], "abc"), (["aba"], ["aba"], "ab"),
                (["aba"], ["abaa"], "b"), (["abc"], ["abc", "b"], "ac"), (["ab", "cd"], ["abx", "cdx"], "abcd")]):
            self.assertEqual(imgpull.omissible(list(map(list, images)), list(map(list, base))), set(omitted))


# --- bundles: lists, several registries, what is there already -------------------------------------------------------
class Bundles(Case):
    def bundle(self, *argv, code=0, tar=None):
        run = self.run_main("-s", "http", *argv + (tar or self.tar,))
        self.assertEqual(run.code, code, run.err)
        self.assertNotRegex(run.err, "Traceback|internal error")
        return run

    def names(self):
        """The names in the archive, which is good."""
        self.assertEqual((imgpull.verify_archive(self.tar), self.left()), ([], []))
        return [image.name for image in imgpull.list_archive(self.tar)]

    def two(self, second=ARMV6, **options):
        """A registry that has INDEX as app:v1 and another image as b:v1, and their full names."""
        server = self.serve(INDEX, **options)
        return server, server.host + "/app:v1", server.add("b", "v1", second)


class TestLists(Bundles):
    LISTS = [  # the text, what is asked for ("NAME TARGET" each); or words of the refusals
        (b"alpine", ["docker.io/library/alpine:latest"]),
        (b"# all\n\nalpine:3  # the base\r\n  quay.io/a/b:1 \r\n", ["docker.io/library/alpine:3", "quay.io/a/b:1"]),
        (b"\xef\xbb\xbfalpine\n", ["docker.io/library/alpine:latest"]),
        (b"http://localhost:5000/app:1 team/app:2\n", ["http localhost:5000/app:1 docker.io/team/app:2"]),
        (b"alpine:3 team/alpine\n", ["docker.io/library/alpine:3 docker.io/team/alpine:3"]),        # takes the tag
        (b"alpine x:1 y:2\n", ["line 1: more than two words"]), (b"alpine Bad/Name\n", ["line 1: .*lower-case"]),
        (b"alpine\nUPPER\n\ndocker://x\n", ["line 2: .*lower-case", "line 4: .*leave out"]),
        (b"", ["lists no image"]), (b"# nothing\n", ["lists no image"]), (b"alpine\0\n", ["not a list of images"]),
        (b"\xff\xfe", ["line 1"]), (b":" * 600000, ["line 1: .*more than 1024"]), (b"alpine\n" * 800000, ["4 MiB"])] + [
        # What editors show as one line, or as two: it hides no image behind a comment, and adds no name.
        (row % end.encode(), expected) for end in ("\u2028", "\u2029", "\v", "\f", "\x85", "\x1c", "\r")
        for row, expected in ((b"a/b # %sevil\n", ["docker.io/a/b:latest"]), (b"x\na/b%sevil\n", ["line 2: "]))]

    def test_parse(self):
        for body, expected in selected(self.LISTS):
            with self.subTest(body[:40]):
                try:
                    requests = imgpull.read_list(self.write("images.txt", body))
                except imgpull.UsageError as error:
                    mistakes = [str(error)] + list(error.others)
                    self.assertEqual(len(mistakes), len(expected), mistakes)
                    for mistake, words in zip(mistakes, expected):
                        self.assertRegex(mistake, "images.txt.*" + words)
                        self.assertLess(len(mistake), 1000)
                else:
                    self.assertEqual([" ".join(filter(None, (one.scheme, str(one.reference), one.name)))
                                      for one in requests], expected)

    def test_from(self):
        """References from files, the command line and standard input, each image once."""
        server, app, b = self.two()
        text = "# a list\n%s\n%s team/b:2\n%s\n%s team/c\n" % (app, b, app, server.add("c", "v9", ARM))
        lists = ["--from", self.write("1.txt", text), "--from", self.write("2.txt", app + "\r\n")]
        self.bundle(*lists + [app, server.add("c", "v1", make_image(b"c")), app])
        self.assertEqual(sorted(self.names()),
                         sorted([app, server.host + "/c:v1", "docker.io/team/b:2", "docker.io/team/c:v9"]))
        self.assertEqual([request.path for request in server.requests].count("/v2/app/manifests/v1"), 1)
        done = subprocess.run([sys.executable, imgpull.__file__, "-q", "-s", "http", "--from", "-", "-"], stderr=-1,
                              stdout=-1, input=text.encode())
        self.assertEqual(len(imgpull.list_archive(self.write("image.tar", done.stdout))), 3)
        run = self.run_main("--from", self.write("bad.txt", "UPPER\nalpine\nx:y:z\n"), self.path("x.tar"))
        self.assertEqual((run.code, len(re.findall("error: .*bad.txt, line [13]: ", run.err))), (2, 2), run.err)
        self.fails(self.run_main("--from", self.dir, self.tar), "cannot be read: Is a directory", code=2)

    def test_names(self):
        """The names that images get in the archive, and for skopeo and podman: the tag, the full name in a bundle."""
        server, app, b = self.two(IMAGE)
        c, by_digest = server.add("c", "v2", ARM), "%s/b@%s" % (server.host, IMAGE.digest)
        twice = ["--from", self.write("1.txt", "%s x:1\n%s x:2\n" % (app, app))]
        for argv, expected in selected([
                ([app], {app: "v1"}), ([app, b, c], {app: app, b: b, c: c}), ([app, app], {app: "v1"}),
                ([app, "--name", "x/y"], {"docker.io/x/y:v1": "v1"}), ([by_digest], {by_digest: None}),
                ([app, "--name", "x/y:2"], {"docker.io/x/y:2": "2"}), ([by_digest, c], {by_digest: None, c: c}),
                ([by_digest, "--name", "x/y"], {"docker.io/x/y:latest": "latest"}),
                (twice, {"docker.io/library/x:%d" % number: "docker.io/library/x:%d" % number for number in (1, 2)})]):
            with self.subTest(argv):
                self.bundle(*argv + ["--force"])
                index = json.loads(members(read(self.tar))["index.json"].decode())
                self.assertEqual({note["io.containerd.image.name"]: note.get("org.opencontainers.image.ref.name")
                                  for note in (entry["annotations"] for entry in index["manifests"])}, expected)
                self.assertEqual([image.ref_name or None for image in imgpull.list_archive(self.tar)],
                                 [expected[name] for name in self.names()])

    def test_looked_up_at_once(self):
        """Twelve references, six at a time: the server answers none before it has been asked for six."""
        six = threading.Barrier(6, timeout=20)
        server = self.serve(INDEX, faults=[("tag", lambda wire, _, answer: (six.wait(), wire.send(answer)), ALWAYS)])
        self.bundle(*[server.add("app%d" % number, "v1", INDEX) for number in range(12)])
        self.assertEqual(len(self.names()), 12)


class TestKeepGoing(Bundles):
    LACKS = [  # what the error says, the exit code, what a layer's requests get
        ("404", 3, says(404)), ("503", 4, says(503)), ("connection", 4, cut(3)), ("digest", 5, changed(body=flipped))]
    BAD = [("a layer: " + words, ARMV6, fault, code, words) for words, code, fault in LACKS] + [
        # name, the image that cannot be had, a fault of its last layer, the exit code (0: either), words that say why
        ("a layer longer than it is", claiming(ARMV6, 1 << 20), None, 4, "announces"),
        ("a layer of 2^59 bytes", claiming(ARMV6, 1 << 59), None, 5, "impossible size"),
        ("sizes that add up to 2^60", claiming(make_image(*map(noise, range(64), [9] * 64)), (1 << 44) - 1), None, 5,
         "impossible size"),
        ("two sizes for a layer", claiming(make_image(BIG), 1), None, 0, "cannot have|announces"),
        ("no diff_ids", make_image(b"", b"x", change=lambda manifest: manifest["layers"].pop()), None, 5, "layer")]

    def failing(self, image, fault=None):
        """A server whose b:v1 cannot be had, and the full names of a good and of that image."""
        return self.two(image, faults=[("layer", only_for(image.layers[-1], fault), ALWAYS)] if fault else [])

    def test_bad_images(self):
        """What cannot be had is named at the end and in --json; whatever it is, the good ones are archived."""
        for (name, image, fault, code, words), swap in [(row, swap) for row in selected(self.BAD) for swap in (1, -1)]:
            with self.subTest(name, swap=swap):
                server, app, bad = self.failing(image, fault)
                images = [app, bad][::swap]
                run = self.bundle("--json", "--keep-going", "--retries", "0", *images, code=1)
                self.fails(run, "%s.*(%s)" % (re.escape(bad), words))
                report = json.loads(run.out.decode())
                failure, = report["failures"]
                self.assertEqual((self.names(), [image["name"] for image in report["images"]]), ([app], [app]))
                self.assertEqual((failure["image"], failure["exit_code"]), (bad, code or failure["exit_code"]))
                self.assertRegex(failure["error"], words)
                os.remove(self.tar)
                run = self.run_main("-s", "http", "--retries", "0", *images + [self.tar])
                self.fails(run, "(app|b):v1", words, code=code or FAILED)       # of two sizes, either may be wrong
                self.assertFalse(os.path.exists(self.tar))
                self.clean()

    def test_lists(self):
        """The line of each failure; a name that occurs twice fails its second image; nothing good is no archive."""
        server, app, b = self.failing(ARMV6, says(404))
        none, gone = server.host + "/none:v1", server.host + "/app:v9"
        listed = self.write("images.txt", "%s\n%s x:1\n%s x:1\n%s\n" % (none, app, server.add("c", "v1", ARM), gone))
        run = self.bundle("--from", listed, "--keep-going", code=1)
        self.assertEqual(sorted(re.findall("error: .*images.txt, line ([0-9]): .*404", run.err)), ["1", "4"], run.err)
        self.assertIn("docker.io/library/x:1 is the name of two different images", run.err)
        self.assertEqual(self.names(), ["docker.io/library/x:1"])
        os.remove(self.tar)
        run = self.bundle("--keep-going", none, gone, b, code=3)
        self.assertEqual(len(re.findall("error: .*(?:none:v1|app:v9|b:v1)", run.err)), 3, run.err)
        self.assertFalse(os.path.exists(self.tar))

    def test_layer_of_another_registry(self):
        """A layer that one registry lacks, damages or is too busy for is asked of another that has an image with it."""
        for (name, _, fault), more in [(row, more) for row in selected(self.LACKS) for more in ([], ["--keep-going"])]:
            with self.subTest(name, options=more):
                faults = [("layer", only_for(MIXED.layers[0], fault), ALWAYS)]
                names = ["http://%s/app:v1" % self.serve(MIXED, faults=some).host for some in (faults, ())]
                run = self.run_main("--retries", "0", "--force", *more + names + [self.tar])
                self.assertEqual((run.code, len(self.names())), (0, 2), run.err)
                os.remove(self.tar)

    def test_what_would_be_lost(self):
        """An archive with an image that failed now is not replaced by one without it, unless --force says so."""
        server, app, b = self.two()
        c, none = server.add("c", "v1", make_image(b"c")), server.host + "/none:v1"     # which may be a slip for b
        self.bundle(app, b)
        whole = read(self.tar)
        for argv, image, expected in selected([                         # what b is now
                ([app, b], None, [app, b]), ([b, c], None, [app, b]), ([app, b, "--force"], None, [app]),
                ([app, c, none], None, [app, b]), ([app, b, c, none], ARMV6, [app, b, c])]):
            with self.subTest(argv):
                self.write("image.tar", whole)
                server.manifests["b", "v1"] = image
                run = self.bundle("--keep-going", *argv, code=1)
                self.assertEqual(sorted(self.names()), sorted(expected))
                self.assertEqual((read(self.tar) == whole, bool(re.search("error: .*--force", run.err))),
                                 (expected == [app, b],) * 2)
                self.assertRegex(run.err, "error: .*%s" % re.escape(none if none in argv else b))


class TestDryRun(Bundles):
    def test_nothing_is_written(self):
        """What would be fetched, and from where the rest comes; no layer is asked for, no file touched."""
        server, app, b = self.two()
        places = {name: self.path(name + ".tar") for name in ("kept", "held", "new")}
        self.bundle(b, tar=places["kept"])
        self.bundle(app, tar=places["held"])
        v6, amd64 = size_of(ARMV6), size_of(IMAGE)
        for argv, present, omitted in selected([
                ("{app} {b} {new}", 0, 0), ("--reuse {kept} {app} {b} {new}", v6, 0), ("{app} {b} {held}", amd64, 0),
                ("--base {kept} {app} {b} {new}", 0, v6), ("{app} {held}", amd64, 0), ("{b} {held}", 0, 0)]):
            with self.subTest(argv):
                del server.requests[:]
                words = ["-s", "http", "--dry-run"] + argv.format(app=app, b=b, **places).split()
                images = [image for image in ((app, IMAGE, "amd64"), (b, ARMV6, "arm/v6")) if image[0] in words]
                before = [(each.name, each.stat().st_mtime_ns) for each in os.scandir(self.dir)]
                plain, run = self.run_main(*words), self.run_main("--json", *words)
                self.assertEqual([(each.name, each.stat().st_mtime_ns) for each in os.scandir(self.dir)], before)
                self.assertEqual((run.code, plain.code, "layer" in server.kinds()), (0, 0, False), plain.err)
                self.assertEqual("held.tar, which held " + app in plain.err, argv == "{b} {held}")
                report = json.loads(run.out.decode())
                self.assertEqual([report[key] for key in ("dry_run", "present", "omitted", "unchanged")],
                                 [True, present, omitted, argv == "{app} {held}"])
                self.assertEqual([each["name"] for each in report["images"]], [name for name, _, _ in images])
                self.assertRegex(plain.out.decode(), "".join("%s %s linux/%s .*, %d layers?, .* already here.*\n" % (
                    name, image.digest, machine, len(image.layers)) for name, image, machine in images) + (
                    r"\S+: %d images?, .*, %s of it already here, %s left out, .* [kMGT]B free\n$" % (
                        len(images), imgpull.human(present), imgpull.human(omitted))))
        self.assertEqual(self.run_main("-s", "http", "--dry-run", app, b, "-")[:2], (0, b""))

    def test_size(self):
        """The size that it tells is the archive's; what a part file has counts as present."""
        server = self.serve(MIXED, faults=[("layer", cut(1500000), 1), ("layer", says(503), ALWAYS)])
        self.pull(server, "--retries", "0", "--jobs", "1", expect=FAILED)
        server.faults, parts = [], {name: read(self.path(name)) for name in self.left()}
        run = self.run_main("-s", "http", "--dry-run", "--json", server.host + "/app:v1", self.tar)
        self.assertTrue({name: read(self.path(name)) for name in self.left()} == parts)
        report = json.loads(run.out.decode())
        self.assertGreaterEqual(report["present"], imgpull.PIECE)
        self.assertEqual(report["size"], len(self.pull(server)))


class TestWhatIsThere(Bundles):
    def test_once_more(self):
        """Nothing is fetched, the file is left alone; a damaged one is fetched; of a newer image only what is new:
        permissions stay, and what goes is said."""
        server = self.serve(VERSION1)
        server.add("app", "v2", VERSION2)
        good, before = self.pull(server), os.stat(self.tar)
        self.pull(server, fresh=False)
        self.assertRegex(self.said.out.decode(), "is up to date")
        after = os.stat(self.tar)
        self.assertEqual((after.st_mtime_ns, after.st_ino), (before.st_mtime_ns, before.st_ino))
        self.assertEqual(server.kinds().count("layer"), len(VERSION1.layers))
        self.write("image.tar", flipped_at(good, good.index(VERSION1.blobs[VERSION1.layers[0]]) + 500))
        self.assertEqual(self.pull(server, fresh=False), good)
        self.assertNotIn("up to date", self.said.out.decode())
        os.chmod(self.tar, 0o640)
        del server.requests[:]
        self.pull(server, name="app:v2", fresh=False)
        self.assertEqual(server.sent("layer"), size_of(VERSION2, set(VERSION2.layers) - set(VERSION1.layers)))
        self.assertRegex(self.said.err, "replaces .*image.tar, which held %s/app:v1" % server.host)
        self.assertEqual(imgpull.verify_archive(self.tar), [])
        if POSIX:
            self.assertEqual(os.stat(self.tar).st_mode & 0o777, 0o640)
        for tag, replaced, is_same in ("v2", [], True), ("v1", [server.host + "/app:v2"], False):
            run = self.run_main("-s", "http", "--json", "%s/app:%s" % (server.host, tag), self.tar)
            report = json.loads(run.out.decode())
            self.assertEqual((report["replaced"], report["unchanged"]), (replaced, is_same))
            self.assertEqual("replaces" in run.err, bool(replaced))

    def test_not_an_archive(self):
        """Something else is not overwritten without --force; an empty file is; a base never."""
        server = self.serve()
        good = self.pull(server)
        for data, options, code, words in [
                (tar_of({"x": b"y"}), (), 6, "--force"), (good, ("--base", self.tar), 2, "is the base"),
                (b"my thesis", ("--force",), 0, ""), (b"", (), 0, "")]:
            with self.subTest(words, size=len(data)):
                self.write("image.tar", data)
                run = self.pull(server, *options, expect=code, fresh=False)
                if code:
                    self.fails(run, words, code=code)
                    self.assertEqual(read(self.tar), data)

    def test_base_image(self):
        """What the registry says of version 1 is enough to leave out its layers."""
        server, base = self.serve(VERSION1), self.path("base.tar")
        name = server.host + "/app:v1"
        server.add("app", "v2", VERSION2)
        self.pull(server, tar=base)
        by_archive = self.pull(server, "--name", "x:2", "--base", base, name="app:v2")
        del server.requests[:]
        self.assertEqual(self.pull(server, "--name", "x:2", "--base-image", name, name="app:v2"), by_archive)
        self.assertEqual(server.sent("layer"), size_of(VERSION2, VERSION2.layers[1:]))
        self.assertEqual(imgpull.verify_archive(self.tar, base=[base]), [])

    def test_some_platforms(self):
        """Several platforms: their manifests, and the index as it is."""
        server = self.serve(INDEX)
        held = members(self.pull(server, "--platform", "linux/amd64,linux/arm64"))
        kept = {INDEX.digest, IMAGE.digest, ARM.digest} | set(IMAGE.blobs) | set(ARM.blobs)
        self.assertEqual(set(held) - {"oci-layout", "index.json", "manifest.json"}, set(map(blob_path, kept)))
        self.assertEqual(imgpull.verify_archive(self.tar), [])
        self.fails(self.pull(server, "--platform", "linux/amd64,linux/s390x", expect=3), "linux/s390x", code=3)


# --- the terminal ----------------------------------------------------------------------------------------------------

def rows(output):
    """What a terminal shows after this output, line by line: without what was erased."""
    return re.sub(r"[^\n]*\r\x1b\[K", "", output).split("\n")


@unittest.skipUnless(POSIX, "pseudo-terminals are POSIX")
class TestTerminal(Case):
    SCRIPT = ("import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
              "import imgpull; sys.exit(imgpull.main(sys.argv[1:]))")

    def on_terminal(self, *argv, columns=80, environment=None, stdout=None, word=None, act=None):
        """imgpull with a terminal of its own: exit status, what it wrote. Once `word` has appeared, act(descriptor)."""
        import fcntl
        import termios
        ours, theirs = os.openpty()
        self.addCleanup(os.close, ours)
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        before, output, data = termios.tcgetattr(ours), b"", b"-"
        environment = dict(dict(os.environ, PYTHONIOENCODING="utf-8", TERM="xterm"), **environment or {})
        self.process = subprocess.Popen([sys.executable, "-c", self.SCRIPT] + list(argv), cwd=HERE, env=environment,
                                        stdin=theirs, stdout=stdout or theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        killer = threading.Timer(20, self.process.kill)
        killer.start()
        while data:
            data = b""
            with contextlib.suppress(OSError):      # so Linux says that nobody is there any more
                data = os.read(ours, 65536)
            output += data
            if act and word in output.decode("utf-8", "replace"):
                act, _ = None, act(ours)
        code = self.process.wait()
        killer.cancel()
        self.assertEqual(termios.tcgetattr(ours), before)       # echo and all as it was
        return code, output.decode("utf-8").replace("\r\n", "\n")

    def to_terminal(self, *argv, **more):
        """The same with stdout elsewhere: a pull over http that succeeds. All that it wrote, and each live line."""
        with open(self.path("out"), "wb") as out:
            code, shown = self.on_terminal("--scheme", "http", *argv, stdout=out, **more)
        self.assertEqual(code, 0, shown)
        return shown, re.findall(r"([^\r\n\x1b]+)\r", shown.replace("\x1b[K", "\n"))

    def test_progress(self):
        """The live line fits the terminal, keeps its order and width, and is gone at the end."""
        image = make_image(noise("slow", 1000000), b"quick")
        for columns, environment in selected([(80, {}), (60, {"NO_COLOR": "1"}), (120, {}), (20, {}), (8, {}), (
                200, {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"})]):
            with self.subTest(columns=columns, environment=environment):
                server = self.serve(image, faults=[("layer", slow(8, 0.05), ALWAYS)])       # something to look at
                shown, drawn = self.to_terminal(server.host + "/app:v1", self.path("%d.tar" % columns),
                                                columns=columns, environment=environment)
                drawn = [line for line in drawn if "%" in line]
                self.assertGreater(len(drawn), 1, shown)
                facts = r"^ *\d+%% +\S+ [kM]?B of +1\.0 MB +\S+ [kM]?B/s +\d+:\d\d:\d\d left  [%s]{%d}$" % (
                    "#." if columns == 200 else "█░", columns - 56)
                for line in drawn:
                    self.assertEqual(len(line), columns - 1)
                    self.assertRegex(line, r"^ *\d+% " if columns < 60 else facts)
                self.assertEqual([row[:7] for row in rows(shown)], ["sha256:", "sha256:", ""])
                self.assertEqual(any(ord(char) > 127 for char in shown), 20 < columns < 200)
                server.close()

    def test_interrupted(self):
        """Ctrl-C and kill: the live line goes, one line stays; after SIGKILL the cursor is in the first column."""
        for name, strike, code in [
                ("Ctrl-C", lambda terminal: os.write(terminal, b"\x03"), 130),
                ("TERM", lambda _: self.process.terminate(), 130), ("KILL", lambda _: self.process.kill(), -9)]:
            with self.subTest(name):
                server = self.serve(MIXED, faults=[("layer", silent(2000000), 1)])
                got, shown = self.on_terminal("--scheme", "http", "--jobs", "1", server.host + "/app:v1", self.tar,
                                              word="%", act=strike)
                self.assertEqual(got, code, shown)
                stays = [row for row in rows(shown) if row and not row.startswith(("sha256:", "imgpull: resum"))]
                self.assertRegex(*(shown, r"\r\Z") if code < 0 else (
                    "\n".join(stays), "^imgpull: interrupted(; run the same command again.*)?$"))

    def test_asked(self):
        """The password of --user alone, and the pass phrase of a key: asked for without echo; no archive is shown."""
        ca, client, key = [os.path.join(self.pems(), name) for name in ("ca.pem", "client.pem", "locked.key")]
        for server, options, secret, question in [
                (self.serve(challenges=['Basic realm="x"'], users={"jo": "s3cret"}), ["-s", "http", "-u", "jo"],
                 "s3cret", "Password for jo: "),
                (self.serve(tls=self.pems(), client_ca=ca), ["-x", ca, "-c", client, "-k", key], "sesame", "phrase")]:
            code, shown = self.on_terminal(*options, "--force", server.host + "/app:v1", self.tar, word=question,
                                           act=lambda terminal: os.write(terminal, secret.encode() + b"\n"))
            self.assertEqual((code, secret in shown, question in shown), (0, False, True), shown)
            self.assertEqual(set(re.findall("sha256:[0-9a-f]+", "".join(rows(shown)))), {        # short ones
                digest[:19] for digest in [IMAGE.digest] + IMAGE.layers})
        code, shown = self.on_terminal("alpine", "-")
        self.assertEqual((code, "docker load" in shown), (2, True), shown)

    def test_looking_up(self):
        """Before the download the live line says what is looked up; a retry counts down and goes; nothing stays."""
        server = self.serve(faults=[("tag", says(503, b"busy", Retry_After="1"), 1), ("tag", slow(1, 0.1), 3),
                                    ("layer", says(502, b"", Retry_After="2"), 1), ("layer", slow(8, 0.05), ALWAYS)])
        several = [server.add("app", "v%d" % number, make_image(noise(str(number), 400000))) for number in (2, 3, 4)]
        one = server.host + "/app:v1"
        for columns, names, words in [
                (100, [one], [
                    "looking up " + server.host, "retry in 1 s: %s: .* 503" % one, r" +\d+% +retry in 1 s: ",
                    r" +\d+%% +retry in 2 s: %s: (layer )?sha256:.*502" % one]),
                (80, several, ["looked up 1 of 3 images", "looked up 2 of 3 images"])]:
            shown, drawn = self.to_terminal(*names, self.path("%d-image.tar" % columns), columns=columns)
            self.assertLess(max(map(len, drawn)), columns)
            for word in words + [".*left  █*░*$"]:
                self.assertRegex("\n".join(drawn), "(?m)^" + word)
            self.assertNotIn("retry", drawn[-1])
        *stays, total, last = rows(shown)
        self.assertEqual((sorted(row.split()[0] for row in stays), last), (several, ""))
        self.assertRegex(total, r"image.tar: 3 images, 1\.2 MB, 1\.2 MB downloaded, in \d+\.\d s$")

    def test_plain(self):
        """Not a terminal: a line a blob, nothing that moves; -q: only the result."""
        server = self.serve()
        self.pull(server)
        self.assertRegex(self.said.err, r"^(sha256:[^\x1b\r\n]+\n){2}$")
        self.assertRegex(self.said.out.decode(), "^%s/app:v1 %s linux/amd64 .* kB -> %s in .* s\n$" % (
            server.host, IMAGE.digest, self.tar))
        self.pull(server, "-q")
        self.assertEqual((self.said.err, self.said.out.decode()), ("", "%s/app:v1@%s\n" % (server.host, IMAGE.digest)))


class TestCommandLine(Case):
    # What a newcomer types, and what the answer must say; {to} is "alpine x.tar".
    MISTAKES = [
        ("alpine", "no output file given; use - to write to standard output, .*imgpull alpine alpine.tar"),
        ("--no-such-option=hunter2 {to}", "unknown option --no-such-option: imgpull --help"), ("-p pw {to}", "--user"),
        ("--platform linux/amd64 --platform linux/arm64 {to}", "--platform is given twice"), ("-n= {to}", "is empty"),
        ("docker pull alpine", "leave out 'docker pull': imgpull alpine alpine.tar"), ("--jobs 0 {to}", "more than 0"),
        ("--plattform linux/arm64 {to}", "--plattform: did you mean --platform"), ("-s ftp {to}", "http or https"),
        ("--platform linux/arm64 --arch arm64 {to}", "either --platform, or"), ("--timeout inf {to}", "out of range"),
        ("alpine.tar alpine", "'alpine.tar' looks like an archive.*last"), ("--name a b c x.tar", "--name is for one"),
        ("jo:hunter2@host.example/app x.tar", "not an image reference"), ("--cert c.pem {to}", "--cert and --key"),
        ("images.txt x.tar", "did you mean --from images.txt x.tar"), ("", "no image given: imgpull alpine alpine.tar"),
        ("x.tar", "which image goes into x.tar.*--list-tar x.tar"), ("--creds jo:hunter2 {to}", "--user NAME:PASSWORD"),
        ("verify x.tar", "did you mean --verify x.tar"), ("--json alpine -", "standard output"),
        ("--verify --base A D.tar", "--verify: its value must follow"), ("--format oci {to}", "there is one format"),
        ("--src-tls-verify=false {to}", "--insecure"), ("--override-arch arm {to}", "--platform linux/arm/v7"),
        ("alpine:3:20 x.tar", "the tag '3:20'"), ("--platform amd64/linux {to}", "did you mean linux/amd64")]

    def test_mistakes(self):
        for typed, words in selected(self.MISTAKES):
            with self.subTest(typed):
                run = self.run_main(*typed.format(to="alpine x.tar").split())
                self.fails(run, words, code=2)
                self.assertNotIn("hunter2", run.err)

    def test_json(self):
        """--json: one document on stdout instead of the lines."""
        server, base = self.serve(INDEX), self.path("base.tar")
        self.pull(server, tar=base)
        good = server.host + "/app:v1"
        layers = [dict(digest=digest, size=len(IMAGE.blobs[digest]), omitted=True, diff_id=sha256(tar))
                  for digest, tar in zip(IMAGE.layers, IMAGE.tars)]
        first = json.loads(self.run_main("-s", "http", "--json", "--base", base, good, self.tar).out.decode())
        self.assertGreaterEqual(min(first.pop("seconds"), first.pop("free")), 0)
        self.assertLessEqual(first.pop("fetched"), len(IMAGE.config))        # less if the base has it
        self.assertEqual(first, {
            "schema": 1, "failures": [], "destination": self.tar, "size": os.path.getsize(self.tar), "present": 0,
            "omitted": size_of(IMAGE), "unchanged": False, "dry_run": False, "replaced": [], "images": [{
                "name": good, "digest": IMAGE.digest, "source_digest": INDEX.digest, "size": 0, "referrers": [],
                "image_id": sha256(IMAGE.config), "platform": "linux/amd64", "layers": layers}]})

    def test_forms(self):
        """--option value, --option=value, -ovalue and -o=value mean the same; what is no secret is shown whole."""
        def parsed(form):
            return json.loads(self.run_main("--parsed", *(form.split() + ["alpine", "d@ir/x.tar"])).out.decode())
        for row in selected([
                "-o linux -a arm64|-olinux -aarm64|-o=linux -a=arm64|--os linux --arch=arm64", "-j 3|-j3|-j=3|--jobs=3",
                "-u jo -p pw|-ujo -ppw|-u=jo -p=pw|-u jo:pw", "-u jo -p=-pw|-u jo --password=-pw", "-q|--quiet",
                "-n quay.io|-nquay.io|-n=quay.io|--ns quay.io", "-c c -k k|-cc -kk|-c=c --key=k", "-i|--insecure",
                "-x ca|-xca|-x=ca|--cacert ca|--ca=ca", "-s http|-shttp|--scheme=http", "-t tok|-ttok|-t=tok"]):
            first, *others = [parsed(form) for form in row.split("|")]
            with self.subTest(row):
                self.assertEqual(others, [first] * len(others))
                self.assertNotEqual(first, parsed(""))
        self.assertEqual(parsed("-u jo:hunter2")["tar"], "d@ir/x.tar")

    def test_manifest(self):
        """The manifest on stdout, pretty, and nothing else there; -m list of no index fails; a TAR is left alone."""
        server, tar = self.serve(INDEX), self.write("image.tar", b"old")
        app, one = server.host + "/app:v1", server.add("one", "v1", IMAGE)
        for argv, image in (["list", app], INDEX), (["image", app], IMAGE), (["image", one, tar], IMAGE):
            run = self.run_main("-s", "http", "--manifest", *argv)
            self.assertEqual((run.code, json.loads(run.out.decode())), (0, json.loads(image.manifest.decode())))
            self.assertIn("%s %s" % (image.digest, image.media_type), run.err)
        self.fails(self.run_main("-s", "http", "-m", "list", one), "not an index", code=1)
        self.assertEqual((len(run.out.splitlines()) > 5, read(tar)), (True, b"old"))

    def test_help_and_version(self):
        run = self.run_main("--help")
        lines = run.out.decode().splitlines()
        self.assertEqual((run.code, run.err, len(lines) < 67, max(map(len, lines)) < 83), (0, "", True, True))
        for option in " ".join(row for rows in imgpull.OPTIONS.values() for row in rows).split():
            self.assertIn(option.replace("...", ""), run.out.decode())
        self.assertRegex(self.run_main("-v").out.decode(), r"^imgpull version: \d+\.\d+\.\d+ build date: \S+\n$")
        for kind in [imgpull.ImgpullError] + imgpull.ImgpullError.__subclasses__():
            self.assertRegex(imgpull.EPILOG, r"\b%d " % kind.exit_code)

    def test_the_file(self):
        """Copied to an empty directory, it works from there; heavy modules wait until they are needed."""
        copy = self.write("empty/imgpull", read(imgpull.__file__), 0o755)
        code = "import sys, imgpull; print({'ssl', 'http.client', 'tarfile', 'subprocess', 'email'} & set(sys.modules))"
        for words, place, said in [([copy, "--version"], self.path("empty"), imgpull.__version__),
                                   (["-c", code], HERE, r"^set\(\)\n$")]:
            self.assertRegex(subprocess.check_output([sys.executable] + words, cwd=place).decode(), said)


class TestExitCodes(Case):
    # What is typed, the exit code, and what the line of error says; {app} is an image of {host}, {tar} a new file.
    # Of layers see TestKeepGoing; for 7, TestResume.test_two_at_once; for 130, test_signals there.
    CODES = [
        ("-s https --retries 0 {app} {tar}", 1, "--scheme http"), ("{tls}/app:v1 {tar}", 1, "http"),
        ("-u jo {private}/app:v1 {tar}", 2, "--password-stdin"), ("UPPER {tar}", 2, "lower-case"),
        ("-u jo --password-stdin {private}/app:v1 {tar}", 2, "no password on standard input"),
        ("--base {dir}/none.tar {app} {tar}", 2, "none.tar"), ("{host}/app:v2 {tar}", 3, "404.*tag"),
        ("--platform windows/arm {app} {tar}", 3, "windows/arm.*linux/amd64.*--platform"),
        ("-u jo -p wrong {private}/app:v1 {tar}", 3, "credentials|login"), ("{none}/app:v1 {tar}", 3, "404"),
        ("{host}/ap:v1 {tar}", 3, "404.*check|spelling"), ("{private}/app:v1 {tar}", 3, "log in.*--user"),
        ("{basic}/app:v1 {tar}", 3, "log in.*--user"), ("no-such-host.invalid/app {tar}", 4, "no-such-host.invalid"),
        ("--retries 0 {busy}/app:v1 {tar}", 4, r"answered 503 \(Service Temporarily Unavailable\)"),
        # Refused before anyone has answered: one retry, unless more were asked for. Later it may pass.
        ("{closed}/app:v1 {tar}", 4, r"refused \(tried 2 times\)"), ("--retries 0 {closed}/app {tar}", 4, "refused$"),
        ("--retries 3 {closed}/app:v1 {tar}", 4, r"refused \(tried 4 times\)"),
        ("{login}/app:v1 {tar}", 4, r"refused \(tried 2 times\)"), ("{web}/app:v1 {tar}", 5, "web page"),
        ("{app} {dir}/none/x.tar", 6, "no directory"), ("{app} {dir}", 6, "is a directory"),
        ("{app} {text}", 6, "--force"), ("{app} {text}/x.tar", 6, "no directory .*thesis")]

    def test_codes(self):
        """Of pulls and of dry runs: what would fail tonight fails now, before any layer comes, and nothing is left."""
        server, closed = self.serve(INDEX), self.serve()
        closed.close()
        places = dict(
            app=server.host + "/app:v1", host=server.host, closed=closed.host, dir=self.dir, tar=self.path("x.tar"),
            private=self.serve(challenges=[BEARER], users={"jo": "pw"}).host, text=self.write("thesis", b"my thesis"),
            login=self.serve(challenges=['Bearer realm="http://%s/token"' % closed.host]).host,
            basic=self.serve(challenges=['Basic realm="x"']).host)
        for name, status, title in [("none", 404, b"404 page not found"), ("web", 200, b"Welcome"),
                                    ("tls", 400, b"400 The plain HTTP request was sent to HTTPS port"),
                                    ("busy", 503, b"503 Service Temporarily Unavailable")]:
            page = says(status, b"<html><title>%s</title>" % title, Content_Type="text/html")
            places[name] = self.serve(faults=[("tag", page, ALWAYS)]).host
        for typed, code, words in selected(self.CODES):
            for more in ("", "--dry-run "):
                with self.subTest(more + typed):
                    more += "-s http " * ("-s " not in typed)
                    self.fails(self.run_main(*(more + typed.format(**places)).split()), words, code=code)
                    self.assertEqual((server.sent("layer"), os.listdir(self.dir)), (0, ["thesis"]))


# --- fuzz ------------------------------------------------------------------------------------------------------------

class TestFuzz(Case):
    """Seeded: every run tries the same. A result or an ImgpullError; no other exception, no file left."""
    CASES = int(os.environ.get("IMGPULL_FUZZ") or 200)
    NASTY = [None, True, False, 0, -1, 1, 1 << 31, 1 << 63, 1 << 64, 1e308, 0.5, "", " ", "a", "\0", "..", "../../x",
             "/", "sha256:", "é\u202e", "sha256:" + "0" * 64, "sha256:" + "0" * 63 + "\n", "unknown", [], {}, [[]],
             [None], {"": None}, "x" * 5000, [{}] * 50]

    def check(self, count, attempt):
        for case in range(count):
            with self.subTest(case=case):
                attempt(random.Random(case))

    def mutated(self, rng, value):
        """A JSON value with something changed somewhere."""
        if not isinstance(value, (dict, list)) or not value or rng.random() < 0.1:
            return rng.choice(self.NASTY)
        if isinstance(value, list):
            place = rng.randrange(len(value))
            return value[:place] + [self.mutated(rng, value[place])] * rng.choice([1, 1, 1, 0, 2]) + value[place + 1:]
        key, other = rng.choice(sorted(value)), rng.choice("data annotations platform config layers manifests".split())
        changed = dict(value, **rng.choice([{key: self.mutated(rng, value[key])}] * 8 + [
            {other: rng.choice(self.NASTY)}, {}]))
        return changed if changed != value else {each: value[each] for each in value if each != key}

    def scrambled(self, rng, data):
        """Bytes with some of them changed, taken out or repeated."""
        data = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(len(data) + 1)
            end = min(len(data), place + rng.choice([0, 1, 1, 5, 50]))
            data[place:end] = rng.choice([b"", bytes([rng.randrange(256)]), bytes(data[place:end]) * 2, b'"', b"\r\n"])
        return bytes(data)

    def attempt(self, server, **options):
        kept = self.clean(self.tar, *map(self.path, self.left())) or []
        try:
            imgpull.pull(server.host + "/app:v1", self.tar, scheme="http", retries=0, timeout=5, **options)
            faults_of(self.tar)
        except imgpull.ImgpullError as error:
            self.assertFalse(os.path.exists(self.tar))
            kept = KEPT if error.kept else []
        self.assertEqual(self.left(), kept)

    def test_documents(self):
        """Manifests, indexes and configs, changed as JSON and as bytes."""
        server, index = self.serve(SECOND), make_index((SECOND, "linux/amd64"), (ARMV6, "linux/arm/v6"))
        def change(rng):
            source, media_type = rng.choice([(SECOND.manifest, OCI.manifest), (index.manifest, OCI.index),
                                             (SECOND.config, OCI.config)])
            value = self.mutated(rng, self.mutated(rng, json.loads(source.decode())))
            data = to_json(value) if rng.random() < 0.7 else self.scrambled(rng, source)
            served = document(data, media_type)
            if media_type == OCI.config:
                server.blobs[sha256(data)] = data
                served = make_image(b"one", b"two", change=spoiled("config", to=descriptor(data, OCI.config)))
            server.add("app", "v1", served)
            self.attempt(server, platform=rng.choice(["all", None, "linux/arm/v7"]))
        self.check(self.CASES, change)

    def test_answers(self):
        """Status lines, headers and bodies of every kind of request, scrambled."""
        def change(rng):
            def fault(wire, request, answer):
                wire.wfile.write(self.scrambled(rng, answer.head() + answer.body[:300]) + answer.body[300:])
                wire.drop()
            kind = rng.choice(["tag", "manifest", "config", "layer", "token", "referrers", "digest tag"])
            server = self.serve(INDEX, faults=[(kind, fault, rng.choice([1, ALWAYS]))],
                                challenges=[BEARER] * (kind == "token"), page=1 if kind == "referrers" else None)
            for referrer in (SBOM, make_referrer(IMAGE)):
                server.add("app", referrer.digest, referrer)
            self.attempt(server, referrers=kind in ("referrers", "digest tag"))
            server.close()
        self.check(self.CASES // 4, change)

    def test_text(self):
        """References, platforms and challenges: what is taken stands for itself, what is not is fit for a terminal."""
        seeds = ["docker.io/library/alpine:3.20@sha256:" + "a" * 64, "localhost:5000/a/b_c", "[::1]:5000/x",
                 "linux/arm64/v8", 'Negotiate abc==, Bearer realm="https://a/t",service="s", Basic realm="x\\"y"']
        def change(rng):
            text = self.scrambled(rng, rng.choice(seeds).encode()).decode("utf-8", "replace")
            for parse in (imgpull.parse_reference, imgpull.parse_platform):
                try:
                    self.assertEqual(str(parse(str(parse(text)))), str(parse(text)), text)
                except imgpull.ImgpullError as error:
                    self.assertFalse(re.search(r"[\x00-\x1f\x7f]", str(error)), text)
            imgpull.parse_challenges(text)
        self.check(self.CASES * 5, change)

    def retouched(self, rng, data):
        """A tar with headers changed, members taken out, repeated, shuffled or disguised; checksums are right."""
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            starts = [info.offset for info in tar] + [len(data) - 1024]
        parts = [data[start:end] for start, end in zip(starts, starts[1:])]
        number, choice = rng.randrange(len(parts)), rng.randrange(8)
        part, name = bytearray(parts[number]), parts.pop(number)[:100].rstrip(b"\0").decode()
        if choice > 3:
            for at in rng.sample(range(512), rng.choice([1, 1, 2, 9])):
                part[at] = rng.choice(b"\0 07\x80\xff/.-x")
            part[148:156] = b" " * 8
            part[148:156] = b"%06o\0 " % sum(part[:512])
        elif choice == 3:
            other, key = rng.choice([name, "./" + name, "x"]), rng.choice(["path", "size", "linkpath"])
            part = rng.choice([pax({key: other}), pax({key: "1"}, b"g"), long_name(other)]) + part
        else:
            parts[number:number] = [bytes(part)] * rng.randrange(2)
            number = rng.randrange(len(parts) + 1)
        parts.insert(number, bytes(part))
        return b"".join(parts) + rng.choice([bytes(1024)] * 8 + [bytes(512), b"", bytes(10240), bytes(1024) + data])

    def relabelled(self, rng, data):
        """An archive with index.json or manifest.json changed as JSON, in the very form that imgpull writes."""
        held, name = members(data), rng.choice(["index.json", "manifest.json", "index.json", "oci-layout"])
        held[name] = imgpull.compact(self.mutated(rng, json.loads(held[name].decode())))
        return b"".join(literal for _, literal in imgpull.layout(held)[0])

    def test_archives(self):
        """Changed archives: one that is good is that of its images, byte for byte, and tarfile sees the same in it."""
        small = make_image(b"one", b"two", b"one")
        server = self.serve(make_index((small, "linux/amd64"), (ARMV6, "linux/arm/v6")))
        for part, tag in on(server.manifests["app", "v1"], ".sig"), (make_referrer(small), tag_of(small, ".att")):
            server.add("app", tag, part)
        sources, good = [archive_of(small), self.pull(server, "--referrers")], []
        def change(rng):
            data = rng.choice([self.retouched, self.relabelled, self.scrambled])(rng, rng.choice(sources))
            path = self.write("fuzzed.tar", data)
            with contextlib.suppress(imgpull.ImgpullError):
                imgpull.list_archive(path)
            if faults_of(path) == []:
                good.append(data)
                plan = imgpull.plan_archive(imgpull.list_archive(path))
                self.assertTrue(all(data[at:at + len(text)] == text for at, text in plan.literals))
                self.assertEqual((len(data), list(members(data))), (plan.size, list(plan.contents)))
        self.check(self.CASES, change)
        self.assertLess(len(good), self.CASES // 4)


# --- a look at it ----------------------------------------------------------------------------------------------------

def demo():
    """A pull from a fake registry on loopback, an archive to look into: what `make demo` shows."""
    hello = [make_image(b"hello\n", noise("demo", 300000), architecture=name) for name in ("amd64", "arm64")]
    status = 0
    with contextlib.closing(FakeRegistry()) as server, tempfile.TemporaryDirectory(prefix="imgpull-demo-") as directory:
        name = server.add("demo/hello", "1.0", make_index(*zip(hello, ("linux/amd64", "linux/arm64"))))
        tar = os.path.join(directory, "hello.tar")
        for words in (["--scheme", "http", name, tar], ["--list-tar", tar], ["--verify", tar]):
            print("$ imgpull " + " ".join(words).replace(directory + os.sep, ""), flush=True)
            status = status or imgpull.main(words)
            print(flush=True)
    return status


def everything():
    """All tests, in two processes at once, since most of them wait for something, and one summary: the exit status."""
    names = sorted(name for name in globals() if name.startswith("Test"))
    begun, totals, status = time.monotonic(), dict.fromkeys(("Ran", "failures", "errors", "skipped"), 0), 0
    command = [sys.executable] + ["-W" + each for each in sys.warnoptions] + [os.path.abspath(__file__)]
    outputs = [tempfile.TemporaryFile() for _ in range(2)]
    processes = [subprocess.Popen(command + names[first::2], stderr=output) for first, output in enumerate(outputs)]
    for process, output in zip(processes, outputs):
        status = max(status, abs(process.wait()))
        output.seek(0)
        body, _, summary = output.read().decode("utf-8", "replace").rpartition("-" * 70)
        output.close()
        print(body.strip() if process.returncode else "", end="\n" * status)
        counts = dict(re.findall(r"(Ran|failures|errors|skipped)[ =](\d+)", summary))
        totals = {word: totals[word] + int(counts.get(word, 0)) for word in totals}
        status = status or int("Ran" not in counts)
    ran, more = totals.pop("Ran"), ", ".join("%s=%d" % pair for pair in totals.items() if pair[1])
    print("-" * 70 + "\nPython %s\nRan %d tests in %.3fs\n" % (sys.version.split()[0], ran, time.monotonic() - begun))
    print(("FAILED" if status else "OK") + (" (%s)" % more if more else ""))
    return status


if __name__ == "__main__":
    if sys.argv[1:] in ([], ["demo"]):
        sys.exit(demo() if sys.argv[1:] else everything())
    unittest.main()
