"""The families of the worked-mathematics corpus, and the step writers that they share.

A family is one function that draws numbers and words and writes the worked steps, registered
with the ways of asking (``asks`` for training, ``fresh`` held out) and the opening lines.
The reader is a very small model, so a step never holds more than one small operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import lcm
from random import Random
from typing import NamedTuple


class Draft(NamedTuple):
    """One drawn problem: the words and numbers for the templates, the steps, the answer."""

    values: Mapping[str, object]
    steps: Iterable[str]
    answer: str


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of problem: how it is drawn, asked and opened."""

    name: str
    draw: Callable[[Random], Draft]
    asks: tuple[str, ...]
    fresh: tuple[str, ...]
    openings: tuple[str, ...]


REGISTRY: dict[str, Family] = {}

Draw = Callable[[Random], Draft]


def family(
    name: str, *, asks: tuple[str, ...], fresh: tuple[str, ...], openings: tuple[str, ...]
) -> Callable[[Draw], Draw]:
    """Register the decorated function as the family of that name."""

    def register(draw: Draw) -> Draw:
        REGISTRY[name] = Family(name, draw, asks, fresh, openings)
        return draw

    return register


# --- Step writers -------------------------------------------------------------------------------


def write_sum(a: int, b: int) -> str:
    """Write a + b as a chain that moves one digit of b at a time, the largest place first."""
    return _place_by_place(a, b, "+", 1)


def write_difference(a: int, b: int) -> str:
    """Write a - b as a chain that takes one digit of b at a time, the largest place first."""
    return _place_by_place(a, b, "-", -1)


def _place_by_place(a: int, b: int, sign: str, direction: int) -> str:
    chain = [f"{a} {sign} {b}"]
    while b >= 10:
        place = 100 if b >= 100 else 10
        moved = b - b % place
        a, b = a + direction * moved, b - moved
        if b:
            chain.append(f"{a} {sign} {b}")
    chain.append(str(a + direction * b))
    return " = ".join(chain)


def write_product(a: int, b: int) -> str:
    """Write a × b: straight from the tables, or split by the tens and units of one factor."""
    if b % 10 == 0 or (b <= 12 and (a <= 12 or a % 10 == 0)):
        return f"{a} × {b} = {a * b}"
    if b >= 10:
        tens, units = b - b % 10, b % 10
        parts, left, right = f"{a} × {tens} + {a} × {units}", a * tens, a * units
    else:
        tens, units = a - a % 10, a % 10
        parts, left, right = f"{tens} × {b} + {units} × {b}", tens * b, units * b
    return f"{a} × {b} = {parts} = {write_sum(left, right)}"


def write_quotient(a: int, b: int) -> str:
    """Write the exact division a ÷ b, naming the multiple, or split at ten times b."""
    quotient = a // b
    if quotient <= 12:
        return f"{a} ÷ {b} = {quotient} because {b} × {quotient} = {a}"
    ten, rest = 10 * b, a - 10 * b
    return f"{a} ÷ {b} = {ten} ÷ {b} + {rest} ÷ {b} = 10 + {quotient - 10} = {quotient}"


def write_total(terms: list[int]) -> str:
    """Write the sum of two or more numbers, one addition after the other."""
    total, chains = terms[0], []
    for term in terms[1:]:
        chains.append(write_sum(total, term))
        total += term
    return ", and ".join(chains)


def write_simplest(n: int, d: int) -> tuple[list[str], str]:
    """Write n/d in lowest terms with Euclid's steps for the greatest common divisor."""
    steps, a, b = [], max(n, d), min(n, d)
    while b:
        steps.append(f"{a} = {a // b} × {b} + {a % b}")
        a, b = b, a % b
    lines = [f"Divide with remainder until nothing is left: {', then '.join(steps)}."]
    if a == 1:
        lines.append(f"The greatest common divisor is 1, so {n}/{d} is in lowest terms.")
        return lines, f"{n}/{d}"
    answer = f"{n // a}/{d // a}"
    lines.append(
        f"The greatest common divisor is {a}, so {n}/{d} = ({n} ÷ {a})/({d} ÷ {a}) = {answer}."
    )
    if d == a:
        lines.append(f"A fraction over 1 is a whole number: {answer} = {n // a}.")
        answer = str(n // a)
    return lines, answer


# --- Words --------------------------------------------------------------------------------------

_HE = {"He": "He", "he": "he", "his": "his"}
_SHE = {"He": "She", "he": "she", "his": "her"}
PEOPLE = [
    {"name": name, **words}
    for names, words in (
        ("Tom Ben Leo Omar Jack Paul Hugo Ivan Noah Sam", _HE),
        ("Anna Mia Zoe Lucy Nina Emma Clara Aisha Rosa Kate", _SHE),
    )
    for name in names.split()
]
THINGS = [
    "pens",
    "books",
    "stickers",
    "marbles",
    "apples",
    "cards",
    "pencils",
    "cookies",
    "beads",
    "stamps",
    "eggs",
    "shells",
]
CONTAINERS = ["boxes", "bags", "packs", "crates", "baskets", "trays"]
GOODS = [
    "books",
    "pens",
    "tickets",
    "mugs",
    "hats",
    "plants",
    "candles",
    "toys",
    "scarves",
    "lamps",
]
COLOURS = ["red", "blue", "green", "yellow", "white", "black"]
TRAVELLERS = ["train", "car", "bus", "boat", "truck"]


def between(rng: Random, low: int, high: int) -> int:
    """Draw an integer from low to high, both included."""
    # randint checks its arguments at length; this is twice as fast and the stream's main cost.
    return low + int(rng.random() * (high - low + 1))


def listed(terms: list[int]) -> str:
    """Write numbers as a teacher would read them out: "3, 5 and 8"."""
    return f"{', '.join(map(str, terms[:-1]))} and {terms[-1]}"


# --- Plain arithmetic ---------------------------------------------------------------------------


@family(
    "addition",
    asks=(
        "What is {sum}?",
        "Work out {sum}.",
        "Add {listed}.",
        "Find the sum of {listed}.",
        "What do you get when you add {listed}?",
        "Calculate {sum}. Show your steps.",
    ),
    fresh=("Put {listed} together. What is the total?",),
    openings=(
        "We add {listed}. We add the larger places first, then the units.",
        "To find the sum of {listed}, add one place at a time, from the left.",
    ),
)
def addition(rng: Random) -> Draft:
    """Add two or three numbers."""
    if rng.random() < 0.6:
        terms = [between(rng, 12, 499), between(rng, 12, 399)]
    else:
        terms = [between(rng, 11, 99) for _ in range(3)]
    total = sum(terms)
    steps = [
        f"{write_total(terms)}.",
        f"Check by taking the last number away again: {write_difference(total, terms[-1])}, "
        "as it should be.",
        f"So the sum is {total}.",
    ]
    return Draft({"sum": " + ".join(map(str, terms)), "listed": listed(terms)}, steps, str(total))


@family(
    "subtraction",
    asks=(
        "What is {a} - {b}?",
        "Work out {a} - {b}.",
        "Subtract {b} from {a}.",
        "Find the difference between {a} and {b}.",
        "How much larger is {a} than {b}?",
        "Calculate {a} - {b}. Show your steps.",
    ),
    fresh=("Start at {a} and take away {b}. What is left?",),
    openings=(
        "We take {b} away from {a}. We take the larger places first, then the units.",
        "To find {a} - {b}, take away one place at a time, from the left.",
    ),
)
def subtraction(rng: Random) -> Draft:
    """Subtract the smaller of two numbers from the larger."""
    b, left = between(rng, 12, 399), between(rng, 3, 499)
    a = b + left
    steps = [
        f"{write_difference(a, b)}.",
        f"Check by adding {b} again: {write_sum(left, b)}, as it should be.",
        f"So the difference is {left}.",
    ]
    return Draft({"a": a, "b": b}, steps, str(left))


@family(
    "multiplication",
    asks=(
        "What is {a} × {b}?",
        "Work out {a} × {b}.",
        "Multiply {a} by {b}.",
        "Find the product of {a} and {b}.",
        "How much is {a} times {b}?",
        "Calculate {a} × {b}. Show your steps.",
    ),
    fresh=("Take the number {a} exactly {b} times. What do you get?",),
    openings=(
        "We multiply {a} by {b}. If a factor has two digits, we split it into tens and units.",
        "To find {a} × {b}, use the tables, and split a larger factor into tens and units.",
    ),
)
def multiplication(rng: Random) -> Draft:
    """Multiply two numbers: from the tables, or by one or two digits."""
    kind = rng.random()
    if kind < 0.2:
        a, b = between(rng, 3, 12), between(rng, 3, 12)
    elif kind < 0.5:
        a, b = between(rng, 13, 99), between(rng, 2, 9)
    else:
        a, b = between(rng, 11, 30), between(rng, 11, 29)
    steps = [
        "Each part is one line of the tables, and the parts are added at the end.",
        f"{write_product(a, b)}.",
        f"So {a} times {b} is {a * b}.",
    ]
    return Draft({"a": a, "b": b}, steps, str(a * b))


@family(
    "division",
    asks=(
        "What is {a} ÷ {b}?",
        "Work out {a} ÷ {b}.",
        "Divide {a} by {b}.",
        "How many times does {b} go into {a}?",
        "What is {a} divided by {b}?",
        "Calculate {a} ÷ {b}. Show your steps.",
    ),
    fresh=("Split {a} into {b} equal parts. How large is one part?",),
    openings=(
        "We divide {a} by {b}. We look for the number that gives {a} when multiplied by {b}.",
        "To find {a} ÷ {b}, ask which multiple of {b} is {a}.",
    ),
)
def division(rng: Random) -> Draft:
    """Divide without remainder."""
    b, quotient = between(rng, 2, 12), between(rng, 2, 20)
    a = b * quotient
    steps = [
        f"{write_quotient(a, b)}.",
        f"Check by multiplying: {write_product(quotient, b)}, as it should be.",
        f"The division leaves nothing over, so {a} divided by {b} is {quotient}.",
    ]
    return Draft({"a": a, "b": b}, steps, str(quotient))


@family(
    "remainder",
    asks=(
        "Divide {a} by {b} with remainder.",
        "What is {a} ÷ {b}, with remainder?",
        "Work out {a} ÷ {b}. Give the quotient and the remainder.",
        "How many times does {b} fit into {a}, and what is the remainder?",
        "Find the quotient and the remainder when {a} is divided by {b}.",
    ),
    fresh=("Count off {b} from {a} as often as you can. How often, and what remainder is left?",),
    openings=(
        "We divide {a} by {b}. We look for the largest multiple of {b} that fits into {a}.",
        "To divide {a} by {b}, find the multiple of {b} just below {a}.",
    ),
)
def remainder(rng: Random) -> Draft:
    """Divide with remainder."""
    b, quotient = between(rng, 3, 12), between(rng, 2, 11)
    rest = between(rng, 1, b - 1)
    multiple = b * quotient
    a = multiple + rest
    steps = [
        f"{b} × {quotient} = {multiple} fits, but {b} × {quotient + 1} = {multiple + b} "
        "is too large.",
        f"What is left is the remainder: {write_difference(a, multiple)}.",
        f"{rest} is smaller than {b}, so we are done: "
        f"{a} = {b} × {quotient} + {rest}, which is {quotient} remainder {rest}.",
    ]
    return Draft({"a": a, "b": b}, steps, f"{quotient} remainder {rest}")


_ORDERS: tuple[tuple[str, str], ...] = (
    ("{a} + {b} × {c}", "sum"),
    ("{b} × {c} + {a}", "sum"),
    ("{b} × {c} - {a}", "difference"),
    ("({a} + {b}) × {c}", "brackets"),
    ("{c} × ({a} + {b})", "brackets"),
)


@family(
    "order-of-operations",
    asks=(
        "What is {terms}?",
        "Work out {terms}.",
        "Calculate {terms}. Mind the order of operations.",
        "Find the value of {terms}.",
        "Evaluate {terms}.",
    ),
    fresh=("Which number does {terms} stand for?",),
    openings=(
        "We work out {terms}. Brackets come first, then × and ÷, and + and - come last.",
        "In {terms} the order matters: first brackets, then × and ÷, then + and -.",
    ),
)
def order_of_operations(rng: Random) -> Draft:
    """Evaluate an expression of two operations in the right order."""
    form, kind = rng.choice(_ORDERS)
    a, b, c = between(rng, 2, 20), between(rng, 3, 12), between(rng, 2, 9)
    if kind == "difference":
        a = between(rng, 1, b * c - 1)
    terms = form.format(a=a, b=b, c=c)
    if kind == "brackets":
        answer = (a + b) * c
        left, right = (c, a + b) if form[0] != "(" else (a + b, c)
        first = f"First the brackets: {write_sum(a, b)}. That leaves {left} × {right}."
        second = f"Then multiply: {write_product(left, right)}."
    else:
        first = f"First the multiplication: {b} × {c} = {b * c}. "
        if kind == "difference":
            answer = b * c - a
            first += f"That leaves {b * c} - {a}."
            second = f"Then subtract: {write_difference(b * c, a)}."
        else:
            answer = a + b * c
            left, right = (a, b * c) if form.startswith("{a}") else (b * c, a)
            first += f"That leaves {left} + {right}."
            second = f"Then add: {write_sum(left, right)}."
    return Draft({"terms": terms}, [first, second, f"So {terms} = {answer}."], str(answer))


@family(
    "sequence",
    asks=(
        "What is the next term of {terms}, ...?",
        "Which number comes next: {terms}, ...?",
        "Find the next number in the sequence {terms}.",
        "Continue the sequence {terms} by one term.",
        "A sequence begins {terms}. What is its next term?",
    ),
    fresh=("{terms}, and so on. Which number follows?",),
    openings=(
        "We look at the steps between neighbours in {terms}.",
        "To continue {terms}, compare each term with the one before it.",
    ),
)
def sequence(rng: Random) -> Draft:
    """Continue an arithmetic sequence, rising or falling."""
    step, low = between(rng, 2, 12), between(rng, 1, 60)
    terms = [low + step * i for i in range(5)]
    falls = rng.random() < 0.4
    if falls:
        terms.reverse()
    gaps = [f"{max(pair)} - {min(pair)} = {step}" for pair in pairwise(terms[:4])]
    write, way = (write_difference, "falls") if falls else (write_sum, "grows")
    steps = [
        f"The steps are {gaps[0]}, {gaps[1]} and {gaps[2]}.",
        f"They are all equal, so the sequence {way} by {step} each time.",
        f"The last term shown is {terms[3]}, and the next one is {write(terms[3], step)}.",
    ]
    return Draft({"terms": ", ".join(map(str, terms[:4]))}, steps, str(terms[4]))


@family(
    "average",
    asks=(
        "What is the average of {listed}?",
        "Find the average of {listed}.",
        "Work out the mean of {listed}.",
        "{name} scores {listed} points in {count} games. What is {his} average?",
        "In {count} tests {name} gets {listed} points. How many points is that on average?",
        "Calculate the average of the numbers {listed}.",
    ),
    fresh=(
        "{name} reads {listed} pages on {count} days. How many pages a day is that on average?",
    ),
    openings=(
        "The average is the sum divided by how many numbers there are. There are {count} numbers.",
        "We have {count} numbers. Add them, then divide the sum by {count}.",
    ),
)
def average(rng: Random) -> Draft:
    """Average three or four numbers."""
    count, mean = between(rng, 3, 4), between(rng, 10, 20)
    offsets = [between(rng, -3, 3) for _ in range(count - 1)]
    # The last offset balances the others, so the sum is a multiple of the count.
    terms = [mean + offset for offset in (*offsets, -sum(offsets))]
    total = sum(terms)
    steps = [
        f"First, add: {write_total(terms)}.",
        f"Then divide the sum by {count}: {write_quotient(total, count)}.",
        f"So the average is {mean}.",
    ]
    return Draft({"listed": listed(terms), "count": count, **rng.choice(PEOPLE)}, steps, str(mean))


# --- Word problems ------------------------------------------------------------------------------


@family(
    "boxes",
    asks=(
        "{name} has {n} {boxes} of {k} {things}. {He} gives away {g} {things}.",
        "{name} has {n} {boxes} of {k} {things}. {He} gives away {g} {things}. "
        "How many {things} are left?",
        "{name} has {n} {boxes} with {k} {things} in each. {He} sells {g} {things}. "
        "How many {things} does {he} have now?",
        "There are {n} {boxes} of {k} {things} in a shop. {name} buys {g} of the {things}. "
        "How many {things} remain?",
        "Each of {n} {boxes} holds {k} {things}. {name} takes out {g} {things}. "
        "How many {things} are still there?",
        "How many {things} are left if {name} starts with {n} {boxes} of {k} {things} "
        "and then loses {g} of them?",
    ),
    fresh=(
        "{name} fills {n} {boxes} with {k} {things} each. Later {he} hands {g} {things} "
        "to a friend. How many {things} does {he} keep?",
    ),
    openings=(
        "First, find how many {things} there are in all.",
        "We first count all the {things}, then take away the ones that go.",
    ),
)
def boxes(rng: Random) -> Draft:
    """Count what is in equal boxes, then take some away."""
    n, k = between(rng, 3, 30), between(rng, 4, 29)
    total = n * k
    g = between(rng, 2, min(total - 2, 99))
    things, containers = rng.choice(THINGS), rng.choice(CONTAINERS)
    steps = [
        f"{n} {containers} of {k} {things} is {n} × {k} {things}.",
        f"{write_product(n, k)}.",
        f"Then {g} {things} go away, so subtract {g} from {total}.",
        f"{write_difference(total, g)}.",
        f"There are {total - g} {things} left.",
    ]
    values = {"n": n, "k": k, "g": g, "things": things, "boxes": containers}
    return Draft(values | rng.choice(PEOPLE), steps, str(total - g))


@family(
    "shopping",
    asks=(
        "{name} buys {n} {goods} at {p} euros each and pays with {m} euros. "
        "How much change does {he} get?",
        "{name} buys {n} {goods}. Each costs {p} euros. {He} pays with {m} euros. "
        "How many euros does {he} get back?",
        "{name} has {m} euros. {He} buys {n} {goods} for {p} euros each. "
        "How many euros does {he} have left?",
        "{n} {goods} cost {p} euros each. {name} gives the seller {m} euros. "
        "What is the change in euros?",
        "How many euros are left when {name} spends {p} euros on each of {n} {goods} "
        "and had {m} euros?",
    ),
    fresh=(
        "With {m} euros in {his} pocket, {name} goes to a shop and takes {n} {goods} "
        "priced at {p} euros apiece. How much money remains, in euros?",
    ),
    openings=(
        "First, find what the {goods} cost together.",
        "We need the price of all the {goods}, and then the change.",
    ),
)
def shopping(rng: Random) -> Draft:
    """Find the change after buying several of one thing."""
    n, p = between(rng, 2, 12), between(rng, 3, 30)
    cost = n * p
    # Pay with a round sum that covers the price.
    m = rng.choice([note for note in (50, 80, 100, 150, 200, 300, 400, 500) if note > cost + 1][:3])
    goods = rng.choice(GOODS)
    steps = [
        f"{n} {goods} at {p} euros each cost {n} × {p} euros.",
        f"{write_product(n, p)}.",
        f"{m} euros are there to pay with, so subtract {cost} from {m}.",
        f"{write_difference(m, cost)}.",
        f"That leaves {m - cost} euros.",
    ]
    values = {"n": n, "p": p, "m": m, "goods": goods}
    return Draft(values | rng.choice(PEOPLE), steps, str(m - cost))


@family(
    "sharing",
    asks=(
        "{name} has {a} {first} {things} and {b} {second} {things}. {He} shares them equally "
        "among {k} friends. How many {things} does each friend get?",
        "{name} shares {a} {first} and {b} {second} {things} equally among {k} children. "
        "How many {things} does each child get?",
        "{a} {first} {things} and {b} {second} {things} are put into {k} equal piles. "
        "How many {things} are in each pile?",
        "How many {things} go into each bag if {name} packs {a} {first} {things} and {b} {second} "
        "{things} equally into {k} bags?",
        "{name} collects {a} {first} {things} and then {b} {second} {things}. {He} deals them out "
        "equally to {k} people. How many {things} does one person get?",
    ),
    fresh=(
        "There are {k} friends at the table. {name} gives each the same number of {things}, "
        "using up all {a} {first} and {b} {second} ones. How many is that for each friend?",
    ),
    openings=(
        "First, find how many {things} there are in all.",
        "We first count all the {things}, then share them equally.",
    ),
)
def sharing(rng: Random) -> Draft:
    """Add two amounts and share the total equally."""
    k, each = between(rng, 2, 12), between(rng, 3, 16)
    total = k * each
    a = between(rng, 2, total - 2)
    b = total - a
    things, (first, second) = rng.choice(THINGS), rng.sample(COLOURS, 2)
    steps = [
        f"{a} {first} {things} and {b} {second} {things} make {a} + {b} {things}.",
        f"{write_sum(a, b)}.",
        f"Now share the {total} {things} into {k} equal parts, so divide {total} by {k}.",
        f"{write_quotient(total, k)}.",
        f"Each part has {each} {things}.",
    ]
    values = {"a": a, "b": b, "k": k, "things": things, "first": first, "second": second}
    return Draft(values | rng.choice(PEOPLE), steps, str(each))


_RELATIVES = ["mother", "father", "aunt", "uncle", "grandmother", "teacher", "neighbour"]


@family(
    "ages",
    asks=(
        "{name} is {a} years old. {His} {relative} is {k} times as old. "
        "How old will {his} {relative} be in {n} years?",
        "{name} is {a}. {His} {relative} is {k} times as old as {name}. "
        "What is the age of the {relative} in {n} years?",
        "The {relative} of {name} is {k} times as old as {name}, who is {a}. "
        "How old is the {relative} in {n} years?",
        "How old will the {relative} of {name} be in {n} years, if {name} is {a} now "
        "and the {relative} is {k} times as old?",
        "Today {name} is {a} years old and {his} {relative} is {k} times that age. "
        "Find the age of the {relative} {n} years from now.",
    ),
    fresh=(
        "In {n} years, how old is the {relative} of {name}? Now {name} is {a}, "
        "and the {relative} has {k} times that age.",
    ),
    openings=(
        "First, find how old the {relative} is now.",
        "We need the age of the {relative} today, and then {n} years later.",
    ),
)
def ages(rng: Random) -> Draft:
    """Find an age now by multiplying, then later by adding."""
    a, k, n = between(rng, 5, 16), between(rng, 2, 5), between(rng, 2, 20)
    relative, person = rng.choice(_RELATIVES), rng.choice(PEOPLE)
    now = a * k
    steps = [
        f"{person['name']} is {a} and the {relative} is {k} times as old: {write_product(a, k)}.",
        f"So the {relative} is {now} years old now.",
        f"In {n} years everyone is {n} years older, so add {n} to {now}.",
        f"{write_sum(now, n)}.",
        f"The {relative} will be {now + n} years old.",
    ]
    values = {"a": a, "k": k, "n": n, "relative": relative, "His": person["his"].capitalize()}
    return Draft(values | person, steps, str(now + n))


# --- Algebra, fractions, percentages ------------------------------------------------------------


@family(
    "equation",
    asks=(
        "Solve {equation} for {x}.",
        "Solve the equation {equation}.",
        "Find {x} if {equation}.",
        "What is {x} when {equation}?",
        "For which {x} is {equation}?",
        "If {equation}, what is the value of {x}?",
    ),
    fresh=("The number {x} satisfies {equation}. Which number is it?",),
    openings=(
        "We want {x} alone on the left side of {equation}.",
        "We undo the steps in {equation}, the last one first.",
    ),
)
def equation(rng: Random) -> Draft:
    """Solve a x + b = c or a x - b = c in whole numbers."""
    a, root, x = between(rng, 2, 12), between(rng, 2, 12), rng.choice("xynkm")
    product = a * root
    if rng.random() < 0.5:
        b = between(rng, 1, 30)
        c, sign, undo, chain = product + b, "+", "Subtract", write_difference(product + b, b)
        check = write_sum(product, b)
    else:
        b = between(rng, 1, min(30, product - 1))
        c, sign, undo, chain = product - b, "-", "Add", write_sum(product - b, b)
        check = write_difference(product, b)
    steps = [
        f"{undo} {b} on both sides: {a}{x} = {chain}.",
        f"Divide both sides by {a}: {x} = {write_quotient(product, a)}.",
        f"Check: {a} × {root} = {product}, and {check}, as it should be.",
        f"So {x} = {root}.",
    ]
    return Draft({"equation": f"{a}{x} {sign} {b} = {c}", "x": x}, steps, str(root))


@family(
    "lowest-terms",
    asks=(
        "Simplify {n}/{d}.",
        "Write {n}/{d} in lowest terms.",
        "Reduce the fraction {n}/{d}.",
        "What is {n}/{d} in its simplest form?",
        "Simplify the fraction {n}/{d} as far as possible.",
        "Cancel {n}/{d} down completely.",
    ),
    fresh=("Which fraction in lowest terms equals {n}/{d}?",),
    openings=(
        "We need the greatest common divisor of {n} and {d}.",
        "To simplify {n}/{d}, divide {n} and {d} by their greatest common divisor.",
    ),
)
def lowest_terms(rng: Random) -> Draft:
    """Reduce a proper fraction."""
    d = between(rng, 2, 12)
    n = between(rng, 1, d - 1)
    factor = between(rng, 2, 9)
    n, d = n * factor, d * factor
    steps, answer = write_simplest(n, d)
    steps.append(f"So {n}/{d} is {answer} in lowest terms.")
    return Draft({"n": n, "d": d}, steps, answer)


# Denominators whose common denominator stays within the tables.
_DENOMINATORS = [
    (p, q) for p in range(2, 13) for q in range(2, 13) if p == q or (lcm(p, q) <= 24 and p != q)
]


@family(
    "fraction-sum",
    asks=(
        "What is {f} + {g}?",
        "Work out {f} + {g}.",
        "Add {f} and {g}.",
        "Find the sum of the fractions {f} and {g}.",
        "Calculate {f} + {g} in lowest terms.",
        "{name} eats {f} of a cake and then {g} of another cake of that size. "
        "How much cake is that in all?",
    ),
    fresh=("{name} walks {f} of a mile and then {g} of a mile. How many miles is that?",),
    openings=(
        "To add {f} and {g}, write both over one denominator.",
        "We add {f} + {g}. Fractions can be added when their denominators are equal.",
    ),
)
def fraction_sum(rng: Random) -> Draft:
    """Add two proper fractions."""
    p, q = rng.choice(_DENOMINATORS)
    a, b = between(rng, 1, p - 1), between(rng, 1, q - 1)
    common = lcm(p, q)
    u, v = common // p, common // q
    if p == q:
        steps = [f"Both denominators are {p} already."]
    else:
        steps = [
            f"The common denominator is {common}, because {p} × {u} = {common} "
            f"and {q} × {v} = {common}.",
            f"{a}/{p} = ({a} × {u})/{common} = {a * u}/{common}, "
            f"and {b}/{q} = ({b} × {v})/{common} = {b * v}/{common}.",
        ]
    n = a * u + b * v
    steps.append(
        f"{a * u}/{common} + {b * v}/{common} = ({a * u} + {b * v})/{common} = {n}/{common}."
    )
    lines, answer = write_simplest(n, common)
    return Draft({"f": f"{a}/{p}", "g": f"{b}/{q}", **rng.choice(PEOPLE)}, steps + lines, answer)


@family(
    "percentage",
    asks=(
        "What is {p} % of {base}?",
        "Work out {p} % of {base}.",
        "Find {p} percent of {base}.",
        "{name} has {base} {things}. {p} % of them are {colour}. How many {things} are {colour}?",
        "How many are {p} % of {base} {things}?",
        "Of {base} {things}, {name} sells {p} %. How many {things} does {he} sell?",
    ),
    fresh=("A crowd of {base} people votes, and {p} % say yes. How many people say yes?",),
    openings=(
        "We want {p} % of {base}. Start with 10 %, which is one tenth.",
        "To find {p} % of {base}, first find 10 % by dividing by 10.",
    ),
)
def percentage(rng: Random) -> Draft:
    """Find a multiple of 5 % of a round number by way of 10 %."""
    # Tens of percent only from an even tenth, so that 5 % is whole as well.
    p, tenth = 5 * between(rng, 1, 19), 2 * between(rng, 2, 25)
    base, tens, value = 10 * tenth, p // 10, p * tenth // 10
    steps = [f"10 % of {base} is {base} ÷ 10 = {tenth}."]
    if tens > 1:
        steps.append(f"{10 * tens} % is {tens} times as much: {write_product(tenth, tens)}.")
    if p % 10:
        steps.append(f"5 % is half of 10 %: {tenth} ÷ 2 = {tenth // 2}.")
    if p % 10 and tens:
        steps.append(
            f"{p} % is {10 * tens} % and 5 % together: {write_sum(tens * tenth, tenth // 2)}."
        )
    steps.append(f"So {p} % of {base} is {value}.")
    values = {
        "p": p,
        "base": base,
        "things": rng.choice(THINGS),
        "colour": rng.choice(COLOURS),
    }
    return Draft(values | rng.choice(PEOPLE), steps, str(value))


# --- Measures -----------------------------------------------------------------------------------

_PLACES = ["garden", "room", "field", "table", "sheet", "wall"]


@family(
    "perimeter",
    asks=(
        "A rectangle is {a} {unit} long and {b} {unit} wide. What is its perimeter in {unit}?",
        "Find the perimeter of a rectangle with sides {a} {unit} and {b} {unit}.",
        "A rectangular {place} measures {a} {unit} by {b} {unit}. What is its perimeter?",
        "What is the perimeter of a rectangle of {a} {unit} by {b} {unit}?",
        "The sides of a rectangle are {a} {unit} and {b} {unit}. Work out the perimeter.",
    ),
    fresh=("How far is it once around a rectangular {place} of {a} {unit} by {b} {unit}?",),
    openings=(
        "The perimeter of a rectangle is twice the sum of its length and its width.",
        "A rectangle has two long sides and two short sides, so add one of each and double it.",
    ),
)
def perimeter(rng: Random) -> Draft:
    """Find the perimeter of a rectangle."""
    a, b = sorted((between(rng, 3, 60), between(rng, 2, 39)), reverse=True)
    unit = rng.choice(("cm", "m"))
    half = a + b
    steps = [
        f"The length is {a} {unit} and the width is {b} {unit}. Together: {write_sum(a, b)}.",
        f"Now double the sum: {write_product(half, 2)}.",
        f"So the perimeter is {2 * half} {unit}.",
    ]
    values = {"a": a, "b": b, "unit": unit, "place": rng.choice(_PLACES)}
    return Draft(values, steps, str(2 * half))


@family(
    "area",
    asks=(
        "A rectangle is {a} {unit} long and {b} {unit} wide. What is its area?",
        "Find the area of a rectangle with sides {a} {unit} and {b} {unit}.",
        "A rectangular {place} measures {a} {unit} by {b} {unit}. What is its area?",
        "What is the area of a rectangle of {a} {unit} by {b} {unit}?",
        "The sides of a rectangle are {a} {unit} and {b} {unit}. Work out the area.",
    ),
    fresh=("How many square {unit} does a {place} of {a} {unit} by {b} {unit} cover?",),
    openings=(
        "The area of a rectangle is its length times its width.",
        "To find the area, multiply the two sides of the rectangle.",
    ),
)
def area(rng: Random) -> Draft:
    """Find the area of a rectangle."""
    a, b = sorted((between(rng, 4, 30), between(rng, 2, 29)), reverse=True)
    unit = rng.choice(("cm", "m"))
    steps = [
        f"The length is {a} {unit} and the width is {b} {unit}, so the area is {a} × {b} "
        f"square {unit}.",
        f"{write_product(a, b)}.",
        f"That many unit squares fill the rectangle, so the area is {a * b} square {unit}.",
    ]
    values = {"a": a, "b": b, "unit": unit, "place": rng.choice(_PLACES)}
    return Draft(values, steps, str(a * b))


@family(
    "distance",
    asks=(
        "A {mover} travels at {v} km per hour for {t} hours. How far does it get?",
        "How many km does a {mover} cover in {t} hours at {v} km per hour?",
        "A {mover} goes {v} km every hour. How many km does it go in {t} hours?",
        "Find the distance that a {mover} travels in {t} hours at a speed of {v} km per hour.",
        "For {t} hours a {mover} keeps a speed of {v} km per hour. What distance is that in km?",
    ),
    fresh=("The speed of a {mover} is {v} km per hour. It is under way for {t} hours. How far?",),
    openings=(
        "Distance is speed times time.",
        "In every hour the {mover} goes {v} km, so multiply the speed by the time.",
    ),
)
def distance(rng: Random) -> Draft:
    """Find a distance from speed and time."""
    v, t = between(rng, 11, 99), between(rng, 2, 9)
    steps = [
        f"The speed is {v} km per hour and the time is {t} hours.",
        f"So the distance is {v} × {t} km.",
        f"{write_product(v, t)}.",
        f"In {t} hours it is {v * t} km.",
    ]
    return Draft({"v": v, "t": t, "mover": rng.choice(TRAVELLERS)}, steps, str(v * t))


@family(
    "speed",
    asks=(
        "A {mover} travels {s} km in {t} hours. What is its speed in km per hour?",
        "How fast is a {mover} that covers {s} km in {t} hours?",
        "A {mover} needs {t} hours for {s} km. Find its speed in km per hour.",
        "It takes a {mover} {t} hours to go {s} km. How many km is that per hour?",
        "Find the average speed of a {mover} that goes {s} km in {t} hours.",
    ),
    fresh=("After {t} hours a {mover} has come {s} km. How many km did it make each hour?",),
    openings=(
        "Speed is distance divided by time.",
        "We want the km in one hour, so divide the distance by the time.",
    ),
)
def speed(rng: Random) -> Draft:
    """Find a speed from distance and time."""
    v, t = between(rng, 3, 20), between(rng, 2, 12)
    s = v * t
    steps = [
        f"The distance is {s} km and the time is {t} hours, so the speed is {s} ÷ {t} km per hour.",
        f"{write_quotient(s, t)}.",
        f"Check: in {t} hours at {v} km per hour it goes {write_product(v, t)} km, "
        "as it should be.",
        f"So the speed is {v} km per hour.",
    ]
    return Draft({"s": s, "t": t, "mover": rng.choice(TRAVELLERS)}, steps, str(v))


# The larger unit, the smaller one, how many of it make the larger, and the most to convert.
_UNITS: tuple[tuple[str, str, int, int], ...] = (
    ("hours", "minutes", 60, 12),
    ("minutes", "seconds", 60, 12),
    ("days", "hours", 24, 12),
    ("weeks", "days", 7, 30),
    ("years", "months", 12, 30),
    ("metres", "centimetres", 100, 9),
    ("centimetres", "millimetres", 10, 40),
    ("feet", "inches", 12, 30),
    ("euros", "cents", 100, 9),
)


@family(
    "conversion",
    asks=(
        "How many {small} are {n} {big} and {k} {small}?",
        "Convert {n} {big} and {k} {small} to {small}.",
        "Write {n} {big} and {k} {small} in {small}.",
        "Express {n} {big} {k} {small} in {small} only.",
        "What is {n} {big} and {k} {small} in {small}?",
    ),
    fresh=("Something measures {n} {big} plus {k} {small}. How much is that in {small}?",),
    openings=(
        "First turn the {big} into {small}, then add the {k} {small}.",
        "We need {small}, so start with the {n} {big}.",
    ),
)
def conversion(rng: Random) -> Draft:
    """Turn an amount in two units into the smaller one."""
    big, small, factor, most = rng.choice(_UNITS)
    n, k = between(rng, 2, most), between(rng, 2, factor - 1)
    whole = n * factor
    steps = [
        f"There are {factor} {small} in one of the {big}, so {n} {big} are {n} × {factor} {small}.",
        f"{write_product(n, factor)}.",
        f"Now add the other {k} {small}: {write_sum(whole, k)}.",
        f"So it is {whole + k} {small} in all.",
    ]
    values = {"big": big, "small": small, "n": n, "k": k}
    return Draft(values, steps, str(whole + k))
