"""Signs each request of Schemathesis by NIP-98, and gives the relay something to answer with.

The key is that of the document's examples: its secret is 1, and the relay of the tests has it as an admin key.
"""

import base64
import hashlib
import json
import os
import secrets
import time

import coincurve
import requests
import schemathesis
from requests.auth import AuthBase

PREFIX = "/api/v1/mls"
KEY = coincurve.PrivateKey((1).to_bytes(32, "big"))
PUBKEY = KEY.public_key_xonly.format().hex()


def sign(kind, tags, content=""):
    """A signed event of the test's key."""
    created_at = int(time.time())
    canonical = json.dumps([0, PUBKEY, created_at, kind, tags, content], separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(canonical.encode()).digest()
    return {
        "id": digest.hex(),
        "pubkey": PUBKEY,
        "created_at": created_at,
        "kind": kind,
        "tags": tags,
        "content": content,
        "sig": KEY.sign_schnorr(digest).hex(),
    }


class Nip98(AuthBase):
    """Proves the key for exactly the request that is sent."""

    def __call__(self, request):
        scheme, rest = request.url.split("://", 1)
        host = rest.split("/", 1)[0]
        tags = [["u", f"{scheme}://{host}{request.path_url}"], ["method", request.method]]
        # Two proofs of one second would be one event.
        tags.append(["salt", secrets.token_hex(8)])
        if request.body:
            body = request.body if isinstance(request.body, bytes) else request.body.encode()
            tags.append(["payload", hashlib.sha256(body).hexdigest()])
        proof = base64.b64encode(json.dumps(sign(27235, tags)).encode()).decode()
        request.headers["Authorization"] = f"Nostr {proof}"
        return request


schemathesis.auth.set_from_requests(Nip98())


def publish(event):
    """Publishes an event, which must be accepted."""
    url = f"{os.environ['REST_URL']}{PREFIX}/events"
    headers = {"Content-Type": "application/json"}
    answer = requests.post(url, data=json.dumps(event).encode(), headers=headers, auth=Nip98(), timeout=20)
    if answer.status_code != 200:
        raise RuntimeError(f"kind {event['kind']}: {answer.status_code} {answer.text}")


publish(sign(450, [["h", "grp_abc123"], ["seq", "1"], ["op", "bootstrap"], ["p", PUBKEY], ["name", "Team Chat"]]))
for n in range(3):
    publish(sign(445, [["h", "grp_abc123"], ["k", str(n)]], f"message {n}"))
    publish(sign(443, [["kpr", f"kpr_{n}"], ["cs", "0x0001"]], f"package {n}"))
    publish(sign(1059, [["p", PUBKEY]], f"wrap {n}"))
