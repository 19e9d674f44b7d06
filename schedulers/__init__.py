"""Scheduling policies: which ready task a worker runs next.

`get` finds a policy by name and `available` lists them. A package of anyone's adds its own by an
entry point of the group ``taskla.schedulers`` that names a subclass of `Policy`::

    [project.entry-points."taskla.schedulers"]
    critical = "my_package.policies:Critical"
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from taskla.schedulers.base import Policy, precedence

__all__ = ["Policy", "available", "get", "precedence"]

GROUP = "taskla.schedulers"

# Imported on first use, as those of other packages are.
_OWN = {
    name: EntryPoint(name, f"taskla.schedulers.{target}", GROUP)
    for name, target in {
        "eager": "eager:Eager",
        "prio": "prio:Prio",
        "lws": "lws:LocalityWorkStealing",
    }.items()
}


def get(policy: str | Policy) -> Policy:
    """Return the policy of a name; an object is returned as it is.

    Parameters
    ----------
    policy : str or Policy
        A name that `available` lists, or an object.

    Returns
    -------
    Policy
        For a name, a new object.

    Raises
    ------
    ValueError
        When there is no policy of that name; the message lists those that exist.
    TypeError
        When `policy` is neither, or the entry point of that name gives no subclass of `Policy`.

    Examples
    --------
    >>> get("prio").name
    'prio'
    """
    if isinstance(policy, Policy):
        return policy
    if not isinstance(policy, str):
        raise TypeError(f"policy is {policy!r}; it must be a name or a taskla.schedulers.Policy")
    # Looking for those of other packages takes a millisecond or more.
    found = _OWN if policy in _OWN else _entries()
    if policy not in found:
        raise ValueError(f"policy {policy!r} does not exist; there are {', '.join(found)}")
    return _load(found[policy])()


def available() -> dict[str, str]:
    """Return the names of the policies that exist, each with one line on what it does.

    taskla's own come first, then those of other packages by name. One that cannot be loaded is
    listed with the reason.
    """
    lines = {}
    for name, entry in _entries().items():
        try:
            lines[name] = (_load(entry).__doc__ or "").strip().partition("\n")[0]
        except Exception as error:  # Whatever another package raises, the list is still wanted.
            lines[name] = f"cannot be loaded: {error}"
    return lines


def _entries() -> dict[str, EntryPoint]:
    """Return all policies by name; no other package replaces one of taskla's own."""
    others = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
    return _OWN | {entry.name: entry for entry in others if entry.name not in _OWN}


def _load(entry: EntryPoint) -> type[Policy]:
    """Import the class that an entry point names."""
    loaded = entry.load()
    if not (isinstance(loaded, type) and issubclass(loaded, Policy)):
        raise TypeError(
            f"policy {entry.name!r}: {entry.value} is not a subclass of taskla.schedulers.Policy"
        )
    return loaded
