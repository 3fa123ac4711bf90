/* Preloaded into a claimer: delays the n-th write that this process makes to a block device, before it reaches the
 * kernel, as a stall of the host or of the storage would.
 *   SLOW_WRITE_NTH  which one, from 1
 *   SLOW_WRITE_MS   for how long
 *   SLOW_WRITE_LOG  a file that tells that it happened: a claimer may have given up its standard streams
 *   SLOW_WRITE_BUT  an offset: what is written there is not counted (the MMP block of one who beats)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

static atomic_int writes;

static void delay(int fd, off64_t offset)
{
	int saved = errno;
	const char *nth = getenv("SLOW_WRITE_NTH");
	const char *ms = getenv("SLOW_WRITE_MS");
	const char *log = getenv("SLOW_WRITE_LOG");
	const char *but = getenv("SLOW_WRITE_BUT");
	struct stat status;

	if (but && atoll(but) == offset)
		return;
	if (nth && ms && log && !fstat(fd, &status) && S_ISBLK(status.st_mode) &&
	    atomic_fetch_add(&writes, 1) + 1 == atoi(nth)) {
		struct timespec left = { atol(ms) / 1000, atol(ms) % 1000 * 1000000 };

		FILE *told = fopen(log, "a");

		if (told) {
			fprintf(told, "write %s delayed by %s ms\n", nth, ms);
			fclose(told);
		}
		while (nanosleep(&left, &left))
			;
	}
	errno = saved;
}

#define REAL(name) \
	static __typeof__(&name) real; \
	if (!real) \
		real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
	REAL(pwrite);
	delay(fd, offset);
	return real(fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
	REAL(pwrite64);
	delay(fd, offset);
	return real(fd, bytes, count, offset);
}

ssize_t pwritev(int fd, const struct iovec *vectors, int count, off_t offset)
{
	REAL(pwritev);
	delay(fd, offset);
	return real(fd, vectors, count, offset);
}

ssize_t pwritev64(int fd, const struct iovec *vectors, int count, off64_t offset)
{
	REAL(pwritev64);
	delay(fd, offset);
	return real(fd, vectors, count, offset);
}

ssize_t pwritev2(int fd, const struct iovec *vectors, int count, off_t offset, int flags)
{
	REAL(pwritev2);
	delay(fd, offset);
	return real(fd, vectors, count, offset, flags);
}

ssize_t pwritev64v2(int fd, const struct iovec *vectors, int count, off64_t offset, int flags)
{
	REAL(pwritev64v2);
	delay(fd, offset);
	return real(fd, vectors, count, offset, flags);
}
