# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""What the guest does for `coax bench programs`: runs stock programs with the device and without, in
turn, and prints a line of JSON for each. It has the device for itself."""

import json
import os
import subprocess
import sys
import time

# /tmp, /run and with it the programs that come with the guest are the guest's own.
OWN = "/run/coax"
DROP_IN = f"{OWN}/usr/lib/coax"
WORK = f"{OWN}/root/numpy_work.py"
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
# The LAPACK that calls the BLAS by name; OpenBLAS's own calls its own insides.
LAPACK = f"{LIBRARIES}/lapack"
REPORT = "/tmp/report.json"
OURS, THEIRS = "/tmp/ours", "/tmp/theirs"
# Shapes around the threshold, M:N:K[:LD]; every other one lies in a larger matrix, as LAPACK's do.
SWEEP = [
    f"{letter}{call}"
    for letter in "ds"
    for call in [
        "gemm:64:64:64", "gemm:101:101:101", "gemm:128:128:128", "gemm:192:192:192",
        "gemm:128:128:128:1024", "gemm:256:256:16", "gemm:256:256:32", "gemm:256:256:32:1024",
        "gemm:512:512:8", "gemm:32:256:256", "gemm:64:512:64:1024", "gemm:512:512:64:1024",
        "syrk:128:0:128", "syrk:192:0:96", "syrk:256:0:64", "syrk:256:0:64:1024", "syrk:512:0:32",
        "symm:101:101:0", "symm:128:128:0", "symm:256:16:0", "symm:256:64:0", "symm:128:128:0:1024",
        "trsm:128:128:0", "trsm:192:192:0", "trsm:256:64:0", "trsm:256:256:0", "trsm:64:1024:0",
        "trsm:128:256:0:1024",
    ]
]
# Levels 2 and 1, with the matrices in system memory and with the device.
LEVELS = [
    f"{call}{there}"
    for call in ["dgemv:2048:2048:0", "sgemv:2048:2048:0", "ddot:2097152:1:1", "sdot:2097152:1:1"]
    for there in ["", ":there"]
]


def say(kind, line):
    print(json.dumps({kind: line}), flush=True)


def counters():
    text = subprocess.run(["coaxctl", "stats", "--json"], check=True, capture_output=True).stdout
    return json.loads(text)


def run(argv, environment, **options):
    """Standard output of a program that must succeed."""
    done = subprocess.run(argv, env=os.environ | environment, stdout=subprocess.PIPE, **options)
    if done.returncode != 0:
        sys.exit(f"{argv} ended with {done.returncode}")
    return done.stdout


def with_device(argv, environment):
    """What the program printed, and what driver, device and drop-in have counted."""
    before = counters()
    output = run(argv, environment)
    after = counters()

    def grown(part, *names):
        return sum(after[part][name] - before[part][name] for name in names)

    counted = {
        "commands": grown("device", "commands"),
        "pages_to_device": grown("driver", "to_device_fault", "to_device_request"),
        "pages_back": grown("driver", "to_system_fault", "to_system_request"),
        "engine_seconds": grown("device", "engine_ns") / 1e9,
        "bytes_in_place": grown("device", "system_bytes"),
    }
    if os.path.exists(REPORT):
        with open(REPORT) as file:
            reports = [json.loads(line) for line in file]
        os.remove(REPORT)
        counted["calls"] = sum(report["offloaded"] for report in reports)
        counted["calls_seconds"] = sum(report["offloaded_seconds"] for report in reports)
    return output, counted


def drop_in(lapack):
    # Preloaded it would bring the BLAS behind it along, and of OpenBLAS that has a dgesv_ of its own.
    path = f"{DROP_IN}:{LAPACK}" if lapack else DROP_IN
    return {"LD_LIBRARY_PATH": path, "COAX_BLAS_STATS": REPORT}


def numpy(title, work, size, on_cpu=True, lapack=False):
    """A work of numpy_work.py, with the device and as the distribution has it."""
    argv = [sys.executable, WORK, work, str(size)]
    row = {"program": title, "size": size, "work": work}
    # Without the CPU's product one is proved by vectors.
    ours = [OURS] if on_cpu else ["-", "--prove"]
    output, counted = with_device(argv + ours, drop_in(lapack))
    line = json.loads(output)
    row |= counted | {"coax_seconds": line.pop("seconds")}
    if on_cpu:
        line = json.loads(run(argv + ["-", OURS], {}))
        row["cpu_seconds"] = line.pop("seconds")
        if lapack and os.path.isdir(LAPACK):
            same = json.loads(run(argv + ["-"], {"LD_LIBRARY_PATH": LAPACK}))
            row["same_lapack_seconds"] = same["seconds"]
    say("program", row | line)


def linked(rows, unknowns, sides):
    """The program in C, by the path that it was linked for."""
    argv = [f"{OWN}/bin/normal_equations", str(rows), str(unknowns), str(sides)]
    environment = {"LD_LIBRARY_PATH": DROP_IN, "COAX_BLAS_STATS": REPORT}
    output, counted = with_device(argv, environment)
    line = json.loads(output)
    row = {"program": "normal_equations (C, libblas)", "size": unknowns} | counted
    row |= {"coax_seconds": line["seconds"], "difference": line["difference"]}
    # The squared condition of such a matrix of random numbers is below 100.
    row["tolerance"] = 100 * rows * 2.0**-53
    row["cpu_seconds"] = json.loads(run(argv, {}))["seconds"]
    say("program", row)


def hashed(title, file):
    """coaxctl sha256 and sha256sum on a file in the page cache."""
    with open(file, "rb") as contents:
        size = len(contents.read())

    def timed(what):
        begin = time.perf_counter()
        result = what()
        return time.perf_counter() - begin, result

    seconds, (ours, counted) = timed(lambda: with_device(["coaxctl", "sha256", file], {}))
    # Without the time that the counters take.
    seconds, _ = timed(lambda: run(["coaxctl", "sha256", file], {}))
    cpu_seconds, theirs = timed(lambda: run(["sha256sum", file], {}))
    counted["calls"] = counted["commands"]
    row = {"program": title, "size": size, "identical": ours == theirs} | counted
    say("program", row | {"coax_seconds": seconds, "cpu_seconds": cpu_seconds})


def sweep(kind, calls, rounds):
    """Times calls by the drop-in and by the library behind it, in turn, in one process."""
    choices = [f"{LIBRARIES}/{name}/libblas.so.3" for name in ("openblas-pthread", "blas")]
    other = next(choice for choice in choices if os.path.exists(choice))
    program = [f"{OWN}/bin/blas_sweep", other, str(rounds)]
    environment = {"LD_PRELOAD": f"{DROP_IN}/libblas.so.3"}
    with subprocess.Popen(program + calls, env=os.environ | environment, stdout=subprocess.PIPE) as child:
        for line in child.stdout:
            say(kind, json.loads(line))
    if child.returncode != 0:
        sys.exit(f"blas_sweep ended with {child.returncode}")


def main():
    full, rounds = sys.argv[1] == "full", int(sys.argv[2])
    numpy("numpy A @ B", "product", 512)
    numpy("numpy A @ B", "product", 1024)
    numpy("numpy A @ B", "product", 2048, on_cpu=full)
    numpy("numpy linalg.solve", "solve", 1024, lapack=True)
    numpy("numpy linalg.svd", "svd", 256, lapack=True)
    numpy("numpy convolution", "convolution", 256)
    linked(1024, 512, 256)
    hashed("coaxctl sha256 vmlinux", f"{OWN}/vmlinux")
    hashed("coaxctl sha256 libopenblas", os.path.realpath(f"{LIBRARIES}/libopenblas.so.0"))
    sweep("call", SWEEP, rounds)
    sweep("level", LEVELS, rounds)


main()
