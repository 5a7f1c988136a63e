"""Prints what an OCI layout, a folder or an archive, is made of; and what a metadata file says of it."""

import json
import os
import sys
import tarfile

place = sys.argv[1]
if os.path.isdir(place):
    names = [os.path.relpath(os.path.join(d, f), place) for d, _, files in os.walk(place) for f in files]
    read = lambda name: open(os.path.join(place, name), "rb").read()
else:
    archive = tarfile.open(place)
    names = [member.name for member in archive if member.isfile()]
    read = lambda name: archive.extractfile(name).read()


def blob(descriptor):
    content = read("blobs/sha256/" + descriptor["digest"].split(":")[1])
    assert len(content) == descriptor["size"], descriptor
    return content


def show(descriptor, depth):
    said = {key: value for key, value in descriptor.get("annotations", {}).items() if "created" not in key}
    platform = descriptor.get("platform", {}).get("architecture") if depth else None
    print(" " * depth, descriptor["mediaType"], platform, json.dumps(said, sort_keys=True))
    document = json.loads(blob(descriptor))
    assert document["mediaType"] == descriptor["mediaType"]
    for entry in document.get("manifests", []):
        show(entry, depth + 1)
    if "config" in document:
        blob(document["config"])
        for layer in document["layers"]:
            print(" " * depth, " layer", layer["mediaType"], blob(layer)[:3].hex() if "+" in layer["mediaType"] else "")


print(sorted(name for name in names if not name.startswith("blobs/")))
index = json.loads(read("index.json"))
for descriptor in index["manifests"]:
    show(descriptor, 0)
if len(sys.argv) > 2:
    said = json.load(open(sys.argv[2]))
    print(sorted(key for key in said if key.startswith(("containerimage", "image"))), said.get("image.name"))
    root = index["manifests"][0]
    print(said["containerimage.digest"] == root["digest"], said["containerimage.descriptor"]["mediaType"])
