"""What the service is compared with, each as small as it can be."""

from typing import Final

READY: Final = "ready to answer"
"""What a baseline prints when it is, unless it can be asked."""
