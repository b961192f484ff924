"""The Celery side: everything that runs a job.

settings, errors, broker, store   the front door: all that `app` may import
supervise                         the worker's main process: forks, beats, reaps, keeps the watch
child_process                     the children as it sees them, and whether they make progress
consume                           one child: a Celery worker that takes one job at a time
run                               the Celery task: a message to the attempts of its jobs
attempt                           one attempt: claim, load, call, keep the result
child                             the process that jobs run in, and its connections
load                              from an action's version to its callable
logs                              a handler's log records to the job's log
heartbeat                         Celery's, for children that are busy
watch                             finds lost jobs again, ends late ones, deletes old ones
lakehouse                         datasets as handlers see them; its names for handlers: `forepaas`
"""
