"""All settings, in groups. They are read from environment variables and from the files in ``SECRETS_DIR``.

The main function of a program reads the settings. No module reads them while it is imported, except the modules that
another program imports as its configuration: ``worker/entrypoints/images.py``, ``worker/entrypoints/inspections.py``
and ``web/server/gunicorn_conf.py``.

There is one module for each group. It is named after the field of ``Settings`` that holds the group. Other packages
import the names from this package.

===============  ==========================================================================================
``group``        is the base class of all groups, which determines where their values are read from
``values``       parses and checks the values of several groups
``server_urls``  checks the URLs of servers
``groups``       puts all groups together (``Settings``), and checks the rules that concern several of them
``reading``      reads the settings when a program starts, and explains which setting is wrong
===============  ==========================================================================================
"""

from shared.settings.access import Access
from shared.settings.blobs import Blobs
from shared.settings.fetch import Fetch
from shared.settings.groups import Settings
from shared.settings.inspect import Inspect
from shared.settings.limits import Limits
from shared.settings.log import Logging
from shared.settings.mongo import Mongo
from shared.settings.rates import Rates
from shared.settings.reading import explain, read
from shared.settings.redis import Redis
from shared.settings.sweep import Sweep
from shared.settings.values import MIB
from shared.settings.vision import Vision
from shared.settings.web import Web
from shared.settings.worker import Worker

__all__ = [
    "MIB",
    "Access",
    "Blobs",
    "Fetch",
    "Inspect",
    "Limits",
    "Logging",
    "Mongo",
    "Rates",
    "Redis",
    "Settings",
    "Sweep",
    "Vision",
    "Web",
    "Worker",
    "explain",
    "read",
]
