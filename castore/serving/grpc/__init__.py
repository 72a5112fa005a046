"""The reference's gRPC protocol, served: blobs and directories for clients of tvix and snix, and of castore.

`castore.serving.grpc.server.GrpcServer` is the server, `castore serve` the command. It needs the extra
`castore[grpc]`.
"""
