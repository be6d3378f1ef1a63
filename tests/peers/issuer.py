"""An issuer of tokens, by PyJWT: `serve` publishes keys, signs what it is asked to, and prints its port.

GET  /.well-known/openid-configuration   metadata; /keys: the published set; /looks: how often that was asked for
POST /sign      {"key", "alg", "claims", "headers", "by"}: a token, and whether its maker itself takes it
                by: PyJWT, unless it says jwcrypto or authlib; these also say it of a token of PyJWT's, as "others"
POST /publish   {"keys": [...], "broken": bool, "slow": seconds}
POST /introspect   RFC 7662, for the gateway as client "gw" with the secret "s:e%c"; knows the tokens in `tokens`
"""

import base64
import hashlib
import hmac
import json
import threading
import time
import urllib.parse

import authlib.jose
import jwcrypto.jwk
import jwcrypto.jwt
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from serving import Answering, serve

SECRET = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class State:
    def __init__(self):
        self.keys = {
            "rsa": rsa.generate_private_key(65537, 2048),
            "rsa2": rsa.generate_private_key(65537, 2048),
            "p256": ec.generate_private_key(ec.SECP256R1()),
            "p384": ec.generate_private_key(ec.SECP384R1()),
            "p521": ec.generate_private_key(ec.SECP521R1()),
            "ed": ed25519.Ed25519PrivateKey.generate(),
            "stranger": rsa.generate_private_key(65537, 2048),
        }
        self.published = ["rsa", "p256", "p384", "p521", "ed"]
        self.broken = False
        self.slow = 0
        self.looks = 0
        self.tokens = {}
        self.lock = threading.Lock()

    def jwk(self, name):
        key = self.keys[name].public_key()
        if isinstance(key, rsa.RSAPublicKey):
            jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key))
        elif isinstance(key, ec.EllipticCurvePublicKey):
            numbers = key.public_numbers()
            size = (key.curve.key_size + 7) // 8
            curve = {256: "P-256", 384: "P-384", 521: "P-521"}[key.curve.key_size]
            jwk = {"kty": "EC", "crv": curve}
            jwk["x"] = b64(numbers.x.to_bytes(size, "big"))
            jwk["y"] = b64(numbers.y.to_bytes(size, "big"))
        else:
            raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
            jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(raw)}
        jwk.pop("key_ops", None)
        return dict(jwk, kid=name, use="sig")

    def pem(self, name):
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.keys[name].public_key().public_bytes(serialization.Encoding.PEM, form)

    def sign(self, asked):
        """A token; and whether PyJWT, which knows the key and pins the algorithm, takes it."""
        name, alg = asked.get("key", "rsa"), asked["alg"]
        if asked.get("by"):
            token = self.sign_by(asked["by"], name, asked)
            return token, self.takes(asked["by"], token, name, alg, asked.get("issuer"))
        headers = asked.get("headers") or {}
        if "kid" not in headers and name in self.keys:
            headers = dict(headers, kid=name)
        header = dict({"alg": alg, "typ": "JWT"}, **headers)
        payload = asked.get("raw") or json.dumps(asked["claims"])
        signing = b64(json.dumps(header).encode()) + "." + b64(payload.encode())
        if alg.lower() == "none":
            return signing + ".", False
        if name == "secret":
            algorithm, key = jwt.algorithms.get_default_algorithms()[alg], SECRET
        elif name.startswith("public-"):
            # The public key's own text as a secret, as in the confusion of RS256 with HS256.
            pem = self.pem(name.removeprefix("public-"))
            signature = hmac.new(pem, signing.encode(), hashlib.sha256).digest()
            return signing + "." + b64(signature), False
        else:
            algorithm, key = jwt.algorithms.get_default_algorithms()[alg], self.keys[name]
        token = signing + "." + b64(algorithm.sign(signing.encode(), key))
        # It goes by the key that the token names, if it knows it.
        known = self.keys.get(headers.get("kid")) if isinstance(headers.get("kid"), str) else None
        try:
            check = SECRET if "kid" not in headers else known.public_key()
            jwt.decode(token, check, algorithms=[alg], audience="orders", issuer=asked.get("issuer"), leeway=5,
                       options={"require": ["exp"]})
            return token, True
        except Exception:
            return token, False


    def private(self, name):
        form = serialization.PrivateFormat.PKCS8
        return self.keys[name].private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())

    def sign_by(self, maker, name, asked):
        """A token of another library."""
        header = dict({"alg": asked["alg"], "typ": "JWT", "kid": name}, **(asked.get("headers") or {}))
        if maker == "jwcrypto":
            token = jwcrypto.jwt.JWT(header=header, claims=asked["claims"], algs=[asked["alg"]])
            token.make_signed_token(jwcrypto.jwk.JWK.from_pem(self.private(name)))
            return token.serialize()
        jose = authlib.jose.JsonWebToken([asked["alg"]])
        return jose.encode(header, asked["claims"], self.private(name)).decode()

    def takes(self, maker, token, name, alg, issuer):
        """Whether a library takes a token for this service, by the published form of a key."""
        try:
            if maker == "jwcrypto":
                key = jwcrypto.jwk.JWK(**self.jwk(name))
                wanted = {"iss": issuer, "aud": "orders", "exp": None}
                # It looks at a beginning only if it is told to, and then there must be one.
                payload = token.split(".")[1]
                if "nbf" in json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))):
                    wanted["nbf"] = None
                jwcrypto.jwt.JWT(jwt=token, key=key, algs=[alg], check_claims=wanted)
            else:
                options = {
                    "iss": {"essential": True, "value": issuer},
                    "aud": {"essential": True, "value": "orders"},
                    "exp": {"essential": True},
                }
                key = authlib.jose.JsonWebKey.import_key(self.jwk(name))
                authlib.jose.JsonWebToken([alg]).decode(token, key, claims_options=options).validate(leeway=5)
            return True
        except Exception:
            return False

    def others(self, token, asked):
        """What the other two say of a token."""
        name, alg = asked.get("key", "rsa"), asked["alg"]
        if name not in self.published:
            return {}
        return {maker: self.takes(maker, token, name, alg, asked.get("issuer")) for maker in ("jwcrypto", "authlib")}


class Handler(Answering):
    def do_GET(self):
        state, base = self.server.state, f"http://127.0.0.1:{self.server.server_port}"
        if self.path == "/.well-known/openid-configuration":
            self.answer({"issuer": base, "jwks_uri": base + "/keys"})
        elif self.path == "/keys":
            with state.lock:
                state.looks += 1
                slow, broken = state.slow, state.broken
                keys = [state.jwk(name) for name in state.published]
            time.sleep(slow)
            self.answer(b"out of order", 500) if broken else self.answer({"keys": keys})
        elif self.path == "/looks":
            self.answer({"looks": state.looks})
        elif self.path.startswith("/pem/"):
            self.answer(state.pem(self.path.removeprefix("/pem/")))
        else:
            self.answer({}, 404)

    def do_POST(self):
        state = self.server.state
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/sign":
            asked = json.loads(body)
            token, good = state.sign(asked)
            self.answer({"token": token, "good": good, "others": state.others(token, asked)})
        elif self.path == "/publish":
            asked = json.loads(body)
            with state.lock:
                state.published = asked.get("keys", state.published)
                state.broken = asked.get("broken", state.broken)
                state.slow = asked.get("slow", state.slow)
            self.answer({})
        elif self.path == "/tokens":
            state.tokens = json.loads(body)
            self.answer({})
        elif self.path == "/introspect":
            with state.lock:
                state.looks += 1
            expected = "Basic " + base64.b64encode(b"gw:s%3Ae%25c").decode()
            asked = urllib.parse.parse_qs(body.decode(), strict_parsing=True)
            time.sleep(state.slow)
            if self.headers.get("Authorization") != expected:
                self.answer({"error": "invalid_client"}, 401)
            elif state.broken:
                self.answer(b"out of order", 500)
            else:
                self.answer(state.tokens.get(asked["token"][0], {"active": False}))
        else:
            self.answer({}, 404)


if __name__ == "__main__":
    serve(Handler, State())
