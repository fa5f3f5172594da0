"""A second opinion on decisions: the matrix of tests/data/matrix.csv and the safety rules, said again as
plainly as possible.

Shares no code with the engine: no clauses, no compilation, no memory. It visits each fact and asks, in
words, whether it may go.
"""

import csv
from pathlib import Path

_FILE = Path(__file__).parents[1] / "data" / "matrix.csv"
MATRIX = {row.pop("class"): row for row in csv.DictReader(_FILE.read_text(encoding="utf-8").splitlines())}
COLUMNS = ("POL", "OT", "COR", "HNZ", "GP", "MSD", "ACC", "MOJ", "EDU", "NGOV", "NGOP")
HEALTH = ("HEALTH-INJ", "MH-AOD", "SEXUAL-SENS", "ACC-CLAIM")
PLACES = ("ADDR-V", "ADDR-SAFE", "EXCL-ZONE", "CONTACT-V", "HOUSING", "EDU-ENROL", "FSP-V")

PEOPLE = ("victim", "child", "perpetrator")
CASE_AND_PEOPLE = ("case", *PEOPLE)
ABOUT = {
    "ID-CORE": PEOPLE,
    "ID-XREF": CASE_AND_PEOPLE,
    "ADDR-V": ("case", "victim", "child"),
    "ADDR-SAFE": ("victim", "child"),
    "EXCL-ZONE": CASE_AND_PEOPLE,
    "CONTACT-V": ("victim", "child"),
    "SAFE-CONTACT": CASE_AND_PEOPLE,
    "LOC-P": ("perpetrator",),
    "EPISODE-SUM": CASE_AND_PEOPLE,
    "EPISODE-NARR": CASE_AND_PEOPLE,
    "RISK": CASE_AND_PEOPLE,
    "OFFENCE-HIST": ("perpetrator",),
    "CUSTODY": ("perpetrator",),
    "ORDERS": CASE_AND_PEOPLE,
    "FIREARMS": ("case", "perpetrator"),
    "GANG": ("perpetrator",),
    "CP-STATUS": ("child",),
    "NOTIFIER-ID": ("child",),
    "CHILD-HH": ("child",),
    "HEALTH-ALERT": PEOPLE,
    "HEALTH-INJ": PEOPLE,
    "MH-AOD": PEOPLE,
    "SEXUAL-SENS": ("case", "victim", "child"),
    "ACC-CLAIM": ("victim", "child"),
    "BENEFIT": ("victim", "perpetrator"),
    "HOUSING": ("victim", "child"),
    "EDU-ENROL": ("child",),
    "FSP-V": ("case", "victim", "child"),
    "FSP-P": ("perpetrator",),
    "SERVICE": CASE_AND_PEOPLE,
    "VIEWS": ("victim", "child"),
    "RESTRICT-META": (),
    "PRIV": (),
}


def cell(name, kind):
    """A, R, H, X or - for class *name* towards *kind*; what a holder keeps itself it also receives, unless
    that is health or a place.
    """
    if name not in MATRIX:
        return "-"
    if kind == "FSS":
        if name == "HEALTH-ALERT":
            return "R"
        if name == "NOTIFIER-ID":
            return "-"
        kind = "POL"
    outcome = MATRIX[name][kind]
    if outcome == "S":
        return "-" if name in HEALTH or name in PLACES else "A"
    return outcome


def concerns(name, kind, role, outcome):
    """Whether the cell speaks of people in *role*."""
    if role in ("witness", "associate"):
        return name in ("ID-CORE", "ID-XREF") and kind in ("POL", "OT", "FSS")
    roles = ABOUT.get(name, ())
    if name == "CHILD-HH" and kind in ("POL", "OT", "FSS"):
        return role in PEOPLE
    if kind in ("COR", "NGOP") and name in ("MH-AOD", "BENEFIT", "SERVICE"):
        return role in ("case", "perpetrator") and role in roles
    if kind == "NGOP" and name == "EPISODE-NARR":
        return role in ("case", "perpetrator")
    if kind == "NGOV" and name == "BENEFIT":
        return role == "victim"
    if kind == "EDU" and outcome != "H":
        return role in roles and (role == "child" or (role == "case" and name == "EPISODE-SUM"))
    return role in roles


class World:
    """One message before one recipient. *services*: role → services of the recipient with the one person in
    that role.
    """

    def __init__(
        self,
        kind,
        *,
        purpose="FV-RISK",
        audience="table",
        risk="high",
        case_open=True,
        conflict=False,
        em=False,
        services=None,
        shared_home=False,
        perpetrator_represents=False,
        school_known=True,
        safe_house=False,
        section_66=False,
        once_perpetrator=False,
        said=("SAFE-CONTACT", "ID-XREF"),
        matter=(),
        reducible=(),
    ):
        self.kind, self.purpose, self.audience, self.risk = kind, purpose, audience, risk
        self.case_open, self.conflict, self.em = case_open, conflict, em
        self.services = services or {}
        self.shared_home, self.perpetrator_represents, self.school_known = (
            shared_home,
            perpetrator_represents,
            school_known,
        )
        self.safe_house, self.section_66, self.once_perpetrator = safe_house, section_66, once_perpetrator
        self.said = said  # of each person: whether contact is safe, and a number
        self.matter, self.reducible = matter, reducible
        self.anybody = any(self.services.values())
        his = ("perpetrator", "victim") if once_perpetrator else ("perpetrator",)
        works_for_him = any(set(self.services.get(role, ())) - {"asked"} for role in his)
        self.linked = kind in ("COR", "NGOP") or (kind == "NGOV" and works_for_him)
        self.risky = risk in ("medium", "high")
        self.own_pupil = school_known and bool({"asked", "task"} & set(self.services.get("child", ())))

    def works_with(self, role):
        return self.anybody if role == "case" else bool(self.services.get(role))

    def tasked_with(self, role):
        names = (
            set().union(*self.services.values())
            if role == "case" and self.services
            else set(self.services.get(role, ()))
        )
        return bool(names - {"table"})

    def conditions_hold(self, name, role, outcome):
        """What the agreements ask before the cell applies, whatever the guards say."""
        kind = self.kind
        # These rest on the Family Violence Act alone.
        family_violence_only = {"NGOV": "ADDR-SAFE", "COR": "EXCL-ZONE"}.get(kind) == name
        if self.purpose.startswith("CW") and family_violence_only:
            return False
        if self.purpose == "CW-ASSESS" and kind == "ACC":
            return False
        if self.purpose == "CW-ROC":
            roc = (
                "ID-CORE",
                "ID-XREF",
                "SAFE-CONTACT",
                "EPISODE-SUM",
                "EPISODE-NARR",
                "RISK",
                "ORDERS",
                "FIREARMS",
                "ADDR-V",
                "EXCL-ZONE",
                "CONTACT-V",
                "HOUSING",
                "CP-STATUS",
                "CHILD-HH",
                "EDU-ENROL",
                "NOTIFIER-ID",
            )
            if kind not in ("POL", "OT") or (outcome != "H" and name not in roc) or name in HEALTH:
                return False
        if self.conflict:
            return False
        if outcome == "H":
            if kind == "EDU":
                return self.risky and self.works_with(role)
            if kind in ("NGOV", "NGOP"):
                return self.anybody
            return self.works_with(role)
        if kind == "EDU":
            pupil = self.own_pupil and role in ("child", "case")
            return self.risky and pupil and (self.case_open or name not in ("EPISODE-SUM", "ORDERS"))
        if name in ("EPISODE-SUM", "EPISODE-NARR", "FIREARMS") and not self.case_open:
            return False
        if (
            name in ("RISK", "ORDERS")
            and not self.case_open
            and not (kind == "NGOV" and role == "perpetrator")
        ):
            return False
        if (
            kind == "GP"
            and not self.risky
            and (name not in ("ID-CORE", "ID-XREF", "SAFE-CONTACT", "HEALTH-ALERT", "FSP-V", "CONTACT-V"))
        ):
            return False
        if (
            kind == "GP"
            and not self.risky
            and name in ("ID-CORE", "ID-XREF", "SAFE-CONTACT")
            and self.purpose != "FV-PROTECT"
        ):
            return False
        if kind == "GP" and self.purpose == "CW-ROC":
            return False
        if name == "EPISODE-SUM" and kind in ("MSD", "ACC", "MOJ"):
            return self.tasked_with(role)
        if name in ("FSP-V", "CONTACT-V") and kind in ("HNZ", "GP", "MSD", "ACC", "MOJ"):
            return self.tasked_with(role) and not self.linked
        if name == "ADDR-SAFE":
            return self.tasked_with(role) and self.audience == "addressee" and not self.linked
        if name in ("ADDR-V", "CONTACT-V", "EXCL-ZONE", "HOUSING") and self.linked:
            return False
        if kind == "NGOV" and role == "perpetrator":
            return self.anybody
        if kind == "NGOP" and role in ("victim", "child") and name in ("ID-CORE", "SAFE-CONTACT"):
            return self.anybody
        return self.works_with(role)

    def view(self, name, role, outcome):
        if name == "ID-XREF" or (name == "ID-CORE" and self.kind == "NGOP" and role == "perpetrator"):
            return "full"
        return "full" if outcome == "A" else "reduced"

    def victim_was_only_asked_about(self):
        """She was the perpetrator once, and this provider has had no more than a question about her."""
        only_asked = not set(self.services.get("victim", ())) - {"asked", "table"}
        return self.once_perpetrator and self.kind in ("NGOV", "NGOP") and only_asked

    def knows_places(self):
        return (
            cell("ADDR-V", self.kind) == "A"
            and not self.linked
            and not self.conflict
            and self.works_with("victim")
            and not self.victim_was_only_asked_about()
            and (self.purpose != "CW-ROC" or self.kind in ("POL", "OT"))
        )

    def never(self, name, role, locates, text):
        """Not given and not put to a person either."""
        kind = self.kind
        if self.conflict or name in ("RESTRICT-META", "PRIV"):
            return True
        if self.section_66 and not self.purpose.startswith("CW-"):
            return True
        if name == "ID-XREF" and kind in ("EDU", "NGOV", "NGOP"):
            return True
        if name == "NOTIFIER-ID" and kind not in ("OT", "POL"):
            return True
        if name == "HEALTH-ALERT" and (kind not in ("HNZ", "GP", "FSS") or role == "perpetrator"):
            return True
        if name == "HEALTH-ALERT" and role == "victim" and self.once_perpetrator:
            return True
        if self.linked and name == "EXCL-ZONE":
            return not self.em
        hidden = name in ("ADDR-V", "ADDR-SAFE", "CONTACT-V", "FSP-V", "VIEWS", "LOC-P") or locates
        if role == "perpetrator":  # what stands beside him in an order is not his
            hidden = name in ("ADDR-V", "ADDR-SAFE", "CONTACT-V")
        return self.linked and hidden

    def not_by_software(self, name, role, locates, text, view):
        """Not given, though a person may be asked."""
        kind = self.kind
        if name == "NOTIFIER-ID" and kind == "POL":
            return True
        if name == "EXCL-ZONE" and (self.linked or not self.knows_places()):
            return True
        if role == "child" and not self.services.get("child"):
            return name not in ("ID-CORE", "ID-XREF", "SAFE-CONTACT")
        if self.linked and name == "SAFE-CONTACT" and role not in ("case", "perpetrator") and view == "full":
            return True
        if name == "ADDR-SAFE" and not (
            kind == "NGOV" and self.audience == "addressee" and "ivs" in self.services.get(role, ())
        ):
            return True
        if not self.knows_places():
            if text and role != "perpetrator":
                return True
            if role == "case" and locates and view == "full":
                return True
            if name == "LOC-P" and role == "perpetrator" and self.shared_home:
                return True
        if kind == "EDU":
            child = role == "child" and self.own_pupil
            case = role == "case" and name == "EPISODE-SUM" and self.own_pupil
            allowed = name in ("ID-CORE", "SAFE-CONTACT") or (
                view == "reduced"
                and name in ("EPISODE-SUM", "ORDERS", "VIEWS", "FSP-V", "CP-STATUS", "CHILD-HH")
            )
            return not (self.risky and allowed and (child or case))
        return False

    def goes_to_a_person(self, name, role, locates, text):
        """Somebody should look first: a text may name the safe house; nobody said that calling is safe; the
        name alone says whose file it is; roles may turn again; the perpetrator could ask for it as the
        child's representative.
        """
        if text and self.safe_house and not (self.kind == "NGOV" and self.has_specialist(role)):
            return True
        makes_contact = self.kind in ("POL", "OT", "FSS", "NGOV")
        if name == "CONTACT-V" and "SAFE-CONTACT" not in self.said and not makes_contact:
            return True
        on_file = name in HEALTH or name in ("OFFENCE-HIST", "GANG", "BENEFIT", "EDU-ENROL")
        if on_file and "ID-XREF" not in self.said and role != "case":
            return True
        if (
            role == "victim"
            and self.victim_was_only_asked_about()
            and (locates or name in (*PLACES, "VIEWS"))
        ):
            return True
        if self.section_66 and name in HEALTH and self.kind != "OT":
            return True
        # She who represents the child may have been the perpetrator herself.
        if not (self.perpetrator_represents or self.once_perpetrator):
            return False
        if self.kind == "EDU":
            return role == "child" or (role == "case" and self.own_pupil)
        return (
            self.kind in ("HNZ", "GP")
            and role == "child"
            and (name in ("CHILD-HH", "EDU-ENROL", "HEALTH-ALERT") or name in HEALTH)
        )

    def has_specialist(self, role):
        if role == "case":
            return any("ivs" in services for services in self.services.values())
        return "ivs" in self.services.get(role, ())

    def answer(self, facts):
        """*facts*: (role, class, locates, free text). Returns ({fact: view}, {(role, class) that wait for a
        person}).
        """
        given, referred = {}, set()
        for fact in facts:
            role, name, locates, text = fact
            outcome = cell(name, self.kind)
            if outcome in ("X", "-") or not concerns(name, self.kind, role, outcome):
                continue
            if name == "EXCL-ZONE" and self.kind == "COR" and not self.em:
                continue
            if not self.conditions_hold(name, role, outcome) or self.never(name, role, locates, text):
                continue
            view = self.view(name, role, outcome)
            if self.kind == "NGOV" and self.linked and name == "SAFE-CONTACT" and role in ("victim", "child"):
                view = "reduced"  # whom not to contact
            if outcome != "H" and view == "reduced" and fact not in self.reducible:
                continue
            if outcome == "H":
                referred.add((role, name))
            elif self.not_by_software(name, role, locates, text, view):
                continue
            elif self.goes_to_a_person(name, role, locates, text):
                referred.add((role, name))
            else:
                given[fact] = view
        if not any(name in self.matter for _, name, _, _ in given):
            given = {}
        return given, referred
