"""Makes archives in every dialect of tar, and unpacks each with Python's tarfile beside it.

    python3 dialects.py FOLDER

FOLDER then has NAME.tar, and in NAME/ what tarfile makes of it. What tarfile cannot write is written here by hand, or by GNU
tar where that is installed.
"""

import io
import os
import shutil
import subprocess
import sys
import tarfile

TIME = 1_600_000_000


def info(name, **fields):
    one = tarfile.TarInfo(name)
    one.mtime, one.mode, one.uid, one.gid = TIME, 0o640, 1000, 1001
    for key, value in fields.items():
        setattr(one, key, value)
    return one


def usual(tar, long=True, odd=True):
    """What every dialect can say, and what some can."""
    tar.addfile(info("d", type=tarfile.DIRTYPE, mode=0o750))
    tar.addfile(info("d/file", size=5, mode=0o4755), io.BytesIO(b"hello"))
    tar.addfile(info("d/empty"))
    tar.addfile(info("d/aligned", size=1024), io.BytesIO(b"x" * 1024))
    tar.addfile(info("d/hard", type=tarfile.LNKTYPE, linkname="d/file", mode=0o4755))
    tar.addfile(info("d/soft", type=tarfile.SYMTYPE, linkname="../d/file"))
    tar.addfile(info("d/dangling", type=tarfile.SYMTYPE, linkname="/nowhere/at/all"))
    tar.addfile(info("without/folders/named", size=1), io.BytesIO(b"y"))
    if odd:
        tar.addfile(info("d/pipe", type=tarfile.FIFOTYPE))
        tar.addfile(info("d/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3))
        tar.addfile(info("d/block", type=tarfile.BLKTYPE, devmajor=259, devminor=70000))
        tar.addfile(info("d/caf\u00e9", size=1), io.BytesIO(b"e"))
    if long:
        folder = "/".join(["p" * 50] * 3)
        tar.addfile(info(folder + "/" + "n" * 60, size=3), io.BytesIO(b"far"))
        tar.addfile(info("d/exactly" + "-" * 91, size=1), io.BytesIO(b"1"))
    tar.addfile(info("d/late", size=4, mtime=TIME + 5), io.BytesIO(b"late"))


def very_long(tar):
    folder = "/".join(["q" * 200] * 6)
    tar.addfile(info(folder + "/" + "n" * 255, size=3), io.BytesIO(b"far"))
    tar.addfile(info("long-soft", type=tarfile.SYMTYPE, linkname="t/" * 1000))
    tar.addfile(info("long-hard", type=tarfile.LNKTYPE, linkname=folder + "/" + "n" * 255))


def block(name, kind=b"0", size=0, prefix=b"", magic=b"ustar\0" + b"00", mtime=b"%011o\0" % TIME, link=b"", **fields):
    """A header by hand."""
    header = bytearray(512)

    def put(at, value):
        header[at:at + len(value)] = value

    put(0, name)
    put(100, fields.get("mode", b"0000644\0"))
    put(108, fields.get("uid", b"0001750\0"))
    put(116, fields.get("gid", b"0001751\0"))
    put(124, fields.get("length", b"%011o\0" % size))
    put(136, mtime)
    put(148, b" " * 8)
    put(156, kind)
    put(157, link)
    put(257, magic)
    put(265, b"root\0")
    put(297, b"root\0")
    put(345, prefix)
    put(508, fields.get("tail", b""))
    put(148, b"%06o\0 " % sum(header))
    return bytes(header)


def content(data):
    return data + b"\0" * (-len(data) % 512)


def records(*pairs):
    out = b""
    for key, value in pairs:
        rest = len(key) + len(value) + 3
        length = rest
        while len(str(length)) + rest != length:
            length = rest + len(str(length))
        out += b"%d %s=%s\n" % (length, key, value)
    return out


def pax(*pairs, kind=b"x"):
    data = records(*pairs)
    return block(b"pax", kind, len(data)) + content(data)


END = b"\0" * 1024


def number(value, length):
    """GNU's numbers in base 256. Source: GNU tar, "Extensions to the Standard Format"."""
    if value >= 0:
        return bytes([0x80]) + value.to_bytes(length - 1, "big")
    return value.to_bytes(length, "big", signed=True)


def by_hand():
    yield "v7-by-hand", (
        block(b"old/", b"\0", magic=b"") + block(b"old/file", b"\0", 3, magic=b"") + content(b"abc")
        + block(b"old/hard", b"1", magic=b"", link=b"old/file") + block(b"old/soft", b"2", magic=b"", link=b"file") + END
    )
    yield "ustar-prefix", (
        block(b"name", size=1, prefix=b"a/prefix/of/it") + content(b"1")
        + block(b"n" * 100, size=1, prefix=b"p" * 155) + content(b"2") + END
    )
    star = b"a/prefix/of/it".ljust(131, b"\0") + b"%011o " % TIME + b"%011o " % TIME
    yield "star", block(b"name", size=1, prefix=star, tail=b"tar\0") + content(b"1") + END
    yield "old-gnu", (
        block(b"file", size=1, magic=b"ustar  \0") + content(b"1")
        + block(b"spaces", size=1, mode=b"   644 \0", uid=b"  1750 \0", gid=b"  1751 \0", length=b"          1 ")
        + content(b"2") + END
    )
    yield "base-256", (
        block(b"large-ids", size=1, uid=number(3_000_000_000, 8), gid=number(2_500_000_000, 8), length=number(1, 12))
        + content(b"1") + block(b"far-future", mtime=number(10_000_000_000, 12))
        + block(b"before-1970", mtime=number(-1_000_000, 12)) + END
    )
    yield "pax-times", (
        pax((b"mtime", b"1600000001.25")) + block(b"quarter")
        + pax((b"mtime", b"-1.5")) + block(b"negative")
        + pax((b"mtime", b"1600000002")) + block(b"whole")
        + pax((b"mtime", b"1600000003.1234567")) + block(b"finer") + END
    )
    yield "pax-names", (
        pax((b"path", b"d/" + b"n" * 255)) + block(b"short", size=1) + content(b"1")
        + pax((b"path", b"linked"), (b"linkpath", b"t" * 500)) + block(b"short", b"2", link=b"other")
        + pax((b"linkpath", b"d/" + b"n" * 255)) + block(b"hard", b"1", link=b"other")
        + pax((b"comment", b"of no meaning"), (b"uname", b"nobody-here"), (b"VENDOR.key", b"a=b\nc"))
        + block(b"after", size=1) + content(b"2") + END
    )
    yield "pax-numbers", (
        pax((b"uid", b"3000000000"), (b"gid", b"2500000000"), (b"size", b"3")) + block(b"large") + content(b"abc")
        + block(b"next", size=1) + content(b"1") + END
    )
    yield "pax-twice", (
        pax((b"path", b"first"), (b"path", b"last"), (b"mtime", b"1"), (b"mtime", b"2"), (b"uid", b"1"), (b"uid", b"2"))
        + block(b"short", size=1) + content(b"1") + END
    )
    yield "pax-empty-set", block(b"pax", b"x", 0) + block(b"file", size=1) + content(b"1") + END
    yield "gnu-names", (
        block(b"././@LongLink", b"L", 301, magic=b"ustar  \0") + content(b"d/" + b"n" * 250 + b"/" + b"m" * 48 + b"\0")
        + block(b"cut", size=1, magic=b"ustar  \0") + content(b"1")
        + block(b"././@LongLink", b"K", 301, magic=b"ustar  \0") + content(b"t" * 300 + b"\0")
        + block(b"soft", b"2", magic=b"ustar  \0", link=b"cut") + END
    )
    yield "continuous", block(b"file", b"7", 3) + content(b"abc") + END
    yield "size-of-a-link", block(b"f") + block(b"l", b"1", link=b"f") + block(b"d", b"5") + block(b"after", size=1) + content(b"1") + END
    yield "dots", (
        block(b"./", b"5", mode=b"0000755\0") + block(b"./a//b/./c", size=1) + content(b"1")
        + block(b"./a/", b"5", mode=b"0000700\0") + END
    )
    yield "replaced", (
        block(b"a", size=1) + content(b"1") + block(b"a", size=1) + content(b"2")
        + block(b"b", size=2) + content(b"33") + block(b"b", b"2", link=b"a") + END
    )
    yield "rubbish-behind-the-end", block(b"file", size=1) + content(b"1") + END + b"rubbish" * 200
    yield "one-block-at-the-end", block(b"file", size=1) + content(b"1") + b"\0" * 512
    yield "no-end", block(b"file", size=1) + content(b"1")
    yield "empty", END


def sparse(folder):
    """Files with holes, by GNU tar."""
    place = os.path.join(folder, "holes")
    os.mkdir(place)
    with open(os.path.join(place, "holes"), "wb") as file:
        file.truncate(3 << 20)
        for at in range(0, 3 << 20, 128 << 10):
            file.seek(at)
            file.write(b"data at %d" % at)
    with open(os.path.join(place, "start"), "wb") as file:
        file.write(b"s" * 5000)
        file.truncate(1 << 20)
    with open(os.path.join(place, "nothing"), "wb") as file:
        file.truncate(1 << 20)
    for name, options in [
        ("sparse-old-gnu", ["--format=oldgnu"]),
        ("sparse-gnu", ["--format=gnu"]),
        ("sparse-0.0", ["--format=posix", "--sparse-version=0.0"]),
        ("sparse-0.1", ["--format=posix", "--sparse-version=0.1"]),
        ("sparse-1.0", ["--format=posix", "--sparse-version=1.0"]),
    ]:
        archive = os.path.join(folder, name + ".tar")
        common = ["tar", "--sparse", "--numeric-owner", "--sort=name", "--mtime=@%d" % TIME, "-C", place, "-cf", archive]
        subprocess.run(common + options + ["holes", "nothing", "start"], check=True)
    shutil.rmtree(place)
    for name, options in [("gnu-tar-v7", "v7"), ("gnu-tar-ustar", "ustar"), ("gnu-tar-gnu", "gnu"), ("gnu-tar-posix", "posix")]:
        tree = os.path.join(folder, "tree")
        os.makedirs(os.path.join(tree, "a" * 90, "b" * 5))
        with open(os.path.join(tree, "a" * 90, "c"), "w") as file:
            file.write("content")
        os.symlink("c", os.path.join(tree, "a" * 90, "soft"))
        os.link(os.path.join(tree, "a" * 90, "c"), os.path.join(tree, "a" * 90, "hard"))
        archive = os.path.join(folder, name + ".tar")
        subprocess.run(["tar", "--format=" + options, "--mtime=@%d" % TIME, "-C", tree, "-cf", archive, "a" * 90], check=True)
        shutil.rmtree(tree)


def main(folder):
    formats = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
    for name, form in formats.items():
        with tarfile.open(os.path.join(folder, "python-%s.tar" % name), "w", format=form, encoding="utf-8") as tar:
            usual(tar)
            if name != "ustar":
                very_long(tar)
                tar.addfile(info("ids", uid=3_000_000_000, gid=2_500_000_000))
            if name == "pax":
                tar.addfile(info("fine", mtime=1_600_000_000.5))
                tar.addfile(info("comment", pax_headers={"comment": "a=b"}))
    for name, archive in by_hand():
        with open(os.path.join(folder, name + ".tar"), "wb") as file:
            file.write(archive)
    sparse(folder)
    for archive in sorted(os.listdir(folder)):
        place = os.path.join(folder, archive[:-len(".tar")])
        os.mkdir(place)
        with tarfile.open(os.path.join(folder, archive), encoding="utf-8", errors="surrogateescape") as tar:
            tar.extractall(place, numeric_owner=True, filter="fully_trusted")


if __name__ == "__main__":
    main(sys.argv[1])
