"""The Celery side: everything that runs a job.

settings, errors, broker, store   the front door: all that `app` may import
supervise                         the worker's main process: forks, beats, reaps, keeps the watch
child_process                     the children as it sees them, and whether they make progress
consume                           one child: a Celery worker that runs one job at a time
run                               the Celery task: from messages to their jobs
bundle                            jobs that are taken together, one after the other
attempt                           one attempt: claim, load, call, keep the result
hand_back                         puts jobs in hand that are not run back in line
child                             the process that jobs run in, and its connections
load                              from an action's version to its callable
logs                              a handler's log records to the job's log
events                            what Flower is told
watch                             finds lost jobs again, ends late ones, deletes old ones
lakehouse                         datasets as handlers see them; its names for handlers: `forepaas`
"""
