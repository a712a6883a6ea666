#!/usr/bin/env python3
"""Pull a container image from any OCI registry into one tar that every runtime loads.

    python3 imgpull.py docker.io/hello-world:latest hello-world.tar

One file, the standard library only, Python 3.6 or newer. As a library:

    import imgpull
    imgpull.pull("docker.io/hello-world:latest", "hello-world.tar")

The file reads from top to bottom, and each section leans only on those above it: errors and limits, references,
platforms, descriptors and manifests, credentials, transport, registry, reading an archive back, archive plan,
part file, download, pull, progress, command line.

Sources of the rules: the OCI distribution, image and image-layout specifications ("distribution-spec", "image-spec"),
the grammar of github.com/distribution/reference, RFC 9110 (HTTP), RFC 6750 (Bearer), RFC 7617 (Basic).
"""
import signal

if __name__ == "__main__":      # Ctrl-C while the rest is imported is no reason for a traceback; main() takes over
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import collections
import contextlib
import errno
import hashlib
import json
import os
import posixpath
import re
import struct
import sys
import threading
import time

# Heavier modules (ssl, http.client, tarfile, subprocess, ...) are imported where they are used: start-up counts.

__all__ = ["parse_reference", "parse_challenges", "parse_platform", "Reference", "Platform", "Settings", "Reporter",
           "Registry", "pull", "PullResult", "PulledImage", "list_archive", "ArchiveImage", "verify_archive",
           "ImgpullError", "__version__"]
__version__ = "1.0.0"
__build_date__ = "unreleased"


# ---- Errors and limits: how things fail, and how much of anything we take from a stranger --------------------------

MANIFEST_LIMIT = 4 << 20        # bytes of a manifest, index or config (distribution-spec, "Pushing Manifests")
MANIFESTS_LIMIT = 16 << 20      # bytes of all manifests of one image
TOKEN_LIMIT = 1 << 20           # bytes of a token server's answer
ERROR_BODY_LIMIT = 8 << 10      # bytes of an error body that we read
ERROR_TEXT_LIMIT = 300          # characters of it that we show
MEMBERS_LIMIT = 100000          # entries in an archive that is read back
CHILDREN_LIMIT = 1000           # manifests in one pull
LAYERS_LIMIT = 10000            # layers in one manifest
INDEX_DEPTH = 4                 # indexes within indexes
REDIRECTS = 10
BUFFER = 256 << 10              # bytes a read: measured, more does not pay and less costs calls
MEMORY = 1 << 20                # bytes for the buffers of all workers
RECORD_SECONDS = 0.02           # how much of a killed download may have gone unrecorded
MIN_SPLIT = 8 << 20             # bytes: no range smaller than this is split off a layer
BACKOFF = 0.5                   # seconds before the first retry; doubles
LONGEST_WAIT = 120              # seconds that a Retry-After is obeyed for
HELPER_SECONDS = 20             # a credential helper's time


class ImgpullError(Exception):
    """A failure in words that a person can act on: every failure that a caller may want to catch."""


class Temporary(ImgpullError):
    """A failure that may pass. delay: seconds that the server asked us to wait, or None."""

    def __init__(self, text, delay=None):
        super().__init__(text)
        self.delay = delay


class Resumable(ImgpullError):
    """A failure that outlasted its retries but may pass later: what has been fetched is kept for the next run."""


class NotFound(ImgpullError):
    """The registry does not have it (404)."""


class RangeRefused(ImgpullError):
    """The server does not give the range that was asked for (416, or another range than that)."""


class Stopped(ImgpullError):
    """This thread was told to stop, because another one failed."""


def interrupted(error):
    """Whether an exception came of Ctrl-C, maybe at second hand: a lock of threading fails where it strikes."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def printable(text, limit=ERROR_TEXT_LIMIT):
    """Text from outside, fit for a terminal: one line, no control characters, at most limit characters."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(text)[:limit * 4]).split())
    return text if len(text) <= limit else text[:limit - 1] + "…"


def human(size):
    """A number of bytes in words: 0 B, 1.5 kB, 381.2 MB (powers of 1000, as docker counts)."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return "%.*f %s" % (unit != "B", size, unit)
        size /= 1000
    return "%.1f TB" % size


def plural(count, word):
    """plural(2, "layer") is "2 layers"."""
    return "%d %s%s" % (count, word, "" if count == 1 else "s")


# ---- References: what an image is called (github.com/distribution/reference) ---------------------------------------

class Reference(collections.namedtuple("Reference", "registry repository tag digest")):
    """Where an image is: registry (host[:port], str), repository (str), tag and digest (str, "" if none).

    str() is the full name, as docker and containerd write it.
    """
    __slots__ = ()

    @property
    def name(self):
        """Registry and repository without tag and digest."""
        return self.registry + "/" + self.repository

    @property
    def target(self):
        """What to ask the registry for: the digest decides over the tag."""
        return self.digest or self.tag

    def __str__(self):
        return self.name + (":" + self.tag if self.tag else "") + ("@" + self.digest if self.digest else "")


LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
REGISTRY = re.compile(r"(?:%s(?:\.%s)*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?" % (LABEL, LABEL))
COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")


def parse_reference(text):
    """The Reference that text names, normalized: "ubuntu" is docker.io/library/ubuntu:latest.

    text: str in the grammar of distribution/reference. Raises ImgpullError, which says what part is wrong.
    """
    def wrong(why):
        return ImgpullError("%s is no image reference: %s" % (printable(repr(text), 160), why))

    if text != text.strip(" "):
        raise wrong("there is a blank at its beginning or end")
    page = re.match(r"https?://hub\.docker\.com/(?:_|r)/([\w./-]+)", text)
    if page:
        raise wrong("that is a web page; the image is %r" % page.group(1).strip("/"))
    scheme = re.match(r"([a-z+-]+)://", text, re.I)
    if scheme:
        raise wrong("leave out the %r%s" % (scheme.group(), " (and use --scheme http)"
                                            if scheme.group(1).lower() == "http" else ""))
    rest, at, digest = text.partition("@")
    if at and not DIGEST.fullmatch(digest):
        raise wrong("the digest after '@' must be sha256: and 64, or sha512: and 128 hexadecimal digits in lower case")
    colon = rest.rfind(":")
    rest, tag = (rest[:colon], rest[colon + 1:]) if colon > rest.rfind("/") else (rest, None)
    if tag is not None and not TAG.fullmatch(tag):
        raise wrong("the tag %s must be 1 to 128 letters, digits, '_', '.' and '-', and not begin with '.' or '-'"
                    % printable(repr(tag)))
    registry, path = split_registry(rest)
    if not path:
        raise wrong("it has no name")
    if not REGISTRY.fullmatch(registry):
        raise wrong("the registry %s is not host[:port]%s" % (
            printable(repr(registry)), "" if all(ord(c) < 128 for c in registry)
            else "; write an international name in its xn-- form"))
    for component in path.split("/"):
        if not COMPONENT.fullmatch(component):
            hint = "; did you mean %r?" % rest.lower() if rest != rest.lower() and registry == "docker.io" else ""
            raise wrong("the name's part %s must be lower-case letters and digits, with single '.', '_' (or '__') "
                        "or '-' between%s" % (printable(repr(component)), hint))
    if len(path) > 255:
        raise wrong("the name is longer than 255 characters")
    if re.fullmatch("[a-f0-9]{64}", rest):
        raise wrong("it is an image ID; registries know names and digests (NAME@sha256:…)")
    if tag is None:
        tag = "" if digest else "latest"
    return Reference(registry, path, tag, digest)


def split_registry(name):
    """(registry, repository) of a name without tag: the first component is a registry if it looks like a host."""
    first, slash, rest = name.partition("/")
    if not slash or not (re.search("[.:]", first) or first == "localhost" or first != first.lower()):
        first, rest = "docker.io", name
    return official(first, rest)


def official(registry, repository):
    """The two as names have them: Docker Hub is docker.io, and its own images live under library/."""
    if registry not in ("docker.io", "index.docker.io"):
        return registry, repository
    return "docker.io", repository if "/" in repository or not repository else "library/" + repository


def mirrored(reference, namespace):
    """(Reference to request, Reference to name the image by) for a mirror of the registry called namespace.

    As containerd does: the request goes to the mirror, with ?ns=; the image is named after the namespace. A namespace
    that already stands in the path is requested as written.
    """
    if not namespace:
        return reference, reference
    namespace = namespace.lower().rstrip("/")
    if not REGISTRY.fullmatch(namespace) or not re.search("[.:]|^localhost$", namespace):
        raise ImgpullError("--ns takes the host of a registry, such as docker.io, not %s" % (
            printable(repr(namespace), 90)))
    inside = reference.repository[len(namespace) + 1:] if reference.repository.startswith(namespace + "/") else ""
    registry, repository = official(namespace, inside or reference.repository)
    return (reference if inside else reference._replace(repository=repository),
            reference._replace(registry=registry, repository=repository))


# ---- Platforms: which of an index's images to take (containerd's platforms, image-spec image-index.md) -------------

class Platform(collections.namedtuple("Platform", "os architecture variant")):
    """An operating system, architecture and variant in Go's names, "" where not known. str(): os/arch[/variant]."""
    __slots__ = ()

    def __str__(self):
        return "/".join(filter(None, (self.os or "unknown", self.architecture or "unknown", self.variant)))


SYSTEMS = {"macos": "darwin", "cygwin": "windows", "msys": "windows"}
MACHINES = {"x86_64": "amd64", "x86-64": "amd64", "amd64": "amd64", "i386": "386", "i486": "386", "i586": "386",
            "i686": "386", "x86": "386", "aarch64": "arm64", "aarch64_be": "arm64be", "armhf": "arm/v7",
            "armel": "arm/v6", "armv5tel": "arm/v5", "armv5": "arm/v5", "armv6": "arm/v6", "armv6l": "arm/v6",
            "armv7": "arm/v7", "armv7l": "arm/v7", "armv7a": "arm/v7", "armv8": "arm64", "armv8l": "arm/v8",
            "powerpc64le": "ppc64le", "loongarch64": "loong64"}


def normal_platform(system, architecture, variant=""):
    """The Platform in Go's names: x86_64 is amd64, armv7l is arm/v7, arm64/v8 is arm64, arm is arm/v7."""
    system, architecture, variant = system.lower(), architecture.lower(), variant.lower()
    architecture, _, implied = MACHINES.get(architecture, architecture).partition("/")
    variant = variant or implied
    if variant.isdigit():
        variant = "v" + variant
    if architecture == "arm":
        variant = variant or "v7"
    elif (architecture, variant) in (("arm64", "v8"), ("amd64", "v1")):
        variant = ""
    return Platform(SYSTEMS.get(system, system), architecture, variant)


def parse_platform(text):
    """The Platform of os/arch[/variant], or of arch alone (for linux). Raises ImgpullError."""
    parts = text.split("/")
    if len(parts) == 1:
        parts = ["linux", text]
    if len(parts) > 3 or text.lower() in ("linux", "windows", "darwin", "all") or not all(
            re.fullmatch(r"[A-Za-z0-9_.-]+", part) for part in parts):
        raise ImgpullError("%s is no platform: write os/arch or os/arch/variant, such as linux/arm64 or linux/arm/v7"
                           % printable(repr(text)))
    return normal_platform(*parts)


def host_platform():
    """The Platform that this program runs on."""
    system, machine = (os.uname().sysname, os.uname().machine) if hasattr(os, "uname") else (
        "windows", os.environ.get("PROCESSOR_ARCHITEW6432") or os.environ.get("PROCESSOR_ARCHITECTURE", "amd64"))
    return normal_platform(system, machine)


def acceptable(wanted):
    """The Platforms that a wanted one can run, best first: the exact one, then variants downwards (arm v7, v6, v5)."""
    match = re.fullmatch(r"v(\d+)", wanted.variant)
    first = int(match.group(1)) if match else 0
    found = [wanted]
    if wanted.architecture == "arm" and 5 < first <= 8:
        found += [wanted._replace(variant="v%d" % number) for number in range(first - 1, 4, -1)]
    elif wanted.architecture == "amd64" and 1 < first <= 4:
        found += [wanted._replace(variant="v%d" % number if number > 1 else "") for number in range(first - 1, 0, -1)]
    elif wanted.architecture == "arm64" and wanted.variant:
        found.append(wanted._replace(variant=""))
    return found


# ---- Descriptors and manifests: all parsing of untrusted JSON (image-spec descriptor.md, manifest.md, image-index.md)

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))

Descriptor = collections.namedtuple("Descriptor", "media_type digest size platform urls annotations")
Descriptor.__doc__ = """A link to content: media_type, digest (str), size (bytes), platform (Platform or None),
urls (tuple of str, where a foreign layer lies), annotations ({str: str})."""
Descriptor.path = property(lambda self: blob_path(self.digest), doc="Its name in an image layout.")
Descriptor.short = property(lambda self: self.digest[:19], doc="Its digest as people know it: sha256: and 12 digits.")


def blob_path(digest):
    """The name of a blob in an image layout."""
    return "blobs/" + digest.replace(":", "/")


class Manifest(collections.namedtuple("Manifest", "descriptor body children config layers")):
    """An index (children: Descriptors) or an image's or artifact's manifest (config, layers). body: its bytes."""
    __slots__ = ()

    @property
    def is_index(self):
        return self.config is None

    @property
    def is_image(self):
        """Whether runtimes can run it: artifacts (charts, signatures, ...) have configs of other types."""
        known = (OCI_CONFIG, DOCKER_CONFIG, "")
        if self.descriptor.media_type == DOCKER_MANIFEST:       # what registries of old made of it, and docker takes
            known += ("application/octet-stream", "application/json", "text/html")
        return (not self.is_index and self.config.media_type in known
                and not any("in-toto" in layer.media_type for layer in self.layers))


def is_layer(descriptor):
    """Whether a blob's descriptor is of a layer, not of a config."""
    return "config" not in descriptor.media_type and "container.image" not in descriptor.media_type


def is_attestation(descriptor):
    """Whether a descriptor is BuildKit's attestation (provenance, SBOM) of another manifest."""
    return descriptor.annotations.get("vnd.docker.reference.type") == "attestation-manifest"


def choose(descriptors, wanted):
    """The first of descriptors whose platform suits wanted best, or None. Attestations are never chosen."""
    offered = [d for d in descriptors if d.platform and d.platform.os != "unknown" and not is_attestation(d)]
    for platform in acceptable(wanted):
        for descriptor in offered:
            if descriptor.platform == platform:
                return descriptor
    return None


def new_hash(digest):
    """An empty hash object of a validated digest's algorithm."""
    return hashlib.new(digest.partition(":")[0])


def confirms(hasher, digest):
    """Whether what a hash object has seen is what a validated digest says."""
    return hasher.hexdigest() == digest.partition(":")[2]


def matches(body, digest):
    """Whether bytes are what a validated digest says."""
    hasher = new_hash(digest)
    hasher.update(body)
    return confirms(hasher, digest)


def digest_of(body):
    """The sha256 digest of bytes."""
    return "sha256:" + hashlib.sha256(body).hexdigest()


def load_json(text):
    """json.loads, without the numbers of a million digits that keep older Pythons busy for minutes."""
    def whole(digits):
        if len(digits) > 30:
            raise ValueError("a number without end")
        return int(digits)
    return json.loads(text, parse_int=whole)


def parse_json(body, what):
    """The JSON object (dict) in bytes. Raises ImgpullError."""
    try:
        value = load_json(body.decode("utf-8"))
    except (ValueError, RecursionError):
        # Never its text: it may be a file with passwords, or hold a token.
        raise ImgpullError("%s is not JSON%s" % (
            what, " but a web page: is there a proxy or a login page in between?" if body.lstrip()[:1] == b"<"
            else "" if body else ": it is empty")) from None
    if not isinstance(value, dict):
        raise ImgpullError("%s is no JSON object" % what)
    return value


def field(value, key, kind, what, default=None):
    """value[key] of the given type, or default where it is missing or null. Raises ImgpullError on another type."""
    found = value.get(key)
    if found is None:
        return default
    if not isinstance(found, kind) or isinstance(found, bool):
        raise ImgpullError("%s: %s is %s, not %s" % (what, key, type(found).__name__, kind.__name__))
    return found


def items(value, key, kind, what, limit):
    """value[key] as a list of things of one type (dict or str), [] where it is missing. Raises ImgpullError."""
    found = field(value, key, list, what, [])
    if len(found) > limit:
        raise ImgpullError("%s: %s has more than %d entries" % (what, key, limit))
    if not all(isinstance(item, kind) for item in found):
        raise ImgpullError("%s: not every entry of %s is %s" % (what, key, kind.__name__))
    return found


def parse_descriptor(value, what):
    """The Descriptor in a JSON object. Raises ImgpullError on a weak or malformed digest, or an impossible size."""
    digest = field(value, "digest", str, what, "")
    if not DIGEST.fullmatch(digest):
        raise ImgpullError("%s has the digest %s, which is not a sha256 or sha512 one" % (
            what, printable(repr(digest), 90)))
    size = field(value, "size", int, what, -1)
    if not 0 <= size < 1 << 60:
        raise ImgpullError("%s has an impossible size: %s" % (what, printable(size, 40)))
    platform = field(value, "platform", dict, what)
    annotations = field(value, "annotations", dict, what, {})
    return Descriptor(media_type_of(value, what), digest, size,
                      None if platform is None else platform_in(platform, what),
                      tuple(items(value, "urls", str, what, 100)),
                      {key: text for key, text in annotations.items() if isinstance(text, str)})


def platform_in(value, what):
    """The Platform that a JSON object's own fields say: those of an image's config are the same as a descriptor's."""
    return normal_platform(*(field(value, key, str, what, "") for key in ("os", "architecture", "variant")))


def media_type_of(value, what):
    """The mediaType of a JSON object without its parameters, "" where it has none."""
    return field(value, "mediaType", str, what, "").partition(";")[0].strip().lower()


def parse_manifest(body, digest, what):
    """The Manifest in bytes that have been checked against digest. Its shape decides what it is, not what it is called.

    Raises ImgpullError on anything else than an index or a manifest, and on Docker's schema 1.
    """
    value = parse_json(body, what)
    media_type = media_type_of(value, what)
    if value.get("schemaVersion") == 1 or "fsLayers" in value or "signatures" in value:
        raise ImgpullError("%s is in Docker's schema 1, which no current runtime loads: "
                           "push it again with a current docker, or take another tag" % what)
    if "manifests" in value and ("config" in value or "layers" in value):
        raise ImgpullError("%s claims to be an index and a manifest at once" % what)
    if "manifests" in value:
        children = [parse_descriptor(child, "a manifest of " + what)
                    for child in items(value, "manifests", dict, what, CHILDREN_LIMIT)]
        media_type = media_type if media_type in (OCI_INDEX, DOCKER_LIST) else OCI_INDEX
        config, layers = None, []
    elif "config" in value:
        config = parse_descriptor(field(value, "config", dict, what, {}), "the config of " + what)
        if value.get("layers") is None:
            raise ImgpullError("%s is no image manifest: it has a config and no layers" % what)
        layers = [parse_descriptor(layer, "a layer of " + what)
                  for layer in items(value, "layers", dict, what, LAYERS_LIMIT)]
        children = []
        if media_type not in (OCI_MANIFEST, DOCKER_MANIFEST):
            media_type = DOCKER_MANIFEST if config.media_type == DOCKER_CONFIG else OCI_MANIFEST
    else:
        raise ImgpullError("%s is neither an image manifest nor an index%s" % (
            what, " (it says: %s)" % printable(media_type) if media_type else ""))
    return Manifest(Descriptor(media_type, digest, len(body), None, (), {}), body, children, config, layers)


def parse_config(body, what):
    """(Platform, [diff_id of each layer]) of an image's config (image-spec config.md). Raises ImgpullError."""
    value = parse_json(body, what)
    rootfs = field(value, "rootfs", dict, what, {})
    return platform_in(value, what), items(rootfs, "diff_ids", str, what, LAYERS_LIMIT)


# ---- Credentials: who we are to a registry (docker's config.json, containers-auth.json(5), credential helpers) -----

class Credential(collections.namedtuple("Credential", "user password identity token")):
    """What a registry may be shown: user and password, an identity token (OAuth2 refresh), or a registry token."""
    __slots__ = ()

    def __repr__(self):
        return "Credential(***)"        # never a secret in a log or a traceback


def basic(user, password):
    """The value of an Authorization header (RFC 7617)."""
    import base64
    return "Basic " + base64.b64encode((user + ":" + password).encode()).decode()


def credential_files(environ):
    """The files that may hold credentials, first that answers: podman's, then docker's."""
    home = os.path.expanduser("~")
    config = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    if environ.get("XDG_RUNTIME_DIR"):
        runtime = os.path.join(environ["XDG_RUNTIME_DIR"], "containers")
    else:                                       # root, ssh, cron: containers-auth.json(5)
        runtime = "/run/containers/%d" % getattr(os, "getuid", int)()
    return list(filter(None, [
        environ.get("REGISTRY_AUTH_FILE"),
        os.path.join(runtime, "auth.json"),
        os.path.join(config, "containers", "auth.json"),
        os.path.join(environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker"), "config.json")]))


def normal_key(key):
    """A key of "auths" or "credHelpers" in one spelling: https://index.docker.io/v1/ is docker.io."""
    bare = re.sub("^https?://", "", key)
    if bare != key:
        bare = bare.partition("/")[0]                           # docker writes URLs, and only the host counts
    host, slash, path = re.sub("/(v[12]/?)?$", "", bare).partition("/")
    host = host.lower()
    return ("docker.io" if host in ("index.docker.io", "registry-1.docker.io") else host) + slash + path


def stored_credential(reference, environ, warn):
    """The Credential for a reference's repository from the user's configuration files, or None."""
    for path in credential_files(environ):
        try:
            with open(path, "rb") as file:
                config = parse_json(file.read(MANIFEST_LIMIT), "it")
            found = credential_in(config, reference, lambda text, path=path: warn("%s: %s" % (path, text)))
        except FileNotFoundError:
            continue
        except (OSError, ImgpullError) as error:
            warn("%s is passed over: %s" % (path, printable(getattr(error, "strerror", None) or error)))
            continue
        if found:
            return found
    return None


def credential_in(config, reference, warn):
    """The Credential for a reference in one configuration file: the longest key that is a prefix of its name."""
    parts = reference.name.lower().split("/")
    names = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
    helpers = {normal_key(key): name for key, name in field(config, "credHelpers", dict, "it", {}).items()}
    auths = {normal_key(key): entry for key, entry in sorted(           # the exact spelling last: it decides
        field(config, "auths", dict, "it", {}).items(), key=lambda item: item[0] == normal_key(item[0]))}
    helper = next((helpers[name] for name in names if name in helpers), None) or config.get("credsStore")
    if helper:
        try:
            found = helper_credential(helper, reference.registry)
            if found:
                return found
        except ImgpullError as error:
            warn("%s; going on without it" % error)
    for name in names:
        entry = auths.get(name)
        if isinstance(entry, dict):
            try:
                found = entry_credential(entry)
            except ValueError:
                warn("the entry of %s is not base64 of user:password" % printable(name))
                continue
            if found:
                return found
    return None


def entry_credential(entry):
    """The Credential of one "auths" entry, or None where it is empty. Raises ValueError on garbage."""
    import base64
    user, password, identity, token = (field(entry, key, str, "an auths entry", "")
                                       for key in ("username", "password", "identitytoken", "registrytoken"))
    packed = field(entry, "auth", str, "an auths entry", "")
    if packed:
        user, colon, password = base64.b64decode(packed, validate=True).decode().strip("\0\n").partition(":")
        if not colon:
            raise ValueError("no colon")
    if user == "<token>":
        user, password, identity = "", "", identity or password
    return Credential(user, password, identity, token) if user or identity or token else None


def helper_credential(helper, registry):
    """What docker-credential-HELPER has for a registry, or None. Raises ImgpullError where the helper fails."""
    import subprocess
    if not isinstance(helper, str) or not re.fullmatch(r"[A-Za-z0-9._-]+", helper):
        raise ImgpullError("the credential helper's name is malformed: %s" % printable(repr(helper), 60))
    program = "docker-credential-" + helper
    server = "https://index.docker.io/v1/" if registry == "docker.io" else registry
    try:
        process = subprocess.Popen([program, "get"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL)
        answer = process.communicate(server.encode(), timeout=HELPER_SECONDS)[0]
    except OSError as error:
        raise ImgpullError("%s cannot be run (%s)" % (program, error.strerror)) from None
    except subprocess.TimeoutExpired:
        process.kill()
        raise ImgpullError("%s gave no answer in %s s" % (program, HELPER_SECONDS)) from None
    if process.returncode:
        if b"not found" in answer:
            return None
        raise ImgpullError("%s failed: %s" % (
            program, printable(answer[:500].decode("utf-8", "replace")) or "exit %d" % process.returncode))
    try:
        value = parse_json(answer, program)
        user, secret = (field(value, key, str, program, "") for key in ("Username", "Secret"))
    except ImgpullError:                        # not its words: they may hold a secret
        raise ImgpullError("%s gave an answer that is not understood" % program) from None
    if user == "<token>":
        return Credential("", "", secret, "")
    return Credential(user, secret, "", "") if user or secret else None


# ---- Transport: the one place that makes a request, and the one that retries (RFC 9110, RFC 9112) ------------------

USER_AGENT = "imgpull/" + __version__
CERTS_DIRS = ("~/.config/containers/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d")

Origin = collections.namedtuple("Origin", "scheme host port")
Origin.__doc__ = """Whom we talk to: scheme ("http" or "https"), host (lower case, no brackets), port (int)."""
Origin.__str__ = lambda self: (("[%s]" if ":" in self.host else "%s") % self.host
                               + ("" if self.port == PORTS[self.scheme] else ":%d" % self.port))
PORTS = {"http": 80, "https": 443}

Settings = collections.namedtuple(
    "Settings", "scheme insecure cacert cert key user password token timeout retries namespace")
Settings.__new__.__defaults__ = ("https", False, None, None, None, None, None, None, 30, 5, None)
Settings.__doc__ = """How to reach a registry. scheme: "https" or "http"; insecure: do not verify certificates;
cacert, cert, key: paths of PEM files; user, password, token: credentials; timeout: seconds without a byte;
retries: attempts after the first, counted anew after progress; namespace: the registry that a mirror stands for."""
Settings.__repr__ = lambda self: "Settings(***)"


class Reporter:
    """Who is told how a pull goes. This one says nothing; the methods are called from several threads."""

    def note(self, text):
        """Something that the user may want to know: a wait, a retry, a resume."""

    def warn(self, text):
        """Something that the user should know."""

    def debug(self, text):
        """A request or an answer, without secrets."""

    def start(self, blobs, total):
        """A download begins: blobs ([Descriptor, ...]) and their total in bytes."""

    def blob(self, descriptor, how):
        """A blob (Descriptor) is complete and right. how: "" where it was fetched, else where it comes from."""

    def tick(self, done):
        """done bytes are in place. Called often."""

    def finish(self):
        """The download is over, well or not."""


def origin_of(url):
    """The Origin of a URL. Raises ImgpullError where it has none that we speak to."""
    from urllib.parse import urlsplit
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if host and parts.scheme in PORTS:
            return Origin(parts.scheme, host.lower(), PORTS[parts.scheme] if port is None else port)
    raise ImgpullError("%s is not the address of an http or https server: host, and port up to 65535" % public(url))


def public(url):
    """A URL fit to be shown: no user, password or query (signed URLs are secrets), no control characters."""
    return printable(re.sub(r"//[^/@]*@", "//", url.partition("?")[0].partition("#")[0]), 200)


def proxy_for(scheme, host, port, environ):
    """The URL of the proxy for a server, or None: https_proxy, http_proxy, all_proxy and no_proxy in either case."""
    def variable(name):
        return (environ.get(name) or environ.get(name.upper()) or "").strip()

    proxy = variable(scheme + "_proxy") or variable("all_proxy")
    if not proxy or bypassed(host, port, variable("no_proxy")):
        return None
    return proxy if "://" in proxy else "http://" + proxy


def usable_proxy(origin):
    """The URL of the proxy for an Origin, or None. Raises ImgpullError on one that we cannot speak to."""
    proxy = proxy_for(origin.scheme, origin.host, origin.port, os.environ)
    with contextlib.suppress(ImgpullError):
        if not proxy or origin_of(proxy).scheme == "http":
            return proxy
    raise ImgpullError("the proxy %s, from http_proxy, https_proxy or all_proxy, must be http://HOST:PORT "
                       "(special characters in a password as %%40 and the like)" % proxy_name(proxy))


def proxy_name(proxy):
    """A proxy's URL fit to be shown: what stands before the last @ may be a password, however it is written."""
    return "http://" + printable(re.sub("^[a-zA-Z0-9]+://", "", proxy or "").rpartition("@")[2], 200)


def bypassed(host, port, no_proxy):
    """Whether no_proxy names a host: *, domains with or without a leading dot, host:port, addresses, CIDR ranges."""
    host = host.lower().rstrip(".")
    for entry in re.split(r"[\s,]+", no_proxy.lower()):
        match = re.fullmatch(r"(\[[^]]*\]|[^:]*):(\d+)", entry)
        if match:
            if int(match.group(2)) != port:
                continue
            entry = match.group(1)
        entry = entry.strip("[]").rstrip(".")
        domain = re.sub(r"^\*?\.", "", entry)
        if entry == "*" or (domain and (host == domain or host.endswith("." + domain))) or in_range(host, entry):
            return True
    return False


def in_range(host, network):
    """Whether a host is an address within a network in CIDR notation."""
    if "/" not in network and ":" not in network:
        return False
    import ipaddress
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    return False


def certs_in(origin, suffixes):
    """Paths of a host's files with one of the suffixes in docker's and podman's certs.d directories, sorted."""
    netloc = "%s:%d" % (("[%s]" if ":" in origin.host else "%s") % origin.host, origin.port)
    found = []
    for directory in CERTS_DIRS:
        for name in sorted({netloc, str(origin)}, reverse=True):        # the one with the port first
            path = os.path.join(os.path.expanduser(directory), name)
            with contextlib.suppress(OSError):  # there is none, or it is not for us
                found += [os.path.join(path, file) for file in sorted(os.listdir(path)) if file.endswith(suffixes)]
    return found


def tls_context(origin, settings, own):
    """The ssl.SSLContext for a server. own: whether --cert is meant for it. Raises ImgpullError on unusable files."""
    import ssl

    def load(load_file, what, path, *args):
        try:
            load_file(path, *args)
        except FileNotFoundError:
            raise ImgpullError("%s: no such file: %s" % (what, " or ".join(filter(None, (path,) + args[:1])))) from None
        except ssl.SSLError as error:
            if locked:
                raise ImgpullError("the client's key is encrypted, and there is no terminal to ask for its pass "
                                   "phrase: decrypt it (openssl pkey -in KEY -out PLAIN)") from None
            raise ImgpullError("%s %s cannot be used (%s): it must be PEM%s" % (
                what, path, printable(error.reason or error), ", and certificate and key a pair" if args else "")
                ) from None
        except OSError as error:
            raise ImgpullError("%s %s cannot be read: %s" % (what, path, error.strerror)) from None

    locked = []

    def passphrase():
        if not sys.stdin or not sys.stdin.isatty():
            locked.append(True)                 # ssl of Python 3.6 calls again after an exception, and stumbles
            return "-"
        import getpass
        return getpass.getpass("Pass phrase of the client's key: ")

    context = ssl.create_default_context()
    # Python 3.13 refuses CAs without a key usage, as many private ones are; docker, curl and older Pythons take them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    for path in certs_in(origin, ".crt") + [settings.cacert] * bool(settings.cacert):
        load(context.load_verify_locations, "the CA certificate", path)
    pairs = [(cert, cert[:-5] + ".key") for cert in certs_in(origin, ".cert")]
    if own and settings.cert:
        pairs = [(settings.cert, settings.key)]
    for cert, key in pairs[:1]:
        load(context.load_cert_chain, "the client certificate", cert, key, passphrase)
    if settings.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


TLS_HINTS = (       # what OpenSSL says, in lower case, and what helps
    (("wrong version number", "http request", "unknown protocol", "record layer failure", "packet length too"),
     "it does not speak TLS on this port: --scheme http, if it is a plain-http registry"),
    (("certificate required", "handshake failure", "bad certificate", "peer did not return a certificate",
      "alert unknown ca", "certificate unknown", "certificate expired"),
     "it may want a client certificate that it trusts: --cert and --key"),
    (("unsupported protocol", "protocol version", "no protocols", "no shared cipher"),
     "it has no TLS version in common with this Python's OpenSSL: use a newer Python, or have the server updated"))
CERTIFICATE_HINTS = (
    (("expired", "not yet valid"), "its certificate is out of date: check this host's clock, have it renewed, "
                                   "or use --insecure for this pull"),
    (("mismatch", "doesn't match", "not valid for"), "its certificate is for another name: use the name that it is "
                                                     "for, or --insecure"),
    (("issuer", "self signed", "self-signed", "ca cert"),
     "its certificate is not signed by a CA that this host trusts: --cacert with the CA's PEM file, or --insecure"),
    (("",), "its certificate is not signed by a CA that this host trusts, or is out of date (this Python does "
            "not know more): --cacert with the CA's PEM file, or --insecure"))


def tls_failure(error):
    """What an ssl.SSLError means in words, or None where it is a cut connection and may pass."""
    text = printable(getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error))
    whole = ("%s %s" % (text, error)).lower().replace("_", " ")
    certificate = "verify failed" in whole or type(error).__name__ == "CertificateError"
    for words, hint in CERTIFICATE_HINTS if certificate else TLS_HINTS:
        if any(word in whole for word in words):
            return "%s (%s)" % (hint, text)
    return None


def retry_after(value):
    """Seconds that a Retry-After header asks for (RFC 9110 10.2.3), or None."""
    value = (value or "").strip()
    if re.fullmatch(r"\d{1,9}", value):
        return int(value)
    if value:
        from email.utils import mktime_tz, parsedate_tz
        with contextlib.suppress(Exception):    # Pythons stumble over dates in many ways
            return max(0, mktime_tz(parsedate_tz(value)) - time.time())
    return None


class NetworkErrors(contextlib.AbstractContextManager):
    """A context in which what http.client, ssl and sockets raise becomes Temporary, or an ImgpullError with a hint."""

    def __init__(self, transport, origin, proxy=None):
        self.transport, self.origin, self.proxy = transport, origin, proxy

    def __exit__(self, kind, error, _):
        if not isinstance(error, Exception) or isinstance(error, ImgpullError):
            return False
        if self.transport.stopping.is_set():
            raise Stopped("stopped") from None
        raise self.translated(error) from None

    def translated(self, error):
        """The ImgpullError that says what an exception means."""
        import http.client
        import socket
        import ssl
        peer = str(self.origin)
        through = " through the proxy %s" % proxy_name(self.proxy) if self.proxy else ""
        tunnel = re.match(r"Tunnel connection failed: (\d+) ?(.*)", str(error))
        if tunnel and tunnel.group(1) == "407":
            return ImgpullError(wants_proxy_credentials(self.proxy))
        if tunnel:
            kind = Temporary if tunnel.group(1).startswith("5") else ImgpullError
            return kind("the proxy %s does not connect us to %s: %s" % (
                proxy_name(self.proxy), peer, printable(" ".join(tunnel.groups()))))
        if isinstance(error, socket.timeout):
            return Temporary("%s was silent for %g s%s" % (peer, self.transport.settings.timeout, through))
        if isinstance(error, (ssl.SSLError, ssl.CertificateError)):
            meaning = tls_failure(error)
            if meaning:
                return ImgpullError("no TLS connection to %s%s: %s" % (peer, through, meaning))
            return Temporary("the TLS connection to %s%s broke: %s" % (peer, through, printable(error)))
        if isinstance(error, socket.gaierror):
            known = self.origin in self.transport.reached       # then the network is gone, not the name
            kind = ImgpullError if error.errno == socket.EAI_NONAME and not known else Temporary
            host = proxy_name(self.proxy) if self.proxy else self.origin.host
            return kind("no address found for the %s %s (%s): check its name and this host's DNS" % (
                "proxy" if self.proxy else "host", host, printable(error.strerror)))
        if isinstance(error, OSError):
            return Temporary("no connection to %s%s: %s" % (peer, through, printable(error.strerror or error)))
        if isinstance(error, (http.client.IncompleteRead, http.client.BadStatusLine)):
            text = printable(getattr(error, "line", ""), 60)
            return Temporary("%s gave an answer that is cut or not HTTP%s" % (peer, ": " + text if text else ""))
        if isinstance(error, UnicodeError):
            return ImgpullError("%s is no name of a host" % printable(peer, 100))
        if isinstance(error, http.client.HTTPException):
            return ImgpullError("%s gave an answer that is not understood: %s" % (peer, printable(error, 120)))
        # Not its text, which may quote a header of ours.
        return ImgpullError("no request can be made to %s (%s)" % (peer, type(error).__name__))


def wants_proxy_credentials(proxy):
    """The words for an answer of 407."""
    return "the proxy %s wants credentials, or other ones: http://USER:PASSWORD@HOST:PORT in the proxy's variable" % (
        proxy_name(proxy))


def proxy_authorization(proxy):
    """The headers that carry the credentials of a proxy's URL."""
    from urllib.parse import unquote, urlsplit
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    return {"Proxy-Authorization": basic(unquote(parts.username), unquote(parts.password or ""))}


class Response(contextlib.AbstractContextManager):
    """An answer whose body is read with a limit: status, headers, origin (who gave it), left (bytes, None if unknown).

    A context manager. Its connection serves the next request where the body has been read to its end.
    """

    def __init__(self, transport, connection, answer, origin, tls):
        self.transport, self.connection, self.answer, self.origin = transport, connection, answer, origin
        self.tls = tls                          # the ssl.SSLSocket, None over http
        self.status, self.headers = answer.status, answer.headers
        self.left = None if answer.chunked else answer.length
        self.position, self.broken = 0, None

    def readinto(self, view):
        """Fill a memoryview with what has arrived; the number of bytes, 0 at the end. Raises Temporary."""
        with NetworkErrors(self.transport, self.origin):
            if self.left == 0:
                return 0
            if self.left is None:
                piece = self.answer.read1(len(view))
                count = len(piece)
                view[:count] = piece
            else:
                count = self.fill(view[:self.left])
            if self.transport.stopping.is_set():        # an SSLSocket that was shut down hands out ciphertext
                raise Stopped("stopped")
            if self.left is None:
                return count
            if not count:
                raise Temporary("%s closed the connection with %s still to come" % (self.origin, human(self.left)))
            self.left -= count
            return count

    def fill(self, view):
        """Read what has arrived; unlike HTTPResponse.readinto, which waits until the view is full.

        A TLS record has 16 KiB at most: to hand on each by itself costs a fifth more time.
        """
        if self.broken:
            raise self.broken
        count = self.answer.fp.readinto1(view)
        while self.tls and 0 < count < len(view) and self.waiting():
            try:
                got = self.answer.fp.readinto1(view[count:])
            except Exception as error:
                self.broken = error             # what came before it counts
                break
            if not got:
                break
            count += got
        return count

    def waiting(self):
        """Whether more has arrived already."""
        import select
        with contextlib.suppress(OSError, ValueError):
            return bool(self.tls.pending() or select.select([self.tls], [], [], 0)[0])
        return False

    def ends(self, view):
        """Whether a body of unknown length ends here. Where the connection breaks instead, it may well."""
        with contextlib.suppress(Temporary):
            return not self.readinto(view[:1])
        return True

    def read(self, limit):
        """The whole body. Raises ImgpullError where it is longer than limit bytes."""
        body = self.first(limit + 1)
        if len(body) > limit:
            raise ImgpullError("%s answered with more than we take" % str(self.origin))
        return body

    def first(self, limit):
        """The body, or as much of it as limit bytes."""
        body, view = bytearray(), memoryview(bytearray(min(limit, 64 << 10)))
        while len(body) < limit:
            count = self.readinto(view[:limit - len(body)])
            if not count:
                break
            body += view[:count]
        return bytes(body)

    def close(self):
        """Give the connection back where it can serve again, else close it."""
        if self.connection is not None:
            try:
                if self.left == 0:
                    self.answer.length = 0      # what http.client does not know that we have read
                    self.answer.read()          # closes the answer, which is what lets the connection go on
                reusable = self.answer.isclosed() and not self.answer.will_close
            except Exception:
                reusable = False
            self.answer.close()                 # it may hold the socket, where the connection has let go of it
            self.transport.release(self.origin, self.connection, reusable)
            self.connection = None

    def __exit__(self, *_):
        self.close()


def bounded_answer():
    """http.client.HTTPResponse, but neither interim responses nor trailers may go on for ever."""
    import http.client

    class Answer(http.client.HTTPResponse):
        interim = 0

        def _read_status(self):
            self.interim += 1
            if self.interim > 20:
                raise http.client.HTTPException("too many interim responses")
            return super()._read_status()

        def _read_and_discard_trailer(self):
            for _ in range(100):
                if not self.fp.readline(64 << 10).strip():
                    return
            raise http.client.HTTPException("too many trailers")
    return Answer


def bracket_tunnel(connection, host):
    """Have CONNECT say [::1]:443, where http.client before Python 3.12 says ::1:443."""
    plain = connection._tunnel

    def tunnel():
        connection._tunnel_host = "[%s]" % host
        try:
            plain()
        finally:
            connection._tunnel_host = host      # what the certificate is checked against
    connection._tunnel = tunnel


class Transport:
    """Connections, kept alive and shared by all threads of a pull.

    settings: Settings. own_hosts: hosts that --cert is shown to, filled in by Registry.
    """

    def __init__(self, settings, reporter):
        self.settings, self.reporter = settings, reporter
        self.own_hosts = set()
        self.lock, self.tls_lock = threading.Lock(), threading.Lock()
        self.idle, self.live, self.contexts = {}, set(), {}
        self.reached, self.dead = set(), set()  # origins that have answered; addresses that have not
        self.stopping = threading.Event()

    def persist(self, attempt, progress=lambda: 0):
        """attempt() until it does not raise Temporary: the one place that retries.

        progress() is a number that grows as the attempt gets on; growth starts the count anew.
        Raises Resumable where the retries are used up.
        """
        count, before = 0, progress()
        while True:
            try:
                return attempt()
            except Temporary as error:
                failure = error
            if self.stopping.is_set():
                raise Stopped("stopped")
            count, before = (count if progress() <= before else 0) + 1, progress()
            if count > self.settings.retries:
                raise Resumable("%s%s" % (failure, " (tried %d times)" % count if count > 1 else ""))
            delay = failure.delay
            if delay is None:
                import random
                delay = BACKOFF * 2 ** min(count - 1, 6) * random.uniform(0.75, 1.25)
            elif delay > LONGEST_WAIT:
                raise Resumable("%s; it asks to wait %d s" % (failure, delay))
            self.reporter.note("%s; trying again in %.1f s (%d of %d)" % (
                failure, delay, count, self.settings.retries))
            if self.stopping.wait(delay):
                raise Stopped("stopped")

    def open(self, method, url, headers, authorization=None, body=None):
        """The Response to a request, after redirects. authorization goes to the origin of url alone.

        Raises Temporary, and ImgpullError on a redirect that is not to be followed.
        """
        from urllib.parse import urljoin
        first = origin_of(url)
        for _ in range(REDIRECTS + 1):
            origin = origin_of(url)
            sent = dict(headers, **{"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
            if authorization and origin == first:
                sent["Authorization"] = authorization
            response = self.send(origin, method, url, sent, body)
            self.reporter.debug("%s %s %s: %d" % (method, public(url), headers.get("Range", ""), response.status))
            location = response.headers.get("Location")
            if response.status not in (301, 302, 303, 307, 308) or not location:
                return response
            response.close()
            try:
                target = urljoin(url, location.strip())
            except ValueError:
                target = location
            if origin.scheme == "https" and not target.lower().startswith("https:"):
                raise ImgpullError("%s redirects from https to %s, which is not followed" % (origin, public(target)))
            if method == "POST":
                raise ImgpullError("%s redirects a request with credentials, which is not followed" % str(origin))
            url = target
        raise ImgpullError("%s redirects more than %d times" % (first, REDIRECTS))

    def send(self, origin, method, url, headers, body):
        """The Response to one request, without following anything: the one place that makes a request."""
        from urllib.parse import quote, urlsplit
        parts = urlsplit(url)
        target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (
            "?" + quote(parts.query, safe="/?%:@!$&'()*+,;=~-._[]") if parts.query else "")
        proxy = usable_proxy(origin)
        if proxy and origin.scheme == "http":
            target = "http://%s%s" % (origin, target)
            headers = dict(headers, **proxy_authorization(proxy))
        headers = dict(headers, Host=str(origin))
        while True:
            connection, kept = self.connection(origin, proxy)
            try:
                with NetworkErrors(self, origin, proxy):
                    connection.request(method, target, body, headers)
                    tls = connection.sock if origin.scheme == "https" else None
                    answer = connection.getresponse()
                self.reached.add(origin)
                if answer.status == 407:
                    raise ImgpullError(wants_proxy_credentials(proxy))
                return Response(self, connection, answer, origin, tls)
            except BaseException as error:
                self.release(origin, connection, False)
                # A kept-alive connection may have died of age before our request reached anyone: not a failure.
                if not (kept and isinstance(error, Temporary)) or self.stopping.is_set():
                    raise

    def connection(self, origin, proxy):
        """(an http.client connection, whether it was in use before)."""
        if self.stopping.is_set():
            raise Stopped("stopped")
        with self.lock:
            if self.idle.get(origin):
                connection = self.idle[origin].pop()
                self.live.add(connection)
                return connection, True
        connection = self.connect(origin, proxy)
        with self.lock:
            self.live.add(connection)
        return connection, False

    def connect(self, origin, proxy):
        """A new connection to an origin, through a proxy where there is one. Not yet connected."""
        import http.client
        address, timeout = origin_of(proxy) if proxy else origin, self.settings.timeout
        if origin.scheme == "https":
            with self.tls_lock:
                if origin not in self.contexts:
                    self.contexts[origin] = tls_context(origin, self.settings, origin.host in self.own_hosts)
            connection = http.client.HTTPSConnection(address.host, address.port, timeout=timeout,
                                                     context=self.contexts[origin])
            if proxy:
                connection.set_tunnel(origin.host, origin.port, proxy_authorization(proxy))
                if ":" in origin.host:
                    bracket_tunnel(connection, origin.host)
        else:
            connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout)
        connection.response_class = bounded_answer()
        connection._create_connection = self.dial
        return connection

    def dial(self, address, timeout, _source=None):
        """As socket.create_connection; but an address that is dead, of IPv6 say, costs 5 seconds, and once."""
        import socket
        found = socket.getaddrinfo(address[0], address[1], 0, socket.SOCK_STREAM)
        found.sort(key=lambda info: info[4] in self.dead)
        for info in found:
            sock = socket.socket(*info[:3])
            try:
                sock.settimeout(timeout if info is found[-1] else min(timeout, 5))
                sock.connect(info[4])
                sock.settimeout(timeout)
                return sock
            except OSError:
                sock.close()
                self.dead.add(info[4])
                if info is found[-1]:
                    raise
        raise OSError("no address for %s" % address[0])

    def release(self, origin, connection, reusable):
        """Take a connection back after use."""
        with self.lock:
            self.live.discard(connection)
            if reusable and not self.stopping.is_set():
                self.idle.setdefault(origin, []).append(connection)
                return
        connection.close()

    def stop(self):
        """Make every thread that waits for the network fail soon. For good."""
        import socket
        self.stopping.set()
        with self.lock:
            connections = list(self.live)
        for connection in connections:
            # Not connected yet, or gone: then it does not wait either.
            with contextlib.suppress(AttributeError, OSError, ValueError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self):
        """Close the connections that are idle."""
        with self.lock:
            idle, self.idle = self.idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()


# ---- Registry: challenges, tokens, manifests and blobs of one repository (distribution-spec, RFC 9110 11) ----------

CHALLENGE = re.compile(r"""[\s,]*(?:
    ([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))      # a parameter
    | ([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:\ +[A-Za-z0-9._~+/-]+=*(?=\s*(?:,|$)))?    # a scheme, maybe with a token68
    | .)""", re.VERBOSE | re.DOTALL)
TOKEN = re.compile(r"[\x21-\x7e]+")


def parse_challenges(value):
    """[(scheme in lower case, {parameter in lower case: value}), ...] of a WWW-Authenticate header (RFC 9110 11.6.1).

    value: str, several headers joined by ", ". What is malformed is passed over.
    """
    found = []
    for name, quoted, plain, scheme in CHALLENGE.findall(value[:64 << 10]):
        if scheme:
            found.append((scheme.lower(), {}))
        elif name and found:
            found[-1][1].setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) or plain)
    return found


REFUSED = "the credentials for %s, given or stored, are wrong or have expired, or have no right to this image"


def explain(response):
    """What an error answer says, in a line fit for a terminal; "" where it says nothing."""
    try:
        text = response.first(ERROR_BODY_LIMIT).decode("utf-8", "replace")
    except ImgpullError:
        return ""
    try:
        value = load_json(text)
        errors = value.get("errors") or [value]
        first = errors[0] if isinstance(errors, list) else errors
        parts = [first.get(key) for key in ("code", "message", "error", "error_description", "details", "detail")]
        text = ": ".join(part for part in parts if isinstance(part, str) and part) or text
    except (ValueError, AttributeError, IndexError, KeyError, RecursionError):
        pass
    if text.lstrip().startswith("<"):           # a web page: its title
        text = "".join(re.findall(r"<title>([^<]*)</title>", text, re.I)[:1])
    return printable(text)


def failure(response, what, own=True, advice="check the name, and log in (docker login, podman login, or --user)"):
    """The ImgpullError for an answer that is not a success. own: whether the registry itself gave it."""
    status, said = response.status, explain(response)
    text = "%s: %s answered %d%s" % (what, response.origin, status, " (%s)" % said if said else "")
    if status in (408, 425, 429) or status >= 500:
        return Temporary(text, retry_after(response.headers.get("Retry-After")))
    if not own and status in (400, 401, 403):
        return Temporary(text)                  # a signed address that has expired: the registry gives a new one
    if status == 404:
        return NotFound("%s; check the spelling of name and tag (a private repository may hide behind this)" % text)
    if status in (401, 403):
        return ImgpullError("%s; no access: %s" % (text, advice))
    if status == 400 and "HTTP request to an HTTPS server" in said:
        text += "; leave out --scheme http"
    elif status == 400 and "SSL certificate" in said:
        text += "; it wants a client certificate: --cert and --key"
    return ImgpullError(text)


class Registry:
    """Manifests and blobs of one repository.

    reference: Reference; settings: Settings. Every method raises ImgpullError. Safe to use from several threads.
    """

    def __init__(self, reference, settings=Settings(), reporter=None, transport=None):
        self.settings = settings
        self.transport = transport or Transport(settings, reporter or Reporter())
        self.reference, self.named = mirrored(reference, settings.namespace)
        host = "registry-1.docker.io" if self.reference.registry == "docker.io" else self.reference.registry
        self.base = "%s://%s/v2/%s/" % (settings.scheme, host, self.reference.repository)
        self.origin = origin_of(self.base)
        self.transport.own_hosts.add(self.origin.host)
        self.authorization, self.lock = None, threading.Lock()
        self.known, self.manifests = None, {}   # {digest: Manifest}: none is asked for twice
        self.doubted = set()                    # what came wrong once

    def head(self, target=None):
        """The Descriptor of a tag's or digest's manifest, unchecked, as the registry announces it."""
        target = target or self.reference.target

        def attempt():
            with self.request("HEAD", "manifests/" + target, "manifest %s" % target, {"Accept": ACCEPT}) as response:
                length = response.headers.get("Content-Length", "")
                return parse_descriptor({
                    "mediaType": response.headers.get("Content-Type"),
                    "size": int(length) if re.fullmatch("[0-9]{1,18}", length) else -1,
                    "digest": response.headers.get("Docker-Content-Digest")}, "the manifest")
        return self.transport.persist(attempt)

    def get(self, target=None):
        """The Manifest of a tag (str), digest (str) or Descriptor, checked against the digest where one is given.

        distribution-spec, "Pulling manifests". Without a target: what the reference names.
        """
        size = None
        if isinstance(target, Descriptor):
            target, size = target.digest, target.size
        target = target or self.reference.target
        if target in self.manifests:
            return self.manifests[target]
        what = self.reference.name + ("@" if ":" in target else ":") + target

        def attempt():
            with self.request("GET", "manifests/" + target, what, {"Accept": ACCEPT}) as response:
                body = response.read(MANIFEST_LIMIT)
            digest = target if DIGEST.fullmatch(target) else digest_of(body)
            if not matches(body, digest) or size not in (None, len(body)):
                raise self.wrong(target, "%s: the registry sent a manifest of %d bytes that is not what its digest says"
                                 % (what, len(body)))
            if sum(len(manifest.body) for manifest in self.manifests.values()) > MANIFESTS_LIMIT:
                raise ImgpullError("%s has more than %s of manifests" % (self.named, human(MANIFESTS_LIMIT)))
            return self.manifests.setdefault(digest, parse_manifest(body, digest, what))
        return self.transport.persist(attempt)

    def wrong(self, digest, text):
        """The error for content that is not right: it may have been garbled on the way, so once more, and once only."""
        kind = ImgpullError if digest in self.doubted else Temporary
        self.doubted.add(digest)
        return kind(text)

    def blob(self, descriptor):
        """The bytes of a small blob (a config), checked."""
        def attempt():
            with self.stream(descriptor) as response:
                body = response.read(MANIFEST_LIMIT)
            if len(body) != descriptor.size or not matches(body, descriptor.digest):
                raise self.wrong(descriptor.digest, "%s: the registry sent %d bytes that are not what the digest says"
                                 % (descriptor.digest, len(body)))
            return body
        return self.transport.persist(attempt)

    def stream(self, descriptor, start=0, end=None):
        """A Response with a blob's bytes from start to end (exclusive, None: all); its position tells from where.

        distribution-spec, "Pulling blobs"; RFC 9110 14. position is 0 where the server does not do ranges.
        Raises Temporary where another try may help (see Transport.persist), RangeRefused.
        """
        headers = {}
        if start or end is not None:
            headers["Range"] = "bytes=%d-%s" % (start, "" if end is None else end - 1)
        try:
            response = self.request("GET", "blobs/" + descriptor.digest, descriptor.short, headers)
        except NotFound:
            if not descriptor.urls:
                raise
            response = self.foreign(descriptor, headers)
        try:
            if response.status == 206:
                match = re.match(r"\s*bytes\s+(\d{1,18})-(\d{1,18})/", response.headers.get("Content-Range", ""), re.I)
                if not match or int(match.group(1)) != start:
                    raise RangeRefused("%s: %s sent another range than the one asked for" % (
                        descriptor.short, response.origin))
                response.position = start
            elif response.left is not None and response.left != descriptor.size:
                raise self.wrong(descriptor.digest, "%s: %s announces %d bytes, and the manifest %d" % (
                    descriptor.short, response.origin, response.left, descriptor.size))
            return response
        except ImgpullError:
            response.close()
            raise

    def foreign(self, descriptor, headers):
        """The Response for a layer that only its owner may distribute: from the addresses in its descriptor."""
        for url in descriptor.urls:
            if url.startswith("https://"):
                response = self.transport.open("GET", url, headers)
                if response.status in (200, 206):
                    return response
                response.close()
        raise NotFound("%s: neither the registry nor the addresses in the manifest have it" % descriptor.short)

    def request(self, method, path, what, headers):
        """The successful Response to a request for this repository, authorized where the registry asks for it."""
        from urllib.parse import urlencode
        url = self.base + path
        if self.settings.namespace:
            url += "?" + urlencode({"ns": self.settings.namespace})
        shown = self.authorization
        response = self.transport.open(method, url, headers, shown)
        if response.status == 401 and response.origin == self.origin:
            challenges = parse_challenges(", ".join(response.headers.get_all("WWW-Authenticate") or []))
            explain(response)                   # read to the end, so that the connection can be used again
            response.close()
            response = self.transport.open(method, url, headers, self.authorize(challenges, shown, what))
        if response.status in (200, 206):
            return response
        with response:
            if response.status == 416:
                kind = RangeRefused if "Range" in headers else Temporary
                raise kind("%s: %s refuses the range" % (what, response.origin))
            advice = [REFUSED % self.reference.registry] if any(self.known or ()) else []
            raise failure(response, what, response.origin == self.origin or not path.startswith("blobs/"), *advice)

    def authorize(self, challenges, refused, what):
        """The Authorization header that answers a challenge; refused: the one that has just been turned down.

        One thread gets it, the others take what it got.
        """
        with self.lock:
            if self.authorization == refused:
                offered = {}
                for scheme, parameters in challenges:
                    offered.setdefault(scheme, parameters)
                credential = self.credential()
                if "bearer" in offered:
                    self.authorization = "Bearer " + self.bearer_token(offered["bearer"], credential)
                elif "basic" in offered:
                    if not credential.user and not credential.password and not credential.token:
                        raise ImgpullError("%s: %s wants a user and a password: log in (docker login, podman login), "
                                           "or give --user" % (what, self.origin))
                    if credential.token:        # an ECR token is base64 of AWS:password already
                        self.authorization = "Basic " + credential.token
                    else:
                        self.authorization = basic(credential.user, credential.password)
                else:
                    raise ImgpullError("%s: %s wants an authorization of a kind that we do not have (%s)" % (
                        what, self.origin, printable(", ".join(offered) or "it does not say which", 80)))
            return self.authorization

    def credential(self):
        """The Credential for this repository, found once: options first, then the user's configuration."""
        if self.known is None:
            settings = self.settings
            if settings.token:
                self.known = Credential("", "", "", settings.token)
            elif settings.user:
                self.known = Credential(settings.user, settings.password or "", "", "")
            else:
                self.known = stored_credential(self.reference, os.environ, self.transport.reporter.warn)
            self.known = self.known or Credential("", "", "", "")
            if self.known.token and not TOKEN.fullmatch(self.known.token):
                raise ImgpullError("the token for %s holds blanks or other characters that none has" % self.origin.host)
        return self.known

    def bearer_token(self, parameters, credential):
        """A token from the challenge's realm (distribution's token and oauth2 specifications)."""
        from urllib.parse import urlencode, urljoin
        if credential.token:
            return credential.token
        realm = parameters.get("realm", "")
        if not re.match("https?://", realm, re.I):
            if not realm.startswith("/"):
                raise ImgpullError("%s names no token server that we can ask (realm %s)" % (
                    self.origin, printable(repr(realm), 100)))
            realm = urljoin(self.base, realm)
        origin = origin_of(realm)
        query = [("service", parameters["service"])] if parameters.get("service") else []
        query.append(("scope", parameters.get("scope") or "repository:%s:pull" % self.reference.repository))
        headers, body, authorization = {}, None, None
        secret = bool(credential.user or credential.identity)
        if secret and origin.scheme == "http" and self.settings.scheme == "https":
            raise ImgpullError("%s sends us to the plain-http token server %s: credentials do not go there" % (
                self.origin, origin))
        if credential.identity:
            body = urlencode([("grant_type", "refresh_token"), ("refresh_token", credential.identity),
                              ("client_id", "imgpull")] + query)
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        else:
            if credential.user:
                authorization = basic(credential.user, credential.password)
                query.insert(0, ("account", credential.user))
            realm += ("&" if "?" in realm else "?") + urlencode(query)

        def attempt():
            with self.transport.open("POST" if body else "GET", realm, headers, authorization, body) as response:
                if response.status != 200:
                    advice = [REFUSED % self.reference.registry] if secret else []
                    raise failure(response, "the token server", True, *advice)
                return response.read(TOKEN_LIMIT)
        value = parse_json(self.transport.persist(attempt), "the answer of the token server %s" % str(origin))
        token = field(value, "token", str, "the token", "") or field(value, "access_token", str, "the token", "")
        if not TOKEN.fullmatch(token):
            raise ImgpullError("the token server %s gave no token" % str(origin))
        return token


# ---- Reading an archive back: ours, docker save's old and new, skopeo's, podman's, crane's (image-spec image-layout)

OMITTED = "dev.imgpull.omitted"     # our annotation: the layers that a delta leaves out

Member = collections.namedtuple("Member", "name offset size link")
Layer = collections.namedtuple("Layer", "digest size member diff_id")
Layer.__doc__ = """A layer of a stored image: digest ("" where only its diff_id is known), size in the archive,
member (where it lies, None if it is not there), diff_id (digest of the unpacked tar, "" if not known)."""
Stored = collections.namedtuple("Stored", "names digest platform config layers omitted")
Stored.__doc__ = """An image in an archive: names (list of str), digest of its manifest, or of its config where the
archive has no manifest, platform, config (Member or None), layers (list of Layer), omitted (those of them that a
delta leaves out)."""
Stored.is_attestation = property(lambda self: self.platform is not None and self.platform.os == "unknown",
                                 doc="Whether it is not for running, but tells about another one.")

ArchiveImage = collections.namedtuple("ArchiveImage", "name digest platform size layers omitted saved")
ArchiveImage.__doc__ = """An image in an archive: name (str, "" without one), digest (of its manifest, or of its
config in an archive without manifests), platform (Platform or None), size (bytes of its layers in the archive),
layers (list of digests, bottom first), omitted (those that the archive leaves out), saved (their bytes)."""


class Archive(contextlib.AbstractContextManager):
    """A tar that holds images: members by name, and what they say. A context manager. Raises ImgpullError."""

    def __init__(self, path):
        self.path = path
        try:
            self.file = open(path, "rb")
        except OSError as error:
            raise ImgpullError("%s cannot be read: %s" % (path, error.strerror)) from None
        try:
            self.members = self.scan()
            if not {"index.json", "manifest.json"} & set(self.members):
                raise ImgpullError("%s holds no image: it has neither index.json nor manifest.json" % path)
            # absent: platforms that an index names and the archive lacks, as docker save may leave them out
            self.faults, self.absent, self.images, self.blobs = [], [], [], {}
            self.walked, self.layers = set(), 0         # what has been seen: archives may go in circles
            if "index.json" in self.members:
                index = parse_manifest(self.read(self.found("index.json")), "", path + ": index.json")
                self.walk(index.children, [], (), 0)
            if "manifest.json" in self.members:
                self.read_manifest_json()
        except BaseException:
            self.file.close()
            raise

    def __exit__(self, *_):
        self.file.close()

    def scan(self):
        """{name: Member} of the tar's files and links."""
        import stat
        import tarfile

        class Bounded(tarfile.TarInfo):
            """A header whose claims are checked before tarfile reads by them: names of gigabytes, sparse maps."""

            def _proc_member(self, tar):
                if self.size < 0 or self.type in b"SKLxgX" and (self.type == b"S" or self.size > 64 << 10):
                    raise tarfile.ReadError("a header that claims too much")
                return super()._proc_member(tar)

            def _proc_gnusparse_00(self, *_):
                raise tarfile.ReadError("a sparse member")
            _proc_gnusparse_01 = _proc_gnusparse_10 = _proc_gnusparse_00

        status = os.fstat(self.file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ImgpullError("%s is not a regular file" % self.path)
        magic = self.file.read(6)
        for start, tool in ((b"\x1f\x8b", "gunzip"), (b"\x28\xb5\x2f\xfd", "zstd -d"), (b"BZh", "bunzip2"),
                            (b"\xfd7zXZ", "unxz")):
            if magic.startswith(start):
                raise ImgpullError("%s is compressed: unpack it with %s first" % (self.path, tool))
        self.file.seek(0)
        members = {}
        try:
            with tarfile.TarFile(fileobj=self.file, tarinfo=Bounded, errorlevel=2) as tar:
                for count, info in enumerate(tar):
                    if count >= MEMBERS_LIMIT:
                        raise tarfile.ReadError("more than %d entries" % MEMBERS_LIMIT)
                    tar.members = []                    # constant memory: we keep what we need ourselves
                    name = posixpath.normpath(info.name)
                    link = None
                    if info.issym():
                        link = posixpath.normpath(posixpath.join(posixpath.dirname(name), info.linkname))
                    elif info.islnk():
                        link = posixpath.normpath(info.linkname)
                    elif not info.isreg():
                        continue
                    elif info.size < 0 or info.offset_data + info.size > status.st_size:
                        raise tarfile.ReadError("it ends in the middle of %s" % printable(name, 90))
                    members[name] = Member(name, info.offset_data, info.size, link)
        except (tarfile.TarError, ValueError, ArithmeticError, LookupError, EOFError, OSError, RecursionError) as error:
            raise ImgpullError("%s is no tar archive, or a damaged one: %s" % (self.path, printable(error))) from None
        return members

    def member(self, name):
        """The Member of a name, through links, or None."""
        for _ in range(8):
            member = self.members.get(name)
            if member is None or member.link is None:
                return member
            name = member.link
        return None

    def found(self, name):
        """The Member of a name that has to be there."""
        member = self.member(name)
        if member is None:
            raise ImgpullError("%s: %s is a link that leads nowhere" % (self.path, name))
        return member

    def read(self, member):
        """The bytes of a small Member."""
        if member.size > MANIFEST_LIMIT:
            raise ImgpullError("%s: %s is larger than such a file may be" % (self.path, printable(member.name, 90)))
        self.file.seek(member.offset)
        return self.file.read(member.size)

    def held(self, descriptor):
        """The Member of a descriptor's blob, or None; what is amiss goes to faults."""
        member = self.member(descriptor.path)
        if member is not None:
            self.blobs[descriptor.digest] = member
            if member.size != descriptor.size:
                self.faults.append("%s has %d bytes, and its descriptor says %d" % (
                    descriptor.digest, member.size, descriptor.size))
        return member

    def walk(self, descriptors, names, omitted, depth):
        """Gather the images of an index's descriptors, and of the indexes within it."""
        for descriptor in descriptors:
            notes = descriptor.annotations
            here = names
            if not depth:
                name = notes.get("io.containerd.image.name") or notes.get("org.opencontainers.image.ref.name")
                here, omitted = [name] if name else [], set(filter(None, notes.get(OMITTED, "").split(",")))
            if (descriptor.digest, tuple(here)) in self.walked:
                continue
            self.walked.add((descriptor.digest, tuple(here)))
            member = self.held(descriptor)
            if member is None:
                (self.absent if depth else self.faults).append("the manifest %s%s is not there" % (
                    descriptor.digest, " (%s)" % str(descriptor.platform) if descriptor.platform else ""))
                continue
            body = self.read(member)
            if not matches(body, descriptor.digest):
                self.faults.append("the manifest %s is damaged" % descriptor.digest)
                continue
            manifest = parse_manifest(body, descriptor.digest, "%s in %s" % (descriptor.digest, self.path))
            if not manifest.is_index:
                self.images.append(self.stored(manifest, here, omitted, is_attestation(descriptor)))
            elif depth < INDEX_DEPTH:
                self.walk(manifest.children, here, omitted, depth + 1)
            else:
                raise ImgpullError("%s has indexes within indexes within indexes" % self.path)

    def stored(self, manifest, names, omitted, attestation):
        """The Stored of a manifest."""
        config, platform, diff_ids = self.held(manifest.config), None, []
        if config is None:
            self.faults.append("the config %s is not there" % manifest.config.digest)
        elif attestation:
            platform = Platform("unknown", "unknown", "")
        elif manifest.is_image:
            body = self.read(config)
            if matches(body, manifest.config.digest):
                platform, diff_ids = parse_config(body, "the config %s" % manifest.config.digest)
                if len(diff_ids) != len(manifest.layers):
                    self.faults.append("%s has %s, and its config %d" % (
                        manifest.descriptor.digest, plural(len(manifest.layers), "layer"), len(diff_ids)))
        layers = []
        self.layers += len(manifest.layers)
        if self.layers > MEMBERS_LIMIT:
            raise ImgpullError("%s claims more than %d layers" % (self.path, MEMBERS_LIMIT))
        for number, layer in enumerate(manifest.layers):
            member = self.held(layer)
            if member is None and layer.digest not in omitted:
                self.faults.append("the layer %s is not there" % layer.digest)
            layers.append(Layer(layer.digest, layer.size, member, diff_ids[number] if number < len(diff_ids) else ""))
        gone = [layer for layer in layers if layer.member is None and layer.digest in omitted]
        return Stored(list(names), manifest.descriptor.digest, platform, config, layers, gone)

    def read_manifest_json(self):
        """Gather what docker's manifest.json names; what index.json has named already only gains names."""
        try:
            entries = load_json(self.read(self.found("manifest.json")).decode())
        except (ValueError, RecursionError):
            raise ImgpullError("%s: manifest.json is not JSON" % self.path) from None
        what = self.path + ": manifest.json"
        for entry in items({"": entries}, "", dict, what, CHILDREN_LIMIT):
            tags = items(entry, "RepoTags", str, what, CHILDREN_LIMIT)
            config = self.member(posixpath.normpath(field(entry, "Config", str, what, "")))
            if config is None:
                self.faults.append("the config that manifest.json names is not there: %s" % printable(
                    entry.get("Config"), 90))
                continue
            known = [image for image in self.images if image.config == config]
            paths = items(entry, "Layers", str, what, LAYERS_LIMIT)
            if known:
                known[0].names.extend(tag for tag in tags if not any(tag in image.names for image in known))
                missing = [path for path in paths if self.member(posixpath.normpath(path)) is None
                           and path not in [blob_path(layer.digest) for layer in known[0].omitted]]
            else:
                body = self.read(config)
                platform, diff_ids = parse_config(body, "%s: %s" % (self.path, printable(config.name, 90)))
                if len(diff_ids) != len(paths):
                    self.faults.append("%s has %s, and its config %d" % (
                        printable(config.name, 90), plural(len(paths), "layer"), len(diff_ids)))
                diff_ids += [""] * (len(paths) - len(diff_ids))
                layers = [self.docker_layer(posixpath.normpath(path), diff_id)
                          for path, diff_id in zip(paths, diff_ids)]
                self.images.append(Stored(tags, digest_of(body), platform, config, layers, []))
                named = re.search("([a-f0-9]{64})", config.name)
                if named and "sha256:" + named.group(1) != digest_of(body):
                    self.faults.append("the config %s is not what its name says" % printable(config.name, 90))
                missing = [path for path, layer in zip(paths, layers) if layer.member is None]
            self.faults += ["the layer %s is not there" % printable(path, 90) for path in missing]

    def docker_layer(self, path, diff_id):
        """The Layer at a path of manifest.json: blobs/sha256/HEX, HEX.tar.gz, HEX.tar, or ID/layer.tar."""
        member = self.member(path)
        match = re.fullmatch(r"(?:blobs/sha256/|(?:sha256:)?)([a-f0-9]{64})(?:\.tar\.gz|\.tar)?", path)
        digest = "sha256:" + match.group(1) if match else diff_id
        if member is not None and DIGEST.fullmatch(digest):
            self.blobs[digest] = member
        return Layer(digest, member.size if member else 0, member, diff_id)


def list_archive(path):
    """[ArchiveImage, ...] of what a tar holds. path: str. Raises ImgpullError where it is no archive of images."""
    with Archive(path) as archive:
        if archive.faults or not archive.images:
            raise ImgpullError("%s is damaged: %s" % (path, (archive.faults or ["it holds no image"])[0]))
        return [ArchiveImage(name, image.digest, image.platform,
                             sum(layer.size for layer in image.layers if layer.member),
                             [layer.digest for layer in image.layers], [layer.digest for layer in image.omitted],
                             sum(layer.size for layer in image.omitted))
                for image in archive.images if not image.is_attestation for name in image.names or [""]]


def holdings(paths):
    """([diff_ids of an image, ...], {digest or diff_id of a layer that is there, ...}) of base archives."""
    chains, held = [], set()
    for path in paths:
        with Archive(path) as archive:
            for image in archive.images:
                chains.append([layer.diff_id for layer in image.layers])
                for layer in image.layers:
                    if layer.member is not None:
                        held |= {layer.digest, layer.diff_id} - {""}
    return chains, held


def unpacker(head):
    """A function from a piece of a layer to pieces of its tar, by its first bytes; None where we cannot unpack it."""
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return None                                     # zstd: not in the standard library before 3.14
    if not head.startswith(b"\x1f\x8b"):
        return lambda piece: [bytes(piece)]
    import zlib
    current = zlib.decompressobj(31)

    def unpack(piece):
        nonlocal current
        for start in range(0, len(piece), 16 << 10):    # small, since each member's end copies the rest of it
            data = bytes(piece[start:start + (16 << 10)])
            while data:
                if current.eof:                         # gzip members may follow one another
                    data = data.lstrip(b"\0")
                    current = zlib.decompressobj(31)
                    continue
                yield current.decompress(data, BUFFER)
                data = current.unconsumed_tail or current.unused_data
    return unpack


Check = collections.namedtuple("Check", "faults absent images size counts_on unchecked")
Check.__doc__ = """What verifying found: faults (list of str), absent (list of str: platforms that are named but not
there, which is a fault as well, but does not keep the others from being used), images (int), size (bytes read),
counts_on (number of layers that have to be on the other side), unchecked (layers whose diff_id was not checked)."""


def pieces(file, offset, size, view):
    """Bytes offset..offset + size of an open file, or up to its end, in pieces; each overwrites the one before."""
    file.seek(offset)
    while size:
        count = file.readinto(view[:size])
        if not count:
            return
        size -= count
        yield view[:count]


def check_blob(archive, member, digest, diff_id):
    """(faults, whether the diff_id could not be checked) of one blob, read once."""
    import zlib
    packed, unpacked, unpack, faults = new_hash(digest or "sha256:"), hashlib.sha256(), None, []
    view = memoryview(bytearray(BUFFER))
    for number, piece in enumerate(pieces(archive.file, member.offset, member.size, view)):
        if diff_id and not number:
            unpack = unpacker(bytes(piece[:4]))
        packed.update(piece)
        try:
            for part in unpack(piece) if unpack else ():
                unpacked.update(part)
        except zlib.error as error:
            faults.append("the layer %s cannot be unpacked: %s" % (digest or diff_id, printable(error)))
            unpack = None
    if digest and not confirms(packed, digest):
        return ["%s is damaged: its bytes are not what its digest says" % digest], False
    if diff_id and unpack and "sha256:" + unpacked.hexdigest() != diff_id:
        faults.append("the layer %s is not what the config says: its tar has the digest sha256:%s, not %s" % (
            digest or diff_id, unpacked.hexdigest(), printable(diff_id, 80)))
    return faults, bool(diff_id and not unpack and not faults and member.size)


def check_archive(path, base=(), unpack=True):
    """The Check of an archive, together with those that it builds upon. unpack: check compressed layers' diff_ids."""
    with Archive(path) as archive:
        wanted = {}                                     # offset: [Member, its digest or "", diff_ids]
        for name, member in archive.members.items():
            match = re.fullmatch("blobs/(sha256|sha512)/([a-f0-9]+)", name)
            if match and member.link is None and DIGEST.fullmatch(":".join(match.groups())):
                wanted[member.offset] = [member, ":".join(match.groups()), set()]
        for image in archive.images:
            for layer in image.layers:
                if layer.member:
                    named = "" if layer.digest == layer.diff_id else layer.digest
                    wanted.setdefault(layer.member.offset, [layer.member, named, set()])[2].add(layer.diff_id)
        faults, absent, unchecked, size = list(archive.faults), archive.absent, 0, 0
        for _, (member, digest, diff_ids) in sorted(wanted.items(), key=lambda item: item[0]):
            diff_ids.discard("")
            size += member.size
            if len(diff_ids) > 1:
                faults.append("%s is two layers at once for the configs" % digest)
            diff_id = min(diff_ids) if diff_ids and (unpack or not digest) else ""
            found, skipped = check_blob(archive, member, digest, diff_id)
            faults += found
            unchecked += skipped
        needed = {layer.digest: layer for image in archive.images for layer in image.omitted
                  if layer.digest not in archive.blobs}
        images = sum(not image.is_attestation for image in archive.images)
    if not images:
        faults.append("it holds no image")
    for each in base:
        check = check_archive(each)
        faults += ["%s: %s" % (each, fault) for fault in check.faults]
        size += check.size
    if base:
        held = holdings(base)[1]
        faults += ["the layer %s is in no --base" % digest for digest, layer in needed.items()
                   if digest not in held and layer.diff_id not in held]
    faults = list(collections.OrderedDict.fromkeys(faults))
    return Check(faults, absent, images, size, 0 if base else len(needed), unchecked)


def verify_archive(path, base=()):
    """[fault, ...] of an archive, empty where every byte is right: digests, references and diff_ids.

    path: str; base: paths of the archives that a delta counts on. Raises ImgpullError where it cannot be read at all.
    """
    check = check_archive(path, base)
    return check.faults + check.absent


Source = collections.namedtuple("Source", "path offset size")
Source.__doc__ = """Bytes of a blob, from its beginning on, in a local file."""


def reusable(paths):
    """{digest: Source} of the blobs in archives, for --reuse. Unchecked: they are checked as they are copied."""
    found = {}
    for path in paths:
        with Archive(path) as archive:
            for digest, member in archive.blobs.items():
                found.setdefault(digest, Source(path, member.offset, member.size))
    return found


# ---- Archive plan: the whole tar laid out before its first layer arrives (image-spec image-layout.md; docker save) --

Image = collections.namedtuple("Image", "registry name tag descriptor manifests offered")
Image.__doc__ = """An image to be pulled: registry (Registry), name (its full name in the archive), tag ("" if none),
descriptor (what index.json points to), manifests (every Manifest that comes along), offered (the Manifest that
manifest.json offers to docker, None for what is no image)."""

Planned = collections.namedtuple("Planned", "descriptor offset registry")
Planned.__doc__ = """A config or layer in the archive: descriptor, offset (of its first byte), registry (Registry)."""

Plan = collections.namedtuple("Plan", "literals blobs size omitted")
Plan.__doc__ = """An archive: literals ([(offset, bytes), ...], in order), blobs ([Planned, ...], in order), size
(bytes), omitted ({digest: size} of the layers that are left out)."""


def compact(value):
    """JSON bytes without spaces: the same on every Python."""
    return json.dumps(value, separators=(",", ":")).encode()


def tar_header(name, size):
    """The tar header of a file: GNU format, mode 0644, everything else zero, the same on every Python."""
    import tarfile
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    last = memoryview(header)[-512:]
    last[329:345] = bytes(16)               # device numbers, which Pythons write in two ways
    last[148:156] = b" " * 8
    last[148:156] = b"%06o\0 " % sum(last)
    return bytes(header)


def layout(contents):
    """(literals, [(Descriptor, offset), ...], size) of a tar with contents, an ordered {name: bytes or Descriptor}."""
    literals, blobs, pending, start = [], [], bytearray(), 0
    for name, content in contents.items():
        literal = isinstance(content, bytes)
        size = len(content) if literal else content.size
        pending += tar_header(name, size)
        if literal:
            pending += content
        else:
            offset = start + len(pending)
            literals.append((start, bytes(pending)))
            blobs.append((content, offset))
            pending, start = bytearray(), offset + size
        pending += bytes(-size % 512)
    literals.append((start, bytes(pending) + bytes(1024)))
    return literals, blobs, start + len(pending) + 1024


def docker_manifest(images):
    """What manifest.json says: for every image that docker can run its config, names and layers."""
    entries = collections.OrderedDict()
    for image in images:
        if image.offered:
            tags = [image.name] if image.tag else []
            entry = entries.setdefault(image.offered.descriptor.digest, {
                "Config": image.offered.config.path, "RepoTags": [],
                "Layers": [layer.path for layer in image.offered.layers]})
            entry["RepoTags"] += [tag for tag in tags if tag not in entry["RepoTags"]]
    return [dict(entry, RepoTags=entry["RepoTags"] or None) for entry in entries.values()]


def oci_index(images, omitted):
    """What index.json says: a descriptor an image, with the annotations that containerd and skopeo name it by."""
    descriptors = []
    for image in images:
        annotations = {"io.containerd.image.name": image.name}
        if image.tag:
            annotations["org.opencontainers.image.ref.name"] = image.tag
        gone = [layer.digest for manifest in image.manifests for layer in manifest.layers if layer.digest in omitted]
        if gone:
            annotations[OMITTED] = ",".join(collections.OrderedDict.fromkeys(gone))
        descriptors.append({"mediaType": image.descriptor.media_type, "digest": image.descriptor.digest,
                            "size": image.descriptor.size, "annotations": annotations})
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}


def plan_archive(images, omit):
    """The Plan for images ([Image, ...]) without the layers whose digests are in omit. A pure function.

    Raises ImgpullError where two manifests give one digest two sizes.
    """
    blobs, owners, sizes, omitted = {}, {}, {}, {}
    for image in images:
        for manifest in image.manifests:
            blobs[manifest.descriptor.path] = manifest.body
            sizes[manifest.descriptor.digest] = manifest.descriptor.size
    for image in images:
        for manifest in image.manifests:
            if not manifest.is_index and manifest.config.size > MANIFEST_LIMIT:
                raise ImgpullError("%s: its config of %s is larger than a config may be" % (
                    image.name, human(manifest.config.size)))
            for blob in ([] if manifest.is_index else [manifest.config] + manifest.layers):
                if sizes.setdefault(blob.digest, blob.size) != blob.size:
                    raise ImgpullError("%s: %s is said to have %d bytes, and %d" % (
                        image.name, blob.digest, blob.size, sizes[blob.digest]))
                if blob.digest in omit:
                    omitted[blob.digest] = blob.size
                else:
                    blobs.setdefault(blob.path, blob)
                    owners.setdefault(blob.digest, image.registry)
    contents = collections.OrderedDict([("oci-layout", compact({"imageLayoutVersion": "1.0.0"})),
                                        ("index.json", compact(oci_index(images, omitted)))])
    entries = docker_manifest(images)
    if entries:
        contents["manifest.json"] = compact(entries)
    contents.update(sorted(blobs.items()))
    literals, placed, size = layout(contents)
    if size >= 1 << 60:
        raise ImgpullError("%s: its layers claim an impossible size: %s" % (images[0].name, human(size)))
    return Plan(literals, [Planned(blob, offset, owners[blob.digest]) for blob, offset in placed], size, omitted)


def omissible(images, chains, held):
    """The digests of the layers that a delta may leave out. images: [(Manifest, its diff_ids), ...].

    A runtime reuses a layer only on top of the same layers (a chain), so a layer must stand in a base (chains) with
    the same ones below it, and its bytes be there (held), wherever it occurs.
    """
    prefixes = {tuple(chain[:count]) for chain in chains for count in range(1, len(chain) + 1)}
    verdicts = {}
    for manifest, diff_ids in images:
        for number, layer in enumerate(manifest.layers):
            known = (number < len(diff_ids) and tuple(diff_ids[:number + 1]) in prefixes
                     and bool(held & {layer.digest, diff_ids[number]}))
            verdicts[layer.digest] = verdicts.get(layer.digest, True) and known
    return frozenset(digest for digest, known in verdicts.items() if known)


# ---- Part file: the archive as it grows, beside its destination; what a killed run leaves for the next -------------

RECORD = struct.Struct("<IQQ")          # blob number, start, position: bytes start..position of the blob are written


def merged(spans, size):
    """Spans of a blob of size bytes in order, joined where they meet; impossible ones are left out."""
    found = []
    for start, position in sorted(spans):
        if not 0 <= start < position <= size:
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(position, found[-1][1]))
        else:
            found.append((start, position))
    return found


class FileErrors(contextlib.AbstractContextManager):
    """A context in which what the system says of a file of ours becomes Resumable, or another ImgpullError."""

    def __init__(self, destination):
        self.destination = destination

    def __exit__(self, kind, error, _):
        if not isinstance(error, OSError) or isinstance(error, BrokenPipeError):
            return
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Resumable("the disk of %s is full: make room" % self.destination) from None
        if error.errno == errno.EFBIG:
            raise ImgpullError("%s: its file system, or a limit of this process, does not take so large a file"
                               % self.destination) from None
        raise ImgpullError("%s cannot be written: %s" % (self.destination, error.strerror)) from None


class PartFile:
    """<destination>.part, sparse and of the archive's full size, and <destination>.part.state: lock and progress.

    The state is a JSON line that says what the plan's blobs are, then a RECORD for each span. It is a hint and never
    trusted: the digests decide. Raises ImgpullError where the destination cannot be written or is being written.
    """

    def __init__(self, destination, plan):
        self.destination, self.plan = destination, plan
        self.path, self.state_path, self.old_path = (destination + end for end in (".part", ".part.state", ".part.old"))
        self.slots = 0
        self.header = compact({"imgpull": 1, "size": plan.size, "blobs": [
            [blob.descriptor.digest, blob.offset, blob.descriptor.size] for blob in plan.blobs]}) + b"\n"
        with FileErrors(destination):
            self.state = lock_file(self.state_path, destination)
            self.spans, self.sources = self.recover()
            self.prepare()

    def recover(self):
        """({blob number: [(start, position), ...]}, {digest: Source}) that an earlier run has left."""
        header, newline, records = self.state.read(64 << 20).partition(b"\n")
        spans = {}
        for number, start, position in RECORD.iter_unpack(records[:len(records) // RECORD.size * RECORD.size]):
            spans.setdefault(number, []).append((start, position))
        kept, found = {}, {}
        try:
            whole = os.path.getsize(self.path)
            if header + newline == self.header and whole == self.plan.size:
                kept = {number: merged(spans.get(number, []), blob.descriptor.size)
                        for number, blob in enumerate(self.plan.blobs)}
            else:
                # Another plan, since the tag has moved on, say: what both have in common is copied from the old file.
                found = self.leftovers(spans, json.loads(header.decode())["blobs"], whole)
        except (FileNotFoundError, ValueError, TypeError, KeyError, RecursionError):
            pass                                # nothing is there, or nothing of ours
        if found:
            os.replace(self.path, self.old_path)
        else:
            remove(self.old_path)
        return kept, found

    def leftovers(self, spans, blobs, whole):
        """{digest: Source} of what an old file of whole bytes has of each of its blobs, from the beginning on."""
        found = {}
        for number, (digest, offset, size) in enumerate(blobs):
            for start, position in merged(spans.get(number, []), size)[:1]:
                if start == 0 and position and 0 <= offset <= offset + size <= whole and isinstance(offset, int):
                    found[digest] = Source(self.old_path, offset, position)
        return found

    def prepare(self):
        """Bring the part file to its full size, and see that the disk has room for it."""
        import shutil
        if not self.spans:
            remove(self.path)
        self.file = open(self.path, "r+b" if self.spans else "w+b", buffering=0)
        status = os.fstat(self.file.fileno())
        missing = self.plan.size - (status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size)

        def free():
            return shutil.disk_usage(os.path.dirname(os.path.abspath(self.path))).free

        if missing > free() and self.sources:
            self.sources = {}
            remove(self.old_path)
        if missing > free():
            self.close()
            if not self.spans:
                self.discard()
            raise Resumable("%s needs %s, and its disk has %s free: make room, or write it elsewhere" % (
                self.destination, human(missing), human(free())))
        try:
            self.file.truncate(self.plan.size)
        except OSError:                         # too large for the file system, and for the next run as well
            self.discard()
            raise
        self.state.seek(0)
        self.state.truncate()
        self.state.write(self.header)
        for offset, literal in self.plan.literals:
            self.file.seek(offset)
            write_all(self.file, literal)

    def slot(self):
        """The place of a new RECORD in the state file. Called under the download's lock."""
        self.slots += 1
        return len(self.header) + (self.slots - 1) * RECORD.size

    def read(self, blob):
        """The bytes of a small blob (Planned) that is in place."""
        self.file.seek(blob.offset)
        return self.file.read(blob.descriptor.size)

    def commit(self):
        """Give the archive its name, for good."""
        with FileErrors(self.destination):
            os.fsync(self.file.fileno())
            self.file.close()
            os.replace(self.path, self.destination)
        sync_directory(self.destination)
        self.discard()

    def close(self):
        """Leave everything for the next run."""
        self.file.close()
        self.state.close()

    def discard(self):
        """Remove what there is but for the destination."""
        self.file.close()
        for path in (self.path, self.old_path):
            remove(path)
        try:
            remove(self.state_path)             # before the lock goes, or we might remove another run's
        except PermissionError:
            self.state.close()                  # Windows removes no open file
            remove(self.state_path)
        self.state.close()


class Writer:
    """One thread's own way into the part file: there is no pwrite everywhere."""

    def __init__(self, part):
        self.errors = FileErrors(part.destination)
        with self.errors:
            self.file = open(part.path, "r+b", buffering=0)
            self.state = open(part.state_path, "r+b", buffering=0)
        self.offset = 0                         # where file stands: a seek for each write gives up the GIL each time

    def write(self, offset, view):
        """Put bytes at an offset of the archive."""
        with self.errors:
            self.seek(offset)
            write_all(self.file, view)
            self.offset += len(view)

    def readinto(self, offset, view):
        """Read back what was written; the number of bytes."""
        with self.errors:
            self.seek(offset)
            count = self.file.readinto(view)
            self.offset += count
            return count

    def seek(self, offset):
        """Go to an offset of the archive."""
        if offset != self.offset:
            self.file.seek(offset)
            self.offset = offset

    def record(self, slot, number, start, position):
        """Note how far a span has come, after its bytes were written."""
        with self.errors:
            self.state.seek(slot)
            write_all(self.state, RECORD.pack(number, start, position))

    def close(self):
        self.file.close()
        self.state.close()


def lock_file(path, destination):
    """The file at a path, opened, and locked while this process lives. Raises ImgpullError where it is taken."""
    while True:
        file = open(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b", buffering=0)
        try:
            try:
                import fcntl
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:
                import msvcrt
                file.seek(1 << 30)              # far behind the data, since the lock keeps others from reading it
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                file.seek(0)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                file.close()
                raise ImgpullError("another imgpull is writing %s: wait for it, or choose another name"
                                   % destination) from None
        try:
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except FileNotFoundError:
            pass
        file.close()                            # its last owner removed it while we opened it


def write_all(file, data):
    """Write all of data to an unbuffered file, which may take less at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view):]


def remove(path):
    """Remove a file that may not be there."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


def sync_directory(path):
    """Make a rename last through a power loss, where the system has a way."""
    with contextlib.suppress(OSError):
        directory = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


# ---- Download: workers that fetch spans of blobs to their place, and hash each blob in order ------------------------

class Span:
    """Bytes start..end of a blob, one worker's task. position: where it has got to; slot: the place of its RECORD;
    active: whether a worker is at it; recorded: when its RECORD was last written, by time.monotonic()."""
    __slots__ = ("blob", "start", "position", "end", "slot", "active", "recorded")

    def __init__(self, blob, start, end, slot):
        self.blob, self.start, self.position, self.end, self.slot, self.active = blob, start, start, end, slot, False
        self.recorded = 0.0


class Blob:
    """A planned blob on its way. front: how far it has been hashed, contiguously from its beginning."""

    def __init__(self, number, planned, source):
        self.number, self.source = number, source
        self.descriptor, self.offset, self.registry = planned
        self.size = self.descriptor.size
        self.lock = threading.Lock()
        self.failures, self.fetched, self.ranged = 0, 0, True
        self.reset()

    def reset(self):
        """Begin anew."""
        self.hasher, self.front, self.hashing, self.spans = new_hash(self.descriptor.digest), 0, False, []

    def contiguous(self):
        """How far the blob is written without a gap."""
        limit = self.front
        for span in sorted(self.spans, key=lambda span: span.start):
            if span.start > limit:
                break
            limit = max(limit, span.position)
        return limit


class Download:
    """The blobs of a plan fetched into a part file by several threads. run() is all there is to call."""

    def __init__(self, plan, part, transport, reporter, sources):
        self.part, self.transport, self.reporter = part, transport, reporter
        self.lock = threading.Lock()
        self.error, self.over = None, threading.Event()
        self.pending, self.blobs = [], []
        for number, planned in enumerate(plan.blobs):
            blob = Blob(number, planned, sources.get(planned.descriptor.digest))
            self.blobs.append(blob)
            written = part.spans.get(number, [])
            if written:
                blob.source = None
            edges = [0]
            for start, position in written:
                self.span(blob, start, position).position = position
                edges += [start, position]
            edges.append(blob.size)
            gaps = [gap for gap in zip(edges[::2], edges[1::2]) if gap[0] < gap[1]]
            # Where nothing is missing, a span of no bytes sees to the hashing.
            self.pending += [self.span(blob, *gap) for gap in gaps or [(blob.size, blob.size)]]
        self.pending.sort(key=lambda span: span.start - span.end)           # the largest first
        self.kept = self.written()

    def span(self, blob, start, end):
        """A new Span of a blob."""
        span = Span(blob, start, end, self.part.slot())
        blob.spans.append(span)
        return span

    def written(self):
        """Bytes that are in place."""
        return sum(span.position - span.start for blob in self.blobs for span in list(blob.spans))

    def run(self, jobs):
        """Fetch everything with up to so many connections. Raises ImgpullError."""
        total = sum(blob.size for blob in self.blobs)
        writer = Writer(self.part)
        for blob in self.blobs:
            for span in blob.spans:
                self.record(span, writer)
        writer.close()
        if self.kept:
            self.reporter.note("going on where an earlier run stopped: %s of %s are there" % (
                human(self.kept), human(total)))
        # A second connection costs a few round trips: it must have more to do than that.
        jobs = min(jobs, max((len(self.pending) + 1) // 2, (total - self.kept) // MIN_SPLIT + 1))
        threads = [threading.Thread(target=self.work, daemon=True) for _ in range(jobs)]
        threads.append(threading.Thread(target=self.flush, daemon=True))
        self.buffer = max(16 << 10, min(BUFFER, MEMORY // jobs))
        try:
            for thread in threads:
                thread.start()
            for thread in threads[:jobs]:       # not Event.wait: Ctrl-C in the midst of it may leave its lock taken
                while thread.is_alive() and not self.error:
                    self.reporter.tick(self.written())
                    thread.join(0.1)
            self.reporter.tick(self.written())
        except BaseException as error:          # Ctrl-C
            self.fail(error)
        finally:
            self.over.set()
            deadline = time.monotonic() + 0.5
            for thread in threads:              # one that waits for a name server may stay behind, and writes no more
                if thread.is_alive():           # Ctrl-C may have come before it started
                    thread.join(max(0, deadline - time.monotonic()))
        if self.error:
            raise self.error

    def flush(self):
        """Have the disk write all along, so that the end does not wait for it."""
        with contextlib.suppress(OSError, ValueError):          # the commit will say what it is
            while not self.over.wait(0.25):
                getattr(os, "fdatasync", os.fsync)(self.part.file.fileno())

    def work(self):
        """One worker: take spans until there are none. The first failure of any stops all."""
        try:
            writer = Writer(self.part)
            try:
                view = memoryview(bytearray(self.buffer))
                for span in iter(self.take, None):
                    self.complete(span, writer, view)
            finally:
                writer.close()
        except BaseException as error:
            self.fail(error)

    def fail(self, error):
        """Remember the first failure, and stop the others."""
        with self.lock:
            if not isinstance(error, Stopped):
                self.error = self.error or error
        self.transport.stop()

    def take(self):
        """The next Span to fetch: one that nobody has begun, else the later half of the largest; None at the end."""
        with self.lock:
            if self.transport.stopping.is_set():
                return None
            if self.pending:
                span = self.pending.pop(0)
            else:
                running = [span for blob in self.blobs if blob.ranged and blob.front < blob.size
                           for span in blob.spans if span.active and span.end - span.position >= 2 * MIN_SPLIT
                           and not (blob.source and span.position < blob.source.size)]      # being copied
                if not running:
                    return None
                largest = max(running, key=lambda span: span.end - span.position)
                # Its worker may be writing up to BUFFER bytes behind its position: far from the middle.
                middle = largest.position + (largest.end - largest.position) // 2
                span = self.span(largest.blob, middle, largest.end)
                largest.end = middle
            span.active = True
            return span

    def complete(self, span, writer, view):
        """Fetch a span, hash as far as can be, and finish the blob where that was the last of it."""
        blob = span.blob
        self.follow(blob, writer, view)         # what an earlier run has left
        try:
            if blob.source and span.start == span.position == 0:
                self.copy(span, writer, view)
            if span.position < span.end:
                self.transport.persist(lambda: self.fetch(span, writer, view), lambda: span.position)
        finally:
            self.record(span, writer)
        with self.lock:
            span.active = False
        self.follow(blob, writer, view)

    def copy(self, span, writer, view):
        """Take what a local file has of a blob. Its bytes are checked like any others."""
        source = span.blob.source
        try:
            with open(source.path, "rb", buffering=0) as file:
                for piece in pieces(file, source.offset, min(source.size, span.end), view):
                    if self.transport.stopping.is_set():
                        break
                    self.put(span, writer, piece)
        except OSError as error:
            self.reporter.warn("%s cannot be read: %s" % (source.path, error.strerror))

    def fetch(self, span, writer, view):
        """One request for the rest of a span. Raises Temporary where it has to be repeated."""
        blob = span.blob
        start, end = (span.position, span.end if span.end < blob.size else None) if blob.ranged else (0, None)
        try:
            response = blob.registry.stream(blob.descriptor, start, end)
        except RangeRefused as error:
            if not start and end is None:
                raise
            blob.ranged = False
            self.reporter.debug("%s; going on without ranges" % error)
            if self.give_back(span):
                return
            self.fetch(span, writer, view)
            return
        with response:
            skip = span.position - response.position
            if skip:                            # the server does not do ranges
                blob.ranged = False
                if self.give_back(span):
                    return
            while self.unfinished(span):
                count = response.readinto(view[:min(len(view), skip or span.end - span.position)])
                if not count:
                    raise Temporary("%s: %s ended the body early" % (blob.descriptor.short, response.origin))
                blob.fetched += count
                if skip:
                    skip -= count
                else:
                    self.put(span, writer, view[:count])
            if span.position == blob.size and response.left is None and not response.ends(view):
                raise ImgpullError("%s: %s sends more than the %d bytes that it should have" % (
                    blob.descriptor.short, response.origin, blob.size))

    def unfinished(self, span):
        """Whether a span has more to fetch. Another worker may move its end, hence the lock."""
        if self.transport.stopping.is_set():
            raise Stopped("stopped")
        with self.lock:
            span.active = span.position < span.end
            return span.active

    def give_back(self, span):
        """Let the worker of the span before have this one too, where that one is still at it. Whether it is."""
        with self.lock:
            for other in span.blob.spans:
                if other.active and other.end == span.start == span.position and other is not span:
                    other.end = span.end
                    span.end = span.start
                    return True
        return False

    def put(self, span, writer, view):
        """Write what has arrived to its place, hash it where its turn has come, and note how far the span is."""
        blob = span.blob
        writer.write(blob.offset + span.position, view)
        with blob.lock:
            inline = blob.front == span.position and not blob.hashing
            blob.hashing = blob.hashing or inline
        if inline:
            blob.hasher.update(view)
            with blob.lock:
                blob.front += len(view)
                blob.hashing = False
        span.position += len(view)
        if time.monotonic() - span.recorded > RECORD_SECONDS:
            self.record(span, writer)

    def record(self, span, writer):
        """Note in the state file how far a span has come."""
        writer.record(span.slot, span.blob.number, span.start, span.position)
        span.recorded = time.monotonic()

    def follow(self, blob, writer, view):
        """Hash what lies contiguous behind the front, read back from the file, and judge the blob at its end."""
        while True:
            with blob.lock:
                limit = blob.contiguous()
                if blob.hashing or (limit <= blob.front and blob.front < blob.size):
                    return                      # whoever hashes goes on from here when it is done
                blob.hashing = True
            while blob.front < limit:
                if self.transport.stopping.is_set():
                    raise Stopped("stopped")
                count = writer.readinto(blob.offset + blob.front, view[:limit - blob.front])
                if not count:
                    raise ImgpullError("%s.part became shorter while it was written" % self.part.destination)
                blob.hasher.update(view[:count])
                blob.front += count
            if blob.front == blob.size:
                self.judge(blob, writer)        # hashing stays set: nobody judges twice
                return
            blob.hashing = False

    def judge(self, blob, writer):
        """A whole blob is hashed: it is right, or fetched once more, or an error."""
        if confirms(blob.hasher, blob.descriptor.digest):
            how = "" if blob.fetched or not blob.size else "from %s" % blob.source.path if blob.source else "kept"
            self.reporter.blob(blob.descriptor, how)
            return
        blob.failures += blob.source is None
        what = "%s: its bytes are not what its digest says" % blob.descriptor.digest
        if blob.failures > 1:
            raise ImgpullError("%s, twice: it is damaged in the registry, or something on the way changes it" % what)
        self.reporter.warn("%s%s; fetching it anew" % (what, " in %s" % blob.source.path if blob.source else ""))
        with self.lock:
            for span in blob.spans:
                writer.record(span.slot, blob.number, 0, 0)
            blob.source = None
            blob.reset()
            self.pending.append(self.span(blob, 0, blob.size))


def stream_archive(plan, out, transport, reporter, sources, wanted):
    """Write a plan's archive to a binary file, in order, nothing on disk: ({digest: bytes} of wanted, bytes fetched).

    The last bytes of each blob are held back until its digest is right, so that what breaks off never loads.
    """
    kept, fetched, view = {digest: bytearray() for digest in wanted}, 0, memoryview(bytearray(BUFFER))
    for (_, literal), planned in zip(plan.literals, plan.blobs):
        descriptor = planned.descriptor
        write_all(out, literal)
        fetched += stream_blob(planned, out, transport, sources.get(descriptor.digest), view,
                               kept.get(descriptor.digest))
        reporter.blob(descriptor, "")
        reporter.tick(planned.offset + descriptor.size)
    write_all(out, plan.literals[-1][1])
    out.flush()
    return kept, fetched


def stream_blob(planned, out, transport, source, view, kept):
    """Write one blob to a binary file, through retries, and to kept (a bytearray, or None). The bytes fetched."""
    descriptor, hasher = planned.descriptor, new_hash(planned.descriptor.digest)
    done, fetched, ranged = 0, 0, True

    def put(piece):
        nonlocal done
        hasher.update(piece)
        done += len(piece)
        if done == descriptor.size and not confirms(hasher, descriptor.digest):
            raise ImgpullError("%s: its bytes are not what its digest says" % descriptor.digest)
        if kept is not None:
            kept.extend(piece)
        write_all(out, piece)

    def attempt():
        nonlocal fetched, ranged
        try:
            response = planned.registry.stream(descriptor, done if ranged else 0)
        except RangeRefused:
            if not ranged:
                raise
            ranged = False
            attempt()
            return
        with response:
            skip = done - response.position
            while done < descriptor.size:
                count = response.readinto(view[:min(len(view), skip or descriptor.size - done)])
                if not count:
                    raise Temporary("%s: %s ended the body early" % (descriptor.short, response.origin))
                fetched += count
                if skip:
                    skip -= count
                else:
                    put(view[:count])

    if source and source.size == descriptor.size and is_intact(source, descriptor, view):
        with open(source.path, "rb") as file:
            for piece in pieces(file, source.offset, source.size, view):
                put(piece)
    if not descriptor.size:
        put(b"")
    elif done < descriptor.size:
        transport.persist(attempt, lambda: done)
    return fetched


def is_intact(source, descriptor, view):
    """Whether a local file has a whole blob: what has been written to a pipe cannot be taken back."""
    hasher = new_hash(descriptor.digest)
    with contextlib.suppress(OSError), open(source.path, "rb") as file:
        for piece in pieces(file, source.offset, source.size, view):
            hasher.update(piece)
    return confirms(hasher, descriptor.digest)


# ---- Pull: from references to an archive ---------------------------------------------------------------------------

PulledImage = collections.namedtuple("PulledImage", "name digest platform")
PulledImage.__doc__ = """An image that was pulled: name (str, in the archive), digest (of what the reference named),
platform (Platform; None for all of them, and for what is no image)."""

PullResult = collections.namedtuple("PullResult", "images destination size fetched omitted seconds")
PullResult.__doc__ = """What a pull gave: images ([PulledImage, ...]), destination (str), size (bytes of the archive),
fetched (bytes of blobs that came over the network), omitted ({digest: bytes} of the layers that base left out),
seconds (float)."""


def resolve(registry, manifest, wanted, reporter):
    """The image Manifest for a platform, through indexes. wanted: Platform, or None for this host's."""
    host = host_platform()
    tries = [wanted] if wanted else [host] if host.os == "linux" else [host, host._replace(os="linux")]
    children = []
    for number, platform in enumerate(tries):
        found = manifest
        for _ in range(INDEX_DEPTH):
            if not found.is_index:
                if number:
                    reporter.note("%s is not there for %s: taking %s" % (registry.named, host, platform))
                return found
            children = with_platforms(registry, found)
            descriptor = choose(children, platform)
            if descriptor is None:
                break
            found = registry.get(descriptor)
        else:
            raise ImgpullError("%s has indexes within indexes within indexes" % str(registry.named))
    offered = collections.OrderedDict.fromkeys(
        str(child.platform) for child in children if child.platform and child.platform.os != "unknown")
    raise ImgpullError("%s is not there for %s; it is for %s: choose with --platform" % (
        registry.named, tries[0], printable(", ".join(offered)) or "no platform at all"))


def with_platforms(registry, index):
    """The children of an index, each with its platform. Where the index does not say it, its child has to be asked."""
    children = []
    for number, child in enumerate(index.children):
        if child.platform is None and not is_attestation(child) and number < 50:
            manifest = registry.get(child)
            if manifest.is_index:               # its children stand in for it
                children += [grandchild for grandchild in manifest.children if grandchild.platform]
                continue
            if manifest.is_image:
                child = child._replace(platform=parse_config(registry.blob(manifest.config), child.digest)[0])
        children.append(child)
    return children


def descend(registry, manifest, found, depth=0):
    """Gather a Manifest and all those below it in found ({digest: Manifest}), each once."""
    found[manifest.descriptor.digest] = manifest
    if depth > INDEX_DEPTH:
        raise ImgpullError("%s has indexes within indexes within indexes" % str(registry.named))
    if len(found) > CHILDREN_LIMIT:
        raise ImgpullError("%s has more than %d manifests" % (registry.named, CHILDREN_LIMIT))
    for child in manifest.children:
        if child.digest not in found:
            descend(registry, registry.get(child), found, depth + 1)
    return list(found.values())


def find_image(registry, platform, name, reporter):
    """The Image for a reference. platform: Platform, None for this host's, or "all"."""
    top = registry.get()
    named = parse_reference(name) if name else registry.named
    full = named.name + (":" + named.tag if named.tag else "@" + top.descriptor.digest)
    if platform == "all":
        manifests = descend(registry, top, collections.OrderedDict())
        images = [manifest for manifest in manifests if manifest.is_image]
        offered = None
        if images:
            try:
                offered = resolve(registry, top, None, Reporter())
            except ImgpullError:
                offered = images[0]
    else:
        top = offered = resolve(registry, top, platform, reporter)
        manifests = [top]
    if offered is None or not offered.is_image:
        offered = None
        reporter.note("%s is no container image but an artifact (%s): archived as an OCI layout, without docker's "
                      "manifest.json" % (full, printable(top.config.media_type if top.config else "an index", 90)))
    return Image(registry, full, named.tag, top.descriptor, manifests, offered)


def find_omitted(images, base, reporter):
    """The digests of the layers that base archives hold, for --base. The archives are checked first."""
    for path in base:
        faults = check_archive(path, unpack=False).faults
        if faults:
            raise ImgpullError("%s cannot be built upon: %s" % (path, faults[0]))
    chains, held = holdings(base)
    found = omissible([(manifest, parse_config(image.registry.blob(manifest.config), manifest.config.digest)[1]
                        if manifest.is_image else [])
                       for image in images for manifest in image.manifests if not manifest.is_index], chains, held)
    if not found:
        reporter.note("no layer of %s is in %s: nothing is left out" % (
            ", ".join(image.name for image in images), " or ".join(base)))
    return found


def pull(references, destination, platform=None, namespace=None, name=None, scheme="https", insecure=False,
         cacert=None, cert=None, key=None, user=None, password=None, token=None, jobs=6, timeout=30, retries=5,
         base=(), reuse=(), reporter=None):
    """Pull one or several images into one archive, and return a PullResult.

    references: str or list of str, as docker writes them; destination: path of the tar, or "-" for standard output;
    platform: "os/arch[/variant]", Platform, "all", or None for this host's; namespace: the registry that the one in
    the references is a mirror of; name: the image's name in the archive; scheme, insecure, cacert, cert, key, user,
    password, token, timeout, retries: see Settings; jobs: connections at most; base: paths of archives whose layers
    are left out; reuse: paths of archives whose blobs are copied instead of fetched; reporter: a Reporter.

    Every byte is checked before the destination appears; a failed pull leaves it as it was. Raises ImgpullError.
    """
    begun = time.monotonic()
    references = [references] if isinstance(references, str) else list(references)
    destination = os.fspath(destination)
    reporter = reporter or Reporter()
    if not references:
        raise ImgpullError("there is no image to pull")
    if name and len(references) != 1:
        raise ImgpullError("one name in the archive is for one image")
    if scheme not in PORTS or jobs < 1:
        raise ImgpullError("scheme must be http or https, and jobs above 0, not %r and %r" % (scheme, jobs))
    if isinstance(platform, str) and platform != "all":
        platform = parse_platform(platform)
    check_destination(destination)
    settings = Settings(scheme, insecure, cacert, cert, key, user, password, token, timeout, retries, namespace)
    transport = Transport(settings, reporter)
    try:
        images, names = [], {}
        for reference in collections.OrderedDict.fromkeys(map(parse_reference, references)):
            image = find_image(Registry(reference, settings, transport=transport), platform, name, reporter)
            if names.setdefault(image.name, image.descriptor.digest) != image.descriptor.digest:
                raise ImgpullError("%s is in the list twice, as two images" % image.name)
            images.append(image)
        omit = find_omitted(images, base, reporter) if base else frozenset()
        plan = plan_archive(images, omit)
        sources = reusable(reuse)
        reporter.start([planned.descriptor for planned in plan.blobs],
                       sum(planned.descriptor.size for planned in plan.blobs))
        wanted = {manifest.config.digest for image in images for manifest in image.manifests if manifest.is_image}

        def look(configs):
            return [PulledImage(image.name, image.descriptor.digest, platform_of(image, platform, configs, reporter))
                    for image in images]
        if destination == "-":
            with FileErrors("standard output"):
                configs, fetched = stream_archive(plan, sys.stdout.buffer, transport, reporter, sources, wanted)
            pulled = look(configs)
        else:
            pulled, fetched = to_file(plan, os.path.realpath(destination), jobs, transport, reporter, sources, wanted,
                                      look)
    finally:
        reporter.finish()
        transport.close()
    return PullResult(pulled, destination, plan.size, fetched, plan.omitted, time.monotonic() - begun)


def check_destination(destination):
    """Say what is wrong with a destination before anything is fetched."""
    parent = os.path.dirname(destination) or "."
    if destination == "-":
        return
    if os.path.isdir(destination) or not os.path.basename(destination):
        raise ImgpullError("%s is a directory: give a file's name, such as %s" % (
            destination, os.path.join(destination, "image.tar")))
    if not os.path.isdir(parent):
        raise ImgpullError("%s cannot be written: there is no directory %s%s" % (
            destination, parent, " (the shell did not expand it: $HOME)" if parent[0] == "~" else ""))
    try:
        os.path.abspath(destination)
    except OSError:
        raise ImgpullError("%s cannot be written: the working directory is gone" % destination) from None
    if os.path.exists(destination) and not os.path.isfile(destination):
        raise ImgpullError("%s is not a regular file; for a pipe write - and redirect it" % destination)


def platform_of(image, wanted, configs, reporter):
    """The Platform of a pulled image by its config; a warning where it is another one than was wanted.

    Raises ImgpullError where a config does not go with its manifest.
    """
    platforms = {}
    for manifest in image.manifests:
        if manifest.is_image:
            what = "the config of %s" % image.name
            platforms[manifest.descriptor.digest], diff_ids = parse_config(configs[manifest.config.digest], what)
            if len(diff_ids) != len(manifest.layers):
                raise ImgpullError("%s knows %s, and its manifest has %d" % (
                    what, plural(len(diff_ids), "layer"), len(manifest.layers)))
    if wanted == "all" or not image.offered:
        return None
    platform = platforms[image.offered.descriptor.digest]
    fits = [wanted] if wanted else [host_platform(), host_platform()._replace(os="linux")]
    if (platform.os or platform.architecture) and not any(platform in acceptable(each) for each in fits):
        reporter.warn("%s is there for %s only, which is not %s" % (image.name, platform, fits[0]))
    return platform


def to_file(plan, destination, jobs, transport, reporter, sources, wanted, look):
    """Write the archive of a plan to its destination, once look({digest: bytes} of the wanted configs) finds it good.

    What look returned, and the bytes fetched.
    """
    part = PartFile(destination, plan)
    try:
        download = Download(plan, part, transport, reporter, dict(part.sources, **sources))
        download.run(jobs)
        seen = look({planned.descriptor.digest: part.read(planned) for planned in plan.blobs
                     if planned.descriptor.digest in wanted})
        part.commit()
    except BaseException as error:
        if isinstance(error, Resumable) or interrupted(error):
            part.close()
        else:
            part.discard()
        raise
    return seen, sum(blob.fetched for blob in download.blobs)


# ---- Progress: what a person at the terminal sees ------------------------------------------------------------------

class Terminal(Reporter):
    """Tells how a pull goes on standard error: on a terminal with a live line below, elsewhere in plain lines."""

    def __init__(self, quiet, debugging):
        self.stream, self.quiet, self.debugging = sys.stderr, quiet, debugging
        self.live = not quiet and self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.bold, self.plain = ("\033[1m", "\033[0m") if self.live and not os.environ.get("NO_COLOR") else ("", "")
        encoding = (getattr(self.stream, "encoding", None) or "ascii").lower().replace("-", "")
        self.bar = "█░" if encoding == "utf8" else "#."
        self.lock = threading.RLock()
        self.shown, self.running, self.last = "", False, 0.0

    def write(self, text):
        """Write to the stream, whatever has become of it."""
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(text if self.bar[0] != "#" else text.replace("…", "..."))
            self.stream.flush()

    def line(self, text):
        """A line that stays, above the live one."""
        with self.lock:
            live = self.shown
            self.erase()
            self.write(text + "\n")
            if live:
                self.show(live)

    def erase(self):
        """Take the live line away."""
        if self.shown:
            self.write("\r\033[K")
            self.shown = ""

    def show(self, text):
        """Draw the live line."""
        self.shown = text                       # first, so that Ctrl-C in between finds it
        self.write("\r" + text + "\033[K")

    def note(self, text):
        if not self.quiet:
            self.line("imgpull: " + printable(text, 1000))

    def warn(self, text):
        if not self.quiet:
            self.line("imgpull: warning: " + printable(text, 1000))

    def debug(self, text):
        if self.debugging:
            self.line("imgpull: debug: " + printable(text, 1000))

    def start(self, blobs, total):
        self.total, self.layers, self.done = total, sum(map(is_layer, blobs)), 0
        self.begun = self.last = time.monotonic()
        self.first, self.running = None, True

    def blob(self, descriptor, how):
        with self.lock:
            self.done += is_layer(descriptor)
            if is_layer(descriptor) and not self.quiet:
                self.line("%s  %9s%s" % (descriptor.short, human(descriptor.size), "  " + how if how else ""))

    def tick(self, done):
        now = time.monotonic()
        if self.first is None:
            self.first = (now, done)            # what was there before does not count as speed
        if self.quiet or not self.running or now - self.last < (0.1 if self.live else 10):
            return
        self.last = now
        seconds = now - self.begun
        rate = (done - self.first[1]) / seconds if seconds > 0 else 0
        with self.lock:
            if self.live:
                self.show(self.progress(done, rate, self.width()))
            else:
                self.line("imgpull: " + self.progress(done, rate, 0))

    def width(self):
        """Columns of the terminal, as it is now."""
        with contextlib.suppress(OSError, ValueError):
            return os.get_terminal_size(self.stream.fileno()).columns or 80
        return 80

    def progress(self, done, rate, width):
        """The progress in a line of less than width columns (0: as long as it takes, and without a bar)."""
        share = done / self.total if self.total else 1
        parts = ["%3d%%" % (share * 100), "%s of %s" % (human(done), human(self.total)), "%s/s" % human(rate),
                 "%s left" % clock((self.total - done) / rate) if rate > 0 else "",
                 "%d of %s" % (self.done, plural(self.layers, "layer"))]
        parts = list(filter(None, parts))
        if not width:
            return ", ".join(parts).strip()
        while len(parts) > 1 and len("  ".join(parts)) > width - 1:
            parts.pop()
        text = "  ".join(parts)[:width - 1]
        room = min(width - len(text) - 2, 40)
        if room < 8:
            return text
        full = int(room * share)
        return self.bold + self.bar[0] * full + self.bar[1] * (room - full) + self.plain + " " + text

    def finish(self):
        with self.lock:
            self.running = False
            self.erase()


def clock(seconds):
    """Seconds in words: 42s, 3m05s, 2h07m."""
    minutes, seconds = divmod(int(min(seconds, 359999)), 60)
    if minutes < 60:
        return "%dm%02ds" % (minutes, seconds) if minutes else "%ds" % seconds
    return "%dh%02dm" % divmod(minutes, 60)


# ---- Command line --------------------------------------------------------------------------------------------------

USAGE = "imgpull [OPTION ...] REF [REF ...] TAR"
EPILOG = """examples:
  imgpull alpine alpine.tar                                pull, for this host's platform
  imgpull --platform linux/arm64 quay.io/curl/curl:8.10.1 - | ssh host docker load
  imgpull --verify alpine.tar                              on the far side: is every byte right?"""


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line."""

    def error(self, message):
        self.exit(2, "imgpull: error: %s (imgpull --help shows the options)\n" % printable(message))


class Help(argparse.HelpFormatter):
    """Help that fits a screen."""

    def __init__(self, prog):
        import shutil
        columns = shutil.get_terminal_size().columns - 2
        super().__init__(prog, max_help_position=28, width=min(max(columns, 60), 100))

    def _fill_text(self, text, width, indent):
        return text

    def _format_action_invocation(self, action):
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        return "%s %s" % (", ".join(action.option_strings), action.metavar or action.dest.upper())


def number(kind, least):
    """An argparse type: a number of a kind (int, float) above least."""
    def parse(text):
        with contextlib.suppress(ValueError):
            if least < kind(text) < 1e6:
                return kind(text)
        raise argparse.ArgumentTypeError("a number above %d is wanted, not %s" % (least, printable(repr(text))))
    return parse


def make_parser():
    """The command line, in groups."""
    parser = Parser("imgpull", usage=USAGE, formatter_class=Help, add_help=False, epilog=EPILOG,
                    description="Pull the images REF into one TAR that every runtime loads. TAR may be - for stdout.")
    parser.add_argument("args", nargs="*", help=argparse.SUPPRESS)
    group = parser.add_argument_group("what")
    group.add_argument("--platform", metavar="P", help="os/arch[/variant], or all; default: this host's")
    group.add_argument("-o", "--os", help="operating system, such as linux")
    group.add_argument("-a", "--arch", help="architecture, such as amd64 or arm64")
    group.add_argument("-n", "--ns", metavar="HOST", help="REF's registry is a mirror of this one")
    group.add_argument("--name", metavar="REF", help="the image's name in the tar")
    group.add_argument("--base", action="append", default=[], metavar="TAR",
                       help="leave out the layers that TAR holds (repeatable)")
    group.add_argument("--reuse", action="append", default=[], metavar="TAR",
                       help="copy from TAR instead of fetching (repeatable)")
    group.add_argument("-m", "--manifest", choices=("list", "image"), metavar="list|image",
                       help="print a manifest of REF instead (no TAR)")
    group.add_argument("-l", "--list-tar", metavar="TAR", help="show what an archive holds")
    group.add_argument("--verify", metavar="TAR", help="check every byte of an archive")
    group = parser.add_argument_group("registry")
    group.add_argument("-u", "--user", metavar="NAME", help="default: what docker login, podman login stored")
    group.add_argument("-p", "--password", metavar="PW", help="its password (seen by others: rather the next)")
    group.add_argument("--password-stdin", action="store_true", help="read the password from stdin")
    group.add_argument("-t", "--token", help="a registry token, Bearer or (ECR) Basic")
    group.add_argument("-s", "--scheme", choices=("http", "https"), default="https", metavar="http|https",
                       help="http for a registry without TLS")
    group.add_argument("-x", "--cacert", "--ca", metavar="PEM", help="trust this CA too")
    group.add_argument("-c", "--cert", metavar="PEM", help="client certificate (mTLS)")
    group.add_argument("-k", "--key", metavar="PEM", help="its key")
    group.add_argument("-i", "--insecure", action="store_true", help="do not verify certificates")
    group.add_argument("-j", "--jobs", type=number(int, 0), default=6, metavar="N", help="connections (default 6)")
    group.add_argument("--timeout", type=number(float, 0), default=30, metavar="S",
                       help="give up on a silent peer (default 30)")
    group.add_argument("--retries", type=number(int, -1), default=5, metavar="N", help="of what may pass (default 5)")
    group = parser.add_argument_group("other")
    group.add_argument("-q", "--quiet", action="store_true", help="errors only, and NAME@DIGEST on stdout")
    group.add_argument("--debug", action="store_true", help="show every request, without secrets")
    group.add_argument("--parsed", action="store_true", help="show the options as understood, and exit")
    group.add_argument("-v", "--version", action="version", help="show the version, and exit",
                       version="imgpull version: %s build date: %s" % (__version__, __build_date__))
    group.add_argument("-h", "--help", action="help", help="show this, and exit")
    return parser


def parse_options(parser, argv):
    """The options, checked against each other: refs and tar are added to them. Usage errors leave with status 2."""
    options, more = parser.parse_known_args(argv)       # argparse takes no option between REF and TAR
    odd = [word for word in more if word.startswith("-") and word != "-"]
    if odd:
        import difflib
        near = difflib.get_close_matches(odd[0].partition("=")[0], parser._option_string_actions, 1)
        parser.error("unknown option %s%s" % (" ".join(odd), "; did you mean %s?" % near[0] if near else ""))
    words = options.args = options.args + more
    pasted = re.match("(sudo )?((docker|podman|crane) (image )?)?(pull|run|save|imgpull) ", " ".join(words) + " ")
    if pasted:
        image = " ".join(words)[pasted.end():].split(" ")[0] or "IMAGE"
        parser.error("leave out %r: imgpull %s %s" % (pasted.group().strip(), image, suggested_name(image)))
    password = options.password is not None
    for wrong, why in ((bool(options.cert) != bool(options.key), "--cert and --key go together"),
                       (options.platform and (options.os or options.arch), "either --platform, or --os and --arch"),
                       (options.token and options.user, "either --token, or --user"),
                       (password and options.password_stdin, "either --password, or --password-stdin"),
                       ((password or options.password_stdin) and not options.user, "a password needs its --user"),
                       (options.name and len(words) > 2, "--name is for one image"),
                       ("" in (options.token, options.user), "--token or --user is empty: is the variable set?"),
                       ("" in words, "the name of an image or TAR is empty: is the variable set?"),
                       (options.list_tar and options.verify, "either --list-tar, or --verify"),
                       (options.manifest == "image" and options.platform == "all",
                        "--manifest image shows one platform's: give that one")):
        if wrong:
            parser.error(why)
    if options.list_tar or options.verify:
        if words:
            parser.error("%s takes one archive and nothing else" % ("--list-tar" if options.list_tar else "--verify"))
        options.refs, options.tar = [], None
    elif options.manifest:
        if len(words) != 1:
            parser.error("--manifest takes one REF")
        options.refs, options.tar = words, None
    elif len(words) == 1 and words[0].endswith(".tar"):
        parser.error("which image goes into %s? (to look into it: --list-tar)" % words[0])
    elif len(words) < 2:
        parser.error("where to? imgpull %s %s" % (words[0], suggested_name(words[0])) if words
                     else "which image, and where to? imgpull alpine alpine.tar")
    else:
        options.refs, options.tar = words[:-1], words[-1]
        transport = re.match("(docker-archive|oci-archive|oci|docker|dir):", options.tar)
        if transport:
            parser.error("leave out %r: imgpull %s %s" % (
                transport.group(), " ".join(options.refs), options.tar[transport.end():].strip("/") or "image.tar"))
        if (":" in options.tar[2:] and re.fullmatch(r"[\w.-]+(:\d+)?(/[\w./-]+)*(:[\w.-]+)?", options.tar)
                and not options.tar.endswith(".tar") and not os.path.isdir(os.path.dirname(options.tar) or "none")):
            parser.error("%r looks like an image: the TAR to write comes last" % options.tar)
        for ref in options.refs:
            if re.search(r"\.tar(\.\w+)?$", ref):
                parser.error("%r looks like an archive: the images come first, and one TAR last" % ref)
    if options.platform is None and (options.os or options.arch):
        options.platform = "%s/%s" % (options.os or "linux", options.arch or str(host_platform()).partition("/")[2])
    return options


def suggested_name(reference):
    """A file's name for a reference: quay.io/curl/curl:8.10.1 goes to curl.tar."""
    return (re.sub(r"[:@].*", "", reference.rpartition("/")[2]) or "image") + ".tar"


def show_parsed(options):
    """Print the options as JSON, with secrets masked."""
    shown = {key: value for key, value in vars(options).items() if key != "args"}
    for key in ("password", "token"):
        shown[key] = shown[key] and "***"
    shown["user"] = shown["user"] and shown["user"].partition(":")[0] + (":***" if ":" in shown["user"] else "")
    print(json.dumps(shown, indent=2, sort_keys=True))


def read_password(options):
    """(user, password) of the options, asked for where it is missing. Raises ImgpullError."""
    user, colon, password = (options.user or "").partition(":")
    if options.password_stdin:
        password = sys.stdin.readline().rstrip("\r\n") if sys.stdin else ""
        if not password:
            raise ImgpullError("--password-stdin: there is no password on standard input")
        return options.user, password
    if options.password is not None:
        return options.user, options.password
    if colon or not options.user:
        return user or None, password
    if not sys.stdin or not sys.stdin.isatty():
        raise ImgpullError("--user without a password: give --password-stdin, since there is no terminal to ask at")
    import getpass
    return user, getpass.getpass("Password for %s: " % printable(user))


def show_archive(path):
    """Print what an archive holds."""
    for number, image in enumerate(list_archive(path)):
        print("%s%s" % ("\n" if number else "", printable(image.name) or "(no name)"))
        print("  digest    %s" % image.digest)
        print("  platform  %s" % (printable(image.platform) if image.platform else "none"))
        print("  layers    %d, %s%s" % (len(image.layers), human(image.size), " (%d left out, %s saved)" % (
            len(image.omitted), human(image.saved)) if image.omitted else ""))
        for layer in image.layers:
            print("    %s%s" % (printable(layer, 140) or "(unnamed)", "  left out" if layer in image.omitted else ""))


def show_check(path, base):
    """Print what verifying an archive found; the exit status."""
    check = check_archive(path, base)
    for fault in check.faults + check.absent:
        print("%s: bad: %s" % (path, printable(fault, 400)))
    if check.faults or check.absent:
        return 1
    more = [" (it counts on %s that %s to be on the other side: check it with --base)" % (
        plural(check.counts_on, "layer"), "has" if check.counts_on == 1 else "have")] if check.counts_on else []
    if check.unchecked:
        more.append(" (%s compressed in a way that cannot be unpacked here: digests checked)" % (
            plural(check.unchecked, "layer")))
    print("%s: good: %s, %s checked%s" % (path, plural(check.images, "image"), human(check.size), "".join(more)))
    return 0


def show_manifest(options, settings, reporter):
    """Print the manifest of a reference as JSON on stdout; its digest and media type on stderr."""
    registry = Registry(parse_reference(options.refs[0]), settings, reporter)
    try:
        manifest = registry.get()
        if options.manifest == "image":
            wanted = parse_platform(options.platform) if options.platform else None
            manifest = resolve(registry, manifest, wanted, reporter)
    finally:
        registry.transport.close()
    if not options.quiet:
        print("%s %s" % (manifest.descriptor.digest, manifest.descriptor.media_type), file=sys.stderr)
    print(json.dumps(parse_json(manifest.body, "the manifest"), indent=2))


def show_result(result, options):
    """Print a line for each image that was pulled: on stdout, but where that is the archive."""
    out = sys.stderr if result.destination == "-" else sys.stdout
    for image in result.images:
        if options.quiet:
            if out is sys.stdout:
                print("%s@%s" % (image.name.partition("@")[0], image.digest))
            continue
        print("%s %s %s %s -> %s in %.1f s%s" % (
            image.name.partition("@")[0], image.digest,
            printable(image.platform or ("all platforms" if options.platform == "all" else "artifact")),
            human(result.size), "stdout" if out is sys.stderr else printable(result.destination), result.seconds,
            ", %s (%s) left out" % (plural(len(result.omitted), "layer"), human(sum(result.omitted.values())))
            if result.omitted else ""), file=out)


def run(options, reporter):
    """Do what the options say; the exit status. Raises ImgpullError."""
    if sys.stdout is None:
        if options.tar == "-":
            raise ImgpullError("standard output is closed: there is nowhere to write the archive to")
        sys.stdout = open(os.devnull, "w")
    if options.parsed:
        show_parsed(options)
        return 0
    if options.list_tar:
        show_archive(options.list_tar)
        return 0
    if options.verify:
        return show_check(options.verify, options.base)
    user, password = read_password(options)
    for name in ("cacert", "cert", "key"):
        path = getattr(options, name)
        if path and not os.path.isfile(path):
            raise ImgpullError("--%s: no such file: %s" % (name, path))
    if options.insecure:
        reporter.warn("certificates are not verified: whoever is on the way can read and change what is sent")
    connect = dict(scheme=options.scheme, insecure=options.insecure, cacert=options.cacert, cert=options.cert,
                   key=options.key, user=user, password=password, token=options.token, timeout=options.timeout,
                   retries=options.retries, namespace=options.ns)
    if options.manifest:
        show_manifest(options, Settings(**connect), reporter)
        return 0
    if options.tar == "-" and sys.stdout.isatty():
        raise ImgpullError("an archive is not for a terminal: imgpull %s - | docker load, or give a file's name"
                           % options.refs[0])
    if re.search(r"\.(tgz|gz|zst|xz|bz2)$", options.tar):
        reporter.warn("%s will be a plain tar, whatever its name says" % options.tar)
    result = pull(options.refs, options.tar, platform=options.platform, name=options.name, jobs=options.jobs,
                  base=options.base, reuse=options.reuse, reporter=reporter, **connect)
    show_result(result, options)
    return 0


def how_to_go_on(options):
    """What to add to the words for a failure of a pull into a file: whether something is kept for the next run."""
    if options.tar in (None, "-"):
        return ""
    return "; the same command again %s" % (
        "goes on from here" if os.path.exists(os.path.realpath(options.tar) + ".part") else "starts anew")


def main(argv=None):
    """The command line; the exit status: 0 done, 1 failed, 2 wrong usage (argparse leaves with it), 130 interrupted."""
    sys.stderr = sys.stderr or open(os.devnull, "w")    # closed by a service manager, say
    options, reporter = argparse.Namespace(tar=None, debug=False), Terminal(False, False)
    handlers = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for each in (signal.SIGINT, signal.SIGTERM):
                handlers[each] = signal.signal(each, signal.default_int_handler)
        options = parse_options(make_parser(), argv)
        reporter = Terminal(options.quiet, options.debug)
        status = run(options, reporter)
        sys.stdout.flush()
        return status
    except ImgpullError as error:
        text = "%s%s" % (error, how_to_go_on(options) if isinstance(error, Resumable) else "")
        reporter.line("imgpull: error: " + printable(text, 1000))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())      # or Python says it again at exit
        if options.tar == "-":
            reporter.line("imgpull: error: whoever read the archive has stopped reading")
    except OSError as error:
        reporter.line("imgpull: error: the output cannot be written: %s" % printable(error.strerror or error))
    except (Exception, KeyboardInterrupt) as error:
        if interrupted(error):
            reporter.line("imgpull: interrupted" + how_to_go_on(options))
            return 130
        if options.debug:                       # a mistake of ours; but still one line
            raise
        reporter.line("imgpull: error: internal error, %s: %s (--debug shows where)" % (
            type(error).__name__, printable(error)))
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
    return 1


if __name__ == "__main__":
    sys.exit(main())
