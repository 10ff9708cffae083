"""The alerting rules for Prometheus use metrics that the service returns."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from shared.ledger import sums
from shared.storage.mongo import Db
from tests.support.paths import ROOT

RULES: Final = ROOT / "deploy/prometheus/alerts.yaml"
CASES: Final = Path(__file__).with_name("alert_cases.yaml")


def read_rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def test_each_rule_has_a_severity_a_summary_and_a_description() -> None:
    rules = read_rules()
    assert len({rule["alert"] for rule in rules}) == len(rules) == 10
    for rule in rules:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description"}
        assert re.fullmatch(r"Shelfsight[A-Za-z]+", rule["alert"])


def test_the_rule_of_the_ledger_names_what_it_is_about() -> None:
    (rule,) = [rule for rule in read_rules() if rule["alert"] == "ShelfsightLedgerUnbalanced"]
    assert {"shelfsight_ledger_missing_images", "shelfsight_ledger_unbalanced_batches"} == set(re.findall(r"shelfsight_\w+", rule["expr"]))
    for cause in ("removed by hand or lost", "added by hand"):
        assert cause in rule["annotations"]["description"]


def test_each_rule_uses_metrics_and_labels_that_the_service_returns(web: FlaskClient, db: Db) -> None:
    sums.refresh(db, 0)
    families = text_string_to_metric_families(web.get("/metrics").get_data(as_text=True))
    samples = [sample for family in families for sample in family.samples]
    names = {sample.name for sample in samples}
    labels = {(sample.name, name, value) for sample in samples for name, value in sample.labels.items()}
    for rule in read_rules():
        used = set(re.findall(r"shelfsight_\w+", rule["expr"]))
        assert used
        assert used <= names
        selected = {(metric, *label) for metric, selector in re.findall(r"(shelfsight_\w+)\{(.*?)\}", rule["expr"]) for label in re.findall(r'(\w+)="(\w+)"', selector)}
        assert selected <= labels
        texts = " ".join(rule["annotations"].values())
        assert {"queue"} >= set(re.findall(r"\$labels\.(\w+)", texts))
        if "$labels.queue" in texts:
            assert all(any(name == metric and label == "queue" for name, label, _ in labels) for metric in used)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_rules_report_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    cases = tmp_path / "cases.yaml"
    cases.write_text(CASES.read_text().replace("[RULES]", f"[{RULES}]"))
    for command in (["check", "rules", str(RULES)], ["test", "rules", str(cases)]):
        completed = subprocess.run(["promtool", *command], capture_output=True, text=True, timeout=60, check=False)
        assert completed.returncode == 0, completed.stdout + completed.stderr
