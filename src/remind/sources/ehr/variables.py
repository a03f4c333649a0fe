"""The measurements we read: item ids, units and plausible ranges of MIMIC's labs and vitals.

Ids of labs and vitals from mimic-code's concepts and mimic3-benchmarks' list of variables; those of MIMIC-III's older
CareVue system (ids of up to four digits) from the same. Ranges are mimic-code's ceilings, with floors that a living
patient does not pass. Left out of those lists: pH and glucose of urine and of other fluids, which are other quantities,
and the saturation of blood gases, of which many are venous.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Variable(NamedTuple):
    """One quantity: its unit, the range of what can be true, its items.

    A value's unit is the one written beside it, or else its item's, or else the variable's. It must be the variable's,
    mean the same (``also``), or be one of ``others``, from which it is converted.
    """

    name: str
    unit: str
    low: float
    high: float
    labs: tuple[int, ...] = ()
    chart: tuple[int, ...] = ()
    items: Mapping[int, str] = {}  # of items whose name says another unit
    also: tuple[str, ...] = ()
    others: Mapping[str, tuple[float, float]] = {}  # factor and offset, by unit
    shares: bool = False  # whether numbers up to 1 are shares of 100 %


_FAHRENHEIT: dict[str, tuple[float, float]] = dict.fromkeys(("°F", "?F", "F", "Deg. F"), (5 / 9, -160 / 9))
_POUND, _OUNCE, _INCH = (0.45359237, 0.0), (0.028349523125, 0.0), (2.54, 0.0)
_WEIGHTS = {**dict.fromkeys(("lb", "lbs", "lb.", "lbs."), _POUND), **dict.fromkeys(("oz", "oz."), _OUNCE)}

VARIABLES = (
    Variable("heart rate", "bpm", 1, 350, chart=(220045, 211)),
    Variable("systolic pressure", "mmHg", 1, 375, chart=(220179, 220050, 225309, 224167, 227243, 51, 442, 455, 6701)),
    Variable("diastolic pressure", "mmHg", 1, 375, chart=(220180, 220051, 225310, 224643, 8368, 8440, 8441, 8555)),
    Variable("mean pressure", "mmHg", 1, 375, chart=(220181, 220052, 225312, 224322, 52, 443, 456, 6702)),
    Variable(
        "respiratory rate",
        "insp/min",
        1,
        100,
        chart=(220210, 224689, 224690, 224422, 615, 618),
        also=("bpm", "breath", "resp/min"),
    ),
    Variable("oxygen saturation", "%", 1, 100, chart=(220277, 220227, 646)),
    Variable(
        "temperature",
        "°C",
        26,
        45,
        chart=(223762, 223761, 676, 678),
        items={223761: "°F", 678: "°F"},
        also=("?C", "C", "Deg. C"),
        others=_FAHRENHEIT,
    ),
    Variable("coma scale, eyes", "points", 1, 4, chart=(220739, 184)),
    Variable("coma scale, speech", "points", 1, 5, chart=(223900, 723)),
    Variable("coma scale, movement", "points", 1, 6, chart=(223901, 454)),
    Variable("inspired oxygen", "%", 20, 100, labs=(50816,), chart=(223835, 3420, 190), also=("torr",), shares=True),
    Variable(
        "weight",
        "kg",
        20,
        400,
        chart=(226512, 224639, 226531, 762, 763, 3580, 3581, 3582),
        items={226531: "lbs", 3581: "lbs", 3582: "oz"},
        others=_WEIGHTS,
    ),
    Variable(
        "height",
        "cm",
        100,
        250,
        chart=(226730, 226707, 920, 1394),
        items=dict.fromkeys((226707, 920, 1394), "inch"),
        others=dict.fromkeys(("in", "inch", "inches"), _INCH),
    ),
    Variable("glucose", "mg/dL", 1, 2000, labs=(50931, 50809), chart=(220621, 225664, 226537, 807, 811, 1529, 3745)),
    Variable("pH", "units", 6.5, 8.0, labs=(50820,), chart=(223830, 220274, 780, 1126, 3839, 4753)),
    Variable("albumin", "g/dL", 0.1, 10, labs=(50862,)),
    Variable("anion gap", "mEq/L", -20, 60, labs=(50868,)),
    Variable("bicarbonate", "mEq/L", 1, 80, labs=(50882,)),
    Variable("bilirubin", "mg/dL", 0, 150, labs=(50885,)),
    Variable("calcium", "mg/dL", 1, 20, labs=(50893,)),
    Variable("chloride", "mEq/L", 40, 200, labs=(50902,)),
    Variable("creatinine", "mg/dL", 0, 150, labs=(50912,)),
    Variable("magnesium", "mg/dL", 0.1, 15, labs=(50960,)),
    Variable("phosphate", "mg/dL", 0.1, 25, labs=(50970,)),
    Variable("potassium", "mEq/L", 1, 30, labs=(50971,)),
    Variable("sodium", "mEq/L", 50, 200, labs=(50983,)),
    Variable("urea nitrogen", "mg/dL", 0, 300, labs=(51006,)),
    Variable("hematocrit", "%", 5, 100, labs=(51221,)),
    Variable("hemoglobin", "g/dL", 1, 50, labs=(51222,)),
    Variable("platelets", "K/uL", 1, 10_000, labs=(51265,)),
    Variable("red cells", "m/uL", 0.1, 15, labs=(51279,)),
    Variable("white cells", "K/uL", 0, 1000, labs=(51301,)),
    Variable("MCH", "pg", 5, 60, labs=(51248,)),
    Variable("MCHC", "%", 10, 60, labs=(51249,), also=("g/dL",)),
    Variable("MCV", "fL", 40, 160, labs=(51250,)),
    Variable("RDW", "%", 5, 60, labs=(51277,)),
    Variable("neutrophils", "%", 0, 100, labs=(51256,)),
    Variable("lactate", "mmol/L", 0.1, 50, labs=(50813,)),
    Variable("carbon dioxide pressure", "mm Hg", 1, 250, labs=(50818,)),
    Variable("oxygen pressure", "mm Hg", 1, 800, labs=(50821,)),
    Variable("base excess", "mEq/L", -60, 60, labs=(50802,)),
    Variable("INR", "ratio", 0.1, 50, labs=(51237,)),
    Variable("prothrombin time", "sec", 1, 150, labs=(51274,), also=("seconds",)),
    Variable("thromboplastin time", "sec", 1, 150, labs=(51275,), also=("seconds",)),
    Variable("ALT", "IU/L", 0, 50_000, labs=(50861,)),
    Variable("AST", "IU/L", 0, 50_000, labs=(50878,)),
    Variable("alkaline phosphatase", "IU/L", 0, 20_000, labs=(50863,)),
)


def conversions(variable: Variable) -> dict[str, tuple[float, float]]:
    """Factor and offset of every unit a variable may come in, by the unit's plain form."""
    same = dict.fromkeys((variable.unit, *variable.also), (1.0, 0.0))
    return {plain(unit): how for unit, how in {**same, **variable.others}.items()}


def plain(unit: str) -> str:
    """A unit without case and spaces, as units are compared."""
    return unit.replace(" ", "").lower()
