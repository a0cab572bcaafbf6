"""Holds YAML files to a JSON Schema, as editors do: schema_accepts.py SCHEMA FILE... prints a JSON object a file with its problems.

It knows the keywords that the schema of pipelines uses and ends with an error at any other.
"""

import json
import re
import sys

import yaml

NOTES = {"$schema", "$defs", "title", "description", "default", "examples", "if", "then", "else"}
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float), "null": type(None)}


def is_type(value, name):
    return isinstance(value, TYPES[name]) and not (name in ("integer", "number") and isinstance(value, bool))


def equal(a, b):
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def problems(value, schema, whole, at=""):
    if schema is True:
        return []
    if schema is False:
        return [f"{at}: not allowed"]
    found = []
    inner = lambda part, where=at, inside=value: problems(inside, part, whole, where)
    for keyword, rule in schema.items():
        if keyword in NOTES:
            continue
        elif keyword == "$ref":
            found += inner(whole["$defs"][rule.removeprefix("#/$defs/")])
        elif keyword == "type":
            if not any(is_type(value, name) for name in ([rule] if isinstance(rule, str) else rule)):
                found.append(f"{at}: {value!r} is no {rule}")
        elif keyword == "const":
            if not equal(value, rule):
                found.append(f"{at}: {value!r} is not {rule!r}")
        elif keyword == "enum":
            if not any(equal(value, one) for one in rule):
                found.append(f"{at}: {value!r} is none of {rule}")
        elif keyword == "pattern":
            if isinstance(value, str) and not re.search(rule, value):
                found.append(f"{at}: {value!r} does not match {rule}")
        elif keyword in ("minimum", "maximum"):
            if is_type(value, "number") and (value < rule if keyword == "minimum" else value > rule):
                found.append(f"{at}: {value} is out of bounds")
        elif keyword in ("exclusiveMinimum", "exclusiveMaximum"):
            if is_type(value, "number") and (value <= rule if keyword == "exclusiveMinimum" else value >= rule):
                found.append(f"{at}: {value} is out of bounds")
        elif keyword == "minItems":
            if isinstance(value, list) and len(value) < rule:
                found.append(f"{at}: fewer than {rule}")
        elif keyword == "items":
            for place, item in enumerate(value if isinstance(value, list) else []):
                found += inner(rule, f"{at}[{place}]", item)
        elif keyword == "required":
            found += [f"{at}: {name} is missing" for name in rule if isinstance(value, dict) and name not in value]
        elif keyword == "properties":
            for name, part in rule.items():
                if isinstance(value, dict) and name in value:
                    found += inner(part, f"{at}.{name}", value[name])
        elif keyword == "additionalProperties":
            for name in value if isinstance(value, dict) else ():
                if name not in schema.get("properties", {}):
                    found += inner(rule, f"{at}.{name}", value[name])
        elif keyword == "propertyNames":
            for name in value if isinstance(value, dict) else ():
                found += inner(rule, f"{at}.{name}", name)
        elif keyword == "allOf":
            for part in rule:
                found += inner(part)
        elif keyword in ("anyOf", "oneOf"):
            tried = [inner(part) for part in rule]
            fitting = sum(not one for one in tried)
            if fitting == 0 or (keyword == "oneOf" and fitting > 1):
                found += min(tried, key=len) or [f"{at}: {fitting} of {keyword} fit"]
        elif keyword == "not":
            if not inner(rule):
                found.append(f"{at}: must not fit {rule}")
        else:
            sys.exit(f"the schema uses {keyword}, which this does not know")
    if "if" in schema:
        found += inner(schema.get("then" if not inner(schema["if"]) else "else", True))
    return found


if __name__ == "__main__":
    whole = json.load(open(sys.argv[1]))
    for path in sys.argv[2:]:
        print(json.dumps({"file": path, "problems": problems(yaml.safe_load(open(path)), whole, whole)}))
