/* Faults from inside a process, by LD_PRELOAD: pacharc itself has no door for them.
 *
 * FAULTY_STAGE  a text: the process stops itself (SIGSTOP) before it writes the first line to standard output that
 *               contains it; so whoever started it has as long as needed, and every run is struck at the same step.
 * FAULTY_FILE   a file of one byte, looked at with every call, which says what goes wrong from now on:
 *               N  ENOSPC where a file grows               E  EIO where a file is written
 *               S  every write to a file is a short one    F  EIO where a file is made durable
 *               +  the clock is a day ahead                -  the clock is a day behind
 * FAULTY_PATH   only files with this text in their path; their being a regular file is asked for anyway.
 * FAULTY_SECTOR where in these files 4,096 bytes begin that cannot be read.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define DAY (24 * 60 * 60)
#define SECTOR 4096
#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static const volatile char *plan = "";
static const char *stage, *path;
static off64_t sector = -SECTOR;

__attribute__((constructor)) static void begin(void)
{
    stage = getenv("FAULTY_STAGE");
    path = getenv("FAULTY_PATH");
    const char *where = getenv("FAULTY_SECTOR");
    if (where) sector = atoll(where);
    const char *name = getenv("FAULTY_FILE");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *shared = file < 0 ? MAP_FAILED : mmap(NULL, 1, PROT_READ, MAP_SHARED, file, 0);
    if (shared != MAP_FAILED) plan = shared;
    if (file >= 0) close(file);
}

/* Whether it is one of the files that go wrong. */
static int is_hit(int file)
{
    struct stat stat;
    char link[32], name[4096];
    if (fstat(file, &stat) || !S_ISREG(stat.st_mode)) return 0;
    if (!path) return 1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, name, sizeof name - 1);
    name[length < 0 ? 0 : length] = 0;
    return strstr(name, path) != NULL;
}

/* Where the next write goes. */
static off_t position(int file)
{
    return fcntl(file, F_GETFL) & O_APPEND ? lseek(file, 0, SEEK_END) : lseek(file, 0, SEEK_CUR);
}

/* How many bytes of a write go through; or -1, and errno. What a file has already, a full disk does not refuse. */
static ssize_t allowed(int file, size_t length, off_t at)
{
    struct stat stat;
    char now = *plan;
    if (!length || !now || !strchr("NES", now) || !is_hit(file)) return length;
    if (now == 'S') return (length + 1) / 2;
    if (now == 'N' && !fstat(file, &stat) && at + (off_t)length <= stat.st_size) return length;
    errno = now == 'N' ? ENOSPC : EIO;
    return -1;
}

static size_t sum(const struct iovec *parts, int count)
{
    size_t length = 0;
    for (int part = 0; part < count; part++) length += parts[part].iov_len;
    return length;
}

ssize_t write(int file, const void *bytes, size_t length)
{
    REAL(ssize_t, write, int, const void *, size_t);
    if (file == 1 && stage && memmem(bytes, length, stage, strlen(stage))) {
        stage = NULL;
        kill(getpid(), SIGSTOP);
    }
    ssize_t some = allowed(file, length, position(file));
    return some < 0 ? -1 : real(file, bytes, some);
}

ssize_t writev(int file, const struct iovec *parts, int count)
{
    REAL(ssize_t, writev, int, const struct iovec *, int);
    return allowed(file, sum(parts, count), position(file)) < 0 ? -1 : real(file, parts, count);
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t at)
{
    REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
    ssize_t some = allowed(file, length, at);
    return some < 0 ? -1 : real(file, bytes, some, at);
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t at)
{
    return pwrite(file, bytes, length, at);
}

ssize_t pwritev(int file, const struct iovec *parts, int count, off_t at)
{
    REAL(ssize_t, pwritev, int, const struct iovec *, int, off_t);
    return allowed(file, sum(parts, count), at) < 0 ? -1 : real(file, parts, count, at);
}

ssize_t pwritev64(int file, const struct iovec *parts, int count, off64_t at)
{
    return pwritev(file, parts, count, at);
}

ssize_t pread64(int file, void *bytes, size_t length, off64_t at)
{
    REAL(ssize_t, pread64, int, void *, size_t, off64_t);
    if (at < sector + SECTOR && at + (off64_t)length > sector && is_hit(file)) {
        if (at >= sector) {
            errno = EIO;
            return -1;
        }
        length = sector - at;
    }
    return real(file, bytes, length, at);
}

int posix_fallocate(int file, off_t at, off_t length)
{
    REAL(int, posix_fallocate, int, off_t, off_t);
    return allowed(file, length, at) < 0 ? errno : real(file, at, length);
}

int fsync(int file)
{
    REAL(int, fsync, int);
    if (*plan == 'F' && is_hit(file)) {
        errno = EIO;
        return -1;
    }
    return real(file);
}

int fdatasync(int file)
{
    REAL(int, fdatasync, int);
    return *plan == 'F' ? fsync(file) : real(file);
}

static time_t shift(void)
{
    return *plan == '+' ? DAY : *plan == '-' ? -DAY : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    REAL(int, clock_gettime, clockid_t, struct timespec *);
    int result = real(clock, now);
    if (!result && clock == CLOCK_REALTIME) now->tv_sec += shift();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    REAL(int, gettimeofday, struct timeval *, void *);
    int result = real(now, zone);
    if (!result) now->tv_sec += shift();
    return result;
}

time_t time(time_t *place)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place) *place = now.tv_sec;
    return now.tv_sec;
}
