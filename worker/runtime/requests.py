"""The request of a Celery task: it makes the worker reconnect if its message cannot be acknowledged.

Celery itself only logs the error. Because a worker has at most one message that is not acknowledged, it then receives no
further message, and because it does not read from the connection, it does not notice that this is lost. So a worker whose
task ends while Redis is away would stay idle until it is restarted.
"""

from celery.worker.request import Request
from kombu.asynchronous import get_event_loop

from shared import telemetry


class ReconnectingRequest(Request):
    """A request whose message is acknowledged when the task has ended."""

    acknowledged: bool

    def acknowledge(self) -> None:
        """Acknowledge the message. If the connection is lost, let the event loop of the worker fail, so that it reconnects.

        Redis keeps the message, and delivers it again after the visibility timeout. It then starts a task that finds no work.
        """
        if self.acknowledged:
            return
        self.acknowledged = True
        try:
            self.message.ack()
        except self.connection_errors as error:
            telemetry.errors.warning("a wakeup could not be acknowledged, so the worker connects to redis again: %s", type(error).__name__)
            get_event_loop().call_soon(_fail, error)


def _fail(error: Exception) -> None:
    raise error
