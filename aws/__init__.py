"""Everything that `./deploy.py` does on AWS.

Shared: account (clients, names, tags), calls (reading what exists), changes (planning and doing),
clock, messages, metrics, endpoint_settings.

Resources, each with find, ensure and remove: bucket, identity, logs, registry, models, configs,
endpoints, scaling, alarms, notify, dashboard, quotas, painters (with their catalog), trainings.

Commands: up (with release, capacity, history, sleep, smoke and cost), rollback, status, down
(with leftovers), batch, train (with training_files and follow), show_logs, spent, push (what
build.sh asks for); command_line parses the arguments. invocations sends a request to an endpoint,
for up and train.
"""
