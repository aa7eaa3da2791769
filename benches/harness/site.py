"""One workload with its servers, and the folder in which contestants work."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from . import measure, tools
from .contestants import MAKERS
from .servers import ACCESS_KEY, SECRET_KEY, S3, Postgres

BUCKET, TARGET_BUCKET = "source", "restored"


class Site:
    """Made, or taken from an earlier run that was told to keep it; `close` stops its servers."""

    def __init__(self, scratch, kind, options, say):
        self.kind, self.say = kind, say
        self.folder = scratch / f"{kind}-{options.scale:g}-{options.s3}"
        self.work = self.folder / "work"
        self.pacharc, self.sample = options.pacharc, str(Path(options.pacharc).with_name("pacharc-sample"))
        self.path = tools.search_path(options.pacharc)
        self.postgres = self.s3 = None
        made = self.folder / "made.json"
        if self.folder.exists() and not made.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        try:
            self.postgres = Postgres(self.sample, self.folder / "postgres")
            program = tools.find([options.s3], self.path)[options.s3]
            self.s3 = S3(options.s3, program, self.folder / "s3")
            self.environment = self.make_environment()
            if not made.exists():
                made.write_text(json.dumps(self.make(options.scale)))
            self.size = json.loads(made.read_text())
        except BaseException:
            self.close()
            raise

    def make_environment(self):
        identity = self.folder / "key.txt"
        if not identity.exists():
            subprocess.run([self.pacharc, "keygen", "-o", identity], check=True, capture_output=True)
        key = identity.read_text()
        url = f"s3://%s?endpoint={self.s3.endpoint}&region=us-east-1&path_style=true"
        return {
            "PATH": self.path, "HOME": str(self.work), "LANG": "C.UTF-8", "TMPDIR": str(self.work), "SCRATCH": str(self.work),
            "CONTESTANTS": str(tools.ROOT / "benches/contestants"), "WORK": str(self.work),
            "RECIPIENT": key.split("# public key: ")[1].split()[0], "IDENTITY": str(identity),
            "SOURCE": self.postgres.database("pachyderm"), "TARGET": self.postgres.database("restored"),
            "TARGET_SERVER": self.postgres.url, "BUCKET": BUCKET, "TARGET_BUCKET": TARGET_BUCKET,
            "BUCKET_URL": url % BUCKET, "TARGET_BUCKET_URL": url % TARGET_BUCKET,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1",
            "S3_ENDPOINT_URL": self.s3.endpoint,
            "RCLONE_CONFIG": str(self.folder / "rclone.conf"), "RCLONE_CONFIG_S3_TYPE": "s3",
            "RCLONE_CONFIG_S3_PROVIDER": "Minio" if self.s3.kind == "minio" else "Other",
            "RCLONE_CONFIG_S3_ENDPOINT": self.s3.endpoint, "RCLONE_CONFIG_S3_REGION": "us-east-1",
            "RCLONE_CONFIG_S3_ACCESS_KEY_ID": ACCESS_KEY, "RCLONE_CONFIG_S3_SECRET_ACCESS_KEY": SECRET_KEY,
            "RESTIC_REPOSITORY": str(self.work / "restic/repository"), "RESTIC_PASSWORD": "bench",
            "RESTIC_CACHE_DIR": str(self.work / "restic/cache"),
            "KOPIA_PASSWORD": "bench", "KOPIA_CONFIG_PATH": str(self.work / "kopia/config"),
            "KOPIA_CACHE_DIRECTORY": str(self.work / "kopia/cache"), "KOPIA_CHECK_FOR_UPDATES": "false",
        }

    def make(self, scale):
        """The database in place; the bucket by way of a folder, since the generator speaks no S3."""
        self.say(f"{self.kind}: making it, at scale {scale:g}")
        objects = self.folder / "objects"
        command = [self.sample, "workload", self.kind, "--postgres", self.postgres.url, "--bucket", objects, "--scale", str(scale)]
        made = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        (self.folder / "rclone.conf").touch()
        self.say(f"{self.kind}: {made.strip()}; uploading")
        for bucket in (BUCKET, TARGET_BUCKET):
            self.do(f"s5cmd mb s3://{bucket}")
        sample = self.do(f's5cmd --log error cp "{objects}/" s3://{BUCKET}/')
        shutil.rmtree(objects)
        return json.loads(made) | {"upload_seconds": sample.wall}

    def do(self, command, **more):
        return measure.run(command, self.environment | more)

    def run(self, contestant):
        """One sample: prepares what the contestant needs, in a state that is the same for all, and measures it."""
        out = self.work / (contestant.makes or "none")
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        if contestant.fills:
            self.empty_target(contestant.database)
        if contestant.first:
            self.do(contestant.first, OUT=str(out))
        sources = [self.work / name for name in contestant.uses]
        self.warm(sources or [self.s3.folder / BUCKET, self.postgres.folder / "data/base"])
        # What an earlier contestant has written is not to be written out during this one.
        os.sync()
        sample = self.do(contestant.command, OUT=str(out))
        if contestant.last:
            self.do(contestant.last, OUT=str(out))
        return sample

    def empty_target(self, database):
        if self.postgres.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname = 'restored'", self.path) != "0":
            self.postgres.sql("postgres", "DROP DATABASE restored WITH (FORCE)", self.path)
        if database:
            self.postgres.sql("postgres", "CREATE DATABASE restored TEMPLATE template0", self.path)
        self.postgres.sql("postgres", "CHECKPOINT", self.path)
        # Nothing to remove is an error to it.
        measure.run(f's5cmd --log error rm "s3://{TARGET_BUCKET}/*"', self.environment, expected=(0, 1))
        self.s3.settle()

    @staticmethod
    def warm(folders):
        """Has the page cache hold them, as far as it can."""
        script = 'find "$@" -type f -print0 | xargs -0 --no-run-if-empty cat >/dev/null'
        subprocess.run(["sh", "-c", script, "sh", *folders], check=False, stderr=subprocess.DEVNULL)

    def ensure(self, artifact):
        """Has it made, if it is not there from an earlier race."""
        if not any((self.work / artifact).glob("*")):
            self.say(f"{self.kind}: making {artifact}")
            self.run(MAKERS[artifact])

    def drop(self, artifact):
        shutil.rmtree(self.work / artifact, ignore_errors=True)

    def close(self):
        """Stops the servers; what the contestants made goes."""
        for server in (self.s3, self.postgres):
            if server:
                server.stop()
        shutil.rmtree(self.work, ignore_errors=True)

    def bundle_bytes(self):
        bundle = self.work / "bundle/bundle.pacharc"
        return bundle.stat().st_size if bundle.exists() else 0

    def drop_target(self):
        """Takes the restored data away, so that a kept site is as it was made."""
        self.empty_target(False)
