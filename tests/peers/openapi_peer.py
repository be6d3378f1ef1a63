"""Requests made from the schemas of an OpenAPI document, good ones and broken ones, judged by python3-jsonschema and by the gateway.

talk ADDRESS DOCUMENT
"""

import copy
import http.client
import json
import pathlib
import re
import sys
import urllib.parse

import jsonschema
import yaml

METHODS = ("get", "put", "post", "delete", "patch")
WRONG = [None, True, 0, -1, 1.5, 3, 1000000, 100000000, "", "x", "x" * 300, "9780000000000", [], {}, [1], [1, 2], [1, 1], ["a", "a"], {"zz": 1}]
TEXTS = ["1", "0", "-1", "100", "101", "1.0", "1e2", "01", " 1", "x", "true", "false", "True", "", "asc", "open", "A10", "2026-01-01", "9780000000000"]


def modern(node):
    """What 3.0 says otherwise than 2020-12, anywhere in a document."""
    if isinstance(node, list):
        return [modern(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return {"$ref": node["$ref"]}
    node = {key: modern(value) for key, value in node.items()}
    for flag, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(node.get(flag), bool):
            if node.pop(flag) and bound in node:
                node[flag] = node.pop(bound)
    if node.get("nullable") is True and isinstance(node.get("type"), str):
        node["type"] = [node["type"], "null"]
    return node


def requestable(node):
    """What is only in answers need not be in requests."""
    if isinstance(node, list):
        return [requestable(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: requestable(value) for key, value in node.items()}
    properties = node.get("properties")
    if isinstance(node.get("required"), list) and isinstance(properties, dict):
        node["required"] = [name for name in node["required"] if not (isinstance(properties.get(name), dict) and properties[name].get("readOnly") is True)]
    return node


class Document:
    def __init__(self, path):
        self.base = path.resolve().as_uri()
        self.top = self.read(path)
        store = {self.base: self.top}
        for other in path.parent.glob("*-schemas.yaml"):
            store[other.resolve().as_uri()] = self.read(other)
        self.resolver = jsonschema.RefResolver(self.base, self.top, store=store)

    def read(self, path):
        document = yaml.safe_load(path.read_text())
        if not hasattr(self, "old"):
            self.old = str(document["openapi"]).startswith("3.0")
        return requestable(modern(document) if self.old else document)

    def follow(self, node, base):
        while "$ref" in node:
            base, node = self.resolver.resolve(urllib.parse.urljoin(base, node["$ref"]))
        return node, base

    def takes(self, schema, base, value):
        self.resolver.push_scope(base)
        try:
            return jsonschema.Draft202012Validator(schema, resolver=self.resolver).is_valid(value)
        finally:
            self.resolver.pop_scope()

    def example(self, schema, base, depth=0):
        """An instance with all members, as far as it is worth it."""
        schema, base = self.follow(schema, base)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][0]
        for key in ("oneOf", "anyOf"):
            if key in schema:
                return self.example(schema[key][0], base, depth)
        if "allOf" in schema:
            whole = {}
            for part in schema["allOf"]:
                piece = self.example(part, base, depth)
                whole.update(piece if isinstance(piece, dict) else {})
            return whole
        kind = schema.get("type")
        kind = kind[0] if isinstance(kind, list) else kind
        if kind == "object" or "properties" in schema:
            required = schema.get("required", [])
            members = {}
            for name, member in schema.get("properties", {}).items():
                if name in required or depth < 2:
                    members[name] = self.example(member, base, depth + 1)
            if isinstance(schema.get("additionalProperties"), dict):
                members["more"] = self.example(schema["additionalProperties"], base, depth + 1)
            return members
        if kind == "array":
            if "prefixItems" in schema:
                return [self.example(item, base, depth + 1) for item in schema["prefixItems"]]
            return [self.example(schema.get("items", {}), base, depth + 1)] * max(1, schema.get("minItems", 1))
        if kind in ("integer", "number"):
            if "exclusiveMinimum" in schema:
                return schema["exclusiveMinimum"] + (1 if kind == "integer" else 0.5)
            return schema.get("minimum", 1)
        if kind == "boolean":
            return True
        if kind == "string":
            samples = ["abcdefgh", "12:30", "a@b", "9780000000000", "A10", "de-1", "2026-01-01"]
            fits = [text for text in samples if "pattern" not in schema or re.search(schema["pattern"], text)]
            return fits[0] if fits else "x"
        return "anything"


def places(value, way=()):
    yield way
    if isinstance(value, dict):
        for name in value:
            yield from places(value[name], way + (name,))
    elif isinstance(value, list):
        for at in range(len(value)):
            yield from places(value[at], way + (at,))


def changed(value, way, change):
    value = copy.deepcopy(value)
    if not way:
        return change(value)
    holder = value
    for step in way[:-1]:
        holder = holder[step]
    holder[way[-1]] = change(holder[way[-1]])
    return value


def without(value, way):
    value = copy.deepcopy(value)
    holder = value
    for step in way[:-1]:
        holder = holder[step]
    del holder[way[-1]]
    return value


def variants(good):
    yield good
    for way in places(good):
        for wrong in WRONG:
            yield changed(good, way, lambda _: wrong)
        if way:
            yield without(good, way)
        yield changed(good, way, lambda held: {**held, "unknown": 1} if isinstance(held, dict) else held)
        yield changed(good, way, lambda held: held + held if isinstance(held, (list, str)) else held)


def read(text, schema):
    """A parameter's text as what the schema takes; for single values only."""
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if {"integer", "number"} & set(kinds) and re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", text):
        return json.loads(text)
    if "boolean" in kinds and text in ("true", "false"):
        return text == "true"
    if "null" in kinds and text in ("", "null"):
        return None
    return text


class Gateway:
    def __init__(self, address):
        self.address = address
        self.counts = {True: 0, False: 0}
        self.connection = None

    def takes(self, method, target, headers, body):
        for _ in range(2):
            try:
                self.connection = self.connection or http.client.HTTPConnection(self.address, timeout=10)
                self.connection.request(method, target, body=body, headers=headers)
                answer = self.connection.getresponse()
                text = answer.read()
                break
            except (http.client.RemoteDisconnected, ConnectionError):
                self.connection = None
        if answer.status not in (200, 400):
            raise SystemExit(f"{method} {target} {body}: {answer.status} {text}")
        return answer.status == 200, text

    def compare(self, expected, method, target, headers, body=None):
        got, text = self.takes(method, target, headers, body)
        if got != expected:
            raise SystemExit(f"{method} {target} {headers} {body}: jsonschema says {expected}, the gateway {got}: {text}")
        self.counts[expected] += 1


def talk(address, path):
    document = Document(pathlib.Path(path))
    gateway = Gateway(address)
    servers = document.top.get("servers", [{"url": ""}])
    base = servers[0]["url"]
    for name, variable in servers[0].get("variables", {}).items():
        base = base.replace("{" + name + "}", variable["default"])
    base = urllib.parse.urlsplit(base).path
    for template, item in document.top["paths"].items():
        for method in METHODS:
            operation = item.get(method)
            if operation is None:
                continue
            parameters = [document.follow(p, document.base)[0] for p in item.get("parameters", []) + operation.get("parameters", [])]
            target, query, headers = base + template, [], {}
            for parameter in parameters:
                schema = parameter.get("schema")
                if schema is None:
                    continue
                value = document.example(schema, document.base)
                if parameter["in"] == "path":
                    target = target.replace("{" + parameter["name"] + "}", urllib.parse.quote(str(value)))
                elif parameter.get("required") and parameter["in"] == "query":
                    query.append((parameter["name"], value))
                elif parameter.get("required"):
                    headers[parameter["name"]] = str(value)
            body = document.follow(operation.get("requestBody", {}), document.base)[0].get("content", {}).get("application/json")
            good = None
            if body is not None:
                good = document.example(body["schema"], document.base)
                sent = {**headers, "Content-Type": "application/json"}
                where = target + ("?" + urllib.parse.urlencode(query) if query else "")
                for value in variants(good):
                    expected = document.takes(body["schema"], document.base, value)
                    gateway.compare(expected, method.upper(), where, sent, json.dumps(value))
                if not document.takes(body["schema"], document.base, good):
                    raise SystemExit(f"{method} {template}: the example is not good: {good}")
            for parameter in parameters:
                schema = parameter.get("schema", {})
                if parameter["in"] != "query" or schema.get("type") in ("array", "object", None):
                    continue
                for text in TEXTS:
                    expected = document.takes(schema, document.base, read(text, schema))
                    others = [pair for pair in query if pair[0] != parameter["name"]]
                    where = target + "?" + urllib.parse.urlencode(others + [(parameter["name"], text)])
                    sent = {**headers, **({"Content-Type": "application/json"} if good is not None else {})}
                    gateway.compare(expected, method.upper(), where, sent, json.dumps(good) if good is not None else None)
    print(f"{path}: {gateway.counts[True]} good, {gateway.counts[False]} broken, all alike", file=sys.stderr)
    if min(gateway.counts.values()) < 10:
        raise SystemExit("too few of one kind were tried")
    print("ok")


if __name__ == "__main__":
    talk(*sys.argv[2:])
