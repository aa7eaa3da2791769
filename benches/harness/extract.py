"""Goal 6: one object out of a bundle, by its key; how much of the bundle is read for it."""

import shutil
import subprocess

from . import measure
from .servers import Relay
from .site import TARGET_BUCKET


def extract(site, samples):
    """From the file and from S3, by way of a relay that counts what is asked for."""
    bundle = site.work / "bundle/bundle.pacharc"
    path = middle_object(site, bundle)
    out = site.work / "one"
    from_file = []
    for _ in range(samples):
        shutil.rmtree(out, ignore_errors=True)
        from_file.append(take(site, str(bundle), path, out))

    site.empty_target(False)
    site.do(f'exec s5cmd --log error cp "{bundle}" s3://{TARGET_BUCKET}/bundle.pacharc')
    from_s3, counted = [], None
    for _ in range(samples):
        relay = Relay(site.s3.port)
        shutil.rmtree(out, ignore_errors=True)
        url = f"s3://{TARGET_BUCKET}/bundle.pacharc?endpoint={relay.endpoint}&region=us-east-1&path_style=true"
        from_s3.append(take(site, url, path, out))
        relay.stop()
        counted = relay
    reads = [request for request in counted.requests if request[0] == "GET"]
    site.say(f"{site.kind} extract: {counted.requests}, {counted.received} bytes")
    return {
        "from the file": measure.summary(from_file),
        "from S3": measure.summary(from_s3) | {
            "reads": len(reads), "requests": counted.requests, "received": counted.received, "bundle": bundle.stat().st_size,
        },
    }


def middle_object(site, bundle):
    """The path of an object in the middle of the bundle's list."""
    command = [site.pacharc, "list", bundle, "--identity", site.environment["IDENTITY"]]
    listed = subprocess.run(command, env=site.environment, capture_output=True, text=True, check=True).stdout
    paths = [word for line in listed.splitlines() for word in line.split() if word.startswith("objects/chunk/")]
    return paths[len(paths) // 2]


def take(site, bundle, path, out):
    out.mkdir()
    return site.do(["pacharc", "extract", "--quiet", bundle, path, "--identity", site.environment["IDENTITY"], "-o", str(out)])
