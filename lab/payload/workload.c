/*
 * workload FILE: appends numbers to FILE for ever. A number appears on the console ("lab: acked 17") only after
 * it is safe on disk, so whatever the host has seen there must survive any crash. It rests between two of them:
 * an emulated processor that never does slows down whatever else the host has to do.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PAUSE_US = 10000, LINE = 32 };

static int fail(const char *what)
{
    perror(what);
    return 1;
}

/* The number in the last line of a file, which may be one that a crash has cut. */
static long last(int file)
{
    char end[LINE + 1];
    off_t size = lseek(file, 0, SEEK_END);
    ssize_t count = pread(file, end, LINE, size > LINE ? size - LINE : 0);
    if (count <= 0)
        return 0;
    end[count - (end[count - 1] == '\n')] = 0;
    char *line = strrchr(end, '\n');
    return atol(line ? line + 1 : end);
}

int main(int count, char **words)
{
    if (count < 2)
        return 2;
    int file = open(words[1], O_RDWR | O_CREAT | O_APPEND, 0644);
    int console = open("/dev/console", O_WRONLY | O_NOCTTY);
    if (file < 0 || console < 0)
        return fail(words[1]);
    for (long number = last(file) + 1;; number++) {
        char line[LINE], told[2 * LINE];
        int length = snprintf(line, sizeof line, "%ld\n", number);
        if (write(file, line, (size_t)length) != length || fsync(file))
            return fail("write");
        length = snprintf(told, sizeof told, "lab: acked %ld\n", number);
        if (write(console, told, (size_t)length) != length)
            return fail("console");
        usleep(PAUSE_US);
    }
}
