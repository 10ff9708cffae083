"""A headless Chromium, controlled over its DevTools protocol (https://chromedevtools.github.io/devtools-protocol/).

The protocol runs over pipes, so no other process can connect to a port and control the browser, and no library is needed.
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
"""Chromium reads the protocol from descriptor 3 and writes it to descriptor 4."""


def is_installed() -> bool:
    """Return whether Chromium is installed on this machine."""
    return shutil.which("chromium") is not None


class Browser:
    """One browser with one page. It must not be used by several threads at the same time."""

    def __init__(self, profile: Path, size: tuple[int, int] = (1280, 800)) -> None:
        """Start the browser.

        :param profile: folder of the user profile.
        :param size: width and height of the window in pixels.
        """
        command = ["sh", "-c", _PIPE_COMMAND, "sh", "chromium", *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._output, self._input = self._process.stdin, self._process.stdout
        self._readable = selectors.DefaultSelector()
        self._readable.register(self._input, selectors.EVENT_READ)
        self._received = b""
        self._last_id = 0
        self._session: dict[str, str] = {}
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        self._call("Page.enable")
        self.resize(*size)

    def close(self) -> None:
        """Close the browser: it exits when its pipes are closed."""
        self._output.close()
        try:
            self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_EXIT_TIMEOUT_S)
        self._readable.close()
        self._input.close()

    def resize(self, width: int, height: int) -> None:
        """Resize the window; width and height are in pixels."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, url: str) -> None:
        """Open a page and wait until it has loaded with its images."""
        self._call("Page.navigate", url=url)
        self.wait_for_load()

    def clear_cookies(self) -> None:
        """Delete the cookies of all hosts."""
        self._call("Storage.clearCookies")

    def navigate_with(self, script: str) -> None:
        """Run JavaScript that opens another page, and wait until that page has loaded."""
        self.evaluate(f"{{{script}}} null")
        self.wait_for_load()

    def wait_for_load(self) -> None:
        """Wait until the page has reloaded itself."""
        self._next("method", "Page.loadEventFired", "waiting for the load event")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression on the page. The value must be representable in JSON."""
        response = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in response, response["exceptionDetails"]
        return response["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write a screenshot of the whole page to a PNG, including the part below the window."""
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        screenshot = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=size | {"scale": 1})
        path.write_bytes(base64.b64decode(screenshot["data"]))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._last_id += 1
        message = json.dumps({"id": self._last_id, "method": method, "params": params, **self._session}).encode() + b"\0"
        while message:
            message = message[self._output.write(message) or 0 :]
        return self._next("id", self._last_id, method)["result"]  # type: ignore[no-any-return]

    def _next(self, key: str, wanted: object, what: str) -> dict[str, Any]:
        """Return the next message whose ``key`` is ``wanted``, and drop all messages before it.

        :param what: the operation, for the message of an error.
        """
        deadline = time.monotonic() + _RESPONSE_TIMEOUT_S
        while True:
            while b"\0" not in self._received:
                assert self._readable.select(deadline - time.monotonic()), f"the browser does not respond: {what}"
                chunk = self._input.read(65536)
                assert chunk, f"the browser has exited: {what}"
                self._received += chunk
            line, _, self._received = self._received.partition(b"\0")
            message: dict[str, Any] = json.loads(line)
            if message.get(key) == wanted:
                assert "error" not in message, f"{what}: {message['error']}"
                return message
