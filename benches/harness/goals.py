"""The goals, each as a figure of the results and a bound, and the tables of both."""

from dataclasses import dataclass
from typing import Callable

MIB = 1 << 20
EXTRACT = "extract"


@dataclass(frozen=True)
class Goal:
    """A figure that must be at most `bound`. `figure` gives it and how it came about, or None where it was not measured."""

    number: str
    text: str
    races: tuple
    figure: Callable
    bound: float
    unit: str = "x"


def wall(results, race, name):
    measured = results.get(race, {}).get(name)
    return measured["median"] if measured else None


def ratio(race, ours, *theirs):
    """Our median by the best of theirs."""
    def figure(results):
        own = wall(results, race, ours)
        others = [other for name in theirs if (other := wall(results, race, name)) is not None]
        if own is None or not others:
            return None
        best = min(others)
        return own / best, f"{own:.2f} s / {best:.2f} s"
    return figure


def cpu_a_gigabyte(results):
    measured = results.get(("w1", "backup"), {}).get("pacharc")
    if not measured:
        return None
    gigabytes = measured["bytes"] / 1e9
    return measured["own_cpu"] / gigabytes, f"{measured['own_cpu']:.2f} s / {gigabytes:.2f} GB"


def peak(small):
    """The most memory of any run of pacharc's, with --max-memory 128M or without."""
    def figure(results):
        peaks = [(measured["own_peak"], f"{race[0]} {race[1]} {name}") for race, runs in results.items()
                 for name, measured in runs.items()
                 if (name.startswith("pacharc") or race[1] == "memory") and ("128M" in name) == small and "own_peak" in measured]
        if not peaks:
            return None
        most, where = max(peaks)
        return most / MIB, where
    return figure


def requests(results):
    measured = results.get(("w1", EXTRACT), {}).get("from S3")
    return measured and (measured["reads"], f"{measured['received'] / MIB:.1f} MiB of {measured['bundle'] / MIB:.0f}")


W1B, W1R, W1V = ("w1", "backup"), ("w1", "restore"), ("w1", "verify")
AT_ONCE = [f"s5cmd cp and pg_restore of {form} at once" for form in ("-Fd", "-Fc")]
ALONE = ["pg_restore -j2 of -Fd", "pg_restore -j2 of -Fc"]
EVERY_MEMORY = (("w1", "memory"), ("w2", "memory"), ("w3", "memory"))

GOALS = [
    Goal("1", "W1 backup / the script", (W1B,), ratio(W1B, "pacharc", "the script"), 0.35),
    Goal("1", "W1 backup / s5cmd cp", (W1B,), ratio(W1B, "pacharc", "s5cmd cp"), 1.8),
    Goal("1", "W1 backup / s5cmd cp, restic backup", (W1B,), ratio(W1B, "pacharc", "s5cmd cp, restic backup"), 0.25),
    Goal("2", "W1 restore / the script", (W1R,), ratio(W1R, "pacharc", "the script"), 0.40),
    Goal("2", "W1 restore / s5cmd cp and pg_restore at once", (W1R,), ratio(W1R, "pacharc", *AT_ONCE), 1.25),
    Goal("3", "verify sums / b3sum", (W1V,), ratio(W1V, "pacharc, sums", "b3sum"), 1.3),
    Goal("3", "verify contents / age -d, zstd -t", (W1V,), ratio(W1V, "pacharc, contents", "age -d | zstd -t"), 0.6),
    Goal("4", "W2 backup / s5cmd cp", (("w2", "backup"),), ratio(("w2", "backup"), "pacharc", "s5cmd cp"), 1.15),
    Goal("4", "W2 restore / s5cmd cp", (("w2", "restore"),), ratio(("w2", "restore"), "pacharc", "s5cmd cp"), 1.15),
    Goal("4b", "W1 backup: own CPU a GB of objects", (W1B,), cpu_a_gigabyte, 1.5, "s/GB"),
    Goal("5", "W3 backup / pg_dump -Fd -j2 -Z0", (("w3", "backup"),),
         ratio(("w3", "backup"), "pacharc", "pg_dump -Fd -j2 -Z0"), 1.3),
    Goal("5", "W3 restore / best pg_restore -j2", (("w3", "restore"),), ratio(("w3", "restore"), "pacharc", *ALONE), 1.1),
    Goal("6", "extract of an object: reads from S3", (("w1", EXTRACT),), requests, 5, "reads"),
    Goal("7", "memory of any command, default settings", EVERY_MEMORY, peak(False), 256, "MiB"),
    Goal("7", "memory of any command, --max-memory 128M", EVERY_MEMORY, peak(True), 128, "MiB"),
]


def judged(results, numbers):
    """Rows of the table of goals: number, text, goal, measured, verdict, how it came about."""
    rows = []
    for goal in GOALS:
        if goal.number not in numbers:
            continue
        measured = goal.figure(results)
        bound = f"<= {goal.bound:g} {goal.unit}"
        if measured is None:
            rows.append((goal.number, goal.text, bound, "", "not measured", ""))
        else:
            figure, how = measured
            verdict = "met" if figure <= goal.bound else "MISSED"
            rows.append((goal.number, goal.text, bound, f"{figure:.2f}".rstrip("0").rstrip("."), verdict, how))
    return rows


def race_rows(runs):
    """Rows of one race's table; ratios are to its first contestant, which is pacharc."""
    first = next(iter(runs.values()))["median"]
    for name, run in runs.items():
        speed = f"{run['bytes'] / run['median'] / 1e6:.0f}" if run.get("bytes") else ""
        yield (name, str(len(run["samples"])), f"{run['median']:.2f}", f"{run['min']:.2f}", f"{run['cpu']:.2f}",
               f"{run['user']:.2f}", f"{run['own_cpu']:.2f}", f"{run['peak'] / MIB:.0f}", f"{run['own_peak'] / MIB:.0f}", speed,
               f"{run['median'] / first:.2f}")


RACE_HEAD = ("contestant", "runs", "median s", "min s", "CPU s", "user s", "own CPU s", "peak MiB", "own MiB", "MB/s", "x pacharc")
GOAL_HEAD = ("#", "figure", "goal", "measured", "verdict", "how")


def table(head, rows):
    """A table that reads well as it is, and as Markdown."""
    rows = [tuple(str(cell) for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    line = lambda cells: "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths)) + " |"
    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, rows)])
