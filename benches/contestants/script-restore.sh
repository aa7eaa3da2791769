#!/usr/bin/env bash
# The way back of script-backup.sh: the archive to the disk, from there into the bucket, and the database through a pipe.
set -euo pipefail
mkdir -p "$OUT/plain"
age --decrypt --identity "$IDENTITY" "$ARCHIVE/objects.tar.zst.age" | zstd --decompress --quiet |
	tar --directory="$OUT/plain" --extract --file=-
rclone copy "$OUT/plain" "s3:$TARGET_BUCKET"
age --decrypt --identity "$IDENTITY" "$ARCHIVE/database.sql.zst.age" | zstd --decompress --quiet |
	psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --dbname="$TARGET" >/dev/null
