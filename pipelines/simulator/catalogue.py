"""Names of the simulated catalogue: category tree, brands, words, user attributes, and query spellings."""

# fmt: off
TREE = {
    "fresh": {
        "fruit": "apples pears berries", "vegetables": "tomatoes carrots onions",
        "herbs": "basil mint parsley", "salad": "lettuce rocket spinach",
    },
    "dairy": {
        "cheese": "cheddar brie gouda", "milk": "oatmilk buttermilk goatmilk",
        "yogurt": "skyr kefir quark", "butter": "ghee margarine spread",
    },
    "bakery": {
        "bread": "rye sourdough baguette", "cakes": "muffins brownies tarts",
        "cookies": "shortbread biscotti macarons", "cereal": "muesli granola oats",
    },
    "counter": {
        "meat": "chicken beef lamb", "fish": "salmon tuna cod",
        "deli": "ham salami olives", "freezer": "pizza peas sorbet",
    },
    "drinks": {
        "coffee": "espresso arabica decaf", "tea": "sencha chai chamomile",
        "juice": "orange cranberry mango", "wine": "rioja riesling chianti",
    },
}
"""Department → category → kinds."""
SYNONYMS = {
    "apples": "pippins", "pears": "conference", "berries": "strawberries", "tomatoes": "vine", "carrots": "roots",
    "onions": "shallots", "lettuce": "iceberg", "rocket": "arugula", "cheddar": "matured", "skyr": "icelandic",
    "spread": "buttery", "rye": "pumpernickel", "baguette": "french", "muffins": "cupcakes", "brownies": "squares",
    "shortbread": "biscuits", "oats": "porridge", "chicken": "poultry", "beef": "steak", "salmon": "lox",
    "ham": "gammon", "pizza": "margherita", "sorbet": "gelato", "espresso": "ristretto", "decaf": "caffeinefree",
    "sencha": "greentea", "chai": "masala", "fruit": "fruits", "vegetables": "veg", "herbs": "seasoning",
    "salad": "greens", "cheese": "fromage", "yogurt": "yoghurt", "bread": "loaf", "cakes": "pastry",
    "cookies": "sweets", "cereal": "breakfast", "meat": "butcher", "fish": "seafood", "deli": "antipasti",
    "coffee": "beans", "tea": "infusion", "juice": "drink", "wine": "vino",
}
WORDS = (
    "bulk", "classic", "creamy", "crunchy", "dark", "family", "fine", "frozen", "fruity", "golden", "imported",
    "large", "light", "local", "mild", "mini", "organic", "plain", "roasted", "smoked", "spicy", "sweet", "vegan",
    "whole",
)
# fmt: on
DEPARTMENTS = tuple(TREE)
CATEGORIES = tuple(category for categories in TREE.values() for category in categories)
KINDS = tuple(kind for categories in TREE.values() for kinds in categories.values() for kind in kinds.split())
CATEGORIES_EACH, KINDS_EACH = len(CATEGORIES) // len(DEPARTMENTS), len(KINDS) // len(CATEGORIES)
BRANDS = tuple(
    first + last
    for first in ("al", "bo", "ca", "den", "el")
    for last in ("bridge", "ford", "field", "mont", "row", "ton", "ville", "worth")
)
"""Eight to a department, in the order of the departments."""
BRANDS_EACH = len(BRANDS) // len(DEPARTMENTS)
PRICE_BANDS = ("lowest", "low", "middle", "high", "highest")
AGE_BANDS = ("18-24", "25-34", "35-44", "45-54", "55+")
CITIES = ("Avon", "Bury", "Crewe", "Derby", "Exeter", "Filey", "Goole", "Hythe")
DEVICES = ("phone", "desktop")

TERMS = BRANDS + WORDS + KINDS + CATEGORIES
"""What a query is made of. A term's number is its place here."""
FIRST_BRAND, FIRST_WORD = 0, len(BRANDS)
FIRST_KIND, FIRST_CATEGORY = FIRST_WORD + len(WORDS), FIRST_WORD + len(WORDS) + len(KINDS)


def spellings(term: str) -> tuple[str, str, str, str, str]:
    """Spellings of a term: itself, its synonym, and three typos (letters swapped, dropped, doubled)."""
    at = len(term) // 2
    swapped = term[: at - 1] + term[at] + term[at - 1] + term[at + 1 :]
    return term, SYNONYMS.get(term, term), swapped, term[:at] + term[at + 1 :], term[:at] + term[at] + term[at:]


SPELLINGS = tuple(spellings(term) for term in TERMS)
TYPOS = 3
