"""The messenger as a Twisted service, for ``.tac`` files and a MultiService."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from ces.messenger.messenger import Messenger


class MessengerService(Service):
    """A service that connects a messenger when it starts and closes it when it stops.

    :param messenger: the messenger. Register callbacks on it before the service starts.
    """

    def __init__(self, messenger: Messenger) -> None:
        self.messenger = messenger

    def startService(self) -> None:
        """Connect. The service is started even when the hub is away."""
        super().startService()
        self.messenger.connect()

    def stopService(self) -> Deferred[None]:
        """Close the messenger. Fires when the connection is closed."""
        super().stopService()
        return self.messenger.close()
