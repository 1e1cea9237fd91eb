"""Who is told: the SNS topic to which the alarms are sent, its addresses, and the budget.

A budget writes to the addresses by itself. AWS Budgets has no regions.
"""

from dataclasses import dataclass
from decimal import Decimal

from aws.account import Account
from aws.calls import Answer, delete_if_present, find, perform
from aws.changes import Change, Changes
from aws.messages import DeployError

# What SNS says for some days in the place of the ARN of a subscription that its owner has ended.
# Of one that is not confirmed yet it says "PendingConfirmation".
DELETED = "Deleted"
# The costs of the whole account in this month are above 100 % of the limit.
EXCEEDED = {
    "NotificationType": "ACTUAL",
    "ComparisonOperator": "GREATER_THAN",
    "Threshold": 100.0,
    "ThresholdType": "PERCENTAGE",
}


@dataclass(frozen=True)
class NotifySettings:
    """What the user asks for. Without a member, what exists already stays."""

    # An e-mail address to be told of alarms
    address: str | None = None
    # Of which month's costs to tell
    dollars: Decimal | None = None


# What `up` does without its options
KEEP = NotifySettings()


def check_settings(account: Account, settings: NotifySettings) -> None:
    """Raise DeployError if there can be no budget, or it would tell nobody."""
    if settings.dollars is None:
        return
    if not account.has_budgets:
        raise DeployError(
            f"--budget counts dollars, and AWS Budgets counts none in {account.region}: leave it "
            "out, and look after the costs where the account is paid."
        )
    wanted_addresses(account, settings.address)


def find_topic(account: Account) -> Answer | None:
    return find(account.sns.get_topic_attributes, TopicArn=account.topic_arn)


def find_addresses(account: Account) -> dict[str, bool]:
    """Return the e-mail addresses that are told of alarms, and whether each has confirmed it."""
    addresses: dict[str, bool] = {}
    token: dict[str, str] = {}
    while True:
        found = find(
            account.sns.list_subscriptions_by_topic, TopicArn=account.topic_arn, **token
        ) or {"Subscriptions": []}
        for item in found["Subscriptions"]:
            if item["Protocol"] == "email" and item["SubscriptionArn"] != DELETED:
                addresses[item["Endpoint"]] = item["SubscriptionArn"].startswith("arn:")
        if not found.get("NextToken"):
            return addresses
        token = {"NextToken": found["NextToken"]}


def ensure_topic(account: Account, address: str | None) -> Changes:
    """Yield what is missing to have the topic, which tells `address` too.

    The topic is not encrypted: CloudWatch may not use AWS's own key for it, and no alarm has a
    secret in it.
    """
    if find_topic(account) is None:
        name = account.topic_arn.rpartition(":")[2]
        yield Change(
            f"create the topic {name}",
            lambda: perform(
                account.clock, account.sns.create_topic, Name=name, Tags=account.tag_list
            ),
        )
    if address and not find_addresses(account).get(address):
        # If it has not confirmed it yet, this sends another e-mail.
        yield Change(
            f"tell {address} of alarms; AWS sends an e-mail first, whose link confirms it",
            lambda: perform(
                account.clock,
                account.sns.subscribe,
                TopicArn=account.topic_arn,
                Protocol="email",
                Endpoint=address,
            ),
        )


def remove_topic(account: Account) -> Changes:
    """Yield the deletion of the topic and its subscriptions, if `up` created it."""
    if find_topic(account) is None:
        return
    tags = account.sns.list_tags_for_resource(ResourceArn=account.topic_arn)["Tags"]
    if not account.is_ours(tags):
        return
    yield Change(
        f"delete the topic {account.topic_arn.rpartition(':')[2]} and its subscriptions",
        lambda: delete_if_present(
            account.clock, account.sns.delete_topic, TopicArn=account.topic_arn
        ),
    )


# ---------------------------------------------------------------- the budget


def find_budget(account: Account) -> Answer | None:
    if not account.has_budgets:
        return None
    found = find(account.budgets.describe_budget, AccountId=account.id, BudgetName=account.budget)
    if found is None:
        return None
    budget: Answer = found["Budget"]
    return budget


def ensure_budget(account: Account, settings: NotifySettings) -> Changes:
    """Yield what is missing to have a budget of so many dollars a month that tells the addresses.

    Raises DeployError if there is nobody to tell.
    """
    dollars = settings.dollars
    address = settings.address
    budget = find_budget(account)
    if budget is None:
        if dollars is not None:
            yield creation(account, dollars, wanted_addresses(account, address))
        return
    if dollars is not None and Decimal(budget["BudgetLimit"]["Amount"]) != dollars:
        yield Change(
            f"set the budget {account.budget} to ${dollars} a month",
            lambda: perform(
                account.clock,
                account.budgets.update_budget,
                AccountId=account.id,
                NewBudget=describe_budget(account, dollars),
            ),
        )
    if address and address not in find_budget_addresses(account):
        yield Change(
            f"tell {address} when the budget {account.budget} is exceeded",
            lambda: perform(
                account.clock,
                account.budgets.create_subscriber,
                AccountId=account.id,
                BudgetName=account.budget,
                Notification=EXCEEDED,
                Subscriber=subscriber(address),
            ),
        )


def wanted_addresses(account: Account, address: str | None) -> list[str]:
    """Return the addresses of the topic and the new one. Raises DeployError if there is none."""
    addresses = find_addresses(account)
    if address:
        addresses[address] = False
    if not addresses:
        raise DeployError("--budget tells nobody: add --notify ADDRESS.")
    return list(addresses)


def creation(account: Account, dollars: Decimal, addresses: list[str]) -> Change:
    return Change(
        f"create the budget {account.budget}: ${dollars} a month for the whole account, told to "
        + ", ".join(addresses),
        lambda: perform(
            account.clock,
            account.budgets.create_budget,
            AccountId=account.id,
            Budget=describe_budget(account, dollars),
            NotificationsWithSubscribers=[
                {
                    "Notification": EXCEEDED,
                    "Subscribers": [subscriber(address) for address in addresses],
                }
            ],
            ResourceTags=account.tag_list,
        ),
    )


def describe_budget(account: Account, dollars: Decimal) -> Answer:
    """Return the budget as CreateBudget takes it."""
    return {
        "BudgetName": account.budget,
        "BudgetLimit": {"Amount": str(dollars), "Unit": "USD"},
        "BudgetType": "COST",
        "TimeUnit": "MONTHLY",
    }


def subscriber(address: str) -> dict[str, str]:
    return {"SubscriptionType": "EMAIL", "Address": address}


def find_budget_addresses(account: Account) -> list[str]:
    found = find(
        account.budgets.describe_subscribers_for_notification,
        AccountId=account.id,
        BudgetName=account.budget,
        Notification=EXCEEDED,
    ) or {"Subscribers": []}
    return [item["Address"] for item in found["Subscribers"]]


def remove_budget(account: Account) -> Changes:
    """Yield the deletion of the budget, if `up` created it."""
    if find_budget(account) is None:
        return
    arn = f"arn:{account.partition}:budgets::{account.id}:budget/{account.budget}"
    tags = account.budgets.list_tags_for_resource(ResourceARN=arn)["ResourceTags"]
    if not account.is_ours(tags):
        return
    yield Change(
        f"delete the budget {account.budget}",
        lambda: delete_if_present(
            account.clock,
            account.budgets.delete_budget,
            AccountId=account.id,
            BudgetName=account.budget,
        ),
    )
