"""A Ray cluster of two nodes, one of which dies: the sweep ends, with the results of one that nothing happened to.

A process is connected to one cluster at a time, so the cluster that other tests share is closed first.
"""

import contextlib
import time

import pytest
from sweeps import contents, made_runs, needs_ray, quiet_ray, ray, sweep

from refcocom_gpu.engines import make_engine

# A dead node is noticed within two seconds, not half a minute.
WATCHFUL = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
}


def alive():
    return sum(node["Alive"] for node in ray.nodes())


@pytest.mark.slow
@needs_ray
@quiet_ray
def test_a_node_that_is_killed_costs_what_was_in_flight(tmp_path, shared_ray):
    from ray.cluster_utils import Cluster

    shared_ray.close()
    files = made_runs(tmp_path / "runs", 24)
    sweep(files, tmp_path / "serial", engine=make_engine("serial"))
    with contextlib.ExitStack() as stack:
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": WATCHFUL}
        )
        stack.callback(cluster.shutdown)
        node = cluster.add_node(num_cpus=1)
        engine = make_engine("ray", 0, cluster.address)
        stack.callback(engine.close)
        assert alive() == 2
        done = []

        def settled(result):
            done.append(result)
            if len(done) == 6:
                cluster.remove_node(node, allow_graceful=False)

        outcome = sweep(files, tmp_path / "killed", engine=engine, settled=settled)
        # That the node died is known to those it worked for before it is known to all.
        until = time.monotonic() + 60
        while alive() != 1 and time.monotonic() < until:
            time.sleep(0.2)
        assert alive() == 1
    assert (outcome.n_failed, outcome.n_scored) == (0, 24)
    assert contents(tmp_path / "killed") == contents(tmp_path / "serial")
