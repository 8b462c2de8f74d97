"""Two ranks with NCCL, each with a device of the function: that the group comes together, over sockets of the machine. Kernels are skipped
where the GPU is simulated, so nothing is computed, and the ranks end without a goodbye."""
import os
import subprocess
import sys

RANKS = 2

if not sys.argv[1:]:
    store = os.path.join(os.environ["TORPOR_TEST_FOLDER"], "store")
    ranks = [subprocess.Popen([sys.executable, __file__, str(rank), store]) for rank in range(RANKS)]
    codes = [rank.wait(240) for rank in ranks]
    assert codes == [0] * RANKS, codes
    print("ranks passed")
    sys.exit()

import torch  # noqa: E402
from torch import distributed  # noqa: E402

rank, store = int(sys.argv[1]), sys.argv[2]
os.environ.update(NCCL_SOCKET_IFNAME="lo", NCCL_IB_DISABLE="1")
assert os.environ["NCCL_SHM_DISABLE"] == "1"
device = torch.device("cuda", rank)
torch.cuda.set_device(device)
distributed.init_process_group("nccl", store=distributed.FileStore(store, RANKS), rank=rank, world_size=RANKS, device_id=device)
distributed.all_reduce(torch.ones(1 << 10, device=device))
print(f"rank {rank} has its group on {torch.cuda.current_device()}", flush=True)
os._exit(0)
