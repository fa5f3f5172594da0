"""Names for people who do not exist: common given and family names by ethnicity, combined at random,
macrons kept.
"""

import random
import unicodedata
from dataclasses import dataclass
from types import MappingProxyType

from gateway.sandbox.people import Name


@dataclass(frozen=True, slots=True)
class _Pool:
    family: tuple[str, ...]
    female: tuple[str, ...]
    male: tuple[str, ...]


def _pool(family: str, female: str, male: str) -> _Pool:
    return _Pool(*(tuple(unicodedata.normalize("NFC", name).split()) for name in (family, female, male)))


_MAORI = _pool(
    "Hēnare Rāwiri Pōmare Kīngi Tīpene Tāmihana Wīremu Pāora Hōhepa Tūhiwai Kāwhia Mānihera"
    " Pēwhairangi Tāwhai Ngata Parata Paki Rangi Waaka Tamati Hohaia Eruera Matene Nikora Karaka"
    " Poutama Herewini Takerei Rewiti Wharepapa Tangaroa Rapana Heke Moana Katene",
    "Aroha Mere Anahera Hinemoa Māia Pānia Kāhu Mīria Ngaio Huia Tui Ānahera Marama Kiri Rīpeka Hēni"
    " Mārama Tiana Wikitōria Ataahua Moana Roimata Hana Keita Ngaire Rāhera",
    "Hēmi Wiremu Tāne Nīkau Rāwiri Tama Kahurangi Mānu Hōne Pita Hoani Tamati Mikaere Tūmanako Kauri"
    " Matiu Rāpata Tipene Āperahama Wī Manaaki Ihaia Hāmi Kereama Rongo",
)
_EUROPEAN = _pool(
    "Smith Wilson Brown Taylor Anderson Thompson Walker Martin Clark Harris Wright Mitchell Campbell"
    " Stewart Scott Robinson Young King Green Baker Cooper Reid Marshall Murray Bell Watson Kelly"
    " Graham Hughes Fraser O'Brien Kennedy Henderson Burgess-Cole Van-Leeuwen Whitlock",
    "Sarah Emma Jessica Nicole Rachel Amy Hannah Olivia Charlotte Kate Megan Rebecca Michelle"
    " Stephanie Holly Zoë Renée Laura Georgia Danielle Kirsty Amanda Tracey Brooke Paige",
    "James Daniel Matthew Michael Joshua Ryan Liam Jack Thomas Benjamin Mark Craig Shane Jason Scott"
    " Hayden Callum Brendan Aaron Nathan Dylan Tyler Corey Darren Wayne",
)
_PACIFIC = _pool(
    "Leota Tupou Fonoti Tuilagi Faleafa Taufa Vaipulu Toleafoa Matai Sefo Lolohea Talataina Ioane"
    " Fifita Masoe Tuimavave Pauga Kaufusi Teariki Marsters",
    "Sina Mele Ana Lupe Losa Salote Talia Fetu Malia Teuila Ofa Sela Lavinia Akanesi Tepaeru",
    "Sione Tevita Ioane Semisi Pita Viliami Mika Falaniko Lotu Tavita Etuate Siaosi Manu Lopeti Tama",
)
_ASIAN = _pool(
    "Patel Singh Kumar Sharma Chen Wang Li Zhang Nguyen Tran Santos Reyes Kim Park Kaur Prasad Lim"
    " Wong Das Cruz",
    "Priya Anjali Mei Lin Xin Jasmine Maricel Thuy Ji-woo Harpreet Neha Grace Sunita Hui Rosa",
    "Raj Amit Wei Jun Minh Arjun Jose Sanjay Hao Vikram Dae Ravi Ming Gurpreet Paolo",
)
_AFRICAN = _pool(
    "Okafor Mensah Abebe Hassan Moyo Ndlovu Warsame Diallo Tesfaye Banda Mohamud Kamau",
    "Amina Fatuma Chipo Hodan Selam Adaeze Nomvula Halima Tendai Zainab",
    "Yusuf Abdi Kofi Tendai Dawit Chidi Ibrahim Sipho Farai Samuel",
)
# By the first entry of the ethnicity list; what is not stated borrows from the European pool.
_POOLS = MappingProxyType(
    {"maori": _MAORI, "european": _EUROPEAN, "pacific": _PACIFIC, "asian": _ASIAN, "african": _AFRICAN}
)
_CODES = MappingProxyType(
    {
        "maori": ("21111",),
        "european": ("11111", "11111", "11111", "12"),
        "pacific": ("31111", "32", "33", "36"),
        "asian": ("42", "43", "41", "44"),
        "african": ("53",),
        "unstated": ("94", "95", "99", "61"),
    }
)


def draw_name(rng: random.Random, ethnicity: str, gender: str, family: str | None = None) -> Name:
    """A name for a person of *ethnicity* (a key of the review's table) and *gender*; *family* keeps a
    family name.
    """
    pool = _POOLS.get(ethnicity, _EUROPEAN)
    if gender == "another":
        given = rng.choice(pool.female + pool.male)
    else:
        given = rng.choice(pool.male if gender == "male" else pool.female)
    return Name(family=family or rng.choice(pool.family), given=given)


def draw_codes(rng: random.Random, ethnicity: str) -> tuple[str, ...]:
    """Codes of the Stats NZ 2005 classification (V2.1, levels 2 and 4), the self-identified main one
    first.
    """
    codes = [rng.choice(_CODES[ethnicity])]
    if ethnicity == "maori" and rng.random() < 0.25:
        codes.append("11111")
    elif ethnicity in ("european", "pacific") and rng.random() < 0.05:
        codes.append("21111")
    return tuple(codes)


def without_macrons(name: Name) -> Name:
    """*name* as a system writes it that drops macrons: `Hēnare` becomes `Henare`."""
    return Name(family=_strip(name.family), given=_strip(name.given))


def with_double_vowels(name: Name) -> Name:
    """*name* as a system writes it that doubles long vowels: `Hēnare` becomes `Heenare`."""
    return Name(family=_double(name.family), given=_double(name.given))


def folded(text: str) -> str:
    """*text* for comparing names: NFC input or not, without marks, in one case, spaces collapsed."""
    return " ".join(_strip(text).casefold().split())


def _strip(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFC", "".join(c for c in decomposed if not unicodedata.combining(c)))


def _double(text: str) -> str:
    # U+0304 is the combining macron; the vowel before it is written twice, the second in lower case
    # (`Ānahera`, `Aanahera`).
    out: list[str] = []
    for c in unicodedata.normalize("NFD", text):
        out.append(out[-1].lower() if c == "\u0304" and out else c)
    return unicodedata.normalize("NFC", "".join(out))
