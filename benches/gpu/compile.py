"""Compiles every kernel for NVIDIA GPUs on a machine without one: registers, shared memory and spills.

usage: pip install -r benches/gpu/requirements.txt
       python benches/gpu/compile.py [--only TEXT] [--limit SECONDS] [--sources FOLDER] [--architecture sm_90a]

The example `cuda_sources` of setpoint-ops writes the kernels as CUDA C++, as CubeCL would on an H200. NVRTC compiles them with the options of
CubeCL's CUDA runtime, and ptxas does what the driver does when it loads the result. --only names a part of the kernels, such as
`attention::forward` or `bf16, 128`. --sources takes a folder that the example has written; without it, cargo runs the example. Both print a
line for each kernel, and leave out, with its name, one that takes longer than the limit; NVRTC has none. A row of the table has all cases of a kernel that
have the same numbers. The exit status is 1 if a kernel has no numbers, spills registers or has a stack.

Nothing is run: whether a kernel is right or fast is not known from this.
"""

import argparse
import concurrent.futures
import csv
import ctypes
import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
# The parts of CubeCL's translator, which takes minutes without optimisation.
TRANSLATOR = ("pliron", "cubecl-ir", "cubecl-core", "cubecl-opt", "cubecl-cpp")
# A multiprocessor of an H100 or H200: registers, threads, blocks, and bytes of shared memory, 1 KiB of which each block takes for itself.
REGISTERS, THREADS, BLOCKS, SHARED, RESERVED = 65536, 2048, 32, 228 << 10, 1 << 10


def find_tools():
    """Returns the paths of NVRTC, ptxas and the headers, from the pinned wheels."""
    for line in (HERE / "requirements.txt").read_text().splitlines():
        package, _, wanted = line.partition("==")
        if wanted:
            try:
                found = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                sys.exit(f"{package} is not installed: pip install -r benches/gpu/requirements.txt")
            if found != wanted:
                sys.exit(f"{package} has version {found}, but benches/gpu/requirements.txt has {wanted}")

    def locate(package, name):
        files = importlib.metadata.files(package) or []
        return next(pathlib.Path(file.locate()) for file in files if re.fullmatch(name, file.name))

    nvrtc = locate("nvidia-cuda-nvrtc", r"libnvrtc\.so\.\d+")
    return nvrtc, locate("nvidia-cuda-nvcc", "ptxas"), locate("nvidia-cuda-runtime", r"cuda_fp16\.h").parent


class Nvrtc:
    """The compiler from CUDA C++ to PTX."""

    def __init__(self, path):
        self.library = ctypes.CDLL(str(path))

    def call(self, name, *arguments):
        return getattr(self.library, name)(*arguments)

    def read(self, program, what):
        size = ctypes.c_size_t()
        self.call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        self.call(f"nvrtcGet{what}", program, text)
        return text.value.decode()

    def compile(self, source, options):
        """Returns PTX, or raises RuntimeError with the compiler's words."""
        program = ctypes.c_void_p()
        self.call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), None, 0, None, None)
        texts = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = self.call("nvrtcCompileProgram", program, len(options), texts)
        result = self.read(program, "ProgramLog" if failed else "PTX")
        self.call("nvrtcDestroyProgram", ctypes.byref(program))
        if failed:
            raise RuntimeError(result)
        return result


def assemble(ptxas, architecture, ptx, entry, limit):
    """Returns registers, static shared memory, stack, spill stores and spill loads of a kernel, or raises RuntimeError."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        command = [ptxas, "-v", "--gpu-name", architecture, "--output-file", os.devnull, path]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"ptxas has not finished after {limit:g} s") from None
    report = done.stdout + done.stderr
    if done.returncode:
        raise RuntimeError(report)
    # Functions that are not inlined have properties of their own, which come before those of the kernel.
    properties = report[report.index(f"Function properties for {entry}") :]
    number = lambda pattern: int((re.search(rf"(\d+) {pattern}", properties) or [0, 0])[1])
    used = int(re.search(r"Used (\d+) registers", properties)[1])
    return used, number("bytes smem"), number("bytes stack frame"), number("bytes spill stores"), number("bytes spill loads")


def blocks(registers, threads, shared):
    """Returns the blocks that a multiprocessor holds at a time."""
    # Each warp takes registers in units of 256.
    warp = -(-registers * 32 // 256) * 256
    warps = -(-threads // 32)
    return min(BLOCKS, THREADS // threads, REGISTERS // warp // warps, SHARED // (shared + RESERVED))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a part of the name and case of kernels")
    parser.add_argument("--limit", type=float, default=300, help="seconds that a kernel may take in CubeCL's translator, and in ptxas; NVRTC has no limit")
    parser.add_argument("--sources", type=pathlib.Path, help="a folder that the example cuda_sources has written")
    parser.add_argument("--architecture", default="sm_90a")
    options = parser.parse_args()
    nvrtc_path, ptxas, headers = find_tools()
    nvrtc = Nvrtc(nvrtc_path)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.sources or pathlib.Path(temporary)
        whole = bool(options.sources) or translate(folder, options)
        if not (folder / "kernels.tsv").exists():
            sys.exit(f"{folder} has no kernels.tsv")
        with (folder / "kernels.tsv").open() as file:
            kernels = list(csv.DictReader(file, delimiter="\t"))
        kernels = [kernel for kernel in kernels if options.only in f"{kernel['kernel']}, {kernel['case']}"]

        def build(kernel):
            began = time.monotonic()
            source = (folder / kernel["file"]).read_text()
            flags = [f"--gpu-architecture={options.architecture}", f"--include-path={headers}", "-lineinfo"]
            try:
                ptx = nvrtc.compile(source, flags)
                result = assemble(ptxas, options.architecture, ptx, kernel["entry"], options.limit)
            except RuntimeError as error:
                result = error
            print(f"{kernel['kernel']}, {kernel['case']}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
            return result

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(build, kernels))
    failed = show(kernels, results)
    sys.exit(0 if whole and kernels and not failed else 1)


def translate(folder, options):
    """Lets cargo run the example, and returns whether it has written all kernels."""
    command = ["cargo", "run", "--quiet", "--package", "setpoint-ops", "--features", "cuda-sources,burn/wgpu"]
    command += [f"--config=profile.dev.package.{package}.opt-level=2" for package in TRANSLATOR]
    command += ["--example", "cuda_sources", "--", folder, "--only", options.only, "--limit", str(options.limit)]
    return subprocess.run(command, cwd=HERE.parent.parent).returncode == 0


def show(kernels, results):
    """Prints the table and returns the number of kernels that should be better."""
    rows, failed = {}, 0
    for kernel, result in zip(kernels, results):
        name, case = kernel["kernel"], kernel["case"]
        if isinstance(result, RuntimeError):
            failed += 1
            print(f"{name}, {case}: {result}", file=sys.stderr)
            continue
        registers, static, *memory = result
        threads, shared = int(kernel["units"]), int(kernel["shared"]) + static
        failed += any(memory)
        numbers = (registers, shared, threads, blocks(registers, threads, shared), *memory)
        rows.setdefault((name, *numbers), []).append(case)
    print("| kernel | cases | registers | shared bytes | threads | blocks | stack | spill stores | spill loads |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (name, *numbers), cases in sorted(rows.items(), key=lambda row: row[0][0]):
        print(f"| {name} | {'; '.join(cases)} | " + " | ".join(map(str, numbers)) + " |")
    print(f"{len(kernels)} kernels, {failed} of which do not compile, spill or have a stack", file=sys.stderr)
    return failed


if __name__ == "__main__":
    main()
