"""What Flower keeps of jobs, at a fifth of the processor time that it and Celery take for it.

Left out is what nobody looks at here: Celery's heap of all events, its sets of tasks by name and by
worker, the children of each task.  Made later is the index of Flower's searches: when one comes.
"""

from collections import deque
from typing import Any

from celery import states
from celery.events.state import Task
from flower.events import Events, EventsState
from flower.utils.search import SearchPage, TaskSearchEngine
from prometheus_client.metrics import MetricWrapperBase

# A state of ours, between those that Celery has: without a place it would be taken for an end.
states.PRECEDENCE_LOOKUP["BUILDING"] = states.PRECEDENCE_LOOKUP["STARTED"]


class JobsEvents(Events):
    """Wakes Flower's loop once for all events of a message: once for each takes as long as they."""

    state: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._come: deque[dict[str, Any]] = deque()

    def on_event(self, event: dict[str, Any]) -> None:
        """Called by the thread that listens to the broker."""
        self._come.append(event)
        if len(self._come) == 1:
            self.io_loop.add_callback(self._hand_on)

    def _hand_on(self) -> None:
        try:
            while self._come:
                self.state.event(self._come.popleft())
        finally:
            if self._come:  # one was not as an event should be: the others are
                self.io_loop.add_callback(self._hand_on)


class JobTask(Task):
    """A job, which has no children."""

    def __init__(
        self, uuid: Any = None, cluster_state: Any = None, children: Any = None, **fields: Any
    ) -> None:
        self.uuid, self.cluster_state, self.children = uuid, cluster_state, ()
        self.__dict__.update(fields)

    def as_dict(self) -> dict[str, Any]:
        """All fields, to be shown and saved."""
        ids = {"root": self.root_id, "parent": self.parent_id}
        return {name: ids[name] if name in ids else getattr(self, name) for name in self._fields}


class JobsSearch(TaskSearchEngine):
    """An index of 2,000 tasks takes as long to make as that of one second's events."""

    stale = True

    def search(self, tasks: Any, *args: Any, **options: Any) -> SearchPage:
        """Find tasks; of `tasks` as they are now."""
        if self.stale:
            self.rebuild(tasks.items())
            self.stale = False
        return super().search(tasks, *args, **options)


class JobsState(EventsState):
    """`forgotten_at` is when the newest of the tasks came that have made room for newer ones."""

    Task = JobTask
    forgotten_at = 0.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.search_engine = JobsSearch()
        for metric in (self.metrics.events, self.metrics.runtime, self.metrics.prefetch_time):
            _look_up_labels(metric)

    def event(self, event: dict[str, Any]) -> None:
        """Keep what an event tells."""
        kind, hostname, timestamp = event["type"], event["hostname"], event["timestamp"]
        if not kind.startswith("task-"):
            super().event(event)
            return
        local_received = event["local_received"]
        task = self._task(event["uuid"])
        worker = self.workers.data.get(hostname) or self.get_or_create_worker(hostname)[0]
        task.worker = worker
        worker.event(None, local_received, timestamp)  # it lives; in Celery's order
        task.event(kind[5:], timestamp, local_received, event)
        if task.name:
            self._seen_types.add(task.name)
        self.search_engine.stale = True
        counts = self.counter[hostname]
        counts[kind] += 1
        self.metrics.observe_task(hostname, event, task)
        if "received" in event:  # the one event of a short job
            counts["task-received"] += 1
            self.metrics.events.labels(hostname, "task-received", task.name or "").inc()

    def _task(self, uuid: str) -> Any:
        tasks: Any = self.tasks.data  # an OrderedDict; those told of last are at its end
        if uuid in tasks:
            tasks.move_to_end(uuid)
            return tasks[uuid]
        if len(tasks) >= self.max_tasks_in_memory:
            _, oldest = tasks.popitem(last=False)
            self.forgotten_at = max(self.forgotten_at, getattr(oldest, "local_received", 0.0))
        task = tasks[uuid] = self.Task(uuid, cluster_state=self)
        return task


def _look_up_labels(metric: MetricWrapperBase) -> None:
    """Have it find labels that it has had before without what it does for new ones."""
    made = metric.labels

    def labels(*values: str) -> Any:
        return metric._metrics.get(values) or made(*values)

    setattr(metric, "labels", labels)  # noqa: B010 -- for the type checker
