"""The loopback interface of a new network namespace: brought up, and given more addresses.

By rtnetlink, https://man7.org/linux/man-pages/man7/rtnetlink.7.html: one way for IPv4 and IPv6.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct

_LOOPBACK = 1
"""The index of ``lo`` in every network namespace."""

_NLMSG_ERROR = 2
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE = 1, 4, 0x400
_RTM_NEWLINK, _RTM_NEWADDR = 16, 20
_IFF_UP = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_F_NODAD = 1, 2, 2

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def raise_loopback() -> None:
    """:raises OSError: without CAP_NET_ADMIN in the namespace."""
    _ask(_RTM_NEWLINK, struct.pack("=BxHiII", socket.AF_UNSPEC, 0, _LOOPBACK, _IFF_UP, _IFF_UP))


def add_address(address: Address) -> None:
    """Makes ``address`` one of loopback's own, so that it is dialled here and nowhere else.

    :raises OSError: without CAP_NET_ADMIN, or where IPv6 is switched off.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    packed = address.packed
    head = struct.pack("=BBBBI", family, len(packed) * 8, _IFA_F_NODAD, 0, _LOOPBACK)
    # struct rtattr: length with its own four bytes, type, value; all are multiples of four here.
    attributes = [
        struct.pack("=HH", 4 + len(packed), kind) + packed for kind in (_IFA_LOCAL, _IFA_ADDRESS)
    ]
    _ask(_RTM_NEWADDR, head + b"".join(attributes), _NLM_F_CREATE)


def names() -> list[str]:
    """The interfaces of this process's network namespace."""
    with open("/proc/self/net/dev", encoding="ascii") as file:
        return [line.partition(":")[0].strip() for line in file if ":" in line]


def _ask(kind: int, payload: bytes, flags: int = 0) -> None:
    """Sends one request and waits for its acknowledgement.

    :raises OSError: with the errno that the kernel answered.
    """
    asked = flags | _NLM_F_REQUEST | _NLM_F_ACK
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        link.send(struct.pack("=IHHII", 16 + len(payload), kind, asked, 1, 0) + payload)
        answer = link.recv(4096)
    if struct.unpack_from("=H", answer, 4)[0] == _NLMSG_ERROR:
        number = -struct.unpack_from("=i", answer, 16)[0]
        if number:
            raise OSError(number, f"loopback interface: {os.strerror(number)}")
