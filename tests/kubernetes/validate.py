"""Checks manifests against custom resource definitions: validate.py CRD_FOLDER MANIFEST...

A structural check of what an API server would refuse: unknown fields, wrong types, missing required ones, values
outside an enumeration or pattern. Needs PyYAML.
"""
import pathlib
import re
import sys

import yaml

BUILT_IN = {"Service", "ConfigMap", "Secret"}


def schemas(folder):
    found = {}
    for path in pathlib.Path(folder).glob("*.yaml"):
        for crd in yaml.safe_load_all(path.read_text()):
            if not crd or crd.get("kind") != "CustomResourceDefinition":
                continue
            spec = crd["spec"]
            for version in spec["versions"]:
                key = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
                found[key] = version["schema"]["openAPIV3Schema"]
    return found


def check(value, schema, at, wrong):
    if schema.get("x-kubernetes-int-or-string") and isinstance(value, (int, str)):
        return
    kind = schema.get("type")
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
    if kind in types and (not isinstance(value, types[kind]) or (kind != "boolean" and isinstance(value, bool))):
        wrong.append(f"{at}: {value!r} is not of type {kind}")
        return
    if "enum" in schema and value not in schema["enum"]:
        wrong.append(f"{at}: {value!r} is none of {schema['enum']}")
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        wrong.append(f"{at}: {value!r} does not match {schema['pattern']}")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        for name in schema.get("required", []):
            if name not in value:
                wrong.append(f"{at}: {name} is missing")
        for name, item in value.items():
            if name in known:
                check(item, known[name], f"{at}.{name}", wrong)
            elif isinstance(schema.get("additionalProperties"), dict):
                check(item, schema["additionalProperties"], f"{at}.{name}", wrong)
            elif known and not schema.get("x-kubernetes-preserve-unknown-fields") and at != "$":
                wrong.append(f"{at}: there is no field {name}")
    if isinstance(value, list) and "items" in schema:
        for n, item in enumerate(value):
            check(item, schema["items"], f"{at}[{n}]", wrong)


def main():
    known = schemas(sys.argv[1])
    failed = checked = 0
    for path in sys.argv[2:]:
        for thing in yaml.safe_load_all(pathlib.Path(path).read_text()):
            key = thing["apiVersion"], thing["kind"]
            if key not in known:
                if thing["kind"] in BUILT_IN or thing["apiVersion"] == "batch/v1":
                    continue
                print(f"{path}: no definition of {key}")
                failed += 1
                continue
            wrong = []
            check(thing, known[key], "$", wrong)
            checked += 1
            for what in wrong:
                print(f"{path}: {what}")
            failed += len(wrong)
    print(f"{checked} checked, {failed} wrong")
    sys.exit(1 if failed or not checked else 0)


main()
