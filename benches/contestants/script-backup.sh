#!/usr/bin/env bash
# What a person writes today: the database through a pipe; the bucket to the disk, and from there into an archive.
set -euo pipefail
mkdir -p "$OUT"
pg_dump --dbname="$SOURCE" | zstd --quiet | age --recipient "$RECIPIENT" --output "$OUT/database.sql.zst.age"
rclone copy "s3:$BUCKET" "$OUT/plain"
tar --directory="$OUT/plain" --create --file=- . | zstd --quiet |
	age --recipient "$RECIPIENT" --output "$OUT/objects.tar.zst.age"
