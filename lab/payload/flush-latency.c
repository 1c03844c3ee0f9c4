/*
 * flush-latency FILE RESULT [PAUSE_US]: overwrites blocks of FILE, each followed by fdatasync, until it is told
 * to stop (SIGTERM). Then RESULT gets one line per flush: microseconds since the start, and how many it took.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, BLOCKS = 256, RECORDS = 1 << 20 };

static volatile sig_atomic_t stopped;
static unsigned began_at[RECORDS], took[RECORDS];
static char block[BLOCK];

static void stop(int signal)
{
    (void)signal;
    stopped = 1;
}

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000LL + time.tv_nsec / 1000;
}

static int fail(const char *what)
{
    perror(what);
    return 1;
}

int main(int count, char **words)
{
    if (count < 3)
        return 2;
    int file = open(words[1], O_RDWR | O_CREAT, 0644);
    if (file < 0)
        return fail(words[1]);
    /* Allocated before: what is measured is a write and a flush, not the file system's bookkeeping. */
    for (int at = 0; at < BLOCKS; at++)
        if (write(file, block, BLOCK) != BLOCK)
            return fail("write");
    if (fsync(file))
        return fail("fsync");
    signal(SIGTERM, stop);

    long long start = now();
    int done = 0;
    while (!stopped && done < RECORDS) {
        long long before = now();
        block[0] = (char)done;
        if (pwrite(file, block, BLOCK, (off_t)(done % BLOCKS) * BLOCK) != BLOCK || fdatasync(file))
            return fail("write");
        began_at[done] = (unsigned)(before - start);
        took[done] = (unsigned)(now() - before);
        done++;
        if (count > 3)
            usleep((useconds_t)atoi(words[3]));
    }

    FILE *result = fopen(words[2], "w");
    if (!result)
        return fail(words[2]);
    for (int at = 0; at < done; at++)
        fprintf(result, "%u %u\n", began_at[at], took[at]);
    return fclose(result) ? fail(words[2]) : 0;
}
