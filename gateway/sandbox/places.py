"""Words for places that do not exist: streets, suburbs, schools, refuges, hospitals, prisons and courts.

Towns are real, because agreements speak of sites and areas; everything smaller is invented.
"""

import unicodedata
from types import MappingProxyType


def _words(text: str) -> tuple[str, ...]:
    return tuple(unicodedata.normalize("NFC", text).split())


STREET_FIRST = _words(
    "Amber Bracken Cinder Dapple Ember Fallow Glimmer Harrow Indigo Juniper Kestrel Lantern Marram"
    " Nettle Opal Pepper Quarry Russet Saffron Thistle Umber Velvet Willet Yarrow Zephyr Copper Dunlin"
    " Flint Gannet Heron Kōwhai Mānuka Tōtara Kōtare Pīwakawaka Tūī Kererū Harakeke Rātā Mātai"
)
STREET_SECOND = _words(
    "quill wick thorn mere fold croft whistle garth brook hollow spire weir stile latch barrow tarn"
    " coppice ridge beck furrow kiln mantle plover reach sedge tiller wharf yoke acorn bramble"
)
STREET_TYPES = ("Street", "Road", "Crescent", "Place", "Terrace", "Lane", "Grove", "Rise")
HOUSE_NUMBERS = range(11, 99)  # two digits always: no address is then the end of another one

# Per site: town, postcode, weight, suburbs.
TOWNS = MappingProxyType(
    {
        "waikato-city": (
            ("Hamilton", "3200", 70, ("Willowbank Flat", "Kestrel Heights", "Tōtara Downs", "Lakemarsh")),
            ("Hamilton", "3206", 30, ("Bader's Reach", "Glenfern East", "Nīkau Rise")),
        ),
        "waikato-rural": (
            ("Te Awamutu", "3800", 25, ("Fencepost Corner", "Pīrongia Flat")),
            ("Ngāruawāhia", "3720", 25, ("Three Rivers End", "Kahikatea Bend")),
            ("Huntly", "3700", 20, ("Pithead", "Coalbrook Lane End")),
            ("Ōtorohanga", "3900", 15, ("Kiwi Ridge", "Stockyard")),
            ("Tokoroa", "3420", 15, ("Sawmill Rise", "Pinefield")),
        ),
        "christchurch": (
            ("Christchurch", "8011", 50, ("Saltgrass", "Avonmarsh", "Pegasus Row", "Cashel Fields")),
            ("Christchurch", "8061", 30, ("Shingle Bank", "Eastmarram", "Dunes End")),
            ("Rangiora", "7400", 10, ("Ashbank", "Northbrook Fold")),
            ("Ashburton", "7700", 10, ("Tinwald Green", "Netherbeck")),
        ),
    }
)

REFUGE_FIRST = _words(
    "Lantern Harbour Sparrow Willow Hearth Morning Feather Anchor Starling Orchard Ripple Candle"
    " Meadow Pebble Juniper Wren Cedar Dawn Linnet Clover Bellbird Fantail Rowan Hazel Skylark"
    " Driftwood Almond Silver Tāwhai Kōkako Mārama Pūriri Tīeke Wairua Āwhina Manaaki"
)
REFUGE_SECOND = _words(
    "gate song rest light well keep door step nest wing shade tree bay lea stone fern moss glade mark"
    " path wood field hill ford bank side holm stead rise vale"
)
REFUGE_TYPES = ("House", "Cottage", "Lodge", "Haven", "Whare")

SCHOOL_FIRST = ("Brackenmere", "Kestrelford", "Saltgrass", "Tūī Glen", "Lanternfield", "Kōwhai Bend")
SCHOOL_LAST = ("School", "Primary School", "Intermediate", "College")

HOSPITALS = MappingProxyType(
    {
        "waikato-city": ("Kestrel Base Hospital ED",),
        "waikato-rural": ("Kestrel Base Hospital ED", "Kahikatea Rural Hospital ED"),
        "christchurch": ("Avonmarsh Hospital ED", "Shingle Bank After Hours"),
    }
)
PRISONS = MappingProxyType(
    {
        "waikato-city": ("Tōtara Downs Prison", "Rimu Flat Corrections Facility"),
        "waikato-rural": ("Tōtara Downs Prison", "Rimu Flat Corrections Facility"),
        "christchurch": ("Saltgrass Men's Prison", "Netherbeck Remand Centre"),
    }
)
# Court name and the three digits that its file numbers carry.
COURTS = MappingProxyType(
    {
        "waikato-city": ("Hamilton District Court", "919"),
        "waikato-rural": ("Te Awamutu District Court", "972"),
        "christchurch": ("Christchurch District Court", "909"),
    }
)
