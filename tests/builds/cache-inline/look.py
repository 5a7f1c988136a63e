import json, sys, tarfile

archive = tarfile.open(sys.argv[1])
config = json.load(archive.extractfile("manifest.json"))[0]["Config"]
config = json.load(archive.extractfile(config))
# Each engine writes it down in its own way: moby.buildkit.cache.v0, bireme.build.cache.v0.
print(sys.argv[1], "has its cache" if any(key.endswith(".cache.v0") for key in config) else "has no cache")
