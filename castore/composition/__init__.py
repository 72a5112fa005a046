"""Declaring services and building them: the public names for authors of plugins and of programs."""

from __future__ import annotations

from castore.composition.building import BuildContext
from castore.composition.composition import Composition
from castore.composition.config.queries import read_query
from castore.composition.config.refs import Ref
from castore.composition.config.several import at_least, one_of, ref_of, service_names
from castore.composition.config.structure import formerly
from castore.composition.config.values import Between, ByteSize, Duration
from castore.composition.graph.traits import Evicts, Traits, View
from castore.composition.probing import Probe
from castore.composition.reloading import InstanceChange, Reloaded, ReloadPlan
from castore.composition.source import ConfigSource
from castore.composition.types.registry import Registry
from castore.contract.plans import Asking, Holding, Plan, Step, together
from castore.problems import InvalidValueError, Problem, ProblemsError
from castore.secrets import Secret, Untyped, keep_secret, scrub, secrets_in
from castore.urls import ServiceUrl

__all__ = [
    "Asking",
    "Between",
    "BuildContext",
    "ByteSize",
    "Composition",
    "ConfigSource",
    "Duration",
    "Evicts",
    "Holding",
    "InstanceChange",
    "InvalidValueError",
    "Plan",
    "Probe",
    "Problem",
    "ProblemsError",
    "Ref",
    "Registry",
    "ReloadPlan",
    "Reloaded",
    "Secret",
    "ServiceUrl",
    "Step",
    "Traits",
    "Untyped",
    "View",
    "at_least",
    "formerly",
    "keep_secret",
    "one_of",
    "read_query",
    "ref_of",
    "scrub",
    "secrets_in",
    "service_names",
    "together",
]
