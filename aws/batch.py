"""The command batch: stylize a list of pictures with a batch transform job."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import PurePosixPath

from aws.account import Account
from aws.calls import Answer, delete_if_present, find, find_created, perform
from aws.changes import Change, Changes, apply
from aws.endpoints import find_endpoint
from aws.identity import find_policy, find_role, has_boundary, read_boundary
from aws.logs import ensure_transform_log_group
from aws.messages import DeployError, output, say

CONTENT_TYPES = {
    ".csv": "text/csv",
    ".jsonl": "application/jsonlines",
    ".jsonlines": "application/jsonlines",
}
RUNNING = ("InProgress", "Stopping")
POLL_SECONDS = 15.0


@dataclass(frozen=True)
class Row:
    """One picture of the list."""

    content_url: str
    # As the container reads it: cells in CSV, or a JSON object
    line: str


@dataclass(frozen=True)
class BatchJob:
    """One batch transform job."""

    name: str
    # The SageMaker model that it runs
    model: str
    content_type: str
    instance_type: str
    rows: list[Row]
    # s3://BUCKET/FOLDER for the results of rows that name no place
    results_url: str

    @property
    def input_key(self) -> str:
        return f"batch/{self.name}/input"

    @property
    def answers_folder(self) -> str:
        return f"batch/{self.name}/answers"

    @property
    def answers_key(self) -> str:
        """Return the key of SageMaker's output: the input's name with .out, one line for a row."""
        return f"{self.answers_folder}/input.out"


def batch(
    account: Account, source: str, style: str, output_url: str | None, instance_type: str
) -> int:
    """Run the command batch and return its exit code: 1 if rows failed.

    `source` is the list, s3://BUCKET/KEY. `style` is the style of rows without one: a picture's
    URL for nst, or a style's name for cyclegan. Raises DeployError if the list cannot be read, the
    endpoint does not exist, or the whole job failed.
    """
    job = prepare_job(account, source, style, output_url, instance_type)
    text = "".join(f"{row.line}\n" for row in job.rows)
    account.s3.put_object(Bucket=account.bucket, Key=job.input_key, Body=text.encode())

    revoke_access_of_ended_jobs(account)
    apply(grant_access(account, job))
    try:
        # SageMaker would create one that keeps its lines for ever.
        apply(ensure_transform_log_group(account))
        apply([start_job(account, job)])
        watch_job(account, job)
    finally:
        revoke_access(account, job.name)
    return print_results(account, job)


def prepare_job(
    account: Account, source: str, style: str, output_url: str | None, instance_type: str
) -> BatchJob:
    """Read the list and return the job, not started yet."""
    model = "nst" if is_url(style) else "cyclegan"
    bucket, key = split_s3_url(source, "--input")
    content_type = CONTENT_TYPES.get(PurePosixPath(key).suffix.lower())
    if content_type is None:
        raise DeployError(f"--input must end in {' or '.join(CONTENT_TYPES)}; {source} does not.")
    found = find(account.s3.get_object, Bucket=bucket, Key=key)
    if found is None:
        upload = f"boto3.client('s3').upload_file('FILE', '{bucket}', '{key}')"
        raise DeployError(
            f"{source} does not exist. Upload it first: "
            f'.venv/bin/python -c "import boto3; {upload}"'
        )

    now = datetime.now(timezone.utc)
    name = f"{account.prefix}-{model}-{now:%Y%m%d-%H%M%S}"
    results_url = f"s3://{account.bucket}/batch/{name}/results"
    if output_url:
        results_url = output_url.rstrip("/")
        split_s3_url(f"{results_url}/x", "--output")

    text = found["Body"].read().decode("utf-8-sig")
    if content_type == "text/csv":
        rows = read_csv(text, style, results_url)
    else:
        rows = read_json_lines(text, style, results_url)
    if not rows:
        raise DeployError(f"{source} has no rows.")

    sagemaker_model = find_sagemaker_model(account, account.endpoint_name(model))
    return BatchJob(name, sagemaker_model, content_type, instance_type, rows, results_url)


def is_url(style: str) -> bool:
    return "://" in style


def split_s3_url(url: str, option: str) -> tuple[str, str]:
    """Return bucket and key of s3://BUCKET/KEY. Raises DeployError, naming the option."""
    match = re.fullmatch(r"s3://([^/]+)/(.+)", url)
    if match is None:
        raise DeployError(f"{option} must be a URL such as s3://bucket/folder/list.csv, not {url}.")
    return match[1], match[2]


def find_sagemaker_model(account: Account, endpoint_name: str) -> str:
    """Return the name of the SageMaker model that the endpoint runs."""
    endpoint = find_endpoint(account, endpoint_name)
    if endpoint is None:
        raise DeployError(
            f"The endpoint {endpoint_name} does not exist; the job would use its model. "
            "Run this first: ./deploy.py up"
        )
    config = account.sagemaker.describe_endpoint_config(
        EndpointConfigName=endpoint["EndpointConfigName"]
    )
    name: str = config["ProductionVariants"][0]["ModelName"]
    return name


# ---------------------------------------------------------------- the list


def read_csv(text: str, style: str, results_url: str) -> list[Row]:
    """Return the rows of content, style, result and parameters; blank styles and results filled in.

    A header line is skipped, and so are empty lines.
    """
    rows: list[Row] = []
    is_first = True
    for cells in csv.reader(io.StringIO(text, newline="")):
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            continue
        is_header = is_first and cells[0].lower() in ("content", "content_url")
        is_first = False
        if is_header:
            continue

        # Missing cells are blank ones.
        cells += [""] * (3 - len(cells))
        content_url = cells[0]
        cells[1] = cells[1] or style
        cells[2] = cells[2] or default_result_url(results_url, len(rows) + 1, content_url)
        rows.append(Row(content_url, format_csv(cells)))
    return rows


def format_csv(cells: list[str]) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="").writerow(cells)
    return file.getvalue()


def read_json_lines(text: str, style: str, results_url: str) -> list[Row]:
    """Return the rows, one JSON object each; missing styles and results filled in.

    Raises DeployError for a line that is no JSON object. Empty lines are skipped.
    """
    style_field = "style_url" if is_url(style) else "style_name"
    rows: list[Row] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        given = parse_json_object(line, number)
        content_url = str(given.get("content_url", ""))

        fields = {style_field: style}
        fields.update({name: value for name, value in given.items() if value})
        if not fields.get("result_url"):
            fields["result_url"] = default_result_url(results_url, len(rows) + 1, content_url)
        rows.append(Row(content_url, json.dumps(fields)))
    return rows


def parse_json_object(line: str, number: int) -> Answer:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise DeployError(
            f'Line {number} of the list is no JSON object such as {{"content_url": "s3://..."}}.'
        )
    return value


def default_result_url(results_url: str, number: int, content_url: str) -> str:
    """Return, for the first row with cat.png, RESULTS/00001-cat.jpg."""
    name = PurePosixPath(content_url.partition("?")[0]).stem or "picture"
    return f"{results_url}/{number:05}-{name}.jpg"


# ---------------------------------------------------------------- access to other buckets


def grant_access(account: Account, job: BatchJob) -> Changes:
    """Yield an inline policy for the buckets in the list, other than our own.

    The policy has the job's name, so that it can be removed after the job.
    """
    buckets = set()
    for row in job.rows:
        buckets.update(re.findall(r"s3://([^/\"\s,]+)/", row.line))
    buckets.discard(account.bucket)
    if not buckets:
        return

    resources = [f"arn:{account.partition}:s3:::{bucket}/*" for bucket in sorted(buckets)]
    require_within_boundary(account, resources)
    statement = {
        "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:PutObject"],
        "Resource": resources,
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    yield Change(
        f"give the execution role access to {', '.join(resources)} while the job runs",
        lambda: perform(
            account.clock,
            account.iam.put_role_policy,
            RoleName=account.execution_role,
            PolicyName=job.name,
            PolicyDocument=json.dumps(policy),
        ),
    )


def require_within_boundary(account: Account, resources: list[str]) -> None:
    """Raise DeployError if the permissions boundary lets no role reach these objects."""
    policy = find_policy(account, account.boundary_arn)
    role = find_role(account, account.execution_role)
    if policy is None or role is None or not has_boundary(account, role):
        return
    allowed: set[str] = set()
    for statement in read_boundary(account, policy)["Statement"]:
        if {"s3:GetObject", "s3:PutObject"} <= set(statement["Action"]):
            found = statement["Resource"]
            allowed.update([found] if isinstance(found, str) else found)
    outside = [resource for resource in resources if resource not in allowed]
    if outside:
        raise DeployError(
            f"The list names other buckets, which the permissions boundary {account.boundary} "
            f"keeps from SageMaker: {', '.join(outside)}. Copy the pictures to "
            f"s3://{account.bucket}/batch/, or let an administrator add to the boundary: "
            '{"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": '
            f"{json.dumps(outside)}}}"
        )


def revoke_access(account: Account, job_name: str) -> None:
    delete_if_present(
        account.clock,
        account.iam.delete_role_policy,
        RoleName=account.execution_role,
        PolicyName=job_name,
    )


def revoke_access_of_ended_jobs(account: Account) -> None:
    """Remove the policies of earlier runs that were killed before they could do it."""
    policies = account.iam.list_role_policies(RoleName=account.execution_role)["PolicyNames"]
    for name in policies:
        if not re.fullmatch(rf"{re.escape(account.prefix)}-\w+-\d{{8}}-\d{{6}}", name):
            continue
        job = find_transform_job(account, name)
        if job is None or job["TransformJobStatus"] not in RUNNING:
            revoke_access(account, name)


# ---------------------------------------------------------------- the job


def start_job(account: Account, job: BatchJob) -> Change:
    source = f"s3://{account.bucket}/{job.input_key}"
    arguments = {
        "TransformJobName": job.name,
        "ModelName": job.model,
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}},
            "ContentType": job.content_type,
            "SplitType": "Line",
        },
        "TransformOutput": {
            "S3OutputPath": f"s3://{account.bucket}/{job.answers_folder}",
            "Accept": "application/jsonlines",
            "AssembleWith": "Line",
        },
        "TransformResources": {"InstanceType": job.instance_type, "InstanceCount": 1},
        "BatchStrategy": "SingleRecord",
        "MaxConcurrentTransforms": 1,
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": 3600, "InvocationsMaxRetries": 1},
        "Tags": account.tag_list,
    }
    return Change(
        f"start the batch {job.name} on an {job.instance_type}",
        lambda: perform(account.clock, account.sagemaker.create_transform_job, **arguments),
    )


def find_transform_job(account: Account, name: str) -> Answer | None:
    return find(account.sagemaker.describe_transform_job, TransformJobName=name)


def watch_job(account: Account, job: BatchJob) -> None:
    """Print the job's progress until it has ended. Raises DeployError if it failed as a whole."""
    clock = account.clock
    start = clock.monotonic()
    last_line = ""
    while True:
        description = find_created(clock, lambda: find_transform_job(account, job.name))
        if description is None:
            raise DeployError(f"SageMaker does not know the batch {job.name}. Run it again.")
        state = description["TransformJobStatus"]
        done = count_results(account, job)
        line = f"{job.name}: {state}, {done} of {len(job.rows)} pictures in {job.results_url}/"
        if line != last_line:
            minutes = (clock.monotonic() - start) / 60
            say(f"{line}, {minutes:.0f} min")
            last_line = line

        if state == "Completed":
            return
        if state not in RUNNING:
            reason = description.get("FailureReason", "SageMaker gives no reason")
            raise DeployError(f"The batch {job.name} has the status {state}: {reason}")
        clock.sleep(POLL_SECONDS)


def count_results(account: Account, job: BatchJob) -> int:
    bucket, prefix = split_s3_url(job.results_url, "--output")
    paginator = account.s3.get_paginator("list_objects_v2")
    pages = paginator.paginate(Bucket=bucket, Prefix=f"{prefix}/")
    return sum(page["KeyCount"] for page in pages)


def print_results(account: Account, job: BatchJob) -> int:
    """Print each row that failed, and a summary. Return the exit code."""
    answers = read_answers(account, job)
    failed = 0
    for number, (row, answer) in enumerate(zip(job.rows, answers, strict=False), 1):
        error = answer.get("error")
        if not error:
            continue
        # A signed URL's secret stands behind the question mark.
        url = row.content_url.partition("?")[0]
        output(f"row {number}, {url}: {error['message']} ({error['code']})")
        failed += 1

    total = len(job.rows)
    output(f"{total - failed} of {total} pictures stylized.")
    output(f"Results: {job.results_url}/, or where the rows say.")
    output(f"All answers: s3://{account.bucket}/{job.answers_key}")
    return 1 if failed else 0


def read_answers(account: Account, job: BatchJob) -> list[Answer]:
    """Return the container's answer for each row; an error where SageMaker wrote none."""
    found = find(account.s3.get_object, Bucket=account.bucket, Key=job.answers_key)
    answers: list[Answer] = []
    if found is not None:
        text = found["Body"].read().decode()
        answers = [json.loads(line) for line in text.splitlines() if line.strip()]

    missing = {"error": {"code": "missing", "message": "SageMaker wrote no answer."}}
    answers += [missing] * (len(job.rows) - len(answers))
    return answers
