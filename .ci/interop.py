#!/usr/bin/env python3
"""imgpull against real software: docker-registry, nginx, tinyproxy, microsocks, dockerd, podman, containerd, skopeo.

    python3 .ci/interop.py              every check
    python3 .ci/interop.py NAME …       some of them: see the functions marked @check

Runs as root on Debian, with the packages that .ci/run installs. All servers listen on loopback and end with
this script.
"""

import base64
import collections
import contextlib
import glob
import gzip
import hashlib
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MIB = 1024 * 1024
OCI, DOCKER = "application/vnd.oci.image.", "application/vnd.docker.distribution."
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
NAME = "registry.interop"  # loopback under a name that is not, which only some processes can resolve

CHECKS, FAILURES = {}, []


class Fault(Exception):
    """A check saw something that it should not see."""


def check(function):
    CHECKS[function.__name__] = function
    return function


@contextlib.contextmanager
def case(title):
    """Print a line of the report: `with case("…") as saw: saw("what came out")`; an exception is a failed case."""
    seen, start = [], time.time()
    try:
        yield seen.append
    except Exception as error:  # whatever goes wrong here is this case's result
        FAILURES.append(title)
        print("FAILED  %s: %s: %s" % (title, type(error).__name__, " | ".join([str(error)] + seen)), flush=True)
    else:
        print("ok      %s: %s (%.1f s)" % (title, "; ".join(seen), time.time() - start), flush=True)


def same(what, got, wanted):
    if got != wanted:
        raise Fault("%s is %r, not %r" % (what, got, wanted))


def at_most(what, got, bound):
    if got > bound:
        raise Fault("%s is %s, more than %s" % (what, got, bound))


# ---- Programs and servers ----
Ran = collections.namedtuple("Ran", "code out err")


def run(args, wanted=0, stdin=b"", **options):
    """Run a program to its end; `wanted` is the exit code it must have, or None for any."""
    process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    out, err = (data.decode("utf-8", "replace") for data in process.communicate(stdin))
    if wanted is not None and process.returncode != wanted:
        raise Fault("%s: exit %s: %s" % (" ".join(args), process.returncode, (err + out).strip()[-2000:]))
    return Ran(process.returncode, out, err)


def refused(action, *args):
    """Return what a loader said when it would not; that it would is a Fault."""
    try:
        said = action(*args)
    except Fault as error:
        return one_line(str(error))
    raise Fault("not refused: %r" % (said,))


def one_line(text):
    return " / ".join(line.strip() for line in text.splitlines() if line.strip())[-300:]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def read(*names):
    with open(os.path.join(*names), "rb") as file:
        return file.read()


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
    return path


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Lab:
    """A temporary directory, and the servers started in it; main() ends both."""

    def __init__(self, directory):
        self.directory, self.made, self.logs = directory, {}, {}  # logs: {port: path of what its server prints}
        os.chmod(directory, 0o755)  # nginx's worker is another user
        self.program = shutil.copy(os.path.join(PROJECT, "imgpull.py"), self.path("alone", ""))  # one file is enough
        # One environment for every program: nothing of the user's configuration or proxies comes in.
        self.env = {name: os.environ[name] for name in ("PATH", "LANG", "TERM") if name in os.environ}
        self.env.update(HOME=self.path("home", ""), TMPDIR=self.path("tmp", ""))

    def path(self, *names):
        """Return a path in the laboratory; its directory is made (end with "" for a directory)."""
        path = os.path.join(self.directory, *names)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def fresh(self, name):
        """Return the path of a new directory."""
        return tempfile.mkdtemp(dir=self.path(name, "")) + "/"

    def once(self, make, *args):
        """Return make(self, *args) of the first time."""
        key = (make,) + args
        if key not in self.made:
            self.made[key] = make(self, *args)
        return self.made[key]

    def serve(self, args, ready):
        """Start a server and wait until it is ready: ready(), or a port that listens."""
        self.logs[ready] = log = self.path("logs", "%d-%s" % (len(self.logs), os.path.basename(args[0])))
        with open(log, "wb") as file:
            subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=self.env)
        for _ in range(400):
            time.sleep(0.05)
            if ready() if callable(ready) else not socket.socket().connect_ex(("127.0.0.1", ready)):
                return log
        raise Fault("%s did not start: %s" % (args[0], read(log)[-2000:]))

    def imgpull(self, *args, python=sys.executable, env=(), within=list, **options):
        """Run imgpull; env is added to the environment, within(command) may wrap the command."""
        return run(within([python, self.program] + list(args)), env=dict(self.env, **dict(env)), **options)

    def mounted(self, command, binds):
        """Return a command that sees other files in the places of some: {its file: the place}."""
        mounts = ["mount --bind '%s' '%s'" % pair for pair in binds.items()]
        return ["unshare", "--mount", "sh", "-c", " && ".join(mounts) + " && exec \"$@\"", "sh"] + command

    def private(self, command, *names):
        """Return a command with its own places for what podman and skopeo remember: any layer they saw, and logins."""
        places = ("/var/lib/containers", "/run/containers")
        for place in places:
            os.makedirs(place, exist_ok=True)
        return self.mounted(command, {self.path(*names + ("own" + place, "")): place for place in places})

    def resolving(self, command):
        """Return a command that can resolve NAME."""
        hosts = write(self.path("etc-hosts"), "127.0.0.1 localhost\n127.0.0.1 %s\n" % NAME)
        return self.mounted(command, {hosts: "/etc/hosts"})

    def skopeo(self, *args, **options):
        return run(self.private(["skopeo", "--insecure-policy"]) + list(args), env=self.env, **options)


class Relay:
    """A TCP relay to a port that counts what it hands to the client, at `rate` bytes a second at most.

    cut: after so many bytes, connections break, and new ones break at once; cuts: so many times only
    """

    def __init__(self, port, rate=None, cut=None, cuts=None):
        self.target, self.rate, self.cut, self.cuts = ("127.0.0.1", port), rate, cut, cuts
        self.sent, self.free_at, self.lock = 0, 0.0, threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            client = self.listener.accept()[0]
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)  # what waits here is counted already
            upstream = socket.create_connection(self.target)
            for source, sink, counted in ((client, upstream, False), (upstream, client, True)):
                threading.Thread(target=self._pump, args=(source, sink, counted), daemon=True).start()

    def _pump(self, source, sink, counted):
        with contextlib.suppress(OSError):
            for data in iter(lambda: source.recv(65536), b""):
                if counted and not self._pass(len(data)):
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _pass(self, size):
        with self.lock:
            self.sent += size
            now = time.time()
            if self.rate:
                self.free_at = max(self.free_at, now) + size / self.rate
            wait = self.free_at - now
            cut = self.cut is not None and self.sent > self.cut and self.cuts != 0
            if cut and self.cuts:
                self.cuts -= 1
        if wait > 0:
            time.sleep(wait)
        return not cut


# ---- Images ----
# What the checks pull: repository:tag -> (format, {platform: layers}); None is this host's platform.
# Layers: busybox, host (this machine's), text:NAME (a small file), noise:NAME:MIB (a file that does not compress).
IMAGES = {
    "busybox:oci": ("oci", {None: ["busybox", "text:motd"]}),
    "busybox:v2s2": ("v2s2", {None: ["busybox", "text:v2s2"]}),
    "library/busybox:hub": ("oci", {None: ["busybox", "text:hub"]}),
    "host:1": ("oci", {None: ["busybox", "host"]}),
    "proxy/library/busybox:hub": ("oci", {None: ["busybox", "text:proxy"]}),
    "quay.io/library/busybox:hub": ("oci", {None: ["busybox", "text:quay"]}),
    "mini:1": ("oci", {None: ["busybox", "text:mini"]}),
    "thrice:1": ("oci", {None: ["busybox", "text:a", "text:a", "text:b", "text:a"]}),
    "sixty:1": ("oci", {None: ["busybox"] + ["text:%d" % number for number in range(59)]}),
    "stream:1": ("oci", {None: ["busybox", "noise:stream:24", "text:stream"]}),
    "many:index": ("oci", {None: ["busybox", "text:own"], "linux/s390x": ["text:s390x"], "linux/arm/v7": ["text:arm"]}),
    "many:list": ("v2s2", {None: ["busybox", "text:own2"], "linux/s390x": ["text:s390x"]}),
    "app:1": ("oci", {None: ["busybox", "noise:base:48", "text:shared", "text:one"]}),
    "app:2": ("oci", {None: ["busybox", "noise:base:48", "text:shared", "text:two", "noise:two:8"]}),
}

def layer_file(spec):
    """Return the path and the content of the file that is in this layer and no other."""
    kind, _, rest = spec.partition(":")
    if kind == "text":
        return "layers/%s.txt" % rest, b"layer %s\n" % rest.encode()
    times, block = int(rest.partition(":")[2]) // 8, random.Random(spec).getrandbits(64 * MIB)
    return "noise/" + rest, block.to_bytes(8 * MIB, "little") * times


def layer(lab, spec):
    """Put a layer into the OCI layout, noise hardly compressed (it would only cost time): diff_id, descriptor."""
    if spec == "busybox":
        shutil.copy(shutil.which("busybox"), lab.path("box", "bin", "busybox"))
        for name in ("sh", "cat", "true"):
            os.symlink("busybox", lab.path("box", "bin", name))
        data = subprocess.check_output(["tar", "-C", lab.path("box", ""), "-cf", "-", "bin"])
    elif spec == "host":  # a real tree, with links of all kinds
        data = subprocess.check_output(["tar", "--one-file-system", "-C", "/", "-cf", "-", "etc", "usr/sbin"])
    else:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as tar:
            name, content = layer_file(spec)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        data = raw.getvalue()
    packed = gzip.compress(data, 0 if spec.startswith("noise") else 1, mtime=0)
    return sha256(data), store(lab, packed, OCI + "layer.v1.tar+gzip")


def blob_path(lab, digest):
    return lab.path("layout", "blobs", "sha256", digest[len("sha256:"):])


def store(lab, data, kind):
    """Put a small blob, or a document, into the OCI layout; return its descriptor."""
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    write(blob_path(lab, sha256(data)), data)
    return {"mediaType": kind, "digest": sha256(data), "size": len(data)}


def store_manifest(lab, config, layers, **more):
    body = dict({"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "config": config, "layers": layers}, **more)
    return store(lab, body, body["mediaType"])


def store_index(lab, manifests):
    kind = OCI + "index.v1+json"
    return store(lab, {"schemaVersion": 2, "mediaType": kind, "manifests": manifests}, kind)


def manifest(lab, platform, specs, name):
    """Put a manifest and its config into the OCI layout; return its descriptor."""
    platform = dict(zip(("os", "architecture", "variant"), platform.split("/")))
    layers, created = [lab.once(layer, spec) for spec in specs], "2024-01-01T00:00:00Z"
    config = dict(platform, created=created, rootfs={"type": "layers", "diff_ids": [diff_id for diff_id, _ in layers]},
                  history=[{"created": created, "created_by": spec} for spec in specs],
                  config={"Env": ["PATH=/bin:/usr/bin"], "Cmd": ["sh"], "Labels": {"interop": name}})
    config = store(lab, config, OCI + "config.v1+json")
    return dict(store_manifest(lab, config, [descriptor for _, descriptor in layers]), platform=platform)


def build(lab, name, *specs):
    """Build an image of the table, or of these layers, push it to the plain registry, and return `repository:tag`."""
    format_, platforms = ("oci", {None: specs}) if specs else IMAGES[name]
    descriptors = [manifest(lab, platform or "linux/" + ARCHITECTURE, layers, name)
                   for platform, layers in platforms.items()]
    top = descriptors[0]
    if len(descriptors) > 1 and format_ == "v2s2":
        top = store_index(lab, descriptors)
    elif len(descriptors) > 1:
        # As BuildKit does: an entry of no platform that is no image.
        unknown = {"architecture": "unknown", "os": "unknown"}
        statement = store(lab, {}, "application/vnd.in-toto+json")
        config = dict(unknown, config={}, rootfs={"type": "layers", "diff_ids": [statement["digest"]]})
        attestation = dict(store_manifest(lab, store(lab, config, OCI + "config.v1+json"), [statement]),
                           platform=unknown, annotations={"vnd.docker.reference.type": "attestation-manifest",
                                                          "vnd.docker.reference.digest": top["digest"]})
        top = store_index(lab, descriptors + [attestation])
    push(lab, top, name, format_)
    return name


def push(lab, top, name, format_):
    """Have skopeo push what is in the OCI layout under `top` to the plain registry."""
    top = dict(top, annotations={"org.opencontainers.image.ref.name": "it"})
    layout = lab.path("layout", "")
    write(layout + "oci-layout", '{"imageLayoutVersion": "1.0.0"}')
    write(layout + "index.json", json.dumps({"schemaVersion": 2, "manifests": [top]}))
    lab.skopeo("copy", "--quiet", "--all", "--format", format_, "--dest-tls-verify=false",
               "oci:%s:it" % layout.rstrip("/"), "docker://127.0.0.1:%d/%s" % (lab.once(registry, "plain"), name))


# What an image is, read from the registry without imgpull's help. `digest` is what the tag stands for.
Truth = collections.namedtuple("Truth", "name digest manifest config diff_ids label layers size")


def fetch(port, repository, path):
    """Return the digest and the content of a document in a registry."""
    types = [OCI + kind + ".v1+json" for kind in ("index", "manifest")]
    types += [DOCKER + kind + ".v2+json" for kind in ("manifest.list", "manifest")]
    url = "http://127.0.0.1:%d/v2/%s/%s" % (port, repository, path)
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": ", ".join(types)})) as got:
        data = got.read()
    return sha256(data), json.loads(data.decode())


def truth(lab, name, called=None):
    """Return what the plain registry holds under `name`, and the name that its archive must carry."""
    repository, _, tag = name.partition("@" if "@" in name else ":")
    port = lab.once(registry, "plain")
    digest, body = fetch(port, repository, "manifests/" + tag)
    child = digest
    if "manifests" in body:
        child, body = fetch(port, repository, "manifests/" + body["manifests"][0]["digest"])
    config, content = fetch(port, repository, "blobs/" + body["config"]["digest"])
    return Truth(called or "127.0.0.1:%d/%s" % (port, name), digest, child, config, content["rootfs"]["diff_ids"],
                 content["config"]["Labels"]["interop"], [each["digest"] for each in body["layers"]],
                 sum({each["digest"]: each["size"] for each in body["layers"]}.values()))


# ---- Registries, and what stands in front of them ----

def registry(lab, kind):
    """Start a docker-registry: "plain" gets the images, others serve the same, but for "mirror", "far" and "empty"."""
    directory, port = lab.once(authority), free_port()
    http_ = {"addr": "127.0.0.1:%d" % port, "secret": "interop"}
    storage = {"filesystem": {"rootdirectory": lab.path(kind if kind in ("mirror", "far", "empty") else "storage", "")}}
    config = {"version": "0.1", "log": {"level": "error"}, "http": http_, "storage": storage}
    if kind in ("tls", "mtls", "login", "token"):
        http_["tls"] = {"certificate": directory + "server.crt", "key": directory + "server.key"}
    if kind == "mtls":
        http_["tls"]["clientcas"] = [directory + "ca.crt"]
    elif kind == "login":
        path = write(lab.path("registries", "htpasswd"), run(["htpasswd", "-Bbn", "alice", "s3cret"]).out)
        config["auth"] = {"htpasswd": {"realm": "interop", "path": path}}
    elif kind == "token":
        config["auth"] = {"token": {"realm": "https://127.0.0.1:%d/token" % lab.once(nginx)[0]["token"],
                                    "service": "real-registry", "issuer": "interop",
                                    "rootcertbundle": directory + "token.crt"}}
    elif kind == "mirror":
        config["proxy"] = {"remoteurl": "http://127.0.0.1:%d" % lab.once(registry, "plain")}
    path = write(lab.path("registries", kind + ".yml"), json.dumps(config))  # JSON is YAML
    lab.serve(["docker-registry", "serve", path], port)
    return port


def requested(lab, port):
    """Return what the registry on a port has been asked for, without the method: its access log."""
    time.sleep(0.2)  # a request is logged once it is answered
    return re.findall('"(?:GET|HEAD) (/v2/[^ ]+) HTTP', read(lab.logs[port]).decode())


def authority(lab):
    """Make a private CA with a server's and a client's certificate, and one for tokens: return their directory."""
    directory = lab.path("certificates", "")
    by_ca = ["-CA", directory + "ca.crt", "-CAkey", directory + "ca.key", "-addext"]
    for name, more in (("ca", []), ("token", []), ("client", by_ca + ["extendedKeyUsage=clientAuth"]),
                       ("server", by_ca + ["subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:" + NAME])):
        run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=interop " + name,
             "-keyout", directory + name + ".key", "-out", directory + name + ".crt"] + more)
    return directory


def sign(lab):
    """Make a JWT that lets its bearer pull busybox, as docker-registry's token authentication wants it."""
    def packed(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    directory, now = lab.once(authority), int(time.time())
    lines = read(directory + "token.crt").decode().splitlines()
    header = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(line for line in lines if "-----" not in line)]}
    claims = {"iss": "interop", "sub": "alice", "aud": "real-registry", "exp": now + 300, "nbf": now - 10, "iat": now,
              "jti": str(random.random()), "access": [{"type": "repository", "name": "busybox", "actions": ["pull"]}]}
    message = b".".join(packed(json.dumps(part).encode()) for part in (header, claims))
    path = write(lab.path("registries", "jwt"), message)
    signature = subprocess.check_output(["openssl", "dgst", "-sha256", "-sign", directory + "token.key", path])
    return (message + b"." + packed(signature)).decode()


def nginx(lab):
    """Start nginx before the registries: {rule: port}, and the path of its log, with "PORT status path" a line.

    "token" is a token server; "mtls" wants a client certificate; a status is the answer to a Range; "no challenge"
    answers 401 without a challenge before the registry with a password, and "hidden" 404.
    """
    directory, home, servers, ports = lab.once(authority), lab.path("nginx", ""), "", {}
    plain = "http://127.0.0.1:%d" % lab.once(registry, "plain")
    login = "https://127.0.0.1:%d" % lab.once(registry, "login")
    verify = "ssl_client_certificate %sca.crt; ssl_verify_client on;" % directory
    unless = "location ~ ^/v2/.+ { if ($http_authorization = '') { return %d; } proxy_pass %s; }"
    token = "location /token { if ($http_authorization != 'Basic %s') { return 401; } return 200 '%s'; }" % (
        base64.b64encode(b"alice:s3cret").decode(), json.dumps({"token": sign(lab)}))
    rules = [("token", " ssl", plain, token), ("mtls", " ssl", plain, verify),
             ("no challenge", " ssl", login, unless % (401, login)), ("hidden", " ssl", login, unless % (404, login))]
    rules += [(code, "", plain, "location ~ /blobs/ { if ($http_range) { return %d; } proxy_pass %s; }" % (code, plain))
              for code in (400, 403, 500, 501)]
    for title, tls, upstream, rule in rules:
        ports[title] = free_port()
        servers += "server { listen 127.0.0.1:%d%s; %s location / { proxy_pass %s; } }\n" % (
            ports[title], tls, rule, upstream)
    temporary = "".join("%s_temp_path %s%s;" % (name, home, name)
                        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config = write(home + "conf", """
        daemon off; pid %(home)spid; error_log %(home)serror.log; worker_processes 1; events {}
        http { log_format short '$server_port $status $request_uri'; access_log %(home)slog short; %(temporary)s
          ssl_certificate %(directory)sserver.crt; ssl_certificate_key %(directory)sserver.key;
          proxy_set_header Host $http_host; %(servers)s }
        """ % {"home": home, "temporary": temporary, "directory": directory, "servers": servers})
    lab.serve(["nginx", "-c", config, "-e", home + "error.log"], ports["mtls"])
    return ports, home + "log"


def tinyproxy(lab):
    """Start tinyproxy with a user and password: its port, and its log, to see that it was used."""
    port, log = free_port(), lab.path("tinyproxy", "log")
    config = write(lab.path("tinyproxy", "conf"), "\n".join([
        "Port %d" % port, "Listen 127.0.0.1", "Timeout 60", "LogFile \"%s\"" % log, "LogLevel Connect",
        "MaxClients 50", "Allow 127.0.0.1", "BasicAuth bob pr0xy", "ConnectPort %d" % lab.once(registry, "tls")]))
    lab.serve(lab.resolving(["tinyproxy", "-d", "-c", config]), port)
    return port, log


def microsocks(lab):
    """Start a SOCKS5 server with a user and password: its port and its log."""
    port = free_port()
    command = ["microsocks", "-i", "127.0.0.1", "-p", str(port), "-u", "bob", "-P", "pr0xy"]
    return port, lab.serve(lab.resolving(command), port)


# ---- Loaders: each has take(archive, truths), which loads an archive and raises a Fault unless it came out right ----

def right(title, config_digest, config, one):
    """Compare the config that a loader has with the registry's."""
    seen = config_digest, config["rootfs"]["diff_ids"], config["config"]["Labels"]["interop"]
    same(title, seen, (one.config, one.diff_ids, one.label))


class Docker:
    """A dockerd of its own; calling it runs its client. `stdin` and `fetch` load from stdin, pull from a registry."""

    stdin, fetch = ["load"], ["pull", "--quiet"]

    def __init__(self, lab, name=None):
        self.lab, self.home = lab, lab.path(name or type(self).__name__.lower(), "")
        self.start(self.home)

    def start(self, home):
        self.client = ["docker", "-H", "unix://%ssock" % home]
        self.lab.serve(["dockerd", "--config-file", write(home + "daemon.json", "{}"), "--storage-driver", "vfs",
                        "--iptables=false", "--ip6tables=false", "--bridge=none", "--data-root", home + "data",
                        "--exec-root", home + "exec", "--pidfile", home + "pid", "-H", self.client[2]], self.is_up)

    def __call__(self, *args, **options):
        return run(self.client + list(args), env=self.lab.env, **options)

    def is_up(self):
        return os.path.exists(self.home + "sock") and self("version", wanted=None).code == 0

    def take(self, path, truths):
        """Load an archive, see that its images came out right, and forget them: nothing is left for the next one."""
        said = self.load(path)
        try:
            for one in truths:
                self.look(one)
        finally:
            for one in truths:
                self.forget(one)
        return said

    def load(self, path):
        return one_line(self(*self.stdin, stdin=read(path)).out)

    def id(self, one):
        return one.config[len("sha256:"):]

    def look(self, one):
        tagged = "@" not in one.name
        seen = json.loads(self("image", "inspect", one.name if tagged else self.id(one)).out)[0]
        config = {"rootfs": {"diff_ids": seen["RootFS"]["Layers"]}, "config": seen["Config"]}
        right("the image", "sha256:" + seen["Id"].replace("sha256:", ""), config, one)
        short = re.sub("^docker.io/(library/)?", "", one.name) if type(self) is Docker else one.name
        same("its names", seen["RepoTags"], [short] if tagged else [])

    def content(self, one, paths):
        """Return what `cat` shows in a container of an image."""
        return self("run", "--rm", "--network", "none", self.id(one), "cat", *paths).out

    def forget(self, one):
        self("image", "rm", "-f", self.id(one))

    def holds(self, one):
        return self("image", "inspect", self.id(one), wanted=None).code == 0


class Podman(Docker):
    """podman with a storage of its own."""

    stdin, fetch = ["load"], ["pull", "--quiet", "--tls-verify=false"]

    def start(self, home):
        self.client = self.lab.private(["podman", "--root", home + "root", "--runroot", home + "run", "--tmpdir",
                                        home + "tmp", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
                                        "--events-backend", "file"], home)

    def content(self, one, paths):
        root = self("image", "mount", self.id(one)).out.strip()
        return b"".join(read(root, path.lstrip("/")) for path in paths).decode("utf-8", "replace")


class NamedPodman(Podman):
    """podman that pulls each image of an archive by its name there."""

    def take(self, path, truths):
        for one in truths:
            self("pull", "-q", "oci-archive:%s:%s" % (path, ref_name(one, truths)))
            self.look(one)
            same("what runs", self.content(one, ["bin/sh"])[1:4], "ELF")
            self.forget(one)
        return "pulled"


class Containerd(Docker):
    """A containerd of its own."""

    stdin = ["images", "import", "--snapshotter", "native", "-"]
    fetch = ["images", "pull", "--plain-http", "--snapshotter", "native"]

    def start(self, home):
        self.client = ["ctr", "-a", home + "sock", "-n", "interop"]
        config = write(home + "config.toml", """
            version = 2
            root = "%(home)sroot"
            state = "%(home)sstate"
            disabled_plugins = ["io.containerd.grpc.v1.cri"]
            [grpc]
            address = "%(home)ssock"
            [ttrpc]
            address = "%(home)sttrpc"
            """ % {"home": home})
        self.lab.serve(["containerd", "-c", config], self.is_up)

    def names(self, one):
        rows = [line.split() for line in self("images", "ls").out.splitlines()[1:]]
        return [row[0] for row in rows if row[2] == one.digest]

    def look(self, one):
        same("containerd's names for it", self.names(one), [one.name])
        status = self("images", "check", "--snapshotter", "native", "name==" + one.name).out.splitlines()[1].split()
        blobs = len(one.layers) + 1
        same("containerd's check", status[3:5] + status[-1:], ["complete", "(%d/%d)" % (blobs, blobs), "true"])
        right("containerd's image", one.config, json.loads(self("content", "get", one.config).out), one)

    def content(self, one, paths):
        return self("run", "--rm", "--snapshotter", "native", one.name, "interop", "cat", *paths).out

    def forget(self, one):
        self("images", "rm", "--sync", *self.names(one))

    def holds(self, one):
        """It lists an image whose layers it lacks; what counts is whether it finds it complete."""
        row = self("images", "check", "--snapshotter", "native", "name==" + one.name).out.splitlines()[1:]
        return bool(row) and " complete " in row[0]


def ref_name(one, truths):
    """Return what skopeo and podman want after oci-archive:TAR: for one of an archive's images."""
    return one.name.rpartition(":")[2] if len(truths) == 1 else one.name


class Skopeo:
    """skopeo, through one of its transports; `tagged`: it has to be told which image, though there is only one."""

    def __init__(self, lab, transport, tagged=False):
        self.lab, self.transport, self.tagged = lab, transport, tagged

    def copy(self, source, one):
        """Copy an image, and compare every digest."""
        out = self.lab.fresh("skopeo")
        self.lab.skopeo("copy", "--quiet", source, "dir:" + out)
        data = read(out, "manifest.json")
        body = json.loads(data.decode())
        digests = [each["digest"] for each in body["layers"] + [body["config"]]]
        same("skopeo's blobs", [sha256(read(out, digest[7:])) for digest in digests], digests)
        right("skopeo's image", digests[-1], json.loads(read(out, digests[-1][7:]).decode()), one)
        if self.transport == "oci-archive":
            same("skopeo's digest", sha256(data), one.manifest)
        shutil.rmtree(out)

    def take(self, path, truths):
        for one in truths:
            name = ref_name(one, truths) if self.transport == "oci-archive" else one.name
            self.copy(":".join([self.transport, path] + [name] * (self.tagged or len(truths) > 1)), one)
        return "copied and hashed"


def loaders(lab):
    return [("docker load", lab.once(Docker)), ("podman load", lab.once(Podman)),
            ("ctr images import", lab.once(Containerd)), ("skopeo docker-archive", Skopeo(lab, "docker-archive")),
            ("skopeo oci-archive", Skopeo(lab, "oci-archive")), ("podman pull oci-archive", lab.once(NamedPodman))]


# ---- The checks: archives ----
# Title, images ("@" stands for one by its digest), options (OWN for this host's architecture).
ARCHIVES = [
    ("OCI", ["busybox:oci"], []),
    ("Docker schema 2", ["busybox:v2s2"], []),
    ("this machine's files", ["host:1"], []),
    ("index, this platform", ["many:index"], []),
    ("Docker list, this platform", ["many:list"], []),
    ("index, --platform all", ["many:index"], ["--platform", "all"]),
    ("several images", ["busybox:oci", "thrice:1", "many:index"], []),
    ("several images, OCI and Docker", ["busybox:oci", "thrice:1", "busybox:v2s2"], []),
    ("several images, one tag", ["mini:1", "thrice:1"], []),
    ("index, two platforms of three", ["many:index"], ["--platform", "linux/OWN,linux/s390x"]),
    ("by digest", ["busybox@"], []),
    ("a layer thrice", ["thrice:1"], []),
    ("60 layers", ["sixty:1"], [])]


def archive(lab, names, options=(), port=None, **more):
    """Pull images of the table with imgpull: the archive's path, and what each image in it has to be."""
    plain, truths = lab.once(registry, "plain"), []
    options = [option.replace("OWN", ARCHITECTURE) for option in options]
    for name in names:
        one = truth(lab, lab.once(build, name.replace("@", ":oci")))
        if name.endswith("@"):
            one = truth(lab, name + one.digest)
        if not any(option == "all" or "," in option for option in options):  # one platform's manifest alone
            one = one._replace(digest=one.manifest)
        truths.append(one)
    references = [one.name.replace(":%d/" % plain, ":%d/" % (port or plain)) for one in truths]
    path = lab.fresh("archives") + "image.tar"
    lab.imgpull("--scheme", "http", *(options + references + [path]), **more)
    return path, truths


def intact(path, truths, omitted=()):
    """Hash every blob of an archive, and see that each image is all there; return the bytes of all blobs."""
    found = {}
    with tarfile.open(path) as tar:
        for member in tar:
            if member.name.startswith("blobs/"):
                same(member.name, sha256(tar.extractfile(member).read())[7:], member.name[-64:])
                found["sha256:" + member.name[-64:]] = member.size
    for one in truths:
        missing = {one.digest, one.manifest, one.config}.union(one.layers) - set(found)
        same("what is missing in " + path, missing, set(omitted).intersection(one.layers))
    return sum(found.values())


@check
def loading(lab):
    """Archives of every kind, loaded by every loader under the names that --list-tar shows."""
    for title, names, options in ARCHIVES:
        truths = []
        with case("%s: pulled" % title) as saw:
            path, truths = archive(lab, names, options)
            saw("%d bytes of blobs" % intact(path, truths))
            listed = lab.imgpull("--list-tar", path).out
            wanted = [one.name for one in truths]
            wanted += ["oci-archive:%s:%s" % (path, ref_name(one, truths)) for one in truths if "@" not in one.name]
            same("names that --list-tar lacks", [name for name in wanted if name not in listed.split()], [])
        for loader, tool in loaders(lab) if truths else ():
            with case("%s: %s" % (title, loader)) as saw:
                # skopeo and podman know no names of Docker's schema 2, and podman none without a tag.
                unnamed = "Docker" in title and (len(truths) > 1 or "podman" in loader) or title == "by digest"
                if unnamed and "oci-archive" in loader and (title, loader) != ("by digest", "skopeo oci-archive"):
                    saw("refused, as known: " + refused(tool.take, path, truths))
                else:
                    saw(tool.take(path, truths))


@check
def some_platforms(lab):
    """Two platforms of three in one archive, with their index: who asks for one of them gets it."""
    path, (one,) = archive(lab, ["many:index"], ["--platform", "linux/OWN,linux/s390x"])
    load = ["images", "import", "--snapshotter", "native", "--platform"]
    for platform, there in (("linux/s390x", True), ("linux/arm/v7", False)):
        with case(platform + ": ctr and skopeo"):
            copy = ["--override-arch", platform.split("/")[1], "copy", "--quiet", "oci-archive:" + path]
            done = (lab.once(Containerd)(*load, platform, path, wanted=None),
                    lab.skopeo(*copy, "dir:" + lab.fresh("skopeo"), wanted=None))
            same("being taken", [each.code == 0 for each in done], [there] * 2)
            lab.once(Containerd)("images", "rm", "--sync", one.name)


@check
def foreign(lab):
    """Archives of other tools are refused with a hint, not read in a way of our own."""
    one, docker, saved = truth(lab, lab.once(build, "busybox:oci")), lab.once(Docker), lab.path("saved", "")
    docker(*docker.fetch, one.name)
    docker("save", "-o", saved + "docker-save", one.name)
    docker.forget(one)
    for form in ("docker-archive", "oci-archive"):
        target = "%s:%sskopeo-%s:%s" % (form, saved, form, one.name)
        lab.skopeo("copy", "--quiet", "--src-tls-verify=false", "docker://" + one.name, target)
    for name, option in itertools.product(sorted(os.listdir(saved)), ("--list-tar", "--verify", "--base", "--reuse")):
        with case("%s %s" % (option, name)) as saw:
            more = ["-s", "http", one.name, saved + "delta"] if option in ("--base", "--reuse") else []
            said = lab.imgpull(option, saved + name, *more, wanted=None)
            saw("exit %d, %s" % (said.code, one_line(said.err)))
            same("being refused, a traceback", (said.code in (2, 5), "Traceback" in said.err), (True, False))


@check
def hostile(lab):
    """test_imgpull.py's archives that make a loader take another image are refused; its good one is taken by all."""
    sys.path.insert(0, PROJECT)
    import test_imgpull as tests
    tools = [lab.once(make, "hostile-" + make.__name__.lower()) for make in (Docker, Podman)]
    safe = {tests.sha256(tests.SAFE.config), tests.SAFE.digest}
    rows = [("good", tests.PLAIN)] + [(row.name, row.archive) for row in tests.selected(tests.HOSTILE) if row.evil]
    for title, data in rows:
        with case(title) as saw:
            path, taken = write(lab.path("hostile", "archive.tar"), data), []
            said = lab.imgpull("--verify", path, wanted=5 if title != "good" else 0)
            saw(one_line(said.out + said.err))
            for tool in tools:
                tool("load", stdin=data, wanted=None)
                taken.append(set(tool("image", "ls", "--all", "--quiet", "--no-trunc").out.split()))
                for config in taken[-1]:
                    tool("image", "rm", "-f", config, wanted=None)
            for form, name in itertools.product(("docker-archive", "oci-archive"), ("", ":" + tests.APP, ":v1", ":v2")):
                out = lab.fresh("skopeo")
                source = "%s:%s%s" % (form, path, name)
                if lab.skopeo("copy", "--quiet", source, "dir:" + out, wanted=None).code == 0:
                    taken.append({json.loads(read(out, "manifest.json").decode())["config"]["digest"]})
            saw("taken: %s" % [len(each - safe) for each in taken])
            same("another image being taken, none being taken",
                 (any(each - safe for each in taken), title == "good" and not all(taken)), (title != "good", False))


# ---- The checks: ways to a registry ----
def attempt(lab, reference, options=(), code=0, words="", **more):
    """Pull busybox:oci in some way, and return what stderr says: no secret; a failure leaves nothing behind."""
    one, out = truth(lab, lab.once(build, "busybox:oci")), lab.fresh("attempts")
    ran = lab.imgpull(reference, out + "out.tar", *options, wanted=code, **more)
    if words not in ran.err or re.search("Traceback|s3cret|wr0ng|pr0", ran.err.replace(out, "")):
        raise Fault("it says " + ran.err)
    same("what is left behind", os.listdir(out), [] if code else ["out.tar"])
    if not code:
        intact(out + "out.tar", [one])
    return one_line(ran.err) or "pulled"


@check
def fronts(lab):
    """Private CAs, client certificates, passwords and tokens, at real registries and nginx."""
    files, (front, log) = lab.once(authority), lab.once(nginx)
    plain, tls, mtls, login, token = (lab.once(registry, kind) for kind in ("plain", "tls", "mtls", "login", "token"))
    ca, client = ["--cacert", files + "ca.crt"], ["--cert", files + "client.crt", "--key", files + "client.key"]
    user, stranger = ca + ["--user", "alice", "--password", "s3cret"], ca + ["-u", "alice", "-p", "wr0ng"]
    rows = [  # title, port, options, environment, exit code, words to be seen on stderr
        ("http", plain, ["--scheme", "http"], {}, 0, ""),
        ("http registry on this host, nothing said", plain, [], {}, 0, ""),
        ("http registry asked over https", plain, ["-s", "https"], {}, 1, "--scheme http"),
        ("private CA", tls, ca, {}, 0, ""),
        ("private CA in SSL_CERT_FILE", tls, [], {"SSL_CERT_FILE": files + "ca.crt"}, 0, ""),
        ("private CA not given", tls, [], {}, 1, "--cacert"),
        ("--insecure", tls, ["--insecure"], {}, 0, "warning"),
        ("https registry asked over http", tls, ["--scheme", "http"], {}, 1, "--scheme http"),
        ("client certificate", mtls, ca + client, {}, 0, ""),
        ("no client certificate", mtls, ca, {}, 1, "--cert"),
        ("client certificate at nginx", front["mtls"], ca + client, {}, 0, ""),
        ("no client certificate at nginx", front["mtls"], ca, {}, 1, "--cert"),
        ("htpasswd", login, user, {}, 0, ""),
        ("htpasswd, --password-stdin", login, ca + ["--user", "alice", "--password-stdin"], {}, 0, ""),
        ("htpasswd, --token", login, ca + ["--token", base64.b64encode(b"alice:s3cret").decode()], {}, 0, ""),
        ("htpasswd, wrong password", login, stranger, {}, 3, "no access"),
        ("htpasswd, nobody", login, ca, {}, 3, "--user"),
        ("token", token, user, {}, 0, ""),
        ("token, --token", token, ca + ["--token", sign(lab)], {}, 0, ""),
        ("token, wrong password", token, stranger, {}, 3, "no access"),
        ("token, nobody", token, ca, {}, 3, "--user"),
        ("401 without a challenge, password", front["no challenge"], user, {}, 0, ""),
        ("401 without a challenge, nobody", front["no challenge"], ca, {}, 3, "--user"),
        ("404 to strangers, password", front["hidden"], user, {}, 0, ""),
        ("404 to strangers, nobody", front["hidden"], ca, {}, 3, "")]
    pythons = glob.glob(os.path.expanduser("~/.pyenv/versions/3.6.*/bin/python3")) + [sys.executable]
    for python, (title, port, options, env, code, words) in itertools.product(pythons, rows):
        with case("%s (%s)" % (title, python)) as saw:
            saw(attempt(lab, "127.0.0.1:%d/busybox:oci" % port, options, code, words, env=env, python=python,
                        stdin=b"s3cret\n"))
    queries = re.findall(r"/token\?(.*)", read(log).decode())
    same("all having a scope", {"repository:busybox:pull" in each.replace("%3A", ":") for each in queries}, {True})


@check
def ranges(lab):
    """nginx that refuses every range, and a connection that breaks midway: the layer comes as a whole."""
    (ports, log), one = lab.once(nginx), truth(lab, lab.once(build, "stream:1"))
    for status in (400, 403, 500, 501):
        with case("%d to every range" % status) as saw:
            relay, out = Relay(ports[status], cut=one.size // 2, cuts=1), lab.fresh("ranges") + "out.tar"
            saw(one_line(lab.imgpull("--scheme", "http", "127.0.0.1:%d/stream:1" % relay.port, out).err))
            intact(out, [one])
            count = read(log).decode().count("%d %d /" % (ports[status], status))
            saw("%d ranges refused, %.2f of the image fetched" % (count, relay.sent / one.size))
            same("a range being refused, the cut being done", (count > 0, relay.cuts), (True, 0))


@check
def logins(lab):
    """A host set up by docker login, podman login and certs.d pulls with no options at all."""
    port, mtls, files, home = (lab.once(registry, "login"), lab.once(registry, "mtls"), lab.once(authority),
                               lab.path("settled", ""))
    host, docker, podman, podmans = "127.0.0.1:%d" % port, lab.once(Docker), lab.once(Podman), "containers/auth.json"
    for place, source, name in ((port, "ca.crt", "ca.crt"), (mtls, "ca.crt", "ca.crt"),
                                (mtls, "client.crt", "client.cert"), (mtls, "client.key", "client.key")):
        shutil.copy(files + source, lab.path("settled/.config/containers/certs.d/127.0.0.1:%d" % place, name))
    login = ["login", "--username", "alice", "--password-stdin"]
    podman(*login, "--tls-verify=false", host, stdin=b"s3cret")
    docker("--config", home + ".docker", *login, host, stdin=b"s3cret")
    podman(*login, "--tls-verify=false", "--authfile", home + podmans, host, stdin=b"s3cret")
    for title, env, code in (
            ("docker login", {}, 0),
            ("docker login, $DOCKER_CONFIG", {"DOCKER_CONFIG": home + ".docker"}, 0),
            ("podman login", {"DOCKER_CONFIG": "/nowhere"}, 0),
            ("podman login, $XDG_RUNTIME_DIR", {"DOCKER_CONFIG": "/nowhere", "XDG_RUNTIME_DIR": home}, 0),
            ("podman login, $REGISTRY_AUTH_FILE", {"REGISTRY_AUTH_FILE": home + podmans}, 0),
            ("no login", {"DOCKER_CONFIG": "/nowhere"}, 3),
            ("client certificate in certs.d", {}, 0)):
        with case(title) as saw:
            within = (lambda command: lab.private(command, podman.home)) if title == "podman login" else list
            place = mtls if title.startswith("client") else port
            saw(attempt(lab, "127.0.0.1:%d/busybox:oci" % place, (), code, env=dict(env, HOME=home), within=within))


@check
def proxies(lab):
    """tinyproxy and microsocks with a password; a host that is asked for directly, and one that they resolve."""
    (http_, http_log), (socks, socks_log) = lab.once(tinyproxy), lab.once(microsocks)
    plain, tls = ("%s:%d" % (NAME, lab.once(registry, kind)) for kind in ("plain", "tls"))
    ca, insecure = ["--cacert", lab.once(authority) + "ca.crt", "--retries", "0"], ["--scheme", "http"]
    proxy, closed = "http://bob:pr0xy@127.0.0.1:%d" % http_, "http://127.0.0.1:%d" % free_port()
    five, five_h = ("socks5%s://bob:pr0xy@127.0.0.1:%d" % (h, socks) for h in ("", "h"))
    for title, target, options, env, code, line in (
            ("http", plain, insecure, {"http_proxy": proxy}, 0, "GET http://%s/v2/busybox/" % plain),
            ("https", tls, ca, {"https_proxy": proxy}, 0, "CONNECT %s " % tls),
            ("https, HTTPS_PROXY", tls, ca, {"HTTPS_PROXY": proxy}, 0, "CONNECT %s " % tls),
            ("all_proxy", tls, ca, {"all_proxy": proxy}, 0, "CONNECT %s " % tls),
            ("no_proxy", tls, ca, {"https_proxy": closed, "no_proxy": ".interop"}, 0, ""),
            ("loopback", plain.replace(NAME, "127.0.0.1"), [], {"http_proxy": closed, "all_proxy": closed}, 0, ""),
            ("http, no password", plain, insecure, {"http_proxy": proxy.replace("bob:pr0xy@", "")}, 3, "GET http://"),
            ("https, wrong password", tls, ca, {"https_proxy": proxy.replace("pr0xy", "pr0")}, 3, "CONNECT " + NAME),
            ("proxy that is down", tls, ca, {"https_proxy": closed}, 4, ""),
            ("socks5", tls, ca, {"all_proxy": five}, 0, "connected to "),
            ("socks5, http", plain, insecure, {"http_proxy": five}, 0, "connected to "),
            ("socks5h", tls, ca, {"all_proxy": five_h}, 0, "connected to " + tls),
            ("socks5h, http", plain, insecure, {"all_proxy": five_h}, 0, "connected to " + plain),
            ("socks5h, wrong password", tls, ca, {"all_proxy": five_h.replace("pr0xy", "pr0")}, 3, ""),
            ("socks5h, nobody", tls, ca, {"all_proxy": five_h.replace("bob:pr0xy@", "")}, 3, "")):
        with case(title) as saw:
            for log in (http_log, socks_log):
                os.truncate(log, 0)
            # Who goes directly, and socks5://, has to know the host; the others leave it to the proxy.
            within = lab.resolving if title == "no_proxy" or "socks5:" in str(env) else list
            saw(attempt(lab, target + "/busybox:oci", options, code, "proxy" if code else "", env=env, within=within))
            used = (read(http_log) + read(socks_log)).decode()
            same("the proxy having seen it", (bool(used.strip("\0")), line in used), (bool(line), True))


# Registry, options, REF below it, containerd's reference, the path in its hosts.toml (None: without), its query.
MIRRORS = [
    ("mirror", ["--ns", "docker.io"], "busybox:hub", "docker.io/library/busybox:hub", "", "?ns=docker.io"),
    ("mirror", ["--ns", "Index.Docker.IO/"], "busybox:hub", "docker.io/library/busybox:hub", "", "?ns=docker.io"),
    ("mirror", ["--ns", "quay.io"], "library/busybox:hub", "quay.io/library/busybox:hub", "", "?ns=quay.io"),
    ("mirror", ["--ns", "Quay.IO"], "library/busybox:hub", "quay.io/library/busybox:hub", "", "?ns=quay.io"),
    ("plain", ["--ns", "quay.io"], "quay.io/library/busybox:hub", "quay.io/library/busybox:hub", None, ""),
    ("plain", ["--name", "docker.io/library/busybox:hub"], "proxy/library/busybox:hub",
     "docker.io/library/busybox:hub", "/v2/proxy", "?ns=docker.io")]


@check
def mirrors(lab):
    """A pull-through docker-registry, and one below a prefix: asked as containerd asks them, by its hosts.toml."""
    docker, containerd = lab.once(Docker), lab.once(Containerd)
    for kind, options, path, reference, prefix, query in MIRRORS:
        port, tag, directory = lab.once(registry, kind), "/manifests/hub", lab.fresh("hosts")
        with case("%s, %s %s" % (kind, " ".join(options), path)) as saw:
            host, pushed = "127.0.0.1:%d" % port, lab.once(build, path if "/" in path else "library/" + path)
            one, start = truth(lab, pushed, reference), len(requested(lab, port))
            if prefix is None:
                containerd(*containerd.fetch, "%s/%s" % (host, reference))
            else:
                write(directory + reference.partition("/")[0] + "/hosts.toml", """
                    [host."http://%s%s"]
                      capabilities = ["pull", "resolve"]
                      override_path = %s
                    """ % (host, prefix, "true" if prefix else "false"))
                containerd("images", "pull", "--hosts-dir", directory, "--snapshotter", "native", reference)
            middle = len(requested(lab, port))
            containerd.forget(one)
            out = lab.fresh("mirrors") + "out.tar"
            lab.imgpull("--scheme", "http", *(options + ["%s/%s" % (host, path), out]))
            theirs, ours = set(requested(lab, port)[start:middle]), set(requested(lab, port)[middle:])
            same("containerd's queries", {each.partition(tag)[2] for each in theirs if tag in each}, {query})
            if "--name" in options:  # to a registry, not to a mirror: nothing is said of a namespace
                theirs, query = {each.partition("?")[0] for each in theirs}, ""
            same("what containerd does not ask for", ours - theirs, set())
            same("what imgpull does not ask for", {each.partition("/manifests/sha256:")[1] for each in theirs - ours},
                 {"/manifests/sha256:"})
            same("imgpull's queries", {"?" * ("?" in each) + each.partition("?")[2] for each in ours}, {query})
            intact(out, [one])
            saw("%d requests, as containerd's" % len(ours))
            for tool in (docker, containerd):
                saw(tool.take(out, [one]))


def pipe(lab, command, load):
    """Run `command | load`: both exit codes, and what both said."""
    script = '"${@:2:$1}" | "${@:$1+2}" >&2; echo "${PIPESTATUS[@]}"'
    ran = run(["bash", "-c", script, "-", str(len(command))] + command + load, env=lab.env)
    return tuple(map(int, ran.out.split())), one_line(ran.err)


@check
def streams(lab):
    """`imgpull … - | docker load`, and a pull that breaks midway, which must not load."""
    command = [sys.executable, lab.program, "--quiet", "--scheme", "http"]
    whole, (one,) = archive(lab, ["stream:1"])
    with case("- gives the bytes that a file gets"):
        streamed = subprocess.check_output(command + [one.name, "-"], env=lab.env)
        same("the stream", sha256(streamed), sha256(read(whole)))
    for title, tool in loaders(lab)[:3]:
        with case("broken midway, " + title) as saw:
            relay = Relay(lab.once(registry, "plain"), cut=one.size // 2)
            codes, said = pipe(lab, command + ["--retries", "1", "127.0.0.1:%d/stream:1" % relay.port, "-"],
                               tool.client + tool.stdin)
            saw("exit %d, %d: %s" % (codes + (said,)))
            same("failing, loading", (codes[0], codes[1] > 0, tool.holds(one)), (4, True, False))
        with case("whole, " + title) as saw:
            codes, said = pipe(lab, command + [one.name, "-"], tool.client + tool.stdin)
            saw(said)
            same("exit codes", codes, (0, 0))
            tool.look(one)
            tool.forget(one)


# ---- The checks: artifacts, signatures, deltas, and the far side ----
COSIGN, BUNDLE = "dev.cosignproject.cosign/", "application/vnd.dev.sigstore.bundle.v0.3+json"


def sign_image(lab, name, form):
    """Push an image of the table, and a signature as cosign does; return the copy's repository, the signature's digest.

    form: "old", as cosign 1 and 2 push it, by a tag; "new", as cosign 3 does, a bundle in a manifest with a subject
    """
    digest = truth(lab, lab.once(build, name)).digest
    data = read(blob_path(lab, digest))
    target = {"mediaType": json.loads(data.decode())["mediaType"], "digest": digest, "size": len(data)}
    copy, tag = "signed/%s-%s" % (form, name.replace(":", "-")), digest.replace(":", "-")
    push(lab, target, copy + ":1", "oci")
    if form == "old":
        payload = store(lab, {"critical": {"image": {"docker-manifest-digest": digest}}, "optional": None},
                        "application/vnd.dev.cosign.simplesigning.v1+json")
        config = {"architecture": "", "os": "", "config": {},
                  "rootfs": {"type": "layers", "diff_ids": [payload["digest"]]}}
        payload["annotations"] = {COSIGN + "signature": "c2lnbmF0dXJl"}
        signature = store_manifest(lab, store(lab, config, OCI + "config.v1+json"), [payload])
        push(lab, signature, "%s:%s.sig" % (copy, tag), "oci")
    else:
        bundle = store(lab, {"mediaType": BUNDLE, "dsseEnvelope": {"signatures": [{"sig": "c2lnbmF0dXJl"}]}}, BUNDLE)
        config = store(lab, b"{}", "application/vnd.oci.empty.v1+json")
        signature = store_manifest(lab, config, [bundle], artifactType=BUNDLE, subject=target)
        push(lab, store_index(lab, [signature]), "%s:%s" % (copy, tag), "oci")
    return copy, signature["digest"]


@check
def signatures(lab):
    """--referrers: signatures in both of cosign's forms, in archives that load everywhere."""
    ways = ("busybox:oci", []), ("many:index", []), ("many:index", ["--platform", "all"])
    for (name, options), form in itertools.product(ways, ("old", "new")):
        title = ", ".join([name, form + " form"] + options)
        with case(title + ": pulled") as saw:
            copy, signature = lab.once(sign_image, name, form)
            one, path = truth(lab, copy + ":1"), lab.fresh("signed") + "out.tar"
            saw(lab.imgpull("--referrers", one.name, path, *options).out.rpartition(", with ")[2].strip())
            with tarfile.open(path) as tar:
                tops = json.loads(tar.extractfile("index.json").read().decode())["manifests"]
                same("the signature", sha256(tar.extractfile("blobs/sha256/" + signature[7:]).read()), signature)
            # cosign finds a bundle by its subject, and an older signature by its own descriptor.
            kinds = {top["annotations"].get("kind", "").replace(COSIGN, ""): top["digest"] for top in tops}
            same("what cosign looks for", (one.digest in kinds.values(), kinds.get("sigs")),
                 (True, signature if form == "old" else None))
            one = one if options else one._replace(digest=one.manifest)
            intact(path, [one])
            saw(one_line(lab.imgpull("--verify", path).out).partition(": ")[2])
        for loader, tool in loaders(lab)[:4] + [("skopeo oci-archive", Skopeo(lab, "oci-archive", len(tops) > 1))]:
            with case("%s: %s" % (title, loader)) as saw:
                saw(tool.take(path, [one]))
        with case(title + ": ctr images import --all-platforms, as k3s does"):
            containerd = lab.once(Containerd)
            containerd("images", "import", "--all-platforms", "--no-unpack", path)
            same("its names for it", containerd.names(one), [one.name])
            containerd.forget(one)


def whole(tool, one, specs):
    """See that an image is all there, and runs: with the files of some layers."""
    tool.look(one)
    files = [layer_file(spec) for spec in specs if spec.startswith("text:")]
    same("the files", tool.content(one, [path for path, _ in files]), b"".join(data for _, data in files).decode())


@check
def deltas(lab):
    """An archive without the layers of version 1, on hosts that have version 1 in some way, and on one without."""
    base, (first,) = archive(lab, ["app:1"])
    delta, (second,) = archive(lab, ["app:2"], ["--base", base])
    bundle, saved = archive(lab, ["app:1", "thrice:1"])[0], lab.fresh("archives") + "saved.tar"
    docker, shared = lab.once(Docker), second.layers[:3]
    docker.load(base)
    docker("save", "-o", saved, first.name)
    docker.forget(first)
    with case("what the delta holds") as saw:
        saw("%d bytes in place of %d" % (intact(delta, [second], shared), second.size))
        saw(one_line(lab.imgpull("--verify", delta, "--base", base).out))
        alone = lab.imgpull("--verify", delta)
        saw(one_line(alone.out + alone.err))
        same("it says what it needs", "3 layers" in alone.out + alone.err, True)
        listed = lab.imgpull("--list-tar", delta).out
        same("omitted layers that are not listed", [each for each in shared if each not in listed], [])
        same("--base-image and --base", *[sha256(read(archive(lab, ["app:2"], options)[0])) for options in (
            ["--base", base], ["--base-image", first.name])])
    # How version 1 came there, the base, and what podman does: it knows layers of some by their diff_ids alone.
    for way, loaded, bases, podmans in (("archive", base, base, True), ("pull", None, base, True),
                                        ("docker-save", saved, base, False), ("two-images", bundle, bundle, False),
                                        ("nothing", "", base, False)):
        for make in (Docker, Podman, Containerd):
            with case("version 1 by %s: %s" % (way, make.__name__)) as saw:
                tool = lab.once(make, "%s-%s" % (make.__name__.lower(), way))
                if loaded is None:
                    tool(*tool.fetch, first.name)
                elif loaded:
                    tool.load(loaded)
                path = archive(lab, ["app:2"], ["--base", bases])[0]
                if way == "nothing" or (make is Podman and not podmans):
                    saw(refused(tool.load, path))
                    same("having the image", tool.holds(second), False)
                    continue
                saw(tool.load(path))
                if make is Containerd and loaded is saved:
                    # It has the layers of the base unpacked only: enough to run the image, not to export it.
                    seen = tool.content(second, ["layers/shared.txt", "layers/two.txt"])
                    same("what is in it", (seen, tool.holds(second)), ("layer shared\nlayer two\n", False))
                    continue
                whole(tool, second, IMAGES["app:2"][1][None])
                if way == "archive":  # version 2 has to stay whole when version 1 goes, and adds nothing twice
                    tool.forget(first)
                    whole(tool, second, ["text:shared"])
                    saw(tool.load(archive(lab, ["app:2"], ["--base", base, "--base", delta])[0]))
                    whole(tool, second, ["text:two"])


@check
def delta_kinds(lab):
    """Deltas of several images and of every platform."""
    base = archive(lab, ["busybox:oci"])[0]
    for title, names, options, makers in (
            ("several images", ["thrice:1", "many:list"], [], (Docker, Containerd)),
            ("--platform all", ["many:index"], ["--platform", "all"], (Docker, Podman, Containerd))):
        with case(title) as saw:
            delta, truths = archive(lab, names, ["--base", base] + options)
            intact(delta, truths, truths[0].layers[:1])
            for tool in (lab.once(make) for make in makers):
                tool.load(base)
                saw(tool.load(delta))
                for one in truths:
                    tool.look(one)
                    tool.forget(one)
    named = lab.once(NamedPodman)
    named.load(base)
    for names in (["thrice:1", "many:index"], ["thrice:1", "mini:1"]):
        with case("%s: podman load will not, podman pull oci-archive:DELTA:NAME will" % " and ".join(names)) as saw:
            delta, truths = archive(lab, names, ["--base", base])
            saw(refused(named.load, delta))
            saw(named.take(delta, truths))


@check
def far_side(lab):
    """Archives into the registry behind the gap, digests kept: images, bundles, deltas, charts."""
    base, copy = archive(lab, ["app:1"])[0], ["copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"]
    far = "docker://127.0.0.1:%d/" % lab.once(registry, "far")
    for title, names, options, more in (
            ("image", ["busybox:oci"], [], []), ("Docker schema 2", ["busybox:v2s2"], [], []),
            ("every platform", ["many:index"], ["--platform", "all"], ["--all"]),
            ("bundle", ["app:1", "thrice:1", "mini:1"], [], []),
            ("delta, onto version 1", ["app:2"], ["--base", base], [])):
        with case(title) as saw:
            path, truths = archive(lab, names, options)
            for one in truths:
                source = "oci-archive:" + path + (":" + ref_name(one, truths)) * (title != "Docker schema 2")
                lab.skopeo(*copy, *more, source, far + one.label)
                out, every = lab.fresh("far") + "out.tar", options if more else []
                lab.imgpull("--scheme", "http", "--name", one.name, far[9:] + one.label, out, *every)
                intact(out, [one])
                same("what the far side pulls", sha256(read(out)), sha256(read(archive(lab, [one.label], every)[0])))
                saw("%s, %s" % (one.label, one.digest[:19]))
    with case("delta, without version 1") as saw:
        saw(refused(lab.skopeo, *copy, "oci-archive:" + path, "docker://127.0.0.1:%d/x" % lab.once(registry, "empty")))
    with case("chart") as saw:
        kind, path = "application/vnd.cncf.helm.", lab.fresh("far") + "out.tar"
        layers = [store(lab, b"any bytes", kind + "chart.content.v1.tar+gzip")]
        chart = store_manifest(lab, store(lab, b'{"name": "chart"}', kind + "config.v1+json"), layers)
        push(lab, chart, "chart:1", "oci")
        saw(one_line(lab.imgpull("127.0.0.1:%d/chart:1" % lab.once(registry, "plain"), path).err))
        lab.skopeo(*copy, "oci-archive:" + path, far + "chart:1")
        same("its digest", fetch(lab.once(registry, "far"), "chart", "manifests/1")[0], chart["digest"])
        saw(one_line(lab.imgpull("--verify", path).out))


@check
def walk(lab):
    """A list of images of three registries: killed, run again, carried, and a month later."""
    kinds, home, numbers = ["plain", "login", "mirror"] * 5, lab.path("walk", ""), range(15)
    relays = {kind: Relay(lab.once(registry, kind), rate=20e6) for kind in kinds}
    hosts = ["127.0.0.1:%d" % relays[kind].port for kind in kinds]
    login = {"auths": {hosts[1]: {"auth": base64.b64encode(b"alice:s3cret").decode()}}}
    write(home + ".docker/config.json", json.dumps(login))
    shutil.copy(lab.once(authority) + "ca.crt", lab.path("walk/.config/containers/certs.d", hosts[1], "ca.crt"))
    layers = {number: ["busybox", "noise:walk%d:8" % number, "text:walk%d" % number] for number in numbers}
    called = ["%s/walk/%d:1" % (hosts[number], number) for number in numbers[:-1]] + ["docker.io/team/renamed:1"]
    lines = ["%s%s/walk/%d:1%s\r" % ("" if kinds[number] == "login" else "http://", hosts[number], number,
                                     " team/renamed:1" * (number == 14)) for number in numbers]
    listed = write(home + "list", "\n".join(["# what goes over\r", ""] + lines))
    env, first, second = dict(lab.env, HOME=home), home + "first.tar", home + "second.tar"
    pull = [sys.executable, lab.program, "--from", listed]

    def sent():
        return sum(relay.sent for relay in relays.values())

    def pushed():
        for number in numbers:
            build(lab, "walk/%d:1" % number, *layers[number])
        return [truth(lab, "walk/%d:1" % number, name) for number, name in enumerate(called)]

    with case("15 images, killed twice") as saw:
        truths = pushed()
        for part in (20, 60):
            process = subprocess.Popen(pull + [first], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while process.poll() is None and sent() < part * MIB:
                time.sleep(0.005)
            process.kill()
            same("exit code", process.wait(), -signal.SIGKILL)
        saw(one_line(run(pull + [first], env=env).err))
        again = sent() - intact(first, truths)
        saw("%d bytes more than it holds; %s" % (again, one_line(lab.imgpull("--verify", first).out)))
        at_most("it", again, 2 * 6 * (MIB + 65536) + MIB)  # a piece a connection, and some documents
    with case("once more, with nothing new") as saw:
        before, start = (sha256(read(first)), os.stat(first).st_mtime_ns), sent()
        asked = {kind: len(requested(lab, lab.once(registry, kind))) for kind in relays}
        same("being up to date", run(pull + [first], env=env).out.count(" is up to date"), 15)
        same("the archive", (sha256(read(first)), os.stat(first).st_mtime_ns), before)
        again = [path for kind in relays for path in requested(lab, lab.once(registry, kind))[asked[kind]:]]
        same("requests for more than tags", [path for path in again if "sha256:" in path], [])
        saw("%d requests, %d bytes" % (len(again), sent() - start))
    with case("a month later") as saw:
        for number in numbers[::4]:
            layers[number] = layers[number] + ["text:later%d" % number, "noise:later%d:8" % number]
        later, start = pushed(), sent()
        saw(run(pull + [second, "--base", first], env=env).out.splitlines()[0])
        size = intact(second, later, {digest for one in truths for digest in one.layers})
        saw("%d bytes fetched, %d new" % (sent() - start, size))
        at_most("the number of bytes fetched", sent() - start, size * 1.05)
        saw(one_line(lab.imgpull("--verify", second, "--base", first).out))


# ---- The checks: how it is run, and what README says ----
@check
def starts(lab):
    """As a script, as a module, from `make install`, and the one file of `make imgpull`: the same archive."""
    root, one, sums = lab.path("root", ""), truth(lab, lab.once(build, "busybox:oci")), set()
    source = shutil.copytree(PROJECT, lab.path("source"), ignore=shutil.ignore_patterns(".git", "bin", "__pycache__"))
    run(["make", "-C", source, "install", "imgpull", "PREFIX=/usr", "DESTDIR=" + root, "PYTHON=" + sys.executable])
    module = dict(lab.env, PYTHONPATH=os.path.dirname(lab.program))
    for title, command in (("script", [sys.executable, lab.program]), ("module", [sys.executable, "-m", "imgpull"]),
                           ("installed", [root + "usr/bin/imgpull"]), ("one file", [source + "/bin/imgpull"])):
        with case(title) as saw:
            out = lab.fresh("starts") + "out.tar"
            saw(one_line(run(command + [one.name, out], env=module).out))
            sums.add(sha256(read(out)))
    with case("the same archive"):
        same("the number of different archives", len(sums), 1)


# What README's blocks fenced as ```sh run on: names of other hosts are the plain registry's, and the far one's.
README = [(r"\b(docker\.io|quay\.io|ghcr\.io|registry\.example\.com)/", "127.0.0.1:%(plain)d/"),
          (r"\b(far|registry\.site|site)(\.example\.com)?:5000/", "127.0.0.1:%(far)d/"),
          (r"(?<![\w./:-])(alpine|debian|redis)(:[\w.]+)?(?![\w./:-])", r"127.0.0.1:%(plain)d/\1\2")]


@check
def readme(lab):
    """Run README's blocks fenced as ```sh, one after the other in one directory."""
    home, ports = lab.path("readme", ""), {kind: lab.once(registry, kind) for kind in ("plain", "far")}
    insecure = write(home + "insecure", "".join('[[registry]]\nlocation = "127.0.0.1:%d"\ninsecure = true\n' % port
                                                for port in ports.values()))
    tools = {"imgpull": [sys.executable, lab.program], "docker": lab.once(Docker).client, "make": ["true"],
             "podman": lab.once(Podman).client, "ctr": lab.once(Containerd).client,
             "skopeo": lab.private(["skopeo", "--insecure-policy", "--registries-conf", insecure])}
    for name, command in tools.items():
        words = " ".join("'%s'" % word.replace("'", "'\\''") for word in command)
        os.chmod(write(home + "bin/" + name, '#!/bin/sh\nPATH=%s\nexec %s "$@"\n' % (os.environ["PATH"], words)), 0o755)
    shutil.copy(lab.program, home)
    for name in ("alpine:3.20", "alpine:latest", "debian:12", "redis:7", "team/app:1", "team/app:2", "team/app:3"):
        build(lab, name, "busybox", "text:" + name[:4], "text:" + name[-1])
    blocks = re.findall(r"^```sh\n(.*?)^```", read(PROJECT, "README.md").decode(), re.M | re.S)
    same("README has blocks fenced as ```sh", bool(blocks), True)
    for block in blocks:
        with case(block.strip().splitlines()[0]) as saw:
            for pattern, by in README:
                block = re.sub(pattern, lambda found, by=by: found.expand(by % ports), block)
            env = dict(lab.env, PATH=home + "bin:" + lab.env["PATH"])
            saw(one_line(run(["bash", "-euo", "pipefail", "-c", block], cwd=home, env=env).out))


def main(names):
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if os.geteuid() or not set(names) <= set(CHECKS):
        sys.exit("interop: run it as root, with names of checks or without: " + " ".join(CHECKS))
    if "INTEROP" not in os.environ:
        # Namespaces of its own: whatever happens, all servers and mounts end with it.
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, __file__]
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
        with tempfile.TemporaryDirectory(prefix="interop-", dir="/tmp") as directory:  # sockets want short paths
            return subprocess.call(command + names, env=dict(os.environ, INTEROP=directory))
    start, lab = time.time(), Lab(os.environ["INTEROP"])
    for name in names or CHECKS:
        print("-- %s: %s" % (name, CHECKS[name].__doc__.splitlines()[0]), flush=True)
        with case(name):
            CHECKS[name](lab)
    print("interop: %d failed, %.0f s" % (len(FAILURES), time.time() - start))
    return 1 if FAILURES else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
