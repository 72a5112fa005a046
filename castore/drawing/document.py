"""A composition as a JSON document, for programs.

::

    {
      "title": "composition.toml",
      "nodes": [
        {"id": "blobservices.root", "name": "root", "kind": "blob service", "type": "cache",
         "detail": "", "state": "", "note": "", "gauges": {}}
      ],
      "edges": [{"source": "blobservices.root", "target": "blobservices.local", "label": "near"}],
      "roots": ["blobservices.root"],
      "unreachable": []
    }

Nodes are in the order of the file, edges in the order of the fields; `unreachable` is in the order of the
nodes. The `name` of an anonymous instance is empty. Keys may be added; none is ever taken away or renamed.
"""

from __future__ import annotations

import json

import attrs

from castore.drawing.picture import Picture


def document(picture: Picture) -> str:
    """Return *picture* as JSON in ASCII; the module's docstring has the schema."""
    content = {
        "title": picture.title,
        "nodes": [attrs.asdict(node) for node in picture.nodes],
        "edges": [attrs.asdict(edge) for edge in picture.edges],
        "roots": list(picture.roots),
        "unreachable": [node.id for node in picture.nodes if node.id in picture.unreachable],
    }
    return json.dumps(content, indent=2) + "\n"
