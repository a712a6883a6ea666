#!/usr/bin/env python3
"""Pull a container image from any OCI registry into one tar that every runtime loads.

    python3 imgpull.py docker.io/hello-world:latest hello-world.tar

One file, the standard library only, Python 3.6 or newer. As a library:

    import imgpull
    imgpull.pull("docker.io/hello-world:latest", "hello-world.tar")

The file reads from top to bottom, and each section leans only on those above it: errors and
words, references, platforms, documents, settings and reporter, credentials, proxies, TLS,
connections, registry and login, referrers, archive plan, reading archives, deltas and reuse,
part file, blobs and download, pull, progress, command line (archives, then options).

Sources of the rules: the OCI distribution and image specifications ("distribution-spec",
"image-spec"), the grammar of github.com/distribution/reference, RFC 9110 (HTTP), RFC 6750
(Bearer), RFC 7617 (Basic).
"""

import signal

if __name__ == "__main__":
    # Ctrl-C while the rest is imported must not print a traceback. main() sets its own handlers.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import collections
import contextlib
import errno
import hashlib
import io
import json
import os
import posixpath
import re
import struct
import sys
import threading
import time

# Python 2 and Python 3.5 stop here: their SyntaxError shows this line.
assert sys.version_info >= (3, 6), f"imgpull needs Python 3.6 or newer, not {sys.version}"

# Heavier modules (ssl, http.client, tarfile, subprocess, ...) are imported where they are used:
# each start compiles this file and imports its modules anew, so start-up time counts.

# Private parts of the standard library that are used here, each with its reason at its use. They
# are the same in Python 3.6 to 3.14, and test_private_parts fails where a new one changes them.
#   http.client.HTTPConnection._create_connection   to pass over dead addresses
#   http.client.HTTPConnection._tunnel, _tunnel_host   to put IPv6 hosts in brackets
#   http.client.HTTPResponse.fp   to read through Incoming, and as much as has arrived
#   argparse.ArgumentParser._option_string_actions   to find the option that was meant
#   argparse.HelpFormatter._fill_text, _format_action_invocation   for help that fits a screen

__all__ = [
    "ArchiveImage",
    "Descriptor",
    "ImgpullError",
    "Manifest",
    "NotFound",
    "Platform",
    "PullResult",
    "PulledImage",
    "Reference",
    "Referrer",
    "Registry",
    "Reporter",
    "Resumable",
    "Settings",
    "Temporary",
    "__version__",
    "choose",
    "list_archive",
    "parse_challenges",
    "parse_platform",
    "parse_reference",
    "pull",
    "pull_blobs",
    "read_blob",
    "verify_archive",
]
__version__ = "1.0.0"
__build_date__ = "unreleased"


# ---- Errors and words: how things fail, and how text from outside becomes fit to print -----------


class ImgpullError(Exception):
    """A failure in words that a person can act on: every failure that a caller may want to catch.

    exit_code: int, the status that the command line exits with
    kept: bool, whether what was downloaded is kept, so that the same pull resumes
    layer: str, digest of the layer that could not be had, "" where it was something else
    """

    exit_code = 1
    kept = False
    layer = ""


class UsageError(ImgpullError):
    """What was asked for makes no sense: a malformed reference, an unknown platform, ...

    others: list of str, further mistakes of this kind, such as other lines of a list
    """

    exit_code = 2

    def __init__(self, text, others=()):
        super().__init__(text)
        self.others = list(others)


class NotFound(ImgpullError):
    """The registry does not have it (404), or not for this platform."""

    exit_code = 3


class Refused(ImgpullError):
    """The registry does not understand or does not support a request (400, 405, ...)."""


class NoAccess(ImgpullError):
    """Credentials are missing or not accepted by a registry or proxy (401, 403, 407)."""

    exit_code = 3


class Temporary(ImgpullError):
    """A failure that may pass.

    delay: float, the seconds that the server asked us to wait, or None
    """

    exit_code = 4

    def __init__(self, text, delay=None):
        super().__init__(text)
        self.delay = delay


class NobodyListens(Temporary):
    """A connection was refused: the server is not up yet, or the address is wrong."""


class Resumable(ImgpullError):
    """A failure of the network that outlasted its retries, but may pass later."""

    exit_code = 4


class NotTLS(ImgpullError):
    """The peer does not speak TLS on this port: to try again is of no use."""


class Damaged(ImgpullError):
    """Bytes that are not what their digest, size or descriptor says."""

    exit_code = 5


class Mismatch(Damaged):
    """Content with another digest or size: worth a second try, it may be garbled on the way."""


class DiskError(ImgpullError):
    """A file cannot be written or read: a full disk, missing permissions, a failing device."""

    exit_code = 6


class Busy(ImgpullError):
    """Another imgpull is writing the same destination."""

    exit_code = 7


class RangeRefused(ImgpullError):
    """The server does not send the range that was asked for."""


class Stopped(ImgpullError):
    """This thread was told to stop, because another one failed."""


def interrupted(error):
    """Whether an exception came of Ctrl-C.

    Where Ctrl-C strikes inside a lock of threading, the lock raises an exception of its own, and
    KeyboardInterrupt is only its context.
    """
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def printable(text, limit=300):
    """Text from outside, fit for a terminal: one line, no control characters."""
    kept = "".join(char if char.isprintable() else " " for char in str(text)[: limit * 4])
    words = " ".join(kept.split())
    return words if len(words) <= limit else words[: limit - 1] + "…"


def quoted(text, limit=160):
    """Text from outside in quotes, fit for a terminal."""
    return printable(repr(text), limit)


def human(size):
    """A number of bytes in words: 0 B, 1.5 kB, 381.2 MB (powers of 1000, as docker counts)."""
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def plural(count, word):
    """plural(2, "layer") is "2 layers"."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


# ---- References: what an image is called (github.com/distribution/reference) ---------------------


class Reference(collections.namedtuple("Reference", "registry repository tag digest")):
    """Where an image is. str() is its full name, as docker and containerd write it.

    registry: str, host[:port]
    repository: str, the path of the image in the registry
    tag: str, "" if none
    digest: str, "" if none
    """

    __slots__ = ()

    @property
    def name(self):
        """Registry and repository without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def target(self):
        """What to ask the registry for: the digest decides over the tag."""
        return self.digest or self.tag

    def __str__(self):
        tag = ":" + self.tag if self.tag else ""
        return self.name + tag + ("@" + self.digest if self.digest else "")


LABEL = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
REGISTRY = re.compile(rf"(?:{LABEL}(?:\.{LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")
NAME_LIMIT = 255  # characters of a repository, as in distribution/reference

PORTS = {"http": 80, "https": 443}

# Pages that people copy from a browser's address bar, and the names of the images they show.
WEB_PAGES = (
    (r"hub\.docker\.com/(?:_|r)/([\w./-]+)", ""),
    (r"quay\.io/repository/([\w./-]+)", "quay.io/"),
    (r"gallery\.ecr\.aws/([\w./-]+)", "public.ecr.aws/"),
    (r"github\.com/([\w./-]+)", None),
)


def bad_reference(text, why):
    """The UsageError for a text that is no reference. A password in it is not shown."""
    # NAME:TAG@sha256:... has the shape of USER:PASSWORD@..., and nothing to hide.
    shown = re.sub(r"^([a-z+-]+://)?[^/@]*:[^/@]*@(?!sha\d)", r"\1***@", text, flags=re.I)
    return UsageError(f"{quoted(shown)} is not an image reference: {why}")


def parse_reference(text):
    """The Reference that text names, normalized: "ubuntu" is docker.io/library/ubuntu:latest.

    text: str in the grammar of distribution/reference. Raises ImgpullError, which says what part
    is wrong.
    """
    if text != text.strip(" "):
        raise bad_reference(text, "there is a blank at its beginning or end")
    scheme = re.match(r"([a-z+-]+)://", text, re.I)
    if scheme:
        more = " (and use --scheme http)" if scheme.group(1).lower() == "http" else ""
        raise bad_reference(text, f"leave out the {scheme.group()!r}{more}")
    # distribution/reference refuses these as names, since docker takes them for image IDs.
    if re.fullmatch("[a-f0-9]{64}", text):
        why = "it is an image ID; registries know names and digests (NAME@sha256:…)"
        raise bad_reference(text, why)
    rest, at, digest = text.partition("@")
    if at and not DIGEST.fullmatch(digest):
        why = (
            "the digest after '@' must be sha256: and 64, or sha512: and 128 hexadecimal digits "
            "in lower case"
        )
        raise bad_reference(text, why)
    name, tag = split_tag(text, rest)
    registry, repository = split_registry(name)
    check_name(text, name, registry, repository)
    return Reference(registry, repository, tag or ("" if digest else "latest"), digest)


def split_tag(text, rest):
    """(name, tag) of a reference without its digest; the tag is "" where there is none."""
    # A colon before the last slash is that of a port: localhost:5000/app has no tag.
    colon = rest.rfind(":")
    if colon < rest.rfind("/") or colon < 0:
        return rest, ""
    name, tag = rest[:colon], rest[colon + 1 :]
    if re.fullmatch("sha(256|512)", name.rpartition(":")[2]) and ":" in name:
        raise bad_reference(text, f"a digest is written with '@': {rest.partition(':sha')[0]}@sha…")
    if not TAG.fullmatch(tag):
        why = (
            f"the tag {quoted(tag)} must be 1 to 128 letters, digits, '_', '.' and '-', and not "
            "begin with '.' or '-'"
        )
        raise bad_reference(text, why)
    return name, tag


def check_name(text, name, registry, repository):
    """Raise UsageError on a registry or repository that the grammar does not allow."""
    if not repository:
        raise bad_reference(text, "it has no name")
    if not REGISTRY.fullmatch(registry):
        ascii_only = all(ord(char) < 128 for char in registry)
        more = "" if ascii_only else "; write an international name in its xn-- form"
        raise bad_reference(text, f"the registry {quoted(registry)} is not host[:port]{more}")
    for component in repository.split("/"):
        if not COMPONENT.fullmatch(component):
            lowered = name != name.lower() and registry == "docker.io"
            hint = f"; did you mean {name.lower()!r}?" if lowered else ""
            why = (
                f"the name's part {quoted(component)} must be lower-case letters and digits, with "
                f"single '.', '_' (or '__') or '-' between{hint}"
            )
            raise bad_reference(text, why)
    if len(repository) > NAME_LIMIT:
        raise bad_reference(text, f"the name is longer than {NAME_LIMIT} characters")


def split_registry(name):
    """(registry, repository) of a name without tag.

    The first component is a registry if it looks like a host: it has a dot or a colon, is
    localhost, or has an upper-case letter, which no repository may have.
    """
    first, slash, rest = name.partition("/")
    is_host = re.search("[.:]", first) or first == "localhost" or first != first.lower()
    return normal_name(first, rest) if slash and is_host else normal_name("docker.io", name)


def normal_name(registry, repository):
    """The two in one spelling: Docker Hub is docker.io, and its own images are in library/."""
    if registry not in ("docker.io", "index.docker.io"):
        return registry, repository
    if repository and "/" not in repository:
        repository = "library/" + repository
    return "docker.io", repository


def parse_source(text):
    """(scheme, Reference) of a reference that may say how to speak to its registry.

    "http://HOST/NAME" gives "http", "https://HOST/NAME" gives "https", a plain reference None.
    Raises ImgpullError, also on the address of a web page.
    """
    url = re.match("(https?)://(.*)", text, re.I)
    if not url:
        return None, parse_reference(text)
    for pattern, prefix in WEB_PAGES:
        page = re.match(pattern, url.group(2), re.I)
        if page and prefix is None:
            raise bad_reference(text, "that is a web page, not an image in a registry")
        if page:
            image = prefix + page.group(1).strip("/")
            raise bad_reference(text, f"that is a web page; the image is {image!r}")
    host, slash, _ = url.group(2).partition("/")
    if not slash or not REGISTRY.fullmatch(host):
        raise bad_reference(text, f"after {url.group(1)}:// comes HOST[:PORT]/NAME")
    reference = parse_reference(url.group(2))
    if reference.registry.lower() != host.lower() and host != "index.docker.io":
        # "http://myhost/app": without a port, the name would mean Docker Hub's user "myhost".
        raise bad_reference(text, f"write the registry as {host}:{PORTS[url.group(1).lower()]}")
    return url.group(1).lower(), reference


class Mirrored(collections.namedtuple("Mirrored", "asked named namespace")):
    """How an image is requested and named where a registry may be a mirror of another one.

    asked: Reference, what the registry is asked for
    named: Reference, what the image is called
    namespace: str, the registry that ?ns= says, "" where the query is left out
    """

    __slots__ = ()


def mirrored(reference, namespace):
    """The Mirrored for a reference to a mirror of the registry called namespace, "" if it is none.

    As containerd does: the request goes to the mirror with ?ns=, and the image is named after the
    namespace. Where the namespace stands in the path already, it is requested as written and
    without ?ns=: ociregistry answers 400 to both at once. Raises ImgpullError.
    """
    if not namespace:
        return Mirrored(reference, reference, "")
    namespace = normal_name(namespace.lower().rstrip("/"), "")[0]
    if not REGISTRY.fullmatch(namespace) or not re.search("[.:]|^localhost$", namespace):
        raise UsageError(
            f"--ns takes the host of a registry, such as docker.io, not {quoted(namespace, 90)}"
        )
    first, slash, inside = reference.repository.partition("/")
    if slash and normal_name(first, "")[0] == namespace:
        registry, repository = normal_name(namespace, inside)
        named = reference._replace(registry=registry, repository=repository)
        return Mirrored(reference, named, "")
    registry, repository = normal_name(namespace, reference.repository)
    asked = reference._replace(repository=repository)
    return Mirrored(asked, asked._replace(registry=registry), namespace)


class ImageRequest(collections.namedtuple("ImageRequest", "scheme reference name place")):
    """An image that somebody wants.

    scheme: str, "http" or "https", None where nothing is said
    reference: Reference
    name: str, its full name in the archive, None for its own
    place: str, where this was said, for messages: "images.txt, line 3", "" for an argument
    """

    __slots__ = ()


LIST_LIMIT = 10000  # images in a list
LIST_BYTES = 4 << 20  # bytes of a list


def parse_request(text, name=None, place=""):
    """The ImageRequest for a reference. Raises UsageError, which says the place."""
    try:
        scheme, reference = parse_source(text)
        if name:
            renamed = parse_reference(name)
            name = f"{renamed.name}:{renamed.tag or 'latest'}"
    except UsageError as error:
        raise UsageError(f"{place}: {error}" if place else str(error)) from None
    return ImageRequest(scheme, reference, name, place)


def parse_list(body, what):
    """[ImageRequest, ...] in the text of a list: "REF [NAME]" a line, and # comments.

    body: bytes, UTF-8, with lines that end in LF or CRLF
    what: str, the name of the file, for messages

    A pure function. Raises UsageError, with all malformed lines at once.
    """
    try:
        lines = body.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UsageError(f"{what} is not a list of images: it is not text") from None
    requests, mistakes = [], []
    for number, line in enumerate(lines, 1):
        words = re.sub("(^|\\s)#.*", "", line).split()
        place = f"{what}, line {number}"
        if len(words) > 2:
            mistakes.append(f"{place}: more than REF and NAME: {quoted(line, 90)}")
        elif words:
            try:
                requests.append(parse_request(*words, **{"place": place}))
            except UsageError as error:
                mistakes.append(str(error))
    if len(requests) > LIST_LIMIT:
        raise UsageError(f"{what} has more than {LIST_LIMIT} images")
    if mistakes:
        raise UsageError(mistakes[0], mistakes[1:])
    if not requests:
        raise UsageError(f"{what} has no image in it")
    return requests


def read_list(path):
    """[ImageRequest, ...] in a file, or on standard input for "-". Raises UsageError."""
    what = "standard input" if path == "-" else printable(path)
    try:
        if path == "-":
            body = sys.stdin.buffer.read(LIST_BYTES + 1)
        else:
            with open(path, "rb") as file:
                body = file.read(LIST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{what} cannot be read: {error.strerror}") from None
    if len(body) > LIST_BYTES or b"\0" in body:
        raise UsageError(f"{what} is not a list of images: it is too large, or not text")
    return parse_list(body, what)


# ---- Platforms: which of an index's images to take (containerd's platforms package) --------------


class Platform(collections.namedtuple("Platform", "os architecture variant os_version features")):
    """What an image runs on, in Go's names. str() is os[(version)]/architecture[/variant].

    os: str, such as linux, "" where not known
    architecture: str, such as amd64, "" where not known
    variant: str, such as v7, "" where it is the usual one
    os_version: str, such as 10.0.17763.1 for Windows, mostly ""
    features: tuple of str, the os.features that the image needs, mostly ()
    """

    __slots__ = ()

    def __str__(self):
        version = f"({self.os_version})" if self.os_version else ""
        parts = [(self.os or "unknown") + version, self.architecture or "unknown", self.variant]
        return "/".join(filter(None, parts))


Platform.__new__.__defaults__ = ("", "", ())

SYSTEMS = {"macos": "darwin", "cygwin": "windows", "msys": "windows"}
SYSTEM_NAMES = re.compile(
    "aix|android|darwin|dragonfly|freebsd|hurd|illumos|ios|js|linux|nacl|netbsd|openbsd|plan9|"
    "solaris|wasip1|windows|zos"
)
MACHINES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "x86": "386",
    "aarch64": "arm64",
    "aarch64_be": "arm64be",
    "armhf": "arm/v7",
    "armel": "arm/v6",
    "armv5tel": "arm/v5",
    "armv5": "arm/v5",
    "armv6": "arm/v6",
    "armv6l": "arm/v6",
    "armv7": "arm/v7",
    "armv7l": "arm/v7",
    "armv7a": "arm/v7",
    "armv8": "arm64",
    "armv8l": "arm/v8",
    "powerpc64le": "ppc64le",
    "loongarch64": "loong64",
}
# A 64-bit machine may run the images of the other one, but nobody gets them without asking.
ALSO_RUNS = {"amd64": "386", "arm64": "arm"}


def normal_platform(system, architecture, variant="", os_version="", features=()):
    """The Platform in Go's names: x86_64 is amd64, armv7l is arm/v7, arm64/v8 is arm64."""
    system, architecture, variant = system.lower(), architecture.lower(), variant.lower()
    architecture, _, implied = MACHINES.get(architecture, architecture).partition("/")
    variant = variant or implied
    if variant.isdigit():
        variant = "v" + variant
    # containerd takes these for equal: arm and arm/v7, arm64 and arm64/v8, amd64 and amd64/v1.
    if architecture == "arm":
        variant = variant or "v7"
    elif (architecture, variant) in (("arm64", "v8"), ("arm64", "v8.0"), ("amd64", "v1")):
        variant = ""
    return Platform(SYSTEMS.get(system, system), architecture, variant, os_version, tuple(features))


def parse_platform(text):
    """The Platform of os/arch[/variant], of an architecture (for linux) or of an OS alone.

    As containerd reads it: "windows(10.0.17763)/amd64" has an OS version, and an operating system
    alone means this host's architecture. Raises ImgpullError.
    """
    head, *rest = text.split("/")
    match = re.fullmatch(r"([A-Za-z0-9_.-]+)(?:\(([\w.-]+)\))?", head)
    plain = all(re.fullmatch(r"[A-Za-z0-9_.-]+", part) for part in rest)
    if not match or not plain or len(rest) > 2 or text.lower() == "all":
        raise UsageError(
            f"{quoted(text)} is not a platform: write os/arch or os/arch/variant, such as "
            "linux/arm64 or linux/arm/v7"
        )
    name, os_version = match.group(1), match.group(2) or ""
    if rest:
        return normal_platform(name, *rest, **{"os_version": os_version})
    if SYSTEM_NAMES.fullmatch(SYSTEMS.get(name.lower(), name.lower())):
        host = host_platform()
        return normal_platform(name, host.architecture, host.variant, os_version)
    return normal_platform("linux", name)


def host_platform():
    """The Platform that this program runs on."""
    if hasattr(os, "uname"):
        return normal_platform(os.uname().sysname, os.uname().machine)
    # A 32-bit Python on 64-bit Windows sees the machine only in PROCESSOR_ARCHITEW6432.
    machine = os.environ.get("PROCESSOR_ARCHITEW6432")
    return normal_platform("windows", machine or os.environ.get("PROCESSOR_ARCHITECTURE", "amd64"))


def acceptable(wanted):
    """The Platforms that a machine of the wanted one runs, best first: variants step downwards.

    arm v7 runs v6 and v5; amd64 v3 runs v2 and the plain one. arm64 v9.2 runs v9.1 and v9; v9.0
    is v8.5 and more, so it runs v8.7 and below, too (containerd's platformVector).
    """
    match = re.fullmatch(r"v(\d+)(?:\.(\d+))?", wanted.variant)
    if not match:
        return [wanted]
    major, minor = int(match.group(1)), int(match.group(2) or 0)
    below = []
    if wanted.architecture == "arm" and major <= 8:
        below = [f"v{number}" for number in range(major - 1, 4, -1)]
    elif wanted.architecture == "amd64" and major <= 4:
        below = [f"v{number}" for number in range(major - 1, 1, -1)] + [""]
    elif wanted.architecture == "arm64" and major in (8, 9) and minor <= 9:
        if major == 9:
            below = [f"v9.{number}" for number in range(minor - 1, 0, -1)]
            below += ["v9"] * (minor > 0)
            minor = min(minor + 5, 9) + 1
        below += [f"v8.{number}" for number in range(minor - 1, 0, -1)] + [""]
    return [wanted] + [wanted._replace(variant=variant) for variant in below]


def fitness(offered, wanted):
    """How well an offered Platform suits one of acceptable(), smaller is better; None: not at all.

    Windows images run on the build that they were made for, the first three numbers of the
    version; of these the newest is the best. An entry that needs features which we do not know of
    comes after a plain one.
    """
    if offered[:3] != wanted[:3]:
        return None
    build = wanted.os_version.split(".")[:3]
    if wanted.os_version and offered.os_version.split(".")[:3] != build:
        return None
    numbers = [int(part) for part in re.findall(r"\d{1,9}", offered.os_version)]
    newest_first = [-number for number in numbers] if wanted.os_version else []
    return (not set(offered.features) <= set(wanted.features), newest_first)


# ---- Documents: all parsing of untrusted JSON (image-spec manifest.md, config.md, ...) -----------

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
# What old registries made of a Docker config's type, and docker still takes.
ODD_DOCKER_CONFIGS = ("application/octet-stream", "application/json", "text/html")
ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))

DOCUMENT_LIMIT = 4 << 20  # bytes of a manifest, index or config (distribution-spec, "Push")
CHILDREN_LIMIT = 1000  # manifests below one index
LAYERS_LIMIT = 10000  # layers in one manifest
INDEX_DEPTH = 4  # indexes within indexes
SIZE_LIMIT = 1 << 60  # bytes: no blob or archive is larger, and sums of sizes stay below 64 bits


class Descriptor(
    collections.namedtuple("Descriptor", "media_type digest size platform urls annotations")
):
    """A link to content (image-spec descriptor.md).

    media_type: str in lower case without parameters, "" if none
    digest: str, a sha256 or sha512 digest
    size: int, bytes
    platform: Platform or None
    urls: tuple of str, where a layer is that only its owner may distribute
    annotations: {str: str}
    """

    __slots__ = ()

    @property
    def path(self):
        """The name of the blob in an image layout."""
        return blob_path(self.digest)

    @property
    def short(self):
        """The digest as people know it: sha256: and 12 digits."""
        return self.digest[:19]


class Manifest(
    collections.namedtuple(
        "Manifest", "descriptor body children config layers subject artifact_type annotations"
    )
):
    """An index (children), or the manifest of an image or artifact (config and layers).

    descriptor: Descriptor of the manifest itself
    body: bytes, as the registry sent them
    children: list of Descriptor, the manifests of an index
    config: Descriptor, None for an index
    layers: list of Descriptor, bottom first
    subject: Descriptor of the manifest that this one refers to, or None
    artifact_type: str, "" if none
    annotations: {str: str}
    """

    __slots__ = ()

    @property
    def is_index(self):
        return self.config is None

    @property
    def is_image(self):
        """Whether runtimes can run it: charts, signatures, ... have configs of other types."""
        if self.is_index or any("in-toto" in layer.media_type for layer in self.layers):
            return False
        config_types = (OCI_CONFIG, DOCKER_CONFIG, "")
        if self.descriptor.media_type == DOCKER_MANIFEST:
            config_types += ODD_DOCKER_CONFIGS
        return self.config.media_type in config_types


class ImageConfig(collections.namedtuple("ImageConfig", "platform diff_ids")):
    """What a pull needs to know of an image's config (image-spec config.md).

    platform: Platform
    diff_ids: list of str, the digest of each layer's unpacked tar, bottom first
    """

    __slots__ = ()


def blob_path(digest):
    """The name of a blob in an image layout (image-spec image-layout.md)."""
    return "blobs/" + digest.replace(":", "/")


def is_attestation(descriptor):
    """Whether a descriptor is of BuildKit's attestation (provenance, SBOM) of another manifest."""
    return descriptor.annotations.get("vnd.docker.reference.type") == "attestation-manifest"


def runnable(descriptors):
    """Those descriptors that name a platform to run on: no attestations."""
    return [
        descriptor
        for descriptor in descriptors
        if descriptor.platform
        and descriptor.platform.os != "unknown"
        and not is_attestation(descriptor)
    ]


def choose(descriptors, wanted):
    """The Descriptor whose platform suits a wanted Platform best, or None.

    Attestations are never chosen; among equals, the first is.
    """
    offered = runnable(descriptors)
    for platform in acceptable(wanted):
        fits = [(fitness(descriptor.platform, platform), descriptor) for descriptor in offered]
        fits = [pair for pair in fits if pair[0] is not None]
        if fits:
            return min(fits, key=lambda pair: pair[0])[1]
    return None


def new_hash(digest):
    """An empty hash object of a validated digest's algorithm."""
    return hashlib.new(digest.partition(":")[0])


def digest_in(hasher):
    """The digest of what a hash object has seen."""
    return f"{hasher.name}:{hasher.hexdigest()}"


def digest_of(body, like="sha256:"):
    """The digest of bytes, by the algorithm of another digest."""
    hasher = new_hash(like)
    hasher.update(body)
    return digest_in(hasher)


def mismatch(got, expected):
    """The words for content that is not what its digest says."""
    return f"digest mismatch: got {got}, expected {expected}"


def load_json(text):
    """json.loads, but for what other readers understand differently. Raises ValueError.

    A number of a million digits keeps older Pythons busy for minutes. Of a key that occurs twice
    Go merges the two values, and Python takes the last. Python takes NaN, and nobody else does.
    """

    def constant(name):
        raise ValueError(f"{name} is no JSON")

    def bounded_int(digits):
        if len(digits) > 30:
            raise ValueError("a number without end")
        return int(digits)

    def unique(pairs):
        value = dict(pairs)
        if len(value) != len(pairs):
            raise ValueError("a key occurs twice")
        return value

    return json.loads(
        text, parse_int=bounded_int, parse_constant=constant, object_pairs_hook=unique
    )


def parse_json(body, what):
    """The JSON object (dict) in bytes. Raises ImgpullError, which does not quote the bytes."""
    try:
        value = load_json(body.decode("utf-8"))
    except (ValueError, RecursionError):
        # The bytes may be a file with passwords or hold a token, so they are not shown.
        if body.lstrip()[:1] == b"<":
            why = " but a web page: is there a proxy or a login page in between?"
        else:
            why = "" if body else ": it is empty"
        raise Damaged(f"{what} is not JSON{why}") from None
    if not isinstance(value, dict):
        raise Damaged(f"{what} is not a JSON object")
    return value


def field(value, key, kind, what, default=None):
    """value[key] of the given type, or default where it is missing or null.

    Go's JSON folds the case of keys, and the runtimes are written in Go: a key in any case counts,
    and an object that has it in two cases is refused, since Go takes the last one. Raises
    ImgpullError on another type.
    """
    spelled = [each for each in value if each == key or each.casefold() == key.casefold()]
    if len(spelled) > 1:
        raise Damaged(f"{what}: {key} occurs in several spellings: {quoted(spelled, 90)}")
    if not spelled or value[spelled[0]] is None:
        return default
    content = value[spelled[0]]
    # To Python, true and false are numbers as well.
    if not isinstance(content, kind) or isinstance(content, bool):
        raise Damaged(f"{what}: {key} is {type(content).__name__}, not {kind.__name__}")
    return content


def items(value, key, kind, what, limit):
    """value[key] as a list of things of one type, [] where it is missing. Raises ImgpullError."""
    entries = field(value, key, list, what, [])
    return checked_list(entries, key, kind, what, limit)


def checked_list(entries, key, kind, what, limit):
    """A list whose entries are all of one type, at most limit of them. Raises ImgpullError."""
    if len(entries) > limit:
        raise Damaged(f"{what}: {key} has more than {limit} entries")
    if not all(isinstance(entry, kind) for entry in entries):
        raise Damaged(f"{what}: not every entry of {key} is {kind.__name__}")
    return entries


def texts(value, key, what):
    """value[key] as {str: str}. Raises ImgpullError."""
    pairs = field(value, key, dict, what, {})
    if not all(isinstance(text, str) for text in pairs.values()):
        raise Damaged(f"{what}: not every value of {key} is str")
    return pairs


def parse_descriptor(value, what):
    """The Descriptor in a JSON object. Raises ImgpullError on a bad digest or size."""
    digest = field(value, "digest", str, what, "")
    if not DIGEST.fullmatch(digest):
        raise Damaged(f"{what} has the digest {quoted(digest, 90)}, not a sha256 or sha512 one")
    size = field(value, "size", int, what, -1)
    if not 0 <= size < SIZE_LIMIT:
        raise Damaged(f"{what} has an impossible size: {printable(size, 40)}")
    platform = field(value, "platform", dict, what)
    return Descriptor(
        media_type=media_type_of(value, what),
        digest=digest,
        size=size,
        platform=None if platform is None else platform_in(platform, what),
        urls=tuple(items(value, "urls", str, what, 100)),
        annotations=texts(value, "annotations", what),
    )


def optional_descriptor(value, key, what):
    """The Descriptor at a key of a JSON object, or None. Raises ImgpullError."""
    content = field(value, key, dict, what)
    return None if content is None else parse_descriptor(content, f"the {key} of {what}")


def platform_in(value, what):
    """The Platform that a JSON object's own fields say: a descriptor's platform, or a config."""
    return normal_platform(
        field(value, "os", str, what, ""),
        field(value, "architecture", str, what, ""),
        field(value, "variant", str, what, ""),
        field(value, "os.version", str, what, ""),
        items(value, "os.features", str, what, 100),
    )


def media_type_of(value, what):
    """The mediaType of a JSON object without its parameters, "" where it has none."""
    return field(value, "mediaType", str, what, "").partition(";")[0].strip().lower()


def parse_manifest(body, digest, what):
    """The Manifest in bytes that have been checked against digest.

    Its shape decides what it is, since registries send wrong media types. Raises ImgpullError on
    anything else than an index or a manifest, and on Docker's schema 1.
    """
    value = parse_json(body, what)
    names = {key.casefold() for key in value}
    if value.get("schemaVersion") == 1 or names & {"fslayers", "signatures"}:
        raise Damaged(
            f"{what} is in Docker's schema 1, which no current runtime loads: push it again with "
            "a current docker, or take another tag"
        )
    # Clients differed in which of the two they took such a document for (CVE-2021-41190).
    if "manifests" in names and names & {"config", "layers"}:
        raise Damaged(f"{what} claims to be an index and a manifest at once")
    media_type = media_type_of(value, what)
    children, config, layers = [], None, []
    if "manifests" in names:
        entries = items(value, "manifests", dict, what, CHILDREN_LIMIT)
        children = [parse_descriptor(entry, f"a manifest of {what}") for entry in entries]
        media_type = media_type if media_type in (OCI_INDEX, DOCKER_LIST) else OCI_INDEX
    elif "config" in names:
        config = optional_descriptor(value, "config", what)
        if config is None or field(value, "layers", list, what) is None:
            raise Damaged(f"{what} is not an image manifest: it lacks its config or its layers")
        entries = items(value, "layers", dict, what, LAYERS_LIMIT)
        layers = [parse_descriptor(entry, f"a layer of {what}") for entry in entries]
        if media_type not in (OCI_MANIFEST, DOCKER_MANIFEST):
            docker = config.media_type == DOCKER_CONFIG
            media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    else:
        said = f" (it says: {printable(media_type)})" if media_type else ""
        raise Damaged(f"{what} is neither an image manifest nor an index{said}")
    return Manifest(
        descriptor=Descriptor(media_type, digest, len(body), None, (), {}),
        body=body,
        children=children,
        config=config,
        layers=layers,
        subject=optional_descriptor(value, "subject", what),
        artifact_type=field(value, "artifactType", str, what, ""),
        annotations=texts(value, "annotations", what),
    )


def parse_config(body, what):
    """The ImageConfig in the bytes of an image's config. Raises ImgpullError."""
    value = parse_json(body, what)
    rootfs = field(value, "rootfs", dict, what, {})
    diff_ids = items(rootfs, "diff_ids", str, what, LAYERS_LIMIT)
    return ImageConfig(platform_in(value, what), diff_ids)


def check_layer_count(manifest, config, what):
    """Raise Damaged where an image's config does not know as many layers as its manifest has."""
    if len(config.diff_ids) != len(manifest.layers):
        known, there = plural(len(config.diff_ids), "layer"), len(manifest.layers)
        raise Damaged(f"the config of {what} knows {known}, and its manifest has {there}")


def walk(descriptor, manifest, load, what):
    """Yield (Descriptor, Manifest) of a manifest and of all below it, each once, parents first.

    descriptor: Descriptor of the manifest
    load: function from a Descriptor to its Manifest, or to None where it is to be passed over
    what: str, what the error says is too deep or too large

    The one walk through indexes, for registries and archives. Raises ImgpullError where indexes
    are nested too deeply or have too many manifests: they may go on for ever.
    """
    seen, level = {descriptor.digest}, [(descriptor, manifest)]
    for _ in range(INDEX_DEPTH + 1):
        below = []
        for pair in level:
            yield pair
            for child in pair[1].children:
                if child.digest in seen:
                    continue
                seen.add(child.digest)
                if len(seen) > CHILDREN_LIMIT:
                    raise Damaged(f"{what} has more than {CHILDREN_LIMIT} manifests")
                loaded = load(child)
                if loaded is not None:
                    below.append((child, loaded))
        if not below:
            return
        level = below
    raise Damaged(f"{what} has indexes within indexes, more than {INDEX_DEPTH} deep")


# ---- Settings and reporter: what a user may set for a pull, and who is told how it goes ----------


class Settings(
    collections.namedtuple(
        "Settings",
        "scheme insecure cacert cert key user password token timeout retries namespace",
    )
):
    """How to reach a registry.

    scheme: "https" or "http"; None for https, but http for a loopback registry without TLS
    insecure: bool, do not verify certificates
    cacert: str, path of a PEM file with CAs to trust besides the system's, or None
    cert, key: str, paths of PEM files with the client's certificate and its key, or None
    user, password: str, or None
    token: str, a registry token, or None
    timeout: float, seconds without a byte after which a peer has failed
    retries: int, tries after the first one, counted anew after progress; None is 5, and 1 where
        nobody has answered yet and the connection is refused
    namespace: str, the registry that the one in the references is a mirror of, or None
    """

    __slots__ = ()

    def __repr__(self):
        return "Settings(***)"  # never a password in a log or a traceback


Settings.__new__.__defaults__ = (
    (None, False, None, None, None) + (None, None, None) + (30, None, None)
)


class Reporter:
    """Is told how a pull goes. This base class ignores it all; several threads call its methods."""

    def note(self, text):
        """Something that the user may want to know: a wait, a retry, a resume."""

    def warn(self, text):
        """Something that the user should know."""

    def debug(self, text):
        """A request or an answer, without secrets."""

    def doing(self, text):
        """What goes on before start(), such as "looking up alpine"; "" if someone types now."""

    def retry(self, failure, delay, number, limit):
        """Something failed, and is tried again in delay (float) seconds: retry number of limit."""
        self.note(f"{failure}; trying again in {delay:.1f} s ({number} of {limit})")

    def start(self, layers, total, images):
        """All documents are there: the layers are known.

        layers: list of Descriptor, what is to be put into the archive
        total: int, their bytes
        images: list of PulledImage
        """

    def blob(self, descriptor, how):
        """A layer (Descriptor) is complete and right; how: "" if fetched, else where it is from."""

    def tick(self, done):
        """So many bytes of the layers are in place. Called often."""

    def reading(self, name, done, total):
        """So many bytes of a local archive are read. Called often, and at the end with total.

        total: int, bytes; 0 for a pipe, where nobody knows
        """

    def finish(self):
        """The download is over, well or not."""


# ---- Credentials: docker's config.json, containers-auth.json(5), credential helpers --------------

CONFIG_LIMIT = 4 << 20  # bytes of a file with credentials
HELPER_SECONDS = 20  # for the answer of a credential helper
# Docker Hub's key in docker's files, and its name for docker's helpers.
HUB_KEY = "https://index.docker.io/v1/"
HUB_HOSTS = ("docker.io", "index.docker.io", "registry-1.docker.io")
# Beside HUB_KEY, docker's web login stores what it needs itself to get new tokens.
HUB_TOKEN_PATHS = ("v1/access-token", "v1/refresh-token")


class Credential(collections.namedtuple("Credential", "user password identity token")):
    """What we log in with at a registry or its token server; "" for each part that is missing.

    user, password: str; bytes that are not UTF-8 are kept as surrogates (PEP 383)
    identity: str, an identity token: the token server takes it as an OAuth2 refresh token
    token: str, a registry token, which the registry takes as it is
    """

    __slots__ = ()

    def __repr__(self):
        return "Credential(***)"  # never a secret in a log or a traceback


def to_bytes(text):
    """The bytes of a text in UTF-8; those that were not UTF-8 come back as they were stored.

    Raises UnicodeEncodeError (a ValueError) on half a character, which JSON can express.
    """
    return text.encode("utf-8", "surrogateescape")


def basic(user, password):
    """The value of an Authorization header (RFC 7617)."""
    import base64

    return "Basic " + base64.b64encode(to_bytes(f"{user}:{password}")).decode()


def credential_files(environ):
    """Paths of the files that may hold credentials, the one to ask first comes first.

    environ: {str: str}, the environment variables
    """
    if environ.get("REGISTRY_AUTH_FILE"):
        # It alone counts, as with podman and skopeo.
        return [environ["REGISTRY_AUTH_FILE"]]
    home = os.path.expanduser("~")
    config_home = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    podman = [os.path.join(config_home, "containers", "auth.json")]
    if environ.get("XDG_RUNTIME_DIR"):
        podman.insert(0, os.path.join(environ["XDG_RUNTIME_DIR"], "containers", "auth.json"))
    elif hasattr(os, "getuid"):
        # As root, over ssh or under cron there is no such variable: containers-auth.json(5).
        podman.insert(0, f"/run/containers/{os.getuid()}/auth.json")
    if environ.get("DOCKER_CONFIG"):
        return [os.path.join(environ["DOCKER_CONFIG"], "config.json")] + podman
    return podman + [os.path.join(home, ".docker", "config.json")]


def open_at_once(path, flags):
    """os.open that does not wait: a named pipe would wait until somebody writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_config(path):
    """The bytes of a file with credentials. Raises OSError."""
    import stat

    with open(path, "rb", opener=open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        content = file.read(CONFIG_LIMIT + 1)
    if len(content) > CONFIG_LIMIT:
        raise OSError(errno.EFBIG, f"larger than {human(CONFIG_LIMIT)}")
    return content


def stored_configs(environ, warn):
    """Yield (where, bytes) of each configuration that may hold credentials.

    where: str, the path of a file, or the name of a variable, fit to print
    """
    only_file = environ.get("REGISTRY_AUTH_FILE")
    variable = environ.get("DOCKER_AUTH_CONFIG")
    if variable and not only_file:
        yield "$DOCKER_AUTH_CONFIG", to_bytes(variable)
    for path in credential_files(environ):
        where = printable(path)
        try:
            content = read_config(path)
        except OSError as error:
            # Most hosts lack most of the files. A file that was asked for should be there.
            if only_file or not isinstance(error, FileNotFoundError):
                warn(f"{where} cannot be read ({error.strerror}); going on without it")
        else:
            yield where, content


def stored_credential(reference, environ, warn):
    """The Credential for a reference from the user's configuration, or None.

    reference: Reference
    environ: {str: str}, the environment variables
    warn: function of a str, told about each file or helper that is of no use
    """
    for where, content in stored_configs(environ, warn):
        try:
            # docker and podman leave empty files behind.
            config = parse_json(content, where) if content.strip() else {}
            credential = credential_in(config, reference, where, warn)
        except ImgpullError as error:
            warn(f"{error}; going on without it")
            continue
        if credential:
            return credential
    return None


def credential_in(config, reference, where, warn):
    """The Credential for a reference in one configuration (dict), or None. Raises ImgpullError.

    A helper comes before what the file itself holds. Of the keys in "auths" the one counts that is
    the longest part of the reference's name: host/team/app, then host/team, then host.
    """
    auths = field(config, "auths", dict, where, {})
    helper = helper_for(config, reference.registry, where)
    if helper:
        try:
            credential = helper_credential(helper, reference.registry)
        except ImgpullError as error:
            warn(f"{where}: {error}; going on without it")
        else:
            if credential:
                return credential
    parts = reference.name.lower().split("/")
    names = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
    for key in [key for name in names for key in spellings(auths, name)]:
        try:
            credential = entry_credential(auths[key], f"{where}: the entry of {quoted(key)}")
        except ImgpullError as error:
            warn(f"{error}; going on without it")
            continue
        if credential:
            return credential
    return None


def normal_key(key):
    """The host or host/path that a key of "auths" or "credHelpers" means, "" if none."""
    scheme = re.match("https?://", key)
    bare = key[scheme.end() :] if scheme else key
    host, slash, path = re.sub("/(v[12]/?)?$", "", bare).partition("/")
    host = host.lower()
    if host in HUB_HOSTS:
        if path in HUB_TOKEN_PATHS:
            return ""
        host = "docker.io"
    # docker writes URLs, of which only the host counts; a path without a scheme is podman's.
    return host if scheme else host + slash + path


def spellings(keys, name):
    """Those keys that mean a name (host or host/path), docker's or the exact one first."""
    same = [key for key in keys if normal_key(key) == name]
    return sorted(same, key=lambda key: (key != HUB_KEY, key != name))


def helper_for(config, registry, where):
    """The name of the credential helper for a registry, "" if none. Raises ImgpullError."""
    helpers = field(config, "credHelpers", dict, where, {})
    keys = spellings(helpers, registry.lower())
    if not keys:
        return field(config, "credsStore", str, where, "")
    # An empty name: this registry has no helper, not even that of credsStore.
    return next((helpers[key] for key in keys if helpers[key]), "")


def entry_credential(entry, what):
    """The Credential of one entry of "auths", None if it is empty. Raises ImgpullError."""
    import base64

    if not isinstance(entry, dict):
        return None
    user = field(entry, "username", str, what, "")
    password = field(entry, "password", str, what, "")
    identity = field(entry, "identitytoken", str, what, "")
    token = field(entry, "registrytoken", str, what, "")
    packed = field(entry, "auth", str, what, "")
    try:
        if packed:
            # The program base64 breaks its lines, and Go's decoder takes that.
            pair = base64.b64decode("".join(packed.split()), validate=True)
            user, password = pair.decode("utf-8", "surrogateescape").split(":", 1)
            password = password.strip("\0")  # as docker does
        to_bytes(user + password + identity)
    except ValueError:
        raise ImgpullError(f"{what} is malformed: not base64 of USER:PASSWORD") from None
    # docker's sign for a secret that is not a password but an identity token.
    if user == "<token>":
        user, password, identity = "", "", identity or password
    return Credential(user, password, identity, token) if user or identity or token else None


def helper_credential(helper, registry):
    """What the program docker-credential-HELPER has for a registry: a Credential or None.

    Raises ImgpullError where the helper fails.
    """
    if not isinstance(helper, str) or not re.fullmatch(r"[A-Za-z0-9._-]+", helper):
        raise ImgpullError(f"{quoted(helper, 60)} is not the name of a credential helper")
    # docker asks helpers for Docker Hub's URL, podman for docker.io.
    servers = [HUB_KEY, "docker.io"] if registry == "docker.io" else [registry]
    failure = None
    for server in servers:
        try:
            credential = ask_helper("docker-credential-" + helper, server)
        except ImgpullError as error:
            failure = error
            continue
        if credential:
            return credential
    if failure:
        raise failure
    return None


def ask_helper(program, server):
    """What a credential helper has for a server: a Credential or None. Raises ImgpullError.

    The protocol: github.com/docker/docker-credential-helpers.
    """
    status, answer = run_helper(program, server)
    if status:
        # A helper says "credentials not found in native keychain" with the same status as an error.
        if b"not found" in answer:
            return None
        said = printable(answer[:500].decode("utf-8", "replace")) or f"exit status {status}"
        raise ImgpullError(f"{program} failed: {said}")
    try:
        value = parse_json(answer, program)
        user = field(value, "Username", str, program, "")
        secret = field(value, "Secret", str, program, "")
        to_bytes(user + secret)
    except (ImgpullError, ValueError):
        # What it said is not shown: it may be a secret.
        raise ImgpullError(f"{program} gave a malformed answer") from None
    if user == "<token>":
        return Credential("", "", secret, "")
    return Credential(user, secret, "", "") if user or secret else None


def run_helper(program, server):
    """(exit status, standard output) of a credential helper. Raises ImgpullError."""
    import subprocess

    pipe = subprocess.PIPE
    command = [program, "get"]
    try:
        with subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
        ) as process:
            try:
                answer = process.communicate(server.encode(), timeout=HELPER_SECONDS)[0]
            except subprocess.TimeoutExpired:
                process.kill()
                raise ImgpullError(f"{program} gave no answer in {HELPER_SECONDS} s") from None
    except OSError as error:
        raise ImgpullError(f"{program} cannot be run ({error.strerror})") from None
    return process.returncode, answer


# ---- Proxies: https_proxy, http_proxy, all_proxy and no_proxy, as curl and Go read them ----------


class Origin(collections.namedtuple("Origin", "scheme host port")):
    """Whom we talk to. str() is host[:port], as the Host header and messages have it.

    scheme: "http" or "https"
    host: str in lower case, an IPv6 address without brackets
    port: int
    """

    __slots__ = ()

    @property
    def netloc(self):
        """host:port, always with the port."""
        return f"{self.bracketed}:{self.port}"

    @property
    def bracketed(self):
        """The host as it stands in a URL."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def __str__(self):
        return self.bracketed if self.port == PORTS[self.scheme] else self.netloc


def origin_of(url):
    """The Origin of a URL. Raises ImgpullError where it has none that we speak to."""
    from urllib.parse import urlsplit

    # urlsplit raises ValueError on malformed ports and brackets, and encode() on half characters,
    # which JSON can hold and no request can.
    with contextlib.suppress(ValueError):
        url.encode("utf-8")
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        # A line break in a host would end up in a request to a proxy.
        if parts.scheme in PORTS and re.fullmatch(r"[^\x00-\x20\x7f]+", host):
            return Origin(parts.scheme, host, PORTS[parts.scheme] if port is None else port)
    raise ImgpullError(f"{redacted(url)} is not the URL of an http or https server")


def redacted(url):
    """A URL fit to be shown: no user, no password, and no query, since signed URLs are secrets."""
    address = re.split("[?#]", url, maxsplit=1)[0]
    return printable(re.sub("//[^/]*@", "//", address), 200)


def proxy_for(scheme, host, port, environ):
    """The URL of the proxy for a server, or None. The variables count in either case."""

    def variable(name):
        return (environ.get(name) or environ.get(name.upper()) or "").strip()

    proxy = variable(scheme + "_proxy") or variable("all_proxy")
    if not proxy or bypassed(host, port, variable("no_proxy")):
        return None
    return proxy if "://" in proxy else "http://" + proxy


def bypassed(host, port, no_proxy):
    """Whether no_proxy names a host: its entries are separated by commas or blanks."""
    host = host.lower().rstrip(".")
    entries = re.split(r"[\s,]+", no_proxy.lower())
    return any(covers(entry, host, port) for entry in entries)


def covers(entry, host, port):
    """Whether an entry of no_proxy means a host.

    entry: *, a domain (with or without a leading dot or *.), an address or a CIDR range, and
    maybe a port
    """
    with_port = re.fullmatch(r"(\[[^]]*\]|[^:]*):(\d+)", entry)
    if with_port:
        if int(with_port.group(2)) != port:
            return False
        entry = with_port.group(1)
    entry = entry.strip("[]").rstrip(".")
    domain = re.sub(r"^\*?\.", "", entry)
    if entry == "*" or (domain and (host == domain or host.endswith("." + domain))):
        return True
    return in_range(host, entry)


def in_range(host, network):
    """Whether a host is an address within a network in CIDR notation, or that IPv6 address."""
    if "/" not in network and ":" not in network:
        return False
    import ipaddress

    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    return False


def usable_proxy(origin, environ):
    """The URL of the proxy for an Origin, or None. Raises UsageError on one that is malformed."""
    proxy = proxy_for(origin.scheme, origin.host, origin.port, environ)
    if not proxy:
        return None
    with contextlib.suppress(ImgpullError):
        # An @ in the rest means a password that urlsplit would cut at a /.
        if re.fullmatch("http://([^/?#]*@)?[^/?#@]+/?", proxy, re.I) and origin_of(proxy):
            return proxy
    raise UsageError(
        f"the proxy {proxy_name(proxy)} (from http_proxy, https_proxy or all_proxy) must be "
        "http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with special characters in the "
        "password as %40 and the like"
    )


def proxy_name(proxy):
    """A proxy's URL fit to be shown. All before the last @ may be a password, however written."""
    scheme = re.match("([a-z0-9+.-]+://)?", proxy, re.I).group()
    address = proxy[len(scheme) :].rpartition("@")[2]
    return printable(scheme + address, 200)


def proxy_authorization(proxy):
    """The headers (dict) with the credentials in a proxy's URL, {} if it has none."""
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    user = unquote(parts.username, errors="surrogateescape")
    password = unquote(parts.password or "", errors="surrogateescape")
    return {"Proxy-Authorization": basic(user, password)}


def proxy_refused(proxy, peer, status, reason=""):
    """The ImgpullError for a proxy that answers instead of the server behind it.

    proxy: str, its URL
    peer: Origin, the server
    status, reason: int and str of the proxy's answer
    """
    name = proxy_name(proxy)
    # RFC 9110 has 407 for this, but some proxies answer 401.
    if status in (401, 407):
        return NoAccess(
            f"the proxy {name} wants credentials, or other ones: set its variable to "
            "http://USER:PASSWORD@HOST:PORT"
        )
    text = f"the proxy {name} does not connect to {peer}: {status} {printable(reason)}".rstrip()
    if status == 403:
        return NoAccess(text)
    return Temporary(text) if status >= 500 else ImgpullError(text)


# ---- TLS: whom to trust, what to show, and what a failed handshake means -------------------------

# Where podman and docker keep the certificates of single registries, in HOST[:PORT]/.
CERTS_DIRS = ("~/.config/containers/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d")


class TLSFiles(collections.namedtuple("TLSFiles", "authorities cert key insecure")):
    """What connections to an Origin are made with. Origins with equal ones share a context.

    authorities: tuple of str, paths of PEM files with CAs to trust besides the system's
    cert, key: str, paths of PEM files with our certificate and its key, or None
    insecure: bool, do not verify the server's certificate
    """

    __slots__ = ()


def tls_files(origin, settings, own):
    """The TLSFiles for an Origin.

    settings: Settings
    own: bool, whether the option --cert is meant for this server. A store that a registry
    redirects to is not shown who we are.
    """
    authorities = certs_in(origin, ".crt")
    if settings.cacert:
        authorities.append(settings.cacert)
    cert, key = None, None
    stored = certs_in(origin, ".cert")
    if own and settings.cert:
        cert, key = settings.cert, settings.key
    elif stored:
        cert, key = stored[0], stored[0][: -len(".cert")] + ".key"
    return TLSFiles(tuple(authorities), cert, key, settings.insecure)


def certs_in(origin, suffix):
    """Paths of an Origin's files with a suffix in docker's and podman's certs.d directories."""
    paths = []
    for directory in CERTS_DIRS:
        # The directory with the port comes first, the one without is for the usual port alone.
        for name in sorted({origin.netloc, str(origin)}, reverse=True):
            folder = os.path.join(os.path.expanduser(directory), name)
            # Most hosts have none, or it may be readable by root alone.
            with contextlib.suppress(OSError):
                files = sorted(file for file in os.listdir(folder) if file.endswith(suffix))
                paths += [os.path.join(folder, file) for file in files]
    return paths


def tls_context(files):
    """The ssl.SSLContext for TLSFiles. Raises UsageError on files that cannot be used.

    It loads all of the system's CAs, so it is worth keeping: a context for each of the hosts that
    a registry redirected to once cost 286 MiB.
    """
    import ssl

    context = ssl.create_default_context()
    # Python 3.13 refuses CAs without a key usage, as many private ones are; docker, curl and older
    # Pythons take them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    for path in files.authorities:
        with pem_errors("the CA certificate", path, "it must be PEM"):
            context.load_verify_locations(path)
    if files.cert:
        load_client_certificate(context, files.cert, files.key)
    if files.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def load_client_certificate(context, cert, key):
    """Load our certificate and its key into an ssl.SSLContext. Raises UsageError."""
    asked = Passphrase()
    rule = "certificate and key must be PEM and belong together, and a pass phrase must be right"
    # ssl does not say which of the two files is missing.
    for path in filter(None, (cert, key)):
        if not os.path.exists(path):
            raise UsageError(f"the client certificate or its key: no such file: {printable(path)}")
    with pem_errors("the client certificate", cert, rule):
        try:
            context.load_cert_chain(cert, key, asked)
        except Exception:
            if asked.failure:
                raise UsageError(asked.failure) from None
            raise


class Passphrase:
    """Asks for the pass phrase of the client's key, when ssl calls it."""

    def __init__(self):
        self.failure = ""  # why there is none, "" if there is one

    def __call__(self):
        import getpass

        if not sys.stdin or not sys.stdin.isatty():
            self.failure = (
                "the client's key is encrypted, and there is no terminal to ask for its pass "
                "phrase: decrypt it (openssl pkey -in KEY -out PLAIN)"
            )
            # ssl of Python 3.6 calls again after an exception, and then crashes.
            return "-"
        try:
            return getpass.getpass("Pass phrase of the client's key: ")
        except EOFError:
            self.failure = "the client's key is encrypted, and no pass phrase was given"
            return "-"


@contextlib.contextmanager
def pem_errors(what, path, rule):
    """A context in which the errors of ssl that loads a file become UsageErrors."""
    import ssl

    name = printable(path)
    try:
        yield
    except ssl.SSLError as error:
        # The reason of many errors is only in the text.
        reason = printable(error.reason or error.args[-1])
        raise UsageError(f"{what} {name} cannot be used ({reason}): {rule}") from None
    except IsADirectoryError:
        raise UsageError(f"{what} {name} is a directory: give a PEM file") from None
    except OSError as error:
        raise UsageError(f"{what} {name} cannot be read: {error.strerror}") from None


# What OpenSSL says, in lower case, where the peer speaks something else than TLS.
NOT_TLS = (
    "wrong version number",
    "http request",
    "unknown protocol",
    "record layer failure",
    "packet length too",
)

# Words of OpenSSL in lower case, and what they mean for a connection that comes to nothing.
TLS_HINTS = (
    (
        NOT_TLS,
        "it does not speak TLS on this port: if it is a plain-http registry, use --scheme http, or "
        "write http:// before HOST",
    ),
    (
        (
            "certificate required",
            "handshake failure",
            "bad certificate",
            "peer did not return a certificate",
            "alert unknown ca",
            "certificate unknown",
            "certificate expired",
        ),
        "it may want a client certificate that it trusts: --cert and --key",
    ),
    (
        ("unsupported protocol", "protocol version", "no protocols", "no shared cipher"),
        "it has no TLS version in common with this Python's OpenSSL: use a newer Python, or have "
        "the server updated",
    ),
)

# The same for a server's certificate that was not accepted. {trust}: see tls_failure.
CERTIFICATE_HINTS = (
    (
        ("expired", "not yet valid"),
        "its certificate is out of date: check this host's clock, have the certificate renewed, "
        "or use --insecure",
    ),
    (
        ("mismatch", "doesn't match", "not valid for"),
        "its certificate is for another name: use the name that it is for, or --insecure",
    ),
    (
        ("issuer", "self signed", "self-signed", "ca cert"),
        "its certificate is not signed by a CA that {trust}, or use --insecure",
    ),
    (
        # Python 3.6 does not say more than "certificate verify failed".
        ("",),
        "its certificate is out of date or not signed by a CA that {trust}, or use --insecure",
    ),
)


def is_not_tls(error):
    """Whether an ssl.SSLError means that the peer does not speak TLS."""
    said = str(error).lower().replace("_", " ")
    return any(words in said for words in NOT_TLS)


def tls_failure(error, authorities=()):
    """What an ssl.SSLError or ssl.CertificateError means, None for a cut connection.

    authorities: tuple of str, paths of the CAs that were trusted besides the system's
    """
    said = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
    whole = f"{said} {error}".lower().replace("_", " ")
    certificate = "verify failed" in whole or type(error).__name__ == "CertificateError"
    if authorities:
        tried = printable(" or ".join(authorities))
        trust = f"this host trusts or {tried} holds: give the right one with --cacert"
    else:
        trust = "this host trusts: give the CA's PEM file with --cacert"
    for words, hint in CERTIFICATE_HINTS if certificate else TLS_HINTS:
        if any(word in whole for word in words):
            return f"{hint.format(trust=trust)} ({printable(said)})"
    return None


# ---- Connections: the one place that makes a request, and the one rule that retries --------------

USER_AGENT = "imgpull/" + __version__
BUFFER = 256 << 10  # bytes a read: measured, more does not pay and less costs calls
REDIRECTS = 10
RETRIES = 5  # where nothing else was asked for
BACKOFF = 0.5  # seconds before the first retry; doubles with each
LONGEST_WAIT = 120  # seconds: a Retry-After beyond this is an error at once
OVERHEAD_LIMIT = 512 << 10  # bytes of headers, or of chunk sizes and trailers for one read
FILL_SECONDS = 0.05  # how long a read goes on to fill its buffer
# A peer that sends fewer than SLOW_BYTES in SLOW_SECONDS of waiting is given up: 1 KiB a second.
SLOW_SECONDS = 60
SLOW_BYTES = 60 << 10
DEAD_ADDRESS_SECONDS = 5  # for an address that does not answer where there are others


class Incoming(io.RawIOBase):
    """The bytes that arrive on a socket, as http.client reads them for one answer.

    Three rules live here, since every byte of every header and body passes through:
    - A read of a body fills its buffer, or ends with what comes after FILL_SECONDS. A record of TLS
      has 16 KiB at most; handing on each by itself took 40 % more CPU in a pull over https.
    - A peer that sends a byte now and then, for ever, is given up: see SLOW_BYTES.
    - Headers, trailers and interim answers may not go on for ever: see OVERHEAD_LIMIT.

    sock: the socket or ssl.SSLSocket to read from
    raw: the socket's own reader, closed with this one, since it keeps the socket open
    peer: str, whom we read from, for messages
    """

    def __init__(self, sock, raw, peer):
        super().__init__()
        self.sock = sock
        self.raw = raw
        self.peer = peer
        self.due = 0  # bytes of the body that are certain to come
        self.budget = OVERHEAD_LIMIT  # bytes that may come before the reader asks for more
        self.failure = None  # an error that came after bytes which count
        self.waited = 0.0  # seconds of waiting for data since the rate was last looked at
        self.received = 0  # bytes that came in these seconds

    def readable(self):
        return True

    def readinto(self, view):
        if self.failure:
            raise self.failure
        begun = time.monotonic()
        # Not a method of ours: over https, this runs once for every 16 KiB.
        receive = self.sock.recv_into
        count = receive(view)
        full = min(len(view), self.due)
        while 0 < count < full and time.monotonic() - begun < FILL_SECONDS:
            try:
                more = receive(view[count:full])
            except Exception as error:
                self.failure = error
                break
            if not more:
                break
            count += more
        self.account(count, time.monotonic() - begun)
        return count

    def account(self, count, seconds):
        """Note that so many bytes came in so many seconds. Raises where there is a limit to it."""
        self.waited += seconds
        self.received += count
        self.budget -= count
        if self.budget < 0:
            raise Damaged(f"{self.peer} sends headers without end")
        if self.waited > SLOW_SECONDS:
            if self.received < SLOW_BYTES:
                raise Temporary(
                    f"timed out: {self.peer} sent only {human(self.received)} in {SLOW_SECONDS} s"
                )
            self.waited, self.received = 0.0, 0

    def close(self):
        super().close()
        self.raw.close()


def answer_class(peer):
    """http.client.HTTPResponse, reading through Incoming."""
    import http.client

    class Answer(http.client.HTTPResponse):
        def __init__(self, sock, *args, **options):
            super().__init__(sock, *args, **options)
            self.incoming = Incoming(sock, self.fp.detach(), peer)
            self.fp = io.BufferedReader(self.incoming)

    return Answer


class NetworkErrors(contextlib.AbstractContextManager):
    """A context in which errors of http.client, ssl and sockets become ImgpullErrors.

    transport: Transport
    origin: Origin, whom we talk to
    proxy: str, the URL of the proxy in between, or None
    """

    def __init__(self, transport, origin, proxy=None):
        self.transport = transport
        self.origin = origin
        self.proxy = proxy

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

        through = f" through the proxy {proxy_name(self.proxy)}" if self.proxy else ""
        peer = f"{self.origin}{through}"
        tunnel = re.match(r"Tunnel connection failed: (\d+) ?(.*)", str(error))
        if tunnel:
            return proxy_refused(self.proxy, self.origin, int(tunnel.group(1)), tunnel.group(2))
        if isinstance(error, socket.timeout):
            seconds = self.transport.settings.timeout
            return Temporary(f"timed out: no data from {peer} for {seconds:g} s")
        if self.origin.scheme == "https" and not isinstance(error, socket.gaierror):
            failure = self.translated_tls(error, peer)
            if failure:
                return failure
        if isinstance(error, socket.gaierror):
            return self.no_address(error)
        if isinstance(error, OSError) and not isinstance(error, http.client.HTTPException):
            kind = NobodyListens if isinstance(error, ConnectionRefusedError) else Temporary
            return kind(f"no connection to {peer}: {printable(error.strerror or error)}")
        if isinstance(error, http.client.RemoteDisconnected):
            return Temporary(f"{peer} closed the connection without an answer")
        if isinstance(error, (http.client.IncompleteRead, http.client.BadStatusLine)):
            line = printable(getattr(error, "line", ""), 60)
            shown = ": " + line if line else ""
            return Temporary(f"{peer} gave an answer that is cut or not HTTP{shown}")
        if isinstance(error, UnicodeError):
            return UsageError(f"{printable(self.origin.host, 100)} is not the name of a host")
        if isinstance(error, http.client.HTTPException):
            return Damaged(f"{peer} gave a malformed answer: {printable(error, 120)}")
        # The text of other errors is not shown: it may quote a header with a password.
        return ImgpullError(f"no request can be made to {peer} ({type(error).__name__})")

    def translated_tls(self, error, peer):
        """The ImgpullError for an error of TLS, or None where it is another kind of error."""
        import ssl

        if not isinstance(error, (ssl.SSLError, ssl.CertificateError)):
            return None
        meaning = tls_failure(error, self.transport.tls_files(self.origin).authorities)
        if meaning:
            kind = NotTLS if is_not_tls(error) else ImgpullError
            return kind(f"no TLS connection to {peer}: {meaning}")
        return Temporary(f"the TLS connection to {peer} broke: {printable(error)}")

    def no_address(self, error):
        """The ImgpullError for a name that does not resolve."""
        import socket

        # A name that has worked before is right: then the network is gone, and may come back.
        worked = self.origin in self.transport.reached
        kind = Resumable if error.errno == socket.EAI_NONAME and not worked else Temporary
        role = "proxy" if self.proxy else "host"
        host = proxy_name(self.proxy) if self.proxy else self.origin.host
        why = printable(error.strerror)
        return kind(
            f"no address found for the {role} {host} ({why}): check its name and this host's DNS"
        )


class Response(contextlib.AbstractContextManager):
    """An answer whose body is read with a limit. A context manager.

    Its connection serves the next request where the body has been read to its end.

    transport: Transport
    connection: http.client.HTTPConnection
    answer: http.client.HTTPResponse
    origin: Origin, who gave the answer
    """

    def __init__(self, transport, connection, answer, origin):
        self.transport = transport
        self.connection = connection
        self.answer = answer
        self.origin = origin
        self.status = answer.status
        self.headers = answer.headers
        # Bytes of the body that are still to come, None where the server has not said.
        self.left = None if answer.chunked else answer.length

    def readinto(self, view):
        """Fill a memoryview with what arrives; the number of bytes, 0 at the end.

        Raises Temporary where the body breaks off.
        """
        if self.left == 0:
            return 0
        incoming = self.answer.incoming
        incoming.budget = len(view) + OVERHEAD_LIMIT
        incoming.due = self.left or 0
        with NetworkErrors(self.transport, self.origin):
            if self.left is None:
                piece = self.answer.read1(len(view))
                count = len(piece)
                view[:count] = piece
            else:
                # HTTPResponse.readinto would wait until the view is full.
                count = self.answer.fp.readinto1(view[: self.left])
        if self.transport.stopping.is_set():
            # An ssl.SSLSocket that was shut down by another thread may hand out ciphertext.
            raise Stopped("stopped")
        if self.left is not None:
            if not count:
                missing = human(self.left)
                raise Temporary(f"{self.origin} closed the connection with {missing} to come")
            self.left -= count
        return count

    def ends(self, view):
        """Whether a body of unknown length ends here: where the connection breaks, it may."""
        with contextlib.suppress(Temporary):
            return not self.readinto(view[:1])
        return True

    def read(self, limit):
        """The whole body. Raises Damaged where it is longer than limit bytes."""
        body = self.first(limit + 1)
        if len(body) > limit:
            raise Damaged(f"{self.origin} answered with more than {human(limit)}")
        return body

    def first(self, limit):
        """The body, or as much of it as limit bytes."""
        body = bytearray()
        view = memoryview(bytearray(min(limit, 64 << 10)))
        while len(body) < limit:
            count = self.readinto(view[: limit - len(body)])
            if not count:
                break
            body += view[:count]
        return bytes(body)

    def close(self):
        """Give the connection back where it can serve again, else close it."""
        if self.connection is None:
            return
        try:
            if self.left == 0:
                # http.client has not seen that we read the body. Reading "the rest" closes the
                # answer, which is what lets the connection go on.
                self.answer.length = 0
                self.answer.read()
            reusable = self.answer.isclosed() and not self.answer.will_close
        except Exception:
            reusable = False
        # The answer may hold the socket where the connection has let go of it.
        self.answer.close()
        self.transport.release(self.origin, self.connection, reusable)
        self.connection = None

    def __exit__(self, *_):
        self.close()


def retry_after(value):
    """Seconds that a Retry-After header asks for (RFC 9110 10.2.3), or None."""
    value = (value or "").strip()
    if re.fullmatch(r"\d{1,9}", value):
        return int(value)
    if value:
        from email.utils import mktime_tz, parsedate_tz

        # Malformed dates raise different errors in different Pythons.
        with contextlib.suppress(Exception):
            return max(0, mktime_tz(parsedate_tz(value)) - time.time())
    return None


class Retries:
    """The one rule that retries: how often something has failed, and the waits in between.

    transport: Transport
    what: str, what is tried, for messages: a layer or a document
    """

    def __init__(self, transport, what):
        self.transport = transport
        self.what = what
        self.failures = 0  # since there was progress
        self.progress = 0  # how far the tries have got

    def wait(self, failure, progress=0):
        """Wait until it is time for the next try.

        failure: Temporary, what the last try failed with
        progress: int, grows as the tries get on; growth starts the count anew

        Raises Resumable where the tries are used up, Stopped where the pull has failed elsewhere.
        """
        if self.transport.stopping.is_set():
            raise Stopped("stopped")
        if progress > self.progress:
            self.failures, self.progress = 0, progress
        self.failures += 1
        limit = self.limit(failure)
        text = str(failure)
        if not text.startswith(self.what):
            text = f"{self.what}: {text}"
        if self.failures > limit:
            tried = f" (tried {self.failures} times)" if limit else ""
            raise Resumable(f"{text}{tried}")
        delay = failure.delay
        if delay is None:
            import random

            # Partly random, so that what failed at one moment is not all tried again at one moment.
            delay = BACKOFF * 2 ** min(self.failures - 1, 6) * random.uniform(0.75, 1.25)
        elif delay > LONGEST_WAIT:
            raise Resumable(f"{text}; it asks to wait {delay:.0f} s")
        self.transport.reporter.retry(text, delay, self.failures, limit)
        if self.transport.stopping.wait(delay):
            raise Stopped("stopped")

    def limit(self, failure):
        """How many retries a failure is worth."""
        if self.transport.settings.retries is not None:
            return self.transport.settings.retries
        # Most likely a wrong address: nobody should have to wait for that to be said.
        first = isinstance(failure, NobodyListens) and not self.transport.reached
        return 1 if first else RETRIES


class Transport:
    """Connections, kept alive and shared by all threads of a pull.

    settings: Settings
    reporter: Reporter
    jobs: int, how many threads use it at once
    """

    def __init__(self, settings, reporter, jobs=6):
        self.settings = settings
        self.reporter = reporter
        self.idle_limit = 2 * jobs
        self.own_hosts = set()  # hosts that --cert is shown to, added by Registry
        self.unverified = set()  # Origins whose certificates are not verified, added by Registry
        self.lock = threading.Lock()  # guards idle, live and fetched
        self.idle = []  # (Origin, connection), the one used last at the end
        self.live = {}  # {connection in use: its socket, None before it is connected}
        self.fetched = 0  # bytes of blobs that came, counted by Registry
        self.tls_lock = threading.Lock()
        self.contexts = {}  # {TLSFiles: ssl.SSLContext}: a context costs a megabyte
        self.reached = set()  # Origins that have answered
        self.dead = set()  # addresses that have not
        self.stopping = threading.Event()

    def persist(self, what, attempt):
        """The result of attempt(), which is called again as long as it raises Temporary.

        what: str, what is tried, for messages
        """
        retries = Retries(self, what)
        while True:
            try:
                return attempt()
            except Temporary as failure:
                retries.wait(failure)

    def open(self, method, url, headers, authorization=None, body=None):
        """The Response to a request, after redirects.

        authorization: str, the value of a header that goes to the origin of url alone, or None

        Raises Temporary, and ImgpullError on a redirect that is not to be followed.
        """
        first = origin_of(url)
        for _ in range(REDIRECTS + 1):
            origin = origin_of(url)
            sent = dict(headers)
            # No compression on the way: sizes and digests are of the bytes as they are stored.
            sent.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
            # The stores that registries redirect to get a signed URL, and must not see our token.
            if authorization and origin == first:
                sent["Authorization"] = authorization
            response = self.send(origin, method, url, sent, body)
            span = headers.get("Range", "")
            self.reporter.debug(f"{method} {redacted(url)} {span}: {response.status}")
            location = response.headers.get("Location")
            if response.status not in (301, 302, 303, 307, 308) or not location:
                return response
            response.close()
            url = self.redirected(origin, url, location)
            if method == "POST":
                raise ImgpullError(
                    f"{origin} redirects a request with credentials, which is not followed"
                )
        raise ImgpullError(f"{first} redirects more than {REDIRECTS} times")

    @staticmethod
    def redirected(origin, url, location):
        """The URL that a Location header leads to. Raises ImgpullError on a step down to http."""
        from urllib.parse import urljoin

        try:
            target = urljoin(url, location.strip())
        except ValueError:
            target = location
        if origin.scheme == "https" and not target.lower().startswith("https:"):
            raise ImgpullError(
                f"{origin} redirects from https to {redacted(target)}, which is not followed"
            )
        return target

    def send(self, origin, method, url, headers, body):
        """The Response to one request, without following redirects: the one place that asks."""
        from urllib.parse import quote, urlsplit

        parts = urlsplit(url)
        target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        if parts.query:
            target += "?" + quote(parts.query, safe="/?%:@!$&'()*+,;=~-._[]")
        headers = dict(headers, Host=str(origin))
        proxy = usable_proxy(origin, os.environ)
        if proxy and origin.scheme == "http":
            target = f"http://{origin}{target}"
            headers.update(proxy_authorization(proxy))
        while True:
            connection, kept = self.connection(origin, proxy)
            try:
                with NetworkErrors(self, origin, proxy):
                    try:
                        answer = self.exchange(connection, method, target, body, headers)
                    except Exception as error:
                        # A kept-alive connection may have been closed before our request reached
                        # anyone: that is not a failure. A second POST might be one.
                        if not (kept and method != "POST" and closed_by_peer(error)):
                            raise
                        self.release(origin, connection, False)
                        continue
                self.reached.add(origin)
                if answer.status == 407:
                    raise proxy_refused(proxy, origin, 407)
                return Response(self, connection, answer, origin)
            except BaseException:
                self.release(origin, connection, False)
                raise

    def exchange(self, connection, method, target, body, headers):
        """Send a request on a connection; the answer, its headers read."""
        connection.request(method, target, body, headers)
        with self.lock:
            # An answer that ends with its connection takes the socket away from it.
            self.live[connection] = connection.sock
        return connection.getresponse()

    def connection(self, origin, proxy):
        """(an http.client connection, whether it was in use before)."""
        if self.stopping.is_set():
            raise Stopped("stopped")
        with self.lock:
            # The one that was used last: the peer is the least likely to have closed it meanwhile.
            for place in reversed(range(len(self.idle))):
                if self.idle[place][0] == origin:
                    connection = self.idle.pop(place)[1]
                    self.live[connection] = connection.sock
                    return connection, True
        connection = self.connect(origin, proxy)
        with self.lock:
            self.live[connection] = None
        return connection, False

    def connect(self, origin, proxy):
        """A new connection to an origin, through a proxy where there is one. Not yet connected."""
        import http.client

        address = origin_of(proxy) if proxy else origin
        timeout = self.settings.timeout
        if origin.scheme == "http":
            connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout)
        else:
            context = self.tls_context(origin)
            connection = http.client.HTTPSConnection(
                address.host, address.port, timeout=timeout, context=context
            )
            if proxy:
                connection.set_tunnel(origin.host, origin.port, proxy_authorization(proxy))
                if ":" in origin.host:
                    bracket_tunnel(connection, origin.host)
        connection.response_class = answer_class(str(origin))
        connection._create_connection = self.dial
        return connection

    def tls_context(self, origin):
        """The ssl.SSLContext for an origin, shared by all origins that use the same files."""
        files = self.tls_files(origin)
        with self.tls_lock:
            if files not in self.contexts:
                if files.key:
                    self.reporter.doing("")  # its pass phrase may be asked for
                self.contexts[files] = tls_context(files)
            return self.contexts[files]

    def tls_files(self, origin):
        """The TLSFiles for an origin: --cert is shown to the registries' own hosts alone."""
        insecure = self.settings.insecure or origin in self.unverified
        settings = self.settings._replace(insecure=insecure)
        return tls_files(origin, settings, origin.host in self.own_hosts)

    def dial(self, address, timeout, _source=None):
        """As socket.create_connection, but a dead address, of IPv6 say, costs little, and once."""
        import socket

        infos = socket.getaddrinfo(address[0], address[1], 0, socket.SOCK_STREAM)
        infos.sort(key=lambda info: info[4] in self.dead)
        for info in infos:
            is_last = info is infos[-1]
            sock = None
            try:
                # This fails itself where the kernel does not have IPv6.
                sock = socket.socket(*info[:3])
                sock.settimeout(timeout if is_last else min(timeout, DEAD_ADDRESS_SECONDS))
                sock.connect(info[4])
                sock.settimeout(timeout)
                return sock
            except OSError:
                if sock:
                    sock.close()
                self.dead.add(info[4])
                if is_last:
                    raise
        raise OSError(f"no address for {address[0]}")

    def release(self, origin, connection, reusable):
        """Take a connection back after use."""
        with self.lock:
            self.live.pop(connection, None)
            surplus = connection
            if reusable and not self.stopping.is_set():
                # Too many: the oldest goes. Layers that were redirected to many hosts once left
                # 1,500 idle connections.
                self.idle.append((origin, connection))
                surplus = self.idle.pop(0)[1] if len(self.idle) > self.idle_limit else None
        if surplus:
            surplus.close()

    def stop(self):
        """Make every thread that waits for the network fail soon. For good."""
        import socket

        self.stopping.set()
        with self.lock:
            sockets = [sock or connection.sock for connection, sock in self.live.items()]
        # Closing a socket does not wake the thread that reads from it. Shutting it down does.
        for sock in sockets:
            # One that is not connected yet, or closed already, does not wait either.
            with contextlib.suppress(AttributeError, OSError, ValueError):
                sock.shutdown(socket.SHUT_RDWR)

    def start_over(self):
        """Work again after stop(), once its threads have ended."""
        self.stopping.clear()

    def close(self):
        """Close the connections that are idle."""
        with self.lock:
            idle, self.idle = self.idle, []
        for _, connection in idle:
            connection.close()


def closed_by_peer(error):
    """Whether an exception of a request means that the peer closed the connection before it."""
    # http.client.RemoteDisconnected is a ConnectionError, too.
    return isinstance(error, ConnectionError) or type(error).__name__ == "SSLEOFError"


def bracket_tunnel(connection, host):
    """Have CONNECT say [::1]:443, where http.client before Python 3.12 says ::1:443."""
    plain = connection._tunnel

    def tunnel():
        connection._tunnel_host = f"[{host}]"
        try:
            plain()
        finally:
            # The name that the certificate is checked against.
            connection._tunnel_host = host

    connection._tunnel = tunnel


# ---- Registry and login: challenges, tokens, manifests and blobs (distribution-spec) -------------

TOKEN_LIMIT = 1 << 20  # bytes of a token server's answer
ERROR_BODY_LIMIT = 8 << 10  # bytes of an error's body that are read
DOCUMENTS_LIMIT = 16 << 20  # bytes of all manifests and configs of one image
TWICE = "twice: the registry's copy is damaged, or something on the way changes it"
AUTHORIZATIONS = 8  # tries at one request: tokens may be used up by other threads meanwhile

TOKEN_CHARACTERS = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
CHALLENGE = re.compile(
    rf"""[\s,]*(?:
    ({TOKEN_CHARACTERS})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))  # a parameter
    | ({TOKEN_CHARACTERS})(?:\ +[A-Za-z0-9._~+/-]+=*(?=\s*(?:,|$)))?  # a scheme, maybe a token68
    | .)""",
    re.VERBOSE | re.DOTALL,
)
VISIBLE = re.compile(r"[\x21-\x7e]+")  # what a token consists of


def parse_challenges(value):
    """[(scheme in lower case, {parameter in lower case: value}), ...] (RFC 9110 11.6.1).

    value: str, the value of a WWW-Authenticate header. What is malformed is passed over.
    """
    challenges = []
    for name, in_quotes, plain, scheme in CHALLENGE.findall(value[: 64 << 10]):
        if scheme:
            challenges.append((scheme.lower(), {}))
        elif name and challenges:
            text = re.sub(r"\\(.)", r"\1", in_quotes) or plain
            challenges[-1][1].setdefault(name.lower(), text)
    return challenges


def offered_schemes(response):
    """{scheme: its parameters} that a response asks for, the first of each.

    A header at a time: an open quote in one must not swallow the next.
    """
    offered = {}
    for header in response.headers.get_all("WWW-Authenticate") or []:
        for scheme, parameters in parse_challenges(header):
            offered.setdefault(scheme, parameters)
    return offered


def explain(response):
    """What an error answer says, in a line fit for a terminal; "" where it says nothing."""
    try:
        text = response.first(ERROR_BODY_LIMIT).decode("utf-8", "replace")
    except ImgpullError:
        return ""
    if text.lstrip().startswith("<"):
        # A web page: its title says it, and nginx repeats the status in it.
        text = "".join(re.findall("<title>([^<]*)</title>", text, re.I)[:1])
        return without_status(text, response.status)
    try:
        value = load_json(text)
        errors = value.get("errors") or [value]
        first = errors[0] if isinstance(errors, list) else errors
        keys = ("code", "message", "error", "error_description", "details", "detail")
        parts = [first.get(key) for key in keys]
        text = ": ".join(part for part in parts if isinstance(part, str) and part) or text
    except (ValueError, AttributeError, IndexError, KeyError, RecursionError):
        pass
    return without_status(text, response.status)


def without_status(text, status):
    """A server's words, fit for a terminal, without the status at their beginning."""
    return printable(re.sub(rf"^\s*{status}\b[\s:-]*", "", text))


LOG_IN = "check the name, and log in (docker login, podman login, or --user)"


def answer_error(response, what, own=True, advice=LOG_IN):
    """The ImgpullError for an answer that is not a success.

    what: str, what was asked for
    own: bool, whether the registry itself gave the answer
    advice: str, what to do where the access is refused
    """
    status, said = response.status, explain(response)
    text = f"{what}: {response.origin} answered {status}" + (f" ({said})" if said else "")
    if status in (408, 425, 429) or status >= 500:
        return Temporary(text, retry_after(response.headers.get("Retry-After")))
    if not own and status in (400, 401, 403):
        # The signed address of a blob store has expired: the registry gives a new one.
        return Temporary(text)
    if status == 404:
        return NotFound(
            f"{text}; check the spelling of name and tag (a private repository may hide behind "
            "this)"
        )
    if status in (401, 403):
        return NoAccess(f"{text}; no access: {advice}")
    if status == 400 and "HTTP request" in said and "HTTPS" in said:
        text += "; leave out --scheme http"
    elif status == 400 and "SSL certificate" in said:
        text += "; it wants a client certificate: --cert and --key"
    return Refused(text)


DAEMON_JSON = "/etc/docker/daemon.json"


def is_loopback(host):
    """Whether a host is this one."""
    return host == "localhost" or in_range(host, "127.0.0.0/8") or host == "::1"


def is_insecure(origin):
    """Whether docker's own configuration says that a registry needs no TLS and no verification.

    Its insecure-registries are hosts, host:port, and addresses in CIDR notation.
    """
    try:
        config = parse_json(read_config(DAEMON_JSON), DAEMON_JSON)
        entries = items(config, "insecure-registries", str, DAEMON_JSON, 1000)
    except (OSError, ImgpullError):
        return False
    names = (origin.host, str(origin), origin.netloc)
    return any(entry.lower() in names or in_range(origin.host, entry) for entry in entries)


class Login:
    """Who we are to one repository: its credential, and the Authorization header made of it.

    reference: Reference that is asked for
    settings: Settings
    transport: Transport
    base: str, URL of the repository, which a relative realm is relative to
    """

    def __init__(self, reference, settings, transport, base):
        self.reference = reference
        self.settings = settings
        self.transport = transport
        self.base = base
        self.origin = origin_of(base)
        self.lock = threading.Lock()  # one thread gets a token, the others wait for it
        self.authorization = None  # str, the header to send, None before it was asked for
        self.uses = 0  # how many requests were given this header
        self.proven = False  # whether one of them was let in
        self.stored = None  # Credential, once it was looked for
        self.unusable = []  # what was wrong with files and helpers that could not be used

    def header(self):
        """The Authorization header for the next request, or None."""
        with self.lock:
            self.uses += 1
            return self.authorization

    def accepted(self, header):
        """A request with this header was let in."""
        if header == self.authorization:
            self.proven = True

    def renew(self, offered, refused, what):
        """Answer a challenge; whether there is another header to try than the refused one.

        offered: {scheme: parameters}
        refused: str, the header that was turned down, or None
        what: str, what was asked for

        Some registries give out tokens for a few requests, so a token that has worked, or that
        other threads have used meanwhile, may be used up: that is worth a new one. A new token
        that is refused at once is not.
        """
        with self.lock:
            if self.authorization != refused:
                return True
            if refused and not self.proven and self.uses == 1:
                return False
            self.authorization = self.answer(offered, what)
            self.uses, self.proven = 0, False
            # A password or a token that was given stays the same, and so refused.
            fetched = "bearer" in offered and not self.credential().token
            return fetched or self.authorization != refused

    def answer(self, offered, what):
        """The Authorization header for a challenge. Raises ImgpullError."""
        credential = self.credential()
        # Bearer first where both are offered, as in containerd: Basic sends the password itself.
        if "bearer" in offered:
            return "Bearer " + self.bearer_token(offered["bearer"], credential)
        if "basic" not in offered:
            schemes = printable(", ".join(offered), 80) or "it does not say which"
            raise NoAccess(
                f"{what}: {self.origin} wants an authorization of a kind that imgpull does not "
                f"have ({schemes})"
            )
        if credential.token:
            # An ECR token is base64 of AWS:password already.
            return "Basic " + credential.token
        if not credential.user and not credential.password:
            raise NoAccess(f"{what}: {self.origin} wants a user and a password: {self.advice()}")
        return basic(credential.user, credential.password)

    def credential(self):
        """The Credential for this repository, looked for once: options, then stored ones."""
        if self.stored is None:
            settings = self.settings
            if settings.token:
                self.stored = Credential("", "", "", settings.token)
            elif settings.user:
                self.stored = Credential(settings.user, settings.password or "", "", "")
            else:
                self.stored = stored_credential(self.reference, os.environ, self.warn)
                self.stored = self.stored or Credential("", "", "", "")
            if self.stored.token and not VISIBLE.fullmatch(self.stored.token):
                raise UsageError(
                    f"the token for {self.origin.host} has blanks or other characters that no "
                    "token has"
                )
        return self.stored

    def warn(self, text):
        """Tell of a file or helper that cannot be used, and remember it for the error."""
        self.unusable.append(text.partition("; going on without it")[0])
        self.transport.reporter.warn(text)

    def advice(self):
        """What to do about a refusal: log in, or log in as somebody else."""
        if not any(self.stored or ()):
            return "; ".join([LOG_IN] + self.unusable)
        return (
            f"the credentials for {self.reference.registry}, given or stored, are wrong or have "
            "expired, or have no right to this image"
        )

    def realm(self, parameters):
        """The URL of the token server that a challenge names. Raises ImgpullError."""
        from urllib.parse import urljoin

        realm = parameters.get("realm", "")
        if realm.startswith("/"):
            # urljoin raises ValueError on malformed brackets; then it is refused below.
            with contextlib.suppress(ValueError):
                return urljoin(self.base, realm)
        if not re.match("https?://", realm, re.I):
            raise ImgpullError(
                f"{self.origin} names no token server that can be asked (realm "
                f"{quoted(realm, 100)})"
            )
        return realm

    def bearer_token(self, parameters, credential):
        """A token from the challenge's realm (distribution's token and oauth2 specifications)."""
        from urllib.parse import urlencode

        if credential.token:
            return credential.token
        realm = self.realm(parameters)
        origin = origin_of(realm)
        has_secret = bool(credential.user or credential.identity)
        if has_secret and origin.scheme == "http" and self.origin.scheme == "https":
            raise ImgpullError(
                f"{self.origin} sends us to the plain-http token server {origin}: credentials do "
                "not go there"
            )
        # gcr.io and others name no scope: then we ask for what a pull needs.
        scope = parameters.get("scope") or f"repository:{self.reference.repository}:pull"
        query = [("scope", scope)]
        if parameters.get("service"):
            query.insert(0, ("service", parameters["service"]))
        method, headers, authorization, body = "GET", {}, None, None
        if credential.identity:
            query += [("grant_type", "refresh_token"), ("refresh_token", credential.identity)]
            query.append(("client_id", "imgpull"))
            method, body = "POST", urlencode(query, errors="surrogateescape")
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        else:
            if credential.user:
                authorization = basic(credential.user, credential.password)
                query.insert(0, ("account", credential.user))
            realm += ("&" if "?" in realm else "?") + urlencode(query, errors="surrogateescape")

        def attempt():
            with self.transport.open(method, realm, headers, authorization, body) as response:
                if response.status != 200:
                    advice = self.advice() if has_secret else LOG_IN
                    raise answer_error(response, "the token server", advice=advice)
                return response.read(TOKEN_LIMIT)

        answer = self.transport.persist("the token server", attempt)
        value = parse_json(answer, f"the answer of token server {origin}")
        return self.token_in(value, origin)

    @staticmethod
    def token_in(value, origin):
        """The token in a token server's answer. Raises ImgpullError."""
        # distribution's token specification allows either name; access_token is that of OAuth 2.0.
        for key in ("token", "access_token"):
            token = field(value, key, str, "the token", "")
            if VISIBLE.fullmatch(token):
                return token
        raise Damaged(f"the token server {origin} gave no token")


class Registry:
    """Manifests and blobs of one repository. Every method raises ImgpullError.

    Safe to use from several threads.

    reference: Reference
    settings: Settings
    reporter: Reporter, or None
    transport: Transport to share with others, or None for one of its own
    documents: {digest: bytes} of manifests and configs that have been checked, to share, or None
    """

    def __init__(
        self, reference, settings=Settings(), reporter=None, transport=None, documents=None
    ):
        self.settings = settings
        self.transport = transport or Transport(settings, reporter or Reporter())
        mirror = mirrored(reference, settings.namespace)
        self.reference = mirror.asked
        self.named = mirror.named  # Reference, what the image is called
        self.namespace = mirror.namespace
        host = self.reference.registry
        # Docker Hub's images are called docker.io/..., and served by another host.
        self.host = "registry-1.docker.io" if host == "docker.io" else host
        self.speak(settings.scheme or "https")
        self.transport.own_hosts.add(self.origin.host)
        # Behind a proxy, "localhost" is the proxy's own host, and http would show it the password.
        is_direct = usable_proxy(self.origin, os.environ) is None
        is_here = is_loopback(self.origin.host) and is_direct
        self.may_speak_http = settings.scheme is None and is_here
        if settings.scheme is None and is_insecure(self.origin):
            self.may_speak_http = True
            self.trust_blindly()
        self.documents = {} if documents is None else documents
        self.taken = 0  # bytes of documents that this repository has sent

    def speak(self, scheme):
        """Use this scheme from now on."""
        self.base = f"{scheme}://{self.host}/v2/{self.reference.repository}/"
        self.origin = origin_of(self.base)
        self.login = Login(self.reference, self.settings, self.transport, self.base)

    def trust_blindly(self):
        """Do not verify this registry's certificate, and say so, once."""
        if self.origin not in self.transport.unverified:
            self.transport.unverified.add(self.origin)
            self.transport.reporter.warn(
                f"{self.origin} is one of the insecure-registries of {DAEMON_JSON}: its "
                "certificate is not verified, and http is used where it does not speak TLS"
            )

    def head(self, target=None):
        """The Descriptor of a tag's or digest's manifest, unchecked, as the registry says it."""
        target = target or self.reference.target
        what = f"manifest {target}"

        def attempt():
            headers = {"Accept": ACCEPT}
            with self.request("HEAD", "manifests/" + target, what, headers) as response:
                length = response.headers.get("Content-Length", "")
                value = {
                    "mediaType": response.headers.get("Content-Type"),
                    "size": int(length) if re.fullmatch("[0-9]{1,18}", length) else -1,
                    "digest": response.headers.get("Docker-Content-Digest"),
                }
                return parse_descriptor(value, "the manifest")

        return self.transport.persist(what, attempt)

    def get(self, target=None):
        """The Manifest of a tag (str), digest (str) or Descriptor, checked against the digest.

        Without a target: what the reference names. distribution-spec, "Pulling manifests".
        """
        size = None
        if isinstance(target, Descriptor):
            target, size = target.digest, target.size
        target = target or self.reference.target
        separator = "@" if ":" in target else ":"
        what = f"{self.reference.name}{separator}{target}"
        body = self.documents.get(target)
        if body is None:
            body = self.once_more(lambda: self.manifest_body(target, what))
            self.keep(body)
        if size not in (None, len(body)):
            raise Damaged(f"{what}: got a manifest of {len(body)} bytes, expected {size}")
        digest = target if DIGEST.fullmatch(target) else digest_of(body)
        self.documents[digest] = body
        return parse_manifest(body, digest, what)

    def manifest_body(self, target, what):
        """The bytes of a manifest, once fetched. Raises Mismatch."""

        def attempt():
            headers = {"Accept": ACCEPT}
            with self.request("GET", "manifests/" + target, what, headers) as response:
                announced = response.headers.get("Docker-Content-Digest", "")
                return response.read(DOCUMENT_LIMIT), announced

        body, announced = self.transport.persist(what, attempt)
        # containerd refuses a tag whose bytes differ from the digest in the header, too.
        expected = target if DIGEST.fullmatch(target) else announced
        if DIGEST.fullmatch(expected) and digest_of(body, expected) != expected:
            raise Mismatch(f"{what}: {mismatch(digest_of(body, expected), expected)}")
        return body

    def keep(self, body):
        """Count a document. Raises Damaged where a repository has too much of them."""
        self.taken += len(body)
        if self.taken > DOCUMENTS_LIMIT:
            limit = human(DOCUMENTS_LIMIT)
            raise Damaged(f"{self.named} has more than {limit} of manifests and configs")

    def once_more(self, attempt):
        """The result of attempt(), called again after a Mismatch: bytes get garbled on the way."""
        try:
            return attempt()
        except Mismatch as error:
            self.transport.reporter.warn(f"{error}; downloading it again")
        try:
            return attempt()
        except Mismatch as error:
            raise Damaged(f"{error}, {TWICE}") from None

    def blob(self, descriptor):
        """The bytes of a small blob, such as a config, checked."""
        body = self.documents.get(descriptor.digest)
        if body is None:
            if descriptor.size > DOCUMENT_LIMIT:
                size, limit = human(descriptor.size), human(DOCUMENT_LIMIT)
                raise Damaged(f"{descriptor.digest} has {size}; a config has at most {limit}")
            body = self.once_more(lambda: self.blob_body(descriptor))
            self.keep(body)
            self.documents[descriptor.digest] = body
        return body

    def blob_body(self, descriptor):
        """The bytes of a small blob, once fetched. Raises Mismatch."""
        body = bytearray()
        view = memoryview(bytearray(min(BUFFER, descriptor.size) or 1))
        for piece in self.whole(descriptor, view):
            body += piece
        got = digest_of(body, descriptor.digest)
        if got != descriptor.digest:
            raise Mismatch(f"{descriptor.short}: {mismatch(got, descriptor.digest)}")
        return bytes(body)

    def pieces(self, descriptor, start, left, view, from_start=True):
        """Yield a blob's bytes from start on as memoryviews: the one way to get a blob's bytes.

        descriptor: Descriptor of the blob
        start: int, the offset of the first byte
        left: function without arguments, how many bytes are still wanted; it is asked before each
            read, since another worker may have taken over the end
        view: memoryview that each piece is read into, over the one before
        from_start: bool, whether to read all that comes before start where the server does not do
            ranges; otherwise that raises RangeRefused

        A body that breaks off goes on from there, through as many requests as Retries allows.
        The bytes are not checked against the digest: who puts them together does that.
        """
        retries = Retries(self.transport, descriptor.short)
        position = start
        ranged = True  # whether to ask for ranges
        doubtful = False  # whether the announced size was wrong once
        while left() > 0:
            try:
                for piece in self.body(descriptor, position, left, view, ranged, from_start):
                    position += len(piece)
                    yield piece
            except RangeRefused:
                if not (ranged and from_start):
                    raise
                ranged = False
            except Mismatch as failure:
                if doubtful:
                    raise Damaged(str(failure)) from None
                doubtful = True
            except Temporary as failure:
                retries.wait(failure, position)

    def whole(self, descriptor, view):
        """Yield all of a blob's bytes: pieces() for one who wants it from beginning to end."""
        missing = descriptor.size

        def left():
            return missing

        for piece in self.pieces(descriptor, 0, left, view):
            missing -= len(piece)
            yield piece

    def body(self, descriptor, start, left, view, ranged, from_start):
        """Yield the pieces of a blob from start on that one request gives."""
        size = descriptor.size
        span = (start, start + left()) if ranged else (0, size)
        received = 0
        with self.stream(descriptor, *span) as response:
            skip = start - response.start
            if skip and not from_start:
                raise RangeRefused(f"{descriptor.short}: {response.origin} does not do ranges")
            try:
                while left() > 0:
                    count = response.readinto(view[: min(len(view), skip or left())])
                    if not count:
                        raise Temporary(f"{descriptor.short}: {response.origin} sent too little")
                    received += count
                    if skip:
                        skip -= count
                        continue
                    start += count
                    yield view[:count]
            finally:
                with self.transport.lock:
                    self.transport.fetched += received
            if start == size and response.left is None and not response.ends(view):
                raise Damaged(
                    f"{descriptor.short}: {response.origin} sends more than the {size} bytes that "
                    "the manifest says"
                )

    def stream(self, descriptor, start=0, end=None):
        """The Response with a blob's bytes from start to end (exclusive, None: to its end).

        distribution-spec, "Pulling blobs"; RFC 9110 14. Its attribute start says where the body
        really begins: at 0 where the server does not do ranges.

        Raises Temporary where another try may help, RangeRefused, Mismatch.
        """
        headers = {}
        to_end = end is None or end >= descriptor.size
        if start or not to_end:
            last = "" if to_end else end - 1
            headers["Range"] = f"bytes={start}-{last}"
        try:
            response = self.request("GET", "blobs/" + descriptor.digest, descriptor.short, headers)
        except NotFound:
            if not descriptor.urls:
                raise
            response = self.foreign(descriptor, headers)
        try:
            response.start = self.start_of_body(response, descriptor, start)
        except ImgpullError:
            response.close()
            raise
        return response

    @staticmethod
    def start_of_body(response, descriptor, start):
        """The offset in the blob at which a response's body begins. Raises ImgpullError."""
        if response.status == 206:
            content_range = response.headers.get("Content-Range", "")
            match = re.match(r"\s*bytes\s+(\d{1,18})-(\d{1,18})/", content_range, re.I)
            if not match or int(match.group(1)) != start:
                raise RangeRefused(
                    f"{descriptor.short}: {response.origin} sent another range than was asked for"
                )
            return start
        # Status 200: a server may ignore a Range, and send all of it (RFC 9110 14.2).
        if response.left not in (None, descriptor.size):
            raise Mismatch(
                f"{descriptor.short}: {response.origin} announces {response.left} bytes, and the "
                f"manifest {descriptor.size}"
            )
        return 0

    def foreign(self, descriptor, headers):
        """The Response for a layer that only its owner may distribute, from the URLs it names."""
        for url in descriptor.urls:
            # Without our credentials: the URL is the manifest's, and may lead anywhere.
            if url.startswith("https://"):
                response = self.transport.open("GET", url, headers)
                if response.status in (200, 206):
                    return response
                response.close()
        raise NotFound(
            f"{descriptor.short}: neither the registry nor the URLs in the manifest have it"
        )

    def request(self, method, path, what, headers):
        """The successful Response to a request for this repository, authorized where it must be.

        path: str, below the repository's URL
        what: str, what is asked for, for messages
        """
        from urllib.parse import urlencode

        url = self.base + path
        if self.namespace:
            url += ("&" if "?" in path else "?") + urlencode({"ns": self.namespace})
        # No ping of /v2/ before it: this request is challenged as well, and a public registry costs
        # no extra round trip.
        for number in range(1, AUTHORIZATIONS + 1):
            header = self.login.header()
            try:
                response = self.transport.open(method, url, headers, header)
            except NotTLS:
                if not self.may_speak_http:
                    raise
                # As docker does: a registry on this host mostly has no TLS.
                self.may_speak_http = False
                self.speak("http")
                return self.request(method, path, what, headers)
            if response.status in (200, 206):
                self.login.accepted(header)
                return response
            challenged = response.status == 401 and response.origin == self.origin
            if not challenged or number == AUTHORIZATIONS:
                break
            offered = offered_schemes(response)
            # Read the body to its end, so that the connection can be used again.
            refusal = answer_error(response, what, advice=self.login.advice())
            response.close()
            if not self.login.renew(offered, header, what):
                raise refusal
        with response:
            if response.status == 416:
                kind = RangeRefused if "Range" in headers else Temporary
                raise kind(f"{what}: {response.origin} refuses the range")
            own = response.origin == self.origin or not path.startswith("blobs/")
            raise answer_error(response, what, own, self.login.advice())


# ---- Referrers: signatures, SBOMs and whatever else refers to an image (distribution-spec) -------

REFERRERS_LIMIT = 1000  # manifests that refer to one image, or to what refers to it
REFERRERS_DEPTH = 4  # a signature of an SBOM of an image is 2 deep
PAGES_LIMIT = 100  # pages of one list
# cosign's older form: a tag beside the image names a manifest, which has no subject itself.
COSIGN_SUFFIXES = (".sig", ".att", ".sbom")
COSIGN_ROLES = {".sig": "sigs", ".att": "atts"}  # {suffix: what cosign calls it in index.json}
COSIGN_BUNDLE = "application/vnd.dev.sigstore.bundle"  # the beginning of a media type

# What a referrer is in a word: of the first pattern that is in its types.
REFERRER_KINDS = (
    ("spdx|cyclonedx|syft|sbom", "SBOM"),
    ("slsa|provenance", "provenance"),
    ("signature|simplesigning|cosign/sign", "signature"),
    ("in-toto|dsse|attestation", "attestation"),
    # A bundle that says nothing of what is in it: cosign signs with these.
    (re.escape(COSIGN_BUNDLE), "signature"),
)


class Referrer(collections.namedtuple("Referrer", "subject suffix manifest")):
    """A manifest that refers to an image, or to another referrer.

    subject: str, digest of what it refers to; "" where an archive does not tell
    suffix: str, of the cosign tag that led to it, such as .sig; "" where its subject did
    manifest: Manifest
    """

    __slots__ = ()

    @property
    def digest(self):
        return self.manifest.descriptor.digest

    @property
    def size(self):
        """Bytes of the manifest and of its layers."""
        return self.manifest.descriptor.size + sum(layer.size for layer in self.manifest.layers)

    @property
    def artifact_type(self):
        """Its type: of the artifact, or of the config, or where that is an image's, of a layer."""
        config = self.manifest.config
        types = [self.manifest.artifact_type]
        if config and config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
            types.append(config.media_type)
        types += [layer.media_type for layer in self.manifest.layers]
        return next(filter(None, types), "")

    @property
    def kind(self):
        """What it is in words: "signature", "SBOM, provenance", ..., "artifact" if not known."""
        whole = f"{self.artifact_type} {predicate_type(self.manifest.annotations)}"
        parts = [
            f"{whole} {layer.media_type} {predicate_type(layer.annotations)}"
            for layer in self.manifest.layers
        ]
        words = collections.OrderedDict.fromkeys(map(referrer_kind, parts or [whole]))
        return ", ".join(words)

    @property
    def role(self):
        """The one of COSIGN_ROLES that it has in index.json, "" if none."""
        return COSIGN_ROLES.get(self.suffix, "") if has_no_files(self.manifest) else ""

    @property
    def is_bundle(self):
        """Whether cosign 3 takes it for a signature, or attestation, of its subject."""
        return any(layer.media_type.startswith(COSIGN_BUNDLE) for layer in self.manifest.layers)


def is_layer_type(media_type):
    """Whether a media type is one of an image's layer, or none is given."""
    return bool(re.search("layer|rootfs|^$", media_type))


def has_no_files(manifest):
    """Whether nothing in a manifest can be run: cosign's signatures have the config of an image."""
    types = [layer.media_type for layer in manifest.layers]
    return bool(types) and not any(map(is_layer_type, types))


def predicate_type(annotations):
    """What an attestation states, by the annotation of cosign, sigstore or BuildKit; "" if none."""
    keys = ("predicateType", "dev.sigstore.bundle.predicateType", "in-toto.io/predicate-type")
    return next((annotations[key] for key in keys if key in annotations), "")


def referrer_kind(types):
    """The word of REFERRER_KINDS for types, or "artifact"."""
    matches = (word for pattern, word in REFERRER_KINDS if re.search(pattern, types, re.I))
    return next(matches, "artifact")


def tag_of_digest(digest):
    """The tag that stands for a digest where tags are all there is (distribution-spec)."""
    algorithm, _, digits = digest.partition(":")
    return f"{algorithm}-{digits[:64]}"


def next_page(registry, url, header):
    """The path of a list's next page, below the repository's URL, "" if this was the last.

    url: str, of this page
    header: str, the value of its Link header (RFC 8288)

    Raises Damaged where the page is not another one of this repository's lists.
    """
    from urllib.parse import urljoin

    link = re.search(r"""<([^>]*)>[^,]*;\s*rel="?next\b""", header, re.I)
    if not link:
        return ""
    try:
        target = urljoin(url, link.group(1))
    except ValueError:
        target = link.group(1)
    if not target.startswith(registry.base + "referrers/"):
        raise Damaged(
            f"{registry.origin} continues a list of referrers at {redacted(target)}, which is not "
            "followed"
        )
    return target[len(registry.base) :]


def api_pages(registry, digest, what):
    """Yield each page (Manifest) of what the referrers API lists for a digest.

    distribution-spec, "Listing Referrers". We ask for all types, so OCI-Filters-Applied says
    nothing to us. Raises NotFound or Refused where the registry does not have the API.
    """
    path = f"referrers/{digest}"

    def attempt():
        with registry.request("GET", path, what, {"Accept": OCI_INDEX}) as response:
            header = ", ".join(response.headers.get_all("Link") or [])
            return response.read(DOCUMENT_LIMIT), header

    for _ in range(PAGES_LIMIT):
        body, header = registry.transport.persist(what, attempt)
        registry.keep(body)
        yield parse_manifest(body, digest_of(body), what)
        path = next_page(registry, registry.base + path, header)
        if not path:
            return
    raise Damaged(f"{what} has more than {PAGES_LIMIT} pages")


def get_tagged(registry, tag):
    """The Manifest of a tag, or None where there is none."""
    try:
        return registry.get(tag)
    except NotFound:
        return None


def listed_referrers(registry, digest):
    """[Descriptor, ...] of what a registry says refers to a digest. Raises ImgpullError."""
    what = f"the list of what refers to {registry.reference.name}@{digest}"
    try:
        lists = list(api_pages(registry, digest, what))
    except (NotFound, Refused):
        # Registries that do not have the API answer with 404, some with 400, 405 or 406. For
        # those, whoever pushes a referrer keeps the list under a tag ("Referrers Tag Schema").
        lists = list(filter(None, [get_tagged(registry, tag_of_digest(digest))]))
    if not all(page.is_index for page in lists):
        raise Damaged(f"{what} is an image's manifest, not an index")
    return [descriptor for page in lists for descriptor in page.children]


class ReferrerSearch:
    """Finds what refers to manifests of a repository, each referrer once.

    registry: Registry
    reporter: Reporter
    """

    def __init__(self, registry, reporter):
        self.registry = registry
        self.reporter = reporter
        self.subjects = set()  # digests of the manifests that the search began with
        self.seen = set()  # digests of the referrers so far

    def run(self, subjects):
        """[Referrer, ...] of all that refers to the digests, or to what refers to them.

        Raises ImgpullError where a list cannot be had, or goes on for ever.
        """
        self.subjects, level, referrers = set(subjects), subjects, []
        for _ in range(REFERRERS_DEPTH + 1):
            above = [referrer for digest in level for referrer in self.direct(digest)]
            if not above:
                return referrers
            referrers += above
            level = [referrer.digest for referrer in above]
        raise Damaged(
            f"{self.registry.named} has referrers to referrers, more than {REFERRERS_DEPTH} deep"
        )

    def direct(self, digest):
        """Yield each new Referrer to a digest. Raises ImgpullError."""
        listed = listed_referrers(self.registry, digest)
        if len(listed) > REFERRERS_LIMIT:
            raise self.too_many()
        for descriptor in listed:
            manifest = self.listed(descriptor, digest)
            if not self.is_about(manifest, digest) or not self.is_new(descriptor.digest):
                continue
            yield Referrer(digest, "", manifest)
            # A referrer may be an index: what it consists of comes along.
            for part, below in walk(descriptor, manifest, self.registry.get, "a referrer"):
                if self.is_new(part.digest):
                    yield Referrer(descriptor.digest, "", below)
        for suffix in COSIGN_SUFFIXES:
            manifest = get_tagged(self.registry, tag_of_digest(digest) + suffix)
            if manifest is None or manifest.subject and not self.is_about(manifest, digest):
                continue
            if self.is_new(manifest.descriptor.digest):
                yield Referrer(digest, suffix, manifest)

    def is_new(self, digest):
        """Whether a referrer's digest was not seen yet. Raises Damaged where there are too many."""
        if digest in self.subjects or digest in self.seen:
            return False
        self.seen.add(digest)
        if len(self.seen) > REFERRERS_LIMIT:
            raise self.too_many()
        return True

    def too_many(self):
        """The Damaged for a list that goes on for ever, or nearly so."""
        return Damaged(f"{self.registry.named} has more than {REFERRERS_LIMIT} referrers")

    def listed(self, descriptor, subject):
        """The Manifest of an entry of a list of referrers. Raises ImgpullError."""
        try:
            return self.registry.get(descriptor)
        except NotFound:
            # What was asked for must not be missing without a word.
            raise NotFound(
                f"{self.registry.origin} lists {descriptor.digest} as referring to {subject}, and "
                "does not have it"
            ) from None

    def is_about(self, manifest, digest):
        """Whether a manifest refers to a digest. Notes where it does not."""
        subject = manifest.subject.digest if manifest.subject else "nothing"
        if subject != digest:
            self.reporter.note(
                f"passed over: {manifest.descriptor.digest} should refer to {digest}, and refers "
                f"to {subject}"
            )
        return subject == digest


# ---- Archive plan: the whole tar laid out before its first layer arrives (image-layout.md) -------

# Our annotations in index.json, each with digests separated by commas.
OMITTED = "dev.imgpull.omitted"  # of the layers, or images of an index, that are left out
# Of the index that the tag named, where the image is one of its platforms.
SOURCE = "dev.imgpull.source"
REFERRERS = "dev.imgpull.referrers"  # of the manifests that refer to the image
COSIGN_KIND = "dev.cosignproject.cosign/"  # what follows is how cosign takes a descriptor


class ResolvedImage(
    collections.namedtuple(
        "ResolvedImage",
        "registry name tag descriptor manifests configs documents offered platform index referrers",
    )
):
    """What a reference stands for: everything that a pull knows before the first layer.

    registry: Registry, where its layers are
    name: str, its full name in the archive
    tag: str, "" if none
    descriptor: Descriptor of its manifest or index, which index.json points to
    manifests: list of Manifest, all that come along
    configs: {digest of a manifest: ImageConfig}, for those that are images
    documents: {digest: bytes} of all manifests and configs
    offered: Manifest that manifest.json offers to docker, None for what is no image
    platform: Platform of that manifest; None for all platforms, and for what is no image
    index: Manifest of the index that one platform was taken from, None for others
    referrers: list of Referrer, of those that come along
    """

    __slots__ = ()


ResolvedImage.__new__.__defaults__ = (None, ())


class PlannedLayer(collections.namedtuple("PlannedLayer", "descriptor offset registry")):
    """A layer in the archive.

    descriptor: Descriptor
    offset: int, of its first byte in the archive
    registry: Registry, where it is
    """

    __slots__ = ()


class ArchivePlan(collections.namedtuple("ArchivePlan", "literals layers size omitted")):
    """Where every byte of an archive goes.

    literals: list of (offset, bytes), what is known already: one before each layer, one at the end
    layers: list of PlannedLayer, in the order of their offsets
    size: int, bytes of the archive
    omitted: {digest: size} of the layers that a delta leaves out
    """

    __slots__ = ()

    @property
    def total(self):
        """Bytes of all layers."""
        return sum(planned.descriptor.size for planned in self.layers)


def compact(value):
    """JSON bytes without spaces: the same on every Python."""
    return json.dumps(value, separators=(",", ":")).encode()


def tar_header(name, size):
    """The tar header of a file: GNU format, mode 0644, all else zero, the same on every Python.

    GNU format, since layers can pass the 8 GiB that plain ustar can say.
    """
    import tarfile

    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    # A long name comes in a header of its own before. Pythons write the device numbers (329 to
    # 345) in two ways, in both headers.
    blocks = [0, len(header) - 512] if len(header) > 512 else [0]
    for start in blocks:
        block = memoryview(header)[start : start + 512]
        block[329:345] = bytes(16)
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    return bytes(header)


def layout(contents):
    """(literals, [(Descriptor, offset), ...], size) of a tar. A pure function.

    contents: ordered {name: bytes, or Descriptor of what arrives later}
    """
    literals, placed = [], []
    pending, start = bytearray(), 0
    for name, content in contents.items():
        is_literal = isinstance(content, bytes)
        size = len(content) if is_literal else content.size
        pending += tar_header(name, size)
        if is_literal:
            pending += content
        else:
            offset = start + len(pending)
            literals.append((start, bytes(pending)))
            placed.append((content, offset))
            pending, start = bytearray(), offset + size
        pending += bytes(-size % 512)
    # A tar ends with two blocks of zeros.
    literals.append((start, bytes(pending) + bytes(1024)))
    return literals, placed, start + len(pending) + 1024


def docker_manifest(images):
    """What manifest.json says: of every image that docker can run its config, names and layers."""
    entries = collections.OrderedDict()
    for image in images:
        if not image.offered:
            continue
        digest = image.offered.descriptor.digest
        if digest not in entries:
            layers = [layer.path for layer in image.offered.layers]
            entries[digest] = {
                "Config": image.offered.config.path,
                "RepoTags": [],
                "Layers": layers,
            }
        tags = entries[digest]["RepoTags"]
        if image.tag and image.name not in tags:
            tags.append(image.name)
    # Docker writes null where an image has no name.
    return [dict(entry, RepoTags=entry["RepoTags"] or None) for entry in entries.values()]


def signed_descriptor(image):
    """(Descriptor of what cosign is to verify, its kind) of an image with referrers.

    "cosign verify --local-image" takes the first descriptor of a kind for what was signed. Most
    signatures are of the index, though the image is one of its manifests: then it is the index,
    unless the manifest is signed as well. Of the two names that cosign has for an index, it finds
    bundles by "image" alone, and its older signatures by "imageIndex" alone.
    """
    candidates = [image.descriptor] + ([image.index.descriptor] if image.index else [])
    bundled = {each.subject for each in image.referrers if each.is_bundle}
    signed = bundled | {each.subject for each in image.referrers if each.role}
    best = next((each for each in candidates if each.digest in signed), image.descriptor)
    is_index = best.media_type in (OCI_INDEX, DOCKER_LIST)
    return best, "imageIndex" if is_index and best.digest not in bundled else "image"


def json_descriptor(descriptor, annotations):
    """A Descriptor as index.json has it."""
    return {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
        "annotations": annotations,
    }


def unnamed_descriptors(image):
    """What index.json says, besides the image itself, so that cosign finds what is signed.

    They have no name, so that no runtime makes an image of them that has one.
    """
    signed, kind = signed_descriptor(image)
    descriptors = []
    if signed.digest != image.descriptor.digest:
        annotations = {"kind": COSIGN_KIND + kind}
        manifests = image.manifests + [referrer.manifest for referrer in image.referrers]
        whole = {manifest.descriptor.digest for manifest in manifests}
        gone = [child.digest for child in image.index.children if child.digest not in whole]
        if gone:
            annotations[OMITTED] = ",".join(gone)
        descriptors.append(json_descriptor(signed, annotations))
    for each in image.referrers:
        if each.subject == signed.digest and each.role:
            annotations = {"kind": COSIGN_KIND + each.role}
            descriptors.append(json_descriptor(each.manifest.descriptor, annotations))
    return descriptors


def oci_index(images, omitted):
    """What index.json says: a descriptor an image, annotated with its name and what is left out."""
    descriptors, unnamed = [], []
    # skopeo and podman find an image in an archive by this annotation: two images with the same
    # tag need their full names there.
    tags = collections.Counter(tag for _, tag in {(image.name, image.tag) for image in images})
    for image in images:
        annotations = {"io.containerd.image.name": image.name}
        if image.tag:
            is_unique = tags[image.tag] == 1
            annotations["org.opencontainers.image.ref.name"] = (
                image.tag if is_unique else image.name
            )
        if image.index:
            annotations[SOURCE] = image.index.descriptor.digest
        layers = [layer.digest for manifest in image.manifests for layer in manifest.layers]
        gone = [digest for digest in collections.OrderedDict.fromkeys(layers) if digest in omitted]
        # Of an index, some platforms may be left out as well.
        children = [child.digest for manifest in image.manifests for child in manifest.children]
        gone += [digest for digest in children if digest not in image.documents]
        if gone:
            annotations[OMITTED] = ",".join(gone)
        if image.referrers:
            digests = sorted(referrer.digest for referrer in image.referrers)
            annotations[REFERRERS] = ",".join(digests)
            signed, kind = signed_descriptor(image)
            if signed.digest == image.descriptor.digest:
                annotations["kind"] = COSIGN_KIND + kind
            unnamed += unnamed_descriptors(image)
        descriptors.append(json_descriptor(image.descriptor, annotations))
    # Two names of one image have the same.
    descriptors += [each for number, each in enumerate(unnamed) if each not in unnamed[:number]]
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}


def plan_archive(images, omit=frozenset()):
    """The ArchivePlan for images. A pure function.

    images: list of ResolvedImage
    omit: set of the digests of layers to leave out; those of referrers come along all the same

    Raises Damaged where two manifests give one digest two sizes.
    """
    blobs, registries, sizes, omitted = {}, {}, {}, {}
    referrers = [referrer for image in images for referrer in image.referrers]
    omit = omit - {layer.digest for referrer in referrers for layer in referrer.manifest.layers}
    for image in images:
        for digest, body in image.documents.items():
            blobs[blob_path(digest)] = body
            sizes[digest] = len(body)
    for image in images:
        manifests = image.manifests + [referrer.manifest for referrer in image.referrers]
        layers = [layer for manifest in manifests for layer in manifest.layers]
        for layer in layers:
            if sizes.setdefault(layer.digest, layer.size) != layer.size:
                both = f"{layer.size} bytes in one place, and {sizes[layer.digest]} in another"
                raise Damaged(f"{image.name}: {layer.digest} has {both}")
            if layer.digest in omit:
                omitted[layer.digest] = layer.size
            else:
                blobs.setdefault(layer.path, layer)
                registries.setdefault(layer.digest, image.registry)
    contents = collections.OrderedDict()
    contents["oci-layout"] = compact({"imageLayoutVersion": "1.0.0"})
    contents["index.json"] = compact(oci_index(images, omitted))
    entries = docker_manifest(images)
    if entries:
        contents["manifest.json"] = compact(entries)
    # In the order of their names, so that the same images give the same bytes on every host.
    contents.update(sorted(blobs.items()))
    literals, placed, size = layout(contents)
    if size >= SIZE_LIMIT:
        raise Damaged(f"{images[0].name}: its layers have an impossible size: {human(size)}")
    layers = [PlannedLayer(layer, offset, registries[layer.digest]) for layer, offset in placed]
    return ArchivePlan(literals, layers, size, omitted)


# ---- Reading archives: what a tar of images holds, and whether it is right -----------------------
#
# One pass over the tar, or over the directory that it was unpacked into, gives plain facts: its
# members. Pure functions judge these: which images there are, and what is wrong with them. The
# runtimes read the same tar with other parsers (Go's archive/tar and encoding/json, GNU tar): what
# any two of them read differently is refused, since what we list must be what they load.

MEMBERS_LIMIT = 100000  # members of a tar, and layers in all of its images
IMAGES_LIMIT = 10000  # images, and names, in an archive
HEADER_LIMIT = 64 << 10  # bytes of a long name, or of a pax header
NAME_LENGTH, NAME_DEPTH = 1024, 32  # characters and components of a member's name
COMPONENT_LENGTH = 255  # bytes of a component: docker unpacks into a file system
PADDING_LIMIT = 1 << 20  # zeros after the end; GNU tar fills up to its record size
INDEX_LIMIT = 32 << 20  # bytes of index.json and of manifest.json, which may list 10,000 images
KEPT_LIMIT = 128 << 20  # bytes of JSON kept from an archive that cannot be read twice
DECODE_STEP = 16 << 10  # bytes: what follows the end of a compressed stream is copied each time
XZ_MEMORY = 128 << 20  # bytes that unpacking xz may take: "xz -9" needs 65 MiB

COMPRESSIONS = (
    ("gzip", b"\x1f\x8b"),
    ("bzip2", b"BZh"),
    ("xz", b"\xfd7zXZ\0"),
    ("zstd", b"\x28\xb5\x2f\xfd"),
)
CUT_SHORT = "it ends too early"
# What lists the images of an archive: one of these is enough.
LISTS = ("index.json", "manifest.json")
# The kinds of members that there may be: their type flags in a tar.
FILE, HARD_LINK, SYMBOLIC_LINK, DIRECTORY = b"0", b"1", b"2", b"5"


class Member(collections.namedtuple("Member", "name offset size digest diff_id compression fault")):
    """A regular file in an archive. The last four are "" where its bytes were not read.

    name: str, normalized
    offset: int, of its first byte in the (unpacked) archive
    size: int, bytes
    digest: str, of its bytes
    diff_id: str, digest of its bytes unpacked, "" where this Python cannot unpack them
    compression: str, as in COMPRESSIONS, "" for none
    fault: str, why its bytes cannot be unpacked
    """

    __slots__ = ()


class Entry(collections.namedtuple("Entry", "name kind size target")):
    """What the headers of a tar say of a member.

    name: str, as written
    kind: bytes, its type flag
    size: int, bytes
    target: str, where a link leads
    """

    __slots__ = ()


class Layer(collections.namedtuple("Layer", "digest diff_id media_type size member")):
    """A layer of an image in an archive.

    digest: str, "" where only its diff_id is known
    diff_id: str, digest of the unpacked tar that the config gives, "" if not known
    media_type: str, "" if not known
    size: int, bytes
    member: Member with its bytes, None where a delta leaves it out
    """

    __slots__ = ()

    @property
    def place(self):
        """What tells the layers of an archive apart, whatever calls them: offset, or path."""
        return self.member.offset if self.member else blob_path(self.digest)


class StoredName(collections.namedtuple("StoredName", "name number digest source_digest")):
    """A name of an image in an archive.

    name: str, "" where index.json or manifest.json has the image without a name
    number: int, place of its descriptor in index.json; entries of manifest.json are behind those
    digest: str, of what has the name: a manifest, or an index of several platforms
    source_digest: str, of what the tag named in the registry, as far as the archive says so
    """

    __slots__ = ()


class StoredImage(
    collections.namedtuple(
        "StoredImage", "digest image_id platform config layers names is_listed referrers"
    )
):
    """An image or artifact in an archive.

    digest: str, of its manifest; of its config where the archive has no manifest of it
    image_id: str, the digest of its config
    platform: Platform, None for what is no image
    config: Member, None where it is not there
    layers: list of Layer, bottom first
    names: list of StoredName, one without a name where it has none
    is_listed: bool, False for an attestation that no runtime takes for an image
    referrers: list of Referrer
    """

    __slots__ = ()

    @property
    def left_out(self):
        """The layers that are not in the archive."""
        return [layer for layer in self.layers if layer.member is None]


class ArchiveImage(
    collections.namedtuple(
        "ArchiveImage", "name digest source_digest target image_id platform layers referrers"
    )
):
    """An image in an archive, once for each of its names.

    name: str, "" where it has none
    digest: str, of its manifest; of its config in an archive without manifests
    source_digest: str, of the index that the tag named in the registry, as far as the archive says
        so; None where it named the manifest
    target: str, digest of what has the name in the archive: its manifest, or an index of several
        platforms
    image_id: str, the digest of its config, which "docker images" shows
    platform: Platform, None for what is no image
    layers: list of Layer, bottom first
    referrers: list of Referrer: signatures, SBOMs, ...
    """

    __slots__ = ()

    @property
    def size(self):
        """Bytes of its layers in the archive."""
        return sum(layer.size for layer in self.layers if layer.member)

    @property
    def omitted(self):
        """The digests of the layers that the archive leaves out."""
        return [layer.digest for layer in self.layers if layer.member is None]

    @property
    def saved(self):
        """Bytes of the layers that the archive leaves out."""
        return sum(layer.size for layer in self.layers if layer.member is None)


class Fault(collections.namedtuple("Fault", "code text")):
    """Something that is wrong with an archive.

    code: str, for programs: "missing", something is named that is not there; "digest", bytes are
        not what their digest says; "size", or "type", or not what their descriptor says;
        "index", index.json, manifest.json or oci-layout; "manifest", "config" or "layer", one of
        these is not what it has to be; "base", a layer that is left out is in no base; "archive",
        it cannot be read at all
    text: str, for people
    """

    __slots__ = ()


class Check(collections.namedtuple("Check", "faults absent images size needed unchecked")):
    """What verifying an archive found.

    faults: list of Fault
    absent: list of Fault, manifests that an index names and the archive lacks: wrong as well, but
        the other images can be used
    images: list of StoredImage
    size: int, bytes checked
    needed: int, layers that are left out and in none of the bases
    unchecked: int, layers that this Python cannot unpack: their digests are right
    """

    __slots__ = ()

    @property
    def referrers(self):
        """How many signatures, SBOMs, ... there are, whose bytes were checked."""
        return len({each.digest for image in self.images for each in image.referrers})


# The bytes of an archive: plain, compressed as a whole, from a pipe, or unpacked into a directory.


class Source(collections.namedtuple("Source", "path offset size")):
    """Bytes of a blob in a local file, from the blob's beginning on.

    path: str, of an archive, which is unpacked where it is compressed as a whole; or of a file
        that is the blob
    offset: int, of the first byte in the (unpacked) archive; 0 where the file is the blob
    size: int, bytes, fewer than the blob's where the file has only its beginning
    """

    __slots__ = ()


def source_pieces(source, view):
    """Yield the bytes of a Source as pieces of view; each one overwrites the one before.

    view: memoryview to read into

    They are not checked, and end early where the file does, or is damaged. Raises OSError.
    """
    is_blob = source.offset == 0
    with contextlib.suppress(Damaged, UsageError), ArchiveFile(source.path, None, is_blob) as file:
        file.view = view
        file.skip(source.offset)
        yield from file.pieces(source.size)


def compression_of(head):
    """Which of COMPRESSIONS the first bytes tell, "" for none."""
    return next((name for name, magic in COMPRESSIONS if head.startswith(magic)), "")


class GzipDecoder:
    """zlib's decompressor with the interface that those for bzip2, xz and zstd have."""

    def __init__(self):
        import zlib

        self.stream = zlib.decompressobj(31)  # 31: gzip, with its header and checksum
        self.is_full = False  # whether there may be more to come of what it was given

    @property
    def eof(self):
        return self.stream.eof

    @property
    def unused_data(self):
        return self.stream.unused_data

    @property
    def needs_input(self):
        return not self.is_full and not self.stream.unconsumed_tail

    def decompress(self, data, limit):
        """At most limit bytes of what data is unpacked."""
        output = self.stream.decompress(self.stream.unconsumed_tail + data, limit)
        self.is_full = len(output) == limit
        return output


def new_decoder(compression):
    """A decompressor for one compressed stream, None where this Python has none."""
    with contextlib.suppress(ImportError):
        if compression == "gzip":
            return GzipDecoder()
        if compression == "bzip2":
            import bz2

            return bz2.BZ2Decompressor()
        if compression == "xz":
            import lzma

            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
        from compression import zstd  # since Python 3.14

        return zstd.ZstdDecompressor()
    return None


def unpacked(pieces, compression):
    """Yield the bytes of pieces unpacked. Several streams may follow one another.

    Raises Damaged where the last stream is cut, or anything else follows it: Go's gzip refuses
    zeros and garbage after the end, too.
    """
    decoder = None
    for piece in pieces:
        for start in range(0, len(piece), DECODE_STEP):
            data = bytes(piece[start : start + DECODE_STEP])
            while data:
                decoder = decoder or new_decoder(compression)
                yield from decoded(decoder, data, compression)
                data = decoder.unused_data
                if decoder.eof:
                    decoder = None
    if decoder:
        raise Damaged(f"its {compression} data ends too early")


def decoded(decoder, data, compression):
    """Yield what a decompressor makes of data, at most BUFFER bytes at a time."""
    try:
        yield decoder.decompress(data, BUFFER)
        while not decoder.eof and not decoder.needs_input:
            yield decoder.decompress(b"", BUFFER)
    except Exception as error:
        # Each of the four modules has exceptions of its own.
        raise Damaged(f"its {compression} data is damaged: {printable(error)}") from None


class PieceFile(io.RawIOBase):
    """A file to read, of the bytes that an iterator yields."""

    def __init__(self, pieces):
        self.iterator = iter(pieces)
        self.rest = memoryview(b"")  # of the piece that is being read

    def readable(self):
        return True

    def readinto(self, view):
        while not self.rest:
            piece = next(self.iterator, None)
            if piece is None:
                return 0
            self.rest = memoryview(piece)
        count = min(len(view), len(self.rest))
        view[:count] = self.rest[:count]
        self.rest = self.rest[count:]
        return count


def open_no_link(path, flags):
    """os.open that does not wait, and fails where the file itself is a symbolic link."""
    return open_at_once(path, flags | getattr(os, "O_NOFOLLOW", 0))


def archive_name(path):
    """What an archive is called in messages."""
    return "standard input" if path == "-" else printable(path)


def standard_input():
    """Standard input as a binary file. Raises UsageError where it is closed."""
    if sys.stdin is None:
        raise UsageError("it is closed")
    return open(sys.stdin.fileno(), "rb", closefd=False)


class ArchiveFile(contextlib.AbstractContextManager):
    """The bytes of an archive in their order, unpacked where the whole archive is compressed.

    Raises OSError where it cannot be read, and Damaged where it ends too early.
    """

    def __init__(self, path, tick=None, is_blob=False):
        import stat

        self.path = path  # "-" for standard input
        self.tick = tick  # function(bytes read, bytes of the file), called often, or None
        self.position = 0  # of the next byte in the unpacked archive
        self.view = memoryview(bytearray(BUFFER))  # what pieces are read into
        # A blob is read as it is, compressed or not, and no link leads away from its directory.
        opener = open_no_link if is_blob else open_at_once
        self.raw = standard_input() if path == "-" else open(path, "rb", opener=opener)
        try:
            status = os.fstat(self.raw.fileno())
            if stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode):
                os.set_blocking(self.raw.fileno(), True)
            elif not stat.S_ISREG(status.st_mode):
                raise UsageError("it is not a regular file")
            self.size = status.st_size  # bytes of the file, 0 for a pipe
            head = self.raw.read(512)
            self.compression = "" if is_blob else compression_of(head)
            self.is_seekable = bool(self.size) and not self.compression
            self.file = self.opened(head)  # what gives the bytes of the unpacked archive
        except BaseException:
            self.close()
            raise

    def close(self):
        self.raw.close()

    def __exit__(self, *_):
        self.close()

    def entries(self):
        """Yield the Entry of each member, see tar_entries()."""
        return tar_entries(self)

    def source(self, member):
        """The Source of a Member."""
        return Source(self.path, member.offset, member.size)

    def opened(self, head):
        """A file with the bytes of the unpacked archive, whose first raw bytes are head."""
        if not head:
            raise Damaged("it is empty")
        if self.is_seekable:
            self.raw.seek(0)
            return self.raw
        pieces = self.raw_pieces(head)
        if self.compression:
            if new_decoder(self.compression) is None:
                raise UsageError(
                    f"it is compressed with {self.compression}, which this Python cannot unpack: "
                    "unpack it first"
                )
            pieces = unpacked(pieces, self.compression)
        return io.BufferedReader(PieceFile(pieces), BUFFER)

    def raw_pieces(self, head):
        """Yield head, and what follows it in the file."""
        while head:
            yield head
            head = self.raw.read(BUFFER)

    def read(self, size):
        """So many bytes, fewer only at the end."""
        data = self.file.read(size)
        self.position += len(data)
        return data

    def exactly(self, size):
        """So many bytes. Raises Damaged where there are fewer."""
        data = self.read(size)
        if len(data) != size:
            raise Damaged(CUT_SHORT)
        return data

    def pieces(self, size):
        """Yield so many bytes in pieces; each one overwrites the one before."""
        while size:
            count = self.file.readinto(self.view[:size])
            if not count:
                raise Damaged(CUT_SHORT)
            size -= count
            self.position += count
            if self.tick:
                self.tick(self.raw.tell() if self.size else self.position, self.size)
            yield self.view[:count]

    def skip(self, size):
        """Pass over so many bytes."""
        if not self.is_seekable:
            for _ in self.pieces(size):
                pass
        elif self.position + size > self.size:
            raise Damaged(CUT_SHORT)
        else:
            self.seek(self.position + size)

    def seek(self, offset):
        """Go to a byte of a file that is seekable."""
        self.position = offset
        self.file.seek(offset)


class ArchiveDirectory:
    """A directory that an archive was unpacked into, or an OCI layout, read like an ArchiveFile.

    Its files follow one another, and as in a tar, 512 bytes stand before each: so each file has an
    offset of its own. No link is followed: scan() looks up where it leads, as in a tar. Raises
    UsageError where it is no layout, Damaged and OSError.
    """

    is_seekable = True

    def __init__(self, path, tick=None):
        self.path = path
        self.tick = tick  # function(bytes read, bytes of all files), called often, or None
        self.position = 0  # of the next byte
        self.paths = {}  # {offset: path of the file that begins there}
        # First of all, so that nobody waits while a whole disk is searched.
        if not any(os.path.lexists(os.path.join(path, name)) for name in LISTS):
            raise UsageError("it is a directory, and has no index.json as an OCI layout has")
        self.listing = directory_entries(path)
        self.size = sum(512 + entry.size for entry in self.listing)

    def close(self):
        """Nothing: each file is open only while it is read."""

    def entries(self):
        """Yield the Entry of each file, link and directory."""
        for entry in self.listing:
            self.position += 512
            self.paths[self.position] = os.path.join(self.path, entry.name)
            yield entry

    def source(self, member):
        """The Source of a Member."""
        return Source(self.paths[member.offset], 0, member.size)

    def pieces(self, size):
        """Yield the bytes of the file at this position; each piece overwrites the one before."""
        with ArchiveFile(self.paths[self.position], is_blob=True) as file:
            for piece in file.pieces(size):
                self.position += len(piece)
                if self.tick:
                    self.tick(self.position, self.size)
                yield piece

    def exactly(self, size):
        """The bytes of the file at this position. Raises Damaged where there are fewer."""
        return b"".join(bytes(piece) for piece in self.pieces(size))

    def skip(self, size):
        """Pass over so many bytes."""
        self.position += size

    def seek(self, offset):
        """Go to a byte."""
        self.position = offset


def directory_entries(path):
    """[Entry, ...] of all that is below a directory, sorted by name. Raises Damaged, OSError."""
    entries, pending = [], [""]
    while pending:
        below = pending.pop()
        with os.scandir(os.path.join(path, below)) as listing:
            for item in listing:
                entry = directory_entry(item, posixpath.join(below, item.name))
                entries.append(entry)
                if entry.kind == DIRECTORY:
                    pending.append(entry.name)
                if len(entries) > MEMBERS_LIMIT:
                    raise Damaged(f"it has more than {MEMBERS_LIMIT} members")
    return sorted(entries)


def directory_entry(item, name):
    """The Entry of something in a directory.

    item: os.DirEntry
    name: str, its path below the archive's directory
    """
    if item.is_symlink():
        return Entry(name, SYMBOLIC_LINK, 0, os.readlink(item.path))
    if item.is_dir():
        return Entry(name, DIRECTORY, 0, "")
    if not item.is_file():
        raise Damaged(f"{quoted(name, 90)} is neither file, directory nor link")
    return Entry(name, FILE, item.stat().st_size, "")


# Headers of a tar: v7, ustar, pax and GNU, as far as Go's archive/tar, Python's tarfile and GNU tar
# agree on them.

ZEROS = bytes(512)
V7, USTAR, GNU = bytes(8), b"ustar\x0000", b"ustar  \0"  # magic and version
PAX, PAX_GLOBAL, LONG_NAME, LONG_TARGET = b"x", b"g", b"L", b"K"

# What a pax header may say: patterns of keys, and of their values. GNU.sparse, hdrcharset and
# others change what is read, but not with every reader.
PAX_RULES = (
    (rb"path|linkpath", rb"[^\0]+"),
    (rb"size", rb"[0-9]{1,18}"),
    (rb"uid|gid", rb"[0-9]{1,10}"),
    (rb"[acm]time", rb"-?[0-9]{1,12}(\.[0-9]{0,30})?"),
    (rb"uname|gname", rb"[^\0]*"),
    (rb"comment|(SCHILY\.(xattr|acl|fflags|dev|ino|nlink)|LIBARCHIVE|RHT)\b[^\0]*", rb".*"),
)


def tar_text(raw):
    """The text in bytes of a tar header, up to the first NUL."""
    return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def tar_number(raw, limit=1 << 32):
    """The number in a field of a tar header: octal, or binary behind a byte 0x80.

    limit: int, above all binary numbers. GNU tar fails on users and groups of more than 32 bits.
    Raises Damaged on all else: Python's int() takes "0o7", "+7" and "1_0", and of the other first
    bytes each reader makes something else.
    """
    digits = re.fullmatch(rb" *([0-7]+)[ \0]*", raw)
    if digits:
        return int(digits.group(1), 8)
    value = int.from_bytes(raw[1:], "big")
    if raw[0] != 0x80 or value >= limit:
        raise Damaged(f"a header has an impossible number: {quoted(raw, 60)}")
    return value


def parse_header(block):
    """The Entry in a block of 512 bytes. Raises Damaged."""
    if len(block) < 512:
        raise Damaged(CUT_SHORT)
    unsigned_sum = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    magic = block[257:265]
    if magic not in (V7, USTAR, GNU):
        raise Damaged("it is not a tar, or a header is damaged or of another format")
    if tar_number(block[148:156]) != unsigned_sum:
        raise Damaged("a header is damaged: its checksum does not match")
    # Mode, user, group and time say nothing to us, but where they are bad, others stop reading.
    for start, end in ((100, 108), (108, 116), (116, 124), (136, 148)):
        tar_number(block[start:end])
    for start, end in ((329, 337), (337, 345)):
        if block[start:end].strip(b" \0"):
            tar_number(block[start:end])
    kind, name, prefix = block[156:157], tar_text(block[:100]), tar_text(block[345:500])
    # Where ustar has the prefix, GNU has times and a sparse map, v7 nothing, and star less of a
    # prefix and times. Python takes everything there for a prefix.
    if (magic != USTAR and any(block[345:])) or block[508:] == b"tar\0":
        raise Damaged(
            f"the header of {quoted(name, 90)} has a prefix, times or a sparse map where tar "
            "programs differ about it"
        )
    if kind == b"\0":
        # In the oldest tars, directories were files with a slash.
        if name.endswith("/"):
            raise Damaged(f"{quoted(name, 90)} has the type of a file and the name of a directory")
        kind = FILE
    return Entry(
        name=f"{prefix}/{name}" if prefix else name,
        kind=kind,
        size=tar_number(block[124:136], SIZE_LIMIT),
        target=tar_text(block[157:257]),
    )


def pax_records(body):
    """{key: value} of a pax header, both bytes: "LENGTH KEY=VALUE\\n" each. Raises Damaged."""
    pattern, records, start = re.compile(rb"([1-9][0-9]{0,5}) ([^=]+)="), {}, 0
    while start < len(body):
        match = pattern.match(body, start)
        end = start + int(match.group(1)) if match else 0
        if not match or not match.end() < end <= len(body) or body[end - 1 : end] != b"\n":
            raise Damaged("a pax header is damaged")
        key, value = match.group(2), body[match.end() : end - 1]
        is_known = any(
            re.fullmatch(keys, key, re.DOTALL) and re.fullmatch(values, value, re.DOTALL)
            for keys, values in PAX_RULES
        )
        if not is_known or key in records:
            said = quoted(f"{key.decode('utf-8', 'replace')}=…", 90)
            raise Damaged(f"a pax header says {said}, which tar programs read in different ways")
        records[key] = value
        start = end
    return records


def read_extension(file, header, earlier):
    """{"path", "linkpath" or "size": bytes} that a header before a member says of it.

    earlier: kinds of the headers that stand before the same member. Raises Damaged where tar
    programs differ in which of several headers counts.
    """
    kind = header.kind
    if header.size > HEADER_LIMIT:
        raise Damaged(f"a header of {human(header.size)} is larger than a name can be")
    body = file.exactly(header.size)
    file.skip(-header.size % 512)
    kinds = {kind, *earlier}
    is_mixed = PAX in kinds and kinds & {LONG_NAME, LONG_TARGET}
    if kind in earlier or is_mixed or (kind == PAX_GLOBAL and earlier):
        raise Damaged(
            "a member has several headers for its name, and tar programs differ in which counts"
        )
    if kind == LONG_NAME:
        return {b"path": body.partition(b"\0")[0]}
    if kind == LONG_TARGET:
        return {b"linkpath": body.partition(b"\0")[0]}
    records = pax_records(body)
    if kind == PAX_GLOBAL and set(records) - {b"comment"}:
        raise Damaged("a pax header for all members (global) says more than a comment")
    return records


def tar_entries(file):
    """Yield the Entry of each member of an ArchiveFile. Who iterates reads or skips its bytes.

    Raises Damaged on what tar programs read in different ways, and on an end that is none.
    """
    earlier, said = [], {}  # kinds of the headers before a member, and what they say of it
    while True:
        block = file.read(512)
        if block == ZEROS:
            break
        header = parse_header(block)
        if header.kind in (PAX, PAX_GLOBAL, LONG_NAME, LONG_TARGET):
            said.update(read_extension(file, header, earlier))
            earlier.append(header.kind)
            continue
        entry = header._replace(
            name=tar_text(said[b"path"]) if b"path" in said else header.name,
            target=tar_text(said[b"linkpath"]) if b"linkpath" in said else header.target,
            size=int(said.get(b"size", header.size)),
        )
        yield entry
        file.skip(-entry.size % 512)
        earlier, said = [], {}
    check_end(file, earlier)


def check_end(file, earlier):
    """Raise Damaged unless a tar ends, behind a first block of zeros, as it should.

    There are two blocks of zeros, and nothing but more zeros behind them: what is appended, some
    tar programs read, and others do not.
    """
    if earlier or file.read(512) != ZEROS:
        raise Damaged(f"{CUT_SHORT}, or there is data after its end")
    limit = file.position + PADDING_LIMIT
    while True:
        piece = file.read(BUFFER)
        if piece.strip(b"\0") or file.position > limit:
            raise Damaged("there is data after its end")
        if not piece:
            return


# Members: the facts of an archive.


def member_name(entry):
    """The normalized name of a member. Raises Damaged where it may lead elsewhere."""
    parts, shown = entry.name.split("/"), quoted(entry.name, 90)
    if parts[0] == "" or ".." in parts:
        why = "leads out of the archive" if parts[0] else "is absolute or empty"
        raise Damaged(f"the name {shown} of a member {why}")
    longest = max(len(part.encode("utf-8", "surrogateescape")) for part in parts)
    too_long = len(entry.name) > NAME_LENGTH or len(parts) > NAME_DEPTH
    if too_long or longest > COMPONENT_LENGTH:
        raise Damaged(f"the name {shown} is longer than an archive of images needs")
    if entry.kind not in (FILE, HARD_LINK, SYMBOLIC_LINK, DIRECTORY):
        kind = quoted(tar_text(entry.kind), 20)
        raise Damaged(f"{shown} is neither file, directory nor link, but of the type {kind}")
    if entry.kind != DIRECTORY and parts[-1] in ("", "."):
        raise Damaged(f"{shown} has the name of a directory and is none")
    if entry.kind != FILE and entry.size:
        raise Damaged(f"{shown} is no file and has {human(entry.size)} of content")
    return posixpath.normpath(entry.name)


def link_target(name, entry):
    """The name of the member that a link leads to. Raises Damaged where it leads elsewhere."""
    target = entry.target
    if entry.kind == SYMBOLIC_LINK:
        target = posixpath.join(posixpath.dirname(name), target)
    target = posixpath.normpath(target)
    if target.startswith("/") or target.split("/")[0] == "..":
        raise Damaged(f"{quoted(name, 90)} is a link out of the archive")
    return target


def scan(file, verify=False, unpack=True):
    """({name: Member}, {name: bytes of JSON}) of an archive, in one pass. Raises Damaged.

    file: ArchiveFile or ArchiveDirectory
    verify: bool, digest the members' bytes, which are passed over otherwise
    unpack: bool, unpack them for their diff_ids, too

    A link's Member is that of the file that it leads to. The JSON is kept only where one cannot
    seek back to it.
    """
    kinds, members, links, documents, kept = {}, {}, {}, {}, 0
    for count, entry in enumerate(file.entries()):
        if count >= MEMBERS_LIMIT:
            raise Damaged(f"it has more than {MEMBERS_LIMIT} members")
        name = member_name(entry)
        # A directory may come again: nothing is in it that could be another one.
        if name in kinds and not kinds[name] == entry.kind == DIRECTORY:
            raise Damaged(f"it has {quoted(name, 90)} twice")
        kinds[name] = entry.kind
        if entry.kind == FILE:
            members[name], body = read_member(file, name, entry.size, verify, unpack)
            kept += len(body)
            if body:
                documents[name] = body
        elif entry.kind == HARD_LINK:
            # Its target has to be there already: a program that unpacks links to nothing else.
            members[name] = linked_member(name, link_target(name, entry), members)
        elif entry.kind == SYMBOLIC_LINK:
            links[name] = link_target(name, entry)
        if kept > KEPT_LIMIT:
            raise Damaged(
                f"it has more than {human(KEPT_LIMIT)} of JSON: unpack it into a file first"
            )
    check_parents(kinds)
    # docker save before version 25 writes links in the order of their names, some before what
    # they lead to. As no name occurs twice, that is no question of order.
    resolved = {name: linked_member(name, target, members) for name, target in links.items()}
    members.update(resolved)
    return members, documents


def linked_member(name, target, members):
    """The Member that a link leads to. Raises Damaged."""
    if target not in members:
        raise Damaged(
            f"{quoted(name, 90)} is a link to {quoted(target, 90)}, which is not a file earlier in "
            "the archive"
        )
    return members[target]


def check_parents(kinds):
    """Raise Damaged where a member is below something that is no directory.

    kinds: {name: type flag}
    """
    for name in kinds:
        slash = name.find("/")
        while slash > 0:
            above = name[:slash]
            if kinds.get(above, DIRECTORY) != DIRECTORY:
                shown = f"{quoted(name, 90)} is below {quoted(above, 90)}"
                raise Damaged(f"{shown}, which is a file or a link")
            slash = name.find("/", slash + 1)


def read_member(file, name, size, verify, unpack):
    """(Member, its bytes if they are to be kept, else b"") of the next bytes of an archive."""
    offset, body = file.position, b""
    pieces = None
    if not file.is_seekable and size <= document_limit(name):
        body = file.exactly(size)
        pieces = iter([body])
    if verify:
        facts = digest_pieces(pieces or file.pieces(size), name, unpack)
    else:
        facts = ("", "", "", "")
        if pieces is None:
            file.skip(size)
    is_json = body.lstrip()[:1] in (b"{", b"[")
    return Member(name, offset, size, *facts), body if is_json else b""


def digest_pieces(pieces, name, unpack):
    """(digest, diff_id, compression, fault) of a Member, whose bytes go by once."""
    packed = new_hash("sha512:" if name.startswith("blobs/sha512/") else "sha256:")
    stream = hashed(pieces, packed)
    head = bytes(next(stream, b""))
    compression = compression_of(head)
    diff, fault = None, ""
    if not compression and packed.name == "sha256":
        diff = packed
    elif not compression or unpack and new_decoder(compression):
        diff = hashlib.sha256()
        rest = joined(head, stream)
        try:
            for part in unpacked(rest, compression) if compression else rest:
                diff.update(part)
        except Damaged as error:
            # Where it is the archive that ends too early, the next read says so.
            diff, fault = None, str(error)
    for _ in stream:
        pass
    return digest_in(packed), digest_in(diff) if diff else "", compression, fault


def hashed(pieces, hasher):
    """Yield pieces, and show each one to a hash object."""
    for piece in pieces:
        hasher.update(piece)
        yield piece


def joined(first, rest):
    """Yield the first piece, and the rest of them."""
    yield first
    yield from rest


@contextlib.contextmanager
def archive_errors(path):
    """A context in which what goes wrong with an archive is told with the archive's name."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, UsageError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from None
    except OSError as error:
        raise DiskError(f"{path} cannot be read: {printable(error.strerror or error)}") from None
    except Damaged as error:
        raise Damaged(f"{path} is not an archive of images, or damaged: {error}") from None


def document_limit(name):
    """How many bytes a JSON document may have that is a member with a name."""
    return INDEX_LIMIT if name in LISTS else DOCUMENT_LIMIT


class Archive(contextlib.AbstractContextManager):
    """An archive that is open for reading: its members, and the JSON in it.

    Raises ImgpullError where it cannot be read, or tar programs would read it in different ways.
    """

    def __init__(self, path, verify=False, unpack=True, reporter=None):
        self.path = archive_name(path)
        self.reporter = reporter or Reporter()
        opened = ArchiveDirectory if os.path.isdir(path) else ArchiveFile
        with archive_errors(self.path):
            self.file = opened(path, self.tick)
            try:
                # {name: Member}, and {name: bytes of JSON}, see scan()
                self.members, self.documents = scan(self.file, verify, unpack)
                self.check_format()
            except BaseException:
                self.file.close()
                raise
            finally:
                self.tick(self.file.size, self.file.size)

    def __exit__(self, *_):
        self.file.close()

    def tick(self, done, total):
        """Tell how much of it has been read."""
        self.reporter.reading(self.path, done, total)

    def check_format(self):
        """Raise Damaged where no runtime takes it for an archive, or docker takes another list."""
        if "manifest.json" in self.members:
            return
        if "repositories" in self.members:
            # Without manifest.json, docker loads what this says, whatever index.json does.
            raise Damaged(
                "it lists its images in docker's old 'repositories' instead of manifest.json"
            )
        if "index.json" not in self.members:
            raise Damaged("it has neither index.json nor manifest.json")

    def document(self, name):
        """The bytes of a JSON document that is a member."""
        member = self.members[name]
        if member.size > document_limit(member.name):
            shown, size = printable(member.name, 90), human(member.size)
            raise Damaged(
                f"{self.path}: {shown} has {size}, which is more than such a file may have"
            )
        if not self.file.is_seekable:
            return self.documents.get(member.name, b"")
        with archive_errors(self.path):
            self.file.seek(member.offset)
            return self.file.exactly(member.size)


# Images: what index.json and manifest.json say, and what is wrong with it.

LAYOUT_VERSION = "1.0.0"  # image-spec image-layout.md
INDEX_TYPES, MANIFEST_TYPES = (OCI_INDEX, DOCKER_LIST), (OCI_MANIFEST, DOCKER_MANIFEST)
# containerd goes by these and does not look whether such a layer is compressed. Docker's types
# for plain layers it does not believe, as they have been wrong too often.
PLAIN_LAYERS = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
)


class Contents(collections.namedtuple("Contents", "images faults absent")):
    """What the documents of an archive say.

    images: list of StoredImage, in the order of index.json and manifest.json
    faults: list of Fault, what is wrong with them
    absent: list of Fault, manifests that an index names and that are not there
    """

    __slots__ = ()


class DockerEntry(collections.namedtuple("DockerEntry", "config tags layers")):
    """An image in docker's manifest.json.

    config: str, name of a member
    tags: list of str
    layers: list of str, names of members, bottom first
    """

    __slots__ = ()


def claimed_digest(name):
    """The digest that a member's name says, "" if none.

    blobs/sha256/HEX in a layout; HEX.json and HEX.tar from docker, skopeo and podman; HEX.tar.gz
    and sha256:HEX from crane.
    """
    match = re.fullmatch(r"(?:blobs/(sha256|sha512)/)?(?:sha256:)?([a-f0-9]+)", name)
    if not match:
        match = re.fullmatch(r"()([a-f0-9]{64})\.(?:json|tar|tar\.gz)", name)
    digest = f"{match.group(1) or 'sha256'}:{match.group(2)}" if match else ""
    return digest if DIGEST.fullmatch(digest) else ""


def names_in(descriptor):
    """The names that a descriptor in index.json gives to what it points to.

    containerd and docker go by the first annotation, skopeo and podman by the second one, where
    only the tag may stand.
    """
    name = descriptor.annotations.get("io.containerd.image.name", "")
    other = descriptor.annotations.get("org.opencontainers.image.ref.name", "")
    if name.endswith(f":{other}"):
        other = ""
    return [each for each in (name, other) if each]


def stored_names(number, descriptor):
    """[StoredName, ...] of the descriptor at a place in index.json."""
    source = descriptor.annotations.get(SOURCE, "")
    source = source if DIGEST.fullmatch(source) else descriptor.digest
    return [
        StoredName(name, number, descriptor.digest, source) for name in names_in(descriptor) or [""]
    ]


def top_descriptors(archive):
    """[Descriptor, ...] in index.json, [] where there is none. Raises Damaged."""
    if "index.json" not in archive.members:
        return []
    what = f"{archive.path}: index.json"
    value = parse_json(archive.document("index.json"), what)
    entries = items(value, "manifests", dict, what, IMAGES_LIMIT)
    return [parse_descriptor(entry, f"an image in {what}") for entry in entries]


def docker_entries(archive):
    """[DockerEntry, ...] in manifest.json, [] where there is none. Raises Damaged."""
    if "manifest.json" not in archive.members:
        return []
    what = f"{archive.path}: manifest.json"
    try:
        value = load_json(archive.document("manifest.json").decode("utf-8"))
    except (ValueError, RecursionError):
        raise Damaged(f"{what} is not JSON") from None
    if not isinstance(value, list):
        raise Damaged(f"{what} is not a list")
    entries = [
        DockerEntry(
            posixpath.normpath(field(entry, "Config", str, what, "")),
            items(entry, "RepoTags", str, what, IMAGES_LIMIT),
            [posixpath.normpath(path) for path in items(entry, "Layers", str, what, LAYERS_LIMIT)],
        )
        for entry in checked_list(value, "the list", dict, what, IMAGES_LIMIT)
    ]
    if sum(len(entry.tags) for entry in entries) > IMAGES_LIMIT:
        raise Damaged(f"{what} has more than {IMAGES_LIMIT} tags")
    if sum(len(entry.layers) for entry in entries) > MEMBERS_LIMIT:
        raise Damaged(f"{what} has more than {MEMBERS_LIMIT} layers")
    return entries


def is_signature_only(descriptor, names, manifest):
    """Whether a descriptor in index.json is there for cosign, and no runtime can run it.

    names: list of StoredName, of the manifest with its digest
    """
    kinds = [COSIGN_KIND + role for role in COSIGN_ROLES.values()]
    return (
        not any(each.name for each in names)
        and descriptor.annotations.get("kind") in kinds
        and has_no_files(manifest)
    )


def last_subject(referrer, referrers):
    """The digest at the end of the chain of what a Referrer refers to.

    referrers: {digest: Referrer}
    """
    # The chain has an end: a manifest cannot hold a digest that depends on its own.
    while referrer.subject in referrers:
        referrer = referrers[referrer.subject]
    return referrer.subject


class ContentsReader:
    """Reads the documents of an Archive, each once, and notes what is wrong with them."""

    def __init__(self, archive):
        self.archive = archive
        self.tops = top_descriptors(archive)
        self.top_digests = {top.digest for top in self.tops}
        self.faults = []
        self.absent = []
        self.manifests = {}  # {digest: Manifest, or None for one that is not there}
        self.configs = {}  # {(offset, digest by its name): (digest, ImageConfig), None if damaged}
        self.referrers = {}  # {digest: Referrer, or None for one that is not there or damaged}
        self.signatures = collections.OrderedDict()  # digests in index.json that are no images
        self.layers = 0  # in all manifests
        notes = [top.annotations.get(OMITTED, "") for top in self.tops]
        # Digests of the layers that may be missing.
        self.omitted = frozenset(digest for note in notes for digest in note.split(","))

    def read(self):
        """The Contents. Raises Damaged on documents that cannot be read."""
        self.check_layout()
        images = self.indexed_images()
        images = self.with_docker_entries(images)
        if not images:
            self.fault("index", "it holds no image")
        unique = collections.OrderedDict.fromkeys
        return Contents(images, list(unique(self.faults)), list(unique(self.absent)))

    def fault(self, code, text):
        """Note a Fault."""
        self.faults.append(Fault(code, text))

    def check_layout(self):
        """Note what is wrong with the file that says which version of the layout this is."""
        if "index.json" not in self.archive.members:
            return
        if "oci-layout" not in self.archive.members:
            # containerd and docker then go by manifest.json.
            if "manifest.json" not in self.archive.members:
                self.fault("index", "it has index.json, but neither oci-layout nor manifest.json")
            return
        what = f"{self.archive.path}: oci-layout"
        value = parse_json(self.archive.document("oci-layout"), what)
        version = field(value, "imageLayoutVersion", str, what, "")
        if version != LAYOUT_VERSION:
            said = f"oci-layout says version {quoted(version, 40)}, not {LAYOUT_VERSION}"
            self.fault("index", said)

    def blob(self, descriptor):
        """The Member of a descriptor, or None."""
        member = self.archive.members.get(descriptor.path)
        if member and member.size != descriptor.size:
            sizes = f"{member.size} bytes, and its descriptor says {descriptor.size}"
            self.fault("size", f"{descriptor.digest} has {sizes}")
        return member

    def manifest(self, descriptor):
        """The Manifest of a descriptor, or None where it is not there or damaged."""
        digest = descriptor.digest
        member = self.blob(descriptor)
        if digest not in self.manifests:
            self.manifests[digest] = self.read_manifest(digest) if member else None
        manifest = self.manifests[digest]
        if member is None:
            platform = f" ({descriptor.platform})" if descriptor.platform else ""
            where = self.faults if digest in self.top_digests else self.absent
            if digest not in self.omitted:
                text = f"the manifest {digest}{printable(platform)} is not there"
                where.append(Fault("missing", text))
        elif manifest:
            self.check_media_type(descriptor, manifest)
        return manifest

    def check_media_type(self, descriptor, manifest):
        """Note a descriptor that says something else than what it leads to.

        containerd believes the media type, and does not look. In an index from a registry, some
        entries have none.
        """
        right, other = INDEX_TYPES, MANIFEST_TYPES
        if not manifest.is_index:
            right, other = other, right
        said, is_top = descriptor.media_type, descriptor.digest in self.top_digests
        if said in other or (is_top and said not in right):
            kind = "an index" if manifest.is_index else "an image's manifest"
            what = f"its descriptor gives it the media type {quoted(said, 90)}"
            self.fault("type", f"{descriptor.digest} is {kind}, and {what}")

    def read_manifest(self, digest):
        """The Manifest with a digest, which is in the archive, or None where it is damaged."""
        what = f"the manifest {digest}"
        try:
            body = self.archive.document(blob_path(digest))
            check_digest(body, digest, what)
            manifest = parse_manifest(body, digest, what)
        except Damaged as error:
            self.fault(code_of(error, "manifest"), str(error))
            return None
        self.layers += len(manifest.layers)
        if self.layers > MEMBERS_LIMIT:
            raise Damaged(f"{self.archive.path} has more than {MEMBERS_LIMIT} layers")
        return manifest._replace(body=b"")

    def config(self, member, expected):
        """(digest, ImageConfig) of a config, or None where it is damaged.

        expected: its digest, "" where that is not known
        """
        key = (member.offset, expected)
        if key not in self.configs:
            self.configs[key] = None
            what = f"the config {printable(member.name, 90)}"
            try:
                body = self.archive.document(member.name)
                if expected:
                    check_digest(body, expected, what)
                self.configs[key] = (expected or digest_of(body), parse_config(body, what))
            except Damaged as error:
                self.fault(code_of(error, "config"), str(error))
        return self.configs[key]

    def indexed_images(self):
        """[StoredImage, ...] of what index.json points to, each manifest once."""
        names = collections.OrderedDict()  # {digest in index.json: (Descriptor, [StoredName])}
        below = collections.OrderedDict()  # {digest: (Descriptor, digests in index.json above it)}
        steps = 0
        for number, top in enumerate(self.tops):
            self.manifest(top)
            names.setdefault(top.digest, (top, []))[1].extend(stored_names(number, top))
        for top, top_names in names.values():
            manifest = self.manifests[top.digest]
            if manifest is None:
                continue
            if is_signature_only(top, top_names, manifest):
                self.signatures[top.digest] = None
                continue
            for descriptor, part in walk(top, manifest, self.manifest, f"the index {top.digest}"):
                steps += 1
                if steps > MEMBERS_LIMIT:
                    raise Damaged(f"{self.archive.path} has more than {MEMBERS_LIMIT} manifests")
                if not part.is_index and not self.is_left_out(part):
                    below.setdefault(descriptor.digest, (descriptor, []))[1].append(top.digest)
        if len(below) > IMAGES_LIMIT:
            raise Damaged(f"{self.archive.path} has more than {IMAGES_LIMIT} images")
        # One list for all images that have the same names: a thousand may have a thousand names.
        joined_names = {}
        images = []
        for descriptor, tops in below.values():
            if tuple(tops) not in joined_names:
                joined_names[tuple(tops)] = [name for top in tops for name in names[top][1]]
            images.append(self.indexed_image(descriptor, joined_names[tuple(tops)]))
        return self.with_referrers(images, [tops for _, tops in below.values()])

    def is_left_out(self, manifest):
        """Whether nothing but the manifest is there of an image of another platform."""
        is_there = manifest.config.path in self.archive.members
        return manifest.descriptor.digest in self.omitted and not is_there

    def with_referrers(self, images, tops):
        """The StoredImages with the referrers that index.json names for them.

        tops: list of lists of the digests in index.json that lead to each image
        """
        digests = collections.defaultdict(collections.OrderedDict)  # {digest in index.json: those}
        for top in self.tops:
            named = top.annotations.get(REFERRERS, "")
            digests[top.digest].update((digest, None) for digest in named.split(",") if digest)
            if top.annotations.get("kind", "").startswith(COSIGN_KIND + "image"):
                # "cosign save" names them in no other way.
                digests[top.digest].update(self.signatures)
            if len(digests[top.digest]) > REFERRERS_LIMIT:
                raise Damaged(f"{self.archive.path} has more than {REFERRERS_LIMIT} referrers")
        own = {image.digest for image in images}
        complete, count = [], 0
        for image, above in zip(images, tops):
            named = collections.OrderedDict.fromkeys(
                digest for top in above for digest in digests[top]
            )
            by_digest = {digest: self.referrer(digest) for digest in named}
            by_digest = {digest: referrer for digest, referrer in by_digest.items() if referrer}
            # In an archive of several platforms, each has what refers to it, or to all of them.
            mine = [
                referrer
                for referrer in by_digest.values()
                if last_subject(referrer, by_digest) not in own - {image.digest}
            ]
            count += len(named)
            if count > MEMBERS_LIMIT:
                raise Damaged(f"{self.archive.path} has more than {MEMBERS_LIMIT} referrers")
            complete.append(image._replace(referrers=mine))
        return complete

    def referrer(self, digest):
        """The Referrer with a digest, or None, noting what is wrong with it."""
        if digest not in self.referrers:
            self.referrers[digest] = self.read_referrer(digest)
        return self.referrers[digest]

    def read_referrer(self, digest):
        """The Referrer with a digest, or None, noting what is wrong with it."""
        members = self.archive.members
        if not DIGEST.fullmatch(digest) or blob_path(digest) not in members:
            self.fault("missing", f"the referrer {quoted(digest, 90)} is not there")
            return None
        manifest = self.manifests.get(digest) or self.read_manifest(digest)
        if manifest is None:
            return None
        self.manifests[digest] = manifest
        for blob in filter(None, [manifest.config] + manifest.layers):
            if self.blob(blob) is None:
                self.fault("missing", f"{blob.digest} of the referrer {digest} is not there")
        subject = manifest.subject
        if subject and subject.path not in members:
            self.fault("missing", f"{digest} refers to {subject.digest}, which is not there")
        return Referrer(subject.digest if subject else "", "", manifest)

    def indexed_image(self, descriptor, names):
        """The StoredImage of the descriptor of a manifest."""
        manifest = self.manifests[descriptor.digest]
        member = self.blob(manifest.config)
        config = None
        if member is None:
            self.fault("missing", f"the config {manifest.config.digest} is not there")
        elif manifest.is_image:
            config = self.judged_config(manifest, member)
        diff_ids = config.diff_ids[: len(manifest.layers)] if config else []
        diff_ids += [""] * (len(manifest.layers) - len(diff_ids))
        layers = [
            Layer(layer.digest, diff_id, layer.media_type, layer.size, self.layer_member(layer))
            for layer, diff_id in zip(manifest.layers, diff_ids)
        ]
        # In an index, runtimes choose by platform, and none has the one of attestations.
        is_unknown = descriptor.platform is not None and descriptor.platform.os == "unknown"
        return StoredImage(
            digest=descriptor.digest,
            image_id=manifest.config.digest,
            platform=config.platform if config else None,
            config=member,
            layers=layers,
            names=names,
            is_listed=descriptor.digest in self.top_digests or not is_unknown,
            referrers=[],
        )

    def judged_config(self, manifest, member):
        """The ImageConfig of a manifest, or None, noting where the two do not go together."""
        config = self.config(member, manifest.config.digest)
        if config is None:
            return None
        try:
            check_layer_count(manifest, config[1], manifest.descriptor.digest)
        except Damaged as error:
            self.fault("config", str(error))
        return config[1]

    def layer_member(self, descriptor):
        """The Member of a layer, or None, noting one that should be there."""
        member = self.blob(descriptor)
        if member is None and descriptor.digest not in self.omitted:
            self.fault("missing", f"the layer {descriptor.digest} is not there")
        return member

    def with_docker_entries(self, images):
        """The images with what manifest.json says: more names, and more images."""
        entries = docker_entries(self.archive)
        if not entries and "manifest.json" in self.archive.members:
            self.fault("index", "manifest.json names no image: docker would load nothing")
        numbers = {}  # {(offset of a config, places of layers): number of the image}
        for number, image in enumerate(images):
            if image.config:
                places = tuple(layer.place for layer in image.layers)
                numbers.setdefault((image.config.offset, places), number)
        in_index = {offset for offset, _ in numbers}
        tags = collections.defaultdict(list)  # {number of an image: its StoredNames here}
        for place, entry in enumerate(entries, len(self.tops)):
            shown = printable(entry.config, 90)
            config = self.archive.members.get(entry.config)
            if config is None:
                self.fault("missing", f"the config that manifest.json names is not there: {shown}")
                continue
            key = (config.offset, self.places(entry.layers))
            if key not in numbers:
                if config.offset in in_index:
                    # docker and podman would load these, and containerd those.
                    self.fault(
                        "index",
                        f"manifest.json gives the config {shown} other layers than index.json does",
                    )
                numbers[key] = len(images)
                images.append(self.docker_image(entry, config))
            digest = images[numbers[key]].digest
            tags[numbers[key]] += [
                StoredName(tag, place, digest, digest) for tag in entry.tags or [""]
            ]
            if images[numbers[key]].platform is None:
                # docker takes it for an image, whatever its config's media type says.
                judged = self.docker_image(entry, config)
                images[numbers[key]] = images[numbers[key]]._replace(
                    platform=judged.platform, layers=judged.layers
                )
        for number, more in tags.items():
            self.check_layer_types(images[number])
            names = collections.OrderedDict()
            for each in images[number].names + more:
                names.setdefault(each.name, each)
            images[number] = images[number]._replace(names=list(names.values()), is_listed=True)
        return images

    def places(self, paths):
        """Where the layers at some paths are, as Layer.place says it."""
        members = self.archive.members
        return tuple(members[path].offset if path in members else path for path in paths)

    def check_layer_types(self, image):
        """Note the layers of a StoredImage whose media type is none of a layer."""
        for layer in image.layers:
            if not is_layer_type(layer.media_type):
                said = quoted(layer.media_type, 90)
                self.fault(
                    "layer",
                    f"the layer {layer.digest} has the media type {said}: containerd cannot "
                    "unpack it",
                )

    def docker_image(self, entry, member):
        """The StoredImage of an entry of manifest.json whose config is a Member."""
        shown = printable(entry.config, 90)
        digest, config = self.config(member, claimed_digest(entry.config)) or ("", None)
        diff_ids = list(config.diff_ids) if config else []
        if config and len(diff_ids) != len(entry.layers):
            knows, has = plural(len(diff_ids), "layer"), len(entry.layers)
            self.fault("config", f"the config {shown} knows {knows}, and manifest.json has {has}")
        diff_ids += [""] * (len(entry.layers) - len(diff_ids))
        layers = []
        for path, diff_id in zip(entry.layers, diff_ids):
            layer = self.archive.members.get(path)
            if layer is None:
                self.fault("missing", f"the layer {printable(path, 90)} is not there")
            layer_digest = claimed_digest(path) or (diff_id if DIGEST.fullmatch(diff_id) else "")
            layers.append(Layer(layer_digest, diff_id, "", layer.size if layer else 0, layer))
        return StoredImage(
            digest=digest,
            image_id=digest,
            platform=config.platform if config else None,
            config=member,
            layers=layers,
            names=[],
            is_listed=True,
            referrers=[],
        )


def code_of(error, code):
    """The code for a document that cannot be used: "digest" where its bytes are not its own."""
    return "digest" if isinstance(error, Mismatch) else code


def check_digest(body, digest, what):
    """Raise Mismatch where bytes do not have the digest that they should have."""
    actual = digest_of(body, digest)
    if actual != digest:
        raise Mismatch(f"{what} is damaged: {mismatch(actual, digest)}")


# Verifying: what the bytes are, against what names, manifests and configs say.


def damaged_members(members, images):
    """{offset: Fault} of the members whose bytes are not what a digest says.

    members: {name: Member}, digested
    images: list of StoredImage
    """
    claims = [(name, member) for name, member in members.items() if name.startswith("blobs/")]
    claims += [(image.config.name, image.config) for image in images if image.config]
    claims = [(claimed_digest(name), member) for name, member in claims]
    for image in images:
        for layer in image.layers:
            # Where only the diff_id is known, the layer may be compressed all the same.
            if layer.member and layer.digest != layer.diff_id:
                claims.append((layer.digest, layer.member))
    return {
        member.offset: Fault("digest", f"{digest} is damaged: {mismatch(member.digest, digest)}")
        for digest, member in claims
        if digest and member.digest != digest
    }


def layer_claims(images):
    """[Layer, ...] of images, whose bytes are there, each once with the same claims about it."""
    claims = collections.OrderedDict()
    for image in images:
        for layer in image.layers:
            if layer.member:
                claims[(layer.member.offset, layer.diff_id, layer.media_type)] = layer
    return list(claims.values())


def layer_fault(layer):
    """What is wrong with a Layer whose digest is right, "" if nothing. A pure function."""
    member = layer.member
    name = layer.digest or printable(member.name, 90)
    if member.compression and layer.media_type in PLAIN_LAYERS:
        return (
            f"the layer {name} is compressed with {member.compression}, and its media type says "
            "that it is not: containerd cannot unpack it"
        )
    if layer.diff_id and member.fault:
        return f"the layer {name} cannot be unpacked: {member.fault}"
    if layer.diff_id and member.diff_id and member.diff_id != layer.diff_id:
        what = mismatch(member.diff_id, printable(layer.diff_id, 140))
        return f"the layer {name} is not what the config says: {what}"
    return ""


def inspect_archive(path, unpack=True, reporter=None):
    """The Check of an archive by itself, with all of its bytes read.

    See check_archive(). Raises ImgpullError where it cannot be read at all.
    """
    with Archive(path, verify=True, unpack=unpack, reporter=reporter) as archive:
        contents = ContentsReader(archive).read()
        members = archive.members
    damaged = damaged_members(members, contents.images)
    claims = [
        layer for layer in layer_claims(contents.images) if layer.member.offset not in damaged
    ]
    unfit = [Fault("layer", text) for text in map(layer_fault, claims) if text]
    faults = contents.faults + list(damaged.values()) + unfit
    unchecked = {
        layer.member.offset
        for layer in claims
        if layer.diff_id and not layer.member.diff_id and not layer.member.fault
    }
    return Check(
        faults=list(collections.OrderedDict.fromkeys(faults)),
        absent=contents.absent,
        images=contents.images,
        size=sum(
            member.size for member in {each.offset: each for each in members.values()}.values()
        ),
        needed=len({layer.digest for image in contents.images for layer in image.left_out}),
        unchecked=len(unchecked),
    )


def held_layers(images):
    """The digests and diff_ids of the layers that are there."""
    layers = [layer for image in images for layer in image.layers if layer.member]
    return {layer.digest for layer in layers} | {layer.diff_id for layer in layers}


def with_bases(check, bases):
    """The Check of an archive together with those that it builds upon. A pure function.

    bases: list of (path, Check)
    """
    if not bases:
        return check
    faults, size, held = list(check.faults), check.size, set()
    for path, base in bases:
        shown = printable(path)
        faults += [fault._replace(text=f"{shown}: {fault.text}") for fault in base.faults]
        size += base.size
        held |= held_layers(base.images)
    needed = collections.OrderedDict(
        (layer.digest, layer) for image in check.images for layer in image.left_out
    )
    missing = [
        digest for digest, layer in needed.items() if not held & ({digest, layer.diff_id} - {""})
    ]
    faults += [Fault("base", f"the layer {digest} is in no --base") for digest in missing]
    return check._replace(faults=faults, size=size, needed=len(missing))


def check_archive(path, base=(), unpack=True, reporter=None):
    """The Check of an archive, together with those that it builds upon.

    path: str, of a file or directory, "-" for standard input
    base: list of paths of the archives that have what a delta leaves out
    unpack: bool, unpack compressed layers to check their diff_ids, too
    reporter: Reporter, who is told how far it is, or None

    Raises ImgpullError where one cannot be read at all.
    """
    check = inspect_archive(path, unpack, reporter)
    return with_bases(check, [(each, inspect_archive(each, unpack, reporter)) for each in base])


def verify_archive(path, base=()):
    """[fault, ...] of an archive, empty where every byte is right: digests, references, diff_ids.

    path: str, of a tar, which may be compressed, or of an OCI layout directory; "-" for stdin
    base: list of paths of the archives that have what a delta leaves out

    Raises ImgpullError where one cannot be read at all.
    """
    check = check_archive(path, base)
    return [fault.text for fault in check.faults + check.absent]


def listed_images(images, path):
    """[ArchiveImage, ...] of StoredImages that a runtime could load, in the order of their names.

    path: str, of the archive. Raises Damaged where there are too many names.
    """
    pairs = []
    for image in images:
        named = [each for each in image.names if each.name] or image.names[:1]
        pairs += [(each, image) for each in named if image.is_listed]
        if len(pairs) > IMAGES_LIMIT:
            shown = archive_name(path)
            raise Damaged(f"{shown} has more than {IMAGES_LIMIT} names for its images")
    pairs.sort(key=lambda pair: pair[0].number)
    return [
        ArchiveImage(
            name=stored.name,
            digest=image.digest,
            source_digest=stored.source_digest if stored.source_digest != image.digest else None,
            target=stored.digest,
            image_id=image.image_id,
            platform=image.platform,
            layers=image.layers,
            referrers=image.referrers,
        )
        for stored, image in pairs
    ]


def list_archive(path, reporter=None):
    """[ArchiveImage, ...] of what an archive holds: all that a runtime could load.

    path: str, of a tar, which may be compressed, or of an OCI layout directory; "-" for stdin
    reporter: Reporter, who is told how far it is, or None

    Nothing but its headers and documents is read. Raises ImgpullError where it is no archive of
    images, or its documents contradict each other.
    """
    with Archive(path, reporter=reporter) as archive:
        contents = ContentsReader(archive).read()
    if contents.faults:
        raise Damaged(f"{archive_name(path)} is damaged: {contents.faults[0].text}")
    return listed_images(contents.images, path)


def blobs_in(archive):
    """{digest: Member} of the blobs in an Archive, as names and documents say: not checked."""
    blobs = {claimed_digest(name): member for name, member in archive.members.items()}
    for image in ContentsReader(archive).read().images:
        for layer in image.layers:
            if layer.member:
                blobs.setdefault(layer.digest, layer.member)
    blobs.pop("", None)
    return blobs


def read_blob(path, digest):
    """The bytes of a blob or manifest in an archive, checked.

    path: str, of a tar, which may be compressed, or of an OCI layout directory
    digest: str

    Raises NotFound where the archive does not have it, and Damaged where its bytes are wrong.
    """
    shown = printable(path)
    with Archive(path) as archive:
        member = blobs_in(archive).get(digest)
        if member is None:
            raise NotFound(f"{shown} does not have {quoted(digest, 90)}")
        source = archive.file.source(member)
    view = memoryview(bytearray(BUFFER))
    with archive_errors(shown):
        body = b"".join(bytes(piece) for piece in source_pieces(source, view))
    check_digest(body, digest, f"{shown}: {digest}")
    return body


# ---- Deltas and reuse: what local archives have, so that it need not be fetched ------------------


def reusable(paths):
    """{digest: Source} of the blobs in archives, for --reuse: they are checked when copied.

    paths: list of str, of files and directories

    Raises ImgpullError where one is no archive of images.
    """
    sources = {}
    for path in paths:
        with Archive(path) as archive:
            for digest, member in blobs_in(archive).items():
                sources.setdefault(digest, archive.file.source(member))
    return sources


class Base(collections.namedtuple("Base", "chains held")):
    """What archives have that a delta may leave out.

    chains: list of lists of diff_ids: the layers of each image, bottom first
    held: frozenset of the digests and diff_ids of their layers
    """

    __slots__ = ()


def read_bases(paths, reporter=None):
    """The Base of archives, whose bytes are checked first; compressed layers are not unpacked.

    paths: list of str, of files and directories
    reporter: Reporter, who is told how far it is, or None

    What an archive leaves out itself counts as there: a delta may build upon a delta. Raises
    ImgpullError where one cannot be used.
    """
    chains, held = [], set()
    for path in paths:
        check = inspect_archive(path, unpack=False, reporter=reporter)
        if check.faults:
            raise Damaged(f"{printable(path)} cannot be used as a base: {check.faults[0].text}")
        for image in check.images:
            chains.append([layer.diff_id for layer in image.layers])
            held.update(layer.digest for layer in image.layers)
            held.update(layer.diff_id for layer in image.layers)
    return Base(chains, frozenset(held - {""}))


def omissible(images, base):
    """The frozenset of the digests of layers that a delta may leave out. A pure function.

    images: list of (Manifest, list of its diff_ids, shorter where they are not known)
    base: Base

    A runtime takes a layer from what it has only on top of the same layers. So an image of the
    base must have it with the same ones below it, wherever it stands in the images.
    """
    stacks = {tuple(chain[:height]) for chain in base.chains for height in range(1, len(chain) + 1)}
    verdicts = {}
    for manifest, diff_ids in images:
        for number, layer in enumerate(manifest.layers):
            stack = tuple(diff_ids[: number + 1])
            is_held = (
                len(stack) == number + 1
                and stack in stacks
                and not base.held.isdisjoint((layer.digest, stack[-1]))
            )
            verdicts[layer.digest] = verdicts.get(layer.digest, True) and is_held
    return frozenset(digest for digest, is_held in verdicts.items() if is_held)


# ---- Part file: the archive as it grows, and what a run that broke off leaves for the next -------

RECORD = struct.Struct("<IQQ")  # a span: number of its layer, start, position
RECORD_SECONDS = 0.02  # how much of a killed download may have gone unrecorded
STATE_LIMIT = 8 << 20  # bytes of a state file that are read
SPANS_LIMIT = 64  # spans of a layer that a state file may claim: each gap costs a request


def write_all(file, data):
    """Write all of data to an unbuffered file, which may take less at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


if hasattr(os, "pwrite"):
    pwrite, pread = os.pwrite, os.pread
else:  # Windows
    SEEKING = threading.Lock()

    def pwrite(descriptor, data, offset):
        with SEEKING:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.write(descriptor, data)

    def pread(descriptor, size, offset):
        with SEEKING:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, size)


def write_at(file, data, offset):
    """Write all of data to an offset of a file that several threads share."""
    view = memoryview(data)
    while view:
        # A closed file raises here. Its bare descriptor might be another file's by now.
        count = pwrite(file.fileno(), view, offset)
        offset += count
        view = view[count:]


def remove(path):
    """Remove a file that may not be there."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


def private_name(path):
    """A name that no other process uses."""
    return f"{path}.{os.getpid()}-{os.urandom(4).hex()}"


def is_own(status):
    """Whether an os.stat_result is of a regular file that nobody else can write to."""
    import stat

    if not stat.S_ISREG(status.st_mode):
        return False
    if not hasattr(os, "geteuid"):  # Windows
        return True
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return status.st_uid == os.geteuid() and status.st_nlink == 1 and not others_write


def open_own(path, create=True):
    """Our own regular file at a path, open for reading and writing, unbuffered.

    In a shared directory, others may have put a symlink, a FIFO or a file of theirs there. What
    is not our own is removed, and a new file made, or None returned where create is false.
    """
    # O_NONBLOCK, or the opening of a FIFO would wait for a writer.
    flags = os.O_RDWR | sum(
        getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
    )
    try:
        descriptor = os.open(path, flags)
        if is_own(os.fstat(descriptor)):
            return open(descriptor, "r+b", buffering=0)
        os.close(descriptor)
        os.remove(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        # ELOOP: a symlink. EACCES: somebody else's. ENXIO: a socket.
        if error.errno not in (errno.ELOOP, errno.EMLINK, errno.EACCES, errno.ENXIO):
            raise
        os.remove(path)
    if not create:
        return None
    return open(os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600), "r+b", buffering=0)


class FileErrors(contextlib.AbstractContextManager):
    """A context in which what the system says of a file of ours becomes a DiskError.

    destination: str, what the messages call the file
    """

    def __init__(self, destination):
        self.destination = destination

    def __exit__(self, kind, error, _):
        if not isinstance(error, OSError) or isinstance(error, BrokenPipeError):
            return
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            text = f"the disk of {self.destination} is full: make room"
        elif error.errno == errno.EFBIG:
            text = (
                f"{self.destination}: its file system, or a limit of this process, does not take "
                "so large a file"
            )
        else:
            text = f"{self.destination} cannot be written: {error.strerror}"
        raise DiskError(text) from None


def lock(file):
    """Lock a file while this process lives; whether locks work there.

    Raises BlockingIOError or PermissionError where another process has the lock.
    """
    try:
        import fcntl
    except ImportError:
        import msvcrt

        # Far behind the data, since on Windows a lock keeps others from reading.
        file.seek(1 << 30)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            raise
        return False  # some network file systems know no locks
    return True


def open_state(path, destination):
    """The state file, locked for this process, or None where locks do not work. Raises Busy."""
    while True:
        file = open_own(path)
        try:
            if not lock(file):
                file.close()
                remove(path)
                return None
            # Its last owner may have removed it between our opening and our locking.
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except FileNotFoundError:
            pass
        except OSError as error:
            file.close()
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                raise
            raise Busy(
                f"another imgpull is writing {destination}: wait for it, or choose another name"
            ) from None
        file.close()


def merged(spans, size):
    """Spans (start, position) of a layer, in order, joined where they meet. A pure function.

    Impossible ones are left out, and the smallest where there are more than SPANS_LIMIT.
    """
    ranges = []
    for start, position in sorted(spans):
        if not 0 <= start < position <= size:
            continue
        if ranges and start <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(position, ranges[-1][1]))
        else:
            ranges.append((start, position))
    largest = sorted(ranges, key=lambda span: span[0] - span[1])[:SPANS_LIMIT]
    return sorted(largest)


def file_mode(path):
    """The permissions for a new file: those of the file that it replaces, else the usual ones."""
    with contextlib.suppress(OSError):
        return os.stat(path).st_mode & 0o777
    # The umask can only be read by setting it. Files of other threads are private meanwhile.
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask


def sync_directory(path):
    """Make a rename last through a power loss, where the system has a way."""
    with contextlib.suppress(OSError):
        directory = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class PartFile(contextlib.AbstractContextManager):
    """<destination>.part, of the archive's full size, and <destination>.part.state beside it.

    A context manager: unless commit() was reached, leaving it keeps what is there for the next
    run, or removes it where nothing is. The state is a JSON line that says what the layers of the
    plan are, then a RECORD for each span. It is a hint, never trusted: the digests decide. Its
    lock is what keeps two pulls from writing one file.

    destination: str, path of the archive
    plan: ArchivePlan
    reporter: Reporter

    Raises DiskError where the destination cannot be written, Busy where it is being written.
    """

    def __init__(self, destination, plan, reporter):
        self.destination = destination
        self.plan = plan
        self.path = destination + ".part"
        self.state_path = destination + ".part.state"
        self.old_path = destination + ".part.old"  # an earlier plan's part file
        self.header = compact(self.described()) + b"\n"
        self.slots = 0  # RECORDs in the state file
        self.spans = {}  # {number of a layer: [(start, position), ...]}, from an earlier run
        self.sources = {}  # {digest: Source}, from an earlier plan's file
        self.file = None  # the part file, shared by all threads
        self.state = None  # the state file
        self.committed = False
        with FileErrors(destination):
            self.state = open_state(self.state_path, destination)
            self.resumable = self.state is not None
            if not self.resumable:
                self.use_private_names(reporter)
            try:
                self.recover()
                self.prepare()
            except BaseException as error:
                self.__exit__(type(error), error, None)
                raise

    def described(self):
        """What the state file says of the plan: JSON that is equal for equal plans."""
        layers = [
            [planned.descriptor.digest, planned.offset, planned.descriptor.size]
            for planned in self.plan.layers
        ]
        return {"imgpull": 2, "size": self.plan.size, "blobs": layers}

    def use_private_names(self, reporter):
        """Where locks do not work, two pulls must not share a file: give this one its own."""
        reporter.warn(
            f"locks do not work on the file system of {self.destination}: if this pull breaks "
            "off, it starts over"
        )
        self.path = private_name(self.path)
        self.state_path = self.path + ".state"
        self.state = open_own(self.state_path)

    def recover(self):
        """Find out what an earlier run has left, and open the part file where it goes on."""
        header, records = self.read_state()
        spans = {}
        for number, start, position in records:
            spans.setdefault(number, []).append((start, position))
        self.file = open_own(self.path, create=False)
        size = os.fstat(self.file.fileno()).st_size if self.file else 0
        if self.file and header == self.header and size == self.plan.size:
            for number, planned in enumerate(self.plan.layers):
                self.spans[number] = merged(spans.get(number, []), planned.descriptor.size)
        elif self.file:
            # The tag has moved on, say: what both plans have in common is copied from the old file.
            self.sources = self.leftovers(header, spans, size)
            self.file.close()
            self.file = None
            if self.sources:
                os.replace(self.path, self.old_path)
                return
            remove(self.path)
        remove(self.old_path)

    def read_state(self):
        """(the JSON line, [(number of a layer, start, position), ...]) of the state file."""
        self.state.seek(0)
        header, newline, records = self.state.read(STATE_LIMIT).partition(b"\n")
        whole = len(records) // RECORD.size * RECORD.size
        return header + newline, list(RECORD.iter_unpack(records[:whole]))

    def leftovers(self, header, spans, whole):
        """{digest: Source} of what an old file has of each of its layers, from the beginning on.

        header: bytes, the JSON line of the old state
        whole: int, bytes of the old file
        """
        sources = {}
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            wanted = {planned.descriptor.digest for planned in self.plan.layers}
            for number, (digest, offset, size) in enumerate(load_json(header.decode())["blobs"]):
                if digest not in wanted or not 0 <= offset <= offset + size <= whole:
                    continue
                for start, position in merged(spans.get(number, []), size)[:1]:
                    if start == 0 and isinstance(offset, int):
                        sources[digest] = Source(self.old_path, offset, position)
        return sources

    def prepare(self):
        """Bring the part file to its full size, and see that the disk has room for it."""
        if self.file is None:
            # Before the file is new, or the state would claim what the new file does not have.
            self.state.truncate(0)
            self.file = open_own(self.path)
        status = os.fstat(self.file.fileno())
        # Count blocks: the file has holes, so its size does not say how much of the disk it takes.
        there = status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size
        missing = self.plan.size - there
        if missing > self.free() and self.sources:
            self.sources = {}
            remove(self.old_path)
        if missing > self.free():
            raise DiskError(
                f"{self.destination} needs {human(missing)}, and its disk has "
                f"{human(self.free())} free: make room, or write it elsewhere"
            )
        self.file.truncate(self.plan.size)
        for offset, literal in self.plan.literals:
            write_at(self.file, literal, offset)

    def free(self):
        """Bytes that the disk has free."""
        import shutil

        return shutil.disk_usage(os.path.dirname(os.path.abspath(self.path))).free

    def begin(self, spans):
        """Write the state file anew; each of the spans, in order, gets the slot of its place.

        In one write, then cut to size: a kill in between leaves no less than there was.

        spans: list of (number of the layer, start, position)
        """
        records = b"".join(RECORD.pack(*span) for span in spans)
        self.slots = len(spans)
        with FileErrors(self.destination):
            write_at(self.state, self.header + records, 0)
            self.state.truncate(len(self.header) + len(records))

    def new_slot(self):
        """The place of a further RECORD in the state file."""
        self.slots += 1
        return self.slots - 1

    def record(self, slot, number, start, position):
        """Note how far a span has come, after its bytes were written."""
        with FileErrors(self.destination):
            place = len(self.header) + slot * RECORD.size
            write_at(self.state, RECORD.pack(number, start, position), place)

    def write(self, offset, data):
        """Put bytes at an offset of the archive."""
        with FileErrors(self.destination):
            write_at(self.file, data, offset)

    def read(self, offset, size):
        """At most size bytes at an offset of the archive. Raises DiskError at the file's end."""
        with FileErrors(self.destination):
            data = pread(self.file.fileno(), size, offset)
        if not data:
            raise DiskError(f"{self.path} was made shorter by another program: start again")
        return data

    def flush(self):
        """Have the disk write what it has got.

        Linux reports a failed write-back once for an open file: whoever ignores it here lets the
        fsync of commit() succeed on a damaged file.
        """
        with FileErrors(self.destination):
            getattr(os, "fdatasync", os.fsync)(self.file.fileno())

    def commit(self):
        """Give the archive its name, for good: every byte of it has been checked."""
        with FileErrors(self.destination):
            os.fsync(self.file.fileno())
            self.check_still_ours()
            if hasattr(os, "fchmod"):
                os.fchmod(self.file.fileno(), file_mode(self.destination))
            else:
                self.file.close()  # Windows renames no open file
            os.replace(self.path, self.destination)
            self.committed = True
        sync_directory(self.destination)

    def check_still_ours(self):
        """Raise DiskError unless the name is still that of the file that was checked.

        A cut file does not get its full size back: the zeros at its end are written only once.
        """
        status = os.fstat(self.file.fileno())
        with contextlib.suppress(FileNotFoundError):
            same = os.path.samestat(status, os.lstat(self.path))
            if same and status.st_size == self.plan.size:
                return
        raise DiskError(
            f"{self.path} was removed, replaced or cut by another program: run the same command "
            "again"
        )

    def is_in_place(self):
        """Whether the destination is the part file."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            status = os.fstat(self.file.fileno())
            return os.path.samestat(status, os.stat(self.destination))
        return False

    def has_spans(self):
        """Whether the state file records anything worth keeping."""
        header, records = self.read_state()
        return header == self.header and any(span[2] > span[1] for span in records)

    def __exit__(self, kind, error, _):
        """Keep or remove what is there. An interruption after the commit has come too late."""
        # Ctrl-C may strike between the rename and the next line.
        self.committed = self.committed or self.is_in_place()
        keep = False
        with contextlib.suppress(OSError, ValueError, struct.error):
            keep = not self.committed and self.resumable and self.has_spans()
        if keep:
            error.kept = True
            self.close()
        else:
            self.discard()
        return self.committed and interrupted(error)

    def close(self):
        """Close the files, and leave them for the next run."""
        for file in filter(None, (self.file, self.state)):
            file.close()

    def discard(self):
        """Remove what there is but for the destination."""
        if self.file:
            self.file.close()
        remove(self.old_path)
        if not self.committed:
            remove(self.path)
        try:
            # Before the lock goes, or another run's state might be what is removed.
            remove(self.state_path)
        except PermissionError:
            self.state.close()  # Windows removes no open file
            remove(self.state_path)
        self.state.close()


# ---- Blobs and download: workers that fetch spans of layers to their place, hashed in order ------

MEMORY = 1 << 20  # bytes for the buffers of all workers
MIN_SPLIT = 8 << 20  # bytes: no span smaller than this is split off a layer
LOOK_SECONDS = 0.05  # between two looks at how the workers are doing
BUSY = 0.9  # of a core: beyond that, this process is the limit and not the network
FLUSH_SECONDS = 0.25

# A layer's life in the part file:
#
#     0             front           position      end          position      size
#     |── hashed ───|── written ────|── to fetch ─|── written ─|── to fetch ─|
#                   | (the hash follows)  span A  |         span B           |
#
# - A gap becomes a span when a worker takes it, and a span is split when another worker is idle.
# - What arrives at the front is hashed at once. What arrives elsewhere is read back and hashed
#   when the front gets there.
# - When the front is at the end, the layer is judged: right, or all of it is a gap once more.


class Span:
    """Bytes of a layer from start to end: the task of one worker.

    start, end: int, offsets in the layer
    slot: int, the place of its RECORD in the state file
    """

    __slots__ = ("start", "position", "end", "slot", "active", "recorded")

    def __init__(self, start, end, slot):
        self.start = start
        self.position = start  # where the next byte goes
        self.end = end
        self.slot = slot
        self.active = False  # whether a worker is at it
        self.recorded = 0.0  # when its RECORD was written, by time.monotonic()


class Blob:
    """A layer on its way into the part file. It owns its spans and its hash.

    number: int, its place in the plan
    planned: PlannedLayer
    part: PartFile
    source: Source to copy its beginning from, or None
    """

    def __init__(self, number, planned, part, source):
        self.number = number
        self.descriptor = planned.descriptor
        self.offset = planned.offset
        self.registry = planned.registry
        self.size = planned.descriptor.size
        self.part = part
        self.source = source
        self.lock = threading.Lock()  # guards the spans' ends, front and hashing
        self.ranged = True  # whether the server does ranges, as far as we know
        self.failures = 0  # how often all of it came and was wrong
        self.fetched = False  # whether anything came over the network
        self.spans = []
        self.hasher = new_hash(self.descriptor.digest)
        self.front = 0  # how far it is hashed, without a gap from its beginning
        self.hashing = False  # whether a worker is hashing

    def add_span(self, start, end, position=None):
        """A new Span of the layer."""
        span = Span(start, end, self.part.new_slot())
        span.position = start if position is None else position
        self.spans.append(span)
        return span

    def resume(self, written):
        """The Spans to fetch where the ones in written, [(start, position), ...], are there."""
        edges = [0]
        for start, position in written:
            self.add_span(start, position, position)
            edges += [start, position]
        edges.append(self.size)
        gaps = [gap for gap in zip(edges[::2], edges[1::2]) if gap[0] < gap[1]]
        # Where nothing is missing, a span without bytes sees to the hashing.
        return [self.add_span(*gap) for gap in gaps or [(self.size, self.size)]]

    def written(self):
        """Bytes that are in place."""
        return sum(span.position - span.start for span in list(self.spans))

    def left(self, span):
        """Bytes of a span that are still to come. Another worker may move its end."""
        with self.lock:
            # Under the lock: a worker that is told 0 here ends, and rejoin() must not give it more.
            span.active = span.position < span.end
            return span.end - span.position

    def largest(self):
        """The running Span with most to come, if that is enough for two, or None."""
        copied = self.source.size if self.source else 0
        running = [span for span in self.spans if span.active and span.position >= copied]
        largest = max(running, key=lambda span: span.end - span.position, default=None)
        if not self.ranged or largest is None:
            return None
        return largest if largest.end - largest.position >= 2 * MIN_SPLIT else None

    def splittable(self):
        """Bytes that the Span which split() would divide has to come, 0 where there is none."""
        largest = self.largest()
        return largest.end - largest.position if largest else 0

    def split(self):
        """A new Span, the later half of the one with most to come, or None."""
        with self.lock:
            largest = self.largest()
            if largest is None:
                return None
            # Its worker may be writing a buffer full behind its position: far from the middle.
            middle = largest.position + (largest.end - largest.position) // 2
            span = self.add_span(middle, largest.end)
            largest.end = middle
            return span

    def rejoin(self, span):
        """Give a span back to the one that it was split off from; whether that is still at it."""
        with self.lock:
            self.ranged = False
            for other in self.spans:
                if other.active and other.end == span.start == span.position:
                    other.end, span.end = span.end, span.start
                    return True
        return False

    def put(self, span, piece):
        """Write what has arrived to its place, and hash it where its turn has come."""
        self.part.write(self.offset + span.position, piece)
        with self.lock:
            its_turn = self.front == span.position and not self.hashing
            self.hashing = self.hashing or its_turn
        # Not under the lock: hashlib lets other threads run, and they need the lock.
        if its_turn:
            self.hasher.update(piece)
            with self.lock:
                self.front += len(piece)
                self.hashing = False
        span.position += len(piece)
        if time.monotonic() - span.recorded > RECORD_SECONDS:
            self.record(span)

    def record(self, span):
        """Note in the state file how far a span has come, unless the layer has started over."""
        with self.lock:
            if span in self.spans:
                self.part.record(span.slot, self.number, span.start, span.position)
        span.recorded = time.monotonic()

    def contiguous(self):
        """How far the layer is written without a gap."""
        limit = self.front
        for span in sorted(self.spans, key=lambda span: span.start):
            if span.start > limit:
                break
            limit = max(limit, span.position)
        return limit

    def follow(self, stopping):
        """Hash what lies written behind the front; whether that was the last of it.

        One worker at a time hashes. True is returned once: that worker has to judge the layer.
        """
        while True:
            with self.lock:
                limit = self.contiguous()
                nothing_to_do = limit == self.front < self.size
                if self.hashing or nothing_to_do:
                    return False
                self.hashing = True
            while self.front < limit:
                if stopping.is_set():
                    raise Stopped("stopped")
                place = self.offset + self.front
                data = self.part.read(place, min(BUFFER, limit - self.front))
                self.hasher.update(data)
                self.front += len(data)
            if self.front == self.size:
                return True  # hashing stays set: nobody else judges it
            self.hashing = False

    def got(self):
        """The digest of a layer that is hashed to its end."""
        return digest_in(self.hasher)

    def start_over(self):
        """Drop all that there is: one Span over the whole layer."""
        with self.lock:
            for span in self.spans:
                self.part.record(span.slot, self.number, 0, 0)
            self.source = None
            self.spans = []
            self.hasher = new_hash(self.descriptor.digest)
            self.front = 0
            self.hashing = False
            return self.add_span(0, self.size)


class Workers:
    """Threads that fetch: as many as help. The first failure of any of them stops them all.

    What they fetch is said by the methods of a subclass:
        take()                the next task, or None where there is none
        complete(task, view)  do it; view is a memoryview to read into
        has_work()            whether one more worker would find something to do
        written()             bytes of the layers that are in place

    transport: Transport
    reporter: Reporter
    """

    def __init__(self, transport, reporter):
        self.transport = transport
        self.reporter = reporter
        self.lock = threading.Lock()  # guards error, and what the subclass says
        self.error = None  # the first failure of any thread
        self.over = threading.Event()
        self.threads = []
        self.buffer = BUFFER  # bytes that a worker reads at once

    def run_workers(self, jobs, first, others=()):
        """Have everything fetched. Raises the first failure: ImgpullError, or what came of Ctrl-C.

        jobs: int, connections at most
        first: int, connections to begin with
        others: threads of start_thread() to wait for as well
        """
        self.buffer = max(16 << 10, min(BUFFER, MEMORY // jobs))
        try:
            self.watch(jobs, first, list(others))
        except BaseException as error:  # Ctrl-C
            self.fail(error)
        finally:
            self.over.set()
            deadline = time.monotonic() + 0.5
            for thread in self.threads:
                # One that waits for a name server may stay behind, and writes no more. Ctrl-C may
                # have come before it started.
                if thread.is_alive():
                    thread.join(max(0, deadline - time.monotonic()))
        if self.error:
            raise self.error

    def watch(self, jobs, first, others):
        """Start workers, more as long as they help, and wait until all are done.

        More connections help while the network is the limit. On two cores over loopback, six
        workers took 1.77 s of CPU for 381 MB over https, and two took 1.22 s: they hinder each
        other where Python itself is the limit.
        """
        workers = [self.start_thread(self.work) for _ in range(first)]
        wall, cpu = time.monotonic(), time.process_time()
        # Not Event.wait: Ctrl-C in the midst of it may leave its lock taken.
        while any(thread.is_alive() for thread in workers + others) and not self.error:
            self.reporter.tick(self.written())
            next(filter(threading.Thread.is_alive, workers + others), workers[0]).join(LOOK_SECONDS)
            now, used = time.monotonic(), time.process_time()
            is_idle = used - cpu < BUSY * (now - wall)
            alive = sum(thread.is_alive() for thread in workers)
            if is_idle and alive < jobs and now - wall >= LOOK_SECONDS and self.has_work():
                workers.append(self.start_thread(self.work))
            wall, cpu = now, used
        self.reporter.tick(self.written())

    def start_thread(self, target):
        """Start a thread, whose failure is everyone's."""

        def guarded():
            try:
                target()
            except BaseException as error:
                self.fail(error)

        thread = threading.Thread(target=guarded, daemon=True)
        self.threads.append(thread)
        thread.start()
        return thread

    def work(self):
        """One worker: do tasks until there are none."""
        view = memoryview(bytearray(self.buffer))
        while True:
            task = self.take()
            if task is None:
                return
            self.complete(task, view)

    def fail(self, error):
        """Remember the first failure, and stop the others."""
        with self.lock:
            # A thread that was left behind must not stop the pull that comes after.
            if self.over.is_set():
                return
            if not isinstance(error, Stopped):
                self.error = self.error or error
        self.transport.stop()


class Download(Workers):
    """The layers of a plan, fetched into a part file by several threads. run() is what to call.

    plan: ArchivePlan
    part: PartFile
    transport: Transport
    reporter: Reporter
    sources: {digest: Source} of layers that are copied from local files
    """

    def __init__(self, plan, part, transport, reporter, sources):
        super().__init__(transport, reporter)
        self.part = part
        self.total = plan.total
        self.blobs = []
        self.pending = []  # (Blob, Span) that nobody has begun, the largest first
        for number, planned in enumerate(plan.layers):
            written = part.spans.get(number, [])
            source = None if written else sources.get(planned.descriptor.digest)
            blob = Blob(number, planned, part, source)
            self.blobs.append(blob)
            self.pending += [(blob, span) for span in blob.resume(written)]
        # The largest first: a large one begun last would keep one worker busy, and the others idle.
        self.pending.sort(key=lambda pair: pair[1].start - pair[1].end)
        self.kept = self.written()  # bytes that an earlier run has left
        self.right = 0  # layers that are complete, with the right digest
        self.flush_error = None  # what the disk said of data that it should have written

    def written(self):
        """Bytes that are in place."""
        return sum(blob.written() for blob in self.blobs)

    def run(self, jobs):
        """Fetch everything over at most so many connections. Raises ImgpullError."""
        self.part.begin(
            [
                (blob.number, span.start, span.position)
                for blob in self.blobs
                for span in sorted(blob.spans, key=lambda span: span.slot)
            ]
        )
        if self.kept:
            kept, total = human(self.kept), human(self.total)
            self.reporter.note(f"resuming: {kept} of {total} already downloaded")
        flusher = self.start_thread(self.flush)
        # A second connection costs a few round trips: there must be more to do than that.
        missing = self.total - self.kept
        useful = max((len(self.pending) + 1) // 2, missing // MIN_SPLIT + 1)
        self.run_workers(jobs, min(jobs, useful, 2))
        # A flush may still be under way, and only it is told what became of the data.
        while flusher.is_alive():
            flusher.join(LOOK_SECONDS)
        if self.flush_error:
            raise self.flush_error
        # That no thread complained is not enough: every layer must have been found right.
        if self.right != len(self.blobs):
            count = f"{self.right} of {plural(len(self.blobs), 'layer')}"
            raise ImgpullError(f"only {count} arrived: run the same command again")

    def flush(self):
        """Have the disk write all along, so that the end does not wait for it."""
        try:
            while not self.over.wait(FLUSH_SECONDS):
                self.part.flush()
        except ImgpullError as error:
            self.flush_error = error
            raise

    def has_work(self):
        """Whether one more worker would find something to do."""
        return bool(self.pending) or any(blob.splittable() for blob in self.blobs)

    def take(self):
        """The next (Blob, Span): one that nobody has begun, else half of the largest; or None."""
        with self.lock:
            if self.transport.stopping.is_set():
                return None
            if self.pending:
                blob, span = self.pending.pop(0)
            else:
                blob = max(self.blobs, key=Blob.splittable, default=None)
                span = blob.split() if blob else None
                if span is None:
                    return None
            span.active = True
            return blob, span

    def complete(self, task, view):
        """Fetch a span, hash as far as can be, and judge the layer if that was the last of it."""
        blob, span = task
        # What an earlier run has left is hashed before anything new comes behind it.
        is_whole = blob.follow(self.transport.stopping)
        try:
            if blob.source and span.start == span.position == 0:
                self.copy(blob, span, view)
            self.fetch(blob, span, view)
        except ImgpullError as error:
            error.layer = blob.descriptor.digest
            raise
        finally:
            blob.record(span)
        is_whole = blob.follow(self.transport.stopping) or is_whole
        if is_whole:
            self.judge(blob)

    def copy(self, blob, span, view):
        """Take what a local file has of a layer. Its bytes are checked like any others."""
        try:
            for piece in source_pieces(blob.source, view):
                if self.transport.stopping.is_set():
                    return
                blob.put(span, piece[: blob.left(span)])
        except OSError as error:
            why = printable(error.strerror or error)
            self.reporter.warn(f"{blob.source.path} cannot be read: {why}")

    def fetch(self, blob, span, view):
        """Get what is missing of a span over the network."""
        # Where the server does not do ranges, the worker of the span before had better go on
        # alone: this one would have to read all that comes before its span.
        from_start = not (span.start and blob.ranged)
        try:
            self.receive(blob, span, view, from_start)
        except RangeRefused as error:
            if from_start:
                raise
            self.reporter.debug(f"{error}; going on without ranges")
            if not blob.rejoin(span):
                self.receive(blob, span, view, True)
        with blob.lock:
            span.active = False

    def receive(self, blob, span, view, from_start):
        """Put the pieces of a span in place as they come."""
        pieces = blob.registry.pieces(
            blob.descriptor, span.position, lambda: blob.left(span), view, from_start
        )
        for piece in pieces:
            blob.fetched = True
            blob.put(span, piece)
            if self.transport.stopping.is_set():
                raise Stopped("stopped")

    def judge(self, blob):
        """A layer is hashed to its end: it is right, or fetched once more, or an error."""
        expected = blob.descriptor.digest
        if blob.got() == expected:
            how = "" if blob.fetched or not blob.size else "already downloaded"
            if blob.source and not blob.fetched:
                how = f"from {blob.source.path}"
            with self.lock:
                self.right += 1
            self.reporter.blob(blob.descriptor, how)
            return
        what = f"{blob.descriptor.short}: {mismatch(blob.got(), expected)}"
        source = blob.source
        span = blob.start_over()
        # A wrong local file says nothing about the registry's copy, which is still tried twice.
        if source is None:
            blob.failures += 1
        if blob.failures > 1:
            error = Damaged(f"{what}, {TWICE}")
            error.layer = expected
            raise error
        place = f" in {source.path}" if source else ""
        self.reporter.warn(f"{what}{place}; downloading it again")
        with self.lock:
            self.pending.append((blob, span))


def checked(pieces, descriptor):
    """Yield the pieces of a whole blob, the last one only if the digest is right.

    So what breaks off or is wrong does not load. Raises Damaged.
    """
    hasher, left = new_hash(descriptor.digest), descriptor.size
    for piece in pieces:
        hasher.update(piece)
        left -= len(piece)
        if not left:
            check_hash(hasher, descriptor)
        yield piece
    if left or not descriptor.size:
        check_hash(hasher, descriptor)


def check_hash(hasher, descriptor):
    """Raise Damaged where a hash object has not seen what the descriptor describes."""
    got = digest_in(hasher)
    if got != descriptor.digest:
        raise Damaged(f"{descriptor.short}: {mismatch(got, descriptor.digest)}")


def is_intact(source, descriptor, view):
    """Whether a local file has a whole blob: what went into a pipe cannot be taken back."""
    hasher = new_hash(descriptor.digest)
    with contextlib.suppress(OSError, ImgpullError):
        for piece in source_pieces(source, view):
            hasher.update(piece)
    return digest_in(hasher) == descriptor.digest


RESIDENT = 48 << 20  # bytes of memory that the whole process may take
LEAST_WINDOW, MOST_WINDOW = 4 << 20, 24 << 20  # bytes that are read ahead
LEAST_CHUNK = 128 << 10  # bytes
LATE = 0.02  # seconds to wait for an answer: less may be the processor's fault, and costs little

# An archive on its way into a pipe:
#
#     ── written ──|── ready ──|── arriving ──|── ready ──|── arriving ──|── to come ──
#                  |<─────────────── Chunks, read ahead ────────────────>|
#
# - Workers take Chunks in the order of the archive, each with a buffer, and wait where there is no
#   buffer. The first Chunk has one: so what the pipe waits for always arrives.
# - One thread hashes and writes what is ready, in order, and gives the buffers back.


class Chunk:
    """A part of a layer that is read ahead.

    planned: PlannedLayer
    start, end: int, offsets in the layer
    buffer: memoryview for it
    """

    __slots__ = ("planned", "start", "end", "buffer", "filled", "is_ready")

    def __init__(self, planned, start, end):
        self.planned = planned
        self.start = start
        self.end = end
        self.buffer = None
        self.filled = 0  # bytes that have arrived
        self.is_ready = False  # whether no more will arrive

    def left(self):
        """Bytes that are still to come."""
        return self.end - self.start - self.filled

    def put(self, piece):
        """Keep a piece that has arrived."""
        self.buffer[self.filled : self.filled + len(piece)] = piece

    def pieces(self):
        """Yield what has arrived, as memoryviews."""
        for start in range(0, self.filled, BUFFER):
            yield self.buffer[start : min(start + BUFFER, self.filled)]


def window(jobs):
    """Bytes to read ahead over so many connections: what this process leaves of RESIDENT.

    Python and this program take 20 to 40 MB: a program that runs as a script keeps its syntax
    tree. The more is read ahead, the less it matters how long answers take.
    """
    try:
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):  # not Linux
        return LEAST_WINDOW
    beside = MEMORY + (1 << 20) + jobs * (48 << 10)  # the workers' buffers and connections
    return max(LEAST_WINDOW, min(RESIDENT - resident - beside, MOST_WINDOW))


def is_one_faster(times, jobs):
    """Whether one long answer is faster than Chunks over several connections. A pure function.

    times: [(seconds until an answer came, seconds until all of it was there), ...] of Chunks
    jobs: int, connections

    In the time that one Chunk takes, several connections get one each, and a connection that does
    not wait for answers gets as many as arrive meanwhile. It matters where answers take long and
    then come fast: at 50 ms and 180 MB/s a connection, Chunks took twice as long.
    """
    waiting = sum(pair[0] for pair in times)
    arriving = sum(pair[1] for pair in times)
    return waiting + arriving > jobs * arriving and waiting > LATE * len(times)


class Stream(Workers):
    """The archive of a plan, written to a pipe in order. run() is what to call.

    Layers are read ahead in Chunks, over several connections. Some are not, but are read when
    their turn has come, from beginning to end: those that a local file has, those whose server
    does not do ranges, and all of them where one connection is allowed, or faster.

    plan: ArchivePlan
    out: binary file
    jobs: int, connections at most
    transport: Transport
    reporter: Reporter
    sources: {digest: Source} of layers that are copied from local files
    """

    def __init__(self, plan, out, jobs, transport, reporter, sources):
        super().__init__(transport, reporter)
        self.plan = plan
        # Not through Python's buffer, whose lock a thread that is stuck in a write would keep:
        # after Ctrl-C, the interpreter needs it to exit.
        self.out = getattr(out, "raw", out)
        self.jobs = jobs
        self.sources = dict(sources)
        self.connections = threading.Semaphore(jobs)
        self.changed = threading.Condition(self.lock)  # guards what follows
        self.ahead = set()  # digests of the layers that are read ahead
        if jobs > 1:
            digests = {planned.descriptor.digest for planned in plan.layers}
            self.ahead = digests.difference(self.sources)
        # A Chunk for each connection, and one that is being written.
        size = window(jobs)
        self.chunk_size = max(LEAST_CHUNK, size // (jobs + 1))
        self.times = collections.deque(maxlen=3 * jobs)  # of full Chunks, for is_one_faster()
        self.to_come = self.cut()  # yields the Chunks that nobody has begun
        self.begun = collections.deque()  # Chunks, in the order of the archive
        self.is_waiting = False  # whether the writing thread waits for a Chunk
        self.received = 0  # bytes of layers
        buffers = min(sum(1 for _ in self.cut()), jobs + 1, size // self.chunk_size)
        self.free = [memoryview(bytearray(self.chunk_size)) for _ in range(buffers)]
        self.is_cut = not buffers  # whether there are no more Chunks to come

    def run(self):
        """Write the whole archive. Raises ImgpullError, OSError."""
        writer = self.start_thread(self.write)
        # The writing thread is busy, too: one worker beside it was the fastest on two cores.
        self.run_workers(self.jobs, 1, [writer])

    def written(self):
        """Bytes of layers that have come."""
        return self.received

    def count(self, size):
        """Count bytes that have come, or less than 0 for those that will come again."""
        with self.changed:
            self.received += size

    # What the workers do:

    def cut(self):
        """Yield the Chunks of all layers that are read ahead, in order."""
        for planned in self.plan.layers:
            size = planned.descriptor.size
            for start in range(0, size, self.chunk_size):
                if planned.descriptor.digest in self.ahead:
                    yield Chunk(planned, start, min(start + self.chunk_size, size))

    def has_work(self):
        """Whether one more worker would help: the pipe waits for data, and there is a buffer."""
        return self.is_waiting and bool(self.free) and not self.is_cut

    def take(self):
        """The next Chunk, as soon as there is a buffer for it; None where there is none."""
        with self.changed:
            while not self.free and not self.is_cut:
                self.pause()
            chunk = next(self.to_come, None)
            if chunk is None:
                self.is_cut = True
                return None
            chunk.buffer = self.free.pop()
            self.begun.append(chunk)
            return chunk

    def pause(self):
        """Wait until something has changed. Raises Stopped."""
        if self.transport.stopping.is_set():
            raise Stopped("stopped")
        self.changed.wait(LOOK_SECONDS)

    def complete(self, chunk, view):
        """Fetch a Chunk. Where that goes wrong for want of ranges, the layer is not read ahead."""
        asked = answered = time.monotonic()
        try:
            for piece in self.arriving(chunk, view, from_start=chunk.start == 0):
                if not chunk.filled:
                    answered = time.monotonic()
                chunk.put(piece)
        except RangeRefused as error:
            self.reporter.debug(f"{error}; going on without ranges")
        with self.changed:
            chunk.is_ready = True
            if chunk.left():
                self.ahead.discard(chunk.planned.descriptor.digest)
            elif chunk.filled == self.chunk_size:
                self.times.append((answered - asked, time.monotonic() - answered))
                self.prefer_one_connection()
            self.changed.notify_all()

    def prefer_one_connection(self):
        """Read no large layer ahead where one connection has turned out to be faster."""
        if len(self.times) < self.times.maxlen or not is_one_faster(self.times, self.jobs):
            return
        for planned in self.plan.layers:
            if planned.descriptor.size > self.chunk_size:
                self.ahead.discard(planned.descriptor.digest)

    def arriving(self, chunk, view, from_start):
        """Yield the bytes of a Chunk as they arrive over one connection."""
        descriptor, registry = chunk.planned.descriptor, chunk.planned.registry
        with self.connections:
            for piece in registry.pieces(descriptor, chunk.start, chunk.left, view, from_start):
                yield piece
                chunk.filled += len(piece)
                self.count(len(piece))

    # What the writing thread does:

    def write(self):
        """Write the archive."""
        view = memoryview(bytearray(self.buffer))
        for (_, literal), planned in zip(self.plan.literals, self.plan.layers):
            write_all(self.out, literal)
            for piece in checked(self.layer(planned, view), planned.descriptor):
                write_all(self.out, piece)
            source = self.sources.get(planned.descriptor.digest)
            self.reporter.blob(planned.descriptor, f"from {source.path}" if source else "")
        write_all(self.out, self.plan.literals[-1][1])

    def layer(self, planned, view):
        """Yield a layer's bytes: what was read ahead, then what was not."""
        position, size = 0, planned.descriptor.size
        while position < size:
            chunk = self.next_ready(planned)
            if chunk is None:
                yield from self.rest(planned, position, view)
                return
            if chunk.start == position:
                yield from chunk.pieces()
                position += chunk.filled
            else:  # it comes again, after one that did not come as a range
                self.count(-chunk.filled)
            with self.changed:
                self.free.append(chunk.buffer)
                self.changed.notify_all()

    def next_ready(self, planned):
        """The next Chunk of a layer, once it is ready; None where no more is read ahead."""
        with self.changed:
            while True:
                chunk = self.begun[0] if self.begun else None
                if chunk and chunk.planned is planned:
                    if chunk.is_ready:
                        self.is_waiting = False
                        return self.begun.popleft()
                elif planned.descriptor.digest not in self.ahead:
                    return None
                self.is_waiting = True
                self.pause()

    def rest(self, planned, position, view):
        """Yield a layer's bytes from a position on: from a local file, or as they arrive."""
        descriptor = planned.descriptor
        source = self.sources.get(descriptor.digest)
        if source and is_intact(source, descriptor, view):
            try:
                for piece in source_pieces(source, view):
                    yield piece
                    self.count(len(piece))
            except OSError as error:
                why = printable(error.strerror or error)
                raise DiskError(f"{source.path} cannot be read: {why}") from None
            return
        self.sources.pop(descriptor.digest, None)
        chunk = Chunk(planned, position, descriptor.size)
        yield from self.arriving(chunk, view, from_start=True)


# ---- Pull: from references to an archive ---------------------------------------------------------


class PulledImage(
    collections.namedtuple(
        "PulledImage", "name digest source_digest image_id platform size layers referrers"
    )
):
    """An image that was pulled.

    name: str, its name in the archive
    digest: str, of the manifest or index that index.json points to
    source_digest: str, of the index that the tag named, where one platform was taken from it; else
        None
    image_id: str, the digest of its config, which "docker images" shows; None for what is no image
    platform: Platform; None for all platforms, and for what is no image
    size: int, bytes of its layers in the archive
    layers: list of Descriptor, each once, bottom first; also those that are left out
    referrers: list of Referrer, those that came along
    """

    __slots__ = ()


class PullResult(
    collections.namedtuple(
        "PullResult", "images destination size fetched omitted seconds failures unchanged"
    )
):
    """What a pull gave.

    images: list of PulledImage
    destination: str, as it was given
    size: int, bytes of the archive
    fetched: int, bytes of configs and layers that came over the network
    omitted: {digest: bytes} of the layers that base left out
    seconds: float
    failures: list of ImgpullError, of the images that keep_going passed over
    unchanged: bool, whether the destination held just this already, and was left alone
    """

    __slots__ = ()


def wanted_platforms(platform):
    """The Platforms to look for, best first: the one asked for, or else what this host runs.

    platform: tuple of one Platform, or None
    """
    if platform:
        return list(platform)
    host = host_platform()
    # Hosts with other systems, macOS say, run linux images in a virtual machine.
    return [host] if host.os == "linux" else [host, host._replace(os="linux")]


def parse_platforms(text):
    """The platforms of an option: "all", a tuple of Platform for "os/arch,…", None for None.

    text: str, Platform or None. Raises UsageError.
    """
    if text is None or text == "all":
        return text
    if isinstance(text, Platform):
        return (text,)
    return tuple(parse_platform(part) for part in text.split(","))


def resolve(registry, manifest, platform, reporter):
    """The Manifest for a platform, through indexes.

    platform: tuple of one Platform, or None for this host's

    Raises NotFound where there is no such entry.
    """
    wanted = wanted_platforms(platform)
    for one in wanted:
        choice = descend(registry, manifest, one)
        if choice is None:
            continue
        if one is not wanted[0] and manifest.is_index:
            reporter.note(f"{registry.named} is not available for {wanted[0]}: taking {one}")
        return choice
    raise not_available(registry, manifest, wanted[0])


def descend(registry, manifest, platform):
    """The Manifest for a Platform below a manifest, or None."""
    for _ in range(INDEX_DEPTH):
        if not manifest.is_index:
            return manifest
        # Entries that say their platform come first: the others cost a request each.
        descriptor = choose(manifest.children, platform)
        if descriptor is None:
            descriptor = choose(undeclared(registry, manifest), platform)
        if descriptor is None:
            return None
        manifest = registry.get(descriptor)
    raise Damaged(f"{registry.named} has indexes within indexes, more than {INDEX_DEPTH} deep")


UNDECLARED_LIMIT = 50  # entries without platform that are asked for


def undeclared(registry, index):
    """Descriptors of the images below entries that say no platform, each with its platform.

    An entry that cannot be read (404, schema 1, a config that is gone) is passed over: another
    one may be what is wanted. A network that fails is not passed over.
    """

    def load(child):
        try:
            return registry.get(child)
        except (NotFound, Damaged) as error:
            registry.transport.reporter.debug(f"passed over: {error}")
            return None

    descriptors = []
    silent = [child for child in index.children if not child.platform and not is_attestation(child)]
    for child in silent[:UNDECLARED_LIMIT]:
        manifest = load(child)
        if manifest is None:
            continue
        for descriptor, below in walk(child, manifest, load, str(registry.named)):
            if descriptor.platform:
                descriptors.append(descriptor)
            elif below.is_image:
                with contextlib.suppress(NotFound, Damaged):
                    config = parse_config(registry.blob(below.config), below.config.digest)
                    descriptors.append(descriptor._replace(platform=config.platform))
    return descriptors


def not_available(registry, index, wanted):
    """The NotFound that says which platforms an image is available for."""
    descriptors = runnable(index.children) + runnable(undeclared(registry, index))
    offered = collections.OrderedDict.fromkeys(str(each.platform) for each in descriptors)
    available = printable(", ".join(offered)) or "no platform at all"
    # A 64-bit host runs these, too, but nobody expects them without having asked.
    other = wanted._replace(architecture=ALSO_RUNS.get(wanted.architecture, ""), variant="")
    also = [name for name in offered if name.startswith(str(other)) and other.architecture]
    hint = f"; --platform {also[0]} would take the 32-bit one" if also else ""
    return NotFound(
        f"{registry.named} is not available for {wanted} (available: {available}): choose with "
        f"--platform{hint}"
    )


def find_image(registry, platform, name, reporter):
    """The ResolvedImage for a registry's reference: all its documents, checked and judged.

    platform: tuple of Platforms, None for this host's, or "all"
    name: str, the image's full name in the archive, or None for its own
    """
    target = registry.get()
    named = parse_reference(name) if name else registry.named
    full = named.name + (f":{named.tag}" if named.tag else f"@{target.descriptor.digest}")
    if not named.tag:
        reporter.note(f"{full} has no name in the archive: give it one with --name")
    top, manifests, offered = choose_manifests(registry, target, platform, reporter)
    if not (offered and offered.is_image):
        offered = None
        kind = printable(top.config.media_type if top.config else "an index", 90)
        reporter.note(
            f"{full} is not a container image but an artifact ({kind}): archived as an OCI "
            "layout, without docker's manifest.json"
        )
    documents, configs = read_documents(registry, manifests, full)
    actual = None
    if offered and not top.is_index:
        actual = configs[offered.descriptor.digest].platform
        if not target.is_index and platform != "all":
            check_platform(full, actual, platform, reporter)
    if registry.reference.digest and top is not target:
        reporter.note(f"{registry.named} is an index: taking {actual}, {top.descriptor.digest}")
    return ResolvedImage(
        registry=registry,
        name=full,
        tag=named.tag,
        descriptor=top.descriptor,
        manifests=manifests,
        configs=configs,
        documents=documents,
        offered=offered,
        platform=actual,
        index=target if top is not target else None,
    )


def choose_manifests(registry, top, platform, reporter):
    """(Manifest for index.json, all Manifests that come along, the one that docker is offered).

    For one platform its manifest is all; for several the index comes along as it is.
    """
    if platform == "all":
        pairs = walk(top.descriptor, top, registry.get, str(registry.named))
        manifests = [manifest for _, manifest in pairs]
    elif platform and len(platform) > 1:
        chosen = [resolve(registry, top, (one,), reporter) for one in platform]
        manifests = [top] + [manifest for manifest in chosen if manifest is not top]
        if not top.is_index:
            raise NotFound(f"{registry.named} is for one platform only, and several were asked for")
    else:
        manifest = resolve(registry, top, platform, reporter)
        return manifest, [manifest], manifest
    # docker has one image a name: this host's platform is offered to it, else the first.
    images = [manifest for manifest in manifests if manifest.is_image]
    offered = images[0] if images else None
    with contextlib.suppress(NotFound):
        host = resolve(registry, top, None, Reporter())
        digests = {image.descriptor.digest for image in images}
        offered = host if host.descriptor.digest in digests else offered
    return top, manifests, offered


def read_documents(registry, manifests, name):
    """({digest: bytes} of all manifests and configs, {digest of a manifest: its ImageConfig}).

    Raises Damaged where a config does not go with its manifest.
    """
    documents, configs = {}, {}
    for manifest in manifests:
        documents[manifest.descriptor.digest] = manifest.body
        if manifest.is_index:
            continue
        body = config_body(registry, manifest, name)
        documents[manifest.config.digest] = body
        if manifest.is_image:
            config = parse_config(body, f"the config of {name}")
            check_layer_count(manifest, config, name)
            configs[manifest.descriptor.digest] = config
    return documents, configs


def config_body(registry, manifest, name):
    """The bytes of a manifest's config, in the size that the manifest says. Raises ImgpullError."""
    body = registry.blob(manifest.config)
    if len(body) != manifest.config.size:
        size, digest = manifest.config.size, manifest.config.digest
        raise Damaged(f"{name}: {digest} has {len(body)} bytes, and its manifest says {size}")
    return body


def with_referrers(image, reporter):
    """The ResolvedImage with all that refers to its manifests, and to the index that it is from.

    Without any, it stays as it is. BuildKit's attestations count as well, which refer to one
    platform's manifest by an annotation in the index. Raises ImgpullError.
    """
    registry = image.registry
    manifests = ([image.index] if image.index else []) + image.manifests
    digests = [manifest.descriptor.digest for manifest in manifests]
    children = [child for manifest in manifests for child in manifest.children]
    attestations = {child.digest: child for child in children if is_attestation(child)}
    subjects = [digest for digest in digests if digest not in attestations]
    referrers = ReferrerSearch(registry, reporter).run(subjects)
    for child in attestations.values():
        subject = child.annotations.get("vnd.docker.reference.digest")
        if subject in digests and child.digest not in digests:
            referrers.append(Referrer(subject, "", registry.get(child)))
    if not referrers:
        reporter.note(f"no signatures or other referrers found for {image.name}")
        return image
    documents = dict(image.documents)
    for manifest in manifests + [referrer.manifest for referrer in referrers]:
        documents[manifest.descriptor.digest] = manifest.body
        if manifest.config:
            documents[manifest.config.digest] = config_body(registry, manifest, image.name)
    image = image._replace(documents=documents, referrers=referrers)
    if signed_descriptor(image)[0].digest != image.descriptor.digest:
        documents.update(other_manifests(image))
    return image


def other_manifests(image):
    """{digest: bytes} of the manifests that the index of a ResolvedImage has for other platforms.

    Where the index is named in index.json, containerd goes through it: with --all-platforms, as
    k3s does, through all of its manifests, and fails where one is not there. It does not look for
    their configs and layers.
    """
    bodies = {}
    for child in image.index.children:
        with contextlib.suppress(NotFound, Damaged):
            manifest = image.registry.get(child)
            if not manifest.is_index:
                bodies[child.digest] = manifest.body
    return bodies


def check_platform(name, actual, wanted, reporter):
    """Judge the platform that the config of an image says, which stands in no index.

    Configs that say none are let pass. Raises NotFound where another one was asked for, and
    warns where none was.
    """
    fits = wanted_platforms(wanted)
    runs = [one for fit in fits for one in acceptable(fit)]
    says_none = not actual.os and not actual.architecture
    if says_none or any(fitness(actual, one) is not None for one in runs):
        return
    text = f"{name} is not available for {fits[0]} (available: {actual})"
    if wanted:
        raise NotFound(text)
    reporter.warn(f"{text}: taking it anyway")


def image_layers(images):
    """[(Manifest, [diff_id of each of its layers]), ...] of ResolvedImages; [] for artifacts."""
    pairs = []
    for image in images:
        for manifest in image.manifests:
            config = image.configs.get(manifest.descriptor.digest)
            if not manifest.is_index:
                pairs.append((manifest, config.diff_ids if config else []))
    return pairs


def base_of_images(images):
    """The Base that images in a registry are: what somebody has who has pulled them."""
    pairs = image_layers(images)
    digests = {layer.digest for manifest, _ in pairs for layer in manifest.layers}
    return Base([diff_ids for _, diff_ids in pairs], frozenset(digests))


def find_omitted(images, base, base_requests, find, transport, reporter):
    """The digests of the layers to leave out, for --base and --base-image.

    base: list of paths of archives
    base_requests: list of ImageRequest
    find, transport: see find_images()
    """
    if not base and not base_requests:
        return frozenset()
    bases = [read_bases(base, reporter)]
    if base_requests:
        bases.append(base_of_images(find_images(base_requests, find, transport)[0]))
    chains = [chain for each in bases for chain in each.chains]
    held = frozenset().union(*(each.held for each in bases))
    omitted = omissible(image_layers(images), Base(chains, held))
    if not omitted:
        wanted = ", ".join(image.name for image in images)
        there = " or ".join(list(base) + [str(one.reference) for one in base_requests])
        reporter.note(f"no layer of {wanted} is in {there}: nothing is left out")
    return omitted


# Options that are for one registry: what they say of one would be sent to another.
FOR_ONE_REGISTRY = (
    ("user", "--user"),
    ("token", "--token"),
    ("cert", "--cert"),
    ("insecure", "--insecure"),
    ("namespace", "--ns"),
)


def check_registries(requests, settings):
    """Raise UsageError where options for one registry are given with images of several."""
    registries = collections.OrderedDict.fromkeys(
        request.reference.registry for request in requests
    )
    given = [option for name, option in FOR_ONE_REGISTRY if getattr(settings, name)]
    if settings.scheme == "http" and any(request.scheme is None for request in requests):
        given.append("--scheme http")
    if len(registries) > 1 and given:
        names = printable(", ".join(registries))
        raise UsageError(
            f"{given[0]} is for one registry, and the images are from several ({names}): log in "
            "to each (docker login, podman login), put certificates into certs.d, write "
            "http://HOST/NAME for a registry without TLS, or pull from one registry at a time"
        )


def in_threads(function, things, count):
    """[function(thing) or the exception that it raised, ...], several at once, in order."""
    results = [None] * len(things)
    numbers = iter(range(len(things)))
    numbers_lock = threading.Lock()

    def work():
        while True:
            with numbers_lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                results[number] = function(things[number])
            except BaseException as error:
                results[number] = error

    if len(things) == 1:
        work()
        return results
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(count, len(things)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        # Not join() alone: Ctrl-C would wait for its end.
        while thread.is_alive():
            thread.join(LOOK_SECONDS)
    return results


def image_finder(settings, platforms, transport, reporter):
    """A function from an ImageRequest to its ResolvedImage; no document is fetched twice."""
    documents = {}

    def find(request):
        own = settings._replace(scheme=request.scheme or settings.scheme)
        registry = Registry(request.reference, own, reporter, transport, documents)
        return find_image(registry, platforms, request.name, reporter)

    return find


def find_images(requests, find, transport, keep_going=False):
    """([ResolvedImage, ...], [ImgpullError, ...]): the images, each once, and what failed.

    requests: list of ImageRequest
    find: function from an ImageRequest to its ResolvedImage
    keep_going: bool, pass over images that cannot be had; else the first failure is raised
    """

    def attempt(request):
        try:
            return find(request)
        except ImgpullError as error:
            if not keep_going:
                transport.stop()
            error.args = (f"{request.place}: {error}",) if request.place else error.args
            raise
        finally:
            ended.append(request)
            tell_look_up(requests, len(ended), transport.reporter)

    ended = []  # the requests that need no more waiting for, well or not
    requests = list(collections.OrderedDict.fromkeys(requests))
    tell_look_up(requests, 0, transport.reporter)
    # Each look-up waits for a few answers, one after the other: more at once than for layers.
    results = in_threads(attempt, requests, transport.idle_limit)
    failures = [error for error in results if isinstance(error, BaseException)]
    serious = [error for error in failures if not isinstance(error, Stopped)]
    if serious and not (keep_going and all(isinstance(each, ImgpullError) for each in serious)):
        raise serious[0]
    images, digests = [], {}
    for request, image in zip(requests, results):
        if isinstance(image, BaseException):
            continue
        digest = digests.setdefault(image.name, image.descriptor.digest)
        if digest != image.descriptor.digest:
            where = f"{request.place}: " if request.place else ""
            raise UsageError(f"{where}{image.name} is the name of another image before it")
        images.append(image)
    if not images:
        raise serious[0]
    return images, failures


def tell_look_up(requests, ended, reporter):
    """Tell how far the look-up of requests (list of ImageRequest) has got."""
    if len(requests) > 1:
        reporter.doing(f"looked up {ended} of {len(requests)} images")
    elif not ended:
        reporter.doing(f"looking up {requests[0].reference}")


def check_destination(destination, base, force):
    """Say what is wrong with a destination before anything is fetched.

    base: list of paths of archives that must not be replaced
    force: bool, whether something that is no archive of images may be

    Returns {digest: Source} of what it holds already. Raises ImgpullError.
    """
    parent = os.path.dirname(destination) or "."
    if destination == "-":
        return {}
    if os.path.isdir(destination) or not os.path.basename(destination):
        example = os.path.join(destination, "image.tar")
        raise DiskError(f"{destination} is a directory: give a file's name, such as {example}")
    if not os.path.isdir(parent):
        more = " (the shell did not expand it: $HOME)" if parent[0] == "~" else ""
        raise DiskError(f"{destination} cannot be written: there is no directory {parent}{more}")
    try:
        os.path.abspath(destination)
    except OSError:
        why = "the working directory is gone"
        raise DiskError(f"{destination} cannot be written: {why}") from None
    if not os.path.exists(destination):
        return {}
    if not os.path.isfile(destination):
        raise DiskError(f"{destination} is not a regular file; for a pipe write - and redirect it")
    if any(os.path.exists(path) and os.path.samefile(path, destination) for path in base):
        raise UsageError(f"{destination} is the base: the delta needs another name")
    return held_by(destination, force)


def held_by(destination, force):
    """{digest: Source} of what a file holds. Raises DiskError where it is no archive of images."""
    if force or not os.path.getsize(destination):
        return {}
    try:
        return reusable([destination])
    except ImgpullError as error:
        raise DiskError(f"{error}: --force overwrites it, or choose another name") from None


def is_up_to_date(plan, path, reporter):
    """Whether a file is, byte for byte, the archive of a plan."""
    try:
        if os.path.getsize(path) != plan.size:
            return False
        with open(path, "rb", buffering=0) as file:
            for offset, literal in plan.literals:
                file.seek(offset)
                if file.read(len(literal)) != literal:
                    return False
        reporter.doing(f"checking whether {path} is up to date")
        view = memoryview(bytearray(BUFFER))
        for planned in plan.layers:
            source = Source(path, planned.offset, planned.descriptor.size)
            if not is_intact(source, planned.descriptor, view):
                return False
    except OSError:
        return False
    return True


def pull(
    references,
    destination,
    platform=None,
    name=None,
    jobs=6,
    base=(),
    base_images=(),
    reuse=(),
    force=False,
    keep_going=False,
    reporter=None,
    referrers=False,
    **connection,
):
    """Pull one or several images into one archive, and return a PullResult.

    references: str, or list of str or ImageRequest; "http://HOST/NAME" is for a registry without
        TLS
    destination: path of the tar, or "-" for standard output
    platform: "os/arch[/variant][,…]", Platform, "all", or None for this host's
    name: str, the image's name in the archive, or None for the reference's own
    jobs: int, connections at most
    base: list of paths of archives whose layers are left out
    base_images: list of references of images whose layers are left out
    reuse: list of paths of archives whose blobs are copied instead of fetched
    force: bool, overwrite a destination that is no archive of images
    keep_going: bool, pass over images that cannot be had, and tell them in the result
    reporter: Reporter, who is told how it goes, or None
    referrers: bool, whether signatures, SBOMs and whatever else refers to the images come along
    connection: the fields of Settings, such as scheme, insecure, user and password

    Every byte is checked before the destination appears; a failed pull leaves it as it was, and
    keeps what it has fetched for the next run. Raises ImgpullError.
    """
    begun = time.monotonic()
    references = [references] if isinstance(references, str) else list(references)
    destination = os.fspath(destination)
    reporter = reporter or Reporter()
    settings = Settings(**connection)
    platforms = parse_platforms(platform)
    check_arguments(references, name, settings, jobs)
    requests = [
        one if isinstance(one, ImageRequest) else parse_request(one, name) for one in references
    ]
    base_requests = [parse_request(one) for one in base_images]
    check_registries(requests + base_requests, settings)
    sources = check_destination(destination, base, force)
    if reuse:
        reporter.doing(f"reading {' and '.join(reuse)}")
    sources.update(reusable(reuse))
    transport = Transport(settings, reporter, jobs)
    find = image_finder(settings, platforms, transport, reporter)

    def find_wanted(request):
        image = find(request)
        return with_referrers(image, reporter) if referrers else image

    def write(plan, pulled):
        if reuse and not any(planned.descriptor.digest in sources for planned in plan.layers):
            reporter.note(f"no layer is in {' or '.join(reuse)}: all are downloaded")
        return write_archive(plan, pulled, destination, jobs, transport, reporter, sources)

    try:
        images, failures = find_images(requests, find_wanted, transport, keep_going)
        omit = find_omitted(images, base, base_requests, find, transport, reporter)
        # What went into a pipe cannot be taken back.
        may_drop = keep_going and destination != "-"
        plan, pulled, unchanged = archive_images(
            images, omit, write, failures if may_drop else None
        )
    finally:
        reporter.finish()
        transport.close()
    return PullResult(
        images=pulled,
        destination=destination,
        size=plan.size,
        fetched=transport.fetched,
        omitted=plan.omitted,
        seconds=time.monotonic() - begun,
        failures=failures,
        unchanged=unchanged,
    )


def archive_images(images, omit, write, failures):
    """(ArchivePlan, [PulledImage, ...], whether it was there already) of an archive, written.

    omit: set of the digests of layers to leave out
    write: function from an ArchivePlan and its PulledImages to whether all was there already
    failures: list to add what went wrong to, and to leave out images that cannot be had; or None
    """
    while True:
        plan = plan_archive(images, omit)
        pulled = [pulled_image(image, plan.omitted) for image in images]
        try:
            return plan, pulled, write(plan, pulled)
        except (NotFound, NoAccess, Damaged) as error:
            rest = without_layer(images, error.layer)
            if failures is None or not rest or len(rest) == len(images):
                raise
            failures.append(error)
            images = rest


def without_layer(images, digest):
    """Those ResolvedImages that do not need a layer, which cannot be had."""

    def needs(image):
        manifests = image.manifests + [referrer.manifest for referrer in image.referrers]
        return any(layer.digest == digest for each in manifests for layer in each.layers)

    return [image for image in images if not needs(image)]


def pulled_image(image, omitted):
    """The PulledImage for a ResolvedImage.

    omitted: {digest: size} of the layers that are left out
    """
    layers = collections.OrderedDict(
        (layer.digest, layer) for manifest in image.manifests for layer in manifest.layers
    )
    return PulledImage(
        name=image.name,
        digest=image.descriptor.digest,
        source_digest=image.index.descriptor.digest if image.index else None,
        image_id=image.offered.config.digest if image.offered else None,
        platform=image.platform,
        size=sum(layer.size for layer in layers.values() if layer.digest not in omitted),
        layers=list(layers.values()),
        referrers=list(image.referrers),
    )


def check_arguments(references, name, settings, jobs):
    """Raise UsageError on arguments of pull() that make no sense."""
    if not references:
        raise UsageError("there is no image to pull")
    if name and len(references) != 1:
        raise UsageError("one name in the archive is for one image")
    if settings.scheme not in (None, "http", "https") or jobs < 1:
        raise UsageError(
            f"scheme must be http or https, and jobs above 0, not {settings.scheme!r} and {jobs!r}"
        )


def write_archive(plan, pulled, destination, jobs, transport, reporter, sources):
    """Write the archive of a plan; whether the destination held just this already.

    pulled: list of PulledImage, what the reporter is told of
    destination: path, or "-" for standard output
    """
    layers = [planned.descriptor for planned in plan.layers]
    transport.start_over()
    if destination == "-":
        reporter.start(layers, plan.total, pulled)
        with FileErrors("standard output"):
            Stream(plan, sys.stdout.buffer, jobs, transport, reporter, sources).run()
        return False
    if is_up_to_date(plan, destination, reporter):
        return True
    reporter.start(layers, plan.total, pulled)
    # Through a symlink: the link stays, and what it points to is replaced.
    path = os.path.realpath(destination)
    with PartFile(path, plan, reporter) as part:
        Download(plan, part, transport, reporter, dict(part.sources, **sources)).run(jobs)
        part.commit()
    return False


def pull_blobs(reference, directory, platform=None, reporter=None, **connection):
    """Pull the config and layers of one image into a directory, each into a file of its own.

    reference: str; directory: path of a directory that is there; platform, reporter and
    connection: as for pull()

    Returns [path, ...]: the config's, then the layers', bottom first; each file is named by the
    digits of its digest. A file has its name once its bytes are checked. Raises ImgpullError.
    """
    scheme, parsed = parse_source(reference)
    settings = Settings(**connection)
    registry = Registry(parsed, settings._replace(scheme=scheme or settings.scheme), reporter)
    wanted = parse_platforms(platform)
    if wanted == "all" or wanted and len(wanted) > 1:
        raise UsageError("the blobs of one platform can be pulled at a time")
    paths = []
    try:
        manifest = resolve(registry, registry.get(), wanted, reporter or Reporter())
        for descriptor in [manifest.config] + manifest.layers:
            path = os.path.join(directory, descriptor.digest.partition(":")[2])
            paths.append(path)
            write_blob(registry, descriptor, path)
    finally:
        registry.transport.close()
    return paths


def write_blob(registry, descriptor, path):
    """Write a blob to a file, which gets its name once its bytes are checked."""
    # A name of our own: another pull may write the same blob at the same time.
    part = private_name(path + ".part")
    view = memoryview(bytearray(BUFFER))
    try:
        with FileErrors(path), open_own(part) as file:
            for piece in checked(registry.whole(descriptor, view), descriptor):
                write_all(file, piece)
            if hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), file_mode(path))
        os.replace(part, path)
    finally:
        remove(part)


# ---- Progress: what a person at the terminal sees ------------------------------------------------

DRAW_SECONDS = 0.1  # between two drawings of the live line
PLAIN_SECONDS = 10  # between two lines of progress where there is no terminal
BAR_WIDTH = 40  # columns of the bar at most
ARCHIVE_WIDTH = 24  # columns of an archive's name: the end of a path tells more
LEAST_BAR = 8  # columns: a smaller bar says nothing


def clock(seconds):
    """Seconds in words: 42s, 3m05s, 2h07m."""
    minutes, seconds = divmod(int(min(seconds, 359999)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"


class Terminal(Reporter):
    """Tells on standard error how a pull goes: on a terminal with a live line below.

    quiet: bool, whether only warnings and errors are told
    debugging: bool, whether requests are told
    """

    def __init__(self, quiet, debugging):
        self.stream = sys.stderr
        self.quiet = quiet
        self.debugging = debugging
        self.live = not quiet and self.stream.isatty() and os.environ.get("TERM") != "dumb"
        coloured = self.live and not os.environ.get("NO_COLOR")
        self.bold, self.plain = ("\033[1m", "\033[0m") if coloured else ("", "")
        encoding = (getattr(self.stream, "encoding", None) or "ascii").lower().replace("-", "")
        self.is_ascii = encoding != "utf8"
        self.full, self.empty = "#." if self.is_ascii else "█░"
        self.lock = threading.RLock()  # guards the stream and what is shown on it
        self.shown = ""  # the live line
        self.running = False  # between start() and finish()
        self.archive = ""  # name of the local archive that is read
        self.total = 0  # bytes to come
        self.layers = 0  # layers to come
        self.done = 0  # layers that are complete
        self.images = []  # a set for each image: the digests of its layers that are to come
        self.begun = 0.0  # when the download began
        self.drawn = 0.0  # when progress was shown
        self.kept = None  # bytes that were there at the first tick: they do not count as speed
        self.retrying = ""  # words about a retry, shown in the live line until retry_at
        self.retry_at = 0.0  # when the retry begins, by time.monotonic()

    def write(self, text):
        """Write to the stream, whatever has become of it."""
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(text.replace("…", "...") if self.is_ascii else text)
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
        # Noted first, so that Ctrl-C in between does not leave it on the screen.
        self.shown = text
        self.write(f"\r{text}\033[K")

    def note(self, text):
        if not self.quiet:
            self.line(f"imgpull: {printable(text, 1000)}")

    def warn(self, text):
        # Also with -q: another platform than asked, or no verification, is not for hiding.
        self.line(f"imgpull: warning: {printable(text, 1000)}")

    def doing(self, text):
        with self.lock:
            self.erase()
            if self.live and text:
                self.show(printable(text, 1000)[: self.width() - 1])

    def retry(self, failure, delay, number, limit):
        if not self.live:
            super().retry(failure, delay, number, limit)
            return
        # What counts most comes first, since a narrow terminal cuts the end.
        text = f"retry {number} of {limit} in {delay:.1f} s: {failure}"
        with self.lock:
            self.retrying, self.retry_at = printable(text, 1000), time.monotonic() + delay
            if not self.running:
                self.doing(text)

    def debug(self, text):
        if self.debugging:
            self.line(f"imgpull: debug: {printable(text, 1000)}")

    def start(self, layers, total, images):
        self.total, self.layers, self.done = total, len(layers), 0
        digests = {layer.digest for layer in layers}
        self.images = [
            digests.intersection(each.digest for each in image.layers) for image in images
        ]
        self.begun = self.drawn = time.monotonic()
        self.kept, self.running, self.archive = None, True, ""

    def blob(self, descriptor, how):
        with self.lock:
            self.done += 1
            for digests in self.images:
                digests.discard(descriptor.digest)
            if not self.quiet:
                origin = f"  {how}" if how else ""
                self.line(f"{descriptor.short}  {human(descriptor.size):>9}{origin}")

    def tick(self, done):
        now = time.monotonic()
        if self.kept is None:
            self.kept = done
        wait = DRAW_SECONDS if self.live else PLAIN_SECONDS
        if self.quiet or not self.running or now - self.drawn < wait:
            return
        self.drawn = now
        seconds = now - self.begun
        rate = (done - self.kept) / seconds if seconds > 0 else 0
        with self.lock:
            if self.live:
                self.show(self.progress(done, rate, self.width()))
            else:
                self.line(f"imgpull: {', '.join(self.parts(done, rate))}")

    def reading(self, name, done, total):
        if not self.running or name != self.archive:
            self.start([], total, [])
            self.archive = name
        self.tick(done)
        if done == total:
            self.finish()

    def width(self):
        """Columns of the terminal, as it is now."""
        with contextlib.suppress(OSError, ValueError):
            return os.get_terminal_size(self.stream.fileno()).columns or 80
        return 80

    def share(self, done):
        """How much of it all so many bytes are, "" where nobody knows how much there is."""
        return f"{done / self.total:4.0%}" if self.total else ""

    def parts(self, done, rate):
        """What there is to say of the progress, the most important first.

        done: int, bytes; rate: float, bytes a second
        """
        left = self.total - done
        remaining = f"{clock(left / rate)} left" if rate > 0 and self.total else ""
        whole = sum(not digests for digests in self.images)
        several = len(self.images) > 1
        parts = [
            self.share(done),
            f"{human(done)} of {human(self.total)}" if self.total else human(done),
            remaining,
            printable(self.archive)[-ARCHIVE_WIDTH:],
            f"{whole} of {len(self.images)} images" if several else "",
            f"{human(rate)}/s",
            f"{self.done} of {plural(self.layers, 'layer')}" if self.layers else "",
        ]
        return [part for part in parts if part]

    def progress(self, done, rate, width):
        """The progress in a line of less than width columns, with a bar where there is room."""
        if time.monotonic() < self.retry_at:
            return f"{self.share(done)}  {self.retrying}"[: width - 1]
        parts = self.parts(done, rate)
        while len(parts) > 1 and len("  ".join(parts)) > width - 1:
            parts.pop()
        text = "  ".join(parts)[: width - 1]
        room = min(width - len(text) - 2, BAR_WIDTH)
        if room < LEAST_BAR or not self.total:
            return text
        full = int(room * done / self.total)
        bar = self.full * full + self.empty * (room - full)
        return f"{self.bold}{bar}{self.plain} {text}"

    def finish(self):
        with self.lock:
            self.running = False
            self.erase()


# ---- Command line, archives: what --list-tar and --verify print ----------------------------------


SCHEMA = 1  # of the documents that --json prints; grows when a key changes its meaning


def image_document(image, layers):
    """An image as --json prints it.

    image: PulledImage or ArchiveImage
    layers: list of (digest, bytes, whether it is left out)
    """
    return {
        "name": image.name,
        "digest": image.digest,
        "source_digest": image.source_digest,
        "image_id": image.image_id,
        "platform": str(image.platform) if image.platform else None,
        "size": image.size,
        "layers": [
            {"digest": digest, "size": size, "omitted": omitted} for digest, size, omitted in layers
        ],
        "referrers": [
            {
                "digest": referrer.digest,
                "subject": referrer.subject or None,
                "kind": referrer.kind,
                "artifact_type": referrer.artifact_type,
                "size": referrer.size,
            }
            for referrer in image.referrers
        ],
    }


def say(text, out=None):
    """Print a line on stdout, or another stream. What its encoding lacks is escaped."""
    out = out or sys.stdout
    encoding = out.encoding or "ascii"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=out)


class Report(collections.namedtuple("Report", "path images faults check seconds error")):
    """What --list-tar or --verify found out about an archive.

    path: str
    images: list of ArchiveImage
    faults: list of Fault
    check: Check; None for --list-tar, and where it cannot be read at all
    seconds: float, how long it took
    error: ImgpullError, why it cannot be read at all, or None
    """

    __slots__ = ()

    @property
    def exit_code(self):
        if self.error:
            return self.error.exit_code
        return Damaged.exit_code if self.faults else 0


def examine(path, bases, reporter):
    """The Report of an archive.

    bases: list of (path, Check) of what it builds upon, None to list it only
    """
    begun = time.monotonic()
    images, faults, check, error = [], [], None, None
    try:
        if bases is None:
            images = list_archive(path, reporter)
        else:
            check = with_bases(inspect_archive(path, reporter=reporter), bases)
            images = listed_images(check.images, path)
            faults = check.faults + check.absent
    except ImgpullError as failure:
        error, faults = failure, [Fault("archive", str(failure))]
    return Report(path, images, faults, check, time.monotonic() - begun, error)


def run_archives(options, reporter):
    """List or verify archives, and print what came of it; the exit status. Raises ImgpullError.

    One that cannot be read does not keep the others from being examined.
    """
    bases = None
    if options.verify:
        bases = [(path, inspect_archive(path, reporter=reporter)) for path in options.base]
    reports = []
    for path in options.archives:
        report = examine(path, bases, reporter)
        reports.append(report)
        if report.error:
            reporter.line(f"imgpull: error: {printable(report.error, 1000)}")
        elif not options.json:
            show_report(report, options, is_first=len(reports) == 1)
    if options.json:
        documents = [report_document(report) for report in reports]
        print(json.dumps({"schema": SCHEMA, "archives": documents}, indent=2))
    return next((report.exit_code for report in reports if report.exit_code), 0)


def report_document(report):
    """A Report as --json prints it; the README says what each key means."""
    document = {
        "archive": report.path,
        "images": [stored_document(image) for image in report.images],
        "faults": [{"code": fault.code, "text": fault.text} for fault in report.faults],
        "seconds": round(report.seconds, 3),
    }
    if report.check:
        document.update(
            checked=report.check.size,
            needed=report.check.needed,
            unchecked=report.check.unchecked,
        )
    return document


def stored_document(image):
    """An ArchiveImage as --json prints it."""
    document = image_document(
        image, [(layer.digest, layer.size, layer.member is None) for layer in image.layers]
    )
    for shown, layer in zip(document["layers"], image.layers):
        shown["diff_id"] = layer.diff_id or None
    return document


def show_report(report, options, is_first):
    """Print a Report for people, or with --quiet what a pull with --quiet prints."""
    for fault in report.faults:
        say(f"{archive_name(report.path)}: bad: {printable(fault.text, 400)}")
    if report.faults:
        return
    if options.quiet:
        show_names(report.images)
    elif report.check:
        show_check(report)
    else:
        if not is_first:
            say("")
        if len(options.archives) > 1:
            say(f"{archive_name(report.path)}:")
        show_images(report.images)


def show_names(images):
    """Print NAME@DIGEST of each name, just as the pull of these images does."""
    lines = [f"{image.name.partition('@')[0]}@{image.target}" for image in images]
    for line in collections.OrderedDict.fromkeys(lines):
        say(printable(line, 1000))


def identity(image):
    """[(label, digest), ...] of an ArchiveImage: by what the two sides can tell that it is one."""
    digests = []
    if image.source_digest:
        digests.append(("index", f"{image.source_digest} (what the tag named)"))
    if image.digest != image.image_id:
        digests.append(("manifest", image.digest))
    return digests + [("image ID", image.image_id)]


def show_images(images):
    """Print what an archive holds.

    images: list of ArchiveImage
    """
    for number, image in enumerate(images):
        if number:
            say("")
        say(printable(image.name) or "(no name)")
        for label, digest in identity(image):
            say(f"  {label:<9} {digest}")
        say(f"  platform  {printable(image.platform) if image.platform else 'none'}")
        left_out = ""
        if image.omitted:
            left_out = f" ({len(image.omitted)} left out, {human(image.saved)} saved)"
        say(f"  layers    {len(image.layers)}, {human(image.size)}{left_out}")
        for layer in image.layers:
            shown = printable(layer.digest, 140) or "(unnamed)"
            say(f"    {shown}  {human(layer.size):>9}{'' if layer.member else '  left out'}")
        if image.referrers:
            say(f"  referrers {len(image.referrers)}")
        for referrer in image.referrers:
            is_other = referrer.subject not in ("", image.digest)
            about = f" of {referrer.subject[:19]}" if is_other else ""
            artifact_type = printable(referrer.artifact_type, 90) or "no type"
            facts = f"{referrer.kind}{about}, {human(referrer.size)}, {artifact_type}"
            say(f"    {referrer.digest}  {facts}")


def show_check(report):
    """Print what verifying a good archive found, each line with the archive's name."""
    check, shown = report.check, archive_name(report.path)
    count = plural(sum(image.is_listed for image in check.images), "image")
    more = ""
    if check.referrers:
        more += (
            f" (also the bytes of {plural(check.referrers, 'referrer')}; signatures are not "
            "verified: unpack it, and run cosign verify --key KEY --local-image DIR)"
        )
    if check.needed:
        more += (
            f" (it counts on {plural(check.needed, 'layer')} that the other side must have: check "
            "it together with --base)"
        )
    if check.unchecked:
        more += (
            f" ({plural(check.unchecked, 'layer')} not unpacked, since this Python cannot: digests "
            "checked)"
        )
    say(f"{shown}: good: {count}, {human(check.size)} checked{more}")
    for image in report.images:
        platform = f" {printable(image.platform)}" if image.platform else ""
        say(f"{shown}: {printable(image.name) or '(no name)'}{platform}")
        for label, digest in identity(image):
            say(f"{shown}:   {label:<9} {digest}")


# ---- Command line: options, what each of them does, and how a failure is told --------------------

USAGE = "imgpull [OPTION ...] REF [REF ...] TAR"
EPILOG = """examples:
  imgpull alpine alpine.tar                                pull, for this host's platform
  imgpull --platform linux/arm64 quay.io/curl/curl:8.10.1 - | ssh host docker load
  imgpull --verify alpine.tar                              on the far side: is every byte right?

exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found or no access, 4 network (try again),
  5 damaged bytes, 6 the disk, 7 another imgpull writes the same file, 130 interrupted"""


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line that do not repeat what may be a password."""

    def error(self, message):
        message = re.sub("^(ambiguous option: --?[a-z-]+)=.*? could", r"\1 could", message)
        message = re.sub("expected one argument$", r"\g<0>, right behind the option", message)
        self.exit(2, f"imgpull: error: {printable(message)} (imgpull --help shows the options)\n")


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
        return f"{', '.join(action.option_strings)} {action.metavar or action.dest.upper()}"


class Once(argparse.Action):
    """An option that nobody means to give twice."""

    def __call__(self, parser, namespace, values, option_string=None):
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option_string} is given twice")
        setattr(namespace, self.dest, values)


def at_least(kind, least, above=False):
    """An argparse type: a number of a kind (int, float) that is not too small."""

    def parse(text):
        with contextlib.suppress(ValueError):
            value = kind(text)
            if least <= value < 1e6 and not (above and value == least):
                return value
        bound = f"above {least}" if above else f"of {least} or more"
        raise argparse.ArgumentTypeError(f"a number {bound} is wanted, not {quoted(text)}")

    return parse


def make_parser():
    """The command line, in groups."""
    parser = Parser(
        "imgpull",
        usage=USAGE,
        formatter_class=Help,
        add_help=False,
        epilog=EPILOG,
        description="Pull the images REF into one TAR that every runtime loads. TAR may be - for "
        "stdout.",
    )
    parser.add_argument("args", nargs="*", help=argparse.SUPPRESS)
    add_what(parser.add_argument_group("what"))
    add_registry(parser.add_argument_group("registry"))
    add_other(parser.add_argument_group("other"))
    return parser


def add_what(group):
    """The options on what is pulled, listed or verified."""
    add = group.add_argument
    add(
        "--platform",
        action=Once,
        metavar="P",
        help="os/arch[/variant][,...], or all; default: this host's",
    )
    add("-o", "--os", help="operating system, such as linux")
    add("-a", "--arch", help="architecture, such as amd64 or arm64")
    add("-n", "--ns", metavar="HOST", help="REF's registry is a mirror of this one")
    add("--name", metavar="REF", help="the name of the one image in the tar")
    repeatable = {"action": "append", "default": []}
    add(
        "--from",
        dest="lists",
        metavar="FILE",
        help="more REFs, one a line, with a NAME if wanted (- for stdin; repeatable)",
        **repeatable,
    )
    add("--keep-going", action="store_true", help="archive the rest if some fail (exit code 1)")
    add("--base", metavar="TAR", help="leave out what TAR holds (repeatable)", **repeatable)
    add("--base-image", metavar="REF", help="leave out what REF has (repeatable)", **repeatable)
    add("--reuse", metavar="TAR", help="copy from TAR, not the network (repeatable)", **repeatable)
    add("--referrers", action="store_true", help="signatures, SBOMs and provenance come along")
    add("--force", action="store_true", help="overwrite a file that is not an archive")
    add(
        "-m",
        "--manifest",
        choices=("list", "image"),
        metavar="list|image",
        help="print a manifest of REF instead (no TAR)",
    )
    several = "archives: tars, also .gz, directories, or - for stdin"
    add("-l", "--list-tar", metavar="TAR ...", help=f"show what is in {several}", **repeatable)
    add("--verify", metavar="TAR ...", help=f"check every byte of {several}", **repeatable)


def add_registry(group):
    """The options on how a registry is reached."""
    add = group.add_argument
    add("-u", "--user", metavar="NAME", help="default: what docker login, podman login stored")
    add("-p", "--password", metavar="PW", help="visible to other users; better:")
    add("--password-stdin", action="store_true", help="read the password from stdin")
    add("-t", "--token", help="a registry token, Bearer or (ECR) Basic")
    add(
        "-s",
        "--scheme",
        choices=("http", "https"),
        metavar="http|https",
        help="http for a registry without TLS; also http://HOST/NAME as REF",
    )
    add("-x", "--cacert", "--ca", metavar="PEM", help="trust this CA too")
    add("-c", "--cert", metavar="PEM", help="client certificate (mTLS)")
    add("-k", "--key", metavar="PEM", help="its key")
    add("-i", "--insecure", action="store_true", help="do not verify certificates")
    add("-j", "--jobs", type=at_least(int, 1), default=6, metavar="N", help="connections at most")
    add(
        "--timeout",
        type=at_least(float, 0, above=True),
        default=30,
        metavar="S",
        help="give up after so long without data (30), or a minute below 1 KiB/s",
    )
    add(
        "--retries",
        type=at_least(int, 0),
        metavar="N",
        help="tries after a failure that may pass (5), counted anew after progress",
    )


def add_other(group):
    """The options on output."""
    add = group.add_argument
    add("-q", "--quiet", action="store_true", help="warnings and errors only, and NAME@DIGEST")
    add("--json", action="store_true", help="print the result as JSON (see README)")
    add("--debug", action="store_true", help="show every request, without secrets")
    add("--parsed", action="store_true", help="show the options as understood, and exit")
    version = f"imgpull version: {__version__} build date: {__build_date__}"
    add("-v", "--version", action="version", version=version, help="show the version, and exit")
    add("-h", "--help", action="help", help="show this, and exit")


def parse_options(parser, argv):
    """The options, checked against each other. Usage errors leave with status 2.

    refs (list of str), tar (str or None) and archives (list of str) are added to them.
    """
    argv = normal_words(sys.argv[1:] if argv is None else argv)
    check_spelling(parser, argv)
    # argparse takes no option between REF and TAR: what it leaves over comes after the rest.
    options, more = parser.parse_known_args(argv)
    unknown = [word for word in more if word.startswith("-") and word != "-"]
    if unknown:
        parser.error(unknown_option(parser, unknown[0]))
    words = options.args = options.args + more
    check_words(parser, words)
    check_combinations(parser, options, words)
    options.refs, options.tar, options.archives = [], None, []
    if options.list_tar or options.verify:
        options.archives = options.list_tar + options.verify + words
    elif options.manifest:
        # The Go imgpull takes REF and TAR here as well, and leaves the TAR alone.
        if len(words) not in (1, 2):
            parser.error("--manifest takes one REF")
        options.refs = words[:1]
    else:
        check_places(parser, words, bool(options.lists))
        options.refs, options.tar = words[:-1], words[-1]
    if options.platform is None and (options.os or options.arch):
        architecture = options.arch or str(host_platform()).partition("/")[2]
        options.platform = f"{options.os or 'linux'}/{architecture}"
    return options


def normal_words(argv):
    """The words of the command line as argparse understands them.

    "-i=true" is how Go programs write a switch; argparse would read -i -t rue. "-p -secret" is a
    password that argparse would take for an option.
    """
    words = []
    for word in argv:
        switch = re.fullmatch("(-i|--insecure|-q|--quiet|--debug|--referrers)=(true|false)", word)
        if switch and switch.group(2) == "true":
            words.append(switch.group(1))
        elif words and words[-1] in ("-p", "--password") and word.startswith("-"):
            words[-1] += "=" + word
        elif not switch:
            words.append(word)
    return words


# Patterns of options that other tools have, and what to write instead.
OPTION_MISTAKES = (
    ("--?ls", "did you mean --list-tar?"),
    (
        "--(tls-?verify|(plain-|use-)?http|insecure-(registry|skip-verify))",
        "--insecure does not verify certificates; --scheme http is for a registry without TLS",
    ),
    ("--(creds|username)", "did you mean --user NAME:PASSWORD?"),
    ("--all(-platforms)?", "did you mean --platform all?"),
    ("--(output|out|file|dest)", "the TAR comes last: imgpull alpine alpine.tar"),
    ("--variant", "it is part of the platform: --platform linux/arm/v7"),
)


def check_spelling(parser, argv):
    """Leave where an option is spelled as other tools do. What follows its = may be a secret."""
    for word in argv:
        name = word.partition("=")[0]
        hints = [hint for pattern, hint in OPTION_MISTAKES if re.fullmatch(pattern, name)]
        # Such as -platform, which would be -p latform: a password.
        if len(name) > 2 and "-" + name in parser._option_string_actions:
            hints.append(f"did you mean -{name}?")
        if hints:
            parser.error(f"unknown option {name}: {hints[0]}")


def unknown_option(parser, word):
    """The words for an option that there is not. What follows its name may be a secret."""
    import difflib

    name = re.match(r"--?[A-Za-z-]*", word).group()
    near = difflib.get_close_matches(name, parser._option_string_actions, 1, cutoff=0.8)
    return f"unknown option {name}" + (f": did you mean {near[0]}?" if near else "")


# Patterns of what other tools take besides options, each word followed by a blank, and what to
# write instead.
OTHER_TOOL = "((?:sudo )?(?:(?:docker|podman|crane) (?:image )?)?(?:pull|run|save|imgpull)) "
WORD_MISTAKES = (
    ("^(help|version) $", r"did you mean --\1?"),
    (r"^(verify|check) (\S+\.tar) $", r"did you mean --verify \2?"),
    (r"^(list|ls|inspect|load) (\S+\.tar) $", r"did you mean --list-tar \2?"),
    (r"^(\S+\.txt|\S+\.list) (\S+) $", r"did you mean --from \1 \2?"),
    (f"^{OTHER_TOOL}$", r"leave out '\1': imgpull alpine alpine.tar"),
    # Of quay.io/curl/curl:8.10.1, the last group is the second curl.
    (OTHER_TOOL + r"((?:\S*/)?([^\s/:@]+)\S*) ", r"leave out '\1': imgpull \2 \3.tar"),
    (
        "^(?:sudo )?(?:skopeo )?(?:copy )?(?:docker://)?(.+) "
        "(?:docker-archive|oci-archive|oci|docker|dir):([^ :]+)[^ ]* $",
        r"such prefixes are not needed: imgpull \1 \2",
    ),
    (
        r"(?:^|.* )(localhost|[\w-]+(?:\.[\w-]+)+):(\d{3,5}) ",
        r"\1:\2 means the image \1 with the tag \2; an image of that registry is \1:\2/NAME",
    ),
)


def check_words(parser, words):
    """Leave where the words that are no options are another tool's command line."""
    if "" in words:
        parser.error("the name of an image or TAR is empty: is the variable set?")
    line = "".join(word + " " for word in words)
    for pattern, hint in WORD_MISTAKES:
        match = re.match(pattern, line)
        if match:
            parser.error(match.expand(hint))


def check_combinations(parser, options, words):
    """Leave where options contradict each other, one lacks another, or has no value."""
    for name, value in vars(options).items():
        if name != "args" and (value == "" or isinstance(value, list) and "" in value):
            option = "from" if name == "lists" else name.replace("_", "-")
            parser.error(f"--{option} is empty: is the variable set?")
    has_password = options.password is not None
    for is_wrong, why in (
        (bool(options.cert) != bool(options.key), "--cert and --key go together"),
        (
            options.platform and (options.os or options.arch),
            "either --platform, or --os and --arch",
        ),
        (options.token and options.user, "either --token, or --user"),
        (has_password and options.password_stdin, "either --password, or --password-stdin"),
        (
            (has_password or options.password_stdin) and not options.user,
            "a password needs its --user",
        ),
        (options.name and (len(words) > 2 or options.lists), "--name is for one image"),
        (options.list_tar and options.verify, "either --list-tar, or --verify"),
        (
            "-" in options.base + options.reuse,
            "--base and --reuse take a file or a directory, not standard input",
        ),
        (
            re.search("[./]", options.os or ""),
            "-o is --os, such as linux; the TAR comes last: imgpull alpine alpine.tar",
        ),
        (
            options.json and words[-1:] == ["-"] and not (options.list_tar or options.verify),
            "--json prints on stdout, and so does the archive with -: give a file's name",
        ),
        (options.json and options.manifest, "--manifest prints JSON without --json"),
        (
            options.manifest == "image" and options.platform == "all",
            "--manifest image shows one platform's: give that one",
        ),
    ):
        if is_wrong:
            parser.error(why)


def check_places(parser, words, has_lists):
    """Leave where the words are not images first and one TAR last."""
    if not words and has_lists:
        parser.error("where to? imgpull --from FILE bundle.tar")
    if not words:
        parser.error("which image, and where to? imgpull alpine alpine.tar")
    first, last = words[0], words[-1]
    if len(words) == 1 and first.endswith(".tar") and not has_lists:
        parser.error(f"which image goes into {first}? (to look into it: --list-tar)")
    if len(words) == 1 and not has_lists:
        parser.error(f"where to? imgpull {first} {suggested_name(first)}")
    is_reference = re.fullmatch(r"[\w.-]+(:\d+)?(/[\w./-]+)*(:[\w.-]+)?", last)
    is_path = last.endswith(".tar") or os.path.isdir(os.path.dirname(last) or "none")
    # C:\x.tar has a colon, too.
    if ":" in last[2:] and is_reference and not is_path:
        parser.error(f"{last!r} looks like an image: the TAR to write comes last")
    for ref in words[:-1]:
        if re.search(r"\.tar(\.\w+)?$", ref):
            parser.error(f"{ref!r} looks like an archive: the images come first, and one TAR last")


def suggested_name(reference):
    """A file's name for a reference: quay.io/curl/curl:8.10.1 goes to curl.tar."""
    name = re.sub("[:@].*", "", reference.rpartition("/")[2])
    return (name or "image") + ".tar"


def show_parsed(options):
    """Print the options as JSON, with secrets masked."""
    shown = {key: value for key, value in vars(options).items() if key != "args"}
    for key in ("password", "token"):
        shown[key] = shown[key] and "***"
    user, colon, _ = (shown["user"] or "").partition(":")
    shown["user"] = shown["user"] and user + (":***" if colon else "")
    shown["refs"] = [re.sub("//[^/@]*@", "//***@", ref) for ref in shown["refs"]]
    print(json.dumps(shown, indent=2, sort_keys=True))


def read_password(options):
    """(user, password) of the options, asked for where it is missing. Raises ImgpullError."""
    user, colon, password = (options.user or "").partition(":")
    if options.password_stdin:
        password = sys.stdin.readline().rstrip("\r\n") if sys.stdin else ""
        if not password:
            raise UsageError("--password-stdin: there is no password on standard input")
        return options.user, password
    if options.password is not None:
        return options.user, options.password
    if colon or not options.user:
        return user or None, password
    if not sys.stdin or not sys.stdin.isatty():
        raise UsageError(
            "--user without a password: give --password-stdin, since there is no terminal to ask at"
        )
    import getpass

    # check_registries() sees to it that it is for one registry.
    place = f" at {parse_source(options.refs[0])[1].registry}" if options.refs else ""
    return user, getpass.getpass(f"Password for {printable(user)}{place}: ")


def show_manifest(options, settings, reporter):
    """Print the manifest of a reference as JSON on stdout; its digest and media type on stderr."""
    scheme, reference = parse_source(options.refs[0])
    settings = settings._replace(scheme=scheme or settings.scheme)
    registry = Registry(reference, settings, reporter)
    reporter.doing(f"looking up {reference}")
    try:
        manifest = registry.get()
        if options.manifest == "image":
            wanted = parse_platforms(options.platform)
            manifest = resolve(registry, manifest, wanted, reporter)
        elif not manifest.is_index:
            raise ImgpullError(
                f"{registry.named} is not an index but one image's manifest: --manifest image "
                "shows it"
            )
    finally:
        reporter.finish()
        registry.transport.close()
    if not options.quiet:
        print(manifest.descriptor.digest, manifest.descriptor.media_type, file=sys.stderr)
    print(json.dumps(parse_json(manifest.body, "the manifest"), indent=2))


def referrers_in_words(image):
    """The words for what came along with a PulledImage: ", with 2 signatures"."""
    if not image.referrers:
        return ""
    kinds = [kind for referrer in image.referrers for kind in referrer.kind.split(", ")]
    counts = sorted(collections.Counter(kinds).items())
    return ", with " + ", ".join(plural(count, kind) for kind, count in counts)


def result_document(result):
    """A PullResult as --json prints it; the README says what each key means."""
    images = []
    for image in result.images:
        layers = [
            (layer.digest, layer.size, layer.digest in result.omitted) for layer in image.layers
        ]
        images.append(image_document(image, layers))
    failures = [{"error": str(error), "exit_code": error.exit_code} for error in result.failures]
    return {
        "schema": SCHEMA,
        "images": images,
        "failures": failures,
        "destination": result.destination,
        "size": result.size,
        "fetched": result.fetched,
        "omitted": sum(result.omitted.values()),
        "seconds": round(result.seconds, 3),
        "unchanged": result.unchanged,
    }


def show_result(result, options):
    """Print a line for each image that was pulled: on stdout, unless that is the archive."""
    out = sys.stderr if result.destination == "-" else sys.stdout
    where = "stdout" if out is sys.stderr else printable(result.destination)
    left_out = ""
    if result.omitted:
        size = human(sum(result.omitted.values()))
        left_out = f", {plural(len(result.omitted), 'layer')} ({size}) left out"
    for image in result.images:
        name = image.name.partition("@")[0]
        if options.quiet:
            if out is sys.stdout:
                print(f"{name}@{image.digest}")
            continue
        several = "all platforms" if options.platform == "all" else options.platform
        kind = image.platform or (several if image.image_id else "artifact")
        how = f"in {result.seconds:.1f} s"
        if result.unchanged:
            how = "is up to date"
        say(
            f"{name} {image.digest} {printable(kind)} {human(image.size)} -> {where} {how}"
            f"{left_out}{referrers_in_words(image)}",
            out,
        )


def connection_options(options):
    """{field of Settings: value} of the options. Asks for the password where it is missing."""
    user, password = read_password(options)
    for name in ("cacert", "cert", "key"):
        path = getattr(options, name)
        if path and not os.path.isfile(path):
            kind = "it is a directory" if os.path.isdir(path) else "no such file"
            raise UsageError(f"--{name}: {kind}: {path}")
    values = {name: getattr(options, name, None) for name in Settings._fields}
    values.update(user=user, password=password, namespace=options.ns)
    return values


def run_pull(options, reporter, connection):
    """Pull what the options say, and print what came of it; the exit status."""
    if options.tar == "-" and sys.stdout.isatty():
        raise UsageError(
            "an archive is not for a terminal: pipe it (imgpull REF - | docker load), or give a "
            "file's name"
        )
    if re.fullmatch("[a-z0-9_-]{2,}", options.tar) and not os.path.exists(options.tar):
        # "imgpull alpine busybox" was meant to have a TAR behind it, maybe.
        reporter.note(f"the last word is the TAR: the archive goes to the file {options.tar}")
    if re.search(r"\.(tgz|gz|zst|xz|bz2)$", options.tar):
        reporter.warn(f"{options.tar} will be a plain tar, whatever its name says")
    listed = [request for path in options.lists for request in read_list(path)]
    result = pull(
        options.refs + listed,
        options.tar,
        platform=options.platform,
        name=options.name,
        jobs=options.jobs,
        base=options.base,
        base_images=options.base_image,
        reuse=options.reuse,
        force=options.force,
        keep_going=options.keep_going,
        reporter=reporter,
        referrers=options.referrers,
        **connection,
    )
    if options.json:
        print(json.dumps(result_document(result), indent=2))
    else:
        show_result(result, options)
    for error in result.failures:
        reporter.line(f"imgpull: error: {printable(error, 1000)}")
    return ImgpullError.exit_code if result.failures else 0


def run(options, reporter):
    """Do what the options say; the exit status. Raises ImgpullError."""
    if sys.stdout is None:
        if options.tar == "-":
            raise DiskError("standard output is closed: there is nowhere to write the archive to")
        sys.stdout = open(os.devnull, "w")
    if options.parsed:
        show_parsed(options)
        return 0
    if options.archives:
        return run_archives(options, reporter)
    connection = connection_options(options)
    if options.insecure:
        reporter.warn(
            "certificates are not verified: whoever is on the way can read and change what is sent"
        )
    if options.manifest:
        show_manifest(options, Settings(**connection), reporter)
        return 0
    return run_pull(options, reporter, connection)


class Signals(contextlib.AbstractContextManager):
    """A context in which SIGINT and SIGTERM raise KeyboardInterrupt, once.

    The second one is ignored: it would strike in the midst of the tidying up that the first one
    began, which takes less than a second.
    """

    def __init__(self):
        self.handlers = {}  # {signal number: the handler before}
        self.struck = False
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.handlers[number] = signal.signal(number, self.interrupt)

    def interrupt(self, *_):
        # Not SIG_IGN: Python complains of a signal that came just before.
        if not self.struck:
            self.struck = True
            raise KeyboardInterrupt

    def __exit__(self, *_):
        for number, handler in self.handlers.items():
            signal.signal(number, handler)


def told(error, options):
    """(what to print, exit status) of an exception that ended the program."""
    resume = "; run the same command again to resume" if getattr(error, "kept", False) else ""
    if isinstance(error, ImgpullError):
        return f"error: {error}{resume}", error.exit_code
    if isinstance(error, BrokenPipeError):
        # Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        archive = "error: whoever read the archive has stopped reading"
        return archive if options.tar == "-" else "", 1
    if isinstance(error, OSError) and not interrupted(error):
        why = printable(error.strerror or error)
        return f"error: the output cannot be written: {why}{resume}", DiskError.exit_code
    if interrupted(error):
        return f"interrupted{resume}", 130
    if options.debug:
        raise error
    name = type(error).__name__
    return f"error: internal error, {name}: {printable(error)} (--debug shows where)", 1


def main(argv=None):
    """The command line. Returns the exit status; usage errors leave with 2 by SystemExit."""
    # A service manager may have closed it.
    sys.stderr = sys.stderr or open(os.devnull, "w")
    options = argparse.Namespace(tar=None, debug=False)
    reporter = Terminal(False, False)
    with Signals():
        try:
            options = parse_options(make_parser(), argv)
            reporter = Terminal(options.quiet, options.debug)
            status = run(options, reporter)
            sys.stdout.flush()
            return status
        except (Exception, KeyboardInterrupt) as error:
            text, status = told(error, options)
            reporter.finish()
            if text:
                reporter.line("imgpull: " + printable(text, 1000))
            for other in getattr(error, "others", ()):
                reporter.line("imgpull: error: " + printable(other, 1000))
            return status


if __name__ == "__main__":
    sys.exit(main())
