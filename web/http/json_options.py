"""The options with which the JSON of responses is encoded. This module does not import Flask, so ``scripts/admin`` uses it too."""

from typing import Final

import orjson

JSON_OPTIONS: Final = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
"""Options for orjson. MongoDB returns times without a time zone, in UTC; orjson writes them with a ``Z``."""
