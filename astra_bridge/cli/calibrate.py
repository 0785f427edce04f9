# SPDX-License-Identifier: MIT
"""``astra-bridge calibrate``: fit parameters of a backend to another one, or to measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from astra_bridge.arguments import path
from astra_bridge.cli.command import Argument, Command, key_value
from astra_bridge.cli.compare import Report, options_of, parse_vary, rows_of
from astra_bridge.cli.run import experiment_of
from astra_bridge.cli.summary import text_table
from astra_bridge.errors import InputError
from astra_bridge.files import new_file
from astra_bridge.text import one_line, show

__all__ = ["COMMAND"]

_ARGUMENTS = {
    "calibration": (
        Argument("--to", "NAME", "Another backend, or a CSV file of measurements: columns of "
                 "paths, and finish_ns."),
        Argument("--fit", "PATH=LOW:HIGH", "What is fitted, and its bounds: "
                 "network.bandwidth[0]=10:100.", repeated=True),
        Argument("--vary", "PATH=VALUES", "The points, as those of compare; every second one is "
                 "held out.", repeated=True),
    ),
    "hardware": (
        Argument("--kernels", "PATH", "Fit a profile of an accelerator to measured kernels: a CSV "
                 "file, or a folder of them.", path, repeated=True),
        Argument("--hardware", "NAME", "Its datasheet, and what it is like: a profile.",
                 otherwise="by the file's name"),
    ),
    "experiment": rows_of("experiment"),
    "ASTRA-sim's flags": rows_of("ASTRA-sim's flags", "--logging-folder",
                                 "--logging-configuration"),
    "simulation": [
        Argument("--network-option", "[BACKEND:]KEY=VALUE", "For both backends, or for one.",
                 repeated=True),
        *rows_of("simulation", "--network-option", "--engine"),
    ],
    "output": (
        Argument("--output", "FILE", "Write the fitted experiment there, as .yaml, or the profile, "
                 "as .json.", new_file, short="-o"),
    ),
}  # fmt: skip


def _bounds(text: str) -> tuple[str, tuple[str, str]]:
    name, bounds = key_value(text, "--fit")
    low, colon, high = bounds.partition(":")
    if not colon:
        raise InputError(f"{show(bounds)} is not allowed; allowed: LOW:HIGH", key=f"--fit {name}")
    return name, (low, high)


def _run(**values: Any) -> None:
    if values["kernels"]:
        other = [key for key in ("to", "fit", "vary", "experiment") if values[key]]
        if other:
            raise InputError("is of a backend, not of an accelerator; leave it out, or --kernels",
                             key=f"--{other[0]}")  # fmt: skip
        _hardware(values["kernels"], values["hardware"], values["output"])
        return
    if values["to"] is None:
        raise InputError("missing; another backend, or a CSV file of measurements (--kernels fits "
                         "a profile of an accelerator)", key="--to")  # fmt: skip
    _backend(**values)


def _hardware(kernels: list[Path], given: str | None, output: Path | None) -> None:
    from astra_bridge.validation.fitting import fit_hardware

    if output is not None and output.suffix != ".json":
        raise InputError("a profile ends in .json", key="--output")
    found = fit_hardware(kernels, given)

    def share(error: float | None) -> str:
        return "-" if error is None else f"{error:.1%}"

    print(text_table(
        ["class", "used", "before", "after", "not used", "before", "after"],
        [[one.name, str(one.used), share(one.fit_before), share(one.fit_after), str(one.held_out),
          share(one.before), share(one.after)] for one in found.qualities],
    ))  # fmt: skip
    print(f"\n{one_line(found.card.name)} fitted to {one_line(found.fitted['to'], 400)}")
    print("before: by the parameters that stood in; after: by the fitted ones; errors are "
          "exp(mean |ln(predicted / measured)|) - 1")  # fmt: skip
    if output is not None:
        found.save(output)
        print(f"wrote {one_line(str(output))}")


def _backend(**values: Any) -> None:
    from astra_bridge.comparison import calibrate

    experiment = experiment_of(values | {"network_option": []})
    own = str(experiment.backend)
    common, options = options_of(values["network_option"], [own, values["to"]])
    given = dict(key_value(text, "--network-option") for text in common) | options.pop(own, {})
    if given:
        experiment = experiment.replace(network_options={**experiment.network_options, **given})
    found = calibrate(
        experiment,
        dict(map(_bounds, values["fit"])),
        values["to"],
        parse_vary(values["vary"]),
        options=options,
        progress=Report(),
    )
    if values["output"] is not None:
        found.save(values["output"])
    header = [*(one_line(name, 30) for name in found.varied), "used", "target [ns]", "before",
              "after"]  # fmt: skip
    print(text_table(header, [
        [*(one_line(str(row[name]), 30) for name in found.varied), "yes" if row["used"] else "no",
         f"{row['target_ns']:,}",
         *(f"{row[name] / row['target_ns'] - 1:+.1%}" for name in ("before_ns", "after_ns"))]
        for row in found.rows
    ]))  # fmt: skip
    print(f"\n{one_line(str(found.experiment.backend))} fitted to {one_line(found.target)}:")
    for name, value in found.values.items():
        print(f"  {one_line(name)} = {value}")
    print(f"Error on the points that were used: {found.fit_before} before, {found.fit_after} after")
    print(f"Error on the others:                {found.before} before, {found.after} after")
    if values["output"] is not None:
        print(f"wrote {one_line(str(values['output']))}")


COMMAND = Command(
    "Fit parameters of a backend or of an accelerator to measurements.",
    _ARGUMENTS,
    _run,
    "calibrate experiment.yaml --to ns3 -o fitted.yaml \\\n"
    "    --fit network.links[1].bandwidth=100Gbps:800Gbps \\\n"
    "    --vary workload.size=64KiB,256KiB,1MiB,4MiB,16MiB",
    "A profile of an accelerator, from measured kernels (docs/hardware.md):\n"
    "  astra-bridge calibrate --kernels my_gemm.csv --hardware h100-sxm -o my.json\n\n"
    "Least squares of the logarithm of model over target, by SciPy.",
)
