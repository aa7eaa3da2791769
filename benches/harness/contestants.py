"""Who runs against whom: each race is a list of contestants that do the same work, on one workload.

A command is a text for bash and sees the variables that `site.py` sets: SOURCE and TARGET (URLs of databases), BUCKET and
TARGET_BUCKET (names), their URLs for pacharc, RECIPIENT and IDENTITY, WORK (the folder of what is made), OUT (its own folder there).
"""

from dataclasses import dataclass, replace

# The settings with which pacharc loads (src/database/restore/sessions.rs), for pg_restore.
SESSION = "PGOPTIONS='-c synchronous_commit=off -c maintenance_work_mem=256MB -c max_parallel_maintenance_workers=2'"

BACKUP = 'pacharc backup --quiet --postgres "$SOURCE" --bucket "$BUCKET_URL" --recipient "$RECIPIENT" -o "$OUT/bundle.pacharc"'
RESTORE = ('pacharc restore --quiet "$WORK/bundle/bundle.pacharc" --identity "$IDENTITY" --postgres "$TARGET_SERVER" '
           '--bucket "$TARGET_BUCKET_URL" --database pachyderm=restored')
VERIFY = 'pacharc verify --quiet "$WORK/bundle/bundle.pacharc"'
DOWNLOAD = 's5cmd --log error cp "s3://$BUCKET/*" "$OUT/plain/"'
UPLOAD = 's5cmd --log error cp "$WORK/plain/plain/" "s3://$TARGET_BUCKET/"'
LOAD_DIRECTORY = f'{SESSION} pg_restore --jobs=2 --no-owner --dbname="$TARGET" "$WORK/directory/dump"'
LOAD_CUSTOM = f'{SESSION} pg_restore --jobs=2 --no-owner --dbname="$TARGET" "$WORK/custom/dump"'


@dataclass(frozen=True)
class Contestant:
    """One who runs. `makes` and `uses` name folders below WORK."""

    name: str
    command: str
    # Programs without which it is skipped.
    needs: tuple = ()
    makes: str = ""
    uses: tuple = ()
    # Whether it fills the target bucket and the target database, which must be empty then.
    fills: bool = False
    # Whether that database is made beforehand: pacharc makes it by itself.
    database: bool = False
    # What is done before and after, and is not measured.
    first: str = ""
    last: str = ""


PACHARC_BACKUP = Contestant("pacharc", f"exec {BACKUP}", makes="bundle")
DOWNLOADS = Contestant("s5cmd cp", f"exec {DOWNLOAD}", ("s5cmd",), makes="plain")
PACHARC_RESTORE = Contestant("pacharc", f"exec {RESTORE}", uses=("bundle",), fills=True)
UPLOADS = Contestant("s5cmd cp", f"exec {UPLOAD}", ("s5cmd",), uses=("plain",), fills=True)
DUMPS_DIRECTORY = Contestant(
    "pg_dump -Fd -j2 -Z0", 'exec pg_dump --format=directory --jobs=2 --compress=0 --file="$OUT/dump" --dbname="$SOURCE"',
    makes="directory")
DUMPS_CUSTOM = Contestant(
    "pg_dump -Fc -Z0", 'exec pg_dump --format=custom --compress=0 --file="$OUT/dump" --dbname="$SOURCE"', makes="custom")
LOADS_DIRECTORY = Contestant("pg_restore -j2 of -Fd", LOAD_DIRECTORY, uses=("directory",), fills=True, database=True)
LOADS_CUSTOM = Contestant("pg_restore -j2 of -Fc", LOAD_CUSTOM, uses=("custom",), fills=True, database=True)

# Both at the same time: what no restore of both can be much faster than.
BOTH = f'{UPLOAD} & upload=$!\n%s & load=$!\nwait $upload; wait $load'

RESTIC = ("restic", "s5cmd")
RESTIC_BACKUP = Contestant(
    "s5cmd cp, restic backup", f'{DOWNLOAD}\nrestic --quiet backup "$OUT/plain"', RESTIC, makes="restic",
    first="restic --quiet init", last='rm -r "$OUT/plain"')
KOPIA = ("kopia", "s5cmd")
KOPIA_BACKUP = Contestant(
    "s5cmd cp, kopia snapshot", f'{DOWNLOAD}\nkopia snapshot create --no-progress "$OUT/plain"', KOPIA, makes="kopia",
    first='kopia repository create filesystem --path "$OUT/repository"', last='rm -r "$OUT/plain"')

SCRIPT_BACKUP = Contestant(
    "the script", 'exec "$CONTESTANTS/script-backup.sh"', ("age", "rclone", "zstd"), makes="archive",
    last='rm -r "$OUT/plain"')
SCRIPT_RESTORE = Contestant(
    "the script", 'export ARCHIVE="$WORK/archive"; exec "$CONTESTANTS/script-restore.sh"', ("age", "rclone", "zstd"),
    makes="unpacked", uses=("archive",), fills=True, database=True)
DECRYPT = 'for file in "$WORK"/archive/*.age; do age --decrypt --identity "$IDENTITY" "$file"'

RACES = {
    ("w1", "backup"): [
        PACHARC_BACKUP,
        SCRIPT_BACKUP,
        DOWNLOADS,
        Contestant(
            "rclone cat | age, and the dump",
            'pg_dump --dbname="$SOURCE" | zstd --quiet | age --recipient "$RECIPIENT" --output "$OUT/database.sql.zst.age"\n'
            'rclone cat "s3:$BUCKET" | age --recipient "$RECIPIENT" --output "$OUT/objects.age"',
            ("age", "rclone", "zstd"), makes="cat"),
        RESTIC_BACKUP,
        KOPIA_BACKUP,
    ],
    ("w1", "restore"): [
        PACHARC_RESTORE,
        SCRIPT_RESTORE,
        UPLOADS,
        LOADS_DIRECTORY,
        LOADS_CUSTOM,
        Contestant("s5cmd cp and pg_restore of -Fd at once", BOTH % LOAD_DIRECTORY, ("s5cmd",), uses=("plain", "directory"),
                   fills=True, database=True),
        Contestant("s5cmd cp and pg_restore of -Fc at once", BOTH % LOAD_CUSTOM, ("s5cmd",), uses=("plain", "custom"),
                   fills=True, database=True),
    ],
    ("w1", "verify"): [
        Contestant("pacharc, sums", f"exec {VERIFY} --level sums", uses=("bundle",)),
        Contestant("b3sum", 'exec b3sum "$WORK/bundle/bundle.pacharc"', ("b3sum",), uses=("bundle",)),
        Contestant("sha256sum", 'exec sha256sum "$WORK/bundle/bundle.pacharc"', ("sha256sum",), uses=("bundle",)),
        Contestant("pacharc, contents", f'exec {VERIFY} --level contents --identity "$IDENTITY"', uses=("bundle",)),
        Contestant("age -d", f"{DECRYPT} >/dev/null; done", ("age",), uses=("archive",)),
        Contestant("age -d | zstd -t", f"{DECRYPT} | zstd --test --quiet; done", ("age", "zstd"), uses=("archive",)),
        Contestant("restic check --read-data", "exec restic --quiet check --read-data", RESTIC, uses=("restic",)),
        Contestant("kopia snapshot verify", "exec kopia snapshot verify --verify-files-percent=100", KOPIA, uses=("kopia",)),
    ],
    ("w2", "backup"): [PACHARC_BACKUP, DOWNLOADS],
    ("w2", "restore"): [PACHARC_RESTORE, UPLOADS],
    ("w3", "backup"): [PACHARC_BACKUP, DUMPS_DIRECTORY],
    ("w3", "restore"): [PACHARC_RESTORE, LOADS_DIRECTORY, LOADS_CUSTOM],
}

# What every command takes: one run each.
SMALL = "--max-memory 128M"
MEMORY = [
    replace(PACHARC_BACKUP, name="backup"),
    Contestant("verify, sums", f"exec {VERIFY} --level sums", uses=("bundle",)),
    Contestant("verify, contents", f'exec {VERIFY} --identity "$IDENTITY"', uses=("bundle",)),
    Contestant("list", 'exec pacharc list "$WORK/bundle/bundle.pacharc" --identity "$IDENTITY"', uses=("bundle",)),
    Contestant("inspect", 'exec pacharc inspect "$WORK/bundle/bundle.pacharc" --identity "$IDENTITY"', uses=("bundle",)),
    Contestant("extract of all objects",
               'exec pacharc extract --quiet "$WORK/bundle/bundle.pacharc" objects --identity "$IDENTITY" -o "$OUT"',
               uses=("bundle",), makes="extracted"),
    replace(PACHARC_RESTORE, name="restore"),
    Contestant(f"backup {SMALL}", f"exec {BACKUP} {SMALL}", makes="small"),
    Contestant(f"verify {SMALL}", f'exec {VERIFY} --identity "$IDENTITY" {SMALL}', uses=("bundle",)),
    Contestant(f"restore {SMALL}", f"exec {RESTORE} {SMALL}", uses=("bundle",), fills=True),
]
for kind in ("w1", "w2", "w3"):
    RACES[kind, "memory"] = MEMORY

# Who makes an artifact where the race that uses it comes alone.
MAKERS = {maker.makes: maker for maker in (
    PACHARC_BACKUP, SCRIPT_BACKUP, DOWNLOADS, RESTIC_BACKUP, KOPIA_BACKUP, DUMPS_DIRECTORY, DUMPS_CUSTOM)}
