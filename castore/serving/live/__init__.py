"""A composition as it is at this moment, for people who look at it in a browser.

`watch` looks at the instances, `page` shows them, and `view` answers requests for `castore.serving.http.app`.
"""
