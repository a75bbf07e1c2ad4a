"""Fetches URLs over HTTP/3 only, with libcurl (ngtcp2, nghttp3): a client that shares no code with Larder.

Reads {"ca": FILE, "urls": [URL, …]} from standard input; prints a JSON array with an answer for each.
"""

import hashlib
import json
import sys

from curl_cffi import CurlHttpVersion, requests

VERSIONS = {1: "http/1.0", 2: "http/1.1", 3: "h2", 30: "h3"}


def fetch(url: str, ca: str) -> dict:
    answer = requests.get(url, http_version=CurlHttpVersion.V3ONLY, verify=ca, timeout=20, allow_redirects=False)
    return {
        "protocol": VERSIONS.get(answer.http_version, str(answer.http_version)),
        "status": answer.status_code,
        "bytes": len(answer.content),
        "digest": hashlib.sha256(answer.content).hexdigest(),
        "headers": {name.lower(): value for name, value in answer.headers.items()},
        "text": answer.text if len(answer.content) < 1000 else None,
    }


def main() -> None:
    asked = json.load(sys.stdin)
    json.dump([fetch(url, asked["ca"]) for url in asked["urls"]], sys.stdout)


if __name__ == "__main__":
    main()
