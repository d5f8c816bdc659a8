"""``twistd ces-hub``."""

from __future__ import annotations

from twisted.application.service import IService

from ces.hub.settings import HubSettings
from ces.tap.options import RoleOptions


class Options(RoleOptions[HubSettings]):
    """The options of a hub."""

    program = "ces-hub"
    summary = "A hub: carries events between messengers, repeaters and other hubs."
    settings_class = HubSettings


def makeService(options: Options) -> IService:
    """The hub as a service on the global reactor of Twisted."""
    from twisted.internet import reactor

    from ces.hub.service import make_hub_service
    from ces.ops.collector import calm
    from ces.ops.descriptors import raise_limit
    from ces.ops.logging import LogLevels

    calm()
    levels = LogLevels(options.settings.log_level)
    fault = raise_limit(options.settings.descriptors)
    if fault is not None:
        levels.logger("ces.hub").warn("{fault}", fault=fault)
    return make_hub_service(options.settings, reactor, levels)
