"""An agreement as an ODRL 2.2 Agreement in JSON-LD, with terms of the Data Privacy Vocabulary (DPV).

For whoever compares agreements with tools of their own. An export and nothing else: the hub never reads it,
and the file decides. ODRL's *permission* is a grant (its constraints are the conditions, the purposes and the
term; its duties the obligations), its *prohibition* a guard. `conflict: prohibit` says that guards win. A
referral is a permission whose duty is to obtain consent of a person of the holder.
"""

from collections.abc import Iterator
from typing import Any

from consent.agreement import Agreement, Agreements, BreakGlass, Clause
from consent.clause import BASES, OBLIGATIONS
from consent.conditions import meaning
from consent.guards import GUARDS
from consent.plain import KIND_NAMES, PURPOSE_NAMES
from schemas.classes import CLASSES

NAMESPACE = "urn:isr:terms:"
CONTEXT: list[Any] = [
    "http://www.w3.org/ns/odrl.jsonld",
    {
        "dpv": "https://w3id.org/dpv#",
        "dct": "http://purl.org/dc/terms/",
        "isr": NAMESPACE,
    },
]


def odrl_agreement(agreements: Agreements, agreement: Agreement) -> dict[str, Any]:
    """*agreement* as JSON-LD."""
    terms: dict[str, Any] = {
        "dct:title": agreement.title,
        "dct:description": agreement.purpose,
        "dct:hasVersion": str(agreement.version),
        "isr:status": agreement.status,
        "isr:reviewBy": agreement.review_by.isoformat(),
    }
    return {
        "@context": CONTEXT,
        "@type": "Agreement",
        "uid": f"urn:isr:agreement:{agreement.id}:{agreement.version}",
        "profile": "urn:isr:profile:1",
        "conflict": "prohibit",
        "inheritAllowed": False,
        **terms,
        "assigner": {
            "@type": "PartyCollection",
            "uid": "urn:isr:parties",
            "dct:title": "parties that hold it",
        },
        "assignee": [
            {"@type": "PartyCollection", "uid": _party(agreements, recipient)}
            for recipient in sorted(
                {
                    c.recipient
                    for c in (*agreement.clauses, *(glass.clause for glass in agreement.break_glass))
                }
            )
        ],
        "permission": [
            *(p for clause in agreement.clauses for p in _permissions(agreements, agreement, clause)),
            *(p for glass in agreement.break_glass for p in _emergencies(agreements, agreement, glass)),
        ],
        "prohibition": list(_prohibitions()),
        "obligation": [],
    }


def odrl_agreements(agreements: Agreements) -> dict[str, Any]:
    """All of *agreements* as one JSON-LD graph, by id."""
    ordered = sorted(agreements, key=lambda a: (a.id, a.version))
    graph = []
    for agreement in ordered:
        policy = odrl_agreement(agreements, agreement)
        graph.append({name: value for name, value in policy.items() if name != "@context"})
    return {"@context": CONTEXT, "@graph": graph}


def _permissions(agreements: Agreements, agreement: Agreement, clause: Clause) -> Iterator[dict[str, Any]]:
    words = [(role, name, view) for role, classes in clause.grants.items() for name, view in classes.items()]
    words += [(role, name, "refer") for role, names in clause.refer.items() for name in sorted(names)]
    for role, name, view in words:
        duties = [_duty(obligation) for obligation in clause.obligations]
        if view == "refer":
            # ODRL: consent obtained before the permission holds.
            duties.insert(0, {"action": "obtainConsent", "isr:from": "a person of the agency that holds it"})
        yield {
            "uid": f"urn:isr:agreement:{agreement.id}:{agreement.version}:{clause.id}:{role}:{name}",
            "target": _target(role, name, view),
            "action": "distribute",
            "assigner": {
                "@type": "PartyCollection",
                "uid": "urn:isr:parties",
                "isr:sources": sorted(clause.sources),
            },
            "assignee": {
                "@type": "PartyCollection",
                "uid": _party(agreements, clause.recipient),
                "dpv:hasRecipient": KIND_NAMES.get(clause.recipient, clause.recipient),
            },
            "constraint": list(_constraints(agreement, clause)),
            "duty": duties,
            "dpv:hasLegalBasis": [
                {
                    "@type": "dpv:LegalBasis",
                    "uid": f"urn:isr:basis:{basis.code}",
                    "dct:title": f"{BASES[basis.code].title} {basis.section}",
                }
                for basis in clause.basis
            ],
            "isr:belief": {
                "isr:kind": clause.belief.kind,
                "isr:statement": clause.belief.statement,
                "isr:decidedBy": clause.belief.decided_by,
                "isr:decidedOn": clause.belief.decided_on.isoformat(),
            },
        }


def _emergencies(agreements: Agreements, agreement: Agreement, glass: BreakGlass) -> Iterator[dict[str, Any]]:
    """The permissions that hold only while an override runs."""
    for permission in _permissions(agreements, agreement, glass.clause):
        permission["constraint"] += [
            {
                "leftOperand": "urn:isr:override",
                "operator": "isAnyOf",
                "rightOperand": [{"@id": f"urn:isr:threat:{threat}"} for threat in sorted(glass.threats)],
                "dct:description": f"an override runs; approval {glass.approval}, reviewed afterwards",
            },
            {
                "leftOperand": "elapsedTime",
                "operator": "lteq",
                "rightOperand": {"@value": f"PT{glass.minutes}M", "@type": "xsd:duration"},
            },
        ]
        yield permission


def _target(role: str, name: str, view: str) -> dict[str, Any]:
    data_class = CLASSES[name]
    return {
        "@type": [
            "AssetCollection",
            "dpv:SensitivePersonalData" if data_class.health else "dpv:PersonalData",
        ],
        "uid": f"urn:isr:class:{name}:{role}" + (":reduced" if view == "reduced" else ""),
        "dct:title": data_class.title,
        "dpv:hasDataSubject": f"urn:isr:role:{role}",
        "isr:view": "reduced" if view == "reduced" else "full",
        "isr:tier": data_class.tier,
    }


def _constraints(agreement: Agreement, clause: Clause) -> Iterator[dict[str, Any]]:
    yield {
        "leftOperand": "purpose",
        "operator": "isAnyOf",
        "rightOperand": [
            {"@id": f"urn:isr:purpose:{p}", "@type": "dpv:Purpose", "dct:title": PURPOSE_NAMES[p]}
            for p in sorted(clause.purposes)
        ],
    }
    begins = max(agreement.effective_from, clause.belief.decided_on)
    ends = min(clause.belief.until, agreement.effective_to or clause.belief.until)
    for operator, day in (("gteq", begins), ("lteq", ends)):
        yield {
            "leftOperand": "dateTime",
            "operator": operator,
            "rightOperand": {"@value": day.isoformat(), "@type": "xsd:date"},
        }
    for name in clause.conditions:
        yield {
            "leftOperand": f"urn:isr:condition:{name}",
            "operator": "eq",
            "rightOperand": {"@value": "true", "@type": "xsd:boolean"},
            "dct:description": meaning(name),
        }


def _duty(obligation: str) -> dict[str, Any]:
    return {
        "uid": f"urn:isr:obligation:{obligation}",
        "action": _ACTIONS.get(obligation, f"urn:isr:action:{obligation}"),
        "dct:description": OBLIGATIONS[obligation],
        "dpv:hasOrganisationalMeasure": f"urn:isr:obligation:{obligation}",
    }


# Where ODRL's own vocabulary has a word for it.
_ACTIONS = {"delete-when-closed": "delete", "acknowledge-recall": "inform"}


def _prohibitions() -> Iterator[dict[str, Any]]:
    for code, (protects, _) in GUARDS.items():
        yield {
            "uid": f"urn:isr:guard:{code}",
            "target": {"@type": "AssetCollection", "uid": "urn:isr:class:any"},
            "action": "distribute",
            "assigner": {"@type": "PartyCollection", "uid": "urn:isr:parties"},
            "assignee": {"@type": "PartyCollection", "uid": "urn:isr:parties"},
            "constraint": [
                {
                    "leftOperand": f"urn:isr:guard:{code}",
                    "operator": "eq",
                    "rightOperand": {"@value": "true", "@type": "xsd:boolean"},
                }
            ],
            "dct:description": protects,
        }


def _party(agreements: Agreements, recipient: str) -> str:
    return f"urn:isr:{recipient}" if recipient in agreements.parties else f"urn:isr:kind:{recipient}"
