"""What every ledger entry says, as far as the ledger and those who verify it need to know.

An entry is one JSON object. It names its `kind`, the time `at`, and the `source`, `message` and `party`
that it is about; what else it holds is the business of whoever wrote it.
"""

DISCLOSURE = "disclosure"
REFUSAL = "refusal"
REFERRAL = "referral"
DELIVERY = "delivery"
DECISION_KINDS = (DISCLOSURE, REFUSAL, REFERRAL)  # one of these, once, for each message and party
COMMON_FIELDS = ("kind", "at", "source", "message", "party")
