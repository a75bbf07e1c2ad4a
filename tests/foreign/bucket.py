"""A bucket that checks signatures as AWS's own library makes them, and keeps what is put into a folder.

Takes the folder, the id of a key and its secret. Prints the port that it listens on, and goes on until its standard input ends.
"""

import hashlib
import http.server
import pathlib
import sys
import threading
import urllib.parse

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

REGION = "eu-north-1"
FOLDER, KEY_ID, SECRET = sys.argv[1:]


def flaw(request: http.server.BaseHTTPRequestHandler, body: bytes) -> str | None:
    """What is wrong with a request, if anything is."""
    algorithm, _, rest = request.headers.get("Authorization", "").partition(" ")
    fields = dict(field.strip().split("=", 1) for field in rest.split(",") if "=" in field)
    signed = fields.get("SignedHeaders", "").split(";")
    at = request.headers.get("x-amz-date", "")
    if algorithm != "AWS4-HMAC-SHA256" or not {"host", "x-amz-content-sha256", "x-amz-date"} <= set(signed):
        return "AccessDenied"
    if request.headers["x-amz-content-sha256"] != hashlib.sha256(body).hexdigest():
        return "XAmzContentSHA256Mismatch"
    # The sender's path, decoded and left to the library to be encoded anew.
    url = f"http://{request.headers['Host']}{urllib.parse.quote(urllib.parse.unquote(request.path), safe='/~')}"
    ours = AWSRequest(method=request.command, url=url, data=body, headers={name: request.headers[name] for name in signed})
    ours.context["timestamp"] = at
    auth = S3SigV4Auth(Credentials(KEY_ID, SECRET), "s3", REGION)
    signature = auth.signature(auth.string_to_sign(ours, auth.canonical_request(ours)), ours)
    if (fields.get("Credential"), fields.get("Signature")) != (f"{KEY_ID}/{auth.credential_scope(ours)}", signature):
        return "SignatureDoesNotMatch"
    return None


class Bucket(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        code = flaw(self, body)
        if code is None:
            path = pathlib.Path(FOLDER + urllib.parse.unquote(self.path))
            path.parent.mkdir(parents=True, exist_ok=True)
            # Whole under its name, as in a store.
            beside = path.with_name(f".{path.name}")
            beside.write_bytes(body)
            beside.rename(path)
        answer = b"" if code is None else f"<Error><Code>{code}</Code></Error>".encode()
        self.send_response(200 if code is None else 403)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def main() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
