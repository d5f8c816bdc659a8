"""Shows twistd the two roles; what they are made of is imported only when one of them runs."""

from twisted.application.service import ServiceMaker

CesHub = ServiceMaker(
    "Central Event System: hub",
    "ces.tap.hub",
    "Carry events between messengers, repeaters and hubs.",
    "ces-hub",
)
CesRepeater = ServiceMaker(
    "Central Event System: repeater",
    "ces.tap.repeater",
    "Carry events between a hub and the outside.",
    "ces-repeater",
)
