"""Signs requests as RFC 9421 says, with nothing but the standard library and python3-cryptography.

`signer.py talk HOST:PORT JOB` sends one request that it has signed, and holds the answer against what the job expects.
The job is a JSON object: id, and secret or key (a file); method, target, body, cover, parameters (besides created and keyid),
headers, and what is changed behind the signature's back: then_headers, then_body, then_target, then_method. `expect` holds the
statuses: the same bytes are sent once for each, one after the other. With `at_once` all headers are sent before the first body,
and `expect` is sorted.
"""

import base64
import hashlib
import hmac
import http.client
import json
import sys
import time

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def component(name, method, authority, target, headers):
    path, _, query = target.partition("?")
    if name == "@method":
        return method
    if name == "@authority":
        return authority.lower()
    if name == "@path":
        return path
    if name == "@query":
        return "?" + query
    if name == "@target-uri":
        return "http://" + authority.lower() + target
    if name == "@request-target":
        return target
    return ", ".join(value.strip() for key, value in headers if key.lower() == name)


def sign(job, text):
    if "secret" in job:
        with open(job["secret"], "rb") as file:
            return hmac.new(file.read().rstrip(b"\n"), text, hashlib.sha256).digest()
    with open(job["key"], "rb") as file:
        key = serialization.load_pem_private_key(file.read(), None)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(text)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(text, padding.PSS(padding.MGF1(hashes.SHA512()), 64), hashes.SHA512())
    r, s = utils.decode_dss_signature(key.sign(text, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def make_key(kind, private, public):
    key = {
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
    }[kind]()
    with open(private, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    with open(public, "wb") as file:
        file.write(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )


def talk(address, job):
    method, target = job.get("method", "GET"), job.get("target", "/")
    body = job["body"].encode() if "body" in job else None
    authority = job.get("host", address)
    headers = [tuple(line) for line in job.get("headers", [])]
    cover = job["cover"]
    if body is not None:
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        headers.append(("Content-Digest", "sha-256=:" + digest + ":"))
        headers.append(("Content-Length", str(len(body))))
    created = int(time.time()) + job.get("age", 0)
    inner = "(" + " ".join(quoted(name) for name in cover) + ")"
    parameters = inner + ";created=%d;keyid=%s" % (created, quoted(job["id"])) + job.get("parameters", "")
    lines = [quoted(name) + ": " + component(name, method, authority, target, headers) for name in cover]
    lines.append('"@signature-params": ' + parameters)
    signature = base64.b64encode(sign(job, "\n".join(lines).encode())).decode()
    headers.append(("Signature-Input", "sig1=" + parameters))
    headers.append(("Signature", "sig1=:" + signature + ":"))

    for name, value in job.get("then_headers", []):
        headers = [line for line in headers if line[0].lower() != name.lower()] + [(name, value)]
    if "then_body" in job:
        body = job["then_body"].encode()
        headers = [line for line in headers if line[0] != "Content-Length"]
        headers.append(("Content-Length", str(len(body))))
    host, port = address.split(":")

    def begin():
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.putrequest(
            job.get("then_method", method), job.get("then_target", target), skip_host=True, skip_accept_encoding=True
        )
        connection.putheader("Host", authority)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        return connection

    def end(connection):
        if body:
            connection.send(body)
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        return answer.status, said

    count = range(len(job["expect"]))
    if job.get("at_once"):
        connections = [begin() for _ in count]
        time.sleep(0.2)
        answers = sorted(end(connection) for connection in connections)
    else:
        answers = [end(begin()) for _ in count]
    seen, said = [status for status, _ in answers], answers[-1][1]
    if seen != job["expect"]:
        print("expected %s, found %s: %s" % (job["expect"], seen, said.decode(errors="replace")))
        sys.exit(1)
    print("ok")


if sys.argv[1] == "talk":
    talk(sys.argv[2], json.loads(sys.argv[3]))
else:
    make_key(*sys.argv[2:5])
    print("ok")
