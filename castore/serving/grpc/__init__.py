"""The reference's gRPC protocol, served: blobs and directories for clients of tvix and snix, and of castore.

`castore.serving.grpc.server.GrpcServer` is the server, `castore serve` the command. It needs the extra
`castore[grpc]`.
"""

from __future__ import annotations

import os

# Before the library is loaded. What goes wrong is told by errors; it would write to stderr as well.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
