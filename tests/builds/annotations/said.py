"""Prints what the documents of an OCI archive say of themselves and of each other."""

import json
import sys
import tarfile

archive = tarfile.open(sys.argv[1])


def document(name):
    return json.load(archive.extractfile(name))


def said(pairs):
    ours = {name: value for name, value in (pairs or {}).items() if "." not in name}
    return " ".join(f"{name}={value}" for name, value in sorted(ours.items()))


def walk(index):
    """What an index says, and what it lists. An index that is alone in another stands for it."""
    lines = [f"index {said(index.get('annotations'))}"] if said(index.get("annotations")) else []
    for entry in index["manifests"]:
        below = document("blobs/" + entry["digest"].replace(":", "/"))
        if "manifests" in below:
            lines += walk(below)
            continue
        if (entry.get("annotations") or {}).get("vnd.docker.reference.type"):
            continue
        lines.append(f"manifest {said(below.get('annotations'))}; listed: {said(entry.get('annotations'))}")
    return lines


print("\n".join(sorted(walk(document("index.json")))))
