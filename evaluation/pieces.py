"""What `run-all` runs: scripts, each with flags with which it takes at most ten minutes."""

import dataclasses
import shutil

LOGS = "--logs {folder}"
BOTH = "--logs {folder} --output {folder}"


# Of Table 4's models.
TEN = "--functions densenet169=1 densenet201=1 inception_v3=1 efficientnet_b0=2 resnet50=2 resnet101=1 resnet152=1 bert_large_qa=1"


@dataclasses.dataclass(frozen=True)
class Piece:
    """A script with its flags: as a rule, with --quick, and on the simulated node (None: that cannot run it).

    `gpus` are as many as it needs; one that `spreads` takes all that there are.
    """

    name: str
    shows: str
    script: str
    usual: str = ""
    quick: str = ""
    simulated: str | None = None
    folder: str = LOGS
    gpus: int = 1
    spreads: bool = False
    tools: tuple = ()

    def __post_init__(self):
        if self.gpus > 1:
            object.__setattr__(self, "spreads", True)

    def flags(self, quick, simulated):
        """The flags that are for this run."""
        return self.simulated if simulated else self.quick if quick else self.usual

    def obstacle(self, gpus, simulated):
        """Why it is left out on a machine with so many GPUs; None if it is not."""
        if simulated and self.simulated is None:
            return "not on the simulated node"
        if not simulated and self.gpus > gpus:
            return f"needs {self.gpus} GPUs of {gpus}" if gpus else "needs a GPU"
        missing = [tool for tool in self.tools if shutil.which(tool) is None]
        return f"needs {' and '.join(missing)}" if missing else None


PIECES = [
    Piece("latency", "Table 4: eight models, natively and remoted", "latency/run", "--rounds 3", "--rounds 1",
          "--simulated --rounds 1 --inferences 10"),
    Piece("table4", "Table 4: native, remoted, swaps over PCIe and from another GPU", "table4/run", "--rounds 50", "--quick",
          "--simulated --quick", folder=BOTH, spreads=True),
    Piece("first", "the first inference of a new process", "latency/run", "--first-only --first-rounds 3", "--first-only",
          "--simulated --first-only"),
    Piece("floor", "what no remoting can beat", "floor/run", "", "--rounds 2", tools=("cc",)),
    Piece("figure6", "what each idea of remoting brings", "figure6/run", "", "--rounds 1",
          "--simulated --rounds 1 --inferences 10"),
    Piece("figure7", "what each idea of swapping brings", "figure7/run", "", "--rounds 3", "--simulated --rounds 2"),
    Piece("figure8", "low-rate functions on one GPU", "figure8/run", "--minutes 0.5 --most 320 --seconds 420",
          "--minutes 0.5 --only native-10 torpor-33x80 torpor-400x10 --most 400 --host-pool 96GiB --seconds 420", "--simulated --quick",
          folder=BOTH),
    Piece("figure9", "load balance on several GPUs", "figure9/run", "--minutes 1 --seconds 420", "--quick", "--simulated --quick",
          folder=BOTH, gpus=2),
    Piece("figure10-gpus", "functions of one model, measured", "figure10/run",
          "--counts 160 80 --minutes 1 --seconds 420 --only torpor torpor-the-paper-s-policies native-processes",
          "--counts 40 --quick --only torpor native-processes", "--simulated --quick --only torpor", folder=BOTH,
          spreads=True),
    Piece("figure10-kept", "the same by native processes that are kept alive", "figure10/run",
          "--counts 80 --minutes 3 --seconds 420 --only kept-alive-learnt kept-alive-oracle",
          "--counts 40 --quick --only kept-alive-learnt kept-alive-oracle", "--simulated --quick --only kept-alive-learnt",
          folder=BOTH, spreads=True),
    Piece("figure11-gpus", "mixed functions, measured", "figure11/run",
          "--counts 160 --gpu-limit 7GiB --speed 4 --minutes 1 --only default deadline predicted slo-aware-interference --seconds 400",
          "--counts 80 --gpu-limit 3GiB --speed 4 --only default deadline --quick --seconds 400",
          "--simulated --quick --only default deadline", folder=BOTH, spreads=True),
    Piece("validate", "the simulator beside the same trace on GPUs", "validate/run", "--functions 80 --minutes 1 --seconds 420",
          "--functions 80 --minutes 1 --seconds 420", "--simulated --quick", folder=BOTH, spreads=True),
    Piece("figure10", "functions of one model on a node (simulated always)", "figure10/run", "--simulate v100x4 --seeds 1",
          "--simulate v100x4 --quick", "--simulate v100x4 --quick", folder="--output {folder}", gpus=0),
    Piece("figure11", "mixed functions on a node (simulated always)", "figure11/run", "--simulate v100x4 --seeds 1",
          "--simulate v100x4 --quick", "--simulate v100x4 --quick", folder="--output {folder}", gpus=0),
    Piece("cluster", "10,000 functions on many nodes (simulated always)", "cluster/run", "--minutes 2 --functions 4000", "--quick", "--quick",
          folder="--output {folder}", gpus=0),
    Piece("counts", "what an inference awaits, and the library's memory", "counts/run", "", "", tools=("cc",)),
    Piece("launch-cost", "a launch", "launch-cost/run", "", "--rounds 2", tools=("nvcc",)),
    Piece("bus", "how fast the bus is from each kind of host memory", "bus/run", "", "--gib 2", "--simulated --gib 0.25"),
    Piece("microbench", "calls of the driver", "microbench/run", "", "--rounds 2", "--simulated --rounds 1"),
    Piece("programs", "unmodified programs", "conformance/run", "--jobs 4", "--remoted-only --jobs 9"),
    Piece("containers", "PyTorch in containers without a GPU, without an engine", "containers/run", "", "", "--simulated",
          tools=("unshare", "pivot_root")),
    Piece("operators", "PyTorch's operators, bit by bit", "operators/run", "--minutes 9", "--samples 1 --minutes 4 samples"),
    Piece("mixed", "several ways into CUDA in one process", "mixed/run", tools=("nvcc",)),
    Piece("state", "state is kept over evictions", "state/run", "", "--steps 5", "--simulated --steps 5", spreads=True),
    Piece("migration", "programs move between two GPUs", "migration/run", "", "--moves 10", "--simulated --moves 5", gpus=2),
    Piece("swap", "the first request after an eviction", "swap/run", "", "--rounds 2 --seconds 200", "--simulated --rounds 2"),
    Piece("writeback", "what an eviction copies back", "writeback/run", "", "--rounds 3", "--simulated --rounds 2"),
    Piece("crowd", "a crowd of functions in little memory", "crowd/run", "--seconds 240",
          "--functions resnet152=20 --gpu-limit 2GiB --start-seconds 120 --seconds 60",
          "--simulated --functions copy_only=6 --gpu-limit 256MiB --seconds 15"),
    Piece("crowd-rates", "the same, asked unequally, a few at a time", "crowd/run",
          "--memory 120GiB --rates invocations --eviction fewest --in-flight 1 2 --seconds 60",
          "--memory 120GiB --rates invocations --eviction fewest --in-flight 1 --seconds 25"),
    Piece("told", "what the router's word saves", "told/run", "", "--rounds 10", "--rounds 3 --simulated --model weights"),
    Piece("llm", "language models that take turns: the first token after a swap", "llm/run", "", "--rounds 4",
          "--simulated --rounds 2"),
    Piece("today", "what people serve now: Torpor, sleep and wake, process checkpoint, restart", "today/run",
          "--models llama_1b vit_l unet", "--quick", "--simulated --models unet --ways torpor sleep restart", folder=BOTH),
    Piece("today-large", "the same of larger models", "today/run", "--models whisper llama_8b --copies 2 --rounds 3 --room 24GiB",
          "--models llama_8b --copies 2 --rounds 2 --room 24GiB --for 20", folder=BOTH),
    Piece("large", "large models leave the GPU and come back", "large/run", "", "--models llama_1b --rounds 4",
          "--simulated --models llama_1b --rounds 2", folder=BOTH, spreads=True),
    Piece("front", "40 functions behind one router at rising load, by each order", "front/run", "", "--loads 0.5 0.9 --for 10",
          "--simulated --functions 6 --loads 0.5 1.1 --for 4", gpus=2),
    Piece("placements", "the same on four GPUs, by where a client goes that waits", "front/run",
          "--gpus 4 --placements deadline interference random lru random//slo-aware --loads 0.5 0.8 1.1 1.4 --for 7 --rounds 2",
          "--gpus 4 --placements deadline random --loads 0.6 1.3 --for 6 --rounds 2",
          "--simulated --functions 6 --loads 0.5 1.2 --for 4 --rounds 2 --placements deadline random//fifo", gpus=4),
    Piece("sharing", "busy functions on one GPU", "sharing/run", "", "--for 8 --ways native auto",
          "--simulated --for 3 --ways native auto"),
    Piece("sharing-ten", "ten busy functions of eight models on one GPU", "sharing/run", f"--ways native auto {TEN}",
          f"--ways native auto --rounds 2 {TEN}"),
    Piece("sharing-limit", "five busy functions in half of the memory that they need", "sharing/run", "--limit", "--limit --for 5 --busy-turn",
          "--simulated --limit --for 3"),
    Piece("sharing-limit-ten", "ten of eight models likewise", "sharing/run", f"--limit {TEN}", f"--limit --for 5 --busy-turn 0s {TEN}"),
    Piece("sharing-train", "the same beside a training loop", "sharing/run", "--train", "--train --for 8"),
    Piece("virtual-gpus", "two ranks with NCCL on the devices of a function", "virtual_gpus/run", "--native", "", gpus=2),
    Piece("virtual-gpus-away", "ranks that leave their GPUs together, and with four come to others", "virtual_gpus/run", "--away",
          "--away --rounds 4", gpus=2),
    Piece("sharing-two", "busy functions on two GPUs", "sharing/run", "--gpus 2", "--gpus 2 --for 8", gpus=2),
    Piece("faults", "a fault beside others", "faults/run", "", "", "--simulated"),
    Piece("storm", "faults at random beside functions asked at random", "faults/storm", "--seconds 540", "--seconds 60",
          "--simulated --seconds 20 --functions 4"),
    Piece("robustness", "neighbours that are killed, endless or forked", "robustness/run"),
    Piece("isolation", "what strict functions keep from others, and what a change of turn costs", "isolation/run", "", "--rounds 40",
          "--simulated --rounds 20"),
    Piece("attached", "what attached clients cost the server", "attached/run", "--staging 4MiB", "--staging 4MiB --processes 100 --active 10 --for 5",
          "--simulated --staging 4MiB --processes 40 --active 4 --for 3", folder=BOTH),
    Piece("startup", "what a program without CUDA pays", "startup/run", "", "--rounds 1000", folder=BOTH, gpus=0),
    Piece("router", "what the router costs", "router/run", "--router {binaries}/torpor-router",
          "--router {binaries}/torpor-router --seconds 3 --waiting 2000",
          "--router {binaries}/torpor-router --seconds 3 --waiting 2000", folder="", gpus=0, tools=("wrk", "nginx")),
]
