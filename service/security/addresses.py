"""Whether an address may be fetched from: public unicast only, also behind every way of writing one address inside of
another."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
COMPATIBLE = ipaddress.IPv6Network("::/96")
REFUSED = (
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # translation inside of a site
    ipaddress.IPv6Network("fec0::/10"),  # site-local, of old
    ipaddress.IPv6Network("5f00::/16"),  # segment routing
    ipaddress.IPv4Network("192.88.99.0/24"),  # relays of 6to4
)
ISATAP = {0x00005EFE, 0x02005EFE}


def is_public(address: Address) -> bool:
    """Every address that is written inside of this one has to be public as well."""
    return all(_is_plainly_public(one) for one in (address, *embedded(address)))


def embedded(address: Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address stands for: mapped, compatible, NAT64, 6to4, Teredo (server and client),
    ISATAP."""
    if not isinstance(address, ipaddress.IPv6Address):
        return
    low = int(address) & 0xFFFFFFFF
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address in NAT64 or address in COMPATIBLE:
        yield ipaddress.IPv4Address(low)
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if int(address) >> 32 & 0xFFFFFFFF in ISATAP:
        yield ipaddress.IPv4Address(low)


def _is_plainly_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped is not None or address in NAT64):
        return address.scope_id is None  # as public as what it stands for
    if any(address.version == network.version and address in network for network in REFUSED):
        return False
    hidden = address.is_private or address.is_multicast or address.is_reserved or address.is_unspecified
    return address.is_global and not (hidden or address.is_loopback or address.is_link_local)
