"""Everything that `./deploy.py` does on AWS.

Shared: account (clients, names, tags), calls (reading what exists), changes (planning and doing),
clock, messages, endpoint_settings.

Resources, each with find, ensure and remove: bucket, identity, logs, registry, models, configs,
endpoints, scaling, alarms.

Commands: up (with smoke and cost), status, down, batch, push (what build.sh asks for);
command_line parses the arguments.
"""
