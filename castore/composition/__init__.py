"""Declaring services and building them: the public names for authors of plugins and of programs."""

from __future__ import annotations

from castore.composition.building import BuildContext
from castore.composition.composition import Composition
from castore.composition.refs import Ref
from castore.composition.registry import Registry
from castore.composition.structure import formerly
from castore.composition.urls import ServiceUrl
from castore.composition.values import Between, ByteSize, Duration, Secret, scrub, secrets_in

__all__ = [
    "Between",
    "BuildContext",
    "ByteSize",
    "Composition",
    "Duration",
    "Ref",
    "Registry",
    "Secret",
    "ServiceUrl",
    "formerly",
    "scrub",
    "secrets_in",
]
