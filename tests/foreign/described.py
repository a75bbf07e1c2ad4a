"""Takes control's description of its API at its word, with tools that share no code with Larder.

Reads {"url": URL, "operator": SECRET, "edge": SECRET, "viewers": {"iss": …, "aud": …, "kid": …, "k": …}, "seed": N, "examples": N,
"dir": DIR} from standard input. Seeds control with titles and edges, has openapi-spec-validator judge /openapi.json, and has schemathesis
send what the description allows and what it forbids. Prints what ran; exits with 1 if anything is not as described.
"""

import base64
import hashlib
import hmac
import json
import pathlib
import subprocess
import sys
import time
import urllib.request

from openapi_spec_validator import OpenAPIV31SpecValidator

# What it may take on a slow machine.
TIME_MAX_S = 600
METHODS = {"get", "put", "post", "patch", "delete", "head", "options"}

# What is held against the description. Left out, and why: what a request is refused for is told apart by tests of our own
# (negative_data_rejection, positive_data_acceptance would have schemas repeat every check of a title); statefulness needs links,
# which the description does not have.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def token(viewers: dict) -> str:
    """A viewer's token (HS256), as another service would issue it."""

    def text(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    header = {"alg": "HS256", "kid": viewers["kid"], "typ": "JWT"}
    claims = {"iss": viewers["iss"], "aud": viewers["aud"], "sub": "alice", "exp": int(time.time()) + 3600}
    message = ".".join(text(json.dumps(part).encode()) for part in (header, claims))
    secret = base64.urlsafe_b64decode(viewers["k"] + "=" * (-len(viewers["k"]) % 4))
    return f"{message}.{text(hmac.digest(secret, message.encode(), 'sha256'))}"


def title(name: str) -> dict:
    """A small title with video and audio."""
    renditions = []
    for rendition, media in [
        ("v360", {"kind": "video", "width": 640, "height": 360, "frameRate": 25.0, "codecs": "avc1.64001e"}),
        ("a1", {"kind": "audio", "channels": 2, "sampleRate": 48000, "language": "und", "codecs": "mp4a.40.2"}),
    ]:
        segments = [{"path": f"{rendition}/{n}.m4s", "startMs": n * 4000, "durationMs": 4000} for n in range(3)]
        renditions.append(
            {
                "id": rendition,
                **media,
                "bitsPerSecondPeak": 800000,
                "bitsPerSecondMean": 400000,
                "playlist": f"{rendition}/playlist.m3u8",
                "init": f"{rendition}/init.mp4",
                "segments": segments,
            }
        )
    paths = ["master.m3u8", "manifest.mpd", "poster.jpg", "storyboard.vtt"]
    for rendition in renditions:
        paths += [rendition["playlist"], rendition["init"], *(segment["path"] for segment in rendition["segments"])]
    return {
        "id": name,
        "title": f"The Title {name}",
        "description": "About nothing.",
        "cast": ["Änne Somebody"],
        "rating": None,
        "genres": ["Drama", "Comedy"],
        "year": 1999,
        "language": "en",
        "kind": "film",
        "durationMs": 12000,
        "root": f"/titles/{digest(name)}",
        "fingerprint": digest(f"source of {name}"),
        "hls": "master.m3u8",
        "dash": "manifest.mpd",
        "poster": "poster.jpg",
        "storyboard": "storyboard.vtt",
        "renditions": renditions,
        "objects": [{"path": p, "bytes": 10, "digest": digest(p), "contentType": "video/mp4"} for p in paths],
    }


def send(asked: dict, method: str, path: str, who: str, body: dict) -> None:
    request = urllib.request.Request(
        asked["url"] + path,
        method=method,
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {asked[who]}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status < 300, (method, path, answer.status)


def seed(asked: dict) -> None:
    # "0" is what schemathesis tries first for an id.
    for name in ["0", "demo", *(f"title-{n}" for n in range(30))]:
        send(asked, "PUT", f"/videos/{name}", "operator", title(name))
    for edge in ["e1", "e2"]:
        registration = {"site": "site-1", "url": f"https://{edge}.example:8443", "version": "0.1.0"}
        send(asked, "PUT", f"/fleet/edges/{edge}", "edge", registration)
        counters = ["connections", "requests", "bytesSent", "bytesRam", "bytesFilled", "ramBytesMax", "ramBytes"]
        report = {"health": "ready", **{name: 1 for name in counters}}
        send(asked, "POST", f"/fleet/edges/{edge}/reports", "edge", report)


def schemathesis(asked: dict) -> int:
    folder = pathlib.Path(asked["dir"])
    config = folder / "schemathesis.toml"
    schemes = "".join(f'[auth.openapi.{who}]\nbearer = "{asked[who]}"\n' for who in ["operator", "edge", "viewer"])
    config.write_text(schemes)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(config)),
        *("run", asked["url"] + "/openapi.json", "--phases", "examples,coverage,fuzzing"),
        *("--seed", str(asked["seed"]), "--max-examples", str(asked["examples"])),
        *("--generation-database", "none", "--checks", ",".join(CHECKS), "--continue-on-failure", "--max-redirects", "0"),
        *("--suppress-health-check", "all", "--request-timeout", "60"),
        # Both directions of a stream of lines, which no generator of single requests speaks; control's own tests do.
        *("--exclude-path-regex", "/stream$"),
    ]
    print("running:", " ".join(command[1:]), flush=True)
    return subprocess.run(command, cwd=folder, check=False, timeout=TIME_MAX_S).returncode


def main() -> None:
    asked = json.load(sys.stdin)
    with urllib.request.urlopen(asked["url"] + "/openapi.json", timeout=20) as answer:
        description = json.load(answer)
    OpenAPIV31SpecValidator(description).validate()
    operations = sum(method in METHODS for item in description["paths"].values() for method in item)
    print(f"openapi-spec-validator: OpenAPI {description['openapi']}, {operations} operations, valid", flush=True)
    asked["viewer"] = token(asked["viewers"])
    seed(asked)
    sys.exit(1 if schemathesis(asked) else 0)


if __name__ == "__main__":
    main()
