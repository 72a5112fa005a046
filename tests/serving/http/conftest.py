"""A server over HTTP, for all tests here."""

from served_over_http import web

__all__ = ["web"]
