/*
 * What calls itself a container runtime and is none, as a file called runc or as what executes one.
 *
 *   flood user|same COUNT SIZE   on every CPU, COUNT times, executes runc with SIZE bytes of arguments, in a user
 *                                namespace of its own or in the same
 *   hold COUNT                   keeps COUNT processes of runc, until standard input ends; says "held"
 *   quiet                        may not be dumped, says "ready" and, when standard input ends, executes what
 *                                WRAPPED holds (see wrapper.c); becomes root altogether before that if BECOME is set,
 *                                as a set-uid program may
 *   anything else                ends at once; "wait", when standard input ends
 *
 * runc is /bin/runc, or what RUNC says.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void until_end(void)
{
	char buffer[64];

	while (read(0, buffer, sizeof(buffer)) > 0)
		;
}

static const char *runc = "/bin/runc";

static void start(char *const *argv)
{
	if (!vfork()) {
		execv(runc, argv);
		_exit(127);
	}
}

/* A word may have 128 KiB, its NUL included (MAX_ARG_STRLEN). */
static int flood(int own_user_ns, int count, size_t size)
{
	char *word = calloc(1, size + 1);
	char *argv[] = {"runc", "run", "--bundle", "/", word, NULL};
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int failed = 0, status;

	memset(word, 'x', size);
	for (long cpu = 0; cpu < cpus; cpu++) {
		if (fork())
			continue;
		if (own_user_ns && unshare(CLONE_NEWUSER)) {
			perror("unshare");
			_exit(1);
		}
		for (int i = 0; i < count; i++) {
			start(argv);
			if (wait(&status) < 0 || status)
				_exit(1);
		}
		_exit(0);
	}
	while (wait(&status) > 0)
		failed |= status;
	return !!failed;
}

static int hold(int count)
{
	char *argv[] = {"runc", "wait", NULL};

	for (int i = 0; i < count; i++)
		start(argv);
	puts("held");
	fflush(stdout);
	while (wait(NULL) > 0)
		;
	return 0;
}

static int quiet(void)
{
	static char *argv[64];
	char *rest = getenv("WRAPPED");
	int argc = 0;

	if (getenv("BECOME") && setresuid(0, 0, 0)) {
		perror("setresuid");
		return 1;
	}
	prctl(PR_SET_DUMPABLE, 0);
	puts("ready");
	fflush(stdout);
	until_end();
	while (rest && *rest && argc < 63) {
		argv[argc++] = rest;
		rest = strchr(rest, 1);
		if (rest)
			*rest++ = 0;
	}
	if (argc)
		execv(argv[0], argv);
	return 127;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (getenv("RUNC"))
		runc = getenv("RUNC");
	if (!strcmp(what, "flood") && argc == 5)
		return flood(!strcmp(argv[2], "user"), atoi(argv[3]), atoi(argv[4]));
	if (!strcmp(what, "hold") && argc == 3)
		return hold(atoi(argv[2]));
	if (!strcmp(what, "wait"))
		until_end();
	if (getenv("WRAPPED"))
		return quiet();
	return 0;
}
