"""What coordinators share through ZooKeeper: who is there, who leads, which shard map is in force.

    /tandem/CLUSTER/members/COORDINATOR-INSTANCE   ephemeral: one for each worker process
    /tandem/CLUSTER/leader                         ephemeral: the process that leads, its epoch
    /tandem/CLUSTER/epoch                          the number of the last leader's term
    /tandem/CLUSTER/hand-over                      the term whose leader was asked to step down
    /tandem/CLUSTER/shard-map                      the versioned table slot -> shard

With zookeeper.user all of it belongs to that user, and so does /tandem.

It gives liveness only. No transfer waits for it, and no outcome depends on it.
"""

from coordinator.cluster.client import ClusterError
from coordinator.cluster.ownership import protect
from coordinator.cluster.shard_map import NoMapPublished, publish_map, read_map

__all__ = ["ClusterError", "NoMapPublished", "protect", "publish_map", "read_map"]
