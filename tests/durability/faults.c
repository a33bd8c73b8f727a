/* What a disk or a clock can do to a program, on order: preloaded into the daemon under test.
 *
 * The file named by FARRIER_TEST_FAULTS says what, one word and number a line:
 *   write ERRNO   writes to the database's files fail
 *   sync ERRNO    fsync and fdatasync of them fail
 *   clock SECONDS the wall clock is off by so much; the monotonic clock is not touched
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The number behind `word` in the orders, 0 without one. */
static long ordered(const char *word)
{
	const char *path = getenv("FARRIER_TEST_FAULTS");
	char text[256], *line, *rest = text;
	long fd, n;

	if (!path)
		return 0;
	fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return 0;
	n = syscall(SYS_read, fd, text, sizeof(text) - 1);
	syscall(SYS_close, fd);
	if (n <= 0)
		return 0;
	text[n] = 0;
	while ((line = strsep(&rest, "\n"))) {
		size_t len = strlen(word);
		if (!strncmp(line, word, len) && line[len] == ' ')
			return atol(line + len);
	}
	return 0;
}

static int refused(int fd, const char *word)
{
	char link[64], path[512];
	int saved = errno;
	long n, error;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof(path) - 1);
	if (n <= 0) {
		errno = saved;
		return 0;
	}
	path[n] = 0;
	if (!strstr(path, "/farrier.db") || strstr(path, ".lock") || !(error = ordered(word))) {
		errno = saved;
		return 0;
	}
	errno = (int)error;
	return 1;
}

ssize_t write(int fd, const void *from, size_t n)
{
	return refused(fd, "write") ? -1 : syscall(SYS_write, fd, from, n);
}

ssize_t pwrite(int fd, const void *from, size_t n, off_t at)
{
	return refused(fd, "write") ? -1 : syscall(SYS_pwrite64, fd, from, n, at);
}

ssize_t pwrite64(int fd, const void *from, size_t n, off64_t at)
{
	return refused(fd, "write") ? -1 : syscall(SYS_pwrite64, fd, from, n, at);
}

int fsync(int fd)
{
	return refused(fd, "sync") ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	return refused(fd, "sync") ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
	int done = (int)syscall(SYS_clock_gettime, clock, at);

	if (!done && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		at->tv_sec += ordered("clock");
	return done;
}
