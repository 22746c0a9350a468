"""All pieces of a running node, as the routes see them."""

from __future__ import annotations

from typing import NamedTuple

from soakd.simnode.auth import Auth
from soakd.simnode.contacts import Contacts
from soakd.simnode.downloads import Downloads
from soakd.simnode.kad import Kad
from soakd.simnode.keywords import Keywords
from soakd.simnode.network import Parts
from soakd.simnode.settings import Settings
from soakd.simnode.sources import Sources


class Node(NamedTuple):
    """What the API acts upon."""

    parts: Parts
    auth: Auth
    settings: Settings
    downloads: Downloads
    contacts: Contacts
    sources: Sources
    keywords: Keywords
    kad: Kad
