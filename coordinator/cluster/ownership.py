"""Whose the nodes in ZooKeeper are: all of a cluster's, and the path to them, are its user's alone.

Who may delete or make what lies under a node has it in his hand, so the path counts as well.
"""

from collections.abc import Callable
from contextlib import suppress

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NoAuthError, NoNodeError
from kazoo.security import ACL, ANYONE_ID_UNSAFE

from coordinator.cluster.client import ClusterError, Paths, acl_of, zookeeper
from coordinator.settings import Settings

_ADVICE = (
    "give this cluster a path of its own (zookeeper.hosts = host:port/PATH), or let whoever runs "
    "ZooKeeper remove the node"
)


def trouble_with_owner(client: KazooClient, paths: Paths, user: str) -> str | None:
    """What others can change though there is a user, and `shards init` can take back; None if
    there is nothing, or no user.

    Another password of the same user is none: it may be changed at this moment. Raises ClusterError
    if the path itself belongs to somebody else.
    """
    if not user:
        return None
    opened = []
    for path in paths.fixed:
        try:
            found, _ = client.get_acls(path)
        except NoNodeError:
            continue
        except NoAuthError:
            if path in (paths.top, paths.root):
                raise
            opened.append(path)
            continue
        others = [acl.id for acl in found if not _is_of(acl, user)]
        if ANYONE_ID_UNSAFE in others:
            opened.append(path)
        elif others:
            named = ", ".join(f"{one.scheme}:{one.id.partition(':')[0]}" for one in others)
            raise ClusterError(f"{path} in ZooKeeper belongs to {named}, not to {user}: {_ADVICE}")
    if not opened:
        return None
    return (
        f"in ZooKeeper {', '.join(opened)} can be changed by others than {user}: "
        f"`tandem shards init` gives it to {user}"
    )


def _is_of(acl: ACL, user: str) -> bool:
    return bool(acl.id.scheme == "digest" and acl.id.id.partition(":")[0] == user)


def protect(settings: Settings, report: Callable[[str], None] = lambda text: None) -> bool:
    """Give all that the cluster has in ZooKeeper, and the path to it, to zookeeper.user; says
    whether there is one. What others have put there for themselves is removed.

    Raises ClusterError, also if something belongs to somebody else and cannot be taken back.
    """
    acl = acl_of(settings)
    if acl is None:
        return False
    paths = Paths(settings.cluster.id)
    with zookeeper(settings) as client:
        for path in (paths.top, paths.root):
            try:
                client.set_acls(path, acl)
            except NoAuthError as error:
                raise ClusterError(
                    f"{path} in ZooKeeper belongs to another user than {settings.zookeeper.user}, "
                    f"or to another password of it: {_ADVICE}"
                ) from error
        _take_children(client, paths.root, acl, report)
    return True


def _take_children(
    client: KazooClient, root: str, acl: list[ACL], report: Callable[[str], None]
) -> None:
    waiting = [root]
    while waiting:
        child = waiting.pop()
        # What is gone in between needs no protection.
        with suppress(NoNodeError):
            try:
                client.set_acls(child, acl)
                waiting += [f"{child}/{name}" for name in client.get_children(child)]
            except NoAuthError:
                _remove(client, child)
                report(f"{child} in ZooKeeper belonged to another user and was removed")


def _remove(client: KazooClient, path: str) -> None:
    """Remove a node of somebody else's from one that is ours."""
    try:
        client.delete(path)
    except NoNodeError:
        raise
    except KazooException as error:
        raise ClusterError(
            f"{path} in ZooKeeper belongs to another user and cannot be removed ({error!r}): "
            f"{_ADVICE}"
        ) from error
