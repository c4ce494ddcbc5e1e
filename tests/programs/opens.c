/*
 * Opens files in each way there is, by the bare system calls: libc would choose others.
 *
 * Prints for each call its label, the descriptor (-1 when refused) and errno, as the kernel
 * answered: the test compares that with what was traced.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void report(const char *label, long ret)
{
	printf("%s %ld %d\n", label, ret < 0 ? -1 : ret, ret < 0 ? errno : 0);
}

static long openat2_(int dirfd, const char *path, unsigned long long flags, unsigned long long mode,
		     unsigned long long resolve, size_t size)
{
	struct open_how how = { .flags = flags, .mode = mode, .resolve = resolve };

	return syscall(SYS_openat2, dirfd, path, &how, size);
}

static void matrix(void)
{
	int dir;

#ifdef SYS_open
#define OPEN(path, flags, mode) syscall(SYS_open, path, flags, mode)
#else
	/* Newer architectures have openat alone. */
#define OPEN(path, flags, mode) syscall(SYS_openat, AT_FDCWD, path, flags, mode)
#endif
	mkdir("/m", 0755);
	dir = syscall(SYS_openat, AT_FDCWD, "/m/file", O_CREAT | O_WRONLY, 0666);
	report("setup", dir);
	close(dir);

	report("rdonly", OPEN("/m/file", O_RDONLY | O_CLOEXEC, 0));
	report("create", OPEN("/m/new", O_WRONLY | O_CREAT | O_EXCL, 0640));
	report("exists", OPEN("/m/new", O_WRONLY | O_CREAT | O_EXCL, 0600));
	report("missing", OPEN("/m/missing", O_RDONLY, 0));
	/* A mode that the flags do not use is no mode. */
	report("unused-mode", OPEN("/m/file", O_RDONLY | O_NOATIME, 0777));
	report("many-flags", OPEN("/m/file", O_RDWR | O_APPEND | O_TRUNC | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY, 0));
	report("sync", OPEN("/m/file", O_RDONLY | O_SYNC, 0));
	report("dsync", OPEN("/m/file", O_RDONLY | O_DSYNC, 0));
	report("directory", OPEN("/m", O_RDONLY | O_DIRECTORY, 0));
	report("notdir", OPEN("/m/file", O_RDONLY | O_DIRECTORY, 0));
	report("path", OPEN("/m", O_PATH, 0));
	report("tmpfile", OPEN("/m", O_TMPFILE | O_RDWR, 0600));
	report("isdir", OPEN("/m", O_WRONLY, 0));
	report("openat", syscall(SYS_openat, AT_FDCWD, "/m/file", O_RDWR, 0));
	dir = open("/m", O_RDONLY | O_DIRECTORY);
	report("dir-of-openat", dir);
	report("openat-relative", syscall(SYS_openat, dir, "file", O_WRONLY, 0));
	report("openat-bad-dirfd", syscall(SYS_openat, 99, "file", O_RDONLY, 0));
	report("openat2", openat2_(AT_FDCWD, "/m/file", O_RDONLY, 0, 0, sizeof(struct open_how)));
	report("openat2-create", openat2_(dir, "how", O_RDWR | O_CREAT, 0604, RESOLVE_BENEATH,
					  sizeof(struct open_how)));
	report("openat2-beneath", openat2_(dir, "../etc/hostname", O_RDONLY, 0, RESOLVE_BENEATH,
					   sizeof(struct open_how)));
	/* Refused before the kernel looks at anything else. */
	report("openat2-short", openat2_(AT_FDCWD, "/m/short", O_RDONLY, 0, 0, 8));
	report("openat2-flags", openat2_(AT_FDCWD, "/m/flags", 1ULL << 40, 0, 0, sizeof(struct open_how)));
#ifdef SYS_creat
	report("creat", syscall(SYS_creat, "/m/created", 0604));
#endif
	report("fault", syscall(SYS_openat, AT_FDCWD, (char *)8, O_RDONLY, 0));
	report("empty", syscall(SYS_openat, AT_FDCWD, "", O_RDONLY, 0));
	report("not-utf8", syscall(SYS_openat, AT_FDCWD, "/m/\xff\xfe-x", O_RDONLY, 0));
	report("control", syscall(SYS_openat, AT_FDCWD, "/m/\033[31mred\n\ttab\"quote\\", O_RDONLY, 0));
}

static void lengths(void)
{
	static char path[8192];

	/* 4095 bytes, the longest that the kernel takes: "/./././…/x" */
	memset(path, 0, sizeof(path));
	for (int i = 0; i < 4094; i += 2)
		memcpy(path + i, "/.", 2);
	path[4093] = 'x';
	path[4094] = 'y';
	report("longest", syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0));
	/* One more than that, and many more. */
	path[4095] = 'z';
	report("too-long", syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0));
	memset(path, 'a', 8000);
	report("far-too-long", syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0));
}

/* So many opens in a row, of files that do not exist. */
static void many(int count)
{
	char path[64];

	for (int i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "/many/%d", i);
		syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0);
	}
}

int main(int argc, char **argv)
{
	int count;

	if (argc > 1 && !strcmp(argv[1], "matrix"))
		matrix();
	else if (argc > 1 && !strcmp(argv[1], "lengths"))
		lengths();
	else if (argc > 1 && sscanf(argv[1], "%d", &count) == 1)
		many(count);
	else
		return 2;
	/* The last argument tells the test that this was all. */
	fflush(stdout);
	if (argc > 2)
		syscall(SYS_openat, AT_FDCWD, argv[2], O_RDONLY, 0);
	return 0;
}
