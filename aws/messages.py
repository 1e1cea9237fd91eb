"""Messages for the person at the terminal: progress, errors, and how to fix them."""

import re
import sys

from botocore.exceptions import BotoCoreError, ClientError

# A regular expression for an error's type and message, and what to do about that error.
REMEDIES = {
    r"NoCredentials|PartialCredentials|CredentialRetrieval": (
        "Log in first: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write them to "
        "~/.aws/credentials (aws configure and aws sso login do so)."
    ),
    r"ExpiredToken|RequestExpired|TokenRetrieval|SSOToken|UnauthorizedSSO|LoginRefresh": (
        "Log in again: aws sso login, or get new temporary credentials."
    ),
    r"InvalidClientTokenId|UnrecognizedClient|SignatureDoesNotMatch|AuthFailure"
    r"|InvalidAccessKeyId": (
        "AWS does not accept these credentials: check the AWS_ environment variables, ~/.aws and "
        "this computer's clock."
    ),
    r"ProfileNotFound": "Check AWS_PROFILE against ~/.aws/config.",
    r"EndpointConnection|ConnectTimeout|ReadTimeout|ProxyConnection|SSLError": (
        "Check the network (proxy, VPN), then run the same command again: it continues where it "
        "stopped."
    ),
    r"AccountLimitExceeded|builds (in queue )?for the account": (
        "A new account may run few builds, or none yet: request more under Service Quotas > AWS "
        "CodeBuild ('Concurrently running builds for Linux/Medium environment'), or build here: "
        "./build.sh --push."
    ),
    r"number of (vCPUs|tasks) you can run": (
        "A new account may run few tasks, or none yet: request more under Service Quotas > AWS "
        "Fargate ('Fargate Spot vCPU resource count')."
    ),
    r"\(LimitExceeded\)": (
        "A quota of that service in this account is used up: delete what is not needed any more, "
        "or request a higher one under Service Quotas > AWS Identity and Access Management (IAM), "
        "or Amazon CloudWatch for alarms."
    ),
    r"ResourceLimitExceeded|service limit|quota": (
        "Request a higher quota under Service Quotas > Amazon SageMaker ('for endpoint usage', "
        "'for transform job usage', 'for training job usage', 'for spot training job usage'), or "
        "choose another --instance-type."
    ),
    r"[Ii]nsufficient ?(Instance)?[Cc]apacity|Unable to provision|capacity error": (
        "AWS has no free instance of this type now: try again later, or choose another "
        "--instance-type or --region."
    ),
    r"CannotPullContainer|ResourceInitializationError": (
        "Fargate could not get the image or the token: ./deploy.py status says whether a role "
        "differs. Otherwise the default VPC lacks an internet gateway, or the route to it."
    ),
    r"Capacity is unavailable": (
        "AWS has no free Spot capacity for the bot now. ECS tries again by itself; "
        "./deploy.py status says when it runs."
    ),
    r"AccessDenied|not authorized|UnauthorizedOperation|\(403\)": (
        "These credentials lack that permission. Ask for the policies that "
        "`./deploy.py policy deployer`, `deployer-bot`, `deployer-build`, `deployer-iam` and "
        "`deployer-watch` print."
    ),
    r"health check": (
        "The container did not answer /ping with 200 in time. The log lines say why; if they "
        "mention an NVIDIA driver, choose another --ami."
    ),
    r"CannotStartContainer|exec format": (
        "The image does not start, or is not built for linux/amd64: ./build.sh --push."
    ),
    r"AlgorithmError": (
        "The trainer itself says so. If that is no help, the log group "
        "/aws/sagemaker/TrainingJobs in the CloudWatch console has more."
    ),
    r"[Tt]hrottl|TooManyRequests|Rate exceeded": (
        "AWS limits the request rate: run the same command again in a minute."
    ),
}


class DeployError(Exception):
    """An error whose message says what went wrong and what to do."""


def say(text: str) -> None:
    """Write progress to standard error, in one call, so that the lines of threads do not mix."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def output(text: str) -> None:
    """Write what other programs may read to standard output, in one call."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def explain_error(error: BaseException) -> str:
    """Return the error's message and, if it is known, what to do on a second line."""
    if isinstance(error, DeployError):
        return str(error)

    name = type(error).__name__
    if not isinstance(error, (BotoCoreError, ClientError)):
        return f"{name}: {error}"

    message = " ".join(str(error).split())
    remedy = find_remedy(f"{name} {message}")
    return f"{message}\n{remedy}".rstrip()


def find_remedy(message: str) -> str:
    """Return what to do about an error message, or "" if that is not known."""
    for pattern, remedy in REMEDIES.items():
        if re.search(pattern, message):
            return remedy
    return ""
