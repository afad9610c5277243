"""wsgidav on a port of the system's choice: ``python webdav_server.py ROOT LOGIN SECRET WAY [CERTIFICATE KEY]``.

WAY: ``basic`` or ``digest``, the one login that it takes.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from typing import Any

from cheroot import wsgi
from cheroot.ssl.builtin import BuiltinSSLAdapter
from wsgidav.wsgidav_app import WsgiDAVApp

root, login, secret, way, *tls = sys.argv[1:]
digest = way == "digest"
app = WsgiDAVApp(
    {
        "provider_mapping": {"/dav": {"root": root}},
        "simple_dc": {"user_mapping": {"*": {login: {"password": secret}}}},
        "http_authenticator": {"accept_basic": not digest, "accept_digest": digest, "default_to_digest": digest},
        "property_manager": False,
        "lock_storage": False,
        "verbose": 1,
    }
)


def tidy(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    """After a full disk wsgidav holds the deleted file open, and its room, until its garbage is collected: at once."""
    yield from app(environ, start_response)
    if environ["REQUEST_METHOD"] == "PUT":
        gc.collect()


server = wsgi.Server(("127.0.0.1", 0), tidy, numthreads=4)
if tls:
    server.ssl_adapter = BuiltinSSLAdapter(*tls)
server.prepare()
print(f"listening on port {server.bind_addr[1]}", flush=True)
server.serve()
