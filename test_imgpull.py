#!/usr/bin/env python3
"""Tests of imgpull: units, and pulls end to end from fake registries on loopback. Standard library only, no installs.

    python3 test_imgpull.py                     everything: no network but loopback, no files but temporary ones
    python3 test_imgpull.py TestFaults          one class; also TestFaults.test_faults
    IMGPULL_FUZZ=100000 python3 test_imgpull.py TestFuzz
    python3 test_imgpull.py demo                a pull from a fake registry, to look at

Top to bottom: certificates, images, the registry that behaves, the one that misbehaves, what all tests share, tests.
Most tests are a table and one loop over it: adding a case is adding a line.
"""
import ast
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
# Hub's (server.key); the same for another host, and one long expired; a client; its key encrypted with "sesame".

PEM = {
    "ca.pem": ("CERTIFICATE", """
        MIIBZzCCAQ2gAwIBAgIBATAKBggqhkjOPQQDAjAaMRgwFgYDVQQDDA9pbWdwdWxsIHRlc3QgQ0EwIBcNMjAwMTAxMDAwMDAwWhgPMjEy
        MDAxMDEwMDAwMDBaMBoxGDAWBgNVBAMMD2ltZ3B1bGwgdGVzdCBDQTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABPh3dCQO9CHsA6ky
        jy+gRnq2xaFI3CQTfF+/IpQDoMQOkGxtot8lNu9s/oKc73MAMRtt6aa/gg84Vsjkurn2X8ijQjBAMA8GA1UdEwEB/wQFMAMBAf8wDgYD
        VR0PAQH/BAQDAgEGMB0GA1UdDgQWBBTSGcnVljCMp4vyOoUyEJAjZPfLLTAKBggqhkjOPQQDAgNIADBFAiEAyL8yyargvdylO3iBnsZC
        jil6XzWfSgKl4gogp6p/IisCIHKPSOK1/lD+C0TdQFJEnXeeR4gYPb3DP/AUfi6FmKYq"""),
    "server.pem": ("CERTIFICATE", """
        MIIB/zCCAaagAwIBAgIBAjAKBggqhkjOPQQDAjAaMRgwFgYDVQQDDA9pbWdwdWxsIHRlc3QgQ0EwIBcNMjAwMTAxMDAwMDAwWhgPMjEy
        MDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMMCWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABL8XiFuKBqTOk2+XHvDBHM7r
        kKR1qh2r/f+8v6bnwyj8FaDoVqKyxhk0VjKqjD6ILAtwUFD/7Zyt2n07Gp2gnxqjgeAwgd0wDAYDVR0TAQH/BAIwADAOBgNVHQ8BAf8E
        BAMCB4AwEwYDVR0lBAwwCgYIKwYBBQUHAwEwHQYDVR0OBBYEFLs1igoXZwAxA33pBgyGvD4zfNQhMB8GA1UdIwQYMBaAFNIZydWWMIyn
        i/I6hTIQkCNk98stMGgGA1UdEQRhMF+CCWxvY2FsaG9zdIIIcmVnLnRlc3SCCnN0b3JlLnRlc3SCFHJlZ2lzdHJ5LTEuZG9ja2VyLmlv
        gg5hdXRoLmRvY2tlci5pb4cEfwAAAYcQAAAAAAAAAAAAAAAAAAAAATAKBggqhkjOPQQDAgNHADBEAiBkimoRJMjg3vPKH+YBASQGmHB/
        yNTxE2sWgYViCba7pQIgH84ssd94mTLpYyqrO1PtI1yPwAugfdDNLSUS/oNmgv4="""),
    "server.key": ("PRIVATE KEY", """
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgDAO/XIFVJUSzCs4yyyJ6shLa5M1qxGuAWtoEpgSlXXehRANCAAS/F4hb
        igakzpNvlx7wwRzO65Ckdaodq/3/vL+m58Mo/BWg6FaissYZNFYyqow+iCwLcFBQ/+2crdp9OxqdoJ8a"""),
    "wrong.pem": ("CERTIFICATE", """
        MIIBuzCCAWKgAwIBAgIBAzAKBggqhkjOPQQDAjAaMRgwFgYDVQQDDA9pbWdwdWxsIHRlc3QgQ0EwIBcNMjAwMTAxMDAwMDAwWhgPMjEy
        MDAxMDEwMDAwMDBaMBwxGjAYBgNVBAMMEWVsc2V3aGVyZS5pbnZhbGlkMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEvxeIW4oGpM6T
        b5ce8MEczuuQpHWqHav9/7y/pufDKPwVoOhWorLGGTRWMqqMPogsC3BQUP/tnK3afTsanaCfGqOBlDCBkTAMBgNVHRMBAf8EAjAAMA4G
        A1UdDwEB/wQEAwIHgDATBgNVHSUEDDAKBggrBgEFBQcDATAdBgNVHQ4EFgQUuzWKChdnADEDfekGDIa8PjN81CEwHwYDVR0jBBgwFoAU
        0hnJ1ZYwjKeL8jqFMhCQI2T3yy0wHAYDVR0RBBUwE4IRZWxzZXdoZXJlLmludmFsaWQwCgYIKoZIzj0EAwIDRwAwRAIgQCraOYtbRf98
        heJ+ZuPY58oxvEivseLAMzfIsNi6+7ECIAveg5WZdm5S3xhQpMEqI0D8gw1DL3dYt4Bdtza82Gem"""),
    "expired.pem": ("CERTIFICATE", """
        MIIBsTCCAVagAwIBAgIBBDAKBggqhkjOPQQDAjAaMRgwFgYDVQQDDA9pbWdwdWxsIHRlc3QgQ0EwHhcNMjAwMTAxMDAwMDAwWhcNMjAw
        MTAyMDAwMDAwWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAS/F4hbigakzpNvlx7wwRzO65Ck
        daodq/3/vL+m58Mo/BWg6FaissYZNFYyqow+iCwLcFBQ/+2crdp9OxqdoJ8ao4GSMIGPMAwGA1UdEwEB/wQCMAAwDgYDVR0PAQH/BAQD
        AgeAMBMGA1UdJQQMMAoGCCsGAQUFBwMBMB0GA1UdDgQWBBS7NYoKF2cAMQN96QYMhrw+M3zUITAfBgNVHSMEGDAWgBTSGcnVljCMp4vy
        OoUyEJAjZPfLLTAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZIzj0EAwIDSQAwRgIhALVGmPvCSBcn4KL+k7ONjOafFmf9
        rJa59H0TZk7AzHIlAiEA+7xTzBAr19PVCsuYDVPzAazkZWVz6fJltXshIJNEgVY="""),
    "client.pem": ("CERTIFICATE", """
        MIIBkjCCATmgAwIBAgIBBTAKBggqhkjOPQQDAjAaMRgwFgYDVQQDDA9pbWdwdWxsIHRlc3QgQ0EwIBcNMjAwMTAxMDAwMDAwWhgPMjEy
        MDAxMDEwMDAwMDBaMBMxETAPBgNVBAMMCGEgY2xpZW50MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAENkr+WasM8sprMSfTyku3pJCB
        Wtb4Rk5d8S0iZLjJrtzu8Pkkr+gvRUxizJHyNhiZzJC3C9xxuJApDnd7ahTMUaN1MHMwDAYDVR0TAQH/BAIwADAOBgNVHQ8BAf8EBAMC
        B4AwEwYDVR0lBAwwCgYIKwYBBQUHAwIwHQYDVR0OBBYEFIFlTkAIh+VrDMubfU5lPsiy68+YMB8GA1UdIwQYMBaAFNIZydWWMIyni/I6
        hTIQkCNk98stMAoGCCqGSM49BAMCA0cAMEQCIDE7hC1Bs6v799ZZrTg9bnlgBxHLj8WojriSqITcHxo+AiAe4jfFwex9kk4cKrCyFbL9
        VMb1K873/1YW0IOfKbPYJQ=="""),
    "client.key": ("PRIVATE KEY", """
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgSgI6expuOQ1DRk60emx1vyUo2vmwwBQcO5ZKpv1fPkOhRANCAAQ2Sv5Z
        qwzyymsxJ9PKS7ekkIFa1vhGTl3xLSJkuMmu3O7w+SSv6C9FTGLMkfI2GJnMkLcL3HG4kCkOd3tqFMxR"""),
    "locked.key": ("ENCRYPTED PRIVATE KEY", """
        MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAj7NctZc7LpPwICCAAwDAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEECfo
        w85QxYsmDhUzQigIkbkEgZBe/kr7W5/JXE3nvpuZgbkc8jzQEccfUR3B5tgegQCaeS7juXLLR6vUQ/n5NXDXw7Mb6XhA5cqI4+TkeY15
        CBai3fmLVFYgbGDuNX6gZe5QVyEAnnw0ic42kBcA/MmlOtx55m+gYZaErjMlDy9o8Fca0rqgVOc9h7v/UpoyYMlSpKNPbSA48GKKQ0eJ
        dQeDfgk="""),
}


def write_pems(directory):
    for name, (kind, text) in PEM.items():
        with open(os.path.join(directory, name), "w") as file:
            file.write("-----BEGIN %s-----\n%s\n-----END %s-----\n" % (kind, "\n".join(text.split()), kind))


# --- images ----------------------------------------------------------------------------------------------------------

Style = namedtuple("Style", "index manifest config layer")
OCI = Style(*["application/vnd.oci.image." + kind for kind in
              ("index.v1+json", "manifest.v1+json", "config.v1+json", "layer.v1.tar+gzip")])
DOCKER = Style("application/vnd.docker.distribution.manifest.list.v2+json",
               "application/vnd.docker.distribution.manifest.v2+json",
               "application/vnd.docker.container.image.v1+json",
               "application/vnd.docker.image.rootfs.diff.tar.gzip")

# manifest: bytes; blobs: {digest: bytes}, with those of an index's children; layers: digests; tars: layers unpacked
Image = namedtuple("Image", "manifest media_type digest blobs layers tars config children")


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def blob_path(digest):
    """The name of a blob in an archive."""
    return "blobs/" + digest.replace(":", "/")


def to_json(value):
    return json.dumps(value, indent=1).encode()


def noise(seed, size):
    """Bytes that do not compress, the same ones each time."""
    return random.Random(seed).getrandbits(8 * size).to_bytes(size, "big") if size else b""


def tar_of(members):
    """A tar of {name: bytes, or a TarInfo to be put in as it is}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = 0 if info is data else len(data)
            tar.addfile(info, None if info is data else io.BytesIO(data))
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
    return Image(manifest, style.manifest, sha256(manifest), blobs, [sha256(layer) for layer in layers], tars, config,
                 ())


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
    config, chart = b'{"name": "chart"}', gzipped(tar_of({"chart/Chart.yaml": b"name: chart\n"}))
    manifest = to_json({"schemaVersion": 2, "mediaType": OCI.manifest,
                        "config": descriptor(config, "application/vnd.cncf.helm.config.v1+json"),
                        "layers": [descriptor(chart, "application/vnd.cncf.helm.chart.content.v1.tar+gzip")]})
    blobs = {sha256(blob): blob for blob in (config, chart)}
    return Image(manifest, OCI.manifest, sha256(manifest), blobs, [sha256(chart)], (), config, ())


# An archive that was there before: it may be replaced, and nothing in it is of use.
OLD = tar_of({"manifest.json": to_json([{"Config": "old.json", "RepoTags": None, "Layers": []}]),
              "old.json": to_json({"rootfs": {"diff_ids": []}})})
BIG = noise("big", 200000)                                  # a layer that arrives in several pieces
IMAGE = make_image(BIG, b"a small layer")
ARM = make_image(BIG, b"for arm64", architecture="arm64")   # shares its first layer with IMAGE
ARMV6 = make_image(b"for arm v6", architecture="arm", variant="v6")
ATTESTATION = make_image(b"provenance", architecture="unknown", os="unknown")
INDEX = make_index((ATTESTATION, "unknown/unknown"), (ARM, "linux/arm64/v8"), (IMAGE, "linux/amd64"),
                   (ARMV6, "linux/arm/v6"))


# --- the registry that behaves ---------------------------------------------------------------------------------------

class Answer:
    """What a server says to a request. Headers: Content_Type="…"; a list where a header occurs more than once, None
    where it is left out."""

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
    """A server on a free port, running until close(). `tls` is the directory of write_pems()."""
    daemon_threads, allow_reuse_address, request_queue_size = True, True, 64
    handler = Wire

    def __init__(self, tls=None, certificate="server.pem", client_ca=None, start=True):
        super().__init__(("127.0.0.1", 0), self.handler, bind_and_activate=False)
        self.server_bind()
        self.requests, self.open, self.closing = [], set(), threading.Event()
        self.scheme = "https" if tls else "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if hasattr(ssl,
                                                                        "PROTOCOL_TLS_SERVER") else ssl.PROTOCOL_TLS)
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

    @property
    def port(self):
        return self.server_address[1]

    @property
    def host(self):
        return "127.0.0.1:%d" % self.port

    @property
    def url(self):
        return "%s://%s" % (self.scheme, self.host)

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

    def answer(self, request):
        raise NotImplementedError


class FakeRegistry(LoopbackServer):
    """A registry, its token server (where its challenge says) and a blob store (/store/…) in one.

    challenges: WWW-Authenticate values, "{url}" being this server; then only requests whose Authorization is in
    `accepted` pass. users: {name: password}, for Basic and for the token server. store: another FakeRegistry, to which
    blobs are redirected. namespace: what ?ns= must say, as at a mirror. token_answer: what the token server says.
    page: entries a page of the referrers API, None for a registry without it. lists: {digest: entries that the
    API lists instead of the true ones}."""

    def __init__(self, challenges=(), users=None, store=None, namespace=None, token_answer=None, page=None, lists=None,
                 **options):
        self.page, self.lists = page, lists or {}
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
        return sum(request.sent for request in list(self.requests) if request.kind in kinds and request.status
                   in (200, 206))

    def kinds(self):
        return [request.kind for request in self.requests]

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


def basic(user, password):
    return "Basic " + base64.b64encode(("%s:%s" % (user, password)).encode()).decode()


BEARER = 'Bearer realm="{url}/token",service="fake",scope="repository:app:pull"'


# --- the registry that misbehaves ------------------------------------------------------------------------------------

# kind: of request, see FakeRegistry.answer(); act: what to do instead of answering well; times: how often, still
Fault = namedtuple("Fault", "kind act times")


class FaultyRegistry(FakeRegistry):
    """Does to requests of a kind (tag, manifest, config, layer, token, store) what a fault says, so many times."""

    def __init__(self, faults=(), **options):
        self.faults = [Fault(*fault) for fault in faults]
        super().__init__(**options)

    def deliver(self, wire, request, answer):
        with self.lock:
            place = next((place for place, fault in enumerate(self.faults)
                          if fault.kind == request.kind and fault.times > 0), None)
            if place is not None:
                fault = self.faults[place]
                self.faults[place] = fault._replace(times=fault.times - 1)
        (super().deliver if place is None else fault.act)(wire, request, answer)


ALWAYS = 1 << 30


def cut(at, reset=False, **headers):
    """End the connection before "nothing" is sent, within the "status" line or the "headers", or after so many bytes of
    the body."""
    def fault(wire, request, answer):
        answer.change(**headers)
        if at == "status":
            wire.wfile.write(b"HTTP/1.")
        elif at == "headers":
            wire.wfile.write(answer.head()[:-20])
        elif at != "nothing":
            wire.send_head(answer)
            wire.send_body(answer.body[:at])
        wire.drop(reset)
    return fault


def reset(at):
    return cut(at, reset=True)


def silent(at):
    """Send so much of the body (None: not even a status line), then nothing, holding the line."""
    def fault(wire, request, answer):
        if at is not None:
            wire.send_head(answer)
            wire.send_body(answer.body[:at])
        wire.server.closing.wait(20)
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


def stale(wire, request, answer):
    """Answer well, then close the kept-alive connection without having said so."""
    wire.send(answer)
    wire.drop()


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
    """Two answers that are none yet, before the real one."""
    wire.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 2)
    wire.send(answer)


def whole(wire, request, answer):
    """As a server that knows nothing of ranges."""
    wire.send(Answer(200, wire.server.blobs[request.path.rsplit("/", 1)[1]]))


def other_range(wire, request, answer):
    """Another range than was asked for, honestly labelled."""
    data = wire.server.blobs[request.path.rsplit("/", 1)[1]]
    wire.send(answer if not request.range else Answer(206, data[5:],
                                                      Content_Range="bytes 5-%d/%d" % (len(data) - 1, len(data))))


def expire(wire, request, answer):
    """All tokens given out so far end here."""
    wire.server.accepted.clear()
    wire.send(wire.server.answer(request))


def raw(data):
    """These bytes, whatever they are, and the end."""
    def fault(wire, request, answer):
        wire.wfile.write(data)
        wire.drop()
    return fault


def endless(head, piece):
    """A head, then a piece for as long as anyone reads."""
    def fault(wire, request, answer):
        wire.wfile.write(head)
        while not wire.server.closing.is_set():
            wire.send_body(piece)
    return fault


def redirect(status, location):
    """{path} is what was asked for, {url} and {host} are this server."""
    def fault(wire, request, answer):
        place = location.format(path=request.path, url=wire.server.url, host=wire.server.host)
        wire.send(Answer(status, Location=place))
    return fault


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
                      mock.patch.object(imgpull, "BACKOFF", 0.001),
                      mock.patch.object(imgpull, "CERTS_DIRS", (self.path("certs.d"),)),
                      mock.patch.object(imgpull, "DAEMON_JSON", self.path("daemon.json")),
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

    def serve(self, image=IMAGE, kind=FaultyRegistry, **options):
        """A registry that has `image` as app:v1."""
        server = kind(**options)
        self.addCleanup(server.close)
        if image:
            server.add("app", "v1", image)
        return server

    def pems(self):
        """The directory with all the certificates and keys."""
        path = self.path("pems")
        if not os.path.isdir(path):
            os.mkdir(path)
            write_pems(path)
        return path

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


    def clean(self):
        """Forget what a pull has left."""
        for name in self.left():
            os.remove(self.path(name))


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
    HEX, HEX512 = "a" * 64, "b" * 128
    GOOD = [  # text, full name, registry, repository, tag, digest
        ("ubuntu", "docker.io/library/ubuntu:latest", "docker.io", "library/ubuntu", "latest", ""),
        ("ubuntu:22.04", "docker.io/library/ubuntu:22.04", "docker.io", "library/ubuntu", "22.04", ""),
        ("library/ubuntu", "docker.io/library/ubuntu:latest", "docker.io", "library/ubuntu", "latest", ""),
        ("user/app:V1", "docker.io/user/app:V1", "docker.io", "user/app", "V1", ""),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest", "docker.io", "library/ubuntu", "latest", ""),
        ("index.docker.io/ubuntu", "docker.io/library/ubuntu:latest", "docker.io", "library/ubuntu", "latest", ""),
        ("index.docker.io/a/b", "docker.io/a/b:latest", "docker.io", "a/b", "latest", ""),
        ("localhost/app", "localhost/app:latest", "localhost", "app", "latest", ""),
        ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000", "app", "1", ""),
        ("reg.example/a/b/c:t", "reg.example/a/b/c:t", "reg.example", "a/b/c", "t", ""),
        ("Upper/app", "Upper/app:latest", "Upper", "app", "latest", ""),
        ("REG.Example:5000/app", "REG.Example:5000/app:latest", "REG.Example:5000", "app", "latest", ""),
        ("127.0.0.1:80/app", "127.0.0.1:80/app:latest", "127.0.0.1:80", "app", "latest", ""),
        ("[::1]/app", "[::1]/app:latest", "[::1]", "app", "latest", ""),
        ("[2001:db8::1]:5000/app:x", "[2001:db8::1]:5000/app:x", "[2001:db8::1]:5000", "app", "x", ""),
        ("a__b/c-d/e--f/g.h_i", "docker.io/a__b/c-d/e--f/g.h_i:latest", "docker.io", "a__b/c-d/e--f/g.h_i", "latest",
         ""),
        ("app:" + "t" * 128, "docker.io/library/app:" + "t" * 128, "docker.io", "library/app", "t" * 128, ""),
        ("app:_", "docker.io/library/app:_", "docker.io", "library/app", "_", ""),
        ("app@sha256:" + HEX, "docker.io/library/app@sha256:" + HEX, "docker.io", "library/app", "", "sha256:" + HEX),
        ("app@sha512:" + HEX512, "docker.io/library/app@sha512:" + HEX512, "docker.io", "library/app", "",
         "sha512:" + HEX512),
        ("q.io/a:1@sha256:" + HEX, "q.io/a:1@sha256:" + HEX, "q.io", "a", "1", "sha256:" + HEX),
        ("reg.example:5000/" + "p" * 255, "reg.example:5000/%s:latest" % ("p" * 255), "reg.example:5000", "p" * 255,
         "latest", ""),
        (HEX + ":t", "docker.io/library/%s:t" % HEX, "docker.io", "library/" + HEX, "t", ""),
        ("localhost:8080/quay.io/curl/curl:8", "localhost:8080/quay.io/curl/curl:8", "localhost:8080",
         "quay.io/curl/curl",
         "8", ""),
    ]
    BAD = [  # text, word in the answer
        ("", "name"), ("Ubuntu", "lower"), ("docker.io/Ubuntu", "lower"), ("user/App", "lower"), (":tag", ""),
        ("app:", "tag"),
        ("app:-t", "tag"), ("app:.t", "tag"), ("app:" + "t" * 129, "tag"), ("app:a b", ""), ("app:tag/x", ""),
        ("app@", "digest"),
        ("app@sha256", "digest"), ("app@sha256:abc", "digest"), ("app@sha256:" + "A" * 64, "digest"),
        ("app@sha256:" + "a" * 63, "digest"), ("app@md5:" + "a" * 32, "digest"), ("app@sha512:" + HEX, "digest"),
        ("app@sha256:%s@sha256:%s" % (HEX, HEX), ""), ("app@sha256:" + HEX + "\n", ""), ("a//b", ""), ("/a", ""),
        ("a/", ""),
        ("a..b", ""), ("a___b", ""), ("-a", ""), ("a-", ""), ("a_", ""), (".a", ""), ("a/../b", ""), ("a b", ""),
        ("ä", ""), ("a\n", ""), ("a\0", ""),
        ("reg.example:port/app", ""), ("reg.example:/app", ""), ("reg_x.example/app", ""), ("-reg.example/app", ""),
        ("reg..example/app", ""), ("[::1/app", ""), ("::1/app", ""), ("[zz]/app", ""), ("bücher.example/app", ""),
        ("reg.example/", ""), ("reg.example:5000/" + "p" * 256, "long"), (HEX, ""),
        ("https://reg.example/app", "https://"),
        ("docker://alpine", "docker://"), ("http://localhost:5000/app", "--scheme http"), ("a?b", ""), ("a#b", ""),
        ("a%2fb", ""), ("user:pass@reg.example/app", ""), ("app:sha256:" + HEX, "with '@'"),
    ]

    def test_good(self):
        for text, full, registry, repository, tag, digest in selected(self.GOOD):
            with self.subTest(text):
                got = imgpull.parse_reference(text)
                self.assertEqual((str(got), got.registry, got.repository, got.tag or "", got.digest or ""),
                                 (full, registry, repository, tag, digest))
                self.assertEqual(imgpull.parse_reference(full), got)  # a full name stands for itself

    SOURCES = [  # text, scheme and full name; or words of the refusal
        ("alpine", None, "docker.io/library/alpine:latest"),
        ("http://localhost:5000/app:1", "http", "localhost:5000/app:1"),
        ("HTTPS://reg.example/a/b", "https", "reg.example/a/b:latest"),
        ("http://hub.docker.com/_/alpine", "web page", "'alpine'"),
        ("https://hub.docker.com/r/grafana/grafana/tags", "web page", "grafana/grafana"),
        ("https://quay.io/repository/curl/curl?tab=tags", "web page", "'quay.io/curl/curl'"),
        ("https://gallery.ecr.aws/docker/library/alpine", "web page", "'public.ecr.aws/docker/library/alpine'"),
        ("https://github.com/o/r/pkgs/container/x", "web page", ""),
        ("http://localhost:5000", "HOST\\[:PORT]/NAME", ""), ("http://myhost/app", "myhost:80", ""),
        ("docker://alpine", "leave out", ""), ("https://ann:hunter2@reg.example/app", "image reference", ""),
        ("ann:hunter2@reg.example/app", "digest", "")]

    def test_bad(self):
        for text, word in selected(self.BAD):
            with self.subTest(text):
                with self.assertRaises(imgpull.UsageError) as caught:
                    imgpull.parse_reference(text)
                self.assertRegex(str(caught.exception), "(?i)" + re.escape(word))

    def test_sources(self):
        """References that may say how to speak to their registry; web pages are told; no password is shown."""
        for text, first, second in selected(self.SOURCES):
            with self.subTest(text):
                try:
                    scheme, reference = imgpull.parse_source(text)
                except imgpull.UsageError as error:
                    self.assertRegex(str(error), "%s.*%s" % (first, second))
                    self.assertNotIn("hunter2", str(error))
                else:
                    self.assertEqual((scheme, str(reference)), (first, second))


class TestPlatforms(Case):
    def test_parse(self):
        for text, parts in [("linux/amd64", ("linux", "amd64", "")), ("linux/arm/v7", ("linux", "arm", "v7")),
                            ("linux/arm64/v8", ("linux", "arm64", "")), ("windows/amd64", ("windows", "amd64", "")),
                            ("linux/x86_64", ("linux", "amd64", "")), ("linux/aarch64", ("linux", "arm64", "")),
                            ("linux/arm", ("linux", "arm", "v7")), ("Linux/armv6l", ("linux", "arm", "v6")),
                            ("arm64", ("linux", "arm64", "")), ("linux/armhf", ("linux", "arm", "v7")),
                            ("freebsd", ("freebsd", "amd64", "")), ("macOS", ("darwin", "amd64", "")),
                            ("solaris", ("solaris", "amd64", "")), ("aix", ("aix", "amd64", "")),
                            ("plan9", ("plan9", "amd64", "")), ("linux", ("linux", "amd64", "")),
                            ("windows(10.0.17763)/amd64", ("windows", "amd64", "", "10.0.17763"))]:
            with self.subTest(text):
                self.assertEqual(imgpull.parse_platform(text), imgpull.Platform(*parts))
        for platform, text in [(("linux", "arm", "v7"), "linux/arm/v7"), (("linux", "386", ""), "linux/386")]:
            self.assertEqual(str(imgpull.Platform(*platform)), text)
        for text in ["", "linux/", "/amd64", "linux/arm/v7/x", "linux arm", "linux/am d64", "linux/\n", "all",
                     "windows(10/amd64", "windows()/amd64"]:
            with self.subTest(text), self.assertRaises(imgpull.ImgpullError):
                imgpull.parse_platform(text)

    def test_choice(self):
        """Which entry of an index is taken: the options, what the index offers, what is taken (None: refused)."""
        offers = {platform: make_image(platform.encode(), os=platform.split("/")[0],
                                       architecture=platform.split("/")[1])
                  for platform in ("linux/amd64", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm",
                                   "linux/arm64",
                                   "linux/arm64/v8", "windows/amd64", "linux/386", "unknown/unknown")}
        for options, offered, taken in [
                ("--platform linux/amd64", "unknown/unknown linux/arm64 linux/amd64", "linux/amd64"),
                ("--os linux --arch amd64", "windows/amd64 linux/amd64", "linux/amd64"),
                ("-o=windows -aamd64", "linux/amd64 windows/amd64", "windows/amd64"),
                ("--platform linux/arm/v7", "linux/arm/v5 linux/arm/v6 linux/arm/v7", "linux/arm/v7"),
                ("--platform linux/arm/v7", "linux/arm/v5 linux/arm/v6", "linux/arm/v6"),
                ("--platform linux/arm/v6", "linux/arm/v5 linux/arm/v7", "linux/arm/v5"),
                ("--platform linux/arm/v5", "linux/arm/v6 linux/arm/v7", None),
                ("--platform linux/arm", "linux/arm/v6 linux/arm/v7", "linux/arm/v7"),
                ("--platform linux/arm64", "linux/arm64/v8", "linux/arm64/v8"),
                ("--platform linux/arm64/v8", "linux/arm64", "linux/arm64"),
                ("--platform linux/arm64", "linux/amd64 unknown/unknown", None),
                ("--platform unknown/unknown", "linux/amd64 unknown/unknown", None),
                ("--platform linux/s390x", "linux/amd64 linux/arm64", None)]:
            with self.subTest(options=options, offered=offered):
                offered = offered.split()
                server = self.serve(make_index(*[(offers[platform], platform) for platform in offered]))
                if taken:
                    self.pull(server, *options.split())
                    self.assertIn(offers[taken].digest, self.said.out.decode())
                else:
                    run = self.pull(server, *options.split(), expect=1)
                    self.fails(run, "not available for .*platform",
                               *[platform for platform in offered if platform != "unknown/unknown"], code=3)
                    self.assertNotIn("unknown/unknown", run.err.replace("for unknown/unknown", ""))
                server.close()

    def test_acceptable(self):
        """What a machine runs, best first."""
        for wanted, steps in selected([
                ("linux/amd64", ""), ("linux/amd64/v3", "v2 -"), ("linux/arm/v7", "v6 v5"), ("linux/arm/v5", ""),
                ("linux/arm64", ""), ("linux/arm64/v8", ""), ("linux/arm64/v8.2", "v8.1 -"),
                ("linux/arm64/v9", "v8.5 v8.4 v8.3 v8.2 v8.1 -"),
                ("linux/arm64/v9.2", "v9.1 v9 v8.7 v8.6 v8.5 v8.4 v8.3 v8.2 v8.1 -"),
                ("linux/arm64/v99", ""), ("linux/ppc64le", ""), ("linux/amd64/vx", "")]):
            with self.subTest(wanted):
                best, *others = imgpull.acceptable(imgpull.parse_platform(wanted))
                self.assertEqual((str(best), " ".join(one.variant or "-" for one in others)),
                                 (wanted.replace("arm64/v8", "arm64") if wanted.endswith("/v8") else wanted, steps))

    def test_windows_and_features(self):
        """os.version and os.features: what is wanted, the entries, which is taken (its place, None for none)."""
        def entry(number, **platform):
            return {"mediaType": OCI.manifest, "digest": "sha256:%064d" % number, "size": 1, "platform": platform}
        windows = [entry(number, **{"os": "windows", "architecture": "amd64", "os.version": version})
                   for number, version in enumerate(["10.0.17763.1", "10.0.20348.9", "10.0.17763.30", "10.0.17763.4"])]
        features = [entry(0, **{"os": "linux", "architecture": "amd64", "os.features": ["sse9"]}),
                    entry(1, os="linux", architecture="amd64"), entry(2, os="linux", architecture="amd64")]
        for wanted, entries, place in selected([
                ("windows/amd64", windows, 0), ("windows(10.0.17763)/amd64", windows, 2),
                ("windows(10.0.17763.4)/amd64", windows, 2), ("windows(10.0.20348)/amd64", windows, 1),
                ("windows(10.0.14393)/amd64", windows, None), ("linux/amd64", features, 1),
                ("linux/amd64", features[:1], 0)]):
            with self.subTest(wanted, entries=len(entries)):
                chosen = imgpull.choose([imgpull.parse_descriptor(each, "it") for each in entries],
                                        imgpull.parse_platform(wanted))
                self.assertEqual(chosen and int(chosen.digest[7:]), place)

    def test_other_word_size(self):
        """amd64 wanted and only 386 there stays an error, which says how to take it."""
        for wanted, there in selected([("linux/amd64", "linux/386"), ("linux/arm64", "linux/arm/v7")]):
            with self.subTest(wanted):
                server = self.serve(make_index((IMAGE, there), (ARMV6, "linux/s390x")))
                run = self.pull(server, "--platform", wanted, expect=FAILED)
                self.fails(run, "not available for " + wanted, "--platform %s would take" % there, code=3)

    def test_undeclared(self):
        """Entries without platform: only where none that says it fits; what cannot be read is passed over."""
        schema1 = document(to_json({"schemaVersion": 1, "fsLayers": [], "history": []}))
        gone, missing = make_image(b"its config is gone"), make_image(b"not there at all")
        for name, children, taken in selected([
                ("one that says it wins", [(ARM, None), (IMAGE, "linux/amd64")], IMAGE),
                ("asked for", [(ARM, None), (IMAGE, None)], IMAGE),
                ("within an index", [(make_index((ARM, None), (IMAGE, None)), None)], IMAGE),
                ("broken ones", [(schema1, None), (make_artifact(), None), (missing, None), (gone, None),
                                 (IMAGE, None)], IMAGE),
                ("broken ones alone", [(schema1, None), (missing, None)], None),
                ("not asked where one fits", [(missing, None), (IMAGE, "linux/amd64")], IMAGE)]):
            with self.subTest(name):
                server = self.serve(make_index(*children))
                server.manifests.pop(("app", missing.digest), None)
                server.blobs.pop(sha256(gone.config), None)
                run = self.pull(server, expect=0 if taken else FAILED, tar="-")
                if taken:
                    self.assertIn(taken.digest, run.err)
                    if "where one fits" in name:
                        self.assertEqual(len(server.requests), 5, server.requests)
                else:
                    self.fails(run, "no platform at all", code=3)
        server = self.serve(make_index((ARM, None), (IMAGE, None)), faults=[Fault("manifest", says(503), ALWAYS)])
        self.fails(self.pull(server, "--retries", "0", expect=FAILED), "503", code=4)

    @unittest.skipUnless(POSIX, "os.uname is POSIX")
    def test_this_host(self):
        """This host in Go's names, by what the system calls it."""
        for system, machine, platform in [
                ("Linux", "x86_64", "linux/amd64"), ("Linux", "aarch64", "linux/arm64"), ("Linux", "i686", "linux/386"),
                ("Linux", "armv7l", "linux/arm/v7"), ("Linux", "armv6l", "linux/arm/v6"),
                ("Linux", "ppc64le", "linux/ppc64le"),
                ("Linux", "s390x", "linux/s390x"), ("Linux", "riscv64", "linux/riscv64"),
                ("Darwin", "arm64", "darwin/arm64"),
                ("FreeBSD", "amd64", "freebsd/amd64")]:
            uname = os.uname_result((system, "", "", "", machine))
            with self.subTest(system=system, machine=machine), mock.patch("os.uname", return_value=uname):
                self.assertEqual(str(HOST_PLATFORM()), platform)

    def test_other_systems(self):
        """On a host whose system the image lacks, linux is taken, and that is said."""
        server = self.serve(INDEX)
        for system, said in [("linux", False), ("darwin", True), ("windows", True)]:
            host = imgpull.Platform(system, "amd64", "")
            with self.subTest(system), mock.patch.object(imgpull, "host_platform", return_value=host):
                self.pull(server)
                self.assertIn(IMAGE.digest, self.said.out.decode())
                self.assertEqual("linux" in self.said.err, said, self.said.err)

    def test_single_platform(self):
        """An image of another platform: an error where one was asked for by name, else a warning; also with -q."""
        server = self.serve(ARM)
        for options in selected([(), ("-q",)]):
            self.fails(self.pull(server, "--platform", "linux/amd64", *options, expect=FAILED),
                       "not available for linux/amd64 .available: linux/arm64", code=3)
            self.pull(server, *options)
            self.assertRegex(self.said.err, "imgpull: warning: .*linux/arm64")
        self.pull(server, "--platform", "linux/arm64")
        self.assertNotIn("warning", self.said.err)


class TestChallenges(unittest.TestCase):
    TABLE = [  # header value, what is in it
        ('Bearer realm="https://a/t",service="s",scope="repository:a/b:pull"',
         [("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:a/b:pull"})]),
        ('Bearer realm="https://gcr.io/v2/token",service="gcr.io"',
         [("bearer", {"realm": "https://gcr.io/v2/token", "service": "gcr.io"})]),
        ('BASIC realm="Sonatype Nexus Repository Manager"', [("basic",
                                                              {"realm": "Sonatype Nexus Repository Manager"})]),
        ('bearer REALM="x"', [("bearer", {"realm": "x"})]),
        ("Basic", [("basic", {})]),
        ("Bearer realm=https://a/t, service=s", [("bearer", {"realm": "https://a/t", "service": "s"})]),
        ('Bearer realm = "a" ,  service= "b"', [("bearer", {"realm": "a", "service": "b"})]),
        ('Bearer realm="a, b",scope="repository:x:pull,push"',
         [("bearer", {"realm": "a, b", "scope": "repository:x:pull,push"})]),
        (r'Bearer realm="a\"b\\c"', [("bearer", {"realm": 'a"b\\c'})]),
        ('Bearer realm="a",, ,service="b",', [("bearer", {"realm": "a", "service": "b"})]),
        ('Basic realm="a", Bearer realm="b",service="c"', [("basic", {"realm": "a"}),
                                                           ("bearer", {"realm": "b", "service": "c"})]),
        ('Negotiate, Basic realm="a"', [("negotiate", {}), ("basic", {"realm": "a"})]),
        ('Negotiate dG9rZW42OA==, Bearer realm="b"', [("negotiate", {}), ("bearer", {"realm": "b"})]),
        ('NTLM, Digest realm="d", qop="auth, auth-int", Bearer realm="b"',
         [("ntlm", {}), ("digest", {"realm": "d", "qop": "auth, auth-int"}), ("bearer", {"realm": "b"})]),
        ('Bearer realm="Basic realm=x, Bearer realm=y"', [("bearer", {"realm": "Basic realm=x, Bearer realm=y"})]),
        ('Bearer realm=""', [("bearer", {"realm": ""})]),
        ("", []), (",", []), (" ", []),
    ]
    NASTY = ['Bearer realm="never closed', 'Bearer realm=', '=', '"', 'Bearer "x"', 'Bearer ,=,"', "\\" * 50,
             'a="' * 200,
             "Bearer " * 5000, 'Bearer realm="' + "\\" * 20000, " ," * 20000, "a" * 50000, "Bearer " + "a=" * 20000]

    def test_table(self):
        for value, expected in selected(self.TABLE):
            with self.subTest(value):
                self.assertEqual(imgpull.parse_challenges(value), expected)

    def test_nasty(self):
        """Whatever comes: a list, and soon."""
        started = time.monotonic()
        for value in self.NASTY:
            with self.subTest(value[:50]):
                for scheme, parameters in imgpull.parse_challenges(value):
                    self.assertEqual(scheme, scheme.lower())
                    self.assertIsInstance(parameters, dict)
        self.assertLess(time.monotonic() - started, 2)


# --- plans, spans, walks: pure functions ------------------------------------------------------------------------------

def resolved(*images, **options):
    """The ResolvedImage of images that one reference names: the first is what docker is offered."""
    manifests = [imgpull.parse_manifest(image.manifest, image.digest, "it") for image in images]
    documents = {digest: blob for image in images for digest, blob in image.blobs.items() if blob[:1] == b"{"}
    documents.update((image.digest, image.manifest) for image in images)
    configs = {image.digest: imgpull.parse_config(image.config, "it") for image in images}
    return imgpull.ResolvedImage(None, options.get("name", "q.io/app:v1"), options.get("tag", "v1"),
                                 manifests[0].descriptor, manifests, configs, documents, manifests[0], None)


class TestPureFunctions(unittest.TestCase):
    def test_layout(self):
        """Where what stands in a tar: names, sizes (bytes for what is there, a number for what comes later)."""
        for contents in selected([
                [], [("a", b"x")], [("a", 5)], [("a", 0)], [("a", b""), ("b", 512), ("c", b"y" * 513), ("d", 1)],
                [("n" * 150, 7), ("b", b"z")], [("huge", 9 << 30), ("b", b"z")]]):
            with self.subTest(str(contents)[:60]):
                place = {name: imgpull.Descriptor("", "sha256:" + "0" * 64, content, None, (), {})
                         if isinstance(content, int) else content for name, content in contents}
                literals, placed, size = imgpull.layout(place)
                edges = [0] + [edge for descriptor, offset in placed for edge in (offset, offset + descriptor.size)]
                self.assertEqual([offset for offset, _ in literals], edges[::2])
                self.assertEqual([offset + len(literal) for offset, literal in literals], edges[1::2] + [size])
                if size < 1 << 20:
                    data = bytearray(size)
                    for offset, literal in literals:
                        data[offset:offset + len(literal)] = literal
                    held = members(bytes(data))
                    self.assertEqual([(name, len(body)) for name, body in held.items()],
                                     [(name, content if isinstance(content, int) else len(content))
                                      for name, content in contents])

    def test_plan(self):
        """Every document and layer once, in order; what is left out; two sizes for one digest."""
        twice = make_image(b"a" * 600, b"b", b"a" * 600)
        for name, images, omit, layers, tags in selected([
                ("one", [resolved(IMAGE)], (), IMAGE.layers, [["q.io/app:v1"]]),
                ("a layer twice", [resolved(twice)], (), set(twice.layers), [["q.io/app:v1"]]),
                ("one image under two names", [resolved(IMAGE), resolved(IMAGE, name="q.io/b:v2")], (), IMAGE.layers,
                 [["q.io/app:v1", "q.io/b:v2"]]),
                ("two that share a layer", [resolved(IMAGE), resolved(ARM, name="q.io/b:v2")], (),
                 set(IMAGE.layers + ARM.layers), [["q.io/app:v1"], ["q.io/b:v2"]]),
                ("without a tag", [resolved(IMAGE, tag="")], (), IMAGE.layers, [None]),
                ("a layer left out", [resolved(IMAGE)], IMAGE.layers[:1], IMAGE.layers[1:], [["q.io/app:v1"]])]):
            with self.subTest(name):
                plan = imgpull.plan_archive(images, frozenset(omit))
                self.assertEqual([planned.descriptor.digest for planned in plan.layers], sorted(layers))
                self.assertEqual(sorted(plan.omitted), sorted(omit))
                self.assertEqual(plan.total, sum(planned.descriptor.size for planned in plan.layers))
                text = b"".join(literal for _, literal in plan.literals)
                self.assertEqual([entry["RepoTags"] for entry in imgpull.docker_manifest(images)], tags)
                for image in images:
                    for document in image.documents.values():
                        self.assertEqual(text.count(document), 1)
        lies = make_image(b"x", change=lambda manifest: manifest["layers"].append(
            dict(manifest["layers"][0], size=7)))
        with self.assertRaisesRegex(imgpull.Damaged, "7 bytes in one place"):
            imgpull.plan_archive([resolved(lies)])

    def test_merged(self):
        """Spans of a layer of 100 bytes as a state file claims them, and what is believed."""
        for claimed, believed in selected([
                ([], []), ([(0, 10)], [(0, 10)]), ([(10, 20), (0, 10)], [(0, 20)]), ([(0, 10), (5, 30)], [(0, 30)]),
                ([(0, 50), (10, 20)], [(0, 50)]), ([(0, 10), (20, 30)], [(0, 10), (20, 30)]),
                ([(0, 101)], []), ([(7, 7)], []), ([(9, 3)], []), ([(0, 1 << 62)], []),
                ([(99, 100), (0, 1)], [(0, 1), (99, 100)])]):
            with self.subTest(str(claimed)):
                self.assertEqual(imgpull.merged(claimed, 100), believed)
        many = [(start, start + 2 + start % 3) for start in range(0, 1000, 10)]
        self.assertEqual(len(imgpull.merged(many, 1000)), imgpull.SPANS_LIMIT)

    def test_walk(self):
        """Each manifest once, parents first; indexes without end are an error."""
        inner = make_index((IMAGE, "linux/amd64"), (ARM, "linux/arm64"))
        for name, top, digests in selected([
                ("an image", IMAGE, [IMAGE]), ("an index", inner, [inner, IMAGE, ARM]),
                ("a shared child", make_index((inner, None), (ARM, "linux/arm64")), [None, inner, ARM, IMAGE]),
                ("deep", deep_index(20), "more than 4 deep"),
                ("wide", make_index(*[(document(b"%d" % number), "linux/amd64") for number in range(999)],
                                    change=lambda index: index["manifests"].append(index["manifests"][0])), 1000)]):
            held = {}

            def gather(image, held=held):
                held[image.digest] = image
                for child in image.children:
                    gather(child)
            gather(top)

            def load(descriptor, held=held):
                image = held[descriptor.digest]
                if image.manifest[:1] != b"{":
                    return None
                return imgpull.parse_manifest(image.manifest, image.digest, "it")

            manifest = imgpull.parse_manifest(top.manifest, top.digest, "it")
            walked = imgpull.walk(manifest.descriptor, manifest, load, "it")
            with self.subTest(name):
                if isinstance(digests, str):
                    with self.assertRaisesRegex(imgpull.Damaged, digests):
                        list(walked)
                elif isinstance(digests, int):
                    self.assertEqual(len(list(walked)), 1)
                else:
                    self.assertEqual([descriptor.digest for descriptor, _ in walked],
                                     [(image or top).digest for image in digests])

    def test_json_as_go_reads_it(self):
        """Keys in any case count; a key in two spellings, or twice, is refused."""
        for body, words in selected([
                (b'{"schemaVersion": 2, "CONFIG": {"Digest": "sha256:%s", "size": 2}, "Layers": []}' % (b"a" * 64), ""),
                (b'{"config": {}, "Config": {}, "layers": []}', "several spellings"),
                (b'{"config": {}, "con\xc5\xbfig": {}, "layers": []}', "digest"),
                (b'{"manifests": [], "Manifests": []}', "several spellings"),
                (b'{"manifests": [], "manifests": []}', "not JSON"),
                (b'{"manifests": [], "Layers": []}', "at once")]):
            with self.subTest(body):
                try:
                    imgpull.parse_manifest(body, "sha256:" + "0" * 64, "it")
                except imgpull.Damaged as error:
                    self.assertRegex(str(error), words or "nothing")
                else:
                    self.assertEqual(words, "")

    def test_private_parts(self):
        """The private parts of the standard library that imgpull uses are what they were (listed at its top)."""
        import argparse
        connection = http.client.HTTPConnection("localhost")
        self.assertTrue(callable(connection._create_connection) and callable(connection._tunnel))
        self.assertIn("_tunnel_host", vars(connection))
        self.assertIn("-h", argparse.ArgumentParser()._option_string_actions)
        for name in ("_fill_text", "_format_action_invocation"):
            self.assertTrue(callable(getattr(argparse.HelpFormatter, name)))
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
        self.assertEqual(docker["RepoTags"], [name] if name else None)
        if name:
            self.assertEqual(entry["annotations"]["io.containerd.image.name"], name)
        self.assertEqual(docker["Config"], blob_path(sha256(image.config)))
        self.assertEqual(docker["Layers"], [blob_path(digest) for digest in image.layers])
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for info in tar:
                self.assertEqual((info.type, info.mtime, info.uid, info.gid, info.mode, info.uname, info.gname),
                                 (tarfile.REGTYPE, 0, 0, 0, 0o644, "", ""))
        self.assertEqual(data[257:265], b"ustar  \0")                        # GNU format
        self.assertEqual((len(data) % 512, data[-1024:]), (0, bytes(1024)))

    def test_layout(self):
        for name, image in [("OCI", IMAGE), ("Docker", make_image(BIG, b"x", style=DOCKER)), ("no layer", make_image()),
                            ("a layer thrice", make_image(BIG, b"x", BIG, BIG))]:
            with self.subTest(name):
                server = self.serve(image)
                data = self.pull(server)
                self.check_archive(data, image, "%s/app:v1" % server.host)
                entry, = json.loads(members(data)["index.json"].decode())["manifests"]
                self.assertEqual(entry["annotations"]["org.opencontainers.image.ref.name"], "v1")
                self.assertEqual(server.sent("layer"), sum(len(image.blobs[layer]) for layer in set(image.layers)))
                self.assertEqual(self.left(), [])

    def test_index(self):
        """Of an index, the manifest of one platform is taken; five requests, no more."""
        for style in (OCI, DOCKER):
            index = make_index((ATTESTATION, "unknown/unknown"), (ARM, "linux/arm64"), (IMAGE, "linux/amd64"),
                               style=style)
            server = self.serve(index)
            self.check_archive(self.pull(server), IMAGE, "%s/app:v1" % server.host)
            self.assertEqual(sorted(server.kinds()), ["config", "layer", "layer", "manifest", "tag"])
            self.assertEqual({request.method for request in server.requests}, {"GET"})
            for request in server.requests:
                self.assertIsNone(request.range)
                self.assertIn(request.headers.get("Accept-Encoding", "identity"), ("identity",))
                self.assertIn("imgpull", request.headers["User-Agent"])
            for style in (OCI, DOCKER):
                self.assertIn(style.index, server.requests[0].headers["Accept"])
                self.assertIn(style.manifest, server.requests[0].headers["Accept"])

    def test_nested_index(self):
        server = self.serve(make_index((make_index((ARM, "linux/arm64"), (IMAGE, "linux/amd64")), None)))
        self.check_archive(self.pull(server), IMAGE, "%s/app:v1" % server.host)

    def test_names(self):
        """What the archive calls the image: the options, the reference, RepoTags."""
        for options, name, named in [((), "app:v1", "{host}/app:v1"),
                                     ((), "app@" + IMAGE.digest, None),
                                     ((), "app:v1@" + IMAGE.digest, "{host}/app:v1"),
                                     (("--name", "mine:2"), "app@" + IMAGE.digest, "docker.io/library/mine:2"),
                                     (("--name", "quay.io/x/y:z"), "app:v1", "quay.io/x/y:z")]:
            with self.subTest(name, options=options):
                server = self.serve()
                data = self.pull(server, *options, name=name)
                self.check_archive(data, IMAGE, named and named.format(host=server.host))
                self.assertIn(IMAGE.digest, self.said.out.decode())

    def test_same_bytes(self):
        """The same manifest gives the same bytes, however it is pulled."""
        server = self.serve(INDEX)
        options = ("--name", "x:1")
        first = self.pull(server, *options)
        for more in [(), ("--jobs", "1"), ("-j9",), ("--quiet",)]:
            self.assertEqual(self.pull(server, *(options + more)), first)
        self.assertEqual(self.pull(server, *options, name="app@" + INDEX.digest), first)
        self.assertEqual(self.pull(server, *options, tar="-").out, first)
        # By the manifest's own digest, nothing is known of the index.
        first, alone = members(first), members(self.pull(server, *options, name="app@" + IMAGE.digest))
        differs = [name for name in first if first[name] != alone[name]]
        self.assertEqual((differs, set(first)), (["index.json"], set(alone)))

    def test_sha512(self):
        """Digests by sha512, of the manifest and of a blob."""
        layer = gzipped(tar_of({"f": b"x"}))
        digest = "sha512:" + hashlib.sha512(layer).hexdigest()
        image = make_image(b"x", change=lambda manifest: manifest["layers"][0].update(digest=digest, size=len(layer)))
        server = self.serve(image)
        server.blobs[digest] = layer
        name = "sha512:" + hashlib.sha512(image.manifest).hexdigest()
        server.manifests["app", name] = image
        held = members(self.pull(server, name="app@" + name))
        self.assertEqual(held[blob_path(digest)], layer)
        self.assertEqual(held[blob_path(name)], image.manifest)

    def test_several(self):
        """Several images in one archive: what they share is fetched and stored once."""
        server = self.serve()
        names = [server.add("app", "v1", IMAGE), server.add("team/other", "v2", ARM), server.add("app", "again", IMAGE)]
        run = self.run_main("--scheme", "http", *(names + [self.tar]))
        self.assertEqual(run.code, 0, run.err)
        held = members(read(self.tar))
        self.assertEqual(sorted(held)[:-3], sorted(blob_path(digest) for digest in
                                                   set(IMAGE.blobs) | set(ARM.blobs) | {IMAGE.digest, ARM.digest}))
        entries = json.loads(held["index.json"].decode())["manifests"]
        self.assertEqual([entry["annotations"]["io.containerd.image.name"] for entry in entries], names)
        docker = json.loads(held["manifest.json"].decode())
        self.assertEqual(sorted(name for entry in docker for name in entry["RepoTags"]), sorted(names))
        self.assertEqual(server.sent("layer"), sum(len(blob) for digest, blob in dict(IMAGE.blobs, **ARM.blobs).items()
                                                   if digest in IMAGE.layers + ARM.layers))
        self.assertEqual(len(run.out.decode().splitlines()), 3)
        self.assertEqual(imgpull.verify_archive(self.tar), [])

    def test_all_platforms(self):
        server = self.serve(INDEX)
        held = members(self.pull(server, "--platform", "all"))
        kept = {INDEX.digest} | {child.digest for child in INDEX.children} | set(INDEX.blobs)
        self.assertEqual(set(held) - {"oci-layout", "index.json", "manifest.json"},
                         {blob_path(digest) for digest in kept})
        entry, = json.loads(held["index.json"].decode())["manifests"]
        self.assertEqual(entry["digest"], INDEX.digest)
        docker, = json.loads(held["manifest.json"].decode())
        here = imgpull.pull("%s/app:v1" % server.host, self.path("one.tar"), scheme="http").images[0]
        default = {child.digest: child for child in INDEX.children}[here.digest]
        self.assertEqual(docker["Config"], blob_path(sha256(default.config)))
        self.assertEqual(imgpull.verify_archive(self.tar), [])

    def test_shared_indexes(self):
        """Indexes that several others share are fetched once, not once for every way to them."""
        def eight(*children):
            return [make_index(*[(child, "linux/amd64") for child in children],
                               change=spoiled("annotations", to={"number": str(number)})) for number in range(8)]
        server = self.serve(make_index(*[(child, "linux/amd64") for child in eight(*eight(IMAGE))]))
        held = members(self.pull(server, "--platform", "all"))
        self.assertEqual(server.kinds().count("manifest"), 8 + 8 + 1)
        self.assertEqual(len(held), 3 + 1 + 8 + 8 + 1 + len(IMAGE.blobs))

    def test_artifact(self):
        """What is no image is kept as an OCI layout, and that is said."""
        chart = make_artifact()
        held = members(self.pull(self.serve(chart)))
        self.assertNotIn("manifest.json", held)
        self.assertEqual({name for name in held if name.startswith("blobs/")},
                         {blob_path(digest) for digest in [chart.digest] + list(chart.blobs)})
        self.assertRegex(self.said.err, "(?i)artifact|not an image")

    def test_ranges(self):
        """Idle workers take parts of a large layer; the bytes are the same, none comes twice."""
        big = make_image(noise("ranges", 2000000))
        first = ("layer", slow(20, 0.01), 1)
        for name, faults in [("as asked", [("layer", slow(20, 0.01), ALWAYS)]),
                             ("no ranges here", [first, ("layer", whole, ALWAYS)]),
                             ("another range", [first, ("layer", other_range, ALWAYS)])]:
            with self.subTest(name), mock.patch.object(imgpull, "MIN_SPLIT", 65536):
                server = self.serve(big, faults=faults)
                self.assertEqual(members(self.pull(server))[blob_path(big.layers[0])], big.blobs[big.layers[0]])
                ranges = [request.range for request in server.requests if request.kind == "layer"]
                self.assertIn(None, ranges)
                self.assertGreater(len(ranges), 1, "nothing was split")
                if name == "as asked":
                    self.assertLess(server.sent("layer"), 1.5 * sizes(big))

    def test_library(self):
        """As the README shows it: pull() with a name or several, and its result."""
        server = self.serve(INDEX)
        name = "%s/app:v1" % server.host
        result = imgpull.pull(name, self.tar, platform="linux/amd64", scheme="http")
        image, = result.images
        self.assertEqual((image.name, image.digest, str(image.platform)), (name, IMAGE.digest, "linux/amd64"))
        self.assertEqual((result.destination, result.size), (self.tar, os.path.getsize(self.tar)))
        self.assertEqual((result.fetched, len(result.omitted)), (sizes(IMAGE), 0))
        result = imgpull.pull([name, server.add("app", "v2", ARM)], self.tar, scheme="http")
        self.assertEqual([image.digest for image in result.images], [IMAGE.digest, ARM.digest])
        with self.assertRaises(imgpull.ImgpullError):
            imgpull.pull(server.host + "/none:v1", self.tar, scheme="http")
        for public in imgpull.__all__:
            self.assertTrue(getattr(imgpull, public).__doc__, public)

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

    def test_blobs(self):
        """The blobs of an image in a directory, and out of an archive."""
        server = self.serve(INDEX)
        os.mkdir(self.path("blobs"))
        paths = imgpull.pull_blobs(server.host + "/app:v1", self.path("blobs"), scheme="http")
        self.assertEqual([read(path) for path in paths], [IMAGE.config] + [IMAGE.blobs[one] for one in IMAGE.layers])
        self.assertEqual(sorted(os.listdir(self.path("blobs"))), sorted(os.path.basename(path) for path in paths))
        self.pull(server)
        for digest, body in dict(IMAGE.blobs, **{IMAGE.digest: IMAGE.manifest}).items():
            self.assertEqual(imgpull.read_blob(self.tar, digest), body)
        with self.assertRaises(imgpull.NotFound):
            imgpull.read_blob(self.tar, "sha256:" + "0" * 64)

    def test_blobs_of_one_platform(self):
        server = self.serve(INDEX)
        with self.assertRaises(imgpull.UsageError):
            imgpull.pull_blobs(server.host + "/app:v1", self.dir, platform="all", scheme="http")
        server.faults = [Fault("layer", changed(body=flipped), ALWAYS)]
        with self.assertRaises(imgpull.Damaged):
            imgpull.pull_blobs(server.host + "/app:v1", self.dir, scheme="http")
        self.assertEqual(os.listdir(self.dir), [sha256(IMAGE.config)[7:]])

    def test_foreign_layer(self):
        """A layer that only its owner may distribute comes from the https address in the manifest."""
        owner = self.serve(tls=self.pems())
        self.hosts["store.test"] = owner
        for scheme in ("https", "http"):
            url = "%s://store.test:%d/store/%s" % (scheme, owner.port, IMAGE.layers[1])
            server = self.serve(make_image(BIG, b"a small layer", change=spoiled("layers", 1, "urls", to=[url])))
            del server.blobs[IMAGE.layers[1]]
            run = self.pull(server, "--cacert", os.path.join(self.pems(), "ca.pem"), expect=int(scheme == "http"))
            self.assertEqual(len(owner.requests), 1)
        self.fails(run, "neither the registry nor")


class TestDestination(Case):
    def test_refused(self):
        """Destinations that cannot be: one line, nothing fetched, nothing left."""
        server = self.serve()
        os.mkdir(self.path("directory"))
        self.write("file", b"old")
        for name, tar, words in [("a directory", "directory", ["director"]),
                                 ("none such", "none/x.tar", ["none", "director"]),
                                 ("below a file", "file/x.tar", ["file"])]:
            with self.subTest(name):
                before = sorted(os.listdir(self.dir))
                self.fails(self.pull(server, tar=self.path(*tar.split("/")), expect=1), *words)
                self.assertEqual((sorted(os.listdir(self.dir)), server.sent("layer")), (before, 0))

    def test_unwritable(self):
        for call in ("os.open", "builtins.open"):
            with mock.patch(call, side_effect=PermissionError(13, "Permission denied", self.tar)):
                run = self.run_main("--scheme", "http", "localhost:1/app", self.tar)
            self.assertEqual((run.code, "Traceback" in run.err), (4, False), run.err)

    def test_replaced_only_at_the_end(self):
        """The old archive stays until the new one is whole."""
        self.write("image.tar", OLD)
        server = self.serve(faults=[("layer", cut(100), ALWAYS)])
        self.fails(self.pull(server, "--retries", "0", expect=1))
        self.assertEqual(read(self.tar), OLD)
        del server.faults[:]
        self.assertNotEqual(self.pull(server), OLD)
        self.assertEqual(self.left(), [])

    @unittest.skipUnless(POSIX, "permission bits are POSIX")
    def test_permissions(self):
        """The archive is readable as any new file is: by umask."""
        before = os.umask(0o022)
        self.addCleanup(os.umask, before)
        self.pull(self.serve())
        self.assertEqual(os.stat(self.tar).st_mode & 0o777, 0o644)


# --- faults that a pull gets through ---------------------------------------------------------------------------------

ALL, SOME = "tag manifest config layer token store", "tag layer token store"


def date_in(seconds):
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


def flipped(body):
    return body[:50] + bytes([body[50] ^ 1]) + body[51:] if len(body) > 50 else body


class TestFaults(Case):
    FAULTS = [  # name, what is hit (each in turn), faults in their order, bytes sent in excess (None: not counted)
        ("cut before a word", ALL, [(cut("nothing"), 2)], 0),
        ("cut in the status line", ALL, [(cut("status"), 2)], 0),
        ("cut in the headers", ALL, [(cut("headers"), 2)], 0),
        ("cut after the headers", ALL, [(cut(0), 2)], 0),
        ("cut in the body", ALL, [(cut(20), 1)], 0),
        ("cut late in the body", "layer store", [(cut(150000), 1)], 0),
        ("cut often, with progress", "layer store", [(cut(20000), 9)], 0),
        ("cut, no length given", "layer store", [(cut(70000, Content_Length=None, Connection="close"), 1)], 0),
        ("reset before a word", SOME, [(reset("nothing"), 2)], None),
        ("reset in the headers", SOME, [(reset("headers"), 2)], None),
        ("reset in the body", ALL, [(reset(20), 1)], None),
        ("reset often, with progress", "layer store", [(reset(60000), 3)], None),
        ("closed without a word when idle", SOME, [(stale, ALWAYS)], 0),
        ("silent from the start", SOME, [(silent(None), 1)], 0),
        ("silent in the body", SOME, [(silent(20), 1)], 20),     # what came with the headers may be lost
        ("silent late in the body", "layer store", [(silent(150000), 1)], 0),
        ("in chunks", SOME, [(chunked(), ALWAYS)], 0),
        ("chunks cut short", "layer store", [(chunked(30000, b""), 2)], 0),
        ("chunks that end early", "layer store", [(chunked(30000), 2)], 0),
        ("chunks that end in rubbish", "layer store", [(chunked(30000, b"zz\r\n"), 2)], 0),
        ("HTTP/1.0", SOME, [(changed("HTTP/1.0"), ALWAYS)], 0),
        ("HTTP/1.0 without length", SOME, [(changed("HTTP/1.0", Content_Length=None), ALWAYS)], 0),
        ("no length", SOME, [(changed(Content_Length=None, Connection="close"), ALWAYS)], 0),
        ("a length that is none", SOME, [(changed(Content_Length="many", Connection="close"), ALWAYS)], 0),
        ("a length below zero", SOME, [(changed(Content_Length="-5", Connection="close"), ALWAYS)], 0),
        ("no content type", SOME, [(changed(Content_Type=None), ALWAYS)], 0),
        ("content type of text", SOME, [(changed(Content_Type="text/plain"), ALWAYS)], 0),
        ("content type of an index", SOME, [(changed(Content_Type=OCI.index), ALWAYS)], 0),
        ("content type with parameters", SOME, [(changed(Content_Type=OCI.manifest + "; charset=utf-8"), ALWAYS)], 0),
        ("no digest header", "tag manifest", [(changed(Docker_Content_Digest=None), ALWAYS)], 0),
        ("wrong digest header", "manifest", [(changed(Docker_Content_Digest="sha256:" + "0" * 64), ALWAYS)], 0),
        ("rubbish digest header", "tag manifest", [(changed(Docker_Content_Digest="../../x"), ALWAYS)], 0),
        ("a bit flipped, once", "manifest config layer store", [(changed(body=flipped), 1)], None),
        ("no ranges", "layer store", [(cut(150000), 1), (whole, ALWAYS)], None),
        ("another range", "layer store", [(cut(150000), 1), (other_range, 1)], None),
        ("a range without its header", "layer store", [(cut(1000), 1), (changed(Content_Range=None), 1)], None),
        ("a range of another whole", "layer store", [(cut(1000), 1),
                                                     (changed(Content_Range="bytes 1000-1999/2000"), 1)], None),
        ("a range in rubbish", "layer store", [(cut(1000), 1), (changed(Content_Range="bytes of some kind"), 1)], None),
        ("a range refused", "layer store", [(cut(1000), 1), (says(416, Content_Range="bytes */0"), 1)], None),
        ("a range with other bytes", "layer store", [(cut(1000), 1), (changed(body=flipped), 1)], None),
        ("a token that ends midway", "manifest config layer", [(expire, 1)], 0),
        ("a token that ends while resuming", "layer", [(cut(50000), 1), (expire, 1)], 0),
        ("wait, in seconds", SOME, [(says(429, b"slow down", Retry_After="0"), 2)], None),
        ("wait, till a date", SOME, [(says(503, Retry_After=date_in(-5)), 2)], None),
        ("wait, till soon", SOME, [(says(503, Retry_After="soon"), 1), (says(503, Retry_After="-7"), 1),
                                  (says(503, Retry_After="1.5e-9"), 1)], None),
        ("an error page without end", SOME, [(endless(b"HTTP/1.1 500 Oh\r\n\r\n", b"<p>" * 5000), 1)], None),
        ("interim answers first", SOME, [(interim, ALWAYS)], 0),
        ("nine redirects", "tag manifest config layer token", [(redirect(307, "{path}?again"), 9)], 0),
    ] + [
        ("status %d" % status, SOME, [(says(status, b"later"), 2)], None)
        for status in (408, 425, 429, 500, 502, 503, 504)
    ] + [
        ("redirect %d to %s" % (status, location), "tag layer token", [(redirect(status, location), 1)], 0)
        for status, location in [(301, "?again"), (302, "{url}{path}"), (303, "//{host}{path}"), (307, "{path}?again"),
                                 (308, "{url}{path}?again")]
    ]

    def scenario(self, kind, faults):
        """A registry, and a store apart where that is to be hit; with no more to ask than it takes to get there."""
        faults = [[kind, fault, times] for fault, times in faults]
        image = INDEX if kind == "manifest" else IMAGE
        tokens = kind == "token" or any(fault is expire for _, fault, _ in faults)
        store = self.serve(image, faults=faults) if kind == "store" else None
        return self.serve(image, faults=faults, challenges=[BEARER] if tokens else [], store=store), store

    def test_faults(self):
        options = ("--name", "x:1", "--retries", "5", "--timeout")
        goods = {image.digest: self.pull(self.serve(image), *options, "9") for image in (INDEX, IMAGE)}
        for name, kinds, faults, excess in self.FAULTS:
            seconds = "0.1" if "silent" in name else "9"
            for kind in kinds.split():
                with self.subTest(name, kind=kind):
                    server, store = self.scenario(kind, faults)
                    good = goods[(INDEX if kind == "manifest" else IMAGE).digest]
                    self.assertEqual(self.pull(server, *options, seconds), good)
                    self.assertEqual(self.left(), [])
                    for (_, times), fault in zip(faults, (store or server).faults):
                        self.assertLess(fault.times, times, "it did not come to that")
                    if excess is not None:
                        sent = (store or server).sent("config", "layer", "store")
                        self.assertLessEqual(sent, sizes(IMAGE) + excess)
                    for one in filter(None, (server, store)):
                        one.close()
                    os.remove(self.tar)

    def test_refused_then_up(self):
        """Nobody listens at first."""
        server = self.serve(start=False)
        timer = threading.Timer(0.15, server.start)
        timer.start()
        with mock.patch.object(imgpull, "BACKOFF", 0.05):
            run = self.run_main("--scheme", "http", "--retries", "9", server.host + "/app:v1", self.tar)
        timer.join()
        self.assertEqual(run.code, 0, run.err)
        self.assertRegex(run.err, "(?i)refused")       # what is waited for is said

    def test_given_up(self):
        """More failures than --retries allows: the last one is the error, and what there is stays for the next pull."""
        for retries, failures, expect in [(0, 1, 1), (1, 1, 0), (2, 3, 1), (2, 2, 0)]:
            for kind, fault in [("tag", says(502)), ("manifest", cut(3)), ("config", says(503)), ("token", says(500))]:
                with self.subTest(retries=retries, failures=failures, kind=kind):
                    server, _ = self.scenario(kind, [(fault, failures)])
                    self.pull(server, "--retries", str(retries), expect=expect)
                    self.assertLessEqual(sum(request.kind == kind for request in server.requests), 2 + retries + 1)

    def test_retry_after(self):
        """The server's wish is kept, and said; one of a day is an error now."""
        for value, seconds in [("7", 7), (" 0 ", 0), (date_in(60), 60), (date_in(-60), 0), ("soon", None), ("-7", None),
                               ("", None),
                               ("1e9", None), ("9" * 50, None), (None, None), ("Thu, 99 Foo 2026 00:00:00 GMT", None)]:
            with self.subTest(value):
                got = imgpull.retry_after(value)
                self.assertEqual(got if got is None or got < 50 else round(got, -1), seconds)
        server = self.serve(faults=[("tag", says(429, Retry_After="1"), 1)])
        started = time.monotonic()
        self.pull(server)
        self.assertTrue(1 <= time.monotonic() - started < 5)
        self.assertRegex(self.said.err, "429.*1.0 s")
        self.fails(self.pull(self.serve(faults=[("tag", says(429, Retry_After="86400"), 9)]), expect=1), "429.*86400")

    def test_not_repeated(self):
        """What will not pass is not tried again."""
        for status in (400, 401, 403, 404, 405, 410, 451):
            for kind in ("tag", "layer", "token"):
                with self.subTest(status, kind=kind):
                    server, _ = self.scenario(kind, [(says(status, b"no"), ALWAYS)])
                    self.fails(self.pull(server, expect=1))
                    self.assertLessEqual(sum(request.kind == kind for request in server.requests), 2)
                    self.assertEqual(self.left(), [])

    def test_damaged_for_good(self):
        """A whole blob with other bytes than its digest says is fetched once more, and once only."""
        server = self.serve(make_image(BIG), faults=[("layer", changed(body=flipped), ALWAYS)])
        self.fails(self.pull(server, expect=1), "digest", "twice")
        self.assertEqual(server.kinds().count("layer"), 2)

    def test_connections_are_kept(self):
        """One connection a worker, not one a request."""
        server = self.serve(make_image(*[b"layer %d" % number for number in range(20)]))
        opened = []
        server.process_request, accept = lambda *pair: (opened.append(1), accept(*pair)), server.process_request
        self.pull(server, "--jobs", "2")
        self.assertLessEqual(len(opened), 3)


# --- what a pull refuses ---------------------------------------------------------------------------------------------

def spoiled(*path, **values):
    """A change to a manifest: value(s) put at a path; `drop` removes."""
    def change(manifest):
        place = manifest
        for step in path[:-1]:
            place = place[step]
        if "drop" in values:
            del place[path[-1]]
        else:
            place[path[-1]] = values["to"]
    return change


def image_with(*path, **values):
    return make_image(b"one", b"two", change=spoiled(*path, **values))


def index_with(*path, **values):
    return make_index((IMAGE, "linux/amd64"), change=spoiled(*path, **values))


def document(data, media_type=OCI.manifest):
    """Served in place of a manifest, under its right digest."""
    return Image(data, media_type, sha256(data), {}, (), (), b"", ())


def deep_index(depth):
    image = make_index((IMAGE, "linux/amd64"))
    for _ in range(depth):
        image = make_index((image, "linux/amd64"))
    return image


ESCAPES = "\x1b[2J\x1b]0;owned\x07\x00\r\x08\u202e\x9b31m"      # clears the screen, sets the title, turns text around


class TestRefusals(Case):
    """A registry that lies gets nothing but an error: one line, the old archive untouched, no working files."""

    DOCUMENTS = [  # name, what the tag holds, words of the error
        ("not JSON", document(b"<html>hello</html>"), "JSON"),
        ("empty", document(b""), "JSON"),
        ("not UTF-8", document(b'{"schemaVersion": 2, "x": "\xff\xfe"}'), "JSON"),
        ("a list", document(b"[1, 2]"), "JSON object"),
        ("a number", document(b"7"), "JSON object"),
        ("null", document(b"null"), "JSON object"),
        ("an empty object", document(b"{}"), "manifest"),
        ("nested ten thousand deep", document(b"[" * 10000 + b"]" * 10000), "JSON"),
        ("objects ten thousand deep", document(b'{"a":' * 10000 + b"1" + b"}" * 10000), "JSON"),
        ("an endless number", document(b'{"layers": ' + b"9" * 100000 + b"}"), "JSON|neither"),
        ("NaN as size", document(make_image(b"x").manifest.replace(b'"size": ', b'"size": NaN, "was": ')), "not JSON"),
        ("huge", document(to_json({"schemaVersion": 2, "x": "y" * (4 << 20)})), "answered with more than"),
        ("schema 1", document(to_json({"schemaVersion": 1, "name": "app", "tag": "v1", "fsLayers": [], "history": []}),
                              "application/vnd.docker.distribution.manifest.v1+prettyjws"), "schema 1"),
        ("config missing", image_with("config", drop=1), "neither"),
        ("config a string", image_with("config", to="sha256:" + "a" * 64), "config"),
        ("config null", image_with("config", to=None), "config"),
        ("layers missing", image_with("layers", drop=1), "layers"),
        ("layers an object", image_with("layers", to={"0": 1}), "layers"),
        ("a layer a string", image_with("layers", 0, to="layer"), "layer"),
        ("a layer null", image_with("layers", 1, to=None), "layer"),
        ("ten thousand layers and one", image_with("layers", to=[descriptor(b"x", OCI.layer)] * 10001),
         "10000 entries"),
        ("manifests an object", index_with("manifests", to={}), "manifests"),
        ("manifests empty", index_with("manifests", to=[]), "no platform at all"),
        ("an entry a number", index_with("manifests", 0, to=3), "entry of manifests"),
        ("platform a list", index_with("manifests", 0, "platform", to=["linux"]), "platform is list"),
        ("os a number", index_with("manifests", 0, "platform", "os", to=3), "os is int"),
        ("an index in an index in an index…", deep_index(20), "indexes within indexes"),
    ] + [("digest of a layer: %s" % name, image_with("layers", 0, "digest", to=digest), "digest") for name, digest in [
        ("path", "sha256:../../../etc/passwd"), ("separator", "sha256:" + "a" * 30 + "/" + "a" * 33),
        ("weak", "md5:" + "a" * 32), ("sha1", "sha1:" + "a" * 40), ("unknown", "blake3:" + "a" * 64),
        ("short", "sha256:abc"), ("long", "sha256:" + "a" * 65), ("upper", "sha256:" + "A" * 64),
        ("newline", "sha256:" + "a" * 64 + "\n"), ("other digits", "sha256:" + "\u0661" * 64), ("nothing", ""),
        ("no algorithm", "a" * 64), ("number", 7), ("null", None), ("list", ["sha256:" + "a" * 64])]
    ] + [("size of a layer: %s" % name, image_with("layers", 0, "size", to=size), words) for name, size, words in [
        ("negative", -1, "size"), ("fraction", 10.5, "size"), ("string", "12", "size"), ("true", True, "size"),
        ("null", None, "size"), ("list", [1], "size"), ("1e3", 1e3, "size"), ("petabytes", 1 << 55, "free"),
        ("exabytes", 1 << 62, "size"), ("beyond 64 bits", 1 << 70, "size")]
    ] + [("%s of %s" % (kind, where), make(*(path + (kind,)), to=value), kind) for where, make, path in [
        ("the config", image_with, ("config",)), ("an entry", index_with, ("manifests", 0))] for kind, value in [
        ("digest", "sha256:../x"), ("digest", 7), ("size", -5), ("size", "5")]
    ]

    FAULTS = [  # name, what is hit, what the server does, always; words of the error
        ("another digest in the header", "tag", changed(Docker_Content_Digest="sha256:" + "0" * 64), "digest mismatch"),
        ("corrupted", "manifest", changed(body=lambda body: body.replace(b"sha256", b"sha512", 1)), "digest"),
        ("corrupted", "config", changed(body=flipped), "digest"),
        ("corrupted", "layer", changed(body=flipped), "digest.*twice"),
        ("short", "manifest", changed(body=lambda body: body[:-1]), "digest mismatch"),
        ("short", "config", changed(body=lambda body: body[:-1]), "announces 298 bytes"),
        ("short", "layer", changed(body=lambda body: body[:-1]), "announces"),
        ("long", "manifest", changed(body=lambda body: body + b" "), "digest mismatch"),
        ("long", "config", changed(body=lambda body: body + b" "), "announces 300 bytes"),
        ("long", "layer", changed(body=lambda body: body + b" "), "announces"),
        ("long, no length", "layer",
         changed(body=lambda body: body + b"x" * 9000000, Content_Length=None, Connection="close"), "more than the"),
        ("endless", "tag", endless(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536), "answered with more than"),
        ("endless", "manifest", endless(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536), "answered with more than"),
        ("endless", "config", endless(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536), "more than the 299 bytes"),
        ("endless", "layer", endless(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536), "more than the"),
        ("endless, in chunks", "layer", endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                                                b"10000\r\n" + b" " * 65536 + b"\r\n"), "more than the"),
        ("endless", "token", endless(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536), "answered with more than"),
        ("endless error", "tag", endless(b"HTTP/1.1 403 No\r\n\r\n", b"no " * 20000), "403"),
        ("megabytes of error", "tag", says(403, b"no way " * 1000000), "403.*no way"),
        ("control characters in an error", "tag", says(403, ESCAPES.encode() + b"forbidden"), "forbidden"),
        ("control characters in a JSON error", "tag",
         says(403, to_json({"errors": [{"code": ESCAPES, "message": ESCAPES + "no"}]})), "403"),
        ("an odd JSON error", "tag", says(403, to_json({"errors": {"message": 3}})), "403"),
        ("another odd JSON error", "tag", says(403, to_json({"errors": [None, [], {"message": ["x"]}]})), "403"),
        ("control characters in the reason", "tag", raw(b"HTTP/1.1 403 N\x1b[2Jo\r\nContent-Length: 0\r\n\r\n"), "403"),
        ("a flood of headers", "tag", endless(b"HTTP/1.1 200 OK\r\n", b"X-Flood: yes\r\n" * 1000), "100 headers"),
        ("an endless header", "tag", endless(b"HTTP/1.1 200 OK\r\nX-Flood: ", b"x" * 65536), "header line"),
        ("an endless status line", "layer", endless(b"HTTP/1.1 200 ", b"x" * 65536), "status line"),
        ("interim answers without end", "layer", endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000),
         "headers without end"),
        ("not HTTP", "tag", raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "not HTTP"),
        ("HTTP/0.9", "tag", raw(b"hello\n"), "not HTTP"),
        ("status 999", "tag", raw(b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n"), "999"),
        ("status 0", "tag", raw(b"HTTP/1.1 0 Odd\r\nContent-Length: 0\r\n\r\n"), "not HTTP"),
        ("no content", "tag", says(204), "204"),
        ("not modified", "layer", says(304), "304"),
        ("a part unasked", "layer", says(206, b"12345", Content_Range="bytes 5-9/100"), "another range"),
        ("two lengths", "tag", changed(Content_Length=["5", "6"]), "digest mismatch"),
        ("compressed in transit", "tag", changed(body=gzipped, Content_Encoding="gzip"), "digest mismatch"),
        ("a loop", "tag", redirect(307, "{path}"), "redirect"),
        ("a loop", "layer", redirect(307, "{path}?again"), "redirect"),
        ("a loop", "token", redirect(307, "{path}?again"), "redirect"),
        ("to a file", "layer", redirect(307, "file:///etc/passwd"), "redirect|file"),
        ("to a file", "tag", redirect(307, "file:///etc/passwd"), "redirect|file"),
        ("to ftp", "layer", redirect(307, "ftp://{host}/x"), "redirect|ftp"),
        ("to gopher", "token", redirect(302, "gopher://{host}/x"), "redirect|gopher"),
        ("to nowhere", "layer", says(307), "307"),
        ("to an empty place", "layer", redirect(307, ""), "307"),
        ("to a rubbish port", "layer", redirect(307, "http://{host}x/"), "not the URL"),
        ("to a rubbish host", "layer", redirect(307, "http://[::1/"), "not the URL"),
        ("to no host", "layer", redirect(307, "http:///x"), "not the URL|404"),
        ("to a line more", "layer", redirect(307, "{url}/x y\x0bz"), "404"),
        ("to a user", "layer", redirect(307, "http://user:pass@nowhere.invalid/"), "nowhere.invalid"),
        ("token not JSON", "token", says(200, b"<html>"), "token"),
        ("token a list", "token", says(200, b"[]"), "token"),
        ("no token", "token", says(200, b"{}"), "token"),
        ("token a number", "token", says(200, b'{"token": 7}'), "token"),
        ("token empty", "token", says(200, b'{"token": ""}'), "token"),
        ("token of two lines", "token", says(200, to_json({"token": "a\r\nX-Injected: b"})), "token"),
        ("token in Chinese", "token", says(200, to_json({"token": "\u4ee4\u724c"})), "token"),
        ("token that is no good", "token", says(200, to_json({"token": "good"})), "answered 401"),
        ("token server says 401", "token", says(401, b"{}"), "token server.*401"),
        ("no challenge", "tag", says(401), "authorization"),
        ("token server is gone", "token", says(404, b"{}"), "404"),
    ]
    CHALLENGES = [  # WWW-Authenticate values, words of the error
        (["Negotiate"], "negotiate|401"), (['Digest realm="x"'], "digest|401"), (["Bearer"], "realm"),
        (['Bearer realm=""'], "realm"), (['Bearer realm="file:///etc/passwd"'], "realm"),
        (['Bearer realm="javascript:x"'], "realm"),
        (['Bearer realm="//[x"'], "realm"), (['Bearer realm="http://[x/"'], "not the URL"),
        (['Bearer realm="http://a:b/"'], "not the URL"),
        (['Bearer realm="http://nowhere.invalid/' + "x" * 60000 + '"'], "nowhere.invalid"),
        (['Bearer realm="{url}/a%s"' % urllib.parse.quote("\r\nX: y")], "token server.*404"),
        (['Bearer realm="http://nowhere.invalid/",scope="%s"' % ("s" * 5000)], "nowhere.invalid"),
        (['Basic realm="x"'], "wants a user and a password"),
        ([", " * 1000 + "Bearer"], "realm"),
    ]

    def refused(self, server, words, name="app:v1", options=()):
        self.write("image.tar", OLD)
        run = self.pull(server, "--retries", "1", "--timeout", "2", *options, name=name, expect=1)
        self.fails(run, words)
        server.close()
        left = self.left()
        self.clean()
        self.assertEqual((read(self.tar), run.out), (OLD, b""))
        # A layer that is right is kept for the next run, and that is said.
        self.assertIn(left, ([], ["image.tar.part", "image.tar.part.state"]))
        self.assertEqual("run the same command again to resume" in run.err, left != [])

    def test_documents(self):
        for name, image, words in self.DOCUMENTS:
            with self.subTest(name):
                self.refused(self.serve(image), words)

    def test_documents_by_digest(self):
        """What a digest asks for is what comes, or nothing."""
        for name, image in [("another image", ARM), ("an index", INDEX),
                            ("a space more", IMAGE._replace(manifest=IMAGE.manifest + b" "))]:
            with self.subTest(name):
                server = self.serve(image)
                server.manifests["app", IMAGE.digest] = image
                self.refused(server, "digest|match", name="app@" + IMAGE.digest)

    def test_sizes_in_manifests(self):
        """A size that is off by one, either way."""
        image = make_image(b"one", b"two")
        for make, where, size in [(image_with, ("config",), len(image.config)),
                                  (index_with, ("manifests", 0), len(IMAGE.manifest)),
                                  (image_with, ("layers", 0), len(image.blobs[image.layers[0]]))]:
            for delta in (-1, 1):
                with self.subTest(where, delta=delta):
                    served = make(*(where + ("size",)), to=size + delta)
                    self.refused(self.serve(served), "bytes")

    def test_faults(self):
        for name, kind, fault, words in self.FAULTS:
            with self.subTest(name, kind=kind):
                server = self.serve(INDEX, faults=[(kind, fault, ALWAYS)],
                                    challenges=[BEARER] if kind == "token" else [])
                self.refused(server, words)

    def test_challenges(self):
        for challenges, words in self.CHALLENGES:
            with self.subTest(str(challenges)[:80]):
                self.refused(self.serve(INDEX, challenges=challenges), words)

    @unittest.skipUnless(CPYTHON_ON_LINUX, "reads /proc; PyPy has a heap of another size")
    def test_memory_stays_flat(self):
        """Much data, wanted or not, takes no memory: a process meets them all, and never has more than 40 MiB."""
        layer, line = noise("huge", 1 << 20) * 32, b"x" * 65536
        huge = make_image(b"", change=spoiled("layers", to=[descriptor(layer, OCI.layer)]))
        huge.blobs[sha256(layer)] = layer
        meets = [[], [("tag", endless(b"HTTP/1.1 200 OK\r\n\r\n", line), 9)],
                 [("layer", endless(b"HTTP/1.1 200 OK\r\n\r\n", line), 9)],
                 [("layer", endless(b"HTTP/1.1 400 No\r\n\r\n", line), 9)],
                 [("tag", endless(b"HTTP/1.1 200 OK\r\nX: ", line), 9)],
                 [("tag", endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 9000), 9)]]
        hosts = [self.serve(huge, faults=faults).host for faults in meets]
        script = ("import imgpull, sys; imgpull.BACKOFF, options = 0.01, ['-q', '--scheme', 'http', '--retries', '2']\n"
                  "print([imgpull.main(options + [host + '/app:v1', sys.argv[1] + host]) for host in sys.argv[2:]],"
                  " end='|')\n"
                  "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])")
        out = subprocess.check_output([sys.executable, "-c", script, self.tar] + hosts, cwd=HERE,
                                      stderr=subprocess.DEVNULL)
        codes, peak = out.decode().splitlines()[-1].split("|")
        self.assertEqual(ast.literal_eval(codes), [0, 5, 5, 1, 5, 5])
        self.assertLess(int(peak), 40 << 10)


# --- front doors: credentials, tokens, proxies, TLS, mirrors ---------------------------------------------------------

def b64(text):
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()


Login = namedtuple("Login", "name files options environment expect stdin warning")


def login(name, *files, options=(), environment=None, expect="user:pass", stdin="", warning=""):
    """How someone is logged in, and as whom ("" for nobody) a request must come; {host} stands for the registry."""
    return Login(name, {path: data for one in files for path, data in one.items()}, options, environment or {},
                 expect, stdin, warning)


DOCKER_CONFIG, PODMAN_CONFIG = ".docker/config.json", ".config/containers/auth.json"
MINE = {"auth": b64("user:pass")}
THEIRS = {"auth": b64("other:other")}


def docker(auths, **more):
    return {DOCKER_CONFIG: dict(more, auths=auths)}


def podman(auths):
    return {PODMAN_CONFIG: {"auths": auths}}


class TestCredentials(Case):
    """Who has logged in with docker or podman needs no options. Rows: files in the home directory, who must come."""
    LOGINS = [
        login("nobody", expect=""),
        login("options", options=("--user", "user", "--password", "pass")),
        login("short options", options=("-u=user", "-ppass")),
        login("user:password", options=("-u", "user:pass")),
        login("password from stdin", options=("-u", "user", "--password-stdin"), stdin="pass\n"),
        login("blanks", options=("-u", "user", "--password-stdin"), stdin=" pa ss \r\n", expect="user: pa ss "),
        login("a colon and an umlaut", options=("-u", "user", "-p", "pä:ss"), expect="user:pä:ss"),
        login("options before files", docker({"{host}": THEIRS}), options=("-u", "user", "-p", "pass")),
        login("docker login", docker({"{host}": MINE, "other.example": THEIRS})),
        login("https:// before", docker({"https://{host}": MINE})),
        login("https:// and a path", docker({"https://{host}/v1/": MINE})),
        login("http:// before", docker({"http://{host}/v2/": MINE})),
        login("exact before others", docker({"{host}": MINE, "https://{host}/v1/": THEIRS})),
        login("another host", docker({"x{host}": MINE, "127.0.0.1": MINE, "{host}0": MINE}), expect=""),
        login("username and password", docker({"{host}": {"username": "user", "password": "pass"}})),
        login("a colon in the password", docker({"{host}": {"auth": b64("user:a:b")}}), expect="user:a:b"),
        login("base64 in lines", docker({"{host}": {"auth": "dXNl\ncjpw\r\nYXNz\n"}})),
        login("a password in Latin-1", docker({"{host}": {"auth": b64("user:p\udce4ss")}}), expect="user:p\udce4ss"),
        login("a NUL at the end", docker({"{host}": {"auth": b64("user:pass\0")}})),
        login("half a character", docker({"{host}": {"username": "\ud800", "password": "pass"}}), expect="",
              warning="config.json"),
        login("an empty entry", docker({"{host}": {}}), expect=""),
        login("an empty spelling", docker({"{host}": {}, "https://{host}/v1/": MINE})),
        login("$DOCKER_CONFIG", docker({"{host}": THEIRS}), {"elsewhere/config.json": {"auths": {"{host}": MINE}}},
              environment={"DOCKER_CONFIG": "{home}/elsewhere"}),
        login("$DOCKER_CONFIG before podman", podman({"{host}": THEIRS}),
              {"elsewhere/config.json": {"auths": {"{host}": MINE}}},
              environment={"DOCKER_CONFIG": "{home}/elsewhere"}),
        login("podman where $DOCKER_CONFIG has none", podman({"{host}": MINE}),
              environment={"DOCKER_CONFIG": "{home}/elsewhere"}),
        login("$DOCKER_AUTH_CONFIG", docker({"{host}": THEIRS}),
              {"elsewhere/config.json": {"auths": {"{host}": THEIRS}}},
              environment={"DOCKER_AUTH_CONFIG": json.dumps({"auths": {"{host}": MINE}}),
                           "DOCKER_CONFIG": "{home}/elsewhere"}),
        login("$DOCKER_AUTH_CONFIG of another host", docker({"{host}": MINE}),
              environment={"DOCKER_AUTH_CONFIG": json.dumps({"auths": {"other.example": THEIRS}})}),
        login("$DOCKER_AUTH_CONFIG is rubbish", docker({"{host}": MINE}),
              environment={"DOCKER_AUTH_CONFIG": "rubbish"}, warning="$DOCKER_AUTH_CONFIG is not JSON"),
        login("podman login", podman({"{host}": MINE})),
        login("podman before docker", podman({"{host}": MINE}), docker({"{host}": THEIRS})),
        login("docker where podman has none", podman({"x": THEIRS}), docker({"{host}": MINE})),
        login("namespaced", podman({"{host}/team/app": MINE, "{host}/team": THEIRS, "{host}": THEIRS})),
        login("namespaced, team", podman({"{host}": THEIRS, "{host}/team": MINE, "{host}/te": THEIRS})),
        login("namespaced, others", podman({"{host}/other": THEIRS, "{host}/team/ap": THEIRS}), expect=""),
        login("$XDG_RUNTIME_DIR", podman({"{host}": THEIRS}), {"run/containers/auth.json": {"auths": {"{host}": MINE}}},
              environment={"XDG_RUNTIME_DIR": "{home}/run"}),
        login("$REGISTRY_AUTH_FILE", podman({"{host}": THEIRS}), {"my.json": {"auths": {"{host}": MINE}}},
              environment={"REGISTRY_AUTH_FILE": "{home}/my.json"}),
        login("$REGISTRY_AUTH_FILE alone", podman({"{host}": THEIRS}), docker({"{host}": THEIRS}),
              {"my.json": {"auths": {"x": THEIRS}}}, expect="",
              environment={"REGISTRY_AUTH_FILE": "{home}/my.json",
                           "DOCKER_AUTH_CONFIG": json.dumps({"auths": {"{host}": THEIRS}})}),
        login("$REGISTRY_AUTH_FILE a device", environment={"REGISTRY_AUTH_FILE": "/dev/zero"}, expect="",
              warning="/dev/zero"),
        login("$XDG_CONFIG_HOME", {"elsewhere/containers/auth.json": {"auths": {"{host}": MINE}}},
              environment={"XDG_CONFIG_HOME": "{home}/elsewhere"}),
        login("not JSON", {DOCKER_CONFIG: b"{auths:"}, expect="", warning="config.json"),
        login("not UTF-8", {DOCKER_CONFIG: b"\xff\xfe"}, expect="", warning="config.json"),
        login("a list", {DOCKER_CONFIG: []}, expect="", warning="config.json"),
        login("auths a list", docker(["{host}"]), expect="", warning="config.json"),
        login("entry a string", docker({"{host}": "x"}), expect=""),
        login("auth a number", docker({"{host}": {"auth": 7}}), expect="", warning="config.json"),
        login("auth not base64", docker({"{host}": {"auth": "?%"}}), expect="", warning="config.json"),
        login("auth without colon", docker({"{host}": {"auth": b64("user")}}), expect="", warning="config.json"),
        login("broken podman, good docker", docker({"{host}": MINE}), {PODMAN_CONFIG: b"?"}, warning="auth.json"),
        login("named file missing", environment={"REGISTRY_AUTH_FILE": "{home}/none.json"}, expect="",
              warning="none.json"),
        login("an empty file", {DOCKER_CONFIG: b"\n"}, expect=""),
        login("too large", {DOCKER_CONFIG: b" " * (5 << 20)}, expect="", warning="larger"),
        login("a directory", {DOCKER_CONFIG + "/x": b""}, expect="", warning="config.json"),
        login("credHelpers", docker({"{host}": THEIRS}, credHelpers={"{host}": "found"})),
        login("credHelpers of another", docker({}, credHelpers={"x": "found"}), expect=""),
        login("credsStore", docker({"{host}": {}}, credsStore="found")),
        login("credHelpers: none for this host", docker({"{host}": MINE}, credsStore="failing",
                                                        credHelpers={"{host}": ""})),
        login("credHelpers: an empty spelling", docker({"{host}": THEIRS}, credHelpers={"{host}": "",
                                                                                       "https://{host}": "found"})),
        login("credHelpers before credsStore", docker({}, credsStore="failing", credHelpers={"{host}": "found"})),
        login("helper: not found", docker({}, credsStore="none"), expect=""),
        login("helper: fails", docker({}, credsStore="failing"), expect="", warning="docker-credential-failing"),
        login("helper: rubbish", docker({}, credsStore="rubbish"), expect="", warning="docker-credential-rubbish"),
        login("helper: hangs", docker({}, credsStore="hanging"), expect="", warning="docker-credential-hanging"),
        login("helper: missing", docker({}, credsStore="missing"), expect="", warning="docker-credential-missing"),
        login("helper: a path", docker({}, credsStore="../../bin/sh"), expect="", warning="config.json"),
    ]
    HELPERS = {"found": """cat > "$HOME/asked"; echo '{"ServerURL": "x", "Username": "user", "Secret": "pass"}'""",
               "none": 'echo "credentials not found in native keychain"; exit 1',
               "failing": 'printf "\\033[31mno key ring\\n" >&2; exit 2', "rubbish": 'echo "<html>"',
               "hanging": "exec sleep 30",
               "token": """echo '{"ServerURL": "x", "Username": "<token>", "Secret": "identity"}'""",
               "podman": """read server; echo "$server" >> "$HOME/asked"; [ "$server" = docker.io ] || exit 1
                            echo '{"Username": "user", "Secret": "pass"}'"""}

    def setUp(self):
        super().setUp()
        for name, script in self.HELPERS.items():
            self.write("bin/docker-credential-" + name, "#!/bin/sh\n%s\n" % script, 0o755)
        os.environ["PATH"] = self.path("bin") + os.pathsep + os.environ["PATH"]

    def put(self, files, host):
        for name, data in files.items():
            self.write(name, data if isinstance(data, bytes) else json.dumps(data).replace("{host}", host))

    def forget(self):
        for name in (".docker", ".config", "elsewhere", "run"):
            shutil.rmtree(self.path(name), ignore_errors=True)

    @unittest.skipUnless(POSIX, "the helpers are shell scripts")
    def test_logins(self):
        for row in self.LOGINS:
            server = self.serve(image=None, challenges=['Basic realm="fake"'])
            server.add("team/app", "v1", IMAGE)
            server.accepted = {"Basic " + b64(row.expect)} if row.expect else set()
            self.put(row.files, server.host)
            environment = {name: value.replace("{home}", self.dir).replace("{host}", server.host)
                           for name, value in row.environment.items()}
            seconds = mock.patch.object(imgpull, "HELPER_SECONDS", 0.2 if "hangs" in row.name else 20)
            with self.subTest(row.name), mock.patch.dict(os.environ, environment), seconds:
                run = self.pull(server, *row.options, name="team/app:v1", stdin=row.stdin,
                                expect=0 if row.expect else 1)
                if not row.expect:
                    self.fails(run)
                if row.expect == "":
                    self.assertEqual({request.authorization for request in server.requests}, {None})
                warnings = [line for line in self.said.err.splitlines() if "warning" in line]
                self.assertEqual(len(warnings), 1 if row.warning else 0, self.said.err)
                self.assertIn(row.warning, "".join(warnings))
                self.assertFalse(re.search(r"[\x00-\x09\x0b-\x1f]", self.said.err))
                if "found" in json.dumps(row.files, default=repr) and row.expect:
                    self.assertEqual(read(self.path("asked")).decode().strip(), server.host)
            self.forget()
            server.close()

    @unittest.skipUnless(POSIX, "the helpers are shell scripts")
    def test_keys_of_docker_hub(self):
        """Who we are to Docker Hub, by the keys that docker and podman give it."""
        url = "https://index.docker.io/v1/"
        for name, config, user in [
                ("docker's key", {"auths": {url: MINE}}, "user"),
                ("podman's key", {"auths": {"docker.io": MINE}}, "user"),
                ("podman's key, a repository", {"auths": {"docker.io": THEIRS, "docker.io/library": MINE}}, "user"),
                ("the host", {"auths": {"registry-1.docker.io": MINE}}, "user"),
                ("docker's web login", {"auths": {url + "access-token": THEIRS, url + "refresh-token": THEIRS,
                                                  url: MINE}}, "user"),
                ("docker's web login, logged out", {"auths": {url + "access-token": THEIRS,
                                                              url + "refresh-token": THEIRS}}, None),
                ("docker's key first", {"auths": {"index.docker.io": THEIRS, "docker.io": THEIRS, url: MINE}}, "user"),
                ("an empty spelling", {"auths": {url: {}, "docker.io": MINE}}, "user"),
                ("a helper that knows docker's key", {"credHelpers": {"docker.io": "found"}}, "user"),
                ("a helper that knows podman's key", {"credHelpers": {"docker.io": "podman"}}, "user"),
                ("a store that knows podman's key", {"credsStore": "podman"}, "user")]:
            with self.subTest(name):
                self.put({DOCKER_CONFIG: config}, "")
                warnings = []
                reference = imgpull.parse_reference("alpine")
                credential = imgpull.stored_credential(reference, os.environ, warnings.append)
                self.assertEqual(credential and credential.user, user)
                self.assertEqual(warnings, [])
        asked = read(self.path("asked")).decode().replace("\n", "")
        self.assertEqual(asked, url + 2 * (url + "docker.io"))

    @unittest.skipUnless(hasattr(os, "mkfifo"), "there are no FIFOs")
    def test_fifo(self):
        """A FIFO that nobody writes to does not make us wait."""
        os.mkdir(self.path(".docker"))
        os.mkfifo(self.path(DOCKER_CONFIG))
        warnings = []
        self.assertIsNone(imgpull.stored_credential(imgpull.parse_reference("alpine"), os.environ, warnings.append))
        self.assertIn("config.json cannot be read (not a regular file)", "".join(warnings))

    def test_broken_config_is_named(self):
        """Whoever is turned away since config.json is broken reads so, with -q as well."""
        self.write(DOCKER_CONFIG, b"{")
        run = self.pull(self.serve(challenges=['Basic realm="fake"'], users={"user": "pass"}), "-q", expect=FAILED)
        self.assertIn("config.json is not JSON", run.err)

    def test_docker_hub(self):
        """Docker Hub's names and its key in config.json, through a token server on another host."""
        tls = self.pems()
        hub = self.serve(image=None, tls=tls,
                         challenges=['Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
                                     'scope="repository:library/alpine:pull"'])
        tokens = self.serve(image=None, tls=tls, challenges=['Bearer realm="{url}/token"'], users={"user": "pass"})
        hub.accepted = tokens.accepted
        self.hosts.update({"registry-1.docker.io": hub, "auth.docker.io": tokens})
        hub.add("library/alpine", "latest", IMAGE)
        self.put(docker({"https://index.docker.io/v1/": MINE}), "")
        for name in ("alpine", "docker.io/library/alpine:latest", "index.docker.io/alpine"):
            with self.subTest(name):
                run = self.run_main("--cacert", os.path.join(tls, "ca.pem"), name, self.tar)
                self.assertEqual(run.code, 0, run.err)
                self.assertIn("docker.io/library/alpine:latest", run.out.decode())
        self.assertEqual({request.authorization for request in tokens.requests}, {basic("user", "pass")})
        self.assertEqual(tokens.requests[0].query, {"account": ["user"], "service": ["registry.docker.io"],
                                                    "scope": ["repository:library/alpine:pull"]})
        self.assertFalse([request for request in hub.requests if (request.authorization or "").startswith("Basic")])

    @unittest.skipUnless(POSIX, "the helpers are shell scripts")
    def test_identity_token(self):
        """An identity token is exchanged by POST, wherever it comes from; it never goes to the registry."""
        for files in (docker({"{host}": {"auth": b64("00000000-0000:"), "identitytoken": "identity"}}),
                      docker({}, credsStore="token")):
            with self.subTest(files):
                server = self.serve(challenges=['Bearer realm="{url}/oauth2/token",service="fake.azurecr.io"'],
                                    token_answer=lambda token: {"access_token": token})
                self.put(files, server.host)
                self.pull(server)
                exchange, = [request for request in server.requests if request.kind == "token"]
                self.assertEqual((exchange.method, exchange.authorization), ("POST", None))
                for name, value in [("grant_type", "refresh_token"), ("refresh_token", "identity"),
                                    ("service", "fake.azurecr.io"), ("scope", "repository:app:pull")]:
                    self.assertEqual(exchange.form[name], [value])
                for request in server.requests:
                    self.assertNotIn("identity", request.target + str(request.authorization))

    def test_token_option(self):
        """--token as it is: Bearer, or Basic where the registry asks for Basic."""
        for challenge, accepted in [(BEARER, "Bearer abc"),
                                    ('Basic realm="x",service="ecr.amazonaws.com"', "Basic abc")]:
            with self.subTest(challenge):
                server = self.serve(challenges=[challenge])
                server.accepted = {accepted}
                self.pull(server, "--token", "abc")
                self.assertNotIn("token", server.kinds())


Product = namedtuple("Product", "name challenge query answer user wrong")


class TestProducts(Case):
    """The token dance of each product, from its public documentation: the challenge, what its token server must be
    asked (None: there is none), its answer, a user as people have there, and what it says of a wrong password."""
    ERRORS = '{"errors": [{"code": "%s", "message": "%s"}]}'
    SCOPE = "repository:app:pull"
    PRODUCTS = [
        Product("Docker Hub", 'Bearer realm="{url}/token",service="registry.docker.io",scope="repository:app:pull"',
                {"service": "registry.docker.io", "scope": SCOPE},
                lambda token: {"token": token, "access_token": token, "expires_in": 300,
                               "issued_at": "2024-12-14T00:00:00Z"},
                ("user", "dckr_pat_1"), (401, '{"details": "incorrect username or password"}')),
        Product("GitHub", 'Bearer realm="{url}/token",service="ghcr.io",scope="repository:app:pull"',
                {"service": "ghcr.io", "scope": SCOPE}, lambda token: {"token": token},
                ("user", "ghp_1"), (403, ERRORS % ("DENIED", "denied"))),
        Product("Amazon ECR Public", 'Bearer realm="{url}/token/",service="public.ecr.aws",scope="aws"',
                {"service": "public.ecr.aws", "scope": "aws"}, lambda token: {"token": token},
                ("AWS", "pass"), (400, '{"message": "Not Authorized"}')),
        Product("Amazon ECR", 'Basic realm="{url}/",service="ecr.amazonaws.com"', None, None, ("AWS", "eyJwYXls"),
                (401, ERRORS % ("UNAUTHORIZED", "Your Authorization Token is invalid."))),
        Product("Azure", 'Bearer realm="{url}/oauth2/token",service="fake.azurecr.io",scope="repository:app:pull"',
                {"service": "fake.azurecr.io", "scope": SCOPE}, lambda token: {"access_token": token},
                ("app-id", "secret"), (401, ERRORS % ("UNAUTHORIZED", "authentication required"))),
        Product("Google", 'Bearer realm="{url}/v2/token",service="gcr.io"', {"service": "gcr.io", "scope": SCOPE},
                lambda token: {"expires_in": 43200, "issued_at": "x", "token": token},
                ("_json_key", '{"type": "service_account"}'),
                (401, ERRORS % ("UNAUTHORIZED", "Not Authorized."))),
        Product("Artifact Registry", 'Bearer realm="{url}/v2/token",service="europe-docker.pkg.dev"',
                {"service": "europe-docker.pkg.dev", "scope": SCOPE}, lambda token: {"token": token},
                ("oauth2accesstoken", "ya29.x"), (403, ERRORS % ("DENIED", "Permission denied"))),
        Product("GitLab",
                'Bearer realm="{url}/jwt/auth",service="container_registry",scope="repository:app:pull",'
                'error="invalid_token"',
                {"service": "container_registry", "scope": SCOPE}, lambda token: {"token": token}, ("user", "glpat-1"),
                (403, ERRORS % ("DENIED", "access forbidden"))),
        Product("Harbor", 'Bearer realm="{url}/service/token",service="harbor-registry",scope="repository:app:pull"',
                {"service": "harbor-registry", "scope": SCOPE},
                lambda token: {"token": token, "access_token": "", "expires_in": 1800},
                ("robot$pull", "secret"), (401, ERRORS % ("UNAUTHORIZED", "unauthorized"))),
        Product("Nexus", 'BASIC realm="Sonatype Nexus Repository Manager"', None, None, ("user", "pass"),
                (401, ERRORS % ("UNAUTHORIZED", "access to the requested resource is not authorized"))),
        Product("Nexus with tokens", 'Bearer realm="{url}/v2/token",service="{url}/v2/token"', {"scope": SCOPE},
                lambda token: {"token": "DockerToken." + token, "expires_in": 0}, ("user", "pass"), (401, "{}")),
        Product("Artifactory",
                'Bearer realm="{url}/artifactory/api/docker/docker/v2/token",service="fake",'
                'scope="repository:app:pull"',
                {"service": "fake", "scope": SCOPE}, lambda token: {"token": token, "expires_in": 3600},
                ("user", "AKCp"),
                (401, '{"errors": [{"status": 401, "message": "Wrong username was used"}]}')),
        Product("Quay", 'Bearer realm="{url}/v2/auth",service="quay.io",scope="repository:app:pull"',
                {"service": "quay.io", "scope": SCOPE}, lambda token: {"token": token}, ("team+robot", "KEY"),
                (401, '{"error": "Could not find robot with specified username"}')),
    ]

    def test_products(self):
        for product in self.PRODUCTS:
            for user in (None, product.user):
                with self.subTest(product.name, user=user):
                    server = self.serve(INDEX, challenges=[product.challenge], users=dict([user]) if user else None,
                                        token_answer=product.answer)
                    options = ("--user", user[0], "--password", user[1]) if user else ()
                    expect = 1 if product.query is None and not user else 0
                    self.pull(server, "--platform", "linux/amd64", *options, expect=expect)
                    asked = [request for request in server.requests if request.kind == "token"]
                    self.assertEqual(len(asked), 0 if product.query is None else 1)
                    for request in asked:
                        self.assertEqual({name: request.query[name][0] for name in product.query}, product.query)
                        self.assertEqual(request.authorization, basic(*user) if user else None)
                    if expect == 0:   # the 401, the token, and then nothing but what a public image takes
                        self.assertEqual(len(server.requests),
                                         5 + (0 if product.query is None else 2) + (product.query is None))

    def test_wrong_password(self):
        for product in self.PRODUCTS:
            with self.subTest(product.name):
                status, body = product.wrong
                kind = "tag" if product.query is None else "token"
                server = self.serve(challenges=[product.challenge],
                                    faults=[(kind, says(status, body.encode()), ALWAYS)])
                if kind == "tag":
                    asks = product.challenge.format(url=server.url)
                    server.faults[0] = Fault(kind, says(status, body.encode(), WWW_Authenticate=asks), ALWAYS)
                message = re.findall(r'"(?:message|details|error)": "([^"]*)"', body) or [str(status)]
                self.fails(self.pull(server, "-u", "user", "-p", "hunter2hunter2", expect=1), re.escape(message[0]))
                self.assertNotIn("hunter2", self.said.err)

    def test_rate_limit(self):
        """Docker Hub's 429 with its message, after the retries."""
        said = "You have reached your pull rate limit. You may increase the limit by authenticating and upgrading"
        server = self.serve(faults=[("tag", says(429, (TestProducts.ERRORS % ("TOOMANYREQUESTS", said)).encode()),
                                     ALWAYS)])
        self.fails(self.pull(server, "--retries", "1", expect=1), "429", "pull rate limit")


class TestSecrets(Case):
    """Passwords, tokens and identity tokens reach the host and scheme they are for, and nobody's eyes."""
    SECRETS = ("hunter2-password", "identity-secret", "bearer-secret", b64("user:hunter2-password"))

    def reached(self, server):
        """The secrets among everything that a server was sent."""
        seen = "".join("%s %s %s" % (request.target, request.headers, request.form) for request in server.requests)
        return {secret for secret in self.SECRETS if secret in seen}

    OPTIONS = [(("-u", "user", "-p", "hunter2-password"), 'Basic realm="x"'), (("-t", "bearer-secret"), BEARER)]
    ACCEPTED = {basic("user", "hunter2-password"), "Bearer bearer-secret"}

    def test_redirects(self):
        """To another port or another name, the secret stays behind; within the same origin it goes along."""
        for options, challenge in self.OPTIONS:
            for kind in ("tag", "manifest", "config", "layer"):
                for place in ("{other}{path}", "http://localhost:{port}{path}", "{path}?again"):
                    with self.subTest(challenge, kind=kind, place=place):
                        other = self.serve(INDEX)
                        server = self.serve(INDEX, challenges=[challenge])
                        server.accepted = set(self.ACCEPTED)
                        location = place.replace("{other}", other.url).replace("{port}", str(server.port))
                        server.faults = [Fault(kind, for_direct(redirect(307, location), server.host), ALWAYS)]
                        self.pull(server, "--retries", "1", *options, expect=1 if "localhost" in place else 0)
                        self.assertEqual(self.reached(other), set())
                        self.assertNotEqual(self.reached(server), set())
                        for request in server.requests:
                            if request.headers["Host"] != server.host:
                                self.assertIsNone(request.authorization)
                        self.clean()

    def test_realms(self):
        """The realm that a registry names gets the password, the registry does not; the blob store gets neither."""
        store, tokens = self.serve(), self.serve(challenges=['Bearer realm="{url}/token"'])
        server = self.serve(challenges=['Bearer realm="%s/token",service="s"' % tokens.url], store=store)
        server.accepted = tokens.accepted
        self.pull(server, "-u", "user", "-p", "hunter2-password")
        self.assertEqual(self.reached(tokens), {self.SECRETS[3]})
        self.assertEqual((self.reached(server), self.reached(store)), (set(), set()))
        self.assertEqual({request.authorization for request in store.requests}, {None})
        self.assertEqual({request.authorization for request in server.requests}, {None, "Bearer token-1"})

    def test_challenged_elsewhere(self):
        """A store on another host that asks for credentials, or names its own token server, gets none."""
        for challenge in ('Basic realm="store"', 'Bearer realm="{other}/token",service="s"'):
            for config in ({"auth": b64("user:hunter2-password")}, {"identitytoken": "identity-secret"}):
                with self.subTest(challenge, config=config):
                    other = self.serve(challenges=['Bearer realm="{url}/token"'])
                    asks = says(401, WWW_Authenticate=challenge.replace("{other}", other.url))
                    store = self.serve(faults=[("store", asks, ALWAYS)])
                    server = self.serve(challenges=[BEARER], store=store)
                    self.write(DOCKER_CONFIG, {"auths": {server.host: config}})
                    self.pull(server, "--retries", "1", expect=1)
                    self.assertNotEqual(self.reached(server), set())
                    self.assertEqual((self.reached(store), self.reached(other)), (set(), set()))
                    self.clean()

    def test_redirected_realm(self):
        """A token server that sends elsewhere: neither the password nor the identity token goes along."""
        for config in ({"auth": b64("user:hunter2-password")}, {"identitytoken": "identity-secret"}):
            for status in (302, 307, 308):
                with self.subTest(config, status=status):
                    other = self.serve(challenges=['Bearer realm="{url}/token"'])
                    server = self.serve(challenges=[BEARER], faults=[("token", redirect(status, other.url + "/token"),
                                                                      ALWAYS)])
                    self.write(DOCKER_CONFIG, {"auths": {server.host: config}})
                    self.run_main("--scheme", "http", "--retries", "0", server.host + "/app:v1", self.tar)
                    self.assertNotEqual(self.reached(server), set())
                    self.assertEqual(self.reached(other), set())

    def test_never_over_plain_http(self):
        """Redirects and realms do not lead from https to plain http, with a secret or without."""
        ca = ("--cacert", os.path.join(self.pems(), "ca.pem"))
        plain = self.serve(INDEX, challenges=['Bearer realm="{url}/token"'])
        for kind in ("tag", "manifest", "layer"):
            with self.subTest(kind):
                server = self.serve(INDEX, tls=self.pems(), faults=[(kind, redirect(307, plain.url + "{path}"),
                                                                     ALWAYS)])
                self.fails(self.pull(server, *ca, expect=1), "http")
        for config in ({"auth": b64("user:hunter2-password")}, {"identitytoken": "identity-secret"}):
            with self.subTest(config):
                server = self.serve(INDEX, tls=self.pems(), challenges=['Bearer realm="%s/token"' % plain.url])
                self.write(DOCKER_CONFIG, {"auths": {server.host: config}})
                self.fails(self.pull(server, *ca, expect=1), "http")
        self.assertEqual(plain.requests, [])

    def test_several_registries(self):
        """Options for one registry with images of several: refused, and nothing is asked."""
        one, two = self.serve(), self.serve()
        for options in selected([("-u", "ann:hunter2-password"), ("-t", "token-secret"), ("-i",), ("-s", "http"),
                             ("--ns", "docker.io"), ("-c", "c.pem", "-k", "k.pem")]):
            with self.subTest(options):
                for name in ("c.pem", "k.pem"):
                    self.write(name, b"x")
                run = self.run_main(*[word.replace("c.pem", self.path("c.pem")).replace("k.pem", self.path("k.pem"))
                                      for word in options], one.host + "/app:v1", two.host + "/app:v1", self.tar)
                self.fails(run, "is for one registry.*%s.*%s" % (one.host, two.host), code=2)
                self.assertEqual(one.requests + two.requests, [])
        run = self.run_main("http://%s/app:v1" % one.host, "http://%s/app:v1" % two.host, self.tar)
        self.assertEqual(run.code, 0, run.err)
        with self.assertRaises(imgpull.UsageError):
            imgpull.pull([one.host + "/app:v1", two.host + "/app:v1"], self.tar, user="ann", password="x")

    def test_usage_errors(self):
        """What is typed wrongly may hold a password."""
        for words in selected(["--pasword=hunter2 app x.tar", "--pass=hunter2 app x.tar",
                               "--key hunter2 -t hunter2 -u hunter2 app x.tar",
                           "https://ann:hunter2@host.example/app x.tar", "ann:hunter2@host.example/app x.tar",
                           "--tokn=hunter2 app x.tar", "--parsed -u ann:hunter2 app x.tar",
                           "--parsed https://ann:hunter2@host.example/app x.tar"]):
            with self.subTest(words):
                run = self.run_main(*words.split())
                self.assertEqual(run.code, 0 if "--parsed" in words else 2, run.err)
                self.assertNotIn("hunter2", run.err + run.out.decode())

    def test_unseen(self):
        """Not in --debug, --parsed, errors or results: secrets given, tokens received, signatures in redirects."""
        for options, challenge in self.OPTIONS + [((), BEARER)]:
            for fault in (None, says(403, b"no"), says(500), cut(0)):
                with self.subTest(challenge, options=options):
                    store = self.serve(faults=[("store", fault, ALWAYS)] if fault else [])
                    server = self.serve(challenges=[challenge], store=store)
                    server.accepted |= self.ACCEPTED
                    self.pull(server, "--debug", "--retries", "1", *options, expect=1 if fault else 0)
                    self.assertEqual("Bearer token-3" in server.accepted, not options)
                    for secret in self.SECRETS + ("token-3", "signature=abc"):
                        self.assertNotIn(secret, self.said.out.decode() + self.said.err)
                    self.clean()
        for options, _ in self.OPTIONS + [(("-u", "user:hunter2-password"), "")]:
            run = self.run_main("--parsed", "--key", "k", "--cert", "c", *options, "app", "x")
            self.assertEqual(run.code, 0, run.err)
            self.assertIn('"cert": "c"', run.out.decode())
            for secret in self.SECRETS:
                self.assertNotIn(secret, run.out.decode() + run.err)

    def test_debug_shows_requests(self):
        """--debug is of use: each request with its status."""
        self.pull(self.serve(challenges=[BEARER]), "--debug")
        for word in ("/v2/app/manifests/v1", "401", "200", "GET"):
            self.assertIn(word, self.said.err)


def for_direct(fault, host):
    """The fault for requests that were let in and came straight to this host; others get the good answer."""
    def only(wire, request, answer):
        if request.headers["Host"] == host and "again" not in request.target and answer.status in (200, 307):
            fault(wire, request, answer)
        else:
            wire.send(answer)
    return only


class ProxyWire(Wire):
    def do_CONNECT(self):
        self.request_now = request = Request(self)
        self.server.requests.append(request)
        answer = self.server.answer(request)
        if answer.status == 200:
            answer.change(Content_Length=None)
            self.send_head(answer)
            self.tunnel(*self.path.rsplit(":", 1))
        else:
            self.send(answer)

    def tunnel(self, host, port):
        with socket.create_connection((host.strip("[]"), int(port))) as far:
            ends = {self.connection: far, far: self.connection}
            while not self.server.closing.is_set():
                for end in select.select(list(ends), [], [], 0.05)[0]:
                    data = end.recv(65536)
                    if not data:
                        self.drop()
                        return
                    ends[end].sendall(data)


class FakeProxy(LoopbackServer):
    """A forward proxy: CONNECT is tunnelled; absolute-form requests are answered by `behind`, a FakeRegistry."""
    handler = ProxyWire

    def __init__(self, behind, user=None, status=200):
        self.behind, self.user, self.status = behind, user, status
        super().__init__()

    def answer(self, request):
        if self.user and request.headers.get("Proxy-Authorization") != self.user:
            return Answer(407, b"who are you?", Proxy_Authenticate='Basic realm="corporate"')
        if request.method == "CONNECT" or self.status != 200:
            return Answer(self.status)
        return self.behind.answer(request)


class TestProxies(Case):
    P = "http://p:3128"
    CHOICES = [  # scheme, host, port, environment, the proxy (None: direct)
        ("https", "reg.example", 443, {}, None),
        ("https", "reg.example", 443, {"https_proxy": P}, P),
        ("https", "reg.example", 443, {"HTTPS_PROXY": P}, P),
        ("https", "reg.example", 443, {"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:1"}, "http://low:1"),
        ("https", "reg.example", 443, {"http_proxy": P}, None),
        ("http", "reg.example", 80, {"http_proxy": P}, P),
        ("http", "reg.example", 80, {"HTTP_PROXY": P}, P),
        ("http", "reg.example", 80, {"https_proxy": P}, None),
        ("https", "reg.example", 443, {"all_proxy": P}, P),
        ("http", "reg.example", 80, {"ALL_PROXY": P}, P),
        ("https", "reg.example", 443, {"all_proxy": "http://all:1", "https_proxy": P}, P),
        ("https", "reg.example", 443, {"https_proxy": "p:3128"}, P),
        ("https", "reg.example", 443, {"https_proxy": ""}, None),
    ]
    NO_PROXY = [  # no_proxy, host, port, whether the host is reached directly
        ("", "reg.example", 443, False), ("*", "reg.example", 443, True), ("reg.example", "reg.example", 443, True),
        ("REG.Example", "reg.example", 443, True), ("reg.example", "REG.Example", 443, True),
        ("reg.example", "a.reg.example", 443, True), (".example", "reg.example", 443, True),
        ("*.example", "reg.example", 443, True), ("example", "regexample", 443, False),
        (".reg.example", "notreg.example", 443, False), ("reg.example:443", "reg.example", 443, True),
        ("reg.example:5000", "reg.example", 443, False), ("reg.example:5000", "reg.example", 5000, True),
        ("a, b ,reg.example ", "reg.example", 443, True), ("a,,b", "reg.example", 443, False),
        ("10.0.0.0/8", "10.1.2.3", 443, True), ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.1.2.3", "10.1.2.3", 5000, True),
        ("192.168.1.0/255.255.255.0", "192.168.1.9", 443, True), ("2001:db8::/32", "2001:db8::1", 443, True),
        ("2001:db8::/32", "2001:db9::1", 443, False), ("[::1]:5000", "::1", 5000, True), ("::1", "::1", 443, True),
        ("10.0.0.0/99", "10.1.2.3", 443, False), ("example/8", "reg.example", 443, False)]

    def test_choices(self):
        rows = self.CHOICES + [("https", host, port, {"https_proxy": self.P, name: value}, None if direct else self.P)
                               for name in ("no_proxy", "NO_PROXY") for value, host, port, direct in self.NO_PROXY]
        for scheme, host, port, environment, proxy in rows:
            with self.subTest(host=host, port=port, **environment):
                self.assertEqual(imgpull.proxy_for(scheme, host, port, environment), proxy)

    def test_origins(self):
        """Whom a URL leads to; what can be none never gets into a request, and its secrets into no message."""
        for url, origin in [("https://reg.example/v2/", "reg.example"), ("HTTP://Reg.Example:80", "reg.example"),
                            ("https://u:p@[::1]:5000/x", "[::1]:5000"), ("http://h:443?q", "h:443")]:
            self.assertEqual(str(imgpull.origin_of(url)), origin)
        for url in ("ftp://h", "https://", "https://h:99999", "https://[::1", "https://a b/", "https://a\x7f/", "//h",
                    "https://a:s3cret@h b/", "ftp://a:b@s3cret@h/?s3cret#s3cret", "https://[?s3cret"):
            with self.subTest(url):
                with self.assertRaises(imgpull.ImgpullError) as caught:
                    imgpull.origin_of(url)
                self.assertNotIn("s3cret", str(caught.exception))

    def test_http(self):
        """Plain http goes through in absolute form, with the proxy's user from its URL."""
        server = self.serve()
        proxy = self.serve(image=None, kind=lambda: FakeProxy(server, user=basic("jo", "p@ss")))
        with mock.patch.dict(os.environ, http_proxy="http://jo:p%40ss@" + proxy.host):
            run = self.run_main("--scheme", "http", "--debug", "reg.example/app:v1", self.tar)
        self.assertEqual(run.code, 0, run.err)
        self.assertEqual(proxy.requests[0].target, "http://reg.example/v2/app/manifests/v1")
        self.assertEqual(proxy.requests[0].headers["Host"], "reg.example")
        self.assertFalse(re.search("p@ss|p%40ss", run.err))

    def test_https(self):
        """https goes through a tunnel: CONNECT carries the proxy's user, what is within carries the registry's."""
        server = self.serve(tls=self.pems(), challenges=['Basic realm="x"'], users={"user": "pass"})
        proxy = self.serve(image=None, kind=lambda: FakeProxy(None, user=basic("jo", "pw")))
        with mock.patch.dict(os.environ, HTTPS_PROXY="http://jo:pw@" + proxy.host):
            self.pull(server, "--cacert", os.path.join(self.pems(), "ca.pem"), "-u", "user", "-p", "pass")
        self.assertEqual({(request.method, request.target, request.authorization) for request in proxy.requests},
                         {("CONNECT", server.host, None)})
        self.assertEqual({request.headers.get("Proxy-Authorization") for request in server.requests}, {None})

    def test_refused(self):
        """What is wrong with a proxy, named; its password is not."""
        server = self.serve()
        closed = self.serve(image=None)
        closed.close()
        for name, proxy, words in [
                ("wants a user", self.serve(image=None, kind=lambda: FakeProxy(server, user="Basic x")),
                 ["proxy", "USER:PASSWORD@"]),
                ("refuses", self.serve(image=None, kind=lambda: FakeProxy(server, status=403)), ["403"]),
                ("is down", closed, ["proxy", "refused"])]:
            for scheme in ("http", "https"):
                with self.subTest(name, scheme=scheme), mock.patch.dict(os.environ,
                                                                        all_proxy="http://jo:hunter2@" + proxy.host):
                    run = self.run_main("--scheme", scheme, "--retries", "1", "reg.test/app:v1", self.tar)
                    self.fails(run, *words)
                    self.assertNotIn("hunter2", run.err)
        for url in ("http://", "socks5://127.0.0.1:1080", "http://[::1", "http://a:b:c", "ftp://x", "http://h:99999",
                    "http://jo:hun/ter2@h:1", "jo:12/ter2@h:1", "http://jo:7?ter2@h", "http://jo:ter2@h#ter2@h:1",
                    "http://jo:ter2://x@h"):
            with self.subTest(url), mock.patch.dict(os.environ, http_proxy=url):
                run = self.run_main("--scheme", "http", "--retries", "0", "reg.test/app:v1", self.tar)
                self.fails(run, "proxy", code=2)
                self.assertNotIn("ter2", run.err)

    def test_unauthorized(self):
        """Some proxies answer 401 where RFC 9110 has 407. Over plain http nobody can tell it from the registry's."""
        proxy = self.serve(image=None, kind=lambda: FakeProxy(None, status=401))
        with mock.patch.dict(os.environ, https_proxy=proxy.host):
            run = self.run_main("--retries", "0", "reg.test/app:v1", self.tar)
        self.fails(run, "proxy", "USER:PASSWORD@", code=3)

    def test_credentials(self):
        """A proxy's user and password, percent-encoded in its URL, byte for byte."""
        for url, user in [("http://h:1", None), ("http://jo@h", "jo:"), ("http://jo:p%40s%2Fs@h", "jo:p@s/s"),
                          ("http://j%C3%B6:p%e4ss@h", "jö:p\udce4ss")]:
            with self.subTest(url):
                headers = {"Proxy-Authorization": "Basic " + b64(user)} if user else {}
                self.assertEqual(imgpull.proxy_authorization(url), headers)


class TestTLS(Case):
    def pem(self, name):
        return os.path.join(self.pems(), name)

    def test_accepted(self):
        """What makes a server with a private CA, or one that wants a certificate, reachable."""
        mtls = {"client_ca": self.pem("ca.pem")}
        pair = ("--cert", self.pem("client.pem"), "--key", self.pem("client.key"))
        ca, client, key = (read(self.pem(name)) for name in ("ca.pem", "client.pem", "client.key"))
        self.write("hashed/406a94b4.0", ca)       # the name that OpenSSL gives to our CA's subject
        for name, server, options, environment, certs in [
                ("--cacert", {}, ("--cacert", self.pem("ca.pem")), {}, {}),
                ("--ca", {}, ("--ca", self.pem("ca.pem")), {}, {}),
                ("-x=", {}, ("-x=" + self.pem("ca.pem"),), {}, {}),
                ("--insecure", {}, ("--insecure",), {}, {}),
                ("SSL_CERT_FILE", {}, (), {"SSL_CERT_FILE": self.pem("ca.pem")}, {}),
                ("SSL_CERT_DIR", {}, (), {"SSL_CERT_DIR": self.path("hashed")}, {}),
                ("certs.d", {}, (), {}, {"ca.crt": ca}),
                ("certs.d, any name", {}, (), {}, {"mine.crt": ca}),
                ("--cert and --key", mtls, ("-x", self.pem("ca.pem")) + pair, {}, {}),
                ("certs.d, all of it", mtls, (), {}, {"ca.crt": ca, "client.cert": client, "client.key": key}),
                ("--insecure, expired", {"certificate": "expired.pem"}, ("-i",), {}, {}),
                ("--insecure, wrong host", {"certificate": "wrong.pem"}, ("-i",), {}, {})]:
            with self.subTest(name):
                server = self.serve(tls=self.pems(), **server)
                for file, data in certs.items():
                    self.write("certs.d/%s/%s" % (server.host, file), data)
                with mock.patch.dict(os.environ, environment):
                    self.pull(server, *options)
                self.assertEqual("not verified" in self.said.err, "insecure" in name, self.said.err)

    def test_refused(self):
        """What is wrong with TLS, in words that name what helps."""
        ca = ("--cacert", self.pem("ca.pem"))
        mtls = {"client_ca": self.pem("ca.pem")}
        for name, server, options, words in [
                ("unknown CA", {}, (), ["certificate", "--cacert"]),
                ("another CA", {}, ("--cacert", self.pem("client.pem")),
                 ["certificate", "--cacert", re.escape(self.pem("client.pem"))]),
                ("expired", {"certificate": "expired.pem"}, ca,
                 ["out of date" if sys.version_info >= (3, 7) else "certificate", "--insecure"]),   # 3.6 cannot tell
                ("wrong host", {"certificate": "wrong.pem"}, ca, ["another name", "--insecure"]),
                ("no certificate of ours", mtls, ca, ["--cert"]),
                ("plain http", {"tls": None}, ca + ("-s", "https"), ["--scheme http"])]:
            with self.subTest(name):
                server = self.serve(**dict({"tls": self.pems()}, **server))
                run = self.run_main("--retries", "0", *(options + (server.host + "/app:v1", self.tar)))
                self.fails(run, *words)
                self.assertEqual(self.left(), [])

    def test_files(self):
        """What is wrong with the files that we are given: wrong usage."""
        ca = ("--cacert", self.pem("ca.pem"))
        rubbish = self.write("rubbish", b"rubbish")
        none = self.path("none")
        client, key = ca + ("--cert", self.pem("client.pem"), "--key"), self.pem("client.key")
        server = self.serve(tls=self.pems())
        for name, options, words in [
                ("CA file missing", ("--cacert", none), [none]),
                ("CA file rubbish", ("--cacert", rubbish), [rubbish]),
                ("CA a directory", ("--cacert", self.dir), ["directory", re.escape(self.dir)]),
                ("certificate missing", ca + ("--cert", none, "--key", key), [none]),
                ("key missing", client + (none,), [none]),
                ("key rubbish", client + (rubbish,), ["client.pem"]),
                ("key of another", client + (self.pem("server.key"),), ["client.pem", "belong together"]),
                ("key locked, no terminal", client + (self.pem("locked.key"),), ["pass phrase"])]:
            with self.subTest(name):
                run = self.run_main("--retries", "0", *(options + (server.host + "/app:v1", self.tar)))
                self.fails(run, *words, code=2)
                self.assertEqual(self.left(), [])

    def test_loopback(self):
        """A loopback registry without TLS is spoken to over http, unless https was asked for; others are not."""
        server = self.serve(INDEX)
        self.hosts["reg.test"] = server
        for host, options, code in selected([
                (server.host, (), 0), ("localhost:%d" % server.port, (), 0), (server.host, ("-s", "https"), 1),
                ("https://" + server.host, (), 1), ("reg.test:%d" % server.port, (), 1)]):
            with self.subTest(host, options=options):
                run = self.run_main("--retries", "0", *(options + (host + "/app:v1", self.path("x.tar"))))
                if code:
                    self.fails(run, "does not speak TLS.*--scheme http", code=code)
                else:
                    self.assertEqual(run.code, 0, run.err)
                    os.remove(self.path("x.tar"))

    def test_loopback_behind_a_proxy(self):
        """Behind a proxy, localhost is not this host: no password goes there over http."""
        server = self.serve(challenges=['Basic realm="x"'], users={"user": "pass"})
        proxy = self.serve(image=None, kind=lambda: FakeProxy(server))
        with mock.patch.dict(os.environ, https_proxy="http://" + proxy.host, http_proxy="http://" + proxy.host):
            run = self.run_main("--retries", "0", "-u", "user", "-p", "pass", server.host + "/app:v1", self.tar)
        self.fails(run, "does not speak TLS")
        self.assertEqual({request.method for request in proxy.requests}, {"CONNECT"})

    def test_without_ipv6(self):
        """A kernel without IPv6, and a name that has such an address first."""
        server, create = self.serve(), socket.socket

        def without(family=-1, *rest, **named):
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            return create(family, *rest, **named)

        def both(host, port, *rest, **named):
            return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
                    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        with mock.patch("socket.getaddrinfo", both), mock.patch("socket.socket", without):
            self.pull(server)

    def test_insecure_registries(self):
        """What docker's daemon.json lists needs no TLS and no verification, and that is told, once; nothing else."""
        for listed, tls, works in selected([
                ([], None, False), (["reg.test:{port}"], None, True), (["REG.test"], None, True),
                (["reg.test:{port}"], self.pems(), True), (["other.test"], self.pems(), False),
                ([], self.pems(), False), (["127.0.0.0/8", "reg.test:1"], None, False)]):
            with self.subTest(str(listed), tls=bool(tls)):
                server = self.serve(INDEX, tls=tls)
                self.hosts["reg.test"] = server
                entries = [entry.format(port=server.port) for entry in listed]
                self.write("daemon.json", {"insecure-registries": entries})
                run = self.run_main("--retries", "0", "reg.test:%d/app:v1" % server.port, self.path("x.tar"))
                self.assertEqual(run.code == 0, works, run.err)
                self.assertEqual(run.err.count("insecure-registries"), int(works))
                with contextlib.suppress(FileNotFoundError):
                    os.remove(self.path("x.tar"))
        for broken in selected([b"{", b"[]", b'{"insecure-registries": "x"}']):
            self.write("daemon.json", broken)
            self.pull(self.serve())

    def test_https_asked_over_http(self):
        """A TLS port asked in plain http: no good, and no traceback."""
        server = self.serve(tls=self.pems())
        self.fails(self.run_main("--scheme", "http", "--retries", "0", server.host + "/app:v1", self.tar))

    def test_certs_d(self):
        """A certificate without its key in certs.d is told; a directory of another host is not looked at."""
        server = self.serve(tls=self.pems())
        self.write("certs.d/127.0.0.1/ca.crt", read(self.pem("ca.pem")))
        self.fails(self.pull(server, expect=1), "certificate")
        self.write("certs.d/%s/ca.crt" % server.host, read(self.pem("ca.pem")))
        self.pull(server)
        self.write("certs.d/%s/client.cert" % server.host, read(self.pem("client.pem")))
        self.fails(self.pull(server, expect=2), "client.key", code=2)

    def test_private_authorities(self):
        """Python 3.13 and later refuse CAs without a key usage; docker, curl and older Pythons take them."""
        context = imgpull.tls_context(imgpull.TLSFiles((), None, None, False))
        self.assertFalse(context.verify_flags & ssl.VERIFY_X509_STRICT)
        self.assertEqual((context.check_hostname, context.verify_mode), (True, ssl.CERT_REQUIRED))

    def test_contexts_are_shared(self):
        """Stores on many hosts, one TLS context: each holds all of the system's CAs."""
        store = self.serve(tls=self.pems())
        faults = []
        for host in ("reg.test", "store.test"):
            self.hosts[host] = store
            faults.append(("layer", redirect(307, "https://%s:%d{path}" % (host, store.port)), 1))
        server = self.serve(tls=self.pems(), faults=faults)
        with mock.patch.object(imgpull, "tls_context", wraps=imgpull.tls_context) as make:
            self.pull(server, "--cacert", self.pem("ca.pem"))
        self.assertEqual((make.call_count, len(store.requests)), (1, 2))

    def test_client_certificate_is_for_the_registry(self):
        """--cert is shown to the registry, not to a store on another host that would take it as well."""
        store = self.serve(tls=self.pems(), client_ca=self.pem("ca.pem"))
        self.hosts["store.test"] = store
        server = self.serve(tls=self.pems(), client_ca=self.pem("ca.pem"),
                            faults=[("layer", redirect(307, "https://store.test:%d{path}" % store.port), ALWAYS)])
        self.fails(self.pull(server, "--cacert", self.pem("ca.pem"), "--cert", self.pem("client.pem"), "--key",
                             self.pem("client.key"),
                             "--retries", "0", expect=1), "store.test")

    def test_hostnames(self):
        """Verified by name, whatever its case; IPv6 in brackets."""
        server = self.serve(tls=self.pems())
        self.hosts.update({"localhost": server, "reg.test": server, "::1": server})
        for host in ("reg.test", "REG.Test", "[::1]", "localhost"):
            with self.subTest(host):
                run = self.run_main("--cacert", self.pem("ca.pem"), "%s:%d/app:v1" % (host, server.port), self.tar)
                self.assertEqual(run.code, 0, run.err)
                self.assertEqual(server.requests[-1].headers["Host"].lower(), "%s:%d" % (host.lower(), server.port))


class TestMirrors(Case):
    def test_namespace(self):
        """--ns, as containerd asks a mirror: options, reference, what is asked for, the name in the archive."""
        for options, name, repository, namespace, named in [
                (("--ns", "quay.io"), "curl/curl:8", "curl/curl", "quay.io", "quay.io/curl/curl:8"),
                (("-n=docker.io",), "alpine:3", "library/alpine", "docker.io", "docker.io/library/alpine:3"),
                (("-n", "docker.io"), "user/app:3", "user/app", "docker.io", "docker.io/user/app:3"),
                (("--ns=docker.io", "--name", "x:y"), "alpine:3", "library/alpine", "docker.io",
                 "docker.io/library/x:y"),
                (("--ns", "quay.io"), "quay.io/curl/curl:8", "quay.io/curl/curl", None, "quay.io/curl/curl:8"),
                (("--ns", "Quay.IO/"), "curl/curl:8", "curl/curl", "quay.io", "quay.io/curl/curl:8"),
                (("--ns", "index.docker.io"), "alpine:3", "library/alpine", "docker.io", "docker.io/library/alpine:3"),
                (("--ns", "docker.io"), "docker.io/library/alpine:3", "docker.io/library/alpine", None,
                 "docker.io/library/alpine:3"),
                (("--name", "alpine:3"), "proxy/library/alpine:3", "proxy/library/alpine", None,
                 "docker.io/library/alpine:3"),
                ((), "quay.io/curl/curl:8", "quay.io/curl/curl", None, "{host}/quay.io/curl/curl:8")]:
            with self.subTest(name, options=options):
                server = self.serve(image=None, namespace=namespace, challenges=[BEARER.replace("app", repository)])
                server.add(repository, name.rpartition(":")[2], INDEX)
                docker, = json.loads(members(self.pull(server, *options, name=name))["manifest.json"].decode())
                self.assertEqual(docker["RepoTags"], [named.format(host=server.host)])
                asked = {tuple(request.query.get("ns", [])) for request in server.requests if request.kind != "token"}
                self.assertEqual(asked, {(namespace,) if namespace else ()})

    def test_redirected(self):
        """?ns= is for the mirror, not for the store that it sends to."""
        store = self.serve()
        self.pull(self.serve(namespace="quay.io", store=store), "--ns", "quay.io")
        self.assertEqual({tuple(request.query) for request in store.requests}, {("signature",)})


# --- resuming, interruptions, full disks -----------------------------------------------------------------------------

MIXED = make_image(noise("first", 3000000), noise("second", 500000), b"third")
START = "import sys, imgpull; imgpull.BACKOFF, imgpull.RECORD_SECONDS = 0.01, 0; sys.exit(imgpull.main(sys.argv[1:]))"


def until(condition, *args):
    """Wait for something that happens in another thread or process."""
    deadline = time.monotonic() + 20
    while not condition(*args):
        if time.monotonic() > deadline:
            raise AssertionError("waited in vain")
        time.sleep(0.003)


def hold(at, gate):
    """Send so much of the body, then wait for an event before sending the rest."""
    def fault(wire, request, answer):
        wire.send_head(answer)
        wire.send_body(answer.body[:at])
        until(lambda: gate.is_set() or wire.server.closing.is_set())
        wire.send_body(answer.body[at:])
    return fault


class TestResume(Case):
    def start(self, server, *options, tar=None):
        """imgpull in a process of its own."""
        process = subprocess.Popen([sys.executable, "-c", START, "--scheme", "http"] + list(options) +
                                   [server.host + "/app:v1", tar or self.tar], cwd=HERE, universal_newlines=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
        process.stderr.close()

    def good(self, image=MIXED):
        """What an undisturbed pull gives."""
        return self.pull(self.serve(image), "--name", "x:1", tar=self.path("good"))

    def written(self, server, data, part):
        """Whether a server has sent these bytes, and that part of them has reached the part file."""
        try:
            return server.sent("layer") >= len(data) and data[:part] in read(self.tar + ".part")
        except FileNotFoundError:
            return False

    def interrupt(self, image=MIXED):
        """A pull that broke off in the middle of its first layer; what it has left."""
        server = self.serve(image, faults=[("layer", cut(1000000), 1), ("layer", says(503), ALWAYS)])
        self.fails(self.pull(server, "--name", "x:1", "--retries", "0", "--jobs", "1", expect=1), "same command")
        self.assertEqual(self.left(), ["image.tar.part", "image.tar.part.state"])
        self.assertGreater(server.sent("layer"), 900000)
        return server.sent("layer")

    @unittest.skipUnless(POSIX, "signals are POSIX")
    def test_signals(self):
        """Killed at once, or told to stop: the same command goes on, and only what was missing is fetched."""
        good = self.good()
        first = MIXED.blobs[MIXED.layers[0]]
        for number, code in [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130), (signal.SIGTERM, 130)]:
            with self.subTest(number):
                server = self.serve(MIXED, faults=[("layer", silent(2000000), 1)])
                process = self.start(server, "--name", "x:1", "--jobs", "1")
                until(self.written, server, first[:2000000], 1200000)
                sent, started = server.sent("layer", "config"), time.monotonic()
                process.send_signal(number)
                _, err = process.communicate()
                self.assertLess(time.monotonic() - started, 1.5)
                self.assertEqual(process.returncode, code, err)
                if code == 130:
                    self.assertEqual(len(re.findall("imgpull: interrupted.*same command", err)), 1, err)
                    self.assertNotIn("Traceback", err)
                self.assertEqual(self.left(), ["image.tar.part", "image.tar.part.state"])
                self.assertEqual(self.pull(server, "--name", "x:1"), good)
                self.assertIn("resuming: ", self.said.err)
                missing = sizes(MIXED) - 1200000 + imgpull.BUFFER       # what was written, but not yet recorded
                self.assertLessEqual(server.sent("layer", "config") - sent, missing)
                self.assertEqual(self.left(), [])
                os.remove(self.tar)
                server.close()

    def test_interrupted_while_starting(self):
        """Ctrl-C when some of the workers run already, and some do not yet."""
        begin, begun = threading.Thread.start, []

        def start(thread):
            if threading.current_thread() is threading.main_thread():
                begun.append(thread)
                if len(begun) == 3:             # the one that flushes, a worker, and another
                    raise KeyboardInterrupt
            begin(thread)
        server = self.serve(MIXED, faults=[("layer", silent(2000000), 1)])
        with mock.patch.object(threading.Thread, "start", start):
            self.assertIn("interrupted", self.pull(server, expect=130).err)
        self.assertIn(self.left(), ([], ["image.tar.part", "image.tar.part.state"]))

    INTERRUPTS = int(os.environ.get("IMGPULL_INTERRUPTS") or 40)

    def test_interrupted_at_any_instant(self):
        """Ctrl-C at any call or return in the main thread: done or interrupted; what is done is right."""
        good, server = self.good(), self.serve(MIXED)
        calls = strike = 0

        def profile(frame, event, _what):
            nonlocal calls
            if event == "c_call":               # no signal is handled here: no __exit__ of a lock is missed
                return
            while frame and frame.f_code is not imgpull.run.__code__:
                frame = frame.f_back
            calls += bool(frame)                # not while the test itself is at work
            if calls == strike and frame:
                raise KeyboardInterrupt         # this takes the profile away, too

        def run():
            nonlocal calls
            calls = 0
            sys.setprofile(profile)
            try:
                return self.run_main("--scheme", "http", "--name", "x:1", server.host + "/app:v1", self.tar)
            finally:
                sys.setprofile(None)

        self.assertEqual(run().code, 0)
        everything = range(1, calls)
        for strike in random.Random(1).sample(everything, min(self.INTERRUPTS, len(everything))):
            if os.path.exists(self.tar):
                os.remove(self.tar)
            with self.subTest(strike):
                answer = run()
                self.assertIn(answer.code, (0, 130), answer.err)
                self.assertNotIn("Traceback", answer.err.split("Exception ignored")[0])
                if answer.code == 0:
                    self.assertEqual((read(self.tar), self.left()), (good, []))

    def test_only_what_is_missing(self):
        sent = self.interrupt()
        server = self.serve(MIXED)
        self.assertEqual(self.pull(server, "--name", "x:1"), self.good())
        self.assertEqual(sent + server.sent("layer"), sum(len(MIXED.blobs[layer]) for layer in MIXED.layers))

    def test_what_is_left_is_not_trusted(self):
        """State and part file in every state of disrepair: what was done to them; the archive is always right."""
        good, half = self.good(), 1500000

        def claims_everything(data):
            header = data.partition(b"\n")[0]
            spans = [size for _, _, size in json.loads(header.decode())["blobs"]]
            return header + b"\n" + b"".join(struct.pack("<IQQ", number, 0, size) for number, size in enumerate(spans))

        for name, ending, change in [
                ("state of random bytes", ".state", lambda data: noise("state", len(data))),
                ("random records", ".state", lambda data: data.partition(b"\n")[0] + b"\n" + noise("records", 2000)),
                ("state cut in half", ".state", lambda data: data[:len(data) // 2]),
                ("state a record short", ".state", lambda data: data[:-7]),
                ("state empty", ".state", lambda data: b""),
                ("state of deep JSON", ".state", lambda data: b"[" * 100000 + b"\n"),
                ("state of odd JSON", ".state", lambda data: b'{"blobs": [[1, "x", null]], "size": 7}\n' + bytes(40)),
                ("state claims everything", ".state", claims_everything),
                ("state gone", ".state", None),
                ("part gone", "", None),
                ("part shorter", "", lambda data: data[:half]),
                ("part empty", "", lambda data: b""),
                ("part longer", "", lambda data: data + bytes(5000)),
                ("part tampered with", "", lambda data: data[:half // 3] + b"x" + data[half // 3 + 1:]),
                ("part of zeros", "", lambda data: bytes(len(data)))]:
            with self.subTest(name):
                self.interrupt()
                path = self.tar + ".part" + ending
                data = change and change(read(path))
                os.remove(path)
                if change:
                    self.write(os.path.basename(path), data)
                server = self.serve(MIXED)
                self.assertEqual(self.pull(server, "--name", "x:1"), good)
                self.assertEqual(self.left(), [])
                server.close()

    def test_tag_moved(self):
        """Another image by now: what both have in common stays, the rest goes."""
        moved = make_image(noise("first", 3000000), b"new", noise("also new", 100000))
        sent = self.interrupt()
        server = self.serve(moved)
        self.assertEqual(self.pull(server, "--name", "x:1"), self.good(moved))
        self.assertLessEqual(server.sent("layer", "config"), sizes(moved) - (sent - 1000))
        self.assertEqual(self.left(), [])

    def test_two_at_once(self):
        """The second pull to a destination says so and stops; the first goes on."""
        gate = threading.Event()
        server = self.serve(MIXED, faults=[("layer", hold(100000, gate), 1)])
        result = []
        name = server.host + "/app:v1"
        thread = threading.Thread(target=lambda: result.append(imgpull.pull(name, self.tar, scheme="http", jobs=1)))
        thread.start()
        until(lambda: server.sent("layer") >= 100000)
        self.fails(self.pull(self.serve(), expect=1), "another imgpull", re.escape(self.tar))
        gate.set()
        thread.join()
        self.assertEqual(imgpull.verify_archive(self.tar), [])
        self.assertEqual((len(result), self.left()), (1, []))

    def test_disk_full(self):
        """No space at the start, or none midway: a clear error; with room, the same command goes on."""
        usage = shutil.disk_usage(self.dir)
        with mock.patch("shutil.disk_usage", return_value=usage._replace(free=1000)):
            self.fails(self.pull(self.serve(MIXED), expect=1), "needs 3.5 MB", "1.0 kB free")
        server = self.serve(MIXED)
        write, count = imgpull.write_at, [0]

        def full(file, data, offset):
            count[0] += len(data)
            if count[0] > 1000000:
                raise OSError(28, "No space left on device")
            write(file, data, offset)
        with mock.patch.object(imgpull, "write_at", full):
            self.fails(self.pull(server, "--name", "x:1", expect=1), "disk", "full", "again to resume", code=6)
        self.assertEqual(self.left(), ["image.tar.part", "image.tar.part.state"])
        self.assertEqual(self.pull(server, "--name", "x:1"), self.good())


MODES = [  # what somebody else may have put at .part or .part.state: name, how
    ("a symlink", lambda path, victim: os.symlink(victim, path)),
    ("a link to nothing", lambda path, victim: os.symlink(path + ".none", path)),
    ("a hard link", lambda path, victim: os.link(victim, path)),
    ("a FIFO", lambda path, victim: os.mkfifo(path)),
    ("a file that others may write", lambda path, victim: (open(path, "w").close(), os.chmod(path, 0o666)))]


@unittest.skipUnless(POSIX, "links, owners and modes are POSIX")
class TestSharedDirectory(Case):
    """What others do to the files beside the destination: never their bytes, never their file, never a hang."""

    def test_planted(self):
        """Not our own regular file: removed, and a new one made; the victim's file stays as it was."""
        for name, plant in selected(MODES):
            for ending in (".part", ".part.state", ".part.old"):
                with self.subTest(name, ending=ending):
                    victim = self.write("victim", b"precious")
                    plant(self.tar + ending, victim)
                    server = self.serve()
                    self.pull(server)
                    self.assertEqual((read(victim), imgpull.verify_archive(self.tar)), (b"precious", []))
                    self.assertEqual((os.stat(self.tar).st_nlink, os.stat(self.tar).st_mode & 0o022), (1, 0))
                    self.assertEqual(self.left(), [])
                    server.close()
                    os.remove(self.tar)

    def test_of_another_user(self):
        """A part file of another user is not gone on with."""
        self.write("image.tar.part", b"planted")
        self.write("image.tar.part.state", b"planted")
        with mock.patch("os.geteuid", return_value=os.geteuid() + 1):
            self.assertFalse(imgpull.is_own(os.stat(self.tar + ".part")))
        self.assertTrue(imgpull.is_own(os.stat(self.tar + ".part")))

    def test_private_while_it_grows(self):
        """Nobody else reads or writes the part file; the archive has the usual permissions."""
        modes = []
        server = self.serve(faults=[("layer", lambda wire, request, answer: (
            modes.extend(os.stat(self.tar + ending).st_mode & 0o777 for ending in (".part", ".part.state")),
            wire.send(answer)), 1)])
        self.pull(server)
        self.assertEqual(set(modes), {0o600})

    def test_meddled_with(self):
        """The part file removed, replaced or cut while it is written: an error, never another file's bytes."""
        part = self.tar + ".part"
        for name, meddle in selected([
                ("removed", lambda: os.remove(part)),
                ("replaced", lambda: (os.remove(part), self.write("image.tar.part", b"x" * 300000))),
                ("replaced by a link", lambda: (os.remove(part), os.symlink(self.write("evil", b"x"), part))),
                ("cut", lambda: os.truncate(part, 0))]):
            with self.subTest(name):
                self.clean()
                self.write("image.tar", OLD)
                server = self.serve(make_image(BIG, b"second"), faults=[
                    ("layer", lambda wire, request, answer, meddle=meddle: (meddle(), wire.send(answer)), 1)])
                self.fails(self.pull(server, "--jobs", "1", expect=FAILED), "by another program", code=6)
                self.assertEqual(read(self.tar), OLD)
                server.close()

    def test_without_locks(self):
        """Where flock does not work, two pulls do not share a file, and that is said."""
        import fcntl
        with mock.patch("fcntl.flock", side_effect=OSError(errno.ENOLCK, "No locks available")):
            server = self.serve(faults=[("layer", says(404), 1)])
            run = self.pull(server, expect=FAILED)
            self.fails(run, "404")
            self.assertRegex(run.err, "warning: locks do not work")
            self.assertEqual(self.left(), [])
            self.pull(server)
        self.assertEqual((imgpull.verify_archive(self.tar), self.left()), ([], []))
        self.assertTrue(fcntl.LOCK_EX)

    def test_enormous_state(self):
        """Megabytes of state, thousands of spans, a number of a million digits: bounded work, few requests."""
        server = self.serve(MIXED, faults=[("layer", cut(1000000), 1), ("layer", says(503), ALWAYS)])
        self.pull(server, "--retries", "0", "--jobs", "1", expect=FAILED)
        header = read(self.tar + ".part.state").partition(b"\n")[0] + b"\n"
        crumbs = b"".join(struct.pack("<IQQ", 0, start, start + 1) for start in range(0, 2000000, 500))
        for name, state in selected([("spans", header + crumbs), ("megabytes", header + crumbs * 700),
                                 ("digits", b'{"imgpull": 2, "size": ' + b"9" * 1000000 + b"}\n")]):
            with self.subTest(name):
                fresh = self.serve(MIXED)
                self.write("image.tar.part.state", state, 0o600)
                started = time.monotonic()
                self.pull(fresh)
                self.assertLess(time.monotonic() - started, 10)
                self.assertLessEqual(len(fresh.requests), imgpull.SPANS_LIMIT + 10)
                self.assertEqual(imgpull.verify_archive(self.tar), [])
                os.remove(self.tar)


class TestKept(Case):
    """Whatever ends a pull: what is right stays for the next run, which fetches only the rest; and that is said."""

    FAILURES = [  # name, what the second layer's requests get, always
        ("401", says(401)), ("403", says(403)), ("404", says(404)), ("410", says(410)), ("418", says(418)),
        ("a login page", says(200, b"<html>log in", Content_Type="text/html")),
        ("wrong bytes", changed(body=flipped)), ("a redirect to nowhere", redirect(307, "http://nowhere.invalid/x")),
        ("a redirect loop", redirect(307, "{path}")), ("not HTTP", raw(b"SSH-2.0\r\n")), ("502", says(502))]

    def second_layer(self, fault):
        """A fault for all but the first layer of MIXED."""
        def act(wire, request, answer):
            first = MIXED.layers[0] in request.path
            (lambda wire, request, answer: wire.send(answer) if first else fault(wire, request, answer))(
                wire, request, answer)
        return act

    def test_failures(self):
        for name, fault in selected(self.FAILURES):
            with self.subTest(name):
                server = self.serve(MIXED, faults=[("layer", self.second_layer(fault), ALWAYS)])
                self.fails(self.pull(server, "--retries", "0", "--jobs", "1", expect=FAILED), "again to resume")
                self.assertEqual(self.left(), ["image.tar.part", "image.tar.part.state"])
                fresh = self.serve(MIXED)
                self.pull(fresh, "--name", "x:1")
                self.assertNotIn(MIXED.layers[0], " ".join(request.path for request in fresh.requests))
                self.assertEqual((self.left(), imgpull.verify_archive(self.tar)), ([], []))
                os.remove(self.tar)
                server.close()
                fresh.close()

    def test_became_a_directory(self):
        """The destination has become a directory meanwhile."""
        server = self.serve(MIXED, faults=[("layer", lambda wire, request, answer: (
            os.mkdir(self.tar), wire.send(answer)), 1)])
        self.fails(self.pull(server, expect=FAILED), "directory", "again to resume", code=6)
        os.rmdir(self.tar)
        fresh = self.serve(MIXED)
        self.pull(fresh)
        self.assertEqual(fresh.sent("layer"), 0)

    def test_failing_disk(self):
        """Any flush that fails fails the pull: Linux reports a lost write once."""
        for name, call in selected([("the flush meanwhile", "os.fdatasync"), ("the flush at the end", "os.fsync")]):
            calls = []

            def fail_once(*_, calls=calls):
                calls.append(1)
                if len(calls) == 1:
                    raise OSError(errno.EIO, "Input/output error")
            with self.subTest(name), mock.patch(call, side_effect=fail_once), \
                    mock.patch.object(imgpull, "FLUSH_SECONDS", 0.01):
                self.write("image.tar", OLD)
                server = self.serve(make_image(BIG), faults=[("layer", slow(5, 0.05), 1)])
                self.fails(self.pull(server, expect=FAILED), "cannot be written: Input/output error", code=6)
                self.assertEqual(read(self.tar), OLD)

    def test_disk_that_fails_late(self):
        """A flush that is still under way when all layers are there, and then fails: no archive."""
        def late(*_):
            time.sleep(1)
            raise OSError(errno.EIO, "Input/output error")
        with mock.patch("os.fdatasync", late, create=True), mock.patch.object(imgpull, "FLUSH_SECONDS", 0.01):
            server = self.serve(make_image(BIG), faults=[("layer", slow(3, 0.05), 1)])
            self.fails(self.pull(server, expect=FAILED), "cannot be written: Input/output error", code=6)
        self.assertFalse(os.path.exists(self.tar))

    def test_left_behind(self):
        """A thread that waits for a name while its pull has failed harms neither the next try nor its archive."""
        slow_host = self.serve(MIXED)
        self.hosts["slow.test"] = slow_host
        resolve = self.resolve

        def linger(host, *rest, **named):
            if host == "slow.test":
                time.sleep(1.2)
            return resolve(host, *rest, **named)
        server = self.serve(MIXED, faults=[("layer", lambda wire, request, answer: wire.send(
            Answer(404) if ARMV6.layers[0] in request.path else
            Answer(307, Location="http://slow.test:%d/store/%s" % (slow_host.port, MIXED.layers[1]))
            if MIXED.layers[1] in request.path else answer), ALWAYS)])
        other = server.add("b", "v1", ARMV6)
        with mock.patch("socket.getaddrinfo", linger):
            run = self.run_main("-s", "http", "--keep-going", "--retries", "0", server.host + "/app:v1", other,
                                self.tar)
        self.assertEqual((run.code, imgpull.verify_archive(self.tar)), (1, []), run.err)
        self.assertEqual([image.name for image in imgpull.list_archive(self.tar)], [server.host + "/app:v1"])

    @unittest.skipUnless(POSIX, "signals are POSIX")
    def test_signals_in_a_row(self):
        """Three signals at once: one line, no traceback."""
        for signals in selected([[signal.SIGINT] * 3, [signal.SIGTERM] * 3, [signal.SIGINT, signal.SIGTERM]]):
            with self.subTest(str(signals)):
                server = self.serve(MIXED, faults=[("layer", silent(100000), 1)])
                process = subprocess.Popen([sys.executable, imgpull.__file__, "-s", "http", "-j", "1",
                                            server.host + "/app:v1", self.tar], stderr=subprocess.PIPE,
                                           stdout=subprocess.DEVNULL)
                until(lambda: server.sent("layer") >= 100000)
                for number in signals:
                    process.send_signal(number)
                err = process.communicate()[1].decode()
                self.assertIn(process.returncode, [130] + [-number for number in signals], err)
                self.assertNotIn("Traceback", err)
                self.clean()
                server.close()

    def test_signal_after_the_commit(self):
        """What is done is done: a signal that comes after the rename leaves no state behind, and success."""
        replace = os.replace

        def replace_and_strike(source, target):
            replace(source, target)
            raise KeyboardInterrupt
        with mock.patch("os.replace", replace_and_strike):
            self.pull(self.serve())
        self.assertEqual((imgpull.verify_archive(self.tar), self.left()), ([], []))


class TestTime(Case):
    """What a server can cost in time and connections."""

    def test_silence_counts(self):
        """Silence on a kept-alive connection is a failure like any other, not one that costs no try."""
        server = self.serve(make_image(*[b"layer %d" % number for number in range(6)]),
                            faults=[("layer", silent(None), ALWAYS)])
        started = time.monotonic()
        self.fails(self.pull(server, "--timeout", "0.3", "--retries", "0", "--jobs", "1", expect=FAILED),
                   "timed out: no data from .* for 0.3 s", code=4)
        self.assertLess(time.monotonic() - started, 3)
        self.assertEqual(server.kinds().count("layer"), 1)

    def test_a_post_is_sent_once(self):
        """A refresh token that may have been used is not sent again without its try being counted."""
        server = self.serve(challenges=[BEARER], faults=[("token", cut("nothing"), ALWAYS)])
        self.write(DOCKER_CONFIG, {"auths": {server.host: {"identitytoken": "identity"}}})
        self.fails(self.pull(server, "--retries", "0", expect=FAILED), code=4)
        self.assertEqual(server.kinds().count("token"), 1)

    def test_a_byte_now_and_then(self):
        """A peer that drips for ever is given up: headers, manifests, tokens, layers."""
        def drip(head):
            def fault(wire, request, answer):
                for byte in (answer.head() if head else b"") + answer.body:
                    wire.wfile.write(bytes([byte]) if not head else bytes([byte]))
                    wire.server.closing.wait(0.02)
            return fault

        def drip_body(wire, request, answer):
            wire.send_head(answer)
            drip(False)(wire, request, answer)
        for kind, act in selected([(kind, act) for kind in ("tag", "token", "config", "layer")
                               for act in (drip(True), drip_body)]):
            with self.subTest(kind), mock.patch.object(imgpull, "SLOW_SECONDS", 0.2):
                server = self.serve(challenges=[BEARER], faults=[(kind, act, ALWAYS)])
                started = time.monotonic()
                self.fails(self.pull(server, "--retries", "0", expect=FAILED), "timed out: .* sent only .* in 0.2 s",
                           code=4)
                self.assertLess(time.monotonic() - started, 5)
                server.close()

    def test_endless_connect(self):
        """A proxy that answers CONNECT with headers without end."""
        proxy = self.serve(image=None, kind=lambda: EndlessProxy())
        with mock.patch.dict(os.environ, https_proxy="http://" + proxy.host):
            started = time.monotonic()
            self.fails(self.run_main("--retries", "0", "reg.test/app", self.tar))
            self.assertLess(time.monotonic() - started, 5)

    def test_contexts_and_connections(self):
        """Layers on many hosts: one TLS context for all, and few connections kept."""
        tls = self.pems()
        server = self.serve(make_image(*[b"layer %d" % number for number in range(40)]), tls=tls)
        stores = [self.serve(image=None, tls=tls) for _ in range(10)]
        for store in stores:
            store.blobs = server.blobs
        counter = iter(range(1000))

        def elsewhere(wire, request, answer):
            store = stores[next(counter) % len(stores)]
            wire.send(Answer(307, Location="%s/store/%s" % (store.url, request.path.rsplit("/", 1)[1])))
        server.faults = [Fault("layer", elsewhere, ALWAYS)]
        made, kept = [], []
        create, release = ssl.create_default_context, imgpull.Transport.release

        def counted(transport, *arguments):
            release(transport, *arguments)
            kept.append(len(transport.idle))
        with mock.patch("ssl.create_default_context", lambda *a, **o: made.append(1) or create(*a, **o)), \
                mock.patch.object(imgpull.Transport, "release", counted):
            self.pull(server, "--cacert", os.path.join(tls, "ca.pem"), "--jobs", "3")
        self.assertEqual((len(made), max(kept) <= 6), (1, True), (made, max(kept)))

    def test_tokens_for_two_requests(self):
        """A registry whose tokens last for two requests, and six workers that share one."""
        server = self.serve(make_image(*[b"layer %d" % number for number in range(30)]), challenges=[BEARER])
        uses, lock, answer = {}, threading.Lock(), server.answer

        def counted(request):
            if request.path.startswith("/v2/") and request.authorization in server.accepted:
                with lock:
                    uses[request.authorization] = uses.get(request.authorization, 0) + 1
                    if uses[request.authorization] > 2:
                        server.accepted.discard(request.authorization)
            return answer(request)
        numbers = iter(range(10000))
        server.answer = counted
        server.token = lambda request: server.give("token-%d" % next(numbers))
        server.give = lambda token: (server.accepted.add("Bearer " + token), Answer(200, to_json({"token": token})))[1]
        self.pull(server, "--jobs", "6")
        self.assertEqual(imgpull.verify_archive(self.tar), [])


class EndlessProxy(FakeProxy):
    """Headers without end for every CONNECT."""

    class handler(ProxyWire):
        def do_CONNECT(self):
            self.server.requests.append(Request(self))
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            with contextlib.suppress(OSError):
                while not self.server.closing.is_set():
                    self.wfile.write(b"X: y\r\n" * 1000)

    def __init__(self):
        super().__init__(None)


class TestStream(Case):
    """`-`: the archive to stdout, in order, nothing on disk."""

    def test_through_faults(self):
        good = self.pull(self.serve(INDEX), "--name", "x:1")
        os.remove(self.tar)
        before = os.listdir(self.dir)
        for name, faults in [("none", []), ("cut", [("layer", cut(50000), 3)]),
                             ("no ranges", [("layer", cut(50000), 1), ("layer", whole, 9)]),
                             ("a range refused", [("layer", cut(50000), 1), ("layer", says(416), 1)]),
                             ("busy", [("config", says(503), 2)]),
                             ("another range", [("layer", cut(50000), 1), ("layer", other_range, 1)]),
                             ("chunks", [("layer", chunked(), 9)])]:
            with self.subTest(name):
                run = self.pull(self.serve(INDEX, faults=faults), "--name", "x:1", tar="-")
                self.assertEqual(run.out, good)
                self.assertEqual(os.listdir(self.dir), before)
                self.assertIn(IMAGE.digest, run.err)      # the result line goes where it does no harm

    def test_failure_never_loads(self):
        """What breaks off midway is no archive."""
        for kind, fault in [("config", says(404)), ("config", changed(body=flipped)), ("layer", says(404)),
                            ("layer", cut(0)), ("layer", cut(1000)), ("layer", changed(body=flipped)),
                            ("layer", changed(body=lambda body: body[:-1])),
                            ("layer", endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536))]:
            with self.subTest(kind):
                run = self.pull(self.serve(INDEX, faults=[(kind, fault, ALWAYS)]), "--retries", "0", tar="-", expect=1)
                self.fails(run)
                self.assertFalse(run.out.endswith(bytes(1024)))
                self.assertTrue(faults_of(self.write("broken.tar", run.out)))

    def test_closed_pipe(self):
        """Whoever reads goes away: one line."""
        server = self.serve(MIXED)
        process = subprocess.Popen([sys.executable, "-c", START, "--scheme", "http", server.host + "/app:v1", "-"],
                                   cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.read(1000)
        process.stdout.close()
        err = process.stderr.read().decode()
        process.stderr.close()
        self.assertEqual((process.wait(), err.count("imgpull: error"), "Traceback" in err), (1, 1, False), err)

    def in_chunks(self, size=20000):
        """Have layers read ahead in chunks of this size."""
        for name, value in (("window", lambda jobs: 7 * size), ("LEAST_CHUNK", size), ("BUFFER", 16 << 10)):
            patch = mock.patch.object(imgpull, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def test_chunks_through_faults(self):
        """Several connections at once: whatever happens to the first, third or ninth request, the bytes are right."""
        self.in_chunks()
        image = make_image(BIG, b"", noise("second", 90000), b"small", noise("third", 20000))
        good = self.pull(self.serve(image), "--name", "x:1")
        for name, act, times in selected([("cut", cut(7000), 3), ("cut at once", cut(0), 3), ("slow", slow(3, 0.02), 2),
                                          ("busy", says(503), 3), ("silent", silent(3000), 1), ("whole", whole, 1),
                                          ("no ranges", whole, ALWAYS), ("416", says(416), 1), ("416s", says(416), 4),
                                          ("another range", other_range, 1), ("other ranges", other_range, 5),
                                          ("chunked", chunked(), ALWAYS), ("closed", stale, ALWAYS)]):
            for before in (0, 2, 8):
                for jobs in ("2", "6"):
                    with self.subTest("%s, after %d, %s jobs" % (name, before, jobs)):
                        server = self.serve(image, faults=[("layer", Wire.well, before), ("layer", act, times)])
                        run = self.pull(server, "--name", "x:1", "--jobs", jobs, "--timeout", "0.3", tar="-")
                        self.assertEqual(run.out, good)

    def test_chunks_that_fail(self):
        """The first failure of any connection is told, once, and what went out before does not load."""
        self.in_chunks()
        layer = noise("layer", 400000)
        for before, act, words in selected([(0, says(404), "answered 404"), (5, says(404), "answered 404"),
                                            (17, says(403), "answered 403"), (5, cut(100), "closed the connection"),
                                            (0, changed(body=flipped), "digest mismatch"),
                                            (12, changed(body=flipped), "digest mismatch"),
                                            (18, changed(body=flipped), "digest mismatch")]):
            with self.subTest("%s after %d" % (words, before)):
                server = self.serve(make_image(layer), faults=[("layer", Wire.well, before),
                                                               ("layer", act, ALWAYS)])
                started = time.monotonic()
                run = self.pull(server, "--retries", "0", tar="-", expect=FAILED)
                self.assertLess(time.monotonic() - started, 5)
                self.fails(run, words, code=FAILED)
                self.assertTrue(faults_of(self.write("broken.tar", run.out)))

    def test_connections(self):
        """Never more than --jobs, and a request a layer where it is one."""
        self.in_chunks()
        for jobs in (1, 2, 4):
            with self.subTest(jobs):
                server, most = self.serve(make_image(BIG, noise("second", 90000))), []
                deliver = server.deliver
                server.deliver = lambda *args: (most.append(len(server.open)), time.sleep(0.01), deliver(*args))
                self.pull(server, "--jobs", str(jobs), tar="-")
                self.assertLessEqual(max(most), jobs)
                if jobs == 1:
                    self.assertEqual(server.kinds().count("layer"), 2)

    def test_limited_connections(self):
        """A server that gives each connection so much a second is faster with several."""
        self.in_chunks(100000)
        image, seconds = make_image(noise("layer", 2000000)), {}

        def limited(wire, request, answer):
            wire.send_head(answer)
            for start in range(0, len(answer.body), 20000):
                time.sleep(0.02)
                wire.send_body(answer.body[start:start + 20000])
        for jobs in ("1", "6"):
            server = self.serve(image, faults=[("layer", limited, ALWAYS)])
            started = time.monotonic()
            self.pull(server, "--jobs", jobs, tar="-")
            seconds[jobs] = time.monotonic() - started
        self.assertLess(seconds["6"], 0.6 * seconds["1"])

    def test_late_answers(self):
        """Where answers take long to come, and then come at once, one long one is asked for."""
        for times, jobs, better in [([(0.05, 0.005)] * 18, 6, True), ([(0.05, 0.05)] * 18, 6, False),
                                    ([(0.002, 0.0001)] * 18, 6, False),
                                    ([(0, 0.1)], 2, False), ([(0.05, 0.05)], 2, False), ([(0.06, 0.05)], 2, True)]:
            self.assertEqual(imgpull.is_one_faster(times, jobs), better, (times[0], jobs))
        self.in_chunks()
        layer = noise("layer", 2000000)

        def late(wire, request, answer):
            time.sleep(0.03)
            wire.send(answer)
        server = self.serve(make_image(layer), faults=[("layer", late, ALWAYS)])
        run = self.pull(server, "--jobs", "2", tar="-")
        self.assertEqual(faults_of(self.write("whole.tar", run.out)), [])
        self.assertLess(server.kinds().count("layer"), 20)          # 100 Chunks

    @unittest.skipUnless(CPYTHON_ON_LINUX, "reads /proc; PyPy has a heap of another size")
    def test_memory_of_a_slow_reader(self):
        """What is read ahead is bounded, whatever the reader does: below 48 MiB with all else."""
        layer = noise("huge", 1 << 20) * 32
        image = make_image(b"", change=spoiled("layers", to=[descriptor(layer, OCI.layer)]))
        image.blobs[sha256(layer)] = layer
        good = self.pull(self.serve(image), "--name", "x:1")
        script = ("import imgpull, sys; code = imgpull.main(sys.argv[1:]); print([line.split()[1] for line in\n"
                  "open('/proc/self/status') if line.startswith('VmHWM')][0], file=sys.stderr); sys.exit(code)")
        for jobs in ("1", "6", "64"):
            with self.subTest(jobs):
                server = self.serve(image)
                process = subprocess.Popen([sys.executable, "-c", script, "-q", "--scheme", "http",
                                            "--jobs", jobs, "--name",
                                            "x:1", server.host + "/app:v1", "-"], cwd=HERE, stdout=subprocess.PIPE,
                                           stderr=subprocess.PIPE)
                self.addCleanup(TestResume.end, process)
                until(lambda: server.sent("layer") > 0)
                time.sleep(0.5)         # nobody reads
                self.assertLess(server.sent("layer"), len(layer))
                self.assertEqual(process.stdout.read(), good)
                self.assertLess(int(process.stderr.read().split()[-1]), 48 << 10)

    @unittest.skipUnless(POSIX, "signals")
    def test_interrupted_while_nobody_reads(self):
        """Ctrl-C ends it at once, also where a thread is stuck in writing to the pipe."""
        server = self.serve(make_image(noise("huge", 1 << 20) * 32))
        process = subprocess.Popen([sys.executable, "-c", START, "--scheme", "http", server.host + "/app:v1", "-"],
                                   cwd=HERE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(TestResume.end, process)
        until(lambda: server.sent("layer") > 0)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        self.assertEqual(process.wait(10), 130)
        self.assertLess(time.monotonic() - started, 2)
        self.assertEqual(process.stderr.read().decode().splitlines()[-1], "imgpull: interrupted")


# --- signatures and other referrers ----------------------------------------------------------------------------------

BUNDLE, SIMPLE = "application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.dev.cosign.simplesigning.v1+json"
SPDX, DSSE = "application/spdx+json", "application/vnd.dsse.envelope.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
IMAGE_KIND, INDEX_KIND, SIGS, ATTS = ["dev.cosignproject.cosign/" + kind for kind in
                                      ("image", "imageIndex", "sigs", "atts")]


def make_referrer(subject, layer_type=BUNDLE, content=b"", artifact=None, change=lambda manifest: None):
    """A manifest that refers to a subject, as cosign 3, ORAS and notation push them."""
    content = content or b"%s of %s" % (layer_type.encode(), subject.digest.encode())
    manifest = {"schemaVersion": 2, "mediaType": OCI.manifest, "artifactType": artifact or layer_type,
                "config": descriptor(b"{}", EMPTY), "layers": [descriptor(content, layer_type)],
                "subject": descriptor(subject.manifest, subject.media_type)}
    change(manifest)
    manifest = to_json(manifest)
    blobs = {sha256(blob): blob for blob in (b"{}", content)}
    return Image(manifest, OCI.manifest, sha256(manifest), blobs, [sha256(content)], (), b"{}", ())


def make_signature(subject, layer_type=SIMPLE, content=b""):
    """What stands under cosign's older tags: an image of layers that are none, which has no subject."""
    content = content or b"%s for %s" % (layer_type.encode(), subject.digest.encode())
    config = to_json({"architecture": "", "os": "", "config": {},
                      "rootfs": {"type": "layers", "diff_ids": [sha256(content)]}})
    layer = descriptor(content, layer_type, annotations={"dev.cosignproject.cosign/signature": "MEUC"})
    manifest = to_json({"schemaVersion": 2, "mediaType": OCI.manifest, "config": descriptor(config, OCI.config),
                        "layers": [layer]})
    blobs = {sha256(blob): blob for blob in (config, content)}
    return Image(manifest, OCI.manifest, sha256(manifest), blobs, [sha256(content)], (), config, ())


def tag_of(image, suffix=""):
    return image.digest.replace(":", "-") + suffix


PROVENANCE = make_image(b"provenance", architecture="unknown", os="unknown", change=lambda manifest: manifest.update(
    layers=[dict(layer, mediaType="application/vnd.in-toto+json", annotations={
        "in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"}) for layer in manifest["layers"]]))
BUILT = make_index((PROVENANCE, "unknown/unknown"), (ARM, "linux/arm64"), (IMAGE, "linux/amd64"),
                   change=lambda index: index["manifests"][0]["annotations"].update(
                       {"vnd.docker.reference.digest": IMAGE.digest}))
SBOM = make_referrer(IMAGE, SPDX)


def on(image, suffix):
    """An older signature, attestation or SBOM of an image, and its tag."""
    types = {".sig": SIMPLE, ".att": DSSE, ".sbom": "text/spdx"}
    return make_signature(image, types[suffix]), tag_of(image, suffix)


# What is pushed: a referrer, or (image, tag). Then what comes along (kinds), cosign's kind of the image's descriptor,
# and {kind: digest} of the unnamed ones.
REFERRING = namedtuple("Referring", "name image options pushed kinds kind unnamed")
REFERRALS = [
    REFERRING("a bundle", IMAGE, (), [make_referrer(IMAGE)], ["signature"], IMAGE_KIND, {}),
    REFERRING("an SBOM and its signature", IMAGE, (), [SBOM, make_referrer(SBOM)], ["SBOM", "signature"],
              IMAGE_KIND, {}),
    REFERRING("notation", IMAGE, (), [make_referrer(IMAGE, "application/jose+json",
                                                    artifact="application/vnd.cncf.notary.signature")],
              ["signature"], IMAGE_KIND, {}),
    REFERRING("of no known type", IMAGE, (), [make_referrer(IMAGE, "text/x")], ["artifact"], IMAGE_KIND, {}),
    REFERRING("older signature", IMAGE, (), [on(IMAGE, ".sig")], ["signature"], IMAGE_KIND,
              {SIGS: on(IMAGE, ".sig")[0].digest}),
    REFERRING("all of the older ones", IMAGE, (), [on(IMAGE, suffix) for suffix in (".sig", ".att", ".sbom")],
              ["SBOM", "attestation", "signature"], IMAGE_KIND,
              {SIGS: on(IMAGE, ".sig")[0].digest, ATTS: on(IMAGE, ".att")[0].digest}),
    REFERRING("a bundle of the index", INDEX, (), [make_referrer(INDEX)], ["signature"], None,
              {IMAGE_KIND: INDEX.digest}),
    REFERRING("older signature of the index", INDEX, (), [on(INDEX, ".sig")], ["signature"], None,
              {INDEX_KIND: INDEX.digest, SIGS: on(INDEX, ".sig")[0].digest}),
    REFERRING("bundles of both", INDEX, (), [make_referrer(INDEX), make_referrer(IMAGE)], ["signature"] * 2, IMAGE_KIND,
              {}),
    REFERRING("an SBOM of the manifest, a bundle of the index", INDEX, (), [SBOM, make_referrer(INDEX)],
              ["SBOM", "signature"], None, {IMAGE_KIND: INDEX.digest}),
    REFERRING("of another platform", INDEX, (), [make_referrer(ARM)], [], None, {}),
    REFERRING("BuildKit's", BUILT, (), [], ["provenance"], IMAGE_KIND, {}),
    REFERRING("BuildKit's and a bundle", BUILT, (), [make_referrer(BUILT)], ["provenance", "signature"], None,
              {IMAGE_KIND: BUILT.digest}),
    REFERRING("all platforms, bundles", INDEX, ("--platform", "all"), [make_referrer(INDEX), make_referrer(ARM)],
              ["signature"] * 2, IMAGE_KIND, {}),
    REFERRING("all platforms, older", INDEX, ("--platform", "all"), [on(INDEX, ".sig"), on(ARM, ".sig")],
              ["signature"] * 2, INDEX_KIND, {SIGS: on(INDEX, ".sig")[0].digest}),
    REFERRING("two platforms", INDEX, ("--platform", "linux/amd64,linux/arm64"), [make_referrer(INDEX)], ["signature"],
              IMAGE_KIND, {}),
    REFERRING("an image by the tag of a signature", IMAGE, (), [(ARM, tag_of(IMAGE, ".sig"))], ["artifact"], IMAGE_KIND,
              {}),
    REFERRING("a chart", make_artifact(), (), [make_referrer(make_artifact())], ["signature"], IMAGE_KIND, {}),
    REFERRING("an index that refers", IMAGE, (), [make_index((ARMV6, None), change=lambda index: index.update(
        subject=descriptor(IMAGE.manifest, OCI.manifest), artifactType="application/x"))], ["artifact"] * 2, IMAGE_KIND,
              {}),
    REFERRING("nothing", INDEX, (), [], [], None, {})]


def lying(**values):
    """What a registry lists in place of a referrer."""
    good = make_referrer(IMAGE)
    return [dict(descriptor(good.manifest, OCI.manifest), **values)]


def chain(length):
    """Referrers, each to the one before, and the first to IMAGE."""
    images = [IMAGE]
    for _ in range(length):
        images.append(make_referrer(images[-1]))
    return images[1:]


def next_at(place):
    return changed(Link="<%s>; rel=next" % place)


# What is pushed, options of the registry, its faults; then the exit code and words. A code of 0 is good, with a note.
MISLEADING = [
    ("busy for a while", [SBOM], {"faults": [("referrers", says(503), 2)]}, 0, "trying again"),
    ("busy for good", [SBOM], {"faults": [("referrers", says(503), ALWAYS)]}, 4, "503"),
    ("busy for good, tags", [SBOM], {"page": None, "faults": [("digest tag", says(500), ALWAYS)]}, 4, "500"),
    ("no access", [SBOM], {"faults": [("referrers", says(403), ALWAYS)]}, 3, "403"),
    ("does not know the path", [], {"faults": [("referrers", says(405), ALWAYS)]}, 0, "no signatures"),
    ("a manifest", [], {"faults": [("referrers", says(200, IMAGE.manifest), ALWAYS)]}, 5, "not an index"),
    ("a manifest as fallback", [(ARM, tag_of(IMAGE))], {"page": None}, 5, "not an index"),
    ("a web page", [], {"faults": [("referrers", says(200, b"<html>"), ALWAYS)]}, 5, "web page"),
    ("not JSON", [], {"faults": [("referrers", says(200, b"{"), ALWAYS)]}, 5, "JSON"),
    ("endless", [], {"faults": [("referrers", endless(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536), ALWAYS)]}, 5,
     "more than"),
    ("cut", [SBOM], {"faults": [("referrers", cut(20), 1)]}, 0, "trying again"),
    ("the same page for ever", [SBOM], {"faults": [("referrers", next_at("?from=0"), ALWAYS)]}, 5, "100 pages"),
    ("the next page elsewhere", [SBOM], {"faults": [("referrers", next_at("https://evil.test/v2/"), ALWAYS)]}, 5,
     "evil.test"),
    ("the next page in another place", [SBOM], {"faults": [("referrers", next_at("/v2/other/referrers/x"), ALWAYS)]}, 5,
     "not followed"),
    ("the next page nowhere", [SBOM], {"faults": [("referrers", next_at("http://[::"), ALWAYS)]}, 5, "not followed"),
    ("thousands", [], {"page": 900, "lists": {IMAGE.digest: [
        descriptor(b"%d" % number, OCI.manifest) for number in range(2000)]}}, 5, "more than 1000 referrers"),
    ("lists what is not there", [], {"lists": {IMAGE.digest: lying()}}, 3, "does not have it"),
    ("size too small", [make_referrer(IMAGE)], {"lists": {IMAGE.digest: lying(size=7)}}, 5, "expected 7"),
    ("size impossible", [make_referrer(IMAGE)], {"lists": {IMAGE.digest: lying(size=-7)}}, 5, "size"),
    ("no digest", [make_referrer(IMAGE)], {"lists": {IMAGE.digest: lying(digest="sha256:../x")}}, 5, "digest"),
    ("another image's", [make_referrer(ARM)], {"lists": {IMAGE.digest: [
        descriptor(make_referrer(ARM).manifest, OCI.manifest)]}}, 0, "passed over"),
    ("an image without subject", [(ARM, "arm")], {"lists": {IMAGE.digest: [descriptor(ARM.manifest, OCI.manifest)]}}, 0,
     "passed over"),
    ("the image itself", [], {"lists": {IMAGE.digest: [descriptor(IMAGE.manifest, OCI.manifest)]}}, 0, "no signatures"),
    ("in a circle", [SBOM], {"lists": {SBOM.digest: [descriptor(IMAGE.manifest, OCI.manifest),
                                                     descriptor(SBOM.manifest, OCI.manifest)]}}, 0, ""),
    ("four deep", chain(4), {}, 0, ""),
    ("five deep", chain(5), {}, 5, "4 deep"),
    ("an older signature of another image", [(make_referrer(ARM), tag_of(IMAGE, ".sig"))], {}, 0, "passed over"),
    ("a config that is gone", [SBOM], {"gone": sha256(b"{}")}, 3, "404"),
    ("a blob that is gone", [SBOM], {"gone": SBOM.layers[0]}, 3, "404"),
    ("a blob that is damaged", [SBOM], {"damaged": SBOM.layers[0]}, 5, "digest mismatch"),
    ("a layer of the image with another size", [make_referrer(IMAGE, change=lambda manifest: manifest["layers"].append(
        dict(descriptor(IMAGE.blobs[IMAGE.layers[0]], "text/x"), size=5)))], {}, 5, "5 bytes in one place"),
    ("not an index nor a manifest", [], {"lists": {IMAGE.digest: [descriptor(b"[]", OCI.manifest)]},
                                         "more": [Image(b"[]", OCI.manifest, sha256(b"[]"), {}, (), (), b"", ())]}, 5,
     "JSON object")]


class TestReferrers(Case):
    def registry(self, image, pushed, api=True, page=2, **options):
        """A registry with all that is pushed; without the API, its lists are under tags."""
        server = self.serve(image, page=page if api else None, **options)
        subjects = {part.digest: part for part in (image,) + image.children}
        lists = {}
        for each in pushed:
            part, tag = each if isinstance(each, tuple) and len(each) == 2 else (each, each.digest)
            server.add("app", tag, part)
            subjects[part.digest] = part
            subject = json.loads(part.manifest.decode()).get("subject")
            if subject and tag == part.digest:
                lists.setdefault(subject["digest"], []).append((part, None))
        for digest, parts in lists.items() if page is None or not api else ():
            server.add("app", tag_of(subjects[digest]), make_index(*parts))
        del server.requests[:]
        return server

    def fetch(self, server, *options, **more):
        return self.pull(server, "--referrers", "--name", "app:v1", *options, **more)

    def test_come_along(self):
        """What comes along, over the API and over tags, and where it stands in index.json; list and verify."""
        for row in selected(REFERRALS):
            archives = set()
            for api in (True, False):
                with self.subTest(row.name, api=api):
                    server = self.registry(row.image, row.pushed, api)
                    plain = members(self.pull(server, "--name", "app:v1", *row.options))
                    self.assertEqual({"referrers", "digest tag"} & set(server.kinds()), set())
                    os.remove(self.tar)
                    held = members(self.fetch(server, *row.options))
                    archives.add(read(self.tar))
                    self.assertEqual({name: held[name] for name in plain if name != "index.json"},
                                     {name: data for name, data in plain.items() if name != "index.json"})
                    top, *unnamed = json.loads(held["index.json"].decode())["manifests"]
                    self.assertEqual(top["annotations"].get("kind"), row.kind)
                    self.assertEqual({each["annotations"]["kind"]: each["digest"] for each in unnamed}, row.unnamed)
                    for each in unnamed:
                        self.assertNotIn("io.containerd.image.name", each["annotations"])
                        self.assertEqual(len(held[blob_path(each["digest"])]), each["size"])
                        if each["digest"] == row.image.digest:
                            children = {blob_path(child.digest) for child in row.image.children}
                            self.assertEqual(children - set(held), set())
                    self.check_archive(row, held)
                    if not row.kinds:
                        self.assertEqual(held, plain)
                        self.assertIn("no signatures or other referrers found", self.said.err)
            self.assertEqual(len(archives), 1, row.name)

    def check_archive(self, row, held):
        """That all is there of what should be, and --list-tar and --verify tell it."""
        pushed = [each[0] if len(each) == 2 else each for each in row.pushed] if row.kinds else []
        for image in pushed:
            for digest in [image.digest] + list(image.blobs):
                self.assertEqual(sha256(held[blob_path(digest)]), digest)
        plain = {image.digest for image in (row.image,) + row.image.children}
        listed = imgpull.list_archive(self.tar)
        self.assertTrue({image.digest for image in listed} <= plain)
        told = {referrer.digest: referrer for image in listed for referrer in image.referrers}
        self.assertEqual(sorted(referrer.kind for referrer in told.values()), row.kinds)
        shown = self.run_main("--list-tar", self.tar).out.decode()
        for referrer in told.values():
            self.assertIn(referrer.digest, shown)
        run = self.run_main("--verify", self.tar)
        words = "%d referrer" % len(told) if told else "good"
        self.assertEqual((run.code, words in run.out.decode()), (0, True), run.out)
        self.assertEqual("not verified" in run.out.decode(), bool(told))

    def test_misleading(self):
        """Lists that lie: an error in one line with nothing left, or passed over with a note."""
        for name, pushed, options, code, words in selected(MISLEADING):
            with self.subTest(name):
                options = dict({"page": 2}, **options)
                gone, damaged = options.pop("gone", None), options.pop("damaged", None)
                more = options.pop("more", ())
                server = self.registry(IMAGE, pushed, **options)
                for part in more:
                    server.manifests["app", part.digest] = part
                if gone:
                    del server.blobs[gone]
                if damaged:
                    server.blobs[damaged] = flipped(server.blobs[damaged])
                run = self.fetch(server, "--retries", "2", expect=code)
                if code:
                    self.fails(run, words, code=code)
                    self.assertFalse(os.path.exists(self.tar))
                    self.clean()
                else:
                    self.assertIn(words, self.said.err)
                    self.assertEqual(imgpull.verify_archive(self.tar), [])
                    os.remove(self.tar)

    def test_many(self):
        """More referrers than are taken, on many pages."""
        pushed = [make_referrer(IMAGE, "text/x", b"%d" % number) for number in range(30)]
        server = self.registry(IMAGE, pushed, page=7)
        self.fetch(server)
        self.assertEqual(len(imgpull.list_archive(self.tar)[0].referrers), 30)
        self.assertEqual([request.target.partition("?")[2] for request in server.requests
                          if request.kind == "referrers"][:5], ["", "from=7", "from=14", "from=21", "from=28"])
        with mock.patch.object(imgpull, "REFERRERS_LIMIT", 29):
            self.fails(self.fetch(server, expect=5), "more than 29 referrers", code=5)

    def test_listed_in_the_wrong_place(self):
        """What the list of the index names by mistake is found where it belongs."""
        entries = [descriptor(SBOM.manifest, OCI.manifest)]
        self.fetch(self.registry(INDEX, [SBOM], lists={INDEX.digest: entries}))
        self.assertIn("passed over", self.said.err)
        self.assertEqual([each.kind for each in imgpull.list_archive(self.tar)[0].referrers], ["SBOM"])

    def test_namespace(self):
        """At a mirror, every page is asked for with ?ns=."""
        server = self.registry(IMAGE, [SBOM, make_referrer(IMAGE)], page=1, namespace="q.io")
        self.fetch(server, "--ns", "q.io")
        self.assertEqual(len(imgpull.list_archive(self.tar)[0].referrers), 2)

    def test_base_and_reuse(self):
        """A delta carries the new image's referrers, also one whose blob is a layer of the base."""
        shared = make_referrer(IMAGE, "text/x", IMAGE.blobs[IMAGE.layers[0]])
        server = self.registry(IMAGE, [SBOM, shared, on(IMAGE, ".sig")])
        base = self.path("base.tar")
        self.pull(server, "--name", "app:v0", tar=base)
        held = members(self.fetch(server, "--base", base))
        for part in (SBOM, shared, on(IMAGE, ".sig")[0]):
            self.assertEqual({blob_path(digest) for digest in part.blobs} - set(held), set())
        self.assertNotIn(blob_path(IMAGE.layers[1]), held)
        self.assertEqual(imgpull.verify_archive(self.tar, [base]), [])
        whole = self.path("whole.tar")
        self.fetch(server, tar=whole)
        del server.requests[:]
        again = self.path("again.tar")
        self.fetch(server, "--reuse", whole, tar=again)
        self.assertEqual((server.sent("layer"), read(again)), (0, read(whole)))
        self.fetch(server, "--base", whole)
        self.assertEqual(imgpull.verify_archive(self.tar, [whole]), [])
        self.assertEqual(self.fetch(server, tar="-").out, read(whole))

    def test_library(self):
        server = self.registry(INDEX, [SBOM, make_referrer(INDEX), on(INDEX, ".sig")])
        result = imgpull.pull(server.host + "/app:v1", self.tar, scheme="http", referrers=True)
        self.assertEqual(sorted((each.kind, each.subject, each.suffix) for each in result.images[0].referrers),
                         sorted([("SBOM", IMAGE.digest, ""), ("signature", INDEX.digest, ""),
                                 ("signature", INDEX.digest, ".sig")]))
        size = {each.kind: (each.size, each.artifact_type) for each in result.images[0].referrers}["SBOM"]
        self.assertEqual(size, (len(SBOM.manifest) + len(SBOM.blobs[SBOM.layers[0]]), SPDX))
        result = imgpull.pull(server.host + "/app:v1", self.tar, scheme="http")
        self.assertEqual(result.images[0].referrers, [])

    def test_kinds(self):
        """What a referrer is in words, by all that its manifest says."""
        statement = "dev.sigstore.bundle.predicateType"
        for artifact, layer, annotations, kind in selected([
                (BUNDLE, BUNDLE, {}, "signature"),
                (BUNDLE, BUNDLE, {statement: "https://sigstore.dev/cosign/sign/v1"}, "signature"),
                (BUNDLE, BUNDLE, {statement: "https://slsa.dev/provenance/v1"}, "provenance"),
                (BUNDLE, BUNDLE, {statement: "https://spdx.dev/Document"}, "SBOM"),
                (BUNDLE, BUNDLE, {statement: "https://cyclonedx.org/bom"}, "SBOM"),
                ("application/sarif+json", "application/sarif+json", {}, "artifact"),
                ("application/vnd.in-toto+json", "application/vnd.in-toto+json", {}, "attestation"),
                ("x/sbom", "text/plain", {}, "SBOM")]):
            with self.subTest(artifact, annotations=annotations):
                part = make_referrer(IMAGE, layer, artifact=artifact,
                                     change=lambda manifest, more=annotations: manifest.update(annotations=more))
                manifest = imgpull.parse_manifest(part.manifest, part.digest, "it")
                self.assertEqual(imgpull.Referrer(IMAGE.digest, "", manifest).kind, kind)

    def test_bad_archives(self):
        """What is wrong with the referrers in an archive is found, and an image is not passed off as a signature."""
        server = self.registry(INDEX, [SBOM, on(INDEX, ".sig"), make_referrer(INDEX)])
        held = members(self.fetch(server))
        digests = [descriptor["annotations"]["dev.imgpull.referrers"] for descriptor
                   in json.loads(held["index.json"].decode())["manifests"][:1]][0]
        for name, change, words in selected([
                ("a referrer is gone", {blob_path(SBOM.digest): None}, "referrer.*%s.* is not there" % SBOM.digest),
                ("its blob is gone", {blob_path(SBOM.layers[0]): None}, "%s of the referrer" % SBOM.layers[0]),
                ("its blob is damaged", {blob_path(SBOM.layers[0]): flipped(SBOM.blobs[SBOM.layers[0]])}, "mismatch"),
                ("it is damaged", {blob_path(SBOM.digest): flipped(SBOM.manifest)}, "mismatch|damaged"),
                ("its subject is gone", {blob_path(INDEX.digest): None}, INDEX.digest),
                ("a name that is none", {"index.json": held["index.json"].replace(
                    digests.encode(), b"sha256:../../x,md5:0")}, "not there")]):
            with self.subTest(name):
                changed_members = dict(held, **change)
                path = self.write("bad.tar", tar_of({name: data for name, data in changed_members.items()
                                                     if data is not None}))
                self.assertRegex(" ".join(faults_of(path)), words)
        index = json.loads(held["index.json"].decode())
        for number, kind in [(1, SIGS), (1, IMAGE_KIND), (2, SIGS)]:
            evil = make_image(b"evil")
            disguised = dict(index, manifests=[dict(each) for each in index["manifests"]])
            disguised["manifests"][number] = dict(descriptor(evil.manifest, OCI.manifest), annotations={"kind": kind})
            path = self.write("evil.tar", tar_of(dict(held, **{
                "index.json": to_json(disguised), blob_path(evil.digest): evil.manifest},
                **{blob_path(digest): blob for digest, blob in evil.blobs.items()})))
            self.assertIn(evil.digest, [image.digest for image in imgpull.list_archive(path)])

    def test_cosign_save(self):
        """A layout as "cosign save" writes it: an image, and its signature without a name."""
        part, _ = on(IMAGE, ".sig")
        tops = [descriptor(IMAGE.manifest, OCI.manifest, annotations={"kind": IMAGE_KIND}),
                descriptor(part.manifest, OCI.manifest, annotations={"kind": SIGS})]
        contents = {"oci-layout": to_json({"imageLayoutVersion": "1.0.0"}),
                    "index.json": to_json({"schemaVersion": 2, "manifests": tops})}
        for image in (IMAGE, part):
            contents.update({blob_path(digest): blob for digest, blob in image.blobs.items()})
            contents[blob_path(image.digest)] = image.manifest
        path = self.write("saved.tar", tar_of(contents))
        listed, = imgpull.list_archive(path)
        self.assertEqual((listed.digest, [each.kind for each in listed.referrers]), (IMAGE.digest, ["signature"]))
        self.assertEqual(imgpull.verify_archive(path), [])


# --- archives, ours and others': list, verify, build upon, reuse -----------------------------------------------------

def layers_json(image, layers):
    return to_json([{"Config": sha256(image.config)[7:] + ".json", "RepoTags": ["docker.io/library/app:v1"],
                     "Layers": layers}])


def link_to(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def old_docker(image):
    """docker save before version 25: unpacked layers, each in a directory of its own; a repeated one is a link."""
    held, layers = {}, []
    for number, tar in enumerate(image.tars):
        place = hashlib.sha256(b"%d" % number).hexdigest()
        layers.append(place + "/layer.tar")
        first = image.tars.index(tar)
        held.update({place + "/VERSION": b"1.0", place + "/json": b"{}",
                     layers[-1]: tar if first == number else link_to(layers[-1], "../" + layers[first])})
    held.update({sha256(image.config)[7:] + ".json": image.config, "manifest.json": layers_json(image, layers),
                 "repositories": to_json({"app": {"v1": "0" * 64}})})
    return tar_of(held)


def new_docker(image):
    """docker save since version 25: an OCI layout with unpacked layers, and manifest.json."""
    layers = [descriptor(tar, "application/vnd.oci.image.layer.v1.tar") for tar in image.tars]
    manifest = to_json({"schemaVersion": 2, "mediaType": OCI.manifest, "config": descriptor(image.config, OCI.config),
                        "layers": layers})
    entry = descriptor(manifest, OCI.manifest, annotations={"io.containerd.image.name": "docker.io/library/app:v1",
                                                            "org.opencontainers.image.ref.name": "v1"})
    held = {blob_path(sha256(blob)): blob for blob in [manifest, image.config] + image.tars}
    held["index.json"] = to_json({"schemaVersion": 2, "manifests": [entry]})
    held["manifest.json"] = to_json([{"Config": blob_path(sha256(image.config)),
                                      "RepoTags": ["docker.io/library/app:v1"],
                                      "Layers": [blob_path(layer["digest"]) for layer in layers]}])
    held["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    return tar_of(held)


def docker_archive(image):
    """skopeo's and podman's docker-archive: HEX.tar, and links in the old places."""
    held = {sha256(tar)[7:] + ".tar": tar for tar in image.tars}
    layers = [sha256(tar)[7:] + ".tar" for tar in image.tars]
    for number, layer in enumerate(layers):
        held["%064d/layer.tar" % number] = link_to("%064d/layer.tar" % number, "../" + layer)
    held.update({sha256(image.config)[7:] + ".json": image.config, "manifest.json": layers_json(image, layers)})
    return tar_of(held)


def oci_archive(image):
    """skopeo's and podman's oci-archive: no manifest.json; the name is only an annotation."""
    entry = descriptor(image.manifest, image.media_type,
                       annotations={"org.opencontainers.image.ref.name": "docker.io/library/app:v1"})
    held = {blob_path(sha256(blob)): blob for blob in [image.manifest] + list(image.blobs.values())}
    held.update({"index.json": to_json({"schemaVersion": 2, "manifests": [entry]}),
                 "oci-layout": b'{"imageLayoutVersion": "1.0.0"}'})
    return tar_of(held)


def crane(image):
    """crane pull: HEX.tar.gz, and a config named by its digest."""
    held = {layer[7:] + ".tar.gz": image.blobs[layer] for layer in image.layers}
    held[sha256(image.config)] = image.config
    held["manifest.json"] = to_json([{"Config": sha256(image.config), "RepoTags": ["docker.io/library/app:v1"],
                                      "Layers": [layer[7:] + ".tar.gz" for layer in image.layers]}])
    return tar_of(held)


OTHERS = [old_docker, new_docker, docker_archive, oci_archive, crane]
TWICE = make_image(b"one" * 2000, b"two" * 3000, b"one" * 2000)


class TestReadingBack(Case):
    def check(self, *argv, code=0):
        run = self.run_main(*argv)
        self.assertEqual(run.code, code, run.out.decode() + run.err)
        return run.out.decode()

    def ours(self, image=IMAGE, *options):
        self.pull(self.serve(image), "--name", "app:v1", *options)
        return self.tar

    def test_list(self):
        for make in [None] + OTHERS:
            for image in (IMAGE, TWICE):
                with self.subTest(make and make.__name__):
                    path = self.write("other.tar", make(image)) if make else self.ours(image)
                    listed, = imgpull.list_archive(path)
                    self.assertEqual((listed.name, str(listed.platform), len(listed.layers), listed.omitted),
                                     ("docker.io/library/app:v1", "linux/amd64", len(image.layers), []))
                    self.assertIn(listed.digest, (image.digest, sha256(image.config), sha256(members(read(path)).get(
                        "blobs/sha256/" + listed.digest[7:], b""))))
                    shown = self.check("--list-tar", path)
                    layers = tuple(layer.digest for layer in listed.layers)
                    for word in ("docker.io/library/app:v1", "linux/amd64", listed.digest, listed.image_id) + layers:
                        self.assertIn(word, shown)
                    self.assertIn("good", self.check("--verify", path))
                    self.assertEqual(imgpull.verify_archive(path), [])

    def test_list_several(self):
        server = self.serve(INDEX)
        names = [server.add("app", "v1", INDEX), server.add("b", "v2", make_artifact())]
        self.check("--scheme", "http", "--platform", "all", *(names + [self.tar]))
        shown = self.check("-l", self.tar)
        for word in names + ["linux/amd64", "linux/arm64", "linux/arm/v6", IMAGE.digest, ARM.digest]:
            self.assertIn(word, shown)
        self.assertNotIn("unknown/unknown", shown)

    def test_verify_finds_every_flipped_bit(self):
        """A bit flipped in any blob of any kind of archive is found, and said in a line."""
        for make in [None] + OTHERS:
            data = make(TWICE) if make else read(self.ours(TWICE))
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                places = [(info.name, info.offset_data + info.size // 2) for info in tar if info.isreg()
                          and re.search(r"[0-9a-f]{64}", info.name) and info.size > 100]
            self.assertGreaterEqual(len(places), 3)
            for name, place in places:
                with self.subTest(make and make.__name__, name=name):
                    path = self.write("flipped.tar", data[:place] + bytes([data[place] ^ 4]) + data[place + 1:])
                    self.assertTrue(faults_of(path))
                    self.assertEqual(self.run_main("--verify", path).code, 5)

    def test_verify_diff_ids(self):
        """Layers are what the config says, unpacked; every reference leads somewhere."""
        config = IMAGE.config.replace(sha256(IMAGE.tars[0]).encode(), b"sha256:" + b"0" * 64)
        spoilt = make_image(BIG, b"a small layer", change=spoiled("config", to=descriptor(config, OCI.config)))
        spoilt.blobs[sha256(config)] = config
        said = self.check("--verify", self.write("x.tar", oci_archive(spoilt)), code=5)
        self.assertIn("is not what the config says", said)
        for make in OTHERS:
            held = members(make(IMAGE))
            for name in [name for name in held if "blobs/" in name or name.endswith((".tar", ".gz"))]:
                with self.subTest(make.__name__, missing=name):
                    path = self.write("x.tar", tar_of({other: data for other, data in held.items() if other != name}))
                    self.assertEqual(self.run_main("--verify", path).code, 5)

    def test_bad_archives(self):
        """What is no archive of images, or tries to be more: an error, or faults; never a traceback."""
        good = read(self.ours())
        index = members(good)["index.json"]
        bomb = tarfile.TarInfo("manifest.json")
        bomb.size = 1 << 40
        device = tarfile.TarInfo("index.json")
        device.type = tarfile.FIFOTYPE
        longname = tarfile.TarInfo("x")
        longname.type, longname.size = tarfile.GNUTYPE_LONGNAME, 1 << 35
        loops = {"index.json": link_to("index.json", "a"), "a": link_to("a", "b"), "b": link_to("b", "a")}
        outside = {"manifest.json": to_json([{"Config": "../../../../etc/passwd", "RepoTags": None,
                                              "Layers": ["/etc/passwd"]}])}
        deep = b'{"manifests": [], "x": ' + b"[" * 50000 + b"]" * 50000 + b"}"
        escapes = index.replace(b"app:v1", json.dumps(ESCAPES)[1:-1].encode())
        for name, data in [
                ("empty", b""), ("text", b"hello" * 1000), ("zeros", bytes(10240)),
                ("compressed and cut", gzipped(good)[:-9]), ("compressed, and more", gzipped(good) + bytes(3)),
                ("compressed nonsense", b"\x1f\x8b" + good), ("zeros without end", good + bytes(2 << 20)),
                ("no image", tar_of({"hello": b"x"})), ("a bomb", bomb.tobuf() + bytes(1024)),
                ("a fifo", tar_of({"index.json": device})),
                ("a name of 32 GiB", longname.tobuf(tarfile.GNU_FORMAT) + bytes(1024)),
                ("links in a circle", tar_of(loops)),
                ("a link outside", tar_of({"index.json": link_to("index.json", "/etc/passwd")})),
                ("paths outside", tar_of(outside)),
                ("index not JSON", tar_of({"index.json": b"{"})), ("index a list", tar_of({"index.json": b"[]"})),
                ("index deep", tar_of({"index.json": deep})),
                ("index without end", tar_of({"index.json": b" " * (5 << 20)})),
                ("manifests a number", tar_of({"index.json": b'{"manifests": 3}'})),
                ("manifests empty", tar_of({"index.json": b'{"manifests": []}'})),
                ("manifest.json an object", tar_of({"manifest.json": b"{}"})),
                ("manifest.json of numbers", tar_of({"manifest.json": b"[1]"})),
                ("Layers a string", tar_of({"manifest.json": b'[{"Config": "x", "Layers": "y"}]'})),
                ("many entries", tar_of(dict(members(good), **{"f%d" % number: b"" for number in range(200)})))] + [
                    ("cut at %d" % at, good[:at])
                    for at in (100, 512, 700, 1536, 3000, len(good) // 2, len(good) - 2000)]:
            for option in ("--list-tar", "--verify"):
                with self.subTest(name, option=option), mock.patch.object(imgpull, "MEMBERS_LIMIT", 200):
                    run = self.run_main(option, self.write("bad.tar", data))
                    if option == "--list-tar" or run.err:
                        self.fails(run, "bad.tar", code=5)
                    else:
                        self.assertEqual(run.code, 5, run.out)
                        self.assertIn("bad.tar: ", run.out.decode())
                    self.assertNotIn("root:", run.out.decode() + run.err)
        for path, words in [(self.path("none"), "none"), (self.dir, "directory"), ("/dev/zero", "regular")]:
            for option in ("--list-tar", "--verify"):
                with self.subTest(path, option=option):
                    self.fails(self.run_main(option, path), words, code=2)
        held = members(good)
        held["index.json"] = escapes
        shown = self.check("--list-tar", self.write("escapes.tar", tar_of(held)))
        self.assertFalse(re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown))

    def altered(self, image=IMAGE, layout=b'{"imageLayoutVersion": "1.0.0"}', index=None, docker=None, **more):
        """An archive like ours. index, docker: what its lists hold instead; held: more members."""
        held = {blob_path(sha256(blob)): blob for blob in [image.manifest] + list(image.blobs.values())}
        held.update({"oci-layout": layout, "index.json": to_json({"schemaVersion": 2, "manifests": index or [
            self.entry(image)]})})
        if docker != []:
            held["manifest.json"] = to_json(docker or [self.offer(image)])
        held.update(more.get("held", {}))
        return self.write("altered.tar", tar_of({name: data for name, data in held.items() if data is not None}))

    @staticmethod
    def entry(image, name="docker.io/library/app:v1", **more):
        """A descriptor for index.json; no name, no annotation."""
        notes = {"io.containerd.image.name": name} if name else {}
        return dict(descriptor(image.manifest, image.media_type, annotations=notes), **more)

    @staticmethod
    def offer(image, *names, **more):
        """An entry of manifest.json."""
        return dict({"Config": blob_path(sha256(image.config)), "RepoTags": list(names) or None,
                     "Layers": [blob_path(layer) for layer in image.layers]}, **more)

    def test_images_that_are_listed(self):
        """All that index.json has on top, its indexes (but attestations), and manifest.json."""
        nested = make_index((ATTESTATION, "unknown/unknown"), (ARM, "linux/arm64"))
        held = {blob_path(sha256(blob)): blob for image in (nested, ATTESTATION, ARM, ARMV6) for blob in
                [image.manifest, image.config] + list(image.blobs.values()) if blob}
        unknown = dict(self.entry(ATTESTATION, "evil", platform={"os": "unknown", "architecture": "unknown"}))
        tops = [self.entry(IMAGE, "app"), self.entry(nested, "index")]
        for name, index, docker, listed in [
                ("an index", tops, [], [("app", IMAGE), ("index", ARM)]),
                ("two names", tops + [self.entry(IMAGE, "b"), self.entry(nested, "c")], [],
                 [("app", IMAGE), ("b", IMAGE), ("index", ARM), ("c", ARM)]),
                ("an attestation with a name", tops + [unknown], [],
                 [("app", IMAGE), ("index", ARM), ("index", ATTESTATION), ("evil", ATTESTATION)]),
                ("an attestation in manifest.json", tops, [self.offer(ATTESTATION, "evil")],
                 [("app", IMAGE), ("index", ARM), ("index", ATTESTATION), ("evil", ATTESTATION)]),
                ("one in manifest.json alone", tops, [self.offer(ARMV6, "x", "y"), self.offer(IMAGE, "app", "z")],
                 [("app", IMAGE), ("z", IMAGE), ("index", ARM), ("x", ARMV6), ("y", ARMV6)]),
                ("no name", [self.entry(IMAGE, "")], [], [("", IMAGE)]),
                ("another name for skopeo", [self.entry(IMAGE, "", annotations={
                    "io.containerd.image.name": "app:v1", "org.opencontainers.image.ref.name": "evil:v1"})], [],
                 [("app:v1", IMAGE), ("evil:v1", IMAGE)])]:
            with self.subTest(name):
                path = self.altered(index=index, docker=docker, held=held)
                self.assertEqual(imgpull.verify_archive(path), [])
                self.assertEqual({(image.name, image.image_id) for image in imgpull.list_archive(path)},
                                 {(each, sha256(image.config)) for each, image in listed})

    def test_lists_that_disagree(self):
        """manifest.json with other layers than index.json or the config; descriptors that lie."""
        first, second = IMAGE.layers
        plain = make_image(BIG, b"a small layer", style=OCI._replace(layer="application/vnd.oci.image.layer.v1.tar"))
        layers = lambda *digests: [self.offer(IMAGE, Layers=[blob_path(digest) for digest in digests])]  # noqa: E731
        for name, words, options in [
                ("another order", "other layers", {"docker": layers(second, first)}),
                ("another image's layer", "other layers", {"docker": layers(first, ARM.layers[1]), "held": {
                    blob_path(ARM.layers[1]): ARM.blobs[ARM.layers[1]]}}),
                ("no layers", "other layers", {"docker": layers()}),
                ("another order, no index", "not what the config says", {"docker": layers(second, first), "held": {
                    "index.json": None}}),
                ("no layers, no index", "knows 2 layers", {"docker": layers(), "held": {"index.json": None}}),
                ("another version", "oci-layout", {"layout": b'{"imageLayoutVersion": "2.0.0"}'}),
                ("no version", "oci-layout", {"layout": b"{}"}),
                ("neither layout nor manifest.json", "oci-layout", {"layout": None, "held": {"manifest.json": None}}),
                ("old list alone", "repositories", {"held": {"manifest.json": None, "repositories": b"{}"}}),
                ("an index's type", "media type", {"index": [self.entry(IMAGE, mediaType=OCI.index)]}),
                ("no type", "media type", {"index": [self.entry(IMAGE, mediaType="")]}),
                ("another size", "bytes", {"index": [self.entry(IMAGE, size=7)]}),
                ("gzip said to be plain", "containerd", {"image": plain}),
                ("two spellings", "spelling", {"docker": [self.offer(IMAGE, layers=[])]}),
                ("two spellings in the index", "spelling", {"index": [dict(self.entry(IMAGE), Digest=ARM.digest)]})]:
            with self.subTest(name):
                faults = faults_of(self.altered(**options))
                self.assertRegex("; ".join(faults), words)
        self.assertEqual(faults_of(self.altered(held={"repositories": b'{"app": {"v1": "x"}}'})), [])
        self.assertEqual(faults_of(self.altered(layout=None)), [])

    def test_lower_case(self):
        """Keys in any case, as the Go imgpull writes them."""
        docker = [{key[0].lower() + key[1:]: value for key, value in self.offer(IMAGE, "app:v1").items()}]
        for index in (None, b""):
            path = self.altered(docker=docker, held={"index.json": None} if index is None else {})
            listed, = {image.image_id for image in imgpull.list_archive(path)}
            self.assertEqual((listed, faults_of(path)), (sha256(IMAGE.config), []))

    def test_how_layers_are_packed(self):
        """Whatever docker unpacks is good; what Go's gzip refuses is bad."""
        import bz2
        import lzma
        tar = IMAGE.tars[0]
        for name, layer, words in [
                ("plain", tar, ""), ("two members", gzipped(tar[:999]) + gzipped(tar[999:]), ""),
                ("many members", b"".join(gzipped(tar[at:at + 100]) for at in range(0, len(tar), 100)), ""),
                ("bzip2", bz2.compress(tar), ""), ("xz", lzma.compress(tar), ""),
                ("cut", gzipped(tar)[:-3], "ends too early"), ("no checksum", gzipped(tar)[:-8], "ends too early"),
                ("zeros behind", gzipped(tar) + bytes(512), "gzip"), ("more behind", gzipped(tar) + b"more", "gzip"),
                ("wrong checksum", gzipped(tar)[:-8] + bytes(8), "gzip"),
                ("cut bzip2", bz2.compress(tar)[:-3], "bzip2"),
                ("cut xz", lzma.compress(tar)[:-3], "xz"), ("zeros behind xz", lzma.compress(tar) + bytes(4), "xz"),
                ("other bytes", gzipped(tar[1:]), "not what the config says")]:
            with self.subTest(name):
                image = make_image(BIG, b"a small layer", change=lambda manifest: manifest["layers"].__setitem__(
                    0, descriptor(layer, OCI.layer)))
                image = image._replace(blobs=dict(image.blobs, **{sha256(layer): layer}),
                                       layers=[sha256(layer), image.layers[1]])
                self.assertRegex("; ".join(faults_of(self.altered(image))), words or "^$")

    def test_zstd(self):
        """Without Python 3.14, the digest is all that can be checked, and that is said."""
        layer = b"\x28\xb5\x2f\xfd" + b"not really"
        image = make_image(b"x", change=lambda manifest: manifest["layers"].__setitem__(
            0, descriptor(layer, OCI.layer)))
        path = self.altered(image._replace(blobs=dict(image.blobs, **{sha256(layer): layer}), layers=[sha256(layer)]))
        with mock.patch.dict(sys.modules, {"compression": None}):
            self.assertIn("1 layer not unpacked", self.check("--verify", path))
        zstd = self.write("image.tar.zst", layer)
        with mock.patch.dict(sys.modules, {"compression": None}):
            self.fails(self.run_main("--verify", zstd), "zstd.*unpack it first", code=2)

    def test_compressed_archives(self):
        """An archive that is compressed as a whole is read like the plain one."""
        import bz2
        import lzma
        for make in OTHERS:
            data = make(TWICE)
            plain = imgpull.list_archive(self.write("plain.tar", data))
            for packed in (gzipped(data), bz2.compress(data), lzma.compress(data)):
                with self.subTest(make.__name__, magic=packed[:3]):
                    path = self.write("packed.tgz", packed)
                    self.assertEqual((imgpull.list_archive(path), imgpull.verify_archive(path)), (plain, []))
                    flipped = self.write("flipped.tgz", gzipped(data[:5000] + b"?" + data[5001:]))
                    self.assertEqual(bool(faults_of(flipped)), data[5000:5001] != b"?")

    @unittest.skipUnless(POSIX, "FIFOs")
    def test_pipe(self):
        """A pipe is read like a file; one that nobody writes to is empty, and does not hang."""
        def write():
            with open(theirs, "wb") as file:
                file.write(data)

        fifo, data = self.path("pipe.tar"), read(self.ours())
        os.mkfifo(fifo)
        for option, words in (("--verify", "good"), ("--list-tar", "linux/amd64")):
            self.fails(self.run_main(option, fifo), "empty", code=5)
            ours, theirs = os.pipe()
            writer = threading.Thread(target=write)
            writer.start()
            try:
                self.assertIn(words, self.check(option, "/dev/fd/%d" % ours))
            finally:
                os.close(ours)
                writer.join()

    def test_end(self):
        """Two blocks of zeros, and nothing but zeros behind them."""
        data = read(self.ours(TWICE))
        self.assertEqual(data[-1024:], bytes(1024))
        for extra in (1, 511, 512, 10240 - 1024, 1 << 20):
            self.assertEqual(faults_of(self.write("x.tar", data + bytes(extra))), [], extra)
        for cut in (1, 100, 511, 512, 513, 1000, 1024, 1025):
            self.assertRegex("; ".join(faults_of(self.write("x.tar", data[:-cut]))), "ends too early", cut)
        for place in range(1, 1025, 31):
            flipped = data[:-place] + b"\x01" + data[len(data) - place + 1:]
            self.assertEqual(len(faults_of(self.write("x.tar", flipped))), 1, place)
        for extra in (b"x", bytes(600) + b"x", data):
            self.assertRegex("; ".join(faults_of(self.write("x.tar", data + extra))), "data after its end")

    def test_links_of_docker(self):
        """docker save before version 25 writes links by name, some before their targets."""
        held = members(old_docker(TWICE))
        paths = json.loads(held["manifest.json"].decode())[0]["Layers"]
        held = dict({paths[2]: link_to(paths[2], "../" + paths[0])}, **held)
        self.assertEqual(faults_of(self.write("x.tar", tar_of(held))), [])
        for target in ("../nowhere", "../../" + paths[0], "/" + paths[0], "layer.tar", ".."):
            held[paths[2]] = link_to(paths[2], target)
            self.assertRegex("; ".join(faults_of(self.write("x.tar", tar_of(held)))), "link", target)

    def test_many_names(self):
        """1,000 names of an index of 1,000 images, 100,000 tags: soon done, or refused."""
        config = to_json({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}})
        manifests = [to_json({"schemaVersion": 2, "mediaType": OCI.manifest, "config": descriptor(config, OCI.config),
                              "layers": [], "annotations": {"n": str(number)}}) for number in range(999)]
        index = to_json({"schemaVersion": 2, "mediaType": OCI.index,
                         "manifests": [descriptor(manifest, OCI.manifest) for manifest in manifests]})
        held = {blob_path(sha256(blob)): blob for blob in manifests + [config, index]}
        tops = [descriptor(index, OCI.index, annotations={"io.containerd.image.name": "app:%d" % number})
                for number in range(1000)]
        begun = time.monotonic()
        path = self.altered(index=tops, docker=[], held=held)
        self.assertEqual((len(imgpull.check_archive(path).images), faults_of(path)), (999, []))
        self.fails(self.run_main("--list-tar", path), "more than 10000 names", code=5)
        many = self.altered(docker=[self.offer(IMAGE, *["app:%d" % number for number in range(100000)])])
        self.fails(self.run_main("--verify", many), "more than 10000", code=5)
        several = self.altered(docker=[self.offer(IMAGE, "app:%d" % number) for number in range(5000)])
        self.assertEqual((len(imgpull.list_archive(several)), faults_of(several)), (5001, []))
        self.assertLess(time.monotonic() - begun, 10)

    def test_read_blob(self):
        """A manifest's, a config's or a layer's bytes, as a library."""
        for make in [None] + OTHERS:
            data = make(IMAGE) if make else read(self.ours())
            for path in (self.write("x.tar", data), self.write("x.tgz", gzipped(data))):
                with self.subTest(make and make.__name__, path=path):
                    listed, = imgpull.list_archive(path)
                    for digest in [listed.digest, listed.image_id] + [layer.digest for layer in listed.layers]:
                        self.assertEqual(sha256(imgpull.read_blob(path, digest)), digest)
                    with self.assertRaises(imgpull.NotFound):
                        imgpull.read_blob(path, ARM.digest)
        flip = data.index(IMAGE.blobs[IMAGE.layers[0]]) + 1000
        path = self.write("x.tar", data[:flip] + bytes([data[flip] ^ 1]) + data[flip + 1:])
        with self.assertRaisesRegex(imgpull.Damaged, "digest mismatch"):
            imgpull.read_blob(path, IMAGE.layers[0])

    def test_odd_terminals(self):
        """File names with escape sequences, and a stdout that lacks the letters."""
        index = [self.entry(IMAGE, "app\u20ac:v1")]
        path = self.altered(index=index, docker=[])
        odd = self.path("a\x1b[2J\n\u202e.tar")
        shutil.copy(path, odd)
        for option in ("--verify", "--list-tar"):
            shown = self.check(option, odd)
            self.assertFalse(re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown))
        self.fails(self.run_main("--verify", odd + "\x1b[2J"), "cannot be read", code=2)
        environment = dict(os.environ, PYTHONIOENCODING="ascii", PYTHONPATH=HERE)
        shown = subprocess.check_output([sys.executable, imgpull.__file__, "--list-tar", path], env=environment)
        self.assertIn(b"app\\u20ac:v1", shown)

    def test_how_far(self):
        """Verifying says how far it is, in bytes of the file."""
        for path in (self.ours(), self.write("x.tgz", gzipped(read(self.tar)))):
            steps = []
            reporter = mock.Mock(reading=lambda *step: steps.append(step[1:]))
            imgpull.check_archive(path, reporter=reporter)
            self.assertEqual({total for _, total in steps}, {os.path.getsize(path)})
            self.assertEqual(steps[-1], (os.path.getsize(path),) * 2)
            self.assertEqual(steps, sorted(steps))
            self.assertGreater(steps[-1][0], 200000)


SHARED = noise("shared", 60000)
VERSION1 = make_image(SHARED, b"middle of 1", noise("top of 1", 30000))
VERSION2 = make_image(SHARED, b"middle of 2", noise("top of 1", 30000), b"more")


class TestBaseAndReuse(Case):
    def setUp(self):
        super().setUp()
        self.server = self.serve(VERSION1)
        self.server.add("app", "v2", VERSION2)
        self.base = self.path("base.tar")
        self.pull(self.server, "--name", "app:v1", tar=self.base)
        del self.server.requests[:]

    def fetch(self, *options, expect=0, name="app:v2"):
        return self.pull(self.server, "--name", "app:v2", *options, name=name, expect=expect)

    def test_delta(self):
        """Layers that a base has on top of the same layers are left out, and no others."""
        for make in [None] + OTHERS:
            with self.subTest(make and make.__name__):
                base = self.write("other.tar", make(VERSION1)) if make else self.base
                del self.server.requests[:]
                held = members(self.fetch("--base", base))
                whole = set(VERSION2.blobs) | {VERSION2.digest}
                self.assertEqual({"sha256:" + name[13:] for name in held if "blobs" in name},
                                 whole - {VERSION2.layers[0]})
                entry, = json.loads(held["index.json"].decode())["manifests"]
                self.assertEqual(entry["annotations"]["dev.imgpull.omitted"], VERSION2.layers[0])
                docker, = json.loads(held["manifest.json"].decode())
                self.assertEqual([name[-64:] for name in docker["Layers"]], [layer[7:] for layer in VERSION2.layers])
                self.assertEqual(self.server.sent("layer"), sum(len(VERSION2.blobs[layer]) for layer
                                                                in VERSION2.layers[1:]))
                self.assertRegex(self.said.out.decode(), "1 layer .*left out")
                listed, = imgpull.list_archive(self.tar)
                self.assertEqual(listed.omitted, [VERSION2.layers[0]])
                self.assertIn("left out", self.run_main("--list-tar", self.tar).out.decode())
                run = self.run_main("--verify", self.tar)
                self.assertEqual((run.code, "counts on 1 layer" in run.out.decode()), (0, True), run.out)
                run = self.run_main("--verify", self.tar, "--base", base)
                self.assertEqual((run.code, "counts on" in run.out.decode()), (0, False), run.out)
                self.assertEqual(self.run_main("--verify", self.tar, "--base",
                                               self.write("arm.tar", crane(TWICE))).code, 5)

    def test_all_or_nothing(self):
        """A base that shares nothing, and one that holds everything."""
        plain = self.fetch()
        self.assertEqual(self.fetch("--base", self.write("arm.tar", crane(TWICE))), plain)
        self.assertIn("nothing is left out", self.said.err)
        held = members(self.fetch("--base", self.base, name="app:v1"))
        self.assertEqual({"sha256:" + name[13:] for name in held if "blobs" in name},
                         {VERSION1.digest, sha256(VERSION1.config)})
        held = members(self.fetch("--base", self.write("arm.tar", crane(TWICE)), "--base", self.base))
        self.assertNotIn(blob_path(VERSION2.layers[0]), held)

    def test_bad_base(self):
        """A base that is none: an error before any layer is fetched; nothing left."""
        good = read(self.base)
        flip = good.index(VERSION1.blobs[VERSION1.layers[0]]) + 1000
        for name, data in [("missing", None), ("empty", b""), ("truncated", good[:len(good) // 2]),
                           ("no archive", b"hello" * 1000),
                           ("corrupted", good[:flip] + b"?" + good[flip + 1:])]:
            for option in ("--base",) if name == "corrupted" else ("--base", "--reuse"):
                with self.subTest(name, option=option):
                    path = self.path("none.tar") if data is None else self.write("bad.tar", data)
                    code = 2 if data is None else 5
                    words = "cannot be used as a base: .*digest" if name == "corrupted" else "none.tar|bad.tar"
                    self.fails(self.fetch(option, path, expect=code), words, code=code)
                    self.assertEqual((self.server.sent("layer"), self.left()), (0, []))

    def test_reuse(self):
        """Blobs copied instead of fetched: the same bytes as a plain pull."""
        plain = self.fetch()
        for make in (None, crane, oci_archive, lambda image: gzipped(oci_archive(image))):
            with self.subTest(make and make.__name__):
                del self.server.requests[:]
                reuse = self.write("other.tar", make(VERSION1)) if make else self.base
                self.assertEqual(self.fetch("--reuse", reuse), plain)
                missing = set(VERSION2.blobs) - set(VERSION1.blobs)
                self.assertEqual(self.server.sent("layer", "config"),
                                 sum(len(VERSION2.blobs[digest]) for digest in missing))
                self.assertEqual(self.pull(self.server, "--name", "app:v2", "--reuse", reuse, name="app:v2",
                                           tar="-").out, plain)
        self.assertEqual(self.fetch("--reuse", self.write("old.tar", old_docker(VERSION1))), plain)

    def test_reuse_of_wrong_bytes(self):
        """The right name and wrong bytes: not trusted, fetched instead, and said."""
        plain, good = self.fetch(), read(self.base)
        flip = good.index(VERSION1.blobs[VERSION1.layers[0]]) + 1000
        reuse = self.write("bad.tar", good[:flip] + bytes([good[flip] ^ 1]) + good[flip + 1:])
        self.assertEqual(self.fetch("--reuse", reuse), plain)
        self.assertIn("bad.tar", self.said.err)
        self.assertEqual(self.pull(self.server, "--name", "app:v2", "--reuse", reuse, name="app:v2", tar="-").out,
                         plain)

    def test_several(self):
        """Deltas of several images and of all platforms."""
        names = ["%s/app:%s" % (self.server.host, tag) for tag in ("v1", "v2")]
        run = self.run_main("--scheme", "http", "--base", self.base, *(names + [self.tar]))
        self.assertEqual(run.code, 0, run.err)
        self.assertFalse({blob_path(layer) for layer in VERSION1.layers[:2]} & set(members(read(self.tar))))
        self.server.add("app", "all", make_index((VERSION2, "linux/amd64"), (ARM, "linux/arm64")))
        held = members(self.fetch("--platform", "all", "--base", self.base, name="app:all"))
        self.assertNotIn(blob_path(VERSION2.layers[0]), held)
        self.assertIn(blob_path(ARM.layers[0]), held)
        self.assertEqual(imgpull.verify_archive(self.tar, base=[self.base]), [])

    def test_chain(self):
        """A delta on a delta: what the first left out counts as there; --verify wants all bases."""
        third = make_image(SHARED, b"middle of 2", b"quite new")
        self.server.add("app", "v3", third)
        second = self.path("delta2.tar")
        self.pull(self.server, "--base", self.base, name="app:v2", tar=second)
        delta = self.path("delta3.tar")
        held = members(self.pull(self.server, "--base", second, name="app:v3", tar=delta))
        self.assertEqual({"sha256:" + name[13:] for name in held if "blobs" in name},
                         {third.digest, sha256(third.config), third.layers[2]})
        self.assertEqual(imgpull.check_archive(delta).needed, 2)
        self.assertEqual(imgpull.verify_archive(delta, base=[self.base, second]), [])
        self.assertEqual(imgpull.check_archive(delta, base=[self.base, second]).needed, 0)
        for base in ([self.base], [second]):
            self.assertRegex(" ".join(imgpull.verify_archive(delta, base=base)), "in no --base")
        packed = self.write("delta2.tgz", gzipped(read(second)))
        self.assertEqual(members(self.pull(self.server, "--base", packed, name="app:v3", tar=delta)), held)

    def test_omissible(self):
        """Layers that a base has on top of the same layers, wherever they stand."""
        Layers = namedtuple("Layers", "layers")
        Digest = namedtuple("Digest", "digest")
        for base, held, images, omitted in [
                ("abc", "abc", ["abc"], "ABC"), ("abc", "abc", ["abd"], "AB"), ("abc", "abc", ["bc"], ""),
                ("abc", "abc", ["abcd"], "ABC"), ("abc", "bc", ["abc"], "BC"), ("abc", "ABC", ["abc"], "ABC"),
                ("aba", "ab", ["aba"], "AB"), ("aba", "ab", ["abaa"], "B"), ("abc", "abc", ["abc", "b"], "AC"),
                ("abc", "abc", [""], ""), ("", "abc", ["abc"], ""), ("ab", "ab", ["ab", "a"], "AB")]:
            with self.subTest(base=base, held=held, images=images):
                pairs = [(Layers([Digest(letter.upper()) for letter in image]), list(image)) for image in images]
                self.assertEqual(imgpull.omissible(pairs, imgpull.Base([list(base)], frozenset(held))), set(omitted))
        base = imgpull.Base([["a"]], frozenset("aA"))
        self.assertEqual(imgpull.omissible([(Layers([Digest("A")]), [])], base), set())

    def test_source_pieces(self):
        """A part of a local file, compressed or not; it ends early where the file does."""
        view, data = memoryview(bytearray(1000)), noise("source", 5000)
        packed = gzipped(data)
        for name, content, whole in [("plain", data, 5000), ("gzip", packed, 5000), ("cut", data[:2000], 1990),
                                     ("cut gzip", packed[:4000], None), ("empty", b"", 0)]:
            with self.subTest(name):
                source = imgpull.Source(self.write("source", content), 10, 4000)
                got = b"".join(bytes(piece) for piece in imgpull.source_pieces(source, view))
                self.assertEqual(got, data[10:10 + len(got)])
                self.assertTrue(len(got) == min(4000, whole) if whole is not None else len(got) < 4000)
        with self.assertRaises(OSError):
            list(imgpull.source_pieces(imgpull.Source(self.path("none"), 0, 1), view))


def unpack(data, directory):
    """What "tar xf" makes of an archive."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extraction_filter = lambda member, path: member
        tar.extractall(directory)
    return directory


class TestArchivesOnTheCommandLine(Case):
    """--list-tar and --verify of several archives, of standard input and of directories; digests; --json."""

    def setUp(self):
        super().setUp()
        self.server = self.serve(INDEX)
        self.one = self.path("one.tar")
        self.pull(self.server, "--platform", "linux/amd64", tar=self.one)
        self.name = self.server.host + "/app:v1"
        self.two = self.write("two.tar", crane(TWICE))

    def run_with_stdin(self, data, *argv):
        """imgpull with bytes, or a file, as standard input: (exit status, stdout, stderr)."""
        given = {"stdin": data} if hasattr(data, "fileno") else {"input": data}
        run = subprocess.run([sys.executable, imgpull.__file__] + list(argv), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, **given)
        return Run(run.returncode, run.stdout, run.stderr.decode())

    def test_several(self):
        """Each line says which archive it is about; one that cannot be read does not keep back the others."""
        for argv, code, out, err in selected([
                ("-l {one} {two}", 0, ["one.tar:", "two.tar:", "app:v1", "index", "image ID"], ""),
                ("-l {one} -l {two}", 0, ["one.tar:", "two.tar:"], ""),
                ("-l {one} {none} {two}", 2, ["one.tar:", "two.tar:"], "none.tar cannot be read"),
                ("--verify {one} {two}", 0, ["one.tar: good", "two.tar: good", "one.tar:   image ID"], ""),
                ("--verify {none} {bad} {two}", 2, ["bad.tar: bad: .*digest", "two.tar: good"], "none.tar"),
                ("--verify {two} {bad}", 5, ["two.tar: good", "bad.tar: bad"], ""),
                ("-q --verify {one}", 0, ["app:v1@sha256:"], ""),
                ("-q --verify {bad}", 5, ["bad.tar: bad"], ""),
                ("-l {one} --verify {two}", 2, [], "either --list-tar, or --verify"),
                ("-l", 2, [], "expected one argument"), ("--verify {one} --base -", 2, [], "not standard input"),
                ("--reuse - {name} {dir}/x.tar", 2, [], "not standard input")]):
            data = read(self.one)
            place = data.index(IMAGE.blobs[IMAGE.layers[0]]) + 500
            self.write("bad.tar", data[:place] + bytes([data[place] ^ 1]) + data[place + 1:])
            places = dict({each: self.path(each + ".tar") for each in ("one", "two", "bad", "none")}, dir=self.dir,
                          name=self.name)
            with self.subTest(argv):
                run = self.run_main(*argv.format(**places).split())
                self.assertEqual(run.code, code, run)
                for word in out:
                    self.assertRegex(run.out.decode(), word)
                if err:
                    self.fails(run, err, code=code)
                else:
                    self.assertEqual(run.err, "")
                if "verify" in argv and "-q" not in argv:
                    for line in run.out.decode().splitlines():
                        self.assertRegex(line, r"^\S+\.tar: ")

    @unittest.skipUnless(POSIX, "/dev/stdin, closed descriptors")
    def test_standard_input(self):
        data = read(self.one)
        with open(self.one, "rb") as file:
            for given, code, words in selected([
                    (data, 0, "standard input: good"), (gzipped(data), 0, "standard input: good"),
                    (file, 0, "standard input: good"), (data[:5000], 5, "standard input is not .* ends too early"),
                    (b"", 5, "standard input is not .* empty")]):
                for argv in (["--verify", "-"], ["-q", "-l", "-"]):
                    with self.subTest(words, argv=argv):
                        run = self.run_with_stdin(given, *argv)
                        self.assertEqual(run.code, code, run)
                        wanted = self.name + "@" + IMAGE.digest if "-l" in argv and not code else words
                        self.assertRegex(run.out.decode() + run.err, wanted)
        run = self.run_with_stdin(data, "--verify", self.two, "-", self.one)
        self.assertEqual((run.code, len(re.findall(": good: ", run.out.decode()))), (0, 3), run)
        with open(os.devnull) as null:
            self.assertIn("regular file", self.run_with_stdin(null, "-l", "-").err)

    def test_directories(self):
        """An unpacked archive is what the archive is: listed, verified, built upon, reused."""
        makers = [lambda image: read(self.one)] + OTHERS
        for number, make in enumerate(makers):
            with self.subTest(number):
                data = make(IMAGE)
                packed = self.write("packed.tar", data)
                directory = unpack(data, self.path("unpacked%d" % number))
                facts = [[image._replace(layers=[layer[:4] for layer in image.layers])
                          for image in imgpull.list_archive(path)] for path in (packed, directory)]
                self.assertEqual(facts[0], facts[1])
                self.assertEqual(imgpull.verify_archive(directory), [])
                listed, = imgpull.list_archive(directory)
                for layer in listed.layers:
                    self.assertEqual(sha256(imgpull.read_blob(directory, layer.digest)), layer.digest)
        directory = self.path("unpacked0")
        for options in (["--reuse", directory], ["--base", directory]):
            del self.server.requests[:]
            held = members(self.pull(self.server, *options))
            self.assertEqual(self.server.sent("layer"), 0)
            self.assertEqual(blob_path(IMAGE.layers[0]) in held, "--reuse" in options)
        run = self.run_main("--verify", self.tar, "--base", directory)
        self.assertEqual((run.code, "good" in run.out.decode()), (0, True), run)

    def test_bad_directories(self):
        """What a directory may have and an archive of images not; nothing outside of it is read."""
        layer = blob_path(IMAGE.layers[0])

        def flip(path):
            data = read(path)
            with open(path, "wb") as file:
                file.write(data[:500] + bytes([data[500] ^ 1]) + data[501:])

        def link(target):
            def replace(path):
                os.rename(path, self.path("moved"))
                os.symlink(target, path)
            return replace

        def fifo(path):
            os.remove(path)
            os.mkfifo(path)

        for name, member, change, code, words in selected([
                ("a flipped bit", layer, flip, 5, "digest mismatch"),
                ("a missing layer", layer, os.remove, 5, "is not there"),
                ("cut", layer, lambda path: os.truncate(path, 100), 5, "has 100 bytes"),
                ("a link out", layer, link(self.path("moved")), 5, "link out of the archive"),
                ("a link up", layer, link("../../../moved"), 5, "link out of the archive"),
                ("a list that is a link", "index.json", link("/etc/passwd"), 5, "link out of the archive"),
                ("a link to a directory", layer, link("../../blobs"), 5, "not a file earlier"),
                ("blobs elsewhere", "blobs", link(self.path("moved")), 5, "link out of the archive"),
                ("a link within", layer, link("../../copy"), 0, "good"),
                ("a FIFO", layer, fifo, 5, "neither file, directory nor link"),
                ("an old list alone", "index.json", os.remove, 0, "good"),
                ("a list without end", "index.json", lambda path: os.truncate(path, (32 << 20) + 1), 5, "more than")]):
            with self.subTest(name):
                shutil.rmtree(self.path("d"), True)
                self.addCleanup(shutil.rmtree, self.path("moved"), True)
                directory = unpack(read(self.one), self.path("d"))
                shutil.copy(self.path("d", layer), self.path("d", "copy"))
                change(self.path("d", *member.split("/")))
                run = self.run_main("--verify", directory)
                self.assertEqual(run.code, code, run)
                self.assertRegex(run.out.decode() + run.err, words)
                self.assertNotIn("root:", run.out.decode() + run.err)
                shutil.rmtree(self.path("moved"), True)
                with contextlib.suppress(FileNotFoundError):
                    os.remove(self.path("moved"))
        with mock.patch.object(imgpull, "MEMBERS_LIMIT", 5):
            self.fails(self.run_main("-l", unpack(read(self.one), self.path("e"))), "more than 5 members", code=5)
        self.fails(self.run_main("--verify", self.dir), "no index.json", code=2)

    def test_digests_meet(self):
        """What -q of the pull prints is what -q -l prints, and the far side finds the index's digest."""
        names = [self.name, self.server.add("app", "v2", ARM), self.server.add("app", "again", INDEX)]
        for options in selected([["--platform", each] for each in ("linux/amd64", "all", "linux/amd64,linux/arm64")]):
            with self.subTest(options):
                wanted = names if options[1] == "all" else names[::2]
                run = self.run_main("-q", "--scheme", "http", *(options + wanted + [self.tar]))
                self.assertEqual(run.code, 0, run.err)
                self.assertEqual(self.run_main("-q", "-l", self.tar).out, run.out)
                for image in imgpull.list_archive(self.tar):
                    self.assertEqual(image.source_digest, INDEX.digest if image.name != names[1] else None)
        self.assertIn("index     " + INDEX.digest, self.run_main("-l", self.one).out.decode())
        self.assertIn("index     " + INDEX.digest, self.run_main("--verify", self.one).out.decode())
        entry, = json.loads(members(read(self.one))["index.json"].decode())["manifests"]
        self.assertEqual((entry["digest"], entry["annotations"]["dev.imgpull.source"]), (IMAGE.digest, INDEX.digest))
        self.pull(self.server, name="app@" + INDEX.digest)
        self.assertRegex(self.said.err, "is an index: taking linux/amd64, " + IMAGE.digest)
        self.pull(self.server, name="app@" + IMAGE.digest)
        self.assertNotIn("is an index", self.said.err)

    def test_order_of_names(self):
        """In the order of index.json, also where one image has several names."""
        names = [self.name, self.server.add("app", "v2", ARM), self.server.add("app", "again", INDEX)]
        run = self.run_main("-q", "--scheme", "http", *(names + [self.tar]))
        self.assertEqual((run.code, [line.split("@")[0] for line in run.out.decode().splitlines()]), (0, names))
        self.assertEqual([image.name for image in imgpull.list_archive(self.tar)], names)

    def test_sizes(self):
        """Each layer's size, and the image's: not the whole archive's."""
        shown = self.run_main("-l", self.one, self.two).out.decode()
        for image in (IMAGE, TWICE):
            total = sum(len(image.blobs[layer]) for layer in image.layers)
            self.assertIn("layers    %d, %s" % (len(image.layers), imgpull.human(total)), shown)
            for layer in image.layers:
                self.assertRegex(shown, layer + " +" + re.escape(imgpull.human(len(image.blobs[layer]))) + "\n")

    def json(self, *argv, code=0):
        run = self.run_main("--json", *argv)
        self.assertEqual(run.code, code, run)
        return json.loads(run.out.decode())

    def test_json(self):
        for option in ("--list-tar", "--verify"):
            with self.subTest(option):
                document = self.json(option, self.one, self.two)
                self.assertEqual((document["schema"], len(document["archives"])), (1, 2))
                archive = document["archives"][0]
                self.assertEqual((archive["archive"], archive["faults"]), (self.one, []))
                image, = archive["images"]
                layers = [{"digest": digest, "size": len(IMAGE.blobs[digest]), "omitted": False, "diff_id": sha256(tar)}
                          for digest, tar in zip(IMAGE.layers, IMAGE.tars)]
                self.assertEqual(image, {
                    "name": self.name, "digest": IMAGE.digest, "source_digest": INDEX.digest,
                    "image_id": sha256(IMAGE.config), "platform": "linux/amd64", "referrers": [], "layers": layers,
                    "size": sum(layer["size"] for layer in layers)})
                self.assertEqual("checked" in archive, option == "--verify")
        self.assertEqual(archive["checked"], sum(map(len, members(read(self.one)).values())))
        self.server.add("app", "v1", VERSION1)
        base = self.path("base.tar")
        self.pull(self.server, tar=base)
        self.server.add("app", "v1", VERSION2)
        self.pull(self.server, "--base", base)
        archive, = self.json("--verify", self.tar)["archives"]
        image, = archive["images"]
        self.assertEqual((archive["needed"], [layer["omitted"] for layer in image["layers"]]),
                         (1, [True, False, False, False]))
        self.assertEqual(image["size"], sum(len(VERSION2.blobs[layer]) for layer in VERSION2.layers[1:]))
        self.assertEqual(self.json("--verify", self.tar, "--base", base)["archives"][0]["needed"], 0)

    def test_codes_of_faults(self):
        held = members(read(self.one))
        layer, config, manifest = [blob_path(each) for each in (IMAGE.layers[0], sha256(IMAGE.config), IMAGE.digest)]
        none, index = {"schemaVersion": 2}, json.loads(held["index.json"].decode())
        for what, changes, codes in selected([
                ("a layer is gone", {layer: None}, {"missing"}), ("a config is gone", {config: None}, {"missing"}),
                ("the manifest is gone", {manifest: None}, {"missing"}),
                ("a flipped layer", {layer: flipped(held[layer])}, {"digest"}),
                ("a flipped config", {config: flipped(held[config])}, {"digest"}),
                ("a flipped manifest", {manifest: flipped(held[manifest])}, {"digest"}),
                ("more of a layer", {layer: held[layer] + b"x"}, {"size", "digest"}),
                ("another version", {"oci-layout": b'{"imageLayoutVersion": "2"}'}, {"index"}),
                ("a type", {"index.json": to_json(dict(none, manifests=[dict(
                    index["manifests"][0], mediaType=OCI.index)]))}, {"type"}),
                ("no image", {"index.json": to_json(dict(none, manifests=[])), "manifest.json": None}, {"index"}),
                ("no JSON", {"index.json": b"{"}, {"archive"}), ("no list", {"index.json": None, "manifest.json": None},
                                                                  {"archive"})]):
            with self.subTest(what):
                changed_ = {name: data for name, data in dict(held, **changes).items() if data is not None}
                archive, = self.json("--verify", self.write("x.tar", tar_of(changed_)), code=5)["archives"]
                self.assertLessEqual(codes, {fault["code"] for fault in archive["faults"]})
                self.assertLessEqual({fault["code"] for fault in archive["faults"]}, codes | {"missing", "index"})
        archive, = self.json("--verify", self.path("none.tar"), code=2)["archives"]
        self.assertEqual([fault["code"] for fault in archive["faults"]], ["archive"])
        self.pull(self.server, "--base", self.one)
        archive, = self.json("--verify", self.tar, "--base", self.two, code=5)["archives"]
        self.assertEqual({fault["code"] for fault in archive["faults"]}, {"base"})

    def test_long_lists(self):
        """index.json and manifest.json of more than 4 MiB, as a bundle of thousands of images has them."""
        held = members(read(self.one))
        entry, = json.loads(held["index.json"].decode())["manifests"]
        offer, = json.loads(held["manifest.json"].decode())
        noted = dict(entry["annotations"], note="x" * 1000)
        many = [dict(entry, annotations=dict(noted, **{"io.containerd.image.name": "app:%d" % number}))
                for number in range(6000)]
        held["index.json"] = to_json({"schemaVersion": 2, "manifests": many})
        held["manifest.json"] = to_json([dict(offer, Note="x" * (5 << 20))])
        path = self.write("many.tar", tar_of(held))
        for packed in (path, self.write("many.tgz", gzipped(read(path)))):
            self.assertEqual((imgpull.verify_archive(packed), len(imgpull.list_archive(packed))), ([], 6002))

    def test_progress(self):
        """What the live line says; of a pipe, nobody knows the size."""
        reporter = imgpull.Terminal(False, False)
        reporter.reading("standard input", 0, 0)
        self.assertEqual(reporter.parts(5000, 100.0), ["5.0 kB", "standard input", "100 B/s"])
        reporter.reading("x" * 100 + ".tar", 10, 1000)
        self.assertEqual(reporter.parts(250, 10.0),
                         [" 25%", "250 B of 1.0 kB", "1m15s left", "x" * 20 + ".tar", "10 B/s"])

    def test_bases_of_a_pull(self):
        """A pull tells how far it has read its bases."""
        steps = []

        class Steps(imgpull.Reporter):
            def reading(self, name, done, total):
                steps.append((name, done, total))
        imgpull.pull(self.name, self.tar, base=[self.one], scheme="http", reporter=Steps())
        size = os.path.getsize(self.one)
        self.assertEqual((steps[-1], len(steps) > 2), ((self.one, size, size), True))


# --- hostile archives ------------------------------------------------------------------------------------------------
# Python's tarfile and Go's archive/tar (docker, podman, containerd, skopeo) read some headers
# differently, and so do their JSON readers. Here are archives that show one image to the one and
# another to the other, or that some runtime does not load. `.ci/interop.py hostile` gives the same
# tables to the real loaders.

GNU, USTAR, V7 = b"ustar  \0", b"ustar\x0000", bytes(8)  # magic and version
ROW = os.environ.get("IMGPULL_ROW", "")
DOCUMENTS = {"layout": "oci-layout", "index": "index.json", "manifest": "manifest.json"}


def only(table):
    """The rows whose name has $IMGPULL_ROW in it: one row can be run alone."""
    return [row for row in table if ROW in row.name]


def tar_header(name, size=0, kind=b"0", link="", magic=GNU, tail=b"", number=b"%011o\0"):
    """A tar header, 512 bytes.

    tail: from byte 345 on, where ustar has the prefix and GNU the times; number: the size's format
    """
    mode_and_owner = b"0000644\0" + b"0000000\0" * 2
    head = struct.pack("100s24s12s12s8s1s100s8s80x167s", name.encode(), mode_and_owner,
                       number % size, b"00000000000\0", b" " * 8, kind, link.encode(), magic, tail)
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]


def entry(name, data=b"", **fields):
    """A member of a tar: its header, and its data in whole blocks."""
    return tar_header(name, len(data), **fields) + data + bytes(-len(data) % 512)


def entries(held):
    """The members of {name: bytes}."""
    return b"".join(entry(name, data) for name, data in held.items())


def link(name, target):
    """A hard link."""
    return entry(name, kind=b"1", link=target)


def symlink(name, target):
    return entry(name, kind=b"2", link=target)


def pax(records, kind=b"x"):
    """An extended header of {key: value}; kind b"g" for a global one."""
    data = ""
    for key, value in records.items():
        rest = " %s=%s\n" % (key, value)
        length = len(rest) + 1
        while len(str(length) + rest) > length:     # the length counts its own digits
            length += 1
        data += str(length) + rest
    return entry("pax", data.encode(), kind=kind, magic=USTAR)


def long_name(name, kind=b"L"):
    """GNU's header before a member with a long name; kind b"K" for a long link."""
    return entry("././@LongLink", name.encode() + b"\0", kind=kind)


def named(image, name, **more):
    """An image's entry in index.json."""
    notes = {"io.containerd.image.name": name,
             "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    notes.update(more.pop("annotations", {}))
    return descriptor(image.manifest, image.media_type, annotations=notes, **more)


def index_json(*descriptors, **more):
    return to_json(dict({"schemaVersion": 2, "manifests": list(descriptors)}, **more))


def offered(image, name, **more):
    """An image's entry in manifest.json."""
    return dict({"Config": blob_path(sha256(image.config)), "RepoTags": [name],
                 "Layers": [blob_path(layer) for layer in image.layers]}, **more)


def blobs(*images):
    """{name: bytes} of the manifests, configs and layers of images."""
    return {blob_path(sha256(blob)): blob for image in images
            for blob in [image.manifest] + list(image.blobs.values())}


def documents(image):
    """{name: bytes} of what names an image in an archive as imgpull writes it."""
    return {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            "index.json": index_json(named(image, APP)),
            "manifest.json": to_json([offered(image, APP)])}


def archive_of(image, **changes):
    """An archive as imgpull writes it, but for changes.

    index, manifest, layout: bytes of these documents, None where there is none; extra: members
    between the blobs and the documents; end: what comes last
    """
    end, extra = changes.pop("end", bytes(1024)), changes.pop("extra", b"")
    held = documents(image)
    for key, data in changes.items():
        held[DOCUMENTS[key]] = data
    held = {name: data for name, data in held.items() if data is not None}
    return entries(blobs(image)) + extra + entries(held) + end


def disguised(disguise):
    """EVIL's index.json and manifest.json as disguise(name, data) writes them."""
    evil = documents(EVIL)
    return b"".join(disguise(name, evil[name]) for name in ("index.json", "manifest.json"))


def evil_last(disguise):
    """SAFE's archive, and then EVIL's documents: docker and containerd take the last of a name."""
    return BOTH + archive_of(SAFE, end=disguised(disguise) + bytes(1024))


def evil_first(disguise):
    """EVIL's documents before SAFE's: skopeo and podman take the first of a name."""
    return BOTH + archive_of(SAFE, extra=disguised(disguise))


def oldest_format(image):
    """{name: bytes} of an image's first layer in docker's oldest format.

    docker loads it where there is no manifest.json. It takes every directory for a layer, hence
    the name blobs.
    """
    about = {"os": "linux", "architecture": "amd64", "created": "2024-01-01T00:00:00Z"}
    return {"blobs/VERSION": b"1.0", "blobs/json": to_json(about), "blobs/layer.tar": image.tars[0],
            "repositories": to_json({"evil": {"v1": "blobs"}})}


def remade(image, **changes):
    """An image with a changed manifest. layers_data: its layers' bytes, where they change, too."""
    layers = changes.pop("layers_data", [image.blobs[layer] for layer in image.layers])
    manifest = to_json(dict(json.loads(image.manifest.decode()), **changes))
    return image._replace(manifest=manifest, digest=sha256(manifest),
                          layers=[sha256(layer) for layer in layers],
                          blobs={sha256(blob): blob for blob in [image.config] + layers})


def repacked(image, pack):
    """An image whose layers are compressed in another way: pack(tar) makes their bytes."""
    layers = [pack(tar) for tar in image.tars]
    return remade(image, layers=[descriptor(layer, OCI.layer) for layer in layers],
                  layers_data=layers)


def with_types(image, part, media_type):
    """An image whose manifest gives this media type to its config or to its layers."""
    content = json.loads(image.manifest.decode())[part]
    for each in [content] if part == "config" else content:
        each["mediaType"] = media_type
    return remade(image, **{part: content})


def compressed(tar, kind):
    """A layer as bz2 or xz."""
    import bz2
    import lzma
    return {"bz2": bz2, "xz": lzma}[kind].compress(tar)


def with_tarfile(held, **options):
    """A tar of {name: bytes} as Python's tarfile writes it; options: its own, and mtime."""
    out, mtime = io.BytesIO(), options.pop("mtime", 0)
    with tarfile.open(fileobj=out, mode="w", **options) as tar:
        for name, data in held.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), mtime
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def each_as(write):
    """SAFE's archive with each of its members as write(name, data) writes it."""
    return b"".join(write(name, data) for name, data in HELD.items()) + bytes(1024)


def flipped_at(data, place):
    place %= len(data)
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1:]


def header_of(data, name):
    """Where in a tar the header of a member lies."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmember(name).offset


APP, OTHER = "docker.io/library/app:v1", "docker.io/library/evil:v2"
SAFE, EVIL = make_image(b"safe", b"second"), make_image(b"evil", b"more evil")
SAFE_OFFER, EVIL_OFFER = offered(SAFE, APP), offered(EVIL, APP)
SAFE_JSON, EVIL_JSON = to_json([SAFE_OFFER]), to_json([EVIL_OFFER])
EVIL_MANIFEST = json.loads(EVIL.manifest.decode())
PLAIN, BOTH = archive_of(SAFE), entries(blobs(EVIL))
HELD = dict(blobs(SAFE), **documents(SAFE))
LONG = dict({"a" * 90 + "/" + "b" * 90: b"x"}, **HELD)
CHART = "application/vnd.cncf.helm."
UNKNOWN = {"os": "unknown", "architecture": "unknown"}
ATTESTS = {"vnd.docker.reference.type": "attestation-manifest",
           "vnd.docker.reference.digest": SAFE.digest}
TWO_KINDS = remade(SAFE, manifests=[descriptor(EVIL.manifest, OCI.manifest)])
TRADED = remade(SAFE, layers=EVIL_MANIFEST["layers"],
                layers_data=[EVIL.blobs[layer] for layer in EVIL.layers])
# Behind atime, ctime and more: one piece from 0 on, of 512 bytes, and the size of the whole.
GNU_SPARSE = bytes(41) + b"%011o\0%011o\0" % (0, 512) + bytes(73) + b"%011o\0" % 512

Hostile = namedtuple("Hostile", "name words evil archive")
Good = namedtuple("Good", "name archive")

# EVIL's documents behind SAFE's archive, under names that Python takes for others.
DISGUISES = [
    ("global header with a path", "global",
     lambda name, data: pax({"path": "hidden"}, b"g") + entry(name, data)),
    ("GNU.sparse.name alone", "sparse",
     lambda name, data: pax({"GNU.sparse.name": "hidden"}) + entry(name, data)),
    ("sparse file, as pax has it", "sparse",
     lambda name, data: pax({"GNU.sparse.map": "0,%d" % len(data), "GNU.sparse.numblocks": "1",
                             "GNU.sparse.size": str(len(data)), "GNU.sparse.name": name})
     + entry("x", data)),
    ("GNU header with atime", "prefix",
     lambda name, data: entry(name, data, tail=b"14000000000\0")),
    ("prefix without magic", "prefix",
     lambda name, data: entry(name, data, magic=V7, tail=b"hidden")),
    ("star's shorter prefix", "prefix",  # 131 bytes, then two times; Python reads 155
     lambda name, data: entry(name, data, magic=USTAR, tail=b"./" * 65 + b"." + b"14000000000 " * 2
                              + bytes(8) + b"tar\0")),
    ("pax path before a GNU long name", "several headers",
     lambda name, data: pax({"path": "hidden"}) + long_name(name) + entry("x", data)),
    ("two pax headers", "several headers",
     lambda name, data: pax({"path": "hidden"}) + pax({"path": name}) + entry("x", data)),
    ("two GNU long names", "several headers",
     lambda name, data: long_name("hidden") + long_name(name) + entry("x", data)),
    ("pax header before a global one", "several headers",
     lambda name, data: pax({"path": "hidden"}) + pax({"comment": "x"}, b"g") + entry(name, data)),
    ("empty pax path", "path=",
     lambda name, data: pax({"path": ""}) + entry(name, data)),
    ("directory by its header, file by its pax path", "name of a directory",
     lambda name, data: pax({"path": name}) + entry("x/", data, kind=b"\0")),
    ("absolute names", "absolute", lambda name, data: entry("/" + name, data)),
    ("the same name twice, the evil one last", "twice", entry),
]

# EVIL's documents before SAFE's.
DISGUISES_FIRST = [
    ("GNU long name before a pax path", "several headers",
     lambda name, data: long_name(name) + pax({"path": "hidden"}) + entry("x", data)),
    ("the same name twice", "twice", entry),
    ("the same name twice, once with ./", "twice", lambda name, data: entry("./" + name, data)),
    ("a member of an unknown type", "type", lambda name, data: entry(name, data, kind=b"Z")),
]

# manifest.json as a link, that some follow to EVIL's, and some to SAFE's.
LINKS = [
    ("hard link whose target is replaced later", "twice", True,
     entry("a", EVIL_JSON) + link("manifest.json", "a") + entry("a", SAFE_JSON)),
    ("symlink whose target is replaced later", "twice", True,
     entry("a", EVIL_JSON) + symlink("manifest.json", "a") + entry("a", SAFE_JSON)),
    ("hard link to something later", "link", False,
     link("manifest.json", "a") + entry("a", SAFE_JSON)),
    ("pax linkpath before a GNU long link", "several headers", True,
     entry("a", EVIL_JSON) + entry("b", SAFE_JSON) + pax({"linkpath": "b"}) + long_name("a", b"K")
     + link("manifest.json", "x")),
    ("a directory that becomes a symlink", "below", True,
     entry("d/manifest.json", SAFE_JSON) + entry("e/manifest.json", EVIL_JSON) + symlink("d", "e")
     + symlink("manifest.json", "d/manifest.json")),
    ("a link through a symlink", "link", True,
     entry("y/manifest.json", SAFE_JSON) + entry("e/manifest.json", EVIL_JSON) + entry("e/f/x")
     + symlink("y/z", "../e/f") + symlink("manifest.json", "y/z/../manifest.json")),
    ("docker's oldest format beside index.json", "repositories", True,
     entries(oldest_format(EVIL))),
]

# SAFE's archive with one more member.
EXTRAS = [
    ("a name with ..", "leads out", False, entry("../x")),
    ("a name with .. inside", "leads out", True, entry("a/../manifest.json", EVIL_JSON)),
    ("a name longer than file systems take", "long", False, long_name("b" * 256) + entry("x")),
    ("a contiguous file", "type", False, entry("x", kind=b"7")),
    ("a sparse file", "sparse", False, entry("x", bytes(512), kind=b"S", tail=GNU_SPARSE)),
    ("a size with a sign", "impossible number", False, entry("x", number=b"+%010o\0")),
    ("a pax record of a wrong length", "pax header is damaged", False,
     entry("pax", b"12 path=xyz", kind=b"x", magic=USTAR) + entry("x")),
    ("NUL in a pax key", "pax header", False, pax({"SCHILY.xattr.user.\0x": "y"}) + entry("x")),
]

# SAFE's archive with other documents. Go's JSON folds the case of keys, and the last one wins.
CHANGES = [
    ("keys that differ in case: manifest.json", "spelling", True, dict(manifest=to_json([
        offered(SAFE, APP, config=EVIL_OFFER["Config"], layers=EVIL_OFFER["Layers"])]))),
    ("keys that differ in case: index.json", "spelling", True, dict(
        index=index_json(named(SAFE, APP), Manifests=[named(EVIL, APP)]))),
    ("keys that differ in a long s", "spelling", True, dict(
        index=index_json(named(SAFE, APP), **{"manifest\u017f": [named(EVIL, APP)]}))),
    ("a number for a text", "annotation", False, dict(
        index=index_json(named(SAFE, APP, annotations={"x": 5})))),
    ("NaN", "JSON", False, dict(manifest=to_json([offered(SAFE, APP, x=float("nan"))]))),
    ("an attestation with a name", "", True, dict(
        index=index_json(named(SAFE, APP), named(EVIL, OTHER, annotations=ATTESTS)))),
    ("a platform unknown with a name", "", True, dict(
        index=index_json(named(SAFE, APP), named(EVIL, OTHER, platform=UNKNOWN)))),
    ("an attestation that manifest.json offers", "", True, dict(
        index=index_json(named(SAFE, APP),
                         descriptor(EVIL.manifest, OCI.manifest, annotations=ATTESTS)),
        manifest=to_json([offered(SAFE, APP), offered(EVIL, OTHER)]))),
    ("manifest.json offers another image", "", True, dict(manifest=EVIL_JSON)),
    ("layers in another order", "layer", False, dict(
        manifest=to_json([offered(SAFE, APP, Layers=SAFE_OFFER["Layers"][::-1])]))),
    ("another image's layers", "layer", False, dict(
        manifest=to_json([offered(SAFE, APP, Layers=EVIL_OFFER["Layers"])]))),
    ("no layers", "layer", False, dict(manifest=to_json([offered(SAFE, APP, Layers=[])]))),
    ("no images in manifest.json", "manifest.json", False, dict(manifest=b"[]")),
    ("oci-layout of another version", "oci-layout", False, dict(
        layout=b'{"imageLayoutVersion": "2.0.0"}')),
    ("no oci-layout, no manifest.json", "oci-layout", False, dict(layout=None, manifest=None)),
    ("a manifest called an index", "media type", False, dict(
        index=index_json(named(SAFE, APP, mediaType=OCI.index)))),
    ("a manifest called a layer", "media type", False, dict(
        index=index_json(named(SAFE, APP, mediaType=OCI.layer)))),
]

# Archives that no runtime loads, or not every one; and the rest.
OTHER_ROWS = [
    ("a member below a symlink", "below", True, BOTH + archive_of(
        SAFE, end=symlink("d", ".") + entry("d/manifest.json", EVIL_JSON) + bytes(1024))),
    ("keys that differ in case: a manifest", "spelling", True, BOTH + archive_of(
        remade(SAFE, Config=EVIL_MANIFEST["config"], Layers=EVIL_MANIFEST["layers"]),
        manifest=None)),
    ("a manifest that is an index too", "index and a manifest", False, BOTH + archive_of(
        TWO_KINDS, manifest=None, index=index_json(named(TWO_KINDS, APP, mediaType=OCI.index)))),
    ("cut in its last block", "too early", False, PLAIN[:-1]),
    ("cut in the last block but one", "too early", False, PLAIN[:-700]),
    ("a bit in the last block", "data after its end", False, flipped_at(PLAIN, -100)),
    ("a bit in the last block but one", "header", False, flipped_at(PLAIN, -700)),
    ("a damaged header", "checksum", False,
     flipped_at(PLAIN, header_of(PLAIN, "manifest.json") + 3)),
    ("a member after a lone block of zeros", "data after its end", False, archive_of(
        SAFE, end=bytes(512) + entry("x") + bytes(1024))),
    ("gzip a few bytes short", "too early", False, archive_of(
        repacked(SAFE, lambda tar: gzipped(tar)[:-5]))),
    ("gzip and zeros", "gzip", False, archive_of(
        repacked(SAFE, lambda tar: gzipped(tar) + bytes(512)))),
    ("gzip layers called plain", "media type", False, archive_of(
        with_types(SAFE, "layers", OCI.layer[:-5]))),
    ("layers called charts", "media type", False, archive_of(
        with_types(SAFE, "layers", CHART + "chart.content.v1.tar+gzip"))),
    ("a config called a chart's", "config", False, archive_of(
        with_types(TRADED, "config", CHART + "config.v1+json"))),
]

# words: of the refusal, "" where --verify may say good as long as --list-tar shows EVIL too;
# evil: whether a loader takes EVIL. If not, some loader takes nothing at all.
HOSTILE = [Hostile(name, words, True, evil_last(write)) for name, words, write in DISGUISES]
HOSTILE += [Hostile(name, words, True, evil_first(write)) for name, words, write in DISGUISES_FIRST]
HOSTILE += [Hostile(name, words, evil, BOTH + archive_of(SAFE, manifest=None, extra=extra))
            for name, words, evil, extra in LINKS]
HOSTILE += [Hostile(name, words, evil, BOTH + archive_of(SAFE, extra=extra))
            for name, words, evil, extra in EXTRAS]
HOSTILE += [Hostile(name, words, evil, BOTH + archive_of(SAFE, **changes))
            for name, words, evil, changes in CHANGES]
HOSTILE += [Hostile(*row) for row in OTHER_ROWS]

# What real tools write, and every loader takes that knows the format, but for containerd with bz2
# and xz, and skopeo with hard links.
GOOD = [Good(*row) for row in [
    ("as imgpull writes it", PLAIN),
    ("filled up with zeros to 10 KiB", PLAIN + bytes(-len(PLAIN) % 10240)),
    ("docker save before 25", old_docker(SAFE)),
    ("docker save before 25, a layer twice", old_docker(make_image(b"safe", b"second", b"safe"))),
    ("docker save from 25", new_docker(SAFE)),
    ("docker save from 25, with repositories", archive_of(
        SAFE, extra=entry("repositories", to_json({"app": {"v1": "0" * 64}})))),
    ("skopeo's docker-archive", docker_archive(SAFE)),
    ("skopeo's oci-archive", oci_archive(SAFE)),
    ("crane", crane(SAFE)),
    ("no oci-layout beside manifest.json", archive_of(SAFE, layout=None)),
    ("no index.json beside manifest.json", archive_of(SAFE, index=None)),
    ("GNU tar of a directory", entry("./", kind=b"5") + entry("./blobs/", kind=b"5") + each_as(
        lambda name, data: entry("./" + name, data))),
    ("directories", entry("blobs/", kind=b"5") + entry("blobs/sha256/", kind=b"5") + PLAIN),
    ("GNU long names", each_as(lambda name, data: long_name(name) + entry(name[:99], data))),
    ("Python's GNU format", with_tarfile(LONG, format=tarfile.GNU_FORMAT)),
    ("Python's ustar, with a prefix", with_tarfile(LONG, format=tarfile.USTAR_FORMAT)),
    ("Python's pax headers", with_tarfile(dict({"a" * 200: b"x", "\u00e9": b"x"}, **HELD),
                                          format=tarfile.PAX_FORMAT, mtime=1.5)),
    ("Go's pax headers", each_as(
        lambda name, data: pax({"mtime": "1700000000.5", "path": name, "SCHILY.xattr.user.x": "y"})
        + entry(name[:99], data, magic=USTAR))),
    ("git archive's comment", pax({"comment": "0" * 40}, b"g") + PLAIN),
    ("v7 headers", each_as(lambda name, data: entry(name, data, magic=V7))),
    ("the old type of a file", each_as(lambda name, data: entry(name, data, kind=b"\0"))),
    ("symlink backwards", archive_of(
        SAFE, manifest=None, extra=entry("a/b", SAFE_JSON) + symlink("manifest.json", "a/b"))),
    ("hard link backwards", archive_of(
        SAFE, manifest=None, extra=entry("a/b", SAFE_JSON) + link("manifest.json", "a/b"))),
    ("hard link with a long target", archive_of(
        SAFE, manifest=None, extra=long_name("a" * 110) + entry("x", SAFE_JSON)
        + long_name("a" * 110, b"K") + link("manifest.json", "x"))),
    ("bz2 layers", archive_of(repacked(SAFE, lambda tar: compressed(tar, "bz2")))),
    ("xz layers", archive_of(repacked(SAFE, lambda tar: compressed(tar, "xz")))),
    ("layers of several gzip members", archive_of(repacked(
        SAFE, lambda tar: gzipped(tar[:700]) + gzipped(tar[700:])))),
    ("plain layers called gzip", archive_of(repacked(SAFE, bytes))),
]]


class TestHostileArchives(Case):
    def test_hostile(self):
        """Refused by --verify in these words; --list-tar refuses, or shows all that would load."""
        for row in only(HOSTILE):
            with self.subTest(row.name):
                path = self.write("hostile.tar", row.archive)
                faults = "; ".join(faults_of(path))
                self.assertRegex(faults, "(?i)" + row.words)
                listing = self.run_main("--list-tar", path)
                if listing.code:
                    self.assertIn("imgpull: error: ", listing.err)
                elif row.evil:
                    self.assertRegex(listing.out.decode(), EVIL.digest + "|" + sha256(EVIL.config))

    def test_good(self):
        """What real tools write is good, and listed under its name."""
        for row in only(GOOD):
            with self.subTest(row.name):
                path = self.write("good.tar", row.archive)
                self.assertEqual(faults_of(path), [])
                self.assertEqual([image.name for image in imgpull.list_archive(path)], [APP])


# --- bundles: lists, several registries, what is there already -------------------------------------------------------

class TestLists(Case):
    LISTS = [  # the text, what is asked for ("NAME TARGET" each); or words of the refusals
        (b"alpine", ["docker.io/library/alpine:latest"]),
        (b"# all\n\nalpine:3  # the base\r\n  quay.io/a/b:1 \r\n", ["docker.io/library/alpine:3", "quay.io/a/b:1"]),
        (b"\xef\xbb\xbfalpine\n", ["docker.io/library/alpine:latest"]),
        (b"http://localhost:5000/app:1 team/app:2\n", ["http localhost:5000/app:1 docker.io/team/app:2"]),
        (b"alpine x:1 y:2\n", ["line 1: more than REF and NAME"]),
        (b"alpine\nUPPER\n\ndocker://x\n", ["line 2: .*lower-case", "line 4: .*leave out"]),
        (b"alpine Bad/Name\n", ["line 1: .*lower-case"]),
        (b"", ["has no image in it"]), (b"# nothing\n", ["has no image in it"]),
        (b"\xff\xfe\x00", ["not text"]), (b"alpine\n" * 100000, ["more than 10000 images"])]

    def test_parse(self):
        for body, expected in selected(self.LISTS):
            with self.subTest(body[:40]):
                try:
                    requests = imgpull.parse_list(body, "images.txt")
                except imgpull.UsageError as error:
                    mistakes = [str(error)] + error.others
                    self.assertEqual(len(mistakes), len(expected), mistakes)
                    for mistake, words in zip(mistakes, expected):
                        self.assertRegex(mistake, "^images.txt.*" + words)
                else:
                    self.assertEqual([" ".join(filter(None, (one.scheme, str(one.reference), one.name)))
                                      for one in requests], expected)

    def bundle(self, *argv, code=0, stdin=""):
        run = self.run_main("-s", "http", *argv, stdin=stdin)
        self.assertEqual(run.code, code, run.err)
        return run

    def test_from(self):
        """References from files and the command line; names; the same on standard input."""
        server = self.serve(INDEX)
        server.add("b", "v1", make_image(b"b"))
        text = "# a list\n%s/app:v1\n%s/b:v1 team/b:2\n" % (server.host, server.host)
        listed = self.write("images.txt", text)
        self.bundle("--from", listed, server.add("c", "v1", make_image(b"c")), self.tar)
        names = sorted(image.name for image in imgpull.list_archive(self.tar))
        self.assertEqual(names, sorted([server.host + "/app:v1", server.host + "/c:v1", "docker.io/team/b:2"]))
        with mock.patch("imgpull.sys.stdin", mock.Mock(buffer=io.BytesIO(text.encode()))):
            self.assertEqual(len(imgpull.read_list("-")), 2)
        run = self.run_main("--from", self.write("bad.txt", "UPPER\nalpine\nx:y:z\n"), self.path("x.tar"))
        mistakes = re.findall("imgpull: error: .*bad.txt, line [13]: ", run.err)
        self.assertEqual((run.code, len(mistakes)), (2, 2), run.err)
        for path, words in selected([("none", "cannot be read: No such file"), (".", "cannot be read: Is a dir")]):
            self.fails(self.run_main("--from", self.path(path), self.tar), words, code=2)

    def test_names(self):
        """One name for two images: refused, with the line. One image under two names: both."""
        server = self.serve(IMAGE)
        other = server.add("b", "v1", ARM)
        text = "%s/app:v1 x:1\n%s x:1\n" % (server.host, other)
        self.fails(self.run_main("-s", "http", "--from", self.write("images.txt", text), self.tar),
                   "images.txt, line 2: docker.io/library/x:1 is the name of another image", code=2)
        self.bundle("--from", self.write("images.txt", "%s/app:v1 x:1\n%s/app:v1 x:2\n" % (server.host, server.host)),
                    self.tar)
        self.assertEqual([image.name for image in imgpull.list_archive(self.tar)],
                         ["docker.io/library/x:1", "docker.io/library/x:2"])

    def test_same_tag(self):
        """Two images with one tag: each is found by its full name; a tag of its own stays short."""
        server = self.serve(IMAGE)
        names = [server.host + "/app:v1", server.add("b", "v1", ARM), server.add("c", "v2", ARM)]
        self.bundle(*(names + [self.tar]))
        entries = json.loads(members(read(self.tar))["index.json"].decode())["manifests"]
        self.assertEqual([entry["annotations"]["org.opencontainers.image.ref.name"] for entry in entries],
                         names[:2] + ["v2"])
        self.assertEqual(imgpull.verify_archive(self.tar), [])

    def test_keep_going(self):
        """What cannot be had is told at the end, with its line; the rest is archived."""
        server = self.serve(INDEX)
        text = "%s/none:v1\n%s/app:v1\n%s/app:v9\n" % ((server.host,) * 3)
        listed = self.write("images.txt", text)
        run = self.bundle("--from", listed, "--keep-going", self.tar, code=1)
        self.assertEqual(re.findall("error: .*images.txt, line ([0-9]): .*404", run.err), ["1", "3"], run.err)
        self.assertEqual([image.name for image in imgpull.list_archive(self.tar)], [server.host + "/app:v1"])
        os.remove(self.tar)
        self.fails(self.run_main("-s", "http", "--from", listed, self.tar), "images.txt, line [13]: .*404", code=3)
        self.assertFalse(os.path.exists(self.tar))

    def test_keep_going_without_a_layer(self):
        """A layer that is gone, or damaged for good: its image is left out, the others are archived."""
        for name, fault in selected([("gone", says(404)), ("damaged", changed(body=flipped))]):
            with self.subTest(name):
                server = self.serve(INDEX, faults=[("layer", lambda wire, request, answer, fault=fault: (
                    fault(wire, request, answer) if ARMV6.layers[0] in request.path else wire.send(answer)), ALWAYS)])
                other = server.add("b", "v1", ARMV6)
                run = self.bundle("--keep-going", server.host + "/app:v1", other, self.tar, code=1)
                self.assertEqual(len(re.findall("imgpull: error: .*%s" % ARMV6.layers[0][:19], run.err)), 1, run.err)
                self.assertEqual([image.name for image in imgpull.list_archive(self.tar)], [server.host + "/app:v1"])
                self.assertEqual((imgpull.verify_archive(self.tar), self.left()), ([], []))
                os.remove(self.tar)

    def test_looked_up_at_once(self):
        """Twelve references at a server that takes its time for each answer: not one after the other."""
        server = self.serve(INDEX, faults=[(kind, slow(1, 0.2), ALWAYS) for kind in ("tag", "manifest", "config")])
        names = [server.add("app%d" % number, "v1", INDEX) for number in range(12)]
        started = time.monotonic()
        self.bundle(*(names + [self.tar]))
        self.assertLess(time.monotonic() - started, 0.2 * 3 * 12 / 2)


class TestWhatIsThere(Case):
    def test_up_to_date(self):
        """The same once more: nothing is fetched, the file is checked and left alone."""
        server = self.serve(INDEX)
        good = self.pull(server)
        before = os.stat(self.tar)
        self.pull(server, fresh=False)
        self.assertRegex(self.said.out.decode(), "is up to date")
        after = os.stat(self.tar)
        self.assertEqual((after.st_mtime_ns, after.st_ino), (before.st_mtime_ns, before.st_ino))
        self.assertEqual(server.kinds().count("layer"), len(IMAGE.layers))
        self.write("image.tar", good[:-700] + bytes(600) + good[-100:])
        broken = bytearray(good)
        broken[good.index(IMAGE.blobs[IMAGE.layers[0]]) + 500] ^= 1
        self.write("image.tar", bytes(broken))
        self.assertEqual(self.pull(server, fresh=False), good)
        self.assertNotIn("up to date", self.said.out.decode())

    def test_what_both_have(self):
        """A newer image over an older one: only what is new is fetched; permissions stay."""
        server = self.serve(VERSION1)
        server.add("app", "v2", VERSION2)
        self.pull(server)
        os.chmod(self.tar, 0o640)
        del server.requests[:]
        self.pull(server, name="app:v2", fresh=False)
        self.assertEqual(server.sent("layer"), sum(len(VERSION2.blobs[layer]) for layer in
                                                   set(VERSION2.layers) - set(VERSION1.layers)))
        self.assertEqual(imgpull.verify_archive(self.tar), [])
        if POSIX:
            self.assertEqual(os.stat(self.tar).st_mode & 0o777, 0o640)

    def test_not_an_archive(self):
        """Something else is not overwritten without --force; an empty file is."""
        server = self.serve()
        for name, data, options, code in selected([
                ("a text", b"my thesis", (), 6), ("another tar", tar_of({"x": b"y"}), (), 6),
                ("forced", b"my thesis", ("--force",), 0), ("empty", b"", (), 0)]):
            with self.subTest(name):
                self.write("image.tar", data)
                run = self.pull(server, *options, expect=FAILED if code else 0, fresh=False)
                if code:
                    self.fails(run, "not an archive of images.*--force", code=6)
                    self.assertEqual(read(self.tar), data)

    def test_base_is_not_replaced(self):
        server = self.serve(VERSION1)
        self.pull(server)
        good = read(self.tar)
        self.fails(self.run_main("-s", "http", "--base", self.tar, server.host + "/app:v1", self.tar),
                   "is the base", code=2)
        self.assertEqual(read(self.tar), good)

    def test_base_image(self):
        """What the registry says of version 1 is enough to leave out its layers."""
        server = self.serve(VERSION1)
        server.add("app", "v2", VERSION2)
        self.pull(server, tar=self.path("base.tar"))
        by_archive = self.pull(server, "--name", "x:2", "--base", self.path("base.tar"), name="app:v2")
        del server.requests[:]
        by_name = self.pull(server, "--name", "x:2", "--base-image", server.host + "/app:v1", name="app:v2")
        self.assertEqual(by_name, by_archive)
        self.assertEqual(server.sent("layer"), sum(len(VERSION2.blobs[layer]) for layer in VERSION2.layers[1:]))
        self.assertEqual(imgpull.verify_archive(self.tar, base=[self.path("base.tar")]), [])

    def test_nothing_to_reuse(self):
        self.pull(self.serve(VERSION1), tar=self.path("base.tar"))
        self.pull(self.serve(TWICE), "--reuse", self.path("base.tar"))
        self.assertRegex(self.said.err, "no layer is in .*base.tar")

    def test_some_platforms(self):
        """Several platforms: their manifests, and the index as it is."""
        server = self.serve(INDEX)
        held = members(self.pull(server, "--platform", "linux/amd64,linux/arm64"))
        kept = {INDEX.digest, IMAGE.digest, ARM.digest} | set(IMAGE.blobs) | set(ARM.blobs)
        self.assertEqual({name for name in held if name.startswith("blobs/")}, {blob_path(one) for one in kept})
        self.assertEqual(imgpull.verify_archive(self.tar), [])
        self.fails(self.pull(server, "--platform", "linux/amd64,linux/s390x", expect=FAILED), "linux/s390x", code=3)

    def test_usage(self):
        """What is refused before anything is asked for."""
        for words, said in selected([
                ("--platform linux/amd64 --platform linux/arm64 app x.tar", "--platform is given twice"),
                ("--platform= app x.tar", "--platform is empty: is the variable set"),
                ("--name= app x.tar", "--name is empty"), ("--base= app x.tar", "--base is empty"),
                ("--cacert= app x.tar", "--cacert is empty"), ("--user= app x.tar", "--user is empty"),
                ("--from= x.tar", "--from is empty"), ("--from list.txt", "where to"),
                ("--name x --from list.txt x.tar", "--name is for one image")]):
            with self.subTest(words):
                self.fails(self.run_main(*words.split()), said, code=2)


# --- the terminal ----------------------------------------------------------------------------------------------------

def rows(output):
    """What a terminal shows after this output, line by line: carriage returns, erasures and colours obeyed."""
    lines, column = [""], 0
    for part in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|\r|\n|[^\r\n\x1b]+", output):
        if part == "\n":
            lines.append("")
        if part in "\r\n":
            column = 0
        elif part == "\x1b[K":
            lines[-1] = lines[-1][:column]
        elif not part.startswith("\x1b"):
            lines[-1] = lines[-1][:column] + part + lines[-1][column + len(part):]
            column += len(part)
    return lines


@unittest.skipUnless(POSIX, "pseudo-terminals are POSIX")
class TestTerminal(Case):
    SCRIPT = ("import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
              "import imgpull; sys.exit(imgpull.main(sys.argv[1:]))")

    def on_terminal(self, *argv, columns=80, environment=None, stdout=None, meanwhile=None):
        """imgpull with a terminal of its own: (exit status, what it wrote there). `meanwhile` is called with the
        terminal's descriptor and all that has been written so far, whenever there is something new."""
        import fcntl
        import termios
        ours, theirs = os.openpty()
        self.addCleanup(os.close, ours)
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        before = termios.tcgetattr(ours)
        environment = dict(dict(os.environ, PYTHONIOENCODING="utf-8", TERM="xterm"), **environment or {})
        environment.pop("COLUMNS", None)
        process = subprocess.Popen([sys.executable, "-c", self.SCRIPT] + list(argv), cwd=HERE, env=environment,
                                   stdin=theirs, stdout=stdout or theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        output, deadline = b"", time.monotonic() + 20
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.05)[0]:
                try:
                    data = os.read(ours, 65536)
                except OSError:
                    data = b""
                if not data:
                    break
                output += data
                if meanwhile:
                    meanwhile(ours, output.decode("utf-8", "replace"))
        else:
            process.kill()
        code = process.wait()
        self.assertEqual(termios.tcgetattr(ours), before)       # echo and all as it was
        return code, output.decode("utf-8").replace("\r\n", "\n")

    def server(self):
        """One that takes its time, so that there is something to look at."""
        return self.serve(make_image(noise("slow", 1000000), b"quick"), faults=[("layer", slow(8, 0.05), ALWAYS)])

    @staticmethod
    def types(text, once):
        """Someone who types a text when a word has appeared on the terminal."""
        typed = []

        def meanwhile(terminal, output):
            if once in output and not typed:
                typed.append(os.write(terminal, text.encode()))
        return meanwhile

    def test_progress(self):
        """The live line fits the terminal, is drawn at most ten times a second, and is gone at the end."""
        for columns, environment in [(80, {}), (20, {"NO_COLOR": "1"}), (8, {}),
                                     (200, {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"})]:
            with self.subTest(columns=columns, environment=environment):
                server = self.server()
                with contextlib.suppress(FileNotFoundError):
                    os.remove(self.tar)
                started = time.monotonic()
                with open(self.path("out"), "wb") as out:
                    code, shown = self.on_terminal("--scheme", "http", server.host + "/app:v1", self.tar,
                                                   columns=columns, environment=environment, stdout=out)
                self.assertEqual(code, 0, shown)
                drawn = [rows(part)[-1] for part in shown.replace("\x1b[K", "\r").split("\r") if "%" in part]
                self.assertGreater(len(drawn), 1, shown)
                self.assertLessEqual(len(drawn), 12 * (time.monotonic() - started) + 2)
                self.assertLess(max(map(len, drawn)), columns)
                self.assertEqual(rows(shown)[-1], "")
                self.assertNotIn("%", "".join(rows(shown)))
                self.assertEqual(len([row for row in rows(shown) if row.startswith("sha256:")]), 2)
                self.assertEqual("\x1b[1m" in shown, columns == 80 or columns == 200)       # no colours, no bar
                self.assertEqual(any(ord(char) > 127 for char in shown), columns in (80, 20))
                server.close()

    def test_progress_of_verify(self):
        """The live line has the archive's name, and is gone at the end."""
        big = self.write("big.tar", oci_archive(make_image(noise("big archive", 2000000))))
        self.SCRIPT = self.SCRIPT.replace("import imgpull;", "import imgpull; imgpull.DRAW_SECONDS = 0;")
        code, shown = self.on_terminal("--verify", big, big)
        drawn = [rows(part)[-1] for part in shown.replace("\x1b[K", "\r").split("\r") if "%" in part]
        self.assertEqual(code, 0, shown)
        self.assertTrue(drawn and all("big.tar" in line and len(line) < 80 for line in drawn), shown)
        self.assertNotIn("%", "".join(rows(shown)))

    def test_resize(self):
        """A narrower terminal gets a narrower line from then on."""
        import fcntl
        import termios
        seen = []

        def shrink(terminal, output):
            if "%" in output and not seen:
                fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 30, 0, 0))
                seen.append(len(output))
        code, shown = self.on_terminal("--scheme", "http", self.server().host + "/app:v1", self.tar, meanwhile=shrink)
        self.assertEqual(code, 0, shown)
        lines = [rows(part)[-1] for part in shown.replace("\x1b[K", "\r").split("\r") if "%" in part]
        self.assertGreater(len(lines[0]), 30)
        self.assertLess(len(lines[-1]), 30)

    def test_interrupted(self):
        """Ctrl-C at the terminal: the live line goes, one line stays."""
        server = self.serve(MIXED, faults=[("layer", silent(2000000), 1)])
        code, shown = self.on_terminal("--scheme", "http", "--jobs", "1", server.host + "/app:v1", self.tar,
                                       meanwhile=self.types("\x03", once="%"))
        self.assertEqual(code, 130, shown)
        self.assertEqual(len([row for row in rows(shown) if "interrupted" in row]), 1)
        self.assertNotIn("%", "".join(rows(shown)))

    def test_password_asked(self):
        """--user alone: asked for without echo."""
        server = self.serve(challenges=['Basic realm="x"'], users={"jo": "s3cret"})
        code, shown = self.on_terminal("--scheme", "http", "-u", "jo", server.host + "/app:v1", self.tar,
                                       meanwhile=self.types("s3cret\n", once="Password"))
        self.assertEqual((code, "s3cret" in shown), (0, False), shown)
        self.assertIn("Password for jo at %s: " % server.host, shown)

    def test_looking_up(self):
        """Before the download the live line says what is looked up and which retry goes on; nothing of it stays."""
        server = self.serve(faults=[("tag", says(503, b"busy"), 1), ("tag", slow(1, 0.1), 3), ("layer", says(502), 1),
                                    ("layer", slow(8, 0.05), ALWAYS)])
        names = [server.add("app", "v%d" % number, make_image(noise(str(number), 400000))) for number in (2, 3, 4)]
        for columns, references, words in [
                (80, [server.host + "/app:v1"], [
                    "looking up " + server.host, r"retry 1 of 5 in 0\.\d s: " + server.host + "/app:v1: .* 503",
                    r" 0%  retry 1 of 5 in 0\.\d s: sha256:"]),
                (100, names, ["looked up 0 of 3 images", "looked up 2 of 3 images", "left  [012] of 3 images  "]),
                (40, names, ["looked up 1 of 3 images", r"\d%  \d.* of 1\.2 MB  0s left"])]:
            with self.subTest(columns=columns):
                with contextlib.suppress(FileNotFoundError):
                    os.remove(self.tar)
                with open(self.path("out"), "wb") as out:
                    code, shown = self.on_terminal("--scheme", "http", *(references + [self.tar]), columns=columns,
                                                   stdout=out)
                self.assertEqual(code, 0, shown)
                drawn = [rows(part)[-1] for part in shown.replace("\x1b[K", "\r").split("\r")]
                self.assertLess(max(map(len, drawn)), columns)
                for word in words:
                    self.assertTrue([line for line in drawn if re.search(word, line)], "%s: %s" % (word, drawn))
                self.assertFalse([row for row in rows(shown) if row and not row.startswith("sha256:")], shown)

    def test_locked_key(self):
        """An encrypted key: its pass phrase is asked for without echo."""
        ca, certificate, key = [os.path.join(self.pems(), name) for name in ("ca.pem", "client.pem", "locked.key")]
        server = self.serve(tls=self.pems(), client_ca=ca)
        code, shown = self.on_terminal("-x", ca, "-c", certificate, "-k", key, server.host + "/app:v1", self.tar,
                                       meanwhile=self.types("sesame\n", once="phrase"))
        self.assertEqual((code, "sesame" in shown), (0, False), shown)

    def test_no_archive_to_a_terminal(self):
        server = self.serve()
        code, shown = self.on_terminal("--scheme", "http", server.host + "/app:v1", "-")
        self.assertEqual((code, server.requests), (2, []))
        self.assertIn("docker load", shown)

    def test_plain(self):
        """Not a terminal: a line a blob, nothing that moves; -q: only the result."""
        server = self.serve()
        self.pull(server)
        self.assertEqual(len([line for line in self.said.err.splitlines() if line.startswith("sha256:")]), 2)
        self.assertNotIn("\x1b", self.said.err)
        out, = self.said.out.decode().splitlines()
        for word in (server.host + "/app:v1", IMAGE.digest, "linux/amd64", self.tar, "kB", " s"):
            self.assertIn(word, out)
        self.pull(server, "-q")
        self.assertEqual((self.said.err, self.said.out.decode()), ("", "%s/app:v1@%s\n" % (server.host, IMAGE.digest)))
        self.pull(self.serve(tls=self.pems()), "-q", "-i")
        self.assertRegex(self.said.err, "^imgpull: warning: certificates are not verified.*\n$")
        self.pull(self.serve(ARM), "-q")
        self.assertRegex(self.said.err, "^imgpull: warning: .*available: linux/arm64.*\n$")


class TestCommandLine(Case):
    def test_mistakes(self):
        """What a newcomer types, and what the answer must say. {host} has app:v1; at {closed} nobody listens."""
        server, closed, private = self.serve(INDEX), self.serve(), self.serve(challenges=[BEARER], users={"jo": "pw"})
        basic_only = self.serve(challenges=['Basic realm="x"'])
        closed.close()
        web = self.serve(faults=[("tag", says(200, b"<html><title>Welcome</title></html>", Content_Type="text/html"),
                                  ALWAYS)])
        limits = self.serve(faults=[("tag", says(404, b"<html>404 page not found</html>", Content_Type="text/html"),
                                     ALWAYS)])
        tls_port = self.serve(faults=[("tag", says(400, b"<html><title>400 The plain HTTP request was sent to HTTPS "
                                                   b"port</title></html>"), ALWAYS)])
        busy = self.serve(faults=[("tag", says(503, b"<html><title>503 Service Temporarily Unavailable</title></html>"),
                                   ALWAYS)])
        places = dict(host=server.host, closed=closed.host, private=private.host, basic=basic_only.host, web=web.host,
                      dir=self.dir, tls=tls_port.host, busy=busy.host,
                      none=limits.host)
        http = "-s http --retries 0 "
        for typed, code, words in selected([
                ("", 2, ["imgpull alpine alpine.tar"]),
                ("alpine", 2, ["where to", "imgpull alpine alpine.tar"]),
                ("docker pull alpine", 2, ["docker pull", "imgpull alpine alpine.tar"]),
                ("pull alpine", 2, ["pull", "alpine.tar"]),
                ("alpine.tar alpine", 2, ["alpine.tar", "last"]),
                ("--cert c.pem alpine x.tar", 2, ["--cert and --key"]),
                ("--key c.pem alpine x.tar", 2, ["--cert and --key"]),
                ("--platform linux/arm64 --arch arm64 alpine x.tar", 2, ["--platform"]),
                ("--no-such-option alpine x.tar", 2, ["--no-such-option"]),
                ("-o m.tar alpine", 2, ["TAR comes last"]), ("--output m.tar alpine", 2, ["TAR comes last"]),
                ("-platform linux/arm64 alpine x.tar", 2, ["did you mean --platform"]),
                ("-version", 2, ["did you mean --version"]), ("-ls x.tar", 2, ["did you mean --list-tar"]),
                ("--tls-verify=false alpine x.tar", 2, ["--insecure", "--scheme http"]),
                ("--http alpine x.tar", 2, ["--scheme http"]), ("--plain-http alpine x.tar", 2, ["--scheme http"]),
                ("--creds jo:hunter2 alpine x.tar", 2, ["--user NAME:PASSWORD"]),
                ("--creds=jo:hunter2 alpine x.tar", 2, ["--user NAME:PASSWORD"]),
                ("--all-platforms alpine x.tar", 2, ["--platform all"]),
                ("--variant v7 alpine x.tar", 2, ["--platform linux/arm/v7"]),
                ("--limit-rate 5 alpine x.tar", 2, [r"--limit-rate \(imgpull --help"]),
                ("--plattform linux/arm64 alpine x.tar", 2, ["did you mean --platform"]),
                ("copy docker://alpine docker-archive:x.tar", 2, ["imgpull alpine x.tar"]),
                ("skopeo copy docker://alpine docker-archive:/tmp/x.tar:alpine", 2, ["imgpull alpine /tmp/x.tar"]),
                ("alpine:sha256:0123 x.tar", 2, ["alpine@sha"]),
                ("localhost:5000 x.tar", 2, ["image localhost .*tag 5000", "localhost:5000/NAME"]),
                ("help", 2, ["--help"]), ("version", 2, ["--version"]), ("--retries -1 alpine x.tar", 2, ["0 or more"]),
                ("--cacert {dir} alpine x.tar", 2, ["directory"]),
                ("--json alpine -", 2, ["stdout"]), ("--json -m list alpine", 2, ["--manifest"]),
                (http + "{tls}/app:v1 {dir}/x.tar", 1, ["leave out --scheme http"]),
                (http + "{busy}/app:v1 {dir}/x.tar", 4, [r"answered 503 \(Service Temporarily Unavailable\)"]),
                ("--jobs none alpine x.tar", 2, ["jobs"]), ("--jobs 0 alpine x.tar", 2, ["jobs"]),
                ("--timeout -1 alpine x.tar", 2, ["timeout"]), ("--scheme ftp alpine x.tar", 2, ["scheme"]),
                ("--manifest both alpine", 2, ["manifest"]), ("--manifest list alpine x.tar y.tar", 2, ["one"]),
                ("-u jo -t token alpine x.tar", 2, ["--token"]), ("-p pw alpine x.tar", 2, ["--user"]),
                ("--name a b c x.tar", 2, ["--name"]),
                ("https://hub.docker.com/_/alpine x.tar", 2, ["https://", "web page; the image is .alpine"]),
                ("docker://alpine x.tar", 2, ["docker://"]),
                ("Alpine x.tar", 2, ["lower-case", "alpine"]),
                ("--platform linux/arm/v7/x/y alpine x.tar", 2, ["platform", "linux/arm64"]),
                (http + "{host}/app:v2 {dir}/x.tar", 3, ["404", "tag"]),
                (http + "{host}/ap:v1 {dir}/x.tar", 3, ["404", "spelling"]),
                (http + "{none}/app:v1 {dir}/x.tar", 3, ["404"]),
                (http + "{web}/app:v1 {dir}/x.tar", 5, ["web page"]),
                (http + "{closed}/app:v1 {dir}/x.tar", 4, ["refused"]),
                (http + "no-such-host.invalid/app {dir}/x.tar", 4, ["no-such-host.invalid", "name|address"]),
                ("-s https --retries 0 {host}/app:v1 {dir}/x.tar", 1, ["--scheme http"]),
                ("verify x.tar", 2, ["--verify x.tar"]), ("list x.tar", 2, ["--list-tar x.tar"]),
                ("images.txt x.tar", 2, ["--from images.txt x.tar"]),
                (http + "--platform windows/arm {host}/app:v1 {dir}/x.tar", 3,
                 ["windows/arm", "linux/amd64", "linux/arm64", "--platform"]),
                (http + "{private}/app:v1 {dir}/x.tar", 3, ["log in", "--user"]),
                (http + "-u jo -p wrong {private}/app:v1 {dir}/x.tar", 3, ["credentials for"]),
                (http + "{basic}/app:v1 {dir}/x.tar", 3, ["log in", "--user"]),
                (http + "-u jo {private}/app:v1 {dir}/x.tar", 2, ["--password-stdin"]),
                (http + "{host}/app:v1 {dir}", 6, ["directory"]),
                (http + "{host}/app:v1 {dir}/none/x.tar", 6, ["no directory"]),
                ("--cacert {dir}/none.pem {host}/app:v1 {dir}/x.tar", 2, ["none.pem"]),
                (http + "--base {dir}/none.tar {host}/app:v1 {dir}/x.tar", 2, ["none.tar"]),
                ("--verify {dir}/none.tar", 2, ["none.tar"]),
                ("--list-tar {dir}/none.tar", 2, ["none.tar"])]):
            with self.subTest(typed):
                run = self.run_main(*typed.format(**places).split())
                self.fails(run, *words, code=code)
                self.assertNotIn("hunter2", run.err)
                self.assertFalse(os.path.exists(self.path("x.tar")) or self.left())

    def test_older_pythons(self):
        """Python 2 and 3.5 cannot compile the file: the line that they show with their SyntaxError says why."""
        before, line, _ = re.split("(.*needs Python 3.6.*)", read(imgpull.__file__).decode(), maxsplit=1)
        self.assertRegex(line, '^assert .* f"')
        self.assertNotRegex(before, "[^\\0-\\x7f]|f[\"']")          # neither of them stops earlier

    def test_json(self):
        """--json: one document on stdout instead of the lines."""
        server, base = self.serve(INDEX), self.path("base.tar")
        self.pull(server, tar=base)
        self.pull(server, "--json", "--base", base)
        layers = [{"digest": digest, "size": len(IMAGE.blobs[digest]), "omitted": True} for digest in IMAGE.layers]
        document = json.loads(self.said.out.decode())
        self.assertGreaterEqual(document.pop("seconds"), 0)
        self.assertEqual(document, {
            "schema": 1, "failures": [], "destination": self.tar, "size": os.path.getsize(self.tar),
            "fetched": len(IMAGE.config), "omitted": sum(layer["size"] for layer in layers), "unchanged": False,
            "images": [{"name": server.host + "/app:v1", "digest": IMAGE.digest, "source_digest": INDEX.digest,
                        "image_id": sha256(IMAGE.config), "platform": "linux/amd64", "size": 0, "layers": layers,
                        "referrers": []}]})
        self.pull(server, "--json", "--base", base, fresh=False)
        self.assertTrue(json.loads(self.said.out.decode())["unchanged"])
        run = self.run_main("-s", "http", "--json", "--keep-going", server.host + "/app:v1", server.host + "/none:v1",
                            self.path("two.tar"))
        document = json.loads(run.out.decode())
        (failure,), (image,) = document["failures"], document["images"]
        self.assertEqual((run.code, failure["exit_code"], image["size"]), (1, 3, sum(each["size"] for each in layers)))
        self.assertIn("none", failure["error"])
        run = self.run_main("-s", "http", "--json", server.host + "/none:v1", self.path("none.tar"))
        self.fails(run, "404", code=3)
        self.assertEqual(run.out, b"")

    @unittest.skipUnless(POSIX, "the encodings of POSIX")
    def test_ascii_terminal(self):
        """A file's name that stdout's encoding lacks is escaped in the result line."""
        server = self.serve()
        environment = dict(os.environ, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
        out = subprocess.check_output([sys.executable, imgpull.__file__, "-s", "http", server.host + "/app:v1",
                                       self.path("b\xe4r.tar")], env=environment, stderr=subprocess.DEVNULL)
        self.assertIn(rb"b\xe4r.tar in ", out)

    def test_forms(self):
        """--option value, --option=value, -ovalue and -o=value mean the same."""
        for forms in [("--platform linux/arm64", "--platform=linux/arm64"),
                      ("-o linux -a arm64", "-olinux -aarm64", "-o=linux -a=arm64", "--os linux --arch arm64",
                       "--os=linux --arch=arm64"),
                      ("-n quay.io", "-nquay.io", "-n=quay.io", "--ns quay.io"), ("-j 3", "-j3", "-j=3", "--jobs=3"),
                      ("-x ca", "-xca", "-x=ca", "--cacert ca", "--ca ca", "--ca=ca"),
                      ("-s http", "-shttp", "-s=http", "--scheme=http"),
                      ("-u jo -p pw", "-ujo -ppw", "-u=jo -p=pw"), ("-c c -k k", "-cc -kk", "-c=c -k=k"),
                      ("-t tok", "-ttok", "-t=tok"),
                      ("-u jo -p -secret", "-u jo -p=-secret", "-u jo --password=-secret", "-u jo --password -secret"),
                      ("-i", "--insecure", "-i=true", "--insecure=true"), ("-q", "--quiet", "-i=false -q")]:
            parsed = [json.loads(self.run_main("--parsed", *(form.split() + ["alpine",
                                                                             "x.tar"])).out.decode()) for form in forms]
            with self.subTest(forms):
                self.assertEqual(parsed, parsed[:1] * len(forms))
                self.assertNotEqual(parsed[0], json.loads(self.run_main("--parsed", "alpine", "x.tar").out.decode()))

    def test_manifest(self):
        """The manifest on stdout, pretty, and nothing else there."""
        server = self.serve(INDEX)
        for what, image in [("list", INDEX), ("image", IMAGE)]:
            run = self.run_main("-s", "http", "--manifest", what, server.host + "/app:v1")
            self.assertEqual((run.code, json.loads(run.out.decode())), (0, json.loads(image.manifest.decode())))
            self.assertGreater(len(run.out.splitlines()), 5)
            self.assertIn(image.digest, run.err)
            self.assertIn(image.media_type, run.err)

    def test_manifest_of_no_index(self):
        """-m list of what is no index is an error; a TAR behind the REF is left alone."""
        server = self.serve()
        self.fails(self.run_main("-s", "http", "-m", "list", server.host + "/app:v1"), "not an index", code=1)
        self.write("image.tar", OLD)
        run = self.run_main("-s", "http", "-m", "image", server.host + "/app:v1", self.tar)
        self.assertEqual((run.code, read(self.tar)), (0, OLD), run.err)

    def test_help_and_version(self):
        run = self.run_main("--help")
        self.assertEqual((run.code, run.err), (0, ""))
        self.assertLessEqual(len(run.out.splitlines()), 60)
        for option in ("--platform", "--ns", "--password-stdin", "--manifest", "--list-tar", "--verify", "--base",
                       "--reuse",
                       "--name", "--jobs", "--timeout", "--retries", "--cacert", "--ca", "--debug", "examples"):
            self.assertIn(option, run.out.decode())
        for option in ("-v", "--version"):
            self.assertRegex(self.run_main(option).out.decode(), r"^imgpull version: \d+\.\d+\.\d+ build date: \S+\n$")

    def test_alone(self):
        """The one file, copied to an empty directory, works from there."""
        copy = self.write("empty/imgpull", read(imgpull.__file__), 0o755)
        out = subprocess.check_output([sys.executable, copy, "--version"], cwd=self.path("empty"),
                                      universal_newlines=True)
        self.assertIn(imgpull.__version__, out)

    def test_demo(self):
        out = subprocess.check_output([sys.executable, os.path.abspath(__file__), "demo"], stderr=subprocess.DEVNULL,
                                      universal_newlines=True)
        self.assertEqual(out.count("$ imgpull "), 3)
        self.assertIn(": good: 1 image", out)

    def test_start_up(self):
        """Heavy modules wait until they are needed."""
        code = "import sys, imgpull; print({'ssl', 'http.client', 'tarfile', 'subprocess', 'email'} & set(sys.modules))"
        loaded = subprocess.check_output([sys.executable, "-c", code], cwd=HERE, universal_newlines=True)
        self.assertEqual(loaded, "set()\n")


class TestExitCodes(Case):
    @staticmethod
    def strike(wire, request, answer):
        """Ctrl-C while an answer is waited for."""
        os.kill(os.getpid(), signal.SIGINT)
        wire.server.closing.wait(5)

    def test_codes(self):
        """One row for each that --help and the README name."""
        def served(*faults):
            return self.serve(faults=faults).host + "/app:v1"
        closed, damaged = self.serve(), self.write("damaged.tar", read(imgpull.__file__))
        closed.close()
        for code, error, words in [
                (0, None, [served(), self.tar]),
                (1, imgpull.ImgpullError, [served(("tag", says(400), 1)), self.tar]),
                (2, imgpull.UsageError, ["Alpine", self.tar]),
                (3, imgpull.NotFound, [served(("tag", says(404), 1)), self.tar]),
                (3, imgpull.NoAccess, [served(("tag", says(403), 1)), self.tar]),
                (4, imgpull.Resumable, [closed.host + "/app:v1", self.tar]),
                (4, imgpull.Resumable, ["--retries", "0", served(("layer", says(503), ALWAYS)), self.tar]),
                (5, imgpull.Damaged, [served(("layer", changed(body=flipped), ALWAYS)), self.tar]),
                (5, imgpull.Damaged, ["--verify", damaged]),
                (6, imgpull.DiskError, [served(), self.path("none", "x.tar")]),
                (7, imgpull.Busy, None),
                (130, None, [served(("tag", self.strike, 1)), self.tar])]:
            with self.subTest(code, words=words):
                self.clean()
                with contextlib.suppress(FileNotFoundError):
                    os.remove(self.tar)
                if error:
                    self.assertEqual(error.exit_code, code)
                if words:                   # for 7 see test_two_at_once
                    run = self.run_main("-s", "http", *words)
                    self.assertEqual(run.code, code, run.err)
                self.assertRegex(imgpull.EPILOG, r"\b%d " % code)

    def test_nobody_listens(self):
        """Refused before anyone has answered: one retry, unless more were asked for. Later it may pass."""
        closed = self.serve()
        closed.close()
        login = self.serve(challenges=['Bearer realm="http://%s/token"' % closed.host])
        for options, server, tries in [((), closed, 2), (("--retries", "3"), closed, 4),
                                       (("--retries", "0"), closed, 0),
                                       ((), login, 6)]:
            with self.subTest(options, tries=tries):
                run = self.run_main("-s", "http", *options, server.host + "/app:v1", self.tar)
                self.fails(run, "refused" + (r" \(tried %d times\)" % tries if tries else "$"), code=4)


# --- fuzz ------------------------------------------------------------------------------------------------------------

class TestFuzz(Case):
    """Seeded: every run tries the same. A result or an ImgpullError; no other exception, no file left."""
    CASES = int(os.environ.get("IMGPULL_FUZZ") or 200)
    NASTY = [None, True, False, 0, -1, 1, 1 << 31, 1 << 63, 1 << 64, 1e308, 0.5, "", " ", "a", "\0", "..", "../../x",
             "/", "sha256:", "é\u202e",
             "sha256:" + "0" * 64, "sha256:" + "0" * 63 + "\n", "unknown", [], {}, [[]], [None], {"": None}, "x" * 5000,
             [{}] * 50]

    def mutated(self, rng, value):
        """A JSON value with something changed somewhere."""
        if isinstance(value, dict) and value and rng.random() < 0.9:
            key = rng.choice(sorted(value))
            changed = dict(value)
            if rng.random() < 0.1:
                del changed[key]
            elif rng.random() < 0.1:
                changed[rng.choice(["urls", "data", "annotations", "platform", "config", "layers", "manifests",
                                    "schemaVersion"])] = rng.choice(self.NASTY)
            else:
                changed[key] = self.mutated(rng, value[key])
            return changed
        if isinstance(value, list) and value and rng.random() < 0.9:
            place = rng.randrange(len(value))
            return value[:place] + [self.mutated(rng, value[place])] * rng.choice([1, 1, 1, 0, 2]) + value[place + 1:]
        return rng.choice(self.NASTY)

    @staticmethod
    def scrambled(rng, data):
        """Bytes with some of them changed, taken out or repeated."""
        data = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(len(data) + 1)
            end = min(len(data), place + rng.choice([0, 1, 1, 5, 50]))
            data[place:end] = rng.choice([b"", bytes([rng.randrange(256)]), bytes(data[place:end]) * 2, b"\xff", b'"',
                                          b"{", b"\r\n", b"0"])
        return bytes(data)

    def scramble(self, rng):
        """A fault: the good answer with some of its bytes changed."""
        def fault(wire, request, answer):
            wire.wfile.write(self.scrambled(rng, answer.head() + answer.body[:300]) + answer.body[300:])
            wire.drop()
        return fault

    def attempt(self, server, **options):
        kept = False
        try:
            imgpull.pull(server.host + "/app:v1", self.tar, scheme="http", retries=0, timeout=5, **options)
        except imgpull.ImgpullError as error:
            self.assertNotIn("internal error", str(error))
            self.assertFalse(os.path.exists(self.tar))
            kept = error.kept
        else:
            with contextlib.suppress(imgpull.ImgpullError):
                imgpull.verify_archive(self.tar)
        finally:
            left = self.left()
            with contextlib.suppress(FileNotFoundError):
                os.remove(self.tar)
            self.clean()
        self.assertEqual(left, ["image.tar.part", "image.tar.part.state"] if kept else [])

    def test_documents(self):
        """Manifests, indexes and configs, changed as JSON and as bytes."""
        image = make_image(b"one", b"two")
        server = self.serve(image)
        index = make_index((image, "linux/amd64"), (ARMV6, "linux/arm/v6"))
        for case in range(self.CASES):
            rng = random.Random(case)
            source, media_type = rng.choice([(image.manifest, OCI.manifest), (index.manifest, OCI.index),
                                             (image.config, OCI.config)])
            value = json.loads(source.decode())
            for _ in range(rng.randrange(1, 4)):
                value = self.mutated(rng, value)
            data = to_json(value) if rng.random() < 0.7 else self.scrambled(rng, source)
            if media_type == OCI.config:
                server.blobs[sha256(data)] = data
                served = make_image(b"one", b"two", change=spoiled("config", to=descriptor(data, OCI.config)))
            else:
                served = document(data, media_type)
            server.add("app", "v1", served)
            with self.subTest(case=case):
                self.attempt(server, platform=rng.choice(["all", None, "linux/arm/v7"]))

    def test_answers(self):
        """Status lines, headers and bodies of every kind of request, scrambled."""
        for case in range(self.CASES // 4):
            rng = random.Random(case)
            kind = rng.choice(["tag", "manifest", "config", "layer", "token", "referrers", "digest tag"])
            times = rng.choice([1, ALWAYS])
            server = self.serve(INDEX, challenges=[BEARER] if kind == "token" else [],
                                page=1 if kind == "referrers" else None,
                                faults=[(kind, self.scramble(rng), times)])
            server.add("app", SBOM.digest, SBOM)
            server.add("app", make_referrer(IMAGE).digest, make_referrer(IMAGE))
            with self.subTest(case=case, kind=kind):
                self.attempt(server, referrers=kind in ("referrers", "digest tag"))
            server.close()

    def test_text(self):
        """References, platforms and challenges: pure functions."""
        seeds = ["docker.io/library/alpine:3.20@sha256:" + "a" * 64, "localhost:5000/a/b_c", "[::1]:5000/x",
                 "linux/arm64/v8",
                 'Bearer realm="https://a/t",service="s",scope="repository:a/b:pull", Basic realm="x\\"y"',
                 "Negotiate abc==, Digest a=b"]
        for case in range(self.CASES * 5):
            rng = random.Random(case)
            text = self.scrambled(rng, rng.choice(seeds).encode()).decode("utf-8", "replace")
            with self.subTest(text):
                for parse in (imgpull.parse_reference, imgpull.parse_platform):
                    try:
                        self.assertEqual(str(parse(str(parse(text)))), str(parse(text)))
                    except imgpull.ImgpullError as error:
                        self.assertFalse(re.search(r"[\x00-\x1f\x7f]", str(error)))
                for scheme, parameters in imgpull.parse_challenges(text):
                    self.assertIsInstance(scheme, str)
                    self.assertTrue(all(isinstance(word, str) for pair in parameters.items() for word in pair))

    @staticmethod
    def retouched(rng, data):
        """A tar with a header changed, or with members taken out, repeated or disguised."""
        starts, place = [], 0
        while data[place:place + 512].strip(b"\0"):
            starts.append(place)
            place += 512 + -(-int(data[place + 124:place + 135], 8) // 512) * 512
        parts = [data[start:end] for start, end in zip(starts, starts[1:] + [place])]
        number = rng.randrange(len(parts))
        part, name = bytearray(parts[number]), tarfile.TarInfo.frombuf(parts[number][:512], "utf-8", "strict").name
        choice = rng.randrange(8)
        if choice == 0:
            parts.insert(rng.randrange(len(parts) + 1), parts[number])
        elif choice == 1:
            del parts[number]
        elif choice == 2:
            rng.shuffle(parts)
        elif choice == 3:
            other = rng.choice([name, "./" + name, "x", "blobs", name + "/", "/" + name, "a/../" + name])
            key = rng.choice(["path", "linkpath", "size", "mtime", "uname", "comment", "GNU.sparse.name", "hdrcharset",
                              "GNU.sparse.size", "GNU.sparse.major", "SCHILY.xattr.a", "SCHILY.realsize", "ctime"])
            value = rng.choice([other, "1", "-1", "", "512", "1.5", "1e3", "0x1", "+1", " 1", "BINARY"])
            parts.insert(number, rng.choice([pax({key: value}), pax({key: value}, b"g"), long_name(other),
                                             long_name(other, b"K")]) * rng.choice([1, 1, 1, 2]))
        elif choice == 4:
            kind = rng.choice([b"0", b"1", b"2", b"5", b"7", b"\0", b"Z", b"S"])
            target = rng.choice([name, "index.json", "../index.json", "a", "blobs", "/index.json"])
            parts.insert(rng.randrange(len(parts) + 1), tar_header(
                rng.choice([name, "a", "a/", "blobs", "./index.json", "index.json/x", "."]), kind=kind, link=target,
                magic=rng.choice([GNU, USTAR, V7]),
                tail=rng.choice([b"", b"a", b"0" * 12, bytes(130) + b"00000000000 "])))
        else:
            for _ in range(rng.choice([1, 1, 2])):
                at, size = rng.choice([(0, 100), (100, 24), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8),
                                       (265, 64), (329, 16), (345, 155), (482, 13), (500, 12)])
                at += rng.randrange(size)
                end = at + rng.choice([1, 1, 3, 12])
                part[at:end] = (rng.choice([b"\0", b" ", b"0", b"7", b"\x80", b"\xff", b"/", b".", b"-", b"x", b"1_0",
                                            b"ustar\x0000", b"ustar  \0", bytes(12)]) * 12)[:end - at]
            part[148:156] = b" " * 8
            part[148:156] = b"%06o\0 " % sum(part[:512])
            parts[number] = bytes(part)
        return b"".join(parts) + rng.choice([bytes(1024)] * 8 + [bytes(512), b"", bytes(10240), bytes(1024) + data])

    def as_tarfile_sees(self, path):
        """{name: bytes} of the files and links in a tar, as Python's tarfile sees them."""
        with tarfile.open(path, "r:") as tar:
            return {os.path.normpath(info.name): tar.extractfile(info).read() for info in tar if not info.isdir()}

    def as_tar_sees(self, path):
        """The same, as GNU tar unpacks them."""
        with tempfile.TemporaryDirectory(dir=self.dir) as directory:
            done = subprocess.run(["tar", "-xf", path, "-C", directory, "--no-same-owner", "--no-same-permissions"],
                                  stderr=subprocess.PIPE)
            self.assertEqual(done.returncode, 0, done.stderr)
            return {os.path.relpath(os.path.join(place, name), directory): read(os.path.join(place, name))
                    for place, _, names in os.walk(directory) for name in names}

    def test_archives(self):
        """Changed archives: what --verify calls good, tarfile and GNU tar read alike."""
        small = make_image(b"one", b"two", b"one")
        sources = [make(small) for make in OTHERS]
        server = self.serve(make_index((small, "linux/amd64"), (ARMV6, "linux/arm/v6")))
        for part, tag in on(server.manifests["app", "v1"], ".sig"), (make_referrer(small), tag_of(small, ".att")):
            server.add("app", tag, part)
        sources.append(self.pull(server, "--referrers"))
        has_tar = b"GNU tar" in (shutil.which("tar") and subprocess.check_output(["tar", "--version"]) or b"")
        good = 0
        for case in range(self.CASES):
            rng = random.Random(case)
            data = rng.choice([self.retouched, self.retouched, self.scrambled])(rng, rng.choice(sources))
            path = self.write("fuzzed.tar", data)
            with self.subTest(case=case):
                with contextlib.suppress(imgpull.ImgpullError):
                    imgpull.list_archive(path)
                if faults_of(path):
                    continue
                good += 1
                with imgpull.Archive(path) as archive:
                    seen = {name: data[member.offset:member.offset + member.size]
                            for name, member in archive.members.items()}
                self.assertEqual(self.as_tarfile_sees(path), seen)
                if has_tar:
                    self.assertEqual(self.as_tar_sees(path), seen)
                packed = self.write("fuzzed.tgz", gzipped(data))
                self.assertEqual((imgpull.list_archive(packed), faults_of(packed)), (imgpull.list_archive(path), []))
        self.assertGreater(good, self.CASES // 20)



# --- a look at it ----------------------------------------------------------------------------------------------------

def demo():
    """A pull from a fake registry on loopback, an archive to look into: what `make demo` shows."""
    hello = [make_image(b"#!/bin/sh\necho hello\n", noise("demo", 300000),
                        architecture=name) for name in ("amd64", "arm64")]
    server = FakeRegistry()
    try:
        name = server.add("demo/hello", "1.0", make_index(*zip(hello, ("linux/amd64", "linux/arm64"))))
        with tempfile.TemporaryDirectory(prefix="imgpull-demo-") as directory:
            tar = os.path.join(directory, "hello.tar")
            for words in (["--scheme", "http", name, tar], ["--list-tar", tar], ["--verify", tar]):
                print("$ imgpull " + " ".join(words).replace(directory + os.sep, ""), flush=True)
                status = imgpull.main(words)
                print(flush=True)
                if status:
                    return status
    finally:
        server.close()
    return 0


def everything():
    """All tests, in two processes at once, since most of them wait for something, and one summary: the exit status."""
    names = sorted(name for name in globals() if name.startswith("Test"))
    begun, passed, failed, skipped, status = time.monotonic(), 0, 0, 0, 0
    command = [sys.executable] + ["-W" + each for each in sys.warnoptions] + [os.path.abspath(__file__)]
    outputs = [tempfile.TemporaryFile() for _ in range(2)]
    processes = [subprocess.Popen(command + names[first::2], stderr=output) for first, output in enumerate(outputs)]
    for process, output in zip(processes, outputs):
        status = max(status, abs(process.wait()))
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
        output.close()
        body, _, summary = text.rpartition("-" * 70)
        print(re.sub(r"^[.sFEx]+$", "", body, flags=re.M).strip() if "FAILED" in summary else "", end="\n" * status)
        counts = dict(re.findall(r"(failures|errors|skipped)=(\d+)", summary))
        bad = int(counts.get("failures", 0)) + int(counts.get("errors", 0))
        ran = int((re.findall(r"Ran (\d+) test", summary) or [0])[0])
        status = status or int(not ran)
        passed, failed = passed + max(0, ran - bad - int(counts.get("skipped", 0))), failed + bad
        skipped += int(counts.get("skipped", 0))
    print("Python %s, %.0f s" % (sys.version.split()[0], time.monotonic() - begun))
    print("%d passed, %d failed%s" % (passed, failed, ", %d skipped" % skipped if skipped else ""))
    return status


if __name__ == "__main__":
    if sys.argv[1:] in ([], ["demo"]):
        sys.exit(demo() if sys.argv[1:] else everything())
    unittest.main()
