"""How often each function of a crowd is asked: equally, by Zipf's law, or as unequally as those of the paper's prototype."""

import random

# Requests in a minute. `trace`: means of the 203 functions that `torpor simulate` draws and figures 10 and 11 show. `invocations`: the 1336 rates
# that the prototype drew functions from, of which these are all that is known: least, most, median 3.2 and mean 11.7.
TRACE_MEAN, TRACE_SHAPE, TRACE_MOST, TRACE_LEAST = 9.79, 2, 33, 0.1
MEDIAN, SPREAD, LEAST, MOST = 3.2, 1.8, 1.0, 97.9


def add_arguments(parser):
    """The flags that say so."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--zipf", type=float, default=0, metavar="S", help="0: all functions are asked equally often")
    how.add_argument("--rates", choices=sorted(RATES), default=None, help="drawn with the statistics of the paper's: of its trace, or of all its invocations")


def of_arguments(given, count):
    """How often each of so many functions is asked, by the flags."""
    if given.rates is None:
        return zipf(count, given.seed, given.zipf)
    dice = random.Random(given.seed)
    return [RATES[given.rates](dice) for _ in range(count)]


def zipf(count, seed, exponent):
    """By Zipf's law, in an order that is drawn."""
    order = list(range(1, count + 1))
    random.Random(seed).shuffle(order)
    return [1 / rank ** exponent for rank in order]


def _trace(dice):
    return min(TRACE_MOST, max(TRACE_LEAST, dice.gammavariate(TRACE_SHAPE, TRACE_MEAN / TRACE_SHAPE)))


def _invocations(dice):
    return min(MOST, max(LEAST, MEDIAN * dice.lognormvariate(0, SPREAD)))


RATES = {"trace": _trace, "invocations": _invocations}
