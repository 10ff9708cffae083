"""The page of the API in a browser: an operation can be tried, and the page shows its response."""

import json

import pytest

from tests.e2e.browser import Browser
from tests.support.service_stack import Service, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_an_operation_can_be_tried(service: Service, browser: Browser) -> None:
    browser.open(f"{service.url}/docs")
    attempt = "document.querySelector('details.try[data-path=\"/limits\"]')"
    wait_until(lambda: browser.evaluate(f"!{attempt}.hidden"), 60, "the script has run")
    browser.evaluate(f"{attempt}.parentElement.open = {attempt}.open = true")
    wait_until(lambda: browser.evaluate(f"{attempt}.querySelector('form')"), 60, "the form is there")
    assert browser.evaluate(f"{attempt}.querySelector('pre').textContent") == f"curl {service.url}/limits"
    browser.evaluate(f"{attempt}.querySelector('form button').click()")
    wait_until(lambda: browser.evaluate(f"{attempt}.querySelector('[role=status]').textContent.startsWith('200 ')"), 60, "the response is shown")
    assert "max_images" in json.loads(browser.evaluate(f"{attempt}.querySelector('[aria-label=\"Response body\"]').textContent"))
