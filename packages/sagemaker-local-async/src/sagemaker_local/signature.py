"""AWS's Signature Version 4: by it the local stack tells its own parts from all other callers."""

from __future__ import annotations

import hmac
import re

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from sagemaker_local.validation import Headers

AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 "
    r"Credential=(?P<key>[^/,]+)/\d{8}/(?P<region>[\w-]+)/(?P<service>[\w-]+)/aws4_request, ?"
    r"SignedHeaders=(?P<headers>[\w;-]+), ?"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)


def is_signed(
    method: str,
    url: str,
    headers: Headers,
    body: bytes,
    credentials: ReadOnlyCredentials,
) -> bool:
    """Return whether the request has a signature by these credentials.

    The age of the signature does not matter: nobody else reads what goes over the loopback device.
    """
    found = AUTHORIZATION.fullmatch(headers.get("Authorization") or "")
    if not found or not hmac.compare_digest(found["key"].encode(), credentials.access_key.encode()):
        return False
    signed = {name: headers.get(name) or "" for name in found["headers"].split(";")}
    request = AWSRequest(method, url, headers=signed, data=body)
    request.context["timestamp"] = headers.get("X-Amz-Date") or ""
    auth = SigV4Auth(credentials, found["service"], found["region"])
    text = auth.string_to_sign(request, auth.canonical_request(request))
    return hmac.compare_digest(auth.signature(text, request), found["signature"])


def sign(url: str, credentials: ReadOnlyCredentials) -> dict[str, str]:
    """Return the headers of a signed GET."""
    request = AWSRequest("GET", url)
    SigV4Auth(credentials, "sagemaker", "us-east-1").add_auth(request)
    return dict(request.headers)
