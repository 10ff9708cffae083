"""A headless Chromium, told what to do over its DevTools protocol (https://chromedevtools.github.io/devtools-protocol/).

The protocol goes through pipes: no port on which somebody else could tell it things, and no library.
"""

import base64
import json
import selectors
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Final

_RESPONSE_TIMEOUT_S: Final = 120.0
_EXIT_TIMEOUT_S: Final = 10.0
_FLAGS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
_PIPE_COMMAND: Final = 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1'
"""The protocol is spoken on the descriptors 3 and 4."""


def is_installed() -> bool:
    """Say whether this machine has one."""
    return shutil.which("chromium") is not None


class Browser:
    """One browser with one page. Not for several threads at once."""

    def __init__(self, profile: Path, size: tuple[int, int] = (1280, 800)) -> None:
        """Start it.

        :param profile: a folder for what it keeps.
        :param size: of its window, width and height in pixels.
        """
        command = ["sh", "-c", _PIPE_COMMAND, "sh", "chromium", *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        self._readable = selectors.DefaultSelector()
        self._readable.register(self._from, selectors.EVENT_READ)
        self._received = b""
        self._asked = 0
        self._session: dict[str, str] = {}
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        self._ask("Page.enable")
        self.resize(*size)

    def close(self) -> None:
        """End it: it does so when nobody holds the other end of its pipes."""
        self._to.close()
        try:
            self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_EXIT_TIMEOUT_S)
        self._readable.close()
        self._from.close()

    def resize(self, width: int, height: int) -> None:
        """Give its window another size, in pixels."""
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, url: str) -> None:
        """Go to a page and wait until all of it has loaded, pictures too."""
        self._ask("Page.navigate", url=url)
        self.wait_for_load()

    def leave_by(self, script: str) -> None:
        """Run JavaScript that leads to another page, and wait until that has loaded."""
        self.value(f"{{{script}}} null")
        self.wait_for_load()

    def wait_for_load(self) -> None:
        """Wait until the page has loaded once more, of its own accord."""
        self._next("method", "Page.loadEventFired", "to load")

    def value(self, expression: str) -> Any:
        """Give what an expression of JavaScript comes to on the page, as JSON can say it."""
        said = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write the whole page as it looks, also below the window's end, to a PNG."""
        size = self._ask("Page.getLayoutMetrics")["cssContentSize"]
        shot = self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=size | {"scale": 1})
        path.write_bytes(base64.b64decode(shot["data"]))

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._asked += 1
        message = json.dumps({"id": self._asked, "method": method, "params": params, **self._session}).encode() + b"\0"
        while message:
            message = message[self._to.write(message) or 0 :]
        return self._next("id", self._asked, method)["result"]  # type: ignore[no-any-return]

    def _next(self, key: str, wanted: object, what: str) -> dict[str, Any]:
        """Read until a message with this value; all others before it are of no interest."""
        until = time.monotonic() + _RESPONSE_TIMEOUT_S
        while True:
            while b"\0" not in self._received:
                assert self._readable.select(until - time.monotonic()), f"the browser does not answer: {what}"
                more = self._from.read(65536)
                assert more, f"the browser is gone: {what}"
                self._received += more
            line, _, self._received = self._received.partition(b"\0")
            message: dict[str, Any] = json.loads(line)
            if message.get(key) == wanted:
                assert "error" not in message, f"{what}: {message['error']}"
                return message
