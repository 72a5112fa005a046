"""Blobs and trees for browsers, `curl`, and other programs of the web; an extra, `castore[web]`.

`castore.serving.http.app` is an ASGI application, which runs by itself or within another one.
"""
