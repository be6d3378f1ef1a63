"""An OpenID provider that logs everybody in at once: `serve` prints its port. Tokens are signed by PyJWT.

It is strict where a provider must be: redirect addresses as registered, PKCE with S256, codes that work once, clients that
say who they are. Clients: "web" with the secret "s:e%c +", "open" without one.

GET  /.well-known/openid-configuration, /keys    as published
GET  /authorize                                  sends the browser back with a code
POST /token                                      authorization_code and refresh_token, which works once
GET  /end                                        end of the provider's own session
POST /set     {...}: how it behaves from now on, see State; what is not named stays
GET  /seen    what was asked for so far
"""

import base64
import hashlib
import json
import secrets
import threading
import time
import urllib.parse

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from serving import Answering, serve

CLIENTS = {"web": "s:e%c +", "open": None}


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class State:
    def __init__(self):
        self.lock = threading.Lock()
        self.keys = {
            "rsa": rsa.generate_private_key(65537, 2048),
            "p256": ec.generate_private_key(ec.SECP256R1()),
            "stranger": rsa.generate_private_key(65537, 2048),
        }
        self.how = {
            "claims": {"sub": "alice"},  # of the ID token
            "change": {},  # claims laid over the good ones; null takes one away
            "key": "rsa",
            "alg": "RS256",
            "header": {},
            "metadata": {},  # laid over the good ones; null takes one away
            "callback": {},  # parameters laid over those that the browser is sent back with
            "token": {},  # laid over the good answer to a code
            "status": 0,  # of every answer about tokens
            "slow": 0,  # seconds before it
            "large": 0,  # bytes more in it
            "at_hash": "good",
            "expires_in": 300,
            "method": "any",  # client_secret_basic, client_secret_post
            "rotate": True,
            "revoked": False,
        }
        self.codes = {}
        self.refreshes = {}
        self.seen = {"authorize": [], "token": [], "end": [], "refused": []}

    def jwks(self):
        public = self.keys["rsa"].public_key()
        one = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(public))
        one.pop("key_ops", None)
        numbers = self.keys["p256"].public_key().public_numbers()
        two = {"kty": "EC", "crv": "P-256", "x": b64(numbers.x.to_bytes(32, "big")), "y": b64(numbers.y.to_bytes(32, "big"))}
        return {"keys": [dict(one, kid="rsa", use="sig"), dict(two, kid="p256", use="sig")]}


def laid(over, good):
    return {name: value for name, value in dict(good, **over).items() if value is not None}


class Handler(Answering):
    @property
    def base(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def refuse(self, why, error="invalid_request", status=400):
        self.server.state.seen["refused"].append(why)
        self.answer({"error": error, "error_description": why}, status)

    def do_GET(self):
        state, path = self.server.state, urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(path.query, keep_blank_values=True))
        how = state.how
        if path.path == "/.well-known/openid-configuration":
            good = {
                "issuer": self.base,
                "jwks_uri": self.base + "/keys",
                "authorization_endpoint": self.base + "/authorize?tenant=t",
                "token_endpoint": self.base + "/token",
                "end_session_endpoint": self.base + "/end",
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
            }
            self.answer(laid(how["metadata"], good))
        elif path.path == "/keys":
            self.answer(state.jwks())
        elif path.path == "/authorize":
            self.authorize(state, query)
        elif path.path == "/end":
            state.seen["end"].append(query)
            self.answer(b"", 302, [("Location", query["post_logout_redirect_uri"])])
        elif path.path == "/seen":
            self.answer(state.seen)
        else:
            self.answer({}, 404)

    def authorize(self, state, query):
        state.seen["authorize"].append(query)
        wrong = [
            query.get("tenant") != "t",
            query.get("response_type") != "code",
            query.get("client_id") not in CLIENTS,
            "openid" not in query.get("scope", "").split(),
            query.get("code_challenge_method") != "S256" or len(query.get("code_challenge", "")) != 43,
            len(query.get("state", "")) < 22 or len(query.get("nonce", "")) < 22,
            not query.get("redirect_uri", "").endswith("/oauth2/callback"),
        ]
        if any(wrong):
            return self.refuse(f"authorize: {wrong}")
        code = secrets.token_urlsafe(16)
        with state.lock:
            state.codes[code] = dict(query, claims=state.how["claims"])
        back = {"code": code, "state": query["state"], "iss": self.base}
        back = laid(state.how["callback"], back)
        location = query["redirect_uri"] + "?" + urllib.parse.urlencode(back)
        self.answer(b"", 302, [("Location", location), ("Set-Cookie", "sso=1; Path=/")])

    def client(self, form):
        """Who asks, if that is sure."""
        how, line = self.server.state.how, self.headers.get("Authorization")
        if line is not None:
            if how["method"] == "client_secret_post" or not line.startswith("Basic "):
                return None
            pair = base64.b64decode(line.removeprefix("Basic ")).decode().split(":")
            name, secret = (urllib.parse.unquote_plus(part) for part in pair)
            if "client_secret" in form:
                return None
        else:
            name, secret = form.get("client_id"), form.get("client_secret")
            if secret is not None and how["method"] == "client_secret_basic":
                return None
        return name if name in CLIENTS and CLIENTS[name] == secret else None

    def do_POST(self):
        state = self.server.state
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if self.path == "/set":
            with state.lock:
                state.how.update(json.loads(body))
            return self.answer({})
        if self.path != "/token":
            return self.answer({}, 404)
        how = state.how
        form = dict(urllib.parse.parse_qsl(body, keep_blank_values=True, strict_parsing=True))
        state.seen["token"].append({name: form[name] for name in form if name in ("grant_type", "client_id")})
        time.sleep(how["slow"])
        if how["status"]:
            return self.answer(b"out of order", how["status"])
        client = self.client(form)
        if client is None:
            return self.refuse("client", "invalid_client", 401)
        if form["grant_type"] == "authorization_code":
            with state.lock:
                code = state.codes.pop(form.get("code"), None)
            if code is None or code["client_id"] != client:
                return self.refuse("code", "invalid_grant")
            if code["redirect_uri"] != form.get("redirect_uri"):
                return self.refuse("redirect_uri", "invalid_grant")
            if b64(hashlib.sha256(form.get("code_verifier", "").encode()).digest()) != code["code_challenge"]:
                return self.refuse("verifier", "invalid_grant")
            given = {"nonce": code["nonce"], "family": secrets.token_hex(4), "claims": code["claims"], "client": client}
        else:
            with state.lock:
                given = state.refreshes.get(form.get("refresh_token"))
                if given is not None and how["rotate"]:
                    if given.get("spent"):
                        # Somebody has a copy: nobody of the family gets anything any more.
                        for other in state.refreshes.values():
                            if other["family"] == given["family"]:
                                other["dead"] = True
                    given["spent"] = True
                dead = how["revoked"] or given is None or given.get("dead") or given["client"] != client
            if dead:
                return self.refuse("refresh_token", "invalid_grant")
            given = {"family": given["family"], "claims": how["claims"], "client": client}
        self.give(state, given)

    def give(self, state, given):
        how, now = state.how, int(time.time())
        access = secrets.token_urlsafe(24)
        claims = dict(given["claims"], iss=self.base, aud=given["client"], exp=now + 300, iat=now)
        if "nonce" in given:
            claims["nonce"] = given["nonce"]
        half = hashlib.sha256(access.encode()).digest()[:16]
        claims.update({"good": {"at_hash": b64(half)}, "bad": {"at_hash": b64(half[::-1])}}.get(how["at_hash"], {}))
        claims = laid(how["change"], claims)
        header = dict({"alg": how["alg"], "kid": how["key"]}, **how["header"])
        signing = b64(json.dumps(header).encode()) + "." + b64(json.dumps(claims).encode())
        if how["alg"] == "none":
            token = signing + "."
        else:
            key = CLIENTS["web"].encode() if how["alg"] == "HS256" else state.keys[how["key"]]
            token = signing + "." + b64(jwt.algorithms.get_default_algorithms()[how["alg"]].sign(signing.encode(), key))
        refresh = secrets.token_urlsafe(24)
        with state.lock:
            state.refreshes[refresh] = {name: given[name] for name in ("family", "claims", "client")}
        good = {
            "id_token": token,
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": how["expires_in"],
            "refresh_token": refresh,
            "scope": "openid orders",
            "more": "x" * how["large"],
        }
        self.answer(laid(how["token"], good), headers=[("Cache-Control", "no-store")])


if __name__ == "__main__":
    serve(Handler, State())
