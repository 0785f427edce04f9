# SPDX-License-Identifier: MIT
"""Record training steps of small models on Gloo: ``python tests/torch_step.py RANKS OUT KIND...``.

KIND is ddp, fsdp2, tensor, pipeline or ring.  Writes OUT/KIND/kineto.R.json.gz, et.R.json and
step_us.R.txt, the time of the recorded step as the process itself saw it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing import spawn
from torch.profiler import ExecutionTraceObserver, ProfilerActivity, profile

WIDTH, LAYERS, BATCH = 64, 4, 8


def mlp(layers: int = LAYERS) -> nn.Sequential:
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    return nn.Sequential(*parts)


def ddp(rank: int, ranks: int) -> Any:
    del ranks
    model = nn.parallel.DistributedDataParallel(mlp(), bucket_cap_mb=0.02)
    return plain(model, rank)


def fsdp2(rank: int, ranks: int) -> Any:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (ranks,))
    model = mlp()
    for part in model:
        if isinstance(part, nn.Linear):
            fully_shard(part, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return plain(model, rank)


def tensor(rank: int, ranks: int) -> Any:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    mesh = init_device_mesh("cpu", (ranks // 2, 2), mesh_dim_names=("dp", "tp"))
    model = nn.ModuleList([nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)])
    plan = {"0": ColwiseParallel(), "1": RowwiseParallel()}
    parallelize_module(model, mesh["tp"], plan)
    data = torch.randn(BATCH, WIDTH)

    def step() -> None:
        model[1](model[0](data).relu()).sum().backward()
        for parameter in model.parameters():
            grad = parameter.grad
            dist.all_reduce(getattr(grad, "_local_tensor", grad), group=mesh.get_group("dp"))
            parameter.grad = None

    return step


def pipeline(rank: int, ranks: int) -> Any:
    """GPipe by hand: a stage per rank, activations on, gradients back."""
    part = mlp(1)
    micro = [torch.randn(BATCH, WIDTH) for _ in range(3)]

    def step() -> None:
        kept = []
        for data in micro:
            if rank > 0:
                data = torch.empty(BATCH, WIDTH)
                dist.recv(data, rank - 1)
            data.requires_grad_(rank > 0)
            out = part(data)
            if rank < ranks - 1:
                dist.send(out.detach(), rank + 1)
            kept.append((data, out))
        for data, out in reversed(kept):
            grad = torch.ones_like(out)
            if rank < ranks - 1:
                dist.recv(grad, rank + 1)
            out.backward(grad)
            if rank > 0:
                dist.send(data.grad, rank - 1)

    return step


def ring(rank: int, ranks: int) -> Any:
    """Ring attention's exchange: batches of isend and irecv, overlapped with compute."""
    own = torch.randn(BATCH, WIDTH)

    def step() -> None:
        data = own.clone()
        for _ in range(ranks - 1):
            other = torch.empty_like(data)
            work = dist.batch_isend_irecv([
                dist.P2POp(dist.isend, data, (rank + 1) % ranks),
                dist.P2POp(dist.irecv, other, (rank - 1) % ranks),
            ])  # fmt: skip
            (data @ data.T).sum()
            for one in work:
                one.wait()
            data = other
        dist.barrier()

    return step


def plain(model: nn.Module, rank: int) -> Any:
    torch.manual_seed(rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.randn(BATCH, WIDTH)

    def step() -> None:
        model(data).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def work(rank: int, kinds: list[str], ranks: int, out: str, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank),
                   "WORLD_SIZE": str(ranks)}  # fmt: skip
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    for kind in kinds:
        record(kind, rank, ranks, Path(out) / kind)
    dist.destroy_process_group()


def record(kind: str, rank: int, ranks: int, folder: Path) -> None:
    step = globals()[kind](rank, ranks)
    for _ in range(2):
        step()
    folder.mkdir(parents=True, exist_ok=True)
    observer = ExecutionTraceObserver().register_callback(str(folder / f"et.{rank}.json"))
    dist.barrier()
    with profile(
        activities=[ProfilerActivity.CPU], record_shapes=True, execution_trace_observer=observer
    ) as profiler:
        start = time.perf_counter()
        step()
        took = time.perf_counter() - start
    profiler.export_chrome_trace(str(folder / f"kineto.{rank}.json.gz"))
    (folder / f"step_us.{rank}.txt").write_text(f"{took * 1e6}")
    dist.barrier()


if __name__ == "__main__":
    _, given, out, *kinds = sys.argv
    spawn(work, (kinds, int(given), out, 20_000 + os.getpid() % 20_000), nprocs=int(given))
