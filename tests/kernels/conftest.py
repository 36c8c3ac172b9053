from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import nn

from prunemap.kernels.build import build
from prunemap.kernels.candidate import Candidate
from prunemap.kernels.lowering import lower
from prunemap.kernels.task import Task
from prunemap.pruning import capture

Images = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
Runner = Callable[..., torch.Tensor]


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Plans are kept apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNEMAP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def share(request: pytest.FixtureRequest) -> int:
    """One in how many candidates is tried: few where the engine is a process of its own."""
    return 3 if request.config.getoption("--engine", None) else 1


@pytest.fixture
def run_with() -> Runner:
    """Run a module on the engine with candidates of the caller's choice."""

    def run(
        model: nn.Module, images: torch.Tensor, isa: str, choose: Callable[[Task], Candidate], threads: int = 1
    ) -> torch.Tensor:
        network = capture(model, images)
        built = build(lower(network, model.state_dict()), isa, threads, choose)
        outputs = built.program.run(images.numpy())
        return torch.from_numpy(outputs.reshape(len(images), *network.nodes[-1].shape))

    return run


@pytest.fixture
def rounded() -> Callable[[torch.Tensor, Candidate], torch.Tensor]:
    """What a candidate computed of small integers: cells of four have weights of sixths, all others are exact."""
    return lambda result, c: result.round() if c.family == "winograd" and c.columns > 2 else result


@pytest.fixture
def tasks_of() -> Callable[..., list[Task]]:
    """The convolutions of a module, as the planner sees them for an instruction set."""

    def tasks(model: nn.Module, images: torch.Tensor, isa: str = "portable") -> list[Task]:
        found: list[Task] = []

        def note(task: Task) -> Candidate:
            from prunemap.kernels.rates import nominal_rates
            from prunemap.kernels.tune import promising

            found.append(task)
            return promising(task, isa, nominal_rates(isa))[0]

        build(lower(capture(model, images), model.state_dict()), isa, 1, note)
        return found

    return tasks
