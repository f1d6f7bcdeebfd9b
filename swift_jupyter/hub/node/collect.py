"""What a node keeps of old revisions, and how to free it."""

from __future__ import annotations

from swift_jupyter.hub.node.pieces import forget_removed
from swift_jupyter.hub.store.gc import GarbagePlan, find_garbage
from swift_jupyter.hub.store.manifests import ManifestKey
from swift_jupyter.hub.store.store import Store


def plan_collection(store: Store, older_than: float) -> GarbagePlan:
    """Return what can go: revisions that a newer one has replaced, and their files alone.

    Parameters
    ----------
    store : Store
        The store.
    older_than : float
        Seconds; younger revisions and files stay, since a sync may be at work.
    """
    return find_garbage(
        store, keep_manifest=lambda key: not _is_replaced(store, key), grace=older_than
    )


def collect(plan: GarbagePlan) -> int:
    """Remove what was planned and return the bytes that are free again."""
    freed = plan.execute()
    kept = plan.store.root / "node" / "pieces"
    forget_removed(kept, lambda sha256: plan.store.object_path(sha256).exists())
    return freed


def _is_replaced(store: Store, key: ManifestKey) -> bool:
    """Tell whether a manifest is one of this node's, and no name leads to it any more.

    A revision without a name that is younger than the named ones is one that is just
    filling up.
    """
    if not store.manifest_files.is_held(key):
        return False  # A pull's, which `cache prune` looks after.
    named = set(store.revisions(key.hub, key.kind, key.repo_id).values())
    if key.commit in named:
        return False
    written = store.manifest_files.written_ns
    own = written(key) or 0
    others = [ManifestKey(key.hub, key.kind, key.repo_id, commit) for commit in named]
    return any((written(other) or 0) > own for other in others)
