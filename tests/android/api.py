"""Android's API as a published description of level 36 tells it, and where the stubs say otherwise."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import files
from pathlib import Path
from typing import NamedTuple

from tests.android import apk

DESCRIPTION = "chaquopy-stubs-android"
_CLASS = re.compile(r"^(?:\w+ )*(?:class|interface) ([\w.$]+)(?: extends ([\w.$]+))?")
_MEMBER = re.compile(
    r"^  (?P<before>.*?)(?P<name>[\w.$]+)(?P<call>\(.*\))?(?: throws .*)?;\n    descriptor: (?P<type>.*)",
    re.M,
)
_TYPE = re.compile(r"\[*(?:L[^;]+;|\w)")
_WORDS = {"V": "None", "Z": "bool", "I": "int", "J": "int", "F": "float", "Ljava/lang/String;": "str"}


class Member(NamedTuple):
    """A field or method of a stub; `parameters` is None for a field. Types are descriptors."""

    name: str
    parameters: list[str] | None
    type: str
    is_static: bool


def differences(stubs: Path) -> list[str]:
    """Say what the stubs of `android.*` have that Android has not."""
    names = sorted(str(file.relative_to(stubs).with_suffix("")) for file in stubs.glob("android/**/*.class"))
    told = apk.run("javap", "-s", "-protected", "-cp", stubs, *(name.replace("/", ".") for name in names))
    return [f"{name}: {what}" for name, text in _by_class(told) for what in _differences(name, text)]


def _by_class(told: str) -> Iterator[tuple[str, str]]:
    for text in told.split("Compiled from ")[1:]:
        header = text.split("\n")[1]
        found = _CLASS.match(header)
        assert found, header
        yield found[1], text.partition("\n")[2]


def _differences(name: str, text: str) -> Iterator[str]:
    family = list(_family(name.replace("$", ".")))
    if not family:
        yield "there is no such class"
        return
    header = _CLASS.match(text)
    parent = ((header and header[2]) or "java.lang.Object").replace("$", ".")
    if parent != "java.lang.Object" and parent not in [one for one, _ in family]:
        yield f"is no {parent}"
    for member in _members(name, text):
        owners = family[:1] if member.name == "__init__" else family
        if not any(_is_there(member, definition) for _, owner in owners for definition in owner.body):
            yield f"has no {member}"


def _members(owner: str, text: str) -> Iterator[Member]:
    for found in _MEMBER.finditer(text):
        is_static = " static " in f" {found['before']}"
        types = _TYPE.findall(found["type"])
        if found["call"] is None:
            yield Member(found["name"], None, types[0], is_static)
        elif found["name"] == owner:
            yield Member("__init__", types[:-1], "V", False)
        else:
            yield Member(found["name"], types[:-1], types[-1], is_static)


def _is_there(member: Member, definition: ast.stmt) -> bool:
    if isinstance(definition, ast.AnnAssign):
        return member.parameters is None and ast.unparse(definition.target) == member.name
    if not isinstance(definition, ast.FunctionDef) or definition.name != member.name:
        return False
    parameters = [one.annotation for one in definition.args.posonlyargs if one.arg != "self"]
    star = definition.args.vararg
    types = [*(_text(one) for one in parameters), *([f"JavaArray[{_text(star.annotation)}]"] if star else [])]
    is_static = any(ast.unparse(one) == "staticmethod" for one in definition.decorator_list)
    return (
        member.parameters is not None
        and len(types) == len(member.parameters)
        and is_static == member.is_static
        and all(map(_fits, member.parameters, types))
        and _fits(member.type, _text(definition.returns))
    )


def _text(annotation: ast.expr | None) -> str:
    return ast.unparse(annotation) if annotation else "None"


def _fits(descriptor: str, annotation: str) -> bool:
    word = "JavaArray" if descriptor.startswith("[") else _WORDS.get(descriptor)
    if word is None:
        word = re.split("[/$]", descriptor.removesuffix(";"))[-1]
    return re.search(rf"\b{word}", annotation) is not None


def _family(name: str) -> Iterator[tuple[str, ast.ClassDef]]:
    """Return a class and all that it descends from, as far as it is Android's."""
    found = _find(name)
    if found is None:
        return
    package, definition = found
    yield name, definition
    for base in map(ast.unparse, definition.bases):
        local = base.partition("[")[0]
        yield from _family(local if local.startswith(("android.", "java.")) else f"{package}.{local}")


def _find(name: str) -> tuple[str, ast.ClassDef] | None:
    words = name.split(".")
    first = next((index for index, word in enumerate(words) if word[:1].isupper()), len(words))
    package, body, found = ".".join(words[:first]), _module(".".join(words[:first])), None
    for word in words[first:]:
        found = next((one for one in body if isinstance(one, ast.ClassDef) and one.name == word), None)
        if found is None:
            return None
        body = found.body
    return (package, found) if found else None


@cache
def _module(package: str) -> list[ast.stmt]:
    top, *rest = package.split(".")
    wanted = "/".join([f"{top}-stubs", *rest, "__init__.pyi"])
    file = next((one for one in files(DESCRIPTION) or [] if str(one) == wanted), None)
    return ast.parse(file.read_text()).body if file else []
