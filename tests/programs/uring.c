/*
 * Opens files through io_uring, by the bare interface: no liburing, no libc around the calls.
 *
 * Prints for each request its label, the result (-1 when refused) and errno, as opens.c does.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef IOSQE_CQE_SKIP_SUCCESS
#define IOSQE_CQE_SKIP_SUCCESS (1 << 6)
#endif

struct ring {
	int fd;
	unsigned int *sq_tail, *sq_mask, *sq_array, *sq_flags;
	unsigned int *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

static void set_up(struct ring *ring, unsigned int entries, unsigned int flags, unsigned int cq_entries)
{
	struct io_uring_params p = { .flags = flags, .cq_entries = cq_entries, .sq_thread_idle = 10000 };
	unsigned char *rings;

	ring->fd = syscall(SYS_io_uring_setup, entries, &p);
	if (ring->fd < 0) {
		printf("no-io_uring %d 0\n", errno);
		exit(0);
	}
	rings = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQ_RING);
	ring->sqes = mmap(NULL, p.sq_entries * sizeof(*ring->sqes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			  ring->fd, IORING_OFF_SQES);
	if (rings == MAP_FAILED || ring->sqes == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	ring->sq_tail = (void *)(rings + p.sq_off.tail);
	ring->sq_mask = (void *)(rings + p.sq_off.ring_mask);
	ring->sq_array = (void *)(rings + p.sq_off.array);
	ring->sq_flags = (void *)(rings + p.sq_off.flags);
	ring->cq_head = (void *)(rings + p.cq_off.head);
	ring->cq_tail = (void *)(rings + p.cq_off.tail);
	ring->cq_mask = (void *)(rings + p.cq_off.ring_mask);
	ring->cqes = (void *)(rings + p.cq_off.cqes);
}

static struct io_uring_sqe *add(struct ring *ring, unsigned char opcode, int dirfd, const char *path)
{
	unsigned int tail = *ring->sq_tail, index = tail & *ring->sq_mask;
	struct io_uring_sqe *sqe = &ring->sqes[index];

	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = opcode;
	sqe->fd = dirfd;
	sqe->addr = (unsigned long)path;
	sqe->user_data = tail;
	ring->sq_array[index] = index;
	__atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
	return sqe;
}

static struct io_uring_sqe *openat_(struct ring *ring, int dirfd, const char *path, unsigned int flags, unsigned int mode)
{
	struct io_uring_sqe *sqe = add(ring, IORING_OP_OPENAT, dirfd, path);

	sqe->open_flags = flags;
	sqe->len = mode;
	return sqe;
}

static struct io_uring_sqe *openat2_(struct ring *ring, int dirfd, const char *path, struct open_how *how)
{
	struct io_uring_sqe *sqe = add(ring, IORING_OP_OPENAT2, dirfd, path);

	sqe->off = (unsigned long)how;
	sqe->len = sizeof(*how);
	return sqe;
}

static void enter(struct ring *ring, unsigned int submit, unsigned int wait, unsigned int flags)
{
	if (syscall(SYS_io_uring_enter, ring->fd, submit, wait, flags | (wait ? IORING_ENTER_GETEVENTS : 0), NULL, 0) < 0)
		perror("io_uring_enter");
}

static void report(const char *label, int res)
{
	printf("%s %d %d\n", label, res < 0 ? -1 : res, res < 0 ? -res : 0);
	fflush(stdout);
}

/* Takes the next completion. */
static int take(struct ring *ring)
{
	unsigned int head = *ring->cq_head;
	int res;

	while (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE))
		enter(ring, 0, 1, 0);
	res = ring->cqes[head & *ring->cq_mask].res;
	__atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
	return res;
}

/* Submits the one request that was added and waits for it. */
static void one(struct ring *ring, const char *label)
{
	enter(ring, 1, 1, 0);
	report(label, take(ring));
}

static void matrix(void)
{
	struct ring ring;
	struct open_how how = { .flags = O_RDWR | O_CREAT, .mode = 0604, .resolve = RESOLVE_NO_SYMLINKS };
	int dir, table[2] = { -1, -1 };

	set_up(&ring, 8, 0, 0);
	mkdir("/u", 0755);
	dir = open("/u", O_RDONLY | O_DIRECTORY);
	report("dir", dir);
	openat_(&ring, AT_FDCWD, "/etc/hostname", O_RDONLY | O_CLOEXEC, 0);
	one(&ring, "openat");
	openat_(&ring, AT_FDCWD, "/u/missing", O_RDONLY, 0);
	one(&ring, "missing");
	openat_(&ring, dir, "new", O_WRONLY | O_CREAT | O_EXCL, 0640);
	one(&ring, "create");
	/* By a worker thread. */
	openat_(&ring, AT_FDCWD, "/etc/hostname", O_RDONLY, 0)->flags = IOSQE_ASYNC;
	one(&ring, "async");
	openat2_(&ring, dir, "how", &how);
	one(&ring, "openat2");
	how.flags = O_RDONLY;
	how.mode = 0;
	how.resolve = RESOLVE_BENEATH;
	openat2_(&ring, dir, "../etc", &how);
	one(&ring, "beneath");
	/* Refused before the path is looked at, or read. */
	openat2_(&ring, dir, "short", &how)->len = 8;
	one(&ring, "short");
	openat_(&ring, AT_FDCWD, (char *)8, O_RDONLY, 0);
	one(&ring, "fault");
	/* Into a table of files of the ring's own. */
	if (syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_FILES, table, 2))
		perror("io_uring_register");
	openat_(&ring, AT_FDCWD, "/etc/hostname", O_RDONLY, 0)->file_index = 2;
	one(&ring, "fixed");
}

/* Two at once, of which the first fails, and with it the second. */
static void chain(void)
{
	struct ring ring;

	set_up(&ring, 8, 0, 0);
	openat_(&ring, AT_FDCWD, "/missing", O_RDONLY, 0)->flags = IOSQE_IO_LINK;
	openat_(&ring, AT_FDCWD, "/etc/hostname", O_RDONLY, 0);
	enter(&ring, 2, 2, 0);
	report("missing", take(&ring));
	report("cancelled", take(&ring));
}

/* A thread of the kernel's takes the requests. */
static void polled(void)
{
	struct ring ring;

	set_up(&ring, 8, IORING_SETUP_SQPOLL, 0);
	openat_(&ring, AT_FDCWD, "/etc/hostname", O_RDONLY, 0);
	if (__atomic_load_n(ring.sq_flags, __ATOMIC_SEQ_CST) & IORING_SQ_NEED_WAKEUP)
		enter(&ring, 0, 0, IORING_ENTER_SQ_WAKEUP);
	report("polled", take(&ring));
}

/* Whose results nobody gets to see: success is not reported, or there is no room for the report. */
static void silent(void)
{
	struct ring ring;
	struct stat file;

	set_up(&ring, 8, 0, 0);
	openat_(&ring, AT_FDCWD, "/silent", O_WRONLY | O_CREAT, 0600)->flags = IOSQE_CQE_SKIP_SUCCESS;
	enter(&ring, 1, 0, 0);
	while (stat("/silent", &file))
		usleep(1000);
	report("silent", 0);
	close(ring.fd);
	set_up(&ring, 4, IORING_SETUP_CQSIZE, 4);
	for (int i = 0; i < 4; i++)
		add(&ring, IORING_OP_NOP, 0, NULL);
	enter(&ring, 4, 0, 0);
	openat_(&ring, AT_FDCWD, "/overflow", O_RDONLY, 0);
	enter(&ring, 1, 0, 0);
	while (!(__atomic_load_n(ring.sq_flags, __ATOMIC_SEQ_CST) & IORING_SQ_CQ_OVERFLOW))
		usleep(1000);
	report("overflow", -ENOENT);
}

static void many(int count)
{
	struct ring ring;
	char path[64];

	set_up(&ring, 64, 0, 0);
	for (int i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "/many/%d", i);
		openat_(&ring, AT_FDCWD, path, O_RDONLY, 0);
		enter(&ring, 1, 1, 0);
		take(&ring);
	}
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "matrix"))
		matrix();
	else if (!strcmp(what, "chain"))
		chain();
	else if (!strcmp(what, "polled"))
		polled();
	else if (!strcmp(what, "silent"))
		silent();
	else if (atoi(what))
		many(atoi(what));
	else
		return 2;
	/* The last argument tells the test that this was all. */
	fflush(stdout);
	if (argc > 2)
		syscall(SYS_openat, AT_FDCWD, argv[2], O_RDONLY, 0);
	return 0;
}
