"""Why a connection was lost, in words that help when that was about a certificate.

Owns those words. Whether a certificate is trusted has been decided by Twisted, and is only explained here.
"""

from __future__ import annotations

from typing import Any

from OpenSSL.crypto import X509StoreContext, X509StoreContextError
from OpenSSL.SSL import Connection, Error
from service_identity import VerificationError
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure


def why_lost(transport: Any, reason: Failure) -> str:
    """What to say of a connection that was lost for this `reason`.

    :param transport: what the connection was carried by.
    """
    if reason.check(VerificationError):
        return "the other side's certificate is for another name"
    if reason.check(Error) and isinstance(transport, TLSMemoryBIOProtocol):
        fault = _certificate_fault(transport.getHandle())
        if fault is not None:
            return f"the other side's certificate is not trusted: {fault}"
    return reason.getErrorMessage().rstrip(".")


def _certificate_fault(connection: Connection) -> str | None:
    """What OpenSSL finds wrong with the certificates of the other side; None when nothing is, or there are
    none.

    The connection's own error says "certificate verify failed" and nothing more: they are verified again.
    """
    shown = connection.get_peer_cert_chain()
    if not shown:
        return None
    store = connection.get_context().get_cert_store()
    if store is None:
        return None
    try:
        X509StoreContext(store, shown[0], shown[1:]).verify_certificate()
    except X509StoreContextError as error:
        return str(error)
    return None
