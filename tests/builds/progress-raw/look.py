import base64, json, re, sys

names, kinds, logs, cached, begun, done, told, errors = {}, {}, {}, set(), set(), set(), set(), []
for line in open(sys.argv[1]):
    for kind, entries in json.loads(line).items():
        for entry in entries:
            kinds.setdefault(kind, set()).update(entry)
            if kind == "vertexes":
                digest = entry["digest"]
                # Docker's image store knows an image by its manifest as well.
                names[digest] = entry["name"].split("@")[0]
                if entry.get("cached"):
                    cached.add(digest)
                if "started" in entry:
                    begun.add(digest)
                if "completed" in entry:
                    done.add(digest)
            elif entry["vertex"] not in names:
                errors.append(f"{kind} of a step nobody has told of")
            # How images are fetched and kept differs from store to store.
            if kind == "statuses" and names[entry["vertex"]].startswith("[internal]"):
                told.add((names[entry["vertex"]], re.sub(r" [0-9.]+k?B.*", " SIZE", entry["id"])))
            if kind == "logs":
                key = (names[entry["vertex"]], entry["stream"])
                logs[key] = logs.get(key, "") + base64.b64decode(entry["data"]).decode()

if sys.argv[2:]:
    for digest in sorted(cached, key=names.get):
        print("cached:", names[digest])
else:
    for name in sorted(set(names.values())):
        print("step:", name)
    for kind in sorted(kinds):
        print(f"{kind}:", ", ".join(sorted(kinds[kind])))
    for name, text in sorted(told):
        print(f"{name}: {text}")
    for (name, stream), text in sorted(logs.items()):
        print(f"{name}: {stream}: {text!r}")
print("begun and not ended:", sorted(names[digest] for digest in begun - done), sorted(set(errors)))
