"""Declaring services and building them: the public names for authors of plugins and of programs."""

from __future__ import annotations

from castore.composition.building import BuildContext
from castore.composition.composition import Composition
from castore.composition.problems import InvalidValueError, Problem
from castore.composition.refs import Ref
from castore.composition.registry import Registry
from castore.composition.secret import Secret, keep_secret, scrub, secrets_in
from castore.composition.structure import formerly
from castore.composition.urls import ServiceUrl
from castore.composition.values import Between, ByteSize, Duration

__all__ = [
    "Between",
    "BuildContext",
    "ByteSize",
    "Composition",
    "Duration",
    "InvalidValueError",
    "Problem",
    "Ref",
    "Registry",
    "Secret",
    "ServiceUrl",
    "formerly",
    "keep_secret",
    "scrub",
    "secrets_in",
]
